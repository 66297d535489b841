/* Products whose writing is cut off and goes on: syncs, resuming, extents that are held again. */
#include "volume_kit.h"

#include <errno.h>

#include "base/crc32c.h"
#include "support/medium.h"
#include "support/random.h"

#define PIECE ((size_t)256 * 1024)

static uint8_t *random_bytes(size_t n, uint64_t seed)
{
    uint8_t *bytes = malloc(n + 1);

    random_fill(&seed, bytes, n);
    return bytes;
}

static struct spb_volume *wide(uint32_t sector_size, uint64_t product_bytes)
{
    return kit_open(kit_device(sector_size, (uint32_t)(40 + product_bytes / sector_size)));
}

static void publish(struct spb_volume *volume, struct spb_reservation *reservation,
                    struct spb_product_writer *writer, const char *name)
{
    struct spb_product_attributes attributes = {name, strlen(name), 1, 1};
    struct spb_product_data data;
    struct spb_group *group;

    OK(spb_product_writer_finish(writer, &data, &kit_err));
    OK(spb_product_data_verify(volume, reservation, &data, &kit_err));
    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_publish_product(group, reservation, &attributes, &data, true, NULL, &kit_err));
    OK(spb_group_carry_out(group, &kit_err));
    spb_group_make_visible(group);
    spb_group_free(group);
}

/* Writes some, syncs, forgets the writer, and goes on where the sync said. */
static void cut_once(uint32_t sector_size, const uint8_t *bytes, size_t size, size_t cut)
{
    struct spb_volume *volume = wide(sector_size, size);
    struct spb_reservation *reservation;
    struct spb_product_writer *writer;
    uint32_t crc = 1, block, count;
    uint64_t offset = 1;

    OK(spb_reservation_new(volume, size, &reservation, &kit_err));
    spb_reservation_extent(reservation, &block, &count);
    OK(spb_product_writer_new(volume, reservation, size, &writer, &kit_err));
    OK(spb_product_writer_write(writer, bytes, cut, &kit_err));
    OK(spb_product_writer_sync(writer, &offset, &crc, &kit_err));
    cr_assert_leq(offset, cut);
    cr_assert_leq(cut - offset, sector_size, "%llu of %zu are durable", (unsigned long long)offset,
                  cut);
    cr_assert_eq(crc, spb_crc32c(0, bytes, offset));
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    OK(spb_reservation_new_extent(volume, block, count, &reservation, &kit_err));
    OK(spb_product_writer_resume(volume, reservation, size, offset, crc, &writer, &kit_err));
    cr_assert_eq(spb_product_writer_offset(writer), offset);
    OK(spb_product_writer_write(writer, bytes + offset, size - offset, &kit_err));
    publish(volume, reservation, writer, "p");
    kit_expect_product(volume, "p", bytes, size);
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    spb_volume_close(volume);
}

Test(uploads, go_on_where_a_sync_said)
{
    static const uint32_t sector_sizes[] = {512, 4096, 65536};
    uint8_t *bytes = random_bytes(3 * PIECE, 1);

    for (size_t i = 0; i < 3; i++) {
        uint32_t s = sector_sizes[i];
        const size_t sizes[] = {1, s - 1, s, s + 1, 3 * s, PIECE, PIECE + 1, 2 * PIECE + s};
        for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
            const size_t cuts[] = {0,         1,     s - 1,     s,         s + 1,        2 * s,
                                   PIECE - 1, PIECE, PIECE + 1, PIECE + s, sizes[k] - 1, sizes[k]};
            for (size_t c = 0; c < sizeof(cuts) / sizeof(cuts[0]); c++)
                if (cuts[c] <= sizes[k])
                    cut_once(s, bytes, sizes[k], cuts[c]);
        }
    }
    free(bytes);
}

