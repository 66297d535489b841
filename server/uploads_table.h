/* What the files of the uploads share among themselves; see uploads.h. */
#ifndef SPB_SERVER_UPLOADS_TABLE_H
#define SPB_SERVER_UPLOADS_TABLE_H

#include <pthread.h>

#include "log.h"
#include "uploads.h"

/* A row of one that ended, which could not be removed: at the next start it would be taken for
 * open. */
struct spb_upload_left {
    struct spb_upload_left *next;
    uint8_t id[SPB_UPLOAD_ID_SIZE];
};

struct spb_uploads {
    struct spb_daemon *daemon;
    pthread_mutex_t lock;     /* over all below, and as uploads.h says */
    pthread_cond_t synced;    /* some upload's sync has ended */
    struct spb_upload *first; /* each holds a reference */
    size_t count;
    struct spb_upload_left *left;
};

void spb_uploads_lock(struct spb_uploads *uploads);
void spb_uploads_unlock(struct spb_uploads *uploads);
/* Into the table, with a reference of its own. Under the lock. */
void spb_upload_link_locked(struct spb_upload *upload);

/* Is it a product's, to that image and no other that had its name? With the image to oneself, or
 * while no call runs. */
bool spb_upload_is_to(const struct spb_upload *upload, const struct spb_image *image);
/* Tries again to remove the rows that are left. Blocks. */
void spb_uploads_remove_left(struct spb_uploads *uploads);
/* Waits for the sync that runs beside the strand, or calls it off; tells how it ended. */
SPB_MUST_USE spb_status spb_upload_end_sync(struct spb_upload *upload, struct spb_error *err);
void spb_upload_run_sync(struct spb_task *task);
/* Logs a line about the upload. */
void spb_upload_log(const struct spb_upload *upload, enum spb_log_level level, const char *event,
                    const char *reason);
/* Ends it on its strand, where that is still to be done. */
void spb_upload_run_end(struct spb_task *task);

/* Where a file's bytes lie until it has its name; *path is the caller's. */
SPB_MUST_USE spb_status spb_upload_file_path(const struct spb_daemon *daemon,
                                             const struct spb_upload_row *row, char **path,
                                             struct spb_error *err);
/* Removes files of uploads that no row knows. Blocks. */
void spb_upload_sweep_files(struct spb_uploads *uploads);

#endif
