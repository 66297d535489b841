/* The queue of an image; see actor.h. */
#include "actor.h"

#include <stdlib.h>

#include "base/status.h"
#include "commit.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "intent.h"
#include "repeat.h"

#define TURNS_MAX 16        /* before another image gets the worker */
#define GROUP_MAX 1024      /* operations a group, and changes but for the last one's */
#define GROUP_ROUNDS_MAX 12 /* flushes: more would let the first answers wait for the last ones */

const struct spb_op_kind spb_op_again = {.again = true};

static struct spb_image *image_of(struct spb_actor *actor)
{
    return SPB_CONTAINER(actor, struct spb_image, actor);
}

/* ---- The queue ---------------------------------------------------------------------------- */

static void leave_locked(struct spb_actor *actor)
{
    actor->inside = false;
    (void)pthread_cond_broadcast(&actor->left);
}

/* Moves what is queued to the worker's own list. False, and at rest, and left: there is nothing. */
static bool take(struct spb_actor *actor)
{
    (void)pthread_mutex_lock(&actor->lock);
    if (actor->first != NULL) {
        if (actor->taken == NULL)
            actor->taken = actor->first;
        else
            actor->taken_last->next = actor->first;
        actor->taken_last = actor->last;
        actor->first = NULL;
        actor->last = NULL;
    }
    bool any = actor->taken != NULL;
    if (!any) {
        actor->moving = false;
        leave_locked(actor);
    }
    (void)pthread_mutex_unlock(&actor->lock);
    return any;
}

static struct spb_call *pop(struct spb_actor *actor)
{
    struct spb_call *call = actor->taken;

    actor->taken = call->next;
    if (actor->taken == NULL)
        actor->taken_last = NULL;
    call->next = NULL;
    return call;
}

static void append(struct spb_actor *actor, struct spb_call *call)
{
    call->next = NULL;
    if (actor->first == NULL)
        actor->first = call;
    else
        actor->last->next = call;
    actor->last = call;
}

static void discount(struct spb_actor *actor, size_t n)
{
    (void)pthread_mutex_lock(&actor->lock);
    actor->count -= n;
    (void)pthread_mutex_unlock(&actor->lock);
}

static void submit(struct spb_actor *actor, enum spb_lane lane)
{
    actor->lane = lane;
    spb_pool_submit(image_of(actor)->daemon->pool, lane, &actor->task);
}

/* ---- A group ------------------------------------------------------------------------------ */

struct turn {
    struct spb_image *image;
    struct spb_group *group;
    struct spb_call *decided, *decided_last; /* to be carried out */
    struct spb_call *refused;                /* their errors are set */
    bool broken;                             /* some reply could not be made */
    size_t answered;
    struct spb_post *first, *last; /* answers to leave */
};

static void leave(struct turn *turn, struct spb_call *call)
{
    call->post.next = NULL;
    if (turn->first == NULL)
        turn->first = &call->post;
    else
        turn->last->next = &call->post;
    turn->last = &call->post;
    turn->answered++;
}

static void refuse(struct turn *turn, struct spb_call *call)
{
    call->next = turn->refused;
    turn->refused = call;
}

static void keep(struct turn *turn, struct spb_call *call)
{
    call->next = NULL;
    if (turn->decided == NULL)
        turn->decided = call;
    else
        turn->decided_last->next = call;
    turn->decided_last = call;
}

/* Whether the call is settled, one way or the other: not where it waits for the next group. */
static bool decide(struct turn *turn, struct spb_call *call, int64_t now_ns)
{
    struct spb_error err;

    call->frame = NULL;
    call->payload = NULL;
    if (spb_call_is_late(call, now_ns)) {
        refuse(turn, call);
        return true;
    }
    size_t before = spb_group_change_count(turn->group);
    spb_status status = call->kind->decide(call, turn->group, &err);
    if (spb_is_ok(status)) {
        call->first_change = (uint32_t)before;
        call->change_count = (uint32_t)(spb_group_change_count(turn->group) - before);
        call->kind->reply(call);
        turn->broken |= call->payload == NULL;
        keep(turn, call);
        return true;
    }
    if (status.code == SPB_AGAIN && !spb_group_is_empty(turn->group))
        return false;
    if (call->frame == NULL)
        spb_call_set_error(call, &err);
    refuse(turn, call);
    return true;
}

