/*
 * Guests: reading consoles and typing on them. What is in memory is answered on the loop's thread;
 * what is only on disk by a worker.
 */
#include "base/status.h"
#include "daemon.h"
#include "services/guest_calls.h"
#include "dispatch.h"
#include "services/services.h"
#include "supervisor/drive.h"
#include "supervisor/guests.h"
#include "supervisor/session.h"
#include "supervisor/thread.h"

#define READ_MAX (256u * 1024)
#define READ_USUAL (64u * 1024)
#define WRITE_MAX 4096u

/* ---- Reading ------------------------------------------------------------------------------ */

struct reading {
    uint64_t offset;
    uint32_t limit;
};

bool spb_guests_read_console_gate(struct spb_call *call)
{
    const PB_ReadConsoleRequest *request = (const void *)call->request;

    return spb_gate_guest(call, request->guest) &&
           spb_gate_max(call, "limit", request->limit, READ_MAX) &&
           spb_gate_max(call, "wait_ms", request->wait_ms, SPB_WAIT_MS_MAX);
}

/* There is more, or there will be none. */
static bool has_output(struct spb_call *call)
{
    const struct reading *reading = call->state;
    uint64_t from = 0, end = 0;

    /* The state first: what is printed before an end is seen then. */
    bool has_ended = spb_life_state_is_end(spb_guest_state(call->guest));
    spb_console_extent(call->guest->console, &from, &end);
    return end > reading->offset || has_ended;
}

/* state: as it was before the console was read. */
static void set_output(struct spb_call *call, const struct spb_console_piece *piece,
                       const uint8_t *data, enum spb_life_state state)
{
    PB_ReadConsoleResponse reply = SPACEBLOCK__V1__READ_CONSOLE_RESPONSE__INIT;

    reply.offset = piece->offset;
    reply.data = spb_pb_bytes(data, piece->size);
    reply.skipped = piece->skipped;
    reply.state = (Spaceblock__V1__GuestState)state;
    reply.end = piece->end;
    spb_call_set_reply(call, &reply.base);
}

static void read_from_disk(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    const struct reading *reading = call->state;
    enum spb_life_state state = spb_guest_state(call->guest);
    uint8_t *data = spb_call_alloc(call, reading->limit);
    struct spb_console_piece piece;
    struct spb_error err;

    if (data != NULL) {
        if (spb_is_ok(spb_console_read_disk(call->guest->console, reading->offset, data,
                                            reading->limit, &piece, &err)))
            set_output(call, &piece, data, state);
        else
            spb_call_set_error(call, &err);
    }
    spb_call_send(call);
}

static void answer_output(struct spb_call *call)
{
    const struct reading *reading = call->state;
    enum spb_life_state state = spb_guest_state(call->guest);
    uint8_t *data = spb_call_alloc(call, reading->limit);
    struct spb_console_piece piece;

    if (data == NULL) {
        spb_call_send(call);
        return;
    }
    spb_console_read(call->guest->console, reading->offset, data, reading->limit, &piece);
    if (piece.is_on_disk) {
        spb_call_to_workers(call, read_from_disk);
        return;
    }
    set_output(call, &piece, data, state);
    spb_call_send(call);
}

void spb_guests_read_console(struct spb_call *call)
{
    static const struct spb_guest_wait_kind kind = {has_output, answer_output};
    const PB_ReadConsoleRequest *request = (const void *)call->request;
    struct reading reading = {.limit = request->limit == 0 ? READ_USUAL : request->limit};
    uint64_t from = 0, end = 0;

    if (!spb_find_guest(call, request->guest)) {
        spb_call_send(call);
        return;
    }
    if (request->from_case == SPACEBLOCK__V1__READ_CONSOLE_REQUEST__FROM_OFFSET) {
        reading.offset = request->offset;
    } else if (request->from_case == SPACEBLOCK__V1__READ_CONSOLE_REQUEST__FROM_LAST) {
        spb_console_extent(call->guest->console, &from, &end);
        reading.offset = end > request->last ? end - request->last : 0;
    }
    spb_guest_wait(call, &kind, request->wait_ms, &reading, sizeof(reading));
}

/* ---- Typing ------------------------------------------------------------------------------- */

bool spb_guests_write_console_gate(struct spb_call *call)
{
    const PB_WriteConsoleRequest *request = (const void *)call->request;

    if (!spb_gate_guest(call, request->guest))
        return false;
    if (request->writer_id.len != SPB_CONSOLE_WRITER_BYTES) {
        spb_call_set_bad_field(call, "writer_id", "found %zu bytes, expected %u",
                               request->writer_id.len, SPB_CONSOLE_WRITER_BYTES);
        return false;
    }
    if (request->data.len >= 1 && request->data.len <= WRITE_MAX)
        return true;
    spb_call_set_bad_field(call, "data", "found %zu bytes, expected 1 to %u", request->data.len,
                           WRITE_MAX);
    return false;
}

struct typed {
    struct spb_post post;
    struct spb_guest *guest; /* a reference */
};

static void run_typed(struct spb_post *post)
{
    struct typed *typed = SPB_CONTAINER(post, struct typed, post);

    spb_session_typed(typed->guest);
    spb_guest_unref(typed->guest);
    free(typed);
}

/* The supervisor's thread sends it. */
static void send_typed(struct spb_guest *guest)
{
    struct typed *typed = malloc(sizeof(*typed));

    if (typed == NULL)
        return; /* it leaves with the next */
    *typed = (struct typed){.post = {.run = run_typed}, .guest = guest};
    spb_guest_ref(guest);
    if (spb_supervisor_post(guest->daemon->guests->supervisor, &typed->post))
        return;
    spb_guest_unref(guest);
    free(typed);
}

static void set_typing_error(struct spb_call *call, const struct spb_error *err)
{
    if (err->code == SPB_UNREACHABLE || err->code == SPB_LOCKED || err->code == SPB_NOT_FOUND)
        spb_call_set_fault(call, PB_REASON(WRONG_STATE), "console of guest %s: %s",
                           call->guest->text, err->text);
    else
        spb_call_set_error(call, err);
}

void spb_guests_write_console(struct spb_call *call)
{
    const PB_WriteConsoleRequest *request = (const void *)call->request;
    PB_WriteConsoleResponse reply = SPACEBLOCK__V1__WRITE_CONSOLE_RESPONSE__INIT;
    struct spb_console_typing typing = {.offset = request->offset,
                                        .bytes = request->data.data,
                                        .size = request->data.len,
                                        .takes_over = request->takes_over};
    struct spb_error err;

    if (!spb_find_guest(call, request->guest)) {
        spb_call_send(call);
        return;
    }
    memcpy(typing.writer, request->writer_id.data, sizeof(typing.writer));
    spb_status status = spb_console_type(call->guest->console, &typing,
                                         spb_now_ns() / SPB_NS_PER_MS, &reply.offset, &err);
    if (spb_is_ok(status)) {
        send_typed(call->guest);
        spb_call_set_reply(call, &reply.base);
    } else {
        set_typing_error(call, &err);
    }
    spb_call_send(call);
}
