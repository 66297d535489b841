/* The target through a daemon: data products. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/text.h"
#include "cli/transfer.h"
#include "cli/upload.h"

static spb_status take_product(const Spaceblock__V1__Product *message, struct cli_product *product,
                               struct spb_error *err)
{
    if (message->identity.len > CLI_IDENTITY_MAX)
        return spb_fail(err, SPB_PROTOCOL,
                        "reading the daemon's answer: found an identity of %zu bytes, expected at "
                        "most %u",
                        message->identity.len, CLI_IDENTITY_MAX);
    SPB_TRY(cli_from_product(message, &product->product, err));
    product->identity_len = message->identity.len;
    if (message->identity.len > 0)
        memcpy(product->identity, message->identity.data, message->identity.len);
    return spb_ok();
}

spb_status daemon_product_list(struct cli_target *target, bool verify,
                               struct cli_progress *progress, struct cli_products *products,
                               struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_PRODUCTS, "List",
                                             &spaceblock__v1__list_products_response__descriptor,
                                             CLI_LONG_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__ListProductsRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;

    spaceblock__v1__list_products_request__init(&request);
    (void)progress;
    cli_image_ref_fill(&self->image, &image);
    request.image = &image;
    request.verify = verify;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__ListProductsResponse *answer = (const void *)reply;
    size_t count = answer->n_products;
    struct cli_product *list = calloc(count == 0 ? 1 : count, sizeof(*list));
    if (list == NULL)
        return spb_fail_memory(err, "listing data products");
    spb_status status = spb_ok();
    for (size_t i = 0; i < count && spb_is_ok(status); i++)
        status = take_product(answer->products[i], &list[i], err);
    if (!spb_is_ok(status)) {
        free(list);
        return status;
    }
    products->products = list;
    products->count = count;
    return status;
}

spb_status daemon_product_find(struct cli_target *target, const char *name, size_t name_len,
                               bool padded, struct cli_progress *progress,
                               struct cli_product *product, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_PRODUCTS, "Get",
                                             &spaceblock__v1__get_product_response__descriptor,
                                             CLI_LONG_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__GetProductRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;

    spaceblock__v1__get_product_request__init(&request);
    (void)progress;
    cli_image_ref_fill(&self->image, &image);
    request.image = &image;
    request.name = cli_bytes(name, name_len);
    request.padded = padded;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__GetProductResponse *answer = (const void *)reply;
    if (answer->product == NULL || !answer->product->length_known)
        return cli_answer_lacks(&method, "the product's length", err);
    return take_product(answer->product, product, err);
}

spb_status daemon_product_read(struct cli_target *target, const struct cli_product *product,
                               uint64_t from, struct cli_progress *progress, cli_sink sink,
                               void *user, struct spb_error *err)
{
    return cli_transfer_fetch(daemon_of(target), product, from, progress, sink, user, err);
}

/* ---- Uploads ------------------------------------------------------------------------------- */

/* What an upload of a product is about. */
struct product_upload {
    struct daemon_target *self;
    const struct spb_product_attributes *attributes;
    bool replace;
    Spaceblock__V1__ProductTarget target;
    Spaceblock__V1__ImageRef image;
    struct spb_product *product; /* gets what is published */
};

static void fill_start(void *user, Spaceblock__V1__StartUploadRequest *request)
{
    struct product_upload *upload = user;
    Spaceblock__V1__ProductTarget *target = &upload->target;

    spaceblock__v1__product_target__init(target);
    cli_image_ref_fill(&upload->self->image, &upload->image);
    target->image = &upload->image;
    target->name = cli_bytes(upload->attributes->name, upload->attributes->name_len);
    target->product_class = upload->attributes->product_class;
    target->priority = upload->attributes->priority;
    target->replace = upload->replace;
    request->target_case = SPACEBLOCK__V1__START_UPLOAD_REQUEST__TARGET_PRODUCT;
    request->product = target;
}

