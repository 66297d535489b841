/* What is said of a guest's life; see life.h. */
#include "supervisor/life.h"

bool spb_life_is_busy(const struct spb_life *life)
{
    return life->phase != SPB_PHASE_IDLE;
}

bool spb_life_counts(const struct spb_life *life)
{
    return spb_life_is_busy(life) || life->state == SPB_LIFE_BACKOFF;
}

bool spb_life_state_is_end(enum spb_life_state state)
{
    return state == SPB_LIFE_STOPPED || state == SPB_LIFE_CRASHED || state == SPB_LIFE_LOST;
}

const char *spb_life_state_word(enum spb_life_state state)
{
    static const char *const words[SPB_LIFE_STATES] = {
        [SPB_LIFE_CREATED] = "created",   [SPB_LIFE_STARTING] = "starting",
        [SPB_LIFE_RUNNING] = "running",   [SPB_LIFE_PAUSED] = "paused",
        [SPB_LIFE_STOPPING] = "stopping", [SPB_LIFE_STOPPED] = "stopped",
        [SPB_LIFE_CRASHED] = "crashed",   [SPB_LIFE_LOST] = "lost",
        [SPB_LIFE_BACKOFF] = "backoff",
    };

    return (unsigned)state < SPB_LIFE_STATES && words[state] != NULL ? words[state] : "unknown";
}
