/* Cursors over an image's events; see cursor.h. */
#include "cursor.h"

#include <string.h>

#include "base/bytes.h"

bool spb_event_life_is(const struct spb_event_life *a, const struct spb_event_life *b)
{
    return memcmp(a->uuid, b->uuid, sizeof(a->uuid)) == 0 &&
           memcmp(a->incarnation, b->incarnation, sizeof(a->incarnation)) == 0;
}

void spb_cursor_encode(const struct spb_cursor *cursor, uint8_t bytes[SPB_CURSOR_SIZE])
{
    struct spb_writer w = spb_writer_over(bytes, SPB_CURSOR_SIZE);

    spb_write_bytes(&w, cursor->life.uuid, sizeof(cursor->life.uuid));
    spb_write_bytes(&w, cursor->life.incarnation, sizeof(cursor->life.incarnation));
    spb_write_be32(&w, cursor->next);
}

bool spb_cursor_decode(const void *bytes, size_t n, struct spb_cursor *cursor)
{
    struct spb_reader r = spb_reader_over(bytes, n);

    if (n != SPB_CURSOR_SIZE)
        return false;
    spb_read_bytes(&r, cursor->life.uuid, sizeof(cursor->life.uuid));
    spb_read_bytes(&r, cursor->life.incarnation, sizeof(cursor->life.incarnation));
    cursor->next = spb_read_be32(&r);
    return true;
}

struct spb_cursor_place spb_cursor_locate(const struct spb_cursor *cursor,
                                          const struct spb_event_life *life, uint32_t oldest,
                                          uint32_t pointer)
{
    struct spb_cursor_place place = {.next = cursor->next};

    if (!spb_event_life_is(&cursor->life, life) || cursor->next > pointer) {
        place.reset = true;
        place.next = oldest;
    } else if (cursor->next < oldest) {
        place.skipped = oldest - cursor->next;
        place.next = oldest;
    }
    return place;
}
