/*
 * Random sequences of changes with power loss, deaths of the process and failing media between
 * them: crash_campaign --seconds N [--seed X] [--sequences K]. Each sequence has a seed of its own,
 * which replays it: crash_campaign --seed X --sequences 1.
 */
#include "crash/lab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/status.h"

static const char *const names[] = {"alpha", "beta", "gamma", "delta", "epsilon"};
#define NAMES (sizeof(names) / sizeof(names[0]))

struct campaign {
    struct lab lab;
    uint64_t random; /* of the sequence: lab.random belongs to the bytes of changes */
    uint64_t sequences, steps, crashes;
};

static uint32_t pick(struct campaign *c, uint32_t limit)
{
    return random_below(&c->random, limit);
}

/* ---- What is there at first ----------------------------------------------------------------- */

static void plant_params(struct campaign *c)
{
    struct lab *lab = &c->lab;
    uint32_t count = pick(c, 14);
    bool wraps[9] = {false}; /* ids with 65535: of equal generations the slots decide */

    if (lab->block_size <= 1024 && pick(c, 3) == 0)
        lab_plant_full(lab, 14, 1000);
    for (uint32_t i = 0; i < count; i++) {
        bool crossing = lab->block_size > 512 && pick(c, 4) == 0;
        uint32_t slot = lab_slot(lab, i, crossing);
        uint32_t id = 1 + pick(c, 8);
        uint16_t generation = (uint16_t)(pick(c, 3) == 0 ? 65520 + i : 1 + i);

        if (pick(c, 4) == 0 && !wraps[id]) {
            wraps[id] = true;
            generation = UINT16_MAX;
        }
        lab_plant_param(lab, slot, id, generation, pick(c, 2) == 0 ? "planted" : "");
    }
    for (uint32_t i = count; i < count + pick(c, 4) && i < 14; i++)
        lab_plant_corrupt(lab, lab_slot(lab, i, false), 1 + pick(c, 8),
                          (uint16_t)(pick(c, 3) == 0 ? 65535 : 1 + pick(c, 12)));
}

static void plant_rest(struct campaign *c)
{
    struct lab *lab = &c->lab;
    uint32_t ring = 15 * (lab->block_size / 76);

    switch (pick(c, 4)) {
    case 0:
        lab_plant_events(lab, 9, 9);
        break;
    case 1:
        lab_plant_events(lab, 5 * ring + pick(c, ring), ring);
        lab_plant_event_corrupt(lab, pick(c, 20));
        break;
    case 2:
        lab_plant_events(lab, UINT32_MAX - pick(c, 20), ring);
        break;
    default:
        break;
    }
    if (pick(c, 2) == 0)
        lab_plant_product(lab, 0, "alpha", 1 + pick(c, 3), 1 + pick(c, lab->block_size));
    if (pick(c, 2) == 0)
        lab_plant_product(lab, 1, "beta", 6, pick(c, 2) * 77);
    if (pick(c, 3) == 0)
        lab_plant_rotten(lab, 2, "gamma", 8, 20);
    if (lab->block_size > 512 && pick(c, 2) == 0)
        lab_plant_product(lab, lab_entry(lab, 0, true), "delta", 9, 1 + pick(c, 900));
}

/* ---- Changes -------------------------------------------------------------------------------- */

/* Refusals that a change at random may meet. */
static bool is_refusal(enum spb_code code)
{
    return code == SPB_FULL || code == SPB_AGAIN || code == SPB_NOT_FOUND || code == SPB_EXISTS ||
           code == SPB_IN_USE || code == SPB_LIMIT || code == SPB_GENERATION ||
           code == SPB_INVALID; /* a reservation that was published already */
}

static spb_status random_put(struct campaign *c, struct act *act)
{
    static const char *const values[] = {"", "x", "a value of some length, to be told from others"};

    if (!act->one_shot && pick(c, 5) == 0)
        return act_put_batch(act, 1 + pick(c, 5), 2 + pick(c, 5), "batch");
    return act_put(act, 1 + pick(c, pick(c, 4) == 0 ? 60 : 10), values[pick(c, 3)]);
}

static spb_status random_append(struct campaign *c, struct act *act)
{
    uint32_t round = act->lab->block_size / 76;

    return act_append(act, pick(c, 3) == 0 ? 1 + pick(c, 2 * round + 1) : 1 + pick(c, 4));
}

static spb_status random_write(struct campaign *c, struct act *act)
{
    uint32_t slot, id = 1 + pick(c, 8);
    uint16_t generation = (uint16_t)(1 + pick(c, 20));
    struct spb_param param;

    do {
        slot = pick(c, lab_param_slots(act->lab));
    } while (lab_slot_crosses(act->lab, slot));
    /* Of equal generations the slots decide, which the model does not know. */
    if (model_changes(act->model) > 0 ||
        (spb_is_ok(spb_param_find(act->volume, id, &param, NULL, NULL)) &&
         param.generation == generation))
        return spb_ok();
    return act_write_param(act, slot, id, generation, "written");
}

