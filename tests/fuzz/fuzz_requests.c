/*
 * Fuzzes the real server over a socket pair. An input is one client's life: its bytes are sent, the
 * sending side is closed, and all that comes back is read up to the end; it must be frames of
 * Response envelopes, errors with their reason, successes with a message of the method's type, and
 * one for each request. The first byte chooses:
 *   0x80       the rest is sent as it is; otherwise it is a list of calls, each a byte for the
 *              method, two for a length, and so many bytes of payload, which get envelope and frame
 *   0x40       all calls are sent at once; otherwise each one waits for the answer before, and ids
 *              that the server gave (uploads, backups, products) replace their place holders
 * Of the two request_ids that stand in the corpus the first becomes a new one in every call, the
 * second one in every input.
 * The server lives through all inputs, on a folder in memory where there is one; what earlier
 * inputs made is removed now and then. This file's thread is the client; the server has its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/status.h"
#include "fuzz_entry.h"
#include "spaceblock/v1/artifacts.pb-c.h"
#include "spaceblock/v1/audit.pb-c.h"
#include "spaceblock/v1/events.pb-c.h"
#include "spaceblock/v1/guests.pb-c.h"
#include "spaceblock/v1/health.pb-c.h"
#include "spaceblock/v1/images.pb-c.h"
#include "spaceblock/v1/params.pb-c.h"
#include "spaceblock/v1/products.pb-c.h"
#include "spaceblock/v1/server.pb-c.h"
#include "spaceblock/v1/uploads.pb-c.h"
#include "ttrpc/ttrpc.h"

#define MODE_BYTES 0x80u
#define MODE_AT_ONCE 0x40u
#define CALLS_MAX 60u /* below what a connection may have in flight */
#define ANSWER_TIMEOUT_MS 20000
#define WAIT_TIMEOUT_NS 20000000  /* of calls that would wait for long */
#define FILE_SIZE_MAX (16u << 20) /* an image of the least size with the largest blocks fits */
#define INPUTS_PER_LIFE 64u
#define REQUEST_ID "11111111-2222-4333-8444-555555555555"
#define SAME_ID "22222222-2222-4333-8444-555555555555"
#define UPLOAD_ID "UPLOADIDUPLOADID"
#define BACKUP_ID "BACKUPIDBACKUPID"
#define IDENTITY "IDENTITY"

struct method {
    const char *service, *name;
    const ProtobufCMessageDescriptor *reply;
};

