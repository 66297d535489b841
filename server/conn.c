/*
 * The table of connections, their turns and ends; see conn.h and conn_state.h.
 *
 * Fairness. A turn has a bounded time for input. It is for those that have become readable first,
 * for each with a bounded number of calls; who has more, or finds the time used up, is put into a
 * backlog, where each has its visit in turn. There are two: a peer whose visits take long (large
 * frames, costly calls) is read from the second only, and that one has its share of each turn. So a
 * peer that sends little waits for about one turn, whatever the others send and however many they
 * are. Who is new counts as heavy until a few visits have shown what it is.
 */
#include "conn.h"

#include <stdlib.h>
#include <unistd.h>

#include <event2/buffer.h>

#include "base/status.h"
#include "conn_state.h"
#include "daemon.h"
#include "dispatch.h"
#include "waits.h"

#define BACKLOG_NS (SPB_NS_PER_MS / 4) /* a turn and backlog, and at least one visit */
#define HEAVY_NS (SPB_NS_PER_MS / 10)  /* visits that take longer make a peer heavy */
#define VISIT_WEIGHT 4                 /* one in so many counts the last visit */
#define VISIT_MAX_NS SPB_NS_PER_MS     /* more may be the scheduler's doing */
#define LARGE_BYTES (32u * 1024)       /* of a frame still to come */
#define REFUSAL_LOG_NS SPB_NS_PER_S

void spb_conn_mark(struct spb_conn *conn)
{
    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->next_dirty = conn->conns->dirty;
    conn->conns->dirty = conn;
}

void spb_conn_end(struct spb_conn *conn, const char *why)
{
    if (!conn->doomed) {
        conn->doomed = true;
        conn->doom = why;
    }
    spb_conn_mark(conn);
}

void spb_conn_doom(struct spb_conn *conn, enum spb_refusal refusal, const char *why)
{
    if (!conn->doomed)
        spb_metrics_refuse(conn->conns->metrics, refusal);
    spb_conn_end(conn, why);
}

void spb_conn_end_waits(const struct spb_conn *conn)
{
    if (conn->calls > 0)
        spb_waits_end_connection(conn->conns->daemon->waits, conn->slot, conn->generation);
}

void spb_conn_recount(struct spb_conn *conn)
{
    struct spb_conns *conns = conn->conns;
    size_t out = evbuffer_get_length(conn->out);
    uint64_t frame = conn->parser.data_size;

    if (conn->out_copied > out)
        conn->out_copied = out;
    if (conn->reserved > frame)
        frame = conn->reserved;
    uint64_t memory = frame + conn->held_size + conn->request_bytes + conn->promised_bytes +
                      conn->out_copied + conn->out_kept;
    if (memory < conn->memory)
        conns->memory_came_free = true;
    spb_budget_change(&conns->budget, conn->memory, memory);
    conn->memory = memory;
}

/* ---- The end of one ----------------------------------------------------------------------- */

/* Before it is freed: it may be in the list again, such as where a write of this turn failed. */
static void unmark(struct spb_conn *conn)
{
    struct spb_conn **link = &conn->conns->dirty;

    if (!conn->dirty)
        return;
    while (*link != conn)
        link = &(*link)->next_dirty;
    *link = conn->next_dirty;
    conn->dirty = false;
}

static void leave_backlog(struct spb_conn *conn)
{
    struct spb_backlog *backlog = &conn->conns->backlogs[conn->backlog];
    struct spb_conn *before = NULL;

    if (!conn->backlogged)
        return;
    for (struct spb_conn *other = backlog->first; other != conn; other = other->next_backlog)
        before = other;
    if (before == NULL)
        backlog->first = conn->next_backlog;
    else
        before->next_backlog = conn->next_backlog;
    if (backlog->last == conn)
        backlog->last = before;
    conn->backlogged = false;
}

/* Calls in work outlive the connection, and so does what they hold. */
static void leave_orphans(struct spb_conn *conn)
{
    struct spb_conns *conns = conn->conns;
    uint64_t orphaned = conn->request_bytes + conn->promised_bytes;

    conns->orphan_memory += orphaned;
    spb_budget_change(&conns->budget, conn->memory, orphaned);
    conns->memory_came_free = true;
}

