/*
 * Memory of one call: handed out from blocks, given back all at once, capped. A few MiB of hostile
 * protobuf can unpack to a hundred times as much; past the cap the arena yields NULL and the
 * unpacking fails. One thread at a time (a call moves from thread to thread, never in two).
 */
#ifndef SPB_SERVER_ARENA_H
#define SPB_SERVER_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>

#include <protobuf-c/protobuf-c.h>

#define SPB_ARENA_CAP (16u * 1024 * 1024)  /* bytes a call */
#define SPB_ARENA_POOLED_MIN (256u * 1024) /* bytes of a block that is kept in the pool */

struct spb_arena_block;

/*
 * Large blocks that are between arenas, or frames: taken from the system and given back one by one
 * they would cost their pages anew each time. Bounded, and emptied when nobody has wanted one for a
 * while. Any thread.
 */
struct spb_arena_pool {
    pthread_mutex_t lock; /* over all below */
    struct spb_arena_block *free;
    size_t bytes;
    bool wanted; /* since it was looked at last */
};

void spb_arena_pool_init(struct spb_arena_pool *pool);
void spb_arena_pool_done(struct spb_arena_pool *pool);
/* Now and then: gives back what was not wanted since. */
void spb_arena_pool_trim(struct spb_arena_pool *pool);
/* A block by itself, of *size bytes at least, which is set to what it has; SPB_ARENA_POOLED_MIN or
 * more are worth it. NULL without memory. */
void *spb_arena_pool_take(struct spb_arena_pool *pool, size_t *size);
void spb_arena_pool_give(struct spb_arena_pool *pool, void *block);

struct spb_arena {
    uint8_t *next;     /* where the next piece begins, in the current block */
    size_t left;       /* bytes of it */
    size_t total;      /* of all blocks */
    size_t first_size; /* of it the owner's block */
    size_t cap;
    size_t block_size;              /* of the next block at least; doubles */
    bool exhausted;                 /* some request was refused */
    struct spb_arena_pool *pool;    /* borrowed; NULL: none */
    struct spb_arena_block *blocks; /* owned; the first block is the owner's */
    ProtobufCAllocator allocator;   /* over this arena; free does nothing */
};

/* first is borrowed until done. The arena may not be moved afterwards. */
void spb_arena_init(struct spb_arena *arena, void *first, size_t first_size, size_t cap);
void spb_arena_done(struct spb_arena *arena);

/*
 * Gives back all blocks but the one that this piece is in: for what is kept when the rest is done
 * with. Nothing may be allocated afterwards.
 */
void spb_arena_keep(struct spb_arena *arena, const void *piece);

/* Aligned for anything; NULL past the cap or without memory. Not zeroed. */
void *spb_arena_alloc(struct spb_arena *arena, size_t size);

#endif
