/*
 * Every allocation of every operation fails once: the call says so, and nothing has changed. The
 * allocator's functions are wrapped by the linker. A plain main(), since a test framework
 * allocates.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spaceblock/group.h"

static long fail_at; /* counts down to the allocation that fails; 0: none does */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);

static bool fails_now(void)
{
    return fail_at > 0 && --fail_at == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    return fails_now() ? NULL : __real_realloc(block, size);
}

#define BLOCKS 100u

static struct spb_error err;

static void need(spb_status status, const char *what)
{
    if (spb_is_ok(status))
        return;
    printf("%s: %s\n", what, err.text);
    exit(1);
}

static struct spb_volume *fresh(uint32_t sector_size)
{
    struct spb_format_options format = {.total_blocks = BLOCKS, .sector_size = sector_size};
    struct spb_open_options options = {.writable = true};
    struct spb_param_put put = {1, "one", 3, SPB_ANY_GENERATION};
    struct spb_product_attributes attributes = {"p", 1, 0, 0};
    struct spb_device *device;
    struct spb_volume *volume;

    need(spb_device_memory_new((uint64_t)BLOCKS * sector_size, &device, &err), "device");
    need(spb_volume_format(device, &format, &err), "format");
    need(spb_volume_open(device, &options, &volume, &err), "open");
    need(spb_volume_put_param(volume, &put, NULL, &err), "put");
    need(spb_volume_put_product(volume, &attributes, "data", 4, false, NULL, &err), "product");
    return volume;
}

static spb_status do_put(struct spb_volume *volume)
{
    struct spb_param_put put = {1, "two", 3, SPB_ANY_GENERATION};

    return spb_volume_put_param(volume, &put, NULL, &err);
}

static spb_status do_delete(struct spb_volume *volume)
{
    return spb_volume_delete_param(volume, 1, SPB_ANY_GENERATION, &err);
}

static spb_status do_append(struct spb_volume *volume)
{
    static const struct spb_event events[20];

    return spb_volume_append_events(volume, events, 20, NULL, &err);
}

static spb_status do_product(struct spb_volume *volume)
{
    struct spb_product_attributes attributes = {"q", 1, 0, 0};
    static const uint8_t data[1024] = {1};

    return spb_volume_put_product(volume, &attributes, data, sizeof(data), false, NULL, &err);
}

static spb_status do_delete_product(struct spb_volume *volume)
{
    return spb_volume_delete_product(volume, "p", 1, &err);
}

static spb_status do_reopen(struct spb_volume *volume)
{
    return spb_volume_reopen(volume, &err);
}

static spb_status do_check(struct spb_volume *volume)
{
    struct spb_report report;
    spb_status status = spb_volume_repair(volume, NULL, NULL, &report, &err);

    if (spb_is_ok(status))
        spb_report_done(&report);
    return status;
}

static spb_status do_batch(struct spb_volume *volume)
{
    struct spb_param_put puts[2] = {{5, "a", 1, SPB_ANY_GENERATION}, {6, "b", 1, 0}};
    struct spb_group *group;
    spb_status status = spb_group_new(volume, &group, &err);

    if (!spb_is_ok(status))
        return status;
    status = spb_group_put_params(group, puts, 2, NULL, &err);
    if (spb_is_ok(status))
        status = spb_group_carry_out(group, &err);
    if (spb_is_ok(status))
        spb_group_make_visible(group);
    spb_group_free(group);
    return status;
}

/* What of a batch is not there, beside an append of which nothing is. */
static spb_status do_complete(struct spb_volume *volume)
{
    uint8_t *bytes;
    size_t size;
    struct spb_event events[3] = {{.code = 1}};
    struct spb_param_put puts[2] = {{5, "a", 1, SPB_ANY_GENERATION}, {6, "b", 1, 0}};
    long armed = fail_at;
    struct spb_group *group;

    fail_at = 0;
    need(spb_group_new(volume, &group, &err), "group");
    need(spb_group_put_params(group, puts, 2, NULL, &err), "batch");
    need(spb_group_append_events(group, events, 3, NULL, &err), "append");
    need(spb_group_delete_product(group, "p", 1, &err), "delete");
    need(spb_group_encode(group, &bytes, &size, &err), "encode");
    spb_group_free(group);
    fail_at = armed;
    spb_status status = spb_changes_complete(bytes, size, 0, 4, volume, &err);
    free(bytes);
    return status;
}

