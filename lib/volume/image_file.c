/*
 * Making images: format of any device, and files that appear under their name only when complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "volume/state.h"

/* ---- Format --------------------------------------------------------------------------------- */

static spb_status check_options(const struct spb_format_options *options, const char *name,
                                struct spb_error *err)
{
    if (!spb_sector_size_is_valid(options->sector_size))
        return spb_fail(err, SPB_INVALID,
                        "cannot initialise %s: sector size %u is not a power of two from %u to %u",
                        name, options->sector_size, SPB_BLOCK_SIZE_MIN, SPB_BLOCK_SIZE_MAX);
    if (options->total_blocks < SPB_BLOCKS_MIN)
        return spb_fail(err, SPB_INVALID, "cannot initialise %s: %u blocks, expected at least %u",
                        name, options->total_blocks, SPB_BLOCKS_MIN);
    return spb_ok();
}

spb_status spb_format_check_device(const struct spb_device *device, uint32_t total_blocks,
                                   uint32_t sector_size, struct spb_error *err)
{
    uint64_t blocks = total_blocks, need = blocks * sector_size;
    uint64_t quotient = device->size_bytes % blocks == 0 ? device->size_bytes / blocks : 0;

    if (need > device->size_bytes)
        return spb_fail(err, SPB_INVALID,
                        "cannot initialise %s: %u blocks of %u bytes need %llu bytes, it has %llu",
                        device->name, total_blocks, sector_size, (unsigned long long)need,
                        (unsigned long long)device->size_bytes);
    if (spb_sector_size_is_valid(quotient) && quotient != sector_size)
        return spb_fail(err, SPB_INVALID,
                        "cannot initialise %s: its %llu bytes and %u blocks would be taken for "
                        "sector size %llu, not %u; choose another number of blocks",
                        device->name, (unsigned long long)device->size_bytes, total_blocks,
                        (unsigned long long)quotient, sector_size);
    return spb_ok();
}

/*
 * A device was somebody's: first no image, then nothing of theirs, then the new image. The first
 * step is the superblock's sector alone: an old image may have had smaller blocks, whose records a
 * larger block 0 would take with it while its superblock still stands.
 */
static spb_status wipe(struct spb_device *device, struct spb_error *err)
{
    if (device->zeroed)
        return spb_ok();
    SPB_TRY(spb_carry_zeros(device, 0, SPB_SECTOR_SIZE, err));
    return spb_carry_zeros(device, SPB_SECTOR_SIZE, device->size_bytes - SPB_SECTOR_SIZE, err);
}

spb_status spb_volume_format(struct spb_device *device, const struct spb_format_options *options,
                             struct spb_error *err)
{
    SPB_TRY(check_options(options, device->name, err));
    SPB_TRY(spb_format_check_device(device, options->total_blocks, options->sector_size, err));
    struct spb_superblock super = {
        .format_version = SPB_FORMAT_VERSION,
        .tenant_id = options->tenant_id,
        .total_blocks = options->total_blocks,
        .dp_start = SPB_DP_FIRST_BLOCK,
        .dp_size = options->total_blocks - SPB_DP_FIRST_BLOCK,
        .epoch = options->epoch,
    };
    struct spb_sector sector = {.number = 0};

    memcpy(super.uuid, options->uuid, SPB_UUID_SIZE);
    spb_superblock_encode(&super, sector.bytes);
    SPB_TRY(wipe(device, err));
    device->zeroed = false;
    return spb_carry_round(device, &sector, 1, err);
}

/* ---- Files ---------------------------------------------------------------------------------- */

/* Names of one creation. */
struct target {
    const char *path;
    char *directory; /* owned */
    char *temporary; /* owned; in the same directory */
};

static void target_done(struct target *target)
{
    free(target->directory);
    free(target->temporary);
}

static spb_status target_init(struct target *target, const char *path, struct spb_error *err)
{
    uint64_t number;
    char *for_dir = strdup(path), *for_base = strdup(path);

    *target = (struct target){.path = path};
    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number)) {
        free(for_dir);
        free(for_base);
        return spb_fail_errno(err, SPB_IO, errno, "cannot make a random name for %s", path);
    }
    if (for_dir != NULL && for_base != NULL) {
        target->directory = strdup(dirname(for_dir));
        if (target->directory != NULL &&
            asprintf(&target->temporary, "%s/.%s.tmp-%016llx", target->directory,
                     basename(for_base), (unsigned long long)number) < 0)
            target->temporary = NULL;
    }
    free(for_dir);
    free(for_base);
    if (target->directory == NULL || target->temporary == NULL) {
        target_done(target);
        return spb_fail_memory(err, "creating an image");
    }
    return spb_ok();
}

