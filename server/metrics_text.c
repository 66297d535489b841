/* The metrics as text; see metrics_text.h. The HTTP listener's thread. */
#include "metrics_text.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "registry.h"
#include "supervisor/guests.h"
#include "uploads.h"
#include "util.h"

#define PREFIX "spaceblock_"

static const char *const code_names[SPB_METRICS_CODES] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

static const char *const refusal_names[SPB_REFUSALS] = {
    [SPB_REFUSED_CONNECTIONS] = "connections_max",
    [SPB_REFUSED_DESCRIPTORS] = "descriptors",
    [SPB_REFUSED_PEER] = "unknown_peer",
    [SPB_REFUSED_FIRST_FRAME] = "first_frame",
    [SPB_REFUSED_SLOW_FRAME] = "slow_frame",
    [SPB_REFUSED_IDLE] = "idle",
    [SPB_REFUSED_STALLED] = "output_stalled",
    [SPB_REFUSED_OUTPUT] = "output_max",
    [SPB_REFUSED_MEMORY] = "memory",
    [SPB_REFUSED_PROTOCOL] = "protocol",
    [SPB_REFUSED_LARGE_FRAME] = "frame_size",
    [SPB_REFUSED_CALLS] = "calls_in_flight",
};

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    (void)fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(FILE *out, const char *name, const char *type, const char *help, int64_t value)
{
    head(out, name, type, help);
    (void)fprintf(out, "%s %" PRId64 "\n", name, value);
}

static uint64_t load(const _Atomic(uint64_t) *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

static void counter(FILE *out, const struct spb_metrics *metrics, enum spb_counter which,
                    const char *name, const char *help)
{
    single(out, name, "counter", help, (int64_t)load(&metrics->counters[which]));
}

static void gauge(FILE *out, const struct spb_metrics *metrics, enum spb_gauge which,
                  const char *name, const char *help)
{
    single(out, name, "gauge", help,
           atomic_load_explicit(&metrics->gauges[which], memory_order_relaxed));
}

/* ---- Histograms --------------------------------------------------------------------------- */

/* labels: "a=\"b\"" or "". The sum and the bounds are divided by unit. */
static void histogram(FILE *out, const char *name, const char *labels,
                      const struct spb_histogram *from, const uint64_t *bounds, double unit)
{
    uint64_t seen = 0;
    const char *comma = *labels == '\0' ? "" : ",";

    for (size_t i = 0; i + 1 < SPB_METRICS_BUCKETS; i++) {
        seen += load(&from->buckets[i]);
        (void)fprintf(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, labels, comma,
                      (double)bounds[i] / unit, seen);
    }
    seen += load(&from->buckets[SPB_METRICS_BUCKETS - 1]);
    (void)fprintf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, comma, seen);
    if (*labels == '\0')
        (void)fprintf(out, "%s_sum %.9g\n%s_count %" PRIu64 "\n", name,
                      (double)load(&from->sum) / unit, name, seen);
    else
        (void)fprintf(out, "%s_sum{%s} %.9g\n%s_count{%s} %" PRIu64 "\n", name, labels,
                      (double)load(&from->sum) / unit, name, labels, seen);
}

static void times(FILE *out, const char *name, const char *help, const struct spb_histogram *from)
{
    head(out, name, "histogram", help);
    histogram(out, name, "", from, spb_metrics_time_bounds_ns, 1e9);
}

/* ---- Calls -------------------------------------------------------------------------------- */

static void method_labels(const struct spb_metrics *metrics, size_t row, char *text, size_t size)
{
    bool known = row < metrics->method_count;

    (void)snprintf(text, size, "service=\"%s\",method=\"%s\"",
                   known ? metrics->methods[row].service : "unknown",
                   known ? metrics->methods[row].name : "unknown");
}

