/* Temporary files and their names; see copy_file.h. */
#include "copy_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "daemon.h"
#include "digest/sha256.h"

#define PIECE ((size_t)1024 * 1024)

/* ---- Space -------------------------------------------------------------------------------- */

spb_status spb_temporary_take(struct spb_daemon *daemon, uint64_t n, struct spb_error *err)
{
    uint64_t most = SPB_LIMIT(daemon, temporary_max_bytes);
    uint64_t used = atomic_load(&daemon->temporary_bytes);

    do {
        if (n > most || used > most - n)
            return spb_fail(err, SPB_LIMIT,
                            "%llu bytes of temporary files are wanted and %llu are in use, at most "
                            "%llu are taken (temporary_max_bytes)",
                            (unsigned long long)n, (unsigned long long)used,
                            (unsigned long long)most);
    } while (!atomic_compare_exchange_weak(&daemon->temporary_bytes, &used, used + n));
    return spb_ok();
}

void spb_temporary_give(struct spb_daemon *daemon, uint64_t n)
{
    uint64_t before = atomic_fetch_sub(&daemon->temporary_bytes, n);

    SPB_ASSERT(before >= n);
}

/* ---- Folders ------------------------------------------------------------------------------ */

static int sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int number = fd < 0 || fsync(fd) != 0 ? errno : 0;

    if (fd >= 0)
        (void)close(fd);
    return number;
}

spb_status spb_folder_make(const char *parent, uint16_t tenant, struct spb_error *err)
{
    char name[8];
    int number = 0;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)snprintf(name, sizeof(name), "%u", (unsigned)tenant);
    if (fd < 0 || (mkdirat(fd, name, 0700) != 0 && errno != EEXIST) || fsync(fd) != 0)
        number = errno;
    if (fd >= 0)
        (void)close(fd);
    if (number == 0)
        return spb_ok();
    return spb_fail_errno(err, spb_code_of_errno(number), number, "making the folder of tenant %s",
                          name);
}

spb_status spb_folder_sync(const char *path, struct spb_error *err)
{
    char *copy = strdup(path);

    if (copy == NULL)
        return spb_fail_memory(err, "making a name durable");
    int number = sync_folder(dirname(copy));
    free(copy);
    if (number == 0)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, number,
                          "making a change of names durable: a power loss may undo it");
}

/* ---- Files -------------------------------------------------------------------------------- */

static spb_status fail_room(const char *what, uint64_t size, int number, struct spb_error *err)
{
    return spb_fail_errno(err, spb_code_of_errno(number), number,
                          "making room for %s of %llu bytes", what, (unsigned long long)size);
}

/* Allocating what can never fit would fill the disk for a while before it fails. */
static spb_status check_room(int fd, uint64_t size, const char *what, struct spb_error *err)
{
    struct statvfs fs;

    if (fstatvfs(fd, &fs) != 0)
        return fail_room(what, size, errno, err);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (size <= room && size <= (uint64_t)INT64_MAX)
        return spb_ok();
    return spb_fail(err, SPB_FULL,
                    "making room for %s of %llu bytes: the file system has %llu bytes free", what,
                    (unsigned long long)size, (unsigned long long)room);
}

static spb_status allocate(int fd, const char *path, uint64_t size, const char *what,
                           struct spb_error *err)
{
    SPB_TRY(check_room(fd, size, what, err));
    int number = size == 0 ? 0 : posix_fallocate(fd, 0, (off_t)size);
    if (number == 0 && fsync(fd) != 0)
        number = errno;
    if (number != 0)
        return fail_room(what, size, number, err);
    return spb_folder_sync(path, err);
}

spb_status spb_file_allocate(const char *path, uint64_t size, const char *what, int *out,
                             struct spb_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);

    if (fd < 0)
        return fail_room(what, size, errno, err);
    spb_status status = allocate(fd, path, size, what, err);
    if (!spb_is_ok(status)) {
        (void)unlink(path);
        (void)close(fd);
        return status;
    }
    *out = fd;
    return status;
}

/* rename(2) that never replaces; 0 or an errno. */
static int rename_to_free(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return errno;
    /* A file system that cannot: a link never replaces either. */
    if (link(from, to) != 0)
        return errno;
    (void)unlink(from);
    return 0;
}

spb_status spb_file_name(const char *from, const char *to, const char *what, bool *named,
                         struct spb_error *err)
{
    int number = rename_to_free(from, to);

    if (number == EEXIST)
        return spb_fail(err, SPB_EXISTS, "naming %s: the name is taken", what);
    if (number != 0)
        return spb_fail_errno(err, spb_code_of_errno(number), number, "naming %s", what);
    *named = true;
    return spb_folder_sync(to, err);
}

spb_status spb_file_read(int fd, uint64_t offset, void *buffer, size_t n, const char *what,
                         struct spb_error *err)
{
    uint8_t *at = buffer;

    while (n > 0) {
        ssize_t got = pread(fd, at, n, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return spb_fail_errno(err, SPB_IO, errno, "reading %s at %llu", what,
                                  (unsigned long long)offset);
        if (got == 0)
            return spb_fail(err, SPB_IO, "reading %s: it ends at %llu, %zu bytes are missing", what,
                            (unsigned long long)offset, n);
        at += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return spb_ok();
}

spb_status spb_file_write(int fd, uint64_t offset, const void *data, size_t n, const char *what,
                          struct spb_error *err)
{
    const uint8_t *at = data;

    while (n > 0) {
        ssize_t put = pwrite(fd, at, n, (off_t)offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return spb_fail_errno(err, spb_code_of_errno(errno), errno, "writing %s at %llu", what,
                                  (unsigned long long)offset);
        at += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return spb_ok();
}

static spb_status scan_piece(const struct spb_file_scan *scan, uint64_t at, uint8_t *piece,
                             uint32_t *crc, struct spb_error *err)
{
    size_t n = scan->size - at < PIECE ? (size_t)(scan->size - at) : PIECE;

    if (scan->may_go_on != NULL && !scan->may_go_on(scan->user, at, scan->size))
        return spb_fail(err, SPB_DEADLINE, "reading %s again was ended", scan->what);
    SPB_TRY(spb_file_read(scan->fd, at, piece, n, scan->what, err));
    *crc = spb_crc32c(*crc, piece, n);
    return scan->digest == NULL ? spb_ok() : spb_sha256_add(scan->digest, piece, n, err);
}

spb_status spb_file_crc(const struct spb_file_scan *scan, uint32_t *out, struct spb_error *err)
{
    uint8_t *piece = malloc(PIECE);
    spb_status status = spb_ok();
    uint32_t crc = 0;

    if (piece == NULL)
        return spb_fail_memory(err, "reading a file again");
    for (uint64_t at = 0; at < scan->size && spb_is_ok(status); at += PIECE)
        status = scan_piece(scan, at, piece, &crc, err);
    free(piece);
    if (spb_is_ok(status))
        *out = crc;
    return status;
}
