/* A guest's life carried out; see drive.h. */
#include "supervisor/drive.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/status.h"
#include "daemon.h"
#include "supervisor/guests.h"
#include "supervisor/session.h"
#include "supervisor/thread.h"
#include "supervisor/work.h"

#define MIB (UINT64_C(1024) * 1024)
/* What failed is tried again after so long, then doubled. */
#define RETRY_NS SPB_NS_PER_S
#define RETRY_MAX_NS (16 * SPB_NS_PER_S)

static struct spb_supervisor *supervisor_of(const struct spb_guest *guest)
{
    return guest->daemon->guests->supervisor;
}

/* ---- Records ------------------------------------------------------------------------------ */

/* A row on its way to the database. */
struct recording {
    struct spb_task task;
    struct spb_post post;
    struct spb_guest *guest; /* a reference */
    struct spb_guest_row row;
    struct spb_error failure; /* code SPB_OK: none */
};

static void record(struct spb_guest *guest);
static void answer_started(struct spb_guest *guest);
static void answer_unrecorded(struct spb_guest *guest, const struct spb_error *why);
static void answer_ended(struct spb_guest *guest, bool given_up);

/* What is shown holds all the same. It is written with the next change, or after a while, or when
 * the daemon ends: a row that says what is no more would make the next daemon start it again. */
static void note_unrecorded(struct spb_guest *guest, const struct spb_error *why)
{
    if (guest->record_wait_ns == 0)
        spb_log(&guest->daemon->log, SPB_LOG_ERROR, "guest-not-recorded",
                SPB_TEXT("guest", guest->text), SPB_TEXT("reason", why->text));
    guest->is_dirty = true;
    guest->record_wait_ns = spb_drive_longer_ns(guest->record_wait_ns);
    guest->record_at_ns = spb_now_ns() + guest->record_wait_ns;
    spb_supervisor_activate(supervisor_of(guest), guest);
    answer_unrecorded(guest, why);
}

static void note_recorded(struct spb_guest *guest, uint64_t version)
{
    guest->recorded_version = version;
    if (guest->record_wait_ns != 0)
        spb_log(&guest->daemon->log, SPB_LOG_INFO, "guest-recorded",
                SPB_TEXT("guest", guest->text));
    guest->record_wait_ns = 0;
    if (guest->is_dirty)
        record(guest);
    answer_started(guest);
}

static void recorded(struct spb_post *post)
{
    struct recording *recording = SPB_CONTAINER(post, struct recording, post);
    struct spb_guest *guest = recording->guest;

    spb_supervisor_work_done(supervisor_of(guest));
    guest->is_recording = false;
    if (recording->failure.code == SPB_OK)
        note_recorded(guest, recording->row.version);
    else
        note_unrecorded(guest, &recording->failure);
    atomic_store(&guest->is_behind, guest->is_recording || guest->is_dirty);
    free(recording);
    spb_guest_unref(guest);
}

static void run_recording(struct spb_task *task)
{
    struct recording *recording = SPB_CONTAINER(task, struct recording, task);
    struct spb_guest *guest = recording->guest;
    struct spb_error err;

    if (!spb_is_ok(spb_rows_set_guest(guest->daemon->audit, &recording->row, &err)))
        recording->failure = err;
    (void)spb_supervisor_post(supervisor_of(guest), &recording->post);
}

/* One at a time; what changes meanwhile follows as one more. That of one which is about to be
 * deleted is kept for the case that it stays. */
static void record(struct spb_guest *guest)
{
    struct recording *recording;
    struct spb_error err;

    guest->record_at_ns = 0;
    guest->is_dirty = guest->is_recording || guest->is_deleted;
    if (guest->is_dirty)
        return;
    recording = calloc(1, sizeof(*recording));
    if (recording == NULL) {
        (void)spb_fail_memory(&err, "recording a guest");
        note_unrecorded(guest, &err);
        return;
    }
    recording->task.run = run_recording;
    recording->post.run = recorded;
    recording->guest = guest;
    spb_guest_ref(guest);
    spb_guest_row(guest, &recording->row);
    guest->is_recording = true;
    spb_supervisor_work(supervisor_of(guest), SPB_LANE_COMMIT, &recording->task);
}

void spb_drive_record_rest(struct spb_guest *guest)
{
    answer_ended(guest, true);
    if (guest->is_dirty && !guest->is_recording)
        record(guest);
}

