/*
 * Uploads.Start: checks the target, reserves the space and keeps the upload's row, all before it is
 * answered. Runs on the strand of the upload that it makes, so that nothing ends it meanwhile.
 */
#include "acts.h"
#include "artifacts.h"
#include "base/status.h"
#include "copy_image.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "services/services.h"
#include "services/upload_calls.h"

#define TARGET(name) SPACEBLOCK__V1__START_UPLOAD_REQUEST__TARGET_##name

/* ---- Gates -------------------------------------------------------------------------------- */

static bool gate_product(struct spb_call *call, const PB_ProductTarget *target)
{
    return spb_gate_image(call, target->image, "product.image") &&
           spb_gate_product_name(call, "product.name", &target->name) &&
           spb_gate_max(call, "product.product_class", target->product_class, UINT16_MAX) &&
           spb_gate_max(call, "product.priority", target->priority, UINT8_MAX);
}

static bool gate_image(struct spb_call *call, const PB_ImageTarget *target, uint64_t size)
{
    if (!spb_gate_image(call, target->image, "image.image") ||
        !spb_gate_sector_size(call, "image.sector_size", target->sector_size))
        return false;
    if (!spb_gate_max(call, "size", size, INT64_MAX))
        return false;
    if (size >= (uint64_t)SPB_BLOCKS_MIN * SPB_BLOCK_SIZE_MIN)
        return true;
    spb_call_set_bad_field(call, "size", "found %llu, expected %u at least: an image has %u blocks",
                           (unsigned long long)size, SPB_BLOCKS_MIN * SPB_BLOCK_SIZE_MIN,
                           SPB_BLOCKS_MIN);
    return false;
}

static bool gate_artifact(struct spb_call *call, const PB_ArtifactTarget *target, uint64_t size)
{
    if (!spb_gate_max(call, "size", size, INT64_MAX))
        return false;
    if (target->if_tenant_case == SPACEBLOCK__V1__ARTIFACT_TARGET__IF_TENANT_TENANT &&
        !spb_gate_max(call, "artifact.tenant", target->tenant, UINT16_MAX))
        return false;
    return spb_gate_artifact_label(call, "artifact.name", &target->name) &&
           spb_gate_artifact_hash(call, "artifact.sha256", &target->sha256);
}

bool spb_uploads_start_gate(struct spb_call *call)
{
    const PB_StartUploadRequest *request = (const void *)call->request;

    if (request->target_case == TARGET(PRODUCT) && request->product != NULL)
        return gate_product(call, request->product);
    if (request->target_case == TARGET(IMAGE) && request->image != NULL)
        return gate_image(call, request->image, request->size);
    if (request->target_case == TARGET(ARTIFACT) && request->artifact != NULL)
        return gate_artifact(call, request->artifact, request->size);
    spb_call_set_bad_field(call, "target", "is missing, expected product, image or artifact");
    return false;
}

/* ---- The row ------------------------------------------------------------------------------ */

static void take_image_name(struct spb_upload_row *row, const struct spb_call *call,
                            const PB_ImageRef *ref)
{
    row->tenant = spb_image_ref_tenant(call, ref);
    memcpy(row->image, ref->name.data, ref->name.len);
}

static void take_name(struct spb_upload_row *row, const ProtobufCBinaryData *name)
{
    row->name_len = name->len;
    if (name->len > 0)
        memcpy(row->name, name->data, name->len);
}

static void describe_product(struct spb_upload_row *row, const struct spb_call *call,
                             const PB_ProductTarget *target)
{
    row->kind = SPB_UPLOAD_PRODUCT;
    take_image_name(row, call, target->image);
    take_name(row, &target->name);
    row->product_class = (uint16_t)target->product_class;
    row->priority = (uint8_t)target->priority;
    row->replace = target->replace;
}

static void describe_image(struct spb_upload_row *row, const struct spb_call *call,
                           const PB_ImageTarget *target)
{
    row->kind = SPB_UPLOAD_IMAGE;
    take_image_name(row, call, target->image);
    row->new_identity = target->new_identity;
    row->sector_size = target->sector_size;
}

static void describe_artifact(struct spb_upload_row *row, const struct spb_call *call,
                              const PB_ArtifactTarget *target)
{
    bool named = target->if_tenant_case == SPACEBLOCK__V1__ARTIFACT_TARGET__IF_TENANT_TENANT;

    row->kind = SPB_UPLOAD_ARTIFACT;
    row->tenant = named ? (uint16_t)target->tenant : call->principal.tenant;
    take_name(row, &target->name);
    memcpy(row->sha256, target->sha256.data, sizeof(row->sha256));
}

