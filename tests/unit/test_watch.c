/* What watches stand on: cursors, filters, and the order in which waits end. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "cursor.h"
#include "daemon.h"
#include "event_scan.h"
#include "waits.h"

/* ---- Cursors ------------------------------------------------------------------------------ */

static struct spb_cursor some_cursor(void)
{
    struct spb_cursor cursor = {.next = 0x01020304};

    for (size_t i = 0; i < sizeof(cursor.life.uuid); i++)
        cursor.life.uuid[i] = (uint8_t)(0xA0 + i);
    for (size_t i = 0; i < sizeof(cursor.life.incarnation); i++)
        cursor.life.incarnation[i] = (uint8_t)(0x50 + i);
    return cursor;
}

Test(cursor, bytes)
{
    static const uint8_t expected[SPB_CURSOR_SIZE] = {
        0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0xAD,
        0xAE, 0xAF, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 1,    2,    3,    4,
    };
    struct spb_cursor cursor = some_cursor(), back = {.next = 0};
    uint8_t bytes[SPB_CURSOR_SIZE];

    spb_cursor_encode(&cursor, bytes);
    cr_assert_arr_eq(bytes, expected, sizeof(bytes));
    cr_assert(spb_cursor_decode(bytes, sizeof(bytes), &back));
    cr_assert(spb_event_life_is(&back.life, &cursor.life));
    cr_assert_eq(back.next, cursor.next);
}

Test(cursor, other_lengths_are_none)
{
    uint8_t bytes[SPB_CURSOR_SIZE + 1] = {1};
    struct spb_cursor cursor = {.next = 77};

    for (size_t n = 0; n <= sizeof(bytes); n++) {
        if (n != SPB_CURSOR_SIZE)
            cr_assert_not(spb_cursor_decode(bytes, n, &cursor), "%zu bytes", n);
    }
    cr_assert_not(spb_cursor_decode(NULL, 0, &cursor));
    cr_assert_eq(cursor.next, 77);
}

static struct spb_cursor_place locate(uint32_t next, uint32_t oldest, uint32_t pointer)
{
    struct spb_cursor cursor = some_cursor();

    cursor.next = next;
    return spb_cursor_locate(&cursor, &cursor.life, oldest, pointer);
}

static void assert_place(struct spb_cursor_place place, uint32_t next, uint64_t skipped, bool reset)
{
    cr_assert_eq(place.next, next);
    cr_assert_eq(place.skipped, skipped);
    cr_assert_eq(place.reset, reset);
}

Test(cursor, place)
{
    assert_place(locate(10, 5, 20), 10, 0, false);
    assert_place(locate(5, 5, 20), 5, 0, false);
    assert_place(locate(20, 5, 20), 20, 0, false);
    assert_place(locate(4, 5, 20), 5, 1, false);
    assert_place(locate(0, 4000000000, 4000000084), 4000000000, 4000000000, false);
    assert_place(locate(0, 0, 0), 0, 0, false);
    /* what was never written is nobody's place */
    assert_place(locate(21, 5, 20), 5, 0, true);
    assert_place(locate(UINT32_MAX, 0, 0), 0, 0, true);
}

Test(cursor, another_life_starts_anew)
{
    struct spb_cursor cursor = some_cursor();

    for (size_t i = 0; i < sizeof(cursor.life); i++) {
        struct spb_event_life life = cursor.life;

        ((uint8_t *)&life)[i] ^= 1;
        cursor.next = 10;
        assert_place(spb_cursor_locate(&cursor, &life, 5, 20), 5, 0, true);
    }
}

/* ---- Filters ------------------------------------------------------------------------------ */

