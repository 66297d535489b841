/* A guest's life: starts, the stop ladder, endings, restarts. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "unit/life_kit.h"

#define EXIT(code) ((code) << 8)

static unsigned event(struct bench *b, const char *name, const char *json)
{
    json_t *data = json_loads(json, 0, NULL);
    unsigned actions =
        give(b, (struct spb_life_input){.what = SPB_LIFE_QMP, .text = name, .data = data});

    json_decref(data);
    return actions;
}

static unsigned leave(struct bench *b, int wait_status)
{
    return give(b, (struct spb_life_input){
                       .what = SPB_LIFE_EXITED, .has_status = true, .wait_status = wait_status});
}

/* From its turn on. */
static void go_on(struct bench *b)
{
    DOES(tell(b, SPB_LIFE_PLACE, NULL), SPB_DO_PREPARE);
    DOES(tell(b, SPB_LIFE_PREPARED, NULL), SPB_DO_SPAWN);
    DOES_NOT(tell(b, SPB_LIFE_SPAWNED, NULL), SPB_DO_STARTED);
    is(b, SPB_LIFE_STARTING, SPB_ENDING_NONE);
    DOES(tell(b, SPB_LIFE_STATUS, "prelaunch"), SPB_DO_CONTINUE);
    DOES(tell(b, SPB_LIFE_CONTINUED, NULL), SPB_DO_STARTED | SPB_DO_RECORD);
    is(b, SPB_LIFE_RUNNING, SPB_ENDING_NONE);
}

static struct bench started(enum spb_life_restart restart)
{
    struct bench b = make(restart);

    DOES(tell(&b, SPB_LIFE_START, NULL), SPB_DO_QUEUE);
    go_on(&b);
    return b;
}

static void power_off(struct bench *b)
{
    DOES(event(b, "SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}"), SPB_DO_QUIT);
    DOES(leave(b, EXIT(0)), SPB_DO_RELEASE);
}

/* ---- Starts ------------------------------------------------------------------------------- */

Test(life, of_one_that_powers_off)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    cr_assert_eq(b.life.run, 1);
    cr_assert_neq(b.life.started_ms, 0);
    power_off(&b);
    /* Its images are not back yet. */
    is(&b, SPB_LIFE_STOPPING, SPB_ENDING_POWEROFF);
    unsigned actions = tell(&b, SPB_LIFE_RELEASED, NULL);
    DOES(actions, SPB_DO_IDLE | SPB_DO_RECORD);
    DOES_NOT(actions, SPB_DO_QUEUE | SPB_DO_NOT_STARTED);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_POWEROFF);
    cr_assert(b.life.has_exit && b.life.exit_status == 0);
    cr_assert_not(b.life.wants_run);
    cr_assert_eq(spb_life_next_ns(&b.life), 0, "one that stopped costs nothing");
    cr_assert_str_eq(b.life.reason, "powered off");
}

Test(life, start_of_one_that_runs_changes_nothing)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    cr_assert_eq(tell(&b, SPB_LIFE_START, NULL), (unsigned)SPB_DO_STARTED);
    cr_assert_eq(b.life.run, 1);
}

Test(life, preparation_that_fails)
{
    struct bench b = make(SPB_LIFE_RESTART_ALWAYS);

    (void)tell(&b, SPB_LIFE_START, NULL);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    DOES(tell(&b, SPB_LIFE_FAILED, "no image 1/x"), SPB_DO_RELEASE);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED | SPB_DO_IDLE);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_NOT_STARTED);
    cr_assert_str_eq(b.life.reason, "no image 1/x");
    /* The call was told so: nothing goes on behind its back. */
    cr_assert_not(b.life.wants_run);
    cr_assert_eq(spb_life_next_ns(&b.life), 0);
}

Test(life, qemu_that_ends_before_it_answers)
{
    struct bench b = make(SPB_LIFE_RESTART_NEVER);

    (void)tell(&b, SPB_LIFE_START, NULL);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    (void)tell(&b, SPB_LIFE_PREPARED, NULL);
    (void)tell(&b, SPB_LIFE_SPAWNED, NULL);
    DOES(give(&b, (struct spb_life_input){.what = SPB_LIFE_EXITED,
                                          .has_status = true,
                                          .wait_status = EXIT(1),
                                          .text = "could not load kernel"}),
         SPB_DO_RELEASE);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_NOT_STARTED);
    cr_assert_str_eq(b.life.reason, "QEMU ended with exit code 1: could not load kernel");
    cr_assert_eq(b.life.exit_status, 1);
}

