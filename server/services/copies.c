/*
 * Images.Clone and Images.Rename.
 *
 * A clone is copied beside the running service, from a snapshot, to a temporary file that gets its
 * name when it is whole. Once begun it goes on beyond the call's deadline, and when the caller is
 * gone: the same call again, with its request_id, waits for it or gets its answer.
 *
 * Renaming has the image to itself: it is closed, its file renamed, and opened under the new name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "actor.h"
#include "acts.h"
#include "base/status.h"
#include "copy.h"
#include "copy_file.h"
#include "copy_image.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "intent.h"
#include "registry.h"
#include "services/services.h"
#include "uploads.h"
#include "uuid.h"

#define TEXT_SIZE 96u /* "image TENANT/NAME" */

static void write_image_text(char text[TEXT_SIZE], uint16_t tenant, const char *name)
{
    (void)snprintf(text, TEXT_SIZE, "image %u/%s", (unsigned)tenant, name);
}

/* ---- Clone -------------------------------------------------------------------------------- */

struct cloning {
    struct spb_copy copy;
    uint16_t tenant;
    char name[SPB_IMAGE_NAME_MAX + 1];
    struct spb_snapshot_identity identity;
    struct spb_image *image; /* the new one; a reference */
    char *temporary;         /* owned */
    bool is_named;           /* it is there under its name */
};

bool spb_images_clone_gate(struct spb_call *call)
{
    const PB_CloneImageRequest *request = (const void *)call->request;
    char source[sizeof(call->image_text)];

    memcpy(source, call->image_text, sizeof(source));
    bool good = spb_gate_image(call, request->to, "to");
    memcpy(call->image_text, source, sizeof(source));
    return good && spb_gate_uuid(call, "uuid", &request->uuid);
}

/* In the folder of the target; the scan at a start knows such files for leftovers. */
static spb_status name_temporary(struct cloning *cloning, struct spb_error *err)
{
    struct spb_daemon *daemon = cloning->copy.call->daemon;
    uint64_t number = 0;

    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
        return spb_fail(err, SPB_UNSUPPORTED, "drawing a temporary file's name");
    if (asprintf(&cloning->temporary, "%s/%u/.%s.img.tmp-%016llx", daemon->images_dir,
                 (unsigned)cloning->tenant, cloning->name, (unsigned long long)number) < 0) {
        cloning->temporary = NULL;
        return spb_fail_memory(err, "cloning an image");
    }
    return spb_ok();
}

/* What the clone will be: as its source, but for tenant and uuid. */
static spb_status foresee_clone(struct cloning *cloning, struct spb_error *err)
{
    struct spb_image *source = cloning->copy.image;
    struct spb_image_look look;

    (void)pthread_mutex_lock(&source->lock);
    look = (struct spb_image_look){source->superblock, source->sector_size};
    (void)pthread_mutex_unlock(&source->lock);
    look.superblock.tenant_id = cloning->identity.tenant_id;
    memcpy(look.superblock.uuid, cloning->identity.uuid, SPB_UUID_SIZE);
    return spb_image_foresee(source->daemon, cloning->tenant, cloning->name, &look, &cloning->image,
                             err);
}

static bool set_clone_reply(struct cloning *cloning)
{
    struct spb_call *call = cloning->copy.call;
    PB_CloneImageResponse reply = SPACEBLOCK__V1__CLONE_IMAGE_RESPONSE__INIT;

    reply.image = spb_image_show(cloning->image, call);
    if (reply.image != NULL)
        spb_call_set_reply(call, &reply.base);
    return reply.image != NULL;
}

static spb_status begin_clone(struct cloning *cloning, struct spb_error *err)
{
    struct spb_call *call = cloning->copy.call;
    struct spb_act_detail detail = {.kind = SPB_ACT_IMAGE_CLONE, .tenant = cloning->tenant};
    char object[TEXT_SIZE], after[sizeof("a copy of ") + TEXT_SIZE];

    SPB_TRY(name_temporary(cloning, err));
    SPB_TRY(foresee_clone(cloning, err));
    SPB_TRY(spb_image_claim_name(cloning->image, err));
    SPB_TRY(spb_image_claim_uuid(cloning->image, err));
    if (!set_clone_reply(cloning))
        return spb_fail_memory(err, "cloning an image");
    memcpy(detail.name, cloning->name, sizeof(detail.name));
    memcpy(detail.uuid, cloning->identity.uuid, sizeof(detail.uuid));
    write_image_text(object, cloning->tenant, cloning->name);
    (void)snprintf(after, sizeof(after), "a copy of image %s", call->image_text);
    struct spb_act_texts texts = {.object = object, .before = "absent", .after = after};
    return spb_act_begin(call, &detail, &texts, err);
}

