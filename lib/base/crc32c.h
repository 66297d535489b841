/*
 * CRC-32C (Castagnoli), as format.md and iSCSI have it: reflected, polynomial 0x1EDC6F41, initial
 * value and final xor 0xFFFFFFFF; of "123456789" it is 0xE3069283. Computed by ISA-L.
 */
#ifndef SPB_BASE_CRC32C_H
#define SPB_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

/* CRC of what crc covers followed by n bytes of data; crc is 0 for nothing yet. */
uint32_t spb_crc32c(uint32_t crc, const void *data, size_t n);

#endif
