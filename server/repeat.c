/* Calls that are made again; see repeat.h. */
#include "repeat.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "actor.h"
#include "base/status.h"
#include "daemon.h"
#include "doubts.h"
#include "dispatch.h"

/* Of all principals together; some 54 MB. The limit replay_entries_max goes up to it. */
#define TOTAL_MAX 1000000u
#define PRINCIPALS_MAX 4096u
#define WAIT_NS (30 * SPB_NS_PER_S) /* of a call without a deadline */
#define EXPIRED_AT_ONCE 1000u

struct spb_repeats {
    struct spb_replay *replay;
    size_t method_count;
    char methods[SPB_REPLAY_METHODS_MAX][SPB_AUDIT_METHOD_SIZE]; /* "Params.Put" */
};

static int64_t unix_s(void)
{
    return (int64_t)time(NULL);
}

static struct spb_call *call_of(struct spb_replay_party *party)
{
    return SPB_CONTAINER(party, struct spb_call, party);
}

/* ---- Life --------------------------------------------------------------------------------- */

static void name_methods(struct spb_repeats *repeats)
{
    const struct spb_method *methods = spb_methods(&repeats->method_count);

    SPB_ASSERT(repeats->method_count < SPB_REPLAY_METHODS_MAX);
    for (size_t i = 0; i < repeats->method_count; i++) {
        const char *dot = strrchr(methods[i].service, '.');

        (void)snprintf(repeats->methods[i], sizeof(repeats->methods[i]), "%s.%s",
                       dot == NULL ? methods[i].service : dot + 1, methods[i].name);
    }
}

spb_status spb_repeats_new(struct spb_daemon *daemon, struct spb_repeats **out,
                           struct spb_error *err)
{
    struct spb_repeats *repeats = calloc(1, sizeof(*repeats));
    struct spb_replay_options options = {
        .per_principal_max = (uint32_t)SPB_LIMIT(daemon, replay_entries_max),
        .total_max = TOTAL_MAX,
        .principals_max = PRINCIPALS_MAX,
        .life_s = (int64_t)SPB_LIMIT(daemon, replay_life_s),
    };

    if (repeats == NULL)
        return spb_fail_memory(err, "making the table of repeated calls");
    spb_status status = spb_replay_new(&options, &repeats->replay, err);
    if (!spb_is_ok(status)) {
        free(repeats);
        return status;
    }
    name_methods(repeats);
    *out = repeats;
    return status;
}

void spb_repeats_free(struct spb_repeats *repeats)
{
    if (repeats == NULL)
        return;
    spb_replay_free(repeats->replay);
    free(repeats);
}

const char *spb_repeat_method_text(const struct spb_repeats *repeats,
                                   const struct spb_method *method)
{
    size_t count;

    return repeats->methods[method - spb_methods(&count)];
}

/* ---- Loading ------------------------------------------------------------------------------ */

static enum spb_fate fate_of(enum spb_outcome outcome)
{
    switch (outcome) {
    case SPB_OUTCOME_PENDING:
        return SPB_FATE_UNSETTLED;
    case SPB_OUTCOME_DONE:
    case SPB_OUTCOME_COMPLETED:
        return SPB_FATE_DONE;
    case SPB_OUTCOME_NOT_DONE:
        return SPB_FATE_NOTHING;
    case SPB_OUTCOME_UNKNOWN:
        break;
    }
    return SPB_FATE_UNKNOWN;
}

/* False for a method that there is no more. */
static bool find_method(const struct spb_repeats *repeats, const char *text, uint8_t *method)
{
    for (size_t i = 0; i < repeats->method_count; i++) {
        if (strcmp(repeats->methods[i], text) != 0)
            continue;
        *method = (uint8_t)i;
        return true;
    }
    return false;
}

struct loading {
    struct spb_repeats *repeats;
    spb_status status;
    struct spb_error *err;
};

static void load_row(void *user, const struct spb_replay_row *row)
{
    struct loading *loading = user;
    struct spb_replay_key key = {
        .tenant = row->principal_tenant,
        .principal = row->principal,
        .id = row->request_id,
    };
    enum spb_fate fate = fate_of(row->outcome);

    if (!spb_is_ok(loading->status) || fate == SPB_FATE_NOTHING ||
        !find_method(loading->repeats, row->method, &key.method))
        return;
    loading->status = spb_replay_load(loading->repeats->replay, &key, row->payload_crc, fate,
                                      row->call_id, row->time_us / 1000000, loading->err);
}

