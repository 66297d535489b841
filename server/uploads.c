/* Uploads in memory; see uploads.h. */
#include "uploads.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"

struct spb_uploads {
    struct spb_daemon *daemon;
    pthread_mutex_t lock;     /* over all below, and as uploads.h says */
    struct spb_upload *first; /* each holds a reference */
    size_t count;
};

static void lock(struct spb_uploads *uploads)
{
    (void)pthread_mutex_lock(&uploads->lock);
}

static void unlock(struct spb_uploads *uploads)
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
    *out = uploads;
    return spb_ok();
}

void spb_uploads_free(struct spb_uploads *uploads)
{
    if (uploads == NULL)
        return;
    while (uploads->first != NULL)
        spb_upload_end(uploads->first);
    (void)pthread_mutex_destroy(&uploads->lock);
    free(uploads);
}

/* ---- One upload --------------------------------------------------------------------------- */

static void release_strand(void *user)
{
    spb_upload_unref(user);
}

static void end_on_strand(struct spb_task *task)
{
    struct spb_upload *upload = SPB_CONTAINER(task, struct spb_upload, end_task);

    /* Where the image is closing, who closes it ends its uploads. */
    if (spb_image_hold(upload->image)) {
        /* What is being published is ended by the publishing. */
        if (spb_upload_turn(upload, SPB_UPLOAD_OPEN, SPB_UPLOAD_ENDED))
            spb_upload_end(upload);
        spb_image_unhold(upload->image);
    }
    lock(upload->table);
    upload->end_queued = false;
    unlock(upload->table);
    spb_upload_unref(upload);
}

spb_status spb_upload_new(struct spb_uploads *uploads, struct spb_image *image,
                          struct spb_upload **out, struct spb_error *err)
{
    struct spb_upload *upload = calloc(1, sizeof(*upload));

    if (upload == NULL)
        return spb_fail_memory(err, "starting an upload");
    spb_status status =
        spb_strand_new(uploads->daemon->pool, release_strand, upload, &upload->strand, err);
    if (!spb_is_ok(status)) {
        free(upload);
        return status;
    }
    if (getrandom(upload->id, sizeof(upload->id), 0) != (ssize_t)sizeof(upload->id)) {
        int number = errno;
        spb_strand_free(upload->strand);
        free(upload);
        return spb_fail_errno(err, SPB_UNSUPPORTED, number, "drawing an upload's id");
    }
    upload->table = uploads;
    upload->refs = 1;
    upload->image = image;
    spb_image_ref(image);
    upload->end_task.run = end_on_strand;
    upload->last_used_ns = spb_now_ns();
    *out = upload;
    return spb_ok();
}

spb_status spb_upload_enlist(struct spb_upload *upload, struct spb_error *err)
{
    struct spb_uploads *uploads = upload->table;
    uint64_t max = SPB_LIMIT(upload->image->daemon, uploads_max);

    lock(uploads);
    bool full = uploads->count >= max;
    if (!full) {
        upload->refs++;
        upload->next = uploads->first;
        uploads->first = upload;
        uploads->count++;
    }
    unlock(uploads);
    if (full)
        return spb_fail(err, SPB_LIMIT,
                        "%llu uploads are open, at most so many are taken: finish or abort one",
                        (unsigned long long)max);
    return spb_ok();
}

static bool is_owner(const struct spb_upload *upload, const struct spb_principal *principal)
{
    return upload->owner.tenant == principal->tenant && upload->owner.kind == principal->kind &&
           strcmp(upload->owner.name, principal->name) == 0;
}

struct spb_upload *spb_upload_find(struct spb_uploads *uploads,
                                   const struct spb_principal *principal, const void *id,
                                   size_t id_len)
{
    struct spb_upload *upload = NULL;

    if (id_len != SPB_UPLOAD_ID_SIZE)
        return NULL;
    lock(uploads);
    for (upload = uploads->first; upload != NULL; upload = upload->next) {
        if (memcmp(upload->id, id, id_len) == 0 && is_owner(upload, principal))
            break;
    }
    if (upload != NULL) {
        upload->refs++;
        upload->last_used_ns = spb_now_ns();
    }
    unlock(uploads);
    return upload;
}

void spb_upload_ref(struct spb_upload *upload)
{
    lock(upload->table);
    upload->refs++;
    unlock(upload->table);
}

