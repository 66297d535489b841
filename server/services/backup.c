/*
 * Images.Backup, ReadBackup, EndBackup. A backup is made in two steps: in the image's actor's turn
 * the snapshot is taken, then a worker copies it to a file while changes go on. It is read by
 * offset, by its principal alone.
 */
#include "backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "actor.h"
#include "base/status.h"
#include "bytes_reply.h"
#include "copy.h"
#include "copy_file.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "services/services.h"

#define WHAT "a backup"

/* ---- Backup ------------------------------------------------------------------------------- */

struct making {
    struct spb_copy copy;
    struct spb_backup *backup;
    uint8_t id[SPB_BACKUP_ID_SIZE]; /* of one that is ready */
    uint32_t crc;
};

/* Opens the copy for reading and takes its name away, so that nothing can be left of it. */
static spb_status open_copy(struct spb_backup *backup, const char *path, struct spb_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int number = fd < 0 ? errno : 0;

    (void)unlink(path);
    if (fd < 0)
        return spb_fail_errno(err, SPB_IO, number, "opening " WHAT);
    backup->fd = fd;
    return spb_ok();
}

static bool may_read_on(void *user, uint64_t done, uint64_t total)
{
    return spb_call_may_go_on(user, done, total);
}

static spb_status make_file(struct making *making, const char *path, struct spb_error *err)
{
    struct spb_backup *backup = making->backup;

    SPB_TRY(spb_temporary_take(making->copy.call->daemon, making->copy.size, err));
    backup->size = making->copy.size;
    SPB_TRY(spb_copy_to_file(&making->copy, path, NULL, WHAT, err));
    spb_copy_let_go(&making->copy);
    SPB_TRY(open_copy(backup, path, err));
    struct spb_file_scan scan = {.fd = backup->fd,
                                 .size = backup->size,
                                 .what = WHAT,
                                 .may_go_on = may_read_on,
                                 .user = making->copy.call};
    return spb_file_crc(&scan, &making->crc, err);
}

static spb_status make_backup(struct making *making, struct spb_error *err)
{
    char *path = NULL;

    SPB_TRY(spb_backup_path(making->backup, &path, err));
    spb_status status = make_file(making, path, err);
    free(path);
    return status;
}

static void set_backup_reply(struct spb_call *call, const struct making *making)
{
    PB_BackupImageResponse reply = SPACEBLOCK__V1__BACKUP_IMAGE_RESPONSE__INIT;

    reply.image = spb_image_show(call->image, call);
    if (reply.image == NULL)
        return;
    reply.backup_id = spb_pb_bytes(making->backup->id, sizeof(making->backup->id));
    reply.size = making->backup->size;
    reply.crc32c = making->crc;
    reply.expires_in_seconds = SPB_LIMIT(call->daemon, backup_life_s);
    spb_call_set_reply(call, &reply.base);
}

/* Nobody knows its id: over a bad link each attempt would leave one. */
static void end_unknown(struct spb_call *call)
{
    const struct making *making = call->state;
    struct spb_backup *backup =
        spb_backup_find(call->daemon->backups, &call->principal, making->id, sizeof(making->id));

    if (backup == NULL)
        return;
    if (!atomic_load(&call->daemon->ending)) /* else all end, and there may be no worker */
        spb_backup_end(backup);
    spb_backup_unref(backup);
}

static void run_backup(struct spb_copy *copy)
{
    struct making *making = SPB_CONTAINER(copy, struct making, copy);
    struct spb_call *call = copy->call;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_backup_end(making->backup);
    } else if (spb_is_ok(make_backup(making, &err))) {
        memcpy(making->id, making->backup->id, sizeof(making->id));
        call->lost = end_unknown;
        spb_backup_set_ready(making->backup);
        set_backup_reply(call, making);
    } else {
        spb_copy_set_error(copy, &err);
        spb_backup_end(making->backup);
    }
    spb_backup_unref(making->backup);
    spb_copy_end(copy);
    spb_call_send(call);
}

