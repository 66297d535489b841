/*
 * Uploads of whole files, images and artifacts: the bytes go to a temporary file in the folder
 * where the target will be, so that it gets its name by one rename. See uploads.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifacts.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"
#include "digest/sha256.h"
#include "uploads_table.h"

#define PREFIX ".upload-" /* and the upload's id in hex */
#define HEX_SIZE (2u * SPB_UPLOAD_ID_SIZE)
#define WHAT "an upload"
#define PUSH_BYTES ((uint64_t)2 << 20)

static const char *parent_of(const struct spb_daemon *daemon, enum spb_upload_kind kind)
{
    return kind == SPB_UPLOAD_IMAGE ? daemon->images_dir : daemon->artifacts_dir;
}

spb_status spb_upload_file_path(const struct spb_daemon *daemon, const struct spb_upload_row *row,
                                char **path, struct spb_error *err)
{
    char hex[HEX_SIZE + 1];

    for (size_t i = 0; i < SPB_UPLOAD_ID_SIZE; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", row->id[i]);
    if (asprintf(path, "%s/%u/" PREFIX "%s", parent_of(daemon, row->kind), (unsigned)row->tenant,
                 hex) >= 0)
        return spb_ok();
    *path = NULL;
    return spb_fail_memory(err, "starting an upload");
}

bool spb_upload_owns_file(const char *name)
{
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0;
}

static spb_status reserve(struct spb_upload *upload, struct spb_volume *volume,
                          struct spb_error *err)
{
    (void)volume;
    SPB_TRY(spb_temporary_take(upload->table->daemon, upload->row.size, err));
    upload->counted = true;
    return spb_ok();
}

static spb_status make(struct spb_upload *upload, struct spb_error *err)
{
    SPB_TRY(spb_folder_make(parent_of(upload->table->daemon, upload->row.kind), upload->row.tenant,
                            err));
    return spb_file_allocate(upload->path, upload->row.size, WHAT, &upload->fd, err);
}

static spb_status open_again(struct spb_upload *upload, struct spb_error *err)
{
    struct stat st;
    int fd = open(upload->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return spb_fail_errno(err, SPB_IO, errno, "opening the file of " WHAT);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != upload->row.size) {
        (void)close(fd);
        return spb_fail(err, SPB_IO, "the file of " WHAT " is no longer %llu bytes long",
                        (unsigned long long)upload->row.size);
    }
    upload->fd = fd;
    return spb_ok();
}

static spb_status resume(struct spb_upload *upload, struct spb_error *err)
{
    const struct spb_upload_row *row = &upload->row;
    uint32_t crc = 0;

    if (upload->fd < 0)
        SPB_TRY(open_again(upload, err));
    struct spb_file_scan scan = {.fd = upload->fd, .size = row->durable_offset, .what = WHAT};
    SPB_TRY(spb_file_crc(&scan, &crc, err));
    if (crc != row->durable_crc)
        return spb_fail(err, SPB_CORRUPT,
                        "the first %llu bytes of " WHAT " have CRC %08x, expected %08x",
                        (unsigned long long)row->durable_offset, crc, row->durable_crc);
    upload->crc = crc;
    return spb_ok();
}

/* The disk begins with what was written while more comes: a sync then waits for the last of it
 * only. Nothing is durable by that, and what fails is told by the sync. */
static void push(const struct spb_upload *upload, uint64_t end)
{
    uint64_t begin = upload->next_offset / PUSH_BYTES * PUSH_BYTES;

    if (end / PUSH_BYTES * PUSH_BYTES > begin)
        (void)sync_file_range(upload->fd, (off_t)begin, (off_t)(end - begin),
                              SYNC_FILE_RANGE_WRITE);
}

static spb_status take_bytes(struct spb_upload *upload, const void *data, size_t n,
                             struct spb_error *err)
{
    SPB_TRY(spb_file_write(upload->fd, upload->next_offset, data, n, WHAT, err));
    push(upload, upload->next_offset + n);
    upload->crc = spb_crc32c(upload->crc, data, n);
    return spb_ok();
}

static spb_status read_bytes(const struct spb_upload *upload, uint64_t offset, void *buffer,
                             size_t n, struct spb_error *err)
{
    return spb_file_read(upload->fd, offset, buffer, n, WHAT, err);
}

static spb_status begin_sync(struct spb_upload *upload, uint64_t *offset, uint32_t *crc,
                             struct spb_error *err)
{
    (void)err;
    *offset = upload->next_offset;
    *crc = upload->crc;
    return spb_ok();
}

static spb_status make_durable(const struct spb_upload *upload, struct spb_error *err)
{
    if (fdatasync(upload->fd) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "making the bytes of " WHAT " durable");
    return spb_ok();
}

/* Reads the file again, from the medium as far as the system does that. */
static spb_status read_back(struct spb_upload *upload, struct spb_sha256 *digest, uint32_t *crc,
                            struct spb_error *err)
{
    struct spb_file_scan scan = {
        .fd = upload->fd, .size = upload->row.size, .what = WHAT, .digest = digest};

    (void)posix_fadvise(upload->fd, 0, 0, POSIX_FADV_DONTNEED);
    SPB_TRY(spb_file_crc(&scan, crc, err));
    if (*crc == upload->crc)
        return spb_ok();
    return spb_fail(err, SPB_CORRUPT, WHAT " reads back with CRC %08x, %08x was written", *crc,
                    upload->crc);
}

static spb_status hash_and_compare(struct spb_upload *upload, struct spb_sha256 *digest,
                                   struct spb_error *err)
{
    uint8_t found[SPB_SHA256_SIZE];
    char found_text[SPB_SHA256_TEXT_SIZE], wanted_text[SPB_SHA256_TEXT_SIZE];
    uint32_t crc = 0;

    SPB_TRY(read_back(upload, digest, &crc, err));
    SPB_TRY(spb_sha256_finish(digest, found, err));
    if (memcmp(found, upload->row.sha256, sizeof(found)) == 0)
        return spb_ok();
    spb_sha256_text(found, found_text);
    spb_sha256_text(upload->row.sha256, wanted_text);
    return spb_fail(err, SPB_INVALID, "sha256: found %s of the bytes that came, expected %s",
                    found_text, wanted_text);
}

static spb_status finish(struct spb_upload *upload, struct spb_error *err)
{
    (void)err;
    upload->data = (struct spb_product_data){.length = upload->row.size, .crc = upload->crc};
    return spb_ok();
}

static spb_status verify(struct spb_upload *upload, struct spb_error *err)
{
    struct spb_sha256 *digest = NULL;
    uint32_t crc = 0;

    if (fdatasync(upload->fd) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "making the bytes of " WHAT " durable");
    if (upload->row.kind != SPB_UPLOAD_ARTIFACT)
        return read_back(upload, NULL, &crc, err);
    SPB_TRY(spb_sha256_new(&digest, err));
    spb_status status = hash_and_compare(upload, digest, err);
    spb_sha256_free(digest);
    return status;
}

static void release(struct spb_upload *upload, bool keep)
{
    if (upload->fd >= 0)
        (void)close(upload->fd);
    upload->fd = -1;
    if (!keep)
        (void)unlink(upload->path); /* published, it has another name by now */
}

const struct spb_upload_kind_ops spb_upload_file_ops = {
    .reserve = reserve,
    .make = make,
    .resume = resume,
    .take = take_bytes,
    .read = read_bytes,
    .begin_sync = begin_sync,
    .make_durable = make_durable,
    .finish = finish,
    .verify = verify,
    .release = release,
};

/* ---- Sweeping ----------------------------------------------------------------------------- */

static bool is_known(struct spb_uploads *uploads, const char *name)
{
    bool known = false;

    spb_uploads_lock(uploads);
    for (struct spb_upload *u = uploads->first; u != NULL && !known; u = u->next)
        known = u->path != NULL && strcmp(strrchr(u->path, '/') + 1, name) == 0;
    spb_uploads_unlock(uploads);
    return known;
}

static void sweep_folder(struct spb_uploads *uploads, const char *parent, const char *name)
{
    char *path = NULL;
    struct dirent *entry;

    if (asprintf(&path, "%s/%s", parent, name) < 0)
        return;
    DIR *dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (!spb_upload_owns_file(entry->d_name) || is_known(uploads, entry->d_name))
            continue;
        bool removed = unlinkat(dirfd(dir), entry->d_name, 0) == 0;
        spb_log(&uploads->daemon->log, removed ? SPB_LOG_INFO : SPB_LOG_WARN, "leftover-removed",
                SPB_TEXT("folder", path), SPB_TEXT("name", entry->d_name),
                SPB_TEXT("outcome", removed ? "done" : strerror(errno)));
    }
    if (dir != NULL)
        (void)closedir(dir);
    free(path);
}

void spb_upload_sweep_files(struct spb_uploads *uploads)
{
    const char *parents[] = {uploads->daemon->images_dir, uploads->daemon->artifacts_dir};

    for (size_t i = 0; i < SPB_COUNT(parents); i++) {
        DIR *dir = opendir(parents[i]);
        struct dirent *entry;

        while (dir != NULL && (entry = readdir(dir)) != NULL) {
            if (entry->d_name[0] != '.')
                sweep_folder(uploads, parents[i], entry->d_name);
        }
        if (dir != NULL)
            (void)closedir(dir);
    }
}
