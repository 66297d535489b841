/*
 * A guest's console as a stream; see stream.h.
 *
 * Two calls at most are in flight: one that reads, with a wait, and one that types. Their callbacks
 * only note what came; everything else is done by turns of one loop, so that a client is closed and
 * made anew outside of its callbacks. Output of a call is written before the next is made, so a
 * terminal that takes nothing holds up this program and nobody else.
 */
#include "cli/guest/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "cli/launch/terminal.h"
#include "cli/output.h"
#include "cli/reconnect.h"
#include "cli/text.h"

#define KEYS_MAX 4096u    /* of a call, as the daemon takes them */
#define READ_MAX 65536u   /* of a call */
#define CALL_MS 30000     /* somewhat longer than the wait */
#define TAKE_PAUSE_MS 100 /* before typing again what the guest's console had no room for */
#define WRITER_SIZE 16u
#define RPC_RESOURCE_EXHAUSTED 8
#define RPC_FAILED_PRECONDITION 9

enum { ON_CLIENT, ON_KEYS, ON_OUT, ON_COUNT };

struct stream {
    struct cli_guest *guest;
    const struct cli_stream_how *how;
    struct cli_terminal terminal;
    /* Reading. */
    bool reads;      /* a call is in flight */
    uint64_t offset; /* of the next byte */
    uint64_t until;  /* without follows: the end, once it is known */
    bool has_until, is_over;
    char *out; /* owned: what waits for standard output */
    size_t out_size, out_at;
    /* Typing. */
    bool types; /* a call is in flight */
    char keys[KEYS_MAX];
    size_t keys_size;
    bool keys_end, leaves;
    uint8_t writer[WRITER_SIZE];
    uint64_t typed;     /* bytes that the daemon has taken */
    int64_t type_at_ms; /* not before */
    bool is_renewed;    /* the writer is another since the last success */
    bool has_taken_over;
    bool told_refused;
    /* The connection. */
    bool is_lost, is_closing, told_lost;
    int64_t open_at_ms;
    struct cli_backoff backoff;
    /* The first failure that ends it. */
    spb_status status;
    struct spb_error *err;
};

static int64_t now_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void fail(struct stream *stream, spb_status status, const struct spb_error *err)
{
    if (!spb_is_ok(stream->status))
        return;
    stream->status = status;
    if (err != stream->err)
        *stream->err = *err;
}

/* ---- Calls --------------------------------------------------------------------------------- */

static const struct cli_method read_method = {
    CLI_SERVICE_GUESTS, "ReadConsole", &spaceblock__v1__read_console_response__descriptor, CALL_MS};
static const struct cli_method type_method = {CLI_SERVICE_GUESTS, "WriteConsole",
                                              &spaceblock__v1__write_console_response__descriptor,
                                              CALL_MS};

static spb_status start(struct stream *stream, const struct cli_method *method,
                        const ProtobufCMessage *request, spb_client_callback callback)
{
    struct cli_daemon *daemon = &stream->guest->daemon;
    size_t size = protobuf_c_message_get_packed_size(request);
    uint8_t *packed = malloc(size == 0 ? 1 : size);

    if (packed == NULL)
        return spb_fail_memory(stream->err, "packing a request");
    (void)protobuf_c_message_pack(request, packed);
    spb_status status = spb_client_start(daemon->client, method->service, method->name, packed,
                                         size, cli_daemon_timeout(daemon, method->timeout_ms),
                                         callback, stream, stream->err);
    free(packed);
    return status;
}

/* A call that failed: is the connection to blame, another is made, and the call with it. */
static void take_failure(struct stream *stream, const struct spb_client_reply *reply)
{
    struct cli *cli = stream->guest->cli;

    if (stream->is_closing)
        return;
    if (!cli_may_reconnect(cli, &stream->guest->daemon, reply->status)) {
        if (!cli_is_interrupted())
            fail(stream,
                 cli_daemon_failed(&stream->guest->daemon, reply->status, reply->rpc_code,
                                   reply->reason),
                 reply->error);
        return;
    }
    if (!stream->is_lost)
        stream->open_at_ms = now_ms() + cli_backoff_next(&stream->backoff);
    stream->is_lost = true;
    if (!stream->told_lost)
        cli_note(cli, "%s; trying again", reply->error->text);
    stream->told_lost = true;
}

