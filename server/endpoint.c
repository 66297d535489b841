/* Where the daemon listens; see endpoint.h. */
#include "endpoint.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

#define UNIX_PREFIX "unix:"
#define TCP_PREFIX "tcp://"
#define HOST_SIZE 64u

static spb_status parse_unix(const char *path, struct spb_endpoint *endpoint, struct spb_error *err)
{
    struct spb_endpoint made = {.length = sizeof(made.address.local)};
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof(made.address.local.sun_path))
        return spb_fail(err, SPB_INVALID,
                        "endpoint unix:%s: the path has %zu bytes, expected 1 to %zu", path, n,
                        sizeof(made.address.local.sun_path) - 1);
    made.address.local.sun_family = AF_UNIX;
    memcpy(made.address.local.sun_path, path, n);
    *endpoint = made;
    return spb_ok();
}

static spb_status parse_port(const char *text, const char *whole, in_port_t *port,
                             struct spb_error *err)
{
    unsigned long number = 0;
    size_t n = strlen(text);

    if (n > 0 && n <= 5 && strspn(text, "0123456789") == n)
        number = strtoul(text, NULL, 10);
    else
        number = 65536;
    if (number > 65535)
        return spb_fail(err, SPB_INVALID, "endpoint %s: the port is \"%s\", expected 0 to 65535",
                        whole, text);
    *port = htons((in_port_t)number);
    return spb_ok();
}

static spb_status not_loopback(const char *whole, const char *host, struct spb_error *err)
{
    return spb_fail(err, SPB_INVALID,
                    "endpoint %s: the host is \"%s\", expected a loopback address (127.0.0.0/8, "
                    "[::1] or localhost), for plaintext TCP stays on this host",
                    whole, host);
}

static spb_status set_host(const char *host, const char *whole, in_port_t port,
                           struct spb_endpoint *endpoint, struct spb_error *err)
{
    struct spb_endpoint made = {.length = 0};
    struct in_addr v4;

    if (strcmp(host, "[::1]") == 0) {
        made.length = sizeof(made.address.v6);
        made.address.v6.sin6_family = AF_INET6;
        made.address.v6.sin6_port = port;
        made.address.v6.sin6_addr = in6addr_loopback;
        *endpoint = made;
        return spb_ok();
    }
    if (strcmp(host, "localhost") == 0)
        v4.s_addr = htonl(INADDR_LOOPBACK);
    else if (inet_pton(AF_INET, host, &v4) != 1 || ntohl(v4.s_addr) >> 24 != 127)
        return not_loopback(whole, host, err);
    made.length = sizeof(made.address.v4);
    made.address.v4.sin_family = AF_INET;
    made.address.v4.sin_port = port;
    made.address.v4.sin_addr = v4;
    *endpoint = made;
    return spb_ok();
}

static spb_status parse_tcp(const char *text, struct spb_endpoint *endpoint, struct spb_error *err)
{
    const char *rest = text + strlen(TCP_PREFIX);
    const char *colon = strrchr(rest, ':');
    char host[HOST_SIZE];
    in_port_t port = 0;

    if (colon == NULL || colon == rest || (size_t)(colon - rest) >= sizeof(host))
        return spb_fail(err, SPB_INVALID, "endpoint %s: expected tcp://HOST:PORT", text);
    memcpy(host, rest, (size_t)(colon - rest));
    host[colon - rest] = '\0';
    SPB_TRY(parse_port(colon + 1, text, &port, err));
    return set_host(host, text, port, endpoint, err);
}

spb_status spb_endpoint_parse(const char *text, struct spb_endpoint *endpoint,
                              struct spb_error *err)
{
    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return parse_unix(text + strlen(UNIX_PREFIX), endpoint, err);
    if (strncmp(text, TCP_PREFIX, strlen(TCP_PREFIX)) == 0)
        return parse_tcp(text, endpoint, err);
    return spb_fail(err, SPB_INVALID, "endpoint \"%s\": expected unix:PATH or tcp://127.0.0.1:PORT",
                    text);
}

spb_status spb_endpoint_parse_loopback(const char *text, struct spb_endpoint *endpoint,
                                       struct spb_error *err)
{
    char whole[SPB_ENDPOINT_TEXT_SIZE];
    int n = snprintf(whole, sizeof(whole), TCP_PREFIX "%s", text);

    if (n < 0 || (size_t)n >= sizeof(whole))
        return spb_fail(err, SPB_INVALID, "found \"%.64s...\", expected HOST:PORT", text);
    return parse_tcp(whole, endpoint, err);
}

void spb_endpoint_show(const struct spb_endpoint *endpoint, char text[SPB_ENDPOINT_TEXT_SIZE])
{
    char host[INET_ADDRSTRLEN] = "?";

    switch (endpoint->address.any.sa_family) {
    case AF_UNIX:
        (void)snprintf(text, SPB_ENDPOINT_TEXT_SIZE, UNIX_PREFIX "%s",
                       endpoint->address.local.sun_path);
        break;
    case AF_INET6:
        (void)snprintf(text, SPB_ENDPOINT_TEXT_SIZE, TCP_PREFIX "[::1]:%u",
                       (unsigned)ntohs(endpoint->address.v6.sin6_port));
        break;
    default:
        (void)inet_ntop(AF_INET, &endpoint->address.v4.sin_addr, host, sizeof(host));
        (void)snprintf(text, SPB_ENDPOINT_TEXT_SIZE, TCP_PREFIX "%s:%u", host,
                       (unsigned)ntohs(endpoint->address.v4.sin_port));
        break;
    }
}

spb_status spb_endpoint_usual(struct spb_endpoint *endpoint, struct spb_error *err)
{
    char path[512];
    const char *folder = "/run";

    if (geteuid() != 0)
        folder = getenv("XDG_RUNTIME_DIR");
    if (folder == NULL || *folder == '\0')
        return spb_fail(err, SPB_INVALID,
                        "naming the usual socket: XDG_RUNTIME_DIR is not set; give --listen");
    (void)snprintf(path, sizeof(path), "%s/spaceblock/spaceblockd.sock", folder);
    return parse_unix(path, endpoint, err);
}
