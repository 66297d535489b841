/* Intents and their outcomes, open groups and how they are settled, rows of images. */
#include <criterion/criterion.h>

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

TestSuite(audit, .init = set_up, .fini = tear_down);

Test(audit, new_one_is_empty)
{
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM audit"), 0);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM images"), 0);
    cr_assert_eq(audit_number(&kit, "PRAGMA user_version"), 4);
}

Test(audit, begun_is_durable_and_pending)
{
    struct spb_open_group *open = audit_begin(&kit, 7, "img", 1, 3);

    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM audit WHERE outcome = 'pending'"), 3);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM groups WHERE changes IS NOT NULL"), 1);
    spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
    AUDIT_OK(spb_audit_flush(kit.audit, &kit.err));
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM audit WHERE outcome = 'done'"), 3);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM groups WHERE changes IS NOT NULL"), 0);
}

Test(audit, ids_rise)
{
    struct spb_intent intents[2];
    struct spb_intent_group group = audit_group(intents, 2, 7, "img", 1);
    struct spb_open_group *open;

    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    cr_assert_eq(intents[0].id, 1);
    cr_assert_eq(intents[1].id, 2);
    spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
    audit_kit_reopen(&kit);
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    cr_assert_eq(intents[0].id, 3);
    spb_audit_end(open, SPB_OUTCOME_NOT_DONE, NULL, 0);
}

Test(audit, closing_writes_outcomes)
{
    spb_audit_end(audit_begin(&kit, 7, "img", 1, 1), SPB_OUTCOME_COMPLETED, NULL, 0);
    audit_kit_reopen(&kit);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM audit WHERE outcome = 'completed'"), 1);
}

Test(audit, outcome_leaves_by_itself)
{
    spb_audit_end(audit_begin(&kit, 7, "img", 1, 1), SPB_OUTCOME_DONE, NULL, 0);
    while (audit_number(&kit, "SELECT count(*) FROM audit WHERE outcome = 'done'") != 1) {
        /* a failure shows as the test's timeout */
    }
}

Test(audit, nothing_open)
{
    struct spb_pending_group *group = (struct spb_pending_group *)&kit;

    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    cr_assert_null(group);
    struct spb_open_group *open = audit_begin(&kit, 7, "img", 1, 1);
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    cr_assert_null(group, "one that is being worked on was handed out");
    spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    cr_assert_null(group);
}

static void check_pending(const struct spb_pending_group *group)
{
    cr_assert_not_null(group);
    cr_assert_eq(group->kind, SPB_GROUP_CHANGES);
    cr_assert_eq(group->image_id, 7);
    cr_assert_eq(group->tenant, AUDIT_TENANT);
    cr_assert_str_eq(group->image_name, "img");
    cr_assert_eq(group->number, 5);
    cr_assert_eq(group->changes_size, strlen(AUDIT_CHANGES));
    cr_assert_eq(memcmp(group->changes, AUDIT_CHANGES, group->changes_size), 0);
    cr_assert_eq(group->count, 3);
    for (size_t i = 0; i < 3; i++) {
        const struct spb_pending_call *call = &group->calls[i];

        cr_assert_eq(call->id, (int64_t)i + 1);
        cr_assert_eq(call->principal_tenant, AUDIT_TENANT);
        cr_assert_str_eq(call->principal, "alice");
        cr_assert_str_eq(call->method, "Params.Put");
        cr_assert_eq(call->has_request_id, i % 2 == 0);
        cr_assert_eq(call->request_id[0], call->has_request_id ? 0xa0 + i : 0);
        cr_assert_eq(call->payload_crc, 0xdeadbeef);
        cr_assert_eq(call->first_change, i);
        cr_assert_eq(call->change_count, 1);
    }
}

