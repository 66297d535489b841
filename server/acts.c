/* Acts as intents, and their details as bytes; see acts.h. Settling is in acts_settle.c. */
#include "acts.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/status.h"
#include "doubts.h"
#include "image.h"
#include "intent.h"
#include "uploads.h"

#define VERSION 1u

/* ---- Bytes -------------------------------------------------------------------------------- */

static void write_text(struct spb_writer *w, const void *text, size_t n)
{
    spb_write_u8(w, (uint8_t)n);
    spb_write_bytes(w, text, n);
}

size_t spb_act_encode(const struct spb_act_detail *detail, uint8_t out[SPB_ACT_DETAIL_SIZE_MAX])
{
    struct spb_writer w = spb_writer_over(out, SPB_ACT_DETAIL_SIZE_MAX);

    spb_write_u8(&w, VERSION);
    spb_write_u8(&w, (uint8_t)detail->kind);
    spb_write_be16(&w, detail->tenant);
    write_text(&w, detail->name, strlen(detail->name));
    write_text(&w, detail->new_name, strlen(detail->new_name));
    spb_write_bytes(&w, detail->uuid, sizeof(detail->uuid));
    spb_write_bytes(&w, detail->upload, sizeof(detail->upload));
    spb_write_u8(&w, detail->new_identity);
    spb_write_be32(&w, detail->sector_size);
    spb_write_bytes(&w, detail->sha256, sizeof(detail->sha256));
    spb_write_be64(&w, detail->size);
    write_text(&w, detail->label, detail->label_len);
    SPB_ASSERT(!w.failed);
    return w.pos;
}

/* A name that will be part of a path: an image's, or none. */
static void read_name(struct spb_reader *r, char name[SPB_AUDIT_NAME_SIZE])
{
    uint8_t n = spb_read_u8(r);

    if (n >= SPB_AUDIT_NAME_SIZE) {
        r->failed = true;
        return;
    }
    spb_read_bytes(r, name, n);
    name[n] = '\0';
    if (n > 0 && !spb_image_name_is_valid(name, n))
        r->failed = true;
}

static void read_label(struct spb_reader *r, struct spb_act_detail *detail)
{
    detail->label_len = spb_read_u8(r);
    if (detail->label_len > sizeof(detail->label))
        r->failed = true;
    else
        spb_read_bytes(r, detail->label, detail->label_len);
}

spb_status spb_act_decode(const uint8_t *bytes, size_t size, struct spb_act_detail *out,
                          struct spb_error *err)
{
    struct spb_reader r = spb_reader_over(bytes, size);
    struct spb_act_detail detail = {.kind = SPB_ACT_IMAGE_IMPORT};
    uint8_t version = spb_read_u8(&r), kind = spb_read_u8(&r);

    detail.tenant = spb_read_be16(&r);
    read_name(&r, detail.name);
    read_name(&r, detail.new_name);
    spb_read_bytes(&r, detail.uuid, sizeof(detail.uuid));
    spb_read_bytes(&r, detail.upload, sizeof(detail.upload));
    detail.new_identity = spb_read_u8(&r) != 0;
    detail.sector_size = spb_read_be32(&r);
    spb_read_bytes(&r, detail.sha256, sizeof(detail.sha256));
    detail.size = spb_read_be64(&r);
    read_label(&r, &detail);
    bool has_name = (kind >= SPB_ACT_IMAGE_IMPORT && kind <= SPB_ACT_IMAGE_RENAME) ||
                    kind >= SPB_ACT_GUEST_CREATE;
    if (r.failed || spb_reader_left(&r) > 0 || version != VERSION || kind < SPB_ACT_IMAGE_IMPORT ||
        kind > SPB_ACT_GUEST_DELETE || (has_name && detail.name[0] == '\0') ||
        (kind == SPB_ACT_IMAGE_RENAME && detail.new_name[0] == '\0'))
        return spb_fail(err, SPB_CORRUPT, "%zu bytes are no detail of an act", size);
    detail.kind = (enum spb_act_kind)kind;
    *out = detail;
    return spb_ok();
}

/* ---- Intents ------------------------------------------------------------------------------ */

/* None is recorded as the image's own: it is settled before images are known. */
spb_status spb_act_begin(struct spb_call *call, const struct spb_act_detail *detail,
                         const struct spb_act_texts *texts, struct spb_error *err)
{
    uint8_t bytes[SPB_ACT_DETAIL_SIZE_MAX];
    struct spb_act act = {
        .kind = detail->kind <= SPB_ACT_IMAGE_RENAME ? SPB_GROUP_IMAGE_LIFE : SPB_GROUP_OTHER,
        .tenant = detail->tenant,
        .image_name = detail->kind >= SPB_ACT_GUEST_CREATE ? "" : detail->name,
        .detail = bytes,
        .detail_size = spb_act_encode(detail, bytes),
        .object = texts->object,
        .before = texts->before,
        .after = texts->after,
    };

    /* A reply that found no room says so itself. */
    if (call->payload == NULL)
        return spb_fail(err, SPB_ACT_REFUSED, "the reply could not be made");
    spb_status status = spb_intent_begin(call, &act, err);
    if (spb_is_ok(status))
        return status;
    spb_intent_set_refusal(call, err);
    return spb_fail(err, SPB_ACT_REFUSED, "the act could not be recorded");
}

void spb_act_end(struct spb_call *call, bool done, bool decided)
{
    if (done)
        spb_intent_end(call, SPB_OUTCOME_DONE);
    else if (decided)
        spb_intent_abandon(call);
    else
        spb_intent_end(call, SPB_OUTCOME_NOT_DONE);
}

void spb_act_end_named(struct spb_call *call, bool done, bool named, const struct spb_image *image,
                       struct spb_error *err)
{
    if (done || !named) {
        spb_act_end(call, done, false);
        return;
    }
    err->code = SPB_IO; /* whatever failed: it may have happened */
    spb_doubt_name(call, image->tenant, image->path);
}

void spb_act_set_error(struct spb_call *call, const struct spb_error *err)
{
    if (err->code != SPB_ACT_REFUSED)
        spb_call_set_error(call, err);
}

/* What an upload is towards, for people: "product x of image 1/a, 12 bytes". */
static void describe_target(const struct spb_upload *upload, char *text, size_t size)
{
    const struct spb_upload_row *row = &upload->row;
    unsigned long long bytes = (unsigned long long)row->size;

    if (row->kind == SPB_UPLOAD_PRODUCT)
        (void)snprintf(text, size, "product %.*s of image %s, %llu bytes", (int)row->name_len,
                       (const char *)row->name, upload->image_text, bytes);
    else if (row->kind == SPB_UPLOAD_IMAGE)
        (void)snprintf(text, size, "image %s, %llu bytes", upload->image_text, bytes);
    else
        (void)snprintf(text, size, "artifact %.*s of tenant %u, %llu bytes", (int)row->name_len,
                       (const char *)row->name, (unsigned)row->tenant, bytes);
}

spb_status spb_act_begin_upload(struct spb_call *call, enum spb_act_kind kind, const char *before,
                                const char *after, struct spb_error *err)
{
    const struct spb_upload *upload = call->upload;
    struct spb_act_detail detail = {.kind = kind, .tenant = upload->row.tenant};
    char object[256];

    memcpy(detail.name, upload->row.image, sizeof(detail.name));
    memcpy(detail.upload, upload->row.id, sizeof(detail.upload));
    describe_target(upload, object, sizeof(object));
    struct spb_act_texts texts = {.object = object, .before = before, .after = after};
    return spb_act_begin(call, &detail, &texts, err);
}
