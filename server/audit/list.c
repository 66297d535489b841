/*
 * Listing, newest first; see audit.h. Groups are walked from the end, and the calls of those that
 * pass. Its connection is its own, so that commits do not wait for it.
 */
#include <stdlib.h>
#include <string.h>

#include "audit/inside.h"
#include "audit/spans.h"

struct listing {
    struct spb_db *db;
    const struct spb_audit_filter *filter;
    bool (*take)(void *user, const struct spb_audit_record *record);
    void *user;
    uint64_t looked, taken;
    bool is_over;
    int64_t resume; /* calls from here on were looked at */
    /* The group that is being listed, into which the statement's row points. */
    struct spb_audit_record record;
    enum spb_outcome outcome;
    int64_t first_call, end_call;
};

static bool has_all(const struct listing *listing)
{
    return listing->is_over ||
           (listing->filter->limit > 0 && listing->taken >= listing->filter->limit);
}

/* Between two groups: within one it goes on, so that each page gets on. */
static bool is_full(const struct listing *listing)
{
    return has_all(listing) ||
           (listing->filter->scan_max > 0 && listing->looked >= listing->filter->scan_max);
}

static bool is_wanted(const char *wanted, const char *found)
{
    return wanted == NULL || strcmp(wanted, found) == 0;
}

/* Texts are borrowed from the row. */
static void read_call(struct listing *listing, sqlite3_stmt *row)
{
    struct spb_audit_record *record = &listing->record;

    record->id = sqlite3_column_int64(row, 0);
    record->principal = spb_column_string(row, 1);
    record->method = spb_column_string(row, 2);
    record->has_request_id = sqlite3_column_type(row, 3) != SQLITE_NULL;
    spb_column_bytes(row, 3, record->request_id, sizeof record->request_id);
    record->outcome = sqlite3_column_type(row, 4) == SQLITE_NULL
                          ? listing->outcome
                          : (enum spb_outcome)sqlite3_column_int(row, 4);
    record->object = spb_column_string(row, 5);
    record->before = spb_column_string(row, 6);
    record->after = spb_column_string(row, 7);
}

static void take_call(struct listing *listing, sqlite3_stmt *row)
{
    const struct spb_audit_filter *filter = listing->filter;
    const struct spb_audit_record *record = &listing->record;

    read_call(listing, row);
    listing->resume = record->id;
    listing->looked++;
    if (!is_wanted(filter->principal, record->principal) ||
        !is_wanted(filter->method, record->method) ||
        (filter->has_outcome && record->outcome != filter->outcome))
        return;
    listing->taken++;
    listing->is_over = !listing->take(listing->user, record);
}

static spb_status list_calls(struct listing *listing, struct spb_error *err)
{
    sqlite3_stmt *list;
    bool row;

    SPB_TRY(spb_db_prepare(listing->db, SPB_SQL_LIST_CALLS, &list, err));
    spb_bind_number(list, 1, listing->first_call);
    spb_bind_number(list, 2, listing->end_call);
    while (!has_all(listing)) {
        SPB_TRY(spb_db_next(listing->db, list, "listing calls", &row, err));
        if (!row) {
            listing->resume = listing->first_call;
            return spb_ok();
        }
        take_call(listing, list);
    }
    (void)sqlite3_reset(list);
    return spb_ok();
}

/* Does the group pass? Its texts are borrowed from the row. */
static bool read_group(struct listing *listing, sqlite3_stmt *row)
{
    const struct spb_audit_filter *filter = listing->filter;
    struct spb_audit_record *record = &listing->record;
    int64_t count = sqlite3_column_int64(row, 4);

    record->time_us = sqlite3_column_int64(row, 0);
    record->group = (uint64_t)sqlite3_column_int64(row, 1);
    listing->outcome = (enum spb_outcome)sqlite3_column_int(row, 2);
    listing->first_call = sqlite3_column_int64(row, 3);
    listing->end_call = listing->first_call + count;
    if (filter->before_id > 0 && filter->before_id < listing->end_call)
        listing->end_call = filter->before_id;
    record->tenant = (uint16_t)sqlite3_column_int(row, 5);
    record->image = spb_column_string(row, 6);
    return (filter->tenant < 0 || filter->tenant == record->tenant) &&
           is_wanted(filter->image, record->image);
}

