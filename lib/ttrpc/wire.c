/* Protobuf's wire format over the bounded reader and writer. No state; any thread. */
#include "ttrpc/wire.h"

#define VARINT_BYTES_MAX 10
#define FIELD_NUMBER_MAX 0x1FFFFFFFu

static uint64_t read_varint(struct spb_reader *r)
{
    uint64_t value = 0;

    for (int i = 0; i < VARINT_BYTES_MAX; i++) {
        uint8_t byte = spb_read_u8(r);
        /* Nine bytes carry 63 bits, so the tenth has room for one and may not continue. */
        if (r->failed || (i == VARINT_BYTES_MAX - 1 && byte > 1))
            break;
        value |= (uint64_t)(byte & 0x7F) << (7 * i);
        if ((byte & 0x80) == 0)
            return value;
    }
    r->failed = true;
    return 0;
}

static uint64_t read_little_endian(struct spb_reader *r, size_t n)
{
    const uint8_t *at = spb_read_view(r, n);
    uint64_t value = 0;

    for (size_t i = n; at != NULL && i > 0; i--)
        value = value << 8 | at[i - 1];
    return value;
}

static void read_content(struct spb_reader *r, struct spb_wire_field *field)
{
    switch (field->type) {
    case SPB_WIRE_VARINT:
        field->value = read_varint(r);
        return;
    case SPB_WIRE_FIXED64:
        field->value = read_little_endian(r, 8);
        return;
    case SPB_WIRE_FIXED32:
        field->value = read_little_endian(r, 4);
        return;
    case SPB_WIRE_BYTES:
        field->value = read_varint(r);
        /* Compared as 64 bits: a size_t may be narrower than what was announced. */
        if (r->failed || field->value > spb_reader_left(r)) {
            r->failed = true;
            return;
        }
        field->size = (size_t)field->value;
        field->data = spb_read_view(r, field->size);
        return;
    }
    r->failed = true; /* a group, or one of the two types that nobody defined */
}

bool spb_wire_read_field(struct spb_reader *r, struct spb_wire_field *field)
{
    if (r->failed || spb_reader_left(r) == 0)
        return false;
    uint64_t tag = read_varint(r);
    uint64_t number = tag >> 3;

    if (r->failed || number == 0 || number > FIELD_NUMBER_MAX) {
        r->failed = true;
        return false;
    }
    *field =
        (struct spb_wire_field){.number = (uint32_t)number, .type = (enum spb_wire_type)(tag & 7)};
    read_content(r, field);
    return !r->failed;
}

size_t spb_wire_varint_size(uint64_t value)
{
    unsigned bits = 64u - (unsigned)__builtin_clzll(value | 1);

    return (bits + 6) / 7;
}

static size_t tag_size(uint32_t number)
{
    return spb_wire_varint_size((uint64_t)number << 3);
}

size_t spb_wire_varint_field_size(uint32_t number, uint64_t value)
{
    return value == 0 ? 0 : tag_size(number) + spb_wire_varint_size(value);
}

size_t spb_wire_bytes_field_size(uint32_t number, size_t n)
{
    return n == 0 ? 0 : tag_size(number) + spb_wire_varint_size(n) + n;
}

void spb_wire_write_varint(struct spb_writer *w, uint64_t value)
{
    while (value >= 0x80) {
        spb_write_u8(w, (uint8_t)(value | 0x80));
        value >>= 7;
    }
    spb_write_u8(w, (uint8_t)value);
}

void spb_wire_write_bytes_head(struct spb_writer *w, uint32_t number, size_t n)
{
    spb_wire_write_varint(w, (uint64_t)number << 3 | SPB_WIRE_BYTES);
    spb_wire_write_varint(w, n);
}

void spb_wire_write_varint_field(struct spb_writer *w, uint32_t number, uint64_t value)
{
    if (value == 0)
        return;
    spb_wire_write_varint(w, (uint64_t)number << 3 | SPB_WIRE_VARINT);
    spb_wire_write_varint(w, value);
}

void spb_wire_write_bytes_field(struct spb_writer *w, uint32_t number, const uint8_t *data,
                                size_t n)
{
    if (n == 0)
        return;
    spb_wire_write_bytes_head(w, number, n);
    spb_write_bytes(w, data, n);
}
