/* What the daemon's answers become: codes, reasons, texts; and messages of protobuf-c. */
#include "test_client_peer.h"

#include "call_reply.h"
#include "spaceblock/v1/params.pb-c.h"
#include "spaceblock/v1/server.pb-c.h"
#include "google/rpc/error_details.pb-c.h"

static struct spb_client_reply meet(int32_t code, const char *reason, const char *message,
                                    struct spb_error *err)
{
    struct spb_ttrpc_response response = {.code = code};
    Google__Rpc__ErrorInfo info;
    char copy[128];
    uint8_t packed[256];
    struct spb_client_reply reply;

    response.message = peer_view(message);
    if (reason != NULL) {
        google__rpc__error_info__init(&info);
        (void)snprintf(copy, sizeof(copy), "%s", reason);
        info.reason = copy;
        response.details[0].type_url = peer_view("type.googleapis.com/google.rpc.ErrorInfo");
        response.details[0].value.size = google__rpc__error_info__pack(&info, packed);
        response.details[0].value.data = packed;
        response.details_count = 1;
    }
    spb_reply_from_response(&response, &reply, err);
    return reply;
}

Test(client_reply, reasons)
{
    static const struct {
        int32_t rpc_code;
        const char *reason;
        enum spb_code code;
    } rows[] = {
        {3, "INVALID_REQUEST", SPB_INVALID},
        {12, "UNKNOWN_METHOD", SPB_UNSUPPORTED},
        {5, "NOT_FOUND", SPB_NOT_FOUND},
        {6, "ALREADY_EXISTS", SPB_EXISTS},
        {10, "GENERATION_MISMATCH", SPB_GENERATION},
        {10, "PRODUCT_CHANGED", SPB_CHANGED},
        {8, "NO_SPACE", SPB_FULL},
        {8, "LIMIT_EXCEEDED", SPB_LIMIT},
        {9, "IMAGE_READ_ONLY", SPB_READ_ONLY},
        {9, "IMAGE_IN_USE", SPB_LOCKED},
        {15, "IMAGE_DAMAGED", SPB_CORRUPT},
        {9, "WRONG_STATE", SPB_REMOTE},
        {15, "CORRUPT_DATA", SPB_CORRUPT},
        {13, "IO_ERROR", SPB_IO},
        {14, "DRAINING", SPB_UNREACHABLE},
        {4, "DEADLINE", SPB_DEADLINE},
        {10, "STILL_RUNNING", SPB_DEADLINE},
        {13, "OUTCOME_UNKNOWN", SPB_IO},
        {3, "REQUEST_MISMATCH", SPB_INVALID},
        {13, "INTERNAL", SPB_REMOTE},
        {13, "A_REASON_OF_LATER", SPB_REMOTE},
        {5, "A_REASON_OF_LATER", SPB_NOT_FOUND},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct spb_error err;
        struct spb_client_reply reply = meet(rows[i].rpc_code, rows[i].reason, "why", &err);
        cr_assert_eq(reply.status.code, rows[i].code, "%s", rows[i].reason);
        cr_assert_eq(reply.rpc_code, rows[i].rpc_code);
        cr_assert_str_eq(reply.reason, rows[i].reason);
        cr_assert_eq(reply.error, &err);
        cr_assert_eq(err.code, rows[i].code);
        cr_assert_str_eq(err.text, "why");
    }
}

Test(client_reply, codes_without_a_reason)
{
    static const enum spb_code expected[] = {
        [1] = SPB_REMOTE,    [2] = SPB_REMOTE,       [3] = SPB_INVALID,  [4] = SPB_DEADLINE,
        [5] = SPB_NOT_FOUND, [6] = SPB_EXISTS,       [7] = SPB_REMOTE,   [8] = SPB_LIMIT,
        [9] = SPB_REMOTE,    [10] = SPB_REMOTE,      [11] = SPB_INVALID, [12] = SPB_UNSUPPORTED,
        [13] = SPB_REMOTE,   [14] = SPB_UNREACHABLE, [15] = SPB_CORRUPT, [16] = SPB_REMOTE,
    };
    struct spb_error err;

    for (int32_t code = 1; code <= 16; code++) {
        struct spb_client_reply reply = meet(code, NULL, "", &err);
        cr_assert_eq(reply.status.code, expected[code], "code %d", code);
        cr_assert_str_empty(reply.reason);
        cr_assert(err.text[0] != '\0', "a text even where the daemon gave none");
    }
}

Test(client_reply, codes_that_nobody_defined_are_unknown)
{
    struct spb_error err;

    cr_assert_eq(meet(17, NULL, "x", &err).rpc_code, 2);
    cr_assert_eq(meet(-1, NULL, "x", &err).rpc_code, 2);
    cr_assert_eq(meet(INT32_MIN, NULL, "x", &err).status.code, SPB_REMOTE);
    cr_assert_eq(meet(INT32_MAX, NULL, "x", &err).status.code, SPB_REMOTE);
}

