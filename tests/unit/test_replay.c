/* The table behind request_id: who runs, who waits, what is kept, for how long, in how much memory.
 */
#include <stdio.h>

#include "replay.h"
#include "support/random.h"
#include "volume_kit.h"

#define LIFE_S 1000
#define START_S 1700000000

static struct spb_replay *table(uint32_t per_principal, uint32_t total, uint32_t principals)
{
    struct spb_replay_options options = {per_principal, total, principals, LIFE_S};
    struct spb_replay *replay;

    OK(spb_replay_new(&options, &replay, &kit_err));
    return replay;
}

/* The nth call's key; ids lie wherever the caller keeps them. */
static struct spb_replay_key key_of(uint64_t n, uint8_t id[SPB_REPLAY_ID_SIZE])
{
    memset(id, 0, SPB_REPLAY_ID_SIZE);
    memcpy(id + 8, &n, sizeof(n));
    return (struct spb_replay_key){.tenant = 1, .principal = "uid:7", .method = 3, .id = id};
}

static enum spb_claim claim(struct spb_replay *replay, uint64_t n, struct spb_replay_party *party,
                            int64_t *record)
{
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(n, id);

    return spb_replay_claim(replay, &key, 0xabc, 100, party, record);
}

static void run(struct spb_replay *replay, uint64_t n, struct spb_replay_party *party)
{
    memset(party, 0, sizeof(*party));
    cr_assert_eq(claim(replay, n, party, NULL), SPB_CLAIM_RUNS);
}

static void wait(struct spb_replay *replay, uint64_t n, struct spb_replay_party *party)
{
    memset(party, 0, sizeof(*party));
    cr_assert_eq(claim(replay, n, party, NULL), SPB_CLAIM_WAITS);
}

static struct spb_replay_party *end(struct spb_replay *replay, struct spb_replay_party *party,
                                    enum spb_fate fate, int64_t record, int64_t unix_s)
{
    party->fate = fate;
    party->record = record;
    party->next = NULL;
    return spb_replay_conclude(replay, party, unix_s);
}

/* The nth call runs and ends. */
static void do_one(struct spb_replay *replay, uint64_t n, enum spb_fate fate, int64_t unix_s)
{
    struct spb_replay_party party;

    run(replay, n, &party);
    cr_assert_null(end(replay, &party, fate, (int64_t)n + 1000, unix_s));
}

static void expect_kept(struct spb_replay *replay, uint64_t n)
{
    struct spb_replay_party party = {0};
    int64_t record = 0;

    cr_assert_eq(claim(replay, n, &party, &record), SPB_CLAIM_KEPT, "call %llu",
                 (unsigned long long)n);
    cr_assert_eq(record, (int64_t)n + 1000);
    cr_assert_eq(party.entry, 0);
}

/* It is not known: it would run, and is not let to. */
static void expect_forgotten(struct spb_replay *replay, uint64_t n)
{
    do_one(replay, n, SPB_FATE_NOTHING, START_S);
}

static struct spb_replay_figures figures(struct spb_replay *replay)
{
    struct spb_replay_figures found;

    spb_replay_figures(replay, &found);
    return found;
}

/* ---- One call ------------------------------------------------------------------------------- */

Test(replay, done_is_kept_with_its_record)
{
    struct spb_replay *replay = table(10, 10, 10);

    do_one(replay, 1, SPB_FATE_DONE, START_S);
    expect_kept(replay, 1);
    expect_kept(replay, 1);
    cr_assert_eq(figures(replay).entries, 1);
    spb_replay_free(replay);
}

Test(replay, what_changed_nothing_runs_again)
{
    struct spb_replay *replay = table(10, 10, 10);

    do_one(replay, 1, SPB_FATE_NOTHING, START_S);
    cr_assert_eq(figures(replay).entries, 0);
    do_one(replay, 1, SPB_FATE_DONE, START_S);
    expect_kept(replay, 1);
    spb_replay_free(replay);
}

Test(replay, another_payload_is_a_mismatch)
{
    struct spb_replay *replay = table(10, 10, 10);
    struct spb_replay_party running, other = {0};
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(1, id);

    run(replay, 1, &running);
    cr_assert_eq(spb_replay_claim(replay, &key, 0xdef, 100, &other, NULL), SPB_CLAIM_MISMATCH);
    cr_assert_null(end(replay, &running, SPB_FATE_DONE, 1, START_S));
    cr_assert_eq(spb_replay_claim(replay, &key, 0xdef, 100, &other, NULL), SPB_CLAIM_MISMATCH);
    cr_assert_eq(other.entry, 0);
    spb_replay_free(replay);
}

