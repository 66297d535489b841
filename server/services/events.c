/*
 * Events. Appending is decided by the image's actor; lists are answered from the published state,
 * on the loop's thread where they are short and on a worker where they are not; watches are
 * watch.c's. A cursor of another life of the image starts at the oldest event and says so.
 */
#include <stdio.h>
#include <time.h>

#include "base/status.h"
#include "cursor.h"
#include "daemon.h"
#include "dispatch.h"
#include "event_scan.h"
#include "image.h"
#include "services/services.h"
#include "waits.h"
#include "watch.h"

#define LIMIT_DEFAULT 1000u
#define LIST_MAX 16384u /* above the live window of the largest sector size */

/* ---- Append ------------------------------------------------------------------------------- */

struct append {
    struct spb_event *events;
    uint32_t first_index;
};

static bool gate_event(struct spb_call *call, const PB_NewEvent *event, size_t i)
{
    char field[48];

    if (event->severity <= UINT8_MAX && event->code <= UINT16_MAX &&
        event->payload.len <= SPB_EVENT_PAYLOAD_MAX)
        return true;
    (void)snprintf(field, sizeof(field), "events[%zu].severity", i);
    if (!spb_gate_max(call, field, event->severity, UINT8_MAX))
        return false;
    (void)snprintf(field, sizeof(field), "events[%zu].code", i);
    if (!spb_gate_max(call, field, event->code, UINT16_MAX))
        return false;
    if (event->payload.len <= SPB_EVENT_PAYLOAD_MAX)
        return true;
    (void)snprintf(field, sizeof(field), "events[%zu].payload", i);
    spb_call_set_bad_field(call, field, "found %zu bytes, expected at most %u", event->payload.len,
                           SPB_EVENT_PAYLOAD_MAX);
    return false;
}

bool spb_events_append_gate(struct spb_call *call)
{
    const PB_AppendEventsRequest *request = (const void *)call->request;

    if (request->n_events == 0) {
        spb_call_set_bad_field(call, "events", "found none, expected 1 at least");
        return false;
    }
    for (size_t i = 0; i < request->n_events; i++) {
        if (!gate_event(call, request->events[i], i))
            return false;
    }
    return true;
}

/* The events' times count from the image's epoch, which the volume knows. */
static spb_status set_times(struct spb_call *call, const struct spb_volume *volume,
                            struct spb_error *err)
{
    const PB_AppendEventsRequest *request = (const void *)call->request;
    struct append *append = call->state;
    int64_t now_s = (int64_t)time(NULL);

    for (size_t i = 0; i < request->n_events; i++) {
        const PB_NewEvent *event = request->events[i];
        bool given = event->if_time_case == SPACEBLOCK__V1__NEW_EVENT__IF_TIME_TIME;
        spb_status status =
            spb_event_time(volume, given ? event->time : now_s, &append->events[i].timestamp, err);

        if (!spb_is_ok(status)) {
            char field[48];

            (void)snprintf(field, sizeof(field), "events[%zu].time", i);
            spb_call_set_bad_field(call, field, "%s", err->text);
            return status;
        }
    }
    return spb_ok();
}

static spb_status decide_append(struct spb_call *call, struct spb_group *group,
                                struct spb_error *err)
{
    const PB_AppendEventsRequest *request = (const void *)call->request;
    struct append *append = call->state;

    SPB_TRY(set_times(call, call->image->volume, err));
    return spb_group_append_events(group, append->events, request->n_events, &append->first_index,
                                   err);
}

static void append_reply(struct spb_call *call)
{
    const PB_AppendEventsRequest *request = (const void *)call->request;
    const struct append *append = call->state;
    PB_AppendEventsResponse reply = SPACEBLOCK__V1__APPEND_EVENTS_RESPONSE__INIT;

    reply.first_index = append->first_index;
    reply.count = (uint32_t)request->n_events;
    spb_call_set_reply(call, &reply.base);
}

void spb_events_append(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.decide = decide_append, .reply = append_reply};
    const PB_AppendEventsRequest *request = (const void *)call->request;
    struct append *append = spb_call_alloc(call, sizeof(*append));
    struct spb_event *events = spb_call_alloc(call, request->n_events * sizeof(*events));

    if (append == NULL || events == NULL) {
        spb_call_send(call);
        return;
    }
    for (size_t i = 0; i < request->n_events; i++) {
        const PB_NewEvent *event = request->events[i];

        events[i] = (struct spb_event){
            .severity = (uint8_t)event->severity,
            .code = (uint16_t)event->code,
            .payload_len = (uint8_t)event->payload.len,
        };
        if (event->payload.len > 0)
            memcpy(events[i].payload, event->payload.data, event->payload.len);
    }
    append->events = events;
    call->state = append;
    spb_actor_queue(call, &kind);
}

/* ---- List --------------------------------------------------------------------------------- */