/* Decides from the front of the queue, as far as one group goes. */
static void decide_all(struct turn *turn, struct spb_actor *actor)
{
    int64_t now_ns = spb_now_ns();
    size_t n = 0;

    while (actor->taken != NULL && actor->taken->kind->decide != NULL && n < GROUP_MAX &&
           spb_group_change_count(turn->group) < GROUP_MAX) {
        struct spb_call *rest = actor->taken->next;
        struct spb_call *call = pop(actor);

        if (!decide(turn, call, now_ns)) {
            call->next = rest;
            actor->taken = call;
            if (rest == NULL)
                actor->taken_last = call;
            return;
        }
        if (spb_group_rounds(turn->group) >= GROUP_ROUNDS_MAX)
            return;
        n++;
    }
}

/* The image takes no changes: all that wait for a group are told why. */
static void refuse_all(struct turn *turn, struct spb_actor *actor, const struct spb_error *err)
{
    while (actor->taken != NULL && actor->taken->kind->decide != NULL) {
        struct spb_call *call = pop(actor);

        if (err != NULL)
            spb_call_set_error(call, err);
        else
            spb_image_set_unserved(turn->image, call);
        refuse(turn, call);
    }
}

static bool open_group(struct turn *turn, struct spb_actor *actor)
{
    struct spb_image *image = turn->image;
    struct spb_error err;

    if (spb_image_state(image) != SPB_IMAGE_READY) {
        refuse_all(turn, actor, NULL);
        return false;
    }
    if (spb_is_ok(spb_group_new(image->volume, &turn->group, &err)))
        return true;
    refuse_all(turn, actor, spb_image_note_failure(image, &err) ? NULL : &err);
    return false;
}

/* Not all that was decided can be answered: none of it is done. */
static void give_up(struct turn *turn)
{
    struct spb_call *call, *next;

    spb_group_free(turn->group);
    turn->group = NULL;
    for (call = turn->decided; call != NULL; call = next) {
        next = call->next;
        spb_call_set_fault(call, PB_REASON(INTERNAL), "no memory for an answer; nothing was done");
        refuse(turn, call);
    }
    turn->decided = NULL;
    turn->decided_last = NULL;
}

/* What each call did holds before anybody hears of it. */
static void conclude(struct turn *turn)
{
    struct spb_replay_party *parties = NULL;

    for (struct spb_call *call = turn->decided; call != NULL; call = call->next) {
        call->party.next = parties;
        parties = &call->party;
    }
    for (struct spb_call *call = turn->refused; call != NULL; call = call->next) {
        call->party.next = parties;
        parties = &call->party;
    }
    spb_repeat_conclude(turn->image->daemon, parties);
}

static void answer_all(struct turn *turn, enum spb_committed committed, const struct spb_error *err)
{
    struct spb_call *call, *next;

    for (call = turn->decided; call != NULL; call = call->next) {
        if (committed == SPB_COMMITTED) {
            if (call->kind->done != NULL)
                call->kind->done(call);
        } else {
            if (committed == SPB_COMMIT_UNSETTLED)
                spb_call_set_error(call, err);
            else
                spb_intent_set_refusal(call, err);
            if (call->kind->failed != NULL)
                call->kind->failed(call);
        }
    }
    for (call = turn->refused; call != NULL; call = call->next) {
        if (call->kind->failed != NULL)
            call->kind->failed(call);
    }
    conclude(turn);
    for (call = turn->decided; call != NULL; call = next) {
        next = call->next;
        leave(turn, call);
    }
    for (call = turn->refused; call != NULL; call = next) {
        next = call->next;
        leave(turn, call);
    }
}

