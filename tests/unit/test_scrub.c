/* The scrub: what rotted on the medium is found, what was replaced meanwhile is not taken for it.
 */
#include "volume_kit.h"

#include <errno.h>

#include "support/medium.h"

#define SIZE ((size_t)KIT_BLOCKS * 512)

struct bench {
    struct medium *medium;
    struct spb_volume *volume;
};

/* Of three blocks: progress is called while their product is pinned. */
static const char text[1500] = "the data of a product";

static struct bench bench_new(uint32_t blocks)
{
    struct bench b = {.medium = medium_new((uint64_t)blocks * 512, 1)};
    struct spb_format_options format = {.total_blocks = blocks, .sector_size = 512};
    struct spb_device *device = medium_attach(b.medium);

    OK(spb_volume_format(device, &format, &kit_err));
    b.volume = kit_open(device);
    kit_put(b.volume, 1, "one");
    kit_put(b.volume, 2, "two");
    kit_append(b.volume, 1);
    kit_product(b.volume, "a", text, sizeof(text), false);
    kit_product(b.volume, "b", text, sizeof(text), false);
    return b;
}

static void bench_done(struct bench *b)
{
    cr_assert_eq(medium_violations(b->medium), 0, "%s", medium_violation(b->medium));
    spb_volume_close(b->volume);
    medium_free(b->medium);
}

/* Rots on the medium alone: the page cache still has what was there. */
static void rot(struct bench *b, uint64_t at)
{
    uint8_t was = medium_visible(b->medium)[at], bad = (uint8_t)(was ^ 0x10);

    medium_poke(b->medium, at, &bad, 1);
    medium_poke_visible(b->medium, at, &was, 1);
}

static struct spb_report scrub(struct bench *b, spb_progress progress, void *user)
{
    struct spb_report report;
    struct medium_counts before = medium_counts(b->medium);

    OK(spb_volume_scrub(b->volume, progress, user, &report, &kit_err));
    if (progress == NULL) {
        cr_assert_eq(medium_counts(b->medium).writes, before.writes);
        cr_assert_eq(medium_counts(b->medium).flushes, before.flushes);
    }
    return report;
}

static void expect_clean(struct bench *b, spb_progress progress, void *user)
{
    struct spb_report report = scrub(b, progress, user);

    cr_assert_eq(report.count, 0, "%s", report.count > 0 ? report.findings[0].text : "");
    spb_report_done(&report);
}

static void expect_one(struct bench *b, enum spb_finding_kind kind, uint32_t index)
{
    struct spb_report report = scrub(b, NULL, NULL);

    cr_assert_eq(report.count, 1, "%zu findings", report.count);
    cr_assert_eq(report.findings[0].kind, kind, "%s", report.findings[0].text);
    cr_assert_eq(report.findings[0].index, index);
    cr_assert_gt(strlen(report.findings[0].text), 10);
    spb_report_done(&report);
}

Test(scrub, a_clean_volume)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct spb_report report = scrub(&b, NULL, NULL), check;

    cr_assert_eq(report.count, 0);
    OK(spb_volume_check(b.volume, NULL, NULL, &check, &kit_err));
    cr_assert_eq(report.params_valid, check.params_valid);
    cr_assert_eq(report.params_free, check.params_free);
    cr_assert_eq(report.events_live, 1);
    cr_assert_eq(report.products_good, 2);
    cr_assert_eq(report.blocks_used, check.blocks_used);
    cr_assert_eq(report.blocks_free, check.blocks_free);
    spb_report_done(&check);
    spb_report_done(&report);
    bench_done(&b);
}

Test(scrub, rot_of_metadata_behind_the_cache)
{
    static const uint32_t sectors[] = {0, 1, 16, 17, 18, 32, 33};

    for (size_t i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
        struct bench b = bench_new(KIT_BLOCKS);
        rot(&b, (uint64_t)sectors[i] * 512 + 400);
        expect_one(&b, SPB_FINDING_MEDIUM, sectors[i]);
        /* Writing the sector anew puts it right, and so does a repair. */
        struct spb_report report;
        OK(spb_volume_repair(b.volume, NULL, NULL, &report, &kit_err));
        spb_report_done(&report);
        expect_clean(&b, NULL, NULL);
        bench_done(&b);
    }
}

