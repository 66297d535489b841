/*
 * The mark: up to where the groups have been counted. Reading it saves a search through all groups
 * at the start, and an index and a row of the registry written with each commit.
 *
 * Before the mark every group is ended or named in open_groups, and its number and event pointer
 * are in image_rows. It is moved with each checkpoint, so what a start has to read from there on is
 * bounded by the size of the WAL. A group that somebody works on is never before it.
 */
#include <stdlib.h>

#include "audit/inside.h"

int64_t spb_mark_place(struct spb_audit *audit)
{
    int64_t mark = audit->counts.next_group;

    (void)pthread_mutex_lock(&audit->lock);
    for (const struct spb_open_group *o = audit->open_first; o != NULL; o = o->next) {
        if (o->is_owned && o->id < mark)
            mark = o->id;
    }
    for (const struct spb_open_group *o = audit->ended; o != NULL; o = o->next_ended) {
        if (o->id < mark)
            mark = o->id;
    }
    (void)pthread_mutex_unlock(&audit->lock);
    return mark;
}

/* The groups before the mark; *ids is the caller's. */
static spb_status list_open(struct spb_audit *audit, int64_t mark, int64_t **ids, size_t *count,
                            struct spb_error *err)
{
    size_t found = 0;

    *count = 0;
    (void)pthread_mutex_lock(&audit->lock);
    for (const struct spb_open_group *o = audit->open_first; o != NULL; o = o->next)
        found += o->id < mark;
    *ids = malloc((found + 1) * sizeof **ids);
    for (const struct spb_open_group *o = audit->open_first; o != NULL && *ids != NULL; o = o->next)
        if (o->id < mark)
            (*ids)[(*count)++] = o->id;
    (void)pthread_mutex_unlock(&audit->lock);
    return *ids == NULL ? spb_fail_memory(err, "naming open groups") : spb_ok();
}

static spb_status name_open(struct spb_audit *audit, const int64_t *ids, size_t count,
                            struct spb_error *err)
{
    sqlite3_stmt *add;

    SPB_TRY(spb_db_do(&audit->db, SPB_SQL_CLEAR_OPEN, "naming open groups", err));
    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_ADD_OPEN, &add, err));
    for (size_t i = 0; i < count; i++) {
        spb_bind_number(add, 1, ids[i]);
        SPB_TRY(spb_db_run(&audit->db, add, "naming an open group", err));
    }
    return spb_ok();
}

spb_status spb_mark_write(struct spb_audit *audit, struct spb_error *err)
{
    int64_t mark = spb_mark_place(audit);
    sqlite3_stmt *set;
    int64_t *ids;
    size_t count;

    SPB_TRY(spb_db_do(&audit->db, SPB_SQL_COUNT_GROUPS, "counting groups", err));
    SPB_TRY(list_open(audit, mark, &ids, &count, err));
    spb_status status = name_open(audit, ids, count, err);
    free(ids);
    SPB_TRY(status);
    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_SET_MARK, &set, err));
    spb_bind_number(set, 1, mark);
    return spb_db_run(&audit->db, set, "moving the mark", err);
}
