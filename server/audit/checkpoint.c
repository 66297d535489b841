/* Moving the WAL into the database; see checkpoint.h. */
#include "audit/checkpoint.h"

#include "audit/connect.h"
#include "audit/inside.h"
#include "log.h"

#define PASSES_MAX 4     /* of the thread; each has less to copy than the one before */
#define REST_FRAMES 64   /* so few are copied within a millisecond */
#define WARN_FACTOR 8    /* a WAL four times its usual size */
#define FRAME_HEADER 24  /* bytes; the format of SQLite's WAL */
#define GROWN_SIZE 65536 /* written at once */

static enum spb_checkpoint_state get_state(struct spb_checkpoint *checkpoint)
{
    (void)pthread_mutex_lock(&checkpoint->lock);
    enum spb_checkpoint_state state = checkpoint->state;
    (void)pthread_mutex_unlock(&checkpoint->lock);
    return state;
}

static void set_state(struct spb_checkpoint *checkpoint, enum spb_checkpoint_state state)
{
    (void)pthread_mutex_lock(&checkpoint->lock);
    checkpoint->state = state;
    (void)pthread_mutex_unlock(&checkpoint->lock);
}

/* ---- The thread --------------------------------------------------------------------------- */

/* Copies what no reader needs to stay. False: it made no headway; see has_failed. */
static bool copy(struct spb_audit *audit, struct spb_db *db, int *rest)
{
    struct spb_checkpoint *checkpoint = &audit->checkpoint;
    int frames = 0, copied = 0;
    int rc =
        sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);

    *rest = frames - copied;
    if (rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY)
        return rc == SQLITE_OK;
    spb_log(audit->options.log, SPB_LOG_WARN, "audit-checkpoint-failed",
            SPB_TEXT("path", audit->path), SPB_TEXT("text", sqlite3_errmsg(db->handle)),
            SPB_NUMBER("code", sqlite3_extended_errcode(db->handle)));
    (void)pthread_mutex_lock(&checkpoint->lock);
    checkpoint->has_failed = checkpoint->has_failed || (rc & 0xff) != SQLITE_FULL;
    (void)pthread_mutex_unlock(&checkpoint->lock);
    return false;
}

static void *run(void *user)
{
    struct spb_audit *audit = user;
    struct spb_checkpoint *checkpoint = &audit->checkpoint;

    for (;;) {
        int rest = 0;

        (void)pthread_mutex_lock(&checkpoint->lock);
        while (checkpoint->state != SPB_CHECKPOINT_RUNNING && !checkpoint->is_closing)
            (void)pthread_cond_wait(&checkpoint->wake, &checkpoint->lock);
        bool closing = checkpoint->is_closing;
        (void)pthread_mutex_unlock(&checkpoint->lock);
        if (closing)
            return NULL;
        for (int i = 0; i < PASSES_MAX; i++) {
            if (!copy(audit, &audit->keeper, &rest) || rest <= REST_FRAMES)
                break;
        }
        set_state(checkpoint, SPB_CHECKPOINT_COPIED);
    }
}

/* ---- With the turn ------------------------------------------------------------------------ */

static int note_frames(void *user, sqlite3 *handle, const char *name, int frames)
{
    struct spb_checkpoint *checkpoint = user;

    (void)handle;
    (void)name;
    checkpoint->frames = frames;
    checkpoint->follows_failure = false;
    return SQLITE_OK;
}

void spb_checkpoint_watch(struct spb_audit *audit)
{
    (void)sqlite3_wal_hook(audit->db.handle, note_frames, &audit->checkpoint);
}

bool spb_checkpoint_is_due(struct spb_audit *audit)
{
    return get_state(&audit->checkpoint) == SPB_CHECKPOINT_DUE;
}

bool spb_checkpoint_is_copied(struct spb_audit *audit)
{
    return !audit->checkpoint.follows_failure &&
           get_state(&audit->checkpoint) == SPB_CHECKPOINT_COPIED;
}

void spb_checkpoint_note_failure(struct spb_audit *audit)
{
    audit->checkpoint.follows_failure = true;
}

/*
 * Zeros behind the WAL's end, which no recovery takes for frames. They are written and not just
 * allocated, or each first write there would be one of the file system's journal. A disk too full
 * for that will say so when it matters.
 */
static void grow(struct spb_audit *audit, int64_t size)
{
    static const uint8_t zeros[GROWN_SIZE];
    sqlite3_file *wal = NULL;
    sqlite3_int64 at = 0;

    int rc = sqlite3_file_control(audit->keeper.handle, "main", SQLITE_FCNTL_JOURNAL_POINTER,
                                  (void *)&wal);
    if (rc != SQLITE_OK || wal == NULL || wal->pMethods == NULL ||
        wal->pMethods->xFileSize(wal, &at) != SQLITE_OK)
        return;
    while (at < size && wal->pMethods->xWrite(wal, zeros, GROWN_SIZE, at) == SQLITE_OK)
        at += GROWN_SIZE;
    (void)wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
}

