/*
 * What a tick looks at; see conn_state.h. Deadlines are absolute: nothing that a peer does byte by
 * byte prolongs one.
 */
#include <event2/buffer.h>

#include "conn_state.h"
#include "daemon.h"

static int64_t limit_ns(uint64_t ms)
{
    return (int64_t)ms * SPB_NS_PER_MS;
}

int64_t spb_conn_frame_time_ns(const struct spb_conn *conn)
{
    const struct spb_daemon *daemon = conn->conns->daemon;
    uint64_t length = 0;

    if (!conn->greeted)
        return limit_ns(SPB_LIMIT(daemon, first_frame_ms));
    if (conn->parser.head_used >= SPB_TTRPC_HEADER_SIZE)
        length = conn->parser.header.length;
    return limit_ns(SPB_LIMIT(daemon, frame_ms)) +
           (int64_t)(length / SPB_LIMIT(daemon, frame_bytes_per_s)) * SPB_NS_PER_S;
}

static void look_at_frame(struct spb_conn *conn, int64_t now_ns)
{
    if (conn->frame_start_ns == 0 || !conn->reading ||
        now_ns - conn->frame_start_ns <= spb_conn_frame_time_ns(conn))
        return;
    if (conn->greeted)
        spb_conn_doom(conn, SPB_REFUSED_SLOW_FRAME, "a frame took too long to arrive");
    else
        spb_conn_doom(conn, SPB_REFUSED_FIRST_FRAME, "the first frame took too long to arrive");
}

static void look_at_idleness(struct spb_conn *conn, int64_t now_ns)
{
    int64_t idle_ns = limit_ns(SPB_LIMIT(conn->conns->daemon, idle_ms));

    /* A frame that is arriving may become a call; others are not waited for without end. */
    if (conn->frame_start_ns != 0)
        idle_ns += spb_conn_frame_time_ns(conn);
    if (conn->calls == 0 && conn->reading && now_ns - conn->last_call_ns > idle_ns)
        spb_conn_doom(conn, SPB_REFUSED_IDLE, "idle");
}

static void look_at(struct spb_conn *conn, int64_t now_ns)
{
    if (evbuffer_get_length(conn->out) > 0) {
        spb_conn_note_progress(conn);
        if (now_ns > conn->output_due_ns)
            spb_conn_doom(conn, SPB_REFUSED_STALLED, "the peer takes no output");
    } else {
        look_at_idleness(conn, now_ns);
    }
    look_at_frame(conn, now_ns);
}

void spb_conns_look_at_deadlines(struct spb_conns *conns, int64_t now_ns)
{
    for (size_t i = 0; i < conns->slots_used && conns->count > 0; i++) {
        if (conns->slots[i] != NULL)
            look_at(conns->slots[i], now_ns);
    }
}