static void write_calls(FILE *out, const struct spb_metrics *metrics)
{
    const char *calls = PREFIX "rpc_calls_total", *latency = PREFIX "rpc_duration_seconds";
    char labels[200];

    head(out, calls, "counter", "Calls answered, by method and canonical code.");
    for (size_t row = 0; row <= metrics->method_count; row++) {
        method_labels(metrics, row, labels, sizeof(labels));
        for (size_t code = 0; code < SPB_METRICS_CODES; code++) {
            uint64_t count = load(&metrics->calls[row][code]);

            if (count > 0 || code == 0)
                (void)fprintf(out, "%s{%s,code=\"%s\"} %" PRIu64 "\n", calls, labels,
                              code_names[code], count);
        }
    }
    head(out, latency, "histogram",
         "From taking up a request's frame to having its answer, by method.");
    for (size_t row = 0; row <= metrics->method_count; row++) {
        method_labels(metrics, row, labels, sizeof(labels));
        histogram(out, latency, labels, &metrics->latency[row], spb_metrics_time_bounds_ns, 1e9);
    }
}

static void write_connections(FILE *out, struct spb_daemon *daemon)
{
    const struct spb_metrics *metrics = daemon->metrics;
    const char *refusals = PREFIX "refusals_total";

    gauge(out, metrics, SPB_GAUGE_CONNECTIONS, PREFIX "connections", "Connections open.");
    counter(out, metrics, SPB_COUNT_CONNECTIONS, PREFIX "connections_accepted_total",
            "Connections taken.");
    counter(out, metrics, SPB_COUNT_BYTES_IN, PREFIX "received_bytes_total",
            "Bytes read from connections.");
    counter(out, metrics, SPB_COUNT_BYTES_OUT, PREFIX "sent_bytes_total",
            "Bytes written to connections.");
    gauge(out, metrics, SPB_GAUGE_CALLS, PREFIX "calls_in_flight", "Calls begun and not answered.");
    gauge(out, metrics, SPB_GAUGE_BUFFERS, PREFIX "buffers_bytes",
          "Memory of requests and answers, counted against buffers_max_bytes.");
    single(out, PREFIX "buffers_limit_bytes", "gauge", "The limit buffers_max_bytes.",
           (int64_t)SPB_LIMIT(daemon, buffers_max_bytes));
    gauge(out, metrics, SPB_GAUGE_WAITING, PREFIX "connections_waiting",
          "Connections that wait for such memory.");
    head(out, refusals, "counter",
         "Connections refused or closed, and calls refused, at a limit, by which.");
    for (size_t i = 0; i < SPB_REFUSALS; i++)
        (void)fprintf(out, "%s{reason=\"%s\"} %" PRIu64 "\n", refusals, refusal_names[i],
                      load(&metrics->refusals[i]));
}

/* ---- Images ------------------------------------------------------------------------------- */

#define PAGE 256u
#define STATES 7u

static const char *const state_names[STATES] = {
    [SPB_IMAGE_READY] = "ready",
    [SPB_IMAGE_READ_ONLY] = "read_only",
    [SPB_IMAGE_DAMAGED] = "damaged",
    [SPB_IMAGE_UNAVAILABLE] = "unavailable",
    [SPB_IMAGE_QUARANTINED] = "quarantined",
    [SPB_IMAGE_DELETED] = "deleted",
    [SPB_IMAGE_ATTACHED] = "attached",
};

struct tally {
    uint64_t states[STATES];
    uint64_t queued, longest;
};

static void tally_one(struct tally *tally, struct spb_image *image)
{
    uint64_t queued = spb_actor_depth(&image->actor);
    enum spb_image_state state = spb_image_state(image);

    if ((size_t)state < STATES)
        tally->states[state]++;
    tally->queued += queued;
    if (queued > tally->longest)
        tally->longest = queued;
}

static void tally_images(struct spb_registry *registry, struct tally *tally)
{
    struct spb_image *images[PAGE];
    struct spb_registry_place place = {.tenant = -1};
    char after[SPB_IMAGE_NAME_MAX + 1];
    size_t n;

    do {
        n = spb_registry_list(registry, &place, images, PAGE);
        for (size_t i = 0; i < n; i++)
            tally_one(tally, images[i]);
        if (n > 0) {
            (void)snprintf(after, sizeof(after), "%s", images[n - 1]->name);
            place.after_tenant = images[n - 1]->tenant;
            place.after_name = after;
        }
        for (size_t i = 0; i < n; i++)
            spb_image_unref(images[i]);
    } while (n == PAGE);
}

