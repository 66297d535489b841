/*
 * Chunks to and from a daemon; see transfer.h. Each call in flight has a lane; lanes are used in
 * turn, so the oldest call is always that of the lane to be used next. The first failure ends the
 * transfer once the calls in flight have ended.
 */
#include "cli/transfer.h"

#include <spaceblock/v1/uploads.pb-c.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"

struct transfer;

struct lane {
    struct transfer *transfer;
    uint64_t offset;
    size_t size;   /* bytes of the chunk */
    bool is_busy;  /* a call is in flight */
    bool is_full;  /* fetched, and not handed on yet */
    uint8_t *data; /* owned; a chunk */
};

struct transfer {
    struct cli_daemon *daemon;
    struct lane lanes[CLI_TRANSFER_CALLS];
    uint64_t started, ended; /* chunks */
    uint64_t done_bytes;
    spb_status status; /* the first failure */
    struct spb_error *err;
};

static spb_status transfer_init(struct transfer *transfer, struct cli_daemon *daemon, size_t chunk,
                                struct spb_error *err)
{
    memset(transfer, 0, sizeof(*transfer));
    transfer->daemon = daemon;
    transfer->err = err;
    for (size_t i = 0; i < CLI_TRANSFER_CALLS; i++) {
        transfer->lanes[i].transfer = transfer;
        transfer->lanes[i].data = malloc(chunk);
        if (transfer->lanes[i].data == NULL)
            return spb_fail_memory(err, "preparing a transfer");
    }
    return spb_ok();
}

static void transfer_done(struct transfer *transfer)
{
    for (size_t i = 0; i < CLI_TRANSFER_CALLS; i++)
        free(transfer->lanes[i].data);
}

static void transfer_fail(struct transfer *transfer, spb_status status)
{
    /* Later failures follow from the first, and their texts are not kept. */
    if (spb_is_ok(transfer->status))
        transfer->status = status;
}

static bool has_failed(const struct transfer *transfer)
{
    return !spb_is_ok(transfer->status);
}

/* A callback's view: the call of a lane has ended. False where it failed. */
static bool lane_ended(struct lane *lane, const struct spb_client_reply *reply)
{
    struct transfer *transfer = lane->transfer;

    lane->is_busy = false;
    transfer->ended++;
    /* A few hostile bytes can unpack to much memory; an honest answer is hardly over a chunk. */
    if (spb_is_ok(reply->status) && reply->payload_size > CLI_CHUNK_MAX + CLI_CHUNK_MIN)
        transfer_fail(transfer, spb_fail(transfer->err, SPB_PROTOCOL,
                                         "transferring a chunk: found an answer of %zu bytes",
                                         reply->payload_size));
    if (spb_is_ok(reply->status))
        return !has_failed(transfer);
    if (!has_failed(transfer)) {
        *transfer->err = *reply->error;
        transfer_fail(transfer, cli_daemon_failed(transfer->daemon, reply->status, reply->rpc_code,
                                                  reply->reason));
    }
    return false;
}

static struct lane *next_lane(struct transfer *transfer)
{
    return &transfer->lanes[transfer->started % CLI_TRANSFER_CALLS];
}

static spb_status start_call(struct lane *lane, const char *service, const char *method,
                             const ProtobufCMessage *request, spb_client_callback callback)
{
    struct transfer *transfer = lane->transfer;
    size_t size = protobuf_c_message_get_packed_size(request);
    uint8_t *packed = malloc(size == 0 ? 1 : size);

    if (packed == NULL)
        return spb_fail_memory(transfer->err, "sending a chunk");
    protobuf_c_message_pack(request, packed);
    spb_status status = spb_client_start(transfer->daemon->client, service, method, packed, size,
                                         cli_daemon_timeout(transfer->daemon, CLI_CALL_MS),
                                         callback, lane, transfer->err);
    free(packed);
    if (spb_is_ok(status)) {
        lane->is_busy = true;
        transfer->started++;
    }
    return status;
}

