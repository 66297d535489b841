/* The calls of a client that reconnects, without I/O. See retrier.h. */
#include "retrier.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "call_reply.h"

static const char no_time[] = "no time is left for another attempt";
static const char no_retries[] = "no retries are left";

void spb_retrier_init(struct spb_retrier *retrier, const struct spb_client_options *options,
                      const char *endpoint, uint64_t seed, int64_t now_ns)
{
    *retrier = (struct spb_retrier){
        .now_ns = now_ns,
        .dial_ns = now_ns,
        .first_until_ns = spb_deadline_after(now_ns, options->first_connect_ms),
        .notice = options->notice,
        .notice_user = options->notice_user,
        .endpoint = endpoint,
    };
    spb_retry_policy_init(&retrier->policy, options, seed);
}

void spb_retrier_done(struct spb_retrier *retrier)
{
    SPB_ASSERT(retrier->count == 0);
    spb_timers_done(&retrier->timers);
}

/* ---- Where a call is ---------------------------------------------------------------------- */

static void set_timer(struct spb_retry_call *call, int64_t when_ns)
{
    if (when_ns != SPB_NO_DEADLINE)
        spb_timers_set(&call->retrier->timers, &call->timer, when_ns);
}

/* Behind those that were started before it. */
static void wait_for_link(struct spb_retry_call *call)
{
    struct spb_retrier *retrier = call->retrier;
    struct spb_retry_call *older = retrier->newest;

    while (older != NULL && older->sequence > call->sequence)
        older = older->older;
    call->older = older;
    call->newer = older == NULL ? retrier->oldest : older->newer;
    *(older == NULL ? &retrier->oldest : &older->newer) = call;
    *(call->newer == NULL ? &retrier->newest : &call->newer->older) = call;
    retrier->waiting++;
    call->place = SPB_RETRY_WAITS;
    set_timer(call, call->deadline_ns);
}

/* Out of the list, the timers or the count of its place. */
static void leave(struct spb_retry_call *call)
{
    struct spb_retrier *retrier = call->retrier;

    spb_timers_drop(&retrier->timers, &call->timer);
    if (call->place == SPB_RETRY_ON_WIRE)
        retrier->on_wire--;
    if (call->place != SPB_RETRY_WAITS)
        return;
    *(call->older == NULL ? &retrier->oldest : &call->older->newer) = call->newer;
    *(call->newer == NULL ? &retrier->newest : &call->newer->older) = call->older;
    retrier->waiting--;
}

spb_status spb_retrier_add(struct spb_retrier *retrier, const struct spb_client_call *call,
                           int64_t deadline_ns, struct spb_error *err)
{
    size_t service = strlen(call->service) + 1, method = strlen(call->method) + 1;

    if (retrier->is_closed)
        return spb_fail(err, SPB_UNREACHABLE, "%s/%s: the client is being closed", call->service,
                        call->method);
    struct spb_retry_call *made = malloc(sizeof(*made) + service + method + call->size);
    if (made == NULL || !spb_timers_reserve(&retrier->timers, retrier->count + 1)) {
        free(made);
        return spb_fail_memory(err, "starting a call");
    }
    char *bytes = (char *)(made + 1);
    *made = (struct spb_retry_call){
        .retrier = retrier,
        .sequence = retrier->sequence++,
        .timer = {.index = SPB_TIMER_IDLE},
        .deadline_ns = deadline_ns,
        .timeout_ms = call->timeout_ms,
        .mode = call->mode,
        .callback = call->callback,
        .user = call->user,
        .service = memcpy(bytes, call->service, service),
        .method = memcpy(bytes + service, call->method, method),
        .payload = (const uint8_t *)bytes + service + method,
        .size = call->size,
    };
    if (call->size > 0)
        memcpy(bytes + service + method, call->payload, call->size);
    spb_retry_policy_earn(&retrier->policy);
    retrier->count++;
    wait_for_link(made);
    return spb_ok();
}

/* ---- Ending ------------------------------------------------------------------------------- */

/* The callback may start calls. Being ended from inside another callback keeps the flag. */
static void end_call(struct spb_retry_call *call, const struct spb_client_reply *reply)
{
    struct spb_retrier *retrier = call->retrier;
    bool was_in_callback = retrier->is_in_callback;

    leave(call);
    retrier->count--;
    retrier->ended++;
    retrier->is_in_callback = true;
    call->callback(call->user, reply);
    retrier->is_in_callback = was_in_callback;
    free(call);
}

