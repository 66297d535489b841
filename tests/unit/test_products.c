/* Data products: exact lengths, catalog, space, damage, streaming, defragmentation. */
#include "volume_kit.h"

#include <stdio.h>

#include "base/crc32c.h"
#include "volume/records.h"

static void round_trip(uint32_t sector_size, const void *data, size_t size)
{
    struct spb_volume *volume = kit_volume(sector_size);

    kit_product(volume, "p", data, size, false);
    kit_expect_product(volume, "p", data, size);
    OK(spb_volume_refresh(volume, &kit_err));
    kit_expect_product(volume, "p", data, size);
    spb_volume_close(volume);
}

Test(products, keep_their_exact_length)
{
    for (uint32_t sector_size = 512; sector_size <= 65536; sector_size *= 2) {
        size_t sizes[] = {0, 1, sector_size - 1, sector_size, sector_size + 1, 3 * sector_size};
        uint8_t *data = calloc(4, sector_size);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            memset(data, 0, sizes[i]);
            round_trip(sector_size, data, sizes[i]);
            memset(data, 0x80, sizes[i]);
            round_trip(sector_size, data, sizes[i]);
            /* CRC-32C does not see the zeros behind FF FF FF FF. */
            memset(data, 0, sizes[i]);
            memset(data, 0xFF, sizes[i] < 4 ? sizes[i] : 4);
            round_trip(sector_size, data, sizes[i]);
        }
        free(data);
    }
}

Test(products, longer_than_the_pieces_they_are_written_in)
{
    struct spb_volume *volume = kit_open(kit_device(4096, 1200));
    size_t sizes[] = {262143, 262144, 262145, 524288, 1000000};
    uint8_t *data = calloc(1, 1000000);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        memset(data, 0, sizes[i]);
        memset(data, 0xFF, 4);
        kit_product(volume, "big", data, sizes[i], true);
        kit_expect_product(volume, "big", data, sizes[i]);
        memset(data, (int)i + 1, sizes[i]);
        kit_product(volume, "big", data, sizes[i], true);
        kit_expect_product(volume, "big", data, sizes[i]);
    }
    free(data);
    spb_volume_close(volume);
}

Test(products, names_are_checked)
{
    char name[66];
    struct {
        const char *name;
        size_t size;
        bool good;
    } samples[] = {
        {"", 0, false},     {name, 64, true},      {name, 65, false}, {"a\0b", 3, false},
        {"\xff", 1, false}, {"\xc3\xa4", 2, true}, {"a/b", 3, true},
    };

    memset(name, 'n', sizeof(name));
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        spb_status status = spb_product_name_check(samples[i].name, samples[i].size, &kit_err);
        cr_assert_eq(spb_is_ok(status), samples[i].good, "sample %zu", i);
    }
}

Test(products, taken_name_replace_and_delete)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product_attributes attributes = {"p", 1, 0, 0};
    uint8_t *data;
    size_t size;

    kit_product(volume, "p", "one", 3, false);
    FAILS(SPB_EXISTS, spb_volume_put_product(volume, &attributes, "x", 1, false, NULL, &kit_err));
    kit_expect_product(volume, "p", "one", 3);
    kit_product(volume, "p", "three", 5, true);
    kit_expect_product(volume, "p", "three", 5);
    OK(spb_volume_delete_product(volume, "p", 1, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_volume_delete_product(volume, "p", 1, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_volume_get_product(volume, "p", 1, &data, &size, &kit_err));
    spb_volume_close(volume);
}

Test(products, full_catalog)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product_attributes attributes = {"seventh", 7, 0, 0};
    char name[2] = "a";

    for (; name[0] < 'g'; name[0]++)
        kit_product(volume, name, name, 1, false);
    FAILS(SPB_FULL, spb_volume_put_product(volume, &attributes, "x", 1, false, NULL, &kit_err));
    kit_product(volume, "c", "replaced", 8, true);
    OK(spb_volume_delete_product(volume, "b", 1, &kit_err));
    OK(spb_volume_put_product(volume, &attributes, "x", 1, false, NULL, &kit_err));
    kit_expect_product(volume, "c", "replaced", 8);
    kit_expect_product(volume, "f", "f", 1);
    spb_volume_close(volume);
}

Test(products, at_512_the_catalog_has_no_gaps)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product product;

    kit_product(volume, "a", "1", 1, false);
    kit_product(volume, "b", "2", 1, false);
    kit_product(volume, "c", "3", 1, false);
    OK(spb_volume_delete_product(volume, "a", 1, &kit_err));
    OK(spb_product_entry(volume, 0, &product, &kit_err));
    cr_assert_str_eq(product.name, "b");
    OK(spb_product_entry(volume, 1, &product, &kit_err));
    cr_assert_str_eq(product.name, "c");
    OK(spb_product_entry(volume, 2, &product, &kit_err));
    cr_assert_eq(product.state, SPB_PRODUCT_FREE);
    spb_volume_close(volume);
}