static spb_status copy_and_publish(struct cloning *cloning, struct spb_error *err)
{
    struct spb_daemon *daemon = cloning->copy.call->daemon;
    char text[TEXT_SIZE];

    write_image_text(text, cloning->tenant, cloning->name);
    SPB_TRY(spb_folder_make(daemon->images_dir, cloning->tenant, err));
    SPB_TRY(spb_copy_to_file(&cloning->copy, cloning->temporary, &cloning->identity, text, err));
    spb_status status =
        spb_image_publish(cloning->image, cloning->temporary, &cloning->is_named, err);
    if (!cloning->is_named)
        (void)unlink(cloning->temporary);
    return status;
}

/* Between the intent and its outcome. */
static spb_status carry_out_clone(struct cloning *cloning, struct spb_error *err)
{
    struct spb_call *call = cloning->copy.call;
    spb_status status = spb_temporary_take(call->daemon, cloning->copy.size, err);
    if (spb_is_ok(status)) {
        status = copy_and_publish(cloning, err);
        spb_temporary_give(call->daemon, cloning->copy.size);
    }
    spb_act_end_named(call, spb_is_ok(status) && set_clone_reply(cloning), cloning->is_named,
                      cloning->image, err);
    return status;
}

static void run_clone(struct spb_copy *copy)
{
    struct cloning *cloning = SPB_CONTAINER(copy, struct cloning, copy);
    struct spb_call *call = copy->call;
    struct spb_error err;

    if (!spb_call_is_late(call, spb_now_ns())) {
        spb_status status = begin_clone(cloning, &err);
        if (spb_is_ok(status))
            status = carry_out_clone(cloning, &err);
        if (!spb_is_ok(status) && status.code != SPB_ACT_REFUSED)
            spb_copy_set_error(copy, &err);
        if (!spb_is_ok(status) && cloning->image != NULL && !cloning->is_named)
            spb_image_unclaim(cloning->image);
    }
    if (cloning->image != NULL)
        spb_image_unref(cloning->image);
    free(cloning->temporary);
    spb_copy_end(copy);
    spb_call_send(call);
}

static spb_status describe_clone(struct spb_call *call, struct cloning *cloning,
                                 struct spb_error *err)
{
    const PB_CloneImageRequest *request = (const void *)call->request;

    memset(cloning, 0, sizeof(*cloning));
    cloning->copy.run = run_clone;
    cloning->copy.is_patient = true;
    cloning->tenant = spb_image_ref_tenant(call, request->to);
    memcpy(cloning->name, request->to->name.data, request->to->name.len);
    cloning->identity.tenant_id = cloning->tenant;
    if (request->uuid.len == 0)
        return spb_uuid_draw(cloning->identity.uuid, err);
    memcpy(cloning->identity.uuid, request->uuid.data, SPB_UUID_SIZE);
    return spb_ok();
}

void spb_images_clone(struct spb_call *call)
{
    struct cloning *cloning = call->state;
    struct spb_error err;

    if (cloning != NULL) { /* in the actor's turn */
        if (!spb_copy_begin(call, &cloning->copy))
            spb_call_send(call);
        return;
    }
    cloning = spb_call_alloc(call, sizeof(*cloning));
    if (cloning == NULL) {
        spb_call_send(call);
        return;
    }
    if (!spb_is_ok(describe_clone(call, cloning, &err))) {
        spb_call_fail(call, &err);
        return;
    }
    if (!spb_may_name_tenant(call, cloning->tenant)) {
        spb_call_send(call);
        return;
    }
    call->state = cloning;
    spb_actor_queue(call, &spb_op_again);
}

/* ---- Rename ------------------------------------------------------------------------------- */

bool spb_images_rename_gate(struct spb_call *call)
{
    const PB_RenameImageRequest *request = (const void *)call->request;

    if (spb_image_name_is_valid(request->name.data, request->name.len))
        return true;
    spb_call_set_bad_field(call, "name",
                           "found %zu bytes, expected 1 to %u of A-Z a-z 0-9 . _ -, not starting "
                           "with a dot",
                           request->name.len, SPB_IMAGE_NAME_MAX);
    return false;
}

struct renaming {
    struct spb_call *call;
    struct spb_image *from, *to; /* to: a reference */
    char name[SPB_IMAGE_NAME_MAX + 1];
};

static bool set_rename_reply(const struct renaming *renaming)
{
    PB_RenameImageResponse reply = SPACEBLOCK__V1__RENAME_IMAGE_RESPONSE__INIT;

    reply.image = spb_image_show(renaming->to, renaming->call);
    if (reply.image != NULL)
        spb_call_set_reply(renaming->call, &reply.base);
    return reply.image != NULL;
}

