/*
 * Request and Response of proto/ttrpc.proto, by hand, so that hostile bytes cost nothing but
 * reading them once. Decoded views point into the frame. No state; any thread.
 */
#include "ttrpc/ttrpc.h"

#include <string.h>

#include "base/status.h"
#include "ttrpc/wire.h"

/* ---- Fields ------------------------------------------------------------------------------- */

static spb_status check_type(const struct spb_wire_field *field, enum spb_wire_type type,
                             const char *what, struct spb_error *err)
{
    if (field->type == type)
        return spb_ok();
    return spb_fail(err, SPB_PROTOCOL, "%s (field %u) has wire type %u, expected %u", what,
                    field->number, (unsigned)field->type, (unsigned)type);
}

static spb_status take_bytes(const struct spb_wire_field *field, const char *what,
                             struct spb_ttrpc_view *view, struct spb_error *err)
{
    SPB_TRY(check_type(field, SPB_WIRE_BYTES, what, err));
    *view = (struct spb_ttrpc_view){.data = field->data, .size = field->size};
    return spb_ok();
}

static spb_status take_string(const struct spb_wire_field *field, const char *what,
                              struct spb_ttrpc_view *view, struct spb_error *err)
{
    SPB_TRY(check_type(field, SPB_WIRE_BYTES, what, err));
    if (!spb_bytes_are_utf8(field->data, field->size))
        return spb_fail(err, SPB_PROTOCOL, "%s of %zu bytes is not UTF-8", what, field->size);
    if (field->size > 0 && memchr(field->data, 0, field->size) != NULL)
        return spb_fail(err, SPB_PROTOCOL, "%s of %zu bytes has a NUL in it", what, field->size);
    return take_bytes(field, what, view, err);
}

/* After the last field: did the reader stop at the end, or at something broken? */
static spb_status check_end(const struct spb_reader *r, const char *what, struct spb_error *err)
{
    if (!r->failed)
        return spb_ok();
    return spb_fail(err, SPB_PROTOCOL, "%s of %zu bytes does not parse: broken field near byte %zu",
                    what, r->size, r->pos);
}

/* ---- Request ------------------------------------------------------------------------------ */

static spb_status take_timeout(const struct spb_wire_field *field, int64_t *timeout_ns,
                               struct spb_error *err)
{
    SPB_TRY(check_type(field, SPB_WIRE_VARINT, "timeout_nano", err));
    if (field->value > INT64_MAX)
        return spb_fail(err, SPB_PROTOCOL, "timeout_nano is negative, expected 0 or more");
    *timeout_ns = (int64_t)field->value;
    return spb_ok();
}

static spb_status decode_pair(const struct spb_wire_field *outer, struct spb_ttrpc_pair *pair,
                              struct spb_error *err)
{
    SPB_TRY(check_type(outer, SPB_WIRE_BYTES, "metadata", err));
    struct spb_reader r = spb_reader_over(outer->data, outer->size);
    struct spb_wire_field field;

    while (spb_wire_read_field(&r, &field)) {
        if (field.number == 1)
            SPB_TRY(take_string(&field, "metadata key", &pair->key, err));
        else if (field.number == 2)
            SPB_TRY(take_string(&field, "metadata value", &pair->value, err));
    }
    return check_end(&r, "metadata pair", err);
}

static spb_status take_metadata(const struct spb_wire_field *field,
                                struct spb_ttrpc_request *request, size_t *bytes,
                                struct spb_error *err)
{
    if (request->metadata_count == SPB_TTRPC_METADATA_MAX)
        return spb_fail(err, SPB_LIMIT, "more than %u pairs of metadata", SPB_TTRPC_METADATA_MAX);
    struct spb_ttrpc_pair *pair = &request->metadata[request->metadata_count];

    SPB_TRY(decode_pair(field, pair, err));
    *bytes += pair->key.size + pair->value.size;
    if (*bytes > SPB_TTRPC_METADATA_BYTES_MAX)
        return spb_fail(err, SPB_LIMIT, "metadata of %zu bytes or more, at most %u are taken",
                        *bytes, SPB_TTRPC_METADATA_BYTES_MAX);
    request->metadata_count++;
    return spb_ok();
}

