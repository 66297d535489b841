/*
 * Lists that the daemon gives in pages, shown as a table or, with --json, as one array. Blocks; one
 * thread.
 */
#ifndef SPB_CLI_PAGES_H
#define SPB_CLI_PAGES_H

#include <jansson.h>

#include "cli/daemon.h"
#include "cli/table.h"

/* Where a list goes on. */
struct cli_page {
    uint8_t token[512];
    size_t token_len; /* 0: at its beginning, or its end */
};

/* To the page after an answer with so many things; fails on a daemon that would page on for ever.
 */
SPB_MUST_USE spb_status cli_page_turn(struct cli_page *page, const struct cli_method *method,
                                      const ProtobufCBinaryData *next, size_t count,
                                      struct spb_error *err);

/* What a list shows. */
struct cli_rows {
    json_t *items; /* with --json; else NULL, and rows go to the table */
    struct cli_table table;
};

struct cli_list {
    const char *command; /* "image list" */
    const char *key;     /* of the JSON array */
    const char *const *headings;
    size_t heading_count;
    /* One page: adds its rows and turns the page. */
    spb_status (*read)(struct cli *cli, struct cli_daemon *daemon, struct cli_page *page,
                       struct cli_rows *rows, struct spb_error *err);
};

/* Runs a command that lists, with its options --tenant-id and --all-tenants. */
int cli_list_run(struct cli *cli, const struct cli_list *list);

#endif
