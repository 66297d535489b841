/*
 * Opening, formatting and repairing under power loss and on failing media: what a writable opening
 * finds (names that stand twice, cut-off erases, pages that a failed flush lost) and what remains
 * when it is cut short itself.
 */
#include "crash/lab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "support/model_inside.h"

/* ---- Openings ------------------------------------------------------------------------------- */

/* The lowest counts, and the other goes: its data is never missed. */
static void setup_twice_good(struct lab *lab)
{
    lab_plant_product(lab, 2, "twice", 4, 90);
    lab_plant_product(lab, 1, "other", 7, lab->block_size);
    lab_plant_product(lab, 0, "twice", 1, 600);
}

static void setup_twice_first_rotten(struct lab *lab)
{
    lab_plant_product(lab, 2, "twice", 4, 90);
    lab_plant_rotten(lab, 0, "twice", 1, 600);
    model_allow_duplicate(lab->model, "twice");
}

static void setup_twice_second_rotten(struct lab *lab)
{
    lab_plant_product(lab, 0, "twice", 1, 600);
    lab_plant_rotten(lab, 2, "twice", 4, 90);
    model_allow_duplicate(lab->model, "twice");
}

static void setup_twice_rotten(struct lab *lab)
{
    lab_plant_rotten(lab, 0, "twice", 1, 600);
    lab_plant_rotten(lab, 2, "twice", 4, 90);
    model_allow_duplicate(lab->model, "twice");
}

/* What a cut-off replacement of a crossing entry leaves. */
static void setup_twice_crossing(struct lab *lab)
{
    lab_plant_product(lab, lab_entry(lab, 8, false), "twice", 4, 90);
    lab_plant_product(lab, lab_entry(lab, 0, true), "twice", 1, 600);
}

static void setup_twice_crossing_above(struct lab *lab)
{
    lab_plant_product(lab, lab_entry(lab, 0, true), "twice", 4, 90);
    lab_plant_product(lab, 0, "twice", 1, 600);
}

static void setup_thrice(struct lab *lab)
{
    lab_plant_product(lab, 4, "twice", 3, 90);
    lab_plant_product(lab, 3, "also", 4, 0);
    lab_plant_product(lab, 2, "twice", 5, 30);
    lab_plant_product(lab, 1, "also", 6, 50);
    lab_plant_product(lab, 0, "twice", 1, 600);
}

/* Zeros in the part of the first sector: free, whatever the rest shows. */
static void setup_cut_erase(struct lab *lab)
{
    uint32_t slot = lab_slot(lab, 0, true);
    size_t at = lab_param_offset(lab, slot);

    lab_plant_param(lab, slot, 42, 9, "was being erased");
    memset(lab->image + at, 0, SPB_SECTOR_SIZE - at % SPB_SECTOR_SIZE);
    model_delete_param(lab->model, 42);
    model_settle(lab->model);
    lab_plant_param(lab, 0, 7, 1, "7");
}

struct opening {
    const char *name;
    unsigned sizes;
    void (*setup)(struct lab *lab);
    bool writes; /* the opening has something to put right */
};

static const struct opening openings[] = {
    {"open-twice-good", SALL, setup_twice_good, true},
    {"open-twice-first-rotten", S512 | S4096, setup_twice_first_rotten, false},
    {"open-twice-second-rotten", S512 | S4096, setup_twice_second_rotten, false},
    {"open-twice-rotten", S512 | S4096, setup_twice_rotten, false},
    {"open-twice-crossing", S1024 | S4096, setup_twice_crossing, true},
    {"open-twice-crossing-above", SCROSS, setup_twice_crossing_above, true},
    {"open-thrice", S512 | S4096, setup_thrice, true},
    {"open-cut-erase", SCROSS, setup_cut_erase, false},
};

