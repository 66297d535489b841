/* Making the connection. Runs on the thread of who opens a client, and blocks up to a deadline. */
#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/status.h"
#include "clock.h"

#define KEEPALIVE_IDLE_S 30
#define KEEPALIVE_PROBE_S 10
#define KEEPALIVE_PROBES 3
#define UNACKNOWLEDGED_MS 30000u
#define UNIX_BUFFER (1024 * 1024) /* bytes under way */

static spb_status fail_connect(const char *text, int number, struct spb_error *err)
{
    return spb_fail_errno(err, SPB_UNREACHABLE, number, "cannot connect to %.300s", text);
}

int spb_dial_outcome(int fd)
{
    int outcome = 0;
    socklen_t size = sizeof(outcome);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &outcome, &size) != 0)
        return errno;
    return outcome;
}

/* Ends a connection attempt that was begun: 0, or the errno of how it failed. */
static int await_connected(int fd, int64_t deadline_ns)
{
    struct pollfd wanted = {.fd = fd, .events = POLLOUT};

    for (;;) {
        int64_t now = spb_clock_ns();
        int ready = poll(&wanted, 1, spb_poll_timeout(deadline_ns, now));
        if (ready > 0)
            break;
        if (ready < 0 && errno != EINTR)
            return errno;
        if (ready == 0 && spb_clock_ns() >= deadline_ns)
            return ETIMEDOUT;
    }
    return spb_dial_outcome(fd);
}

/* A socket that does not take one of these serves all the same. */
void spb_dial_tune(int fd)
{
    const int one = 1, idle = KEEPALIVE_IDLE_S, gap = KEEPALIVE_PROBE_S, probes = KEEPALIVE_PROBES;
    const unsigned unacknowledged_ms = UNACKNOWLEDGED_MS;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &gap, sizeof(gap));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms,
                     sizeof(unacknowledged_ms));
}

int spb_dial_begin(const struct addrinfo *address, int *fd)
{
    int made = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (made < 0)
        return errno;
    int number = connect(made, address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;

    /* An interrupted attempt goes on in the kernel like one in progress. */
    if (number == EINTR)
        number = EINPROGRESS;
    if (number == 0 || number == EINPROGRESS)
        *fd = made;
    else
        (void)close(made);
    return number;
}

static int connect_address(const struct addrinfo *address, int64_t deadline_ns, int *fd)
{
    int made = -1;
    int number = spb_dial_begin(address, &made);

    if (number == EINPROGRESS) {
        number = await_connected(made, deadline_ns);
        if (number != 0)
            (void)close(made);
    }
    if (number != 0)
        return number;
    spb_dial_tune(made);
    *fd = made;
    return 0;
}

static int64_t share_of(int64_t deadline_ns, size_t addresses)
{
    int64_t now = spb_clock_ns();

    if (deadline_ns == SPB_NO_DEADLINE || deadline_ns <= now)
        return deadline_ns;
    return now + (deadline_ns - now) / (int64_t)addresses;
}

spb_status spb_dial_addresses(const char *text, const struct addrinfo *found, int64_t deadline_ns,
                              int *fd, struct spb_error *err)
{
    int number = EADDRNOTAVAIL;
    size_t left = 0;

    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
        left++;
    for (const struct addrinfo *at = found; at != NULL && number != 0; at = at->ai_next)
        number = connect_address(at, share_of(deadline_ns, left--), fd);
    return number == 0 ? spb_ok() : fail_connect(text, number, err);
}

static spb_status dial_tcp(const char *text, const struct spb_endpoint *endpoint,
                           int64_t deadline_ns, int *fd, struct spb_error *err)
{
    struct addrinfo *found;

    SPB_TRY(spb_resolve(text, endpoint, deadline_ns, &found, err));
    spb_status status = spb_dial_addresses(text, found, deadline_ns, fd, err);
    freeaddrinfo(found);
    return status;
}

/*
 * A listener whose queue is full makes a non-blocking connect fail at once, with nothing to poll
 * for. So this one blocks, and SO_SNDTIMEO bounds it.
 */
static int connect_unix(int fd, const struct sockaddr_un *address, int64_t deadline_ns)
{
    for (;;) {
        int64_t ms = spb_ms_until(deadline_ns, spb_clock_ns());
        if (ms == 0)
            ms = 1; /* 0 would mean no bound */
        struct timeval bound = {.tv_sec = ms < 0 ? 0 : ms / 1000,
                                .tv_usec = ms < 0 ? 0 : ms % 1000 * 1000};
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound)) != 0)
            return errno;
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            break;
        if (errno != EINTR)
            return errno == EAGAIN ? ETIMEDOUT : errno;
    }
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : errno;
}

static spb_status dial_unix(const char *text, const struct spb_endpoint *endpoint,
                            int64_t deadline_ns, int *fd, struct spb_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int buffer = UNIX_BUFFER;

    if (made < 0)
        return fail_connect(text, errno, err);
    /* As much as the system gives: it does not grow with the traffic, as TCP's does. */
    (void)setsockopt(made, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    memcpy(address.sun_path, endpoint->path, sizeof(address.sun_path));
    int number = connect_unix(made, &address, deadline_ns);
    if (number != 0) {
        (void)close(made);
        return fail_connect(text, number, err);
    }
    *fd = made;
    return spb_ok();
}

spb_status spb_dial(const char *text, const struct spb_endpoint *endpoint, int64_t deadline_ns,
                    int *fd, struct spb_error *err)
{
    if (endpoint->is_unix)
        return dial_unix(text, endpoint, deadline_ns, fd, err);
    return dial_tcp(text, endpoint, deadline_ns, fd, err);
}
