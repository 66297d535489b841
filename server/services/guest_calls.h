/* What the files of the service Guests share. */
#ifndef SPB_SERVER_SERVICES_GUEST_CALLS_H
#define SPB_SERVER_SERVICES_GUEST_CALLS_H

#include "call.h"
#include "supervisor/guest.h"
#include "waits.h"

/* For gates: the reference is there, and names what can be a guest. */
bool spb_gate_guest(struct spb_call *call, const PB_GuestRef *ref);
uint16_t spb_guest_ref_tenant(const struct spb_call *call, const PB_GuestRef *ref);
/* Sets call->guest, or the error: the same for an absent guest and another tenant's. */
bool spb_find_guest(struct spb_call *call, const PB_GuestRef *ref);

/* For the gate of Create: every field of a configuration, of a guest of that tenant. */
bool spb_gate_guest_config(struct spb_call *call, const PB_GuestConfig *config, uint16_t tenant);
/* What it says where it said nothing, but for times, which stay the daemon's to say. */
void spb_guest_config_complete(PB_GuestConfig *config, uint16_t tenant);

/* How a call waits for news of its guest. state is the call's. */
struct spb_guest_wait_kind {
    bool (*has_come)(struct spb_call *call); /* what it waits for; takes the guest's lock briefly */
    void (*answer)(struct spb_call *call);   /* it has come, or the time is over */
};

/*
 * Answers the call once what it waits for has come, or the time is over; at once where it has come
 * already, or may not wait. The request is forgotten; state, of size bytes, is copied, and is
 * call->state from then on. The loop's thread.
 */
void spb_guest_wait(struct spb_call *call, const struct spb_guest_wait_kind *kind, uint32_t wait_ms,
                    const void *state, size_t size);

#endif
