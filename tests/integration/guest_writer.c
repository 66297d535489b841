/*
 * What a guest and its QEMU do to an image, in one process: holds the locks that QEMU holds while
 * it writes an image (bytes 100, 101 and 201 of the file, for reading), and changes the image
 * through the library, as a guest does, on a device that knows of no owner.
 *
 * Usage: guest_writer FILE. Says "open", or "locked" and ends where an owner keeps QEMU out. Each
 * line of standard input is one of these, answered with "ok" or "failed TEXT":
 *   append COUNT CODE        events, the payload of each being its index in decimal
 *   put ID TEXT              a parameter
 *   product NAME SIZE BYTE   a data product of that byte
 *   drop NAME                deletes one
 *   raw OFFSET HEX           bytes, whatever they mean
 *   mapped OFFSET HEX        the same through a mapping, which inotify does not tell of
 *   reset                    the event log as it was at first
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "spaceblock/group.h"
#include "spaceblock/volume.h"

#define LINE_SIZE 8192
#define POINTER_BLOCK 17u

struct disk {
    struct spb_device base;
    int fd;
};

static int fd_of(struct spb_device *device)
{
    return ((struct disk *)(void *)device)->fd;
}

static spb_status disk_read(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                            struct spb_error *err)
{
    if (pread(fd_of(device), buffer, n, (off_t)offset) == (ssize_t)n)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, errno, "reading");
}

static spb_status disk_read_medium(struct spb_device *device, uint64_t offset, void *buffer,
                                   size_t n, struct spb_error *err)
{
    (void)device;
    (void)offset;
    (void)buffer;
    (void)n;
    return spb_fail(err, SPB_UNSUPPORTED, "a guest has no way past its disk");
}

static spb_status disk_write(struct spb_device *device, uint64_t offset, const void *data, size_t n,
                             struct spb_error *err)
{
    if (pwrite(fd_of(device), data, n, (off_t)offset) == (ssize_t)n)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, errno, "writing");
}

static spb_status disk_flush(struct spb_device *device, struct spb_error *err)
{
    if (fdatasync(fd_of(device)) == 0)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, errno, "flushing");
}

static spb_status disk_zero(struct spb_device *device, uint64_t offset, uint64_t n,
                            struct spb_error *err)
{
    (void)device;
    (void)offset;
    (void)n;
    return spb_fail(err, SPB_UNSUPPORTED, "zeroing");
}

static spb_status disk_forgive(struct spb_device *device, struct spb_error *err)
{
    (void)device;
    return spb_fail(err, SPB_UNSUPPORTED, "forgiving");
}

static void disk_close(struct spb_device *device)
{
    (void)close(fd_of(device));
    free(device);
}

static const struct spb_device_ops disk_ops = {
    .read = disk_read,
    .read_medium = disk_read_medium,
    .write = disk_write,
    .flush = disk_flush,
    .zero = disk_zero,
    .forgive = disk_forgive,
    .close = disk_close,
};

static void die(const char *what)
{
    printf("failed %s\n", what);
    exit(1);
}

/* As QEMU: locks first, then asks whether another one minds. */
static bool lock_as_qemu(int fd)
{
    static const off_t bytes[] = {100, 101, 201};
    static const off_t others[] = {101, 201};

    for (size_t i = 0; i < 3; i++) {
        struct flock lock = {
            .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = bytes[i], .l_len = 1};

        if (fcntl(fd, F_OFD_SETLK, &lock) != 0)
            return false;
    }
    for (size_t i = 0; i < 2; i++) {
        struct flock lock = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = others[i], .l_len = 1};

        if (fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK)
            return false;
    }
    return true;
}

static struct spb_volume *open_volume(const char *path)
{
    static const struct spb_open_options options = {.writable = true};
    struct disk *disk = calloc(1, sizeof(*disk));
    struct spb_volume *volume = NULL;
    struct spb_error err;
    struct stat st;

    if (disk == NULL)
        die("no memory");
    disk->fd = open(path, O_RDWR | O_CLOEXEC);
    if (disk->fd < 0 || fstat(disk->fd, &st) != 0)
        die("cannot open it");
    if (!lock_as_qemu(disk->fd)) {
        printf("locked\n");
        exit(1);
    }
    disk->base = (struct spb_device){.ops = &disk_ops,
                                     .size_bytes = (uint64_t)st.st_size,
                                     .sector_size = SPB_SECTOR_SIZE,
                                     .writable = true,
                                     .name = "vda"};
    if (!spb_is_ok(spb_volume_open(&disk->base, &options, &volume, &err)))
        die(err.text);
    return volume;
}

