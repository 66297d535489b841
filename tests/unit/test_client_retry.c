/* What is tried again, when and how often: the policy and the retrier, with a clock of the test's
 * own and no I/O. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call_reply.h"
#include "retrier.h"

#define MS SPB_NS_PER_MS

static struct spb_client_options options_of(unsigned burst, unsigned percent)
{
    struct spb_client_options options;

    spb_client_options_init(&options);
    options.retry_burst = burst;
    options.retry_percent = percent;
    return options;
}

/* ---- The policy --------------------------------------------------------------------------- */

Test(client_retry, budget_is_a_burst_and_a_part_of_the_calls)
{
    struct spb_client_options options = options_of(10, 20);
    struct spb_retry_policy policy;
    unsigned spent = 0;

    spb_retry_policy_init(&policy, &options, 1);
    for (unsigned call = 0; call < 1000; call++) {
        spb_retry_policy_earn(&policy);
        for (unsigned i = 0; i < 5; i++)
            spent += spb_retry_policy_spend(&policy);
        cr_assert(spent <= 10 + call / 5 + 1, "%u of %u calls", spent, call);
    }
    cr_assert(spent >= 10 + 199, "%u", spent);
    for (unsigned call = 0; call < 1000; call++)
        spb_retry_policy_earn(&policy);
    for (spent = 0; spb_retry_policy_spend(&policy); spent++)
        ;
    cr_assert_eq(spent, 10, "no more than the burst is saved up");
    options = options_of(0, 100);
    spb_retry_policy_init(&policy, &options, 1);
    spb_retry_policy_earn(&policy);
    cr_assert(!spb_retry_policy_spend(&policy), "none at all");
}

Test(client_retry, delays_grow_to_the_cap_within_their_jitter)
{
    struct spb_client_options options = options_of(1, 1);
    struct spb_retry_policy policy;
    const int64_t nominal[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};

    spb_retry_policy_init(&policy, &options, 7);
    for (unsigned failures = 0; failures < 8; failures++) {
        int64_t low = INT64_MAX, high = 0;
        for (unsigned i = 0; i < 2000; i++) {
            int64_t delay = spb_retry_policy_delay_ns(&policy, failures, -1);
            low = delay < low ? delay : low;
            high = delay > high ? delay : high;
        }
        int64_t full = nominal[failures] * MS;
        cr_assert(low >= full / 2 && high <= full, "%u: %lld to %lld", failures, (long long)low,
                  (long long)high);
        cr_assert(low < full * 55 / 100 && high > full * 95 / 100, "the whole range is used");
    }
    cr_assert(spb_retry_policy_delay_ns(&policy, 4000000000u, -1) <= 5000 * MS);
}

Test(client_retry, delays_follow_from_the_seed)
{
    struct spb_client_options options = options_of(1, 1);
    struct spb_retry_policy one, same, other;
    unsigned differ = 0;

    spb_retry_policy_init(&one, &options, 42);
    spb_retry_policy_init(&same, &options, 42);
    spb_retry_policy_init(&other, &options, 43);
    for (unsigned i = 0; i < 100; i++) {
        int64_t delay = spb_retry_policy_delay_ns(&one, i % 7, -1);
        cr_assert_eq(delay, spb_retry_policy_delay_ns(&same, i % 7, -1));
        differ += delay != spb_retry_policy_delay_ns(&other, i % 7, -1);
    }
    cr_assert(differ > 90);
}

Test(client_retry, jitter_of_none_and_of_all)
{
    struct spb_client_options options = options_of(1, 1);
    struct spb_retry_policy policy;
    int64_t low = INT64_MAX;

    options.jitter_percent = 0;
    spb_retry_policy_init(&policy, &options, 1);
    for (unsigned i = 0; i < 100; i++)
        cr_assert_eq(spb_retry_policy_delay_ns(&policy, 1, -1), 200 * MS);
    options.jitter_percent = 100;
    spb_retry_policy_init(&policy, &options, 1);
    for (unsigned i = 0; i < 2000; i++) {
        int64_t delay = spb_retry_policy_delay_ns(&policy, 1, -1);
        cr_assert(delay >= 0 && delay <= 200 * MS);
        low = delay < low ? delay : low;
    }
    cr_assert(low < 10 * MS);
    options.backoff_base_ms = options.backoff_cap_ms = 0;
    spb_retry_policy_init(&policy, &options, 1);
    cr_assert_eq(spb_retry_policy_delay_ns(&policy, 3, -1), 0);
}

