/* Calls over real sockets: order, errors, deadlines, lost and hostile peers, callbacks once each.
 */
#include "test_client_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "client_state.h"

/* Drives the client until `count` calls of the witness have ended. */
static void wait_for(struct spb_client *client, const struct witness *witness, size_t count)
{
    while (witness->count < count && spb_is_ok(spb_client_wait(client, 20000, NULL)))
        cr_assert(witness->count >= count || spb_client_in_flight(client) > 0);
    cr_assert_eq(witness->count, count);
}

static void *echo_once(void *user)
{
    struct peer *peer = user;

    peer_accept(peer);
    peer_echo(peer, 1);
    return NULL;
}

static void call_over(struct peer peer)
{
    struct spb_client *client;
    struct spb_client_failure failure;
    struct spb_error err;
    uint8_t *reply;
    size_t size;

    cr_assert_eq(pthread_create(&peer.thread, NULL, echo_once, &peer), 0);
    cr_assert(spb_is_ok(spb_client_open(peer.endpoint, 10000, &client, &err)));
    cr_assert(fcntl(spb_client_fd(client), F_GETFD) & FD_CLOEXEC);
    spb_status status = spb_client_call(client, "test.Echo", "Say", "hello", 5, 10000, &reply,
                                        &size, &failure, &err);
    cr_assert(spb_is_ok(status), "%s", err.text);
    cr_assert_eq(size, 5);
    cr_assert_arr_eq(reply, "hello", 5);
    free(reply);
    cr_assert_eq(pthread_join(peer.thread, NULL), 0);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_calls, one_over_unix)
{
    call_over(peer_listen_unix(16));
}

Test(client_calls, one_over_tcp)
{
    call_over(peer_listen_tcp());
}

Test(client_calls, host_name_is_looked_up)
{
    struct peer peer = peer_listen_tcp();
    char port[16];

    (void)snprintf(port, sizeof(port), "%s", strrchr(peer.endpoint, ':'));
    (void)snprintf(peer.endpoint, sizeof(peer.endpoint), "tcp://localhost%s", port);
    call_over(peer);
}

Test(client_calls, request_as_it_is_on_the_wire)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};

    witness_start(&witness, client, "one", 2000);
    witness_start(&witness, client, "two", SPB_CLIENT_NO_TIMEOUT);
    cr_assert_eq(spb_client_wants(client), SPB_CLIENT_READ | SPB_CLIENT_WRITE);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert_eq(spb_client_wants(client), SPB_CLIENT_READ);
    struct peer_request one = peer_receive(&peer), two = peer_receive(&peer);
    cr_assert_eq(one.header.stream, 1);
    cr_assert_eq(two.header.stream, 3);
    cr_assert_eq(one.request.timeout_ns, 2000000000);
    cr_assert_eq(two.request.timeout_ns, 0);
    cr_assert_eq(one.request.service.size, strlen("test.Echo"));
    cr_assert_arr_eq(one.request.service.data, "test.Echo", one.request.service.size);
    cr_assert_arr_eq(one.request.method.data, "Say", 3);
    cr_assert_arr_eq(two.request.payload.data, "two", 3);
    int64_t timeout = spb_client_timeout_ms(client);
    cr_assert(timeout > 0 && timeout <= 2000);
    free(one.data);
    free(two.data);
    spb_client_close(client);
    cr_assert_eq(witness.count, 2);
    peer_done(&peer);
}

#define MANY 64

