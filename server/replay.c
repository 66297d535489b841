/*
 * The table behind request_id; see replay.h. Entries lie in pieces that never move or go, and refer
 * to each other by index. The index over them grows by one bucket at a time (linear hashing), so
 * that no insertion takes long.
 */
#include "replay.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/status.h"
#include "util.h"

#define PIECE 1024u        /* entries */
#define BUCKETS_MIN 1024u  /* a power of two */
#define NAME_BUCKETS 1024u /* of principals */
#define FORGOTTEN_AT_ONCE 8
#define NONE UINT32_MAX

enum state {
    RUNNING,   /* of.runner; not in its principal's list */
    UNSETTLED, /* neither in the list */
    KEPT,
    LOST, /* its outcome stays unknown; kept too */
};

struct entry {
    uint8_t id[SPB_REPLAY_ID_SIZE];
    union {
        struct spb_replay_party *runner;
        int64_t record;
    } of;
    uint32_t crc;
    uint32_t time_s; /* UNIX */
    uint32_t next;   /* in its bucket, or of the free ones */
    uint32_t newer;  /* of its principal's */
    uint16_t principal;
    uint8_t method;
    uint8_t state;
};

_Static_assert(sizeof(struct entry) == 48, "what replay.h says");

struct principal {
    uint32_t oldest, newest; /* kept ones */
    uint32_t kept, used;     /* entries: kept; all */
    uint32_t next;           /* in its bucket */
    uint16_t tenant;
    char name[SPB_REPLAY_PRINCIPAL_SIZE];
};

struct spb_replay {
    pthread_mutex_t lock; /* over all below */
    struct spb_replay_options options;
    uint64_t seed[2]; /* of the hash: ids are chosen by others */

    struct entry **pieces;
    uint32_t piece_count, piece_room;
    uint32_t unused; /* entries that never were in use begin here */
    uint32_t free;   /* a list */
    uint32_t used, kept;

    uint32_t *buckets;
    uint32_t bucket_count, bucket_room;
    uint32_t low; /* the power of two at or below bucket_count */

    struct principal *principals;
    uint32_t principal_count, principal_room;
    uint32_t names[NAME_BUCKETS];

    struct spb_replay_link waiting; /* all that wait */
    size_t waiting_count;
};

static struct entry *at(const struct spb_replay *replay, uint32_t index)
{
    return &replay->pieces[index / PIECE][index % PIECE];
}

/* ---- Links -------------------------------------------------------------------------------- */

static void link_init(struct spb_replay_link *list)
{
    list->next = list;
    list->previous = list;
}

static void link_add(struct spb_replay_link *list, struct spb_replay_link *link)
{
    link->previous = list->previous;
    link->next = list;
    list->previous->next = link;
    list->previous = link;
}

static void link_remove(struct spb_replay_link *link)
{
    SPB_ASSERT(link->previous != NULL && link->next != NULL);
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->next = NULL;
    link->previous = NULL;
}

static struct spb_replay_party *of_peers(struct spb_replay_link *link)
{
    return SPB_CONTAINER(link, struct spb_replay_party, peers);
}

/* ---- Life --------------------------------------------------------------------------------- */

spb_status spb_replay_new(const struct spb_replay_options *options, struct spb_replay **out,
                          struct spb_error *err)
{
    struct spb_replay *replay = calloc(1, sizeof(*replay));

    if (replay == NULL)
        return spb_fail_memory(err, "making the table of repeated calls");
    (void)pthread_mutex_init(&replay->lock, NULL);
    replay->options = *options;
    replay->free = NONE;
    replay->low = BUCKETS_MIN;
    replay->bucket_count = BUCKETS_MIN;
    replay->bucket_room = BUCKETS_MIN;
    link_init(&replay->waiting);
    memset(replay->names, 0xff, sizeof(replay->names));
    replay->buckets = malloc(BUCKETS_MIN * sizeof(uint32_t));
    if (replay->buckets == NULL) {
        spb_replay_free(replay);
        return spb_fail_memory(err, "making the table of repeated calls");
    }
    memset(replay->buckets, 0xff, BUCKETS_MIN * sizeof(uint32_t));
    if (getrandom(replay->seed, sizeof(replay->seed), 0) != (ssize_t)sizeof(replay->seed))
        replay->seed[0] = (uint64_t)(uintptr_t)replay;
    *out = replay;
    return spb_ok();
}