spb_status spb_repeats_load(struct spb_daemon *daemon, struct spb_error *err)
{
    struct loading loading = {.repeats = daemon->repeats, .status = spb_ok(), .err = err};
    int64_t since_us = (unix_s() - (int64_t)SPB_LIMIT(daemon, replay_life_s)) * 1000000;

    SPB_TRY(spb_audit_load_replays(daemon->audit, since_us,
                                   (uint32_t)SPB_LIMIT(daemon, replay_entries_max), load_row,
                                   &loading, err));
    return loading.status;
}

void spb_repeat_settle(struct spb_daemon *daemon, const struct spb_pending_call *call,
                       enum spb_outcome outcome)
{
    struct spb_replay_key key = {
        .tenant = call->principal_tenant,
        .principal = call->principal,
        .id = call->request_id,
    };

    if (call->has_request_id && find_method(daemon->repeats, call->method, &key.method))
        spb_replay_settle(daemon->repeats->replay, &key, fate_of(outcome), call->id, unix_s());
}

/* ---- Answers that were given already ------------------------------------------------------ */

static void fetch(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    uint8_t *payload = NULL;
    struct spb_error err;
    size_t size = 0;

    spb_status status =
        spb_audit_response(call->daemon->audit, call->party.record, &payload, &size, &err);
    if (spb_is_ok(status)) {
        spb_call_set_packed_reply(call, payload, size);
    } else {
        spb_log(&call->daemon->log, SPB_LOG_ERROR, "answer-not-read",
                SPB_NUMBER("record", call->party.record), SPB_TEXT("reason", err.text));
        spb_call_set_fault(call, PB_REASON(AUDIT_UNAVAILABLE),
                           "an earlier call with this request_id was done; its answer cannot be "
                           "read from the audit: see the server's log");
    }
    free(payload);
    spb_call_send(call);
}

static void answer_kept(struct spb_call *call, int64_t record)
{
    if (spb_call_refuse_at_end(call))
        return;
    call->party.record = record;
    spb_call_to_workers(call, fetch);
}

static void answer_unknown(struct spb_call *call, bool for_good)
{
    spb_call_set_fault(call, PB_REASON(OUTCOME_UNKNOWN),
                       for_good ? "whether an earlier call with this request_id was done cannot be "
                                  "told: see the audit, and look at what it was about"
                                : "whether an earlier call with this request_id was done is not "
                                  "known until the disk works and its image is opened anew");
    spb_call_send(call);
}

static void answer_running(struct spb_call *call)
{
    spb_call_set_fault(call, PB_REASON(STILL_RUNNING),
                       "an earlier call with this request_id is still running");
    spb_call_send(call);
}

static void run_again(struct spb_post *post)
{
    struct spb_call *call = SPB_CONTAINER(post, struct spb_call, again);

    if (spb_call_refuse_at_end(call))
        return;
    if (spb_call_is_late(call, spb_loop_now_ns(call->daemon->loop)))
        spb_call_send(call);
    else
        spb_dispatch_run(call);
}

/* One that waited: it runs now, or gets what became of the one that it waited for. */
static void go_on(struct spb_call *call)
{
    struct spb_replay_party *done = call->party.done;

    if (call->party.entry != 0) {
        call->again.run = run_again;
        spb_loop_post(call->daemon->loop, &call->again, &call->again);
        return;
    }
    if (done->fate != SPB_FATE_DONE) {
        answer_unknown(call, done->fate == SPB_FATE_UNKNOWN);
        return;
    }
    const struct spb_call *before = call_of(done);
    if (before->payload == NULL) {
        answer_kept(call, done->record);
        return;
    }
    spb_call_set_packed_reply(call, before->payload, before->payload_size);
    spb_call_send(call);
}

/* ---- Claims and conclusions --------------------------------------------------------------- */

static struct spb_replay_key key_of(const struct spb_call *call)
{
    size_t count;

    return (struct spb_replay_key){
        .tenant = call->principal.tenant,
        .principal = call->principal.name,
        .method = (uint8_t)(call->method - spb_methods(&count)),
        .id = call->request_id,
    };
}

static void claim_again(struct spb_post *post)
{
    struct spb_call *call = SPB_CONTAINER(post, struct spb_call, again);

    if (!spb_call_refuse_at_end(call) && spb_repeat_claim(call))
        spb_dispatch_run(call);
}

static void try_doubts(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);

    spb_doubts_try(call->daemon->doubts);
    call->again.run = claim_again;
    spb_loop_post(call->daemon->loop, &call->again, &call->again);
}