Test(life, monitor_that_does_not_answer)
{
    struct bench b = make(SPB_LIFE_RESTART_NEVER);

    (void)tell(&b, SPB_LIFE_START, NULL);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    (void)tell(&b, SPB_LIFE_PREPARED, NULL);
    (void)tell(&b, SPB_LIFE_SPAWNED, NULL);
    int64_t before = b.now_ns;
    DOES(pass(&b), SPB_DO_KILL);
    cr_assert_eq(b.now_ns - before, usual.start_ns);
    (void)leave(&b, SIGKILL);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_NOT_STARTED);
    cr_assert_not_null(strstr(b.life.reason, "did not answer within 1000 ms"), "%s", b.life.reason);
    cr_assert_eq(b.life.exit_status, -SIGKILL);
}

Test(life, monitor_that_breaks_the_protocol)
{
    struct bench b = make(SPB_LIFE_RESTART_NEVER);

    (void)tell(&b, SPB_LIFE_START, NULL);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    (void)tell(&b, SPB_LIFE_PREPARED, NULL);
    (void)tell(&b, SPB_LIFE_SPAWNED, NULL);
    DOES(give(&b,
              (struct spb_life_input){.what = SPB_LIFE_BROKEN, .text = "QMP: x", .at_once = true}),
         SPB_DO_KILL);
    (void)leave(&b, SIGKILL);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_NOT_STARTED);
    cr_assert_str_eq(b.life.reason, "its monitor failed: QMP: x");
}

Test(life, monitor_that_fails_later)
{
    struct bench b = started(SPB_LIFE_RESTART_ON_FAILURE);

    DOES(give(&b,
              (struct spb_life_input){.what = SPB_LIFE_BROKEN, .text = "QMP: x", .at_once = true}),
         SPB_DO_KILL);
    (void)leave(&b, SIGKILL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_CRASHED);
    cr_assert_str_eq(b.life.reason, "its monitor failed: QMP: x");
}

Test(life, end_of_the_monitor_is_mostly_the_end_of_qemu)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    DOES_NOT(tell(&b, SPB_LIFE_BROKEN, "QMP: closed"), SPB_DO_KILL);
    (void)give(&b, (struct spb_life_input){
                       .what = SPB_LIFE_EXITED, .has_status = true, .wait_status = SIGSEGV});
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_CRASHED);
    cr_assert_str_eq(b.life.reason, "QEMU ended by signal 11");

    /* One that goes on without a monitor is ended. */
    b = started(SPB_LIFE_RESTART_NEVER);
    (void)tell(&b, SPB_LIFE_BROKEN, "QMP: closed");
    DOES(pass(&b), SPB_DO_KILL);
    (void)leave(&b, SIGKILL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_CRASHED);
    cr_assert_str_eq(b.life.reason, "its monitor failed: QMP: closed");
}

/* ---- Signs of life ------------------------------------------------------------------------ */

Test(life, no_sign_of_life_is_told_and_no_more)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    cr_assert_eq(pass(&b), (unsigned)SPB_DO_LOOK);
    DOES(tell(&b, SPB_LIFE_NO_SIGN, NULL), SPB_DO_RECORD);
    is(&b, SPB_LIFE_RUNNING, SPB_ENDING_NONE);
    cr_assert_not_null(strstr(b.life.reason, "no sign of life"), "%s", b.life.reason);
    cr_assert_not(b.life.alive);
    cr_assert_eq(spb_life_next_ns(&b.life), 0);
    DOES(tell(&b, SPB_LIFE_SIGN, NULL), SPB_DO_RECORD);
    cr_assert(b.life.alive);
    cr_assert_str_eq(b.life.reason, "");
    cr_assert_eq(tell(&b, SPB_LIFE_SIGN, NULL), 0, "one sign is enough");
}

Test(life, sign_of_life_ends_the_deadline)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    cr_assert_eq(spb_life_next_ns(&b.life), b.now_ns + usual.boot_ns);
    DOES(tell(&b, SPB_LIFE_SIGN, NULL), SPB_DO_RECORD);
    cr_assert_eq(spb_life_next_ns(&b.life), 0, "a running guest costs no wake-ups");
}