Test(replay, tenant_principal_method_and_id_tell_calls_apart)
{
    struct spb_replay *replay = table(10, 10, 10);
    uint8_t id[SPB_REPLAY_ID_SIZE], other_id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(1, id), keys[4] = {key, key, key, key_of(2, other_id)};
    struct spb_replay_party parties[4] = {{0}};

    do_one(replay, 1, SPB_FATE_DONE, START_S);
    keys[0].tenant = 2;
    keys[1].principal = "uid:8";
    keys[2].method = 4;
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(spb_replay_claim(replay, &keys[i], 0xabc, 100, &parties[i], NULL),
                     SPB_CLAIM_RUNS, "key %zu", i);
        cr_assert_null(end(replay, &parties[i], SPB_FATE_DONE, 9, START_S));
    }
    cr_assert_eq(figures(replay).entries, 5);
    expect_kept(replay, 1);
    spb_replay_free(replay);
}

/* ---- Waiting -------------------------------------------------------------------------------- */

Test(replay, who_waits_is_told)
{
    struct spb_replay *replay = table(10, 10, 10);
    struct spb_replay_party runner, waiters[3];

    run(replay, 1, &runner);
    for (size_t i = 0; i < 3; i++)
        wait(replay, 1, &waiters[i]);
    cr_assert_eq(figures(replay).waiting, 3);
    struct spb_replay_party *told = end(replay, &runner, SPB_FATE_DONE, 1001, START_S);
    for (size_t i = 0; i < 3; i++, told = told->next) {
        cr_assert_eq(told, &waiters[i]);
        cr_assert_eq(told->done, &runner);
        cr_assert_not(told->waits);
        cr_assert_eq(told->entry, 0);
    }
    cr_assert_null(told);
    cr_assert_eq(figures(replay).waiting, 0);
    expect_kept(replay, 1);
    spb_replay_free(replay);
}

Test(replay, the_first_that_waits_runs_after_one_that_changed_nothing)
{
    struct spb_replay *replay = table(10, 10, 10);
    struct spb_replay_party runner, waiters[3];

    run(replay, 1, &runner);
    for (size_t i = 0; i < 3; i++)
        wait(replay, 1, &waiters[i]);
    struct spb_replay_party *heir = end(replay, &runner, SPB_FATE_NOTHING, 0, START_S);
    cr_assert_eq(heir, &waiters[0]);
    cr_assert_null(heir->next);
    cr_assert_neq(heir->entry, 0);
    cr_assert_eq(figures(replay).waiting, 2);
    heir = end(replay, heir, SPB_FATE_NOTHING, 0, START_S);
    cr_assert_eq(heir, &waiters[1]);
    struct spb_replay_party *told = end(replay, heir, SPB_FATE_DONE, 1001, START_S);
    cr_assert_eq(told, &waiters[2]);
    cr_assert_eq(told->done, &waiters[1]);
    cr_assert_null(told->next);
    expect_kept(replay, 1);
    spb_replay_free(replay);
}

Test(replay, many_are_concluded_at_once)
{
    struct spb_replay *replay = table(10, 10, 10);
    struct spb_replay_party parties[4], no_entry = {0}, waiter;
    enum spb_fate fates[4] = {SPB_FATE_DONE, SPB_FATE_NOTHING, SPB_FATE_UNSETTLED,
                              SPB_FATE_UNKNOWN};

    for (size_t i = 0; i < 4; i++) {
        run(replay, i, &parties[i]);
        parties[i].fate = fates[i];
        parties[i].record = (int64_t)i + 1000;
        parties[i].next = i < 3 ? &parties[i + 1] : &no_entry;
    }
    wait(replay, 2, &waiter);
    cr_assert_eq(spb_replay_conclude(replay, parties, START_S), &waiter);
    cr_assert_eq(waiter.done->fate, SPB_FATE_UNSETTLED);
    expect_kept(replay, 0);
    expect_forgotten(replay, 1);
    cr_assert_eq(claim(replay, 2, &waiter, NULL), SPB_CLAIM_UNSETTLED);
    cr_assert_eq(claim(replay, 3, &waiter, NULL), SPB_CLAIM_UNKNOWN);
    spb_replay_free(replay);
}

