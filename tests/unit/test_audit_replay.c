/* What is needed to answer a repeated call: rows since a time, the newest of each principal, and
 * responses. */
#include <criterion/criterion.h>

#include "unit/audit_kit.h"

static struct audit_kit kit;

struct loaded {
    struct spb_replay_row rows[64];
    char principals[64][8];
    size_t count;
};

static void take(void *user, const struct spb_replay_row *row)
{
    struct loaded *loaded = user;

    cr_assert_lt(loaded->count, 64);
    loaded->rows[loaded->count] = *row;
    (void)snprintf(loaded->principals[loaded->count++], 8, "%s", row->principal);
}

static struct loaded load(int64_t since_us, uint32_t max)
{
    struct loaded loaded = {.count = 0};

    AUDIT_OK(spb_audit_load_replays(kit.audit, since_us, max, take, &loaded, &kit.err));
    for (size_t i = 1; i < loaded.count; i++)
        cr_assert_gt(loaded.rows[i].call_id, loaded.rows[i - 1].call_id, "not the oldest first");
    return loaded;
}

static void set_up(void)
{
    audit_kit_init(&kit);
}

static void tear_down(void)
{
    audit_kit_done(&kit);
}

TestSuite(audit_replay, .init = set_up, .fini = tear_down);

Test(audit_replay, none)
{
    cr_assert_eq(load(0, 10).count, 0);
}

Test(audit_replay, rows_say_all)
{
    spb_audit_end(audit_begin(&kit, 7, "img", 1, 3), SPB_OUTCOME_DONE, NULL, 0);
    spb_audit_abandon(audit_begin(&kit, 7, "img", 2, 1));
    struct loaded loaded = load(0, 10);
    const struct spb_replay_row *row = &loaded.rows[1];

    cr_assert_eq(loaded.count, 3, "without a request_id there is nothing to repeat");
    cr_assert_eq(row->call_id, 3);
    cr_assert_gt(row->time_us, INT64_C(1600000000) * 1000000);
    cr_assert_eq(row->principal_tenant, AUDIT_TENANT);
    cr_assert_str_eq(loaded.principals[1], "alice");
    cr_assert_eq(row->request_id[0], 0xa2);
    cr_assert_eq(row->request_id[15], 0);
    cr_assert_eq(row->payload_crc, 0xdeadbeef);
    cr_assert_eq(row->outcome, SPB_OUTCOME_DONE);
    cr_assert_eq(loaded.rows[2].outcome, SPB_OUTCOME_PENDING);
}

static void begin_as(const char *principal)
{
    struct spb_intent intents[1];
    struct spb_intent_group group = audit_group(intents, 1, 7, "img", 1);
    struct spb_open_group *open;

    intents[0].principal = principal;
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
}

Test(audit_replay, newest_of_each)
{
    static const char *const callers[] = {"a", "b", "a", "a", "c", "b", "a", "c", "c", "c"};

    for (size_t i = 0; i < 10; i++)
        begin_as(callers[i]);
    for (uint32_t max = 0; max < 6; max++) {
        struct loaded loaded = load(0, max);
        size_t expected = 0;

        for (int64_t id = 1; id <= 10; id++) {
            unsigned later = 0;

            for (int64_t j = id; j < 10; j++)
                later += strcmp(callers[j], callers[id - 1]) == 0;
            if (later >= max)
                continue;
            cr_assert_lt(expected, loaded.count);
            cr_assert_eq(loaded.rows[expected].call_id, id, "max %u", max);
            cr_assert_str_eq(loaded.principals[expected], callers[id - 1]);
            expected++;
        }
        cr_assert_eq(loaded.count, expected);
    }
}

Test(audit_replay, many_principals)
{
    char name[8];

    for (int i = 0; i < 60; i++) {
        (void)snprintf(name, sizeof name, "p%d", i);
        begin_as(name);
    }
    cr_assert_eq(load(0, 1).count, 60);
}

Test(audit_replay, since)
{
    for (int i = 0; i < 6; i++)
        begin_as("a");
    audit_exec(&kit, "UPDATE groups SET time_us = 1000 + id;");
    audit_kit_open(&kit);
    cr_assert_eq(load(1004, 10).count, 3);
    cr_assert_eq(load(1007, 10).count, 0);
    cr_assert_eq(load(1004, 2).count, 2);
    audit_exec(&kit, "UPDATE groups SET time_us = 900 + id WHERE id > 4;"
                     "INSERT INTO clock_steps VALUES (5);");
    audit_kit_open(&kit);
    cr_assert_eq(load(1004, 10).count, 1, "what was before a step of the clock is not looked at");
    cr_assert_eq(load(906, 10).count, 5);
}

Test(audit_replay, settled_outcomes)
{
    static const enum spb_outcome outcomes[] = {SPB_OUTCOME_DONE, SPB_OUTCOME_DONE,
                                                SPB_OUTCOME_UNKNOWN};
    struct spb_pending_group *group = NULL;

    spb_audit_abandon(audit_begin(&kit, 7, "img", 2, 3));
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    AUDIT_OK(spb_audit_settle(kit.audit, group, outcomes, &kit.err));
    spb_pending_group_free(group);
    struct loaded loaded = load(0, 10);
    cr_assert_eq(loaded.count, 2);
    cr_assert_eq(loaded.rows[0].outcome, SPB_OUTCOME_DONE);
    cr_assert_eq(loaded.rows[1].outcome, SPB_OUTCOME_UNKNOWN);
}

/* ---- Responses ---------------------------------------------------------------------------- */

static void check_response(int64_t id, const char *expected)
{
    uint8_t *payload = NULL;
    size_t size = 99;

    AUDIT_OK(spb_audit_response(kit.audit, id, &payload, &size, &kit.err));
    cr_assert_eq(size, strlen(expected));
    cr_assert(size == 0 || memcmp(payload, expected, size) == 0);
    free(payload);
}

Test(audit_replay, responses)
{
    uint8_t *payload = (uint8_t *)&kit;
    size_t size = 99;

    struct spb_open_group *open = audit_begin(&kit, 7, "img", 1, 3);
    check_response(1, "reply");
    spb_audit_end(open, SPB_OUTCOME_DONE, (const uint8_t *)"known only now", 14);
    check_response(1, "known only now");
    check_response(2, "reply");
    AUDIT_FAILS(SPB_NOT_FOUND, spb_audit_response(kit.audit, 4, &payload, &size, &kit.err));
    cr_assert_eq(payload, (uint8_t *)&kit);
    cr_assert_eq(size, 99);
    spb_audit_end(audit_begin(&kit, 7, "img", 1, 1), SPB_OUTCOME_DONE, (const uint8_t *)"", 0);
    check_response(4, "");
    audit_kit_reopen(&kit);
    check_response(1, "known only now");
}
