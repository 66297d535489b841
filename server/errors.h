/*
 * The one place where internal outcomes become errors of the wire: a reason decides the RPC code, a
 * spb_code decides the reason, and all details are put together here. No state; any thread.
 */
#ifndef SPB_SERVER_ERRORS_H
#define SPB_SERVER_ERRORS_H

#include "arena.h"
#include "messages.h"
#include "spaceblock/status.h"

/* Why a call failed. */
struct spb_fault {
    PB_ErrorReason reason;
    const char *text;  /* what was tried, on what, what was found and expected */
    const char *field; /* path of the bad field of the request, or NULL */
    const char *image; /* "TENANT/NAME" where the call is about one, or NULL */
    uint32_t retry_ms; /* with what passes: when to try again */
};

PB_ErrorReason spb_reason_of(enum spb_code code);
/* Canonical code, 1 to 16. */
int32_t spb_rpc_code_of(PB_ErrorReason reason);

/*
 * The fault as an encoded ttrpc Response in the arena; NULL where the arena is full. Peers' bytes
 * in the text that are no UTF-8 are replaced, for the message is a string.
 */
uint8_t *spb_fault_encode(const struct spb_fault *fault, struct spb_arena *arena, size_t headroom,
                          size_t *size);

#endif