static bool has_failed(struct spb_checkpoint *checkpoint)
{
    (void)pthread_mutex_lock(&checkpoint->lock);
    bool failed = checkpoint->has_failed;
    (void)pthread_mutex_unlock(&checkpoint->lock);
    return failed;
}

/* False: the WAL is as long as it was. */
static bool renew(struct spb_audit *audit)
{
    struct spb_checkpoint *checkpoint = &audit->checkpoint;
    struct spb_error err;

    if (!spb_is_ok(spb_connect_renew(audit, &err))) {
        spb_log(audit->options.log, SPB_LOG_WARN, "audit-checkpoint-failed",
                SPB_TEXT("code", spb_code_name(err.code)), SPB_TEXT("text", err.text));
        return false;
    }
    (void)pthread_mutex_lock(&checkpoint->lock);
    checkpoint->has_failed = false;
    (void)pthread_mutex_unlock(&checkpoint->lock);
    checkpoint->frames = 0;
    grow(audit, audit->options.wal_bytes);
    return true;
}

/* Copies the rest, while no commit runs. False: something of the WAL has to stay. */
static bool copy_rest(struct spb_audit *audit)
{
    struct spb_checkpoint *checkpoint = &audit->checkpoint;
    int rest = 0;

    if (!has_failed(checkpoint)) {
        if (checkpoint->frames < checkpoint->start_frames) /* it has begun anew by itself */
            return true;
        if (copy(audit, &audit->db, &rest))
            return rest == 0;
    }
    return has_failed(checkpoint) && renew(audit);
}

/* A reader that stays keeps the WAL from being begun anew: it grows, and that is told. */
void spb_checkpoint_finish(struct spb_audit *audit)
{
    struct spb_checkpoint *checkpoint = &audit->checkpoint;

    if (copy_rest(audit)) {
        checkpoint->next_frames = checkpoint->start_frames;
        checkpoint->warn_frames = checkpoint->start_frames * WARN_FACTOR;
    } else {
        checkpoint->next_frames = checkpoint->frames + checkpoint->start_frames / 2;
    }
    if (checkpoint->next_frames >= checkpoint->warn_frames) {
        spb_log(audit->options.log, SPB_LOG_WARN, "audit-wal-grows", SPB_TEXT("path", audit->path),
                SPB_NUMBER("pages", checkpoint->frames));
        checkpoint->warn_frames *= 2;
    }
    set_state(checkpoint, SPB_CHECKPOINT_IDLE);
}

void spb_checkpoint_go_on(struct spb_audit *audit)
{
    struct spb_checkpoint *checkpoint = &audit->checkpoint;

    switch (get_state(checkpoint)) {
    case SPB_CHECKPOINT_IDLE:
        if (checkpoint->frames >= checkpoint->next_frames)
            set_state(checkpoint,
                      has_failed(checkpoint) ? SPB_CHECKPOINT_COPIED : SPB_CHECKPOINT_DUE);
        break;
    case SPB_CHECKPOINT_DUE: /* the commit before moved the mark */
        set_state(checkpoint, SPB_CHECKPOINT_RUNNING);
        (void)pthread_cond_signal(&checkpoint->wake);
        break;
    case SPB_CHECKPOINT_RUNNING:
    case SPB_CHECKPOINT_COPIED:
        break;
    }
}

/* ---- Starting and stopping ---------------------------------------------------------------- */

static void init(struct spb_checkpoint *checkpoint)
{
    SPB_ASSERT(pthread_mutex_init(&checkpoint->lock, NULL) == 0);
    SPB_ASSERT(pthread_cond_init(&checkpoint->wake, NULL) == 0);
}

spb_status spb_checkpoint_start(struct spb_audit *audit, struct spb_error *err)
{
    struct spb_checkpoint *checkpoint = &audit->checkpoint;
    int64_t page_size;

    init(checkpoint);
    SPB_TRY(spb_db_get_number(&audit->keeper, "PRAGMA page_size;", &page_size, err));
    checkpoint->start_frames = audit->options.wal_bytes / (page_size + FRAME_HEADER) / 2;
    checkpoint->next_frames = checkpoint->start_frames;
    checkpoint->warn_frames = checkpoint->start_frames * WARN_FACTOR;
    grow(audit, audit->options.wal_bytes);
    int number = pthread_create(&checkpoint->thread, NULL, run, audit);
    if (number != 0)
        return spb_fail_errno(err, SPB_NO_MEMORY, number, "starting the audit's second thread");
    checkpoint->has_thread = true;
    return spb_ok();
}

void spb_checkpoint_stop(struct spb_audit *audit)
{
    struct spb_checkpoint *checkpoint = &audit->checkpoint;

    if (!checkpoint->has_thread)
        return;
    (void)pthread_mutex_lock(&checkpoint->lock);
    checkpoint->is_closing = true;
    (void)pthread_mutex_unlock(&checkpoint->lock);
    (void)pthread_cond_signal(&checkpoint->wake);
    (void)pthread_join(checkpoint->thread, NULL);
    checkpoint->has_thread = false;
}
