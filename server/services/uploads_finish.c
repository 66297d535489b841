/*
 * Uploads.Finish: all bytes have come. They are flushed, read back and checked on the upload's
 * strand; then a product is published by its image's actor, in a group, a file by one rename.
 */
#include <stdio.h>

#include "actor.h"
#include "acts.h"
#include "artifacts.h"
#include "base/status.h"
#include "copy_image.h"
#include "daemon.h"
#include "dispatch.h"
#include "doubts.h"
#include "image.h"
#include "services/services.h"
#include "services/show_product.h"
#include "services/upload_calls.h"
#include "spaceblock/group.h"
#include "uuid.h"

bool spb_uploads_finish_gate(struct spb_call *call)
{
    const PB_FinishUploadRequest *request = (const void *)call->request;

    return spb_uploads_gate_id(call, &request->upload_id);
}

/* ---- Completing --------------------------------------------------------------------------- */

/* Failures of the medium end the upload; what is the caller's fault leaves it as it is. */
static void set_failure(struct spb_call *call, const struct spb_error *err)
{
    if (err->code == SPB_INVALID || err->code == SPB_NO_MEMORY || err->code == SPB_UNSUPPORTED)
        spb_call_set_error(call, err);
    else
        spb_uploads_give_up(call, err);
}

/* Makes it ready to be published; sets the error where it is not. */
static bool complete(struct spb_call *call)
{
    const PB_FinishUploadRequest *request = (const void *)call->request;
    struct spb_upload *upload = call->upload;
    struct spb_upload_standing standing;
    struct spb_error err;

    spb_upload_look(upload, spb_now_ns(), &standing);
    if (standing.next_offset != upload->row.size) {
        spb_call_set_fault(call, PB_REASON(WRONG_STATE), "%llu of %llu bytes have come",
                           (unsigned long long)standing.next_offset,
                           (unsigned long long)upload->row.size);
        return false;
    }
    if (!spb_is_ok(spb_upload_finish(upload, &err))) {
        set_failure(call, &err);
        return false;
    }
    if (upload->data.crc != request->crc32c) {
        spb_call_set_bad_field(call, "crc32c", "found %08x, that of the bytes that came is %08x",
                               request->crc32c, upload->data.crc);
        return false;
    }
    if (spb_is_ok(spb_upload_verify(upload, &err)))
        return true;
    set_failure(call, &err);
    return false;
}

/* ---- A product ---------------------------------------------------------------------------- */

static spb_status decide_publish(struct spb_call *call, struct spb_group *group,
                                 struct spb_error *err)
{
    struct spb_upload *upload = call->upload;
    struct spb_product_attributes attributes = {
        .name = upload->row.name,
        .name_len = upload->row.name_len,
        .product_class = upload->row.product_class,
        .priority = upload->row.priority,
    };

    /* Reopening ends all uploads; a turn in the queue may meet that. */
    if (upload->reservation == NULL) {
        spb_uploads_set_absent(call);
        return spb_fail(err, SPB_NOT_FOUND, "the upload has ended");
    }
    return spb_group_publish_product(group, upload->reservation, &attributes, &upload->data,
                                     upload->row.replace, call->state, err);
}

static void publish_reply(struct spb_call *call)
{
    PB_FinishUploadResponse reply = SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__INIT;
    struct spb_product *product = call->state;
    uint8_t identity[SPB_IDENTITY_SIZE];
    PB_Product shown;

    spb_product_show(product, identity, &shown);
    reply.result_case = SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__RESULT_PRODUCT;
    reply.product = &shown;
    spb_call_set_reply(call, &reply.base);
}

static void publish_done(struct spb_call *call)
{
    spb_upload_end_published(call->upload);
}

/* A taken name leaves the upload as it is, to be finished once the name is free. */
static void publish_failed(struct spb_call *call)
{
    if (spb_image_state(call->upload->image) != SPB_IMAGE_READY)
        spb_upload_end_published(call->upload);
    else
        (void)spb_upload_turn(call->upload, SPB_UPLOAD_PUBLISHING, SPB_UPLOAD_OPEN);
}

/* Into the actor's hands, which answers it; false where the call is to be answered. */
static bool publish_product(struct spb_call *call)
{
    struct spb_upload *upload = call->upload;

    call->state = spb_call_alloc(call, sizeof(struct spb_product));
    if (call->state == NULL)
        return false;
    if (!spb_upload_turn(upload, SPB_UPLOAD_OPEN, SPB_UPLOAD_PUBLISHING)) {
        spb_uploads_set_absent(call);
        return false;
    }
    spb_uploads_set_image(call, upload->image);
    return true;
}

