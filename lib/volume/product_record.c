/* The catalog entry's record, and the rule that finds a product's exact length. Pure functions. */
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "volume/records.h"

static bool is_well_formed(const struct spb_product *product, uint32_t dp_size)
{
    if (product->name_len < 1 || product->name_len > SPB_PRODUCT_NAME_MAX)
        return false;
    if (memchr(product->name, 0, product->name_len) != NULL ||
        !spb_bytes_are_utf8(product->name, product->name_len))
        return false;
    /* Of no data the offset means nothing; block 0 is the catalog. */
    return product->block_count == 0 ||
           (product->block_offset >= 1 &&
            spb_range_within(product->block_offset, product->block_count, dp_size));
}

void spb_entry_decode(const uint8_t in[SPB_ENTRY_SIZE], uint32_t dp_size,
                      struct spb_product *product)
{
    struct spb_reader r = spb_reader_over(in, SPB_ENTRY_SIZE);

    memset(product, 0, sizeof(*product));
    if (spb_bytes_are_zero(in, SPB_ENTRY_FREE_SIZE)) {
        product->state = SPB_PRODUCT_FREE;
        return;
    }
    product->block_offset = spb_read_be32(&r);
    product->block_count = spb_read_be32(&r);
    product->product_class = spb_read_be16(&r);
    product->priority = spb_read_u8(&r);
    product->name_len = spb_read_u8(&r);
    const uint8_t *name = spb_read_view(&r, SPB_PRODUCT_NAME_MAX);
    size_t shown =
        product->name_len < SPB_PRODUCT_NAME_MAX ? product->name_len : SPB_PRODUCT_NAME_MAX;
    memcpy(product->name, name, shown);
    product->crc = spb_read_be32(&r);
    product->state = is_well_formed(product, dp_size) ? SPB_PRODUCT_PRESENT : SPB_PRODUCT_INVALID;
}

void spb_entry_encode(const struct spb_product *product, uint8_t out[SPB_ENTRY_SIZE])
{
    struct spb_writer w = spb_writer_over(out, SPB_ENTRY_SIZE);

    SPB_ASSERT(product->name_len >= 1 && product->name_len <= SPB_PRODUCT_NAME_MAX);
    spb_write_be32(&w, product->block_offset);
    spb_write_be32(&w, product->block_count);
    spb_write_be16(&w, product->product_class);
    spb_write_u8(&w, product->priority);
    spb_write_u8(&w, product->name_len);
    spb_write_bytes(&w, product->name, product->name_len);
    spb_write_zeros(&w, SPB_PRODUCT_NAME_MAX - (size_t)product->name_len);
    spb_write_be32(&w, product->crc);
    SPB_ASSERT(!w.failed);
}

size_t spb_bytes_used(const uint8_t *bytes, size_t n)
{
    while (n > 0 && bytes[n - 1] == 0)
        n--;
    return n;
}

bool spb_tail_length(uint32_t crc, const uint8_t *block, size_t n, uint32_t want, size_t *length)
{
    size_t used = spb_bytes_used(block, n);
    size_t at = used > 0 ? used : 1; /* a last block holds one byte of the data at least */
    uint32_t state = spb_crc32c(crc, block, at);

    for (; at <= n; at++) {
        if (state == want) {
            *length = at;
            return true;
        }
        if (at < n)
            state = spb_crc32c(state, block + at, 1);
    }
    if (used > 0 && block[used - 1] == 0x80 && spb_crc32c(crc, block, used - 1) == want) {
        *length = used - 1;
        return true;
    }
    return false;
}
