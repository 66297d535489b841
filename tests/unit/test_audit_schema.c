/* The database's file: whose it is, its version, its views as the sqlite3 tool shows them, damage,
 * its place; and forgetting what is old. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "audit/schema.h"
#include "unit/audit_kit.h"

static struct audit_kit kit;

static void set_up(void)
{
    audit_kit_init(&kit);
}

static void tear_down(void)
{
    audit_kit_done(&kit);
}

TestSuite(audit_schema, .init = set_up, .fini = tear_down);

static int open_file(const char *path)
{
    return open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
}

static void fails_to_open(enum spb_code code, const char *text)
{
    struct spb_audit *audit = NULL;

    AUDIT_FAILS(code, spb_audit_open(&kit.options, &audit, &kit.err));
    cr_assert_null(audit);
    cr_assert_not_null(strstr(kit.err.text, text), "%s", kit.err.text);
}

/* ---- Opening ------------------------------------------------------------------------------ */

Test(audit_schema, file_is_the_owners_alone)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char path[128];
    struct stat st;

    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s%s", kit.path, suffixes[i]);
        cr_assert_eq(stat(path, &st), 0, "%s", path);
        cr_assert_eq(st.st_mode & 07777, 0600, "%s", path);
    }
    cr_assert_eq(audit_number(&kit, "PRAGMA application_id"), SPB_SCHEMA_APPLICATION_ID);
}

Test(audit_schema, wal_has_its_size_from_the_start)
{
    char path[128];
    struct stat st;

    (void)snprintf(path, sizeof path, "%s-wal", kit.path);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_geq(st.st_size, 16 << 20);
    cr_assert_geq(st.st_blocks * 512, 16 << 20, "it is sparse");
}

Test(audit_schema, another_programs)
{
    audit_exec(&kit, "PRAGMA application_id = 77;");
    fails_to_open(SPB_CORRUPT, "another program");
    audit_exec(&kit, "PRAGMA application_id = 0;");
    fails_to_open(SPB_CORRUPT, "another program");
}

Test(audit_schema, later_version)
{
    audit_exec(&kit, "PRAGMA user_version = 99;");
    fails_to_open(SPB_CORRUPT, "version 99");
    cr_assert_not_null(strstr(kit.err.text, "later release"));
    audit_exec(&kit, "PRAGMA user_version = -1;");
    fails_to_open(SPB_CORRUPT, "version -1");
}

Test(audit_schema, no_database)
{
    spb_audit_close(kit.audit);
    kit.audit = NULL;
    int fd = open(kit.path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(write(fd, "something else, and long enough for a header", 44), 44);
    close(fd);
    fails_to_open(SPB_CORRUPT, "OPERATIONS.md");
    cr_assert_eq(access(kit.path, F_OK), 0, "what was there was removed");
}

Test(audit_schema, no_directory)
{
    kit.options.path = "/nowhere/audit.db";
    fails_to_open(SPB_IO, "/nowhere/audit.db");
}

/* As after an end without closing: a copy of the files of one that runs. */
static void copy_files(const char *to)
{
    static const char *const suffixes[] = {"", "-wal"};
    char command[512];

    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(command, sizeof command, "cp %s%s %s%s", kit.path, suffixes[i], to,
                       suffixes[i]);
        cr_assert_eq(system(command), 0);
    }
}

Test(audit_schema, damage_is_found_after_an_unclean_end)
{
    char copy[128], wal[160], page[4096];
    struct spb_audit *audit = NULL;

    for (int i = 0; i < 40; i++)
        spb_audit_end(audit_begin(&kit, 7, "img", 1, 50), SPB_OUTCOME_DONE, NULL, 0);
    audit_kit_reopen(&kit);
    spb_audit_end(audit_begin(&kit, 7, "img", 1, 1), SPB_OUTCOME_DONE, NULL, 0);
    (void)snprintf(copy, sizeof copy, "%s/copy.db", kit.dir);
    copy_files(copy);
    kit.options.path = copy;
    AUDIT_OK(spb_audit_open(&kit.options, &audit, &kit.err));
    spb_audit_close(audit);
    copy_files(copy);
    int fd = open(copy, O_RDWR | O_CLOEXEC);
    memset(page, 0x5a, sizeof page);
    for (off_t at = 30 * 4096; at < 60 * 4096; at += 4096)
        cr_assert_eq(pwrite(fd, page, sizeof page, at), (ssize_t)sizeof page);
    close(fd);
    fails_to_open(SPB_CORRUPT, "OPERATIONS.md");
    (void)snprintf(wal, sizeof wal, "%s-wal", copy);
    (void)unlink(copy);
    (void)unlink(wal);
    (void)snprintf(wal, sizeof wal, "%s-shm", copy);
    (void)unlink(wal);
}

