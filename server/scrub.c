/*
 * Scrubs; see scrub.h. The lock here may be taken under an image's; never the other way round.
 */
#include "scrub.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/ioprio.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "metrics.h"
#include "scrub_order.h"
#include "services/services.h"

#define IO_LEVEL 7                  /* of 0 to 7, the last one */
#define LOOK_NS (60 * SPB_NS_PER_S) /* at least so often: the configuration may have changed */
#define LOGGED_MAX 20u              /* findings of one scrub */

/* Why the running one is to end. */
enum stop { GO_ON, IMAGE_CLOSES, DAEMON_ENDS };

struct spb_scrubs {
    struct spb_daemon *daemon;
    pthread_t thread;
    bool has_thread;
    struct spb_scrub_order order; /* the thread's */
    pthread_mutex_t lock;         /* over all below, and what images hold of their scrubs */
    pthread_cond_t changed;
    bool ending;
    struct spb_image *first, *last; /* the queue; each is referenced */
    struct spb_image *running;
    enum stop stop;
};

/* ---- What images hold --------------------------------------------------------------------- */

static void run_ended(struct spb_post *post)
{
    struct spb_scrub_point *point = SPB_CONTAINER(post, struct spb_scrub_point, ended);
    struct spb_image *image = SPB_CONTAINER(point, struct spb_image, scrub);
    struct spb_scrubs *scrubs = image->daemon->scrubs;

    (void)pthread_mutex_lock(&scrubs->lock);
    point->posted = false;
    (void)pthread_mutex_unlock(&scrubs->lock);
    spb_images_scrub_ended(image);
    spb_image_unref(image);
}

void spb_scrub_point_init(struct spb_scrub_point *point)
{
    *point = (struct spb_scrub_point){.ended = {.run = run_ended}};
}

void spb_scrub_point_done(struct spb_image *image)
{
    if (image->scrub.report.count > 0)
        spb_metrics_add(image->daemon->metrics, SPB_GAUGE_IMAGES_ROTTEN, -1);
    free(image->scrub.findings);
    image->scrub.findings = NULL;
}

void spb_scrub_look(struct spb_image *image,
                    void (*tell)(void *user, enum spb_scrub_state state,
                                 const struct spb_scrub_report *report),
                    void *user)
{
    struct spb_scrubs *scrubs = image->daemon->scrubs;

    (void)pthread_mutex_lock(&scrubs->lock);
    tell(user, image->scrub.state, &image->scrub.report);
    (void)pthread_mutex_unlock(&scrubs->lock);
}

/* Those that wait are told, on the loop's thread. Under the lock. */
static void post_end_locked(struct spb_image *image)
{
    if (image->scrub.posted)
        return;
    image->scrub.posted = true;
    spb_image_ref(image);
    spb_loop_post(image->daemon->loop, &image->scrub.ended, &image->scrub.ended);
}

/* ---- The queue ---------------------------------------------------------------------------- */

void spb_scrub_ask(struct spb_image *image)
{
    struct spb_scrubs *scrubs = image->daemon->scrubs;

    (void)pthread_mutex_lock(&scrubs->lock);
    if (image->scrub.state == SPB_SCRUB_IDLE && !scrubs->ending) {
        image->scrub.state = SPB_SCRUB_QUEUED;
        image->scrub.next = NULL;
        spb_image_ref(image);
        if (scrubs->last == NULL)
            scrubs->first = image;
        else
            scrubs->last->scrub.next = image;
        scrubs->last = image;
        (void)pthread_cond_broadcast(&scrubs->changed);
    }
    (void)pthread_mutex_unlock(&scrubs->lock);
}

static struct spb_image *pop_locked(struct spb_scrubs *scrubs)
{
    struct spb_image *image = scrubs->first;

    if (image == NULL)
        return NULL;
    scrubs->first = image->scrub.next;
    if (scrubs->first == NULL)
        scrubs->last = NULL;
    return image;
}

/* Takes it out of the queue, if it is there: its turn by the schedule has come first. */
static bool unqueue_locked(struct spb_scrubs *scrubs, struct spb_image *image)
{
    struct spb_image *before = NULL, *at = scrubs->first;

    while (at != NULL && at != image) {
        before = at;
        at = at->scrub.next;
    }
    if (at == NULL)
        return false;
    if (before == NULL)
        scrubs->first = image->scrub.next;
    else
        before->scrub.next = image->scrub.next;
    if (scrubs->last == image)
        scrubs->last = before;
    return true;
}