/* Any offset up to the durable one will do, and the bytes that share its block stay. */
Test(uploads, go_on_anywhere_before)
{
    uint8_t *bytes = random_bytes(3000, 2);
    struct spb_volume *volume = wide(512, 8192);
    struct spb_reservation *reservation;
    struct spb_product_writer *writer;
    uint64_t offset;
    uint32_t crc;

    OK(spb_reservation_new(volume, 3000, &reservation, &kit_err));
    OK(spb_product_writer_new(volume, reservation, 3000, &writer, &kit_err));
    OK(spb_product_writer_write(writer, bytes, 2600, &kit_err));
    OK(spb_product_writer_sync(writer, &offset, &crc, &kit_err));
    cr_assert_eq(offset, 2560);
    spb_product_writer_free(writer);
    for (size_t at = 0; at <= 2560; at += 37) {
        OK(spb_product_writer_resume(volume, reservation, 3000, at, spb_crc32c(0, bytes, at),
                                     &writer, &kit_err));
        OK(spb_product_writer_write(writer, bytes + at, 3000 - at, &kit_err));
        publish(volume, reservation, writer, "p");
        kit_expect_product(volume, "p", bytes, 3000);
        spb_product_writer_free(writer);
        /* Published: the next one begins in space of its own. */
        spb_reservation_free(reservation);
        OK(spb_volume_delete_product(volume, "p", 1, &kit_err));
        OK(spb_reservation_new_extent(volume, 1, 6, &reservation, &kit_err));
    }
    spb_reservation_free(reservation);
    spb_volume_close(volume);
    free(bytes);
}

Test(uploads, other_bytes_are_refused)
{
    uint8_t *bytes = random_bytes(2000, 3);
    struct spb_volume *volume = wide(512, 8192);
    struct spb_reservation *reservation;
    struct spb_product_writer *writer = NULL;
    uint8_t other;
    uint64_t offset;
    uint32_t crc;

    OK(spb_reservation_new(volume, 2000, &reservation, &kit_err));
    OK(spb_product_writer_new(volume, reservation, 2000, &writer, &kit_err));
    OK(spb_product_writer_write(writer, bytes, 1800, &kit_err));
    OK(spb_product_writer_sync(writer, &offset, &crc, &kit_err));
    cr_assert_eq(offset, 1536);
    spb_product_writer_free(writer);
    writer = NULL;
    FAILS(SPB_CORRUPT,
          spb_product_writer_resume(volume, reservation, 2000, offset, crc ^ 1, &writer, &kit_err));
    FAILS(SPB_CORRUPT, spb_product_writer_resume(volume, reservation, 2000, 1800,
                                                 spb_crc32c(0, bytes, 1800), &writer, &kit_err));
    FAILS(SPB_INVALID,
          spb_product_writer_resume(volume, reservation, 2000, 2001, crc, &writer, &kit_err));
    FAILS(SPB_INVALID,
          spb_product_writer_resume(volume, reservation, 20000, 0, 0, &writer, &kit_err));
    for (size_t at = 0; at < 1536; at += 511) {
        other = (uint8_t)(bytes[at] ^ 4);
        OK(spb_device_write(spb_volume_device(volume), (33 + 1) * 512 + at, &other, 1, &kit_err));
        FAILS(SPB_CORRUPT,
              spb_product_writer_resume(volume, reservation, 2000, offset, crc, &writer, &kit_err));
        OK(spb_device_write(spb_volume_device(volume), (33 + 1) * 512 + at, bytes + at, 1,
                            &kit_err));
    }
    cr_assert_null(writer);
    OK(spb_product_writer_resume(volume, reservation, 2000, offset, crc, &writer, &kit_err));
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    spb_volume_close(volume);
    free(bytes);
}

