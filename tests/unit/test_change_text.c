/* Changes in words, and their numbers in a group. */
#include "volume_kit.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "volume/change.h"

static void expect_texts(const struct spb_group *group, size_t first, size_t count,
                         const char *object, const char *before, const char *after)
{
    struct spb_change_texts texts, again;
    uint8_t *bytes;
    size_t size;

    OK(spb_group_describe(group, first, count, &texts, &kit_err));
    cr_expect_str_eq(texts.object, object);
    cr_expect_str_eq(texts.before, before);
    cr_expect_str_eq(texts.after, after);
    OK(spb_group_encode(group, &bytes, &size, &kit_err));
    OK(spb_changes_describe(bytes, size, first, count, &again, &kit_err));
    cr_expect_str_eq(again.object, object);
    cr_expect_str_eq(again.before, before);
    cr_expect_str_eq(again.after, after);
    free(bytes);
    spb_change_texts_done(&texts);
    spb_change_texts_done(&again);
    cr_expect_null(texts.object);
}

static struct spb_group *begin(struct spb_volume *volume)
{
    struct spb_group *group;

    OK(spb_group_new(volume, &group, &kit_err));
    cr_assert_eq(spb_group_change_count(group), 0);
    return group;
}

Test(change_text, parameters)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {42, "\x00\xff", 2, SPB_ANY_GENERATION};
    struct spb_param_put empty = {4294967295u, NULL, 0, SPB_ANY_GENERATION};

    kit_put(volume, 7, "a");
    kit_put(volume, 7, "b");
    kit_put(volume, 7, "c");
    struct spb_group *group = begin(volume);
    OK(spb_group_put_param(group, &put, NULL, &kit_err));
    OK(spb_group_put_param(group, &put, NULL, &kit_err));
    OK(spb_group_put_param(group, &empty, NULL, &kit_err));
    OK(spb_group_delete_param(group, 7, SPB_ANY_GENERATION, &kit_err));
    expect_texts(group, 0, 1, "param 42", "absent", "generation 1 value 0x00ff");
    expect_texts(group, 1, 1, "param 42", "generation 1 value 0x00ff", "generation 2 value 0x00ff");
    expect_texts(group, 2, 1, "param 4294967295", "absent", "generation 1 value 0x");
    expect_texts(group, 3, 1, "param 7", "generation 3 value 0x63 and 2 more slots", "absent");
    expect_texts(group, 1, 3, "param 42\nparam 4294967295\nparam 7",
                 "generation 1 value 0x00ff\nabsent\ngeneration 3 value 0x63 and 2 more slots",
                 "generation 2 value 0x00ff\ngeneration 1 value 0x\nabsent");
    expect_texts(group, 4, 0, "", "", "");
    spb_group_free(group);
    spb_volume_close(volume);
}

Test(change_text, a_corrupt_value_and_slots)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {9, "x", 1, SPB_ANY_GENERATION};
    uint8_t bad = 'Z';

    kit_put(volume, 9, "abc");
    kit_poke(volume, 512 + 8, &bad, 1);
    struct spb_group *group = begin(volume);
    OK(spb_group_write_param(group, 5, 300, 8, "ab", 2, &kit_err));
    OK(spb_group_put_param(group, &put, NULL, &kit_err));
    expect_texts(group, 0, 1, "param slot 5", "free", "param 300 generation 8 value 0x6162");
    expect_texts(group, 1, 1, "param 9", "corrupt, shows generation 1", "generation 2 value 0x78");
    spb_group_free(group);
    spb_volume_close(volume);
}

Test(change_text, events)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event events[] = {
        {.timestamp = 1200, .severity = 2, .code = 7, .payload_len = 2, .payload = {0, 0xFF}},
        {.timestamp = 4294967295u, .severity = 200, .code = 65535},
        {.severity = 4},
    };

    kit_append(volume, 1);
    struct spb_group *group = begin(volume);
    OK(spb_group_append_events(group, events, 3, NULL, &kit_err));
    OK(spb_group_append_events(group, events + 2, 1, NULL, &kit_err));
    expect_texts(group, 0, 1, "events 1..3", "pointer 1",
                 "pointer 4: 1200 WARN 7 0x00ff; 4294967295 200 65535 0x; 0 CRITICAL 0 0x");
    expect_texts(group, 1, 1, "events 4..4", "pointer 4", "pointer 5: 0 CRITICAL 0 0x");
    spb_group_free(group);
    spb_volume_close(volume);
}

static void publish(struct spb_volume *volume, struct spb_group *group, const char *name,
                    struct spb_reservation **reservation)
{
    struct spb_product_attributes attributes = {name, strlen(name), 300, 9};
    struct spb_product_data data = {600, 0x0a0b0c0d, 2};

    OK(spb_reservation_new(volume, 600, reservation, &kit_err));
    OK(spb_group_publish_product(group, *reservation, &attributes, &data, true, NULL, &kit_err));
}

