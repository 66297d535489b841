/* The parameter store: values, generations, where a put goes, corrupt and crossing slots. */
#include "volume_kit.h"

#include "volume/records.h"

#define CROSSING_SLOT 2u /* at S=4096: bytes 504 to 755 of block 1 */

static uint64_t slot_at(uint32_t sector_size, uint32_t slot)
{
    uint32_t per_block = sector_size / SPB_PARAM_SIZE;

    return (uint64_t)(1 + slot / per_block) * sector_size +
           (uint64_t)(slot % per_block) * SPB_PARAM_SIZE;
}

/* Writes an entry behind the volume's back. */
static void plant(struct spb_volume *volume, uint32_t slot, uint32_t id, uint16_t generation,
                  const char *value)
{
    uint8_t record[SPB_PARAM_SIZE];

    spb_param_record_encode(id, generation, value, strlen(value), record);
    kit_poke(volume, slot_at(spb_volume_sector_size(volume), slot), record, sizeof(record));
}

static void rot(struct spb_volume *volume, uint32_t slot)
{
    kit_poke(volume, slot_at(spb_volume_sector_size(volume), slot) + 20, "\xEE", 1);
}

static enum spb_param_state state_of(struct spb_volume *volume, uint32_t slot)
{
    struct spb_param param;

    OK(spb_param_read_slot(volume, slot, &param, &kit_err));
    return param.state;
}

Test(params, put_counts_generations)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param param;

    FAILS(SPB_NOT_FOUND, spb_param_find(volume, 42, &param, NULL, &kit_err));
    cr_assert_eq(kit_put(volume, 42, "3.14"), 1);
    cr_assert_eq(kit_put(volume, 42, ""), 2);
    kit_expect(volume, 42, 2, "");
    FAILS(SPB_NOT_FOUND, spb_param_find(volume, 43, &param, NULL, &kit_err));
    spb_volume_close(volume);
}

Test(params, values_of_240_and_241_bytes)
{
    struct spb_volume *volume = kit_volume(512);
    char value[242];

    memset(value, 'v', 241);
    value[240] = '\0';
    kit_put(volume, 1, value);
    kit_expect(volume, 1, 1, value);
    struct spb_param_put put = {2, value, 241, SPB_ANY_GENERATION};
    FAILS(SPB_INVALID, spb_volume_put_param(volume, &put, NULL, &kit_err));
    cr_assert(strstr(kit_err.text, "241") != NULL && strstr(kit_err.text, "240") != NULL);
    spb_volume_close(volume);
}

Test(params, expected_generation_is_of_the_newest_valid_entry)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {5, "x", 1, 0};

    OK(spb_volume_put_param(volume, &put, NULL, &kit_err));
    FAILS(SPB_GENERATION, spb_volume_put_param(volume, &put, NULL, &kit_err));
    put.expected_generation = 2;
    FAILS(SPB_GENERATION, spb_volume_put_param(volume, &put, NULL, &kit_err));
    put.expected_generation = 1;
    OK(spb_volume_put_param(volume, &put, NULL, &kit_err));
    put.id = 6;
    FAILS(SPB_GENERATION, spb_volume_put_param(volume, &put, NULL, &kit_err));
    put.expected_generation = 65536;
    FAILS(SPB_INVALID, spb_volume_put_param(volume, &put, NULL, &kit_err));
    FAILS(SPB_GENERATION, spb_volume_delete_param(volume, 5, 1, &kit_err));
    OK(spb_volume_delete_param(volume, 5, 2, &kit_err));
    spb_volume_close(volume);
}

Test(params, more_than_32_puts_at_512_reuse_superseded_slots)
{
    struct spb_volume *volume = kit_volume(512);

    for (int i = 1; i <= 200; i++) {
        cr_assert_eq(kit_put(volume, (uint32_t)(i % 2), "v"), (i + (i % 2 ? 1 : 0)) / 2);
    }
    kit_expect(volume, 0, 100, "v");
    spb_volume_close(volume);
}