Test(scrub, rot_of_data_behind_the_cache)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct spb_product product;
    uint8_t *data;
    size_t size;

    OK(spb_product_find(b.volume, "b", 1, &product, &kit_err));
    cr_assert_eq(product.state, SPB_PRODUCT_GOOD);
    rot(&b, (33 + product.block_offset) * 512 + 3);
    expect_one(&b, SPB_FINDING_PRODUCT_ROTTEN, 1);
    /* As after a check: the product is known to be rotten. */
    OK(spb_product_find(b.volume, "b", 1, &product, &kit_err));
    cr_assert_eq(product.state, SPB_PRODUCT_ROTTEN);
    OK(spb_volume_get_product(b.volume, "a", 1, &data, &size, &kit_err));
    free(data);
    bench_done(&b);
}

/* What is corrupt in memory too is told of as by a check. */
Test(scrub, the_findings_of_a_check)
{
    struct bench b = bench_new(KIT_BLOCKS);
    static const uint8_t entry[80] = {0, 0, 0, 60, 0, 0, 0, 90, 0, 0, 0, 1, 'x'};
    struct spb_report found, check;

    medium_poke(b.medium, 512 + 10, "rot", 3);
    medium_poke(b.medium, 18 * 512 + 9, "r", 1);
    medium_poke(b.medium, 33 * 512 + 160, entry, sizeof(entry));
    medium_poke(b.medium, 34 * 512, "rot", 3);
    OK(spb_volume_refresh(b.volume, &kit_err));
    found = scrub(&b, NULL, NULL);
    OK(spb_volume_check(b.volume, NULL, NULL, &check, &kit_err));
    cr_assert_eq(found.count, 4);
    cr_assert_eq(found.count, check.count);
    for (size_t i = 0; i < found.count; i++) {
        cr_assert_eq(found.findings[i].kind, check.findings[i].kind);
        cr_assert_eq(found.findings[i].index, check.findings[i].index);
        cr_assert_str_eq(found.findings[i].text, check.findings[i].text);
    }
    spb_report_done(&found);
    spb_report_done(&check);
    bench_done(&b);
}

Test(scrub, sectors_that_cannot_be_read)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct medium_failure failure = {.call = MEDIUM_READ_MEDIUM, .nth = 1, .number = EIO};

    /* Once: it was read again. */
    medium_fail(b.medium, &failure);
    expect_clean(&b, NULL, NULL);
    cr_assert(medium_failed(b.medium));
    /* Of a product. */
    failure.nth = 3;
    medium_fail(b.medium, &failure);
    expect_clean(&b, NULL, NULL);
    cr_assert(medium_failed(b.medium));
    bench_done(&b);
}

Test(scrub, a_medium_that_cannot_be_read_at_all)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct spb_product product;
    size_t sectors = 0, products = 0;

    medium_kill(b.medium);
    struct spb_report report = scrub(&b, NULL, NULL);
    for (size_t i = 0; i < report.count; i++) {
        bool is_medium = report.findings[i].kind == SPB_FINDING_MEDIUM;
        cr_assert(is_medium || report.findings[i].kind == SPB_FINDING_PRODUCT_ROTTEN);
        cr_assert(!is_medium || !report.findings[i].repairable);
        cr_assert(!is_medium || strstr(report.findings[i].text, "cannot be read") != NULL);
        sectors += is_medium;
        products += !is_medium;
    }
    cr_assert_eq(sectors, 34);
    cr_assert_eq(products, 2);
    spb_report_done(&report);
    /* What could not be read is not noted as rotten: it may be read again. */
    OK(spb_product_find(b.volume, "a", 1, &product, &kit_err));
    cr_assert_eq(product.state, SPB_PRODUCT_GOOD);
    bench_done(&b);
}

Test(scrub, without_direct_reads)
{
    struct bench b = bench_new(KIT_BLOCKS);
    uint8_t bad = 0x77;

    medium_forbid_direct(b.medium, true);
    expect_clean(&b, NULL, NULL);
    medium_poke(b.medium, 512 + 300, &bad, 1);
    expect_one(&b, SPB_FINDING_MEDIUM, 1);
    bench_done(&b);
}

Test(scrub, a_volume_opened_for_reading)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct spb_open_options options = {.writable = false};

    spb_volume_close(b.volume);
    OK(spb_volume_open(medium_attach(b.medium), &options, &b.volume, &kit_err));
    expect_clean(&b, NULL, NULL);
    rot(&b, 34 * 512);
    expect_one(&b, SPB_FINDING_PRODUCT_ROTTEN, 0);
    bench_done(&b);
}

