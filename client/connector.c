/*
 * Making a connection without blocking. See connector.h.
 *
 * A unix socket whose listener's queue is full refuses at once with EAGAIN, and nothing can be
 * polled for: it is asked again after a short while, until the time is up.
 */
#include "connector.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/status.h"
#include "clock.h"
#include "dial.h"

#define ASK_AGAIN_NS (10 * SPB_NS_PER_MS)

static bool is_name(const struct spb_endpoint *endpoint)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *found;

    if (endpoint->is_unix || endpoint->is_literal)
        return false;
    if (getaddrinfo(endpoint->host, NULL, &hints, &found) != 0)
        return true;
    freeaddrinfo(found);
    return false;
}

void spb_connector_init(struct spb_connector *connector, const char *text,
                        const struct spb_endpoint *endpoint, struct addrinfo *found)
{
    *connector = (struct spb_connector){.endpoint = *endpoint,
                                        .text = text,
                                        .has_name = is_name(endpoint),
                                        .found = found,
                                        .fd = -1,
                                        .turn_ns = SPB_NO_DEADLINE};
}

void spb_connector_abandon(struct spb_connector *connector)
{
    if (connector->fd >= 0)
        (void)close(connector->fd);
    connector->fd = -1;
    connector->turn_ns = SPB_NO_DEADLINE;
}

void spb_connector_set_addresses(struct spb_connector *connector, struct addrinfo *found)
{
    if (connector->found != NULL)
        freeaddrinfo(connector->found);
    connector->found = found;
    connector->at = NULL;
}

void spb_connector_done(struct spb_connector *connector)
{
    spb_connector_abandon(connector);
    spb_connector_set_addresses(connector, NULL);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static enum spb_connector_event fail(struct spb_connector *connector, int number,
                                     struct spb_error *err)
{
    spb_connector_abandon(connector);
    (void)spb_fail_errno(err, SPB_UNREACHABLE, number, "cannot connect to %.300s", connector->text);
    return SPB_CONNECT_FAILED;
}

static enum spb_connector_event done(struct spb_connector *connector)
{
    connector->turn_ns = SPB_NO_DEADLINE;
    return SPB_CONNECT_DONE;
}

/* ---- Unix sockets ------------------------------------------------------------------------- */

static enum spb_connector_event try_unix(struct spb_connector *connector, int64_t now_ns,
                                         struct spb_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int number = 0;

    memcpy(address.sun_path, connector->endpoint.path, sizeof(address.sun_path));
    if (connector->fd < 0)
        connector->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connector->fd < 0)
        return fail(connector, errno, err);
    do
        number =
            connect(connector->fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
    while (number == EINTR);
    if (number == 0)
        return done(connector);
    if (number != EAGAIN)
        return fail(connector, number, err);
    if (now_ns >= connector->deadline_ns)
        return fail(connector, ETIMEDOUT, err);
    connector->turn_ns = earlier(now_ns + ASK_AGAIN_NS, connector->deadline_ns);
    return SPB_CONNECT_GOES_ON;
}

/* ---- TCP ---------------------------------------------------------------------------------- */

static int64_t share(const struct spb_connector *connector, int64_t now_ns)
{
    int64_t addresses = 0;

    if (connector->deadline_ns == SPB_NO_DEADLINE || connector->deadline_ns <= now_ns)
        return connector->deadline_ns;
    for (const struct addrinfo *at = connector->at; at != NULL; at = at->ai_next)
        addresses++;
    SPB_ASSERT(addresses > 0);
    return now_ns + (connector->deadline_ns - now_ns) / addresses;
}

/* From the address at hand on, the first that does not fail at once. */
static enum spb_connector_event try_addresses(struct spb_connector *connector, int64_t now_ns,
                                              struct spb_error *err)
{
    for (; connector->at != NULL; connector->at = connector->at->ai_next) {
        int number = spb_dial_begin(connector->at, &connector->fd);
        if (number == 0)
            return done(connector);
        if (number == EINPROGRESS) {
            connector->turn_ns = share(connector, now_ns);
            return SPB_CONNECT_GOES_ON;
        }
        connector->last_errno = number;
    }
    return fail(connector, connector->last_errno, err);
}

static enum spb_connector_event step_tcp(struct spb_connector *connector, int64_t now_ns,
                                         struct spb_error *err)
{
    struct pollfd wanted = {.fd = connector->fd, .events = POLLOUT};
    int number = 0;

    if (poll(&wanted, 1, 0) == 0) {
        if (now_ns < connector->turn_ns)
            return SPB_CONNECT_GOES_ON;
        number = ETIMEDOUT;
    } else {
        number = spb_dial_outcome(connector->fd);
    }
    if (number == 0)
        return done(connector);
    spb_connector_abandon(connector);
    connector->last_errno = number;
    connector->at = connector->at->ai_next;
    return try_addresses(connector, now_ns, err);
}

/* ---- Both --------------------------------------------------------------------------------- */

enum spb_connector_event spb_connector_begin(struct spb_connector *connector, int64_t now_ns,
                                             int64_t deadline_ns, struct spb_error *err)
{
    SPB_ASSERT(connector->fd < 0);
    connector->deadline_ns = deadline_ns;
    if (connector->endpoint.is_unix)
        return try_unix(connector, now_ns, err);
    connector->at = connector->found;
    connector->last_errno = EADDRNOTAVAIL;
    return try_addresses(connector, now_ns, err);
}

enum spb_connector_event spb_connector_step(struct spb_connector *connector, int64_t now_ns,
                                            struct spb_error *err)
{
    if (connector->endpoint.is_unix)
        return now_ns < connector->turn_ns ? SPB_CONNECT_GOES_ON : try_unix(connector, now_ns, err);
    return step_tcp(connector, now_ns, err);
}

int spb_connector_take(struct spb_connector *connector)
{
    int fd = connector->fd;

    SPB_ASSERT(fd >= 0);
    if (!connector->endpoint.is_unix)
        spb_dial_tune(fd);
    connector->fd = -1;
    return fd;
}
