/* What became of changes that were left open; see settle.h. */
#include "settle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "acts.h"
#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "repeat.h"
#include "services/services.h"
#include "spaceblock/group.h"
#include "util.h"

/* A row for each act; those of a service are in its file. */
static const struct spb_settler settlers[] = {
    {SPB_GROUP_IMAGE_LIFE, "Images.Create", spb_images_settle_create},
    {SPB_GROUP_IMAGE_LIFE, "Images.Delete", spb_images_settle_delete},
    {SPB_GROUP_IMAGE_WORK, "Images.Defrag", spb_images_settle_defrag},
    {SPB_GROUP_IMAGE_WORK, "Images.Reopen", spb_images_settle_reopen},
    {SPB_GROUP_IMAGE_LIFE, "Images.Clone", spb_act_settle},
    {SPB_GROUP_IMAGE_LIFE, "Images.Rename", spb_act_settle},
    {SPB_GROUP_IMAGE_LIFE, "Uploads.Finish", spb_act_settle},
    {SPB_GROUP_OTHER, "Uploads.Finish", spb_act_settle},
    {SPB_GROUP_OTHER, "Uploads.Start", spb_act_settle},
    {SPB_GROUP_OTHER, "Uploads.Abort", spb_act_settle},
    {SPB_GROUP_OTHER, "Artifacts.Delete", spb_act_settle},
    {SPB_GROUP_OTHER, "Guests.Create", spb_act_settle},
    {SPB_GROUP_OTHER, "Guests.Start", spb_act_settle},
    {SPB_GROUP_OTHER, "Guests.Stop", spb_act_settle},
    {SPB_GROUP_OTHER, "Guests.Kill", spb_act_settle},
    {SPB_GROUP_OTHER, "Guests.Delete", spb_act_settle},
};

static const char *const outcome_words[] = {
    [SPB_OUTCOME_PENDING] = "pending",     [SPB_OUTCOME_DONE] = "done",
    [SPB_OUTCOME_COMPLETED] = "completed", [SPB_OUTCOME_NOT_DONE] = "not-done",
    [SPB_OUTCOME_UNKNOWN] = "unknown",
};

/* ---- Groups of changes -------------------------------------------------------------------- */

/* A call of which a part is there gets the rest; where that cannot be, nobody can say what it is.
 */
static spb_status complete(const struct spb_settling *settling, const struct spb_pending_call *call,
                           enum spb_outcome *outcome, struct spb_error *err)
{
    const struct spb_pending_group *group = settling->group;
    spb_status status =
        spb_changes_complete(group->changes, group->changes_size, call->first_change,
                             call->change_count, settling->volume, err);

    *outcome = SPB_OUTCOME_COMPLETED;
    if (status.code != SPB_CHANGED && status.code != SPB_FULL && status.code != SPB_CORRUPT &&
        status.code != SPB_INVALID)
        return status;
    spb_log(&settling->daemon->log, SPB_LOG_WARN, "change-not-completed",
            SPB_NUMBER("tenant", group->tenant), SPB_TEXT("name", group->image_name),
            SPB_NUMBER("record", call->id), SPB_TEXT("reason", err->text));
    *outcome = SPB_OUTCOME_UNKNOWN;
    return spb_ok();
}

/* The calls' verdicts as the volume is now; all are UNKNOWN where the statement cannot be read. */
static spb_status judge(const struct spb_settling *settling, enum spb_verdict *verdicts,
                        struct spb_error *err)
{
    const struct spb_pending_group *group = settling->group;
    struct spb_judgement *judgements = NULL;
    size_t count = 0;
    spb_status status = spb_changes_judge(group->changes, group->changes_size, settling->volume,
                                          &judgements, &count, err);

    if (!spb_is_ok(status) && status.code != SPB_CORRUPT)
        return status;
    for (size_t i = 0; i < group->count; i++) {
        const struct spb_pending_call *call = &group->calls[i];

        verdicts[i] = SPB_VERDICT_UNKNOWN;
        if (call->first_change <= count && call->change_count <= count - call->first_change)
            verdicts[i] = spb_judgements_sum(judgements + call->first_change, call->change_count);
    }
    free(judgements);
    return spb_ok();
}

