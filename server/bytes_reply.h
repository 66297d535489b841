/*
 * Answers that are mostly bytes of a file or a product: field 1 has the bytes, field 2 their
 * CRC-32C, as ReadProductResponse and ReadBackupResponse do. The bytes are read to where they leave
 * from, so that nothing is copied and no more memory is taken than the frame's. The call's thread.
 */
#ifndef SPB_SERVER_BYTES_REPLY_H
#define SPB_SERVER_BYTES_REPLY_H

#include "call.h"

/* Where n bytes go; NULL: the error is set. */
uint8_t *spb_bytes_reply_begin(struct spb_call *call, size_t n);
/* They are there, where begin said: the answer is set. */
void spb_bytes_reply_end(struct spb_call *call, uint8_t *bytes, size_t n);

#endif