static void write_images(FILE *out, struct spb_daemon *daemon)
{
    const struct spb_metrics *metrics = daemon->metrics;
    const char *images = PREFIX "images", *sizes = PREFIX "group_operations";
    struct tally tally = {.queued = 0};

    tally_images(daemon->registry, &tally);
    head(out, images, "gauge", "Images, by state.");
    for (size_t i = 0; i < STATES; i++)
        (void)fprintf(out, "%s{state=\"%s\"} %" PRIu64 "\n", images, state_names[i],
                      tally.states[i]);
    single(out, PREFIX "queued_operations", "gauge", "Operations queued for images, and taken.",
           (int64_t)tally.queued);
    single(out, PREFIX "queued_operations_longest", "gauge", "The same of the busiest image.",
           (int64_t)tally.longest);
    head(out, sizes, "histogram", "Operations of a group that was made durable at once.");
    histogram(out, sizes, "", &metrics->group_size, spb_metrics_size_bounds, 1);
    times(out, PREFIX "group_carry_out_seconds", "Writing and flushing a group to its image.",
          &metrics->flush);
    times(out, PREFIX "audit_commit_seconds", "Making a transaction of the audit durable.",
          &metrics->audit);
    single(out, PREFIX "uploads", "gauge", "Uploads open.",
           (int64_t)spb_uploads_count(daemon->uploads));
}

static void write_watches(FILE *out, const struct spb_metrics *metrics)
{
    gauge(out, metrics, SPB_GAUGE_WATCHERS, PREFIX "watchers", "Watches that wait for events.");
    counter(out, metrics, SPB_COUNT_WATCH_PASSES, PREFIX "watch_passes_total",
            "Passes over new events of an image that watches wait for.");
    counter(out, metrics, SPB_COUNT_WATCH_ENCODINGS, PREFIX "watch_encodings_total",
            "Answers that passes encoded, each for all watches that ask for the same.");
    counter(out, metrics, SPB_COUNT_WATCH_ANSWERS, PREFIX "watch_answers_total",
            "Watches that passes answered.");
}

static void write_scrubs(FILE *out, const struct spb_metrics *metrics)
{
    const char *scrubs = PREFIX "scrubs_total";

    gauge(out, metrics, SPB_GAUGE_SCRUBS_RUNNING, PREFIX "scrubs_running",
          "1 while an image is scrubbed.");
    gauge(out, metrics, SPB_GAUGE_IMAGES_ROTTEN, PREFIX "images_rotten",
          "Images whose last scrub found something.");
    head(out, scrubs, "counter", "Scrubs that have ended.");
    (void)fprintf(out,
                  "%s{outcome=\"done\"} %" PRIu64 "\n%s{outcome=\"ended_early\"} %" PRIu64 "\n",
                  scrubs, load(&metrics->counters[SPB_COUNT_SCRUBS]), scrubs,
                  load(&metrics->counters[SPB_COUNT_SCRUBS_FAILED]));
    counter(out, metrics, SPB_COUNT_SCRUB_BYTES, PREFIX "scrub_bytes_total",
            "Bytes that scrubs have read again.");
    counter(out, metrics, SPB_COUNT_SCRUB_FINDINGS, PREFIX "scrub_findings_total",
            "Findings of scrubs that were not known from the scrub before.");
}

