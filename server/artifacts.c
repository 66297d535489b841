/* Files and rows of artifacts; see artifacts.h. */
#include "artifacts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"
#include "dispatch.h"

#define WHAT "an artifact"

static void lock(struct spb_daemon *daemon)
{
    (void)pthread_mutex_lock(&daemon->artifacts_lock);
}

static void unlock(struct spb_daemon *daemon)
{
    (void)pthread_mutex_unlock(&daemon->artifacts_lock);
}

spb_status spb_artifact_path(const struct spb_daemon *daemon, uint16_t tenant,
                             const uint8_t sha256[SPB_SHA256_SIZE], char **path,
                             struct spb_error *err)
{
    char text[SPB_SHA256_TEXT_SIZE];

    spb_sha256_text(sha256, text);
    if (asprintf(path, "%s/%u/%s", daemon->artifacts_dir, (unsigned)tenant, text) >= 0)
        return spb_ok();
    *path = NULL;
    return spb_fail_memory(err, "naming " WHAT);
}

static void log_file(struct spb_daemon *daemon, enum spb_log_level level, const char *event,
                     const struct spb_artifact_row *row, const char *reason)
{
    char text[SPB_SHA256_TEXT_SIZE];

    spb_sha256_text(row->sha256, text);
    spb_log(&daemon->log, level, event, SPB_NUMBER("tenant", row->tenant), SPB_TEXT("sha256", text),
            SPB_NUMBER("size", row->size), SPB_TEXT("reason", reason));
}

/* ---- Checking ----------------------------------------------------------------------------- */

static spb_status hash_file(struct spb_file_scan *scan, uint8_t found[SPB_SHA256_SIZE],
                            struct spb_error *err)
{
    uint32_t crc;

    SPB_TRY(spb_sha256_new(&scan->digest, err));
    spb_status status = spb_file_crc(scan, &crc, err);
    if (spb_is_ok(status))
        status = spb_sha256_finish(scan->digest, found, err);
    spb_sha256_free(scan->digest);
    return status;
}

static spb_status open_file(const char *path, struct spb_file_scan *scan, struct spb_error *err)
{
    struct stat st;

    scan->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (scan->fd < 0)
        return spb_fail_errno(err, SPB_IO, errno, "opening the file of " WHAT);
    if (fstat(scan->fd, &st) == 0 && S_ISREG(st.st_mode)) {
        scan->size = (uint64_t)st.st_size;
        return spb_ok();
    }
    (void)close(scan->fd);
    return spb_fail(err, SPB_CORRUPT, "the file of " WHAT " is no regular file");
}

spb_status spb_artifact_check(const char *path, const uint8_t sha256[SPB_SHA256_SIZE],
                              bool (*may_go_on)(void *user, uint64_t done, uint64_t total),
                              void *user, struct spb_error *err)
{
    struct spb_file_scan scan = {.what = WHAT, .may_go_on = may_go_on, .user = user};
    char found_text[SPB_SHA256_TEXT_SIZE], name_text[SPB_SHA256_TEXT_SIZE];
    uint8_t found[SPB_SHA256_SIZE];

    SPB_TRY(open_file(path, &scan, err));
    spb_status status = hash_file(&scan, found, err);
    (void)close(scan.fd);
    SPB_TRY(status);
    if (memcmp(found, sha256, SPB_SHA256_SIZE) == 0)
        return spb_ok();
    spb_sha256_text(found, found_text);
    spb_sha256_text(sha256, name_text);
    return spb_fail(err, SPB_CORRUPT,
                    "artifact %s holds other bytes than its name says, with the SHA-256 %s",
                    name_text, found_text);
}

/* ---- Publishing and deleting -------------------------------------------------------------- */

/*
 * The name is there: the file that has it stays only if it holds what the verified one does. flaw:
 * what was found of it; code SPB_OK: it does. What is not known to is replaced.
 */
