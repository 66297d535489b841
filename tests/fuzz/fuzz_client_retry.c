/*
 * Fuzzes the repeating of calls: the fuzzer's bytes are a sequence of events (calls, answers, lost
 * and failed connections, time) for a retrier over a session, without sockets. Each call ends
 * exactly once and not after its deadline, what is sent again is what was sent, and there are no
 * more attempts than the budget has.
 */
#include <stdint.h>
#include <string.h>

#include "base/status.h"
#include "retrier.h"
#include "call_session.h"

#define CALLS_MAX 64u
#define BURST 8u
#define PERCENT 25u

struct errand {
    struct world *world;
    int64_t deadline_ns;
    unsigned ended;
};

struct world {
    struct spb_session session;
    struct spb_retrier retrier;
    struct errand errands[CALLS_MAX];
    uint32_t streams[CALLS_MAX]; /* of attempts on this connection */
    unsigned started, ended, attempts, on_connection;
    const uint8_t *at, *end;
};

static uint8_t next_byte(struct world *world)
{
    return world->at < world->end ? *world->at++ : 0;
}

static void begin(struct world *world);

static void take(void *user, const struct spb_client_reply *reply)
{
    struct errand *errand = user;
    struct world *world = errand->world;

    errand->ended++;
    world->ended++;
    SPB_ASSERT(errand->ended == 1);
    SPB_ASSERT(spb_is_ok(reply->status) == (reply->error == NULL));
    SPB_ASSERT(reply->error == NULL ||
               memchr(reply->error->text, 0, sizeof(reply->error->text)) != NULL);
    if (next_byte(world) % 4 == 0)
        begin(world);
}

static void begin(struct world *world)
{
    struct errand *errand = &world->errands[world->started];
    uint8_t choice = next_byte(world);
    int64_t timeout_ms = choice % 8 == 0 ? -1 : choice * 10;
    const struct spb_client_call call = {
        .service = "spaceblock.v1.Params",
        .method = "Put",
        .payload = &errand,
        .size = sizeof(errand),
        .timeout_ms = timeout_ms,
        .mode = choice % 3 == 0 ? SPB_CLIENT_ONCE : SPB_CLIENT_REPEAT,
        .callback = take,
        .user = errand,
    };

    if (world->started == CALLS_MAX)
        return;
    errand->world = world;
    errand->deadline_ns = spb_deadline_after(world->retrier.now_ns, timeout_ms);
    if (spb_is_ok(spb_retrier_add(&world->retrier, &call, errand->deadline_ns, NULL)))
        world->started++;
}

static void send_waiting(struct world *world)
{
    struct spb_retry_call *call;

    while (world->on_connection < CALLS_MAX && !world->session.is_lost &&
           (call = spb_retrier_next(&world->retrier)) != NULL) {
        struct errand *errand = call->user;
        const struct spb_session_call attempt = {
            .service = call->service,
            .method = call->method,
            .payload = call->payload,
            .size = call->size,
            .timeout_ms = call->timeout_ms,
            .deadline_ns = call->deadline_ns,
            .callback = spb_retrier_take_reply,
            .user = call,
        };
        SPB_ASSERT(errand->ended == 0);
        SPB_ASSERT(call->size == sizeof(errand));
        SPB_ASSERT(memcmp(call->payload, &errand, sizeof(errand)) == 0);
        world->streams[world->on_connection++] = (uint32_t)world->session.next_stream;
        world->attempts++;
        SPB_ASSERT(
            spb_is_ok(spb_session_start(&world->session, &attempt, world->retrier.now_ns, NULL)));
        spb_retrier_sent(call);
    }
}

static void replace_session(struct world *world)
{
    spb_session_done(&world->session);
    spb_session_init(&world->session);
    world->on_connection = 0;
}

static void lose(struct world *world)
{
    const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "cut"};

    spb_retrier_link_lost(&world->retrier, world->retrier.on_wire > 0);
    spb_session_lose(&world->session, &why);
    replace_session(world);
    spb_retrier_tell_lost(&world->retrier, &why);
}

/* The frame of an answer; the data is the fuzzer's, or an UNAVAILABLE. */
static void answer(struct world *world)
{
    static const uint8_t unavailable[] = {0x0a, 2, 0x08, 14};
    uint8_t choice = next_byte(world), frame[SPB_TTRPC_HEADER_SIZE + 64];
    struct spb_ttrpc_header header = {.type = SPB_TTRPC_TYPE_RESPONSE};

    if (world->on_connection == 0)
        return;
    header.stream = world->streams[choice % world->on_connection];
    header.length = choice % 2 == 0 ? sizeof(unavailable) : next_byte(world) % 64u;
    spb_ttrpc_header_encode(&header, frame);
    memcpy(frame + SPB_TTRPC_HEADER_SIZE, unavailable, sizeof(unavailable));
    for (uint32_t i = 0; choice % 2 != 0 && i < header.length; i++)
        frame[SPB_TTRPC_HEADER_SIZE + i] = next_byte(world);
    spb_session_feed(&world->session, frame, SPB_TTRPC_HEADER_SIZE + header.length);
    if (!world->session.is_lost)
        return;
    spb_retrier_link_lost(&world->retrier, true);
    replace_session(world);
}

static void pass_time(struct world *world)
{
    int64_t now = world->retrier.now_ns + next_byte(world) * INT64_C(10) * SPB_NS_PER_MS;

    spb_retrier_set_time(&world->retrier, now);
    spb_retrier_expire(&world->retrier);
    spb_session_expire(&world->session, now);
    for (unsigned i = 0; i < world->started; i++)
        SPB_ASSERT(world->errands[i].ended == 1 || world->errands[i].deadline_ns > now);
}

static void step(struct world *world)
{
    const struct spb_error refused = {.code = SPB_UNREACHABLE, .text = "refused"};

    switch (next_byte(world) % 6) {
    case 0:
        begin(world);
        return;
    case 1:
        send_waiting(world);
        return;
    case 2:
        answer(world);
        return;
    case 3:
        lose(world);
        return;
    case 4:
        if (spb_retrier_may_dial(&world->retrier) && world->retrier.on_wire == 0)
            spb_retrier_dial_failed(&world->retrier, &refused);
        return;
    default:
        pass_time(world);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "the end"};
    struct spb_client_options options;

    spb_client_options_init(&options);
    options.retry_burst = BURST;
    options.retry_percent = PERCENT;
    options.first_connect_ms = size % 2 == 0 ? SPB_CLIENT_NO_TIMEOUT : 200;
    world = (struct world){.at = data, .end = data + size};
    spb_session_init(&world.session);
    spb_retrier_init(&world.retrier, &options, "unix:x", size, 0);
    while (world.at < world.end)
        step(&world);
    SPB_ASSERT(world.attempts <= world.started + BURST + world.started * PERCENT / 100 + 1);
    spb_retrier_close(&world.retrier, &why);
    spb_session_lose(&world.session, &why);
    SPB_ASSERT(world.ended == world.started && world.retrier.count == 0);
    spb_session_done(&world.session);
    spb_retrier_done(&world.retrier);
    return 0;
}
