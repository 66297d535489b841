/*
 * A guest's console; see console.h. One lock over what memory has of it; the socket and the log's
 * writing belong to the owner's thread. Bytes reach the log before the ring, so that what the ring
 * gives up can be read from there.
 */
#include "supervisor/console/console.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/status.h"
#include "supervisor/console/log.h"
#include "supervisor/console/ring.h"
#include "supervisor/console/typing.h"

#define PIECE_BYTES 16384u

struct spb_console {
    struct spb_console_hooks hooks;
    struct spb_log *log; /* owned; NULL: none */
    int fd;              /* owned, of the owner's thread; -1: none */
    pthread_mutex_t lock;
    struct spb_ring ring;
    struct spb_typing typing;
    bool is_attached;
};

static void lock(struct spb_console *console)
{
    (void)pthread_mutex_lock(&console->lock);
}

static void unlock(struct spb_console *console)
{
    (void)pthread_mutex_unlock(&console->lock);
}

spb_status spb_console_new(const struct spb_console_options *options, struct spb_console **console,
                           struct spb_error *err)
{
    size_t room = options->ring_bytes == 0 ? SPB_RING_BYTES : options->ring_bytes;
    uint64_t begin, end = options->floor;
    struct spb_console *made = calloc(1, sizeof(*made));

    if (made == NULL)
        return spb_fail_memory(err, "making a console");
    if (options->log_directory != NULL) {
        spb_status status = spb_log_open(options->log_directory, options->log_bytes, options->floor,
                                         &made->log, err);
        if (!spb_is_ok(status)) {
            free(made);
            return status;
        }
        spb_log_extent(made->log, &begin, &end);
    }
    made->hooks = options->hooks;
    made->fd = -1;
    (void)pthread_mutex_init(&made->lock, NULL);
    spb_ring_init(&made->ring, room, end);
    *console = made;
    return spb_ok();
}

void spb_console_free(struct spb_console *console)
{
    if (console == NULL)
        return;
    spb_console_detach(console);
    spb_log_free(console->log);
    spb_ring_rest(&console->ring);
    (void)pthread_mutex_destroy(&console->lock);
    free(console);
}

/* ---- Owner's thread ----------------------------------------------------------------------- */

void spb_console_attach(struct spb_console *console, int fd)
{
    spb_console_detach(console);
    console->fd = fd;
    lock(console);
    console->is_attached = true;
    unlock(console);
}

void spb_console_detach(struct spb_console *console)
{
    if (console->fd >= 0)
        (void)close(console->fd);
    console->fd = -1;
    lock(console);
    console->is_attached = false;
    spb_typing_clear(&console->typing);
    unlock(console);
}

int spb_console_fd(const struct spb_console *console)
{
    return console->fd;
}

bool spb_console_wants_write(struct spb_console *console)
{
    lock(console);
    bool wants = console->is_attached && console->typing.size > 0;
    unlock(console);
    return wants;
}

static void keep(struct spb_console *console, const uint8_t *bytes, size_t n, int64_t now_ms)
{
    enum spb_log_news news = SPB_LOG_NOTHING;
    struct spb_error why;

    if (console->log != NULL)
        news = spb_log_add(console->log, bytes, n, now_ms, &why);
    lock(console);
    spb_ring_add(&console->ring, bytes, n);
    unlock(console);
    if (news != SPB_LOG_NOTHING && console->hooks.log != NULL)
        console->hooks.log(console->hooks.user, news == SPB_LOG_STOPPED ? &why : NULL);
}

