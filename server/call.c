/* One call; see call.h. */
#include "call.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "repeat.h"
#include "supervisor/guest.h"
#include "ttrpc/ttrpc.h"
#include "uploads.h"

#define CACHE_MAX 256u
#define RETRY_MS 1000u /* after a restart the daemon is back soon */

static void init_arena(struct spb_call *call)
{
    spb_arena_init(&call->arena, call + 1, SPB_CALL_BLOCK_SIZE - sizeof(*call), SPB_ARENA_CAP);
    call->arena.pool = &call->cache->pool;
}

struct spb_call *spb_call_new(struct spb_call_cache *cache, struct spb_daemon *daemon)
{
    struct spb_call *call = cache->free;

    if (call != NULL) {
        cache->free = call->next;
        cache->count--;
    } else {
        call = malloc(SPB_CALL_BLOCK_SIZE);
        if (call == NULL)
            return NULL;
    }
    memset(call, 0, sizeof(*call));
    call->daemon = daemon;
    call->cache = cache;
    init_arena(call);
    return call;
}

void spb_call_forget_request(struct spb_call *call)
{
    size_t cap = call->arena.cap;

    spb_arena_done(&call->arena);
    init_arena(call);
    call->arena.cap = cap;
    call->request = NULL;
    call->state = NULL;
    call->frame = NULL;
}

void spb_call_free(struct spb_call *call)
{
    struct spb_call_cache *cache = call->cache;

    if (call->upload != NULL)
        spb_upload_unref(call->upload);
    spb_guest_unref(call->guest);
    if (call->image != NULL)
        spb_image_unref(call->image);
    spb_arena_done(&call->arena);
    if (cache->count >= CACHE_MAX) {
        free(call);
        return;
    }
    call->next = cache->free;
    cache->free = call;
    cache->count++;
}

void spb_call_cache_done(struct spb_call_cache *cache)
{
    while (cache->free != NULL) {
        struct spb_call *call = cache->free;

        cache->free = call->next;
        free(call);
    }
    cache->count = 0;
}

/* ---- The answer --------------------------------------------------------------------------- */

static void seal(struct spb_call *call, uint8_t *frame, size_t data_size)
{
    struct spb_ttrpc_header header = {
        .length = (uint32_t)data_size,
        .stream = call->origin.stream,
        .type = SPB_TTRPC_TYPE_RESPONSE,
    };

    spb_ttrpc_header_encode(&header, frame);
    call->frame = frame;
    call->frame_size = SPB_TTRPC_HEADER_SIZE + data_size;
}

/* Where the data directory lies on the host is none of the caller's: files are named from there on.
 */
static void name_from_data_dir(const char *data_dir, char *text)
{
    size_t n = strlen(data_dir);
    char *at = text;

    if (data_dir[0] != '/' || n == 1)
        return;
    while ((at = strstr(at, data_dir)) != NULL) {
        if (at[n] == '/')
            memmove(at, at + n + 1, strlen(at + n + 1) + 1);
        else
            at += n;
    }
}

static void set_fault(struct spb_call *call, const struct spb_fault *about)
{
    char text[SPB_ERROR_TEXT_SIZE];
    struct spb_fault fault = *about;
    size_t size = 0;

    (void)snprintf(text, sizeof(text), "%s", about->text);
    name_from_data_dir(call->daemon->data_dir, text);
    fault.text = text;
    if (call->image_text[0] != '\0')
        fault.image = call->image_text;
    fault.retry_ms = RETRY_MS;
    call->code = spb_rpc_code_of(fault.reason);
    call->payload = NULL;
    uint8_t *frame = spb_fault_encode(&fault, &call->arena, SPB_TTRPC_HEADER_SIZE, &size);
    if (frame == NULL) {
        /* The request filled its arena; a little more is given for saying so. */
        call->arena.cap += SPB_CALL_BLOCK_SIZE * 2;
        frame = spb_fault_encode(&fault, &call->arena, SPB_TTRPC_HEADER_SIZE, &size);
    }
    if (frame != NULL)
        seal(call, frame, size);
}

/* payload is in the arena already. */
static void set_payload(struct spb_call *call, const uint8_t *payload, size_t size)
{
    struct spb_ttrpc_response response = {.payload = {.data = payload, .size = size}};
    size_t data_size = spb_ttrpc_response_size(&response);
    uint8_t *frame = spb_call_alloc(call, SPB_TTRPC_HEADER_SIZE + data_size);

    if (frame == NULL)
        return;
    spb_ttrpc_response_encode(&response, frame + SPB_TTRPC_HEADER_SIZE);
    call->code = 0;
    seal(call, frame, data_size);
    call->payload = payload;
    call->payload_size = size;
}

