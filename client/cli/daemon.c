/* A connection to the daemon and its calls; see daemon.h. */
#include "cli/daemon.h"

#include <stdio.h>
#include <string.h>

spb_status cli_daemon_open(struct cli *cli, struct cli_daemon *daemon, struct spb_error *err)
{
    const char *endpoint = cli_text_of(cli, CLI_OPT_ENDPOINT);
    int64_t timeout_ms = (int64_t)cli_number(cli, CLI_OPT_TIMEOUT, 0) * 1000;
    char usual[512];

    if (endpoint == NULL) {
        SPB_TRY(spb_client_usual_endpoint(usual, sizeof(usual), err));
        endpoint = usual;
    }
    daemon->failure = &cli->failure;
    daemon->timeout_ms = timeout_ms;
    return spb_client_open(endpoint, cli_daemon_timeout(daemon, CLI_CONNECT_MS), &daemon->client,
                           err);
}

void cli_daemon_done(struct cli_daemon *daemon)
{
    spb_client_close(daemon->client);
    daemon->client = NULL;
}

spb_status cli_daemon_failed(struct cli_daemon *daemon, spb_status status, int32_t rpc_code,
                             const char *reason)
{
    daemon->failure->rpc_code = rpc_code;
    (void)snprintf(daemon->failure->reason, sizeof(daemon->failure->reason), "%s", reason);
    return status;
}

spb_status cli_daemon_call(struct cli_daemon *daemon, const struct cli_method *method,
                           const ProtobufCMessage *request, ProtobufCMessage **reply,
                           struct spb_error *err)
{
    struct spb_client_failure failure = {.rpc_code = 0};

    spb_status status =
        spb_client_invoke(daemon->client, method->service, method->name, request, method->reply,
                          cli_daemon_timeout(daemon, method->timeout_ms), reply, &failure, err);
    if (spb_is_ok(status))
        return status;
    return cli_daemon_failed(daemon, status, failure.rpc_code, failure.reason);
}

spb_status cli_daemon_do(struct cli_daemon *daemon, const struct cli_method *method,
                         const ProtobufCMessage *request, struct spb_error *err)
{
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    return cli_daemon_call(daemon, method, request, &reply, err);
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
