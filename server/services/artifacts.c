/*
 * Artifacts: listing, telling of and deleting what was uploaded. The rows are in the database, so
 * all runs on the workers. Uploading is the service Uploads'.
 */
#include "artifacts.h"

#include <stdlib.h>

#include "acts.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "doubts.h"
#include "services/services.h"

#define PAGE_MAX 1000u

static void set_absent(struct spb_call *call)
{
    spb_call_set_fault(call, PB_REASON(NOT_FOUND), "no such artifact");
}

/* Where it may not be seen it is absent. */
static void set_failure(struct spb_call *call, const struct spb_error *err)
{
    if (err->code == SPB_NOT_FOUND)
        set_absent(call);
    else
        spb_act_set_error(call, err);
}

static bool may_see(const struct spb_call *call, uint16_t tenant)
{
    return call->principal.is_site_admin || call->principal.tenant == tenant;
}

/* Answers the call where the tenant is not the caller's to name. */
static void run_for(struct spb_call *call, uint16_t tenant, void (*run)(struct spb_task *task))
{
    if (may_see(call, tenant)) {
        spb_call_to_workers(call, run);
        return;
    }
    set_absent(call);
    spb_call_send(call);
}

/* ---- List --------------------------------------------------------------------------------- */

static uint16_t list_tenant(const struct spb_call *call)
{
    const PB_ListArtifactsRequest *request = (const void *)call->request;
    bool named =
        request->if_tenant_case == SPACEBLOCK__V1__LIST_ARTIFACTS_REQUEST__IF_TENANT_TENANT;

    return named ? (uint16_t)request->tenant : call->principal.tenant;
}

bool spb_artifacts_list_gate(struct spb_call *call)
{
    const PB_ListArtifactsRequest *request = (const void *)call->request;

    if (!spb_gate_max(call, "tenant", request->tenant, UINT16_MAX) ||
        !spb_gate_max(call, "page_size", request->page_size, PAGE_MAX))
        return false;
    if (request->page_token.len == 0 || request->page_token.len == SPB_SHA256_SIZE)
        return true;
    spb_call_set_bad_field(call, "page_token", "expected the next_page_token of an earlier answer");
    return false;
}

struct page {
    struct spb_artifact_row *rows; /* in the arena */
    size_t count, most;
};

static void take_row(void *user, const struct spb_artifact_row *row)
{
    struct page *page = user;

    if (page->count < page->most)
        page->rows[page->count++] = *row;
}

/* One row more than is shown tells whether there is another page. */
static void set_list(struct spb_call *call, const struct page *page)
{
    PB_ListArtifactsResponse reply = SPACEBLOCK__V1__LIST_ARTIFACTS_RESPONSE__INIT;
    size_t shown_count = page->count < page->most ? page->count : page->most - 1;
    PB_Artifact *shown = spb_call_alloc(call, shown_count * sizeof(*shown));

    reply.artifacts = spb_call_alloc(call, shown_count * sizeof(PB_Artifact *));
    if (shown == NULL || reply.artifacts == NULL)
        return;
    for (size_t i = 0; i < shown_count; i++) {
        spb_artifact_show(&page->rows[i], &shown[i]);
        reply.artifacts[i] = &shown[i];
    }
    reply.n_artifacts = shown_count;
    if (shown_count < page->count)
        reply.next_page_token = spb_pb_bytes(page->rows[shown_count - 1].sha256, SPB_SHA256_SIZE);
    spb_call_set_reply(call, &reply.base);
}

static void run_list(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    const PB_ListArtifactsRequest *request = (const void *)call->request;
    size_t size = request->page_size == 0 ? PAGE_MAX : request->page_size;
    struct page page = {.most = size + 1};
    const uint8_t *after = request->page_token.len > 0 ? request->page_token.data : NULL;
    struct spb_error err;

    page.rows = spb_call_alloc(call, page.most * sizeof(*page.rows));
    if (page.rows != NULL) {
        spb_status status = spb_rows_artifacts(call->daemon->audit, list_tenant(call), after,
                                               (uint32_t)page.most, take_row, &page, &err);
        if (spb_is_ok(status))
            set_list(call, &page);
        else
            spb_call_set_error(call, &err);
    }
    spb_call_send(call);
}

void spb_artifacts_list(struct spb_call *call)
{
    PB_ListArtifactsResponse nothing = SPACEBLOCK__V1__LIST_ARTIFACTS_RESPONSE__INIT;

    /* Another tenant's artifacts and none are the same answer. */
    if (may_see(call, list_tenant(call)))
        spb_call_to_workers(call, run_list);
    else
        spb_call_reply(call, &nothing.base);
}

/* ---- Get ---------------------------------------------------------------------------------- */