/* The order is the corpus's: append only. */
static const struct method methods[] = {
    {"Images", "Create", &spaceblock__v1__create_image_response__descriptor},
    {"Images", "List", &spaceblock__v1__list_images_response__descriptor},
    {"Images", "Get", &spaceblock__v1__get_image_response__descriptor},
    {"Images", "Inspect", &spaceblock__v1__inspect_image_response__descriptor},
    {"Images", "Check", &spaceblock__v1__check_image_response__descriptor},
    {"Images", "Defrag", &spaceblock__v1__defrag_image_response__descriptor},
    {"Images", "Reopen", &spaceblock__v1__reopen_image_response__descriptor},
    {"Images", "Delete", &spaceblock__v1__delete_image_response__descriptor},
    {"Params", "Put", &spaceblock__v1__put_param_response__descriptor},
    {"Params", "BatchPut", &spaceblock__v1__batch_put_params_response__descriptor},
    {"Params", "Get", &spaceblock__v1__get_param_response__descriptor},
    {"Params", "List", &spaceblock__v1__list_params_response__descriptor},
    {"Params", "History", &spaceblock__v1__param_history_response__descriptor},
    {"Params", "Delete", &spaceblock__v1__delete_param_response__descriptor},
    {"Events", "Append", &spaceblock__v1__append_events_response__descriptor},
    {"Events", "List", &spaceblock__v1__list_events_response__descriptor},
    {"DataProducts", "List", &spaceblock__v1__list_products_response__descriptor},
    {"DataProducts", "Get", &spaceblock__v1__get_product_response__descriptor},
    {"DataProducts", "Read", &spaceblock__v1__read_product_response__descriptor},
    {"DataProducts", "Delete", &spaceblock__v1__delete_product_response__descriptor},
    {"Uploads", "Start", &spaceblock__v1__start_upload_response__descriptor},
    {"Uploads", "Write", &spaceblock__v1__write_upload_response__descriptor},
    {"Uploads", "Status", &spaceblock__v1__upload_status_response__descriptor},
    {"Uploads", "Finish", &spaceblock__v1__finish_upload_response__descriptor},
    {"Uploads", "Abort", &spaceblock__v1__abort_upload_response__descriptor},
    {"Health", "Check", &spaceblock__v1__health_check_response__descriptor},
    {"Server", "Info", &spaceblock__v1__server_info_response__descriptor},
    {"Server", "Ping", &spaceblock__v1__ping_response__descriptor},
    {"Events", "Watch", &spaceblock__v1__watch_events_response__descriptor},
    {"Images", "Scrub", &spaceblock__v1__scrub_image_response__descriptor},
    {"Images", "Clone", &spaceblock__v1__clone_image_response__descriptor},
    {"Images", "Rename", &spaceblock__v1__rename_image_response__descriptor},
    {"Images", "Backup", &spaceblock__v1__backup_image_response__descriptor},
    {"Images", "ReadBackup", &spaceblock__v1__read_backup_response__descriptor},
    {"Images", "EndBackup", &spaceblock__v1__end_backup_response__descriptor},
    {"Artifacts", "List", &spaceblock__v1__list_artifacts_response__descriptor},
    {"Artifacts", "Get", &spaceblock__v1__get_artifact_response__descriptor},
    {"Artifacts", "Delete", &spaceblock__v1__delete_artifact_response__descriptor},
    {"Audit", "List", &spaceblock__v1__list_audit_response__descriptor},
    {"Server", "Cancel", &spaceblock__v1__cancel_response__descriptor},
    {"Guests", "Create", &spaceblock__v1__create_guest_response__descriptor},
    {"Guests", "Start", &spaceblock__v1__start_guest_response__descriptor},
    {"Guests", "Stop", &spaceblock__v1__stop_guest_response__descriptor},
    {"Guests", "Kill", &spaceblock__v1__kill_guest_response__descriptor},
    {"Guests", "Delete", &spaceblock__v1__delete_guest_response__descriptor},
    {"Guests", "Get", &spaceblock__v1__get_guest_response__descriptor},
    {"Guests", "List", &spaceblock__v1__list_guests_response__descriptor},
    {"Guests", "Wait", &spaceblock__v1__wait_guest_response__descriptor},
    {"Guests", "Stats", &spaceblock__v1__guest_stats_response__descriptor},
    {"Guests", "ReadConsole", &spaceblock__v1__read_console_response__descriptor},
    {"Guests", "WriteConsole", &spaceblock__v1__write_console_response__descriptor},
};

#define METHODS (sizeof methods / sizeof *methods)

enum {
    IMAGES_CREATE = 0,
    IMAGES_LIST = 1,
    IMAGES_DELETE = 7,
    PRODUCTS_GET = 17,
    UPLOADS_START = 20,
    EVENTS_WATCH = 28,
    IMAGES_SCRUB = 29,
    IMAGES_BACKUP = 32,
    GUESTS_WAIT = 47,
    GUESTS_READ_CONSOLE = 49,
};

/* One connection, from the client's side. */
struct session {
    int fd;
    struct spb_ttrpc_parser parser;
    const struct method *calls[CALLS_MAX]; /* by stream id; NULL once answered */
    size_t call_count, answers;
    bool ended;
    /* Of the answers that came: */
    uint8_t upload_id[sizeof UPLOAD_ID - 1u];
    uint8_t backup_id[sizeof BACKUP_ID - 1u];
    uint8_t identity[64];
    size_t identity_size;
    ProtobufCMessage **keep; /* where not NULL, gets the last success; the caller's */
};

static char data_dir[64];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- Answers ------------------------------------------------------------------------------ */

static void assert_error(const struct spb_ttrpc_response *response)
{
    static const char url[] = "type.googleapis.com/google.rpc.ErrorInfo";

    SPB_ASSERT(response->code >= 1 && response->code <= 16);
    SPB_ASSERT(response->message.size > 0 && response->payload.size == 0);
    SPB_ASSERT(response->details_count >= 1);
    SPB_ASSERT(response->details[0].type_url.size == sizeof url - 1u);
    SPB_ASSERT(memcmp(response->details[0].type_url.data, url, sizeof url - 1u) == 0);
}