void spb_scrub_end(struct spb_image *image)
{
    struct spb_scrubs *scrubs = image->daemon->scrubs;

    (void)pthread_mutex_lock(&scrubs->lock);
    if (scrubs->running == image && scrubs->stop == GO_ON) {
        scrubs->stop = IMAGE_CLOSES;
        (void)pthread_cond_broadcast(&scrubs->changed);
    }
    (void)pthread_mutex_unlock(&scrubs->lock);
}

/* ---- One scrub ---------------------------------------------------------------------------- */

struct run {
    struct spb_scrubs *scrubs;
    struct spb_image *image;
    uint64_t done;  /* bytes */
    int64_t due_ns; /* when these may have been read, at the bounded rate */
};

static bool wait_until(struct spb_scrubs *scrubs, int64_t at_ns)
{
    struct timespec at = {.tv_sec = at_ns / SPB_NS_PER_S, .tv_nsec = at_ns % SPB_NS_PER_S};

    return pthread_cond_timedwait(&scrubs->changed, &scrubs->lock, &at) == 0;
}

/*
 * Between two pieces: sleeps as long as the one before should have taken. Time that the medium
 * itself took longer is not made up for, so the rate holds for every moment.
 */
static bool pace(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    struct run *run = user;
    struct spb_scrubs *scrubs = run->scrubs;
    uint64_t rate = SPB_LIMIT(scrubs->daemon, scrub_bytes_per_s);
    uint64_t piece = done_bytes > run->done ? done_bytes - run->done : 0;
    int64_t now_ns = spb_now_ns();

    run->done = done_bytes;
    run->due_ns += (int64_t)((double)piece / (double)rate * (double)SPB_NS_PER_S);
    if (run->due_ns < now_ns)
        run->due_ns = now_ns;
    spb_metrics_count(scrubs->daemon->metrics, SPB_COUNT_SCRUB_BYTES, piece);
    (void)pthread_mutex_lock(&scrubs->lock);
    run->image->scrub.report.done_bytes = done_bytes;
    run->image->scrub.report.total_bytes = total_bytes;
    while (scrubs->stop == GO_ON && spb_now_ns() < run->due_ns)
        (void)wait_until(scrubs, run->due_ns);
    bool go_on = scrubs->stop == GO_ON;
    (void)pthread_mutex_unlock(&scrubs->lock);
    return go_on;
}

static bool is_known(const struct spb_scrub_report *before, const struct spb_finding *finding)
{
    for (size_t i = 0; i < before->count; i++) {
        if (before->findings[i].kind == finding->kind &&
            before->findings[i].index == finding->index)
            return true;
    }
    return false;
}

/* What was not among the findings before: each is logged once. Returns how many. */
static size_t log_findings(const struct spb_image *image, const struct spb_report *found)
{
    size_t fresh = 0;

    for (size_t i = 0; i < found->count; i++) {
        const struct spb_finding *finding = &found->findings[i];

        if (is_known(&image->scrub.report, finding) || fresh++ >= LOGGED_MAX)
            continue;
        spb_log(&image->daemon->log, SPB_LOG_ERROR, "rot-found",
                SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
                SPB_TEXT("kind", spb_finding_name(finding->kind)),
                SPB_NUMBER("index", finding->index), SPB_TEXT("text", finding->text));
    }
    return fresh;
}

/* Keeps what was found in the place of what was before. Under the lock. */
static void keep_locked(struct spb_image *image, struct spb_report *found)
{
    struct spb_scrub_point *point = &image->scrub;
    bool was_rotten = point->report.count > 0;

    free(point->findings);
    point->findings = NULL;
    point->report.count = 0;
    if (found->count > 0) {
        size_t count =
            found->count < SPB_SCRUB_FINDINGS_MAX ? found->count : SPB_SCRUB_FINDINGS_MAX;

        point->findings = realloc(found->findings, count * sizeof(*found->findings));
        if (point->findings == NULL) /* it could not be made smaller */
            point->findings = found->findings;
        point->report.count = count;
        found->findings = NULL;
    }
    point->report.findings = point->findings;
    spb_metrics_add(image->daemon->metrics, SPB_GAUGE_IMAGES_ROTTEN,
                    (point->report.count > 0) - was_rotten);
}

