/*
 * Bounded reader and writer of bytes. All parsing and building of records and frames goes through
 * them, so that a decoder reads like its specification and none can pass its bounds: once one step
 * does not fit, that step and all later ones yield zero or do nothing, and `failed` stays set for
 * one check at the end. No allocation; a reader borrows its bytes, as a writer does.
 */
#ifndef SPB_BASE_BYTES_H
#define SPB_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

struct spb_reader {
    const uint8_t *data;
    size_t size;
    size_t pos; /* next byte to read; at most size */
    bool failed;
};

struct spb_writer {
    uint8_t *data;
    size_t size;
    size_t pos; /* next byte to write; at most size */
    bool failed;
};

struct spb_reader spb_reader_over(const void *data, size_t size);
struct spb_writer spb_writer_over(void *data, size_t size);

static inline size_t spb_reader_left(const struct spb_reader *r)
{
    return r->size - r->pos;
}

/* Here, for varints are read with it, byte by byte. */
static inline uint8_t spb_read_u8(struct spb_reader *r)
{
    if (!r->failed && r->pos < r->size)
        return r->data[r->pos++];
    r->failed = true;
    return 0;
}

uint16_t spb_read_be16(struct spb_reader *r);
uint32_t spb_read_be32(struct spb_reader *r);
uint64_t spb_read_be64(struct spb_reader *r);
/* Copies n bytes to out, or zeros where they are not there. */
void spb_read_bytes(struct spb_reader *r, void *out, size_t n);
/* The next n bytes in place, borrowed from the reader's bytes; NULL where they are not there. */
const uint8_t *spb_read_view(struct spb_reader *r, size_t n);

void spb_write_u8(struct spb_writer *w, uint8_t value);
void spb_write_be16(struct spb_writer *w, uint16_t value);
void spb_write_be32(struct spb_writer *w, uint32_t value);
void spb_write_be64(struct spb_writer *w, uint64_t value);
void spb_write_bytes(struct spb_writer *w, const void *data, size_t n);
void spb_write_zeros(struct spb_writer *w, size_t n);

/* Are all n bytes zero? True for none. */
bool spb_bytes_are_zero(const void *data, size_t n);

/* Is it well-formed UTF-8 (RFC 3629: no overlong forms, surrogates or values above 10FFFF)? */
bool spb_bytes_are_utf8(const void *data, size_t n);

/*
 * Length of the well-formed UTF-8 sequence at the start of n > 0 bytes, 1 to 4; or, negated, how
 * many bytes make up the ill-formed part there (the maximal subpart, to be shown as one U+FFFD).
 */
int spb_utf8_step(const uint8_t *data, size_t n);

#endif
