/* Whether a call is tried again, and after how long. No I/O, no clock. */
#include "retry_policy.h"

#include <string.h>

#include "base/status.h"
#include "clock.h"

#define COST 100u /* hundredths */
#define RPC_ABORTED 10
#define RPC_UNAVAILABLE 14

void spb_retry_policy_init(struct spb_retry_policy *policy,
                           const struct spb_client_options *options, uint64_t seed)
{
    *policy = (struct spb_retry_policy){
        .base_ns = options->backoff_base_ms * SPB_NS_PER_MS,
        .cap_ns = options->backoff_cap_ms * SPB_NS_PER_MS,
        .jitter_percent = options->jitter_percent,
        .earn_percent = options->retry_percent,
        .burst = options->retry_burst,
        .random = seed,
        .savings_percent = (uint64_t)options->retry_burst * COST,
    };
}

void spb_retry_policy_earn(struct spb_retry_policy *policy)
{
    uint64_t most = (uint64_t)policy->burst * COST;

    policy->savings_percent += policy->earn_percent;
    if (policy->savings_percent > most)
        policy->savings_percent = most;
}

bool spb_retry_policy_spend(struct spb_retry_policy *policy)
{
    if (policy->savings_percent < COST)
        return false;
    policy->savings_percent -= COST;
    return true;
}

/* A Weyl sequence through a mixer (the generator known as splitmix64): any seed serves, 0 too. */
static uint64_t next_random(struct spb_retry_policy *policy)
{
    uint64_t z = policy->random += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* 0 to most, both included. The bias of the remainder is below one in 2^20 for delays of hours. */
static int64_t random_up_to(struct spb_retry_policy *policy, int64_t most)
{
    return (int64_t)(next_random(policy) % ((uint64_t)most + 1));
}

static int64_t grown(const struct spb_retry_policy *policy, unsigned failures)
{
    int64_t delay = policy->base_ns;

    while (failures > 0 && delay < policy->cap_ns) {
        delay = delay > policy->cap_ns / 2 ? policy->cap_ns : delay * 2;
        failures--;
    }
    return delay < policy->cap_ns ? delay : policy->cap_ns;
}

int64_t spb_retry_policy_delay_ns(struct spb_retry_policy *policy, unsigned failures,
                                  int64_t after_ms)
{
    int64_t delay = grown(policy, failures);

    /* Divided first: a delay may be as long as a hundred years. */
    delay -= random_up_to(policy, delay / 100 * policy->jitter_percent);
    if (after_ms > SPB_RETRY_AFTER_MS_MAX)
        after_ms = SPB_RETRY_AFTER_MS_MAX;
    return after_ms < 0 ? delay : delay + after_ms * SPB_NS_PER_MS;
}

bool spb_retry_can_mend(const struct spb_client_reply *reply)
{
    if (reply->rpc_code < 0)
        return reply->status.code == SPB_UNREACHABLE;
    if (reply->rpc_code == RPC_ABORTED)
        return strcmp(reply->reason, "STILL_RUNNING") == 0;
    return reply->rpc_code == RPC_UNAVAILABLE;
}
