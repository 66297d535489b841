/*
 * A guest's life carried out: inputs go into its machine (life.h), the actions that follow are done
 * or handed on, what is recorded is recorded, and calls that wait are answered. The supervisor's
 * thread, all of it.
 */
#ifndef SPB_SUPERVISOR_DRIVE_H
#define SPB_SUPERVISOR_DRIVE_H

#include "supervisor/guest.h"

/* The clock and the random number are filled in. */
void spb_drive_step(struct spb_guest *guest, struct spb_life_input *input);
/* Something with a text. */
void spb_drive_tell(struct spb_guest *guest, enum spb_life_event what, const char *text);

/* When something is due; 0: nothing. */
int64_t spb_drive_next_ns(const struct spb_guest *guest);
void spb_drive_time(struct spb_guest *guest, int64_t now_ns);

/* How long to wait until what failed is tried again, after so long the time before; 0: none. */
int64_t spb_drive_longer_ns(int64_t wait_ns);

/* It was to be deleted, and stays. */
void spb_drive_let_live(struct spb_guest *guest);

/* The daemon ends, and guests do not before: calls that wait for that are answered so, and what
 * could not be recorded is once more. */
void spb_drive_record_rest(struct spb_guest *guest);
/* Last: lets go of QEMU, which goes on. Calls that wait are answered so. */
void spb_drive_let_go(struct spb_guest *guest);

/* Why a guest cannot be started. */
struct spb_refusal_to_start {
    PB_ErrorReason reason;
    char text[SPB_ERROR_TEXT_SIZE];
};

/*
 * A call that wants the guest to run: it is the supervisor's until it is answered, with its intent
 * ended. False: it cannot be started, nothing was begun and the call stays the caller's.
 */
bool spb_drive_start(struct spb_guest *guest, struct spb_call *call,
                     struct spb_refusal_to_start *why);

/* How a call that was waiting goes on; in services/guest_acts.c. failed: why it does not run; NULL:
 * it does. decided: perhaps it does all the same, which the daemon's next start finds out. */
void spb_guest_start_ended(struct spb_call *call, const struct spb_error *failed,
                           PB_ErrorReason reason, bool decided);
/* given_up: the daemon ends before the guest has. */
void spb_guest_end_came(struct spb_call *call, struct spb_guest *guest, bool given_up);

#endif
