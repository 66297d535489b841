/*
 * Images: check, defragment, reopen, delete. All run in the image's actor, between its groups, on
 * a lane of their own; readers go on meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "registry.h"
#include "services/services.h"
#include "uploads.h"

#define FINDINGS_SHOWN_MAX 15000u /* what one answer has room for */
#define STEP_GUESS_NS (100 * SPB_NS_PER_MS)

/* Renews what cursors are bound to: the events may not be those that they counted. */
static void renew_incarnation(struct spb_image *image)
{
    uint8_t fresh[SPB_INCARNATION_SIZE];

    if (getrandom(fresh, sizeof(fresh), 0) != (ssize_t)sizeof(fresh))
        return;
    (void)pthread_mutex_lock(&image->lock);
    memcpy(image->incarnation, fresh, sizeof(fresh));
    (void)pthread_mutex_unlock(&image->lock);
}

/* The actor's own: nobody else opens or closes it. */
static bool is_served(struct spb_call *call)
{
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

static bool check_alone(struct spb_call *call)
{
    const PB_CheckImageRequest *request = (const void *)call->request;
    struct spb_volume *volume = call->image->volume;
    struct spb_report report;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()) || !is_served(call))
        return true;
    spb_status status = request->repair
                            ? spb_volume_repair(volume, spb_call_may_go_on, call, &report, &err)
                            : spb_volume_check(volume, spb_call_may_go_on, call, &report, &err);
    if (!spb_is_ok(status)) {
        if (request->repair)
            (void)spb_image_note_failure(call->image, &err);
        spb_call_set_error(call, &err);
        return true;
    }
    bool repaired = request->repair && has_repairable(&report);
    if (repaired)
        renew_incarnation(call->image);
    set_report(call, &report, repaired);
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
        set_defrag_reply(call, false);
        return true;
    }
    spb_status status = spb_volume_defrag_step(call->image->volume, &moved, NULL, &err);
    if (!spb_is_ok(status)) {
        (void)spb_image_note_failure(call->image, &err);
        spb_call_set_error(call, &err);
        return true;
    }
    int64_t took_ns = spb_now_ns() - begin_ns;
    if (took_ns > defrag->longest_ns)
        defrag->longest_ns = took_ns;
    defrag->moved += moved;
    if (!moved)
        set_defrag_reply(call, true);
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

/* ---- Reopen ------------------------------------------------------------------------------- */

/* A volume that was opened for writing and failed recovers in place; others are opened afresh. */
static spb_status reopen(struct spb_image *image, struct spb_error *err)
{
    struct spb_error refusal = {.code = SPB_OK};

    if (image->volume != NULL &&
        spb_volume_is_writable(image->volume, &refusal).code == SPB_POISONED) {
        SPB_TRY(spb_volume_reopen(image->volume, err));
        spb_image_note_recovery(image);
        renew_incarnation(image);
        return spb_ok();
    }
    spb_image_close(image);
    spb_image_open(image);
    return spb_ok();
}

static bool reopen_alone(struct spb_call *call)
{
    PB_ReopenImageResponse reply = SPACEBLOCK__V1__REOPEN_IMAGE_RESPONSE__INIT;
    struct spb_image *image = call->image;
    enum spb_image_state state = spb_image_state(image);
    spb_status status = spb_ok();
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()))
        return true;
    if (state == SPB_IMAGE_DELETED) {
        spb_image_set_unserved(image, call);
        return true;
    }
    if (state != SPB_IMAGE_READY) {
        spb_image_reclaim(image);
        spb_uploads_release_image(call->daemon->uploads, image);
        status = reopen(image, &err);
        spb_image_reclaim_done(image);
    }
    if (!spb_is_ok(status))
        spb_call_set_error(call, &err);
    else if (spb_image_state(image) != SPB_IMAGE_READY)
        spb_image_set_unserved(image, call);
    else if ((reply.image = spb_image_show(image, call)) != NULL)
        spb_call_set_reply(call, &reply.base);
    return true;
}

void spb_images_reopen(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.alone = reopen_alone};

    spb_actor_queue(call, &kind);
}

/* ---- Delete ------------------------------------------------------------------------------- */

static spb_status sync_folder(const char *path, struct spb_error *err)
{
    char *copy = strdup(path);
    int number = 0;

    if (copy == NULL)
        return spb_fail_memory(err, "deleting an image");
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        number = errno;
    if (fd >= 0)
        (void)close(fd);
    free(copy);
    if (number == 0)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, number,
                          "making the deletion of %s durable: after a power loss the image may be "
                          "there again",
                          path);
}

/* Whether the image may go: not one that another owner holds. */
static bool may_delete(struct spb_call *call)
{
    struct spb_image *image = call->image;

    (void)pthread_mutex_lock(&image->lock);
    bool gone = image->state == SPB_IMAGE_DELETED;
    bool in_use = image->state == SPB_IMAGE_UNAVAILABLE && image->reason_code == SPB_LOCKED;
    (void)pthread_mutex_unlock(&image->lock);
    if (gone || in_use)
        spb_image_set_unserved(image, call);
    return !gone && !in_use;
}

static bool delete_alone(struct spb_call *call)
{
    PB_DeleteImageResponse reply = SPACEBLOCK__V1__DELETE_IMAGE_RESPONSE__INIT;
    struct spb_image *image = call->image;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()) || !may_delete(call))
        return true;
    spb_image_reclaim(image);
    spb_uploads_release_image(call->daemon->uploads, image);
    if (unlink(image->path) != 0 && errno != ENOENT) {
        (void)spb_fail_errno(&err, SPB_IO, errno, "deleting image %s", call->image_text);
        spb_image_reclaim_done(image);
        spb_call_set_error(call, &err);
        return true;
    }
    spb_image_note_deletion(image);
    spb_image_close(image);
    spb_registry_remove(call->daemon->registry, image);
    spb_image_reclaim_done(image);
    if (spb_is_ok(sync_folder(image->path, &err)))
        spb_call_set_reply(call, &reply.base);
    else
        spb_call_set_error(call, &err);
    spb_log(&call->daemon->log, SPB_LOG_INFO, "image-deleted", SPB_NUMBER("tenant", image->tenant),
            SPB_TEXT("name", image->name), SPB_TEXT("by", call->principal.name));
    return true;
}

void spb_images_delete(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.alone = delete_alone};

    spb_actor_queue(call, &kind);
}
