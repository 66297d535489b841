/*
 * Frames to calls, and answers back; see conn_state.h.
 *
 * Back-pressure: a connection with too much pending output, too large a sum of requests in work or
 * of replies promised is paused, and one whose next frame or answer finds no memory waits; both are
 * not read, and what was read of them already stays in `held`.
 */
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

#include "base/status.h"
#include "conn_state.h"
#include "daemon.h"
#include "dispatch.h"

#define REFERENCE_MIN (16u * 1024) /* answers from this size on are not copied */
#define PARSER_KEEP 4096u
/* Of a connection before others have their turn: all that a client may have in flight; but few
 * where many are busy. */
#define VISIT_FRAMES 64
#define VISIT_FRAMES_BUSY 8
#define BUSY_FRAMES 256 /* in a turn */
#define VISIT_NS (SPB_NS_PER_MS / 8)

struct spb_conn *spb_conn_of(const struct spb_conns *conns, const struct spb_call_origin *origin)
{
    struct spb_conn *conn = conns->slots[origin->slot];

    return conn != NULL && conn->generation == origin->generation ? conn : NULL;
}

/* ---- Answers ------------------------------------------------------------------------------ */

/* The buffer is done with an answer that it had by reference: it was sent, or the connection is
 * gone. */
static void free_call(const void *data, size_t size, void *user)
{
    struct spb_call *call = user;
    struct spb_conn *conn = spb_conn_of(call->origin.transport, &call->origin);

    (void)data;
    if (conn != NULL)
        conn->out_kept -= size;
    else if (call->lost != NULL)
        call->lost(call);
    spb_call_free(call);
}

static void append_answer(struct spb_conn *conn, struct spb_call *call)
{
    bool kept = false;

    if (evbuffer_get_length(conn->out) == 0)
        spb_conn_begin_output(conn);
    if (call->frame == NULL) {
        spb_conn_doom(conn, SPB_REFUSED_MEMORY, "no memory for an answer");
    } else if (call->frame_size >= REFERENCE_MIN || call->lost != NULL) {
        if (call->lost == NULL)
            spb_arena_keep(&call->arena, call->frame);
        kept =
            evbuffer_add_reference(conn->out, call->frame, call->frame_size, free_call, call) == 0;
    }
    if (kept) {
        conn->out_kept += call->frame_size;
    } else {
        if (call->frame != NULL && evbuffer_add(conn->out, call->frame, call->frame_size) != 0)
            spb_conn_doom(conn, SPB_REFUSED_MEMORY, "no memory for an answer");
        conn->out_copied += call->frame_size;
        spb_call_free(call);
    }
    spb_conn_mark(conn);
}

/* Its connection is gone, and what it held with it. */
static void drop_orphan(struct spb_conns *conns, struct spb_call *call)
{
    uint64_t held = call->origin.request_bytes + call->origin.promised_bytes;

    SPB_ASSERT(conns->orphan_memory >= held);
    conns->orphan_memory -= held;
    spb_budget_change(&conns->budget, held, 0);
    conns->memory_came_free = true;
    spb_call_free(call);
}

/* While a connection is parsed, the time that is read now and then there is near enough. */
static void observe(struct spb_conns *conns, const struct spb_call *call)
{
    int64_t now_ns = conns->parsing ? conns->parse_ns : spb_now_ns();

    spb_metrics_observe_call(conns->metrics, call->method, call->code,
                             now_ns - call->origin.start_ns);
}

/* The post of a call that has its answer. */
static void deliver(struct spb_post *post)
{
    struct spb_call *call = SPB_CONTAINER(post, struct spb_call, post);
    struct spb_conns *conns = call->origin.transport;
    struct spb_conn *conn = spb_conn_of(conns, &call->origin);

    conns->calls--;
    observe(conns, call);
    if (call->lost != NULL && (conn == NULL || conn->doomed))
        call->lost(call);
    if (conn == NULL) {
        drop_orphan(conns, call);
        return;
    }
    conn->calls--;
    conn->request_bytes -= call->origin.request_bytes;
    conn->promised_bytes -= call->origin.promised_bytes;
    conn->last_call_ns = spb_loop_now_ns(conns->daemon->loop);
    if (conn->doomed)
        spb_call_free(call);
    else
        append_answer(conn, call);
    spb_conn_recount(conn);
}

