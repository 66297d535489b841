/*
 * Frames: header encoding, and the parser that takes bytes in any pieces. No I/O.
 *
 * The parser's buffer is at most twice what of the frame has arrived (or BUFFER_MIN), whatever the
 * header announced, where nobody asks for room. It is kept from frame to frame; one above
 * BUFFER_KEEP is given back by the call after its frame, which may be a call with no bytes. A
 * parser belongs to one connection and one thread.
 */
#include "ttrpc/ttrpc.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/status.h"

#define BUFFER_MIN 1024u
#define BUFFER_KEEP 65536u

enum {
    STATE_HEAD = 0,
    STATE_DATA,
    STATE_DRAIN,
    STATE_DELIVERED, /* the frame in data was handed out, and is the caller's until the next call */
    STATE_BROKEN,
};

void spb_ttrpc_header_encode(const struct spb_ttrpc_header *header,
                             uint8_t out[SPB_TTRPC_HEADER_SIZE])
{
    struct spb_writer w = spb_writer_over(out, SPB_TTRPC_HEADER_SIZE);

    spb_write_be32(&w, header->length);
    spb_write_be32(&w, header->stream);
    spb_write_u8(&w, header->type);
    spb_write_u8(&w, header->flags);
    SPB_ASSERT(!w.failed && w.pos == SPB_TTRPC_HEADER_SIZE);
}

void spb_ttrpc_parser_init(struct spb_ttrpc_parser *parser, uint32_t data_max)
{
    *parser = (struct spb_ttrpc_parser){.data_max = data_max, .state = STATE_HEAD};
}

/* Is a buffer of that size the memory's? */
static bool is_large(const struct spb_ttrpc_parser *p, uint32_t size)
{
    return p->memory != NULL && size >= p->memory->least;
}

static void release(struct spb_ttrpc_parser *p)
{
    if (is_large(p, p->data_size))
        p->memory->give(p->memory, p->data);
    else
        free(p->data);
}

void spb_ttrpc_parser_done(struct spb_ttrpc_parser *parser)
{
    release(parser);
    parser->data = NULL;
    parser->data_size = parser->data_used = 0;
}

bool spb_ttrpc_parser_is_mid_frame(const struct spb_ttrpc_parser *parser)
{
    switch (parser->state) {
    case STATE_HEAD:
        return parser->head_used > 0;
    case STATE_DATA:
    case STATE_DRAIN:
        return true;
    default:
        return false;
    }
}

bool spb_ttrpc_parser_is_in_data(const struct spb_ttrpc_parser *parser)
{
    return parser->state == STATE_DATA;
}

size_t spb_ttrpc_parser_left(const struct spb_ttrpc_parser *parser)
{
    switch (parser->state) {
    case STATE_DATA:
        return parser->header.length - parser->data_used;
    case STATE_DRAIN:
        return (size_t)parser->drain_left;
    default:
        return 0;
    }
}

void spb_ttrpc_parser_discard(struct spb_ttrpc_parser *parser)
{
    SPB_ASSERT(parser->state == STATE_DATA);
    parser->drain_left = parser->header.length - parser->data_used;
    parser->state = STATE_DRAIN;
    spb_ttrpc_parser_done(parser);
}

static void expect_header(struct spb_ttrpc_parser *p)
{
    p->state = STATE_HEAD;
    p->head_used = 0;
    p->data_used = 0;
}

static void forget_delivered(struct spb_ttrpc_parser *p)
{
    if (p->state != STATE_DELIVERED)
        return;
    if (p->data_size > BUFFER_KEEP)
        spb_ttrpc_parser_done(p);
    expect_header(p);
}

static enum spb_ttrpc_event judge_header(struct spb_ttrpc_parser *p)
{
    struct spb_reader r = spb_reader_over(p->head, SPB_TTRPC_HEADER_SIZE);

    p->header.length = spb_read_be32(&r);
    p->header.stream = spb_read_be32(&r);
    p->header.type = spb_read_u8(&r);
    p->header.flags = spb_read_u8(&r);
    if (p->header.length > p->data_max) {
        p->drain_left = p->header.length;
        p->state = STATE_DRAIN;
        return SPB_TTRPC_TOO_LARGE;
    }
    if (p->header.length == 0) {
        p->state = STATE_DELIVERED;
        return SPB_TTRPC_FRAME;
    }
    p->state = STATE_DATA;
    return SPB_TTRPC_NEED_MORE;
}

static enum spb_ttrpc_event take_head(struct spb_ttrpc_parser *p, struct spb_reader *in)
{
    /* No frame we know is 16 MiB long: such a header means that the peer does not speak this
     * protocol, and nothing after it can be trusted. */
    if (p->head_used == 0 && in->data[in->pos] != 0) {
        p->state = STATE_BROKEN;
        return SPB_TTRPC_BROKEN;
    }
    size_t want = SPB_TTRPC_HEADER_SIZE - p->head_used;
    size_t n = spb_reader_left(in) < want ? spb_reader_left(in) : want;

