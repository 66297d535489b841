/*
 * Protobuf's wire format, as far as the envelopes and ErrorInfo need it: fields are read and
 * written through the bounded reader and writer of base. Groups, field number 0, varints longer
 * than ten bytes or above 64 bits are refused. No state; any thread.
 */
#ifndef SPB_TTRPC_WIRE_H
#define SPB_TTRPC_WIRE_H

#include "base/bytes.h"

enum spb_wire_type {
    SPB_WIRE_VARINT = 0,
    SPB_WIRE_FIXED64 = 1,
    SPB_WIRE_BYTES = 2, /* strings, bytes, messages */
    SPB_WIRE_FIXED32 = 5,
};

struct spb_wire_field {
    uint32_t number;
    enum spb_wire_type type;
    uint64_t value;      /* of a varint or fixed one */
    const uint8_t *data; /* of SPB_WIRE_BYTES: borrowed from the reader's bytes */
    size_t size;
};

/* The next field. False at the end, and where the bytes are broken: then r->failed is set. */
bool spb_wire_read_field(struct spb_reader *r, struct spb_wire_field *field);

size_t spb_wire_varint_size(uint64_t value);
/* Of a whole field with a varint or with n bytes; 0 for the default, which is left out. */
size_t spb_wire_varint_field_size(uint32_t number, uint64_t value);
size_t spb_wire_bytes_field_size(uint32_t number, size_t n);

void spb_wire_write_varint(struct spb_writer *w, uint64_t value);
/* Tag and length of a field of bytes, whose n bytes the caller writes next; also where n is 0. */
void spb_wire_write_bytes_head(struct spb_writer *w, uint32_t number, size_t n);
/* Whole fields; nothing for the default. */
void spb_wire_write_varint_field(struct spb_writer *w, uint32_t number, uint64_t value);
void spb_wire_write_bytes_field(struct spb_writer *w, uint32_t number, const uint8_t *data,
                                size_t n);

#endif