/* Until a callback ran. A lost connection ends every call, through their callbacks. */
static void wait_once(struct transfer *transfer)
{
    struct spb_error lost;
    spb_status status = spb_client_wait(transfer->daemon->client, CLI_CALL_MS, &lost);

    if (!spb_is_ok(status) && !has_failed(transfer)) {
        *transfer->err = lost;
        transfer_fail(transfer, status);
    }
}

/* Callbacks hold pointers into the transfer: it does not end before the last has run. */
static void drain(struct transfer *transfer)
{
    while (transfer->ended < transfer->started &&
           spb_client_in_flight(transfer->daemon->client) > 0)
        wait_once(transfer);
}

/* ---- Sending ------------------------------------------------------------------------------- */

struct sending {
    struct transfer transfer; /* first: lanes lead here */
    const ProtobufCBinaryData *upload_id;
    struct cli_source *source;
    uint32_t chunk, crc;
};

static void on_sent(void *user, const struct spb_client_reply *reply)
{
    struct lane *lane = user;
    struct transfer *transfer = lane->transfer;

    if (!lane_ended(lane, reply))
        return;
    Spaceblock__V1__WriteUploadResponse *answer =
        spaceblock__v1__write_upload_response__unpack(NULL, reply->payload_size, reply->payload);
    if (answer == NULL || answer->next_offset < lane->offset + lane->size)
        transfer_fail(transfer,
                      spb_fail(transfer->err, SPB_PROTOCOL,
                               "sending a chunk: the daemon took less than was sent at %llu",
                               (unsigned long long)lane->offset));
    transfer->done_bytes += lane->size;
    if (answer != NULL)
        spaceblock__v1__write_upload_response__free_unpacked(answer, NULL);
}

static spb_status send_chunk(struct sending *sending, uint64_t offset, size_t size)
{
    struct lane *lane = next_lane(&sending->transfer);
    Spaceblock__V1__WriteUploadRequest request;

    spaceblock__v1__write_upload_request__init(&request);
    SPB_TRY(cli_source_read(sending->source, lane->data, size, sending->transfer.err));
    sending->crc = spb_crc32c(sending->crc, lane->data, size);
    lane->offset = offset;
    lane->size = size;
    request.upload_id = *sending->upload_id;
    request.offset = offset;
    request.data = cli_bytes(lane->data, size);
    request.crc32c = spb_crc32c(0, lane->data, size);
    return start_call(lane, CLI_SERVICE_UPLOADS, "Write", &request.base, on_sent);
}

static void send_all(struct sending *sending, struct cli_progress *progress)
{
    struct transfer *transfer = &sending->transfer;
    uint64_t size = sending->source->size;

    for (uint64_t at = 0; at < size && !has_failed(transfer);) {
        if (next_lane(transfer)->is_busy) {
            wait_once(transfer);
        } else {
            size_t n = size - at < sending->chunk ? (size_t)(size - at) : sending->chunk;
            transfer_fail(transfer, send_chunk(sending, at, n));
            at += n;
        }
        if (!cli_progress_callback(progress, transfer->done_bytes, size) && !has_failed(transfer))
            transfer_fail(transfer, spb_fail(transfer->err, SPB_DEADLINE,
                                             "storing a data product: interrupted"));
    }
}

spb_status cli_transfer_send(struct cli_daemon *daemon, const ProtobufCBinaryData *upload_id,
                             uint32_t chunk, struct cli_source *source,
                             struct cli_progress *progress, uint32_t *crc, struct spb_error *err)
{
    struct sending sending = {.upload_id = upload_id, .source = source, .chunk = chunk};

    spb_status status = transfer_init(&sending.transfer, daemon, chunk, err);
    if (spb_is_ok(status)) {
        send_all(&sending, progress);
        drain(&sending.transfer);
        status = sending.transfer.status;
        *crc = sending.crc;
    }
    transfer_done(&sending.transfer);
    return status;
}

