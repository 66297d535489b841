/*
 * Connections: bytes in, frames to dispatch; answers back, bytes out. Everything here is the loop's
 * thread's. Answers find their connection by slot and generation, so that one which is gone is
 * simply not there any more.
 */
#ifndef SPB_SERVER_CONN_H
#define SPB_SERVER_CONN_H

#include <stddef.h>

#include "metrics.h"
#include "principal.h"
#include "spaceblock/status.h"

struct spb_conns;
struct spb_daemon;

SPB_MUST_USE spb_status spb_conns_new(struct spb_daemon *daemon, struct spb_conns **conns,
                                      struct spb_error *err);
/* Closes all. No call may be left. Accepts NULL. */
void spb_conns_free(struct spb_conns *conns);

/* Takes over a connected, non-blocking socket; closes it where there is no place for it. */
void spb_conns_adopt(struct spb_conns *conns, int fd, const struct spb_principal *principal);
/* Counts and logs, at most once a second, that a connection was not taken. */
void spb_conns_note_refusal(struct spb_conns *conns, enum spb_refusal why, const char *reason);

/* Flushes what the turn has gathered for each connection. */
void spb_conns_turn(struct spb_conns *conns);
/* Closes what has passed a deadline. */
void spb_conns_tick(struct spb_conns *conns);

/* Whether every call is answered and every answer has left. */
bool spb_conns_are_quiet(const struct spb_conns *conns);

#endif