Test(client_retry, what_the_daemon_asks_for_is_the_least)
{
    struct spb_client_options options = options_of(1, 1);
    struct spb_retry_policy policy;

    spb_retry_policy_init(&policy, &options, 5);
    for (unsigned i = 0; i < 1000; i++) {
        int64_t delay = spb_retry_policy_delay_ns(&policy, 0, 1000);
        cr_assert(delay >= 1050 * MS && delay <= 1100 * MS);
    }
    cr_assert(spb_retry_policy_delay_ns(&policy, 0, INT64_MAX) <=
              (SPB_RETRY_AFTER_MS_MAX + 100) * MS);
}

Test(client_retry, refusals_are_final)
{
    for (int32_t code = 0; code <= 16; code++) {
        struct spb_client_reply reply = {.status = {SPB_REMOTE}, .rpc_code = code};
        cr_assert_eq(spb_retry_can_mend(&reply), code == 14, "%d", (int)code);
        memcpy(reply.reason, "STILL_RUNNING", sizeof("STILL_RUNNING"));
        cr_assert_eq(spb_retry_can_mend(&reply), code == 14 || code == 10, "%d", (int)code);
        memcpy(reply.reason, "GENERATION_MISMATCH", sizeof("GENERATION_MISMATCH"));
        cr_assert_eq(spb_retry_can_mend(&reply), code == 14, "%d", (int)code);
    }
    for (int code = SPB_INVALID; code < SPB_CODE_COUNT; code++) {
        struct spb_client_reply reply = {.status = {(enum spb_code)code}, .rpc_code = -1};
        cr_assert_eq(spb_retry_can_mend(&reply), code == SPB_UNREACHABLE, "%d", code);
    }
}

/* ---- The retrier -------------------------------------------------------------------------- */

struct outcome {
    unsigned count;
    enum spb_code code;
    int32_t rpc_code;
    char reason[SPB_CLIENT_REASON_SIZE];
    char text[SPB_ERROR_TEXT_SIZE];
};

static void note(void *user, const struct spb_client_reply *reply)
{
    struct outcome *outcome = user;

    outcome->count++;
    outcome->code = reply->status.code;
    outcome->rpc_code = reply->rpc_code;
    memcpy(outcome->reason, reply->reason, sizeof(outcome->reason));
    cr_assert_eq(spb_is_ok(reply->status), reply->error == NULL);
    if (reply->error != NULL)
        memcpy(outcome->text, reply->error->text, sizeof(outcome->text));
}

static struct spb_client_options fast(void)
{
    struct spb_client_options options;

    spb_client_options_init(&options);
    options.jitter_percent = 0;
    return options;
}

static void start(struct spb_retrier *retrier, struct outcome *outcome, int64_t timeout_ms,
                  enum spb_client_mode mode)
{
    const struct spb_client_call call = {.service = "s",
                                         .method = "m",
                                         .payload = "bytes",
                                         .size = 5,
                                         .timeout_ms = timeout_ms,
                                         .mode = mode,
                                         .callback = note,
                                         .user = outcome};

    cr_assert(spb_is_ok(
        spb_retrier_add(retrier, &call, spb_deadline_after(retrier->now_ns, timeout_ms), NULL)));
}

static struct spb_retry_call *send_next(struct spb_retrier *retrier)
{
    struct spb_retry_call *call = spb_retrier_next(retrier);

    cr_assert_not_null(call);
    spb_retrier_sent(call);
    return call;
}