Test(client_reply, reasons_that_are_none)
{
    struct spb_error err;
    char longest[64];

    cr_assert_str_empty(meet(5, "not a reason", "x", &err).reason);
    cr_assert_str_empty(meet(5, "A\x1b[31m", "x", &err).reason);
    (void)snprintf(longest, sizeof(longest), "%047d", 0);
    cr_assert_str_eq(meet(5, longest, "x", &err).reason, longest);
    (void)snprintf(longest, sizeof(longest), "%048d", 0);
    cr_assert_str_empty(meet(5, longest, "x", &err).reason);
}

Test(client_reply, broken_error_info_leaves_code_and_message)
{
    struct spb_ttrpc_response response = {.code = 5, .details_count = 3};
    struct spb_client_reply reply;
    struct spb_error err;

    response.message = peer_view("still there");
    response.details[0].type_url = peer_view("x/google.rpc.ErrorInfo");
    response.details[0].value = peer_view("\x0a\x7fNO");
    response.details[1].type_url = peer_view("Info");
    response.details[2].type_url = peer_view("google.rpc.ErrorInfo"); /* no slash */
    response.details[2].value = peer_view("\x0a\x02NO");
    spb_reply_from_response(&response, &reply, &err);
    cr_assert_eq(reply.status.code, SPB_NOT_FOUND);
    cr_assert_str_empty(reply.reason);
    cr_assert_str_eq(err.text, "still there");
}

/* A RetryInfo of these bytes, beside an ErrorInfo. */
static int64_t retry_after(const char *type_url, const void *bytes, size_t size)
{
    struct spb_ttrpc_response response = {.code = 14, .details_count = 2};
    struct spb_client_reply reply;
    struct spb_error err;

    response.message = peer_view("later");
    response.details[0].type_url = peer_view(type_url);
    response.details[0].value = (struct spb_ttrpc_view){bytes, size};
    response.details[1].type_url = peer_view("x/google.rpc.ErrorInfo");
    response.details[1].value = peer_view("\x0a\x08"
                                          "DRAINING");
    spb_reply_from_response(&response, &reply, &err);
    cr_assert_str_eq(reply.reason, "DRAINING");
    cr_assert_eq(reply.status.code, SPB_UNREACHABLE);
    return reply.retry_after_ms;
}

static int64_t retry_of(int64_t seconds, int32_t nanos)
{
    Google__Rpc__RetryInfo__Duration delay = GOOGLE__RPC__RETRY_INFO__DURATION__INIT;
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    uint8_t packed[64];

    delay.seconds = seconds;
    delay.nanos = nanos;
    retry.retry_delay = &delay;
    return retry_after("type.googleapis.com/google.rpc.RetryInfo", packed,
                       google__rpc__retry_info__pack(&retry, packed));
}

Test(client_reply, retry_info)
{
    static const char url[] = "x/google.rpc.RetryInfo";
    struct spb_error err;

    cr_assert_eq(retry_of(1, 0), 1000);
    cr_assert_eq(retry_of(2, 500000000), 2500);
    cr_assert_eq(retry_of(0, 1), 1, "rounded up");
    cr_assert_eq(retry_of(0, 0), 0);
    cr_assert_eq(retry_of(315576000000, 999999999), 315576000001000);
    cr_assert_eq(retry_of(-1, 0), -1);
    cr_assert_eq(retry_of(0, -1), -1);
    cr_assert_eq(retry_of(0, 1000000000), -1);
    cr_assert_eq(retry_of(INT64_MAX, 0), -1);
    cr_assert_eq(retry_after(url, "", 0), -1, "no delay in it");
    cr_assert_eq(retry_after(url, "\x0a\x02\x08", 3), -1, "cut");
    cr_assert_eq(retry_after(url, "\x0a\x01\xff", 3), 0, "a broken Duration is an empty one");
    cr_assert_eq(retry_after("google.rpc.RetryInfo", "\x0a\x02\x08\x01", 4), -1, "no slash");
    cr_assert_eq(retry_after(url, "\x0a\x02\x08\x01", 4), 1000);
    cr_assert_eq(meet(14, "DRAINING", "x", &err).retry_after_ms, -1);
    cr_assert_eq(meet(10, "STILL_RUNNING", "x", &err).status.code, SPB_DEADLINE);
}

Test(client_reply, messages_are_one_line_without_controls)
{
    struct spb_error err;

    (void)meet(5, NULL, "a\nb\x1b[2Jc\x7f gr\xc3\xbc\xc3\x9f \xc2\x9b end", &err);
    cr_assert_str_eq(err.text, "a?b?[2Jc? gr\xc3\xbc\xc3\x9f ? end");
}

Test(client_reply, long_messages_are_cut_between_characters)
{
    struct spb_error err;
    char message[2000];

    for (size_t i = 0; i + 1 < sizeof(message); i += 2)
        memcpy(message + i, "\xc3\xbc", 2);
    message[sizeof(message) - 2] = '\0';
    (void)meet(5, NULL, message, &err);
    cr_assert_eq(strlen(err.text), 510);
    cr_assert_eq((uint8_t)err.text[509], 0xBC);
}

