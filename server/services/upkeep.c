/*
 * Images: check and repair, defragment, reopen. All run in the image's actor, between its groups,
 * on a lane of their own; readers go on meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "commit.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "intent.h"
#include "registry.h"
#include "services/services.h"
#include "uploads.h"

#define FINDINGS_SHOWN_MAX 15000u /* what one answer has room for */
#define STEP_GUESS_NS (100 * SPB_NS_PER_MS)
#define TEXT_SIZE 160u

/* The actor's own: nobody else opens or closes it. */
static bool is_served(struct spb_call *call)
{
    if (spb_image_refuse_guests(call))
        return false;
    if (call->image->volume != NULL)
        return true;
    spb_image_set_unserved(call->image, call);
    return false;
}

/* ---- Check -------------------------------------------------------------------------------- */

bool spb_images_check_gate(struct spb_call *call)
{
    const PB_CheckImageRequest *request = (const void *)call->request;

    /* Without repair nothing changes: an id is not needed, but what is there must be one. */
    if (!request->repair && *request->request_id == '\0')
        return true;
    return spb_gate_request_id(call, request->request_id);
}

static bool show_findings(struct spb_call *call, const struct spb_report *report,
                          PB_CheckImageResponse *reply)
{
    size_t count = report->count < FINDINGS_SHOWN_MAX ? report->count : FINDINGS_SHOWN_MAX;
    PB_Finding *shown = spb_call_alloc(call, count * sizeof(*shown));

    reply->findings = spb_call_alloc(call, count * sizeof(PB_Finding *));
    if (shown == NULL || reply->findings == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct spb_finding *finding = &report->findings[i];

        shown[i] = (PB_Finding)SPACEBLOCK__V1__FINDING__INIT;
        shown[i].kind =
            (Spaceblock__V1__FindingKind)(SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_PARAM_CORRUPT +
                                          (int)finding->kind);
        shown[i].index = finding->index;
        shown[i].repairable = finding->repairable;
        shown[i].text = spb_pb_text(finding->text);
        reply->findings[i] = &shown[i];
    }
    reply->n_findings = count;
    return true;
}

_Static_assert((int)SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_MEDIUM -
                       (int)SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_PARAM_CORRUPT ==
                   (int)SPB_FINDING_MEDIUM,
               "the API lists the kinds of findings in the library's order");

static void set_report(struct spb_call *call, const struct spb_report *report, bool repaired)
{
    PB_CheckImageResponse reply = SPACEBLOCK__V1__CHECK_IMAGE_RESPONSE__INIT;

    reply.repaired = repaired;
    reply.params_valid = report->params_valid;
    reply.params_superseded = report->params_superseded;
    reply.params_free = report->params_free;
    reply.params_corrupt = report->params_corrupt;
    reply.events_live = report->events_live;
    reply.events_corrupt = report->events_corrupt;
    reply.products_good = report->products_good;
    reply.products_bad = report->products_bad;
    reply.blocks_used = report->blocks_used;
    reply.blocks_free = report->blocks_free;
    if (show_findings(call, report, &reply))
        spb_call_set_reply(call, &reply.base);
}

static bool has_repairable(const struct spb_report *report)
{
    for (size_t i = 0; i < report->count; i++) {
        if (report->findings[i].repairable)
            return true;
    }
    return false;
}

/* What failed, or that it was given up for the deadline or a cancellation. */
static void set_failure(struct spb_call *call, const struct spb_error *err)
{
    if (err->code != SPB_DEADLINE || !spb_call_is_late(call, spb_now_ns()))
        spb_call_set_error(call, err);
}

/* The group is carried out as any other, and gone afterwards. */
static void commit_repair(struct spb_call *call, struct spb_group *group)
{
    struct spb_open_group *open = NULL;
    struct spb_error err;

    call->next = NULL;
    call->first_change = 0;
    call->change_count = (uint32_t)spb_group_change_count(group);
    enum spb_committed committed = spb_commit(call->image, group, call, &open, &err);
    if (committed == SPB_COMMIT_REFUSED)
        spb_intent_set_refusal(call, &err);
    else if (committed == SPB_COMMIT_UNSETTLED)
        spb_call_set_error(call, &err);
    spb_commit_end(open);
}

