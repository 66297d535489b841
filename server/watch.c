/*
 * Watches; see watch.h.
 *
 * No event is missed between looking and waiting: a watch counts as waiting before it reads the
 * pointer, under the volume's lock, and a commit moves the pointer under that lock before it reads
 * the counter. So either the watch sees the event, or the commit sees the watch.
 */
#include "watch.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "metrics.h"
#include "waits.h"

#define BUCKETS 1024u
#define CHUNK_MAX 256u      /* events a pass */
#define CHUNK_MIN 16u       /* where there are many filters */
#define TESTS_A_PASS 65536u /* events times filters */
#define ANSWERS_A_TURN 512u
#define PLACES_BEHIND 4u /* of so many parts of the live events, one may pass before it is told */
#define READ_TRIES 8
#define ANSWER_FIELDS_MAX 64u /* all but the events */

/* A call that watches, in its own arena. */
struct watch {
    struct spb_waiter wait;
    struct spb_post post; /* back from a worker */
    struct spb_call *call;
    struct spb_watch_group *group; /* NULL: it does not wait */
    struct watch *prev, *next;     /* in the group */
    struct spb_watch_spec spec;
    struct spb_cursor at;
    uint32_t known; /* the place that its caller knows, or has nothing to lose by not knowing */
    uint64_t skipped;
    bool placed; /* at, and what is to be told about it, are found */
    bool reset;
    bool ended; /* the life that it looked at is over */
    int64_t until_ns;
    uint16_t codes[]; /* the filter's */
};

/* Watches of one image that ask for the same. In the order in which they came, so that what they
 * have looked at beyond the point's place never falls from one to the next. */
struct spb_watch_group {
    struct spb_image *image;
    struct spb_watch_group *next_in_bucket;
    struct spb_watch_group *prev, *next; /* of the image */
    struct watch *first, *last;
    uint64_t hash;
    uint32_t limit;
    struct spb_event_filter filter;
    uint16_t codes[];
};

struct spb_watches {
    struct spb_daemon *daemon;
    struct spb_watch_group *buckets[BUCKETS];
    uint64_t seed;
    /* Of the pass, or the look, that runs. */
    struct spb_event events[CHUNK_MAX];
    PB_Event shown[CHUNK_MAX];
    PB_Event *picked[CHUNK_MAX];
    uint8_t packed[CHUNK_MAX * SPB_EVENT_SHOWN_MAX + ANSWER_FIELDS_MAX];
};

static struct watch *watch_of(struct spb_call *call)
{
    return call->state;
}

/* ---- Answers ------------------------------------------------------------------------------ */

/* What one says beside its events. */
struct saying {
    struct spb_cursor cursor;
    uint64_t skipped;
    bool reset;
    uint32_t pointer;
};

static void say(PB_WatchEventsResponse *reply, const struct saying *saying,
                uint8_t cursor[SPB_CURSOR_SIZE])
{
    spb_cursor_encode(&saying->cursor, cursor);
    reply->cursor = spb_pb_bytes(cursor, SPB_CURSOR_SIZE);
    reply->skipped = saying->skipped;
    reply->reset = saying->reset;
    reply->pointer = saying->pointer;
}

/* Encodes the events that were picked; returns the size. */
static size_t encode(struct spb_watches *watches, size_t count, const struct saying *saying)
{
    PB_WatchEventsResponse reply = SPACEBLOCK__V1__WATCH_EVENTS_RESPONSE__INIT;
    uint8_t cursor[SPB_CURSOR_SIZE];

    say(&reply, saying, cursor);
    reply.n_events = count;
    reply.events = watches->picked;
    SPB_ASSERT(protobuf_c_message_get_packed_size(&reply.base) <= sizeof(watches->packed));
    return protobuf_c_message_pack(&reply.base, watches->packed);
}

/* Without events: what it has is a place. */
static void answer_empty(const struct watch *watch, uint32_t pointer)
{
    PB_WatchEventsResponse reply = SPACEBLOCK__V1__WATCH_EVENTS_RESPONSE__INIT;
    struct saying saying = {.cursor = watch->at, .skipped = watch->skipped, .reset = watch->reset};
    uint8_t cursor[SPB_CURSOR_SIZE];

    saying.pointer = pointer;
    say(&reply, &saying, cursor);
    spb_call_reply(watch->call, &reply.base);
}

/* ---- Groups ------------------------------------------------------------------------------- */

static struct spb_watch_group **bucket_of(struct spb_watches *watches, uint64_t hash)
{
    return &watches->buckets[hash % BUCKETS];
}