Test(filter, codes_are_sorted_and_each_once)
{
    static const uint32_t codes[] = {65535, 7, 0, 7, 8, 256, 65535, 255};
    static const uint16_t expected[] = {0, 7, 8, 255, 256, 65535};
    uint16_t sorted[8];

    cr_assert_eq(spb_event_codes_sort(codes, 8, sorted), 6);
    cr_assert_arr_eq(sorted, expected, sizeof(expected));
    cr_assert_eq(spb_event_codes_sort(codes, 1, sorted), 1);
    cr_assert_eq(sorted[0], 65535);
    cr_assert_eq(spb_event_codes_sort(NULL, 0, sorted), 0);
}

static bool passes(const struct spb_event_filter *filter, uint8_t severity, uint16_t code)
{
    struct spb_event event = {.severity = severity, .code = code};

    return spb_event_filter_passes(filter, &event);
}

Test(filter, passes_what_is_listed)
{
    static const uint32_t severities[] = {3, 255};
    static const uint16_t codes[] = {0, 9, 300, 65535};
    struct spb_event_filter all, some, by_code;
    struct spb_event corrupt = {.corrupt = true};

    spb_event_filter_init(&all, NULL, 0, NULL, 0);
    cr_assert(passes(&all, 0, 0));
    cr_assert(passes(&all, 255, 65535));
    spb_event_filter_init(&some, severities, 2, codes, 4);
    for (uint32_t severity = 0; severity < 256; severity++) {
        for (uint32_t code = 0; code < 65536; code += code < 400 ? 1 : 5) {
            bool expected = (severity == 3 || severity == 255) &&
                            (code == 0 || code == 9 || code == 300 || code == 65535);
            cr_assert_eq(passes(&some, (uint8_t)severity, (uint16_t)code), expected);
        }
    }
    spb_event_filter_init(&by_code, NULL, 0, codes, 1);
    cr_assert(passes(&by_code, 200, 0));
    cr_assert_not(passes(&by_code, 200, 1));
    cr_assert(spb_event_filter_passes(&some, &corrupt));
}

Test(filter, equal_ones_hash_alike)
{
    static const uint32_t three[] = {3}, four[] = {4};
    static const uint16_t codes[] = {1, 2}, same[] = {1, 2}, others[] = {1, 3};
    struct spb_event_filter a, b;
    const struct {
        const uint32_t *severities;
        size_t severity_count;
        const uint16_t *codes;
        size_t code_count;
    } different[] = {{four, 1, codes, 2},
                     {NULL, 0, codes, 2},
                     {three, 1, others, 2},
                     {three, 1, codes, 1},
                     {three, 1, NULL, 0}};

    spb_event_filter_init(&a, three, 1, codes, 2);
    spb_event_filter_init(&b, three, 1, same, 2);
    cr_assert(spb_event_filter_is(&a, &b));
    cr_assert_eq(spb_event_filter_hash(&a, 5), spb_event_filter_hash(&b, 5));
    for (size_t i = 0; i < SPB_COUNT(different); i++) {
        spb_event_filter_init(&b, different[i].severities, different[i].severity_count,
                              different[i].codes, different[i].code_count);
        cr_assert_not(spb_event_filter_is(&a, &b), "case %zu", i);
        cr_assert_neq(spb_event_filter_hash(&a, 5), spb_event_filter_hash(&b, 5), "case %zu", i);
    }
}

/* ---- Waits -------------------------------------------------------------------------------- */

#define WAITS 500u

/* A loop that is not run: what a wait needs of the daemon. */
struct stage {
    struct spb_daemon daemon;
    struct spb_call calls[WAITS];
    struct spb_waiter waits[WAITS];
    size_t ended;
};

static struct stage *stage;

static void note_end(struct spb_waiter *wait)
{
    (void)wait;
    stage->ended++;
}