static void note_answer(struct stream *stream)
{
    stream->backoff = (struct cli_backoff){0};
    if (stream->told_lost)
        cli_note(stream->guest->cli, "connected again");
    stream->told_lost = false;
}

/* ---- Reading ------------------------------------------------------------------------------- */

/* A line, without its end, as cli_text_safe has it. */
static bool put_safe_line(FILE *out, const uint8_t *line, size_t n)
{
    char *safe = cli_text_safe(line, n > 0 && line[n - 1] == '\r' ? n - 1 : n);
    bool good = safe != NULL && fputs(safe, out) >= 0;

    free(safe);
    return good;
}

/* A character that two pieces share shows as two bytes. */
static char *make_safe(const ProtobufCBinaryData *data, size_t *size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    bool good = out != NULL;

    for (size_t at = 0; good && at < data->len;) {
        const uint8_t *end = memchr(data->data + at, '\n', data->len - at);
        size_t n = end == NULL ? data->len - at : (size_t)(end - data->data) - at;

        good = put_safe_line(out, data->data + at, n) && (end == NULL || fputc('\n', out) == '\n');
        at += n + 1;
    }
    good = out != NULL && fclose(out) == 0 && good;
    if (good)
        return text;
    free(text);
    return NULL;
}

static void put_out(struct stream *stream, const Spaceblock__V1__ReadConsoleResponse *answer)
{
    stream->out_at = 0;
    stream->out_size = answer->data.len;
    if (cli_is_json(stream->guest->cli)) {
        json_t *object = cli_json_object();
        cli_json_set_number(object, "offset", answer->offset);
        cli_json_set_number(object, "size", answer->data.len);
        cli_json_set_text(object, "text", answer->data.data, answer->data.len);
        cli_json_set_hex(object, "data_hex", answer->data.data, answer->data.len);
        stream->out = cli_json_line(object, &stream->out_size);
        return;
    }
    if (stream->how->is_safe) {
        stream->out = make_safe(&answer->data, &stream->out_size);
    } else {
        stream->out = malloc(answer->data.len);
        if (stream->out != NULL)
            memcpy(stream->out, answer->data.data, answer->data.len);
    }
    if (stream->out == NULL)
        fail(stream, spb_fail_memory(stream->err, "taking what the guest printed"), stream->err);
}

static bool has_ended(Spaceblock__V1__GuestState state)
{
    Spaceblock__V1__Guest guest = SPACEBLOCK__V1__GUEST__INIT;

    guest.state = state;
    return cli_guest_has_ended(&guest);
}

static void take_piece(struct stream *stream, const Spaceblock__V1__ReadConsoleResponse *answer)
{
    if (answer->offset < stream->offset) {
        fail(stream, cli_answer_lacks(&read_method, "the offset that was asked for", stream->err),
             stream->err);
        return;
    }
    if (answer->skipped > 0)
        cli_note(stream->guest->cli, "%" PRIu64 " bytes are not kept any more", answer->skipped);
    stream->offset = answer->offset + answer->data.len;
    if (!stream->has_until)
        stream->until = answer->end;
    stream->has_until = true;
    if (answer->data.len > 0)
        put_out(stream, answer);
    stream->is_over = stream->how->follows ? answer->data.len == 0 && has_ended(answer->state)
                                           : stream->offset >= stream->until;
}

static void on_read(void *user, const struct spb_client_reply *reply)
{
    CLI_AUTO_MESSAGE ProtobufCMessage *message = NULL;
    struct stream *stream = user;

    stream->reads = false;
    if (!spb_is_ok(stream->status))
        return;
    if (!spb_is_ok(reply->status)) {
        take_failure(stream, reply);
        return;
    }
    spb_status status = spb_client_unpack(read_method.name, read_method.reply, reply->payload,
                                          reply->payload_size, &message, stream->err);
    if (!spb_is_ok(status)) {
        fail(stream, status, stream->err);
        return;
    }
    note_answer(stream);
    take_piece(stream, (const void *)message);
}

