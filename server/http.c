/*
 * The HTTP listener; see http.h. Everything below spb_http_new runs on its thread.
 *
 * evhttp's own timeout is one of inactivity, which a byte now and then defeats, and it does not
 * count connections. So each connection is a visit here, with a second descriptor of its socket: at
 * its deadline, or as the oldest when there are too many, the socket is shut down through that, and
 * evhttp finds the end of the stream.
 */
#include "http.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "base/status.h"
#include "daemon.h"
#include "metrics_text.h"
#include "util.h"

#define LOOK_MS 100         /* at the visits' deadlines */
#define LOOP_STUCK_MS 10000 /* without a tick */
#define QUIET_S 5           /* evhttp's timeout of inactivity */

struct visit {
    struct visit *previous, *next; /* older, younger */
    struct spb_http *http;
    struct bufferevent *stream; /* held only until fd is there; then just tells visits apart */
    struct event *begin;
    int fd; /* -1: not yet */
    int64_t start_ns;
};

struct spb_http {
    struct spb_daemon *daemon;
    struct spb_endpoint bound;
    struct event_base *base;
    struct evhttp *server;
    struct evconnlistener *listener; /* the server's */
    struct event *stop, *look;
    int stop_fd;
    pthread_t thread;
    bool has_thread;
    struct visit *oldest, *youngest;
    size_t visits;
};

/* ---- Visits ------------------------------------------------------------------------------- */

static void forget(struct visit *visit)
{
    struct spb_http *http = visit->http;

    if (visit->previous == NULL)
        http->oldest = visit->next;
    else
        visit->previous->next = visit->next;
    if (visit->next == NULL)
        http->youngest = visit->previous;
    else
        visit->next->previous = visit->previous;
    http->visits--;
    if (visit->fd >= 0)
        (void)close(visit->fd);
    else
        (void)bufferevent_decref(visit->stream);
    event_free(visit->begin);
    free(visit);
}

static void end(struct visit *visit)
{
    if (visit->fd >= 0)
        (void)shutdown(visit->fd, SHUT_RDWR);
    forget(visit);
}

/* Who watches the daemon may have the first half of its reserve: that is when it counts. */
static bool is_of_reserve(const struct spb_http *http, int fd)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
           (uint64_t)fd + SPB_LIMIT(http->daemon, descriptors_reserve) / 2 >= limit.rlim_cur;
}

/* The stream has its socket by now. */
static void on_begin(evutil_socket_t fd, short what, void *user)
{
    struct visit *visit = user;
    struct spb_http *http = visit->http;
    int socket = bufferevent_getfd(visit->stream);

    (void)fd;
    (void)what;
    int copy = socket < 0 ? -1 : fcntl(socket, F_DUPFD_CLOEXEC, 3);
    if (copy < 0 || is_of_reserve(http, copy)) {
        if (socket >= 0)
            (void)shutdown(socket, SHUT_RDWR);
        if (copy >= 0)
            (void)close(copy);
        forget(visit);
        return;
    }
    (void)bufferevent_decref(visit->stream);
    visit->fd = copy;
    while (http->visits > SPB_LIMIT(http->daemon, http_connections_max))
        end(http->oldest);
}

/* A connection is there, its socket is about to be set. */
static struct bufferevent *on_connection(struct event_base *base, void *user)
{
    struct spb_http *http = user;
    /* Its socket lives as long as it does, so that on_begin cannot meet another's. */
    struct bufferevent *stream = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    struct visit *visit = calloc(1, sizeof(*visit));

    if (visit != NULL)
        visit->begin = event_new(base, -1, 0, on_begin, visit);
    if (stream == NULL || visit == NULL || visit->begin == NULL) {
        free(visit);
        return stream; /* the quiet time is its only limit then */
    }
    visit->http = http;
    visit->stream = stream;
    visit->fd = -1;
    visit->start_ns = spb_now_ns();
    bufferevent_incref(stream);
    visit->previous = http->youngest;
    if (http->youngest == NULL)
        http->oldest = visit;
    else
        http->youngest->next = visit;
    http->youngest = visit;
    http->visits++;
    event_active(visit->begin, EV_TIMEOUT, 0);
    return stream;
}

static void on_closed(struct evhttp_connection *connection, void *user)
{
    struct spb_http *http = user;
    const struct bufferevent *stream = evhttp_connection_get_bufferevent(connection);

    /* An address may have been another stream's before: the youngest is it. */
    for (struct visit *visit = http->youngest; visit != NULL; visit = visit->previous) {
        if (visit->stream == stream) {
            forget(visit);
            return;
        }
    }
}

