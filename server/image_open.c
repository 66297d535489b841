/*
 * Opening an image, also one that a guest has, or had: what its file says, held against what the
 * registry knows, and what a crash left open, settled. What is found becomes the image's state in
 * one step. Workers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "registry.h"
#include "settle.h"
#include "uploads.h"
#include "uuid.h"

#define DESCRIPTORS_TO_OPEN 3u /* an image: more than it takes, of which some are for a moment */
#define FOR_CONNECTIONS 16u    /* descriptors that the images which are there at the start leave */

/* What an opening found; becomes the image's state under its lock. */
struct opening {
    struct spb_device *device; /* until the volume has it */
    struct spb_volume *volume;
    enum spb_image_state state;
    struct spb_error why; /* of another state than READY */
    struct spb_image_row row;
    bool row_is_new; /* it differs from what the registry has */
    bool from_guest; /* a guest writes it, or has written it */
    char guest[SPB_GUEST_TEXT_SIZE];
    bool lacks_space; /* it is READY, and why says what it lacks */
    bool may_pass;    /* what why says: it is none of the image's */
};

static bool is_damage(enum spb_code code)
{
    return code == SPB_BAD_MAGIC || code == SPB_BAD_CRC || code == SPB_BAD_VERSION ||
           code == SPB_BAD_DP_AREA || code == SPB_BAD_SIZE;
}

/* ---- The file ----------------------------------------------------------------------------- */

/* The block size follows from the file's size; where it does not, the registry knows it. */
static spb_status open_device(struct opening *opening, bool writable, struct spb_error *err)
{
    struct spb_open_options options = {.writable = writable};
    const struct spb_image_row *row = &opening->row;
    spb_status status = spb_volume_open(opening->device, &options, &opening->volume, err);

    if (status.code != SPB_BAD_SIZE || (row->id != 0 && row->total_blocks == 0))
        return status;
    options.sector_size = row->sector_size;
    return options.sector_size == 0
               ? status
               : spb_volume_open(opening->device, &options, &opening->volume, err);
}

static bool is_known(const struct spb_image_row *row)
{
    return row->total_blocks != 0;
}

/* Without writing: on the device that is there, or on one opened for reading only. */
static void open_for_reading(struct opening *opening, const char *path)
{
    struct spb_error err;

    opening->state = SPB_IMAGE_UNAVAILABLE;
    if (opening->device == NULL &&
        !spb_is_ok(spb_device_file_open(path, SPB_FILE_READ, &opening->device, &err)))
        return;
    spb_status status = open_device(opening, false, &err);
    if (spb_is_ok(status)) {
        opening->device = NULL;
        opening->state = SPB_IMAGE_READ_ONLY;
    } else if (is_damage(status.code)) {
        opening->state = SPB_IMAGE_DAMAGED;
        opening->why = err;
    }
}

/* Without descriptors nothing can be said of the image. */
static bool is_out_of_descriptors(const struct spb_error *err)
{
    return err->saved_errno == EMFILE || err->saved_errno == ENFILE;
}

/*
 * At the start images leave some for those who are to be served, beside those that connections
 * never take; but for small limits they get half. A probe gets the lowest number that is free, so
 * it tells how many are in use.
 */
static spb_status check_descriptors(const struct spb_daemon *daemon, struct spb_error *err)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    int probe = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (probe < 0)
        return spb_fail_errno(err, SPB_IO, errno, "opening an image");
    (void)close(probe);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return spb_ok();
    rlim_t reserve = SPB_LIMIT(daemon, descriptors_reserve) + FOR_CONNECTIONS;
    if (reserve > limit.rlim_cur / 2)
        reserve = limit.rlim_cur / 2;
    if ((rlim_t)probe + reserve < limit.rlim_cur)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, EMFILE,
                          "%d of %llu descriptors are in use, and the rest is kept for connections",
                          probe, (unsigned long long)limit.rlim_cur);
}

