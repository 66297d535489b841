/*
 * Groups by time. Their numbers rise with time but where the clock was set back: clock_steps names
 * the first group of each stretch, and within a stretch time never falls. So a span of time is a
 * span of groups in each stretch, found by halving. The caller's thread, with its connection.
 */
#ifndef SPB_SERVER_AUDIT_SPANS_H
#define SPB_SERVER_AUDIT_SPANS_H

#include "audit/database.h"

/* first to last, both within; never empty. */
struct spb_span {
    int64_t first, last;
};

struct spb_spans {
    struct spb_span *spans; /* owned; rising */
    size_t count;
};

/* The groups of since_us <= time < until_us. */
SPB_MUST_USE spb_status spb_spans_find(struct spb_db *db, int64_t since_us, int64_t until_us,
                                       struct spb_spans *spans, struct spb_error *err);
/* Accepts one without any. */
void spb_spans_free(struct spb_spans *spans);

#endif