Test(params, full_store_refuses_a_new_id_and_still_puts_old_ones)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {32, "new", 3, SPB_ANY_GENERATION};

    for (uint32_t id = 0; id < 32; id++)
        kit_put(volume, id, "a");
    FAILS(SPB_FULL, spb_volume_put_param(volume, &put, NULL, &kit_err));
    cr_assert_eq(kit_put(volume, 7, "b"), 2, "in place");
    kit_expect(volume, 7, 2, "b");
    for (uint32_t id = 0; id < 32; id++)
        kit_expect(volume, id, id == 7 ? 2 : 1, id == 7 ? "b" : "a");
    OK(spb_volume_delete_param(volume, 3, SPB_ANY_GENERATION, &kit_err));
    OK(spb_volume_put_param(volume, &put, NULL, &kit_err));
    spb_volume_close(volume);
}

Test(params, crossing_slots_are_never_filled)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_param_put put = {.value = "x", .len = 1, .expected_generation = SPB_ANY_GENERATION};
    uint32_t stored = 0;
    struct spb_param param;

    for (put.id = 0; spb_is_ok(spb_volume_put_param(volume, &put, NULL, &kit_err)); put.id++)
        stored++;
    cr_assert_eq(stored, 144);
    for (uint32_t slot = 0; slot < spb_param_slots(volume); slot++) {
        OK(spb_param_read_slot(volume, slot, &param, &kit_err));
        uint64_t at = slot_at(4096, slot);
        cr_assert(param.state == SPB_PARAM_FREE || at / 512 == (at + 251) / 512, "slot %u", slot);
    }
    FAILS(SPB_INVALID, spb_volume_write_param(volume, CROSSING_SLOT, 1, 1, "x", 1, &kit_err));
    spb_volume_close(volume);
}

Test(params, crossing_entry_reads_is_superseded_and_erased)
{
    struct spb_volume *volume = kit_volume(4096);

    plant(volume, CROSSING_SLOT, 9, 4, "far");
    kit_expect(volume, 9, 4, "far");
    cr_assert_eq(kit_put(volume, 9, "near"), 5);
    kit_expect(volume, 9, 5, "near");
    OK(spb_volume_delete_param(volume, 9, SPB_ANY_GENERATION, &kit_err));
    cr_assert_eq(state_of(volume, CROSSING_SLOT), SPB_PARAM_FREE);
    spb_volume_close(volume);
}

Test(params, cut_off_erase_of_a_crossing_slot_is_free)
{
    struct spb_volume *volume = kit_volume(4096);
    static const uint8_t zeros[8];

    plant(volume, CROSSING_SLOT, 9, 4, "far");
    kit_poke(volume, slot_at(4096, CROSSING_SLOT), zeros, 8); /* the part in its first sector */
    cr_assert_eq(state_of(volume, CROSSING_SLOT), SPB_PARAM_FREE);
    spb_volume_close(volume);
}

Test(params, last_slot_is_kept_for_an_id_whose_value_must_move)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_param_put put = {.value = "x", .len = 1, .expected_generation = SPB_ANY_GENERATION};
    uint32_t stored = 0;

    plant(volume, CROSSING_SLOT, 9999, 1, "far");
    for (put.id = 0; spb_is_ok(spb_volume_put_param(volume, &put, NULL, &kit_err)); put.id++)
        stored++;
    cr_assert_eq(stored, 143);
    cr_assert_eq(kit_put(volume, 9999, "near"), 2);
    kit_expect(volume, 9999, 2, "near");
    spb_volume_close(volume);
}

Test(params, corrupt_only_is_data_loss_not_absence)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param param;
    struct spb_param_put put = {42, "y", 1, 0};

    kit_put(volume, 42, "x");
    rot(volume, 0);
    FAILS(SPB_CORRUPT, spb_param_find(volume, 42, &param, NULL, &kit_err));
    FAILS(SPB_GENERATION, spb_volume_put_param(volume, &put, NULL, &kit_err));
    cr_assert_eq(kit_put(volume, 42, "z"), 2, "goes above what the corrupt slot shows");
    spb_volume_close(volume);
}