Test(products, crossing_entries_are_never_filled)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_product product;
    char name[8];

    for (int i = 0; i < 51 - 6; i++) {
        (void)snprintf(name, sizeof(name), "p%d", i);
        kit_product(volume, name, "", 0, false);
    }
    static const uint32_t crossing[] = {6, 12, 19, 25, 38, 44};
    for (size_t i = 0; i < sizeof(crossing) / sizeof(crossing[0]); i++) {
        OK(spb_product_entry(volume, crossing[i], &product, &kit_err));
        cr_assert_eq(product.state, SPB_PRODUCT_FREE, "entry %u", crossing[i]);
    }
    struct spb_product_attributes attributes = {"last", 4, 0, 0};
    FAILS(SPB_FULL, spb_volume_put_product(volume, &attributes, "x", 1, false, NULL, &kit_err));
    spb_volume_close(volume);
}

static void plant_entry(struct spb_volume *volume, uint32_t entry,
                        const struct spb_product *product)
{
    uint8_t bytes[SPB_ENTRY_SIZE];

    spb_entry_encode(product, bytes);
    kit_poke(volume, 33ull * spb_volume_sector_size(volume) + entry * 80ull, bytes, sizeof(bytes));
}

Test(products, crossing_entry_is_replaced_elsewhere_and_deleted)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_product product = {.name_len = 1, .name = "x"}, found;

    plant_entry(volume, 6, &product);
    kit_expect_product(volume, "x", "", 0);
    found = kit_product(volume, "x", "new", 3, true);
    cr_assert_eq(found.entry, 0);
    OK(spb_product_entry(volume, 6, &found, &kit_err));
    cr_assert_eq(found.state, SPB_PRODUCT_FREE);
    kit_expect_product(volume, "x", "new", 3);
    product.name[0] = 'y';
    plant_entry(volume, 12, &product);
    OK(spb_volume_delete_product(volume, "y", 1, &kit_err));
    OK(spb_product_entry(volume, 12, &found, &kit_err));
    cr_assert_eq(found.state, SPB_PRODUCT_FREE);
    spb_volume_close(volume);
}

Test(products, no_free_extent_says_what_is_free)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product_attributes attributes = {"big", 3, 0, 0};
    uint8_t data[67 * 512] = {1};

    FAILS(SPB_FULL,
          spb_volume_put_product(volume, &attributes, data, sizeof(data), false, NULL, &kit_err));
    cr_assert(strstr(kit_err.text, "66 blocks are free") != NULL, "%s", kit_err.text);
    cr_assert(strstr(kit_err.text, "largest extent has 66") != NULL, "%s", kit_err.text);
    OK(spb_volume_put_product(volume, &attributes, data, 66 * 512, false, NULL, &kit_err));
    kit_expect_product(volume, "big", data, 66 * 512);
    FAILS(SPB_FULL, spb_volume_put_product(volume, &attributes, "x", 1, true, NULL, &kit_err));
    kit_expect_product(volume, "big", data, 66 * 512);
    spb_volume_close(volume);
}

Test(products, rotten_data_is_an_error_and_never_shown)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product product = kit_product(volume, "p", "payload", 7, false);
    uint8_t *data;
    size_t size;

    kit_poke(volume, (33 + (uint64_t)product.block_offset) * 512 + 2, "\xEE", 1);
    FAILS(SPB_CORRUPT, spb_volume_get_product(volume, "p", 1, &data, &size, &kit_err));
    spb_volume_close(volume);
}

Test(products, smallest_extent_that_fits_is_taken)
{
    struct spb_volume *volume = kit_volume(512);
    uint8_t data[8 * 512 - 1];

    memset(data, 7, sizeof(data));
    kit_product(volume, "a", data, 4 * 512 - 1, false); /* 1..4 */
    kit_product(volume, "b", data, 1, false);           /* 5 */
    kit_product(volume, "c", data, 2 * 512 - 1, false); /* 6..7 */
    kit_product(volume, "d", data, 1, false);           /* 8 */
    OK(spb_volume_delete_product(volume, "a", 1, &kit_err));
    OK(spb_volume_delete_product(volume, "c", 1, &kit_err));
    cr_assert_eq(kit_product(volume, "e", data, 2 * 512 - 1, false).block_offset, 6);
    cr_assert_eq(kit_product(volume, "f", data, 3 * 512 - 1, false).block_offset, 1);
    spb_volume_close(volume);
}

