/*
 * Who may take how much of the memory that all connections share. Numbers only: whoever takes
 * memory says so. One thread.
 *
 * A share may always grow to a small guarantee, so that every peer can make a small call whatever
 * the others do. Beyond that it may grow to a quarter of what is free: many greedy peers together
 * leave room for the next one, and none can take it all. So the sum stays below the budget and a
 * guarantee for each share.
 */
#ifndef SPB_SERVER_BUDGET_H
#define SPB_SERVER_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPB_BUDGET_GUARANTEE (32u * 1024) /* bytes a share */

struct spb_budget {
    uint64_t max;  /* bytes; may change at any time */
    uint64_t used; /* by all shares */
};

/* What a share that has `share` bytes may grow to. */
uint64_t spb_budget_allowance(const struct spb_budget *budget, uint64_t share);
/* May that share take so many more? */
bool spb_budget_may_take(const struct spb_budget *budget, uint64_t share, uint64_t bytes);
/* A share has changed. */
void spb_budget_change(struct spb_budget *budget, uint64_t before, uint64_t after);

#endif
