/* Acts in doubt; see doubts.h. */
#include "doubts.h"

#include <pthread.h>
#include <stdlib.h>

#include "artifacts.h"
#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"
#include "intent.h"
#include "repeat.h"

enum what { NAME, ARTIFACT_STORED, ARTIFACT_DELETED };

struct doubt {
    struct doubt *next;
    enum what what;
    uint16_t tenant;
    char *path;                       /* NAME; owned */
    struct spb_artifact_row artifact; /* of the others */
    struct spb_open_group *open;
    struct spb_pending_call call; /* whose act it is */
};

struct spb_doubts {
    struct spb_daemon *daemon;
    pthread_mutex_t lock; /* over the list, and while something is tried */
    struct doubt *first, **last;
    atomic_size_t count;
};

static void doubt_free(struct doubt *doubt)
{
    free(doubt->path);
    free(doubt);
}

spb_status spb_doubts_new(struct spb_daemon *daemon, struct spb_doubts **out, struct spb_error *err)
{
    struct spb_doubts *doubts = calloc(1, sizeof(*doubts));

    if (doubts == NULL)
        return spb_fail_memory(err, "making room for acts in doubt");
    (void)pthread_mutex_init(&doubts->lock, NULL);
    doubts->daemon = daemon;
    doubts->last = &doubts->first;
    *out = doubts;
    return spb_ok();
}

void spb_doubts_free(struct spb_doubts *doubts)
{
    if (doubts == NULL)
        return;
    spb_doubts_try(doubts);
    while (doubts->first != NULL) {
        struct doubt *doubt = doubts->first;

        doubts->first = doubt->next;
        spb_audit_abandon(doubt->open);
        doubt_free(doubt);
    }
    (void)pthread_mutex_destroy(&doubts->lock);
    free(doubts);
}

/* ---- Adding ------------------------------------------------------------------------------- */

static void describe_call(const struct spb_call *call, struct spb_pending_call *out)
{
    out->id = call->party.record;
    out->principal_tenant = call->principal.tenant;
    (void)snprintf(out->principal, sizeof(out->principal), "%s", call->principal.name);
    (void)snprintf(out->method, sizeof(out->method), "%s",
                   spb_repeat_method_text(call->daemon->repeats, call->method));
    out->has_request_id = call->has_request_id;
    memcpy(out->request_id, call->request_id, sizeof(out->request_id));
}

static void add(struct spb_call *call, struct doubt *doubt)
{
    struct spb_doubts *doubts = call->daemon->doubts;

    describe_call(call, &doubt->call);
    doubt->open = spb_intent_keep_open(call);
    spb_log(&call->daemon->log, SPB_LOG_ERROR, "act-in-doubt", SPB_NUMBER("tenant", doubt->tenant),
            SPB_TEXT("method", doubt->call.method), SPB_NUMBER("record", doubt->call.id));
    (void)pthread_mutex_lock(&doubts->lock);
    *doubts->last = doubt;
    doubts->last = &doubt->next;
    atomic_fetch_add(&doubts->count, 1);
    (void)pthread_mutex_unlock(&doubts->lock);
}

void spb_doubt_name(struct spb_call *call, uint16_t tenant, const char *path)
{
    struct doubt *doubt = calloc(1, sizeof(*doubt));

    if (doubt == NULL || (doubt->path = strdup(path)) == NULL) {
        free(doubt);
        spb_intent_abandon(call);
        return;
    }
    doubt->what = NAME;
    doubt->tenant = tenant;
    add(call, doubt);
}

void spb_doubt_artifact(struct spb_call *call, const struct spb_artifact_row *row, bool deleted)
{
    struct doubt *doubt = calloc(1, sizeof(*doubt));

    if (doubt == NULL) {
        spb_intent_abandon(call);
        return;
    }
    doubt->what = deleted ? ARTIFACT_DELETED : ARTIFACT_STORED;
    doubt->tenant = row->tenant;
    doubt->artifact = *row;
    add(call, doubt);
}

/* ---- Settling ----------------------------------------------------------------------------- */

static spb_status try_one(struct spb_daemon *daemon, const struct doubt *doubt,
                          struct spb_error *err)
{
    switch (doubt->what) {
    case NAME:
        return spb_folder_sync(doubt->path, err);
    case ARTIFACT_STORED:
        return spb_artifact_store_again(daemon, &doubt->artifact, err);
    case ARTIFACT_DELETED:
        return spb_artifact_delete_again(daemon, &doubt->artifact, err);
    }
    return spb_ok();
}

/* It was done; what was to be answered is recorded with its intent. */
static void settle(struct spb_daemon *daemon, const struct doubt *doubt)
{
    spb_audit_end(doubt->open, SPB_OUTCOME_DONE, NULL, 0);
    spb_repeat_settle(daemon, &doubt->call, SPB_OUTCOME_DONE);
    spb_log(&daemon->log, SPB_LOG_INFO, "doubt-settled", SPB_NUMBER("tenant", doubt->tenant),
            SPB_TEXT("method", doubt->call.method), SPB_NUMBER("record", doubt->call.id));
}

/* In their order; of all tenants where tenant is less than 0. */
static spb_status settle_those(struct spb_doubts *doubts, int32_t tenant, struct spb_error *err)
{
    struct doubt **place = &doubts->first;
    spb_status status = spb_ok();
    struct spb_error failed;

    while (*place != NULL) {
        struct doubt *doubt = *place;

        if (tenant >= 0 && doubt->tenant != tenant) {
            place = &doubt->next;
        } else if (spb_is_ok(try_one(doubts->daemon, doubt, &failed))) {
            settle(doubts->daemon, doubt);
            *place = doubt->next;
            doubt_free(doubt);
            atomic_fetch_sub(&doubts->count, 1);
        } else {
            status = spb_fail(err, SPB_IO,
                              "nothing was done: an earlier %s of tenant %u is not known to be "
                              "durable yet (%.200s)",
                              doubt->call.method, (unsigned)doubt->tenant, failed.text);
            place = &doubt->next;
        }
    }
    doubts->last = place;
    return status;
}

static spb_status settle_locked(struct spb_doubts *doubts, int32_t tenant, struct spb_error *err)
{
    if (!spb_doubts_are(doubts))
        return spb_ok();
    (void)pthread_mutex_lock(&doubts->lock);
    spb_status status = settle_those(doubts, tenant, err);
    (void)pthread_mutex_unlock(&doubts->lock);
    return status;
}

spb_status spb_doubts_settle(struct spb_doubts *doubts, uint16_t tenant, struct spb_error *err)
{
    return settle_locked(doubts, tenant, err);
}

void spb_doubts_try(struct spb_doubts *doubts)
{
    struct spb_error left;

    (void)settle_locked(doubts, -1, &left);
}

bool spb_doubts_are(const struct spb_doubts *doubts)
{
    return atomic_load(&doubts->count) > 0;
}
