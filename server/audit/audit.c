/*
 * Who does a transaction; see audit.h and inside.h.
 *
 * Whoever has the turn takes everything that waits and does it in one transaction, outcomes first.
 * A caller who finds nobody at it takes the turn itself, which spares it two changes of threads;
 * others queue. Who has done a transaction wakes the callers whose work was in it, and passes the
 * turn to the first that waits. So everybody does one transaction at most, with its own work in it,
 * and is woken once.
 *
 * The audit's own thread has the turn for what no caller should be held up by: outcomes that no
 * transaction has taken along for a while, the end of a checkpoint, forgetting.
 *
 * When a transaction fails, nothing of it counts: its callers get the error, its outcomes stay
 * queued. Where the cause was more than a full disk, the connection is closed and opened anew
 * before the next one; see transact.c for what that leaves.
 */
#include "audit/audit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "audit/connect.h"
#include "audit/inside.h"
#include "audit/transact.h"
#include "util.h"

#define BATCH_INTENTS_MAX 1024u /* a transaction: the first must not wait for too many others */
#define WAL_BYTES (INT64_C(16) << 20)
#define WAL_BYTES_MIN (INT64_C(64) << 10)

int64_t spb_audit_now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- Handing over ------------------------------------------------------------------------- */

/* Under lock. Moves what waits to a list of its own. */
static struct spb_work *take(struct spb_audit *audit)
{
    struct spb_work *taken = audit->first, *last = NULL;
    size_t intents = 0;

    while (audit->first != NULL && (last == NULL || intents < BATCH_INTENTS_MAX)) {
        last = audit->first;
        intents += last->intents;
        audit->first = last->next;
    }
    if (last != NULL)
        last->next = NULL;
    return taken;
}

/* Gives up the turn: to the thread where it wants it, else to who waits longest. */
static void pass_on(struct spb_audit *audit)
{
    bool wake = false;

    (void)pthread_mutex_lock(&audit->lock);
    struct spb_work *first = audit->first;
    if (audit->is_wanted || spb_checkpoint_is_copied(audit)) {
        audit->is_wanted = false;
        audit->has_turn = true;
        first = NULL;
        wake = true;
    } else if (first != NULL) {
        first->has_turn = true;
    } else {
        audit->is_taken = false;
    }
    /* Outcomes will be there that nobody may take along. */
    if (audit->sleeps_til_ns == INT64_MAX && (audit->owned > 0 || audit->unwritten > 0))
        wake = true;
    (void)pthread_mutex_unlock(&audit->lock);
    if (wake)
        (void)pthread_cond_signal(&audit->wake);
    if (first != NULL)
        (void)sem_post(&first->done);
}

static void await(struct spb_work *work)
{
    while (sem_wait(&work->done) != 0)
        SPB_ASSERT(errno == EINTR);
}

spb_status spb_work_do(struct spb_audit *audit, struct spb_work *work)
{
    SPB_ASSERT(sem_init(&work->done, 0, 0) == 0);
    (void)pthread_mutex_lock(&audit->lock);
    if (audit->first == NULL)
        audit->first = work;
    else
        audit->last->next = work;
    audit->last = work;
    if (audit->is_taken) {
        (void)pthread_mutex_unlock(&audit->lock);
        await(work);
        if (!work->has_turn) {
            (void)sem_destroy(&work->done);
            return work->status;
        }
        (void)pthread_mutex_lock(&audit->lock);
    }
    audit->is_taken = true;
    struct spb_work *works = take(audit); /* its own is the first */
    (void)pthread_mutex_unlock(&audit->lock);
    spb_transact(audit, works);
    pass_on(audit);
    (void)sem_destroy(&work->done);
    return work->status;
}

static spb_status do_nothing(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    (void)audit;
    (void)work;
    (void)err;
    return spb_ok();
}

spb_status spb_audit_flush(struct spb_audit *audit, struct spb_error *err)
{
    struct spb_work work = {.run = do_nothing, .err = err};

    (void)pthread_mutex_lock(&audit->lock);
    bool any = audit->unwritten > 0;
    (void)pthread_mutex_unlock(&audit->lock);
    return any ? spb_work_do(audit, &work) : spb_ok();
}

/* ---- Reading ------------------------------------------------------------------------------ */

spb_status spb_reader_begin(struct spb_audit *audit, struct spb_db **db, struct spb_error *err)
{
    (void)pthread_mutex_lock(&audit->reader_lock);
    if (audit->reader.handle == NULL) {
        spb_status status = spb_db_open(audit->path, &audit->reader, err);

        if (!spb_is_ok(status)) {
            (void)pthread_mutex_unlock(&audit->reader_lock);
            return status;
        }
    }
    *db = &audit->reader;
    return spb_ok();
}

void spb_reader_end(struct spb_audit *audit)
{
    if (audit->reader.broken)
        spb_db_close(&audit->reader);
    (void)pthread_mutex_unlock(&audit->reader_lock);
}

/* ---- The thread --------------------------------------------------------------------------- */

/*
 * When to look again though nobody asked; INT64_MAX: never. Who ends a group wakes nobody: all that
 * ended until then leaves then.
 */
