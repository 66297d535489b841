/*
 * The calls of a client that reconnects, and the schedule of its connections: a state machine
 * without I/O. What happened is told to it, with the time; it says what to do next and when. It
 * runs each call's callback exactly once.
 *
 * A call is in one of three places: it waits for a connection (in the order of starting), it is on
 * the wire (an attempt, whose end is told by spb_retrier_take_reply), or it pauses because the
 * daemon asked to come later. It holds the bytes of its request, so that all attempts send the
 * same. One client, one thread.
 *
 * Delays between connections grow with each failure in a row; only an answer ends the row, for a
 * peer that accepts and hangs up is no daemon. What is repeated is paid from the budget: each call
 * that was on the wire, and each further attempt to connect after one that failed.
 */
#ifndef SPB_CLIENT_RETRIER_H
#define SPB_CLIENT_RETRIER_H

#include "clock.h"
#include "retry_policy.h"
#include "timers.h"

enum spb_retry_place { SPB_RETRY_WAITS, SPB_RETRY_PAUSES, SPB_RETRY_ON_WIRE };

struct spb_retry_call {
    struct spb_retrier *retrier;
    uint64_t sequence; /* order of starting */
    enum spb_retry_place place;
    struct spb_retry_call *older, *newer; /* of those that wait */
    struct spb_timer timer;               /* waits: the deadline; pauses: the end of the pause */
    int64_t deadline_ns, timeout_ms;
    enum spb_client_mode mode;
    bool was_sent;     /* once at least */
    unsigned attempts; /* on the wire, or in vain to get a connection */
    unsigned refusals; /* by the daemon, with the wish to come later */
    spb_client_callback callback;
    void *user; /* borrowed until the callback ran */
    /* How the last attempt failed; meaningless before one has. */
    struct spb_error why;
    struct spb_client_failure failure;
    /* The request; owned, in the same block. */
    const char *service, *method;
    const uint8_t *payload;
    size_t size;
};

struct spb_retrier {
    struct spb_retry_policy policy;
    struct spb_timers timers;
    struct spb_retry_call *oldest, *newest; /* of those that wait */
    size_t count, waiting, on_wire;
    uint64_t sequence, ended;
    bool is_in_callback, is_closed;
    int64_t now_ns;
    /* The schedule of connections. */
    unsigned failures; /* in a row */
    bool was_up;
    int64_t dial_ns;           /* not before */
    int64_t first_until_ns;    /* the first connection is tried for so long */
    struct spb_error dial_why; /* how the last attempt that failed did */
    /* Who is told of what is tried again. */
    spb_client_notice_callback notice;
    void *notice_user;
    const char *endpoint; /* borrowed */
};

/* Options that were checked; endpoint is borrowed for good, for notices. */
void spb_retrier_init(struct spb_retrier *retrier, const struct spb_client_options *options,
                      const char *endpoint, uint64_t seed, int64_t now_ns);
/* No call is left any more. */
void spb_retrier_done(struct spb_retrier *retrier);

/* The time that all else here goes by, until it is set anew. */
static inline void spb_retrier_set_time(struct spb_retrier *retrier, int64_t now_ns)
{
    retrier->now_ns = now_ns;
}

/* Takes a call in; it waits. On a failure nothing changed. */
SPB_MUST_USE spb_status spb_retrier_add(struct spb_retrier *retrier,
                                        const struct spb_client_call *call, int64_t deadline_ns,
                                        struct spb_error *err);

/* ---- Attempts ----------------------------------------------------------------------------- */

/* The call that has waited longest; NULL: none. Then it was sent, or could not be. */
static inline struct spb_retry_call *spb_retrier_next(const struct spb_retrier *retrier)
{
    return retrier->oldest;
}
void spb_retrier_sent(struct spb_retry_call *call);
void spb_retrier_not_sent(struct spb_retry_call *call, const struct spb_error *why);

/* An spb_client_callback over the struct spb_retry_call that was sent: ends it, or has it wait or
 * pause for the next attempt. Of a lost connection, spb_retrier_link_lost comes before. */
void spb_retrier_take_reply(void *call, const struct spb_client_reply *reply);

/* ---- Connections -------------------------------------------------------------------------- */

/* Is there a call that needs one? */
static inline bool spb_retrier_wants_link(const struct spb_retrier *retrier)
{
    return retrier->waiting > 0;
}
static inline bool spb_retrier_may_dial(const struct spb_retrier *retrier)
{
    return spb_retrier_wants_link(retrier) && retrier->now_ns >= retrier->dial_ns;
}
void spb_retrier_link_up(struct spb_retrier *retrier);
/* was_needed: calls were on the wire. Otherwise the next connection need not wait. */
void spb_retrier_link_lost(struct spb_retrier *retrier, bool was_needed);
/* Tells of the reconnecting, if there will be any. */
void spb_retrier_tell_lost(struct spb_retrier *retrier, const struct spb_error *why);
void spb_retrier_dial_failed(struct spb_retrier *retrier, const struct spb_error *why);

/* ---- Time --------------------------------------------------------------------------------- */

/* Ends pauses, and calls that waited for a connection until their deadline. */
void spb_retrier_expire(struct spb_retrier *retrier);
/* When that has something to do; SPB_NO_DEADLINE: never. */
int64_t spb_retrier_wake_ns(const struct spb_retrier *retrier);

/* Ends all calls that are not on the wire, and takes no more; those on the wire end as they are
 * told to, without another attempt. */
void spb_retrier_close(struct spb_retrier *retrier, const struct spb_error *why);

#endif
