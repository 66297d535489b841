/*
 * Connections; see conn.h. Sockets are read into one buffer that all share and parsed from there;
 * answers gather in an evbuffer a connection and are written once a turn, so that calls that came
 * together leave together.
 *
 * Back-pressure: a connection with too much pending output, too large a sum of requests in flight
 * or of replies promised is not read, and what was read of it already waits in `held`. Deadlines
 * are absolute and looked at every tick: nothing that a peer does byte by byte prolongs one.
 */
#include "conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "ttrpc/ttrpc.h"

#define READ_SIZE (256u * 1024)
#define FRAME_TIME_NS (10 * SPB_NS_PER_S) /* and the time its bytes take at the slowest rate */
#define SLOWEST_BYTES_PER_S (16u * 1024)
#define IDLE_NS (120 * SPB_NS_PER_S)
#define NO_PROGRESS_NS (30 * SPB_NS_PER_S)
#define OUTPUT_PAUSE (1024u * 1024)
#define OUTPUT_MAX (8u * 1024 * 1024)
#define PROMISED_MAX (4u * 1024 * 1024)
#define REQUESTS_MAX (4u * 1024 * 1024)
#define REFERENCE_MIN (16u * 1024) /* answers from this size on are not copied */
#define RESUME_ROUNDS 4

struct conn {
    struct spb_conns *conns;
    uint32_t slot, generation;
    int fd;
    struct event readable, writable;
    bool reading, writing; /* which events are in the loop */
    bool eof;              /* the peer sends no more */
    bool dirty;            /* in the turn's list */
    bool doomed;           /* to be closed at the turn's end */
    const char *doom;      /* why, for the log */
    struct conn *next_dirty;
    struct spb_principal principal;
    struct spb_ttrpc_parser parser;
    struct evbuffer *out;
    uint8_t *held; /* read and not parsed yet; owned */
    size_t held_used, held_size;
    uint32_t last_stream;
    size_t calls, request_bytes, promised_bytes;
    bool greeted;           /* a first frame has come */
    int64_t frame_start_ns; /* when the frame that is arriving began, or the wait for the first one;
                             * 0: none is */
    int64_t last_active_ns;
    int64_t progress_ns; /* last time that output left, or began to wait */
};

struct spb_conns {
    struct spb_daemon *daemon;
    struct spb_call_cache cache;
    struct conn *slots[SPB_CONNS_MAX];
    uint32_t generations[SPB_CONNS_MAX];
    uint32_t free_slots[SPB_CONNS_MAX]; /* a stack */
    size_t free_count;
    size_t calls; /* in flight, those of closed connections included */
    struct conn *dirty;
    uint8_t buffer[READ_SIZE];
};

static void mark_dirty(struct conn *conn)
{
    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->next_dirty = conn->conns->dirty;
    conn->conns->dirty = conn;
}

/* Before it is freed: it may be in the list again, such as where a write of this turn failed. */
static void unmark_dirty(struct conn *conn)
{
    struct conn **link = &conn->conns->dirty;

    if (!conn->dirty)
        return;
    while (*link != conn)
        link = &(*link)->next_dirty;
    *link = conn->next_dirty;
    conn->dirty = false;
}

static void doom(struct conn *conn, const char *why)
{
    if (!conn->doomed) {
        conn->doomed = true;
        conn->doom = why;
    }
    mark_dirty(conn);
}

/* ---- Calls -------------------------------------------------------------------------------- */

static struct conn *conn_of(const struct spb_conns *conns, const struct spb_call_origin *origin)
{
    struct conn *conn = conns->slots[origin->slot];

    return conn != NULL && conn->generation == origin->generation ? conn : NULL;
}

static void free_call(const void *data, size_t size, void *user)
{
    (void)data;
    (void)size;
    spb_call_free(user);
}

static void append_answer(struct conn *conn, struct spb_call *call)
{
    bool kept = false;

    if (evbuffer_get_length(conn->out) == 0)
        conn->progress_ns = spb_loop_now_ns(conn->conns->daemon->loop);
    if (call->frame == NULL)
        doom(conn, "no memory for an answer");
    else if (call->frame_size >= REFERENCE_MIN)
        kept =
            evbuffer_add_reference(conn->out, call->frame, call->frame_size, free_call, call) == 0;
    if (!kept) {
        if (call->frame != NULL && evbuffer_add(conn->out, call->frame, call->frame_size) != 0)
            doom(conn, "no memory for an answer");
        spb_call_free(call);
    }
    mark_dirty(conn);
}