static spb_status settle_taken(struct spb_daemon *daemon, const char *from, const char *to,
                               const struct spb_artifact_row *row, const struct spb_error *flaw,
                               bool *named, struct spb_error *err)
{
    if (flaw->code == SPB_OK)
        (void)unlink(from);
    else if (rename(from, to) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "putting " WHAT " in the place of another file");
    if (flaw->code == SPB_CORRUPT || flaw->code == SPB_IO)
        log_file(daemon, SPB_LOG_WARN, "artifact-replaced", row, flaw->text);
    *named = true;
    return spb_folder_sync(to, err);
}

static spb_status publish(struct spb_daemon *daemon, const char *from, const char *to,
                          struct spb_artifact_row *row, const struct spb_error *flaw, bool *named,
                          struct spb_error *err)
{
    struct spb_artifact_row known;
    spb_status status = spb_file_name(from, to, WHAT, named, err);

    if (status.code == SPB_EXISTS)
        status = settle_taken(daemon, from, to, row, flaw, named, err);
    SPB_TRY(status);
    if (spb_is_ok(spb_artifact_find(daemon, row->tenant, row->sha256, &known, NULL)))
        row->created_us = known.created_us;
    return spb_rows_put_artifact(daemon->audit, row, err);
}

spb_status spb_artifact_publish(struct spb_daemon *daemon, const char *from,
                                struct spb_artifact_row *row,
                                bool (*may_go_on)(void *user, uint64_t done, uint64_t total),
                                void *user, bool *named, struct spb_error *err)
{
    struct spb_error flaw = {.code = SPB_NOT_FOUND};
    char *to = NULL;

    SPB_TRY(spb_artifact_path(daemon, row->tenant, row->sha256, &to, err));
    /* Others do not wait for that: the lock is for names. */
    if (access(to, F_OK) == 0 &&
        spb_is_ok(spb_artifact_check(to, row->sha256, may_go_on, user, &flaw)))
        flaw.code = SPB_OK;
    lock(daemon);
    spb_status status = publish(daemon, from, to, row, &flaw, named, err);
    unlock(daemon);
    free(to);
    return status;
}

static spb_status delete_file(const char *path, struct spb_error *err)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return spb_fail_errno(err, SPB_IO, errno, "deleting the file of " WHAT);
    return spb_folder_sync(path, err);
}

spb_status spb_artifact_delete(struct spb_daemon *daemon, uint16_t tenant,
                               const uint8_t sha256[SPB_SHA256_SIZE], bool *removed,
                               struct spb_error *err)
{
    struct spb_artifact_row row;
    char *path = NULL;

    SPB_TRY(spb_artifact_path(daemon, tenant, sha256, &path, err));
    lock(daemon);
    spb_status status = spb_artifact_find(daemon, tenant, sha256, &row, err);
    if (spb_is_ok(status))
        status = spb_rows_remove_artifact(daemon->audit, tenant, sha256, err);
    if (spb_is_ok(status)) {
        *removed = true;
        status = delete_file(path, err);
    }
    unlock(daemon);
    free(path);
    return status;
}

spb_status spb_artifact_store_again(struct spb_daemon *daemon, const struct spb_artifact_row *row,
                                    struct spb_error *err)
{
    char *path = NULL;

    SPB_TRY(spb_artifact_path(daemon, row->tenant, row->sha256, &path, err));
    lock(daemon);
    spb_status status = spb_folder_sync(path, err);
    if (spb_is_ok(status))
        status = spb_rows_put_artifact(daemon->audit, row, err);
    unlock(daemon);
    free(path);
    return status;
}

spb_status spb_artifact_delete_again(struct spb_daemon *daemon, const struct spb_artifact_row *row,
                                     struct spb_error *err)
{
    struct spb_artifact_row known;
    char *path = NULL;

