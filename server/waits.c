/* Calls that wait; see waits.h. */
#include "waits.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/status.h"
#include "daemon.h"

#define ENDS_A_TURN 512u
#define ROOM_MIN 64u
/* What is left of a deadline for the answer's way: an eighth of it, between these. */
#define MARGIN_MIN_NS (5 * SPB_NS_PER_MS)
#define MARGIN_MAX_NS (1 * SPB_NS_PER_S)

struct spb_waits {
    struct spb_daemon *daemon;
    struct spb_timer *timer;
    size_t count, room;
    struct spb_waiter **heap; /* the one that ends first is at 0 */
};

/* ---- The heap ----------------------------------------------------------------------------- */

static void put(struct spb_waits *waits, size_t place, struct spb_waiter *wait)
{
    waits->heap[place] = wait;
    wait->place = place;
}

static void rise(struct spb_waits *waits, size_t place, struct spb_waiter *wait)
{
    while (place > 0) {
        size_t above = (place - 1) / 2;

        if (waits->heap[above]->until_ns <= wait->until_ns)
            break;
        put(waits, place, waits->heap[above]);
        place = above;
    }
    put(waits, place, wait);
}

static void sink(struct spb_waits *waits, size_t place, struct spb_waiter *wait)
{
    for (;;) {
        size_t below = place * 2 + 1;

        if (below >= waits->count)
            break;
        if (below + 1 < waits->count &&
            waits->heap[below + 1]->until_ns < waits->heap[below]->until_ns)
            below++;
        if (wait->until_ns <= waits->heap[below]->until_ns)
            break;
        put(waits, place, waits->heap[below]);
        place = below;
    }
    put(waits, place, wait);
}

static void take_out(struct spb_waits *waits, struct spb_waiter *wait)
{
    size_t place = wait->place;

    SPB_ASSERT(place < waits->count && waits->heap[place] == wait);
    struct spb_waiter *last = waits->heap[--waits->count];
    if (last == wait)
        return;
    if (place > 0 && last->until_ns < waits->heap[(place - 1) / 2]->until_ns)
        rise(waits, place, last);
    else
        sink(waits, place, last);
}

static void set_timer(struct spb_waits *waits)
{
    if (waits->count > 0)
        spb_timer_set(waits->timer, waits->heap[0]->until_ns);
    else
        spb_timer_stop(waits->timer);
}

/* ---- Ends --------------------------------------------------------------------------------- */

static void end(struct spb_waits *waits, struct spb_waiter *wait)
{
    take_out(waits, wait);
    wait->end(wait);
}

/* The timer's. What is more than a turn's share goes on in the next one. */
static void end_due(void *user)
{
    struct spb_waits *waits = user;
    int64_t now_ns = spb_loop_now_ns(waits->daemon->loop);

    for (unsigned i = 0; i < ENDS_A_TURN && waits->count > 0; i++) {
        if (waits->heap[0]->until_ns > now_ns)
            break;
        end(waits, waits->heap[0]);
    }
    set_timer(waits);
}

void spb_waits_end_connection(struct spb_waits *waits, uint32_t slot, uint32_t generation)
{
    size_t i = waits->count;

    /* From the back: what takes the place of one that goes comes from behind it, and was looked
     * at, unless it rises and what is above comes down. So the place is looked at again. */
    while (i > 0) {
        struct spb_waiter *wait = waits->heap[--i];

        if (wait->call->origin.slot != slot || wait->call->origin.generation != generation)
            continue;
        end(waits, wait);
        if (i < waits->count)
            i++;
    }
    set_timer(waits);
}

void spb_waits_end_all(struct spb_waits *waits)
{
    while (waits->count > 0)
        end(waits, waits->heap[waits->count - 1]);
    set_timer(waits);
}

/* ---- Waiting ------------------------------------------------------------------------------ */

int64_t spb_wait_until(const struct spb_call *call, uint32_t wait_ms)
{
    int64_t now_ns =
        spb_loop_is_here(call->daemon->loop) ? spb_loop_now_ns(call->daemon->loop) : spb_now_ns();
    int64_t until_ns = now_ns + wait_ms * SPB_NS_PER_MS;

    if (call->deadline_ns == 0)
        return until_ns;
    int64_t left_ns = call->deadline_ns - now_ns;
    int64_t margin_ns = left_ns / 8;
    if (margin_ns < MARGIN_MIN_NS)
        margin_ns = MARGIN_MIN_NS;
    if (margin_ns > MARGIN_MAX_NS)
        margin_ns = MARGIN_MAX_NS;
    return until_ns < call->deadline_ns - margin_ns ? until_ns : call->deadline_ns - margin_ns;
}

bool spb_wait_may_begin(const struct spb_call *call, int64_t until_ns)
{
    return until_ns > spb_loop_now_ns(call->daemon->loop) && call->origin.is_attended(call) &&
           !atomic_load_explicit(&call->daemon->draining, memory_order_relaxed);
}

static bool has_room(struct spb_waits *waits)
{
    if (waits->count < waits->room)
        return true;
    size_t room = waits->room == 0 ? ROOM_MIN : waits->room * 2;
    struct spb_waiter **heap = realloc(waits->heap, room * sizeof(struct spb_waiter *));
    if (heap == NULL)
        return false;
    waits->heap = heap;
    waits->room = room;
    return true;
}

bool spb_waits_add(struct spb_waits *waits, struct spb_waiter *wait)
{
    if (waits->count >= SPB_LIMIT(waits->daemon, watchers_max)) {
        spb_call_set_fault(wait->call, PB_REASON(LIMIT_EXCEEDED),
                           "%zu calls of all connections wait for something to come, no more may: "
                           "try again later",
                           waits->count);
        return false;
    }
    if (!has_room(waits)) {
        spb_call_set_fault(wait->call, PB_REASON(INTERNAL), "no memory for a call that waits");
        return false;
    }
    rise(waits, waits->count++, wait);
    if (wait->place == 0)
        set_timer(waits);
    return true;
}

void spb_waits_remove(struct spb_waits *waits, struct spb_waiter *wait)
{
    bool first = wait->place == 0;

    take_out(waits, wait);
    if (first)
        set_timer(waits);
}

size_t spb_waits_count(const struct spb_waits *waits)
{
    return waits->count;
}

/* ---- Life --------------------------------------------------------------------------------- */

spb_status spb_waits_new(struct spb_daemon *daemon, struct spb_waits **out, struct spb_error *err)
{
    struct spb_waits *waits = calloc(1, sizeof(*waits));

    if (waits == NULL)
        return spb_fail_memory(err, "making the table of waiting calls");
    waits->daemon = daemon;
    spb_status status = spb_timer_new(daemon->loop, end_due, waits, &waits->timer, err);
    if (!spb_is_ok(status)) {
        free(waits);
        return status;
    }
    *out = waits;
    return spb_ok();
}

void spb_waits_free(struct spb_waits *waits)
{
    if (waits == NULL)
        return;
    SPB_ASSERT(waits->count == 0);
    spb_timer_free(waits->timer);
    free(waits->heap);
    free(waits);
}
