/* The family guest: making, starting, ending and removing guests, and waiting for them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/guest/config.h"
#include "cli/guest/guest.h"
#include "cli/output.h"
#include "cli/text.h"

static int fail(const struct cli *cli, spb_status status, const struct spb_error *err)
{
    return spb_is_ok(status) ? CLI_EXIT_OK : cli_fail(cli, err);
}

/* Waits for the end, shows the guest as it is then, and exits as it ended. */
static int wait_and_tell(struct cli *cli, struct cli_guest *guest, struct cli_guest_answer *answer)
{
    struct spb_error err;

    if (!spb_is_ok(cli_guest_wait(guest, CLI_GUEST_ENDED, answer, &err)))
        return cli_fail(cli, &err);
    cli_guest_tell(cli, answer->guest);
    return cli_guest_exit(answer->guest);
}

/* ---- create and run ------------------------------------------------------------------------ */

static spb_status create(struct cli_guest *guest, struct cli_guest_config *config,
                         struct cli_guest_answer *answer, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_GUESTS, "Create",
                                             &spaceblock__v1__create_guest_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__CreateGuestRequest request;
    char request_id[SPB_REQUEST_ID_SIZE];

    SPB_TRY(cli_guest_config_boot_files(guest, config, err));
    spaceblock__v1__create_guest_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    request.request_id = request_id;
    request.guest = &guest->ref;
    request.config = &config->message;
    return cli_guest_ask(guest, &method, &request.base, answer, err);
}

/* The guest that the options describe, made and not started. */
static int make(struct cli *cli, struct cli_guest *guest, struct cli_guest_answer *answer)
{
    struct cli_guest_config config;
    struct spb_error err;

    int code = cli_guest_open(cli, guest);
    if (code != CLI_EXIT_OK)
        return code;
    if (!spb_is_ok(cli_guest_config_init(cli, &guest->name, &config, &err)))
        return cli_usage(cli, "%s", err.text);
    cli_interrupt_watch();
    return fail(cli, create(guest, &config, answer, &err), &err);
}

int cli_run_guest_create(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};

    int code = make(cli, &guest, &answer);
    if (code == CLI_EXIT_OK)
        cli_guest_tell(cli, answer.guest);
    return code;
}

/* However it went: nothing of the guest stays. A signal has ended the client's calls, not the
 * guest. */
static int remove_it(struct cli *cli, struct cli_guest *guest, int code)
{
    struct spb_error err;
    spb_status status = spb_ok();

    if (guest->daemon.client == NULL)
        status = cli_daemon_open(cli, &guest->daemon, &err);
    if (spb_is_ok(status))
        status = cli_guest_delete(guest, true, &err);
    if (spb_is_ok(status) || status.code == SPB_NOT_FOUND)
        return code;
    int failed = cli_fail(cli, &err);
    return code == CLI_EXIT_OK ? failed : code;
}

int cli_run_guest_run(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    bool removes = cli_has(cli, CLI_OPT_RM);
    struct spb_error err;

    int code = make(cli, &guest, &answer);
    if (code != CLI_EXIT_OK)
        return code;
    spb_status status = cli_guest_start(&guest, &answer, &err);
    code = fail(cli, status, &err);
    if (code != CLI_EXIT_OK && !removes)
        cli_note(cli,
                 "guest %s is made: guest start starts it, guest rm removes it, guest logs has "
                 "what it printed",
                 cli->words[0]);
    if (code == CLI_EXIT_OK && (removes || cli_has(cli, CLI_OPT_WAIT)))
        code = wait_and_tell(cli, &guest, &answer);
    else if (code == CLI_EXIT_OK)
        cli_guest_tell(cli, answer.guest);
    return removes ? remove_it(cli, &guest, code) : code;
}

/* ---- start, stop and kill ------------------------------------------------------------------ */

int cli_run_guest_start(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    struct spb_error err;

    int code = cli_guest_open(cli, &guest);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    code = fail(cli, cli_guest_start(&guest, &answer, &err), &err);
    if (code != CLI_EXIT_OK)
        return code;
    if (cli_has(cli, CLI_OPT_WAIT))
        return wait_and_tell(cli, &guest, &answer);
    cli_guest_tell(cli, answer.guest);
    return CLI_EXIT_OK;
}

/* It was asked to end: done is that it has. */
static int end(struct cli *cli, struct cli_guest *guest, struct cli_guest_answer *answer,
               spb_status status, struct spb_error *err)
{
    if (spb_is_ok(status) && !cli_has(cli, CLI_OPT_NO_WAIT) && !cli_guest_has_ended(answer->guest))
        status = cli_guest_wait(guest, CLI_GUEST_ENDED, answer, err);
    if (spb_is_ok(status))
        cli_guest_tell(cli, answer->guest);
    return fail(cli, status, err);
}

int cli_run_guest_stop(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    uint32_t timeout_ms = (uint32_t)(cli_number(cli, CLI_OPT_STOP_TIMEOUT, 0) * 1000);
    struct spb_error err;

    int code = cli_guest_open(cli, &guest);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    return end(cli, &guest, &answer, cli_guest_stop(&guest, timeout_ms, &answer, &err), &err);
}

int cli_run_guest_kill(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    struct spb_error err;

    int code = cli_guest_open(cli, &guest);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    return end(cli, &guest, &answer, cli_guest_kill(&guest, &answer, &err), &err);
}

/* ---- rm and wait --------------------------------------------------------------------------- */

int cli_run_guest_rm(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    struct spb_error err;

    int code = cli_guest_open(cli, &guest);
    if (code != CLI_EXIT_OK)
        return code;
    code = fail(cli, cli_guest_delete(&guest, cli_has(cli, CLI_OPT_FORCE), &err), &err);
    if (code != CLI_EXIT_OK)
        return code;
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_string(root, "guest", cli->words[0]);
        cli_json_set_bool(root, "deleted", true);
        cli_json_print(root);
    } else {
        printf("guest %s deleted\n", cli->words[0]);
    }
    return CLI_EXIT_OK;
}

int cli_run_guest_wait(struct cli *cli)
{
    CLI_AUTO_GUEST struct cli_guest guest = {.daemon = {.client = NULL}};
    CLI_AUTO_ANSWER struct cli_guest_answer answer = {NULL, NULL};
    const char *what = cli_text_of(cli, CLI_OPT_FOR);
    enum cli_guest_goal goal = CLI_GUEST_ENDED;
    struct spb_error err;

    if (what != NULL && strcmp(what, "running") == 0)
        goal = CLI_GUEST_RUNNING;
    else if (what != NULL && strcmp(what, "alive") == 0)
        goal = CLI_GUEST_ALIVE;
    else if (what != NULL && strcmp(what, "stopped") != 0)
        return cli_usage(cli, "--for: found \"%s\", expected stopped, running or alive", what);
    int code = cli_guest_open(cli, &guest);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    if (goal == CLI_GUEST_ENDED)
        return wait_and_tell(cli, &guest, &answer);
    code = fail(cli, cli_guest_wait(&guest, goal, &answer, &err), &err);
    if (code == CLI_EXIT_OK)
        cli_guest_tell(cli, answer.guest);
    return code;
}