Test(client_calls, many_in_flight_answered_in_reverse)
{
    struct peer peer = peer_listen_tcp();
    struct spb_client *client = peer_client(&peer);
    struct witness witnesses[MANY];
    struct peer_request got[MANY];

    memset(witnesses, 0, sizeof(witnesses));
    for (size_t i = 0; i < MANY; i++) {
        char payload[32];
        (void)snprintf(payload, sizeof(payload), "call %zu", i);
        witness_start(&witnesses[i], client, payload, 20000);
    }
    cr_assert_eq(spb_client_in_flight(client), MANY);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    for (size_t i = 0; i < MANY; i++)
        got[i] = peer_receive(&peer);
    for (size_t i = MANY; i > 0; i--) {
        struct spb_ttrpc_view payload = got[i - 1].request.payload;
        peer_answer_bytes(&peer, got[i - 1].header.stream, payload.data, payload.size);
        wait_for(client, &witnesses[i - 1], 1);
        free(got[i - 1].data);
    }
    for (size_t i = 0; i < MANY; i++) {
        char expected[32];
        (void)snprintf(expected, sizeof(expected), "call %zu", i);
        cr_assert_eq(witnesses[i].count, 1);
        cr_assert_str_eq(witnesses[i].payload, expected);
        cr_assert_eq(witnesses[i].last.rpc_code, 0);
    }
    cr_assert_eq(spb_client_in_flight(client), 0);
    cr_assert_eq(spb_client_timeout_ms(client), SPB_CLIENT_NO_TIMEOUT);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_calls, error_with_details)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};
    struct spb_ttrpc_response response = {.code = 10, .details_count = 2};

    response.message = peer_view("put of parameter 7: generation is 4, expected 3");
    response.details[0].type_url = peer_view("type.googleapis.com/google.rpc.BadRequest");
    response.details[1].type_url = peer_view("type.googleapis.com/google.rpc.ErrorInfo");
    response.details[1].value = peer_view("\x0a\x13GENERATION_MISMATCH\x12\x0aspaceblock");
    witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    struct peer_request got = peer_receive(&peer);
    peer_answer(&peer, got.header.stream, &response);
    wait_for(client, &witness, 1);
    cr_assert_eq(witness.last.status.code, SPB_GENERATION);
    cr_assert_eq(witness.last.rpc_code, 10);
    cr_assert_str_eq(witness.last.reason, "GENERATION_MISMATCH");
    cr_assert_str_eq(witness.text, "put of parameter 7: generation is 4, expected 3");
    free(got.data);
    spb_client_close(client);
    peer_done(&peer);
}

static void *refuse_once(void *user)
{
    struct peer *peer = user;
    struct spb_ttrpc_response response = {.code = 5};

    peer_accept(peer);
    struct peer_request got = peer_receive(peer);
    response.message = peer_view("nope");
    peer_answer(peer, got.header.stream, &response);
    free(got.data);
    return NULL;
}

Test(client_calls, synchronous_failure_tells_code_and_text)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client;
    struct spb_client_failure failure = {.rpc_code = 99};
    struct spb_error err;
    uint8_t *reply = (uint8_t *)&peer;
    size_t size = 42;

    cr_assert_eq(pthread_create(&peer.thread, NULL, refuse_once, &peer), 0);
    cr_assert(spb_is_ok(spb_client_open(peer.endpoint, 10000, &client, &err)));
    spb_status status =
        spb_client_call(client, "s", "m", NULL, 0, 10000, &reply, &size, &failure, &err);
    cr_assert_eq(status.code, SPB_NOT_FOUND);
    cr_assert_eq(err.code, SPB_NOT_FOUND);
    cr_assert_str_eq(err.text, "nope");
    cr_assert_eq(failure.rpc_code, 5);
    cr_assert_str_empty(failure.reason);
    cr_assert(reply == (uint8_t *)&peer && size == 42, "outputs are untouched");
    cr_assert_eq(pthread_join(peer.thread, NULL), 0);
    spb_client_close(client);
    peer_done(&peer);
}

/* ---- Deadlines ---------------------------------------------------------------------------- */

Test(client_calls, deadline_passes_and_the_late_answer_is_dropped)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness late = {.count = 0}, next = {.count = 0};

    witness_start(&late, client, "late", 20);
    wait_for(client, &late, 1);
    cr_assert_eq(late.last.status.code, SPB_DEADLINE);
    cr_assert_eq(late.last.rpc_code, -1);
    cr_assert_not_null(strstr(late.text, "test.Echo/Say"), "%s", late.text);
    cr_assert_eq(spb_client_in_flight(client), 0);
    witness_start(&next, client, "next", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_echo(&peer, 2); /* the late one first */
    wait_for(client, &next, 1);
    cr_assert_str_eq(next.payload, "next");
    cr_assert_eq(late.count, 1);
    spb_client_close(client);
    cr_assert_eq(late.count + next.count, 2);
    peer_done(&peer);
}

Test(client_calls, deadlines_end_in_their_own_order)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness long_one = {.count = 0}, short_one = {.count = 0}, none = {.count = 0};

    witness_start(&none, client, "none", SPB_CLIENT_NO_TIMEOUT);
    witness_start(&long_one, client, "long", 20000);
    witness_start(&short_one, client, "short", 10);
    wait_for(client, &short_one, 1);
    cr_assert_eq(long_one.count + none.count, 0);
    cr_assert_eq(spb_client_in_flight(client), 2);
    spb_client_close(client);
    cr_assert_eq(long_one.count, 1);
    cr_assert_eq(none.count, 1);
    peer_done(&peer);
}

