/* The supervisor's thread; see thread.h. */
#include "supervisor/thread.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "supervisor/adopt.h"
#include "supervisor/drive.h"
#include "supervisor/guests.h"
#include "supervisor/session.h"

#define EVENTS_A_TURN 64
#define ENDING_NS (20 * SPB_NS_PER_S) /* for ephemeral guests, and what workers are at */
#define ENDING_STEP_MS 20
#define ADOPTING_NS (5 * SPB_NS_PER_S) /* that the start waits for guests to answer */

struct spb_supervisor {
    struct spb_daemon *daemon;
    int epoll_fd, wake_fd;
    struct spb_source wake;
    pthread_t thread;
    bool has_thread;
    atomic_bool ending;

    pthread_mutex_t lock; /* over the next four */
    struct spb_post *first, *last;
    bool is_closed;         /* nothing is taken any more */
    pthread_cond_t adopted; /* none is being adopted any more */

    /* The thread's. */
    struct spb_guest *active;
    struct spb_guest *queue_first, *queue_last;
    size_t working; /* tasks on workers */
    int64_t ending_ns;
    struct spb_garbage *garbage;
};

/* ---- Posts -------------------------------------------------------------------------------- */

static void wake(struct spb_supervisor *supervisor)
{
    uint64_t one = 1;

    /* It cannot block: the count is far from its end. */
    (void)!write(supervisor->wake_fd, &one, sizeof(one));
}

bool spb_supervisor_post(struct spb_supervisor *supervisor, struct spb_post *post)
{
    post->next = NULL;
    (void)pthread_mutex_lock(&supervisor->lock);
    bool taken = !supervisor->is_closed;
    bool was_empty = supervisor->first == NULL;
    if (taken && was_empty)
        supervisor->first = post;
    else if (taken)
        supervisor->last->next = post;
    if (taken)
        supervisor->last = post;
    (void)pthread_mutex_unlock(&supervisor->lock);
    if (taken && was_empty)
        wake(supervisor);
    return taken;
}

struct asking {
    struct spb_post post;
    void (*run)(void *user);
    void *user;
    sem_t done;
};

static void run_asking(struct spb_post *post)
{
    struct asking *asking = SPB_CONTAINER(post, struct asking, post);

    asking->run(asking->user);
    (void)sem_post(&asking->done);
}

bool spb_supervisor_do(struct spb_supervisor *supervisor, void (*run)(void *user), void *user)
{
    struct asking asking = {.post = {.run = run_asking}, .run = run, .user = user};

    (void)sem_init(&asking.done, 0, 0);
    bool taken = spb_supervisor_post(supervisor, &asking.post);
    while (taken && sem_wait(&asking.done) != 0) {
    }
    (void)sem_destroy(&asking.done);
    return taken;
}

static void run_posts(struct spb_supervisor *supervisor)
{
    (void)pthread_mutex_lock(&supervisor->lock);
    struct spb_post *post = supervisor->first;
    supervisor->first = supervisor->last = NULL;
    (void)pthread_mutex_unlock(&supervisor->lock);
    while (post != NULL) {
        struct spb_post *next = post->next;

        post->run(post);
        post = next;
    }
}

static void on_wake(struct spb_source *source, uint32_t events)
{
    uint64_t count;

    (void)events;
    (void)!read(source->fd, &count, sizeof(count));
}

bool spb_supervisor_is_ending(const struct spb_supervisor *supervisor)
{
    return atomic_load_explicit(&supervisor->ending, memory_order_relaxed);
}

/* ---- Sources ------------------------------------------------------------------------------ */

spb_status spb_source_watch(struct spb_supervisor *supervisor, struct spb_source *source, int fd,
                            uint32_t events, struct spb_error *err)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    bool is_new = source->fd < 0;

    if (!is_new && source->events == events)
        return spb_ok();
    if (epoll_ctl(supervisor->epoll_fd, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "watching a descriptor of a guest");
    source->fd = fd;
    source->events = events;
    return spb_ok();
}