static void close_conn(struct spb_conn *conn)
{
    struct spb_conns *conns = conn->conns;

    spb_log(&conns->daemon->log, SPB_LOG_DEBUG, "connection-closed",
            SPB_NUMBER("connection", conn->slot), SPB_TEXT("principal", conn->principal.name),
            SPB_TEXT("reason", conn->doom == NULL ? "the peer is done" : conn->doom));
    unmark(conn);
    leave_backlog(conn);
    spb_conn_stop_waiting(conn);
    spb_conn_watch(conn, false, false);
    (void)close(conn->fd);
    leave_orphans(conn);
    conns->slots[conn->slot] = NULL;
    conns->generations[conn->slot]++;
    conns->free_slots[conns->free_count++] = conn->slot;
    conns->count--;
    spb_metrics_add(conns->metrics, SPB_GAUGE_CONNECTIONS, -1);
    spb_conn_drop_parked(conn);
    spb_conn_end_waits(conn);
    spb_ttrpc_parser_done(&conn->parser);
    evbuffer_free(conn->out);
    free(conn->held);
    free(conn);
}

/* ---- Turns -------------------------------------------------------------------------------- */

enum spb_weight spb_conn_weight(const struct spb_conn *conn)
{
    bool large = spb_ttrpc_parser_left(&conn->parser) >= LARGE_BYTES;

    return large || conn->visit_ns > HEAVY_NS ? SPB_HEAVY : SPB_LIGHT;
}

void spb_conn_weigh(struct spb_conn *conn, int64_t took_ns)
{
    if (took_ns > VISIT_MAX_NS)
        took_ns = VISIT_MAX_NS;
    conn->visit_ns += (took_ns - conn->visit_ns) / VISIT_WEIGHT;
}

static void enter_backlog(struct spb_conn *conn)
{
    if (conn->backlogged)
        return;
    conn->backlog = spb_conn_weight(conn);
    struct spb_backlog *backlog = &conn->conns->backlogs[conn->backlog];

    conn->backlogged = true;
    conn->next_backlog = NULL;
    if (backlog->first == NULL)
        backlog->first = conn;
    else
        backlog->last->next_backlog = conn;
    backlog->last = conn;
}

/* How long it was not read is not held against the frame that is arriving. */
static void note_reading(struct spb_conn *conn, bool read)
{
    int64_t now_ns = spb_loop_now_ns(conn->conns->daemon->loop);

    if (!read && conn->unread_since_ns == 0) {
        conn->unread_since_ns = now_ns;
    } else if (read && conn->unread_since_ns != 0) {
        if (conn->frame_start_ns != 0)
            conn->frame_start_ns += now_ns - conn->unread_since_ns;
        conn->unread_since_ns = 0;
    }
}

/* Flushes, and settles what the connection waits for; or closes it. */
static void settle(struct spb_conn *conn)
{
    struct spb_conns *conns = conn->conns;

    spb_conn_write(conn);
    spb_conn_recount(conn);
    size_t out = evbuffer_get_length(conn->out);
    if (out >= SPB_LIMIT(conns->daemon, output_max_bytes))
        spb_conn_doom(conn, SPB_REFUSED_OUTPUT, "too much output is pending");
    if (conn->eof && conn->calls == 0 && out == 0 && conn->held == NULL &&
        conn->wait == SPB_WAIT_NONE && !conn->unread)
        conn->doomed = true;
    if (conn->doomed) {
        close_conn(conn);
        return;
    }
    bool go_on = conn->wait == SPB_WAIT_NONE && !spb_conn_is_paused(conn);
    bool more = conn->held != NULL || conn->unread;
    if (go_on && more)
        enter_backlog(conn);
    bool read = !conn->eof && go_on && !more;
    note_reading(conn, read || conn->eof);
    spb_conn_watch(conn, read, out > 0);
}

static void settle_marked(struct spb_conns *conns)
{
    struct spb_conn *conn = conns->dirty;

    conns->dirty = NULL;
    while (conn != NULL) {
        struct spb_conn *next = conn->next_dirty;

        conn->dirty = false;
        settle(conn);
        conn = next;
    }
}

