/*
 * cgroups (version 2) of guests: a leaf for each, in a subtree that was delegated to the daemon
 * (systemd: Delegate=yes with DelegateSubgroup=daemon, so that the daemon is beside its guests and
 * not above them). Where there is none, guests have their rlimits only.
 *
 * Files of a virtual file system: reads and writes take microseconds. Any thread; no state of its
 * own.
 */
#ifndef SPB_PROCESS_CGROUP_H
#define SPB_PROCESS_CGROUP_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_CGROUP_PATH_SIZE 512u
#define SPB_CGROUP_SUBGROUP "daemon" /* where systemd puts the daemon itself */

struct spb_cgroup {
    int fd; /* owned; -1: there is none, every call on it says SPB_UNSUPPORTED */
    char path[SPB_CGROUP_PATH_SIZE];
};

#define SPB_CGROUP_NONE ((struct spb_cgroup){.fd = -1})

/*
 * The folder in which leaves are made: path, or (NULL) the parent of the caller's own cgroup where
 * that is named SPB_CGROUP_SUBGROUP. Enables the controllers memory, cpu and pids there, and
 * proves (spb_cgroup_prove) that guests can enter.
 * SPB_UNSUPPORTED: the text says, in one line for the log, what is missing; cgroup is
 * SPB_CGROUP_NONE then.
 */
SPB_MUST_USE spb_status spb_cgroup_open(const char *path, struct spb_cgroup *cgroup,
                                        struct spb_error *err);
/* Has a process enter a leaf and end: that leaves can be made does not say that they may be
 * entered. Blocks for a fork. SPB_UNSUPPORTED. */
SPB_MUST_USE spb_status spb_cgroup_prove(const struct spb_cgroup *cgroup, struct spb_error *err);
void spb_cgroup_close(struct spb_cgroup *cgroup);

struct spb_cgroup_limits {
    uint64_t memory_bytes; /* memory.max; 0: none */
    uint32_t cpu_percent;  /* cpu.max, 100 a processor; 0: none */
    uint32_t pids;         /* pids.max, threads; 0: none */
};

/* What a guest of so much memory and so many processors may take at most, with QEMU's own needs. */
struct spb_cgroup_limits spb_cgroup_limits_of(uint32_t memory_mib, uint32_t cpus);

/*
 * Makes the leaf name (as of spb_rundir_make) with its limits. *procs_fd, the caller's to close
 * after the spawn, is for spb_spawn.cgroup_fd. SPB_EXISTS. On failure nothing is left.
 */
SPB_MUST_USE spb_status spb_cgroup_add(const struct spb_cgroup *cgroup, const char *name,
                                       const struct spb_cgroup_limits *limits, int *procs_fd,
                                       struct spb_error *err);
/* SIGKILL to all in the leaf. SPB_NOT_FOUND. */
SPB_MUST_USE spb_status spb_cgroup_kill(const struct spb_cgroup *cgroup, const char *name,
                                        struct spb_error *err);
/* Has the kernel ended a process of the leaf for lack of memory? False where that is not known. */
bool spb_cgroup_was_short(const struct spb_cgroup *cgroup, const char *name);
/* Removes the leaf; success too where it is not there. SPB_IN_USE: processes are in it. */
SPB_MUST_USE spb_status spb_cgroup_remove(const struct spb_cgroup *cgroup, const char *name,
                                          struct spb_error *err);

#endif