static void learn(struct session *s, const struct method *method, const ProtobufCMessage *message)
{
    if (method == &methods[UPLOADS_START]) {
        const Spaceblock__V1__StartUploadResponse *start =
            (const Spaceblock__V1__StartUploadResponse *)message;

        SPB_ASSERT(start->upload_id.len == sizeof s->upload_id);
        memcpy(s->upload_id, start->upload_id.data, sizeof s->upload_id);
    }
    if (method == &methods[IMAGES_BACKUP]) {
        const Spaceblock__V1__BackupImageResponse *backup =
            (const Spaceblock__V1__BackupImageResponse *)message;

        SPB_ASSERT(backup->backup_id.len == sizeof s->backup_id);
        memcpy(s->backup_id, backup->backup_id.data, sizeof s->backup_id);
    }
    if (method == &methods[PRODUCTS_GET]) {
        const Spaceblock__V1__Product *product =
            ((const Spaceblock__V1__GetProductResponse *)message)->product;

        SPB_ASSERT(product != NULL && product->identity.len <= sizeof s->identity);
        memcpy(s->identity, product->identity.data, product->identity.len);
        s->identity_size = product->identity.len;
    }
}

static void take_success(struct session *s, const struct method *method,
                         const struct spb_ttrpc_response *response)
{
    ProtobufCMessage *message = protobuf_c_message_unpack(
        method->reply, NULL, response->payload.size, response->payload.data);

    SPB_ASSERT(message != NULL);
    learn(s, method, message);
    if (s->keep != NULL)
        *s->keep = message;
    else
        protobuf_c_message_free_unpacked(message, NULL);
}

static void take_frame(struct session *s, const struct spb_ttrpc_header *header,
                       const uint8_t *data)
{
    struct spb_ttrpc_response response;
    size_t call = header->stream / 2u;

    SPB_ASSERT(header->type == SPB_TTRPC_TYPE_RESPONSE && header->flags == 0);
    SPB_ASSERT(spb_is_ok(spb_ttrpc_response_decode(data, header->length, &response, NULL)));
    s->answers++;
    if (response.code != 0)
        assert_error(&response);
    if (s->call_count == 0) /* bytes were sent: whose answer it is, is not known */
        return;
    SPB_ASSERT(header->stream % 2u == 1u && call < s->call_count && s->calls[call] != NULL);
    if (response.code == 0)
        take_success(s, s->calls[call], &response);
    s->calls[call] = NULL;
}

static void take_bytes(struct session *s, const uint8_t *bytes, size_t n)
{
    while (n > 0) {
        enum spb_ttrpc_event event = SPB_TTRPC_NEED_MORE;
        struct spb_ttrpc_header header = {0};
        const uint8_t *data = NULL;
        size_t used = 0;

        SPB_ASSERT(spb_is_ok(
            spb_ttrpc_parser_feed(&s->parser, bytes, n, &used, &event, &header, &data, NULL)));
        SPB_ASSERT(event == SPB_TTRPC_NEED_MORE || event == SPB_TTRPC_FRAME);
        if (event == SPB_TTRPC_FRAME)
            take_frame(s, &header, data);
        bytes += used;
        n -= used;
    }
}

/* ---- The connection ----------------------------------------------------------------------- */

static void session_open(struct session *s)
{
    memset(s, 0, sizeof *s);
    s->fd = spb_server_fuzz_connect();
    SPB_ASSERT(s->fd >= 0 && fcntl(s->fd, F_SETFL, O_NONBLOCK) == 0);
    spb_ttrpc_parser_init(&s->parser, SPB_TTRPC_DATA_MAX);
}

static void session_close(struct session *s)
{
    SPB_ASSERT(!spb_ttrpc_parser_is_mid_frame(&s->parser));
    spb_ttrpc_parser_done(&s->parser);
    (void)close(s->fd);
}

static bool is_passing(void)
{
    return errno == EAGAIN || errno == EINTR;
}

static void receive(struct session *s)
{
    static uint8_t buffer[65536];
    ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);

    if (n > 0)
        take_bytes(s, buffer, (size_t)n);
    else if (n == 0 || !is_passing())
        s->ended = true;
}

/* Sends and receives what is ready; waits for either. */
static void turn(struct session *s, const uint8_t **bytes, size_t *n)
{
    struct pollfd p = {s->fd, (short)(POLLIN | (*n > 0 ? POLLOUT : 0)), 0};
    ssize_t sent;
    int ready;

    /* The fuzzer's own timer interrupts. */
    while ((ready = poll(&p, 1, ANSWER_TIMEOUT_MS)) < 0 && errno == EINTR)
        continue;
    SPB_ASSERT(ready > 0);
    if ((p.revents & POLLOUT) != 0 && *n > 0) {
        sent = send(s->fd, *bytes, *n, MSG_NOSIGNAL);
        if (sent < 0 && !is_passing())
            *n = 0; /* closed from the other side; what it said is still to be read */
        *bytes += sent > 0 ? sent : 0;
        *n -= sent > 0 ? (size_t)sent : 0u;
    }
    if ((p.revents & (POLLIN | POLLHUP | POLLERR)) != 0)
        receive(s);
}

