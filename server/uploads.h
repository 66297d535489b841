/*
 * Uploads: what clients are writing towards data products, images and artifacts.
 *
 * An upload's bytes go straight to where they will be: an extent that is reserved, or a temporary
 * file beside its target. What it is, and how much of it is durable, is a row of the database
 * (audit/tables.h), so that it outlives the daemon: rows are loaded at the start, those of products
 * lie dormant until their image is opened and its extent reserved anew, and each goes on at its
 * durable offset once the bytes before that have been read and compared. A row is durable before
 * Start is answered, and its removal before what it held is given back; where that fails the row
 * tells that it has ended by its image's number, or by the call that published it.
 *
 * Threads. Everything that touches an upload's bytes, row or reservation runs on the upload's own
 * strand; that of a product within a hold on its image, but for the publishing turn of the image's
 * actor, which the state PUBLISHING sets apart, and for a sync while chunks are taken: it flushes,
 * and has the row's durable part, while the strand goes on writing. All else on the strand waits
 * for its end, or calls it off. Who has the image to itself, with no hold left, may end an upload
 * too. The table's lock is over the members marked so. An upload belongs to a tenant and principal;
 * to others it is absent.
 */
#ifndef SPB_SERVER_UPLOADS_H
#define SPB_SERVER_UPLOADS_H

#include <stdint.h>

#include "audit/tables.h"
#include "call.h"
#include "spaceblock/volume.h"

#define SPB_UPLOAD_ID_SIZE 16u

enum spb_upload_state {
    SPB_UPLOAD_OPEN,       /* takes bytes; or is complete and can be published */
    SPB_UPLOAD_PUBLISHING, /* in the actor's hands */
    SPB_UPLOAD_ENDED,      /* gone: published, aborted, expired or failed */
};

/* A sync beside the strand: at most one at a time. */
enum spb_upload_syncing {
    SPB_SYNC_NONE,
    SPB_SYNC_WANTED, /* a worker will; the strand may still call it off */
    SPB_SYNC_RUNS,
};

struct spb_upload {
    struct spb_upload *next; /* in the table; under its lock, as all up to image */
    struct spb_uploads *table;
    unsigned refs;
    enum spb_upload_state state;
    uint64_t next_offset, durable_offset;
    int64_t used_ns;     /* last */
    int64_t row_used_ns; /* what the row says of that */
    bool listed;
    bool end_queued;
    bool doomed;    /* at the start: it is to end */
    bool published; /* its row is still to be removed, by end_task */
    bool checked;   /* what is there was compared with the row, or is our own */
    enum spb_upload_syncing syncing;
    bool sync_queued;        /* sync_task is in the pool's hands, with a reference */
    bool sync_failed;        /* the last one; sync_err says how */
    struct spb_image *image; /* of a product: referenced; NULL while it is dormant */

    /* Constant from the start on, but for the row's durable offset, its CRC, the extent and the
     * times, which are the strand's, or while one is under way the sync's. */
    const struct spb_upload_kind_ops *ops;
    struct spb_upload_row row;
    char image_text[80]; /* "TENANT/NAME"; empty for an artifact */
    struct spb_strand *strand;

    /* The strand's, or the actor's while PUBLISHING. */
    bool has_row;
    bool row_failed;                     /* the last attempt to keep it did, and that was logged */
    bool finished;                       /* all is written, data is set */
    bool verified;                       /* and was read back from the medium */
    struct spb_reservation *reservation; /* a product's; NULL once given back */
    struct spb_product_writer *writer;   /* a product's */
    struct spb_product_data data;        /* of a product; its crc and length for files too */
    char *path;                          /* a file's; owned */
    int fd;                              /* a file's; -1: not open */
    uint32_t crc;                        /* a file's, of what has come */
    bool counted;                        /* its bytes among the temporary ones */
    bool sync_due;                       /* one was called off, and is still to be done */
    struct spb_task *sync_then;          /* of the sync under way; borrowed */
    uint64_t sync_offset;                /* what it makes durable */
    uint32_t sync_crc;
    struct spb_error sync_err;
    struct spb_task end_task, sync_task;
};

