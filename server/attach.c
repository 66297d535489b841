/*
 * Lending images to guests and taking them back; see attach.h. Both run as the image's actor, with
 * the image to themselves. The owner's lock is on the device, which is the same one all the while.
 */
#include "attach.h"

#include <stdio.h>
#include <time.h>

#include "actor.h"
#include "audit/audit.h"
#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "uploads.h"
#include "util.h"

#define TAKE_BACK_NS (5 * SPB_NS_PER_S)
#define TAKE_BACK_STEP_NS (20 * SPB_NS_PER_MS)

/* ---- Lending ------------------------------------------------------------------------------ */

/* What is said of an image in another state. Under the lock. */
static enum spb_code refusal_code(const struct spb_image *image)
{
    if (image->state == SPB_IMAGE_ATTACHED)
        return SPB_LOCKED;
    if (image->state == SPB_IMAGE_DELETED)
        return SPB_NOT_FOUND;
    if (image->state == SPB_IMAGE_QUARANTINED || image->reason_code == SPB_OK)
        return SPB_UNSUPPORTED;
    return image->reason_code;
}

static spb_status check_state(struct spb_image *image, struct spb_error *err)
{
    spb_status status = spb_ok();

    (void)pthread_mutex_lock(&image->lock);
    if (image->guest[0] != '\0')
        status = spb_fail(err, SPB_LOCKED, "image %u/%s is attached to guest %s already",
                          (unsigned)image->tenant, image->name, image->guest);
    else if (image->state != SPB_IMAGE_READY)
        status = spb_fail(err, refusal_code(image),
                          "image %u/%s cannot be attached to a guest: it is %s%s%s",
                          (unsigned)image->tenant, image->name, spb_image_state_word(image->state),
                          image->reason[0] == '\0' ? "" : ": ", image->reason);
    (void)pthread_mutex_unlock(&image->lock);
    return status;
}

static spb_status check_file(struct spb_image *image, struct spb_error *err)
{
    if (spb_device_file_is_current(spb_volume_device(image->volume)))
        return spb_ok();
    return spb_fail(err, SPB_UNSUPPORTED,
                    "image %u/%s cannot be attached to a guest: its file was removed or replaced "
                    "since it was opened",
                    (unsigned)image->tenant, image->name);
}

/* Nothing of it runs, and nothing begins. */
static spb_status lend(struct spb_image *image, struct spb_error *err)
{
    struct spb_daemon *daemon = image->daemon;

    SPB_TRY(check_file(image, err));
    SPB_TRY(spb_audit_flush(daemon->audit, err));
    spb_uploads_release_image(daemon->uploads, image);
    return spb_volume_lend(image->volume, err);
}

/* The name of the guest is the reason of the state. */
static void set_attached(struct spb_image *image, const char *guest)
{
    (void)pthread_mutex_lock(&image->lock);
    image->state = SPB_IMAGE_ATTACHED;
    image->reason_code = SPB_LOCKED;
    (void)snprintf(image->guest, sizeof(image->guest), "%s", guest);
    (void)snprintf(image->reason, sizeof(image->reason), "guest %s", guest);
    (void)pthread_mutex_unlock(&image->lock);
}

static void open_afresh(struct spb_image *image)
{
    spb_image_pause(image);
    spb_image_close(image);
    spb_image_open(image);
}

/* A shortage when it was opened last, as when a guest ended, does not keep it from the next one. */
static void open_again(struct spb_image *image)
{
    struct spb_error err;

    (void)pthread_mutex_lock(&image->lock);
    bool may_pass = image->may_pass && image->guest[0] == '\0' &&
                    (image->state == SPB_IMAGE_READ_ONLY || image->state == SPB_IMAGE_UNAVAILABLE);
    (void)pthread_mutex_unlock(&image->lock);
    /* Opening it looks into the audit for what was left open. */
    if (!may_pass || !spb_is_ok(spb_audit_flush(image->daemon->audit, &err)))
        return;
    open_afresh(image);
    spb_image_reclaim_done(image);
    spb_watch_notify(image);
}

static spb_status attach(struct spb_image *image, const char *guest, struct spb_error *err)
{
    open_again(image);
    SPB_TRY(check_state(image, err));
    spb_image_pause(image);
    spb_status status = lend(image, err);
    if (spb_is_ok(status))
        set_attached(image, guest);
    else
        (void)spb_image_note_failure(image, err);
    spb_image_reclaim_done(image);
    spb_watch_notify(image);
    SPB_TRY(status);
    spb_attach_begin_look(image->daemon->attachments, image);
    spb_log(&image->daemon->log, SPB_LOG_INFO, "image-attached",
            SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
            SPB_TEXT("guest", guest));
    return status;
}

spb_status spb_image_attach(struct spb_image *image, const char *guest, struct spb_error *err)
{
    struct spb_error own;

    SPB_ASSERT(guest[0] != '\0' && strlen(guest) < SPB_GUEST_TEXT_SIZE);
    spb_actor_seize(&image->actor);
    spb_status status = attach(image, guest, err != NULL ? err : &own);
    spb_actor_release(&image->actor);
    return status;
}

bool spb_image_guest(struct spb_image *image, char guest[SPB_GUEST_TEXT_SIZE])
{
    (void)pthread_mutex_lock(&image->lock);
    memcpy(guest, image->guest, sizeof(image->guest));
    (void)pthread_mutex_unlock(&image->lock);
    return guest[0] != '\0';
}

