/* The registry's rows of images; see tables.h. */
#include "audit/tables.h"

#include <string.h>

#include "audit/rows.h"

struct put {
    struct spb_work work;
    struct spb_image_row *row;
    int64_t id;
};

static void bind_image(sqlite3_stmt *statement, const struct spb_image_row *row)
{
    spb_bind_number(statement, 1, row->tenant);
    spb_bind_text(statement, 2, row->name);
    spb_bind_bytes(statement, 3, row->uuid, sizeof row->uuid);
    spb_bind_number(statement, 4, row->sector_size);
    spb_bind_number(statement, 5, row->total_blocks);
    spb_bind_bytes(statement, 6, row->incarnation, sizeof row->incarnation);
    spb_bind_number(statement, 7, row->event_pointer);
}

/* No group before says more about the image's events than this does. */
static spb_status drop_pointers(struct spb_audit *audit, int64_t id, struct spb_error *err)
{
    sqlite3_stmt *drop;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_DROP_POINTERS, &drop, err));
    spb_bind_number(drop, 1, id);
    return spb_db_run(&audit->db, drop, "recording an image", err);
}

static spb_status run_put(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    struct put *put = (struct put *)work;
    const struct spb_image_row *row = put->row;
    struct spb_db *db = &audit->db;
    bool is_new = row->id == 0;
    sqlite3_stmt *statement;

    SPB_TRY(spb_db_prepare(db, is_new ? SPB_SQL_ADD_IMAGE : SPB_SQL_SET_IMAGE, &statement, err));
    bind_image(statement, row);
    if (!is_new)
        spb_bind_number(statement, 8, row->id);
    spb_status status = spb_db_run(db, statement, "recording an image", err);
    if (status.code == SPB_EXISTS)
        return spb_fail(err, SPB_EXISTS, "recording image %u/%s: another one has that name",
                        row->tenant, row->name);
    SPB_TRY(status);
    if (!is_new && sqlite3_changes(db->handle) == 0)
        return spb_fail(err, SPB_NOT_FOUND, "recording image %u/%s: number %lld is not in %s",
                        row->tenant, row->name, (long long)row->id, db->path);
    if (!is_new)
        SPB_TRY(drop_pointers(audit, row->id, err));
    put->id = is_new ? sqlite3_last_insert_rowid(db->handle) : row->id;
    return spb_ok();
}

spb_status spb_rows_put_image(struct spb_audit *audit, struct spb_image_row *row,
                              struct spb_error *err)
{
    struct put put = {.work = {.run = run_put, .err = err}, .row = row};

    if (row->name[0] == '\0' || memchr(row->name, '\0', sizeof row->name) == NULL)
        return spb_fail(err, SPB_INVALID, "recording an image: its name is empty or unended");
    SPB_TRY(spb_work_do(audit, &put.work));
    row->id = put.id;
    return spb_ok();
}

spb_status spb_rows_remove_image(struct spb_audit *audit, int64_t id, struct spb_error *err)
{
    return spb_rows_remove(audit, SPB_SQL_REMOVE_IMAGE, id, "removing an image", err);
}

static void read_image(sqlite3_stmt *from, struct spb_image_row *row)
{
    row->id = sqlite3_column_int64(from, 0);
    row->tenant = (uint16_t)sqlite3_column_int(from, 1);
    spb_column_text(from, 2, row->name, sizeof row->name);
    spb_column_bytes(from, 3, row->uuid, sizeof row->uuid);
    row->sector_size = (uint32_t)sqlite3_column_int64(from, 4);
    row->total_blocks = (uint32_t)sqlite3_column_int64(from, 5);
    spb_column_bytes(from, 6, row->incarnation, sizeof row->incarnation);
    row->event_pointer = (uint32_t)sqlite3_column_int64(from, 7);
    row->group_number = (uint64_t)sqlite3_column_int64(from, 8);
}

struct search {
    uint16_t tenant;
    const char *name;
    struct spb_image_row *row;
    bool *found;
};

static spb_status search(struct spb_db *db, const struct search *wanted, struct spb_error *err)
{
    sqlite3_stmt *find;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_FIND_IMAGE, &find, err));
    spb_bind_number(find, 1, wanted->tenant);
    spb_bind_text(find, 2, wanted->name);
    SPB_TRY(spb_db_next(db, find, "looking for an image", wanted->found, err));
    if (*wanted->found)
        read_image(find, wanted->row);
    (void)sqlite3_reset(find);
    return spb_ok();
}

spb_status spb_rows_find_image(struct spb_audit *audit, uint16_t tenant, const char *name,
                               struct spb_image_row *row, bool *found, struct spb_error *err)
{
    const struct search wanted = {tenant, name, row, found};
    struct spb_db *db;

    memset(row, 0, sizeof *row);
    SPB_TRY(spb_reader_begin(audit, &db, err));
    spb_status status = search(db, &wanted, err);
    spb_reader_end(audit);
    return status;
}

struct listing {
    void (*take)(void *user, const struct spb_image_row *row);
    void *user;
};

static void show(void *user, sqlite3_stmt *from)
{
    const struct listing *listing = user;
    struct spb_image_row row;

    memset(&row, 0, sizeof row);
    read_image(from, &row);
    listing->take(listing->user, &row);
}

spb_status spb_rows_images(struct spb_audit *audit,
                           void (*take)(void *user, const struct spb_image_row *row), void *user,
                           struct spb_error *err)
{
    struct listing listing = {take, user};

    return spb_rows_each(audit, SPB_SQL_LIST_IMAGES, "listing images", show, &listing, err);
}
