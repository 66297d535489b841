/*
 * Transactions, by whoever has the turn; see transact.h.
 *
 * After a failed commit. What SQLite wrote of it may be in the WAL's file, whole, and the medium
 * may or may not have it: a flush that failed may have left the pages in the cache marked clean.
 * But it is not in the WAL's index, which is in memory shared by all connections and lasts as long
 * as one of them: the keeper's stays open, so that no recovery takes the failed commit for a good
 * one while this process lives, and the next commit is written over it from the same place on. What
 * was committed before is untouched: each commit ended with a flush of its own that succeeded.
 * Should the process die first, the next may find the failed commit whole: intents without
 * outcome, which it settles. connect.c says why it can build on them.
 */
#include "audit/transact.h"

#include "audit/connect.h"
#include "log.h"
#include "util.h"

/* ---- Outcomes ----------------------------------------------------------------------------- */

static struct spb_open_group *take_ended(struct spb_audit *audit)
{
    (void)pthread_mutex_lock(&audit->lock);
    struct spb_open_group *ended = audit->ended;
    audit->ended = NULL;
    audit->ended_last = NULL;
    (void)pthread_mutex_unlock(&audit->lock);
    return ended;
}

/* They were not written: before those that came meanwhile. */
static void put_back(struct spb_audit *audit, struct spb_open_group *ended)
{
    struct spb_open_group *last = ended;

    if (ended == NULL)
        return;
    while (last->next_ended != NULL)
        last = last->next_ended;
    (void)pthread_mutex_lock(&audit->lock);
    last->next_ended = audit->ended;
    if (audit->ended == NULL)
        audit->ended_last = last;
    audit->ended = ended;
    (void)pthread_mutex_unlock(&audit->lock);
}

static void drop_written(struct spb_audit *audit, struct spb_open_group *ended)
{
    size_t count = 0;

    while (ended != NULL) {
        struct spb_open_group *next = ended->next_ended;

        spb_open_group_free(ended);
        ended = next;
        count++;
    }
    (void)pthread_mutex_lock(&audit->lock);
    audit->unwritten -= count;
    (void)pthread_mutex_unlock(&audit->lock);
}

/* ---- A transaction ------------------------------------------------------------------------ */

enum end {
    COMMITTED,
    FAILED, /* for all */
    SPOILT, /* by one that failed halfway: others may do without it */
};

/*
 * Does each of works. A refusal that changed nothing concerns its own caller only. err: the last
 * failure.
 */
static enum end run_each(struct spb_audit *audit, struct spb_work *works, struct spb_error *err)
{
    for (struct spb_work *work = works; work != NULL; work = work->next) {
        int64_t before = sqlite3_total_changes64(audit->db.handle);

        work->status = work->run(audit, work, err);
        if (spb_is_ok(work->status))
            continue;
        if (work->err != NULL)
            *work->err = *err;
        if (audit->db.broken || sqlite3_total_changes64(audit->db.handle) != before)
            return SPOILT;
    }
    return COMMITTED;
}

static spb_status write_outcomes(struct spb_audit *audit, const struct spb_open_group *ended,
                                 struct spb_error *err)
{
    for (; ended != NULL; ended = ended->next_ended)
        SPB_TRY(spb_intents_write_outcome(audit, ended, err));
    return spb_ok();
}

static void roll_back(struct spb_audit *audit, const struct spb_audit_counts *before)
{
    struct spb_db *db = &audit->db;

    spb_checkpoint_note_failure(audit);
    /* SQLite may have done so itself. */
    if (db->handle != NULL && sqlite3_get_autocommit(db->handle) == 0 &&
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK)
        audit->is_stale = true;
    audit->is_stale = audit->is_stale || (db->broken && !db->is_sound);
    db->broken = false;
    db->is_sound = false;
    audit->counts = *before;
    spb_names_forget(&audit->names);
}

/* One transaction, all but its beginning. err: of a failure that is everybody's. */
static enum end attempt(struct spb_audit *audit, struct spb_work *works,
                        const struct spb_open_group *ended, struct spb_error *err)
{
    struct spb_db *db = &audit->db;

    if (!spb_is_ok(spb_connect_ensure(audit, err)) ||
        !spb_is_ok(spb_db_do(db, SPB_SQL_BEGIN, "beginning a transaction", err)) ||
        !spb_is_ok(write_outcomes(audit, ended, err)) ||
        (spb_checkpoint_is_due(audit) && !spb_is_ok(spb_mark_write(audit, err))))
        return FAILED;
    enum end end = run_each(audit, works, err);
    if (end == COMMITTED && !spb_is_ok(spb_db_do(db, SPB_SQL_COMMIT, "committing", err)))
        end = FAILED;
    return end;
}

static void finish(struct spb_audit *audit, struct spb_work *works)
{
    while (works != NULL) {
        struct spb_work *next = works->next; /* once woken its caller's stack is gone */

        if (works->committed != NULL && spb_is_ok(works->status))
            works->committed(audit, works);
        (void)sem_post(&works->done);
        works = next;
    }
}

static void fail(struct spb_work *works, const struct spb_error *err)
{
    while (works != NULL) {
        struct spb_work *next = works->next;

        if (spb_is_ok(works->status)) {
            works->status = (spb_status){err->code};
            if (works->err != NULL)
                *works->err = *err;
        }
        (void)sem_post(&works->done);
        works = next;
    }
}

/* Of outcomes only, whose failure no caller hears of: once until it works again. */
static void tell(struct spb_audit *audit, const struct spb_error *err)
{
    if (err == NULL && audit->is_failing)
        spb_log(audit->options.log, SPB_LOG_INFO, "audit-recovered", SPB_TEXT("path", audit->path));
    if (err != NULL && !audit->is_failing)
        spb_log(audit->options.log, SPB_LOG_ERROR, "audit-failed",
                SPB_TEXT("code", spb_code_name(err->code)), SPB_TEXT("text", err->text));
    audit->is_failing = err != NULL;
}

static size_t count_intents(const struct spb_work *works)
{
    size_t count = 0;

    for (; works != NULL; works = works->next)
        count += works->intents;
    return count;
}

static enum end transact(struct spb_audit *audit, struct spb_work *works)
{
    struct spb_audit_counts before = audit->counts;
    struct spb_open_group *ended = take_ended(audit);
    struct spb_error err = {.code = SPB_IO};
    int64_t started_ns = spb_now_ns();
    enum end end = attempt(audit, works, ended, &err);

    if (end == COMMITTED) {
        size_t intents = count_intents(works);

        tell(audit, NULL);
        drop_written(audit, ended);
        finish(audit, works);
        spb_checkpoint_go_on(audit);
        if (audit->options.observe != NULL)
            audit->options.observe(audit->options.user, spb_now_ns() - started_ns, intents);
        return end;
    }
    if (err.code == SPB_LOCKED) /* means an image in use elsewhere; this is no such thing */
        err.code = SPB_IO;
    if (end == FAILED || audit->db.broken)
        tell(audit, &err);
    roll_back(audit, &before);
    put_back(audit, ended);
    if (end == FAILED || works->next == NULL)
        fail(works, &err);
    return end;
}

void spb_transact(struct spb_audit *audit, struct spb_work *works)
{
    bool several = works != NULL && works->next != NULL;

    if (transact(audit, works) != SPOILT || !several)
        return;
    while (works != NULL) {
        struct spb_work *next = works->next;

        works->next = NULL;
        (void)transact(audit, works);
        works = next;
    }
}
