/* A product as the API shows it; see show_product.h. */
#include "services/show_product.h"

#include "base/bytes.h"

void spb_product_identity(const struct spb_product *product, bool padded, uint64_t length,
                          uint8_t identity[SPB_IDENTITY_SIZE])
{
    struct spb_writer w = spb_writer_over(identity, SPB_IDENTITY_SIZE);

    spb_write_be32(&w, product->crc);
    spb_write_be64(&w, length);
    spb_write_be16(&w, product->product_class);
    spb_write_u8(&w, padded);
}

static Spaceblock__V1__ProductState shown_state(enum spb_product_state state)
{
    switch (state) {
    case SPB_PRODUCT_PRESENT:
        return SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_PRESENT;
    case SPB_PRODUCT_GOOD:
        return SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_GOOD;
    case SPB_PRODUCT_ROTTEN:
        return SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_ROTTEN;
    case SPB_PRODUCT_INVALID:
        return SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_INVALID;
    case SPB_PRODUCT_FREE:
        break;
    }
    return SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_UNSPECIFIED;
}

void spb_product_show(const struct spb_product *product, uint8_t identity[SPB_IDENTITY_SIZE],
                      PB_Product *shown)
{
    size_t name_len = product->name_len;

    if (name_len > SPB_PRODUCT_NAME_MAX)
        name_len = SPB_PRODUCT_NAME_MAX;
    *shown = (PB_Product)SPACEBLOCK__V1__PRODUCT__INIT;
    shown->name = spb_pb_bytes(product->name, name_len);
    shown->product_class = product->product_class;
    shown->priority = product->priority;
    shown->crc32c = product->crc;
    shown->block_offset = product->block_offset;
    shown->block_count = product->block_count;
    shown->state = shown_state(product->state);
    shown->entry = product->entry;
    if (product->state != SPB_PRODUCT_GOOD)
        return;
    shown->length_known = true;
    shown->length = product->length;
    spb_product_identity(product, false, product->length, identity);
    shown->identity = spb_pb_bytes(identity, SPB_IDENTITY_SIZE);
}
