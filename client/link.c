/* The connections of a client that reconnects. See link.h. */
#include "link.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/status.h"
#include "dial.h"
#include "entropy.h"

spb_status spb_link_new(struct spb_client *client, const struct spb_endpoint *endpoint,
                        struct addrinfo *found, const struct spb_client_options *options,
                        struct spb_error *err)
{
    struct spb_link *link = calloc(1, sizeof(*link));
    int64_t now = spb_clock_ns();

    if (link == NULL) {
        if (found != NULL)
            freeaddrinfo(found);
        return spb_fail_memory(err, "making a client");
    }
    link->mode = options->mode;
    link->connect_timeout_ms = options->connect_timeout_ms;
    link->deadline_ns = spb_deadline_after(now, options->deadline_ms);
    link->keepalive_ns = spb_deadline_after(0, options->keepalive_ms);
    spb_connector_init(&link->connector, client->endpoint, endpoint, found);
    /* Without randomness the delays are those of everybody who has none; the calls go on. */
    uint64_t seed = (uint64_t)now;
    (void)spb_entropy_fill(&seed, sizeof(seed));
    spb_retrier_init(&link->retrier, options, client->endpoint, seed, now);
    client->link = link;
    return spb_ok();
}

void spb_link_free(struct spb_link *link)
{
    if (link == NULL)
        return;
    spb_connector_done(&link->connector);
    spb_retrier_done(&link->retrier);
    free(link);
}

/* ---- Losing a connection ------------------------------------------------------------------ */

void spb_link_note_loss(struct spb_link *link)
{
    spb_retrier_link_lost(&link->retrier, link->retrier.on_wire > 0);
    link->is_loss_scheduled = true;
}

/* After the session's calls were ended, or had no calls any more. */
static void put_down(struct spb_client *client)
{
    struct spb_link *link = client->link;

    spb_session_done(&client->session);
    spb_session_init(&client->session);
    (void)close(client->fd);
    client->fd = -1;
    client->send_errno = 0;
    link->state = SPB_LINK_DOWN;
    link->is_loss_scheduled = link->is_probing = link->is_dead = false;
}

/* A session that lost itself, by what the peer sent, was not scheduled for. */
static void end_lost(struct spb_client *client)
{
    struct spb_link *link = client->link;
    struct spb_error why = client->session.loss;

    if (!link->is_loss_scheduled)
        spb_retrier_link_lost(&link->retrier, true);
    put_down(client);
    spb_retrier_tell_lost(&link->retrier, &why);
}

/* All its stream ids are used: nothing failed, and the next one need not wait. */
static void retire(struct spb_client *client)
{
    const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "the connection is used up"};

    spb_retrier_link_lost(&client->link->retrier, false);
    spb_session_lose(&client->session, &why); /* a probe, at most */
    put_down(client);
}

/* ---- Making one --------------------------------------------------------------------------- */

static void take_connection(struct spb_client *client)
{
    struct spb_link *link = client->link;

    client->fd = spb_connector_take(&link->connector);
    link->received_before = client->received;
    link->state = SPB_LINK_UP;
    link->wants_look_up = false;
    spb_retrier_link_up(&link->retrier);
}

static void take_dialing(struct spb_client *client, enum spb_connector_event event,
                         const struct spb_error *why)
{
    struct spb_link *link = client->link;

    link->state = SPB_LINK_DIALING;
    if (event == SPB_CONNECT_DONE)
        take_connection(client);
    if (event != SPB_CONNECT_FAILED)
        return;
    link->state = SPB_LINK_DOWN;
    link->wants_look_up = link->connector.has_name;
    spb_retrier_dial_failed(&link->retrier, why);
}

static void dial(struct spb_client *client)
{
    struct spb_link *link = client->link;
    int64_t now = link->retrier.now_ns;
    struct spb_error why;

    take_dialing(client,
                 spb_connector_begin(&link->connector, now,
                                     spb_deadline_after(now, link->connect_timeout_ms), &why),
                 &why);
}

static void go_on_dialing(struct spb_client *client)
{
    struct spb_link *link = client->link;
    struct spb_error why;

    /* Nobody waits for it any more. */
    if (!spb_retrier_wants_link(&link->retrier)) {
        spb_connector_abandon(&link->connector);
        link->state = SPB_LINK_DOWN;
        return;
    }
    take_dialing(client, spb_connector_step(&link->connector, link->retrier.now_ns, &why), &why);
}