static bool payload_fits(struct spb_call *call, size_t size)
{
    struct spb_ttrpc_response response = {.payload = {.size = size}};

    if (spb_ttrpc_response_size(&response) <= SPB_TTRPC_DATA_MAX)
        return true;
    spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                       "the answer has %zu bytes, at most %u are sent: ask for less", size,
                       SPB_TTRPC_DATA_MAX);
    return false;
}

void spb_call_set_reply(struct spb_call *call, const ProtobufCMessage *reply)
{
    size_t size = protobuf_c_message_get_packed_size(reply);
    uint8_t *payload = payload_fits(call, size) ? spb_call_alloc(call, size) : NULL;

    if (payload == NULL)
        return;
    (void)protobuf_c_message_pack(reply, payload);
    set_payload(call, payload, size);
}

void spb_call_set_packed_reply(struct spb_call *call, const uint8_t *bytes, size_t size)
{
    uint8_t *payload = payload_fits(call, size) ? spb_call_alloc(call, size) : NULL;

    if (payload == NULL)
        return;
    if (size > 0)
        memcpy(payload, bytes, size);
    set_payload(call, payload, size);
}

void spb_call_set_error(struct spb_call *call, const struct spb_error *err)
{
    struct spb_fault fault = {.reason = spb_reason_of(err->code), .text = err->text};

    set_fault(call, &fault);
}

void spb_call_set_fault(struct spb_call *call, PB_ErrorReason reason, const char *format, ...)
{
    char text[SPB_ERROR_TEXT_SIZE];
    struct spb_fault fault = {.reason = reason, .text = text};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    set_fault(call, &fault);
}

void spb_call_set_bad_field(struct spb_call *call, const char *field, const char *format, ...)
{
    char text[SPB_ERROR_TEXT_SIZE];
    struct spb_fault fault = {.reason = PB_REASON(INVALID_REQUEST), .text = text, .field = field};
    va_list args;
    int used = snprintf(text, sizeof(text), "%s: ", field);

    if (used < 0 || (size_t)used >= sizeof(text))
        used = 0;
    va_start(args, format);
    (void)vsnprintf(text + used, sizeof(text) - (size_t)used, format, args);
    va_end(args);
    set_fault(call, &fault);
}

void spb_call_send(struct spb_call *call)
{
    struct spb_loop *loop = call->daemon->loop;

    SPB_ASSERT(call->open_group == NULL);
    if (call->party.entry != 0) {
        call->party.next = NULL;
        spb_repeat_conclude(call->daemon, &call->party);
    }
    if (spb_loop_is_here(loop))
        call->post.run(&call->post);
    else
        spb_loop_post(loop, &call->post, &call->post);
}

/* ---- While it runs ------------------------------------------------------------------------ */

bool spb_call_is_late(struct spb_call *call, int64_t now_ns)
{
    if (atomic_load_explicit(&call->cancelled, memory_order_relaxed)) {
        spb_call_set_fault(call, PB_REASON(CANCELLED),
                           "the call was cancelled before the work was begun; nothing was done");
        return true;
    }
    if (call->deadline_ns == 0 || now_ns < call->deadline_ns)
        return false;
    spb_call_set_fault(call, PB_REASON(DEADLINE),
                       "the deadline passed before the work was begun; nothing was done");
    return true;
}

bool spb_call_refuse_at_end(struct spb_call *call)
{
    if (!atomic_load(&call->daemon->ending))
        return false;
    spb_call_set_fault(call, PB_REASON(DRAINING), "the server is shutting down");
    spb_call_send(call);
    return true;
}

bool spb_call_may_go_on(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    const struct spb_call *call = user;

    (void)done_bytes;
    (void)total_bytes;
    if (atomic_load_explicit(&call->daemon->ending, memory_order_relaxed) ||
        atomic_load_explicit(&call->cancelled, memory_order_relaxed))
        return false;
    return call->deadline_ns == 0 || spb_now_ns() < call->deadline_ns;
}

void spb_call_to_workers(struct spb_call *call, void (*run)(struct spb_task *task))
{
    call->task.run = run;
    spb_pool_submit(call->daemon->pool, SPB_LANE_BULK, &call->task);
}

void *spb_call_alloc(struct spb_call *call, size_t size)
{
    void *piece = spb_arena_alloc(&call->arena, size);

    if (piece == NULL)
        spb_call_set_fault(call, PB_REASON(LIMIT_EXCEEDED),
                           "the call needs more memory than the %zu bytes that it may use",
                           call->arena.cap);
    return piece;
}
