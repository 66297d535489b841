/* Uploads over restarts: loading, attaching to images, letting go; see uploads.h. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"
#include "image.h"
#include "registry.h"
#include "uploads_table.h"

/* ---- Loading ------------------------------------------------------------------------------ */

struct loading {
    struct spb_uploads *uploads;
    int64_t now_us;
    struct spb_error *err;
    spb_status status;
};

/* A row that we wrote is right; one that is not is not trusted with a path or an extent. */
static bool row_is_sound(const struct spb_upload_row *row)
{
    bool product = row->kind == SPB_UPLOAD_PRODUCT;
    bool named = spb_image_name_is_valid(row->image, strnlen(row->image, sizeof(row->image)));

    if (!product && row->kind != SPB_UPLOAD_IMAGE && row->kind != SPB_UPLOAD_ARTIFACT)
        return false;
    if (row->kind == SPB_UPLOAD_ARTIFACT ? row->image[0] != '\0' : !named)
        return false;
    if (product && !spb_is_ok(spb_product_name_check(row->name, row->name_len, NULL)))
        return false;
    return row->name_len <= sizeof(row->name) && row->durable_offset <= row->size;
}

/* Why it cannot go on in its file; NULL where it can, or has none. */
static const char *flaw_of_file(const struct spb_upload *upload)
{
    struct stat st;

    if (upload->path == NULL)
        return NULL;
    if (lstat(upload->path, &st) != 0)
        return errno == ENOENT ? "its file is gone" : "its file cannot be looked at";
    if (!S_ISREG(st.st_mode))
        return "its file is no regular file";
    return (uint64_t)st.st_size == upload->row.size ? NULL : "its file has another size";
}

static void set_times(struct spb_upload *upload, int64_t now_us)
{
    int64_t idle_us = now_us - upload->row.used_us;

    /* A clock that went back gives time, and takes none. */
    if (idle_us < 0)
        idle_us = 0;
    if (idle_us > INT64_MAX / 2000)
        idle_us = INT64_MAX / 2000;
    upload->used_ns = spb_now_ns() - idle_us * 1000;
    upload->row_used_ns = upload->used_ns;
}

/* Takes an upload from its row; it is listed even where that ends it at once. */
static spb_status take_upload(struct loading *loading, const struct spb_upload_row *row,
                              struct spb_error *err)
{
    struct spb_upload *upload = NULL;
    struct spb_upload_standing standing;

    SPB_TRY(spb_upload_new(loading->uploads, row, false, NULL, &upload, err));
    upload->has_row = true;
    upload->next_offset = upload->durable_offset = row->durable_offset;
    set_times(upload, loading->now_us);
    if (upload->path != NULL) {
        (void)atomic_fetch_add(&loading->uploads->daemon->temporary_bytes, row->size);
        upload->counted = true;
    }
    spb_uploads_lock(loading->uploads);
    spb_upload_link_locked(upload);
    spb_uploads_unlock(loading->uploads);
    spb_upload_look(upload, spb_now_ns(), &standing);
    const char *flaw = standing.seconds_left == 0 ? NULL : flaw_of_file(upload);
    if (flaw != NULL)
        spb_upload_log(upload, SPB_LOG_WARN, "upload-ended", flaw);
    upload->doomed = standing.seconds_left == 0 || flaw != NULL;
    spb_upload_unref(upload);
    return spb_ok();
}

/* On the audit's side: nothing may be asked of the database from here. */
static void take_row(void *user, const struct spb_upload_row *row)
{
    struct loading *loading = user;

    if (!spb_is_ok(loading->status))
        return;
    if (row_is_sound(row))
        loading->status = take_upload(loading, row, loading->err);
    else
        spb_log(&loading->uploads->daemon->log, SPB_LOG_ERROR, "upload-row-unsound",
                SPB_NUMBER("kind", row->kind), SPB_NUMBER("tenant", row->tenant));
}

/* One that matches, referenced. */
static struct spb_upload *find_if(struct spb_uploads *uploads,
                                  bool (*match)(const struct spb_upload *upload, const void *user),
                                  const void *user)
{
    struct spb_upload *upload;

    spb_uploads_lock(uploads);
    for (upload = uploads->first; upload != NULL; upload = upload->next) {
        if (upload->state != SPB_UPLOAD_ENDED && match(upload, user))
            break;
    }
    if (upload != NULL)
        upload->refs++;
    spb_uploads_unlock(uploads);
    return upload;
}

static bool is_doomed(const struct spb_upload *upload, const void *unused)
{
    (void)unused;
    return upload->doomed;
}

static void end_doomed(struct spb_uploads *uploads)
{
    struct spb_upload *upload;

    while ((upload = find_if(uploads, is_doomed, NULL)) != NULL) {
        spb_upload_end(upload);
        spb_upload_unref(upload);
    }
}

spb_status spb_uploads_load(struct spb_daemon *daemon, struct spb_error *err)
{
    struct loading loading = {
        .uploads = daemon->uploads, .now_us = spb_unix_us(), .err = err, .status = spb_ok()};

    SPB_TRY(spb_rows_uploads(daemon->audit, take_row, &loading, err));
    SPB_TRY(loading.status);
    end_doomed(daemon->uploads);
    spb_upload_sweep_files(daemon->uploads);
    spb_log(&daemon->log, SPB_LOG_INFO, "uploads-loaded",
            SPB_NUMBER("count", daemon->uploads->count));
    return spb_ok();
}