void spb_source_unwatch(struct spb_supervisor *supervisor, struct spb_source *source)
{
    if (source->fd >= 0)
        (void)epoll_ctl(supervisor->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->fd = -1;
}

static void sweep(struct spb_supervisor *supervisor)
{
    while (supervisor->garbage != NULL) {
        struct spb_garbage *garbage = supervisor->garbage;

        supervisor->garbage = garbage->next;
        free(garbage);
    }
}

void spb_supervisor_free_later(struct spb_supervisor *supervisor, struct spb_garbage *garbage)
{
    garbage->next = supervisor->garbage;
    supervisor->garbage = garbage;
}

/* ---- Guests in turn ----------------------------------------------------------------------- */

void spb_supervisor_activate(struct spb_supervisor *supervisor, struct spb_guest *guest)
{
    if (guest->is_active)
        return;
    guest->is_active = true;
    guest->next_active = supervisor->active;
    supervisor->active = guest;
    spb_guest_ref(guest);
}

static bool has_time(const struct spb_guest *guest)
{
    return guest->run != NULL || spb_life_is_busy(&guest->life) || spb_drive_next_ns(guest) != 0;
}

/* Lets go of those that rest; the earliest time of the others, 0 where there is none. */
static int64_t look_at_active(struct spb_supervisor *supervisor)
{
    struct spb_guest **place = &supervisor->active;
    int64_t first = 0;

    while (*place != NULL) {
        struct spb_guest *guest = *place;

        if (!has_time(guest)) {
            *place = guest->next_active;
            guest->is_active = false;
            spb_guest_unref(guest);
            continue;
        }
        int64_t next = spb_drive_next_ns(guest);
        if (next != 0 && (first == 0 || next < first))
            first = next;
        place = &guest->next_active;
    }
    return first;
}

/* New ones come to the front of the list, and are not looked at in this turn. */
static void run_times(struct spb_supervisor *supervisor, int64_t now_ns)
{
    for (struct spb_guest *guest = supervisor->active; guest != NULL; guest = guest->next_active) {
        int64_t next = spb_drive_next_ns(guest);

        if (next != 0 && next <= now_ns)
            spb_drive_time(guest, now_ns);
    }
}

void spb_supervisor_queue(struct spb_supervisor *supervisor, struct spb_guest *guest)
{
    guest->next_queued = NULL;
    if (supervisor->queue_first == NULL)
        supervisor->queue_first = guest;
    else
        supervisor->queue_last->next_queued = guest;
    supervisor->queue_last = guest;
    spb_guest_ref(guest);
}

static struct spb_guest *take_queued(struct spb_supervisor *supervisor, struct spb_guest *wanted)
{
    struct spb_guest *before = NULL, *guest = supervisor->queue_first;

    for (; guest != NULL && wanted != NULL && guest != wanted; guest = guest->next_queued)
        before = guest;
    if (guest == NULL)
        return NULL;
    if (before == NULL)
        supervisor->queue_first = guest->next_queued;
    else
        before->next_queued = guest->next_queued;
    if (supervisor->queue_last == guest)
        supervisor->queue_last = before;
    return guest;
}

void spb_supervisor_unqueue(struct spb_supervisor *supervisor, struct spb_guest *guest)
{
    if (take_queued(supervisor, guest) != NULL)
        spb_guest_unref(guest);
}

static size_t count_starting(const struct spb_supervisor *supervisor)
{
    size_t count = 0;

    for (const struct spb_guest *g = supervisor->active; g != NULL; g = g->next_active)
        count += g->life.phase == SPB_PHASE_PREPARING ||
                 (g->life.phase == SPB_PHASE_CONNECTING && !g->life.adopted);
    return count;
}

static void give_turns(struct spb_supervisor *supervisor)
{
    size_t max = (size_t)SPB_LIMIT(supervisor->daemon, guest_starts_max);

    while (supervisor->queue_first != NULL && !spb_supervisor_is_ending(supervisor) &&
           count_starting(supervisor) < max) {
        struct spb_guest *guest = take_queued(supervisor, NULL);
        struct spb_life_input turn = {.what = SPB_LIFE_PLACE};

        spb_drive_step(guest, &turn);
        spb_guest_unref(guest);
    }
}

/* ---- Work --------------------------------------------------------------------------------- */

void spb_supervisor_work(struct spb_supervisor *supervisor, enum spb_lane lane,
                         struct spb_task *task)
{
    supervisor->working++;
    spb_pool_submit(supervisor->daemon->pool, lane, task);
}

void spb_supervisor_work_done(struct spb_supervisor *supervisor)
{
    SPB_ASSERT(supervisor->working > 0);
    supervisor->working--;
}

/* ---- Turns -------------------------------------------------------------------------------- */

static int timeout_ms(int64_t first_ns, int64_t now_ns)
{
    if (first_ns == 0)
        return -1;
    if (first_ns <= now_ns)
        return 0;
    int64_t ms = (first_ns - now_ns + SPB_NS_PER_MS - 1) / SPB_NS_PER_MS;
    return ms > 60000 ? 60000 : (int)ms;
}

static void take_turn(struct spb_supervisor *supervisor)
{
    struct epoll_event events[EVENTS_A_TURN];
    int wait_ms = timeout_ms(look_at_active(supervisor), spb_now_ns());

    /* Lives are not told the time any more; what is left comes by itself. */
    if (spb_supervisor_is_ending(supervisor))
        wait_ms = ENDING_STEP_MS;
    int count = epoll_wait(supervisor->epoll_fd, events, EVENTS_A_TURN, wait_ms);
    for (int i = 0; i < count; i++) {
        struct spb_source *source = events[i].data.ptr;

        if (source->fd >= 0)
            source->ready(source, events[i].events);
    }
    run_posts(supervisor);
    run_times(supervisor, spb_now_ns());
    give_turns(supervisor);
    sweep(supervisor);
    if (atomic_load_explicit(&supervisor->daemon->guests->adopting, memory_order_relaxed) == 0) {
        (void)pthread_mutex_lock(&supervisor->lock);
        (void)pthread_cond_broadcast(&supervisor->adopted);
        (void)pthread_mutex_unlock(&supervisor->lock);
    }
}

static bool has_to_stay(const struct spb_supervisor *supervisor)
{
    if (supervisor->working > 0)
        return true;
    for (const struct spb_guest *g = supervisor->active; g != NULL; g = g->next_active) {
        if (g->config->ephemeral && g->life.phase > SPB_PHASE_QUEUED)
            return true;
    }
    return false;
}

static void end_ephemeral(struct spb_supervisor *supervisor)
{
    struct spb_life_input drain = {.what = SPB_LIFE_DRAIN};

    for (struct spb_guest *guest = supervisor->active; guest != NULL; guest = guest->next_active) {
        if (guest->config->ephemeral)
            spb_drive_step(guest, &drain);
    }
}

/* QEMUs go on, and are found again at the next start. */
static void let_go(struct spb_supervisor *supervisor)
{
    while (supervisor->queue_first != NULL)
        spb_guest_unref(take_queued(supervisor, NULL));
    while (supervisor->active != NULL) {
        struct spb_guest *guest = supervisor->active;

        supervisor->active = guest->next_active;
        guest->is_active = false;
        spb_drive_let_go(guest);
        spb_guest_unref(guest);
    }
    sweep(supervisor);
}

static void record_rest(struct spb_supervisor *supervisor)
{
    for (struct spb_guest *guest = supervisor->active; guest != NULL; guest = guest->next_active)
        spb_drive_record_rest(guest);
}

static void close_posts(struct spb_supervisor *supervisor)
{
    (void)pthread_mutex_lock(&supervisor->lock);
    supervisor->is_closed = true;
    (void)pthread_mutex_unlock(&supervisor->lock);
    run_posts(supervisor);
}

static void *work(void *user)
{
    struct spb_supervisor *supervisor = user;

    while (!atomic_load(&supervisor->ending))
        take_turn(supervisor);
    int64_t until_ns = spb_now_ns() + ENDING_NS;
    end_ephemeral(supervisor);
    while (has_to_stay(supervisor) && (supervisor->working > 0 || spb_now_ns() < until_ns))
        take_turn(supervisor);
    record_rest(supervisor);
    while (supervisor->working > 0)
        take_turn(supervisor);
    close_posts(supervisor);
    let_go(supervisor);
    return NULL;
}

/* ---- The part ----------------------------------------------------------------------------- */

static spb_status open_all(struct spb_supervisor *supervisor, struct spb_error *err)
{
    supervisor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    supervisor->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (supervisor->epoll_fd < 0 || supervisor->wake_fd < 0)
        return spb_fail_errno(err, SPB_LIMIT, errno, "opening the supervisor's descriptors");
    return spb_source_watch(supervisor, &supervisor->wake, supervisor->wake_fd, EPOLLIN, err);
}

static void init_adopted(struct spb_supervisor *supervisor)
{
    pthread_condattr_t attributes;

    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&supervisor->adopted, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

spb_status spb_supervisor_new(struct spb_daemon *daemon, struct spb_supervisor **out,
                              struct spb_error *err)
{
    struct spb_supervisor *supervisor = calloc(1, sizeof(*supervisor));

    if (supervisor == NULL)
        return spb_fail_memory(err, "making the supervisor");
    *supervisor = (struct spb_supervisor){
        .daemon = daemon, .epoll_fd = -1, .wake_fd = -1, .wake = {.fd = -1, .ready = on_wake}};
    atomic_init(&supervisor->ending, false);
    (void)pthread_mutex_init(&supervisor->lock, NULL);
    init_adopted(supervisor);
    spb_status status = open_all(supervisor, err);
    if (spb_is_ok(status))
        *out = supervisor;
    else
        spb_supervisor_free(supervisor);
    return status;
}

void spb_supervisor_free(struct spb_supervisor *supervisor)
{
    if (supervisor == NULL)
        return;
    if (supervisor->epoll_fd >= 0)
        (void)close(supervisor->epoll_fd);
    if (supervisor->wake_fd >= 0)
        (void)close(supervisor->wake_fd);
    (void)pthread_cond_destroy(&supervisor->adopted);
    (void)pthread_mutex_destroy(&supervisor->lock);
    free(supervisor);
}

/* The states that are told at first are true, where QEMUs answer in time. */
static void wait_for_adoption(struct spb_supervisor *supervisor)
{
    struct spb_guests *guests = supervisor->daemon->guests;
    int64_t until_ns = spb_now_ns() + ADOPTING_NS;
    struct timespec until = {.tv_sec = until_ns / SPB_NS_PER_S,
                             .tv_nsec = (long)(until_ns % SPB_NS_PER_S)};
    int number = 0;

    (void)pthread_mutex_lock(&supervisor->lock);
    while (atomic_load(&guests->adopting) > 0 && number == 0)
        number = pthread_cond_timedwait(&supervisor->adopted, &supervisor->lock, &until);
    (void)pthread_mutex_unlock(&supervisor->lock);
}

spb_status spb_supervisor_start(struct spb_daemon *daemon, struct spb_error *err)
{
    struct spb_supervisor *supervisor = daemon->guests->supervisor;
    sigset_t all, before;

    spb_adopt_all(daemon);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&supervisor->thread, NULL, work, supervisor);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (number != 0)
        return spb_fail_errno(err, SPB_NO_MEMORY, number, "starting the supervisor's thread");
    supervisor->has_thread = true;
    wait_for_adoption(supervisor);
    return spb_ok();
}

void spb_supervisor_stop(struct spb_daemon *daemon)
{
    struct spb_supervisor *supervisor = daemon->guests == NULL ? NULL : daemon->guests->supervisor;

    if (supervisor == NULL)
        return;
    atomic_store(&supervisor->ending, true);
    if (!supervisor->has_thread) {
        close_posts(supervisor);
        let_go(supervisor);
        return;
    }
    wake(supervisor);
    (void)pthread_join(supervisor->thread, NULL);
    supervisor->has_thread = false;
}
