/*
 * The synchronous call: an asynchronous one and a wait. Blocks; the client's thread.
 *
 * The call's record lies on this stack until its callback ran, so the wait does not end before:
 * every way in which waiting can fail has ended all calls.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "client_state.h"

struct sync_call {
    bool is_done;
    spb_status status;
    uint8_t *reply; /* owned; set on success only */
    size_t reply_size;
    struct spb_client_failure failure;
    struct spb_error *err; /* the caller's; may be NULL */
};

static spb_status keep_payload(struct sync_call *call, const struct spb_client_reply *reply)
{
    /* One byte at least, so that an empty reply is not NULL. */
    uint8_t *copy = malloc(reply->payload_size == 0 ? 1 : reply->payload_size);

    if (copy == NULL)
        return spb_fail_memory(call->err, "keeping an answer");
    if (reply->payload_size > 0)
        memcpy(copy, reply->payload, reply->payload_size);
    call->reply = copy;
    call->reply_size = reply->payload_size;
    return spb_ok();
}

static void take_reply(void *user, const struct spb_client_reply *reply)
{
    struct sync_call *call = user;

    call->is_done = true;
    call->status = reply->status;
    call->failure.rpc_code = reply->rpc_code;
    memcpy(call->failure.reason, reply->reason, sizeof(call->failure.reason));
    if (spb_is_ok(reply->status))
        call->status = keep_payload(call, reply);
    else if (call->err != NULL)
        *call->err = *reply->error;
}

static spb_status run(struct spb_client *client, struct sync_call *call, const char *service,
                      const char *method, const void *payload, size_t size, int64_t timeout_ms)
{
    if (spb_client_is_in_callback(client))
        return spb_fail(call->err, SPB_INVALID,
                        "%s/%s: a callback can start calls, but not wait for one", service, method);
    SPB_TRY(spb_client_start(client, service, method, payload, size, timeout_ms, take_reply, call,
                             call->err));
    while (!call->is_done) {
        spb_status status = spb_client_wait(client, SPB_CLIENT_NO_TIMEOUT, NULL);
        SPB_ASSERT(spb_is_ok(status) || call->is_done);
    }
    return call->status;
}

spb_status spb_client_call(struct spb_client *client, const char *service, const char *method,
                           const void *payload, size_t size, int64_t timeout_ms, uint8_t **reply,
                           size_t *reply_size, struct spb_client_failure *failure,
                           struct spb_error *err)
{
    struct sync_call call = {.failure = {.rpc_code = -1}, .err = err};
    spb_status status = run(client, &call, service, method, payload, size, timeout_ms);

    if (!spb_is_ok(status)) {
        if (failure != NULL)
            *failure = call.failure;
        return status;
    }
    *reply = call.reply;
    *reply_size = call.reply_size;
    return status;
}
