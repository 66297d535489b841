/*
 * Uploads of data products. Start reserves; chunks and the finishing run on the upload's strand, in
 * the order in which they came; the image's actor only publishes. Nothing survives the daemon yet,
 * so that Status gives no durable offset.
 */
#include <stdlib.h>

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "services/services.h"
#include "services/show_product.h"
#include "uploads.h"

/* ---- Common ------------------------------------------------------------------------------- */

static bool gate_id(struct spb_call *call, const ProtobufCBinaryData *id)
{
    if (id->len == SPB_UPLOAD_ID_SIZE)
        return true;
    spb_call_set_bad_field(call, "upload_id", "found %zu bytes, expected %u", id->len,
                           SPB_UPLOAD_ID_SIZE);
    return false;
}

/* The same for one that never was, was another's, or has ended. */
static void set_no_upload(struct spb_call *call)
{
    call->image_text[0] = '\0';
    spb_call_set_fault(call, PB_REASON(NOT_FOUND),
                       "no such upload: it was finished, aborted, has expired or never was");
}

/* Finds the caller's upload; answers the call where there is none. */
static bool find_upload(struct spb_call *call, const ProtobufCBinaryData *id)
{
    call->upload = spb_upload_find(call->daemon->uploads, &call->principal, id->data, id->len);
    if (call->upload == NULL) {
        set_no_upload(call);
        spb_call_send(call);
        return false;
    }
    memcpy(call->image_text, call->upload->image_text, sizeof(call->image_text));
    return true;
}

static void to_strand(struct spb_call *call, void (*run)(struct spb_task *task))
{
    call->task.run = run;
    spb_upload_submit(call->upload, &call->task);
}

/*
 * Begins work on the strand: the volume is held and the upload open, or the error is set. A call
 * that a strand has reached may find that the upload ended before it.
 */
static bool begin_work(struct spb_call *call)
{
    struct spb_upload *upload = call->upload;

    if (spb_call_is_late(call, spb_now_ns()))
        return false;
    if (!spb_image_hold(upload->image)) {
        set_no_upload(call);
        return false;
    }
    enum spb_upload_state state = spb_upload_state(upload);
    if (state == SPB_UPLOAD_OPEN)
        return true;
    spb_image_unhold(upload->image);
    if (state == SPB_UPLOAD_ENDED)
        set_no_upload(call);
    else
        spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                           "the upload is being published by an earlier call");
    return false;
}

/* The medium or the space failed under it: it cannot go on. */
static void give_up(struct spb_call *call, const struct spb_error *err)
{
    (void)spb_image_note_failure(call->upload->image, err);
    spb_upload_end(call->upload);
    spb_call_set_error(call, err);
}

/* ---- Start -------------------------------------------------------------------------------- */

bool spb_uploads_start_gate(struct spb_call *call)
{
    const PB_StartUploadRequest *request = (const void *)call->request;

    if (request->target_case != SPACEBLOCK__V1__START_UPLOAD_REQUEST__TARGET_PRODUCT ||
        request->product == NULL) {
        spb_call_set_bad_field(call, "product", "is missing, expected the upload's target");
        return false;
    }
    const PB_ProductTarget *target = request->product;
    return spb_gate_image(call, target->image, "product.image") &&
           spb_gate_product_name(call, "product.name", &target->name) &&
           spb_gate_max(call, "product.product_class", target->product_class, UINT16_MAX) &&
           spb_gate_max(call, "product.priority", target->priority, UINT8_MAX);
}

static void describe(struct spb_upload *upload, const struct spb_call *call)
{
    const PB_StartUploadRequest *request = (const void *)call->request;
    const PB_ProductTarget *target = request->product;

    upload->owner = call->principal;
    memcpy(upload->image_text, call->image_text, sizeof(upload->image_text));
    memcpy(upload->name, target->name.data, target->name.len);
    upload->name_len = target->name.len;
    upload->product_class = (uint16_t)target->product_class;
    upload->priority = (uint8_t)target->priority;
    upload->replace = target->replace;
    upload->size = request->size;
}