void spb_link_look_up(struct spb_client *client, int64_t until_ns)
{
    struct spb_link *link = client->link;
    struct addrinfo *found;

    if (link->state != SPB_LINK_DOWN || !link->wants_look_up)
        return;
    spb_retrier_set_time(&link->retrier, spb_clock_ns());
    if (!spb_retrier_may_dial(&link->retrier))
        return;
    int64_t deadline = spb_deadline_after(link->retrier.now_ns, link->connect_timeout_ms);
    int64_t wake = spb_retrier_wake_ns(&link->retrier);
    if (wake < deadline)
        deadline = wake;
    if (until_ns < deadline)
        deadline = until_ns;
    /* Where it fails the old addresses are tried again. */
    link->wants_look_up = false;
    if (spb_is_ok(spb_resolve(client->endpoint, &link->connector.endpoint, deadline, &found, NULL)))
        spb_connector_set_addresses(&link->connector, found);
}

/* ---- Is it alive? ------------------------------------------------------------------------- */

/* What we sent and the other side has not taken yet; of a TCP connection, acknowledged. */
static size_t unacknowledged(const struct spb_client *client)
{
    int queued = 0;

    if (ioctl(client->fd, SIOCOUTQ, &queued) != 0 || queued < 0)
        queued = 0;
    return spb_outbox_left(&client->session.outbox) + (size_t)queued;
}

static void look_again(struct spb_client *client)
{
    struct spb_link *link = client->link;

    link->quiet_since_ns = link->retrier.now_ns;
    link->received_then = client->received;
    link->unacknowledged_then = unacknowledged(client);
}

static bool has_moved(const struct spb_client *client)
{
    const struct spb_link *link = client->link;

    return client->received != link->received_then ||
           unacknowledged(client) < link->unacknowledged_then;
}

/* Any answer will do, also that there is no such method. Silence counts once nothing else moved. */
static void end_probe(void *user, const struct spb_client_reply *reply)
{
    struct spb_client *client = user;
    struct spb_link *link = client->link;

    link->is_probing = false;
    link->is_dead = reply->rpc_code < 0 && reply->status.code == SPB_DEADLINE && !has_moved(client);
    if (!link->is_dead && !client->session.is_lost)
        look_again(client);
}

static void probe(struct spb_client *client)
{
    struct spb_link *link = client->link;
    struct spb_session_call ping = {
        .service = "spaceblock.v1.Server",
        .method = "Ping",
        .timeout_ms = link->keepalive_ns / SPB_NS_PER_MS,
        .callback = end_probe,
        .user = client,
    };

    look_again(client);
    /* Without memory or stream ids for it, it is tried later. */
    link->is_probing =
        spb_is_ok(spb_session_start(&client->session, &ping, link->retrier.now_ns, NULL));
}

static void check_alive(struct spb_client *client)
{
    struct spb_link *link = client->link;

    if (link->keepalive_ns == SPB_NO_DEADLINE || link->is_probing || link->retrier.on_wire == 0 ||
        link->retrier.now_ns - link->quiet_since_ns < link->keepalive_ns)
        return;
    if (has_moved(client))
        look_again(client);
    else
        probe(client);
}

/* ---- Calls -------------------------------------------------------------------------------- */

static spb_status check_call(const struct spb_link *link, const struct spb_client_call *call,
                             struct spb_error *err)
{
    if (link->deadline_ns <= link->retrier.now_ns)
        return spb_fail(err, SPB_DEADLINE, "%s/%s: the time for all calls is used up",
                        call->service, call->method);
    return spb_session_check_size(call->service, call->method, call->size, err);
}

spb_status spb_link_begin(struct spb_client *client, const struct spb_client_call *call,
                          struct spb_error *err)
{
    struct spb_link *link = client->link;
    int64_t now = spb_clock_ns();
    int64_t deadline = spb_deadline_after(now, call->timeout_ms);
    struct spb_client_call bounded = *call;

    spb_retrier_set_time(&link->retrier, now);
    SPB_TRY(check_call(link, call, err));
    if (link->deadline_ns < deadline) {
        deadline = link->deadline_ns;
        bounded.timeout_ms = spb_ms_until(deadline, now);
    }
    return spb_retrier_add(&link->retrier, &bounded, deadline, err);
}

static void send_next(struct spb_client *client, struct spb_retry_call *next)
{
    struct spb_link *link = client->link;
    struct spb_session_call attempt = {
        .service = next->service,
        .method = next->method,
        .payload = next->payload,
        .size = next->size,
        .timeout_ms = next->timeout_ms,
        .deadline_ns = next->deadline_ns,
        .callback = spb_retrier_take_reply,
        .user = next,
    };
    struct spb_error err;

    if (link->retrier.on_wire == 0)
        look_again(client);
    if (spb_is_ok(spb_session_start(&client->session, &attempt, link->retrier.now_ns, &err)))
        spb_retrier_sent(next);
    else
        spb_retrier_not_sent(next, &err);
}

/*
 * After a failure, and until anything comes back, a connection may be one to nobody: a tunnel takes
 * it and hangs up. One call goes first then, and a ping with it as the call may take long; the
 * others are not sent, and not paid for, before there is an answer to either.
 */
