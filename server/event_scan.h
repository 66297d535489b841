/*
 * Looking through an image's events: which of them pass a filter, from the newest backwards or from
 * a place onwards, and how they are shown. The ring may turn meanwhile; what was overwritten before
 * it was looked at is counted, never left out silently. Nothing here is kept between calls; any
 * thread that may read the volume.
 */
#ifndef SPB_SERVER_EVENT_SCAN_H
#define SPB_SERVER_EVENT_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "messages.h"
#include "spaceblock/volume.h"

/* More events than these are not looked at on the loop's thread at once. */
#define SPB_EVENT_SCAN_INLINE 256u

#define SPB_EVENT_SEVERITIES 256u
#define SPB_EVENT_CODES 65536u

struct spb_event_filter {
    bool any_severity, any_code;
    uint8_t severities[SPB_EVENT_SEVERITIES / 8]; /* a bit each */
    const uint16_t *codes;                        /* borrowed; ascending, each once */
    size_t code_count;
};

/* Writes the codes in order, each once, to sorted (with places for count); returns how many. All
 * are below SPB_EVENT_CODES. */
size_t spb_event_codes_sort(const uint32_t *codes, size_t count, uint16_t *sorted);

/* Empty lists take all. Severities are below SPB_EVENT_SEVERITIES; codes as sorted above. */
void spb_event_filter_init(struct spb_event_filter *filter, const uint32_t *severities,
                           size_t severity_count, const uint16_t *codes, size_t code_count);
/* Corrupt events pass every filter. */
bool spb_event_filter_passes(const struct spb_event_filter *filter, const struct spb_event *event);
bool spb_event_filter_is(const struct spb_event_filter *a, const struct spb_event_filter *b);
uint64_t spb_event_filter_hash(const struct spb_event_filter *filter, uint64_t seed);

struct spb_event_scan {
    const struct spb_volume *volume;
    const struct spb_event_filter *filter;
    struct spb_event *events; /* what was found; with places for limit */
    size_t count, limit;
    size_t bytes_max; /* stop once the events take about so much in an answer; 0: no bound */
    uint32_t next;    /* where to begin; then, what comes after all that was looked at */
    uint64_t skipped; /* overwritten before they were looked at: added to */
};

/* The newest that pass, oldest first. */
void spb_event_scan_newest(struct spb_event_scan *scan);
/* From next on, up to the newest or a bound. What is overwritten after something was found ends it:
 * the next scan counts it. */
void spb_event_scan_onward(struct spb_event_scan *scan);

/* At most what a shown event takes in an answer, tag and length included. */
#define SPB_EVENT_SHOWN_MAX 96u

/* Payload bytes are borrowed from the event. */
void spb_event_show(const struct spb_event *event, PB_Event *shown);

#endif