Test(products, at_an_offset_of_choice)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_reservation *reservation, *second;
    struct spb_product found;

    kit_product(volume, "a", "x", 1, false);
    FAILS(SPB_IN_USE, spb_reservation_new_at(volume, 1, 10, &reservation, &kit_err));
    FAILS(SPB_IN_USE, spb_reservation_new_at(volume, 0, 10, &reservation, &kit_err));
    FAILS(SPB_INVALID, spb_reservation_new_at(volume, 66, 1000, &reservation, &kit_err));
    OK(spb_reservation_new_at(volume, 20, 600, &reservation, &kit_err));
    FAILS(SPB_IN_USE, spb_reservation_new_at(volume, 19, 600, &second, &kit_err));
    spb_reservation_free(reservation);
    OK(spb_product_find_at(volume, 1, &found, &kit_err));
    cr_assert_str_eq(found.name, "a");
    FAILS(SPB_NOT_FOUND, spb_product_find_at(volume, 2, &found, &kit_err));
    spb_volume_close(volume);
}

Test(products, pinned_and_reserved_blocks_are_not_given_out)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product product = kit_product(volume, "a", "x", 1, false);
    struct spb_reservation *pin;

    OK(spb_reservation_pin(volume, &product, &pin, &kit_err));
    OK(spb_volume_delete_product(volume, "a", 1, &kit_err));
    cr_assert_neq(kit_product(volume, "b", "y", 1, false).block_offset, product.block_offset);
    spb_reservation_free(pin);
    cr_assert_eq(kit_product(volume, "c", "z", 1, false).block_offset, product.block_offset);
    spb_volume_close(volume);
}

Test(products, writer_takes_exactly_what_was_announced)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_reservation *reservation;
    struct spb_product_writer *writer;
    struct spb_product_data data;

    OK(spb_reservation_new(volume, 10, &reservation, &kit_err));
    OK(spb_product_writer_new(volume, reservation, 10, &writer, &kit_err));
    OK(spb_product_writer_write(writer, "12345", 5, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_write(writer, "678901", 6, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_finish(writer, &data, &kit_err));
    OK(spb_product_writer_write(writer, "67890", 5, &kit_err));
    OK(spb_product_writer_finish(writer, &data, &kit_err));
    cr_assert(data.length == 10 && data.block_count == 1);
    cr_assert_eq(data.crc, spb_crc32c(0, "1234567890", 10));
    OK(spb_product_data_verify(volume, reservation, &data, &kit_err));
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    spb_volume_close(volume);
}

/* What was taken can be read again, wherever it is by then. */
static void expect_read_again(const struct spb_product_writer *writer, const uint8_t *bytes,
                              size_t taken)
{
    static const size_t ends[] = {0, 1, 511, 512, 513, 70000, 131072, 131073};
    static uint8_t back[200000];

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        for (size_t k = i; k < sizeof(ends) / sizeof(ends[0]); k++) {
            size_t begin = ends[i] < taken ? ends[i] : taken,
                   end = ends[k] < taken ? ends[k] : taken;

            OK(spb_product_writer_read(writer, begin, back, end - begin, &kit_err));
            cr_assert_arr_eq(back, bytes + begin, end - begin, "%zu to %zu", begin, end);
        }
    }
    OK(spb_product_writer_read(writer, 0, back, taken, &kit_err));
    cr_assert_arr_eq(back, bytes, taken);
    FAILS(SPB_INVALID, spb_product_writer_read(writer, 0, back, taken + 1, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_read(writer, UINT64_MAX, back, 1, &kit_err));
}

Test(products, what_a_writer_took_is_read_again)
{
    static uint8_t bytes[140001];
    static const size_t parts[] = {1, 511, 70000, 65536, 3952, 1};
    struct spb_volume *volume = kit_volume(4096);
    struct spb_reservation *reservation;
    struct spb_product_writer *writer;
    struct spb_product_data data;
    uint64_t durable = 0;
    uint32_t crc = 0;
    size_t taken = 0;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    OK(spb_reservation_new(volume, sizeof(bytes), &reservation, &kit_err));
    OK(spb_product_writer_new(volume, reservation, sizeof(bytes), &writer, &kit_err));
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        OK(spb_product_writer_write(writer, bytes + taken, parts[i], &kit_err));
        taken += parts[i];
        expect_read_again(writer, bytes, taken);
        OK(spb_product_writer_sync(writer, &durable, &crc, &kit_err));
        expect_read_again(writer, bytes, taken);
    }
    cr_assert_eq(taken, sizeof(bytes));
    spb_product_writer_free(writer);
    OK(spb_product_writer_resume(volume, reservation, sizeof(bytes), durable, crc, &writer,
                                 &kit_err));
    expect_read_again(writer, bytes, durable);
    OK(spb_product_writer_write(writer, bytes + durable, sizeof(bytes) - durable, &kit_err));
    OK(spb_product_writer_finish(writer, &data, &kit_err));
    expect_read_again(writer, bytes, sizeof(bytes));
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    spb_volume_close(volume);
}