Test(client_calls, synchronous_deadline)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct spb_client_failure failure;
    uint8_t *reply;
    size_t size;

    for (int64_t timeout_ms = 0; timeout_ms < 20; timeout_ms += 10) {
        spb_status status =
            spb_client_call(client, "s", "m", "x", 1, timeout_ms, &reply, &size, &failure, NULL);
        cr_assert_eq(status.code, SPB_DEADLINE);
        cr_assert_eq(failure.rpc_code, -1);
    }
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_calls, wait_ends_with_its_own_timeout)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};

    cr_assert(spb_is_ok(spb_client_wait(client, SPB_CLIENT_NO_TIMEOUT, NULL)),
              "nothing to wait for");
    witness_start(&witness, client, "x", SPB_CLIENT_NO_TIMEOUT);
    cr_assert(spb_is_ok(spb_client_wait(client, 0, NULL)));
    cr_assert(spb_is_ok(spb_client_wait(client, 15, NULL)));
    cr_assert_eq(witness.count, 0);
    struct peer_request got = peer_receive(&peer);
    cr_assert_eq(got.header.stream, 1, "it was sent all the same");
    free(got.data);
    spb_client_close(client);
    peer_done(&peer);
}

/* ---- Lost connections --------------------------------------------------------------------- */

static void expect_lost(struct spb_client *client, enum spb_code code)
{
    struct witness witness = {.count = 0};
    struct spb_error err;

    cr_assert_eq(spb_client_ready(client, &err).code, code);
    cr_assert_eq(spb_client_wait(client, 1000, &err).code, code);
    cr_assert_eq(
        spb_client_start(client, "s", "m", "", 0, 1000, witness_reply, &witness, &err).code,
        SPB_UNREACHABLE);
    cr_assert(err.text[0] != '\0');
    cr_assert_eq(witness.count, 0);
    cr_assert_eq(spb_client_wants(client), 0);
    cr_assert_eq(spb_client_in_flight(client), 0);
    cr_assert_eq(spb_client_timeout_ms(client), SPB_CLIENT_NO_TIMEOUT);
}

Test(client_calls, peer_closes_in_mid_call)
{
    struct peer peer = peer_listen_tcp();
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};
    struct spb_error err;

    for (int i = 0; i < 10; i++)
        witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_echo(&peer, 3); /* these count */
    struct peer_request got[7];
    for (int i = 0; i < 7; i++) {
        got[i] = peer_receive(&peer);
        free(got[i].data);
    }
    peer_hang_up(&peer);
    while (spb_is_ok(spb_client_wait(client, 20000, &err)))
        cr_assert(spb_client_in_flight(client) > 0);
    cr_assert_eq(err.code, SPB_UNREACHABLE);
    cr_assert_eq(witness.count, 10);
    cr_assert_eq(witness.last.status.code, SPB_UNREACHABLE);
    cr_assert_eq(witness.last.rpc_code, -1);
    expect_lost(client, SPB_UNREACHABLE);
    spb_client_close(client);
    cr_assert_eq(witness.count, 10);
    peer_done(&peer);
}

Test(client_calls, answers_before_the_end_still_count)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};

    witness_start(&witness, client, "answered", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_echo(&peer, 1);
    peer_hang_up(&peer);
    /* more to send, so that the loss is noticed by sending first */
    struct witness other = {.count = 0};
    witness_start(&other, client, "not answered", 20000);
    wait_for(client, &witness, 1);
    cr_assert(spb_is_ok(witness.last.status));
    cr_assert_str_eq(witness.payload, "answered");
    cr_assert_eq(other.count, 1);
    cr_assert_eq(other.last.status.code, SPB_UNREACHABLE);
    expect_lost(client, SPB_UNREACHABLE);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_calls, end_in_the_middle_of_an_answer_says_so)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};
    const uint8_t part[] = {0, 0, 0, 9, 0, 0, 0, 1, 2, 0, 0x12};

    witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_write(&peer, part, sizeof(part));
    cr_assert_eq(shutdown(peer.fd, SHUT_WR), 0);
    wait_for(client, &witness, 1);
    cr_assert_not_null(strstr(witness.text, "in the middle of an answer"), "%s", witness.text);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_calls, close_with_calls_in_flight)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};

    for (int i = 0; i < 100; i++)
        witness_start(&witness, client, "x", i % 2 == 0 ? 20000 : SPB_CLIENT_NO_TIMEOUT);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert_eq(witness.count, 0);
    spb_client_close(client);
    cr_assert_eq(witness.count, 100);
    cr_assert_eq(witness.last.status.code, SPB_UNREACHABLE);
    peer_done(&peer);
    spb_client_close(NULL);
}