Test(replay, waiting_ends_in_time)
{
    struct spb_replay *replay = table(10, 10, 10);
    struct spb_replay_party runner, waiter, later = {0};
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(1, id);

    run(replay, 1, &runner);
    wait(replay, 1, &waiter);
    cr_assert_eq(spb_replay_claim(replay, &key, 0xabc, 200, &later, NULL), SPB_CLAIM_WAITS);
    cr_assert_null(spb_replay_overdue(replay, 99));
    cr_assert_eq(spb_replay_overdue(replay, 100), &waiter);
    cr_assert_null(waiter.done);
    cr_assert_null(waiter.next);
    cr_assert_eq(end(replay, &runner, SPB_FATE_DONE, 1001, START_S), &later);
    cr_assert_null(later.next);
    spb_replay_free(replay);
}

static size_t marks;
static void mark(struct spb_replay_party *party, void *user)
{
    cr_assert_eq(user, &marks);
    party->record = -1;
    marks++;
}

Test(replay, cancelling_finds_what_runs_by_its_id)
{
    struct spb_replay *replay = table(10, 10, 10);
    struct spb_replay_party runner, waiter, other;
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(1, id), stranger = key;
    bool found = true;

    run(replay, 1, &runner);
    wait(replay, 1, &waiter);
    run(replay, 2, &other);
    do_one(replay, 3, SPB_FATE_DONE, START_S);
    stranger.principal = "uid:8";
    cr_assert_null(spb_replay_cancel(replay, &stranger, 10, mark, &marks, &found));
    cr_assert_not(found);
    cr_assert_null(spb_replay_cancel(replay, &key, 3, mark, &marks, &found),
                   "method 3 is not below 3");
    cr_assert_not(found);
    cr_assert_eq(spb_replay_cancel(replay, &key, 10, mark, &marks, &found), &waiter);
    cr_assert(found);
    cr_assert_eq(marks, 1);
    cr_assert_eq(runner.record, -1);
    cr_assert_neq(other.record, -1);
    key = key_of(3, id);
    cr_assert_null(spb_replay_cancel(replay, &key, 10, mark, &marks, &found));
    cr_assert_not(found, "it does not run any more");
    cr_assert_null(end(replay, &runner, SPB_FATE_NOTHING, 0, START_S));
    expect_forgotten(replay, 1);
    spb_replay_free(replay);
}

/* ---- Bounds --------------------------------------------------------------------------------- */

Test(replay, the_newest_of_a_principal_are_kept)
{
    struct spb_replay *replay = table(3, 100, 10);

    for (uint64_t n = 0; n < 5; n++)
        do_one(replay, n, SPB_FATE_DONE, START_S);
    cr_assert_eq(figures(replay).entries, 3);
    for (uint64_t n = 2; n < 5; n++)
        expect_kept(replay, n);
    expect_forgotten(replay, 0);
    expect_forgotten(replay, 1);
    spb_replay_limit(replay, 0, LIFE_S);
    do_one(replay, 9, SPB_FATE_DONE, START_S);
    expect_forgotten(replay, 9);
    spb_replay_free(replay);
}

Test(replay, all_principals_share_a_bound)
{
    struct spb_replay *replay = table(10, 4, 10);
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(7, id);
    struct spb_replay_party party = {0};

    for (uint64_t n = 0; n < 4; n++)
        do_one(replay, n, SPB_FATE_DONE, START_S);
    key.principal = "uid:8";
    cr_assert_eq(spb_replay_claim(replay, &key, 0xabc, 100, &party, NULL), SPB_CLAIM_RUNS);
    cr_assert_null(end(replay, &party, SPB_FATE_DONE, 1, START_S));
    cr_assert_eq(figures(replay).entries, 4);
    /* Who has little keeps it: the one with the most makes room. */
    int64_t record = 0;
    cr_assert_eq(spb_replay_claim(replay, &key, 0xabc, 100, &party, &record), SPB_CLAIM_KEPT);
    cr_assert_eq(record, 1);
    for (uint64_t n = 1; n < 4; n++)
        expect_kept(replay, n);
    do_one(replay, 8, SPB_FATE_DONE, START_S);
    cr_assert_eq(figures(replay).entries, 4);
    expect_kept(replay, 8);
    expect_forgotten(replay, 0);
    expect_forgotten(replay, 1);
    spb_replay_free(replay);
}

