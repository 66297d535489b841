/*
 * The client: moves bytes between the socket and the session, and waits. One thread at a time; only
 * spb_client_open and _wait block.
 *
 * Requests are sent when the client is driven, not when they are started, so that many started at
 * once leave in one send. Whatever ends the connection ends it in the session, in one place (lose),
 * and from then on every call here fails.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/status.h"
#include "client_state.h"
#include "clock.h"
#include "dial.h"

#define READS_AT_ONCE                                                                              \
    16 /* of SPB_CLIENT_INPUT_SIZE, before deadlines and sending get their turn                    \
        */

/* ---- Open and close ----------------------------------------------------------------------- */

spb_status spb_client_open(const char *endpoint, int64_t timeout_ms, struct spb_client **client,
                           struct spb_error *err)
{
    int64_t deadline = spb_deadline_after(spb_clock_ns(), timeout_ms);
    struct spb_endpoint parsed;
    int fd;

    SPB_TRY(spb_endpoint_parse(endpoint, &parsed, err));
    SPB_TRY(spb_dial(endpoint, &parsed, deadline, &fd, err));
    struct spb_client *made = malloc(sizeof(*made));
    if (made == NULL) {
        (void)close(fd);
        return spb_fail_memory(err, "connecting");
    }
    made->fd = fd;
    made->send_errno = 0;
    spb_session_init(&made->session);
    (void)snprintf(made->endpoint, sizeof(made->endpoint), "%s", endpoint);
    *client = made;
    return spb_ok();
}

void spb_client_close(struct spb_client *client)
{
    struct spb_error why;

    if (client == NULL)
        return;
    SPB_ASSERT(!client->session.is_in_callback);
    (void)spb_fail(&why, SPB_UNREACHABLE, "the connection to %s was closed on this side",
                   client->endpoint);
    spb_session_lose(&client->session, &why);
    spb_session_done(&client->session);
    (void)close(client->fd);
    free(client);
}

/* ---- Bytes in and out --------------------------------------------------------------------- */

/* number is the errno that ended the connection; 0: the daemon closed it. */
static void lose(struct spb_client *client, const char *doing, int number)
{
    struct spb_error why;

    if (number != 0)
        (void)spb_fail_errno(&why, SPB_UNREACHABLE, number, "connection to %s lost while %s",
                             client->endpoint, doing);
    else
        (void)spb_fail(
            &why, SPB_UNREACHABLE, "connection to %s was closed by the daemon%s", client->endpoint,
            spb_ttrpc_parser_is_mid_frame(&client->session.parser) ? " in the middle of an answer"
                                                                   : "");
    spb_session_lose(&client->session, &why);
}

static void send_queued(struct spb_client *client)
{
    struct spb_outbox *box = &client->session.outbox;

    while (client->send_errno == 0 && spb_outbox_left(box) > 0) {
        ssize_t n = send(client->fd, box->data + box->start, spb_outbox_left(box),
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            spb_outbox_sent(box, (size_t)n);
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        else if (errno != EINTR)
            client->send_errno = errno;
    }
}

/* Reads up to `times` buffers; a short one means that the socket is empty. */
static void receive(struct spb_client *client, unsigned times)
{
    while (times > 0 && !client->session.is_lost) {
        ssize_t n = recv(client->fd, client->input, sizeof(client->input), MSG_DONTWAIT);
        if (n > 0) {
            spb_session_feed(&client->session, client->input, (size_t)n);
            if ((size_t)n < sizeof(client->input))
                return;
            times--;
        } else if (n == 0) {
            lose(client, "receiving", 0);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != EINTR) {
            lose(client, "receiving", errno);
        }
    }
}

/* What the daemon answered before it went is still there to be read. */
static void end_after_send_failure(struct spb_client *client)
{
    receive(client, READS_AT_ONCE);
    lose(client, "sending", client->send_errno);
}

static spb_status fail_lost(const struct spb_client *client, struct spb_error *err)
{
    if (err != NULL)
        *err = client->session.loss;
    return (spb_status){client->session.loss.code};
}

static spb_status drive(struct spb_client *client, bool is_readable, struct spb_error *err)
{
    send_queued(client);
    if (client->send_errno != 0)
        end_after_send_failure(client);
    else if (is_readable)
        receive(client, READS_AT_ONCE);
    if (!client->session.is_lost)
        spb_session_expire(&client->session, spb_clock_ns());
    if (!client->session.is_lost)
        send_queued(client); /* what callbacks started */
    return client->session.is_lost ? fail_lost(client, err) : spb_ok();
}

static spb_status check_outside(const struct spb_client *client, struct spb_error *err)
{
    if (!client->session.is_in_callback)
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "a callback can start calls, but not drive the client");
}

