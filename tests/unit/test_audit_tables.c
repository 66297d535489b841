/* Rows of uploads and artifacts, and what rows of images learn from groups. */
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

TestSuite(audit_tables, .init = set_up, .fini = tear_down);

/* ---- Images ------------------------------------------------------------------------------- */

static void keep_image(void *user, const struct spb_image_row *row)
{
    *(struct spb_image_row *)user = *row;
}

static struct spb_image_row image_row(void)
{
    struct spb_image_row row = {.id = 0};

    AUDIT_OK(spb_rows_images(kit.audit, keep_image, &row, &kit.err));
    return row;
}

static void run_group(uint64_t number, uint32_t pointer, enum spb_outcome outcome)
{
    struct spb_intent intents[1];
    struct spb_intent_group group = audit_group(intents, 1, 1, "img", number);
    struct spb_open_group *open;

    group.has_event_pointer = pointer > 0;
    group.event_pointer = pointer;
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    if (outcome == SPB_OUTCOME_PENDING)
        spb_audit_abandon(open);
    else
        spb_audit_end(open, outcome, NULL, 0);
    AUDIT_OK(spb_audit_flush(kit.audit, &kit.err));
}

static void put_image(uint32_t pointer)
{
    struct spb_image_row row = {.id = image_row().id, .tenant = 1, .name = "img"};

    row.event_pointer = pointer;
    AUDIT_OK(spb_rows_put_image(kit.audit, &row, &kit.err));
}

Test(audit_tables, image_counts_groups)
{
    put_image(5);
    run_group(1, 0, SPB_OUTCOME_DONE);
    run_group(2, 9, SPB_OUTCOME_DONE);
    run_group(3, 100, SPB_OUTCOME_NOT_DONE);
    run_group(4, 7, SPB_OUTCOME_COMPLETED);
    cr_assert_eq(image_row().group_number, 4);
    cr_assert_eq(image_row().event_pointer, 9);
    cr_assert_eq(audit_number(&kit, "SELECT group_number FROM images"), 4);
    cr_assert_eq(audit_number(&kit, "SELECT event_pointer FROM images"), 9);
    audit_kit_reopen(&kit);
    cr_assert_eq(image_row().group_number, 4);
    cr_assert_eq(image_row().event_pointer, 9);
}

Test(audit_tables, image_put_says_last)
{
    put_image(5);
    run_group(1, 100, SPB_OUTCOME_DONE);
    cr_assert_eq(image_row().event_pointer, 100);
    put_image(3);
    cr_assert_eq(image_row().event_pointer, 3, "a group of before its row was put counts");
    cr_assert_eq(image_row().group_number, 1);
    run_group(2, 4, SPB_OUTCOME_DONE);
    cr_assert_eq(image_row().event_pointer, 4);
}

static void settle(enum spb_outcome outcome)
{
    struct spb_pending_group *group = NULL;

    AUDIT_OK(spb_audit_find_open(kit.audit, 1, &group, &kit.err));
    AUDIT_OK(spb_audit_settle(kit.audit, group, &outcome, &kit.err));
    spb_pending_group_free(group);
}

/* A mark was set in between, as after so many commits. */
static void move_mark(void)
{
    audit_exec(&kit, "UPDATE state SET mark = 1 + (SELECT max(id) FROM groups);"
                     "INSERT INTO open_groups SELECT id FROM groups WHERE outcome = 0;");
    audit_kit_open(&kit);
}

Test(audit_tables, settled_group_behind_the_mark)
{
    put_image(5);
    run_group(1, 50, SPB_OUTCOME_PENDING);
    move_mark();
    cr_assert_eq(image_row().event_pointer, 5);
    settle(SPB_OUTCOME_COMPLETED);
    cr_assert_eq(image_row().event_pointer, 50);
}

Test(audit_tables, settled_as_not_done)
{
    put_image(5);
    run_group(1, 50, SPB_OUTCOME_PENDING);
    move_mark();
    settle(SPB_OUTCOME_UNKNOWN);
    cr_assert_eq(image_row().event_pointer, 5);
}

