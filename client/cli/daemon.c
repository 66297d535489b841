/* A client of the daemon and its calls; see daemon.h. */
#include "cli/daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"

bool cli_may_retry(const struct cli *cli)
{
    return cli_number(cli, CLI_OPT_RETRIES, CLI_RETRIES) > 0;
}

bool cli_is_verbose(const struct cli *cli)
{
    return cli_has(cli, CLI_OPT_VERBOSE) || isatty(STDERR_FILENO) == 1;
}

/* A progress bar may stand on the line. */
static void tell_retry(void *user, const struct spb_client_notice *notice)
{
    const struct cli *cli = user;

    if (!cli_is_verbose(cli))
        return;
    if (!cli_is_json(cli) && isatty(STDERR_FILENO) == 1)
        (void)fputs("\r\033[K", stderr);
    cli_note(cli, "%s %s in %lld.%lld s: %s", notice->is_connection ? "reconnecting to" : "asking",
             notice->endpoint, (long long)(notice->delay_ms / 1000),
             (long long)(notice->delay_ms % 1000 / 100), notice->why->text);
}

spb_status cli_daemon_open(struct cli *cli, struct cli_daemon *daemon, struct spb_error *err)
{
    const char *endpoint = cli_text_of(cli, CLI_OPT_ENDPOINT);
    int64_t timeout_ms = (int64_t)cli_number(cli, CLI_OPT_TIMEOUT, 0) * 1000;
    struct spb_client_options options;
    char usual[512];

    if (endpoint == NULL) {
        SPB_TRY(spb_client_usual_endpoint(usual, sizeof(usual), err));
        endpoint = usual;
    }
    spb_client_options_init(&options);
    options.mode = cli_may_retry(cli) ? SPB_CLIENT_REPEAT : SPB_CLIENT_ONCE;
    options.connect_timeout_ms = CLI_CONNECT_MS;
    options.first_connect_ms = timeout_ms > 0 ? SPB_CLIENT_NO_TIMEOUT : CLI_FIRST_CONNECT_MS;
    options.deadline_ms = timeout_ms > 0 ? timeout_ms : SPB_CLIENT_NO_TIMEOUT;
    options.retry_burst = (unsigned)cli_number(cli, CLI_OPT_RETRIES, CLI_RETRIES);
    options.notice = tell_retry;
    options.notice_user = cli;
    daemon->failure = &cli->failure;
    daemon->timeout_ms = timeout_ms;
    daemon->chunk_max = daemon->calls_max = 0;
    return spb_client_open_with(endpoint, &options, &daemon->client, err);
}

void cli_daemon_done(struct cli_daemon *daemon)
{
    spb_client_close(daemon->client);
    daemon->client = NULL;
}

spb_status cli_daemon_failed(struct cli_daemon *daemon, spb_status status, int32_t rpc_code,
                             const char *reason)
{
    *daemon->failure = (struct cli_failure){.rpc_code = rpc_code};
    (void)snprintf(daemon->failure->reason, sizeof(daemon->failure->reason), "%s", reason);
    return status;
}

/* ---- Calls --------------------------------------------------------------------------------- */

/* A call that is waited for; it lies on the stack of who waits until its callback ran. */
struct waiting {
    bool is_done, is_change;
    struct cli_daemon *daemon;
    const struct cli_method *method;
    ProtobufCMessage **reply;
    spb_status status;
    struct spb_error *err;
};

/* Those that change something have a request_id. */
static bool is_change(const ProtobufCMessage *request)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(request->descriptor, "request_id");

    if (field == NULL || field->type != PROTOBUF_C_TYPE_STRING)
        return false;
    const char *const *id = (const void *)((const char *)request + field->offset);
    return *id != NULL && (*id)[0] != '\0';
}

/* Does the daemon not know itself, or not yet, what became of a change? */
static bool is_undecided(const struct spb_client_reply *reply)
{
    return strcmp(reply->reason, "STILL_RUNNING") == 0 ||
           strcmp(reply->reason, "OUTCOME_UNKNOWN") == 0;
}