static void send_all(struct session *s, const uint8_t *bytes, size_t n)
{
    while (n > 0 && !s->ended)
        turn(s, &bytes, &n);
}

/* Closes the sending side and reads up to the end. */
static void finish(struct session *s)
{
    const uint8_t *none = NULL;
    size_t n = 0;

    (void)shutdown(s->fd, SHUT_WR);
    while (!s->ended)
        turn(s, &none, &n);
}

static void wait_for_answer(struct session *s, size_t count)
{
    const uint8_t *none = NULL;
    size_t n = 0;

    while (s->answers < count && !s->ended)
        turn(s, &none, &n);
    SPB_ASSERT(s->answers == count);
}

static void send_call(struct session *s, const struct method *method, const uint8_t *payload,
                      size_t size)
{
    struct spb_ttrpc_header header = {0};
    struct spb_ttrpc_request request = {0};
    char service[48];
    uint8_t *frame;

    (void)snprintf(service, sizeof service, "spaceblock.v1.%s", method->service);
    request.service = (struct spb_ttrpc_view){(const uint8_t *)service, strlen(service)};
    request.method = (struct spb_ttrpc_view){(const uint8_t *)method->name, strlen(method->name)};
    request.payload = (struct spb_ttrpc_view){payload, size};
    if (method == &methods[EVENTS_WATCH] || method == &methods[IMAGES_SCRUB] ||
        method == &methods[GUESTS_WAIT] || method == &methods[GUESTS_READ_CONSOLE])
        request.timeout_ns = WAIT_TIMEOUT_NS;
    header.length = (uint32_t)spb_ttrpc_request_size(&request);
    header.stream = (uint32_t)s->call_count * 2u + 1u;
    header.type = SPB_TTRPC_TYPE_REQUEST;
    frame = malloc(SPB_TTRPC_HEADER_SIZE + header.length);
    SPB_ASSERT(frame != NULL && s->call_count < CALLS_MAX);
    spb_ttrpc_header_encode(&header, frame);
    spb_ttrpc_request_encode(&request, frame + SPB_TTRPC_HEADER_SIZE);
    s->calls[s->call_count++] = method;
    send_all(s, frame, SPB_TTRPC_HEADER_SIZE + header.length);
    free(frame);
}

/* ---- Inputs ------------------------------------------------------------------------------- */

/* A request_id that was never used. */
static void fresh_id(char id[sizeof REQUEST_ID])
{
    static unsigned long count;

    (void)snprintf(id, sizeof REQUEST_ID, "%08lx-2222-4333-8444-555555555555",
                   ++count & 0xffffffff);
}

static void replace(uint8_t *payload, size_t size, const char *holder, const uint8_t *id, size_t n)
{
    uint8_t *at = memmem(payload, size, holder, strlen(holder));

    if (at != NULL && n <= (size_t)(payload + size - at))
        memcpy(at, id, n);
}

/* What an input cannot know is put in: ids of calls, and those that the server gave. */
static void fill_in(struct session *s, uint8_t *payload, size_t size, const char *same_id,
                    bool has_answers)
{
    char id[sizeof REQUEST_ID];

    fresh_id(id);
    replace(payload, size, REQUEST_ID, (const uint8_t *)id, sizeof id - 1u);
    replace(payload, size, SAME_ID, (const uint8_t *)same_id, sizeof id - 1u);
    if (!has_answers)
        return;
    replace(payload, size, UPLOAD_ID, s->upload_id, sizeof s->upload_id);
    replace(payload, size, BACKUP_ID, s->backup_id, sizeof s->backup_id);
    replace(payload, size, IDENTITY, s->identity, s->identity_size);
}

static void run_calls(struct session *s, struct spb_reader *r, bool at_once)
{
    char same_id[sizeof REQUEST_ID];

    fresh_id(same_id);
    while (spb_reader_left(r) >= 3u && !r->failed && s->call_count < CALLS_MAX && !s->ended) {
        const struct method *method = &methods[spb_read_u8(r) % METHODS];
        size_t size = spb_read_be16(r);
        uint8_t *payload;

        size = size < spb_reader_left(r) ? size : spb_reader_left(r);
        payload = malloc(size + 1u);
        SPB_ASSERT(payload != NULL);
        spb_read_bytes(r, payload, size);
        fill_in(s, payload, size, same_id, !at_once);
        send_call(s, method, payload, size);
        if (!at_once)
            wait_for_answer(s, s->call_count);
        free(payload);
    }
}

