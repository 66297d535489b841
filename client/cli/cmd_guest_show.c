/* The family guest: listing guests, showing one, and what it uses. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/guest/guest.h"
#include "cli/output.h"
#include "cli/pages.h"
#include "cli/session.h"
#include "cli/table.h"
#include "cli/text.h"

/* ---- The list, page by page ---------------------------------------------------------------- */

static void add_started(struct cli_table *table, const Spaceblock__V1__Guest *guest)
{
    char when[CLI_TIME_SIZE] = "-";

    if (guest->started_at_ms > 0)
        cli_text_time(guest->started_at_ms / 1000, when);
    cli_table_add(table, "%s", when);
}

static void add_guest(struct cli_rows *rows, const Spaceblock__V1__Guest *guest)
{
    const Spaceblock__V1__GuestConfig *config = guest->config;

    if (rows->items != NULL) {
        cli_json_append(rows->items, cli_guest_to_json(guest));
        return;
    }
    cli_table_add(&rows->table, "%" PRIu32, guest->tenant);
    cli_table_take(&rows->table, cli_text_safe(guest->name.data, guest->name.len));
    cli_table_add(&rows->table, "%s%s", cli_guest_state_name(guest->state),
                  guest->crash_loop ? " (crash loop)" : "");
    if (config != NULL && config->n_images > 0)
        cli_table_take(&rows->table,
                       cli_text_safe(config->images[0]->name.data, config->images[0]->name.len));
    else
        cli_table_add(&rows->table, "-");
    cli_table_add(&rows->table, "%s", guest->pid == 0 ? "-" : cli_guest_accel_name(guest->accel));
    add_started(&rows->table, guest);
    cli_table_add(&rows->table, "%" PRIu32, guest->restarts);
    cli_table_take(&rows->table, cli_text_safe(guest->reason.data, guest->reason.len));
}

static spb_status list_page(struct cli *cli, struct cli_daemon *daemon, struct cli_page *page,
                            struct cli_rows *rows, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_GUESTS, "List", &spaceblock__v1__list_guests_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__ListGuestsRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    spaceblock__v1__list_guests_request__init(&request);
    if (cli_has(cli, CLI_OPT_TENANT_ID)) {
        request.if_tenant_case = SPACEBLOCK__V1__LIST_GUESTS_REQUEST__IF_TENANT_TENANT;
        request.tenant = (uint32_t)cli_number(cli, CLI_OPT_TENANT_ID, 0);
    }
    request.all_tenants = cli_has(cli, CLI_OPT_ALL_TENANTS);
    request.page_token = cli_bytes(page->token, page->token_len);
    SPB_TRY(cli_daemon_call(daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__ListGuestsResponse *answer = (const void *)reply;
    for (size_t i = 0; i < answer->n_guests; i++)
        add_guest(rows, answer->guests[i]);
    return cli_page_turn(page, &method, &answer->next_page_token, answer->n_guests, err);
}

int cli_run_guest_ls(struct cli *cli)
{
    static const char *const headings[] = {"TENANT", "NAME",    "STATE",    "IMAGE",
                                           "ACCEL",  "STARTED", "RESTARTS", "REASON"};
    static const struct cli_list list = {"guest ls", "guests", headings, 8, list_page};

    return cli_list_run(cli, &list);
}

int cli_run_guest_show(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    struct spb_error err;

    int code = cli_guest_open(cli, &guest);
    if (code != CLI_EXIT_OK)
        return code;
    if (!spb_is_ok(cli_guest_get(&guest, &answer, &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli))
        cli_json_print(cli_guest_to_json(answer.guest));
    else
        cli_guest_print(answer.guest);
    return CLI_EXIT_OK;
}

/* ---- Statistics ---------------------------------------------------------------------------- */

static json_t *disk_json(const Spaceblock__V1__GuestDiskStats *disk)
{
    json_t *object = cli_json_object();

    cli_json_set_number(object, "read_bytes", disk->read_bytes);
    cli_json_set_number(object, "read_operations", disk->read_operations);
    cli_json_set_number(object, "write_bytes", disk->write_bytes);
    cli_json_set_number(object, "write_operations", disk->write_operations);
    cli_json_set_number(object, "flush_operations", disk->flush_operations);
    cli_json_set_number(object, "failed_operations", disk->failed_operations);
    return object;
}

static void stats_json(const Spaceblock__V1__GuestStatsResponse *stats)
{
    json_t *root = cli_json_object(), *disks = cli_json_array();

    for (size_t i = 0; i < stats->n_disks; i++)
        cli_json_append(disks, disk_json(stats->disks[i]));
    cli_json_set(root, "guest", cli_guest_to_json(stats->guest));
    cli_json_set_number(root, "uptime_ms", stats->uptime_ms);
    cli_json_set_number(root, "cpu_ms", stats->cpu_ms);
    cli_json_set_number(root, "resident_bytes", stats->resident_bytes);
    cli_json_set(root, "disks", disks);
    cli_json_set_number(root, "console_bytes", stats->console_bytes);
    cli_json_set_number(root, "console_kept_from", stats->console_kept_from);
    cli_json_print(root);
}

static void stats_text(const Spaceblock__V1__GuestStatsResponse *stats)
{
    const Spaceblock__V1__Guest *guest = stats->guest;
    char *name = cli_text_safe(guest->name.data, guest->name.len);

    printf("guest     %" PRIu32 "/%s, %s\n", guest->tenant, name == NULL ? "" : name,
           cli_guest_state_name(guest->state));
    free(name);
    printf("uptime    %" PRIu64 ".%" PRIu64 " s\n", stats->uptime_ms / 1000,
           stats->uptime_ms % 1000 / 100);
    printf("processor %" PRIu64 ".%" PRIu64 " s\n", stats->cpu_ms / 1000,
           stats->cpu_ms % 1000 / 100);
    printf("memory    %" PRIu64 " MiB resident\n", stats->resident_bytes >> 20);
    for (size_t i = 0; i < stats->n_disks; i++) {
        const Spaceblock__V1__GuestDiskStats *disk = stats->disks[i];
        printf("disk %-4zu read %" PRIu64 " bytes in %" PRIu64 ", wrote %" PRIu64
               " bytes in %" PRIu64 ", flushed %" PRIu64 " times, failed %" PRIu64 "\n",
               i, disk->read_bytes, disk->read_operations, disk->write_bytes,
               disk->write_operations, disk->flush_operations, disk->failed_operations);
    }
    printf("console   %" PRIu64 " bytes, kept from %" PRIu64 "\n", stats->console_bytes,
           stats->console_kept_from);
}

int cli_run_guest_stats(struct cli *cli)
{
    static const struct cli_method method = {CLI_SERVICE_GUESTS, "Stats",
                                             &spaceblock__v1__guest_stats_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__GuestStatsRequest request;
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    struct spb_error err;

    int code = cli_guest_open(cli, &guest);
    if (code != CLI_EXIT_OK)
        return code;
    spaceblock__v1__guest_stats_request__init(&request);
    request.guest = &guest.ref;
    if (!spb_is_ok(cli_daemon_call(&guest.daemon, &method, &request.base, &reply, &err)))
        return cli_fail(cli, &err);
    const Spaceblock__V1__GuestStatsResponse *stats = (const void *)reply;
    if (stats->guest == NULL) {
        (void)cli_answer_lacks(&method, "guest", &err);
        return cli_fail(cli, &err);
    }
    if (cli_is_json(cli))
        stats_json(stats);
    else
        stats_text(stats);
    return CLI_EXIT_OK;
}
