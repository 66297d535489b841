/* Following an image's events; see watch.h. */
#include "cli/watch.h"

#include <stdlib.h>
#include <string.h>

#include "cli/reconnect.h"
#include "cli/target_daemon.h"

#define WAIT_MS 25000u
#define CALL_MS 30000
#define EVENTS_A_CALL 1000u

static const struct cli_method watch_method = {
    CLI_SERVICE_EVENTS, "Watch", &spaceblock__v1__watch_events_response__descriptor, CALL_MS};

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

spb_status cli_parse_cursor(const char *what, const char *text, struct cli_cursor *cursor,
                            struct spb_error *err)
{
    size_t digits = strlen(text);
    struct cli_cursor found = {.size = digits / 2};
    bool good = digits > 0 && digits % 2 == 0 && digits / 2 <= CLI_CURSOR_MAX;

    for (size_t i = 0; good && i < digits; i += 2) {
        int high = digit_of(text[i]), low = digit_of(text[i + 1]);

        good = high >= 0 && low >= 0;
        if (good)
            found.bytes[i / 2] = (uint8_t)(high << 4 | low);
    }
    if (!good)
        return spb_fail(err, SPB_INVALID,
                        "%s: found \"%s\", expected now, start, or the hex digits of a cursor",
                        what, text);
    *cursor = found;
    return spb_ok();
}

/* ---- One call ------------------------------------------------------------------------------- */

static void narrow(const uint64_t *list, size_t count, uint32_t *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint32_t)list[i];
}

/* wait_ms 0 only finds the place. */
static spb_status ask(struct daemon_target *target, const struct cli_watch *watch, uint32_t wait_ms,
                      ProtobufCMessage **reply, struct spb_error *err)
{
    uint32_t severities[CLI_REPEAT_MAX], codes[CLI_REPEAT_MAX];
    const struct cli_event_query *filters = watch->filters;
    Spaceblock__V1__WatchEventsRequest request = SPACEBLOCK__V1__WATCH_EVENTS_REQUEST__INIT;
    Spaceblock__V1__ImageRef image;

    cli_image_ref_fill(&target->image, &image);
    narrow(filters->severities, filters->severity_count, severities);
    narrow(filters->codes, filters->code_count, codes);
    request.image = &image;
    request.cursor = cli_bytes(watch->cursor.bytes, watch->cursor.size);
    request.start = watch->from_oldest ? SPACEBLOCK__V1__WATCH_START__WATCH_START_OLDEST
                                       : SPACEBLOCK__V1__WATCH_START__WATCH_START_NOW;
    request.wait_ms = wait_ms;
    request.limit =
        watch->limit > 0 && watch->limit < EVENTS_A_CALL ? (uint32_t)watch->limit : EVENTS_A_CALL;
    request.n_severities = filters->severity_count;
    request.severities = severities;
    request.n_codes = filters->code_count;
    request.codes = codes;
    return cli_daemon_call(&target->daemon, &watch_method, &request.base, reply, err);
}

/* ---- The answers -------------------------------------------------------------------------- */

static spb_status convert(const Spaceblock__V1__WatchEventsResponse *answer,
                          struct spb_event **events, struct spb_error *err)
{
    struct spb_event *list = calloc(answer->n_events + 1, sizeof(*list));
    spb_status status = list == NULL ? spb_fail_memory(err, "taking events") : spb_ok();

    for (size_t i = 0; i < answer->n_events && spb_is_ok(status); i++)
        status = cli_from_event(answer->events[i], &list[i], err);
    if (spb_is_ok(status))
        *events = list;
    else
        free(list);
    return status;
}

/* *more: whether it goes on. */
static spb_status take(struct cli_watch *watch, uint64_t epoch,
                       const Spaceblock__V1__WatchEventsResponse *answer, bool *more,
                       struct spb_error *err)
{
    struct cli_cursor cursor = {.size = answer->cursor.len};
    struct spb_event *events = NULL;

    if (answer->cursor.len == 0 || answer->cursor.len > CLI_CURSOR_MAX)
        return cli_answer_lacks(&watch_method, "a cursor", err);
    /* Past its limit it could not be told where to go on. */
    if (watch->limit > 0 && answer->n_events > watch->limit)
        return cli_answer_lacks(&watch_method, "an end at the limit", err);
    memcpy(cursor.bytes, answer->cursor.data, cursor.size);
    SPB_TRY(convert(answer, &events, err));
    struct cli_watch_news news = {
        .events = events,
        .count = answer->n_events,
        .epoch = epoch,
        .skipped = answer->skipped,
        .reset = answer->reset,
        .cursor = &cursor,
        .moved = cursor.size != watch->cursor.size ||
                 memcmp(cursor.bytes, watch->cursor.bytes, cursor.size) != 0,
    };
    bool taken = watch->take(watch->user, &news);
    free(events);
    /* What could not be shown comes again where it goes on. */
    if (taken)
        watch->cursor = cursor;
    *more = taken && (watch->limit == 0 || watch->limit > news.count);
    if (watch->limit > 0)
        watch->limit -= news.count;
    return spb_ok();
}

/* ---- Over lost connections ---------------------------------------------------------------- */

static spb_status probe(void *user, struct spb_error *err)
{
    uint64_t epoch;

    return daemon_epoch(user, &epoch, err);
}

/* One answer, or one connection more. */
static spb_status step(struct cli *cli, struct daemon_target *target, struct cli_watch *watch,
                       uint64_t *epoch, bool *more, struct spb_error *err)
{
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    /* From now on: the place is found at once, before anything can be lost. */
    uint32_t wait_ms = watch->cursor.size == 0 ? 0 : WAIT_MS;

    spb_status status = ask(target, watch, wait_ms, &reply, err);
    const Spaceblock__V1__WatchEventsResponse *answer = (const void *)reply;
    /* Another life may count from another epoch. */
    if (spb_is_ok(status) && answer->reset)
        status = daemon_epoch(target, epoch, err);
    if (!spb_is_ok(status) && cli_may_reconnect(cli, &target->daemon, status)) {
        struct spb_error why = *err;

        return cli_reconnect(cli, &target->daemon, &why, probe, target, err);
    }
    SPB_TRY(status);
    return take(watch, *epoch, answer, more, err);
}

spb_status cli_watch_run(struct cli *cli, struct cli_target *target, struct cli_watch *watch,
                         struct spb_error *err)
{
    struct daemon_target *daemon = daemon_of(target);
    uint64_t epoch = 0;
    bool more = true;

    spb_status status = daemon_epoch(daemon, &epoch, err);
    while (spb_is_ok(status) && more && !cli_is_interrupted())
        status = step(cli, daemon, watch, &epoch, &more, err);
    /* A signal ends the call that waits: no failure here. */
    return cli_is_interrupted() ? spb_ok() : status;
}