static struct spb_watch_group *find_group(struct spb_watches *watches, struct spb_image *image,
                                          const struct spb_watch_spec *spec, uint64_t hash)
{
    struct spb_watch_group *group = *bucket_of(watches, hash);

    while (group != NULL &&
           (group->hash != hash || group->image != image || group->limit != spec->limit ||
            !spb_event_filter_is(&group->filter, &spec->filter)))
        group = group->next_in_bucket;
    return group;
}

static struct spb_watch_group *make_group(struct spb_watches *watches, struct spb_image *image,
                                          const struct spb_watch_spec *spec, uint64_t hash)
{
    size_t codes_size = spec->filter.code_count * sizeof(uint16_t);
    struct spb_watch_group *group = calloc(1, sizeof(*group) + codes_size);
    struct spb_watch_group **bucket = bucket_of(watches, hash);

    if (group == NULL)
        return NULL;
    group->image = image;
    group->hash = hash;
    group->limit = spec->limit;
    group->filter = spec->filter;
    group->filter.codes = group->codes;
    if (codes_size > 0)
        memcpy(group->codes, spec->filter.codes, codes_size);
    group->next_in_bucket = *bucket;
    *bucket = group;
    group->next = image->watch.groups;
    if (group->next != NULL)
        group->next->prev = group;
    image->watch.groups = group;
    image->watch.group_count++;
    return group;
}

static void free_group(struct spb_watches *watches, struct spb_watch_group *group)
{
    struct spb_watch_group **link = bucket_of(watches, group->hash);

    while (*link != group)
        link = &(*link)->next_in_bucket;
    *link = group->next_in_bucket;
    if (group->prev != NULL)
        group->prev->next = group->next;
    else
        group->image->watch.groups = group->next;
    if (group->next != NULL)
        group->next->prev = group->prev;
    group->image->watch.group_count--;
    free(group);
}

/* Out of its group, which goes with its last one, but not out of the waits. */
static void leave_group(struct watch *watch)
{
    struct spb_watches *watches = watch->call->daemon->watches;
    struct spb_watch_group *group = watch->group;
    struct spb_watch_point *point = &group->image->watch;

    if (watch->prev != NULL)
        watch->prev->next = watch->next;
    else
        group->first = watch->next;
    if (watch->next != NULL)
        watch->next->prev = watch->prev;
    else
        group->last = watch->prev;
    watch->group = NULL;
    /* All that come before the point's place were looked at for it too. */
    if (watch->at.next < point->seen)
        watch->at.next = point->seen;
    point->count--;
    (void)atomic_fetch_sub(&point->waiting, 1);
    spb_metrics_add(watch->call->daemon->metrics, SPB_GAUGE_WATCHERS, -1);
    if (group->first == NULL)
        free_group(watches, group);
}

static void stop_waiting(struct watch *watch)
{
    spb_waits_remove(watch->call->daemon->waits, &watch->wait);
    leave_group(watch);
}

/* ---- Waiting ------------------------------------------------------------------------------ */

/* Its time has passed, its connection has ended, or the daemon drains. */
static void end_wait(struct spb_waiter *wait)
{
    struct watch *watch = SPB_CONTAINER(wait, struct watch, wait);
    uint32_t pointer = watch->call->image->watch.pointer;

    leave_group(watch);
    answer_empty(watch, pointer);
}

/* The image's life is over for all that wait. */
static void end_all(struct spb_image *image, bool is_served)
{
    struct spb_watch_point *point = &image->watch;

    while (point->groups != NULL) {
        struct watch *watch = point->groups->first;

        stop_waiting(watch);
        if (is_served) {
            answer_empty(watch, point->pointer);
        } else {
            spb_image_set_unserved(image, watch->call);
            spb_call_send(watch->call);
        }
    }
}

