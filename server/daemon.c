/* The daemon's parts, their start and end; see daemon.h. */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actor.h"
#include "attach.h"
#include "audit/audit.h"
#include "base/status.h"
#include "conn.h"
#include "dispatch.h"
#include "doubts.h"
#include "http.h"
#include "listener.h"
#include "loop.h"
#include "pool.h"
#include "registry.h"
#include "repeat.h"
#include "reserve.h"
#include "settle.h"
#include "scrub.h"
#include "stores.h"
#include "supervisor/adopt.h"
#include "supervisor/guests.h"
#include "supervisor/thread.h"
#include "util.h"
#include "waits.h"
#include "watch.h"

#define LOCK_WAIT_NS (1 * SPB_NS_PER_S)
#define LOCK_STEP_MS 20
#define READY_SIZE ((SPB_LISTEN_MAX + 1) * SPB_ENDPOINT_TEXT_SIZE + 16)

/* ---- Parts -------------------------------------------------------------------------------- */

static spb_status make_folder(const char *path, struct spb_error *err)
{
    struct stat st;

    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return spb_fail_errno(err, SPB_IO, errno, "making the folder %s", path);
    if (stat(path, &st) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "looking at the folder %s", path);
    if (!S_ISDIR(st.st_mode))
        return spb_fail(err, SPB_INVALID, "%s is no folder, expected one", path);
    return spb_ok();
}

/*
 * A daemon that was killed may have been about to start a guest: until the child has executed its
 * program it holds what its parent held. So a lock is waited for, a little.
 */
static bool take_lock(int fd)
{
    int64_t until_ns = spb_now_ns() + LOCK_WAIT_NS;

    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK || spb_now_ns() >= until_ns)
            return false;
        (void)poll(NULL, 0, LOCK_STEP_MS);
    }
    return true;
}

/* One daemon a data directory: the lock ends with the process, whatever ends that. */
static spb_status lock_folder(struct spb_daemon *daemon, struct spb_error *err)
{
    char *path = NULL;
    spb_status status = spb_ok();
    int fd;

    if (asprintf(&path, "%s/lock", daemon->data_dir) < 0)
        return spb_fail_memory(err, "locking the data directory");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        status = spb_fail_errno(err, SPB_IO, errno, "opening %s", path);
    else if (!take_lock(fd))
        status = errno == EWOULDBLOCK
                     ? spb_fail(err, SPB_LOCKED, "data directory %s: another spaceblockd serves it",
                                daemon->data_dir)
                     : spb_fail_errno(err, SPB_IO, errno, "locking %s", path);
    free(path);
    if (spb_is_ok(status))
        daemon->lock_fd = fd;
    else if (fd >= 0)
        (void)close(fd);
    return status;
}

static spb_status start_folder(struct spb_daemon *daemon, struct spb_error *err)
{
    daemon->data_dir = strdup(daemon->options.data_dir);
    if (daemon->data_dir == NULL ||
        asprintf(&daemon->images_dir, "%s/images", daemon->data_dir) < 0)
        return spb_fail_memory(err, "naming the data directory");
    SPB_TRY(make_folder(daemon->data_dir, err));
    SPB_TRY(lock_folder(daemon, err));
    spb_reserve_release(daemon->data_dir, &daemon->log);
    return make_folder(daemon->images_dir, err);
}

static void stop_folder(struct spb_daemon *daemon)
{
    if (daemon->lock_fd >= 0) {
        /* The audit's WAL has gone, which may have taken all that was left. */
        spb_reserve_take(daemon->data_dir, &daemon->log);
        (void)close(daemon->lock_fd);
    }
    free(daemon->images_dir);
    free(daemon->data_dir);
}

static void observe_commit(void *user, int64_t commit_ns, size_t intents)
{
    struct spb_daemon *daemon = user;

    (void)intents;
    spb_metrics_observe_audit(daemon->metrics, commit_ns);
}