static spb_status fail_create(const char *path, int number, struct spb_error *err)
{
    enum spb_code code = spb_code_of_errno(number);

    if (number == ENOENT || number == ENOTDIR)
        code = SPB_NOT_FOUND;
    else if (number == EACCES || number == EPERM || number == EROFS)
        code = SPB_READ_ONLY;
    else if (number == EEXIST)
        code = SPB_EXISTS;
    else if (number == ENAMETOOLONG || number == EINVAL)
        code = SPB_INVALID;
    return spb_fail_errno(err, code, number, "cannot create %s", path);
}

/* Refuses early what can never fit: allocating would fill the disk for a while first. */
static spb_status check_room(const struct target *target, uint64_t size, struct spb_error *err)
{
    struct statvfs fs;

    if (statvfs(target->directory, &fs) < 0)
        return fail_create(target->path, errno, err);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (size > room || size > (uint64_t)INT64_MAX)
        return spb_fail(err, SPB_FULL,
                        "cannot create %s: it needs %llu bytes, its file system has %llu free",
                        target->path, (unsigned long long)size, (unsigned long long)room);
    return spb_ok();
}

/* The temporary file: whole, allocated, zeros. */
static spb_status allocate(const struct target *target, uint64_t size, struct spb_error *err)
{
    int fd = open(target->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0)
        return fail_create(target->path, errno, err);
    int number = posix_fallocate(fd, 0, (off_t)size);
    if (number == 0 && fsync(fd) < 0)
        number = errno;
    (void)close(fd);
    return number == 0 ? spb_ok() : fail_create(target->path, number, err);
}

static spb_status format_file(const struct target *target, const struct spb_format_options *options,
                              struct spb_error *err)
{
    struct spb_device *device;

    SPB_TRY(spb_device_file_open(target->temporary, SPB_FILE_WRITE, &device, err));
    device->zeroed = true;
    spb_status status = spb_volume_format(device, options, err);
    spb_device_close(device);
    return status;
}

static spb_status sync_directory(const struct target *target, struct spb_error *err)
{
    int fd = open(target->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int number = fd < 0 ? errno : 0;

    if (fd >= 0 && fsync(fd) < 0)
        number = errno;
    if (fd >= 0)
        (void)close(fd);
    if (number == 0)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, number,
                          "cannot make the name %s durable: it may or may not be there after a "
                          "power loss",
                          target->path);
}

static spb_status give_name(const struct target *target, bool replace, struct spb_error *err)
{
    int rc = replace
                 ? rename(target->temporary, target->path)
                 : renameat2(AT_FDCWD, target->temporary, AT_FDCWD, target->path, RENAME_NOREPLACE);

    if (rc < 0 && !replace && errno == EINVAL) {
        /* A file system without RENAME_NOREPLACE: a link never replaces either. */
        rc = link(target->temporary, target->path);
        if (rc == 0)
            (void)unlink(target->temporary);
    }
    if (rc < 0 && errno == EEXIST)
        return spb_fail(err, SPB_EXISTS, "cannot create %s: it exists", target->path);
    if (rc < 0)
        return fail_create(target->path, errno, err);
    return sync_directory(target, err);
}

static spb_status create_file(const char *path, const struct spb_format_options *options,
                              bool replace, struct spb_error *err)
{
    struct target target;
    uint64_t size = (uint64_t)options->total_blocks * options->sector_size;

    SPB_TRY(target_init(&target, path, err));
    spb_status status = check_room(&target, size, err);
    if (spb_is_ok(status)) {
        status = allocate(&target, size, err);
        if (spb_is_ok(status))
            status = format_file(&target, options, err);
        if (spb_is_ok(status))
            status = give_name(&target, replace, err);
        /* Gone already where it got its name. */
        if (!spb_is_ok(status))
            (void)unlink(target.temporary);
    }
    target_done(&target);
    return status;
}

/* What stands under the path is locked while it is replaced, so that nobody's work is lost. */
static spb_status replace_existing(const char *path, bool is_block,
                                   const struct spb_format_options *options, struct spb_error *err)
{
    struct spb_device *device;
    char *real = realpath(path, NULL); /* through a link the file is replaced, not the link */

    if (real == NULL)
        return fail_create(path, errno, err);
    spb_status status = spb_device_file_open(real, SPB_FILE_WRITE, &device, err);
    if (spb_is_ok(status)) {
        status = is_block ? spb_volume_format(device, options, err)
                          : create_file(real, options, true, err);
        spb_device_close(device);
    }
    free(real);
    return status;
}

spb_status spb_image_create(const char *path, const struct spb_format_options *options,
                            bool replace, struct spb_error *err)
{
    struct stat st;

    SPB_TRY(check_options(options, path, err));
    if (stat(path, &st) < 0) {
        if (errno != ENOENT)
            return fail_create(path, errno, err);
        return create_file(path, options, false, err);
    }
    if (!replace)
        return spb_fail(err, SPB_EXISTS, "cannot create %s: it exists", path);
    return replace_existing(path, S_ISBLK(st.st_mode), options, err);
}
