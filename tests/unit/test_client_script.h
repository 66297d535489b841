/*
 * A daemon that follows a script, on a thread of the test: which requests it takes on how many
 * connections, and how it fails each. And a client that reconnects, quickly.
 */
#ifndef SPB_TESTS_UNIT_TEST_CLIENT_SCRIPT_H
#define SPB_TESTS_UNIT_TEST_CLIENT_SCRIPT_H

#include <time.h>

#include "google/rpc/error_details.pb-c.h"
#include "test_client_peer.h"

/* ---- A daemon that follows a script ------------------------------------------------------- */

enum act {
    ACT_END = 0,
    ACT_HANG_UP,    /* closes the connection, or accepts one and closes it */
    ACT_READ,       /* a request; no answer */
    ACT_ECHO,       /* a request, answered */
    ACT_DRAINING,   /* a request, answered UNAVAILABLE: come again in 30 ms */
    ACT_RUNNING,    /* a request, answered ABORTED, STILL_RUNNING */
    ACT_REFUSE,     /* a request, answered NOT_FOUND */
    ACT_RESET,      /* reads nothing and resets the connection */
    ACT_HALF_CLOSE, /* ends its side of the stream */
    ACT_GONE,       /* reads until the client ends the connection */
    ACT_PART,       /* a request, and the first bytes of an answer */
};

#define REQUESTS_MAX 16

struct script {
    struct peer peer;
    const enum act *acts;
    struct peer_request got[REQUESTS_MAX];
    size_t count; /* requests */
    size_t connections;
};

static inline int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline struct peer_request *script_read(struct script *script)
{
    cr_assert(script->count < REQUESTS_MAX);
    script->got[script->count] = peer_receive(&script->peer);
    return &script->got[script->count++];
}

static inline void script_refuse(struct script *script, int32_t code, const char *reason,
                                 int32_t retry_ms)
{
    struct spb_ttrpc_response response = {.code = code, .details_count = 1};
    struct peer_request *request = script_read(script);
    Google__Rpc__RetryInfo__Duration delay = GOOGLE__RPC__RETRY_INFO__DURATION__INIT;
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    Google__Rpc__ErrorInfo info;
    uint8_t packed[128], packed_retry[64];
    char copy[64];

    (void)snprintf(copy, sizeof(copy), "%s", reason);
    google__rpc__error_info__init(&info);
    info.reason = copy;
    response.message = peer_view("so it is");
    response.details[0].type_url = peer_view("type.googleapis.com/google.rpc.ErrorInfo");
    response.details[0].value.data = packed;
    response.details[0].value.size = google__rpc__error_info__pack(&info, packed);
    if (retry_ms >= 0) {
        delay.nanos = retry_ms * 1000000;
        retry.retry_delay = &delay;
        response.details[1].type_url = peer_view("type.googleapis.com/google.rpc.RetryInfo");
        response.details[1].value.data = packed_retry;
        response.details[1].value.size = google__rpc__retry_info__pack(&retry, packed_retry);
        response.details_count = 2;
    }
    peer_answer(&script->peer, request->header.stream, &response);
}

static inline void script_hang_up(struct script *script, bool is_reset)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    if (is_reset)
        cr_assert_eq(setsockopt(script->peer.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    peer_hang_up(&script->peer);
}

static inline void script_act(struct script *script, enum act act)
{
    const uint8_t part[] = {0, 0, 0, 9, 0, 0, 0, 1, 2, 0, 0x12};
    struct peer_request *request;
    uint8_t copy;

    switch (act) {
    case ACT_HANG_UP:
    case ACT_RESET:
        script_hang_up(script, act == ACT_RESET);
        return;
    case ACT_READ:
        (void)script_read(script);
        return;
    case ACT_ECHO:
        request = script_read(script);
        peer_answer_bytes(&script->peer, request->header.stream, request->request.payload.data,
                          request->request.payload.size);
        return;
    case ACT_DRAINING:
        script_refuse(script, 14, "DRAINING", 30);
        return;
    case ACT_RUNNING:
        script_refuse(script, 10, "STILL_RUNNING", -1);
        return;
    case ACT_REFUSE:
        script_refuse(script, 5, "NOT_FOUND", -1);
        return;
    case ACT_HALF_CLOSE:
        cr_assert_eq(shutdown(script->peer.fd, SHUT_WR), 0);
        return;
    case ACT_GONE:
        while (recv(script->peer.fd, &copy, 1, 0) > 0)
            ;
        script_hang_up(script, false);
        return;
    case ACT_PART:
        (void)script_read(script);
        peer_write(&script->peer, part, sizeof(part));
        return;
    case ACT_END:
        return;
    }
}

static inline void *run_script(void *user)
{
    struct script *script = user;

    for (const enum act *act = script->acts; *act != ACT_END; act++) {
        if (script->peer.fd < 0) {
            peer_accept(&script->peer);
            script->connections++;
        }
        script_act(script, *act);
    }
    return NULL;
}

static inline void script_start(struct script *script, struct peer peer, const enum act *acts)
{
    *script = (struct script){.peer = peer, .acts = acts};
    cr_assert_eq(pthread_create(&script->peer.thread, NULL, run_script, script), 0);
}

static inline void script_end(struct script *script)
{
    cr_assert_eq(pthread_join(script->peer.thread, NULL), 0);
    for (size_t i = 0; i < script->count; i++)
        free(script->got[i].data);
    peer_done(&script->peer);
}

/* ---- Clients ------------------------------------------------------------------------------ */

static inline struct spb_client_options quick(void)
{
    struct spb_client_options options;

    spb_client_options_init(&options);
    options.backoff_base_ms = 2;
    options.backoff_cap_ms = 20;
    return options;
}

static inline struct spb_client *open_with(const char *endpoint,
                                           const struct spb_client_options *options)
{
    struct spb_client *client;
    struct spb_error err;
    spb_status status = spb_client_open_with(endpoint, options, &client, &err);

    cr_assert(spb_is_ok(status), "%s", err.text);
    return client;
}

struct result {
    spb_status status;
    struct spb_client_failure failure;
    struct spb_error err;
    char payload[64];
    int64_t took_ms;
};

static inline struct result call(struct spb_client *client, const char *payload, int64_t timeout_ms)
{
    struct result result = {.failure = {.rpc_code = 99}};
    uint8_t *reply = NULL;
    size_t size = 0;
    int64_t begin = now_ms();

    result.status = spb_client_call(client, "test.Echo", "Say", payload, strlen(payload),
                                    timeout_ms, &reply, &size, &result.failure, &result.err);
    result.took_ms = now_ms() - begin;
    if (spb_is_ok(result.status))
        (void)snprintf(result.payload, sizeof(result.payload), "%.*s", (int)size,
                       (const char *)reply);
    free(reply);
    return result;
}

/* Opens, calls, closes. */
static inline struct result call_by(struct script *script, const struct spb_client_options *options,
                                    int64_t timeout_ms)
{
    struct spb_client *client = open_with(script->peer.endpoint, options);
    struct result result = call(client, "hello", timeout_ms);

    spb_client_close(client);
    return result;
}

#endif