static spb_status take_finished(void *user, const Spaceblock__V1__FinishUploadResponse *answer,
                                struct spb_error *err)
{
    struct product_upload *upload = user;

    if (answer->result_case != SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__RESULT_PRODUCT ||
        answer->product == NULL)
        return spb_fail(err, SPB_PROTOCOL,
                        "reading the daemon's answer to Finish: found no product in it");
    return cli_from_product(answer->product, upload->product, err);
}

static bool find_published(void *user, uint32_t crc, uint64_t size)
{
    const struct product_upload *upload = user;
    const struct spb_product_attributes *attributes = upload->attributes;
    struct cli_product found = {.identity_len = 0};
    struct spb_error ignored;

    if (!spb_is_ok(daemon_product_find(&upload->self->base, attributes->name, attributes->name_len,
                                       false, NULL, &found, &ignored)))
        return false;
    if (found.product.crc != crc || found.product.length != size ||
        found.product.product_class != attributes->product_class ||
        found.product.priority != attributes->priority)
        return false;
    *upload->product = found.product;
    return true;
}

/* "product 1/demo/7468..."; the image's name may be any text, the product's is in hex. */
static char *name_target(const struct daemon_target *self,
                         const struct spb_product_attributes *attributes)
{
    char *image = cli_text_value(self->image.name, strlen(self->image.name));
    char *name = cli_text_hex("", attributes->name, attributes->name_len);
    char tenant[8] = "own", *text = NULL;

    if (self->image.has_tenant)
        (void)snprintf(tenant, sizeof(tenant), "%u", (unsigned)self->image.tenant);
    if (image == NULL || name == NULL ||
        asprintf(&text, "product %s/%s/%s", tenant, image, name) < 0)
        text = NULL;
    free(image);
    free(name);
    return text;
}

static spb_status put_product(struct product_upload *upload, const char *key,
                              struct cli_source *source, struct cli_progress *progress,
                              struct spb_error *err)
{
    const struct spb_product_attributes *attributes = upload->attributes;
    char options[64], what[SPB_PRODUCT_NAME_MAX + 24];
    const struct cli_upload_target target = {
        .what = what,
        .key = key,
        .options = options,
        .fill = fill_start,
        .take = take_finished,
        .find = find_published,
        .user = upload,
    };

    (void)snprintf(what, sizeof(what), "data product \"%.*s\"", (int)attributes->name_len,
                   (const char *)attributes->name);
    (void)snprintf(options, sizeof(options), "class %u priority %u replace %d",
                   (unsigned)attributes->product_class, (unsigned)attributes->priority,
                   (int)upload->replace);
    return cli_upload(upload->self->cli, &upload->self->daemon, &target, source, progress, err);
}

spb_status daemon_product_put(struct cli_target *target,
                              const struct spb_product_attributes *attributes, bool replace,
                              struct cli_source *source, struct cli_progress *progress,
                              struct spb_product *product, struct spb_error *err)
{
    struct product_upload upload = {.self = daemon_of(target),
                                    .attributes = attributes,
                                    .replace = replace,
                                    .product = product};
    char *key = name_target(upload.self, attributes);

    if (key == NULL)
        return spb_fail_memory(err, "storing a data product");
    spb_status status = put_product(&upload, key, source, progress, err);
    free(key);
    return status;
}

spb_status daemon_product_delete(struct cli_target *target, const char *name, size_t name_len,
                                 struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_PRODUCTS, "Delete",
                                             &spaceblock__v1__delete_product_response__descriptor,
                                             CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__DeleteProductRequest request;
    Spaceblock__V1__ImageRef image;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__delete_product_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    cli_image_ref_fill(&self->image, &image);
    request.request_id = request_id;
    request.image = &image;
    request.name = cli_bytes(name, name_len);
    return cli_daemon_do(&self->daemon, &method, &request.base, err);
}
