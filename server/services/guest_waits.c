/* Calls that wait for news of a guest: of its state, or of its console. The loop's thread. */
#include "base/status.h"
#include "daemon.h"
#include "services/guest_calls.h"
#include "supervisor/guests.h"

/* In the call's arena. */
struct spb_guest_wait {
    struct spb_waiter waiter;
    struct spb_call *call;
    struct spb_guest_wait *next;
    const struct spb_guest_wait_kind *kind;
};

static void count(struct spb_guest *guest, int change)
{
    (void)pthread_mutex_lock(&guest->lock);
    guest->wait_count += (uint32_t)change;
    (void)pthread_mutex_unlock(&guest->lock);
}

static void leave(struct spb_guest_wait *wait)
{
    struct spb_guest *guest = wait->call->guest;
    struct spb_guest_wait **link = &guest->waits;

    while (*link != wait)
        link = &(*link)->next;
    *link = wait->next;
    count(guest, -1);
}

/* Its time has passed, its connection has ended, or the daemon drains. */
static void end_wait(struct spb_waiter *waiter)
{
    struct spb_guest_wait *wait = SPB_CONTAINER(waiter, struct spb_guest_wait, waiter);

    leave(wait);
    wait->kind->answer(wait->call);
}

/* Answering gives the call back, and the wait with it. */
void spb_guests_tell_waits(struct spb_guest *guest)
{
    struct spb_guest_wait *next;

    for (struct spb_guest_wait *wait = guest->waits; wait != NULL; wait = next) {
        next = wait->next;
        if (!wait->kind->has_come(wait->call))
            continue;
        leave(wait);
        spb_waits_remove(guest->daemon->waits, &wait->waiter);
        wait->kind->answer(wait->call);
    }
}

/* NULL: it does not wait, and was answered. */
static struct spb_guest_wait *begin(struct spb_call *call, const struct spb_guest_wait_kind *kind,
                                    int64_t until_ns)
{
    struct spb_guest_wait *wait = spb_call_alloc(call, sizeof(*wait));

    if (wait != NULL)
        *wait = (struct spb_guest_wait){
            .waiter = {.call = call, .until_ns = until_ns, .end = end_wait},
            .call = call,
            .next = call->guest->waits,
            .kind = kind,
        };
    if (wait != NULL && spb_waits_add(call->daemon->waits, &wait->waiter))
        return wait;
    spb_call_send(call);
    return NULL;
}

void spb_guest_wait(struct spb_call *call, const struct spb_guest_wait_kind *kind, uint32_t wait_ms,
                    const void *state, size_t size)
{
    int64_t until_ns = spb_wait_until(call, wait_ms);
    uint8_t kept[64];

    SPB_ASSERT(size <= sizeof(kept));
    memcpy(kept, state, size);
    spb_call_forget_request(call);
    call->state = spb_call_alloc(call, size);
    if (call->state == NULL) {
        spb_call_send(call);
        return;
    }
    memcpy(call->state, kept, size);
    if (kind->has_come(call) || wait_ms == 0 || !spb_wait_may_begin(call, until_ns)) {
        kind->answer(call);
        return;
    }
    struct spb_guest *guest = call->guest;
    struct spb_guest_wait *wait = begin(call, kind, until_ns);
    if (wait == NULL)
        return;
    guest->waits = wait;
    count(guest, 1);
    /* What came before that was counted was told to nobody. */
    if (!kind->has_come(call))
        return;
    leave(wait);
    spb_waits_remove(guest->daemon->waits, &wait->waiter);
    kind->answer(call);
}
