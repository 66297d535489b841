/* Rows of guests; see tables.h. */
#include <string.h>

#include "audit/rows.h"
#include "audit/tables.h"

struct change {
    struct spb_work work;
    const struct spb_guest_row *row;
    int64_t id;
};

static void bind_times(sqlite3_stmt *put, const struct spb_guest_row *row)
{
    spb_bind_number(put, 8, (int64_t)row->created_ms);
    spb_bind_number(put, 9, (int64_t)row->started_ms);
    spb_bind_number(put, 10, (int64_t)row->ended_ms);
    spb_bind_number(put, 11, (int64_t)row->restart_at_ms);
    spb_bind_number(put, 12, row->restarts);
    spb_bind_number(put, 13, row->short_runs);
    spb_bind_number(put, 14, row->crash_loop);
    spb_bind_number(put, 15, row->alive);
    spb_bind_number(put, 16, (int64_t)row->console_bytes);
    spb_bind_number(put, 17, (int64_t)row->version);
    spb_bind_text(put, 18, row->reason);
    spb_bind_number(put, 19, (int64_t)row->quit_at_ms);
    spb_bind_number(put, 20, (int64_t)row->stop_ms);
}

static void bind_life(sqlite3_stmt *put, const struct spb_guest_row *row)
{
    spb_bind_number(put, 1, row->wants_run);
    spb_bind_number(put, 2, row->state);
    spb_bind_number(put, 3, row->ending);
    spb_bind_number(put, 4, row->accel);
    if (row->has_exit)
        spb_bind_number(put, 5, row->exit_status);
    else
        spb_bind_null(put, 5);
    spb_bind_number(put, 6, (int64_t)row->run);
    spb_bind_text(put, 7, row->run_base);
    bind_times(put, row);
}

static spb_status run_add(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    struct change *change = (struct change *)work;
    const struct spb_guest_row *row = change->row;
    struct spb_db *db = &audit->db;
    sqlite3_stmt *add;

    SPB_TRY(spb_db_prepare(db, SPB_SQL_ADD_GUEST, &add, err));
    bind_life(add, row);
    spb_bind_number(add, 21, row->tenant);
    spb_bind_text(add, 22, row->name);
    spb_bind_bytes(add, 23, row->uuid, sizeof row->uuid);
    spb_bind_bytes(add, 24, row->config, row->config_size);
    spb_status status = spb_db_run(db, add, "recording a guest", err);
    if (status.code == SPB_EXISTS)
        return spb_fail(err, SPB_EXISTS, "recording guest %u/%s: another one has that name",
                        row->tenant, row->name);
    change->id = sqlite3_last_insert_rowid(db->handle);
    return status;
}

static bool texts_end(const struct spb_guest_row *row)
{
    return memchr(row->name, '\0', sizeof row->name) != NULL && row->name[0] != '\0' &&
           memchr(row->run_base, '\0', sizeof row->run_base) != NULL &&
           memchr(row->reason, '\0', sizeof row->reason) != NULL;
}

spb_status spb_rows_add_guest(struct spb_audit *audit, struct spb_guest_row *row,
                              struct spb_error *err)
{
    struct change change = {.work = {.run = run_add, .err = err}, .row = row};

    if (!texts_end(row) || row->config == NULL)
        return spb_fail(err, SPB_INVALID, "recording a guest: a text is empty or unended");
    SPB_TRY(spb_work_do(audit, &change.work));
    row->id = change.id;
    return spb_ok();
}

static spb_status run_set(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    const struct change *change = (struct change *)work;
    sqlite3_stmt *set;

    SPB_TRY(spb_db_prepare(&audit->db, SPB_SQL_SET_GUEST, &set, err));
    bind_life(set, change->row);
    spb_bind_number(set, 21, change->row->id);
    return spb_db_run(&audit->db, set, "recording a guest", err);
}

spb_status spb_rows_set_guest(struct spb_audit *audit, const struct spb_guest_row *row,
                              struct spb_error *err)
{
    struct change change = {.work = {.run = run_set, .err = err}, .row = row};

    if (!texts_end(row))
        return spb_fail(err, SPB_INVALID, "recording a guest: a text is empty or unended");
    return spb_work_do(audit, &change.work);
}

spb_status spb_rows_remove_guest(struct spb_audit *audit, int64_t id, struct spb_error *err)
{
    return spb_rows_remove(audit, SPB_SQL_REMOVE_GUEST, id, "removing a guest", err);
}

/* ---- Reading ------------------------------------------------------------------------------ */

static void read_life(sqlite3_stmt *from, struct spb_guest_row *row)
{
    row->wants_run = sqlite3_column_int(from, 5) != 0;
    row->state = (uint32_t)sqlite3_column_int64(from, 6);
    row->ending = (uint32_t)sqlite3_column_int64(from, 7);
    row->accel = (uint32_t)sqlite3_column_int64(from, 8);
    row->has_exit = sqlite3_column_type(from, 9) != SQLITE_NULL;
    row->exit_status = sqlite3_column_int(from, 9);
    row->run = (uint64_t)sqlite3_column_int64(from, 10);
    spb_column_text(from, 11, row->run_base, sizeof row->run_base);
    row->created_ms = (uint64_t)sqlite3_column_int64(from, 12);
    row->started_ms = (uint64_t)sqlite3_column_int64(from, 13);
    row->ended_ms = (uint64_t)sqlite3_column_int64(from, 14);
    row->restart_at_ms = (uint64_t)sqlite3_column_int64(from, 15);
    row->restarts = (uint32_t)sqlite3_column_int64(from, 16);
    row->short_runs = (uint32_t)sqlite3_column_int64(from, 17);
    row->crash_loop = sqlite3_column_int(from, 18) != 0;
    row->alive = sqlite3_column_int(from, 19) != 0;
    row->console_bytes = (uint64_t)sqlite3_column_int64(from, 20);
    row->version = (uint64_t)sqlite3_column_int64(from, 21);
    spb_column_text(from, 22, row->reason, sizeof row->reason);
    row->quit_at_ms = (uint64_t)sqlite3_column_int64(from, 23);
    row->stop_ms = (uint64_t)sqlite3_column_int64(from, 24);
}

static void read_row(sqlite3_stmt *from, struct spb_guest_row *row)
{
    memset(row, 0, sizeof *row);
    row->id = sqlite3_column_int64(from, 0);
    row->tenant = (uint16_t)sqlite3_column_int(from, 1);
    spb_column_text(from, 2, row->name, sizeof row->name);
    spb_column_bytes(from, 3, row->uuid, sizeof row->uuid);
    row->config = sqlite3_column_blob(from, 4);
    row->config_size = (size_t)sqlite3_column_bytes(from, 4);
    read_life(from, row);
}

struct listing {
    void (*take)(void *user, const struct spb_guest_row *row);
    void *user;
};

static void show(void *user, sqlite3_stmt *from)
{
    const struct listing *listing = user;
    struct spb_guest_row row;

    read_row(from, &row);
    listing->take(listing->user, &row);
}

spb_status spb_rows_guests(struct spb_audit *audit,
                           void (*take)(void *user, const struct spb_guest_row *row), void *user,
                           struct spb_error *err)
{
    struct listing listing = {take, user};

    return spb_rows_each(audit, SPB_SQL_LIST_GUESTS, "listing guests", show, &listing, err);
}
