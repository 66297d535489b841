/*
 * The audit's two lasting connections; see connect.h.
 *
 * What a failed flush leaves. Linux may mark the pages clean that it could not write: they are
 * read as if all were well, no later flush tells of them, and a power loss shows that they never
 * were on the medium. SQLite's own account of what is on it is then wrong in two ways.
 *
 * Of the WAL: a process that died right after such a failure leaves a commit that recovery takes
 * for a good one, and later ones behind it, flushed, would be lost with it. Of the database: a
 * checkpoint that readers or writers cut short copies pages without a flush and counts them as
 * copied; if the flush of a later one fails, a third that succeeds does not copy them again, and
 * the WAL is written over.
 *
 * So a start, and whoever saw a checkpoint fail, rewrites and flushes the whole WAL where it is
 * (rewrite.c), for what is read there may not be on the medium; copies it, from its first frame on,
 * flushes that, and begins it anew, before anything is built on it. That takes a connection which
 * is alone and finds out from the file what the WAL holds. Until then nothing is copied, so that
 * the WAL is there for the next start.
 *
 * At a start the database is checked, for as long as that may hold it up; later only where a WAL is
 * left.
 */
#include "audit/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "audit/inside.h"
#include "audit/rewrite.h"
#include "audit/schema.h"
#include "log.h"
#include "util.h"

#define ALONE_TIMEOUT_MS 1000 /* for the sqlite3 tool to end */
#define CHECK_NS (2 * SPB_NS_PER_S)
#define CHECK_STEPS 10000 /* of SQLite's machine between two looks at the clock */
#define ADVICE                                                                                     \
    "; restore a backup, or recover what is readable: OPERATIONS.md, \"A damaged audit.db\""

/* ---- The file ----------------------------------------------------------------------------- */

/* SQLite would let others read it. Its companions get the same mode. */
static spb_status make_file(struct spb_audit *audit, struct spb_error *err)
{
    int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    struct stat st;
    int fd = open(audit->path, flags, 0600);

    if (fd < 0)
        return spb_fail_errno(err, spb_code_of_errno(errno), errno, "opening %s", audit->path);
    if (fstat(fd, &st) == 0) {
        audit->device = st.st_dev;
        audit->inode = st.st_ino;
    }
    (void)close(fd); /* nobody in this process has it open, whose locks would go */
    return spb_ok();
}

/* Somebody removed or replaced the file: what is written to it now nobody will find. */
static spb_status check_place(const struct spb_audit *audit, struct spb_error *err)
{
    struct stat st;

    if (stat(audit->path, &st) != 0)
        return spb_fail_errno(err, SPB_IO, errno,
                              "looking for %s, which was removed; put it back and start again",
                              audit->path);
    if (st.st_dev != audit->device || st.st_ino != audit->inode)
        return spb_fail(err, SPB_IO,
                        "looking for %s: it was replaced by another file; put it back and start "
                        "again",
                        audit->path);
    return spb_ok();
}

/* In bytes; 0: none. */
static uint64_t wal_size(const char *path)
{
    char wal[4096];
    struct stat st;

    (void)snprintf(wal, sizeof wal, "%s-wal", path);
    return stat(wal, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Is there something to recover? A clean end leaves no WAL. */
static bool has_wal(const char *path)
{
    return wal_size(path) > 0;
}

/* All pages of the WAL may be new ones of the database. */
static bool has_room_to_copy(const char *path)
{
    struct statvfs fs;

    return statvfs(path, &fs) != 0 || (uint64_t)fs.f_bavail * fs.f_frsize >= wal_size(path);
}

/* ---- Recovering and checking -------------------------------------------------------------- */

/*
 * On a full disk the WAL, which is durable then, stays as it is: all can be read from it. Copying
 * what still fits would take the space that opening the database needs.
 */
static spb_status recover(struct spb_db *db, struct spb_error *err)
{
    SPB_TRY(spb_wal_rewrite(db, err));
    if (!has_room_to_copy(db->path))
        return spb_ok();
    int rc = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc == SQLITE_OK)
        return spb_ok();
    spb_status status = spb_db_fail(db, rc, "recovering", err);
    return status.code == SPB_FULL ? spb_ok() : status;
}

static int is_too_long(void *user)
{
    return spb_now_ns() > *(const int64_t *)user;
}

/* SPB_CORRUPT. What could not be checked in time is taken as it is. */
static spb_status check(struct spb_db *db, struct spb_error *err)
{
    int64_t until_ns = spb_now_ns() + CHECK_NS;
    sqlite3_stmt *statement = NULL;
    spb_status status = spb_ok();
    int rc = sqlite3_prepare_v2(db->handle, "PRAGMA quick_check(1);", -1, &statement, NULL);

    sqlite3_progress_handler(db->handle, CHECK_STEPS, is_too_long, &until_ns);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        const char *found = (const char *)sqlite3_column_text(statement, 0);

        if (found == NULL || strcmp(found, "ok") != 0)
            status = spb_fail(err, SPB_CORRUPT, "checking %s: %s", db->path,
                              found == NULL ? "no result" : found);
    } else if ((rc & 0xff) != SQLITE_INTERRUPT) {
        status = spb_db_fail(db, rc, "checking", err);
    }
    (void)sqlite3_finalize(statement);
    sqlite3_progress_handler(db->handle, 0, NULL, NULL);
    return status;
}