Test(audit, abandoned_is_found_and_settled)
{
    static const enum spb_outcome outcomes[] = {SPB_OUTCOME_DONE, SPB_OUTCOME_UNKNOWN,
                                                SPB_OUTCOME_NOT_DONE};
    struct spb_pending_group *group = NULL, *again = NULL;

    spb_audit_abandon(audit_begin(&kit, 7, "img", 5, 3));
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    check_pending(group);
    AUDIT_OK(spb_audit_settle(kit.audit, group, outcomes, &kit.err));
    cr_assert_eq(audit_number(&kit, "SELECT outcome = 'done' FROM audit WHERE id = 1"), 1);
    cr_assert_eq(audit_number(&kit, "SELECT outcome = 'unknown' FROM audit WHERE id = 2"), 1);
    cr_assert_eq(audit_number(&kit, "SELECT outcome = 'not done' FROM audit WHERE id = 3"), 1);
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &again, &kit.err));
    cr_assert_null(again);
    AUDIT_FAILS(SPB_NOT_FOUND, spb_audit_settle(kit.audit, group, outcomes, &kit.err));
    spb_pending_group_free(group);
}

Test(audit, left_open_by_a_former_process)
{
    static const enum spb_outcome outcomes[] = {SPB_OUTCOME_COMPLETED, SPB_OUTCOME_COMPLETED,
                                                SPB_OUTCOME_COMPLETED};
    struct spb_pending_group *group = NULL;

    spb_audit_abandon(audit_begin(&kit, 7, "img", 5, 3));
    audit_kit_reopen(&kit);
    AUDIT_OK(spb_audit_find_open(kit.audit, 8, &group, &kit.err));
    cr_assert_null(group);
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    check_pending(group);
    AUDIT_OK(spb_audit_settle(kit.audit, group, outcomes, &kit.err));
    spb_pending_group_free(group);
    audit_kit_reopen(&kit);
    AUDIT_OK(spb_audit_find_open(kit.audit, 7, &group, &kit.err));
    cr_assert_null(group);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM audit WHERE outcome = 'completed'"), 3);
}

Test(audit, about_no_image_the_oldest_first)
{
    static const enum spb_outcome outcomes[] = {SPB_OUTCOME_NOT_DONE};
    struct spb_pending_group *group = NULL;
    int64_t last = 0;

    for (int i = 0; i < 3; i++)
        spb_audit_abandon(audit_begin(&kit, 0, "", 0, 1));
    for (int i = 0; i < 3; i++) {
        AUDIT_OK(spb_audit_find_open(kit.audit, 0, &group, &kit.err));
        cr_assert_not_null(group);
        cr_assert_gt(group->id, last);
        last = group->id;
        AUDIT_OK(spb_audit_settle(kit.audit, group, outcomes, &kit.err));
        spb_pending_group_free(group);
    }
    AUDIT_OK(spb_audit_find_open(kit.audit, 0, &group, &kit.err));
    cr_assert_null(group);
}

Test(audit, bad_intents_are_refused)
{
    char long_name[128];
    struct spb_intent intents[1];
    struct spb_open_group *open = NULL;
    struct spb_intent_group group = audit_group(intents, 1, 7, "img", 1);

    memset(long_name, 'x', sizeof long_name);
    long_name[127] = '\0';
    group.count = 0;
    AUDIT_FAILS(SPB_INVALID, spb_audit_begin(kit.audit, &group, &open, &kit.err));
    group.count = 1;
    group.image_name = long_name;
    AUDIT_FAILS(SPB_INVALID, spb_audit_begin(kit.audit, &group, &open, &kit.err));
    group.image_name = "img";
    intents[0].principal = long_name;
    AUDIT_FAILS(SPB_INVALID, spb_audit_begin(kit.audit, &group, &open, &kit.err));
    intents[0].principal = "alice";
    intents[0].method = NULL;
    AUDIT_FAILS(SPB_INVALID, spb_audit_begin(kit.audit, &group, &open, &kit.err));
    intents[0].method = "M";
    intents[0].before = NULL;
    AUDIT_FAILS(SPB_INVALID, spb_audit_begin(kit.audit, &group, &open, &kit.err));
    cr_assert_null(open);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM audit"), 0);
}

