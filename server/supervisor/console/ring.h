/*
 * The newest bytes of a stream, in memory, addressed by their absolute offset: how many bytes came
 * before them since the stream began. Memory is taken with the first byte and given back on
 * request; offsets go on. Where memory cannot be had the bytes count and are not kept.
 *
 * Not locked: its owner does that.
 */
#ifndef SPB_CONSOLE_RING_H
#define SPB_CONSOLE_RING_H

#include <stddef.h>
#include <stdint.h>

#define SPB_RING_BYTES (256u * 1024)

struct spb_ring {
    uint8_t *bytes; /* owned; NULL: none are kept */
    size_t room;    /* of bytes, once it is there; a power of two */
    size_t used;    /* the newest so many before end are kept */
    uint64_t end;   /* offset past the newest */
};

/* What lies in one piece from an offset on. data is borrowed until the ring is next changed. */
struct spb_ring_view {
    const uint8_t *data;
    size_t size;      /* 0: nothing is kept at or past the offset */
    uint64_t offset;  /* of data; of end where size is 0 */
    uint64_t skipped; /* from the offset that was asked for to this one: no longer kept */
};

/* room: a power of two, above 0. end: where the stream goes on. */
void spb_ring_init(struct spb_ring *ring, size_t room, uint64_t end);
/* Frees the bytes; end stays, and the next byte takes memory again. Also what ends a ring. */
void spb_ring_rest(struct spb_ring *ring);

void spb_ring_add(struct spb_ring *ring, const void *bytes, size_t n);
/* Offset of the oldest byte that is kept; end where there is none. */
uint64_t spb_ring_begin(const struct spb_ring *ring);
struct spb_ring_view spb_ring_find(const struct spb_ring *ring, uint64_t offset);
/* Copies at most n bytes from offset on, or from the oldest; *at: where out begins. */
size_t spb_ring_copy(const struct spb_ring *ring, uint64_t offset, void *out, size_t n,
                     uint64_t *at);

#endif