/* ---- Hostile peers ------------------------------------------------------------------------ */

static void expect_protocol_loss(const void *bytes, size_t n)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};

    for (int i = 0; i < 3; i++)
        witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_write(&peer, bytes, n);
    wait_for(client, &witness, 3);
    cr_assert_eq(witness.last.status.code, SPB_PROTOCOL);
    cr_assert_eq(witness.last.rpc_code, -1);
    expect_lost(client, SPB_PROTOCOL);
    spb_client_close(client);
    cr_assert_eq(witness.count, 3);
    peer_done(&peer);
}

Test(client_calls, garbage_loses_the_connection)
{
    expect_protocol_loss("SSH-2.0-OpenSSH_9.2\r\n", 21);
}

Test(client_calls, answers_on_wrong_streams_lose_the_connection)
{
    static const uint8_t unknown[] = {0, 0, 0, 0, 0, 0, 0, 7, 2, 0};
    static const uint8_t even[] = {0, 0, 0, 0, 0, 0, 0, 2, 2, 0};
    static const uint8_t zero[] = {0, 0, 0, 0, 0, 0, 0, 0, 2, 0};
    static const uint8_t too_large[] = {0, 0x50, 0, 0, 0, 0, 0, 99, 2, 0};

    expect_protocol_loss(unknown, sizeof(unknown));
    expect_protocol_loss(even, sizeof(even));
    expect_protocol_loss(zero, sizeof(zero));
    expect_protocol_loss(too_large, sizeof(too_large));
}

Test(client_calls, second_answer_loses_the_connection)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};

    witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_echo(&peer, 1);
    peer_answer_bytes(&peer, 1, "again", 5);
    wait_for(client, &witness, 1);
    cr_assert(spb_is_ok(witness.last.status));
    expect_lost(client, SPB_PROTOCOL);
    spb_client_close(client);
    cr_assert_eq(witness.count, 1);
    peer_done(&peer);
}

Test(client_calls, answer_that_does_not_parse_ends_its_call_alone)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness bad = {.count = 0}, good = {.count = 0};
    const uint8_t broken[] = {0, 0, 0, 2, 0, 0, 0, 1, 2, 0, 0x12, 0x7f};
    const uint8_t other_type[] = {0, 0, 0, 1, 0, 0, 0, 3, 99, 0, 0xff};

    witness_start(&bad, client, "bad", 20000);
    witness_start(&good, client, "good", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_write(&peer, other_type, sizeof(other_type)); /* ignored */
    peer_write(&peer, broken, sizeof(broken));
    wait_for(client, &bad, 1);
    cr_assert_eq(bad.last.status.code, SPB_PROTOCOL);
    cr_assert_eq(bad.last.rpc_code, -1);
    cr_assert_eq(good.count, 0);
    peer_answer_bytes(&peer, 3, "fine", 4);
    wait_for(client, &good, 1);
    cr_assert_str_eq(good.payload, "fine");
    spb_client_close(client);
    peer_done(&peer);
}

static void *send_too_large(void *user)
{
    struct peer *peer = user;
    const struct spb_ttrpc_header header = {SPB_TTRPC_DATA_MAX + 1, 1, 2, 0};
    uint8_t head[SPB_TTRPC_HEADER_SIZE];
    uint8_t *data = calloc(1, SPB_TTRPC_DATA_MAX + 1);

    spb_ttrpc_header_encode(&header, head);
    peer_write(peer, head, sizeof(head));
    peer_write(peer, data, SPB_TTRPC_DATA_MAX + 1);
    peer_answer_bytes(peer, 3, "fine", 4);
    free(data);
    return NULL;
}

