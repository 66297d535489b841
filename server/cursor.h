/*
 * Cursors over an image's events: the image's uuid, the incarnation of its events, and the index
 * that comes next. Opaque to clients, who keep them over reconnects and restarts. What a cursor
 * says is never trusted further than that: any 28 bytes lead to some place of the ring, and where
 * that is not exactly where an answer ended, the answer says so. Pure functions; any thread.
 */
#ifndef SPB_SERVER_CURSOR_H
#define SPB_SERVER_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spaceblock/volume.h"

#define SPB_INCARNATION_SIZE 8u
#define SPB_CURSOR_SIZE (SPB_UUID_SIZE + SPB_INCARNATION_SIZE + 4u)

/* What cursors are bound to: the events of another life are others. */
struct spb_event_life {
    uint8_t uuid[SPB_UUID_SIZE];
    uint8_t incarnation[SPB_INCARNATION_SIZE];
};

struct spb_cursor {
    struct spb_event_life life;
    uint32_t next; /* index */
};

bool spb_event_life_is(const struct spb_event_life *a, const struct spb_event_life *b);

void spb_cursor_encode(const struct spb_cursor *cursor, uint8_t bytes[SPB_CURSOR_SIZE]);
/* False where the length is not a cursor's; *cursor stays as it was then. */
bool spb_cursor_decode(const void *bytes, size_t n, struct spb_cursor *cursor);

/* Where reading begins, and what is to be told about it. */
struct spb_cursor_place {
    uint32_t next;
    uint64_t skipped; /* overwritten since the cursor was given */
    bool reset;       /* it was of another life, or of events that were never written */
};

/* oldest and pointer are those of the image whose life it is. */
struct spb_cursor_place spb_cursor_locate(const struct spb_cursor *cursor,
                                          const struct spb_event_life *life, uint32_t oldest,
                                          uint32_t pointer);

#endif
