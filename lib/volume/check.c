/*
 * The check (fsck): every record of the metadata, and the data of every product. Finds and reports;
 * writes nothing. The actor's thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "volume/check.h"
#include "volume/name_text.h"

const char *spb_finding_name(enum spb_finding_kind kind)
{
    static const char *const names[] = {
        [SPB_FINDING_PARAM_CORRUPT] = "param-corrupt",
        [SPB_FINDING_POINTER] = "event-pointer",
        [SPB_FINDING_EVENT_CORRUPT] = "event-corrupt",
        [SPB_FINDING_ENTRY_INVALID] = "entry-invalid",
        [SPB_FINDING_PRODUCT_ROTTEN] = "product-rotten",
        [SPB_FINDING_PRODUCT_DUPLICATE] = "product-duplicate",
        [SPB_FINDING_PRODUCT_OVERLAP] = "product-overlap",
        [SPB_FINDING_MEDIUM] = "medium",
    };

    if ((unsigned)kind >= sizeof(names) / sizeof(names[0]))
        return "unknown";
    return names[kind];
}

spb_status spb_report_add(struct spb_report *report, enum spb_finding_kind kind, uint32_t index,
                          bool repairable, struct spb_error *err, const char *format, ...)
{
    va_list args;
    struct spb_finding *findings = report->findings;

    /* Room doubles at each power of two, so that many findings cost no more each than few. */
    if ((report->count & (report->count - 1)) == 0) {
        findings =
            realloc(findings, (report->count == 0 ? 1 : 2 * report->count) * sizeof(*findings));
        if (findings == NULL)
            return spb_fail_memory(err, "checking a volume");
        report->findings = findings;
    }
    struct spb_finding *finding = &findings[report->count++];
    *finding = (struct spb_finding){.kind = kind, .index = index, .repairable = repairable};
    va_start(args, format);
    (void)vsnprintf(finding->text, sizeof(finding->text), format, args);
    va_end(args);
    return spb_ok();
}

/*
 * An owner's metadata is in memory: what the medium holds is compared with it. Who only reads has
 * just read it, and another may be writing.
 */
static spb_status check_medium(struct spb_volume *volume, struct spb_report *report,
                               struct spb_error *err)
{
    struct spb_sector *differing = NULL;
    size_t count = 0;
    spb_status status = spb_ok();

    if (!volume->writable)
        return status;
    SPB_TRY(spb_medium_compare(volume, &differing, &count, err));
    for (size_t i = 0; spb_is_ok(status) && i < count; i++)
        status = spb_report_add(
            report, SPB_FINDING_MEDIUM, (uint32_t)differing[i].number, true, err,
            "sector %llu (block %llu) of the medium no longer holds what was made durable "
            "there",
            (unsigned long long)differing[i].number,
            (unsigned long long)(differing[i].number * SPB_SECTOR_SIZE / volume->geo.block_size));
    free(differing);
    return status;
}

spb_status spb_check_params(const struct spb_volume *volume, struct spb_report *report,
                            struct spb_error *err)
{
    struct spb_param param;

    for (uint32_t i = 0; i < volume->geo.param_slots; i++) {
        SPB_TRY(spb_param_read_slot(volume, i, &param, err));
        if (param.state == SPB_PARAM_FREE) {
            report->params_free++;
        } else if (param.state == SPB_PARAM_VALID) {
            report->params_valid++;
            report->params_superseded += !param.newest;
        } else {
            report->params_corrupt++;
            SPB_TRY(spb_report_add(report, SPB_FINDING_PARAM_CORRUPT, i, true, err,
                                   "parameter slot %u is corrupt: it shows id %u and generation %u",
                                   i, param.id, param.generation));
        }
    }
    return spb_ok();
}

static bool slot_is_zero(const struct spb_volume *volume, uint32_t index)
{
    uint32_t slot = index % volume->geo.event_capacity;

    return spb_bytes_are_zero(volume->meta + spb_event_at(&volume->geo, slot), SPB_EVENT_SIZE);
}

static uint32_t count_valid_records(const struct spb_volume *volume)
{
    uint32_t count = 0;
    struct spb_event event;

    for (uint32_t slot = 0; slot < volume->geo.event_capacity; slot++) {
        spb_event_record_decode(volume->meta + spb_event_at(&volume->geo, slot), &event);
        count += !event.corrupt;
    }
    return count;
}

