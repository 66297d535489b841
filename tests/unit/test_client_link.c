/* A client that reconnects, over real sockets: what is tried again, deadlines, connecting. */
#include "test_client_script.h"

#include <errno.h>

#include "dial.h"
#include "link.h"

static void expect_echo(struct peer peer, const enum act *acts, size_t requests, size_t connections)
{
    struct spb_client_options options = quick();
    struct script script;

    script_start(&script, peer, acts);
    struct result result = call_by(&script, &options, 20000);
    cr_assert(spb_is_ok(result.status), "%s", result.err.text);
    cr_assert_str_eq(result.payload, "hello");
    script_end(&script);
    cr_assert_eq(script.count, requests);
    cr_assert_eq(script.connections, connections);
}

/* ---- What is tried again ------------------------------------------------------------------ */

Test(client_link, call_over_a_first_connection)
{
    static const enum act acts[] = {ACT_ECHO, ACT_END};

    expect_echo(peer_listen_unix(16), acts, 1, 1);
    expect_echo(peer_listen_tcp(), acts, 1, 1);
}

Test(client_link, lost_in_every_way_and_answered_in_the_end)
{
    static const enum act acts[] = {
        ACT_READ, ACT_HANG_UP,    ACT_HANG_UP, ACT_READ,  ACT_RESET, ACT_PART, ACT_HANG_UP,
        ACT_READ, ACT_HALF_CLOSE, ACT_HANG_UP, ACT_RESET, ACT_ECHO,  ACT_END,
    };

    expect_echo(peer_listen_unix(16), acts, 5, 7);
    expect_echo(peer_listen_tcp(), acts, 5, 7);
}

