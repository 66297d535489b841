/* A QEMU in the foreground; see qemu.h. */
#include "cli/launch/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/launch/terminal.h"
#include "supervisor/machine/qmp.h"

#define CARRIED_MAX 65536u /* bytes of console that wait for standard output */
#define KEYS_MAX 4096u     /* bytes that wait for the guest */
#define START_MS 20000     /* until the monitor has greeted */
#define QUIT_MS 5000       /* until QEMU has obeyed, before it is killed */

enum { ON_EXIT, ON_SIGNAL, ON_WORDS, ON_MONITOR, ON_CONSOLE, ON_OUT, ON_KEYS, ON_COUNT };

struct run {
    pid_t pid;
    int exit_fd, signal_fd, words_fd, monitor_fd, console_fd; /* -1: closed */
    bool keys_end;                                            /* standard input is at its end */
    struct cli_terminal terminal;
    struct spb_qmp qmp;
    bool runs; /* the guest was let run */
    bool asked;
    int64_t until_ms; /* of starting or quitting; 0: none */
    int wait_status;
    bool ended;
    char carried[CARRIED_MAX], keys[KEYS_MAX];
    size_t carried_size, keys_size;
    struct cli_qemu_result *result;
    struct spb_error failure; /* of the monitor */
};

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* ---- Starting ----------------------------------------------------------------------------- */

struct child {
    char **argv;
    int console_fd, monitor_fd, words_fd;
    pid_t parent;
};

/* In the child: only what is safe after a fork. */
static _Noreturn void become_qemu(const struct child *child)
{
    sigset_t none;
    int null = open("/dev/null", O_RDWR);

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid(); /* the terminal's signals are ours to take */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != child->parent)
        _exit(127);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(child->words_fd, STDERR_FILENO) < 0 || fcntl(child->console_fd, F_SETFD, 0) != 0 ||
        fcntl(child->monitor_fd, F_SETFD, 0) != 0)
        _exit(127);
    (void)execvp(child->argv[0], child->argv);
    static const char text[] = "the program could not be started\n";
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    _exit(127);
}

static spb_status spawn(struct run *run, const struct child *child, struct spb_error *err)
{
    run->pid = fork();
    if (run->pid == 0)
        become_qemu(child);
    if (run->pid < 0)
        return spb_fail_errno(err, SPB_NO_MEMORY, errno, "starting %s", child->argv[0]);
    run->exit_fd = (int)syscall(SYS_pidfd_open, run->pid, 0);
    if (run->exit_fd >= 0)
        return spb_ok();
    int number = errno;
    (void)kill(run->pid, SIGKILL);
    (void)waitpid(run->pid, NULL, 0);
    return spb_fail_errno(err, SPB_UNSUPPORTED, number, "watching %s", child->argv[0]);
}

static spb_status make_channels(struct run *run, struct child *child, struct spb_error *err)
{
    int console[2], monitor[2], words[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "making the console's socket");
    run->console_fd = console[0];
    child->console_fd = console[1];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "making the monitor's socket");
    run->monitor_fd = monitor[0];
    child->monitor_fd = monitor[1];
    if (pipe2(words, O_CLOEXEC) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "making a pipe");
    run->words_fd = words[0];
    child->words_fd = words[1];
    return spb_ok();
}

static spb_status start(struct run *run, struct spb_machine *machine, struct spb_error *err)
{
    struct child child = {.console_fd = -1, .monitor_fd = -1, .words_fd = -1, .parent = getpid()};

    spb_status status = make_channels(run, &child, err);
    if (spb_is_ok(status)) {
        machine->console = (struct spb_machine_channel){.fd = child.console_fd};
        machine->monitor = (struct spb_machine_channel){.fd = child.monitor_fd};
        status = spb_machine_command(machine, &child.argv, err);
    }
    if (spb_is_ok(status))
        status = spawn(run, &child, err);
    close_fd(&child.console_fd);
    close_fd(&child.monitor_fd);
    close_fd(&child.words_fd);
    free(child.argv);
    return status;
}

/* ---- The monitor -------------------------------------------------------------------------- */

static void ignore_answer(void *user, const json_t *result, const struct spb_error *error)
{
    (void)user;
    (void)result;
    (void)error;
}

static void on_running(void *user, const json_t *result, const struct spb_error *error)
{
    struct run *run = user;

    run->runs = result != NULL;
    if (result != NULL)
        run->until_ms = 0;
    else
        run->failure = *error;
}

static void on_ready(void *user)
{
    struct run *run = user;

    if (!spb_is_ok(spb_qmp_execute(&run->qmp, "cont", NULL, on_running, run, &run->failure)))
        run->until_ms = 1;
}

static void on_event(void *user, const char *name, const json_t *data, double seconds)
{
    struct run *run = user;

    (void)seconds;
    spb_ending_take_event(&run->result->ending, name, data);
}

