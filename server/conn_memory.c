/*
 * Memory of connections: what a frame, a call or a large answer takes is asked of the budget first,
 * and who finds none waits; see conn_state.h. Those that wait are served in their order, but for
 * those that need little, or that hold much themselves. When one has waited too long, the slowest
 * users of memory lose theirs.
 */
#include <event2/buffer.h>

#include "base/status.h"
#include "conn_state.h"
#include "daemon.h"
#include "dispatch.h"

#define CANCELLED 1            /* canonical code */
#define SMALL_MAX (16u * 1024) /* what needs no more does not queue for memory */

/* ---- Asking ------------------------------------------------------------------------------- */

void spb_conn_stop_waiting(struct spb_conn *conn)
{
    struct spb_conns *conns = conn->conns;

    if (conn->wait == SPB_WAIT_NONE)
        return;
    conn->wait = SPB_WAIT_NONE;
    if (conn->wait_previous == NULL)
        conns->first_waiting = conn->wait_next;
    else
        conn->wait_previous->wait_next = conn->wait_next;
    if (conn->wait_next == NULL)
        conns->last_waiting = conn->wait_previous;
    else
        conn->wait_next->wait_previous = conn->wait_previous;
    conns->waiting--;
}

static void begin_waiting(struct spb_conn *conn, enum spb_wait what, uint64_t wanted)
{
    struct spb_conns *conns = conn->conns;

    conn->wait = what;
    conn->wanted = wanted;
    conn->wait_start_ns = spb_loop_now_ns(conns->daemon->loop);
    conn->wait_previous = conns->last_waiting;
    conn->wait_next = NULL;
    if (conns->last_waiting == NULL)
        conns->first_waiting = conn;
    else
        conns->last_waiting->wait_next = conn;
    conns->last_waiting = conn;
    conns->waiting++;
    spb_conn_mark(conn);
}

/* Nobody passes those that wait, but with little. */
static bool may_take(const struct spb_conn *conn, uint64_t bytes)
{
    const struct spb_conns *conns = conn->conns;
    bool passes = bytes <= SMALL_MAX || conns->waiting == 0 || conn->wait != SPB_WAIT_NONE;

    return conn->memory + bytes <= SPB_BUDGET_GUARANTEE ||
           (passes && spb_budget_may_take(&conns->budget, conn->memory, bytes));
}

static void reserve(struct spb_conn *conn, uint64_t bytes)
{
    conn->reserved = bytes;
    conn->reserved_ns = spb_loop_now_ns(conn->conns->daemon->loop);
    spb_conn_recount(conn);
}

/* For the frame whose header has come: its bytes, as many again unpacked, and the call. */
static uint64_t frame_memory(const struct spb_conn *conn)
{
    return 2 * (uint64_t)conn->parser.header.length + SPB_CALL_BLOCK_SIZE;
}

/* More of a frame is to come than fits what is read at once. */
void spb_conn_reserve_frame(struct spb_conn *conn)
{
    uint64_t wanted = frame_memory(conn);

    if (conn->reserved > 0)
        return;
    if (may_take(conn, wanted))
        reserve(conn, wanted);
    else
        begin_waiting(conn, SPB_WAIT_ARRIVAL, wanted);
}

/* A whole frame is in the parser. */
bool spb_conn_may_begin(struct spb_conn *conn)
{
    uint64_t wanted = frame_memory(conn);

    if (may_take(conn, wanted))
        return true;
    begin_waiting(conn, SPB_WAIT_FRAME, wanted);
    return false;
}

static void promise(struct spb_conn *conn, struct spb_call *call)
{
    call->origin.promised_bytes = call->reply_bytes;
    conn->promised_bytes += call->reply_bytes;
    spb_conn_recount(conn);
}

/*
 * Is there room for the call's reply? A large one that is announced has to fit the connection's
 * share; what a method may at most answer at once only has to fit, for most answers are small, and
 * count when they are there.
 */
static bool may_reply(const struct spb_conn *conn, const struct spb_call *call)
{
    const struct spb_budget *budget = &conn->conns->budget;
    uint64_t most = call->method->reply_bytes;

    return (call->reply_bytes == 0 || may_take(conn, call->reply_bytes)) &&
           (most == 0 || budget->used + most <= budget->max ||
            conn->memory + most <= SPB_BUDGET_GUARANTEE);
}

static bool may_go_on(const struct spb_conn *conn)
{
    return conn->wait == SPB_WAIT_REPLY ? may_reply(conn, conn->parked)
                                        : may_take(conn, conn->wanted);
}

/* The request is unpacked and checked: is there room for what it will need? */
bool spb_conn_admit(struct spb_call *call)
{
    struct spb_conn *conn = spb_conn_of(call->origin.transport, &call->origin);
    struct spb_conns *conns = call->origin.transport;
    size_t bytes = SPB_CALL_BLOCK_SIZE + call->arena.total - call->arena.first_size;

    SPB_ASSERT(conn != NULL);
    conn->request_bytes += bytes - call->origin.request_bytes;
    call->origin.request_bytes = bytes;
    call->arena.cap = SPB_LIMIT(conns->daemon, call_memory_max_bytes);
    spb_conn_recount(conn);
    if (!may_reply(conn, call)) {
        size_t most = call->method->reply_bytes;

        conn->parked = call;
        begin_waiting(conn, SPB_WAIT_REPLY, most > call->reply_bytes ? most : call->reply_bytes);
        return false;
    }
    promise(conn, call);
    return true;
}

