/*
 * The bytes of products: written to reserved extents, read back and verified. Only this file writes
 * bulk data; what makes it durable is the flush of the group that publishes it. Nothing here
 * touches the volume's published state, so that it may run beside the actor. Memory is constant,
 * whatever the product's size.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/crc32c.h"
#include "volume/state.h"

/* Bytes that are read or written at once; a multiple of every block size. */
#define PIECE ((size_t)256 * 1024)

_Static_assert(PIECE % SPB_BLOCK_SIZE_MAX == 0, "whole blocks");

struct spb_product_writer {
    struct spb_device *device;
    uint64_t start; /* device offset of the reservation */
    uint64_t room;  /* its bytes */
    uint32_t block_size;
    uint64_t announced; /* bytes to come in all */
    uint64_t taken;     /* bytes so far */
    uint64_t written;   /* bytes on the device so far: whole pieces */
    uint32_t crc;       /* of what was written */
    size_t held;        /* bytes in piece */
    bool ended;         /* finished, or a write failed */
    uint8_t piece[];
};

static uint64_t block_at(const struct spb_volume *volume, uint32_t block_offset)
{
    return ((uint64_t)volume->geo.dp_start + block_offset) * volume->geo.block_size;
}

/* ---- Writing -------------------------------------------------------------------------------- */

/*
 * Before space is written: what was given back written and unflushed is flushed first, since
 * between two flushes a sector is written at most once.
 */
static spb_status settle_stale(struct spb_volume *volume, struct spb_error *err)
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

spb_status spb_product_writer_new(struct spb_volume *volume, struct spb_reservation *reservation,
                                  uint64_t size_bytes, struct spb_product_writer **writer,
                                  struct spb_error *err)
{
    uint64_t room = (uint64_t)reservation->block_count * volume->geo.block_size;

    if (size_bytes > room)
        return spb_fail(
            err, SPB_INVALID, "cannot write %llu bytes to a reservation of %llu bytes in %s",
            (unsigned long long)size_bytes, (unsigned long long)room, volume->device->name);
    SPB_TRY(spb_volume_is_writable(volume, err));
    SPB_TRY(spb_reservation_check_life(reservation, err));
    if (reservation->written)
        atomic_fetch_add(&volume->stale_marks, 1);
    SPB_TRY(settle_stale(volume, err));
    struct spb_product_writer *made = malloc(sizeof(*made) + PIECE);
    if (made == NULL)
        return spb_fail_memory(err, "writing a product");
    *made = (struct spb_product_writer){
        .device = volume->device,
        .start = block_at(volume, reservation->block_offset),
        .room = room,
        .block_size = volume->geo.block_size,
        .announced = size_bytes,
    };
    reservation->written = true;
    *writer = made;
    return spb_ok();
}

/* Writes what is held; the CRC covers only the first `exact` bytes of it. */
static spb_status put_piece(struct spb_product_writer *writer, size_t exact, struct spb_error *err)
{
    spb_status status = spb_device_write(writer->device, writer->start + writer->written,
                                         writer->piece, writer->held, err);
    if (!spb_is_ok(status)) {
        /* Some of it may be written: writing it again would write sectors twice. */
        writer->ended = true;
        return status;
    }
    writer->crc = spb_crc32c(writer->crc, writer->piece, exact);
    writer->written += writer->held;
    writer->held = 0;
    return spb_ok();
}

static spb_status check_open(const struct spb_product_writer *writer, struct spb_error *err)
{
    if (!writer->ended)
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "a product being written to %s has ended: begin it anew",
                    writer->device->name);
}

spb_status spb_product_writer_write(struct spb_product_writer *writer, const void *data, size_t n,
                                    struct spb_error *err)
{
    const uint8_t *at = data;

    SPB_TRY(check_open(writer, err));
    if (n > writer->announced - writer->taken)
        return spb_fail(err, SPB_INVALID,
                        "cannot take %zu bytes at %llu of a product in %s: it was announced with "
                        "%llu bytes",
                        n, (unsigned long long)writer->taken, writer->device->name,
                        (unsigned long long)writer->announced);
    while (n > 0) {
        /* A full piece waits for its successor: the last block is written once, in finish. */
        if (writer->held == PIECE)
            SPB_TRY(put_piece(writer, PIECE, err));
        size_t part = PIECE - writer->held < n ? PIECE - writer->held : n;
        memcpy(writer->piece + writer->held, at, part);
        writer->held += part;
        writer->taken += part;
        at += part;
        n -= part;
    }
    return spb_ok();
}

