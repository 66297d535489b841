/* Completing the calls that a crash left in part; crashes themselves are tests/crash's. */
#include "volume_kit.h"

#include <errno.h>

#include "support/medium.h"

/* Encoded changes. */
struct statement {
    uint8_t *bytes;
    size_t size;
};

static enum spb_verdict sum_of(const struct spb_volume *volume, const struct statement *s,
                               size_t first, size_t count)
{
    struct spb_judgement *judgements;
    size_t total;

    OK(spb_changes_judge(s->bytes, s->size, volume, &judgements, &total, &kit_err));
    cr_assert_leq(first + count, total);
    enum spb_verdict sum = spb_judgements_sum(judgements + first, count);
    free(judgements);
    return sum;
}

static const struct spb_param_put three[] = {
    {1, "first", 5, SPB_ANY_GENERATION},
    {2, "second", 6, SPB_ANY_GENERATION},
    {3, "third", 5, SPB_ANY_GENERATION},
};

/* The statement of a batch that is never carried out. */
static struct statement batch_of_three(struct spb_volume *volume)
{
    struct statement s = {0};
    struct spb_group *group;

    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_put_params(group, three, 3, NULL, &kit_err));
    OK(spb_group_encode(group, &s.bytes, &s.size, &kit_err));
    spb_group_free(group);
    return s;
}

static struct spb_volume *on_medium(struct medium *medium)
{
    struct spb_format_options format = {.total_blocks = KIT_BLOCKS, .sector_size = 512};
    struct spb_device *device = medium_attach(medium);

    OK(spb_volume_format(device, &format, &kit_err));
    return kit_open(device);
}

Test(complete, sums_of_verdicts)
{
    struct spb_judgement j[3] = {{.verdict = SPB_VERDICT_BEFORE}, {.verdict = SPB_VERDICT_BEFORE}};

    cr_assert_eq(spb_judgements_sum(j, 0), SPB_VERDICT_AFTER);
    cr_assert_eq(spb_judgements_sum(j, 2), SPB_VERDICT_BEFORE);
    j[1].verdict = SPB_VERDICT_AFTER;
    cr_assert_eq(spb_judgements_sum(j, 2), SPB_VERDICT_IN_PART);
    cr_assert_eq(spb_judgements_sum(j + 1, 1), SPB_VERDICT_AFTER);
    j[2].verdict = SPB_VERDICT_IN_PART;
    cr_assert_eq(spb_judgements_sum(j + 2, 1), SPB_VERDICT_IN_PART);
    cr_assert_eq(spb_judgements_sum(j + 1, 2), SPB_VERDICT_IN_PART);
    j[2].verdict = SPB_VERDICT_UNKNOWN;
    cr_assert_eq(spb_judgements_sum(j, 3), SPB_VERDICT_UNKNOWN);
}

