/* Worker threads in lanes; see pool.h. */
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/status.h"
#include "util.h"

#define WORKERS_MIN 12
#define WORKERS_MAX 32
/* Of the workers in front, in tenths. The background has as many as its lanes may take. */
#define BULK_SHARE 4u
#define ALONE_SHARE 3u
#define LOOK_SHARE 2u
#define BACKGROUND_MAX (WORKERS_MAX * (BULK_SHARE + ALONE_SHARE) / 10)
#define BACKGROUND_NICE 5 /* enough to let the others go first, and not to starve beside guests */

enum crew { CREW_FRONT, CREW_BACKGROUND, CREW_COUNT };

static const enum crew crew_of[SPB_LANE_COUNT] = {
    [SPB_LANE_COMMIT] = CREW_FRONT,
    [SPB_LANE_LOOK] = CREW_FRONT,
    [SPB_LANE_BULK] = CREW_BACKGROUND,
    [SPB_LANE_ALONE] = CREW_BACKGROUND,
};

struct queue {
    struct spb_task *first, *last;
};

struct worker {
    struct spb_pool *pool;
    enum crew crew;
    struct worker *next_idle;
    bool is_idle;
    pthread_cond_t wake;
    pthread_t thread;
};

struct spb_pool {
    pthread_mutex_t lock; /* over all below */
    struct queue lanes[SPB_LANE_COUNT];
    unsigned running[SPB_LANE_COUNT], most[SPB_LANE_COUNT];
    /* Who began to wait last is woken first: its caches are warm. */
    struct worker *idle[CREW_COUNT];
    bool ending;
    size_t count;
    struct worker workers[WORKERS_MAX + BACKGROUND_MAX];
};

static void push(struct queue *queue, struct spb_task *task)
{
    task->next = NULL;
    if (queue->last == NULL)
        queue->first = task;
    else
        queue->last->next = task;
    queue->last = task;
}

static struct spb_task *pop(struct queue *queue)
{
    struct spb_task *task = queue->first;

    if (task == NULL)
        return NULL;
    queue->first = task->next;
    if (queue->first == NULL)
        queue->last = NULL;
    return task;
}

/* Has the lane a task that may run now? */
static bool is_ready(const struct spb_pool *pool, unsigned lane)
{
    return pool->lanes[lane].first != NULL && pool->running[lane] < pool->most[lane];
}

/* The crew's next task that may run now; commits go first. */
static struct spb_task *take(struct spb_pool *pool, enum crew crew, unsigned *lane)
{
    for (unsigned i = 0; i < SPB_LANE_COUNT; i++) {
        if (crew_of[i] == crew && is_ready(pool, i)) {
            *lane = i;
            return pop(&pool->lanes[i]);
        }
    }
    return NULL;
}

/* Nothing waits, and nothing runs that might submit more. */
static bool is_drained(const struct spb_pool *pool)
{
    for (unsigned i = 0; i < SPB_LANE_COUNT; i++) {
        if (pool->lanes[i].first != NULL || pool->running[i] > 0)
            return false;
    }
    return true;
}

/* Under lock. A worker that waits, to be woken; NULL: all of the crew are at work. */
static struct worker *take_idle(struct spb_pool *pool, enum crew crew)
{
    struct worker *worker = pool->idle[crew];

    if (worker != NULL) {
        pool->idle[crew] = worker->next_idle;
        worker->is_idle = false;
    }
    return worker;
}

/* Best without the lock, which the other one would have to wait for. Accepts NULL. */
static void wake(struct worker *worker)
{
    if (worker != NULL)
        (void)pthread_cond_signal(&worker->wake);
}

/* Under lock, which it lets go of meanwhile. */
static void wait_idle(struct spb_pool *pool, struct worker *worker)
{
    worker->is_idle = true;
    worker->next_idle = pool->idle[worker->crew];
    pool->idle[worker->crew] = worker;
    while (worker->is_idle)
        (void)pthread_cond_wait(&worker->wake, &pool->lock);
}

/* Under lock. */
static void wake_all(struct spb_pool *pool)
{
    for (unsigned crew = 0; crew < CREW_COUNT; crew++) {
        while (pool->idle[crew] != NULL)
            wake(take_idle(pool, crew));
    }
}

static void run_one(struct spb_pool *pool, struct spb_task *task, unsigned lane)
{
    pool->running[lane]++;
    (void)pthread_mutex_unlock(&pool->lock);
    task->run(task);
    (void)pthread_mutex_lock(&pool->lock);
    pool->running[lane]--;
    /* This worker may turn to another lane: one that waits can take this lane's next task. */
    if (is_ready(pool, lane))
        wake(take_idle(pool, crew_of[lane]));
}