/* Asks QEMU to quit; one that does not is killed after a while. */
static void ask_to_quit(struct run *run)
{
    if (run->asked)
        return;
    run->asked = true;
    if (run->ended) /* only its output is waited for */
        return;
    run->until_ms = now_ms() + QUIT_MS;
    if (!spb_is_ok(spb_qmp_execute(&run->qmp, "quit", NULL, ignore_answer, run, NULL)))
        (void)kill(run->pid, SIGTERM);
}

static void kill_qemu(struct run *run)
{
    (void)kill(run->pid, SIGKILL); /* not reaped yet: the pid is its own */
    run->until_ms = 0;
}

/* ---- Moving bytes ------------------------------------------------------------------------- */

/* What was written last is kept: an error stands at the end. */
static void take_words(struct run *run)
{
    char bytes[1024];
    size_t room = CLI_QEMU_WORDS_SIZE - 1, kept = strlen(run->result->words);
    ssize_t n = read(run->words_fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes));

    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        close_fd(&run->words_fd);
    if (n <= 0)
        return;
    for (ssize_t i = 0; i < n; i++)
        bytes[i] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : ' ';
    size_t drop = kept + (size_t)n > room ? kept + (size_t)n - room : 0;
    memmove(run->result->words, run->result->words + drop, kept - drop);
    memcpy(run->result->words + kept - drop, bytes, (size_t)n);
    run->result->words[kept - drop + (size_t)n] = '\0';
}

