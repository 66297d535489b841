/* Memory of one call; see arena.h. */
#include "arena.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 16u
#define BLOCK_MIN 16384u
#define BLOCK_DOUBLING_MAX (1024u * 1024)

struct spb_arena_block {
    struct spb_arena_block *next;
    size_t padding; /* keeps what follows aligned */
};

_Static_assert(sizeof(struct spb_arena_block) % ALIGNMENT == 0, "blocks begin aligned");

static void *allocate(void *data, size_t size)
{
    return spb_arena_alloc(data, size);
}

static void ignore(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

void spb_arena_init(struct spb_arena *arena, void *first, size_t first_size, size_t cap)
{
    size_t skip = (ALIGNMENT - (uintptr_t)first % ALIGNMENT) % ALIGNMENT;

    if (skip > first_size)
        skip = first_size;
    *arena = (struct spb_arena){
        .next = (uint8_t *)first + skip,
        .left = first_size - skip,
        .total = first_size,
        .cap = cap,
        .block_size = BLOCK_MIN,
        .allocator = {.alloc = allocate, .free = ignore, .allocator_data = arena},
    };
}

void spb_arena_done(struct spb_arena *arena)
{
    while (arena->blocks != NULL) {
        struct spb_arena_block *block = arena->blocks;

        arena->blocks = block->next;
        free(block);
    }
    arena->next = NULL;
    arena->left = 0;
}

static bool grow(struct spb_arena *arena, size_t size)
{
    size_t room = size > arena->block_size ? size : arena->block_size;

    if (room > arena->cap - arena->total)
        room = size; /* the last ones are cut to measure */
    if (arena->total > arena->cap || room > arena->cap - arena->total)
        return false;
    struct spb_arena_block *block = malloc(sizeof(*block) + room);
    if (block == NULL)
        return false;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->next = (uint8_t *)(block + 1);
    arena->left = room;
    arena->total += room;
    if (arena->block_size < BLOCK_DOUBLING_MAX)
        arena->block_size *= 2;
    return true;
}

void *spb_arena_alloc(struct spb_arena *arena, size_t size)
{
    if (size > arena->cap) {
        arena->exhausted = true;
        return NULL;
    }
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size == 0)
        size = ALIGNMENT;
    if (size > arena->left && !grow(arena, size)) {
        arena->exhausted = true;
        return NULL;
    }
    void *piece = arena->next;
    arena->next += size;
    arena->left -= size;
    return piece;
}

void *spb_arena_zalloc(struct spb_arena *arena, size_t size)
{
    void *piece = spb_arena_alloc(arena, size);

    if (piece != NULL)
        memset(piece, 0, size);
    return piece;
}
