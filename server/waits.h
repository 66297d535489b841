/*
 * Calls that wait on the loop's thread: for events, for the end of a scrub. Each ends when what it
 * waits for has come (its owner takes it out and answers), when its time has passed, when its
 * connection has ended or sends no more, or when the daemon drains; nothing else keeps it. All are
 * in one heap by the time at which they end, with one timer for the first: waits are given in
 * milliseconds and deadlines are near, which a tick of a quarter second would miss.
 *
 * A wait is embedded in what its owner keeps of the call. The loop's thread.
 */
#ifndef SPB_SERVER_WAITS_H
#define SPB_SERVER_WAITS_H

#include "call.h"

#define SPB_WAIT_MS_MAX 60000u /* that a call may ask for */

struct spb_waits;

struct spb_waiter {
    struct spb_call *call;
    int64_t until_ns;
    size_t place; /* in the heap */
    /* The wait is over, and out already: sees to it that the call is answered. */
    void (*end)(struct spb_waiter *wait);
};

SPB_MUST_USE spb_status spb_waits_new(struct spb_daemon *daemon, struct spb_waits **waits,
                                      struct spb_error *err);
/* No wait may be left. Accepts NULL. */
void spb_waits_free(struct spb_waits *waits);

/* When a call that asked to wait so long is to end: earlier where its deadline is near, with time
 * for the answer's way. */
int64_t spb_wait_until(const struct spb_call *call, uint32_t wait_ms);
/* Whether the call may still wait at all: not past its time, while draining, or where its peer
 * sends no more. */
bool spb_wait_may_begin(const struct spb_call *call, int64_t until_ns);

/* call, until_ns and end are set. False, with the call's error set: as many wait as may
 * (watchers_max), or there is no memory. */
bool spb_waits_add(struct spb_waits *waits, struct spb_waiter *wait);
void spb_waits_remove(struct spb_waits *waits, struct spb_waiter *wait);
size_t spb_waits_count(const struct spb_waits *waits);

/* The connection of that slot and generation is gone, or will send no more: its waits end. */
void spb_waits_end_connection(struct spb_waits *waits, uint32_t slot, uint32_t generation);
/* The daemon drains. */
void spb_waits_end_all(struct spb_waits *waits);

#endif