/* ---- Fetching ------------------------------------------------------------------------------ */

static void on_fetched(void *user, const struct spb_client_reply *reply)
{
    struct lane *lane = user;
    struct transfer *transfer = lane->transfer;

    if (!lane_ended(lane, reply))
        return;
    Spaceblock__V1__ReadProductResponse *answer =
        spaceblock__v1__read_product_response__unpack(NULL, reply->payload_size, reply->payload);
    if (answer == NULL || answer->data.len != lane->size) {
        transfer_fail(transfer, spb_fail(transfer->err, SPB_PROTOCOL,
                                         "fetching a chunk at %llu: found %zu bytes, expected %zu",
                                         (unsigned long long)lane->offset,
                                         answer == NULL ? 0 : answer->data.len, lane->size));
    } else if (spb_crc32c(0, answer->data.data, answer->data.len) != answer->crc32c) {
        transfer_fail(transfer, spb_fail(transfer->err, SPB_PROTOCOL,
                                         "fetching a chunk at %llu: its CRC differs",
                                         (unsigned long long)lane->offset));
    } else {
        memcpy(lane->data, answer->data.data, lane->size);
        lane->is_full = true;
    }
    if (answer != NULL)
        spaceblock__v1__read_product_response__free_unpacked(answer, NULL);
}

static spb_status ask_chunk(struct transfer *transfer, struct daemon_target *target,
                            const struct cli_product *product, uint64_t offset, size_t size)
{
    struct lane *lane = next_lane(transfer);
    Spaceblock__V1__ReadProductRequest request;
    Spaceblock__V1__ImageRef image;

    spaceblock__v1__read_product_request__init(&request);
    cli_image_ref_fill(&target->image, &image);
    lane->offset = offset;
    lane->size = size;
    request.image = &image;
    request.name = cli_bytes(product->product.name, product->product.name_len);
    request.identity = cli_bytes(product->identity, product->identity_len);
    request.offset = offset;
    request.length = (uint32_t)size;
    request.padded = product->product.state == SPB_PRODUCT_ROTTEN;
    return start_call(lane, CLI_SERVICE_PRODUCTS, "Read", &request.base, on_fetched);
}

/* Asks as far ahead as there are lanes, and hands on the oldest chunk once it is there. */
static void fetch_all(struct transfer *transfer, struct daemon_target *target,
                      const struct cli_product *product, struct cli_progress *progress,
                      cli_sink sink, void *user)
{
    uint64_t length = product->product.length, asked = 0, handed = 0;

    while (transfer->done_bytes < length && !has_failed(transfer)) {
        struct lane *oldest = &transfer->lanes[handed % CLI_TRANSFER_CALLS];
        struct lane *next = next_lane(transfer);
        if (oldest->is_full) {
            transfer_fail(transfer, sink(user, oldest->data, oldest->size, transfer->err));
            transfer->done_bytes += oldest->size;
            oldest->is_full = false;
            handed++;
            cli_progress_update(progress, transfer->done_bytes, length);
        } else if (asked < length && !next->is_busy && !next->is_full) {
            size_t n = length - asked < CLI_CHUNK_MAX ? (size_t)(length - asked) : CLI_CHUNK_MAX;
            transfer_fail(transfer, ask_chunk(transfer, target, product, asked, n));
            asked += n;
        } else {
            wait_once(transfer);
        }
    }
}

spb_status cli_transfer_fetch(struct daemon_target *target, const struct cli_product *product,
                              struct cli_progress *progress, cli_sink sink, void *user,
                              struct spb_error *err)
{
    struct transfer transfer;

    spb_status status = transfer_init(&transfer, &target->daemon, CLI_CHUNK_MAX, err);
    if (spb_is_ok(status)) {
        fetch_all(&transfer, target, product, progress, sink, user);
        drain(&transfer);
        status = transfer.status;
    }
    transfer_done(&transfer);
    return status;
}
