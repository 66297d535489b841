/*
 * A guest's console. It is the only reader of QEMU's end and always reads it, so that the guest
 * never waits for anybody: what comes goes into a ring in memory and a log on disk, and readers,
 * any number, ask by offset, which consumes nothing. At most one writer types at a time.
 *
 * It lives as long as the guest, over its runs; a run's socket is attached and detached.
 * No thread of its own. "The owner's thread" is the one that polls the socket; the functions that
 * may be called from any thread say so. Locks are held for a copy of memory at most.
 */
#ifndef SPB_CONSOLE_CONSOLE_H
#define SPB_CONSOLE_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_CONSOLE_TURN_BYTES (128u * 1024) /* read at most in one turn */
#define SPB_CONSOLE_OUTPUT_BYTES 16384u      /* typed and not taken by the guest yet */
#define SPB_CONSOLE_WRITER_BYTES 16u
#define SPB_CONSOLE_LEASE_MS 10000

struct spb_console;

/* On the owner's thread, with no lock held. Any may be NULL. */
struct spb_console_hooks {
    /* Bytes arrived: wake who waits for an offset below end. Once a turn. */
    void (*arrived)(void *user, uint64_t end);
    /* The log stopped (why), or goes on again (NULL). Once for each. */
    void (*log)(void *user, const struct spb_error *why);
    void *user;
};

struct spb_console_options {
    size_t ring_bytes;         /* a power of two; 0: SPB_RING_BYTES */
    const char *log_directory; /* NULL: no log */
    uint64_t log_bytes;        /* as spb_log_open's total */
    uint64_t floor;            /* bytes ever printed, as far as the caller remembers */
    struct spb_console_hooks hooks;
};

/* Options are copied. Opens the log, so it blocks. */
SPB_MUST_USE spb_status spb_console_new(const struct spb_console_options *options,
                                        struct spb_console **console, struct spb_error *err);
/* Nobody uses it any more. Closes an attached socket. Accepts NULL. */
void spb_console_free(struct spb_console *console);

/* ---- Owner's thread ----------------------------------------------------------------------- */

/* fd: a connected, non-blocking socket of QEMU's console; handed over, closed by detach. */
void spb_console_attach(struct spb_console *console, int fd);
/* Closes the socket, forgets what was typed and not sent. Reads go on. Harmless if there is none.
 */
void spb_console_detach(struct spb_console *console);
/* -1: none. To be polled: for reading always, for writing while wants_write. */
int spb_console_fd(const struct spb_console *console);
bool spb_console_wants_write(struct spb_console *console);

enum spb_console_turn {
    SPB_CONSOLE_EMPTY, /* everything that was there has been taken */
    SPB_CONSOLE_MORE,  /* the turn's bound was met: call again, after others had their turn */
    SPB_CONSOLE_ENDED, /* QEMU's end is closed or failed, and all it sent is taken: detach */
};
enum spb_console_turn spb_console_on_readable(struct spb_console *console, int64_t now_ms);
/* Sends what was typed, as far as QEMU takes it. Errors show in on_readable. */
void spb_console_on_writable(struct spb_console *console);

/* The guest does not run: gives back the ring and the log's descriptor. Bytes that the log does not
 * have stay in the ring. */
void spb_console_rest(struct spb_console *console);

/* ---- Any thread --------------------------------------------------------------------------- */

struct spb_console_piece {
    uint64_t offset;  /* of the data; end where there is none */
    size_t size;      /* of the data, in the caller's buffer */
    uint64_t skipped; /* from the offset that was asked for to this one: no longer kept */
    uint64_t end;     /* bytes ever printed */
    bool is_on_disk;  /* nothing was copied: what is asked for is in the log, see read_disk */
};

/* Copies what memory has from offset on, at most n bytes. Does not block. */
void spb_console_read(struct spb_console *console, uint64_t offset, void *out, size_t n,
                      struct spb_console_piece *piece);
/* The same from the log, or from memory where the log has nothing before it: for a worker, since it
 * blocks. Never says is_on_disk. SPB_IO: the log cannot be read there. */
SPB_MUST_USE spb_status spb_console_read_disk(struct spb_console *console, uint64_t offset,
                                              void *out, size_t n, struct spb_console_piece *piece,
                                              struct spb_error *err);
/* Offset of the oldest byte that can be read, and past the newest. */
void spb_console_extent(struct spb_console *console, uint64_t *kept_from, uint64_t *end);

struct spb_console_typing {
    uint8_t writer[SPB_CONSOLE_WRITER_BYTES]; /* the client's choice */
    uint64_t offset;                          /* bytes that this writer sent before */
    const void *bytes;                        /* borrowed for the call */
    size_t size;
    bool takes_over;
};

/*
 * Types: bytes below what this writer sent already are not typed again, of the others as many are
 * taken as there is room for. *taken: bytes of this writer that were taken, ever. On success the
 * caller has the owner's thread call on_writable.
 *
 * A writer has the console for SPB_CONSOLE_LEASE_MS after its last call; then, or with takes_over,
 * another may begin. The counts of the last few writers are remembered, not over a restart.
 * SPB_LOCKED: another one types. SPB_INVALID: offset lies past what this writer sent.
 * SPB_NOT_FOUND: this writer is not known (any more) and its offset is above 0: what became of its
 * bytes cannot be told. SPB_UNREACHABLE: no guest is attached.
 */
SPB_MUST_USE spb_status spb_console_type(struct spb_console *console,
                                         const struct spb_console_typing *typing, int64_t now_ms,
                                         uint64_t *taken, struct spb_error *err);

#endif
