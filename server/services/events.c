/*
 * Events. Appending is decided by the image's actor; lists are answered from the published state on
 * the loop's thread. A cursor is the image's uuid, the incarnation of its opening, and the index
 * that comes next; one of another life starts at the oldest event and says so.
 */
#include <stdio.h>
#include <time.h>

#include "base/bytes.h"
#include "base/status.h"
#include "dispatch.h"
#include "image.h"
#include "services/services.h"

#define LIST_DEFAULT 1000u
#define LIST_MAX 16384u /* above the live window of the largest sector size */
#define CURSOR_SIZE (SPB_UUID_SIZE + SPB_INCARNATION_SIZE + 4u)
#define CODES 65536u
#define SEVERITIES 256u

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

struct filter {
    bool any_severity, any_code;
    uint8_t severities[SEVERITIES / 8];
    uint8_t codes[CODES / 8];
};

struct listing {
    const struct spb_volume *volume;
    const struct filter *filter;
    struct spb_event *events; /* with places for limit */
    size_t count, limit;
    uint32_t next; /* of the cursor to be given */
    uint64_t skipped;
    bool reset;
};

static bool gate_each(struct spb_call *call, const char *name, const uint32_t *values, size_t n,
                      uint32_t max)
{
    char field[48];

    for (size_t i = 0; i < n; i++) {
        (void)snprintf(field, sizeof(field), "%s[%zu]", name, i);
        if (!spb_gate_max(call, field, values[i], max))
            return false;
    }
    return true;
}

bool spb_events_list_gate(struct spb_call *call)
{
    const PB_ListEventsRequest *request = (const void *)call->request;

    if (!spb_gate_max(call, "limit", request->limit, LIST_MAX))
        return false;
    if (request->cursor.len != 0 && request->cursor.len != CURSOR_SIZE) {
        spb_call_set_bad_field(call, "cursor", "found %zu bytes, expected one of an earlier answer",
                               request->cursor.len);
        return false;
    }
    return gate_each(call, "severities", request->severities, request->n_severities,
                     SEVERITIES - 1) &&
           gate_each(call, "codes", request->codes, request->n_codes, CODES - 1);
}

static void set_bits(uint8_t *bits, const uint32_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bits[values[i] / 8] |= (uint8_t)(1u << (values[i] % 8));
}

static bool has_bit(const uint8_t *bits, uint32_t value)
{
    return ((unsigned)bits[value / 8] >> (value % 8) & 1u) != 0;
}

static bool passes(const struct filter *filter, const struct spb_event *event)
{
    return event->corrupt ||
           ((filter->any_severity || has_bit(filter->severities, event->severity)) &&
            (filter->any_code || has_bit(filter->codes, event->code)));
}

/* The newest that pass, then turned round. */
static void list_newest(struct listing *listing)
{
    uint32_t pointer = spb_event_pointer(listing->volume);
    uint32_t oldest = spb_event_oldest(listing->volume);

    for (uint32_t i = pointer; i > oldest && listing->count < listing->limit; i--) {
        struct spb_event *event = &listing->events[listing->count];

        if (spb_is_ok(spb_event_read(listing->volume, i - 1, event, NULL)) &&
            passes(listing->filter, event))
            listing->count++;
    }
    for (size_t i = 0; i < listing->count / 2; i++) {
        struct spb_event event = listing->events[i];

        listing->events[i] = listing->events[listing->count - 1 - i];
        listing->events[listing->count - 1 - i] = event;
    }
    listing->next = pointer;
}

static void list_from(struct listing *listing, uint32_t from)
{
    uint32_t pointer = spb_event_pointer(listing->volume);
    uint32_t i = from;

    for (; i < pointer && listing->count < listing->limit; i++) {
        struct spb_event *event = &listing->events[listing->count];

        if (spb_is_ok(spb_event_read(listing->volume, i, event, NULL)) &&
            passes(listing->filter, event))
            listing->count++;
    }
    listing->next = i;
}

