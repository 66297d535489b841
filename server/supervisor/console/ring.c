/* The newest bytes of a stream; see ring.h. A byte of offset n lies at n modulo the room. */
#include "supervisor/console/ring.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

void spb_ring_init(struct spb_ring *ring, size_t room, uint64_t end)
{
    SPB_ASSERT(room > 0 && (room & (room - 1)) == 0);
    *ring = (struct spb_ring){.room = room, .end = end};
}

void spb_ring_rest(struct spb_ring *ring)
{
    free(ring->bytes);
    ring->bytes = NULL;
    ring->used = 0;
}

static size_t place_of(const struct spb_ring *ring, uint64_t offset)
{
    return (size_t)(offset & (ring->room - 1));
}

void spb_ring_add(struct spb_ring *ring, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    if (ring->bytes == NULL)
        ring->bytes = malloc(ring->room);
    ring->end += n;
    if (ring->bytes == NULL)
        return;
    /* Of more than there is room for only the end is kept. */
    size_t kept = n < ring->room ? n : ring->room;
    const uint8_t *from = (const uint8_t *)bytes + (n - kept);
    size_t place = place_of(ring, ring->end - kept);
    size_t first = ring->room - place < kept ? ring->room - place : kept;
    memcpy(ring->bytes + place, from, first);
    memcpy(ring->bytes, from + first, kept - first);
    ring->used = ring->room - ring->used < n ? ring->room : ring->used + n;
}

uint64_t spb_ring_begin(const struct spb_ring *ring)
{
    return ring->end - ring->used;
}

struct spb_ring_view spb_ring_find(const struct spb_ring *ring, uint64_t offset)
{
    uint64_t begin = spb_ring_begin(ring), asked = offset;

    if (offset >= ring->end)
        return (struct spb_ring_view){.offset = ring->end};
    if (offset < begin)
        offset = begin;
    struct spb_ring_view view = {.offset = offset, .skipped = offset - asked};
    if (offset < ring->end) {
        size_t place = place_of(ring, offset), left = (size_t)(ring->end - offset);

        view.data = ring->bytes + place;
        view.size = ring->room - place < left ? ring->room - place : left;
    }
    return view;
}

size_t spb_ring_copy(const struct spb_ring *ring, uint64_t offset, void *out, size_t n,
                     uint64_t *at)
{
    struct spb_ring_view view = spb_ring_find(ring, offset);
    size_t copied = 0;

    *at = view.offset;
    while (view.size > 0 && copied < n) {
        size_t piece = view.size < n - copied ? view.size : n - copied;

        memcpy((uint8_t *)out + copied, view.data, piece);
        copied += piece;
        view = spb_ring_find(ring, *at + copied);
    }
    return copied;
}