/* The post of a call that has its answer. */
static void deliver(struct spb_post *post)
{
    struct spb_call *call = SPB_CONTAINER(post, struct spb_call, post);
    struct spb_conns *conns = call->origin.transport;
    struct conn *conn = conn_of(conns, &call->origin);

    conns->calls--;
    if (conn == NULL) {
        spb_call_free(call);
        return;
    }
    conn->calls--;
    conn->request_bytes -= call->origin.request_bytes;
    conn->promised_bytes -= call->origin.promised_bytes;
    conn->last_active_ns = spb_loop_now_ns(conns->daemon->loop);
    if (conn->doomed)
        spb_call_free(call);
    else
        append_answer(conn, call);
}

static void promise(struct spb_call *call, size_t bytes)
{
    struct conn *conn = conn_of(call->origin.transport, &call->origin);

    SPB_ASSERT(conn != NULL && call->origin.promised_bytes == 0);
    call->origin.promised_bytes = bytes;
    conn->promised_bytes += bytes;
}

static struct spb_call *begin_call(struct conn *conn, const struct spb_ttrpc_header *header,
                                   size_t request_bytes)
{
    struct spb_call *call = spb_call_new(&conn->conns->cache, conn->conns->daemon);

    if (call == NULL)
        return NULL;
    call->post.run = deliver;
    call->principal = conn->principal;
    call->origin = (struct spb_call_origin){
        .transport = conn->conns,
        .slot = conn->slot,
        .generation = conn->generation,
        .stream = header->stream,
        .request_bytes = request_bytes,
        .promise = promise,
    };
    conn->calls++;
    conn->conns->calls++;
    conn->request_bytes += request_bytes;
    return call;
}

/* ---- Frames ------------------------------------------------------------------------------- */

/* What is wrong with a request's frame, whatever is in it; sets the error. */
static bool frame_is_good(struct conn *conn, struct spb_call *call,
                          const struct spb_ttrpc_header *header, bool too_large)
{
    if (header->stream % 2 == 0 || header->stream <= conn->last_stream) {
        spb_call_set_bad_field(call, "stream", "found id %u after %u, expected an odd one above it",
                               header->stream, conn->last_stream);
        return false;
    }
    conn->last_stream = header->stream;
    if (too_large) {
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "the frame has %u bytes of data, at most %u are taken", header->length,
                           SPB_FRAME_DATA_MAX);
        return false;
    }
    if (conn->calls > SPB_CALLS_IN_FLIGHT_MAX) {
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "%u calls are in flight on the connection, at most so many are taken",
                           SPB_CALLS_IN_FLIGHT_MAX);
        return false;
    }
    return true;
}

static void take_frame(struct conn *conn, const struct spb_ttrpc_header *header,
                       const uint8_t *data, bool too_large)
{
    if (header->type != SPB_TTRPC_TYPE_REQUEST)
        return;
    size_t size = too_large ? 0 : header->length;
    struct spb_call *call = begin_call(conn, header, size);
    if (call == NULL) {
        doom(conn, "no memory for a call");
        return;
    }
    if (frame_is_good(conn, call, header, too_large))
        spb_dispatch(call, data, size);
    else
        spb_call_send(call);
}

static bool is_paused(const struct conn *conn)
{
    size_t out = evbuffer_get_length(conn->out);

    return out >= OUTPUT_PAUSE || out + conn->promised_bytes >= PROMISED_MAX ||
           conn->request_bytes >= REQUESTS_MAX;
}

/* Parses until the bytes are used up or the connection has enough to do. Returns the bytes used. */
static size_t parse(struct conn *conn, const uint8_t *bytes, size_t n)
{
    size_t done = 0;

    while (done < n && !conn->doomed && !is_paused(conn)) {
        enum spb_ttrpc_event event = SPB_TTRPC_NEED_MORE;
        struct spb_ttrpc_header header;
        const uint8_t *data = NULL;
        struct spb_error err;
        size_t used = 0;
        spb_status status = spb_ttrpc_parser_feed(&conn->parser, bytes + done, n - done, &used,
                                                  &event, &header, &data, &err);

        done += used;
        if (!spb_is_ok(status)) {
            doom(conn, "no memory for a frame");
        } else if (event == SPB_TTRPC_BROKEN) {
            doom(conn, "a frame's header does not begin with 0");
        } else if (event == SPB_TTRPC_FRAME || event == SPB_TTRPC_TOO_LARGE) {
            conn->frame_start_ns = 0;
            conn->greeted = true;
            take_frame(conn, &header, data, event == SPB_TTRPC_TOO_LARGE);
        }
    }
    return done;
}

/* After parsing: when did the frame begin that is arriving now? The wait for the first one began
 * with the connection. */
static void note_frame_start(struct conn *conn, int64_t now_ns)
{
    if (!conn->greeted)
        return;
    if (!spb_ttrpc_parser_is_mid_frame(&conn->parser))
        conn->frame_start_ns = 0;
    else if (conn->frame_start_ns == 0)
        conn->frame_start_ns = now_ns;
}

