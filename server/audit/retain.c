/*
 * Forgetting: groups that ended longer ago than the operator wants to keep, oldest first, a few in
 * each transaction, once they are behind the mark. Open ones stay, and the newest, from which
 * numbers go on. It stops at the first that is young enough: where the clock was wrong, it rather
 * keeps too much. What becomes free in the file is used again; the file does not shrink.
 */
#include "audit/inside.h"
#include "audit/transact.h"
#include "util.h"

#define BATCH_GROUPS 64
#define BATCH_CALLS 512
#define DAY_US (INT64_C(86400) * 1000000)
#define BREATH_NS (20 * SPB_NS_PER_MS) /* between two batches */
#define PAUSE_NS (60 * SPB_NS_PER_S)   /* after one that found no more */

struct old {
    int64_t id, first_call, call_count;
};

/* Finds up to BATCH_GROUPS that may go. *more: others may follow. */
static spb_status find_old(struct spb_audit *audit, struct old *old, size_t *count, bool *more,
                           struct spb_error *err)
{
    int64_t before_us = spb_audit_now_us() - audit->options.keep_days * DAY_US;
    int64_t calls = 0;
    sqlite3_stmt *list;

    *count = 0;
    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_LIST_OLD, &list, err));
    spb_bind_number(list, 1, audit->retain.after);
    spb_bind_number(list, 2, spb_mark_place(audit));
    for (;;) {
        SPB_TRY(spb_db_next(&audit->db, list, "looking for old groups", more, err));
        if (!*more)
            return spb_ok();
        *more = sqlite3_column_int64(list, 1) < before_us;
        if (!*more || *count == BATCH_GROUPS || calls > BATCH_CALLS)
            break;
        if (sqlite3_column_int(list, 2) == SPB_OUTCOME_PENDING)
            continue;
        old[*count] = (struct old){sqlite3_column_int64(list, 0), sqlite3_column_int64(list, 3),
                                   sqlite3_column_int64(list, 4)};
        calls += old[*count].call_count;
        ++*count;
    }
    (void)sqlite3_reset(list);
    return spb_ok();
}

static spb_status forget(struct spb_audit *audit, const struct old *old, struct spb_error *err)
{
    sqlite3_stmt *remove;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_REMOVE_CALLS, &remove, err));
    spb_bind_number(remove, 1, old->first_call);
    spb_bind_number(remove, 2, old->first_call + old->call_count);
    SPB_TRY(spb_db_run(&audit->db, remove, "forgetting old calls", err));
    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_REMOVE_GROUP, &remove, err));
    spb_bind_number(remove, 1, old->id);
    return spb_db_run(&audit->db, remove, "forgetting an old group", err);
}

struct retain_work {
    struct spb_work work;
    size_t count;
    int64_t last;
    bool more;
};

static spb_status run_retain(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    struct retain_work *retain = (struct retain_work *)work;
    struct old old[BATCH_GROUPS] = {{0}};

    SPB_TRY(find_old(audit, old, &retain->count, &retain->more, err));
    if (retain->count > 0)
        SPB_TRY(spb_mark_write(audit, err));
    for (size_t i = 0; i < retain->count; i++) {
        SPB_TRY(forget(audit, &old[i], err));
        retain->last = old[i].id;
    }
    return spb_ok();
}

void spb_retain_go_on(struct spb_audit *audit)
{
    struct retain_work retain = {.work = {.run = run_retain}};
    int64_t now_ns = spb_now_ns();

    if (audit->options.keep_days <= 0 || now_ns < audit->retain.next_ns)
        return;
    SPB_ASSERT(sem_init(&retain.work.done, 0, 0) == 0);
    spb_transact(audit, &retain.work);
    (void)sem_destroy(&retain.work.done);
    bool more = spb_is_ok(retain.work.status) && retain.more;
    audit->retain.after = more ? retain.last : 0;
    audit->retain.next_ns = now_ns + (more ? BREATH_NS : PAUSE_NS);
}
