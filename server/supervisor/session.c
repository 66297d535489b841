/* One run of a guest; see session.h. */
#include "supervisor/session.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "supervisor/drive.h"
#include "supervisor/guests.h"
#include "supervisor/machine/traces.h"
#include "uuid.h"

#define CONNECT_NS (2 * SPB_NS_PER_MS) /* between looks for the sockets at first; */
#define CONNECT_SLOW_NS (20 * SPB_NS_PER_MS)
#define CONSOLE_REST_NS (5 * SPB_NS_PER_MS) /* between reads of a console that was emptied */
#define WATCH_NS (200 * SPB_NS_PER_MS)      /* between tries to watch a process */
#define READ_SIZE 65536u
#define READS_AT_END 64
#define NOFILE 1024u
#define WORDS_SHOWN 400u
#define LATE_NS (1 * SPB_NS_PER_S) /* a deadline that is looked at so late was slept through */
/* So that there are places for what a guest is told. */
#define DISKS_QUESTIONS_MAX (SPB_QMP_COMMANDS_MAX / 2)

static struct spb_supervisor *supervisor_of(const struct spb_guest *guest)
{
    return guest->daemon->guests->supervisor;
}

static int64_t now_ms(void)
{
    return spb_now_ns() / SPB_NS_PER_MS;
}

/* ---- The monitor -------------------------------------------------------------------------- */

