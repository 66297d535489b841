/*
 * What the daemon's answer means to the caller: canonical codes and reasons (spaceblock.v1's
 * ErrorReason) to the library's codes. The daemon's bytes are hostile until looked at: the message
 * goes to terminals and logs. No state; any thread.
 */
#include "call_reply.h"

#include <string.h>

#include "base/bytes.h"
#include "base/status.h"
#include "clock.h"
#include "ttrpc/wire.h"

#define RPC_UNKNOWN 2
#define RETRY_SECONDS_MAX UINT64_C(315576000000) /* what a Duration may hold: 10,000 years */
#define RPC_CODE_MAX 16

struct meaning_of_reason {
    const char *reason;
    enum spb_code code;
};

static const struct meaning_of_reason reasons[] = {
    {"INVALID_REQUEST", SPB_INVALID},
    {"UNKNOWN_METHOD", SPB_UNSUPPORTED},
    {"NOT_FOUND", SPB_NOT_FOUND},
    {"ALREADY_EXISTS", SPB_EXISTS},
    {"GENERATION_MISMATCH", SPB_GENERATION},
    {"PRODUCT_CHANGED", SPB_CHANGED},
    {"NO_SPACE", SPB_FULL},
    {"LIMIT_EXCEEDED", SPB_LIMIT},
    {"IMAGE_READ_ONLY", SPB_READ_ONLY},
    {"IMAGE_IN_USE", SPB_LOCKED},
    {"IMAGE_DAMAGED", SPB_CORRUPT},
    {"CORRUPT_DATA", SPB_CORRUPT},
    {"WRONG_STATE", SPB_REMOTE},
    {"IO_ERROR", SPB_IO},
    {"DRAINING", SPB_UNREACHABLE},
    {"DEADLINE", SPB_DEADLINE},
    {"STILL_RUNNING", SPB_DEADLINE},
    {"OUTCOME_UNKNOWN", SPB_IO},
    {"REQUEST_MISMATCH", SPB_INVALID},
    {"INTERNAL", SPB_REMOTE},
};

/* By canonical code, for answers without a reason that is known here. */
static const enum spb_code codes[RPC_CODE_MAX + 1] = {
    [0] = SPB_OK,           [1] = SPB_REMOTE,    [2] = SPB_REMOTE,       [3] = SPB_INVALID,
    [4] = SPB_DEADLINE,     [5] = SPB_NOT_FOUND, [6] = SPB_EXISTS,       [7] = SPB_REMOTE,
    [8] = SPB_LIMIT,        [9] = SPB_REMOTE,    [10] = SPB_REMOTE,      [11] = SPB_INVALID,
    [12] = SPB_UNSUPPORTED, [13] = SPB_REMOTE,   [14] = SPB_UNREACHABLE, [15] = SPB_CORRUPT,
    [16] = SPB_REMOTE,
};

static enum spb_code meaning(int32_t rpc_code, const char *reason)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (strcmp(reasons[i].reason, reason) == 0)
            return reasons[i].code;
    }
    return codes[rpc_code];
}

/* Does a type's URL end with "/" and this name? */
static bool is_type(const struct spb_ttrpc_view *type_url, const char *ending)
{
    const size_t n = strlen(ending);

    return type_url->size >= n && memcmp(type_url->data + type_url->size - n, ending, n) == 0;
}

static bool is_reason(const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool is_letter = data[i] >= 'A' && data[i] <= 'Z';
        bool is_digit = data[i] >= '0' && data[i] <= '9';
        if (!is_letter && !is_digit && data[i] != '_')
            return false;
    }
    return n > 0 && n < SPB_CLIENT_REASON_SIZE;
}

/* The last field of this number and type; false where there is none, or the bytes are broken. */
static bool find_field(const struct spb_ttrpc_view *message, uint32_t number,
                       enum spb_wire_type type, struct spb_wire_field *found)
{
    struct spb_reader r = spb_reader_over(message->data, message->size);
    struct spb_wire_field field;
    bool is_there = false;

    while (spb_wire_read_field(&r, &field)) {
        if (field.number != number || field.type != type)
            continue;
        *found = field;
        is_there = true;
    }
    return is_there && !r.failed;
}

/* ErrorInfo.reason is field 1. One that is broken or no name of a reason counts as absent: the
 * code and message beside it are still worth having. */
