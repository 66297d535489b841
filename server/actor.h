/*
 * The queue of an image. Its operations run one at a time, in order, on whatever worker is free.
 *
 * Group commit: a worker takes what is queued, decides each into one group, records that in the
 * audit, carries the group out, makes it visible, and only then lets all answers leave, refusals
 * too. Readers are not kept
 * waiting: they see what is published until the next group is. An operation that only lacks what
 * its group has not flushed yet waits for the next group, and everything behind it. Operations that
 * need the image to themselves run between groups.
 */
#ifndef SPB_SERVER_ACTOR_H
#define SPB_SERVER_ACTOR_H

#include <pthread.h>

#include "call.h"

struct spb_actor {
    struct spb_task task;
    struct spb_actor *next_kick; /* in the list of those to be set in motion at the turn's end */
    enum spb_lane lane;          /* that the task was submitted to */
    pthread_mutex_t lock;        /* over first, last, count, moving */
    struct spb_call *first, *last;
    size_t count; /* queued and taken */
    bool moving;
    bool inside;         /* somebody runs its operations, or has seized it; under the lock */
    bool stood_back;     /* a worker left what is queued to who seizes it; under the lock */
    unsigned seizers;    /* that wait; under the lock */
    pthread_cond_t left; /* nobody is inside any more */
    struct spb_call *taken, *taken_last; /* the running worker's */
};

void spb_actor_init(struct spb_actor *actor);
void spb_actor_done(struct spb_actor *actor);

/*
 * Queues the call for its image (call->image); sends RESOURCE_EXHAUSTED where the queue is full
 * (and runs kind->failed first). Any thread. From the loop's thread the worker starts at the turn's
 * end, so that what came in together is decided together.
 */
void spb_actor_queue(struct spb_call *call, const struct spb_op_kind *kind);

/* How many are queued, or taken and not answered. Any thread. */
size_t spb_actor_depth(struct spb_actor *actor);

/*
 * Takes a call out of the queue, which is the caller's again; false where it is not in it (any
 * more). The call may not go meanwhile.
 */
bool spb_actor_take_back(struct spb_call *call);

/*
 * Makes the calling thread the image's actor, between two operations, until it releases it; what is
 * queued meanwhile waits. For work that no call brought. The caller has a reference to the image.
 * Blocks while an operation runs: not to be called on a worker of SPB_LANE_COMMIT.
 */
void spb_actor_seize(struct spb_actor *actor);
void spb_actor_release(struct spb_actor *actor);

/* Sets in motion what the turn has queued. The loop's thread. */
void spb_actor_kick(struct spb_daemon *daemon);

/* Runs the call's handler anew when nothing has the image to itself. */
extern const struct spb_op_kind spb_op_again;

#endif