/* An opening that fails changes nothing that matters: the next one does it. */
static void fail_opening(struct lab *lab, const struct medium_failure *failure)
{
    struct spb_open_options options = {.writable = true};
    struct spb_volume *volume = NULL;
    struct spb_error err;

    snprintf(lab->where, sizeof(lab->where), "opening, call %d number %llu fails, reached %#llx",
             (int)failure->call, (unsigned long long)failure->nth,
             (unsigned long long)failure->reached);
    medium_reset(lab->cut, lab->image);
    medium_fail(lab->cut, failure);
    struct spb_device *device = medium_attach(lab->cut);
    spb_status status = spb_volume_open(device, &options, &volume, &err);

    CHECK(lab, medium_failed(lab->cut), "the failure did not happen");
    /* What could not be read once is read again: only then the opening succeeds all the same. */
    bool opened = failure->call == MEDIUM_READ && spb_is_ok(status);
    CHECK(lab, opened || (status.code == SPB_IO && volume == NULL), "opening gives %s: %s",
          spb_code_name(status.code), err.text);
    medium_kill(lab->cut);
    if (opened)
        spb_volume_close(volume);
    else
        spb_device_close(device);
    volume = lab_open(lab, lab->cut, true);
    lab_compare(lab, lab->model, volume, "opened after a failure");
    lab_check_medium(lab, lab->cut, "opened after a failure");
    spb_volume_close(volume);
    lab_check_durable(lab, lab->cut, lab->model, "power loss after that");
    lab->faults++;
    lab->where[0] = '\0';
}

static void fail_each_call(struct lab *lab, struct medium_counts counts)
{
    for (uint64_t i = 0; i < counts.reads && i < 30; i++)
        fail_opening(lab,
                     &(struct medium_failure){.call = MEDIUM_READ, .nth = i + 1, .number = EIO});
    for (uint64_t i = 0; i < counts.medium_reads && i < 30; i++)
        fail_opening(
            lab, &(struct medium_failure){.call = MEDIUM_READ_MEDIUM, .nth = i + 1, .number = EIO});
    for (uint64_t i = 0; i < 2 * counts.writes; i++)
        fail_opening(lab, &(struct medium_failure){.call = MEDIUM_WRITE,
                                                   .nth = i / 2 + 1,
                                                   .number = ENOSPC,
                                                   .short_sectors = (uint32_t)(i % 2)});
    for (uint64_t i = 0; i < 4 * counts.flushes; i++)
        fail_opening(lab,
                     &(struct medium_failure){
                         .call = MEDIUM_FLUSH, .nth = i / 4 + 1, .number = EIO, .reached = i % 4});
}

static void run_opening(struct lab *lab, const struct opening *opening, uint32_t block_size)
{
    struct medium_counts counts;
    struct spb_volume *volume;

    lab_begin(lab, opening->name, block_size, 12);
    opening->setup(lab);
    lab_drop_statement(lab);
    medium_reset(lab->medium, lab->image);
    volume = lab_open(lab, lab->medium, true);
    counts = medium_counts(lab->medium);
    lab_compare(lab, lab->model, volume, "opened");
    lab_check_medium(lab, lab->medium, "opened");
    CHECK(lab, (counts.writes > 0) == opening->writes, "opening wrote %llu times",
          (unsigned long long)counts.writes);
    medium_kill(lab->medium);
    spb_volume_close(volume);
    lab_check_cuts(lab, lab->medium, lab->model);
    lab_check_deaths(lab, lab->medium, lab->model);
    fail_each_call(lab, counts);

    /* Nothing is left for the second opening. */
    medium_power_loss(lab->medium);
    counts = medium_counts(lab->medium);
    volume = lab_open(lab, lab->medium, true);
    CHECK(lab, medium_counts(lab->medium).writes == counts.writes, "opened again, it wrote");
    lab_compare(lab, lab->model, volume, "opened again");
    spb_volume_close(volume);

    /* Without direct reads a medium that never failed opens as well. */
    medium_reset(lab->cut, lab->image);
    medium_forbid_direct(lab->cut, true);
    volume = lab_open(lab, lab->cut, true);
    lab_compare(lab, lab->model, volume, "opened without direct reads");
    spb_volume_close(volume);
    medium_forbid_direct(lab->cut, false);
}

/* ---- Pages that a failed flush lost --------------------------------------------------------- */

static void setup_mixed(struct lab *lab)
{
    uint32_t ring = 15 * (lab->block_size / 76);

    lab_plant_param(lab, 0, 42, 1, "the first value");
    lab_plant_events(lab, 2 * ring - 2, ring);
    lab_plant_product(lab, 0, "alpha", 1, 600);
    lab_plant_product(lab, 1, "beta", 4, 10);
}

static spb_status stage_mixed(struct act *act)
{
    return act_stage(act, "alpha", 4, FILL_RANDOM, 100);
}

