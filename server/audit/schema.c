/*
 * The schema of the audit's database; see schema.h.
 *
 * What is written with each commit is one row of `groups`, appended, and one of `calls` for each
 * call, appended: two pages where there is one caller. So there is no index on either; who lists
 * walks from the end. Texts that repeat (principals, methods, images) are rows of their own and go
 * by number. The views say it all in words.
 */
#include "audit/schema.h"

#include <stdio.h>

/* clang-format off */
static const char tables_1[] =
    /* One row; `mark`: all groups before it are ended or in open_groups, and counted in images. */
    "CREATE TABLE state ("
    " one INTEGER PRIMARY KEY CHECK (one = 1),"
    " mark INTEGER NOT NULL);"
    "INSERT INTO state VALUES (1, 1);"

    "CREATE TABLE principals ("
    " id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (tenant, name));"
    "CREATE TABLE methods ("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
    /* What groups are about: an image as it was called then; no name: none of that tenant. */
    "CREATE TABLE targets ("
    " id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (tenant, name));"

    "CREATE TABLE groups ("
    " id INTEGER PRIMARY KEY,"
    " time_us INTEGER NOT NULL,"     /* UNIX */
    " kind INTEGER NOT NULL,"        /* enum spb_group_kind */
    " image_id INTEGER NOT NULL,"    /* of image_rows, there or gone; 0: none */
    " target INTEGER NOT NULL,"
    " number INTEGER NOT NULL,"      /* the image's own count; 0: none */
    " event_pointer INTEGER,"        /* of the image once the group has ended */
    " first_call INTEGER NOT NULL,"
    " call_count INTEGER NOT NULL,"
    " outcome INTEGER NOT NULL,"     /* enum spb_outcome; of each call that has none of its own */
    " changes BLOB);"                /* until it has ended */
    "CREATE TABLE calls ("
    " id INTEGER PRIMARY KEY,"
    " group_id INTEGER NOT NULL,"
    " principal INTEGER NOT NULL,"
    " method INTEGER NOT NULL,"
    " request_id BLOB,"
    " payload_crc INTEGER NOT NULL,"
    " first_change INTEGER NOT NULL,"
    " change_count INTEGER NOT NULL,"
    " outcome INTEGER,"              /* where it is not the group's */
    " object TEXT NOT NULL,"
    " before TEXT NOT NULL,"
    " after TEXT NOT NULL,"
    " response BLOB);"
    /* Groups before the mark that have not ended. */
    "CREATE TABLE open_groups ("
    " group_id INTEGER PRIMARY KEY);"
    /* From where on the clock showed an earlier time than before. */
    "CREATE TABLE clock_steps ("
    " first_group INTEGER PRIMARY KEY);"

    /* Numbers of images are not given twice: groups keep them. */
    "CREATE TABLE image_rows ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " tenant INTEGER NOT NULL,"
    " name TEXT NOT NULL,"
    " uuid BLOB NOT NULL,"
    " sector_size INTEGER NOT NULL,"
    " total_blocks INTEGER NOT NULL,"
    " incarnation BLOB NOT NULL,"
    " event_pointer INTEGER NOT NULL,"
    " group_number INTEGER NOT NULL,"
    " UNIQUE (tenant, name));"
    "CREATE TABLE upload_rows ("
    " id BLOB PRIMARY KEY,"
    " kind INTEGER NOT NULL,"
    " owner_kind INTEGER NOT NULL,"
    " owner_tenant INTEGER NOT NULL,"
    " owner TEXT NOT NULL,"
    " tenant INTEGER NOT NULL,"
    " image TEXT NOT NULL,"
    " name BLOB NOT NULL,"
    " product_class INTEGER NOT NULL,"
    " priority INTEGER NOT NULL,"
    " replaces INTEGER NOT NULL,"
    " new_identity INTEGER NOT NULL,"
    " sector_size INTEGER NOT NULL,"
    " sha256 BLOB NOT NULL,"
    " size INTEGER NOT NULL,"
    " block_offset INTEGER NOT NULL,"
    " block_count INTEGER NOT NULL,"
    " durable_offset INTEGER NOT NULL,"
    " durable_crc INTEGER NOT NULL,"
    " created_us INTEGER NOT NULL,"
    " used_us INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE artifact_rows ("
    " sha256 BLOB NOT NULL,"
    " tenant INTEGER NOT NULL,"
    " name BLOB NOT NULL,"
    " size INTEGER NOT NULL,"
    " created_us INTEGER NOT NULL,"
    " PRIMARY KEY (sha256, tenant)) WITHOUT ROWID;";

#define TIME(us) \
    "strftime('%Y-%m-%dT%H:%M:%S', " us " / 1000000, 'unixepoch')" \
    " || printf('.%06dZ', " us " % 1000000)"
