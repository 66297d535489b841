/*
 * Images: create and delete, and what became of either where a crash came between. An image is
 * created on a worker, and the file system decides who wins where two create one name; it is
 * deleted in its actor. Both are recorded before anything is touched.
 */
#include "services/image_life.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/status.h"
#include "copy_file.h"
#include "copy_image.h"
#include "daemon.h"
#include "dispatch.h"
#include "doubts.h"
#include "image.h"
#include "intent.h"
#include "registry.h"
#include "services/services.h"
#include "settle.h"
#include "uploads.h"
#include "uuid.h"

#define TEXT_SIZE 160u

/* ---- Common ------------------------------------------------------------------------------- */

spb_status spb_sync_folder_of(const char *path, struct spb_error *err)
{
    char *copy = strdup(path);
    int number = 0;

    if (copy == NULL)
        return spb_fail_memory(err, "flushing a folder");
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if ((fd < 0 && errno != ENOENT) || (fd >= 0 && fsync(fd) != 0))
        number = errno;
    if (fd >= 0)
        (void)close(fd);
    free(copy);
    if (number == 0)
        return spb_ok();
    return spb_fail_errno(err, spb_code_of_errno(number), number, "flushing the folder of %s",
                          path);
}

/* "uuid ..., 64 blocks of 512 bytes" */
static void describe(const uint8_t *uuid, uint32_t blocks, uint32_t sector_size,
                     char text[TEXT_SIZE])
{
    char shown[SPB_UUID_TEXT_SIZE];

    spb_uuid_write(uuid, shown);
    (void)snprintf(text, TEXT_SIZE, "uuid %s, %u blocks of %u bytes", shown, blocks, sector_size);
}

static void name_object(const struct spb_call *call, char text[TEXT_SIZE])
{
    (void)snprintf(text, TEXT_SIZE, "image %s", call->image_text);
}

/* ---- Create ------------------------------------------------------------------------------- */

bool spb_images_create_gate(struct spb_call *call)
{
    const PB_CreateImageRequest *request = (const void *)call->request;

    if (request->total_blocks < SPB_BLOCKS_MIN) {
        spb_call_set_bad_field(call, "total_blocks", "found %u, expected %u at least",
                               request->total_blocks, SPB_BLOCKS_MIN);
        return false;
    }
    return spb_gate_uuid(call, "uuid", &request->uuid) &&
           spb_gate_sector_size(call, "sector_size", request->sector_size);
}

static spb_status format_options(const struct spb_call *call, struct spb_format_options *options,
                                 struct spb_error *err)
{
    const PB_CreateImageRequest *request = (const void *)call->request;
    bool has_epoch = request->if_epoch_case == SPACEBLOCK__V1__CREATE_IMAGE_REQUEST__IF_EPOCH_EPOCH;

    *options = (struct spb_format_options){
        .total_blocks = request->total_blocks,
        .sector_size = request->sector_size == 0 ? SPB_BLOCK_SIZE_MIN : request->sector_size,
        .tenant_id = spb_image_ref_tenant(call, request->image),
        .epoch = has_epoch ? request->epoch : (uint64_t)time(NULL),
    };
    if (request->uuid.len == 0)
        return spb_uuid_draw(options->uuid, err);
    memcpy(options->uuid, request->uuid.data, SPB_UUID_SIZE);
    return spb_ok();
}

/* The answer, as it will be: it is recorded with the intent. */
static void set_created(struct spb_call *call, const struct spb_format_options *options)
{
    PB_CreateImageResponse reply = SPACEBLOCK__V1__CREATE_IMAGE_RESPONSE__INIT;
    PB_Image shown = SPACEBLOCK__V1__IMAGE__INIT;

    shown.tenant = options->tenant_id;
    shown.name = spb_pb_text(call->image->name);
    shown.state = SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_READY;
    shown.sector_size = options->sector_size;
    shown.total_blocks = options->total_blocks;
    shown.epoch = options->epoch;
    shown.uuid = spb_pb_bytes(options->uuid, SPB_UUID_SIZE);
    reply.image = &shown;
    spb_call_set_reply(call, &reply.base);
}

static spb_status begin_create(struct spb_call *call, const struct spb_format_options *options,
                               struct spb_error *err)
{
    char object[TEXT_SIZE], after[TEXT_SIZE];
    struct spb_act act = {
        .kind = SPB_GROUP_IMAGE_LIFE,
        .tenant = options->tenant_id,
        .image_name = call->image->name,
        .detail = options->uuid,
        .detail_size = sizeof(options->uuid),
        .object = object,
        .before = "absent",
        .after = after,
    };

    name_object(call, object);
    describe(options->uuid, options->total_blocks, options->sector_size, after);
    return spb_intent_begin(call, &act, err);
}