static spb_status mixed(struct act *act)
{
    SPB_TRY(act_put(act, 42, "put"));
    SPB_TRY(act_put(act, 43, "new"));
    SPB_TRY(act_append(act, 3));
    SPB_TRY(act_publish(act, 0, true));
    return act_delete_product(act, "beta");
}

static const struct scenario mixed_scenario = {"lost-pages", SALL,        false, false, 0,
                                               setup_mixed,  stage_mixed, mixed};

/* The process dies after a failed flush; the next one's recovery is cut at each moment. */
static void lose_pages(struct lab *lab, uint64_t nth, uint64_t reached)
{
    struct medium_failure failure = {
        .call = MEDIUM_FLUSH, .nth = nth, .number = EIO, .reached = reached};
    struct act act;
    struct model *model;

    lab_drop_statement(lab);
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, false);
    medium_fail(lab->medium, &failure);
    CHECK(lab, act_run(&act, &mixed_scenario, false).code == SPB_IO, "flush %llu did not fail",
          (unsigned long long)nth);
    medium_kill(lab->medium);
    act_end(&act, false);
    spb_volume_close(act.volume);
    model = act.model;
    medium_mark(lab->medium);
    struct spb_volume *volume = lab_open(lab, lab->medium, true);

    lab_compare(lab, model, volume, "recovered");
    lab_check_medium(lab, lab->medium, "recovered");
    medium_kill(lab->medium);
    spb_volume_close(volume);
    lab_check_cuts(lab, lab->medium, model);
    lab_check_deaths(lab, lab->medium, model);
    model_free(model);
    lab->faults++;
}

static void run_lost_pages(struct lab *lab, uint32_t block_size)
{
    uint64_t masks = block_size == 65536 ? 2 : 16;

    lab_begin(lab, "lost-pages", block_size, 12);
    setup_mixed(lab);
    for (uint64_t nth = 1; nth <= 2; nth++) {
        for (uint64_t reached = 0; reached < masks; reached++)
            lose_pages(lab, nth, reached);
    }
}

/*
 * A product's bytes are written, and then a flush fails: they may be visible, clean and not on the
 * medium. Once the volume is reopened, publishing them is refused or makes them durable.
 */
static void run_lost_upload(struct lab *lab, uint32_t block_size)
{
    struct medium_failure failure = {.call = MEDIUM_FLUSH, .nth = 1, .number = EIO};
    struct act act;

    lab_begin(lab, "lost-upload", block_size, 12);
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, false);
    CHECK(lab, spb_is_ok(act_stage(&act, "upload", 3, FILL_RANDOM, 1000)), "%s", act.err.text);
    medium_fail(lab->medium, &failure);
    act.one_shot = true;
    CHECK(lab, act_put(&act, 1, "its flush fails").code == SPB_IO, "the put did not fail");
    act.one_shot = false;
    CHECK(lab, spb_is_ok(spb_volume_reopen(act.volume, &act.err)), "reopening: %s", act.err.text);
    lab_compare(lab, act.model, act.volume, "reopened");
    model_adopt(act.model);
    CHECK(lab, spb_is_ok(spb_group_new(act.volume, &act.group, &act.err)), "%s", act.err.text);
    if (spb_is_ok(act_publish(&act, 0, false)) &&
        spb_is_ok(spb_group_carry_out(act.group, &act.err))) {
        spb_group_make_visible(act.group);
        model_settle(act.model);
    } else {
        model_drop(act.model);
    }
    act_end(&act, false);
    medium_kill(lab->medium);
    spb_volume_close(act.volume);
    lab_check_durable(lab, lab->medium, act.model, "a product whose bytes a failed flush lost");
    model_free(act.model);
    lab->faults++;
}

/* ---- Repair --------------------------------------------------------------------------------- */

static void setup_repair(struct lab *lab)
{
    uint32_t ring = 15 * (lab->block_size / 76);

    lab_plant_param(lab, 0, 42, 1, "the value");
    lab_plant_corrupt(lab, 1, 42, 7);
    lab_plant_corrupt(lab, lab_slot(lab, 3, false), 50, 1);
    lab_plant_events(lab, 2 * ring - 2, ring);
    lab_plant_event_corrupt(lab, 0);
    lab_plant_event_corrupt(lab, 9);
    lab_plant_product(lab, 0, "alpha", 1, 600);
    lab_plant_rotten(lab, 1, "beta", 4, 10);
    lab_plant_rotten(lab, 2, "gamma", 5, lab->block_size);
}

