/*
 * A disk under the audit's database that fails, dies with the process, or loses power. The program
 * that links this has its calls of pwrite, fdatasync, ftruncate and unlink go through it, SQLite's
 * among them, for files in one folder that is watched; all others pass.
 *
 * What a power loss would leave is kept beside each file: a copy of what was flushed, and which
 * pages were written since. A flush that is made to fail drops those, as Linux does: they stay
 * readable, count as clean, and are not on the medium.
 *
 * A disk is used by one process at a time: the child that works on it and dies, then the parent
 * that looks. Its state is in memory that both share. Any thread.
 */
#ifndef SPB_CRASH_AUDIT_DISK_H
#define SPB_CRASH_AUDIT_DISK_H

#include <stdbool.h>
#include <stdint.h>

enum disk_calls { DISK_WRITES = 1, DISK_FLUSHES = 2, DISK_ALL = 3 };

enum disk_action {
    DISK_DIES,       /* SIGKILL, a write half done */
    DISK_FAILS,      /* EIO; a write half done */
    DISK_IS_FULL,    /* ENOSPC; writes only; half done */
    DISK_DIES_AFTER, /* the call is done, then SIGKILL */
    DISK_DROPS,      /* flushes only: it fails, and SIGKILL before anybody can do anything */
    DISK_ACTION_COUNT,
};

struct disk_plan {
    enum disk_calls calls;
    enum disk_action action;
    uint64_t at;    /* the so-manieth of them, from 1; 0: never */
    uint64_t times; /* and so many in a row */
};

/* Watches files in the folder (an absolute path). Before the first fork. */
void disk_init(const char *folder);
/* Forgets what was counted and planned; all that is there is on the medium. */
void disk_settle(void);
/* From now on. */
void disk_plan(const struct disk_plan *plan);
/* The process that used it is dead, and may have held its lock. Nothing is planned any more. */
void disk_revive(void);
/* Calls since, and how many of them the plan struck. */
uint64_t disk_count(void);
uint64_t disk_struck(void);

/* Turns the files into what a power loss may leave. seed 0: nothing that was not flushed. */
void disk_lose_power(uint64_t seed);
/* Removes all files of the folder, and what is kept beside them. */
void disk_clear(void);

#endif
