/*
 * The metrics in Prometheus' text format 0.0.4, with what is read only when it is asked for: the
 * state of images, queues, uploads, and the process itself. Takes locks briefly and reads files of
 * /proc: never on the loop's thread.
 */
#ifndef SPB_SERVER_METRICS_TEXT_H
#define SPB_SERVER_METRICS_TEXT_H

#include <stdio.h>

#include "metrics.h"

struct spb_daemon;

/* Bounds of the buckets but for the last one, which has none. */
extern const uint64_t spb_metrics_time_bounds_ns[SPB_METRICS_BUCKETS - 1];
extern const uint64_t spb_metrics_size_bounds[SPB_METRICS_BUCKETS - 1];

/* All of them; what fails to be written shows in the stream's error flag. */
void spb_metrics_write(struct spb_daemon *daemon, FILE *out);

#endif
