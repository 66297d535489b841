/* The life of a guest; see life.h. */
#include "supervisor/life.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/status.h"
#include "supervisor/life_restart.h"

#define NS_PER_MS INT64_C(1000000)
/* Its monitor's end is mostly QEMU's: so long it may take to be seen to end. */
#define GRACE_NS (1000 * NS_PER_MS)
/* A disk that fails still is found to by then. */
#define RESUME_NS (1000 * NS_PER_MS)
#define DISK_FAILED "a disk failed on the host"

static void __attribute__((format(printf, 2, 3)))
set_reason(struct spb_life *life, const char *format, ...)
{
    char text[SPB_LIFE_REASON_SIZE];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    memcpy(life->reason, text, sizeof(text));
}

static const char *text_of(const struct spb_life_input *in)
{
    return in->text == NULL ? "" : in->text;
}

/* ---- Starts ------------------------------------------------------------------------------- */

/* A run begins; what was told of the one before is gone. Who awaits it goes on to. */
static unsigned begin(struct spb_life *life, bool by_call)
{
    life->phase = SPB_PHASE_QUEUED;
    life->stage = SPB_STAGE_NONE;
    life->state = SPB_LIFE_STARTING;
    life->ending = SPB_ENDING_NONE;
    life->has_exit = false;
    life->exit_status = 0;
    life->started_ms = life->ended_ms = life->restart_at_ms = 0;
    life->quit_at_ms = life->stop_ms = 0;
    life->alive = life->adopted = life->had_run = life->again = life->broken = false;
    life->is_killed_by_call = life->is_drained = life->resumes = false;
    life->by_call = by_call;
    life->step_at_ns = life->boot_at_ns = life->healthy_at_ns = life->restart_at_ns = 0;
    life->resume_at_ns = 0;
    set_reason(life, "%s", "");
    return SPB_DO_QUEUE | SPB_DO_RECORD;
}

static unsigned begin_by_call(struct spb_life *life)
{
    life->restarts = life->short_runs = 0;
    life->crash_loop = false;
    return begin(life, true);
}

/* QEMU tries again what failed, and holds the processors again if it fails again. */
static unsigned resume(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->resumes)
        return 0;
    life->resumes = true;
    life->resume_at_ns = in->now_ns + life->rules.start_ns;
    return SPB_DO_CONTINUE;
}

static unsigned take_start(struct spb_life *life, const struct spb_life_input *in)
{
    bool runs = life->phase == SPB_PHASE_RUNNING && life->stage == SPB_STAGE_NONE;

    life->wants_run = true;
    if (runs && life->state != SPB_LIFE_PAUSED && !life->resumes)
        return SPB_DO_STARTED;
    life->awaited = true;
    if (runs)
        return resume(life, in);
    if (life->phase == SPB_PHASE_IDLE)
        return begin_by_call(life);
    if (life->stage != SPB_STAGE_NONE || life->phase >= SPB_PHASE_ENDING) {
        life->again = true;
        return SPB_DO_RECORD;
    }
    return 0;
}

/* Whoever waits for a start is told, and waits no longer. */
static unsigned answer_starts(struct spb_life *life, enum spb_life_action answer)
{
    life->awaited = false;
    return answer;
}

/* It went on, or did not. */
static unsigned end_resuming(struct spb_life *life)
{
    bool answers = life->resumes && life->stage == SPB_STAGE_NONE;

    life->resumes = false;
    life->resume_at_ns = 0;
    if (!answers)
        return 0; /* who asked is told at its end */
    return answer_starts(life,
                         life->state == SPB_LIFE_RUNNING ? SPB_DO_STARTED : SPB_DO_NOT_STARTED);
}

/* ---- The stop ladder ---------------------------------------------------------------------- */

static unsigned quit(struct spb_life *life, const struct spb_life_input *in)
{
    life->stage = SPB_STAGE_QUIT;
    life->step_at_ns = in->now_ns + life->rules.quit_ns;
    return SPB_DO_QUIT;
}

static unsigned kill_now(struct spb_life *life)
{
    life->stage = SPB_STAGE_KILL;
    life->step_at_ns = 0;
    return SPB_DO_KILL;
}

static int64_t asked_stop_ns(const struct spb_life *life, const struct spb_life_input *in)
{
    return in->stop_ns >= 0 ? in->stop_ns : life->rules.stop_ns;
}

