/*
 * The audit's database under death of the process, power loss and a failing disk. Whatever
 * happened, what was acknowledged is there, an outcome is there once a later group of the image is,
 * an image has at most one open group, and when the disk works again the audit does.
 *
 *   crash_audit [--only kill|faults|random] [--seed N] [--seconds S]
 *
 * Each kind takes about S seconds (10). kill and faults strike at one call after another, in an
 * order by the seed, as many as there is time for; with 0 at all. random goes through histories of
 * their own seeds, with 0 through one. Which thread does what when is not in the seed: what failed
 * once may need many runs with it to fail again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash/audit_lab.h"
#include "support/random.h"
#include "util.h"

#define LIVES 40

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

/* ---- One place after another -------------------------------------------------------------- */

/* A strike, and what comes after it. */
struct stage {
    const char *words; /* "killed in call" */
    struct disk_plan plan;
    enum after after;
    bool once_open; /* the plan begins when the database is open */
    bool may_close; /* at its end, at every other place */
    void (*visit)(struct lab *lab, const struct stage *stage, struct lab_run *run);
};

struct pace {
    uint64_t seed;
    double seconds; /* 0: as long as it takes to have been everywhere */
};

static void visit_one(struct lab *lab, const struct stage *stage, struct lab_run *run)
{
    enum lab_end end = lab_run(lab, run);

    look_after(lab, stage->after, end == LAB_DONE && run->closes, run->seed);
}

/*
 * What the first process left, the second sees and works on, and dies too, or ends. Nobody has
 * looked in between.
 */
static void visit_two(struct lab *lab, const struct stage *stage, struct lab_run *run)
{
    uint64_t random = run->seed;
    struct lab_run second = {.plan = {DISK_ALL, DISK_DIES, random_below(&random, 80), 1},
                             .from_the_start = random_below(&random, 4) == 0,
                             .groups = 12,
                             .seed = random_next(&random)};

    (void)lab_run(lab, run);
    (void)lab_run(lab, &second);
    look_after(lab, stage->after, false, run->seed);
}

/* The second dies while it opens the database: what it recovers from is the first one's. */
static void visit_opening(struct lab *lab, const struct stage *stage, struct lab_run *run)
{
    uint64_t random = run->seed;
    struct lab_run second = {.plan = {DISK_ALL, DISK_DIES, 1 + random_below(&random, 24), 1},
                             .from_the_start = true,
                             .groups = 1,
                             .seed = random_next(&random)};

    (void)lab_run(lab, run);
    (void)lab_run(lab, &second);
    look_after(lab, stage->after, false, run->seed);
}

static void visit(struct lab *lab, const struct stage *stage, uint64_t at, uint64_t seed)
{
    uint64_t random = seed + at;
    struct lab_run run = {.plan = stage->plan,
                          .from_the_start = !stage->once_open,
                          .closes = stage->may_close && at % 2 == 0,
                          .groups = 12,
                          .seed = random_next(&random) | 1}; /* 0 means something else */

    run.plan.at = at;
    (void)snprintf(lab->where, sizeof lab->where, "%s %lu", stage->words, (unsigned long)at);
    lab_begin(lab);
    stage->visit(lab, stage, &run);
}

/* So many calls that it could strike are in a child's life; other threads' turns make it vary. */
static uint64_t count_places(struct lab *lab, const struct stage *stage)
{
    struct lab_run run = {
        .plan = stage->plan, .from_the_start = !stage->once_open, .closes = true, .groups = 12};

    (void)snprintf(lab->where, sizeof lab->where, "%s none", stage->words);
    run.plan.at = 0;
    lab_begin(lab);
    (void)lab_run(lab, &run);
    return disk_count() + disk_count() / 8;
}

/* Each place once, in an order by the seed. */
static void go_through(struct lab *lab, const struct stage *stage, const struct pace *pace)
{
    int64_t until_ns = spb_now_ns() + (int64_t)(pace->seconds * 1e9);
    uint64_t count = count_places(lab, stage), random = pace->seed, visited = 0;
    uint64_t *places = calloc(count, sizeof *places);

    if (places == NULL)
        abort();
    for (uint64_t i = 0; i < count; i++) { /* shuffled as it grows */
        uint64_t other = random_below(&random, (uint32_t)i + 1);

        places[i] = places[other];
        places[other] = i + 1;
    }
    for (; visited < count && (pace->seconds <= 0 || spb_now_ns() < until_ns); visited++)
        visit(lab, stage, places[visited], pace->seed);
    free(places);
    printf("%s %lu of %lu%s\n", stage->words, (unsigned long)visited, (unsigned long)count,
           after_words[stage->after]);
}