spb_status spb_image_room(struct spb_error *err)
{
    int probes[DESCRIPTORS_TO_OPEN], number = 0;
    size_t count = 0;

    while (count < DESCRIPTORS_TO_OPEN && number == 0) {
        probes[count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (probes[count] < 0)
            number = errno;
        else
            count++;
    }
    while (count > 0)
        (void)close(probes[--count]);
    return number == 0 ? spb_ok()
                       : spb_fail_errno(err, SPB_LIMIT, number, "no room for one more image");
}

/* The device is there, and may be written. */
static void open_for_writing(struct opening *opening, const char *path)
{
    spb_status status = open_device(opening, true, &opening->why);

    if (spb_is_ok(status)) {
        opening->device = NULL;
        opening->state = SPB_IMAGE_READY;
    } else if (is_damage(status.code)) {
        opening->state = SPB_IMAGE_DAMAGED;
    } else if (is_out_of_descriptors(&opening->why)) {
        opening->state = SPB_IMAGE_UNAVAILABLE;
    } else {
        open_for_reading(opening, path);
    }
}

static void open_volume(struct opening *opening, const struct spb_image *image, bool sparing)
{
    const char *path = image->path;
    spb_status status = sparing ? check_descriptors(image->daemon, &opening->why) : spb_ok();

    if (spb_is_ok(status))
        status = spb_device_file_open(path, SPB_FILE_WRITE, &opening->device, &opening->why);
    if (spb_is_ok(status)) {
        open_for_writing(opening, path);
        return;
    }
    opening->device = NULL;
    opening->state = SPB_IMAGE_UNAVAILABLE;
    if (status.code != SPB_LOCKED && !is_out_of_descriptors(&opening->why))
        open_for_reading(opening, path);
}

/* What a guest has made of the superblock: one that is whole, but not the registry's, is no damage.
 */
static enum spb_image_state state_of_failure(const struct opening *opening, enum spb_code code)
{
    if ((code == SPB_BAD_SIZE || code == SPB_BAD_DP_AREA) && is_known(&opening->row))
        return SPB_IMAGE_QUARANTINED;
    return is_damage(code) ? SPB_IMAGE_DAMAGED : SPB_IMAGE_UNAVAILABLE;
}

/* Without writing: a guest has it. The device is there, or opened beside the guest. */
static void open_lent(struct opening *opening, const char *path)
{
    spb_status status = spb_ok();

    if (opening->device == NULL)
        status = spb_device_file_open(path, SPB_FILE_LENT, &opening->device, &opening->why);
    if (!spb_is_ok(status)) {
        opening->device = NULL;
        opening->state = SPB_IMAGE_UNAVAILABLE;
        return;
    }
    status = open_device(opening, false, &opening->why);
    if (spb_is_ok(status)) {
        opening->device = NULL;
        opening->state = SPB_IMAGE_ATTACHED;
    } else {
        opening->state = state_of_failure(opening, status.code);
    }
}

/* ---- Who it is ---------------------------------------------------------------------------- */

/* It is not served, for what `why` says. */
static void turn_away(struct opening *opening, enum spb_image_state state)
{
    spb_volume_close(opening->volume);
    opening->volume = NULL;
    opening->state = state;
}

static void check_tenant(struct opening *opening, const struct spb_image *image)
{
    if (opening->volume == NULL)
        return;
    uint16_t found = spb_volume_superblock(opening->volume)->tenant_id;
    if (found == image->tenant)
        return;
    (void)spb_fail(&opening->why, SPB_CORRUPT,
                   "the superblock names tenant %u, the folder is tenant %u's", (unsigned)found,
                   (unsigned)image->tenant);
    /* It is another than it was, also where somebody would accept it; or never was one of here. */
    turn_away(opening, opening->row.id != 0 ? SPB_IMAGE_QUARANTINED : SPB_IMAGE_DAMAGED);
}

/* The registry is the authority for uuid and size: somebody changed the file, or the superblock. */
static void check_identity(struct opening *opening)
{
    const struct spb_image_row *row = &opening->row;
    char found[SPB_UUID_TEXT_SIZE], known[SPB_UUID_TEXT_SIZE];

    if (opening->volume == NULL || !is_known(row))
        return;
    const struct spb_superblock *super = spb_volume_superblock(opening->volume);
    uint32_t sector_size = spb_volume_sector_size(opening->volume);
    if (memcmp(super->uuid, row->uuid, SPB_UUID_SIZE) == 0 && sector_size == row->sector_size &&
        super->total_blocks == row->total_blocks)
        return;
    spb_uuid_write(super->uuid, found);
    spb_uuid_write(row->uuid, known);
    (void)spb_fail(
        &opening->why, SPB_CHANGED,
        "the superblock says uuid %s, %u blocks of %u bytes; the registry knows uuid %s, "
        "%u blocks of %u bytes",
        found, super->total_blocks, sector_size, known, row->total_blocks, row->sector_size);
    turn_away(opening, SPB_IMAGE_QUARANTINED);
}

/* One uuid, one image. One that cannot be read now keeps the uuid that it had. */
static void claim_uuid(struct opening *opening, struct spb_image *image)
{
    struct spb_registry *registry = image->daemon->registry;
    char other[SPB_IMAGE_TEXT_SIZE];

    if (opening->volume == NULL) {
        if (opening->state == SPB_IMAGE_QUARANTINED || !is_known(&opening->row))
            spb_registry_unclaim(registry, image);
        else
            (void)spb_registry_claim(registry, image, opening->row.uuid, other);
        return;
    }
    if (spb_registry_claim(registry, image, spb_volume_superblock(opening->volume)->uuid, other))
        return;
    (void)spb_fail(&opening->why, SPB_EXISTS, "has the uuid of image %s", other);
    spb_log(&image->daemon->log, SPB_LOG_WARN, "uuid-taken", SPB_NUMBER("tenant", image->tenant),
            SPB_TEXT("name", image->name), SPB_TEXT("by", other));
    turn_away(opening, SPB_IMAGE_QUARANTINED);
}

/* ---- What the registry is to know --------------------------------------------------------- */

spb_status spb_image_draw_incarnation(struct spb_image_row *row, struct spb_error *err)
{
    if (getrandom(row->incarnation, sizeof(row->incarnation), 0) ==
        (ssize_t)sizeof(row->incarnation))
        return spb_ok();
    return spb_fail(err, SPB_UNSUPPORTED, "drawing an incarnation: no random bytes are to be had");
}

/* Cursors count events from the oldest one on: where the pointer is behind, they count others. */
static spb_status check_pointer(struct spb_image *image, struct spb_volume *volume,
                                struct spb_image_row *row, bool *changed, struct spb_error *err)
{
    uint32_t pointer = spb_event_pointer(volume);

    if (pointer >= row->event_pointer)
        return spb_ok();
    spb_log(&image->daemon->log, SPB_LOG_WARN, "events-behind", SPB_NUMBER("tenant", image->tenant),
            SPB_TEXT("name", image->name), SPB_NUMBER("pointer", pointer),
            SPB_NUMBER("known", row->event_pointer));
    SPB_TRY(spb_image_draw_incarnation(row, err));
    row->event_pointer = pointer;
    *changed = true;
    return spb_ok();
}

/* A first opening: what is there is the image from now on. */
static spb_status adopt_identity(struct opening *opening, const struct spb_image *image,
                                 struct spb_error *err)
{
    struct spb_image_row *row = &opening->row;
    const struct spb_superblock *super = spb_volume_superblock(opening->volume);

    row->tenant = image->tenant;
    memcpy(row->name, image->name, strlen(image->name) + 1);
    memcpy(row->uuid, super->uuid, sizeof(row->uuid));
    row->sector_size = spb_volume_sector_size(opening->volume);
    row->total_blocks = super->total_blocks;
    row->event_pointer = spb_event_pointer(opening->volume);
    opening->row_is_new = true;
    return spb_image_draw_incarnation(row, err);
}

/* Whoever hears of events that a guest appended has cursors beyond what is known otherwise. */
static void note_guests_events(struct opening *opening)
{
    uint32_t pointer = spb_event_pointer(opening->volume);

    if (!opening->from_guest || pointer <= opening->row.event_pointer)
        return;
    opening->row.event_pointer = pointer;
    opening->row_is_new = true;
}

static spb_status reconcile(struct opening *opening, struct spb_image *image, struct spb_error *err)
{
    struct spb_image_row *row = &opening->row;

    if (!is_known(row))
        SPB_TRY(adopt_identity(opening, image, err));
    else if (opening->state == SPB_IMAGE_READY)
        SPB_TRY(spb_settle_image(image, opening->volume, err));
    SPB_TRY(check_pointer(image, opening->volume, row, &opening->row_is_new, err));
    note_guests_events(opening);
    return opening->row_is_new ? spb_rows_put_image(image->daemon->audit, row, err) : spb_ok();
}

/* ---- Into the image ----------------------------------------------------------------------- */

/* Of an image that is turned away the registry's knowledge is shown. */
static void show_row(struct spb_image *image)
{
    const struct spb_image_row *row = &image->row;

    if (image->state != SPB_IMAGE_QUARANTINED || !is_known(row))
        return;
    image->superblock = (struct spb_superblock){.total_blocks = row->total_blocks};
    memcpy(image->superblock.uuid, row->uuid, sizeof(row->uuid));
    image->sector_size = row->sector_size;
}

/* The reason as clients get it: with TENANT/NAME where the path of the file is. */
static void tell_reason(struct spb_image *image, const char *text)
{
    const char *path = strstr(text, image->path);

    if (path == NULL)
        (void)snprintf(image->reason, sizeof(image->reason), "%s", text);
    else
        (void)snprintf(image->reason, sizeof(image->reason), "%.*s%u/%s%s", (int)(path - text),
                       text, (unsigned)image->tenant, image->name, path + strlen(image->path));
}

/* Clients know the image by tenant and name: where it lies on the host is none of theirs. */
static void adopt(struct spb_image *image, const struct opening *opening)
{
    if (opening->volume != NULL) {
        struct spb_device *device = spb_volume_device(opening->volume);
        (void)snprintf(device->name, sizeof(device->name), "%u/%s", (unsigned)image->tenant,
                       image->name);
    }
    image->volume = opening->volume;
    image->state = opening->state;
    image->reason[0] = '\0';
    image->reason_code = SPB_OK;
    image->lacks_space = opening->lacks_space;
    image->may_pass = opening->may_pass;
    if (opening->state != SPB_IMAGE_READY)
        image->reason_code = opening->why.code;
    if (opening->state != SPB_IMAGE_READY || opening->lacks_space)
        tell_reason(image, opening->why.text);
    if (opening->guest[0] != '\0')
        memcpy(image->guest, opening->guest, sizeof(image->guest));
    image->row = opening->row;
    memcpy(image->incarnation, opening->row.incarnation, sizeof(image->incarnation));
    if (opening->volume != NULL) {
        image->superblock = *spb_volume_superblock(opening->volume);
        image->sector_size = spb_volume_sector_size(opening->volume);
    }
    show_row(image);
}

/* It cannot be brought in line with the registry. */
static void note_disorder(struct opening *opening, const struct spb_image *image,
                          const struct spb_error *err)
{
    spb_log(&image->daemon->log, SPB_LOG_ERROR, "image-not-in-order",
            SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
            SPB_TEXT("reason", err->text));
    (void)spb_fail(&opening->why, err->code,
                   "what a crash left open could not be settled, or its row in the registry not "
                   "be written (%s): see the server's log",
                   spb_code_name(err->code));
    opening->row = image->row;
    /* The audit's medium is meant. Where the image's own failed too, only a call opens it again. */
    opening->may_pass = (err->code == SPB_FULL || err->code == SPB_IO) &&
                        spb_volume_is_writable(opening->volume, NULL).code != SPB_POISONED;
    if (opening->state == SPB_IMAGE_ATTACHED)
        turn_away(opening, SPB_IMAGE_UNAVAILABLE);
    else
        opening->state = SPB_IMAGE_READ_ONLY;
}

static void identify(struct opening *opening, const struct spb_image *image)
{
    check_tenant(opening, image);
    check_identity(opening);
}

/*
 * Writing to an image needs no space, for its file has all of it: but a guest's discards give that
 * away, and what somebody copied here may never have had it. It is served without, too.
 */
static bool lacks_space(const struct spb_image *image, struct spb_volume *volume, bool from_guest,
                        struct spb_error *why)
{
    struct spb_device *device = spb_volume_device(volume);

    if ((!from_guest && !spb_device_file_lacks_space(device)) ||
        spb_is_ok(spb_device_file_reserve(device, why)))
        return false;
    spb_log(&image->daemon->log, SPB_LOG_WARN, "image-lacks-space",
            SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
            SPB_TEXT("reason", why->text));
    return true;
}

/* What the file holds is found: who it is, and into the image. */
static void settle_in(struct opening *opening, struct spb_image *image)
{
    struct spb_error err;

    spb_device_close(opening->device);
    identify(opening, image);
    claim_uuid(opening, image);
    opening->may_pass =
        opening->state == SPB_IMAGE_UNAVAILABLE && is_out_of_descriptors(&opening->why);
    if (opening->volume != NULL && !spb_is_ok(reconcile(opening, image, &err)))
        note_disorder(opening, image, &err);
    if (opening->state == SPB_IMAGE_ATTACHED)
        (void)spb_fail(&opening->why, SPB_LOCKED, "guest %s", opening->guest);
    if (opening->state == SPB_IMAGE_READY)
        opening->lacks_space =
            lacks_space(image, opening->volume, opening->from_guest, &opening->why);
    (void)pthread_mutex_lock(&image->lock);
    adopt(image, opening);
    (void)pthread_mutex_unlock(&image->lock);
    bool ready = opening->state == SPB_IMAGE_READY;
    if (ready)
        spb_uploads_attach(image->daemon->uploads, image);
    if (opening->state == SPB_IMAGE_ATTACHED)
        spb_attach_begin_look(image->daemon->attachments, image);
    spb_log(&image->daemon->log,
            ready || opening->state == SPB_IMAGE_ATTACHED ? SPB_LOG_INFO : SPB_LOG_WARN,
            "image-opened", SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
            SPB_TEXT("state", spb_image_state_word(opening->state)),
            SPB_TEXT("reason", ready ? "" : opening->why.text));
}

static void open_image(struct spb_image *image, bool sparing)
{
    struct opening opening = {.state = SPB_IMAGE_UNAVAILABLE, .row = image->row};

    opening.from_guest = spb_attach_is_expected(image->daemon->attachments, image, opening.guest);
    if (opening.from_guest)
        open_lent(&opening, image->path);
    else
        open_volume(&opening, image, sparing);
    settle_in(&opening, image);
}

void spb_image_open_returned(struct spb_image *image, struct spb_device *device)
{
    struct opening opening = {
        .state = SPB_IMAGE_UNAVAILABLE,
        .row = image->row,
        .device = device,
        .from_guest = true,
    };

    open_lent(&opening, image->path);
    if (opening.volume != NULL)
        identify(&opening, image);
    /* It is the image that was lent. */
    if (opening.volume != NULL) {
        opening.device = spb_volume_release(opening.volume);
        opening.volume = NULL;
        open_for_writing(&opening, image->path);
    }
    settle_in(&opening, image);
}

void spb_image_open(struct spb_image *image)
{
    open_image(image, false);
}

void spb_image_open_at_start(struct spb_image *image)
{
    open_image(image, true);
}

/* ---- Later -------------------------------------------------------------------------------- */

static void reserve_again(struct spb_image *image)
{
    struct spb_error why;
    bool lacks = lacks_space(image, image->volume, false, &why);

    (void)pthread_mutex_lock(&image->lock);
    image->lacks_space = lacks;
    if (lacks)
        tell_reason(image, why.text);
    (void)pthread_mutex_unlock(&image->lock);
}

spb_status spb_image_recover(struct spb_image *image, struct spb_error *err)
{
    struct spb_image_row row = image->row;
    uint32_t pointer = spb_event_pointer(image->volume);
    bool changed = false;

    /* What was shown was durable: nothing before it may be gone. */
    if (row.event_pointer < pointer)
        row.event_pointer = pointer;
    SPB_TRY(spb_volume_reopen(image->volume, err));
    SPB_TRY(spb_settle_image(image, image->volume, err));
    SPB_TRY(check_pointer(image, image->volume, &row, &changed, err));
    if (changed)
        SPB_TRY(spb_rows_put_image(image->daemon->audit, &row, err));
    (void)pthread_mutex_lock(&image->lock);
    image->row = row;
    memcpy(image->incarnation, row.incarnation, sizeof(image->incarnation));
    (void)pthread_mutex_unlock(&image->lock);
    spb_image_note_recovery(image);
    reserve_again(image);
    return spb_ok();
}

spb_status spb_image_renew(struct spb_image *image, struct spb_error *err)
{
    struct spb_image_row row = image->row;

    SPB_ASSERT(image->volume != NULL);
    row.event_pointer = spb_event_pointer(image->volume);
    SPB_TRY(spb_image_draw_incarnation(&row, err));
    SPB_TRY(spb_rows_put_image(image->daemon->audit, &row, err));
    (void)pthread_mutex_lock(&image->lock);
    image->row = row;
    memcpy(image->incarnation, row.incarnation, sizeof(image->incarnation));
    (void)pthread_mutex_unlock(&image->lock);
    spb_watch_end(image);
    return spb_ok();
}