/* Reserves the space. Fails early where publishing is known to fail. */
static spb_status reserve(struct spb_upload *upload, struct spb_volume *volume,
                          struct spb_error *err)
{
    struct spb_product old;

    SPB_TRY(spb_volume_is_writable(volume, err));
    if (!upload->replace &&
        spb_is_ok(spb_product_find(volume, upload->name, upload->name_len, &old, NULL)))
        return spb_fail(err, SPB_EXISTS, "image %s has a product %.*s, and replace is not set",
                        upload->image_text, (int)upload->name_len, upload->name);
    SPB_TRY(spb_reservation_new(volume, upload->size, &upload->reservation, err));
    SPB_TRY(
        spb_product_writer_new(volume, upload->reservation, upload->size, &upload->writer, err));
    return spb_upload_enlist(upload, err);
}

static spb_status start(struct spb_call *call, struct spb_upload **started, struct spb_error *err)
{
    struct spb_upload *upload = NULL;

    SPB_TRY(spb_upload_new(call->daemon->uploads, call->image, &upload, err));
    describe(upload, call);
    spb_status status = reserve(upload, call->state, err);
    if (!spb_is_ok(status)) {
        spb_upload_end(upload);
        spb_upload_unref(upload);
        return status;
    }
    *started = upload;
    return status;
}

static void run_start(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    PB_StartUploadResponse reply = SPACEBLOCK__V1__START_UPLOAD_RESPONSE__INIT;
    struct spb_upload *upload = NULL;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_image_unhold(call->image);
        spb_call_send(call);
        return;
    }
    if (spb_is_ok(start(call, &upload, &err))) {
        reply.upload_id = spb_pb_bytes(upload->id, sizeof(upload->id));
        reply.chunk_size_max = (uint32_t)SPB_LIMIT(call->daemon, chunk_max_bytes);
        spb_call_set_reply(call, &reply.base);
        spb_upload_unref(upload);
    } else {
        spb_call_set_error(call, &err);
    }
    spb_image_unhold(call->image);
    spb_call_send(call);
}

void spb_uploads_start(struct spb_call *call)
{
    const PB_StartUploadRequest *request = (const void *)call->request;

    /* A second time where the image was closing the first time. */
    if (call->image == NULL && !spb_find_image(call, request->product->image)) {
        spb_call_send(call);
        return;
    }
    struct spb_volume *volume = spb_image_hold_for(call);
    if (volume == NULL)
        return; /* the call is another's by now */
    call->state = volume;
    spb_call_to_workers(call, run_start);
}

/* ---- Write -------------------------------------------------------------------------------- */

bool spb_uploads_write_gate(struct spb_call *call)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;

    uint64_t max = SPB_LIMIT(call->daemon, chunk_max_bytes);

    if (!gate_id(call, &request->upload_id))
        return false;
    if (request->data.len > 0 && request->data.len <= max)
        return true;
    spb_call_set_bad_field(call, "data", "found %zu bytes, expected 1 to %llu", request->data.len,
                           (unsigned long long)max);
    return false;
}

/* Whether the chunk's bytes are right and lie within the upload; sets the error. */
static bool chunk_is_good(struct spb_call *call)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;
    const struct spb_upload *upload = call->upload;
    uint32_t crc = spb_crc32c(0, request->data.data, request->data.len);

    if (crc != request->crc32c) {
        spb_call_set_bad_field(call, "crc32c", "found %08x, the data's is %08x", request->crc32c,
                               crc);
        return false;
    }
    if (!spb_range_within(request->offset, request->data.len, upload->size)) {
        spb_call_set_bad_field(call, "offset",
                               "%zu bytes at %llu go beyond the upload's size of %llu",
                               request->data.len, (unsigned long long)request->offset,
                               (unsigned long long)upload->size);
        return false;
    }
    if (request->data.len < SPB_CHUNK_MIN && request->offset + request->data.len != upload->size) {
        spb_call_set_bad_field(call, "data",
                               "found %zu bytes, expected %u at least in all but the last chunk",
                               request->data.len, SPB_CHUNK_MIN);
        return false;
    }
    return true;
}

