/* A scenario on a medium that fails: each write, each flush with each subset lost, each read. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "crash/lab.h"
#include "support/model_inside.h"

/* What the owner does after the failure. */
enum after { AFTER_REOPEN, AFTER_DEATH, AFTER_POWER_LOSS, AFTER_NO_DIRECT, AFTER_COUNT };

/* No change is taken, and the reason says that the failed one may have happened. */
static void check_poisoned(const struct act *act)
{
    struct spb_param_put put = {1, "x", 1, SPB_ANY_GENERATION};
    struct spb_event event = {.timestamp = 1};
    struct spb_group *group = NULL;
    struct spb_error err = {.code = SPB_OK};

    CHECK(act->lab, spb_volume_is_writable(act->volume, &err).code == SPB_POISONED,
          "after a failure the volume is %s", spb_code_name(err.code));
    CHECK(act->lab, strstr(err.text, "may or may not") != NULL, "the reason is: %s", err.text);
    CHECK(act->lab, spb_group_new(act->volume, &group, &err).code == SPB_POISONED,
          "a poisoned volume begins a group");
    CHECK(act->lab, spb_volume_put_param(act->volume, &put, NULL, &err).code == SPB_POISONED,
          "a poisoned volume puts");
    CHECK(act->lab,
          spb_volume_append_events(act->volume, &event, 1, NULL, &err).code == SPB_POISONED,
          "a poisoned volume appends");
}

/* What is visible after recovery must be durable. Ends the volume and frees the model. */
static void check_recovered(struct act *act, struct model *model, const char *when)
{
    struct lab *lab = act->lab;
    struct spb_volume *volume = act->volume;

    act->volume = NULL;
    lab_compare(lab, model, volume, when);
    lab_check_medium(lab, act->medium, when);
    model_adopt(model);
    if (lab->faults % 2 == 0) {
        lab_one_more(lab, act->medium, volume, model, lab->faults / 2);
    } else {
        medium_kill(act->medium);
        spb_volume_close(volume);
        lab_check_durable(lab, act->medium, model, "power loss after recovery");
    }
    model_free(model);
}

static void go_on(struct act *act, enum after after)
{
    struct lab *lab = act->lab;
    struct model *model = act->model;
    struct spb_error err;

    act->model = NULL;
    switch (after) {
    case AFTER_NO_DIRECT:
        medium_forbid_direct(act->medium, true);
        CHECK(lab, !spb_is_ok(spb_volume_reopen(act->volume, &err)),
              "reopened after a failed flush without direct reads");
        CHECK(lab, spb_volume_is_writable(act->volume, &err).code == SPB_POISONED,
              "a failed reopening made the volume %s", spb_code_name(err.code));
        medium_forbid_direct(act->medium, false);
        /* fall through */
    case AFTER_REOPEN:
        CHECK(lab, spb_is_ok(spb_volume_reopen(act->volume, &err)), "reopening: %s", err.text);
        check_recovered(act, model, "reopened");
        return;
    case AFTER_DEATH:
        medium_kill(act->medium);
        spb_volume_close(act->volume);
        break;
    default:
        medium_power_loss(act->medium);
        spb_volume_close(act->volume);
    }
    act->volume = lab_open(lab, act->medium, true);
    check_recovered(act, model, "opened by the next process");
}