/* So many commits that the WAL is copied several times over. */
Test(audit_tables, marks_move_by_themselves)
{
    kit.options.wal_bytes = 1;
    audit_kit_reopen(&kit);
    put_image(5);
    run_group(1, 6, SPB_OUTCOME_PENDING);
    for (uint64_t i = 2; i <= 300; i++)
        run_group(i, (uint32_t)i + 10, SPB_OUTCOME_DONE);
    cr_assert_gt(audit_number(&kit, "SELECT mark FROM state"), 100);
    cr_assert_eq(audit_number(&kit, "SELECT group_id FROM open_groups"), 1);
    cr_assert_eq(image_row().group_number, 300);
    cr_assert_eq(image_row().event_pointer, 310);
    audit_kit_reopen(&kit);
    cr_assert_eq(image_row().group_number, 300);
    cr_assert_eq(image_row().event_pointer, 310);
    settle(SPB_OUTCOME_DONE);
    cr_assert_eq(image_row().event_pointer, 310);
}

/* ---- Uploads ------------------------------------------------------------------------------ */

static struct spb_upload_row upload(uint8_t first)
{
    return (struct spb_upload_row){.id = {first, 2, 3},
                                   .kind = SPB_UPLOAD_PRODUCT,
                                   .owner_kind = UINT32_MAX,
                                   .owner_tenant = UINT16_MAX,
                                   .owner = "alice",
                                   .tenant = 2,
                                   .image = "img",
                                   .image_id = INT64_MAX,
                                   .name = "pro\0duct",
                                   .name_len = 8,
                                   .product_class = UINT16_MAX,
                                   .priority = UINT8_MAX,
                                   .replace = true,
                                   .new_identity = false,
                                   .sector_size = 65536,
                                   .sha256 = {0xff, 1},
                                   .size = INT64_MAX,
                                   .block_offset = UINT32_MAX,
                                   .block_count = 7,
                                   .durable_offset = UINT64_C(1) << 40,
                                   .durable_crc = UINT32_MAX,
                                   .created_us = first,
                                   .used_us = INT64_C(1790000000123456)};
}

static struct spb_upload_row uploads[8];
static size_t upload_count;

static void take_upload(void *user, const struct spb_upload_row *row)
{
    (void)user;
    uploads[upload_count++] = *row;
}

static void list_uploads(void)
{
    upload_count = 0;
    AUDIT_OK(spb_rows_uploads(kit.audit, take_upload, NULL, &kit.err));
}

/* Field by field: between them there is padding. */
static void check_upload(const struct spb_upload_row *a, const struct spb_upload_row *b)
{
    cr_assert_eq(memcmp(a->id, b->id, sizeof a->id), 0);
    cr_assert_eq(a->kind, b->kind);
    cr_assert_eq(a->owner_kind, b->owner_kind);
    cr_assert_eq(a->owner_tenant, b->owner_tenant);
    cr_assert_str_eq(a->owner, b->owner);
    cr_assert_eq(a->tenant, b->tenant);
    cr_assert_str_eq(a->image, b->image);
    cr_assert_eq(a->image_id, b->image_id);
    cr_assert_eq(memcmp(a->name, b->name, sizeof a->name), 0);
    cr_assert_eq(a->name_len, b->name_len);
    cr_assert_eq(a->product_class, b->product_class);
    cr_assert_eq(a->priority, b->priority);
    cr_assert_eq(a->replace, b->replace);
    cr_assert_eq(a->new_identity, b->new_identity);
    cr_assert_eq(a->sector_size, b->sector_size);
    cr_assert_eq(memcmp(a->sha256, b->sha256, sizeof a->sha256), 0);
    cr_assert_eq(a->size, b->size);
    cr_assert_eq(a->block_offset, b->block_offset);
    cr_assert_eq(a->block_count, b->block_count);
    cr_assert_eq(a->durable_offset, b->durable_offset);
    cr_assert_eq(a->durable_crc, b->durable_crc);
    cr_assert_eq(a->created_us, b->created_us);
    cr_assert_eq(a->used_us, b->used_us);
}

