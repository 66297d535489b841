/*
 * Images: scrub. Asks for one, or tells of the running or last one; a call that waits for its end
 * does so on the loop's thread, as all of this does.
 */
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "scrub.h"
#include "services/services.h"
#include "waits.h"

#define WAIT_S_MAX 60u

/* A call that waits for the end of its image's scrub; in its arena. */
struct spb_scrub_wait {
    struct spb_waiter waiter;
    struct spb_call *call;
    struct spb_scrub_wait *next;
};

bool spb_images_scrub_gate(struct spb_call *call)
{
    const PB_ScrubImageRequest *request = (const void *)call->request;

    return spb_gate_max(call, "wait_seconds", request->wait_seconds, WAIT_S_MAX);
}

/* ---- The answer --------------------------------------------------------------------------- */

struct telling {
    struct spb_call *call;
    PB_ScrubImageResponse reply;
    bool good; /* all of it was copied */
};

static void *copy(struct spb_call *call, const void *data, size_t n)
{
    void *copied = spb_call_alloc(call, n + 1);

    if (copied != NULL)
        memcpy(copied, data, n + 1);
    return copied;
}

static bool copy_findings(struct telling *telling, const struct spb_scrub_report *report)
{
    PB_Finding *shown = spb_call_alloc(telling->call, report->count * sizeof(*shown));
    PB_ScrubImageResponse *reply = &telling->reply;

    reply->findings = spb_call_alloc(telling->call, report->count * sizeof(PB_Finding *));
    if (shown == NULL || reply->findings == NULL)
        return false;
    for (size_t i = 0; i < report->count; i++) {
        const struct spb_finding *finding = &report->findings[i];
        const char *text = copy(telling->call, finding->text, strlen(finding->text));

        if (text == NULL)
            return false;
        shown[i] = (PB_Finding)SPACEBLOCK__V1__FINDING__INIT;
        /* The API lists them in the library's order. */
        shown[i].kind =
            (Spaceblock__V1__FindingKind)(SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_PARAM_CORRUPT +
                                          (int)finding->kind);
        shown[i].index = finding->index;
        shown[i].repairable = finding->repairable;
        shown[i].text = spb_pb_text(text);
        reply->findings[i] = &shown[i];
    }
    reply->n_findings = report->count;
    return true;
}

/* Under the scrubs' lock. */
static void tell(void *user, enum spb_scrub_state state, const struct spb_scrub_report *report)
{
    struct telling *telling = user;
    PB_ScrubImageResponse *reply = &telling->reply;
    const char *failure = copy(telling->call, report->failure, strlen(report->failure));

    reply->running = state != SPB_SCRUB_IDLE;
    /* One that has not had its turn yet has done nothing. */
    if (state != SPB_SCRUB_QUEUED) {
        reply->done_bytes = report->done_bytes;
        reply->total_bytes = report->total_bytes;
        reply->started_at = (uint64_t)report->started_at;
        reply->ended_at = (uint64_t)report->ended_at;
    }
    telling->good = failure != NULL && copy_findings(telling, report);
    if (telling->good)
        reply->failure = spb_pb_text(failure);
}

static void look(struct spb_call *call, struct telling *telling)
{
    *telling = (struct telling){.call = call};
    telling->reply = (PB_ScrubImageResponse)SPACEBLOCK__V1__SCRUB_IMAGE_RESPONSE__INIT;
    spb_scrub_look(call->image, tell, telling);
}

static void answer(struct spb_call *call)
{
    struct telling telling;

    look(call, &telling);
    if (telling.good)
        spb_call_set_reply(call, &telling.reply.base);
    spb_call_send(call);
}

/* ---- Waiting ------------------------------------------------------------------------------ */

static void leave(struct spb_scrub_wait *wait)
{
    struct spb_scrub_wait **link = &wait->call->image->scrub.waits;

    while (*link != wait)
        link = &(*link)->next;
    *link = wait->next;
}

/* Its time has passed, its connection has ended, or the daemon drains. */
static void end_wait(struct spb_waiter *waiter)
{
    struct spb_scrub_wait *wait = SPB_CONTAINER(waiter, struct spb_scrub_wait, waiter);

    leave(wait);
    answer(wait->call);
}

void spb_images_scrub_ended(struct spb_image *image)
{
    while (image->scrub.waits != NULL) {
        struct spb_scrub_wait *wait = image->scrub.waits;

        spb_waits_remove(image->daemon->waits, &wait->waiter);
        image->scrub.waits = wait->next;
        answer(wait->call);
    }
}

static void tell_running(void *user, enum spb_scrub_state state,
                         const struct spb_scrub_report *report)
{
    bool *running = user;

    (void)report;
    *running = state != SPB_SCRUB_IDLE;
}

/* Whether the call waits; else it is to be answered. A scrub that ends in between has posted that
 * already, or will. */
static bool waits(struct spb_call *call, int64_t until_ns)
{
    bool running = false;

    spb_scrub_look(call->image, tell_running, &running);
    if (!running || !spb_wait_may_begin(call, until_ns))
        return false;
    spb_call_forget_request(call);
    struct spb_scrub_wait *wait = spb_call_alloc(call, sizeof(*wait));
    if (wait == NULL)
        return false;
    *wait = (struct spb_scrub_wait){
        .waiter = {.call = call, .until_ns = until_ns, .end = end_wait},
        .call = call,
        .next = call->image->scrub.waits,
    };
    if (!spb_waits_add(call->daemon->waits, &wait->waiter)) {
        spb_call_send(call);
        return true;
    }
    call->image->scrub.waits = wait;
    return true;
}

void spb_images_scrub(struct spb_call *call)
{
    const PB_ScrubImageRequest *request = (const void *)call->request;
    int64_t until_ns = spb_wait_until(call, request->wait_seconds * 1000);

    if (request->start) {
        if (spb_image_state(call->image) != SPB_IMAGE_READY) {
            spb_image_set_unserved(call->image, call);
            spb_call_send(call);
            return;
        }
        spb_scrub_ask(call->image);
    }
    if (!waits(call, until_ns))
        answer(call);
}
