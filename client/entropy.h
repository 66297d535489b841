/* The kernel's randomness. No state; any thread. */
#ifndef SPB_CLIENT_ENTROPY_H
#define SPB_CLIENT_ENTROPY_H

#include <stddef.h>

/* 0, or the errno of how it failed; then the bytes are what they were, or in part random. */
int spb_entropy_fill(void *bytes, size_t n);

#endif
