/*
 * How a guest ended, told from QMP's events and from how QEMU ended. Pure; any thread.
 *
 * QEMU's exit code is 0 after a panic as after a power-off: events come first.
 */
#ifndef SPB_SUPERVISOR_MACHINE_ENDING_H
#define SPB_SUPERVISOR_MACHINE_ENDING_H

#include <jansson.h>
#include <stddef.h>

enum spb_ending {
    SPB_ENDING_NONE,        /* it has not ended, as far as one knows */
    SPB_ENDING_POWEROFF,    /* the guest switched itself off */
    SPB_ENDING_REBOOT,      /* the guest asked for a reset */
    SPB_ENDING_PANIC,       /* its kernel panicked */
    SPB_ENDING_STOPPED,     /* QEMU was told to quit, or ended by SIGTERM or the like */
    SPB_ENDING_CRASHED,     /* QEMU exited with an error, or a signal killed it */
    SPB_ENDING_LOST,        /* nobody saw how */
    SPB_ENDING_NOT_STARTED, /* QEMU could not be started, or did not get so far */
};

/* Takes an event of QMP; the first that tells an ending counts, but a panic outranks what follows
 * from it. */
void spb_ending_take_event(enum spb_ending *ending, const char *event, const json_t *data);
/* The status that query-status answers with, of a guest that ended while nobody listened. That it
 * shut down does not say how: traced is what QEMU's words tell of that (traces.h). */
void spb_ending_take_status(enum spb_ending *ending, const char *status, enum spb_ending traced);
/* QEMU has ended: wait status as of waitpid. */
void spb_ending_take_exit(enum spb_ending *ending, int wait_status);

/* "powered off", "asked for a reboot", ... */
const char *spb_ending_words(enum spb_ending ending);

#endif
