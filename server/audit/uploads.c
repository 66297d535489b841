/* Rows of uploads that can resume; see tables.h. */
#include <string.h>

#include "audit/inside.h"
#include "audit/rows.h"
#include "audit/tables.h"

struct change {
    struct spb_work work;
    const struct spb_upload_row *row;
    const uint8_t *id;
};

static void bind_target(sqlite3_stmt *put, const struct spb_upload_row *row)
{
    spb_bind_bytes(put, 1, row->id, sizeof row->id);
    spb_bind_number(put, 2, row->kind);
    spb_bind_number(put, 3, row->owner_kind);
    spb_bind_number(put, 4, row->owner_tenant);
    spb_bind_text(put, 5, row->owner);
    spb_bind_number(put, 6, row->tenant);
    spb_bind_text(put, 7, row->image);
    spb_bind_bytes(put, 8, row->name, row->name_len);
    spb_bind_number(put, 9, row->product_class);
    spb_bind_number(put, 10, row->priority);
    spb_bind_number(put, 11, row->replace);
    spb_bind_number(put, 12, row->new_identity);
}

static void bind_bytes(sqlite3_stmt *put, const struct spb_upload_row *row)
{
    spb_bind_number(put, 13, row->sector_size);
    spb_bind_bytes(put, 14, row->sha256, sizeof row->sha256);
    spb_bind_number(put, 15, (int64_t)row->size);
    spb_bind_number(put, 16, row->block_offset);
    spb_bind_number(put, 17, row->block_count);
    spb_bind_number(put, 18, (int64_t)row->durable_offset);
    spb_bind_number(put, 19, row->durable_crc);
    spb_bind_number(put, 20, row->created_us);
    spb_bind_number(put, 21, row->used_us);
    spb_bind_number(put, 22, row->image_id);
}

static spb_status run_put(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    const struct change *change = (struct change *)work;
    sqlite3_stmt *put;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_PUT_UPLOAD, &put, err));
    bind_target(put, change->row);
    bind_bytes(put, change->row);
    return spb_db_run(&audit->db, put, "recording an upload", err);
}

spb_status spb_rows_put_upload(struct spb_audit *audit, const struct spb_upload_row *row,
                               struct spb_error *err)
{
    struct change change = {.work = {.run = run_put, .err = err}, .row = row};

    if (row->name_len > sizeof row->name || memchr(row->owner, '\0', sizeof row->owner) == NULL ||
        memchr(row->image, '\0', sizeof row->image) == NULL)
        return spb_fail(err, SPB_INVALID, "recording an upload: a name is too long");
    return spb_work_do(audit, &change.work);
}

static spb_status run_remove(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    const struct change *change = (struct change *)work;
    sqlite3_stmt *remove;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_REMOVE_UPLOAD, &remove, err));
    spb_bind_bytes(remove, 1, change->id, 16);
    return spb_db_run(&audit->db, remove, "removing an upload", err);
}

spb_status spb_rows_remove_upload(struct spb_audit *audit, const uint8_t id[16],
                                  struct spb_error *err)
{
    struct change change = {.work = {.run = run_remove, .err = err}, .id = id};

    return spb_work_do(audit, &change.work);
}

static void read_target(sqlite3_stmt *from, struct spb_upload_row *row)
{
    spb_column_bytes(from, 0, row->id, sizeof row->id);
    row->kind = (enum spb_upload_kind)sqlite3_column_int(from, 1);
    row->owner_kind = (uint32_t)sqlite3_column_int64(from, 2);
    row->owner_tenant = (uint16_t)sqlite3_column_int(from, 3);
    spb_column_text(from, 4, row->owner, sizeof row->owner);
    row->tenant = (uint16_t)sqlite3_column_int(from, 5);
    spb_column_text(from, 6, row->image, sizeof row->image);
    row->name_len = spb_column_some(from, 7, row->name, sizeof row->name);
    row->product_class = (uint16_t)sqlite3_column_int(from, 8);
    row->priority = (uint8_t)sqlite3_column_int(from, 9);
    row->replace = sqlite3_column_int(from, 10) != 0;
    row->new_identity = sqlite3_column_int(from, 11) != 0;
}

static void read_bytes(sqlite3_stmt *from, struct spb_upload_row *row)
{
    row->sector_size = (uint32_t)sqlite3_column_int64(from, 12);
    spb_column_bytes(from, 13, row->sha256, sizeof row->sha256);
    row->size = (uint64_t)sqlite3_column_int64(from, 14);
    row->block_offset = (uint32_t)sqlite3_column_int64(from, 15);
    row->block_count = (uint32_t)sqlite3_column_int64(from, 16);
    row->durable_offset = (uint64_t)sqlite3_column_int64(from, 17);
    row->durable_crc = (uint32_t)sqlite3_column_int64(from, 18);
    row->created_us = sqlite3_column_int64(from, 19);
    row->used_us = sqlite3_column_int64(from, 20);
    row->image_id = sqlite3_column_int64(from, 21);
}

struct listing {
    void (*take)(void *user, const struct spb_upload_row *row);
    void *user;
};

static void show(void *user, sqlite3_stmt *from)
{
    const struct listing *listing = user;
    struct spb_upload_row row;

    memset(&row, 0, sizeof row);
    read_target(from, &row);
    read_bytes(from, &row);
    listing->take(listing->user, &row);
}

spb_status spb_rows_uploads(struct spb_audit *audit,
                            void (*take)(void *user, const struct spb_upload_row *row), void *user,
                            struct spb_error *err)
{
    struct listing listing = {take, user};

    return spb_rows_each(audit, SPB_SQL_LIST_UPLOADS, "listing uploads", show, &listing, err);
}

static spb_status ask_published(struct spb_db *db, const uint8_t id[16], bool *published,
                                struct spb_error *err)
{
    sqlite3_stmt *ask;
    bool row;

    *published = false;
    SPB_TRY(spb_db_prepare(db, SPB_SQL_IS_PUBLISHED, &ask, err));
    spb_bind_bytes(ask, 1, id, 16);
    SPB_TRY(spb_db_next(db, ask, "looking at an upload", &row, err));
    if (row)
        *published = sqlite3_column_int(ask, 0) != 0;
    (void)sqlite3_reset(ask);
    return spb_ok();
}

spb_status spb_rows_upload_is_published(struct spb_audit *audit, const uint8_t id[16],
                                        bool *published, struct spb_error *err)
{
    struct spb_db *db;

    SPB_TRY(spb_reader_begin(audit, &db, err));
    spb_status status = ask_published(db, id, published, err);
    spb_reader_end(audit);
    return status;
}
