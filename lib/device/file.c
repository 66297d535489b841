/*
 * A device on a regular file or a block device, through the page cache.
 *
 * Flushes of one device are serialised and the first failure is kept: Linux tells a failed
 * writeback once per open file, so of two threads that flush together the other one would see
 * success. After a failure every flush fails until forgive(), which is refused where the medium
 * cannot be read past the page cache; then a note beside the file keeps later openings from
 * trusting it until the machine restarts.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/status.h"
#include "device/lock.h"
#include "spaceblock/device.h"

/* O_DIRECT wants addresses, offsets and lengths aligned to the logical block size: this suits all.
 */
#define DIRECT_ALIGN 4096u
#define ZERO_PIECE ((size_t)1 << 20)
/* At once from the page cache: a kernel that does not preempt itself gives the processor to nobody
 * else meanwhile. */
#define READ_PIECE ((size_t)128 << 10)
#define BOOT_ID_SIZE 36

struct file_device {
    struct spb_device base; /* first: the table's functions get its address */
    int fd;
    bool is_block;
    pthread_mutex_t flush_lock; /* guards flush_errno, and is held while flushing */
    int flush_errno;            /* of the first failed flush; 0: none */
    char *path;
};

static struct file_device *of(struct spb_device *device)
{
    return (struct file_device *)(void *)device;
}

static spb_status file_read_fd(int fd, const char *name, uint64_t offset, void *buffer, size_t n,
                               struct spb_error *err)
{
    uint8_t *at = buffer;