static spb_status check_pointer(const struct spb_volume *volume, uint32_t zero_slots,
                                uint32_t first_zero, struct spb_report *report,
                                struct spb_error *err)
{
    uint32_t pointer = volume->pointer;

    if (zero_slots > 0)
        SPB_TRY(spb_report_add(
            report, SPB_FINDING_POINTER, pointer, false, err,
            "the event pointer is %u, but %u of the live slots were never written, that of "
            "event %u first: the pointer may be ahead of the records",
            pointer, zero_slots, first_zero));
    uint32_t records = pointer == 0 ? count_valid_records(volume) : 0;
    if (records > 0)
        SPB_TRY(spb_report_add(
            report, SPB_FINDING_POINTER, 0, false, err,
            "the event pointer is 0, but %u slots hold a valid record: the pointer was "
            "lost, or the first append was cut off",
            records));
    return spb_ok();
}

spb_status spb_check_events(const struct spb_volume *volume, struct spb_report *report,
                            struct spb_error *err)
{
    uint32_t pointer = spb_event_pointer(volume), zero_slots = 0, first_zero = 0;
    struct spb_event event;

    for (uint32_t i = spb_event_oldest(volume); i < pointer; i++) {
        SPB_TRY(spb_event_read(volume, i, &event, err));
        report->events_live++;
        if (!event.corrupt)
            continue;
        report->events_corrupt++;
        if (slot_is_zero(volume, i) && zero_slots++ == 0)
            first_zero = i;
        SPB_TRY(spb_report_add(report, SPB_FINDING_EVENT_CORRUPT, i, true, err,
                               "event %u is corrupt: its record's CRC or length is wrong", i));
    }
    return check_pointer(volume, zero_slots, first_zero, report, err);
}

/* ---- Products ------------------------------------------------------------------------------- */

bool spb_survey_progress(void *user, uint64_t done, uint64_t total)
{
    struct spb_survey *survey = user;
    uint64_t sum = survey->done + done;

    (void)total;
    return survey->progress == NULL ||
           survey->progress(survey->user, sum, sum > survey->total ? sum : survey->total);
}

bool spb_survey_has_data(const struct spb_product *product)
{
    return product->state != SPB_PRODUCT_FREE && product->state != SPB_PRODUCT_INVALID;
}

static spb_status survey_products(struct spb_volume *volume, struct spb_survey *survey,
                                  struct spb_error *err)
{
    uint32_t unit = volume->geo.block_size;

    for (uint32_t i = 0; i < survey->count; i++) {
        SPB_TRY(spb_product_entry(volume, i, &survey->products[i], err));
        if (spb_survey_has_data(&survey->products[i]))
            survey->total += (uint64_t)survey->products[i].block_count * unit;
    }
    for (uint32_t i = 0; i < survey->count; i++) {
        struct spb_product *product = &survey->products[i];
        uint64_t length = 0;
        if (!spb_survey_has_data(product))
            continue;
        /* Read again even where an earlier reading was good: a check is about the medium now. */
        spb_status status =
            spb_product_verify_again(volume, product, spb_survey_progress, survey, &length, err);
        if (!spb_is_ok(status) && status.code != SPB_CORRUPT && status.code != SPB_IO)
            return status;
        product->state = spb_is_ok(status) ? SPB_PRODUCT_GOOD : SPB_PRODUCT_ROTTEN;
        product->length = length;
        if (status.code != SPB_IO)
            spb_product_note(volume, product, spb_is_ok(status), length);
        survey->done += (uint64_t)product->block_count * unit;
    }
    return spb_ok();
}

/* Is there an entry below that counts for the same name? Only good ones count. */
static bool is_shadowed(const struct spb_survey *survey, uint32_t index)
{
    const struct spb_product *product = &survey->products[index];

    for (uint32_t i = 0; i < index; i++) {
        const struct spb_product *below = &survey->products[i];
        if (below->state == SPB_PRODUCT_GOOD && below->name_len == product->name_len &&
            memcmp(below->name, product->name, product->name_len) == 0)
            return true;
    }
    return false;
}