void spb_replay_free(struct spb_replay *replay)
{
    if (replay == NULL)
        return;
    for (uint32_t i = 0; i < replay->piece_count; i++)
        free(replay->pieces[i]);
    free(replay->pieces);
    free(replay->buckets);
    free(replay->principals);
    (void)pthread_mutex_destroy(&replay->lock);
    free(replay);
}

void spb_replay_limit(struct spb_replay *replay, uint32_t per_principal_max, int64_t life_s)
{
    (void)pthread_mutex_lock(&replay->lock);
    replay->options.per_principal_max = per_principal_max;
    replay->options.life_s = life_s;
    (void)pthread_mutex_unlock(&replay->lock);
}

/* ---- Principals --------------------------------------------------------------------------- */

static uint32_t *name_bucket(struct spb_replay *replay, uint16_t tenant, const char *name)
{
    uint64_t h = replay->seed[1] ^ tenant;

    for (; *name != '\0'; name++) {
        h = (h ^ (uint8_t)*name) * UINT64_C(0x9E3779B97F4A7C15);
        h ^= h >> 29;
    }
    return &replay->names[h % NAME_BUCKETS];
}

static uint32_t find_principal(struct spb_replay *replay, const struct spb_replay_key *key)
{
    uint32_t i = *name_bucket(replay, key->tenant, key->principal);

    while (i != NONE && (replay->principals[i].tenant != key->tenant ||
                         strcmp(replay->principals[i].name, key->principal) != 0))
        i = replay->principals[i].next;
    return i;
}

/* One that has no entries any more makes room; NONE where there is none such. */
static uint32_t take_unused_principal(struct spb_replay *replay)
{
    for (uint32_t i = 0; i < replay->principal_count; i++) {
        struct principal *principal = &replay->principals[i];

        if (principal->used > 0)
            continue;
        uint32_t *place = name_bucket(replay, principal->tenant, principal->name);
        while (*place != i)
            place = &replay->principals[*place].next;
        *place = principal->next;
        return i;
    }
    return NONE;
}

static uint32_t new_principal(struct spb_replay *replay)
{
    if (replay->principal_count >= replay->options.principals_max)
        return take_unused_principal(replay);
    if (replay->principal_count == replay->principal_room) {
        uint32_t room = replay->principal_room == 0 ? 16 : replay->principal_room * 2;
        struct principal *bigger = realloc(replay->principals, room * sizeof(*bigger));

        if (bigger == NULL)
            return NONE;
        replay->principals = bigger;
        replay->principal_room = room;
    }
    return replay->principal_count++;
}

static uint32_t intern(struct spb_replay *replay, const struct spb_replay_key *key)
{
    uint32_t i = find_principal(replay, key);

    if (i != NONE || strlen(key->principal) >= SPB_REPLAY_PRINCIPAL_SIZE)
        return i;
    i = new_principal(replay);
    if (i == NONE)
        return NONE;
    uint32_t *bucket = name_bucket(replay, key->tenant, key->principal);
    struct principal *principal = &replay->principals[i];
    *principal = (struct principal){.oldest = NONE, .newest = NONE, .tenant = key->tenant};
    memcpy(principal->name, key->principal, strlen(key->principal) + 1);
    principal->next = *bucket;
    *bucket = i;
    return i;
}

/* ---- The index ---------------------------------------------------------------------------- */

static uint64_t hash(const struct spb_replay *replay, const uint8_t *id, uint32_t principal,
                     uint8_t method)
{
    uint64_t a, b;

    memcpy(&a, id, sizeof(a));
    memcpy(&b, id + sizeof(a), sizeof(b));
    uint64_t h = (a ^ replay->seed[0]) * UINT64_C(0x9E3779B97F4A7C15);
    h = (h ^ h >> 32 ^ b ^ replay->seed[1]) * UINT64_C(0xD6E8FEB86659FD93);
    h = (h ^ h >> 29 ^ (uint64_t)principal << 8 ^ method) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 32;
}

