/* Endpoints and connecting: good and malformed ones, nobody there, a queue that is full, names. */
#include "test_client_peer.h"

#include <errno.h>
#include <sys/prctl.h>
#include <time.h>

#include "clock.h"
#include "dial.h"
#include "endpoint.h"

static struct spb_endpoint parse(const char *text)
{
    struct spb_endpoint endpoint;
    struct spb_error err;
    spb_status status = spb_endpoint_parse(text, &endpoint, &err);

    cr_assert(spb_is_ok(status), "%s", err.text);
    return endpoint;
}

Test(client_connect, endpoints_that_parse)
{
    struct spb_endpoint endpoint = parse("unix:/run/a b/c.sock");

    cr_assert(endpoint.is_unix);
    cr_assert_str_eq(endpoint.path, "/run/a b/c.sock");
    endpoint = parse("tcp://example.org:7070");
    cr_assert(!endpoint.is_unix && !endpoint.is_literal);
    cr_assert_str_eq(endpoint.host, "example.org");
    cr_assert_str_eq(endpoint.port, "7070");
    endpoint = parse("tcp://[::1]:65535");
    cr_assert(endpoint.is_literal);
    cr_assert_str_eq(endpoint.host, "::1");
    cr_assert_str_eq(endpoint.port, "65535");
    endpoint = parse("tcp://127.0.0.1:1");
    cr_assert_str_eq(endpoint.host, "127.0.0.1");
}

Test(client_connect, endpoints_that_do_not)
{
    static const char *const bad[] = {
        "",
        "unix",
        "unix:",
        "/run/x.sock",
        "tcp:",
        "tcp://",
        "tcp://:1",
        "tcp://host",
        "tcp://host:",
        "tcp://host:0",
        "tcp://host:65536",
        "tcp://host:99999999999",
        "tcp://host:-1",
        "tcp://host:+1",
        "tcp://host: 1",
        "tcp://host:1x",
        "tcp://host:1/",
        "tcp://::1:7070",
        "tcp://[::1]",
        "tcp://[::1]7070",
        "tcp://[::1",
        "tcp://[]:1",
        "tcp://a/b:1",
        "TCP://host:1",
        "http://host:80",
        "tcp//host:1",
        "tcp://[::1]:",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct spb_client *client = NULL;
        struct spb_error err = {.code = SPB_OK};
        cr_assert_eq(spb_client_open(bad[i], 1000, &client, &err).code, SPB_INVALID, "'%s'",
                     bad[i]);
        cr_assert_eq(err.code, SPB_INVALID);
        cr_assert(err.text[0] != '\0');
        cr_assert_null(client);
    }
}

Test(client_connect, long_ones_are_refused_and_the_longest_taken)
{
    char text[600];
    struct spb_endpoint endpoint;

    for (size_t n = 106; n < 110; n++) {
        (void)snprintf(text, sizeof(text), "unix:%0*d", (int)n, 0);
        cr_assert_eq(spb_endpoint_parse(text, &endpoint, NULL).code,
                     n <= 107 ? SPB_OK : SPB_INVALID, "path of %zu", n);
    }
    for (size_t n = 252; n < 256; n++) {
        (void)snprintf(text, sizeof(text), "tcp://%0*d:1", (int)n, 0);
        cr_assert_eq(spb_endpoint_parse(text, &endpoint, NULL).code,
                     n <= 253 ? SPB_OK : SPB_INVALID, "host of %zu", n);
    }
}

Test(client_connect, brackets_hold_an_ipv6_address_only)
{
    struct spb_client *client;
    struct spb_error err;

    cr_assert_eq(spb_client_open("tcp://[localhost]:1", 1000, &client, &err).code, SPB_INVALID);
    cr_assert_eq(spb_client_open("tcp://[127.0.0.1]:1", 1000, &client, &err).code, SPB_INVALID);
    cr_assert_not_null(strstr(err.text, "127.0.0.1"), "%s", err.text);
}

Test(client_connect, nobody_on_a_unix_socket)
{
    struct peer peer = peer_listen_unix(1);
    struct spb_client *client = NULL;
    struct spb_error err;

    (void)close(peer.listener);
    cr_assert_eq(spb_client_open(peer.endpoint, 5000, &client, &err).code, SPB_UNREACHABLE);
    cr_assert_eq(err.saved_errno, ECONNREFUSED);
    cr_assert_not_null(strstr(err.text, peer.endpoint), "%s", err.text);
    cr_assert_eq(spb_client_open("unix:/tmp/no such folder/socket", 5000, &client, &err).code,
                 SPB_UNREACHABLE);
    cr_assert_eq(err.saved_errno, ENOENT);
    cr_assert_null(client);
    peer.listener = -1;
    peer_done(&peer);
}

