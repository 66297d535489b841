/* CRC-32C through ISA-L. No state. */
#include "base/crc32c.h"

#include <isa-l/crc.h>

/* ISA-L takes the length as an int: longer data goes in pieces. */
#define PIECE ((size_t)1 << 30)

uint32_t spb_crc32c(uint32_t crc, const void *data, size_t n)
{
    /* ISA-L's parameter lacks const; it does not write. */
    union {
        const void *in;
        unsigned char *out;
    } at = {.in = data};
    uint32_t state = ~crc;

    while (n > 0) {
        size_t piece = n < PIECE ? n : PIECE;
        state = crc32_iscsi(at.out, (int)piece, state);
        at.out += piece;
        n -= piece;
    }
    return ~state;
}