#define UUID(bytes) \
    "lower(substr(hex(" bytes "), 1, 8) || '-' || substr(hex(" bytes "), 9, 4) || '-' ||" \
    " substr(hex(" bytes "), 13, 4) || '-' || substr(hex(" bytes "), 17, 4) || '-' ||" \
    " substr(hex(" bytes "), 21, 12))"
static const char views_1[] =
    "CREATE VIEW audit AS SELECT"
    " c.id AS id,"
    " " TIME("g.time_us") " AS time,"
    " p.name AS principal,"
    " p.tenant AS principal_tenant,"
    " t.tenant AS tenant,"
    " nullif(t.name, '') AS image,"
    " nullif(g.number, 0) AS group_number,"
    " m.name AS method,"
    " CASE WHEN c.request_id IS NOT NULL THEN " UUID("c.request_id") " END AS request_id,"
    " CASE coalesce(c.outcome, g.outcome) WHEN 0 THEN 'pending' WHEN 1 THEN 'done'"
    " WHEN 2 THEN 'completed' WHEN 3 THEN 'not done' ELSE 'unknown' END AS outcome,"
    " c.object AS object,"
    " c.before AS before,"
    " c.after AS after"
    " FROM calls c CROSS JOIN groups g ON g.id = c.group_id"
    " CROSS JOIN principals p ON p.id = c.principal"
    " CROSS JOIN methods m ON m.id = c.method"
    " CROSS JOIN targets t ON t.id = g.target;"
    /* What the groups from the mark on say about images. */
    "CREATE VIEW newest_groups AS SELECT"
    " image_id,"
    " max(number) AS number,"
    " max(CASE WHEN outcome IN (1, 2) THEN ifnull(event_pointer, 0) ELSE 0 END) AS pointer"
    " FROM groups WHERE id >= (SELECT mark FROM state) AND image_id > 0 GROUP BY image_id;"
    "CREATE VIEW images AS SELECT"
    " i.id AS id, i.tenant AS tenant, i.name AS name,"
    " " UUID("uuid") " AS uuid,"
    " nullif(sector_size, 0) AS sector_size,"
    " nullif(total_blocks, 0) AS total_blocks,"
    " lower(hex(incarnation)) AS incarnation,"
    " max(i.event_pointer, ifnull(s.pointer, 0)) AS event_pointer,"
    " max(i.group_number, ifnull(s.number, 0)) AS group_number"
    " FROM image_rows i LEFT JOIN newest_groups s ON s.image_id = i.id;"
    "CREATE VIEW uploads AS SELECT"
    " " UUID("id") " AS id,"
    " CASE kind WHEN 1 THEN 'product' WHEN 2 THEN 'image' WHEN 3 THEN 'artifact'"
    " ELSE 'unknown' END AS kind,"
    " owner, owner_tenant, tenant,"
    " nullif(image, '') AS image,"
    " CAST(name AS TEXT) AS name,"
    " size, durable_offset,"
    " " TIME("created_us") " AS created,"
    " " TIME("used_us") " AS used"
    " FROM upload_rows;"
    "CREATE VIEW artifacts AS SELECT"
    " tenant,"
    " lower(hex(sha256)) AS sha256,"
    " CAST(name AS TEXT) AS name,"
    " size,"
    " " TIME("created_us") " AS created"
    " FROM artifact_rows;";

/* Guests: what they are made of, what was asked for, and how far it is known to have come. */
static const char tables_2[] =
    /* Numbers of guests are not given twice: their folders are named for them. */
    "CREATE TABLE guest_rows ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " tenant INTEGER NOT NULL,"
    " name TEXT NOT NULL,"
    " uuid BLOB NOT NULL,"
    " config BLOB NOT NULL,"         /* spaceblock.v1.GuestConfig */
    " wants_run INTEGER NOT NULL,"
    " state INTEGER NOT NULL,"       /* spaceblock.v1.GuestState, as the next two */
    " ending INTEGER NOT NULL,"
    " accel INTEGER NOT NULL,"
    " exit_status INTEGER,"
    " run INTEGER NOT NULL,"         /* of how many QEMUs the last is this */
    " run_base TEXT NOT NULL,"       /* folder of that run's folder */
    " created_ms INTEGER NOT NULL,"
    " started_ms INTEGER NOT NULL,"
    " ended_ms INTEGER NOT NULL,"
    " restart_at_ms INTEGER NOT NULL,"
    " restarts INTEGER NOT NULL,"
    " short_runs INTEGER NOT NULL,"
    " crash_loop INTEGER NOT NULL,"
    " alive INTEGER NOT NULL,"
    " console_bytes INTEGER NOT NULL,"
    " version INTEGER NOT NULL,"
    " reason TEXT NOT NULL,"
    " UNIQUE (tenant, name));";
