/* RESP connection of the peer's load generator. See resp.h. */
#include "resp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static int connect_tcp(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    if (fd >= 0 && (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

bool resp_open(struct resp *resp, const char *endpoint)
{
    static const char tcp[] = "tcp://127.0.0.1:";

    memset(resp, 0, sizeof *resp);
    if (strncmp(endpoint, "unix:", 5) == 0) {
        resp->fd = connect_unix(endpoint + 5);
    } else if (strncmp(endpoint, tcp, sizeof tcp - 1u) == 0) {
        resp->fd = connect_tcp(endpoint + sizeof tcp - 1u);
    } else {
        resp->fd = -1;
        errno = EINVAL;
    }
    if (resp->fd < 0 || fcntl(resp->fd, F_SETFL, O_NONBLOCK) != 0)
        return false;
    resp->out = malloc(RESP_BUFFER);
    resp->in = malloc(RESP_BUFFER);
    return resp->out != NULL && resp->in != NULL;
}

void resp_close(struct resp *resp)
{
    if (resp->fd >= 0)
        (void)close(resp->fd);
    free(resp->out);
    free(resp->in);
}

bool resp_send(struct resp *resp, const void *command, size_t size)
{
    if (resp->out_sent == resp->out_used)
        resp->out_sent = resp->out_used = 0;
    if (RESP_BUFFER - resp->out_used < size)
        return false;
    memcpy(resp->out + resp->out_used, command, size);
    resp->out_used += size;
    return true;
}

bool resp_wants_write(const struct resp *resp)
{
    return resp->out_sent < resp->out_used;
}

static bool is_passing(ssize_t n)
{
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

bool resp_ready(struct resp *resp)
{
    ssize_t n;

    if (resp_wants_write(resp)) {
        n = send(resp->fd, resp->out + resp->out_sent, resp->out_used - resp->out_sent,
                 MSG_NOSIGNAL);
        if (n < 0 && !is_passing(n))
            return false;
        resp->out_sent += n > 0 ? (size_t)n : 0u;
    }
    memmove(resp->in, resp->in + resp->in_parsed, resp->in_used - resp->in_parsed);
    resp->in_used -= resp->in_parsed;
    resp->in_parsed = 0;
    n = recv(resp->fd, resp->in + resp->in_used, RESP_BUFFER - resp->in_used, 0);
    if (n == 0 || (n < 0 && !is_passing(n)))
        return false;
    resp->in_used += n > 0 ? (size_t)n : 0u;
    return true;
}

/* The bulk string whose head ends at `after`. */
static enum resp_kind take_bulk(struct resp *resp, const char *head, const char *after,
                                const char **text, size_t *size)
{
    long length = strtol(head + 1, NULL, 10);
    size_t left = resp->in_used - (size_t)((const uint8_t *)after - resp->in);

    if (length < 0) {
        resp->in_parsed = (size_t)((const uint8_t *)after - resp->in);
        return RESP_NULL;
    }
    if ((size_t)length > RESP_BUFFER / 2u)
        return RESP_BAD;
    if (left < (size_t)length + 2u)
        return RESP_NONE;
    *text = after;
    *size = (size_t)length;
    resp->in_parsed = (size_t)((const uint8_t *)after - resp->in) + (size_t)length + 2u;
    return RESP_BULK;
}

enum resp_kind resp_next(struct resp *resp, const char **text, size_t *size)
{
    const char *head = (const char *)resp->in + resp->in_parsed;
    size_t left = resp->in_used - resp->in_parsed;
    const char *end = memmem(head, left, "\r\n", 2);

    if (end == NULL)
        return RESP_NONE;
    if (*head == '$')
        return take_bulk(resp, head, end + 2, text, size);
    *text = head + 1;
    *size = (size_t)(end - head) - 1u;
    resp->in_parsed += *size + 3u;
    if (*head == '+')
        return RESP_SIMPLE;
    return *head == '-' ? RESP_ERROR : RESP_BAD;
}
