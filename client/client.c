/*
 * The client: opening, calls, and driving what others do with bytes and connections. One thread at
 * a time; only opening and spb_client_wait block.
 *
 * Requests are sent when the client is driven, not when they are started, so that many started at
 * once leave in one send. There are two kinds: one has a single connection and hands each call to
 * its session; the other has a link, which makes connections and holds the calls (link.h).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "client_state.h"
#include "clock.h"
#include "dial.h"
#include "link.h"

/* ---- Open and close ----------------------------------------------------------------------- */

static struct spb_client *new_client(const char *endpoint, int fd)
{
    struct spb_client *made = malloc(sizeof(*made));

    if (made == NULL)
        return NULL;
    made->fd = fd;
    made->send_errno = 0;
    made->link = NULL;
    made->received = 0;
    spb_session_init(&made->session);
    (void)snprintf(made->endpoint, sizeof(made->endpoint), "%s", endpoint);
    return made;
}

spb_status spb_client_open(const char *endpoint, int64_t timeout_ms, struct spb_client **client,
                           struct spb_error *err)
{
    int64_t deadline = spb_deadline_after(spb_clock_ns(), timeout_ms);
    struct spb_endpoint parsed;
    int fd;

    SPB_TRY(spb_endpoint_parse(endpoint, &parsed, err));
    SPB_TRY(spb_dial(endpoint, &parsed, deadline, &fd, err));
    struct spb_client *made = new_client(endpoint, fd);
    if (made == NULL) {
        (void)close(fd);
        return spb_fail_memory(err, "connecting");
    }
    *client = made;
    return spb_ok();
}

void spb_client_options_init(struct spb_client_options *options)
{
    *options = (struct spb_client_options){
        .mode = SPB_CLIENT_REPEAT,
        .connect_timeout_ms = 10000,
        .first_connect_ms = SPB_CLIENT_NO_TIMEOUT,
        .deadline_ms = SPB_CLIENT_NO_TIMEOUT,
        .keepalive_ms = 15000,
        .backoff_base_ms = 100,
        .backoff_cap_ms = 5000,
        .jitter_percent = 50,
        .retry_percent = 20,
        .retry_burst = 64,
    };
}

static spb_status check_options(const struct spb_client_options *options, struct spb_error *err)
{
    if (options->mode != SPB_CLIENT_ONCE && options->mode != SPB_CLIENT_REPEAT)
        return spb_fail(err, SPB_INVALID,
                        "options of a client: mode is %d, expected once or repeat",
                        (int)options->mode);
    if (options->jitter_percent > 100 || options->retry_percent > 100)
        return spb_fail(err, SPB_INVALID,
                        "options of a client: jitter is %u %% and retries are %u %% of calls, "
                        "expected at most 100",
                        options->jitter_percent, options->retry_percent);
    if (options->backoff_base_ms < 0 || options->backoff_cap_ms < options->backoff_base_ms ||
        options->backoff_cap_ms > SPB_RETRY_AFTER_MS_MAX)
        return spb_fail(err, SPB_INVALID,
                        "options of a client: backoff from %lld to %lld ms, expected 0 or more, no "
                        "less, and an hour at most",
                        (long long)options->backoff_base_ms, (long long)options->backoff_cap_ms);
    if (options->keepalive_ms == 0)
        return spb_fail(err, SPB_INVALID,
                        "options of a client: keepalive is 0 ms, expected more, or none");
    return spb_ok();
}

static spb_status find_addresses(const char *text, const struct spb_endpoint *endpoint,
                                 const struct spb_client_options *options, struct addrinfo **found,
                                 struct spb_error *err)
{
    int64_t now = spb_clock_ns();
    int64_t deadline = spb_deadline_after(now, options->connect_timeout_ms);
    int64_t end = spb_deadline_after(now, options->deadline_ms);

    if (endpoint->is_unix)
        return spb_ok();
    return spb_resolve(text, endpoint, end < deadline ? end : deadline, found, err);
}

spb_status spb_client_open_with(const char *endpoint, const struct spb_client_options *options,
                                struct spb_client **client, struct spb_error *err)
{
    struct spb_endpoint parsed;
    struct addrinfo *found = NULL;