/* By the wall clock, which a later daemon has too. */
static void note_stop(struct spb_life *life, const struct spb_life_input *in, int64_t stop_ns)
{
    life->stop_ms = (uint64_t)(stop_ns / NS_PER_MS);
    life->quit_at_ms = in->now_ms + life->stop_ms;
}

/* The next step is not put off by asking again. None: nobody would hear the button. */
static unsigned press_button(struct spb_life *life, const struct spb_life_input *in,
                             int64_t stop_ns)
{
    int64_t at_ns = in->now_ns + stop_ns;

    life->state = SPB_LIFE_STOPPING;
    if (life->stage > SPB_STAGE_BUTTON)
        return 0;
    if (life->stage == SPB_STAGE_NONE || at_ns < life->step_at_ns) {
        life->step_at_ns = at_ns;
        note_stop(life, in, stop_ns);
    }
    if (stop_ns == 0)
        return quit(life, in);
    life->stage = SPB_STAGE_BUTTON;
    return SPB_DO_BUTTON;
}

/* Of a stop from before the daemon ended, or before its QEMU answered: what is left of its time. A
 * clock that was set back meanwhile makes that no longer than was asked for. */
static unsigned go_on_with_stop(struct spb_life *life, const struct spb_life_input *in)
{
    uint64_t asked_ms = life->stop_ms, left_ms = 0;

    if (life->state == SPB_LIFE_PAUSED)
        return press_button(life, in, 0);
    if (life->quit_at_ms == 0)
        return press_button(life, in, life->rules.stop_ns);
    if (life->quit_at_ms > in->now_ms)
        left_ms = life->quit_at_ms - in->now_ms;
    if (left_ms > asked_ms)
        left_ms = asked_ms;
    unsigned actions = press_button(life, in, (int64_t)left_ms * NS_PER_MS);
    life->stop_ms = asked_ms;
    return actions;
}

/* Of a guest that has not begun to run: nothing in it could take a button for anything. */
static unsigned give_up_start(struct spb_life *life, const struct spb_life_input *in)
{
    life->state = SPB_LIFE_STOPPING;
    if (life->phase == SPB_PHASE_CONNECTING && life->adopted) {
        /* It runs: the ladder begins when its monitor has answered. */
        int64_t stop_ns = asked_stop_ns(life, in);

        if (life->quit_at_ms == 0 ||
            in->now_ms + (uint64_t)(stop_ns / NS_PER_MS) < life->quit_at_ms)
            note_stop(life, in, stop_ns);
        return 0;
    }
    if (life->phase == SPB_PHASE_CONNECTING)
        return kill_now(life);
    life->stage = SPB_STAGE_KILL; /* it is looked at when the preparation is done */
    return 0;
}

static unsigned leave_queue(struct spb_life *life)
{
    life->phase = SPB_PHASE_IDLE;
    life->state = SPB_LIFE_STOPPED;
    life->ending = SPB_ENDING_NOT_STARTED;
    set_reason(life, "it was stopped before it was started");
    return SPB_DO_UNQUEUE | answer_starts(life, SPB_DO_NOT_STARTED) | SPB_DO_IDLE;
}

static unsigned take_stop(struct spb_life *life, const struct spb_life_input *in, bool kills)
{
    bool is_paused = life->state == SPB_LIFE_PAUSED;
    unsigned actions = SPB_DO_RECORD;

    life->wants_run = life->again = false;
    life->is_killed_by_call |= kills && life->phase != SPB_PHASE_IDLE;
    switch (life->phase) {
    case SPB_PHASE_IDLE:
        if (life->state == SPB_LIFE_BACKOFF) {
            life->state = SPB_LIFE_STOPPED;
            life->restart_at_ns = 0;
            life->restart_at_ms = 0;
        }
        return actions;
    case SPB_PHASE_QUEUED:
        return actions | leave_queue(life);
    case SPB_PHASE_PREPARING:
    case SPB_PHASE_CONNECTING:
        return actions | (kills && life->adopted ? kill_now(life) : give_up_start(life, in));
    case SPB_PHASE_RUNNING:
        life->state = SPB_LIFE_STOPPING;
        return actions | (kills ? kill_now(life)
                                : press_button(life, in, is_paused ? 0 : asked_stop_ns(life, in)));
    case SPB_PHASE_ENDING:
        return actions | (kills ? kill_now(life) : 0);
    case SPB_PHASE_RELEASING:
        break;
    }
    return actions;
}

