/* What is done with an upload on its strand: checking, keeping, ending; see uploads.h. */
#include <stdlib.h>

#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"
#include "image.h"
#include "uploads_table.h"

static struct spb_daemon *daemon_of(const struct spb_upload *upload)
{
    return upload->table->daemon;
}

static struct spb_image *image_of(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    struct spb_image *image = upload->image;
    spb_uploads_unlock(upload->table);
    return image;
}

bool spb_upload_enter(struct spb_upload *upload)
{
    if (upload->row.kind != SPB_UPLOAD_PRODUCT)
        return true;
    struct spb_image *image = image_of(upload);
    return image != NULL && spb_image_hold(image);
}

void spb_upload_leave(struct spb_upload *upload)
{
    if (upload->row.kind == SPB_UPLOAD_PRODUCT)
        spb_image_unhold(upload->image);
}

void spb_upload_log(const struct spb_upload *upload, enum spb_log_level level, const char *event,
                    const char *reason)
{
    static const char *const words[] = {[SPB_UPLOAD_PRODUCT] = "product",
                                        [SPB_UPLOAD_IMAGE] = "image",
                                        [SPB_UPLOAD_ARTIFACT] = "artifact"};

    spb_log(&daemon_of(upload)->log, level, event, SPB_TEXT("kind", words[upload->row.kind]),
            SPB_NUMBER("tenant", upload->row.tenant), SPB_TEXT("image", upload->row.image),
            SPB_NUMBER("size", upload->row.size), SPB_TEXT("by", upload->row.owner),
            SPB_TEXT("reason", reason));
}

/* ---- Keeping ------------------------------------------------------------------------------ */

spb_status spb_upload_keep(struct spb_upload *upload, struct spb_error *err)
{
    spb_uploads_lock(upload->table);
    int64_t used_ns = upload->used_ns;
    spb_uploads_unlock(upload->table);
    /* The row's clock is another than the one that tells how long ago that was. */
    upload->row.used_us = spb_unix_us() - (spb_now_ns() - used_ns) / 1000;
    if (!upload->has_row)
        upload->row.created_us = upload->row.used_us;
    SPB_TRY(spb_rows_put_upload(daemon_of(upload)->audit, &upload->row, err));
    upload->has_row = true;
    spb_uploads_lock(upload->table);
    upload->row_used_ns = used_ns;
    upload->durable_offset = upload->row.durable_offset;
    spb_uploads_unlock(upload->table);
    spb_uploads_remove_left(upload->table);
    return spb_ok();
}

static void set_checked(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    upload->checked = true;
    upload->next_offset = upload->row.durable_offset;
    upload->durable_offset = upload->row.durable_offset;
    spb_uploads_unlock(upload->table);
}

static bool is_checked(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool checked = upload->checked;
    spb_uploads_unlock(upload->table);
    return checked;
}

spb_status spb_upload_check(struct spb_upload *upload, struct spb_error *err)
{
    if (is_checked(upload))
        return spb_ok();
    spb_status status = upload->ops->resume(upload, err);
    if (status.code == SPB_CORRUPT) {
        spb_upload_log(upload, SPB_LOG_WARN, "upload-restarted", err->text);
        upload->row.durable_offset = 0;
        upload->row.durable_crc = 0;
        SPB_TRY(spb_upload_keep(upload, err));
        status = upload->ops->resume(upload, err);
    }
    if (spb_is_ok(status))
        set_checked(upload);
    return status;
}

spb_status spb_upload_finish(struct spb_upload *upload, struct spb_error *err)
{
    SPB_TRY(spb_upload_end_sync(upload, err));
    if (!upload->finished)
        SPB_TRY(upload->ops->finish(upload, err));
    upload->finished = true;
    return spb_ok();
}

spb_status spb_upload_verify(struct spb_upload *upload, struct spb_error *err)
{
    if (!upload->verified)
        SPB_TRY(upload->ops->verify(upload, err));
    upload->verified = true;
    return spb_ok();
}

/* ---- Ending ------------------------------------------------------------------------------- */

/* True for the one that ends it. */
static bool begin_end(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool mine = upload->state != SPB_UPLOAD_ENDED;
    upload->state = SPB_UPLOAD_ENDED;
    spb_uploads_unlock(upload->table);
    return mine;
}

static void link_left(struct spb_uploads *uploads, struct spb_upload_left *left)
{
    spb_uploads_lock(uploads);
    left->next = uploads->left;
    uploads->left = left;
    spb_uploads_unlock(uploads);
}

static struct spb_upload_left *take_left(struct spb_uploads *uploads)
{
    spb_uploads_lock(uploads);
    struct spb_upload_left *left = uploads->left;
    if (left != NULL)
        uploads->left = left->next;
    spb_uploads_unlock(uploads);
    return left;
}

void spb_uploads_remove_left(struct spb_uploads *uploads)
{
    struct spb_upload_left *left;

    while ((left = take_left(uploads)) != NULL) {
        if (!spb_is_ok(spb_rows_remove_upload(uploads->daemon->audit, left->id, NULL))) {
            link_left(uploads, left);
            return;
        }
        free(left);
    }
}