static bool is_attended(const struct spb_call *call)
{
    const struct spb_conn *conn = spb_conn_of(call->origin.transport, &call->origin);

    return conn != NULL && !conn->eof;
}

/* ---- Frames ------------------------------------------------------------------------------- */

static struct spb_call *begin_call(struct spb_conn *conn, const struct spb_ttrpc_header *header,
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
        .start_ns = spb_loop_now_ns(conn->conns->daemon->loop),
        .request_bytes = SPB_CALL_BLOCK_SIZE + request_bytes,
        .admit = spb_conn_admit,
        .is_attended = is_attended,
    };
    call->arena.cap = spb_conn_arena_cap(conn, request_bytes);
    conn->calls++;
    conn->conns->calls++;
    conn->request_bytes += call->origin.request_bytes;
    conn->last_call_ns = call->origin.start_ns;
    return call;
}

/* What is wrong with a request's frame, whatever is in it; sets the error. */
static bool frame_is_good(struct spb_conn *conn, struct spb_call *call,
                          const struct spb_ttrpc_header *header, bool too_large)
{
    uint64_t calls_max = SPB_LIMIT(conn->conns->daemon, calls_in_flight_max);

    if (header->stream % 2 == 0 || header->stream <= conn->last_stream) {
        spb_call_set_bad_field(call, "stream", "found id %u after %u, expected an odd one above it",
                               header->stream, conn->last_stream);
        return false;
    }
    conn->last_stream = header->stream;
    if (too_large) {
        spb_metrics_refuse(conn->conns->metrics, SPB_REFUSED_LARGE_FRAME);
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "the frame has %u bytes of data, at most %u are taken", header->length,
                           SPB_FRAME_DATA_MAX);
        return false;
    }
    if (conn->calls > calls_max) {
        spb_metrics_refuse(conn->conns->metrics, SPB_REFUSED_CALLS);
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "%llu calls are in flight on the connection, at most so many are taken",
                           (unsigned long long)calls_max);
        return false;
    }
    return true;
}

static void take_frame(struct spb_conn *conn, const struct spb_ttrpc_header *header,
                       const uint8_t *data, bool too_large)
{
    conn->reserved = 0;
    if (header->type != SPB_TTRPC_TYPE_REQUEST)
        return;
    size_t size = too_large ? 0 : header->length;
    struct spb_call *call = begin_call(conn, header, size);
    if (call == NULL) {
        spb_conn_doom(conn, SPB_REFUSED_MEMORY, "no memory for a call");
        return;
    }
    if (frame_is_good(conn, call, header, too_large))
        spb_dispatch(call, data, size);
    else
        spb_call_send(call);
}

void spb_conn_take_frame(struct spb_conn *conn, const struct spb_ttrpc_header *header,
                         const uint8_t *data)
{
    take_frame(conn, header, data, false);
}

void spb_conn_refuse_frame(struct spb_conn *conn)
{
    struct spb_ttrpc_header header = conn->parser.header;

    spb_ttrpc_parser_discard(&conn->parser);
    conn->reserved = 0;
    spb_conn_recount(conn);
    spb_metrics_refuse(conn->conns->metrics, SPB_REFUSED_MEMORY);
    if (header.type != SPB_TTRPC_TYPE_REQUEST)
        return;
    struct spb_call *call = begin_call(conn, &header, 0);
    if (call == NULL) {
        spb_conn_doom(conn, SPB_REFUSED_MEMORY, "no memory for a call");
        return;
    }
    if (frame_is_good(conn, call, &header, false))
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "the frame of %u bytes of data came slowly, and others wait for the "
                           "memory of all requests (%llu bytes): try again",
                           header.length, (unsigned long long)conn->conns->budget.max);
    spb_call_send(call);
}

bool spb_conn_is_paused(const struct spb_conn *conn)
{
    const struct spb_daemon *daemon = conn->conns->daemon;
    size_t out = evbuffer_get_length(conn->out);

    return out >= SPB_LIMIT(daemon, output_pause_bytes) ||
           out + conn->promised_bytes >= SPB_LIMIT(daemon, connection_replies_max_bytes) ||
           conn->request_bytes >= SPB_LIMIT(daemon, connection_requests_max_bytes);
}