void spb_drive_let_live(struct spb_guest *guest)
{
    guest->is_deleted = false;
    if (guest->is_dirty && !guest->is_recording)
        record(guest);
}

/* ---- Calls that wait ---------------------------------------------------------------------- */

static struct spb_call *take_all(struct spb_call **list)
{
    struct spb_call *first = *list;

    *list = NULL;
    return first;
}

/* err: NULL: it runs. */
static void end_started(struct spb_guest *guest, const struct spb_error *err, PB_ErrorReason reason,
                        bool decided)
{
    for (struct spb_call *call = take_all(&guest->started), *next; call != NULL; call = next) {
        next = call->next;
        spb_guest_start_ended(call, err, reason, decided);
    }
}

/* It runs: its calls are answered once that is durable, for a crash must not make it untrue. By
 * then it may have ended. Of one that is being deleted nothing is recorded any more. */
static void answer_started(struct spb_guest *guest)
{
    struct spb_error err;

    if (guest->is_deleted) {
        (void)spb_fail(&err, SPB_REMOTE, "guest %s was started, and then deleted", guest->text);
        end_started(guest, &err, PB_REASON(NOT_FOUND), false);
    } else if (guest->recorded_version >= guest->started_version) {
        end_started(guest, NULL, PB_REASON(UNSPECIFIED), true);
    }
}

static void answer_unrecorded(struct spb_guest *guest, const struct spb_error *why)
{
    struct spb_error err;

    if (guest->is_deleted) {
        answer_started(guest);
        return;
    }
    /* Whatever failed: what was not done says so otherwise. */
    (void)spb_fail(&err, SPB_IO, "guest %s was started, and that is not recorded: %.300s",
                   guest->text, why->text);
    end_started(guest, &err, PB_REASON(IO_ERROR), true);
}

static void note_started(struct spb_guest *guest)
{
    struct spb_call **end = &guest->started;

    while (*end != NULL)
        end = &(*end)->next;
    *end = take_all(&guest->starters);
    if (guest->is_dirty && !guest->is_recording)
        record(guest);
    guest->started_version = guest->is_recording ? guest->version : guest->recorded_version;
    answer_started(guest);
}

static void answer_not_started(struct spb_guest *guest, const char *text, PB_ErrorReason reason)
{
    struct spb_error err;

    (void)spb_fail(&err, SPB_REMOTE, "guest %s %s: %.400s", guest->text,
                   guest->life.state == SPB_LIFE_PAUSED ? "is still paused" : "was not started",
                   text);
    for (struct spb_call *call = take_all(&guest->starters), *next; call != NULL; call = next) {
        next = call->next;
        /* Where the daemon ends in between, its next start finds out. */
        spb_guest_start_ended(call, &err, reason, reason == PB_REASON(DRAINING));
    }
}

static void answer_ended(struct spb_guest *guest, bool given_up)
{
    for (struct spb_call *call = take_all(&guest->enders), *next; call != NULL; call = next) {
        next = call->next;
        spb_guest_end_came(call, guest, given_up);
    }
}

/* ---- Actions ------------------------------------------------------------------------------ */

static void log_state(struct spb_guest *guest, enum spb_life_state before)
{
    const struct spb_life *life = &guest->life;
    bool bad = life->state == SPB_LIFE_CRASHED || life->state == SPB_LIFE_LOST ||
               (life->state == SPB_LIFE_BACKOFF && life->crash_loop);

    if (life->state == before)
        return;
    if (life->state == SPB_LIFE_STARTING && before == SPB_LIFE_BACKOFF)
        atomic_fetch_add_explicit(&guest->daemon->guests->restarts, 1, memory_order_relaxed);
    spb_log(&guest->daemon->log, bad ? SPB_LOG_WARN : SPB_LOG_INFO, "guest",
            SPB_TEXT("guest", guest->text), SPB_TEXT("was", spb_life_state_word(before)),
            SPB_TEXT("is", spb_life_state_word(life->state)), SPB_TEXT("reason", life->reason),
            SPB_NUMBER("run", life->run), SPB_NUMBER("pid", spb_guests_pid(guest)),
            SPB_NUMBER("restarts", life->restarts));
}