static uint64_t hash_of(const struct spb_replay *replay, const struct entry *entry)
{
    return hash(replay, entry->id, entry->principal, entry->method);
}

static uint32_t *bucket_of(const struct spb_replay *replay, uint64_t h)
{
    uint32_t i = (uint32_t)(h & (2 * (uint64_t)replay->low - 1));

    return &replay->buckets[i < replay->bucket_count ? i : i & (replay->low - 1)];
}

/* One bucket more: a share of another's goes there. Without memory the chains grow instead. */
static void split(struct spb_replay *replay)
{
    if (replay->bucket_count == replay->bucket_room) {
        uint32_t room = replay->bucket_room * 2;
        uint32_t *bigger = realloc(replay->buckets, room * sizeof(*bigger));

        if (bigger == NULL)
            return;
        replay->buckets = bigger;
        replay->bucket_room = room;
    }
    uint32_t from = replay->bucket_count - replay->low, i = replay->buckets[from];
    replay->buckets[from] = NONE;
    replay->buckets[replay->bucket_count++] = NONE;
    while (i != NONE) {
        struct entry *entry = at(replay, i);
        uint32_t next = entry->next, *bucket = bucket_of(replay, hash_of(replay, entry));

        entry->next = *bucket;
        *bucket = i;
        i = next;
    }
    if (replay->bucket_count == 2 * replay->low)
        replay->low *= 2;
}

static uint32_t find(const struct spb_replay *replay, const struct spb_replay_key *key,
                     uint32_t principal)
{
    uint32_t i = *bucket_of(replay, hash(replay, key->id, principal, key->method));

    for (; i != NONE; i = at(replay, i)->next) {
        const struct entry *entry = at(replay, i);

        if (entry->principal == principal && entry->method == key->method &&
            memcmp(entry->id, key->id, SPB_REPLAY_ID_SIZE) == 0)
            break;
    }
    return i;
}

/* ---- Entries ------------------------------------------------------------------------------ */

static bool add_piece(struct spb_replay *replay)
{
    if (replay->piece_count == replay->piece_room) {
        uint32_t room = replay->piece_room == 0 ? 16 : replay->piece_room * 2;
        struct entry **bigger = realloc(replay->pieces, room * sizeof(struct entry *));

        if (bigger == NULL)
            return false;
        replay->pieces = bigger;
        replay->piece_room = room;
    }
    replay->pieces[replay->piece_count] = malloc(PIECE * sizeof(struct entry));
    if (replay->pieces[replay->piece_count] == NULL)
        return false;
    replay->piece_count++;
    return true;
}

static uint32_t take_entry(struct spb_replay *replay)
{
    uint32_t i = replay->free;

    if (i != NONE) {
        replay->free = at(replay, i)->next;
        return i;
    }
    if (replay->unused == replay->piece_count * PIECE && !add_piece(replay))
        return NONE;
    return replay->unused++;
}

static uint32_t add_entry(struct spb_replay *replay, const struct spb_replay_key *key,
                          uint32_t principal, uint32_t crc)
{
    uint32_t i = take_entry(replay);

    if (i == NONE)
        return NONE;
    if (replay->used >= replay->bucket_count)
        split(replay);
    struct entry *entry = at(replay, i);
    *entry = (struct entry){
        .crc = crc,
        .newer = NONE,
        .principal = (uint16_t)principal,
        .method = key->method,
    };
    memcpy(entry->id, key->id, sizeof(entry->id));
    uint32_t *bucket = bucket_of(replay, hash_of(replay, entry));
    entry->next = *bucket;
    *bucket = i;
    replay->principals[principal].used++;
    replay->used++;
    return i;
}

static void remove_entry(struct spb_replay *replay, uint32_t i)
{
    struct entry *entry = at(replay, i);
    uint32_t *place = bucket_of(replay, hash_of(replay, entry));

    while (*place != i)
        place = &at(replay, *place)->next;
    *place = entry->next;
    replay->principals[entry->principal].used--;
    entry->next = replay->free;
    replay->free = i;
    replay->used--;
}

