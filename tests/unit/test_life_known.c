/* Guests that an earlier daemon left: adopted, gone, or to be started again. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "unit/life_kit.h"

/* As it was recorded by an earlier daemon. */
static struct bench known(enum spb_life_restart restart, enum spb_life_state state, bool wants_run)
{
    struct bench b = make(restart);

    b.life.state = state;
    b.life.wants_run = wants_run;
    b.life.run = 7;
    b.life.started_ms = 1700000000000u - 5000;
    b.life.alive = true;
    return b;
}

Test(life, adopted_one_goes_on)
{
    struct bench b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_RUNNING, true);

    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    is(&b, SPB_LIFE_RUNNING, SPB_ENDING_NONE);
    unsigned actions = tell(&b, SPB_LIFE_STATUS, "running");
    DOES_NOT(actions, SPB_DO_CONTINUE | SPB_DO_QUEUE | SPB_DO_BUTTON);
    is(&b, SPB_LIFE_RUNNING, SPB_ENDING_NONE);
    cr_assert(b.life.adopted);
    cr_assert_eq(b.life.run, 7, "none was restarted");
    cr_assert_eq(b.life.started_ms, 1700000000000u - 5000);
}

Test(life, adopted_one_that_has_ended)
{
    static const struct {
        const char *status;
        enum spb_ending traced;
        enum spb_life_state state;
        enum spb_ending ending;
        const char *reason;
    } cases[] = {
        {"shutdown", SPB_ENDING_POWEROFF, SPB_LIFE_STOPPED, SPB_ENDING_POWEROFF, "powered off"},
        {"shutdown", SPB_ENDING_REBOOT, SPB_LIFE_STOPPED, SPB_ENDING_REBOOT, "asked for a reboot"},
        {"shutdown", SPB_ENDING_NONE, SPB_LIFE_LOST, SPB_ENDING_LOST,
         "powered off or asked for a reboot while no daemon was there"},
        {"guest-panicked", SPB_ENDING_NONE, SPB_LIFE_CRASHED, SPB_ENDING_PANIC, "panicked"},
        {"internal-error", SPB_ENDING_NONE, SPB_LIFE_CRASHED, SPB_ENDING_CRASHED,
         "ended because QEMU failed"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench b = known(SPB_LIFE_RESTART_NEVER, SPB_LIFE_RUNNING, true);

        (void)tell(&b, SPB_LIFE_ADOPT, NULL);
        DOES(give(&b, (struct spb_life_input){.what = SPB_LIFE_STATUS,
                                              .text = cases[i].status,
                                              .traced = cases[i].traced}),
             SPB_DO_QUIT);
        (void)tell(&b, SPB_LIFE_EXITED, NULL); /* no child: how is not known */
        (void)tell(&b, SPB_LIFE_RELEASED, NULL);
        is(&b, cases[i].state, cases[i].ending);
        cr_assert_str_eq(b.life.reason, cases[i].reason);
        cr_assert_not(b.life.has_exit);
    }
}

Test(life, adopted_one_that_was_only_about_to_run)
{
    struct bench b = known(SPB_LIFE_RESTART_NEVER, SPB_LIFE_STARTING, true);

    b.life.started_ms = 0;
    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    DOES(tell(&b, SPB_LIFE_STATUS, "prelaunch"), SPB_DO_CONTINUE);
    (void)tell(&b, SPB_LIFE_CONTINUED, NULL);
    is(&b, SPB_LIFE_RUNNING, SPB_ENDING_NONE);
}

Test(life, start_of_an_adopted_one_that_does_not_get_to_run)
{
    struct bench b = known(SPB_LIFE_RESTART_NEVER, SPB_LIFE_STARTING, true);

    b.life.started_ms = 0;
    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    DOES_NOT(tell(&b, SPB_LIFE_START, NULL), SPB_DO_STARTED);
    (void)tell(&b, SPB_LIFE_EXITED, NULL);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED | SPB_DO_IDLE);
}

Test(life, adopted_one_that_is_paused)
{
    struct bench b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_PAUSED, true);

    snprintf(b.life.reason, sizeof(b.life.reason), "a disk failed on the host: full");
    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    DOES(tell(&b, SPB_LIFE_STATUS, "io-error"), SPB_DO_RECORD);
    is(&b, SPB_LIFE_PAUSED, SPB_ENDING_NONE);
    cr_assert_str_eq(b.life.reason, "a disk failed on the host: full");
    DOES(tell(&b, SPB_LIFE_START, NULL), SPB_DO_CONTINUE);

    b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_RUNNING, true);
    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    (void)tell(&b, SPB_LIFE_START, NULL);
    unsigned actions = tell(&b, SPB_LIFE_STATUS, "io-error");
    DOES(actions, SPB_DO_CONTINUE);
    DOES_NOT(actions, SPB_DO_STARTED);
    cr_assert_str_eq(b.life.reason, "a disk failed on the host");

    b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_STOPPING, false);
    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    DOES(tell(&b, SPB_LIFE_STATUS, "io-error"), SPB_DO_QUIT);
}

