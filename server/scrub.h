/*
 * Scrubs: the medium of every image is read again now and then, and compared with what was made
 * durable there, while the image is served. One at a time in the daemon, on a thread of its own
 * whose I/O has the lowest priority, at a bounded rate; so it takes no worker from anybody, and can
 * sleep. Asked for or due by the schedule (scrub_order.h). It repairs nothing.
 *
 * A scrub ends early when its image is closed, reopened or deleted, or the daemon drains. What the
 * last whole one found is kept with the image until the next has ended; what was not among the
 * findings before is logged.
 */
#ifndef SPB_SERVER_SCRUB_H
#define SPB_SERVER_SCRUB_H

#include "loop.h"
#include "spaceblock/volume.h"

#define SPB_SCRUB_FINDINGS_MAX 256u /* kept of an image */

struct spb_daemon;
struct spb_image;
struct spb_scrubs;
struct spb_scrub_wait;

enum spb_scrub_state { SPB_SCRUB_IDLE, SPB_SCRUB_QUEUED, SPB_SCRUB_RUNNING };

struct spb_scrub_report {
    uint64_t done_bytes, total_bytes;
    int64_t started_at, ended_at;       /* UNIX seconds; 0: never, or not yet */
    const struct spb_finding *findings; /* of the last whole one */
    size_t count;                       /* of these */
    char failure[200];                  /* why the last one ended early; empty: it did not */
};

/* What an image holds of its scrubs; under the scrubs' lock. */
struct spb_scrub_point {
    enum spb_scrub_state state;
    struct spb_image *next; /* in the queue */
    struct spb_scrub_report report;
    struct spb_finding *findings; /* owned */
    struct spb_post ended;
    bool posted;
    struct spb_scrub_wait *waits; /* the loop's thread: calls that wait for the end */
};

/* What it owns is let go of; the image has no scrub any more. */
void spb_scrub_point_init(struct spb_scrub_point *point);
void spb_scrub_point_done(struct spb_image *image);

SPB_MUST_USE spb_status spb_scrubs_new(struct spb_daemon *daemon, struct spb_scrubs **scrubs,
                                       struct spb_error *err);
/* Accepts NULL. The thread has ended. */
void spb_scrubs_free(struct spb_scrubs *scrubs);
/* From here on they run. */
SPB_MUST_USE spb_status spb_scrubs_start(struct spb_scrubs *scrubs, struct spb_error *err);
/* The running one ends, and no other begins. Any thread. */
void spb_scrubs_drain(struct spb_scrubs *scrubs);
/* The same, and waits for the thread. Accepts one that was not started, and NULL. Blocks. */
void spb_scrubs_stop(struct spb_scrubs *scrubs);

/* Queues one, unless it runs or is queued already: those that are asked for go before those that
 * are due. Any thread. */
void spb_scrub_ask(struct spb_image *image);
/* The image is closing: its scrub lets go of the volume soon. Any thread, also under the image's
 * lock. */
void spb_scrub_end(struct spb_image *image);
/* Calls tell(user, state, report) with the lock held. Any thread; briefly. */
void spb_scrub_look(struct spb_image *image,
                    void (*tell)(void *user, enum spb_scrub_state state,
                                 const struct spb_scrub_report *report),
                    void *user);

#endif
