/*
 * What became of acts that a crash left open; see acts.h. Each has one step that decided it: where
 * that is there the rest is done, where it is not nothing is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acts.h"
#include "artifacts.h"
#include "base/status.h"
#include "copy_file.h"
#include "copy_image.h"
#include "daemon.h"
#include "image.h"
#include "services/image_life.h"
#include "settle.h"
#include "supervisor/adopt.h"
#include "uploads_table.h"

#define AUTO_PATH __attribute__((cleanup(free_path)))

static void free_path(char **path)
{
    free(*path);
}

static char *image_path(struct spb_daemon *daemon, uint16_t tenant, const char *name,
                        struct spb_error *err)
{
    char *path = spb_image_path(daemon, tenant, name);

    if (path == NULL)
        (void)spb_fail_memory(err, "settling what was begun");
    return path;
}

/* Is the image of that uuid at the path? */
static spb_status shows_uuid(const char *path, const struct spb_act_detail *detail, bool *shows,
                             struct spb_error *err)
{
    struct spb_image_look look;

    *shows = false;
    if (access(path, F_OK) != 0)
        return spb_ok();
    spb_status status = spb_image_look(path, detail->sector_size, path, &look, err);
    /* What is no image is not ours; a medium that cannot be read tells nothing. */
    if (status.code == SPB_IO || status.code == SPB_NO_MEMORY)
        return status;
    *shows = spb_is_ok(status) && memcmp(look.superblock.uuid, detail->uuid, SPB_UUID_SIZE) == 0;
    return spb_ok();
}

/* ---- Uploads ------------------------------------------------------------------------------ */

struct upload_search {
    const uint8_t *id;
    struct spb_upload_row row;
    bool found;
};

static void take_upload(void *user, const struct spb_upload_row *row)
{
    struct upload_search *search = user;

    if (memcmp(row->id, search->id, sizeof(row->id)) == 0) {
        search->row = *row;
        search->found = true;
    }
}

static spb_status find_upload(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                              struct upload_search *search, struct spb_error *err)
{
    *search = (struct upload_search){.id = detail->upload};
    return spb_rows_uploads(daemon->audit, take_upload, search, err);
}

/* Begun is what has a row, given up what has none. What files are left is swept up after this. */
static spb_status settle_upload(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                                enum spb_outcome *outcome, struct spb_error *err)
{
    bool begun = detail->kind == SPB_ACT_UPLOAD_START;
    struct upload_search search;

    SPB_TRY(find_upload(daemon, detail, &search, err));
    *outcome = search.found == begun ? SPB_OUTCOME_DONE : SPB_OUTCOME_NOT_DONE;
    return spb_ok();
}

/* ---- Rows of images ----------------------------------------------------------------------- */

/*
 * What an image that came to be before it was opened has instead of a row: its blocks' size may not
 * follow from the file's, and the upload that told it is over.
 */
static spb_status keep_size(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                            const char *path, struct spb_error *err)
{
    struct spb_image_row known;
    struct spb_image_look look;
    bool found = false;

    SPB_TRY(spb_rows_find_image(daemon->audit, detail->tenant, detail->name, &known, &found, err));
    if (found && memcmp(known.uuid, detail->uuid, SPB_UUID_SIZE) == 0)
        return spb_ok();
    SPB_TRY(spb_image_look(path, detail->sector_size, path, &look, err));
    struct spb_image_row row = {
        .id = known.id,
        .tenant = detail->tenant,
        .sector_size = look.sector_size,
        .total_blocks = look.superblock.total_blocks,
    };
    memcpy(row.name, detail->name, sizeof(row.name));
    memcpy(row.uuid, detail->uuid, sizeof(row.uuid));
    if (getrandom(row.incarnation, sizeof(row.incarnation), 0) != (ssize_t)sizeof(row.incarnation))
        return spb_fail(err, SPB_UNSUPPORTED, "drawing an incarnation");
    SPB_TRY(spb_settle_lost(daemon, row.id, err));
    return spb_rows_put_image(daemon->audit, &row, err);
}

/* ---- Import ------------------------------------------------------------------------------- */