static void list_after_cursor(struct listing *listing, const struct spb_image *image,
                              const ProtobufCBinaryData *cursor)
{
    struct spb_reader r = spb_reader_over(cursor->data, cursor->len);
    uint8_t uuid[SPB_UUID_SIZE], incarnation[SPB_INCARNATION_SIZE];
    uint32_t oldest = spb_event_oldest(listing->volume);

    spb_read_bytes(&r, uuid, sizeof(uuid));
    spb_read_bytes(&r, incarnation, sizeof(incarnation));
    uint32_t next = spb_read_be32(&r);
    if (memcmp(uuid, image->superblock.uuid, sizeof(uuid)) != 0 ||
        memcmp(incarnation, image->incarnation, sizeof(incarnation)) != 0 ||
        next > spb_event_pointer(listing->volume)) {
        listing->reset = true;
        next = oldest;
    }
    if (next < oldest) {
        listing->skipped = oldest - next;
        next = oldest;
    }
    list_from(listing, next);
}

static void write_cursor(const struct listing *listing, const struct spb_image *image,
                         uint8_t cursor[CURSOR_SIZE])
{
    struct spb_writer w = spb_writer_over(cursor, CURSOR_SIZE);

    spb_write_bytes(&w, image->superblock.uuid, SPB_UUID_SIZE);
    spb_write_bytes(&w, image->incarnation, SPB_INCARNATION_SIZE);
    spb_write_be32(&w, listing->next);
}

static struct filter *make_filter(struct spb_call *call)
{
    const PB_ListEventsRequest *request = (const void *)call->request;
    struct filter *filter = spb_call_alloc(call, sizeof(*filter));

    if (filter == NULL)
        return NULL;
    filter->any_severity = request->n_severities == 0;
    filter->any_code = request->n_codes == 0;
    memset(filter->severities, 0, sizeof(filter->severities));
    if (!filter->any_code) /* the large one is left alone where it does not count */
        memset(filter->codes, 0, sizeof(filter->codes));
    set_bits(filter->severities, request->severities, request->n_severities);
    set_bits(filter->codes, request->codes, request->n_codes);
    return filter;
}

static void show(const struct spb_event *event, PB_Event *shown)
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

static void reply_list(struct spb_call *call, const struct listing *listing, const uint8_t *cursor,
                       uint32_t pointer)
{
    PB_ListEventsResponse reply = SPACEBLOCK__V1__LIST_EVENTS_RESPONSE__INIT;
    PB_Event *shown = spb_call_alloc(call, listing->count * sizeof(*shown));

    reply.events = spb_call_alloc(call, listing->count * sizeof(PB_Event *));
    if (shown != NULL && reply.events != NULL) {
        for (size_t i = 0; i < listing->count; i++) {
            show(&listing->events[i], &shown[i]);
            reply.events[i] = &shown[i];
        }
        reply.n_events = listing->count;
        reply.cursor = spb_pb_bytes(cursor, CURSOR_SIZE);
        reply.skipped = listing->skipped;
        reply.reset = listing->reset;
        reply.pointer = pointer;
        spb_call_set_reply(call, &reply.base);
    }
    spb_call_send(call);
}

void spb_events_list(struct spb_call *call)
{
    const PB_ListEventsRequest *request = (const void *)call->request;
    struct listing listing = {.limit = request->limit == 0 ? LIST_DEFAULT : request->limit};
    uint8_t cursor[CURSOR_SIZE];
    struct spb_volume *volume = spb_image_read_begin(call);

    if (volume == NULL)
        return;
    if (listing.limit > spb_event_window(volume))
        listing.limit = spb_event_window(volume);
    listing.volume = volume;
    listing.filter = make_filter(call);
    listing.events = spb_call_alloc(call, listing.limit * sizeof(struct spb_event));
    if (listing.filter == NULL || listing.events == NULL) {
        spb_image_read_end(call->image);
        spb_call_send(call);
        return;
    }
    if (request->cursor.len == 0)
        list_newest(&listing);
    else
        list_after_cursor(&listing, call->image, &request->cursor);
    write_cursor(&listing, call->image, cursor);
    uint32_t pointer = spb_event_pointer(volume);
    spb_image_read_end(call->image);
    reply_list(call, &listing, cursor, pointer);
}
