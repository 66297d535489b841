/* The family event. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/listing.h"
#include "cli/output.h"
#include "cli/text.h"

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

static json_t *event_to_json(const struct spb_event *event, uint64_t epoch)
{
    char when[CLI_TIME_SIZE], severity[CLI_SEVERITY_SIZE];
    json_t *object = cli_json_object();

    cli_json_set_number(object, "index", event->index);
    cli_json_set_bool(object, "corrupt", event->corrupt);
    if (event->corrupt)
        return object;
    cli_text_event_time(epoch, event->timestamp, when);
    cli_text_severity(event->severity, severity);
    cli_json_set_number(object, "timestamp", event->timestamp);
    cli_json_set_string(object, "time", when);
    cli_json_set_number(object, "severity", event->severity);
    cli_json_set_string(object, "severity_name", severity);
    cli_json_set_number(object, "code", event->code);
    cli_json_set_value(object, "payload", event->payload, event->payload_len);
    return object;
}

static void list_json(const struct cli_events *events)
{
    json_t *root = cli_json_object(), *list = cli_json_array();

    for (size_t i = 0; i < events->count; i++)
        cli_json_append(list, event_to_json(&events->events[i], events->epoch));
    cli_json_set_number(root, "epoch", events->epoch);
    cli_json_set_number(root, "event_pointer", events->pointer);
    cli_json_set(root, "events", list);
    cli_json_print(root);
}

int cli_run_event_list(struct cli *cli)
{
    const struct cli_option_value *severities = &cli->args.options[CLI_OPT_SEVERITY];
    const struct cli_option_value *codes = &cli->args.options[CLI_OPT_CODE];
    struct cli_event_query query = {.newest = (uint32_t)cli_number(cli, CLI_OPT_NEWEST, 0),
                                    .severities = severities->numbers,
                                    .severity_count = severities->count,
                                    .codes = codes->numbers,
                                    .code_count = codes->count};
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
