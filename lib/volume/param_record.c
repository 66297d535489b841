/* The parameter entry's record. Pure functions of bytes. */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "volume/records.h"

void spb_param_record_decode(const uint8_t in[SPB_PARAM_SIZE], size_t first_part,
                             struct spb_param *param)
{
    struct spb_reader r = spb_reader_over(in, SPB_PARAM_SIZE);

    memset(param, 0, sizeof(*param));
    param->id = spb_read_be32(&r);
    param->len = spb_read_be16(&r);
    param->generation = spb_read_be16(&r);
    const uint8_t *value = spb_read_view(&r, SPB_PARAM_VALUE_MAX);
    uint32_t stored = spb_read_be32(&r);

    if (param->len <= SPB_PARAM_VALUE_MAX && stored == spb_crc32c(0, in, SPB_PARAM_CRC_AT)) {
        param->state = SPB_PARAM_VALID;
        memcpy(param->value, value, param->len);
        return;
    }
    param->len = 0;
    param->state = SPB_PARAM_CORRUPT;
    /* All zeros, or an erase that was cut off after the part in the first sector: names nothing. */
    if (spb_bytes_are_zero(in, first_part)) {
        param->state = SPB_PARAM_FREE;
        param->id = 0;
        param->generation = 0;
    }
}

void spb_param_record_encode(uint32_t id, uint16_t generation, const void *value, size_t len,
                             uint8_t out[SPB_PARAM_SIZE])
{
    struct spb_writer w = spb_writer_over(out, SPB_PARAM_SIZE);

    SPB_ASSERT(len <= SPB_PARAM_VALUE_MAX);
    spb_write_be32(&w, id);
    spb_write_be16(&w, (uint16_t)len);
    spb_write_be16(&w, generation);
    spb_write_bytes(&w, value, len);
    spb_write_zeros(&w, SPB_PARAM_VALUE_MAX - len);
    spb_write_be32(&w, spb_crc32c(0, out, SPB_PARAM_CRC_AT));
    SPB_ASSERT(!w.failed);
}
