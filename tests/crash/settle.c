/* What the daemon does with the calls of a statement after a crash: judged, and completed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "crash/lab.h"
#include "support/model_inside.h"

/* States of a scenario of which each is completed. */
#define ALL_STATES 256

/* Of each call; *verdicts has call_count places. */
static void judge_calls(struct lab *lab, const struct spb_volume *volume,
                        enum spb_verdict verdicts[LAB_CALLS])
{
    struct spb_judgement *judgements = NULL;
    struct spb_error err;
    size_t count = 0;

    CHECK(lab,
          spb_is_ok(spb_changes_judge(lab->statement, lab->statement_size, volume, &judgements,
                                      &count, &err)),
          "judging: %s", err.text);
    for (size_t i = 0; i < lab->call_count; i++) {
        const struct lab_call *call = &lab->calls[i];

        CHECK(lab, call->first + call->count <= count, "call %zu is beyond the statement", i);
        verdicts[i] = spb_judgements_sum(judgements + call->first, call->count);
    }
    free(judgements);
}

static spb_status complete(struct lab *lab, struct spb_volume *volume, size_t i,
                           struct spb_error *err)
{
    return spb_changes_complete(lab->statement, lab->statement_size, lab->calls[i].first,
                                lab->calls[i].count, volume, err);
}

/* Nobody can tell any more whether an entry was written to its slot: something else is there. */
static bool lost_a_slot(const struct lab *lab, const enum spb_verdict *after)
{
    for (size_t i = 0; i < lab->call_count; i++) {
        if (lab->calls[i].slot && after[i] == SPB_VERDICT_UNKNOWN)
            return true;
    }
    return false;
}

/*
 * May completing another call have done so to call k? What is written may take the slot of a
 * superseded entry which a deletion that has not begun would erase first: then that looks begun. Or
 * it takes the slot that an entry was to be written to, which had not begun, nor what builds on it.
 */
static bool is_kept(const struct lab *lab, const enum spb_verdict *before,
                    const enum spb_verdict *after, size_t k)
{
    if (after[k] == before[k])
        return true;
    return before[k] == SPB_VERDICT_BEFORE &&
           (after[k] == SPB_VERDICT_IN_PART ||
            (after[k] == SPB_VERDICT_UNKNOWN && lost_a_slot(lab, after)));
}

/* From the last to the first: what a later one makes of an object counts for those before it. */
void lab_complete_parts(struct lab *lab, struct spb_volume *volume, struct model *model)
{
    enum spb_verdict first[LAB_CALLS], before[LAB_CALLS], after[LAB_CALLS];
    struct spb_error err;
    size_t completed = 0;

    if (lab->statement == NULL)
        return;
    judge_calls(lab, volume, first);
    for (size_t i = lab->call_count; i-- > 0;) {
        judge_calls(lab, volume, before);
        if (before[i] != SPB_VERDICT_IN_PART)
            continue;
        CHECK(lab, spb_is_ok(complete(lab, volume, i, &err)), "completing call %zu: %s", i,
              err.text);
        completed++;
        judge_calls(lab, volume, after);
        for (size_t k = 0; k < lab->call_count; k++)
            CHECK(lab,
                  k == i ? after[k] == SPB_VERDICT_AFTER : is_kept(lab, before, after, k) || k < i,
                  "call %zu was %s, and is %s after completing call %zu", k,
                  spb_verdict_name(before[k]), spb_verdict_name(after[k]), i);
    }
    if (completed == 0)
        return;
    judge_calls(lab, volume, after);
    for (size_t i = 0; i < lab->call_count; i++)
        CHECK(lab, after[i] != SPB_VERDICT_IN_PART || first[i] == SPB_VERDICT_BEFORE,
              "call %zu is still in part", i);
    lab_compare(lab, model, volume, "completed");
    lab->completions += completed;
}

/* Completes each call; false where that wants the data of a product that may not be there. */
static bool complete_all(struct lab *lab, struct spb_volume *volume, const char *when)
{
    enum spb_verdict verdicts[LAB_CALLS];
    struct spb_error err;
    bool all = true;

    for (size_t i = 0; i < lab->call_count; i++) {
        spb_status status = complete(lab, volume, i, &err);

        CHECK(lab,
              spb_is_ok(status) ||
                  (status.code == SPB_CHANGED && strstr(err.text, "may not have reached") != NULL),
              "%s: completing call %zu: %s", when, i, err.text);
        all = all && spb_is_ok(status);
    }
    judge_calls(lab, volume, verdicts);
    for (size_t i = 0; all && i < lab->call_count; i++)
        CHECK(lab, verdicts[i] == SPB_VERDICT_AFTER, "%s: call %zu is %s after completing", when, i,
              spb_verdict_name(verdicts[i]));
    return all;
}

struct cut_again {
    struct lab *lab;
    struct model *model, *settled;
};

/* Power was lost while completing: the same statement completes what that left. */
static void check_cut_again(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    struct cut_again *again = user;
    struct lab *lab = again->lab;

    (void)cut;
    medium_reset(lab->heir, image);
    struct spb_volume *volume = lab_open(lab, lab->heir, true);

    lab_compare(lab, again->model, volume, "cut while completing");
    CHECK(lab, complete_all(lab, volume, "completing again"), "completing again wanted data");
    lab_compare(lab, again->settled, volume, "completed again");
    CHECK(lab, medium_violations(lab->heir) == 0, "%s", medium_violation(lab->heir));
    spb_volume_close(volume);
}

/* All of it is there: completing once more writes nothing, and it stays. */
static void check_complete(struct lab *lab, struct spb_volume *volume, struct model *model,
                           struct model *settled)
{
    struct cut_again again = {lab, model, settled};
    struct medium_counts before = medium_counts(lab->nested);

    CHECK(lab, complete_all(lab, volume, "completing twice"), "completing twice wanted data");
    CHECK(lab,
          medium_counts(lab->nested).writes == before.writes &&
              medium_counts(lab->nested).flushes == before.flushes,
          "completing what is complete wrote or flushed");
    lab_check_medium(lab, lab->nested, "completed");
    medium_kill(lab->nested);
    spb_volume_close(volume);
    if (lab->states % 8 == 0)
        medium_each_cut(lab->nested, 32, &lab->random, check_cut_again, &again);
    lab_check_durable(lab, lab->nested, settled, "completed, after power loss");
}

void lab_check_completion(struct lab *lab, const uint8_t *image, struct model *model)
{
    struct model *settled;
    struct spb_volume *volume;

    if (lab->statement == NULL || lab->call_count == 0)
        return;
    /* Of a scenario with very many states a part is enough; of no power of two, as the subsets are
     * counted up in. */
    if (lab->settled_states++ >= ALL_STATES && lab->settled_states % 7 != 0)
        return;
    medium_reset(lab->nested, image);
    volume = lab_open(lab, lab->nested, true);
    lab_complete_parts(lab, volume, model);
    medium_mark(lab->nested);
    settled = model_clone(model);
    model_settle(settled);
    if (complete_all(lab, volume, "completing")) {
        lab_compare(lab, settled, volume, "completed");
        check_complete(lab, volume, model, settled);
    } else {
        lab_compare(lab, model, volume, "completed in part");
        medium_kill(lab->nested);
        spb_volume_close(volume);
    }
    model_free(settled);
}
