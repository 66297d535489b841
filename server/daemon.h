/*
 * The daemon: what it is made of, how it starts and how it ends. Parts start in the order of a
 * table and stop in its reverse. The struct is set up before other threads exist; members are
 * either constant from then on or say whose they are.
 */
#ifndef SPB_SERVER_DAEMON_H
#define SPB_SERVER_DAEMON_H

#include <stdatomic.h>
#include <stdint.h>

#include <pthread.h>

#include "log.h"
#include "notify.h"
#include "options.h"
#include "spaceblock/status.h"

struct spb_actor;
struct spb_attachments;
struct spb_backups;
struct spb_copies;
struct spb_audit;
struct spb_conns;
struct spb_doubts;
struct spb_guests;
struct spb_http;
struct spb_listeners;
struct spb_loop;
struct spb_metrics;
struct spb_pool;
struct spb_registry;
struct spb_repeats;
struct spb_scrubs;
struct spb_uploads;
struct spb_waits;
struct spb_watches;

struct spb_daemon {
    struct spb_log log;
    pthread_mutex_t log_lock;
    uint64_t log_dropped;       /* lines, under log_lock */
    struct spb_options options; /* as it was started */
    struct spb_limits limits;   /* live: SPB_LIMIT(daemon, name) */
    char *data_dir;             /* owned */
    char *images_dir;           /* owned; DATA_DIR/images */
    int lock_fd;                /* holds DATA_DIR/lock; -1: it is not ours */
    struct spb_audit *audit;
    struct spb_repeats *repeats;
    struct spb_doubts *doubts;
    struct spb_registry *registry;
    char *artifacts_dir, *copies_dir; /* owned; the stores', as the next four */
    pthread_mutex_t artifacts_lock;   /* see artifacts.h */
    struct spb_uploads *uploads;
    struct spb_copies *copies;
    struct spb_backups *backups;
    struct spb_guests *guests; /* see supervisor/guests.h */
    struct spb_loop *loop;
    struct spb_metrics *metrics;
    struct spb_waits *waits;     /* the loop's thread */
    struct spb_watches *watches; /* as watch.h says */
    struct spb_scrubs *scrubs;   /* as scrub.h says */
    struct spb_conns *conns;
    struct spb_pool *pool;
    struct spb_attachments *attachments; /* as attach.h says */
    struct spb_listeners *listeners;
    struct spb_http *http; /* NULL: not wanted */
    struct spb_notify notify;
    size_t parts_started;
    int64_t start_ns;
    _Atomic(int64_t) loop_beat_ns; /* the loop's last tick; 0: none yet */
    struct spb_actor *kicks;       /* the loop's thread: actors to be set in motion */
    atomic_bool serving;           /* everything is started, and it does not drain */
    atomic_bool draining;          /* no new calls; what can end early does */
    bool cut_off;                  /* the loop's thread: the drain took too long */
    int64_t drain_start_ns;
    atomic_bool ending;               /* long work ends early */
    _Atomic uint64_t temporary_bytes; /* of files in the making; see copy_file.h */
};

/* Everything up to the listeners. *daemon is the caller's, spb_daemon_free. Blocks. */
SPB_MUST_USE spb_status spb_daemon_new(const struct spb_options *options,
                                       struct spb_daemon **daemon, struct spb_error *err);
/* Serves until drained. The calling thread is the loop's. False: calls were cut off. */
bool spb_daemon_run(struct spb_daemon *daemon);
/* Stops what was started, in reverse, but for the loop, whose posts may still come. Blocks. */
void spb_daemon_stop(struct spb_daemon *daemon);
/* Stops what was not, and frees. Accepts NULL. */
void spb_daemon_free(struct spb_daemon *daemon);

/* Begins to end: what SIGTERM does. The loop's thread. */
void spb_daemon_drain(struct spb_daemon *daemon);

/*
 * Puts in force what can be: limits, for what comes from now on, and the log level. What needs a
 * restart is logged and kept. The loop's thread.
 */
void spb_daemon_reload(struct spb_daemon *daemon, const struct spb_options *options);
/* The configuration could not be read: logs why; all is kept. Any thread. */
void spb_daemon_note_failed_reload(struct spb_daemon *daemon, const struct spb_error *err);

/* "ready unix:PATH tcp://127.0.0.1:PORT" and a newline, on stdout. */
void spb_daemon_say_ready(const struct spb_daemon *daemon);

#endif
