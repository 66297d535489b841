/*
 * A stream's bytes on disk; see log.h. The lock is held to look at the list of segments or to
 * change it, never over a call to the disk: who writes is alone in changing it.
 */
#include "supervisor/console/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "supervisor/console/log_segments.h"

/* Rotating removes one part of these at a time. */
#define PARTS 4u

struct spb_log {
    char *directory; /* owned */
    uint64_t total, segment_bytes;
    pthread_mutex_t lock; /* of segments and end, for those who do not write */
    struct spb_segments segments;
    uint64_t end;
    /* Of the writing thread alone. */
    int fd;          /* of the newest segment; -1: closed */
    bool has_lost;   /* bytes that came since the newest segment's end are not on disk */
    bool is_stopped; /* the last write failed */
    int64_t retry_ms;
};

static void change_begin(struct spb_log *log)
{
    (void)pthread_mutex_lock(&log->lock);
}

static void change_end(struct spb_log *log)
{
    (void)pthread_mutex_unlock(&log->lock);
}

static struct spb_segment *newest(struct spb_log *log)
{
    return log->segments.count == 0 ? NULL : &log->segments.list[log->segments.count - 1];
}

static void advance(struct spb_log *log, uint64_t n)
{
    change_begin(log);
    log->end += n;
    change_end(log);
}

/* ---- Opening and ending ------------------------------------------------------------------- */

static spb_status make_folder(const char *directory, struct spb_error *err)
{
    if (mkdir(directory, 0700) < 0 && errno != EEXIST)
        return spb_fail_errno(err, spb_code_of_errno(errno), errno,
                              "cannot make %s, the folder of a console's log", directory);
    return spb_ok();
}

spb_status spb_log_open(const char *directory, uint64_t total, uint64_t floor, struct spb_log **log,
                        struct spb_error *err)
{
    if (total < SPB_LOG_TOTAL_MIN)
        return spb_fail(err, SPB_INVALID,
                        "size of a console's log: found %llu, expected %u or more",
                        (unsigned long long)total, SPB_LOG_TOTAL_MIN);
    SPB_TRY(make_folder(directory, err));
    struct spb_log *made = calloc(1, sizeof(*made));
    char *copy = strdup(directory);
    if (made == NULL || copy == NULL) {
        free(made);
        free(copy);
        return spb_fail_memory(err, "opening a console's log");
    }
    *made = (struct spb_log){
        .directory = copy, .total = total, .segment_bytes = total / PARTS, .fd = -1};
    (void)pthread_mutex_init(&made->lock, NULL);
    spb_status status = spb_segments_load(directory, total, &made->segments, err);
    if (!spb_is_ok(status)) {
        spb_log_free(made);
        return status;
    }
    made->end = spb_segments_end(&made->segments);
    if (made->end < floor)
        made->end = floor;
    *log = made;
    return spb_ok();
}

static int open_segment(const struct spb_log *log, uint64_t first, int flags)
{
    char *path = spb_segment_path(log->directory, first);

    if (path == NULL)
        return -1;
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    int number = errno;
    free(path);
    errno = number;
    return fd;
}

static int unlink_segment(const struct spb_log *log, uint64_t first)
{
    char *path = spb_segment_path(log->directory, first);

    if (path == NULL)
        return -1;
    int rc = unlink(path), number = errno;
    free(path);
    errno = number;
    return rc < 0 && number != ENOENT ? -1 : 0;
}

static void close_newest(struct spb_log *log)
{
    if (log->fd >= 0)
        (void)close(log->fd);
    log->fd = -1;
}

void spb_log_free(struct spb_log *log)
{
    if (log == NULL)
        return;
    spb_log_rest(log);
    (void)pthread_mutex_destroy(&log->lock);
    free(log->directory);
    free(log);
}

/* ---- Writing ------------------------------------------------------------------------------ */

