/* The session without sockets, and its table of calls, against a model. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "call_session.h"

struct book {
    size_t ended[4096]; /* by call */
    enum spb_code code[4096];
};

struct entry {
    struct book *book;
    size_t call;
};

static void note(void *user, const struct spb_client_reply *reply)
{
    const struct entry *entry = user;

    entry->book->ended[entry->call]++;
    entry->book->code[entry->call] = reply->status.code;
}

static void start(struct spb_session *session, struct entry *entry, int64_t timeout_ms,
                  int64_t now_ns)
{
    struct spb_session_call call = {
        .service = "s", .method = "m", .timeout_ms = timeout_ms, .callback = note, .user = entry};

    cr_assert(spb_is_ok(spb_session_start(session, &call, now_ns, NULL)));
}

static void answer(struct spb_session *session, uint32_t stream)
{
    struct spb_ttrpc_header header = {0, stream, SPB_TTRPC_TYPE_RESPONSE, 0};
    uint8_t bytes[SPB_TTRPC_HEADER_SIZE];

    spb_ttrpc_header_encode(&header, bytes);
    spb_session_feed(session, bytes, sizeof(bytes));
}

static void end(struct spb_session *session)
{
    const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "the test ends"};

    spb_session_lose(session, &why);
    spb_session_done(session);
}

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Starts, answers and expires at random with a clock of the test's own. */
Test(client_session, random_calls_end_once_each_and_as_the_model_says)
{
    enum { CALLS = 4000 };
    struct book *book = calloc(1, sizeof(*book));
    struct entry *entries = calloc(CALLS, sizeof(*entries));
    int64_t *deadlines = calloc(CALLS, sizeof(*deadlines));
    enum spb_code *expected = calloc(CALLS, sizeof(*expected));
    bool *is_over = calloc(CALLS, sizeof(*is_over));
    struct spb_session session;
    uint32_t seed = 20240607;
    int64_t now_ms = 0;
    size_t started = 0;

    spb_session_init(&session);
    while (started < CALLS) {
        uint32_t dice = random_next(&seed) % 10;
        if (dice < 6) {
            int64_t timeout =
                random_next(&seed) % 4 == 0 ? -1 : (int64_t)(random_next(&seed) % 300);
            entries[started] = (struct entry){book, started};
            deadlines[started] = timeout < 0 ? INT64_MAX : now_ms + timeout;
            start(&session, &entries[started], timeout, now_ms * 1000000);
            started++;
        } else if (dice < 9 && started > 0) {
            size_t call = started - 1 - random_next(&seed) % (started < 200 ? started : 200);
            if (book->ended[call] == 0 || !is_over[call]) {
                is_over[call] = true; /* one answer each, in time or late */
                if (book->ended[call] == 0)
                    expected[call] = SPB_OK;
                answer(&session, (uint32_t)(2 * call + 1));
            }
        } else {
            now_ms += random_next(&seed) % 20;
            spb_session_expire(&session, now_ms * 1000000);
            bool is_late = false;
            for (size_t i = 0; i < started; i++) {
                if (deadlines[i] <= now_ms && !is_over[i] && expected[i] == SPB_OK)
                    expected[i] = SPB_DEADLINE;
                is_late = is_late || (deadlines[i] <= now_ms && book->ended[i] == 0);
            }
            cr_assert(!is_late, "at %lld ms", (long long)now_ms);
        }
        cr_assert(!session.is_lost, "%s", session.loss.text);
    }
    for (size_t i = 0; i < CALLS; i++) {
        if (book->ended[i] == 0)
            expected[i] = SPB_UNREACHABLE;
    }
    end(&session);
    for (size_t i = 0; i < CALLS; i++) {
        cr_assert_eq(book->ended[i], 1, "call %zu ended %zu times", i, book->ended[i]);
        cr_assert_eq(book->code[i], expected[i], "call %zu: %d, expected %d", i, book->code[i],
                     expected[i]);
    }
    free(book);
    free(entries);
    free(deadlines);
    free(expected);
    free(is_over);
}

/* Stream ids of any kind, so that runs in the table form, wrap around and close. */
Test(client_session, table_finds_what_is_in_it)
{
    enum { IDS = 512, STEPS = 6000 };
    struct spb_call_table table = {.slots = NULL};
    struct spb_call *calls[IDS] = {NULL};
    uint32_t streams[IDS], seed = 99;

    for (size_t i = 0; i < IDS; i++) /* few homes, in several places of the table */
        streams[i] = (uint32_t)(i / 8 * 2048 + i % 8 * 4 + 2036) | 1;
    for (size_t step = 0; step < STEPS; step++) {
        size_t i = random_next(&seed) % (step % 1000 < 500 ? 24 : IDS);
        if (calls[i] == NULL) {
            calls[i] = spb_call_table_blank(&table);
            cr_assert_not_null(calls[i]);
            calls[i]->stream = streams[i];
            calls[i]->deadline_ns = random_next(&seed) % 1000;
            spb_call_table_add(&table, calls[i]);
        } else {
            spb_call_table_remove(&table, calls[i]);
            calls[i] = NULL;
        }
        int64_t earliest = SPB_NO_DEADLINE;
        bool found_all = true;
        for (size_t k = 0; k < IDS; k++) {
            found_all = found_all && spb_call_table_find(&table, streams[k]) == calls[k];
            if (calls[k] != NULL && calls[k]->deadline_ns < earliest)
                earliest = calls[k]->deadline_ns;
        }
        cr_assert(found_all, "at step %zu", step);
        cr_assert_eq(spb_call_table_deadline(&table), earliest);
    }
    spb_call_table_done(&table);
}

