/* The frame parser: every split, truncation, bogus lengths, draining, and what it holds on to. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ttrpc/ttrpc.h"

#define SEEN_MAX 64

struct seen {
    enum spb_ttrpc_event event;
    struct spb_ttrpc_header header;
    uint32_t sum; /* of the data's bytes, each times its place */
};

struct seen_list {
    struct seen items[SEEN_MAX];
    size_t count;
};

static uint32_t sum_of(const uint8_t *data, size_t n)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum = sum * 31 + data[i];
    return sum;
}

/* Feeds n bytes as one piece, and notes every event but NEED_MORE; stops at BROKEN. */
static void feed(struct spb_ttrpc_parser *parser, const uint8_t *bytes, size_t n,
                 struct seen_list *seen)
{
    enum spb_ttrpc_event event = SPB_TTRPC_FRAME;

    while (event != SPB_TTRPC_NEED_MORE && event != SPB_TTRPC_BROKEN) {
        struct spb_ttrpc_header header = {0, 0, 0, 0};
        const uint8_t *data = NULL;
        size_t used = SIZE_MAX;
        struct spb_error err;

        cr_assert(spb_is_ok(
            spb_ttrpc_parser_feed(parser, bytes, n, &used, &event, &header, &data, &err)));
        cr_assert(used <= n);
        if (event == SPB_TTRPC_NEED_MORE)
            cr_assert_eq(used, n);
        if (event != SPB_TTRPC_NEED_MORE) {
            cr_assert(seen->count < SEEN_MAX);
            struct seen item = {event, header, 0};
            if (event == SPB_TTRPC_FRAME)
                item.sum = sum_of(data, header.length);
            seen->items[seen->count++] = item;
        }
        bytes += used;
        n -= used;
    }
}

/* However the bytes were cut, the same events come in the same order. */
static void expect_same(const struct seen_list *a, const struct seen_list *b)
{
    cr_assert_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        cr_assert_eq(a->items[i].event, b->items[i].event);
        cr_assert_eq(a->items[i].header.length, b->items[i].header.length);
        cr_assert_eq(a->items[i].header.stream, b->items[i].header.stream);
        cr_assert_eq(a->items[i].header.type, b->items[i].header.type);
        cr_assert_eq(a->items[i].header.flags, b->items[i].header.flags);
        cr_assert_eq(a->items[i].sum, b->items[i].sum);
    }
}

static size_t put_frame(uint8_t *out, uint32_t length, uint32_t stream, uint8_t type, uint8_t flags)
{
    struct spb_ttrpc_header header = {length, stream, type, flags};

    spb_ttrpc_header_encode(&header, out);
    for (uint32_t i = 0; i < length; i++)
        out[SPB_TTRPC_HEADER_SIZE + i] = (uint8_t)(i * 7 + stream);
    return SPB_TTRPC_HEADER_SIZE + length;
}

/* A small frame, one of unknown type, an empty one, one over the limit of 40, and a last one. */
static size_t put_story(uint8_t *out)
{
    size_t n = put_frame(out, 17, 1, 2, 0);

    n += put_frame(out + n, 3, 3, 77, 255);
    n += put_frame(out + n, 0, 5, 1, 0);
    n += put_frame(out + n, 90, 7, 2, 0);
    n += put_frame(out + n, 40, 0xFFFFFFFF, 2, 1);
    return n;
}

Test(ttrpc_frame, header_bytes)
{
    const struct spb_ttrpc_header header = {0x00010203, 0x04050607, 1, 9};
    const uint8_t expected[] = {0, 1, 2, 3, 4, 5, 6, 7, 1, 9};
    uint8_t out[SPB_TTRPC_HEADER_SIZE];

    spb_ttrpc_header_encode(&header, out);
    cr_assert_arr_eq(out, expected, sizeof(out));
}

