/* The budget of memory: what one may take, and what all together never exceed. */
#include <criterion/criterion.h>

#include "budget.h"
#include "support/random.h"

#define MIB (UINT64_C(1) << 20)
#define SHARES 1024u

Test(budget, alone_one_may_have_all)
{
    struct spb_budget budget = {.max = 16 * MIB, .used = 3 * MIB};

    cr_assert(spb_budget_may_take(&budget, 3 * MIB, 13 * MIB));
    cr_assert(!spb_budget_may_take(&budget, 3 * MIB, 13 * MIB + 1));
}

Test(budget, beside_others_a_quarter_of_what_is_free)
{
    struct spb_budget budget = {.max = 16 * MIB, .used = 8 * MIB};

    cr_assert(spb_budget_may_take(&budget, 0, 2 * MIB));
    cr_assert(!spb_budget_may_take(&budget, 0, 2 * MIB + 1));
    cr_assert(spb_budget_may_take(&budget, MIB, MIB));
    cr_assert(!spb_budget_may_take(&budget, 2 * MIB, 1));
    cr_assert(!spb_budget_may_take(&budget, 5 * MIB, 1));
}

Test(budget, the_guarantee_is_always_had)
{
    struct spb_budget budget = {.max = 16 * MIB, .used = 17 * MIB};

    cr_assert(spb_budget_may_take(&budget, 0, SPB_BUDGET_GUARANTEE));
    cr_assert(!spb_budget_may_take(&budget, 0, SPB_BUDGET_GUARANTEE + 1));
    cr_assert(!spb_budget_may_take(&budget, SPB_BUDGET_GUARANTEE, 1));
    cr_assert_eq(spb_budget_allowance(&budget, MIB), SPB_BUDGET_GUARANTEE);
}

Test(budget, sums_without_overflow)
{
    struct spb_budget budget = {.max = UINT64_MAX, .used = 5};

    cr_assert(!spb_budget_may_take(&budget, 4, UINT64_MAX));
    cr_assert(spb_budget_may_take(&budget, 5, UINT64_MAX - 5));
}

/* Whoever takes what it may, in whatever order: all together stay in bounds, and a newcomer always
 * has its guarantee. */
Test(budget, greedy_shares_stay_in_bounds)
{
    static uint64_t shares[SHARES];
    struct spb_budget budget = {.max = 16 * MIB};
    uint64_t random = 42, sum = 0;

    for (int i = 0; i < 200000; i++) {
        size_t who = random_next(&random) % SHARES;
        uint64_t bytes = random_next(&random) % (i % 2 == 0 ? MIB : 2000);
        uint64_t before = shares[who];

        if (random_next(&random) % 4 == 0)
            shares[who] = 0;
        else if (spb_budget_may_take(&budget, before, bytes))
            shares[who] += bytes;
        spb_budget_change(&budget, before, shares[who]);
        sum = sum - before + shares[who];
        cr_assert_eq(budget.used, sum);
        cr_assert_leq(sum, budget.max + SHARES * (uint64_t)SPB_BUDGET_GUARANTEE);
        cr_assert(spb_budget_may_take(&budget, 0, SPB_BUDGET_GUARANTEE));
    }
}