Test(change_text, products)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_reservation *held[2];

    kit_product(volume, "a b", "data", 4, false);
    struct spb_group *group = begin(volume);
    publish(volume, group, "new", &held[0]);
    publish(volume, group, "a b", &held[1]);
    expect_texts(group, 0, 1, "product new", "absent",
                 "class 300 priority 9 blocks 2+2 crc 0a0b0c0d");
    char before[128];
    (void)snprintf(before, sizeof(before), "class 3 priority 2 blocks 1+1 crc %08x",
                   spb_crc32c(0, "data", 4));
    expect_texts(group, 1, 1, "product a b", before,
                 "class 300 priority 9 blocks 4+2 crc 0a0b0c0d");
    spb_group_free(group);
    group = begin(volume);
    OK(spb_group_delete_product(group, "a b", 3, &kit_err));
    expect_texts(group, 0, 1, "product a b", before, "absent");
    spb_group_free(group);
    spb_reservation_free(held[0]);
    spb_reservation_free(held[1]);
    spb_volume_close(volume);
}

/* Names may hold anything but NUL: a line stays a line, and what stands there can be read back. */
Test(change_text, names_are_escaped)
{
    static const struct {
        const char *name, *shown;
    } cases[] = {
        {"a\nb", "a\\x0ab"},
        {"tab\t\x7f", "tab\\x09\\x7f"},
        {"back\\slash", "back\\\\slash"},
        {"caf\xc3\xa9 \xe2\x82\xac", "caf\xc3\xa9 \xe2\x82\xac"},
        {"\xc2\x85next", "\\xc2\\x85next"},
        {"\xc2\xa0", "\xc2\xa0"},
        {"\xe2\x80\xa8line", "\\xe2\\x80\\xa8line"},
        {"\xe2\x80\xae turned", "\\xe2\\x80\\xae turned"},
        {"\xe2\x80\xaf\xe2\x80\xa7", "\xe2\x80\xaf\xe2\x80\xa7"},
        {"\xe2\x81\xa6 apart", "\\xe2\\x81\\xa6 apart"},
        {"\xf0\x9f\x9b\xb0", "\xf0\x9f\x9b\xb0"},
    };
    struct spb_volume *volume = kit_volume(512);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spb_change_texts texts;
        char want[128];
        kit_product(volume, cases[i].name, "d", 1, false);
        struct spb_group *group = begin(volume);
        OK(spb_group_delete_product(group, cases[i].name, strlen(cases[i].name), &kit_err));
        OK(spb_group_describe(group, 0, 1, &texts, &kit_err));
        (void)snprintf(want, sizeof(want), "product %s", cases[i].shown);
        cr_expect_str_eq(texts.object, want);
        spb_change_texts_done(&texts);
        spb_group_free(group);
        OK(spb_volume_delete_product(volume, cases[i].name, strlen(cases[i].name), &kit_err));
    }
    spb_volume_close(volume);
}

/* What repair does: a corrupt slot, a lost event, an entry that breaks the rules. */
Test(change_text, repairs)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_report report;
    uint8_t bad = 0xEE, entry[80] = {0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 70};
    struct spb_change_texts texts;

    kit_put(volume, 4, "abc");
    kit_append(volume, 1);
    kit_poke(volume, 512 + 100, &bad, 1);
    kit_poke(volume, 18 * 512 + 20, &bad, 1);
    kit_poke(volume, 33 * 512, entry, sizeof(entry));
    OK(spb_volume_check(volume, NULL, NULL, &report, &kit_err));
    struct spb_group *group = begin(volume);
    OK(spb_group_repair(group, &report, &kit_err));
    cr_assert_eq(spb_group_change_count(group), 3);
    OK(spb_group_describe(group, 0, 3, &texts, &kit_err));
    cr_expect_str_eq(texts.object, "param slot 0\nevent 0\ncatalog entry 0");
    cr_expect_str_eq(texts.after, "free\n0 ERROR 65535 0x6c6f7374\nfree");
    cr_expect_eq(strncmp(texts.before,
                         "corrupt, shows param 4 generation 1\ncorrupt\n"
                         "invalid 0x000000010000000100000046",
                         60),
                 0, "%s", texts.before);
    spb_change_texts_done(&texts);
    spb_report_done(&report);
    spb_group_free(group);
    spb_volume_close(volume);
}

