/*
 * Rewriting the WAL that another process left; see rewrite.h.
 *
 * That process may have died of a failed flush, or right after one. Linux has told it of that and
 * nobody else: the pages are marked clean, recovery finds the commit in them, a flush has nothing
 * to write and succeeds, and the medium has none of it. Were it copied into the database now, and
 * power lost halfway, there would be pages of the database torn and no WAL to mend them from.
 *
 * Only pages that are written again are flushed again. The bytes are those that are there, so what
 * the medium has already cannot be hurt by that, in whatever order and however far it goes. Nor can
 * a WAL that had been begun anew, whose predecessor alone is on the medium: it was copied and
 * flushed before. The lock of a writer keeps others from changing the file meanwhile; those who
 * read see no difference.
 */
#include "audit/rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_SIZE 65536

static spb_status fail(const struct spb_db *db, int rc, const char *what, struct spb_error *err)
{
    enum spb_code code = (rc & 0xff) == SQLITE_FULL ? SPB_FULL : SPB_IO;

    return spb_fail(err, code, "%s the WAL of %s: %s (SQLite's %d)", what, db->path,
                    sqlite3_errstr(rc), rc);
}

/* SQLite's own, for another descriptor's closing would end its locks. NULL: there is none. */
static sqlite3_file *find_wal(struct spb_db *db)
{
    sqlite3_file *wal = NULL;
    int rc = sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&wal);

    return rc == SQLITE_OK && wal != NULL && wal->pMethods != NULL ? wal : NULL;
}

static spb_status rewrite(const struct spb_db *db, sqlite3_file *wal, uint8_t *chunk,
                          struct spb_error *err)
{
    sqlite3_int64 size = 0;
    int rc = wal->pMethods->xFileSize(wal, &size);

    if (rc != SQLITE_OK)
        return fail(db, rc, "measuring", err);
    for (sqlite3_int64 at = 0; at < size; at += CHUNK_SIZE) {
        int n = size - at < CHUNK_SIZE ? (int)(size - at) : CHUNK_SIZE;

        rc = wal->pMethods->xRead(wal, chunk, n, at);
        if (rc != SQLITE_OK)
            return fail(db, rc, "reading", err);
        rc = wal->pMethods->xWrite(wal, chunk, n, at);
        if (rc != SQLITE_OK)
            return fail(db, rc, "rewriting", err);
    }
    rc = wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
    return rc == SQLITE_OK ? spb_ok() : fail(db, rc, "flushing", err);
}

/* SQLite does so when it has made the file; the one that made it may not have come so far. */
static spb_status flush_folder(const struct spb_db *db, struct spb_error *err)
{
    char *copy = strdup(db->path);

    if (copy == NULL)
        return spb_fail_memory(err, "flushing a folder");
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int number = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0)
        (void)close(fd);
    free(copy);
    return number == 0 ? spb_ok()
                       : spb_fail_errno(err, SPB_IO, number, "flushing the folder of %s", db->path);
}

spb_status spb_wal_rewrite(struct spb_db *db, struct spb_error *err)
{
    sqlite3_file *wal = find_wal(db);

    if (wal == NULL)
        return spb_ok();
    uint8_t *chunk = malloc(CHUNK_SIZE);
    if (chunk == NULL)
        return spb_fail_memory(err, "rewriting a WAL");
    spb_status status = spb_db_exec(db, "BEGIN IMMEDIATE;", "rewriting the WAL", err);
    if (spb_is_ok(status)) {
        status = rewrite(db, wal, chunk, err);
        spb_status ended =
            spb_db_exec(db, "ROLLBACK;", "rewriting the WAL", spb_is_ok(status) ? err : NULL);
        if (spb_is_ok(status))
            status = ended;
    }
    free(chunk);
    if (spb_is_ok(status))
        status = flush_folder(db, err);
    return status;
}
