/*
 * Starting a program; see spb_process_spawn. The daemon has threads, so between the fork and the
 * execution only functions that are safe in a signal handler are called: what needs memory or looks
 * things up is done before.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "supervisor/process/process.h"

#define USUAL_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define LOWEST_PLACE 3 /* descriptors below are given to the child */

/* What the child reports where it could not go on. */
struct failure {
    int step; /* of steps below */
    int number;
    unsigned long long asked, found; /* of a limit: what it was to be, and how high it may be */
};

enum {
    STEP_SESSION,
    STEP_PARENT,
    STEP_CGROUP,
    STEP_CORES,
    STEP_NOFILE,
    STEP_NICE,
    STEP_FILES,
    STEP_EXECUTE,
};

static const char *const step_words[] = {
    [STEP_SESSION] = "beginning a session",     [STEP_PARENT] = "binding it to its parent",
    [STEP_CGROUP] = "entering its cgroup",      [STEP_CORES] = "its limit of core dumps",
    [STEP_NOFILE] = "its limit of open files",  [STEP_NICE] = "lowering its priority",
    [STEP_FILES] = "giving it its descriptors", [STEP_EXECUTE] = "executing it",
};

/* What the child needs, made before the fork. */
struct plan {
    const struct spb_spawn *spawn;
    const char *path; /* of the program */
    pid_t parent;
    int null_fd, stderr_fd, report_fd; /* all LOWEST_PLACE or above */
};

/* ---- In the child ------------------------------------------------------------------------- */

static char *const child_environment[] = {(char[]){"PATH=" USUAL_PATH}, (char[]){"LC_ALL=C"}, NULL};

static _Noreturn void report(const struct plan *plan, const struct failure *failure)
{
    (void)!write(plan->report_fd, failure, sizeof(*failure));
    _exit(127);
}

static _Noreturn void give_up(const struct plan *plan, int step)
{
    struct failure failure = {.step = step, .number = errno};

    report(plan, &failure);
}

static void reset_signals(void)
{
    struct sigaction usual = {.sa_handler = SIG_DFL}, ignored = {.sa_handler = SIG_IGN};
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        (void)sigaction(i, i == SIGPIPE ? &ignored : &usual, NULL); /* some cannot be set */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void bind_to_parent(const struct plan *plan)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        give_up(plan, STEP_PARENT);
    /* The parent may have ended before. */
    if (getppid() != plan->parent) {
        errno = ESRCH;
        give_up(plan, STEP_PARENT);
    }
}

static void enter_cgroup(const struct plan *plan)
{
    int fd = plan->spawn->cgroup_fd;

    if (fd >= 0 && write(fd, "0", 1) != 1)
        give_up(plan, STEP_CGROUP);
}

/* Where memory runs out the daemon may be spared more than others are; what it starts is not.
 * Nothing depends on that: a failure is none of the child's. */
static void give_up_protection(void)
{
    char sign = '0';
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return;
    if (read(fd, &sign, 1) == 1 && sign == '-')
        (void)!pwrite(fd, "0", 1, 0);
    (void)close(fd);
}

/* Both of it. Where it may not be as high, it is as high as it may be. */
static void set_limit(const struct plan *plan, int step, unsigned resource, rlim_t limit)
{
    struct rlimit now = {0, 0};
    bool is_known = getrlimit(resource, &now) == 0;

    if (is_known && limit > now.rlim_max)
        limit = now.rlim_max;
    struct rlimit both = {limit, limit};
    if (is_known && setrlimit(resource, &both) == 0)
        return;
    struct failure failure = {.step = step, .number = errno, .asked = limit, .found = now.rlim_max};
    report(plan, &failure);
}

static void set_limits(const struct plan *plan)
{
    set_limit(plan, STEP_CORES, RLIMIT_CORE, 0);
    if (plan->spawn->nofile > 0)
        set_limit(plan, STEP_NOFILE, RLIMIT_NOFILE, plan->spawn->nofile);
    errno = 0;
    if (plan->spawn->nice > 0 && nice(plan->spawn->nice) == -1 && errno != 0)
        give_up(plan, STEP_NICE);
}

