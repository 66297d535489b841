/* Image files and their locks: creation, owners, read-only openings. */
#include "volume_kit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64], path[128];

static void set_up(void)
{
    (void)snprintf(directory, sizeof(directory), "/tmp/spaceblock-test-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/a.img", directory);
}

static void tear_down(void)
{
    (void)unlink(path);
    (void)rmdir(directory);
}

TestSuite(image_file, .init = set_up, .fini = tear_down);

static const struct spb_format_options options = {
    .total_blocks = 64, .sector_size = 512, .tenant_id = 3};

Test(image_file, is_created_allocated_and_opened)
{
    struct spb_device *device;
    struct stat st;

    OK(spb_image_create(path, &options, false, &kit_err));
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_size, 64 * 512);
    cr_assert_geq(st.st_blocks * 512, 64 * 512, "space is allocated");
    OK(spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
    struct spb_volume *volume = kit_open(device);
    kit_put(volume, 1, "x");
    spb_volume_close(volume);
    OK(spb_device_file_open(path, SPB_FILE_READ, &device, &kit_err));
    struct spb_open_options reading = {0};
    OK(spb_volume_open(device, &reading, &volume, &kit_err));
    kit_expect(volume, 1, 1, "x");
    struct spb_param_put put = {1, "y", 1, SPB_ANY_GENERATION};
    FAILS(SPB_READ_ONLY, spb_volume_put_param(volume, &put, NULL, &kit_err));
    spb_volume_close(volume);
}

Test(image_file, exists_and_replace)
{
    OK(spb_image_create(path, &options, false, &kit_err));
    FAILS(SPB_EXISTS, spb_image_create(path, &options, false, &kit_err));
    OK(spb_image_create(path, &options, true, &kit_err));
}

Test(image_file, has_one_owner)
{
    struct spb_device *first, *second;
    char words[64] = "";
    int pid = -1;

    OK(spb_image_create(path, &options, false, &kit_err));
    OK(spb_device_file_open(path, SPB_FILE_WRITE, &first, &kit_err));
    FAILS(SPB_LOCKED, spb_device_file_open(path, SPB_FILE_WRITE, &second, &kit_err));
    cr_assert(strstr(kit_err.text, path) != NULL, "%s", kit_err.text);
    FAILS(SPB_LOCKED, spb_image_create(path, &options, true, &kit_err));
    OK(spb_device_file_open(path, SPB_FILE_READ, &second, &kit_err));
    cr_assert(spb_device_file_owner(second, words, sizeof(words), &pid));
    cr_assert(strstr(words, "spaceblock") != NULL, "%s", words);
    spb_device_close(first);
    cr_assert_not(spb_device_file_owner(second, words, sizeof(words), &pid));
    spb_device_close(second);
}

/* As QEMU does: shared locks on the bytes of what it uses and what it does not share. */
static int qemu_like(off_t byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int fd = open(path, O_RDWR | O_CLOEXEC);

    cr_assert_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
    return fd;
}

/* A child between fork and execution has all descriptors. */
Test(image_file, is_given_up_though_a_child_has_the_descriptor)
{
    struct spb_device *device;

    OK(spb_image_create(path, &options, false, &kit_err));
    OK(spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
    pid_t child = fork();
    if (child == 0) {
        for (;;)
            (void)pause();
    }
    cr_assert_gt(child, 0);
    spb_device_close(device);
    spb_status status = spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    OK(status);
    spb_device_close(device);
}

Test(image_file, respects_qemu_and_is_lent_to_it)
{
    struct spb_device *device;
    static const off_t bytes[] = {101, 200, 201};

    OK(spb_image_create(path, &options, false, &kit_err));
    for (size_t i = 0; i < 3; i++) {
        int fd = qemu_like(bytes[i]);
        FAILS(SPB_LOCKED, spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
        cr_assert(strstr(kit_err.text, "QEMU") != NULL, "%s", kit_err.text);
        (void)close(fd);
    }
    OK(spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
    OK(spb_device_file_lend(device, &kit_err));
    int fd = qemu_like(101);
    FAILS(SPB_LOCKED, spb_device_file_take_back(device, &kit_err));
    (void)close(fd);
    OK(spb_device_file_take_back(device, &kit_err));
    spb_device_close(device);
}

Test(image_file, bad_paths_and_sizes_leave_nothing)
{
    char missing[160];
    struct spb_format_options huge = {.total_blocks = UINT32_MAX, .sector_size = 65536};
    struct spb_format_options small = {.total_blocks = 32, .sector_size = 512};
    struct spb_device *device;

    (void)snprintf(missing, sizeof(missing), "%s/none/a.img", directory);
    FAILS(SPB_NOT_FOUND, spb_image_create(missing, &options, false, &kit_err));
    FAILS(SPB_FULL, spb_image_create(path, &huge, false, &kit_err));
    FAILS(SPB_INVALID, spb_image_create(path, &small, false, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_device_file_open(path, SPB_FILE_READ, &device, &kit_err));
    FAILS(SPB_INVALID, spb_device_file_open(directory, SPB_FILE_READ, &device, &kit_err));
    cr_assert_eq(rmdir(directory), 0, "the directory is empty");
    cr_assert_eq(mkdir(directory, 0700), 0);
}

Test(image_file, medium_is_read_past_the_cache)
{
    struct spb_device *device;
    uint8_t cached[1536], medium[1536];

    OK(spb_image_create(path, &options, false, &kit_err));
    OK(spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
    memset(cached, 0x5A, sizeof(cached));
    OK(spb_device_write(device, 512, cached, sizeof(cached), &kit_err));
    OK(spb_device_flush(device, &kit_err));
    spb_status status = spb_device_read_medium(device, 512, medium, sizeof(medium), &kit_err);
    if (status.code != SPB_UNSUPPORTED) {
        OK(status);
        cr_assert_arr_eq(medium, cached, sizeof(cached));
    }
    FAILS(SPB_INVALID, spb_device_read(device, 64 * 512, medium, 1, &kit_err));
    FAILS(SPB_INVALID, spb_device_write(device, 64 * 512 - 1, medium, 2, &kit_err));
    spb_device_close(device);
}

/* A file that lost its name or its end would take changes that nobody finds again. */
Test(image_file, changes_to_a_file_that_is_gone_are_not_acknowledged)
{
    struct spb_param_put put = {1, "y", 1, SPB_ANY_GENERATION};
    struct spb_device *device;

    for (int cut = 0; cut < 2; cut++) {
        OK(spb_image_create(path, &options, false, &kit_err));
        OK(spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
        struct spb_volume *volume = kit_open(device);
        kit_put(volume, 1, "x");
        cr_assert_eq(cut ? truncate(path, 1024) : unlink(path), 0);
        FAILS(SPB_IO, spb_volume_put_param(volume, &put, NULL, &kit_err));
        cr_assert(strstr(kit_err.text, "removed, replaced or cut short") != NULL, "%s",
                  kit_err.text);
        FAILS(SPB_POISONED, spb_volume_put_param(volume, &put, NULL, &kit_err));
        cr_assert_not(spb_is_ok(spb_volume_reopen(volume, &kit_err)));
        spb_volume_close(volume);
        (void)unlink(path);
    }
}
