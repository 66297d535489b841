/*
 * The audit's database under death of the process, power loss and a failing disk. Whatever
 * happened, what was acknowledged is there, an outcome is there once a later group of the image is,
 * an image has at most one open group, and when the disk works again the audit does.
 *
 *   crash_audit [--only kill|faults|random] [--seed N] [--seconds S] [--stride N]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash/audit_lab.h"
#include "support/random.h"
#include "util.h"

static const char *option(int argc, char **argv, const char *name, const char *fallback)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    }
    return fallback;
}

/* What may come after a child: its death or end, or a power loss too, of all that was not flushed
 * or of some. */
enum after { AFTER_PROCESS, AFTER_POWER_ALL, AFTER_POWER_SOME, AFTER_COUNT };

static const char *const after_words[] = {"", ", power lost", ", power lost in part"};

static void look_after(struct lab *lab, enum after after, bool alive, uint64_t seed)
{
    size_t used = strlen(lab->where);

    (void)snprintf(lab->where + used, sizeof lab->where - used, "%s", after_words[after]);
    if (after != AFTER_PROCESS)
        disk_lose_power(after == AFTER_POWER_ALL ? 0 : seed);
    lab_check(lab, alive && after == AFTER_PROCESS);
}

/* ---- Death at each call ------------------------------------------------------------------- */

static uint64_t kill_at_each(struct lab *lab, enum disk_action action, enum after after,
                             uint64_t stride)
{
    for (uint64_t at = 1;; at += stride) {
        struct lab_run run = {
            .plan = {DISK_ALL, action, at, 1}, .from_the_start = true, .groups = 12, .seed = at};

        (void)snprintf(lab->where, sizeof lab->where, "killed %s call %lu",
                       action == DISK_DIES ? "in" : "after", (unsigned long)at);
        lab_begin(lab);
        enum lab_end end = lab_run(lab, &run);
        look_after(lab, after, end == LAB_DONE, at);
        if (end == LAB_DONE)
            return at;
    }
}

/*
 * A flush fails, which leaves what it was for in the page cache alone, and the process dies of
 * something else. The next one sees it there, works on, and then power is lost.
 */
static uint64_t drop_at_each(struct lab *lab, uint64_t stride)
{
    for (uint64_t at = 1;; at += stride) {
        struct lab_run first = {.plan = {DISK_FLUSHES, DISK_DROPS, at, 1},
                                .from_the_start = true,
                                .groups = 12,
                                .seed = at};
        struct lab_run second = {.groups = 3, .seed = at};

        (void)snprintf(lab->where, sizeof lab->where, "flush %lu dropped, then another life",
                       (unsigned long)at);
        lab_begin(lab);
        if (lab_run(lab, &first) == LAB_DONE)
            return at;
        (void)lab_run(lab, &second);
        look_after(lab, AFTER_POWER_ALL, false, at);
    }
}

static void kill_all(struct lab *lab, uint64_t stride)
{
    for (enum after after = AFTER_PROCESS; after < AFTER_COUNT; after++) {
        uint64_t last = kill_at_each(lab, DISK_DIES, after, stride);

        last += kill_at_each(lab, DISK_DIES_AFTER, after, stride);
        printf("killed at each of %lu calls%s\n", (unsigned long)last / 2, after_words[after]);
    }
    printf("dropped at each of %lu flushes\n", (unsigned long)drop_at_each(lab, stride));
}

/* ---- A failing disk ----------------------------------------------------------------------- */

static uint64_t fail_at_each(struct lab *lab, const struct disk_plan *how, enum after after,
                             bool from_the_start, uint64_t stride)
{
    for (uint64_t at = 1;; at += stride) {
        struct lab_run run = {.plan = *how,
                              .from_the_start = from_the_start,
                              .closes = at % 2 == 0,
                              .groups = 12,
                              .seed = at};

        run.plan.at = at;
        (void)snprintf(lab->where, sizeof lab->where, "%s %s %lu, %lu times%s",
                       how->action == DISK_FAILS ? "failed" : "full",
                       how->calls == DISK_FLUSHES ? "flush" : "write", (unsigned long)at,
                       (unsigned long)how->times, from_the_start ? "" : ", once open");
        lab_begin(lab);
        enum lab_end end = lab_run(lab, &run);
        bool struck = disk_struck() > 0;
        look_after(lab, after, end == LAB_DONE && run.closes, at);
        if (!struck)
            return at;
    }
}