    while (n > 0) {
        ssize_t got = pread(fd, at, n < READ_PIECE ? n : READ_PIECE, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return spb_fail_errno(err, SPB_IO, errno, "cannot read %zu bytes at %llu of %s", n,
                                  (unsigned long long)offset, name);
        if (got == 0)
            return spb_fail(err, SPB_IO, "cannot read %zu bytes at %llu of %s: it ends there", n,
                            (unsigned long long)offset, name);
        at += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return spb_ok();
}

static spb_status file_read(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                            struct spb_error *err)
{
    return file_read_fd(of(device)->fd, device->name, offset, buffer, n, err);
}

static int open_direct(struct file_device *file)
{
    char link[64];

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", file->fd);
    return open(link, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

static spb_status direct_read(int fd, struct spb_device *device, uint64_t offset, void *buffer,
                              size_t n, struct spb_error *err)
{
    uint64_t start = offset - offset % DIRECT_ALIGN;
    uint64_t end = (offset + n + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
    void *aligned = NULL;
    size_t done = 0, want = (size_t)(end - start), need = (size_t)(offset + n - start);

    if (posix_memalign(&aligned, DIRECT_ALIGN, want) != 0)
        return spb_fail_memory(err, "reading a medium directly");
    while (done < need) {
        ssize_t got = pread(fd, (uint8_t *)aligned + done, want - done, (off_t)(start + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            int number = got < 0 ? errno : EIO;
            bool unsupported = number == EINVAL && done == 0;
            free(aligned);
            return spb_fail_errno(err, unsupported ? SPB_UNSUPPORTED : SPB_IO, number,
                                  "cannot read %zu bytes at %llu of %s past the page cache", n,
                                  (unsigned long long)offset, device->name);
        }
        done += (size_t)got;
    }
    memcpy(buffer, (uint8_t *)aligned + (offset - start), n);
    free(aligned);
    return spb_ok();
}

static spb_status file_read_medium(struct spb_device *device, uint64_t offset, void *buffer,
                                   size_t n, struct spb_error *err)
{
    int fd = open_direct(of(device));

    if (fd < 0)
        return spb_fail_errno(err, errno == EINVAL ? SPB_UNSUPPORTED : SPB_IO, errno,
                              "cannot open %s past the page cache", device->name);
    spb_status status = direct_read(fd, device, offset, buffer, n, err);
    (void)close(fd);
    return status;
}

static spb_status file_write(struct spb_device *device, uint64_t offset, const void *data, size_t n,
                             struct spb_error *err)
{
    const uint8_t *at = data;

    while (n > 0) {
        ssize_t put = pwrite(of(device)->fd, at, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return spb_fail_errno(err, SPB_IO, put < 0 ? errno : EIO,
                                  "cannot write %zu bytes at %llu of %s", n,
                                  (unsigned long long)offset, device->name);
        at += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return spb_ok();
}

/* ---- The note of a failed flush where the medium cannot be read directly -------------------- */

static bool read_boot_id(char id[BOOT_ID_SIZE])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    ssize_t got = read(fd, id, BOOT_ID_SIZE);
    (void)close(fd);
    return got == BOOT_ID_SIZE;
}

static char *note_path(const char *path)
{
    char *copy_dir = strdup(path), *copy_base = strdup(path), *note = NULL;

    if (copy_dir != NULL && copy_base != NULL &&
        asprintf(&note, "%s/.%s.flush-failed", dirname(copy_dir), basename(copy_base)) < 0)
        note = NULL;
    free(copy_dir);
    free(copy_base);
    return note;
}

/* Some file systems open for direct reading, and then do not read: so one is tried. */
static bool has_direct(struct file_device *file)
{
    uint8_t byte;
    int fd = open_direct(file);

    if (fd < 0)
        return false;
    spb_status status = direct_read(fd, &file->base, 0, &byte, 1, NULL);
    (void)close(fd);
    return status.code != SPB_UNSUPPORTED;
}

/* Best effort: the failure itself is reported to the caller whatever becomes of the note. */
static void leave_note(struct file_device *file)
{
    char id[BOOT_ID_SIZE];
    char *note = note_path(file->path);

    if (note != NULL && read_boot_id(id)) {
        int fd = open(note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd >= 0) {
            if (write(fd, id, sizeof(id)) != (ssize_t)sizeof(id))
                (void)unlink(note);
            (void)close(fd);
        }
    }
    free(note);
}

static spb_status check_note(struct file_device *file, struct spb_error *err)
{
    char now[BOOT_ID_SIZE], then[BOOT_ID_SIZE];
    char *note = note_path(file->path);

    if (note == NULL)
        return spb_fail_memory(err, "opening an image");
    int fd = open(note, O_RDONLY | O_CLOEXEC);
    /* Where the machine does not tell its boot, the note is taken to be of this one. */
    bool same =
        fd >= 0 && (!read_boot_id(now) || (read(fd, then, sizeof(then)) == (ssize_t)sizeof(then) &&
                                           memcmp(now, then, sizeof(now)) == 0));
    if (fd >= 0)
        (void)close(fd);
    spb_status status = spb_ok();
    if (same && !has_direct(file))
        status = spb_fail(err, SPB_READ_ONLY,
                          "cannot open %s for writing: a flush of it failed since the machine "
                          "started, and its medium cannot be read past the page cache; it stays "
                          "read-only until the machine restarts",
                          file->base.name);
    else if (fd >= 0)
        (void)unlink(note);
    free(note);
    return status;
}

/* ---- Flush and the rest of the table -------------------------------------------------------- */

/* A file that lost its name or its end takes writes all the same: what is flushed there is lost. */
static bool is_gone(const struct file_device *file)
{
    struct stat st;

    return !file->is_block && fstat(file->fd, &st) == 0 &&
           (st.st_nlink == 0 || (uint64_t)st.st_size < file->base.size_bytes);
}

/* It does not wait for what it starts, and so takes note of no failure of it: that stays for
 * fdatasync. */
static void file_push(struct spb_device *device, uint64_t offset, uint64_t n)
{
    (void)sync_file_range(of(device)->fd, (off_t)offset, (off_t)n, SYNC_FILE_RANGE_WRITE);
}

static spb_status file_flush(struct spb_device *device, struct spb_error *err)
{
    struct file_device *file = of(device);
    int number;

    (void)pthread_mutex_lock(&file->flush_lock);
    bool earlier = file->flush_errno != 0;
    if (!earlier && fdatasync(file->fd) < 0) {
        file->flush_errno = errno;
        if (!has_direct(file))
            leave_note(file);
    }
    if (file->flush_errno == 0 && is_gone(file))
        file->flush_errno = ESTALE;
    number = file->flush_errno;
    (void)pthread_mutex_unlock(&file->flush_lock);
    if (number == 0)
        return spb_ok();
    if (number == ESTALE)
        return spb_fail_errno(err, SPB_IO, number,
                              "cannot flush %s: its file was removed, replaced or cut short while "
                              "it was open",
                              device->name);
    return spb_fail_errno(err, SPB_IO, number, "cannot flush %s%s", device->name,
                          earlier ? " since an earlier flush failed" : "");
}

static spb_status write_zeros(struct spb_device *device, uint64_t offset, uint64_t n,
                              struct spb_error *err)
{
    uint8_t *zeros = calloc(1, ZERO_PIECE);
    spb_status status = spb_ok();

    if (zeros == NULL)
        return spb_fail_memory(err, "zeroing a device");
    while (n > 0 && spb_is_ok(status)) {
        size_t piece = n < ZERO_PIECE ? (size_t)n : ZERO_PIECE;
        status = file_write(device, offset, zeros, piece, err);
        offset += piece;
        n -= piece;
    }
    free(zeros);
    return status;
}

static spb_status file_zero(struct spb_device *device, uint64_t offset, uint64_t n,
                            struct spb_error *err)
{
    struct file_device *file = of(device);

    if (file->is_block) {
        uint64_t range[2] = {offset, n};
        if (ioctl(file->fd, BLKZEROOUT, range) == 0)
            return spb_ok();
    } else if (fallocate(file->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                         (off_t)n) == 0) {
        return spb_ok();
    }
    return write_zeros(device, offset, n, err);
}

/* Errors that say: not between these two files, or not in this kernel. */
static bool cannot_copy(int number)
{
    return number == EXDEV || number == EINVAL || number == EOPNOTSUPP || number == ENOSYS ||
           number == EPERM || number == ETXTBSY;
}

static spb_status file_copy(struct spb_device *device, uint64_t offset, struct spb_device *from,
                            uint64_t from_offset, uint64_t n, struct spb_error *err)
{
    off_t in = (off_t)from_offset, out = (off_t)offset;

    while (n > 0) {
        ssize_t done = copy_file_range(of(from)->fd, &in, of(device)->fd, &out, (size_t)n, 0);
        if (done < 0 && errno == EINTR)
            continue;
        /* Some file systems copy nothing and say so with 0: reading tells whether it ends there. */
        if (done == 0 || (done < 0 && cannot_copy(errno)))
            return spb_fail_errno(err, SPB_UNSUPPORTED, done < 0 ? errno : 0,
                                  "cannot copy from %s to %s within the kernel", from->name,
                                  device->name);
        if (done < 0)
            return spb_fail_errno(err, SPB_IO, errno,
                                  "cannot copy %llu bytes at %llu of %s to %llu of %s",
                                  (unsigned long long)n, (unsigned long long)in, from->name,
                                  (unsigned long long)out, device->name);
        n -= (uint64_t)done;
    }
    return spb_ok();
}

static spb_status file_forgive(struct spb_device *device, struct spb_error *err)
{
    struct file_device *file = of(device);
    spb_status status = spb_ok();

    (void)pthread_mutex_lock(&file->flush_lock);
    if (file->flush_errno != 0 && !has_direct(file))
        status = spb_fail(err, SPB_UNSUPPORTED,
                          "cannot recover %s: its medium cannot be read past the page cache, so it "
                          "stays read-only until the machine restarts",
                          device->name);
    else
        file->flush_errno = 0;
    (void)pthread_mutex_unlock(&file->flush_lock);
    return status;
}

static void close_file(struct file_device *file)
{
    if (file->fd < 0)
        return;
    spb_lock_give_up(file->fd);
    (void)close(file->fd);
    file->fd = -1;
}

static void file_close(struct spb_device *device)
{
    struct file_device *file = of(device);

    close_file(file);
    (void)pthread_mutex_destroy(&file->flush_lock);
    free(file->path);
    free(file);
}

static const struct spb_device_ops file_ops = {
    .read = file_read,
    .read_medium = file_read_medium,
    .write = file_write,
    .push = file_push,
    .flush = file_flush,
    .zero = file_zero,
    .forgive = file_forgive,
    .copy = file_copy,
    .close = file_close,
};

/* ---- Opening -------------------------------------------------------------------------------- */

static spb_status measure(struct file_device *file, struct spb_error *err)
{
    struct stat st;

    if (fstat(file->fd, &st) < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot stat %s", file->base.name);
    if (S_ISREG(st.st_mode)) {
        file->base.size_bytes = (uint64_t)st.st_size;
        return spb_ok();
    }
    if (!S_ISBLK(st.st_mode))
        return spb_fail(err, SPB_INVALID,
                        "cannot open %s: expected a regular file or a block device",
                        file->base.name);
    file->is_block = true;
    if (ioctl(file->fd, BLKGETSIZE64, &file->base.size_bytes) < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot get the size of %s", file->base.name);
    return spb_ok();
}

static spb_status fail_open(const char *path, bool writing, struct spb_error *err)
{
    enum spb_code code = SPB_IO;

    if (errno == ENOENT || errno == ENOTDIR)
        code = SPB_NOT_FOUND;
    else if (errno == EISDIR || errno == ENAMETOOLONG || errno == ENXIO)
        code = SPB_INVALID;
    else if (writing && (errno == EACCES || errno == EPERM || errno == EROFS))
        code = SPB_READ_ONLY;
    return spb_fail_errno(err, code, errno, "cannot open %s for %s", path,
                          writing ? "writing" : "reading");
}

/* Is the path still the file that was opened and locked, or was it replaced in between? */
static bool is_current(struct file_device *file)
{
    struct stat by_path, by_fd;

    return stat(file->path, &by_path) == 0 && fstat(file->fd, &by_fd) == 0 &&
           by_path.st_dev == by_fd.st_dev && by_path.st_ino == by_fd.st_ino;
}

static spb_status open_once(struct file_device *file, enum spb_file_mode mode,
                            struct spb_error *err)
{
    bool writing = mode != SPB_FILE_READ;

    file->fd = open(file->path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file->fd < 0)
        return fail_open(file->path, writing, err);
    SPB_TRY(measure(file, err));
    if (mode == SPB_FILE_READ)
        return spb_ok();
    if (mode == SPB_FILE_LENT)
        return spb_lock_own_lent(file->fd, file->base.name, err);
    SPB_TRY(spb_lock_own(file->fd, file->base.name, err));
    return check_note(file, err);
}

static spb_status open_settled(struct file_device *file, enum spb_file_mode mode,
                               struct spb_error *err)
{
    for (int tries = 0; tries < 8; tries++) {
        SPB_TRY(open_once(file, mode, err));
        if (is_current(file))
            return measure(file, err);
        close_file(file);
    }
    return spb_fail(err, SPB_LOCKED, "cannot open %s: it is being replaced again and again",
                    file->path);
}

spb_status spb_device_file_open(const char *path, enum spb_file_mode mode,
                                struct spb_device **device, struct spb_error *err)
{
    struct file_device *file = calloc(1, sizeof(*file));

    if (file == NULL)
        return spb_fail_memory(err, "opening an image");
    file->fd = -1;
    file->path = strdup(path);
    file->base.ops = &file_ops;
    file->base.sector_size = SPB_SECTOR_SIZE;
    file->base.writable = mode == SPB_FILE_WRITE;
    (void)snprintf(file->base.name, sizeof(file->base.name), "%s", path);
    (void)pthread_mutex_init(&file->flush_lock, NULL);
    spb_status status = file->path == NULL ? spb_fail_memory(err, "opening an image")
                                           : open_settled(file, mode, err);
    if (!spb_is_ok(status)) {
        file_close(&file->base);
        return status;
    }
    *device = &file->base;
    return status;
}

static struct file_device *as_file(struct spb_device *device)
{
    return device->ops == &file_ops ? of(device) : NULL;
}

bool spb_device_file_is_current(struct spb_device *device)
{
    struct file_device *file = as_file(device);

    return file == NULL || is_current(file);
}

bool spb_device_file_owner(struct spb_device *device, char *words, size_t words_size, int *pid)
{
    struct file_device *file = as_file(device);

    return file != NULL && spb_lock_holder(file->fd, words, words_size, pid);
}

/* ---- Space ---------------------------------------------------------------------------------- */

/* Of a regular file; false where it cannot be told. */
static bool measure_lack(const struct file_device *file, uint64_t *lacks)
{
    struct stat st;

    if (fstat(file->fd, &st) != 0)
        return false;
    uint64_t has = (uint64_t)st.st_blocks * 512, size = (uint64_t)st.st_size;
    *lacks = has < size ? size - has : 0;
    return true;
}

bool spb_device_file_lacks_space(struct spb_device *device)
{
    const struct file_device *file = as_file(device);
    uint64_t lacks = 0;

    return file != NULL && !file->is_block && measure_lack(file, &lacks) && lacks > 0;
}

static spb_status fail_space(const struct file_device *file, uint64_t lacks, int number,
                             struct spb_error *err)
{
    return spb_fail_errno(err, spb_code_of_errno(number), number,
                          "cannot give %s all its space: it lacks %llu bytes of %llu",
                          file->base.name, (unsigned long long)lacks,
                          (unsigned long long)file->base.size_bytes);
}

spb_status spb_device_file_reserve(struct spb_device *device, struct spb_error *err)
{
    struct file_device *file = as_file(device);
    struct statvfs fs;
    uint64_t lacks = 0;
    int rc;

    if (file == NULL || file->is_block)
        return spb_ok();
    /* Allocating what does not fit would fill the file system before it fails. */
    if (!measure_lack(file, &lacks) || fstatvfs(file->fd, &fs) != 0)
        return fail_space(file, lacks, errno, err);
    if (lacks > (uint64_t)fs.f_bavail * fs.f_frsize)
        return fail_space(file, lacks, ENOSPC, err);
    do
        rc = fallocate(file->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)file->base.size_bytes);
    while (rc < 0 && errno == EINTR);
    if (rc == 0 || errno == EOPNOTSUPP || errno == ENOSYS)
        return spb_ok();
    return fail_space(file, lacks, errno, err);
}

spb_status spb_device_file_lend(struct spb_device *device, struct spb_error *err)
{
    struct file_device *file = as_file(device);

    if (file == NULL)
        return spb_fail(err, SPB_UNSUPPORTED, "cannot lend %s: it is not a file", device->name);
    SPB_TRY(spb_lock_lend(file->fd, device->name, err));
    device->writable = false;
    return spb_ok();
}

spb_status spb_device_file_take_back(struct spb_device *device, struct spb_error *err)
{
    struct file_device *file = as_file(device);

    if (file == NULL)
        return spb_fail(err, SPB_UNSUPPORTED, "cannot take back %s: it is not a file",
                        device->name);
    SPB_TRY(spb_lock_take_back(file->fd, device->name, err));
    SPB_TRY(check_note(file, err));
    device->writable = true;
    return spb_ok();
}
