/* Processes by pidfd; see process.h. */
#include "supervisor/process/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"

#define ADOPT_TRIES 8

/* ---- Adoption ----------------------------------------------------------------------------- */

/* Does a process hold a lock on the file? pid: 0 or less where it is none that we can see. */
static spb_status find_holder(int fd, const char *pidfile, bool *is_held, pid_t *pid,
                              struct spb_error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_GETLK, &lock) < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot tell who holds the pidfile %s", pidfile);
    *is_held = lock.l_type != F_UNLCK;
    *pid = *is_held ? lock.l_pid : 0;
    return spb_ok();
}

/* pidfd_open, where the process has not ended since: then *pidfd is -1. */
static spb_status open_pidfd(pid_t pid, int *pidfd, struct spb_error *err)
{
    *pidfd = pidfd_open(pid, 0);
    if (*pidfd < 0 && errno != ESRCH)
        return spb_fail_errno(err, SPB_IO, errno, "cannot open a pidfd of process %d", pid);
    return spb_ok();
}

/* Who holds the lock before and after its pidfd was opened is who the pidfd is of. */
static spb_status adopt(int fd, const char *pidfile, struct spb_process *process,
                        struct spb_error *err)
{
    for (int i = 0; i < ADOPT_TRIES; i++) {
        bool is_held = false;
        pid_t pid = 0, again = 0;
        int pidfd = -1;

        SPB_TRY(find_holder(fd, pidfile, &is_held, &pid, err));
        if (!is_held)
            return spb_fail(err, SPB_NOT_FOUND, "no process holds the pidfile %s: it has ended",
                            pidfile);
        if (pid <= 0)
            return spb_fail(err, SPB_IO, "who holds the pidfile %s is no process that is seen here",
                            pidfile);
        SPB_TRY(open_pidfd(pid, &pidfd, err));
        spb_status status = find_holder(fd, pidfile, &is_held, &again, err);
        if (spb_is_ok(status) && pidfd >= 0 && again == pid) {
            *process = (struct spb_process){.pid = pid, .pidfd = pidfd};
            return spb_ok();
        }
        if (pidfd >= 0)
            (void)close(pidfd);
        SPB_TRY(status);
    }
    return spb_fail(err, SPB_IO, "cannot tell who holds the pidfile %s: it keeps changing",
                    pidfile);
}

spb_status spb_process_adopt(int folder, const char *pidfile, struct spb_process *process,
                             struct spb_error *err)
{
    int fd = openat(folder, pidfile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 && errno == ENOENT)
        return spb_fail(err, SPB_NOT_FOUND, "there is no pidfile %s", pidfile);
    if (fd < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot open the pidfile %s", pidfile);
    spb_status status = adopt(fd, pidfile, process, err);
    (void)close(fd);
    return status;
}

/* ---- Signals and the end ------------------------------------------------------------------ */

static spb_status fail_ended(const struct spb_process *process, struct spb_error *err)
{
    return spb_fail(err, SPB_NOT_FOUND, "process %d has ended", process->pid);
}

spb_status spb_process_signal(const struct spb_process *process, int signal, struct spb_error *err)
{
    if (process->pidfd < 0)
        return fail_ended(process, err);
    if (pidfd_send_signal(process->pidfd, signal, NULL, 0) == 0)
        return spb_ok();
    if (errno == ESRCH)
        return fail_ended(process, err);
    return spb_fail_errno(err, SPB_IO, errno, "cannot send signal %d to process %d", signal,
                          process->pid);
}

bool spb_process_has_ended(const struct spb_process *process)
{
    struct pollfd poll_fd = {.fd = process->pidfd, .events = POLLIN};
    int rc;

    if (process->pidfd < 0)
        return true;
    do
        rc = poll(&poll_fd, 1, 0);
    while (rc < 0 && errno == EINTR);
    return rc > 0;
}

/* waitid tells parts of what waitpid tells in one number. */
static int wait_status_of(const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED)
        return W_EXITCODE(info->si_status, 0);
    return W_EXITCODE(0, info->si_status) | (info->si_code == CLD_DUMPED ? WCOREFLAG : 0);
}

bool spb_process_reap(const struct spb_process *process, int *wait_status)
{
    siginfo_t info = {.si_pid = 0};
    int rc;

    if (!process->is_child || process->pidfd < 0)
        return false;
    do
        rc = waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 || info.si_pid == 0)
        return false;
    *wait_status = wait_status_of(&info);
    return true;
}

void spb_process_close(struct spb_process *process)
{
    if (process->pidfd >= 0)
        (void)close(process->pidfd);
    *process = SPB_PROCESS_NONE;
}

/* ---- Figures ------------------------------------------------------------------------------ */

/* The text of /proc/PID/FILE, cut where it is too long. */
static spb_status read_proc(pid_t pid, const char *file, char *text, size_t size,
                            struct spb_error *err)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    int number = errno;
    if (fd >= 0)
        (void)close(fd);
    if (got < 0)
        return spb_fail_errno(err, SPB_IO, number, "cannot read %s", path);
    text[got] = '\0';
    return spb_ok();
}

/* The number that is the index-th word of text, from 0. */
static bool find_number(const char *text, unsigned index, uint64_t *number)
{
    char *end;

    for (; index > 0; index--) {
        text += strspn(text, " ");
        text += strcspn(text, " ");
    }
    errno = 0;
    uint64_t found = strtoull(text, &end, 10);
    if (end == text || errno != 0)
        return false;
    *number = found;
    return true;
}

/* Fields 14 and 15 of proc(5)'s stat; the second, in parentheses, may hold anything. */
static bool parse_ticks(const char *text, uint64_t *ticks)
{
    const char *after = strrchr(text, ')');
    uint64_t user, kernel;

    if (after == NULL || !find_number(after + 1, 11, &user) || !find_number(after + 1, 12, &kernel))
        return false;
    *ticks = user + kernel;
    return true;
}

static spb_status measure(pid_t pid, struct spb_process_stats *stats, struct spb_error *err)
{
    char text[1024];
    uint64_t ticks, pages;

    SPB_TRY(read_proc(pid, "stat", text, sizeof(text), err));
    if (!parse_ticks(text, &ticks))
        return spb_fail(err, SPB_IO, "cannot read the times of process %d", pid);
    SPB_TRY(read_proc(pid, "statm", text, sizeof(text), err));
    if (!find_number(text, 1, &pages))
        return spb_fail(err, SPB_IO, "cannot read the memory of process %d", pid);
    stats->cpu_ms = ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
    stats->resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return spb_ok();
}

spb_status spb_process_stats(const struct spb_process *process, struct spb_process_stats *stats,
                             struct spb_error *err)
{
    struct spb_process_stats found;

    spb_status status = process->pidfd < 0 ? spb_ok() : measure(process->pid, &found, err);
    /* As it had not ended after that, its pid was its own meanwhile. */
    if (spb_process_has_ended(process))
        return fail_ended(process, err);
    SPB_TRY(status);
    *stats = found;
    return spb_ok();
}