Test(client_calls, oversized_answer_ends_its_call_alone)
{
    struct peer peer = peer_listen_tcp();
    struct spb_client *client = peer_client(&peer);
    struct witness large = {.count = 0}, good = {.count = 0};

    witness_start(&large, client, "large", 20000);
    witness_start(&good, client, "good", 20000);
    cr_assert_eq(pthread_create(&peer.thread, NULL, send_too_large, &peer), 0);
    wait_for(client, &good, 1);
    cr_assert_str_eq(good.payload, "fine");
    cr_assert_eq(large.count, 1);
    cr_assert_eq(large.last.status.code, SPB_PROTOCOL);
    cr_assert_eq(pthread_join(peer.thread, NULL), 0);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_calls, peer_that_sends_byte_by_byte)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};
    struct spb_ttrpc_response response = {.code = 0};
    size_t size;

    witness_start(&witness, client, "x", 20000);
    response.payload = peer_view("slow but whole");
    uint8_t *frame = peer_frame(1, &response, &size);
    for (size_t i = 0; i < size; i++) {
        cr_assert_eq(witness.count, 0);
        peer_write(&peer, frame + i, 1);
        cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    }
    cr_assert_eq(witness.count, 1);
    cr_assert_str_eq(witness.payload, "slow but whole");
    free(frame);
    spb_client_close(client);
    peer_done(&peer);
}

/* ---- Callbacks ---------------------------------------------------------------------------- */

struct chain {
    struct spb_client *client;
    size_t left, ended;
    struct spb_error err;
};

/* Starts the next call from inside; everything else that a callback may not do is refused. */
static void chain_next(void *user, const struct spb_client_reply *reply)
{
    struct chain *chain = user;
    uint8_t *out;
    size_t size;

    chain->ended++;
    cr_assert_eq(spb_client_ready(chain->client, NULL).code, SPB_INVALID);
    cr_assert_eq(spb_client_wait(chain->client, 0, NULL).code, SPB_INVALID);
    cr_assert_eq(spb_client_call(chain->client, "s", "m", "", 0, 10, &out, &size, NULL, NULL).code,
                 SPB_INVALID);
    if (chain->left == 0 || !spb_is_ok(reply->status))
        return;
    chain->left--;
    for (int i = 0; i < 2; i++)
        cr_assert(spb_is_ok(spb_client_start(chain->client, "test.Echo", "Say", "n", 1, 20000,
                                             chain_next, chain, &chain->err)));
}

Test(client_calls, callbacks_start_further_calls)
{
    struct peer peer = peer_listen_tcp();
    struct spb_client *client = peer_client(&peer);
    struct chain chain = {.client = client, .left = 200};

    cr_assert(spb_is_ok(
        spb_client_start(client, "test.Echo", "Say", "n", 1, 20000, chain_next, &chain, NULL)));
    while (chain.ended < 401) {
        size_t waiting = spb_client_in_flight(client), ended = chain.ended;
        cr_assert(spb_is_ok(spb_client_wait(client, 0, NULL)));
        peer_echo(&peer, waiting);
        while (chain.ended < ended + waiting)
            cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
        cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    }
    cr_assert_eq(chain.ended, 401);
    cr_assert_eq(spb_client_in_flight(client), 0);
    spb_client_close(client);
    peer_done(&peer);
}

static void start_one_more(void *user, const struct spb_client_reply *reply)
{
    struct chain *chain = user;

    cr_assert(spb_is_ok(reply->status));
    chain->ended++;
    if (chain->left > 0) {
        chain->left--;
        cr_assert(spb_is_ok(spb_client_start(chain->client, "test.Echo", "Say", "n", 1, 20000,
                                             start_one_more, chain, &chain->err)));
    }
}

static void *echo_forty(void *user)
{
    peer_echo(user, 40);
    return NULL;
}