static spb_status start_audit(struct spb_daemon *daemon, struct spb_error *err)
{
    struct spb_audit_options options = {
        .outcome_delay_ms = (int64_t)SPB_LIMIT(daemon, outcomes_batch_ms),
        .keep_days = (int64_t)SPB_LIMIT(daemon, audit_keep_days),
        .log = &daemon->log,
        .observe = observe_commit,
        .user = daemon,
    };
    char *path = NULL;

    if (asprintf(&path, "%s/audit.db", daemon->data_dir) < 0)
        return spb_fail_memory(err, "naming the audit");
    options.path = path;
    spb_status status = spb_audit_open(&options, &daemon->audit, err);
    free(path);
    /* Before images may take what the disk has left. */
    if (spb_is_ok(status))
        spb_reserve_take(daemon->data_dir, &daemon->log);
    return status;
}

static void stop_audit(struct spb_daemon *daemon)
{
    spb_audit_close(daemon->audit);
}

static spb_status start_repeats(struct spb_daemon *daemon, struct spb_error *err)
{
    SPB_TRY(spb_repeats_new(daemon, &daemon->repeats, err));
    return spb_repeats_load(daemon, err);
}

static void stop_repeats(struct spb_daemon *daemon)
{
    spb_repeats_free(daemon->repeats);
}

static spb_status start_registry(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_registry_new(&daemon->registry, err);
}

static void stop_registry(struct spb_daemon *daemon)
{
    struct spb_error err;

    /* What happened to an image is written down before others may have it. */
    if (!spb_is_ok(spb_audit_flush(daemon->audit, &err)))
        spb_log(&daemon->log, SPB_LOG_ERROR, "outcomes-not-written", SPB_TEXT("reason", err.text));
    spb_registry_free(daemon->registry);
}

static spb_status start_doubts(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_doubts_new(daemon, &daemon->doubts, err);
}

static void stop_doubts(struct spb_daemon *daemon)
{
    spb_doubts_free(daemon->doubts);
}

static void on_turn(void *user);
static void on_tick(void *user);

static spb_status start_loop(struct spb_daemon *daemon, struct spb_error *err)
{
    struct spb_loop_hooks hooks = {.turn = on_turn, .tick = on_tick, .user = daemon};

    return spb_loop_new(&hooks, &daemon->loop, err);
}

static void stop_loop(struct spb_daemon *daemon)
{
    spb_loop_free(daemon->loop);
}

static spb_status start_waits(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_waits_new(daemon, &daemon->waits, err);
}

static void stop_waits(struct spb_daemon *daemon)
{
    spb_waits_free(daemon->waits);
}

static spb_status start_watches(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_watches_new(daemon, &daemon->watches, err);
}

static void stop_watches(struct spb_daemon *daemon)
{
    spb_watches_free(daemon->watches);
}

static spb_status start_metrics(struct spb_daemon *daemon, struct spb_error *err)
{
    size_t count;
    const struct spb_method *methods = spb_methods(&count);

    return spb_metrics_new(methods, count, &daemon->metrics, err);
}

static void stop_metrics(struct spb_daemon *daemon)
{
    spb_metrics_free(daemon->metrics);
}

static spb_status start_scrubs(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_scrubs_new(daemon, &daemon->scrubs, err);
}

static void stop_scrubs(struct spb_daemon *daemon)
{
    spb_scrubs_free(daemon->scrubs);
}

static spb_status start_scrubbing(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_scrubs_start(daemon->scrubs, err);
}

static void stop_scrubbing(struct spb_daemon *daemon)
{
    spb_scrubs_stop(daemon->scrubs);
}

static spb_status start_conns(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_conns_new(daemon, &daemon->conns, err);
}

static void stop_conns(struct spb_daemon *daemon)
{
    spb_conns_free(daemon->conns);
}

static spb_status start_pool(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_pool_new(&daemon->pool, err);
}

static void stop_pool(struct spb_daemon *daemon)
{
    atomic_store(&daemon->ending, true);
    spb_actor_kick(daemon);
    spb_pool_free(daemon->pool);
    while (spb_loop_settle(daemon->loop)) { /* answers that nobody will flush any more */
    }
}

static spb_status start_attachments(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_attachments_new(daemon, &daemon->attachments, err);
}

static void stop_attachments(struct spb_daemon *daemon)
{
    spb_attachments_free(daemon->attachments);
}

static spb_status start_looking(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_attachments_start(daemon->attachments, err);
}

static void stop_looking(struct spb_daemon *daemon)
{
    spb_attachments_stop(daemon->attachments);
}

static spb_status start_http(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_http_new(daemon, &daemon->http, err);
}

