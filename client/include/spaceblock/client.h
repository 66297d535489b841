/*
 * Client of spaceblockd: unary calls over one connection, many in flight.
 *
 * The synchronous call is the asynchronous one plus a wait. The protocol runs in a state machine; a
 * client drives it from its own loop (spb_client_fd, _wants, _ready, _timeout_ms) or lets
 * spb_client_wait do so. Payloads are the encoded messages of proto/spaceblock/v1.
 *
 * Threads: one client belongs to one thread at a time. Callbacks run inside spb_client_ready,
 * _wait, _call and _close, on the caller's thread, exactly once for each started call; they may
 * start further calls and may not close the client. Times are milliseconds.
 */
#ifndef SPACEBLOCK_CLIENT_H
#define SPACEBLOCK_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct spb_client;
struct ProtobufCMessage;
struct ProtobufCMessageDescriptor;

#define SPB_CLIENT_REASON_SIZE 48
#define SPB_CLIENT_NO_TIMEOUT (-1)

/*
 * The usual endpoint: $SPACEBLOCK_ENDPOINT, else unix:/run/spaceblock/spaceblockd.sock for root,
 * else unix:$XDG_RUNTIME_DIR/spaceblock/spaceblockd.sock. SPB_INVALID where none can be named.
 */
SPB_API SPB_MUST_USE spb_status spb_client_usual_endpoint(char *endpoint, size_t size,
                                                          struct spb_error *err);

/*
 * Connects to "unix:PATH" or "tcp://HOST:PORT" (names are resolved; IPv6 literals in brackets).
 * SPB_INVALID: a malformed endpoint; SPB_UNREACHABLE: nobody there, or not within timeout_ms.
 * Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_client_open(const char *endpoint, int64_t timeout_ms,
                                                struct spb_client **client, struct spb_error *err);
/* Ends calls in flight with SPB_UNREACHABLE, then frees. Accepts NULL. */
SPB_API void spb_client_close(struct spb_client *client);

/* How a call ended. Everything is borrowed for the callback. */
struct spb_client_reply {
    spb_status status; /* SPB_OK, or the closest code of the failure */
    int32_t rpc_code;  /* canonical code (0 to 16); -1 where the daemon did not answer */
    char
        reason[SPB_CLIENT_REASON_SIZE]; /* ErrorInfo.reason, such as "IO_ERROR"; empty on success */
    const uint8_t *payload;
    size_t payload_size;
    const struct spb_error *error; /* its text is the daemon's message; NULL on success */
};

typedef void (*spb_client_callback)(void *user, const struct spb_client_reply *reply);

/*
 * Queues a call; the payload is copied. timeout_ms is both the daemon's deadline and ours. On a
 * failure (SPB_UNREACHABLE once the connection is lost, SPB_LIMIT over 4 MiB) the callback does not
 * run. Does not block.
 */
SPB_API SPB_MUST_USE spb_status spb_client_start(struct spb_client *client, const char *service,
                                                 const char *method, const void *payload,
                                                 size_t size, int64_t timeout_ms,
                                                 spb_client_callback callback, void *user,
                                                 struct spb_error *err);
/* Calls whose callback has not run yet. */
SPB_API size_t spb_client_in_flight(const struct spb_client *client);

/* For a loop of the caller's own. */
#define SPB_CLIENT_READ 1u
#define SPB_CLIENT_WRITE 2u
SPB_API int spb_client_fd(const struct spb_client *client);
SPB_API unsigned spb_client_wants(const struct spb_client *client);
/* Until the next deadline; SPB_CLIENT_NO_TIMEOUT for none. */
SPB_API int64_t spb_client_timeout_ms(const struct spb_client *client);
/* Does what can be done now: reads, writes, runs callbacks, ends calls past their deadline. Fails
 * once the connection is lost; all its calls have been ended then. Does not block. */
SPB_API SPB_MUST_USE spb_status spb_client_ready(struct spb_client *client, struct spb_error *err);
/* Polls and does the above until a callback ran, nothing is in flight or timeout_ms passed. */
SPB_API SPB_MUST_USE spb_status spb_client_wait(struct spb_client *client, int64_t timeout_ms,
                                                struct spb_error *err);

/* How a synchronous call failed, beside its status. */
struct spb_client_failure {
    int32_t rpc_code; /* -1 where the daemon did not answer */
    char reason[SPB_CLIENT_REASON_SIZE];
};

/* One call and its wait. *reply is the caller's, free(); failure may be NULL. Blocks. */
SPB_API SPB_MUST_USE spb_status spb_client_call(struct spb_client *client, const char *service,
                                                const char *method, const void *payload,
                                                size_t size, int64_t timeout_ms, uint8_t **reply,
                                                size_t *reply_size,
                                                struct spb_client_failure *failure,
                                                struct spb_error *err);

/*
 * The same with protobuf-c messages: packs request, and unpacks the answer as reply_type. *reply is
 * the caller's, protobuf_c_message_free_unpacked(*reply, NULL). Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_client_invoke(
    struct spb_client *client, const char *service, const char *method,
    const struct ProtobufCMessage *request, const struct ProtobufCMessageDescriptor *reply_type,
    int64_t timeout_ms, struct ProtobufCMessage **reply, struct spb_client_failure *failure,
    struct spb_error *err);

/* A fresh random request_id: 36 characters and a NUL. */
#define SPB_REQUEST_ID_SIZE 37
SPB_API SPB_MUST_USE spb_status spb_client_request_id(char id[SPB_REQUEST_ID_SIZE],
                                                      struct spb_error *err);

#ifdef __cplusplus
}
#endif
#endif
