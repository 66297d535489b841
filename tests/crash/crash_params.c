/* Parameters: every way of putting, writing and deleting, and the states that a crash leaves. */
#include "crash/lab.h"

#include "base/status.h"

static void setup_empty(struct lab *lab)
{
    (void)lab;
}

static void setup_few(struct lab *lab)
{
    lab_plant_param(lab, 0, 42, 1, "the first value");
    lab_plant_param(lab, 1, 7, 3, "another id");
}

static spb_status put_42(struct act *act)
{
    return act_put(act, 42, "a value that is new");
}

static spb_status put_42_empty(struct act *act)
{
    return act_put(act, 42, "");
}

static void setup_superseded_full(struct lab *lab)
{
    lab_plant_full(lab, 4, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 4, "superseded");
    lab_plant_param(lab, lab_slot(lab, 2, false), 42, 5, "the value");
    lab_plant_param(lab, lab_slot(lab, 1, false), 43, 2, "superseded with a lower generation");
    lab_plant_param(lab, lab_slot(lab, 3, false), 43, 9, "43");
}

static spb_status put_new_and_old(struct act *act)
{
    SPB_TRY(act_put(act, 44, "a new id takes the slot of 43"));
    return act_put(act, 42, "and this one the slot of 42");
}

static void setup_all_newest(struct lab *lab)
{
    lab_plant_full(lab, 1, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the only place it has");
}

static void setup_corrupt_same_id(struct lab *lab)
{
    lab_plant_full(lab, 3, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the value");
    lab_plant_corrupt(lab, lab_slot(lab, 1, false), 42, 3);
    lab_plant_corrupt(lab, lab_slot(lab, 2, false), 99, 8);
}

static void setup_corrupt_other_id(struct lab *lab)
{
    lab_plant_full(lab, 2, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the value");
    lab_plant_corrupt(lab, lab_slot(lab, 1, false), 99, 3);
}

static void setup_corrupt_newer(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the value");
    lab_plant_corrupt(lab, lab_slot(lab, 1, false), 42, 9);
}

static spb_status put_42_gives_10(struct act *act)
{
    CHECK(act->lab, act->group == NULL || model_next_generation(act->volume, 42) == 10,
          "a corrupt slot shows generation 9");
    return act_put(act, 42, "goes above the corrupt slot");
}

static void setup_only_corrupt(struct lab *lab)
{
    lab_plant_corrupt(lab, lab_slot(lab, 1, false), 42, 9);
    lab_plant_corrupt(lab, lab_slot(lab, 4, false), 42, 3);
    lab_plant_param(lab, lab_slot(lab, 2, false), 7, 1, "7");
}

/* ---- Generation 65535 ----------------------------------------------------------------------- */

static void setup_65535(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 65533, "older");
    lab_plant_param(lab, lab_slot(lab, 9, false), 42, 65535, "the last generation");
    lab_plant_param(lab, lab_slot(lab, 4, false), 42, 65534, "old");
    lab_plant_corrupt(lab, lab_slot(lab, 6, false), 42, 17);
    lab_plant_corrupt(lab, lab_slot(lab, 12, false), 42, 65535);
    lab_plant_param(lab, lab_slot(lab, 5, false), 7, 3, "another id");
    lab_plant_corrupt(lab, lab_slot(lab, 7, false), 8, 3);
}

static void setup_65535_alone(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 65535, "the last generation");
}

static void setup_65535_full(struct lab *lab)
{
    lab_plant_full(lab, 2, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 65535, "the last generation");
    lab_plant_param(lab, lab_slot(lab, 1, false), 42, 2, "an old one");
}

static void setup_65535_crossing(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 65533, "older");
    lab_plant_param(lab, lab_slot(lab, 1, true), 42, 65534, "old and crossing");
    lab_plant_param(lab, lab_slot(lab, 0, true), 42, 65535, "the last generation, crossing");
    lab_plant_corrupt(lab, lab_slot(lab, 6, false), 42, 65535);
    lab_plant_corrupt(lab, lab_slot(lab, 2, true), 42, 3);
    lab_plant_param(lab, lab_slot(lab, 5, false), 7, 3, "another id");
}

static void setup_65535_corrupt(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the value");
    lab_plant_corrupt(lab, lab_slot(lab, 3, false), 42, 65535);
}

static void setup_65535_corrupt_crossing(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the value");
    lab_plant_corrupt(lab, lab_slot(lab, 0, true), 42, 65535);
}

static void setup_65535_only_corrupt(struct lab *lab)
{
    lab_plant_corrupt(lab, lab_slot(lab, 3, false), 42, 65535);
    lab_plant_param(lab, lab_slot(lab, 5, false), 7, 3, "another id");
}

static void setup_65534(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 3, false), 42, 65534, "one before the last");
}

static spb_status put_42_twice(struct act *act)
{
    SPB_TRY(act_put(act, 42, "generation 65535"));
    /* The wrap needs the entry that this group has not flushed yet. */
    spb_status status = act_put(act, 42, "generation 1");

    if (status.code == SPB_AGAIN)
        return spb_ok();
    return status;
}

