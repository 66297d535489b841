/* Copies of a volume that goes on, and images that get another identity. */
#include "volume_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/medium.h"

static const struct spb_snapshot_identity other = {.uuid = {9, 8, 7, 6}, .tenant_id = 4711};

static uint8_t *bytes_of(struct spb_device *device)
{
    uint8_t *bytes = malloc(device->size_bytes);

    OK(spb_device_read(device, 0, bytes, device->size_bytes, &kit_err));
    return bytes;
}

/* Some of everything, with a hole between two products. */
static void fill(struct spb_volume *volume)
{
    static uint8_t data[3000];

    memset(data, 'd', sizeof(data));
    kit_put(volume, 1, "one");
    kit_put(volume, 1, "uno");
    kit_put(volume, 2, "two");
    kit_append(volume, 7);
    kit_product(volume, "first", data, 1500, false);
    kit_product(volume, "gone", data, 600, false);
    kit_product(volume, "last", data, 3000, false);
    OK(spb_volume_delete_product(volume, "gone", 4, &kit_err));
}

/* What the volume said at the time of fill. */
static void expect_filled(struct spb_volume *volume)
{
    static uint8_t data[3000];
    struct spb_report report;

    memset(data, 'd', sizeof(data));
    kit_expect(volume, 1, 2, "uno");
    kit_expect(volume, 2, 1, "two");
    cr_assert_eq(spb_event_pointer(volume), 1);
    kit_expect_product(volume, "first", data, 1500);
    kit_expect_product(volume, "last", data, 3000);
    OK(spb_volume_check(volume, NULL, NULL, &report, &kit_err));
    cr_assert_eq(report.count, 0, "%s", report.count > 0 ? report.findings[0].text : "");
    cr_assert_eq(report.params_valid, 3);
    cr_assert_eq(report.products_good, 2);
    spb_report_done(&report);
}

/* Everything that fill made is made otherwise. */
static void overwrite(struct spb_volume *volume)
{
    static uint8_t data[6000];

    memset(data, 'x', sizeof(data));
    kit_put(volume, 1, "three");
    OK(spb_volume_delete_param(volume, 2, SPB_ANY_GENERATION, &kit_err));
    for (int i = 0; i < 100; i++)
        kit_append(volume, 8);
    kit_product(volume, "first", data, 1500, true);
    OK(spb_volume_delete_product(volume, "last", 4, &kit_err));
}

static struct spb_device *target_of(const struct spb_snapshot *snapshot)
{
    struct spb_device *device;

    OK(spb_device_memory_new(spb_snapshot_size_bytes(snapshot), &device, &kit_err));
    return device;
}

static void keeps_the_state_of_its_moment(uint32_t sector_size)
{
    struct spb_volume *volume = kit_volume(sector_size), *copied;
    struct spb_snapshot *snapshot;

    fill(volume);
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    cr_assert_eq(spb_snapshot_size_bytes(snapshot), (uint64_t)KIT_BLOCKS * sector_size);
    overwrite(volume);
    struct spb_device *first = target_of(snapshot), *second = target_of(snapshot);
    OK(spb_snapshot_copy(snapshot, first, NULL, NULL, NULL, &kit_err));
    kit_put(volume, 1, "four");
    OK(spb_snapshot_copy(snapshot, second, &other, NULL, NULL, &kit_err));
    spb_snapshot_free(snapshot);
    copied = kit_open(first);
    cr_assert_eq(spb_volume_superblock(copied)->uuid[0], 1);
    cr_assert_eq(spb_volume_superblock(copied)->tenant_id, 7);
    expect_filled(copied);
    spb_volume_close(copied);
    copied = kit_open(second);
    cr_assert_arr_eq(spb_volume_superblock(copied)->uuid, other.uuid, SPB_UUID_SIZE);
    cr_assert_eq(spb_volume_superblock(copied)->tenant_id, 4711);
    cr_assert_eq(spb_volume_superblock(copied)->epoch, KIT_EPOCH);
    expect_filled(copied);
    spb_volume_close(copied);
    spb_volume_close(volume);
}

