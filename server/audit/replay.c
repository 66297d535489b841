/*
 * What is needed to answer a repeated call; see audit.h. Who loads walks the calls since a time
 * twice: backwards to find from where on each principal's newest are, then forwards to hand them
 * over in order.
 */
#include <stdlib.h>

#include "audit/inside.h"
#include "audit/spans.h"

/* From which call on those of a principal are within its bound. */
struct share {
    int64_t principal;
    uint64_t count;
    int64_t first_call;
};

struct load {
    struct spb_db *db;
    uint32_t max;
    void (*take)(void *user, const struct spb_replay_row *row);
    void *user;
    struct share *shares; /* owned; open addressing, size a power of two, principal 0: empty */
    size_t size, used;
};

static struct share *find_share(struct share *shares, size_t size, int64_t principal)
{
    size_t at = (size_t)((uint64_t)principal * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (size - 1);

    while (shares[at].principal != 0 && shares[at].principal != principal)
        at = (at + 1) & (size - 1);
    return &shares[at];
}

static spb_status grow(struct load *load, struct spb_error *err)
{
    size_t size = load->size == 0 ? 64 : load->size * 2;
    struct share *grown = calloc(size, sizeof *grown);

    if (grown == NULL)
        return spb_fail_memory(err, "loading what was answered");
    for (size_t i = 0; i < load->size; i++) {
        if (load->shares[i].principal != 0)
            *find_share(grown, size, load->shares[i].principal) = load->shares[i];
    }
    free(load->shares);
    load->shares = grown;
    load->size = size;
    return spb_ok();
}

/* Walking backwards: this call of the principal is within the bound, or is one too many. */
static spb_status count_call(struct load *load, int64_t call, int64_t principal,
                             struct spb_error *err)
{
    if (load->used * 2 >= load->size)
        SPB_TRY(grow(load, err));
    struct share *share = find_share(load->shares, load->size, principal);
    if (share->principal == 0) {
        share->principal = principal;
        load->used++;
    }
    if (share->count < load->max) {
        share->count++;
        share->first_call = call;
    }
    return spb_ok();
}

static spb_status count_back(struct load *load, const struct spb_span *calls, struct spb_error *err)
{
    sqlite3_stmt *back;
    bool row;

    SPB_TRY(spb_db_prepare(load->db, SPB_SQL_REPLAYS_BACK, &back, err));
    spb_bind_number(back, 1, calls->first);
    spb_bind_number(back, 2, calls->last + 1);
    for (;;) {
        SPB_TRY(spb_db_next(load->db, back, "loading what was answered", &row, err));
        if (!row)
            return spb_ok();
        spb_status status =
            count_call(load, sqlite3_column_int64(back, 0), sqlite3_column_int64(back, 1), err);
        if (!spb_is_ok(status)) {
            (void)sqlite3_reset(back);
            return status;
        }
    }
}

static void hand_over(struct load *load, sqlite3_stmt *from)
{
    const struct share *share = find_share(load->shares, load->size, sqlite3_column_int64(from, 8));
    struct spb_replay_row row = {
        .call_id = sqlite3_column_int64(from, 0),
        .time_us = sqlite3_column_int64(from, 1),
        .principal_tenant = (uint16_t)sqlite3_column_int(from, 2),
        .principal = spb_column_string(from, 3),
        .method = spb_column_string(from, 4),
        .payload_crc = (uint32_t)sqlite3_column_int64(from, 6),
        .outcome = (enum spb_outcome)sqlite3_column_int(from, 7),
    };

    spb_column_bytes(from, 5, row.request_id, sizeof row.request_id);
    if (row.call_id >= share->first_call && share->count > 0)
        load->take(load->user, &row);
}

static spb_status hand_over_all(struct load *load, const struct spb_span *calls,
                                struct spb_error *err)
{
    sqlite3_stmt *forth;
    bool row;

