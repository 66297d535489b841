/*
 * The bytes of products: read, verified and copied. Nothing here touches the volume's published
 * state, so that it may run beside the actor. Memory is constant, whatever the product's size.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/crc32c.h"
#include "volume/state.h"

#define PIECE SPB_PIECE_SIZE

spb_status spb_settle_stale(struct spb_volume *volume, struct spb_error *err)
{
    struct spb_error own;
    uint64_t marks = atomic_load(&volume->stale_marks);
    uint64_t settled = atomic_load(&volume->stale_settled);

    if (settled >= marks)
        return spb_ok();
    if (err == NULL)
        err = &own;
    spb_status status = spb_carry_round(volume->device, NULL, 0, err);
    if (!spb_is_ok(status)) {
        spb_poison(volume, err);
        return status;
    }
    while (settled < marks &&
           !atomic_compare_exchange_weak(&volume->stale_settled, &settled, marks))
        ;
    return status;
}

/* ---- Reading -------------------------------------------------------------------------------- */

spb_status spb_product_read(const struct spb_volume *volume, const struct spb_product *product,
                            uint64_t offset, void *buffer, size_t n, struct spb_error *err)
{
    uint64_t size = (uint64_t)product->block_count * volume->geo.block_size;

    if (product->state == SPB_PRODUCT_FREE || product->state == SPB_PRODUCT_INVALID)
        return spb_fail(err, SPB_CORRUPT, "cannot read catalog entry %u of %s: it is no product",
                        product->entry, volume->device->name);
    if (!spb_range_within(offset, n, size))
        return spb_fail(err, SPB_INVALID,
                        "cannot read %zu bytes at %llu of product %s in %s: its blocks hold %llu",
                        n, (unsigned long long)offset, product->name, volume->device->name,
                        (unsigned long long)size);
    if (n == 0)
        return spb_ok(); /* of no data, the offset means nothing and may lie anywhere */
    return spb_device_read(volume->device, spb_block_at(volume, product->block_offset) + offset,
                           buffer, n, err);
}

spb_status spb_bulk_read(struct spb_device *device, uint64_t at, uint8_t *buffer, size_t n,
                         enum spb_source source, struct spb_error *err)
{
    if (source == SPB_FROM_MEDIUM) {
        size_t whole = (n + SPB_SECTOR_SIZE - 1) / SPB_SECTOR_SIZE * SPB_SECTOR_SIZE;
        spb_status status = spb_device_read_medium(device, at, buffer, whole, err);
        if (status.code != SPB_UNSUPPORTED)
            return status;
    }
    return spb_device_read(device, at, buffer, n, err);
}

/* One pass over an extent. */
struct scan {
    const struct spb_volume *volume;
    uint64_t start, size; /* bytes on the device */
    enum spb_source source;
    spb_progress progress;
    void *user;
    uint8_t *piece;
};

static spb_status scan_read(const struct scan *scan, uint64_t at, size_t n, struct spb_error *err)
{
    return spb_bulk_read(scan->volume->device, scan->start + at, scan->piece, n, scan->source, err);
}

/* CRC of the first n bytes; with used, also the offset after the last byte that is not zero. */
static spb_status scan_crc(const struct scan *scan, uint64_t n, uint32_t *crc, uint64_t *used,
                           struct spb_error *err)
{
    struct spb_device *device = scan->volume->device;

    for (uint64_t at = 0; at < n;) {
        size_t part = n - at < PIECE ? (size_t)(n - at) : PIECE;
        if (scan->progress != NULL && !scan->progress(scan->user, at, scan->size))
            return spb_fail(err, SPB_DEADLINE, "reading a product of %s was ended", device->name);
        SPB_TRY(scan_read(scan, at, part, err));
        *crc = spb_crc32c(*crc, scan->piece, part);
        if (used != NULL) {
            size_t in_piece = spb_bytes_used(scan->piece, part);
            if (in_piece > 0)
                *used = at + in_piece;
        }
        at += part;
    }
    return spb_ok();
}

/* The rule's second half where the last block is all zeros: a mark in an earlier block. */
static spb_status earlier_mark(const struct scan *scan, uint64_t before_last, uint32_t want,
                               uint64_t *length, bool *found, struct spb_error *err)
{
    uint32_t crc = 0;
    uint64_t used = 0;

    *found = false;
    SPB_TRY(scan_crc(scan, before_last, &crc, &used, err));
    if (used == 0)
        return spb_ok();
    uint64_t sector = (used - 1) / SPB_SECTOR_SIZE * SPB_SECTOR_SIZE;
    SPB_TRY(scan_read(scan, sector, SPB_SECTOR_SIZE, err));
    if (scan->piece[used - 1 - sector] != 0x80)
        return spb_ok();
    crc = 0;
    SPB_TRY(scan_crc(scan, used - 1, &crc, NULL, err));
    *found = crc == want;
    *length = used - 1;
    return spb_ok();
}