static bool is_unproven(const struct spb_client *client)
{
    const struct spb_link *link = client->link;

    return link->retrier.failures > 0 && client->received == link->received_before;
}

/* Does the connection take another call now? */
static bool may_send(const struct spb_client *client)
{
    return client->session.next_stream <= SPB_STREAM_MAX &&
           (client->link->retrier.on_wire == 0 || !is_unproven(client));
}

static void put_on_wire(struct spb_client *client)
{
    struct spb_link *link = client->link;
    struct spb_retry_call *next;

    while (may_send(client) && (next = spb_retrier_next(&link->retrier)) != NULL)
        send_next(client, next);
    if (spb_retrier_wants_link(&link->retrier) && is_unproven(client) && !link->is_probing)
        probe(client);
}

/* ---- A turn ------------------------------------------------------------------------------- */

/* A connection that served and is idle may have been closed long ago: better known before a call
 * is sent on it, as that loss is nobody's failure. */
static void look_before_sending(struct spb_client *client)
{
    const struct spb_link *link = client->link;

    if (link->retrier.on_wire > 0 || client->received == link->received_before)
        return;
    spb_client_receive(client);
    if (client->session.is_lost)
        end_lost(client);
}

static void exchange(struct spb_client *client, bool is_readable)
{
    struct spb_session *session = &client->session;
    struct spb_link *link = client->link;

    put_on_wire(client);
    spb_client_send_queued(client);
    if (client->send_errno != 0)
        spb_client_end_sending(client);
    else if (is_readable)
        spb_client_receive(client);
    if (!session->is_lost)
        spb_session_expire(session, link->retrier.now_ns);
    if (!session->is_lost)
        check_alive(client);
    if (link->is_dead && !session->is_lost)
        spb_client_lose(client, "waiting for anything to come, be it the answer to a ping",
                        ETIMEDOUT);
    if (!session->is_lost) {
        put_on_wire(client); /* what callbacks started */
        spb_client_send_queued(client);
    }
    if (session->is_lost)
        end_lost(client);
}

static bool is_used_up(const struct spb_client *client)
{
    return client->session.next_stream > SPB_STREAM_MAX && client->link->retrier.on_wire == 0;
}

void spb_link_turn(struct spb_client *client, bool is_readable)
{
    struct spb_link *link = client->link;
    struct spb_retrier *retrier = &link->retrier;

    spb_retrier_set_time(retrier, spb_clock_ns());
    spb_retrier_expire(retrier);
    if (link->state == SPB_LINK_DIALING)
        go_on_dialing(client);
    if (link->state == SPB_LINK_UP)
        look_before_sending(client);
    if (link->state == SPB_LINK_UP && is_used_up(client))
        retire(client);
    if (link->state == SPB_LINK_DOWN && spb_retrier_may_dial(retrier))
        dial(client);
    if (link->state == SPB_LINK_UP)
        exchange(client, is_readable);
}

/* ---- What it waits for -------------------------------------------------------------------- */

int spb_link_fd(const struct spb_client *client)
{
    const struct spb_link *link = client->link;

    return link->state == SPB_LINK_DIALING ? spb_connector_fd(&link->connector) : client->fd;
}

unsigned spb_link_wants(const struct spb_client *client)
{
    const struct spb_link *link = client->link;

    if (link->state == SPB_LINK_DOWN)
        return 0;
    if (link->state == SPB_LINK_DIALING)
        return spb_link_fd(client) < 0 ? 0 : SPB_CLIENT_WRITE;
    bool is_sending = spb_outbox_left(&client->session.outbox) > 0 ||
                      (spb_retrier_wants_link(&link->retrier) && may_send(client));

    return SPB_CLIENT_READ | (is_sending ? SPB_CLIENT_WRITE : 0);
}

static void take_earlier(int64_t *wake_ns, int64_t other_ns)
{
    if (other_ns < *wake_ns)
        *wake_ns = other_ns;
}

int64_t spb_link_wake_ns(const struct spb_client *client)
{
    const struct spb_link *link = client->link;
    int64_t wake = spb_retrier_wake_ns(&link->retrier);

    take_earlier(&wake, spb_call_table_deadline(&client->session.calls));
    if (link->state == SPB_LINK_DOWN && spb_retrier_wants_link(&link->retrier))
        take_earlier(&wake, link->retrier.dial_ns);
    if (link->state == SPB_LINK_DIALING)
        take_earlier(&wake, spb_connector_due_ns(&link->connector));
    if (link->state == SPB_LINK_UP && link->retrier.on_wire > 0 && !link->is_probing &&
        link->keepalive_ns != SPB_NO_DEADLINE)
        take_earlier(&wake, link->quiet_since_ns + link->keepalive_ns);
    if (link->state == SPB_LINK_UP && is_used_up(client))
        take_earlier(&wake, link->retrier.now_ns);
    return wake;
}
