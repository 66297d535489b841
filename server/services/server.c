/* Server: about the daemon itself. Answered on the loop's thread. */
#include "conn.h"
#include "daemon.h"
#include "descriptor.h"
#include "dispatch.h"
#include "registry.h"
#include "services/services.h"

/* What a client may look for before it uses it. */
static const char *const features[] = {"params", "events", "products", "uploads-in-memory",
                                       "check",  "defrag"};

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
    reply.control_bytes_max = SPB_CONTROL_MAX;
    reply.chunk_bytes_max = SPB_CHUNK_MAX;
    reply.calls_in_flight_max = SPB_CALLS_IN_FLIGHT_MAX;
    reply.connections_max = SPB_CONNS_MAX;
    reply.file_descriptor_set = spb_pb_bytes(set, size);
    reply.uptime_seconds = (uint64_t)(up_ns / SPB_NS_PER_S);
    reply.image_count = (uint32_t)spb_registry_count(call->daemon->registry);
    reply.principal = spb_pb_text(call->principal.name);
    reply.tenant = call->principal.tenant;
    spb_call_reply(call, &reply.base);
}

bool spb_server_ping_gate(struct spb_call *call)
{
    const PB_PingRequest *request = (const void *)call->request;

    return spb_gate_max(call, "payload", request->payload.len, SPB_CONTROL_MAX);
}

void spb_server_ping(struct spb_call *call)
{
    const PB_PingRequest *request = (const void *)call->request;
    PB_PingResponse reply = SPACEBLOCK__V1__PING_RESPONSE__INIT;

    reply.payload = request->payload;
    spb_call_reply(call, &reply.base);
}
