/*
 * Initialising a block device: a loop device over a file of this test. Needs root and losetup; exit
 * 77 where they are not to be had.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spaceblock/group.h"
#include "spaceblock/volume.h"

#define DEVICE_BYTES (4u << 20)

struct loop {
    char file[64];
    char device[64]; /* "" until it is set up */
};

static void detach(struct loop *loop)
{
    char command[128];

    if (loop->device[0] != '\0') {
        snprintf(command, sizeof(command), "losetup -d %s", loop->device);
        if (system(command) != 0)
            fprintf(stderr, "init_loop: %s stays attached\n", loop->device);
    }
    unlink(loop->file);
}

_Noreturn static void fail(struct loop *loop, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void fail(struct loop *loop, const char *format, ...)
{
    va_list args;

    fputs("init_loop: FAILED: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    detach(loop);
    exit(1);
}

/* A file of garbage: somebody's data. */
static bool make_file(struct loop *loop)
{
    static uint8_t block[65536];
    int fd = mkstemp(loop->file);

    if (fd < 0)
        return false;
    memset(block, 0xDB, sizeof(block));
    for (size_t done = 0; done < DEVICE_BYTES; done += sizeof(block)) {
        if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
            fail(loop, "writing %s: %s", loop->file, strerror(errno));
    }
    close(fd);
    return true;
}

static bool attach(struct loop *loop)
{
    char command[160];
    FILE *out;
    bool found;

    if (geteuid() != 0)
        return false;
    snprintf(command, sizeof(command), "losetup -f --show %s 2>/dev/null", loop->file);
    out = popen(command, "r");
    if (out == NULL)
        return false;
    found = fgets(loop->device, sizeof(loop->device), out) != NULL;
    loop->device[strcspn(loop->device, "\n")] = '\0';
    return pclose(out) == 0 && found && strncmp(loop->device, "/dev/", 5) == 0;
}

static struct spb_volume *open_volume(struct loop *loop, bool writable)
{
    struct spb_open_options options = {.writable = writable};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;
    struct spb_error err;

    if (!spb_is_ok(spb_device_file_open(loop->device, writable ? SPB_FILE_WRITE : SPB_FILE_READ,
                                        &device, &err)))
        fail(loop, "%s", err.text);
    if (device->size_bytes != DEVICE_BYTES)
        fail(loop, "%s has %llu bytes", loop->device, (unsigned long long)device->size_bytes);
    if (!spb_is_ok(spb_volume_open(device, &options, &volume, &err)))
        fail(loop, "%s", err.text);
    return volume;
}

/* Everything that was somebody's reads as zeros. */
static void check_zeroed(struct loop *loop)
{
    static uint8_t bytes[DEVICE_BYTES];
    struct spb_device *device = NULL;
    struct spb_error err;

    if (!spb_is_ok(spb_device_file_open(loop->device, SPB_FILE_READ, &device, &err)) ||
        !spb_is_ok(spb_device_read(device, 0, bytes, sizeof(bytes), &err)))
        fail(loop, "%s", err.text);
    for (size_t at = 48; at < sizeof(bytes); at++) {
        if (bytes[at] != 0)
            fail(loop, "byte %zu is %#x after formatting", at, bytes[at]);
    }
    spb_device_close(device);
}

static void use(struct loop *loop, uint32_t block_size)
{
    struct spb_param_put put = {42, "on a device", 11, SPB_ANY_GENERATION};
    struct spb_product_attributes attributes = {"product", 7, 1, 2};
    struct spb_volume *volume = open_volume(loop, true);
    uint8_t *data = NULL;
    size_t size = 0;
    struct spb_param param;
    struct spb_error err;

    if (spb_volume_sector_size(volume) != block_size)
        fail(loop, "S is %u", spb_volume_sector_size(volume));
    if (!spb_is_ok(spb_volume_put_param(volume, &put, NULL, &err)) ||
        !spb_is_ok(
            spb_volume_put_product(volume, &attributes, loop, sizeof(*loop), false, NULL, &err)))
        fail(loop, "%s", err.text);
    spb_volume_close(volume);
    volume = open_volume(loop, false);
    if (!spb_is_ok(spb_param_find(volume, 42, &param, NULL, &err)) ||
        !spb_is_ok(spb_volume_get_product(volume, "product", 7, &data, &size, &err)))
        fail(loop, "%s", err.text);
    if (param.len != 11 || size != sizeof(*loop) || memcmp(data, loop, size) != 0)
        fail(loop, "the device gives back something else");
    free(data);
    spb_volume_close(volume);
}

static void run(struct loop *loop, uint32_t block_size)
{
    struct spb_format_options options = {
        .total_blocks = DEVICE_BYTES / block_size, .sector_size = block_size, .epoch = 1700000000};
    struct spb_error err;

    if (spb_is_ok(spb_image_create(loop->device, &options, false, &err)))
        fail(loop, "a device is formatted without replace");
    if (!spb_is_ok(spb_image_create(loop->device, &options, true, &err)))
        fail(loop, "%s", err.text);
    check_zeroed(loop);
    use(loop, block_size);
    options.total_blocks++;
    if (spb_is_ok(spb_image_create(loop->device, &options, true, &err)))
        fail(loop, "more blocks than the device has");
    printf("init_loop: %s with S=%u: formatted, written, read back\n", loop->device, block_size);
}

int main(void)
{
    struct loop loop = {.file = "/tmp/spaceblock-loop-XXXXXX"};

    if (!make_file(&loop))
        fail(&loop, "making a file: %s", strerror(errno));
    if (!attach(&loop)) {
        loop.device[0] = '\0';
        detach(&loop);
        puts("init_loop: skipped: no loop device to be had");
        return 77;
    }
    run(&loop, 512);
    run(&loop, 4096);
    detach(&loop);
    return 0;
}
