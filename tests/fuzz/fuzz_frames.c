/*
 * Fuzzes the frame parser and the envelopes. The first two bytes choose the limit of a frame and
 * how the rest is cut in pieces; the rest is what a peer sends. Cut in pieces it must give the same
 * events as whole, also where the pieces are put into the parser's room, and what decodes must
 * encode and decode to the same again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "ttrpc/ttrpc.h"

struct tally {
    size_t events;
    uint64_t digest;
    bool is_broken;
};

static void mix(struct tally *tally, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < n; i++)
        tally->digest = (tally->digest ^ at[i]) * 1099511628211u;
}

static bool is_same(const struct spb_ttrpc_view *a, const struct spb_ttrpc_view *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

static void try_request(const uint8_t *data, size_t size)
{
    struct spb_ttrpc_request request, again;

    if (!spb_is_ok(spb_ttrpc_request_decode(data, size, &request, NULL)))
        return;
    size_t need = spb_ttrpc_request_size(&request);
    uint8_t *out = malloc(need == 0 ? 1 : need);

    SPB_ASSERT(out != NULL);
    spb_ttrpc_request_encode(&request, out);
    SPB_ASSERT(spb_is_ok(spb_ttrpc_request_decode(out, need, &again, NULL)));
    SPB_ASSERT(is_same(&request.service, &again.service));
    SPB_ASSERT(is_same(&request.method, &again.method));
    SPB_ASSERT(is_same(&request.payload, &again.payload));
    SPB_ASSERT(request.timeout_ns == again.timeout_ns && request.timeout_ns >= 0);
    SPB_ASSERT(request.metadata_count == again.metadata_count);
    for (size_t i = 0; i < request.metadata_count; i++) {
        SPB_ASSERT(is_same(&request.metadata[i].key, &again.metadata[i].key));
        SPB_ASSERT(is_same(&request.metadata[i].value, &again.metadata[i].value));
    }
    free(out);
}

static void try_response(const uint8_t *data, size_t size)
{
    struct spb_ttrpc_response response, again;

    if (!spb_is_ok(spb_ttrpc_response_decode(data, size, &response, NULL)))
        return;
    size_t need = spb_ttrpc_response_size(&response);
    uint8_t *out = malloc(need == 0 ? 1 : need);

    SPB_ASSERT(out != NULL);
    spb_ttrpc_response_encode(&response, out);
    SPB_ASSERT(spb_is_ok(spb_ttrpc_response_decode(out, need, &again, NULL)));
    SPB_ASSERT(response.code == again.code);
    SPB_ASSERT(is_same(&response.payload, &again.payload));
    if (response.code != 0) {
        SPB_ASSERT(is_same(&response.message, &again.message));
        SPB_ASSERT(response.details_count == again.details_count);
    }
    free(out);
}

static void feed(struct spb_ttrpc_parser *parser, const uint8_t *bytes, size_t n,
                 struct tally *tally)
{
    enum spb_ttrpc_event event = SPB_TTRPC_FRAME;

    while (event != SPB_TTRPC_NEED_MORE && !tally->is_broken) {
        struct spb_ttrpc_header header = {.length = 0};
        const uint8_t *data = NULL;
        size_t used = 0;

        SPB_ASSERT(spb_is_ok(
            spb_ttrpc_parser_feed(parser, bytes, n, &used, &event, &header, &data, NULL)));
        SPB_ASSERT(used <= n && (event != SPB_TTRPC_NEED_MORE || used == n));
        bytes += used;
        n -= used;
        if (event == SPB_TTRPC_NEED_MORE)
            continue;
        tally->events++;
        tally->is_broken = event == SPB_TTRPC_BROKEN;
        mix(tally, &event, sizeof(event));
        mix(tally, &header.stream, sizeof(header.stream));
        mix(tally, &header.length, sizeof(header.length));
        if (event == SPB_TTRPC_FRAME) {
            SPB_ASSERT(header.length <= parser->data_max);
            mix(tally, data, header.length);
            try_request(data, header.length);
            try_response(data, header.length);
        }
    }
}

static uint8_t *take(struct spb_ttrpc_memory *memory, uint32_t *size)
{
    SPB_ASSERT(*size >= memory->least);
    *size += 100;
    return malloc(*size);
}

static void give(struct spb_ttrpc_memory *memory, uint8_t *data)
{
    (void)memory;
    free(data);
}

/* Puts the next bytes where the frame's will be, where there is such a place; returns how many. */
static size_t feed_direct(struct spb_ttrpc_parser *parser, const uint8_t *bytes, size_t n,
                          struct tally *tally)
{
    size_t room = 0;
    uint8_t *to = spb_ttrpc_parser_room(parser, 8, &room);

    if (to == NULL) {
        feed(parser, bytes, n, tally);
        return n;
    }
    if (n > room)
        n = room;
    memcpy(to, bytes, n);
    feed(parser, to, n, tally);
    return n;
}

/* direct: into the parser's room, with memory of its own. */
static struct tally run(const uint8_t *data, size_t size, uint32_t data_max, size_t piece,
                        bool direct)
{
    struct spb_ttrpc_memory memory = {.least = 40, .take = take, .give = give};
    struct spb_ttrpc_parser parser;
    struct tally tally = {.digest = 14695981039346656037u};

    spb_ttrpc_parser_init(&parser, data_max);
    if (direct)
        parser.memory = &memory;
    for (size_t at = 0; at < size && !tally.is_broken;) {
        size_t n = size - at < piece ? size - at : piece;

        if (direct)
            n = feed_direct(&parser, data + at, n, &tally);
        else
            feed(&parser, data + at, n, &tally);
        at += n;
    }
    spb_ttrpc_parser_done(&parser);
    return tally;
}

static void expect_same(const struct tally *a, const struct tally *b)
{
    SPB_ASSERT(a->events == b->events && a->digest == b->digest);
    SPB_ASSERT(a->is_broken == b->is_broken);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint32_t data_max = data[0] == 0 ? SPB_TTRPC_DATA_MAX : (uint32_t)data[0] * 16;
    size_t piece = (size_t)data[1] + 1;
    struct tally whole = run(data + 2, size - 2, data_max, size, false);
    struct tally cut = run(data + 2, size - 2, data_max, piece, false);
    struct tally direct = run(data + 2, size - 2, data_max, piece, true);

    expect_same(&whole, &cut);
    expect_same(&whole, &direct);
    /* The envelopes also see the bytes themselves, which saves the fuzzer from guessing a header.
     */
    try_request(data, size);
    try_response(data, size);
    return 0;
}
