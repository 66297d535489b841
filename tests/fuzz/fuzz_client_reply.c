/*
 * Fuzzes what a daemon can do to a client: the session without a socket, fed the fuzzer's bytes
 * with calls in flight. The first byte says how many calls, how many of them expire first, and how
 * the bytes are cut. Each call ends exactly once, whatever arrives.
 */
#include <stdint.h>
#include <string.h>

#include "base/status.h"
#include "call_session.h"

#define CALLS_MAX 16
#define MORE_MAX 64 /* calls that callbacks start */

struct world {
    struct spb_session session;
    size_t started, ended;
};

static void start(struct world *world, int64_t timeout_ms);

static void take(void *user, const struct spb_client_reply *reply)
{
    struct world *world = user;

    world->ended++;
    SPB_ASSERT(spb_is_ok(reply->status) == (reply->error == NULL));
    SPB_ASSERT(reply->rpc_code >= -1 && reply->rpc_code <= 16);
    SPB_ASSERT(memchr(reply->reason, 0, sizeof(reply->reason)) != NULL);
    if (reply->error != NULL) {
        SPB_ASSERT(reply->error->code == reply->status.code);
        SPB_ASSERT(memchr(reply->error->text, 0, sizeof(reply->error->text)) != NULL);
        SPB_ASSERT(reply->error->text[0] != '\0');
    }
    /* Every byte is readable: a sanitizer watches. */
    unsigned sum = 0;
    for (size_t i = 0; i < reply->payload_size; i++)
        sum += reply->payload[i];
    if (sum % 2 == 0 && world->started < MORE_MAX)
        start(world, -1);
}

static void start(struct world *world, int64_t timeout_ms)
{
    const struct spb_session_call call = {.service = "spaceblock.v1.Params",
                                          .method = "Get",
                                          .payload = "x",
                                          .size = 1,
                                          .timeout_ms = timeout_ms,
                                          .callback = take,
                                          .user = world};

    /* Refused once the connection is lost: then the callback does not run. */
    if (spb_is_ok(spb_session_start(&world->session, &call, 0, NULL)))
        world->started++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "the end"};

    if (size == 0)
        return 0;
    size_t calls = data[0] % CALLS_MAX + 1u;
    size_t piece = data[0] / CALLS_MAX == 0 ? size : (size_t)(data[0] / CALLS_MAX);

    world = (struct world){.started = 0};
    spb_session_init(&world.session);
    for (size_t i = 0; i < calls; i++)
        start(&world, i % 3 == 0 ? 1 : -1);
    spb_session_expire(&world.session, 2 * SPB_NS_PER_MS);
    for (size_t at = 1; at < size; at += piece)
        spb_session_feed(&world.session, data + at, size - at < piece ? size - at : piece);
    spb_session_lose(&world.session, &why);
    SPB_ASSERT(world.ended == world.started);
    SPB_ASSERT(world.session.calls.running.count == 0);
    spb_session_done(&world.session);
    return 0;
}
