/* Packed requests of the load generator. See requests.h. */
#include "requests.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/status.h"
#include "spaceblock/v1/events.pb-c.h"
#include "spaceblock/v1/params.pb-c.h"
#include "spaceblock/v1/server.pb-c.h"

/* Before a payload leaves, the first group becomes the ring's salt and the last one the call's. */
static const char id_pattern[] = "00000000-5f0a-4000-8000-000000000000";

#define ID_LENGTH (sizeof id_pattern - 1u)

static spb_status pack(const ProtobufCMessage *message, struct bench_payload *payload,
                       struct spb_error *err)
{
    const uint8_t *id;

    payload->size = protobuf_c_message_get_packed_size(message);
    payload->bytes = malloc(payload->size);
    if (payload->bytes == NULL)
        return spb_fail_memory(err, "packing a request");
    (void)protobuf_c_message_pack(message, payload->bytes);
    id = memmem(payload->bytes, payload->size, id_pattern, ID_LENGTH);
    payload->id_at = id == NULL ? 0 : (size_t)(id - payload->bytes);
    return spb_ok();
}

static spb_status pack_put(struct bench_requests *requests, Spaceblock__V1__ImageRef *image,
                           ProtobufCBinaryData value, char *id, struct spb_error *err)
{
    requests->service = "spaceblock.v1.Params";
    requests->method = "Put";
    for (uint32_t i = 0; i < BENCH_IDS; i++) {
        Spaceblock__V1__PutParamRequest put;

        spaceblock__v1__put_param_request__init(&put);
        put.request_id = id;
        put.image = image;
        put.id = i + 1u;
        put.value = value;
        SPB_TRY(pack(&put.base, &requests->ring[i], err));
    }
    return spb_ok();
}

static spb_status pack_get(struct bench_requests *requests, Spaceblock__V1__ImageRef *image,
                           struct spb_error *err)
{
    requests->service = "spaceblock.v1.Params";
    requests->method = "Get";
    for (uint32_t i = 0; i < BENCH_IDS; i++) {
        Spaceblock__V1__GetParamRequest get = SPACEBLOCK__V1__GET_PARAM_REQUEST__INIT;

        get.image = image;
        get.id = i + 1u;
        SPB_TRY(pack(&get.base, &requests->ring[i], err));
    }
    return spb_ok();
}

static spb_status pack_append(struct bench_requests *requests, Spaceblock__V1__ImageRef *image,
                              ProtobufCBinaryData value, char *id, struct spb_error *err)
{
    requests->service = "spaceblock.v1.Events";
    requests->method = "Append";
    for (uint32_t i = 0; i < BENCH_IDS; i++) {
        Spaceblock__V1__AppendEventsRequest append;
        Spaceblock__V1__NewEvent event = SPACEBLOCK__V1__NEW_EVENT__INIT;
        Spaceblock__V1__NewEvent *events[] = {&event};

        spaceblock__v1__append_events_request__init(&append);
        event.severity = 1;
        event.code = i;
        event.payload = value;
        append.request_id = id;
        append.image = image;
        append.n_events = 1;
        append.events = events;
        SPB_TRY(pack(&append.base, &requests->ring[i], err));
    }
    return spb_ok();
}

static spb_status pack_ping(struct bench_requests *requests, ProtobufCBinaryData value,
                            struct spb_error *err)
{
    requests->service = "spaceblock.v1.Server";
    requests->method = "Ping";
    for (uint32_t i = 0; i < BENCH_IDS; i++) {
        Spaceblock__V1__PingRequest ping = SPACEBLOCK__V1__PING_REQUEST__INIT;

        ping.payload = value;
        SPB_TRY(pack(&ping.base, &requests->ring[i], err));
    }
    return spb_ok();
}

spb_status bench_requests_init(struct bench_requests *requests, const char *op, const char *image,
                               size_t value_size, struct spb_error *err)
{
    Spaceblock__V1__ImageRef ref = SPACEBLOCK__V1__IMAGE_REF__INIT;
    uint8_t value[256];
    uint8_t name[65] = {0};
    char id[sizeof id_pattern];
    ProtobufCBinaryData bytes = {value_size, value};

    memset(requests, 0, sizeof *requests);
    if (getrandom(&requests->salt, sizeof requests->salt, 0) != (ssize_t)sizeof requests->salt)
        return spb_fail(err, SPB_UNSUPPORTED, "drawing a salt for request ids");
    if (value_size > sizeof value || strlen(image) >= sizeof name)
        return spb_fail(err, SPB_INVALID, "value of %zu bytes or image \"%s\" is too long",
                        value_size, image);
    memset(value, 'v', sizeof value);
    memcpy(name, image, strlen(image));
    memcpy(id, id_pattern, sizeof id);
    ref.name.len = strlen(image);
    ref.name.data = name;
    if (strcmp(op, "put") == 0)
        return pack_put(requests, &ref, bytes, id, err);
    if (strcmp(op, "get") == 0)
        return pack_get(requests, &ref, err);
    if (strcmp(op, "append") == 0)
        return pack_append(requests, &ref, bytes, id, err);
    if (strcmp(op, "ping") == 0)
        return pack_ping(requests, bytes, err);
    return spb_fail(err, SPB_INVALID, "--op: found \"%s\", expected put, get, append or ping", op);
}

void bench_requests_done(struct bench_requests *requests)
{
    for (size_t i = 0; i < BENCH_IDS; i++)
        free(requests->ring[i].bytes);
}

/* Writes count hexadecimal digits of value, the last one at end - 1. */
static void hex(uint8_t *end, uint64_t value, unsigned count)
{
    static const uint8_t digits[16] = {'0', '1', '2', '3', '4', '5', '6', '7',
                                       '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'};

    for (unsigned i = 0; i < count; i++, value >>= 4)
        *--end = digits[value & 15u];
}

const struct bench_payload *bench_requests_next(struct bench_requests *requests)
{
    struct bench_payload *payload = &requests->ring[requests->sent % BENCH_IDS];
    uint8_t *id = payload->bytes + payload->id_at;

    requests->sent++;
    if (payload->id_at > 0) {
        hex(id + 8, requests->salt, 8);
        hex(id + ID_LENGTH, requests->sent, 12);
    }
    return payload;
}
