/* Data products: publishing, replacing and deleting, of every kind of tail; defragmenting. */
#include "crash/lab.h"

#include <string.h>

#include "base/status.h"

static size_t blocks(const struct lab *lab, uint32_t count)
{
    return (size_t)count * lab->block_size;
}

static void setup_empty(struct lab *lab)
{
    (void)lab;
}

static void setup_two(struct lab *lab)
{
    lab_plant_product(lab, 0, "alpha", 1, blocks(lab, 1) + 17);
    lab_plant_product(lab, 1, "beta", 4, 100);
}

/* ---- New ones ------------------------------------------------------------------------------- */

static spb_status stage_0(struct act *act)
{
    return act_stage(act, "new", 3, FILL_RANDOM, 0);
}

static spb_status stage_1(struct act *act)
{
    return act_stage(act, "new", 3, FILL_RANDOM, 1);
}

static spb_status stage_exact(struct act *act)
{
    return act_stage(act, "new", 3, FILL_RANDOM, blocks(act->lab, 2));
}

static spb_status stage_ambiguous(struct act *act)
{
    return act_stage(act, "new", 3, FILL_AMBIGUOUS, 40);
}

/* The mark that ends the data needs one block more. */
static spb_status stage_ambiguous_exact(struct act *act)
{
    return act_stage(act, "new", 3, FILL_AMBIGUOUS, blocks(act->lab, 1));
}

static spb_status stage_80(struct act *act)
{
    return act_stage(act, "new", 3, FILL_ENDS_80, 333);
}

static spb_status stage_zeros(struct act *act)
{
    return act_stage(act, "new", 3, FILL_ZEROS, 33);
}

static spb_status stage_multi(struct act *act)
{
    return act_stage(act, "new", 3, FILL_RANDOM, blocks(act->lab, 3) + 5);
}

static spb_status publish_new(struct act *act)
{
    return act_publish(act, 0, false);
}

/* ---- Replace, delete ------------------------------------------------------------------------ */

static spb_status stage_alpha(struct act *act)
{
    return act_stage(act, "alpha", 9, FILL_RANDOM, blocks(act->lab, 1) + 200);
}

static spb_status stage_alpha_empty(struct act *act)
{
    return act_stage(act, "alpha", 9, FILL_RANDOM, 0);
}

static spb_status replace(struct act *act)
{
    return act_publish(act, 0, true);
}

static spb_status delete_alpha(struct act *act)
{
    return act_delete_product(act, "alpha");
}

static void setup_full_catalog(struct lab *lab)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};

    lab_plant_product(lab, 0, "alpha", 1, 600);
    for (uint32_t i = 1; i < lab_catalog_entries(lab) && i < 6; i++)
        lab_plant_product(lab, i, names[i - 1], 3, 0);
}

static void setup_crossing(struct lab *lab)
{
    lab_plant_product(lab, 0, "before", 1, 700);
    lab_plant_product(lab, lab_entry(lab, 0, true), "alpha", 3, blocks(lab, 1) + 17);
    lab_plant_product(lab, lab_entry(lab, 7, false), "after", 6, 50);
}

/* The sector in which the entry begins is full: its successor goes to another sector. */
static void setup_crossing_away(struct lab *lab)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};

    for (uint32_t i = 0; i < 6; i++)
        lab_plant_product(lab, i, names[i], 1, 0);
    lab_plant_product(lab, lab_entry(lab, 0, true), "alpha", 3, blocks(lab, 1) + 17);
}

/* A rotten twin in another sector, which goes when the name is published anew, or deleted. */
static void setup_twin(struct lab *lab)
{
    lab_plant_product(lab, 0, "alpha", 1, 600);
    lab_plant_rotten(lab, lab->block_size == 512 ? 2 : lab_entry(lab, 7, false), "alpha", 4, 100);
}

/* The good one crosses a boundary: the new entry goes over the rotten twin's, and is dropped by an
 * opening that finds both. */
static void setup_crossing_twin(struct lab *lab)
{
    lab_plant_product(lab, lab_entry(lab, 0, true), "alpha", 1, 600);
    lab_plant_rotten(lab, lab_entry(lab, 7, false), "alpha", 4, 100);
}

static void setup_crossing_rotten(struct lab *lab)
{
    lab_plant_rotten(lab, lab_entry(lab, 0, true), "alpha", 1, 600);
    /* No opening drops the rotten one for the new one. */
    model_allow_duplicate(lab->model, "alpha");
}

static void setup_rotten(struct lab *lab)
{
    lab_plant_rotten(lab, 0, "alpha", 1, 600);
    lab_plant_product(lab, 1, "beta", 4, 100);
}

/* ---- Several -------------------------------------------------------------------------------- */

static spb_status stage_three(struct act *act)
{
    SPB_TRY(act_stage(act, "one", 1, FILL_RANDOM, 10));
    SPB_TRY(act_stage(act, "alpha", 2, FILL_RANDOM, blocks(act->lab, 1)));
    return act_stage(act, "three", 3, FILL_RANDOM, 0);
}