static void go_through_all(struct lab *lab, const struct stage *stages, size_t count,
                           const struct pace *pace)
{
    double seconds = pace->seconds / (double)(count * AFTER_COUNT);
    uint64_t random = pace->seed;

    for (size_t i = 0; i < count; i++) {
        for (enum after after = AFTER_PROCESS; after < AFTER_COUNT; after++) {
            struct stage stage = stages[i];
            struct pace share = {random_next(&random), seconds};

            stage.after = after;
            go_through(lab, &stage, &share);
        }
    }
}

/*
 * Death, in and after each call. A flush that drops what it was for leaves it in the page cache
 * alone, and the process dies: the next one sees it there, works on, and then power is lost.
 */
static void kill_all(struct lab *lab, const struct pace *pace)
{
    static const struct stage stages[] = {
        {"killed in call", {DISK_ALL, DISK_DIES, 0, 1}, 0, false, false, visit_one},
        {"killed after call", {DISK_ALL, DISK_DIES_AFTER, 0, 1}, 0, false, false, visit_one},
        {"killed twice, after call", {DISK_ALL, DISK_DIES_AFTER, 0, 1}, 0, false, false, visit_two},
        {"killed twice, dropping flush",
         {DISK_FLUSHES, DISK_DROPS, 0, 1},
         0,
         false,
         false,
         visit_two},
        {"killed when opening, after dropping flush",
         {DISK_FLUSHES, DISK_DROPS, 0, 1},
         0,
         false,
         false,
         visit_opening},
    };

    go_through_all(lab, stages, sizeof stages / sizeof *stages, pace);
}

/* A disk that fails now and then; a child that hears of it goes on. */
static void fail_all(struct lab *lab, const struct pace *pace)
{
    static const struct stage stages[] = {
        {"failed flush", {DISK_FLUSHES, DISK_FAILS, 0, 1}, 0, false, true, visit_one},
        {"failed 3 from flush", {DISK_FLUSHES, DISK_FAILS, 0, 3}, 0, true, true, visit_one},
        {"failed write", {DISK_WRITES, DISK_FAILS, 0, 1}, 0, false, true, visit_one},
        {"failed 5 from write", {DISK_WRITES, DISK_FAILS, 0, 5}, 0, true, true, visit_one},
        {"full at write", {DISK_WRITES, DISK_IS_FULL, 0, 1}, 0, false, true, visit_one},
        {"full for 5 from write", {DISK_WRITES, DISK_IS_FULL, 0, 5}, 0, true, true, visit_one},
    };

    go_through_all(lab, stages, sizeof stages / sizeof *stages, pace);
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
static void one_history(struct lab *lab, uint64_t seed, int64_t until_ns)
{
    uint64_t random = seed;

    lab_begin(lab);
    for (unsigned life = 0; life < LIVES && spb_now_ns() < until_ns; life++) {
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

static void histories(struct lab *lab, const struct pace *pace)
{
    int64_t until_ns =
        pace->seconds <= 0 ? INT64_MAX : spb_now_ns() + (int64_t)(pace->seconds * 1e9);
    uint64_t count = 0;

    do {
        one_history(lab, pace->seed + count++, until_ns);
    } while (pace->seconds > 0 && spb_now_ns() < until_ns);
    printf("%lu histories\n", (unsigned long)count);
}

int main(int argc, char **argv)
{
    static struct lab lab;
    const char *only = option(argc, argv, "--only", "");
    struct pace pace = {.seed = strtoull(option(argc, argv, "--seed", "0"), NULL, 10),
                        .seconds = strtod(option(argc, argv, "--seconds", "10"), NULL)};

    if (pace.seed == 0)
        pace.seed = (uint64_t)time(NULL);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %lu\n", (unsigned long)pace.seed);
    lab_init(&lab);
    if (*only == '\0' || strcmp(only, "kill") == 0)
        kill_all(&lab, &pace);
    if (*only == '\0' || strcmp(only, "faults") == 0)
        fail_all(&lab, &pace);
    if (*only == '\0' || strcmp(only, "random") == 0)
        histories(&lab, &pace);
    lab_done(&lab);
    printf("%lu children\n", (unsigned long)lab.cases);
    return 0;
}
