/* The table of uploads, and the life of one; see uploads.h. */
#include "uploads.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "uploads_table.h"

#define BATCH 64u /* uploads that are handled between two takings of the lock */

void spb_uploads_lock(struct spb_uploads *uploads)
{
    (void)pthread_mutex_lock(&uploads->lock);
}

void spb_uploads_unlock(struct spb_uploads *uploads)
{
    (void)pthread_mutex_unlock(&uploads->lock);
}

spb_status spb_uploads_new(struct spb_daemon *daemon, struct spb_uploads **out,
                           struct spb_error *err)
{
    struct spb_uploads *uploads = calloc(1, sizeof(*uploads));

    if (uploads == NULL)
        return spb_fail_memory(err, "making the table of uploads");
    uploads->daemon = daemon;
    (void)pthread_mutex_init(&uploads->lock, NULL);
    (void)pthread_cond_init(&uploads->synced, NULL);
    *out = uploads;
    return spb_ok();
}

/* ---- Making one --------------------------------------------------------------------------- */

static void release_strand(void *user)
{
    spb_upload_unref(user);
}

static spb_status set_up(struct spb_upload *upload, bool fresh, struct spb_error *err)
{
    struct spb_upload_row *row = &upload->row;

    if (fresh && getrandom(row->id, sizeof(row->id), 0) != (ssize_t)sizeof(row->id))
        return spb_fail_errno(err, SPB_UNSUPPORTED, errno, "drawing an upload's id");
    if (row->kind != SPB_UPLOAD_PRODUCT)
        SPB_TRY(spb_upload_file_path(upload->table->daemon, row, &upload->path, err));
    if (row->kind != SPB_UPLOAD_ARTIFACT)
        (void)snprintf(upload->image_text, sizeof(upload->image_text), "%u/%s",
                       (unsigned)row->tenant, row->image);
    return spb_strand_new(upload->table->daemon->pool, release_strand, upload, &upload->strand,
                          err);
}

spb_status spb_upload_new(struct spb_uploads *uploads, const struct spb_upload_row *row, bool fresh,
                          struct spb_image *image, struct spb_upload **out, struct spb_error *err)
{
    struct spb_upload *upload = calloc(1, sizeof(*upload));

    if (upload == NULL)
        return spb_fail_memory(err, "starting an upload");
    upload->table = uploads;
    upload->refs = 1;
    upload->row = *row;
    upload->fd = -1;
    upload->ops = row->kind == SPB_UPLOAD_PRODUCT ? &spb_upload_product_ops : &spb_upload_file_ops;
    upload->end_task.run = spb_upload_run_end;
    upload->sync_task.run = spb_upload_run_sync;
    upload->used_ns = upload->row_used_ns = spb_now_ns();
    upload->image = image;
    if (image != NULL)
        spb_image_ref(image);
    spb_status status = set_up(upload, fresh, err);
    if (!spb_is_ok(status)) {
        spb_upload_unref(upload);
        return status;
    }
    *out = upload;
    return status;
}

static bool is_owner(const struct spb_upload_row *row, const struct spb_principal *principal)
{
    return row->owner_tenant == principal->tenant && row->owner_kind == (uint32_t)principal->kind &&
           strcmp(row->owner, principal->name) == 0;
}

static bool has_same_owner(const struct spb_upload_row *a, const struct spb_upload_row *b)
{
    return a->owner_tenant == b->owner_tenant && a->owner_kind == b->owner_kind &&
           strcmp(a->owner, b->owner) == 0;
}

static size_t count_of_owner(const struct spb_uploads *uploads, const struct spb_upload_row *row)
{
    size_t count = 0;

    for (const struct spb_upload *u = uploads->first; u != NULL; u = u->next)
        count += has_same_owner(&u->row, row);
    return count;
}

void spb_upload_link_locked(struct spb_upload *upload)
{
    struct spb_uploads *uploads = upload->table;

    upload->refs++;
    upload->listed = true;
    upload->next = uploads->first;
    uploads->first = upload;
    uploads->count++;
}

spb_status spb_upload_enlist(struct spb_upload *upload, struct spb_error *err)
{
    struct spb_uploads *uploads = upload->table;
    uint64_t most = SPB_LIMIT(uploads->daemon, uploads_max);
    uint64_t most_of_one = SPB_LIMIT(uploads->daemon, uploads_principal_max);

    spb_uploads_lock(uploads);
    bool full = uploads->count >= most;
    bool greedy = !full && count_of_owner(uploads, &upload->row) >= most_of_one;
    if (!full && !greedy)
        spb_upload_link_locked(upload);
    spb_uploads_unlock(uploads);
    if (full)
        return spb_fail(err, SPB_LIMIT,
                        "%llu uploads are open, at most so many are taken: finish or abort one",
                        (unsigned long long)most);
    if (greedy)
        return spb_fail(err, SPB_LIMIT,
                        "%llu uploads of this principal are open, at most so many of one are "
                        "taken: finish or abort one",
                        (unsigned long long)most_of_one);
    return spb_ok();
}

/* ---- Looking at it ------------------------------------------------------------------------ */

struct spb_upload *spb_upload_find(struct spb_uploads *uploads,
                                   const struct spb_principal *principal, const void *id,
                                   size_t id_len)
{
    struct spb_upload *upload = NULL;

    if (id_len != SPB_UPLOAD_ID_SIZE)
        return NULL;
    spb_uploads_lock(uploads);
    for (upload = uploads->first; upload != NULL; upload = upload->next) {
        if (memcmp(upload->row.id, id, id_len) == 0 && is_owner(&upload->row, principal) &&
            upload->state != SPB_UPLOAD_ENDED)
            break;
    }
    if (upload != NULL) {
        upload->refs++;
        upload->used_ns = spb_now_ns();
    }
    spb_uploads_unlock(uploads);
    return upload;
}

