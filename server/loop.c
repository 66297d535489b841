/* The event loop; see loop.h. */
#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/status.h"
#include "util.h"

struct spb_loop {
    struct event_base *base;
    struct event *wake, *timer;
    int wake_fd;
    struct spb_loop_hooks hooks;
    pthread_t thread; /* of spb_loop_run */
    atomic_bool has_thread;
    bool stopped, again;
    int64_t now_ns;       /* 0: not read in this turn */
    pthread_mutex_t lock; /* over the queue of posts */
    struct spb_post *first, *last;
};

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    uint64_t count;

    (void)what;
    (void)user;
    /* Only empties the counter; the posts are run at the end of the turn. */
    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct spb_loop *loop = user;

    (void)fd;
    (void)what;
    if (loop->hooks.tick != NULL)
        loop->hooks.tick(loop->hooks.user);
}

static bool make_events(struct spb_loop *loop)
{
    struct timeval tick = {.tv_usec = SPB_LOOP_TICK_MS * 1000};
    struct event_config *config = event_config_new();

    if (config == NULL)
        return false;
    (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    loop->base = event_base_new_with_config(config);
    event_config_free(config);
    if (loop->base == NULL)
        return false;
    loop->wake = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
    loop->timer = event_new(loop->base, -1, EV_PERSIST, on_tick, loop);
    return loop->wake != NULL && loop->timer != NULL && event_add(loop->wake, NULL) == 0 &&
           event_add(loop->timer, &tick) == 0;
}

spb_status spb_loop_new(const struct spb_loop_hooks *hooks, struct spb_loop **out,
                        struct spb_error *err)
{
    struct spb_loop *loop = calloc(1, sizeof(*loop));

    if (loop == NULL)
        return spb_fail_memory(err, "making the event loop");
    loop->hooks = *hooks;
    (void)pthread_mutex_init(&loop->lock, NULL);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0 || !make_events(loop)) {
        int number = errno;
        spb_loop_free(loop);
        return spb_fail_errno(err, SPB_IO, number, "making the event loop");
    }
    *out = loop;
    return spb_ok();
}

bool spb_loop_settle(struct spb_loop *loop)
{
    (void)pthread_mutex_lock(&loop->lock);
    struct spb_post *post = loop->first;
    loop->first = NULL;
    loop->last = NULL;
    (void)pthread_mutex_unlock(&loop->lock);
    bool any = post != NULL;
    while (post != NULL) {
        struct spb_post *next = post->next;

        post->run(post);
        post = next;
    }
    return any;
}

void spb_loop_free(struct spb_loop *loop)
{
    if (loop == NULL)
        return;
    (void)spb_loop_settle(loop);
    if (loop->wake != NULL)
        event_free(loop->wake);
    if (loop->timer != NULL)
        event_free(loop->timer);
    if (loop->base != NULL)
        event_base_free(loop->base);
    if (loop->wake_fd >= 0)
        (void)close(loop->wake_fd);
    (void)pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void spb_loop_run(struct spb_loop *loop)
{
    loop->thread = pthread_self();
    atomic_store(&loop->has_thread, true);
    while (!loop->stopped) {
        int flags = EVLOOP_ONCE | (loop->again ? EVLOOP_NONBLOCK : 0);

        loop->again = false;
        loop->now_ns = 0;
        (void)event_base_loop(loop->base, flags);
        (void)spb_loop_settle(loop);
        if (loop->hooks.turn != NULL)
            loop->hooks.turn(loop->hooks.user);
    }
}

void spb_loop_post(struct spb_loop *loop, struct spb_post *first, struct spb_post *last)
{
    uint64_t one = 1;

    last->next = NULL;
    (void)pthread_mutex_lock(&loop->lock);
    bool wake = loop->first == NULL;
    if (wake)
        loop->first = first;
    else
        loop->last->next = first;
    loop->last = last;
    (void)pthread_mutex_unlock(&loop->lock);
    /* Fails only where the counter is full, and then the loop is awake anyway. */
    while (wake && write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

bool spb_loop_is_here(const struct spb_loop *loop)
{
    return atomic_load_explicit(&loop->has_thread, memory_order_acquire) &&
           pthread_equal(loop->thread, pthread_self());
}

void spb_loop_stop(struct spb_loop *loop)
{
    loop->stopped = true;
}

int64_t spb_loop_now_ns(struct spb_loop *loop)
{
    if (loop->now_ns == 0)
        loop->now_ns = spb_now_ns();
    return loop->now_ns;
}

void spb_loop_again(struct spb_loop *loop)
{
    loop->again = true;
}

struct event_base *spb_loop_base(struct spb_loop *loop)
{
    return loop->base;
}

/* ---- Timers ------------------------------------------------------------------------------- */

struct spb_timer {
    struct event *event;
    struct spb_loop *loop;
    void (*run)(void *user);
    void *user;
};

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    struct spb_timer *timer = user;

    (void)fd;
    (void)what;
    timer->run(timer->user);
}

spb_status spb_timer_new(struct spb_loop *loop, void (*run)(void *user), void *user,
                         struct spb_timer **out, struct spb_error *err)
{
    struct spb_timer *timer = malloc(sizeof(*timer));

    if (timer == NULL)
        return spb_fail_memory(err, "making a timer");
    *timer = (struct spb_timer){.loop = loop, .run = run, .user = user};
    timer->event = event_new(loop->base, -1, 0, on_timer, timer);
    if (timer->event == NULL) {
        free(timer);
        return spb_fail_memory(err, "making a timer");
    }
    *out = timer;
    return spb_ok();
}

void spb_timer_free(struct spb_timer *timer)
{
    if (timer == NULL)
        return;
    event_free(timer->event);
    free(timer);
}

void spb_timer_set(struct spb_timer *timer, int64_t at_ns)
{
    int64_t left_ns = at_ns - spb_loop_now_ns(timer->loop);
    /* Upwards, so that the moment has come when it fires. */
    int64_t left_us = left_ns <= 0 ? 0 : left_ns / 1000 + 1000;
    struct timeval left = {.tv_sec = left_us / 1000000, .tv_usec = left_us % 1000000};

    (void)event_add(timer->event, &left);
}

void spb_timer_stop(struct spb_timer *timer)
{
    (void)event_del(timer->event);
}