static void write_guests(FILE *out, struct spb_guests *guests)
{
    const char *name = PREFIX "guests";
    uint64_t counts[SPB_LIFE_STATES];

    spb_guests_tally(guests, counts);
    head(out, name, "gauge", "Guests, by state.");
    for (unsigned state = SPB_LIFE_CREATED; state < SPB_LIFE_STATES; state++)
        (void)fprintf(out, "%s{state=\"%s\"} %" PRIu64 "\n", name,
                      spb_life_state_word((enum spb_life_state)state), counts[state]);
    single(out, PREFIX "guest_restarts_total", "counter", "Guests started again by themselves.",
           (int64_t)load(&guests->restarts));
    single(out, PREFIX "guest_console_bytes_total", "counter", "Bytes that guests have printed.",
           (int64_t)load(&guests->console_bytes));
}

/* ---- The process -------------------------------------------------------------------------- */

static int64_t count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int64_t count = -1; /* the one that reads them */

    if (folder == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count += entry->d_name[0] != '.';
    (void)closedir(folder);
    return count;
}

/* Pages: all, and in memory. */
static void read_pages(int64_t *all, int64_t *resident)
{
    FILE *file = fopen("/proc/self/statm", "re");
    char line[128], *rest = line;

    if (file == NULL)
        return;
    if (fgets(line, sizeof(line), file) != NULL) {
        *all = strtoll(line, &rest, 10);
        *resident = strtoll(rest, NULL, 10);
    }
    (void)fclose(file);
}

static double cpu_seconds(void)
{
    struct timespec used = {.tv_sec = 0};

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static double start_seconds(const struct spb_daemon *daemon)
{
    struct timespec now = {.tv_sec = 0};
    double up = (double)(spb_now_ns() - daemon->start_ns) / 1e9;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 - up;
}

static void write_process(FILE *out, const struct spb_daemon *daemon)
{
    struct rlimit descriptors = {.rlim_cur = 0};
    int64_t all = 0, resident = 0, page = sysconf(_SC_PAGESIZE);

    read_pages(&all, &resident);
    (void)getrlimit(RLIMIT_NOFILE, &descriptors);
    single(out, "process_resident_memory_bytes", "gauge", "Resident memory.", resident * page);
    single(out, "process_virtual_memory_bytes", "gauge", "Virtual memory.", all * page);
    single(out, "process_open_fds", "gauge", "Open file descriptors.", count_descriptors());
    single(out, "process_max_fds", "gauge", "Limit of open file descriptors.",
           (int64_t)descriptors.rlim_cur);
    head(out, "process_cpu_seconds_total", "counter", "Processor time.");
    (void)fprintf(out, "process_cpu_seconds_total %.6f\n", cpu_seconds());
    head(out, "process_start_time_seconds", "gauge", "When it started, since the epoch.");
    (void)fprintf(out, "process_start_time_seconds %.3f\n", start_seconds(daemon));
}

void spb_metrics_write(struct spb_daemon *daemon, FILE *out)
{
    const struct spb_metrics *metrics = daemon->metrics;
    const char *info = PREFIX "build_info", *reloads = PREFIX "config_reloads_total";

    head(out, info, "gauge", "The version, as a label.");
    (void)fprintf(out, "%s{version=\"%s\"} 1\n", info, SPB_VERSION);
    single(out, PREFIX "draining", "gauge", "1 while it ends.", daemon->draining);
    head(out, reloads, "counter", "Reloads of the configuration.");
    (void)fprintf(out, "%s{outcome=\"done\"} %" PRIu64 "\n%s{outcome=\"failed\"} %" PRIu64 "\n",
                  reloads, load(&metrics->counters[SPB_COUNT_RELOADS]), reloads,
                  load(&metrics->counters[SPB_COUNT_RELOADS_FAILED]));
    counter(out, metrics, SPB_COUNT_LOOP_TURNS, PREFIX "loop_turns_total",
            "Turns of the event loop.");
    counter(out, metrics, SPB_COUNT_HTTP_REQUESTS, PREFIX "http_requests_total",
            "Requests of the HTTP listener.");
    write_connections(out, daemon);
    write_calls(out, metrics);
    write_images(out, daemon);
    write_watches(out, metrics);
    write_scrubs(out, metrics);
    write_guests(out, daemon->guests);
    write_process(out, daemon);
}