/* The answer is set, and replaced where this fails. */
static void repair(struct spb_call *call, const struct spb_report *report)
{
    struct spb_image *image = call->image;
    struct spb_group *group = NULL;
    struct spb_error err;

    spb_status status = spb_volume_restore_medium(image->volume, &err);
    if (spb_is_ok(status))
        status = spb_group_new(image->volume, &group, &err);
    if (spb_is_ok(status))
        status = spb_group_repair(group, report, &err);
    bool any = spb_is_ok(status) && !spb_group_is_empty(group);
    /* Before the repair: cursors that begin anew for nothing do no harm. */
    if (any)
        status = spb_image_renew(image, &err);
    if (any && spb_is_ok(status)) {
        commit_repair(call, group);
        return;
    }
    spb_group_free(group);
    if (!spb_is_ok(status)) {
        (void)spb_image_note_failure(image, &err);
        spb_call_set_error(call, &err);
    }
}

static bool check_alone(struct spb_call *call)
{
    const PB_CheckImageRequest *request = (const void *)call->request;
    struct spb_volume *volume = call->image->volume;
    struct spb_report report;
    struct spb_error err;
    spb_status status = spb_ok();

    if (spb_call_is_late(call, spb_now_ns()) || !is_served(call))
        return true;
    if (request->repair)
        status = spb_volume_is_writable(volume, &err);
    if (spb_is_ok(status) && request->repair)
        status = spb_audit_flush(call->daemon->audit, &err);
    if (spb_is_ok(status))
        status = spb_volume_check(volume, spb_call_may_go_on, call, &report, &err);
    if (!spb_is_ok(status)) {
        set_failure(call, &err);
        return true;
    }
    bool repairs = request->repair && has_repairable(&report);
    set_report(call, &report, repairs);
    if (repairs && call->payload != NULL)
        repair(call, &report);
    spb_report_done(&report);
    return true;
}

void spb_images_check(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.alone = check_alone};

    spb_actor_queue(call, &kind);
}

/* ---- Defragment --------------------------------------------------------------------------- */

struct defrag {
    uint32_t moved;
    int64_t longest_ns; /* step so far */
};

static void set_defrag_reply(struct spb_call *call, bool done)
{
    const struct defrag *defrag = call->state;
    PB_DefragImageResponse reply = SPACEBLOCK__V1__DEFRAG_IMAGE_RESPONSE__INIT;

    reply.moved = defrag->moved;
    reply.done = done;
    spb_product_space(call->image->volume, &reply.free_blocks, &reply.largest_free_blocks);
    spb_call_set_reply(call, &reply.base);
}

/* Is there time for one more step as long as the longest one? */
static bool has_time(const struct spb_call *call, int64_t now_ns)
{
    const struct defrag *defrag = call->state;

    if (atomic_load(&call->daemon->draining))
        return false;
    return call->deadline_ns == 0 || call->deadline_ns - now_ns > 2 * defrag->longest_ns;
}

static int by_offset(const void *left, const void *right)
{
    const struct spb_product *a = left, *b = right;

    return a->block_offset < b->block_offset ? -1 : a->block_offset > b->block_offset;
}

/* A word for where the products lie: another one once any has been moved. */
static spb_status layout_of(const struct spb_volume *volume, uint32_t *layout,
                            struct spb_error *err)
{
    uint32_t entries = spb_product_entries(volume), count = 0, crc = 0;
    struct spb_product *found = calloc((size_t)entries + 1, sizeof(*found));

    if (found == NULL)
        return spb_fail_memory(err, "looking at the products");
    for (uint32_t i = 0; i < entries; i++) {
        if (spb_is_ok(spb_product_entry(volume, i, &found[count], NULL)) &&
            found[count].state != SPB_PRODUCT_FREE)
            count++;
    }
    qsort(found, count, sizeof(*found), by_offset);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place[3] = {found[i].block_offset, found[i].block_count, found[i].crc};

        crc = spb_crc32c(crc, place, sizeof(place));
    }
    free(found);
    *layout = crc;
    return spb_ok();
}

/* Where products lie and what is free, for people. */
static void describe_space(const struct spb_volume *volume, char text[TEXT_SIZE])
{
    uint64_t free_blocks = 0;
    uint32_t largest = 0;

    spb_product_space(volume, &free_blocks, &largest);
    (void)snprintf(text, TEXT_SIZE, "%llu blocks free, the largest extent of %u",
                   (unsigned long long)free_blocks, largest);
}

