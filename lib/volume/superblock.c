/* The superblock's record, and the sector size that follows from it. Pure functions of bytes. */
#include "base/bytes.h"
#include "base/checked.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "volume/records.h"

void spb_superblock_encode(const struct spb_superblock *super, uint8_t out[SPB_SUPERBLOCK_SIZE])
{
    struct spb_writer w = spb_writer_over(out, SPB_SUPERBLOCK_SIZE);

    spb_write_be32(&w, SPB_MAGIC);
    spb_write_u8(&w, super->format_version);
    spb_write_u8(&w, 0);
    spb_write_be16(&w, super->tenant_id);
    spb_write_be32(&w, super->total_blocks);
    spb_write_be32(&w, super->dp_start);
    spb_write_be32(&w, super->dp_size);
    spb_write_be64(&w, super->epoch);
    spb_write_bytes(&w, super->uuid, SPB_UUID_SIZE);
    spb_write_be32(&w, spb_crc32c(0, out, SPB_SUPERBLOCK_CRC_AT));
    SPB_ASSERT(!w.failed && w.pos == SPB_SUPERBLOCK_SIZE);
}

static spb_status check_dp_area(const struct spb_superblock *super, const char *name,
                                struct spb_error *err)
{
    if (super->dp_start < SPB_DP_FIRST_BLOCK)
        return spb_fail(err, SPB_BAD_DP_AREA,
                        "cannot open %s: its data product area starts at block %u, expected %u or "
                        "later",
                        name, super->dp_start, SPB_DP_FIRST_BLOCK);
    if (!spb_range_within(super->dp_start, super->dp_size, super->total_blocks))
        return spb_fail(err, SPB_BAD_DP_AREA,
                        "cannot open %s: its data product area of %u blocks from block %u does not "
                        "fit its %u blocks",
                        name, super->dp_size, super->dp_start, super->total_blocks);
    return spb_ok();
}

spb_status spb_superblock_decode(const uint8_t in[SPB_SUPERBLOCK_SIZE], const char *name,
                                 struct spb_superblock *super, struct spb_error *err)
{
    struct spb_reader r = spb_reader_over(in, SPB_SUPERBLOCK_SIZE);
    struct spb_superblock found;
    uint32_t magic = spb_read_be32(&r);

    found.format_version = spb_read_u8(&r);
    (void)spb_read_u8(&r);
    found.tenant_id = spb_read_be16(&r);
    found.total_blocks = spb_read_be32(&r);
    found.dp_start = spb_read_be32(&r);
    found.dp_size = spb_read_be32(&r);
    found.epoch = spb_read_be64(&r);
    spb_read_bytes(&r, found.uuid, SPB_UUID_SIZE);
    uint32_t stored = spb_read_be32(&r), computed = spb_crc32c(0, in, SPB_SUPERBLOCK_CRC_AT);

    if (magic != SPB_MAGIC)
        return spb_fail(err, SPB_BAD_MAGIC,
                        "cannot open %s: not a SpaceOS image: magic is 0x%08X, expected 0x%08X",
                        name, magic, SPB_MAGIC);
    if (stored != computed)
        return spb_fail(err, SPB_BAD_CRC,
                        "cannot open %s: the superblock's CRC is 0x%08X, its bytes give 0x%08X",
                        name, stored, computed);
    if (found.format_version != SPB_FORMAT_VERSION)
        return spb_fail(err, SPB_BAD_VERSION, "cannot open %s: format version is %u, expected %u",
                        name, found.format_version, SPB_FORMAT_VERSION);
    SPB_TRY(check_dp_area(&found, name, err));
    *super = found;
    return spb_ok();
}

bool spb_sector_size_is_valid(uint64_t sector_size)
{
    return sector_size >= SPB_BLOCK_SIZE_MIN && sector_size <= SPB_BLOCK_SIZE_MAX &&
           (sector_size & (sector_size - 1)) == 0;
}

spb_status spb_sector_size_of(const struct spb_superblock *super, uint64_t size_bytes,
                              uint32_t asked, const char *name, uint32_t *sector_size,
                              struct spb_error *err)
{
    uint64_t blocks = super->total_blocks;
    uint64_t quotient = size_bytes % blocks == 0 ? size_bytes / blocks : 0;
    bool tells = spb_sector_size_is_valid(quotient);

    if (asked != 0 && !spb_sector_size_is_valid(asked))
        return spb_fail(err, SPB_INVALID,
                        "cannot open %s: sector size %u is not a power of two from %u to %u", name,
                        asked, SPB_BLOCK_SIZE_MIN, SPB_BLOCK_SIZE_MAX);
    if (asked == 0 && !tells)
        return spb_fail(
            err, SPB_BAD_SIZE,
            "cannot open %s: its %llu bytes and %u blocks give no sector size (expected "
            "a power of two from %u to %u): it is cut short, or the sector size must "
            "be given",
            name, (unsigned long long)size_bytes, super->total_blocks, SPB_BLOCK_SIZE_MIN,
            SPB_BLOCK_SIZE_MAX);
    if (asked != 0 && tells && quotient != asked)
        return spb_fail(
            err, SPB_BAD_SIZE,
            "cannot open %s: sector size %u was given, but its %llu bytes and %u blocks "
            "are of sector size %llu",
            name, asked, (unsigned long long)size_bytes, super->total_blocks,
            (unsigned long long)quotient);
    uint64_t chosen = asked != 0 ? asked : quotient;
    if (blocks * chosen > size_bytes)
        return spb_fail(err, SPB_BAD_SIZE,
                        "cannot open %s: %u blocks of %llu bytes need %llu bytes, found %llu", name,
                        super->total_blocks, (unsigned long long)chosen,
                        (unsigned long long)(blocks * chosen), (unsigned long long)size_bytes);
    *sector_size = (uint32_t)chosen;
    return spb_ok();
}