static bool gate_each(struct spb_call *call, const char *name, const uint32_t *values, size_t n,
                      uint32_t max)
{
    char field[48];

    for (size_t i = 0; i < n; i++) {
        if (values[i] <= max)
            continue;
        (void)snprintf(field, sizeof(field), "%s[%zu]", name, i);
        return spb_gate_max(call, field, values[i], max);
    }
    return true;
}

static bool gate_cursor(struct spb_call *call, const ProtobufCBinaryData *cursor)
{
    if (cursor->len == 0 || cursor->len == SPB_CURSOR_SIZE)
        return true;
    spb_call_set_bad_field(call, "cursor", "found %zu bytes, expected one of an earlier answer",
                           cursor->len);
    return false;
}

static size_t limit_of(uint32_t asked)
{
    return asked == 0 ? LIMIT_DEFAULT : asked;
}

bool spb_events_list_gate(struct spb_call *call)
{
    const PB_ListEventsRequest *request = (const void *)call->request;

    call->reply_bytes = limit_of(request->limit) * SPB_EVENT_SHOWN_MAX;
    return spb_gate_max(call, "limit", request->limit, LIST_MAX) &&
           gate_cursor(call, &request->cursor) &&
           gate_each(call, "severities", request->severities, request->n_severities,
                     SPB_EVENT_SEVERITIES - 1) &&
           gate_each(call, "codes", request->codes, request->n_codes, SPB_EVENT_CODES - 1);
}

struct listing {
    struct spb_event_filter filter;
    struct spb_event_scan scan;
    struct spb_cursor cursor; /* to be given */
    bool reset;
    uint32_t pointer;
};

static void reply_list(struct spb_call *call, const struct listing *listing)
{
    const struct spb_event_scan *scan = &listing->scan;
    PB_ListEventsResponse reply = SPACEBLOCK__V1__LIST_EVENTS_RESPONSE__INIT;
    PB_Event *shown = spb_call_alloc(call, scan->count * sizeof(*shown));
    uint8_t cursor[SPB_CURSOR_SIZE];

    reply.events = spb_call_alloc(call, scan->count * sizeof(PB_Event *));
    if (shown != NULL && reply.events != NULL) {
        for (size_t i = 0; i < scan->count; i++) {
            spb_event_show(&scan->events[i], &shown[i]);
            reply.events[i] = &shown[i];
        }
        reply.n_events = scan->count;
        spb_cursor_encode(&listing->cursor, cursor);
        reply.cursor = spb_pb_bytes(cursor, sizeof(cursor));
        reply.skipped = scan->skipped;
        reply.reset = listing->reset;
        reply.pointer = listing->pointer;
        spb_call_set_reply(call, &reply.base);
    }
    spb_call_send(call);
}

/* Where it begins and how many events there are to be looked at, at most. The image is locked. */
static uint32_t place_listing(struct spb_call *call, const struct spb_volume *volume,
                              struct listing *listing)
{
    const PB_ListEventsRequest *request = (const void *)call->request;
    const struct spb_image *image = call->image;
    uint32_t window = spb_event_window(volume), pointer = spb_event_pointer(volume);
    uint32_t oldest = pointer > window ? pointer - window : 0;
    struct spb_cursor given;

    listing->pointer = pointer;
    memcpy(listing->cursor.life.uuid, image->superblock.uuid, SPB_UUID_SIZE);
    memcpy(listing->cursor.life.incarnation, image->incarnation, SPB_INCARNATION_SIZE);
    listing->scan.volume = volume;
    if (!spb_cursor_decode(request->cursor.data, request->cursor.len, &given)) {
        bool all = request->n_severities == 0 && request->n_codes == 0;
        size_t limit = limit_of(request->limit);

        listing->scan.next = pointer;
        return all && limit < pointer - oldest ? (uint32_t)limit : pointer - oldest;
    }
    struct spb_cursor_place place =
        spb_cursor_locate(&given, &listing->cursor.life, oldest, pointer);
    listing->scan.next = place.next;
    listing->scan.skipped = place.skipped;
    listing->reset = place.reset;
    return pointer - place.next;
}

/* False, with the error set: no memory. */
static bool make_filter(struct spb_call *call, struct listing *listing)
{
    const PB_ListEventsRequest *request = (const void *)call->request;
    uint16_t *codes = spb_call_alloc(call, request->n_codes * sizeof(*codes));
    size_t count = 0;

    if (codes == NULL)
        return false;
    if (request->n_codes > 0)
        count = spb_event_codes_sort(request->codes, request->n_codes, codes);
    spb_event_filter_init(&listing->filter, request->severities, request->n_severities, codes,
                          count);
    listing->scan.filter = &listing->filter;
    return true;
}

