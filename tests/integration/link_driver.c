/*
 * Calls of the client library on request, for tests of bad links: one process for thousands of
 * calls. Each line of standard input is "TIMEOUT_MS SERVICE METHOD PAYLOAD-IN-HEX"; it is called
 * over a client of its own, and answered with "ok PAYLOAD-IN-HEX" or
 * "failed CODE RPC_CODE REASON TEXT", REASON "-" for none. One thread.
 *
 * Usage: link_driver ENDPOINT KEEPALIVE_MS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spaceblock/client.h"

#define LINE_SIZE 65536
#define PAYLOAD_SIZE (LINE_SIZE / 2)

static size_t from_hex(const char *hex, uint8_t *bytes)
{
    size_t n = 0;
    unsigned value;

    for (; sscanf(hex + 2 * n, "%2x", &value) == 1 && n < PAYLOAD_SIZE; n++)
        bytes[n] = (uint8_t)value;
    return n;
}

static void print_reply(const uint8_t *reply, size_t size)
{
    printf("ok ");
    for (size_t i = 0; i < size; i++)
        printf("%02x", reply[i]);
    printf("\n");
}

static struct spb_client *open_client(const char *endpoint, int64_t keepalive_ms)
{
    struct spb_client_options options;
    struct spb_client *client;
    struct spb_error err;

    spb_client_options_init(&options);
    options.backoff_base_ms = 1;
    options.backoff_cap_ms = 8;
    options.keepalive_ms = keepalive_ms;
    if (spb_is_ok(spb_client_open_with(endpoint, &options, &client, &err)))
        return client;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

static void run(struct spb_client *client, char *line)
{
    static uint8_t payload[PAYLOAD_SIZE];
    char service[128], method[64];
    struct spb_client_failure failure;
    struct spb_error err;
    long timeout_ms;
    int used = 0;
    uint8_t *reply;
    size_t size;

    if (sscanf(line, "%ld %127s %63s %n", &timeout_ms, service, method, &used) != 3) {
        fprintf(stderr, "a line that is no call: %s\n", line);
        exit(1);
    }
    spb_status status =
        spb_client_call(client, service, method, payload, from_hex(line + used, payload),
                        timeout_ms, &reply, &size, &failure, &err);
    if (spb_is_ok(status)) {
        print_reply(reply, size);
        free(reply);
    } else {
        printf("failed %s %d %s %s\n", spb_code_name(status.code), (int)failure.rpc_code,
               failure.reason[0] == '\0' ? "-" : failure.reason, err.text);
    }
}

int main(int argc, char **argv)
{
    static char line[LINE_SIZE];

    if (argc != 3) {
        fprintf(stderr, "usage: link_driver ENDPOINT KEEPALIVE_MS\n");
        return 2;
    }
    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct spb_client *client = open_client(argv[1], strtol(argv[2], NULL, 10));
        run(client, line);
        spb_client_close(client);
        fflush(stdout);
    }
    return 0;
}
