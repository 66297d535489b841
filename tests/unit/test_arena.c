/* Arenas: pieces, the cap, what is kept, and the pool of large blocks between them. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

#define MIB (1024u * 1024)

static uint8_t first[4096];

static struct spb_arena_pool pool;

static void begin(void)
{
    spb_arena_pool_init(&pool);
}

static void end(void)
{
    spb_arena_pool_done(&pool);
}

TestSuite(arena, .init = begin, .fini = end);

static void init(struct spb_arena *arena, size_t cap)
{
    spb_arena_init(arena, first, sizeof(first), cap);
    arena->pool = &pool;
}

Test(arena, pieces_are_aligned_apart_and_within_the_cap)
{
    struct spb_arena arena;
    uint8_t *pieces[200];
    size_t count = 0, sizes[] = {1, 15, 16, 17, 500, 5000, 70000, 300000};

    init(&arena, 4 * MIB);
    for (size_t i = 0; i < 200; i++) {
        size_t size = sizes[i % 8];
        uint8_t *piece = spb_arena_alloc(&arena, size);

        if (piece == NULL)
            break;
        cr_assert_eq((uintptr_t)piece % 16, 0);
        memset(piece, (int)i, size);
        pieces[count++] = piece;
    }
    cr_assert_gt(count, 50);
    cr_assert_lt(count, 200);
    cr_assert(arena.exhausted);
    cr_assert_leq(arena.total, arena.cap);
    for (size_t i = 0; i < count; i++)
        cr_assert(pieces[i][0] == (uint8_t)i && pieces[i][sizes[i % 8] - 1] == (uint8_t)i);
    spb_arena_done(&arena);
}

Test(arena, the_last_block_is_cut_to_the_cap)
{
    struct spb_arena arena;

    init(&arena, sizeof(first) + 300000);
    cr_assert_not_null(spb_arena_alloc(&arena, 299984));
    cr_assert(!arena.exhausted);
    cr_assert_null(spb_arena_alloc(&arena, 100000));
    cr_assert(arena.exhausted);
    spb_arena_done(&arena);
}

Test(arena, sizes_that_overflow)
{
    struct spb_arena arena;

    init(&arena, MIB);
    cr_assert_null(spb_arena_alloc(&arena, SIZE_MAX));
    cr_assert_null(spb_arena_alloc(&arena, SIZE_MAX - 15));
    cr_assert_null(spb_arena_alloc(&arena, MIB + 1));
    cr_assert_not_null(spb_arena_alloc(&arena, 16));
    spb_arena_done(&arena);
}

Test(arena, keep_keeps_one_block)
{
    struct spb_arena arena;

    init(&arena, 16 * MIB);
    uint8_t *before = spb_arena_alloc(&arena, MIB);
    uint8_t *kept = spb_arena_alloc(&arena, MIB);
    uint8_t *after = spb_arena_alloc(&arena, MIB);
    cr_assert(before != NULL && kept != NULL && after != NULL);
    memset(kept, 'k', MIB);
    spb_arena_keep(&arena, kept);
    cr_assert_eq(pool.bytes, 2 * MIB, "the others are back in the pool");
    cr_assert(kept[0] == 'k' && kept[MIB - 1] == 'k');
    cr_assert_null(spb_arena_alloc(&arena, 16), "nothing is to be had afterwards");
    spb_arena_done(&arena);
}

Test(arena, keep_of_a_piece_in_the_first_block)
{
    struct spb_arena arena;

    init(&arena, 16 * MIB);
    uint8_t *kept = spb_arena_alloc(&arena, 100);
    memset(kept, 'k', 100);
    cr_assert_not_null(spb_arena_alloc(&arena, MIB));
    spb_arena_keep(&arena, kept);
    cr_assert(kept[0] == 'k' && kept[99] == 'k');
    spb_arena_done(&arena);
}

Test(arena, large_blocks_are_used_again)
{
    struct spb_arena arena;

    init(&arena, 16 * MIB);
    uint8_t *once = spb_arena_alloc(&arena, MIB);
    spb_arena_done(&arena);
    init(&arena, 16 * MIB);
    cr_assert_eq(spb_arena_alloc(&arena, MIB), once);
    cr_assert_eq(pool.bytes, 0);
    spb_arena_done(&arena);
}

Test(arena, a_pooled_block_does_not_break_the_cap)
{
    struct spb_arena arena;

    init(&arena, 16 * MIB);
    cr_assert_not_null(spb_arena_alloc(&arena, MIB));
    spb_arena_done(&arena);
    init(&arena, sizeof(first) + MIB);
    cr_assert_not_null(spb_arena_alloc(&arena, MIB));
    cr_assert_leq(arena.total, arena.cap);
    cr_assert_null(spb_arena_alloc(&arena, 8192));
    spb_arena_done(&arena);
}

Test(arena, the_pool_is_bounded_and_emptied)
{
    struct spb_arena arenas[40];

    for (size_t i = 0; i < 40; i++) {
        init(&arenas[i], 16 * MIB);
        cr_assert_not_null(spb_arena_alloc(&arenas[i], MIB));
    }
    for (size_t i = 0; i < 40; i++)
        spb_arena_done(&arenas[i]);
    cr_assert_gt(pool.bytes, 8 * MIB);
    cr_assert_leq(pool.bytes, 16 * MIB);
    spb_arena_pool_trim(&pool); /* they were wanted since the last time */
    cr_assert_gt(pool.bytes, 0);
    spb_arena_pool_trim(&pool);
    cr_assert_eq(pool.bytes, 0);
    cr_assert_null(pool.free);
}

Test(arena, without_a_pool)
{
    struct spb_arena arena;

    spb_arena_init(&arena, first, sizeof(first), 16 * MIB);
    cr_assert_not_null(spb_arena_alloc(&arena, MIB));
    spb_arena_done(&arena);
    cr_assert_eq(pool.bytes, 0);
}