/* What differs between products and files. Strand's, entered. */
struct spb_upload_kind_ops {
    /* Reserves without a trace that outlives the process; may be NULL. */
    spb_status (*reserve)(struct spb_upload *upload, struct spb_volume *volume,
                          struct spb_error *err);
    /* Makes what outlives it, but for the row; may be NULL. */
    spb_status (*make)(struct spb_upload *upload, struct spb_error *err);
    /* Ready to take bytes at the row's durable offset; SPB_CORRUPT: not what the row says. */
    spb_status (*resume)(struct spb_upload *upload, struct spb_error *err);
    spb_status (*take)(struct spb_upload *upload, const void *data, size_t n,
                       struct spb_error *err);
    /* Bytes that have come, all below the next offset. */
    spb_status (*read)(const struct spb_upload *upload, uint64_t offset, void *buffer, size_t n,
                       struct spb_error *err);
    /* How many bytes from the start the next flush makes durable, and their CRC; left alone where
     * that would be none. */
    spb_status (*begin_sync)(struct spb_upload *upload, uint64_t *offset, uint32_t *crc,
                             struct spb_error *err);
    /* May run beside the strand's taking of bytes. */
    spb_status (*make_durable)(const struct spb_upload *upload, struct spb_error *err);
    /* All bytes have come and are written, padding included; sets data. Again: does nothing. */
    spb_status (*finish)(struct spb_upload *upload, struct spb_error *err);
    /* Makes them durable and reads them back. SPB_INVALID: they are not what Start promised. */
    spb_status (*verify)(struct spb_upload *upload, struct spb_error *err);
    /* Lets go of memory and descriptors; the space too where it is not kept for later. */
    void (*release)(struct spb_upload *upload, bool keep);
};
extern const struct spb_upload_kind_ops spb_upload_product_ops;
extern const struct spb_upload_kind_ops spb_upload_file_ops;

struct spb_uploads;

SPB_MUST_USE spb_status spb_uploads_new(struct spb_daemon *daemon, struct spb_uploads **uploads,
                                        struct spb_error *err);
/* When no worker runs any more, and before the images close: makes durable what has come, and lets
 * go. Accepts NULL. */
void spb_uploads_free(struct spb_uploads *uploads);

/* ---- One upload --------------------------------------------------------------------------- */

/*
 * An upload of that row, with one reference, the caller's; image (may be NULL) is its product's. It
 * is not in the table and has reserved nothing yet. A fresh one gets an id.
 */
SPB_MUST_USE spb_status spb_upload_new(struct spb_uploads *uploads,
                                       const struct spb_upload_row *row, bool fresh,
                                       struct spb_image *image, struct spb_upload **upload,
                                       struct spb_error *err);
/* Makes it to be found. SPB_LIMIT where there are too many, of the principal or in all. */
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

struct spb_upload_standing {
    enum spb_upload_state state;
    uint64_t next_offset, durable_offset;
    uint64_t seconds_left; /* until it expires */
    bool checked;          /* the offsets are to be relied on */
    bool row_is_old;       /* the row says little of the last use */
};
void spb_upload_look(struct spb_upload *upload, int64_t now_ns,
                     struct spb_upload_standing *standing);
void spb_upload_set_offset(struct spb_upload *upload, uint64_t next_offset);

/* ---- Work on the strand ------------------------------------------------------------------- */

/* Holds the image of a product, which is open. SPB_NOT_FOUND: not to be had; nothing is held. Files
 * need no holding. */
