/* Endpoints in text: parsing, and the usual one. No state but the environment. */
#include "endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "spaceblock/client.h"

#define PORT_MAX 65535ul
#define USUAL_SOCKET "spaceblock/spaceblockd.sock"

static spb_status parse_unix(const char *text, const char *path, struct spb_endpoint *endpoint,
                             struct spb_error *err)
{
    size_t length = strlen(path);

    if (length == 0)
        return spb_fail(err, SPB_INVALID, "endpoint '%s' has no path, expected unix:PATH", text);
    if (length >= sizeof(endpoint->path))
        return spb_fail(err, SPB_INVALID,
                        "endpoint '%.80s...': path of %zu bytes, a socket's has at most %zu", text,
                        length, sizeof(endpoint->path) - 1);
    endpoint->is_unix = true;
    memcpy(endpoint->path, path, length + 1);
    return spb_ok();
}

static spb_status parse_port(const char *text, const char *port, struct spb_endpoint *endpoint,
                             struct spb_error *err)
{
    size_t digits = strspn(port, "0123456789");

    if (digits == 0 || digits >= sizeof(endpoint->port) || port[digits] != '\0' ||
        strtoul(port, NULL, 10) == 0 || strtoul(port, NULL, 10) > PORT_MAX)
        return spb_fail(err, SPB_INVALID, "endpoint '%.300s': port is '%.20s', expected 1 to 65535",
                        text, port);
    memcpy(endpoint->port, port, digits + 1);
    return spb_ok();
}

/* Host and port of HOST:PORT or [IPV6]:PORT; *port gets where the port begins. */
static spb_status parse_host(const char *text, const char *rest, struct spb_endpoint *endpoint,
                             const char **port, struct spb_error *err)
{
    bool is_literal = rest[0] == '[';
    const char *host = is_literal ? rest + 1 : rest;
    size_t length = strcspn(host, is_literal ? "]" : ":");
    const char *after = host + length;

    if (is_literal && *after == ']')
        after++;
    if (length == 0 || *after != ':' || (!is_literal && strchr(after + 1, ':') != NULL))
        return spb_fail(err, SPB_INVALID,
                        "endpoint '%.300s' is not tcp://HOST:PORT (an IPv6 address: [ADDRESS])",
                        text);
    if (length >= sizeof(endpoint->host) || memchr(host, '/', length) != NULL)
        return spb_fail(err, SPB_INVALID,
                        "endpoint '%.80s...': host of %zu bytes, expected a name or address of at "
                        "most %zu",
                        text, length, sizeof(endpoint->host) - 1);
    endpoint->is_literal = is_literal;
    memcpy(endpoint->host, host, length);
    endpoint->host[length] = '\0';
    *port = after + 1;
    return spb_ok();
}

spb_status spb_endpoint_parse(const char *text, struct spb_endpoint *endpoint,
                              struct spb_error *err)
{
    static const char unix_prefix[] = "unix:", tcp_prefix[] = "tcp://";
    struct spb_endpoint parsed = {.is_unix = false};
    const char *port = "";

    if (strncmp(text, unix_prefix, sizeof(unix_prefix) - 1) == 0) {
        SPB_TRY(parse_unix(text, text + sizeof(unix_prefix) - 1, &parsed, err));
    } else if (strncmp(text, tcp_prefix, sizeof(tcp_prefix) - 1) == 0) {
        SPB_TRY(parse_host(text, text + sizeof(tcp_prefix) - 1, &parsed, &port, err));
        SPB_TRY(parse_port(text, port, &parsed, err));
    } else {
        return spb_fail(err, SPB_INVALID, "endpoint '%.300s' begins with neither unix: nor tcp://",
                        text);
    }
    *endpoint = parsed;
    return spb_ok();
}

static spb_status print_endpoint(char *endpoint, size_t size, const char *before, const char *after,
                                 struct spb_error *err)
{
    size_t need = strlen(before) + strlen(after) + 1;

    if (need > size)
        return spb_fail(err, SPB_INVALID, "the usual endpoint needs %zu bytes, %zu were given",
                        need, size);
    (void)snprintf(endpoint, size, "%s%s", before, after);
    return spb_ok();
}

spb_status spb_client_usual_endpoint(char *endpoint, size_t size, struct spb_error *err)
{
    const char *chosen = getenv("SPACEBLOCK_ENDPOINT");

    if (chosen != NULL && chosen[0] != '\0')
        return print_endpoint(endpoint, size, chosen, "", err);
    if (geteuid() == 0)
        return print_endpoint(endpoint, size, "unix:/run/" USUAL_SOCKET, "", err);
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char folder[sizeof("unix:") + 4096];

    if (runtime == NULL || runtime[0] == '\0')
        return spb_fail(
            err, SPB_INVALID,
            "no usual endpoint: neither SPACEBLOCK_ENDPOINT nor XDG_RUNTIME_DIR is set");
    if (strlen(runtime) > 4096)
        return spb_fail(err, SPB_INVALID, "XDG_RUNTIME_DIR has %zu bytes, expected a path",
                        strlen(runtime));
    (void)snprintf(folder, sizeof(folder), "unix:%s", runtime);
    return print_endpoint(endpoint, size, folder, "/" USUAL_SOCKET, err);
}