/* The volume stays open meanwhile. left: events to be looked at, about. */
static bool find_events(struct spb_call *call, struct listing *listing, uint32_t left)
{
    const PB_ListEventsRequest *request = (const void *)call->request;

    /* A few more may have come since. */
    listing->scan.limit = limit_of(request->limit);
    if (listing->scan.limit > left + SPB_EVENT_SCAN_INLINE)
        listing->scan.limit = left + SPB_EVENT_SCAN_INLINE;
    listing->scan.events = spb_call_alloc(call, listing->scan.limit * sizeof(struct spb_event));
    if (listing->scan.events == NULL || !make_filter(call, listing))
        return false;
    if (request->cursor.len == 0)
        spb_event_scan_newest(&listing->scan);
    else
        spb_event_scan_onward(&listing->scan);
    listing->cursor.next = listing->scan.next;
    return true;
}

static void list_on_worker(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct listing listing = {.reset = false};

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_call_send(call);
        return;
    }
    const struct spb_volume *volume = spb_image_hold_for(call);
    if (volume == NULL)
        return;
    (void)pthread_mutex_lock(&call->image->lock);
    uint32_t left = place_listing(call, volume, &listing);
    (void)pthread_mutex_unlock(&call->image->lock);
    bool found = find_events(call, &listing, left);
    spb_image_unhold(call->image);
    if (found)
        reply_list(call, &listing);
    else
        spb_call_send(call);
}

void spb_events_list(struct spb_call *call)
{
    struct listing listing = {.reset = false};
    const struct spb_volume *volume = spb_image_read_begin(call);

    if (volume == NULL)
        return;
    uint32_t left = place_listing(call, volume, &listing);
    bool few = left <= SPB_EVENT_SCAN_INLINE;
    bool found = few && find_events(call, &listing, left);
    spb_image_read_end(call->image);
    if (!few)
        spb_call_to_workers(call, list_on_worker);
    else if (found)
        reply_list(call, &listing);
    else
        spb_call_send(call);
}

/* ---- Watch -------------------------------------------------------------------------------- */

static bool gate_start(struct spb_call *call, const PB_WatchEventsRequest *request)
{
    if (request->cursor.len > 0 || request->start == SPACEBLOCK__V1__WATCH_START__WATCH_START_NOW ||
        request->start == SPACEBLOCK__V1__WATCH_START__WATCH_START_OLDEST)
        return true;
    spb_call_set_bad_field(call, "start",
                           "found %d, expected NOW or OLDEST where there is no cursor",
                           (int)request->start);
    return false;
}

static bool gate_count(struct spb_call *call, const char *field, size_t count)
{
    if (count <= SPB_WATCH_FILTER_MAX)
        return true;
    spb_call_set_bad_field(call, field, "found %zu of them, expected at most %u", count,
                           SPB_WATCH_FILTER_MAX);
    return false;
}

/* The configuration may let calls wait longer than they may count on. */
static uint64_t wait_max_ms(const struct spb_call *call)
{
    uint64_t max_ms = SPB_LIMIT(call->daemon, watch_wait_max_ms);

    return max_ms > SPB_WAIT_MS_MAX ? max_ms : SPB_WAIT_MS_MAX;
}

bool spb_events_watch_gate(struct spb_call *call)
{
    const PB_WatchEventsRequest *request = (const void *)call->request;

    return spb_gate_max(call, "limit", request->limit, SPB_WATCH_LIMIT_MAX) &&
           spb_gate_max(call, "wait_ms", request->wait_ms, wait_max_ms(call)) &&
           gate_cursor(call, &request->cursor) && gate_start(call, request) &&
           gate_count(call, "severities", request->n_severities) &&
           gate_count(call, "codes", request->n_codes) &&
           gate_each(call, "severities", request->severities, request->n_severities,
                     SPB_EVENT_SEVERITIES - 1) &&
           gate_each(call, "codes", request->codes, request->n_codes, SPB_EVENT_CODES - 1);
}

void spb_events_watch(struct spb_call *call)
{
    const PB_WatchEventsRequest *request = (const void *)call->request;
    uint16_t codes[SPB_WATCH_FILTER_MAX];
    size_t count = 0;

    if (call->state != NULL) {
        spb_watch_go_on(call);
        return;
    }
    uint64_t max_ms = SPB_LIMIT(call->daemon, watch_wait_max_ms);
    struct spb_watch_spec spec = {
        .from_oldest = request->start == SPACEBLOCK__V1__WATCH_START__WATCH_START_OLDEST,
        .limit = (uint32_t)limit_of(request->limit),
        .wait_ms = request->wait_ms < max_ms ? request->wait_ms : (uint32_t)max_ms,
    };
    spec.has_cursor = spb_cursor_decode(request->cursor.data, request->cursor.len, &spec.cursor);
    if (request->n_codes > 0)
        count = spb_event_codes_sort(request->codes, request->n_codes, codes);
    spb_event_filter_init(&spec.filter, request->severities, request->n_severities, codes, count);
    spb_watch_begin(call, &spec);
}