/* Each step is recorded by itself: other changes come between them. */
static spb_status begin_step(struct spb_call *call, struct spb_error *err)
{
    char before[TEXT_SIZE];
    uint32_t layout = 0;
    struct spb_act act = {
        .kind = SPB_GROUP_IMAGE_WORK,
        .image = call->image,
        .detail = &layout,
        .detail_size = sizeof(layout),
        .object = "places of the products",
        .before = before,
        .after = "one product moved",
        .is_part = true,
    };

    describe_space(call->image->volume, before);
    SPB_TRY(layout_of(call->image->volume, &layout, err));
    return spb_intent_begin(call, &act, err);
}

static spb_status defrag_step(struct spb_call *call, bool *moved, struct spb_error *err)
{
    struct spb_image *image = call->image;

    SPB_TRY(begin_step(call, err));
    spb_status status = spb_volume_defrag_step(image->volume, moved, NULL, err);
    if (spb_is_ok(status))
        spb_intent_end(call, *moved ? SPB_OUTCOME_DONE : SPB_OUTCOME_NOT_DONE);
    else if (spb_image_note_failure(image, err))
        spb_intent_abandon(call);
    else
        spb_intent_end(call, SPB_OUTCOME_NOT_DONE);
    return status;
}

/* The call as a whole, once it has moved something: what it answers is kept for a repeat. */
static void end_defrag(struct spb_call *call, bool done)
{
    const struct defrag *defrag = call->state;
    char before[TEXT_SIZE], after[TEXT_SIZE];
    uint32_t none = 0;
    struct spb_act act = {
        .kind = SPB_GROUP_IMAGE_WORK,
        .image = call->image,
        .detail = &none,
        .detail_size = 0,
        .object = "places of the products",
        .before = before,
        .after = after,
    };
    struct spb_error err;

    set_defrag_reply(call, done);
    if (defrag->moved == 0 || call->payload == NULL)
        return;
    (void)snprintf(before, sizeof(before), "%u products to be moved, see the records before",
                   defrag->moved);
    describe_space(call->image->volume, after);
    /* Without the record a repeat would begin anew, which does no harm. */
    if (spb_is_ok(spb_intent_begin(call, &act, &err)))
        spb_intent_end(call, SPB_OUTCOME_DONE);
}

static bool defrag_alone(struct spb_call *call)
{
    struct defrag *defrag = call->state;
    int64_t begin_ns = spb_now_ns();
    struct spb_error err;
    bool moved = false;

    /* A late call that has moved something says so instead of failing. */
    if ((defrag->moved == 0 && spb_call_is_late(call, begin_ns)) || !is_served(call))
        return true;
    if (defrag->moved > 0 && !has_time(call, begin_ns)) {
        end_defrag(call, false);
        return true;
    }
    spb_status status = spb_volume_is_writable(call->image->volume, &err);
    if (spb_is_ok(status))
        status = defrag_step(call, &moved, &err);
    if (!spb_is_ok(status)) {
        spb_call_set_error(call, &err);
        return true;
    }
    int64_t took_ns = spb_now_ns() - begin_ns;
    if (took_ns > defrag->longest_ns)
        defrag->longest_ns = took_ns;
    defrag->moved += moved;
    if (!moved)
        end_defrag(call, true);
    return !moved;
}

void spb_images_defrag(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.alone = defrag_alone};
    struct defrag *defrag = spb_call_alloc(call, sizeof(*defrag));

    if (defrag == NULL) {
        spb_call_send(call);
        return;
    }
    *defrag = (struct defrag){.longest_ns = STEP_GUESS_NS};
    call->state = defrag;
    spb_actor_queue(call, &kind);
}

spb_status spb_images_settle_defrag(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err)
{
    const struct spb_pending_group *group = settling->group;
    uint32_t before = 0, now = 0;

    *outcome = SPB_OUTCOME_DONE; /* the record of a whole call, which says what was */
    if (settling->volume == NULL || group->changes_size != sizeof(before))
        return spb_ok();
    memcpy(&before, group->changes, sizeof(before));
    SPB_TRY(layout_of(settling->volume, &now, err));
    *outcome = now == before ? SPB_OUTCOME_NOT_DONE : SPB_OUTCOME_DONE;
    return spb_ok();
}

/* ---- Reopen ------------------------------------------------------------------------------- */

