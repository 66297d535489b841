/*
 * The life of a guest as a state machine: what was asked for, what happened, and what is to be done
 * now. Pure: no I/O, no clock, no randomness but what inputs bring; one thread a guest.
 *
 * spb_life_step takes one input and returns the actions that follow from it, as bits, to be carried
 * out in the order of their values. Their outcomes come back as inputs. spb_life_next_ns says when
 * SPB_LIFE_TIME is due; a guest that does not run and will not be started again needs none.
 *
 * Rules that hold throughout:
 * - There is at most one QEMU: a new one is prepared only after SPB_LIFE_RELEASED of the one
 * before.
 * - A guest that was stopped or killed by a call is not started again but by a call.
 * - A call that starts one that is paused is answered once that has gone on for a while, or is
 * paused again.
 * - What ended is told only once its images are back: until then the guest is stopping.
 */
#ifndef SPB_SUPERVISOR_LIFE_H
#define SPB_SUPERVISOR_LIFE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/machine/ending.h"

#define SPB_LIFE_REASON_SIZE 512u
#define SPB_LIFE_LOOP_RUNS 3u /* so many short runs in a row are a crash loop */

/* As users see it; the numbers are the API's, and the database's. */
enum spb_life_state {
    SPB_LIFE_CREATED = 1,
    SPB_LIFE_STARTING,
    SPB_LIFE_RUNNING,
    SPB_LIFE_PAUSED,
    SPB_LIFE_STOPPING,
    SPB_LIFE_STOPPED,
    SPB_LIFE_CRASHED,
    SPB_LIFE_LOST,
    SPB_LIFE_BACKOFF,
};
#define SPB_LIFE_STATES 10u

enum spb_life_restart {
    SPB_LIFE_RESTART_NEVER = 1,
    SPB_LIFE_RESTART_ON_FAILURE,
    SPB_LIFE_RESTART_ALWAYS,
};

enum spb_life_phase {
    SPB_PHASE_IDLE,       /* no QEMU, nothing under way */
    SPB_PHASE_QUEUED,     /* waits for its turn to start */
    SPB_PHASE_PREPARING,  /* images, files and folder are made ready; then QEMU is spawned */
    SPB_PHASE_CONNECTING, /* QEMU is there; its monitor has not answered yet */
    SPB_PHASE_RUNNING,
    SPB_PHASE_ENDING,    /* the guest has ended, or is given up; QEMU is still there */
    SPB_PHASE_RELEASING, /* QEMU is gone; images go back */
};

enum spb_life_stage { SPB_STAGE_NONE, SPB_STAGE_BUTTON, SPB_STAGE_QUIT, SPB_STAGE_KILL };

struct spb_life_rules {
    enum spb_life_restart restart;
    int64_t start_ns;                   /* from QEMU's spawning to its monitor's answers */
    int64_t boot_ns;                    /* to the first sign of life */
    int64_t stop_ns;                    /* from the power button to quit */
    int64_t quit_ns;                    /* from quit to SIGKILL */
    int64_t backoff_ns, backoff_max_ns; /* before the first start again, and at most */
    int64_t healthy_ns;                 /* a run as long as that is no short one */
};

struct spb_life {
    struct spb_life_rules rules; /* may be changed between inputs */
    enum spb_life_phase phase;
    enum spb_life_stage stage; /* of the stop ladder */

    /* What is recorded. */
    enum spb_life_state state;
    bool wants_run; /* what was asked for last */
    enum spb_ending ending;
    bool has_exit;
    int32_t exit_status;                          /* code, or minus the signal's number */
    uint64_t run;                                 /* of how many QEMUs this is the last */
    uint64_t started_ms, ended_ms, restart_at_ms; /* UNIX; 0: none */
    uint64_t quit_at_ms, stop_ms; /* when the ladder goes on to quit, UNIX, and after how long */
    uint32_t restarts, short_runs;
    bool crash_loop, alive;
    char reason[SPB_LIFE_REASON_SIZE];

    bool adopted;
    bool by_call; /* the start under way was asked for by a call */
    bool had_run; /* the run under way got as far as running */
    bool again;   /* a call asked for a start while the run before was ending */
    bool awaited; /* a call waits to be told that it runs, or that it does not */
    bool broken;  /* the monitor failed, and that is why QEMU is ended */
    bool resumes; /* a call asked for one that is paused to go on, and is not answered */
    bool is_killed_by_call, is_drained;
    int64_t since_ns; /* 0: none, as the next */
    int64_t step_at_ns, boot_at_ns, healthy_at_ns, restart_at_ns, resume_at_ns;
};

