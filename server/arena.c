/* Memory of one call; see arena.h. */
#include "arena.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 16u
#define BLOCK_MIN 16384u
#define BLOCK_DOUBLING_MAX (1024u * 1024)
#define POOLED_UNIT (64u * 1024)     /* their sizes are multiples of it, where the cap lets them */
#define POOL_MAX (16u * 1024 * 1024) /* bytes */

struct spb_arena_block {
    struct spb_arena_block *next;
    size_t size; /* of what follows, which is aligned */
};

_Static_assert(sizeof(struct spb_arena_block) % ALIGNMENT == 0, "blocks begin aligned");

/* ---- Blocks ------------------------------------------------------------------------------- */

void spb_arena_pool_init(struct spb_arena_pool *pool)
{
    *pool = (struct spb_arena_pool){.bytes = 0};
    (void)pthread_mutex_init(&pool->lock, NULL);
}

/* All of them, for the caller to free. */
static struct spb_arena_block *take_all(struct spb_arena_pool *pool)
{
    struct spb_arena_block *blocks = pool->free;

    pool->free = NULL;
    pool->bytes = 0;
    return blocks;
}

static void free_all(struct spb_arena_block *blocks)
{
    while (blocks != NULL) {
        struct spb_arena_block *block = blocks;

        blocks = block->next;
        free(block);
    }
}

void spb_arena_pool_done(struct spb_arena_pool *pool)
{
    free_all(take_all(pool));
    (void)pthread_mutex_destroy(&pool->lock);
}

void spb_arena_pool_trim(struct spb_arena_pool *pool)
{
    struct spb_arena_block *blocks = NULL;

    (void)pthread_mutex_lock(&pool->lock);
    if (!pool->wanted)
        blocks = take_all(pool);
    pool->wanted = false;
    (void)pthread_mutex_unlock(&pool->lock);
    free_all(blocks);
}

/* One that is not much larger than wanted; NULL where there is none. */
static struct spb_arena_block *take_pooled(struct spb_arena_pool *pool, size_t size)
{
    struct spb_arena_block *block = NULL;

    (void)pthread_mutex_lock(&pool->lock);
    pool->wanted = true;
    for (struct spb_arena_block **link = &pool->free; *link != NULL; link = &(*link)->next) {
        if ((*link)->size >= size && (*link)->size - size < POOLED_UNIT) {
            block = *link;
            *link = block->next;
            pool->bytes -= block->size;
            break;
        }
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return block;
}

static struct spb_arena_block *new_block(struct spb_arena_pool *pool, size_t size)
{
    struct spb_arena_block *block = NULL;

    if (pool != NULL && size >= SPB_ARENA_POOLED_MIN)
        block = take_pooled(pool, size);
    if (block != NULL)
        return block;
    block = malloc(sizeof(*block) + size);
    if (block != NULL)
        block->size = size;
    return block;
}

static void free_block(struct spb_arena_pool *pool, struct spb_arena_block *block)
{
    bool kept = false;

    if (pool != NULL && block->size >= SPB_ARENA_POOLED_MIN) {
        (void)pthread_mutex_lock(&pool->lock);
        kept = block->size <= POOL_MAX - pool->bytes;
        if (kept) {
            block->next = pool->free;
            pool->free = block;
            pool->bytes += block->size;
        }
        (void)pthread_mutex_unlock(&pool->lock);
    }
    if (!kept)
        free(block);
}

static size_t pooled_size(size_t size)
{
    return size < SPB_ARENA_POOLED_MIN ? size
                                       : (size + POOLED_UNIT - 1) / POOLED_UNIT * POOLED_UNIT;
}

void *spb_arena_pool_take(struct spb_arena_pool *pool, size_t *size)
{
    struct spb_arena_block *block = new_block(pool, pooled_size(*size));

    if (block == NULL)
        return NULL;
    *size = block->size;
    return block + 1;
}

void spb_arena_pool_give(struct spb_arena_pool *pool, void *block)
{
    free_block(pool, (struct spb_arena_block *)block - 1);
}

/* ---- Arenas ------------------------------------------------------------------------------- */

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
        .first_size = first_size,
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
        free_block(arena->pool, block);
    }
    arena->next = NULL;
    arena->left = 0;
}

static bool has(const struct spb_arena_block *block, const void *piece)
{
    uintptr_t begin = (uintptr_t)(block + 1), at = (uintptr_t)piece;

    return at >= begin && at - begin < block->size;
}

void spb_arena_keep(struct spb_arena *arena, const void *piece)
{
    struct spb_arena_block **link = &arena->blocks;

    while (*link != NULL) {
        struct spb_arena_block *block = *link;

        if (has(block, piece)) {
            link = &block->next;
        } else {
            *link = block->next;
            free_block(arena->pool, block);
        }
    }
    arena->next = NULL;
    arena->left = 0;
    arena->cap = 0;
}

static bool grow(struct spb_arena *arena, size_t size)
{
    size_t room = size > arena->block_size ? size : arena->block_size;

    if (arena->total > arena->cap)
        return false;
    room = pooled_size(room);
    if (room > arena->cap - arena->total)
        room = size; /* the last ones are cut to measure */
    if (room > arena->cap - arena->total)
        return false;
    struct spb_arena_block *block = new_block(arena->pool, room);
    if (block == NULL)
        return false;
    if (block->size <= arena->cap - arena->total)
        room = block->size; /* a pooled one may have more */
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
