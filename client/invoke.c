/*
 * The synchronous call with protobuf-c's messages. Blocks; the client's thread.
 *
 * A few bytes on the wire can ask protobuf-c for much memory (an empty submessage takes two and
 * becomes a struct), so unpacking has a bound. The caller frees with protobuf-c's own allocator,
 * which is malloc's: the one here only counts.
 */
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"
#include "spaceblock/client.h"

#define UNPACKED_MAX ((size_t)64 << 20)
#define NAME_SIZE 120

static void *bounded_alloc(void *user, size_t size)
{
    size_t *left = user;

    if (size > *left)
        return NULL;
    *left -= size;
    return malloc(size);
}

static void bounded_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

spb_status spb_client_unpack(const char *what, const struct ProtobufCMessageDescriptor *type,
                             const uint8_t *payload, size_t size, struct ProtobufCMessage **message,
                             struct spb_error *err)
{
    size_t left = UNPACKED_MAX;
    ProtobufCAllocator allocator = {
        .alloc = bounded_alloc, .free = bounded_free, .allocator_data = &left};
    ProtobufCMessage *unpacked = protobuf_c_message_unpack(type, &allocator, size, payload);

    if (unpacked == NULL)
        return spb_fail(err, SPB_PROTOCOL, "%s: answer of %zu bytes does not parse as %s", what,
                        size, type->name);
    *message = unpacked;
    return spb_ok();
}

spb_status spb_client_invoke(struct spb_client *client, const char *service, const char *method,
                             const struct ProtobufCMessage *request,
                             const struct ProtobufCMessageDescriptor *reply_type,
                             int64_t timeout_ms, struct ProtobufCMessage **reply,
                             struct spb_client_failure *failure, struct spb_error *err)
{
    size_t size = protobuf_c_message_get_packed_size(request);
    uint8_t *packed = malloc(size == 0 ? 1 : size);
    struct spb_client_failure failed = {.rpc_code = -1};
    uint8_t *answer = NULL;
    size_t answer_size = 0;
    char what[NAME_SIZE];
    spb_status status;

    if (packed == NULL) {
        status = spb_fail_memory(err, "packing a request");
    } else {
        (void)protobuf_c_message_pack(request, packed);
        status = spb_client_call(client, service, method, packed, size, timeout_ms, &answer,
                                 &answer_size, &failed, err);
        free(packed);
    }
    (void)snprintf(what, sizeof(what), "%s/%s", service, method);
    if (spb_is_ok(status))
        status = spb_client_unpack(what, reply_type, answer, answer_size, reply, err);
    free(answer);
    if (!spb_is_ok(status) && failure != NULL)
        *failure = failed;
    return status;
}
