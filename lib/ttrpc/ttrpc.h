/*
 * ttrpc framing and envelopes, without I/O: bytes in, messages out. Shared by server and client.
 * The protocol's facts are in proto/ttrpc.proto and docs/PROTOCOL.md.
 *
 * A frame is a 10-byte header (u32 BE data length, u32 BE stream id, u8 type, u8 flags) and its
 * data. The parser takes bytes as they come, in any pieces, and never holds more than one frame.
 * Nothing here is thread-safe; one parser belongs to one connection.
 */
#ifndef SPB_TTRPC_TTRPC_H
#define SPB_TTRPC_TTRPC_H

#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_TTRPC_HEADER_SIZE 10u
#define SPB_TTRPC_DATA_MAX 4194304u /* bytes of data in one frame */
#define SPB_TTRPC_TYPE_REQUEST 1u
#define SPB_TTRPC_TYPE_RESPONSE 2u
#define SPB_TTRPC_METADATA_MAX 32u         /* pairs */
#define SPB_TTRPC_METADATA_BYTES_MAX 8192u /* keys and values together */
#define SPB_TTRPC_DETAILS_MAX 8u

struct spb_ttrpc_header {
    uint32_t length; /* bytes of data that follow */
    uint32_t stream;
    uint8_t type;
    uint8_t flags;
};

void spb_ttrpc_header_encode(const struct spb_ttrpc_header *header,
                             uint8_t out[SPB_TTRPC_HEADER_SIZE]);

/* ---- Parser ------------------------------------------------------------------------------- */

enum spb_ttrpc_event {
    SPB_TTRPC_NEED_MORE, /* all bytes are used; feed more */
    SPB_TTRPC_FRAME,     /* header and data hold a whole frame */
    SPB_TTRPC_TOO_LARGE, /* header alone: its data is over the limit and is being drained */
    SPB_TTRPC_BROKEN,    /* the first byte of a header is not 0: close the connection */
};

/* Where the buffers of large frames come from and go to. */
struct spb_ttrpc_memory {
    uint32_t least; /* bytes: smaller ones are malloc's */
    /* Of *size bytes at least, which is set to what it has. NULL without memory. */
    uint8_t *(*take)(struct spb_ttrpc_memory *memory, uint32_t *size);
    void (*give)(struct spb_ttrpc_memory *memory, uint8_t *data);
};

struct spb_ttrpc_parser {
    uint32_t data_max;               /* a frame's data over this is TOO_LARGE */
    struct spb_ttrpc_memory *memory; /* borrowed; set after init, if at all. NULL: malloc */
    uint8_t head[SPB_TTRPC_HEADER_SIZE];
    uint32_t head_used;
    struct spb_ttrpc_header header;
    uint8_t *data; /* owned; grows with what arrived, not with what was announced, but see room */
    uint32_t data_used, data_size;
    uint64_t drain_left;
    int state;
};

void spb_ttrpc_parser_init(struct spb_ttrpc_parser *parser, uint32_t data_max);
void spb_ttrpc_parser_done(struct spb_ttrpc_parser *parser);

/*
 * Takes bytes until something is complete; *used says how many of n. On FRAME, *header and *data
 * (borrowed until the next call on this parser; NULL for an empty frame) describe it. SPB_NO_MEMORY
 * breaks the connection. A call with no bytes is allowed, and gives a large frame's buffer back.
 */
SPB_MUST_USE spb_status spb_ttrpc_parser_feed(struct spb_ttrpc_parser *parser, const uint8_t *bytes,
                                              size_t n, size_t *used, enum spb_ttrpc_event *event,
                                              struct spb_ttrpc_header *header, const uint8_t **data,
                                              struct spb_error *err);

/* Is part of a frame in the parser (for the deadline on a frame's arrival)? */
bool spb_ttrpc_parser_is_mid_frame(const struct spb_ttrpc_parser *parser);

/* Is its header complete and its data on the way? Not where that is being drained. */
bool spb_ttrpc_parser_is_in_data(const struct spb_ttrpc_parser *parser);
/* Bytes of data of the frame that is arriving which have not come yet; 0 where its header has not.
 */
size_t spb_ttrpc_parser_left(const struct spb_ttrpc_parser *parser);
/*
 * Where those bytes will be, in one piece: *n is set to how many they are. NULL where they are
 * fewer than `least`, or without memory. This takes memory for all of the frame at once. Bytes that
 * are put there, from its beginning, and then fed from there are not copied.
 */
uint8_t *spb_ttrpc_parser_room(struct spb_ttrpc_parser *parser, size_t least, size_t *n);
/* Gives up that frame: what has come of it is forgotten, the rest is drained. */
void spb_ttrpc_parser_discard(struct spb_ttrpc_parser *parser);

/* ---- Envelopes ---------------------------------------------------------------------------- */

/* Bytes borrowed from the frame that was decoded, or from the caller who encodes. */
struct spb_ttrpc_view {
    const uint8_t *data;
    size_t size;
};

struct spb_ttrpc_pair {
    struct spb_ttrpc_view key, value;
};

struct spb_ttrpc_request {
    struct spb_ttrpc_view service, method, payload;
    int64_t timeout_ns; /* relative; 0: none. Negative is refused by decode */
    struct spb_ttrpc_pair metadata[SPB_TTRPC_METADATA_MAX];
    size_t metadata_count;
};

struct spb_ttrpc_detail {
    struct spb_ttrpc_view type_url, value;
};

struct spb_ttrpc_response {
    int32_t code; /* 0: success, payload is set */
    struct spb_ttrpc_view message;
    struct spb_ttrpc_detail details[SPB_TTRPC_DETAILS_MAX]; /* more are skipped */
    size_t details_count;
    struct spb_ttrpc_view payload;
};

/* SPB_PROTOCOL where the bytes do not parse or a string is not UTF-8 or has a NUL; SPB_LIMIT for
 * too much metadata. Unknown fields are skipped; of a repeated single field the last counts. */
SPB_MUST_USE spb_status spb_ttrpc_request_decode(const uint8_t *data, size_t size,
                                                 struct spb_ttrpc_request *request,
                                                 struct spb_error *err);
SPB_MUST_USE spb_status spb_ttrpc_response_decode(const uint8_t *data, size_t size,
                                                  struct spb_ttrpc_response *response,
                                                  struct spb_error *err);

/* Bytes of the encoded message, without frame header. */
size_t spb_ttrpc_request_size(const struct spb_ttrpc_request *request);
size_t spb_ttrpc_response_size(const struct spb_ttrpc_response *response);
/* Encodes to out, which has at least ..._size() bytes; fields in ascending order, defaults left
 * out. */
void spb_ttrpc_request_encode(const struct spb_ttrpc_request *request, uint8_t *out);
void spb_ttrpc_response_encode(const struct spb_ttrpc_response *response, uint8_t *out);

#endif
