/*
 * Moving what is in the WAL into the database, so that the WAL's file is written over from its
 * start again. A WAL that is as large as it ever was costs a commit one flush; one that grows costs
 * the file system's journal another each time. So it gets its size at the start, and is never cut.
 *
 * Two steps, for copying takes longer than a commit may wait. A thread of its own copies while
 * commits go on. What they added meanwhile is little, and the audit's own thread copies it between
 * two of them; the next begins at the WAL's start.
 *
 * Once the medium has failed under a checkpoint no other is tried, but the whole WAL is copied anew
 * (spb_connect_renew); until that succeeds it grows.
 */
#ifndef SPB_SERVER_AUDIT_CHECKPOINT_H
#define SPB_SERVER_AUDIT_CHECKPOINT_H

#include <pthread.h>

#include "audit/database.h"

struct spb_audit;

enum spb_checkpoint_state {
    SPB_CHECKPOINT_IDLE,
    SPB_CHECKPOINT_DUE, /* with the next transaction */
    SPB_CHECKPOINT_RUNNING,
    SPB_CHECKPOINT_COPIED, /* the rest is the audit's own thread's */
};

struct spb_checkpoint {
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    enum spb_checkpoint_state state; /* under lock, as the next */
    bool is_closing;
    bool has_failed;      /* the medium, under a checkpoint */
    bool follows_failure; /* of a commit, and none succeeded since; this and below: with the turn */
    int64_t frames;       /* in the WAL after the last commit */
    int64_t start_frames; /* from so many on a checkpoint is due */
    int64_t next_frames;  /* the same, after one that a reader held up */
    int64_t warn_frames;  /* of a WAL so long the log tells */
};

/* Gives the WAL its size, and starts the thread, which has the keeper from then on. */
SPB_MUST_USE spb_status spb_checkpoint_start(struct spb_audit *audit, struct spb_error *err);
/* Ends the thread. Accepts one that was not started. */
void spb_checkpoint_stop(struct spb_audit *audit);
/* Counts the frames of a connection's commits: each that writes, after it was opened. */
void spb_checkpoint_watch(struct spb_audit *audit);

/* Is one due? Then the transaction that is about to end moves the mark. */
bool spb_checkpoint_is_due(struct spb_audit *audit);
/* After a commit, with the turn. Does not take long. */
void spb_checkpoint_go_on(struct spb_audit *audit);
/*
 * A commit failed: what of it is in the WAL's file must not be found there by who reads that anew.
 * Nothing is finished until the next one, that writes, has taken its place.
 */
void spb_checkpoint_note_failure(struct spb_audit *audit);
/* Is only the rest to be copied? That may take long, with the turn. */
bool spb_checkpoint_is_copied(struct spb_audit *audit);
void spb_checkpoint_finish(struct spb_audit *audit);

#endif