/* Joins those that wait; or says why it cannot. */
static bool enlist(struct watch *watch, uint32_t pointer)
{
    struct spb_call *call = watch->call;
    struct spb_watches *watches = call->daemon->watches;
    struct spb_watch_point *point = &call->image->watch;

    if (point->count > 0 && !spb_event_life_is(&point->life, &watch->at.life))
        end_all(call->image, true);
    /* One image leaves half of the room to others. */
    if (point->count >= (SPB_LIMIT(call->daemon, watchers_max) + 1) / 2) {
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "%zu watches wait on image %s, no more may: try again later",
                           point->count, call->image_text);
        return false;
    }
    uint64_t hash = spb_event_filter_hash(
        &watch->spec.filter, watches->seed ^ (uintptr_t)call->image ^ watch->spec.limit);
    struct spb_watch_group *group = find_group(watches, call->image, &watch->spec, hash);
    watch->wait = (struct spb_waiter){.call = call, .until_ns = watch->until_ns, .end = end_wait};
    if (!spb_waits_add(call->daemon->waits, &watch->wait))
        return false;
    if (group == NULL)
        group = make_group(watches, call->image, &watch->spec, hash);
    if (group == NULL) {
        spb_waits_remove(call->daemon->waits, &watch->wait);
        spb_call_set_fault(call, PB_REASON(INTERNAL), "no memory for a watch that waits");
        return false;
    }
    if (point->count++ == 0) {
        point->life = watch->at.life;
        point->seen = watch->at.next;
    }
    point->pointer = pointer;
    if (!watch->spec.has_cursor)
        watch->known = watch->at.next;
    watch->group = group;
    watch->prev = group->last;
    watch->next = NULL;
    if (group->last != NULL)
        group->last->next = watch;
    else
        group->first = watch;
    group->last = watch;
    spb_metrics_add(call->daemon->metrics, SPB_GAUGE_WATCHERS, 1);
    return true;
}

/* ---- Looking ------------------------------------------------------------------------------ */

/* The life of the image's events, and where they begin and end. The volume is to be had. */
struct view {
    const struct spb_volume *volume;
    struct spb_event_life life;
    uint32_t oldest, pointer;
    uint32_t far; /* a caller whose place is so much behind is told a newer one */
};

/* Under the image's lock. */
static void view_locked(const struct spb_image *image, struct view *view)
{
    view->volume = image->volume;
    memcpy(view->life.uuid, image->superblock.uuid, sizeof(view->life.uuid));
    memcpy(view->life.incarnation, image->incarnation, sizeof(view->life.incarnation));
}

static void read_ends(struct view *view)
{
    uint32_t window = spb_event_window(view->volume);

    view->pointer = spb_event_pointer(view->volume);
    view->oldest = view->pointer > window ? view->pointer - window : 0;
    view->far = window / PLACES_BEHIND > 0 ? window / PLACES_BEHIND : 1;
}

/* Finds its place at the first look; at later ones, whether that is still one. */
static void take_place(struct watch *watch, const struct view *view)
{
    if (watch->placed) {
        watch->ended =
            !spb_event_life_is(&watch->at.life, &view->life) || watch->at.next > view->pointer;
        return;
    }
    struct spb_cursor_place place = {.next = view->pointer};
    if (watch->spec.has_cursor)
        place = spb_cursor_locate(&watch->spec.cursor, &view->life, view->oldest, view->pointer);
    else if (watch->spec.from_oldest)
        place.next = view->oldest;
    watch->placed = true;
    watch->at = (struct spb_cursor){.life = view->life, .next = place.next};
    watch->known = place.next;
    watch->skipped = place.skipped;
    watch->reset = place.reset;
}

static void scan(struct watch *watch, const struct view *view, struct spb_event_scan *found)
{
    found->volume = view->volume;
    found->filter = &watch->spec.filter;
    found->bytes_max = SPB_WATCH_ANSWER_MAX;
    found->next = watch->at.next;
    if (!watch->ended)
        spb_event_scan_onward(found);
    watch->at.next = found->next;
    watch->skipped += found->skipped;
}

/*
 * Whether the caller's own cursor is so far behind that it is to have a newer one: else it might be
 * lapped by events that were looked at, and the caller would be told of a loss that there was not.
 */
static bool is_far(const struct watch *watch, uint32_t next, uint32_t far)
{
    return next > watch->known && next - watch->known >= far;
}

/* Whether it answers now, with what was found. Without a cursor there is none to be lapped yet. */
static bool has_answer(const struct watch *watch, const struct spb_event_scan *found,
                       const struct view *view)
{
    return found->count > 0 || watch->skipped > 0 || watch->reset || watch->ended ||
           (watch->spec.has_cursor && is_far(watch, watch->at.next, view->far));
}

static void look_again(struct spb_post *post)
{
    struct spb_call *call = SPB_CONTAINER(post, struct watch, post)->call;

    if (!spb_call_refuse_at_end(call))
        spb_watch_go_on(call);
}