static void setup_repair_crossing(struct lab *lab)
{
    setup_repair(lab);
    lab_plant_corrupt(lab, lab_slot(lab, 0, true), 60, 9);
    lab_plant_corrupt(lab, lab_slot(lab, 1, true), 42, 9);
    lab_plant_rotten(lab, lab_entry(lab, 0, true), "delta", 8, 10);
}

/* Repair drops all entries of the name, none of which can be read. */
static void setup_repair_twice(struct lab *lab)
{
    lab_plant_product(lab, 3, "other", 6, 30);
    setup_twice_rotten(lab);
}

static const struct scenario repairs[] = {
    {"repair", SALL, true, false, 0, setup_repair, act_check, act_repair},
    {"repair-crossing", SCROSS, true, false, 0, setup_repair_crossing, act_check, act_repair},
    {"repair-twice", S512 | S4096, true, false, 0, setup_repair_twice, act_check, act_repair},
};

/* ---- Format --------------------------------------------------------------------------------- */

struct formatting {
    struct lab *lab;
    struct spb_format_options options;
    struct model *empty; /* the new image */
    uint64_t old, none, made;
};

/* What is on the device is the old image, no image, or the new one, empty. */
static void check_formatted(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    struct formatting *f = user;
    struct lab *lab = f->lab;
    struct spb_open_options options = {.sector_size = 0, .writable = true};
    struct spb_volume *volume = NULL;
    struct spb_error err;
    char why[MODEL_WHY_SIZE];

    snprintf(lab->where, sizeof(lab->where), "format: after flush %zu, %zu of %zu sectors",
             cut->epoch, cut->reached, cut->changed);
    medium_reset(lab->cut, image);
    struct spb_device *device = medium_attach(lab->cut);
    spb_status status = spb_volume_open(device, &options, &volume, &err);

    if (!spb_is_ok(status)) {
        CHECK(lab, status.code >= SPB_BAD_MAGIC && status.code <= SPB_BAD_SIZE, "%s", err.text);
        f->none++;
        if (f->none % 64 == 1)
            CHECK(lab, spb_is_ok(spb_volume_format(device, &f->options, &err)),
                  "formatting again: %s", err.text);
        spb_device_close(device);
    } else if (spb_volume_superblock(volume)->epoch == f->options.epoch) {
        lab_compare(lab, f->empty, volume, "the new image");
        f->made++;
        spb_volume_close(volume);
    } else {
        CHECK(lab, model_compare(lab->model, volume, why), "the old image: %s", why);
        f->old++;
        spb_volume_close(volume);
    }
    lab->states++;
    lab->where[0] = '\0';
}

/* Every death: formatting again always works, and then the image is new and empty. */
static void check_format_deaths(struct lab *lab, struct formatting *f)
{
    for (size_t i = 0; i < 24; i++) {
        size_t step = random_below(&lab->random, (uint32_t)medium_steps(lab->medium) + 1);
        struct spb_error err;

        snprintf(lab->where, sizeof(lab->where), "format died after step %zu", step);
        medium_die_after(lab->heir, lab->medium, step);
        medium_power_loss_at_random(lab->heir, &lab->random);
        struct spb_device *device = medium_attach(lab->heir);

        CHECK(lab, spb_is_ok(spb_volume_format(device, &f->options, &err)), "formatting again: %s",
              err.text);
        spb_device_close(device);
        medium_power_loss(lab->heir);
        struct spb_volume *volume = lab_open(lab, lab->heir, true);

        lab_compare(lab, f->empty, volume, "formatted again");
        CHECK(lab, medium_violations(lab->heir) == 0, "%s", medium_violation(lab->heir));
        spb_volume_close(volume);
        lab->deaths++;
    }
    lab->where[0] = '\0';
}