/* The file is there: lets it be found. */
static spb_status serve(struct spb_call *call, struct spb_error *err)
{
    spb_image_open(call->image);
    return spb_registry_add(call->daemon->registry, call->image, err);
}

/*
 * The file could not be made, or not be made durable: whether it is there all the same, its path
 * tells. Then it is served, so that nobody else takes its name or uuid.
 */
static bool end_failed(struct spb_call *call, const struct spb_format_options *options,
                       const struct spb_error *failed)
{
    uint8_t uuid[SPB_UUID_SIZE];
    struct spb_error err;
    bool there = true;

    bool looked = spb_is_ok(spb_settle_look(call->image->path, &there, uuid, &err));
    bool ours = looked && there && memcmp(uuid, options->uuid, sizeof(uuid)) == 0;
    bool served = ours && spb_is_ok(serve(call, &err));
    if (failed->code == SPB_EXISTS)
        spb_call_set_fault(call, PB_REASON(ALREADY_EXISTS), "image %s exists", call->image_text);
    else
        spb_call_set_error(call, failed);
    if (ours)
        spb_doubt_name(call, call->image->tenant, call->image->path);
    else if (looked)
        spb_intent_end(call, SPB_OUTCOME_NOT_DONE);
    else
        spb_intent_abandon(call);
    return served;
}

/* The file is there and durable. */
static void end_created(struct spb_call *call)
{
    PB_CreateImageResponse reply = SPACEBLOCK__V1__CREATE_IMAGE_RESPONSE__INIT;
    struct spb_error err;

    if (!spb_is_ok(serve(call, &err)))
        spb_call_set_error(call, &err);
    else if ((reply.image = spb_image_show(call->image, call)) != NULL)
        spb_call_set_reply(call, &reply.base);
    spb_intent_end(call, SPB_OUTCOME_DONE);
}

/* Two images of one uuid cannot be told apart. */
static bool uuid_is_taken(struct spb_call *call, const uint8_t uuid[SPB_UUID_SIZE])
{
    char other[SPB_IMAGE_TEXT_SIZE];

    if (spb_registry_claim(call->daemon->registry, call->image, uuid, other))
        return false;
    spb_call_set_fault(call, PB_REASON(ALREADY_EXISTS), "image %s has that uuid", other);
    return true;
}

/* What it will be called is its own from now on. */
static bool claim(struct spb_call *call, const struct spb_format_options *options)
{
    struct spb_error err;

    if (spb_is_ok(spb_image_claim_name(call->image, &err)))
        return !uuid_is_taken(call, options->uuid);
    spb_call_set_error(call, &err);
    return false;
}

/* With the name claimed; whether it keeps that. */
static bool carry_out_create(struct spb_call *call, const struct spb_format_options *options)
{
    struct spb_error err;

    set_created(call, options);
    if (call->payload == NULL)
        return false;
    if (!spb_is_ok(begin_create(call, options, &err))) {
        spb_intent_set_refusal(call, &err);
        return false;
    }
    spb_status status = spb_folder_make(call->daemon->images_dir, options->tenant_id, &err);
    if (spb_is_ok(status))
        status = spb_image_create(call->image->path, options, false, &err);
    if (!spb_is_ok(status))
        return end_failed(call, options, &err);
    end_created(call);
    return true;
}

static void create(struct spb_call *call)
{
    const PB_CreateImageRequest *request = (const void *)call->request;
    struct spb_format_options options;
    char name[SPB_IMAGE_NAME_MAX + 1];
    struct spb_error err;

    (void)snprintf(name, sizeof(name), "%.*s", (int)request->image->name.len,
                   (const char *)request->image->name.data);
    if (!spb_is_ok(spb_image_room(&err)) || !spb_is_ok(format_options(call, &options, &err)) ||
        !spb_is_ok(spb_image_new(call->daemon, options.tenant_id, name, &call->image, &err))) {
        spb_call_set_error(call, &err);
        return;
    }
    if (!claim(call, &options) || !carry_out_create(call, &options))
        spb_image_unclaim(call->image);
}

static void run_create(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);

    if (!spb_call_is_late(call, spb_now_ns()))
        create(call);
    spb_call_send(call);
}

void spb_images_create(struct spb_call *call)
{
    spb_call_to_workers(call, run_create);
}

/* What lies under the name that an act was about, now and after a power loss. */
static spb_status look_again(const struct spb_settling *settling, bool *there,
                             uint8_t uuid[SPB_UUID_SIZE], struct spb_error *err)
{
    const struct spb_pending_group *group = settling->group;
    char *path = spb_image_path(settling->daemon, group->tenant, group->image_name);

    if (path == NULL)
        return spb_fail_memory(err, "settling what became of an image");
    spb_status status = spb_settle_look(path, there, uuid, err);
    if (spb_is_ok(status))
        status = spb_sync_folder_of(path, err);
    free(path);
    return status;
}

