/*
 * What watchers cost, and how soon they hear: one process appends events one after the other, each
 * with the time at which it was sent; this one follows them with so many watches on so many
 * connections. Prints a line of JSON: rate and latencies of the appends, latencies from an append's
 * sending to each watcher's receipt, and events that a watcher lost or got twice, which is a
 * failure.
 *
 *   bench_watch --endpoint E --image NAME [--connections N] [--depth N] [--seconds S] [--rate N]
 *
 * depth: watches on a connection, 0 for none at all. rate: appends a second, 0 for one as soon as
 * the one before is durable. One thread in each process.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "meter.h"
#include "spaceblock/client.h"
#include "spaceblock/v1/events.pb-c.h"

#define CONNECTIONS_MAX 64
#define DEPTH_MAX 64
#define CALL_TIMEOUT_MS 30000
#define WAIT_MS 10000
#define QUIET_MS 2000 /* after the last append all has come by then */
#define EVENTS "spaceblock.v1.Events"
#define CURSOR_MAX 64

struct load;

struct watcher {
    struct load *load;
    struct spb_client *client; /* borrowed from load */
    uint8_t cursor[CURSOR_MAX];
    size_t cursor_size;
    uint32_t next; /* index of the event that comes next */
};

/* What the appending process tells at its end. */
struct appended {
    uint64_t count, p50_ns, p99_ns, failures;
    double seconds;
};

struct load {
    const char *endpoint;
    uint8_t image[65];
    size_t connections, depth;
    double seconds, rate;
    struct spb_client *clients[CONNECTIONS_MAX];
    struct watcher watchers[CONNECTIONS_MAX * DEPTH_MAX];
    struct bench_histogram heard;
    uint64_t answers, lost, repeated, last_heard_ns;
    bool over, failed;
    char failure[1024];
};

static void fail(struct load *load, const char *what, const char *text)
{
    if (!load->failed)
        (void)snprintf(load->failure, sizeof(load->failure), "%s: %s", what, text);
    load->failed = true;
    load->over = true;
}

static Spaceblock__V1__ImageRef image_of(struct load *load)
{
    Spaceblock__V1__ImageRef image = SPACEBLOCK__V1__IMAGE_REF__INIT;

    image.name.data = load->image;
    image.name.len = strlen((const char *)load->image);
    return image;
}

/* ---- Watching ----------------------------------------------------------------------------- */

static void start_watch(struct watcher *watcher);

static void take_event(struct watcher *watcher, const Spaceblock__V1__Event *event, uint64_t now_ns)
{
    struct load *load = watcher->load;
    uint64_t sent_ns;

    if (event->index < watcher->next)
        load->repeated++;
    else
        load->lost += event->index - watcher->next;
    watcher->next = event->index + 1;
    if (event->payload.len != sizeof(sent_ns))
        return;
    memcpy(&sent_ns, event->payload.data, sizeof(sent_ns));
    bench_histogram_add(&load->heard, now_ns - sent_ns);
    load->last_heard_ns = now_ns;
}

static void on_events(void *user, const struct spb_client_reply *reply)
{
    struct watcher *watcher = user;
    struct load *load = watcher->load;
    uint64_t now_ns = bench_now_ns();

    if (load->over)
        return;
    if (!spb_is_ok(reply->status)) {
        fail(load, "watching", reply->error->text);
        return;
    }
    Spaceblock__V1__WatchEventsResponse *got =
        spaceblock__v1__watch_events_response__unpack(NULL, reply->payload_size, reply->payload);
    if (got == NULL || got->cursor.len > CURSOR_MAX || got->reset) {
        fail(load, "watching", "an answer that does not parse, or a reset");
    } else {
        load->answers++;
        load->lost += got->skipped;
        if (watcher->cursor_size == 0)
            watcher->next = got->pointer;
        watcher->next += (uint32_t)got->skipped;
        for (size_t i = 0; i < got->n_events; i++)
            take_event(watcher, got->events[i], now_ns);
        memcpy(watcher->cursor, got->cursor.data, got->cursor.len);
        watcher->cursor_size = got->cursor.len;
        start_watch(watcher);
    }
    if (got != NULL)
        spaceblock__v1__watch_events_response__free_unpacked(got, NULL);
}