Test(params, newer_corrupt_slot_is_told_beside_the_value)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param param;
    struct spb_param_warning warning;

    kit_put(volume, 42, "old");
    kit_put(volume, 42, "new");
    rot(volume, 1);
    OK(spb_param_find(volume, 42, &param, &warning, &kit_err));
    cr_assert_eq(param.generation, 1);
    cr_assert(warning.newer_corrupt && warning.generation == 2 && warning.slot == 1);
    cr_assert_eq(kit_put(volume, 42, "next"), 3);
    OK(spb_param_find(volume, 42, &param, &warning, &kit_err));
    cr_assert_not(warning.newer_corrupt);
    spb_volume_close(volume);
}

Test(params, of_equal_generations_the_lowest_slot_counts)
{
    struct spb_volume *volume = kit_volume(512);

    plant(volume, 8, 5, 3, "high");
    plant(volume, 4, 5, 3, "low");
    kit_expect(volume, 5, 3, "low");
    spb_volume_close(volume);
}

Test(params, put_prefers_free_then_superseded_then_corrupt)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param param;

    for (uint32_t id = 0; id < 30; id++)
        kit_put(volume, id, "a"); /* slots 0 to 29 */
    kit_put(volume, 0, "b");      /* slot 30; 0 is superseded */
    kit_put(volume, 31, "c");     /* slot 31 */
    rot(volume, 5);
    kit_put(volume, 1, "d");
    OK(spb_param_read_slot(volume, 0, &param, &kit_err));
    cr_assert(param.id == 1 && param.generation == 2, "the superseded slot");
    kit_put(volume, 1, "e");
    OK(spb_param_read_slot(volume, 1, &param, &kit_err));
    cr_assert(param.id == 1 && param.generation == 3, "its own superseded slot");
    kit_put(volume, 40, "f"); /* slot 0 was superseded by that */
    kit_put(volume, 41, "g"); /* only the corrupt slot is left */
    OK(spb_param_read_slot(volume, 5, &param, &kit_err));
    cr_assert(param.id == 41 && param.state == SPB_PARAM_VALID);
    spb_volume_close(volume);
}

Test(params, generation_65535_is_followed_by_1)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param *history;
    size_t count;

    plant(volume, 3, 5, 65534, "older");
    plant(volume, 4, 5, 65535, "last");
    plant(volume, 6, 5, 12, "rotten");
    rot(volume, 6);
    cr_assert_eq(kit_put(volume, 5, "first"), 1);
    kit_expect(volume, 5, 1, "first");
    OK(spb_param_history(volume, 5, &history, &count, &kit_err));
    cr_assert_eq(count, 1);
    free(history);
    spb_volume_close(volume);
}

Test(params, crossing_65535_moves_to_another_slot)
{
    struct spb_volume *volume = kit_volume(4096);

    plant(volume, CROSSING_SLOT, 5, 65535, "last");
    cr_assert_eq(kit_put(volume, 5, "first"), 1);
    kit_expect(volume, 5, 1, "first");
    cr_assert_eq(state_of(volume, CROSSING_SLOT), SPB_PARAM_FREE);
    spb_volume_close(volume);
}

Test(params, corrupt_65535_is_erased_and_the_valid_generation_goes_on)
{
    struct spb_volume *volume = kit_volume(512);

    plant(volume, 0, 5, 17, "valid");
    plant(volume, 1, 5, 65535, "rotten");
    rot(volume, 1);
    cr_assert_eq(kit_put(volume, 5, "next"), 18);
    kit_expect(volume, 5, 18, "next");
    spb_volume_close(volume);
}