/* The last failure becomes the call's; note says why it is not tried again, or is NULL. */
static void end_failed(struct spb_retry_call *call, const char *note)
{
    const struct spb_error *why = &call->why;
    struct spb_client_reply reply;
    struct spb_error err = *why;

    if (call->attempts > 1)
        (void)spb_fail(&err, why->code, "%s (tried %u times%s%s)", why->text, call->attempts,
                       note == NULL ? "" : "; ", note == NULL ? "" : note);
    else if (note != NULL)
        (void)spb_fail(&err, why->code, "%s (%s)", why->text, note);
    err.saved_errno = why->saved_errno;
    spb_reply_from_error(&err, &reply);
    reply.rpc_code = call->failure.rpc_code;
    memcpy(reply.reason, call->failure.reason, sizeof(reply.reason));
    reply.was_sent = call->was_sent;
    end_call(call, &reply);
}

static void note_failure(struct spb_retry_call *call, const struct spb_error *why)
{
    call->why = *why;
    call->failure = (struct spb_client_failure){.rpc_code = -1};
}

static void note_reply(struct spb_retry_call *call, const struct spb_client_reply *reply)
{
    note_failure(call, reply->error);
    call->failure.rpc_code = reply->rpc_code;
    memcpy(call->failure.reason, reply->reason, sizeof(call->failure.reason));
}

static void tell(struct spb_retrier *retrier, bool is_connection, int64_t when_ns,
                 const struct spb_error *why)
{
    const struct spb_client_notice notice = {
        .endpoint = retrier->endpoint,
        .is_connection = is_connection,
        .delay_ms = spb_ms_until(when_ns, retrier->now_ns),
        .why = why,
    };
    bool was_in_callback = retrier->is_in_callback;

    if (retrier->notice == NULL)
        return;
    retrier->is_in_callback = true;
    retrier->notice(retrier->notice_user, &notice);
    retrier->is_in_callback = was_in_callback;
}

/* ---- Attempts ----------------------------------------------------------------------------- */

void spb_retrier_sent(struct spb_retry_call *call)
{
    leave(call);
    call->place = SPB_RETRY_ON_WIRE;
    call->was_sent = true;
    call->attempts++;
    call->retrier->on_wire++;
}

void spb_retrier_not_sent(struct spb_retry_call *call, const struct spb_error *why)
{
    note_failure(call, why);
    end_failed(call, NULL);
}

/* The next attempt is at when_ns, unless time or budget do not allow it. */
static bool has_another(struct spb_retry_call *call, int64_t when_ns)
{
    const char *note = NULL;

    if (when_ns >= call->deadline_ns)
        note = no_time;
    else if (!spb_retry_policy_spend(&call->retrier->policy))
        note = no_retries;
    if (note != NULL)
        end_failed(call, note);
    return note == NULL;
}

static void repeat_later(struct spb_retry_call *call, int64_t after_ms)
{
    struct spb_retrier *retrier = call->retrier;
    int64_t when_ns =
        retrier->now_ns + spb_retry_policy_delay_ns(&retrier->policy, call->refusals++, after_ms);

    if (!has_another(call, when_ns))
        return;
    leave(call);
    call->place = SPB_RETRY_PAUSES;
    set_timer(call, when_ns);
    tell(retrier, false, when_ns, &call->why);
}

static void repeat_on_next_link(struct spb_retry_call *call)
{
    if (!has_another(call, call->retrier->dial_ns))
        return;
    leave(call);
    wait_for_link(call);
}

void spb_retrier_take_reply(void *user, const struct spb_client_reply *reply)
{
    struct spb_retry_call *call = user;
    struct spb_retrier *retrier = call->retrier;

    if (reply->rpc_code >= 0)
        retrier->failures = 0;
    if (call->mode != SPB_CLIENT_REPEAT || retrier->is_closed || !spb_retry_can_mend(reply)) {
        if (reply->rpc_code < 0) {
            note_reply(call, reply);
            end_failed(call, NULL);
        } else {
            end_call(call, reply);
        }
        return;
    }
    note_reply(call, reply);
    if (reply->rpc_code < 0)
        repeat_on_next_link(call);
    else
        repeat_later(call, reply->retry_after_ms);
}

/* ---- Connections -------------------------------------------------------------------------- */

/* The time for the first connection is used to its end. */
static void schedule_dial(struct spb_retrier *retrier)
{
    retrier->dial_ns =
        retrier->now_ns + spb_retry_policy_delay_ns(&retrier->policy, retrier->failures, -1);
    if (!retrier->was_up && retrier->now_ns < retrier->first_until_ns &&
        retrier->dial_ns > retrier->first_until_ns)
        retrier->dial_ns = retrier->first_until_ns;
    retrier->failures++;
}