static spb_status find_length(const struct scan *scan, uint32_t want, uint64_t *length, bool *found,
                              struct spb_error *err)
{
    uint32_t block_size = scan->volume->geo.block_size, crc = 0;
    uint64_t before_last = scan->size - block_size;
    size_t in_last = 0;

    SPB_TRY(scan_crc(scan, before_last, &crc, NULL, err));
    SPB_TRY(scan_read(scan, before_last, block_size, err));
    bool empty = spb_bytes_used(scan->piece, block_size) == 0;
    *found = spb_tail_length(crc, scan->piece, block_size, want, &in_last);
    *length = before_last + in_last;
    if (!*found && empty)
        return earlier_mark(scan, before_last, want, length, found, err);
    return spb_ok();
}

static spb_status fail_rotten(const struct spb_volume *volume, const struct spb_product *product,
                              struct spb_error *err)
{
    return spb_fail(err, SPB_CORRUPT,
                    "product %s of %s is corrupt: no length of its %u blocks gives its CRC 0x%08X",
                    product->name, volume->device->name, product->block_count, product->crc);
}

spb_status spb_extent_verify(const struct spb_volume *volume, const struct spb_product *product,
                             uint32_t block_offset, enum spb_source source, spb_progress progress,
                             void *user, uint64_t *length, struct spb_error *err)
{
    struct scan scan = {
        .volume = volume,
        .start = spb_block_at(volume, block_offset),
        .size = (uint64_t)product->block_count * volume->geo.block_size,
        .source = source,
        .progress = progress,
        .user = user,
    };
    uint64_t found_length = 0;
    bool found = product->crc == 0;

    if (product->block_count > 0) {
        scan.piece = malloc(PIECE);
        if (scan.piece == NULL)
            return spb_fail_memory(err, "verifying a product");
        spb_status status = find_length(&scan, product->crc, &found_length, &found, err);
        free(scan.piece);
        SPB_TRY(status);
    }
    if (!found)
        return fail_rotten(volume, product, err);
    *length = found_length;
    return spb_ok();
}

spb_status spb_product_verify(const struct spb_volume *volume, const struct spb_product *product,
                              spb_progress progress, void *user, uint64_t *length,
                              struct spb_error *err)
{
    if (product->state == SPB_PRODUCT_FREE || product->state == SPB_PRODUCT_INVALID)
        return spb_fail(err, SPB_CORRUPT,
                        "catalog entry %u of %s is corrupt: its name or its extent breaks the "
                        "format's rules",
                        product->entry, volume->device->name);
    return spb_extent_verify(volume, product, product->block_offset, SPB_FROM_CACHE, progress, user,
                             length, err);
}

spb_status spb_product_verify_again(const struct spb_volume *volume,
                                    const struct spb_product *product, spb_progress progress,
                                    void *user, uint64_t *length, struct spb_error *err)
{
    spb_status status = spb_product_verify(volume, product, progress, user, length, err);

    if (status.code == SPB_IO)
        status = spb_product_verify(volume, product, progress, user, length, err);
    return status;
}

spb_status spb_product_data_verify(const struct spb_volume *volume,
                                   const struct spb_reservation *reservation,
                                   const struct spb_product_data *data, struct spb_error *err)
{
    struct spb_product product = {
        .state = SPB_PRODUCT_PRESENT,
        .name = "being written",
        .block_count = data->block_count,
        .crc = data->crc,
    };
    uint64_t length = 0;

    SPB_TRY(spb_volume_is_writable(volume, err));
    SPB_TRY(spb_reservation_check_life(reservation, err));
    SPB_TRY(spb_carry_round(volume->device, NULL, 0, err));
    SPB_TRY(spb_extent_verify(volume, &product, reservation->block_offset, SPB_FROM_CACHE, NULL,
                              NULL, &length, err));
    if (length != data->length)
        return spb_fail(err, SPB_CORRUPT,
                        "a product being written to %s reads back with %llu bytes, %llu were "
                        "written",
                        volume->device->name, (unsigned long long)length,
                        (unsigned long long)data->length);
    return spb_ok();
}

spb_status spb_extent_copy(const struct spb_volume *volume, const struct spb_product *product,
                           struct spb_reservation *to, struct spb_error *err)
{
    uint64_t size = (uint64_t)product->block_count * volume->geo.block_size;
    uint64_t from = spb_block_at(volume, product->block_offset);
    uint64_t target = spb_block_at(volume, to->block_offset);
    uint8_t *piece = malloc(PIECE);
    spb_status status = spb_ok();

    if (piece == NULL)
        return spb_fail_memory(err, "moving a product");
    status = spb_settle_stale(to->volume, err);
    to->written = true;
    for (uint64_t at = 0; spb_is_ok(status) && at < size;) {
        size_t part = size - at < PIECE ? (size_t)(size - at) : PIECE;
        status = spb_device_read(volume->device, from + at, piece, part, err);
        if (spb_is_ok(status))
            status = spb_device_write(volume->device, target + at, piece, part, err);
        at += part;
    }
    free(piece);
    return status;
}