#define TIME_MS(ms) "CASE WHEN " ms " > 0 THEN " TIME(ms " * 1000") " END"
static const char views_2[] =
    "CREATE VIEW guests AS SELECT"
    " id, tenant, name,"
    " " UUID("uuid") " AS uuid,"
    " CASE state WHEN 1 THEN 'created' WHEN 2 THEN 'starting' WHEN 3 THEN 'running'"
    " WHEN 4 THEN 'paused' WHEN 5 THEN 'stopping' WHEN 6 THEN 'stopped' WHEN 7 THEN 'crashed'"
    " WHEN 8 THEN 'lost' WHEN 9 THEN 'backoff' ELSE 'unknown' END AS state,"
    " CASE wants_run WHEN 0 THEN 'stop' ELSE 'run' END AS wanted,"
    " CASE ending WHEN 0 THEN NULL WHEN 1 THEN 'poweroff' WHEN 2 THEN 'reboot' WHEN 3 THEN 'panic'"
    " WHEN 4 THEN 'stopped' WHEN 5 THEN 'crashed' WHEN 6 THEN 'lost' WHEN 7 THEN 'not started'"
    " ELSE 'unknown' END AS ending,"
    " exit_status, run, restarts, crash_loop, reason,"
    " " TIME_MS("created_ms") " AS created,"
    " " TIME_MS("started_ms") " AS started,"
    " " TIME_MS("ended_ms") " AS ended"
    " FROM guest_rows;";

/* When a guest's stop goes on from the button to quit, 0: none is under way; and after how long
 * that was asked for. */
static const char tables_3[] =
    "ALTER TABLE guest_rows ADD COLUMN quit_at_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE guest_rows ADD COLUMN stop_ms INTEGER NOT NULL DEFAULT 0;";

/* Which image an upload's product is for, of image_rows, 0: the one of that name; and which call
 * was the last to publish it, or to try, 0: none. */
static const char tables_4[] =
    "ALTER TABLE upload_rows ADD COLUMN image_id INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE upload_rows ADD COLUMN publishing_call INTEGER NOT NULL DEFAULT 0;";
/* clang-format on */

static const struct spb_schema_step steps[] = {
    {tables_1, views_1}, {tables_2, views_2}, {tables_3, ""}, {tables_4, ""}};

const struct spb_schema_steps spb_schema = {steps, sizeof steps / sizeof *steps};

static spb_status take_step(struct spb_db *db, const struct spb_schema_step *step, int64_t version,
                            struct spb_error *err)
{
    char last[96];

    (void)snprintf(last, sizeof last,
                   "PRAGMA application_id=%lld; PRAGMA user_version=%lld; COMMIT;",
                   (long long)SPB_SCHEMA_APPLICATION_ID, (long long)version);
    SPB_TRY(spb_db_exec(db, "BEGIN IMMEDIATE;", "beginning a migration", err));
    spb_status status = spb_db_exec(db, step->tables, "migrating", err);
    if (spb_is_ok(status))
        status = spb_db_exec(db, step->views, "migrating", err);
    if (spb_is_ok(status))
        status = spb_db_exec(db, last, "ending a migration", err);
    if (!spb_is_ok(status) && sqlite3_get_autocommit(db->handle) == 0)
        (void)sqlite3_exec(db->handle, "ROLLBACK;", NULL, NULL, NULL);
    return status;
}

/* Without a table it is new, and becomes ours. */
static spb_status check_owner(struct spb_db *db, struct spb_error *err)
{
    int64_t application, tables;

    SPB_TRY(spb_db_get_number(db, "PRAGMA application_id;", &application, err));
    SPB_TRY(spb_db_get_number(db, "SELECT count(*) FROM sqlite_schema;", &tables, err));
    if (application == SPB_SCHEMA_APPLICATION_ID || (application == 0 && tables == 0))
        return spb_ok();
    return spb_fail(err, SPB_CORRUPT,
                    "opening %s: its application_id is %lld, expected %lld: it is a database of "
                    "another program",
                    db->path, (long long)application, (long long)SPB_SCHEMA_APPLICATION_ID);
}

spb_status spb_schema_check(struct spb_db *db, const struct spb_schema_steps *wanted,
                            struct spb_error *err)
{
    int64_t version;

    SPB_TRY(check_owner(db, err));
    SPB_TRY(spb_db_get_number(db, "PRAGMA user_version;", &version, err));
    if (version < 0 || version > wanted->count)
        return spb_fail(err, SPB_CORRUPT,
                        "opening %s: its schema is version %lld, expected at most %lld: it was "
                        "written by a later release",
                        db->path, (long long)version, (long long)wanted->count);
    return spb_ok();
}

spb_status spb_schema_migrate(struct spb_db *db, const struct spb_schema_steps *wanted,
                              struct spb_error *err)
{
    int64_t version;

    SPB_TRY(spb_db_get_number(db, "PRAGMA user_version;", &version, err));
    for (; version < wanted->count; version++)
        SPB_TRY(take_step(db, &wanted->steps[version], version + 1, err));
    return spb_ok();
}
