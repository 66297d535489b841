/*
 * Uploads: chunks, status and giving up. They run on the upload's strand, in the order in which
 * they came; what can be told without waiting is told on the loop's thread. Starting is in
 * uploads_start.c, finishing in uploads_finish.c.
 */
#include "services/upload_calls.h"

#include "actor.h"
#include "acts.h"
#include "base/checked.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "registry.h"
#include "services/services.h"

/* Bytes of a repeated chunk that are read and compared at once. */
#define COMPARED_SIZE ((size_t)16 << 10)

/* ---- Common ------------------------------------------------------------------------------- */

bool spb_uploads_gate_id(struct spb_call *call, const ProtobufCBinaryData *id)
{
    if (id->len == SPB_UPLOAD_ID_SIZE)
        return true;
    spb_call_set_bad_field(call, "upload_id", "found %zu bytes, expected %u", id->len,
                           SPB_UPLOAD_ID_SIZE);
    return false;
}

void spb_uploads_set_absent(struct spb_call *call)
{
    call->image_text[0] = '\0';
    spb_call_set_fault(call, PB_REASON(NOT_FOUND),
                       "no such upload: it was finished, aborted, has expired or never was");
}

bool spb_uploads_find_for(struct spb_call *call, const ProtobufCBinaryData *id)
{
    if (call->upload != NULL)
        return true;
    call->upload = spb_upload_find(call->daemon->uploads, &call->principal, id->data, id->len);
    if (call->upload == NULL) {
        spb_uploads_set_absent(call);
        spb_call_send(call);
        return false;
    }
    memcpy(call->image_text, call->upload->image_text, sizeof(call->image_text));
    return true;
}

void spb_uploads_to_strand(struct spb_call *call, void (*run)(struct spb_task *task))
{
    call->task.run = run;
    spb_upload_submit(call->upload, &call->task);
}

void spb_uploads_set_image(struct spb_call *call, struct spb_image *image)
{
    spb_image_ref(image);
    if (call->image != NULL)
        spb_image_unref(call->image);
    call->image = image;
}

/* Whether it runs again, after its image was not to be had. */
static bool is_put_off(const struct spb_call *call)
{
    return call->kind == &spb_op_again;
}

/* The handler runs again when nothing has the image to itself. */
static void put_off(struct spb_call *call, struct spb_image *image)
{
    spb_uploads_set_image(call, image);
    spb_actor_queue(call, &spb_op_again);
}

/*
 * Whether to ask again is of any use. An image that is ready has given their space to all uploads
 * that lay dormant; it may have become so just now.
 */
static bool may_be_had(struct spb_call *call, struct spb_image *image)
{
    if (spb_image_is_closing(image))
        return true;
    return spb_image_state(image) == SPB_IMAGE_READY &&
           !(is_put_off(call) && spb_upload_is_dormant(call->upload));
}

/* Its image is not to be had: waits for it, or says why, or that the upload is gone with it. */
static void see_to_unentered(struct spb_call *call)
{
    struct spb_upload *upload = call->upload;
    struct spb_image *image = NULL;

    if (spb_upload_state(upload) != SPB_UPLOAD_ENDED)
        image = spb_registry_find(call->daemon->registry, upload->row.tenant, upload->row.image,
                                  strlen(upload->row.image));
    if (image == NULL) {
        spb_uploads_set_absent(call);
        spb_call_send(call);
    } else if (may_be_had(call, image)) {
        put_off(call, image);
    } else {
        if (spb_image_state(image) == SPB_IMAGE_READY)
            spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                               "the upload waits for its place on image %s: try again",
                               call->image_text);
        else
            spb_image_set_unserved(image, call);
        spb_call_send(call);
    }
    if (image != NULL)
        spb_image_unref(image);
}

/* The upload takes calls, or the error is set. Entered. */
static bool is_open(struct spb_call *call)
{
    enum spb_upload_state state = spb_upload_state(call->upload);

    if (state == SPB_UPLOAD_ENDED)
        spb_uploads_set_absent(call);
    else if (state == SPB_UPLOAD_PUBLISHING)
        spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                           "the upload is being published by an earlier call");
    return state == SPB_UPLOAD_OPEN;
}

bool spb_uploads_begin_work(struct spb_call *call)
{
    struct spb_upload *upload = call->upload;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_call_send(call);
        return false;
    }
    if (!spb_upload_enter(upload)) {
        see_to_unentered(call);
        return false;
    }
    bool open = is_open(call);
    if (open && !spb_is_ok(spb_upload_check(upload, &err))) {
        spb_uploads_give_up(call, &err);
        open = false;
    }
    if (!open) {
        spb_upload_leave(upload);
        spb_call_send(call);
    }
    return open;
}