/* It may be an act in doubt: that is tried first. */
static void answer_unsettled(struct spb_call *call)
{
    if (call->has_doubted || !spb_doubts_are(call->daemon->doubts)) {
        answer_unknown(call, false);
        return;
    }
    call->has_doubted = true;
    spb_call_to_workers(call, try_doubts);
}

/* In time for the answer to leave before the deadline. */
static int64_t give_up_ns(const struct spb_call *call)
{
    if (call->deadline_ns == 0)
        return spb_loop_now_ns(call->daemon->loop) + WAIT_NS;
    return call->deadline_ns - SPB_LOOP_TICK_MS * SPB_NS_PER_MS;
}

bool spb_repeat_claim(struct spb_call *call)
{
    struct spb_replay_key key = key_of(call);
    int64_t record = 0;

    if (!call->has_request_id)
        return true;
    switch (spb_replay_claim(call->daemon->repeats->replay, &key, call->payload_crc,
                             give_up_ns(call), &call->party, &record)) {
    case SPB_CLAIM_RUNS:
        return true;
    case SPB_CLAIM_WAITS:
        return false;
    case SPB_CLAIM_KEPT:
        answer_kept(call, record);
        return false;
    case SPB_CLAIM_UNSETTLED:
        answer_unsettled(call);
        return false;
    case SPB_CLAIM_UNKNOWN:
        answer_unknown(call, true);
        return false;
    case SPB_CLAIM_MISMATCH:
        spb_call_set_fault(call, PB_REASON(REQUEST_MISMATCH),
                           "the request_id was used for another %s, expected one of its own for "
                           "each change",
                           spb_repeat_method_text(call->daemon->repeats, call->method));
        break;
    case SPB_CLAIM_FULL:
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "no room to note the request_id; nothing was done");
        break;
    }
    spb_call_send(call);
    return false;
}

void spb_repeat_conclude(struct spb_daemon *daemon, struct spb_replay_party *parties)
{
    struct spb_replay_party *waited =
        spb_replay_conclude(daemon->repeats->replay, parties, unix_s());

    while (waited != NULL) {
        struct spb_replay_party *next = waited->next;

        go_on(call_of(waited));
        waited = next;
    }
}

void spb_repeat_tick(struct spb_daemon *daemon)
{
    struct spb_replay *replay = daemon->repeats->replay;
    struct spb_replay_party *late = spb_replay_overdue(replay, spb_loop_now_ns(daemon->loop));

    while (late != NULL) {
        struct spb_replay_party *next = late->next;

        answer_running(call_of(late));
        late = next;
    }
    spb_replay_limit(replay, (uint32_t)SPB_LIMIT(daemon, replay_entries_max),
                     (int64_t)SPB_LIMIT(daemon, replay_life_s));
    spb_replay_expire(replay, unix_s(), EXPIRED_AT_ONCE);
}

/* ---- Cancelling --------------------------------------------------------------------------- */

/* Under the table's lock, which keeps the call. */
static void cancel(struct spb_replay_party *party, void *user)
{
    struct spb_call *call = call_of(party), **taken = user;

    atomic_store_explicit(&call->cancelled, true, memory_order_relaxed);
    /* Only of such a call the image does not change while it runs. One that has waited for another,
     * and is to run now, has none yet: it sees that it was cancelled. */
    if (call->method->need == SPB_NEED_IMAGE && call->image != NULL && spb_actor_take_back(call)) {
        call->next = *taken;
        *taken = call;
    }
}

static void fail_cancelled(struct spb_call *call, const char *text)
{
    spb_call_set_fault(call, PB_REASON(CANCELLED), "%s", text);
    spb_call_send(call);
}

bool spb_repeat_cancel(struct spb_call *caller, const uint8_t id[SPB_REPLAY_ID_SIZE])
{
    struct spb_repeats *repeats = caller->daemon->repeats;
    struct spb_replay_key key = key_of(caller);
    struct spb_call *taken = NULL;
    bool found = false;

    key.id = id;
    struct spb_replay_party *waiting = spb_replay_cancel(
        repeats->replay, &key, (uint8_t)repeats->method_count, cancel, &taken, &found);
    while (waiting != NULL) {
        struct spb_replay_party *next = waiting->next;

        fail_cancelled(call_of(waiting),
                       "the call was cancelled while it waited for an earlier one "
                       "with this request_id, which may be done yet");
        waiting = next;
    }
    while (taken != NULL) {
        struct spb_call *call = taken;

        taken = call->next;
        if (call->kind->failed != NULL)
            call->kind->failed(call);
        fail_cancelled(call, "the call was cancelled; nothing was done");
    }
    return found;
}