static const struct spb_error cut = {.code = SPB_UNREACHABLE, .text = "the line was cut"};
static const struct spb_error refused = {.code = SPB_UNREACHABLE, .text = "nobody is there"};

static void lose(struct spb_retry_call *call)
{
    struct spb_client_reply reply;

    spb_reply_from_error(&cut, &reply);
    spb_retrier_take_reply(call, &reply);
}

static void answer(struct spb_retry_call *call, int32_t rpc_code, const char *reason,
                   int64_t retry_after_ms)
{
    struct spb_error err = {.code = SPB_REMOTE, .text = "the daemon's words"};
    struct spb_client_reply reply = {.rpc_code = rpc_code, .retry_after_ms = retry_after_ms};

    if (rpc_code != 0) {
        reply.status.code = SPB_REMOTE;
        reply.error = &err;
        (void)snprintf(reply.reason, sizeof(reply.reason), "%s", reason);
    }
    spb_retrier_take_reply(call, &reply);
}

static void end(struct spb_retrier *retrier)
{
    const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "the test ends"};

    spb_retrier_close(retrier, &why);
    spb_retrier_done(retrier);
}

Test(client_retry, lost_call_waits_for_the_next_connection_and_is_the_same)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 10000, SPB_CLIENT_REPEAT);
    cr_assert(spb_retrier_may_dial(&retrier), "the first connection is made at once");
    spb_retrier_link_up(&retrier);
    struct spb_retry_call *call = send_next(&retrier);
    cr_assert(!spb_retrier_wants_link(&retrier));
    spb_retrier_link_lost(&retrier, true);
    lose(call);
    cr_assert_eq(outcome.count, 0);
    cr_assert(spb_retrier_wants_link(&retrier) && !spb_retrier_may_dial(&retrier));
    cr_assert_eq(retrier.dial_ns, 100 * MS);
    spb_retrier_set_time(&retrier, 100 * MS);
    cr_assert(spb_retrier_may_dial(&retrier));
    cr_assert_eq(send_next(&retrier), call);
    cr_assert_arr_eq(call->payload, "bytes", 5);
    cr_assert_str_eq(call->service, "s");
    cr_assert_str_eq(call->method, "m");
    cr_assert_eq(call->deadline_ns, 10000 * MS, "the deadline is that of the beginning");
    answer(call, 0, "", -1);
    cr_assert_eq(outcome.count, 1);
    cr_assert_eq(outcome.code, SPB_OK);
    end(&retrier);
    cr_assert_eq(outcome.count, 1);
}

Test(client_retry, delays_between_connections_grow_until_there_is_an_answer)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 60000, SPB_CLIENT_REPEAT);
    for (int64_t expected = 100; expected <= 1600; expected *= 2) {
        int64_t before = retrier.now_ns;
        spb_retrier_link_up(&retrier); /* being connected does not end the row */
        struct spb_retry_call *call = send_next(&retrier);
        spb_retrier_link_lost(&retrier, true);
        lose(call);
        cr_assert_eq(retrier.dial_ns - before, expected * MS);
        spb_retrier_set_time(&retrier, retrier.dial_ns);
    }
    struct spb_retry_call *call = send_next(&retrier);
    answer(call, 5, "NOT_FOUND", -1); /* a refusal is an answer too */
    start(&retrier, &outcome, 60000, SPB_CLIENT_REPEAT);
    call = send_next(&retrier);
    int64_t before = retrier.now_ns;
    spb_retrier_link_lost(&retrier, true);
    lose(call);
    cr_assert_eq(retrier.dial_ns - before, 100 * MS);
    spb_retrier_link_lost(&retrier, false);
    cr_assert_eq(retrier.dial_ns, retrier.now_ns, "an idle connection is replaced at once");
    end(&retrier);
    cr_assert_eq(outcome.count, 2);
}