Test(client_connect, nobody_on_a_tcp_port)
{
    struct peer peer = peer_bind_tcp(); /* the port is held, and nobody listens */
    struct spb_client *client = NULL;
    struct spb_error err;

    cr_assert_eq(spb_client_open(peer.endpoint, 5000, &client, &err).code, SPB_UNREACHABLE);
    cr_assert_eq(err.saved_errno, ECONNREFUSED);
    cr_assert_null(client);
    peer_done(&peer);
}

static int64_t elapsed_ms(const struct timespec *since)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

/* Fills a listener's queue until a further connection has to wait. */
static void expect_timeout(const char *endpoint)
{
    struct spb_client *clients[16];
    size_t count = 0;
    struct spb_error err = {.code = SPB_OK};
    struct timespec before;
    spb_status status = {SPB_OK};

    while (count < 16) {
        (void)clock_gettime(CLOCK_MONOTONIC, &before);
        status = spb_client_open(endpoint, 50, &clients[count], &err);
        if (!spb_is_ok(status))
            break;
        count++;
    }
    cr_assert_eq(status.code, SPB_UNREACHABLE);
    cr_assert_eq(err.saved_errno, ETIMEDOUT, "%s", err.text);
    int64_t elapsed = elapsed_ms(&before);
    cr_assert(elapsed >= 45 && elapsed < 10000, "%lld ms", (long long)elapsed);
    while (count > 0)
        spb_client_close(clients[--count]);
}

Test(client_connect, full_queue_ends_with_the_timeout_unix)
{
    struct peer peer = peer_listen_unix(0);

    expect_timeout(peer.endpoint);
    peer_done(&peer);
}

Test(client_connect, full_queue_ends_with_the_timeout_tcp)
{
    struct peer peer = peer_bind_tcp();

    cr_assert_eq(listen(peer.listener, 0), 0);
    expect_timeout(peer.endpoint);
    peer_done(&peer);
}

Test(client_connect, tcp_sends_at_once)
{
    struct peer peer = peer_listen_tcp();
    struct spb_client *client = peer_client(&peer);
    int value = 0;
    socklen_t size = sizeof(value);

    cr_assert_eq(getsockopt(spb_client_fd(client), IPPROTO_TCP, 1 /* TCP_NODELAY */, &value, &size),
                 0);
    cr_assert_neq(value, 0);
    spb_client_close(client);
    peer_done(&peer);
}

struct address {
    struct addrinfo info;
    struct sockaddr_in in;
};

static void address_of(const struct peer *peer, struct address *address, struct addrinfo *next)
{
    socklen_t size = sizeof(address->in);

    cr_assert_eq(getsockname(peer->listener, (struct sockaddr *)&address->in, &size), 0);
    address->info = (struct addrinfo){.ai_family = AF_INET,
                                      .ai_addr = (struct sockaddr *)&address->in,
                                      .ai_addrlen = size,
                                      .ai_next = next};
}

/* The first address refuses, the second never answers, the third is there: it gets its turn. */
Test(client_connect, every_address_is_tried_with_a_share_of_the_time)
{
    struct peer refusing = peer_bind_tcp(), silent = peer_bind_tcp(), there = peer_listen_tcp();
    struct address first, second, third;
    struct spb_client *filler[16];
    size_t count = 0;
    struct spb_error err;
    int fd = -1;

    cr_assert_eq(listen(silent.listener, 0), 0);
    while (count < 16 && spb_is_ok(spb_client_open(silent.endpoint, 50, &filler[count], NULL)))
        count++;
    address_of(&there, &third, NULL);
    address_of(&silent, &second, &third.info);
    address_of(&refusing, &first, &second.info);
    int64_t deadline = spb_deadline_after(spb_clock_ns(), 1000);
    spb_status status = spb_dial_addresses("x", &first.info, deadline, &fd, &err);
    cr_assert(spb_is_ok(status), "%s", err.text);
    cr_assert(spb_clock_ns() < deadline, "the silent one took all the time");
    peer_accept(&there);
    cr_assert_eq(close(fd), 0);
    third.info.ai_addr = second.info.ai_addr;
    status =
        spb_dial_addresses("x", &first.info, spb_deadline_after(spb_clock_ns(), 100), &fd, &err);
    cr_assert_eq(status.code, SPB_UNREACHABLE);
    cr_assert_eq(err.saved_errno, ETIMEDOUT);
    while (count > 0)
        spb_client_close(filler[--count]);
    peer_done(&refusing);
    peer_done(&silent);
    peer_done(&there);
}