/* ---- Calls -------------------------------------------------------------------------------- */

spb_status spb_client_start(struct spb_client *client, const char *service, const char *method,
                            const void *payload, size_t size, int64_t timeout_ms,
                            spb_client_callback callback, void *user, struct spb_error *err)
{
    struct spb_session_call call = {.service = service,
                                    .method = method,
                                    .payload = payload,
                                    .size = size,
                                    .timeout_ms = timeout_ms,
                                    .callback = callback,
                                    .user = user};

    SPB_ASSERT(service != NULL && method != NULL && callback != NULL);
    return spb_session_start(&client->session, &call, spb_clock_ns(), err);
}

size_t spb_client_in_flight(const struct spb_client *client)
{
    return client->session.calls.running.count;
}

int spb_client_fd(const struct spb_client *client)
{
    return client->fd;
}

/* After a failed send the descriptor stays ready to be read, so reading wakes the owner's loop. */
unsigned spb_client_wants(const struct spb_client *client)
{
    if (client->session.is_lost)
        return 0;
    bool is_sending = client->send_errno == 0 && spb_outbox_left(&client->session.outbox) > 0;

    return SPB_CLIENT_READ | (is_sending ? SPB_CLIENT_WRITE : 0);
}

int64_t spb_client_timeout_ms(const struct spb_client *client)
{
    int64_t deadline = spb_call_table_deadline(&client->session.calls);

    return deadline == SPB_NO_DEADLINE ? SPB_CLIENT_NO_TIMEOUT
                                       : spb_ms_until(deadline, spb_clock_ns());
}

spb_status spb_client_ready(struct spb_client *client, struct spb_error *err)
{
    SPB_TRY(check_outside(client, err));
    if (client->session.is_lost)
        return fail_lost(client, err);
    return drive(client, true, err);
}

/* One wait for the socket or the nearest deadline, and what can be done then. */
static spb_status wait_once(struct spb_client *client, int64_t deadline_ns, struct spb_error *err)
{
    int64_t call_deadline = spb_call_table_deadline(&client->session.calls);
    int64_t until = call_deadline < deadline_ns ? call_deadline : deadline_ns;
    struct pollfd wanted = {.fd = client->fd, .events = POLLIN};

    send_queued(client);
    if (client->send_errno != 0)
        return drive(client, true, err);
    if (spb_outbox_left(&client->session.outbox) > 0)
        wanted.events |= POLLOUT;
    /* The time is asked only where there is a deadline to measure against. */
    int timeout = until == SPB_NO_DEADLINE ? -1 : spb_poll_timeout(until, spb_clock_ns());
    int ready = poll(&wanted, 1, timeout);
    if (ready < 0 && errno != EINTR) {
        lose(client, "waiting", errno);
        return fail_lost(client, err);
    }
    return drive(client, ready > 0 && (wanted.revents & ~POLLOUT) != 0, err);
}

spb_status spb_client_wait(struct spb_client *client, int64_t timeout_ms, struct spb_error *err)
{
    SPB_TRY(check_outside(client, err));
    if (client->session.is_lost)
        return fail_lost(client, err);
    uint64_t ended = client->session.ended;
    int64_t deadline =
        timeout_ms < 0 ? SPB_NO_DEADLINE : spb_deadline_after(spb_clock_ns(), timeout_ms);

    while (client->session.ended == ended && spb_client_in_flight(client) > 0) {
        SPB_TRY(wait_once(client, deadline, err));
        if (deadline != SPB_NO_DEADLINE && spb_clock_ns() >= deadline)
            break;
    }
    return spb_ok();
}
