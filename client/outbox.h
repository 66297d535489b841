/*
 * Bytes to be sent: a buffer that grows at its end and is used up from its start. It grows with the
 * calls that its owner starts, never by what a peer sends. One connection, one thread.
 */
#ifndef SPB_CLIENT_OUTBOX_H
#define SPB_CLIENT_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

struct spb_outbox {
    uint8_t *data; /* owned */
    size_t size;
    size_t start, end; /* [start, end) is to be sent */
};

/* Room for n bytes behind the end, to be filled and then added; NULL: no memory. */
uint8_t *spb_outbox_room(struct spb_outbox *box, size_t n);
void spb_outbox_add(struct spb_outbox *box, size_t n);
void spb_outbox_sent(struct spb_outbox *box, size_t n);
void spb_outbox_done(struct spb_outbox *box);

static inline size_t spb_outbox_left(const struct spb_outbox *box)
{
    return box->end - box->start;
}

#endif