/* What was asked of it stays as it is. One that is not spawned yet will not be, by this daemon. */
static unsigned take_drain(struct spb_life *life)
{
    if (life->phase < SPB_PHASE_CONNECTING || life->phase > SPB_PHASE_ENDING)
        return 0;
    life->is_drained = true;
    life->state = SPB_LIFE_STOPPING;
    return SPB_DO_RECORD | kill_now(life);
}

/* ---- Running ------------------------------------------------------------------------------ */

static unsigned run(struct spb_life *life, const struct spb_life_input *in,
                    enum spb_life_state state)
{
    bool is_new = life->started_ms == 0;
    uint64_t age_ms = !is_new && in->now_ms > life->started_ms ? in->now_ms - life->started_ms : 0;

    if (is_new)
        life->started_ms = in->now_ms;
    life->phase = SPB_PHASE_RUNNING;
    life->state = state;
    life->had_run = true;
    life->since_ns = in->now_ns - (int64_t)age_ms * NS_PER_MS;
    life->step_at_ns = 0;
    life->boot_at_ns = life->alive ? 0 : life->since_ns + life->rules.boot_ns;
    life->healthy_at_ns = life->short_runs > 0 ? life->since_ns + life->rules.healthy_ns : 0;
    if (state == SPB_LIFE_PAUSED && life->wants_run && life->awaited)
        return SPB_DO_RECORD | resume(life, in);
    unsigned actions = answer_starts(life, SPB_DO_STARTED) | SPB_DO_RECORD;
    /* What was asked for before the daemon ended still holds. */
    if (!life->wants_run)
        return actions | go_on_with_stop(life, in);
    life->quit_at_ms = life->stop_ms = 0;
    return actions;
}

/* The guest has ended; its QEMU waits to be told to quit. */
static unsigned end(struct spb_life *life, const struct spb_life_input *in)
{
    life->phase = SPB_PHASE_ENDING;
    life->state = SPB_LIFE_STOPPING;
    life->boot_at_ns = life->healthy_at_ns = 0;
    if (life->stage == SPB_STAGE_KILL)
        return SPB_DO_RECORD;
    return SPB_DO_RECORD | quit(life, in);
}

static unsigned take_status(struct spb_life *life, const struct spb_life_input *in)
{
    const char *status = text_of(in);

    if (life->phase != SPB_PHASE_CONNECTING || life->stage == SPB_STAGE_KILL)
        return 0;
    if (strcmp(status, "prelaunch") == 0)
        return SPB_DO_CONTINUE;
    if (strcmp(status, "running") == 0 || strcmp(status, "suspended") == 0) {
        set_reason(life, "%s", "");
        return run(life, in, SPB_LIFE_RUNNING);
    }
    if (strcmp(status, "shutdown") == 0 || strcmp(status, "guest-panicked") == 0 ||
        strcmp(status, "internal-error") == 0) {
        spb_ending_take_status(&life->ending, status, in->traced);
        if (life->ending == SPB_ENDING_LOST)
            set_reason(life, "powered off or asked for a reboot while no daemon was there");
        life->had_run = true;
        return end(life, in);
    }
    if (strcmp(status, "io-error") != 0)
        set_reason(life, "QEMU holds its processors: %.100s", status);
    else if (strncmp(life->reason, DISK_FAILED, strlen(DISK_FAILED)) != 0)
        set_reason(life, DISK_FAILED);
    return run(life, in, SPB_LIFE_PAUSED);
}

static unsigned take_stopped_processors(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->stage == SPB_STAGE_BUTTON)
        return press_button(life, in, 0) | SPB_DO_RECORD;
    if (life->state != SPB_LIFE_RUNNING)
        return 0;
    life->state = SPB_LIFE_PAUSED;
    if (life->reason[0] == '\0')
        set_reason(life, "QEMU holds its processors");
    return end_resuming(life) | SPB_DO_RECORD;
}

static unsigned take_resumed(struct spb_life *life)
{
    if (life->state != SPB_LIFE_PAUSED)
        return 0;
    life->state = SPB_LIFE_RUNNING;
    set_reason(life, "%s", "");
    return SPB_DO_RECORD;
}