/* ---- The stop ladder ---------------------------------------------------------------------- */

Test(life, ladder_to_its_end)
{
    struct bench b = started(SPB_LIFE_RESTART_ALWAYS);
    int64_t begin = b.now_ns;

    DOES(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_BUTTON | SPB_DO_RECORD);
    is(&b, SPB_LIFE_STOPPING, SPB_ENDING_NONE);
    DOES(pass(&b), SPB_DO_QUIT);
    cr_assert_eq(b.now_ns - begin, usual.stop_ns);
    DOES(pass(&b), SPB_DO_KILL);
    cr_assert_eq(b.now_ns - begin, usual.stop_ns + usual.quit_ns);
    (void)leave(&b, SIGKILL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_STOPPED);
    cr_assert_eq(b.life.exit_status, -SIGKILL);
    cr_assert_str_eq(b.life.reason, "killed, since QEMU did not quit");
    cr_assert_eq(spb_life_next_ns(&b.life), 0, "never again after a stop by a call");
}

Test(life, button_that_is_heeded)
{
    struct bench b = started(SPB_LIFE_RESTART_ALWAYS);

    (void)tell(&b, SPB_LIFE_STOP, NULL);
    power_off(&b);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_POWEROFF);
    cr_assert_str_eq(b.life.reason, "powered off, when it was to stop");
}

Test(life, asking_again_hurries_and_never_delays)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);
    struct spb_life_input soon = {.what = SPB_LIFE_STOP, .stop_ns = 500 * MS};
    struct spb_life_input late = {.what = SPB_LIFE_STOP, .stop_ns = 100000 * MS};
    struct spb_life_input now = {.what = SPB_LIFE_STOP, .stop_ns = 0};

    (void)tell(&b, SPB_LIFE_STOP, NULL);
    (void)give(&b, soon);
    cr_assert_eq(spb_life_next_ns(&b.life), b.now_ns + 500 * MS);
    (void)give(&b, late);
    cr_assert_eq(spb_life_next_ns(&b.life), b.now_ns + 500 * MS);
    DOES(give(&b, now), SPB_DO_QUIT);
    DOES_NOT(give(&b, soon), SPB_DO_BUTTON);
}

Test(life, kill_at_once)
{
    struct bench b = started(SPB_LIFE_RESTART_ALWAYS);

    DOES(tell(&b, SPB_LIFE_KILL, NULL), SPB_DO_KILL | SPB_DO_RECORD);
    (void)leave(&b, SIGKILL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_STOPPED);
    cr_assert_str_eq(b.life.reason, "killed by a call");
    cr_assert_not(b.life.wants_run);
}

/* An ephemeral one, when its daemon is stopped. */
static struct bench drained(enum spb_life_restart restart)
{
    struct bench b = started(restart);

    DOES(tell(&b, SPB_LIFE_DRAIN, NULL), SPB_DO_KILL | SPB_DO_RECORD);
    (void)leave(&b, SIGKILL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    cr_assert_str_eq(b.life.reason, "ended with the daemon");
    return b;
}

Test(life, one_that_ends_with_its_daemon)
{
    struct bench b = drained(SPB_LIFE_RESTART_NEVER);

    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_STOPPED);
    cr_assert_not(b.life.wants_run);
    b = drained(SPB_LIFE_RESTART_ON_FAILURE);
    is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_STOPPED);
    cr_assert(b.life.wants_run);
    b = drained(SPB_LIFE_RESTART_ALWAYS);
    is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_STOPPED);

    /* What was asked for before, and what it did itself, count. */
    b = started(SPB_LIFE_RESTART_ALWAYS);
    (void)tell(&b, SPB_LIFE_STOP, NULL);
    (void)tell(&b, SPB_LIFE_DRAIN, NULL);
    (void)leave(&b, SIGKILL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_STOPPED);
    b = started(SPB_LIFE_RESTART_ON_FAILURE);
    (void)event(&b, "SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    (void)tell(&b, SPB_LIFE_DRAIN, NULL);
    (void)leave(&b, EXIT(0));
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_POWEROFF);
}

Test(life, kill_of_one_that_does_not_quit)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    (void)event(&b, "SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    DOES(tell(&b, SPB_LIFE_KILL, NULL), SPB_DO_KILL);
    (void)leave(&b, SIGKILL);
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_POWEROFF);
}