Test(client_retry, failed_connects_end_with_the_deadline)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;
    unsigned dials = 0;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 1000, SPB_CLIENT_REPEAT);
    while (outcome.count == 0) {
        cr_assert(retrier.dial_ns < 1000 * MS);
        spb_retrier_set_time(&retrier, retrier.dial_ns);
        spb_retrier_expire(&retrier);
        spb_retrier_dial_failed(&retrier, &refused);
        dials++;
    }
    cr_assert_eq(dials, 4, "at 0, 100, 300 and 700; the next would be at 1500");
    cr_assert_eq(outcome.code, SPB_UNREACHABLE);
    cr_assert_eq(outcome.rpc_code, -1);
    cr_assert_not_null(strstr(outcome.text, "nobody is there"), "%s", outcome.text);
    cr_assert_not_null(strstr(outcome.text, "tried 4 times"), "%s", outcome.text);
    end(&retrier);
    cr_assert_eq(outcome.count, 1);
}

Test(client_retry, call_in_between_two_connects_ends_at_its_deadline)
{
    struct spb_client_options options = fast();
    struct outcome patient = {0}, hasty = {0};
    struct spb_retrier retrier;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &patient, 100000, SPB_CLIENT_REPEAT);
    for (unsigned i = 0; i < 6; i++) {
        spb_retrier_set_time(&retrier, retrier.dial_ns);
        spb_retrier_dial_failed(&retrier, &refused);
    }
    int64_t now = retrier.now_ns;
    start(&retrier, &hasty, 50, SPB_CLIENT_REPEAT);
    cr_assert_eq(spb_retrier_wake_ns(&retrier), now + 50 * MS);
    spb_retrier_set_time(&retrier, now + 50 * MS);
    spb_retrier_expire(&retrier);
    cr_assert_eq(hasty.count, 1);
    cr_assert_eq(hasty.code, SPB_UNREACHABLE);
    cr_assert_not_null(strstr(hasty.text, "50 ms"), "%s", hasty.text);
    cr_assert_not_null(strstr(hasty.text, "nobody is there"), "%s", hasty.text);
    cr_assert_eq(patient.count, 0);
    end(&retrier);
    cr_assert_eq(patient.count, 1);
}

Test(client_retry, first_connection_is_tried_for_a_time_of_its_own)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;

    options.first_connect_ms = 0;
    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 60000, SPB_CLIENT_REPEAT);
    spb_retrier_dial_failed(&retrier, &refused);
    cr_assert_eq(outcome.count, 1);
    start(&retrier, &outcome, 60000, SPB_CLIENT_REPEAT);
    spb_retrier_link_up(&retrier);
    struct spb_retry_call *call = send_next(&retrier);
    spb_retrier_link_lost(&retrier, true);
    lose(call);
    spb_retrier_dial_failed(&retrier, &refused);
    cr_assert_eq(outcome.count, 1, "once there was a connection, it goes by the call's time");
    end(&retrier);
}

Test(client_retry, time_for_the_first_connection_is_used_to_its_end)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;
    int64_t last = 0;

    options.first_connect_ms = 500;
    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 60000, SPB_CLIENT_REPEAT);
    while (outcome.count == 0) {
        last = retrier.dial_ns;
        spb_retrier_set_time(&retrier, last);
        spb_retrier_dial_failed(&retrier, &refused);
    }
    cr_assert_eq(last, 500 * MS);
    cr_assert_not_null(strstr(outcome.text, "tried 4 times"), "%s", outcome.text);
    end(&retrier);
}

Test(client_retry, once_is_once)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 60000, SPB_CLIENT_ONCE);
    spb_retrier_dial_failed(&retrier, &refused);
    cr_assert_eq(outcome.count, 1, "no second attempt to connect");
    cr_assert_null(strstr(outcome.text, "tried"), "%s", outcome.text);
    start(&retrier, &outcome, 60000, SPB_CLIENT_ONCE);
    struct spb_retry_call *call = send_next(&retrier);
    spb_retrier_link_lost(&retrier, true);
    lose(call);
    cr_assert_eq(outcome.count, 2);
    cr_assert_str_eq(outcome.text, "the line was cut");
    start(&retrier, &outcome, 60000, SPB_CLIENT_ONCE);
    answer(send_next(&retrier), 14, "DRAINING", 1000);
    cr_assert_eq(outcome.count, 3);
    cr_assert_eq(outcome.rpc_code, 14);
    cr_assert_eq(retrier.policy.savings_percent, 6400, "nothing was spent");
    end(&retrier);
}

