/*
 * The same load as bench_rpc's on redis-server, for comparison: as many connections, as many
 * commands in flight on each, values of the same size on as many keys. One thread.
 *
 *   bench_peer --endpoint E --op put|get [--connections N] [--depth N] [--seconds S]
 *              [--value-size N]
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "meter.h"
#include "resp.h"

#define CONNECTIONS_MAX 256
#define DEPTH_MAX 64
#define KEYS 16u
#define TIMEOUT_MS 10000

struct lane {
    struct resp resp;
    uint64_t started_ns[DEPTH_MAX]; /* a ring: answers come in order */
    size_t first, in_flight;
};

struct load {
    struct bench_run run;
    bool is_get;
    size_t value_size, connections, depth;
    char commands[KEYS][512]; /* formed once */
    size_t sizes[KEYS];
    uint64_t sent;
    struct lane lanes[CONNECTIONS_MAX];
    bool over;
};

static void form_commands(struct load *load)
{
    for (unsigned i = 0; i < KEYS; i++) {
        char value[257] = {0};
        int n;

        memset(value, 'v', load->value_size);
        if (load->is_get)
            n = snprintf(load->commands[i], sizeof load->commands[i],
                         "*2\r\n$3\r\nGET\r\n$6\r\nkey-%02u\r\n", i);
        else
            n = snprintf(load->commands[i], sizeof load->commands[i],
                         "*3\r\n$3\r\nSET\r\n$6\r\nkey-%02u\r\n$%zu\r\n%s\r\n", i, load->value_size,
                         value);
        load->sizes[i] = (size_t)n;
    }
}

static void start_call(struct load *load, struct lane *lane)
{
    size_t key = (size_t)(load->sent++ % KEYS);

    lane->started_ns[(lane->first + lane->in_flight) % DEPTH_MAX] = bench_now_ns();
    lane->in_flight++;
    if (!resp_send(&lane->resp, load->commands[key], load->sizes[key])) {
        bench_run_fail(&load->run, "the send buffer is full");
        load->over = true;
    }
}

/* Is the answer the one that the command has when it succeeds? */
static bool is_right(const struct load *load, enum resp_kind kind, size_t size)
{
    return load->is_get ? kind == RESP_BULK && size == load->value_size : kind == RESP_SIMPLE;
}

static void take_answers(struct load *load, struct lane *lane)
{
    const char *text = "";
    size_t size = 0;
    enum resp_kind kind;

    while ((kind = resp_next(&lane->resp, &text, &size)) != RESP_NONE) {
        uint64_t now_ns = bench_now_ns();

        if (!is_right(load, kind, size) || lane->in_flight == 0) {
            bench_run_fail(&load->run, "answer of kind %d: %.*s", (int)kind, (int)size, text);
            load->over = true;
            return;
        }
        bench_run_note(&load->run, lane->started_ns[lane->first], now_ns);
        lane->first = (lane->first + 1u) % DEPTH_MAX;
        lane->in_flight--;
        if (bench_run_is_over(&load->run, now_ns))
            load->over = true;
        if (!load->over)
            start_call(load, lane);
    }
}

static bool turn(struct load *load, struct pollfd *polls)
{
    for (size_t i = 0; i < load->connections; i++) {
        polls[i].fd = load->lanes[i].resp.fd;
        polls[i].events = (short)(POLLIN | (resp_wants_write(&load->lanes[i].resp) ? POLLOUT : 0));
        polls[i].revents = 0;
    }
    if (poll(polls, (nfds_t)load->connections, TIMEOUT_MS) <= 0) {
        bench_run_fail(&load->run, "no answer within %d ms", TIMEOUT_MS);
        return false;
    }
    for (size_t i = 0; i < load->connections; i++) {
        if (polls[i].revents == 0)
            continue;
        if (!resp_ready(&load->lanes[i].resp)) {
            bench_run_fail(&load->run, "the connection was lost: %s", strerror(errno));
            return false;
        }
        take_answers(load, &load->lanes[i]);
    }
    return true;
}

static bool is_done(const struct load *load)
{
    size_t count = 0;

    for (size_t i = 0; i < load->connections; i++)
        count += load->lanes[i].in_flight;
    return count == 0 || load->run.failures > 0;
}

static void run_load(struct load *load, double seconds)
{
    struct pollfd polls[CONNECTIONS_MAX];

    bench_run_start(&load->run, seconds);
    for (size_t i = 0; i < load->connections; i++) {
        for (size_t k = 0; k < load->depth; k++)
            start_call(load, &load->lanes[i]);
    }
    while (!is_done(load) && turn(load, polls))
        continue;
}

int main(int argc, char **argv)
{
    static struct load load;
    const char *endpoint = bench_option(argc, argv, "--endpoint", "unix:redis.sock");
    double seconds = bench_number(argc, argv, "--seconds", 1, 0.01, 3600);
    int result;

    load.is_get = strcmp(bench_option(argc, argv, "--op", "put"), "get") == 0;
    load.value_size = (size_t)bench_number(argc, argv, "--value-size", 32, 0, 240);
    load.connections = (size_t)bench_number(argc, argv, "--connections", 1, 1, CONNECTIONS_MAX);
    load.depth = (size_t)bench_number(argc, argv, "--depth", 1, 1, DEPTH_MAX);
    form_commands(&load);
    for (size_t i = 0; i < load.connections; i++) {
        if (!resp_open(&load.lanes[i].resp, endpoint)) {
            (void)fprintf(stderr, "bench_peer: connecting to %s: %s\n", endpoint, strerror(errno));
            return 1;
        }
    }
    run_load(&load, seconds);
    result = bench_run_report(&load.run);
    for (size_t i = 0; i < load.connections; i++)
        resp_close(&load.lanes[i].resp);
    return result;
}