Test(client_link, every_attempt_sends_the_same_bytes_and_the_time_that_is_left)
{
    static const enum act acts[] = {ACT_READ,    ACT_HANG_UP, ACT_DRAINING,
                                    ACT_RUNNING, ACT_ECHO,    ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    script_start(&script, peer_listen_unix(16), acts);
    struct result result = call_by(&script, &options, 20000);
    cr_assert(spb_is_ok(result.status), "%s", result.err.text);
    cr_assert_eq(pthread_join(script.peer.thread, NULL), 0);
    cr_assert_eq(script.count, 4);
    for (size_t i = 0; i < 4; i++) {
        const struct spb_ttrpc_request *first = &script.got[0].request;
        const struct spb_ttrpc_request *next = &script.got[i].request;
        cr_assert_eq(next->payload.size, 5);
        cr_assert_arr_eq(next->payload.data, "hello", 5);
        cr_assert_eq(next->service.size, first->service.size);
        cr_assert_arr_eq(next->service.data, first->service.data, first->service.size);
        cr_assert_arr_eq(next->method.data, first->method.data, first->method.size);
        cr_assert_eq(next->metadata_count, 0);
        cr_assert(i == 0 || next->timeout_ns < script.got[i - 1].request.timeout_ns);
    }
    int64_t paused = script.got[1].request.timeout_ns - script.got[2].request.timeout_ns;
    cr_assert(paused >= 30000000, "RetryInfo is honoured: %lld ns", (long long)paused);
    for (size_t i = 0; i < script.count; i++)
        free(script.got[i].data);
    peer_done(&script.peer);
}

Test(client_link, refusal_is_final)
{
    static const enum act acts[] = {ACT_REFUSE, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    script_start(&script, peer_listen_unix(16), acts);
    struct result result = call_by(&script, &options, 20000);
    cr_assert_eq(result.status.code, SPB_NOT_FOUND);
    cr_assert_eq(result.failure.rpc_code, 5);
    cr_assert_str_eq(result.failure.reason, "NOT_FOUND");
    cr_assert_str_eq(result.err.text, "so it is");
    script_end(&script);
    cr_assert_eq(script.count, 1);
}

Test(client_link, mode_once_ends_with_the_connection_and_the_next_call_makes_a_new_one)
{
    static const enum act acts[] = {ACT_READ, ACT_HANG_UP, ACT_ECHO, ACT_DRAINING, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    options.mode = SPB_CLIENT_ONCE;
    script_start(&script, peer_listen_tcp(), acts);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    struct result result = call(client, "one", 20000);
    cr_assert_eq(result.status.code, SPB_UNREACHABLE);
    cr_assert_eq(result.failure.rpc_code, -1);
    result = call(client, "two", 20000);
    cr_assert(spb_is_ok(result.status), "%s", result.err.text);
    result = call(client, "three", 20000);
    cr_assert_eq(result.failure.rpc_code, 14);
    spb_client_close(client);
    script_end(&script);
    cr_assert_eq(script.count, 3);
}

Test(client_link, call_that_was_lost_with_its_connection_may_have_been_carried_out)
{
    static const enum act acts[] = {ACT_READ, ACT_HANG_UP, ACT_END};
    struct spb_client_options options = quick();
    struct witness witness = {.count = 0};
    struct script script;

    options.mode = SPB_CLIENT_ONCE;
    script_start(&script, peer_listen_unix(16), acts);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    witness_start(&witness, client, "x", 20000);
    while (witness.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_eq(witness.last.status.code, SPB_UNREACHABLE, "%s", witness.text);
    cr_assert(witness.last.was_sent);
    spb_client_close(client);
    script_end(&script);
}

/* ---- Deadlines and budget ----------------------------------------------------------------- */

Test(client_link, nobody_there_until_the_deadline)
{
    struct spb_client_options options = quick();
    struct peer peer = peer_bind_tcp(); /* the port is held, and nobody listens */
    struct spb_client *client = open_with(peer.endpoint, &options);
    struct result result = call(client, "x", 200);

    cr_assert_eq(result.status.code, SPB_UNREACHABLE);
    cr_assert_eq(result.failure.rpc_code, -1);
    cr_assert_eq(result.err.saved_errno, ECONNREFUSED, "%s", result.err.text);
    cr_assert_not_null(strstr(result.err.text, "tried"), "%s", result.err.text);
    cr_assert(result.took_ms >= 150 && result.took_ms <= 2000, "%lld", (long long)result.took_ms);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_link, first_connect_bounds_the_wait_for_a_daemon_that_never_was)
{
    struct spb_client_options options = quick();
    struct peer peer = peer_bind_tcp();

    options.first_connect_ms = 0;
    struct spb_client *client = open_with(peer.endpoint, &options);
    struct result result = call(client, "x", 20000);
    cr_assert_eq(result.status.code, SPB_UNREACHABLE);
    cr_assert(result.took_ms < 5000);
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_link, daemon_that_comes_late)
{
    static const enum act acts[] = {ACT_ECHO, ACT_END};
    struct spb_client_options options = quick();
    struct peer peer = peer_bind_tcp();
    struct witness witness = {.count = 0};
    struct script script;

    struct spb_client *client = open_with(peer.endpoint, &options);
    witness_start(&witness, client, "x", 20000);
    for (int i = 0; i < 3; i++)
        cr_assert(spb_is_ok(spb_client_wait(client, 10, NULL)));
    cr_assert_eq(witness.count, 0);
    cr_assert_eq(listen(peer.listener, 16), 0);
    script_start(&script, peer, acts);
    while (witness.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_str_eq(witness.payload, "x");
    spb_client_close(client);
    script_end(&script);
}

Test(client_link, answer_that_never_comes_ends_with_the_deadline_of_all_attempts)
{
    static const enum act acts[] = {ACT_READ,    ACT_HANG_UP, ACT_READ,
                                    ACT_HANG_UP, ACT_READ,    ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    script_start(&script, peer_listen_unix(16), acts);
    struct result result = call_by(&script, &options, 1500);
    cr_assert_eq(result.status.code, SPB_DEADLINE);
    cr_assert_eq(result.failure.rpc_code, -1);
    cr_assert_not_null(strstr(result.err.text, "within 1500 ms"), "%s", result.err.text);
    cr_assert(result.took_ms >= 1495 && result.took_ms < 5000, "%lld", (long long)result.took_ms);
    script_end(&script);
}

Test(client_link, deadline_of_the_client_bounds_every_call)
{
    static const enum act acts[] = {ACT_ECHO, ACT_READ, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    options.deadline_ms = 1500;
    script_start(&script, peer_listen_unix(16), acts);
    struct spb_client *client = open_with(script.peer.endpoint, &options);
    struct result result = call(client, "x", SPB_CLIENT_NO_TIMEOUT);
    cr_assert(spb_is_ok(result.status), "%s", result.err.text);
    result = call(client, "x", 20000);
    cr_assert_eq(result.status.code, SPB_DEADLINE, "%s", result.err.text);
    cr_assert(result.took_ms < 5000);
    cr_assert_eq(pthread_join(script.peer.thread, NULL), 0);
    cr_assert(script.got[0].request.timeout_ns > 0 &&
              script.got[0].request.timeout_ns <= 1500000000);
    result = call(client, "x", 20000);
    cr_assert_eq(result.status.code, SPB_DEADLINE, "no more calls");
    cr_assert_not_null(strstr(result.err.text, "used up"), "%s", result.err.text);
    spb_client_close(client);
    for (size_t i = 0; i < script.count; i++)
        free(script.got[i].data);
    peer_done(&script.peer);
}

Test(client_link, budget_bounds_what_an_outage_costs)
{
    static const enum act acts[] = {ACT_READ, ACT_HANG_UP, ACT_READ, ACT_HANG_UP,
                                    ACT_READ, ACT_HANG_UP, ACT_END};
    struct spb_client_options options = quick();
    struct script script;

    options.retry_burst = 2;
    options.retry_percent = 0;
    script_start(&script, peer_listen_unix(16), acts);
    struct result result = call_by(&script, &options, 20000);
    cr_assert_eq(result.status.code, SPB_UNREACHABLE);
    cr_assert_not_null(strstr(result.err.text, "tried 3 times; no retries are left"), "%s",
                       result.err.text);
    script_end(&script);
    cr_assert_eq(script.count, 3);
}

/* ---- Connecting does not block ------------------------------------------------------------ */

static void expect_slow_connect(struct peer peer)
{
    struct spb_client_options options = quick();
    struct spb_client *filler[16];
    struct witness witness = {.count = 0};
    size_t count = 0;

    while (count < 16 && spb_is_ok(spb_client_open(peer.endpoint, 50, &filler[count], NULL)))
        count++;
    struct spb_client *client = open_with(peer.endpoint, &options);
    witness_start(&witness, client, "x", 400);
    int64_t begin = now_ms();
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert(now_ms() - begin < 200, "it waited for the connection");
    cr_assert_eq(witness.count, 0);
    int64_t timeout = spb_client_timeout_ms(client);
    cr_assert(timeout >= 0 && timeout <= 400);
    while (witness.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_eq(witness.last.status.code, SPB_UNREACHABLE, "%s", witness.text);
    cr_assert(!witness.last.was_sent);
    cr_assert(now_ms() - begin < 5000);
    spb_client_close(client);
    while (count > 0)
        spb_client_close(filler[--count]);
    peer_done(&peer);
}

Test(client_link, full_queue_of_a_listener_tcp)
{
    struct peer peer = peer_bind_tcp();

    cr_assert_eq(listen(peer.listener, 0), 0);
    expect_slow_connect(peer);
}

Test(client_link, full_queue_of_a_listener_unix)
{
    expect_slow_connect(peer_listen_unix(0));
}

Test(client_link, full_queue_that_empties)
{
    struct peer peer = peer_listen_unix(0);
    struct spb_client_options options = quick();
    struct witness witness = {.count = 0};
    struct spb_client *filler[16];
    size_t count = 0;

    while (count < 16 && spb_is_ok(spb_client_open(peer.endpoint, 50, &filler[count], NULL)))
        count++;
    struct spb_client *client = open_with(peer.endpoint, &options);
    witness_start(&witness, client, "x", 20000);
    cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    for (size_t i = 0; i < count; i++) {
        peer_accept(&peer);
        peer_hang_up(&peer);
        spb_client_close(filler[i]);
    }
    while (client->link->state != SPB_LINK_UP)
        cr_assert(spb_is_ok(spb_client_wait(client, 20, NULL)));
    peer_accept(&peer);
    peer_echo(&peer, 1);
    while (witness.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_str_eq(witness.payload, "x");
    cr_assert_eq(client->link->retrier.policy.savings_percent, 6400, "that was one attempt");
    spb_client_close(client);
    peer_done(&peer);
}

Test(client_link, name_is_looked_up_again_where_that_may_block)
{
    static const enum act acts[] = {ACT_ECHO, ACT_END};
    struct spb_client_options options = quick();
    struct peer peer = peer_bind_tcp();
    struct witness witness = {.count = 0};
    struct script script;
    char port[16];

    (void)snprintf(port, sizeof(port), "%s", strrchr(peer.endpoint, ':'));
    (void)snprintf(peer.endpoint, sizeof(peer.endpoint), "tcp://localhost%s", port);
    struct spb_client *client = open_with(peer.endpoint, &options);
    witness_start(&witness, client, "x", 20000);
    while (!client->link->wants_look_up)
        cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    /* As if the name had meant another host: only looking it up again helps. */
    struct spb_endpoint other = {.host = "127.0.0.2"};
    struct addrinfo *found;
    (void)snprintf(other.port, sizeof(other.port), "%.5s", port + 1);
    cr_assert(spb_is_ok(spb_resolve("x", &other, SPB_NO_DEADLINE, &found, NULL)));
    spb_connector_set_addresses(&client->link->connector, found);
    for (int64_t end = now_ms() + 50; now_ms() < end;)
        cr_assert(spb_is_ok(spb_client_ready(client, NULL)));
    cr_assert_eq(client->link->connector.found, found, "that does not block, and looks up nothing");
    cr_assert_eq(listen(peer.listener, 16), 0);
    script_start(&script, peer, acts);
    while (witness.count == 0)
        cr_assert(spb_is_ok(spb_client_wait(client, 20000, NULL)));
    cr_assert_str_eq(witness.payload, "x");
    spb_client_close(client);
    script_end(&script);
}

Test(client_link, what_cannot_be_opened)
{
    struct spb_client_options options = quick();
    struct spb_client *client = NULL;
    struct spb_error err;

    cr_assert_eq(spb_client_open_with("nonsense", &options, &client, &err).code, SPB_INVALID);
    cr_assert_eq(spb_client_open_with("tcp://[localhost]:1", &options, &client, &err).code,
                 SPB_INVALID);
    cr_assert_eq(spb_client_open_with("tcp://host.invalid:1", &options, &client, &err).code,
                 SPB_UNREACHABLE);
    cr_assert_not_null(strstr(err.text, "host.invalid"), "%s", err.text);
    struct spb_client_options bad[6];
    for (size_t i = 0; i < 6; i++)
        bad[i] = quick();
    bad[0].jitter_percent = 101;
    bad[1].retry_percent = 101;
    bad[2].backoff_base_ms = -1;
    bad[3].backoff_cap_ms = 1;
    bad[4].keepalive_ms = 0;
    bad[5].mode = (enum spb_client_mode)2;
    for (size_t i = 0; i < 6; i++) {
        cr_assert_eq(spb_client_open_with("unix:x", &bad[i], &client, &err).code, SPB_INVALID,
                     "%zu", i);
        cr_assert(err.text[0] != '\0');
    }
    cr_assert_null(client);
    bad[0] = quick();
    bad[0].backoff_cap_ms = INT64_MAX;
    cr_assert_eq(spb_client_open_with("unix:x", &bad[0], &client, &err).code, SPB_INVALID);
}
