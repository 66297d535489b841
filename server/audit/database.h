/*
 * One connection to the audit's database: its settings, its prepared statements, its errors.
 *
 * Statements are prepared when they are first used and kept until the connection is closed. A
 * failure is of one of two kinds. One of the statement alone (a constraint) leaves the transaction
 * as it was before the statement. Any other sets `broken`: what the transaction did is not to be
 * relied upon, and it is to be rolled back. A connection is one thread's at a time.
 */
#ifndef SPB_SERVER_AUDIT_DATABASE_H
#define SPB_SERVER_AUDIT_DATABASE_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "audit/statements.h"
#include "base/status.h"

struct spb_db {
    const char *path; /* borrowed */
    sqlite3 *handle;  /* NULL: closed */
    bool broken;      /* until the transaction has been rolled back */
    bool is_sound;    /* and the connection can go on: for lack of space, or another's lock */
    sqlite3_stmt *statements[SPB_SQL_COUNT];
};

/* Opens a file that is there, with the settings that every connection has. Closing it does not
 * copy the WAL. */
SPB_MUST_USE spb_status spb_db_open(const char *path, struct spb_db *db, struct spb_error *err);
/* Accepts one that is not open. */
void spb_db_close(struct spb_db *db);

/*
 * The failure that SQLite reported as rc while doing what: SPB_FULL, SPB_EXISTS (a constraint),
 * SPB_CORRUPT, SPB_LOCKED (by another process), SPB_NO_MEMORY, else SPB_IO.
 */
spb_status spb_db_fail(struct spb_db *db, int rc, const char *what, struct spb_error *err);

/* Runs text of one or several statements that yield no rows. */
SPB_MUST_USE spb_status spb_db_exec(struct spb_db *db, const char *sql, const char *what,
                                    struct spb_error *err);
/* The number in the first column of the first row of sql. */
SPB_MUST_USE spb_status spb_db_get_number(struct spb_db *db, const char *sql, int64_t *number,
                                          struct spb_error *err);

/* A prepared statement, reset; the connection's. */
SPB_MUST_USE spb_status spb_db_prepare(struct spb_db *db, enum spb_sql which,
                                       sqlite3_stmt **statement, struct spb_error *err);
/* Runs a statement that yields no rows, and resets it. */
SPB_MUST_USE spb_status spb_db_run(struct spb_db *db, sqlite3_stmt *statement, const char *what,
                                   struct spb_error *err);
/* Steps to the next row. *row false: there is none, and the statement is reset, as on failure. */
SPB_MUST_USE spb_status spb_db_next(struct spb_db *db, sqlite3_stmt *statement, const char *what,
                                    bool *row, struct spb_error *err);
/* Both for a statement without parameters that yields no rows. */
SPB_MUST_USE spb_status spb_db_do(struct spb_db *db, enum spb_sql which, const char *what,
                                  struct spb_error *err);

/*
 * Binding cannot fail: places are those of our own texts, nothing is copied (what is bound is
 * borrowed until the statement is reset), and sizes are within SQLite's limit.
 */
static inline void spb_bind_number(sqlite3_stmt *statement, int place, int64_t value)
{
    SPB_ASSERT(sqlite3_bind_int64(statement, place, value) == SQLITE_OK);
}

static inline void spb_bind_null(sqlite3_stmt *statement, int place)
{
    SPB_ASSERT(sqlite3_bind_null(statement, place) == SQLITE_OK);
}

static inline void spb_bind_text(sqlite3_stmt *statement, int place, const char *text)
{
    SPB_ASSERT(sqlite3_bind_text(statement, place, text, -1, SQLITE_STATIC) == SQLITE_OK);
}

/* bytes may be NULL: SQL's NULL then. */
static inline void spb_bind_bytes(sqlite3_stmt *statement, int place, const void *bytes, size_t n)
{
    SPB_ASSERT(sqlite3_bind_blob64(statement, place, bytes, n, SQLITE_STATIC) == SQLITE_OK);
}

/* Texts and bytes of a row, cut or filled up with zeros to the size of out; text always ends. */
void spb_column_text(sqlite3_stmt *statement, int column, char *out, size_t size);
void spb_column_bytes(sqlite3_stmt *statement, int column, void *out, size_t size);
/* The same, and returns how many there were; at most size. */
size_t spb_column_some(sqlite3_stmt *statement, int column, void *out, size_t size);
/* A row's text, the row's; "" where it has none. */
const char *spb_column_string(sqlite3_stmt *statement, int column);
/* A copy of a row's bytes, the caller's; NULL of none (size 0). SPB_NO_MEMORY. */
SPB_MUST_USE spb_status spb_column_copy(sqlite3_stmt *statement, int column, uint8_t **bytes,
                                        size_t *size, struct spb_error *err);

#endif