/* Feeds the parser, and takes what has become complete. Returns the bytes used. */
static size_t feed(struct spb_conn *conn, const uint8_t *bytes, size_t n)
{
    enum spb_ttrpc_event event = SPB_TTRPC_NEED_MORE;
    struct spb_ttrpc_header header;
    const uint8_t *data = NULL;
    struct spb_error err;
    size_t used = 0;

    if (!spb_is_ok(
            spb_ttrpc_parser_feed(&conn->parser, bytes, n, &used, &event, &header, &data, &err))) {
        spb_conn_doom(conn, SPB_REFUSED_MEMORY, "no memory for a frame");
        return used;
    }
    switch (event) {
    case SPB_TTRPC_BROKEN:
        spb_conn_doom(conn, SPB_REFUSED_PROTOCOL, "a frame's header does not begin with 0");
        break;
    case SPB_TTRPC_TOO_LARGE:
        conn->begun = true;
        take_frame(conn, &header, NULL, true);
        break;
    case SPB_TTRPC_FRAME:
        conn->begun = true;
        if (conn->reserved > 0 || spb_conn_may_begin(conn))
            take_frame(conn, &header, data, false);
        break;
    case SPB_TTRPC_NEED_MORE:
        break;
    }
    return used;
}

/* Parses until the bytes are used up or the connection has enough to do, or had its share of the
 * turn. Returns the bytes used. */
static size_t parse(struct spb_conn *conn, const uint8_t *bytes, size_t n)
{
    struct spb_conns *conns = conn->conns;
    int most = conns->turn_frames < BUSY_FRAMES ? VISIT_FRAMES : VISIT_FRAMES_BUSY;
    int64_t start_ns = spb_now_ns();
    size_t done = 0;
    int frames = 0;

    conns->parsing = true;
    conns->parse_ns = start_ns;
    for (; frames < most && done < n && !conn->doomed && conn->wait == SPB_WAIT_NONE &&
           !spb_conn_is_paused(conn);
         frames++) {
        if (frames > 0)
            conns->parse_ns = spb_now_ns();
        if (conns->parse_ns - start_ns > VISIT_NS)
            break;
        done += feed(conn, bytes + done, n - done);
    }
    conns->parsing = false;
    conns->parse_ns = spb_now_ns();
    conns->turn_frames += frames;
    spb_conn_weigh(conn, conns->parse_ns - start_ns);
    return done;
}

/* After parsing: when did the frame begin that is arriving now? The wait for the first one began
 * with the connection. */
static void note_frame(struct spb_conn *conn)
{
    bool arriving = spb_ttrpc_parser_is_mid_frame(&conn->parser);

    if (conn->begun && !arriving)
        conn->greeted = true;
    if (!arriving && conn->greeted)
        conn->frame_start_ns = 0;
    else if (conn->frame_start_ns == 0)
        conn->frame_start_ns = spb_loop_now_ns(conn->conns->daemon->loop);
    if (conn->doomed || conn->wait != SPB_WAIT_NONE)
        return;
    if (spb_ttrpc_parser_is_in_data(&conn->parser))
        spb_conn_reserve_frame(conn);
    else if (!arriving && conn->parser.data_size > PARSER_KEEP)
        spb_ttrpc_parser_done(&conn->parser); /* nothing is kept for what may not come */
}

static bool hold(struct spb_conn *conn, const uint8_t *bytes, size_t n)
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

void spb_conn_take_bytes(struct spb_conn *conn, const uint8_t *bytes, size_t n)
{
    size_t used = parse(conn, bytes, n);

    if (used < n && !conn->doomed && !hold(conn, bytes + used, n - used))
        spb_conn_doom(conn, SPB_REFUSED_MEMORY, "no memory for what was read");
    note_frame(conn);
    spb_conn_recount(conn);
}

void spb_conn_resume(struct spb_conn *conn)
{
    if (conn->held != NULL) {
        conn->held_used +=
            parse(conn, conn->held + conn->held_used, conn->held_size - conn->held_used);
        if (conn->held_used == conn->held_size || conn->doomed) {
            free(conn->held);
            conn->held = NULL;
            conn->held_size = 0;
        }
    }
    note_frame(conn);
    spb_conn_recount(conn);
}
