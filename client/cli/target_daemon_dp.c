/* The target through a daemon: data products. One thread. */
#include <spaceblock/v1/uploads.pb-c.h>
#include <stdlib.h>
#include <string.h>

#include "cli/transfer.h"

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
                               struct cli_progress *progress, cli_sink sink, void *user,
                               struct spb_error *err)
{
    return cli_transfer_fetch(daemon_of(target), product, progress, sink, user, err);
}

/* ---- Uploads ------------------------------------------------------------------------------- */

struct upload {
    ProtobufCBinaryData id; /* owned */
    uint32_t chunk;
    char request_id[SPB_REQUEST_ID_SIZE];
};

static spb_status start_upload(struct daemon_target *self, struct upload *upload,
                               const struct spb_product_attributes *attributes, bool replace,
                               uint64_t size, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_UPLOADS, "Start",
                                             &spaceblock__v1__start_upload_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__StartUploadRequest request;
    Spaceblock__V1__ProductTarget product;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;

    spaceblock__v1__product_target__init(&product);
    spaceblock__v1__start_upload_request__init(&request);
    cli_image_ref_fill(&self->image, &image);
    product.image = &image;
    product.name = cli_bytes(attributes->name, attributes->name_len);
    product.product_class = attributes->product_class;
    product.priority = attributes->priority;
    product.replace = replace;
    request.request_id = upload->request_id;
    request.target_case = SPACEBLOCK__V1__START_UPLOAD_REQUEST__TARGET_PRODUCT;
    request.product = &product;
    request.size = size;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    Spaceblock__V1__StartUploadResponse *answer = (void *)reply;
    if (answer->upload_id.len == 0 || answer->chunk_size_max < CLI_CHUNK_MIN)
        return cli_answer_lacks(&method, "an upload_id, or a chunk size of 64 KiB or more", err);
    upload->chunk = answer->chunk_size_max < CLI_CHUNK_MAX ? answer->chunk_size_max : CLI_CHUNK_MAX;
    upload->id = answer->upload_id;
    answer->upload_id = cli_bytes(NULL, 0);
    return spb_ok();
}

static spb_status finish_upload(struct daemon_target *self, struct upload *upload, uint32_t crc,
                                struct spb_product *product, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_UPLOADS, "Finish",
                                             &spaceblock__v1__finish_upload_response__descriptor,
                                             CLI_LONG_CALL_MS};
    Spaceblock__V1__FinishUploadRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    spaceblock__v1__finish_upload_request__init(&request);
    request.request_id = upload->request_id;
    request.upload_id = upload->id;
    request.crc32c = crc;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__FinishUploadResponse *answer = (const void *)reply;
    if (answer->result_case != SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__RESULT_PRODUCT ||
        answer->product == NULL)
        return cli_answer_lacks(&method, "product", err);
    return cli_from_product(answer->product, product, err);
}

/* Gives back what the upload reserved. Where that fails the daemon does so later by itself, and the
 * failure that led here is the one to tell. */
static void abort_upload(struct daemon_target *self, struct upload *upload)
{
    static const struct cli_method method = {CLI_SERVICE_UPLOADS, "Abort",
                                             &spaceblock__v1__abort_upload_response__descriptor,
                                             CLI_CONNECT_MS};
    Spaceblock__V1__AbortUploadRequest request;
    struct spb_client_failure kept = *self->daemon.failure;
    struct spb_error ignored;

    spaceblock__v1__abort_upload_request__init(&request);
    request.request_id = upload->request_id;
    request.upload_id = upload->id;
    if (!spb_is_ok(cli_daemon_do(&self->daemon, &method, &request.base, &ignored)))
        *self->daemon.failure = kept;
}

spb_status daemon_product_put(struct cli_target *target,
                              const struct spb_product_attributes *attributes, bool replace,
                              struct cli_source *source, struct cli_progress *progress,
                              struct spb_product *product, struct spb_error *err)
{
    struct daemon_target *self = daemon_of(target);
    struct upload upload = {.chunk = 0};
    uint32_t crc = 0;

    SPB_TRY(spb_client_request_id(upload.request_id, err));
    SPB_TRY(start_upload(self, &upload, attributes, replace, source->size, err));
    spb_status status =
        cli_transfer_send(&self->daemon, &upload.id, upload.chunk, source, progress, &crc, err);
    if (spb_is_ok(status))
        status = finish_upload(self, &upload, crc, product, err);
    if (!spb_is_ok(status))
        abort_upload(self, &upload);
    free(upload.id.data);
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