/* Of a disk on the host; QEMU then holds the processors, where the guest could not help itself. */
static unsigned take_disk_error(struct spb_life *life, const struct spb_life_input *in)
{
    const char *action = json_string_value(json_object_get(in->data, "action"));
    const char *why = json_string_value(json_object_get(in->data, "reason"));

    if (action == NULL || strcmp(action, "stop") != 0)
        return 0;
    set_reason(life, DISK_FAILED ": %.200s", why == NULL ? "no reason given" : why);
    return SPB_DO_RECORD;
}

static unsigned take_qmp(struct spb_life *life, const struct spb_life_input *in)
{
    const char *event = text_of(in);

    if (life->phase != SPB_PHASE_CONNECTING && life->phase != SPB_PHASE_RUNNING &&
        life->phase != SPB_PHASE_ENDING)
        return 0;
    spb_ending_take_event(&life->ending, event, in->data);
    bool runs = life->phase == SPB_PHASE_RUNNING;
    if (strcmp(event, "SHUTDOWN") == 0 || strcmp(event, "GUEST_PANICKED") == 0)
        return life->phase == SPB_PHASE_ENDING ? 0 : end(life, in);
    if (runs && strcmp(event, "BLOCK_IO_ERROR") == 0)
        return take_disk_error(life, in);
    if (runs && strcmp(event, "STOP") == 0)
        return take_stopped_processors(life, in);
    if (runs && strcmp(event, "RESUME") == 0)
        return take_resumed(life);
    return 0;
}

/* Without its monitor nobody would hear of the guest's end: it is not left to itself. */
static unsigned give_up(struct spb_life *life, const struct spb_life_input *in, bool at_once)
{
    life->phase = SPB_PHASE_ENDING;
    life->state = SPB_LIFE_STOPPING;
    life->boot_at_ns = life->healthy_at_ns = 0;
    if (life->stage == SPB_STAGE_KILL)
        return SPB_DO_RECORD;
    if (at_once)
        return SPB_DO_RECORD | kill_now(life);
    life->step_at_ns = in->now_ns + GRACE_NS;
    return SPB_DO_RECORD;
}

static unsigned take_broken(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase != SPB_PHASE_CONNECTING && life->phase != SPB_PHASE_RUNNING)
        return 0;
    if (life->ending == SPB_ENDING_NONE && life->stage == SPB_STAGE_NONE) {
        life->broken = true;
        set_reason(life, "its monitor failed: %.300s", text_of(in));
    }
    return give_up(life, in, in->at_once);
}

static unsigned take_sign(struct spb_life *life)
{
    bool was_missed =
        life->boot_at_ns == 0 && life->reason[0] != '\0' && life->state == SPB_LIFE_RUNNING;

    if (life->alive || life->phase == SPB_PHASE_IDLE)
        return 0;
    life->alive = true;
    life->boot_at_ns = 0;
    if (was_missed)
        set_reason(life, "%s", "");
    return SPB_DO_RECORD;
}

static unsigned take_no_sign(struct spb_life *life)
{
    if (life->phase != SPB_PHASE_RUNNING || life->alive)
        return 0;
    set_reason(life, "no sign of life within its boot deadline of %lld ms",
               (long long)(life->rules.boot_ns / NS_PER_MS));
    return SPB_DO_RECORD;
}

/* ---- The end ------------------------------------------------------------------------------ */

static void tell_exit(struct spb_life *life, const struct spb_life_input *in, const char *verb)
{
    const char *wrote = text_of(in), *colon = *wrote == '\0' ? "" : ": ";

    if (!in->has_status)
        set_reason(life, "QEMU %s, how is not known: it was no child of this daemon", verb);
    else if (WIFSIGNALED(in->wait_status))
        set_reason(life, "QEMU %s by signal %d%s%.400s", verb, WTERMSIG(in->wait_status), colon,
                   wrote);
    else
        set_reason(life, "QEMU %s with exit code %d%s%.400s", verb, WEXITSTATUS(in->wait_status),
                   colon, wrote);
}

