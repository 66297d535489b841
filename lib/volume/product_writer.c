/*
 * Writing of products: their bytes go to reserved extents in order, in whole blocks, each sector at
 * most once between two flushes. Only this file writes what callers bring; what makes it durable is
 * the flush of the group that publishes it, or a sync on the way, from which a later writer may
 * resume. Nothing here touches the volume's published state, so that it may run beside the actor.
 * Memory is constant, whatever the product's size.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/crc32c.h"
#include "volume/state.h"

#define PIECE SPB_PIECE_SIZE
#define PUSH_BYTES ((uint64_t)2 << 20)

struct spb_product_writer {
    struct spb_volume *volume;
    const struct spb_reservation *reservation; /* borrowed */
    struct spb_device *device;
    uint64_t start; /* device offset of the reservation */
    uint64_t room;  /* its bytes */
    uint32_t block_size;
    uint64_t announced; /* bytes to come in all */
    uint64_t taken;     /* bytes so far */
    uint64_t written;   /* bytes on the device so far: whole blocks */
    uint64_t pushed;    /* of them, since the device was last told to begin with them */
    uint32_t crc;       /* of what was written */
    uint64_t durable;   /* bytes from the start that a sync, or another writer's, made so */
    uint32_t durable_crc;
    size_t held; /* bytes in piece, not written */
    bool ended;  /* finished, or a write failed */
    uint8_t piece[];
};

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
    SPB_TRY(spb_settle_stale(volume, err));
    struct spb_product_writer *made = malloc(sizeof(*made) + PIECE);
    if (made == NULL)
        return spb_fail_memory(err, "writing a product");
    *made = (struct spb_product_writer){
        .volume = volume,
        .reservation = reservation,
        .device = volume->device,
        .start = spb_block_at(volume, reservation->block_offset),
        .room = room,
        .block_size = volume->geo.block_size,
        .announced = size_bytes,
    };
    reservation->written = true;
    *writer = made;
    return spb_ok();
}

/* The medium begins with what was written while more comes: a sync then waits for the last of it
 * only. */
static void push(struct spb_product_writer *writer, size_t n)
{
    writer->pushed += n;
    if (writer->pushed < PUSH_BYTES)
        return;
    spb_device_push(writer->device, writer->start + writer->written - writer->pushed,
                    writer->pushed);
    writer->pushed = 0;
}

/* Writes n bytes, whole blocks; the CRC covers only the first `exact` of them. */
static spb_status put(struct spb_product_writer *writer, const uint8_t *data, size_t n,
                      size_t exact, struct spb_error *err)
{
    spb_status status =
        spb_device_write(writer->device, writer->start + writer->written, data, n, err);
    if (!spb_is_ok(status)) {
        /* Some of it may be written: writing it again would write sectors twice. */
        writer->ended = true;
        return status;
    }
    writer->crc = spb_crc32c(writer->crc, data, exact);
    writer->written += n;
    push(writer, n);
    return spb_ok();
}

/* The same with the first n bytes of what is held. */
static spb_status put_bytes(struct spb_product_writer *writer, size_t n, size_t exact,
                            struct spb_error *err)
{
    SPB_TRY(put(writer, writer->piece, n, exact, err));
    writer->held -= n;
    memmove(writer->piece, writer->piece + n, writer->held);
    return spb_ok();
}

static spb_status put_piece(struct spb_product_writer *writer, size_t exact, struct spb_error *err)
{
    return put_bytes(writer, writer->held, exact, err);
}

static spb_status check_open(const struct spb_product_writer *writer, struct spb_error *err)
{
    if (!writer->ended)
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "a product being written to %s has ended: begin it anew",
                    writer->device->name);
}

/* Bytes that are missing for what is held to be whole blocks. */
static size_t to_whole_blocks(const struct spb_product_writer *writer)
{
    size_t over = writer->held % writer->block_size;

    return over == 0 ? 0 : writer->block_size - over;
}

static void hold(struct spb_product_writer *writer, const uint8_t *data, size_t n)
{
    memcpy(writer->piece + writer->held, data, n);
    writer->held += n;
}

/* Few bytes gather to a piece; of many, all but the last block go to the device as they are. */
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
    writer->taken += n;
    /* The last block waits for its successor: it is written once, at the latest in finish. */
    if (writer->held + n > PIECE) {
        size_t part = to_whole_blocks(writer);
        hold(writer, at, part);
        if (writer->held > 0)
            SPB_TRY(put_piece(writer, writer->held, err));
        size_t direct = (n - part - 1) / writer->block_size * writer->block_size;
        if (direct > 0)
            SPB_TRY(put(writer, at + part, direct, direct, err));
        at += part + direct;
        n -= part + direct;
    }
    hold(writer, at, n);
    return spb_ok();
}

uint64_t spb_product_writer_offset(const struct spb_product_writer *writer)
{
    return writer->taken;
}

spb_status spb_product_writer_read(const struct spb_product_writer *writer, uint64_t offset,
                                   void *buffer, size_t n, struct spb_error *err)
{
    size_t from_device = 0;

    if (!spb_range_within(offset, n, writer->taken))
        return spb_fail(err, SPB_INVALID,
                        "cannot read %zu bytes at %llu of a product being written to %s: %llu came",
                        n, (unsigned long long)offset, writer->device->name,
                        (unsigned long long)writer->taken);
    if (offset < writer->written)
        from_device = writer->written - offset < n ? (size_t)(writer->written - offset) : n;
    if (from_device > 0)
        SPB_TRY(spb_device_read(writer->device, writer->start + offset, buffer, from_device, err));
    if (from_device < n)
        memcpy((uint8_t *)buffer + from_device,
               writer->piece + (offset + from_device - writer->written), n - from_device);
    return spb_ok();
}

