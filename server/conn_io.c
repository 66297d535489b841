/*
 * The sockets of connections; see conn_state.h. They are read into one buffer that all share (large
 * frames into their own), and not much further than the frame that is arriving: what is read and
 * cannot be parsed yet has to be kept. Answers gather in an evbuffer a connection and are written
 * once a turn, so that calls that came together leave together.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <event2/buffer.h>

#include "conn_state.h"
#include "daemon.h"

#define DIRECT_MIN (64u * 1024)     /* bytes of a frame still to come */
#define TURN_NS (SPB_NS_PER_MS / 2) /* for the input of those that have become readable */

static void set_event(struct event *event, bool *added, bool wanted)
{
    if (*added == wanted)
        return;
    *added = wanted;
    (void)(wanted ? event_add(event, NULL) : event_del(event));
}

void spb_conn_watch(struct spb_conn *conn, bool read, bool write)
{
    set_event(&conn->writable, &conn->writing, write);
    set_event(&conn->readable, &conn->reading, read);
}

/* ---- In ----------------------------------------------------------------------------------- */

/* Where it is read to, and how much: a large frame that has its memory goes there at once. */
static uint8_t *read_to(struct spb_conn *conn, size_t *size)
{
    uint8_t *to = NULL;

    if (conn->reserved > 0)
        to = spb_ttrpc_parser_room(&conn->parser, DIRECT_MIN, size);
    if (to == NULL) {
        to = conn->conns->buffer;
        *size = spb_ttrpc_parser_left(&conn->parser) + SPB_READ_AHEAD;
    }
    if (*size > SPB_READ_SIZE)
        *size = SPB_READ_SIZE;
    return to;
}

void spb_conn_read(struct spb_conn *conn)
{
    size_t size = 0;

    conn->unread = false;
    spb_conn_mark(conn);
    if (conn->eof)
        return;
    uint8_t *buffer = read_to(conn, &size);
    ssize_t got = recv(conn->fd, buffer, size, 0);
    if (got > 0) {
        spb_metrics_count(conn->conns->metrics, SPB_COUNT_BYTES_IN, (uint64_t)got);
        spb_conn_take_bytes(conn, buffer, (size_t)got);
    } else if (got == 0) {
        conn->eof = true;
        spb_conn_end_waits(conn);
    } else if (errno != EAGAIN && errno != EINTR) {
        spb_conn_end(conn, "reading failed");
    }
}

static void on_readable(evutil_socket_t fd, short what, void *user)
{
    struct spb_conn *conn = user;
    struct spb_conns *conns = conn->conns;

    (void)fd;
    (void)what;
    if (conns->turn_until_ns == 0)
        conns->turn_until_ns = spb_now_ns() + TURN_NS;
    /* Those have their turn in a backlog. */
    conn->unread = spb_conn_weight(conn) == SPB_HEAVY || conns->parse_ns > conns->turn_until_ns;
    if (conn->unread)
        spb_conn_mark(conn);
    else
        spb_conn_read(conn);
}

/* ---- Out ---------------------------------------------------------------------------------- */

static int64_t stall_ns(const struct spb_conn *conn)
{
    return (int64_t)SPB_LIMIT(conn->conns->daemon, output_stall_ms) * SPB_NS_PER_MS;
}

/* Bytes that the kernel was given and that the peer's has not taken yet. */
static uint64_t undelivered(const struct spb_conn *conn)
{
    int bytes = 0;

    return ioctl(conn->fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (uint64_t)bytes : 0;
}

static uint64_t delivered(const struct spb_conn *conn)
{
    uint64_t under_way = undelivered(conn);

    return conn->written > under_way ? conn->written - under_way : 0;
}

void spb_conn_begin_output(struct spb_conn *conn)
{
    conn->output_due_ns = spb_loop_now_ns(conn->conns->daemon->loop) + stall_ns(conn);
}

/*
 * What the peer takes buys it the time that this takes at the slowest rate, and never more than the
 * whole of it: a byte now and then does not keep a connection that owes megabytes.
 */
void spb_conn_note_progress(struct spb_conn *conn)
{
    int64_t now_ns = spb_loop_now_ns(conn->conns->daemon->loop);
    uint64_t rate = SPB_LIMIT(conn->conns->daemon, frame_bytes_per_s);
    uint64_t out = delivered(conn), bytes = out - conn->delivered;
    int64_t latest_ns = now_ns + stall_ns(conn);

    if (out <= conn->delivered)
        return;
    conn->delivered = out;
    if (bytes / rate > (uint64_t)(stall_ns(conn) / SPB_NS_PER_S))
        conn->output_due_ns = latest_ns;
    else
        conn->output_due_ns += (int64_t)(bytes * (uint64_t)SPB_US_PER_S / rate) * SPB_NS_PER_US;
    if (conn->output_due_ns > latest_ns)
        conn->output_due_ns = latest_ns;
}

static void on_writable(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    spb_conn_mark(user);
}

void spb_conn_write(struct spb_conn *conn)
{
    while (evbuffer_get_length(conn->out) > 0 && !conn->doomed) {
        int sent = evbuffer_write(conn->out, conn->fd);

        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            spb_conn_end(conn, "writing failed");
        } else if (sent > 0) {
            conn->written += (uint64_t)sent;
            spb_metrics_count(conn->conns->metrics, SPB_COUNT_BYTES_OUT, (uint64_t)sent);
            continue;
        }
        break;
    }
}

void spb_conn_assign_events(struct spb_conn *conn, struct event_base *base)
{
    (void)event_assign(&conn->readable, base, conn->fd, EV_READ | EV_PERSIST, on_readable, conn);
    (void)event_assign(&conn->writable, base, conn->fd, EV_WRITE | EV_PERSIST, on_writable, conn);
}