/* ---- Migration ---------------------------------------------------------------------------- */

Test(audit_schema, steps_are_taken_one_by_one)
{
    static const struct spb_schema_step steps[] = {
        {"CREATE TABLE a (x);", "CREATE VIEW v AS SELECT x FROM a;"},
        {"ALTER TABLE a ADD COLUMN y DEFAULT 5; INSERT INTO a VALUES (1, 2);",
         "DROP VIEW v; CREATE VIEW v AS SELECT x + y AS z FROM a;"},
        {"CREATE TABLE a (twice);", ""},
    };
    struct spb_schema_steps to = {steps, 1};
    struct spb_db db;
    int64_t number;

    audit_exec(&kit, "PRAGMA user_version = 0; PRAGMA application_id = 0; PRAGMA writable_schema ="
                     " RESET;");
    (void)unlink(kit.path);
    close(open_file(kit.path));
    AUDIT_OK(spb_db_open(kit.path, &db, &kit.err));
    AUDIT_OK(spb_schema_check(&db, &to, &kit.err));
    AUDIT_OK(spb_schema_migrate(&db, &to, &kit.err));
    AUDIT_OK(spb_db_exec(&db, "INSERT INTO a VALUES (10);", "adding", &kit.err));
    to.count = 2;
    AUDIT_OK(spb_schema_check(&db, &to, &kit.err));
    AUDIT_OK(spb_schema_migrate(&db, &to, &kit.err));
    AUDIT_OK(spb_db_get_number(&db, "SELECT sum(z) FROM v;", &number, &kit.err));
    cr_assert_eq(number, 15 + 3);
    AUDIT_OK(spb_schema_migrate(&db, &to, &kit.err));
    AUDIT_OK(spb_db_get_number(&db, "SELECT count(*) FROM a;", &number, &kit.err));
    cr_assert_eq(number, 2, "a step was taken twice");
    to.count = 3;
    cr_assert_not(spb_is_ok(spb_schema_migrate(&db, &to, &kit.err)));
    db.broken = false;
    AUDIT_OK(spb_db_get_number(&db, "PRAGMA user_version;", &number, &kit.err));
    cr_assert_eq(number, 2, "a step that failed left something");
    spb_db_close(&db);
}

/* ---- The sqlite3 tool --------------------------------------------------------------------- */

/* What the tool prints for sql on the database that the audit has open. */
static void ask_tool(const char *sql, char *out, size_t size)
{
    char command[512];

    (void)snprintf(command, sizeof command, "sqlite3 -readonly %s \"%s\" 2>&1", kit.path, sql);
    FILE *tool = popen(command, "re");
    cr_assert_not_null(tool);
    size_t n = fread(out, 1, size - 1, tool);
    out[n] = '\0';
    cr_assert_eq(pclose(tool), 0, "%s", out);
}

static void check_tool(const char *sql, const char *expected)
{
    char out[2048];

    ask_tool(sql, out, sizeof out);
    cr_assert_str_eq(out, expected, "%s gave %s", sql, out);
}

static bool matches_time(const char *text)
{
    static const char shape[] = "0000-00-00T00:00:00.000000Z\n";
    bool same = strlen(text) == strlen(shape);

    for (size_t i = 0; same && shape[i] != '\0'; i++)
        same = shape[i] == '0' ? text[i] >= '0' && text[i] <= '9' : text[i] == shape[i];
    return same;
}