Test(snapshots, keep_the_state_of_their_moment)
{
    keeps_the_state_of_its_moment(512);
    keeps_the_state_of_its_moment(4096);
    keeps_the_state_of_its_moment(65536);
}

/* Blocks that no entry names, and what else the copy leaves out, are zeros: nothing of what was
 * deleted goes with a copy, and nothing of what was on the target stays. */
Test(snapshots, the_rest_is_zeros)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_snapshot *snapshot;
    struct spb_device *clean, *dirty;
    uint64_t size;

    fill(volume);
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    size = spb_snapshot_size_bytes(snapshot);
    OK(spb_device_memory_new(size, &clean, &kit_err));
    OK(spb_device_memory_new(size, &dirty, &kit_err));
    uint8_t *junk = malloc(size);
    memset(junk, 0xEE, size);
    OK(spb_device_write(dirty, 0, junk, size, &kit_err));
    OK(spb_snapshot_copy(snapshot, clean, NULL, NULL, NULL, &kit_err));
    OK(spb_snapshot_copy(snapshot, dirty, NULL, NULL, NULL, &kit_err));
    uint8_t *a = bytes_of(clean), *b = bytes_of(dirty),
            *original = bytes_of(spb_volume_device(volume));
    cr_assert_arr_eq(a, b, size);
    /* Product "gone" lay in blocks 4 and 5 of the area. */
    for (size_t at = (33 + 4) * 512; at < (33 + 6) * 512; at++) {
        cr_assert_eq(a[at], 0);
        original[at] = 0;
    }
    cr_assert_arr_eq(a, original, size);
    free(a);
    free(b);
    free(original);
    free(junk);
    spb_device_close(clean);
    spb_device_close(dirty);
    spb_snapshot_free(snapshot);
    spb_volume_close(volume);
}

Test(snapshots, blocks_are_free_again_afterwards)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_snapshot *snapshot;
    uint64_t before, held, after;
    uint32_t largest;

    fill(volume);
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    spb_product_space(volume, &before, &largest);
    OK(spb_volume_delete_product(volume, "last", 4, &kit_err));
    spb_product_space(volume, &held, &largest);
    cr_assert_eq(held, before);
    spb_snapshot_free(snapshot);
    spb_product_space(volume, &after, &largest);
    cr_assert_eq(after, before + 6);
    spb_snapshot_free(NULL);
    spb_volume_close(volume);
}

/* What is corrupt is copied as it is, and says so in the copy as well. */
Test(snapshots, damage_goes_along)
{
    struct spb_volume *volume = kit_volume(512), *copied;
    static const uint8_t entry[80] = {0, 0, 0, 9, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 200};
    struct spb_snapshot *snapshot;
    struct spb_report report;
    uint8_t *data;
    size_t size;

    fill(volume);
    kit_poke(volume, 512 + 10, "rot", 3);
    kit_poke(volume, (33 + 1) * 512, "rot", 3);
    kit_poke(volume, 33 * 512 + 160, entry, sizeof(entry));
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    struct spb_device *device = target_of(snapshot);
    OK(spb_snapshot_copy(snapshot, device, NULL, NULL, NULL, &kit_err));
    spb_snapshot_free(snapshot);
    copied = kit_open(device);
    FAILS(SPB_CORRUPT, spb_volume_get_product(copied, "first", 5, &data, &size, &kit_err));
    OK(spb_volume_check(copied, NULL, NULL, &report, &kit_err));
    cr_assert_eq(report.params_corrupt, 1);
    cr_assert_eq(report.products_bad, 2);
    spb_report_done(&report);
    spb_volume_close(copied);
    spb_volume_close(volume);
}

