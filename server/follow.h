/*
 * Reading an image that a guest writes. A call that reads it is put off until a worker has looked
 * at what the file holds, and then runs: it sees what the guest wrote before the call came. Calls
 * that wait for a look share it, and so do reasons to look that come without a call. What a look
 * finds is checked (spb_volume_read_update), is kept in the registry where the events' end moved,
 * so that no cursor outlives a crash of the machine that the events did not, and only then seen by
 * anybody.
 */
#ifndef SPB_SERVER_FOLLOW_H
#define SPB_SERVER_FOLLOW_H

#include <pthread.h>

#include "pool.h"
#include "spaceblock/status.h"

struct spb_call;
struct spb_image;

/* What an image holds for it. */
struct spb_follow_point {
    struct spb_task task;
    /* Under the image's lock: */
    struct spb_call *first, *last; /* wait for the next look */
    bool queued;                   /* the task is, or runs */
    bool wanted;                   /* there is a reason for another look */
    /* Of who looks; taken on workers alone, before the image's lock. */
    pthread_mutex_t lock;
    bool failing; /* the last look failed, and that was logged */
};

void spb_follow_point_init(struct spb_follow_point *point);
void spb_follow_point_done(struct spb_follow_point *point);

/* Runs the call's handler anew after a look, or answers it where that fails. Any thread. */
void spb_follow_ask(struct spb_call *call);

/*
 * Looks at once, and tells watches. The image is held, and attached. SPB_CHANGED, SPB_BAD_*: the
 * guest has changed the superblock; SPB_AGAIN: it changes the metadata all the time. A worker's;
 * blocks.
 */
SPB_MUST_USE spb_status spb_follow_look(struct spb_image *image, struct spb_error *err);

/* The error of such a look, on a call. */
void spb_follow_set_error(struct spb_call *call, const struct spb_error *err);

#endif