/* ---- Crossing entries ----------------------------------------------------------------------- */

static void setup_crossing_newest(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 0, true), 42, 5, "crossing");
    lab_plant_param(lab, lab_slot(lab, 1, true), 42, 4, "crossing and superseded");
}

/* A new id may not take the last reusable slot; the id of the crossing entry may. */
static void setup_crossing_full(struct lab *lab)
{
    lab_plant_full(lab, 2, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, true), 42, 5, "crossing");
    lab_plant_param(lab, lab_slot(lab, 0, false), 43, 1, "superseded");
    lab_plant_param(lab, lab_slot(lab, 1, false), 43, 2, "43");
}

static spb_status put_last_slot(struct act *act)
{
    struct spb_param_put put = {555, "new", 3, SPB_ANY_GENERATION};
    spb_status refused = act->group != NULL
                             ? spb_group_put_param(act->group, &put, NULL, &act->err)
                             : spb_volume_put_param(act->volume, &put, NULL, &act->err);

    CHECK(act->lab, refused.code == SPB_FULL, "a new id in the last reusable slot: %s",
          spb_code_name(refused.code));
    return act_put(act, 42, "moved out of the crossing slot");
}

/* ---- Delete, write -------------------------------------------------------------------------- */

static spb_status delete_42(struct act *act)
{
    return act_delete(act, 42);
}

static void setup_delete(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 9, false), 42, 3, "superseded");
    lab_plant_param(lab, lab_slot(lab, 1, false), 42, 5, "the value");
    lab_plant_param(lab, lab_slot(lab, 2, false), 42, 4, "superseded too");
    lab_plant_corrupt(lab, lab_slot(lab, 3, false), 42, 6);
    lab_plant_corrupt(lab, lab_slot(lab, 12, false), 42, 1);
    lab_plant_param(lab, lab_slot(lab, 4, false), 7, 3, "another id");
}

static void setup_delete_crossing(struct lab *lab)
{
    setup_delete(lab);
    lab_plant_param(lab, lab_slot(lab, 0, true), 42, 2, "superseded, crossing");
    lab_plant_corrupt(lab, lab_slot(lab, 1, true), 42, 8);
    lab_plant_param(lab, lab_slot(lab, 2, true), 42, 7, "the value, crossing");
    lab_plant_param(lab, lab_slot(lab, 3, true), 7, 9, "another id, crossing");
}

/* Equal generations: the lowest slot counts. */
static void setup_delete_equal(struct lab *lab)
{
    lab_plant_param(lab, lab_slot(lab, 2, false), 42, 5, "the lowest slot counts");
    lab_plant_param(lab, lab_slot(lab, 8, false), 42, 5, "not this one");
}

static spb_status write_slot(struct act *act)
{
    uint32_t slot = lab_slot(act->lab, 11, false);
    struct spb_group *group = act->group;

    if (group != NULL)
        CHECK(act->lab,
              spb_group_write_param(group, lab_slot(act->lab, 0, false), 5, 1, "x", 1, &act->err)
                      .code == SPB_IN_USE,
              "a slot in use is written");
    return act_write_param(act, slot, 42, 9, "the caller's own generation");
}

/* ---- Several -------------------------------------------------------------------------------- */

static spb_status batch(struct act *act)
{
    return act_put_batch(act, 40, 9, "one of a batch");
}