static void forget_oldest(struct spb_replay *replay, struct principal *principal)
{
    uint32_t i = principal->oldest;

    principal->oldest = at(replay, i)->newer;
    if (principal->oldest == NONE)
        principal->newest = NONE;
    principal->kept--;
    replay->kept--;
    remove_entry(replay, i);
}

/* Who has the most kept. For when all together have too many: nobody's own go for others'. */
static struct principal *greediest(struct spb_replay *replay)
{
    struct principal *most = &replay->principals[0];

    for (uint32_t i = 1; i < replay->principal_count; i++) {
        if (replay->principals[i].kept > most->kept)
            most = &replay->principals[i];
    }
    return most;
}

/* Keeps an entry from now on; what that is too much for goes. */
static void keep(struct spb_replay *replay, uint32_t i, enum state state, int64_t record,
                 int64_t unix_s)
{
    struct entry *entry = at(replay, i);
    struct principal *principal = &replay->principals[entry->principal];

    entry->state = (uint8_t)state;
    entry->of.record = record;
    entry->time_s = (uint32_t)unix_s;
    entry->newer = NONE;
    if (principal->newest == NONE)
        principal->oldest = i;
    else
        at(replay, principal->newest)->newer = i;
    principal->newest = i;
    principal->kept++;
    replay->kept++;
    /* More than one where the bound was lowered; not all at once, for calls wait meanwhile. */
    for (int n = 0; n < FORGOTTEN_AT_ONCE && principal->kept > replay->options.per_principal_max;
         n++)
        forget_oldest(replay, principal);
    for (int n = 0; n < FORGOTTEN_AT_ONCE && replay->kept > replay->options.total_max; n++)
        forget_oldest(replay, greediest(replay));
}

/* ---- Claims ------------------------------------------------------------------------------- */

static void wait_for(struct spb_replay *replay, uint32_t i, int64_t give_up_ns,
                     struct spb_replay_party *party)
{
    party->entry = i + 1;
    party->waits = true;
    party->give_up_ns = give_up_ns;
    link_add(&at(replay, i)->of.runner->peers, &party->peers);
    link_add(&replay->waiting, &party->all);
    replay->waiting_count++;
}

static void run(struct spb_replay *replay, uint32_t i, struct spb_replay_party *party)
{
    struct entry *entry = at(replay, i);

    party->entry = i + 1;
    party->waits = false;
    party->fate = SPB_FATE_NOTHING;
    link_init(&party->peers);
    entry->state = RUNNING;
    entry->of.runner = party;
}

static enum spb_claim claim_again(struct spb_replay *replay, uint32_t i, uint32_t crc,
                                  int64_t give_up_ns, struct spb_replay_party *party,
                                  int64_t *record)
{
    const struct entry *entry = at(replay, i);

    if (entry->crc != crc)
        return SPB_CLAIM_MISMATCH;
    switch ((enum state)entry->state) {
    case RUNNING:
        wait_for(replay, i, give_up_ns, party);
        return SPB_CLAIM_WAITS;
    case UNSETTLED:
        return SPB_CLAIM_UNSETTLED;
    case LOST:
        return SPB_CLAIM_UNKNOWN;
    case KEPT:
        break;
    }
    *record = entry->of.record;
    return SPB_CLAIM_KEPT;
}

static enum spb_claim claim(struct spb_replay *replay, const struct spb_replay_key *key,
                            uint32_t crc, int64_t give_up_ns, struct spb_replay_party *party,
                            int64_t *record)
{
    uint32_t principal = intern(replay, key);

    if (principal == NONE)
        return SPB_CLAIM_FULL;
    uint32_t i = find(replay, key, principal);
    if (i != NONE)
        return claim_again(replay, i, crc, give_up_ns, party, record);
    i = add_entry(replay, key, principal, crc);
    if (i == NONE)
        return SPB_CLAIM_FULL;
    run(replay, i, party);
    return SPB_CLAIM_RUNS;
}

enum spb_claim spb_replay_claim(struct spb_replay *replay, const struct spb_replay_key *key,
                                uint32_t payload_crc, int64_t give_up_ns,
                                struct spb_replay_party *party, int64_t *record)
{
    (void)pthread_mutex_lock(&replay->lock);
    enum spb_claim claimed = claim(replay, key, payload_crc, give_up_ns, party, record);
    (void)pthread_mutex_unlock(&replay->lock);
    return claimed;
}