/* Failure: why it ended early, or NULL. */
static void end_run(struct spb_scrubs *scrubs, struct spb_image *image, const char *failure,
                    struct spb_report *found)
{
    struct spb_scrub_report *report = &image->scrub.report;

    /* Before anybody hears of the end. */
    spb_metrics_count(scrubs->daemon->metrics,
                      failure == NULL ? SPB_COUNT_SCRUBS : SPB_COUNT_SCRUBS_FAILED, 1);
    spb_metrics_set(scrubs->daemon->metrics, SPB_GAUGE_SCRUBS_RUNNING, 0);
    (void)pthread_mutex_lock(&scrubs->lock);
    if (failure == NULL) {
        keep_locked(image, found);
        report->done_bytes = report->total_bytes;
    }
    (void)snprintf(report->failure, sizeof(report->failure), "%s", failure == NULL ? "" : failure);
    report->ended_at = (int64_t)time(NULL);
    image->scrub.state = SPB_SCRUB_IDLE;
    scrubs->running = NULL;
    post_end_locked(image);
    (void)pthread_mutex_unlock(&scrubs->lock);
}

static void begin_run(struct spb_scrubs *scrubs, struct spb_image *image)
{
    struct spb_scrub_report *report = &image->scrub.report;

    image->scrub.state = SPB_SCRUB_RUNNING;
    scrubs->running = image;
    scrubs->stop = scrubs->ending ? DAEMON_ENDS : GO_ON;
    report->done_bytes = 0;
    report->total_bytes = 0;
    report->started_at = (int64_t)time(NULL);
    report->ended_at = 0;
    report->failure[0] = '\0';
    spb_metrics_set(scrubs->daemon->metrics, SPB_GAUGE_SCRUBS_RUNNING, 1);
}

static const char *why_stopped(struct spb_scrubs *scrubs, const struct spb_error *err)
{
    static const char *const words[] = {
        [IMAGE_CLOSES] = "the image was closed, reopened or deleted meanwhile",
        [DAEMON_ENDS] = "the daemon was shut down meanwhile",
    };

    (void)pthread_mutex_lock(&scrubs->lock);
    enum stop stop = scrubs->stop;
    (void)pthread_mutex_unlock(&scrubs->lock);
    return stop == GO_ON ? err->text : words[stop];
}

static struct spb_volume *volume_of(struct spb_image *image)
{
    (void)pthread_mutex_lock(&image->lock);
    struct spb_volume *volume = image->volume;
    (void)pthread_mutex_unlock(&image->lock);
    return volume;
}

static void log_end(const struct spb_image *image, const struct run *run, int64_t begin_ns,
                    const char *failure, size_t found, size_t fresh)
{
    spb_log(&image->daemon->log, SPB_LOG_INFO, "image-scrubbed",
            SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name),
            SPB_NUMBER("bytes", run->done),
            SPB_NUMBER("ms", (spb_now_ns() - begin_ns) / SPB_NS_PER_MS), SPB_NUMBER("found", found),
            SPB_NUMBER("new", fresh), SPB_TEXT("ended_early", failure == NULL ? "" : failure));
}

/* The image's state is RUNNING. */
static void scrub(struct spb_scrubs *scrubs, struct spb_image *image)
{
    struct run run = {.scrubs = scrubs, .image = image, .due_ns = spb_now_ns()};
    struct spb_report found = {.count = 0};
    const char *failure = NULL;
    int64_t begin_ns = run.due_ns;
    struct spb_error err;
    size_t fresh = 0;

    if (!spb_image_hold(image)) {
        end_run(scrubs, image, "the image is not served", &found);
        return;
    }
    spb_status status = spb_volume_scrub(volume_of(image), pace, &run, &found, &err);
    spb_image_unhold(image);
    /* What a failed write left on the medium is no rot. */
    if (spb_is_ok(status) && spb_image_state(image) != SPB_IMAGE_READY)
        failure = "the image became read-only meanwhile";
    else if (!spb_is_ok(status))
        failure = why_stopped(scrubs, &err);
    if (failure == NULL) {
        fresh = log_findings(image, &found);
        spb_metrics_count(scrubs->daemon->metrics, SPB_COUNT_SCRUB_FINDINGS, fresh);
    }
    log_end(image, &run, begin_ns, failure, found.count, fresh);
    end_run(scrubs, image, failure, &found);
    spb_report_done(&found);
}

/* ---- The thread --------------------------------------------------------------------------- */

