/*
 * Child processes by pidfd: made, signalled, reaped, measured, and found again after a restart of
 * the daemon. No state beside the structs.
 */
#ifndef SPB_PROCESS_PROCESS_H
#define SPB_PROCESS_PROCESS_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "spaceblock/status.h"

/* pidfd: owned, -1: none; polls readable once the process has ended. */
struct spb_process {
    pid_t pid;
    int pidfd;
    bool is_child; /* it can be reaped; false: adopted */
};

#define SPB_PROCESS_NONE ((struct spb_process){.pid = 0, .pidfd = -1})

struct spb_spawn {
    /* argv[0] is a path, or a name that is looked for in PATH. The child's folder is /, so other
     * paths are to be absolute. Borrowed for the call, as all pointers here. */
    char *const *argv;
    int stderr_fd;   /* what the child has as 2; -1: /dev/null, as are 0 and 1 */
    int cgroup_fd;   /* cgroup.procs of its cgroup (spb_leaf_procs); -1: the caller's cgroup */
    uint32_t nofile; /* RLIMIT_NOFILE, both, or the caller's hard one if that is less; 0: as is */
    int nice;        /* 0 to 19, added */
    bool dies_with_caller; /* SIGKILL once the thread that calls this has ended */
};

/*
 * Starts a program as leader of a session of its own, with descriptors 0, 1 and 2 alone, default
 * signal handling but SIGPIPE, which is ignored, an empty signal mask, umask 077, no core dumps,
 * no oom_score_adj below 0, and an environment of PATH and LC_ALL only. Returns once it has been
 * executed: failures before that are told here (SPB_NOT_FOUND: no such program; SPB_UNSUPPORTED: it
 * cannot be executed; SPB_IO, SPB_LIMIT: the step and its errno) and leave no child behind. Blocks
 * for that, some milliseconds. Any thread; but dies_with_caller is about the thread, not the
 * process: call it on one that lives as long as the daemon.
 */
SPB_MUST_USE spb_status spb_process_spawn(const struct spb_spawn *spawn,
                                          struct spb_process *process, struct spb_error *err);

/* Where a program is: name itself made absolute if it has a slash, else from PATH's absolute
 * folders. SPB_NOT_FOUND. Blocks on the disk. */
SPB_MUST_USE spb_status spb_process_find_program(const char *name, char path[PATH_MAX],
                                                 struct spb_error *err);

/*
 * The process that holds the POSIX lock on a pidfile, as QEMU does as long as it lives: unlike the
 * number in the file it cannot be another one that got the same pid. SPB_NOT_FOUND: nobody holds
 * it, or there is no such file: it is dead. Follows no symlink.
 */
SPB_MUST_USE spb_status spb_process_adopt(int folder, const char *pidfile,
                                          struct spb_process *process, struct spb_error *err);

/* SPB_NOT_FOUND: it has ended. */
SPB_MUST_USE spb_status spb_process_signal(const struct spb_process *process, int signal,
                                           struct spb_error *err);
bool spb_process_has_ended(const struct spb_process *process);
/*
 * Takes what is left of a process that has ended. True: *wait_status is filled, as of waitpid.
 * False: it has not ended, or it is not our child and nobody can tell. Does not wait.
 */
bool spb_process_reap(const struct spb_process *process, int *wait_status);
/* Closes the pidfd, harms nobody; a child that was not reaped stays a zombie. Harmless twice. */
void spb_process_close(struct spb_process *process);

struct spb_process_stats {
    uint64_t cpu_ms;         /* user and system, of all threads */
    uint64_t resident_bytes; /* memory in use */
};
/* From /proc, and certain to be of this process. SPB_NOT_FOUND: it has ended. Short reads of /proc.
 */
SPB_MUST_USE spb_status spb_process_stats(const struct spb_process *process,
                                          struct spb_process_stats *stats, struct spb_error *err);

#endif