Test(client_connect, lookup_that_is_left_behind_frees_itself)
{
    struct spb_endpoint endpoint = parse("tcp://localhost:1");

    for (int i = 0; i < 50; i++) {
        struct addrinfo *found = NULL;
        struct spb_error err;
        /* a deadline long past: the caller leaves while the lookup runs, or just after it ended */
        spb_status status = spb_resolve("tcp://localhost:1", &endpoint, 1, &found, &err);
        if (spb_is_ok(status))
            freeaddrinfo(found);
        else
            cr_assert_eq(status.code, SPB_UNREACHABLE);
    }
}

Test(client_connect, unknown_host)
{
    struct spb_client *client;
    struct spb_error err;

    /* RFC 6761: no such name ever resolves */
    cr_assert_eq(spb_client_open("tcp://host.invalid:1", 20000, &client, &err).code,
                 SPB_UNREACHABLE);
    cr_assert_not_null(strstr(err.text, "host.invalid"), "%s", err.text);
}

Test(client_connect, usual_endpoint)
{
    char endpoint[64] = "untouched", tiny[8] = "keep";
    struct spb_error err;

    cr_assert_eq(setenv("SPACEBLOCK_ENDPOINT", "tcp://h:1", 1), 0);
    cr_assert(spb_is_ok(spb_client_usual_endpoint(endpoint, sizeof(endpoint), &err)));
    cr_assert_str_eq(endpoint, "tcp://h:1");
    cr_assert_eq(spb_client_usual_endpoint(tiny, sizeof(tiny), &err).code, SPB_INVALID);
    cr_assert_str_eq(tiny, "keep");
}

static void usual_endpoint_of_a_user(void)
{
    char endpoint[64];
    struct spb_error err;

    cr_assert_eq(setenv("XDG_RUNTIME_DIR", "/run/user/7", 1), 0);
    cr_assert(spb_is_ok(spb_client_usual_endpoint(endpoint, sizeof(endpoint), &err)));
    cr_assert_str_eq(endpoint, "unix:/run/user/7/spaceblock/spaceblockd.sock");
    cr_assert_eq(unsetenv("XDG_RUNTIME_DIR"), 0);
    cr_assert_eq(spb_client_usual_endpoint(endpoint, sizeof(endpoint), &err).code, SPB_INVALID);
}

Test(client_connect, usual_endpoint_without_the_variable)
{
    char endpoint[64];

    cr_assert_eq(setenv("SPACEBLOCK_ENDPOINT", "", 1), 0);
    if (geteuid() != 0) {
        usual_endpoint_of_a_user();
        return;
    }
    cr_assert(spb_is_ok(spb_client_usual_endpoint(endpoint, sizeof(endpoint), NULL)));
    cr_assert_str_eq(endpoint, "unix:/run/spaceblock/spaceblockd.sock");
    cr_assert_eq(seteuid(65534), 0);
    usual_endpoint_of_a_user();
    /* A process that changed its user cannot be traced, which a leak check at its end needs. */
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(prctl(PR_SET_DUMPABLE, 1), 0);
}

Test(client_connect, request_ids_are_uuids_and_differ)
{
    char first[SPB_REQUEST_ID_SIZE], second[SPB_REQUEST_ID_SIZE];

    cr_assert(spb_is_ok(spb_client_request_id(first, NULL)));
    cr_assert(spb_is_ok(spb_client_request_id(second, NULL)));
    cr_assert_str_neq(first, second);
    cr_assert_eq(strlen(first), 36);
    for (size_t i = 0; i < 36; i++) {
        bool is_hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        cr_assert(is_hyphen ? first[i] == '-' : strchr("0123456789abcdef", first[i]) != NULL);
    }
    cr_assert_eq(first[14], '4');
    cr_assert_not_null(strchr("89ab", first[19]));
}
