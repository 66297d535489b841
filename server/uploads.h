/*
 * Uploads in memory: what a client is writing towards a data product.
 *
 * An upload's bytes go to an extent that it reserved. Everything that touches its writer and
 * reservation runs on the upload's own strand, within a hold on the image, but for the publishing
 * turn of the image's actor, which the state PUBLISHING sets apart. The table's lock is over the
 * members marked so. An upload belongs to a tenant and principal; to others it is absent.
 */
#ifndef SPB_SERVER_UPLOADS_H
#define SPB_SERVER_UPLOADS_H

#include <stdint.h>

#include "call.h"
#include "spaceblock/volume.h"

#define SPB_UPLOAD_ID_SIZE 16u
#define SPB_UPLOADS_MAX 4096u /* uploads_max is at most that */

enum spb_upload_state {
    SPB_UPLOAD_OPEN,       /* takes bytes; or is complete and can be published */
    SPB_UPLOAD_PUBLISHING, /* in the actor's hands */
    SPB_UPLOAD_ENDED,      /* gone: published, aborted, expired or failed */
};

struct spb_upload {
    struct spb_upload *next; /* in the table; under its lock */
    struct spb_uploads *table;
    unsigned refs; /* under the table's lock, as the next three */
    enum spb_upload_state state;
    uint64_t next_offset;
    int64_t last_used_ns;

    /* Constant from the start on. */
    uint8_t id[SPB_UPLOAD_ID_SIZE];
    struct spb_principal owner;
    struct spb_image *image; /* held */
    char image_text[80];
    char name[SPB_PRODUCT_NAME_MAX];
    size_t name_len;
    uint16_t product_class;
    uint8_t priority;
    bool replace;
    uint64_t size;
    struct spb_strand *strand;

    /* The strand's, or the actor's while PUBLISHING. */
    struct spb_reservation *reservation; /* NULL once given back */
    struct spb_product_writer *writer;
    bool finished; /* all is written, data is set */
    bool verified; /* and was read back from the medium */
    struct spb_product_data data;
    struct spb_task end_task;
    bool end_queued; /* under the table's lock */
};

struct spb_uploads;

SPB_MUST_USE spb_status spb_uploads_new(struct spb_daemon *daemon, struct spb_uploads **uploads,
                                        struct spb_error *err);
/* When no worker runs any more. Accepts NULL. */
void spb_uploads_free(struct spb_uploads *uploads);

/* A new upload with one reference, the caller's, and no reservation yet. SPB_LIMIT. */
SPB_MUST_USE spb_status spb_upload_new(struct spb_uploads *uploads, struct spb_image *image,
                                       struct spb_upload **upload, struct spb_error *err);
/* Makes it to be found. SPB_LIMIT where the table is full. */
SPB_MUST_USE spb_status spb_upload_enlist(struct spb_upload *upload, struct spb_error *err);
/* The caller's upload of that id, referenced, its life prolonged; NULL where there is none. */
struct spb_upload *spb_upload_find(struct spb_uploads *uploads,
                                   const struct spb_principal *principal, const void *id,
                                   size_t id_len);
void spb_upload_ref(struct spb_upload *upload);
void spb_upload_unref(struct spb_upload *upload);

/* Runs the task on the upload's strand. */
void spb_upload_submit(struct spb_upload *upload, struct spb_task *task);

enum spb_upload_state spb_upload_state(struct spb_upload *upload);
/* From one state to another; false where it is in another than from. */
bool spb_upload_turn(struct spb_upload *upload, enum spb_upload_state from,
                     enum spb_upload_state to);
void spb_upload_set_offset(struct spb_upload *upload, uint64_t next_offset);
uint64_t spb_upload_offset(struct spb_upload *upload);
/* Until it expires. */
uint64_t spb_upload_seconds_left(struct spb_upload *upload, int64_t now_ns);

/* Ends it: from now on it is absent. Then gives back what it holds; only who may touch that (see
 * above) calls it. Ending it again does nothing. */
void spb_upload_end(struct spb_upload *upload);

/* The image's medium failed: its uploads end, each on its strand. Any thread. */
void spb_uploads_end_image(struct spb_uploads *uploads, struct spb_image *image);
/* The same at once, where nothing holds the image's volume and its actor is the caller. */
void spb_uploads_release_image(struct spb_uploads *uploads, struct spb_image *image);
/* How many are open. Any thread. */
size_t spb_uploads_count(struct spb_uploads *uploads);
/* Ends what has not been used for too long. */
void spb_uploads_expire(struct spb_uploads *uploads, int64_t now_ns);

#endif