static void start_read(struct stream *stream)
{
    Spaceblock__V1__ReadConsoleRequest request;

    spaceblock__v1__read_console_request__init(&request);
    request.guest = &stream->guest->ref;
    request.from_case = SPACEBLOCK__V1__READ_CONSOLE_REQUEST__FROM_OFFSET;
    request.offset = stream->offset;
    request.limit = READ_MAX;
    request.wait_ms = stream->how->follows ? CLI_GUEST_WAIT_MS : 0;
    spb_status status = start(stream, &read_method, &request.base, on_read);
    stream->reads = spb_is_ok(status);
    if (!stream->reads)
        fail(stream, status, stream->err);
}

/* ---- Typing -------------------------------------------------------------------------------- */

static void take_typed(struct stream *stream, uint64_t offset)
{
    uint64_t taken = offset - stream->typed;

    if (offset < stream->typed || taken > stream->keys_size) {
        fail(stream, cli_answer_lacks(&type_method, "an offset within what was sent", stream->err),
             stream->err);
        return;
    }
    if (taken < stream->keys_size)
        stream->type_at_ms = now_ms() + TAKE_PAUSE_MS;
    stream->is_renewed = stream->told_refused = false;
    stream->has_taken_over = true; /* or there was nobody to take over from */
    stream->typed = offset;
    stream->keys_size -= (size_t)taken;
    memmove(stream->keys, stream->keys + taken, stream->keys_size);
}

/* Somebody who types on a terminal goes on looking where that is refused. A daemon that was started
 * again does not know the writer any more: it begins anew, once. */
static void take_refusal(struct stream *stream, const struct spb_client_reply *reply)
{
    if (stream->typed > 0 && !stream->is_renewed &&
        getrandom(stream->writer, WRITER_SIZE, 0) == (ssize_t)WRITER_SIZE) {
        stream->is_renewed = true;
        stream->typed = 0;
        return;
    }
    if (!stream->told_refused)
        cli_note(stream->guest->cli, "%s; what is typed is dropped", reply->error->text);
    stream->told_refused = true;
    stream->keys_size = 0;
}

static void on_typed(void *user, const struct spb_client_reply *reply)
{
    CLI_AUTO_MESSAGE ProtobufCMessage *message = NULL;
    struct stream *stream = user;

    stream->types = false;
    if (!spb_is_ok(stream->status))
        return;
    if (reply->rpc_code == RPC_RESOURCE_EXHAUSTED) {
        stream->type_at_ms = now_ms() + TAKE_PAUSE_MS;
        return;
    }
    if (reply->rpc_code == RPC_FAILED_PRECONDITION && stream->terminal.is_raw) {
        take_refusal(stream, reply);
        return;
    }
    if (!spb_is_ok(reply->status)) {
        take_failure(stream, reply);
        return;
    }
    spb_status status = spb_client_unpack(type_method.name, type_method.reply, reply->payload,
                                          reply->payload_size, &message, stream->err);
    if (spb_is_ok(status))
        take_typed(stream,
                   ((const Spaceblock__V1__WriteConsoleResponse *)(const void *)message)->offset);
    else
        fail(stream, status, stream->err);
}

static void start_typing(struct stream *stream)
{
    Spaceblock__V1__WriteConsoleRequest request;

    spaceblock__v1__write_console_request__init(&request);
    request.guest = &stream->guest->ref;
    request.writer_id = cli_bytes(stream->writer, WRITER_SIZE);
    request.offset = stream->typed;
    request.data = cli_bytes(stream->keys, stream->keys_size);
    /* Once: who takes it over from this one later is not fought. */
    request.takes_over = stream->how->takes_over && !stream->has_taken_over;
    spb_status status = start(stream, &type_method, &request.base, on_typed);
    stream->types = spb_is_ok(status);
    if (!stream->types)
        fail(stream, status, stream->err);
}

static void take_keys(struct stream *stream)
{
    char *at = stream->keys + stream->keys_size;
    ssize_t n = read(STDIN_FILENO, at, KEYS_MAX - stream->keys_size);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        stream->keys_end = true;
    if (n <= 0)
        return;
    size_t kept = (size_t)n;
    stream->leaves = cli_terminal_filter(&stream->terminal, at, &kept);
    stream->keys_size += kept;
}

/* ---- The loop ------------------------------------------------------------------------------ */

