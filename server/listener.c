/*
 * Listening sockets; see listener.h.
 *
 * Descriptors. Connections do not take the last ones: one whose number falls into the reserve is
 * closed again, so that images can be opened and files be made whatever peers do. Where descriptors
 * run out all the same (others in the process took them, or the system has no more), a spare one is
 * given up to take the waiting connection and close it, so that its peer learns. In both cases the
 * listener rests for a while, for its event would fire without end; and it takes up its work only
 * with a spare in hand.
 */
#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/status.h"
#include "conn.h"
#include "daemon.h"
#include "loop.h"
#include "util.h"

#define ACCEPTS_A_TURN 64
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_PROBES 3

struct listener {
    struct spb_listeners *all;
    struct spb_endpoint bound;
    int fd; /* -1: not open */
    struct event *readable, *rest;
    bool has_file; /* a socket file that we made */
    dev_t device;
    ino_t inode;
};

struct spb_listeners {
    struct spb_daemon *daemon;
    int spare_fd; /* -1: it could not be had again yet */
    rlim_t descriptors;
    size_t count;
    struct listener listeners[SPB_LISTEN_MAX];
};

/* ---- Taking connections ------------------------------------------------------------------- */

static void set_option(int fd, int level, int name, int value)
{
    /* All of them are tuning: a connection works without. */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

static void tune_tcp(const struct spb_daemon *daemon, int fd)
{
    unsigned timeout_ms = (unsigned)SPB_LIMIT(daemon, tcp_user_timeout_ms);

    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)SPB_LIMIT(daemon, tcp_keepalive_s));
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

/* Who is at the other end. False where the kernel does not say. */
static bool identify(const struct listener *listener, int fd, struct spb_principal *principal)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    *principal = (struct spb_principal){.tenant = 1, .is_site_admin = true};
    if (listener->bound.address.any.sa_family != AF_UNIX) {
        principal->kind = SPB_PRINCIPAL_LOCAL;
        (void)snprintf(principal->name, sizeof(principal->name), "local");
        return true;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return false;
    principal->kind = SPB_PRINCIPAL_UID;
    principal->uid = peer.uid;
    (void)snprintf(principal->name, sizeof(principal->name), "uid:%u", (unsigned)peer.uid);
    return true;
}

static void take_connection(struct listener *listener, int fd)
{
    struct spb_daemon *daemon = listener->all->daemon;
    struct spb_principal principal;

    if (!identify(listener, fd, &principal)) {
        spb_conns_note_refusal(daemon->conns, SPB_REFUSED_PEER, "the peer's user is not known");
        (void)close(fd);
        return;
    }
    if (principal.kind == SPB_PRINCIPAL_LOCAL)
        tune_tcp(daemon, fd);
    spb_conns_adopt(daemon->conns, fd, &principal);
}

/* ---- Running out of descriptors ----------------------------------------------------------- */

