/* Reading of the event log: the pointer, the live window, times. */
#include <stdlib.h>
#include <string.h>

#include "volume/state.h"

uint32_t spb_pointer_advance(const struct spb_geometry *geo, uint32_t pointer, uint32_t count)
{
    while (count > 0) {
        uint32_t step = count < geo->events_per_block ? count : geo->events_per_block;
        uint64_t next = (uint64_t)pointer + step;
        if (next > UINT32_MAX)
            next = geo->event_capacity + next % geo->event_capacity;
        pointer = (uint32_t)next;
        count -= step;
    }
    return pointer;
}

uint32_t spb_event_pointer(const struct spb_volume *volume)
{
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    uint32_t pointer = volume->pointer;
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    return pointer;
}

uint32_t spb_event_capacity(const struct spb_volume *volume)
{
    return volume->geo.event_capacity;
}

uint32_t spb_event_window(const struct spb_volume *volume)
{
    return volume->geo.event_capacity - volume->geo.events_per_block;
}

static uint32_t oldest_of(const struct spb_volume *volume, uint32_t pointer)
{
    uint32_t window = spb_event_window(volume);

    return pointer > window ? pointer - window : 0;
}

uint32_t spb_event_oldest(const struct spb_volume *volume)
{
    return oldest_of(volume, spb_event_pointer(volume));
}

static void event_locked(const struct spb_volume *volume, uint32_t index, struct spb_event *event)
{
    uint32_t slot = index % volume->geo.event_capacity;

    spb_event_record_decode(volume->meta + spb_event_at(&volume->geo, slot), event);
    event->index = index;
}

spb_status spb_event_read(const struct spb_volume *volume, uint32_t index, struct spb_event *event,
                          struct spb_error *err)
{
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    uint32_t pointer = volume->pointer, oldest = oldest_of(volume, pointer);
    bool live = index >= oldest && index < pointer;
    if (live)
        event_locked(volume, index, event);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    if (live)
        return spb_ok();
    if (pointer == 0)
        return spb_fail(err, SPB_NOT_FOUND, "cannot find event %u in %s: it has none", index,
                        volume->device->name);
    return spb_fail(err, SPB_NOT_FOUND, "cannot find event %u in %s: it shows %u to %u", index,
                    volume->device->name, oldest, pointer - 1);
}

spb_status spb_event_recent(const struct spb_volume *volume, uint32_t count,
                            struct spb_event **events, size_t *found, struct spb_error *err)
{
    uint32_t window = spb_event_window(volume);

    if (count > window)
        count = window;
    struct spb_event *list = calloc((size_t)count + 1, sizeof(*list));
    if (list == NULL)
        return spb_fail_memory(err, "listing events");
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    uint32_t live = volume->pointer - oldest_of(volume, volume->pointer);
    if (count > live)
        count = live;
    for (uint32_t i = 0; i < count; i++)
        event_locked(volume, volume->pointer - count + i, &list[i]);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    *events = list;
    *found = count;
    return spb_ok();
}

spb_status spb_event_time(const struct spb_volume *volume, int64_t unix_s, uint32_t *timestamp,
                          struct spb_error *err)
{
    uint64_t epoch = volume->super.epoch;

    if (unix_s < 0 || (uint64_t)unix_s < epoch)
        return spb_fail(err, SPB_INVALID,
                        "cannot date an event of %s: time %lld is before its epoch %llu",
                        volume->device->name, (long long)unix_s, (unsigned long long)epoch);
    if ((uint64_t)unix_s - epoch > UINT32_MAX)
        return spb_fail(err, SPB_INVALID,
                        "cannot date an event of %s: time %lld is more than %u seconds after its "
                        "epoch %llu",
                        volume->device->name, (long long)unix_s, UINT32_MAX,
                        (unsigned long long)epoch);
    *timestamp = (uint32_t)((uint64_t)unix_s - epoch);
    return spb_ok();
}