Test(uploads, syncs_say_what_is_durable)
{
    struct spb_volume *volume = wide(512, 8192);
    uint8_t *bytes = random_bytes(1536, 4);
    struct spb_reservation *reservation;
    struct spb_product_writer *writer;
    struct spb_product_data data;
    uint64_t offset = 9;
    uint32_t crc = 9;

    OK(spb_reservation_new(volume, 1536, &reservation, &kit_err));
    OK(spb_product_writer_new(volume, reservation, 1536, &writer, &kit_err));
    OK(spb_product_writer_sync(writer, &offset, &crc, &kit_err));
    cr_assert_eq(offset, 0);
    cr_assert_eq(crc, 0);
    for (size_t at = 0; at < 1536; at += 128) {
        OK(spb_product_writer_write(writer, bytes + at, 128, &kit_err));
        OK(spb_product_writer_sync(writer, &offset, &crc, &kit_err));
        /* The last block stays back until it is known how it is padded. */
        cr_assert_eq(offset, (at + 127) / 512 * 512);
        cr_assert_eq(crc, spb_crc32c(0, bytes, offset));
    }
    OK(spb_product_writer_finish(writer, &data, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_sync(writer, &offset, &crc, &kit_err));
    cr_assert_eq(data.crc, spb_crc32c(0, bytes, 1536));
    spb_product_writer_free(writer);
    /* What was durable before a resumption stays so. */
    OK(spb_product_writer_resume(volume, reservation, 1536, 1024, spb_crc32c(0, bytes, 1024),
                                 &writer, &kit_err));
    OK(spb_product_writer_sync(writer, &offset, &crc, &kit_err));
    cr_assert_eq(offset, 1024);
    cr_assert_eq(crc, spb_crc32c(0, bytes, 1024));
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    spb_volume_close(volume);
    free(bytes);
}

/* ---- Extents --------------------------------------------------------------------------------- */

Test(uploads, an_extent_is_held_exactly)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_reservation *held, *other = NULL, *pin;
    struct spb_product product = kit_product(volume, "p", "data", 4, false);
    uint32_t block, count;
    uint64_t before, after;
    uint32_t largest;

    cr_assert_eq(product.block_offset, 1);
    spb_product_space(volume, &before, &largest);
    OK(spb_reservation_new_extent(volume, 10, 5, &held, &kit_err));
    spb_reservation_extent(held, &block, &count);
    cr_assert_eq(block, 10);
    cr_assert_eq(count, 5);
    spb_product_space(volume, &after, &largest);
    cr_assert_eq(before - after, 5);
    /* Another's, in whole or in part. */
    FAILS(SPB_IN_USE, spb_reservation_new_extent(volume, 10, 5, &other, &kit_err));
    FAILS(SPB_IN_USE, spb_reservation_new_extent(volume, 14, 1, &other, &kit_err));
    FAILS(SPB_IN_USE, spb_reservation_new_extent(volume, 9, 2, &other, &kit_err));
    FAILS(SPB_IN_USE, spb_reservation_new_extent(volume, 8, 20, &other, &kit_err));
    /* A catalog entry's, and the catalog's own. */
    FAILS(SPB_IN_USE, spb_reservation_new_extent(volume, 1, 1, &other, &kit_err));
    FAILS(SPB_INVALID, spb_reservation_new_extent(volume, 0, 1, &other, &kit_err));
    /* Beyond the area. */
    FAILS(SPB_INVALID, spb_reservation_new_extent(volume, 66, 2, &other, &kit_err));
    FAILS(SPB_INVALID, spb_reservation_new_extent(volume, UINT32_MAX, 2, &other, &kit_err));
    FAILS(SPB_INVALID, spb_reservation_new_extent(volume, 2, UINT32_MAX, &other, &kit_err));
    cr_assert_null(other);
    OK(spb_reservation_new_extent(volume, 9, 1, &other, &kit_err));
    spb_reservation_free(other);
    OK(spb_reservation_new_extent(volume, 15, 52, &other, &kit_err));
    spb_reservation_free(other);
    OK(spb_reservation_new_extent(volume, 0, 0, &other, &kit_err));
    spb_reservation_free(other);
    /* A deleted product's, while somebody reads it. */
    OK(spb_reservation_pin(volume, &product, &pin, &kit_err));
    OK(spb_volume_delete_product(volume, "p", 1, &kit_err));
    FAILS(SPB_IN_USE, spb_reservation_new_extent(volume, 1, 1, &other, &kit_err));
    spb_reservation_free(pin);
    OK(spb_reservation_new_extent(volume, 1, 1, &other, &kit_err));
    spb_reservation_free(other);
    spb_reservation_free(held);
    spb_volume_close(volume);
}