Test(complete, a_batch_of_which_one_entry_is_there)
{
    struct spb_volume *volume = kit_volume(512);
    struct statement s = batch_of_three(volume);

    cr_assert_eq(sum_of(volume, &s, 0, 3), SPB_VERDICT_BEFORE);
    kit_put(volume, 2, "second");
    cr_assert_eq(sum_of(volume, &s, 0, 3), SPB_VERDICT_IN_PART);
    OK(spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
    cr_assert_eq(sum_of(volume, &s, 0, 3), SPB_VERDICT_AFTER);
    kit_expect(volume, 1, 1, "first");
    kit_expect(volume, 2, 1, "second");
    kit_expect(volume, 3, 1, "third");
    OK(spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
    kit_expect(volume, 1, 1, "first");
    free(s.bytes);
    spb_volume_close(volume);
}

Test(complete, only_its_own_range)
{
    struct spb_volume *volume = kit_volume(512);
    struct statement s = batch_of_three(volume);

    kit_put(volume, 2, "second");
    OK(spb_changes_complete(s.bytes, s.size, 1, 2, volume, &kit_err));
    cr_assert_eq(sum_of(volume, &s, 0, 1), SPB_VERDICT_BEFORE);
    kit_expect(volume, 3, 1, "third");
    OK(spb_changes_complete(s.bytes, s.size, 3, 0, volume, &kit_err));
    FAILS(SPB_INVALID, spb_changes_complete(s.bytes, s.size, 2, 2, volume, &kit_err));
    FAILS(SPB_INVALID, spb_changes_complete(s.bytes, s.size, 4, 0, volume, &kit_err));
    FAILS(SPB_INVALID, spb_changes_complete(s.bytes, s.size, 1, SIZE_MAX, volume, &kit_err));
    FAILS(SPB_CORRUPT, spb_changes_complete(s.bytes, s.size - 1, 0, 1, volume, &kit_err));
    free(s.bytes);
    spb_volume_close(volume);
}

/* What somebody else changed since is not changed back, nor is anything else. */
Test(complete, something_else_changed_an_object)
{
    struct spb_volume *volume = kit_volume(512);
    struct statement s = batch_of_three(volume);
    struct spb_param param;

    kit_put(volume, 2, "second");
    kit_put(volume, 3, "another's");
    cr_assert_eq(sum_of(volume, &s, 0, 3), SPB_VERDICT_UNKNOWN);
    FAILS(SPB_CHANGED, spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
    cr_assert_not_null(strstr(kit_err.text, "param 3"), "%s", kit_err.text);
    FAILS(SPB_NOT_FOUND, spb_param_find(volume, 1, &param, NULL, &kit_err));
    free(s.bytes);
    spb_volume_close(volume);
}

Test(complete, no_space_is_left)
{
    struct spb_volume *volume = kit_volume(512);
    struct statement s = batch_of_three(volume);
    struct spb_param param;

    kit_put(volume, 2, "second");
    for (uint32_t id = 100; id < 130; id++)
        kit_put(volume, id, "fills the store");
    /* One slot is left, and two are wanted. */
    FAILS(SPB_FULL, spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_param_find(volume, 1, &param, NULL, &kit_err));
    OK(spb_volume_delete_param(volume, 100, SPB_ANY_GENERATION, &kit_err));
    OK(spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
    kit_expect(volume, 3, 1, "third");
    free(s.bytes);
    spb_volume_close(volume);
}

Test(complete, a_volume_that_takes_no_changes)
{
    struct medium *medium = medium_new((uint64_t)KIT_BLOCKS * 512, 1);
    struct spb_volume *volume = on_medium(medium), *reader;
    struct spb_open_options options = {.writable = false};
    struct statement s = batch_of_three(volume);

    kit_put(volume, 2, "second");
    spb_volume_close(volume);
    OK(spb_volume_open(medium_attach(medium), &options, &reader, &kit_err));
    FAILS(SPB_READ_ONLY, spb_changes_complete(s.bytes, s.size, 0, 3, reader, &kit_err));
    free(s.bytes);
    spb_volume_close(reader);
    medium_free(medium);
}

Test(complete, the_rest_of_an_append)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event events[15] = {0};
    struct statement s = {0};
    struct spb_group *group;
    struct spb_event found;

    for (uint16_t i = 0; i < 15; i++)
        events[i] = (struct spb_event){.timestamp = i, .code = (uint16_t)(100 + i)};
    kit_append(volume, 1);
    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_append_events(group, events, 15, NULL, &kit_err));
    OK(spb_group_append_events(group, events, 2, NULL, &kit_err));
    OK(spb_group_encode(group, &s.bytes, &s.size, &kit_err));
    spb_group_free(group);
    /* Six records of the first, as a first round leaves them. */
    OK(spb_volume_append_events(volume, events, 6, NULL, &kit_err));
    cr_assert_eq(sum_of(volume, &s, 0, 1), SPB_VERDICT_IN_PART);
    cr_assert_eq(sum_of(volume, &s, 1, 1), SPB_VERDICT_BEFORE);
    /* Of the second nothing can be made while the first is not whole. */
    FAILS(SPB_CHANGED, spb_changes_complete(s.bytes, s.size, 1, 1, volume, &kit_err));
    cr_assert_eq(spb_event_pointer(volume), 7);
    OK(spb_changes_complete(s.bytes, s.size, 0, 1, volume, &kit_err));
    cr_assert_eq(spb_event_pointer(volume), 16);
    for (uint32_t i = 1; i < 16; i++) {
        OK(spb_event_read(volume, i, &found, &kit_err));
        cr_assert_eq(found.code, 99 + i);
    }
    cr_assert_eq(sum_of(volume, &s, 1, 1), SPB_VERDICT_BEFORE);
    OK(spb_changes_complete(s.bytes, s.size, 0, 2, volume, &kit_err));
    cr_assert_eq(spb_event_pointer(volume), 18);
    free(s.bytes);
    spb_volume_close(volume);
}

Test(complete, appends_behind_each_other)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event events[4] = {{.code = 7}, {.code = 8}, {.code = 9}, {.code = 10}};
    struct statement s = {0};
    struct spb_group *group;
    struct spb_event found;

    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_append_events(group, events, 3, NULL, &kit_err));
    OK(spb_group_append_events(group, events + 3, 1, NULL, &kit_err));
    OK(spb_group_encode(group, &s.bytes, &s.size, &kit_err));
    spb_group_free(group);
    OK(spb_changes_complete(s.bytes, s.size, 0, 2, volume, &kit_err));
    cr_assert_eq(spb_event_pointer(volume), 4);
    for (uint32_t i = 0; i < 4; i++) {
        OK(spb_event_read(volume, i, &found, &kit_err));
        cr_assert_eq(found.code, 7 + i);
    }
    cr_assert_eq(sum_of(volume, &s, 0, 2), SPB_VERDICT_AFTER);
    free(s.bytes);
    spb_volume_close(volume);
}