/* ---- With protobuf-c ---------------------------------------------------------------------- */

struct script {
    struct peer *peer;
    const uint8_t *answer;
    size_t size;
    uint8_t seen[256]; /* payload of the request */
    size_t seen_size;
};

static void *answer_once(void *user)
{
    struct script *script = user;

    peer_accept(script->peer);
    struct peer_request got = peer_receive(script->peer);
    cr_assert(got.request.payload.size <= sizeof(script->seen));
    script->seen_size = got.request.payload.size;
    if (script->seen_size > 0)
        memcpy(script->seen, got.request.payload.data, script->seen_size);
    peer_answer_bytes(script->peer, got.header.stream, script->answer, script->size);
    free(got.data);
    return NULL;
}

static spb_status invoke(struct script *script, const ProtobufCMessage *request,
                         const ProtobufCMessageDescriptor *type, ProtobufCMessage **reply,
                         struct spb_client_failure *failure, struct spb_error *err)
{
    struct peer peer = peer_listen_unix(4);
    struct spb_client *client;

    script->peer = &peer;
    cr_assert_eq(pthread_create(&peer.thread, NULL, answer_once, script), 0);
    cr_assert(spb_is_ok(spb_client_open(peer.endpoint, 10000, &client, NULL)));
    spb_status status = spb_client_invoke(client, "spaceblock.v1.Params", "Get", request, type,
                                          20000, reply, failure, err);
    cr_assert_eq(pthread_join(peer.thread, NULL), 0);
    spb_client_close(client);
    peer_done(&peer);
    return status;
}

Test(client_reply, invoke_packs_and_unpacks)
{
    Spaceblock__V1__PutParamRequest request;
    const uint8_t answer[] = {0x08, 0x2A};
    struct script script = {.answer = answer, .size = sizeof(answer)};
    ProtobufCMessage *reply = NULL;
    struct spb_error err;

    spaceblock__v1__put_param_request__init(&request);
    request.id = 300;
    spb_status status = invoke(&script, &request.base,
                               &spaceblock__v1__put_param_response__descriptor, &reply, NULL, &err);
    cr_assert(spb_is_ok(status), "%s", err.text);
    cr_assert_eq(script.seen_size, 3);
    cr_assert_arr_eq(script.seen, "\x18\xac\x02", 3);
    cr_assert_eq(((Spaceblock__V1__PutParamResponse *)reply)->generation, 42);
    protobuf_c_message_free_unpacked(reply, NULL);
}

Test(client_reply, invoke_of_empty_messages)
{
    Spaceblock__V1__PingRequest request = SPACEBLOCK__V1__PING_REQUEST__INIT;
    struct script script = {.answer = NULL, .size = 0};
    ProtobufCMessage *reply = NULL;

    cr_assert(spb_is_ok(invoke(&script, &request.base, &spaceblock__v1__ping_response__descriptor,
                               &reply, NULL, NULL)));
    cr_assert_eq(((Spaceblock__V1__PingResponse *)reply)->payload.len, 0);
    protobuf_c_message_free_unpacked(reply, NULL);
}

Test(client_reply, invoke_refuses_an_answer_that_does_not_parse)
{
    Spaceblock__V1__PingRequest request = SPACEBLOCK__V1__PING_REQUEST__INIT;
    const uint8_t answer[] = {0x0A, 0x7F};
    struct script script = {.answer = answer, .size = sizeof(answer)};
    ProtobufCMessage *reply = NULL;
    struct spb_client_failure failure = {.rpc_code = 99};
    struct spb_error err;

    cr_assert_eq(invoke(&script, &request.base, &spaceblock__v1__ping_response__descriptor, &reply,
                        &failure, &err)
                     .code,
                 SPB_PROTOCOL);
    cr_assert_null(reply);
    cr_assert_eq(failure.rpc_code, -1);
    cr_assert_not_null(strstr(err.text, "PingResponse"), "%s", err.text);
}

/* Two million empty messages in 4 MiB would unpack to a hundred times that. */
Test(client_reply, invoke_bounds_what_an_answer_unpacks_to)
{
    Spaceblock__V1__PingRequest request = SPACEBLOCK__V1__PING_REQUEST__INIT;
    size_t size = 4000000;
    uint8_t *answer = malloc(size);
    struct script script = {.answer = answer, .size = size};
    ProtobufCMessage *reply = NULL;

    for (size_t i = 0; i < size; i += 2)
        memcpy(answer + i, "\x0a\x00", 2);
    cr_assert_eq(invoke(&script, &request.base, &spaceblock__v1__list_params_response__descriptor,
                        &reply, NULL, NULL)
                     .code,
                 SPB_PROTOCOL);
    cr_assert_null(reply);
    free(answer);
}