/* Blocks that a corrupt entry names are nobody's either. */
Test(uploads, an_extent_of_a_corrupt_entry)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_reservation *held;
    static const uint8_t entry[80] = {0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 200};

    kit_poke(volume, 33 * 512, entry, sizeof(entry));
    FAILS(SPB_IN_USE, spb_reservation_new_extent(volume, 22, 1, &held, &kit_err));
    OK(spb_reservation_new_extent(volume, 23, 1, &held, &kit_err));
    spb_reservation_free(held);
    spb_volume_close(volume);
}

/* ---- Failures of the medium ------------------------------------------------------------------ */

struct upload {
    struct medium *medium;
    struct spb_volume *volume;
    struct spb_reservation *reservation;
    struct spb_product_writer *writer;
    uint8_t *bytes;
    size_t size;
};

static struct upload begin(size_t size)
{
    struct upload u = {.medium = medium_new((uint64_t)KIT_BLOCKS * 512, 5), .size = size};
    struct spb_format_options format = {.total_blocks = KIT_BLOCKS, .sector_size = 512};
    struct spb_device *device = medium_attach(u.medium);

    OK(spb_volume_format(device, &format, &kit_err));
    u.volume = kit_open(device);
    u.bytes = random_bytes(size, 6);
    OK(spb_reservation_new(u.volume, size, &u.reservation, &kit_err));
    OK(spb_product_writer_new(u.volume, u.reservation, size, &u.writer, &kit_err));
    return u;
}

static void end(struct upload *u)
{
    cr_assert_eq(medium_violations(u->medium), 0, "%s", medium_violation(u->medium));
    spb_product_writer_free(u->writer);
    spb_reservation_free(u->reservation);
    spb_volume_close(u->volume);
    medium_free(u->medium);
    free(u->bytes);
}

/*
 * A failed flush leaves pages that look written. They are not taken for durable: not by the writer,
 * not by one on the same reservation, and not by one that reads the medium again.
 */
Test(uploads, a_failed_sync)
{
    struct upload u = begin(8192);
    struct medium_failure failure = {.call = MEDIUM_FLUSH, .nth = 1, .number = EIO, .reached = 5};
    struct spb_product_writer *writer = NULL;
    uint64_t offset, durable;
    uint32_t crc, durable_crc;

    OK(spb_product_writer_write(u.writer, u.bytes, 3000, &kit_err));
    OK(spb_product_writer_sync(u.writer, &durable, &durable_crc, &kit_err));
    OK(spb_product_writer_write(u.writer, u.bytes + 3000, 3000, &kit_err));
    medium_fail(u.medium, &failure);
    FAILS(SPB_IO, spb_product_writer_sync(u.writer, &offset, &crc, &kit_err));
    cr_assert(medium_failed(u.medium));
    FAILS(SPB_POISONED, spb_product_writer_sync(u.writer, &offset, &crc, &kit_err));
    FAILS(SPB_POISONED, spb_volume_is_writable(u.volume, &kit_err));
    OK(spb_volume_reopen(u.volume, &kit_err));
    FAILS(SPB_IO, spb_product_writer_sync(u.writer, &offset, &crc, &kit_err));
    FAILS(SPB_IO, spb_product_writer_resume(u.volume, u.reservation, 8192, durable, durable_crc,
                                            &writer, &kit_err));
    spb_product_writer_free(u.writer);
    u.writer = NULL;
    spb_reservation_free(u.reservation);
    OK(spb_reservation_new_extent(u.volume, 1, 17, &u.reservation, &kit_err));
    FAILS(SPB_CORRUPT, spb_product_writer_resume(u.volume, u.reservation, 8192, 5632,
                                                 spb_crc32c(0, u.bytes, 5632), &writer, &kit_err));
    OK(spb_product_writer_resume(u.volume, u.reservation, 8192, durable, durable_crc, &u.writer,
                                 &kit_err));
    OK(spb_product_writer_write(u.writer, u.bytes + durable, 8192 - durable, &kit_err));
    publish(u.volume, u.reservation, u.writer, "p");
    kit_expect_product(u.volume, "p", u.bytes, 8192);
    end(&u);
}