Test(audit_tables, uploads)
{
    struct spb_upload_row first = upload(1), second = upload(9), found;

    list_uploads();
    cr_assert_eq(upload_count, 0);
    second.image[0] = '\0';
    second.name_len = 0;
    memset(second.name, 0, sizeof second.name);
    AUDIT_OK(spb_rows_put_upload(kit.audit, &first, &kit.err));
    AUDIT_OK(spb_rows_put_upload(kit.audit, &second, &kit.err));
    first.durable_offset++;
    first.replace = false;
    first.new_identity = true;
    AUDIT_OK(spb_rows_put_upload(kit.audit, &first, &kit.err));
    audit_kit_reopen(&kit);
    list_uploads();
    cr_assert_eq(upload_count, 2);
    found = uploads[0];
    check_upload(&found, &first);
    check_upload(&uploads[1], &second);
    AUDIT_OK(spb_rows_remove_upload(kit.audit, first.id, &kit.err));
    AUDIT_OK(spb_rows_remove_upload(kit.audit, first.id, &kit.err));
    list_uploads();
    cr_assert_eq(upload_count, 1);
    check_upload(&uploads[0], &second);
}

/* A call that publishes the upload, or begins to. */
static struct spb_open_group *publish(const struct spb_upload_row *row)
{
    struct spb_intent intents[3];
    struct spb_intent_group group = audit_group(intents, 3, 0, "", 0);
    struct spb_open_group *open = NULL;

    intents[1].upload = row->id;
    AUDIT_OK(spb_audit_begin(kit.audit, &group, &open, &kit.err));
    return open;
}

static bool is_published(const struct spb_upload_row *row)
{
    bool published;

    AUDIT_OK(spb_rows_upload_is_published(kit.audit, row->id, &published, &kit.err));
    return published;
}

Test(audit_tables, published_uploads)
{
    struct spb_upload_row first = upload(1), second = upload(9);

    cr_assert_not(is_published(&first), "it has no row");
    AUDIT_OK(spb_rows_put_upload(kit.audit, &first, &kit.err));
    AUDIT_OK(spb_rows_put_upload(kit.audit, &second, &kit.err));
    cr_assert_not(is_published(&first));
    spb_audit_end(publish(&first), SPB_OUTCOME_NOT_DONE, NULL, 0);
    AUDIT_OK(spb_audit_flush(kit.audit, &kit.err));
    cr_assert_not(is_published(&first));
    struct spb_open_group *open = publish(&first);
    cr_assert_not(is_published(&first));
    AUDIT_OK(spb_rows_put_upload(kit.audit, &first, &kit.err));
    spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
    audit_kit_reopen(&kit);
    cr_assert(is_published(&first), "a write of its row forgot the call");
    cr_assert_not(is_published(&second));
}

/* What a call became of one by one counts, where that differs from its group's. */
Test(audit_tables, upload_published_by_a_settled_call)
{
    static const enum spb_outcome outcomes[] = {SPB_OUTCOME_NOT_DONE, SPB_OUTCOME_COMPLETED,
                                                SPB_OUTCOME_NOT_DONE};
    struct spb_upload_row row = upload(1);
    struct spb_pending_group *group = NULL;

    AUDIT_OK(spb_rows_put_upload(kit.audit, &row, &kit.err));
    spb_audit_abandon(publish(&row));
    AUDIT_OK(spb_audit_find_open(kit.audit, 0, &group, &kit.err));
    AUDIT_OK(spb_audit_settle(kit.audit, group, outcomes, &kit.err));
    spb_pending_group_free(group);
    cr_assert(is_published(&row));
}

Test(audit_tables, bad_upload)
{
    struct spb_upload_row row = upload(1);

    row.name_len = 65;
    AUDIT_FAILS(SPB_INVALID, spb_rows_put_upload(kit.audit, &row, &kit.err));
    row = upload(1);
    memset(row.owner, 'x', sizeof row.owner);
    AUDIT_FAILS(SPB_INVALID, spb_rows_put_upload(kit.audit, &row, &kit.err));
    row = upload(1);
    memset(row.image, 'x', sizeof row.image);
    AUDIT_FAILS(SPB_INVALID, spb_rows_put_upload(kit.audit, &row, &kit.err));
    list_uploads();
    cr_assert_eq(upload_count, 0);
}

