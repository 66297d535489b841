/*
 * Whose turn it is to be scrubbed, and when: all images one after the other, in the registry's
 * order, so that each comes once an interval and they are spread over it. The place that was
 * reached is kept in DATA_DIR/scrub-position, so that a daemon that is restarted often goes on
 * where it was; a file that is lost or damaged only means that it begins with the first image. The
 * scrubs' thread alone.
 */
#ifndef SPB_SERVER_SCRUB_ORDER_H
#define SPB_SERVER_SCRUB_ORDER_H

#include <stdint.h>

#include "image.h"

struct spb_scrub_order {
    struct spb_daemon *daemon;
    char *path; /* owned */
    uint16_t tenant;
    char name[SPB_IMAGE_NAME_MAX + 1]; /* of the image that came last; empty: none has */
    int64_t started_ns;                /* when it did */
    int64_t first_ns;                  /* not before */
    bool failed;                       /* the file could not be written, and that was logged */
};

/* Reads the file. Blocks. */
SPB_MUST_USE spb_status spb_scrub_order_init(struct spb_scrub_order *order,
                                             struct spb_daemon *daemon, struct spb_error *err);
void spb_scrub_order_done(struct spb_scrub_order *order);

/* When the next one is due, as the number of images and the configuration now are; INT64_MAX:
 * never. */
int64_t spb_scrub_order_due(const struct spb_scrub_order *order);
/* The next image that is ready, referenced for the caller, or NULL; its turn is noted, and kept.
 * Blocks. */
struct spb_image *spb_scrub_order_next(struct spb_scrub_order *order);

#endif