bool spb_artifacts_get_gate(struct spb_call *call)
{
    const PB_GetArtifactRequest *request = (const void *)call->request;

    return spb_gate_max(call, "tenant", request->tenant, UINT16_MAX) &&
           spb_gate_artifact_hash(call, "sha256", &request->sha256);
}

static uint16_t get_tenant(const struct spb_call *call)
{
    const PB_GetArtifactRequest *request = (const void *)call->request;
    bool named = request->if_tenant_case == SPACEBLOCK__V1__GET_ARTIFACT_REQUEST__IF_TENANT_TENANT;

    return named ? (uint16_t)request->tenant : call->principal.tenant;
}

static spb_status verify(struct spb_call *call, struct spb_error *err)
{
    const PB_GetArtifactRequest *request = (const void *)call->request;
    char *path = NULL;

    SPB_TRY(spb_artifact_path(call->daemon, get_tenant(call), request->sha256.data, &path, err));
    spb_status status =
        spb_artifact_check(path, request->sha256.data, spb_call_may_go_on, call, err);
    free(path);
    return status;
}

static void run_get(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    const PB_GetArtifactRequest *request = (const void *)call->request;
    PB_GetArtifactResponse reply = SPACEBLOCK__V1__GET_ARTIFACT_RESPONSE__INIT;
    struct spb_artifact_row row;
    PB_Artifact shown;
    struct spb_error err;
    spb_status status =
        spb_artifact_find(call->daemon, get_tenant(call), request->sha256.data, &row, &err);

    if (spb_is_ok(status) && request->verify)
        status = verify(call, &err);
    if (spb_is_ok(status)) {
        spb_artifact_show(&row, &shown);
        reply.artifact = &shown;
        spb_call_set_reply(call, &reply.base);
    } else {
        set_failure(call, &err);
    }
    spb_call_send(call);
}

void spb_artifacts_get(struct spb_call *call)
{
    run_for(call, get_tenant(call), run_get);
}

/* ---- Delete ------------------------------------------------------------------------------- */

bool spb_artifacts_delete_gate(struct spb_call *call)
{
    const PB_DeleteArtifactRequest *request = (const void *)call->request;

    return spb_gate_max(call, "tenant", request->tenant, UINT16_MAX) &&
           spb_gate_artifact_hash(call, "sha256", &request->sha256);
}

static uint16_t delete_tenant(const struct spb_call *call)
{
    const PB_DeleteArtifactRequest *request = (const void *)call->request;
    bool named =
        request->if_tenant_case == SPACEBLOCK__V1__DELETE_ARTIFACT_REQUEST__IF_TENANT_TENANT;

    return named ? (uint16_t)request->tenant : call->principal.tenant;
}

static spb_status begin_delete(struct spb_call *call, const struct spb_artifact_row *row,
                               struct spb_error *err)
{
    struct spb_act_detail detail = {
        .kind = SPB_ACT_ARTIFACT_DELETE, .tenant = row->tenant, .size = row->size};
    PB_DeleteArtifactResponse reply = SPACEBLOCK__V1__DELETE_ARTIFACT_RESPONSE__INIT;
    char object[16 + SPB_SHA256_TEXT_SIZE] = "artifact ";

    memcpy(detail.sha256, row->sha256, sizeof(detail.sha256));
    spb_sha256_text(row->sha256, object + strlen(object));
    spb_call_set_reply(call, &reply.base);
    struct spb_act_texts texts = {.object = object, .before = "present", .after = "absent"};
    return spb_act_begin(call, &detail, &texts, err);
}

static spb_status delete_artifact(struct spb_call *call, struct spb_error *err)
{
    const PB_DeleteArtifactRequest *request = (const void *)call->request;
    struct spb_artifact_row row;
    bool removed = false;

    SPB_TRY(spb_doubts_settle(call->daemon->doubts, delete_tenant(call), err));
    SPB_TRY(spb_artifact_find(call->daemon, delete_tenant(call), request->sha256.data, &row, err));
    SPB_TRY(begin_delete(call, &row, err));
    spb_status status = spb_artifact_delete(call->daemon, row.tenant, row.sha256, &removed, err);
    if (removed && !spb_is_ok(status))
        spb_doubt_artifact(call, &row, true);
    else
        spb_act_end(call, spb_is_ok(status), false);
    return status;
}

static void run_delete(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_error err;

    if (!spb_call_is_late(call, spb_now_ns()) && !spb_is_ok(delete_artifact(call, &err)))
        set_failure(call, &err);
    spb_call_send(call);
}

void spb_artifacts_delete(struct spb_call *call)
{
    run_for(call, delete_tenant(call), run_delete);
}
