/*
 * Syncs of uploads: what has come is made durable, then the row says so. One that was due because
 * so much has come runs on a worker of its own, beside the strand, which goes on taking chunks;
 * else a transfer would stand still for every flush. The strand may call it off as long as no
 * worker has begun with it: so nobody waits for a worker that there may not be. See uploads.h.
 */
#include "base/status.h"
#include "daemon.h"
#include "uploads_table.h"

static bool row_is_old(struct spb_upload *upload)
{
    struct spb_upload_standing standing;

    spb_upload_look(upload, spb_now_ns(), &standing);
    return standing.row_is_old;
}

/* So much is durable; the row is to say so. That it cannot be written is no failure. */
static void note_durable(struct spb_upload *upload, uint64_t offset, uint32_t crc)
{
    struct spb_error failed;

    if (offset == upload->row.durable_offset && !upload->row_failed && !row_is_old(upload))
        return;
    upload->row.durable_offset = offset;
    upload->row.durable_crc = crc;
    spb_status status = spb_upload_keep(upload, &failed);
    if (!spb_is_ok(status) && !upload->row_failed)
        spb_upload_log(upload, SPB_LOG_ERROR, "upload-not-kept", failed.text);
    upload->row_failed = !spb_is_ok(status);
}

spb_status spb_upload_sync(struct spb_upload *upload, struct spb_error *err)
{
    SPB_TRY(spb_upload_end_sync(upload, err));
    uint64_t offset = upload->row.durable_offset;
    uint32_t crc = upload->row.durable_crc;

    SPB_TRY(upload->ops->begin_sync(upload, &offset, &crc, err));
    if (offset != upload->row.durable_offset)
        SPB_TRY(upload->ops->make_durable(upload, err));
    note_durable(upload, offset, crc);
    upload->sync_due = false;
    return spb_ok();
}

bool spb_upload_wants_sync(struct spb_upload *upload)
{
    uint64_t step = SPB_LIMIT(upload->table->daemon, upload_sync_bytes);

    spb_uploads_lock(upload->table);
    /* From where the last attempt was: a database that is full is not asked at every chunk. */
    uint64_t from =
        upload->syncing == SPB_SYNC_NONE ? upload->row.durable_offset : upload->sync_offset;
    bool wants = upload->next_offset - from >= step;
    spb_uploads_unlock(upload->table);
    return wants;
}

/* ---- Beside the strand -------------------------------------------------------------------- */

static spb_status result_locked(const struct spb_upload *upload, struct spb_error *err)
{
    if (!upload->sync_failed)
        return spb_ok();
    if (err != NULL)
        *err = upload->sync_err;
    return (spb_status){upload->sync_err.code};
}

/* Its task stays in the pool's hands, and will find nothing to do. */
static bool call_off(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool off = upload->syncing == SPB_SYNC_WANTED;
    if (off)
        upload->syncing = SPB_SYNC_NONE;
    spb_uploads_unlock(upload->table);
    if (!off)
        return false;
    upload->sync_due = true;
    spb_upload_submit(upload, upload->sync_then);
    return true;
}

spb_status spb_upload_end_sync(struct spb_upload *upload, struct spb_error *err)
{
    struct spb_uploads *uploads = upload->table;

    (void)call_off(upload);
    spb_uploads_lock(uploads);
    while (upload->syncing == SPB_SYNC_RUNS)
        (void)pthread_cond_wait(&uploads->synced, &uploads->lock);
    spb_status status = result_locked(upload, err);
    spb_uploads_unlock(uploads);
    return status;
}

spb_status spb_upload_synced(struct spb_upload *upload, struct spb_error *err)
{
    spb_uploads_lock(upload->table);
    spb_status status = result_locked(upload, err);
    bool due = upload->sync_due && upload->state == SPB_UPLOAD_OPEN;
    spb_uploads_unlock(upload->table);
    SPB_TRY(status);
    return due ? spb_upload_sync(upload, err) : spb_ok();
}

static void hand_over(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool submit = !upload->sync_queued;
    upload->syncing = SPB_SYNC_WANTED;
    upload->sync_queued = true;
    upload->refs += submit; /* the task's */
    spb_uploads_unlock(upload->table);
    if (submit)
        spb_pool_submit(upload->table->daemon->pool, SPB_LANE_BULK, &upload->sync_task);
}

spb_status spb_upload_begin_sync(struct spb_upload *upload, struct spb_task *then, bool *begun,
                                 struct spb_error *err)
{
    *begun = false;
    /* The workers have much to do: here it is done as soon, and for both. */
    if (call_off(upload))
        return spb_upload_sync(upload, err);
    SPB_TRY(spb_upload_end_sync(upload, err));
    uint64_t offset = upload->row.durable_offset;
    uint32_t crc = upload->row.durable_crc;

    SPB_TRY(upload->ops->begin_sync(upload, &offset, &crc, err));
    if (offset == upload->row.durable_offset)
        return spb_ok();
    upload->sync_offset = offset;
    upload->sync_crc = crc;
    upload->sync_then = then;
    *begun = true;
    hand_over(upload);
    return spb_ok();
}

/* From now on the strand waits for it. False where it was called off. */
static bool begin_run(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool runs = upload->syncing == SPB_SYNC_WANTED;
    upload->sync_queued = false;
    if (runs)
        upload->syncing = SPB_SYNC_RUNS;
    spb_uploads_unlock(upload->table);
    return runs;
}

static void end_run(struct spb_upload *upload, const struct spb_error *failed)
{
    spb_uploads_lock(upload->table);
    upload->syncing = SPB_SYNC_NONE;
    upload->sync_failed = failed != NULL;
    if (failed != NULL)
        upload->sync_err = *failed;
    (void)pthread_cond_broadcast(&upload->table->synced);
    spb_uploads_unlock(upload->table);
}

static void run(struct spb_upload *upload)
{
    struct spb_task *then = upload->sync_then;
    struct spb_error err;

    spb_status status = upload->ops->make_durable(upload, &err);
    if (spb_is_ok(status))
        note_durable(upload, upload->sync_offset, upload->sync_crc);
    end_run(upload, spb_is_ok(status) ? NULL : &err);
    spb_upload_submit(upload, then);
}

static void drop(struct spb_upload *upload)
{
    struct spb_task *then = NULL;

    spb_uploads_lock(upload->table);
    if (upload->syncing == SPB_SYNC_WANTED) {
        then = upload->sync_then;
        upload->syncing = SPB_SYNC_NONE;
        upload->sync_due = true;
    }
    upload->sync_queued = false;
    spb_uploads_unlock(upload->table);
    if (then != NULL)
        spb_upload_submit(upload, then);
}

void spb_upload_run_sync(struct spb_task *task)
{
    struct spb_upload *upload = SPB_CONTAINER(task, struct spb_upload, sync_task);
    /* Where the image is not to be had, who waits finds that out. */
    bool entered = spb_upload_enter(upload);

    if (entered && begin_run(upload))
        run(upload);
    else if (!entered)
        drop(upload);
    if (entered)
        spb_upload_leave(upload);
    spb_upload_unref(upload);
}