/* What an exit that no event announced means. */
static void judge_exit(struct spb_life *life, const struct spb_life_input *in)
{
    bool was_told = life->stage != SPB_STAGE_NONE && !life->broken;

    if (was_told) {
        life->ending = SPB_ENDING_STOPPED;
    } else if (!life->had_run && !life->adopted) {
        life->ending = SPB_ENDING_NOT_STARTED;
        if (!life->broken || life->stage != SPB_STAGE_KILL)
            tell_exit(life, in, "ended");
    } else if (life->broken && life->stage == SPB_STAGE_KILL) {
        life->ending = SPB_ENDING_CRASHED;
    } else if (!in->has_status) {
        life->ending = life->had_run ? SPB_ENDING_CRASHED : SPB_ENDING_LOST;
        tell_exit(life, in, "ended");
    } else {
        spb_ending_take_exit(&life->ending, in->wait_status);
        tell_exit(life, in, "ended");
    }
}

/* What is known of an ending that was announced, or asked for. */
static void tell_ending(struct spb_life *life)
{
    bool asked = !life->wants_run || life->again;

    if (life->ending == SPB_ENDING_LOST && life->reason[0] != '\0')
        return; /* it says what is known */
    if (life->ending != SPB_ENDING_STOPPED)
        set_reason(life, "%s%s", spb_ending_words(life->ending),
                   asked ? ", when it was to stop" : "");
    else if (life->is_drained)
        set_reason(life, "ended with the daemon");
    else if (life->is_killed_by_call)
        set_reason(life, "killed by a call");
    else if (life->stage == SPB_STAGE_KILL)
        set_reason(life, "killed, since QEMU did not quit");
    else
        set_reason(life, "%s", spb_ending_words(life->ending));
}

static unsigned take_exit(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase < SPB_PHASE_CONNECTING || life->phase > SPB_PHASE_ENDING)
        return 0;
    life->has_exit = in->has_status;
    if (in->has_status)
        life->exit_status = WIFSIGNALED(in->wait_status) ? -WTERMSIG(in->wait_status)
                                                         : WEXITSTATUS(in->wait_status);
    bool announced = life->ending != SPB_ENDING_NONE;
    if (!announced)
        judge_exit(life, in);
    if (announced || life->ending == SPB_ENDING_STOPPED)
        tell_ending(life);
    life->phase = SPB_PHASE_RELEASING;
    life->state = SPB_LIFE_STOPPING;
    life->ended_ms = in->now_ms;
    life->quit_at_ms = life->stop_ms = 0;
    life->step_at_ns = life->boot_at_ns = life->healthy_at_ns = 0;
    return SPB_DO_RELEASE | SPB_DO_RECORD;
}

static unsigned take_failure(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase != SPB_PHASE_PREPARING)
        return 0;
    life->ending = SPB_ENDING_NOT_STARTED;
    set_reason(life, "%.500s", text_of(in));
    life->phase = SPB_PHASE_RELEASING;
    life->ended_ms = in->now_ms;
    return SPB_DO_RELEASE;
}

static unsigned take_prepared(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase != SPB_PHASE_PREPARING)
        return 0;
    if (life->stage != SPB_STAGE_KILL)
        return SPB_DO_SPAWN;
    life->ending = SPB_ENDING_NOT_STARTED;
    set_reason(life, "it was stopped before it was started");
    life->phase = SPB_PHASE_RELEASING;
    life->ended_ms = in->now_ms;
    return SPB_DO_RELEASE;
}

/* How it ended was seen, and recorded, before the daemon ended: perhaps not yet that QEMU did. */
static unsigned keep_ending(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->ended_ms == 0 || life->reason[0] == '\0')
        tell_ending(life);
    if (life->ended_ms == 0)
        life->ended_ms = in->now_ms;
    if (life->ending == SPB_ENDING_NOT_STARTED && !life->wants_run)
        life->stage = SPB_STAGE_KILL; /* that is why */
    return SPB_DO_RELEASE | SPB_DO_RECORD;
}

static unsigned take_gone(struct spb_life *life, const struct spb_life_input *in)
{
    bool was_starting = life->state == SPB_LIFE_STARTING;

    life->phase = SPB_PHASE_RELEASING;
    life->state = SPB_LIFE_STOPPING;
    life->had_run = !was_starting;
    if (life->ending != SPB_ENDING_NONE)
        return keep_ending(life, in);
    life->ended_ms = in->now_ms;
    life->ending = was_starting ? SPB_ENDING_NOT_STARTED : SPB_ENDING_LOST;
    if (in->text != NULL)
        set_reason(life, "%.400s", in->text);
    else
        set_reason(life, "%s",
                   was_starting ? "the daemon ended while it was being started"
                                : "it ended while no daemon was there to see how");
    return SPB_DO_RELEASE | SPB_DO_RECORD;
}

