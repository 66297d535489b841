/* The protocol of a connection, without I/O. See call_session.h. */
#include "call_session.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "call_reply.h"

void spb_session_init(struct spb_session *session)
{
    *session = (struct spb_session){.next_stream = 1};
    spb_ttrpc_parser_init(&session->parser, SPB_TTRPC_DATA_MAX);
}

void spb_session_done(struct spb_session *session)
{
    SPB_ASSERT(session->calls.running.count == 0);
    spb_ttrpc_parser_done(&session->parser);
    spb_call_table_done(&session->calls);
    spb_outbox_done(&session->outbox);
}

/* ---- Ending calls ------------------------------------------------------------------------- */

/* The callback may start calls, which may move or reuse anything of the session: whatever it was
 * given must not live in the tables. */
static void run_callback(struct spb_session *session, spb_client_callback callback, void *user,
                         const struct spb_client_reply *reply)
{
    session->ended++;
    session->is_in_callback = true;
    callback(user, reply);
    session->is_in_callback = false;
}

static void end_call(struct spb_session *session, struct spb_call *call,
                     const struct spb_client_reply *reply)
{
    spb_client_callback callback = call->callback;
    void *user = call->user;

    spb_call_table_remove(&session->calls, call);
    run_callback(session, callback, user, reply);
}

static void end_with_error(struct spb_session *session, struct spb_call *call,
                           const struct spb_error *why)
{
    struct spb_error err = *why;
    struct spb_client_reply reply;

    (void)spb_fail(&err, why->code, "%s: %s", call->name, why->text);
    err.saved_errno = why->saved_errno;
    spb_reply_from_error(&err, &reply);
    end_call(session, call, &reply);
}

void spb_session_lose(struct spb_session *session, const struct spb_error *why)
{
    if (session->is_lost)
        return;
    session->is_lost = true;
    session->loss = *why;
    while (session->calls.running.oldest != NULL)
        end_with_error(session, session->calls.running.oldest, &session->loss);
}

void spb_session_expire(struct spb_session *session, int64_t now_ns)
{
    struct spb_call *call;

    while ((call = spb_call_table_expire(&session->calls, now_ns)) != NULL) {
        struct spb_error err;
        struct spb_client_reply reply;

        (void)spb_fail(&err, SPB_DEADLINE, "%s: no answer within %lld ms", call->name,
                       (long long)call->timeout_ms);
        spb_reply_from_error(&err, &reply);
        run_callback(session, call->callback, call->user, &reply);
    }
}

/* ---- Starting calls ----------------------------------------------------------------------- */

static struct spb_ttrpc_view view_of(const char *text)
{
    return (struct spb_ttrpc_view){.data = (const uint8_t *)text, .size = strlen(text)};
}

/* The daemon's deadline is relative, and 0 would mean none. */
static int64_t timeout_ns(int64_t deadline_ns, int64_t now_ns)
{
    if (deadline_ns == SPB_NO_DEADLINE)
        return 0;
    return deadline_ns <= now_ns ? 1 : deadline_ns - now_ns;
}

static spb_status check_frame(const char *service, const char *method, size_t frame_data,
                              struct spb_error *err)
{
    if (frame_data <= SPB_TTRPC_DATA_MAX)
        return spb_ok();
    return spb_fail(err, SPB_LIMIT, "%s/%s: request of %zu bytes, at most %u can be sent", service,
                    method, frame_data, SPB_TTRPC_DATA_MAX);
}

spb_status spb_session_check_size(const char *service, const char *method, size_t size,
                                  struct spb_error *err)
{
    struct spb_ttrpc_request request;

    request.service = view_of(service);
    request.method = view_of(method);
    request.payload = (struct spb_ttrpc_view){.size = size};
    request.timeout_ns = INT64_MAX;
    request.metadata_count = 0;
    return check_frame(service, method, spb_ttrpc_request_size(&request), err);
}

static spb_status check_start(const struct spb_session *session, size_t frame_data,
                              const struct spb_session_call *call, struct spb_error *err)
{
    if (session->is_lost)
        return spb_fail(err, SPB_UNREACHABLE, "%s/%s: %s", call->service, call->method,
                        session->loss.text);
    SPB_TRY(check_frame(call->service, call->method, frame_data, err));
    if (session->next_stream > SPB_STREAM_MAX)
        return spb_fail(err, SPB_LIMIT,
                        "%s/%s: this connection has used up its stream ids, open a new one",
                        call->service, call->method);
    return spb_ok();
}

static bool queue_frame(struct spb_session *session, const struct spb_ttrpc_request *request,
                        size_t size)
{
    struct spb_ttrpc_header header = {.length = (uint32_t)size,
                                      .stream = (uint32_t)session->next_stream,
                                      .type = SPB_TTRPC_TYPE_REQUEST};
    uint8_t *out = spb_outbox_room(&session->outbox, SPB_TTRPC_HEADER_SIZE + size);

    if (out == NULL)
        return false;
    spb_ttrpc_header_encode(&header, out);
    spb_ttrpc_request_encode(request, out + SPB_TTRPC_HEADER_SIZE);
    spb_outbox_add(&session->outbox, SPB_TTRPC_HEADER_SIZE + size);
    return true;
}

static size_t add_to_name(struct spb_call *blank, size_t used, const void *text, size_t n)
{
    size_t room = sizeof(blank->name) - 1 - used;

    if (n > room)
        n = room;
    memcpy(blank->name + used, text, n);
    return used + n;
}