Test(replay, what_is_too_old_goes)
{
    struct spb_replay *replay = table(100, 100, 10);

    for (uint64_t n = 0; n < 10; n++)
        do_one(replay, n, n == 9 ? SPB_FATE_UNKNOWN : SPB_FATE_DONE, START_S + (int64_t)n);
    spb_replay_expire(replay, START_S + LIFE_S, 100);
    cr_assert_eq(figures(replay).entries, 10);
    spb_replay_expire(replay, START_S + LIFE_S + 5, 3);
    cr_assert_eq(figures(replay).entries, 7, "not more than was asked for");
    spb_replay_expire(replay, START_S + LIFE_S + 5, 100);
    cr_assert_eq(figures(replay).entries, 5);
    expect_forgotten(replay, 4);
    expect_kept(replay, 5);
    spb_replay_expire(replay, START_S + LIFE_S + 10, 100);
    cr_assert_eq(figures(replay).entries, 0);
    spb_replay_free(replay);
}

Test(replay, names_are_bounded_and_used_again)
{
    struct spb_replay *replay = table(10, 10, 2);
    struct spb_replay_party parties[3] = {{0}};
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(1, id);
    static const char *const names[] = {"a", "b", "c"};

    for (size_t i = 0; i < 3; i++) {
        key.principal = names[i];
        cr_assert_eq(spb_replay_claim(replay, &key, 0, 100, &parties[i], NULL),
                     i < 2 ? SPB_CLAIM_RUNS : SPB_CLAIM_FULL);
    }
    cr_assert_null(end(replay, &parties[0], SPB_FATE_NOTHING, 0, START_S));
    cr_assert_eq(spb_replay_claim(replay, &key, 0, 100, &parties[2], NULL), SPB_CLAIM_RUNS);
    key.principal = "b";
    cr_assert_eq(spb_replay_claim(replay, &key, 0, 100, &parties[0], NULL), SPB_CLAIM_WAITS);
    cr_assert_eq(end(replay, &parties[1], SPB_FATE_DONE, 0, START_S), &parties[0]);
    cr_assert_null(end(replay, &parties[2], SPB_FATE_DONE, 0, START_S));
    cr_assert_eq(figures(replay).principals, 2);
    spb_replay_free(replay);
}

Test(replay, memory_is_flat_at_the_bound)
{
    enum { MAX = 100000 };
    struct spb_replay *replay = table(MAX, MAX, 10);

    for (uint64_t n = 0; n < MAX; n++)
        do_one(replay, n, SPB_FATE_DONE, START_S);
    size_t bytes = figures(replay).bytes;
    cr_assert_leq(bytes, MAX * 56, "%zu bytes for %d entries", bytes, MAX);
    for (uint64_t n = MAX; n < 5 * (uint64_t)MAX; n++)
        do_one(replay, n, SPB_FATE_DONE, START_S);
    cr_assert_leq(figures(replay).bytes, bytes + 1024 * 48);
    for (uint64_t n = 4 * (uint64_t)MAX; n < 5 * (uint64_t)MAX; n++)
        expect_kept(replay, n);
    printf("replay: %.1f bytes an entry\n", (double)figures(replay).bytes / MAX);
    spb_replay_free(replay);
}

/* ---- Earlier lives -------------------------------------------------------------------------- */

static void load(struct spb_replay *replay, uint64_t n, enum spb_fate fate)
{
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(n, id);

    OK(spb_replay_load(replay, &key, 0xabc, fate, (int64_t)n + 1000, START_S, &kit_err));
}

static void settle(struct spb_replay *replay, uint64_t n, enum spb_fate fate)
{
    uint8_t id[SPB_REPLAY_ID_SIZE];
    struct spb_replay_key key = key_of(n, id);

    spb_replay_settle(replay, &key, fate, (int64_t)n + 1000, START_S);
}

Test(replay, loaded_entries_count_like_others)
{
    struct spb_replay *replay = table(3, 10, 10);

    for (uint64_t n = 0; n < 4; n++)
        load(replay, n, SPB_FATE_DONE);
    expect_forgotten(replay, 0);
    expect_kept(replay, 3);
    load(replay, 3, SPB_FATE_UNKNOWN);
    expect_kept(replay, 3);
    load(replay, 5, SPB_FATE_NOTHING);
    expect_forgotten(replay, 5);
    spb_replay_expire(replay, START_S + LIFE_S + 1, 100);
    cr_assert_eq(figures(replay).entries, 0);
    spb_replay_free(replay);
}

/* Its worker has ended it, and settled it too, before the loop concludes it. */
Test(replay, one_that_is_settled_before_its_conclusion)
{
    struct spb_replay *replay = table(10, 10, 10);
    struct spb_replay_party party;

    run(replay, 1, &party);
    settle(replay, 1, SPB_FATE_DONE);
    cr_assert_eq(party.fate, SPB_FATE_NOTHING, "it still runs");
    party.fate = SPB_FATE_UNSETTLED;
    settle(replay, 1, SPB_FATE_DONE);
    cr_assert_eq(party.fate, SPB_FATE_DONE);
    cr_assert_null(spb_replay_conclude(replay, &party, START_S));
    expect_kept(replay, 1);
    spb_replay_free(replay);
}