    spb_read_bytes(in, p->head + p->head_used, n);
    p->head_used += (uint32_t)n;
    return p->head_used < SPB_TTRPC_HEADER_SIZE ? SPB_TTRPC_NEED_MORE : judge_header(p);
}

/* Makes the buffer one of that size, or larger, with what is in it. */
static bool resize(struct spb_ttrpc_parser *p, uint32_t size)
{
    bool large = is_large(p, size);
    /* It only grows: what will not be a large one was none. */
    uint8_t *sized = large ? p->memory->take(p->memory, &size) : realloc(p->data, size);

    if (sized == NULL)
        return false;
    if (large && p->data_used > 0)
        memcpy(sized, p->data, p->data_used);
    if (large)
        release(p);
    p->data = sized;
    p->data_size = size;
    return true;
}

uint8_t *spb_ttrpc_parser_room(struct spb_ttrpc_parser *parser, size_t least, size_t *n)
{
    *n = spb_ttrpc_parser_left(parser);
    if (parser->state != STATE_DATA || *n < least)
        return NULL;
    if (parser->data_size < parser->header.length && !resize(parser, parser->header.length))
        return NULL;
    return parser->data + parser->data_used;
}

/* Room for `need` bytes, all of which have arrived; need is at most data_max. */
static spb_status make_room(struct spb_ttrpc_parser *p, uint32_t need, struct spb_error *err)
{
    if (need <= p->data_size)
        return spb_ok();
    uint64_t size = (uint64_t)p->data_size * 2;

    if (size < BUFFER_MIN)
        size = BUFFER_MIN;
    if (size < need)
        size = need;
    if (size > p->header.length && size > BUFFER_MIN)
        size = p->header.length > BUFFER_MIN ? p->header.length : BUFFER_MIN;
    if (size > p->data_max)
        size = p->data_max;
    return resize(p, (uint32_t)size) ? spb_ok() : spb_fail_memory(err, "receiving a frame");
}

static spb_status take_data(struct spb_ttrpc_parser *p, struct spb_reader *in,
                            enum spb_ttrpc_event *event, struct spb_error *err)
{
    uint32_t want = p->header.length - p->data_used;
    uint32_t n = spb_reader_left(in) < want ? (uint32_t)spb_reader_left(in) : want;

    SPB_TRY(make_room(p, p->data_used + n, err));
    const uint8_t *from = spb_read_view(in, n);
    if (n > 0 && from != p->data + p->data_used)
        memcpy(p->data + p->data_used, from, n);
    p->data_used += n;
    if (p->data_used == p->header.length) {
        p->state = STATE_DELIVERED;
        *event = SPB_TTRPC_FRAME;
    }
    return spb_ok();
}

static void drain(struct spb_ttrpc_parser *p, struct spb_reader *in)
{
    size_t left = spb_reader_left(in);
    size_t n = left < p->drain_left ? left : (size_t)p->drain_left;

    (void)spb_read_view(in, n);
    p->drain_left -= n;
    if (p->drain_left == 0)
        expect_header(p);
}

static spb_status step(struct spb_ttrpc_parser *p, struct spb_reader *in,
                       enum spb_ttrpc_event *event, struct spb_error *err)
{
    switch (p->state) {
    case STATE_HEAD:
        *event = take_head(p, in);
        return spb_ok();
    case STATE_DATA:
        return take_data(p, in, event, err);
    default:
        SPB_ASSERT(p->state == STATE_DRAIN);
        drain(p, in);
        return spb_ok();
    }
}

spb_status spb_ttrpc_parser_feed(struct spb_ttrpc_parser *parser, const uint8_t *bytes, size_t n,
                                 size_t *used, enum spb_ttrpc_event *event,
                                 struct spb_ttrpc_header *header, const uint8_t **data,
                                 struct spb_error *err)
{
    struct spb_reader in = spb_reader_over(bytes, n);
    enum spb_ttrpc_event seen = SPB_TTRPC_NEED_MORE;

    forget_delivered(parser);
    if (parser->state == STATE_BROKEN)
        seen = SPB_TTRPC_BROKEN;
    while (seen == SPB_TTRPC_NEED_MORE && spb_reader_left(&in) > 0) {
        spb_status status = step(parser, &in, &seen, err);
        if (!spb_is_ok(status)) {
            parser->state = STATE_BROKEN;
            return status;
        }
    }
    *used = in.pos;
    *event = seen;
    if (seen == SPB_TTRPC_FRAME || seen == SPB_TTRPC_TOO_LARGE)
        *header = parser->header;
    if (seen == SPB_TTRPC_FRAME)
        *data = parser->header.length == 0 ? NULL : parser->data;
    return spb_ok();
}