void spb_uploads_give_up(struct spb_call *call, const struct spb_error *err)
{
    if (call->upload->row.kind == SPB_UPLOAD_PRODUCT)
        (void)spb_image_note_failure(call->upload->image, err);
    spb_upload_end(call->upload);
    spb_call_set_error(call, err);
}

/* ---- Write -------------------------------------------------------------------------------- */

bool spb_uploads_write_gate(struct spb_call *call)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;
    uint64_t max = SPB_LIMIT(call->daemon, chunk_max_bytes);

    if (!spb_uploads_gate_id(call, &request->upload_id))
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
    uint64_t size = call->upload->row.size;
    uint32_t crc = spb_crc32c(0, request->data.data, request->data.len);

    if (crc != request->crc32c) {
        spb_call_set_bad_field(call, "crc32c", "found %08x, the data's is %08x", request->crc32c,
                               crc);
        return false;
    }
    if (!spb_range_within(request->offset, request->data.len, size)) {
        spb_call_set_bad_field(
            call, "offset", "%zu bytes at %llu go beyond the upload's size of %llu",
            request->data.len, (unsigned long long)request->offset, (unsigned long long)size);
        return false;
    }
    if (request->data.len < SPB_CHUNK_MIN && request->offset + request->data.len != size) {
        spb_call_set_bad_field(call, "data",
                               "found %zu bytes, expected %u at least in all but the last chunk",
                               request->data.len, SPB_CHUNK_MIN);
        return false;
    }
    return true;
}

static void set_next_offset(struct spb_call *call, uint64_t next)
{
    PB_WriteUploadResponse reply = SPACEBLOCK__V1__WRITE_UPLOAD_RESPONSE__INIT;

    reply.next_offset = next;
    spb_call_set_reply(call, &reply.base);
}

/* The chunk was taken and its answer is set; what had come was to be made durable before it leaves.
 */
static void run_synced(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_upload *upload = call->upload;
    struct spb_error err;

    if (!spb_upload_enter(upload)) {
        see_to_unentered(call);
        return;
    }
    if (!spb_is_ok(spb_upload_synced(upload, &err)))
        spb_uploads_give_up(call, &err);
    spb_upload_leave(upload);
    spb_call_send(call);
}

/* *later: the call is answered when a sync has ended, and is not to be touched any more. */
static spb_status take_chunk(struct spb_call *call, bool *later, struct spb_error *err)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;
    struct spb_upload *upload = call->upload;

    SPB_TRY(upload->ops->take(upload, request->data.data, request->data.len, err));
    spb_upload_set_offset(upload, request->offset + request->data.len);
    set_next_offset(call, request->offset + request->data.len);
    if (!spb_upload_wants_sync(upload))
        return spb_ok();
    call->task.run = run_synced;
    return spb_upload_begin_sync(upload, &call->task, later, err);
}

/* Where the bytes that came again are not those that came first. */
static void set_other_bytes(struct spb_call *call, uint64_t next_offset, size_t at, uint8_t found)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;

    spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                       "the chunk at %llu is not what came there before: its byte at %llu is "
                       "0x%02x, expected 0x%02x; %llu comes next",
                       (unsigned long long)request->offset,
                       (unsigned long long)(request->offset + at), request->data.data[at], found,
                       (unsigned long long)next_offset);
}

/* The chunk lies within what has come: sets the answer of a repeat, where it is one. */
static spb_status compare_chunk(struct spb_call *call, uint64_t next_offset, struct spb_error *err)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;
    const struct spb_upload *upload = call->upload;
    uint8_t there[COMPARED_SIZE];

    for (size_t at = 0; at < request->data.len;) {
        size_t left = request->data.len - at, n = left < sizeof(there) ? left : sizeof(there),
               i = 0;

        SPB_TRY(upload->ops->read(upload, request->offset + at, there, n, err));
        if (memcmp(there, request->data.data + at, n) != 0) {
            while (there[i] == request->data.data[at + i])
                i++;
            set_other_bytes(call, next_offset, at + i, there[i]);
            return spb_ok();
        }
        at += n;
    }
    set_next_offset(call, next_offset);
    return spb_ok();
}