static int drop_oldest(struct spb_log *log)
{
    change_begin(log);
    struct spb_segment oldest = spb_segments_shift(&log->segments);
    change_end(log);
    return unlink_segment(log, oldest.first);
}

static bool is_crowded(const struct spb_log *log)
{
    const struct spb_segments *segments = &log->segments;

    return segments->count == SPB_LOG_SEGMENTS ||
           (segments->count > 0 && spb_segments_bytes(segments) + log->segment_bytes > log->total);
}

/* A new one at the end. 0, or -1 and errno. */
static int begin_segment(struct spb_log *log)
{
    close_newest(log);
    while (is_crowded(log)) {
        if (drop_oldest(log) < 0)
            return -1;
    }
    log->fd = open_segment(log, log->end, O_WRONLY | O_APPEND | O_CREAT | O_EXCL);
    if (log->fd < 0)
        return -1;
    change_begin(log);
    log->segments.list[log->segments.count++] = (struct spb_segment){.first = log->end};
    change_end(log);
    log->has_lost = false;
    return 0;
}

/* Bytes that were lost leave an empty segment at the end, so that the next to open the log knows of
 * them. Where it cannot be made, there is nothing more to do about it. */
void spb_log_rest(struct spb_log *log)
{
    if (log->has_lost)
        (void)begin_segment(log);
    close_newest(log);
}

/* The newest one again, if the stream goes on there and it is as it was left. */
static bool reopen_newest(struct spb_log *log)
{
    const struct spb_segment *last = newest(log);
    struct stat st;

    if (last == NULL || last->first + last->size != log->end)
        return false;
    log->fd = open_segment(log, last->first, O_WRONLY | O_APPEND);
    if (log->fd >= 0 && fstat(log->fd, &st) == 0 && S_ISREG(st.st_mode) &&
        (uint64_t)st.st_size == last->size)
        return true;
    close_newest(log);
    return false;
}

/* The newest segment, open and with room for a byte; NULL and errno. */
static struct spb_segment *prepare(struct spb_log *log)
{
    struct spb_segment *last = newest(log);

    if (last != NULL && last->size < log->segment_bytes && (log->fd >= 0 || reopen_newest(log)))
        return last;
    return begin_segment(log) < 0 ? NULL : newest(log);
}

/* Bytes written, or -1 and errno. */
static ssize_t write_piece(struct spb_log *log, const uint8_t *bytes, size_t n)
{
    struct spb_segment *last = prepare(log);

    if (last == NULL)
        return -1;
    uint64_t room = log->segment_bytes - last->size;
    ssize_t wrote;

    do
        wrote = write(log->fd, bytes, n < room ? n : (size_t)room);
    while (wrote < 0 && errno == EINTR);
    if (wrote == 0)
        errno = ENOSPC;
    if (wrote <= 0)
        return -1;
    change_begin(log);
    last->size += (uint64_t)wrote;
    log->end += (uint64_t)wrote;
    change_end(log);
    return wrote;
}

/* A segment that took nothing tells nothing that the next will not, and places are few. */
static void drop_empty(struct spb_log *log)
{
    const struct spb_segment *last = newest(log);

    if (log->fd < 0 || last == NULL || last->size > 0)
        return;
    (void)unlink_segment(log, last->first);
    change_begin(log);
    log->segments.count--;
    change_end(log);
}

static enum spb_log_news stop(struct spb_log *log, size_t lost, int64_t now_ms,
                              struct spb_error *why)
{
    bool was_stopped = log->is_stopped;

    (void)spb_fail_errno(why, SPB_IO, errno, "the console's log %s stops at offset %llu",
                         log->directory, (unsigned long long)log->end);
    drop_empty(log);
    close_newest(log);
    advance(log, lost);
    log->has_lost = true;
    log->is_stopped = true;
    log->retry_ms = now_ms + SPB_LOG_RETRY_MS;
    return was_stopped ? SPB_LOG_NOTHING : SPB_LOG_STOPPED;
}