static void try_failure(struct lab *lab, const struct scenario *scenario, bool one_shot,
                        const struct medium_failure *failure, enum after after)
{
    static const char *const calls[] = {"read", "direct read", "write", "flush"};
    static const char *const ends[] = {"reopened", "process died", "power lost", "no direct reads"};
    struct act act;
    spb_status status;

    snprintf(lab->where, sizeof(lab->where), "%s %llu fails (short %u, reached %#llx), then %s",
             calls[failure->call], (unsigned long long)failure->nth, failure->short_sectors,
             (unsigned long long)failure->reached, ends[after]);
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, one_shot);
    medium_fail(lab->medium, failure);
    status = act_run(&act, scenario, false);
    CHECK(lab, medium_failed(lab->medium), "the failure did not happen");
    if (failure->call == MEDIUM_READ && spb_is_ok(status)) {
        /* What could not be read once was read again. */
        act_end(&act, false);
        check_recovered(&act, act.model, "one read failed");
        lab->faults++;
        lab->where[0] = '\0';
        return;
    }
    CHECK(lab, status.code == SPB_IO, "the call gives %s: %s", spb_code_name(status.code),
          act.err.text);
    CHECK(lab, act.err.saved_errno == failure->number, "errno %d: %s", act.err.saved_errno,
          act.err.text);
    bool poisoned = !spb_is_ok(spb_volume_is_writable(act.volume, NULL));

    /* Data written to free blocks before anything was decided alters nothing. */
    CHECK(lab, poisoned || failure->call != MEDIUM_FLUSH, "a failed flush did not poison");
    act_end(&act, false);
    if (poisoned)
        check_poisoned(&act);
    if (!poisoned && (after == AFTER_REOPEN || after == AFTER_NO_DIRECT)) {
        model_drop(act.model);
        check_recovered(&act, act.model, "not poisoned");
    } else {
        go_on(&act, after);
    }
    lab->faults++;
    lab->where[0] = '\0';
}

static void fail_writes(struct lab *lab, const struct scenario *scenario, bool one_shot,
                        uint64_t writes)
{
    uint64_t step = writes > 24 ? writes / 24 : 1;

    for (uint64_t nth = 1; nth <= writes; nth += step) {
        for (uint32_t i = 0; i < 6; i++) {
            struct medium_failure failure = {.call = MEDIUM_WRITE,
                                             .nth = nth,
                                             .number = i % 2 == 0 ? EIO : ENOSPC,
                                             .short_sectors = i < 3 ? 0 : 1};

            try_failure(lab, scenario, one_shot, &failure, (enum after)(i % 3));
        }
    }
}

static void fail_flushes(struct lab *lab, const struct scenario *scenario, bool one_shot,
                         uint64_t flushes)
{
    uint64_t masks = lab->block_size >= 65536 ? 4 : 32;
    uint64_t step = flushes > 8 ? flushes / 8 : 1;

    if (masks > lab->limit / 64)
        masks = lab->limit < 128 ? 2 : lab->limit / 64;
    for (uint64_t nth = 1; nth <= flushes; nth += step) {
        for (uint64_t i = 0; i < masks * AFTER_COUNT; i++) {
            struct medium_failure failure = {.call = MEDIUM_FLUSH, .nth = nth, .number = EIO};

            failure.reached = i / AFTER_COUNT < 16 ? i / AFTER_COUNT : random_next(&lab->random);
            try_failure(lab, scenario, one_shot, &failure, (enum after)(i % AFTER_COUNT));
        }
    }
}

static void fail_reads(struct lab *lab, const struct scenario *scenario, bool one_shot,
                       uint64_t reads)
{
    for (uint64_t nth = 1; nth <= reads && nth <= 24; nth++) {
        struct medium_failure failure = {.call = MEDIUM_READ, .nth = nth, .number = EIO};

        try_failure(lab, scenario, one_shot, &failure, (enum after)(nth % 3));
    }
}

void lab_run_faults(struct lab *lab, const struct scenario *scenario, bool one_shot)
{
    struct act act;
    struct medium_counts before, after;

    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, one_shot);
    before = medium_counts(lab->medium);
    CHECK(lab, spb_is_ok(act_run(&act, scenario, false)), "running: %s", act.err.text);
    after = medium_counts(lab->medium);
    act_end(&act, true);
    fail_writes(lab, scenario, one_shot, after.writes - before.writes);
    fail_flushes(lab, scenario, one_shot, after.flushes - before.flushes);
    fail_reads(lab, scenario, one_shot, after.reads - before.reads);
}