/*
 * With a new identity the file itself is changed before it gets its name, and is no longer what was
 * uploaded: then the rest is done. Everything had been checked by then but that the name is free.
 */
static spb_status name_import(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                              const struct spb_upload_row *row, const char *to, bool *named,
                              struct spb_error *err)
{
    AUTO_PATH char *from = NULL;
    bool shows = false;

    SPB_TRY(spb_upload_file_path(daemon, row, &from, err));
    SPB_TRY(shows_uuid(from, detail, &shows, err));
    if (!shows)
        return spb_ok();
    spb_status status = spb_file_name(from, to, "an uploaded image", named, err);
    return status.code == SPB_EXISTS ? spb_ok() : status;
}

static spb_status settle_import(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                                enum spb_outcome *outcome, struct spb_error *err)
{
    AUTO_PATH char *path = image_path(daemon, detail->tenant, detail->name, err);
    struct upload_search search;
    bool there = false, named = false;

    if (path == NULL)
        return (spb_status){SPB_NO_MEMORY};
    SPB_TRY(find_upload(daemon, detail, &search, err));
    SPB_TRY(shows_uuid(path, detail, &there, err));
    if (there)
        SPB_TRY(spb_sync_folder_of(path, err));
    else if (search.found && detail->new_identity)
        SPB_TRY(name_import(daemon, detail, &search.row, path, &named, err));
    *outcome = SPB_OUTCOME_NOT_DONE;
    if (!there && !named)
        return spb_ok();
    *outcome = there ? SPB_OUTCOME_DONE : SPB_OUTCOME_COMPLETED;
    SPB_TRY(keep_size(daemon, detail, path, err));
    return search.found ? spb_rows_remove_upload(daemon->audit, detail->upload, err) : spb_ok();
}

/* ---- Clone -------------------------------------------------------------------------------- */

static spb_status settle_clone(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                               enum spb_outcome *outcome, struct spb_error *err)
{
    AUTO_PATH char *path = image_path(daemon, detail->tenant, detail->name, err);
    bool there = false;

    if (path == NULL)
        return (spb_status){SPB_NO_MEMORY};
    SPB_TRY(shows_uuid(path, detail, &there, err));
    if (there)
        SPB_TRY(spb_sync_folder_of(path, err));
    *outcome = there ? SPB_OUTCOME_DONE : SPB_OUTCOME_NOT_DONE;
    return spb_ok();
}

/* ---- Rename ------------------------------------------------------------------------------- */

/* The row follows the file. */
static spb_status move_row(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                           const char *from, const char *to, bool *changed, struct spb_error *err)
{
    struct spb_image_row row;
    bool found = false;

    SPB_TRY(spb_rows_find_image(daemon->audit, detail->tenant, from, &row, &found, err));
    if (!found || memcmp(row.uuid, detail->uuid, SPB_UUID_SIZE) != 0)
        return spb_ok();
    memcpy(row.name, to, strlen(to) + 1);
    *changed = true;
    return spb_rows_put_image(daemon->audit, &row, err);
}

