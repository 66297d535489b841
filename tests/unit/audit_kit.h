/*
 * What the unit tests of the audit share: one in a folder of its own, groups to put into it, and a
 * look into the database beside it, as the sqlite3 tool has.
 */
#ifndef SPB_UNIT_AUDIT_KIT_H
#define SPB_UNIT_AUDIT_KIT_H

#include <criterion/criterion.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "audit/tables.h"
#include "log.h"

#define AUDIT_TENANT 300u
#define AUDIT_CHANGES "the changes' bytes"

#define AUDIT_OK(call) cr_assert(spb_is_ok(call), "%s", kit.err.text)
#define AUDIT_FAILS(expected, call)                                                                \
    do {                                                                                           \
        enum spb_code audit_code_ = (call).code;                                                   \
        cr_assert_eq(audit_code_, expected, "%s", spb_code_name(audit_code_));                     \
    } while (0)

struct audit_kit {
    char dir[64], path[96];
    struct spb_log log;
    struct spb_audit_options options;
    struct spb_audit *audit;
    struct spb_error err;
};

static inline void audit_kit_open(struct audit_kit *kit)
{
    cr_assert(spb_is_ok(spb_audit_open(&kit->options, &kit->audit, &kit->err)), "%s",
              kit->err.text);
}

static inline void audit_kit_init(struct audit_kit *kit)
{
    *kit = (struct audit_kit){.dir = "/tmp/spb-audit.XXXXXX", .log = {.fd = STDERR_FILENO}};
    cr_assert_not_null(mkdtemp(kit->dir));
    (void)snprintf(kit->path, sizeof kit->path, "%s/audit.db", kit->dir);
    kit->options =
        (struct spb_audit_options){.path = kit->path, .outcome_delay_ms = 100, .log = &kit->log};
    audit_kit_open(kit);
}

static inline void audit_kit_reopen(struct audit_kit *kit)
{
    spb_audit_close(kit->audit);
    kit->audit = NULL;
    audit_kit_open(kit);
}

static inline void audit_kit_done(struct audit_kit *kit)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char path[128];

    spb_audit_close(kit->audit);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        (void)snprintf(path, sizeof path, "%s%s", kit->path, suffixes[i]);
        (void)unlink(path);
    }
    cr_assert_eq(rmdir(kit->dir), 0, "something was left in %s", kit->dir);
}

/* The first column of the first row, asked for by a connection of its own. */
static inline int64_t audit_number(const struct audit_kit *kit, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;

    cr_assert_eq(sqlite3_open_v2(kit->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 5000);
    cr_assert_eq(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK, "%s: %s", sql,
                 sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_step(statement), SQLITE_ROW, "%s: %s", sql, sqlite3_errmsg(db));
    int64_t number = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    (void)sqlite3_close(db);
    return number;
}

/* Runs statements of the test's own on the database, while the audit is closed. */
static inline void audit_exec(struct audit_kit *kit, const char *sql)
{
    sqlite3 *db = NULL;

    spb_audit_close(kit->audit);
    kit->audit = NULL;
    cr_assert_eq(sqlite3_open_v2(kit->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s: %s", sql,
                 sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_close(db), SQLITE_OK);
}

/* A group of count calls of alice's; every other one has a request_id. */
static inline struct spb_intent_group audit_group(struct spb_intent *intents, size_t count,
                                                  int64_t image_id, const char *name,
                                                  uint64_t number)
{
    static uint8_t request_ids[256][SPB_AUDIT_REQUEST_ID_SIZE];

    for (size_t i = 0; i < count; i++) {
        uint8_t *request_id = request_ids[i % 256];

        request_id[0] = (uint8_t)(0xa0 + i);
        intents[i] = (struct spb_intent){.principal_tenant = AUDIT_TENANT,
                                         .principal = "alice",
                                         .method = "Params.Put",
                                         .request_id = i % 2 == 0 ? request_id : NULL,
                                         .payload_crc = 0xdeadbeef,
                                         .first_change = (uint32_t)i,
                                         .change_count = 1,
                                         .object = "param 42",
                                         .before = "generation 1: aa",
                                         .after = "generation 2: bb",
                                         .response = (const uint8_t *)"reply",
                                         .response_size = 5};
    }
    return (struct spb_intent_group){.kind = SPB_GROUP_CHANGES,
                                     .image_id = image_id,
                                     .tenant = AUDIT_TENANT,
                                     .image_name = name,
                                     .number = number,
                                     .changes = (const uint8_t *)AUDIT_CHANGES,
                                     .changes_size = strlen(AUDIT_CHANGES),
                                     .intents = intents,
                                     .count = count};
}

static inline struct spb_open_group *audit_begin(struct audit_kit *kit, int64_t image_id,
                                                 const char *name, uint64_t number, size_t count)
{
    struct spb_intent intents[256];
    struct spb_intent_group group = audit_group(intents, count, image_id, name, number);
    struct spb_open_group *open = NULL;

    cr_assert(spb_is_ok(spb_audit_begin(kit->audit, &group, &open, &kit->err)), "%s",
              kit->err.text);
    return open;
}

#endif