/* ---- An image ----------------------------------------------------------------------------- */

struct importing {
    struct spb_call *call;
    struct spb_image_look look;
    uint8_t old_uuid[SPB_UUID_SIZE];
    uint16_t old_tenant;
    struct spb_image *image; /* a reference */
    char text[96];
};

static bool set_import_reply(struct importing *importing)
{
    PB_FinishUploadResponse reply = SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__INIT;

    reply.image = spb_image_show(importing->image, importing->call);
    if (reply.image == NULL)
        return false;
    reply.result_case = SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__RESULT_IMAGE;
    spb_call_set_reply(importing->call, &reply.base);
    return true;
}

/* What the file says of itself, and will say once it is an image here. */
static spb_status look_at_file(struct importing *importing, struct spb_error *err)
{
    const struct spb_upload *upload = importing->call->upload;
    const struct spb_upload_row *row = &upload->row;
    struct spb_superblock *superblock = &importing->look.superblock;

    SPB_TRY(spb_image_look(upload->path, row->sector_size, importing->text, &importing->look, err));
    importing->old_tenant = superblock->tenant_id;
    memcpy(importing->old_uuid, superblock->uuid, SPB_UUID_SIZE);
    if (row->new_identity) {
        superblock->tenant_id = row->tenant;
        return spb_uuid_draw(superblock->uuid, err);
    }
    if (superblock->tenant_id == row->tenant)
        return spb_ok();
    return spb_fail(err, SPB_IN_USE,
                    "the file's superblock names tenant %u, expected %u: start the upload with "
                    "new_identity",
                    (unsigned)superblock->tenant_id, (unsigned)row->tenant);
}

static spb_status claim_uuid(struct importing *importing, struct spb_error *err)
{
    struct spb_error taken;

    if (spb_is_ok(spb_image_claim_uuid(importing->image, &taken)))
        return spb_ok();
    return spb_fail(err, SPB_EXISTS, "%.300s: start the upload with new_identity", taken.text);
}

static spb_status begin_import(struct importing *importing, struct spb_error *err)
{
    struct spb_call *call = importing->call;
    const struct spb_upload_row *row = &call->upload->row;
    struct spb_act_detail detail = {.kind = SPB_ACT_IMAGE_IMPORT,
                                    .tenant = row->tenant,
                                    .new_identity = row->new_identity,
                                    .sector_size = importing->look.sector_size};

    SPB_TRY(spb_image_foresee(call->daemon, row->tenant, row->image, &importing->look,
                              &importing->image, err));
    SPB_TRY(spb_image_claim_name(importing->image, err));
    SPB_TRY(claim_uuid(importing, err));
    if (!set_import_reply(importing))
        return spb_fail_memory(err, "taking in an image");
    memcpy(detail.name, row->image, sizeof(detail.name));
    memcpy(detail.uuid, importing->look.superblock.uuid, sizeof(detail.uuid));
    memcpy(detail.upload, row->id, sizeof(detail.upload));
    struct spb_act_texts texts = {
        .object = importing->text, .before = "absent", .after = "uploaded"};
    return spb_act_begin(call, &detail, &texts, err);
}

/* Between the intent and its outcome. */
static spb_status carry_out_import(struct importing *importing, bool *named, struct spb_error *err)
{
    const struct spb_upload *upload = importing->call->upload;
    const struct spb_superblock *superblock = &importing->look.superblock;
    struct spb_error failed;

    if (upload->row.new_identity)
        SPB_TRY(spb_image_reidentify(upload->path, superblock->tenant_id, superblock->uuid,
                                     importing->text, err));
    spb_status status = spb_image_publish(importing->image, upload->path, named, err);
    /* The upload goes on with the bytes that came; where it cannot it begins anew after a restart.
     */
    if (!*named && upload->row.new_identity &&
        !spb_is_ok(spb_image_reidentify(upload->path, importing->old_tenant, importing->old_uuid,
                                        importing->text, &failed)))
        spb_log(&importing->call->daemon->log, SPB_LOG_WARN, "upload-changed",
                SPB_TEXT("image", upload->image_text), SPB_TEXT("reason", failed.text));
    return status;
}