Test(life, panic_while_it_stops)
{
    struct bench b = started(SPB_LIFE_RESTART_ALWAYS);

    (void)tell(&b, SPB_LIFE_STOP, NULL);
    DOES(event(&b, "GUEST_PANICKED", "{\"action\": \"pause\"}"), SPB_DO_QUIT);
    (void)leave(&b, EXIT(0));
    (void)tell(&b, SPB_LIFE_RELEASED, NULL);
    is(&b, SPB_LIFE_CRASHED, SPB_ENDING_PANIC);
    cr_assert_eq(spb_life_next_ns(&b.life), 0);
}

Test(life, stop_before_its_turn)
{
    struct bench b = make(SPB_LIFE_RESTART_ALWAYS);

    (void)tell(&b, SPB_LIFE_START, NULL);
    DOES(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_UNQUEUE | SPB_DO_NOT_STARTED | SPB_DO_IDLE);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_NOT_STARTED);
    cr_assert_eq(tell(&b, SPB_LIFE_PLACE, NULL), 0);
}

Test(life, stop_while_it_is_prepared)
{
    struct bench b = make(SPB_LIFE_RESTART_ALWAYS);

    (void)tell(&b, SPB_LIFE_START, NULL);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    DOES_NOT(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_KILL | SPB_DO_RELEASE);
    unsigned actions = tell(&b, SPB_LIFE_PREPARED, NULL);
    DOES(actions, SPB_DO_RELEASE);
    DOES_NOT(actions, SPB_DO_SPAWN);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED | SPB_DO_IDLE);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_NOT_STARTED);
}

Test(life, stop_while_it_connects)
{
    struct bench b = make(SPB_LIFE_RESTART_ALWAYS);

    (void)tell(&b, SPB_LIFE_START, NULL);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    (void)tell(&b, SPB_LIFE_PREPARED, NULL);
    (void)tell(&b, SPB_LIFE_SPAWNED, NULL);
    DOES(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_KILL);
    DOES_NOT(tell(&b, SPB_LIFE_STATUS, "prelaunch"), SPB_DO_CONTINUE);
    (void)leave(&b, SIGKILL);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_STOPPED);
}

Test(life, start_of_one_that_is_being_stopped)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    (void)tell(&b, SPB_LIFE_STOP, NULL);
    DOES_NOT(tell(&b, SPB_LIFE_START, NULL), SPB_DO_STARTED);
    power_off(&b);
    unsigned actions = tell(&b, SPB_LIFE_RELEASED, NULL);
    DOES(actions, SPB_DO_QUEUE);
    DOES_NOT(actions, SPB_DO_NOT_STARTED | SPB_DO_IDLE);
    go_on(&b);
    cr_assert_eq(b.life.run, 2);

    /* What was asked last holds. */
    (void)tell(&b, SPB_LIFE_STOP, NULL);
    (void)tell(&b, SPB_LIFE_START, NULL);
    (void)tell(&b, SPB_LIFE_STOP, NULL);
    power_off(&b);
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_IDLE);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_POWEROFF);
}

/* A call that waits for a start is answered, whatever others ask. */
Test(life, start_that_others_call_off)
{
    static const enum spb_life_event offs[] = {SPB_LIFE_STOP, SPB_LIFE_KILL};

    for (size_t i = 0; i < sizeof(offs) / sizeof(offs[0]); i++) {
        struct bench b = started(SPB_LIFE_RESTART_ALWAYS);

        (void)tell(&b, SPB_LIFE_STOP, NULL);
        DOES_NOT(tell(&b, SPB_LIFE_START, NULL), SPB_DO_STARTED);
        (void)tell(&b, offs[i], NULL);
        (void)leave(&b, SIGKILL);
        DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED | SPB_DO_IDLE);
        is(&b, SPB_LIFE_STOPPED, SPB_ENDING_STOPPED);
        /* Once: the next run is nobody's. */
        DOES(tell(&b, SPB_LIFE_START, NULL), SPB_DO_QUEUE);
        go_on(&b);
        power_off(&b);
        DOES_NOT(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    }
}

/* ---- Restarts ----------------------------------------------------------------------------- */

static void crash(struct bench *b)
{
    DOES(leave(b, SIGKILL), SPB_DO_RELEASE);
    (void)tell(b, SPB_LIFE_RELEASED, NULL);
}

