/*
 * DataProducts. What is known already is answered on the loop's thread; what reads the medium runs
 * on the workers, beside the image's actor, within a hold on the volume. A product is verified
 * before its first byte leaves, and the outcome is kept.
 *
 * A guest that writes the image knows of no pins. So what it may have changed is looked at again:
 * before data is called corrupt, and after it was read.
 */
#include <stdlib.h>
#include <time.h>

#include "base/status.h"
#include "bytes_reply.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "services/services.h"
#include "services/show_product.h"

#define VERIFY_TRIES 4                       /* beside a guest, of what seems corrupt */
#define VERIFY_PAUSE_NS (20 * SPB_NS_PER_MS) /* between them */
#define FIND_TRIES 16                        /* beside a guest, of what it replaces */

/* Lets a worker do the rest, with the volume held and in call->state. */
static void hold_and_run(struct spb_call *call, void (*run)(struct spb_task *task))
{
    struct spb_volume *volume = spb_image_hold_for(call);

    if (volume == NULL)
        return; /* the call is another's by now */
    call->state = volume;
    spb_call_to_workers(call, run);
}

/* ---- Finding what can be read ------------------------------------------------------------- */

/* A product that may be read while it is pinned. */
struct readable {
    struct spb_product product;
    struct spb_reservation *pin;
    uint64_t length; /* of a corrupt one: of its blocks */
    bool padded;     /* a corrupt one, asked for as it is */
};

static bool is_same(const struct spb_product *a, const struct spb_product *b)
{
    return a->entry == b->entry && a->block_offset == b->block_offset &&
           a->block_count == b->block_count && a->crc == b->crc &&
           a->product_class == b->product_class;
}

/*
 * Finds a name's product and pins its extent; finds it again, for before the pin the extent may
 * have become another's.
 */
static spb_status find_and_pin(struct spb_volume *volume, const ProtobufCBinaryData *name,
                               struct readable *found, struct spb_error *err)
{
    for (;;) {
        struct spb_product first;

        SPB_TRY(spb_product_find(volume, name->data, name->len, &first, err));
        SPB_TRY(spb_reservation_pin(volume, &first, &found->pin, err));
        spb_status status = spb_product_find(volume, name->data, name->len, &found->product, err);
        if (spb_is_ok(status) && is_same(&first, &found->product))
            return status;
        spb_reservation_free(found->pin);
        found->pin = NULL;
        SPB_TRY(status);
    }
}

/* While the volume is held, that stays so. */
static bool has_guest(const struct spb_call *call)
{
    return spb_image_state(call->image) == SPB_IMAGE_ATTACHED;
}

/* Whether the entry is still this product's, now. SPB_CHANGED where not. */
static spb_status look_again(struct spb_call *call, const struct spb_volume *volume,
                             const struct spb_product *product, struct spb_error *err)
{
    struct spb_product now;

    SPB_TRY(spb_follow_look(call->image, err));
    SPB_TRY(spb_product_entry(volume, product->entry, &now, err));
    if (is_same(product, &now) && strcmp(product->name, now.name) == 0)
        return spb_ok();
    return spb_fail(err, SPB_CHANGED, "product %s of image %s was replaced or deleted",
                    product->name, call->image_text);
}

/* A guest may be in the middle of writing it: SPB_CORRUPT where it stays so for a while. */
static spb_status verify(struct spb_call *call, const struct spb_volume *volume,
                         const struct spb_product *product, uint64_t *length, struct spb_error *err)
{
    struct timespec pause = {.tv_nsec = VERIFY_PAUSE_NS};

    for (int tries = 1;; tries++) {
        spb_status status =
            spb_product_verify(volume, product, spb_call_may_go_on, call, length, err);
        if (status.code != SPB_CORRUPT || !has_guest(call) || tries == VERIFY_TRIES)
            return status;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        SPB_TRY(look_again(call, volume, product, err));
    }
}

