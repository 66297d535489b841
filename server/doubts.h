/*
 * Acts in doubt: what can be seen of them is there, but a flush that was to make it durable failed.
 * The daemon knows what happened; it does not know whether a power loss would undo it. So each
 * stays open, and its flush is tried again: before the next act about images or artifacts of that
 * tenant begins, for what that one makes of the same names must not be taken for the outcome of the
 * earlier; when the call is repeated; and at the end. What is left open then, the next start
 * settles by what is there (settle.h).
 *
 * Workers only; all but the adding blocks.
 */
#ifndef SPB_SERVER_DOUBTS_H
#define SPB_SERVER_DOUBTS_H

#include "audit/tables.h"
#include "call.h"

struct spb_doubts;

SPB_MUST_USE spb_status spb_doubts_new(struct spb_daemon *daemon, struct spb_doubts **doubts,
                                       struct spb_error *err);
/* The last try. Accepts NULL. */
void spb_doubts_free(struct spb_doubts *doubts);

/* Instead of the end of the call's intent: the file at the path has got that name, or has it no
 * more. */
void spb_doubt_name(struct spb_call *call, uint16_t tenant, const char *path);
/* The same of an artifact that was stored, or deleted: with its row. */
void spb_doubt_artifact(struct spb_call *call, const struct spb_artifact_row *row, bool deleted);

/* Tries those of a tenant. SPB_IO: one is left, and nothing may be begun before it. */
SPB_MUST_USE spb_status spb_doubts_settle(struct spb_doubts *doubts, uint16_t tenant,
                                          struct spb_error *err);
/* Tries all. */
void spb_doubts_try(struct spb_doubts *doubts);
/* Are there any? Any thread; does not block. */
bool spb_doubts_are(const struct spb_doubts *doubts);

#endif
