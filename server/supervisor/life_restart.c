/* What an ending means for what comes after it; see life_restart.h. */
#include "supervisor/life_restart.h"

#define RANDOM_RANGE (UINT64_C(1) << 32)

enum spb_life_state spb_life_state_at_end(const struct spb_life *life)
{
    switch (life->ending) {
    case SPB_ENDING_PANIC:
    case SPB_ENDING_CRASHED:
        return SPB_LIFE_CRASHED;
    case SPB_ENDING_NOT_STARTED:
        return life->stage == SPB_STAGE_KILL && !life->broken ? SPB_LIFE_STOPPED : SPB_LIFE_CRASHED;
    case SPB_ENDING_LOST:
        return life->wants_run ? SPB_LIFE_LOST : SPB_LIFE_STOPPED;
    default:
        return SPB_LIFE_STOPPED;
    }
}

bool spb_life_is_restarted(const struct spb_life *life, enum spb_life_state at_end)
{
    if (!life->wants_run || life->rules.restart == SPB_LIFE_RESTART_NEVER)
        return false;
    /* A call that was answered with a failure has left nothing behind it. */
    if (life->by_call && !life->had_run)
        return false;
    /* Nor has one ended well that went with its daemon. */
    bool failed =
        at_end != SPB_LIFE_STOPPED || (life->is_drained && life->ending == SPB_ENDING_STOPPED);
    return life->rules.restart == SPB_LIFE_RESTART_ALWAYS || failed;
}

int64_t spb_life_backoff_ns(const struct spb_life *life, uint32_t random)
{
    int64_t ns = life->rules.backoff_ns;

    for (uint32_t i = 1; i < life->short_runs && ns < life->rules.backoff_max_ns; i++)
        ns *= 2;
    if (ns > life->rules.backoff_max_ns)
        ns = life->rules.backoff_max_ns;
    return ns / 2 + (int64_t)((uint64_t)(ns - ns / 2) * random / RANDOM_RANGE);
}