static void run_format(struct lab *lab, uint32_t old_size, uint32_t new_size)
{
    struct formatting f = {
        .lab = lab, .options = {.sector_size = new_size, .tenant_id = 3, .epoch = 1800000000}};
    struct spb_error err;

    lab_begin(lab, "format", old_size, new_size / old_size * 40 - 33);
    setup_mixed(lab);
    for (size_t at = (size_t)40 * old_size; at < lab->size; at++) {
        if (lab->image[at] == 0)
            lab->image[at] = (uint8_t)random_next(&lab->random);
    }
    f.options.total_blocks = (uint32_t)(lab->size / new_size);
    f.empty = model_new(new_size);
    medium_reset(lab->medium, lab->image);
    medium_mark(lab->medium);
    struct spb_device *device = medium_attach(lab->medium);

    CHECK(lab, spb_is_ok(spb_volume_format(device, &f.options, &err)), "%s", err.text);
    CHECK(lab, medium_violations(lab->medium) == 0, "%s", medium_violation(lab->medium));
    spb_device_close(device);
    lab->block_size = new_size;
    medium_each_cut(lab->medium, lab_limit(lab) / 4 < 2 ? 2 : lab_limit(lab) / 4, &lab->random,
                    check_formatted, &f);
    CHECK(lab, f.old > 0 && f.none > 0 && f.made > 0, "%llu old, %llu none, %llu new",
          (unsigned long long)f.old, (unsigned long long)f.none, (unsigned long long)f.made);
    lab_check_durable(lab, lab->medium, f.empty, "formatted");
    check_format_deaths(lab, &f);
    model_free(f.empty);
}

/* Each failing call makes formatting fail, and never leaves half an image. */
static void run_format_faults(struct lab *lab)
{
    struct spb_format_options options = {.sector_size = 512, .total_blocks = 60, .epoch = 5};

    for (uint64_t i = 0;; i++) {
        struct medium_failure failure = {
            .call = i % 2 == 0 ? MEDIUM_WRITE : MEDIUM_FLUSH, .nth = i / 2 + 1, .number = EIO};
        struct spb_open_options reading = {.writable = true};
        struct spb_volume *volume = NULL;
        struct spb_error err;

        lab_begin(lab, "format-faults", 512, 27);
        setup_mixed(lab);
        medium_reset(lab->medium, lab->image);
        medium_fail(lab->medium, &failure);
        struct spb_device *device = medium_attach(lab->medium);
        spb_status status = spb_volume_format(device, &options, &err);

        spb_device_close(device);
        if (!medium_failed(lab->medium)) {
            CHECK(lab, spb_is_ok(status), "%s", err.text);
            if (i > 2)
                return;
            continue;
        }
        CHECK(lab, status.code == SPB_IO, "formatting gives %s", spb_code_name(status.code));
        medium_power_loss(lab->medium);
        device = medium_attach(lab->medium);
        status = spb_volume_open(device, &reading, &volume, &err);
        if (!spb_is_ok(status))
            spb_device_close(device);
        else if (spb_volume_superblock(volume)->epoch != options.epoch)
            lab_compare(lab, lab->model, volume, "the old image");
        spb_volume_close(volume);
        lab->faults++;
    }
}

/* ---- Main ----------------------------------------------------------------------------------- */

static const uint32_t sizes[] = {512, 1024, 4096, 65536};

static void run_openings(struct lab *lab, const char *only)
{
    for (size_t i = 0; i < sizeof(openings) / sizeof(openings[0]); i++) {
        for (size_t k = 0; k < 4; k++) {
            if ((openings[i].sizes >> k & 1) == 0 ||
                (only != NULL && strcmp(only, openings[i].name) != 0))
                continue;
            run_opening(lab, &openings[i], sizes[k]);
        }
    }
    for (size_t k = 0; only == NULL && k < 4; k++) {
        run_lost_pages(lab, sizes[k]);
        run_lost_upload(lab, sizes[k]);
    }
    if (only != NULL && strcmp(only, "format") != 0)
        return;
    run_format(lab, 512, 512);
    run_format(lab, 512, 1024);
    run_format(lab, 512, 4096);
    run_format_faults(lab);
}

int main(int argc, char **argv)
{
    struct lab lab;

    lab_init(&lab, "crash_recovery", argc, argv);
    run_openings(&lab, lab_option(argc, argv, "--only"));
    printf("openings and formatting: seed %llu: %llu states after power loss, %llu of recovery, "
           "%llu deaths, %llu failures\n",
           (unsigned long long)lab.seed, (unsigned long long)lab.states,
           (unsigned long long)lab.recoveries, (unsigned long long)lab.deaths,
           (unsigned long long)lab.faults);
    lab_done(&lab);
    return lab_main("crash_recovery", repairs, sizeof(repairs) / sizeof(repairs[0]), argc, argv);
}
