/*
 * Watches: calls that wait for events of an image. All that wait on one image have looked at every
 * event up to the same place; once a commit has made more visible, one pass on the loop's thread
 * reads each new event once and answers whom they concern. Those that ask for the same get the same
 * bytes, encoded once. One that nothing concerns is answered all the same once the cursor that its
 * caller has is a good part of the ring behind: nobody else would tell that those events passed.
 *
 * A commit costs its worker a look at one counter, and a post where somebody waits; however many
 * commits come before the loop runs it, it is one post. A pass is bounded in events and in answers,
 * and goes on in the next turn. A watch that is far behind is looked after by the workers.
 *
 * The loop's thread, but for what says otherwise.
 */
#ifndef SPB_SERVER_WATCH_H
#define SPB_SERVER_WATCH_H

#include <stdatomic.h>

#include "cursor.h"
#include "event_scan.h"
#include "loop.h"

#define SPB_WATCH_LIMIT_MAX 4096u
#define SPB_WATCH_FILTER_MAX 256u   /* severities, and codes, that one may list */
#define SPB_WATCH_ANSWER_MAX 65536u /* bytes, about: the rest comes with the next call */

struct spb_call;
struct spb_daemon;
struct spb_image;
struct spb_watch_group;
struct spb_watches;

/* What an image holds for its watches. */
struct spb_watch_point {
    atomic_uint waiting; /* watches that wait, or are just looking whether they must */
    atomic_bool posted;  /* the post is on its way */
    atomic_bool ended;   /* its events' life is over, or nearly: all watches end */
    struct spb_post post;
    /* The loop's thread: */
    struct spb_watch_group *groups;
    size_t count, group_count;
    struct spb_event_life life; /* of all that wait */
    uint32_t seen;              /* all that wait have looked at what comes before */
    uint32_t pointer;           /* as of the last look */
};

void spb_watch_point_init(struct spb_watch_point *point);

SPB_MUST_USE spb_status spb_watches_new(struct spb_daemon *daemon, struct spb_watches **watches,
                                        struct spb_error *err);
/* Accepts NULL. */
void spb_watches_free(struct spb_watches *watches);

/* The volume may show more events: after a group was made visible, or was refreshed because
 * somebody else had appended. Any thread; cheap. The caller has a reference. */
void spb_watch_notify(struct spb_image *image);
/* The image is being closed, reopened, renamed or deleted, or its events are others from now on:
 * its watches end with what they have, and the cursors that they get are of the old life. Any
 * thread. The caller has a reference. */
void spb_watch_end(struct spb_image *image);

struct spb_watch_spec {
    bool has_cursor;
    struct spb_cursor cursor;
    bool from_oldest; /* without cursor; else from the newest on */
    uint32_t limit;   /* events an answer */
    uint32_t wait_ms;
    struct spb_event_filter filter; /* its codes are borrowed, at most SPB_WATCH_FILTER_MAX */
};

/* Sees to the call, whose image is held, and forgets its request. Any thread. */
void spb_watch_begin(struct spb_call *call, const struct spb_watch_spec *spec);
/* The same once more, of a call that has begun: where the image was not to be had. Any thread. */
void spb_watch_go_on(struct spb_call *call);

#endif