/* False: it is answered later. */
static bool write_chunk(struct spb_call *call)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;
    struct spb_upload_standing standing;
    struct spb_error err;
    spb_status status = spb_ok();
    bool later = false;

    spb_upload_look(call->upload, spb_now_ns(), &standing);
    if (!chunk_is_good(call))
        return true;
    if (request->offset == standing.next_offset)
        status = take_chunk(call, &later, &err);
    else if (request->offset + request->data.len <= standing.next_offset)
        status = compare_chunk(call, standing.next_offset, &err);
    else
        spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                           "the chunk begins at %llu, expected %llu, which comes next",
                           (unsigned long long)request->offset,
                           (unsigned long long)standing.next_offset);
    if (!spb_is_ok(status))
        spb_uploads_give_up(call, &err);
    return !later;
}

static void run_write(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_upload *upload = call->upload; /* the strand keeps it */

    if (!spb_uploads_begin_work(call))
        return;
    bool answered = write_chunk(call);
    spb_upload_leave(upload);
    if (answered)
        spb_call_send(call);
}

void spb_uploads_write(struct spb_call *call)
{
    const PB_WriteUploadRequest *request = (const void *)call->request;
    /* One whose chunk was taken, and that was put off, only waits for its sync. */
    void (*run)(struct spb_task *) = call->task.run == run_synced ? run_synced : run_write;

    if (spb_uploads_find_for(call, &request->upload_id))
        spb_uploads_to_strand(call, run);
}

/* ---- Status ------------------------------------------------------------------------------- */

bool spb_uploads_status_gate(struct spb_call *call)
{
    const PB_UploadStatusRequest *request = (const void *)call->request;

    return spb_uploads_gate_id(call, &request->upload_id);
}

static void set_status(struct spb_call *call, const struct spb_upload_standing *standing)
{
    PB_UploadStatusResponse reply = SPACEBLOCK__V1__UPLOAD_STATUS_RESPONSE__INIT;

    reply.durable_offset = standing->durable_offset;
    reply.next_offset = standing->next_offset;
    reply.size = call->upload->row.size;
    reply.expires_in_seconds = standing->seconds_left;
    spb_call_set_reply(call, &reply.base);
}

static void run_status(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_upload_standing standing;
    struct spb_error err;

    if (!spb_uploads_begin_work(call))
        return;
    if (spb_is_ok(spb_upload_sync(call->upload, &err))) {
        spb_upload_look(call->upload, spb_now_ns(), &standing);
        set_status(call, &standing);
    } else {
        spb_uploads_give_up(call, &err);
    }
    spb_upload_leave(call->upload);
    spb_call_send(call);
}

void spb_uploads_status(struct spb_call *call)
{
    const PB_UploadStatusRequest *request = (const void *)call->request;
    struct spb_upload_standing standing;

    if (!spb_uploads_find_for(call, &request->upload_id))
        return;
    spb_upload_look(call->upload, spb_now_ns(), &standing); /* it may run on a worker, too */
    bool at_rest =
        standing.checked && standing.next_offset == standing.durable_offset && !standing.row_is_old;
    if (at_rest || standing.state == SPB_UPLOAD_PUBLISHING) {
        set_status(call, &standing);
        spb_call_send(call);
        return;
    }
    /* Who asks wants to stop, or has: what has come is made durable for that. */
    spb_uploads_to_strand(call, run_status);
}

/* ---- Abort -------------------------------------------------------------------------------- */

bool spb_uploads_abort_gate(struct spb_call *call)
{
    const PB_AbortUploadRequest *request = (const void *)call->request;

    return spb_uploads_gate_id(call, &request->upload_id);
}

static spb_status abort_upload(struct spb_call *call, bool entered, struct spb_error *err)
{
    PB_AbortUploadResponse reply = SPACEBLOCK__V1__ABORT_UPLOAD_RESPONSE__INIT;

    spb_call_set_reply(call, &reply.base);
    SPB_TRY(spb_act_begin_upload(call, SPB_ACT_UPLOAD_ABORT, "open", "ended", err));
    spb_status status = spb_upload_abort(call->upload, entered, err);
    spb_act_end(call, spb_is_ok(status), false);
    return status;
}

static void run_abort(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_call_send(call);
        return;
    }
    bool entered = spb_upload_enter(call->upload);
    if (!entered && !spb_upload_is_dormant(call->upload)) {
        see_to_unentered(call);
        return;
    }
    if (is_open(call) && !spb_is_ok(abort_upload(call, entered, &err)))
        spb_act_set_error(call, &err);
    if (entered)
        spb_upload_leave(call->upload);
    spb_call_send(call);
}

void spb_uploads_abort(struct spb_call *call)
{
    const PB_AbortUploadRequest *request = (const void *)call->request;

    if (spb_uploads_find_for(call, &request->upload_id))
        spb_uploads_to_strand(call, run_abort);
}