/* ---- Beside the actor -------------------------------------------------------------------------
 */

/* Calls of progress, and what is to be done at each. */
struct hook {
    struct bench *b;
    uint64_t calls, stop_at, at, from;
    void (*act)(struct hook *hook);
    struct spb_group *group;
    unsigned acts;
};

static bool on_progress(void *user, uint64_t done, uint64_t total)
{
    struct hook *hook = user;

    cr_assert_leq(done, total);
    hook->calls++;
    if (hook->act != NULL && (hook->at == 0 || hook->at == hook->calls))
        hook->act(hook);
    return hook->calls != hook->stop_at;
}

static uint64_t calls_of(struct bench *b)
{
    struct hook count = {.b = b};

    expect_clean(b, on_progress, &count);
    cr_assert_geq(count.calls, 6);
    return count.calls;
}

Test(scrub, ends_where_progress_says)
{
    struct bench b = bench_new(KIT_BLOCKS);
    uint64_t calls = calls_of(&b), before, after;
    uint32_t largest;

    spb_product_space(b.volume, &before, &largest);
    for (uint64_t stop = 1; stop <= calls; stop++) {
        struct hook hook = {.b = &b, .stop_at = stop};
        struct spb_report report;
        FAILS(SPB_DEADLINE, spb_volume_scrub(b.volume, on_progress, &hook, &report, &kit_err));
    }
    spb_product_space(b.volume, &after, &largest);
    cr_assert_eq(before, after);
    bench_done(&b);
}

static void change_everything(struct hook *hook)
{
    struct spb_volume *volume = hook->b->volume;
    static char data[1500];

    memset(data, 'a' + (int)(hook->acts++ % 26), sizeof(data));
    kit_put(volume, 1, "again");
    kit_append(volume, 3);
    kit_product(volume, "a", data, sizeof(data), true);
    kit_product(volume, "b", data, sizeof(data), true);
}

/* Each change, at each moment: what the scrub has read by then is no longer what stands. */
Test(scrub, changes_at_every_moment)
{
    struct bench b = bench_new(KIT_BLOCKS);
    uint64_t calls = calls_of(&b);
    struct hook always = {.b = &b, .act = change_everything};

    expect_clean(&b, on_progress, &always);
    cr_assert_geq(always.acts, calls);
    bench_done(&b);
    for (uint64_t at = 1; at <= calls; at++) {
        struct hook hook = {.at = at, .act = change_everything};
        b = bench_new(KIT_BLOCKS);
        hook.b = &b;
        expect_clean(&b, on_progress, &hook);
        cr_assert_eq(hook.acts, 1);
        bench_done(&b);
    }
}

static void delete_and_reuse(struct hook *hook)
{
    struct spb_volume *volume = hook->b->volume;
    static uint8_t junk[9000];

    if (hook->acts++ > 0)
        return;
    memset(junk, 'j', sizeof(junk));
    OK(spb_volume_delete_product(volume, "a", 1, &kit_err));
    OK(spb_volume_delete_product(volume, "b", 1, &kit_err));
    kit_product(volume, "c", junk, sizeof(junk), false);
}

/* The blocks of a product that is being read are not given to another. */
Test(scrub, deleted_and_their_blocks_written_anew)
{
    struct bench probe = bench_new(KIT_BLOCKS);
    uint64_t calls = calls_of(&probe);

    bench_done(&probe);
    for (uint64_t at = 1; at <= calls; at++) {
        struct bench b = bench_new(KIT_BLOCKS);
        struct hook hook = {.b = &b, .at = at, .act = delete_and_reuse};
        expect_clean(&b, on_progress, &hook);
        cr_assert_eq(hook.acts, 1);
        bench_done(&b);
    }
}

/* Deletes once, and then counts the moments at which the blocks are still held. */
static void delete_and_ask(struct hook *hook)
{
    struct spb_reservation *held;

    if (hook->acts == 0 && hook->calls == hook->from)
        OK(spb_volume_delete_product(hook->b->volume, "b", 1, &kit_err));
    if (hook->calls < hook->from)
        return;
    spb_status status = spb_reservation_new_extent(hook->b->volume, 4, 3, &held, &kit_err);
    if (spb_is_ok(status))
        spb_reservation_free(held);
    else
        hook->acts++;
}

