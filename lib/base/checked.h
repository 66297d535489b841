/* Arithmetic that says whether it overflowed: true on success, *result untouched otherwise. */
#ifndef SPB_BASE_CHECKED_H
#define SPB_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool spb_add_u64(uint64_t a, uint64_t b, uint64_t *result)
{
    uint64_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *result = sum;
    return true;
}

/* Does [offset, offset + length) lie within [0, size)? */
static inline bool spb_range_within(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

#endif