Test(ttrpc_frame, events_of_a_story)
{
    struct spb_ttrpc_parser parser;
    struct seen_list seen = {.count = 0};
    uint8_t bytes[512];
    size_t n = put_story(bytes);

    spb_ttrpc_parser_init(&parser, 40);
    feed(&parser, bytes, n, &seen);
    cr_assert_eq(seen.count, 5);
    const enum spb_ttrpc_event expected[] = {SPB_TTRPC_FRAME, SPB_TTRPC_FRAME, SPB_TTRPC_FRAME,
                                             SPB_TTRPC_TOO_LARGE, SPB_TTRPC_FRAME};
    for (size_t i = 0; i < 5; i++)
        cr_assert_eq(seen.items[i].event, expected[i]);
    cr_assert_eq(seen.items[0].header.length, 17);
    cr_assert_eq(seen.items[0].sum, sum_of(bytes + 10, 17));
    cr_assert_eq(seen.items[1].header.type, 77);
    cr_assert_eq(seen.items[1].header.flags, 255);
    cr_assert_eq(seen.items[2].header.length, 0);
    cr_assert_eq(seen.items[3].header.stream, 7);
    cr_assert_eq(seen.items[3].header.length, 90);
    cr_assert_eq(seen.items[4].header.stream, 0xFFFFFFFF);
    cr_assert_eq(seen.items[4].sum, sum_of(bytes + n - 40, 40));
    cr_assert(!spb_ttrpc_parser_is_mid_frame(&parser));
    spb_ttrpc_parser_done(&parser);
}

Test(ttrpc_frame, every_split_and_byte_by_byte)
{
    uint8_t bytes[512];
    size_t n = put_story(bytes);
    struct seen_list whole = {.count = 0};
    struct spb_ttrpc_parser parser;

    spb_ttrpc_parser_init(&parser, 40);
    feed(&parser, bytes, n, &whole);
    spb_ttrpc_parser_done(&parser);
    for (size_t cut = 0; cut <= n; cut++) {
        struct seen_list split = {.count = 0};
        spb_ttrpc_parser_init(&parser, 40);
        feed(&parser, bytes, cut, &split);
        feed(&parser, bytes + cut, n - cut, &split);
        expect_same(&whole, &split);
        spb_ttrpc_parser_done(&parser);
    }
    for (size_t step = 1; step < 24; step++) {
        struct seen_list pieces = {.count = 0};
        spb_ttrpc_parser_init(&parser, 40);
        for (size_t at = 0; at < n; at += step)
            feed(&parser, bytes + at, n - at < step ? n - at : step, &pieces);
        expect_same(&whole, &pieces);
        spb_ttrpc_parser_done(&parser);
    }
}

Test(ttrpc_frame, every_truncation_waits_for_more)
{
    uint8_t bytes[128];
    size_t n = put_frame(bytes, 50, 1, 2, 0);

    for (size_t cut = 0; cut < n; cut++) {
        struct spb_ttrpc_parser parser;
        struct seen_list seen = {.count = 0};
        spb_ttrpc_parser_init(&parser, SPB_TTRPC_DATA_MAX);
        feed(&parser, bytes, cut, &seen);
        cr_assert_eq(seen.count, 0);
        cr_assert_eq(spb_ttrpc_parser_is_mid_frame(&parser), cut > 0);
        spb_ttrpc_parser_done(&parser);
    }
}

Test(ttrpc_frame, first_byte_not_zero_is_broken_at_once_and_for_good)
{
    struct spb_ttrpc_parser parser;
    struct spb_ttrpc_header header;
    const uint8_t *data;
    const uint8_t http[] = "HTTP/1.1 400 Bad Request\r\n";
    uint8_t good[64];
    size_t n = put_frame(good, 5, 1, 2, 0), used;
    enum spb_ttrpc_event event;

    spb_ttrpc_parser_init(&parser, SPB_TTRPC_DATA_MAX);
    cr_assert(
        spb_is_ok(spb_ttrpc_parser_feed(&parser, http, 1, &used, &event, &header, &data, NULL)));
    cr_assert_eq(event, SPB_TTRPC_BROKEN);
    cr_assert(!spb_ttrpc_parser_is_mid_frame(&parser));
    cr_assert(
        spb_is_ok(spb_ttrpc_parser_feed(&parser, good, n, &used, &event, &header, &data, NULL)));
    cr_assert_eq(event, SPB_TTRPC_BROKEN);
    cr_assert_eq(used, 0);
    spb_ttrpc_parser_done(&parser);
}

Test(ttrpc_frame, broken_after_a_good_frame)
{
    struct spb_ttrpc_parser parser;
    struct seen_list seen = {.count = 0};
    uint8_t bytes[64];
    size_t n = put_frame(bytes, 5, 1, 2, 0);

    bytes[n] = 1;
    spb_ttrpc_parser_init(&parser, SPB_TTRPC_DATA_MAX);
    feed(&parser, bytes, n + 1, &seen);
    cr_assert_eq(seen.count, 2);
    cr_assert_eq(seen.items[0].event, SPB_TTRPC_FRAME);
    cr_assert_eq(seen.items[1].event, SPB_TTRPC_BROKEN);
    spb_ttrpc_parser_done(&parser);
}