void spb_retrier_link_up(struct spb_retrier *retrier)
{
    retrier->was_up = true;
}

void spb_retrier_link_lost(struct spb_retrier *retrier, bool was_needed)
{
    if (was_needed)
        schedule_dial(retrier);
    else
        retrier->dial_ns = retrier->now_ns;
}

void spb_retrier_tell_lost(struct spb_retrier *retrier, const struct spb_error *why)
{
    if (spb_retrier_wants_link(retrier))
        tell(retrier, true, retrier->dial_ns, why);
}

static bool is_first_over(const struct spb_retrier *retrier)
{
    return !retrier->was_up && retrier->now_ns >= retrier->first_until_ns;
}

/* May those that wait, and may be tried again, wait for another attempt? One spends for all. */
static const char *refuse_dial(struct spb_retrier *retrier)
{
    if (is_first_over(retrier))
        return no_time;
    return spb_retry_policy_spend(&retrier->policy) ? NULL : no_retries;
}

/* Callbacks may start calls: those wait for the next attempt, and this goes over the others. */
void spb_retrier_dial_failed(struct spb_retrier *retrier, const struct spb_error *why)
{
    uint64_t end = retrier->sequence;
    struct spb_retry_call *call, *newer;
    const char *refusal = NULL;
    bool is_asked = false;

    schedule_dial(retrier);
    retrier->dial_why = *why;
    for (call = retrier->oldest; call != NULL && call->sequence < end; call = newer) {
        const char *note = retrier->dial_ns >= call->deadline_ns ? no_time : NULL;
        newer = call->newer;
        note_failure(call, why);
        call->attempts++;
        if (call->mode == SPB_CLIENT_REPEAT && note == NULL) {
            refusal = is_asked ? refusal : refuse_dial(retrier);
            is_asked = true;
            note = refusal;
            if (note == NULL)
                continue;
        }
        end_failed(call, call->mode == SPB_CLIENT_REPEAT ? note : NULL);
    }
    spb_retrier_tell_lost(retrier, why);
}

/* ---- Time --------------------------------------------------------------------------------- */

static struct spb_retry_call *call_of(struct spb_timer *timer)
{
    return (struct spb_retry_call *)(void *)((char *)timer -
                                             offsetof(struct spb_retry_call, timer));
}

/* Its time passed while others were trying to connect, or it came in between two attempts. */
static void end_untried(struct spb_retry_call *call)
{
    const struct spb_retrier *retrier = call->retrier;
    bool is_known = retrier->failures > 0 && retrier->dial_why.code != SPB_OK;
    struct spb_error why;

    (void)spb_fail(&why, SPB_UNREACHABLE, "%s/%s: no connection to %s within %lld ms%s%s",
                   call->service, call->method, retrier->endpoint, (long long)call->timeout_ms,
                   is_known ? "; the last attempt: " : "", is_known ? retrier->dial_why.text : "");
    note_failure(call, &why);
    end_failed(call, NULL);
}

void spb_retrier_expire(struct spb_retrier *retrier)
{
    struct spb_timer *first;

    while ((first = spb_timers_first(&retrier->timers)) != NULL &&
           first->when_ns <= retrier->now_ns) {
        struct spb_retry_call *call = call_of(first);
        if (call->place == SPB_RETRY_PAUSES) {
            leave(call);
            wait_for_link(call);
        } else if (call->attempts == 0) {
            end_untried(call);
        } else {
            end_failed(call, no_time);
        }
    }
}

int64_t spb_retrier_wake_ns(const struct spb_retrier *retrier)
{
    const struct spb_timer *first = spb_timers_first(&retrier->timers);

    return first == NULL ? SPB_NO_DEADLINE : first->when_ns;
}

static void end_closed(struct spb_retry_call *call, const struct spb_error *why)
{
    struct spb_client_reply reply;
    struct spb_error err;

    (void)spb_fail(&err, why->code, "%s/%s: %s", call->service, call->method, why->text);
    spb_reply_from_error(&err, &reply);
    reply.was_sent = call->was_sent;
    end_call(call, &reply);
}

void spb_retrier_close(struct spb_retrier *retrier, const struct spb_error *why)
{
    struct spb_timer *first;

    retrier->is_closed = true;
    while (retrier->oldest != NULL)
        end_closed(retrier->oldest, why);
    /* What has a timer and does not wait pauses. */
    while ((first = spb_timers_first(&retrier->timers)) != NULL)
        end_closed(call_of(first), why);
}