static void give_output(struct stream *stream)
{
    size_t left = stream->out_size - stream->out_at;
    /* So much fits into a pipe that polls as writable: it does not block. */
    ssize_t n = write(STDOUT_FILENO, stream->out + stream->out_at,
                      left < PIPE_BUF ? left : (size_t)PIPE_BUF);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        fail(stream, spb_fail_errno(stream->err, SPB_IO, errno, "writing to standard output"),
             stream->err);
        return;
    }
    stream->out_at += (size_t)n;
    if (stream->out_at < stream->out_size)
        return;
    free(stream->out);
    stream->out = NULL;
    stream->out_size = stream->out_at = 0;
}

/* Runs the callbacks of what is in flight; none of it counts. */
static void close_client(struct stream *stream)
{
    stream->is_closing = true;
    cli_daemon_done(&stream->guest->daemon);
    stream->is_closing = false;
}

static void open_client(struct stream *stream)
{
    close_client(stream);
    spb_status status = cli_daemon_open(stream->guest->cli, &stream->guest->daemon, stream->err);
    stream->is_lost = !spb_is_ok(status);
    if (stream->is_lost)
        fail(stream, status, stream->err);
}

static void start_calls(struct stream *stream)
{
    if (stream->is_lost)
        return;
    if (!stream->reads && stream->out_size == 0 && !stream->is_over)
        start_read(stream);
    if (!stream->types && stream->keys_size > 0 && now_ms() >= stream->type_at_ms &&
        !stream->is_over)
        start_typing(stream);
}

static void sooner(int64_t *wait_ms, int64_t other_ms)
{
    if (other_ms >= 0 && other_ms < *wait_ms)
        *wait_ms = other_ms;
}

static void wait_for_something(struct stream *stream, struct pollfd polls[ON_COUNT])
{
    const struct spb_client *client = stream->guest->daemon.client;
    /* A signal that comes just before the poll is noticed after this long. */
    int64_t wait_ms = CLI_WAIT_MS, now = now_ms();

    for (int i = 0; i < ON_COUNT; i++)
        polls[i] = (struct pollfd){.fd = -1};
    if (client != NULL) {
        unsigned wants = spb_client_wants(client);
        polls[ON_CLIENT].fd = spb_client_fd(client);
        polls[ON_CLIENT].events = (short)(((wants & SPB_CLIENT_READ) != 0 ? POLLIN : 0) |
                                          ((wants & SPB_CLIENT_WRITE) != 0 ? POLLOUT : 0));
        sooner(&wait_ms, spb_client_timeout_ms(client));
    }
    if (stream->how->types && !stream->keys_end && stream->keys_size < KEYS_MAX && !stream->types)
        polls[ON_KEYS] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    if (stream->out_size > 0)
        polls[ON_OUT] = (struct pollfd){.fd = STDOUT_FILENO, .events = POLLOUT};
    if (stream->is_lost)
        sooner(&wait_ms, stream->open_at_ms > now ? stream->open_at_ms - now : 0);
    if (stream->keys_size > 0 && stream->type_at_ms > now)
        sooner(&wait_ms, stream->type_at_ms - now);
    (void)poll(polls, ON_COUNT, (int)wait_ms);
}

static void turn(struct stream *stream)
{
    struct pollfd polls[ON_COUNT];

    if (stream->is_lost && now_ms() >= stream->open_at_ms)
        open_client(stream);
    start_calls(stream);
    if (!spb_is_ok(stream->status))
        return;
    wait_for_something(stream, polls);
    if (polls[ON_KEYS].revents != 0)
        take_keys(stream);
    if (polls[ON_OUT].revents != 0)
        give_output(stream);
    if (stream->guest->daemon.client == NULL)
        return;
    /* A client that reconnects does not fail here: its calls do. */
    spb_status status = spb_client_ready(stream->guest->daemon.client, stream->err);
    if (!spb_is_ok(status))
        fail(stream, status, stream->err);
}

static bool goes_on(const struct stream *stream)
{
    bool sent =
        stream->how->types && stream->how->ends_typed && stream->keys_end && stream->keys_size == 0;

    return spb_is_ok(stream->status) && !stream->leaves && !sent && !cli_is_interrupted() &&
           !(stream->is_over && stream->out_size == 0);
}

spb_status cli_stream_run(struct cli_guest *guest, const struct cli_stream_how *how,
                          struct cli_stream_end *end, struct spb_error *err)
{
    struct stream stream = {
        .guest = guest, .how = how, .offset = how->from, .status = spb_ok(), .err = err};