Test(life, policies)
{
    static const struct {
        enum spb_life_restart restart;
        const char *event, *data;
        bool again;
    } cases[] = {
        {SPB_LIFE_RESTART_NEVER, "GUEST_PANICKED", "{}", false},
        {SPB_LIFE_RESTART_ON_FAILURE, "GUEST_PANICKED", "{}", true},
        {SPB_LIFE_RESTART_ON_FAILURE, "SHUTDOWN", "{\"reason\": \"guest-shutdown\"}", false},
        {SPB_LIFE_RESTART_ON_FAILURE, "SHUTDOWN", "{\"reason\": \"guest-reset\"}", false},
        {SPB_LIFE_RESTART_ALWAYS, "SHUTDOWN", "{\"reason\": \"guest-shutdown\"}", true},
        {SPB_LIFE_RESTART_ALWAYS, "SHUTDOWN", "{\"reason\": \"guest-reset\"}", true},
        {SPB_LIFE_RESTART_ALWAYS, "SHUTDOWN", "{\"reason\": \"host-signal\"}", true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench b = started(cases[i].restart);

        DOES(event(&b, cases[i].event, cases[i].data), SPB_DO_QUIT);
        (void)leave(&b, EXIT(0));
        (void)tell(&b, SPB_LIFE_RELEASED, NULL);
        cr_assert_eq(b.life.state == SPB_LIFE_BACKOFF, cases[i].again, "case %zu", i);
        cr_assert_eq(b.life.wants_run, cases[i].again, "case %zu", i);
        cr_assert_eq(spb_life_counts(&b.life), cases[i].again);
        cr_assert_not(spb_life_is_busy(&b.life));
    }
}

Test(life, backoff_grows_to_its_cap)
{
    static const int64_t wanted_ms[] = {100, 200, 400, 800, 1000, 1000};
    struct bench b = started(SPB_LIFE_RESTART_ON_FAILURE);

    for (size_t i = 0; i < sizeof(wanted_ms) / sizeof(wanted_ms[0]); i++) {
        crash(&b);
        is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_CRASHED);
        int64_t waits = spb_life_next_ns(&b.life) - b.now_ns;
        cr_assert(waits <= wanted_ms[i] * MS && waits > wanted_ms[i] * MS - MS, "%zu: %lld", i,
                  (long long)waits);
        cr_assert_eq(b.life.crash_loop, i + 1 >= SPB_LIFE_LOOP_RUNS);
        cr_assert_neq(b.life.restart_at_ms, 0);
        DOES(pass(&b), SPB_DO_QUEUE);
        cr_assert_eq(b.life.restarts, i + 1);
        cr_assert_eq(b.life.restart_at_ms, 0);
        go_on(&b);
    }
}

Test(life, backoff_has_jitter)
{
    struct bench b = started(SPB_LIFE_RESTART_ON_FAILURE);

    b.random = 0;
    crash(&b);
    cr_assert_eq(spb_life_next_ns(&b.life) - b.now_ns, 50 * MS);
    (void)pass(&b);
    go_on(&b);
    b.random = UINT32_C(1) << 31;
    crash(&b);
    cr_assert_eq(spb_life_next_ns(&b.life) - b.now_ns, 150 * MS);
}

Test(life, healthy_run_ends_a_crash_loop)
{
    struct bench b = started(SPB_LIFE_RESTART_ON_FAILURE);

    for (int i = 0; i < 5; i++) {
        crash(&b);
        (void)pass(&b);
        go_on(&b);
    }
    cr_assert(b.life.crash_loop);
    (void)tell(&b, SPB_LIFE_SIGN, NULL);
    int64_t begin = b.now_ns;
    DOES(pass(&b), SPB_DO_RECORD);
    cr_assert_eq(b.now_ns - begin, usual.healthy_ns);
    cr_assert_not(b.life.crash_loop);
    cr_assert_eq(b.life.restarts, 5, "they are counted since the call");
    crash(&b);
    cr_assert_leq(spb_life_next_ns(&b.life) - b.now_ns, 100 * MS);
    cr_assert_not(b.life.crash_loop);
}

