/* The last words of a process; see words.h. */
#include "supervisor/process/words.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

#define PIECE_BYTES 16384u
#define TURN_BYTES 65536u
/* Parts of what a pipe holds: one that is fuller than the first is relieved down to the second. */
#define MUCH_PART 4
#define LEFT_PART 8
#define USUAL_PIPE_BYTES 65536

static int open_fifo(const struct spb_rundir *dir, int flags)
{
    int fd =
        openat(dir->fd, SPB_RUNDIR_WORDS, flags | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
    struct stat st;

    if (fd < 0 || (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode)))
        return fd;
    (void)close(fd);
    errno = EEXIST; /* something else has its name */
    return -1;
}

static spb_status fail_open(const struct spb_rundir *dir, struct spb_error *err)
{
    return spb_fail_errno(err, errno == ENOENT ? SPB_NOT_FOUND : SPB_IO, errno,
                          "cannot open the FIFO %s/%s", dir->path, SPB_RUNDIR_WORDS);
}

spb_status spb_words_make(const struct spb_rundir *dir, struct spb_words *words, int *child_fd,
                          struct spb_error *err)
{
    if (mkfifoat(dir->fd, SPB_RUNDIR_WORDS, 0600) < 0)
        return spb_fail_errno(err, errno == EEXIST ? SPB_EXISTS : spb_code_of_errno(errno), errno,
                              "cannot make the FIFO %s/%s", dir->path, SPB_RUNDIR_WORDS);
    int child = open_fifo(dir, O_RDWR);
    if (child < 0)
        return fail_open(dir, err);
    spb_status status = spb_words_open(dir, words, err);
    if (!spb_is_ok(status)) {
        (void)close(child);
        return status;
    }
    *child_fd = child;
    return spb_ok();
}

spb_status spb_words_open(const struct spb_rundir *dir, struct spb_words *words,
                          struct spb_error *err)
{
    int fd = open_fifo(dir, O_RDONLY);

    if (fd < 0)
        return fail_open(dir, err);
    words->fd = fd;
    words->used = 0;
    return spb_ok();
}

static void keep(struct spb_words *words, const char *bytes, size_t n)
{
    if (n >= sizeof(words->bytes)) {
        memcpy(words->bytes, bytes + (n - sizeof(words->bytes)), sizeof(words->bytes));
        words->used = sizeof(words->bytes);
        return;
    }
    size_t room = sizeof(words->bytes) - words->used;
    size_t gone = n > room ? n - room : 0;
    memmove(words->bytes, words->bytes + gone, words->used - gone);
    words->used -= gone;
    memcpy(words->bytes + words->used, bytes, n);
    words->used += n;
}

/* At most so many bytes. */
static bool take(struct spb_words *words, size_t max)
{
    char piece[PIECE_BYTES];

    if (words->fd < 0)
        return false;
    while (max > 0) {
        ssize_t got = read(words->fd, piece, max < sizeof(piece) ? max : sizeof(piece));

        if (got > 0) {
            keep(words, piece, (size_t)got);
            max -= (size_t)got;
            continue;
        }
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        spb_words_close(words);
        return false;
    }
    return true;
}

bool spb_words_read(struct spb_words *words)
{
    return take(words, TURN_BYTES);
}

bool spb_words_relieve(struct spb_words *words)
{
    int there = 0, size = fcntl(words->fd, F_GETPIPE_SZ);

    if (size <= 0)
        size = USUAL_PIPE_BYTES;
    int left = size / LEFT_PART;
    if (words->fd >= 0 && ioctl(words->fd, FIONREAD, &there) == 0 && there <= size / MUCH_PART)
        return true;
    return take(words, there > left ? (size_t)(there - left) : TURN_BYTES);
}

static char shown(char c)
{
    return c > ' ' && c < 0x7f ? c : ' ';
}

void spb_words_text(const struct spb_words *words, char *text, size_t size)
{
    size_t begin = 0, end = words->used;

    SPB_ASSERT(size > 0);
    while (end > 0 && shown(words->bytes[end - 1]) == ' ')
        end--;
    if (end > size - 1)
        begin = end - (size - 1);
    while (begin < end && shown(words->bytes[begin]) == ' ')
        begin++;
    for (size_t i = begin; i < end; i++)
        *text++ = shown(words->bytes[i]);
    *text = '\0';
}

void spb_words_close(struct spb_words *words)
{
    if (words->fd >= 0)
        (void)close(words->fd);
    words->fd = -1;
}
