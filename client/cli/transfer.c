/*
 * Chunks to and from a daemon; see transfer.h. Each call in flight has a lane. The first failure
 * ends the transfer once the calls in flight have ended.
 */
#include "cli/transfer.h"

#include <malloc.h>
#include <spaceblock/v1/server.pb-c.h>
#include <spaceblock/v1/uploads.pb-c.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"

#define RPC_FAILED_PRECONDITION 9
#define KEPT_BYTES (16 << 20)
#define LAST_WAITS 2u /* of CLI_WAIT_MS, for calls in flight after an interrupt */

struct transfer;

struct lane {
    struct transfer *transfer;
    uint64_t offset;
    size_t size;  /* bytes of the chunk */
    bool is_busy; /* a call is in flight */
    /* Sending: room for a chunk. Owned. */
    uint8_t *data;
    /* Fetching: the answer that has the bytes, until they were handed on; bytes is of it. Owned. */
    ProtobufCMessage *answer;
    const uint8_t *bytes;
};

struct transfer {
    struct cli_daemon *daemon;
    struct lane lanes[CLI_TRANSFER_CALLS];
    size_t lane_count;
    uint32_t chunk;          /* bytes at most */
    uint64_t started, ended; /* chunks */
    spb_status status;       /* the first failure */
    struct spb_error *err;
};