spb_status spb_images_settle_create(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err)
{
    const struct spb_pending_group *group = settling->group;
    uint8_t uuid[SPB_UUID_SIZE];
    bool there = false;

    SPB_TRY(look_again(settling, &there, uuid, err));
    bool ours = there && group->changes_size == sizeof(uuid) &&
                memcmp(uuid, group->changes, sizeof(uuid)) == 0;
    *outcome = ours ? SPB_OUTCOME_DONE : SPB_OUTCOME_NOT_DONE;
    return spb_ok();
}

/* ---- Delete ------------------------------------------------------------------------------- */

/* Whether the image may go: not one that another owner holds. */
static bool may_delete(struct spb_call *call)
{
    struct spb_image *image = call->image;

    if (spb_image_refuse_guests(call))
        return false;
    (void)pthread_mutex_lock(&image->lock);
    bool gone = image->state == SPB_IMAGE_DELETED;
    bool in_use = image->state == SPB_IMAGE_UNAVAILABLE && image->reason_code == SPB_LOCKED;
    (void)pthread_mutex_unlock(&image->lock);
    if (gone || in_use)
        spb_image_set_unserved(image, call);
    return !gone && !in_use;
}

bool spb_images_delete_gate(struct spb_call *call)
{
    const PB_DeleteImageRequest *request = (const void *)call->request;

    return spb_gate_uuid(call, "uuid", &request->uuid);
}

/* What is deleted is what was served: not a file that has taken its place. */
static bool is_served_file(struct spb_call *call)
{
    struct spb_image *image = call->image;

    if (spb_device_file_is_current(spb_volume_device(image->volume)) ||
        access(image->path, F_OK) != 0)
        return true;
    spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                       "the file of image %s was replaced since it was opened: reopen it first",
                       call->image_text);
    return false;
}

static const uint8_t *known_uuid(const struct spb_image *image)
{
    return image->row.id != 0 ? image->row.uuid : image->superblock.uuid;
}

/* Whose uuid the file has. Of one that is not served, as far as it tells; what cannot be read is
 * what the registry knows under that name. */
static void find_uuid(const struct spb_image *image, uint8_t found[SPB_UUID_SIZE])
{
    uint8_t uuid[SPB_UUID_SIZE];
    struct spb_error err;
    bool there = false;

    memcpy(found, known_uuid(image), SPB_UUID_SIZE);
    if (image->volume != NULL)
        return;
    if (spb_is_ok(spb_settle_look(image->path, &there, uuid, &err)) && there &&
        !spb_bytes_are_zero(uuid, SPB_UUID_SIZE))
        memcpy(found, uuid, SPB_UUID_SIZE);
}

static bool fail_other(struct spb_call *call, const uint8_t found[SPB_UUID_SIZE],
                       const uint8_t expected[SPB_UUID_SIZE], bool was_asked)
{
    char shown[SPB_UUID_TEXT_SIZE], known[SPB_UUID_TEXT_SIZE];

    spb_uuid_write(found, shown);
    spb_uuid_write(expected, known);
    spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                       "nothing was deleted: the file of image %s has uuid %s, %s %s%s",
                       call->image_text, shown, was_asked ? "expected" : "the registry knows",
                       known, was_asked ? "" : "; to delete that file all the same, name its uuid");
    return false;
}

/* An image that is not the registry's may be another's, in the wrong place: it goes only by the
 * name that is its own. */
static bool is_the_file(struct spb_call *call, uint8_t found[SPB_UUID_SIZE])
{
    const PB_DeleteImageRequest *request = (const void *)call->request;
    const struct spb_image *image = call->image;

    if (image->volume != NULL && !is_served_file(call))
        return false;
    find_uuid(image, found);
    bool was_asked = request->uuid.len != 0;
    if (!was_asked && image->row.id == 0) /* nobody knows another one by that name */
        return true;
    const uint8_t *expected = was_asked ? request->uuid.data : image->row.uuid;
    return memcmp(found, expected, SPB_UUID_SIZE) == 0 ||
           fail_other(call, found, expected, was_asked);
}

static void describe_before(const struct spb_image *image, const uint8_t found[SPB_UUID_SIZE],
                            char before[TEXT_SIZE])
{
    char shown[SPB_UUID_TEXT_SIZE];

    if (memcmp(found, known_uuid(image), SPB_UUID_SIZE) == 0) {
        if (image->row.id != 0)
            describe(found, image->row.total_blocks, image->row.sector_size, before);
        else
            describe(found, image->superblock.total_blocks, image->sector_size, before);
        return;
    }
    spb_uuid_write(found, shown);
    (void)snprintf(before, TEXT_SIZE, "a file with uuid %s, in quarantine", shown);
}

