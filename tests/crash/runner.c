/* Runs a scenario and tries every state that it may leave. Failing media: faults.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "crash/lab.h"
#include "support/model_inside.h"

/* ---- One state ------------------------------------------------------------------------------ */

static void describe_cut(char *text, size_t size, const char *what, const struct medium_cut *cut)
{
    int used = snprintf(text, size, "%s: after flush %zu, %zu of %zu sectors reached:", what,
                        cut->epoch, cut->reached, cut->changed);

    for (size_t i = 0; i < cut->changed && used > 0 && (size_t)used + 12 < size; i++) {
        if (cut->is_reached[i])
            used += snprintf(text + used, size - (size_t)used, " %u", cut->sectors[i]);
    }
}

/* The statement tells what the model sees. */
static void check_verdicts(struct lab *lab, struct model *model, struct spb_volume *volume)
{
    struct spb_judgement *judgements = NULL;
    size_t count = 0;
    struct spb_error err;

    if (lab->statement == NULL)
        return;
    CHECK(lab,
          spb_is_ok(spb_changes_judge(lab->statement, lab->statement_size, volume, &judgements,
                                      &count, &err)),
          "judging: %s", err.text);
    /* A call may be several changes: a repair one for each thing, a product one for each twin. */
    bool repair = model_changes(model) == 1 && model_is_repair(model, 0);
    bool by_call = count != model_changes(model) && lab->call_count == model_changes(model);

    CHECK(lab, by_call || count == model_changes(model), "%zu judgements of %zu changes", count,
          model_changes(model));
    for (size_t i = 0; i < count; i++)
        CHECK(lab, !repair || judgements[i].verdict != SPB_VERDICT_UNKNOWN, "%s is unknown",
              judgements[i].object);
    for (size_t i = 0; i < model_changes(model) && !repair; i++) {
        enum spb_verdict verdict = judgements[by_call ? lab->calls[i].first : i].verdict;
        unsigned fits = model_verdicts(model, i);

        /* Twins are not seen by who reads. */
        if (by_call && lab->calls[i].count > 1) {
            verdict = spb_judgements_sum(judgements + lab->calls[i].first, lab->calls[i].count);
            fits |= 1u << (unsigned)SPB_VERDICT_IN_PART;
        }
        CHECK(lab, (fits >> (unsigned)verdict & 1) != 0,
              "change %zu (%s) is judged %s, the model allows the set %#x", i, judgements[i].object,
              spb_verdict_name(verdict), fits);
    }
    free(judgements);
}

/* What recovery wrote may be cut too. */
struct second_cut {
    struct lab *lab;
    struct model *model;
    uint64_t visited;
};

static void check_second_cut(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    struct second_cut *second = user;
    struct lab *lab = second->lab;
    struct model *model = model_clone(second->model);
    char where[sizeof(lab->where)];

    memcpy(where, lab->where, sizeof(where));
    describe_cut(lab->where + strlen(lab->where), sizeof(lab->where) - strlen(lab->where),
                 "; recovery cut", cut);
    medium_reset(lab->nested, image);
    struct spb_volume *volume = lab_open(lab, lab->nested, true);

    lab_compare(lab, model, volume, "recovered twice");
    lab_check_medium(lab, lab->nested, "recovered twice");
    model_adopt(model);
    spb_volume_close(volume);
    lab_check_durable(lab, lab->nested, model, "after the second recovery");
    model_free(model);
    memcpy(lab->where, where, sizeof(where));
    second->visited++;
}

static void check_recovery_cuts(struct lab *lab, const struct medium *medium, struct model *model,
                                uint64_t limit)
{
    struct second_cut second = {lab, model, 0};

    medium_each_cut(medium, limit, &lab->random, check_second_cut, &second);
    lab->recoveries += second.visited;
}

struct first_cut {
    struct lab *lab;
    struct model *model;
};

/* Nobody recovers a volume that is opened for reading: it shows an allowed state as well. */
static void check_reading(struct lab *lab, struct model *model)
{
    struct medium_counts before = medium_counts(lab->cut);
    struct spb_volume *volume = lab_open(lab, lab->cut, false);

    lab_compare(lab, model, volume, "opened for reading");
    spb_volume_close(volume);
    CHECK(lab,
          medium_counts(lab->cut).writes == before.writes &&
              medium_counts(lab->cut).flushes == before.flushes,
          "opening for reading wrote or flushed");
}

