/* The family audit: what was changed, by whom, and what became of it. */
#include <inttypes.h>
#include <spaceblock/v1/audit.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/daemon.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/when.h"

#define LIMIT_DEFAULT 100u
#define PAGE_MAX 1000u
#define CELL_MAX 72u /* characters of a text in the table; all of it is in the JSON */
#define REQUEST_ID_BYTES 16u

static const char *const outcome_words[] = {
    "unknown to this command", "pending", "done", "completed", "not-done", "unknown"};
#define OUTCOMES (sizeof(outcome_words) / sizeof(outcome_words[0]))

static void daemon_cleanup(struct cli_daemon *daemon)
{
    cli_daemon_done(daemon);
}
#define AUTO_DAEMON __attribute__((cleanup(daemon_cleanup)))

static const char *outcome_word(Spaceblock__V1__AuditOutcome outcome)
{
    return (unsigned)outcome < OUTCOMES ? outcome_words[(unsigned)outcome] : outcome_words[0];
}

/* ---- What is asked for --------------------------------------------------------------------- */

struct query {
    Spaceblock__V1__ListAuditRequest request;
    uint64_t left; /* records still wanted */
};

static spb_status parse_outcome(const char *word, Spaceblock__V1__AuditOutcome *outcome,
                                struct spb_error *err)
{
    for (unsigned i = 1; i < OUTCOMES; i++) {
        if (strcmp(word, outcome_words[i]) == 0) {
            *outcome = (Spaceblock__V1__AuditOutcome)i;
            return spb_ok();
        }
    }
    return spb_fail(err, SPB_INVALID,
                    "--outcome: found \"%s\", expected pending, done, completed, not-done or "
                    "unknown",
                    word);
}

static spb_status take_times(struct cli *cli, struct query *query, struct spb_error *err)
{
    const char *since = cli_text_of(cli, CLI_OPT_SINCE), *until = cli_text_of(cli, CLI_OPT_UNTIL);
    struct timespec now = {0};
    int64_t us = 0;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    int64_t now_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    if (since != NULL) {
        SPB_TRY(cli_parse_when("--since", since, now_us, &us, err));
        query->request.since_us = (uint64_t)us;
    }
    if (until != NULL) {
        SPB_TRY(cli_parse_when("--until", until, now_us, &us, err));
        query->request.until_us = (uint64_t)us;
    }
    return spb_ok();
}

static ProtobufCBinaryData text_bytes(const char *text)
{
    return cli_bytes(text, text == NULL ? 0 : strlen(text));
}

static spb_status take_image(struct cli *cli, struct query *query, struct spb_error *err)
{
    const char *text = cli_text_of(cli, CLI_OPT_IMAGE);
    struct cli_image_ref image = {.name = NULL};

    if (text == NULL)
        return spb_ok();
    SPB_TRY(cli_parse_image("--image", text, &image, err));
    query->request.image = text_bytes(image.name);
    if (!image.has_tenant)
        return spb_ok();
    if (cli_has(cli, CLI_OPT_TENANT_ID) || cli_has(cli, CLI_OPT_ALL_TENANTS))
        return spb_fail(err, SPB_INVALID,
                        "audit list: found a tenant in --image and --tenant-id or --all-tenants, "
                        "expected one of them");
    query->request.if_tenant_case = SPACEBLOCK__V1__LIST_AUDIT_REQUEST__IF_TENANT_TENANT;
    query->request.tenant = image.tenant;
    return spb_ok();
}

static spb_status take_query(struct cli *cli, struct query *query, struct spb_error *err)
{
    const char *outcome = cli_text_of(cli, CLI_OPT_OUTCOME);

    spaceblock__v1__list_audit_request__init(&query->request);
    query->left = cli_number(cli, CLI_OPT_LIMIT, LIMIT_DEFAULT);
    if (cli_has(cli, CLI_OPT_TENANT_ID)) {
        query->request.if_tenant_case = SPACEBLOCK__V1__LIST_AUDIT_REQUEST__IF_TENANT_TENANT;
        query->request.tenant = (uint32_t)cli_number(cli, CLI_OPT_TENANT_ID, 0);
    }
    query->request.all_tenants = cli_has(cli, CLI_OPT_ALL_TENANTS);
    query->request.principal = text_bytes(cli_text_of(cli, CLI_OPT_PRINCIPAL));
    query->request.method = text_bytes(cli_text_of(cli, CLI_OPT_METHOD));
    if (outcome != NULL)
        SPB_TRY(parse_outcome(outcome, &query->request.outcome, err));
    SPB_TRY(take_times(cli, query, err));
    return take_image(cli, query, err);
}

