/* A product as the API shows it; shared by DataProducts and Uploads. No state. */
#ifndef SPB_SERVER_SHOW_PRODUCT_H
#define SPB_SERVER_SHOW_PRODUCT_H

#include "messages.h"
#include "spaceblock/volume.h"

#define SPB_IDENTITY_SIZE 15u

/* What a product's bytes are: CRC, length, class, and whether they are a corrupt one's blocks. */
void spb_product_identity(const struct spb_product *product, bool padded, uint64_t length,
                          uint8_t identity[SPB_IDENTITY_SIZE]);

/* product and identity (a place for it) are borrowed until the message is packed. */
void spb_product_show(const struct spb_product *product, uint8_t identity[SPB_IDENTITY_SIZE],
                      PB_Product *shown);

#endif
