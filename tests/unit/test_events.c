/* The event log: pointer, ring, live window, corrupt records, times. */
#include "volume_kit.h"

#include "volume/records.h"

static void set_pointer(struct spb_volume *volume, uint32_t pointer)
{
    uint8_t bytes[4] = {(uint8_t)(pointer >> 24), (uint8_t)(pointer >> 16), (uint8_t)(pointer >> 8),
                        (uint8_t)pointer};

    kit_poke(volume, 17ull * spb_volume_sector_size(volume), bytes, 4);
}

static uint32_t append_many(struct spb_volume *volume, uint32_t count, uint16_t first_code)
{
    struct spb_event *events = calloc(count, sizeof(*events));
    uint32_t index = 0;

    for (uint32_t i = 0; i < count; i++)
        events[i].code = (uint16_t)(first_code + i);
    OK(spb_volume_append_events(volume, events, count, &index, &kit_err));
    free(events);
    return index;
}

Test(events, live_window_is_the_newest_84_at_512)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event event;

    for (uint16_t i = 0; i < 200; i++)
        cr_assert_eq(kit_append(volume, i), i);
    cr_assert_eq(spb_event_pointer(volume), 200);
    cr_assert_eq(spb_event_window(volume), 84);
    cr_assert_eq(spb_event_oldest(volume), 116);
    for (uint32_t i = 116; i < 200; i++) {
        OK(spb_event_read(volume, i, &event, &kit_err));
        cr_assert(!event.corrupt && event.index == i && event.code == i);
    }
    FAILS(SPB_NOT_FOUND, spb_event_read(volume, 115, &event, &kit_err));
    FAILS(SPB_NOT_FOUND, spb_event_read(volume, 200, &event, &kit_err));
    spb_volume_close(volume);
}

Test(events, recent_are_oldest_first)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event *events;
    size_t found;

    OK(spb_event_recent(volume, 5, &events, &found, &kit_err));
    cr_assert_eq(found, 0);
    free(events);
    append_many(volume, 10, 0);
    OK(spb_event_recent(volume, 3, &events, &found, &kit_err));
    cr_assert(found == 3 && events[0].code == 7 && events[2].code == 9 && events[2].index == 9);
    free(events);
    OK(spb_event_recent(volume, 1000, &events, &found, &kit_err));
    cr_assert_eq(found, 10);
    free(events);
    spb_volume_close(volume);
}

Test(events, batches_up_to_the_window)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event events[85] = {0};
    struct spb_event event;

    append_many(volume, 40, 0);
    cr_assert_eq(append_many(volume, 84, 1000), 40);
    for (uint32_t i = 0; i < 84; i++) {
        OK(spb_event_read(volume, 40 + i, &event, &kit_err));
        cr_assert_eq(event.code, 1000 + i);
    }
    FAILS(SPB_LIMIT, spb_volume_append_events(volume, events, 85, NULL, &kit_err));
    FAILS(SPB_INVALID, spb_volume_append_events(volume, events, 0, NULL, &kit_err));
    spb_volume_close(volume);
}

Test(events, payload_of_64_and_65_bytes)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event event = {.payload_len = 64}, back;

    memset(event.payload, 'p', 64);
    OK(spb_volume_append_events(volume, &event, 1, NULL, &kit_err));
    OK(spb_event_read(volume, 0, &back, &kit_err));
    cr_assert(back.payload_len == 64 && memcmp(back.payload, event.payload, 64) == 0);
    event.payload_len = 65;
    FAILS(SPB_INVALID, spb_volume_append_events(volume, &event, 1, NULL, &kit_err));
    cr_assert_eq(spb_event_pointer(volume), 1);
    spb_volume_close(volume);
}

Test(events, corrupt_record_is_reported_and_others_read)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event event;

    append_many(volume, 5, 0);
    kit_poke(volume, 18 * 512 + 2 * 76 + 10, "\xEE", 1);
    OK(spb_event_read(volume, 2, &event, &kit_err));
    cr_assert(event.corrupt && event.index == 2);
    OK(spb_event_read(volume, 3, &event, &kit_err));
    cr_assert(!event.corrupt && event.code == 3);
    spb_volume_close(volume);
}

Test(events, pointer_wraps_and_keeps_its_slots)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_event event;

    set_pointer(volume, UINT32_MAX - 3);
    uint32_t first = append_many(volume, 10, 100);
    uint64_t logical = (uint64_t)UINT32_MAX - 3 + 10;
    cr_assert_eq(spb_event_pointer(volume) % 90, logical % 90);
    cr_assert_geq(spb_event_pointer(volume), 90);
    cr_assert_eq(first, spb_event_pointer(volume) - 10);
    for (uint32_t i = 0; i < 10; i++) {
        OK(spb_event_read(volume, first + i, &event, &kit_err));
        cr_assert(!event.corrupt && event.code == 100 + i, "event %u", i);
    }
    set_pointer(volume, UINT32_MAX - 1);
    cr_assert_eq(kit_append(volume, 1), UINT32_MAX - 1);
    cr_assert_eq(spb_event_pointer(volume), UINT32_MAX);
    kit_append(volume, 2);
    cr_assert_eq(spb_event_pointer(volume), 90 + (uint32_t)(((uint64_t)1 << 32) % 90));
    spb_volume_close(volume);
}

Test(events, times_are_refused_before_the_epoch_and_beyond)
{
    struct spb_volume *volume = kit_volume(512);
    uint32_t timestamp;

    OK(spb_event_time(volume, KIT_EPOCH, &timestamp, &kit_err));
    cr_assert_eq(timestamp, 0);
    OK(spb_event_time(volume, (int64_t)KIT_EPOCH + UINT32_MAX, &timestamp, &kit_err));
    cr_assert_eq(timestamp, UINT32_MAX);
    FAILS(SPB_INVALID, spb_event_time(volume, KIT_EPOCH - 1, &timestamp, &kit_err));
    FAILS(SPB_INVALID, spb_event_time(volume, -1, &timestamp, &kit_err));
    FAILS(SPB_INVALID,
          spb_event_time(volume, (int64_t)KIT_EPOCH + UINT32_MAX + 1, &timestamp, &kit_err));
    spb_volume_close(volume);
}

Test(events, a_group_shares_the_pointer_write)
{
    struct spb_volume *volume = kit_volume(512);
    struct spb_group *group;
    struct spb_event event = {.code = 5};
    uint32_t index;

    OK(spb_group_new(volume, &group, &kit_err));
    for (uint32_t i = 0; i < 6; i++) {
        OK(spb_group_append_events(group, &event, 1, &index, &kit_err));
        cr_assert_eq(index, i);
    }
    cr_assert_eq(spb_group_rounds(group), 2);
    OK(spb_group_append_events(group, &event, 1, &index, &kit_err));
    cr_assert_eq(spb_group_rounds(group), 4);
    cr_assert_eq(spb_event_pointer(volume), 0, "not visible yet");
    OK(spb_group_carry_out(group, &kit_err));
    spb_group_make_visible(group);
    spb_group_free(group);
    cr_assert_eq(spb_event_pointer(volume), 7);
    spb_volume_close(volume);
}