static void check_cut(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    struct first_cut *first = user;
    struct lab *lab = first->lab;

    describe_cut(lab->where, sizeof(lab->where), "power cut", cut);
    lab_check_completion(lab, image, first->model);
    medium_reset(lab->cut, image);
    if (lab->states % 8 == 0)
        check_reading(lab, first->model);
    struct spb_volume *volume = lab_open(lab, lab->cut, true);

    lab_compare(lab, first->model, volume, "recovered");
    lab_check_medium(lab, lab->cut, "recovered");
    check_verdicts(lab, first->model, volume);
    if (medium_counts(lab->cut).writes > 0)
        check_recovery_cuts(lab, lab->cut, first->model, 256);

    struct model *model = model_clone(first->model);

    lab_compare(lab, model, volume, "recovered");
    model_adopt(model);
    lab_one_more(lab, lab->cut, volume, model, lab->states++);
    model_free(model);
    lab->where[0] = '\0';
}

void lab_check_cuts(struct lab *lab, const struct medium *medium, struct model *model)
{
    struct first_cut first = {lab, model};

    medium_each_cut(medium, lab_limit(lab), &lab->random, check_cut, &first);
}

/* ---- Death of the process ------------------------------------------------------------------- */

static void check_death(struct lab *lab, const struct medium *medium, struct model *alternatives,
                        size_t step)
{
    struct model *model = model_clone(alternatives);
    struct spb_volume *volume;

    snprintf(lab->where, sizeof(lab->where), "process died after step %zu of %zu", step,
             medium_steps(medium));
    medium_die_after(lab->heir, medium, step);
    volume = lab_open(lab, lab->heir, true);
    lab_compare(lab, model, volume, "recovered by the next process");
    lab_check_medium(lab, lab->heir, "recovered by the next process");
    check_verdicts(lab, model, volume);
    check_recovery_cuts(lab, lab->heir, model, 48 < lab_limit(lab) ? 48 : lab_limit(lab));
    lab_compare(lab, model, volume, "recovered by the next process");
    model_adopt(model);
    lab_one_more(lab, lab->heir, volume, model, step);
    model_free(model);
    lab->deaths++;
    lab->where[0] = '\0';
}

void lab_check_deaths(struct lab *lab, const struct medium *medium, struct model *model)
{
    size_t steps = medium_steps(medium);
    size_t most = lab->block_size >= 65536 ? 10 : 48;

    if (steps <= most) {
        for (size_t step = 0; step <= steps; step++)
            check_death(lab, medium, model, step);
        return;
    }
    for (size_t i = 0; i < most; i++)
        check_death(lab, medium, model, random_below(&lab->random, (uint32_t)steps + 1));
}

/* ---- A scenario ----------------------------------------------------------------------------- */

/* What the first opening recovers is not the scenario's: begins after it. */
static void settle_image(struct lab *lab)
{
    struct spb_volume *volume;
    struct medium_counts before;

    medium_reset(lab->medium, lab->image);
    volume = lab_open(lab, lab->medium, true);
    lab_compare(lab, lab->model, volume, "as planted");
    lab_check_medium(lab, lab->medium, "as planted");
    model_adopt(lab->model);
    before = medium_counts(lab->medium);
    spb_volume_close(volume);
    CHECK(lab, medium_counts(lab->medium).writes == before.writes, "closing wrote");
    memcpy(lab->image, medium_durable(lab->medium), lab->size);
}

static void space(const struct spb_volume *volume, uint64_t *free_blocks, uint32_t *largest)
{
    *free_blocks = 0;
    *largest = 0;
    spb_product_space(volume, free_blocks, largest);
}

/* Dropping what was decided alters nothing; deciding it again says the same. */
static void check_drop(struct lab *lab, const struct scenario *scenario)
{
    struct act act;
    uint64_t free_before, free_after;
    uint32_t largest_before, largest_after;
    uint8_t *first;
    size_t first_size, metadata = (size_t)34 * lab->block_size;

    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, false);
    space(act.volume, &free_before, &largest_before);
    CHECK(lab, spb_is_ok(act_run(&act, scenario, true)), "deciding: %s", act.err.text);
    first = model_allocate(lab->statement_size);
    first_size = lab->statement_size;
    memcpy(first, lab->statement, first_size);
    act_end(&act, false);
    model_drop(act.model);
    lab_compare(lab, act.model, act.volume, "after dropping");
    space(act.volume, &free_after, &largest_after);
    CHECK(lab, free_before == free_after && largest_before == largest_after,
          "after dropping %llu blocks are free, before %llu", (unsigned long long)free_after,
          (unsigned long long)free_before);
    CHECK(lab, memcmp(medium_visible(lab->medium), lab->image, metadata) == 0,
          "dropping altered the metadata");
    CHECK(lab, scenario->stage != NULL || medium_counts(lab->medium).writes == 0, "deciding wrote");
    if (scenario->stage == NULL) {
        CHECK(lab, spb_is_ok(act_run(&act, scenario, true)), "deciding again: %s", act.err.text);
        CHECK(lab,
              first_size == lab->statement_size && memcmp(first, lab->statement, first_size) == 0,
              "decided again, the statement differs");
    }
    free(first);
    act_end(&act, true);
    lab_check_durable(lab, lab->medium, lab->model, "opened after dropping");
}

