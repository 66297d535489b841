/* The family event. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/listing.h"
#include "cli/output.h"
#include "cli/text.h"
#include "cli/watch.h"

#define PAYLOAD_ROOM 4097u

static void events_cleanup(struct cli_events *events)
{
    cli_events_done(events);
}

/* TEXT or -; the payload is borrowed from the word or from buffer. */
static spb_status payload_of(const char *word, uint8_t buffer[PAYLOAD_ROOM],
                             struct cli_new_event *event, struct spb_error *err)
{
    if (strcmp(word, "-") != 0) {
        event->payload = word;
        event->len = strlen(word);
        return spb_ok();
    }
    SPB_TRY(cli_source_read_small(word, buffer, PAYLOAD_ROOM, &event->len, err));
    if (event->len == PAYLOAD_ROOM)
        return spb_fail(err, SPB_INVALID,
                        "reading a payload from standard input: found more than %u bytes, expected "
                        "at most %u",
                        PAYLOAD_ROOM - 1, SPB_EVENT_PAYLOAD_MAX);
    event->payload = buffer;
    return spb_ok();
}

int cli_run_event_append(struct cli *cli)
{
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct cli_new_event event = {.has_time = cli_has(cli, CLI_OPT_TIME)};
    uint8_t buffer[PAYLOAD_ROOM];
    uint32_t index = 0;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    event.unix_s = (int64_t)cli_number(cli, CLI_OPT_TIME, 0);
    event.severity = (uint8_t)cli_number(cli, CLI_OPT_SEVERITY, 0);
    event.code = (uint16_t)cli_number(cli, CLI_OPT_CODE, 0);
    if (!spb_is_ok(payload_of(cli->words[0], buffer, &event, &err)))
        return cli_fail(cli, &err);
    if (!cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->event_append(target, &event, &index, &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_number(root, "index", index);
        cli_json_print(root);
    } else {
        printf("event %" PRIu32 " appended\n", index);
    }
    return CLI_EXIT_OK;
}

static void set_event(json_t *object, const struct spb_event *event, uint64_t epoch)
{
    char when[CLI_TIME_SIZE], severity[CLI_SEVERITY_SIZE];

    cli_json_set_number(object, "index", event->index);
    cli_json_set_bool(object, "corrupt", event->corrupt);
    if (event->corrupt)
        return;
    cli_text_event_time(epoch, event->timestamp, when);
    cli_text_severity(event->severity, severity);
    cli_json_set_number(object, "timestamp", event->timestamp);
    cli_json_set_string(object, "time", when);
    cli_json_set_number(object, "severity", event->severity);
    cli_json_set_string(object, "severity_name", severity);
    cli_json_set_number(object, "code", event->code);
    cli_json_set_value(object, "payload", event->payload, event->payload_len);
}

static void list_json(const struct cli_events *events)
{
    json_t *root = cli_json_object(), *list = cli_json_array();

    for (size_t i = 0; i < events->count; i++) {
        json_t *object = cli_json_object();
        set_event(object, &events->events[i], events->epoch);
        cli_json_append(list, object);
    }
    cli_json_set_number(root, "epoch", events->epoch);
    cli_json_set_number(root, "event_pointer", events->pointer);
    cli_json_set(root, "events", list);
    cli_json_print(root);
}

static struct cli_event_query query_of(const struct cli *cli)
{
    const struct cli_option_value *severities = &cli->args.options[CLI_OPT_SEVERITY];
    const struct cli_option_value *codes = &cli->args.options[CLI_OPT_CODE];

    return (struct cli_event_query){.newest = (uint32_t)cli_number(cli, CLI_OPT_NEWEST, 0),
                                    .severities = severities->numbers,
                                    .severity_count = severities->count,
                                    .codes = codes->numbers,
                                    .code_count = codes->count};
}

int cli_run_event_list(struct cli *cli)
{
    struct cli_event_query query = query_of(cli);
    struct cli_events events __attribute__((cleanup(events_cleanup))) = {.count = 0};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->event_list(target, &query, &events, &err)))
        return cli_fail(cli, &err);
    if (events.cut)
        cli_note(cli, "only the newest %zu events are shown", events.count);
    if (cli_is_json(cli))
        list_json(&events);
    else
        cli_listing_events(&events);
    return CLI_EXIT_OK;
}