Test(audit_schema, guests_of_an_earlier_release)
{
    struct spb_schema_steps two = {spb_schema.steps, 2};
    struct spb_db db;
    int64_t number;

    (void)unlink(kit.path);
    close(open_file(kit.path));
    AUDIT_OK(spb_db_open(kit.path, &db, &kit.err));
    AUDIT_OK(spb_schema_migrate(&db, &two, &kit.err));
    AUDIT_OK(spb_db_exec(&db,
                         "INSERT INTO guest_rows VALUES (1, 7, 'a', x'01', x'', 0, 5, 0, 2, NULL,"
                         " 1, '/run', 1, 2, 0, 0, 0, 0, 0, 1, 9, 3, 'r');",
                         "adding", &kit.err));
    AUDIT_OK(spb_schema_migrate(&db, &spb_schema, &kit.err));
    AUDIT_OK(spb_db_get_number(&db,
                               "SELECT count(*) FROM guest_rows WHERE quit_at_ms = 0"
                               " AND stop_ms = 0 AND reason = 'r';",
                               &number, &kit.err));
    cr_assert_eq(number, 1);
    spb_db_close(&db);
}

Test(audit_schema, uploads_of_an_earlier_release)
{
    struct spb_schema_steps three = {spb_schema.steps, 3};
    struct spb_db db;
    int64_t number;

    (void)unlink(kit.path);
    close(open_file(kit.path));
    AUDIT_OK(spb_db_open(kit.path, &db, &kit.err));
    AUDIT_OK(spb_schema_migrate(&db, &three, &kit.err));
    AUDIT_OK(spb_db_exec(&db,
                         "INSERT INTO upload_rows VALUES (x'01', 1, 2, 3, 'o', 4, 'a', x'70', 5, 6,"
                         " 0, 0, 0, x'', 7, 8, 9, 10, 11, 12, 13);",
                         "adding", &kit.err));
    AUDIT_OK(spb_schema_migrate(&db, &spb_schema, &kit.err));
    AUDIT_OK(spb_db_get_number(&db,
                               "SELECT count(*) FROM upload_rows WHERE image_id = 0"
                               " AND publishing_call = 0 AND used_us = 13;",
                               &number, &kit.err));
    cr_assert_eq(number, 1);
    spb_db_close(&db);
}

Test(audit_schema, views_for_the_tool)
{
    struct spb_image_row image = {.tenant = 3, .name = "a", .uuid = {0x12, 0x34}};
    struct spb_upload_row upload = {.id = {0xab},
                                    .kind = SPB_UPLOAD_IMAGE,
                                    .owner = "alice",
                                    .tenant = 3,
                                    .image = "b",
                                    .size = 10,
                                    .created_us = 1790000000123456};
    struct spb_artifact_row artifact = {.tenant = 3, .sha256 = {0xcd}, .name = "x", .name_len = 1};
    char out[256];

    if (system("sqlite3 -version >/dev/null 2>&1") != 0)
        cr_skip_test("the sqlite3 tool is not installed");
    spb_audit_end(audit_begin(&kit, 7, "img", 5, 2), SPB_OUTCOME_NOT_DONE, NULL, 0);
    spb_audit_abandon(audit_begin(&kit, 0, "", 0, 1));
    AUDIT_OK(spb_audit_flush(kit.audit, &kit.err));
    AUDIT_OK(spb_rows_put_image(kit.audit, &image, &kit.err));
    AUDIT_OK(spb_rows_put_upload(kit.audit, &upload, &kit.err));
    AUDIT_OK(spb_rows_put_artifact(kit.audit, &artifact, &kit.err));
    check_tool("SELECT id, principal, principal_tenant, tenant, image, group_number, method,"
               " request_id, outcome, object, before, after FROM audit",
               "1|alice|300|300|img|5|Params.Put|a0000000-0000-0000-0000-000000000000|not done|"
               "param 42|generation 1: aa|generation 2: bb\n"
               "2|alice|300|300|img|5|Params.Put||not done|param 42|generation 1: aa|"
               "generation 2: bb\n"
               "3|alice|300|300|||Params.Put|a0000000-0000-0000-0000-000000000000|pending|"
               "param 42|generation 1: aa|generation 2: bb\n");
    ask_tool("SELECT time FROM audit WHERE id = 1", out, sizeof out);
    cr_assert(matches_time(out), "%s", out);
    check_tool("SELECT * FROM images",
               "1|3|a|12340000-0000-0000-0000-000000000000|||0000000000000000|0|0\n");
    check_tool("SELECT id, kind, owner, image, size, durable_offset, created FROM uploads",
               "ab000000-0000-0000-0000-000000000000|image|alice|b|10|0|"
               "2026-09-21T14:13:20.123456Z\n");
    check_tool("SELECT tenant, substr(sha256, 1, 4), name, size FROM artifacts", "3|cd00|x|0\n");
}

