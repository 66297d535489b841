/* Several changes of different kinds in one group; and what a statement says later on. */
#include "crash/lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static void setup_mixed(struct lab *lab)
{
    uint32_t ring = 15 * (lab->block_size / 76);

    lab_plant_param(lab, 0, 42, 1, "the first value");
    lab_plant_param(lab, lab_slot(lab, 9, false), 50, 65535, "the last generation");
    lab_plant_param(lab, lab_slot(lab, 10, false), 50, 2, "old");
    lab_plant_events(lab, 2 * ring - 2, ring);
    lab_plant_product(lab, 0, "alpha", 1, 600);
    lab_plant_product(lab, 1, "beta", 4, 10);
}

static spb_status stage(struct act *act)
{
    SPB_TRY(act_stage(act, "alpha", 4, FILL_RANDOM, act->lab->block_size + 9));
    return act_stage(act, "gamma", 5, FILL_ENDS_80, 77);
}

static spb_status put_append_publish(struct act *act)
{
    SPB_TRY(act_put(act, 42, "put beside an append"));
    SPB_TRY(act_append(act, 3));
    SPB_TRY(act_put(act, 43, "new"));
    return act_publish(act, 0, true);
}

static spb_status everything(struct act *act)
{
    SPB_TRY(act_put(act, 50, "generation 1 again"));
    SPB_TRY(act_put(act, 42, "put"));
    SPB_TRY(act_append(act, 2));
    SPB_TRY(act_publish(act, 1, false));
    SPB_TRY(act_delete_product(act, "beta"));
    return act_append(act, 5);
}

static spb_status deletes(struct act *act)
{
    SPB_TRY(act_delete(act, 50));
    SPB_TRY(act_append(act, act->lab->block_size / 76 + 1));
    return act_put_batch(act, 60, 3, "batch");
}

static spb_status puts_and_event(struct act *act)
{
    for (uint32_t id = 100; id < 108; id++)
        SPB_TRY(act_put(act, id, "one of eight"));
    return act_append(act, 1);
}

static const struct scenario scenarios[] = {
    {"put-append-publish", SALL, false, false, 0, setup_mixed, stage, put_append_publish},
    {"everything", S512 | S1024 | S4096, false, false, 0, setup_mixed, stage, everything},
    {"deletes", S512 | S4096, false, false, 0, setup_mixed, NULL, deletes},
    {"puts-and-event", S512 | S4096, false, false, 0, setup_mixed, NULL, puts_and_event},
};

/* ---- A statement after later changes --------------------------------------------------------- */

static spb_status first_changes(struct act *act)
{
    SPB_TRY(act_put(act, 42, "the change in question"));
    SPB_TRY(act_append(act, 2));
    return act_publish(act, 0, true);
}

static spb_status stage_later(struct act *act)
{
    return act_stage(act, "alpha", 8, FILL_RANDOM, 30);
}

/* Changes the same objects, enough events among them to take the places of the earlier ones. */
static spb_status later_changes(struct act *act)
{
    SPB_TRY(act_put(act, 42, "a later value"));
    SPB_TRY(act_append(act, act->lab->block_size / 76));
    return act_publish(act, 0, true);
}

static const struct scenario first = {"statement", SALL,        false, false,
                                      0,           setup_mixed, stage, first_changes};
static const struct scenario later = {"statement-later", SALL,        false,        false, 0,
                                      setup_mixed,       stage_later, later_changes};

/* Judges the saved statement, all of whose changes were replaced by later ones. */
static void judge_replaced(struct lab *lab, const uint8_t *bytes, size_t size,
                           const struct spb_volume *volume, const char *when)
{
    struct spb_judgement *judgements = NULL;
    size_t count = 0;
    struct spb_error err;

    CHECK(lab, spb_is_ok(spb_changes_judge(bytes, size, volume, &judgements, &count, &err)), "%s",
          err.text);
    CHECK(lab, count == 3, "%zu judgements of 3 changes", count);
    for (size_t i = 0; i < count; i++)
        CHECK(lab,
              judgements[i].verdict == SPB_VERDICT_UNKNOWN ||
                  judgements[i].verdict == SPB_VERDICT_AFTER,
              "%s: %s was replaced, and is judged %s", when, judgements[i].object,
              spb_verdict_name(judgements[i].verdict));
    CHECK(lab, judgements[0].verdict == SPB_VERDICT_UNKNOWN || judgements[0].object[0] != '\0',
          "a judgement without an object");
    free(judgements);
}

static void run_later(struct act *act)
{
    CHECK(act->lab, spb_is_ok(act_run(act, &later, false)), "%s", act->err.text);
    act_end(act, false);
    model_settle(act->model);
}

static void check_statement(struct lab *lab, uint32_t block_size)
{
    struct act act;
    uint8_t *bytes;
    size_t size;
    struct spb_judgement *judgements = NULL;
    size_t count = 0;

    lab_begin(lab, "statement", block_size, 12);
    setup_mixed(lab);
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, false);
    CHECK(lab, spb_is_ok(act_run(&act, &first, false)), "%s", act.err.text);
    act_end(&act, false);
    model_settle(act.model);
    bytes = lab->statement;
    size = lab->statement_size;
    lab->statement = NULL;
    for (unsigned i = 0; i < 3; i++)
        run_later(&act);
    judge_replaced(lab, bytes, size, act.volume, "after later changes");
    medium_power_loss(lab->medium);
    act_end(&act, true);
    act = act_begin(lab, lab->medium, false);
    judge_replaced(lab, bytes, size, act.volume, "opened anew");
    act_end(&act, true);

    /* Bytes that are no statement. */
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, false);
    for (size_t at = 0; at < size; at += 1 + size / 61) {
        bytes[at] ^= 0x20;
        CHECK(lab,
              spb_changes_judge(bytes, size, act.volume, &judgements, &count, NULL).code ==
                  SPB_CORRUPT,
              "a statement with byte %zu changed is judged", at);
        bytes[at] ^= 0x20;
        CHECK(lab,
              spb_changes_judge(bytes, at, act.volume, &judgements, &count, NULL).code ==
                  SPB_CORRUPT,
              "a statement cut at byte %zu is judged", at);
    }
    CHECK(lab, judgements == NULL && count == 0, "a failed judgement gave judgements");
    act_end(&act, true);
    free(bytes);
}

int main(int argc, char **argv)
{
    struct lab lab;

    lab_init(&lab, "crash_groups", argc, argv);
    check_statement(&lab, 512);
    check_statement(&lab, 4096);
    lab_done(&lab);
    return lab_main("crash_groups", scenarios, sizeof(scenarios) / sizeof(scenarios[0]), argc,
                    argv);
}