/* A caller knows the changes of each decision from the counts around it. */
Test(change_text, each_decision_is_one_run)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put batch[] = {{1, "x", 1, SPB_ANY_GENERATION},
                                    {2, "y", 1, SPB_ANY_GENERATION}};
    struct spb_param_put wrong = {3, "z", 1, 5};
    struct spb_event event = {.code = 1};
    struct spb_judgement *judgements;
    uint8_t *bytes;
    size_t size, count;

    struct spb_group *group = begin(volume);
    OK(spb_group_put_params(group, batch, 2, NULL, &kit_err));
    cr_assert_eq(spb_group_change_count(group), 2);
    FAILS(SPB_GENERATION, spb_group_put_param(group, &wrong, NULL, &kit_err));
    cr_assert_eq(spb_group_change_count(group), 2);
    OK(spb_group_append_events(group, &event, 1, NULL, &kit_err));
    cr_assert_eq(spb_group_change_count(group), 3);
    batch[1].expected_generation = 9;
    FAILS(SPB_GENERATION, spb_group_put_params(group, batch, 2, NULL, &kit_err));
    cr_assert_eq(spb_group_change_count(group), 3);
    OK(spb_group_put_param(group, &batch[0], NULL, &kit_err));
    OK(spb_group_encode(group, &bytes, &size, &kit_err));
    OK(spb_changes_judge(bytes, size, volume, &judgements, &count, &kit_err));
    cr_assert_eq(count, spb_group_change_count(group));
    cr_expect_str_eq(judgements[2].object, "events 0..0");
    free(judgements);
    free(bytes);
    spb_group_free(group);
    spb_volume_close(volume);
}

Test(change_text, ranges_beyond_are_refused)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param_put put = {1, "x", 1, SPB_ANY_GENERATION};
    struct spb_change_texts texts;
    uint8_t *bytes;
    size_t size;
    static const size_t ranges[][2] = {{0, 2}, {1, 1}, {2, 0}, {SIZE_MAX, 1}, {0, SIZE_MAX}};

    struct spb_group *group = begin(volume);
    OK(spb_group_put_param(group, &put, NULL, &kit_err));
    OK(spb_group_encode(group, &bytes, &size, &kit_err));
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        FAILS(SPB_INVALID, spb_group_describe(group, ranges[i][0], ranges[i][1], &texts, &kit_err));
        FAILS(SPB_INVALID,
              spb_changes_describe(bytes, size, ranges[i][0], ranges[i][1], &texts, &kit_err));
    }
    for (size_t cut = 0; cut < size; cut++)
        FAILS(SPB_CORRUPT, spb_changes_describe(bytes, cut, 0, 1, &texts, &kit_err));
    free(bytes);
    spb_group_free(group);
    spb_volume_close(volume);
}

/* The most that each kind of change can say, from bytes that nothing but their CRC vouches for. */
static void write_longest(struct spb_writer *w)
{
    static uint8_t ones[252], records[2 * 76];
    struct spb_event event = {UINT32_MAX, false, UINT32_MAX, 255, 64, 65535, {0}};
    struct spb_change changes[] = {
        {.kind = SPB_CHANGE_PARAM,
         .of.param = {UINT32_MAX,
                      true,
                      UINT16_MAX,
                      {SPB_VALUE_VALID, 65535, 240, ones},
                      {SPB_VALUE_CORRUPT, 65535, 240, ones}}},
        {.kind = SPB_CHANGE_EVENTS, .of.events = {UINT32_MAX, UINT32_MAX, 2, records}},
        {.kind = SPB_CHANGE_PRODUCT, .of.product = {ones, ones}},
        {.kind = SPB_CHANGE_CELL, .of.cell = {SPB_CELL_PARAM, UINT32_MAX, 252, ones, ones}},
        {.kind = SPB_CHANGE_CELL, .of.cell = {SPB_CELL_EVENT, UINT32_MAX, 76, records, ones}},
        {.kind = SPB_CHANGE_CELL, .of.cell = {SPB_CELL_ENTRY, UINT32_MAX, 80, ones, ones}},
    };

    memset(ones, 0xFF, sizeof(ones));
    spb_event_record_encode(&event, records);
    spb_event_record_encode(&event, records + 76);
    spb_write_be32(w, SPB_CHANGES_MAGIC);
    spb_write_be16(w, SPB_CHANGES_VERSION);
    spb_write_be32(w, 6);
    for (size_t i = 0; i < 6; i++)
        spb_change_write(w, &changes[i]);
    spb_write_be32(w, spb_crc32c(0, w->data, w->pos));
}

Test(change_text, the_longest_lines_fit)
{
    uint8_t bytes[4096];
    struct spb_writer w = spb_writer_over(bytes, sizeof(bytes));
    struct spb_change_texts texts;

    write_longest(&w);
    for (size_t i = 0; i < 6; i++) {
        OK(spb_changes_describe(bytes, w.pos, i, 1, &texts, &kit_err));
        cr_assert_null(strchr(texts.object, '\n'));
        cr_assert_null(strchr(texts.before, '\n'));
        cr_assert_null(strchr(texts.after, '\n'));
        spb_change_texts_done(&texts);
    }
    OK(spb_changes_describe(bytes, w.pos, 0, 6, &texts, &kit_err));
    cr_assert_eq(strlen(texts.object) > 4 * 64, true);
    spb_change_texts_done(&texts);
}