bool spb_upload_enter(struct spb_upload *upload);
void spb_upload_leave(struct spb_upload *upload);
/* Compares what is there with the row, once; begins anew at 0 where it differs. Entered. */
SPB_MUST_USE spb_status spb_upload_check(struct spb_upload *upload, struct spb_error *err);
/* The row as it stands, with the last use; durable. */
SPB_MUST_USE spb_status spb_upload_keep(struct spb_upload *upload, struct spb_error *err);
/* All bytes have come: writes what is left, so that data is set; then makes all durable and reads
 * it back. What was done is not done again. Entered. */
SPB_MUST_USE spb_status spb_upload_finish(struct spb_upload *upload, struct spb_error *err);
SPB_MUST_USE spb_status spb_upload_verify(struct spb_upload *upload, struct spb_error *err);
/*
 * Makes durable what has come, then says so in the row. A row that cannot be written is logged and
 * leaves the durable offset where it was: that is no failure of the upload. Entered.
 */
SPB_MUST_USE spb_status spb_upload_sync(struct spb_upload *upload, struct spb_error *err);
/*
 * The same on another worker, of what has come by now, while more is taken. *begun: then is
 * submitted to the strand when it has ended, and is to call spb_upload_synced; else it is done
 * already. One that was begun before is waited for. Entered.
 */
SPB_MUST_USE spb_status spb_upload_begin_sync(struct spb_upload *upload, struct spb_task *then,
                                              bool *begun, struct spb_error *err);
/* How it ended; where it was called off, it is done now, unless the upload has ended. Entered. */
SPB_MUST_USE spb_status spb_upload_synced(struct spb_upload *upload, struct spb_error *err);
/* Whether so much has come since the last one that it is time for another. */
bool spb_upload_wants_sync(struct spb_upload *upload);

/*
 * Ends it: from now on it is absent, its row is removed, and what it held is given back. Entered,
 * or with the image to oneself. Ending it again does nothing.
 */
void spb_upload_end(struct spb_upload *upload);
/* The same where its row can be removed; on failure it is as it was. entered may be false for one
 * that is dormant. */
SPB_MUST_USE spb_status spb_upload_abort(struct spb_upload *upload, bool entered,
                                         struct spb_error *err);
/* A product's whose image is not open: it can only be given up. */
bool spb_upload_is_dormant(struct spb_upload *upload);
/* It was published: lets go of what it held, and removes the row from the strand, later. Does not
 * block. */
void spb_upload_end_published(struct spb_upload *upload);

/* ---- Many --------------------------------------------------------------------------------- */

/* Loads the rows, before any image is opened: ends what has expired or lost its file, and removes
 * files that no row knows. Blocks. */
SPB_MUST_USE spb_status spb_uploads_load(struct spb_daemon *daemon, struct spb_error *err);
/* Once all images were opened: ends the uploads to images that are gone. Blocks. */
void spb_uploads_settle(struct spb_uploads *uploads);
/*
 * The image was opened and takes changes: reserves anew for its dormant uploads, the newest first,
 * and ends those that were published, or whose extent a product or another upload has. With the
 * image to oneself. Blocks.
 */
void spb_uploads_attach(struct spb_uploads *uploads, struct spb_image *image);
/* The image's medium failed: its uploads end, each on its strand. Any thread. */
void spb_uploads_end_image(struct spb_uploads *uploads, struct spb_image *image);
/* The same at once, where nothing holds the image's volume and its actor is the caller; those that
 * lie dormant stay. */
void spb_uploads_release_image(struct spb_uploads *uploads, struct spb_image *image);
/* As release_image, and the dormant ones too: the image goes. */
void spb_uploads_drop_image(struct spb_uploads *uploads, struct spb_image *image);
/* Is a file of that name, in a tenant's folder, an upload's to see to? */
bool spb_upload_owns_file(const char *name);
/* How many there are. Any thread. */
size_t spb_uploads_count(struct spb_uploads *uploads);
/* Ends what has not been used for too long. */
void spb_uploads_expire(struct spb_uploads *uploads, int64_t now_ns);

#endif