/* ---- What the daemon takes ------------------------------------------------------------------ */

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Once a client, and not for what is small: the answer is some kilobytes itself. */
static spb_status ask_limits(struct cli_daemon *daemon, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_SERVER, "Info", &spaceblock__v1__server_info_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__ServerInfoRequest request = SPACEBLOCK__V1__SERVER_INFO_REQUEST__INIT;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    SPB_TRY(cli_daemon_call(daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__ServerInfoResponse *answer = (const void *)reply;
    if (answer->chunk_bytes_max < CLI_CHUNK_MIN || answer->calls_in_flight_max == 0)
        return cli_answer_lacks(&method, "a chunk size of 64 KiB or more, or a number of calls",
                                err);
    daemon->chunk_max = answer->chunk_bytes_max;
    daemon->calls_max = answer->calls_in_flight_max;
    return spb_ok();
}

/* Beside the transfer's own calls nothing is in flight while it runs but, now and then, the ping by
 * which the client looks whether the connection is alive. */
static spb_status choose_size(struct transfer *transfer, uint64_t bytes, uint32_t chunk)
{
    struct cli_daemon *daemon = transfer->daemon;

    transfer->chunk = CLI_CHUNK_MIN;
    transfer->lane_count = 1;
    if (bytes <= CLI_CHUNK_MIN)
        return spb_ok();
    if (daemon->calls_max == 0)
        SPB_TRY(ask_limits(daemon, transfer->err));
    transfer->chunk = smaller(chunk, daemon->chunk_max);
    if (daemon->calls_max > 1)
        transfer->lane_count = smaller(CLI_TRANSFER_CALLS, daemon->calls_max - 1);
    return spb_ok();
}

/* ---- Lanes ---------------------------------------------------------------------------------- */

/* Chunks come and go by the thousand: memory that is free stays mapped, or the kernel would have to
 * clear all of it anew for each of them. */
static void keep_memory(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

static void transfer_init(struct transfer *transfer, struct cli_daemon *daemon,
                          struct spb_error *err)
{
    memset(transfer, 0, sizeof(*transfer));
    transfer->daemon = daemon;
    transfer->err = err;
    for (size_t i = 0; i < CLI_TRANSFER_CALLS; i++)
        transfer->lanes[i].transfer = transfer;
    keep_memory();
}

static void lane_empty(struct lane *lane)
{
    if (lane->answer != NULL)
        protobuf_c_message_free_unpacked(lane->answer, NULL);
    lane->answer = NULL;
    lane->bytes = NULL;
}

static void transfer_done(struct transfer *transfer)
{
    for (size_t i = 0; i < CLI_TRANSFER_CALLS; i++) {
        free(transfer->lanes[i].data);
        lane_empty(&transfer->lanes[i]);
    }
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

static void fail_interrupted(struct transfer *transfer, const char *doing)
{
    if (!has_failed(transfer))
        transfer_fail(transfer, spb_fail(transfer->err, SPB_DEADLINE, "%s: interrupted", doing));
}

/* A callback's view: the call of a lane has ended. False where it failed. */
static bool lane_ended(struct lane *lane, const struct spb_client_reply *reply)
{
    struct transfer *transfer = lane->transfer;

    lane->is_busy = false;
    transfer->ended++;
    if (spb_is_ok(reply->status))
        return !has_failed(transfer);
    if (!has_failed(transfer)) {
        *transfer->err = *reply->error;
        transfer_fail(transfer, cli_daemon_failed(transfer->daemon, reply->status, reply->rpc_code,
                                                  reply->reason));
    }
    return false;
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
                                         cli_daemon_timeout(transfer->daemon, CLI_CHUNK_MS),
                                         callback, lane, transfer->err);
    free(packed);
    if (spb_is_ok(status)) {
        lane->is_busy = true;
        transfer->started++;
    }
    return status;
}

/* Until a callback ran, a signal came, or a moment passed. A client that reconnects does not fail
 * in waiting: its calls do. */
static void wait_once(struct transfer *transfer)
{
    spb_status status = spb_client_wait(transfer->daemon->client, CLI_WAIT_MS, NULL);

    SPB_ASSERT(spb_is_ok(status));
}

/* What was started leaves now, as far as the link takes it: so that the daemon works while this
 * side reads or writes a file. */
static void send_started(struct transfer *transfer)
{
    spb_status status = spb_client_wait(transfer->daemon->client, 0, NULL);

    SPB_ASSERT(spb_is_ok(status));
}

/* Callbacks hold pointers into the transfer: it does not end before the last has run. Who
 * interrupts does not wait for a link that may be dead: closing runs them all. */
static void drain(struct transfer *transfer)
{
    unsigned waits = LAST_WAITS;

    while (transfer->ended < transfer->started) {
        uint64_t ended = transfer->ended;
        if (cli_is_interrupted() && waits == 0)
            cli_daemon_done(transfer->daemon);
        else
            wait_once(transfer);
        if (cli_is_interrupted() && transfer->ended == ended && waits > 0)
            waits--;
    }
}

/* ---- Sending ------------------------------------------------------------------------------- */

struct send_state {
    struct transfer transfer; /* first: lanes lead here */
    struct cli_sending *sending;
};

static void note_taken(struct cli_sending *sending, uint64_t next_offset)
{
    if (next_offset <= sending->offset)
        return;
    sending->offset = next_offset;
    if (sending->note != NULL)
        sending->note(sending->user, next_offset);
}

static void on_sent(void *user, const struct spb_client_reply *reply)
{
    struct lane *lane = user;
    struct transfer *transfer = lane->transfer;
    struct cli_sending *sending = ((struct send_state *)(void *)transfer)->sending;
    bool was_good = !has_failed(transfer);
    CLI_AUTO_MESSAGE ProtobufCMessage *message = NULL;

    if (!lane_ended(lane, reply)) {
        if (was_good && reply->rpc_code == RPC_FAILED_PRECONDITION)
            sending->is_astray = strcmp(reply->reason, "WRONG_STATE") == 0;
        return;
    }
    spb_status status =
        spb_client_unpack("Write", &spaceblock__v1__write_upload_response__descriptor,
                          reply->payload, reply->payload_size, &message, transfer->err);
    if (!spb_is_ok(status)) {
        transfer_fail(transfer, status);
        return;
    }
    uint64_t next =
        ((const Spaceblock__V1__WriteUploadResponse *)(const void *)message)->next_offset;
    if (next < lane->offset + lane->size || next > sending->source->size) {
        sending->is_astray = true;
        transfer_fail(transfer, spb_fail(transfer->err, SPB_PROTOCOL,
                                         "sending a chunk: found %llu as the next offset, expected "
                                         "%llu",
                                         (unsigned long long)next,
                                         (unsigned long long)(lane->offset + lane->size)));
        return;
    }
    note_taken(sending, next);
}

static spb_status make_rooms(struct transfer *transfer)
{
    for (size_t i = 0; i < transfer->lane_count; i++) {
        transfer->lanes[i].data = malloc(transfer->chunk);
        if (transfer->lanes[i].data == NULL)
            return spb_fail_memory(transfer->err, "preparing a transfer");
    }
    return spb_ok();
}

/* Any one: the answer to a chunk may wait for the disk while those to later ones do not. */
static struct lane *free_lane(struct transfer *transfer)
{
    for (size_t i = 0; i < transfer->lane_count; i++) {
        if (!transfer->lanes[i].is_busy)
            return &transfer->lanes[i];
    }
    return NULL;
}

static spb_status send_chunk(struct send_state *state, struct lane *lane, uint64_t offset,
                             size_t size)
{
    Spaceblock__V1__WriteUploadRequest request;

    spaceblock__v1__write_upload_request__init(&request);
    SPB_TRY(
        cli_source_read_at(state->sending->source, offset, lane->data, size, state->transfer.err));
    lane->offset = offset;
    lane->size = size;
    request.upload_id = *state->sending->upload_id;
    request.offset = offset;
    request.data = cli_bytes(lane->data, size);
    request.crc32c = spb_crc32c(0, lane->data, size);
    return start_call(lane, CLI_SERVICE_UPLOADS, "Write", &request.base, on_sent);
}

static void send_all(struct send_state *state)
{
    struct transfer *transfer = &state->transfer;
    struct cli_sending *sending = state->sending;
    uint64_t size = sending->source->size;

    for (uint64_t at = sending->offset; at < size && !has_failed(transfer);) {
        struct lane *lane = free_lane(transfer);
        if (lane == NULL) {
            wait_once(transfer);
        } else {
            size_t n = size - at < transfer->chunk ? (size_t)(size - at) : transfer->chunk;
            transfer_fail(transfer, send_chunk(state, lane, at, n));
            send_started(transfer);
            at += n;
        }
        if (!cli_progress_callback(sending->progress, sending->offset, size))
            fail_interrupted(transfer, "sending");
    }
}

spb_status cli_transfer_send(struct cli_daemon *daemon, struct cli_sending *sending,
                             struct spb_error *err)
{
    struct send_state state = {.sending = sending};

    sending->is_astray = false;
    transfer_init(&state.transfer, daemon, err);
    spb_status status =
        choose_size(&state.transfer, sending->source->size - sending->offset, sending->chunk);
    if (spb_is_ok(status))
        status = make_rooms(&state.transfer);
    if (spb_is_ok(status)) {
        send_all(&state);
        drain(&state.transfer);
        status = state.transfer.status;
    }
    transfer_done(&state.transfer);
    return status;
}

/* ---- Fetching ------------------------------------------------------------------------------ */

/* In turn, so that the oldest call is always that of the lane to be used next. */
static struct lane *next_lane(struct transfer *transfer)
{
    return &transfer->lanes[transfer->started % transfer->lane_count];
}

static spb_status check_chunk(const struct lane *lane,
                              const Spaceblock__V1__ReadProductResponse *answer,
                              struct spb_error *err)
{
    if (answer->data.len != lane->size)
        return spb_fail(err, SPB_PROTOCOL,
                        "fetching a chunk at %llu: found %zu bytes, expected %zu",
                        (unsigned long long)lane->offset, answer->data.len, lane->size);
    if (spb_crc32c(0, answer->data.data, answer->data.len) != answer->crc32c)
        return spb_fail(err, SPB_PROTOCOL, "fetching a chunk at %llu: its CRC differs",
                        (unsigned long long)lane->offset);
    return spb_ok();
}

static void on_fetched(void *user, const struct spb_client_reply *reply)
{
    struct lane *lane = user;
    struct transfer *transfer = lane->transfer;
    CLI_AUTO_MESSAGE ProtobufCMessage *message = NULL;

    if (!lane_ended(lane, reply))
        return;
    spb_status status =
        spb_client_unpack("Read", &spaceblock__v1__read_product_response__descriptor,
                          reply->payload, reply->payload_size, &message, transfer->err);
    const Spaceblock__V1__ReadProductResponse *answer = (const void *)message;
    if (spb_is_ok(status))
        status = check_chunk(lane, answer, transfer->err);
    if (!spb_is_ok(status)) {
        transfer_fail(transfer, status);
        return;
    }
    lane->bytes = answer->data.data;
    lane->answer = message;
    message = NULL;
}

static spb_status ask_chunk(struct transfer *transfer, const struct cli_reading *reading,
                            uint64_t offset, size_t size)
{
    struct lane *lane = next_lane(transfer);

    lane->offset = offset;
    lane->size = size;
    return start_call(lane, reading->service, reading->method,
                      reading->ask(reading->user, offset, (uint32_t)size), on_fetched);
}

/* Asks as far ahead as there are lanes, and hands on the oldest chunk once it is there. */
static void fetch_all(struct transfer *transfer, const struct cli_reading *reading, uint64_t from,
                      struct cli_progress *progress, cli_sink sink, void *user)
{
    uint64_t length = reading->length, asked = from, done = from, handed = 0;

    while (done < length && !has_failed(transfer)) {
        struct lane *oldest = &transfer->lanes[handed % transfer->lane_count];
        struct lane *next = next_lane(transfer);
        if (asked < length && !next->is_busy && next->answer == NULL) {
            size_t left = length - asked, n = left < transfer->chunk ? left : transfer->chunk;
            transfer_fail(transfer, ask_chunk(transfer, reading, asked, n));
            asked += n;
        } else if (oldest->answer != NULL) {
            send_started(transfer);
            transfer_fail(transfer, sink(user, oldest->bytes, oldest->size, transfer->err));
            done += oldest->size;
            lane_empty(oldest);
            handed++;
        } else {
            wait_once(transfer);
        }
        if (!cli_progress_callback(progress, done, length))
            fail_interrupted(transfer, "fetching");
    }
}

spb_status cli_transfer_read(struct cli_daemon *daemon, const struct cli_reading *reading,
                             uint64_t from, struct cli_progress *progress, cli_sink sink,
                             void *user, struct spb_error *err)
{
    struct transfer transfer;

    transfer_init(&transfer, daemon, err);
    if (from < reading->length)
        SPB_TRY(choose_size(&transfer, reading->length - from, CLI_CHUNK_MAX));
    fetch_all(&transfer, reading, from, progress, sink, user);
    drain(&transfer);
    transfer_done(&transfer);
    return transfer.status;
}

/* ---- Fetching a product -------------------------------------------------------------------- */

struct product_reading {
    Spaceblock__V1__ReadProductRequest request;
    Spaceblock__V1__ImageRef image;
};

static const ProtobufCMessage *ask_product(void *user, uint64_t offset, uint32_t size)
{
    struct product_reading *product = user;

    product->request.offset = offset;
    product->request.length = size;
    return &product->request.base;
}

spb_status cli_transfer_fetch(struct daemon_target *target, const struct cli_product *product,
                              uint64_t from, struct cli_progress *progress, cli_sink sink,
                              void *user, struct spb_error *err)
{
    struct product_reading asked;
    const struct cli_reading reading = {.service = CLI_SERVICE_PRODUCTS,
                                        .method = "Read",
                                        .length = product->product.length,
                                        .ask = ask_product,
                                        .user = &asked};

    spaceblock__v1__read_product_request__init(&asked.request);
    cli_image_ref_fill(&target->image, &asked.image);
    asked.request.image = &asked.image;
    asked.request.name = cli_bytes(product->product.name, product->product.name_len);
    asked.request.identity = cli_bytes(product->identity, product->identity_len);
    asked.request.padded = product->product.state == SPB_PRODUCT_ROTTEN;
    return cli_transfer_read(&target->daemon, &reading, from, progress, sink, user, err);
}