static spb_status random_change(struct campaign *c, struct act *act)
{
    switch (pick(c, 8)) {
    case 0:
    case 1:
    case 2:
        return random_put(c, act);
    case 3:
    case 4:
        return random_append(c, act);
    case 5:
        return act_delete(act, 1 + pick(c, 8));
    case 6:
        if (act->staged_count > 0)
            return act_publish(act, pick(c, (uint32_t)act->staged_count), pick(c, 4) != 0);
        return random_put(c, act);
    default:
        if (pick(c, 2) == 0)
            return random_write(c, act);
        return act_delete_product(act, names[pick(c, NAMES)]);
    }
}

static spb_status stage_some(struct campaign *c, struct act *act)
{
    uint32_t count = pick(c, 3);

    for (uint32_t i = 0; i < count; i++) {
        size_t size = pick(c, 3) == 0 ? act->lab->block_size * (size_t)pick(c, 3)
                                      : pick(c, 2 * act->lab->block_size);
        spb_status status = act_stage(act, names[pick(c, NAMES)], (uint16_t)(200 + pick(c, 50)),
                                      (enum fill)pick(c, 4), size);

        if (status.code == SPB_FULL && !act->one_shot) {
            struct act_staged *refused = &act->staged[--act->staged_count];

            spb_reservation_free(refused->reservation);
            free(refused->bytes);
            continue;
        }
        SPB_TRY(status);
    }
    return spb_ok();
}

/* A group of changes at random, carried out. */
static spb_status run_group(struct campaign *c, struct act *act)
{
    uint32_t count = 1 + pick(c, 8);

    SPB_TRY(stage_some(c, act));
    SPB_TRY(spb_group_new(act->volume, &act->group, &act->err));
    for (uint32_t i = 0; i < count; i++) {
        struct medium_counts before = medium_counts(act->medium);
        bool was_empty = spb_group_is_empty(act->group);
        spb_status status = random_change(c, act);

        CHECK(act->lab, medium_counts(act->medium).writes == before.writes, "deciding wrote");
        CHECK(act->lab, spb_is_ok(status) || is_refusal(status.code), "%s", act->err.text);
        CHECK(act->lab, status.code != SPB_AGAIN || !was_empty, "again from an empty group: %s",
              act->err.text);
    }
    if (pick(c, 12) == 0 || spb_group_is_empty(act->group)) {
        model_drop(act->model);
        return spb_ok();
    }
    act_save_statement(act);
    SPB_TRY(spb_group_carry_out(act->group, &act->err));
    spb_group_make_visible(act->group);
    return spb_ok();
}

static spb_status run_one_shot(struct campaign *c, struct act *act)
{
    bool moved;
    spb_status status;

    switch (pick(c, 8)) {
    case 0:
        return spb_volume_defrag_step(act->volume, &moved, NULL, &act->err);
    case 1:
        return act_repair(act);
    default:
        SPB_TRY(stage_some(c, act));
        status = random_change(c, act);
        if (!spb_is_ok(status) && is_refusal(status.code)) {
            model_drop(act->model);
            return spb_ok();
        }
        return status;
    }
}

/* ---- Crashes -------------------------------------------------------------------------------- */

/* The record's owner died at a random step, and power may have been lost with him. */
static void crash(struct campaign *c, bool power)
{
    struct lab *lab = &c->lab;
    struct medium *now = lab->heir;
    size_t steps = medium_steps(lab->medium);

    medium_die_after(now, lab->medium, random_below(&c->random, (uint32_t)steps + 1));
    if (power)
        medium_power_loss_at_random(now, &c->random);
    lab->heir = lab->medium;
    lab->medium = now;
    lab_trace(lab, "  crash%s", power ? ", power lost" : "");
    c->crashes++;
}

/* Opens what a crash left; sometimes recovery is cut as well. */
static void recover(struct campaign *c, struct act *act)
{
    struct lab *lab = &c->lab;

    for (uint32_t again = pick(c, 3); again > 0; again--) {
        medium_mark(lab->medium);
        struct spb_volume *volume = lab_open(lab, lab->medium, true);

        lab_compare(lab, act->model, volume, "opened, to be cut");
        CHECK(lab, medium_violations(lab->medium) == 0, "%s", medium_violation(lab->medium));
        medium_kill(lab->medium);
        spb_volume_close(volume);
        crash(c, pick(c, 2) == 0);
        lab->recoveries++;
    }
    act->medium = lab->medium;
    act->volume = lab_open(lab, lab->medium, true);
    lab_compare(lab, act->model, act->volume, "recovered");
    lab_check_medium(lab, lab->medium, "recovered");
    lab_complete_parts(lab, act->volume, act->model);
    model_adopt(act->model);
}

