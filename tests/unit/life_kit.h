/* A guest's life with a clock of its own, for tests. */
#ifndef SPB_TESTS_UNIT_LIFE_KIT_H
#define SPB_TESTS_UNIT_LIFE_KIT_H

#include <criterion/criterion.h>

#include "supervisor/life.h"

#define MS INT64_C(1000000)

static const struct spb_life_rules usual = {
    .restart = SPB_LIFE_RESTART_NEVER,
    .start_ns = 1000 * MS,
    .boot_ns = 5000 * MS,
    .stop_ns = 2000 * MS,
    .quit_ns = 300 * MS,
    .backoff_ns = 100 * MS,
    .backoff_max_ns = 1000 * MS,
    .healthy_ns = 60000 * MS,
};

/* A life and its clock, of which a second is one of UNIX too. */
struct bench {
    struct spb_life life;
    int64_t now_ns;
    uint32_t random;
};

static struct bench make(enum spb_life_restart restart)
{
    struct spb_life_rules rules = usual;
    struct bench b = {.now_ns = 1000 * MS, .random = UINT32_MAX};

    rules.restart = restart;
    spb_life_init(&b.life, &rules);
    return b;
}

static unsigned give(struct bench *b, struct spb_life_input input)
{
    input.now_ns = b->now_ns;
    input.now_ms = 1700000000000u + (uint64_t)(b->now_ns / MS);
    input.random = b->random;
    return spb_life_step(&b->life, &input);
}

static unsigned tell(struct bench *b, enum spb_life_event what, const char *text)
{
    return give(b, (struct spb_life_input){.what = what, .text = text, .stop_ns = -1});
}

/* To when it is due, at which it is told so. */
static unsigned pass(struct bench *b)
{
    int64_t next = spb_life_next_ns(&b->life);

    cr_assert_neq(next, 0, "nothing is due");
    cr_assert_geq(next, b->now_ns);
    b->now_ns = next;
    return tell(b, SPB_LIFE_TIME, NULL);
}

static void is(const struct bench *b, enum spb_life_state state, enum spb_ending ending)
{
    cr_assert_eq(b->life.state, state, "it is %s, not %s: %s", spb_life_state_word(b->life.state),
                 spb_life_state_word(state), b->life.reason);
    cr_assert_eq(b->life.ending, ending, "%s, not %s", spb_ending_words(b->life.ending),
                 spb_ending_words(ending));
}

#define DOES(actions, wanted) cr_assert(((actions) & (wanted)) == (wanted), "%#x", (actions))
#define DOES_NOT(actions, unwanted) cr_assert(((actions) & (unwanted)) == 0, "%#x", (actions))

#endif
