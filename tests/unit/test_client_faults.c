/*
 * The link fails at every byte of a call, in either direction and in every way: the call is carried
 * out once by a daemon that knows duplicates, its callback runs once, and it succeeds within its
 * time once the link is good again.
 *
 * The daemon is a thread of this process. Its first connections have a limit of bytes in one
 * direction; at the limit the fault happens. It keeps what was carried out by the bytes of the
 * request, which is what a request_id does.
 */
#include "test_client_peer.h"

#include <poll.h>

#include "client_state.h"
#include "link.h"

enum fault { CLOSE, RESET, HALF_CLOSE, SILENCE, DELAY, FAULTS };
static const char *const fault_names[] = {"close", "reset", "half-close", "silence", "delay"};

struct plan {
    enum fault fault;
    size_t in_limit, out_limit; /* bytes on a faulty connection */
    unsigned faulty;            /* connections, before they are good */
};

#define CARRIED_MAX 16
#define REPLY_SIZE 40

struct daemon {
    struct peer peer;
    struct plan plan;
    unsigned connections;
    char carried_out[CARRIED_MAX][REPLY_SIZE]; /* payloads */
    size_t carried_count;
    unsigned repeats; /* duplicates that were answered */
};

struct line {
    struct daemon *daemon;
    bool is_faulty, is_over;
    size_t in, out; /* bytes so far */
};

/* ---- The daemon --------------------------------------------------------------------------- */

static void hang_up(struct line *line, bool is_reset)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    struct peer *peer = &line->daemon->peer;

    if (is_reset)
        (void)setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    peer_hang_up(peer);
    line->is_over = true;
}

/* Reads and drops, until the client has enough. */
static void fall_silent(struct line *line)
{
    uint8_t piece[256];

    while (recv(line->daemon->peer.fd, piece, sizeof(piece), 0) > 0)
        ;
    hang_up(line, false);
}

static void have_fault(struct line *line)
{
    struct pollfd never = {.fd = -1};

    line->is_faulty = false;
    switch (line->daemon->plan.fault) {
    case CLOSE:
    case RESET:
        hang_up(line, line->daemon->plan.fault == RESET);
        return;
    case HALF_CLOSE:
        (void)shutdown(line->daemon->peer.fd, SHUT_WR);
        fall_silent(line);
        return;
    case SILENCE:
        fall_silent(line);
        return;
    case DELAY:
        (void)poll(&never, 0, 3);
        return;
    case FAULTS:
        break;
    }
    cr_assert(false);
}

static void carry_out(struct daemon *daemon, const struct spb_ttrpc_view *payload)
{
    char text[REPLY_SIZE];

    (void)snprintf(text, sizeof(text), "%.*s", (int)payload->size, (const char *)payload->data);
    for (size_t i = 0; i < daemon->carried_count; i++) {
        if (strcmp(daemon->carried_out[i], text) == 0) {
            daemon->repeats++;
            return;
        }
    }
    cr_assert(daemon->carried_count < CARRIED_MAX);
    memcpy(daemon->carried_out[daemon->carried_count++], text, sizeof(text));
}

static void reply(struct line *line, const uint8_t *frame, size_t size)
{
    for (size_t i = 0; i < size && !line->is_over; i++) {
        if (line->is_faulty && line->out == line->daemon->plan.out_limit)
            have_fault(line);
        if (line->is_over || send(line->daemon->peer.fd, frame + i, 1, MSG_NOSIGNAL) != 1)
            return;
        line->out++;
    }
    if (!line->is_over && line->is_faulty && line->out == line->daemon->plan.out_limit)
        have_fault(line);
}

static void take_request(struct line *line, const struct spb_ttrpc_header *header,
                         const uint8_t *data)
{
    struct spb_ttrpc_response response = {.code = 0};
    struct spb_ttrpc_request request;
    size_t size;

    cr_assert(spb_is_ok(spb_ttrpc_request_decode(data, header->length, &request, NULL)));
    cr_assert(request.timeout_ns > 0);
    if (request.method.size == 4 && memcmp(request.method.data, "Ping", 4) != 0)
        cr_assert(false, "an unknown method");
    if (request.method.size != 4)
        carry_out(line->daemon, &request.payload);
    response.payload = request.payload;
    uint8_t *frame = peer_frame(header->stream, &response, &size);
    reply(line, frame, size);
    free(frame);
}

