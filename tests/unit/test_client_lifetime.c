/* The connections of a client that reconnects: idle, dead, slow, used up; hostile peers, closing.
 */
#include "test_client_script.h"

#include <poll.h>

#include "link.h"

/* ---- Idle, dead and used up connections --------------------------------------------------- */

Test(client_link, idle_connection_that_was_closed_is_replaced_for_nothing)
{
    static const enum act acts[] = {ACT_ECHO, ACT_HANG_UP, ACT_ECHO, ACT_HANG_UP, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    options.retry_burst = 0;
    script_start(&script, peer_listen_tcp(), acts);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    struct result result = call(client, "one", 20000);
    cr_assert(spb_is_ok(result.status), "%s", result.err.text);
    struct pollfd closed = {.fd = spb_client_fd(client), .events = POLLIN};
    cr_assert_eq(poll(&closed, 1, 20000), 1, "the daemon closes it");
    result = call(client, "two", 20000);
    cr_assert(spb_is_ok(result.status), "%s", result.err.text);
    closed.fd = spb_client_fd(client);
    cr_assert_eq(poll(&closed, 1, 20000), 1);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert_eq(spb_client_fd(client), -1, "no call needs another");
    cr_assert_eq(spb_client_wants(client), 0);
    cr_assert_eq(spb_client_timeout_ms(client), SPB_CLIENT_NO_TIMEOUT);
    spb_client_close(client);
    script_end(&script);
    cr_assert_eq(script.connections, 2);
}

/* A peer that takes connections and closes them is no daemon: backoff and budget hold. */
Test(client_link, peer_that_only_hangs_up_is_not_hammered)
{
    static const enum act acts[] = {ACT_HANG_UP, ACT_HANG_UP, ACT_HANG_UP, ACT_HANG_UP, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    options.retry_burst = 3;
    options.retry_percent = 0;
    script_start(&script, peer_listen_tcp(), acts);
    struct result result = call_by(&script, &options, 20000);
    cr_assert_eq(result.status.code, SPB_UNREACHABLE);
    cr_assert_not_null(strstr(result.err.text, "no retries are left"), "%s", result.err.text);
    script_end(&script);
    cr_assert_eq(script.connections, 4);
}

static void drive_until(struct spb_client *client, const struct witness *witness, size_t count)
{
    while (witness->count < count)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
}

Test(client_link, after_a_failure_one_call_goes_first)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client_options options = quick();
    struct witness witness = {.count = 0};
    uint8_t byte;

    struct spb_client *client = open_with(peer.endpoint, &options);
    for (int i = 0; i < 3; i++)
        witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_accept(&peer);
    for (int i = 0; i < 3; i++)
        free(peer_receive(&peer).data);
    peer_hang_up(&peer);
    while (client->link->state != SPB_LINK_UP || client->link->retrier.failures == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 5, NULL)));
    peer_accept(&peer);
    struct peer_request call = peer_receive(&peer), ping = peer_receive(&peer);
    cr_assert_arr_eq(call.request.method.data, "Say", 3);
    cr_assert_arr_eq(ping.request.method.data, "Ping", 4);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert_eq(recv(peer.fd, &byte, 1, MSG_DONTWAIT), -1, "the others wait");
    cr_assert_eq(spb_client_in_flight(client), 3);
    peer_answer_bytes(&peer, ping.header.stream, "", 0);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_echo(&peer, 2);
    peer_answer_bytes(&peer, call.header.stream, "late", 4);
    drive_until(client, &witness, 3);
    cr_assert(spb_is_ok(witness.last.status));
    free(call.data);
    free(ping.data);
    spb_client_close(client);
    peer_done(&peer);
}

/* A tunnel whose far end is away takes connections: many calls together cost no more than one. */
Test(client_link, peer_that_hangs_up_costs_one_for_all_calls)
{
    static const enum act acts[] = {ACT_HANG_UP, ACT_HANG_UP, ACT_HANG_UP, ACT_HANG_UP, ACT_HANG_UP,
                                    ACT_HANG_UP, ACT_HANG_UP, ACT_HANG_UP, ACT_END};
    struct spb_client_options options = quick();
    struct witness witness = {.count = 0};
    struct script script;

    options.retry_burst = 10;
    options.retry_percent = 0;
    script_start(&script, peer_listen_unix(16), acts);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    for (int i = 0; i < 4; i++)
        witness_start(&witness, client, "x", 20000);
    drive_until(client, &witness, 1);
    script_end(&script);
    /* 4 of the first connection, one of each of the six that follow, and then none is left */
    cr_assert_eq(script.connections, 8);
    cr_assert_not_null(strstr(witness.text, "no retries are left"), "%s", witness.text);
    spb_client_close(client);
    cr_assert_eq(witness.count, 4);
}

