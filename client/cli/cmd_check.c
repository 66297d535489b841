/* check, image check and defrag. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/target.h"
#include "cli/text.h"

/* A check, and where it repaired, what a second one found. */
struct outcome {
    struct cli_check first, second;
};

static void outcome_cleanup(struct outcome *outcome)
{
    spb_report_done(&outcome->first.report);
    spb_report_done(&outcome->second.report);
}

/* What is there now. A repair can end more than it lists: of two entries that overlap, dropping the
 * unreadable one leaves no overlap. */
static const struct spb_report *left_of(const struct outcome *outcome)
{
    return outcome->first.repaired ? &outcome->second.report : &outcome->first.report;
}

static bool is_left(const struct outcome *outcome, const struct spb_finding *finding)
{
    const struct spb_report *left = left_of(outcome);

    for (size_t i = 0; i < left->count; i++) {
        if (left->findings[i].kind == finding->kind && left->findings[i].index == finding->index)
            return true;
    }
    return false;
}

static void print_json(const struct outcome *outcome)
{
    const struct spb_report *report = &outcome->first.report;
    json_t *root = cli_json_object(), *findings = cli_json_array();

    cli_json_set_bool(root, "clean", report->count == 0);
    cli_json_set_bool(root, "repaired", outcome->first.repaired);
    cli_json_set_number(root, "unrepaired", left_of(outcome)->count);
    for (size_t i = 0; i < report->count; i++) {
        json_t *object = cli_json_object();
        cli_json_set_string(object, "kind", spb_finding_name(report->findings[i].kind));
        cli_json_set_number(object, "index", report->findings[i].index);
        cli_json_set_bool(object, "repairable", report->findings[i].repairable);
        cli_json_set_bool(object, "left", is_left(outcome, &report->findings[i]));
        cli_json_set_string(object, "text", report->findings[i].text);
        cli_json_append(findings, object);
    }
    cli_json_set(root, "findings", findings);
    cli_json_set_number(root, "params_valid", report->params_valid);
    cli_json_set_number(root, "params_superseded", report->params_superseded);
    cli_json_set_number(root, "params_free", report->params_free);
    cli_json_set_number(root, "params_corrupt", report->params_corrupt);
    cli_json_set_number(root, "events_live", report->events_live);
    cli_json_set_number(root, "events_corrupt", report->events_corrupt);
    cli_json_set_number(root, "products_good", report->products_good);
    cli_json_set_number(root, "products_bad", report->products_bad);
    cli_json_set_number(root, "blocks_used", report->blocks_used);
    cli_json_set_number(root, "blocks_free", report->blocks_free);
    cli_json_print(root);
}

static const char *fate(const struct outcome *outcome, const struct spb_finding *finding)
{
    if (!outcome->first.repaired)
        return finding->repairable ? "can be repaired" : "cannot be repaired";
    return is_left(outcome, finding) ? "cannot be repaired" : "repaired";
}

static void print_text(const struct outcome *outcome)
{
    const struct spb_report *report = &outcome->first.report;

    for (size_t i = 0; i < report->count; i++) {
        const struct spb_finding *finding = &report->findings[i];
        char *text = cli_text_safe(finding->text, strlen(finding->text));
        printf("%s: %s (%s)\n", spb_finding_name(finding->kind), text == NULL ? "" : text,
               fate(outcome, finding));
        free(text);
    }
    printf("parameters     %" PRIu32 " valid, %" PRIu32 " superseded, %" PRIu32 " free, %" PRIu32
           " corrupt\n",
           report->params_valid, report->params_superseded, report->params_free,
           report->params_corrupt);
    printf("events         %" PRIu32 " live, %" PRIu32 " corrupt\n", report->events_live,
           report->events_corrupt);
    printf("data products  %" PRIu32 " good, %" PRIu32 " bad; %" PRIu64 " blocks used, %" PRIu64
           " free\n",
           report->products_good, report->products_bad, report->blocks_used, report->blocks_free);
    if (report->count == 0)
        printf("clean\n");
    else
        printf("%zu found, %zu left\n", report->count, left_of(outcome)->count);
}

static spb_status run_checks(struct cli *cli, struct cli_target *target, struct outcome *outcome,
                             struct spb_error *err)
{
    struct cli_progress progress;

    cli_progress_init(&progress, cli, "checking");
    spb_status status =
        target->ops->check(target, cli_has(cli, CLI_OPT_REPAIR), &progress, &outcome->first, err);
    if (spb_is_ok(status) && outcome->first.repaired && outcome->first.report.count > 0)
        status = target->ops->check(target, false, &progress, &outcome->second, err);
    cli_progress_done(&progress);
    return status;
}

int cli_run_check(struct cli *cli)
{
    struct outcome outcome
        __attribute__((cleanup(outcome_cleanup))) = {.first = {.repaired = false}};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(run_checks(cli, target, &outcome, &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli))
        print_json(&outcome);
    else
        print_text(&outcome);
    return left_of(&outcome)->count == 0 ? CLI_EXIT_OK : CLI_EXIT_CORRUPT;
}

int cli_run_defrag(struct cli *cli)
{
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct cli_progress progress;
    struct cli_defrag defrag;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    cli_progress_init(&progress, cli, "moving");
    spb_status status = target->ops->defrag(target, &progress, &defrag, &err);
    cli_progress_done(&progress);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_number(root, "moved", defrag.moved);
        cli_json_set_number(root, "free_blocks", defrag.free_blocks);
        cli_json_set_number(root, "largest_free_blocks", defrag.largest_free_blocks);
        cli_json_print(root);
    } else {
        printf("%" PRIu32 " moved; %" PRIu64 " blocks free, the largest extent has %" PRIu32 "\n",
               defrag.moved, defrag.free_blocks, defrag.largest_free_blocks);
    }
    return CLI_EXIT_OK;
}