static void fail_all(struct lab *lab, uint64_t stride)
{
    static const struct disk_plan hows[] = {
        {DISK_FLUSHES, DISK_FAILS, 0, 1},  {DISK_FLUSHES, DISK_FAILS, 0, 3},
        {DISK_WRITES, DISK_FAILS, 0, 1},   {DISK_WRITES, DISK_FAILS, 0, 5},
        {DISK_WRITES, DISK_IS_FULL, 0, 1}, {DISK_WRITES, DISK_IS_FULL, 0, 5},
    };

    for (size_t i = 0; i < sizeof hows / sizeof *hows; i++) {
        for (enum after after = AFTER_PROCESS; after < AFTER_COUNT; after++) {
            uint64_t last = fail_at_each(lab, &hows[i], after, i % 2 == 0, stride);

            printf("%s at each of %lu %s, %lu times%s\n",
                   hows[i].action == DISK_FAILS ? "failed" : "full", (unsigned long)last,
                   hows[i].calls == DISK_FLUSHES ? "flushes" : "writes",
                   (unsigned long)hows[i].times, after_words[after]);
        }
    }
}

/* ---- At random ---------------------------------------------------------------------------- */

static struct lab_run random_run(uint64_t *random)
{
    struct lab_run run = {
        .plan = {.calls = (enum disk_calls)(1 + random_below(random, 3)),
                 .action = (enum disk_action)random_below(random, DISK_ACTION_COUNT),
                 .at = random_below(random, 400),
                 .times = 1 + random_below(random, 4)},
        .from_the_start = random_below(random, 2) == 0,
        .closes = random_below(random, 2) == 0,
        .groups = 1 + random_below(random, 60),
        .seed = random_next(random)};

    return run;
}

/* One database through many lives; most are looked at, from others the next one takes over. */
static void one_history(struct lab *lab, uint64_t seed)
{
    uint64_t random = seed;

    lab_begin(lab);
    for (unsigned life = 0; life < 40; life++) {
        struct lab_run run = random_run(&random);
        enum after after = (enum after)random_below(&random, AFTER_COUNT);
        enum lab_end end = LAB_DIED;

        (void)snprintf(lab->where, sizeof lab->where, "history %lu, life %u", (unsigned long)seed,
                       life);
        if (random_below(&random, 3) == 0)
            lab_run_for(lab, &run, random_below(&random, 30) * SPB_NS_PER_MS);
        else
            end = lab_run(lab, &run);
        if (random_below(&random, 3) == 0)
            continue;
        look_after(lab, after, end == LAB_DONE && run.closes, random_next(&random));
        disk_settle();
    }
    lab_check(lab, false);
}

static void histories(struct lab *lab, uint64_t seed, double seconds)
{
    int64_t until_ns = spb_now_ns() + (int64_t)(seconds * 1e9);
    uint64_t count = 0;

    do {
        one_history(lab, seed + count++);
    } while (spb_now_ns() < until_ns);
    printf("%lu histories from seed %lu on\n", (unsigned long)count, (unsigned long)seed);
}

int main(int argc, char **argv)
{
    static struct lab lab;
    const char *only = option(argc, argv, "--only", "");
    uint64_t stride = strtoull(option(argc, argv, "--stride", "1"), NULL, 10);
    uint64_t seed = strtoull(option(argc, argv, "--seed", "0"), NULL, 10);
    double seconds = strtod(option(argc, argv, "--seconds", "10"), NULL);

    if (seed == 0)
        seed = (uint64_t)time(NULL);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    lab_init(&lab);
    if (*only == '\0' || strcmp(only, "kill") == 0)
        kill_all(&lab, stride);
    if (*only == '\0' || strcmp(only, "faults") == 0)
        fail_all(&lab, stride);
    if (*only == '\0' || strcmp(only, "random") == 0)
        histories(&lab, seed, seconds);
    lab_done(&lab);
    printf("%lu children\n", (unsigned long)lab.cases);
    return 0;
}