Test(snapshots, a_volume_without_products)
{
    struct spb_volume *volume = kit_open(kit_device(512, 33)), *copied;
    struct spb_snapshot *snapshot;

    kit_put(volume, 1, "one");
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    struct spb_device *device = target_of(snapshot);
    OK(spb_snapshot_copy(snapshot, device, &other, NULL, NULL, &kit_err));
    spb_snapshot_free(snapshot);
    copied = kit_open(device);
    kit_expect(copied, 1, 1, "one");
    spb_volume_close(copied);
    spb_volume_close(volume);
}

Test(snapshots, targets_that_do_not_fit)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_snapshot *snapshot;
    struct spb_device *device;

    fill(volume);
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    OK(spb_device_memory_new(KIT_BLOCKS * 512 - 512, &device, &kit_err));
    FAILS(SPB_INVALID, spb_snapshot_copy(snapshot, device, NULL, NULL, NULL, &kit_err));
    spb_device_close(device);
    /* It would be taken for an image of sector size 1024. */
    OK(spb_device_memory_new(KIT_BLOCKS * 1024, &device, &kit_err));
    FAILS(SPB_INVALID, spb_snapshot_copy(snapshot, device, NULL, NULL, NULL, &kit_err));
    spb_device_close(device);
    OK(spb_device_memory_new(KIT_BLOCKS * 512, &device, &kit_err));
    device->writable = false;
    FAILS(SPB_READ_ONLY, spb_snapshot_copy(snapshot, device, NULL, NULL, NULL, &kit_err));
    spb_device_close(device);
    FAILS(SPB_INVALID,
          spb_snapshot_copy(snapshot, spb_volume_device(volume), NULL, NULL, NULL, &kit_err));
    expect_filled(volume);
    spb_snapshot_free(snapshot);
    spb_volume_close(volume);
}

/* ---- Progress -------------------------------------------------------------------------------- */

struct watch {
    uint64_t calls, last, total, stop_at;
};

static bool watch(void *user, uint64_t done, uint64_t total)
{
    struct watch *w = user;

    cr_assert_leq(w->last, done);
    cr_assert_leq(done, total);
    w->last = done;
    w->total = total;
    return ++w->calls != w->stop_at;
}

Test(snapshots, progress_and_its_end)
{
    struct spb_volume *volume = kit_open(kit_device(4096, 1000));
    struct spb_snapshot *snapshot;
    struct watch seen = {0};
    size_t size = 3u << 20;
    uint8_t *data = calloc(1, size);
    struct spb_error err;

    kit_product(volume, "large", data, size, false);
    free(data);
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    struct spb_device *device = target_of(snapshot);
    OK(spb_snapshot_copy(snapshot, device, NULL, watch, &seen, &kit_err));
    cr_assert_eq(seen.last, seen.total);
    cr_assert_eq(seen.total, 34 * 4096 - 512 + size);
    cr_assert_geq(seen.calls, 4);
    uint64_t calls = seen.calls;
    for (uint64_t stop = 1; stop <= calls; stop++) {
        struct watch ends = {.stop_at = stop};
        struct spb_open_options options = {.writable = true};
        struct spb_volume *none;
        FAILS(SPB_DEADLINE, spb_snapshot_copy(snapshot, device, NULL, watch, &ends, &kit_err));
        cr_assert_eq(spb_volume_open(device, &options, &none, &err).code, SPB_BAD_MAGIC);
    }
    spb_device_close(device);
    spb_snapshot_free(snapshot);
    spb_volume_close(volume);
}

/* ---- Failures ---------------------------------------------------------------------------------
 */

static struct spb_volume *on(struct medium *medium)
{
    struct spb_format_options format = {
        .total_blocks = KIT_BLOCKS, .sector_size = 512, .tenant_id = 7, .uuid = {1, 2, 3}};
    struct spb_device *device = medium_attach(medium);

    OK(spb_volume_format(device, &format, &kit_err));
    return kit_open(device);
}