/* ---- Images ------------------------------------------------------------------------------- */

bool spb_upload_is_to(const struct spb_upload *upload, const struct spb_image *image)
{
    return upload->row.kind == SPB_UPLOAD_PRODUCT && upload->row.tenant == image->tenant &&
           strcmp(upload->row.image, image->name) == 0 &&
           (upload->row.image_id == 0 || upload->row.image_id == image->row.id);
}

void spb_uploads_settle(struct spb_uploads *uploads)
{
    struct spb_daemon *daemon = uploads->daemon;

    spb_uploads_lock(uploads);
    for (struct spb_upload *u = uploads->first; u != NULL; u = u->next) {
        if (u->row.kind != SPB_UPLOAD_PRODUCT)
            continue;
        struct spb_image *image =
            spb_registry_find(daemon->registry, u->row.tenant, u->row.image, strlen(u->row.image));
        u->doomed = image == NULL || !spb_upload_is_to(u, image);
        if (image != NULL)
            spb_image_unref(image);
    }
    spb_uploads_unlock(uploads);
    end_doomed(uploads);
}

/* The newest of the image's dormant uploads, referenced. */
static struct spb_upload *newest_dormant(struct spb_uploads *uploads, const struct spb_image *image)
{
    struct spb_upload *newest = NULL;

    spb_uploads_lock(uploads);
    for (struct spb_upload *u = uploads->first; u != NULL; u = u->next) {
        bool waits = u->image == NULL && u->state == SPB_UPLOAD_OPEN && spb_upload_is_to(u, image);

        if (waits && (newest == NULL || u->row.created_us > newest->row.created_us))
            newest = u;
    }
    if (newest != NULL)
        newest->refs++;
    spb_uploads_unlock(uploads);
    return newest;
}

/* Unless somebody ended it in the meantime: then the reservation is given back. */
static void adopt(struct spb_upload *upload, struct spb_image *image,
                  struct spb_reservation *reservation)
{
    spb_uploads_lock(upload->table);
    bool adopted = upload->state == SPB_UPLOAD_OPEN;
    if (adopted) {
        upload->image = image;
        upload->reservation = reservation;
        spb_image_ref(image);
    }
    spb_uploads_unlock(upload->table);
    if (!adopted)
        spb_reservation_free(reservation);
}

/* What was open of the image is settled: a Finish that was cut short has its outcome. */
static spb_status reserve_again(const struct spb_upload *upload, const struct spb_image *image,
                                struct spb_reservation **reservation, struct spb_error *err)
{
    bool published = false;

    SPB_TRY(spb_rows_upload_is_published(image->daemon->audit, upload->row.id, &published, err));
    if (published)
        return spb_fail(err, SPB_EXISTS, "it was published");
    return spb_reservation_new_extent(image->volume, upload->row.block_offset,
                                      upload->row.block_count, reservation, err);
}

void spb_uploads_attach(struct spb_uploads *uploads, struct spb_image *image)
{
    struct spb_upload *upload;

    while ((upload = newest_dormant(uploads, image)) != NULL) {
        struct spb_reservation *reservation = NULL;
        struct spb_error err;

        spb_status status = reserve_again(upload, image, &reservation, &err);
        if (spb_is_ok(status)) {
            adopt(upload, image, reservation);
        } else {
            spb_log(&uploads->daemon->log, SPB_LOG_WARN, "upload-ended",
                    SPB_TEXT("image", upload->image_text), SPB_TEXT("by", upload->row.owner),
                    SPB_TEXT("reason", err.text));
            spb_upload_end(upload);
        }
        spb_upload_unref(upload);
    }
}

/* ---- Letting go --------------------------------------------------------------------------- */

/* What has come since the last time is made durable, so that nothing is sent again. */
static void park(struct spb_upload *upload)
{
    struct spb_upload_standing standing;
    struct spb_error err;

    spb_upload_look(upload, spb_now_ns(), &standing);
    bool dirty = standing.checked &&
                 (standing.next_offset != standing.durable_offset || standing.row_is_old);
    if (upload->has_row && dirty && !spb_is_ok(spb_upload_sync(upload, &err)))
        spb_log(&upload->table->daemon->log, SPB_LOG_WARN, "upload-not-kept",
                SPB_TEXT("image", upload->image_text), SPB_TEXT("reason", err.text));
    upload->ops->release(upload, upload->has_row);
}

static void forget_left(struct spb_uploads *uploads)
{
    struct spb_upload_left *left;

    while ((left = uploads->left) != NULL) {
        uploads->left = left->next;
        free(left);
    }
}

void spb_uploads_free(struct spb_uploads *uploads)
{
    struct spb_upload *upload;

    if (uploads == NULL)
        return;
    spb_uploads_remove_left(uploads);
    while ((upload = uploads->first) != NULL) {
        park(upload);
        uploads->first = upload->next;
        upload->listed = false;
        spb_upload_unref(upload);
    }
    forget_left(uploads);
    (void)pthread_cond_destroy(&uploads->synced);
    (void)pthread_mutex_destroy(&uploads->lock);
    free(uploads);
}
