/*
 * The audit alone, without daemon: groups of intents begun and ended by one or many callers, beside
 * what the disk does for one writer (a page written over and fdatasync), in alternating rounds on
 * the same disk. Prints one line of JSON: for each shape calls a second, commits a second, latency
 * of beginning a group, processor time of the whole process for each call, and the ratio of groups
 * begun to the bare writer's flushes, of one caller the one that counts.
 *
 *   bench_audit --dir D [--seconds S] [--rounds N] [--changes BYTES]
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "log.h"
#include "meter.h"

#define CALLERS_MAX 64u
#define INTENTS_MAX 64u
#define PAGE 4096u
#define RAW_SIZE (16u << 20)

static const struct shape {
    const char *name;
    unsigned callers, intents;
} shapes[] = {
    {"1 caller, 1 intent", 1, 1},
    {"1 caller, 64 intents", 1, 64},
    {"16 callers, 1 intent", 16, 1},
    {"64 callers, 64 intents", 64, 64},
};

struct bench {
    char dir[4000];
    double seconds;
    size_t changes_size; /* for each call */
    struct spb_log log;
    struct spb_audit *audit;
    atomic_uint_fast64_t commits;
    uint64_t longest_ns; /* of a commit; the audit's thread's, read between rounds */
};

struct caller {
    struct bench *bench;
    const struct shape *shape;
    unsigned number;
    struct bench_run run;
    pthread_t thread;
};

static void note_commit(void *user, int64_t commit_ns, size_t intents)
{
    struct bench *bench = user;

    atomic_fetch_add(&bench->commits, intents > 0);
    if ((uint64_t)commit_ns > bench->longest_ns)
        bench->longest_ns = (uint64_t)commit_ns;
}

static void *call(void *user)
{
    static const uint8_t changes[INTENTS_MAX * PAGE], request_id[SPB_AUDIT_REQUEST_ID_SIZE] = {1};
    struct caller *caller = user;
    struct spb_intent intents[INTENTS_MAX];
    struct spb_intent_group group = {.kind = SPB_GROUP_CHANGES,
                                     .image_id = caller->number + 1,
                                     .tenant = 1,
                                     .image_name = "bench",
                                     .changes = changes,
                                     .changes_size =
                                         caller->bench->changes_size * caller->shape->intents,
                                     .intents = intents,
                                     .count = caller->shape->intents};
    struct spb_open_group *open;
    struct spb_error err;
    uint64_t started_ns;

    for (unsigned i = 0; i < INTENTS_MAX; i++)
        intents[i] = (struct spb_intent){.principal_tenant = 1,
                                         .principal = "uid 1000",
                                         .method = "Params.Put",
                                         .request_id = request_id,
                                         .first_change = i,
                                         .change_count = 1,
                                         .object = "param 1234",
                                         .before = "generation 41, 32 bytes, CRC 1234abcd",
                                         .after = "generation 42, 32 bytes, CRC 5678cdef",
                                         .response = (const uint8_t *)"\x08\x2a",
                                         .response_size = 2};
    while (!bench_run_is_over(&caller->run, started_ns = bench_now_ns())) {
        group.number++;
        if (!spb_is_ok(spb_audit_begin(caller->bench->audit, &group, &open, &err))) {
            bench_run_fail(&caller->run, "%s", err.text);
            return NULL;
        }
        bench_run_note(&caller->run, started_ns, bench_now_ns());
        spb_audit_end(open, SPB_OUTCOME_DONE, NULL, 0);
    }
    return NULL;
}

struct figures {
    double rate, p50_us, p99_us, cpu_us, commit_rate, longest_ms;
};

static double cpu_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void sum_up(const struct caller *callers, const struct shape *shape, double seconds,
                   struct figures *out)
{
    static struct bench_histogram all;

    memset(&all, 0, sizeof all);
    for (unsigned i = 0; i < shape->callers; i++) {
        const struct bench_histogram *one = &callers[i].run.latencies;

        for (size_t b = 0; b < BENCH_BUCKETS; b++)
            all.buckets[b] += one->buckets[b];
        all.count += one->count;
    }
    out->rate = (double)all.count / seconds;
    out->p50_us = (double)bench_histogram_quantile(&all, 0.5) / 1e3;
    out->p99_us = (double)bench_histogram_quantile(&all, 0.99) / 1e3;
}

