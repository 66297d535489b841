/*
 * What QEMU's trace events say on its stderr of how a guest ended, for whoever was not there to
 * hear its monitor's events. Pure; any thread.
 *
 * query-status answers `shutdown` after a guest's power-off as after its reset that ends QEMU. But
 * a power-off is requested, which is traced, and a reset is not; that the machine changes its state
 * then is traced of both:
 *   qemu_system_shutdown_request reason=6
 *   runstate_set current_run_state 9 (running) new_state 11 (shutdown)
 */
#ifndef SPB_SUPERVISOR_MACHINE_TRACES_H
#define SPB_SUPERVISOR_MACHINE_TRACES_H

#include <stdbool.h>
#include <stddef.h>

#include "supervisor/machine/ending.h"

/* Of -trace. They are patterns: a QEMU without such an event has nothing to say against one. */
#define SPB_TRACE_REQUEST "qemu_system_shutdown_request*"
#define SPB_TRACE_STATE "runstate_set*"

/* How the guest ended, from the newest that QEMU wrote; is_cut: not all of it. SPB_ENDING_NONE: the
 * words do not tell. */
enum spb_ending spb_traces_ending(const char *words, size_t size, bool is_cut);
/* Takes the lines of those events out of the words; what is left of them. */
size_t spb_traces_drop(char *words, size_t size);

#endif