/* The memory of calls that nobody ever answers is bounded, and their late answers stay harmless. */
Test(client_session, expired_calls_are_forgotten_in_the_end)
{
    enum { CALLS = 3000 };
    struct book *book = calloc(1, sizeof(*book));
    struct entry *entries = calloc(CALLS, sizeof(*entries));
    struct spb_session session;

    spb_session_init(&session);
    for (size_t i = 0; i < CALLS; i++) {
        entries[i] = (struct entry){book, i};
        start(&session, &entries[i], 1, (int64_t)i * 10000000);
        spb_session_expire(&session, (int64_t)i * 10000000 + 5000000);
        cr_assert_eq(book->ended[i], 1);
        cr_assert_eq(book->code[i], SPB_DEADLINE);
    }
    cr_assert_eq(session.calls.running.count, 0);
    cr_assert(session.calls.expired.count <= 1024);
    cr_assert(session.calls.slot_count <= 4096);
    answer(&session, 1);             /* forgotten */
    answer(&session, 2 * CALLS - 1); /* remembered */
    cr_assert(!session.is_lost, "%s", session.loss.text);
    answer(&session, 2 * CALLS - 1); /* a second answer */
    cr_assert(session.is_lost);
    cr_assert_eq(session.loss.code, SPB_PROTOCOL);
    end(&session);
    free(book);
    free(entries);
}

Test(client_session, loss_is_told_once_and_to_every_call_in_order)
{
    struct book *book = calloc(1, sizeof(*book));
    struct entry entries[5];
    struct spb_session session;
    const struct spb_error first = {.code = SPB_UNREACHABLE, .text = "first"};
    const struct spb_error second = {.code = SPB_PROTOCOL, .text = "second"};

    spb_session_init(&session);
    for (size_t i = 0; i < 5; i++) {
        entries[i] = (struct entry){book, i};
        start(&session, &entries[i], 1000, 0);
    }
    spb_session_lose(&session, &first);
    spb_session_lose(&session, &second);
    cr_assert_str_eq(session.loss.text, "first");
    answer(&session, 1); /* bytes after the loss mean nothing */
    spb_session_expire(&session, INT64_MAX);
    for (size_t i = 0; i < 5; i++) {
        cr_assert_eq(book->ended[i], 1);
        cr_assert_eq(book->code[i], SPB_UNREACHABLE);
    }
    spb_session_done(&session);
    free(book);
}

Test(client_session, very_long_timeouts_are_none)
{
    struct book *book = calloc(1, sizeof(*book));
    struct entry entry = {book, 0};
    struct spb_session session;

    spb_session_init(&session);
    start(&session, &entry, INT64_MAX, INT64_C(1) << 60);
    cr_assert_eq(spb_call_table_deadline(&session.calls), SPB_NO_DEADLINE);
    start(&session, &entry, SPB_TIMEOUT_MS_MAX, 1000);
    cr_assert_eq(spb_call_table_deadline(&session.calls),
                 1000 + SPB_TIMEOUT_MS_MAX * SPB_NS_PER_MS);
    end(&session);
    cr_assert_eq(book->ended[0], 2);
    free(book);
}

Test(client_session, outbox_keeps_bytes_in_order_however_they_are_sent)
{
    struct spb_outbox box = {.data = NULL};
    uint32_t seed = 7;
    uint8_t next_in = 0, next_out = 0;
    size_t put = 0, sent = 0;

    while (put < 3000000 || spb_outbox_left(&box) > 0) {
        size_t n = random_next(&seed) % 20000;
        if (put < 3000000 && random_next(&seed) % 2 == 0) {
            uint8_t *room = spb_outbox_room(&box, n);
            cr_assert_not_null(room);
            for (size_t i = 0; i < n; i++)
                room[i] = next_in++;
            spb_outbox_add(&box, n);
            put += n;
            continue;
        }
        if (n > spb_outbox_left(&box))
            n = spb_outbox_left(&box);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(box.data[box.start + i], next_out++);
        spb_outbox_sent(&box, n);
        sent += n;
    }
    cr_assert_eq(put, sent);
    cr_assert(box.size <= 262144);
    spb_outbox_done(&box);
}
