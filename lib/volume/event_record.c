/* The event's record. Pure functions of bytes. */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "volume/records.h"

void spb_event_record_decode(const uint8_t in[SPB_EVENT_SIZE], struct spb_event *event)
{
    struct spb_reader r = spb_reader_over(in, SPB_EVENT_SIZE);

    memset(event, 0, sizeof(*event));
    uint32_t timestamp = spb_read_be32(&r);
    uint8_t severity = spb_read_u8(&r), payload_len = spb_read_u8(&r);
    uint16_t code = spb_read_be16(&r);
    const uint8_t *payload = spb_read_view(&r, SPB_EVENT_PAYLOAD_MAX);
    uint32_t stored = spb_read_be32(&r);

    if (payload_len > SPB_EVENT_PAYLOAD_MAX || stored != spb_crc32c(0, in, SPB_EVENT_CRC_AT)) {
        event->corrupt = true;
        return;
    }
    event->timestamp = timestamp;
    event->severity = severity;
    event->payload_len = payload_len;
    event->code = code;
    memcpy(event->payload, payload, payload_len);
}

void spb_event_record_encode(const struct spb_event *event, uint8_t out[SPB_EVENT_SIZE])
{
    struct spb_writer w = spb_writer_over(out, SPB_EVENT_SIZE);

    SPB_ASSERT(event->payload_len <= SPB_EVENT_PAYLOAD_MAX);
    spb_write_be32(&w, event->timestamp);
    spb_write_u8(&w, event->severity);
    spb_write_u8(&w, event->payload_len);
    spb_write_be16(&w, event->code);
    spb_write_bytes(&w, event->payload, event->payload_len);
    spb_write_zeros(&w, SPB_EVENT_PAYLOAD_MAX - event->payload_len);
    spb_write_be32(&w, spb_crc32c(0, out, SPB_EVENT_CRC_AT));
    SPB_ASSERT(!w.failed);
}