Test(client_retry, unavailable_pauses_as_asked)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 60000, SPB_CLIENT_REPEAT);
    struct spb_retry_call *call = send_next(&retrier);
    answer(call, 14, "DRAINING", 1000);
    cr_assert_eq(outcome.count, 0);
    cr_assert(!spb_retrier_wants_link(&retrier), "it needs none before its time");
    cr_assert_eq(spb_retrier_wake_ns(&retrier), 1100 * MS);
    spb_retrier_set_time(&retrier, 1100 * MS - 1);
    spb_retrier_expire(&retrier);
    cr_assert_null(spb_retrier_next(&retrier));
    spb_retrier_set_time(&retrier, 1100 * MS);
    spb_retrier_expire(&retrier);
    cr_assert_eq(send_next(&retrier), call);
    answer(call, 10, "STILL_RUNNING", -1);
    cr_assert_eq(spb_retrier_wake_ns(&retrier), 1300 * MS, "the second refusal of this call");
    spb_retrier_set_time(&retrier, 1300 * MS);
    spb_retrier_expire(&retrier);
    answer(send_next(&retrier), 10, "GENERATION_MISMATCH", -1);
    cr_assert_eq(outcome.count, 1);
    cr_assert_eq(outcome.rpc_code, 10);
    cr_assert_str_eq(outcome.reason, "GENERATION_MISMATCH");
    cr_assert_str_eq(outcome.text, "the daemon's words", "an answer is told as it came");
    end(&retrier);
}

Test(client_retry, pause_beyond_the_deadline_ends_the_call_at_once)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct spb_retrier retrier;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &outcome, 1000, SPB_CLIENT_REPEAT);
    answer(send_next(&retrier), 14, "DRAINING", 1000);
    cr_assert_eq(outcome.count, 1);
    cr_assert_eq(outcome.rpc_code, 14);
    cr_assert_str_eq(outcome.reason, "DRAINING");
    cr_assert_not_null(strstr(outcome.text, "no time is left"), "%s", outcome.text);
    end(&retrier);
}

Test(client_retry, budget_ends_an_outage_of_many_calls)
{
    enum { CALLS = 100 };
    struct spb_client_options options = fast();
    struct outcome outcomes[CALLS];
    struct spb_retry_call *calls[CALLS];
    struct spb_retrier retrier;
    unsigned ended = 0;

    memset(outcomes, 0, sizeof(outcomes));
    options.retry_burst = 30;
    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    for (unsigned i = 0; i < CALLS; i++)
        start(&retrier, &outcomes[i], 60000, SPB_CLIENT_REPEAT);
    spb_retrier_link_up(&retrier);
    for (unsigned i = 0; i < CALLS; i++)
        calls[i] = send_next(&retrier);
    spb_retrier_link_lost(&retrier, true);
    for (unsigned i = 0; i < CALLS; i++)
        lose(calls[i]);
    for (unsigned i = 0; i < CALLS; i++) {
        ended += outcomes[i].count;
        if (outcomes[i].count > 0)
            cr_assert_not_null(strstr(outcomes[i].text, "no retries are left"));
    }
    cr_assert_eq(ended, CALLS - 30);
    spb_retrier_dial_failed(&retrier, &refused);
    for (unsigned i = 0; i < CALLS; i++)
        cr_assert_eq(outcomes[i].count, 1, "and none is left to connect again");
    end(&retrier);
}