static void run_group(struct spb_actor *actor)
{
    struct turn turn = {.image = image_of(actor)};
    enum spb_committed committed = SPB_COMMITTED;
    struct spb_open_group *open = NULL;
    struct spb_error err = {.code = SPB_OK};

    if (open_group(&turn, actor)) {
        decide_all(&turn, actor);
        if (turn.broken)
            give_up(&turn);
        else
            committed = spb_commit(turn.image, turn.group, turn.decided, &open, &err);
    }
    answer_all(&turn, committed, &err);
    discount(actor, turn.answered);
    /* Whoever has an answer finds the outcome in the audit: it is queued there by then. */
    spb_commit_end(open);
    if (turn.first != NULL)
        spb_loop_post(turn.image->daemon->loop, turn.first, turn.last);
}

/* ---- Other operations --------------------------------------------------------------------- */

/* What waits behind an operation that may take long can be taken back meanwhile. */
static void put_back(struct spb_actor *actor)
{
    (void)pthread_mutex_lock(&actor->lock);
    if (actor->taken != NULL) {
        actor->taken_last->next = actor->first;
        if (actor->first == NULL)
            actor->last = actor->taken_last;
        actor->first = actor->taken;
    }
    (void)pthread_mutex_unlock(&actor->lock);
    actor->taken = NULL;
    actor->taken_last = NULL;
}

static void run_alone(struct spb_actor *actor)
{
    struct spb_call *call = pop(actor);

    put_back(actor);
    if (call->kind->alone(call)) {
        discount(actor, 1);
        spb_call_send(call);
        return;
    }
    (void)pthread_mutex_lock(&actor->lock);
    append(actor, call);
    (void)pthread_mutex_unlock(&actor->lock);
}

static void run_again(struct spb_actor *actor)
{
    struct spb_call *call = pop(actor);

    discount(actor, 1);
    if (spb_call_is_late(call, spb_now_ns()))
        spb_call_send(call);
    else
        call->method->handler(call);
}

/* Which lane the next operation belongs on: what may take long never takes the last worker. */
static enum spb_lane lane_wanted(const struct spb_actor *actor)
{
    return actor->taken->kind->alone != NULL ? SPB_LANE_ALONE : SPB_LANE_COMMIT;
}

/* A worker's coming. False: who has seized it, or waits to, sees to what is queued. */
static bool enter(struct spb_actor *actor)
{
    (void)pthread_mutex_lock(&actor->lock);
    bool may = !actor->inside && actor->seizers == 0;
    if (may)
        actor->inside = true;
    else
        actor->stood_back = true;
    (void)pthread_mutex_unlock(&actor->lock);
    return may;
}

/* A worker's going while something is queued: it goes on on that lane, or after who waits. */
static void leave_for(struct spb_actor *actor, enum spb_lane lane)
{
    (void)pthread_mutex_lock(&actor->lock);
    bool stands_back = actor->seizers > 0;
    actor->stood_back = stands_back;
    leave_locked(actor);
    (void)pthread_mutex_unlock(&actor->lock);
    if (!stands_back)
        submit(actor, lane);
}

static bool is_wanted(struct spb_actor *actor)
{
    (void)pthread_mutex_lock(&actor->lock);
    bool wanted = actor->seizers > 0;
    (void)pthread_mutex_unlock(&actor->lock);
    return wanted;
}

static void run(struct spb_task *task)
{
    struct spb_actor *actor = SPB_CONTAINER(task, struct spb_actor, task);
    struct spb_image *image = image_of(actor);

    if (!enter(actor))
        return;
    for (int turns = 0; take(actor); turns++) {
        enum spb_lane lane = lane_wanted(actor);

        if (turns == TURNS_MAX || lane != actor->lane || is_wanted(actor)) {
            leave_for(actor, lane);
            return;
        }
        if (lane == SPB_LANE_ALONE)
            run_alone(actor);
        else if (actor->taken->kind->again)
            run_again(actor);
        else
            run_group(actor);
    }
    spb_image_unref(image);
}