static void take_byte(struct line *line, struct spb_ttrpc_parser *parser, uint8_t byte)
{
    enum spb_ttrpc_event event;
    struct spb_ttrpc_header header;
    const uint8_t *data;
    size_t used;

    cr_assert(
        spb_is_ok(spb_ttrpc_parser_feed(parser, &byte, 1, &used, &event, &header, &data, NULL)));
    cr_assert(event == SPB_TTRPC_FRAME || event == SPB_TTRPC_NEED_MORE);
    line->in++;
    if (event == SPB_TTRPC_FRAME)
        take_request(line, &header, data);
}

static void serve_line(struct line *line)
{
    struct spb_ttrpc_parser parser;
    uint8_t byte;

    spb_ttrpc_parser_init(&parser, SPB_TTRPC_DATA_MAX);
    while (!line->is_over) {
        if (line->is_faulty && line->in == line->daemon->plan.in_limit) {
            have_fault(line);
        } else if (recv(line->daemon->peer.fd, &byte, 1, 0) == 1) {
            take_byte(line, &parser, byte);
        } else {
            hang_up(line, false);
        }
    }
    spb_ttrpc_parser_done(&parser);
}

/* Until the listener is shut down. */
static void *run_daemon(void *user)
{
    struct daemon *daemon = user;

    for (;;) {
        struct line line = {.daemon = daemon};
        int fd = accept4(daemon->peer.listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        daemon->peer.fd = fd;
        peer_bound(fd);
        line.is_faulty = daemon->connections++ < daemon->plan.faulty;
        serve_line(&line);
    }
}

static void daemon_start(struct daemon *daemon, const struct plan *plan)
{
    *daemon = (struct daemon){.peer = peer_listen_tcp(), .plan = *plan};
    cr_assert_eq(pthread_create(&daemon->peer.thread, NULL, run_daemon, daemon), 0);
}

static void daemon_end(struct daemon *daemon)
{
    cr_assert_eq(shutdown(daemon->peer.listener, SHUT_RDWR), 0);
    cr_assert_eq(pthread_join(daemon->peer.thread, NULL), 0);
    peer_done(&daemon->peer);
}

/* ---- Calls -------------------------------------------------------------------------------- */

static struct spb_client *open_quick(const struct daemon *daemon)
{
    struct spb_client_options options;
    struct spb_client *client;
    struct spb_error err;

    spb_client_options_init(&options);
    options.backoff_base_ms = 1;
    options.backoff_cap_ms = 4;
    options.keepalive_ms = daemon->plan.fault == SILENCE ? 15 : 20000;
    spb_status status = spb_client_open_with(daemon->peer.endpoint, &options, &client, &err);
    cr_assert(spb_is_ok(status), "%s", err.text);
    return client;
}

static void call_once(const struct plan *plan)
{
    struct spb_client_failure failure;
    struct daemon daemon;
    struct spb_error err;
    uint8_t *got = NULL;
    size_t size = 0;

    daemon_start(&daemon, plan);
    struct spb_client *client = open_quick(&daemon);
    spb_status status = spb_client_call(client, "test.Echo", "Change", "put 1", 5, 20000, &got,
                                        &size, &failure, &err);
    const char *what = fault_names[plan->fault];
    cr_assert(spb_is_ok(status), "%s at %zu, %zu: %s", what, plan->in_limit, plan->out_limit,
              err.text);
    cr_assert_eq(size, 5);
    cr_assert_arr_eq(got, "put 1", 5);
    free(got);
    spb_client_close(client);
    daemon_end(&daemon);
    cr_assert_eq(daemon.carried_count, 1, "%s at %zu, %zu", what, plan->in_limit, plan->out_limit);
    unsigned extra = plan->fault == DELAY ? 0 : plan->faulty;
    unsigned repeats = plan->out_limit == SIZE_MAX ? 0 : extra;
    /* On a busy machine a good connection may be silent for that long too. */
    bool is_exact = plan->fault != SILENCE;
    cr_assert(daemon.connections >= 1 + extra && (!is_exact || daemon.connections == 1 + extra),
              "%s at %zu, %zu: %u connections", what, plan->in_limit, plan->out_limit,
              daemon.connections);
    cr_assert(daemon.repeats >= repeats && (!is_exact || daemon.repeats == repeats),
              "a lost answer means a duplicate, a lost request does not");
}

/* Bytes of the call and of its answer, as they are without a fault. */
static void measure(size_t *request, size_t *response)
{
    struct spb_ttrpc_response answer = {.code = 0};
    struct spb_ttrpc_request call = {.timeout_ns = INT64_C(20000000000)};

    call.service = peer_view("test.Echo");
    call.method = peer_view("Change");
    call.payload = answer.payload = peer_view("put 1");
    *request = SPB_TTRPC_HEADER_SIZE + spb_ttrpc_request_size(&call);
    *response = SPB_TTRPC_HEADER_SIZE + spb_ttrpc_response_size(&answer);
}

static void at_every_byte(enum fault fault, unsigned faulty)
{
    size_t request, response;

    measure(&request, &response);
    for (size_t at = 0; at < request; at++) {
        const struct plan plan = {fault, at, SIZE_MAX, faulty};
        call_once(&plan);
    }
    for (size_t at = 0; at < response; at++) {
        const struct plan plan = {fault, SIZE_MAX, at, faulty};
        call_once(&plan);
    }
}

Test(client_faults, closed_at_every_byte)
{
    at_every_byte(CLOSE, 1);
    at_every_byte(CLOSE, 3);
}

Test(client_faults, reset_at_every_byte)
{
    at_every_byte(RESET, 1);
    at_every_byte(RESET, 2);
}

Test(client_faults, half_closed_at_every_byte)
{
    at_every_byte(HALF_CLOSE, 1);
}

Test(client_faults, silent_from_every_byte)
{
    at_every_byte(SILENCE, 1);
}

Test(client_faults, delayed_at_every_byte)
{
    at_every_byte(DELAY, 1);
}

/* ---- Many in flight ----------------------------------------------------------------------- */

#define MANY 6u

static void many_with(const struct plan *plan)
{
    struct witness witnesses[MANY];
    struct daemon daemon;
    char payloads[MANY][REPLY_SIZE];

    memset(witnesses, 0, sizeof(witnesses));
    daemon_start(&daemon, plan);
    struct spb_client *client = open_quick(&daemon);
    for (size_t i = 0; i < MANY; i++) {
        (void)snprintf(payloads[i], sizeof(payloads[i]), "put %zu", i);
        cr_assert(
            spb_is_ok(spb_client_start(client, "s", "Change", payloads[i], strlen(payloads[i]),
                                       20000, witness_reply, &witnesses[i], NULL)));
    }
    while (spb_client_in_flight(client) > 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    for (size_t i = 0; i < MANY; i++) {
        cr_assert_eq(witnesses[i].count, 1);
        cr_assert_str_eq(witnesses[i].payload, payloads[i], "%s", witnesses[i].text);
    }
    spb_client_close(client);
    daemon_end(&daemon);
    cr_assert_eq(daemon.carried_count, MANY);
    for (size_t i = 0; i < MANY; i++) {
        cr_assert_eq(witnesses[i].count, 1);
        cr_assert_str_eq(daemon.carried_out[i], payloads[i], "carried out in order");
    }
}

Test(client_faults, many_in_flight_closed_at_every_byte)
{
    for (size_t at = 0; at < 220; at++) {
        const struct plan in = {at % 2 == 0 ? CLOSE : RESET, at, SIZE_MAX, 2};
        const struct plan out = {at % 2 == 0 ? CLOSE : RESET, SIZE_MAX, at, 2};
        many_with(&in);
        many_with(&out);
    }
}

/* A link that never lets a whole call through: it ends within its time, with a reason. */
Test(client_faults, link_that_stays_bad)
{
    static const enum fault faults[] = {CLOSE, RESET, HALF_CLOSE, SILENCE};

    for (size_t i = 0; i < 4; i++) {
        const struct plan plan = {faults[i], 20, SIZE_MAX, 1000000};
        struct spb_client_failure failure;
        struct daemon daemon;
        struct spb_error err;
        uint8_t *got;
        size_t size;

        daemon_start(&daemon, &plan);
        struct spb_client *client = open_quick(&daemon);
        spb_status status = spb_client_call(client, "test.Echo", "Change", "put 1", 5, 600, &got,
                                            &size, &failure, &err);
        cr_assert(status.code == SPB_UNREACHABLE || status.code == SPB_DEADLINE);
        cr_assert_eq(failure.rpc_code, -1);
        cr_assert(daemon.connections == 1 || strstr(err.text, "tried") != NULL, "%s", err.text);
        spb_client_close(client);
        daemon_end(&daemon);
        cr_assert_eq(daemon.carried_count, 0);
        cr_assert(daemon.connections <= 70, "%u connections", daemon.connections);
    }
}
