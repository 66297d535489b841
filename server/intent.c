/* Intents of calls that are no part of an image's groups; see intent.h. */
#include "intent.h"

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "repeat.h"

spb_status spb_intent_begin(struct spb_call *call, const struct spb_act *act, struct spb_error *err)
{
    struct spb_intent intent = {
        .principal_tenant = call->principal.tenant,
        .principal = call->principal.name,
        .method = spb_repeat_method_text(call->daemon->repeats, call->method),
        .request_id = call->has_request_id && !act->is_part ? call->request_id : NULL,
        .payload_crc = call->payload_crc,
        .object = act->object,
        .before = act->before,
        .after = act->after,
        .response = act->is_part ? NULL : call->payload,
        .response_size = act->is_part || call->payload == NULL ? 0 : call->payload_size,
    };
    struct spb_intent_group group = {
        .kind = act->kind,
        .tenant = act->tenant,
        .image_name = act->image_name,
        .changes = act->detail,
        .changes_size = act->detail_size,
        .intents = &intent,
        .count = 1,
    };

    SPB_ASSERT(call->open_group == NULL);
    if (act->image != NULL) {
        group.image_id = act->image->row.id;
        group.tenant = act->image->tenant;
        group.image_name = act->image->name;
        group.number = act->image->row.group_number + 1;
    }
    SPB_TRY(spb_audit_begin(call->daemon->audit, &group, &call->open_group, err));
    if (act->image != NULL)
        act->image->row.group_number++;
    call->party.record = intent.id;
    call->open_is_part = act->is_part;
    return spb_ok();
}

void spb_intent_set_refusal(struct spb_call *call, const struct spb_error *err)
{
    /* Where the audit lies on the host is none of the caller's; the log has it. */
    if (err->code == SPB_NO_MEMORY)
        spb_call_set_fault(call, PB_REASON(INTERNAL), "%s; the change was not made", err->text);
    else if (err->code == SPB_FULL)
        spb_call_set_fault(call, PB_REASON(NO_SPACE),
                           "there is no space to record the change in the audit: it was not made");
    else
        spb_call_set_fault(call, PB_REASON(AUDIT_UNAVAILABLE),
                           "the change cannot be recorded in the audit, and was not made: see the "
                           "server's log");
}

void spb_intent_end(struct spb_call *call, enum spb_outcome outcome)
{
    struct spb_open_group *open = call->open_group;
    bool done = outcome == SPB_OUTCOME_DONE || outcome == SPB_OUTCOME_COMPLETED;

    SPB_ASSERT(open != NULL);
    call->open_group = NULL;
    if (call->open_is_part) {
        spb_audit_end(open, outcome, NULL, 0);
        return;
    }
    if (done)
        call->party.fate = SPB_FATE_DONE;
    else
        call->party.fate = outcome == SPB_OUTCOME_UNKNOWN ? SPB_FATE_UNKNOWN : SPB_FATE_NOTHING;
    spb_audit_end(open, outcome, done ? call->payload : NULL,
                  done && call->payload != NULL ? call->payload_size : 0);
}

struct spb_open_group *spb_intent_keep_open(struct spb_call *call)
{
    struct spb_open_group *open = call->open_group;

    SPB_ASSERT(open != NULL);
    call->open_group = NULL;
    if (!call->open_is_part)
        call->party.fate = SPB_FATE_UNSETTLED;
    return open;
}

void spb_intent_abandon(struct spb_call *call)
{
    spb_audit_abandon(spb_intent_keep_open(call));
}