static spb_status publish_three(struct act *act)
{
    SPB_TRY(act_publish(act, 0, false));
    SPB_TRY(act_publish(act, 1, true));
    SPB_TRY(act_delete_product(act, "beta"));
    return act_publish(act, 2, false);
}

/* ---- Defragment ----------------------------------------------------------------------------- */

static void setup_gaps(struct lab *lab)
{
    lab_plant_product(lab, 0, "alpha", 3, blocks(lab, 1) + 17);
    lab_plant_product(lab, 2, "beta", 8, blocks(lab, 2));
}

static void setup_gaps_crossing(struct lab *lab)
{
    lab_plant_product(lab, 0, "alpha", 1, 100);
    lab_plant_product(lab, lab_entry(lab, 0, true), "beta", 8, blocks(lab, 2));
}

static const struct scenario scenarios[] = {
    {"product-empty", SALL, true, false, 0, setup_two, stage_0, publish_new},
    {"product-1-byte", SALL, true, false, 0, setup_two, stage_1, publish_new},
    {"product-exact", S512 | S4096, true, false, 0, setup_two, stage_exact, publish_new},
    {"product-ambiguous", S512 | S4096, true, false, 0, setup_two, stage_ambiguous, publish_new},
    {"product-ambiguous-exact", S512 | S4096, true, false, 0, setup_two, stage_ambiguous_exact,
     publish_new},
    {"product-ends-80", S512 | S4096, true, false, 0, setup_two, stage_80, publish_new},
    {"product-zeros", S512 | S4096, true, false, 0, setup_empty, stage_zeros, publish_new},
    {"product-multi", SALL, true, false, 0, setup_empty, stage_multi, publish_new},
    {"product-replace", SALL, true, false, 0, setup_two, stage_alpha, replace},
    {"product-replace-empty", S512 | S4096, true, false, 0, setup_two, stage_alpha_empty, replace},
    {"product-replace-full-catalog", S512, true, false, 0, setup_full_catalog, stage_alpha,
     replace},
    {"product-replace-rotten", S512 | S4096, true, false, 0, setup_rotten, stage_alpha, replace},
    {"product-replace-crossing", SCROSS, true, false, 0, setup_crossing, stage_alpha, replace},
    {"product-replace-crossing-away", SCROSS, true, false, 0, setup_crossing_away, stage_alpha,
     replace},
    {"product-replace-twin", S512 | SCROSS, false, false, 0, setup_twin, stage_alpha, replace},
    {"product-replace-crossing-twin", SCROSS, false, false, 0, setup_crossing_twin, stage_alpha,
     replace},
    {"product-replace-crossing-rotten", SCROSS, false, false, 0, setup_crossing_rotten, stage_alpha,
     replace},
    {"product-delete-twin", S512 | SCROSS, false, false, 0, setup_twin, NULL, delete_alpha},
    {"product-delete-crossing-twin", SCROSS, false, false, 0, setup_crossing_twin, NULL,
     delete_alpha},
    {"product-delete", SALL, true, false, 0, setup_two, NULL, delete_alpha},
    {"product-delete-rotten", S512, true, false, 0, setup_rotten, NULL, delete_alpha},
    {"product-delete-crossing", SCROSS, true, false, 0, setup_crossing, NULL, delete_alpha},
    {"products-several", S512 | S4096, false, false, 0, setup_two, stage_three, publish_three},
    {"defragment", SALL, false, true, 0, setup_gaps, NULL, act_defrag},
    {"defragment-crossing", SCROSS, false, true, 0, setup_gaps_crossing, NULL, act_defrag},
};

/* At S=512 the original's reader stops at the first free entry: no change leaves gaps. */
static void check_no_gaps(struct lab *lab)
{
    struct act act;
    bool ended = false;

    lab_begin(lab, "no-gaps", 512, 12);
    setup_full_catalog(lab);
    medium_reset(lab->medium, lab->image);
    act = act_begin(lab, lab->medium, true);
    CHECK(lab, spb_is_ok(act_delete_product(&act, "alpha")), "%s", act.err.text);
    CHECK(lab, spb_is_ok(act_delete_product(&act, "c")), "%s", act.err.text);
    model_settle(act.model);
    lab_compare(lab, act.model, act.volume, "after deleting two");
    for (uint32_t i = 0; i < lab_catalog_entries(lab); i++) {
        const uint8_t *entry = medium_durable(lab->medium) + 33 * 512 + (size_t)i * 80;

        CHECK(lab, !ended || entry[11] == 0, "entry %u is in use behind a free one", i);
        ended = ended || entry[11] == 0;
    }
    act_end(&act, true);
}

int main(int argc, char **argv)
{
    struct lab lab;

    lab_init(&lab, "crash_products", argc, argv);
    check_no_gaps(&lab);
    lab_done(&lab);
    return lab_main("crash_products", scenarios, sizeof(scenarios) / sizeof(scenarios[0]), argc,
                    argv);
}
