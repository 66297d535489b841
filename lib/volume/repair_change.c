/*
 * Deciding a repair: erases corrupt parameter slots, puts a record that says "lost" in a corrupt
 * event's place, drops catalog entries whose data cannot be read. Only what the report lists. No
 * I/O.
 */
#include <stdlib.h>
#include <string.h>

#include "volume/change.h"
#include "volume/state.h"

static spb_status state_cell(struct spb_group *group, const struct spb_cell_change *cell,
                             struct spb_error *err)
{
    struct spb_change change = {.kind = SPB_CHANGE_CELL, .of.cell = *cell};
    uint8_t bytes[32 + 2 * SPB_PARAM_SIZE];
    struct spb_writer w = spb_writer_over(bytes, sizeof(bytes));

    spb_change_write(&w, &change);
    SPB_ASSERT(!w.failed);
    return spb_group_state_change(group, bytes, w.pos, err);
}

static spb_status erase_param(struct spb_group *group, uint32_t slot, struct spb_error *err)
{
    static const uint8_t zeros[SPB_PARAM_SIZE];
    uint32_t last;

    if (slot >= group->volume->geo.param_slots ||
        group->cells[slot].cell.state != SPB_PARAM_CORRUPT)
        return spb_ok();
    uint64_t at = spb_param_at(&group->volume->geo, slot);
    struct spb_cell_change cell = {SPB_CELL_PARAM, slot, SPB_PARAM_SIZE, group->volume->meta + at,
                                   zeros};
    SPB_TRY(spb_group_erase(group, 0, at, SPB_PARAM_SIZE, &last, err));
    group->cells[slot].cell = (struct spb_cell){.state = SPB_PARAM_FREE};
    group->cells[slot].ready = last + 1;
    return state_cell(group, &cell, err);
}

static bool read_good(const struct spb_volume *volume, uint32_t index, struct spb_event *event)
{
    return spb_is_ok(spb_event_read(volume, index, event, NULL)) && !event->corrupt;
}

static spb_status replace_event(struct spb_group *group, uint32_t index, uint32_t timestamp,
                                struct spb_error *err)
{
    const struct spb_volume *volume = group->volume;
    uint8_t record[SPB_EVENT_SIZE];
    struct spb_event lost = {
        .timestamp = timestamp,
        .severity = SPB_SEVERITY_ERROR,
        .code = SPB_EVENT_CODE_LOST,
        .payload_len = 4,
        .payload = "lost",
    };

    spb_event_record_encode(&lost, record);
    uint64_t at = spb_event_at(&volume->geo, index % volume->geo.event_capacity);
    struct spb_cell_change cell = {SPB_CELL_EVENT, index, SPB_EVENT_SIZE, volume->meta + at,
                                   record};
    SPB_TRY(spb_group_edit(group, 0, at, record, sizeof(record), err));
    return state_cell(group, &cell, err);
}

/* The time of the oldest event that can be read; 0 where none can. */
static uint32_t first_good_time(const struct spb_volume *volume)
{
    uint32_t pointer = spb_event_pointer(volume);
    struct spb_event event;

    for (uint32_t i = spb_event_oldest(volume); i < pointer; i++)
        if (read_good(volume, i, &event))
            return event.timestamp;
    return 0;
}

/*
 * A lost event takes the time of the nearest good one before it, else of the nearest after. One
 * walk over the log, with the findings beside it, which are in the same order.
 */
static spb_status replace_events(struct spb_group *group, const struct spb_report *report,
                                 struct spb_error *err)
{
    const struct spb_volume *volume = group->volume;
    uint32_t pointer = spb_event_pointer(volume), timestamp = first_good_time(volume);
    struct spb_event event;
    size_t next = 0;

    for (uint32_t i = spb_event_oldest(volume); i < pointer; i++) {
        if (read_good(volume, i, &event)) {
            timestamp = event.timestamp;
            continue;
        }
        while (next < report->count && (report->findings[next].kind != SPB_FINDING_EVENT_CORRUPT ||
                                        report->findings[next].index < i))
            next++;
        if (next < report->count && report->findings[next].index == i)
            SPB_TRY(replace_event(group, i, timestamp, err));
    }
    return spb_ok();
}

static bool drops_entry(const struct spb_finding *finding)
{
    return finding->repairable && (finding->kind == SPB_FINDING_ENTRY_INVALID ||
                                   finding->kind == SPB_FINDING_PRODUCT_ROTTEN ||
                                   finding->kind == SPB_FINDING_PRODUCT_DUPLICATE);
}

static spb_status drop_entries(struct spb_group *group, const struct spb_report *report,
                               struct spb_error *err)
{
    uint32_t entries = group->volume->geo.entries;
    bool *drop = calloc((size_t)entries + 1, sizeof(*drop));

    if (drop == NULL)
        return spb_fail_memory(err, "repairing a volume");
    for (size_t i = 0; i < report->count; i++) {
        const struct spb_finding *finding = &report->findings[i];
        if (drops_entry(finding) && finding->index < entries)
            drop[finding->index] = true;
    }
    spb_status status = entries == 0 ? spb_ok() : spb_group_drop_entries(group, drop, err);
    free(drop);
    return status;
}

spb_status spb_group_repair(struct spb_group *group, const struct spb_report *report,
                            struct spb_error *err)
{
    spb_group_assert_open(group);
    if (!spb_group_is_empty(group))
        return spb_fail(err, SPB_AGAIN, "a repair of %s waits for the changes before it",
                        group->volume->device->name);
    for (size_t i = 0; i < report->count; i++) {
        const struct spb_finding *finding = &report->findings[i];
        if (finding->kind == SPB_FINDING_PARAM_CORRUPT)
            SPB_TRY(erase_param(group, finding->index, err));
    }
    SPB_TRY(replace_events(group, report, err));
    return drop_entries(group, report, err);
}