Test(client_retry, one_connect_for_all_costs_one)
{
    struct spb_client_options options = fast();
    struct outcome outcomes[50];
    struct spb_retrier retrier;

    memset(outcomes, 0, sizeof(outcomes));
    options.retry_burst = 3;
    options.retry_percent = 0;
    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    for (unsigned i = 0; i < 50; i++)
        start(&retrier, &outcomes[i], 60000, SPB_CLIENT_REPEAT);
    for (unsigned i = 0; i < 3; i++) {
        spb_retrier_dial_failed(&retrier, &refused);
        cr_assert_eq(outcomes[0].count, 0);
    }
    spb_retrier_dial_failed(&retrier, &refused);
    for (unsigned i = 0; i < 50; i++)
        cr_assert_eq(outcomes[i].count, 1);
    end(&retrier);
}

Test(client_retry, repeated_calls_keep_their_order)
{
    struct spb_client_options options = fast();
    struct outcome outcomes[6];
    struct spb_retry_call *calls[4];
    struct spb_retrier retrier;

    memset(outcomes, 0, sizeof(outcomes));
    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    for (unsigned i = 0; i < 6; i++)
        start(&retrier, &outcomes[i], 60000, SPB_CLIENT_REPEAT);
    for (unsigned i = 0; i < 4; i++)
        calls[i] = send_next(&retrier);
    answer(calls[1], 14, "DRAINING", 5);
    spb_retrier_link_lost(&retrier, true);
    lose(calls[3]);
    lose(calls[0]);
    lose(calls[2]);
    spb_retrier_set_time(&retrier, 200 * MS);
    spb_retrier_expire(&retrier);
    for (unsigned i = 0; i < 6; i++) {
        struct spb_retry_call *call = send_next(&retrier);
        cr_assert_eq(call->user, &outcomes[i]);
        answer(call, 0, "", -1);
    }
    end(&retrier);
}

Test(client_retry, closing_ends_those_that_wait_pause_and_run)
{
    struct spb_client_options options = fast();
    const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "closing"};
    struct outcome waits = {0}, endless = {0}, pauses = {0}, runs = {0}, late = {0};
    struct spb_retrier retrier;

    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    start(&retrier, &pauses, 60000, SPB_CLIENT_REPEAT);
    start(&retrier, &runs, 60000, SPB_CLIENT_REPEAT);
    answer(send_next(&retrier), 14, "DRAINING", 1000);
    struct spb_retry_call *on_wire = send_next(&retrier);
    start(&retrier, &waits, 60000, SPB_CLIENT_REPEAT);
    start(&retrier, &endless, -1, SPB_CLIENT_REPEAT);
    spb_retrier_close(&retrier, &why);
    cr_assert_eq(waits.count + endless.count + pauses.count, 3);
    cr_assert_eq(runs.count, 0);
    lose(on_wire);
    cr_assert_eq(runs.count, 1, "not tried again");
    const struct spb_client_call more = {
        .service = "s", .method = "m", .callback = note, .user = &late, .timeout_ms = 1000};
    cr_assert_eq(spb_retrier_add(&retrier, &more, SPB_NO_DEADLINE, NULL).code, SPB_UNREACHABLE);
    cr_assert_eq(late.count, 0);
    spb_retrier_done(&retrier);
}

struct notices {
    unsigned count;
    bool is_connection;
    int64_t delay_ms;
    char text[SPB_ERROR_TEXT_SIZE];
};

static void take_notice(void *user, const struct spb_client_notice *notice)
{
    struct notices *notices = user;

    notices->count++;
    notices->is_connection = notice->is_connection;
    notices->delay_ms = notice->delay_ms;
    cr_assert_str_eq(notice->endpoint, "unix:x");
    memcpy(notices->text, notice->why->text, sizeof(notices->text));
}

