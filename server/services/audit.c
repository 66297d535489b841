/*
 * Audit: the list of what was changed, by whom, and what became of it. Read on a worker. A caller
 * sees its own tenant; site administrators see all.
 */
#include <stdio.h>

#include "audit/audit.h"
#include "base/bytes.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "services/services.h"

#define PAGE_DEFAULT 100u
#define PAGE_MAX 1000u
#define SCAN_MAX 100000u /* records looked at for one answer */
#define FIXED_SIZE 128u  /* of a record, beside its texts; more than it takes */

/* ---- The request -------------------------------------------------------------------------- */

static bool gate_text(struct spb_call *call, const char *field, const ProtobufCBinaryData *text,
                      size_t max)
{
    if (text->len <= max &&
        memchr(text->len == 0 ? "" : (const char *)text->data, '\0', text->len) == NULL &&
        spb_bytes_are_utf8(text->data, text->len))
        return true;
    spb_call_set_bad_field(
        call, field, "found %zu bytes, expected at most %zu of UTF-8 without NUL", text->len, max);
    return false;
}

static bool gate_image(struct spb_call *call, const ProtobufCBinaryData *name)
{
    if (name->len == 0 || spb_image_name_is_valid(name->data, name->len))
        return true;
    spb_call_set_bad_field(
        call, "image", "found %zu bytes, expected an image's name: 1 to %u of A-Z a-z 0-9 . _ -",
        name->len, SPB_IMAGE_NAME_MAX);
    return false;
}

static bool names_tenant(const PB_ListAuditRequest *request)
{
    return request->if_tenant_case == SPACEBLOCK__V1__LIST_AUDIT_REQUEST__IF_TENANT_TENANT;
}

bool spb_audit_list_gate(struct spb_call *call)
{
    const PB_ListAuditRequest *request = (const void *)call->request;

    if (names_tenant(request) && !spb_gate_max(call, "tenant", request->tenant, UINT16_MAX))
        return false;
    if (names_tenant(request) && request->all_tenants) {
        spb_call_set_bad_field(call, "all_tenants", "is set beside tenant, expected one of them");
        return false;
    }
    return gate_image(call, &request->image) &&
           gate_text(call, "principal", &request->principal, SPB_AUDIT_PRINCIPAL_SIZE - 1) &&
           gate_text(call, "method", &request->method, SPB_AUDIT_METHOD_SIZE - 1) &&
           spb_gate_max(call, "outcome", (uint64_t)request->outcome,
                        SPACEBLOCK__V1__AUDIT_OUTCOME__AUDIT_OUTCOME_UNKNOWN) &&
           spb_gate_max(call, "since_us", request->since_us, INT64_MAX) &&
           spb_gate_max(call, "until_us", request->until_us, INT64_MAX) &&
           spb_gate_max(call, "page_size", request->page_size, PAGE_MAX) &&
           spb_gate_max(call, "before_id", request->before_id, INT64_MAX);
}

/* ---- The answer --------------------------------------------------------------------------- */

struct listing {
    struct spb_call *call;
    PB_AuditRecord **records; /* places for a page */
    size_t count, page;
    size_t bytes; /* about, of the answer so far */
    bool more, failed;
};

_Static_assert((int)SPACEBLOCK__V1__AUDIT_OUTCOME__AUDIT_OUTCOME_PENDING ==
                       (int)SPB_OUTCOME_PENDING + 1 &&
                   (int)SPACEBLOCK__V1__AUDIT_OUTCOME__AUDIT_OUTCOME_UNKNOWN ==
                       (int)SPB_OUTCOME_UNKNOWN + 1,
               "the API lists the outcomes in the audit's order");

/* A copy in the call's arena; empty and `failed` where that is full. */
static ProtobufCBinaryData copy(struct listing *listing, const void *data, size_t size)
{
    void *kept = spb_call_alloc(listing->call, size);

    if (kept == NULL) {
        listing->failed = true;
        return spb_pb_bytes(NULL, 0);
    }
    if (size > 0)
        memcpy(kept, data, size);
    return spb_pb_bytes(kept, size);
}

static ProtobufCBinaryData copy_text(struct listing *listing, const char *text)
{
    return copy(listing, text, strlen(text));
}