/* The corrupt slot that set the generation of 42 is taken by the next of the batch. */
static void setup_corrupt_taken(struct lab *lab)
{
    lab_plant_full(lab, 3, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the value");
    lab_plant_corrupt(lab, lab_slot(lab, 1, false), 42, 9);
}

static spb_status batch_of_two(struct act *act)
{
    return act_put_batch(act, 42, 2, "one of two");
}

/* The batch takes the last reusable slots, and one id's value lies across a boundary. */
static spb_status batch_to_the_last(struct act *act)
{
    return act_put_batch(act, 41, 2, "to the last");
}

static void setup_two_left(struct lab *lab)
{
    lab_plant_full(lab, 4, 1000);
    lab_plant_param(lab, lab_slot(lab, 1, false), 2000, 1, "between");
    lab_plant_param(lab, lab_slot(lab, 2, false), 2001, 1, "the two");
    lab_plant_param(lab, lab_slot(lab, 0, true), 42, 5, "crossing");
    lab_plant_param(lab, lab_slot(lab, 1, true), 43, 5, "crossing too");
}

static spb_status many_puts(struct act *act)
{
    for (uint32_t id = 1; id <= 12; id++)
        SPB_TRY(act_put(act, id, "one of many"));
    return spb_ok();
}

static spb_status put_and_delete(struct act *act)
{
    SPB_TRY(act_delete(act, 42));
    SPB_TRY(act_put(act, 7, "7 again"));
    return act_put(act, 8, "8 is new");
}

/* The put takes a slot of the id that is deleted after it: an older value may not come back. */
static spb_status put_then_delete(struct act *act)
{
    SPB_TRY(act_put(act, 44, "takes the slot of 43's old entry"));
    SPB_TRY(act_delete(act, 43));
    SPB_TRY(act_put(act, 45, "takes the slot of 42's old entry"));
    return act_delete(act, 42);
}

static void setup_corrupt_only_place(struct lab *lab)
{
    lab_plant_full(lab, 3, 1000);
    lab_plant_param(lab, lab_slot(lab, 0, false), 42, 5, "the value");
    lab_plant_param(lab, lab_slot(lab, 1, false), 43, 1, "43");
    lab_plant_corrupt(lab, lab_slot(lab, 2, false), 42, 3);
}

static spb_status put_over_corrupt_then_delete(struct act *act)
{
    SPB_TRY(act_put(act, 44, "takes the corrupt slot of 42"));
    return act_delete(act, 42);
}

static spb_status put_three_times(struct act *act)
{
    spb_status status;

    SPB_TRY(act_put(act, 42, "one"));
    status = act_put(act, 42, "two");
    if (status.code == SPB_AGAIN)
        return spb_ok();
    SPB_TRY(status);
    return act_put(act, 42, "three");
}

static const struct scenario scenarios[] = {
    {"put-new", SALL, true, false, 0, setup_empty, NULL, put_42},
    {"put-empty-value", S512 | S4096, true, false, 0, setup_few, NULL, put_42_empty},
    {"put-again", SALL, true, false, 0, setup_few, NULL, put_42},
    {"put-superseded", SALL, false, false, 0, setup_superseded_full, NULL, put_new_and_old},
    {"put-in-place", SALL, true, false, 0, setup_all_newest, NULL, put_42},
    {"put-corrupt-same-id", S512 | S1024 | S4096, true, false, 0, setup_corrupt_same_id, NULL,
     put_42},
    {"put-corrupt-other-id", S512 | S1024 | S4096, true, false, 0, setup_corrupt_other_id, NULL,
     put_42},
    {"put-corrupt-newer", SALL, true, false, 0, setup_corrupt_newer, NULL, put_42_gives_10},
    {"put-only-corrupt", S512 | S4096, true, false, 0, setup_only_corrupt, NULL, put_42},
    {"put-65535", SALL, true, false, 0, setup_65535, NULL, put_42},
    {"put-65535-alone", S512 | S4096, true, false, 0, setup_65535_alone, NULL, put_42},
    {"put-65535-full", S512 | S1024 | S4096, true, false, 0, setup_65535_full, NULL, put_42},
    {"put-65535-crossing", SCROSS, true, false, 0, setup_65535_crossing, NULL, put_42},
    {"put-65535-corrupt", SALL, true, false, 0, setup_65535_corrupt, NULL, put_42},
    {"put-65535-corrupt-crossing", SCROSS, true, false, 0, setup_65535_corrupt_crossing, NULL,
     put_42},
    {"put-65535-only-corrupt", S512 | S4096, true, false, 0, setup_65535_only_corrupt, NULL,
     put_42},
    {"put-65534-twice", S512 | S4096, false, false, 0, setup_65534, NULL, put_42_twice},
    {"put-crossing", SCROSS, true, false, 0, setup_crossing_newest, NULL, put_42},
    {"put-crossing-full", SCROSS, true, false, 0, setup_crossing_full, NULL, put_last_slot},
    {"delete", SALL, true, false, 0, setup_delete, NULL, delete_42},
    {"delete-crossing", SCROSS, true, false, 0, setup_delete_crossing, NULL, delete_42},
    {"delete-equal", S512 | S4096, true, false, 0, setup_delete_equal, NULL, delete_42},
    {"delete-only-corrupt", S512 | S4096, true, false, 0, setup_only_corrupt, NULL, delete_42},
    {"delete-65535-crossing", SCROSS, true, false, 0, setup_65535_crossing, NULL, delete_42},
    {"write-slot", SALL, true, false, 0, setup_few, NULL, write_slot},
    {"batch", SALL, false, false, 0, setup_few, NULL, batch},
    {"batch-over-corrupt", S512 | S4096, false, false, 0, setup_corrupt_taken, NULL, batch_of_two},
    {"batch-to-the-last", SCROSS, false, false, 0, setup_two_left, NULL, batch_to_the_last},
    {"batch-65535", S512 | S4096, false, false, 0, setup_65535, NULL, batch},
    {"many-puts", S512 | S4096, false, false, 0, setup_few, NULL, many_puts},
    {"put-and-delete", S512 | S1024 | S4096, false, false, 0, setup_delete, NULL, put_and_delete},
    {"put-then-delete", SALL, false, false, 0, setup_superseded_full, NULL, put_then_delete},
    {"put-over-corrupt-then-delete", S512 | S4096, false, false, 0, setup_corrupt_only_place, NULL,
     put_over_corrupt_then_delete},
    {"put-three-times", S512 | S4096, false, false, 0, setup_few, NULL, put_three_times},
};

int main(int argc, char **argv)
{
    return lab_main("crash_params", scenarios, sizeof(scenarios) / sizeof(scenarios[0]), argc,
                    argv);
}
