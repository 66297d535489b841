/* Looking through an image's events; see event_scan.h. */
#include "event_scan.h"

#include <string.h>

#include "base/status.h"

#define SHOWN_WITHOUT_PAYLOAD 24u /* about */

/* ---- Filters ------------------------------------------------------------------------------ */

static void set_bit(uint8_t *bits, uint32_t value)
{
    bits[value / 8] |= (uint8_t)(1u << (value % 8));
}

static bool has_bit(const uint8_t *bits, uint32_t value)
{
    return ((unsigned)bits[value / 8] >> (value % 8) & 1u) != 0;
}

/* By a bit for each code there can be, so that a long list costs no more than its length. */
size_t spb_event_codes_sort(const uint32_t *codes, size_t count, uint16_t *sorted)
{
    uint8_t bits[SPB_EVENT_CODES / 8] = {0};
    size_t used = 0;

    for (size_t i = 0; i < count; i++) {
        SPB_ASSERT(codes[i] < SPB_EVENT_CODES);
        set_bit(bits, codes[i]);
    }
    for (uint32_t byte = 0; byte < sizeof(bits) && used < count; byte++) {
        for (uint32_t bit = 0; bits[byte] != 0 && bit < 8; bit++) {
            if (has_bit(&bits[byte], bit))
                sorted[used++] = (uint16_t)(byte * 8 + bit);
        }
    }
    return used;
}

void spb_event_filter_init(struct spb_event_filter *filter, const uint32_t *severities,
                           size_t severity_count, const uint16_t *codes, size_t code_count)
{
    *filter = (struct spb_event_filter){
        .any_severity = severity_count == 0,
        .any_code = code_count == 0,
        .codes = codes,
        .code_count = code_count,
    };
    for (size_t i = 0; i < severity_count; i++) {
        SPB_ASSERT(severities[i] < SPB_EVENT_SEVERITIES);
        set_bit(filter->severities, severities[i]);
    }
}

static bool has_code(const struct spb_event_filter *filter, uint16_t code)
{
    size_t low = 0, high = filter->code_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (filter->codes[middle] == code)
            return true;
        if (filter->codes[middle] < code)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

bool spb_event_filter_passes(const struct spb_event_filter *filter, const struct spb_event *event)
{
    return event->corrupt ||
           ((filter->any_severity || has_bit(filter->severities, event->severity)) &&
            (filter->any_code || has_code(filter, event->code)));
}

bool spb_event_filter_is(const struct spb_event_filter *a, const struct spb_event_filter *b)
{
    return a->any_severity == b->any_severity && a->any_code == b->any_code &&
           a->code_count == b->code_count &&
           memcmp(a->severities, b->severities, sizeof(a->severities)) == 0 &&
           (a->code_count == 0 ||
            memcmp(a->codes, b->codes, a->code_count * sizeof(a->codes[0])) == 0);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value;
    hash *= UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ hash >> 29;
}

uint64_t spb_event_filter_hash(const struct spb_event_filter *filter, uint64_t seed)
{
    uint64_t hash = mix(seed, (uint64_t)filter->any_severity << 1 | filter->any_code);

    for (size_t i = 0; i < sizeof(filter->severities); i++)
        hash = mix(hash, filter->severities[i]);
    for (size_t i = 0; i < filter->code_count; i++)
        hash = mix(hash, filter->codes[i]);
    return hash;
}

/* ---- Scans -------------------------------------------------------------------------------- */

static bool has_room(const struct spb_event_scan *scan, size_t bytes)
{
    return scan->count < scan->limit && (scan->bytes_max == 0 || bytes < scan->bytes_max);
}

/* Keeps what was read at the place behind the last one, if it passes; adds to the bytes. */
static void judge(struct spb_event_scan *scan, size_t *bytes)
{
    const struct spb_event *event = &scan->events[scan->count];

    if (!spb_event_filter_passes(scan->filter, event))
        return;
    scan->count++;
    *bytes += SHOWN_WITHOUT_PAYLOAD + event->payload_len;
}

static void turn_round(struct spb_event *events, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        struct spb_event event = events[i];

        events[i] = events[count - 1 - i];
        events[count - 1 - i] = event;
    }
}

void spb_event_scan_newest(struct spb_event_scan *scan)
{
    uint32_t pointer = spb_event_pointer(scan->volume);
    size_t bytes = 0;

    /* A place that is no live one any more, or never was, is where they end. */
    for (uint32_t i = pointer; i > 0 && has_room(scan, bytes); i--) {
        if (!spb_is_ok(spb_event_read(scan->volume, i - 1, &scan->events[scan->count], NULL)))
            break;
        judge(scan, &bytes);
    }
    turn_round(scan->events, scan->count);
    scan->next = pointer;
}

void spb_event_scan_onward(struct spb_event_scan *scan)
{
    uint32_t pointer = spb_event_pointer(scan->volume), i = scan->next;
    size_t bytes = 0;

    while (i < pointer && has_room(scan, bytes)) {
        if (spb_is_ok(spb_event_read(scan->volume, i, &scan->events[scan->count], NULL))) {
            judge(scan, &bytes);
            i++;
            continue;
        }
        uint32_t oldest = spb_event_oldest(scan->volume);
        if (scan->count > 0 || oldest <= i)
            break;
        scan->skipped += oldest - i;
        i = oldest;
    }
    scan->next = i;
}

void spb_event_show(const struct spb_event *event, PB_Event *shown)
{
    *shown = (PB_Event)SPACEBLOCK__V1__EVENT__INIT;
    shown->index = event->index;
    shown->corrupt = event->corrupt;
    if (event->corrupt)
        return;
    shown->timestamp = event->timestamp;
    shown->severity = event->severity;
    shown->code = event->code;
    shown->payload = spb_pb_bytes(event->payload, event->payload_len);
}
