/*
 * What became of changes that a crash or a failed medium left open. Each is settled once, before
 * anything builds on it: a group of an image when the image is next opened for writing, before it
 * is READY; an act about no image at the start, before the folders are read.
 *
 * Changes of a group are judged by the library from their statement and the volume. Acts (intent.h)
 * are settled by a function for each kind and method, from the table in settle.c: it looks at what
 * is there. An act without one is settled as unknown.
 */
#ifndef SPB_SERVER_SETTLE_H
#define SPB_SERVER_SETTLE_H

#include "audit/audit.h"

struct spb_daemon;
struct spb_image;
struct spb_volume;

/* An act that is to be settled. Of one about an image the volume is open for writing, and nobody
 * else has it; else both are NULL, no image is known yet, and the folders are as they were left. */
struct spb_settling {
    struct spb_daemon *daemon;
    struct spb_image *image;
    struct spb_volume *volume;
    const struct spb_pending_group *group; /* its changes are the act's detail */
};

struct spb_settler {
    enum spb_group_kind kind;
    const char *method; /* "Images.Create" */
    /* May do the rest of what was begun (COMPLETED). A failure leaves it open: that of an image
     * keeps the image from being written, another one the daemon from starting. Blocks. */
    spb_status (*settle)(const struct spb_settling *settling, enum spb_outcome *outcome,
                         struct spb_error *err);
};

/* All of an image. The actor's, or before there is one. Blocks. */
SPB_MUST_USE spb_status spb_settle_image(struct spb_image *image, struct spb_volume *volume,
                                         struct spb_error *err);
/* All about no image. At the start. Blocks. */
SPB_MUST_USE spb_status spb_settle_acts(struct spb_daemon *daemon, struct spb_error *err);
/* What is open of an image that is gone: as unknown. Blocks. */
SPB_MUST_USE spb_status spb_settle_lost(struct spb_daemon *daemon, int64_t image_id,
                                        struct spb_error *err);

/* Whether there is a file at a path, and which uuid its superblock shows: zeros where none can be
 * read. */
SPB_MUST_USE spb_status spb_settle_look(const char *path, bool *there, uint8_t uuid[16],
                                        struct spb_error *err);

#endif