static void arm(struct campaign *c)
{
    struct medium_failure failure = {.call = pick(c, 2) == 0 ? MEDIUM_WRITE : MEDIUM_FLUSH,
                                     .nth = 1 + pick(c, 4),
                                     .number = pick(c, 2) == 0 ? EIO : ENOSPC,
                                     .short_sectors = pick(c, 3),
                                     .reached = random_next(&c->random)};

    medium_fail(c->lab.medium, &failure);
}

static void after_failure(struct campaign *c, struct act *act, spb_status status)
{
    struct lab *lab = &c->lab;

    CHECK(lab, status.code == SPB_IO, "a failing medium gives %s: %s", spb_code_name(status.code),
          act->err.text);
    lab->faults++;
    lab_trace(lab, "  the medium failed: %s", act->err.text);
    if (pick(c, 2) == 0 && !spb_is_ok(spb_volume_is_writable(act->volume, NULL))) {
        CHECK(lab, spb_is_ok(spb_volume_reopen(act->volume, &act->err)), "%s", act->err.text);
        lab_compare(lab, act->model, act->volume, "reopened");
        lab_check_medium(lab, lab->medium, "reopened");
        lab_complete_parts(lab, act->volume, act->model);
        model_adopt(act->model);
        return;
    }
    medium_kill(lab->medium);
    spb_volume_close(act->volume);
    if (pick(c, 2) == 0)
        medium_power_loss_at_random(lab->medium, &c->random);
    recover(c, act);
}

/* One change or group, and what befalls it. */
static void step(struct campaign *c, struct act *act)
{
    struct lab *lab = &c->lab;
    uint32_t fate = pick(c, 10);
    spb_status status;

    medium_mark(lab->medium);
    lab_drop_statement(lab);
    act->one_shot = pick(c, 3) == 0;
    lab_trace(lab, "%s: fate %u", lab->where, fate);
    lab->lenient = !act->one_shot;
    if (fate < 3)
        arm(c);
    status = act->one_shot ? run_one_shot(c, act) : run_group(c, act);
    act_end(act, false);
    CHECK(lab, medium_violations(lab->medium) == 0, "%s", medium_violation(lab->medium));
    if (medium_failed(lab->medium)) {
        after_failure(c, act, status);
        return;
    }
    CHECK(lab, spb_is_ok(status), "%s", act->err.text);
    if (fate < 7) {
        model_settle(act->model);
        lab_compare(lab, act->model, act->volume, "acknowledged");
        return;
    }
    medium_kill(lab->medium);
    spb_volume_close(act->volume);
    crash(c, fate < 9);
    lab->states++;
    recover(c, act);
}

static void run_sequence(struct campaign *c, uint64_t seed)
{
    static const uint32_t sizes[] = {512, 512, 512, 512, 1024, 1024, 4096, 4096, 4096};
    struct lab *lab = &c->lab;
    struct act act;

    lab->seed = c->random = seed;
    lab_begin(lab, "sequence",
              pick(c, 80) == 0 ? 65536 : sizes[pick(c, sizeof(sizes) / sizeof(sizes[0]))], 14);
    plant_params(c);
    plant_rest(c);
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, false);
    lab_compare(lab, act.model, act.volume, "as planted");
    model_adopt(act.model);
    for (uint32_t i = 0; i < 25; i++) {
        snprintf(lab->where, sizeof(lab->where), "step %u", i);
        step(c, &act);
        c->steps++;
    }
    act_end(&act, true);
    lab->where[0] = '\0';
    c->sequences++;
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    const char *seconds = lab_option(argc, argv, "--seconds");
    const char *sequences = lab_option(argc, argv, "--sequences");
    struct campaign c;
    double end = now_s() + (seconds != NULL ? strtod(seconds, NULL) : 20);
    uint64_t most = sequences != NULL ? strtoull(sequences, NULL, 0) : UINT64_MAX;
    uint64_t first;

    memset(&c, 0, sizeof(c));
    lab_init(&c.lab, "crash_campaign", argc, argv);
    first = c.lab.seed;
    if (lab_option(argc, argv, "--seed") == NULL &&
        getrandom(&first, sizeof(first), 0) != (ssize_t)sizeof(first))
        first = c.lab.seed;
    printf("crash_campaign: seed %llu\n", (unsigned long long)first);
    fflush(stdout);
    do {
        run_sequence(&c, first + c.sequences);
    } while (c.sequences < most && now_s() < end);
    printf("crash_campaign: seed %llu: %llu sequences, %llu steps, %llu crashes, %llu cut "
           "recoveries, %llu failures of the medium\n",
           (unsigned long long)first, (unsigned long long)c.sequences, (unsigned long long)c.steps,
           (unsigned long long)c.crashes, (unsigned long long)c.lab.recoveries,
           (unsigned long long)c.lab.faults);
    lab_done(&c.lab);
    return 0;
}