static int64_t next_look_ns(const struct spb_audit *audit)
{
    int64_t next_ns = audit->options.keep_days > 0 ? audit->retain.next_ns : INT64_MAX;
    int64_t outcomes_ns = spb_now_ns() + audit->options.outcome_delay_ms * SPB_NS_PER_MS * 3 / 4;

    if ((audit->owned > 0 || audit->unwritten > 0) && outcomes_ns < next_ns)
        next_ns = outcomes_ns;
    return next_ns;
}

/* Under lock. Sleeps until it gets the turn or it is time to look; false then. */
static bool sleep_until_turn(struct spb_audit *audit)
{
    int error = 0;

    while (!audit->has_turn && !audit->is_closing && error != ETIMEDOUT) {
        int64_t next_ns = next_look_ns(audit);
        struct timespec until = {.tv_sec = next_ns / SPB_NS_PER_S,
                                 .tv_nsec = next_ns % SPB_NS_PER_S};

        audit->sleeps_til_ns = next_ns;
        error = next_ns == INT64_MAX ? pthread_cond_wait(&audit->wake, &audit->lock)
                                     : pthread_cond_timedwait(&audit->wake, &audit->lock, &until);
    }
    return audit->has_turn;
}

/* Under lock. */
static void await_turn(struct spb_audit *audit)
{
    if (!sleep_until_turn(audit)) {
        audit->is_wanted = audit->is_taken;
        audit->has_turn = !audit->is_taken;
        audit->is_taken = true;
    }
    while (!audit->has_turn)
        (void)pthread_cond_wait(&audit->wake, &audit->lock);
    audit->has_turn = false;
    audit->sleeps_til_ns = 0;
}

static void *run(void *user)
{
    struct spb_audit *audit = user;
    bool goes_on = true;

    while (goes_on) {
        (void)pthread_mutex_lock(&audit->lock);
        await_turn(audit);
        struct spb_work *works = take(audit);
        bool any = works != NULL || audit->unwritten > 0;
        goes_on = works != NULL || !audit->is_closing;
        (void)pthread_mutex_unlock(&audit->lock);
        if (any)
            spb_transact(audit, works);
        if (spb_checkpoint_is_copied(audit))
            spb_checkpoint_finish(audit);
        spb_retain_go_on(audit);
        pass_on(audit);
    }
    return NULL;
}

/* ---- Opening and closing ------------------------------------------------------------------ */

static spb_status init_locks(struct spb_audit *audit, struct spb_error *err)
{
    pthread_condattr_t monotonic;

    SPB_ASSERT(pthread_mutex_init(&audit->lock, NULL) == 0);
    SPB_ASSERT(pthread_mutex_init(&audit->reader_lock, NULL) == 0);
    if (pthread_condattr_init(&monotonic) != 0)
        return spb_fail_memory(err, "opening the audit");
    SPB_ASSERT(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    SPB_ASSERT(pthread_cond_init(&audit->wake, &monotonic) == 0);
    (void)pthread_condattr_destroy(&monotonic);
    return spb_ok();
}

static spb_status start(struct spb_audit *audit, struct spb_error *err)
{
    SPB_TRY(spb_connect_open(audit, err));
    SPB_TRY(spb_intents_load(audit, err));
    SPB_TRY(spb_checkpoint_start(audit, err));
    int number = pthread_create(&audit->thread, NULL, run, audit);
    if (number != 0)
        return spb_fail_errno(err, SPB_NO_MEMORY, number, "starting the audit's thread");
    audit->has_thread = true;
    return spb_ok();
}

spb_status spb_audit_open(const struct spb_audit_options *options, struct spb_audit **audit,
                          struct spb_error *err)
{
    struct spb_audit *made = calloc(1, sizeof *made);

    if (made == NULL)
        return spb_fail_memory(err, "opening the audit");
    made->options = *options;
    if (made->options.wal_bytes == 0)
        made->options.wal_bytes = WAL_BYTES;
    if (made->options.wal_bytes < WAL_BYTES_MIN)
        made->options.wal_bytes = WAL_BYTES_MIN;
    made->path = strdup(options->path);
    spb_status status =
        made->path == NULL ? spb_fail_memory(err, "opening the audit") : init_locks(made, err);
    if (spb_is_ok(status))
        status = start(made, err);
    if (!spb_is_ok(status)) {
        spb_audit_close(made);
        return status;
    }
    *audit = made;
    return status;
}

static void stop_thread(struct spb_audit *audit)
{
    (void)pthread_mutex_lock(&audit->lock);
    audit->is_closing = true;
    (void)pthread_mutex_unlock(&audit->lock);
    (void)pthread_cond_signal(&audit->wake);
    (void)pthread_join(audit->thread, NULL);
}

void spb_audit_close(struct spb_audit *audit)
{
    if (audit == NULL)
        return;
    if (audit->has_thread)
        stop_thread(audit);
    spb_checkpoint_stop(audit);
    spb_db_close(&audit->reader);
    spb_connect_close(audit, !audit->checkpoint.has_failed);
    spb_names_forget(&audit->names);
    while (audit->open_first != NULL) {
        struct spb_open_group *open = audit->open_first;

        spb_open_group_unlink(audit, open);
        spb_open_group_free(open);
    }
    while (audit->ended != NULL) { /* a last commit failed */
        struct spb_open_group *ended = audit->ended;

        audit->ended = ended->next_ended;
        spb_open_group_free(ended);
    }
    free(audit->path);
    free(audit);
}