/* ---- Taking back -------------------------------------------------------------------------- */

/* The kernel tells nobody that a lock was let go of: a process that ends is asked again. */
static spb_status take_back(struct spb_device *device, struct spb_error *err)
{
    struct timespec step = {.tv_nsec = TAKE_BACK_STEP_NS};
    int64_t until_ns = spb_now_ns() + TAKE_BACK_NS;
    spb_status status;

    for (;;) {
        status = spb_device_file_take_back(device, err);
        if (status.code != SPB_LOCKED || spb_now_ns() >= until_ns)
            return status;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &step, NULL);
    }
}

/* Its volume is closed, for another one holds the file. */
static void set_unavailable(struct spb_image *image, const struct spb_error *why)
{
    (void)pthread_mutex_lock(&image->lock);
    image->state = SPB_IMAGE_UNAVAILABLE;
    image->reason_code = why->code;
    (void)snprintf(image->reason, sizeof(image->reason), "%s", why->text);
    (void)pthread_mutex_unlock(&image->lock);
}

/* What the guest wrote last; only the opening after it says what is wrong, if it fails. */
static void look_once_more(struct spb_image *image)
{
    struct spb_error err;

    if (!spb_image_hold(image))
        return;
    spb_status status = spb_follow_look(image, &err);
    (void)status;
    spb_image_unhold(image);
}

static struct spb_device *release(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    struct spb_volume *volume = image->volume;
    image->volume = NULL;
    (void)pthread_mutex_unlock(&image->lock);
    return spb_volume_release(volume);
}

static void reopen(struct spb_image *image)
{
    struct spb_error err;

    look_once_more(image);
    spb_image_pause(image);
    struct spb_device *device = release(image);
    if (take_back(device, &err).code != SPB_LOCKED) {
        /* Where it cannot be written, it is read. */
        spb_image_open_returned(image, device);
        return;
    }
    spb_device_close(device);
    set_unavailable(image, &err);
}

/* ---- What was found ----------------------------------------------------------------------- */

static uint32_t corrupt_params(const struct spb_volume *volume)
{
    struct spb_param param;
    uint32_t count = 0;

    for (uint32_t i = 0; i < spb_param_slots(volume); i++)
        count += spb_is_ok(spb_param_read_slot(volume, i, &param, NULL)) &&
                 param.state == SPB_PARAM_CORRUPT;
    return count;
}

static uint32_t corrupt_events(const struct spb_volume *volume)
{
    uint32_t pointer = spb_event_pointer(volume), count = 0;
    struct spb_event event;

    for (uint32_t i = spb_event_oldest(volume); i < pointer; i++)
        count += spb_is_ok(spb_event_read(volume, i, &event, NULL)) && event.corrupt;
    return count;
}

static uint32_t invalid_entries(const struct spb_volume *volume)
{
    struct spb_product product;
    uint32_t count = 0;

    for (uint32_t i = 0; i < spb_product_entries(volume); i++)
        count += spb_is_ok(spb_product_entry(volume, i, &product, NULL)) &&
                 product.state == SPB_PRODUCT_INVALID;
    return count;
}

/* The actor's. What a look at the metadata tells: the data of products is left to scrubs. */
static void describe(struct spb_image *image, char *finding, size_t size)
{
    const struct spb_volume *volume = image->volume;
    uint32_t params = 0, events = 0, entries = 0;

    finding[0] = '\0';
    if (volume != NULL) {
        params = corrupt_params(volume);
        events = corrupt_events(volume);
        entries = invalid_entries(volume);
    }
    (void)pthread_mutex_lock(&image->lock);
    if (image->state != SPB_IMAGE_READY)
        (void)snprintf(finding, size, "the image is %s: %s", spb_image_state_word(image->state),
                       image->reason);
    else if (image->lacks_space)
        (void)snprintf(finding, size, "%s", image->reason);
    else if (params + events + entries > 0)
        (void)snprintf(finding, size,
                       "the guest left %u corrupt parameter slots, %u corrupt events and %u "
                       "invalid catalog entries",
                       params, events, entries);
    (void)pthread_mutex_unlock(&image->lock);
}

static void detach(struct spb_image *image, char *finding, size_t size)
{
    char guest[SPB_GUEST_TEXT_SIZE];

    finding[0] = '\0';
    if (!spb_image_guest(image, guest))
        return;
    spb_attach_end_look(image->daemon->attachments, image);
    if (spb_image_state(image) == SPB_IMAGE_ATTACHED)
        reopen(image);
    else if (spb_image_state(image) != SPB_IMAGE_DELETED)
        open_afresh(image); /* it was said to be a live guest's, and could not be opened so */
    (void)pthread_mutex_lock(&image->lock);
    image->guest[0] = '\0';
    (void)pthread_mutex_unlock(&image->lock);
    describe(image, finding, size);
    spb_image_reclaim_done(image);
    spb_watch_notify(image);
    spb_log(&image->daemon->log, finding[0] == '\0' ? SPB_LOG_INFO : SPB_LOG_WARN, "image-detached",
            SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
            SPB_TEXT("guest", guest), SPB_TEXT("found", finding));
}

void spb_image_detach(struct spb_image *image, char *finding, size_t finding_size)
{
    SPB_ASSERT(finding_size > 0);
    spb_actor_seize(&image->actor);
    detach(image, finding, finding_size);
    spb_actor_release(&image->actor);
}