/* ---- Conclusions -------------------------------------------------------------------------- */

static void stop_waiting(struct spb_replay *replay, struct spb_replay_party *party)
{
    link_remove(&party->all);
    replay->waiting_count--;
    party->entry = 0;
    party->waits = false;
}

/* Who waits for a party, to a list's end; returns where the next one goes. */
static struct spb_replay_party **release(struct spb_replay *replay, struct spb_replay_party *runner,
                                         struct spb_replay_party **last)
{
    while (runner->peers.next != &runner->peers) {
        struct spb_replay_party *party = of_peers(runner->peers.next);

        link_remove(&party->peers);
        stop_waiting(replay, party);
        party->done = runner;
        party->next = NULL;
        *last = party;
        last = &party->next;
    }
    return last;
}

/* The first that waits runs, the others wait for it. */
static struct spb_replay_party *succeed(struct spb_replay *replay, uint32_t i,
                                        struct spb_replay_party *runner)
{
    struct spb_replay_party *heir = of_peers(runner->peers.next);

    link_remove(&heir->peers);
    stop_waiting(replay, heir);
    heir->next = NULL;
    heir->done = runner;
    run(replay, i, heir);
    if (runner->peers.next != &runner->peers) {
        heir->peers = runner->peers;
        heir->peers.next->previous = &heir->peers;
        heir->peers.previous->next = &heir->peers;
        link_init(&runner->peers);
    }
    return heir;
}

static struct spb_replay_party **conclude(struct spb_replay *replay, struct spb_replay_party *party,
                                          int64_t unix_s, struct spb_replay_party **last)
{
    uint32_t i = party->entry - 1;

    party->entry = 0;
    if (party->fate == SPB_FATE_NOTHING && party->peers.next != &party->peers) {
        *last = succeed(replay, i, party);
        return &(*last)->next;
    }
    last = release(replay, party, last);
    switch (party->fate) {
    case SPB_FATE_NOTHING:
        remove_entry(replay, i);
        break;
    case SPB_FATE_DONE:
        keep(replay, i, KEPT, party->record, unix_s);
        break;
    case SPB_FATE_UNSETTLED:
        at(replay, i)->state = UNSETTLED;
        break;
    case SPB_FATE_UNKNOWN:
        keep(replay, i, LOST, party->record, unix_s);
        break;
    }
    return last;
}

struct spb_replay_party *spb_replay_conclude(struct spb_replay *replay,
                                             struct spb_replay_party *parties, int64_t unix_s)
{
    struct spb_replay_party *released = NULL, **last = &released;

    (void)pthread_mutex_lock(&replay->lock);
    while (parties != NULL) {
        struct spb_replay_party *next = parties->next;

        if (parties->entry != 0)
            last = conclude(replay, parties, unix_s, last);
        parties = next;
    }
    (void)pthread_mutex_unlock(&replay->lock);
    return released;
}

struct spb_replay_party *spb_replay_overdue(struct spb_replay *replay, int64_t now_ns)
{
    struct spb_replay_party *released = NULL, **last = &released;

    (void)pthread_mutex_lock(&replay->lock);
    struct spb_replay_link *link = replay->waiting.next;
    while (link != &replay->waiting) {
        struct spb_replay_party *party = SPB_CONTAINER(link, struct spb_replay_party, all);

        link = link->next;
        if (party->give_up_ns > now_ns)
            continue;
        link_remove(&party->peers);
        stop_waiting(replay, party);
        party->done = NULL;
        party->next = NULL;
        *last = party;
        last = &party->next;
    }
    (void)pthread_mutex_unlock(&replay->lock);
    return released;
}

