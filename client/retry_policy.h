/*
 * Whether a call is tried again, and after how long: what may be repeated, the budget, and
 * exponential backoff with jitter. No I/O, no clock; randomness comes from a seed, so that a test
 * sees the same delays each time. One thread.
 *
 * The budget keeps an outage from being amplified: a retry costs one, a call earns a part of one,
 * and no more than `burst` are kept. So of any number of calls at most burst + percent of them are
 * repeated.
 */
#ifndef SPB_CLIENT_RETRY_POLICY_H
#define SPB_CLIENT_RETRY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "spaceblock/client.h"

/* What the daemon asks for is honoured up to an hour; no call waits longer for it. */
#define SPB_RETRY_AFTER_MS_MAX (INT64_C(3600) * 1000)

struct spb_retry_policy {
    int64_t base_ns, cap_ns;  /* delay after the first failure; what it grows to */
    uint32_t jitter_percent;  /* up to so much of a delay is taken off at random; at most 100 */
    uint32_t earn_percent;    /* of a retry, for each call that is started */
    uint32_t burst;           /* retries that can be saved up; what there is at first */
    uint64_t random;          /* state of the generator */
    uint64_t savings_percent; /* hundredths of a retry */
};

/* From options that were checked. */
void spb_retry_policy_init(struct spb_retry_policy *policy,
                           const struct spb_client_options *options, uint64_t seed);

void spb_retry_policy_earn(struct spb_retry_policy *policy);
/* Spends a retry; false: none is left. */
bool spb_retry_policy_spend(struct spb_retry_policy *policy);

/*
 * How long to wait after so many failures in a row (from 0), and never less than the daemon asked
 * for (negative: it did not): then the jittered delay comes on top, as all its clients were told
 * the same.
 */
int64_t spb_retry_policy_delay_ns(struct spb_retry_policy *policy, unsigned failures,
                                  int64_t after_ms);

/* Did the call fail in a way that another attempt may mend? A lost connection, UNAVAILABLE, and
 * ABORTED of a duplicate that is still running; no other answer of the daemon. */
bool spb_retry_can_mend(const struct spb_client_reply *reply);

#endif
