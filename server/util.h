/* Small helpers of the daemon's files. No state. */
#ifndef SPB_SERVER_UTIL_H
#define SPB_SERVER_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* The struct of type whose member is at pointer. */
#define SPB_CONTAINER(pointer, type, member)                                                       \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define SPB_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define SPB_NS_PER_S INT64_C(1000000000)
#define SPB_NS_PER_MS INT64_C(1000000)
#define SPB_US_PER_S INT64_C(1000000)
#define SPB_NS_PER_US INT64_C(1000)

/* CLOCK_MONOTONIC, nanoseconds. */
static inline int64_t spb_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SPB_NS_PER_S + now.tv_nsec;
}

/* CLOCK_REALTIME, UNIX microseconds. */
static inline int64_t spb_unix_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

#endif