Test(life, restart_that_cannot_be_is_tried_again)
{
    struct bench b = started(SPB_LIFE_RESTART_ON_FAILURE);

    crash(&b);
    (void)pass(&b);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    (void)tell(&b, SPB_LIFE_FAILED, "no kernel");
    DOES_NOT(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_NOT_STARTED);
    cr_assert_str_eq(b.life.reason, "no kernel");
}

Test(life, start_during_a_restart_that_fails)
{
    struct bench b = started(SPB_LIFE_RESTART_ON_FAILURE);

    crash(&b);
    (void)pass(&b);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    DOES_NOT(tell(&b, SPB_LIFE_START, NULL), SPB_DO_STARTED);
    (void)tell(&b, SPB_LIFE_FAILED, "no kernel");
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    /* The policy holds as before. */
    is(&b, SPB_LIFE_BACKOFF, SPB_ENDING_NOT_STARTED);
    (void)pass(&b);
    (void)tell(&b, SPB_LIFE_PLACE, NULL);
    (void)tell(&b, SPB_LIFE_FAILED, "no kernel");
    DOES_NOT(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
}

Test(life, calls_end_a_pause_before_a_restart)
{
    struct bench b = started(SPB_LIFE_RESTART_ALWAYS);

    crash(&b);
    DOES(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_RECORD);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_CRASHED);
    cr_assert_eq(spb_life_next_ns(&b.life), 0);

    b = started(SPB_LIFE_RESTART_ALWAYS);
    crash(&b);
    DOES(tell(&b, SPB_LIFE_START, NULL), SPB_DO_QUEUE);
    cr_assert_eq(b.life.restarts, 0);
    go_on(&b);
}

/* ---- Pauses ------------------------------------------------------------------------------- */

Test(life, qemu_holds_the_processors)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    (void)event(&b, "BLOCK_IO_ERROR", "{\"action\": \"report\", \"reason\": \"x\"}");
    cr_assert_str_eq(b.life.reason, "");
    (void)event(&b, "BLOCK_IO_ERROR",
                "{\"action\": \"stop\", \"reason\": \"No space left on device\"}");
    DOES(event(&b, "STOP", "{}"), SPB_DO_RECORD);
    is(&b, SPB_LIFE_PAUSED, SPB_ENDING_NONE);
    cr_assert_str_eq(b.life.reason, "a disk failed on the host: No space left on device");
    (void)event(&b, "RESUME", "{}");
    is(&b, SPB_LIFE_RUNNING, SPB_ENDING_NONE);
    cr_assert_str_eq(b.life.reason, "");
}

static struct bench paused(void)
{
    struct bench b = started(SPB_LIFE_RESTART_NEVER);

    (void)tell(&b, SPB_LIFE_SIGN, NULL);
    (void)event(&b, "BLOCK_IO_ERROR", "{\"action\": \"stop\", \"reason\": \"full\"}");
    (void)event(&b, "STOP", "{}");
    return b;
}

Test(life, start_of_a_paused_one)
{
    struct bench b = paused();

    unsigned actions = tell(&b, SPB_LIFE_START, NULL);
    DOES(actions, SPB_DO_CONTINUE);
    DOES_NOT(actions, SPB_DO_STARTED);
    (void)event(&b, "RESUME", "{}");
    cr_assert_eq(tell(&b, SPB_LIFE_CONTINUED, NULL), 0, "it may be paused again");
    DOES_NOT(tell(&b, SPB_LIFE_START, NULL), SPB_DO_CONTINUE | SPB_DO_STARTED);
    DOES(pass(&b), SPB_DO_STARTED);
    is(&b, SPB_LIFE_RUNNING, SPB_ENDING_NONE);
    cr_assert_str_eq(b.life.reason, "");
    cr_assert_eq(spb_life_next_ns(&b.life), 0);
    cr_assert_eq(b.life.run, 1);
}

