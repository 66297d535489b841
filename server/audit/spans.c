/* Groups by time; see spans.h. */
#include "audit/spans.h"

#include <stdlib.h>

/* The first group from id on before end, and its time. *found is end where there is none. */
static spb_status look(struct spb_db *db, int64_t id, int64_t end, int64_t *found, int64_t *time_us,
                       struct spb_error *err)
{
    sqlite3_stmt *get;
    bool row;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_NEXT_GROUP_TIME, &get, err));
    spb_bind_number(get, 1, id);
    spb_bind_number(get, 2, end);
    SPB_TRY(spb_db_next(db, get, "looking for a time", &row, err));
    *found = row ? sqlite3_column_int64(get, 0) : end;
    *time_us = row ? sqlite3_column_int64(get, 1) : 0;
    (void)sqlite3_reset(get);
    return spb_ok();
}

/* The first group of [low, end) that is not before time_us; end where all are. */
static spb_status halve(struct spb_db *db, int64_t low, int64_t end, int64_t time_us,
                        int64_t *result, struct spb_error *err)
{
    int64_t high = end;

    while (low < high) {
        int64_t middle = low + (high - low) / 2, found, at_us;

        SPB_TRY(look(db, middle, high, &found, &at_us, err));
        if (found == high || at_us >= time_us)
            high = middle; /* none between middle and high, or the first of them is late enough */
        else
            low = found + 1;
    }
    *result = high;
    return spb_ok();
}

static spb_status add_span(struct spb_spans *spans, int64_t first, int64_t end,
                           struct spb_error *err)
{
    if (first >= end)
        return spb_ok();
    struct spb_span *grown = realloc(spans->spans, (spans->count + 1) * sizeof *grown);
    if (grown == NULL)
        return spb_fail_memory(err, "looking for a time");
    spans->spans = grown;
    spans->spans[spans->count++] = (struct spb_span){first, end - 1};
    return spb_ok();
}

/* Turns stretches into what of them is within the time. */
static spb_status narrow(struct spb_db *db, const struct spb_spans *stretches, int64_t since_us,
                         int64_t until_us, struct spb_spans *spans, struct spb_error *err)
{
    for (size_t i = 0; i < stretches->count; i++) {
        int64_t first = stretches->spans[i].first, end = stretches->spans[i].last + 1;

        SPB_TRY(halve(db, first, end, since_us, &first, err));
        SPB_TRY(halve(db, first, end, until_us, &end, err));
        SPB_TRY(add_span(spans, first, end, err));
    }
    return spb_ok();
}

static spb_status list_stretches(struct spb_db *db, struct spb_spans *stretches,
                                 struct spb_error *err)
{
    sqlite3_stmt *list;
    int64_t first = 1;
    bool row;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_LIST_STRETCHES, &list, err));
    for (;;) {
        SPB_TRY(spb_db_next(db, list, "listing stretches of time", &row, err));
        if (!row)
            return spb_ok();
        int64_t end = sqlite3_column_int64(list, 0);
        spb_status status = add_span(stretches, first, end, err);
        if (!spb_is_ok(status)) {
            (void)sqlite3_reset(list);
            return status;
        }
        first = end;
    }
}

spb_status spb_spans_find(struct spb_db *db, int64_t since_us, int64_t until_us,
                          struct spb_spans *spans, struct spb_error *err)
{
    struct spb_spans stretches = {NULL, 0}, found = {NULL, 0};
    spb_status status = list_stretches(db, &stretches, err);

    if (spb_is_ok(status))
        status = narrow(db, &stretches, since_us, until_us, &found, err);
    spb_spans_free(&stretches);
    if (spb_is_ok(status))
        *spans = found;
    else
        spb_spans_free(&found);
    return status;
}

void spb_spans_free(struct spb_spans *spans)
{
    free(spans->spans);
    *spans = (struct spb_spans){NULL, 0};
}
