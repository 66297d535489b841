/* What medium.c and medium_states.c share of the simulated medium; not for tests. */
#ifndef SPB_TESTS_SUPPORT_MEDIUM_INSIDE_H
#define SPB_TESTS_SUPPORT_MEDIUM_INSIDE_H

#include "support/medium.h"

enum medium_kind { MEDIUM_LOG_WRITE, MEDIUM_LOG_FLUSH, MEDIUM_LOG_FLUSH_FAILED };

struct medium_entry {
    enum medium_kind kind;
    uint32_t sector;
    bool reached; /* of a write, once a flush succeeded or failed: it is durable */
    uint8_t bytes[SPB_SECTOR_SIZE];
    uint8_t visible_before[SPB_SECTOR_SIZE];
    uint8_t durable_before[SPB_SECTOR_SIZE];
};

struct medium {
    uint64_t size;
    uint8_t *durable;
    uint8_t *visible;
    uint8_t *unflushed; /* a flag for each sector */
    uint64_t random;
    uint64_t life;
    unsigned handles;
    struct medium_entry *log; /* since the mark */
    size_t log_count, log_room;
    size_t inherited;   /* entries at its start that were unflushed at the mark already */
    size_t epoch_start; /* first entry after the last flush */
    struct medium_counts counts;
    struct medium_failure failure;
    bool armed, happened, no_direct;
    unsigned violations;
    char violation[160];
};

void *medium_allocate(size_t n);
struct medium_entry *medium_log_add(struct medium *m, enum medium_kind kind);

#endif
