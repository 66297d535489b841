/* Check and repair: each damage is found, listed, and mended only by repair. */
#include "volume_kit.h"

#include <stdio.h>

static size_t count_of(const struct spb_report *report, enum spb_finding_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < report->count; i++)
        count += report->findings[i].kind == kind;
    return count;
}

static struct spb_report check(struct spb_volume *volume)
{
    struct spb_report report;

    OK(spb_volume_check(volume, NULL, NULL, &report, &kit_err));
    return report;
}

static void repair_and_expect_clean(struct spb_volume *volume)
{
    struct spb_report report;

    OK(spb_volume_repair(volume, NULL, NULL, &report, &kit_err));
    spb_report_done(&report);
    report = check(volume);
    cr_assert_eq(report.count, 0, "%s", report.count > 0 ? report.findings[0].text : "");
    spb_report_done(&report);
}

Test(check, clean_volume_and_its_counts)
{
    struct spb_volume *volume = kit_volume(512);

    kit_put(volume, 1, "a");
    kit_put(volume, 1, "b");
    kit_append(volume, 1);
    kit_product(volume, "p", "data", 4, false);
    struct spb_report report = check(volume);
    cr_assert_eq(report.count, 0);
    cr_assert(report.params_valid == 2 && report.params_superseded == 1 &&
              report.params_free == 30);
    cr_assert(report.events_live == 1 && report.products_good == 1);
    cr_assert(report.blocks_used == 2 && report.blocks_free == 65);
    spb_report_done(&report);
    spb_volume_close(volume);
}

Test(check, corrupt_parameter)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_param param;

    kit_put(volume, 1, "a");
    kit_put(volume, 2, "b");
    kit_poke(volume, 512 + 100, "\xEE", 1);
    struct spb_report report = check(volume);
    cr_assert_eq(count_of(&report, SPB_FINDING_PARAM_CORRUPT), 1);
    cr_assert(report.findings[0].index == 0 && report.findings[0].repairable);
    spb_report_done(&report);
    FAILS(SPB_CORRUPT, spb_param_find(volume, 1, &param, NULL, &kit_err));
    repair_and_expect_clean(volume);
    FAILS(SPB_NOT_FOUND, spb_param_find(volume, 1, &param, NULL, &kit_err));
    kit_expect(volume, 2, 1, "b");
    spb_volume_close(volume);
}

Test(check, corrupt_event_is_replaced_in_its_place)
{
    for (uint32_t sector_size = 512; sector_size <= 4096; sector_size *= 8) {
        struct spb_volume *volume = kit_volume(sector_size);
        struct spb_event event;
        for (uint16_t i = 0; i < 12; i++)
            kit_append(volume, i);
        kit_poke(volume, 18ull * sector_size + 4 * 76 + 30, "\xEE", 1);
        struct spb_report report = check(volume);
        cr_assert(count_of(&report, SPB_FINDING_EVENT_CORRUPT) == 1 && report.events_corrupt == 1);
        cr_assert_eq(report.findings[0].index, 4);
        spb_report_done(&report);
        repair_and_expect_clean(volume);
        OK(spb_event_read(volume, 4, &event, &kit_err));
        cr_assert(event.severity == 3 && event.code == 65535 && event.payload_len == 4 &&
                  memcmp(event.payload, "lost", 4) == 0);
        OK(spb_event_read(volume, 5, &event, &kit_err));
        cr_assert_eq(event.code, 5);
        spb_volume_close(volume);
    }
}

Test(check, pointer_that_disagrees_is_reported_and_not_repaired)
{
    struct spb_volume *volume = kit_volume(512);
    static const uint8_t zero[4], ahead[4] = {0, 0, 0, 9};

    for (uint16_t i = 0; i < 7; i++)
        kit_append(volume, i);
    kit_poke(volume, 17 * 512, zero, 4);
    struct spb_report report = check(volume);
    cr_assert_eq(count_of(&report, SPB_FINDING_POINTER), 1);
    cr_assert_not(report.findings[0].repairable);
    spb_report_done(&report);
    OK(spb_volume_repair(volume, NULL, NULL, &report, &kit_err));
    spb_report_done(&report);
    cr_assert_eq(spb_event_pointer(volume), 0);
    kit_poke(volume, 17 * 512, ahead, 4);
    report = check(volume);
    cr_assert_eq(count_of(&report, SPB_FINDING_POINTER), 1);
    cr_assert_eq(count_of(&report, SPB_FINDING_EVENT_CORRUPT), 2);
    spb_report_done(&report);
    spb_volume_close(volume);
}

Test(check, rotten_product_and_bad_entries)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product product = kit_product(volume, "rot", "data", 4, false);
    uint8_t *data;
    size_t size;

    kit_product(volume, "bad", "more", 4, false);
    kit_product(volume, "good", "fine", 4, false);
    kit_poke(volume, (33 + (uint64_t)product.block_offset) * 512, "X", 1);
    kit_poke(volume, 33 * 512 + 80 + 11, "\x41", 1); /* name_len of the second: 65 */
    struct spb_report report = check(volume);
    cr_assert_eq(count_of(&report, SPB_FINDING_PRODUCT_ROTTEN), 1);
    cr_assert_eq(count_of(&report, SPB_FINDING_ENTRY_INVALID), 1);
    cr_assert(report.products_good == 1 && report.products_bad == 2);
    spb_report_done(&report);
    repair_and_expect_clean(volume);
    FAILS(SPB_NOT_FOUND, spb_volume_get_product(volume, "rot", 3, &data, &size, &kit_err));
    kit_expect_product(volume, "good", "fine", 4);
    spb_volume_close(volume);
}