static spb_status take_request_field(const struct spb_wire_field *field,
                                     struct spb_ttrpc_request *request, size_t *metadata_bytes,
                                     struct spb_error *err)
{
    switch (field->number) {
    case 1:
        return take_string(field, "service", &request->service, err);
    case 2:
        return take_string(field, "method", &request->method, err);
    case 3:
        return take_bytes(field, "payload", &request->payload, err);
    case 4:
        return take_timeout(field, &request->timeout_ns, err);
    case 5:
        return take_metadata(field, request, metadata_bytes, err);
    default:
        return spb_ok();
    }
}

spb_status spb_ttrpc_request_decode(const uint8_t *data, size_t size,
                                    struct spb_ttrpc_request *request, struct spb_error *err)
{
    struct spb_reader r = spb_reader_over(data, size);
    struct spb_ttrpc_request decoded = {.timeout_ns = 0};
    struct spb_wire_field field;
    size_t metadata_bytes = 0;

    while (spb_wire_read_field(&r, &field))
        SPB_TRY(take_request_field(&field, &decoded, &metadata_bytes, err));
    SPB_TRY(check_end(&r, "request", err));
    *request = decoded;
    return spb_ok();
}

static size_t pair_size(const struct spb_ttrpc_pair *pair)
{
    return spb_wire_bytes_field_size(1, pair->key.size) +
           spb_wire_bytes_field_size(2, pair->value.size);
}

/* A repeated message counts even where it is empty, so it is never left out. */
static size_t message_field_size(uint32_t number, size_t n)
{
    return n == 0 ? spb_wire_varint_size((uint64_t)number << 3) + 1
                  : spb_wire_bytes_field_size(number, n);
}

size_t spb_ttrpc_request_size(const struct spb_ttrpc_request *request)
{
    size_t size = spb_wire_bytes_field_size(1, request->service.size) +
                  spb_wire_bytes_field_size(2, request->method.size) +
                  spb_wire_bytes_field_size(3, request->payload.size) +
                  spb_wire_varint_field_size(4, (uint64_t)request->timeout_ns);

    SPB_ASSERT(request->metadata_count <= SPB_TTRPC_METADATA_MAX);
    for (size_t i = 0; i < request->metadata_count; i++)
        size += message_field_size(5, pair_size(&request->metadata[i]));
    return size;
}

void spb_ttrpc_request_encode(const struct spb_ttrpc_request *request, uint8_t *out)
{
    struct spb_writer w = spb_writer_over(out, spb_ttrpc_request_size(request));

    spb_wire_write_bytes_field(&w, 1, request->service.data, request->service.size);
    spb_wire_write_bytes_field(&w, 2, request->method.data, request->method.size);
    spb_wire_write_bytes_field(&w, 3, request->payload.data, request->payload.size);
    spb_wire_write_varint_field(&w, 4, (uint64_t)request->timeout_ns);
    for (size_t i = 0; i < request->metadata_count; i++) {
        const struct spb_ttrpc_pair *pair = &request->metadata[i];
        spb_wire_write_bytes_head(&w, 5, pair_size(pair));
        spb_wire_write_bytes_field(&w, 1, pair->key.data, pair->key.size);
        spb_wire_write_bytes_field(&w, 2, pair->value.data, pair->value.size);
    }
    SPB_ASSERT(!w.failed && w.pos == w.size);
}

/* ---- Response ----------------------------------------------------------------------------- */

static spb_status decode_detail(const struct spb_wire_field *outer, struct spb_ttrpc_detail *detail,
                                struct spb_error *err)
{
    SPB_TRY(check_type(outer, SPB_WIRE_BYTES, "status detail", err));
    struct spb_reader r = spb_reader_over(outer->data, outer->size);
    struct spb_wire_field field;

    while (spb_wire_read_field(&r, &field)) {
        if (field.number == 1)
            SPB_TRY(take_string(&field, "type URL of a detail", &detail->type_url, err));
        else if (field.number == 2)
            SPB_TRY(take_bytes(&field, "value of a detail", &detail->value, err));
    }
    return check_end(&r, "status detail", err);
}

/* One that there is no place for is checked all the same. */
static spb_status take_detail(const struct spb_wire_field *field,
                              struct spb_ttrpc_response *response, struct spb_error *err)
{
    struct spb_ttrpc_detail detail = {.type_url = {NULL, 0}};