/* Verifies what is not known yet, and keeps the outcome. SPB_CHANGED: a guest has replaced it. */
static spb_status settle(struct spb_call *call, struct spb_volume *volume,
                         struct spb_product *product, struct spb_error *err)
{
    uint64_t length = 0;

    if (product->state != SPB_PRODUCT_PRESENT)
        return spb_ok();
    spb_status status = verify(call, volume, product, &length, err);
    if (!spb_is_ok(status) && status.code != SPB_CORRUPT)
        return status;
    spb_product_note(volume, product, spb_is_ok(status), length);
    product->state = spb_is_ok(status) ? SPB_PRODUCT_GOOD : SPB_PRODUCT_ROTTEN;
    product->length = length;
    return spb_ok();
}

static spb_status fail_rotten(const struct spb_call *call, const struct spb_product *product,
                              struct spb_error *err)
{
    return spb_fail(err, SPB_CORRUPT,
                    "product %s of image %s: its data does not match its CRC %08x; the %u blocks "
                    "can be had as they are with padded",
                    product->name, call->image_text, product->crc, product->block_count);
}

/* The product of a name, known to be good, or corrupt and asked for so; pinned on success. */
static spb_status find_readable(struct spb_call *call, struct spb_volume *volume,
                                const ProtobufCBinaryData *name, bool padded,
                                struct readable *found, struct spb_error *err)
{
    for (int tries = 1;; tries++) {
        SPB_TRY(find_and_pin(volume, name, found, err));
        bool was_known = found->product.state != SPB_PRODUCT_PRESENT;
        spb_status status = settle(call, volume, &found->product, err);
        bool good = found->product.state == SPB_PRODUCT_GOOD;

        /* One that has just turned out corrupt may have a twin: the finding passes it over. */
        if (spb_is_ok(status) && (good || (was_known && padded))) {
            found->padded = !good;
            found->length =
                good ? found->product.length
                     : (uint64_t)found->product.block_count * spb_volume_sector_size(volume);
            return status;
        }
        if (spb_is_ok(status) && was_known)
            status = fail_rotten(call, &found->product, err);
        spb_reservation_free(found->pin);
        found->pin = NULL;
        if (status.code != SPB_CHANGED || tries == FIND_TRIES)
            SPB_TRY(status);
    }
}

/* ---- List --------------------------------------------------------------------------------- */

static void set_list(struct spb_call *call, const struct spb_volume *volume)
{
    PB_ListProductsResponse reply = SPACEBLOCK__V1__LIST_PRODUCTS_RESPONSE__INIT;
    uint32_t entries = spb_product_entries(volume);
    struct spb_product *found = spb_call_alloc(call, entries * sizeof(*found));
    PB_Product *shown = spb_call_alloc(call, entries * sizeof(*shown));
    uint8_t(*identities)[SPB_IDENTITY_SIZE] = spb_call_alloc(call, entries * sizeof(*identities));

    reply.products = spb_call_alloc(call, entries * sizeof(PB_Product *));
    if (found == NULL || shown == NULL || identities == NULL || reply.products == NULL)
        return;
    for (uint32_t i = 0; i < entries; i++) {
        size_t n = reply.n_products;

        if (!spb_is_ok(spb_product_entry(volume, i, &found[n], NULL)) ||
            found[n].state == SPB_PRODUCT_FREE)
            continue;
        spb_product_show(&found[n], identities[n], &shown[n]);
        reply.products[n] = &shown[n];
        reply.n_products++;
    }
    spb_call_set_reply(call, &reply.base);
}

static spb_status verify_entry(struct spb_call *call, struct spb_volume *volume, uint32_t i,
                               struct spb_error *err)
{
    struct spb_product product, now;
    struct spb_reservation *pin = NULL;