static void visit_backlog(const struct spb_backlog *backlog)
{
    int64_t until_ns = backlog->first == NULL ? 0 : spb_now_ns() + BACKLOG_NS;

    while (backlog->first != NULL) {
        struct spb_conn *conn = backlog->first;

        leave_backlog(conn);
        spb_conn_mark(conn);
        if (conn->doomed || conn->wait != SPB_WAIT_NONE || spb_conn_is_paused(conn))
            continue; /* it comes back when it may go on */
        if (conn->held != NULL)
            spb_conn_resume(conn);
        else
            spb_conn_read(conn);
        if (spb_now_ns() >= until_ns)
            return;
    }
}

void spb_conns_turn(struct spb_conns *conns)
{
    settle_marked(conns);
    for (unsigned weight = 0; weight < SPB_WEIGHTS; weight++)
        visit_backlog(&conns->backlogs[weight]);
    if (conns->memory_came_free && conns->waiting > 0)
        spb_conns_serve_waiting(conns);
    conns->memory_came_free = false;
    conns->turn_frames = 0;
    conns->turn_until_ns = 0;
    settle_marked(conns); /* what those have answered leaves now */
    if (conns->backlogs[SPB_LIGHT].first != NULL || conns->backlogs[SPB_HEAVY].first != NULL ||
        conns->dirty != NULL)
        spb_loop_again(conns->daemon->loop);
}

void spb_conns_tick(struct spb_conns *conns)
{
    int64_t now_ns = spb_loop_now_ns(conns->daemon->loop);

    conns->budget.max = SPB_LIMIT(conns->daemon, buffers_max_bytes);
    spb_conns_look_at_deadlines(conns, now_ns);
    if (conns->waiting > 0) {
        spb_conns_serve_waiting(conns);
        spb_conns_relieve(conns, now_ns);
    }
    spb_arena_pool_trim(&conns->cache.pool);
    if (conns->refused > 0 && now_ns - conns->refusal_logged_ns >= REFUSAL_LOG_NS)
        spb_conns_note_refusal(conns, SPB_REFUSALS, "as before");
    spb_metrics_set(conns->metrics, SPB_GAUGE_BUFFERS, (int64_t)conns->budget.used);
    spb_metrics_set(conns->metrics, SPB_GAUGE_WAITING, (int64_t)conns->waiting);
    spb_metrics_set(conns->metrics, SPB_GAUGE_CALLS, (int64_t)conns->calls);
}

/* ---- Memory of frames --------------------------------------------------------------------- */

static struct spb_arena_pool *pool_of(struct spb_ttrpc_memory *memory)
{
    return &SPB_CONTAINER(memory, struct spb_conns, frames)->cache.pool;
}

static uint8_t *take_frame(struct spb_ttrpc_memory *memory, uint32_t *size)
{
    size_t has = *size;
    uint8_t *frame = spb_arena_pool_take(pool_of(memory), &has);

    *size = (uint32_t)has;
    return frame;
}

static void give_frame(struct spb_ttrpc_memory *memory, uint8_t *frame)
{
    spb_arena_pool_give(pool_of(memory), frame);
}

/* ---- Life --------------------------------------------------------------------------------- */

spb_status spb_conns_new(struct spb_daemon *daemon, struct spb_conns **out, struct spb_error *err)
{
    struct spb_conns *conns = calloc(1, sizeof(*conns));

    if (conns != NULL) {
        spb_arena_pool_init(&conns->cache.pool);
        conns->frames = (struct spb_ttrpc_memory){
            .least = SPB_ARENA_POOLED_MIN, .take = take_frame, .give = give_frame};
        conns->daemon = daemon;
        conns->metrics = daemon->metrics;
        conns->budget.max = SPB_LIMIT(daemon, buffers_max_bytes);
        /* Of these only what is used becomes memory. */
        conns->slots = calloc(SPB_CONNS_TABLE, sizeof(struct spb_conn *));
        conns->generations = calloc(SPB_CONNS_TABLE, sizeof(uint32_t));
        conns->free_slots = calloc(SPB_CONNS_TABLE, sizeof(uint32_t));
    }
    if (conns == NULL || conns->slots == NULL || conns->generations == NULL ||
        conns->free_slots == NULL) {
        spb_conns_free(conns);
        return spb_fail_memory(err, "making the table of connections");
    }
    *out = conns;
    return spb_ok();
}

