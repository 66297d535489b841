/* Images: listing and showing them, on the loop's thread. */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "registry.h"
#include "services/services.h"

#define PAGE_MAX 1000u
/* A page token: CRC of the rest, tenant, name of the last image of the page. */
#define TOKEN_CRC_SIZE 4u
#define TOKEN_HEAD_SIZE (TOKEN_CRC_SIZE + 2u)

/* ---- List --------------------------------------------------------------------------------- */

static bool token_is_good(const ProtobufCBinaryData *token)
{
    struct spb_reader r = spb_reader_over(token->data, token->len);
    uint32_t crc = spb_read_be32(&r);

    return token->len > TOKEN_HEAD_SIZE &&
           crc == spb_crc32c(0, token->data + TOKEN_CRC_SIZE, token->len - TOKEN_CRC_SIZE) &&
           spb_image_name_is_valid(token->data + TOKEN_HEAD_SIZE, token->len - TOKEN_HEAD_SIZE);
}

bool spb_images_list_gate(struct spb_call *call)
{
    const PB_ListImagesRequest *request = (const void *)call->request;
    const ProtobufCBinaryData *token = &request->page_token;
    bool one = request->if_tenant_case == SPACEBLOCK__V1__LIST_IMAGES_REQUEST__IF_TENANT_TENANT;

    if (one && !spb_gate_max(call, "tenant", request->tenant, UINT16_MAX))
        return false;
    if (one && request->all_tenants) {
        spb_call_set_bad_field(call, "all_tenants", "is set beside tenant, expected one of them");
        return false;
    }
    if (!spb_gate_max(call, "page_size", request->page_size, PAGE_MAX))
        return false;
    if (token->len == 0 || token_is_good(token))
        return true;
    spb_call_set_bad_field(call, "page_token", "expected the next_page_token of an earlier answer");
    return false;
}

/* Where a listing begins; false where the caller may see nothing of what is asked. */
static bool listing_place(const struct spb_call *call, char name[SPB_IMAGE_NAME_MAX + 1],
                          struct spb_registry_place *place)
{
    const PB_ListImagesRequest *request = (const void *)call->request;
    const ProtobufCBinaryData *token = &request->page_token;
    bool one = request->if_tenant_case == SPACEBLOCK__V1__LIST_IMAGES_REQUEST__IF_TENANT_TENANT;

    *place = (struct spb_registry_place){
        .tenant = one ? (int32_t)request->tenant : call->principal.tenant,
    };
    if (request->all_tenants)
        place->tenant = -1;
    if (token->len > 0) {
        struct spb_reader r = spb_reader_over(token->data, token->len);
        size_t n = token->len - TOKEN_HEAD_SIZE;

        (void)spb_read_be32(&r);
        place->after_tenant = spb_read_be16(&r);
        spb_read_bytes(&r, name, n);
        name[n] = '\0';
        place->after_name = name;
    }
    return call->principal.is_site_admin || place->tenant == call->principal.tenant;
}

static ProtobufCBinaryData page_token(struct spb_call *call, const struct spb_image *last)
{
    size_t name_len = strlen(last->name), size = TOKEN_HEAD_SIZE + name_len;
    uint8_t *bytes = spb_call_alloc(call, size);

    if (bytes == NULL)
        return spb_pb_bytes(NULL, 0);
    struct spb_writer w = spb_writer_over(bytes + TOKEN_CRC_SIZE, size - TOKEN_CRC_SIZE);
    spb_write_be16(&w, last->tenant);
    spb_write_bytes(&w, last->name, name_len);
    w = spb_writer_over(bytes, TOKEN_CRC_SIZE);
    spb_write_be32(&w, spb_crc32c(0, bytes + TOKEN_CRC_SIZE, size - TOKEN_CRC_SIZE));
    return spb_pb_bytes(bytes, size);
}

static void reply_list(struct spb_call *call, struct spb_image **found, size_t count, size_t page)
{
    PB_ListImagesResponse reply = SPACEBLOCK__V1__LIST_IMAGES_RESPONSE__INIT;

    reply.images = spb_call_alloc(call, page * sizeof(PB_Image *));
    if (reply.images == NULL)
        return;
    for (size_t i = 0; i < count && i < page; i++) {
        if (spb_image_state(found[i]) == SPB_IMAGE_DELETED)
            continue; /* its name is not free yet */
        reply.images[reply.n_images] = spb_image_show(found[i], call);
        if (reply.images[reply.n_images++] == NULL)
            return;
    }
    if (count > page) {
        reply.next_page_token = page_token(call, found[page - 1]);
        if (reply.next_page_token.data == NULL)
            return;
    }
    spb_call_set_reply(call, &reply.base);
}