Test(scrub, blocks_are_pinned_while_they_are_read)
{
    struct bench b = bench_new(KIT_BLOCKS);
    unsigned pinned = 0;
    uint64_t calls = calls_of(&b);

    bench_done(&b);
    for (uint64_t at = 1; at <= calls; at++) {
        struct hook hook = {.from = at, .act = delete_and_ask};
        b = bench_new(KIT_BLOCKS);
        hook.b = &b;
        expect_clean(&b, on_progress, &hook);
        pinned += hook.acts;
        struct spb_reservation *held;
        OK(spb_reservation_new_extent(b.volume, 4, 3, &held, &kit_err));
        spb_reservation_free(held);
        bench_done(&b);
    }
    cr_assert_eq(pinned, 1, "the blocks were held at %u moments", pinned);
}

static void delete_b(struct hook *hook)
{
    hook->acts++;
    OK(spb_volume_delete_product(hook->b->volume, "b", 1, &kit_err));
}

/* A rotten product that somebody deletes while it is read is nobody's trouble any more. */
Test(scrub, a_rotten_product_that_is_deleted_meanwhile)
{
    struct bench b = bench_new(KIT_BLOCKS);
    uint64_t calls = calls_of(&b);

    bench_done(&b);
    for (uint64_t at = 1; at < calls; at++) {
        struct hook hook = {.at = at, .act = delete_b};
        b = bench_new(KIT_BLOCKS);
        hook.b = &b;
        rot(&b, (33 + 4) * 512);
        expect_clean(&b, on_progress, &hook);
        cr_assert_eq(hook.acts, 1);
        bench_done(&b);
    }
}

static void defragment(struct hook *hook)
{
    bool moved;

    hook->acts++;
    OK(spb_volume_defrag_step(hook->b->volume, &moved, NULL, &kit_err));
}

Test(scrub, moved_meanwhile)
{
    for (uint64_t at = 1; at <= 8; at++) {
        struct bench b = bench_new(KIT_BLOCKS);
        kit_product(b.volume, "c", text, sizeof(text), false);
        OK(spb_volume_delete_product(b.volume, "a", 1, &kit_err));
        struct hook hook = {.b = &b, .at = at, .act = defragment};
        expect_clean(&b, on_progress, &hook);
        bench_done(&b);
    }
}

/* A group that is on the medium, and visible only later. */
static void carry_then_show(struct hook *hook)
{
    struct spb_param_put put = {2, "carried out, not yet visible", 28, SPB_ANY_GENERATION};
    struct spb_event event = {.code = 9};

    if (hook->acts++ == 0) {
        OK(spb_group_new(hook->b->volume, &hook->group, &kit_err));
        OK(spb_group_put_param(hook->group, &put, NULL, &kit_err));
        OK(spb_group_append_events(hook->group, &event, 1, NULL, &kit_err));
        OK(spb_group_delete_product(hook->group, "a", 1, &kit_err));
        OK(spb_group_carry_out(hook->group, &kit_err));
    }
}

Test(scrub, a_group_between_its_flush_and_its_visibility)
{
    for (uint64_t at = 1; at <= 6; at++) {
        struct bench b = bench_new(KIT_BLOCKS);
        struct hook hook = {.b = &b, .at = at, .act = carry_then_show};
        expect_clean(&b, on_progress, &hook);
        cr_assert_eq(hook.acts, 1);
        spb_group_make_visible(hook.group);
        spb_group_free(hook.group);
        expect_clean(&b, NULL, NULL);
        /* Rot in a sector that a group wrote is found as well. */
        rot(&b, 17 * 512 + 2);
        expect_one(&b, SPB_FINDING_MEDIUM, 17);
        bench_done(&b);
    }
}

static void carry_before(struct bench *b, struct hook *hook)
{
    *hook = (struct hook){.b = b};
    carry_then_show(hook);
}

/* While a group is being written, its sectors are left out, and only they. */
Test(scrub, only_what_is_being_written_is_left_out)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct hook hook;

    carry_before(&b, &hook);
    rot(&b, 20 * 512);
    expect_one(&b, SPB_FINDING_MEDIUM, 20);
    spb_group_make_visible(hook.group);
    spb_group_free(hook.group);
    bench_done(&b);
}