static void *work(void *user)
{
    struct worker *worker = user;
    struct spb_pool *pool = worker->pool;

    /* Of this thread alone. What gave the process less may not refuse it. */
    if (worker->crew == CREW_BACKGROUND)
        (void)!nice(BACKGROUND_NICE);
    (void)pthread_mutex_lock(&pool->lock);
    for (;;) {
        unsigned lane = 0;
        struct spb_task *task = take(pool, worker->crew, &lane);

        if (task != NULL) {
            run_one(pool, task, lane);
            continue;
        }
        if (pool->ending && is_drained(pool))
            break;
        wait_idle(pool, worker);
    }
    wake_all(pool); /* the others wait for tasks too; none is left */
    (void)pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static unsigned workers_wanted(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long wanted = processors * 2;

    if (wanted < WORKERS_MIN)
        wanted = WORKERS_MIN;
    return (unsigned)(wanted > WORKERS_MAX ? WORKERS_MAX : wanted);
}

/* Signals are the main thread's: workers are started with all of them blocked. */
static int start_workers(struct spb_pool *pool, enum crew crew, size_t wanted)
{
    sigset_t all, before;
    int number = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t last = pool->count + wanted; pool->count < last && number == 0;) {
        struct worker *worker = &pool->workers[pool->count];

        worker->pool = pool;
        worker->crew = crew;
        (void)pthread_cond_init(&worker->wake, NULL);
        number = pthread_create(&worker->thread, NULL, work, worker);
        if (number == 0)
            pool->count++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return number;
}

spb_status spb_pool_new(struct spb_pool **out, struct spb_error *err)
{
    struct spb_pool *pool = calloc(1, sizeof(*pool));
    unsigned wanted = workers_wanted();

    if (pool == NULL)
        return spb_fail_memory(err, "starting the workers");
    (void)pthread_mutex_init(&pool->lock, NULL);
    pool->most[SPB_LANE_COMMIT] = wanted;
    pool->most[SPB_LANE_LOOK] = wanted * LOOK_SHARE / 10;
    pool->most[SPB_LANE_BULK] = wanted * BULK_SHARE / 10;
    pool->most[SPB_LANE_ALONE] = wanted * ALONE_SHARE / 10;
    unsigned background = pool->most[SPB_LANE_BULK] + pool->most[SPB_LANE_ALONE];
    int number = start_workers(pool, CREW_FRONT, wanted);
    if (number == 0)
        number = start_workers(pool, CREW_BACKGROUND, background);
    if (number != 0) {
        spb_pool_free(pool);
        return spb_fail_errno(err, SPB_NO_MEMORY, number, "starting %u worker threads",
                              wanted + background);
    }
    *out = pool;
    return spb_ok();
}

void spb_pool_free(struct spb_pool *pool)
{
    if (pool == NULL)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    wake_all(pool);
    (void)pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->count; i++) {
        (void)pthread_join(pool->workers[i].thread, NULL);
        (void)pthread_cond_destroy(&pool->workers[i].wake);
    }
    (void)pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void spb_pool_submit(struct spb_pool *pool, enum spb_lane lane, struct spb_task *task)
{
    (void)pthread_mutex_lock(&pool->lock);
    push(&pool->lanes[lane], task);
    struct worker *worker = take_idle(pool, crew_of[lane]);
    (void)pthread_mutex_unlock(&pool->lock);
    wake(worker);
}

/* ---- Strands ------------------------------------------------------------------------------ */

#define STRAND_TURN 8 /* tasks before others get the worker */

struct spb_strand {
    struct spb_task task;
    struct spb_pool *pool;
    pthread_mutex_t lock; /* over queue and moving */
    struct queue queue;
    bool moving;
    void (*idle)(void *user);
    void *user;
};

static void run_strand(struct spb_task *task)
{
    struct spb_strand *strand = SPB_CONTAINER(task, struct spb_strand, task);

    for (int i = 0; i < STRAND_TURN; i++) {
        (void)pthread_mutex_lock(&strand->lock);
        struct spb_task *next = pop(&strand->queue);
        if (next == NULL)
            strand->moving = false;
        void (*idle)(void *user) = strand->idle;
        void *user = strand->user;
        (void)pthread_mutex_unlock(&strand->lock);
        if (next == NULL) {
            idle(user);
            return;
        }
        next->run(next);
    }
    spb_pool_submit(strand->pool, SPB_LANE_BULK, &strand->task);
}

spb_status spb_strand_new(struct spb_pool *pool, void (*idle)(void *user), void *user,
                          struct spb_strand **out, struct spb_error *err)
{
    struct spb_strand *strand = calloc(1, sizeof(*strand));

    if (strand == NULL)
        return spb_fail_memory(err, "making a strand of tasks");
    (void)pthread_mutex_init(&strand->lock, NULL);
    strand->task.run = run_strand;
    strand->pool = pool;
    strand->idle = idle;
    strand->user = user;
    *out = strand;
    return spb_ok();
}

void spb_strand_free(struct spb_strand *strand)
{
    if (strand == NULL)
        return;
    SPB_ASSERT(!strand->moving);
    (void)pthread_mutex_destroy(&strand->lock);
    free(strand);
}

bool spb_strand_submit(struct spb_strand *strand, struct spb_task *task)
{
    (void)pthread_mutex_lock(&strand->lock);
    bool start = !strand->moving;

    push(&strand->queue, task);
    strand->moving = true;
    (void)pthread_mutex_unlock(&strand->lock);
    if (start)
        spb_pool_submit(strand->pool, SPB_LANE_BULK, &strand->task);
    return start;
}