/* Both sides are done: evhttp has closed its descriptor, or is about to. */
static bool is_over(const struct visit *visit)
{
    struct tcp_info info;
    socklen_t size = sizeof(info);

    return visit->fd >= 0 && getsockopt(visit->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_state == TCP_CLOSE;
}

/* Also, a listener that ran out of descriptors has rested long enough. */
static void on_look(evutil_socket_t fd, short what, void *user)
{
    struct spb_http *http = user;
    int64_t life_ns = (int64_t)SPB_LIMIT(http->daemon, http_connection_ms) * SPB_NS_PER_MS;
    int64_t now_ns = spb_now_ns();

    (void)fd;
    (void)what;
    for (struct visit *visit = http->oldest, *next; visit != NULL; visit = next) {
        next = visit->next;
        if (now_ns - visit->start_ns >= life_ns || is_over(visit))
            end(visit);
    }
    (void)evconnlistener_enable(http->listener);
}

/* No descriptors: its event would fire without end. on_look enables it again. */
static void on_listener_error(struct evconnlistener *listener, void *user)
{
    (void)user; /* the server's */
    (void)evconnlistener_disable(listener);
}

/* ---- Answers ------------------------------------------------------------------------------ */

static void answer(struct spb_http *http, struct evhttp_request *request, int code,
                   const char *words, struct evbuffer *body)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    char length[24];

    spb_metrics_count(http->daemon->metrics, SPB_COUNT_HTTP_REQUESTS, 1);
    if (connection != NULL)
        evhttp_connection_set_closecb(connection, on_closed, http);
    (void)snprintf(length, sizeof(length), "%zu", evbuffer_get_length(body));
    (void)evhttp_add_header(headers, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    (void)evhttp_add_header(headers, "Content-Length", length);
    (void)evhttp_add_header(headers, "Cache-Control", "no-store");
    (void)evhttp_add_header(headers, "Connection", "close");
    if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD)
        (void)evbuffer_drain(body, evbuffer_get_length(body));
    evhttp_send_reply(request, code, words, body);
}

static void answer_text(struct spb_http *http, struct evhttp_request *request, int code,
                        const char *words, const char *text)
{
    struct evbuffer *body = evbuffer_new();

    if (body == NULL || evbuffer_add_printf(body, "%s\n", text) < 0)
        evhttp_send_error(request, HTTP_INTERNAL, NULL);
    else
        answer(http, request, code, words, body);
    if (body != NULL)
        evbuffer_free(body);
}

static void free_text(const void *text, size_t size, void *user)
{
    (void)text;
    (void)size;
    free(user);
}

static void on_metrics(struct evhttp_request *request, void *user)
{
    struct spb_http *http = user;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct evbuffer *body = evbuffer_new();
    bool good = out != NULL && body != NULL;

    if (good)
        spb_metrics_write(http->daemon, out);
    if (out != NULL)
        good = ferror(out) == 0 && fclose(out) == 0 && good;
    if (good && evbuffer_add_reference(body, text, size, free_text, text) == 0) {
        answer(http, request, HTTP_OK, "OK", body);
    } else {
        free(text);
        evhttp_send_error(request, HTTP_INTERNAL, NULL);
    }
    if (body != NULL)
        evbuffer_free(body);
}

static bool loop_is_stuck(const struct spb_http *http)
{
    int64_t beat_ns = atomic_load_explicit(&http->daemon->loop_beat_ns, memory_order_relaxed);

    return beat_ns != 0 && spb_now_ns() - beat_ns > LOOP_STUCK_MS * SPB_NS_PER_MS;
}

static void on_health(struct evhttp_request *request, void *user)
{
    if (loop_is_stuck(user))
        answer_text(user, request, HTTP_SERVUNAVAIL, "Unavailable", "the event loop is stuck");
    else
        answer_text(user, request, HTTP_OK, "OK", "alive");
}

/* NULL: it takes calls. */
static const char *why_not_ready(const struct spb_http *http)
{
    if (http->daemon->draining)
        return "draining";
    if (!http->daemon->serving)
        return "starting";
    return loop_is_stuck(http) ? "the event loop is stuck" : NULL;
}

static void on_ready(struct evhttp_request *request, void *user)
{
    const char *why = why_not_ready(user);

    if (why != NULL)
        answer_text(user, request, HTTP_SERVUNAVAIL, "Unavailable", why);
    else
        answer_text(user, request, HTTP_OK, "OK", "ready");
}

static void on_other(struct evhttp_request *request, void *user)
{
    answer_text(user, request, HTTP_NOTFOUND, "Not Found",
                "there are /metrics, /healthz and /readyz");
}