static void raise_stage(void)
{
    static const struct spb_loop_hooks hooks = {.turn = NULL};

    stage = calloc(1, sizeof(*stage));
    cr_assert_not_null(stage);
    cr_assert(spb_is_ok(spb_loop_new(&hooks, &stage->daemon.loop, NULL)));
    spb_limits_init(&stage->daemon.limits);
    cr_assert(spb_is_ok(spb_waits_new(&stage->daemon, &stage->daemon.waits, NULL)));
    for (size_t i = 0; i < WAITS; i++) {
        stage->calls[i].daemon = &stage->daemon;
        stage->waits[i] = (struct spb_waiter){.call = &stage->calls[i], .end = note_end};
    }
}

static void strike_stage(void)
{
    spb_waits_free(stage->daemon.waits);
    spb_loop_free(stage->daemon.loop);
    free(stage);
}

TestSuite(waits, .init = raise_stage, .fini = strike_stage);

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* They come and go in any order, and each can be taken out wherever it stands. */
Test(waits, any_order)
{
    struct spb_waits *waits = stage->daemon.waits;
    bool in[WAITS] = {false};
    uint32_t seed = 5;

    for (size_t step = 0; step < 20000; step++) {
        size_t i = next_random(&seed) % WAITS;

        if (in[i]) {
            spb_waits_remove(waits, &stage->waits[i]);
        } else {
            stage->waits[i].until_ns = 1000 + next_random(&seed) % 100;
            cr_assert(spb_waits_add(waits, &stage->waits[i]));
        }
        in[i] = !in[i];
    }
    for (size_t i = 0; i < WAITS; i++) {
        if (in[i])
            spb_waits_remove(waits, &stage->waits[i]);
    }
    cr_assert_eq(spb_waits_count(waits), 0);
    cr_assert_eq(stage->ended, 0);
}

/* Of mixed connections exactly one's end, whatever moves in the heap meanwhile. */
Test(waits, connections_end_one_by_one)
{
    struct spb_waits *waits = stage->daemon.waits;
    size_t left[7] = {0}, total = WAITS;
    uint32_t seed = 9;

    for (size_t i = 0; i < WAITS; i++) {
        stage->calls[i].origin.slot = next_random(&seed) % 7;
        stage->calls[i].origin.generation = 3;
        left[stage->calls[i].origin.slot]++;
        stage->waits[i].until_ns = 1000 + next_random(&seed) % 1000;
        cr_assert(spb_waits_add(waits, &stage->waits[i]));
    }
    for (uint32_t slot = 0; slot < 7; slot++) {
        spb_waits_end_connection(waits, slot, 2); /* another life of that slot */
        cr_assert_eq(spb_waits_count(waits), total);
        spb_waits_end_connection(waits, slot, 3);
        total -= left[slot];
        cr_assert_eq(spb_waits_count(waits), total, "slot %u", slot);
    }
    cr_assert_eq(stage->ended, WAITS);
}

Test(waits, all_end)
{
    for (size_t i = 0; i < WAITS; i++)
        cr_assert(spb_waits_add(stage->daemon.waits, &stage->waits[i]));
    spb_waits_end_all(stage->daemon.waits);
    cr_assert_eq(stage->ended, WAITS);
    cr_assert_eq(spb_waits_count(stage->daemon.waits), 0);
}

Test(waits, end_in_time_before_a_deadline)
{
    struct spb_call *call = &stage->calls[0];
    int64_t now_ns = spb_now_ns();

    cr_assert_geq(spb_wait_until(call, 1000), now_ns + SPB_NS_PER_S);
    call->deadline_ns = now_ns + 60 * SPB_NS_PER_S;
    cr_assert_lt(spb_wait_until(call, 1000), now_ns + 30 * SPB_NS_PER_S);
    cr_assert_leq(spb_wait_until(call, 60000), call->deadline_ns - SPB_NS_PER_S);
    cr_assert_geq(spb_wait_until(call, 60000), call->deadline_ns - 2 * SPB_NS_PER_S);
    call->deadline_ns = now_ns + SPB_NS_PER_S / 10;
    cr_assert_leq(spb_wait_until(call, 60000), call->deadline_ns - 5 * SPB_NS_PER_MS);
}
