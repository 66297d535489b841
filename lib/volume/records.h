/*
 * The records of format.md: sizes, offsets, and their coding through the bounded reader and writer.
 * Pure functions of bytes; no volume, no I/O. Integers are big-endian.
 */
#ifndef SPB_VOLUME_RECORDS_H
#define SPB_VOLUME_RECORDS_H

#include <stdint.h>

#include "spaceblock/volume.h"

/* ---- Superblock ---- */
#define SPB_MAGIC 0x53504F53u
#define SPB_FORMAT_VERSION 1u
#define SPB_SUPERBLOCK_SIZE 48u
#define SPB_SUPERBLOCK_CRC_AT 44u

/* ---- Areas, in blocks ---- */
#define SPB_PARAM_FIRST_BLOCK 1u
#define SPB_PARAM_BLOCKS 16u
#define SPB_EVENT_HEADER_BLOCK 17u
#define SPB_EVENT_FIRST_BLOCK 18u
#define SPB_EVENT_BLOCKS 15u
#define SPB_DP_FIRST_BLOCK 33u

/* ---- Record sizes ---- */
#define SPB_PARAM_SIZE 252u
#define SPB_PARAM_VALUE_AT 8u
#define SPB_PARAM_CRC_AT 248u
#define SPB_EVENT_SIZE 76u
#define SPB_EVENT_PAYLOAD_AT 8u
#define SPB_EVENT_CRC_AT 72u
#define SPB_POINTER_SIZE 4u
#define SPB_ENTRY_SIZE 80u
#define SPB_ENTRY_NAME_AT 12u
#define SPB_ENTRY_CRC_AT 76u
/* An entry whose first bytes, so many, are zero is free. */
#define SPB_ENTRY_FREE_SIZE 12u
#define SPB_GENERATION_MAX 65535u

_Static_assert(SPB_PARAM_VALUE_AT + SPB_PARAM_VALUE_MAX == SPB_PARAM_CRC_AT, "parameter entry");
_Static_assert(SPB_PARAM_CRC_AT + 4 == SPB_PARAM_SIZE, "parameter entry");
_Static_assert(SPB_EVENT_PAYLOAD_AT + SPB_EVENT_PAYLOAD_MAX == SPB_EVENT_CRC_AT, "event record");
_Static_assert(SPB_EVENT_CRC_AT + 4 == SPB_EVENT_SIZE, "event record");
_Static_assert(SPB_ENTRY_NAME_AT + SPB_PRODUCT_NAME_MAX == SPB_ENTRY_CRC_AT, "catalog entry");
_Static_assert(SPB_ENTRY_CRC_AT + 4 == SPB_ENTRY_SIZE, "catalog entry");
_Static_assert(SPB_SUPERBLOCK_CRC_AT + 4 == SPB_SUPERBLOCK_SIZE, "superblock");
_Static_assert(SPB_PARAM_FIRST_BLOCK + SPB_PARAM_BLOCKS == SPB_EVENT_HEADER_BLOCK, "areas");
_Static_assert(SPB_EVENT_FIRST_BLOCK + SPB_EVENT_BLOCKS == SPB_DP_FIRST_BLOCK, "areas");

/* Encodes with CRC; format_version is written as it is. */
void spb_superblock_encode(const struct spb_superblock *super, uint8_t out[SPB_SUPERBLOCK_SIZE]);
/*
 * Checks magic, CRC, version and the data product area, in this order, each with its own code;
 * name is for the text.
 */
SPB_MUST_USE spb_status spb_superblock_decode(const uint8_t in[SPB_SUPERBLOCK_SIZE],
                                              const char *name, struct spb_superblock *super,
                                              struct spb_error *err);
/*
 * S of an image on a device of size_bytes: asked (0: not given) or the exact quotient. SPB_BAD_SIZE
 * where neither gives a sector size, they contradict each other, or the device is too small.
 */
SPB_MUST_USE spb_status spb_sector_size_of(const struct spb_superblock *super, uint64_t size_bytes,
                                           uint32_t asked, const char *name, uint32_t *sector_size,
                                           struct spb_error *err);
bool spb_sector_size_is_valid(uint64_t sector_size);

/* Decodes one slot; first_part is how many of its bytes lie in its first sector (252: all). Fills
 * everything but slot and newest. */
void spb_param_record_decode(const uint8_t in[SPB_PARAM_SIZE], size_t first_part,
                             struct spb_param *param);
void spb_param_record_encode(uint32_t id, uint16_t generation, const void *value, size_t len,
                             uint8_t out[SPB_PARAM_SIZE]);

/* index is set by the caller; a wrong record sets corrupt. */
void spb_event_record_decode(const uint8_t in[SPB_EVENT_SIZE], struct spb_event *event);
void spb_event_record_encode(const struct spb_event *event, uint8_t out[SPB_EVENT_SIZE]);

/* dp_size bounds the extent. Sets state to FREE, PRESENT or INVALID, and length 0. */
void spb_entry_decode(const uint8_t in[SPB_ENTRY_SIZE], uint32_t dp_size,
                      struct spb_product *product);
void spb_entry_encode(const struct spb_product *product, uint8_t out[SPB_ENTRY_SIZE]);

/*
 * The reader's rule on the last block of a product: crc covers what is before it, block holds its n
 * bytes, want is the catalog's CRC. Finds how many of its bytes belong to the data.
 */
bool spb_tail_length(uint32_t crc, const uint8_t *block, size_t n, uint32_t want, size_t *length);
/* Length of the bytes up to the last one that is not zero. */
size_t spb_bytes_used(const uint8_t *bytes, size_t n);

#endif
