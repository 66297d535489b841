/* See bytes_reply.h. What stands before the bytes has a length that depends on their CRC: it is
 * written backwards from them, into room that is enough for the longest. */
#include "bytes_reply.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "ttrpc/ttrpc.h"
#include "ttrpc/wire.h"

#define FIELD_HEAD_MAX 6u /* number and length, which is less than 2^32 */
#define BEFORE_MAX 32u    /* a frame's header and two fields' heads; keeps the bytes aligned */
#define AFTER_MAX 6u      /* the CRC's field */

_Static_assert(SPB_TTRPC_HEADER_SIZE + 2 * FIELD_HEAD_MAX <= BEFORE_MAX, "all heads fit");

uint8_t *spb_bytes_reply_begin(struct spb_call *call, size_t n)
{
    if (n > SPB_TTRPC_DATA_MAX - BEFORE_MAX - AFTER_MAX) {
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "the answer has %zu bytes, at most %u are sent: ask for less", n,
                           SPB_TTRPC_DATA_MAX);
        return NULL;
    }
    uint8_t *room = spb_call_alloc(call, BEFORE_MAX + n + AFTER_MAX);
    return room == NULL ? NULL : room + BEFORE_MAX;
}

static size_t head_size(uint32_t number, size_t n)
{
    return spb_wire_bytes_field_size(number, n) - n;
}

/* A field's number and length right before `at`; none of an empty field. */
static uint8_t *put_head(uint8_t *at, uint32_t number, size_t n)
{
    size_t size = head_size(number, n);
    struct spb_writer w = spb_writer_over(at - size, size);

    if (n > 0)
        spb_wire_write_bytes_head(&w, number, n);
    SPB_ASSERT(!w.failed && w.pos == size);
    return at - size;
}

static size_t put_crc(uint8_t *at, const uint8_t *bytes, size_t n)
{
    uint32_t crc = spb_crc32c(0, bytes, n);
    size_t size = spb_wire_varint_field_size(2, crc);
    struct spb_writer w = spb_writer_over(at, size);

    spb_wire_write_varint_field(&w, 2, crc);
    SPB_ASSERT(!w.failed && w.pos == size);
    return size;
}

void spb_bytes_reply_end(struct spb_call *call, uint8_t *bytes, size_t n)
{
    uint8_t *end = bytes + n + put_crc(bytes + n, bytes, n);
    uint8_t *payload = put_head(bytes, 1, n);
    uint8_t *data = put_head(payload, 2, (size_t)(end - payload));
    struct spb_ttrpc_header header = {
        .length = (uint32_t)(end - data),
        .stream = call->origin.stream,
        .type = SPB_TTRPC_TYPE_RESPONSE,
    };

    call->frame = data - SPB_TTRPC_HEADER_SIZE;
    call->frame_size = (size_t)(end - call->frame);
    spb_ttrpc_header_encode(&header, call->frame);
    call->code = 0;
    call->payload = payload;
    call->payload_size = (size_t)(end - payload);
}