/* After a failed flush nobody knows what the medium holds; after a reopening everybody does. */
Test(scrub, poisoned_and_opened_anew)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct medium_failure failure = {.call = MEDIUM_FLUSH, .nth = 1, .number = EIO, .reached = 1};
    struct spb_param_put put = {1, "lost?", 5, SPB_ANY_GENERATION};

    medium_fail(b.medium, &failure);
    FAILS(SPB_IO, spb_volume_put_param(b.volume, &put, NULL, &kit_err));
    expect_clean(&b, NULL, NULL);
    OK(spb_volume_reopen(b.volume, &kit_err));
    expect_clean(&b, NULL, NULL);
    /* The sector that the failed group was writing. */
    rot(&b, 2 * 512);
    expect_one(&b, SPB_FINDING_MEDIUM, 2);
    bench_done(&b);
}

static void reopen(struct hook *hook)
{
    hook->acts++;
    OK(spb_volume_reopen(hook->b->volume, &kit_err));
}

Test(scrub, opened_anew_meanwhile)
{
    struct bench b = bench_new(KIT_BLOCKS);
    struct hook hook = {.b = &b, .act = reopen};

    expect_clean(&b, on_progress, &hook);
    bench_done(&b);
}

/* ---- In the middle of a read ------------------------------------------------------------------
 */

/* A device that does something after each read of the medium, as another thread might. */
struct acting {
    struct spb_device device;
    struct spb_device *inner;
    struct spb_volume *volume; /* NULL: does nothing */
    unsigned acts;
};

static struct acting *acting_of(struct spb_device *device)
{
    return (struct acting *)(void *)device;
}

static spb_status acting_read(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                              struct spb_error *err)
{
    return spb_device_read(acting_of(device)->inner, offset, buffer, n, err);
}

static spb_status acting_read_medium(struct spb_device *device, uint64_t offset, void *buffer,
                                     size_t n, struct spb_error *err)
{
    struct acting *acting = acting_of(device);
    spb_status status = spb_device_read_medium(acting->inner, offset, buffer, n, err);

    if (acting->volume != NULL) {
        kit_put(acting->volume, 1, "put after a read");
        kit_append(acting->volume, 5);
        kit_product(acting->volume, "a", &acting->acts, sizeof(acting->acts), true);
        acting->acts++;
    }
    return status;
}

static spb_status acting_write(struct spb_device *device, uint64_t offset, const void *data,
                               size_t n, struct spb_error *err)
{
    return spb_device_write(acting_of(device)->inner, offset, data, n, err);
}

static spb_status acting_flush(struct spb_device *device, struct spb_error *err)
{
    return spb_device_flush(acting_of(device)->inner, err);
}

static spb_status acting_zero(struct spb_device *device, uint64_t offset, uint64_t n,
                              struct spb_error *err)
{
    return spb_device_zero(acting_of(device)->inner, offset, n, err);
}

static void acting_close(struct spb_device *device)
{
    spb_device_close(acting_of(device)->inner);
    free(device);
}

static const struct spb_device_ops acting_ops = {
    .read = acting_read,
    .read_medium = acting_read_medium,
    .write = acting_write,
    .flush = acting_flush,
    .zero = acting_zero,
    .forgive = acting_flush,
    .close = acting_close,
};

Test(scrub, groups_in_the_middle_of_every_read)
{
    struct acting *acting = calloc(1, sizeof(*acting));
    struct spb_report report;

    acting->inner = kit_device(512, KIT_BLOCKS);
    acting->device = *acting->inner;
    acting->device.ops = &acting_ops;
    struct spb_volume *volume = kit_open(&acting->device);
    kit_product(volume, "a", text, sizeof(text), false);
    kit_product(volume, "b", text, sizeof(text), false);
    acting->volume = volume;
    OK(spb_volume_scrub(volume, NULL, NULL, &report, &kit_err));
    cr_assert_eq(report.count, 0, "%s", report.count > 0 ? report.findings[0].text : "");
    cr_assert_gt(acting->acts, 10);
    spb_report_done(&report);
    acting->volume = NULL;
    spb_volume_close(volume);
}

/* Large blocks: the metadata is more than one piece, and the caller gets its turn between them. */
Test(scrub, pieces_of_large_metadata)
{
    struct spb_volume *volume = kit_volume(65536);
    struct bench b = {.volume = volume};
    struct hook hook = {.b = &b};
    struct spb_report report;

    kit_put(volume, 1, "one");
    kit_product(volume, "a", text, sizeof(text), false);
    OK(spb_volume_scrub(volume, on_progress, &hook, &report, &kit_err));
    cr_assert_eq(report.count, 0);
    cr_assert_geq(hook.calls, 34 * 65536 / (256 * 1024) + 1);
    spb_report_done(&report);
    spb_volume_close(volume);
}
