/*
 * Client of spaceblockd: unary calls over one connection, many in flight; if wanted, over as many
 * connections in a row as a bad link takes (spb_client_open_with).
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

#include <stdbool.h>
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
 * Once this connection is lost, every call fails; each call is tried once. SPB_INVALID: a malformed
 * endpoint; SPB_UNREACHABLE: nobody there, or not within timeout_ms. Blocks.
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
    int64_t retry_after_ms;        /* RetryInfo: come again after this long; -1: not told */
    /* The daemon may have got the request: of a call that it did not answer it is not known whether
     * it was carried out. False: it certainly was not. */
    bool was_sent;
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

/* ---- Bad links ---------------------------------------------------------------------------- */

/*
 * May a call be tried again after a lost connection, a failed connect, UNAVAILABLE (no sooner than
 * its RetryInfo says), or ABORTED with reason STILL_RUNNING? The daemon may have carried the first
 * attempt out, so that only these may: reads, calls with a request_id (the daemon knows a duplicate
 * by it), and Uploads.Write. That is every method of spaceblock.v1. The bytes of the request are
 * the same in each attempt, and so is the request_id; each sends the time that is left of the
 * call's own as its deadline. Any other answer is final.
 */
enum spb_client_mode {
    SPB_CLIENT_ONCE,   /* what was sent is not sent again */
    SPB_CLIENT_REPEAT, /* with backoff, within the call's time and the client's budget */
};

/* Told before a connection or a call is tried again. Everything is borrowed for the callback, in
 * which nothing may be done with the client. */
struct spb_client_notice {
    const char *endpoint;
    bool is_connection;          /* else a call that the daemon wants to be repeated later */
    int64_t delay_ms;            /* until then */
    const struct spb_error *why; /* what failed */
};
typedef void (*spb_client_notice_callback)(void *user, const struct spb_client_notice *notice);

struct spb_client_options {
    enum spb_client_mode mode;  /* of _start, _call and _invoke; REPEAT */
    int64_t connect_timeout_ms; /* of one attempt to connect, over all addresses; 10,000 */
    /* For how long after the opening the first connection is tried for, where connecting fails;
     * NO_TIMEOUT, the default: as long as calls wait for it. */
    int64_t first_connect_ms;
    int64_t deadline_ms; /* for everything, from the opening on; NO_TIMEOUT */
    /* A connection on which calls wait and nothing moves for so long is probed (Server.Ping), and
     * given up where nothing comes for as long again; NO_TIMEOUT: never. 15,000 */
    int64_t keepalive_ms;
    /* After the first failure in a row the delay is base (100), then twice that each time, up to
     * cap (5,000); of each a random part is taken off, up to jitter (50) percent. */
    int64_t backoff_base_ms, backoff_cap_ms;
    unsigned jitter_percent;
    /* The budget: at most burst (64) repetitions and a part (20 percent) of all calls. */
    unsigned retry_percent, retry_burst;
    spb_client_notice_callback notice; /* may be NULL */
    void *notice_user;
};

/* The defaults above. */
SPB_API void spb_client_options_init(struct spb_client_options *options);

/*
 * A client that connects when a call needs it, and anew after each loss. Blocks only while a host's
 * name is looked up, for connect_timeout_ms at most; later on a name is looked up again only inside
 * of the calls that block, _wait and _call, after all addresses failed. Options are copied.
 * SPB_INVALID: a malformed endpoint, or options that make no sense; SPB_UNREACHABLE: no such host.
 */
SPB_API SPB_MUST_USE spb_status spb_client_open_with(const char *endpoint,
                                                     const struct spb_client_options *options,
                                                     struct spb_client **client,
                                                     struct spb_error *err);

/* A call in full; what it points to is borrowed for spb_client_begin, but for user. */
struct spb_client_call {
    const char *service, *method;
    const void *payload; /* copied */
    size_t size;
    int64_t timeout_ms;        /* from now, over all attempts */
    enum spb_client_mode mode; /* with spb_client_open always ONCE */
    spb_client_callback callback;
    void *user;
};
/* As spb_client_start; SPB_DEADLINE once the client's own deadline has passed. */
SPB_API SPB_MUST_USE spb_status spb_client_begin(struct spb_client *client,
                                                 const struct spb_client_call *call,
                                                 struct spb_error *err);

/* ---- Driving ------------------------------------------------------------------------------ */

/* For a loop of the caller's own. A client that reconnects changes its descriptor: ask for it anew
 * after each spb_client_ready. -1: there is none now, and only the timeout counts. */
#define SPB_CLIENT_READ 1u
#define SPB_CLIENT_WRITE 2u
SPB_API int spb_client_fd(const struct spb_client *client);
SPB_API unsigned spb_client_wants(const struct spb_client *client);
/* Until spb_client_ready has something to do in any case; SPB_CLIENT_NO_TIMEOUT for never. */
SPB_API int64_t spb_client_timeout_ms(const struct spb_client *client);
/* Does what can be done now: connects, reads, writes, runs callbacks, ends calls past their
 * deadline. Of a client that does not reconnect, fails once the connection is lost; all its calls
 * have been ended then. Does not block. */
SPB_API SPB_MUST_USE spb_status spb_client_ready(struct spb_client *client, struct spb_error *err);
/* Polls and does the above until a callback ran, nothing is in flight, timeout_ms passed or a
 * signal's handler ran. */
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

/* Unpacks an answer's payload, with a bound on the memory that it may take; for who uses
 * spb_client_begin. what names the call in errors. SPB_PROTOCOL: it is no such message. *message is
 * the caller's, as above. Any thread. */
SPB_API SPB_MUST_USE spb_status spb_client_unpack(const char *what,
                                                  const struct ProtobufCMessageDescriptor *type,
                                                  const uint8_t *payload, size_t size,
                                                  struct ProtobufCMessage **message,
                                                  struct spb_error *err);

/* A fresh random request_id: 36 characters and a NUL. */
#define SPB_REQUEST_ID_SIZE 37
SPB_API SPB_MUST_USE spb_status spb_client_request_id(char id[SPB_REQUEST_ID_SIZE],
                                                      struct spb_error *err);

#ifdef __cplusplus
}
#endif
#endif
