/* Clock, histogram and report of the load generators. See meter.h. */
#include "meter.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Up to 64 ns a bucket each; above, the six bits after the leading one choose the bucket. */
static size_t bucket_of(uint64_t ns)
{
    unsigned shift;
    size_t index;

    if (ns < BENCH_STEPS)
        return (size_t)ns;
    shift = 63u - (unsigned)__builtin_clzll(ns) - 6u;
    index = (size_t)(shift + 1u) * BENCH_STEPS + (size_t)((ns >> shift) - BENCH_STEPS);
    return index < BENCH_BUCKETS ? index : BENCH_BUCKETS - 1u;
}

/* The middle of a bucket. */
static uint64_t bucket_ns(size_t index)
{
    uint64_t shift, base;

    if (index < BENCH_STEPS)
        return index;
    shift = index / BENCH_STEPS - 1u;
    base = (BENCH_STEPS + index % BENCH_STEPS) << shift;
    return base + ((UINT64_C(1) << shift) >> 1);
}

void bench_histogram_add(struct bench_histogram *h, uint64_t ns)
{
    h->buckets[bucket_of(ns)]++;
    h->count++;
}

uint64_t bench_histogram_quantile(const struct bench_histogram *h, double share)
{
    uint64_t wanted = (uint64_t)((double)h->count * share + 0.5);
    uint64_t seen = 0;

    for (size_t i = 0; i < BENCH_BUCKETS && h->count > 0; i++) {
        seen += h->buckets[i];
        if (seen >= wanted && seen > 0)
            return bucket_ns(i);
    }
    return 0;
}

static uint64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void bench_run_start(struct bench_run *run, double seconds)
{
    uint64_t length_ns = (uint64_t)(seconds * 1e9);

    memset(run, 0, sizeof *run);
    run->begin_ns = bench_now_ns() + length_ns / 10u;
    run->end_ns = run->begin_ns + length_ns;
    run->warm = true;
}

bool bench_run_is_over(struct bench_run *run, uint64_t now_ns)
{
    if (run->warm && now_ns >= run->begin_ns) {
        run->warm = false;
        run->cpu_begin_ns = cpu_ns();
    }
    return now_ns >= run->end_ns;
}

void bench_run_note(struct bench_run *run, uint64_t started_ns, uint64_t ended_ns)
{
    if (started_ns >= run->begin_ns && ended_ns <= run->end_ns)
        bench_histogram_add(&run->latencies, ended_ns - started_ns);
}

void bench_run_fail(struct bench_run *run, const char *format, ...)
{
    va_list args;

    if (run->failures++ > 0)
        return;
    va_start(args, format);
    (void)vsnprintf(run->first_failure, sizeof run->first_failure, format, args);
    va_end(args);
}

int bench_run_report(const struct bench_run *run)
{
    double seconds = (double)(run->end_ns - run->begin_ns) / 1e9;
    double calls = (double)run->latencies.count;
    double cpu_us = run->warm ? 0.0 : (double)(cpu_ns() - run->cpu_begin_ns) / 1e3;

    printf("{\"calls\": %.0f, \"rate\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"client_cpu_us\": %.2f, \"failures\": %llu}\n",
           calls, calls / seconds, (double)bench_histogram_quantile(&run->latencies, 0.5) / 1e3,
           (double)bench_histogram_quantile(&run->latencies, 0.99) / 1e3,
           calls > 0.0 ? cpu_us / calls : 0.0, (unsigned long long)run->failures);
    if (run->failures > 0)
        (void)fprintf(stderr, "%llu calls failed; the first: %s\n",
                      (unsigned long long)run->failures, run->first_failure);
    else if (run->latencies.count == 0)
        (void)fprintf(stderr, "no call ended within %.3f s\n", seconds);
    return run->failures > 0 || run->latencies.count == 0;
}

const char *bench_option(int argc, char **argv, const char *name, const char *fallback)
{
    const char *value = fallback;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], name) == 0)
            value = argv[i + 1];
    }
    return value;
}

double bench_number(int argc, char **argv, const char *name, double fallback, double least,
                    double most)
{
    const char *text = bench_option(argc, argv, name, NULL);
    char *end = NULL;
    double value;

    if (text == NULL)
        return fallback;
    value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        (void)fprintf(stderr, "%s: found \"%s\", expected a number from %g to %g\n", name, text,
                      least, most);
        exit(2);
    }
    return value;
}