/* ---- After the end ------------------------------------------------------------------------ */

static void back_off(struct spb_life *life, const struct spb_life_input *in)
{
    bool was_long = life->had_run && life->since_ns != 0 &&
                    in->now_ns - life->since_ns >= life->rules.healthy_ns;

    life->short_runs = was_long ? 1 : life->short_runs + 1;
    life->crash_loop = life->short_runs >= SPB_LIFE_LOOP_RUNS;
    int64_t ns = spb_life_backoff_ns(life, in->random);
    life->state = SPB_LIFE_BACKOFF;
    life->restart_at_ns = in->now_ns + ns;
    life->restart_at_ms = in->now_ms + (uint64_t)(ns / NS_PER_MS);
}

static unsigned take_released(struct spb_life *life, const struct spb_life_input *in)
{
    enum spb_life_state state = spb_life_state_at_end(life);
    unsigned actions = SPB_DO_RECORD;

    if (life->phase != SPB_PHASE_RELEASING)
        return 0;
    if (in->text != NULL && *in->text != '\0') {
        char before[SPB_LIFE_REASON_SIZE];

        memcpy(before, life->reason, sizeof(before));
        set_reason(life, "%.200s; %.300s", before, in->text);
    }
    life->phase = SPB_PHASE_IDLE;
    life->state = state;
    if (life->again)
        return actions | begin_by_call(life);
    /* Also who asked during a restart, or for one more run and somebody else for none. */
    if (life->awaited)
        actions |= answer_starts(life, SPB_DO_NOT_STARTED);
    if (spb_life_is_restarted(life, state))
        back_off(life, in);
    else
        life->wants_run = false;
    life->stage = SPB_STAGE_NONE;
    life->broken = false;
    life->since_ns = 0;
    return actions | SPB_DO_IDLE;
}

/* ---- Time --------------------------------------------------------------------------------- */

static bool is_due(int64_t at_ns, int64_t now_ns)
{
    return at_ns != 0 && now_ns >= at_ns;
}

static unsigned take_late_start(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->stage == SPB_STAGE_NONE) {
        life->broken = true;
        set_reason(life, "QEMU's monitor did not answer within %lld ms",
                   (long long)(life->rules.start_ns / NS_PER_MS));
    }
    return give_up(life, in, true);
}

static unsigned take_time_running(struct spb_life *life, const struct spb_life_input *in)
{
    unsigned actions = 0;

    if (is_due(life->step_at_ns, in->now_ns))
        actions |= life->stage == SPB_STAGE_BUTTON ? quit(life, in) : kill_now(life);
    if (is_due(life->boot_at_ns, in->now_ns)) {
        life->boot_at_ns = 0;
        actions |= SPB_DO_LOOK;
    }
    if (is_due(life->resume_at_ns, in->now_ns))
        actions |= end_resuming(life);
    if (is_due(life->healthy_at_ns, in->now_ns)) {
        life->healthy_at_ns = 0;
        life->short_runs = 0;
        life->crash_loop = false;
        actions |= SPB_DO_RECORD;
    }
    return actions;
}

static unsigned take_time(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase == SPB_PHASE_IDLE && life->state == SPB_LIFE_BACKOFF &&
        is_due(life->restart_at_ns, in->now_ns)) {
        life->restarts++;
        return begin(life, false);
    }
    if (life->phase == SPB_PHASE_CONNECTING && is_due(life->step_at_ns, in->now_ns))
        return take_late_start(life, in);
    if (life->phase == SPB_PHASE_RUNNING)
        return take_time_running(life, in);
    if (life->phase == SPB_PHASE_ENDING && is_due(life->step_at_ns, in->now_ns))
        return kill_now(life);
    return 0;
}

int64_t spb_life_next_ns(const struct spb_life *life)
{
    const int64_t times[] = {
        life->step_at_ns,
        life->phase == SPB_PHASE_RUNNING ? life->boot_at_ns : 0,
        life->phase == SPB_PHASE_RUNNING ? life->healthy_at_ns : 0,
        life->phase == SPB_PHASE_RUNNING ? life->resume_at_ns : 0,
        life->phase == SPB_PHASE_IDLE ? life->restart_at_ns : 0,
    };
    int64_t next = 0;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (times[i] != 0 && (next == 0 || times[i] < next))
            next = times[i];
    }
    return next;
}

