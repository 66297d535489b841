/* What the tests of volumes share: a fresh volume in memory, and calls that must succeed. */
#ifndef TESTS_UNIT_VOLUME_KIT_H
#define TESTS_UNIT_VOLUME_KIT_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "spaceblock/group.h"

#define KIT_BLOCKS 100u
#define KIT_EPOCH 1700000000u

static struct spb_error kit_err __attribute__((unused));

/* Runs a call that takes &kit_err last and must succeed. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        spb_status kit_status_ = (call);                                                           \
        cr_assert(spb_is_ok(kit_status_), "%s: %s: %s", #call, spb_code_name(kit_status_.code),    \
                  kit_err.text);                                                                   \
    } while (0)

/* Runs a call that must fail with a code and say why. */
#define FAILS(expected, call)                                                                      \
    do {                                                                                           \
        kit_err.text[0] = '\0';                                                                    \
        spb_status kit_status_ = (call);                                                           \
        cr_assert_eq(kit_status_.code, expected, "%s: %s, expected %s: %s", #call,                 \
                     spb_code_name(kit_status_.code), spb_code_name(expected), kit_err.text);      \
        cr_assert_eq(kit_err.code, expected);                                                      \
        cr_assert_gt(strlen(kit_err.text), 10, "%s gave no reason", #call);                        \
    } while (0)

__attribute__((unused)) static struct spb_device *kit_device(uint32_t sector_size, uint32_t blocks)
{
    struct spb_device *device;
    struct spb_format_options options = {
        .total_blocks = blocks,
        .sector_size = sector_size,
        .tenant_id = 7,
        .epoch = KIT_EPOCH,
        .uuid = {1, 2, 3},
    };

    OK(spb_device_memory_new((uint64_t)blocks * sector_size, &device, &kit_err));
    OK(spb_volume_format(device, &options, &kit_err));
    return device;
}

__attribute__((unused)) static struct spb_volume *kit_open(struct spb_device *device)
{
    struct spb_volume *volume;
    struct spb_open_options options = {.writable = true};

    OK(spb_volume_open(device, &options, &volume, &kit_err));
    return volume;
}

__attribute__((unused)) static struct spb_volume *kit_volume(uint32_t sector_size)
{
    return kit_open(kit_device(sector_size, KIT_BLOCKS));
}

__attribute__((unused)) static uint16_t kit_put(struct spb_volume *volume, uint32_t id,
                                                const char *value)
{
    struct spb_param_put put = {id, value, strlen(value), SPB_ANY_GENERATION};
    uint16_t generation = 0;

    OK(spb_volume_put_param(volume, &put, &generation, &kit_err));
    return generation;
}

__attribute__((unused)) static void kit_expect(struct spb_volume *volume, uint32_t id,
                                               uint16_t generation, const char *value)
{
    struct spb_param param;

    OK(spb_param_find(volume, id, &param, NULL, &kit_err));
    cr_assert_eq(param.generation, generation, "generation %u, expected %u", param.generation,
                 generation);
    cr_assert_eq(param.len, strlen(value));
    cr_assert_arr_eq(param.value, value, param.len);
}

__attribute__((unused)) static uint32_t kit_append(struct spb_volume *volume, uint16_t code)
{
    struct spb_event event = {.severity = 1, .code = code, .payload_len = 2, .payload = "hi"};
    uint32_t index = 0;

    OK(spb_volume_append_events(volume, &event, 1, &index, &kit_err));
    return index;
}

__attribute__((unused)) static struct spb_product kit_product(struct spb_volume *volume,
                                                              const char *name, const void *data,
                                                              size_t size, bool replace)
{
    struct spb_product_attributes attributes = {name, strlen(name), 3, 2};
    struct spb_product product;

    OK(spb_volume_put_product(volume, &attributes, data, size, replace, &product, &kit_err));
    return product;
}

__attribute__((unused)) static void kit_expect_product(struct spb_volume *volume, const char *name,
                                                       const void *data, size_t size)
{
    uint8_t *found;
    size_t found_size;

    OK(spb_volume_get_product(volume, name, strlen(name), &found, &found_size, &kit_err));
    cr_assert_eq(found_size, size, "%s: %zu bytes, expected %zu", name, found_size, size);
    cr_assert(size == 0 || memcmp(found, data, size) == 0);
    free(found);
}

/* Overwrites bytes behind the volume's back and reads its state again. */
__attribute__((unused)) static void kit_poke(struct spb_volume *volume, uint64_t at,
                                             const void *bytes, size_t n)
{
    OK(spb_device_write(spb_volume_device(volume), at, bytes, n, &kit_err));
    OK(spb_volume_refresh(volume, &kit_err));
}

#endif