/* In the call's own arena: it is not to wait any more. */
static void reply_found(struct watch *watch, const struct spb_event_scan *found, uint32_t pointer)
{
    struct spb_call *call = watch->call;
    PB_WatchEventsResponse reply = SPACEBLOCK__V1__WATCH_EVENTS_RESPONSE__INIT;
    struct saying saying = {.cursor = watch->at, .skipped = watch->skipped, .reset = watch->reset};
    PB_Event *shown = spb_call_alloc(call, found->count * sizeof(*shown));
    uint8_t cursor[SPB_CURSOR_SIZE];

    saying.pointer = pointer;
    reply.events = spb_call_alloc(call, found->count * sizeof(PB_Event *));
    if (shown != NULL && reply.events != NULL) {
        for (size_t i = 0; i < found->count; i++) {
            spb_event_show(&found->events[i], &shown[i]);
            reply.events[i] = &shown[i];
        }
        reply.n_events = found->count;
        say(&reply, &saying, cursor);
        spb_call_set_reply(call, &reply.base);
    }
    spb_call_send(call);
}

/* On a worker: as far as it goes. Where nothing is found it goes back to the loop, to wait. */
static void look_from_worker(struct spb_call *call)
{
    struct watch *watch = watch_of(call);
    struct spb_event_scan found = {.limit = watch->spec.limit};
    struct view view;

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_call_send(call);
        return;
    }
    if (spb_image_hold_for(call) == NULL)
        return;
    (void)pthread_mutex_lock(&call->image->lock);
    view_locked(call->image, &view);
    (void)pthread_mutex_unlock(&call->image->lock);
    read_ends(&view);
    take_place(watch, &view);
    uint32_t left = watch->ended ? 0 : view.pointer - watch->at.next;
    if (found.limit > left)
        found.limit = left;
    found.events = malloc((found.limit + 1) * sizeof(struct spb_event));
    if (found.events != NULL)
        scan(watch, &view, &found);
    spb_image_unhold(call->image);
    if (found.events == NULL) {
        spb_call_set_fault(call, PB_REASON(INTERNAL), "no memory for looking through events");
        spb_call_send(call);
    } else if (has_answer(watch, &found, &view)) {
        reply_found(watch, &found, view.pointer);
    } else {
        watch->post = (struct spb_post){.run = look_again};
        spb_loop_post(call->daemon->loop, &watch->post, &watch->post);
    }
    free(found.events);
}

static void look_on_worker(struct spb_task *task)
{
    look_from_worker(spb_call_of_task(task));
}

/* A few events, on the loop's thread: answers, waits, or leaves it to a worker. */
static void look_from_loop(struct spb_call *call)
{
    struct spb_watches *watches = call->daemon->watches;
    struct spb_watch_point *point = &call->image->watch;
    struct watch *watch = watch_of(call);
    struct spb_event_scan found = {.events = watches->events, .limit = watch->spec.limit};
    struct view view;

    (void)atomic_fetch_add(&point->waiting, 1);
    if (spb_image_read_begin(call) == NULL) {
        (void)atomic_fetch_sub(&point->waiting, 1);
        return;
    }
    view_locked(call->image, &view);
    read_ends(&view);
    take_place(watch, &view);
    bool far = !watch->ended && view.pointer - watch->at.next > SPB_EVENT_SCAN_INLINE;
    if (found.limit > CHUNK_MAX)
        found.limit = CHUNK_MAX;
    if (!far)
        scan(watch, &view, &found);
    spb_image_read_end(call->image);
    if (!far && !has_answer(watch, &found, &view) && spb_wait_may_begin(call, watch->until_ns)) {
        if (enlist(watch, view.pointer))
            return;
        (void)atomic_fetch_sub(&point->waiting, 1);
        spb_call_send(call);
        return;
    }
    (void)atomic_fetch_sub(&point->waiting, 1);
    if (far)
        spb_call_to_workers(call, look_on_worker);
    else
        reply_found(watch, &found, view.pointer);
}

void spb_watch_go_on(struct spb_call *call)
{
    if (spb_loop_is_here(call->daemon->loop))
        look_from_loop(call);
    else
        look_from_worker(call);
}

void spb_watch_begin(struct spb_call *call, const struct spb_watch_spec *spec)
{
    uint16_t codes[SPB_WATCH_FILTER_MAX];
    struct spb_watch_spec kept = *spec;
    size_t codes_size = spec->filter.code_count * sizeof(codes[0]);

    SPB_ASSERT(spec->filter.code_count <= SPB_WATCH_FILTER_MAX);
    if (codes_size > 0)
        memcpy(codes, spec->filter.codes, codes_size);
    spb_call_forget_request(call);
    struct watch *watch = spb_call_alloc(call, sizeof(*watch) + codes_size);
    if (watch == NULL) {
        spb_call_send(call);
        return;
    }
    *watch = (struct watch){.call = call, .spec = kept};
    if (codes_size > 0)
        memcpy(watch->codes, codes, codes_size);
    watch->spec.filter.codes = watch->codes;
    watch->until_ns = spb_wait_until(call, kept.wait_ms);
    call->state = watch;
    spb_watch_go_on(call);
}

