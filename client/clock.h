/*
 * Deadlines: nanoseconds of CLOCK_MONOTONIC, which neither jumps nor stops with the wall clock.
 * No state; any thread.
 */
#ifndef SPB_CLIENT_CLOCK_H
#define SPB_CLIENT_CLOCK_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

#define SPB_NO_DEADLINE INT64_MAX
#define SPB_NS_PER_MS INT64_C(1000000)
#define SPB_NS_PER_S INT64_C(1000000000)
/* A hundred years; more is as good as none, and keeps sums within 64 bits. */
#define SPB_TIMEOUT_MS_MAX (INT64_C(100) * 366 * 86400 * 1000)

static inline int64_t spb_clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SPB_NS_PER_S + now.tv_nsec;
}

/* Negative, and what no one will live to see: no deadline. */
static inline int64_t spb_deadline_after(int64_t now_ns, int64_t timeout_ms)
{
    if (timeout_ms < 0 || timeout_ms > SPB_TIMEOUT_MS_MAX)
        return SPB_NO_DEADLINE;
    return now_ns + timeout_ms * SPB_NS_PER_MS;
}

/* Milliseconds until the deadline, rounded up so that a wait of that length reaches it; 0 where it
 * has passed, -1 for none. */
static inline int64_t spb_ms_until(int64_t deadline_ns, int64_t now_ns)
{
    if (deadline_ns == SPB_NO_DEADLINE)
        return -1;
    if (deadline_ns <= now_ns)
        return 0;
    return (deadline_ns - now_ns - 1) / SPB_NS_PER_MS + 1;
}

/* The same for poll(2); a wait longer than an int has is cut, and the caller goes round again. */
static inline int spb_poll_timeout(int64_t deadline_ns, int64_t now_ns)
{
    int64_t ms = spb_ms_until(deadline_ns, now_ns);

    return ms > INT_MAX ? INT_MAX : (int)ms;
}

#endif
