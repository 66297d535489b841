/* A group's way to the medium; see commit.h. */
#include "commit.h"

#include <stdlib.h>

#include "audit/audit.h"
#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "metrics.h"
#include "repeat.h"
#include "uploads.h"
#include "watch.h"

/* What the audit gets of a group. */
struct record {
    struct spb_intent_group group;
    struct spb_change_texts texts;
    uint8_t *changes;
};

static void record_done(struct record *record)
{
    free(record->group.intents);
    free(record->changes);
    spb_change_texts_done(&record->texts);
}

/* Ends the first n lines of *text, which become *taken; *text begins behind them. */
static void take_lines(char **text, uint32_t n, const char **taken)
{
    char *at = *text;

    *taken = n > 0 ? at : "";
    for (uint32_t i = 0; i < n; i++) {
        char *end = strchr(at, '\n');

        if (end == NULL)
            at += strlen(at);
        else
            at = end + 1;
        if (end != NULL && i + 1 == n)
            *end = '\0';
    }
    *text = at;
}

static void fill_intents(struct record *record, struct spb_call *calls)
{
    SPB_ASSERT(calls != NULL);
    const struct spb_repeats *repeats = calls->daemon->repeats;
    char *object = record->texts.object, *before = record->texts.before,
         *after = record->texts.after;
    struct spb_intent *intent = record->group.intents;

    for (const struct spb_call *call = calls; call != NULL; call = call->next, intent++) {
        *intent = (struct spb_intent){
            .principal_tenant = call->principal.tenant,
            .principal = call->principal.name,
            .method = spb_repeat_method_text(repeats, call->method),
            .request_id = call->has_request_id ? call->request_id : NULL,
            .upload = call->upload != NULL ? call->upload->row.id : NULL,
            .payload_crc = call->payload_crc,
            .first_change = call->first_change,
            .change_count = call->change_count,
            .response = call->payload,
            .response_size = call->payload_size,
        };
        take_lines(&object, call->change_count, &intent->object);
        take_lines(&before, call->change_count, &intent->before);
        take_lines(&after, call->change_count, &intent->after);
    }
}

static spb_status fill(struct record *record, struct spb_image *image,
                       const struct spb_group *group, struct spb_call *calls, struct spb_error *err)
{
    uint32_t pointer = spb_group_event_pointer(group);
    size_t count = 0;

    for (const struct spb_call *call = calls; call != NULL; call = call->next)
        count++;
    record->group = (struct spb_intent_group){
        .kind = SPB_GROUP_CHANGES,
        .image_id = image->row.id,
        .tenant = image->tenant,
        .image_name = image->name,
        .number = image->row.group_number + 1,
        .event_pointer = pointer,
        .has_event_pointer = pointer != spb_event_pointer(image->volume),
        .count = count,
    };
    SPB_TRY(spb_group_encode(group, &record->changes, &record->group.changes_size, err));
    record->group.changes = record->changes;
    SPB_TRY(spb_group_describe(group, 0, spb_group_change_count(group), &record->texts, err));
    record->group.intents = malloc(count * sizeof(struct spb_intent));
    if (record->group.intents == NULL)
        return spb_fail_memory(err, "recording changes");
    fill_intents(record, calls);
    return spb_ok();
}

/* Their records' numbers, once there are some. */
static void note_records(const struct record *record, struct spb_call *calls)
{
    const struct spb_intent *intent = record->group.intents;

    for (struct spb_call *call = calls; call != NULL; call = call->next, intent++)
        call->party.record = intent->id;
}

static spb_status begin(struct spb_image *image, const struct spb_group *group,
                        struct spb_call *calls, struct spb_open_group **open, struct spb_error *err)
{
    struct record record = {.changes = NULL};

    spb_status status = fill(&record, image, group, calls, err);
    if (spb_is_ok(status))
        status = spb_audit_begin(image->daemon->audit, &record.group, open, err);
    if (spb_is_ok(status)) {
        note_records(&record, calls);
        image->row.group_number++;
        spb_metrics_observe_group(image->daemon->metrics, record.group.count);
    }
    record_done(&record);
    return status;
}

static void set_fates(struct spb_call *calls, enum spb_fate fate)
{
    for (struct spb_call *call = calls; call != NULL; call = call->next)
        call->party.fate = fate;
}

enum spb_committed spb_commit(struct spb_image *image, struct spb_group *group,
                              struct spb_call *calls, struct spb_open_group **open,
                              struct spb_error *err)
{
    *open = NULL;
    if (spb_group_is_empty(group)) {
        spb_group_free(group);
        return SPB_COMMITTED;
    }
    if (!spb_is_ok(begin(image, group, calls, open, err))) {
        spb_group_free(group);
        return SPB_COMMIT_REFUSED;
    }
    int64_t start_ns = spb_now_ns();
    bool good = spb_is_ok(spb_group_carry_out(group, err));
    spb_metrics_observe_flush(image->daemon->metrics, spb_now_ns() - start_ns);
    if (good) {
        spb_group_make_visible(group);
        spb_watch_notify(image);
    }
    spb_group_free(group);
    if (good) {
        image->row.event_pointer = spb_event_pointer(image->volume);
        set_fates(calls, SPB_FATE_DONE);
        return SPB_COMMITTED;
    }
    if (!spb_image_note_failure(image, err)) {
        /* The volume takes changes still: it was not touched. */
        spb_audit_end(*open, SPB_OUTCOME_NOT_DONE, NULL, 0);
        *open = NULL;
        return SPB_COMMIT_REFUSED;
    }
    err->code = SPB_IO; /* whatever failed first */
    set_fates(calls, SPB_FATE_UNSETTLED);
    spb_audit_abandon(*open);
    *open = NULL;
    return SPB_COMMIT_UNSETTLED;
}

void spb_commit_end(struct spb_open_group *open)
{
    if (open != NULL)
        spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
}