static void describe(struct spb_upload_row *row, const struct spb_call *call)
{
    const PB_StartUploadRequest *request = (const void *)call->request;

    *row = (struct spb_upload_row){
        .owner_kind = (uint32_t)call->principal.kind,
        .owner_tenant = call->principal.tenant,
        .size = request->size,
    };
    memcpy(row->owner, call->principal.name, sizeof(call->principal.name));
    if (request->target_case == TARGET(PRODUCT))
        describe_product(row, call, request->product);
    else if (request->target_case == TARGET(IMAGE))
        describe_image(row, call, request->image);
    else
        describe_artifact(row, call, request->artifact);
}

/* ---- Starting ----------------------------------------------------------------------------- */

/* Reserved and listed: makes what outlives the daemon, between its intent and its outcome. */
static spb_status make_durable(struct spb_call *call, struct spb_error *err)
{
    struct spb_upload *upload = call->upload;
    PB_StartUploadResponse reply = SPACEBLOCK__V1__START_UPLOAD_RESPONSE__INIT;

    reply.upload_id = spb_pb_bytes(upload->row.id, sizeof(upload->row.id));
    reply.chunk_size_max = (uint32_t)SPB_LIMIT(call->daemon, chunk_max_bytes);
    spb_call_set_reply(call, &reply.base);
    SPB_TRY(spb_act_begin_upload(call, SPB_ACT_UPLOAD_START, "absent", "open", err));
    spb_status status = upload->ops->make != NULL ? upload->ops->make(upload, err) : spb_ok();
    if (spb_is_ok(status))
        status = spb_upload_check(upload, err);
    if (spb_is_ok(status))
        status = spb_upload_keep(upload, err);
    spb_act_end(call, spb_is_ok(status), false);
    return status;
}

/* Fails early where publishing is known to fail. */
static spb_status check_target(struct spb_call *call, struct spb_error *err)
{
    const struct spb_upload_row *row = &call->upload->row;

    if (row->kind != SPB_UPLOAD_IMAGE)
        return spb_ok();
    return spb_image_name_is_free(call->daemon, row->tenant, row->image, err);
}

static spb_status start(struct spb_call *call, struct spb_error *err)
{
    struct spb_upload *upload = call->upload;
    struct spb_volume *volume = call->state;

    SPB_TRY(check_target(call, err));
    SPB_TRY(spb_upload_enlist(upload, err));
    spb_status status = upload->ops->reserve(upload, volume, err);
    if (spb_is_ok(status))
        status = make_durable(call, err);
    if (!spb_is_ok(status)) {
        if (upload->row.kind == SPB_UPLOAD_PRODUCT)
            (void)spb_image_note_failure(upload->image, err);
        spb_upload_end(upload);
    }
    return status;
}

static void run_start(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_error err;

    if (!spb_call_is_late(call, spb_now_ns()) && !spb_is_ok(start(call, &err)))
        spb_act_set_error(call, &err);
    if (call->image != NULL)
        spb_image_unhold(call->image);
    spb_call_send(call);
}

/* On a strand of its own; a product's image is held. */
static void begin(struct spb_call *call, const struct spb_upload_row *row)
{
    struct spb_error err;

    if (spb_is_ok(
            spb_upload_new(call->daemon->uploads, row, true, call->image, &call->upload, &err))) {
        spb_uploads_to_strand(call, run_start);
        return;
    }
    if (call->image != NULL)
        spb_image_unhold(call->image);
    spb_call_fail(call, &err);
}

/* False where the call has been answered, or runs again when the image is to be had. */
static bool hold_image(struct spb_call *call, const PB_ProductTarget *target)
{
    /* A second time where the image was closing the first time. */
    if (call->image == NULL && !spb_find_image(call, target->image)) {
        spb_call_send(call);
        return false;
    }
    struct spb_volume *volume = spb_image_hold_for(call);
    if (volume == NULL)
        return false; /* the call is another's by now */
    call->state = volume;
    /* No guest gets it while it is held. */
    if (!spb_image_refuse_guests(call))
        return true;
    spb_image_unhold(call->image);
    spb_call_send(call);
    return false;
}

void spb_uploads_start(struct spb_call *call)
{
    const PB_StartUploadRequest *request = (const void *)call->request;
    struct spb_upload_row row;

    describe(&row, call);
    if (row.kind == SPB_UPLOAD_PRODUCT) {
        if (hold_image(call, request->product))
            begin(call, &row);
        return;
    }
    if (spb_may_name_tenant(call, row.tenant))
        begin(call, &row);
    else
        spb_call_send(call);
}