    SPB_TRY(spb_artifact_path(daemon, row->tenant, row->sha256, &path, err));
    lock(daemon);
    spb_status status = spb_artifact_find(daemon, row->tenant, row->sha256, &known, err);
    if (status.code == SPB_NOT_FOUND) /* else somebody has stored it anew */
        status = delete_file(path, err);
    unlock(daemon);
    free(path);
    return status;
}

/* ---- Finding ------------------------------------------------------------------------------ */

/* The hash just before it; false for the first of all. */
static bool hash_before(const uint8_t sha256[SPB_SHA256_SIZE], uint8_t out[SPB_SHA256_SIZE])
{
    memcpy(out, sha256, SPB_SHA256_SIZE);
    for (size_t i = SPB_SHA256_SIZE; i > 0; i--) {
        if (out[i - 1]-- != 0)
            return true;
    }
    return false;
}

struct finding {
    struct spb_artifact_row row;
    bool found;
};

static void take_found(void *user, const struct spb_artifact_row *row)
{
    struct finding *finding = user;

    finding->row = *row;
    finding->found = true;
}

spb_status spb_artifact_find(struct spb_daemon *daemon, uint16_t tenant,
                             const uint8_t sha256[SPB_SHA256_SIZE], struct spb_artifact_row *row,
                             struct spb_error *err)
{
    uint8_t before[SPB_SHA256_SIZE];
    struct finding finding = {.found = false};
    const uint8_t *after = hash_before(sha256, before) ? before : NULL;

    SPB_TRY(spb_rows_artifacts(daemon->audit, tenant, after, 1, take_found, &finding, err));
    if (!finding.found || memcmp(finding.row.sha256, sha256, SPB_SHA256_SIZE) != 0)
        return spb_fail(err, SPB_NOT_FOUND, "no such artifact");
    *row = finding.row;
    return spb_ok();
}

/* ---- At the start ------------------------------------------------------------------------- */

struct all_rows {
    struct spb_artifact_row *rows; /* owned */
    size_t count, room;
    bool failed; /* out of memory */
};

static void take_row(void *user, const struct spb_artifact_row *row)
{
    struct all_rows *all = user;

    if (all->count == all->room) {
        size_t room = all->room == 0 ? 64 : all->room * 2;
        struct spb_artifact_row *rows = realloc(all->rows, room * sizeof(*rows));

        if (rows == NULL) {
            all->failed = true;
            return;
        }
        all->rows = rows;
        all->room = room;
    }
    all->rows[all->count++] = *row;
}

static int order(const void *left, const void *right)
{
    const struct spb_artifact_row *a = left, *b = right;

    if (a->tenant != b->tenant)
        return a->tenant < b->tenant ? -1 : 1;
    return memcmp(a->sha256, b->sha256, SPB_SHA256_SIZE);
}

static spb_status drop_lost(struct spb_daemon *daemon, const struct spb_artifact_row *row,
                            struct spb_error *err)
{
    char *path = NULL;
    struct stat st;

    SPB_TRY(spb_artifact_path(daemon, row->tenant, row->sha256, &path, err));
    bool lost = lstat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR);
    free(path);
    if (!lost)
        return spb_ok();
    log_file(daemon, SPB_LOG_WARN, "artifact-lost", row, "its file is gone");
    return spb_rows_remove_artifact(daemon->audit, row->tenant, row->sha256, err);
}

/* A file without a row: the database is another than the one that it was in. */
static spb_status adopt(struct spb_daemon *daemon, const struct all_rows *all, uint16_t tenant,
                        int folder_fd, const char *name, struct spb_error *err)
{
    struct spb_artifact_row row = {.tenant = tenant};
    struct stat st;

    if (!spb_sha256_parse(name, row.sha256) || fstatat(folder_fd, name, &st, 0) != 0 ||
        !S_ISREG(st.st_mode))
        return spb_ok();
    if (all->count > 0 && bsearch(&row, all->rows, all->count, sizeof(row), order) != NULL)
        return spb_ok();
    row.size = (uint64_t)st.st_size;
    row.created_us = (int64_t)st.st_mtime * 1000000;
    log_file(daemon, SPB_LOG_WARN, "artifact-adopted", &row, "its file has no row");
    return spb_rows_put_artifact(daemon->audit, &row, err);
}