Test(client_link, silent_connection_is_given_up_and_the_call_repeated)
{
    static const enum act acts[] = {ACT_READ, ACT_READ, ACT_GONE, ACT_ECHO, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    options.keepalive_ms = 40;
    script_start(&script, peer_listen_tcp(), acts);
    struct result result = call_by(&script, &options, 20000);
    cr_assert(spb_is_ok(result.status), "%s", result.err.text);
    cr_assert_str_eq(result.payload, "hello");
    cr_assert(result.took_ms >= 80 && result.took_ms < 10000, "%lld", (long long)result.took_ms);
    cr_assert_eq(pthread_join(script.peer.thread, NULL), 0);
    cr_assert_eq(script.count, 3);
    const struct spb_ttrpc_request *ping = &script.got[1].request;
    cr_assert_eq(ping->method.size, 4);
    cr_assert_arr_eq(ping->method.data, "Ping", 4);
    for (size_t i = 0; i < script.count; i++)
        free(script.got[i].data);
    peer_done(&script.peer);
}

Test(client_link, silence_is_told)
{
    static const enum act acts[] = {ACT_READ, ACT_READ, ACT_GONE, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    options.keepalive_ms = 40;
    options.mode = SPB_CLIENT_ONCE;
    script_start(&script, peer_listen_unix(16), acts);
    struct result result = call_by(&script, &options, 20000);
    cr_assert_eq(result.status.code, SPB_UNREACHABLE);
    cr_assert_not_null(strstr(result.err.text, "ping"), "%s", result.err.text);
    script_end(&script);
}

static void drive_until_script_ends(struct spb_client *client, struct peer *peer)
{
    while (pthread_tryjoin_np(peer->thread, NULL) != 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 5, NULL)));
}

