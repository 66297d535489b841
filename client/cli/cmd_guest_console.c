/* The family guest: its console, to look at and to type on. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/guest/guest.h"
#include "cli/guest/stream.h"
#include "cli/output.h"
#include "cli/text.h"

/* The guest, and where in what it printed to begin. */
static int begin(struct cli *cli, struct cli_guest *guest, bool has_place, uint64_t *from)
{
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    spb_status status = spb_ok();
    struct spb_error err;

    int code = cli_guest_open(cli, guest);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    if (has_place)
        status = cli_stream_find(guest, cli_number(cli, CLI_OPT_NEWEST, 0), from, &err);
    else
        status = cli_guest_get(guest, &answer, &err);
    return spb_is_ok(status) ? CLI_EXIT_OK : cli_fail(cli, &err);
}

/* On standard error: standard output is the guest's. */
static void tell_end(const struct cli *cli, struct cli_guest *guest,
                     const struct cli_stream_end *end)
{
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    struct spb_error err;

    if (end->left)
        cli_note(cli, "left the console; the guest goes on");
    if (!end->ended || guest->daemon.client == NULL ||
        !spb_is_ok(cli_guest_get(guest, &answer, &err)))
        return;
    char *reason = cli_text_safe(answer.guest->reason.data, answer.guest->reason.len);
    cli_note(cli, "the guest is %s: %s", cli_guest_state_name(answer.guest->state),
             reason == NULL ? "" : reason);
    free(reason);
}

int cli_run_guest_console(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    struct cli_stream_how how = {.types = true,
                                 .follows = true,
                                 .ends_typed = cli_has(cli, CLI_OPT_NO_WAIT),
                                 .takes_over = cli_has(cli, CLI_OPT_TAKE_OVER)};
    struct cli_stream_end end = {.left = false};
    struct spb_error err;

    int code = begin(cli, &guest, true, &how.from);
    if (code != CLI_EXIT_OK)
        return code;
    if (!spb_is_ok(cli_stream_run(&guest, &how, &end, &err)))
        return cli_fail(cli, &err);
    tell_end(cli, &guest, &end);
    return CLI_EXIT_OK;
}

int cli_run_guest_logs(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    struct cli_stream_how how = {
        .follows = cli_has(cli, CLI_OPT_FOLLOW),
        .is_safe = isatty(STDOUT_FILENO) == 1 && !cli_has(cli, CLI_OPT_RAW),
    };
    struct cli_stream_end end = {.left = false};
    struct spb_error err;

    int code = begin(cli, &guest, cli_has(cli, CLI_OPT_NEWEST), &how.from);
    if (code != CLI_EXIT_OK)
        return code;
    if (!spb_is_ok(cli_stream_run(&guest, &how, &end, &err)))
        return cli_fail(cli, &err);
    return CLI_EXIT_OK;
}