/* ---- Artifacts ---------------------------------------------------------------------------- */

static struct spb_artifact_row artifacts[64];
static size_t artifact_count;

static void take_artifact(void *user, const struct spb_artifact_row *row)
{
    (void)user;
    artifacts[artifact_count++] = *row;
}

static size_t list_artifacts(int32_t tenant, const uint8_t *after, uint32_t limit)
{
    artifact_count = 0;
    AUDIT_OK(spb_rows_artifacts(kit.audit, tenant, after, limit, take_artifact, NULL, &kit.err));
    return artifact_count;
}

static void put_artifact(uint16_t tenant, uint8_t sha)
{
    struct spb_artifact_row row = {.tenant = tenant,
                                   .sha256 = {sha},
                                   .name = "label",
                                   .name_len = 5,
                                   .size = UINT64_C(5) << 32,
                                   .created_us = 1790000000123456};

    AUDIT_OK(spb_rows_put_artifact(kit.audit, &row, &kit.err));
}

Test(audit_tables, artifacts)
{
    struct spb_artifact_row bad = {.name_len = 65};
    uint8_t sha[32] = {5};

    AUDIT_FAILS(SPB_INVALID, spb_rows_put_artifact(kit.audit, &bad, &kit.err));
    cr_assert_eq(list_artifacts(-1, NULL, 10), 0);
    put_artifact(1, 5);
    put_artifact(2, 5);
    put_artifact(2, 5);
    cr_assert_eq(list_artifacts(-1, NULL, 10), 2);
    cr_assert_eq(list_artifacts(1, NULL, 10), 1);
    cr_assert_eq(artifacts[0].tenant, 1);
    cr_assert_eq(artifacts[0].sha256[0], 5);
    cr_assert_eq(artifacts[0].name_len, 5);
    cr_assert_eq(memcmp(artifacts[0].name, "label", 5), 0);
    cr_assert_eq(artifacts[0].size, UINT64_C(5) << 32);
    cr_assert_eq(artifacts[0].created_us, 1790000000123456);
    AUDIT_OK(spb_rows_remove_artifact(kit.audit, 1, sha, &kit.err));
    cr_assert_eq(list_artifacts(-1, NULL, 10), 1);
    cr_assert_eq(artifacts[0].tenant, 2);
    cr_assert_eq(list_artifacts(-1, NULL, 0), 0);
}

Test(audit_tables, artifacts_in_pages)
{
    for (uint8_t i = 1; i <= 12; i++)
        put_artifact((uint16_t)(1 + i % 3), (uint8_t)(i / 2 + 1));
    for (uint32_t limit = 1; limit < 14; limit++) {
        uint8_t after[32];
        size_t total = 0, found = list_artifacts(-1, NULL, limit);

        while (found > 0) {
            total += found;
            memcpy(after, artifacts[found - 1].sha256, sizeof after);
            found = list_artifacts(-1, after, limit);
        }
        cr_assert_eq(total, 12, "pages of %u found %zu", limit, total);
    }
}

/* ---- Guests ------------------------------------------------------------------------------- */

static struct spb_guest_row guests[8];
static uint8_t guest_configs[8][16];
static size_t guest_count;

static void take_guest(void *user, const struct spb_guest_row *row)
{
    (void)user;
    cr_assert_lt(guest_count, 8);
    cr_assert_leq(row->config_size, sizeof guest_configs[0]);
    memcpy(guest_configs[guest_count], row->config, row->config_size);
    guests[guest_count++] = *row;
}

static size_t list_guests(void)
{
    guest_count = 0;
    AUDIT_OK(spb_rows_guests(kit.audit, take_guest, NULL, &kit.err));
    return guest_count;
}

static struct spb_guest_row guest_row(uint16_t tenant, const char *name)
{
    struct spb_guest_row row = {
        .tenant = tenant,
        .uuid = {1, 2, 3},
        .config = (const uint8_t *)"config",
        .config_size = 6,
        .state = 1,
        .created_ms = 1790000000123,
        .version = 10,
    };