Test(client_link, long_call_lives_as_long_as_pings_are_answered)
{
    /* REFUSE: any answer to a ping will do */
    static const enum act acts[] = {ACT_READ, ACT_ECHO, ACT_REFUSE, ACT_END};
    struct spb_client_options options = quick();
    struct witness witness = {.count = 0};
    struct script script;

    options.keepalive_ms = 300;
    script_start(&script, peer_listen_tcp(), acts);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    witness_start(&witness, client, "x", 20000);
    drive_until_script_ends(client, &script.peer);
    cr_assert_eq(witness.count, 0);
    cr_assert_eq(spb_client_in_flight(client), 1, "a ping is no call");
    peer_answer_bytes(&script.peer, script.got[0].header.stream, "late", 4);
    while (witness.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_str_eq(witness.payload, "late");
    cr_assert_eq(spb_client_in_flight(client), 0);
    spb_client_close(client);
    for (size_t i = 0; i < script.count; i++)
        free(script.got[i].data);
    peer_done(&script.peer);
}

/* Takes a little at a time, and never answers. */
static void *read_slowly(void *user)
{
    struct peer *peer = user;
    const size_t total = SPB_TTRPC_HEADER_SIZE + 3000000;
    uint8_t piece[32768];
    struct pollfd never = {.fd = -1};

    peer_accept(peer);
    for (size_t got = 0; got < total;) {
        ssize_t n = recv(peer->fd, piece, sizeof(piece), 0);
        cr_assert(n > 0);
        got += (size_t)n;
        (void)poll(&never, 0, 10); /* a slow link */
    }
    return NULL;
}

Test(client_link, slow_link_that_moves_is_alive)
{
    struct peer peer = peer_listen_tcp();
    struct spb_client_options options = quick();
    struct witness witness = {.count = 0};
    uint8_t *payload = calloc(1, 3000000);

    options.keepalive_ms = 300;
    cr_assert_eq(pthread_create(&peer.thread, NULL, read_slowly, &peer), 0);
    struct spb_client *client = open_with(peer.endpoint, &options);
    cr_assert(spb_is_ok(spb_client_start(client, "s", "m", payload, 3000000, 20000, witness_reply,
                                         &witness, NULL)));
    int64_t end = now_ms() + 700;
    while (now_ms() < end)
        cr_assert(spb_is_ok(spb_client_wait(client, 10, NULL)));
    cr_assert_eq(client->link->retrier.failures, 0, "it was given up");
    drive_until_script_ends(client, &peer);
    cr_assert_eq(client->link->retrier.failures, 0, "it was given up");
    spb_client_close(client);
    cr_assert_eq(witness.count, 1);
    free(payload);
    peer_done(&peer);
}

Test(client_link, stream_ids_that_run_out_mean_a_new_connection)
{
    static const enum act acts[] = {ACT_ECHO, ACT_READ, ACT_END};
    static const enum act then[] = {ACT_ECHO, ACT_END};
    struct spb_client_options options = quick();
    struct witness last = {.count = 0}, next = {.count = 0};
    struct script script, second;

    options.retry_burst = 0;
    script_start(&script, peer_listen_unix(16), acts);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    cr_assert(spb_is_ok(call(client, "first", 20000).status));
    client->session.next_stream = SPB_STREAM_MAX;
    witness_start(&last, client, "last", 20000);
    witness_start(&next, client, "next", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert_eq(pthread_join(script.peer.thread, NULL), 0);
    cr_assert_eq(script.got[1].header.stream, SPB_STREAM_MAX);
    cr_assert(spb_is_ok(spb_client_wait(client, 10, NULL)));
    cr_assert_eq(last.count + next.count, 0, "the old one is still needed");
    peer_answer_bytes(&script.peer, SPB_STREAM_MAX, "ok", 2);
    while (last.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_str_eq(last.payload, "ok");
    peer_hang_up(&script.peer);
    script_start(&second, script.peer, then);
    while (next.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_str_eq(next.payload, "next");
    spb_client_close(client);
    for (size_t i = 0; i < script.count; i++)
        free(script.got[i].data);
    cr_assert_eq(pthread_join(second.peer.thread, NULL), 0);
    cr_assert_eq(second.got[0].header.stream, 1);
    free(second.got[0].data);
    peer_done(&second.peer);
}

/* ---- Hostile and misused ------------------------------------------------------------------ */

Test(client_link, garbage_ends_its_calls_and_the_next_one_gets_a_new_connection)
{
    struct peer peer = peer_listen_unix(16);
    struct spb_client_options options = quick();
    struct witness witness = {.count = 0};

    struct spb_client *client = open_with(peer.endpoint, &options);
    witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_accept(&peer);
    peer_write(&peer, "SSH-2.0-OpenSSH_9.2\r\n", 21);
    while (witness.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_eq(witness.last.status.code, SPB_PROTOCOL, "what broke once breaks again");
    peer_hang_up(&peer);
    witness_start(&witness, client, "y", 20000);
    while (client->link->state != SPB_LINK_UP)
        cr_assert(spb_is_ok(spb_client_wait(client, 5, NULL)));
    peer_accept(&peer);
    peer_echo(&peer, 1);
    while (witness.count == 1)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_str_eq(witness.payload, "y");
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_link, requests_over_the_limit_do_not_start)
{
    struct spb_client_options options = quick();
    struct spb_client *client = open_with("unix:/tmp/no such folder/socket", &options);
    struct witness witness = {.count = 0};
    uint8_t *payload = calloc(1, SPB_TTRPC_DATA_MAX);
    struct spb_error err;

    cr_assert_eq(spb_client_start(client, "s", "m", payload, SPB_TTRPC_DATA_MAX, 1000,
                                  witness_reply, &witness, &err)
                     .code,
                 SPB_LIMIT);
    cr_assert_eq(spb_client_in_flight(client), 0);
    free(payload);
    spb_client_close(client);
    cr_assert_eq(witness.count, 0);
}

Test(client_link, closing_with_retries_pending)
{
    struct spb_client_options options = quick();
    struct peer peer = peer_listen_unix(16);
    struct witness witness = {.count = 0};

    options.backoff_base_ms = options.backoff_cap_ms = 3600000;
    struct spb_client *client = open_with(peer.endpoint, &options);
    for (int i = 0; i < 50; i++)
        witness_start(&witness, client, "x", i % 2 == 0 ? SPB_CLIENT_NO_TIMEOUT : 36000000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    peer_accept(&peer);
    peer_hang_up(&peer);
    while (client->link->state != SPB_LINK_DOWN)
        cr_assert(spb_is_ok(spb_client_wait(client, 5, NULL)));
    size_t waiting = spb_client_in_flight(client);
    cr_assert(waiting > 0);
    cr_assert_eq(waiting + witness.count, 50);
    witness_start(&witness, client, "one that never was sent", 20000);
    spb_client_close(client);
    cr_assert_eq(witness.count, 51);
    cr_assert_eq(witness.last.status.code, SPB_UNREACHABLE);
    peer_done(&peer);
}

struct restarting {
    struct spb_client *client;
    size_t left, ended;
};

/* From inside nothing but starting calls is allowed, wherever the callback is run from. */
static void start_next(void *user, const struct spb_client_reply *reply)
{
    struct restarting *chain = user;
    uint8_t *out;
    size_t size;

    cr_assert_eq(reply->status.code, SPB_UNREACHABLE);
    chain->ended++;
    cr_assert_eq(spb_client_ready(chain->client, NULL).code, SPB_INVALID);
    cr_assert_eq(spb_client_wait(chain->client, 0, NULL).code, SPB_INVALID);
    cr_assert_eq(spb_client_call(chain->client, "s", "m", "", 0, 10, &out, &size, NULL, NULL).code,
                 SPB_INVALID);
    if (chain->left == 0)
        return;
    chain->left--;
    cr_assert(
        spb_is_ok(spb_client_start(chain->client, "s", "m", "", 0, 20, start_next, chain, NULL)));
}

Test(client_link, callbacks_of_calls_that_never_left_start_further_ones)
{
    struct spb_client_options options = quick();
    struct spb_client *client = open_with("unix:/tmp/no such folder/socket", &options);
    struct restarting chain = {.client = client, .left = 20};

    options.retry_burst = 2;
    cr_assert(spb_is_ok(spb_client_start(client, "s", "m", "", 0, 20, start_next, &chain, NULL)));
    while (spb_client_in_flight(client) > 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_eq(chain.ended, 21);
    chain.left = 5;
    cr_assert(spb_is_ok(spb_client_start(client, "s", "m", "", 0, 20, start_next, &chain, NULL)));
    chain.left = 0;
    spb_client_close(client);
    cr_assert_eq(chain.ended, 22);
}

static void *serve_and_drop(void *user)
{
    struct script *script = user;

    for (int round = 0; round < 5; round++) {
        peer_accept(&script->peer);
        /* A call and a ping come first on each but the first: 10 + 3 * 9 + 13 calls. */
        peer_echo(&script->peer, round < 4 ? 10 : 14);
        if (round < 4)
            peer_hang_up(&script->peer);
    }
    return NULL;
}

/* The descriptor changes; a loop that asks for it anew sees every call through. */
Test(client_link, loop_of_the_callers_own)
{
    struct spb_client_options options = quick();
    struct script script = {.peer = peer_listen_tcp()};
    struct witness witness = {.count = 0};
    size_t rounds = 0;

    options.retry_burst = 200;
    cr_assert_eq(pthread_create(&script.peer.thread, NULL, serve_and_drop, &script), 0);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    for (int i = 0; i < 50; i++)
        witness_start(&witness, client, "x", 20000);
    while (spb_client_in_flight(client) > 0) {
        unsigned wants = spb_client_wants(client);
        struct pollfd wanted = {.fd = spb_client_fd(client)};
        if (wants & SPB_CLIENT_READ)
            wanted.events |= POLLIN;
        if (wants & SPB_CLIENT_WRITE)
            wanted.events |= POLLOUT;
        int64_t timeout = spb_client_timeout_ms(client);
        cr_assert(timeout >= 0 && timeout <= 20000);
        (void)poll(&wanted, 1, (int)timeout);
        cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
        cr_assert(++rounds < 10000, "it spins");
    }
    cr_assert_eq(witness.count, 50);
    cr_assert(spb_is_ok(witness.last.status), "%s", witness.text);
    cr_assert_eq(pthread_join(script.peer.thread, NULL), 0);
    spb_client_close(client);
    peer_done(&script.peer);
}
