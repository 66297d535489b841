/*
 * What the daemon counts about itself. Written from any thread without locks: every number is an
 * atomic of its own, and there is a fixed set of them, made at the start. Read by whoever renders
 * them; numbers that belong together may be some events apart.
 *
 * What one thread alone counts it adds to plainly, which costs no locked instruction.
 * All functions accept a NULL spb_metrics and then do nothing.
 */
#ifndef SPB_SERVER_METRICS_H
#define SPB_SERVER_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

struct spb_method;

#define SPB_METRICS_CODES 17u  /* canonical codes, 0 to 16 */
#define SPB_METRICS_BUCKETS 20 /* of a histogram, the last one without a bound */

struct spb_histogram {
    _Atomic(uint64_t) buckets[SPB_METRICS_BUCKETS]; /* each its own, not cumulated */
    _Atomic(uint64_t) sum;
};

enum spb_counter {
    SPB_COUNT_BYTES_IN,
    SPB_COUNT_BYTES_OUT,
    SPB_COUNT_CONNECTIONS,
    SPB_COUNT_LOOP_TURNS,
    SPB_COUNT_RELOADS,
    SPB_COUNT_RELOADS_FAILED,
    SPB_COUNT_HTTP_REQUESTS,
    SPB_COUNT_SCRUBS, /* that were whole */
    SPB_COUNT_SCRUBS_FAILED,
    SPB_COUNT_SCRUB_BYTES,
    SPB_COUNT_SCRUB_FINDINGS,  /* that were not known from the scrub before */
    SPB_COUNT_WATCH_PASSES,    /* over new events of an image */
    SPB_COUNT_WATCH_ENCODINGS, /* of answers in passes */
    SPB_COUNT_WATCH_ANSWERS,   /* of passes */
    SPB_COUNTERS,
};

enum spb_gauge {
    SPB_GAUGE_CONNECTIONS,
    SPB_GAUGE_CALLS,    /* in flight */
    SPB_GAUGE_BUFFERS,  /* bytes of buffers_max_bytes in use */
    SPB_GAUGE_WAITING,  /* connections that wait for such memory */
    SPB_GAUGE_WATCHERS, /* watches that wait */
    SPB_GAUGE_SCRUBS_RUNNING,
    SPB_GAUGE_IMAGES_ROTTEN, /* whose last scrub found something */
    SPB_GAUGES,
};

/* Why a connection or a call of it was turned away or ended before its time. */
enum spb_refusal {
    SPB_REFUSED_CONNECTIONS, /* connections_max */
    SPB_REFUSED_DESCRIPTORS, /* none left, or only the reserve */
    SPB_REFUSED_PEER,        /* the kernel does not say who it is */
    SPB_REFUSED_FIRST_FRAME, /* first_frame_ms */
    SPB_REFUSED_SLOW_FRAME,  /* frame_ms, frame_bytes_per_s */
    SPB_REFUSED_IDLE,        /* idle_ms */
    SPB_REFUSED_STALLED,     /* output_stall_ms */
    SPB_REFUSED_OUTPUT,      /* output_max_bytes */
    SPB_REFUSED_MEMORY,      /* buffers_max_bytes, or the system has none */
    SPB_REFUSED_PROTOCOL,    /* no frame at all */
    SPB_REFUSED_LARGE_FRAME, /* a call: its frame is over the limit */
    SPB_REFUSED_CALLS,       /* a call: calls_in_flight_max */
    SPB_REFUSALS,
};

struct spb_metrics {
    const struct spb_method *methods; /* constant */
    size_t method_count;
    /* A row a method, and one for what names none. */
    _Atomic(uint64_t) (*calls)[SPB_METRICS_CODES];
    struct spb_histogram *latency;
    struct spb_histogram group_size, flush, audit;
    _Atomic(uint64_t) counters[SPB_COUNTERS];
    _Atomic(int64_t) gauges[SPB_GAUGES];
    _Atomic(uint64_t) refusals[SPB_REFUSALS];
};

SPB_MUST_USE spb_status spb_metrics_new(const struct spb_method *methods, size_t count,
                                        struct spb_metrics **metrics, struct spb_error *err);
/* Accepts NULL. */
void spb_metrics_free(struct spb_metrics *metrics);

/* The loop's thread: a call was answered. method NULL: it named none. code: canonical, 0 to 16. */
void spb_metrics_observe_call(struct spb_metrics *metrics, const struct spb_method *method,
                              int32_t code, int64_t ns);
/* So many operations were carried out as one group. */
void spb_metrics_observe_group(struct spb_metrics *metrics, size_t size);
/* That took so long: all its writes and flushes. */
void spb_metrics_observe_flush(struct spb_metrics *metrics, int64_t ns);
/* A transaction of the audit was made durable in so long. */
void spb_metrics_observe_audit(struct spb_metrics *metrics, int64_t ns);

/* Each counter is one thread's alone. */
void spb_metrics_count(struct spb_metrics *metrics, enum spb_counter counter, uint64_t n);
void spb_metrics_add(struct spb_metrics *metrics, enum spb_gauge gauge, int64_t change);
void spb_metrics_set(struct spb_metrics *metrics, enum spb_gauge gauge, int64_t value);
/* The loop's thread. */
void spb_metrics_refuse(struct spb_metrics *metrics, enum spb_refusal why);

#endif