/* A finding's text, of the one product, whose data is spoilt. */
static void expect_shown(const char *name, const char *shown)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_product product = kit_product(volume, name, "data", 4, false);
    char expected[sizeof(((struct spb_finding *)NULL)->text)];

    kit_poke(volume, (33 + (uint64_t)product.block_offset) * 512, "X", 1);
    struct spb_report report = check(volume);
    cr_assert_eq(report.count, 1);
    (void)snprintf(expected, sizeof(expected),
                   "product %s (catalog entry 0) is corrupt: its data cannot be read, or does not "
                   "match its CRC",
                   shown);
    cr_expect_str_eq(report.findings[0].text, expected);
    spb_report_done(&report);
    spb_volume_close(volume);
}

Test(check, names_of_products_are_shown_as_they_are)
{
    char name[SPB_PRODUCT_NAME_MAX + 1] = "", shown[4 * SPB_PRODUCT_NAME_MAX + 1];

    expect_shown("p\xc3\xa9\"q", "p\xc3\xa9\"q");
    expect_shown("two\nlines \\ \xc2\x9b", "two\\x0alines \\\\ \\xc2\\x9b");
    for (size_t i = 0; i < SPB_PRODUCT_NAME_MAX; i++) {
        name[i] = '\x01';
        memcpy(shown + 4 * i, "\\x01", 5);
    }
    expect_shown(name, shown);
}

Test(check, names_that_are_no_text_are_escaped)
{
    struct spb_volume *volume = kit_volume(512);

    kit_product(volume, "bad", "more", 4, false);
    kit_poke(volume, 33 * 512 + 12, "\xff\xc3(", 3); /* its name */
    struct spb_report report = check(volume);
    cr_assert_eq(report.count, 1);
    cr_expect_not_null(strstr(report.findings[0].text, " (\\xff\\xc3() is corrupt"));
    spb_report_done(&report);
    spb_volume_close(volume);
}

Test(check, several_drops_in_a_catalog_with_a_gap)
{
    struct spb_volume *volume = kit_volume(512);
    uint8_t catalog[480];
    struct spb_device *device = spb_volume_device(volume);

    kit_product(volume, "a", "1", 1, false);
    kit_product(volume, "b", "2", 1, false);
    kit_product(volume, "c", "3", 1, false);
    kit_product(volume, "d", "4", 1, false);
    OK(spb_device_read(device, 33 * 512, catalog, sizeof(catalog), &kit_err));
    /* a, gap, b rotten, c rotten, d: as another writer may leave it. */
    memmove(catalog + 160, catalog + 80, 240);
    memset(catalog + 80, 0, 80);
    catalog[160 + 79] ^= 1;
    catalog[240 + 79] ^= 1;
    kit_poke(volume, 33 * 512, catalog, sizeof(catalog));
    repair_and_expect_clean(volume);
    kit_expect_product(volume, "a", "1", 1);
    kit_expect_product(volume, "d", "4", 1);
    spb_volume_close(volume);
}

Test(check, overlap_keeps_the_one_that_matches)
{
    struct spb_volume *volume = kit_volume(512);
    uint8_t big[1024];

    memset(big, 1, sizeof(big));
    kit_product(volume, "big", big, 1000, false);   /* blocks 1, 2 */
    kit_product(volume, "small", "s", 1, false);    /* block 3 */
    kit_poke(volume, 33 * 512 + 80 + 3, "\x02", 1); /* small now names block 2 */
    struct spb_report report = check(volume);
    cr_assert_eq(count_of(&report, SPB_FINDING_PRODUCT_OVERLAP), 2);
    cr_assert_eq(count_of(&report, SPB_FINDING_PRODUCT_ROTTEN), 1);
    spb_report_done(&report);
    repair_and_expect_clean(volume);
    kit_expect_product(volume, "big", big, 1000);
    spb_volume_close(volume);
}

static bool stop(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    return false;
}

Test(check, can_be_ended)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_report report;
    uint8_t data[2048];

    memset(data, 1, sizeof(data));
    kit_product(volume, "p", data, sizeof(data), false);
    FAILS(SPB_DEADLINE, spb_volume_check(volume, stop, NULL, &report, &kit_err));
    spb_volume_close(volume);
}

Test(check, summary_names_the_areas)
{
    struct spb_volume *volume = kit_volume(512);
    char *text = spb_volume_describe(volume);

    cr_assert(strstr(text, "100 blocks of 512 bytes") != NULL, "%s", text);
    cr_assert(strstr(text, "parameters") != NULL && strstr(text, "data products") != NULL);
    free(text);
    spb_volume_close(volume);
}

Test(check, what_the_medium_lost_is_found_and_written_again)
{
    struct spb_volume *volume = kit_volume(4096);
    struct spb_device *device = spb_volume_device(volume);
    uint8_t junk[1024], before[1024], after[1024];

    kit_put(volume, 1, "a");
    kit_append(volume, 1);
    OK(spb_device_read(device, 4096, before, sizeof(before), &kit_err));
    memset(junk, 0xFF, sizeof(junk));
    OK(spb_device_write(device, 4096, junk, sizeof(junk), &kit_err));
    struct spb_report report = check(volume);
    cr_assert_eq(count_of(&report, SPB_FINDING_MEDIUM), 2);
    cr_assert(report.findings[0].index == 8 && report.findings[0].repairable);
    spb_report_done(&report);
    repair_and_expect_clean(volume);
    OK(spb_device_read(device, 4096, after, sizeof(after), &kit_err));
    cr_assert_arr_eq(before, after, sizeof(before));
    spb_volume_close(volume);
}