Test(client_retry, notices_tell_what_is_tried_again)
{
    struct spb_client_options options = fast();
    struct outcome outcome = {0};
    struct notices notices = {0};
    struct spb_retrier retrier;

    options.notice = take_notice;
    options.notice_user = &notices;
    spb_retrier_init(&retrier, &options, "unix:x", 1, 0);
    spb_retrier_link_lost(&retrier, false);
    spb_retrier_tell_lost(&retrier, &cut);
    cr_assert_eq(notices.count, 0, "nobody needs a connection");
    start(&retrier, &outcome, 60000, SPB_CLIENT_REPEAT);
    spb_retrier_dial_failed(&retrier, &refused);
    cr_assert_eq(notices.count, 1);
    cr_assert(notices.is_connection);
    cr_assert_eq(notices.delay_ms, 100);
    cr_assert_str_eq(notices.text, "nobody is there");
    answer(send_next(&retrier), 14, "DRAINING", 300);
    cr_assert_eq(notices.count, 2);
    cr_assert(!notices.is_connection);
    cr_assert_eq(notices.delay_ms, 400);
    end(&retrier);
    cr_assert_eq(notices.count, 2);
}

/* ---- Against a model ---------------------------------------------------------------------- */

#define CALLS 3000u

struct campaign {
    struct spb_retrier retrier;
    struct outcome outcomes[CALLS];
    int64_t deadline_ns[CALLS];
    struct spb_retry_call *wire[CALLS]; /* on the wire, oldest first */
    size_t on_wire, started;
    uint64_t sent, random;
};

static uint32_t dice(struct campaign *campaign, uint32_t sides)
{
    campaign->random = campaign->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(campaign->random >> 33) % sides;
}

static void begin_one(struct campaign *campaign);

struct errand {
    struct campaign *campaign;
    size_t number;
};
static struct errand errands[CALLS];

/* Some callbacks start further calls. */
static void end_errand(void *user, const struct spb_client_reply *reply)
{
    struct errand *errand = user;

    note(&errand->campaign->outcomes[errand->number], reply);
    if (errand->campaign->started < CALLS && dice(errand->campaign, 4) == 0)
        begin_one(errand->campaign);
}

static void begin_one(struct campaign *campaign)
{
    size_t number = campaign->started++;
    int64_t timeout_ms = dice(campaign, 5) == 0 ? -1 : 1 + (int64_t)dice(campaign, 3000);
    uint8_t payload[16];

    memset(payload, (int)number, sizeof(payload));
    memcpy(payload, &number, sizeof(number));
    errands[number] = (struct errand){campaign, number};
    campaign->deadline_ns[number] = spb_deadline_after(campaign->retrier.now_ns, timeout_ms);
    const struct spb_client_call call = {.service = "service",
                                         .method = "method",
                                         .payload = payload,
                                         .size = number % 17,
                                         .timeout_ms = timeout_ms,
                                         .mode = dice(campaign, 4) == 0 ? SPB_CLIENT_ONCE
                                                                        : SPB_CLIENT_REPEAT,
                                         .callback = end_errand,
                                         .user = &errands[number]};
    cr_assert(
        spb_is_ok(spb_retrier_add(&campaign->retrier, &call, campaign->deadline_ns[number], NULL)));
}

static void send_some(struct campaign *campaign)
{
    struct spb_retry_call *call;

    while (campaign->on_wire < 60 && (call = spb_retrier_next(&campaign->retrier)) != NULL) {
        size_t number = ((struct errand *)call->user)->number;
        uint8_t payload[16];
        memset(payload, (int)number, sizeof(payload));
        memcpy(payload, &number, sizeof(number));
        cr_assert_eq(call->size, number % 17);
        cr_assert(memcmp(call->payload, payload, call->size) == 0, "the bytes are the same");
        cr_assert_eq(campaign->outcomes[number].count, 0, "sent after its end");
        cr_assert(campaign->retrier.now_ns < call->deadline_ns, "sent after its deadline");
        spb_retrier_sent(call);
        campaign->wire[campaign->on_wire++] = call;
        campaign->sent++;
    }
}

