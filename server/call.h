/*
 * One call: from the frame that brought it to the frame that answers it.
 *
 * A call is owned by one thread at a time and moves: the loop makes it, a handler may queue it for
 * an image or on the workers, and whoever has the answer sends it, which gives it back to the loop.
 * An answer is set at most once that counts: the last one before sending. It knows its connection
 * only as numbers for whoever delivers it; a connection that is gone drops the answer.
 */
#ifndef SPB_SERVER_CALL_H
#define SPB_SERVER_CALL_H

#include <stdatomic.h>

#include "arena.h"
#include "errors.h"
#include "loop.h"
#include "messages.h"
#include "pool.h"
#include "principal.h"
#include "replay.h"
#include "util.h"

struct spb_daemon;
struct spb_group;
struct spb_guest;
struct spb_image;
struct spb_method;
struct spb_open_group;
struct spb_upload;

struct spb_call;

/* What an image's actor does with a call that is queued there; see actor.h. */
struct spb_op_kind {
    /* Decides the change into the group. */
    spb_status (*decide)(struct spb_call *call, struct spb_group *group, struct spb_error *err);
    /* It is decided: sets the reply, which is recorded before anything is written. */
    void (*reply)(struct spb_call *call);
    /* The change is durable and visible. May be NULL. */
    void (*done)(struct spb_call *call);
    /* It was refused, or failed; the error is set. May be NULL. */
    void (*failed)(struct spb_call *call);
    /* Instead of these four: runs with the image to itself, sets the answer; looks at the deadline
     * itself. False: queue it again, at the end. */
    bool (*alone)(struct spb_call *call);
    /* Instead of all: the handler is run anew, between groups. */
    bool again;
};

#define SPB_CALL_BLOCK_SIZE 8192u /* a call and the first piece of its arena */

/* What a connection needs to know of its calls. */
struct spb_call_origin {
    void *transport;           /* borrowed */
    uint32_t slot, generation; /* which connection */
    uint32_t stream;
    int64_t start_ns;
    size_t request_bytes;  /* of memory, until the answer */
    size_t promised_bytes; /* of a large reply to come */
    /* Is there memory for the unpacked request and its reply? If not, the connection keeps the call
     * and runs the handler when there is. */
    bool (*admit)(struct spb_call *call);
    /* Is its peer there, and may it send more? Nobody else waits for long. The loop's thread. */
    bool (*is_attended)(const struct spb_call *call);
};

struct spb_call {
    struct spb_post post;  /* in the loop's queue; post.run delivers the answer */
    struct spb_task task;  /* in a worker's queue */
    struct spb_call *next; /* in an image's queue */
    const struct spb_op_kind *kind;
    struct spb_daemon *daemon;
    struct spb_call_origin origin;
    struct spb_principal principal;
    const struct spb_method *method;
    ProtobufCMessage *request; /* in the arena */
    struct spb_image *image;   /* held, or NULL */
    struct spb_upload *upload; /* held, or NULL */
    struct spb_guest *guest;   /* held, or NULL */
    void *state;               /* the handler's, in the arena */
    /* The answer could not be sent: what it tells of can go. The loop's thread; may be NULL. */
    void (*lost)(struct spb_call *call);
    size_t reply_bytes;  /* about; a gate sets it where the reply may be large */
    int64_t deadline_ns; /* 0: none */
    uint8_t *frame;      /* the answer, header included; in the arena. NULL: none yet */
    size_t frame_size;
    const uint8_t *payload; /* of the reply in the frame; NULL: none, or an error */
    size_t payload_size;
    int32_t code;        /* canonical, of the answer */
    char image_text[80]; /* "TENANT/NAME" as it was named; empty for none */
    /* Of changing calls; see repeat.h. */
    bool has_request_id;
    uint8_t request_id[SPB_REPLAY_ID_SIZE];
    uint32_t payload_crc; /* of the request's payload */
    struct spb_replay_party party;
    struct spb_post again;             /* in the loop's queue, to be run after another */
    struct spb_open_group *open_group; /* its own intent; see intent.h */
    bool open_is_part;
    bool has_doubted; /* repeated: what is in doubt was tried before it asks once more */
    uint32_t first_change, change_count; /* of its image's group */
    bool has_looked; /* at what the guest of its image wrote before it; see follow.h */
    atomic_bool cancelled;
    struct spb_arena arena;
    struct spb_call_cache *cache;
};

/* Blocks of finished calls, kept for the next ones. The loop's thread. */
struct spb_call_cache {
    struct spb_call *free;
    size_t count;
    struct spb_arena_pool pool; /* of their arenas */
};

/* NULL without memory. */
struct spb_call *spb_call_new(struct spb_call_cache *cache, struct spb_daemon *daemon);
/* Lets go of image and upload. The loop's thread. */
void spb_call_free(struct spb_call *call);
void spb_call_cache_done(struct spb_call_cache *cache);

/* ---- The answer --------------------------------------------------------------------------- */

void spb_call_set_reply(struct spb_call *call, const ProtobufCMessage *reply);
/* The same, of a reply that is packed already; copied. */
void spb_call_set_packed_reply(struct spb_call *call, const uint8_t *payload, size_t size);
void spb_call_set_error(struct spb_call *call, const struct spb_error *err);
/* An error that is no spb_code's. */
void spb_call_set_fault(struct spb_call *call, PB_ErrorReason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* INVALID_ARGUMENT about a field of the request. */
void spb_call_set_bad_field(struct spb_call *call, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Gives the call back with the answer that is set. Any thread; the call is gone. */
void spb_call_send(struct spb_call *call);

static inline void spb_call_reply(struct spb_call *call, const ProtobufCMessage *reply)
{
    spb_call_set_reply(call, reply);
    spb_call_send(call);
}

static inline void spb_call_fail(struct spb_call *call, const struct spb_error *err)
{
    spb_call_set_error(call, err);
    spb_call_send(call);
}

/* ---- While it runs ------------------------------------------------------------------------ */

/* Sets DEADLINE_EXCEEDED where the deadline has passed, CANCELLED where the call was. */
bool spb_call_is_late(struct spb_call *call, int64_t now_ns);
/* Answers it where the daemon is at its very end, when it has no workers any more; true then. */
bool spb_call_refuse_at_end(struct spb_call *call);
/* For long work (spb_progress): false once the deadline passed, the call was cancelled or the
 * daemon ends. */
bool spb_call_may_go_on(void *call, uint64_t done_bytes, uint64_t total_bytes);

/* Runs on a worker of the bulk lane; run gets the call back with SPB_CONTAINER(.., task). */
void spb_call_to_workers(struct spb_call *call, void (*run)(struct spb_task *task));

static inline struct spb_call *spb_call_of_task(struct spb_task *task)
{
    return SPB_CONTAINER(task, struct spb_call, task);
}

/*
 * Lets go of the request and of all else in the arena, state and answer included: for a call that
 * may wait for long, and should not keep what its request unpacked to.
 */
void spb_call_forget_request(struct spb_call *call);

/* In the call's arena; sets an error and returns NULL where it is full. */
void *spb_call_alloc(struct spb_call *call, size_t size);

#endif
