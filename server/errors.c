/* Internal outcomes as errors of the wire; see errors.h. */
#include "errors.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/status.h"
#include "ttrpc/ttrpc.h"
#include "util.h"

#define REASON_PREFIX "ERROR_REASON_"
#define TYPE_PREFIX "type.googleapis.com/"

static const PB_ErrorReason reasons[SPB_CODE_COUNT] = {
    [SPB_OK] = PB_REASON(INTERNAL),
    [SPB_INVALID] = PB_REASON(INVALID_REQUEST),
    [SPB_NOT_FOUND] = PB_REASON(NOT_FOUND),
    [SPB_EXISTS] = PB_REASON(ALREADY_EXISTS),
    [SPB_IN_USE] = PB_REASON(WRONG_STATE),
    [SPB_GENERATION] = PB_REASON(GENERATION_MISMATCH),
    [SPB_CHANGED] = PB_REASON(PRODUCT_CHANGED),
    [SPB_FULL] = PB_REASON(NO_SPACE),
    [SPB_LIMIT] = PB_REASON(LIMIT_EXCEEDED),
    [SPB_AGAIN] = PB_REASON(INTERNAL),
    [SPB_CORRUPT] = PB_REASON(CORRUPT_DATA),
    [SPB_BAD_MAGIC] = PB_REASON(IMAGE_DAMAGED),
    [SPB_BAD_CRC] = PB_REASON(IMAGE_DAMAGED),
    [SPB_BAD_VERSION] = PB_REASON(IMAGE_DAMAGED),
    [SPB_BAD_DP_AREA] = PB_REASON(IMAGE_DAMAGED),
    [SPB_BAD_SIZE] = PB_REASON(IMAGE_DAMAGED),
    [SPB_IO] = PB_REASON(IO_ERROR),
    [SPB_POISONED] = PB_REASON(IMAGE_READ_ONLY),
    [SPB_READ_ONLY] = PB_REASON(IMAGE_READ_ONLY),
    [SPB_LOCKED] = PB_REASON(IMAGE_IN_USE),
    [SPB_NO_MEMORY] = PB_REASON(INTERNAL),
    [SPB_UNSUPPORTED] = PB_REASON(WRONG_STATE),
    [SPB_DEADLINE] = PB_REASON(DEADLINE),
    [SPB_UNREACHABLE] = PB_REASON(INTERNAL),
    [SPB_PROTOCOL] = PB_REASON(INVALID_REQUEST),
    [SPB_REMOTE] = PB_REASON(INTERNAL),
};

static const int32_t rpc_codes[] = {
    [PB_REASON(UNSPECIFIED)] = 13,     [PB_REASON(INVALID_REQUEST)] = 3,
    [PB_REASON(UNKNOWN_METHOD)] = 12,  [PB_REASON(NOT_FOUND)] = 5,
    [PB_REASON(ALREADY_EXISTS)] = 6,   [PB_REASON(GENERATION_MISMATCH)] = 10,
    [PB_REASON(PRODUCT_CHANGED)] = 10, [PB_REASON(NO_SPACE)] = 8,
    [PB_REASON(LIMIT_EXCEEDED)] = 8,   [PB_REASON(IMAGE_READ_ONLY)] = 9,
    [PB_REASON(IMAGE_IN_USE)] = 9,     [PB_REASON(IMAGE_DAMAGED)] = 15,
    [PB_REASON(WRONG_STATE)] = 9,      [PB_REASON(CORRUPT_DATA)] = 15,
    [PB_REASON(IO_ERROR)] = 13,        [PB_REASON(DRAINING)] = 14,
    [PB_REASON(DEADLINE)] = 4,         [PB_REASON(INTERNAL)] = 13,
    [PB_REASON(STILL_RUNNING)] = 10,   [PB_REASON(OUTCOME_UNKNOWN)] = 13,
    [PB_REASON(REQUEST_MISMATCH)] = 3, [PB_REASON(IMAGE_QUARANTINED)] = 9,
    [PB_REASON(CANCELLED)] = 1,        [PB_REASON(AUDIT_UNAVAILABLE)] = 14,
    [PB_REASON(GUEST_FAILED)] = 9,
};

PB_ErrorReason spb_reason_of(enum spb_code code)
{
    return (unsigned)code < SPB_CODE_COUNT ? reasons[code] : PB_REASON(INTERNAL);
}

int32_t spb_rpc_code_of(PB_ErrorReason reason)
{
    return (size_t)reason < SPB_COUNT(rpc_codes) ? rpc_codes[reason] : 13;
}