/* The nth call of a kind fails, of the original or of the target. */
static bool fails_at(enum medium_call call, uint64_t nth, bool at_target)
{
    uint64_t size = (uint64_t)KIT_BLOCKS * 512;
    struct medium *from = medium_new(size, 1), *to = medium_new(size, 2);
    struct medium_failure failure = {.call = call, .nth = nth, .number = EIO, .short_sectors = 1};
    struct spb_volume *volume = on(from);
    struct spb_device *target = medium_attach(to);
    struct spb_snapshot *snapshot;

    fill(volume);
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    medium_fail(at_target ? to : from, &failure);
    spb_status status = spb_snapshot_copy(snapshot, target, NULL, NULL, NULL, &kit_err);
    bool happened = medium_failed(at_target ? to : from);
    cr_assert_eq(status.code, happened ? SPB_IO : SPB_OK, "%s", kit_err.text);
    cr_assert_eq(medium_violations(to), 0, "%s", medium_violation(to));
    /* The original does not suffer. */
    OK(spb_volume_is_writable(volume, &kit_err));
    expect_filled(volume);
    spb_snapshot_free(snapshot);
    spb_device_close(target);
    spb_volume_close(volume);
    medium_free(from);
    medium_free(to);
    return happened;
}

Test(snapshots, every_failure_of_a_medium)
{
    static const struct {
        enum medium_call call;
        bool at_target;
        uint64_t least;
    } kinds[] = {{MEDIUM_READ, false, 2}, {MEDIUM_WRITE, true, 5}, {MEDIUM_FLUSH, true, 3}};

    for (size_t i = 0; i < 3; i++) {
        uint64_t nth = 1;
        while (fails_at(kinds[i].call, nth, kinds[i].at_target))
            nth++;
        cr_assert_geq(nth, kinds[i].least + 1, "only %llu calls", (unsigned long long)nth - 1);
    }
}

/* ---- Files ------------------------------------------------------------------------------------
 */

static struct spb_device *file_of(char path[64], uint64_t size)
{
    struct spb_device *device;

