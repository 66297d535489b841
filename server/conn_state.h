/*
 * What the connections' own files share: conn.c (the table and the turns), conn_frames.c (frames to
 * calls and answers back), conn_memory.c (who has memory, who waits), conn_io.c (the sockets),
 * conn_deadlines.c (what a tick looks at). All of it is the loop's thread's.
 *
 * Memory. What a connection's peer makes the daemon keep is counted in `memory`: the frame that is
 * arriving (with what unpacking it will take), bytes that were read and not parsed, calls in work,
 * answers promised and answers unread. It is set anew by spb_conn_recount after each change. A
 * frame or a large answer that the budget has no room for makes its connection wait: it is not read
 * until there is.
 */
#ifndef SPB_SERVER_CONN_STATE_H
#define SPB_SERVER_CONN_STATE_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include "budget.h"
#include "call.h"
#include "conn.h"
#include "metrics.h"
#include "ttrpc/ttrpc.h"

struct evbuffer;

#define SPB_READ_SIZE (256u * 1024)
#define SPB_READ_AHEAD (16u * 1024) /* at most this is read beyond the frame that is arriving */
#define SPB_CONNS_TABLE 65536u      /* connections_max is at most that */

/* By what a visit of it takes. Heavy: more than a peer with small calls. */
enum spb_weight {
    SPB_LIGHT,
    SPB_HEAVY,
};
#define SPB_WEIGHTS 2

/* Connections that have more to read or to parse, each once. */
struct spb_backlog {
    struct spb_conn *first, *last;
};

/* What a connection that waits for memory goes on with. */
enum spb_wait {
    SPB_WAIT_NONE,
    SPB_WAIT_ARRIVAL, /* the frame whose beginning is in the parser */
    SPB_WAIT_FRAME,   /* the whole frame in the parser */
    SPB_WAIT_REPLY,   /* the call in parked, which will have a large answer */
};

struct spb_conn {
    struct spb_conns *conns;
    uint32_t slot, generation;
    int fd;
    struct event readable, writable;
    bool reading, writing; /* which events are in the loop */
    bool eof;              /* the peer sends no more */
    bool unread;           /* there was something to read when there was no time for it */
    bool dirty;            /* in the turn's list */
    bool backlogged;       /* in the backlog of its weight then */
    enum spb_weight backlog;
    bool doomed;      /* to be closed at the turn's end */
    const char *doom; /* why, for the log */
    struct spb_conn *next_dirty, *next_backlog;
    struct spb_principal principal;

    /* Input. */
    struct spb_ttrpc_parser parser;
    uint8_t *held; /* read and not parsed yet; owned */
    size_t held_used, held_size;
    uint32_t last_stream;
    uint64_t reserved; /* bytes for the frame in the parser; 0: none yet */
    int64_t reserved_ns;
    enum spb_wait wait;
    uint64_t wanted; /* bytes that it waits for */
    int64_t wait_start_ns;
    struct spb_conn *wait_previous, *wait_next;
    struct spb_call *parked;
    bool begun;             /* some frame's header has come */
    bool greeted;           /* a first frame has come whole */
    int64_t frame_start_ns; /* when the frame that is arriving began, or the wait for the first one;
                             * later by what it could not be read. 0: none is */
    int64_t unread_since_ns; /* 0: it is read */
    int64_t last_call_ns;    /* or when it was taken */
    int64_t visit_ns;        /* what its last visits took, smoothed */

    /* Calls and output. */
    size_t calls, request_bytes, promised_bytes;
    struct evbuffer *out;
    size_t out_copied, out_kept; /* bytes of answers in out: copied; of calls that are kept whole */
    uint64_t written;            /* bytes given to the kernel since it was taken */
    uint64_t delivered;          /* of them known to have left it */
    int64_t output_due_ns;       /* later is too late; only while there is output */

    uint64_t memory; /* counted in the budget */
};