static void take_off(struct campaign *campaign, size_t index)
{
    memmove(&campaign->wire[index], &campaign->wire[index + 1],
            (campaign->on_wire - index - 1) * sizeof(campaign->wire[0]));
    campaign->on_wire--;
}

static void answer_one(struct campaign *campaign)
{
    static const int32_t codes[] = {0, 0, 0, 0, 5, 10, 14, 14, 13};
    size_t index = dice(campaign, (uint32_t)campaign->on_wire);
    struct spb_retry_call *call = campaign->wire[index];
    int32_t code = codes[dice(campaign, 9)];

    take_off(campaign, index);
    answer(call, code, code == 10 && dice(campaign, 2) == 0 ? "STILL_RUNNING" : "OTHER",
           dice(campaign, 3) == 0 ? -1 : (int64_t)dice(campaign, 100));
}

static void lose_all(struct campaign *campaign)
{
    spb_retrier_link_lost(&campaign->retrier, campaign->on_wire > 0);
    while (campaign->on_wire > 0) {
        struct spb_retry_call *call = campaign->wire[0];
        take_off(campaign, 0);
        lose(call);
    }
}

/* What the session does to attempts whose time has passed. */
static void expire_all(struct campaign *campaign)
{
    const struct spb_error late = {.code = SPB_DEADLINE, .text = "no answer in time"};
    struct spb_client_reply reply;

    spb_retrier_expire(&campaign->retrier);
    for (size_t i = 0; i < campaign->on_wire;) {
        struct spb_retry_call *call = campaign->wire[i];
        if (call->deadline_ns > campaign->retrier.now_ns) {
            i++;
            continue;
        }
        take_off(campaign, i);
        spb_reply_from_error(&late, &reply);
        spb_retrier_take_reply(call, &reply);
    }
}

static void step(struct campaign *campaign)
{
    switch (dice(campaign, 10)) {
    case 0:
    case 1:
    case 2:
        if (campaign->started < CALLS)
            begin_one(campaign);
        return;
    case 3:
    case 4:
    case 5:
        if (campaign->on_wire > 0)
            answer_one(campaign);
        return;
    case 6:
        if (dice(campaign, 4) == 0)
            lose_all(campaign);
        return;
    case 7:
        if (spb_retrier_may_dial(&campaign->retrier) && campaign->on_wire == 0 &&
            dice(campaign, 3) == 0)
            spb_retrier_dial_failed(&campaign->retrier, &refused);
        return;
    case 8:
        send_some(campaign);
        return;
    default:
        spb_retrier_set_time(&campaign->retrier,
                             campaign->retrier.now_ns + dice(campaign, 40) * MS);
        expire_all(campaign);
        for (size_t i = 0; i < campaign->started; i++)
            cr_assert(campaign->outcomes[i].count == 1 ||
                          campaign->deadline_ns[i] > campaign->retrier.now_ns,
                      "call %zu is late", i);
    }
}

Test(client_retry, every_call_of_a_campaign_ends_once_in_time_and_within_the_budget)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct campaign *campaign = calloc(1, sizeof(*campaign));
        struct spb_client_options options;

        spb_client_options_init(&options);
        campaign->random = seed;
        spb_retrier_init(&campaign->retrier, &options, "unix:x", seed, 0);
        while (campaign->started < CALLS)
            step(campaign);
        cr_assert(campaign->sent <= CALLS + 64 + CALLS / 5, "%llu attempts",
                  (unsigned long long)campaign->sent);
        const struct spb_error why = {.code = SPB_UNREACHABLE, .text = "the test ends"};
        spb_retrier_close(&campaign->retrier, &why);
        lose_all(campaign);
        cr_assert_eq(campaign->retrier.count, 0);
        spb_retrier_done(&campaign->retrier);
        for (size_t i = 0; i < CALLS; i++)
            cr_assert_eq(campaign->outcomes[i].count, 1, "seed %llu: call %zu ended %u times",
                         (unsigned long long)seed, i, campaign->outcomes[i].count);
        free(campaign);
    }
}
