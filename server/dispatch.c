/* From a request's bytes to its handler; see dispatch.h. */
#include "dispatch.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "registry.h"
#include "repeat.h"
#include "spaceblock/volume.h"
#include "ttrpc/wire.h"
#include "uuid.h"

/* ---- Gates -------------------------------------------------------------------------------- */

bool spb_gate_request_id(struct spb_call *call, const char *id)
{
    call->has_request_id = spb_uuid_parse(id, call->request_id);
    if (!call->has_request_id)
        spb_call_set_bad_field(call, "request_id",
                               "found %zu characters, expected a UUID of 36: 8-4-4-4-12 hex "
                               "digits with hyphens",
                               strlen(id));
    return call->has_request_id;
}

uint16_t spb_image_ref_tenant(const struct spb_call *call, const PB_ImageRef *ref)
{
    return ref->if_tenant_case == SPACEBLOCK__V1__IMAGE_REF__IF_TENANT_TENANT
               ? (uint16_t)ref->tenant
               : call->principal.tenant;
}

/* "TENANT/NAME", of checked parts. Without printf: every call comes through here. */
static void write_image_text(struct spb_call *call, uint16_t tenant,
                             const ProtobufCBinaryData *name)
{
    char digits[8];
    size_t at = sizeof(digits), used;

    do {
        digits[--at] = (char)('0' + tenant % 10);
        tenant /= 10;
    } while (tenant > 0);
    used = sizeof(digits) - at;
    memcpy(call->image_text, digits + at, used);
    call->image_text[used++] = '/';
    memcpy(call->image_text + used, name->data, name->len);
    call->image_text[used + name->len] = '\0';
}

bool spb_gate_image(struct spb_call *call, const PB_ImageRef *ref, const char *field)
{
    char path[64];

    if (ref == NULL) {
        spb_call_set_bad_field(call, field, "is missing, expected the image's name");
        return false;
    }
    if (ref->if_tenant_case == SPACEBLOCK__V1__IMAGE_REF__IF_TENANT_TENANT &&
        ref->tenant > UINT16_MAX) {
        (void)snprintf(path, sizeof(path), "%s.tenant", field);
        return spb_gate_max(call, path, ref->tenant, UINT16_MAX);
    }
    if (!spb_image_name_is_valid(ref->name.data, ref->name.len)) {
        (void)snprintf(path, sizeof(path), "%s.name", field);
        spb_call_set_bad_field(call, path,
                               "found %zu bytes, expected 1 to %u of A-Z a-z 0-9 . _ -, not "
                               "starting with a dot",
                               ref->name.len, SPB_IMAGE_NAME_MAX);
        return false;
    }
    write_image_text(call, spb_image_ref_tenant(call, ref), &ref->name);
    return true;
}

void spb_dispatch_set_no_image(struct spb_call *call)
{
    spb_call_set_fault(call, PB_REASON(NOT_FOUND), "no image %s", call->image_text);
}

bool spb_find_image(struct spb_call *call, const PB_ImageRef *ref)
{
    uint16_t tenant = spb_image_ref_tenant(call, ref);

    if (tenant == call->principal.tenant || call->principal.is_site_admin)
        call->image =
            spb_registry_find(call->daemon->registry, tenant, ref->name.data, ref->name.len);
    if (call->image == NULL)
        spb_dispatch_set_no_image(call);
    return call->image != NULL;
}

bool spb_gate_sector_size(struct spb_call *call, const char *field, uint32_t size)
{
    bool is_power = (size & (size - 1)) == 0;

    if (size == 0 || (is_power && size >= SPB_BLOCK_SIZE_MIN && size <= SPB_BLOCK_SIZE_MAX))
        return true;
    spb_call_set_bad_field(call, field, "found %u, expected a power of two from %u to %u", size,
                           SPB_BLOCK_SIZE_MIN, SPB_BLOCK_SIZE_MAX);
    return false;
}

bool spb_gate_uuid(struct spb_call *call, const char *field, const ProtobufCBinaryData *uuid)
{
    if (uuid->len == 0 || uuid->len == SPB_UUID_SIZE)
        return true;
    spb_call_set_bad_field(call, field, "found %zu bytes, expected %u or none", uuid->len,
                           SPB_UUID_SIZE);
    return false;
}