    SPB_TRY(spb_product_entry(volume, i, &product, err));
    if (product.state != SPB_PRODUCT_PRESENT)
        return spb_ok();
    SPB_TRY(spb_reservation_pin(volume, &product, &pin, err));
    spb_status status = spb_product_entry(volume, i, &now, err);
    /* One that has just been replaced is another's to verify. */
    if (spb_is_ok(status) && is_same(&product, &now))
        status = settle(call, volume, &now, err);
    spb_reservation_free(pin);
    return status.code == SPB_CHANGED ? spb_ok() : status;
}

static void run_list(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_volume *volume = call->state;
    struct spb_error err;
    spb_status status = spb_ok();

    for (uint32_t i = 0; i < spb_product_entries(volume) && spb_is_ok(status); i++)
        status = verify_entry(call, volume, i, &err);
    if (spb_is_ok(status))
        set_list(call, volume);
    else
        spb_call_set_error(call, &err);
    spb_image_unhold(call->image);
    spb_call_send(call);
}

void spb_products_list(struct spb_call *call)
{
    const PB_ListProductsRequest *request = (const void *)call->request;

    if (request->verify) {
        hold_and_run(call, run_list);
        return;
    }
    struct spb_volume *volume = spb_image_read_begin(call);
    if (volume == NULL)
        return;
    set_list(call, volume);
    spb_image_read_end(call->image);
    spb_call_send(call);
}

/* ---- Get ---------------------------------------------------------------------------------- */

bool spb_products_get_gate(struct spb_call *call)
{
    const PB_GetProductRequest *request = (const void *)call->request;

    return spb_gate_product_name(call, "name", &request->name);
}

static void set_product(struct spb_call *call, const struct spb_product *product, bool padded,
                        uint64_t length)
{
    PB_GetProductResponse reply = SPACEBLOCK__V1__GET_PRODUCT_RESPONSE__INIT;
    uint8_t identity[SPB_IDENTITY_SIZE];
    PB_Product shown;

    spb_product_show(product, identity, &shown);
    if (padded) {
        spb_product_identity(product, true, length, identity);
        shown.identity = spb_pb_bytes(identity, sizeof(identity));
        shown.length_known = true;
        shown.length = length;
    }
    reply.product = &shown;
    spb_call_set_reply(call, &reply.base);
}

static void run_get(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    const PB_GetProductRequest *request = (const void *)call->request;
    struct readable found = {.pin = NULL};
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_image_unhold(call->image);
        spb_call_send(call);
        return;
    }
    spb_status status =
        find_readable(call, call->state, &request->name, request->padded, &found, &err);
    if (spb_is_ok(status))
        set_product(call, &found.product, found.padded, found.length);
    else
        spb_call_set_error(call, &err);
    spb_reservation_free(found.pin);
    spb_image_unhold(call->image);
    spb_call_send(call);
}

void spb_products_get(struct spb_call *call)
{
    const PB_GetProductRequest *request = (const void *)call->request;
    struct spb_product product;
    struct spb_error err;

    struct spb_volume *volume = spb_image_read_begin(call);
    if (volume == NULL)
        return;
    spb_status status =
        spb_product_find(volume, request->name.data, request->name.len, &product, &err);
    spb_image_read_end(call->image);
    if (!spb_is_ok(status)) {
        spb_call_fail(call, &err);
    } else if (product.state == SPB_PRODUCT_GOOD) {
        set_product(call, &product, false, 0);
        spb_call_send(call);
    } else {
        hold_and_run(call, run_get);
    }
}

/* ---- Read --------------------------------------------------------------------------------- */

bool spb_products_read_gate(struct spb_call *call)
{
    const PB_ReadProductRequest *request = (const void *)call->request;

    if (!spb_gate_product_name(call, "name", &request->name))
        return false;
    uint64_t max = SPB_LIMIT(call->daemon, chunk_max_bytes);

    if (request->length == 0 || request->length > max) {
        spb_call_set_bad_field(call, "length", "found %u, expected 1 to %llu", request->length,
                               (unsigned long long)max);
        return false;
    }
    call->reply_bytes = request->length;
    return true;
}