static bool hold(struct conn *conn, const uint8_t *bytes, size_t n)
{
    uint8_t *held = malloc(n);

    if (held == NULL)
        return false;
    memcpy(held, bytes, n);
    conn->held = held;
    conn->held_used = 0;
    conn->held_size = n;
    return true;
}

static void take_bytes(struct conn *conn, const uint8_t *bytes, size_t n)
{
    int64_t now_ns = spb_loop_now_ns(conn->conns->daemon->loop);

    conn->last_active_ns = now_ns;
    size_t used = parse(conn, bytes, n);
    note_frame_start(conn, now_ns);
    if (used < n && !conn->doomed && !hold(conn, bytes + used, n - used))
        doom(conn, "no memory for what was read");
}

/* Goes on with what was held back. */
static void resume(struct conn *conn)
{
    size_t left = conn->held_size - conn->held_used;
    size_t used = parse(conn, conn->held + conn->held_used, left);

    conn->held_used += used;
    if (conn->held_used == conn->held_size || conn->doomed) {
        free(conn->held);
        conn->held = NULL;
    }
    note_frame_start(conn, spb_loop_now_ns(conn->conns->daemon->loop));
}

/* ---- Sockets ------------------------------------------------------------------------------ */

static void set_event(struct event *event, bool *added, bool wanted)
{
    if (*added == wanted)
        return;
    *added = wanted;
    (void)(wanted ? event_add(event, NULL) : event_del(event));
}

static void on_readable(evutil_socket_t fd, short what, void *user)
{
    struct conn *conn = user;
    uint8_t *buffer = conn->conns->buffer;

    (void)what;
    ssize_t got = recv(fd, buffer, READ_SIZE, 0);
    if (got > 0) {
        take_bytes(conn, buffer, (size_t)got);
    } else if (got == 0) {
        conn->eof = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        doom(conn, "reading failed");
    }
    mark_dirty(conn);
}

static void on_writable(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    mark_dirty(user);
}

static void write_out(struct conn *conn)
{
    while (evbuffer_get_length(conn->out) > 0 && !conn->doomed) {
        int sent = evbuffer_write(conn->out, conn->fd);

        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            doom(conn, "writing failed");
        } else if (sent > 0) {
            conn->progress_ns = spb_loop_now_ns(conn->conns->daemon->loop);
            continue;
        }
        break;
    }
}

static void close_conn(struct conn *conn)
{
    struct spb_conns *conns = conn->conns;

    spb_log(&conns->daemon->log, SPB_LOG_DEBUG, "connection-closed",
            SPB_NUMBER("connection", conn->slot), SPB_TEXT("principal", conn->principal.name),
            SPB_TEXT("reason", conn->doom == NULL ? "the peer is done" : conn->doom));
    unmark_dirty(conn);
    set_event(&conn->readable, &conn->reading, false);
    set_event(&conn->writable, &conn->writing, false);
    (void)close(conn->fd);
    conns->slots[conn->slot] = NULL;
    conns->generations[conn->slot]++;
    conns->free_slots[conns->free_count++] = conn->slot;
    spb_ttrpc_parser_done(&conn->parser);
    if (conn->out != NULL)
        evbuffer_free(conn->out);
    free(conn->held);
    free(conn);
}

/*
 * Flushes, goes on with what was held back, and settles what the connection waits for; or closes
 * it. True where there is more to do in the next turn.
 */
static bool settle(struct conn *conn)
{
    write_out(conn);
    for (int i = 0; i < RESUME_ROUNDS && conn->held != NULL && !is_paused(conn) && !conn->doomed;
         i++) {
        resume(conn);
        write_out(conn);
    }
    size_t out = evbuffer_get_length(conn->out);
    if (out >= OUTPUT_MAX)
        doom(conn, "too much output is pending");
    if (conn->eof && conn->calls == 0 && out == 0 && conn->held == NULL)
        conn->doomed = true;
    if (conn->doomed) {
        close_conn(conn);
        return false;
    }
    bool read = !conn->eof && conn->held == NULL && !is_paused(conn);
    /* A frame could not arrive while it was not read: its time begins anew. */
    if (read && !conn->reading && conn->frame_start_ns != 0)
        conn->frame_start_ns = spb_loop_now_ns(conn->conns->daemon->loop);
    set_event(&conn->writable, &conn->writing, out > 0);
    set_event(&conn->readable, &conn->reading, read);
    return conn->held != NULL && !is_paused(conn);
}

void spb_conns_turn(struct spb_conns *conns)
{
    struct conn *conn = conns->dirty;

    conns->dirty = NULL;
    while (conn != NULL) {
        struct conn *next = conn->next_dirty;

        conn->dirty = false;
        if (settle(conn))
            mark_dirty(conn);
        conn = next;
    }
    if (conns->dirty != NULL)
        spb_loop_again(conns->daemon->loop);
}