Test(ttrpc_frame, too_large_by_one_is_drained_and_the_next_frame_arrives)
{
    struct spb_ttrpc_parser parser;
    struct seen_list seen = {.count = 0};
    size_t n = SPB_TTRPC_HEADER_SIZE + SPB_TTRPC_DATA_MAX + 1;
    uint8_t *bytes = calloc(1, n + 64);

    (void)put_frame(bytes, SPB_TTRPC_DATA_MAX + 1, 9, 1, 0);
    n += put_frame(bytes + n, 4, 11, 1, 0);
    spb_ttrpc_parser_init(&parser, SPB_TTRPC_DATA_MAX);
    feed(&parser, bytes, 10, &seen);
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.items[0].event, SPB_TTRPC_TOO_LARGE);
    cr_assert_eq(seen.items[0].header.stream, 9);
    cr_assert(spb_ttrpc_parser_is_mid_frame(&parser));
    for (size_t at = 10; at < n; at += 65536) {
        feed(&parser, bytes + at, n - at < 65536 ? n - at : 65536, &seen);
        cr_assert(parser.data_size <= 65536, "draining holds %u bytes", parser.data_size);
    }
    cr_assert_eq(seen.count, 2);
    cr_assert_eq(seen.items[1].event, SPB_TTRPC_FRAME);
    cr_assert_eq(seen.items[1].header.stream, 11);
    spb_ttrpc_parser_done(&parser);
    free(bytes);
}

Test(ttrpc_frame, largest_frame_passes_and_its_buffer_is_given_back)
{
    struct spb_ttrpc_parser parser;
    struct seen_list seen = {.count = 0};
    size_t n = SPB_TTRPC_HEADER_SIZE + SPB_TTRPC_DATA_MAX;
    uint8_t *bytes = malloc(n);

    (void)put_frame(bytes, SPB_TTRPC_DATA_MAX, 1, 2, 0);
    spb_ttrpc_parser_init(&parser, SPB_TTRPC_DATA_MAX);
    for (size_t at = 0; at < n; at += 4099) {
        size_t piece = n - at < 4099 ? n - at : 4099;
        feed(&parser, bytes + at, piece, &seen);
    }
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.items[0].event, SPB_TTRPC_FRAME);
    cr_assert_eq(seen.items[0].sum, sum_of(bytes + 10, SPB_TTRPC_DATA_MAX));
    cr_assert(parser.data_size <= 65536, "%u bytes are held when idle", parser.data_size);
    spb_ttrpc_parser_done(&parser);
    free(bytes);
}

Test(ttrpc_frame, allocates_what_arrives_and_not_what_is_announced)
{
    struct spb_ttrpc_parser parser;
    struct seen_list seen = {.count = 0};
    uint8_t bytes[SPB_TTRPC_HEADER_SIZE + 16];
    const struct spb_ttrpc_header header = {SPB_TTRPC_DATA_MAX, 1, 2, 0};

    memset(bytes, 0, sizeof(bytes));
    spb_ttrpc_header_encode(&header, bytes);
    spb_ttrpc_parser_init(&parser, SPB_TTRPC_DATA_MAX);
    feed(&parser, bytes, SPB_TTRPC_HEADER_SIZE, &seen);
    cr_assert_eq(parser.data_size, 0);
    for (uint32_t arrived = 16; arrived <= 65536; arrived += 16) {
        feed(&parser, bytes + SPB_TTRPC_HEADER_SIZE, 16, &seen);
        cr_assert(parser.data_size <= 2 * arrived || parser.data_size <= 4096,
                  "%u bytes for %u that arrived", parser.data_size, arrived);
    }
    cr_assert_eq(seen.count, 0);
    spb_ttrpc_parser_done(&parser);
}

/* Each bit of a header flipped: still an event that the rules name, never a buffer out of bounds.
 */
