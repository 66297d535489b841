/* Server: about the daemon itself. Answered on the loop's thread. */
#include "daemon.h"
#include "descriptor.h"
#include "dispatch.h"
#include "registry.h"
#include "repeat.h"
#include "services/services.h"
#include "uuid.h"

/* What a client may look for before it uses it. */
static const char *const features[] = {
    "params", "events", "products",       "uploads", "artifacts", "backup", "check",  "defrag",
    "watch",  "scrub",  "request-replay", "audit",   "import",    "clone",  "rename", "guests"};

/* All limits, in the call's arena. */
static bool show_limits(struct spb_call *call, PB_ServerInfoResponse *reply)
{
    size_t count;
    const struct spb_limit_row *rows = spb_limit_rows(&count);
    PB_Limit *limits = spb_call_alloc(call, count * sizeof(*limits));
    PB_Limit **places = spb_call_alloc(call, count * sizeof(PB_Limit *));

    if (limits == NULL || places == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        limits[i] = (PB_Limit)SPACEBLOCK__V1__LIMIT__INIT;
        limits[i].name = spb_pb_text(rows[i].name);
        limits[i].value = spb_limit_get(&call->daemon->limits, &rows[i]);
        places[i] = &limits[i];
    }
    reply->n_limits = count;
    reply->limits = places;
    return true;
}

void spb_server_info(struct spb_call *call)
{
    PB_ServerInfoResponse reply = SPACEBLOCK__V1__SERVER_INFO_RESPONSE__INIT;
    ProtobufCBinaryData words[SPB_COUNT(features)];
    int64_t up_ns = spb_loop_now_ns(call->daemon->loop) - call->daemon->start_ns;
    size_t size;
    const uint8_t *set = spb_descriptor_set(&size);

    for (size_t i = 0; i < SPB_COUNT(features); i++)
        words[i] = spb_pb_text(features[i]);
    reply.version = spb_pb_text(SPB_VERSION);
    reply.n_features = SPB_COUNT(features);
    reply.features = words;
    reply.message_bytes_max = SPB_REPLY_MAX;
    reply.control_bytes_max = (uint32_t)SPB_LIMIT(call->daemon, control_max_bytes);
    reply.chunk_bytes_max = (uint32_t)SPB_LIMIT(call->daemon, chunk_max_bytes);
    reply.calls_in_flight_max = (uint32_t)SPB_LIMIT(call->daemon, calls_in_flight_max);
    reply.connections_max = (uint32_t)SPB_LIMIT(call->daemon, connections_max);
    reply.file_descriptor_set = spb_pb_bytes(set, size);
    reply.uptime_seconds = (uint64_t)(up_ns / SPB_NS_PER_S);
    reply.image_count = (uint32_t)spb_registry_count(call->daemon->registry);
    reply.principal = spb_pb_text(call->principal.name);
    reply.tenant = call->principal.tenant;
    if (show_limits(call, &reply))
        spb_call_set_reply(call, &reply.base);
    spb_call_send(call);
}

bool spb_server_cancel_gate(struct spb_call *call)
{
    const PB_CancelRequest *request = (const void *)call->request;
    uint8_t id[SPB_REPLAY_ID_SIZE];

    if (spb_uuid_parse(request->request_id, id))
        return true;
    spb_call_set_bad_field(call, "request_id", "found %zu characters, expected a UUID of 36",
                           strlen(request->request_id));
    return false;
}

void spb_server_cancel(struct spb_call *call)
{
    const PB_CancelRequest *request = (const void *)call->request;
    PB_CancelResponse reply = SPACEBLOCK__V1__CANCEL_RESPONSE__INIT;
    uint8_t id[SPB_REPLAY_ID_SIZE];

    reply.found = spb_uuid_parse(request->request_id, id) && spb_repeat_cancel(call, id);
    spb_call_reply(call, &reply.base);
}

bool spb_server_ping_gate(struct spb_call *call)
{
    const PB_PingRequest *request = (const void *)call->request;

    call->reply_bytes = request->payload.len;
    return spb_gate_max(call, "payload", request->payload.len, SPB_CONTROL_MAX);
}

void spb_server_ping(struct spb_call *call)
{
    const PB_PingRequest *request = (const void *)call->request;
    PB_PingResponse reply = SPACEBLOCK__V1__PING_RESPONSE__INIT;

    reply.payload = request->payload;
    spb_call_reply(call, &reply.base);
}
