/*
 * The calls of a connection: by stream id (a hash table), by deadline (a heap) and by age (a list).
 * Starting and ending a call costs no scan, and no allocation once as many were in flight before.
 *
 * A call whose deadline passed is out of the heap and the list of running ones, and stays in the
 * table so that its late answer is told from one to nothing. Of those the newest EXPIRED_MAX are
 * kept; of older ones only the highest stream id is. One connection, one thread.
 */
#ifndef SPB_CLIENT_CALL_TABLE_H
#define SPB_CLIENT_CALL_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "spaceblock/client.h"
#include "timers.h"

#define SPB_CALL_NAME_SIZE 80

struct spb_call {
    uint32_t stream;
    bool is_expired;
    int64_t deadline_ns;    /* SPB_NO_DEADLINE for none */
    struct spb_timer timer; /* set to it while the call runs */
    int64_t timeout_ms;     /* as it was asked for */
    spb_client_callback callback;
    void *user;                     /* borrowed until the callback ran */
    struct spb_call *older, *newer; /* in its list */
    char name[SPB_CALL_NAME_SIZE];  /* service/method, cut where too long */
};

struct spb_call_list {
    struct spb_call *oldest, *newest;
    size_t count;
};

struct spb_call_table {
    struct spb_call **slots; /* owned; open addressing by stream id, at most half full */
    size_t slot_count;       /* a power of two, or 0 */
    struct spb_timers deadlines;
    struct spb_call_list running, expired;
    struct spb_call *spare; /* ended calls, for reuse; linked by newer */
    size_t spare_count;
    uint32_t forgotten; /* expired calls with ids up to this one may have been dropped; 0: none */
};

void spb_call_table_done(struct spb_call_table *table);

/* A blank call, with room for it to be added; NULL: no memory. The caller adds or releases it. */
struct spb_call *spb_call_table_blank(struct spb_call_table *table);
/* The call has its stream, deadline and callback. Cannot fail. */
void spb_call_table_add(struct spb_call_table *table, struct spb_call *call);
struct spb_call *spb_call_table_find(const struct spb_call_table *table, uint32_t stream);
/* Takes a call out, wherever it is; it is the table's to reuse from here. */
void spb_call_table_remove(struct spb_call_table *table, struct spb_call *call);
/* Gives a blank call back that was not added. */
void spb_call_table_release(struct spb_call_table *table, struct spb_call *call);

/* The next call whose deadline is not after now, marked as expired; NULL: none. */
struct spb_call *spb_call_table_expire(struct spb_call_table *table, int64_t now_ns);
/* Earliest deadline of a running call, or SPB_NO_DEADLINE. */
int64_t spb_call_table_deadline(const struct spb_call_table *table);

#endif