/* ---- Passes ------------------------------------------------------------------------------- */

/* Events [from, to) of the image, read once for all. */
struct chunk {
    struct spb_event_life life;
    uint32_t from, to, pointer, far;
    size_t answers; /* of this turn */
};

static uint32_t chunk_size(const struct spb_watch_point *point)
{
    size_t size = TESTS_A_PASS / (point->group_count + 1);

    return size > CHUNK_MAX ? CHUNK_MAX : size < CHUNK_MIN ? CHUNK_MIN : (uint32_t)size;
}

/*
 * Reads what comes after the point's place, or after what was overwritten meanwhile. The ring may
 * turn on while it is read: then from the new oldest on, a few times; it is many times as long as
 * what is read. False: the life is another, or there is none.
 */
static bool read_chunk(struct spb_watches *watches, struct spb_watch_point *point,
                       const struct view *view, struct chunk *chunk)
{
    *chunk = (struct chunk){.life = view->life, .pointer = view->pointer, .far = view->far};
    if (!spb_event_life_is(&view->life, &point->life) || view->pointer < point->seen)
        return false;
    chunk->from = view->oldest > point->seen ? view->oldest : point->seen;
    for (int tries = 0; tries < READ_TRIES; tries++) {
        uint32_t left = view->pointer - chunk->from, size = chunk_size(point);
        uint32_t i = 0;

        chunk->to = chunk->from + (left < size ? left : size);
        while (chunk->from + i < chunk->to &&
               spb_is_ok(spb_event_read(view->volume, chunk->from + i, &watches->events[i], NULL)))
            i++;
        if (chunk->from + i == chunk->to)
            return true;
        chunk->from = spb_event_oldest(view->volume);
        if (chunk->from > view->pointer)
            break;
    }
    chunk->from = point->seen;
    chunk->to = point->seen;
    return true;
}

static void show_chunk(struct spb_watches *watches, const struct chunk *chunk)
{
    for (uint32_t i = 0; i < chunk->to - chunk->from; i++)
        spb_event_show(&watches->events[i], &watches->shown[i]);
}

/* Picks what passes from an index on; *next gets where the answer's cursor stands. */
static size_t pick(struct spb_watches *watches, const struct spb_watch_group *group,
                   const struct chunk *chunk, uint32_t begin, uint32_t *next)
{
    size_t count = 0;
    uint32_t i = begin;

    for (; i < chunk->to && count < group->limit; i++) {
        if (spb_event_filter_passes(&group->filter, &watches->events[i - chunk->from]))
            watches->picked[count++] = &watches->shown[i - chunk->from];
    }
    *next = i;
    return count;
}

/* What the ones before in the group got, for who stands at the same place. */
struct shared {
    bool set, any;
    uint32_t place; /* where it was made for */
    uint32_t next;  /* where its cursor stands */
    size_t size;    /* 0: not encoded; without events nobody may want it */
};

static void encode_shared(struct spb_watches *watches, const struct chunk *chunk, size_t count,
                          uint64_t skipped, struct shared *shared)
{
    struct saying saying = {.cursor = {.life = chunk->life, .next = shared->next},
                            .skipped = skipped,
                            .pointer = chunk->pointer};

    shared->size = encode(watches, count, &saying);
    spb_metrics_count(watches->daemon->metrics, SPB_COUNT_WATCH_ENCODINGS, 1);
}

static void make_shared(struct spb_watches *watches, const struct spb_watch_group *group,
                        const struct chunk *chunk, uint32_t place, struct shared *shared)
{
    uint32_t begin = place < chunk->from ? chunk->from : place;

    *shared = (struct shared){.set = true, .place = place};
    size_t count = pick(watches, group, chunk, begin, &shared->next);
    shared->any = count > 0 || begin > place;
    if (shared->any)
        encode_shared(watches, chunk, count, begin - place, shared);
}

/* Answers whom the chunk concerns. False: the turn's share is used up. */
static bool serve_group(struct spb_watches *watches, struct spb_watch_group *group,
                        struct chunk *chunk)
{
    uint32_t seen = group->image->watch.seen;
    struct shared shared = {.set = false};
    struct watch *watch = group->first, *next;

