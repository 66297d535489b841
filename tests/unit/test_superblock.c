/* The superblock: coding, each damage by its own code, and the sector size that follows from it. */
#include "volume_kit.h"

#include "base/crc32c.h"
#include "volume/records.h"

static const struct spb_superblock sample = {
    .format_version = 1,
    .tenant_id = 0x1234,
    .total_blocks = 256,
    .dp_start = 33,
    .dp_size = 223,
    .epoch = 0x0102030405060708u,
    .uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
};

Test(superblock, is_coded_as_the_format_says)
{
    uint8_t bytes[SPB_SUPERBLOCK_SIZE];
    static const uint8_t head[] = {'S', 'P', 'O', 'S', 1,   0, 0x12, 0x34, 0, 0, 1, 0, 0, 0, 0,
                                   33,  0,   0,   0,   223, 1, 2,    3,    4, 5, 6, 7, 8, 0, 1};
    struct spb_superblock back;

    spb_superblock_encode(&sample, bytes);
    cr_assert_arr_eq(bytes, head, sizeof(head));
    OK(spb_superblock_decode(bytes, "x", &back, &kit_err));
    cr_assert_eq(back.tenant_id, sample.tenant_id);
    cr_assert_eq(back.epoch, sample.epoch);
    cr_assert_arr_eq(back.uuid, sample.uuid, SPB_UUID_SIZE);
}

Test(superblock, any_flipped_bit_is_found)
{
    uint8_t bytes[SPB_SUPERBLOCK_SIZE];
    struct spb_superblock back;

    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        spb_superblock_encode(&sample, bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum spb_code want = bit < 32 ? SPB_BAD_MAGIC : SPB_BAD_CRC;
        FAILS(want, spb_superblock_decode(bytes, "x", &back, &kit_err));
    }
}

static void expect_area(uint32_t total, uint32_t start, uint32_t size, enum spb_code code)
{
    uint8_t bytes[SPB_SUPERBLOCK_SIZE];
    struct spb_superblock super = sample, back;

    super.total_blocks = total;
    super.dp_start = start;
    super.dp_size = size;
    spb_superblock_encode(&super, bytes);
    spb_status status = spb_superblock_decode(bytes, "x", &back, &kit_err);
    cr_assert_eq(status.code, code, "%u %u %u", total, start, size);
}

Test(superblock, the_data_product_area_must_fit)
{
    expect_area(33, 33, 0, SPB_OK);
    expect_area(100, 40, 60, SPB_OK);
    expect_area(100, 32, 60, SPB_BAD_DP_AREA);
    expect_area(100, 33, 68, SPB_BAD_DP_AREA);
    expect_area(100, 0xFFFFFFFF, 2, SPB_BAD_DP_AREA);
    expect_area(100, 33, 0xFFFFFFFF, SPB_BAD_DP_AREA);
    expect_area(0, 33, 0, SPB_BAD_DP_AREA);
    expect_area(32, 33, 0, SPB_BAD_DP_AREA);
}

Test(superblock, version_has_its_own_error)
{
    uint8_t bytes[SPB_SUPERBLOCK_SIZE];
    struct spb_superblock super = sample, back;

    super.format_version = 2;
    spb_superblock_encode(&super, bytes);
    FAILS(SPB_BAD_VERSION, spb_superblock_decode(bytes, "x", &back, &kit_err));
    cr_assert(strstr(kit_err.text, "is 2, expected 1") != NULL, "%s", kit_err.text);
}

Test(sector_size, follows_from_the_device_or_is_asked_for)
{
    uint32_t size = 0;

    OK(spb_sector_size_of(&sample, 256 * 4096, 0, "x", &size, &kit_err));
    cr_assert_eq(size, 4096);
    OK(spb_sector_size_of(&sample, 256 * 512 + 100, 512, "x", &size, &kit_err));
    cr_assert_eq(size, 512);
    FAILS(SPB_BAD_SIZE, spb_sector_size_of(&sample, 256 * 512 + 100, 0, "x", &size, &kit_err));
    FAILS(SPB_BAD_SIZE, spb_sector_size_of(&sample, 256 * 512 - 512, 0, "x", &size, &kit_err));
    FAILS(SPB_BAD_SIZE, spb_sector_size_of(&sample, 256 * 512 - 512, 512, "x", &size, &kit_err));
    FAILS(SPB_BAD_SIZE, spb_sector_size_of(&sample, 256 * 256, 0, "x", &size, &kit_err));
    FAILS(SPB_BAD_SIZE, spb_sector_size_of(&sample, 256 * 131072, 0, "x", &size, &kit_err));
    FAILS(SPB_BAD_SIZE, spb_sector_size_of(&sample, 256 * 4096, 512, "x", &size, &kit_err));
    FAILS(SPB_INVALID, spb_sector_size_of(&sample, 256 * 4096, 1000, "x", &size, &kit_err));
}

Test(format, every_sector_size_opens_again)
{
    for (uint32_t size = 512; size <= 65536; size *= 2) {
        struct spb_volume *volume = kit_volume(size);
        cr_assert_eq(spb_volume_sector_size(volume), size);
        cr_assert_eq(spb_param_slots(volume), size / 252 * 16);
        cr_assert_eq(spb_event_capacity(volume), size / 76 * 15);
        cr_assert_eq(spb_product_entries(volume), size / 80);
        cr_assert_eq(spb_volume_superblock(volume)->tenant_id, 7);
        cr_assert_eq(spb_volume_superblock(volume)->dp_size, KIT_BLOCKS - 33);
        spb_volume_close(volume);
    }
}

Test(format, refuses_what_would_not_open)
{
    struct spb_device *device;
    struct spb_format_options options = {.total_blocks = 64, .sector_size = 512};

    OK(spb_device_memory_new(64 * 4096, &device, &kit_err));
    FAILS(SPB_INVALID, spb_volume_format(device, &options, &kit_err));
    cr_assert(strstr(kit_err.text, "4096") != NULL, "%s", kit_err.text);
    options.total_blocks = 32;
    FAILS(SPB_INVALID, spb_volume_format(device, &options, &kit_err));
    options = (struct spb_format_options){.total_blocks = 65, .sector_size = 4096};
    FAILS(SPB_INVALID, spb_volume_format(device, &options, &kit_err));
    options = (struct spb_format_options){.total_blocks = 64, .sector_size = 4095};
    FAILS(SPB_INVALID, spb_volume_format(device, &options, &kit_err));
    spb_device_close(device);
}

Test(format, least_image_has_no_products)
{
    struct spb_volume *volume = kit_open(kit_device(512, 33));
    struct spb_product_attributes attributes = {"a", 1, 0, 0};
    struct spb_product product;

    cr_assert_eq(spb_product_entries(volume), 0);
    FAILS(SPB_FULL, spb_volume_put_product(volume, &attributes, "x", 1, false, &product, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_volume_delete_product(volume, "a", 1, &kit_err));
    cr_assert_eq(kit_put(volume, 1, "x"), 1);
    spb_volume_close(volume);
}

Test(open, not_an_image_and_too_short)
{
    struct spb_device *device;
    struct spb_volume *volume;
    struct spb_open_options options = {0};

    OK(spb_device_memory_new(511, &device, &kit_err));
    FAILS(SPB_BAD_SIZE, spb_volume_open(device, &options, &volume, &kit_err));
    spb_device_close(device);
    OK(spb_device_memory_new(33 * 512, &device, &kit_err));
    FAILS(SPB_BAD_MAGIC, spb_volume_open(device, &options, &volume, &kit_err));
    spb_device_close(device);
}
