/* Listing: every filter, pages, bounded work, a clock that was set back, beside commits. */
#include <criterion/criterion.h>
#include <pthread.h>

#include "unit/audit_kit.h"

#define SEEN_MAX 512

static struct audit_kit kit;

/* What a listing handed over. */
static struct seen {
    int64_t ids[SEEN_MAX], times_us[SEEN_MAX];
    size_t count, stop_at;
    struct spb_audit_record last;
    char texts[8][64];
} seen;

static bool see(void *user, const struct spb_audit_record *record)
{
    struct seen *into = user;

    cr_assert_lt(into->count, SEEN_MAX);
    into->ids[into->count] = record->id;
    into->times_us[into->count++] = record->time_us;
    into->last = *record;
    (void)snprintf(into->texts[0], sizeof into->texts[0], "%s", record->principal);
    (void)snprintf(into->texts[1], sizeof into->texts[1], "%s", record->image);
    (void)snprintf(into->texts[2], sizeof into->texts[2], "%s", record->method);
    (void)snprintf(into->texts[3], sizeof into->texts[3], "%s", record->object);
    (void)snprintf(into->texts[4], sizeof into->texts[4], "%s", record->before);
    (void)snprintf(into->texts[5], sizeof into->texts[5], "%s", record->after);
    return into->count != into->stop_at;
}

/* Lists, and returns how many there were. */
static size_t list(const struct spb_audit_filter *filter)
{
    seen.count = 0;
    AUDIT_OK(spb_audit_list(kit.audit, filter, see, &seen, &kit.err));
    for (size_t i = 1; i < seen.count; i++)
        cr_assert_lt(seen.ids[i], seen.ids[i - 1], "not the newest first");
    return seen.count;
}

static const struct spb_audit_filter all = {.tenant = -1};

/* Three groups of 4, 1 and 3 calls: ids 1 to 4, 5, 6 to 8; all done, and written down. */
static void fill(void)
{
    struct spb_intent intents[4];
    struct spb_open_group *open;
    struct spb_intent_group group = audit_group(intents, 4, 7, "img", 1);

    intents[1].principal = "bob";
    intents[2].method = "Params.Delete";
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
    group = audit_group(intents, 1, 8, "img", 1);
    group.tenant = 2;
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    spb_audit_end(open, SPB_OUTCOME_NOT_DONE, NULL, 0);
    group = audit_group(intents, 3, 9, "other", 12);
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    spb_audit_end(open, SPB_OUTCOME_COMPLETED, NULL, 0);
}

static void set_up(void)
{
    seen = (struct seen){.stop_at = 0};
    audit_kit_init(&kit);
    fill();
}

static void tear_down(void)
{
    audit_kit_done(&kit);
}

TestSuite(audit_list, .init = set_up, .fini = tear_down);

Test(audit_list, everything_is_told)
{
    struct spb_audit_filter filter = all;

    filter.image = "other";
    filter.limit = 1;
    cr_assert_eq(list(&filter), 1);
    cr_assert_eq(seen.last.id, 8);
    cr_assert_eq(seen.last.tenant, AUDIT_TENANT);
    cr_assert_eq(seen.last.group, 12);
    cr_assert(seen.last.has_request_id);
    cr_assert_eq(seen.last.request_id[0], 0xa2);
    cr_assert_eq(seen.last.outcome, SPB_OUTCOME_COMPLETED);
    cr_assert_gt(seen.last.time_us, INT64_C(1600000000) * 1000000);
    cr_assert_str_eq(seen.texts[0], "alice");
    cr_assert_str_eq(seen.texts[1], "other");
    cr_assert_str_eq(seen.texts[2], "Params.Put");
    cr_assert_str_eq(seen.texts[3], "param 42");
    cr_assert_str_eq(seen.texts[4], "generation 1: aa");
    cr_assert_str_eq(seen.texts[5], "generation 2: bb");
    filter.before_id = 8;
    cr_assert_eq(list(&filter), 1);
    cr_assert_not(seen.last.has_request_id);
}

