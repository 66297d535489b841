/*
 * The protocol of a connection, without I/O: calls become bytes to send, bytes that arrived become
 * callbacks. The connection is lost once, with a reason, and every call that ran then ends with it.
 *
 * What a peer can do here: end its own calls, or lose the connection. A frame of a type other than
 * Response is ignored; a Response to an even or unknown stream id, or a header that is no header,
 * loses the connection; an answer that does not parse or is over the limit ends its call alone; an
 * answer after its deadline is dropped. One connection, one thread.
 */
#ifndef SPB_CLIENT_CALL_SESSION_H
#define SPB_CLIENT_CALL_SESSION_H

#include "call_table.h"
#include "outbox.h"
#include "ttrpc/ttrpc.h"

#define SPB_STREAM_MAX 0x7FFFFFFFu

struct spb_session {
    struct spb_ttrpc_parser parser;
    struct spb_call_table calls;
    struct spb_outbox outbox;
    uint64_t next_stream; /* odd; above SPB_STREAM_MAX none is left */
    uint64_t ended;       /* calls whose callback ran or runs */
    bool is_in_callback;
    bool is_lost;
    struct spb_error loss; /* why */
};

struct spb_session_call {
    const char *service, *method; /* borrowed for the call of spb_session_start */
    const void *payload;          /* copied */
    size_t size;
    int64_t timeout_ms;  /* negative for none */
    int64_t deadline_ns; /* 0: it follows from timeout_ms; else of an attempt that is not the first,
                            and timeout_ms is what the caller asked for at first */
    spb_client_callback callback;
    void *user;
};

void spb_session_init(struct spb_session *session);
/* No call may be running any more. */
void spb_session_done(struct spb_session *session);

/* SPB_LIMIT for a payload that no frame can hold, whatever the deadline. */
SPB_MUST_USE spb_status spb_session_check_size(const char *service, const char *method, size_t size,
                                               struct spb_error *err);
/* Queues a call's bytes. On a failure nothing changed. */
SPB_MUST_USE spb_status spb_session_start(struct spb_session *session,
                                          const struct spb_session_call *call, int64_t now_ns,
                                          struct spb_error *err);
/* Takes bytes that arrived; runs callbacks. May lose the connection. */
void spb_session_feed(struct spb_session *session, const uint8_t *bytes, size_t n);
/* Ends the calls whose deadline is not after now. */
void spb_session_expire(struct spb_session *session, int64_t now_ns);
/* Loses the connection, if it is not lost: ends all calls with why (borrowed, copied). */
void spb_session_lose(struct spb_session *session, const struct spb_error *why);

#endif