static void take_reason(const struct spb_ttrpc_view *info, char reason[SPB_CLIENT_REASON_SIZE])
{
    struct spb_wire_field field;

    if (!find_field(info, 1, SPB_WIRE_BYTES, &field) || !is_reason(field.data, field.size))
        return;
    memcpy(reason, field.data, field.size);
    reason[field.size] = '\0';
}

/* RetryInfo.retry_delay (1) is a Duration: seconds (1) and nanos (2), both signed. A negative or
 * absurd one counts as absent; rounded up, so that nobody comes too early. */
static int64_t take_retry(const struct spb_ttrpc_view *info)
{
    struct spb_wire_field field;
    uint64_t seconds = 0, nanos = 0;

    if (!find_field(info, 1, SPB_WIRE_BYTES, &field))
        return -1;
    struct spb_ttrpc_view delay = {.data = field.data, .size = field.size};
    if (find_field(&delay, 1, SPB_WIRE_VARINT, &field))
        seconds = field.value;
    if (find_field(&delay, 2, SPB_WIRE_VARINT, &field))
        nanos = field.value;
    if (seconds > RETRY_SECONDS_MAX || nanos >= (uint64_t)SPB_NS_PER_S)
        return -1;
    return (int64_t)seconds * 1000 + ((int64_t)nanos + SPB_NS_PER_MS - 1) / SPB_NS_PER_MS;
}

/* C0 and C1 control characters, and DEL. The bytes are well-formed UTF-8. */
static bool is_control(const uint8_t *character, size_t length)
{
    if (length == 1)
        return character[0] < 0x20 || character[0] == 0x7F;
    return length == 2 && character[0] == 0xC2 && character[1] < 0xA0;
}

static void take_message(const struct spb_ttrpc_view *message, char text[SPB_ERROR_TEXT_SIZE])
{
    size_t used = 0;

    for (size_t at = 0; at < message->size;) {
        const uint8_t *character = message->data + at;
        int step = spb_utf8_step(character, message->size - at);
        size_t length = step < 0 ? (size_t)-step : (size_t)step;
        bool is_shown = step > 0 && !is_control(character, length);
        size_t out = is_shown ? length : 1;

        if (used + out >= SPB_ERROR_TEXT_SIZE)
            break;
        if (is_shown)
            memcpy(text + used, character, length);
        else
            text[used] = '?';
        used += out;
        at += length;
    }
    text[used] = '\0';
}

static void take_failure(const struct spb_ttrpc_response *response, struct spb_client_reply *reply,
                         struct spb_error *err)
{
    int32_t code = response->code;

    /* A code that nobody defined is UNKNOWN, as gRPC has it. */
    reply->rpc_code = code < 0 || code > RPC_CODE_MAX ? RPC_UNKNOWN : code;
    for (size_t i = 0; i < response->details_count; i++) {
        const struct spb_ttrpc_detail *detail = &response->details[i];
        if (reply->reason[0] == '\0' && is_type(&detail->type_url, "/google.rpc.ErrorInfo"))
            take_reason(&detail->value, reply->reason);
        if (reply->retry_after_ms < 0 && is_type(&detail->type_url, "/google.rpc.RetryInfo"))
            reply->retry_after_ms = take_retry(&detail->value);
    }
    reply->status.code = meaning(reply->rpc_code, reply->reason);
    err->code = reply->status.code;
    err->saved_errno = 0;
    take_message(&response->message, err->text);
    if (err->text[0] == '\0')
        (void)spb_fail(err, err->code, "the daemon answered with code %d and no message",
                       (int)response->code);
    reply->error = err;
}

void spb_reply_from_response(const struct spb_ttrpc_response *response,
                             struct spb_client_reply *reply, struct spb_error *err)
{
    *reply = (struct spb_client_reply){.status = spb_ok(), .retry_after_ms = -1, .was_sent = true};
    if (response->code != 0) {
        take_failure(response, reply, err);
        return;
    }
    reply->payload = response->payload.data;
    reply->payload_size = response->payload.size;
}

void spb_reply_from_error(const struct spb_error *err, struct spb_client_reply *reply)
{
    *reply = (struct spb_client_reply){.status = {err->code},
                                       .rpc_code = -1,
                                       .error = err,
                                       .retry_after_ms = -1,
                                       .was_sent = true};
}
