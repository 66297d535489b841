/*
 * The requests that the load generator sends, packed once: a small ring of payloads of which only
 * the request_id changes from call to call, in place.
 */
#ifndef SPB_BENCH_REQUESTS_H
#define SPB_BENCH_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

/* Ids that put and get go round: half of the slots of a store with the smallest blocks. */
#define BENCH_IDS 16u

struct bench_payload {
    uint8_t *bytes; /* owned */
    size_t size;
    size_t id_at; /* where the request_id's text lies; 0: there is none */
};

struct bench_requests {
    const char *service, *method; /* static */
    struct bench_payload ring[BENCH_IDS];
    uint64_t sent;
    uint32_t salt; /* of the request_ids: two rings of a process do not share any */
};

/* Packs what op ("put", "get", "append" or "ping") sends to the image, with values of value_size
 * bytes. SPB_INVALID for another op. Undo with bench_requests_done, which accepts what failed
 * half-way. */
SPB_MUST_USE spb_status bench_requests_init(struct bench_requests *requests, const char *op,
                                            const char *image, size_t value_size,
                                            struct spb_error *err);
void bench_requests_done(struct bench_requests *requests);
/* The next payload, under a request_id of its own; borrowed until the ring comes round. */
const struct bench_payload *bench_requests_next(struct bench_requests *requests);

#endif
