/* Lists in pages; see pages.h. */
#include "cli/pages.h"

#include <string.h>

#include "cli/output.h"
#include "cli/session.h"

spb_status cli_page_turn(struct cli_page *page, const struct cli_method *method,
                         const ProtobufCBinaryData *next, size_t count, struct spb_error *err)
{
    if (next->len > sizeof(page->token) || (next->len > 0 && count == 0))
        return cli_answer_lacks(method, "a page token that leads on", err);
    page->token_len = next->len;
    if (next->len > 0)
        memcpy(page->token, next->data, next->len);
    return spb_ok();
}

static void print_rows(const struct cli_list *list, struct cli_rows *rows)
{
    if (rows->items == NULL) {
        cli_table_print(&rows->table);
        return;
    }
    json_t *root = cli_json_object();
    cli_json_set(root, list->key, rows->items);
    cli_json_print(root);
}

int cli_list_run(struct cli *cli, const struct cli_list *list)
{
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct cli_rows rows = {.items = NULL};
    struct cli_page page = {.token_len = 0};
    struct spb_error err;
    spb_status status;

    if (cli_has(cli, CLI_OPT_TENANT_ID) && cli_has(cli, CLI_OPT_ALL_TENANTS))
        return cli_usage(cli, "%s: found both --tenant-id and --all-tenants, expected one",
                         list->command);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    if (cli_is_json(cli))
        rows.items = cli_json_array();
    else
        cli_table_init(&rows.table, list->headings, list->heading_count);
    do {
        status = list->read(cli, &session.daemon, &page, &rows, &err);
    } while (spb_is_ok(status) && page.token_len > 0);
    if (spb_is_ok(status)) {
        print_rows(list, &rows);
        return CLI_EXIT_OK;
    }
    json_decref(rows.items);
    cli_table_done(&rows.table);
    return cli_fail(cli, &err);
}
