/*
 * A small pool of worker threads with four lanes. SPB_LANE_COMMIT is for short turns of image
 * actors. SPB_LANE_LOOK is for looking at images that guests write, which may take many tries.
 * SPB_LANE_BULK is for reads and uploads. SPB_LANE_ALONE is for what has an image to
 * itself, which may take long and may wait for bulk tasks. No lane but the first gets all the
 * workers that it may have, nor another's: commits always find one, and who waits for bulk tasks
 * does not keep them from running. The last two have workers of their own, with less of a claim to
 * the processors, so that neither checks nor transfers hold up a commit where those are scarce.
 * (They may, where one of them happens to do the audit's transaction for all who wait.)
 *
 * Tasks are embedded in what they work on, so that queueing never fails. Any thread.
 */
#ifndef SPB_SERVER_POOL_H
#define SPB_SERVER_POOL_H

#include "spaceblock/status.h"

enum spb_lane { SPB_LANE_COMMIT, SPB_LANE_LOOK, SPB_LANE_BULK, SPB_LANE_ALONE, SPB_LANE_COUNT };

struct spb_task {
    struct spb_task *next;
    void (*run)(struct spb_task *task); /* on a worker; may free the task */
};

struct spb_pool;

/* Workers: twice the processors, from 12 to 32, and seven for ten of them in the background. They
 * take no signals. */
SPB_MUST_USE spb_status spb_pool_new(struct spb_pool **pool, struct spb_error *err);
/* Runs what is queued, then ends the workers. Accepts NULL. Blocks. */
void spb_pool_free(struct spb_pool *pool);

/* The task is borrowed until it has run; it is in one queue at a time. */
void spb_pool_submit(struct spb_pool *pool, enum spb_lane lane, struct spb_task *task);

/*
 * A queue whose tasks run one at a time, in order, on the bulk lane. submit returns true where it
 * set the strand in motion; idle runs when it comes to rest again, as the last touch of the strand.
 */
struct spb_strand;
SPB_MUST_USE spb_status spb_strand_new(struct spb_pool *pool, void (*idle)(void *user), void *user,
                                       struct spb_strand **strand, struct spb_error *err);
/* At rest only. Accepts NULL. */
void spb_strand_free(struct spb_strand *strand);
bool spb_strand_submit(struct spb_strand *strand, struct spb_task *task);

#endif