Test(life, start_of_a_paused_one_that_is_paused_again)
{
    struct bench b = paused();

    for (int i = 0; i < 2; i++) {
        DOES(tell(&b, SPB_LIFE_START, NULL), SPB_DO_CONTINUE);
        (void)tell(&b, SPB_LIFE_CONTINUED, NULL);
        (void)event(&b, "RESUME", "{}");
        (void)event(&b, "BLOCK_IO_ERROR", "{\"action\": \"stop\", \"reason\": \"still\"}");
        DOES(event(&b, "STOP", "{}"), SPB_DO_NOT_STARTED | SPB_DO_RECORD);
        is(&b, SPB_LIFE_PAUSED, SPB_ENDING_NONE);
        cr_assert_str_eq(b.life.reason, "a disk failed on the host: still");
        cr_assert_eq(spb_life_next_ns(&b.life), 0);
    }
    DOES(tell(&b, SPB_LIFE_START, NULL), SPB_DO_CONTINUE);
    DOES(tell(&b, SPB_LIFE_REFUSED, "no"), SPB_DO_NOT_STARTED | SPB_DO_RECORD);
    is(&b, SPB_LIFE_PAUSED, SPB_ENDING_NONE);
    cr_assert_str_eq(b.life.reason, "QEMU does not go on: no");

    /* A monitor that says nothing does not keep the call. */
    DOES(tell(&b, SPB_LIFE_START, NULL), SPB_DO_CONTINUE);
    DOES(pass(&b), SPB_DO_NOT_STARTED);
}

Test(life, stop_of_a_paused_one)
{
    struct bench b = paused();

    unsigned actions = tell(&b, SPB_LIFE_STOP, NULL);
    DOES(actions, SPB_DO_QUIT);
    DOES_NOT(actions, SPB_DO_BUTTON);

    /* Also where a call waits for it to go on: that is told that it does not. */
    b = paused();
    (void)tell(&b, SPB_LIFE_START, NULL);
    DOES(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_QUIT);
    (void)leave(&b, EXIT(0));
    DOES(tell(&b, SPB_LIFE_RELEASED, NULL), SPB_DO_NOT_STARTED);
    is(&b, SPB_LIFE_STOPPED, SPB_ENDING_STOPPED);

    /* And where it is paused while it stops. */
    b = started(SPB_LIFE_RESTART_NEVER);
    DOES(tell(&b, SPB_LIFE_STOP, NULL), SPB_DO_BUTTON);
    DOES(event(&b, "STOP", "{}"), SPB_DO_QUIT);
}

/* ---- Anything, in any order --------------------------------------------------------------- */

/* Whatever comes: at most one QEMU, and what is asked of the outside makes sense. */
Test(life, random_inputs)
{
    static const char *const texts[] = {"running", "prelaunch", "shutdown",
                                        "paused",  "SHUTDOWN",  "GUEST_PANICKED",
                                        "STOP",    "RESUME",    NULL};
    uint64_t state = 88172645463325252u;

    for (int round = 0; round < 300; round++) {
        struct bench b = make((enum spb_life_restart)(1 + round % 3));
        int qemus = 0, prepared = 0;
        bool waits = false; /* a call, for a start */

        for (int i = 0; i < 400; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            struct spb_life_input input = {
                .what = (enum spb_life_event)(state % (SPB_LIFE_TIME + 1)),
                .text = texts[(state >> 8) % 9],
                .stop_ns = (state >> 16) % 3 == 0 ? 0 : -1,
                .at_once = (state >> 20) % 2,
                .has_status = (state >> 21) % 2,
                .wait_status = (int)((state >> 22) % 3) * 9,
            };
            b.now_ns += (int64_t)(state >> 40) % 1000 * MS + MS;
            if (input.what == SPB_LIFE_EXITED)
                qemus = 0;
            if (input.what == SPB_LIFE_SPAWNED && b.life.phase == SPB_PHASE_PREPARING)
                qemus++;
            unsigned actions = give(&b, input);
            if ((actions & SPB_DO_PREPARE) != 0)
                prepared++;
            if ((actions & SPB_DO_RELEASE) != 0)
                prepared--;
            waits |= input.what == SPB_LIFE_START;
            waits &= (actions & (SPB_DO_STARTED | SPB_DO_NOT_STARTED)) == 0;
            cr_assert(!waits || b.life.phase != SPB_PHASE_IDLE, "a start was not answered");
            cr_assert(qemus <= 1);
            cr_assert(prepared == 0 || prepared == 1, "%d prepared", prepared);
            cr_assert(memchr(b.life.reason, '\0', sizeof(b.life.reason)) != NULL);
            cr_assert(b.life.phase != SPB_PHASE_IDLE || b.life.state != SPB_LIFE_STOPPING);
            cr_assert(b.life.phase != SPB_PHASE_IDLE || b.life.step_at_ns == 0);
        }
    }
}