static void start_watch(struct watcher *watcher)
{
    struct load *load = watcher->load;
    Spaceblock__V1__WatchEventsRequest request = SPACEBLOCK__V1__WATCH_EVENTS_REQUEST__INIT;
    Spaceblock__V1__ImageRef image = image_of(load);
    uint8_t packed[256];
    struct spb_error err;

    request.image = &image;
    request.start = SPACEBLOCK__V1__WATCH_START__WATCH_START_NOW;
    /* The first one gives a place at once. */
    request.wait_ms = watcher->cursor_size == 0 ? 0 : WAIT_MS;
    request.cursor.data = watcher->cursor;
    request.cursor.len = watcher->cursor_size;
    size_t size = spaceblock__v1__watch_events_request__pack(&request, packed);
    if (!spb_is_ok(spb_client_start(watcher->client, EVENTS, "Watch", packed, size, CALL_TIMEOUT_MS,
                                    on_events, watcher, &err)))
        fail(load, "starting a watch", err.text);
}

static spb_status turn(struct load *load, int timeout_ms, struct spb_error *err)
{
    struct pollfd polls[CONNECTIONS_MAX];

    for (size_t i = 0; i < load->connections; i++) {
        unsigned wants = spb_client_wants(load->clients[i]);

        polls[i] = (struct pollfd){.fd = spb_client_fd(load->clients[i])};
        polls[i].events = (short)(((wants & SPB_CLIENT_READ) != 0 ? POLLIN : 0) |
                                  ((wants & SPB_CLIENT_WRITE) != 0 ? POLLOUT : 0));
    }
    (void)poll(polls, (nfds_t)load->connections, timeout_ms);
    for (size_t i = 0; i < load->connections; i++) {
        if (polls[i].revents != 0)
            SPB_TRY(spb_client_ready(load->clients[i], err));
    }
    return spb_ok();
}

static spb_status begin_watching(struct load *load, struct spb_error *err)
{
    size_t count = load->connections * load->depth;

    for (size_t i = 0; i < load->connections; i++)
        SPB_TRY(spb_client_open(load->endpoint, CALL_TIMEOUT_MS, &load->clients[i], err));
    for (size_t i = 0; i < count; i++) {
        load->watchers[i].load = load;
        load->watchers[i].client = load->clients[i % load->connections];
        start_watch(&load->watchers[i]);
    }
    while (load->answers < count && !load->over)
        SPB_TRY(turn(load, CALL_TIMEOUT_MS, err));
    load->answers = 0;
    return spb_ok();
}

/* ---- Appending: a process of its own ------------------------------------------------------ */

static spb_status append_one(struct load *load, struct spb_client *client, struct spb_error *err)
{
    Spaceblock__V1__AppendEventsRequest request;
    Spaceblock__V1__NewEvent event = SPACEBLOCK__V1__NEW_EVENT__INIT, *events = &event;
    Spaceblock__V1__ImageRef image = image_of(load);
    char id[SPB_REQUEST_ID_SIZE];
    uint64_t now_ns = bench_now_ns();
    uint8_t packed[256], payload[sizeof(now_ns)], *reply = NULL;
    size_t reply_size;

    spaceblock__v1__append_events_request__init(&request);
    SPB_TRY(spb_client_request_id(id, err));
    memcpy(payload, &now_ns, sizeof(now_ns));
    event.payload.data = payload;
    event.payload.len = sizeof(payload);
    request.request_id = id;
    request.image = &image;
    request.n_events = 1;
    request.events = &events;
    size_t size = spaceblock__v1__append_events_request__pack(&request, packed);
    SPB_TRY(spb_client_call(client, EVENTS, "Append", packed, size, CALL_TIMEOUT_MS, &reply,
                            &reply_size, NULL, err));
    free(reply);
    return spb_ok();
}