static spb_status adopt_folder(struct spb_daemon *daemon, const struct all_rows *all,
                               const char *name, struct spb_error *err)
{
    char *path = NULL;
    struct dirent *entry;
    spb_status status = spb_ok();
    unsigned long tenant = strtoul(name, NULL, 10);

    if (strspn(name, "0123456789") != strlen(name) || tenant > UINT16_MAX)
        return spb_ok();
    if (asprintf(&path, "%s/%s", daemon->artifacts_dir, name) < 0)
        return spb_fail_memory(err, "reading the folders of artifacts");
    DIR *dir = opendir(path);
    free(path);
    while (dir != NULL && spb_is_ok(status) && (entry = readdir(dir)) != NULL)
        status = adopt(daemon, all, (uint16_t)tenant, dirfd(dir), entry->d_name, err);
    if (dir != NULL)
        (void)closedir(dir);
    return status;
}

static spb_status adopt_all(struct spb_daemon *daemon, const struct all_rows *all,
                            struct spb_error *err)
{
    DIR *dir = opendir(daemon->artifacts_dir);
    struct dirent *entry;
    spb_status status = spb_ok();

    if (dir == NULL)
        return spb_fail_errno(err, SPB_IO, errno, "reading the folder %s", daemon->artifacts_dir);
    while (spb_is_ok(status) && (entry = readdir(dir)) != NULL)
        status = adopt_folder(daemon, all, entry->d_name, err);
    (void)closedir(dir);
    return status;
}

spb_status spb_artifacts_load(struct spb_daemon *daemon, struct spb_error *err)
{
    struct all_rows all = {.count = 0};
    spb_status status =
        spb_rows_artifacts(daemon->audit, -1, NULL, UINT32_MAX, take_row, &all, err);

    if (spb_is_ok(status) && all.failed)
        status = spb_fail_memory(err, "reading the rows of artifacts");
    if (all.count > 0)
        qsort(all.rows, all.count, sizeof(*all.rows), order);
    for (size_t i = 0; i < all.count && spb_is_ok(status); i++)
        status = drop_lost(daemon, &all.rows[i], err);
    if (spb_is_ok(status))
        status = adopt_all(daemon, &all, err);
    free(all.rows);
    return status;
}

/* ---- For gates ---------------------------------------------------------------------------- */

bool spb_gate_artifact_hash(struct spb_call *call, const char *field,
                            const ProtobufCBinaryData *hash)
{
    if (hash->len == SPB_SHA256_SIZE)
        return true;
    spb_call_set_bad_field(call, field, "found %zu bytes, expected %u", hash->len, SPB_SHA256_SIZE);
    return false;
}

bool spb_gate_artifact_label(struct spb_call *call, const char *field,
                             const ProtobufCBinaryData *label)
{
    struct spb_artifact_row row;
    bool good = label->len <= sizeof(row.name) &&
                (label->len == 0 || (memchr(label->data, '\0', label->len) == NULL &&
                                     spb_bytes_are_utf8(label->data, label->len)));

    if (!good)
        spb_call_set_bad_field(call, field,
                               "found %zu bytes, expected at most %zu of UTF-8 without NUL",
                               label->len, sizeof(row.name));
    return good;
}

void spb_artifact_show(const struct spb_artifact_row *row, PB_Artifact *shown)
{
    *shown = (PB_Artifact)SPACEBLOCK__V1__ARTIFACT__INIT;
    shown->tenant = row->tenant;
    shown->sha256 = spb_pb_bytes(row->sha256, sizeof(row->sha256));
    shown->name = spb_pb_bytes(row->name, row->name_len);
    shown->size = row->size;
    shown->created_at = (uint64_t)(row->created_us / 1000000);
}
