/*
 * Deciding an append. No I/O. Records of a chunk of R go in one round, the pointer in the next, so
 * that a crash spoils at most the R oldest slots, which the live window leaves out. The pointer's
 * writes are settled when the group is sealed, since appends of one group share them.
 */
#include <stdlib.h>

#include "volume/change.h"
#include "volume/state.h"

static spb_status check_events(const struct spb_group *group, const struct spb_event *events,
                               size_t count, struct spb_error *err)
{
    const char *name = group->volume->device->name;
    uint32_t window = spb_event_window(group->volume);

    if (count == 0)
        return spb_fail(err, SPB_INVALID, "cannot append no events to %s", name);
    if (count > window)
        return spb_fail(err, SPB_LIMIT,
                        "cannot append %zu events to %s at once: expected at most %u", count, name,
                        window);
    for (size_t i = 0; i < count; i++)
        if (events[i].payload_len > SPB_EVENT_PAYLOAD_MAX)
            return spb_fail(err, SPB_INVALID,
                            "cannot append event %zu of %zu to %s: its payload has %u bytes, "
                            "expected at most %u",
                            i + 1, count, name, events[i].payload_len, SPB_EVENT_PAYLOAD_MAX);
    return spb_ok();
}

/* Must the append wait for the group before it? */
static bool must_wait(const struct spb_group *group, size_t count)
{
    bool wraps = (uint64_t)group->pointer + count > UINT32_MAX;

    if (group->event_count == 0)
        return false;
    /* What a wrap does to the pointer depends on where its chunks begin: it goes alone. */
    return group->event_wrapped || wraps ||
           group->event_count + count > spb_event_window(group->volume);
}

static spb_status add_records(struct spb_group *group, const uint8_t *records, uint32_t count,
                              struct spb_error *err)
{
    const struct spb_geometry *geo = &group->volume->geo;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t ordinal = group->event_count + i;
        uint64_t index = (uint64_t)group->volume->pointer + ordinal;
        uint32_t round = 2 * (ordinal / geo->events_per_block);
        uint64_t at = spb_event_at(geo, (uint32_t)(index % geo->event_capacity));
        SPB_TRY(spb_group_edit(group, round, at, records + (size_t)i * SPB_EVENT_SIZE,
                               SPB_EVENT_SIZE, err));
    }
    return spb_ok();
}

static spb_status state_events(struct spb_group *group, const uint8_t *records, uint32_t count,
                               uint32_t after, struct spb_error *err)
{
    struct spb_change change = {
        .kind = SPB_CHANGE_EVENTS,
        .of.events = {group->pointer, after, count, records},
    };
    size_t size = spb_change_size(&change);
    uint8_t *bytes = malloc(size);

    if (bytes == NULL)
        return spb_fail_memory(err, "deciding an append");
    struct spb_writer w = spb_writer_over(bytes, size);
    spb_change_write(&w, &change);
    spb_status status = spb_group_state_change(group, bytes, size, err);
    free(bytes);
    return status;
}

static spb_status decide(struct spb_group *group, const uint8_t *records, uint32_t count,
                         struct spb_error *err)
{
    uint32_t after = spb_pointer_advance(&group->volume->geo, group->volume->pointer,
                                         group->event_count + count);
    struct spb_point before = spb_group_point(group);
    spb_status status = add_records(group, records, count, err);

    if (spb_is_ok(status))
        status = state_events(group, records, count, after, err);
    if (!spb_is_ok(status)) {
        spb_group_return(group, &before);
        return status;
    }
    group->event_wrapped = (uint64_t)group->pointer + count > UINT32_MAX;
    group->event_count += count;
    group->pointer = after;
    return status;
}

spb_status spb_group_append_events(struct spb_group *group, const struct spb_event *events,
                                   size_t count, uint32_t *first_index, struct spb_error *err)
{
    spb_group_assert_open(group);
    SPB_TRY(check_events(group, events, count, err));
    if (must_wait(group, count))
        return spb_fail(err, SPB_AGAIN, "an append to %s waits for those before it",
                        group->volume->device->name);
    uint8_t *records = malloc(count * SPB_EVENT_SIZE);
    if (records == NULL)
        return spb_fail_memory(err, "deciding an append");
    for (size_t i = 0; i < count; i++)
        spb_event_record_encode(&events[i], records + i * SPB_EVENT_SIZE);
    spb_status status = decide(group, records, (uint32_t)count, err);
    free(records);
    if (spb_is_ok(status) && first_index != NULL)
        *first_index = group->pointer - (uint32_t)count;
    return status;
}