static spb_status begin_delete(struct spb_call *call, const uint8_t found[SPB_UUID_SIZE],
                               struct spb_error *err)
{
    struct spb_image *image = call->image;
    char object[TEXT_SIZE], before[TEXT_SIZE];
    struct spb_act act = {
        .kind = SPB_GROUP_IMAGE_LIFE,
        .tenant = image->tenant,
        .image_name = image->name,
        .detail = found,
        .detail_size = SPB_UUID_SIZE,
        .object = object,
        .before = before,
        .after = "absent",
    };

    name_object(call, object);
    describe_before(image, found, before);
    return spb_intent_begin(call, &act, err);
}

/* What the daemon knows of it goes too; what is left in the database, the next start finds. Name
 * and uuid stay taken. */
static void forget(struct spb_call *call)
{
    struct spb_image *image = call->image;
    struct spb_daemon *daemon = call->daemon;
    struct spb_error err;

    spb_image_note_deletion(image);
    spb_image_close(image);
    spb_status status = spb_settle_lost(daemon, image->row.id, &err);
    if (spb_is_ok(status) && image->row.id != 0)
        status = spb_rows_remove_image(daemon->audit, image->row.id, &err);
    if (!spb_is_ok(status))
        spb_log(&daemon->log, SPB_LOG_WARN, "image-not-forgotten",
                SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
                SPB_TEXT("reason", err.text));
}

/*
 * With the intent's outcome on its way: whoever takes the name, or the uuid, records that after it.
 * Else a crash could leave the deletion open beside an image that looks like the deleted one.
 */
static void give_up_name(struct spb_image *image)
{
    struct spb_registry *registry = image->daemon->registry;

    spb_registry_unclaim(registry, image);
    spb_registry_remove(registry, image);
}

/* With the intent recorded. */
static void carry_out_delete(struct spb_call *call)
{
    struct spb_image *image = call->image;
    struct spb_error err;

    if (unlink(image->path) != 0 && errno != ENOENT) {
        (void)spb_fail_errno(&err, SPB_IO, errno, "deleting image %s", call->image_text);
        spb_call_set_error(call, &err);
        spb_intent_end(call, SPB_OUTCOME_NOT_DONE);
        return;
    }
    spb_status status = spb_sync_folder_of(image->path, &err);
    forget(call);
    spb_log(&call->daemon->log, SPB_LOG_INFO, "image-deleted", SPB_NUMBER("tenant", image->tenant),
            SPB_TEXT("name", image->name), SPB_TEXT("by", call->principal.name));
    if (spb_is_ok(status)) {
        spb_intent_end(call, SPB_OUTCOME_DONE);
    } else {
        spb_call_set_fault(call, PB_REASON(IO_ERROR),
                           "%s: image %s is gone, but after a power loss it may be there again",
                           err.text, call->image_text);
        spb_doubt_name(call, image->tenant, image->path);
    }
    give_up_name(image);
}

static bool delete_alone(struct spb_call *call)
{
    PB_DeleteImageResponse reply = SPACEBLOCK__V1__DELETE_IMAGE_RESPONSE__INIT;
    struct spb_image *image = call->image;
    uint8_t found[SPB_UUID_SIZE];
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()) || !may_delete(call) || !is_the_file(call, found))
        return true;
    spb_call_set_reply(call, &reply.base);
    if (call->payload == NULL)
        return true;
    if (!spb_is_ok(spb_doubts_settle(call->daemon->doubts, image->tenant, &err))) {
        spb_call_set_error(call, &err);
        return true;
    }
    spb_status status = spb_audit_flush(call->daemon->audit, &err);
    if (spb_is_ok(status))
        status = begin_delete(call, found, &err);
    if (!spb_is_ok(status)) {
        spb_intent_set_refusal(call, &err);
        return true;
    }
    spb_image_reclaim(image);
    spb_uploads_drop_image(call->daemon->uploads, image);
    carry_out_delete(call);
    spb_image_reclaim_done(image);
    return true;
}

void spb_images_delete(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.alone = delete_alone};

    spb_actor_queue(call, &kind);
}

spb_status spb_images_settle_delete(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err)
{
    const struct spb_pending_group *group = settling->group;
    uint8_t uuid[SPB_UUID_SIZE];
    bool there = false;

    SPB_TRY(look_again(settling, &there, uuid, err));
    /* Another image that has come in its place is not the one that was to go. */
    bool another =
        group->changes_size == sizeof(uuid) && !spb_bytes_are_zero(group->changes, sizeof(uuid)) &&
        !spb_bytes_are_zero(uuid, sizeof(uuid)) && memcmp(uuid, group->changes, sizeof(uuid)) != 0;
    *outcome = there && !another ? SPB_OUTCOME_NOT_DONE : SPB_OUTCOME_DONE;
    return spb_ok();
}