    if (getrandom(stream.writer, WRITER_SIZE, 0) != (ssize_t)WRITER_SIZE)
        return spb_fail(err, SPB_IO, "preparing to type: the system gave no random bytes");
    if (how->types)
        SPB_TRY(cli_terminal_init(&stream.terminal, err));
    while (goes_on(&stream))
        turn(&stream);
    if (how->types)
        cli_terminal_done(&stream.terminal);
    *end = (struct cli_stream_end){.left = stream.leaves, .ended = stream.is_over && how->follows};
    /* No callback may find the stream gone. */
    if (stream.reads || stream.types || !end->ended)
        close_client(&stream);
    free(stream.out);
    return stream.status;
}

/* ---- The last lines ------------------------------------------------------------------------ */

struct block {
    uint64_t offset; /* of data */
    size_t size;
    uint64_t end;   /* of all that was printed */
    bool is_oldest; /* nothing before it is kept */
    uint8_t data[READ_MAX];
};

/* So many bytes from the offset on, as far as they are kept; a length of 0 asks for the end. */
static spb_status read_block(struct cli_guest *guest, uint64_t offset, size_t size,
                             struct block *block, struct spb_error *err)
{
    block->size = 0;
    block->offset = offset;
    block->is_oldest = offset == 0;
    do {
        Spaceblock__V1__ReadConsoleRequest request;
        CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

        spaceblock__v1__read_console_request__init(&request);
        request.guest = &guest->ref;
        request.from_case = size == 0 ? SPACEBLOCK__V1__READ_CONSOLE_REQUEST__FROM_LAST
                                      : SPACEBLOCK__V1__READ_CONSOLE_REQUEST__FROM_OFFSET;
        if (size > 0)
            request.offset = offset + block->size;
        request.limit = size == 0 ? 1 : (uint32_t)(size - block->size);
        SPB_TRY(cli_daemon_call(&guest->daemon, &read_method, &request.base, &reply, err));
        const Spaceblock__V1__ReadConsoleResponse *answer = (const void *)reply;
        block->end = answer->end;
        if (size == 0)
            return spb_ok();
        if (answer->offset < request.offset || answer->data.len > size - block->size)
            return cli_answer_lacks(&read_method, "the bytes that were asked for", err);
        if (answer->skipped > 0) { /* also in the middle: what was before is gone by now */
            block->is_oldest = true;
            block->offset = answer->offset;
            block->size = 0;
            size = answer->offset < offset + size ? (size_t)(offset + size - answer->offset) : 0;
            offset = answer->offset;
        }
        size_t n = answer->data.len < size - block->size ? answer->data.len : size - block->size;
        memcpy(block->data + block->size, answer->data.data, n);
        block->size += n;
        if (n == 0)
            return spb_ok();
    } while (block->size < size);
    return spb_ok();
}

/* Where the line after the so-manieth line end from the back begins; false: not in this block.
 * *lines: how many are still wanted. The line end at the very end ends the last line. */
static bool find_in(const struct block *block, uint64_t end, uint64_t *lines, uint64_t *offset)
{
    for (size_t i = block->size; i > 0; i--) {
        uint64_t after = block->offset + i;
        if (block->data[i - 1] != '\n' || after == end)
            continue;
        if (*lines == 1) {
            *offset = after;
            return true;
        }
        (*lines)--;
    }
    return false;
}

spb_status cli_stream_find(struct cli_guest *guest, uint64_t lines, uint64_t *offset,
                           struct spb_error *err)
{
    struct block *block = calloc(1, sizeof(*block));

    if (block == NULL)
        return spb_fail_memory(err, "looking for the last lines");
    spb_status status = read_block(guest, 0, 0, block, err);
    uint64_t end = block->end, at = end;
    bool is_found = lines == 0;
    while (spb_is_ok(status) && !is_found && at > 0) {
        size_t size = at < READ_MAX ? (size_t)at : READ_MAX;
        status = read_block(guest, at - size, size, block, err);
        if (!spb_is_ok(status))
            break;
        is_found = find_in(block, end, &lines, &at);
        if (!is_found)
            at = block->offset;
        is_found = is_found || block->is_oldest;
    }
    if (spb_is_ok(status))
        *offset = at;
    free(block);
    return status;
}