Test(params, history_and_latest)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param *list;
    size_t count;

    kit_put(volume, 9, "a");
    kit_put(volume, 3, "b");
    kit_put(volume, 9, "c");
    OK(spb_param_latest(volume, &list, &count, &kit_err));
    cr_assert(count == 2 && list[0].id == 3 && list[1].id == 9 && list[1].generation == 2);
    free(list);
    OK(spb_param_history(volume, 9, &list, &count, &kit_err));
    cr_assert(count == 2 && list[0].generation == 2 && list[1].generation == 1);
    free(list);
    FAILS(SPB_NOT_FOUND, spb_param_history(volume, 1, &list, &count, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_volume_delete_param(volume, 1, SPB_ANY_GENERATION, &kit_err));
    spb_volume_close(volume);
}

Test(params, write_param_refuses_a_slot_in_use)
{
    struct spb_volume *volume = kit_volume(512);

    OK(spb_volume_write_param(volume, 5, 8, 77, "v", 1, &kit_err));
    kit_expect(volume, 8, 77, "v");
    FAILS(SPB_IN_USE, spb_volume_write_param(volume, 5, 8, 78, "w", 1, &kit_err));
    FAILS(SPB_INVALID, spb_volume_write_param(volume, 32, 8, 78, "w", 1, &kit_err));
    kit_expect(volume, 8, 77, "v");
    spb_volume_close(volume);
}

static uint16_t batch_of(struct spb_volume *volume, uint32_t first, size_t count, const char *value,
                         enum spb_code code)
{
    struct spb_param_put puts[40];
    uint16_t generations[40] = {0};
    struct spb_group *group;

    for (size_t i = 0; i < count; i++)
        puts[i] =
            (struct spb_param_put){first + (uint32_t)i, value, strlen(value), SPB_ANY_GENERATION};
    OK(spb_group_new(volume, &group, &kit_err));
    spb_status status = spb_group_put_params(group, puts, count, generations, &kit_err);
    cr_assert_eq(status.code, code, "%s", kit_err.text);
    if (code == SPB_OK) {
        OK(spb_group_carry_out(group, &kit_err));
        spb_group_make_visible(group);
    } else {
        cr_assert(spb_group_is_empty(group));
    }
    spb_group_free(group);
    return generations[count - 1];
}

Test(params, batch_is_decided_whole)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param param;

    cr_assert_eq(batch_of(volume, 0, 30, "a", SPB_OK), 1);
    /* Two slots are free: the rest goes in later rounds, into what earlier ones superseded. */
    cr_assert_eq(batch_of(volume, 0, 30, "b", SPB_OK), 2);
    for (uint32_t id = 0; id < 30; id++)
        kit_expect(volume, id, 2, "b");
    (void)batch_of(volume, 30, 3, "c", SPB_FULL);
    FAILS(SPB_NOT_FOUND, spb_param_find(volume, 30, &param, NULL, &kit_err));
    spb_volume_close(volume);
}

Test(params, batch_refuses_an_id_twice)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put puts[2] = {{1, "a", 1, SPB_ANY_GENERATION},
                                    {1, "b", 1, SPB_ANY_GENERATION}};
    struct spb_group *group;

    OK(spb_group_new(volume, &group, &kit_err));
    FAILS(SPB_INVALID, spb_group_put_params(group, puts, 2, NULL, &kit_err));
    FAILS(SPB_LIMIT, spb_group_put_params(group, puts, 0, NULL, &kit_err));
    spb_group_free(group);
    spb_volume_close(volume);
}

Test(params, group_waits_only_for_its_own_unflushed_space)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {
        .id = 1, .value = "x", .len = 1, .expected_generation = SPB_ANY_GENERATION};
    struct spb_group *group;

    for (uint32_t id = 1; id < 32; id++)
        kit_put(volume, id, "before");
    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_put_param(group, &put, NULL, &kit_err)); /* takes the last free slot */
    put.id = 2;
    FAILS(SPB_AGAIN, spb_group_put_param(group, &put, NULL, &kit_err));
    cr_assert_eq(spb_group_rounds(group), 1);
    OK(spb_group_carry_out(group, &kit_err));
    spb_group_make_visible(group);
    spb_group_free(group);
    kit_expect(volume, 1, 2, "x");
    cr_assert_eq(kit_put(volume, 2, "y"), 2);
    spb_volume_close(volume);
}