/* Somebody else's flush failed and the volume was opened anew: earlier bytes may be lost. */
Test(uploads, a_sync_after_another_flush_failed)
{
    struct upload u = begin(8192);
    struct medium_failure failure = {.call = MEDIUM_FLUSH, .nth = 1, .number = EIO};
    struct spb_param_put put = {1, "x", 1, SPB_ANY_GENERATION};
    uint64_t offset;
    uint32_t crc;

    OK(spb_product_writer_write(u.writer, u.bytes, 3000, &kit_err));
    medium_fail(u.medium, &failure);
    FAILS(SPB_IO, spb_volume_put_param(u.volume, &put, NULL, &kit_err));
    OK(spb_volume_reopen(u.volume, &kit_err));
    FAILS(SPB_IO, spb_product_writer_sync(u.writer, &offset, &crc, &kit_err));
    end(&u);
}

/* A write that fails ends the writer; another one goes on from what is durable. */
Test(uploads, a_failed_write)
{
    struct upload u = begin(8192);
    struct medium_failure failure = {
        .call = MEDIUM_WRITE, .nth = 1, .number = ENOSPC, .short_sectors = 2};
    uint64_t durable, offset;
    uint32_t durable_crc, crc;

    OK(spb_product_writer_write(u.writer, u.bytes, 3000, &kit_err));
    OK(spb_product_writer_sync(u.writer, &durable, &durable_crc, &kit_err));
    OK(spb_product_writer_write(u.writer, u.bytes + 3000, 3000, &kit_err));
    medium_fail(u.medium, &failure);
    FAILS(SPB_IO, spb_product_writer_sync(u.writer, &offset, &crc, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_sync(u.writer, &offset, &crc, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_write(u.writer, u.bytes, 1, &kit_err));
    OK(spb_volume_is_writable(u.volume, &kit_err));
    spb_product_writer_free(u.writer);
    OK(spb_product_writer_resume(u.volume, u.reservation, 8192, durable, durable_crc, &u.writer,
                                 &kit_err));
    OK(spb_product_writer_write(u.writer, u.bytes + durable, 8192 - durable, &kit_err));
    publish(u.volume, u.reservation, u.writer, "p");
    kit_expect_product(u.volume, "p", u.bytes, 8192);
    end(&u);
}

Test(uploads, reading_again_fails)
{
    struct upload u = begin(8192);
    struct spb_product_writer *writer = NULL;
    uint64_t durable;
    uint32_t crc;

    OK(spb_product_writer_write(u.writer, u.bytes, 6000, &kit_err));
    OK(spb_product_writer_sync(u.writer, &durable, &crc, &kit_err));
    for (uint64_t nth = 1; nth <= 2; nth++) {
        struct medium_failure failure = {.call = MEDIUM_READ_MEDIUM, .nth = nth, .number = EIO};
        medium_fail(u.medium, &failure);
        FAILS(SPB_IO, spb_product_writer_resume(u.volume, u.reservation, 8192, durable, crc,
                                                &writer, &kit_err));
        cr_assert(medium_failed(u.medium));
    }
    /* Without direct reads the page cache has to do. */
    medium_forbid_direct(u.medium, true);
    OK(spb_product_writer_resume(u.volume, u.reservation, 8192, durable, crc, &writer, &kit_err));
    spb_product_writer_free(writer);
    end(&u);
}