enum spb_life_event {
    /* Calls. */
    SPB_LIFE_START,
    SPB_LIFE_STOP, /* stop_ns */
    SPB_LIFE_KILL,
    SPB_LIFE_DRAIN, /* no call: it ends with the daemon that ends */
    /* Of a start. */
    SPB_LIFE_PLACE,    /* its turn has come */
    SPB_LIFE_PREPARED, /* and is recorded */
    SPB_LIFE_FAILED,   /* text: why it could not be prepared or spawned */
    SPB_LIFE_SPAWNED,
    /* Of the monitor. */
    SPB_LIFE_STATUS,    /* text: what query-status answered, of the right QEMU; traced */
    SPB_LIFE_CONTINUED, /* cont was answered */
    SPB_LIFE_REFUSED,   /* cont was, of one that runs; text: why */
    SPB_LIFE_QMP,       /* text and data: an event */
    SPB_LIFE_BROKEN,    /* text: why; at_once: QEMU is not given time to end by itself */
    SPB_LIFE_SIGN,      /* of life */
    SPB_LIFE_NO_SIGN,   /* none until the boot deadline */
    /* Of QEMU. */
    SPB_LIFE_EXITED,   /* wait_status where has_status; text: what it wrote last, may be NULL */
    SPB_LIFE_RELEASED, /* text: what was found in its images, or NULL */
    SPB_LIFE_TIME,
    /* At the daemon's start. */
    SPB_LIFE_ADOPT,  /* its QEMU is there */
    SPB_LIFE_GONE,   /* it is not; or what is there is another */
    SPB_LIFE_RESUME, /* it did not run: only a start again may be due */
};

struct spb_life_input {
    enum spb_life_event what;
    int64_t now_ns;  /* of a monotonic clock, above 0 */
    uint64_t now_ms; /* UNIX */
    uint32_t random;
    const char *text;
    const json_t *data;
    int64_t stop_ns; /* below 0: as the rules say */
    int wait_status;
    enum spb_ending traced; /* by QEMU, where nobody heard its events; NONE: nothing is known */
    bool has_status, at_once;
};

enum spb_life_action {
    SPB_DO_QUEUE = 1 << 0,   /* wait for a turn: SPB_LIFE_PLACE */
    SPB_DO_UNQUEUE = 1 << 1, /* no longer */
    SPB_DO_PREPARE = 1 << 2,
    SPB_DO_SPAWN = 1 << 3,
    SPB_DO_CONTINUE = 1 << 4,
    SPB_DO_BUTTON = 1 << 5,
    SPB_DO_QUIT = 1 << 6,
    SPB_DO_KILL = 1 << 7,
    SPB_DO_LOOK = 1 << 8, /* whether it wrote to a disk: SPB_LIFE_SIGN or _NO_SIGN */
    SPB_DO_RELEASE = 1 << 9,
    SPB_DO_RECORD = 1 << 10,      /* what is recorded, or shown, has changed */
    SPB_DO_STARTED = 1 << 11,     /* calls that wait for the start: it runs */
    SPB_DO_NOT_STARTED = 1 << 12, /* it does not, for the reason */
    SPB_DO_IDLE = 1 << 13,        /* calls that wait for the end */
};

/* A guest that was never started. */
void spb_life_init(struct spb_life *life, const struct spb_life_rules *rules);

/* Bits of enum spb_life_action. */
unsigned spb_life_step(struct spb_life *life, const struct spb_life_input *input);
/* When SPB_LIFE_TIME is due; 0: not. */
int64_t spb_life_next_ns(const struct spb_life *life);

/* A QEMU is there, or about to be: also while it waits for its turn. */
bool spb_life_is_busy(const struct spb_life *life);
/* It counts against what may run: it runs, or will again by itself. */
bool spb_life_counts(const struct spb_life *life);
/* Ended for good, as far as one knows: no output will come any more. Of one that was never started
 * all of it is still to come. */
bool spb_life_state_is_end(enum spb_life_state state);
/* "running", ... */
const char *spb_life_state_word(enum spb_life_state state);

#endif