static void count_row(void *user, const struct spb_image_row *row)
{
    (void)row;
    ++*(int *)user;
}

static void keep_row(void *user, const struct spb_image_row *row)
{
    *(struct spb_image_row *)user = *row;
}

/* Member by member: the structs have padding. */
static void same_row(const struct spb_image_row *found, const struct spb_image_row *row)
{
    cr_assert_eq(found->id, row->id);
    cr_assert_eq(found->tenant, row->tenant);
    cr_assert_str_eq(found->name, row->name);
    cr_assert_eq(memcmp(found->uuid, row->uuid, sizeof row->uuid), 0);
    cr_assert_eq(found->sector_size, row->sector_size);
    cr_assert_eq(found->total_blocks, row->total_blocks);
    cr_assert_eq(memcmp(found->incarnation, row->incarnation, sizeof row->incarnation), 0);
    cr_assert_eq(found->event_pointer, row->event_pointer);
    cr_assert_eq(found->group_number, row->group_number);
}

Test(audit, rows_of_images)
{
    struct spb_image_row row = {.tenant = 3,
                                .name = "a",
                                .uuid = {1, 2, 3},
                                .sector_size = 512,
                                .total_blocks = UINT32_MAX,
                                .incarnation = {9},
                                .event_pointer = UINT32_MAX};
    struct spb_image_row found = {.id = 0}, other = row;
    bool is_there = false;
    int count = 0;

    AUDIT_OK(spb_rows_put_image(kit.audit, &row, &kit.err));
    cr_assert_eq(row.id, 1);
    AUDIT_FAILS(SPB_EXISTS, spb_rows_put_image(kit.audit, &other, &kit.err));
    cr_assert_eq(other.id, 0);
    AUDIT_OK(spb_rows_images(kit.audit, keep_row, &found, &kit.err));
    same_row(&found, &row);
    found = (struct spb_image_row){.id = 0};
    AUDIT_OK(spb_rows_find_image(kit.audit, row.tenant, row.name, &found, &is_there, &kit.err));
    cr_assert(is_there);
    same_row(&found, &row);
    AUDIT_OK(spb_rows_find_image(kit.audit, row.tenant + 1, row.name, &found, &is_there, &kit.err));
    cr_assert(!is_there && found.id == 0, "found in another tenant");
    AUDIT_OK(spb_rows_find_image(kit.audit, row.tenant, "b", &found, &is_there, &kit.err));
    cr_assert(!is_there && found.id == 0, "found by another name");
    row.name[0] = 'b';
    AUDIT_OK(spb_rows_put_image(kit.audit, &row, &kit.err));
    AUDIT_OK(spb_rows_put_image(kit.audit, &other, &kit.err));
    cr_assert_eq(other.id, 2);
    AUDIT_FAILS(SPB_EXISTS,
                spb_rows_put_image(kit.audit,
                                   &(struct spb_image_row){.id = 2, .tenant = 3, .name = "b"},
                                   &kit.err));
    AUDIT_OK(spb_rows_remove_image(kit.audit, 2, &kit.err));
    AUDIT_FAILS(SPB_NOT_FOUND, spb_rows_put_image(kit.audit, &other, &kit.err));
    other.id = 0;
    AUDIT_OK(spb_rows_put_image(kit.audit, &other, &kit.err));
    cr_assert_eq(other.id, 3, "a number was given twice");
    AUDIT_OK(spb_rows_images(kit.audit, count_row, &count, &kit.err));
    cr_assert_eq(count, 2);
    audit_kit_reopen(&kit);
    AUDIT_OK(spb_rows_images(kit.audit, count_row, &count, &kit.err));
    cr_assert_eq(count, 4);
}

Test(audit, image_without_name)
{
    struct spb_image_row row = {.tenant = 3};

    AUDIT_FAILS(SPB_INVALID, spb_rows_put_image(kit.audit, &row, &kit.err));
    memset(row.name, 'x', sizeof row.name);
    AUDIT_FAILS(SPB_INVALID, spb_rows_put_image(kit.audit, &row, &kit.err));
}