static void move_monitor(struct run *run, short events)
{
    char bytes[16384];
    size_t size = 0;
    const char *output = spb_qmp_output(&run->qmp, &size);

    if ((events & POLLOUT) != 0 && size > 0) {
        ssize_t n = send(run->monitor_fd, output, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            spb_qmp_sent(&run->qmp, (size_t)n);
    }
    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0)
        return;
    ssize_t n = recv(run->monitor_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0)
        spb_qmp_feed(&run->qmp, bytes, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_fd(&run->monitor_fd);
}

static bool has_room(const struct run *run)
{
    return run->carried_size < CARRIED_MAX;
}

/* With room only: to receive into nothing looks like the end. */
static void take_console(struct run *run)
{
    ssize_t n = recv(run->console_fd, run->carried + run->carried_size,
                     CARRIED_MAX - run->carried_size, MSG_DONTWAIT);

    if (n > 0)
        run->carried_size += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_fd(&run->console_fd);
}

/* To standard output; what nobody takes any more is dropped, the guest goes on. */
static void give_output(struct run *run)
{
    ssize_t n = write(STDOUT_FILENO, run->carried, run->carried_size);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    size_t gone = n < 0 ? run->carried_size : (size_t)n;
    run->carried_size -= gone;
    memmove(run->carried, run->carried + gone, run->carried_size);
}

static void take_keys(struct run *run)
{
    size_t room = KEYS_MAX - run->keys_size;
    char *at = run->keys + run->keys_size;
    ssize_t n = read(STDIN_FILENO, at, room);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        run->keys_end = true;
    if (n <= 0)
        return;
    size_t kept = (size_t)n;
    bool ends = cli_terminal_filter(&run->terminal, at, &kept);
    run->keys_size += kept;
    if (ends)
        ask_to_quit(run);
}

static void give_keys(struct run *run)
{
    ssize_t n = send(run->console_fd, run->keys, run->keys_size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n <= 0)
        return;
    run->keys_size -= (size_t)n;
    memmove(run->keys, run->keys + n, run->keys_size);
}

/* ---- The loop ----------------------------------------------------------------------------- */

static void take_signal(struct run *run)
{
    struct signalfd_siginfo info;

    if (read(run->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        ask_to_quit(run);
}

static void prepare_polls(const struct run *run, struct pollfd polls[ON_COUNT])
{
    size_t output = 0;

    (void)spb_qmp_output(&run->qmp, &output);
    for (int i = 0; i < ON_COUNT; i++)
        polls[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    polls[ON_EXIT].fd = run->exit_fd;
    polls[ON_SIGNAL].fd = run->signal_fd;
    polls[ON_WORDS].fd = run->words_fd;
    polls[ON_MONITOR].fd = run->monitor_fd;
    if (output > 0)
        polls[ON_MONITOR].events |= POLLOUT;
    /* Without room not even a hangup is of use: what was printed before it is still to be read. */
    if (has_room(run))
        polls[ON_CONSOLE].fd = run->console_fd;
    if (run->keys_size > 0)
        polls[ON_CONSOLE].events |= POLLOUT;
    if (run->carried_size > 0)
        polls[ON_OUT] = (struct pollfd){.fd = STDOUT_FILENO, .events = POLLOUT};
    if (!run->keys_end && run->keys_size < KEYS_MAX)
        polls[ON_KEYS].fd = STDIN_FILENO;
}

static void turn(struct run *run, const struct pollfd polls[ON_COUNT])
{
    if (polls[ON_WORDS].revents != 0)
        take_words(run);
    if (polls[ON_MONITOR].revents != 0)
        move_monitor(run, polls[ON_MONITOR].revents);
    if (polls[ON_SIGNAL].revents != 0)
        take_signal(run);
    if ((polls[ON_CONSOLE].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
        take_console(run);
    if (polls[ON_OUT].revents != 0)
        give_output(run);
    if (polls[ON_KEYS].revents != 0)
        take_keys(run);
    if (run->console_fd >= 0 && run->keys_size > 0)
        give_keys(run);
    if (run->until_ms > 0 && now_ms() >= run->until_ms)
        kill_qemu(run);
    /* Its last words and events are still in the sockets. */
    if (polls[ON_EXIT].revents != 0 && waitpid(run->pid, &run->wait_status, WNOHANG) == run->pid) {
        run->ended = true;
        run->until_ms = 0; /* its pid may be another's from now on */
    }
}

/* Who has asked for the end does not wait for a standard output that takes nothing. */
static bool has_more(const struct run *run)
{
    return !run->ended || run->words_fd >= 0 || run->monitor_fd >= 0 ||
           (run->console_fd >= 0 && (has_room(run) || !run->asked)) ||
           (run->carried_size > 0 && !run->asked);
}

static spb_status loop(struct run *run, struct spb_error *err)
{
    run->until_ms = now_ms() + START_MS;
    while (has_more(run)) {
        struct pollfd polls[ON_COUNT];
        int64_t left_ms = run->until_ms == 0 ? -1 : run->until_ms - now_ms();

        prepare_polls(run, polls);
        if (run->ended)
            polls[ON_EXIT].fd = -1;
        if (poll(polls, ON_COUNT, left_ms < 0 && run->until_ms != 0 ? 0 : (int)left_ms) < 0 &&
            errno != EINTR)
            return spb_fail_errno(err, SPB_IO, errno, "waiting for the guest");
        turn(run, polls);
    }
    return spb_ok();
}

static spb_status take_signals(struct run *run, sigset_t *before, struct spb_error *err)
{
    sigset_t taken;

    (void)sigemptyset(&taken);
    (void)sigaddset(&taken, SIGINT);
    (void)sigaddset(&taken, SIGTERM);
    (void)sigaddset(&taken, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &taken, before);
    run->signal_fd = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signal_fd >= 0)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, errno, "preparing to take signals");
}

/* How it went, once QEMU has ended. */
static spb_status conclude(struct run *run, const char *program, struct spb_error *err)
{
    run->result->was_asked = run->asked;
    spb_ending_take_exit(&run->result->ending, run->wait_status);
    if (run->runs || run->asked)
        return spb_ok();
    if (run->failure.code != SPB_OK)
        return spb_fail(err, SPB_REMOTE, "%s did not let the guest run: %s", program,
                        run->failure.text);
    return spb_fail(err, SPB_REMOTE, "%s ended before the guest ran (%s %d): %s", program,
                    WIFSIGNALED(run->wait_status) ? "signal" : "exit code",
                    WIFSIGNALED(run->wait_status) ? WTERMSIG(run->wait_status)
                                                  : WEXITSTATUS(run->wait_status),
                    run->result->words[0] == '\0' ? "it wrote nothing" : run->result->words);
}

static spb_status run_all(struct run *run, struct spb_machine *machine, struct spb_error *err)
{
    SPB_TRY(start(run, machine, err));
    spb_status status = cli_terminal_init(&run->terminal, err);
    if (spb_is_ok(status))
        status = loop(run, err);
    cli_terminal_done(&run->terminal);
    if (!run->ended) {
        (void)kill(run->pid, SIGKILL);
        (void)waitpid(run->pid, &run->wait_status, 0);
    }
    return spb_is_ok(status) ? conclude(run, machine->program, err) : status;
}

spb_status cli_qemu_run(struct spb_machine *machine, struct cli_qemu_result *result,
                        struct spb_error *err)
{
    static const struct spb_qmp_hooks hooks = {.ready = on_ready, .event = on_event};
    struct spb_qmp_hooks mine = hooks;
    struct run *run = calloc(1, sizeof(*run));
    sigset_t before;

    if (run == NULL)
        return spb_fail_memory(err, "starting a guest");
    run->exit_fd = run->signal_fd = run->words_fd = run->monitor_fd = run->console_fd = -1;
    run->terminal.output_flags = -1;
    run->result = result;
    mine.user = run;
    *result = (struct cli_qemu_result){.ending = SPB_ENDING_NONE};
    spb_qmp_init(&run->qmp, &mine);
    spb_status status = take_signals(run, &before, err);
    if (spb_is_ok(status))
        status = run_all(run, machine, err);
    spb_qmp_done_all(&run->qmp);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    close_fd(&run->exit_fd);
    close_fd(&run->signal_fd);
    close_fd(&run->words_fd);
    close_fd(&run->monitor_fd);
    close_fd(&run->console_fd);
    free(run);
    return status;
}
