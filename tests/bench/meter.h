/*
 * What every load generator here shares: the monotonic clock, a histogram of latencies in constant
 * memory, a run's window of time, command line numbers, and the one line of JSON that a generator
 * prints. Single-threaded.
 */
#ifndef SPB_BENCH_METER_H
#define SPB_BENCH_METER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Each power of two of nanoseconds is divided into this many buckets: 1.6 % of resolution. */
#define BENCH_STEPS 64u
#define BENCH_BUCKETS (BENCH_STEPS * 40u)

struct bench_histogram {
    uint64_t buckets[BENCH_BUCKETS];
    uint64_t count;
};

static inline uint64_t bench_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void bench_histogram_add(struct bench_histogram *h, uint64_t ns);
/* The latency that the given share (0 to 1) of all samples does not exceed, ns; 0 of none. */
uint64_t bench_histogram_quantile(const struct bench_histogram *h, double share);

/*
 * A run: calls that begin from begin_ns on and end by end_ns count; those before warm the system
 * up, and none is started after end_ns.
 */
struct bench_run {
    uint64_t begin_ns, end_ns;
    uint64_t cpu_begin_ns; /* of this process */
    bool warm;
    uint64_t failures; /* of any time, warming up included */
    char first_failure[256];
    struct bench_histogram latencies;
};

/* Starts the clock; a tenth of seconds is spent on warming up beforehand. */
void bench_run_start(struct bench_run *run, double seconds);
bool bench_run_is_over(struct bench_run *run, uint64_t now_ns);
void bench_run_note(struct bench_run *run, uint64_t started_ns, uint64_t ended_ns);
void bench_run_fail(struct bench_run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Prints the figures as one line of JSON; the exit status of main: 0, or 1 if any call failed or
 * none succeeded. */
int bench_run_report(const struct bench_run *run);

/* The value of "--name VALUE" on the command line, or fallback. Values are the last one's. */
const char *bench_option(int argc, char **argv, const char *name, const char *fallback);
/* The same as a number within [least, most]; otherwise says so on stderr and exits with 2. */
double bench_number(int argc, char **argv, const char *name, double fallback, double least,
                    double most);

#endif