/* ---- Watch -------------------------------------------------------------------------------- */

static void set_cursor(json_t *object, const struct cli_cursor *cursor)
{
    cli_json_set_hex(object, "cursor", cursor->bytes, cursor->size);
}

/* An object of its own kind; the last one of an answer has the cursor. */
static json_t *kind_of(const char *kind)
{
    json_t *object = cli_json_object();

    cli_json_set_string(object, "kind", kind);
    return object;
}

static void news_json(const struct cli_watch_news *news)
{
    json_t *object = NULL;

    if (news->reset)
        cli_json_print_line(kind_of("reset"));
    if (news->skipped > 0) {
        object = kind_of("skipped");
        cli_json_set_number(object, "count", news->skipped);
        cli_json_print_line(object);
    }
    for (size_t i = 0; i < news->count; i++) {
        object = kind_of("event");
        set_event(object, &news->events[i], news->epoch);
        if (i + 1 == news->count)
            set_cursor(object, news->cursor);
        cli_json_print_line(object);
    }
    if (news->count > 0 || !news->moved)
        return;
    object = kind_of("cursor");
    set_cursor(object, news->cursor);
    cli_json_print_line(object);
}

static void event_line(const struct spb_event *event, uint64_t epoch)
{
    char when[CLI_TIME_SIZE], severity[CLI_SEVERITY_SIZE];

    if (event->corrupt) {
        printf("%-10" PRIu32 " %-20s %-8s %5s  (corrupt)\n", event->index, "-", "-", "-");
        return;
    }
    cli_text_event_time(epoch, event->timestamp, when);
    cli_text_severity(event->severity, severity);
    char *payload = cli_text_value(event->payload, event->payload_len);
    printf("%-10" PRIu32 " %-20s %-8s %5u  %s\n", event->index, when, severity, event->code,
           payload == NULL ? "" : payload);
    free(payload);
}

static void news_text(const struct cli *cli, const struct cli_watch_news *news)
{
    if (news->reset)
        cli_note(cli, "the events of this image are not those that were followed before: from the "
                      "oldest one on");
    if (news->skipped > 0)
        cli_note(cli, "%" PRIu64 " event%s overwritten before %s could be shown", news->skipped,
                 news->skipped == 1 ? " was" : "s were", news->skipped == 1 ? "it" : "they");
    for (size_t i = 0; i < news->count; i++)
        event_line(&news->events[i], news->epoch);
}

/* The watch's take: an answer is printed as a whole, and has arrived. */
static bool print_news(void *user, const struct cli_watch_news *news)
{
    const struct cli *cli = user;

    if (cli_is_json(cli))
        news_json(news);
    else
        news_text(cli, news);
    return fflush(stdout) == 0 && ferror(stdout) == 0;
}

static spb_status watch_begin(const struct cli *cli, struct cli_watch *watch, struct spb_error *err)
{
    const char *from = cli_text_of(cli, CLI_OPT_FROM);

    watch->from_oldest = from != NULL && strcmp(from, "start") == 0;
    if (from == NULL || watch->from_oldest || strcmp(from, "now") == 0)
        return spb_ok();
    return cli_parse_cursor("--from", from, &watch->cursor, err);
}

static void tell_cursor(const struct cli *cli, const struct cli_cursor *cursor)
{
    char *hex = cursor->size == 0 ? NULL : cli_text_hex("", cursor->bytes, cursor->size);

    if (hex != NULL)
        cli_note(cli, "continue with --from %s", hex);
    free(hex);
}

int cli_run_event_watch(struct cli *cli)
{
    struct cli_event_query query = query_of(cli);
    struct cli_watch watch = {.filters = &query,
                              .limit = cli_number(cli, CLI_OPT_LIMIT, 0),
                              .take = print_news,
                              .user = cli};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!spb_is_ok(watch_begin(cli, &watch, &err)))
        return cli_usage(cli, "%s", err.text);
    if (!cli_target_open(cli, &target, &code))
        return code;
    cli_interrupt_watch();
    if (!spb_is_ok(cli_watch_run(cli, target, &watch, &err)))
        code = cli_fail(cli, &err);
    tell_cursor(cli, &watch.cursor);
    return code;
}
