/*
 * Load on spaceblockd through the client library: so many connections, so many calls in flight on
 * each, for so many seconds; prints rate and latencies as a line of JSON. One thread: every
 * connection is polled here, and each answer's callback starts the next call.
 *
 *   bench_rpc --endpoint E --image NAME --op put|get|append|ping [--connections N] [--depth N]
 *             [--seconds S] [--value-size N]
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"
#include "meter.h"
#include "requests.h"
#include "spaceblock/client.h"

#define CONNECTIONS_MAX 256
#define DEPTH_MAX 64 /* calls in flight that the daemon takes on a connection */
#define CALL_TIMEOUT_MS 10000

struct load;

/* One caller: at most one call in flight. */
struct caller {
    struct load *load;
    struct spb_client *client; /* borrowed from load */
    uint64_t started_ns;
};

struct load {
    struct bench_run run;
    struct bench_requests requests;
    size_t connections, depth;
    struct spb_client *clients[CONNECTIONS_MAX];
    struct caller *callers; /* connections x depth */
    bool over;
};

static void start_call(struct caller *caller);

static void on_reply(void *user, const struct spb_client_reply *reply)
{
    struct caller *caller = user;
    struct load *load = caller->load;
    uint64_t now_ns = bench_now_ns();

    if (!spb_is_ok(reply->status)) {
        bench_run_fail(&load->run, "%s.%s: %s (code %d, reason %s)", load->requests.service,
                       load->requests.method, reply->error == NULL ? "no text" : reply->error->text,
                       reply->rpc_code, reply->reason);
    } else {
        bench_run_note(&load->run, caller->started_ns, now_ns);
    }
    if (load->run.failures > 0 || bench_run_is_over(&load->run, now_ns))
        load->over = true;
    if (!load->over)
        start_call(caller);
}

static void start_call(struct caller *caller)
{
    struct load *load = caller->load;
    const struct bench_payload *payload = bench_requests_next(&load->requests);
    struct spb_error err = {0};

    caller->started_ns = bench_now_ns();
    if (!spb_is_ok(spb_client_start(caller->client, load->requests.service, load->requests.method,
                                    payload->bytes, payload->size, CALL_TIMEOUT_MS, on_reply,
                                    caller, &err))) {
        bench_run_fail(&load->run, "starting a call: %s", err.text);
        load->over = true;
    }
}

static spb_status open_all(struct load *load, const char *endpoint, struct spb_error *err)
{
    load->callers = calloc(load->connections * load->depth, sizeof *load->callers);
    if (load->callers == NULL)
        return spb_fail_memory(err, "preparing the callers");
    for (size_t i = 0; i < load->connections; i++) {
        SPB_TRY(spb_client_open(endpoint, CALL_TIMEOUT_MS, &load->clients[i], err));
        for (size_t k = 0; k < load->depth; k++) {
            load->callers[i * load->depth + k].load = load;
            load->callers[i * load->depth + k].client = load->clients[i];
        }
    }
    return spb_ok();
}

static void close_all(struct load *load)
{
    for (size_t i = 0; i < load->connections; i++)
        spb_client_close(load->clients[i]);
    free(load->callers);
    bench_requests_done(&load->requests);
}

static short poll_events(const struct spb_client *client)
{
    unsigned wants = spb_client_wants(client);

    return (short)(((wants & SPB_CLIENT_READ) != 0 ? POLLIN : 0) |
                   ((wants & SPB_CLIENT_WRITE) != 0 ? POLLOUT : 0));
}

static size_t in_flight(const struct load *load)
{
    size_t count = 0;

    for (size_t i = 0; i < load->connections; i++)
        count += spb_client_in_flight(load->clients[i]);
    return count;
}

/* One turn of the loop: waits, then lets each connection that is ready do what it can. */
static spb_status turn(struct load *load, struct pollfd *polls, struct spb_error *err)
{
    int found;

    for (size_t i = 0; i < load->connections; i++) {
        polls[i].fd = spb_client_fd(load->clients[i]);
        polls[i].events = poll_events(load->clients[i]);
        polls[i].revents = 0;
    }
    found = poll(polls, (nfds_t)load->connections, CALL_TIMEOUT_MS);
    if (found == 0)
        return spb_fail(err, SPB_DEADLINE, "no answer within %d ms", CALL_TIMEOUT_MS);
    for (size_t i = 0; i < load->connections; i++) {
        if (polls[i].revents != 0)
            SPB_TRY(spb_client_ready(load->clients[i], err));
    }
    return spb_ok();
}

/* Every parameter that get asks for is there before the clock starts. */
static spb_status fill(struct spb_client *client, const char *image, size_t value_size,
                       struct spb_error *err)
{
    struct bench_requests puts;
    spb_status status = bench_requests_init(&puts, "put", image, value_size, err);

    for (size_t i = 0; spb_is_ok(status) && i < BENCH_IDS; i++) {
        const struct bench_payload *payload = bench_requests_next(&puts);
        uint8_t *reply = NULL;
        size_t reply_size = 0;

        status = spb_client_call(client, puts.service, puts.method, payload->bytes, payload->size,
                                 CALL_TIMEOUT_MS, &reply, &reply_size, NULL, err);
        if (spb_is_ok(status))
            free(reply);
    }
    bench_requests_done(&puts);
    return status;
}

static spb_status run_load(struct load *load, double seconds, struct spb_error *err)
{
    struct pollfd polls[CONNECTIONS_MAX];

    bench_run_start(&load->run, seconds);
    for (size_t i = 0; i < load->connections * load->depth; i++)
        start_call(&load->callers[i]);
    while (in_flight(load) > 0)
        SPB_TRY(turn(load, polls, err));
    return spb_ok();
}

static spb_status run(struct load *load, int argc, char **argv, struct spb_error *err)
{
    const char *image = bench_option(argc, argv, "--image", "bench");
    const char *op = bench_option(argc, argv, "--op", "put");
    const char *endpoint = bench_option(argc, argv, "--endpoint", "unix:spaceblockd.sock");
    size_t value_size = (size_t)bench_number(argc, argv, "--value-size", 32, 0, 240);

    SPB_TRY(bench_requests_init(&load->requests, op, image, value_size, err));
    SPB_TRY(open_all(load, endpoint, err));
    SPB_TRY(fill(load->clients[0], image, value_size, err));
    return run_load(load, bench_number(argc, argv, "--seconds", 1, 0.01, 3600), err);
}

int main(int argc, char **argv)
{
    static struct load load;
    struct spb_error err = {0};
    spb_status status;
    int result;

    load.connections = (size_t)bench_number(argc, argv, "--connections", 1, 1, CONNECTIONS_MAX);
    load.depth = (size_t)bench_number(argc, argv, "--depth", 1, 1, DEPTH_MAX);
    status = run(&load, argc, argv, &err);
    if (spb_is_ok(status))
        result = bench_run_report(&load.run);
    else {
        (void)fprintf(stderr, "bench_rpc: %s\n", err.text);
        result = 1;
    }
    close_all(&load);
    return result;
}