static spb_status list_span(struct listing *listing, const struct spb_span *span,
                            struct spb_error *err)
{
    sqlite3_stmt *list;
    bool row;

    SPB_TRY(spb_db_prepare(listing->db, SPB_SQL_LIST_GROUPS, &list, err));
    spb_bind_number(list, 1, span->first);
    spb_bind_number(list, 2, span->last);
    while (!is_full(listing)) {
        SPB_TRY(spb_db_next(listing->db, list, "listing groups", &row, err));
        if (!row)
            return spb_ok();
        spb_status status = spb_ok();
        listing->looked++;
        if (read_group(listing, list))
            status = list_calls(listing, err);
        else
            listing->resume = listing->first_call;
        if (!spb_is_ok(status)) {
            (void)sqlite3_reset(list);
            return status;
        }
    }
    (void)sqlite3_reset(list);
    return spb_ok();
}

/* The group of the newest call before the filter's; 0: there is none. */
static spb_status find_last_group(struct listing *listing, int64_t *last, struct spb_error *err)
{
    sqlite3_stmt *get;
    bool row;

    *last = INT64_MAX;
    if (listing->filter->before_id <= 0)
        return spb_ok();
    SPB_TRY(spb_db_prepare(listing->db, SPB_SQL_GROUP_OF_CALL_BEFORE, &get, err));
    spb_bind_number(get, 1, listing->filter->before_id);
    SPB_TRY(spb_db_next(listing->db, get, "looking for a call", &row, err));
    *last = row ? sqlite3_column_int64(get, 0) : 0;
    (void)sqlite3_reset(get);
    return spb_ok();
}

static spb_status list_spans(struct listing *listing, const struct spb_spans *spans,
                             struct spb_error *err)
{
    int64_t last;

    SPB_TRY(find_last_group(listing, &last, err));
    for (size_t i = spans->count; i-- > 0 && !is_full(listing);) {
        struct spb_span span = spans->spans[i];

        if (span.last > last)
            span.last = last;
        SPB_TRY(list_span(listing, &span, err));
    }
    if (!is_full(listing))
        listing->resume = 0;
    return spb_ok();
}

/* One snapshot for all its statements. */
static spb_status list(struct listing *listing, struct spb_error *err)
{
    const struct spb_audit_filter *filter = listing->filter;
    struct spb_spans spans = {NULL, 0};

    SPB_TRY(spb_db_exec(listing->db, "BEGIN;", "listing", err));
    spb_status status =
        spb_spans_find(listing->db, filter->since_us,
                       filter->until_us > 0 ? filter->until_us : INT64_MAX, &spans, err);
    if (spb_is_ok(status))
        status = list_spans(listing, &spans, err);
    spb_spans_free(&spans);
    spb_status ended =
        spb_db_exec(listing->db, "COMMIT;", "listing", spb_is_ok(status) ? err : NULL);
    return spb_is_ok(status) ? ended : status;
}

spb_status spb_audit_list(struct spb_audit *audit, const struct spb_audit_filter *filter,
                          bool (*take)(void *user, const struct spb_audit_record *record),
                          void *user, struct spb_error *err)
{
    struct listing listing = {.filter = filter, .take = take, .user = user};

    /* Outcomes that were queued are to be seen; where they cannot be written, the rest still is. */
    (void)!spb_is_ok(spb_audit_flush(audit, NULL));
    SPB_TRY(spb_reader_begin(audit, &listing.db, err));
    spb_status status = list(&listing, err);
    spb_reader_end(audit);
    if (spb_is_ok(status) && filter->resume_id != NULL)
        *filter->resume_id = listing.resume;
    return status;
}