/* Unpacking may take what there is, but never less than what was reserved. */
size_t spb_conn_arena_cap(const struct spb_conn *conn, size_t request_bytes)
{
    const struct spb_conns *conns = conn->conns;
    uint64_t cap = SPB_CALL_BLOCK_SIZE + request_bytes;
    uint64_t max = SPB_LIMIT(conns->daemon, call_memory_max_bytes);
    uint64_t allowance = spb_budget_allowance(&conns->budget, conn->memory);

    if (conns->waiting == 0 && allowance > conn->memory + cap)
        cap = allowance - conn->memory;
    return (size_t)(cap < max ? cap : max);
}

void spb_conn_drop_parked(struct spb_conn *conn)
{
    struct spb_call *call = conn->parked;

    conn->parked = NULL;
    if (call == NULL)
        return;
    call->code = CANCELLED;
    spb_call_send(call);
}

/* ---- Those that wait ---------------------------------------------------------------------- */

static void go_on(struct spb_conn *conn)
{
    enum spb_wait waited = conn->wait;
    struct spb_call *call = conn->parked;

    spb_conn_stop_waiting(conn);
    spb_conn_mark(conn);
    switch (waited) {
    case SPB_WAIT_ARRIVAL:
        reserve(conn, conn->wanted);
        break;
    case SPB_WAIT_FRAME: {
        struct spb_ttrpc_header header = conn->parser.header;
        spb_conn_take_frame(conn, &header, conn->parser.data);
        break;
    }
    case SPB_WAIT_REPLY:
        conn->parked = NULL;
        promise(conn, call);
        if (spb_call_is_late(call, spb_loop_now_ns(conn->conns->daemon->loop)))
            spb_call_send(call);
        else
            spb_dispatch_begin(call);
        break;
    case SPB_WAIT_NONE:
        break;
    }
}

void spb_conns_serve_waiting(struct spb_conns *conns)
{
    size_t n = conns->waiting; /* who begins to wait now is not asked again */
    struct spb_conn *next = conns->first_waiting;

    while (n-- > 0) {
        struct spb_conn *conn = next;

        next = conn->wait_next;
        spb_conn_recount(conn);
        if (conn->doomed)
            continue;
        if (may_go_on(conn))
            go_on(conn);
        else if (conn->memory <= SPB_BUDGET_GUARANTEE)
            return; /* it is the next one's turn; those with much of their own may be passed */
    }
}

/* ---- When they wait too long --------------------------------------------------------------- */

/* Is it slow with a frame that memory is kept for? */
static bool is_slow_to_send(const struct spb_conn *conn, int64_t now_ns, int64_t grace_ns)
{
    return conn->reserved > 0 && spb_ttrpc_parser_is_in_data(&conn->parser) && conn->reading &&
           now_ns - conn->reserved_ns >= grace_ns;
}

/* Has it lost so much of its time to take what waits for it? */
static bool is_slow_to_take(const struct spb_conn *conn, int64_t now_ns, int64_t grace_ns)
{
    int64_t stall_ns = (int64_t)SPB_LIMIT(conn->conns->daemon, output_stall_ms) * SPB_NS_PER_MS;

    return evbuffer_get_length(conn->out) > 0 && conn->memory > SPB_BUDGET_GUARANTEE &&
           now_ns >= conn->output_due_ns - stall_ns + grace_ns;
}

/* Who holds the most of those that are slow. */
static struct spb_conn *find_slow(const struct spb_conns *conns, int64_t now_ns, int64_t grace_ns)
{
    struct spb_conn *most = NULL;

    for (size_t i = 0; i < conns->slots_used; i++) {
        struct spb_conn *conn = conns->slots[i];

        if (conn == NULL || conn->doomed || (most != NULL && conn->memory <= most->memory))
            continue;
        if (is_slow_to_send(conn, now_ns, grace_ns) || is_slow_to_take(conn, now_ns, grace_ns))
            most = conn;
    }
    return most;
}

void spb_conns_relieve(struct spb_conns *conns, int64_t now_ns)
{
    const struct spb_conn *first = conns->first_waiting;
    int64_t grace_ns = (int64_t)SPB_LIMIT(conns->daemon, pressure_ms) * SPB_NS_PER_MS;
    uint64_t coming = 0;

    while (first != NULL && now_ns - first->wait_start_ns >= grace_ns) {
        struct spb_budget then = conns->budget;
        struct spb_conn *slow = NULL;

        then.used -= coming < then.used ? coming : then.used;
        if (!spb_budget_may_take(&then, first->memory, first->wanted))
            slow = find_slow(conns, now_ns, grace_ns);
        if (slow == NULL)
            return;
        if (is_slow_to_send(slow, now_ns, grace_ns)) {
            spb_conn_refuse_frame(slow);
        } else {
            spb_conn_doom(slow, SPB_REFUSED_MEMORY,
                          "others wait for the memory of answers that the peer does not take");
            coming += slow->memory; /* at the turn's end */
        }
    }
}