/* ---- At the daemon's start ---------------------------------------------------------------- */

static unsigned take_adoption(struct spb_life *life, const struct spb_life_input *in)
{
    life->phase = SPB_PHASE_CONNECTING;
    life->stage = SPB_STAGE_NONE;
    life->adopted = true;
    life->had_run = life->state != SPB_LIFE_STARTING;
    if (life->wants_run) /* a stop that a start took back */
        life->quit_at_ms = life->stop_ms = 0;
    life->step_at_ns = in->now_ns + life->rules.start_ns;
    return SPB_DO_RECORD;
}

static unsigned take_resumption(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->state != SPB_LIFE_BACKOFF)
        return 0;
    int64_t left_ns = life->restart_at_ms > in->now_ms
                          ? (int64_t)(life->restart_at_ms - in->now_ms) * NS_PER_MS
                          : 0;
    if (left_ns > life->rules.backoff_max_ns || left_ns < 0)
        left_ns = life->rules.backoff_max_ns;
    life->restart_at_ns = in->now_ns + left_ns;
    return 0;
}

/* ---- Steps -------------------------------------------------------------------------------- */

void spb_life_init(struct spb_life *life, const struct spb_life_rules *rules)
{
    *life = (struct spb_life){.rules = *rules, .state = SPB_LIFE_CREATED};
}

static unsigned take_place(struct spb_life *life)
{
    if (life->phase != SPB_PHASE_QUEUED)
        return 0;
    life->phase = SPB_PHASE_PREPARING;
    life->run++;
    return SPB_DO_PREPARE;
}

static unsigned take_spawned(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase != SPB_PHASE_PREPARING)
        return 0;
    life->phase = SPB_PHASE_CONNECTING;
    if (life->stage == SPB_STAGE_KILL)
        return kill_now(life);
    life->step_at_ns = in->now_ns + life->rules.start_ns;
    return SPB_DO_RECORD;
}

static unsigned take_continued(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase == SPB_PHASE_RUNNING && life->resumes)
        life->resume_at_ns = in->now_ns + RESUME_NS;
    if (life->phase != SPB_PHASE_CONNECTING || life->stage == SPB_STAGE_KILL)
        return 0;
    return run(life, in, SPB_LIFE_RUNNING);
}

static unsigned take_refusal(struct spb_life *life, const struct spb_life_input *in)
{
    if (life->phase != SPB_PHASE_RUNNING || !life->resumes || life->state != SPB_LIFE_PAUSED)
        return 0;
    set_reason(life, "QEMU does not go on: %.300s", text_of(in));
    return end_resuming(life) | SPB_DO_RECORD;
}

unsigned spb_life_step(struct spb_life *life, const struct spb_life_input *in)
{
    switch (in->what) {
    case SPB_LIFE_START:
        return take_start(life, in);
    case SPB_LIFE_STOP:
        return take_stop(life, in, false);
    case SPB_LIFE_KILL:
        return take_stop(life, in, true);
    case SPB_LIFE_DRAIN:
        return take_drain(life);
    case SPB_LIFE_PLACE:
        return take_place(life);
    case SPB_LIFE_PREPARED:
        return take_prepared(life, in);
    case SPB_LIFE_FAILED:
        return take_failure(life, in);
    case SPB_LIFE_SPAWNED:
        return take_spawned(life, in);
    case SPB_LIFE_STATUS:
        return take_status(life, in);
    case SPB_LIFE_CONTINUED:
        return take_continued(life, in);
    case SPB_LIFE_REFUSED:
        return take_refusal(life, in);
    case SPB_LIFE_QMP:
        return take_qmp(life, in);
    case SPB_LIFE_BROKEN:
        return take_broken(life, in);
    case SPB_LIFE_SIGN:
        return take_sign(life);
    case SPB_LIFE_NO_SIGN:
        return take_no_sign(life);
    case SPB_LIFE_EXITED:
        return take_exit(life, in);
    case SPB_LIFE_RELEASED:
        return take_released(life, in);
    case SPB_LIFE_TIME:
        return take_time(life, in);
    case SPB_LIFE_ADOPT:
        return take_adoption(life, in);
    case SPB_LIFE_GONE:
        return take_gone(life, in);
    case SPB_LIFE_RESUME:
        return take_resumption(life, in);
    }
    return 0;
}