    SPB_TRY(decode_detail(field, &detail, err));
    if (response->details_count < SPB_TTRPC_DETAILS_MAX)
        response->details[response->details_count++] = detail;
    return spb_ok();
}

static spb_status take_code(const struct spb_wire_field *field, int32_t *code,
                            struct spb_error *err)
{
    SPB_TRY(check_type(field, SPB_WIRE_VARINT, "status code", err));
    /* An int32 is sent as 64 bits, sign extended; protobuf takes the low half of anything else. */
    uint32_t low = (uint32_t)field->value;
    memcpy(code, &low, sizeof(low));
    return spb_ok();
}

static spb_status decode_status(const struct spb_wire_field *outer,
                                struct spb_ttrpc_response *response, struct spb_error *err)
{
    SPB_TRY(check_type(outer, SPB_WIRE_BYTES, "status", err));
    struct spb_reader r = spb_reader_over(outer->data, outer->size);
    struct spb_wire_field field;

    response->code = 0;
    response->message = (struct spb_ttrpc_view){NULL, 0};
    response->details_count = 0;
    while (spb_wire_read_field(&r, &field)) {
        if (field.number == 1)
            SPB_TRY(take_code(&field, &response->code, err));
        else if (field.number == 2)
            SPB_TRY(take_string(&field, "status message", &response->message, err));
        else if (field.number == 3)
            SPB_TRY(take_detail(&field, response, err));
    }
    return check_end(&r, "status", err);
}

spb_status spb_ttrpc_response_decode(const uint8_t *data, size_t size,
                                     struct spb_ttrpc_response *response, struct spb_error *err)
{
    struct spb_reader r = spb_reader_over(data, size);
    struct spb_ttrpc_response decoded = {.code = 0};
    struct spb_wire_field field;

    while (spb_wire_read_field(&r, &field)) {
        if (field.number == 1)
            SPB_TRY(decode_status(&field, &decoded, err));
        else if (field.number == 2)
            SPB_TRY(take_bytes(&field, "payload", &decoded.payload, err));
    }
    SPB_TRY(check_end(&r, "response", err));
    *response = decoded;
    return spb_ok();
}

static size_t detail_size(const struct spb_ttrpc_detail *detail)
{
    return spb_wire_bytes_field_size(1, detail->type_url.size) +
           spb_wire_bytes_field_size(2, detail->value.size);
}

/* 0 for success: its status is left out. */
static size_t status_size(const struct spb_ttrpc_response *response)
{
    if (response->code == 0)
        return 0;
    size_t size = spb_wire_varint_field_size(1, (uint64_t)(int64_t)response->code) +
                  spb_wire_bytes_field_size(2, response->message.size);

    SPB_ASSERT(response->details_count <= SPB_TTRPC_DETAILS_MAX);
    for (size_t i = 0; i < response->details_count; i++)
        size += message_field_size(3, detail_size(&response->details[i]));
    return size;
}

size_t spb_ttrpc_response_size(const struct spb_ttrpc_response *response)
{
    return spb_wire_bytes_field_size(1, status_size(response)) +
           spb_wire_bytes_field_size(2, response->payload.size);
}

static void write_status(struct spb_writer *w, const struct spb_ttrpc_response *response)
{
    spb_wire_write_bytes_head(w, 1, status_size(response));
    spb_wire_write_varint_field(w, 1, (uint64_t)(int64_t)response->code);
    spb_wire_write_bytes_field(w, 2, response->message.data, response->message.size);
    for (size_t i = 0; i < response->details_count; i++) {
        const struct spb_ttrpc_detail *detail = &response->details[i];
        spb_wire_write_bytes_head(w, 3, detail_size(detail));
        spb_wire_write_bytes_field(w, 1, detail->type_url.data, detail->type_url.size);
        spb_wire_write_bytes_field(w, 2, detail->value.data, detail->value.size);
    }
}

void spb_ttrpc_response_encode(const struct spb_ttrpc_response *response, uint8_t *out)
{
    struct spb_writer w = spb_writer_over(out, spb_ttrpc_response_size(response));

    if (response->code != 0)
        write_status(&w, response);
    spb_wire_write_bytes_field(&w, 2, response->payload.data, response->payload.size);
    SPB_ASSERT(!w.failed && w.pos == w.size);
}