bool spb_may_name_tenant(struct spb_call *call, uint16_t tenant)
{
    if (call->principal.is_site_admin || call->principal.tenant == tenant)
        return true;
    /* Another tenant's is as if it were not there. */
    spb_call_set_fault(call, PB_REASON(NOT_FOUND), "no tenant %u", (unsigned)tenant);
    return false;
}

bool spb_gate_max(struct spb_call *call, const char *field, uint64_t value, uint64_t max)
{
    if (value <= max)
        return true;
    spb_call_set_bad_field(call, field, "found %llu, expected at most %llu",
                           (unsigned long long)value, (unsigned long long)max);
    return false;
}

bool spb_gate_product_name(struct spb_call *call, const char *field,
                           const ProtobufCBinaryData *name)
{
    struct spb_error err;

    if (spb_is_ok(spb_product_name_check(name->data, name->len, &err)))
        return true;
    spb_call_set_bad_field(call, field, "%s", err.text);
    return false;
}

/* ---- Strings ------------------------------------------------------------------------------ */

/*
 * Strings end at NUL once unpacked, and are not checked for UTF-8: so that is looked at in the
 * payload itself. Only top-level fields are strings in this API. What does not parse is left to the
 * unpacking. Fields are counted too: a chunk's room full of tiny ones would take long to unpack.
 */
static bool fields_are_good(struct spb_call *call, const struct spb_ttrpc_view *payload)
{
    struct spb_reader r = spb_reader_over(payload->data, payload->size);
    struct spb_wire_field wire;
    uint64_t count = 0, max = SPB_LIMIT(call->daemon, request_fields_max);

    while (spb_wire_read_field(&r, &wire)) {
        if (++count > max) {
            spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                               "the request has more than %llu fields", (unsigned long long)max);
            return false;
        }
        if (wire.type != SPB_WIRE_BYTES || wire.size == 0)
            continue;
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(call->method->request, wire.number);
        if (field == NULL || field->type != PROTOBUF_C_TYPE_STRING)
            continue;
        if (memchr(wire.data, '\0', wire.size) != NULL ||
            !spb_bytes_are_utf8(wire.data, wire.size)) {
            spb_call_set_bad_field(call, field->name, "expected UTF-8 text without NUL");
            return false;
        }
    }
    return true;
}

/* ---- Dispatch ----------------------------------------------------------------------------- */

static bool is_word(const struct spb_ttrpc_view *view, const char *word)
{
    return view->size == strlen(word) && memcmp(view->data, word, view->size) == 0;
}

static const struct spb_method *find_method(const struct spb_ttrpc_request *envelope)
{
    size_t count;
    const struct spb_method *methods = spb_methods(&count);

    for (size_t i = 0; i < count; i++) {
        if (is_word(&envelope->method, methods[i].name) &&
            is_word(&envelope->service, methods[i].service))
            return &methods[i];
    }
    return NULL;
}

static void set_deadline(struct spb_call *call, int64_t timeout_ns)
{
    int64_t now_ns = spb_loop_now_ns(call->daemon->loop);

    if (timeout_ns > 0)
        call->deadline_ns = timeout_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + timeout_ns;
}

/* The row's, less what the configuration takes off. */
static uint64_t payload_max(const struct spb_call *call)
{
    uint64_t max = call->method->payload_max;

    if (max > SPB_CHUNK_MAX)
        return max - SPB_CHUNK_MAX + SPB_LIMIT(call->daemon, chunk_max_bytes);
    return max - SPB_CONTROL_MAX + SPB_LIMIT(call->daemon, control_max_bytes);
}

static bool metadata_is_good(struct spb_call *call, const struct spb_ttrpc_request *envelope)
{
    uint64_t pairs_max = SPB_LIMIT(call->daemon, metadata_pairs_max);
    uint64_t bytes_max = SPB_LIMIT(call->daemon, metadata_max_bytes);
    size_t bytes = 0;

    for (size_t i = 0; i < envelope->metadata_count; i++)
        bytes += envelope->metadata[i].key.size + envelope->metadata[i].value.size;
    if (envelope->metadata_count <= pairs_max && bytes <= bytes_max)
        return true;
    spb_call_set_fault(
        call, PB_REASON(LIMIT_EXCEEDED),
        "the metadata has %zu pairs with %zu bytes, at most %llu with %llu are taken",
        envelope->metadata_count, bytes, (unsigned long long)pairs_max,
        (unsigned long long)bytes_max);
    return false;
}