/*
 * Slots and entries that cross a sector boundary are never filled: as they were, or zeros. Where a
 * product lies is in its entry's first sector, and may change there.
 */
static void check_crossing(const struct lab *lab)
{
    const uint8_t *durable = medium_durable(lab->medium);
    static const uint8_t zeros[252];

    for (uint32_t slot = 0; slot < lab_param_slots(lab); slot++) {
        size_t at = lab_param_offset(lab, slot);
        size_t first = SPB_SECTOR_SIZE - at % SPB_SECTOR_SIZE;

        CHECK(lab,
              !lab_slot_crosses(lab, slot) || memcmp(durable + at, lab->image + at, 252) == 0 ||
                  memcmp(durable + at, zeros, first) == 0,
              "slot %u crosses a sector boundary and was written", slot);
    }
    for (uint32_t entry = 0; lab->blocks > 33 && entry < lab_catalog_entries(lab); entry++) {
        size_t at = (size_t)33 * lab->block_size + (size_t)entry * 80;

        CHECK(lab,
              !lab_entry_crosses(lab, entry) ||
                  memcmp(durable + at + 4, lab->image + at + 4, 76) == 0 ||
                  memcmp(durable + at, zeros, 12) == 0,
              "catalog entry %u crosses a sector boundary and was written", entry);
    }
}

/* Runs it to its end, then tries all that it passed through. */
static void run_through(struct lab *lab, const struct scenario *scenario, bool one_shot)
{
    struct act act;
    struct model *settled;
    uint64_t free_before, free_after;
    uint32_t largest_before, largest_after;

    lab_drop_statement(lab);
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, one_shot);
    CHECK(lab, spb_is_ok(act_run(&act, scenario, false)), "running: %s", act.err.text);
    act_end(&act, false);
    settled = model_clone(act.model);
    model_settle(settled);
    lab_compare(lab, settled, act.volume, "acknowledged");
    lab_check_medium(lab, lab->medium, "acknowledged");
    check_crossing(lab);
    lab_compare(lab, act.model, act.volume, "acknowledged");
    check_verdicts(lab, act.model, act.volume);
    space(act.volume, &free_before, &largest_before);

    struct model *alternatives = model_clone(act.model);

    medium_kill(lab->medium);
    act_end(&act, true);
    lab_check_cuts(lab, lab->medium, alternatives);
    lab_check_deaths(lab, lab->medium, alternatives);
    medium_power_loss(lab->medium);
    struct spb_volume *volume = lab_open(lab, lab->medium, true);

    lab_compare(lab, settled, volume, "acknowledged, after power loss");
    space(volume, &free_after, &largest_after);
    CHECK(lab, free_before == free_after && largest_before == largest_after,
          "%llu blocks are free, after opening anew %llu", (unsigned long long)free_before,
          (unsigned long long)free_after);
    spb_volume_close(volume);
    model_free(alternatives);
    model_free(settled);
}

void lab_run(struct lab *lab, const struct scenario *scenario, uint32_t block_size)
{
    lab_begin(lab, scenario->name, block_size, scenario->dp_blocks != 0 ? scenario->dp_blocks : 12);
    scenario->setup(lab);
    settle_image(lab);
    if (!scenario->one_shot_only) {
        check_drop(lab, scenario);
        run_through(lab, scenario, false);
        lab_run_faults(lab, scenario, false);
    }
    if (scenario->single || scenario->one_shot_only) {
        run_through(lab, scenario, true);
        lab_run_faults(lab, scenario, true);
    }
}

int lab_main(const char *program, const struct scenario *scenarios, size_t count, int argc,
             char **argv)
{
    static const uint32_t sizes[] = {512, 1024, 4096, 65536};
    const char *only = lab_option(argc, argv, "--only");
    const char *size = lab_option(argc, argv, "--size");
    struct lab lab;

    lab_init(&lab, program, argc, argv);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < 4; k++) {
            uint64_t before = lab.states;

            if ((scenarios[i].sizes >> k & 1) == 0 ||
                (only != NULL && strcmp(only, scenarios[i].name) != 0) ||
                (size != NULL && strtoul(size, NULL, 0) != sizes[k]))
                continue;
            lab_run(&lab, &scenarios[i], sizes[k]);
            printf("%-40s S=%-5u %7llu states\n", scenarios[i].name, sizes[k],
                   (unsigned long long)(lab.states - before));
        }
    }
    printf("%s: seed %llu: %llu states after power loss, %llu of recovery, %llu deaths, "
           "%llu failures, %llu calls completed\n",
           program, (unsigned long long)lab.seed, (unsigned long long)lab.states,
           (unsigned long long)lab.recoveries, (unsigned long long)lab.deaths,
           (unsigned long long)lab.faults, (unsigned long long)lab.completions);
    bool ran = lab.states > 0;

    lab_done(&lab);
    return ran ? 0 : 2;
}