Test(ttrpc_frame, header_bit_flips)
{
    uint8_t clean[SPB_TTRPC_HEADER_SIZE + 20];
    size_t n = put_frame(clean, 20, 1, 2, 0);

    for (size_t bit = 0; bit < 8 * SPB_TTRPC_HEADER_SIZE; bit++) {
        struct spb_ttrpc_parser parser;
        struct seen_list seen = {.count = 0};
        uint8_t bytes[sizeof(clean)];
        memcpy(bytes, clean, n);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        spb_ttrpc_parser_init(&parser, 64);
        feed(&parser, bytes, n, &seen);
        uint32_t length = (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
        if (bytes[0] != 0)
            cr_assert_eq(seen.items[0].event, SPB_TTRPC_BROKEN);
        else if (length > 64)
            cr_assert_eq(seen.items[0].event, SPB_TTRPC_TOO_LARGE);
        else if (length > 20)
            cr_assert_eq(seen.count, 0);
        else
            cr_assert_eq(seen.items[0].event, SPB_TTRPC_FRAME);
        spb_ttrpc_parser_done(&parser);
    }
}

Test(ttrpc_frame, feeding_nothing_changes_nothing)
{
    struct spb_ttrpc_parser parser;
    struct seen_list seen = {.count = 0};
    uint8_t bytes[32];
    size_t n = put_frame(bytes, 6, 1, 2, 0);

    spb_ttrpc_parser_init(&parser, 64);
    feed(&parser, bytes, 0, &seen);
    feed(&parser, bytes, 4, &seen);
    feed(&parser, bytes + 4, 0, &seen);
    feed(&parser, bytes + 4, n - 4, &seen);
    feed(&parser, bytes, 0, &seen);
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.items[0].sum, sum_of(bytes + 10, 6));
    spb_ttrpc_parser_done(&parser);
}

/* ---- Giving up a frame -------------------------------------------------------------------- */

static void feed_all(struct spb_ttrpc_parser *parser, const uint8_t *bytes, size_t n,
                     struct seen_list *list)
{
    for (size_t done = 0; done < n;) {
        enum spb_ttrpc_event event;
        struct spb_ttrpc_header header;
        const uint8_t *data = NULL;
        size_t used = 0;

        cr_assert(spb_is_ok(spb_ttrpc_parser_feed(parser, bytes + done, n - done, &used, &event,
                                                  &header, &data, NULL)));
        done += used;
        if (event == SPB_TTRPC_FRAME)
            list->items[list->count++] = (struct seen){.event = event, .header = header};
        else
            cr_assert_eq(event, SPB_TTRPC_NEED_MORE);
    }
}

Test(ttrpc_frame, a_discarded_frame_is_drained_from_every_place)
{
    const uint32_t size = 5000;
    uint8_t *bytes = calloc(2, SPB_TTRPC_HEADER_SIZE + size);
    struct spb_ttrpc_header header = {.length = size, .stream = 1, .type = 1};
    size_t frame = SPB_TTRPC_HEADER_SIZE + size;

    spb_ttrpc_header_encode(&header, bytes);
    header.stream = 3;
    spb_ttrpc_header_encode(&header, bytes + frame);
    for (size_t cut = SPB_TTRPC_HEADER_SIZE; cut < frame; cut += 61) {
        struct spb_ttrpc_parser parser;
        struct seen_list list = {.count = 0};

        spb_ttrpc_parser_init(&parser, 65536);
        feed_all(&parser, bytes, cut, &list);
        cr_assert(spb_ttrpc_parser_is_in_data(&parser));
        cr_assert_eq(spb_ttrpc_parser_left(&parser), frame - cut);
        spb_ttrpc_parser_discard(&parser);
        cr_assert_null(parser.data);
        cr_assert(!spb_ttrpc_parser_is_in_data(&parser));
        cr_assert(spb_ttrpc_parser_is_mid_frame(&parser));
        cr_assert_eq(spb_ttrpc_parser_left(&parser), frame - cut);
        feed_all(&parser, bytes + cut, 2 * frame - cut, &list);
        cr_assert_eq(list.count, 1);
        cr_assert_eq(list.items[0].header.stream, 3);
        cr_assert_eq(spb_ttrpc_parser_left(&parser), 0);
        spb_ttrpc_parser_done(&parser);
    }
    free(bytes);
}

Test(ttrpc_frame, the_buffer_does_not_grow_beyond_the_frame)
{
    const uint32_t size = 600000;
    uint8_t *bytes = calloc(1, SPB_TTRPC_HEADER_SIZE + size);
    struct spb_ttrpc_header header = {.length = size, .stream = 1, .type = 1};
    struct spb_ttrpc_parser parser;
    struct seen_list list = {.count = 0};

    spb_ttrpc_header_encode(&header, bytes);
    spb_ttrpc_parser_init(&parser, 1 << 20);
    for (size_t at = 0; at < SPB_TTRPC_HEADER_SIZE + size; at += 10000) {
        size_t left = SPB_TTRPC_HEADER_SIZE + size - at;

        feed_all(&parser, bytes + at, left < 10000 ? left : 10000, &list);
        cr_assert_leq(parser.data_size, size);
    }
    cr_assert_eq(list.count, 1);
    spb_ttrpc_parser_done(&parser);
    free(bytes);
}

