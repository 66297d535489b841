/* Copying images while they are served; see copy.h. */
#include "copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"
#include "image.h"

struct spb_copies {
    struct spb_daemon *daemon;
    pthread_mutex_t lock;          /* over all below */
    struct spb_copy *first, *last; /* that wait */
    unsigned running;
};

spb_status spb_copies_new(struct spb_daemon *daemon, struct spb_copies **out, struct spb_error *err)
{
    struct spb_copies *copies = calloc(1, sizeof(*copies));

    if (copies == NULL)
        return spb_fail_memory(err, "preparing copies");
    copies->daemon = daemon;
    (void)pthread_mutex_init(&copies->lock, NULL);
    *out = copies;
    return spb_ok();
}

void spb_copies_free(struct spb_copies *copies)
{
    if (copies == NULL)
        return;
    SPB_ASSERT(copies->running == 0 && copies->first == NULL);
    (void)pthread_mutex_destroy(&copies->lock);
    free(copies);
}

/* ---- Which run ---------------------------------------------------------------------------- */

static void run_copy(struct spb_task *task)
{
    struct spb_copy *copy = SPB_CONTAINER(task, struct spb_copy, task);

    copy->run(copy);
}

static void start(struct spb_copy *copy)
{
    copy->task.run = run_copy;
    spb_pool_submit(copy->call->daemon->pool, SPB_LANE_BULK, &copy->task);
}

static void enqueue(struct spb_copies *copies, struct spb_copy *copy)
{
    uint64_t most = SPB_LIMIT(copies->daemon, copies_running_max);

    copy->next = NULL;
    (void)pthread_mutex_lock(&copies->lock);
    bool now = copies->running < most;
    if (now) {
        copies->running++;
    } else {
        if (copies->first == NULL)
            copies->first = copy;
        else
            copies->last->next = copy;
        copies->last = copy;
    }
    (void)pthread_mutex_unlock(&copies->lock);
    if (now)
        start(copy);
}

/* One has ended: its place goes to the one that has waited longest. */
static void pass_on(struct spb_copies *copies)
{
    (void)pthread_mutex_lock(&copies->lock);
    struct spb_copy *next = copies->first;
    if (next != NULL && copies->running > SPB_LIMIT(copies->daemon, copies_running_max))
        next = NULL; /* one that ended with its image was one too many */
    if (next != NULL)
        copies->first = next->next;
    else
        copies->running--;
    (void)pthread_mutex_unlock(&copies->lock);
    if (next != NULL)
        start(next);
}

void spb_copies_end_image(struct spb_copies *copies, const struct spb_image *image)
{
    struct spb_copy *ending = NULL, **place = &copies->first;

    (void)pthread_mutex_lock(&copies->lock);
    copies->last = NULL;
    while (*place != NULL) {
        struct spb_copy *copy = *place;

        if (copy->image == image) {
            *place = copy->next;
            copy->next = ending;
            ending = copy;
            copies->running++;
        } else {
            copies->last = copy;
            place = &copy->next;
        }
    }
    (void)pthread_mutex_unlock(&copies->lock);
    while (ending != NULL) {
        struct spb_copy *copy = ending;

        ending = copy->next;
        start(copy);
    }
}

/* ---- One copy ----------------------------------------------------------------------------- */

/* Holds the image, or says why that cannot be: in the actor's turn it is not being closed. */
static bool hold(struct spb_call *call)
{
    if (spb_image_refuse_guests(call))
        return false;
    if (spb_image_hold(call->image))
        return true;
    spb_image_set_unserved(call->image, call);
    return false;
}

bool spb_copy_begin(struct spb_call *call, struct spb_copy *copy)
{
    struct spb_error err;

    if (!hold(call))
        return false;
    spb_status status = spb_snapshot_new(call->image->volume, &copy->snapshot, &err);
    if (!spb_is_ok(status)) {
        spb_image_unhold(call->image);
        spb_call_set_error(call, &err);
        return false;
    }
    copy->call = call;
    copy->image = call->image;
    copy->size = spb_snapshot_size_bytes(copy->snapshot);
    enqueue(call->daemon->copies, copy);
    return true;
}

static bool is_closing(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    bool closing = image->closing;
    (void)pthread_mutex_unlock(&image->lock);
    return closing;
}

static bool may_go_on(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    struct spb_copy *copy = user;
    struct spb_call *call = copy->call;
    bool may = copy->is_patient
                   ? !atomic_load(&call->daemon->ending) && !atomic_load(&call->cancelled)
                   : spb_call_may_go_on(call, done_bytes, total_bytes);

    return may && !is_closing(copy->image);
}

static spb_status copy_to_device(struct spb_copy *copy, const char *path,
                                 const struct spb_snapshot_identity *identity, const char *what,
                                 struct spb_error *err)
{
    struct spb_device *device = NULL;
    struct spb_error found;
    spb_status status = spb_device_file_open(path, SPB_FILE_WRITE, &device, &found);

    if (!spb_is_ok(status))
        return spb_fail_errno(err, status.code, found.saved_errno, "opening the file of %s", what);
    (void)snprintf(device->name, sizeof(device->name), "%s", what);
    device->zeroed = true;
    status = spb_snapshot_copy(copy->snapshot, device, identity, may_go_on, copy, err);
    spb_device_close(device);
    return status;
}

spb_status spb_copy_to_file(struct spb_copy *copy, const char *path,
                            const struct spb_snapshot_identity *identity, const char *what,
                            struct spb_error *err)
{
    int fd = -1;

    if (!may_go_on(copy, 0, copy->size))
        return spb_fail(err, SPB_DEADLINE, "copying %s was ended before it began", what);
    SPB_TRY(spb_file_allocate(path, copy->size, what, &fd, err));
    (void)close(fd);
    spb_status status = copy_to_device(copy, path, identity, what, err);
    if (!spb_is_ok(status))
        (void)unlink(path);
    return status;
}

void spb_copy_set_error(struct spb_copy *copy, const struct spb_error *err)
{
    struct spb_call *call = copy->call;

    if (err->code == SPB_DEADLINE && atomic_load(&call->daemon->ending))
        spb_call_set_fault(call, PB_REASON(DRAINING),
                           "the server is shutting down: the copy was given up");
    else if (err->code == SPB_DEADLINE && copy->snapshot != NULL && is_closing(copy->image))
        spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                           "image %u/%s is being closed: the copy was given up",
                           (unsigned)copy->image->tenant, copy->image->name);
    else
        spb_call_set_error(call, err);
}

void spb_copy_let_go(struct spb_copy *copy)
{
    if (copy->snapshot == NULL)
        return;
    spb_snapshot_free(copy->snapshot);
    copy->snapshot = NULL;
    spb_image_unhold(copy->image);
}

void spb_copy_end(struct spb_copy *copy)
{
    struct spb_copies *copies = copy->call->daemon->copies;

    spb_copy_let_go(copy);
    pass_on(copies);
}
