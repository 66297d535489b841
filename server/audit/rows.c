/* Listing and removing rows; see rows.h. */
#include "audit/rows.h"

static spb_status each(struct spb_db *db, enum spb_sql list, const char *what,
                       void (*show)(void *user, sqlite3_stmt *row), void *user,
                       struct spb_error *err)
{
    sqlite3_stmt *row;
    bool more;

    SPB_TRY(spb_db_prepare(db, list, &row, err));
    for (;;) {
        SPB_TRY(spb_db_next(db, row, what, &more, err));
        if (!more)
            return spb_ok();
        show(user, row);
    }
}

spb_status spb_rows_each(struct spb_audit *audit, enum spb_sql list, const char *what,
                         void (*show)(void *user, sqlite3_stmt *row), void *user,
                         struct spb_error *err)
{
    struct spb_db *db;

    SPB_TRY(spb_reader_begin(audit, &db, err));
    spb_status status = each(db, list, what, show, user, err);
    spb_reader_end(audit);
    return status;
}

struct removal {
    struct spb_work work;
    enum spb_sql remove;
    int64_t id;
    const char *what;
};

static spb_status run_removal(struct spb_audit *audit, struct spb_work *work, struct spb_error *err)
{
    const struct removal *removal = (const struct removal *)work;
    sqlite3_stmt *remove;

    SPB_TRY(spb_db_prepare(&audit->db, removal->remove, &remove, err));
    spb_bind_number(remove, 1, removal->id);
    return spb_db_run(&audit->db, remove, removal->what, err);
}

spb_status spb_rows_remove(struct spb_audit *audit, enum spb_sql remove, int64_t id,
                           const char *what, struct spb_error *err)
{
    struct removal removal = {
        .work = {.run = run_removal, .err = err}, .remove = remove, .id = id, .what = what};

    return spb_work_do(audit, &removal.work);
}