void spb_actor_seize(struct spb_actor *actor)
{
    (void)pthread_mutex_lock(&actor->lock);
    actor->seizers++;
    while (actor->inside)
        (void)pthread_cond_wait(&actor->left, &actor->lock);
    actor->seizers--;
    actor->inside = true;
    (void)pthread_mutex_unlock(&actor->lock);
}

void spb_actor_release(struct spb_actor *actor)
{
    (void)pthread_mutex_lock(&actor->lock);
    /* The next one who seizes it sees to what is queued in turn. */
    bool go_on = actor->stood_back && actor->seizers == 0;
    if (go_on)
        actor->stood_back = false;
    leave_locked(actor);
    (void)pthread_mutex_unlock(&actor->lock);
    if (go_on)
        submit(actor, SPB_LANE_COMMIT);
}

void spb_actor_init(struct spb_actor *actor)
{
    *actor = (struct spb_actor){.task = {.run = run}};
    (void)pthread_mutex_init(&actor->lock, NULL);
    (void)pthread_cond_init(&actor->left, NULL);
}

void spb_actor_done(struct spb_actor *actor)
{
    (void)pthread_cond_destroy(&actor->left);
    (void)pthread_mutex_destroy(&actor->lock);
}

/* Keeps the image while its actor moves; the loop's turn starts what the loop has queued. */
static void set_in_motion(struct spb_actor *actor, struct spb_daemon *daemon)
{
    if (spb_loop_is_here(daemon->loop)) {
        actor->next_kick = daemon->kicks;
        daemon->kicks = actor;
    } else {
        submit(actor, SPB_LANE_COMMIT);
    }
}

void spb_actor_queue(struct spb_call *call, const struct spb_op_kind *kind)
{
    struct spb_actor *actor = &call->image->actor;
    struct spb_daemon *daemon = call->daemon;
    uint64_t max = SPB_LIMIT(daemon, image_queue_max);

    call->kind = kind;
    (void)pthread_mutex_lock(&actor->lock);
    bool full = actor->count >= max;
    bool start = !full && !actor->moving;
    if (!full) {
        append(actor, call);
        actor->count++;
    }
    if (start) {
        actor->moving = true;
        spb_image_ref(image_of(actor));
    }
    (void)pthread_mutex_unlock(&actor->lock);
    if (start)
        set_in_motion(actor, daemon);
    if (!full)
        return;
    spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                       "image %s has %llu operations queued, at most so many are taken",
                       call->image_text, (unsigned long long)max);
    if (kind->failed != NULL)
        kind->failed(call);
    spb_call_send(call);
}

size_t spb_actor_depth(struct spb_actor *actor)
{
    (void)pthread_mutex_lock(&actor->lock);
    size_t count = actor->count;
    (void)pthread_mutex_unlock(&actor->lock);
    return count;
}

bool spb_actor_take_back(struct spb_call *call)
{
    struct spb_actor *actor = &call->image->actor;
    struct spb_call **place, *before = NULL;

    (void)pthread_mutex_lock(&actor->lock);
    for (place = &actor->first; *place != NULL && *place != call; place = &(*place)->next)
        before = *place;
    bool found = *place != NULL;
    if (found) {
        *place = call->next;
        if (actor->last == call)
            actor->last = before;
        actor->count--;
    }
    (void)pthread_mutex_unlock(&actor->lock);
    return found;
}

void spb_actor_kick(struct spb_daemon *daemon)
{
    while (daemon->kicks != NULL) {
        struct spb_actor *actor = daemon->kicks;

        daemon->kicks = actor->next_kick;
        submit(actor, SPB_LANE_COMMIT);
    }
}
