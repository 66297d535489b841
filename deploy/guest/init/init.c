/*
 * Process 1 of a guest that uses a SpaceOS image as such a guest should: it loads the drivers of
 * its disk, opens the image with libspaceblock (which recovers it), reads what its parameters ask
 * for, logs that it booted, does its work, and ends. Every change is flushed when the library says
 * that it is done; nothing is left to a shutdown that may not come.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "guest.h"
#include "spaceblock/device.h"

static spb_status mount_one(const char *type, const char *where, struct spb_error *err)
{
    (void)mkdir(where, 0755);
    if (mount(type, where, type, MS_NOSUID, NULL) == 0)
        return spb_ok();
    return spb_fail(err, SPB_IO, "mounting %s on %s failed", type, where);
}

static spb_status prepare(struct spb_error *err)
{
    SPB_TRY(mount_one("devtmpfs", "/dev", err));
    SPB_TRY(mount_one("proc", "/proc", err));
    SPB_TRY(mount_one("sysfs", "/sys", err));
    SPB_TRY(guest_load_modules(err));
    return guest_await_disk(err);
}

static spb_status open_image(struct spb_volume **volume, struct spb_error *err)
{
    static const struct spb_open_options options = {.writable = true};
    struct spb_device *device = NULL;

    SPB_TRY(spb_device_file_open(GUEST_DISK, SPB_FILE_WRITE, &device, err));
    spb_status status = spb_volume_open(device, &options, volume, err);
    if (!spb_is_ok(status))
        spb_device_close(device);
    return status;
}

/* What no guest should do, for tests of who notices: another uuid in block 0. */
static spb_status spoil_superblock(struct spb_error *err)
{
    static const struct spb_format_options options = {
        .total_blocks = SPB_BLOCKS_MIN, .sector_size = SPB_BLOCK_SIZE_MIN, .uuid = {0x5a}};
    struct spb_device *device = NULL;
    uint8_t block[SPB_BLOCK_SIZE_MIN];

    SPB_TRY(spb_device_memory_new((uint64_t)SPB_BLOCKS_MIN * SPB_BLOCK_SIZE_MIN, &device, err));
    spb_status status = spb_volume_format(device, &options, err);
    if (spb_is_ok(status))
        status = spb_device_read(device, 0, block, sizeof(block), err);
    spb_device_close(device);
    SPB_TRY(status);
    int disk = open(GUEST_DISK, O_WRONLY | O_CLOEXEC);
    bool written = disk >= 0 && pwrite(disk, block, sizeof(block), 0) == (ssize_t)sizeof(block) &&
                   fsync(disk) == 0;
    if (disk >= 0)
        (void)close(disk);
    return written ? spb_ok() : spb_fail(err, SPB_IO, "writing block 0 of " GUEST_DISK " failed");
}

static spb_status use_image(struct guest_plan *plan, struct spb_error *err)
{
    struct spb_volume *volume = NULL;
    int button = guest_open_button();

    SPB_TRY(open_image(&volume, err));
    spb_status status = guest_read_plan(volume, plan, err);
    if (spb_is_ok(status))
        status =
            guest_log(volume, GUEST_EVENT_BOOT, err, "boot %llu", (unsigned long long)plan->boots);
    if (spb_is_ok(status)) {
        (void)printf("guest: boot %llu\n", (unsigned long long)plan->boots);
        status = guest_work(volume, plan, button, err);
    }
    if (spb_is_ok(status))
        status = guest_log(volume, GUEST_EVENT_END, err, "ends: %s", guest_end_name(plan->end));
    spb_volume_close(volume);
    return status;
}

static void use_console(void)
{
    int console = open("/dev/console", O_RDWR | O_CLOEXEC);

    for (int fd = 0; fd < 3 && console >= 0; fd++)
        (void)dup2(console, fd);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
}

int main(void)
{
    struct guest_plan plan = {.end = GUEST_POWEROFF};
    struct spb_error err;

    spb_status status = prepare(&err);
    use_console();
    if (spb_is_ok(status))
        status = use_image(&plan, &err);
    if (spb_is_ok(status) && plan.spoils_superblock)
        status = spoil_superblock(&err);
    if (!spb_is_ok(status)) {
        (void)printf("guest: failed: %s\n", err.text);
        plan.end = GUEST_PANIC; /* nobody is there to mend it: let the supervisor see */
    }
    (void)printf("guest: ends: %s\n", guest_end_name(plan.end));
    (void)fflush(stdout);
    guest_finish(plan.end);
}