Test(life, adopted_one_that_was_to_stop)
{
    struct bench b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_STOPPING, false);

    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    DOES(tell(&b, SPB_LIFE_STATUS, "running"), SPB_DO_BUTTON);
    is(&b, SPB_LIFE_STOPPING, SPB_ENDING_NONE);
}

Test(life, stop_of_one_that_is_being_adopted)
{
    struct bench b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_RUNNING, true);

    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    DOES_NOT(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_KILL);
    DOES(tell(&b, SPB_LIFE_STATUS, "running"), SPB_DO_BUTTON);
}

/* As a daemon that comes later finds what this one recorded. */
static struct bench later(const struct bench *b, int64_t after_ms)
{
    struct bench next = known(SPB_LIFE_RESTART_ALWAYS, b->life.state, b->life.wants_run);

    next.now_ns = b->now_ns + after_ms * MS;
    next.life.quit_at_ms = b->life.quit_at_ms;
    next.life.stop_ms = b->life.stop_ms;
    (void)tell(&next, SPB_LIFE_ADOPT, NULL);
    return next;
}

static struct bench asked_to_stop(int64_t stop_ms)
{
    struct bench b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_RUNNING, true);

    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    (void)tell(&b, SPB_LIFE_STATUS, "running");
    DOES(give(&b, (struct spb_life_input){.what = SPB_LIFE_STOP, .stop_ns = stop_ms * MS}),
         SPB_DO_BUTTON | SPB_DO_RECORD);
    return b;
}

Test(life, ladder_holds_over_daemons)
{
    struct bench b = asked_to_stop(500), second = later(&b, 200), third = later(&second, 200);

    DOES(tell(&second, SPB_LIFE_STATUS, "running"), SPB_DO_BUTTON);
    cr_assert_eq(spb_life_next_ns(&second.life) - second.now_ns, 300 * MS);
    third = later(&second, 200);
    DOES(tell(&third, SPB_LIFE_STATUS, "running"), SPB_DO_BUTTON);
    cr_assert_eq(spb_life_next_ns(&third.life) - third.now_ns, 100 * MS);
    DOES(pass(&third), SPB_DO_QUIT);

    /* Its time has passed. */
    third = later(&second, 301);
    DOES(tell(&third, SPB_LIFE_STATUS, "running"), SPB_DO_QUIT);
    DOES(pass(&third), SPB_DO_KILL);
}

Test(life, ladder_by_a_clock_that_was_set_back)
{
    struct bench b = asked_to_stop(500), second = later(&b, -3600000);

    second.now_ns = b.now_ns + 100 * MS - 3600000 * MS;
    (void)tell(&second, SPB_LIFE_STATUS, "running");
    cr_assert_eq(spb_life_next_ns(&second.life) - second.now_ns, 500 * MS);
    /* It is counted by the new clock from there on. */
    struct bench third = later(&second, 400);
    (void)tell(&third, SPB_LIFE_STATUS, "running");
    cr_assert_eq(spb_life_next_ns(&third.life) - third.now_ns, 100 * MS);
    third = later(&second, 600);
    DOES(tell(&third, SPB_LIFE_STATUS, "running"), SPB_DO_QUIT);
}

Test(life, ladder_of_a_stop_while_it_is_adopted)
{
    struct bench b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_RUNNING, true);

    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    (void)give(&b, (struct spb_life_input){.what = SPB_LIFE_STOP, .stop_ns = 700 * MS});
    (void)give(&b, (struct spb_life_input){.what = SPB_LIFE_STOP, .stop_ns = 900 * MS});
    b.now_ns += 100 * MS;
    DOES(tell(&b, SPB_LIFE_STATUS, "running"), SPB_DO_BUTTON);
    cr_assert_eq(spb_life_next_ns(&b.life) - b.now_ns, 600 * MS);

    /* What a start called off is not taken for the time of the next stop. */
    b = asked_to_stop(500);
    b.life.wants_run = true;
    struct bench second = later(&b, 400);
    (void)tell(&second, SPB_LIFE_STATUS, "running");
    cr_assert_eq(second.life.quit_at_ms, 0);
}

Test(life, adopted_one_that_is_killed)
{
    struct bench b = known(SPB_LIFE_RESTART_NEVER, SPB_LIFE_RUNNING, true);

    (void)tell(&b, SPB_LIFE_ADOPT, NULL);
    (void)tell(&b, SPB_LIFE_STATUS, "running");
    (void)tell(&b, SPB_LIFE_EXITED, NULL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_CRASHED);
}