Test(params, puts_of_one_id_share_a_slot_of_their_group)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {.id = 1, .len = 1, .expected_generation = SPB_ANY_GENERATION};
    struct spb_judgement *judgements;
    struct spb_group *group;
    uint16_t generation;
    uint8_t *encoded;
    size_t size, count;

    kit_put(volume, 1, "before");
    OK(spb_group_new(volume, &group, &kit_err));
    for (uint32_t i = 0; i < 100; i++) {
        put.value = i < 99 ? "x" : "y";
        OK(spb_group_put_param(group, &put, &generation, &kit_err));
        cr_assert_eq(generation, 2 + i);
        put.expected_generation = generation; /* each sees the one before it */
    }
    cr_assert_eq(spb_group_rounds(group), 1);
    OK(spb_group_encode(group, &encoded, &size, &kit_err));
    for (uint32_t done = 0; done < 2; done++) {
        OK(spb_changes_judge(encoded, size, volume, &judgements, &count, &kit_err));
        cr_assert_eq(count, 100);
        for (size_t i = 0; i < count; i++)
            cr_assert_eq(judgements[i].verdict, done ? SPB_VERDICT_AFTER : SPB_VERDICT_BEFORE);
        free(judgements);
        if (done == 0) {
            OK(spb_group_carry_out(group, &kit_err));
            spb_group_make_visible(group);
        }
    }
    spb_group_free(group);
    free(encoded);
    kit_expect(volume, 1, 101, "y");
    for (uint32_t id = 2; id < 32; id++) /* 30 slots are left, beside its two */
        kit_put(volume, id, "another");
    spb_volume_close(volume);
}

Test(params, many_wraps_in_one_batch)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_param_put puts[80];
    struct spb_group *group;
    uint32_t planted = 0;

    for (uint32_t slot = 0; planted < 80; slot++) {
        uint64_t at = slot_at(4096, slot);
        if (at / 512 == (at + 251) / 512) {
            puts[planted] = (struct spb_param_put){planted, "w", 1, SPB_ANY_GENERATION};
            plant(volume, slot, planted++, 65535, "last");
        }
    }
    OK(spb_group_new(volume, &group, &kit_err));
    OK(spb_group_put_params(group, puts, 80, NULL, &kit_err));
    OK(spb_group_carry_out(group, &kit_err));
    spb_group_make_visible(group);
    spb_group_free(group);
    for (uint32_t id = 0; id < 80; id++)
        kit_expect(volume, id, 1, "w");
    spb_volume_close(volume);
}

Test(params, last_slot_is_kept_from_an_id_without_a_value_and_from_write_param)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_param_put put = {.value = "x", .len = 1, .expected_generation = SPB_ANY_GENERATION};

    plant(volume, CROSSING_SLOT, 9999, 1, "far");
    for (put.id = 0; put.id < 143; put.id++)
        OK(spb_volume_put_param(volume, &put, NULL, &kit_err));
    uint32_t last = 0;
    for (uint32_t slot = 0; slot < spb_param_slots(volume); slot++) {
        uint64_t at = slot_at(4096, slot);
        if (at / 512 == (at + 251) / 512 && state_of(volume, slot) == SPB_PARAM_FREE)
            last = slot;
    }
    FAILS(SPB_FULL, spb_volume_write_param(volume, last, 500, 1, "x", 1, &kit_err));
    plant(volume, last, 501, 1, "rotten");
    rot(volume, last);
    put.id = 501;
    FAILS(SPB_FULL, spb_volume_put_param(volume, &put, NULL, &kit_err));
    cr_assert_eq(kit_put(volume, 9999, "near"), 2);
    spb_volume_close(volume);
}