static bool measure_audit(struct bench *bench, const struct shape *shape, struct figures *out)
{
    static struct caller callers[CALLERS_MAX];
    uint64_t commits = atomic_load(&bench->commits);
    double cpu = cpu_us();

    bench->longest_ns = 0;
    for (unsigned i = 0; i < shape->callers; i++) {
        callers[i] = (struct caller){.bench = bench, .shape = shape, .number = i};
        bench_run_start(&callers[i].run, bench->seconds);
        if (pthread_create(&callers[i].thread, NULL, call, &callers[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < shape->callers; i++) {
        (void)pthread_join(callers[i].thread, NULL);
        if (callers[i].run.failures > 0) {
            (void)fprintf(stderr, "bench_audit: %s\n", callers[i].run.first_failure);
            return false;
        }
    }
    sum_up(callers, shape, bench->seconds, out);
    out->cpu_us =
        (cpu_us() - cpu) / (out->rate * bench->seconds * 1.1 * (double)shape->intents + 1.0);
    out->commit_rate = (double)(atomic_load(&bench->commits) - commits) / (bench->seconds * 1.1);
    out->longest_ms = (double)bench->longest_ns / 1e6;
    return out->rate > 0.0;
}

/* A page written over in a file that has its space, then fdatasync: what a log of no size costs. */
static bool measure_raw(struct bench *bench, double *rate)
{
    static uint8_t page[PAGE];
    static struct bench_run run;
    char path[4096];
    uint64_t at = 0, started_ns;
    bool good = true;

    (void)snprintf(path, sizeof path, "%s/bench_audit.XXXXXX", bench->dir);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0 || unlink(path) != 0)
        return false;
    for (uint64_t i = 0; i < RAW_SIZE && good; i += PAGE)
        good = pwrite(fd, page, PAGE, (off_t)i) == (ssize_t)PAGE;
    good = good && fsync(fd) == 0;
    bench_run_start(&run, bench->seconds / 2);
    while (good && !bench_run_is_over(&run, started_ns = bench_now_ns())) {
        page[0]++;
        good = pwrite(fd, page, PAGE, (off_t)at) == (ssize_t)PAGE && fdatasync(fd) == 0;
        bench_run_note(&run, started_ns, bench_now_ns());
        at = (at + PAGE) % RAW_SIZE;
    }
    (void)close(fd);
    *rate = (double)run.latencies.count / (bench->seconds / 2);
    return good && *rate > 0.0;
}

static bool measure(struct bench *bench, const struct shape *shape, unsigned rounds)
{
    struct figures best = {.rate = 0}, figures;
    double raw, raw_sum = 0, ratio_sum = 0, longest_ms = 0;

    for (unsigned i = 0; i < rounds; i++) {
        if (!measure_raw(bench, &raw) || !measure_audit(bench, shape, &figures)) {
            (void)fprintf(stderr, "bench_audit: measuring %s failed: %s\n", shape->name,
                          strerror(errno));
            return false;
        }
        raw_sum += raw;
        ratio_sum += figures.rate / raw;
        longest_ms = figures.longest_ms > longest_ms ? figures.longest_ms : longest_ms;
        if (figures.rate > best.rate)
            best = figures;
    }
    printf("{\"shape\": \"%s\", \"calls\": %.0f, \"groups\": %.0f, \"commits\": %.0f, "
           "\"p50_us\": %.0f, \"p99_us\": %.0f, \"cpu_us\": %.2f, \"longest_commit_ms\": %.1f, "
           "\"raw_flushes\": %.0f, \"ratio\": %.2f}",
           shape->name, best.rate * shape->intents, best.rate, best.commit_rate, best.p50_us,
           best.p99_us, best.cpu_us, longest_ms, raw_sum / rounds, ratio_sum / rounds);
    return true;
}

static void remove_audit(const char *path)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char name[4200];

    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        (void)snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        (void)unlink(name);
    }
}

int main(int argc, char **argv)
{
    static struct bench bench = {.log = {.level = SPB_LOG_WARN, .fd = STDERR_FILENO}};
    struct spb_audit_options options = {
        .outcome_delay_ms = 1000, .log = &bench.log, .observe = note_commit, .user = &bench};
    unsigned rounds = (unsigned)bench_number(argc, argv, "--rounds", 3, 1, 1000);
    struct spb_error err;
    char path[4096];
    bool good = true;

    bench.seconds = bench_number(argc, argv, "--seconds", 1, 0.01, 3600);
    bench.changes_size = (size_t)bench_number(argc, argv, "--changes", 256, 0, PAGE);
    (void)snprintf(bench.dir, sizeof bench.dir, "%s", bench_option(argc, argv, "--dir", "."));
    (void)snprintf(path, sizeof path, "%s/bench_audit.%d.db", bench.dir, (int)getpid());
    options.path = path;
    if (!spb_is_ok(spb_audit_open(&options, &bench.audit, &err))) {
        (void)fprintf(stderr, "bench_audit: %s\n", err.text);
        return 1;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && good; i++) {
        (void)printf("%s", i == 0 ? "[" : ",\n ");
        good = measure(&bench, &shapes[i], rounds);
    }
    (void)printf("]\n");
    spb_audit_close(bench.audit);
    remove_audit(path);
    return good ? 0 : 1;
}
