/*
 * What the disk under a directory can do for one writer: aligned writes of one sector at random
 * places of a file that is allocated and written beforehand, each followed by fdatasync; with
 * --writes N, so many of these in a row count as one. Prints rate and latencies as a line of JSON;
 * the file is removed.
 *
 *   bench_disk --dir D [--seconds S] [--mib N] [--writes N]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "meter.h"

#define SECTOR 512u

/* Writes the whole file, so that no later write has to allocate or convert an extent. */
static bool prepare(int fd, uint64_t size)
{
    static const uint8_t zeros[65536];

    for (uint64_t at = 0; at < size; at += sizeof zeros) {
        if (pwrite(fd, zeros, sizeof zeros, (off_t)at) != (ssize_t)sizeof zeros)
            return false;
    }
    return fsync(fd) == 0;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static bool write_one(int fd, uint64_t sectors, uint64_t *state)
{
    uint8_t sector[SECTOR];
    uint64_t at = next_random(state) % sectors * SECTOR;

    memset(sector, 's', sizeof sector);
    memcpy(sector, state, sizeof *state);
    return pwrite(fd, sector, sizeof sector, (off_t)at) == (ssize_t)sizeof sector &&
           fdatasync(fd) == 0;
}

static void run_load(struct bench_run *run, int fd, uint64_t sectors, unsigned writes,
                     double seconds)
{
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t started_ns;

    bench_run_start(run, seconds);
    while (!bench_run_is_over(run, started_ns = bench_now_ns())) {
        for (unsigned i = 0; i < writes; i++) {
            if (!write_one(fd, sectors, &state)) {
                bench_run_fail(run, "writing a sector: %s", strerror(errno));
                return;
            }
        }
        bench_run_note(run, started_ns, bench_now_ns());
    }
}

int main(int argc, char **argv)
{
    static struct bench_run run;
    const char *dir = bench_option(argc, argv, "--dir", ".");
    double seconds = bench_number(argc, argv, "--seconds", 1, 0.01, 3600);
    uint64_t size = (uint64_t)bench_number(argc, argv, "--mib", 16, 1, 65536) << 20;
    unsigned writes = (unsigned)bench_number(argc, argv, "--writes", 1, 1, 1000);
    char path[4096];
    int fd;

    if (snprintf(path, sizeof path, "%s/bench_disk.XXXXXX", dir) >= (int)sizeof path)
        return 2;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0 || unlink(path) != 0 || !prepare(fd, size)) {
        (void)fprintf(stderr, "bench_disk: preparing %llu bytes in %s: %s\n",
                      (unsigned long long)size, dir, strerror(errno));
        return 1;
    }
    run_load(&run, fd, size / SECTOR, writes, seconds);
    (void)close(fd);
    return bench_run_report(&run);
}
