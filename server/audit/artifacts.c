/* Rows of artifacts; see tables.h. */
#include <string.h>

#include "audit/inside.h"
#include "audit/tables.h"

struct change {
    struct spb_work work;
    const struct spb_artifact_row *row;
    const uint8_t *sha256;
    uint16_t tenant;
};

static spb_status run_put(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    const struct spb_artifact_row *row = ((struct change *)work)->row;
    sqlite3_stmt *put;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_PUT_ARTIFACT, &put, err));
    spb_bind_bytes(put, 1, row->sha256, sizeof row->sha256);
    spb_bind_number(put, 2, row->tenant);
    spb_bind_bytes(put, 3, row->name, row->name_len);
    spb_bind_number(put, 4, (int64_t)row->size);
    spb_bind_number(put, 5, row->created_us);
    return spb_db_run(&audit->db, put, "recording an artifact", err);
}

spb_status spb_rows_put_artifact(struct spb_audit *audit, const struct spb_artifact_row *row,
                                 struct spb_error *err)
{
    struct change change = {.work = {.run = run_put, .err = err}, .row = row};

    if (row->name_len > sizeof row->name)
        return spb_fail(err, SPB_INVALID,
                        "recording an artifact: a label of %zu bytes, expected at most %zu",
                        row->name_len, sizeof row->name);
    return spb_work_do(audit, &change.work);
}

static spb_status run_remove(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    const struct change *change = (struct change *)work;
    sqlite3_stmt *remove;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_REMOVE_ARTIFACT, &remove, err));
    spb_bind_bytes(remove, 1, change->sha256, 32);
    spb_bind_number(remove, 2, change->tenant);
    return spb_db_run(&audit->db, remove, "removing an artifact", err);
}

spb_status spb_rows_remove_artifact(struct spb_audit *audit, uint16_t tenant,
                                    const uint8_t sha256[32], struct spb_error *err)
{
    struct change change = {
        .work = {.run = run_remove, .err = err}, .sha256 = sha256, .tenant = tenant};

    return spb_work_do(audit, &change.work);
}

static void read_row(sqlite3_stmt *from, struct spb_artifact_row *row)
{
    memset(row, 0, sizeof *row);
    spb_column_bytes(from, 0, row->sha256, sizeof row->sha256);
    row->tenant = (uint16_t)sqlite3_column_int(from, 1);
    row->name_len = spb_column_some(from, 2, row->name, sizeof row->name);
    row->size = (uint64_t)sqlite3_column_int64(from, 3);
    row->created_us = sqlite3_column_int64(from, 4);
}

struct page {
    int32_t tenant;
    const uint8_t *after;
    uint32_t limit;
    void (*take)(void *user, const struct spb_artifact_row *row);
    void *user;
};

static spb_status list(struct spb_db *db, const struct page *page, struct spb_error *err)
{
    struct spb_artifact_row row;
    uint8_t last[sizeof row.sha256];
    sqlite3_stmt *all;
    bool more;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_LIST_ARTIFACTS, &all, err));
    spb_bind_bytes(all, 1, page->after, sizeof row.sha256);
    spb_bind_number(all, 2, page->tenant);
    for (uint32_t count = 0;; count++) {
        SPB_TRY(spb_db_next(db, all, "listing artifacts", &more, err));
        if (!more)
            return spb_ok();
        read_row(all, &row);
        /* The next page begins after a SHA-256: those of several tenants stay together. */
        if (count >= page->limit && memcmp(row.sha256, last, sizeof last) != 0)
            break;
        memcpy(last, row.sha256, sizeof last);
        page->take(page->user, &row);
    }
    (void)sqlite3_reset(all);
    return spb_ok();
}

spb_status spb_rows_artifacts(struct spb_audit *audit, int32_t tenant, const uint8_t *after_sha256,
                              uint32_t limit,
                              void (*take)(void *user, const struct spb_artifact_row *row),
                              void *user, struct spb_error *err)
{
    struct page page = {tenant, after_sha256, limit, take, user};
    struct spb_db *db;

    if (limit == 0)
        return spb_ok();
    SPB_TRY(spb_reader_begin(audit, &db, err));
    spb_status status = list(db, &page, err);
    spb_reader_end(audit);
    return status;
}