/* Under the lock, which it lets go of. A scheduled one may have been asked for too. */
static struct spb_image *take_due(struct spb_scrubs *scrubs)
{
    (void)pthread_mutex_unlock(&scrubs->lock);
    struct spb_image *image = spb_scrub_order_next(&scrubs->order);
    (void)pthread_mutex_lock(&scrubs->lock);
    if (image != NULL && unqueue_locked(scrubs, image))
        spb_image_unref(image); /* the queue's */
    return image;
}

/* The next one, its state set; NULL where all is to end. */
static struct spb_image *wait_for_next(struct spb_scrubs *scrubs)
{
    struct spb_image *image = NULL;

    (void)pthread_mutex_lock(&scrubs->lock);
    while (image == NULL && !scrubs->ending) {
        image = pop_locked(scrubs);
        if (image != NULL)
            break;
        int64_t now_ns = spb_now_ns(), due_ns = spb_scrub_order_due(&scrubs->order);

        if (due_ns <= now_ns)
            image = take_due(scrubs);
        else
            (void)wait_until(scrubs, due_ns - now_ns < LOOK_NS ? due_ns : now_ns + LOOK_NS);
    }
    if (image != NULL)
        begin_run(scrubs, image);
    (void)pthread_mutex_unlock(&scrubs->lock);
    return image;
}

/*
 * Everybody else's I/O goes first, where the system can do that. Not so on the processors: a thread
 * that waits there while it holds a volume's lock holds up those that matter, and its rate keeps it
 * from taking much.
 */
static void step_back(void)
{
    (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
                  IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, IO_LEVEL));
}

static void *run_all(void *user)
{
    struct spb_scrubs *scrubs = user;
    struct spb_image *image;

    step_back();
    while ((image = wait_for_next(scrubs)) != NULL) {
        scrub(scrubs, image);
        spb_image_unref(image);
    }
    return NULL;
}

/* ---- Life --------------------------------------------------------------------------------- */

spb_status spb_scrubs_new(struct spb_daemon *daemon, struct spb_scrubs **out, struct spb_error *err)
{
    struct spb_scrubs *scrubs = calloc(1, sizeof(*scrubs));
    pthread_condattr_t attributes;

    if (scrubs == NULL)
        return spb_fail_memory(err, "preparing scrubs");
    scrubs->daemon = daemon;
    (void)pthread_mutex_init(&scrubs->lock, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&scrubs->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    *out = scrubs;
    return spb_ok();
}

void spb_scrubs_free(struct spb_scrubs *scrubs)
{
    if (scrubs == NULL)
        return;
    SPB_ASSERT(!scrubs->has_thread);
    spb_scrub_order_done(&scrubs->order);
    (void)pthread_cond_destroy(&scrubs->changed);
    (void)pthread_mutex_destroy(&scrubs->lock);
    free(scrubs);
}

spb_status spb_scrubs_start(struct spb_scrubs *scrubs, struct spb_error *err)
{
    sigset_t all, before;

    SPB_TRY(spb_scrub_order_init(&scrubs->order, scrubs->daemon, err));
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&scrubs->thread, NULL, run_all, scrubs);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    scrubs->has_thread = number == 0;
    if (number != 0)
        return spb_fail_errno(err, SPB_NO_MEMORY, number, "starting the thread of scrubs");
    return spb_ok();
}

void spb_scrubs_drain(struct spb_scrubs *scrubs)
{
    struct spb_image *queued = NULL, *next;

    (void)pthread_mutex_lock(&scrubs->lock);
    scrubs->ending = true;
    if (scrubs->stop == GO_ON)
        scrubs->stop = DAEMON_ENDS;
    queued = scrubs->first;
    scrubs->first = NULL;
    scrubs->last = NULL;
    for (struct spb_image *image = queued; image != NULL; image = image->scrub.next)
        image->scrub.state = SPB_SCRUB_IDLE;
    (void)pthread_cond_broadcast(&scrubs->changed);
    (void)pthread_mutex_unlock(&scrubs->lock);
    for (; queued != NULL; queued = next) {
        next = queued->scrub.next;
        spb_image_unref(queued);
    }
}

void spb_scrubs_stop(struct spb_scrubs *scrubs)
{
    if (scrubs == NULL || !scrubs->has_thread)
        return;
    spb_scrubs_drain(scrubs);
    (void)pthread_join(scrubs->thread, NULL);
    scrubs->has_thread = false;
}
