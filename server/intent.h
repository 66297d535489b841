/*
 * Intents of calls that are no part of an image's groups: an image made, deleted, renamed,
 * repaired; an upload begun or given up. What a call is about to do is durable in the audit before
 * it begins, and its outcome follows. Workers only: beginning blocks for a commit.
 *
 * The call's reply, where it is set already, is recorded with the intent; one that is known only
 * afterwards is recorded with the outcome. Either way a repeat of the call (its request_id) gets it
 * once the outcome is DONE or COMPLETED.
 */
#ifndef SPB_SERVER_INTENT_H
#define SPB_SERVER_INTENT_H

#include "audit/audit.h"
#include "call.h"

struct spb_act {
    enum spb_group_kind kind;
    struct spb_image *image; /* NULL: tenant and name say what it is about */
    uint16_t tenant;
    const char *image_name; /* "" for none */
    const void *detail;     /* the kind's own bytes, for settling after a crash */
    size_t detail_size;
    const char *object, *before, *after; /* text for people, a line each */
    bool is_part; /* of a call that is several acts: without its request_id, and what becomes of it
                   * says nothing of the call */
};

/* Fails without a trace where the audit cannot be written: nothing may be done then. */
SPB_MUST_USE spb_status spb_intent_begin(struct spb_call *call, const struct spb_act *act,
                                         struct spb_error *err);
/* Sets the error of a failed begin: nothing was done. */
void spb_intent_set_refusal(struct spb_call *call, const struct spb_error *err);
/* Once after each successful begin, with the reply set where it was done. */
void spb_intent_end(struct spb_call *call, enum spb_outcome outcome);
/* Instead: whether it happened is not known; the next opening or start settles it (settle.h). */
void spb_intent_abandon(struct spb_call *call);
/* Instead: whether it happened is known later; the group is the caller's, to be ended or abandoned.
 */
struct spb_open_group *spb_intent_keep_open(struct spb_call *call);

#endif
