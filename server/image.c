/* An image that the daemon serves; see image.h. */
#include "image.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"
#include "copy.h"
#include "daemon.h"
#include "dispatch.h"
#include "registry.h"
#include "uploads.h"

#define IMAGE_SUFFIX ".img"

bool spb_image_name_is_valid(const void *name, size_t n)
{
    const char *text = name;

    if (n == 0 || n > SPB_IMAGE_NAME_MAX || text[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

/* ---- Life --------------------------------------------------------------------------------- */

char *spb_image_path(const struct spb_daemon *daemon, uint16_t tenant, const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%u/%s" IMAGE_SUFFIX, daemon->images_dir, (unsigned)tenant, name) < 0)
        return NULL;
    return path;
}

spb_status spb_image_new(struct spb_daemon *daemon, uint16_t tenant, const char *name,
                         struct spb_image **out, struct spb_error *err)
{
    struct spb_image *image = calloc(1, sizeof(*image));

    if (image == NULL)
        return spb_fail_memory(err, "making an image");
    SPB_ASSERT(spb_image_name_is_valid(name, strlen(name)));
    image->path = spb_image_path(daemon, tenant, name);
    if (image->path == NULL) {
        free(image);
        return spb_fail_memory(err, "making an image");
    }
    image->daemon = daemon;
    image->tenant = tenant;
    memcpy(image->name, name, strlen(name) + 1);
    image->state = SPB_IMAGE_UNAVAILABLE;
    atomic_init(&image->refs, 1);
    (void)pthread_mutex_init(&image->lock, NULL);
    (void)pthread_cond_init(&image->unheld, NULL);
    spb_actor_init(&image->actor);
    spb_watch_point_init(&image->watch);
    spb_scrub_point_init(&image->scrub);
    spb_follow_point_init(&image->follow);
    *out = image;
    return spb_ok();
}

void spb_image_ref(struct spb_image *image)
{
    (void)atomic_fetch_add_explicit(&image->refs, 1, memory_order_relaxed);
}

void spb_image_unref(struct spb_image *image)
{
    if (atomic_fetch_sub_explicit(&image->refs, 1, memory_order_acq_rel) != 1)
        return;
    spb_image_close(image);
    spb_registry_unreserve(image->daemon->registry, image);
    spb_registry_unclaim(image->daemon->registry, image);
    spb_scrub_point_done(image);
    spb_follow_point_done(&image->follow);
    spb_actor_done(&image->actor);
    (void)pthread_cond_destroy(&image->unheld);
    (void)pthread_mutex_destroy(&image->lock);
    free(image->path);
    free(image);
}

void spb_image_close(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    struct spb_volume *volume = image->volume;
    SPB_ASSERT(image->holds == 0);
    image->volume = NULL;
    (void)pthread_mutex_unlock(&image->lock);
    spb_volume_close(volume);
}

/* ---- Looking at it ------------------------------------------------------------------------ */

const char *spb_image_state_word(enum spb_image_state state)
{
    static const char *const words[] = {
        [SPB_IMAGE_READY] = "ready",       [SPB_IMAGE_READ_ONLY] = "read-only",
        [SPB_IMAGE_DAMAGED] = "damaged",   [SPB_IMAGE_UNAVAILABLE] = "unavailable",
        [SPB_IMAGE_DELETED] = "deleted",   [SPB_IMAGE_QUARANTINED] = "quarantined",
        [SPB_IMAGE_ATTACHED] = "attached",
    };

    return words[state];
}

static void set_in_use_locked(const struct spb_image *image, struct spb_call *call)
{
    spb_call_set_fault(call, PB_REASON(IMAGE_IN_USE),
                       "image %s is attached to guest %s, which alone may write it: it is neither "
                       "changed nor copied nor checked until the guest has ended",
                       call->image_text, image->guest);
}

/* The error of an image that is not served, or takes no changes. Under the lock. */
static void set_unserved_locked(const struct spb_image *image, struct spb_call *call)
{
    const char *state = spb_image_state_word(image->state);
    PB_ErrorReason reason = PB_REASON(IMAGE_READ_ONLY);

    if (image->state == SPB_IMAGE_DELETED) {
        spb_dispatch_set_no_image(call);
        return;
    }
    if (image->state == SPB_IMAGE_ATTACHED) {
        set_in_use_locked(image, call);
        return;
    }
    if (image->state == SPB_IMAGE_DAMAGED)
        reason = PB_REASON(IMAGE_DAMAGED);
    else if (image->state == SPB_IMAGE_QUARANTINED)
        reason = PB_REASON(IMAGE_QUARANTINED);
    else if (image->reason_code == SPB_LOCKED)
        reason = PB_REASON(IMAGE_IN_USE);
    spb_call_set_fault(call, reason, "image %s is %s: %s", call->image_text, state, image->reason);
}

void spb_image_set_unserved(struct spb_image *image, struct spb_call *call)
{
    (void)pthread_mutex_lock(&image->lock);
    set_unserved_locked(image, call);
    (void)pthread_mutex_unlock(&image->lock);
}

enum spb_image_state spb_image_state(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    enum spb_image_state state = image->state;
    (void)pthread_mutex_unlock(&image->lock);
    return state;
}

bool spb_image_is_closing(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    bool closing = image->closing;
    (void)pthread_mutex_unlock(&image->lock);
    return closing;
}

bool spb_image_refuse_guests(struct spb_call *call)
{
    struct spb_image *image = call->image;

    (void)pthread_mutex_lock(&image->lock);
    bool has_guest = image->guest[0] != '\0';
    if (has_guest)
        set_in_use_locked(image, call);
    (void)pthread_mutex_unlock(&image->lock);
    return has_guest;
}

/* How a call gets to see the volume. */
enum way { AT_ONCE, AFTER_THE_ACTOR, AFTER_A_LOOK, NOT_AT_ALL };

static enum way way_locked(const struct spb_image *image, const struct spb_call *call)
{
    if (image->closing)
        return AFTER_THE_ACTOR;
    if (image->state == SPB_IMAGE_ATTACHED && !call->has_looked)
        return AFTER_A_LOOK;
    return image->volume != NULL ? AT_ONCE : NOT_AT_ALL;
}

/* Not at once. */
static void put_off(struct spb_call *call, enum way way)
{
    if (way == AFTER_THE_ACTOR)
        spb_actor_queue(call, &spb_op_again);
    else if (way == AFTER_A_LOOK)
        spb_follow_ask(call);
    else
        spb_call_send(call);
}

struct spb_volume *spb_image_read_begin(struct spb_call *call)
{
    struct spb_image *image = call->image;

    (void)pthread_mutex_lock(&image->lock);
    enum way way = way_locked(image, call);
    if (way == AT_ONCE)
        return image->volume;
    if (way == NOT_AT_ALL)
        set_unserved_locked(image, call);
    (void)pthread_mutex_unlock(&image->lock);
    put_off(call, way);
    return NULL;
}

void spb_image_read_end(struct spb_image *image)
{
    (void)pthread_mutex_unlock(&image->lock);
}

struct spb_volume *spb_image_hold_for(struct spb_call *call)
{
    struct spb_image *image = call->image;
    struct spb_volume *volume = NULL;

    (void)pthread_mutex_lock(&image->lock);
    enum way way = way_locked(image, call);
    if (way == AT_ONCE) {
        volume = image->volume;
        image->holds++;
    } else if (way == NOT_AT_ALL) {
        set_unserved_locked(image, call);
    }
    (void)pthread_mutex_unlock(&image->lock);
    if (way != AT_ONCE)
        put_off(call, way);
    return volume;
}

bool spb_image_hold(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    bool held = image->volume != NULL && !image->closing;
    if (held)
        image->holds++;
    (void)pthread_mutex_unlock(&image->lock);
    return held;
}

void spb_image_unhold(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    SPB_ASSERT(image->holds > 0);
    if (--image->holds == 0)
        (void)pthread_cond_broadcast(&image->unheld);
    (void)pthread_mutex_unlock(&image->lock);
}

static void take_volume(struct spb_image *image, bool ends_watches)
{
    (void)pthread_mutex_lock(&image->lock);
    image->closing = true;
    if (ends_watches)
        spb_watch_end(image);
    spb_scrub_end(image);
    spb_copies_end_image(image->daemon->copies, image);
    while (image->holds > 0)
        (void)pthread_cond_wait(&image->unheld, &image->lock);
    (void)pthread_mutex_unlock(&image->lock);
}

void spb_image_reclaim(struct spb_image *image)
{
    take_volume(image, true);
}

void spb_image_pause(struct spb_image *image)
{
    take_volume(image, false);
}

void spb_image_reclaim_done(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    image->closing = false;
    (void)pthread_mutex_unlock(&image->lock);
}

/* ---- Failures ----------------------------------------------------------------------------- */

bool spb_image_note_failure(struct spb_image *image, const struct spb_error *failed)
{
    struct spb_error err = {.code = SPB_OK};
    const struct spb_error *cause = failed != NULL ? failed : &err;
    bool turned = false;

    (void)pthread_mutex_lock(&image->lock);
    bool refuses = image->volume != NULL && !spb_is_ok(spb_volume_is_writable(image->volume, &err));
    if (refuses && image->state == SPB_IMAGE_READY) {
        image->state = SPB_IMAGE_READ_ONLY;
        image->reason_code = err.code;
        (void)snprintf(image->reason, sizeof(image->reason), "%s", cause->text);
        turned = true;
    }
    (void)pthread_mutex_unlock(&image->lock);
    if (turned) {
        spb_log(&image->daemon->log, SPB_LOG_ERROR, "image-failed",
                SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
                SPB_TEXT("reason", cause->text));
        spb_uploads_end_image(image->daemon->uploads, image);
    }
    return refuses;
}

static void set_state(struct spb_image *image, enum spb_image_state state)
{
    (void)pthread_mutex_lock(&image->lock);
    image->state = state;
    image->reason_code = SPB_OK;
    image->reason[0] = '\0';
    (void)pthread_mutex_unlock(&image->lock);
}

void spb_image_note_recovery(struct spb_image *image)
{
    set_state(image, SPB_IMAGE_READY);
    spb_log(&image->daemon->log, SPB_LOG_INFO, "image-recovered",
            SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name));
}

void spb_image_note_deletion(struct spb_image *image)
{
    set_state(image, SPB_IMAGE_DELETED);
}

/* ---- Showing it --------------------------------------------------------------------------- */

static Spaceblock__V1__ImageState shown_state(enum spb_image_state state)
{
    switch (state) {
    case SPB_IMAGE_READY:
        return SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_READY;
    case SPB_IMAGE_READ_ONLY:
        return SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_READ_ONLY;
    case SPB_IMAGE_DAMAGED:
        return SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_DAMAGED;
    case SPB_IMAGE_QUARANTINED:
        return SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_QUARANTINED;
    case SPB_IMAGE_ATTACHED:
        return SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_ATTACHED;
    case SPB_IMAGE_UNAVAILABLE:
    case SPB_IMAGE_DELETED:
        break;
    }
    return SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_UNAVAILABLE;
}

PB_Image *spb_image_show(struct spb_image *image, struct spb_call *call)
{
    PB_Image *shown = spb_call_alloc(call, sizeof(*shown));
    char *reason = spb_call_alloc(call, sizeof(image->reason));
    uint8_t *uuid = spb_call_alloc(call, SPB_UUID_SIZE);

    if (shown == NULL || reason == NULL || uuid == NULL)
        return NULL;
    *shown = (PB_Image)SPACEBLOCK__V1__IMAGE__INIT;
    (void)pthread_mutex_lock(&image->lock);
    memcpy(reason, image->reason, sizeof(image->reason));
    memcpy(uuid, image->superblock.uuid, SPB_UUID_SIZE);
    shown->tenant = image->tenant;
    shown->name = spb_pb_text(image->name);
    shown->state = shown_state(image->state);
    shown->reason = spb_pb_text(reason);
    if (image->sector_size != 0) {
        shown->sector_size = image->sector_size;
        shown->total_blocks = image->superblock.total_blocks;
        shown->epoch = image->superblock.epoch;
        shown->uuid = spb_pb_bytes(uuid, SPB_UUID_SIZE);
    }
    (void)pthread_mutex_unlock(&image->lock);
    return shown;
}
