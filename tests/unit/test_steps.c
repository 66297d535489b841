/* The three steps of a change, and the statement that outlives the process. */
#include "volume_kit.h"

#include <stdio.h>

static void expect_same_bytes(struct spb_device *device, const uint8_t *before, size_t n)
{
    uint8_t *now = malloc(n);

    OK(spb_device_read(device, 0, now, n, &kit_err));
    cr_assert_arr_eq(now, before, n);
    free(now);
}

static uint8_t *snapshot(struct spb_device *device)
{
    uint8_t *bytes = malloc(device->size_bytes);

    OK(spb_device_read(device, 0, bytes, device->size_bytes, &kit_err));
    return bytes;
}

/* One change of each kind, decided into a group. */
static void decide_some(struct spb_group *group)
{
    struct spb_param_put put = {1, "two", 3, SPB_ANY_GENERATION};
    struct spb_event event = {.severity = 2, .code = 9, .payload_len = 1, .payload = "e"};

    OK(spb_group_put_param(group, &put, NULL, &kit_err));
    OK(spb_group_delete_param(group, 2, SPB_ANY_GENERATION, &kit_err));
    OK(spb_group_append_events(group, &event, 1, NULL, &kit_err));
    OK(spb_group_delete_product(group, "p", 1, &kit_err));
}

static struct spb_volume *filled(void)
{
    struct spb_volume *volume = kit_volume(512);

    kit_put(volume, 1, "one");
    kit_put(volume, 2, "gone");
    kit_append(volume, 1);
    kit_product(volume, "p", "data", 4, false);
    return volume;
}

Test(steps, deciding_and_dropping_alter_nothing)
{
    struct spb_volume *volume = filled();
    struct spb_device *device = spb_volume_device(volume);
    uint8_t *before = snapshot(device);
    struct spb_group *group;

    OK(spb_group_new(volume, &group, &kit_err));
    decide_some(group);
    expect_same_bytes(device, before, device->size_bytes);
    kit_expect(volume, 1, 1, "one");
    spb_group_free(group);
    expect_same_bytes(device, before, device->size_bytes);
    kit_expect(volume, 1, 1, "one");
    kit_expect(volume, 2, 1, "gone");
    kit_expect_product(volume, "p", "data", 4);
    cr_assert_eq(spb_event_pointer(volume), 1);
    cr_assert_eq(kit_put(volume, 1, "two"), 2);
    free(before);
    spb_volume_close(volume);
}

Test(steps, carried_out_is_not_visible_until_it_is_made_so)
{
    struct spb_volume *volume = filled();
    struct spb_param param;
    struct spb_group *group;

    OK(spb_group_new(volume, &group, &kit_err));
    decide_some(group);
    OK(spb_group_carry_out(group, &kit_err));
    kit_expect(volume, 1, 1, "one");
    cr_assert_eq(spb_event_pointer(volume), 1);
    spb_group_make_visible(group);
    spb_group_free(group);
    kit_expect(volume, 1, 2, "two");
    cr_assert_eq(spb_event_pointer(volume), 2);
    FAILS(SPB_NOT_FOUND, spb_param_find(volume, 2, &param, NULL, &kit_err));
    spb_volume_close(volume);
}

Test(steps, a_refused_decision_leaves_the_group_as_it_was)
{
    struct spb_volume *volume = filled();
    struct spb_group *group;
    uint8_t *before, *after;
    size_t before_size, after_size;
    struct spb_param_put put = {1, "x", 1, 7};
    struct spb_event event = {.payload_len = 65};

    OK(spb_group_new(volume, &group, &kit_err));
    decide_some(group);
    OK(spb_group_encode(group, &before, &before_size, &kit_err));
    FAILS(SPB_GENERATION, spb_group_put_param(group, &put, NULL, &kit_err));
    FAILS(SPB_INVALID, spb_group_append_events(group, &event, 1, NULL, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_group_delete_product(group, "q", 1, &kit_err));
    FAILS(SPB_AGAIN, spb_group_delete_product(group, "p", 1, &kit_err));
    FAILS(SPB_AGAIN, spb_group_delete_param(group, 2, SPB_ANY_GENERATION, &kit_err));
    OK(spb_group_encode(group, &after, &after_size, &kit_err));
    cr_assert_eq(before_size, after_size);
    cr_assert_arr_eq(before, after, before_size);
    free(before);
    free(after);
    spb_group_free(group);
    spb_volume_close(volume);
}

static void expect_verdicts(const struct spb_volume *volume, const uint8_t *bytes, size_t size,
                            enum spb_verdict want)
{
    struct spb_judgement *judgements;
    size_t count;
    static const char *const objects[] = {"param 1", "param 2", "events 1..1", "product p"};

    OK(spb_changes_judge(bytes, size, volume, &judgements, &count, &kit_err));
    cr_assert_eq(count, 4);
    for (size_t i = 0; i < count; i++) {
        cr_assert_str_eq(judgements[i].object, objects[i]);
        cr_assert_eq(judgements[i].verdict, want, "%s: %s", objects[i],
                     spb_verdict_name(judgements[i].verdict));
    }
    free(judgements);
}

Test(steps, the_statement_tells_before_from_after)
{
    struct spb_volume *volume = filled();
    struct spb_group *group;
    uint8_t *bytes;
    size_t size;

    OK(spb_group_new(volume, &group, &kit_err));
    decide_some(group);
    OK(spb_group_encode(group, &bytes, &size, &kit_err));
    expect_verdicts(volume, bytes, size, SPB_VERDICT_BEFORE);
    OK(spb_group_carry_out(group, &kit_err));
    spb_group_make_visible(group);
    spb_group_free(group);
    expect_verdicts(volume, bytes, size, SPB_VERDICT_AFTER);
    free(bytes);
    spb_volume_close(volume);
}

Test(steps, a_damaged_statement_is_refused)
{
    struct spb_volume *volume = filled();
    struct spb_group *group;
    struct spb_judgement *judgements;
    uint8_t *bytes;
    size_t size, count;

    OK(spb_group_new(volume, &group, &kit_err));
    decide_some(group);
    OK(spb_group_encode(group, &bytes, &size, &kit_err));
    spb_group_free(group);
    for (size_t cut = 0; cut < size; cut++)
        FAILS(SPB_CORRUPT, spb_changes_judge(bytes, cut, volume, &judgements, &count, &kit_err));
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        FAILS(SPB_CORRUPT, spb_changes_judge(bytes, size, volume, &judgements, &count, &kit_err));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(bytes);
    spb_volume_close(volume);
}

/* The encoding outlives versions of the program: it is held by a golden file, in hex. */
Test(steps, the_encoding_is_the_golden_one)
{
    struct spb_volume *volume = filled();
    struct spb_group *group;
    const char *source = getenv("SPB_SOURCE_DIR");
    char path[512], golden[8192] = "", hex[8192] = "";
    uint8_t *bytes;
    size_t size;

    (void)snprintf(path, sizeof(path), "%s/tests/golden/changes-v1.hex", source ? source : "../..");
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "cannot read %s", path);
    size_t read = fread(golden, 1, sizeof(golden) - 1, file);
    (void)fclose(file);
    golden[read] = '\0';
    OK(spb_group_new(volume, &group, &kit_err));
    decide_some(group);
    OK(spb_group_encode(group, &bytes, &size, &kit_err));
    spb_group_free(group);
    cr_assert_lt(2 * size + 2, sizeof(hex));
    for (size_t i = 0; i < size; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    hex[2 * size] = '\n';
    cr_assert_str_eq(hex, golden);
    free(bytes);
    spb_volume_close(volume);
}
