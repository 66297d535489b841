/*
 * What is due at some time, earliest first: a heap of timers that lie in their owners' structures.
 * Setting and dropping one costs no scan, and no allocation once there was room for it. One
 * thread.
 */
#ifndef SPB_CLIENT_TIMERS_H
#define SPB_CLIENT_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPB_TIMER_IDLE SIZE_MAX

struct spb_timer {
    int64_t when_ns; /* not to be changed while it is set */
    size_t index;    /* in the heap; SPB_TIMER_IDLE while it is not set */
};

struct spb_timers {
    struct spb_timer **heap; /* owned; the timers are borrowed while they are set */
    size_t count, size;
};

/* Room for so many timers in all; false: no memory, and nothing changed. */
bool spb_timers_reserve(struct spb_timers *timers, size_t count);
void spb_timers_done(struct spb_timers *timers);

/* The timer is idle and there is room for it. Cannot fail. */
void spb_timers_set(struct spb_timers *timers, struct spb_timer *timer, int64_t when_ns);
/* Does nothing to one that is idle. */
void spb_timers_drop(struct spb_timers *timers, struct spb_timer *timer);

/* The earliest, or NULL. */
static inline struct spb_timer *spb_timers_first(const struct spb_timers *timers)
{
    return timers->count == 0 ? NULL : timers->heap[0];
}

#endif
