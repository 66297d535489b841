/*
 * One run of a guest: its QEMU's process, folder, monitor and console. What comes from them becomes
 * inputs of the guest's life. The supervisor's thread, but for who prepares a run before it is
 * spawned, or takes what is left of it afterwards (work.h).
 *
 * QEMU can do nothing here but end its own run: a monitor that says what is no QMP, or nothing in
 * time, breaks the session, and QEMU is killed.
 */
#ifndef SPB_SUPERVISOR_SESSION_H
#define SPB_SUPERVISOR_SESSION_H

#include "supervisor/guest.h"
#include "supervisor/machine/qmp.h"
#include "supervisor/process/process.h"
#include "supervisor/process/rundir.h"
#include "supervisor/process/words.h"
#include "supervisor/thread.h"

#define SPB_RUN_NAME_SIZE 48u

struct spb_guest_run {
    struct spb_garbage garbage;
    struct spb_guest *guest; /* borrowed: it owns the run */
    struct spb_task task;    /* of preparing and of releasing it, as the next */
    struct spb_post post;
    struct spb_guest_row row; /* that says it may have begun */
    /* From the preparation. */
    char base[SPB_ROW_FOLDER_SIZE];
    char name[SPB_RUN_NAME_SIZE]; /* of folder and cgroup */
    struct spb_rundir dir;
    struct spb_words words;
    int child_words_fd, procs_fd;       /* for the child; -1: none, or given */
    char **argv;                        /* owned */
    uint32_t accel;                     /* the API's */
    struct spb_error failure;           /* of preparing it; code SPB_OK: none */
    char finding[SPB_LIFE_REASON_SIZE]; /* of releasing it; empty: none */
    bool is_left;                       /* its folder could not be removed, for now */

    struct spb_process process;
    struct spb_qmp qmp;
    bool has_qmp;
    int monitor_fd; /* owned; -1: none */
    struct spb_source process_source, monitor_source, console_source, words_source;
    int64_t connect_at_ns, answer_at_ns; /* 0: none */
    int64_t ask_at_ns;                   /* whether it still answers; 0: it is being asked */
    int64_t console_at_ns;               /* not read before; 0: it is read */
    int64_t watch_at_ns;                 /* the process could not be watched; 0: it is */
    unsigned asked;                      /* commands that are not answered */
    unsigned asked_disks;                /* of them spb_session_disks */
    bool is_in_cgroup;                   /* that is known: it was spawned by this daemon */
    bool is_stranger;                    /* another QEMU answered: it is left alone */
};

/* "g12-3": folder and cgroup of a guest's run. */
void spb_run_name(int64_t id, uint64_t run, char name[SPB_RUN_NAME_SIZE]);
/* The guest's run that its life counts, in a folder in base; without anything open. NULL without
 * memory. */
struct spb_guest_run *spb_run_new(struct spb_guest *guest, const char *base);

/* Spawns what was prepared. */
SPB_MUST_USE spb_status spb_session_spawn(struct spb_guest *guest, struct spb_error *err);
/* A QEMU of an earlier daemon, of which process and folder are there. */
void spb_session_adopt(struct spb_guest *guest);
/* Begins to connect to the sockets, which appear when QEMU is so far. */
void spb_session_connect(struct spb_guest *guest);

void spb_session_continue(struct spb_guest *guest);
/* A command whose answer says nothing. */
void spb_session_tell(struct spb_guest *guest, const char *command);
void spb_session_kill(struct spb_guest *guest);
/* Asks whether it wrote to a disk. */
void spb_session_look(struct spb_guest *guest);

/* Asks for the disks' statistics. done is called once, with NULL where there are none. False: it
 * was not asked, and is not called; also where many such questions are unanswered. */
bool spb_session_disks(struct spb_guest *guest, spb_qmp_done done, void *user);

/* Closes all that is open of it but its folder: QEMU has ended, or was never there. */
void spb_session_end(struct spb_guest *guest);
/* After the release. */
void spb_session_free(struct spb_guest *guest);
/* Closes and frees it; QEMU goes on. */
void spb_session_let_go(struct spb_guest *guest);

int64_t spb_session_next_ns(const struct spb_guest *guest);
void spb_session_time(struct spb_guest *guest, int64_t now_ns);
/* Somebody typed: sends it. */
void spb_session_typed(struct spb_guest *guest);

#endif