/* ---- Sync and resume ------------------------------------------------------------------------ */

/*
 * That a flush succeeded says nothing where another one failed before it: then the volume is
 * poisoned, or was opened anew since. In this order: a reopening counts first, then is writable.
 */
spb_status spb_product_writer_flush(const struct spb_product_writer *writer, struct spb_error *err)
{
    struct spb_error own;

    if (err == NULL)
        err = &own;
    spb_status status = spb_carry_round(writer->device, NULL, 0, err);
    if (!spb_is_ok(status)) {
        spb_poison(writer->volume, err);
        return status;
    }
    SPB_TRY(spb_volume_is_writable(writer->volume, err));
    return spb_reservation_check_life(writer->reservation, err);
}

spb_status spb_product_writer_begin_sync(struct spb_product_writer *writer, uint64_t *offset,
                                         uint32_t *crc, struct spb_error *err)
{
    SPB_TRY(check_open(writer, err));
    SPB_TRY(spb_volume_is_writable(writer->volume, err));
    SPB_TRY(spb_reservation_check_life(writer->reservation, err));
    /* The last block stays: if it is the product's last, finish decides how it is padded. */
    size_t n = writer->held == 0 ? 0 : (writer->held - 1) / writer->block_size * writer->block_size;
    if (n > 0)
        SPB_TRY(put_bytes(writer, n, n, err));
    bool is_new = writer->written > writer->durable;
    *offset = is_new ? writer->written : writer->durable;
    *crc = is_new ? writer->crc : writer->durable_crc;
    return spb_ok();
}

spb_status spb_product_writer_sync(struct spb_product_writer *writer, uint64_t *offset,
                                   uint32_t *crc, struct spb_error *err)
{
    uint64_t end = 0;
    uint32_t end_crc = 0;

    SPB_TRY(spb_product_writer_begin_sync(writer, &end, &end_crc, err));
    if (end > writer->durable) {
        SPB_TRY(spb_product_writer_flush(writer, err));
        writer->durable = end;
        writer->durable_crc = end_crc;
    }
    *offset = writer->durable;
    *crc = writer->durable_crc;
    return spb_ok();
}

static spb_status fail_other_bytes(const struct spb_product_writer *writer, uint64_t offset,
                                   uint32_t found, uint32_t wanted, struct spb_error *err)
{
    return spb_fail(err, SPB_CORRUPT,
                    "cannot go on with a product in %s: its first %llu bytes have CRC 0x%08X on "
                    "the medium, expected 0x%08X",
                    writer->device->name, (unsigned long long)offset, found, wanted);
}

/* Reads again what was written, and holds its last block, which the bytes to come may share. */
static spb_status take_up(struct spb_product_writer *writer, uint64_t offset, uint32_t wanted,
                          struct spb_error *err)
{
    size_t held = offset == 0 ? 0 : (size_t)((offset - 1) % writer->block_size) + 1;
    uint64_t written = offset - held;
    uint32_t crc = 0;

    for (uint64_t at = 0; at < written;) {
        size_t part = written - at < PIECE ? (size_t)(written - at) : PIECE;
        SPB_TRY(spb_bulk_read(writer->device, writer->start + at, writer->piece, part,
                              SPB_FROM_MEDIUM, err));
        crc = spb_crc32c(crc, writer->piece, part);
        at += part;
    }
    if (held > 0)
        SPB_TRY(spb_bulk_read(writer->device, writer->start + written, writer->piece, held,
                              SPB_FROM_MEDIUM, err));
    uint32_t found = spb_crc32c(crc, writer->piece, held);
    if (found != wanted)
        return fail_other_bytes(writer, offset, found, wanted, err);
    writer->written = written;
    writer->crc = crc;
    writer->held = held;
    writer->taken = writer->durable = offset;
    writer->durable_crc = wanted;
    return spb_ok();
}

spb_status spb_product_writer_resume(struct spb_volume *volume, struct spb_reservation *reservation,
                                     uint64_t size_bytes, uint64_t offset, uint32_t crc,
                                     struct spb_product_writer **writer, struct spb_error *err)
{
    struct spb_product_writer *made = NULL;

    if (offset > size_bytes)
        return spb_fail(
            err, SPB_INVALID, "cannot go on at byte %llu of a product of %llu bytes in %s",
            (unsigned long long)offset, (unsigned long long)size_bytes, volume->device->name);
    SPB_TRY(spb_product_writer_new(volume, reservation, size_bytes, &made, err));
    spb_status status = take_up(made, offset, crc, err);
    if (!spb_is_ok(status)) {
        spb_product_writer_free(made);
        return status;
    }
    *writer = made;
    return status;
}

/* ---- The end -------------------------------------------------------------------------------- */

static void pad_to_block(struct spb_product_writer *writer)
{
    size_t missing = to_whole_blocks(writer);

    memset(writer->piece + writer->held, 0, missing);
    writer->held += missing;
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