Test(products, of_two_with_one_name_the_lowest_good_counts)
{
    struct spb_device *device = kit_device(4096, KIT_BLOCKS);
    struct spb_volume *volume = kit_open(device);
    struct spb_product second = kit_product(volume, "a", "second", 6, false);
    struct spb_product first = second;

    first.block_offset = 9;
    first.crc = spb_crc32c(0, "first", 5);
    plant_entry(volume, 0, &first);
    plant_entry(volume, 3, &second);
    kit_poke(volume, (33 + 9) * 4096, "fXrst", 5);
    kit_expect_product(volume, "a", "second", 6);
    kit_poke(volume, (33 + 9) * 4096, "first", 5);
    kit_expect_product(volume, "a", "first", 5);
    spb_volume_close(volume);
}

/* Which of the two of one name is rotten: none, the lower, the higher. */
static void expect_after_opening(int rotten, bool second_stays)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_product entry = kit_product(volume, "a", "data", 4, false), found;

    entry.block_offset = 9;
    plant_entry(volume, 3, &entry);
    kit_poke(volume, (33 + 9) * 4096, rotten == 2 ? "dXta" : "data", 4);
    if (rotten == 1)
        kit_poke(volume, (33 + 1) * 4096, "X", 1);
    OK(spb_volume_reopen(volume, &kit_err));
    OK(spb_product_entry(volume, 3, &found, &kit_err));
    cr_assert_eq(found.state != SPB_PRODUCT_FREE, second_stays, "rotten %d", rotten);
    OK(spb_product_entry(volume, 0, &found, &kit_err));
    cr_assert_neq(found.state, SPB_PRODUCT_FREE);
    kit_expect_product(volume, "a", "data", 4);
    spb_volume_close(volume);
}

Test(products, writable_opening_drops_a_twin_only_where_both_are_good)
{
    expect_after_opening(0, false);
    expect_after_opening(1, true);
    expect_after_opening(2, true);
}

Test(products, twins_at_512_are_dropped_without_mixing_up_the_others)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product b_first, b_second;

    kit_product(volume, "a", "1", 1, false);
    kit_product(volume, "x", "2", 1, false);
    b_first = kit_product(volume, "b", "first", 5, false);
    b_second = kit_product(volume, "c", "second", 6, false);
    /* x becomes a second a, c a second b. */
    kit_poke(volume, 33 * 512 + 80 + 12, "a", 1);
    kit_poke(volume, 33 * 512 + 3 * 80 + 12, "b", 1);
    cr_assert_lt(b_first.entry, b_second.entry);
    OK(spb_volume_reopen(volume, &kit_err));
    kit_expect_product(volume, "a", "1", 1);
    kit_expect_product(volume, "b", "first", 5);
    spb_volume_close(volume);
}

Test(products, replace_in_a_full_catalog_writes_over_a_twin_that_can_be_written)
{
    struct spb_volume *volume = kit_volume(1024);
    struct spb_product rotten = {.name_len = 1, .name = "r", .crc = 1};
    char name[8];

    /* 12 entries, of which number 6 crosses; "r" stands there and in 7, with no data that fits. */
    plant_entry(volume, 6, &rotten);
    plant_entry(volume, 7, &rotten);
    for (int i = 0; i < 10; i++) {
        (void)snprintf(name, sizeof(name), "p%d", i);
        kit_product(volume, name, "", 0, false);
    }
    kit_product(volume, "r", "new", 3, true);
    kit_expect_product(volume, "r", "new", 3);
    OK(spb_volume_delete_product(volume, "r", 1, &kit_err));
    uint8_t *data;
    size_t size;
    FAILS(SPB_NOT_FOUND, spb_volume_get_product(volume, "r", 1, &data, &size, &kit_err));
    spb_volume_close(volume);
}