/* Where a file system knows no exclusive rename, a link was made first: both names are one file. */
static bool is_one_file(const char *a, const char *b)
{
    struct stat first, second;

    return lstat(a, &first) == 0 && lstat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

static spb_status settle_rename(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                                enum spb_outcome *outcome, struct spb_error *err)
{
    AUTO_PATH char *from = image_path(daemon, detail->tenant, detail->name, err);
    AUTO_PATH char *to = image_path(daemon, detail->tenant, detail->new_name, err);
    bool there = false, changed = false;

    if (from == NULL || to == NULL)
        return (spb_status){SPB_NO_MEMORY};
    *outcome = SPB_OUTCOME_NOT_DONE;
    SPB_TRY(shows_uuid(to, detail, &there, err));
    if (!there)
        return move_row(daemon, detail, detail->new_name, detail->name, &changed, err);
    if (is_one_file(from, to)) {
        (void)unlink(from);
        changed = true;
    } else {
        /* Two of one uuid: nobody can tell which it was. Another image has come since. */
        SPB_TRY(shows_uuid(from, detail, &there, err));
        if (there)
            return spb_ok();
    }
    SPB_TRY(spb_sync_folder_of(to, err));
    SPB_TRY(move_row(daemon, detail, detail->name, detail->new_name, &changed, err));
    *outcome = changed ? SPB_OUTCOME_COMPLETED : SPB_OUTCOME_DONE;
    return spb_ok();
}

/* ---- Artifacts ---------------------------------------------------------------------------- */

static spb_status settle_put(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                             enum spb_outcome *outcome, struct spb_error *err)
{
    struct spb_artifact_row row = {.tenant = detail->tenant,
                                   .name_len = detail->label_len,
                                   .size = detail->size,
                                   .created_us = spb_unix_us()};
    struct spb_artifact_row known;
    AUTO_PATH char *path = NULL;

    memcpy(row.sha256, detail->sha256, sizeof(row.sha256));
    memcpy(row.name, detail->label, detail->label_len);
    SPB_TRY(spb_artifact_path(daemon, detail->tenant, detail->sha256, &path, err));
    *outcome = SPB_OUTCOME_NOT_DONE;
    if (access(path, F_OK) != 0)
        return spb_ok();
    SPB_TRY(spb_sync_folder_of(path, err));
    bool has_row = spb_is_ok(spb_artifact_find(daemon, row.tenant, row.sha256, &known, err));
    if (has_row)
        row.created_us = known.created_us;
    SPB_TRY(spb_rows_put_artifact(daemon->audit, &row, err));
    *outcome = has_row ? SPB_OUTCOME_DONE : SPB_OUTCOME_COMPLETED;
    return spb_rows_remove_upload(daemon->audit, detail->upload, err);
}

static spb_status settle_delete(struct spb_daemon *daemon, const struct spb_act_detail *detail,
                                enum spb_outcome *outcome, struct spb_error *err)
{
    struct spb_artifact_row known;
    AUTO_PATH char *path = NULL;
    spb_status status = spb_artifact_find(daemon, detail->tenant, detail->sha256, &known, err);

    if (spb_is_ok(status)) {
        *outcome = SPB_OUTCOME_NOT_DONE;
        return status;
    }
    if (status.code != SPB_NOT_FOUND)
        return status;
    SPB_TRY(spb_artifact_path(daemon, detail->tenant, detail->sha256, &path, err));
    *outcome = unlink(path) == 0 ? SPB_OUTCOME_COMPLETED : SPB_OUTCOME_DONE;
    return spb_sync_folder_of(path, err);
}

/* ---- All ---------------------------------------------------------------------------------- */

spb_status spb_act_settle(const struct spb_settling *settling, enum spb_outcome *outcome,
                          struct spb_error *err)
{
    struct spb_daemon *daemon = settling->daemon;
    struct spb_act_detail detail;

    SPB_TRY(spb_act_decode(settling->group->changes, settling->group->changes_size, &detail, err));
    switch (detail.kind) {
    case SPB_ACT_IMAGE_IMPORT:
        return settle_import(daemon, &detail, outcome, err);
    case SPB_ACT_IMAGE_CLONE:
        return settle_clone(daemon, &detail, outcome, err);
    case SPB_ACT_IMAGE_RENAME:
        return settle_rename(daemon, &detail, outcome, err);
    case SPB_ACT_UPLOAD_START:
    case SPB_ACT_UPLOAD_ABORT:
        return settle_upload(daemon, &detail, outcome, err);
    case SPB_ACT_ARTIFACT_PUT:
        return settle_put(daemon, &detail, outcome, err);
    case SPB_ACT_ARTIFACT_DELETE:
        return settle_delete(daemon, &detail, outcome, err);
    case SPB_ACT_GUEST_CREATE:
    case SPB_ACT_GUEST_START:
    case SPB_ACT_GUEST_STOP:
    case SPB_ACT_GUEST_KILL:
    case SPB_ACT_GUEST_DELETE:
        *outcome = spb_guests_settle(daemon, &detail);
        return spb_ok();
    }
    return spb_fail(err, SPB_CORRUPT, "an act of kind %d is not known", (int)detail.kind);
}