/* An upload that is cut off, and goes on. */
static spb_status do_upload(struct spb_volume *volume)
{
    static const uint8_t data[1500] = {1, 2};
    struct spb_reservation *reservation = NULL;
    struct spb_product_writer *writer = NULL;
    uint64_t offset = 0;
    uint32_t crc = 0;
    spb_status status = spb_reservation_new_extent(volume, 20, 3, &reservation, &err);

    if (spb_is_ok(status))
        status = spb_product_writer_new(volume, reservation, sizeof(data), &writer, &err);
    if (spb_is_ok(status))
        status = spb_product_writer_write(writer, data, sizeof(data), &err);
    if (spb_is_ok(status))
        status = spb_product_writer_sync(writer, &offset, &crc, &err);
    spb_product_writer_free(writer);
    writer = NULL;
    if (spb_is_ok(status))
        status = spb_product_writer_resume(volume, reservation, sizeof(data), offset, crc, &writer,
                                           &err);
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    return status;
}

static spb_status do_snapshot(struct spb_volume *volume)
{
    struct spb_snapshot *snapshot = NULL;
    struct spb_device *device = NULL;
    spb_status status = spb_snapshot_new(volume, &snapshot, &err);

    if (spb_is_ok(status))
        status = spb_device_memory_new(spb_snapshot_size_bytes(snapshot), &device, &err);
    if (spb_is_ok(status))
        status = spb_snapshot_copy(snapshot, device, NULL, NULL, NULL, &err);
    spb_device_close(device);
    spb_snapshot_free(snapshot);
    return status;
}

static spb_status do_scrub(struct spb_volume *volume)
{
    struct spb_report report;
    spb_status status = spb_volume_scrub(volume, NULL, NULL, &report, &err);

    if (spb_is_ok(status))
        spb_report_done(&report);
    return status;
}

static spb_status do_describe(struct spb_volume *volume)
{
    struct spb_param_put put = {1, "two", 3, SPB_ANY_GENERATION};
    struct spb_change_texts texts = {NULL, NULL, NULL};
    struct spb_group *group;
    spb_status status = spb_group_new(volume, &group, &err);

    if (!spb_is_ok(status))
        return status;
    status = spb_group_put_param(group, &put, NULL, &err);
    if (spb_is_ok(status))
        status = spb_group_describe(group, 0, 1, &texts, &err);
    spb_change_texts_done(&texts);
    spb_group_free(group);
    return status;
}

static const struct {
    const char *name;
    spb_status (*run)(struct spb_volume *volume);
} operations[] = {
    {"put", do_put},
    {"delete", do_delete},
    {"append", do_append},
    {"product", do_product},
    {"delete product", do_delete_product},
    {"reopen", do_reopen},
    {"check and repair", do_check},
    {"batch", do_batch},
    {"complete", do_complete},
    {"describe", do_describe},
    {"upload", do_upload},
    {"snapshot", do_snapshot},
    {"scrub", do_scrub},
};

static uint8_t *bytes_of(struct spb_volume *volume, size_t n)
{
    uint8_t *bytes = __real_malloc(n);

    need(spb_device_read(spb_volume_device(volume), 0, bytes, n, &err), "read");
    return bytes;
}

/* Runs one operation with the nth allocation failing; true where it needed fewer. */
static bool run_with(size_t operation, uint32_t sector_size, long n)
{
    struct spb_volume *volume = fresh(sector_size);
    size_t size = (size_t)33 * sector_size;
    uint8_t *before = bytes_of(volume, size);

    fail_at = n;
    spb_status status = operations[operation].run(volume);
    bool reached = fail_at == 0;
    fail_at = 0;
    if (!spb_is_ok(status) && status.code != SPB_NO_MEMORY) {
        printf("%s, allocation %ld: %s\n", operations[operation].name, n, err.text);
        exit(1);
    }
    if (!spb_is_ok(status)) {
        uint8_t *after = bytes_of(volume, size);
        if (memcmp(before, after, size) != 0) {
            printf("%s, allocation %ld: the medium changed\n", operations[operation].name, n);
            exit(1);
        }
        free(after);
        need(operations[operation].run(volume), "the same again, with memory");
    }
    free(before);
    spb_volume_close(volume);
    return !reached;
}

int main(void)
{
    for (uint32_t sector_size = 512; sector_size <= 4096; sector_size *= 8) {
        for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
            long n = 1;
            while (!run_with(i, sector_size, n))
                n++;
            if (n == 1) {
                printf("%s never allocated: the test tests nothing\n", operations[i].name);
                return 1;
            }
            printf("%s at %u: %ld allocations failed in turn\n", operations[i].name, sector_size,
                   n - 1);
        }
    }
    return 0;
}