static spb_status append(struct spb_volume *volume, unsigned count, unsigned code,
                         struct spb_error *err)
{
    for (unsigned i = 0; i < count; i++) {
        struct spb_event event = {.severity = 1, .code = (uint16_t)code};
        uint32_t index = 0;

        event.payload_len = (uint8_t)snprintf((char *)event.payload, sizeof(event.payload), "%u",
                                              spb_event_pointer(volume));
        SPB_TRY(spb_volume_append_events(volume, &event, 1, &index, err));
    }
    return spb_ok();
}

static spb_status put(struct spb_volume *volume, unsigned id, const char *text,
                      struct spb_error *err)
{
    struct spb_param_put wanted = {
        .id = id, .value = text, .len = strlen(text), .expected_generation = SPB_ANY_GENERATION};
    uint16_t generation = 0;

    return spb_volume_put_param(volume, &wanted, &generation, err);
}

static spb_status put_product(struct spb_volume *volume, const char *name, size_t size,
                              unsigned byte, struct spb_error *err)
{
    struct spb_product_attributes attributes = {.name = name, .name_len = strlen(name)};
    struct spb_product product;
    uint8_t *data = malloc(size + 1);

    if (data == NULL)
        return spb_fail_memory(err, "making a product");
    memset(data, (int)byte, size);
    spb_status status =
        spb_volume_put_product(volume, &attributes, data, size, true, &product, err);
    free(data);
    return status;
}

static size_t from_hex(const char *hex, uint8_t bytes[LINE_SIZE / 2])
{
    unsigned value;
    size_t n = 0;

    for (; n < LINE_SIZE / 2 && sscanf(hex + 2 * n, "%2x", &value) == 1; n++)
        bytes[n] = (uint8_t)value;
    return n;
}

static spb_status write_raw(struct spb_volume *volume, unsigned long offset, const char *hex,
                            struct spb_error *err)
{
    uint8_t bytes[LINE_SIZE / 2];
    size_t n = from_hex(hex, bytes);

    return disk_write(spb_volume_device(volume), offset, bytes, n, err);
}

static spb_status write_mapped(struct spb_volume *volume, unsigned long offset, const char *hex,
                               struct spb_error *err)
{
    uint8_t bytes[LINE_SIZE / 2];
    size_t n = from_hex(hex, bytes), size = spb_volume_device(volume)->size_bytes;
    uint8_t *mapped =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_of(spb_volume_device(volume)), 0);

    if (mapped == MAP_FAILED)
        return spb_fail_errno(err, SPB_IO, errno, "mapping");
    memcpy(mapped + offset, bytes, n);
    int rc = msync(mapped, size, MS_SYNC);
    (void)munmap(mapped, size);
    return rc == 0 ? spb_ok() : spb_fail_errno(err, SPB_IO, errno, "flushing a mapping");
}

static spb_status reset(struct spb_volume *volume, struct spb_error *err)
{
    static const uint8_t zero[4];

    return disk_write(spb_volume_device(volume),
                      (uint64_t)POINTER_BLOCK * spb_volume_sector_size(volume), zero, sizeof(zero),
                      err);
}

static spb_status run_line(struct spb_volume *volume, const char *line, struct spb_error *err)
{
    static char text[LINE_SIZE];
    unsigned a, b;
    unsigned long size;

    if (sscanf(line, "append %u %u", &a, &b) == 2)
        return append(volume, a, b, err);
    if (sscanf(line, "put %u %8191s", &a, text) == 2)
        return put(volume, a, text, err);
    if (sscanf(line, "product %8191s %lu %u", text, &size, &a) == 3)
        return put_product(volume, text, size, a, err);
    if (sscanf(line, "drop %8191s", text) == 1)
        return spb_volume_delete_product(volume, text, strlen(text), err);
    if (sscanf(line, "raw %lu %8191s", &size, text) == 2)
        return write_raw(volume, size, text, err);
    if (sscanf(line, "mapped %lu %8191s", &size, text) == 2)
        return write_mapped(volume, size, text, err);
    if (strncmp(line, "reset", 5) == 0)
        return reset(volume, err);
    return spb_fail(err, SPB_INVALID, "what is meant?");
}

int main(int argc, char **argv)
{
    char line[LINE_SIZE];
    struct spb_error err;

    if (argc != 2)
        return 2;
    struct spb_volume *volume = open_volume(argv[1]);
    printf("open\n");
    (void)fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (spb_is_ok(run_line(volume, line, &err)))
            printf("ok\n");
        else
            printf("failed %s\n", err.text);
        (void)fflush(stdout);
    }
    spb_volume_close(volume);
    return 0;
}