/*
 * What is there is the image of this name from now on. What was left open was about another: nobody
 * can tell any more.
 */
static spb_status accept_identity(struct spb_image *image, struct spb_error *err)
{
    struct spb_image_row known = image->row;

    SPB_TRY(spb_settle_lost(image->daemon, known.id, err));
    image->row.total_blocks = 0;
    spb_image_open(image);
    /* It was not taken: the registry's knowledge stands. */
    if (image->volume == NULL)
        image->row = known;
    return spb_ok();
}

/* A volume that was opened for writing and failed recovers in place; others are opened afresh. */
static spb_status reopen(struct spb_call *call, struct spb_error *err)
{
    const PB_ReopenImageRequest *request = (const void *)call->request;
    struct spb_image *image = call->image;
    struct spb_error refusal = {.code = SPB_OK};

    if (image->volume != NULL && spb_device_file_is_current(spb_volume_device(image->volume)) &&
        spb_volume_is_writable(image->volume, &refusal).code == SPB_POISONED) {
        SPB_TRY(spb_image_recover(image, err));
        /* One that has failed since it was opened at the start may have some that lie dormant. */
        spb_uploads_attach(call->daemon->uploads, image);
        return spb_ok();
    }
    bool accepts = request->accept_identity && spb_image_state(image) == SPB_IMAGE_QUARANTINED;
    spb_image_close(image);
    if (accepts)
        return accept_identity(image, err);
    spb_image_open(image);
    return spb_ok();
}

/* A ready image has nothing to gain, unless its file is no longer the one that is open, or lacks
 * space. */
static bool is_sound(struct spb_image *image)
{
    return spb_image_state(image) == SPB_IMAGE_READY && !image->lacks_space &&
           spb_device_file_is_current(spb_volume_device(image->volume));
}

static void set_reopened(struct spb_call *call)
{
    PB_ReopenImageResponse reply = SPACEBLOCK__V1__REOPEN_IMAGE_RESPONSE__INIT;

    if (spb_image_state(call->image) != SPB_IMAGE_READY)
        spb_image_set_unserved(call->image, call);
    else if ((reply.image = spb_image_show(call->image, call)) != NULL)
        spb_call_set_reply(call, &reply.base);
}

static spb_status begin_reopen(struct spb_call *call, struct spb_error *err)
{
    const PB_ReopenImageRequest *request = (const void *)call->request;
    struct spb_image *image = call->image;
    char object[TEXT_SIZE], before[TEXT_SIZE];
    /* About no image: what the image itself has open is settled while this is open too. */
    struct spb_act act = {
        .kind = SPB_GROUP_IMAGE_WORK,
        .tenant = image->tenant,
        .image_name = image->name,
        .object = object,
        .before = before,
        .after = request->accept_identity ? "ready, with the identity that its file has" : "ready",
    };

    (void)snprintf(object, sizeof(object), "image %s", call->image_text);
    (void)snprintf(before, sizeof(before), "%s", spb_image_state_word(spb_image_state(image)));
    SPB_TRY(spb_audit_flush(call->daemon->audit, err));
    return spb_intent_begin(call, &act, err);
}

static bool reopen_alone(struct spb_call *call)
{
    struct spb_image *image = call->image;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()) || spb_image_refuse_guests(call))
        return true;
    if (spb_image_state(image) == SPB_IMAGE_DELETED || is_sound(image)) {
        set_reopened(call);
        return true;
    }
    if (!spb_is_ok(begin_reopen(call, &err))) {
        spb_intent_set_refusal(call, &err);
        return true;
    }
    spb_image_reclaim(image);
    spb_uploads_release_image(call->daemon->uploads, image);
    if (spb_is_ok(reopen(call, &err)))
        set_reopened(call);
    else
        spb_call_set_error(call, &err);
    spb_image_reclaim_done(image);
    spb_intent_end(call, call->payload != NULL ? SPB_OUTCOME_DONE : SPB_OUTCOME_NOT_DONE);
    return true;
}

void spb_images_reopen(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.alone = reopen_alone};

    spb_actor_queue(call, &kind);
}

/* Whatever it opened ended with the daemon; it is opened anew at every start. */
spb_status spb_images_settle_reopen(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err)
{
    (void)settling;
    (void)err;
    *outcome = SPB_OUTCOME_NOT_DONE;
    return spb_ok();
}