static void give_files(const struct plan *plan)
{
    if (dup2(plan->null_fd, 0) < 0 || dup2(plan->null_fd, 1) < 0 || dup2(plan->stderr_fd, 2) < 0)
        give_up(plan, STEP_FILES);
    if (close_range(LOWEST_PLACE, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0)
        give_up(plan, STEP_FILES);
}

static _Noreturn void run_child(const struct plan *plan)
{
    if (setsid() < 0)
        give_up(plan, STEP_SESSION);
    if (plan->spawn->dies_with_caller)
        bind_to_parent(plan);
    enter_cgroup(plan);
    give_up_protection(); /* it takes a descriptor, of which the limits may leave none */
    set_limits(plan);
    give_files(plan);
    if (chdir("/") < 0)
        give_up(plan, STEP_FILES);
    (void)umask(077);
    reset_signals();
    (void)execve(plan->path, plan->spawn->argv, child_environment);
    give_up(plan, STEP_EXECUTE);
}

/* ---- Before and after --------------------------------------------------------------------- */

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* In one of the folders of $PATH. */
static bool search(const char *name, char path[PATH_MAX])
{
    const char *folders = getenv("PATH");

    for (folders = folders == NULL ? USUAL_PATH : folders; *folders != '\0';) {
        size_t n = strcspn(folders, ":");
        int size = snprintf(path, PATH_MAX, "%.*s/%s", (int)n, folders, name);

        if (n > 0 && *folders == '/' && size < PATH_MAX && is_program(path))
            return true;
        folders += n + (folders[n] == ':');
    }
    return false;
}

spb_status spb_process_find_program(const char *name, char path[PATH_MAX], struct spb_error *err)
{
    if (strchr(name, '/') == NULL) {
        if (!search(name, path))
            return spb_fail(err, SPB_NOT_FOUND, "cannot find the program %s in PATH", name);
        return spb_ok();
    }
    if (realpath(name, path) == NULL)
        return spb_fail_errno(err, SPB_NOT_FOUND, errno, "cannot find the program %s", name);
    return spb_ok();
}

static spb_status fail_start(const char *path, const struct failure *failure, struct spb_error *err)
{
    enum spb_code code = SPB_IO;

    if (failure->step == STEP_EXECUTE)
        code = failure->number == ENOENT ? SPB_NOT_FOUND : SPB_UNSUPPORTED;
    else if (failure->number == EAGAIN || failure->number == ENOMEM)
        code = SPB_LIMIT;
    if (failure->step == STEP_CORES || failure->step == STEP_NOFILE)
        return spb_fail_errno(err, code, failure->number,
                              "cannot start %s: setting %s to %llu, where it may be %llu", path,
                              step_words[failure->step], failure->asked, failure->found);
    return spb_fail_errno(err, code, failure->number, "cannot start %s: %s", path,
                          step_words[failure->step]);
}

static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

/* Waits until the child is executed, which closes the pipe, or tells why not. */
static spb_status await_execution(const char *path, pid_t pid, int fd, struct spb_error *err)
{
    struct failure failure;
    ssize_t got;

    do
        got = read(fd, &failure, sizeof(failure));
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return spb_ok();
    reap(pid);
    if (got != (ssize_t)sizeof(failure) || failure.step < 0 || failure.step > STEP_EXECUTE)
        return spb_fail(err, SPB_IO, "cannot start %s: it ended before it was executed", path);
    return fail_start(path, &failure, err);
}

static spb_status start(struct plan *plan, int report_read, struct spb_process *process,
                        struct spb_error *err)
{
    sigset_t all, before;

    plan->parent = getpid();
    (void)sigfillset(&all);
    /* No handler of the daemon's may run in the child. */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Not fork(): handlers that others registered for it are not meant for a child that only
     * executes. */
    pid_t pid = _Fork();
    if (pid == 0)
        run_child(plan);
    int number = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)close(plan->report_fd);
    plan->report_fd = -1;
    if (pid < 0)
        return spb_fail_errno(err, SPB_LIMIT, number, "cannot start %s: making a process",
                              plan->path);
    SPB_TRY(await_execution(plan->path, pid, report_read, err));
    /* The pid is ours until it is reaped. */
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        number = errno;
        (void)kill(pid, SIGKILL);
        reap(pid);
        return spb_fail_errno(err, SPB_LIMIT, number, "cannot start %s: opening its pidfd",
                              plan->path);
    }
    *process = (struct spb_process){.pid = pid, .pidfd = pidfd, .is_child = true};
    return spb_ok();
}

static void close_plan(struct plan *plan)
{
    int fds[] = {plan->null_fd, plan->stderr_fd, plan->report_fd};

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
    }
}

/* A copy of fd that giving the child its 0, 1 and 2 does not overwrite. */
static int copy_above(int fd)
{
    return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_PLACE);
}

static spb_status make_plan(struct plan *plan, int report_write, struct spb_error *err)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    plan->null_fd = copy_above(null_fd);
    plan->stderr_fd = copy_above(plan->spawn->stderr_fd < 0 ? null_fd : plan->spawn->stderr_fd);
    plan->report_fd = copy_above(report_write);
    int number = errno;
    if (null_fd >= 0)
        (void)close(null_fd);
    if (plan->null_fd < 0 || plan->stderr_fd < 0 || plan->report_fd < 0)
        return spb_fail_errno(err, SPB_LIMIT, number, "cannot start %s: opening its descriptors",
                              plan->path);
    return spb_ok();
}

spb_status spb_process_spawn(const struct spb_spawn *spawn, struct spb_process *process,
                             struct spb_error *err)
{
    char path[PATH_MAX];
    int report[2];

    SPB_TRY(spb_process_find_program(spawn->argv[0], path, err));
    struct plan plan = {
        .spawn = spawn, .path = path, .null_fd = -1, .stderr_fd = -1, .report_fd = -1};
    if (pipe2(report, O_CLOEXEC) < 0)
        return spb_fail_errno(err, SPB_LIMIT, errno, "cannot start %s: making a pipe", path);
    spb_status status = make_plan(&plan, report[1], err);
    (void)close(report[1]);
    if (spb_is_ok(status))
        status = start(&plan, report[0], process, err);
    (void)close(report[0]);
    close_plan(&plan);
    return status;
}