    (void)snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

Test(audit_tables, guests_are_kept)
{
    struct spb_guest_row row = guest_row(7, "b"), other = guest_row(7, "a");

    AUDIT_OK(spb_rows_add_guest(kit.audit, &row, &kit.err));
    AUDIT_OK(spb_rows_add_guest(kit.audit, &other, &kit.err));
    cr_assert_neq(row.id, other.id);
    AUDIT_FAILS(SPB_EXISTS, spb_rows_add_guest(kit.audit, &other, &kit.err));
    row.wants_run = true;
    row.state = 3;
    row.has_exit = true;
    row.exit_status = -9;
    row.run = 5;
    (void)snprintf(row.run_base, sizeof row.run_base, "/run/x");
    row.started_ms = 1790000000999;
    row.restarts = 2;
    row.quit_at_ms = 1790000001999;
    row.stop_ms = 1000;
    row.crash_loop = row.alive = true;
    row.console_bytes = UINT64_C(1) << 40;
    row.version = 11;
    (void)snprintf(row.reason, sizeof row.reason, "it's so");
    AUDIT_OK(spb_rows_set_guest(kit.audit, &row, &kit.err));
    audit_kit_reopen(&kit);
    cr_assert_eq(list_guests(), 2);
    const struct spb_guest_row *got = &guests[1];
    cr_assert_str_eq(guests[0].name, "a");
    cr_assert_not(guests[0].has_exit);
    cr_assert_eq(got->id, row.id);
    cr_assert_eq(got->tenant, 7);
    cr_assert_eq(memcmp(got->uuid, row.uuid, sizeof row.uuid), 0);
    cr_assert_eq(memcmp(guest_configs[1], "config", 6), 0);
    cr_assert(got->wants_run && got->has_exit && got->crash_loop && got->alive);
    cr_assert_eq(got->state, 3);
    cr_assert_eq(got->exit_status, -9);
    cr_assert_eq(got->run, 5);
    cr_assert_str_eq(got->run_base, "/run/x");
    cr_assert_eq(got->started_ms, row.started_ms);
    cr_assert_eq(got->quit_at_ms, row.quit_at_ms);
    cr_assert_eq(got->stop_ms, row.stop_ms);
    cr_assert_eq(got->console_bytes, row.console_bytes);
    cr_assert_eq(got->version, 11);
    cr_assert_str_eq(got->reason, "it's so");
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM guests WHERE state = 'running'"
                                    " AND wanted = 'run' AND name = 'b'"),
                 1);
}

Test(audit_tables, guests_are_not_written_over_by_older_rows)
{
    struct spb_guest_row row = guest_row(7, "a"), older;

    AUDIT_OK(spb_rows_add_guest(kit.audit, &row, &kit.err));
    older = row;
    row.state = 6;
    row.version = 12;
    AUDIT_OK(spb_rows_set_guest(kit.audit, &row, &kit.err));
    older.version = 11;
    AUDIT_OK(spb_rows_set_guest(kit.audit, &older, &kit.err));
    cr_assert_eq(list_guests(), 1);
    cr_assert_eq(guests[0].state, 6);
    /* Nor do they come back. */
    AUDIT_OK(spb_rows_remove_guest(kit.audit, row.id, &kit.err));
    row.version = 13;
    AUDIT_OK(spb_rows_set_guest(kit.audit, &row, &kit.err));
    cr_assert_eq(list_guests(), 0);
    struct spb_guest_row next = guest_row(7, "a");
    AUDIT_OK(spb_rows_add_guest(kit.audit, &next, &kit.err));
    cr_assert_gt(next.id, row.id, "numbers are not given twice");
}

Test(audit_tables, guests_with_bad_texts)
{
    struct spb_guest_row row = guest_row(7, "");

    AUDIT_FAILS(SPB_INVALID, spb_rows_add_guest(kit.audit, &row, &kit.err));
    row = guest_row(7, "a");
    memset(row.reason, 'x', sizeof row.reason);
    AUDIT_FAILS(SPB_INVALID, spb_rows_set_guest(kit.audit, &row, &kit.err));
    row = guest_row(7, "a");
    row.config = NULL;
    AUDIT_FAILS(SPB_INVALID, spb_rows_add_guest(kit.audit, &row, &kit.err));
}
