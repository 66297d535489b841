/*
 * What the files of the audit share: its state, and the work that waits for a transaction.
 *
 * Threads. `lock` is over the members marked so, held briefly, never across I/O. Everything else
 * belongs to whoever has the turn, one thread at a time: a caller with work, which then does all
 * that waits, or the audit's own thread; see audit.c. Work lives on its caller's stack, who sleeps
 * until it is done, or until it gets the turn.
 */
#ifndef SPB_SERVER_AUDIT_INSIDE_H
#define SPB_SERVER_AUDIT_INSIDE_H

#include <pthread.h>
#include <semaphore.h>
#include <sys/types.h>

#include "audit/audit.h"
#include "audit/checkpoint.h"
#include "audit/database.h"
#include "audit/names.h"

/* Something to be done in a transaction, while its caller waits. */
struct spb_work {
    /*
     * Does it, with the turn, on any caller's thread. Where it fails only its own caller hears of
     * it. It may be called again, after a transaction that came to nothing.
     */
    spb_status (*run)(struct spb_audit *audit, struct spb_work *work, struct spb_error *err);
    /* The transaction is durable. May be NULL. With the turn. */
    void (*committed)(struct spb_audit *audit, struct spb_work *work);
    struct spb_error *err; /* the caller's */
    size_t intents;        /* that it commits */

    struct spb_work *next;
    spb_status status;
    bool has_turn; /* nothing was done yet: its caller is to do what waits */
    sem_t done;    /* or has_turn */
};

/* A group in the database that has no outcome there. */
struct spb_open_group {
    struct spb_audit *audit;
    struct spb_open_group *previous, *next; /* under lock; in order of id */
    int64_t id, image_id;
    int64_t first_call;
    bool is_owned;                     /* under lock; not abandoned, nor left by a former process */
    struct spb_open_group *next_ended; /* under lock, as all below */
    enum spb_outcome outcome;
    uint8_t *response; /* owned, may be NULL */
    size_t response_size;
};

/* Numbers that a transaction takes, and that are given back where it fails. */
struct spb_audit_counts {
    int64_t next_group, next_call;
    int64_t last_us; /* when the newest group began */
};

/* Where forgetting is; see retain.c. */
struct spb_retain {
    int64_t after;   /* groups up to this one were looked at */
    int64_t next_ns; /* when to look again; CLOCK_MONOTONIC; the audit's own thread's */
};

struct spb_audit {
    char *path; /* owned */
    struct spb_audit_options options;
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;                           /* CLOCK_MONOTONIC */
    struct spb_work *first, *last;                 /* under lock, as all below: waiting */
    struct spb_open_group *ended, *ended_last;     /* outcomes that are not durable */
    size_t unwritten;                              /* those and the ones being committed */
    struct spb_open_group *open_first, *open_last; /* all but those */
    size_t owned;                                  /* of them */
    bool is_taken;                                 /* somebody has the turn */
    bool is_wanted;                                /* the audit's thread waits for it, */
    bool has_turn;                                 /* has got it */
    int64_t sleeps_til_ns;                         /* or looks again then; CLOCK_MONOTONIC */
    bool is_closing;

    dev_t device; /* of the database's file, when it was opened, as the next */
    ino_t inode;
    struct spb_db keeper; /* holds the WAL's index in memory; never writes rows */
    struct spb_db db;     /* the one that writes */
    bool is_stale;        /* it is to be opened anew */
    bool is_failing;      /* and that was logged */
    struct spb_audit_counts counts;
    struct spb_names names;
    struct spb_checkpoint checkpoint;
    struct spb_retain retain;

    pthread_mutex_t reader_lock; /* over the next; held while somebody reads */
    struct spb_db reader;
};

/* Has it done, by this thread or another one; returns when it is durable, or has failed. */
SPB_MUST_USE spb_status spb_work_do(struct spb_audit *audit, struct spb_work *work);

/*
 * A connection for reading, on its caller's thread: what is committed, and nothing that commits
 * waits for it. Each call of begin that succeeds is followed by one of end.
 */
SPB_MUST_USE spb_status spb_reader_begin(struct spb_audit *audit, struct spb_db **db,
                                         struct spb_error *err);
void spb_reader_end(struct spb_audit *audit);

/* UNIX, microseconds. */
int64_t spb_audit_now_us(void);

/* ---- mark.c ------------------------------------------------------------------------------- */

/* Where it can be: at the first group that its owner may still end, or else the next to begin. */
int64_t spb_mark_place(struct spb_audit *audit);
/* Moves the mark there, within a transaction. */
SPB_MUST_USE spb_status spb_mark_write(struct spb_audit *audit, struct spb_error *err);

/* ---- retain.c ----------------------------------------------------------------------------- */

/* Forgets a few groups, where it is time. In between transactions, on the audit's own thread. */
void spb_retain_go_on(struct spb_audit *audit);

/* ---- intents.c ---------------------------------------------------------------------------- */

/* Finds the numbers to go on with, and the groups that are open. */
SPB_MUST_USE spb_status spb_intents_load(struct spb_audit *audit, struct spb_error *err);
/* The outcome of one group, within a transaction. */
SPB_MUST_USE spb_status spb_intents_write_outcome(struct spb_audit *audit,
                                                  const struct spb_open_group *open,
                                                  struct spb_error *err);
/* Under lock. Adds it at the end, or takes it out. */
void spb_open_group_link(struct spb_audit *audit, struct spb_open_group *open);
void spb_open_group_unlink(struct spb_audit *audit, struct spb_open_group *open);
/* Accepts NULL. */
void spb_open_group_free(struct spb_open_group *open);

#endif
