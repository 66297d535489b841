/* Events: appends of every length, at every place of the ring. */
#include "crash/lab.h"

#include "base/status.h"

static uint32_t round_of(const struct lab *lab)
{
    return lab->block_size / 76;
}

static uint32_t ring_of(const struct lab *lab)
{
    return 15 * round_of(lab);
}

static void setup_empty(struct lab *lab)
{
    (void)lab;
}

static void setup_some(struct lab *lab)
{
    lab_plant_events(lab, 5, 5);
    lab_plant_param(lab, 0, 42, 1, "unconcerned");
}

/* The pointer stands in the middle of the ring, which was filled several times. */
static void setup_wrapped(struct lab *lab)
{
    lab_plant_events(lab, 7 * ring_of(lab) + ring_of(lab) / 2 + 1, ring_of(lab));
    lab_plant_event_corrupt(lab, 2);
}

/* The next append passes the end of the ring. */
static void setup_ring_end(struct lab *lab)
{
    lab_plant_events(lab, 3 * ring_of(lab) - 1, ring_of(lab));
}

static void setup_pointer_end(struct lab *lab)
{
    lab_plant_events(lab, UINT32_MAX - 1, ring_of(lab));
}

static void setup_pointer_last(struct lab *lab)
{
    lab_plant_events(lab, UINT32_MAX, ring_of(lab));
}

static void setup_pointer_round_before(struct lab *lab)
{
    lab_plant_events(lab, UINT32_MAX - round_of(lab) - 1, ring_of(lab));
}

static spb_status append_1(struct act *act)
{
    return act_append(act, 1);
}

static spb_status append_3(struct act *act)
{
    return act_append(act, 3);
}

static spb_status append_round(struct act *act)
{
    return act_append(act, round_of(act->lab));
}

static spb_status append_round_and_1(struct act *act)
{
    return act_append(act, round_of(act->lab) + 1);
}

static spb_status append_most(struct act *act)
{
    return act_append(act, ring_of(act->lab) - round_of(act->lab));
}

static spb_status append_several(struct act *act)
{
    SPB_TRY(act_append(act, 2));
    SPB_TRY(act_append(act, round_of(act->lab) - 1));
    return act_append(act, 3);
}

static const struct scenario scenarios[] = {
    {"append-1", SALL, true, false, 0, setup_empty, NULL, append_1},
    {"append-1-some", SALL, true, false, 0, setup_some, NULL, append_1},
    {"append-round", SALL, true, false, 0, setup_empty, NULL, append_round},
    {"append-round-and-1", S512 | S4096, true, false, 0, setup_some, NULL, append_round_and_1},
    {"append-most", S512, true, false, 0, setup_empty, NULL, append_most},
    {"append-wrapped-1", SALL, true, false, 0, setup_wrapped, NULL, append_1},
    {"append-wrapped-round", S512 | S4096, true, false, 0, setup_wrapped, NULL, append_round},
    {"append-wrapped-most", S512 | S1024, true, false, 0, setup_wrapped, NULL, append_most},
    {"append-ring-end", SALL, true, false, 0, setup_ring_end, NULL, append_3},
    {"append-pointer-end", SALL, true, false, 0, setup_pointer_end, NULL, append_3},
    {"append-pointer-last", S512 | S4096, true, false, 0, setup_pointer_last, NULL, append_1},
    {"append-pointer-rounds", S512, true, false, 0, setup_pointer_round_before, NULL, append_most},
    {"append-pointer-round", S512 | S1024, true, false, 0, setup_pointer_round_before, NULL,
     append_round_and_1},
    {"append-several", S512 | S1024, false, false, 0, setup_wrapped, NULL, append_several},
};

int main(int argc, char **argv)
{
    return lab_main("crash_events", scenarios, sizeof(scenarios) / sizeof(scenarios[0]), argc,
                    argv);
}