Test(client_calls, loop_of_the_callers_own)
{
    struct peer peer = peer_listen_unix(16);
    struct chain chain = {.client = peer_client(&peer), .left = 39};

    cr_assert_eq(pthread_create(&peer.thread, NULL, echo_forty, &peer), 0);
    cr_assert(spb_is_ok(spb_client_start(chain.client, "test.Echo", "Say", "n", 1, 20000,
                                         start_one_more, &chain, NULL)));
    while (spb_client_in_flight(chain.client) > 0) {
        unsigned wants = spb_client_wants(chain.client);
        struct pollfd wanted = {.fd = spb_client_fd(chain.client)};
        int64_t timeout = spb_client_timeout_ms(chain.client);
        cr_assert(timeout >= 0 && timeout <= 20000);
        if (wants & SPB_CLIENT_READ)
            wanted.events |= POLLIN;
        if (wants & SPB_CLIENT_WRITE)
            wanted.events |= POLLOUT;
        cr_assert_eq(poll(&wanted, 1, (int)timeout), 1);
        cr_assert(spb_is_ok(spb_client_ready(chain.client, NULL)));
        cr_assert_eq(spb_client_wants(chain.client), SPB_CLIENT_READ,
                     "what a callback starts leaves in the same turn");
    }
    cr_assert_eq(chain.ended, 40);
    cr_assert_eq(pthread_join(peer.thread, NULL), 0);
    spb_client_close(chain.client);
    peer_done(&peer);
}

/* A call that is started from a callback of close is refused; it is not lost. */
static void start_again(void *user, const struct spb_client_reply *reply)
{
    struct chain *chain = user;

    chain->ended++;
    cr_assert_eq(reply->status.code, SPB_UNREACHABLE);
    cr_assert_eq(
        spb_client_start(chain->client, "s", "m", "", 0, 10, start_again, chain, NULL).code,
        SPB_UNREACHABLE);
}

Test(client_calls, callback_of_close_cannot_start_a_call)
{
    struct peer peer = peer_listen_unix(16);
    struct chain chain = {.client = peer_client(&peer)};

    for (int i = 0; i < 5; i++)
        cr_assert(spb_is_ok(
            spb_client_start(chain.client, "s", "m", "", 0, 20000, start_again, &chain, NULL)));
    spb_client_close(chain.client);
    cr_assert_eq(chain.ended, 5);
    peer_done(&peer);
}

/* ---- Large and many ----------------------------------------------------------------------- */

static void *echo_thread(void *user)
{
    peer_echo(user, 12);
    return NULL;
}

Test(client_calls, large_requests_and_answers_pass_both_ways_at_once)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    size_t size = (size_t)1 << 20;
    char *payload = malloc(size);
    struct witness witness = {.count = 0};

    memset(payload, 'p', size);
    for (int i = 0; i < 12; i++)
        cr_assert(spb_is_ok(spb_client_start(client, "test.Echo", "Say", payload, size, 20000,
                                             witness_reply, &witness, NULL)));
    cr_assert_eq(pthread_create(&peer.thread, NULL, echo_thread, &peer), 0);
    wait_for(client, &witness, 12);
    cr_assert_eq(witness.last.payload_size, size);
    cr_assert_eq(client->session.outbox.size, 0, "the large buffer was given back");
    cr_assert_eq(pthread_join(peer.thread, NULL), 0);
    free(payload);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_calls, request_over_the_limit_is_refused)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};
    uint8_t *payload = calloc(1, SPB_TTRPC_DATA_MAX);
    struct spb_error err;

    cr_assert_eq(spb_client_start(client, "s", "m", payload, SPB_TTRPC_DATA_MAX, 20000,
                                  witness_reply, &witness, &err)
                     .code,
                 SPB_LIMIT);
    cr_assert_eq(spb_client_in_flight(client), 0);
    cr_assert_eq(spb_client_wants(client), SPB_CLIENT_READ);
    /* s and m take 3 bytes each, the payload's head 4 */
    cr_assert(spb_is_ok(spb_client_start(client, "s", "m", payload, SPB_TTRPC_DATA_MAX - 11, -1,
                                         witness_reply, &witness, &err)));
    free(payload);
    spb_client_close(client);
    cr_assert_eq(witness.count, 1);
    peer_done(&peer);
}

Test(client_calls, stream_ids_end_before_two_to_the_31)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client *client = peer_client(&peer);
    struct witness witness = {.count = 0};
    struct spb_error err;

    client->session.next_stream = 0x7FFFFFFF;
    witness_start(&witness, client, "last", 20000);
    cr_assert_eq(
        spb_client_start(client, "s", "m", "", 0, 20000, witness_reply, &witness, &err).code,
        SPB_LIMIT);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    struct peer_request got = peer_receive(&peer);
    cr_assert_eq(got.header.stream, 0x7FFFFFFF);
    peer_answer_bytes(&peer, got.header.stream, "ok", 2);
    free(got.data);
    wait_for(client, &witness, 1);
    cr_assert_str_eq(witness.payload, "ok");
    spb_client_close(client);
    peer_done(&peer);
}