static const char *reason_name(PB_ErrorReason reason)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
        &spaceblock__v1__error_reason__descriptor, (int)reason);

    return value == NULL ? "INTERNAL" : value->name + strlen(REASON_PREFIX);
}

/* Is the same call worth making again in a while? */
static bool is_passing(PB_ErrorReason reason)
{
    return reason == PB_REASON(DRAINING) || reason == PB_REASON(STILL_RUNNING) ||
           reason == PB_REASON(AUDIT_UNAVAILABLE);
}

/* Copies text as UTF-8 of one line: what is not becomes a question mark. */
static void clean(const char *text, char *out, size_t size)
{
    size_t n = strlen(text), used = 0;

    for (size_t i = 0; i < n;) {
        int step = spb_utf8_step((const uint8_t *)text + i, n - i);
        size_t length = (size_t)(step > 0 ? step : -step);

        if (used + length >= size)
            break;
        if (step < 0 || (unsigned char)text[i] < ' ') {
            out[used++] = '?';
        } else {
            memcpy(out + used, text + i, length);
            used += length;
        }
        i += length;
    }
    out[used] = '\0';
}

struct answer {
    struct spb_arena *arena;
    struct spb_ttrpc_response response;
};

static bool add_detail(struct answer *answer, const char *type_url, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = spb_arena_alloc(answer->arena, size);

    if (bytes == NULL)
        return false;
    (void)protobuf_c_message_pack(message, bytes);
    struct spb_ttrpc_detail *detail = &answer->response.details[answer->response.details_count++];
    detail->type_url = (struct spb_ttrpc_view){(const uint8_t *)type_url, strlen(type_url)};
    detail->value = (struct spb_ttrpc_view){bytes, size};
    return true;
}

static bool add_info(struct answer *answer, const struct spb_fault *fault)
{
    Google__Rpc__ErrorInfo info;
    Google__Rpc__ErrorInfo__MetadataEntry about;
    Google__Rpc__ErrorInfo__MetadataEntry *entries[] = {&about};

    google__rpc__error_info__init(&info);
    google__rpc__error_info__metadata_entry__init(&about);
    info.reason = spb_pb_string(reason_name(fault->reason));
    info.domain = spb_pb_string("spaceblock");
    if (fault->image != NULL) {
        about.key = spb_pb_string("image");
        about.value = spb_pb_string(fault->image);
        info.n_metadata = 1;
        info.metadata = entries;
    }
    return add_detail(answer, TYPE_PREFIX "google.rpc.ErrorInfo", &info.base);
}

static bool add_field(struct answer *answer, const char *field, const char *text)
{
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Rpc__BadRequest__FieldViolation violation;
    Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};

    google__rpc__bad_request__field_violation__init(&violation);
    violation.field = spb_pb_string(field);
    violation.description = spb_pb_string(text);
    bad.n_field_violations = 1;
    bad.field_violations = violations;
    return add_detail(answer, TYPE_PREFIX "google.rpc.BadRequest", &bad.base);
}

static bool add_retry(struct answer *answer, uint32_t retry_ms)
{
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    Google__Rpc__RetryInfo__Duration delay = GOOGLE__RPC__RETRY_INFO__DURATION__INIT;

    delay.seconds = retry_ms / 1000;
    delay.nanos = (int32_t)(retry_ms % 1000) * 1000000;
    retry.retry_delay = &delay;
    return add_detail(answer, TYPE_PREFIX "google.rpc.RetryInfo", &retry.base);
}

uint8_t *spb_fault_encode(const struct spb_fault *fault, struct spb_arena *arena, size_t headroom,
                          size_t *size)
{
    struct answer answer = {.arena = arena};
    char text[SPB_ERROR_TEXT_SIZE];

    clean(fault->text, text, sizeof(text));
    answer.response.code = spb_rpc_code_of(fault->reason);
    answer.response.message = (struct spb_ttrpc_view){(const uint8_t *)text, strlen(text)};
    if (!add_info(&answer, fault) ||
        (fault->field != NULL && !add_field(&answer, fault->field, text)) ||
        (is_passing(fault->reason) && !add_retry(&answer, fault->retry_ms)))
        return NULL;
    size_t n = spb_ttrpc_response_size(&answer.response);
    uint8_t *frame = spb_arena_alloc(arena, headroom + n);
    if (frame == NULL)
        return NULL;
    spb_ttrpc_response_encode(&answer.response, frame + headroom);
    *size = n;
    return frame;
}