/* Bytes, 0: ended, -1: none are there. */
static ssize_t receive(int fd, uint8_t *bytes, size_t n)
{
    ssize_t got;

    do
        got = recv(fd, bytes, n, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        return got;
    return errno == EAGAIN || errno == EWOULDBLOCK ? -1 : 0;
}

static enum spb_console_turn take_turn(struct spb_console *console, int64_t now_ms, size_t *taken)
{
    uint8_t bytes[PIECE_BYTES];

    while (*taken < SPB_CONSOLE_TURN_BYTES) {
        ssize_t got = receive(console->fd, bytes, sizeof(bytes));

        if (got <= 0)
            return got == 0 ? SPB_CONSOLE_ENDED : SPB_CONSOLE_EMPTY;
        keep(console, bytes, (size_t)got, now_ms);
        *taken += (size_t)got;
    }
    return SPB_CONSOLE_MORE;
}

enum spb_console_turn spb_console_on_readable(struct spb_console *console, int64_t now_ms)
{
    size_t taken = 0;

    if (console->fd < 0)
        return SPB_CONSOLE_EMPTY;
    enum spb_console_turn turn = take_turn(console, now_ms, &taken);
    /* Only this thread changes the ring. */
    if (taken > 0 && console->hooks.arrived != NULL)
        console->hooks.arrived(console->hooks.user, console->ring.end);
    return turn;
}

void spb_console_on_writable(struct spb_console *console)
{
    lock(console);
    while (console->fd >= 0 && console->typing.size > 0) {
        ssize_t sent = send(console->fd, console->typing.output, console->typing.size,
                            MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            spb_typing_clear(&console->typing); /* on_readable tells that it ended */
        if (sent <= 0)
            break;
        spb_typing_sent(&console->typing, (size_t)sent);
    }
    unlock(console);
}

void spb_console_rest(struct spb_console *console)
{
    const struct spb_ring *ring = &console->ring;

    if (console->log == NULL)
        return;
    if (spb_log_covers(console->log, spb_ring_begin(ring), ring->end)) {
        lock(console);
        spb_ring_rest(&console->ring);
        unlock(console);
    }
    spb_log_rest(console->log);
}

/* ---- Any thread --------------------------------------------------------------------------- */

/* Under the lock. */
static void copy_from_ring(struct spb_console *console, uint64_t offset, void *out, size_t n,
                           struct spb_console_piece *piece)
{
    *piece = (struct spb_console_piece){.end = console->ring.end};
    piece->size = spb_ring_copy(&console->ring, offset, out, n, &piece->offset);
    piece->skipped = piece->offset > offset ? piece->offset - offset : 0;
}

void spb_console_read(struct spb_console *console, uint64_t offset, void *out, size_t n,
                      struct spb_console_piece *piece)
{
    lock(console);
    uint64_t begin = spb_ring_begin(&console->ring);
    if (console->log != NULL && spb_log_has(console->log, offset, begin))
        *piece = (struct spb_console_piece){
            .offset = offset, .end = console->ring.end, .is_on_disk = true};
    else
        copy_from_ring(console, offset, out, n, piece);
    unlock(console);
}

spb_status spb_console_read_disk(struct spb_console *console, uint64_t offset, void *out, size_t n,
                                 struct spb_console_piece *piece, struct spb_error *err)
{
    uint64_t at = 0;
    size_t size = 0;

    if (console->log != NULL)
        SPB_TRY(spb_log_read(console->log, offset, out, n, &at, &size, err));
    lock(console);
    uint64_t begin = spb_ring_begin(&console->ring), end = console->ring.end;
    /* Past a gap of the log memory may have more than the log. */
    if (size == 0 || (at > offset && begin < at))
        copy_from_ring(console, offset, out, n, piece);
    else
        *piece = (struct spb_console_piece){.offset = at,
                                            .size = size,
                                            .skipped = at - offset,
                                            .end = end < at + size ? at + size : end};
    unlock(console);
    return spb_ok();
}

void spb_console_extent(struct spb_console *console, uint64_t *kept_from, uint64_t *end)
{
    lock(console);
    uint64_t begin = spb_ring_begin(&console->ring), log_begin = begin, log_end;
    *end = console->ring.end;
    unlock(console);
    if (console->log != NULL)
        spb_log_extent(console->log, &log_begin, &log_end);
    *kept_from = log_begin < begin ? log_begin : begin;
}

spb_status spb_console_type(struct spb_console *console, const struct spb_console_typing *typing,
                            int64_t now_ms, uint64_t *taken, struct spb_error *err)
{
    spb_status status;

    lock(console);
    if (console->is_attached)
        status = spb_typing_take(&console->typing, typing, now_ms, taken, err);
    else
        status =
            spb_fail(err, SPB_UNREACHABLE, "cannot type on the console: the guest does not run");
    unlock(console);
    return status;
}
