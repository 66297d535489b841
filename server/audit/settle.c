/* Groups that were left open, by a former process or by who abandoned them; see audit.h. */
#include <stdlib.h>

#include "audit/inside.h"

#define CALLS_MAX (INT64_C(1) << 24) /* of a group; a row that says more is damaged */

/* ---- Finding ------------------------------------------------------------------------------ */

struct find {
    struct spb_work work;
    int64_t image_id;
    struct spb_pending_group *found; /* NULL: none */
};

void spb_pending_group_free(struct spb_pending_group *group)
{
    if (group == NULL)
        return;
    free(group->changes);
    free(group->calls);
    free(group);
}

/* The group's number; 0: none is open. */
static int64_t choose(struct spb_audit *audit, int64_t image_id)
{
    int64_t id = 0;

    (void)pthread_mutex_lock(&audit->lock);
    for (const struct spb_open_group *open = audit->open_first; open != NULL && id == 0;
         open = open->next) {
        if (!open->is_owned && open->image_id == image_id)
            id = open->id;
    }
    (void)pthread_mutex_unlock(&audit->lock);
    return id;
}

static spb_status read_group(sqlite3_stmt *row, struct spb_pending_group *group,
                             struct spb_error *err)
{
    group->kind = (enum spb_group_kind)sqlite3_column_int(row, 0);
    group->image_id = sqlite3_column_int64(row, 1);
    group->tenant = (uint16_t)sqlite3_column_int(row, 2);
    spb_column_text(row, 3, group->image_name, sizeof group->image_name);
    group->number = (uint64_t)sqlite3_column_int64(row, 4);
    int64_t count = sqlite3_column_int64(row, 5);
    if (count <= 0 || count > CALLS_MAX)
        return spb_fail(err, SPB_CORRUPT, "reading group %lld: it has %lld calls",
                        (long long)group->id, (long long)count);
    group->count = (size_t)count;
    SPB_TRY(spb_column_copy(row, 6, &group->changes, &group->changes_size, err));
    group->calls = calloc(group->count, sizeof *group->calls);
    return group->calls == NULL ? spb_fail_memory(err, "reading an open group") : spb_ok();
}

static void read_call(sqlite3_stmt *row, struct spb_pending_call *call)
{
    call->id = sqlite3_column_int64(row, 0);
    call->principal_tenant = (uint16_t)sqlite3_column_int(row, 1);
    spb_column_text(row, 2, call->principal, sizeof call->principal);
    spb_column_text(row, 3, call->method, sizeof call->method);
    call->has_request_id = sqlite3_column_type(row, 4) != SQLITE_NULL;
    spb_column_bytes(row, 4, call->request_id, sizeof call->request_id);
    call->payload_crc = (uint32_t)sqlite3_column_int64(row, 5);
    call->first_change = (uint32_t)sqlite3_column_int64(row, 6);
    call->change_count = (uint32_t)sqlite3_column_int64(row, 7);
}

static spb_status load_calls(struct spb_db *db, struct spb_pending_group *group,
                             struct spb_error *err)
{
    sqlite3_stmt *get;
    size_t count = 0;
    bool row = true;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_GET_CALLS, &get, err));
    spb_bind_number(get, 1, group->id);
    for (;;) {
        SPB_TRY(spb_db_next(db, get, "reading an open group's calls", &row, err));
        if (!row)
            break;
        if (count == group->count) {
            (void)sqlite3_reset(get);
            break;
        }
        read_call(get, &group->calls[count++]);
    }
    if (row || count != group->count)
        return spb_fail(err, SPB_CORRUPT, "reading group %lld of %s: found %s%zu calls of %zu",
                        (long long)group->id, db->path, row ? "more than " : "", count,
                        group->count);
    return spb_ok();
}

static spb_status load_group(struct spb_db *db, struct spb_pending_group *group,
                             struct spb_error *err)
{
    sqlite3_stmt *get;
    bool row;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_GET_GROUP, &get, err));
    spb_bind_number(get, 1, group->id);
    SPB_TRY(spb_db_next(db, get, "reading an open group", &row, err));
    if (!row)
        return spb_fail(err, SPB_CORRUPT, "reading group %lld of %s: it is gone",
                        (long long)group->id, db->path);
    spb_status status = read_group(get, group, err);
    (void)sqlite3_reset(get);
    return spb_is_ok(status) ? load_calls(db, group, err) : status;
}

