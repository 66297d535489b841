/*
 * What the machine can do with a lot of bytes, in pieces of 1 MiB: write them to a file and sync it
 * once (write), read a file past the page cache (read), send them from one thread to another over
 * loopback (unix, tcp), or all at once: one thread reads and sends, the other writes what it
 * receives to a new file and syncs it in the end (pass-unix, pass-tcp). Prints seconds and MiB a
 * second as a line of JSON; files are removed.
 *
 *   bench_bulk --op write|read|unix|tcp|pass-unix|pass-tcp [--dir D] [--mib N]
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "meter.h"

#define PIECE ((size_t)1 << 20)

struct bulk {
    const char *dir;
    uint64_t bytes;
    uint8_t *piece; /* PIECE bytes, owned */
    double seconds;
};

static bool fail(const char *what)
{
    (void)fprintf(stderr, "bench_bulk: %s: %s\n", what, strerror(errno));
    return false;
}

static double seconds_since(uint64_t begin_ns)
{
    return (double)(bench_now_ns() - begin_ns) / 1e9;
}

/* ---- Disk --------------------------------------------------------------------------------- */

static int scratch_file(const struct bulk *bulk)
{
    char path[4096];

    if (snprintf(path, sizeof path, "%s/bench_bulk.XXXXXX", bulk->dir) >= (int)sizeof path)
        return -1;
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

static bool write_all(struct bulk *bulk, int fd)
{
    for (uint64_t at = 0; at < bulk->bytes; at += PIECE) {
        if (pwrite(fd, bulk->piece, PIECE, (off_t)at) != (ssize_t)PIECE)
            return fail("writing");
    }
    return fdatasync(fd) == 0 || fail("syncing");
}

/* Blocks are allocated beforehand, as those of an image are. */
static bool measure_write(struct bulk *bulk)
{
    int fd = scratch_file(bulk);

    if (fd < 0 || posix_fallocate(fd, 0, (off_t)bulk->bytes) != 0 || fsync(fd) != 0)
        return fail("preparing a file");
    uint64_t begin_ns = bench_now_ns();
    bool good = write_all(bulk, fd);
    bulk->seconds = seconds_since(begin_ns);
    (void)close(fd);
    return good;
}

/* A file that has the bytes on the disk, and nothing of them in the page cache; -1: failed. */
static int cold_file(struct bulk *bulk)
{
    int fd = scratch_file(bulk);

    if (fd >= 0 && write_all(bulk, fd) && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0)
        return fd;
    (void)fail("preparing a file");
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

static bool measure_read(struct bulk *bulk)
{
    int fd = cold_file(bulk);

    if (fd < 0)
        return false;
    uint64_t begin_ns = bench_now_ns();
    for (uint64_t at = 0; at < bulk->bytes; at += PIECE) {
        if (pread(fd, bulk->piece, PIECE, (off_t)at) != (ssize_t)PIECE)
            return fail("reading");
    }
    bulk->seconds = seconds_since(begin_ns);
    (void)close(fd);
    return true;
}

/* ---- Loopback ----------------------------------------------------------------------------- */

struct sender {
    struct bulk *bulk;
    int fd;
    int source; /* -1: the same bytes again and again */
};

static void *send_all(void *user)
{
    struct sender *sender = user;
    uint64_t left = sender->bulk->bytes;
    static uint8_t piece[PIECE];

    while (left > 0) {
        ssize_t got = sender->source < 0 ? (ssize_t)PIECE : read(sender->source, piece, PIECE);
        if (got <= 0 || send(sender->fd, piece, (size_t)got, MSG_NOSIGNAL) != got)
            break; /* the receiver notices */
        left -= (uint64_t)got;
    }
    (void)close(sender->fd);
    return NULL;
}

static bool tcp_pair(int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        return fail("listening");
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ends[0] < 0 || connect(ends[0], (struct sockaddr *)&address, size) != 0)
        return fail("connecting");
    ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    (void)close(listener);
    return ends[1] >= 0 || fail("accepting");
}

/* Receives all, and writes it to `out` where that is not -1. */
static bool receive_all(struct bulk *bulk, int fd, int out)
{
    uint64_t got = 0;
    ssize_t n;

    while ((n = recv(fd, bulk->piece, PIECE, 0)) > 0) {
        if (out >= 0 && write(out, bulk->piece, (size_t)n) != n)
            return fail("writing");
        got += (uint64_t)n;
    }
    return got == bulk->bytes || fail("receiving");
}

static bool measure_sending(struct bulk *bulk, bool tcp, int source, int out)
{
    struct sender sender = {.bulk = bulk, .source = source};
    pthread_t thread;
    int ends[2];

    if (tcp ? !tcp_pair(ends) : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return fail("connecting");
    sender.fd = ends[0];
    uint64_t begin_ns = bench_now_ns();
    if (pthread_create(&thread, NULL, send_all, &sender) != 0)
        return fail("starting a thread");
    bool good = receive_all(bulk, ends[1], out);
    good = good && (out < 0 || fsync(out) == 0 || fail("syncing"));
    bulk->seconds = seconds_since(begin_ns);
    (void)close(ends[1]);
    (void)pthread_join(thread, NULL);
    return good;
}

static bool measure_passing(struct bulk *bulk, bool tcp)
{
    int source = cold_file(bulk), out = source < 0 ? -1 : scratch_file(bulk);
    bool good = source >= 0 && (out >= 0 || fail("preparing a file")) &&
                lseek(source, 0, SEEK_SET) == 0 && measure_sending(bulk, tcp, source, out);

    if (source >= 0)
        (void)close(source);
    if (out >= 0)
        (void)close(out);
    return good;
}

static bool measure(struct bulk *bulk, const char *op)
{
    if (strcmp(op, "write") == 0)
        return measure_write(bulk);
    if (strcmp(op, "read") == 0)
        return measure_read(bulk);
    if (strcmp(op, "unix") == 0 || strcmp(op, "tcp") == 0)
        return measure_sending(bulk, *op == 't', -1, -1);
    if (strcmp(op, "pass-unix") == 0 || strcmp(op, "pass-tcp") == 0)
        return measure_passing(bulk, op[5] == 't');
    (void)fprintf(stderr,
                  "bench_bulk: --op: found \"%s\", expected write, read, unix, tcp, pass-unix or "
                  "pass-tcp\n",
                  op);
    return false;
}

int main(int argc, char **argv)
{
    struct bulk bulk = {
        .dir = bench_option(argc, argv, "--dir", "."),
        .bytes = (uint64_t)bench_number(argc, argv, "--mib", 256, 1, 65536) << 20,
        .piece = malloc(PIECE),
    };

    if (bulk.piece == NULL)
        return 1;
    memset(bulk.piece, 'b', PIECE);
    bool good = measure(&bulk, bench_option(argc, argv, "--op", "write"));
    if (good)
        (void)printf("{\"seconds\": %.6f, \"mib_s\": %.1f}\n", bulk.seconds,
                     (double)(bulk.bytes >> 20) / bulk.seconds);
    free(bulk.piece);
    return good ? 0 : 1;
}