static void take_reply(void *user, const struct spb_client_reply *reply)
{
    struct waiting *waiting = user;

    waiting->is_done = true;
    waiting->status = reply->status;
    if (spb_is_ok(reply->status)) {
        waiting->status =
            spb_client_unpack(waiting->method->name, waiting->method->reply, reply->payload,
                              reply->payload_size, waiting->reply, waiting->err);
        return;
    }
    *waiting->err = *reply->error;
    (void)cli_daemon_failed(waiting->daemon, reply->status, reply->rpc_code, reply->reason);
    struct cli_failure *failure = waiting->daemon->failure;
    failure->is_unanswered = reply->rpc_code < 0 && reply->was_sent;
    failure->is_unknown = waiting->is_change && (failure->is_unanswered || is_undecided(reply));
}

static spb_status start(struct waiting *waiting, const ProtobufCMessage *request)
{
    const struct cli_method *method = waiting->method;
    size_t size = protobuf_c_message_get_packed_size(request);
    uint8_t *packed = malloc(size == 0 ? 1 : size);

    if (packed == NULL)
        return spb_fail_memory(waiting->err, "packing a request");
    (void)protobuf_c_message_pack(request, packed);
    spb_status status = spb_client_start(
        waiting->daemon->client, method->service, method->name, packed, size,
        cli_daemon_timeout(waiting->daemon, method->timeout_ms), take_reply, waiting, waiting->err);
    free(packed);
    return status;
}

static spb_status fail_interrupted(const struct cli_method *method, struct spb_error *err)
{
    return spb_fail(err, SPB_DEADLINE, "%s: interrupted", method->name);
}

static spb_status call(struct cli_daemon *daemon, const struct cli_method *method,
                       const ProtobufCMessage *request, bool is_last, ProtobufCMessage **reply,
                       struct spb_error *err)
{
    struct spb_error unused = {.code = SPB_OK};
    struct waiting waiting = {.is_change = is_change(request),
                              .daemon = daemon,
                              .method = method,
                              .reply = reply,
                              .status = spb_ok(),
                              .err = err != NULL ? err : &unused};

    *daemon->failure = (struct cli_failure){.rpc_code = 0};
    if (daemon->client == NULL)
        return fail_interrupted(method, err);
    SPB_TRY(start(&waiting, request));
    while (!waiting.is_done) {
        if (!is_last && cli_is_interrupted()) {
            cli_daemon_done(daemon); /* runs the callback */
            return fail_interrupted(method, err);
        }
        spb_status status = spb_client_wait(daemon->client, CLI_WAIT_MS, NULL);
        SPB_ASSERT(spb_is_ok(status));
    }
    return waiting.status;
}

spb_status cli_daemon_call(struct cli_daemon *daemon, const struct cli_method *method,
                           const ProtobufCMessage *request, ProtobufCMessage **reply,
                           struct spb_error *err)
{
    return call(daemon, method, request, false, reply, err);
}

spb_status cli_daemon_call_at_last(struct cli_daemon *daemon, const struct cli_method *method,
                                   const ProtobufCMessage *request, ProtobufCMessage **reply,
                                   struct spb_error *err)
{
    return call(daemon, method, request, true, reply, err);
}

spb_status cli_daemon_do(struct cli_daemon *daemon, const struct cli_method *method,
                         const ProtobufCMessage *request, struct spb_error *err)
{
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    return cli_daemon_call(daemon, method, request, &reply, err);
}

ProtobufCMessage *cli_message_copy(const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(size == 0 ? 1 : size);
    ProtobufCMessage *copy = NULL;

    if (packed != NULL) {
        (void)protobuf_c_message_pack(message, packed);
        copy = protobuf_c_message_unpack(message->descriptor, NULL, size, packed);
    }
    free(packed);
    return copy;
}

void cli_message_cleanup(ProtobufCMessage **message)
{
    if (*message != NULL)
        protobuf_c_message_free_unpacked(*message, NULL);
}

ProtobufCBinaryData cli_bytes(const void *data, size_t n)
{
    union {
        const void *given;
        uint8_t *wanted;
    } same = {.given = data};
    ProtobufCBinaryData bytes = {.len = n, .data = same.wanted};

    return bytes;
}

void cli_image_ref_fill(const struct cli_image_ref *image, Spaceblock__V1__ImageRef *ref)
{
    spaceblock__v1__image_ref__init(ref);
    if (image->has_tenant) {
        ref->if_tenant_case = SPACEBLOCK__V1__IMAGE_REF__IF_TENANT_TENANT;
        ref->tenant = image->tenant;
    }
    ref->name = cli_bytes(image->name, strlen(image->name));
}