static void wait_until(uint64_t moment_ns)
{
    struct timespec until = {.tv_sec = (time_t)(moment_ns / 1000000000u),
                             .tv_nsec = (long)(moment_ns % 1000000000u)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
        continue;
}

static int append_all(struct load *load, int out)
{
    static struct bench_run run;
    struct appended told = {.count = 0};
    struct spb_client *client = NULL;
    struct spb_error err = {0};
    uint64_t begin_ns, next_ns;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    spb_status status = spb_client_open(load->endpoint, CALL_TIMEOUT_MS, &client, &err);
    bench_run_start(&run, load->seconds);
    begin_ns = next_ns = bench_now_ns();
    while (spb_is_ok(status)) {
        if (load->rate > 0)
            wait_until(next_ns += (uint64_t)(1e9 / load->rate));
        uint64_t started_ns = bench_now_ns();
        if (bench_run_is_over(&run, started_ns))
            break;
        status = append_one(load, client, &err);
        bench_run_note(&run, started_ns, bench_now_ns());
        told.count++;
    }
    told.seconds = (double)(bench_now_ns() - begin_ns) / 1e9;
    told.failures = !spb_is_ok(status);
    told.p50_ns = bench_histogram_quantile(&run.latencies, 0.5);
    told.p99_ns = bench_histogram_quantile(&run.latencies, 0.99);
    if (told.failures > 0)
        (void)fprintf(stderr, "bench_watch: appending: %s\n", err.text);
    spb_client_close(client);
    return write(out, &told, sizeof(told)) != (ssize_t)sizeof(told);
}

/* ---- Both --------------------------------------------------------------------------------- */

static bool all_heard(const struct load *load, uint64_t count)
{
    return load->heard.count >= count * load->connections * load->depth;
}

/* Follows until the appending ends, and all of it has come. */
static spb_status follow(struct load *load, int in, struct appended *told, struct spb_error *err)
{
    struct pollfd done = {.fd = in, .events = POLLIN};
    bool ended = false;
    uint64_t ended_ns = 0;

    while (!load->over) {
        if (!ended && poll(&done, 1, load->depth == 0 ? CALL_TIMEOUT_MS : 0) > 0) {
            if (read(in, told, sizeof(*told)) != (ssize_t)sizeof(*told))
                return spb_fail(err, SPB_IO, "the appending process ended without a word");
            ended = true;
            ended_ns = bench_now_ns();
        }
        if (ended && (all_heard(load, told->count) ||
                      bench_now_ns() > ended_ns + QUIET_MS * UINT64_C(1000000)))
            load->over = true;
        else if (load->depth > 0)
            SPB_TRY(turn(load, 5, err));
    }
    return spb_ok();
}

static int report(const struct load *load, const struct appended *told)
{
    uint64_t wanted = told->count * load->connections * load->depth;
    bool bad = load->failed || told->failures > 0 || load->repeated > 0 ||
               load->heard.count + load->lost != wanted || told->count == 0;

    printf("{\"watchers\": %zu, \"appends\": %llu, \"rate\": %.1f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"heard\": %llu, \"answers\": %llu, \"lost\": %llu, "
           "\"repeated\": %llu, \"heard_p50_us\": %.1f, \"heard_p99_us\": %.1f}\n",
           load->connections * load->depth, (unsigned long long)told->count,
           (double)told->count / told->seconds, (double)told->p50_ns / 1e3,
           (double)told->p99_ns / 1e3, (unsigned long long)load->heard.count,
           (unsigned long long)load->answers, (unsigned long long)load->lost,
           (unsigned long long)load->repeated,
           (double)bench_histogram_quantile(&load->heard, 0.5) / 1e3,
           (double)bench_histogram_quantile(&load->heard, 0.99) / 1e3);
    if (bad)
        (void)fprintf(stderr, "bench_watch: %s\n",
                      load->failed ? load->failure : "not every watcher got every event once");
    return bad;
}

static int run(struct load *load)
{
    struct appended told = {.count = 0};
    struct spb_error err = {0};
    int pipes[2], code;

    spb_status status = load->depth > 0 ? begin_watching(load, &err) : spb_ok();
    if (!spb_is_ok(status) || pipe(pipes) != 0) {
        (void)fprintf(stderr, "bench_watch: %s\n", err.text);
        return 1;
    }
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(append_all(load, pipes[1]));
    status = child < 0 ? spb_fail(&err, SPB_IO, "starting a process") : spb_ok();
    if (spb_is_ok(status))
        status = follow(load, pipes[0], &told, &err);
    if (child > 0)
        (void)waitpid(child, &code, 0);
    if (!spb_is_ok(status))
        fail(load, "following", err.text);
    for (size_t i = 0; i < load->connections; i++)
        spb_client_close(load->clients[i]);
    return report(load, &told);
}

int main(int argc, char **argv)
{
    static struct load load;

    load.endpoint = bench_option(argc, argv, "--endpoint", "unix:spaceblockd.sock");
    load.connections = (size_t)bench_number(argc, argv, "--connections", 10, 1, CONNECTIONS_MAX);
    load.depth = (size_t)bench_number(argc, argv, "--depth", 50, 0, DEPTH_MAX);
    load.seconds = bench_number(argc, argv, "--seconds", 1, 0.01, 3600);
    load.rate = bench_number(argc, argv, "--rate", 0, 0, 1000000);
    (void)snprintf((char *)load.image, sizeof(load.image), "%s",
                   bench_option(argc, argv, "--image", "bench"));
    return run(&load);
}