void spb_upload_ref(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    upload->refs++;
    spb_uploads_unlock(upload->table);
}

void spb_upload_unref(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    bool last = --upload->refs == 0;
    spb_uploads_unlock(upload->table);
    if (!last)
        return;
    SPB_ASSERT(upload->reservation == NULL && upload->writer == NULL && upload->fd < 0);
    spb_strand_free(upload->strand);
    if (upload->image != NULL)
        spb_image_unref(upload->image);
    free(upload->path);
    free(upload);
}

void spb_upload_submit(struct spb_upload *upload, struct spb_task *task)
{
    /* A strand in motion keeps its upload: release_strand lets go. */
    spb_upload_ref(upload);
    if (!spb_strand_submit(upload->strand, task))
        spb_upload_unref(upload);
}

enum spb_upload_state spb_upload_state(struct spb_upload *upload)
{
    spb_uploads_lock(upload->table);
    enum spb_upload_state state = upload->state;
    spb_uploads_unlock(upload->table);
    return state;
}

bool spb_upload_turn(struct spb_upload *upload, enum spb_upload_state from,
                     enum spb_upload_state to)
{
    spb_uploads_lock(upload->table);
    bool turned = upload->state == from;
    if (turned)
        upload->state = to;
    spb_uploads_unlock(upload->table);
    return turned;
}

static int64_t life_ns(const struct spb_upload *upload)
{
    return (int64_t)SPB_LIMIT(upload->table->daemon, upload_life_s) * SPB_NS_PER_S;
}

void spb_upload_look(struct spb_upload *upload, int64_t now_ns,
                     struct spb_upload_standing *standing)
{
    int64_t life = life_ns(upload);

    spb_uploads_lock(upload->table);
    int64_t idle = now_ns > upload->used_ns ? now_ns - upload->used_ns : 0;
    *standing = (struct spb_upload_standing){
        .state = upload->state,
        .next_offset = upload->next_offset,
        .durable_offset = upload->durable_offset,
        .seconds_left = idle >= life ? 0 : (uint64_t)((life - idle) / SPB_NS_PER_S),
        .checked = upload->checked,
        .row_is_old = upload->used_ns - upload->row_used_ns > life / 16,
    };
    spb_uploads_unlock(upload->table);
}

void spb_upload_set_offset(struct spb_upload *upload, uint64_t next_offset)
{
    spb_uploads_lock(upload->table);
    upload->next_offset = next_offset;
    spb_uploads_unlock(upload->table);
}

/* ---- Many --------------------------------------------------------------------------------- */

/* Queues the end of those that match, each on its strand, once. */
static bool queue_some(struct spb_uploads *uploads, const struct spb_image *image,
                       int64_t before_ns)
{
    struct spb_upload *ending[BATCH];
    size_t count = 0;

    spb_uploads_lock(uploads);
    for (struct spb_upload *u = uploads->first; u != NULL && count < BATCH; u = u->next) {
        bool match = image != NULL ? u->image == image : u->used_ns < before_ns;

        if (!match || u->end_queued || u->state != SPB_UPLOAD_OPEN)
            continue;
        u->end_queued = true;
        u->refs++; /* the task's */
        ending[count++] = u;
    }
    spb_uploads_unlock(uploads);
    for (size_t i = 0; i < count; i++)
        spb_upload_submit(ending[i], &ending[i]->end_task);
    return count == BATCH;
}

void spb_uploads_end_image(struct spb_uploads *uploads, struct spb_image *image)
{
    while (queue_some(uploads, image, 0)) {
    }
}

void spb_uploads_expire(struct spb_uploads *uploads, int64_t now_ns)
{
    int64_t life = (int64_t)SPB_LIMIT(uploads->daemon, upload_life_s) * SPB_NS_PER_S;

    while (queue_some(uploads, NULL, now_ns - life)) {
    }
}

size_t spb_uploads_count(struct spb_uploads *uploads)
{
    spb_uploads_lock(uploads);
    size_t count = uploads->count;
    spb_uploads_unlock(uploads);
    return count;
}

/* One that the image's going ends, referenced; dormant ones are known by the image's name. */
static struct spb_upload *find_of_image(struct spb_uploads *uploads, const struct spb_image *image,
                                        bool dormant)
{
    struct spb_upload *upload = NULL;

    spb_uploads_lock(uploads);
    for (upload = uploads->first; upload != NULL; upload = upload->next) {
        bool sleeps = dormant && upload->image == NULL && spb_upload_is_to(upload, image);

        if ((upload->image == image || sleeps) && upload->state != SPB_UPLOAD_ENDED)
            break;
    }
    if (upload != NULL)
        upload->refs++;
    spb_uploads_unlock(uploads);
    return upload;
}

static void end_of_image(struct spb_uploads *uploads, const struct spb_image *image, bool dormant)
{
    struct spb_upload *upload;

    while ((upload = find_of_image(uploads, image, dormant)) != NULL) {
        spb_upload_end(upload);
        spb_upload_unref(upload);
    }
}

void spb_uploads_release_image(struct spb_uploads *uploads, struct spb_image *image)
{
    end_of_image(uploads, image, false);
}

void spb_uploads_drop_image(struct spb_uploads *uploads, struct spb_image *image)
{
    end_of_image(uploads, image, true);
}