/* Another writer may leave whole blocks of zeros behind the mark. */
Test(products, a_mark_in_an_earlier_block_ends_the_data)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product product = {
        .block_offset = 5,
        .block_count = 3,
        .name_len = 1,
        .name = "m",
        .crc = spb_crc32c(0, "abc", 3),
    };
    uint8_t *data;
    size_t size;

    kit_poke(volume, (33 + 5) * 512, "abc\x80", 4);
    plant_entry(volume, 0, &product);
    kit_expect_product(volume, "m", "abc", 3);
    kit_poke(volume, (33 + 5) * 512, "abx\x80", 4);
    FAILS(SPB_CORRUPT, spb_volume_get_product(volume, "m", 1, &data, &size, &kit_err));
    kit_poke(volume, (33 + 5) * 512, "abc\x81", 4);
    FAILS(SPB_CORRUPT, spb_volume_get_product(volume, "m", 1, &data, &size, &kit_err));
    spb_volume_close(volume);
}

Test(products, entries_without_data_cover_no_space)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product empty = {.name_len = 1, .name = "e", .block_offset = 30};
    uint64_t free_blocks;
    uint32_t largest;

    plant_entry(volume, 0, &empty);
    spb_product_space(volume, &free_blocks, &largest);
    cr_assert(free_blocks == 66 && largest == 66, "%u", largest);
    spb_volume_close(volume);
}

Test(products, a_reservation_is_published_once_and_a_writer_finishes_once)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product_attributes a = {"a", 1, 0, 0}, b = {"b", 1, 0, 0};
    struct spb_reservation *reservation;
    struct spb_product_writer *writer;
    struct spb_product_data data;
    struct spb_group *group;

    OK(spb_reservation_new(volume, 3, &reservation, &kit_err));
    OK(spb_product_writer_new(volume, reservation, 3, &writer, &kit_err));
    OK(spb_product_writer_write(writer, "abc", 3, &kit_err));
    OK(spb_product_writer_finish(writer, &data, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_finish(writer, &data, &kit_err));
    FAILS(SPB_INVALID, spb_product_writer_write(writer, "", 0, &kit_err));
    spb_product_writer_free(writer);
    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_publish_product(group, reservation, &a, &data, false, NULL, &kit_err));
    FAILS(SPB_INVALID,
          spb_group_publish_product(group, reservation, &b, &data, false, NULL, &kit_err));
    spb_group_free(group);
    /* A dropped group gives it back. */
    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_publish_product(group, reservation, &b, &data, false, NULL, &kit_err));
    OK(spb_group_carry_out(group, &kit_err));
    spb_group_make_visible(group);
    spb_group_free(group);
    spb_reservation_free(reservation);
    kit_expect_product(volume, "b", "abc", 3);
    spb_volume_close(volume);
}

Test(defrag, leaves_the_free_space_in_one_piece)
{
    struct spb_volume *volume = kit_volume(512);
    uint8_t data[9 * 512];
    uint64_t free_blocks;
    uint32_t largest;
    bool moved = true;
    int steps = 0;

    memset(data, 5, sizeof(data));
    kit_product(volume, "a", data, 2 * 512 - 1, false);
    kit_product(volume, "b", data, 7 * 512 - 1, false);
    kit_product(volume, "c", data, 3 * 512 - 1, false);
    kit_product(volume, "d", data, 8 * 512 - 1, false);
    OK(spb_volume_delete_product(volume, "a", 1, &kit_err));
    OK(spb_volume_delete_product(volume, "c", 1, &kit_err));
    while (moved) {
        OK(spb_volume_defrag_step(volume, &moved, NULL, &kit_err));
        cr_assert_lt(steps++, 50, "must end");
    }
    spb_product_space(volume, &free_blocks, &largest);
    cr_assert_eq(free_blocks, largest);
    kit_expect_product(volume, "b", data, 7 * 512 - 1);
    kit_expect_product(volume, "d", data, 8 * 512 - 1);
    spb_volume_close(volume);
}

Test(defrag, what_is_rotten_stays)
{
    struct spb_volume *volume = kit_volume(512);
    bool moved = true;

    kit_product(volume, "a", "x", 1, false);
    struct spb_product rotten = kit_product(volume, "b", "y", 1, false), found;
    kit_product(volume, "c", "z", 1, false);
    OK(spb_volume_delete_product(volume, "a", 1, &kit_err));
    kit_poke(volume, (33 + (uint64_t)rotten.block_offset) * 512, "?", 1);
    while (moved)
        OK(spb_volume_defrag_step(volume, &moved, NULL, &kit_err));
    OK(spb_product_find(volume, "b", 1, &found, &kit_err));
    cr_assert_eq(found.block_offset, rotten.block_offset);
    OK(spb_product_find(volume, "c", 1, &found, &kit_err));
    cr_assert_eq(found.block_offset, 1);
    spb_volume_close(volume);
}
