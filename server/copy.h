/*
 * Copying images while they are served: a snapshot is taken in the turn of the image's actor, which
 * is short, and copied to a file by a worker while changes go on. At most copies_running_max are
 * copied at once, the others wait in order: copies never take all workers of the bulk lane.
 *
 * A copy holds its image's volume open. Who wants to close the image is not kept waiting: a copy
 * that runs ends early then, and one that waits for its turn ends at once.
 */
#ifndef SPB_SERVER_COPY_H
#define SPB_SERVER_COPY_H

#include <pthread.h>

#include "call.h"
#include "spaceblock/volume.h"

struct spb_copies;

SPB_MUST_USE spb_status spb_copies_new(struct spb_daemon *daemon, struct spb_copies **copies,
                                       struct spb_error *err);
/* When no worker runs any more. Accepts NULL. */
void spb_copies_free(struct spb_copies *copies);

/* One image being copied, for a call; in the call's arena. */
struct spb_copy {
    struct spb_call *call;
    struct spb_image *image; /* held while there is a snapshot */
    struct spb_snapshot *snapshot;
    uint64_t size;   /* of the image */
    bool is_patient; /* the call's deadline does not end it */
    void (*run)(struct spb_copy *copy);
    struct spb_copy *next; /* among those that wait */
    struct spb_task task;
};

/*
 * In the turn of the actor of call->image: takes the snapshot, then runs run(copy) on a worker,
 * which calls spb_copy_end before it answers. False: the call's error is set.
 */
bool spb_copy_begin(struct spb_call *call, struct spb_copy *copy);
/* The image into a new file at the path, of its exact size, flushed; identity may be NULL. The file
 * is removed where that fails. */
SPB_MUST_USE spb_status spb_copy_to_file(struct spb_copy *copy, const char *path,
                                         const struct spb_snapshot_identity *identity,
                                         const char *what, struct spb_error *err);
/* All is copied: nobody who wants to close the image need wait any more. */
void spb_copy_let_go(struct spb_copy *copy);
/* Sets the error of a copy that failed. */
void spb_copy_set_error(struct spb_copy *copy, const struct spb_error *err);
/* Lets go of snapshot and image, and of the place among those that run. */
void spb_copy_end(struct spb_copy *copy);

/* The image is closing: its copies that wait run now, beside the others, to find that out. */
void spb_copies_end_image(struct spb_copies *copies, const struct spb_image *image);

#endif
