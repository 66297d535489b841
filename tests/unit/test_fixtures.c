/*
 * Every fixture image through the library, compared with what its manifest says that it holds. A
 * plain main(): without the fixtures it exits 77, which the runner reports as skipped.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spaceblock/group.h"

static int failures;

#define EXPECT(cond, name, ...)                                                                    \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("%s: ", name);                                                                  \
            printf(__VA_ARGS__);                                                                   \
            printf(" (%s)\n", #cond);                                                              \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

static uint8_t *unpack(const char *path, size_t *size)
{
    char command[640];
    uint8_t *bytes = malloc(64u << 20);

    (void)snprintf(command, sizeof(command), "gzip -dc '%s'", path);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL || bytes == NULL)
        abort();
    *size = fread(bytes, 1, 64u << 20, pipe);
    if (pclose(pipe) != 0)
        abort();
    return bytes;
}

static uint32_t number(const json_t *object, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(object, key));
}

static bool is_hex_of(const json_t *text, const uint8_t *bytes, size_t n)
{
    const char *hex = json_string_value(text);

    if (hex == NULL || strlen(hex) != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char want[3];
        (void)snprintf(want, sizeof(want), "%02x", bytes[i]);
        if (memcmp(hex + 2 * i, want, 2) != 0)
            return false;
    }
    return true;
}

static void expect_superblock(const char *name, const struct spb_volume *volume, const json_t *want)
{
    const struct spb_superblock *super = spb_volume_superblock(volume);

    EXPECT(spb_volume_sector_size(volume) == number(want, "sector_size"), name, "sector size");
    EXPECT(super->tenant_id == number(want, "tenant_id"), name, "tenant");
    EXPECT(super->total_blocks == number(want, "total_blocks"), name, "blocks");
    EXPECT(super->dp_start == number(want, "dp_start"), name, "dp_start");
    EXPECT(super->dp_size == number(want, "dp_size"), name, "dp_size");
    EXPECT(super->epoch == number(want, "epoch"), name, "epoch");
    EXPECT(is_hex_of(json_object_get(want, "uuid"), super->uuid, SPB_UUID_SIZE), name, "uuid");
}

static void expect_params(const char *name, const struct spb_volume *volume, const json_t *want)
{
    const json_t *params = json_object_get(want, "params");
    const json_t *corrupt = json_object_get(want, "corrupt_param_slots");
    size_t valid = 0, rotten = 0;
    struct spb_param param;
    struct spb_error err;

    for (uint32_t slot = 0; slot < spb_param_slots(volume); slot++) {
        if (!spb_is_ok(spb_param_read_slot(volume, slot, &param, &err)))
            abort();
        if (param.state == SPB_PARAM_CORRUPT) {
            json_t *at = json_array_get(corrupt, rotten++);
            EXPECT(json_integer_value(at) == slot, name, "corrupt slot %u", slot);
        } else if (param.state == SPB_PARAM_VALID) {
            json_t *at = json_array_get(params, valid++);
            EXPECT(number(at, "slot") == slot && number(at, "id") == param.id &&
                       number(at, "generation") == param.generation &&
                       is_hex_of(json_object_get(at, "value_hex"), param.value, param.len),
                   name, "slot %u", slot);
        }
    }
    EXPECT(valid == json_array_size(params), name, "%zu valid entries", valid);
    EXPECT(rotten == json_array_size(corrupt), name, "%zu corrupt slots", rotten);
}

static void expect_latest(const char *name, const struct spb_volume *volume, const json_t *want)
{
    const json_t *latest = json_object_get(want, "latest_params");
    struct spb_param *params;
    size_t count;
    struct spb_error err;

    if (!spb_is_ok(spb_param_latest(volume, &params, &count, &err)))
        abort();
    EXPECT(count == json_array_size(latest), name, "%zu newest", count);
    for (size_t i = 0; i < count; i++) {
        json_t *at = json_array_get(latest, i);
        EXPECT(number(at, "id") == params[i].id && number(at, "slot") == params[i].slot, name,
               "newest of %u", params[i].id);
    }
    free(params);
}

static void expect_events(const char *name, const struct spb_volume *volume, const json_t *want)
{
    const json_t *events = json_object_get(want, "events");
    const json_t *corrupt = json_object_get(want, "corrupt_event_indexes");
    size_t valid = 0, rotten = 0;
    struct spb_event event;
    struct spb_error err;

    EXPECT(spb_event_pointer(volume) == number(want, "event_pointer"), name, "pointer");
    EXPECT(spb_event_capacity(volume) == number(want, "event_capacity"), name, "capacity");
    for (uint32_t i = spb_event_oldest(volume); i < spb_event_pointer(volume); i++) {
        if (!spb_is_ok(spb_event_read(volume, i, &event, &err)))
            abort();
        if (event.corrupt) {
            EXPECT(json_integer_value(json_array_get(corrupt, rotten++)) == i, name, "event %u", i);
            continue;
        }
        json_t *at = json_array_get(events, valid++);
        EXPECT(number(at, "index") == i && number(at, "timestamp") == event.timestamp &&
                   number(at, "severity") == event.severity && number(at, "code") == event.code &&
                   is_hex_of(json_object_get(at, "payload_hex"), event.payload, event.payload_len),
               name, "event %u", i);
    }
    EXPECT(valid == json_array_size(events), name, "%zu events", valid);
    EXPECT(rotten == json_array_size(corrupt), name, "%zu corrupt events", rotten);
}

static void expect_product(const char *name, const struct spb_volume *volume,
                           const struct spb_product *product, const json_t *want)
{
    uint64_t length = 0;
    struct spb_error err;
    char crc[16];

    (void)snprintf(crc, sizeof(crc), "%08x", product->crc);
    EXPECT(number(want, "entry") == product->entry &&
               number(want, "block_offset") == product->block_offset &&
               number(want, "block_count") == product->block_count &&
               number(want, "class") == product->product_class &&
               number(want, "priority") == product->priority &&
               strcmp(json_string_value(json_object_get(want, "crc32c")), crc) == 0,
           name, "entry %u", product->entry);
    bool good = spb_is_ok(spb_product_verify(volume, product, NULL, NULL, &length, &err));
    EXPECT(good == json_is_true(json_object_get(want, "ok")), name, "entry %u: %s", product->entry,
           good ? "good" : err.text);
    if (!good)
        return;
    uint8_t *data = malloc((size_t)length + 1);
    if (data == NULL ||
        !spb_is_ok(spb_product_read(volume, product, 0, data, (size_t)length, &err)))
        abort();
    EXPECT(length == number(want, "length") &&
               is_hex_of(json_object_get(want, "data_hex"), data, (size_t)length),
           name, "data of entry %u", product->entry);
    free(data);
}

static void expect_products(const char *name, const struct spb_volume *volume, const json_t *want)
{
    const json_t *dps = json_object_get(want, "dps");
    size_t seen = 0;
    struct spb_product product;
    struct spb_error err;

    for (uint32_t i = 0; i < spb_product_entries(volume); i++) {
        if (!spb_is_ok(spb_product_entry(volume, i, &product, &err)))
            abort();
        if (product.state != SPB_PRODUCT_FREE)
            expect_product(name, volume, &product, json_array_get(dps, seen++));
    }
    EXPECT(seen == json_array_size(dps), name, "%zu entries", seen);
}

/* The manifest's word for a damage of the superblock. */
static const char *word_of(enum spb_code code)
{
    switch (code) {
    case SPB_BAD_MAGIC:
        return "magic";
    case SPB_BAD_CRC:
        return "crc";
    case SPB_BAD_VERSION:
        return "version";
    case SPB_BAD_DP_AREA:
        return "dp area";
    case SPB_BAD_SIZE:
        return "size";
    default:
        return spb_code_name(code);
    }
}