static void show(struct listing *listing, const struct spb_audit_record *record,
                 PB_AuditRecord *shown)
{
    *shown = (PB_AuditRecord)SPACEBLOCK__V1__AUDIT_RECORD__INIT;
    shown->id = (uint64_t)record->id;
    shown->time_us = (uint64_t)record->time_us;
    shown->tenant = record->tenant;
    shown->group = record->group;
    shown->outcome = (Spaceblock__V1__AuditOutcome)((int)record->outcome + 1);
    shown->principal = copy_text(listing, record->principal);
    shown->image = copy_text(listing, record->image == NULL ? "" : record->image);
    shown->method = copy_text(listing, record->method);
    shown->object = copy_text(listing, record->object);
    shown->before = copy_text(listing, record->before);
    shown->after = copy_text(listing, record->after);
    if (record->has_request_id)
        shown->request_id = copy(listing, record->request_id, sizeof(record->request_id));
}

static bool take(void *user, const struct spb_audit_record *record)
{
    struct listing *listing = user;
    size_t size = FIXED_SIZE + SPB_AUDIT_PRINCIPAL_SIZE + SPB_AUDIT_NAME_SIZE +
                  SPB_AUDIT_METHOD_SIZE + strlen(record->object) + strlen(record->before) +
                  strlen(record->after);

    /* The next page begins with it. */
    if (listing->count == listing->page ||
        (listing->count > 0 && listing->bytes + size > SPB_REPLY_MAX - SPB_CONTROL_MAX)) {
        listing->more = true;
        return false;
    }
    PB_AuditRecord *shown = spb_call_alloc(listing->call, sizeof(*shown));
    if (shown == NULL) {
        listing->failed = true;
        return false;
    }
    show(listing, record, shown);
    listing->records[listing->count++] = shown;
    listing->bytes += size;
    return !listing->failed;
}

/* A text of the request in the arena, ended; NULL for none, and without memory. */
static const char *asked(struct spb_call *call, const ProtobufCBinaryData *text)
{
    char *ended = text->len == 0 ? NULL : spb_call_alloc(call, text->len + 1);

    if (ended == NULL)
        return NULL;
    memcpy(ended, text->data, text->len);
    ended[text->len] = '\0';
    return ended;
}

static struct spb_audit_filter filter_of(struct spb_call *call)
{
    const PB_ListAuditRequest *request = (const void *)call->request;
    struct spb_audit_filter filter = {
        .tenant = names_tenant(request) ? (int32_t)request->tenant : call->principal.tenant,
        .image = asked(call, &request->image),
        .principal = asked(call, &request->principal),
        .method = asked(call, &request->method),
        .since_us = (int64_t)request->since_us,
        .until_us = (int64_t)request->until_us,
        .before_id = (int64_t)request->before_id,
        .scan_max = SCAN_MAX,
    };

    if (request->all_tenants)
        filter.tenant = -1;
    if (request->outcome != SPACEBLOCK__V1__AUDIT_OUTCOME__AUDIT_OUTCOME_UNSPECIFIED) {
        filter.has_outcome = true;
        filter.outcome = (enum spb_outcome)((int)request->outcome - 1);
    }
    return filter;
}

static void list(struct spb_call *call)
{
    const PB_ListAuditRequest *request = (const void *)call->request;
    PB_ListAuditResponse reply = SPACEBLOCK__V1__LIST_AUDIT_RESPONSE__INIT;
    struct listing listing = {
        .call = call,
        .page = request->page_size == 0 ? PAGE_DEFAULT : request->page_size,
    };
    struct spb_audit_filter filter = filter_of(call);
    int64_t resume_id = 0;
    struct spb_error err;

    filter.resume_id = &resume_id;
    listing.records = spb_call_alloc(call, listing.page * sizeof(PB_AuditRecord *));
    if (listing.records == NULL)
        return;
    /* Of another's tenant there is nothing to be seen. */
    if (call->principal.is_site_admin || filter.tenant == call->principal.tenant) {
        if (!spb_is_ok(spb_audit_list(call->daemon->audit, &filter, take, &listing, &err))) {
            spb_log(&call->daemon->log, SPB_LOG_ERROR, "audit-not-read",
                    SPB_TEXT("reason", err.text));
            spb_call_set_fault(call, PB_REASON(AUDIT_UNAVAILABLE),
                               "the audit cannot be read: see the server's log");
            return;
        }
        if (listing.failed)
            return; /* the error is set */
    }
    reply.n_records = listing.count;
    reply.records = listing.records;
    reply.next_before_id =
        listing.more ? listing.records[listing.count - 1]->id : (uint64_t)resume_id;
    spb_call_set_reply(call, &reply.base);
}

static void run_list(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);

    if (!spb_call_is_late(call, spb_now_ns()))
        list(call);
    spb_call_send(call);
}

void spb_audit_list_records(struct spb_call *call)
{
    spb_call_to_workers(call, run_list);
}