static bool take_envelope(struct spb_call *call, const struct spb_ttrpc_request *envelope)
{
    call->method = find_method(envelope);
    if (call->method == NULL) {
        spb_call_set_fault(call, PB_REASON(UNKNOWN_METHOD),
                           "no method \"%.*s\" of service \"%.*s\"",
                           (int)(envelope->method.size < 100 ? envelope->method.size : 100),
                           (const char *)envelope->method.data,
                           (int)(envelope->service.size < 100 ? envelope->service.size : 100),
                           (const char *)envelope->service.data);
        return false;
    }
    if (call->daemon->draining && !call->method->while_draining) {
        spb_call_set_fault(call, PB_REASON(DRAINING),
                           "the server is shutting down and takes no new calls");
        return false;
    }
    if (envelope->payload.size > payload_max(call)) {
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "the request has %zu bytes, %s.%s takes at most %llu",
                           envelope->payload.size, call->method->service, call->method->name,
                           (unsigned long long)payload_max(call));
        return false;
    }
    if (!metadata_is_good(call, envelope))
        return false;
    set_deadline(call, envelope->timeout_ns);
    return true;
}

static bool unpack(struct spb_call *call, const struct spb_ttrpc_view *payload)
{
    /* The generated unpacker wants a pointer, even of no bytes. */
    const uint8_t *bytes = payload->data != NULL ? payload->data : (const uint8_t *)"";

    if (!fields_are_good(call, payload))
        return false;
    call->request = protobuf_c_message_unpack(call->method->request, &call->arena.allocator,
                                              payload->size, bytes);
    if (call->request != NULL)
        return true;
    if (call->arena.exhausted)
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "the request unpacks to more than the %zu bytes that it may use",
                           call->arena.cap);
    else
        spb_call_set_bad_field(call, "payload", "%zu bytes are no %s", payload->size,
                               call->method->request->name);
    return false;
}

static const void *member(const struct spb_call *call, size_t offset)
{
    return (const char *)call->request + offset;
}

static const PB_ImageRef *image_ref(const struct spb_call *call)
{
    return *(PB_ImageRef *const *)member(call, call->method->image_offset);
}

static bool pass_gates(struct spb_call *call)
{
    const struct spb_method *method = call->method;

    if (method->request_id_offset != 0 &&
        !spb_gate_request_id(call, *(char *const *)member(call, method->request_id_offset)))
        return false;
    if (method->need != SPB_NEED_NO_IMAGE && !spb_gate_image(call, image_ref(call), "image"))
        return false;
    if (method->gate != NULL && !method->gate(call))
        return false;
    return !spb_call_is_late(call, spb_loop_now_ns(call->daemon->loop));
}

/* Whether what the call needs is there; it has been answered where not. */
static bool is_equipped(struct spb_call *call)
{
    if (call->method->need != SPB_NEED_IMAGE || spb_find_image(call, image_ref(call)))
        return true;
    spb_call_send(call);
    return false;
}

void spb_dispatch_run(struct spb_call *call)
{
    if (is_equipped(call))
        call->method->handler(call);
}

void spb_dispatch_begin(struct spb_call *call)
{
    /* Before the image is looked for: a deletion that is repeated finds none. */
    if (spb_repeat_claim(call))
        spb_dispatch_run(call);
}

void spb_dispatch(struct spb_call *call, const uint8_t *data, size_t size)
{
    struct spb_ttrpc_request envelope;
    struct spb_error err;

    spb_status status = spb_ttrpc_request_decode(data, size, &envelope, &err);
    if (!spb_is_ok(status)) {
        if (status.code == SPB_PROTOCOL)
            spb_call_set_bad_field(call, "request", "%s", err.text);
        else
            spb_call_set_error(call, &err);
        spb_call_send(call);
        return;
    }
    if (!take_envelope(call, &envelope) || !unpack(call, &envelope.payload) || !pass_gates(call)) {
        spb_call_send(call);
        return;
    }
    if (call->has_request_id)
        call->payload_crc = spb_crc32c(0, envelope.payload.data, envelope.payload.size);
    if (call->origin.admit(call))
        spb_dispatch_begin(call);
}