static void check_fixture(const char *folder, const char *name, const json_t *want)
{
    char path[512];
    size_t size;
    struct spb_error err = {0};
    struct spb_device *device;
    struct spb_volume *volume;
    struct spb_open_options options = {.writable = false};

    (void)snprintf(path, sizeof(path), "%s/fixtures/space/%s.img.gz", folder, name);
    uint8_t *bytes = unpack(path, &size);
    if (!spb_is_ok(spb_device_memory_new(size, &device, &err)) ||
        !spb_is_ok(spb_device_write(device, 0, bytes, size, &err)))
        abort();
    free(bytes);
    spb_status status = spb_volume_open(device, &options, &volume, &err);
    const char *error = json_string_value(json_object_get(want, "error"));
    if (error != NULL || !spb_is_ok(status)) {
        EXPECT(error != NULL && strcmp(word_of(status.code), error) == 0, name, "%s: %s",
               word_of(status.code), err.text);
        spb_is_ok(status) ? spb_volume_close(volume) : spb_device_close(device);
        return;
    }
    expect_superblock(name, volume, want);
    expect_params(name, volume, want);
    expect_latest(name, volume, want);
    expect_events(name, volume, want);
    expect_products(name, volume, want);
    spb_volume_close(volume);
}

int main(void)
{
    const char *folder = getenv("SPB_FIXTURES_DIR"), *name;
    char path[512];
    json_t *want;

    (void)snprintf(path, sizeof(path), "%s/fixtures/space/manifest.json", folder ? folder : ".");
    json_t *manifest = json_load_file(path, JSON_ALLOW_NUL, NULL);
    if (manifest == NULL) {
        printf("skipped: no %s\n", path);
        return 77;
    }
    json_object_foreach(manifest, name, want) check_fixture(folder, name, want);
    printf("%zu fixtures, %d failures\n", json_object_size(manifest), failures);
    json_decref(manifest);
    return failures == 0 ? 0 : 1;
}
