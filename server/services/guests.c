/* Guests: looking at them, on the loop's thread. */
#include "services/guest_calls.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "services/services.h"
#include "supervisor/guests.h"
#include "supervisor/stats.h"

#define PAGE_MAX 100u
/* A page token: CRC of the rest, tenant, name of the last guest of the page. */
#define TOKEN_CRC_SIZE 4u
#define TOKEN_HEAD_SIZE (TOKEN_CRC_SIZE + 2u)

/* ---- References --------------------------------------------------------------------------- */

uint16_t spb_guest_ref_tenant(const struct spb_call *call, const PB_GuestRef *ref)
{
    return ref->if_tenant_case == SPACEBLOCK__V1__GUEST_REF__IF_TENANT_TENANT
               ? (uint16_t)ref->tenant
               : call->principal.tenant;
}

bool spb_gate_guest(struct spb_call *call, const PB_GuestRef *ref)
{
    if (ref == NULL) {
        spb_call_set_bad_field(call, "guest", "is missing, expected the guest's name");
        return false;
    }
    if (ref->if_tenant_case == SPACEBLOCK__V1__GUEST_REF__IF_TENANT_TENANT &&
        !spb_gate_max(call, "guest.tenant", ref->tenant, UINT16_MAX))
        return false;
    if (spb_image_name_is_valid(ref->name.data, ref->name.len))
        return true;
    spb_call_set_bad_field(call, "guest.name",
                           "found %zu bytes, expected 1 to %u of A-Z a-z 0-9 . _ -, not starting "
                           "with a dot",
                           ref->name.len, SPB_GUEST_NAME_MAX);
    return false;
}

bool spb_find_guest(struct spb_call *call, const PB_GuestRef *ref)
{
    uint16_t tenant = spb_guest_ref_tenant(call, ref);

    if (tenant == call->principal.tenant || call->principal.is_site_admin)
        call->guest = spb_guests_find(call->daemon->guests, tenant, ref->name.data, ref->name.len);
    if (call->guest == NULL)
        spb_call_set_fault(call, PB_REASON(NOT_FOUND), "no guest %u/%.*s", (unsigned)tenant,
                           (int)ref->name.len, (const char *)ref->name.data);
    return call->guest != NULL;
}

/* Answers the call where there is none. */
static bool has_guest(struct spb_call *call, const PB_GuestRef *ref)
{
    if (spb_find_guest(call, ref))
        return true;
    spb_call_send(call);
    return false;
}

/* ---- Get and Wait ------------------------------------------------------------------------- */

bool spb_guests_get_gate(struct spb_call *call)
{
    return spb_gate_guest(call, ((const PB_GetGuestRequest *)(const void *)call->request)->guest);
}

void spb_guests_get(struct spb_call *call)
{
    const PB_GetGuestRequest *request = (const void *)call->request;
    PB_GetGuestResponse reply = SPACEBLOCK__V1__GET_GUEST_RESPONSE__INIT;

    if (!has_guest(call, request->guest))
        return;
    reply.guest = spb_guest_show(call->guest, call);
    if (reply.guest != NULL)
        spb_call_set_reply(call, &reply.base);
    spb_call_send(call);
}

bool spb_guests_wait_gate(struct spb_call *call)
{
    const PB_WaitGuestRequest *request = (const void *)call->request;

    return spb_gate_guest(call, request->guest) &&
           spb_gate_max(call, "wait_ms", request->wait_ms, SPB_WAIT_MS_MAX);
}

static bool has_newer_version(struct spb_call *call)
{
    return spb_guest_look(call->guest).version > *(const uint64_t *)call->state;
}

static void answer_wait(struct spb_call *call)
{
    PB_WaitGuestResponse reply = SPACEBLOCK__V1__WAIT_GUEST_RESPONSE__INIT;

    reply.guest = spb_guest_show(call->guest, call);
    if (reply.guest != NULL)
        spb_call_set_reply(call, &reply.base);
    spb_call_send(call);
}

void spb_guests_wait(struct spb_call *call)
{
    static const struct spb_guest_wait_kind kind = {has_newer_version, answer_wait};
    const PB_WaitGuestRequest *request = (const void *)call->request;
    uint64_t known = request->known_version;

    if (has_guest(call, request->guest))
        spb_guest_wait(call, &kind, request->wait_ms, &known, sizeof(known));
}

/* ---- List --------------------------------------------------------------------------------- */

static bool token_is_good(const ProtobufCBinaryData *token)
{
    struct spb_reader r = spb_reader_over(token->data, token->len);
    uint32_t crc = spb_read_be32(&r);

    return token->len > TOKEN_HEAD_SIZE &&
           crc == spb_crc32c(0, token->data + TOKEN_CRC_SIZE, token->len - TOKEN_CRC_SIZE) &&
           spb_image_name_is_valid(token->data + TOKEN_HEAD_SIZE, token->len - TOKEN_HEAD_SIZE);
}