/* A call of this file's own, which must succeed; *reply is the caller's. */
static ProtobufCMessage *call(size_t method, const ProtobufCMessage *request)
{
    size_t size = protobuf_c_message_get_packed_size(request);
    uint8_t *payload = malloc(size + 1u);
    ProtobufCMessage *reply = NULL;
    struct session s;

    SPB_ASSERT(payload != NULL);
    (void)protobuf_c_message_pack(request, payload);
    session_open(&s);
    s.keep = &reply;
    send_call(&s, &methods[method], payload, size);
    finish(&s);
    session_close(&s);
    free(payload);
    SPB_ASSERT(reply != NULL);
    return reply;
}

static void delete_image(const Spaceblock__V1__Image *image)
{
    char id[sizeof REQUEST_ID];
    Spaceblock__V1__ImageRef ref = SPACEBLOCK__V1__IMAGE_REF__INIT;
    Spaceblock__V1__DeleteImageRequest request;

    fresh_id(id);
    spaceblock__v1__delete_image_request__init(&request);
    ref.if_tenant_case = SPACEBLOCK__V1__IMAGE_REF__IF_TENANT_TENANT;
    ref.tenant = image->tenant;
    ref.name = image->name;
    request.request_id = id;
    request.image = &ref;
    protobuf_c_message_free_unpacked(call(IMAGES_DELETE, &request.base), NULL);
}

/* Deletes all images, and makes a small one of the name "a". */
static void begin_life(void)
{
    char id[sizeof REQUEST_ID];
    uint8_t name[] = {'a'};
    Spaceblock__V1__ListImagesRequest list = SPACEBLOCK__V1__LIST_IMAGES_REQUEST__INIT;
    Spaceblock__V1__ImageRef ref = SPACEBLOCK__V1__IMAGE_REF__INIT;
    Spaceblock__V1__CreateImageRequest create;
    Spaceblock__V1__ListImagesResponse *listed;

    list.all_tenants = 1;
    listed = (Spaceblock__V1__ListImagesResponse *)(void *)call(IMAGES_LIST, &list.base);
    for (size_t i = 0; i < listed->n_images; i++)
        delete_image(listed->images[i]);
    protobuf_c_message_free_unpacked(&listed->base, NULL);
    fresh_id(id);
    spaceblock__v1__create_image_request__init(&create);
    ref.name.data = name;
    ref.name.len = sizeof name;
    create.request_id = id;
    create.image = &ref;
    create.total_blocks = 100;
    create.if_epoch_case = SPACEBLOCK__V1__CREATE_IMAGE_REQUEST__IF_EPOCH_EPOCH;
    create.epoch = 1700000000;
    protobuf_c_message_free_unpacked(call(IMAGES_CREATE, &create.base), NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned inputs;
    struct spb_reader reader = spb_reader_over(data, size);
    uint8_t mode = spb_read_u8(&reader);
    struct session s;

    if (reader.failed)
        return -1;
    if (inputs++ % INPUTS_PER_LIFE == 0)
        begin_life();
    session_open(&s);
    if ((mode & MODE_BYTES) != 0)
        send_all(&s, data + 1, size - 1u);
    else
        run_calls(&s, &reader, (mode & MODE_AT_ONCE) != 0);
    finish(&s);
    SPB_ASSERT((mode & MODE_BYTES) != 0 || s.answers == s.call_count);
    session_close(&s);
    return 0;
}

/* ---- Start -------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static void remove_data(void)
{
    (void)nftw(data_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writing beyond the limit then fails with EFBIG; an ignored signal would be taken back. */
static void on_file_size(int number)
{
    (void)number;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct sigaction action = {.sa_handler = on_file_size};
    struct rlimit limit = {FILE_SIZE_MAX, FILE_SIZE_MAX};

    (void)argc;
    (void)argv;
    SPB_ASSERT(sigaction(SIGXFSZ, &action, NULL) == 0);
    SPB_ASSERT(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    (void)snprintf(data_dir, sizeof data_dir, "%s/fuzz_requests.XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    SPB_ASSERT(mkdtemp(data_dir) != NULL);
    SPB_ASSERT(atexit(remove_data) == 0);
    SPB_ASSERT(spb_server_fuzz_start(data_dir) == 0);
    return 0;
}