static spb_status begin_rename(struct renaming *renaming, struct spb_error *err)
{
    struct spb_image *from = renaming->from;
    struct spb_image_look look = {from->superblock, from->sector_size};
    struct spb_act_detail detail = {
        .kind = SPB_ACT_IMAGE_RENAME, .tenant = from->tenant, .sector_size = from->sector_size};
    char object[TEXT_SIZE];

    SPB_TRY(
        spb_image_foresee(from->daemon, from->tenant, renaming->name, &look, &renaming->to, err));
    SPB_TRY(spb_image_claim_name(renaming->to, err));
    if (!set_rename_reply(renaming))
        return spb_fail_memory(err, "renaming an image");
    memcpy(detail.name, from->name, sizeof(detail.name));
    memcpy(detail.new_name, renaming->name, sizeof(detail.new_name));
    memcpy(detail.uuid, look.superblock.uuid, sizeof(detail.uuid));
    write_image_text(object, from->tenant, from->name);
    struct spb_act_texts texts = {.object = object, .before = from->name, .after = renaming->name};
    return spb_act_begin(renaming->call, &detail, &texts, err);
}

/* The new name's image takes the old one's place; the old name stays taken. */
static spb_status switch_images(struct renaming *renaming, struct spb_error *err)
{
    struct spb_image *from = renaming->from, *to = renaming->to;
    struct spb_registry *registry = from->daemon->registry;

    spb_image_note_deletion(from);
    spb_registry_hand_over(registry, from, to);
    spb_image_open(to);
    return spb_registry_add(registry, to, err);
}

/* The file, then its row; where that cannot be written the file gets its old name again. */
static spb_status rename_file(struct renaming *renaming, bool *named, struct spb_error *err)
{
    struct spb_image *from = renaming->from, *to = renaming->to;
    char text[TEXT_SIZE];
    struct spb_error later;
    bool back = false;

    write_image_text(text, from->tenant, renaming->name);
    spb_status status = spb_file_name(from->path, to->path, text, named, err);
    if (!*named)
        return status;
    to->row = from->row;
    memcpy(to->row.name, renaming->name, sizeof(to->row.name));
    spb_status kept = spb_rows_put_image(to->daemon->audit, &to->row, &later);
    if (spb_is_ok(kept))
        return status;
    *err = later;
    if (spb_is_ok(spb_file_name(to->path, from->path, text, &back, &later)))
        *named = false;
    return kept;
}

/* With the image closed; it is open again under the name that it has then. */
static spb_status rename_closed(struct renaming *renaming, bool *named, struct spb_error *err)
{
    struct spb_error later;
    spb_status status = rename_file(renaming, named, err);

    if (!*named) {
        spb_image_open(renaming->from);
        return status;
    }
    spb_status switched = switch_images(renaming, &later);
    if (spb_is_ok(status) && !spb_is_ok(switched))
        *err = later;
    return spb_is_ok(status) ? switched : status;
}

static spb_status carry_out_rename(struct renaming *renaming, struct spb_error *err)
{
    struct spb_image *from = renaming->from;
    struct spb_call *call = renaming->call;
    bool named = false;

    spb_image_reclaim(from);
    spb_status status = spb_audit_flush(from->daemon->audit, err);
    if (spb_is_ok(status)) {
        spb_uploads_drop_image(from->daemon->uploads, from);
        spb_image_close(from);
        status = rename_closed(renaming, &named, err);
    }
    spb_image_reclaim_done(from);
    spb_act_end_named(call, spb_is_ok(status) && set_rename_reply(renaming), named, renaming->to,
                      err);
    /* Whoever takes the old name records that after the outcome. */
    if (named)
        spb_registry_remove(from->daemon->registry, from);
    return status;
}

static void rename_image(struct spb_call *call)
{
    const PB_RenameImageRequest *request = (const void *)call->request;
    struct renaming renaming = {.call = call, .from = call->image};
    struct spb_error err;

    memcpy(renaming.name, request->name.data, request->name.len);
    spb_status status = begin_rename(&renaming, &err);
    if (spb_is_ok(status))
        status = carry_out_rename(&renaming, &err);
    if (!spb_is_ok(status) && status.code != SPB_ACT_REFUSED)
        spb_call_set_error(call, &err);
    if (renaming.to != NULL)
        spb_image_unref(renaming.to); /* gives the name up where it has not taken it */
}

static bool rename_alone(struct spb_call *call)
{
    if (spb_call_is_late(call, spb_now_ns()))
        return true;
    if (spb_image_state(call->image) == SPB_IMAGE_READY)
        rename_image(call);
    else
        spb_image_set_unserved(call->image, call);
    return true;
}

void spb_images_rename(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.alone = rename_alone};

    spb_actor_queue(call, &kind);
}