void spb_upload_unref(struct spb_upload *upload)
{
    lock(upload->table);
    bool last = --upload->refs == 0;
    unlock(upload->table);
    if (!last)
        return;
    SPB_ASSERT(upload->reservation == NULL && upload->writer == NULL);
    spb_strand_free(upload->strand);
    spb_image_unref(upload->image);
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
    lock(upload->table);
    enum spb_upload_state state = upload->state;
    unlock(upload->table);
    return state;
}

bool spb_upload_turn(struct spb_upload *upload, enum spb_upload_state from,
                     enum spb_upload_state to)
{
    lock(upload->table);
    bool turned = upload->state == from;
    if (turned)
        upload->state = to;
    unlock(upload->table);
    return turned;
}

void spb_upload_set_offset(struct spb_upload *upload, uint64_t next_offset)
{
    lock(upload->table);
    upload->next_offset = next_offset;
    unlock(upload->table);
}

uint64_t spb_upload_offset(struct spb_upload *upload)
{
    lock(upload->table);
    uint64_t offset = upload->next_offset;
    unlock(upload->table);
    return offset;
}

uint64_t spb_upload_seconds_left(struct spb_upload *upload, int64_t now_ns)
{
    uint64_t life_s = SPB_LIMIT(upload->image->daemon, upload_life_s);

    lock(upload->table);
    int64_t idle_s = (now_ns - upload->last_used_ns) / SPB_NS_PER_S;
    unlock(upload->table);
    if (idle_s < 0)
        idle_s = 0;
    return (uint64_t)idle_s >= life_s ? 0 : life_s - (uint64_t)idle_s;
}

/* ---- Ending ------------------------------------------------------------------------------- */

void spb_upload_end(struct spb_upload *upload)
{
    struct spb_uploads *uploads = upload->table;
    struct spb_upload **place = &uploads->first;

    lock(uploads);
    struct spb_product_writer *writer = upload->writer;
    struct spb_reservation *reservation = upload->reservation;
    upload->writer = NULL;
    upload->reservation = NULL;
    upload->state = SPB_UPLOAD_ENDED;
    while (*place != NULL && *place != upload)
        place = &(*place)->next;
    bool listed = *place == upload;
    if (listed) {
        *place = upload->next;
        uploads->count--;
    }
    unlock(uploads);
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    if (listed)
        spb_upload_unref(upload);
}

/* Queues the end of those that match, each on its strand, once. */
static void queue_ends(struct spb_uploads *uploads, const struct spb_image *image,
                       int64_t before_ns)
{
    struct spb_upload *ending[SPB_UPLOADS_MAX];
    size_t count = 0;

    lock(uploads);
    for (struct spb_upload *u = uploads->first; u != NULL; u = u->next) {
        bool match = image != NULL ? u->image == image : u->last_used_ns < before_ns;

        if (!match || u->end_queued)
            continue;
        u->end_queued = true;
        u->refs++; /* the task's */
        ending[count++] = u;
    }
    unlock(uploads);
    for (size_t i = 0; i < count; i++)
        spb_upload_submit(ending[i], &ending[i]->end_task);
}

void spb_uploads_end_image(struct spb_uploads *uploads, struct spb_image *image)
{
    queue_ends(uploads, image, 0);
}

size_t spb_uploads_count(struct spb_uploads *uploads)
{
    lock(uploads);
    size_t count = uploads->count;
    unlock(uploads);
    return count;
}

void spb_uploads_expire(struct spb_uploads *uploads, int64_t now_ns)
{
    int64_t life_s = (int64_t)SPB_LIMIT(uploads->daemon, upload_life_s);

    queue_ends(uploads, NULL, now_ns - life_s * SPB_NS_PER_S);
}

void spb_uploads_release_image(struct spb_uploads *uploads, struct spb_image *image)
{
    struct spb_upload *upload = NULL;

    do {
        lock(uploads);
        for (upload = uploads->first; upload != NULL; upload = upload->next) {
            if (upload->image == image)
                break;
        }
        if (upload != NULL)
            upload->refs++;
        unlock(uploads);
        if (upload != NULL) {
            spb_upload_end(upload);
            spb_upload_unref(upload);
        }
    } while (upload != NULL);
}