static void stop_http(struct spb_daemon *daemon)
{
    spb_http_free(daemon->http);
    daemon->http = NULL;
}

static spb_status start_images(struct spb_daemon *daemon, struct spb_error *err)
{
    SPB_TRY(spb_adopt_load(daemon, err));
    SPB_TRY(spb_settle_acts(daemon, err));
    SPB_TRY(spb_stores_load(daemon, err));
    SPB_TRY(spb_registry_scan(daemon, err));
    spb_stores_settle(daemon);
    return spb_ok();
}

static spb_status start_listeners(struct spb_daemon *daemon, struct spb_error *err)
{
    return spb_listeners_new(daemon, &daemon->listeners, err);
}

static void stop_listeners(struct spb_daemon *daemon)
{
    spb_listeners_free(daemon->listeners);
    daemon->listeners = NULL;
}

/*
 * In the order of starting. The registry, the stores and the connections end after the last
 * worker, which may touch them; the loop after all, for they post to it.
 */
static const struct part {
    const char *name;
    spb_status (*start)(struct spb_daemon *daemon, struct spb_error *err);
    void (*stop)(struct spb_daemon *daemon); /* also of a start that failed; may be NULL */
} parts[] = {
    {"folder", start_folder, stop_folder},
    {"metrics", start_metrics, stop_metrics},
    {"loop", start_loop, stop_loop},
    {"audit", start_audit, stop_audit},
    {"repeats", start_repeats, stop_repeats},
    {"registry", start_registry, stop_registry},
    {"stores", spb_stores_start, spb_stores_stop},
    {"doubts", start_doubts, stop_doubts},
    {"waits", start_waits, stop_waits},
    {"watches", start_watches, stop_watches},
    {"scrubs", start_scrubs, stop_scrubs},
    {"attachments", start_attachments, stop_attachments},
    {"connections", start_conns, stop_conns},
    {"guests", spb_guests_start, spb_guests_stop},
    {"workers", start_pool, stop_pool},
    {"looking", start_looking, stop_looking},
    {"http", start_http, stop_http}, /* says that the images are not there yet */
    {"images", start_images, NULL},
    {"supervision", spb_supervisor_start, spb_supervisor_stop},
    {"scrubbing", start_scrubbing, stop_scrubbing},
    {"listeners", start_listeners, stop_listeners},
};
#define PARTS_TO_THE_LOOP 3 /* that one included */

spb_status spb_daemon_new(const struct spb_options *options, struct spb_daemon **out,
                          struct spb_error *err)
{
    struct spb_daemon *daemon = calloc(1, sizeof(*daemon));

    if (daemon == NULL)
        return spb_fail_memory(err, "starting");
    daemon->options = *options;
    daemon->limits = options->limits;
    (void)pthread_mutex_init(&daemon->log_lock, NULL);
    daemon->log = (struct spb_log){
        .level = options->log_level,
        .fd = STDERR_FILENO,
        .lock = &daemon->log_lock,
        .dropped = &daemon->log_dropped,
    };
    daemon->lock_fd = -1;
    daemon->start_ns = spb_now_ns();
    atomic_init(&daemon->ending, false);
    atomic_init(&daemon->serving, false);
    atomic_init(&daemon->loop_beat_ns, 0);
    if (!spb_is_ok(spb_notify_open(&daemon->notify, err)))
        spb_log(&daemon->log, SPB_LOG_WARN, "not-notifying", SPB_TEXT("reason", err->text));
    spb_notify_send(&daemon->notify, "STATUS=Opening the images");
    atomic_init(&daemon->draining, false);
    while (daemon->parts_started < SPB_COUNT(parts)) {
        const struct part *part = &parts[daemon->parts_started++];

        spb_log(&daemon->log, SPB_LOG_DEBUG, "part-starts", SPB_TEXT("part", part->name));
        spb_status status = part->start(daemon, err);
        if (!spb_is_ok(status)) {
            spb_daemon_free(daemon);
            return status;
        }
    }
    spb_log(&daemon->log, SPB_LOG_INFO, "started", SPB_TEXT("data_dir", daemon->data_dir),
            SPB_NUMBER("images", spb_registry_count(daemon->registry)));
    atomic_store(&daemon->serving, true);
    *out = daemon;
    return spb_ok();
}

