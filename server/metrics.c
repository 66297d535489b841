/* What the daemon counts; see metrics.h. Any thread. */
#include "metrics.h"

#include <stdlib.h>

#include "base/status.h"
#include "dispatch.h"
#include "metrics_text.h"
#include "util.h"

/* Upper bounds; the last bucket has none. */
const uint64_t spb_metrics_time_bounds_ns[SPB_METRICS_BUCKETS - 1] = {
    UINT64_C(10000),      UINT64_C(25000),       UINT64_C(50000),       UINT64_C(100000),
    UINT64_C(250000),     UINT64_C(500000),      UINT64_C(1000000),     UINT64_C(2500000),
    UINT64_C(5000000),    UINT64_C(10000000),    UINT64_C(25000000),    UINT64_C(50000000),
    UINT64_C(100000000),  UINT64_C(250000000),   UINT64_C(500000000),   UINT64_C(1000000000),
    UINT64_C(2500000000), UINT64_C(10000000000), UINT64_C(60000000000),
};
const uint64_t spb_metrics_size_bounds[SPB_METRICS_BUCKETS - 1] = {
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 4096,
};

/* Of a number that one thread alone writes: a plain addition, which readers see whole. */
static void add_alone(_Atomic(uint64_t) *number, uint64_t n)
{
    uint64_t before = atomic_load_explicit(number, memory_order_relaxed);

    atomic_store_explicit(number, before + n, memory_order_relaxed);
}

static size_t bucket_of(const uint64_t *bounds, uint64_t value)
{
    size_t low = 0, high = SPB_METRICS_BUCKETS - 1;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (value <= bounds[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void observe(struct spb_histogram *histogram, const uint64_t *bounds, uint64_t value)
{
    size_t bucket = bucket_of(bounds, value);

    atomic_fetch_add_explicit(&histogram->buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum, value, memory_order_relaxed);
}

static void observe_time(struct spb_histogram *histogram, int64_t ns)
{
    observe(histogram, spb_metrics_time_bounds_ns, ns > 0 ? (uint64_t)ns : 0);
}

spb_status spb_metrics_new(const struct spb_method *methods, size_t count, struct spb_metrics **out,
                           struct spb_error *err)
{
    struct spb_metrics *metrics = calloc(1, sizeof(*metrics));

    if (metrics != NULL) {
        metrics->methods = methods;
        metrics->method_count = count;
        metrics->calls = calloc(count + 1, sizeof(*metrics->calls));
        metrics->latency = calloc(count + 1, sizeof(*metrics->latency));
    }
    if (metrics == NULL || metrics->calls == NULL || metrics->latency == NULL) {
        spb_metrics_free(metrics);
        return spb_fail_memory(err, "making the metrics");
    }
    *out = metrics;
    return spb_ok();
}

void spb_metrics_free(struct spb_metrics *metrics)
{
    if (metrics == NULL)
        return;
    free(metrics->calls);
    free(metrics->latency);
    free(metrics);
}

void spb_metrics_observe_call(struct spb_metrics *metrics, const struct spb_method *method,
                              int32_t code, int64_t ns)
{
    if (metrics == NULL)
        return;
    size_t row = method == NULL ? metrics->method_count : (size_t)(method - metrics->methods);

    SPB_ASSERT(row <= metrics->method_count && code >= 0 && code < (int32_t)SPB_METRICS_CODES);
    uint64_t took_ns = ns > 0 ? (uint64_t)ns : 0;
    struct spb_histogram *latency = &metrics->latency[row];
    add_alone(&metrics->calls[row][code], 1);
    add_alone(&latency->buckets[bucket_of(spb_metrics_time_bounds_ns, took_ns)], 1);
    add_alone(&latency->sum, took_ns);
}

void spb_metrics_observe_group(struct spb_metrics *metrics, size_t size)
{
    if (metrics != NULL)
        observe(&metrics->group_size, spb_metrics_size_bounds, size);
}

void spb_metrics_observe_flush(struct spb_metrics *metrics, int64_t ns)
{
    if (metrics != NULL)
        observe_time(&metrics->flush, ns);
}

void spb_metrics_observe_audit(struct spb_metrics *metrics, int64_t ns)
{
    if (metrics != NULL)
        observe_time(&metrics->audit, ns);
}

void spb_metrics_count(struct spb_metrics *metrics, enum spb_counter counter, uint64_t n)
{
    if (metrics != NULL)
        add_alone(&metrics->counters[counter], n);
}

void spb_metrics_add(struct spb_metrics *metrics, enum spb_gauge gauge, int64_t change)
{
    if (metrics != NULL)
        atomic_fetch_add_explicit(&metrics->gauges[gauge], change, memory_order_relaxed);
}

void spb_metrics_set(struct spb_metrics *metrics, enum spb_gauge gauge, int64_t value)
{
    if (metrics != NULL)
        atomic_store_explicit(&metrics->gauges[gauge], value, memory_order_relaxed);
}

void spb_metrics_refuse(struct spb_metrics *metrics, enum spb_refusal why)
{
    if (metrics != NULL)
        add_alone(&metrics->refusals[why], 1);
}
