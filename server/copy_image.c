/* Files that become images; see copy_image.h. */
#include "copy_image.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"
#include "doubts.h"
#include "image.h"
#include "registry.h"
#include "settle.h"

#define LOOK_AT_ONCE 64u /* images */

/* ---- Names and uuids ---------------------------------------------------------------------- */

static spb_status fail_taken(uint16_t tenant, const char *name, struct spb_error *err)
{
    return spb_fail(err, SPB_EXISTS, "image %u/%s exists, or is being made", (unsigned)tenant,
                    name);
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

spb_status spb_image_name_is_free(struct spb_daemon *daemon, uint16_t tenant, const char *name,
                                  struct spb_error *err)
{
    struct spb_image *image = spb_registry_find(daemon->registry, tenant, name, strlen(name));

    /* One that is being deleted, or renamed, has the name until that is recorded. */
    if (image != NULL) {
        spb_image_unref(image);
        return fail_taken(tenant, name, err);
    }
    char *path = spb_image_path(daemon, tenant, name);
    if (path == NULL)
        return spb_fail_memory(err, "looking for an image");
    bool there = is_there(path);
    free(path);
    return there ? fail_taken(tenant, name, err) : spb_ok();
}

/* Does an image that is served have the row, whatever name that gives it? */
static bool row_is_in_use(const struct spb_image_row *row, struct spb_registry *registry)
{
    struct spb_registry_place place = {.tenant = row->tenant};
    struct spb_image *found[LOOK_AT_ONCE];
    char after[SPB_IMAGE_NAME_MAX + 1];
    bool in_use = false;
    size_t count;

    do {
        count = spb_registry_list(registry, &place, found, LOOK_AT_ONCE);
        for (size_t i = 0; i < count; i++) {
            (void)pthread_mutex_lock(&found[i]->lock);
            in_use |= found[i]->state != SPB_IMAGE_DELETED && found[i]->row.id == row->id;
            (void)pthread_mutex_unlock(&found[i]->lock);
        }
        if (count > 0)
            memcpy(after, found[count - 1]->name, sizeof(after));
        place.after_tenant = row->tenant;
        place.after_name = after;
        for (size_t i = 0; i < count; i++)
            spb_image_unref(found[i]);
    } while (count == LOOK_AT_ONCE && !in_use);
    return in_use;
}

/*
 * The row that an image of that name has left: one that was deleted, and whose row could not be. It
 * goes before anything is made, else a death before the new one has its own leaves an image that is
 * not what the registry knows.
 */
static spb_status drop_old_row(struct spb_image *image, struct spb_error *err)
{
    struct spb_daemon *daemon = image->daemon;
    struct spb_image_row row;
    bool found = false;

    SPB_TRY(spb_rows_find_image(daemon->audit, image->tenant, image->name, &row, &found, err));
    if (!found)
        return spb_ok();
    if (row_is_in_use(&row, daemon->registry))
        return fail_taken(image->tenant, image->name, err);
    SPB_TRY(spb_settle_lost(daemon, row.id, err));
    return spb_rows_remove_image(daemon->audit, row.id, err);
}

spb_status spb_image_claim_name(struct spb_image *image, struct spb_error *err)
{
    struct spb_registry *registry = image->daemon->registry;

    SPB_TRY(spb_doubts_settle(image->daemon->doubts, image->tenant, err));
    if (!spb_registry_reserve(registry, image))
        return fail_taken(image->tenant, image->name, err);
    spb_status status = is_there(image->path) ? fail_taken(image->tenant, image->name, err)
                                              : drop_old_row(image, err);
    if (!spb_is_ok(status))
        spb_registry_unreserve(registry, image);
    return status;
}

/* ---- Files -------------------------------------------------------------------------------- */

/* Errors go to clients: they name the image, not the file. */
static spb_status open_device(const char *path, enum spb_file_mode mode, const char *text,
                              struct spb_device **device, struct spb_error *err)
{
    struct spb_error found;
    spb_status status = spb_device_file_open(path, mode, device, &found);

    if (!spb_is_ok(status))
        return spb_fail_errno(err, status.code, found.saved_errno, "opening the file of %s", text);
    (void)snprintf((*device)->name, sizeof((*device)->name), "%s", text);
    return status;
}

spb_status spb_image_look(const char *path, uint32_t sector_size, const char *text,
                          struct spb_image_look *look, struct spb_error *err)
{
    struct spb_open_options options = {.sector_size = sector_size, .writable = false};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;

    SPB_TRY(open_device(path, SPB_FILE_READ, text, &device, err));
    spb_status status = spb_volume_open(device, &options, &volume, err);
    if (!spb_is_ok(status)) {
        spb_device_close(device);
        return status;
    }
    look->superblock = *spb_volume_superblock(volume);
    look->sector_size = spb_volume_sector_size(volume);
    spb_volume_close(volume);
    return status;
}

spb_status spb_image_reidentify(const char *path, uint16_t tenant,
                                const uint8_t uuid[SPB_UUID_SIZE], const char *text,
                                struct spb_error *err)
{
    struct spb_snapshot_identity identity = {.tenant_id = tenant};
    struct spb_device *device = NULL;

    memcpy(identity.uuid, uuid, SPB_UUID_SIZE);
    SPB_TRY(open_device(path, SPB_FILE_WRITE, text, &device, err));
    spb_status status = spb_volume_set_identity(device, &identity, err);
    spb_device_close(device);
    return status;
}

/* ---- Publishing --------------------------------------------------------------------------- */

spb_status spb_image_foresee(struct spb_daemon *daemon, uint16_t tenant, const char *name,
                             const struct spb_image_look *look, struct spb_image **out,
                             struct spb_error *err)
{
    struct spb_image *image = NULL;

    SPB_TRY(spb_image_new(daemon, tenant, name, &image, err));
    image->state = SPB_IMAGE_READY;
    image->superblock = look->superblock;
    image->sector_size = look->sector_size;
    image->row.sector_size = look->sector_size;
    *out = image;
    return spb_ok();
}

spb_status spb_image_claim_uuid(struct spb_image *image, struct spb_error *err)
{
    char other[SPB_IMAGE_TEXT_SIZE];

    if (spb_registry_claim(image->daemon->registry, image, image->superblock.uuid, other))
        return spb_ok();
    return spb_fail(err, SPB_EXISTS, "image %u/%s cannot have the uuid that image %s has",
                    (unsigned)image->tenant, image->name, other);
}

void spb_image_unclaim(struct spb_image *image)
{
    spb_registry_unreserve(image->daemon->registry, image);
    spb_registry_unclaim(image->daemon->registry, image);
}

spb_status spb_image_publish(struct spb_image *image, const char *from, bool *named,
                             struct spb_error *err)
{
    struct spb_error failed;
    char text[96];

    (void)snprintf(text, sizeof(text), "image %u/%s", (unsigned)image->tenant, image->name);
    spb_status status = spb_file_name(from, image->path, text, named, err);
    if (!*named)
        return status;
    /* Durable or not, it is there: what is served agrees with the folder. */
    spb_image_open(image);
    spb_status added = spb_registry_add(image->daemon->registry, image, &failed);
    if (spb_is_ok(status) && !spb_is_ok(added))
        *err = failed;
    return spb_is_ok(status) ? added : status;
}