Test(audit_list, filters)
{
    struct {
        struct spb_audit_filter filter;
        size_t expected;
    } cases[] = {
        {{.tenant = -1}, 8},
        {{.tenant = 2}, 1},
        {{.tenant = AUDIT_TENANT}, 7},
        {{.tenant = 9}, 0},
        {{.tenant = -1, .image = "img"}, 5},
        {{.tenant = 2, .image = "img"}, 1},
        {{.tenant = 2, .image = "other"}, 0},
        {{.tenant = -1, .principal = "bob"}, 1},
        {{.tenant = -1, .principal = "alice"}, 7},
        {{.tenant = -1, .principal = "ali"}, 0},
        {{.tenant = -1, .method = "Params.Delete"}, 1},
        {{.tenant = -1, .method = "Params.Delete", .image = "other"}, 0},
        {{.tenant = -1, .outcome = SPB_OUTCOME_NOT_DONE, .has_outcome = true}, 1},
        {{.tenant = -1, .outcome = SPB_OUTCOME_PENDING, .has_outcome = true}, 0},
        {{.tenant = -1, .before_id = 1}, 0},
        {{.tenant = -1, .before_id = 3}, 2},
        {{.tenant = -1, .before_id = 6}, 5},
        {{.tenant = -1, .before_id = INT64_MAX}, 8},
        {{.tenant = -1, .limit = 3}, 3},
        {{.tenant = -1, .limit = 8}, 8},
        {{.tenant = -1, .since_us = INT64_MAX}, 0},
        {{.tenant = -1, .until_us = 1}, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_assert_eq(list(&cases[i].filter), cases[i].expected, "case %zu found %zu", i,
                     seen.count);
}

Test(audit_list, taker_ends_it)
{
    seen.stop_at = 2;
    cr_assert_eq(list(&all), 2);
}

Test(audit_list, empty_one)
{
    audit_exec(&kit, "DELETE FROM groups; DELETE FROM calls;");
    audit_kit_open(&kit);
    cr_assert_eq(list(&all), 0);
}

/* Every size of page and bound of work yields the same records, once each. */
Test(audit_list, pages_miss_nothing)
{
    for (uint32_t limit = 1; limit <= 9; limit++) {
        for (uint64_t scan = 1; scan <= 12; scan++) {
            int64_t resume = INT64_MAX, next = 8;
            struct spb_audit_filter filter = {
                .tenant = -1, .limit = limit, .scan_max = scan, .resume_id = &resume};

            while (resume != 0) {
                filter.before_id = resume;
                (void)list(&filter);
                cr_assert_leq(seen.count, limit);
                for (size_t i = 0; i < seen.count; i++)
                    cr_assert_eq(seen.ids[i], next--, "limit %u, scan %lu", limit,
                                 (unsigned long)scan);
            }
            cr_assert_eq(next, 0);
        }
    }
}

Test(audit_list, filter_that_nothing_passes_ends_in_pages)
{
    int64_t resume = 0, before = INT64_MAX;
    struct spb_audit_filter filter = {
        .tenant = -1, .principal = "nobody", .scan_max = 1, .resume_id = &resume};
    size_t pages = 0;

    do {
        filter.before_id = resume;
        cr_assert_eq(list(&filter), 0);
        cr_assert_lt(resume, before);
        before = resume;
        pages++;
    } while (resume != 0);
    cr_assert_geq(pages, 3);
}

Test(audit_list, outcomes_of_one_group_may_differ)
{
    static const enum spb_outcome outcomes[] = {SPB_OUTCOME_DONE, SPB_OUTCOME_UNKNOWN,
                                                SPB_OUTCOME_DONE};
    struct spb_audit_filter filter = {
        .tenant = -1, .outcome = SPB_OUTCOME_UNKNOWN, .has_outcome = true};
    struct spb_pending_group *group = NULL;

    spb_audit_abandon(audit_begin(&kit, 7, "img", 2, 3));
    filter.outcome = SPB_OUTCOME_PENDING;
    cr_assert_eq(list(&filter), 3);
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    AUDIT_OK(spb_audit_settle(kit.audit, group, outcomes, &kit.err));
    spb_pending_group_free(group);
    cr_assert_eq(list(&filter), 0);
    filter.outcome = SPB_OUTCOME_UNKNOWN;
    cr_assert_eq(list(&filter), 1);
    cr_assert_eq(seen.last.id, 10);
}

/* ---- Time --------------------------------------------------------------------------------- */

/* 40 groups of one call, at 1000 + number; the clock goes back to 1005 at the 21st. */
static void fill_with_steps(void)
{
    audit_exec(&kit, "DELETE FROM groups; DELETE FROM calls;"
                     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40)"
                     " INSERT INTO groups SELECT i, iif(i < 21, 1000 + i, 984 + i), 0, 7, 1, i,"
                     " NULL, i, 1, 1, NULL FROM n;"
                     "INSERT INTO calls SELECT id, id, 1, 1, NULL, 0, 0, 0, NULL, '', '', '', NULL"
                     " FROM groups;"
                     "INSERT INTO clock_steps VALUES (21);");
    audit_kit_open(&kit);
}

Test(audit_list, times_with_a_step_back)
{
    fill_with_steps();
    for (int64_t since = 995; since < 1030; since++) {
        for (int64_t until = since; until < 1030; until++) {
            struct spb_audit_filter filter = {.tenant = -1, .since_us = since, .until_us = until};
            size_t expected = 0;

            for (int64_t i = 1; i <= 40; i++) {
                int64_t time_us = i < 21 ? 1000 + i : 984 + i;

                expected += time_us >= since && time_us < until;
            }
            cr_assert_eq(list(&filter), expected, "from %ld to %ld: %zu", (long)since, (long)until,
                         seen.count);
            for (size_t i = 0; i < seen.count; i++)
                cr_assert(seen.times_us[i] >= since && seen.times_us[i] < until);
        }
    }
}

Test(audit_list, times_with_holes)
{
    struct spb_audit_filter filter = {.tenant = -1, .since_us = 1003, .until_us = 1012};

    fill_with_steps();
    audit_exec(&kit, "DELETE FROM groups WHERE id IN (1, 2, 5, 6, 7, 12, 22, 25);");
    audit_kit_open(&kit);
    /* Of the groups 3 to 11 and 21 to 27. */
    cr_assert_eq(list(&filter), 6 + 5);
}

Test(audit_list, clock_set_back_is_noted)
{
    struct spb_audit_filter filter = {.tenant = -1};

    audit_exec(&kit, "UPDATE groups SET time_us = time_us + 3600000000;");
    audit_kit_open(&kit);
    spb_audit_end(audit_begin(&kit, 7, "img", 2, 1), SPB_OUTCOME_DONE, NULL, 0);
    spb_audit_end(audit_begin(&kit, 7, "img", 3, 1), SPB_OUTCOME_DONE, NULL, 0);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM clock_steps"), 1);
    cr_assert_eq(audit_number(&kit, "SELECT first_group FROM clock_steps"), 4);
    cr_assert_eq(list(&filter), 10);
    filter.since_us = seen.times_us[2]; /* of those before the step, an hour on */
    cr_assert_eq(list(&filter), 3);
    filter.until_us = filter.since_us;
    filter.since_us = 0;
    cr_assert_eq(list(&filter), 2 + 5);
}

Test(audit_list, clock_of_a_moment_ago_is_no_step)
{
    audit_exec(&kit, "UPDATE groups SET time_us = time_us + 900000;");
    audit_kit_open(&kit);
    spb_audit_end(audit_begin(&kit, 7, "img", 2, 1), SPB_OUTCOME_DONE, NULL, 0);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM clock_steps"), 0);
    cr_assert_eq(audit_number(&kit, "SELECT max(time_us) = (SELECT time_us FROM groups WHERE"
                                    " id = 4) FROM groups"),
                 1);
}

/* ---- Beside commits ----------------------------------------------------------------------- */

/* A listing that is held up by who takes it, while groups go on. */
static bool hold_up(void *user, const struct spb_audit_record *record)
{
    (void)record;
    spb_audit_end(audit_begin(user, 7, "img", 9, 1), SPB_OUTCOME_DONE, NULL, 0);
    return true;
}

Test(audit_list, commits_go_on_meanwhile)
{
    AUDIT_OK(spb_audit_list(kit.audit, &all, hold_up, &kit, &kit.err));
    cr_assert_eq(list(&all), 16, "the listing did not see one state, or held up the groups");
}