/* In the actor's turn. */
static void begin_backup(struct spb_call *call, struct making *making)
{
    struct spb_error err;

    making->copy.run = run_backup;
    if (!spb_is_ok(
            spb_backup_new(call->daemon->backups, &call->principal, &making->backup, &err))) {
        spb_call_fail(call, &err);
        return;
    }
    if (spb_copy_begin(call, &making->copy))
        return;
    spb_backup_end(making->backup);
    spb_backup_unref(making->backup);
    spb_call_send(call);
}

void spb_images_backup(struct spb_call *call)
{
    if (call->state != NULL) {
        begin_backup(call, call->state);
        return;
    }
    call->state = spb_call_alloc(call, sizeof(struct making));
    if (call->state == NULL) {
        spb_call_send(call);
        return;
    }
    memset(call->state, 0, sizeof(struct making));
    spb_actor_queue(call, &spb_op_again);
}

/* ---- ReadBackup --------------------------------------------------------------------------- */

static bool gate_id(struct spb_call *call, const ProtobufCBinaryData *id)
{
    if (id->len == SPB_BACKUP_ID_SIZE)
        return true;
    spb_call_set_bad_field(call, "backup_id", "found %zu bytes, expected %u", id->len,
                           SPB_BACKUP_ID_SIZE);
    return false;
}

bool spb_images_read_backup_gate(struct spb_call *call)
{
    const PB_ReadBackupRequest *request = (const void *)call->request;

    uint64_t max = SPB_LIMIT(call->daemon, chunk_max_bytes);

    if (!gate_id(call, &request->backup_id))
        return false;
    if (request->length == 0 || request->length > max) {
        spb_call_set_bad_field(call, "length", "found %u, expected 1 to %llu", request->length,
                               (unsigned long long)max);
        return false;
    }
    call->reply_bytes = request->length;
    return true;
}

/* The caller's backup, in call->state; answers the call where there is none. */
static bool find_backup(struct spb_call *call, const ProtobufCBinaryData *id)
{
    call->state = spb_backup_find(call->daemon->backups, &call->principal, id->data, id->len);
    if (call->state != NULL)
        return true;
    spb_call_set_fault(call, PB_REASON(NOT_FOUND),
                       "no such backup: it was ended, has expired or never was");
    spb_call_send(call);
    return false;
}

static spb_status read_piece(struct spb_call *call, const struct spb_backup *backup,
                             struct spb_error *err)
{
    const PB_ReadBackupRequest *request = (const void *)call->request;

    if (request->offset > backup->size) {
        spb_call_set_bad_field(call, "offset", "found %llu, expected at most the size %llu",
                               (unsigned long long)request->offset,
                               (unsigned long long)backup->size);
        return spb_ok();
    }
    uint64_t left = backup->size - request->offset;
    size_t n = left < request->length ? (size_t)left : request->length;
    uint8_t *bytes = spb_bytes_reply_begin(call, n);
    if (bytes == NULL)
        return spb_ok(); /* the error is set */
    SPB_TRY(spb_file_read(backup->fd, request->offset, bytes, n, WHAT, err));
    spb_bytes_reply_end(call, bytes, n);
    return spb_ok();
}

static void run_read(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_error err;

    if (!spb_call_is_late(call, spb_now_ns()) && !spb_is_ok(read_piece(call, call->state, &err)))
        spb_call_set_error(call, &err);
    spb_backup_unref(call->state);
    spb_call_send(call);
}

void spb_images_read_backup(struct spb_call *call)
{
    const PB_ReadBackupRequest *request = (const void *)call->request;

    if (find_backup(call, &request->backup_id))
        spb_call_to_workers(call, run_read);
}

/* ---- EndBackup ---------------------------------------------------------------------------- */

bool spb_images_end_backup_gate(struct spb_call *call)
{
    const PB_EndBackupRequest *request = (const void *)call->request;

    return gate_id(call, &request->backup_id);
}

void spb_images_end_backup(struct spb_call *call)
{
    const PB_EndBackupRequest *request = (const void *)call->request;
    PB_EndBackupResponse reply = SPACEBLOCK__V1__END_BACKUP_RESPONSE__INIT;

    if (!find_backup(call, &request->backup_id))
        return;
    spb_backup_end(call->state);
    spb_backup_unref(call->state);
    spb_call_reply(call, &reply.base);
}