static enum spb_outcome outcome_of(enum spb_verdict verdict)
{
    switch (verdict) {
    case SPB_VERDICT_BEFORE:
        return SPB_OUTCOME_NOT_DONE;
    case SPB_VERDICT_AFTER:
        return SPB_OUTCOME_DONE;
    case SPB_VERDICT_IN_PART:
        return SPB_OUTCOME_COMPLETED;
    case SPB_VERDICT_UNKNOWN:
        break;
    }
    return SPB_OUTCOME_UNKNOWN;
}

/*
 * From the last call to the first: what a later one makes of an object counts for those before it.
 * So a call of which nothing is there becomes done where one that builds on it is completed: it
 * must not be made anew on top of that. Whatever else completing does to how a call looks says
 * nothing of what became of it.
 */
static spb_status settle_calls(const struct spb_settling *settling, const enum spb_verdict *first,
                               enum spb_verdict *now, enum spb_outcome *outcomes,
                               struct spb_error *err)
{
    const struct spb_pending_group *group = settling->group;
    bool is_stale = false;

    for (size_t i = group->count; i-- > 0;) {
        outcomes[i] = outcome_of(first[i]);
        if (is_stale && first[i] == SPB_VERDICT_BEFORE) {
            SPB_TRY(judge(settling, now, err));
            is_stale = false;
        }
        if (first[i] == SPB_VERDICT_BEFORE && now[i] == SPB_VERDICT_AFTER)
            outcomes[i] = SPB_OUTCOME_COMPLETED;
        if (first[i] == SPB_VERDICT_IN_PART) {
            SPB_TRY(complete(settling, &group->calls[i], &outcomes[i], err));
            is_stale = true;
        }
    }
    return spb_ok();
}

/* Whether each call's changes are on the volume: all are judged before anything is completed. */
static spb_status settle_changes(const struct spb_settling *settling, enum spb_outcome *outcomes,
                                 struct spb_error *err)
{
    size_t count = settling->group->count;
    enum spb_verdict *verdicts = calloc(2 * count + 1, sizeof(*verdicts));

    if (verdicts == NULL)
        return spb_fail_memory(err, "settling changes");
    spb_status status = judge(settling, verdicts, err);
    if (spb_is_ok(status)) {
        memcpy(verdicts + count, verdicts, count * sizeof(*verdicts));
        status = settle_calls(settling, verdicts, verdicts + count, outcomes, err);
    }
    free(verdicts);
    return status;
}

/* ---- Acts --------------------------------------------------------------------------------- */

static const struct spb_settler *find_settler(const struct spb_pending_group *group)
{
    for (size_t i = 0; i < SPB_COUNT(settlers); i++) {
        if (settlers[i].kind == group->kind && group->count > 0 &&
            strcmp(settlers[i].method, group->calls[0].method) == 0)
            return &settlers[i];
    }
    return NULL;
}

static spb_status settle_act(const struct spb_settling *settling, enum spb_outcome *outcomes,
                             struct spb_error *err)
{
    const struct spb_settler *settler = find_settler(settling->group);
    enum spb_outcome outcome = SPB_OUTCOME_UNKNOWN;
    spb_status status = spb_ok();

    if (settler != NULL)
        status = settler->settle(settling, &outcome, err);
    for (size_t i = 0; i < settling->group->count && spb_is_ok(status); i++)
        outcomes[i] = outcome;
    return status;
}

/* ---- One after the other ------------------------------------------------------------------ */

static void tell(const struct spb_settling *settling, const enum spb_outcome *outcomes)
{
    const struct spb_pending_group *group = settling->group;
    size_t counts[SPB_COUNT(outcome_words)] = {0};

    for (size_t i = 0; i < group->count; i++) {
        counts[outcomes[i]]++;
        spb_repeat_settle(settling->daemon, &group->calls[i], outcomes[i]);
    }
    spb_log(&settling->daemon->log, counts[SPB_OUTCOME_UNKNOWN] > 0 ? SPB_LOG_WARN : SPB_LOG_INFO,
            "changes-settled", SPB_NUMBER("tenant", group->tenant),
            SPB_TEXT("name", group->image_name), SPB_NUMBER("group", group->number),
            SPB_TEXT("method", group->count > 0 ? group->calls[0].method : ""),
            SPB_NUMBER(outcome_words[SPB_OUTCOME_DONE], counts[SPB_OUTCOME_DONE]),
            SPB_NUMBER(outcome_words[SPB_OUTCOME_COMPLETED], counts[SPB_OUTCOME_COMPLETED]),
            SPB_NUMBER(outcome_words[SPB_OUTCOME_NOT_DONE], counts[SPB_OUTCOME_NOT_DONE]),
            SPB_NUMBER(outcome_words[SPB_OUTCOME_UNKNOWN], counts[SPB_OUTCOME_UNKNOWN]));
}