static void spawn(struct spb_guest *guest)
{
    struct spb_error err;

    if (spb_supervisor_is_ending(supervisor_of(guest))) {
        guest->failure = PB_REASON(DRAINING);
        spb_drive_tell(guest, SPB_LIFE_FAILED, "the daemon ends");
        return;
    }
    if (spb_is_ok(spb_session_spawn(guest, &err))) {
        spb_drive_tell(guest, SPB_LIFE_SPAWNED, NULL);
        spb_session_connect(guest);
        return;
    }
    guest->failure = PB_REASON(GUEST_FAILED);
    spb_drive_tell(guest, SPB_LIFE_FAILED, err.text);
}

static void act_on_start(struct spb_guest *guest, unsigned actions)
{
    struct spb_supervisor *supervisor = supervisor_of(guest);

    if ((actions & SPB_DO_UNQUEUE) != 0)
        spb_supervisor_unqueue(supervisor, guest);
    if ((actions & SPB_DO_QUEUE) != 0) {
        guest->failure = PB_REASON(GUEST_FAILED);
        spb_supervisor_queue(supervisor, guest);
    }
    if ((actions & SPB_DO_PREPARE) != 0)
        spb_work_prepare(guest);
    if ((actions & SPB_DO_SPAWN) != 0)
        spawn(guest);
}

static void act_on_run(struct spb_guest *guest, unsigned actions)
{
    if ((actions & SPB_DO_CONTINUE) != 0)
        spb_session_continue(guest);
    if ((actions & SPB_DO_BUTTON) != 0)
        spb_session_tell(guest, "system_powerdown");
    if ((actions & SPB_DO_QUIT) != 0)
        spb_session_tell(guest, "quit");
    if ((actions & SPB_DO_KILL) != 0)
        spb_session_kill(guest);
    if ((actions & SPB_DO_LOOK) != 0)
        spb_session_look(guest);
    if ((actions & SPB_DO_RELEASE) != 0) {
        spb_session_end(guest);
        spb_work_release(guest);
    }
}

/* Of one that an earlier daemon started no failure is known here. */
static PB_ErrorReason failure_of(const struct spb_guest *guest)
{
    if (guest->life.state == SPB_LIFE_STOPPED)
        return PB_REASON(WRONG_STATE);
    return guest->failure == PB_REASON(UNSPECIFIED) ? PB_REASON(GUEST_FAILED) : guest->failure;
}

static void act_on_calls(struct spb_guest *guest, unsigned actions)
{
    if ((actions & SPB_DO_STARTED) != 0)
        note_started(guest);
    if ((actions & SPB_DO_NOT_STARTED) != 0)
        answer_not_started(guest, guest->life.reason, failure_of(guest));
    if ((actions & SPB_DO_IDLE) != 0)
        answer_ended(guest, false);
}

void spb_drive_step(struct spb_guest *guest, struct spb_life_input *input)
{
    enum spb_life_state before = guest->life.state;
    uint32_t random = 0;

    input->now_ns = spb_now_ns();
    input->now_ms = (uint64_t)(spb_unix_us() / 1000);
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) == (ssize_t)sizeof(random))
        input->random = random;
    guest->life.rules = spb_guest_rules(guest);
    bool was_adopting = guest->life.adopted && guest->life.phase == SPB_PHASE_CONNECTING;
    unsigned actions = spb_life_step(&guest->life, input);
    bool is_adopting = guest->life.adopted && guest->life.phase == SPB_PHASE_CONNECTING;

    spb_guest_ref(guest);
    if (was_adopting && !is_adopting)
        atomic_fetch_sub(&guest->daemon->guests->adopting, 1);
    spb_supervisor_activate(supervisor_of(guest), guest);
    if ((actions & SPB_DO_RECORD) != 0 || before != guest->life.state) {
        log_state(guest, before);
        atomic_store(&guest->is_behind, true);
        spb_guest_publish(guest);
        record(guest);
    }
    act_on_start(guest, actions);
    act_on_run(guest, actions);
    act_on_calls(guest, actions);
    spb_guest_unref(guest);
}

void spb_drive_tell(struct spb_guest *guest, enum spb_life_event what, const char *text)
{
    struct spb_life_input input = {.what = what, .text = text};

    spb_drive_step(guest, &input);
}

/* ---- Time --------------------------------------------------------------------------------- */

