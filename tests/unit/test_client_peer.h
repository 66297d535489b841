/*
 * A daemon in the test's own process: a listening socket, one connection of it, and blocking reads
 * of requests and writes of answers. A test drives it in turn with the client, or on a thread.
 */
#ifndef SPB_TESTS_UNIT_TEST_CLIENT_PEER_H
#define SPB_TESTS_UNIT_TEST_CLIENT_PEER_H

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "spaceblock/client.h"
#include "ttrpc/ttrpc.h"

struct peer {
    int listener, fd;
    char folder[64], endpoint[128];
    pthread_t thread;
};

struct peer_request {
    struct spb_ttrpc_header header;
    struct spb_ttrpc_request request; /* views into data */
    uint8_t *data;
};

/* A test that goes wrong must end: no read of the peer waits longer than this. What it sends over
 * TCP leaves at once, as from the daemon. */
static inline void peer_bound(int fd)
{
    const struct timeval bound = {.tv_sec = 30};
    const int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* none on unix sockets */
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound)), 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound)), 0);
}

static inline struct peer peer_listen_unix(int backlog)
{
    struct peer peer = {.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), .fd = -1};
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)snprintf(peer.folder, sizeof(peer.folder), "/tmp/spb-client-XXXXXX");
    cr_assert_not_null(mkdtemp(peer.folder));
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.60s/socket", peer.folder);
    (void)snprintf(peer.endpoint, sizeof(peer.endpoint), "unix:%s", address.sun_path);
    cr_assert_eq(bind(peer.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(peer.listener, backlog), 0);
    return peer;
}

static inline struct peer peer_bind_tcp(void)
{
    struct peer peer = {.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .fd = -1};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    cr_assert_eq(bind(peer.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(getsockname(peer.listener, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(peer.endpoint, sizeof(peer.endpoint), "tcp://127.0.0.1:%u",
                   (unsigned)ntohs(address.sin_port));
    return peer;
}

static inline struct peer peer_listen_tcp(void)
{
    struct peer peer = peer_bind_tcp();

    cr_assert_eq(listen(peer.listener, 16), 0);
    return peer;
}

static inline void peer_accept(struct peer *peer)
{
    peer->fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(peer->fd >= 0);
    peer_bound(peer->fd);
}

static inline void peer_hang_up(struct peer *peer)
{
    cr_assert_eq(close(peer->fd), 0);
    peer->fd = -1;
}

static inline void peer_done(struct peer *peer)
{
    if (peer->fd >= 0)
        peer_hang_up(peer);
    (void)close(peer->listener);
    if (peer->folder[0] != '\0') {
        (void)unlink(peer->endpoint + strlen("unix:"));
        (void)rmdir(peer->folder);
    }
}

/* Connects a client, and accepts it. */
static inline struct spb_client *peer_client(struct peer *peer)
{
    struct spb_client *client;
    struct spb_error err;
    spb_status status = spb_client_open(peer->endpoint, 10000, &client, &err);

    cr_assert(spb_is_ok(status), "%s", err.text);
    peer_accept(peer);
    return client;
}

static inline void peer_read(struct peer *peer, void *bytes, size_t n)
{
    cr_assert_eq(recv(peer->fd, bytes, n, MSG_WAITALL), (ssize_t)n);
}

static inline void peer_write(struct peer *peer, const void *bytes, size_t n)
{
    cr_assert_eq(send(peer->fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static inline struct peer_request peer_receive(struct peer *peer)
{
    struct peer_request got = {.data = NULL};
    uint8_t head[SPB_TTRPC_HEADER_SIZE];

    peer_read(peer, head, sizeof(head));
    got.header.length =
        (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
    got.header.stream =
        (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7];
    got.header.type = head[8];
    got.header.flags = head[9];
    cr_assert_eq(got.header.type, SPB_TTRPC_TYPE_REQUEST);
    cr_assert_eq(got.header.flags, 0);
    got.data = malloc(got.header.length + 1);
    if (got.header.length > 0)
        peer_read(peer, got.data, got.header.length);
    cr_assert(spb_is_ok(spb_ttrpc_request_decode(got.data, got.header.length, &got.request, NULL)));
    return got;
}

/* Frame and response; *size gets how long they are. The caller's, free(). */
static inline uint8_t *peer_frame(uint32_t stream, const struct spb_ttrpc_response *response,
                                  size_t *size)
{
    struct spb_ttrpc_header header = {.length = (uint32_t)spb_ttrpc_response_size(response),
                                      .stream = stream,
                                      .type = SPB_TTRPC_TYPE_RESPONSE};
    uint8_t *frame = malloc(SPB_TTRPC_HEADER_SIZE + header.length);

    spb_ttrpc_header_encode(&header, frame);
    spb_ttrpc_response_encode(response, frame + SPB_TTRPC_HEADER_SIZE);
    *size = SPB_TTRPC_HEADER_SIZE + header.length;
    return frame;
}

static inline void peer_answer(struct peer *peer, uint32_t stream,
                               const struct spb_ttrpc_response *response)
{
    size_t size;
    uint8_t *frame = peer_frame(stream, response, &size);

    peer_write(peer, frame, size);
    free(frame);
}

static inline void peer_answer_bytes(struct peer *peer, uint32_t stream, const void *payload,
                                     size_t size)
{
    struct spb_ttrpc_response response = {.code = 0};

    response.payload = (struct spb_ttrpc_view){payload, size};
    peer_answer(peer, stream, &response);
}

/* Answers the next `count` requests with their own payload, in order. */
static inline void peer_echo(struct peer *peer, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct peer_request got = peer_receive(peer);
        peer_answer_bytes(peer, got.header.stream, got.request.payload.data,
                          got.request.payload.size);
        free(got.data);
    }
}

static inline struct spb_ttrpc_view peer_view(const char *text)
{
    return (struct spb_ttrpc_view){(const uint8_t *)text, strlen(text)};
}

/* What callbacks saw. */
struct witness {
    size_t count;
    struct spb_client_reply last; /* payload and error are not kept */
    char payload[256], text[SPB_ERROR_TEXT_SIZE];
};

static inline void witness_reply(void *user, const struct spb_client_reply *reply)
{
    struct witness *witness = user;

    cr_assert_eq(spb_is_ok(reply->status), reply->error == NULL);
    if (reply->error != NULL)
        cr_assert_eq(reply->error->code, reply->status.code);
    witness->count++;
    witness->last = *reply;
    (void)snprintf(witness->payload, sizeof(witness->payload), "%.*s", (int)reply->payload_size,
                   reply->payload_size > 0 ? (const char *)reply->payload : "");
    (void)snprintf(witness->text, sizeof(witness->text), "%s",
                   reply->error != NULL ? reply->error->text : "");
}

static inline void witness_start(struct witness *witness, struct spb_client *client,
                                 const char *payload, int64_t timeout_ms)
{
    struct spb_error err;
    spb_status status = spb_client_start(client, "test.Echo", "Say", payload, strlen(payload),
                                         timeout_ms, witness_reply, witness, &err);

    cr_assert(spb_is_ok(status), "%s", err.text);
}

#endif
