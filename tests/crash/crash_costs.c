/* What changes cost: flushes, sectors and reads, as format.md promises. */
#include "crash/lab.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"

static struct medium_counts since(const struct act *act, struct medium_counts before)
{
    struct medium_counts now = medium_counts(act->medium);

    now.reads -= before.reads;
    now.medium_reads -= before.medium_reads;
    now.writes -= before.writes;
    now.sectors -= before.sectors;
    now.flushes -= before.flushes;
    return now;
}

/* Carries out what the group has decided, and returns what that cost. */
static struct medium_counts carry_out(struct act *act)
{
    struct medium_counts before = medium_counts(act->medium), cost;

    CHECK(act->lab, spb_is_ok(spb_group_carry_out(act->group, &act->err)), "%s", act->err.text);
    spb_group_make_visible(act->group);
    cost = since(act, before);
    act_end(act, false);
    model_settle(act->model);
    CHECK(act->lab, cost.reads == 0 && cost.medium_reads == 0, "carrying out read");
    return cost;
}

static void new_group(struct act *act)
{
    act->lab->call_count = 0;
    CHECK(act->lab, spb_is_ok(spb_group_new(act->volume, &act->group, &act->err)), "%s",
          act->err.text);
}

static void decided(struct act *act, spb_status status)
{
    CHECK(act->lab, spb_is_ok(status), "%s", act->err.text);
}

static void expect(const struct act *act, const char *what, struct medium_counts cost,
                   uint64_t flushes, uint64_t sectors_most)
{
    CHECK(act->lab, cost.flushes == flushes, "%s: %llu flushes, expected %llu", what,
          (unsigned long long)cost.flushes, (unsigned long long)flushes);
    CHECK(act->lab, cost.sectors <= sectors_most, "%s: %llu sectors, expected at most %llu", what,
          (unsigned long long)cost.sectors, (unsigned long long)sectors_most);
}

static void cost_of_params(struct act *act, uint32_t many)
{
    new_group(act);
    decided(act, act_put(act, 1, "one"));
    expect(act, "a put", carry_out(act), 1, 1);
    new_group(act);
    for (uint32_t id = 2; id < 2 + many; id++)
        decided(act, act_put(act, id, "one of many"));
    expect(act, "many puts", carry_out(act), 1, many);
    new_group(act);
    decided(act, act_put(act, 1, "again"));
    decided(act, act_append(act, 1));
    expect(act, "a put and an event", carry_out(act), 2, 4);
    new_group(act);
    decided(act, act_delete(act, 2));
    expect(act, "delete of an id with one entry", carry_out(act), 1, 1);
    new_group(act);
    decided(act, act_delete(act, 1));
    expect(act, "delete of an id with two entries", carry_out(act), 2, 2);
}

static void cost_of_events(struct act *act)
{
    uint32_t round = act->lab->block_size / 76;
    uint64_t round_sectors = (uint64_t)round * 76 / 512 + 3;

    new_group(act);
    decided(act, act_append(act, 1));
    expect(act, "an event", carry_out(act), 2, 3);
    new_group(act);
    decided(act, act_append(act, round));
    expect(act, "R events", carry_out(act), 2, round_sectors + 2);
    new_group(act);
    decided(act, act_append(act, round + 1));
    expect(act, "R + 1 events", carry_out(act), 4, round_sectors + 6);
    new_group(act);
    for (uint32_t i = 0; i < round; i++)
        decided(act, act_append(act, 1));
    expect(act, "R appends of one event", carry_out(act), 2, round_sectors + 2);
}

static void cost_of_products(struct act *act)
{
    struct medium_counts before = medium_counts(act->medium), cost;
    uint64_t data_sectors = 2 * act->lab->block_size / 512;

    decided(act, act_stage(act, "product", 1, FILL_RANDOM, act->lab->block_size + 1));
    cost = since(act, before);
    CHECK(act->lab, cost.flushes == 0 && cost.sectors == data_sectors && cost.reads == 0,
          "writing data: %llu flushes, %llu sectors", (unsigned long long)cost.flushes,
          (unsigned long long)cost.sectors);
    new_group(act);
    decided(act, act_publish(act, 0, false));
    expect(act, "publishing", carry_out(act), 2, 1);
    decided(act, act_stage(act, "product", 1, FILL_RANDOM, 10));
    new_group(act);
    decided(act, act_put(act, 99, "beside"));
    decided(act, act_append(act, 1));
    decided(act, act_publish(act, 0, true));
    expect(act, "a put, an event and replacing", carry_out(act), 2, 5);
    new_group(act);
    decided(act, act_delete_product(act, "product"));
    expect(act, "deleting a product", carry_out(act), 1, 1);
}

static void cost_of_opening(struct lab *lab, struct medium *medium)
{
    struct medium_counts before = medium_counts(medium), after;
    struct spb_volume *volume = lab_open(lab, medium, true);

    after = medium_counts(medium);
    CHECK(lab, after.flushes - before.flushes == 1 && after.writes == before.writes,
          "opening a clean volume: %llu flushes, %llu writes",
          (unsigned long long)(after.flushes - before.flushes),
          (unsigned long long)(after.writes - before.writes));
    spb_volume_close(volume);
    volume = lab_open(lab, medium, false);
    spb_volume_close(volume);
    CHECK(lab,
          medium_counts(medium).flushes == after.flushes &&
              medium_counts(medium).writes == after.writes,
          "closing, or opening for reading, wrote or flushed");
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {512, 1024, 4096, 65536};
    struct lab lab;

    lab_init(&lab, "crash_costs", argc, argv);
    for (size_t i = 0; i < 4; i++) {
        struct act act;

        lab_begin(&lab, "costs", sizes[i], 12);
        medium_reset(lab.medium, lab.image);
        act = act_begin(&lab, lab.medium, false);
        cost_of_params(&act, sizes[i] >= 4096 ? 64 : 20);
        cost_of_events(&act);
        cost_of_products(&act);
        lab_compare(&lab, act.model, act.volume, "after all");
        lab_check_medium(&lab, lab.medium, "after all");
        act_end(&act, true);
        cost_of_opening(&lab, lab.medium);
    }
    printf("crash_costs: seed %llu: puts, events, products and openings cost what they should\n",
           (unsigned long long)lab.seed);
    lab_done(&lab);
    return 0;
}