/*
 * A row that stays is tried again when another one was written or removed, and at the end. Should
 * the daemon die before, the next start meets it, and ends it where it can tell: its file is gone,
 * its image is another, it was published, its extent is taken, or it expires.
 */
static void remove_row(struct spb_upload *upload)
{
    struct spb_error err;

    if (!upload->has_row)
        return;
    upload->has_row = false;
    if (spb_is_ok(spb_rows_remove_upload(daemon_of(upload)->audit, upload->row.id, &err))) {
        spb_uploads_remove_left(upload->table);
        return;
    }
    spb_upload_log(upload, SPB_LOG_ERROR, "upload-row-left", err.text);
    struct spb_upload_left *left = malloc(sizeof(*left));
    if (left == NULL)
        return;
    memcpy(left->id, upload->row.id, sizeof(left->id));
    link_left(upload->table, left);
}

/* How a sync ends is nothing to what ends. */
static void let_sync_end(struct spb_upload *upload)
{
    spb_status status = spb_upload_end_sync(upload, NULL);

    (void)status;
}

static void release(struct spb_upload *upload, bool keep)
{
    upload->ops->release(upload, keep);
    if (upload->counted)
        spb_temporary_give(daemon_of(upload), upload->row.size);
    upload->counted = false;
}

static void unlist(struct spb_upload *upload)
{
    struct spb_uploads *uploads = upload->table;
    struct spb_upload **place = &uploads->first;

    spb_uploads_lock(uploads);
    bool listed = upload->listed;
    if (listed) {
        while (*place != upload)
            place = &(*place)->next;
        *place = upload->next;
        uploads->count--;
        upload->listed = false;
    }
    spb_uploads_unlock(uploads);
    if (listed)
        spb_upload_unref(upload);
}

void spb_upload_end(struct spb_upload *upload)
{
    if (!begin_end(upload))
        return;
    let_sync_end(upload);
    remove_row(upload);
    release(upload, false);
    unlist(upload);
}

bool spb_upload_is_dormant(struct spb_upload *upload)
{
    return upload->row.kind == SPB_UPLOAD_PRODUCT && image_of(upload) == NULL;
}

spb_status spb_upload_abort(struct spb_upload *upload, bool entered, struct spb_error *err)
{
    /* One that lies dormant may be given its image until it has ended. */
    spb_uploads_lock(upload->table);
    bool mine = upload->state == SPB_UPLOAD_OPEN && (entered || upload->image == NULL);
    if (mine)
        upload->state = SPB_UPLOAD_ENDED;
    spb_uploads_unlock(upload->table);
    if (!mine)
        return spb_fail(err, SPB_NOT_FOUND, "the upload has ended, or its image is being opened");
    let_sync_end(upload);
    spb_status status = upload->has_row
                            ? spb_rows_remove_upload(daemon_of(upload)->audit, upload->row.id, err)
                            : spb_ok();
    if (!spb_is_ok(status)) {
        (void)spb_upload_turn(upload, SPB_UPLOAD_ENDED, SPB_UPLOAD_OPEN);
        return status;
    }
    upload->has_row = false;
    release(upload, false);
    unlist(upload);
    return status;
}

void spb_upload_end_published(struct spb_upload *upload)
{
    if (!begin_end(upload))
        return;
    release(upload, false);
    spb_uploads_lock(upload->table);
    bool queue = !upload->end_queued;
    upload->end_queued = true;
    upload->published = true;
    upload->refs += queue; /* the task's */
    spb_uploads_unlock(upload->table);
    if (queue)
        spb_upload_submit(upload, &upload->end_task);
}

/* One without an image: its image's opening may give it one at any time, but not once it ended. */
static void end_dormant(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool mine = upload->image == NULL && upload->state == SPB_UPLOAD_OPEN;
    if (mine)
        upload->state = SPB_UPLOAD_ENDED;
    spb_uploads_unlock(upload->table);
    if (!mine)
        return;
    remove_row(upload);
    release(upload, false);
    unlist(upload);
}

static void end_open(struct spb_upload *upload)
{
    if (!spb_upload_enter(upload)) {
        /* Where the image is closing, who closes it ends its uploads. */
        end_dormant(upload);
        return;
    }
    /* What is being published is ended by the publishing. */
    if (spb_upload_state(upload) == SPB_UPLOAD_OPEN)
        spb_upload_end(upload);
    spb_upload_leave(upload);
}

static bool is_published(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool published = upload->published;
    spb_uploads_unlock(upload->table);
    return published;
}

/* No more is wanted of the task; false where the upload was published meanwhile: it counts on it.
 */
static bool is_all(struct spb_upload *upload, bool did_published)
{
    spb_uploads_lock(upload->table);
    bool all = did_published || !upload->published;
    if (all)
        upload->end_queued = false;
    spb_uploads_unlock(upload->table);
    return all;
}

void spb_upload_run_end(struct spb_task *task)
{
    struct spb_upload *upload = SPB_CONTAINER(task, struct spb_upload, end_task);
    bool published;

    do {
        published = is_published(upload);
        if (published) {
            remove_row(upload);
            unlist(upload);
        } else {
            end_open(upload);
        }
    } while (!is_all(upload, published));
    spb_upload_unref(upload);
}