static void set_next_offset(struct spb_call *call)
{
    PB_WriteUploadResponse reply = SPACEBLOCK__V1__WRITE_UPLOAD_RESPONSE__INIT;

    reply.next_offset = spb_upload_offset(call->upload);
    spb_call_set_reply(call, &reply.base);
}

/* The last chunk also completes the product's last block, so that it meets the medium here. */
static spb_status take_chunk(struct spb_upload *upload, const PB_WriteUploadRequest *request,
                             struct spb_error *err)
{
    uint64_t next = request->offset + request->data.len;

    SPB_TRY(spb_product_writer_write(upload->writer, request->data.data, request->data.len, err));
    if (next == upload->size) {
        SPB_TRY(spb_product_writer_finish(upload->writer, &upload->data, err));
        upload->finished = true;
    }
    spb_upload_set_offset(upload, next);
    return spb_ok();
}

static void write_chunk(struct spb_call *call)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;
    struct spb_upload *upload = call->upload;
    uint64_t next = spb_upload_offset(upload);
    struct spb_error err;

    if (!chunk_is_good(call))
        return;
    if (request->offset + request->data.len <= next) {
        set_next_offset(call); /* a repeat: it is there already */
        return;
    }
    if (request->offset != next) {
        spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                           "the chunk begins at %llu, expected %llu, which comes next",
                           (unsigned long long)request->offset, (unsigned long long)next);
        return;
    }
    if (spb_is_ok(take_chunk(upload, request, &err))) {
        set_next_offset(call);
    } else {
        give_up(call, &err);
    }
}

static void run_write(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);

    if (begin_work(call)) {
        write_chunk(call);
        spb_image_unhold(call->upload->image);
    }
    spb_call_send(call);
}

void spb_uploads_write(struct spb_call *call)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;

    if (find_upload(call, &request->upload_id))
        to_strand(call, run_write);
}

/* ---- Status ------------------------------------------------------------------------------- */

bool spb_uploads_status_gate(struct spb_call *call)
{
    const PB_UploadStatusRequest *request = (const void *)call->request;

    return gate_id(call, &request->upload_id);
}

void spb_uploads_status(struct spb_call *call)
{
    const PB_UploadStatusRequest *request = (const void *)call->request;
    PB_UploadStatusResponse reply = SPACEBLOCK__V1__UPLOAD_STATUS_RESPONSE__INIT;

    if (!find_upload(call, &request->upload_id))
        return;
    reply.next_offset = spb_upload_offset(call->upload);
    reply.size = call->upload->size;
    reply.expires_in_seconds =
        spb_upload_seconds_left(call->upload, spb_loop_now_ns(call->daemon->loop));
    spb_call_reply(call, &reply.base);
}

/* ---- Finish ------------------------------------------------------------------------------- */

bool spb_uploads_finish_gate(struct spb_call *call)
{
    const PB_FinishUploadRequest *request = (const void *)call->request;

    return gate_id(call, &request->upload_id);
}

/* Flushes what was written and reads it back, beside the actor. */
static spb_status verify(const struct spb_upload *upload, struct spb_error *err)
{
    return spb_product_data_verify(upload->image->volume, upload->reservation, &upload->data, err);
}