/* ---- Its place ---------------------------------------------------------------------------- */

Test(audit_schema, removed_under_us)
{
    struct spb_intent intents[1];
    struct spb_intent_group group = audit_group(intents, 1, 7, "img", 1);
    struct spb_open_group *open = NULL;
    char aside[128];

    (void)snprintf(aside, sizeof aside, "%s.aside", kit.path);
    cr_assert_eq(rename(kit.path, aside), 0);
    AUDIT_FAILS(SPB_IO, spb_audit_begin(kit.audit, &group, &open, &kit.err));
    cr_assert_not_null(strstr(kit.err.text, "removed"), "%s", kit.err.text);
    int fd = open_file(kit.path);
    AUDIT_FAILS(SPB_IO, spb_audit_begin(kit.audit, &group, &open, &kit.err));
    cr_assert_not_null(strstr(kit.err.text, "replaced"), "%s", kit.err.text);
    close(fd);
    cr_assert_eq(rename(aside, kit.path), 0);
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
}

/* ---- Forgetting --------------------------------------------------------------------------- */

/* Waits until no more than so many calls are left; a failure shows as the test's timeout. */
static void await_calls(int64_t left)
{
    while (audit_number(&kit, "SELECT count(*) FROM calls") > left) {
    }
}

static void fill(int64_t groups)
{
    for (int64_t i = 0; i < groups; i++)
        spb_audit_end(audit_begin(&kit, 7, "img", 1, 10), SPB_OUTCOME_DONE, NULL, 0);
}

Test(audit_schema, old_groups_are_forgotten)
{
    fill(200);
    spb_audit_abandon(audit_begin(&kit, 7, "img", 1, 1));
    fill(100);
    /* The first 250 are 11 days old, the others 9. */
    audit_exec(&kit, "UPDATE groups SET time_us = time_us - (9 + 2 * (id <= 250)) * 86400000000;");
    kit.options.keep_days = 10;
    audit_kit_open(&kit);
    await_calls(51 * 10 + 1);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM groups"), 52);
    cr_assert_eq(audit_number(&kit, "SELECT min(id) FROM groups"), 201, "an open one is gone");
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM calls WHERE group_id NOT IN"
                                    " (SELECT id FROM groups)"),
                 0);
    spb_audit_end(audit_begin(&kit, 7, "img", 1, 1), SPB_OUTCOME_DONE, NULL, 0);
}

Test(audit_schema, nothing_is_forgotten_unasked)
{
    fill(3);
    audit_exec(&kit, "UPDATE groups SET time_us = 0;");
    audit_kit_open(&kit);
    fill(1);
    AUDIT_OK(spb_audit_flush(kit.audit, &kit.err));
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM groups"), 4);
}

Test(audit_schema, all_forgotten_numbers_go_on)
{
    fill(3);
    audit_exec(&kit, "UPDATE groups SET time_us = 0;");
    kit.options.keep_days = 1;
    audit_kit_open(&kit);
    await_calls(10);
    audit_kit_reopen(&kit);
    fill(1);
    cr_assert_eq(audit_number(&kit, "SELECT max(id) FROM groups"), 4);
    cr_assert_eq(audit_number(&kit, "SELECT max(id) FROM calls"), 40);
}