static spb_status choose_wal(struct spb_db *db, struct spb_error *err)
{
    int64_t chosen;

    SPB_TRY(spb_db_exec(db, "PRAGMA journal_mode=WAL;", "choosing a WAL", err));
    SPB_TRY(spb_db_get_number(
        db, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal';", &chosen, err));
    if (chosen == 0)
        return spb_fail(err, SPB_UNSUPPORTED, "choosing a WAL for %s: not possible there",
                        db->path);
    return spb_ok();
}

/* ---- Connections -------------------------------------------------------------------------- */

/* Recovers, checks where that is wanted, and migrates, by a connection of its own. */
static spb_status prepare(struct spb_db *db, bool wants_check, struct spb_error *err)
{
    SPB_TRY(spb_schema_check(db, &spb_schema, err));
    SPB_TRY(recover(db, err));
    if (wants_check)
        SPB_TRY(check(db, err));
    SPB_TRY(choose_wal(db, err));
    return spb_schema_migrate(db, &spb_schema, err);
}

static spb_status prepare_on(const char *path, const char *locking, bool wants_check,
                             struct spb_error *err)
{
    struct spb_db db;

    SPB_TRY(spb_db_open(path, &db, err));
    (void)sqlite3_busy_timeout(db.handle, ALONE_TIMEOUT_MS);
    spb_status status = spb_db_exec(&db, locking, "choosing how to lock", err);
    if (spb_is_ok(status))
        status = prepare(&db, wants_check, err);
    if (spb_is_ok(status)) /* so that what it wrote is copied */
        (void)sqlite3_db_config(db.handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    spb_db_close(&db);
    return status;
}

/*
 * In this mode, chosen before the WAL is looked at, SQLite holds the WAL's index in its own memory
 * and makes it from the file. It needs the database for itself.
 */
static spb_status prepare_alone(const char *path, bool wants_check, struct spb_error *err)
{
    return prepare_on(path, "PRAGMA locking_mode=EXCLUSIVE;", wants_check, err);
}

/* Where somebody else has it open at a start, that must do: it is no reason not to serve. */
static spb_status prepare_at_start(struct spb_audit *audit, struct spb_error *err)
{
    spb_status status = prepare_alone(audit->path, true, err);

    if (status.code != SPB_LOCKED)
        return status;
    spb_log(audit->options.log, SPB_LOG_WARN, "audit-shared", SPB_TEXT("path", audit->path),
            SPB_TEXT("text", "another process has it open at the start"));
    return prepare_on(audit->path, "", true, err);
}

/* A WAL that a reader made too long is cut again; checkpoints are the checkpointer's. */
static spb_status open_writer(struct spb_audit *audit, struct spb_error *err)
{
    char settings[128];

    SPB_TRY(spb_db_open(audit->path, &audit->db, err));
    (void)snprintf(settings, sizeof settings,
                   "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=%lld;"
                   "PRAGMA cache_size=-8192;",
                   (long long)audit->options.wal_bytes * 4);
    SPB_TRY(spb_db_exec(&audit->db, settings, "applying settings", err));
    spb_checkpoint_watch(audit);
    return spb_ok();
}

/* Reading is what makes it take part in the WAL's index. */
static spb_status open_keeper(struct spb_audit *audit, struct spb_error *err)
{
    int64_t version;

    SPB_TRY(spb_db_open(audit->path, &audit->keeper, err));
    spb_status status = spb_db_get_number(&audit->keeper, "PRAGMA user_version;", &version, err);
    if (!spb_is_ok(status))
        spb_db_close(&audit->keeper);
    return status;
}

spb_status spb_connect_open(struct spb_audit *audit, struct spb_error *err)
{
    struct spb_error local;

    SPB_TRY(make_file(audit, err));
    spb_status status = prepare_at_start(audit, &local);
    if (spb_is_ok(status))
        status = open_keeper(audit, &local);
    if (spb_is_ok(status))
        status = open_writer(audit, &local);
    if (!spb_is_ok(status) && err != NULL) {
        *err = local;
        if (status.code == SPB_CORRUPT)
            (void)spb_fail(err, SPB_CORRUPT, "%.300s" ADVICE, local.text);
    }
    return status;
}

void spb_connect_close(struct spb_audit *audit, bool is_sound)
{
    spb_db_close(&audit->db);
    if (is_sound && audit->keeper.handle != NULL)
        (void)sqlite3_db_config(audit->keeper.handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    spb_db_close(&audit->keeper);
}

spb_status spb_connect_ensure(struct spb_audit *audit, struct spb_error *err)
{
    SPB_TRY(check_place(audit, err));
    if (!audit->is_stale)
        return spb_ok();
    spb_db_close(&audit->db);
    if (audit->keeper.handle == NULL)
        SPB_TRY(open_keeper(audit, err));
    SPB_TRY(open_writer(audit, err));
    audit->is_stale = false;
    return spb_ok();
}

spb_status spb_connect_renew(struct spb_audit *audit, struct spb_error *err)
{
    if (pthread_mutex_trylock(&audit->reader_lock) != 0)
        return spb_fail(err, SPB_LOCKED, "copying the WAL of %s: it is being listed", audit->path);
    spb_db_close(&audit->reader);
    spb_db_close(&audit->db);
    spb_db_close(&audit->keeper);
    audit->is_stale = true;
    /* With a WAL something went wrong. */
    spb_status status = prepare_alone(audit->path, has_wal(audit->path), err);
    (void)pthread_mutex_unlock(&audit->reader_lock);
    if (!spb_is_ok(status))
        (void)!spb_is_ok(spb_connect_ensure(audit, NULL)); /* the next transaction tells */
    return spb_is_ok(status) ? spb_connect_ensure(audit, err) : status;
}