bool spb_guests_list_gate(struct spb_call *call)
{
    const PB_ListGuestsRequest *request = (const void *)call->request;
    bool one = request->if_tenant_case == SPACEBLOCK__V1__LIST_GUESTS_REQUEST__IF_TENANT_TENANT;

    if (one && !spb_gate_max(call, "tenant", request->tenant, UINT16_MAX))
        return false;
    if (one && request->all_tenants) {
        spb_call_set_bad_field(call, "all_tenants", "is set beside tenant, expected one of them");
        return false;
    }
    if (!spb_gate_max(call, "page_size", request->page_size, PAGE_MAX))
        return false;
    if (request->page_token.len == 0 || token_is_good(&request->page_token))
        return true;
    spb_call_set_bad_field(call, "page_token", "expected the next_page_token of an earlier answer");
    return false;
}

/* False where the caller may see nothing of what is asked. */
static bool listing_place(const struct spb_call *call, char name[SPB_GUEST_NAME_SIZE],
                          struct spb_guests_place *place)
{
    const PB_ListGuestsRequest *request = (const void *)call->request;
    const ProtobufCBinaryData *token = &request->page_token;
    bool one = request->if_tenant_case == SPACEBLOCK__V1__LIST_GUESTS_REQUEST__IF_TENANT_TENANT;

    *place = (struct spb_guests_place){.tenant = call->principal.tenant};
    if (one)
        place->tenant = (int32_t)request->tenant;
    if (request->all_tenants)
        place->tenant = -1;
    if (token->len > 0) {
        size_t n = token->len - TOKEN_HEAD_SIZE;

        place->after_tenant = token->data[TOKEN_CRC_SIZE] << 8 | token->data[TOKEN_CRC_SIZE + 1];
        memcpy(name, token->data + TOKEN_HEAD_SIZE, n);
        name[n] = '\0';
        place->after_name = name;
    }
    return call->principal.is_site_admin || place->tenant == call->principal.tenant;
}

static bool make_token(struct spb_call *call, const struct spb_guest *last,
                       ProtobufCBinaryData *token)
{
    size_t n = strlen(last->name), size = TOKEN_HEAD_SIZE + n;
    uint8_t *bytes = spb_call_alloc(call, size);

    if (bytes == NULL)
        return false;
    struct spb_writer w = spb_writer_over(bytes, size);
    spb_write_be32(&w, 0);
    spb_write_be16(&w, last->tenant);
    spb_write_bytes(&w, last->name, n);
    uint32_t crc = spb_crc32c(0, bytes + TOKEN_CRC_SIZE, size - TOKEN_CRC_SIZE);
    w = spb_writer_over(bytes, TOKEN_CRC_SIZE);
    spb_write_be32(&w, crc);
    *token = spb_pb_bytes(bytes, size);
    return true;
}

static void set_list(struct spb_call *call, struct spb_guest **guests, size_t count, bool has_more)
{
    PB_ListGuestsResponse reply = SPACEBLOCK__V1__LIST_GUESTS_RESPONSE__INIT;

    reply.guests = spb_call_alloc(call, (count + 1) * sizeof(PB_Guest *));
    if (reply.guests == NULL)
        return;
    for (; reply.n_guests < count; reply.n_guests++) {
        reply.guests[reply.n_guests] = spb_guest_show(guests[reply.n_guests], call);
        if (reply.guests[reply.n_guests] == NULL)
            return;
    }
    if (!has_more || make_token(call, guests[count - 1], &reply.next_page_token))
        spb_call_set_reply(call, &reply.base);
}

void spb_guests_list_all(struct spb_call *call)
{
    const PB_ListGuestsRequest *request = (const void *)call->request;
    size_t size = request->page_size == 0 ? PAGE_MAX : request->page_size, count = 0;
    struct spb_guest *guests[PAGE_MAX + 1];
    char name[SPB_GUEST_NAME_SIZE];
    struct spb_guests_place place;

    if (listing_place(call, name, &place))
        count = spb_guests_list(call->daemon->guests, &place, guests, size + 1);
    set_list(call, guests, count > size ? size : count, count > size);
    for (size_t i = 0; i < count; i++)
        spb_guest_unref(guests[i]);
    spb_call_send(call);
}

/* ---- Stats -------------------------------------------------------------------------------- */

bool spb_guests_stats_gate(struct spb_call *call)
{
    return spb_gate_guest(call, ((const PB_GuestStatsRequest *)(const void *)call->request)->guest);
}

void spb_guests_stats(struct spb_call *call)
{
    const PB_GuestStatsRequest *request = (const void *)call->request;

    if (has_guest(call, request->guest))
        spb_stats_answer(call);
}