struct counted {
    struct spb_ttrpc_memory memory;
    int out, taken;
};

static uint8_t *take(struct spb_ttrpc_memory *memory, uint32_t *size)
{
    struct counted *counted = (struct counted *)memory;

    counted->out++;
    counted->taken++;
    *size += 4096; /* it may have more than was wanted */
    return malloc(*size);
}

static void give(struct spb_ttrpc_memory *memory, uint8_t *data)
{
    ((struct counted *)memory)->out--;
    free(data);
}

Test(ttrpc_frame, a_large_frame_is_read_to_its_place)
{
    const uint32_t size = 600000, begun = 5000;
    uint8_t *bytes = malloc(SPB_TTRPC_HEADER_SIZE + size);
    struct spb_ttrpc_header header = {.length = size, .stream = 1, .type = 1};
    struct counted counted = {{.least = 100000, .take = take, .give = give}, 0, 0};
    struct spb_ttrpc_parser parser;
    enum spb_ttrpc_event event;
    const uint8_t *data = NULL;
    size_t n, used;

    for (uint32_t i = 0; i < size; i++)
        bytes[SPB_TTRPC_HEADER_SIZE + i] = (uint8_t)(i * 7 + i / 251);
    spb_ttrpc_header_encode(&header, bytes);
    spb_ttrpc_parser_init(&parser, 1 << 20);
    parser.memory = &counted.memory;
    for (int frame = 0; frame < 2; frame++) {
        cr_assert_null(spb_ttrpc_parser_room(&parser, 1, &n)); /* no header has come */
        cr_assert(spb_is_ok(spb_ttrpc_parser_feed(&parser, bytes, SPB_TTRPC_HEADER_SIZE + begun,
                                                  &used, &event, &header, &data, NULL)));
        cr_assert_eq(event, SPB_TTRPC_NEED_MORE);
        cr_assert_null(spb_ttrpc_parser_room(&parser, size, &n));
        uint8_t *room = spb_ttrpc_parser_room(&parser, 1000, &n);
        cr_assert_not_null(room);
        cr_assert_eq(n, size - begun);
        cr_assert_eq(counted.out, 1);
        memcpy(room, bytes + SPB_TTRPC_HEADER_SIZE + begun, n);
        cr_assert(spb_is_ok(
            spb_ttrpc_parser_feed(&parser, room, n, &used, &event, &header, &data, NULL)));
        cr_assert_eq(used, n);
        cr_assert_eq(event, SPB_TTRPC_FRAME);
        cr_assert_eq(data, room - begun);
        cr_assert_arr_eq(data, bytes + SPB_TTRPC_HEADER_SIZE, size);
    }
    cr_assert_eq(counted.taken, 2); /* each frame's goes back when the next begins */
    spb_ttrpc_parser_done(&parser);
    cr_assert_eq(counted.out, 0);
    free(bytes);
}

/* Without room, too, its buffer is the memory's from that size on. */
Test(ttrpc_frame, large_buffers_are_taken_and_given_back)
{
    const uint32_t size = 600000;
    uint8_t *bytes = calloc(1, SPB_TTRPC_HEADER_SIZE + size);
    struct spb_ttrpc_header header = {.length = size, .stream = 1, .type = 1};
    struct counted counted = {{.least = 100000, .take = take, .give = give}, 0, 0};
    struct spb_ttrpc_parser parser;
    struct seen_list list = {.count = 0};

    spb_ttrpc_header_encode(&header, bytes);
    spb_ttrpc_parser_init(&parser, 1 << 20);
    parser.memory = &counted.memory;
    feed_all(&parser, bytes, 90000, &list);
    cr_assert_eq(counted.taken, 0);
    feed_all(&parser, bytes + 90000, 310000, &list);
    cr_assert_eq(counted.out, 1);
    spb_ttrpc_parser_discard(&parser);
    cr_assert_eq(counted.out, 0);
    cr_assert_gt(counted.taken, 0);
    spb_ttrpc_parser_done(&parser);
    free(bytes);
}