/* ---- What is shown ------------------------------------------------------------------------- */

struct listing {
    json_t *records; /* with --json */
    struct cli_table table;
    bool more; /* than were asked for */
};

/* 2026-01-02T03:04:05.678901Z */
static void show_time(uint64_t us, char out[CLI_TIME_SIZE + 8])
{
    char seconds[CLI_TIME_SIZE];

    cli_text_time(us / 1000000, seconds);
    size_t n = strlen(seconds);
    bool utc = n > 0 && seconds[n - 1] == 'Z';
    (void)snprintf(out, CLI_TIME_SIZE + 8, "%.*s.%06" PRIu64 "%s", (int)(utc ? n - 1 : n), seconds,
                   us % 1000000, utc ? "Z" : "");
}

/* Takes the next line off a text. */
static ProtobufCBinaryData next_line(ProtobufCBinaryData *text)
{
    const uint8_t *end = text->len == 0 ? NULL : memchr(text->data, '\n', text->len);
    size_t n = end == NULL ? text->len : (size_t)(end - text->data);
    ProtobufCBinaryData line = {.len = n, .data = text->data};
    size_t used = end == NULL ? n : n + 1;

    text->data += used;
    text->len -= used;
    return line;
}

static json_t *changes_to_json(const Spaceblock__V1__AuditRecord *record)
{
    ProtobufCBinaryData object = record->object, before = record->before, after = record->after;
    json_t *changes = cli_json_array();

    do {
        ProtobufCBinaryData what = next_line(&object), from = next_line(&before),
                            to = next_line(&after);
        json_t *change = cli_json_object();

        cli_json_set_text(change, "object", what.data, what.len);
        cli_json_set_text(change, "before", from.data, from.len);
        cli_json_set_text(change, "after", to.data, to.len);
        cli_json_append(changes, change);
    } while (object.len > 0);
    return changes;
}

static void add_json(json_t *records, const Spaceblock__V1__AuditRecord *record)
{
    char when[CLI_TIME_SIZE + 8], id[CLI_UUID_TEXT_SIZE];
    json_t *object = cli_json_object();

    show_time(record->time_us, when);
    cli_json_set_number(object, "id", record->id);
    cli_json_set_string(object, "time", when);
    cli_json_set_number(object, "time_us", record->time_us);
    cli_json_set_text(object, "principal", record->principal.data, record->principal.len);
    cli_json_set_number(object, "tenant", record->tenant);
    cli_json_set_text(object, "image", record->image.data, record->image.len);
    cli_json_set_number(object, "group", record->group);
    cli_json_set_text(object, "method", record->method.data, record->method.len);
    if (record->request_id.len == REQUEST_ID_BYTES) {
        cli_text_uuid(record->request_id.data, id);
        cli_json_set_string(object, "request_id", id);
    }
    cli_json_set_string(object, "outcome", outcome_word(record->outcome));
    cli_json_set(object, "changes", changes_to_json(record));
    cli_json_append(records, object);
}

/* A text that fits a column, with dots for what is left out. */
static char *cell(const ProtobufCBinaryData *text)
{
    char *safe = cli_text_safe(text->data, text->len);
    size_t used = 0, n = 0;

    if (safe == NULL)
        return NULL;
    while (safe[used] != '\0' && n < CELL_MAX) {
        used++;
        while (((unsigned char)safe[used] & 0xC0) == 0x80)
            used++;
        n++;
    }
    if (safe[used] != '\0' && used >= 3)
        memcpy(safe + used - 3, "...", 4);
    return safe;
}

