/* What a guest uses: of its QEMU's process, and of its disks as QEMU counts them. */
#ifndef SPB_SUPERVISOR_STATS_H
#define SPB_SUPERVISOR_STATS_H

#include "call.h"

/* Answers a call of Guests.Stats, whose guest is held; now or when QEMU has. Any thread. */
void spb_stats_answer(struct spb_call *call);

#endif