/* Makes it ready to be published; sets the error where it is not. */
static bool complete(struct spb_call *call)
{
    const PB_FinishUploadRequest *request = (const void *)call->request;
    struct spb_upload *upload = call->upload;
    uint64_t next = spb_upload_offset(upload);
    spb_status status = spb_ok();
    struct spb_error err;

    if (next != upload->size) {
        spb_call_set_fault(call, PB_REASON(WRONG_STATE), "%llu of %llu bytes have come",
                           (unsigned long long)next, (unsigned long long)upload->size);
        return false;
    }
    if (!upload->finished)
        status = spb_product_writer_finish(upload->writer, &upload->data, &err);
    upload->finished = spb_is_ok(status);
    if (upload->finished && upload->data.crc != request->crc32c) {
        spb_call_set_bad_field(call, "crc32c", "found %08x, that of the bytes that came is %08x",
                               request->crc32c, upload->data.crc);
        return false;
    }
    if (upload->finished && !upload->verified)
        status = verify(upload, &err);
    upload->verified = spb_is_ok(status);
    if (!spb_is_ok(status))
        give_up(call, &err);
    return spb_is_ok(status);
}

static spb_status decide_publish(struct spb_call *call, struct spb_group *group,
                                 struct spb_error *err)
{
    struct spb_upload *upload = call->upload;
    struct spb_product_attributes attributes = {
        .name = upload->name,
        .name_len = upload->name_len,
        .product_class = upload->product_class,
        .priority = upload->priority,
    };

    /* Reopening ends all uploads; a turn in the queue may meet that. */
    if (upload->reservation == NULL) {
        set_no_upload(call);
        return spb_fail(err, SPB_NOT_FOUND, "the upload has ended");
    }
    return spb_group_publish_product(group, upload->reservation, &attributes, &upload->data,
                                     upload->replace, call->state, err);
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
    spb_upload_end(call->upload);
}

/* A taken name leaves the upload as it is, to be finished once the name is free. */
static void publish_failed(struct spb_call *call)
{
    if (spb_image_state(call->upload->image) != SPB_IMAGE_READY)
        spb_upload_end(call->upload);
    else
        (void)spb_upload_turn(call->upload, SPB_UPLOAD_PUBLISHING, SPB_UPLOAD_OPEN);
}

static void run_finish(struct spb_task *task)
{
    static const struct spb_op_kind kind = {.decide = decide_publish,
                                            .reply = publish_reply,
                                            .done = publish_done,
                                            .failed = publish_failed};
    struct spb_call *call = spb_call_of_task(task);
    struct spb_upload *upload = call->upload;

    if (!begin_work(call)) {
        spb_call_send(call);
        return;
    }
    call->state = spb_call_alloc(call, sizeof(struct spb_product));
    bool ready = call->state != NULL && complete(call);
    if (ready && !spb_upload_turn(upload, SPB_UPLOAD_OPEN, SPB_UPLOAD_PUBLISHING)) {
        set_no_upload(call);
        ready = false;
    }
    if (ready) {
        call->image = upload->image;
        spb_image_ref(call->image);
    }
    spb_image_unhold(upload->image);
    if (ready)
        spb_actor_queue(call, &kind);
    else
        spb_call_send(call);
}

void spb_uploads_finish(struct spb_call *call)
{
    const PB_FinishUploadRequest *request = (const void *)call->request;

    if (find_upload(call, &request->upload_id))
        to_strand(call, run_finish);
}

/* ---- Abort -------------------------------------------------------------------------------- */

bool spb_uploads_abort_gate(struct spb_call *call)
{
    const PB_AbortUploadRequest *request = (const void *)call->request;

    return gate_id(call, &request->upload_id);
}

static void run_abort(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    PB_AbortUploadResponse reply = SPACEBLOCK__V1__ABORT_UPLOAD_RESPONSE__INIT;

    if (begin_work(call)) {
        spb_upload_end(call->upload);
        spb_image_unhold(call->upload->image);
        spb_call_set_reply(call, &reply.base);
    }
    spb_call_send(call);
}

void spb_uploads_abort(struct spb_call *call)
{
    const PB_AbortUploadRequest *request = (const void *)call->request;

    if (find_upload(call, &request->upload_id))
        to_strand(call, run_abort);
}