static spb_status run_find(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    struct find *find = (struct find *)work;
    int64_t id = choose(audit, find->image_id);

    spb_pending_group_free(find->found);
    find->found = NULL;
    if (id == 0)
        return spb_ok();
    find->found = calloc(1, sizeof *find->found);
    if (find->found == NULL)
        return spb_fail_memory(err, "reading an open group");
    find->found->id = id;
    return load_group(&audit->db, find->found, err);
}

spb_status spb_audit_find_open(struct spb_audit *audit, int64_t image_id,
                               struct spb_pending_group **group, struct spb_error *err)
{
    struct find find = {.work = {.run = run_find, .err = err}, .image_id = image_id};
    spb_status status = spb_work_do(audit, &find.work);

    if (spb_is_ok(status))
        *group = find.found;
    else
        spb_pending_group_free(find.found);
    return status;
}

/* ---- Settling ----------------------------------------------------------------------------- */

struct settle {
    struct spb_work work;
    const struct spb_pending_group *group;
    const enum spb_outcome *outcomes;
};

static struct spb_open_group *find_open(struct spb_audit *audit, int64_t id)
{
    struct spb_open_group *open = audit->open_first;

    while (open != NULL && (open->id != id || open->is_owned))
        open = open->next;
    return open;
}

static spb_status set_outcome(struct spb_audit *audit, enum spb_sql which, int64_t id,
                              enum spb_outcome outcome, struct spb_error *err)
{
    sqlite3_stmt *set;

    SPB_TRY(spb_db_prepare(&audit->db, which, &set, err));
    spb_bind_number(set, 1, id);
    spb_bind_number(set, 2, outcome);
    return spb_db_run(&audit->db, set, "settling a group", err);
}

/* What the group brought its image to is so only if all of it happened. */
static enum spb_sql pointer_statement(const struct settle *settle)
{
    for (size_t i = 0; i < settle->group->count; i++) {
        if (settle->outcomes[i] != SPB_OUTCOME_DONE && settle->outcomes[i] != SPB_OUTCOME_COMPLETED)
            return SPB_SQL_DROP_POINTER;
    }
    return SPB_SQL_COUNT_POINTER; /* the group may be before the mark */
}

static spb_status note_pointer(struct spb_audit *audit, const struct settle *settle,
                               struct spb_error *err)
{
    sqlite3_stmt *note;

    SPB_TRY(spb_db_prepare(&audit->db, pointer_statement(settle), &note, err));
    spb_bind_number(note, 1, settle->group->id);
    return spb_db_run(&audit->db, note, "settling a group", err);
}

static spb_status run_settle(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    const struct settle *settle = (struct settle *)work;
    const struct spb_pending_group *group = settle->group;

    (void)pthread_mutex_lock(&audit->lock);
    bool is_open = find_open(audit, group->id) != NULL;
    (void)pthread_mutex_unlock(&audit->lock);
    if (!is_open)
        return spb_fail(err, SPB_NOT_FOUND, "settling group %lld: it is not open",
                        (long long)group->id);
    SPB_TRY(set_outcome(audit, SPB_SQL_END_GROUP, group->id, settle->outcomes[0], err));
    SPB_TRY(note_pointer(audit, settle, err));
    for (size_t i = 1; i < group->count; i++) {
        if (settle->outcomes[i] != settle->outcomes[0])
            SPB_TRY(set_outcome(audit, SPB_SQL_SET_CALL_OUTCOME, group->calls[i].id,
                                settle->outcomes[i], err));
    }
    return spb_ok();
}

static void note_settled(struct spb_audit *audit, struct spb_work *work)
{
    const struct settle *settle = (struct settle *)work;

    (void)pthread_mutex_lock(&audit->lock);
    struct spb_open_group *open = find_open(audit, settle->group->id);
    if (open != NULL)
        spb_open_group_unlink(audit, open);
    (void)pthread_mutex_unlock(&audit->lock);
    spb_open_group_free(open);
}

spb_status spb_audit_settle(struct spb_audit *audit, const struct spb_pending_group *group,
                            const enum spb_outcome *outcomes, struct spb_error *err)
{
    struct settle settle = {.work = {.run = run_settle, .committed = note_settled, .err = err},
                            .group = group,
                            .outcomes = outcomes};

    for (size_t i = 0; i < group->count; i++)
        SPB_ASSERT(outcomes[i] != SPB_OUTCOME_PENDING);
    return spb_work_do(audit, &settle.work);
}