static void show_name(const struct spb_product *product, char out[SPB_NAME_SHOWN_MAX + 1])
{
    size_t n = product->name_len < SPB_PRODUCT_NAME_MAX ? product->name_len : SPB_PRODUCT_NAME_MAX;

    *spb_name_show(out, product->name, n) = '\0';
}

static spb_status check_overlaps(const struct spb_survey *survey, uint32_t index,
                                 struct spb_report *report, struct spb_error *err)
{
    for (uint32_t i = 0; i < survey->count; i++) {
        if (i == index || !spb_survey_has_data(&survey->products[i]) ||
            !spb_products_overlap(&survey->products[i], &survey->products[index]))
            continue;
        return spb_report_add(report, SPB_FINDING_PRODUCT_OVERLAP, index, false, err,
                              "catalog entry %u (blocks %u to %llu) overlaps entry %u", index,
                              survey->products[index].block_offset,
                              (unsigned long long)survey->products[index].block_offset +
                                  survey->products[index].block_count - 1,
                              i);
    }
    return spb_ok();
}

spb_status spb_report_rotten(const struct spb_product *product, struct spb_report *report,
                             struct spb_error *err)
{
    char name[SPB_NAME_SHOWN_MAX + 1];

    show_name(product, name);
    report->products_bad++;
    return spb_report_add(report, SPB_FINDING_PRODUCT_ROTTEN, product->entry, true, err,
                          "product %s (catalog entry %u) is corrupt: its data cannot be read, or "
                          "does not match its CRC",
                          name, product->entry);
}

spb_status spb_survey_report(const struct spb_survey *survey, uint32_t index,
                             struct spb_report *report, struct spb_error *err)
{
    const struct spb_product *product = &survey->products[index];
    char name[SPB_NAME_SHOWN_MAX + 1];

    if (product->state == SPB_PRODUCT_FREE)
        return spb_ok();
    show_name(product, name);
    if (product->state == SPB_PRODUCT_INVALID) {
        report->products_bad++;
        return spb_report_add(
            report, SPB_FINDING_ENTRY_INVALID, index, true, err,
            "catalog entry %u (%s) is corrupt: name of %u bytes, %u blocks from %u", index, name,
            product->name_len, product->block_count, product->block_offset);
    }
    SPB_TRY(check_overlaps(survey, index, report, err));
    if (product->state == SPB_PRODUCT_ROTTEN)
        return spb_report_rotten(product, report, err);
    report->products_good++;
    if (is_shadowed(survey, index))
        return spb_report_add(report, SPB_FINDING_PRODUCT_DUPLICATE, index, true, err,
                              "catalog entry %u has the name %s of an entry below, which counts",
                              index, name);
    return spb_ok();
}

void spb_report_space(const struct spb_volume *volume, struct spb_report *report)
{
    uint32_t largest;

    spb_product_space(volume, &report->blocks_free, &largest);
    report->blocks_used = volume->geo.dp_size - report->blocks_free;
}

static spb_status check_products(struct spb_volume *volume, spb_progress progress, void *user,
                                 struct spb_report *report, struct spb_error *err)
{
    struct spb_survey survey = {.count = volume->geo.entries, .progress = progress, .user = user};

    survey.products = calloc((size_t)survey.count + 1, sizeof(*survey.products));
    if (survey.products == NULL)
        return spb_fail_memory(err, "checking a volume");
    spb_status status = survey_products(volume, &survey, err);
    for (uint32_t i = 0; spb_is_ok(status) && i < survey.count; i++)
        status = spb_survey_report(&survey, i, report, err);
    free(survey.products);
    spb_report_space(volume, report);
    return status;
}

spb_status spb_volume_check(struct spb_volume *volume, spb_progress progress, void *user,
                            struct spb_report *report, struct spb_error *err)
{
    struct spb_report made = {0};
    spb_status status = check_medium(volume, &made, err);

    if (spb_is_ok(status))
        status = spb_check_params(volume, &made, err);
    if (spb_is_ok(status))
        status = spb_check_events(volume, &made, err);
    if (spb_is_ok(status))
        status = check_products(volume, progress, user, &made, err);
    if (!spb_is_ok(status)) {
        spb_report_done(&made);
        return status;
    }
    *report = made;
    return status;
}

void spb_report_done(struct spb_report *report)
{
    free(report->findings);
    report->findings = NULL;
    report->count = 0;
}