static void name_call(struct spb_call *blank, const struct spb_ttrpc_request *request)
{
    size_t used = add_to_name(blank, 0, request->service.data, request->service.size);

    used = add_to_name(blank, used, "/", 1);
    used = add_to_name(blank, used, request->method.data, request->method.size);
    blank->name[used] = '\0';
}

spb_status spb_session_start(struct spb_session *session, const struct spb_session_call *call,
                             int64_t now_ns, struct spb_error *err)
{
    int64_t deadline =
        call->deadline_ns != 0 ? call->deadline_ns : spb_deadline_after(now_ns, call->timeout_ms);
    struct spb_ttrpc_request request;

    request.service = view_of(call->service);
    request.method = view_of(call->method);
    request.payload = (struct spb_ttrpc_view){.data = call->payload, .size = call->size};
    request.timeout_ns = timeout_ns(deadline, now_ns);
    request.metadata_count = 0;
    size_t size = spb_ttrpc_request_size(&request);

    SPB_TRY(check_start(session, size, call, err));
    struct spb_call *blank = spb_call_table_blank(&session->calls);
    if (blank == NULL)
        return spb_fail_memory(err, "starting a call");
    if (!queue_frame(session, &request, size)) {
        spb_call_table_release(&session->calls, blank);
        return spb_fail_memory(err, "queueing a request");
    }
    blank->stream = (uint32_t)session->next_stream;
    blank->deadline_ns = deadline;
    blank->timeout_ms = call->timeout_ms;
    blank->callback = call->callback;
    blank->user = call->user;
    name_call(blank, &request);
    spb_call_table_add(&session->calls, blank);
    session->next_stream += 2;
    return spb_ok();
}

/* ---- What arrives ------------------------------------------------------------------------- */

/* The call that an answer is for; NULL with SPB_OK for one that came too late. */
static spb_status find_call(struct spb_session *session, uint32_t stream, struct spb_call **call,
                            struct spb_error *err)
{
    struct spb_call *found = spb_call_table_find(&session->calls, stream);

    if (found != NULL && found->is_expired) {
        spb_call_table_remove(&session->calls, found);
        found = NULL;
    } else if (found == NULL && (stream % 2 == 0 || stream > session->calls.forgotten)) {
        return spb_fail(err, SPB_PROTOCOL,
                        "the daemon answered stream %u, on which no call is waiting", stream);
    }
    *call = found;
    return spb_ok();
}

static void take_response(struct spb_session *session, struct spb_call *call, const uint8_t *data,
                          size_t size)
{
    struct spb_ttrpc_response response;
    struct spb_client_reply reply;
    struct spb_error err;
    spb_status status = spb_ttrpc_response_decode(data, size, &response, &err);

    if (!spb_is_ok(status)) {
        end_with_error(session, call, &err);
        return;
    }
    spb_reply_from_response(&response, &reply, &err);
    end_call(session, call, &reply);
}

static spb_status take_frame(struct spb_session *session, const struct spb_ttrpc_header *header,
                             const uint8_t *data, struct spb_error *err)
{
    struct spb_call *call;

    if (header->type != SPB_TTRPC_TYPE_RESPONSE)
        return spb_ok();
    SPB_TRY(find_call(session, header->stream, &call, err));
    if (call != NULL)
        take_response(session, call, data, header->length);
    return spb_ok();
}

static spb_status take_too_large(struct spb_session *session, const struct spb_ttrpc_header *header,
                                 struct spb_error *err)
{
    struct spb_call *call;
    struct spb_error why;

    if (header->type != SPB_TTRPC_TYPE_RESPONSE)
        return spb_ok();
    SPB_TRY(find_call(session, header->stream, &call, err));
    if (call == NULL)
        return spb_ok();
    (void)spb_fail(&why, SPB_PROTOCOL, "answer of %u bytes, at most %u are taken", header->length,
                   SPB_TTRPC_DATA_MAX);
    end_with_error(session, call, &why);
    return spb_ok();
}

static spb_status take_event(struct spb_session *session, enum spb_ttrpc_event event,
                             const struct spb_ttrpc_header *header, const uint8_t *data,
                             struct spb_error *err)
{
    switch (event) {
    case SPB_TTRPC_NEED_MORE:
        return spb_ok();
    case SPB_TTRPC_FRAME:
        return take_frame(session, header, data, err);
    case SPB_TTRPC_TOO_LARGE:
        return take_too_large(session, header, err);
    case SPB_TTRPC_BROKEN:
        break;
    }
    return spb_fail(err, SPB_PROTOCOL,
                    "the daemon sent what is no frame, expected a first byte of "
                    "0: is it spaceblockd that listens there?");
}

/* Goes on until the parser asks for more, also with no bytes left: that lets it give a large buffer
 * back. */
void spb_session_feed(struct spb_session *session, const uint8_t *bytes, size_t n)
{
    enum spb_ttrpc_event event = SPB_TTRPC_FRAME;

    while (!session->is_lost && event != SPB_TTRPC_NEED_MORE) {
        struct spb_ttrpc_header header;
        const uint8_t *data;
        size_t used = 0;
        struct spb_error err;
        spb_status status =
            spb_ttrpc_parser_feed(&session->parser, bytes, n, &used, &event, &header, &data, &err);

        if (spb_is_ok(status))
            status = take_event(session, event, &header, data, &err);
        if (!spb_is_ok(status)) {
            spb_session_lose(session, &err);
            return;
        }
        bytes += used;
        n -= used;
    }
}