struct spb_conns {
    struct spb_daemon *daemon;
    struct spb_metrics *metrics;
    struct spb_call_cache cache;
    struct spb_ttrpc_memory frames; /* over the cache's pool */
    struct spb_conn **slots;
    uint32_t *generations;
    uint32_t *free_slots; /* a stack */
    uint32_t free_count, slots_used;
    size_t count;
    size_t calls; /* in flight, those of closed connections included */
    struct spb_conn *dirty;
    struct spb_backlog backlogs[SPB_WEIGHTS];
    struct spb_conn *first_waiting, *last_waiting;
    size_t waiting;
    struct spb_budget budget;
    uint64_t orphan_memory; /* of calls whose connection is gone */
    bool memory_came_free;
    int64_t turn_until_ns;     /* the turn's time for input; 0: not begun */
    int turn_frames;           /* parsed in this turn */
    bool parsing;              /* a connection's input */
    int64_t parse_ns;          /* then: about now */
    uint64_t refused;          /* connections, since the last line about it */
    int64_t refusal_logged_ns; /* 0: never */
    uint8_t buffer[SPB_READ_SIZE];
};

/* ---- conn.c */

void spb_conn_mark(struct spb_conn *conn); /* it is settled at the turn's end */
/* Closes it then. why is the log's; constant. */
void spb_conn_doom(struct spb_conn *conn, enum spb_refusal refusal, const char *why);
/* The same for what is nobody's fault. */
void spb_conn_end(struct spb_conn *conn, const char *why);
/* It is gone, or sends no more: calls of it that wait for something to come end. */
void spb_conn_end_waits(const struct spb_conn *conn);
/* Counts its memory anew. */
void spb_conn_recount(struct spb_conn *conn);

/* What reading or parsing it now would take, as far as one can tell. */
enum spb_weight spb_conn_weight(const struct spb_conn *conn);
/* Parsing what was read of it in one visit took so long. */
void spb_conn_weigh(struct spb_conn *conn, int64_t took_ns);

/* ---- conn_frames.c */

/* NULL where it is gone. */
struct spb_conn *spb_conn_of(const struct spb_conns *conns, const struct spb_call_origin *origin);
/* Should it not be read for now? */
bool spb_conn_is_paused(const struct spb_conn *conn);
/* Parses and begins calls, for a while; keeps what it did not come to. */
void spb_conn_take_bytes(struct spb_conn *conn, const uint8_t *bytes, size_t n);
/* The same with what was kept. */
void spb_conn_resume(struct spb_conn *conn);
/* A whole frame that has its memory. */
void spb_conn_take_frame(struct spb_conn *conn, const struct spb_ttrpc_header *header,
                         const uint8_t *data);
/* Refuses the frame that is arriving; the rest of it is thrown away as it comes. */
void spb_conn_refuse_frame(struct spb_conn *conn);

/* ---- conn_memory.c */

/* More of a frame is to come than what was read at once: reserves for all of it, or waits. */
void spb_conn_reserve_frame(struct spb_conn *conn);
/* A whole frame is in the parser: false where it waits. */
bool spb_conn_may_begin(struct spb_conn *conn);
/* See struct spb_call_origin. */
bool spb_conn_admit(struct spb_call *call);
/* What a call may take for unpacking its request. */
size_t spb_conn_arena_cap(const struct spb_conn *conn, size_t request_bytes);
/* It is about to go: lets go of what waits. Its slot is free already. */
void spb_conn_drop_parked(struct spb_conn *conn);
void spb_conn_stop_waiting(struct spb_conn *conn);
/* Lets those go on that wait for memory, as far as there is some. */
void spb_conns_serve_waiting(struct spb_conns *conns);
/* Takes memory from the slowest where somebody has waited for it too long. */
void spb_conns_relieve(struct spb_conns *conns, int64_t now_ns);

/* ---- conn_io.c */

/* Reads once and takes that. */
void spb_conn_read(struct spb_conn *conn);
void spb_conn_write(struct spb_conn *conn);
/* What it waits for in the loop. */
void spb_conn_watch(struct spb_conn *conn, bool read, bool write);
void spb_conn_assign_events(struct spb_conn *conn, struct event_base *base);
/* How much of what the kernel got has left it counts as progress: looks, and puts the time off. */
void spb_conn_note_progress(struct spb_conn *conn);
/* Output begins to wait. */
void spb_conn_begin_output(struct spb_conn *conn);

/* ---- conn_deadlines.c */

/* How long the frame that is arriving may take in all. */
int64_t spb_conn_frame_time_ns(const struct spb_conn *conn);
/* Dooms what is overdue. */
void spb_conns_look_at_deadlines(struct spb_conns *conns, int64_t now_ns);

#endif