static void stop_parts(struct spb_daemon *daemon, size_t keep)
{
    while (daemon->parts_started > keep) {
        const struct part *part = &parts[--daemon->parts_started];

        if (part->stop != NULL)
            part->stop(daemon);
    }
}

void spb_daemon_stop(struct spb_daemon *daemon)
{
    stop_parts(daemon, PARTS_TO_THE_LOOP);
}

void spb_daemon_free(struct spb_daemon *daemon)
{
    if (daemon == NULL)
        return;
    stop_parts(daemon, 0);
    spb_notify_close(&daemon->notify);
    free(daemon);
}

/* ---- Running ------------------------------------------------------------------------------ */

static void look_at_drain(struct spb_daemon *daemon)
{
    int64_t max_ns = (int64_t)SPB_LIMIT(daemon, drain_ms) * SPB_NS_PER_MS;
    bool late = spb_loop_now_ns(daemon->loop) - daemon->drain_start_ns > max_ns;

    if (!spb_conns_are_quiet(daemon->conns)) {
        if (!late)
            return;
        daemon->cut_off = true;
        spb_log(&daemon->log, SPB_LOG_ERROR, "drain-cut-off",
                SPB_NUMBER("after_ms", SPB_LIMIT(daemon, drain_ms)));
    }
    spb_loop_stop(daemon->loop);
}

static void on_turn(void *user)
{
    struct spb_daemon *daemon = user;

    spb_metrics_count(daemon->metrics, SPB_COUNT_LOOP_TURNS, 1);
    spb_actor_kick(daemon);
    spb_conns_turn(daemon->conns);
    if (daemon->kicks != NULL)
        spb_actor_kick(daemon); /* what was held back has queued more */
    if (daemon->draining)
        look_at_drain(daemon);
}

static void on_tick(void *user)
{
    struct spb_daemon *daemon = user;
    int64_t now_ns = spb_loop_now_ns(daemon->loop);

    atomic_store_explicit(&daemon->loop_beat_ns, now_ns, memory_order_relaxed);
    spb_notify_beat(&daemon->notify, now_ns);
    spb_conns_tick(daemon->conns);
    spb_repeat_tick(daemon);
    spb_stores_tick(daemon, now_ns);
}

bool spb_daemon_run(struct spb_daemon *daemon)
{
    spb_notify_ready(&daemon->notify, spb_registry_count(daemon->registry));
    spb_loop_run(daemon->loop);
    spb_log(&daemon->log, SPB_LOG_INFO, "stopped",
            SPB_TEXT("outcome", daemon->cut_off ? "calls were cut off" : "drained"));
    return !daemon->cut_off;
}

void spb_daemon_drain(struct spb_daemon *daemon)
{
    if (atomic_exchange(&daemon->draining, true))
        return;
    daemon->drain_start_ns = spb_loop_now_ns(daemon->loop);
    spb_notify_send(&daemon->notify, "STOPPING=1\nSTATUS=Draining: running calls are finished");
    spb_log(&daemon->log, SPB_LOG_INFO, "draining",
            SPB_NUMBER("at_most_ms", SPB_LIMIT(daemon, drain_ms)));
    stop_listeners(daemon);
    spb_scrubs_drain(daemon->scrubs);
    spb_waits_end_all(daemon->waits);
}

void spb_daemon_say_ready(const struct spb_daemon *daemon)
{
    char line[READY_SIZE] = "ready";
    size_t used = strlen(line);

    for (size_t i = 0; i < spb_listeners_count(daemon->listeners); i++) {
        char text[SPB_ENDPOINT_TEXT_SIZE];

        spb_endpoint_show(spb_listeners_bound(daemon->listeners, i), text);
        used += (size_t)snprintf(line + used, sizeof(line) - used, " %s", text);
        spb_log(&daemon->log, SPB_LOG_INFO, "listening", SPB_TEXT("at", text));
    }
    if (daemon->http != NULL) {
        char text[SPB_ENDPOINT_TEXT_SIZE];

        spb_endpoint_show(spb_http_bound(daemon->http), text);
        (void)snprintf(line + used, sizeof(line) - used, " http%s", text + strlen("tcp"));
        spb_log(&daemon->log, SPB_LOG_INFO, "listening", SPB_TEXT("http", text));
    }
    (void)puts(line);
    (void)fflush(stdout);
}