    for (; watch != NULL; watch = next) {
        uint32_t place = watch->at.next > seen ? watch->at.next : seen;

        next = watch->next; /* the group goes with its last watch */
        if (!shared.set || shared.place != place)
            make_shared(watches, group, chunk, place, &shared);
        if (!shared.any && !is_far(watch, shared.next, chunk->far))
            continue;
        if (chunk->answers == ANSWERS_A_TURN)
            return false;
        if (shared.size == 0)
            encode_shared(watches, chunk, 0, 0, &shared);
        chunk->answers++;
        stop_waiting(watch);
        spb_call_set_packed_reply(watch->call, watches->packed, shared.size);
        spb_call_send(watch->call);
    }
    return true;
}

static void post(struct spb_image *image)
{
    struct spb_watch_point *point = &image->watch;

    if (atomic_exchange(&point->posted, true))
        return;
    spb_image_ref(image);
    spb_loop_post(image->daemon->loop, &point->post, &point->post);
}

static void serve(struct spb_image *image, struct chunk *chunk)
{
    struct spb_watches *watches = image->daemon->watches;
    struct spb_watch_point *point = &image->watch;
    struct spb_watch_group *group = point->groups, *next;

    show_chunk(watches, chunk);
    for (; group != NULL; group = next) {
        next = group->next;
        if (!serve_group(watches, group, chunk))
            break;
    }
    spb_metrics_count(watches->daemon->metrics, SPB_COUNT_WATCH_PASSES, 1);
    spb_metrics_count(watches->daemon->metrics, SPB_COUNT_WATCH_ANSWERS, chunk->answers);
    /* Who was served is gone; the rest of the turn's share is had by the same events again. */
    if (group == NULL)
        point->seen = chunk->to;
    if (group != NULL || chunk->to < chunk->pointer)
        post(image);
}

/* The image has more events, or its life is over. */
static void pass(struct spb_image *image)
{
    struct spb_watch_point *point = &image->watch;
    bool ended = atomic_exchange(&point->ended, false), good = false, is_served;
    struct chunk chunk = {.to = 0};
    struct view view;

    if (point->count == 0)
        return;
    (void)pthread_mutex_lock(&image->lock);
    /* Who only pauses the image lets all look again afterwards. */
    bool paused = !ended && image->closing;
    is_served = image->volume != NULL;
    if (!ended && is_served && !paused) {
        view_locked(image, &view);
        read_ends(&view);
        point->pointer = view.pointer;
        good = read_chunk(image->daemon->watches, point, &view, &chunk);
    }
    is_served = is_served || image->closing;
    (void)pthread_mutex_unlock(&image->lock);
    if (paused)
        return;
    if (!good)
        end_all(image, is_served);
    else if (chunk.to > chunk.from || chunk.to > point->seen)
        serve(image, &chunk);
    else if (chunk.to < chunk.pointer)
        post(image);
}

static void run_pass(struct spb_post *posted)
{
    struct spb_watch_point *point = SPB_CONTAINER(posted, struct spb_watch_point, post);
    struct spb_image *image = SPB_CONTAINER(point, struct spb_image, watch);

    atomic_store(&point->posted, false);
    pass(image);
    spb_image_unref(image);
}

void spb_watch_notify(struct spb_image *image)
{
    if (atomic_load(&image->watch.waiting) > 0)
        post(image);
}

void spb_watch_end(struct spb_image *image)
{
    if (atomic_load(&image->watch.waiting) == 0)
        return;
    atomic_store(&image->watch.ended, true);
    post(image);
}

/* ---- Life --------------------------------------------------------------------------------- */

void spb_watch_point_init(struct spb_watch_point *point)
{
    *point = (struct spb_watch_point){.post = {.run = run_pass}};
    atomic_init(&point->waiting, 0);
    atomic_init(&point->posted, false);
    atomic_init(&point->ended, false);
}

spb_status spb_watches_new(struct spb_daemon *daemon, struct spb_watches **out,
                           struct spb_error *err)
{
    struct spb_watches *watches = calloc(1, sizeof(*watches));

    if (watches == NULL)
        return spb_fail_memory(err, "making the table of watches");
    watches->daemon = daemon;
    watches->seed = (uint64_t)spb_now_ns();
    *out = watches;
    return spb_ok();
}

void spb_watches_free(struct spb_watches *watches)
{
    free(watches);
}
