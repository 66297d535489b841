/* image scrub: begins a scrub, waits for its end, and shows what it found. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/progress.h"
#include "cli/target_daemon.h"
#include "cli/text.h"

#define WAIT_S 1u /* of a call that waits: so often the bar moves, and a signal is seen */

static const struct cli_method method = {
    CLI_SERVICE_IMAGES, "Scrub", &spaceblock__v1__scrub_image_response__descriptor, CLI_CALL_MS};

/* One call; *answer is the caller's, CLI_AUTO_MESSAGE. */
static spb_status ask(struct daemon_target *target, bool start, uint32_t wait_s,
                      ProtobufCMessage **answer, struct spb_error *err)
{
    Spaceblock__V1__ScrubImageRequest request = SPACEBLOCK__V1__SCRUB_IMAGE_REQUEST__INIT;
    Spaceblock__V1__ImageRef image;

    cli_image_ref_fill(&target->image, &image);
    request.image = &image;
    request.start = start;
    request.wait_seconds = wait_s;
    return cli_daemon_call(&target->daemon, &method, &request.base, answer, err);
}

/* ---- What it shows ------------------------------------------------------------------------ */

static json_t *findings_to_json(const Spaceblock__V1__ScrubImageResponse *answer)
{
    json_t *list = cli_json_array();

    for (size_t i = 0; i < answer->n_findings; i++) {
        const Spaceblock__V1__Finding *message = answer->findings[i];
        json_t *object = cli_json_object();
        struct spb_finding finding;

        if (spb_is_ok(cli_from_finding(message, &finding, NULL)))
            cli_json_set_string(object, "kind", spb_finding_name(finding.kind));
        cli_json_set_number(object, "index", message->index);
        cli_json_set_bool(object, "repairable", message->repairable);
        cli_json_set_text(object, "text", message->text.data, message->text.len);
        cli_json_append(list, object);
    }
    return list;
}

static void print_json(const struct cli *cli, const Spaceblock__V1__ScrubImageResponse *answer)
{
    json_t *root = cli_json_object();

    cli_json_set_string(root, "image", cli->words[0]);
    cli_json_set_bool(root, "running", answer->running);
    cli_json_set_number(root, "done_bytes", answer->done_bytes);
    cli_json_set_number(root, "total_bytes", answer->total_bytes);
    cli_json_set_number(root, "started_at", answer->started_at);
    cli_json_set_number(root, "ended_at", answer->ended_at);
    cli_json_set_text(root, "failure", answer->failure.data, answer->failure.len);
    cli_json_set(root, "findings", findings_to_json(answer));
    cli_json_print(root);
}

static void print_state(const Spaceblock__V1__ScrubImageResponse *answer)
{
    char began[CLI_TIME_SIZE], ended[CLI_TIME_SIZE];

    cli_text_time(answer->started_at, began);
    cli_text_time(answer->ended_at, ended);
    if (answer->running && answer->started_at == 0)
        printf("scrub   waits for its turn\n");
    else if (answer->running)
        printf("scrub   runs since %s: %" PRIu64 " of %" PRIu64 " bytes\n", began,
               answer->done_bytes, answer->total_bytes);
    else if (answer->started_at == 0)
        printf("scrub   none since the daemon was started\n");
    else
        printf("scrub   of %s, ended %s: %" PRIu64 " bytes\n", began, ended, answer->done_bytes);
    if (answer->failure.len > 0) {
        char *text = cli_text_safe(answer->failure.data, answer->failure.len);
        printf("        ended early: %s\n", text == NULL ? "" : text);
        free(text);
    }
}

static void print_text(const Spaceblock__V1__ScrubImageResponse *answer)
{
    print_state(answer);
    for (size_t i = 0; i < answer->n_findings; i++) {
        const Spaceblock__V1__Finding *message = answer->findings[i];
        struct spb_finding finding = {.text = ""};
        bool known = spb_is_ok(cli_from_finding(message, &finding, NULL));
        char *text = cli_text_safe(message->text.data, message->text.len);

        printf("%s: %s\n", known ? spb_finding_name(finding.kind) : "unknown",
               text == NULL ? "" : text);
        free(text);
    }
    if (!answer->running && answer->started_at > 0 && answer->n_findings == 0 &&
        answer->failure.len == 0)
        printf("clean\n");
}

static int print(const struct cli *cli, const Spaceblock__V1__ScrubImageResponse *answer)
{
    if (cli_is_json(cli))
        print_json(cli, answer);
    else
        print_text(answer);
    if (answer->n_findings > 0)
        return CLI_EXIT_CORRUPT;
    /* Who waited wanted the end. */
    return cli_has(cli, CLI_OPT_WAIT) && answer->failure.len > 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

/* ---- The command -------------------------------------------------------------------------- */

/* Until the scrub has ended, or a signal came: it goes on without us then. */
static spb_status wait_for_end(struct cli *cli, struct daemon_target *target,
                               ProtobufCMessage **answer, struct spb_error *err)
{
    struct cli_progress progress;
    spb_status status = spb_ok();

    cli_interrupt_watch();
    cli_progress_init(&progress, cli, "scrubbing");
    while (spb_is_ok(status) && !cli_is_interrupted()) {
        const Spaceblock__V1__ScrubImageResponse *now = (const void *)*answer;
        ProtobufCMessage *next = NULL;

        if (!now->running)
            break;
        cli_progress_update(&progress, now->done_bytes, now->total_bytes);
        status = ask(target, false, WAIT_S, &next, err);
        /* A signal ends the waiting call, and the wait: what was told before is shown. */
        if (!spb_is_ok(status) && cli_is_interrupted())
            status = spb_ok();
        else if (spb_is_ok(status)) {
            cli_message_cleanup(answer);
            *answer = next;
        }
    }
    cli_progress_done(&progress);
    return status;
}

int cli_run_image_scrub(struct cli *cli)
{
    CLI_AUTO_MESSAGE ProtobufCMessage *answer = NULL;
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    bool start = !cli_has(cli, CLI_OPT_STATUS);
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    spb_status status = ask(daemon_of(target), start, 0, &answer, &err);
    if (spb_is_ok(status) && cli_has(cli, CLI_OPT_WAIT))
        status = wait_for_end(cli, daemon_of(target), &answer, &err);
    return spb_is_ok(status) ? print(cli, (const void *)answer) : cli_fail(cli, &err);
}