uint64_t spb_product_writer_offset(const struct spb_product_writer *writer)
{
    return writer->taken;
}

static void pad_to_block(struct spb_product_writer *writer)
{
    size_t over = writer->held % writer->block_size;

    if (over == 0)
        return;
    memset(writer->piece + writer->held, 0, writer->block_size - over);
    writer->held += writer->block_size - over;
}

/* Does the reader's rule on the last block held give exactly `exact` bytes of what is held? */
static bool reads_back(const struct spb_product_writer *writer, size_t exact, uint32_t crc)
{
    size_t last = writer->held - writer->block_size, length = 0;
    uint32_t before = spb_crc32c(writer->crc, writer->piece, last);

    return spb_tail_length(before, writer->piece + last, writer->block_size, crc, &length) &&
           last + length == exact;
}

static spb_status fail_block_more(const struct spb_product_writer *writer, struct spb_error *err)
{
    return spb_fail(err, SPB_FULL,
                    "cannot store a product of %llu bytes in %s: its last bytes need one block "
                    "more, and its extent has %llu bytes",
                    (unsigned long long)writer->taken, writer->device->name,
                    (unsigned long long)writer->room);
}

/* Pads the last block so that the length can be found again. *crc gets the exact bytes' CRC. */
static spb_status pad_tail(struct spb_product_writer *writer, size_t exact, uint32_t *crc,
                           struct spb_error *err)
{
    *crc = spb_crc32c(writer->crc, writer->piece, exact);
    pad_to_block(writer);
    if (reads_back(writer, exact, *crc))
        return spb_ok();
    if (writer->held == exact) {
        if (writer->written + exact + writer->block_size > writer->room)
            return fail_block_more(writer, err);
        if (writer->held == PIECE) {
            /* The data's own last block goes out first; the mark then stands in a block alone. */
            SPB_TRY(put_piece(writer, PIECE, err));
            exact = 0;
        }
        memset(writer->piece + writer->held, 0, writer->block_size);
        writer->held += writer->block_size;
    }
    writer->piece[exact] = 0x80;
    if (reads_back(writer, exact, *crc))
        return spb_ok();
    return spb_fail(err, SPB_INVALID,
                    "cannot store a product in %s: no padding lets its length be found again",
                    writer->device->name);
}

spb_status spb_product_writer_finish(struct spb_product_writer *writer,
                                     struct spb_product_data *data, struct spb_error *err)
{
    uint32_t crc = 0;

    SPB_TRY(check_open(writer, err));
    if (writer->taken != writer->announced)
        return spb_fail(err, SPB_INVALID,
                        "cannot finish a product in %s: %llu bytes came, %llu were announced",
                        writer->device->name, (unsigned long long)writer->taken,
                        (unsigned long long)writer->announced);
    if (writer->taken > 0) {
        SPB_TRY(pad_tail(writer, writer->held, &crc, err));
        SPB_TRY(put_piece(writer, writer->held, err));
    }
    writer->ended = true;
    data->length = writer->taken;
    data->crc = crc;
    data->block_count = (uint32_t)(writer->written / writer->block_size);
    return spb_ok();
}

void spb_product_writer_free(struct spb_product_writer *writer)
{
    free(writer);
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
    return spb_device_read(volume->device, block_at(volume, product->block_offset) + offset, buffer,
                           n, err);
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

/* Bytes of the extent to the piece; of the medium whole sectors, so that more may be read. */
static spb_status scan_read(const struct scan *scan, uint64_t at, size_t n, struct spb_error *err)
{
    struct spb_device *device = scan->volume->device;

    if (scan->source == SPB_FROM_MEDIUM) {
        size_t whole = (n + SPB_SECTOR_SIZE - 1) / SPB_SECTOR_SIZE * SPB_SECTOR_SIZE;
        spb_status status =
            spb_device_read_medium(device, scan->start + at, scan->piece, whole, err);
        if (status.code != SPB_UNSUPPORTED)
            return status;
    }
    return spb_device_read(device, scan->start + at, scan->piece, n, err);
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
        .start = block_at(volume, block_offset),
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
    uint64_t from = block_at(volume, product->block_offset);
    uint64_t target = block_at(volume, to->block_offset);
    uint8_t *piece = malloc(PIECE);
    spb_status status = spb_ok();

    if (piece == NULL)
        return spb_fail_memory(err, "moving a product");
    status = settle_stale(to->volume, err);
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
