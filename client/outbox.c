/* Bytes to be sent. Moving what is left to the front waits until it is the smaller half, so that
 * each byte is moved at most about once however it is sent. */
#include "outbox.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define SIZE_FIRST ((size_t)4096)
#define SIZE_KEEP ((size_t)262144) /* more is given back once all is sent */

static bool grow(struct spb_outbox *box, size_t need)
{
    size_t size = box->size < SIZE_FIRST ? SIZE_FIRST : box->size;

    while (size < need) {
        if (size > SIZE_MAX / 2)
            return false;
        size *= 2;
    }
    uint8_t *grown = realloc(box->data, size);
    if (grown == NULL)
        return false;
    box->data = grown;
    box->size = size;
    return true;
}

uint8_t *spb_outbox_room(struct spb_outbox *box, size_t n)
{
    if (n > SIZE_MAX - box->end)
        return NULL;
    if (n > box->size - box->end && box->start > spb_outbox_left(box)) {
        memmove(box->data, box->data + box->start, spb_outbox_left(box));
        box->end -= box->start;
        box->start = 0;
    }
    if ((box->data == NULL || n > box->size - box->end) && !grow(box, box->end + n))
        return NULL;
    return box->data + box->end;
}

void spb_outbox_add(struct spb_outbox *box, size_t n)
{
    SPB_ASSERT(n <= box->size - box->end);
    box->end += n;
}

void spb_outbox_sent(struct spb_outbox *box, size_t n)
{
    SPB_ASSERT(n <= spb_outbox_left(box));
    box->start += n;
    if (box->start < box->end)
        return;
    box->start = box->end = 0;
    if (box->size > SIZE_KEEP)
        spb_outbox_done(box);
}

void spb_outbox_done(struct spb_outbox *box)
{
    free(box->data);
    *box = (struct spb_outbox){.data = NULL};
}