static spb_status fail_changed(const struct spb_call *call, struct spb_error *err)
{
    const PB_ReadProductRequest *request = (const void *)call->request;

    return spb_fail(err, SPB_CHANGED,
                    "product %.*s of image %s is no longer the one that was asked for: it was "
                    "replaced or deleted",
                    (int)request->name.len, (const char *)request->name.data, call->image_text);
}

/* The wanted bytes of a product that is pinned, as the reply. */
static spb_status read_bytes(struct spb_call *call, const struct spb_volume *volume,
                             const struct readable *found, struct spb_error *err)
{
    const PB_ReadProductRequest *request = (const void *)call->request;
    uint64_t left = found->length - request->offset;
    size_t n = left < request->length ? (size_t)left : request->length;
    uint8_t *bytes = spb_bytes_reply_begin(call, n);

    if (bytes == NULL)
        return spb_ok(); /* the error is set */
    if (n > 0)
        SPB_TRY(spb_product_read(volume, &found->product, request->offset, bytes, n, err));
    spb_bytes_reply_end(call, bytes, n);
    return spb_ok();
}

static spb_status read_product(struct spb_call *call, struct spb_volume *volume,
                               struct readable *found, struct spb_error *err)
{
    const PB_ReadProductRequest *request = (const void *)call->request;
    uint8_t identity[SPB_IDENTITY_SIZE];

    spb_status status = find_readable(call, volume, &request->name, request->padded, found, err);
    bool is_identity = request->identity.len == SPB_IDENTITY_SIZE;
    /* Who has an identity has seen the product: then it is gone. */
    if (status.code == SPB_NOT_FOUND && is_identity)
        return fail_changed(call, err);
    SPB_TRY(status);
    if (!is_identity) {
        spb_call_set_bad_field(call, "identity", "found %zu bytes, expected what Get returned",
                               request->identity.len);
        return spb_ok();
    }
    spb_product_identity(&found->product, found->padded, found->length, identity);
    if (memcmp(identity, request->identity.data, sizeof(identity)) != 0)
        return fail_changed(call, err);
    if (request->offset <= found->length) {
        SPB_TRY(read_bytes(call, volume, found, err));
        return has_guest(call) ? look_again(call, volume, &found->product, err) : spb_ok();
    }
    spb_call_set_bad_field(call, "offset", "found %llu, expected at most the length %llu",
                           (unsigned long long)request->offset, (unsigned long long)found->length);
    return spb_ok();
}

static void run_read(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct readable found = {.pin = NULL};
    struct spb_error err;

    if (!spb_call_is_late(call, spb_now_ns()) &&
        !spb_is_ok(read_product(call, call->state, &found, &err)))
        spb_call_set_error(call, &err);
    spb_reservation_free(found.pin);
    spb_image_unhold(call->image);
    spb_call_send(call);
}

void spb_products_read(struct spb_call *call)
{
    hold_and_run(call, run_read);
}

/* ---- Delete ------------------------------------------------------------------------------- */

bool spb_products_delete_gate(struct spb_call *call)
{
    const PB_DeleteProductRequest *request = (const void *)call->request;

    return spb_gate_product_name(call, "name", &request->name);
}

static spb_status decide_delete(struct spb_call *call, struct spb_group *group,
                                struct spb_error *err)
{
    const PB_DeleteProductRequest *request = (const void *)call->request;

    return spb_group_delete_product(group, request->name.data, request->name.len, err);
}

static void delete_reply(struct spb_call *call)
{
    PB_DeleteProductResponse reply = SPACEBLOCK__V1__DELETE_PRODUCT_RESPONSE__INIT;

    spb_call_set_reply(call, &reply.base);
}

void spb_products_delete(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.decide = decide_delete, .reply = delete_reply};

    spb_actor_queue(call, &kind);
}
