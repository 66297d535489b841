/* Input of a command; see source.h. */
#include "cli/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "cli/cli.h"

#define PIECE_BYTES ((size_t)1 << 18)

static spb_status open_input(const char *path, int *fd, struct spb_error *err)
{
    /* Standard input is borrowed through a descriptor of our own, which the caller closes. */
    int opened = strcmp(path, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                                        : open(path, O_RDONLY | O_CLOEXEC);

    if (opened < 0)
        return spb_fail_errno(err, SPB_IO, errno, "opening \"%s\" for reading", path);
    *fd = opened;
    return spb_ok();
}

#define FROM_HERE (-1)

/* Some bytes, 0 at the end; from an offset, or FROM_HERE. */
static spb_status read_some(int fd, const char *name, off_t offset, void *buffer, size_t n,
                            size_t *got, struct spb_error *err)
{
    ssize_t found;

    do {
        if (cli_is_interrupted())
            return spb_fail(err, SPB_DEADLINE, "reading \"%s\": interrupted", name);
        found = offset == FROM_HERE ? read(fd, buffer, n) : pread(fd, buffer, n, offset);
    } while (found < 0 && errno == EINTR);
    if (found < 0)
        return spb_fail_errno(err, SPB_IO, errno, "reading \"%s\"", name);
    *got = (size_t)found;
    return spb_ok();
}

/* A file without a name, where large things may lie. */
static int open_unnamed(void)
{
    const char *folder = getenv("TMPDIR");
    char path[4096];

    if (folder == NULL || folder[0] == '\0')
        folder = "/var/tmp";
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    int length = snprintf(path, sizeof(path), "%s/spaceblock-XXXXXX", folder);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

static spb_status write_all(int fd, const uint8_t *data, size_t n, struct spb_error *err)
{
    while (n > 0) {
        ssize_t done = write(fd, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return spb_fail_errno(err, SPB_IO, errno,
                                  "writing a temporary copy of the input ($TMPDIR says where)");
        data += done;
        n -= (size_t)done;
    }
    return spb_ok();
}

static spb_status copy_all(int from, const char *name, int to, uint64_t *size,
                           struct spb_error *err)
{
    uint8_t *piece = malloc(PIECE_BYTES);
    spb_status status = piece == NULL ? spb_fail_memory(err, "copying the input") : spb_ok();
    uint64_t total = 0;
    size_t got = 1;

    while (spb_is_ok(status) && got > 0) {
        status = read_some(from, name, FROM_HERE, piece, PIECE_BYTES, &got, err);
        if (spb_is_ok(status))
            status = write_all(to, piece, got, err);
        total += got;
    }
    free(piece);
    SPB_TRY(status);
    *size = total;
    return spb_ok();
}

/* Replaces source->fd by a copy of all that it gives. */
static spb_status spool(struct cli_source *source, struct spb_error *err)
{
    int copy = open_unnamed();

    if (copy < 0)
        return spb_fail_errno(err, SPB_IO, errno,
                              "making a temporary file for \"%s\" ($TMPDIR says where)",
                              source->name);
    spb_status status = copy_all(source->fd, source->name, copy, &source->size, err);
    if (!spb_is_ok(status)) {
        (void)close(copy);
        return status;
    }
    (void)close(source->fd);
    source->fd = copy;
    return status;
}

static void identify(const struct stat *about, bool has_path, struct cli_source_identity *identity)
{
    *identity = (struct cli_source_identity){
        .is_known = has_path,
        .device = about->st_dev,
        .inode = about->st_ino,
        .size = (uint64_t)about->st_size,
        .modified_s = about->st_mtim.tv_sec,
        .modified_ns = about->st_mtim.tv_nsec,
    };
}

spb_status cli_source_open(const char *path, struct cli_source *source, struct spb_error *err)
{
    struct cli_source opened = {.fd = -1, .name = strcmp(path, "-") == 0 ? "standard input" : path};
    struct stat about;

    SPB_TRY(open_input(path, &opened.fd, err));
    spb_status status = spb_ok();
    if (fstat(opened.fd, &about) != 0) {
        status = spb_fail_errno(err, SPB_IO, errno, "reading \"%s\"", opened.name);
    } else if (S_ISREG(about.st_mode)) {
        /* Standard input may stand in the middle of a file. */
        off_t at = lseek(opened.fd, 0, SEEK_CUR);
        opened.begin = at < 0 ? 0 : (uint64_t)at;
        opened.size = at < 0 || at > about.st_size ? 0 : (uint64_t)(about.st_size - at);
        identify(&about, strcmp(path, "-") != 0, &opened.identity);
    } else {
        status = spool(&opened, err);
    }
    if (!spb_is_ok(status)) {
        cli_source_done(&opened);
        return status;
    }
    *source = opened;
    return status;
}

/* Of bytes at an offset, those that the CRC does not know yet and that come next for it. */
static void take_crc(struct cli_source *source, uint64_t offset, const uint8_t *bytes, size_t n)
{
    if (offset > source->crc_end || offset + n <= source->crc_end)
        return;
    size_t known = (size_t)(source->crc_end - offset);

    source->crc = spb_crc32c(source->crc, bytes + known, n - known);
    source->crc_end = offset + n;
}

spb_status cli_source_read_at(struct cli_source *source, uint64_t offset, void *buffer, size_t n,
                              struct spb_error *err)
{
    uint64_t at = source->begin + offset;
    uint8_t *out = buffer;
    size_t got = 0;

    for (size_t left = n; left > 0; left -= got, out += got, at += got) {
        SPB_TRY(read_some(source->fd, source->name, (off_t)at, out, left, &got, err));
        if (got == 0)
            return spb_fail(err, SPB_CHANGED,
                            "reading \"%s\": found its end %zu bytes early, expected %llu bytes in "
                            "all (it became shorter meanwhile)",
                            source->name, left, (unsigned long long)source->size);
    }
    take_crc(source, offset, buffer, n);
    return spb_ok();
}

spb_status cli_source_read(struct cli_source *source, void *buffer, size_t n, struct spb_error *err)
{
    SPB_TRY(cli_source_read_at(source, source->at, buffer, n, err));
    source->at += n;
    return spb_ok();
}

spb_status cli_source_crc(struct cli_source *source, uint64_t end, uint32_t *crc,
                          struct spb_error *err)
{
    if (end < source->crc_end)
        return spb_fail(err, SPB_INVALID, "the CRC of \"%s\" up to %llu: it is known up to %llu",
                        source->name, (unsigned long long)end, (unsigned long long)source->crc_end);
    uint8_t *piece = malloc(PIECE_BYTES);
    spb_status status = piece == NULL ? spb_fail_memory(err, "reading the input") : spb_ok();

    while (spb_is_ok(status) && source->crc_end < end) {
        uint64_t left = end - source->crc_end;
        status = cli_source_read_at(source, source->crc_end, piece,
                                    left < PIECE_BYTES ? (size_t)left : PIECE_BYTES, err);
    }
    free(piece);
    if (spb_is_ok(status))
        *crc = source->crc;
    return status;
}

void cli_source_done(struct cli_source *source)
{
    if (source->fd >= 0)
        (void)close(source->fd);
    source->fd = -1;
}

spb_status cli_source_read_small(const char *path, void *buffer, size_t room, size_t *size,
                                 struct spb_error *err)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    uint8_t *at = buffer;
    size_t used = 0, got = 1;
    int fd = -1;

    SPB_TRY(open_input(path, &fd, err));
    spb_status status = spb_ok();
    while (spb_is_ok(status) && used < room && got > 0) {
        status = read_some(fd, name, FROM_HERE, at + used, room - used, &got, err);
        used += spb_is_ok(status) ? got : 0;
    }
    (void)close(fd);
    SPB_TRY(status);
    *size = used;
    return status;
}