    SPB_TRY(spb_db_prepare(load->db, SPB_SQL_REPLAYS, &forth, err));
    spb_bind_number(forth, 1, calls->first);
    spb_bind_number(forth, 2, calls->last + 1);
    for (;;) {
        SPB_TRY(spb_db_next(load->db, forth, "loading what was answered", &row, err));
        if (!row)
            return spb_ok();
        hand_over(load, forth);
    }
}

/* Turns groups into their calls. */
static spb_status find_calls(struct spb_db *db, struct spb_span *span, struct spb_error *err)
{
    sqlite3_stmt *get;
    bool row;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_CALLS_OF_GROUPS, &get, err));
    spb_bind_number(get, 1, span->first);
    spb_bind_number(get, 2, span->last);
    SPB_TRY(spb_db_next(db, get, "loading what was answered", &row, err));
    *span = row ? (struct spb_span){sqlite3_column_int64(get, 0), sqlite3_column_int64(get, 1)}
                : (struct spb_span){1, 0};
    (void)sqlite3_reset(get);
    return spb_ok();
}

static spb_status load_spans(struct load *load, const struct spb_spans *spans,
                             struct spb_error *err)
{
    for (size_t i = 0; i < spans->count; i++)
        SPB_TRY(find_calls(load->db, &spans->spans[i], err));
    for (size_t i = spans->count; i-- > 0;)
        SPB_TRY(count_back(load, &spans->spans[i], err));
    for (size_t i = 0; i < spans->count && load->size > 0; i++)
        SPB_TRY(hand_over_all(load, &spans->spans[i], err));
    return spb_ok();
}

static spb_status load_all(struct load *load, int64_t since_us, struct spb_error *err)
{
    struct spb_spans spans = {NULL, 0};

    SPB_TRY(spb_db_exec(load->db, "BEGIN;", "loading what was answered", err));
    spb_status status = spb_spans_find(load->db, since_us, INT64_MAX, &spans, err);
    if (spb_is_ok(status))
        status = load_spans(load, &spans, err);
    spb_spans_free(&spans);
    spb_status ended = spb_db_exec(load->db, "COMMIT;", "loading what was answered",
                                   spb_is_ok(status) ? err : NULL);
    return spb_is_ok(status) ? ended : status;
}

spb_status spb_audit_load_replays(struct spb_audit *audit, int64_t since_us,
                                  uint32_t max_per_principal,
                                  void (*take)(void *user, const struct spb_replay_row *row),
                                  void *user, struct spb_error *err)
{
    struct load load = {.max = max_per_principal, .take = take, .user = user};

    SPB_TRY(spb_audit_flush(audit, err));
    SPB_TRY(spb_reader_begin(audit, &load.db, err));
    spb_status status = load_all(&load, since_us, err);
    spb_reader_end(audit);
    free(load.shares);
    return status;
}

/* ---- Responses ---------------------------------------------------------------------------- */

static spb_status get_response(struct spb_db *db, int64_t call_id, uint8_t **payload, size_t *size,
                               struct spb_error *err)
{
    sqlite3_stmt *get;
    bool row;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_GET_RESPONSE, &get, err));
    spb_bind_number(get, 1, call_id);
    SPB_TRY(spb_db_next(db, get, "reading a response", &row, err));
    if (!row)
        return spb_fail(err, SPB_NOT_FOUND, "reading the response of call %lld: it is not in %s",
                        (long long)call_id, db->path);
    spb_status status = spb_column_copy(get, 0, payload, size, err);
    (void)sqlite3_reset(get);
    return status;
}

spb_status spb_audit_response(struct spb_audit *audit, int64_t call_id, uint8_t **payload,
                              size_t *size, struct spb_error *err)
{
    struct spb_db *db;

    SPB_TRY(spb_audit_flush(audit, err)); /* an outcome may bring the response with it */
    SPB_TRY(spb_reader_begin(audit, &db, err));
    spb_status status = get_response(db, call_id, payload, size, err);
    spb_reader_end(audit);
    return status;
}