void spb_conns_free(struct spb_conns *conns)
{
    if (conns == NULL)
        return;
    for (size_t i = 0; i < conns->slots_used; i++) {
        if (conns->slots[i] != NULL)
            close_conn(conns->slots[i]);
    }
    SPB_ASSERT(conns->calls == 0);
    spb_call_cache_done(&conns->cache);
    spb_arena_pool_done(&conns->cache.pool);
    free(conns->slots);
    free(conns->generations);
    free(conns->free_slots);
    free(conns);
}

void spb_conns_note_refusal(struct spb_conns *conns, enum spb_refusal why, const char *reason)
{
    int64_t now_ns = spb_loop_now_ns(conns->daemon->loop);

    if (why != SPB_REFUSALS) {
        spb_metrics_refuse(conns->metrics, why);
        conns->refused++;
    }
    if (conns->refusal_logged_ns != 0 && now_ns - conns->refusal_logged_ns < REFUSAL_LOG_NS)
        return; /* a crowd must not fill the log: the next line has their count */
    spb_log(&conns->daemon->log, SPB_LOG_WARN, "connection-refused",
            SPB_NUMBER("count", conns->refused), SPB_NUMBER("connections", conns->count),
            SPB_TEXT("reason", reason));
    conns->refused = 0;
    conns->refusal_logged_ns = now_ns;
}

static struct spb_conn *make_conn(struct spb_conns *conns)
{
    if (conns->count >= SPB_LIMIT(conns->daemon, connections_max)) {
        spb_conns_note_refusal(conns, SPB_REFUSED_CONNECTIONS, "as many as are taken");
        return NULL;
    }
    struct spb_conn *conn = calloc(1, sizeof(*conn));
    if (conn != NULL)
        conn->out = evbuffer_new();
    if (conn == NULL || conn->out == NULL) {
        free(conn);
        spb_conns_note_refusal(conns, SPB_REFUSED_MEMORY, "no memory");
        return NULL;
    }
    conn->slot =
        conns->free_count > 0 ? conns->free_slots[--conns->free_count] : conns->slots_used++;
    return conn;
}

void spb_conns_adopt(struct spb_conns *conns, int fd, const struct spb_principal *principal)
{
    struct spb_conn *conn = make_conn(conns);

    if (conn == NULL) {
        (void)close(fd);
        return;
    }
    conn->conns = conns;
    conn->fd = fd;
    conn->principal = *principal;
    conn->generation = conns->generations[conn->slot];
    conns->slots[conn->slot] = conn;
    conns->count++;
    spb_ttrpc_parser_init(&conn->parser, SPB_FRAME_DATA_MAX);
    conn->parser.memory = &conns->frames;
    conn->last_call_ns = spb_loop_now_ns(conns->daemon->loop);
    conn->frame_start_ns = conn->last_call_ns;
    conn->visit_ns = HEAVY_NS * 2;
    spb_conn_assign_events(conn, spb_loop_base(conns->daemon->loop));
    spb_conn_watch(conn, true, false);
    spb_metrics_count(conns->metrics, SPB_COUNT_CONNECTIONS, 1);
    spb_metrics_add(conns->metrics, SPB_GAUGE_CONNECTIONS, 1);
    spb_log(&conns->daemon->log, SPB_LOG_DEBUG, "connection-taken",
            SPB_NUMBER("connection", conn->slot), SPB_TEXT("principal", principal->name));
}

bool spb_conns_are_quiet(const struct spb_conns *conns)
{
    if (conns->calls > 0)
        return false;
    for (size_t i = 0; i < conns->slots_used; i++) {
        const struct spb_conn *conn = conns->slots[i];

        if (conn != NULL && (evbuffer_get_length(conn->out) > 0 || conn->held != NULL ||
                             conn->wait == SPB_WAIT_FRAME))
            return false;
    }
    return true;
}
