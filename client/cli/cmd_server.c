/* The family server: about the daemon itself. */
#include <inttypes.h>
#include <spaceblock/v1/server.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/daemon.h"
#include "cli/output.h"
#include "cli/text.h"

static void daemon_cleanup(struct cli_daemon *daemon)
{
    cli_daemon_done(daemon);
}
#define AUTO_DAEMON __attribute__((cleanup(daemon_cleanup)))

/* Connects; CLI_EXIT_OK, or the exit code of a printed error. */
static int connect_to(struct cli *cli, struct cli_daemon *daemon)
{
    struct spb_error err;

    if (spb_is_ok(cli_daemon_open(cli, daemon, &err)))
        return CLI_EXIT_OK;
    /* Only a malformed endpoint is invalid before the first call. */
    return err.code == SPB_INVALID ? cli_usage(cli, "%s", err.text) : cli_fail(cli, &err);
}

static void info_json(const Spaceblock__V1__ServerInfoResponse *info)
{
    json_t *root = cli_json_object(), *features = cli_json_array();

    for (size_t i = 0; i < info->n_features; i++) {
        size_t size;
        char *name = cli_text_utf8(info->features[i].data, info->features[i].len, &size);
        cli_json_append(features, name == NULL ? NULL : json_stringn(name, size));
        free(name);
    }
    cli_json_set_text(root, "version", info->version.data, info->version.len);
    cli_json_set(root, "features", features);
    cli_json_set_number(root, "uptime_seconds", info->uptime_seconds);
    cli_json_set_number(root, "image_count", info->image_count);
    cli_json_set_text(root, "principal", info->principal.data, info->principal.len);
    cli_json_set_number(root, "tenant", info->tenant);
    cli_json_set_number(root, "message_bytes_max", info->message_bytes_max);
    cli_json_set_number(root, "control_bytes_max", info->control_bytes_max);
    cli_json_set_number(root, "chunk_bytes_max", info->chunk_bytes_max);
    cli_json_set_number(root, "calls_in_flight_max", info->calls_in_flight_max);
    cli_json_set_number(root, "connections_max", info->connections_max);
    cli_json_set_number(root, "file_descriptor_set_bytes", info->file_descriptor_set.len);
    cli_json_print(root);
}

static void print_bytes(const char *label, const ProtobufCBinaryData *bytes)
{
    char *safe = cli_text_safe(bytes->data, bytes->len);

    printf("%s%s\n", label, safe == NULL ? "" : safe);
    free(safe);
}

static void info_text(const Spaceblock__V1__ServerInfoResponse *info)
{
    print_bytes("version      ", &info->version);
    for (size_t i = 0; i < info->n_features; i++)
        print_bytes("feature      ", &info->features[i]);
    printf("uptime       %" PRIu64 " s\n", info->uptime_seconds);
    printf("images       %" PRIu32 "\n", info->image_count);
    print_bytes("principal    ", &info->principal);
    printf("tenant       %" PRIu32 "\n", info->tenant);
    printf("connections  at most %" PRIu32 ", %" PRIu32 " calls in flight on each\n",
           info->connections_max, info->calls_in_flight_max);
    printf("messages     at most %" PRIu32 " bytes, of a call %" PRIu32 ", of a chunk %" PRIu32
           "\n",
           info->message_bytes_max, info->control_bytes_max, info->chunk_bytes_max);
}

int cli_run_server_info(struct cli *cli)
{
    static const struct cli_method method = {
        CLI_SERVICE_SERVER, "Info", &spaceblock__v1__server_info_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__ServerInfoRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    AUTO_DAEMON struct cli_daemon daemon = {.client = NULL};
    struct spb_error err;

    spaceblock__v1__server_info_request__init(&request);
    int code = connect_to(cli, &daemon);
    if (code != CLI_EXIT_OK)
        return code;
    if (!spb_is_ok(cli_daemon_call(&daemon, &method, &request.base, &reply, &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli))
        info_json((const void *)reply);
    else
        info_text((const void *)reply);
    return CLI_EXIT_OK;
}

static uint64_t now_us(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static spb_status ping(struct cli_daemon *daemon, uint64_t *took_us, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_SERVER, "Ping", &spaceblock__v1__ping_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__PingRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    char id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__ping_request__init(&request);
    /* As good a payload as any, and never the same twice. */
    SPB_TRY(spb_client_request_id(id, err));
    request.payload = cli_bytes(id, strlen(id));
    uint64_t start_us = now_us();
    SPB_TRY(cli_daemon_call(daemon, &method, &request.base, &reply, err));
    *took_us = now_us() - start_us;
    const Spaceblock__V1__PingResponse *answer = (const void *)reply;
    if (answer->payload.len != strlen(id) ||
        memcmp(answer->payload.data, id, answer->payload.len) != 0)
        return spb_fail(err, SPB_PROTOCOL, "pinging: the daemon sent back another payload");
    return spb_ok();
}

int cli_run_server_ping(struct cli *cli)
{
    AUTO_DAEMON struct cli_daemon daemon = {.client = NULL};
    struct spb_error err;
    uint64_t took_us = 0;

    int code = connect_to(cli, &daemon);
    if (code != CLI_EXIT_OK)
        return code;
    for (int i = 0; i < 2; i++) { /* the first one connects */
        if (!spb_is_ok(ping(&daemon, &took_us, &err)))
            return cli_fail(cli, &err);
    }
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_bool(root, "ok", true);
        cli_json_set_number(root, "round_trip_us", took_us);
        cli_json_print(root);
    } else {
        printf("answered in %" PRIu64 ".%03" PRIu64 " ms\n", took_us / 1000, took_us % 1000);
    }
    return CLI_EXIT_OK;
}
