/*
 * The event loop. One thread owns it and all connections. Others hand it work with spb_loop_post,
 * a queue with one wake-up: event objects themselves are touched by the loop's thread alone, so
 * they need no locks.
 *
 * A turn: wait for events, run what they call, run what was posted, run the turn hook. What a turn
 * gathered (operations, replies) is handed on once, by that hook.
 */
#ifndef SPB_SERVER_LOOP_H
#define SPB_SERVER_LOOP_H

#include <stdint.h>

#include "spaceblock/status.h"

struct event_base;
struct spb_loop;

struct spb_post {
    struct spb_post *next;
    void (*run)(struct spb_post *post); /* on the loop's thread; may free the post */
};

struct spb_loop_hooks {
    void (*turn)(void *user); /* at the end of every turn */
    void (*tick)(void *user); /* every SPB_LOOP_TICK_MS */
    void *user;
};

#define SPB_LOOP_TICK_MS 250

/* hooks are copied. */
SPB_MUST_USE spb_status spb_loop_new(const struct spb_loop_hooks *hooks, struct spb_loop **loop,
                                     struct spb_error *err);
/* Runs what is still posted first. Accepts NULL. */
void spb_loop_free(struct spb_loop *loop);

/* Until spb_loop_stop. The calling thread is the loop's from here on. */
void spb_loop_run(struct spb_loop *loop);

/* Any thread. */
void spb_loop_post(struct spb_loop *loop, struct spb_post *first, struct spb_post *last);
bool spb_loop_is_here(const struct spb_loop *loop);

/* The loop's thread. */
void spb_loop_stop(struct spb_loop *loop);
/* CLOCK_MONOTONIC, read once a turn. */
int64_t spb_loop_now_ns(struct spb_loop *loop);
/* The next turn does not wait. */
void spb_loop_again(struct spb_loop *loop);
/* Runs what is posted now; for the time after spb_loop_run. False: there was nothing. */
bool spb_loop_settle(struct spb_loop *loop);
struct event_base *spb_loop_base(struct spb_loop *loop);

/*
 * A moment at which something is to run, to a few milliseconds; what can wait for a tick needs
 * none. The loop's thread, but for new and free, which may come before and after it.
 */
struct spb_timer;
/* run(user) is called on the loop's thread, once for each time that it was set. */
SPB_MUST_USE spb_status spb_timer_new(struct spb_loop *loop, void (*run)(void *user), void *user,
                                      struct spb_timer **timer, struct spb_error *err);
/* Accepts NULL. */
void spb_timer_free(struct spb_timer *timer);
/* In the place of an earlier setting. A moment that has passed: the next turn. */
void spb_timer_set(struct spb_timer *timer, int64_t at_ns);
void spb_timer_stop(struct spb_timer *timer);

#endif
