/* Who may take how much of the shared memory; see budget.h. */
#include "budget.h"

#include "base/status.h"

#define FREE_PARTS 4u /* a share may have one of them */

uint64_t spb_budget_allowance(const struct spb_budget *budget, uint64_t share)
{
    uint64_t left = budget->max > budget->used ? budget->max - budget->used : 0;
    /* Whoever is alone has nobody to leave room for, and would wait for nobody. */
    uint64_t grown = budget->used == share ? budget->max : left / FREE_PARTS;

    return grown > SPB_BUDGET_GUARANTEE ? grown : SPB_BUDGET_GUARANTEE;
}

bool spb_budget_may_take(const struct spb_budget *budget, uint64_t share, uint64_t bytes)
{
    uint64_t allowance = spb_budget_allowance(budget, share);

    return share < allowance && bytes <= allowance - share;
}

void spb_budget_change(struct spb_budget *budget, uint64_t before, uint64_t after)
{
    SPB_ASSERT(budget->used >= before);
    budget->used = budget->used - before + after;
}