static void add_row(struct cli_table *table, const Spaceblock__V1__AuditRecord *record)
{
    ProtobufCBinaryData object = record->object, before = record->before, after = record->after;
    char when[CLI_TIME_SIZE + 8];
    bool first = true;

    show_time(record->time_us, when);
    char *image = cli_text_safe(record->image.data, record->image.len);
    do {
        ProtobufCBinaryData what = next_line(&object), from = next_line(&before),
                            to = next_line(&after);

        cli_table_add(table, "%s", first ? when : "");
        cli_table_take(table, first ? cell(&record->principal) : strdup(""));
        if (first && record->image.len > 0)
            cli_table_add(table, "%" PRIu32 "/%s", record->tenant, image == NULL ? "" : image);
        else
            cli_table_add(table, "%s", "");
        cli_table_take(table, first ? cell(&record->method) : strdup(""));
        cli_table_add(table, "%s", first ? outcome_word(record->outcome) : "");
        cli_table_take(table, cell(&what));
        cli_table_take(table, cell(&from));
        cli_table_take(table, cell(&to));
        first = false;
    } while (object.len > 0);
    free(image);
}

static spb_status list_page(struct cli_daemon *daemon, struct query *query, struct listing *listing,
                            struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_AUDIT, "List", &spaceblock__v1__list_audit_response__descriptor, CLI_CALL_MS};
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    uint64_t before_id = query->request.before_id;

    query->request.page_size = (uint32_t)(query->left < PAGE_MAX ? query->left : PAGE_MAX);
    SPB_TRY(cli_daemon_call(daemon, &method, &query->request.base, &reply, err));
    const Spaceblock__V1__ListAuditResponse *answer = (const void *)reply;
    /* A daemon that does not get on would never come to an end. */
    if (answer->n_records > query->request.page_size ||
        (before_id != 0 && answer->next_before_id >= before_id))
        return cli_answer_lacks(&method, "a page of the size that was asked for", err);
    for (size_t i = 0; i < answer->n_records; i++) {
        if (listing->records != NULL)
            add_json(listing->records, answer->records[i]);
        else
            add_row(&listing->table, answer->records[i]);
    }
    query->left -= answer->n_records;
    query->request.before_id = answer->next_before_id;
    listing->more = answer->next_before_id != 0;
    return spb_ok();
}

static void print_listing(const struct cli *cli, struct listing *listing)
{
    if (listing->records == NULL) {
        cli_table_print(&listing->table);
        if (listing->more)
            cli_note(cli, "there are older records: --limit shows more, --until goes back");
        return;
    }
    json_t *root = cli_json_object();
    cli_json_set(root, "records", listing->records);
    cli_json_set_bool(root, "more", listing->more);
    cli_json_print(root);
}

int cli_run_audit_list(struct cli *cli)
{
    static const char *const headings[] = {"TIME",    "PRINCIPAL", "IMAGE",  "METHOD",
                                           "OUTCOME", "OBJECT",    "BEFORE", "AFTER"};
    AUTO_DAEMON struct cli_daemon daemon = {.client = NULL};
    struct listing listing = {.more = false};
    struct query query;
    struct spb_error err;

    if (cli_has(cli, CLI_OPT_TENANT_ID) && cli_has(cli, CLI_OPT_ALL_TENANTS))
        return cli_usage(cli, "audit list: found both --tenant-id and --all-tenants, expected one");
    if (!spb_is_ok(take_query(cli, &query, &err)))
        return cli_usage(cli, "%s", err.text);
    spb_status status = cli_daemon_open(cli, &daemon, &err);
    if (!spb_is_ok(status))
        /* Only a malformed endpoint is invalid before the first call. */
        return err.code == SPB_INVALID ? cli_usage(cli, "%s", err.text) : cli_fail(cli, &err);
    if (cli_is_json(cli))
        listing.records = cli_json_array();
    else
        cli_table_init(&listing.table, headings, 8);
    do {
        status = list_page(&daemon, &query, &listing, &err);
    } while (spb_is_ok(status) && listing.more && query.left > 0);
    if (spb_is_ok(status)) {
        print_listing(cli, &listing);
        return CLI_EXIT_OK;
    }
    json_decref(listing.records);
    cli_table_done(&listing.table);
    return cli_fail(cli, &err);
}