/* What one becomes whose QEMU is not there any more. */
static struct bench gone(enum spb_life_restart restart, enum spb_life_state state, bool wants_run)
{
    struct bench b = known(restart, state, wants_run);

    DOES(tell(&b, SPB_LIFE_GONE, NULL), SPB_DO_RELEASE);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    return b;
}

Test(life, one_that_is_gone)
{
    struct bench b = gone(SPB_LIFE_RESTART_NEVER, SPB_LIFE_RUNNING, true);

    is(&b, SPB_LIFE_LOST, SPB_ENDING_LOST);
    b = gone(SPB_LIFE_RESTART_ON_FAILURE, SPB_LIFE_RUNNING, true);
    is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_LOST);
    b = gone(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_STOPPING, false);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_LOST);
    b = gone(SPB_LIFE_RESTART_NEVER, SPB_LIFE_STARTING, true);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_NOT_STARTED);
}

/* The daemon ended between a guest's end and its images' return. */
Test(life, one_that_is_gone_and_was_seen_to_end)
{
    static const struct {
        enum spb_ending ending;
        bool wants_run;
        enum spb_life_state state;
        const char *reason;
    } cases[] = {
        {SPB_ENDING_POWEROFF, true, SPB_LIFE_STOPPED, "powered off"},
        {SPB_ENDING_PANIC, false, SPB_LIFE_CRASHED, "panicked, when it was to stop"},
        {SPB_ENDING_STOPPED, false, SPB_LIFE_STOPPED, "was stopped"},
        {SPB_ENDING_NOT_STARTED, false, SPB_LIFE_STOPPED, NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int told = 0; told < 2; told++) {
            struct bench b =
                known(SPB_LIFE_RESTART_ON_FAILURE, SPB_LIFE_STOPPING, cases[i].wants_run);

            b.life.ending = cases[i].ending;
            b.life.ended_ms = told ? 77 : 0;
            b.life.has_exit = told;
            b.life.exit_status = told ? 3 : 0;
            if (told)
                snprintf(b.life.reason, sizeof(b.life.reason), "as it was told");
            DOES(tell(&b, SPB_LIFE_GONE, NULL), SPB_DO_RELEASE);
            (void)tell(&b, SPB_LIFE_RELEASED, NULL);
            is(&b, cases[i].state, cases[i].ending);
            cr_assert_eq(spb_life_next_ns(&b.life), 0, "it is not started again");
            cr_assert_eq(b.life.exit_status, told ? 3 : 0);
            cr_assert(told ? b.life.ended_ms == 77 : b.life.ended_ms > 77);
            if (told)
                cr_assert_str_eq(b.life.reason, "as it was told");
            else if (cases[i].reason != NULL)
                cr_assert_str_eq(b.life.reason, cases[i].reason);
        }
    }

    struct bench b = known(SPB_LIFE_RESTART_ON_FAILURE, SPB_LIFE_STOPPING, true);
    b.life.ending = SPB_ENDING_PANIC;
    (void)tell(&b, SPB_LIFE_GONE, NULL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_PANIC);
}

Test(life, one_that_was_never_started_has_all_its_output_to_come)
{
    cr_assert_not(spb_life_state_is_end(SPB_LIFE_CREATED));
    cr_assert_not(spb_life_state_is_end(SPB_LIFE_BACKOFF));
    cr_assert(spb_life_state_is_end(SPB_LIFE_STOPPED));
    cr_assert(spb_life_state_is_end(SPB_LIFE_CRASHED));
    cr_assert(spb_life_state_is_end(SPB_LIFE_LOST));
}

Test(life, pause_before_a_restart_goes_on)
{
    struct bench b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_BACKOFF, true);

    b.life.restart_at_ms = 1700000000000u + (uint64_t)(b.now_ns / MS) + 300;
    (void)tell(&b, SPB_LIFE_RESUME, NULL);
    cr_assert_eq(spb_life_next_ns(&b.life), b.now_ns + 300 * MS);
    DOES(pass(&b), SPB_DO_QUEUE);

    /* A clock that was set back does not put it off for good. */
    b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_BACKOFF, true);
    b.life.restart_at_ms = 9999999999999u;
    (void)tell(&b, SPB_LIFE_RESUME, NULL);
    cr_assert_eq(spb_life_next_ns(&b.life), b.now_ns + usual.backoff_max_ns);

    b = known(SPB_LIFE_RESTART_ALWAYS, SPB_LIFE_STOPPED, false);
    cr_assert_eq(tell(&b, SPB_LIFE_RESUME, NULL), 0);
    cr_assert_eq(spb_life_next_ns(&b.life), 0);
}