Test(replay, what_is_unsettled_stays_until_it_is_settled)
{
    struct spb_replay *replay = table(1, 1, 10);
    struct spb_replay_party party = {0};

    for (uint64_t n = 0; n < 3; n++)
        load(replay, n, SPB_FATE_UNSETTLED);
    do_one(replay, 3, SPB_FATE_UNSETTLED, START_S);
    spb_replay_expire(replay, START_S + 2 * LIFE_S, 100);
    for (uint64_t n = 0; n < 4; n++)
        cr_assert_eq(claim(replay, n, &party, NULL), SPB_CLAIM_UNSETTLED);
    settle(replay, 0, SPB_FATE_DONE);
    expect_kept(replay, 0);
    settle(replay, 1, SPB_FATE_NOTHING);
    expect_forgotten(replay, 1);
    settle(replay, 2, SPB_FATE_UNKNOWN);
    cr_assert_eq(claim(replay, 2, &party, NULL), SPB_CLAIM_UNKNOWN);
    settle(replay, 2, SPB_FATE_DONE);
    cr_assert_eq(claim(replay, 2, &party, NULL), SPB_CLAIM_UNKNOWN, "it was settled already");
    settle(replay, 77, SPB_FATE_DONE);
    expect_forgotten(replay, 77);
    spb_replay_free(replay);
}

/* ---- Against a model ------------------------------------------------------------------------ */

#define CALLS 40u
#define PARTIES 8u

struct model {
    struct spb_replay *replay;
    struct spb_replay_party parties[CALLS][PARTIES];
    unsigned running[CALLS], count[CALLS]; /* which one runs; how many there are, it included */
    enum spb_fate known[CALLS];
    bool is_kept[CALLS];
};

static void model_claim(struct model *model, uint64_t n, unsigned i)
{
    struct spb_replay_party *party = &model->parties[n][i];
    int64_t record = 0;

    memset(party, 0, sizeof(*party));
    enum spb_claim found = claim(model->replay, n, party, &record);
    if (model->is_kept[n]) {
        cr_assert_eq(found, SPB_CLAIM_KEPT);
        cr_assert_eq(record, (int64_t)n + 1000);
        return;
    }
    cr_assert_eq(found, model->count[n] == 0 ? SPB_CLAIM_RUNS : SPB_CLAIM_WAITS);
    if (model->count[n]++ == 0)
        model->running[n] = i;
}

static void model_end(struct model *model, uint64_t n, bool done)
{
    struct spb_replay_party *runner = &model->parties[n][model->running[n]];
    struct spb_replay_party *told = end(
        model->replay, runner, done ? SPB_FATE_DONE : SPB_FATE_NOTHING, (int64_t)n + 1000, START_S);
    unsigned count = 0;

    for (struct spb_replay_party *party = told; party != NULL; party = party->next)
        count++;
    model->count[n]--;
    model->is_kept[n] = done;
    if (done) {
        cr_assert_eq(count, model->count[n]);
        model->count[n] = 0;
    } else if (model->count[n] > 0) {
        cr_assert_eq(count, 1);
        model->running[n] = (unsigned)(told - model->parties[n]);
    }
}

Test(replay, behaves_like_a_model)
{
    struct model *model = calloc(1, sizeof(*model));
    uint64_t random = 20261122;

    model->replay = table(CALLS, CALLS, 2);
    for (int step = 0; step < 200000; step++) {
        uint64_t n = random_below(&random, CALLS);
        unsigned i = model->count[n];

        if (i > 0 && random_below(&random, 3) == 0) {
            model_end(model, n, random_below(&random, 4) == 0);
        } else if (i == 0) {
            model_claim(model, n, 0);
            if (model->is_kept[n] && random_below(&random, 4) == 0) {
                spb_replay_expire(model->replay, START_S + LIFE_S + 1, CALLS);
                memset(model->is_kept, 0, sizeof(model->is_kept));
            }
        } else {
            unsigned free_place = 0;
            while (free_place < PARTIES && model->parties[n][free_place].entry != 0)
                free_place++;
            if (free_place < PARTIES)
                model_claim(model, n, free_place);
        }
    }
    spb_replay_free(model->replay);
    free(model);
}