/* Two calls on one id: of the earlier one the later one's value counts. */
Test(complete, what_a_later_call_made_counts)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put later[] = {{3, "later", 5, SPB_ANY_GENERATION},
                                    {4, "fourth", 6, SPB_ANY_GENERATION}};
    struct spb_param_put as_later = {3, "later", 5, SPB_ANY_GENERATION};
    struct statement s = {0};
    struct spb_group *group;

    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_put_params(group, three, 3, NULL, &kit_err));
    OK(spb_group_put_params(group, later, 2, NULL, &kit_err));
    OK(spb_group_encode(group, &s.bytes, &s.size, &kit_err));
    spb_group_free(group);
    /* Only the entry of 4 reached the medium. */
    kit_put(volume, 4, "fourth");
    cr_assert_eq(sum_of(volume, &s, 0, 3), SPB_VERDICT_BEFORE);
    cr_assert_eq(sum_of(volume, &s, 3, 2), SPB_VERDICT_IN_PART);
    OK(spb_changes_complete(s.bytes, s.size, 3, 2, volume, &kit_err));
    kit_expect(volume, 3, 2, "later");
    cr_assert_eq(sum_of(volume, &s, 3, 2), SPB_VERDICT_AFTER);
    cr_assert_eq(sum_of(volume, &s, 0, 3), SPB_VERDICT_IN_PART);
    OK(spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
    kit_expect(volume, 1, 1, "first");
    kit_expect(volume, 3, 2, "later");
    cr_assert_eq(sum_of(volume, &s, 0, 5), SPB_VERDICT_AFTER);
    /* Somebody else's put is none of theirs. */
    OK(spb_volume_put_param(volume, &as_later, NULL, &kit_err));
    cr_assert_eq(sum_of(volume, &s, 3, 2), SPB_VERDICT_AFTER);
    free(s.bytes);
    spb_volume_close(volume);
}