int64_t spb_drive_longer_ns(int64_t wait_ns)
{
    if (wait_ns == 0)
        return RETRY_NS;
    return wait_ns * 2 > RETRY_MAX_NS ? RETRY_MAX_NS : wait_ns * 2;
}

int64_t spb_drive_next_ns(const struct spb_guest *guest)
{
    const int64_t times[] = {spb_life_next_ns(&guest->life), spb_session_next_ns(guest),
                             guest->record_at_ns, guest->sweep_at_ns};
    int64_t next = 0;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (times[i] != 0 && (next == 0 || times[i] < next))
            next = times[i];
    }
    return next;
}

void spb_drive_time(struct spb_guest *guest, int64_t now_ns)
{
    int64_t session = spb_session_next_ns(guest), life = spb_life_next_ns(&guest->life);

    if (session != 0 && session <= now_ns)
        spb_session_time(guest, now_ns);
    if (spb_supervisor_is_ending(supervisor_of(guest)))
        return;
    if (life != 0 && life <= now_ns)
        spb_drive_tell(guest, SPB_LIFE_TIME, NULL);
    if (guest->record_at_ns != 0 && guest->record_at_ns <= now_ns)
        record(guest);
    if (guest->sweep_at_ns != 0 && guest->sweep_at_ns <= now_ns)
        spb_work_sweep(guest);
}

/* ---- Starts and the daemon's end ---------------------------------------------------------- */

static bool __attribute__((format(printf, 3, 4)))
refuse(struct spb_refusal_to_start *why, PB_ErrorReason reason, const char *format, ...)
{
    va_list args;

    why->reason = reason;
    va_start(args, format);
    (void)vsnprintf(why->text, sizeof(why->text), format, args);
    va_end(args);
    return false;
}

static bool has_bounds(const struct spb_guest *guest, struct spb_refusal_to_start *why)
{
    const struct spb_daemon *daemon = guest->daemon;
    struct spb_guests_use use = spb_guests_use_of(daemon->guests, guest->tenant, guest);
    uint64_t memory = guest->config->memory_mib * MIB, cpus = guest->config->cpus;
    uint64_t memory_max = SPB_LIMIT(daemon, guests_tenant_memory_max_bytes);
    uint64_t cpus_max = SPB_LIMIT(daemon, guests_tenant_cpus_max);

    if (use.memory_bytes + memory > memory_max)
        return refuse(why, PB_REASON(LIMIT_EXCEEDED),
                      "guest %s wants %llu MiB of memory, its tenant's guests that run have %llu "
                      "of %llu (guests_tenant_memory_max_bytes)",
                      guest->text, (unsigned long long)(memory / MIB),
                      (unsigned long long)(use.memory_bytes / MIB),
                      (unsigned long long)(memory_max / MIB));
    if (use.cpus + cpus > cpus_max)
        return refuse(why, PB_REASON(LIMIT_EXCEEDED),
                      "guest %s wants %llu CPUs, its tenant's guests that run have %llu of %llu "
                      "(guests_tenant_cpus_max)",
                      guest->text, (unsigned long long)cpus, (unsigned long long)use.cpus,
                      (unsigned long long)cpus_max);
    return true;
}

bool spb_drive_start(struct spb_guest *guest, struct spb_call *call,
                     struct spb_refusal_to_start *why)
{
    struct spb_life_input start = {.what = SPB_LIFE_START};

    if (guest->is_deleted)
        return refuse(why, PB_REASON(NOT_FOUND), "no guest %s", guest->text);
    if (spb_supervisor_is_ending(supervisor_of(guest)))
        return refuse(why, PB_REASON(DRAINING), "the server is shutting down");
    if (!spb_life_counts(&guest->life) && !has_bounds(guest, why))
        return false;
    call->next = guest->starters;
    guest->starters = call;
    spb_drive_step(guest, &start);
    return true;
}

void spb_drive_let_go(struct spb_guest *guest)
{
    if (guest->life.adopted && guest->life.phase == SPB_PHASE_CONNECTING)
        atomic_fetch_sub(&guest->daemon->guests->adopting, 1);
    guest->started_version = 0; /* what could be recorded is */
    answer_started(guest);
    guest->is_dirty = false;
    answer_not_started(guest, "the server is shutting down", PB_REASON(DRAINING));
    answer_ended(guest, true);
    spb_session_let_go(guest);
}