/* ---- Life --------------------------------------------------------------------------------- */

static void on_stop(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)event_base_loopbreak(user);
}

static void *run(void *user)
{
    struct spb_http *http = user;

    (void)event_base_dispatch(http->base);
    return NULL;
}

static bool make_base(struct spb_http *http)
{
    struct event_config *config = event_config_new();
    struct timeval look = {.tv_usec = LOOK_MS * 1000};

    if (config == NULL)
        return false;
    (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    http->base = event_base_new_with_config(config);
    event_config_free(config);
    http->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (http->base == NULL || http->stop_fd < 0)
        return false;
    http->stop = event_new(http->base, http->stop_fd, EV_READ, on_stop, http->base);
    http->look = event_new(http->base, -1, EV_PERSIST, on_look, http);
    http->server = evhttp_new(http->base);
    return http->stop != NULL && http->look != NULL && http->server != NULL &&
           event_add(http->stop, NULL) == 0 && event_add(http->look, &look) == 0;
}

static void set_up(struct spb_http *http)
{
    uint64_t headers_max = SPB_LIMIT(http->daemon, http_headers_max_bytes);

    evhttp_set_allowed_methods(http->server, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(http->server, (ev_ssize_t)headers_max);
    evhttp_set_max_body_size(http->server, 0);
    evhttp_set_timeout(http->server, QUIET_S);
    evhttp_set_bevcb(http->server, on_connection, http);
    evhttp_set_gencb(http->server, on_other, http);
    (void)evhttp_set_cb(http->server, "/metrics", on_metrics, http);
    (void)evhttp_set_cb(http->server, "/healthz", on_health, http);
    (void)evhttp_set_cb(http->server, "/readyz", on_ready, http);
}

static spb_status start_listening(struct spb_http *http, struct spb_error *err)
{
    const struct spb_endpoint *wanted = &http->daemon->options.http;
    char text[SPB_ENDPOINT_TEXT_SIZE];
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;

    spb_endpoint_show(wanted, text);
    http->bound = *wanted;
    http->listener = evconnlistener_new_bind(http->base, NULL, NULL, flags, SOMAXCONN,
                                             &wanted->address.any, (int)wanted->length);
    if (http->listener == NULL)
        return spb_fail_errno(err, SPB_IO, errno, "listening for HTTP at %s", text);
    if (getsockname(evconnlistener_get_fd(http->listener), &http->bound.address.any,
                    &http->bound.length) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "listening for HTTP at %s", text);
    return spb_ok();
}

static spb_status start(struct spb_http *http, struct spb_error *err)
{
    if (!make_base(http))
        return spb_fail_memory(err, "making the HTTP listener");
    set_up(http);
    SPB_TRY(start_listening(http, err));
    /* The listener is the server's from here on. */
    if (evhttp_bind_listener(http->server, http->listener) == NULL) {
        evconnlistener_free(http->listener);
        return spb_fail_memory(err, "making the HTTP listener");
    }
    evconnlistener_set_error_cb(http->listener, on_listener_error);
    int number = pthread_create(&http->thread, NULL, run, http);
    if (number != 0)
        return spb_fail_errno(err, SPB_NO_MEMORY, number, "starting the thread of HTTP");
    http->has_thread = true;
    return spb_ok();
}

spb_status spb_http_new(struct spb_daemon *daemon, struct spb_http **out, struct spb_error *err)
{
    if (!daemon->options.has_http) {
        *out = NULL;
        return spb_ok();
    }
    struct spb_http *http = calloc(1, sizeof(*http));
    if (http == NULL)
        return spb_fail_memory(err, "making the HTTP listener");
    http->daemon = daemon;
    http->stop_fd = -1;
    spb_status status = start(http, err);
    if (!spb_is_ok(status)) {
        spb_http_free(http);
        return status;
    }
    *out = http;
    return spb_ok();
}

void spb_http_free(struct spb_http *http)
{
    uint64_t one = 1;

    if (http == NULL)
        return;
    if (http->has_thread) {
        while (write(http->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
        }
        (void)pthread_join(http->thread, NULL);
    }
    if (http->server != NULL)
        evhttp_free(http->server);
    while (http->oldest != NULL)
        forget(http->oldest);
    if (http->stop != NULL)
        event_free(http->stop);
    if (http->look != NULL)
        event_free(http->look);
    if (http->base != NULL)
        event_base_free(http->base);
    if (http->stop_fd >= 0)
        (void)close(http->stop_fd);
    free(http);
}

const struct spb_endpoint *spb_http_bound(const struct spb_http *http)
{
    return &http->bound;
}
