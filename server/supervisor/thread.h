/*
 * The supervisor's thread: an epoll of its own over the sockets and pidfds of all guests, times at
 * which something is due, and a queue of what others ask for. It never waits for a disk or the
 * database: that is handed to workers, who post what came of it.
 *
 * A guest that has neither a QEMU nor a time at which it is to be started costs nothing here.
 */
#ifndef SPB_SUPERVISOR_THREAD_H
#define SPB_SUPERVISOR_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "pool.h"
#include "spaceblock/status.h"

struct spb_daemon;
struct spb_guest;
struct spb_supervisor;

/* Without a thread: what is posted waits. */
SPB_MUST_USE spb_status spb_supervisor_new(struct spb_daemon *daemon, struct spb_supervisor **out,
                                           struct spb_error *err);
/* Accepts NULL. */
void spb_supervisor_free(struct spb_supervisor *supervisor);

/* Parts of the daemon. Starting returns once the guests that were found are adopted, or after a
 * while. Stopping leaves QEMUs running, but for ephemeral ones. Both block. */
SPB_MUST_USE spb_status spb_supervisor_start(struct spb_daemon *daemon, struct spb_error *err);
void spb_supervisor_stop(struct spb_daemon *daemon);

/* ---- Any thread --------------------------------------------------------------------------- */

/* run is called on the thread; the post is borrowed until then. False: the thread has ended, or
 * will; nothing is called. */
bool spb_supervisor_post(struct spb_supervisor *supervisor, struct spb_post *post);
/* The same, and waits until it was called: for workers. */
bool spb_supervisor_do(struct spb_supervisor *supervisor, void (*run)(void *user), void *user);

/* ---- The supervisor's thread -------------------------------------------------------------- */

/* It ends: nothing is begun any more. */
bool spb_supervisor_is_ending(const struct spb_supervisor *supervisor);

/* What is watched; embedded in what it is about. */
struct spb_source {
    int fd; /* -1: not watched */
    uint32_t events;
    void (*ready)(struct spb_source *source, uint32_t events);
};

/* events: of epoll, level-triggered. Changes what is watched already. */
SPB_MUST_USE spb_status spb_source_watch(struct spb_supervisor *supervisor,
                                         struct spb_source *source, int fd, uint32_t events,
                                         struct spb_error *err);
/* Before the descriptor is closed. Harmless twice. */
void spb_source_unwatch(struct spb_supervisor *supervisor, struct spb_source *source);

/* The first member of memory that events of this turn may still point to: free() after it. */
struct spb_garbage {
    struct spb_garbage *next;
};
void spb_supervisor_free_later(struct spb_supervisor *supervisor, struct spb_garbage *garbage);

/* The guest is looked at for times from now on, until it has none. */
void spb_supervisor_activate(struct spb_supervisor *supervisor, struct spb_guest *guest);

/* Starts in turn: at most guest_starts_max at once. */
void spb_supervisor_queue(struct spb_supervisor *supervisor, struct spb_guest *guest);
void spb_supervisor_unqueue(struct spb_supervisor *supervisor, struct spb_guest *guest);

/* Runs on a worker; the thread does not end before spb_supervisor_work_done was called for it. */
void spb_supervisor_work(struct spb_supervisor *supervisor, enum spb_lane lane,
                         struct spb_task *task);
void spb_supervisor_work_done(struct spb_supervisor *supervisor);

#endif