void spb_images_list(struct spb_call *call)
{
    const PB_ListImagesRequest *request = (const void *)call->request;
    size_t page = request->page_size == 0 ? PAGE_MAX : request->page_size;
    /* One more tells whether there is another page. */
    struct spb_image **found = spb_call_alloc(call, (page + 1) * sizeof(struct spb_image *));
    struct spb_registry_place place;
    char name[SPB_IMAGE_NAME_MAX + 1];
    size_t count = 0;

    if (found != NULL) {
        if (listing_place(call, name, &place))
            count = spb_registry_list(call->daemon->registry, &place, found, page + 1);
        reply_list(call, found, count, page);
        for (size_t i = 0; i < count; i++)
            spb_image_unref(found[i]);
    }
    spb_call_send(call);
}

/* ---- Get, Inspect ------------------------------------------------------------------------- */

void spb_images_get(struct spb_call *call)
{
    PB_GetImageResponse reply = SPACEBLOCK__V1__GET_IMAGE_RESPONSE__INIT;

    if (spb_image_state(call->image) == SPB_IMAGE_DELETED)
        spb_dispatch_set_no_image(call);
    else if ((reply.image = spb_image_show(call->image, call)) != NULL)
        spb_call_set_reply(call, &reply.base);
    spb_call_send(call);
}

/* One slot of the store; false where it is free. The value is copied to the arena. */
static bool show_slot(struct spb_call *call, const struct spb_param *param, PB_ParamSlot *shown)
{
    *shown = (PB_ParamSlot)SPACEBLOCK__V1__PARAM_SLOT__INIT;
    shown->slot = param->slot;
    shown->corrupt = param->state == SPB_PARAM_CORRUPT;
    shown->id = param->id;
    shown->generation = param->generation;
    shown->newest = param->newest;
    if (param->len > 0) {
        uint8_t *value = spb_call_alloc(call, param->len);

        if (value == NULL)
            return false;
        memcpy(value, param->value, param->len);
        shown->value = spb_pb_bytes(value, param->len);
    }
    return true;
}

static bool inspect_params(struct spb_call *call, const struct spb_volume *volume,
                           PB_InspectImageResponse *reply)
{
    uint32_t slots = spb_param_slots(volume);
    PB_ParamSlot *shown = spb_call_alloc(call, slots * sizeof(*shown));

    reply->params = spb_call_alloc(call, slots * sizeof(PB_ParamSlot *));
    if (shown == NULL || reply->params == NULL)
        return false;
    for (uint32_t i = 0; i < slots; i++) {
        struct spb_param param;

        if (!spb_is_ok(spb_param_read_slot(volume, i, &param, NULL)) ||
            param.state == SPB_PARAM_FREE)
            continue;
        if (!show_slot(call, &param, &shown[reply->n_params]))
            return false;
        reply->params[reply->n_params] = &shown[reply->n_params];
        reply->n_params++;
        reply->param_slots_used += param.state == SPB_PARAM_VALID;
        reply->param_slots_corrupt += param.state == SPB_PARAM_CORRUPT;
    }
    reply->param_slots = slots;
    return true;
}

static void inspect_rest(const struct spb_volume *volume, PB_InspectImageResponse *reply)
{
    const struct spb_superblock *superblock = spb_volume_superblock(volume);

    reply->format_version = superblock->format_version;
    reply->dp_start = superblock->dp_start;
    reply->dp_size = superblock->dp_size;
    reply->event_pointer = spb_event_pointer(volume);
    reply->event_capacity = spb_event_capacity(volume);
    reply->event_window = spb_event_window(volume);
    reply->product_entries = spb_product_entries(volume);
    for (uint32_t i = 0; i < reply->product_entries; i++) {
        struct spb_product product;

        if (spb_is_ok(spb_product_entry(volume, i, &product, NULL)) &&
            product.state != SPB_PRODUCT_FREE)
            reply->product_count++;
    }
    spb_product_space(volume, &reply->free_blocks, &reply->largest_free_blocks);
}

void spb_images_inspect(struct spb_call *call)
{
    PB_InspectImageResponse reply = SPACEBLOCK__V1__INSPECT_IMAGE_RESPONSE__INIT;
    struct spb_error err;

    reply.image = spb_image_show(call->image, call);
    if (reply.image == NULL) {
        spb_call_send(call);
        return;
    }
    struct spb_volume *volume = spb_image_read_begin(call);
    if (volume == NULL)
        return;
    bool shown = inspect_params(call, volume, &reply);
    inspect_rest(volume, &reply);
    char *summary = spb_volume_describe(volume);
    spb_image_read_end(call->image);
    if (summary == NULL) {
        (void)spb_fail_memory(&err, "describing an image");
        spb_call_set_error(call, &err);
    } else if (shown) {
        reply.summary = spb_pb_text(summary);
        spb_call_set_reply(call, &reply.base);
    }
    free(summary);
    spb_call_send(call);
}