    SPB_TRY(check_options(options, err));
    SPB_TRY(spb_endpoint_parse(endpoint, &parsed, err));
    SPB_TRY(find_addresses(endpoint, &parsed, options, &found, err));
    struct spb_client *made = new_client(endpoint, -1);
    if (made == NULL) {
        if (found != NULL)
            freeaddrinfo(found);
        return spb_fail_memory(err, "making a client");
    }
    spb_status status = spb_link_new(made, &parsed, found, options, err);
    if (!spb_is_ok(status)) {
        spb_client_close(made);
        return status;
    }
    *client = made;
    return status;
}

void spb_client_close(struct spb_client *client)
{
    struct spb_error why;

    if (client == NULL)
        return;
    SPB_ASSERT(!spb_client_is_in_callback(client));
    (void)spb_fail(&why, SPB_UNREACHABLE, "the connection to %s was closed on this side",
                   client->endpoint);
    if (client->link != NULL)
        spb_retrier_close(&client->link->retrier, &why);
    spb_session_lose(&client->session, &why);
    spb_session_done(&client->session);
    spb_link_free(client->link);
    if (client->fd >= 0)
        (void)close(client->fd);
    free(client);
}

/* ---- Driving a single connection ----------------------------------------------------------- */

static spb_status fail_lost(const struct spb_client *client, struct spb_error *err)
{
    if (err != NULL)
        *err = client->session.loss;
    return (spb_status){client->session.loss.code};
}

static spb_status drive(struct spb_client *client, bool is_readable, struct spb_error *err)
{
    spb_client_send_queued(client);
    if (client->send_errno != 0)
        spb_client_end_sending(client);
    else if (is_readable)
        spb_client_receive(client);
    if (!client->session.is_lost)
        spb_session_expire(&client->session, spb_clock_ns());
    if (!client->session.is_lost)
        spb_client_send_queued(client); /* what callbacks started */
    return client->session.is_lost ? fail_lost(client, err) : spb_ok();
}

bool spb_client_is_in_callback(const struct spb_client *client)
{
    return client->session.is_in_callback ||
           (client->link != NULL && client->link->retrier.is_in_callback);
}

static spb_status check_outside(const struct spb_client *client, struct spb_error *err)
{
    if (!spb_client_is_in_callback(client))
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "a callback can start calls, but not drive the client");
}

/* ---- Calls -------------------------------------------------------------------------------- */

spb_status spb_client_begin(struct spb_client *client, const struct spb_client_call *call,
                            struct spb_error *err)
{
    SPB_ASSERT(call->service != NULL && call->method != NULL && call->callback != NULL);
    if (client->link != NULL)
        return spb_link_begin(client, call, err);
    struct spb_session_call only = {.service = call->service,
                                    .method = call->method,
                                    .payload = call->payload,
                                    .size = call->size,
                                    .timeout_ms = call->timeout_ms,
                                    .callback = call->callback,
                                    .user = call->user};

    return spb_session_start(&client->session, &only, spb_clock_ns(), err);
}

spb_status spb_client_start(struct spb_client *client, const char *service, const char *method,
                            const void *payload, size_t size, int64_t timeout_ms,
                            spb_client_callback callback, void *user, struct spb_error *err)
{
    const struct spb_client_call call = {.service = service,
                                         .method = method,
                                         .payload = payload,
                                         .size = size,
                                         .timeout_ms = timeout_ms,
                                         .mode = client->link != NULL ? client->link->mode
                                                                      : SPB_CLIENT_ONCE,
                                         .callback = callback,
                                         .user = user};

    return spb_client_begin(client, &call, err);
}

size_t spb_client_in_flight(const struct spb_client *client)
{
    return client->link != NULL ? client->link->retrier.count : client->session.calls.running.count;
}

int spb_client_fd(const struct spb_client *client)
{
    return client->link != NULL ? spb_link_fd(client) : client->fd;
}

/* After a failed send the descriptor stays ready to be read, so reading wakes the owner's loop. */
unsigned spb_client_wants(const struct spb_client *client)
{
    if (client->link != NULL)
        return spb_link_wants(client);
    if (client->session.is_lost)
        return 0;
    bool is_sending = client->send_errno == 0 && spb_outbox_left(&client->session.outbox) > 0;

    return SPB_CLIENT_READ | (is_sending ? SPB_CLIENT_WRITE : 0);
}

