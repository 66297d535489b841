/*
 * Guests at the daemon's start: their rows, and which of their QEMUs live on. Before any other
 * thread works with guests; blocks.
 */
#ifndef SPB_SUPERVISOR_ADOPT_H
#define SPB_SUPERVISOR_ADOPT_H

#include "acts.h"
#include "spaceblock/status.h"

struct spb_daemon;

/*
 * Reads the rows, looks which QEMUs are there, and says which images they have. Before acts are
 * settled and images are opened. A QEMU without a row is ended; folders of runs and logs of
 * consoles that belong to nothing are removed.
 */
SPB_MUST_USE spb_status spb_adopt_load(struct spb_daemon *daemon, struct spb_error *err);
/* Begins to adopt what was found, or to tell what became of it. Once images are opened, before the
 * supervisor's thread is there. */
void spb_adopt_all(struct spb_daemon *daemon);

/* What became of an act that a crash left open; between the two. */
enum spb_outcome spb_guests_settle(struct spb_daemon *daemon, const struct spb_act_detail *detail);

#endif