static void rest(struct listener *listener)
{
    uint64_t ms = SPB_LIMIT(listener->all->daemon, accept_rest_ms);
    struct timeval pause = {.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    (void)event_del(listener->readable);
    (void)event_add(listener->rest, &pause);
}

static bool has_spare(struct spb_listeners *all)
{
    if (all->spare_fd < 0)
        all->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return all->spare_fd >= 0;
}

static void on_rested(evutil_socket_t fd, short what, void *user)
{
    struct listener *listener = user;

    (void)fd;
    (void)what;
    if (has_spare(listener->all))
        (void)event_add(listener->readable, NULL);
    else
        rest(listener);
}

/* errno says why none was to be had. */
static void out_of_descriptors(struct listener *listener)
{
    struct spb_listeners *all = listener->all;

    spb_conns_note_refusal(all->daemon->conns, SPB_REFUSED_DESCRIPTORS, strerror(errno));
    if (all->spare_fd >= 0) {
        (void)close(all->spare_fd);
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            (void)close(fd);
        all->spare_fd = -1;
        (void)has_spare(all);
    }
    rest(listener);
}

/* The kernel gives the lowest number that is free: a high one says how many are in use. */
static bool is_of_reserve(const struct spb_listeners *all, int fd)
{
    uint64_t reserve = SPB_LIMIT(all->daemon, descriptors_reserve);

    return (uint64_t)fd + reserve >= all->descriptors;
}

static void on_connection(evutil_socket_t fd, short what, void *user)
{
    struct listener *listener = user;

    (void)what;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int taken = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (taken >= 0 && is_of_reserve(listener->all, taken)) {
            (void)close(taken);
            spb_conns_note_refusal(listener->all->daemon->conns, SPB_REFUSED_DESCRIPTORS,
                                   "only the reserve of descriptors is left");
            rest(listener);
            return;
        }
        if (taken >= 0) {
            take_connection(listener, taken);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            out_of_descriptors(listener);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

/* ---- Binding ------------------------------------------------------------------------------ */

/* Whether somebody answers at the socket file; *number says what happened otherwise. */
static bool is_alive(const struct spb_endpoint *endpoint, int *number)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        *number = errno;
        return false;
    }
    bool connected = connect(fd, &endpoint->address.any, endpoint->length) == 0;
    *number = connected ? 0 : errno;
    (void)close(fd);
    return connected || *number == EAGAIN; /* a full backlog is somebody's */
}

/* Makes way for binding: only what nobody listens on is removed. */
static spb_status clear_path(const struct spb_endpoint *endpoint, struct spb_error *err)
{
    const char *path = endpoint->address.local.sun_path;
    struct stat st;
    int number = 0;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? spb_ok()
                               : spb_fail_errno(err, SPB_IO, errno, "listening at unix:%s", path);
    if (!S_ISSOCK(st.st_mode))
        return spb_fail(err, SPB_EXISTS, "listening at unix:%s: there is a file that is no socket",
                        path);
    if (is_alive(endpoint, &number))
        return spb_fail(err, SPB_IN_USE, "listening at unix:%s: another process does", path);
    if (number != ECONNREFUSED)
        return spb_fail_errno(err, SPB_IO, number, "listening at unix:%s: looking who is there",
                              path);
    if (unlink(path) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "removing the stale socket %s", path);
    return spb_ok();
}

static spb_status make_usual_folder(const struct spb_endpoint *endpoint, struct spb_error *err)
{
    char folder[sizeof(endpoint->address.local.sun_path)];

    (void)snprintf(folder, sizeof(folder), "%s", endpoint->address.local.sun_path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        return spb_ok();
    *slash = '\0';
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return spb_fail_errno(err, SPB_IO, errno, "making the folder %s of the usual socket",
                              folder);
    return spb_ok();
}

/* Binds with mode 0600 from the first moment on: the file takes it over from the socket. */
static bool bind_socket(struct listener *listener, bool is_unix)
{
    struct stat st;

    if (is_unix && fchmod(listener->fd, 0600) != 0)
        return false;
    if (!is_unix)
        set_option(listener->fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(listener->fd, &listener->bound.address.any, listener->bound.length) != 0)
        return false;
    if (is_unix && lstat(listener->bound.address.local.sun_path, &st) == 0) {
        listener->has_file = true;
        listener->device = st.st_dev;
        listener->inode = st.st_ino;
    }
    return listen(listener->fd, SOMAXCONN) == 0 &&
           (is_unix ||
            getsockname(listener->fd, &listener->bound.address.any, &listener->bound.length) == 0);
}

static spb_status open_listener(struct listener *listener, const struct spb_endpoint *endpoint,
                                struct spb_error *err)
{
    struct event_base *base = spb_loop_base(listener->all->daemon->loop);
    bool is_unix = endpoint->address.any.sa_family == AF_UNIX;
    char text[SPB_ENDPOINT_TEXT_SIZE];

    listener->bound = *endpoint;
    spb_endpoint_show(endpoint, text);
    if (is_unix)
        SPB_TRY(clear_path(endpoint, err));
    listener->fd =
        socket(endpoint->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0 || !bind_socket(listener, is_unix))
        return spb_fail_errno(err, SPB_IO, errno, "listening at %s", text);
    listener->readable =
        event_new(base, listener->fd, EV_READ | EV_PERSIST, on_connection, listener);
    listener->rest = event_new(base, -1, 0, on_rested, listener);
    if (listener->readable == NULL || listener->rest == NULL ||
        event_add(listener->readable, NULL) != 0)
        return spb_fail_memory(err, "listening");
    return spb_ok();
}

spb_status spb_listeners_new(struct spb_daemon *daemon, struct spb_listeners **out,
                             struct spb_error *err)
{
    struct spb_listeners *all = calloc(1, sizeof(*all));
    struct rlimit limit = {.rlim_cur = 0};
    spb_status status = spb_ok();

    if (all == NULL)
        return spb_fail_memory(err, "listening");
    all->daemon = daemon;
    all->spare_fd = -1;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || !has_spare(all)) {
        status = spb_fail_errno(err, SPB_IO, errno, "keeping a spare descriptor");
    } else if (limit.rlim_cur <= SPB_LIMIT(daemon, descriptors_reserve)) {
        status = spb_fail(err, SPB_INVALID,
                          "the process may open %llu files, expected more than descriptors_reserve "
                          "(%llu)",
                          (unsigned long long)limit.rlim_cur,
                          (unsigned long long)SPB_LIMIT(daemon, descriptors_reserve));
    }
    all->descriptors = limit.rlim_cur;
    if (spb_is_ok(status) && daemon->options.usual_socket)
        status = make_usual_folder(&daemon->options.listen[0], err);
    for (size_t i = 0; i < daemon->options.listen_count && spb_is_ok(status); i++) {
        all->listeners[i] = (struct listener){.all = all, .fd = -1};
        all->count++;
        status = open_listener(&all->listeners[i], &daemon->options.listen[i], err);
    }
    if (!spb_is_ok(status)) {
        spb_listeners_free(all);
        return status;
    }
    *out = all;
    return spb_ok();
}

static void close_listener(struct listener *listener)
{
    const char *path = listener->bound.address.local.sun_path;
    struct stat st;

    if (listener->readable != NULL)
        event_free(listener->readable);
    if (listener->rest != NULL)
        event_free(listener->rest);
    if (listener->fd >= 0)
        (void)close(listener->fd);
    if (listener->has_file && lstat(path, &st) == 0 && st.st_dev == listener->device &&
        st.st_ino == listener->inode)
        (void)unlink(path);
}

void spb_listeners_free(struct spb_listeners *all)
{
    if (all == NULL)
        return;
    for (size_t i = 0; i < all->count; i++)
        close_listener(&all->listeners[i]);
    if (all->spare_fd >= 0)
        (void)close(all->spare_fd);
    free(all);
}

size_t spb_listeners_count(const struct spb_listeners *all)
{
    return all->count;
}

const struct spb_endpoint *spb_listeners_bound(const struct spb_listeners *all, size_t i)
{
    SPB_ASSERT(i < all->count);
    return &all->listeners[i].bound;
}