enum spb_log_news spb_log_add(struct spb_log *log, const void *bytes, size_t n, int64_t now_ms,
                              struct spb_error *why)
{
    const uint8_t *from = bytes;

    if (n == 0)
        return SPB_LOG_NOTHING;
    if (log->is_stopped && now_ms < log->retry_ms) {
        advance(log, n);
        return SPB_LOG_NOTHING;
    }
    while (n > 0) {
        ssize_t wrote = write_piece(log, from, n);

        if (wrote < 0)
            return stop(log, n, now_ms, why);
        from += wrote;
        n -= (size_t)wrote;
    }
    bool was_stopped = log->is_stopped;
    log->is_stopped = false;
    return was_stopped ? SPB_LOG_RESUMED : SPB_LOG_NOTHING;
}

/* ---- Reading ------------------------------------------------------------------------------ */

void spb_log_extent(struct spb_log *log, uint64_t *begin, uint64_t *end)
{
    change_begin(log);
    const struct spb_segment *oldest = spb_segments_find(&log->segments, 0);
    *begin = oldest == NULL ? log->end : oldest->first;
    *end = log->end;
    change_end(log);
}

/* False: nothing is kept from offset on. */
static bool find_segment(struct spb_log *log, uint64_t offset, struct spb_segment *segment,
                         uint64_t *end)
{
    change_begin(log);
    const struct spb_segment *found = spb_segments_find(&log->segments, offset);
    if (found != NULL)
        *segment = *found;
    *end = log->end;
    change_end(log);
    return found != NULL;
}

bool spb_log_has(struct spb_log *log, uint64_t offset, uint64_t limit)
{
    struct spb_segment segment;
    uint64_t end;

    return offset < limit && find_segment(log, offset, &segment, &end) && segment.first < limit;
}

bool spb_log_covers(struct spb_log *log, uint64_t offset, uint64_t limit)
{
    struct spb_segment segment;
    uint64_t end;

    while (offset < limit) {
        if (!find_segment(log, offset, &segment, &end) || segment.first > offset)
            return false;
        offset = segment.first + segment.size;
    }
    return true;
}

static ssize_t read_at(int fd, void *out, size_t n, uint64_t position)
{
    ssize_t got;

    do
        got = pread(fd, out, n, (off_t)position);
    while (got < 0 && errno == EINTR);
    return got;
}

/* Bytes of one segment from offset on, which lies in it. 0: its file has none (any more). */
static ssize_t read_segment(const struct spb_log *log, const struct spb_segment *segment,
                            uint64_t offset, void *out, size_t n)
{
    uint64_t left = segment->first + segment->size - offset;
    int fd = open_segment(log, segment->first, O_RDONLY);

    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    ssize_t got = read_at(fd, out, n < left ? n : (size_t)left, offset - segment->first);
    int number = errno;
    (void)close(fd);
    errno = number;
    return got;
}

spb_status spb_log_read(struct spb_log *log, uint64_t offset, void *out, size_t n, uint64_t *at,
                        size_t *size, struct spb_error *err)
{
    struct spb_segment segment;
    uint64_t end;

    while (n > 0 && find_segment(log, offset, &segment, &end)) {
        if (offset < segment.first)
            offset = segment.first;
        ssize_t got = read_segment(log, &segment, offset, out, n);
        if (got < 0)
            return spb_fail_errno(err, SPB_IO, errno, "cannot read %s at offset %llu",
                                  log->directory, (unsigned long long)offset);
        if (got > 0) {
            *at = offset;
            *size = (size_t)got;
            return spb_ok();
        }
        /* It was rotated away since, or somebody removed it: a gap. */
        offset = segment.first + segment.size;
    }
    if (n == 0)
        spb_log_extent(log, &offset, &end);
    *at = end;
    *size = 0;
    return spb_ok();
}