typedef spb_status (*way)(const struct spb_settling *settling, enum spb_outcome *outcomes,
                          struct spb_error *err);

static spb_status settle_with(const struct spb_settling *settling, way settle,
                              struct spb_error *err)
{
    enum spb_outcome *outcomes = calloc(settling->group->count + 1, sizeof(*outcomes));

    if (outcomes == NULL)
        return spb_fail_memory(err, "settling changes");
    spb_status status = settle(settling, outcomes, err);
    if (spb_is_ok(status))
        status = spb_audit_settle(settling->daemon->audit, settling->group, outcomes, err);
    if (spb_is_ok(status))
        tell(settling, outcomes);
    free(outcomes);
    return status;
}

/* All that is open of an image, or about none. */
static spb_status settle_all(struct spb_settling *settling, int64_t image_id, way act,
                             struct spb_error *err)
{
    for (;;) {
        struct spb_pending_group *group = NULL;

        SPB_TRY(spb_audit_find_open(settling->daemon->audit, image_id, &group, err));
        if (group == NULL)
            return spb_ok();
        settling->group = group;
        way settle = act;
        if (group->kind == SPB_GROUP_CHANGES && settling->volume != NULL)
            settle = settle_changes;
        spb_status status = settle_with(settling, settle, err);
        spb_pending_group_free(group);
        SPB_TRY(status);
    }
}

spb_status spb_settle_image(struct spb_image *image, struct spb_volume *volume,
                            struct spb_error *err)
{
    struct spb_settling settling = {.daemon = image->daemon, .image = image, .volume = volume};

    return settle_all(&settling, image->row.id, settle_act, err);
}

/* One that cannot be looked at must not hold up those behind it, nor the daemon. */
static spb_status settle_act_or_give_up(const struct spb_settling *settling,
                                        enum spb_outcome *outcomes, struct spb_error *err)
{
    if (spb_is_ok(settle_act(settling, outcomes, err)))
        return spb_ok();
    spb_log(&settling->daemon->log, SPB_LOG_WARN, "act-not-settled",
            SPB_NUMBER("tenant", settling->group->tenant),
            SPB_TEXT("name", settling->group->image_name), SPB_TEXT("reason", err->text));
    for (size_t i = 0; i < settling->group->count; i++)
        outcomes[i] = SPB_OUTCOME_UNKNOWN;
    return spb_ok();
}

spb_status spb_settle_acts(struct spb_daemon *daemon, struct spb_error *err)
{
    struct spb_settling settling = {.daemon = daemon};

    return settle_all(&settling, 0, settle_act_or_give_up, err);
}

static spb_status settle_unknown(const struct spb_settling *settling, enum spb_outcome *outcomes,
                                 struct spb_error *err)
{
    (void)err;
    for (size_t i = 0; i < settling->group->count; i++)
        outcomes[i] = SPB_OUTCOME_UNKNOWN;
    return spb_ok();
}

spb_status spb_settle_lost(struct spb_daemon *daemon, int64_t image_id, struct spb_error *err)
{
    struct spb_settling settling = {.daemon = daemon};

    return image_id == 0 ? spb_ok() : settle_all(&settling, image_id, settle_unknown, err);
}

/* ---- Looking at files --------------------------------------------------------------------- */

spb_status spb_settle_look(const char *path, bool *there, uint8_t uuid[16], struct spb_error *err)
{
    static const struct spb_open_options read_only = {.writable = false};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;

    memset(uuid, 0, SPB_UUID_SIZE);
    if (access(path, F_OK) != 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return spb_fail_errno(err, SPB_IO, errno, "looking at %s", path);
        *there = false;
        return spb_ok();
    }
    *there = true;
    SPB_TRY(spb_device_file_open(path, SPB_FILE_READ, &device, err));
    spb_status status = spb_volume_open(device, &read_only, &volume, err);
    if (spb_is_ok(status)) {
        memcpy(uuid, spb_volume_superblock(volume)->uuid, SPB_UUID_SIZE);
        spb_volume_close(volume);
        return spb_ok();
    }
    spb_device_close(device);
    /* A superblock that is none tells no uuid; a medium that cannot be read tells nothing. */
    return status.code == SPB_IO || status.code == SPB_NO_MEMORY ? status : spb_ok();
}