/* ---- Deadlines ---------------------------------------------------------------------------- */

static int64_t frame_time_ns(const struct conn *conn)
{
    uint64_t length = 0;

    if (conn->parser.head_used >= SPB_TTRPC_HEADER_SIZE)
        length = conn->parser.header.length;
    return FRAME_TIME_NS + (int64_t)(length / SLOWEST_BYTES_PER_S) * SPB_NS_PER_S;
}

static const char *overdue(const struct conn *conn, int64_t now_ns)
{
    bool output = evbuffer_get_length(conn->out) > 0;

    if (output && now_ns - conn->progress_ns > NO_PROGRESS_NS)
        return "the peer takes no output";
    if (conn->frame_start_ns != 0 && conn->reading &&
        now_ns - conn->frame_start_ns > frame_time_ns(conn))
        return "a frame took too long to arrive";
    if (!output && conn->calls == 0 && conn->frame_start_ns == 0 &&
        now_ns - conn->last_active_ns > IDLE_NS)
        return "idle";
    return NULL;
}

void spb_conns_tick(struct spb_conns *conns)
{
    int64_t now_ns = spb_loop_now_ns(conns->daemon->loop);

    if (conns->free_count == SPB_CONNS_MAX)
        return;
    for (size_t i = 0; i < SPB_CONNS_MAX; i++) {
        struct conn *conn = conns->slots[i];
        const char *why = conn == NULL ? NULL : overdue(conn, now_ns);

        if (why != NULL)
            doom(conn, why);
    }
}

/* ---- Life --------------------------------------------------------------------------------- */

spb_status spb_conns_new(struct spb_daemon *daemon, struct spb_conns **out, struct spb_error *err)
{
    struct spb_conns *conns = calloc(1, sizeof(*conns));

    if (conns == NULL)
        return spb_fail_memory(err, "making the table of connections");
    conns->daemon = daemon;
    for (uint32_t i = 0; i < SPB_CONNS_MAX; i++)
        conns->free_slots[i] = SPB_CONNS_MAX - 1 - i;
    conns->free_count = SPB_CONNS_MAX;
    *out = conns;
    return spb_ok();
}

void spb_conns_free(struct spb_conns *conns)
{
    if (conns == NULL)
        return;
    SPB_ASSERT(conns->calls == 0);
    for (size_t i = 0; i < SPB_CONNS_MAX; i++) {
        if (conns->slots[i] != NULL)
            close_conn(conns->slots[i]);
    }
    spb_call_cache_done(&conns->cache);
    free(conns);
}

void spb_conns_adopt(struct spb_conns *conns, int fd, const struct spb_principal *principal)
{
    struct conn *conn = NULL;
    struct event_base *base = spb_loop_base(conns->daemon->loop);

    if (conns->free_count > 0)
        conn = calloc(1, sizeof(*conn));
    if (conn != NULL)
        conn->out = evbuffer_new();
    if (conn == NULL || conn->out == NULL) {
        spb_log(&conns->daemon->log, SPB_LOG_WARN, "connection-refused",
                SPB_NUMBER("connections", SPB_CONNS_MAX - conns->free_count),
                SPB_TEXT("reason", "as many as are taken, or no memory"));
        free(conn);
        (void)close(fd);
        return;
    }
    conn->conns = conns;
    conn->fd = fd;
    conn->principal = *principal;
    conn->slot = conns->free_slots[--conns->free_count];
    conn->generation = conns->generations[conn->slot];
    conns->slots[conn->slot] = conn;
    spb_ttrpc_parser_init(&conn->parser, SPB_FRAME_DATA_MAX);
    conn->last_active_ns = spb_loop_now_ns(conns->daemon->loop);
    conn->frame_start_ns = conn->last_active_ns;
    (void)event_assign(&conn->readable, base, fd, EV_READ | EV_PERSIST, on_readable, conn);
    (void)event_assign(&conn->writable, base, fd, EV_WRITE | EV_PERSIST, on_writable, conn);
    set_event(&conn->readable, &conn->reading, true);
    spb_log(&conns->daemon->log, SPB_LOG_DEBUG, "connection-taken",
            SPB_NUMBER("connection", conn->slot), SPB_TEXT("principal", principal->name));
}

bool spb_conns_are_quiet(const struct spb_conns *conns)
{
    if (conns->calls > 0)
        return false;
    for (size_t i = 0; i < SPB_CONNS_MAX; i++) {
        const struct conn *conn = conns->slots[i];

        if (conn != NULL && (evbuffer_get_length(conn->out) > 0 || conn->held != NULL))
            return false;
    }
    return true;
}