    (void)snprintf(path, 64, "/tmp/test_snapshots.XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    (void)close(fd);
    OK(spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
    return device;
}

/* From a file to a file, where the kernel copies, and to memory, where it cannot. */
Test(snapshots, files)
{
    char from_path[64], to_path[64];
    struct spb_format_options format = {
        .total_blocks = 4000, .sector_size = 512, .tenant_id = 7, .uuid = {1, 2, 3}};
    struct spb_device *from = file_of(from_path, 4000 * 512), *to, *memory;
    struct spb_snapshot *snapshot;
    struct spb_volume *volume, *copied;
    size_t size = 3u << 19;
    uint8_t *data = malloc(size);
    struct stat st;

    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    OK(spb_volume_format(from, &format, &kit_err));
    volume = kit_open(from);
    fill(volume);
    kit_product(volume, "large", data, size, false);
    OK(spb_snapshot_new(volume, &snapshot, &kit_err));
    to = file_of(to_path, spb_snapshot_size_bytes(snapshot));
    to->zeroed = true;
    memory = target_of(snapshot);
    OK(spb_snapshot_copy(snapshot, to, &other, NULL, NULL, &kit_err));
    OK(spb_snapshot_copy(snapshot, memory, &other, NULL, NULL, &kit_err));
    cr_assert_eq(to->zeroed, false);
    uint8_t *a = bytes_of(to), *b = bytes_of(memory);
    cr_assert_arr_eq(a, b, 4000 * 512);
    cr_assert_eq(stat(to_path, &st), 0);
    cr_assert_leq((uint64_t)st.st_blocks * 512, 4000 * 512 - 200000, "the copy has no holes");
    spb_snapshot_free(snapshot);
    copied = kit_open(to);
    kit_expect_product(copied, "large", data, size);
    spb_volume_close(copied);
    spb_device_close(memory);
    spb_volume_close(volume);
    (void)unlink(from_path);
    (void)unlink(to_path);
    free(a);
    free(b);
    free(data);
}

/* ---- Copying between devices ------------------------------------------------------------------
 */

Test(snapshots, device_copies_have_bounds)
{
    struct spb_device *a, *b;
    uint8_t found[4];

    OK(spb_device_memory_new(1000, &a, &kit_err));
    OK(spb_device_memory_new(600, &b, &kit_err));
    OK(spb_device_write(a, 700, "copy", 4, &kit_err));
    OK(spb_device_copy(b, 3, a, 700, 300, &kit_err));
    OK(spb_device_read(b, 3, found, 4, &kit_err));
    cr_assert_arr_eq(found, "copy", 4);
    OK(spb_device_copy(b, 600, a, 1000, 0, &kit_err));
    FAILS(SPB_INVALID, spb_device_copy(b, 0, a, 701, 300, &kit_err));
    FAILS(SPB_INVALID, spb_device_copy(b, 301, a, 700, 300, &kit_err));
    FAILS(SPB_INVALID, spb_device_copy(b, UINT64_MAX, a, 0, 2, &kit_err));
    FAILS(SPB_INVALID, spb_device_copy(b, 0, a, UINT64_MAX, 2, &kit_err));
    b->writable = false;
    FAILS(SPB_READ_ONLY, spb_device_copy(b, 0, a, 0, 1, &kit_err));
    spb_device_close(a);
    spb_device_close(b);
}

/* A file that was cut short behind the device's back. */
Test(snapshots, device_copies_of_a_short_file)
{
    char from_path[64], to_path[64];
    struct spb_device *from = file_of(from_path, 100000), *to = file_of(to_path, 100000);

    cr_assert_eq(truncate(from_path, 50000), 0);
    FAILS(SPB_IO, spb_device_copy(to, 0, from, 40000, 20000, &kit_err));
    OK(spb_device_copy(to, 0, from, 40000, 10000, &kit_err));
    spb_device_close(from);
    spb_device_close(to);
    (void)unlink(from_path);
    (void)unlink(to_path);
}

/* ---- Identity ---------------------------------------------------------------------------------
 */

Test(snapshots, an_image_gets_another_identity)
{
    struct spb_device *device = kit_device(512, KIT_BLOCKS);
    uint8_t *before, *after;
    uint8_t junk[464];

    memset(junk, 'j', sizeof(junk));
    OK(spb_device_write(device, 48, junk, sizeof(junk), &kit_err));
    before = bytes_of(device);
    OK(spb_volume_set_identity(device, &other, &kit_err));
    after = bytes_of(device);
    cr_assert_arr_eq(before + 48, after + 48, device->size_bytes - 48);
    cr_assert_arr_neq(before, after, 48);
    struct spb_volume *volume = kit_open(device);
    const struct spb_superblock *super = spb_volume_superblock(volume);
    cr_assert_arr_eq(super->uuid, other.uuid, SPB_UUID_SIZE);
    cr_assert_eq(super->tenant_id, 4711);
    cr_assert_eq(super->epoch, KIT_EPOCH);
    cr_assert_eq(super->total_blocks, KIT_BLOCKS);
    spb_volume_close(volume);
    free(before);
    free(after);
}

Test(snapshots, what_is_no_image_gets_no_identity)
{
    struct spb_device *device = kit_device(512, KIT_BLOCKS);
    struct spb_device *tiny;
    uint8_t byte = 2;

    OK(spb_device_memory_new(100, &tiny, &kit_err));
    FAILS(SPB_BAD_SIZE, spb_volume_set_identity(tiny, &other, &kit_err));
    spb_device_close(tiny);
    OK(spb_device_memory_new(4096, &tiny, &kit_err));
    FAILS(SPB_BAD_MAGIC, spb_volume_set_identity(tiny, &other, &kit_err));
    spb_device_close(tiny);
    OK(spb_device_write(device, 9, &byte, 1, &kit_err));
    FAILS(SPB_BAD_CRC, spb_volume_set_identity(device, &other, &kit_err));
    device->writable = false;
    FAILS(SPB_READ_ONLY, spb_volume_set_identity(device, &other, &kit_err));
    spb_device_close(device);
}
