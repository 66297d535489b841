/*
 * Calls that are made again with their request_id: what stands between dispatch and the table of
 * replay.h. A call that is known is answered with what was answered then, waits for the one that
 * runs, or is told why it gets neither; all others run, and are concluded before their answers
 * leave. Any thread, but for what says otherwise.
 */
#ifndef SPB_SERVER_REPEAT_H
#define SPB_SERVER_REPEAT_H

#include "audit/audit.h"
#include "call.h"

struct spb_repeats;

SPB_MUST_USE spb_status spb_repeats_new(struct spb_daemon *daemon, struct spb_repeats **repeats,
                                        struct spb_error *err);
/* Accepts NULL. */
void spb_repeats_free(struct spb_repeats *repeats);
/* What the audit holds of earlier lives. Blocks; before the loop runs. */
SPB_MUST_USE spb_status spb_repeats_load(struct spb_daemon *daemon, struct spb_error *err);

/* "Params.Put". */
const char *spb_repeat_method_text(const struct spb_repeats *repeats,
                                   const struct spb_method *method);

/* True: the call runs now. False: it has been answered, or will be. The loop's thread. */
bool spb_repeat_claim(struct spb_call *call);
/* Of a list of calls by their parties' `next`: what they did, by their fates, holds from now on,
 * and who waited for them goes on. Those that claimed nothing are passed over. */
void spb_repeat_conclude(struct spb_daemon *daemon, struct spb_replay_party *parties);
/* Those that have waited too long, and entries that are too old. The loop's thread. */
void spb_repeat_tick(struct spb_daemon *daemon);

/* What became of a call that was left open. */
void spb_repeat_settle(struct spb_daemon *daemon, const struct spb_pending_call *call,
                       enum spb_outcome outcome);

/* Ends the calls of the caller's principal that run under this id, or wait for one that does, as
 * far as they can be ended; false where there are none. The loop's thread. */
bool spb_repeat_cancel(struct spb_call *caller, const uint8_t id[SPB_REPLAY_ID_SIZE]);

#endif