static spb_status import(struct importing *importing, struct spb_error *err)
{
    struct spb_call *call = importing->call;
    bool named = false;

    SPB_TRY(look_at_file(importing, err));
    spb_status status = begin_import(importing, err);
    if (spb_is_ok(status)) {
        status = carry_out_import(importing, &named, err);
        spb_act_end_named(call, spb_is_ok(status) && set_import_reply(importing), named,
                          importing->image, err);
    }
    if (named)
        spb_upload_end(call->upload);
    else if (importing->image != NULL)
        spb_image_unclaim(importing->image);
    return status;
}

static void publish_image(struct spb_call *call)
{
    struct importing importing = {.call = call};
    struct spb_error err;

    (void)snprintf(importing.text, sizeof(importing.text), "image %s", call->upload->image_text);
    if (!spb_is_ok(import(&importing, &err)))
        spb_act_set_error(call, &err);
    if (importing.image != NULL)
        spb_image_unref(importing.image);
}

/* ---- An artifact -------------------------------------------------------------------------- */

static void set_artifact_reply(struct spb_call *call, const struct spb_artifact_row *row)
{
    PB_FinishUploadResponse reply = SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__INIT;
    PB_Artifact shown;

    spb_artifact_show(row, &shown);
    reply.result_case = SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__RESULT_ARTIFACT;
    reply.artifact = &shown;
    spb_call_set_reply(call, &reply.base);
}

static spb_status begin_artifact(struct spb_call *call, const struct spb_artifact_row *row,
                                 struct spb_error *err)
{
    struct spb_act_detail detail = {.kind = SPB_ACT_ARTIFACT_PUT,
                                    .tenant = row->tenant,
                                    .size = row->size,
                                    .label_len = (uint8_t)row->name_len};
    char object[16 + SPB_SHA256_TEXT_SIZE] = "artifact ";

    memcpy(detail.sha256, row->sha256, sizeof(detail.sha256));
    memcpy(detail.label, row->name, row->name_len);
    memcpy(detail.upload, call->upload->row.id, sizeof(detail.upload));
    spb_sha256_text(row->sha256, object + strlen(object));
    struct spb_act_texts texts = {.object = object, .before = "uploaded", .after = "present"};
    return spb_act_begin(call, &detail, &texts, err);
}

static spb_status store_artifact(struct spb_call *call, struct spb_error *err)
{
    struct spb_upload *upload = call->upload;
    struct spb_artifact_row row = {
        .tenant = upload->row.tenant,
        .name_len = upload->row.name_len,
        .size = upload->row.size,
        .created_us = spb_unix_us(),
    };
    bool named = false;

    memcpy(row.sha256, upload->row.sha256, sizeof(row.sha256));
    memcpy(row.name, upload->row.name, upload->row.name_len);
    SPB_TRY(spb_doubts_settle(call->daemon->doubts, row.tenant, err));
    set_artifact_reply(call, &row);
    SPB_TRY(begin_artifact(call, &row, err));
    spb_status status = spb_artifact_publish(call->daemon, upload->path, &row, spb_call_may_go_on,
                                             call, &named, err);
    if (spb_is_ok(status))
        set_artifact_reply(call, &row);
    if (named && !spb_is_ok(status)) {
        err->code = SPB_IO; /* whatever failed: it is there */
        spb_doubt_artifact(call, &row, false);
    } else {
        spb_act_end(call, spb_is_ok(status), false);
    }
    if (named)
        spb_upload_end(upload);
    return status;
}

static void publish_artifact(struct spb_call *call)
{
    struct spb_error err;

    if (!spb_is_ok(store_artifact(call, &err)))
        spb_act_set_error(call, &err);
}

/* ---- Finish ------------------------------------------------------------------------------- */

static void run_finish(struct spb_task *task)
{
    static const struct spb_op_kind kind = {.decide = decide_publish,
                                            .reply = publish_reply,
                                            .done = publish_done,
                                            .failed = publish_failed};
    struct spb_call *call = spb_call_of_task(task);
    struct spb_upload *upload = call->upload;
    bool queue = false;

    if (!spb_uploads_begin_work(call))
        return;
    if (complete(call)) {
        if (upload->row.kind == SPB_UPLOAD_PRODUCT)
            queue = publish_product(call);
        else if (upload->row.kind == SPB_UPLOAD_IMAGE)
            publish_image(call);
        else
            publish_artifact(call);
    }
    spb_upload_leave(upload);
    if (queue)
        spb_actor_queue(call, &kind);
    else
        spb_call_send(call);
}

void spb_uploads_finish(struct spb_call *call)
{
    const PB_FinishUploadRequest *request = (const void *)call->request;

    if (spb_uploads_find_for(call, &request->upload_id))
        spb_uploads_to_strand(call, run_finish);
}