static int64_t wake_ns(const struct spb_client *client)
{
    return client->link != NULL ? spb_link_wake_ns(client)
                                : spb_call_table_deadline(&client->session.calls);
}

int64_t spb_client_timeout_ms(const struct spb_client *client)
{
    int64_t wake = wake_ns(client);

    return wake == SPB_NO_DEADLINE ? SPB_CLIENT_NO_TIMEOUT : spb_ms_until(wake, spb_clock_ns());
}

spb_status spb_client_ready(struct spb_client *client, struct spb_error *err)
{
    SPB_TRY(check_outside(client, err));
    if (client->link != NULL) {
        spb_link_turn(client, true);
        return spb_ok();
    }
    if (client->session.is_lost)
        return fail_lost(client, err);
    return drive(client, true, err);
}

/* ---- Waiting ------------------------------------------------------------------------------ */

static uint64_t ended_calls(const struct spb_client *client)
{
    return client->link != NULL ? client->link->retrier.ended : client->session.ended;
}

/* Polls for the socket, the nearest deadline or the given one. *is_readable: there is something to
 * read, or the end. 0, or an errno; EINTR: a signal came. */
static int poll_once(const struct spb_client *client, int64_t deadline_ns, bool *is_readable)
{
    int64_t wake = wake_ns(client);
    int64_t until = wake < deadline_ns ? wake : deadline_ns;
    unsigned wants = spb_client_wants(client);
    struct pollfd wanted = {.fd = spb_client_fd(client)};

    if (wants & SPB_CLIENT_READ)
        wanted.events |= POLLIN;
    if (wants & SPB_CLIENT_WRITE)
        wanted.events |= POLLOUT;
    /* The time is asked only where there is a deadline to measure against. */
    int timeout = until == SPB_NO_DEADLINE ? -1 : spb_poll_timeout(until, spb_clock_ns());
    int ready = poll(&wanted, 1, timeout);
    *is_readable = ready > 0 && (wanted.revents & ~POLLOUT) != 0;
    return ready < 0 ? errno : 0;
}

static spb_status wait_once(struct spb_client *client, int64_t deadline_ns, bool *is_interrupted,
                            struct spb_error *err)
{
    bool is_readable = false;

    spb_client_send_queued(client);
    if (client->send_errno != 0)
        return drive(client, true, err);
    int number = poll_once(client, deadline_ns, &is_readable);
    *is_interrupted = number == EINTR;
    if (number != 0 && number != EINTR) {
        spb_client_lose(client, "waiting", number);
        return fail_lost(client, err);
    }
    return drive(client, is_readable, err);
}

/* The first turn sends what was started; it may end calls too. A poll that fails, of one
 * descriptor, is no reason to give calls up: they go round again, until their deadlines. */
static void wait_link_once(struct spb_client *client, int64_t deadline_ns, bool *is_interrupted)
{
    uint64_t ended = ended_calls(client);
    bool is_readable = false;

    spb_link_look_up(client, deadline_ns);
    spb_link_turn(client, false);
    if (ended_calls(client) != ended)
        return;
    *is_interrupted = poll_once(client, deadline_ns, &is_readable) == EINTR;
    spb_link_look_up(client, deadline_ns);
    spb_link_turn(client, is_readable);
}

spb_status spb_client_wait(struct spb_client *client, int64_t timeout_ms, struct spb_error *err)
{
    SPB_TRY(check_outside(client, err));
    if (client->link == NULL && client->session.is_lost)
        return fail_lost(client, err);
    uint64_t ended = ended_calls(client);
    int64_t deadline =
        timeout_ms < 0 ? SPB_NO_DEADLINE : spb_deadline_after(spb_clock_ns(), timeout_ms);
    bool is_interrupted = false;

    while (ended_calls(client) == ended && spb_client_in_flight(client) > 0 && !is_interrupted) {
        if (client->link != NULL)
            wait_link_once(client, deadline, &is_interrupted);
        else
            SPB_TRY(wait_once(client, deadline, &is_interrupted, err));
        if (deadline != SPB_NO_DEADLINE && spb_clock_ns() >= deadline)
            break;
    }
    return spb_ok();
}