static void flush_monitor(struct spb_guest_run *run)
{
    struct spb_error err;
    size_t size = 0;

    if (run->monitor_fd < 0)
        return;
    for (;;) {
        const char *bytes = spb_qmp_output(&run->qmp, &size);

        if (size == 0)
            break;
        ssize_t sent = send(run->monitor_fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            break; /* that it is broken shows when it is read */
        spb_qmp_sent(&run->qmp, (size_t)sent);
    }
    uint32_t events = size > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN;
    if (!spb_is_ok(spb_source_watch(supervisor_of(run->guest), &run->monitor_source,
                                    run->monitor_fd, events, &err)))
        spb_qmp_break(&run->qmp, &err);
}

static void close_monitor(struct spb_guest_run *run)
{
    if (run->monitor_fd < 0)
        return;
    spb_source_unwatch(supervisor_of(run->guest), &run->monitor_source);
    (void)close(run->monitor_fd);
    run->monitor_fd = -1;
    run->answer_at_ns = run->ask_at_ns = 0;
}

static int64_t monitor_ns(const struct spb_guest_run *run)
{
    return (int64_t)SPB_LIMIT(run->guest->daemon, guest_monitor_ms) * SPB_NS_PER_MS;
}

/* One more answer is waited for, or one fewer. Only answers put the deadline off: who asks and asks
 * does not keep a monitor that is silent. */
static void count_asked(struct spb_guest_run *run, int change)
{
    int64_t until_ns = spb_now_ns() + monitor_ns(run);

    run->asked += (unsigned)change;
    run->ask_at_ns = run->asked == 0 && run->monitor_fd >= 0 ? until_ns : 0;
    if (run->asked == 0)
        run->answer_at_ns = 0;
    else if (change < 0 || run->answer_at_ns == 0)
        run->answer_at_ns = until_ns;
}

static bool ask(struct spb_guest_run *run, const char *command, spb_qmp_done done, void *user)
{
    struct spb_error err;

    if (run == NULL || !run->has_qmp ||
        !spb_is_ok(spb_qmp_execute(&run->qmp, command, NULL, done, user, &err)))
        return false;
    count_asked(run, 1);
    return true;
}

static void on_told(void *user, const json_t *result, const struct spb_error *error)
{
    (void)result;
    (void)error; /* what follows from it is bounded in time */
    count_asked(user, -1);
}

static void on_continued(void *user, const json_t *result, const struct spb_error *error)
{
    struct spb_guest_run *run = user;

    count_asked(run, -1);
    if (result != NULL)
        spb_drive_tell(run->guest, SPB_LIFE_CONTINUED, NULL);
    else if (error->code == SPB_REMOTE && run->guest->life.phase == SPB_PHASE_CONNECTING)
        spb_qmp_break(&run->qmp, error);
    else if (error->code == SPB_REMOTE)
        spb_drive_tell(run->guest, SPB_LIFE_REFUSED, error->text);
}

/* Of a guest that ended while no daemon was there. */
static enum spb_ending traced_ending(struct spb_guest_run *run)
{
    if (run->words.fd >= 0)
        (void)spb_words_read(&run->words);
    return spb_traces_ending(run->words.bytes, run->words.used,
                             run->words.used == sizeof(run->words.bytes));
}

static void on_status(void *user, const json_t *result, const struct spb_error *error)
{
    struct spb_guest_run *run = user;
    const char *status = json_string_value(json_object_get(result, "status"));
    struct spb_error err;

    count_asked(run, -1);
    if (status != NULL) {
        struct spb_life_input input = {.what = SPB_LIFE_STATUS, .text = status};

        if (strcmp(status, "shutdown") == 0)
            input.traced = traced_ending(run);
        spb_drive_step(run->guest, &input);
        return;
    }
    if (error == NULL)
        (void)spb_fail(&err, SPB_PROTOCOL, "QMP: query-status was answered without a status");
    spb_qmp_break(&run->qmp, error == NULL ? &err : error);
}

/* The uuid is ours: nobody else's QEMU is on these sockets. */
static void on_uuid(void *user, const json_t *result, const struct spb_error *error)
{
    struct spb_guest_run *run = user;
    const char *text = json_string_value(json_object_get(result, "UUID"));
    uint8_t uuid[16];
    struct spb_error err;

    count_asked(run, -1);
    if (error != NULL) {
        spb_qmp_break(&run->qmp, error);
        return;
    }
    if (text == NULL || !spb_uuid_parse(text, uuid) ||
        memcmp(uuid, run->guest->uuid, sizeof(uuid)) != 0) {
        run->is_stranger = true;
        (void)spb_fail(&err, SPB_PROTOCOL, "QMP: query-uuid was answered with %.40s",
                       text == NULL ? "no text" : text);
        spb_qmp_break(&run->qmp, &err);
        return;
    }
    (void)ask(run, "query-status", on_status, run);
}

static void on_ready(void *user)
{
    (void)ask(user, "query-uuid", on_uuid, user);
}

static void on_event(void *user, const char *name, const json_t *data, double seconds)
{
    struct spb_guest_run *run = user;
    struct spb_life_input input = {.what = SPB_LIFE_QMP, .text = name, .data = data};

    (void)seconds;
    spb_drive_step(run->guest, &input);
}

/* A QEMU that was adopted and is another is none of ours to kill: the session is only left. */
static void on_broken(void *user, const struct spb_error *why)
{
    struct spb_guest_run *run = user;
    struct spb_life_input input = {
        .what = SPB_LIFE_BROKEN, .text = why->text, .at_once = why->code != SPB_UNREACHABLE};

    if (!run->is_stranger || !run->guest->life.adopted)
        spb_drive_step(run->guest, &input);
}

/* After what came was taken, and not from within. */
static void look_at_monitor(struct spb_guest_run *run)
{
    if (!run->has_qmp || run->qmp.state != SPB_QMP_BROKEN) {
        flush_monitor(run);
        return;
    }
    close_monitor(run);
    if (run->is_stranger && run->guest->life.adopted &&
        run->guest->life.phase == SPB_PHASE_CONNECTING)
        spb_drive_tell(run->guest, SPB_LIFE_GONE,
                       "its sockets are another QEMU's: how it ended nobody saw");
}

/* False: there is no more for now. */
static bool read_monitor(struct spb_guest_run *run)
{
    char bytes[READ_SIZE];
    struct spb_error why;

    if (run->monitor_fd < 0)
        return false;
    ssize_t n = recv(run->monitor_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0) {
        spb_qmp_feed(&run->qmp, bytes, (size_t)n);
        return run->qmp.state != SPB_QMP_BROKEN;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n == 0)
        (void)spb_fail(&why, SPB_UNREACHABLE, "QMP: QEMU closed its monitor");
    else
        (void)spb_fail_errno(&why, SPB_UNREACHABLE, errno, "QMP: reading from QEMU's monitor");
    spb_qmp_break(&run->qmp, &why);
    return false;
}

static void on_monitor(struct spb_source *source, uint32_t events)
{
    struct spb_guest_run *run = SPB_CONTAINER(source, struct spb_guest_run, monitor_source);

    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        (void)read_monitor(run);
    look_at_monitor(run);
}

/* ---- The console -------------------------------------------------------------------------- */

static void watch_console(struct spb_guest_run *run)
{
    struct spb_console *console = run->guest->console;
    int fd = spb_console_fd(console);
    struct spb_error err;

    if (fd < 0)
        return;
    uint32_t events = (run->console_at_ns == 0 ? EPOLLIN : 0u) |
                      (spb_console_wants_write(console) ? EPOLLOUT : 0u);
    if (!spb_is_ok(
            spb_source_watch(supervisor_of(run->guest), &run->console_source, fd, events, &err)))
        spb_log(&run->guest->daemon->log, SPB_LOG_WARN, "console-not-read",
                SPB_TEXT("guest", run->guest->text), SPB_TEXT("reason", err.text));
}

static void close_console(struct spb_guest_run *run)
{
    run->console_at_ns = 0;
    spb_source_unwatch(supervisor_of(run->guest), &run->console_source);
    spb_console_detach(run->guest->console);
}

/*
 * QEMU sends what a guest prints byte by byte. What comes within a moment is read, and told to who
 * waits for it, in one piece: the socket holds far more than that, so the guest does not wait. An
 * end is reported all the same.
 */
static void on_console(struct spb_source *source, uint32_t events)
{
    struct spb_guest_run *run = SPB_CONTAINER(source, struct spb_guest_run, console_source);
    struct spb_console *console = run->guest->console;
    enum spb_console_turn turn = SPB_CONSOLE_MORE;

    if ((events & EPOLLOUT) != 0)
        spb_console_on_writable(console);
    if ((events & ~(uint32_t)EPOLLOUT) != 0) {
        turn = spb_console_on_readable(console, now_ms());
        run->console_at_ns = turn == SPB_CONSOLE_EMPTY ? spb_now_ns() + CONSOLE_REST_NS : 0;
    }
    if (turn == SPB_CONSOLE_ENDED)
        close_console(run);
    else
        watch_console(run);
}

void spb_session_typed(struct spb_guest *guest)
{
    if (guest->run == NULL || spb_console_fd(guest->console) < 0)
        return;
    spb_console_on_writable(guest->console);
    watch_console(guest->run);
}

void spb_guests_console_arrived(struct spb_guest *guest, uint64_t end)
{
    atomic_fetch_add_explicit(&guest->daemon->guests->console_bytes, end - guest->console_counted,
                              memory_order_relaxed);
    guest->console_counted = end;
    if (!guest->life.alive)
        spb_drive_tell(guest, SPB_LIFE_SIGN, NULL);
    spb_guest_tell(guest);
}

/* ---- The process -------------------------------------------------------------------------- */

uint32_t spb_guests_pid(const struct spb_guest *guest)
{
    return guest->run == NULL ? 0 : (uint32_t)guest->run->process.pid;
}

static void on_words(struct spb_source *source, uint32_t events)
{
    struct spb_guest_run *run = SPB_CONTAINER(source, struct spb_guest_run, words_source);

    bool goes_on = (events & EPOLLHUP) == 0 && spb_words_relieve(&run->words);

    if (goes_on)
        return;
    (void)spb_words_read(&run->words);
    spb_source_unwatch(supervisor_of(run->guest), source);
    spb_words_close(&run->words);
}

/* What it said before it ended counts before that it ended. */
static void drain(struct spb_guest_run *run)
{
    struct spb_console *console = run->guest->console;

    for (int i = 0; i < READS_AT_END && read_monitor(run); i++) {
    }
    for (int i = 0; i < READS_AT_END && spb_console_fd(console) >= 0; i++) {
        if (spb_console_on_readable(console, now_ms()) != SPB_CONSOLE_MORE)
            break;
    }
    if (run->words.fd >= 0)
        (void)spb_words_read(&run->words);
}

static void on_process(struct spb_source *source, uint32_t events)
{
    struct spb_guest_run *run = SPB_CONTAINER(source, struct spb_guest_run, process_source);
    struct spb_life_input input = {.what = SPB_LIFE_EXITED};
    char words[WORDS_SHOWN + 1] = "";

    (void)events;
    spb_source_unwatch(supervisor_of(run->guest), source);
    drain(run);
    run->words.used = spb_traces_drop(run->words.bytes, run->words.used);
    spb_words_text(&run->words, words, sizeof(words));
    input.has_status = spb_process_reap(&run->process, &input.wait_status);
    input.text = words;
    run->process.pid = 0;
    run->watch_at_ns = 0;
    spb_drive_step(run->guest, &input);
}

static spb_status try_to_watch(struct spb_guest_run *run, struct spb_error *err)
{
    struct spb_supervisor *supervisor = supervisor_of(run->guest);

    SPB_TRY(spb_source_watch(supervisor, &run->process_source, run->process.pidfd, EPOLLIN, err));
    if (run->words.fd < 0)
        return spb_ok();
    /* Most of it stays there: each that comes is told once. */
    return spb_source_watch(supervisor, &run->words_source, run->words.fd, EPOLLIN | EPOLLET, err);
}

/* Where the kernel has no room for that, a QEMU that lives is no reason to end it: it is tried
 * again, and what happened meanwhile shows then. */
static void watch_process(struct spb_guest_run *run)
{
    bool is_first = run->watch_at_ns == 0;
    struct spb_error err;

    run->watch_at_ns = 0;
    if (spb_is_ok(try_to_watch(run, &err)))
        return;
    run->watch_at_ns = spb_now_ns() + WATCH_NS;
    if (is_first)
        spb_log(&run->guest->daemon->log, SPB_LOG_ERROR, "guest-not-watched",
                SPB_TEXT("guest", run->guest->text), SPB_TEXT("reason", err.text),
                SPB_TEXT("outcome", "it is tried again"));
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void spb_session_kill(struct spb_guest *guest)
{
    struct spb_guest_run *run = guest->run;
    struct spb_error err;

    if (run == NULL || run->process.pid == 0)
        return;
    if (run->is_in_cgroup &&
        spb_is_ok(spb_cgroup_kill(&guest->daemon->guests->cgroup, run->name, &err)))
        return;
    if (!spb_is_ok(spb_process_signal(&run->process, SIGKILL, &err)) && err.code != SPB_NOT_FOUND)
        spb_log(&guest->daemon->log, SPB_LOG_ERROR, "guest-not-killed",
                SPB_TEXT("guest", guest->text), SPB_TEXT("reason", err.text));
}

spb_status spb_session_spawn(struct spb_guest *guest, struct spb_error *err)
{
    struct spb_guest_run *run = guest->run;
    struct spb_spawn spawn = {
        .argv = run->argv,
        .stderr_fd = run->child_words_fd,
        .cgroup_fd = run->procs_fd,
        .nofile = NOFILE,
        .dies_with_caller = guest->config->ephemeral,
    };

    spb_status status = spb_process_spawn(&spawn, &run->process, err);
    close_fd(&run->child_words_fd);
    close_fd(&run->procs_fd);
    SPB_TRY(status);
    guest->accel = run->accel;
    run->is_in_cgroup = spawn.cgroup_fd >= 0;
    watch_process(run);
    return status;
}

void spb_session_adopt(struct spb_guest *guest)
{
    watch_process(guest->run);
}

/* ---- Connecting --------------------------------------------------------------------------- */

static bool connect_console(struct spb_guest_run *run)
{
    struct spb_error err;
    int fd = -1;

    if (spb_console_fd(run->guest->console) >= 0)
        return true;
    if (!spb_is_ok(spb_rundir_connect(&run->dir, SPB_RUNDIR_CONSOLE, &fd, &err)))
        return false;
    spb_console_attach(run->guest->console, fd);
    watch_console(run);
    return true;
}

static bool connect_monitor(struct spb_guest_run *run)
{
    struct spb_qmp_hooks hooks = {
        .ready = on_ready, .event = on_event, .broken = on_broken, .user = run};
    struct spb_error err;

    if (run->has_qmp)
        return true;
    if (!spb_is_ok(spb_rundir_connect(&run->dir, SPB_RUNDIR_MONITOR, &run->monitor_fd, &err)))
        return false;
    spb_qmp_init(&run->qmp, &hooks);
    run->has_qmp = true;
    flush_monitor(run);
    return true;
}

/* The console first: it misses nothing then, for the guest goes on only when the monitor says so.
 */
static void try_to_connect(struct spb_guest_run *run, int64_t now)
{
    bool is_new =
        run->guest->life.step_at_ns != 0 &&
        run->guest->life.step_at_ns - now > run->guest->life.rules.start_ns - 200 * SPB_NS_PER_MS;

    run->connect_at_ns = 0;
    if (!connect_console(run) || !connect_monitor(run))
        run->connect_at_ns = now + (is_new ? CONNECT_NS : CONNECT_SLOW_NS);
}

void spb_session_connect(struct spb_guest *guest)
{
    if (guest->run != NULL && guest->life.phase == SPB_PHASE_CONNECTING)
        guest->run->connect_at_ns = spb_now_ns();
}

static void sooner(int64_t *next_ns, int64_t at_ns)
{
    if (at_ns != 0 && (*next_ns == 0 || at_ns < *next_ns))
        *next_ns = at_ns;
}

int64_t spb_session_next_ns(const struct spb_guest *guest)
{
    const struct spb_guest_run *run = guest->run;
    int64_t next_ns = 0;

    if (run == NULL)
        return 0;
    sooner(&next_ns, run->connect_at_ns);
    sooner(&next_ns, run->answer_at_ns);
    sooner(&next_ns, run->ask_at_ns);
    sooner(&next_ns, run->console_at_ns);
    sooner(&next_ns, run->watch_at_ns);
    return next_ns;
}

/*
 * No answer was read in time. It may be there all the same; and where this thread comes that late
 * it did not run itself, nor, perhaps, did QEMU: the machine was suspended, or hung.
 */
static void miss_answer(struct spb_guest_run *run, int64_t now)
{
    struct spb_error err;

    if (now - run->answer_at_ns > LATE_NS) {
        run->answer_at_ns = now + monitor_ns(run);
        return;
    }
    for (int i = 0; i < READS_AT_END && read_monitor(run); i++) {
    }
    if (run->answer_at_ns != 0 && now >= run->answer_at_ns) {
        run->answer_at_ns = 0;
        (void)spb_fail(&err, SPB_DEADLINE, "QMP: a command was not answered within %llu ms",
                       (unsigned long long)(monitor_ns(run) / SPB_NS_PER_MS));
        spb_qmp_break(&run->qmp, &err);
    }
    look_at_monitor(run);
}

void spb_session_time(struct spb_guest *guest, int64_t now)
{
    struct spb_guest_run *run = guest->run;

    if (run->connect_at_ns != 0 && now >= run->connect_at_ns) {
        if (guest->life.phase == SPB_PHASE_CONNECTING)
            try_to_connect(run, now);
        else
            run->connect_at_ns = 0;
    }
    if (run->watch_at_ns != 0 && now >= run->watch_at_ns)
        watch_process(run);
    if (run->console_at_ns != 0 && now >= run->console_at_ns) {
        run->console_at_ns = 0;
        watch_console(run);
    }
    if (run->ask_at_ns != 0 && now >= run->ask_at_ns) {
        run->ask_at_ns = 0;
        spb_session_tell(guest, "query-status");
    }
    if (run->answer_at_ns != 0 && now >= run->answer_at_ns)
        miss_answer(run, now);
}

/* ---- Commands ----------------------------------------------------------------------------- */

void spb_session_continue(struct spb_guest *guest)
{
    if (ask(guest->run, "cont", on_continued, guest->run))
        flush_monitor(guest->run);
}

void spb_session_tell(struct spb_guest *guest, const char *command)
{
    if (ask(guest->run, command, on_told, guest->run))
        flush_monitor(guest->run);
}

/* Has it written to any disk? */
static bool has_written(const json_t *disks)
{
    const json_t *disk;
    size_t i;

    json_array_foreach(disks, i, disk)
    {
        const json_t *stats = json_object_get(disk, "stats");

        if (json_integer_value(json_object_get(stats, "wr_operations")) > 0)
            return true;
    }
    return false;
}

static void on_look(void *user, const json_t *result, const struct spb_error *error)
{
    struct spb_guest_run *run = user;

    (void)error;
    count_asked(run, -1);
    spb_drive_tell(run->guest, has_written(result) ? SPB_LIFE_SIGN : SPB_LIFE_NO_SIGN, NULL);
}

void spb_session_look(struct spb_guest *guest)
{
    if (ask(guest->run, "query-blockstats", on_look, guest->run))
        flush_monitor(guest->run);
}

struct disks_question {
    struct spb_guest_run *run;
    spb_qmp_done done;
    void *user;
};

static void on_disks(void *user, const json_t *result, const struct spb_error *error)
{
    struct disks_question question = *(struct disks_question *)user;

    free(user);
    question.run->asked_disks--;
    count_asked(question.run, -1);
    question.done(question.user, result, error);
}

bool spb_session_disks(struct spb_guest *guest, spb_qmp_done done, void *user)
{
    if (guest->run == NULL || guest->run->asked_disks >= DISKS_QUESTIONS_MAX)
        return false;
    struct disks_question *question = malloc(sizeof(*question));
    if (question == NULL)
        return false;
    *question = (struct disks_question){guest->run, done, user};
    if (!ask(guest->run, "query-blockstats", on_disks, question)) {
        free(question);
        return false;
    }
    guest->run->asked_disks++;
    flush_monitor(guest->run);
    return true;
}

/* ---- The end ------------------------------------------------------------------------------ */

void spb_run_name(int64_t id, uint64_t run, char name[SPB_RUN_NAME_SIZE])
{
    (void)snprintf(name, SPB_RUN_NAME_SIZE, "g%" PRId64 "-%" PRIu64, id, run);
}

struct spb_guest_run *spb_run_new(struct spb_guest *guest, const char *base)
{
    struct spb_guest_run *run = calloc(1, sizeof(*run));

    if (run == NULL)
        return NULL;
    run->guest = guest;
    (void)snprintf(run->base, sizeof(run->base), "%s", base);
    spb_run_name(guest->id, guest->life.run, run->name);
    run->dir = SPB_RUNDIR_NONE;
    run->process = SPB_PROCESS_NONE;
    run->words.fd = run->child_words_fd = run->procs_fd = run->monitor_fd = -1;
    run->process_source = (struct spb_source){.fd = -1, .ready = on_process};
    run->monitor_source = (struct spb_source){.fd = -1, .ready = on_monitor};
    run->console_source = (struct spb_source){.fd = -1, .ready = on_console};
    run->words_source = (struct spb_source){.fd = -1, .ready = on_words};
    return run;
}

void spb_session_end(struct spb_guest *guest)
{
    struct spb_guest_run *run = guest->run;

    if (run == NULL)
        return;
    close_monitor(run);
    close_console(run);
    spb_source_unwatch(supervisor_of(guest), &run->process_source);
    spb_source_unwatch(supervisor_of(guest), &run->words_source);
    spb_words_close(&run->words);
    spb_process_close(&run->process);
    spb_rundir_close(&run->dir);
    close_fd(&run->child_words_fd);
    close_fd(&run->procs_fd);
    run->process.pid = 0;
    run->connect_at_ns = run->answer_at_ns = run->ask_at_ns = 0;
    run->console_at_ns = run->watch_at_ns = 0;
}

void spb_session_free(struct spb_guest *guest)
{
    struct spb_guest_run *run = guest->run;

    if (run == NULL)
        return;
    if (run->has_qmp)
        spb_qmp_done_all(&run->qmp);
    free(run->argv);
    guest->run = NULL;
    spb_console_rest(guest->console);
    spb_supervisor_free_later(supervisor_of(guest), &run->garbage);
}

void spb_session_let_go(struct spb_guest *guest)
{
    spb_session_end(guest);
    spb_session_free(guest);
}
