/* Random numbers of the tests: splitmix64, so that a printed seed replays a run anywhere. */
#ifndef SPB_TESTS_SUPPORT_RANDOM_H
#define SPB_TESTS_SUPPORT_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* The next number; *state is the caller's and starts at the seed. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* A number below limit (which is not 0). */
static inline uint32_t random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)((random_next(state) >> 32) % limit);
}

static inline void random_fill(uint64_t *state, void *buffer, size_t n)
{
    uint8_t *bytes = buffer;

    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(random_next(state) >> 24);
}

#endif