struct spb_replay_party *spb_replay_cancel(struct spb_replay *replay,
                                           const struct spb_replay_key *key, uint8_t method_count,
                                           void (*mark)(struct spb_replay_party *party, void *user),
                                           void *user, bool *found)
{
    struct spb_replay_party *released = NULL, **last = &released;
    struct spb_replay_key one = *key;

    *found = false;
    (void)pthread_mutex_lock(&replay->lock);
    uint32_t principal = find_principal(replay, key);
    for (one.method = 0; principal != NONE && one.method < method_count; one.method++) {
        uint32_t i = find(replay, &one, principal);

        if (i == NONE || at(replay, i)->state != RUNNING)
            continue;
        *found = true;
        last = release(replay, at(replay, i)->of.runner, last);
        mark(at(replay, i)->of.runner, user);
    }
    (void)pthread_mutex_unlock(&replay->lock);
    return released;
}

/* ---- Earlier lives ------------------------------------------------------------------------ */

/* Puts an entry that does not run into the state of a fate. */
static void set_fate(struct spb_replay *replay, uint32_t i, enum spb_fate fate, int64_t record,
                     int64_t unix_s)
{
    switch (fate) {
    case SPB_FATE_NOTHING:
        remove_entry(replay, i);
        break;
    case SPB_FATE_DONE:
        keep(replay, i, KEPT, record, unix_s);
        break;
    case SPB_FATE_UNSETTLED:
        at(replay, i)->state = UNSETTLED;
        break;
    case SPB_FATE_UNKNOWN:
        keep(replay, i, LOST, record, unix_s);
        break;
    }
}

spb_status spb_replay_load(struct spb_replay *replay, const struct spb_replay_key *key,
                           uint32_t payload_crc, enum spb_fate fate, int64_t record, int64_t unix_s,
                           struct spb_error *err)
{
    spb_status status = spb_ok();

    (void)pthread_mutex_lock(&replay->lock);
    uint32_t principal = intern(replay, key);
    bool is_there = principal != NONE && find(replay, key, principal) != NONE;
    if (!is_there) {
        uint32_t i = principal == NONE ? NONE : add_entry(replay, key, principal, payload_crc);

        if (i == NONE)
            status = spb_fail_memory(err, "loading the results of earlier calls");
        else
            set_fate(replay, i, fate, record, unix_s);
    }
    (void)pthread_mutex_unlock(&replay->lock);
    return status;
}

void spb_replay_settle(struct spb_replay *replay, const struct spb_replay_key *key,
                       enum spb_fate fate, int64_t record, int64_t unix_s)
{
    (void)pthread_mutex_lock(&replay->lock);
    uint32_t principal = find_principal(replay, key);
    uint32_t i = principal == NONE ? NONE : find(replay, key, principal);
    if (i != NONE && at(replay, i)->state == UNSETTLED) {
        set_fate(replay, i, fate, record, unix_s);
    } else if (i != NONE && at(replay, i)->state == RUNNING) {
        struct spb_replay_party *runner = at(replay, i)->of.runner;

        if (runner->fate == SPB_FATE_UNSETTLED) {
            runner->fate = fate;
            runner->record = record;
        }
    }
    (void)pthread_mutex_unlock(&replay->lock);
}

void spb_replay_expire(struct spb_replay *replay, int64_t unix_s, size_t max)
{
    (void)pthread_mutex_lock(&replay->lock);
    for (uint32_t i = 0; i < replay->principal_count; i++) {
        struct principal *principal = &replay->principals[i];

        while (max > 0 && principal->oldest != NONE &&
               (int64_t)at(replay, principal->oldest)->time_s + replay->options.life_s < unix_s) {
            forget_oldest(replay, principal);
            max--;
        }
    }
    (void)pthread_mutex_unlock(&replay->lock);
}

void spb_replay_figures(struct spb_replay *replay, struct spb_replay_figures *figures)
{
    (void)pthread_mutex_lock(&replay->lock);
    *figures = (struct spb_replay_figures){
        .entries = replay->used,
        .waiting = replay->waiting_count,
        .principals = replay->principal_count,
        .bytes = sizeof(*replay) + (size_t)replay->piece_count * PIECE * sizeof(struct entry) +
                 replay->piece_room * sizeof(struct entry *) +
                 replay->bucket_room * sizeof(uint32_t) +
                 replay->principal_room * sizeof(struct principal),
    };
    (void)pthread_mutex_unlock(&replay->lock);
}
