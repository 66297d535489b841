/* One connection to the audit's database; see database.h. */
#include "audit/database.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_TIMEOUT_MS 5000 /* for the sqlite3 tool's own writes */

/* Durable with each commit; no memory map, for a failing disk would end the process by SIGBUS. */
static const char settings[] = "PRAGMA synchronous=FULL;"
                               "PRAGMA mmap_size=0;"
                               "PRAGMA secure_delete=OFF;"
                               "PRAGMA temp_store=MEMORY;"
                               "PRAGMA trusted_schema=OFF;"
                               "PRAGMA cell_size_check=ON;"
                               "PRAGMA cache_size=-2048;";

spb_status spb_db_fail(struct spb_db *db, int rc, const char *what, struct spb_error *err)
{
    const char *text = sqlite3_errmsg(db->handle);
    enum spb_code code = SPB_IO;
    int number = 0; /* SQLite keeps that of the last system call that failed, of any statement */

    switch (rc & 0xff) {
    case SQLITE_CONSTRAINT:
        return spb_fail(err, SPB_EXISTS, "%s in %s: %s", what, db->path, text);
    case SQLITE_TOOBIG:
        return spb_fail(err, SPB_LIMIT, "%s in %s: %s", what, db->path, text);
    case SQLITE_FULL:
        code = SPB_FULL;
        number = ENOSPC;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        code = SPB_CORRUPT;
        break;
    case SQLITE_BUSY:
        code = SPB_LOCKED;
        break;
    case SQLITE_NOMEM:
        code = SPB_NO_MEMORY;
        break;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        number = sqlite3_system_errno(db->handle);
        /* Of the index of the WAL that cannot grow SQLite does not keep why. */
        if (sqlite3_extended_errcode(db->handle) == SQLITE_IOERR_SHMSIZE)
            number = ENOSPC;
        if (number == ENOSPC || number == EDQUOT)
            code = SPB_FULL;
        break;
    default:
        break;
    }
    db->broken = true;
    db->is_sound = (rc & 0xff) == SQLITE_FULL || code == SPB_LOCKED;
    if (number != 0)
        return spb_fail_errno(err, code, number, "%s in %s: %s (SQLite's %d)", what, db->path, text,
                              sqlite3_extended_errcode(db->handle));
    return spb_fail(err, code, "%s in %s: %s (SQLite's %d)", what, db->path, text,
                    sqlite3_extended_errcode(db->handle));
}

spb_status spb_db_exec(struct spb_db *db, const char *sql, const char *what, struct spb_error *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? spb_ok() : spb_db_fail(db, rc, what, err);
}

spb_status spb_db_get_number(struct spb_db *db, const char *sql, int64_t *number,
                             struct spb_error *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &statement, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    spb_status status =
        rc == SQLITE_ROW ? spb_ok() : spb_db_fail(db, rc, "asking for a number", err);
    if (rc == SQLITE_ROW)
        *number = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    return status;
}

spb_status spb_db_prepare(struct spb_db *db, enum spb_sql which, sqlite3_stmt **statement,
                          struct spb_error *err)
{
    if (db->statements[which] == NULL) {
        int rc = sqlite3_prepare_v3(db->handle, spb_sql_text(which), -1, SQLITE_PREPARE_PERSISTENT,
                                    &db->statements[which], NULL);

        if (rc != SQLITE_OK)
            return spb_db_fail(db, rc, "preparing a statement", err);
    }
    *statement = db->statements[which];
    return spb_ok();
}

spb_status spb_db_run(struct spb_db *db, sqlite3_stmt *statement, const char *what,
                      struct spb_error *err)
{
    int rc = sqlite3_step(statement);
    spb_status status = rc == SQLITE_DONE ? spb_ok() : spb_db_fail(db, rc, what, err);

    (void)sqlite3_reset(statement);
    return status;
}

spb_status spb_db_next(struct spb_db *db, sqlite3_stmt *statement, const char *what, bool *row,
                       struct spb_error *err)
{
    int rc = sqlite3_step(statement);

    *row = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW)
        return spb_ok();
    spb_status status = rc == SQLITE_DONE ? spb_ok() : spb_db_fail(db, rc, what, err);
    (void)sqlite3_reset(statement);
    return status;
}

spb_status spb_db_do(struct spb_db *db, enum spb_sql which, const char *what, struct spb_error *err)
{
    sqlite3_stmt *statement;

    SPB_TRY(spb_db_prepare(db, which, &statement, err));
    return spb_db_run(db, statement, what, err);
}

spb_status spb_db_open(const char *path, struct spb_db *db, struct spb_error *err)
{
    int flags =
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE;

    *db = (struct spb_db){.path = path};
    int rc = sqlite3_open_v2(path, &db->handle, flags, NULL);
    if (db->handle == NULL)
        return spb_fail_memory(err, "opening the audit's database");
    (void)sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    (void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    spb_status status = rc == SQLITE_OK ? spb_db_exec(db, settings, "applying settings", err)
                                        : spb_db_fail(db, rc, "opening", err);
    if (!spb_is_ok(status))
        spb_db_close(db);
    return status;
}

void spb_db_close(struct spb_db *db)
{
    for (size_t i = 0; i < SPB_SQL_COUNT; i++)
        (void)sqlite3_finalize(db->statements[i]);
    if (db->handle != NULL)
        SPB_ASSERT(sqlite3_close(db->handle) == SQLITE_OK);
    *db = (struct spb_db){.path = db->path};
}

/* ---- Columns ------------------------------------------------------------------------------ */

void spb_column_text(sqlite3_stmt *statement, int column, char *out, size_t size)
{
    spb_column_bytes(statement, column, out, size - 1);
    out[size - 1] = '\0';
}

void spb_column_bytes(sqlite3_stmt *statement, int column, void *out, size_t size)
{
    (void)spb_column_some(statement, column, out, size);
}

size_t spb_column_some(sqlite3_stmt *statement, int column, void *out, size_t size)
{
    const void *bytes = sqlite3_column_blob(statement, column);
    size_t n = (size_t)sqlite3_column_bytes(statement, column);

    if (n > size)
        n = size;
    memset(out, 0, size);
    if (bytes != NULL)
        memcpy(out, bytes, n);
    return n;
}

const char *spb_column_string(sqlite3_stmt *statement, int column)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);

    return text == NULL ? "" : text;
}

spb_status spb_column_copy(sqlite3_stmt *statement, int column, uint8_t **bytes, size_t *size,
                           struct spb_error *err)
{
    const void *from = sqlite3_column_blob(statement, column);
    size_t n = (size_t)sqlite3_column_bytes(statement, column);
    uint8_t *copy = NULL;

    if (n > 0 && from != NULL) {
        copy = malloc(n);
        if (copy == NULL)
            return spb_fail_memory(err, "reading the audit");
        memcpy(copy, from, n);
    }
    *bytes = copy;
    *size = copy == NULL ? 0 : n;
    return spb_ok();
}
