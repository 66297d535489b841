/* A heap of timers. One thread. */
#include "timers.h"

#include <stdlib.h>

#include "base/status.h"

#define SIZE_FIRST ((size_t)64)

bool spb_timers_reserve(struct spb_timers *timers, size_t count)
{
    size_t size = timers->size == 0 ? SIZE_FIRST : timers->size;

    if (count <= timers->size)
        return true;
    while (size < count)
        size *= 2;
    struct spb_timer **heap = reallocarray(timers->heap, size, sizeof(struct spb_timer *));
    if (heap == NULL)
        return false;
    timers->heap = heap;
    timers->size = size;
    return true;
}

void spb_timers_done(struct spb_timers *timers)
{
    free(timers->heap);
    *timers = (struct spb_timers){.heap = NULL};
}

static void place(struct spb_timers *timers, size_t index, struct spb_timer *timer)
{
    timers->heap[index] = timer;
    timer->index = index;
}

static void rise(struct spb_timers *timers, size_t index, struct spb_timer *timer)
{
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (timers->heap[parent]->when_ns <= timer->when_ns)
            break;
        place(timers, index, timers->heap[parent]);
        index = parent;
    }
    place(timers, index, timer);
}

static void sink(struct spb_timers *timers, size_t index, struct spb_timer *timer)
{
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= timers->count)
            break;
        if (child + 1 < timers->count &&
            timers->heap[child + 1]->when_ns < timers->heap[child]->when_ns)
            child++;
        if (timer->when_ns <= timers->heap[child]->when_ns)
            break;
        place(timers, index, timers->heap[child]);
        index = child;
    }
    place(timers, index, timer);
}

void spb_timers_set(struct spb_timers *timers, struct spb_timer *timer, int64_t when_ns)
{
    SPB_ASSERT(timer->index == SPB_TIMER_IDLE && timers->count < timers->size);
    timer->when_ns = when_ns;
    rise(timers, timers->count++, timer);
}

void spb_timers_drop(struct spb_timers *timers, struct spb_timer *timer)
{
    size_t index = timer->index;

    if (index == SPB_TIMER_IDLE)
        return;
    struct spb_timer *last = timers->heap[--timers->count];

    timer->index = SPB_TIMER_IDLE;
    if (last == timer)
        return;
    /* The last one fills the gap and finds its place from there, upwards or downwards. */
    rise(timers, index, last);
    sink(timers, last->index, last);
}