/* A value that an entry written by its slot came before. */
Test(complete, an_entry_by_slot_and_a_put_of_its_id)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {7, "put", 3, SPB_ANY_GENERATION};
    struct statement s = {0};
    struct spb_group *group;

    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_write_param(group, 9, 7, 40, "written", 7, &kit_err));
    OK(spb_group_put_param(group, &put, NULL, &kit_err));
    OK(spb_group_encode(group, &s.bytes, &s.size, &kit_err));
    spb_group_free(group);
    cr_assert_eq(sum_of(volume, &s, 0, 1), SPB_VERDICT_BEFORE);
    cr_assert_eq(sum_of(volume, &s, 1, 1), SPB_VERDICT_BEFORE);
    OK(spb_changes_complete(s.bytes, s.size, 0, 1, volume, &kit_err));
    kit_expect(volume, 7, 40, "written");
    cr_assert_eq(sum_of(volume, &s, 1, 1), SPB_VERDICT_BEFORE);
    OK(spb_changes_complete(s.bytes, s.size, 1, 1, volume, &kit_err));
    kit_expect(volume, 7, 41, "put");
    cr_assert_eq(sum_of(volume, &s, 0, 2), SPB_VERDICT_AFTER);
    free(s.bytes);
    spb_volume_close(volume);
}

/* Of a product whose call left nothing, the data may be there in part: it is not published. */
Test(complete, a_product_of_which_nothing_is_there)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product_attributes attributes = {"p", 1, 1, 1};
    struct spb_product_data data = {4, 0x12345678, 1};
    struct spb_reservation *reservation;
    struct statement s = {0};
    struct spb_group *group;

    OK(spb_reservation_new(volume, 4, &reservation, &kit_err));
    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_publish_product(group, reservation, &attributes, &data, false, NULL, &kit_err));
    OK(spb_group_encode(group, &s.bytes, &s.size, &kit_err));
    spb_group_free(group);
    spb_reservation_free(reservation);
    FAILS(SPB_CHANGED, spb_changes_complete(s.bytes, s.size, 0, 1, volume, &kit_err));
    free(s.bytes);
    spb_volume_close(volume);
}

/* ---- Failures of the medium ------------------------------------------------------------------ */

static void fail_once(enum medium_call call, uint64_t nth, bool *happened)
{
    struct medium *medium = medium_new((uint64_t)KIT_BLOCKS * 512, nth);
    struct spb_volume *volume = on_medium(medium);
    struct statement s = batch_of_three(volume);
    struct medium_failure failure = {.call = call, .nth = nth, .number = EIO, .reached = 1};

    kit_put(volume, 2, "second");
    medium_fail(medium, &failure);
    spb_status status = spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err);
    *happened = medium_failed(medium);
    if (*happened) {
        cr_assert_eq(status.code, SPB_IO);
        FAILS(SPB_POISONED, spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
        OK(spb_volume_reopen(volume, &kit_err));
        OK(spb_changes_complete(s.bytes, s.size, 0, 3, volume, &kit_err));
    }
    cr_assert_eq(sum_of(volume, &s, 0, 3), SPB_VERDICT_AFTER);
    kit_expect(volume, 1, 1, "first");
    kit_expect(volume, 3, 1, "third");
    cr_assert_eq(medium_violations(medium), 0, "%s", medium_violation(medium));
    free(s.bytes);
    spb_volume_close(volume);
    medium_free(medium);
}

Test(complete, every_failure_of_the_medium)
{
    static const enum medium_call calls[] = {MEDIUM_WRITE, MEDIUM_FLUSH};

    for (size_t i = 0; i < 2; i++) {
        uint64_t nth = 1;
        for (bool happened = true; happened; nth++)
            fail_once(calls[i], nth, &happened);
        cr_assert_gt(nth, 2, "no call of this kind was made");
    }
}
