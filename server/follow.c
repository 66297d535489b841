/* Reading an image that a guest writes; see follow.h. */
#include "follow.h"

#include "actor.h"
#include "attach.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "util.h"

/* ---- A look ------------------------------------------------------------------------------- */

/* The registry knows of events before anybody else does. */
static spb_status keep_pointer(struct spb_image *image, struct spb_image_row *row, uint32_t pointer,
                               bool only_appends, struct spb_error *err)
{
    if (only_appends && pointer == row->event_pointer)
        return spb_ok();
    row->event_pointer = pointer;
    if (!only_appends)
        SPB_TRY(spb_image_draw_incarnation(row, err));
    return spb_rows_put_image(image->daemon->audit, row, err);
}

/* Takes the update in any case. */
static spb_status publish(struct spb_image *image, struct spb_update *update, struct spb_error *err)
{
    struct spb_image_row row = image->row;
    uint32_t pointer = spb_update_event_pointer(update);
    bool only_appends =
        spb_update_only_appends(image->volume, update) && pointer >= row.event_pointer;
    spb_status status = keep_pointer(image, &row, pointer, only_appends, err);

    if (!spb_is_ok(status)) {
        spb_update_free(update);
        return status;
    }
    (void)pthread_mutex_lock(&image->lock);
    image->row = row;
    memcpy(image->incarnation, row.incarnation, sizeof(image->incarnation));
    spb_volume_apply_update(image->volume, update);
    (void)pthread_mutex_unlock(&image->lock);
    if (only_appends) {
        spb_watch_notify(image);
        return status;
    }
    spb_log(&image->daemon->log, SPB_LOG_WARN, "events-rewritten",
            SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
            SPB_TEXT("guest", image->guest), SPB_NUMBER("pointer", pointer));
    spb_watch_end(image);
    return status;
}

/* A guest that breaks its image does so for long: it is told of once. */
static void note_outcome(struct spb_image *image, spb_status status, const struct spb_error *err)
{
    bool failed = !spb_is_ok(status);

    if (failed && !image->follow.failing)
        spb_log(&image->daemon->log, SPB_LOG_WARN, "guest-image-unreadable",
                SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
                SPB_TEXT("guest", image->guest), SPB_TEXT("reason", err->text));
    image->follow.failing = failed;
}

spb_status spb_follow_look(struct spb_image *image, struct spb_error *err)
{
    struct spb_update *update = NULL;

    (void)pthread_mutex_lock(&image->follow.lock);
    spb_status status = spb_volume_read_update(image->volume, &update, err);
    if (spb_is_ok(status) && update != NULL)
        status = publish(image, update, err);
    note_outcome(image, status, err);
    (void)pthread_mutex_unlock(&image->follow.lock);
    return status;
}

void spb_follow_set_error(struct spb_call *call, const struct spb_error *err)
{
    if (err->code == SPB_CHANGED)
        spb_call_set_fault(call, PB_REASON(IMAGE_QUARANTINED),
                           "image %s cannot be read while its guest runs: %s", call->image_text,
                           err->text);
    else if (err->code == SPB_AGAIN)
        spb_call_set_fault(call, PB_REASON(STILL_RUNNING),
                           "image %s cannot be read now, its guest writes too much: try again",
                           call->image_text);
    else
        spb_call_set_error(call, err);
}

/* ---- Calls that wait for one -------------------------------------------------------------- */

/* They are the caller's. */
static struct spb_call *take_calls(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    struct spb_call *calls = image->follow.first;
    image->follow.first = NULL;
    image->follow.last = NULL;
    image->follow.wanted = false;
    (void)pthread_mutex_unlock(&image->lock);
    return calls;
}

static void go_on(struct spb_call *calls, bool looked, spb_status status,
                  const struct spb_error *err)
{
    struct spb_call *next;

    for (struct spb_call *call = calls; call != NULL; call = next) {
        next = call->next;
        call->next = NULL;
        if (looked && !spb_is_ok(status))
            spb_follow_set_error(call, err);
        if (spb_call_is_late(call, spb_now_ns()) || (looked && !spb_is_ok(status))) {
            spb_call_send(call);
            continue;
        }
        /* Where the guest has just gone, the handler finds the image as it is then. */
        call->has_looked = looked;
        call->method->handler(call);
    }
}

static void submit(struct spb_image *image)
{
    spb_pool_submit(image->daemon->pool, SPB_LANE_LOOK, &image->follow.task);
}

static void run(struct spb_task *task)
{
    struct spb_follow_point *point = SPB_CONTAINER(task, struct spb_follow_point, task);
    struct spb_image *image = SPB_CONTAINER(point, struct spb_image, follow);
    struct spb_call *calls = take_calls(image);
    spb_status status = spb_ok();
    struct spb_error err;
    bool looked = false;

    if (spb_image_hold(image)) {
        looked = spb_image_state(image) == SPB_IMAGE_ATTACHED;
        if (looked)
            status = spb_follow_look(image, &err);
        spb_image_unhold(image);
    }
    go_on(calls, looked, status, &err);
    (void)pthread_mutex_lock(&image->lock);
    bool again = point->wanted;
    point->queued = again;
    (void)pthread_mutex_unlock(&image->lock);
    if (again)
        submit(image);
    else
        spb_image_unref(image);
}

/* Under the image's lock. True: the task is to be submitted, with a reference. */
static bool want_locked(struct spb_image *image)
{
    bool start = !image->follow.queued;

    image->follow.wanted = true;
    image->follow.queued = true;
    if (start)
        spb_image_ref(image);
    return start;
}

void spb_follow_ask(struct spb_call *call)
{
    struct spb_image *image = call->image;
    struct spb_follow_point *point = &image->follow;

    call->next = NULL;
    (void)pthread_mutex_lock(&image->lock);
    if (point->first == NULL)
        point->first = call;
    else
        point->last->next = call;
    point->last = call;
    bool start = want_locked(image);
    (void)pthread_mutex_unlock(&image->lock);
    if (start)
        submit(image);
}

void spb_image_poke(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    bool start = image->state == SPB_IMAGE_ATTACHED && want_locked(image);
    (void)pthread_mutex_unlock(&image->lock);
    if (start)
        submit(image);
}

void spb_follow_point_init(struct spb_follow_point *point)
{
    *point = (struct spb_follow_point){.task = {.run = run}};
    (void)pthread_mutex_init(&point->lock, NULL);
}

void spb_follow_point_done(struct spb_follow_point *point)
{
    (void)pthread_mutex_destroy(&point->lock);
}
