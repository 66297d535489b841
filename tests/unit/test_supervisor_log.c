/* A console's ring in memory and log on disk: offsets, rotation, restarts, a disk that is full. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/status.h"
#include "supervisor/console/log.h"
#include "supervisor/console/ring.h"
#include "unit/folder_kit.h"

/* The byte of the stream at an offset: every place has one that can be told. */
static uint8_t byte_at(uint64_t offset)
{
    uint64_t x = offset * UINT64_C(0x9e3779b97f4a7c15);

    return (uint8_t)(x >> 56);
}

static uint8_t stream[1 << 20];

static const uint8_t *stream_from(uint64_t offset, size_t n)
{
    cr_assert_leq(n, sizeof(stream));
    for (size_t i = 0; i < n; i++)
        stream[i] = byte_at(offset + i);
    return stream;
}

static void expect_bytes(const uint8_t *bytes, uint64_t offset, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(bytes[i], byte_at(offset + i), "offset %llu", (unsigned long long)offset + i);
}

/* ---- Ring --------------------------------------------------------------------------------- */

Test(supervisor_ring, takes_memory_with_the_first_byte_and_gives_it_back)
{
    struct spb_ring ring;

    spb_ring_init(&ring, 64, 1000);
    cr_expect_null(ring.bytes);
    spb_ring_add(&ring, "", 0);
    cr_expect_null(ring.bytes);
    spb_ring_add(&ring, "abc", 3);
    cr_expect_not_null(ring.bytes);
    spb_ring_rest(&ring);
    cr_expect_null(ring.bytes);
    cr_expect_eq(ring.end, 1003);
    cr_expect_eq(spb_ring_begin(&ring), 1003);
    spb_ring_add(&ring, "d", 1);
    struct spb_ring_view view = spb_ring_find(&ring, 1000);
    cr_expect_eq(view.offset, 1003);
    cr_expect_eq(view.skipped, 3);
    cr_expect_eq(view.size, 1);
    cr_expect_eq(*view.data, 'd');
    spb_ring_rest(&ring);
}

Test(supervisor_ring, any_pieces_from_any_offset_are_what_was_added)
{
    static const size_t sizes[] = {1, 7, 63, 64, 65, 200, 1, 128};
    struct spb_ring ring;
    uint8_t out[256];
    uint64_t at;

    spb_ring_init(&ring, 64, UINT64_MAX / 2);
    for (size_t i = 0; i < 400; i++) {
        size_t n = sizes[i % 8];

        spb_ring_add(&ring, stream_from(ring.end, n), n);
        uint64_t begin = spb_ring_begin(&ring);
        cr_assert_leq(ring.end - begin, 64);
        for (uint64_t from = begin - 3; from < ring.end + 2; from++) {
            size_t got = spb_ring_copy(&ring, from, out, sizeof(out), &at);
            uint64_t first = from < begin ? begin : from > ring.end ? ring.end : from;

            cr_assert_eq(at, first);
            cr_assert_eq(got, ring.end - first);
            expect_bytes(out, at, got);
        }
        cr_assert_eq(spb_ring_copy(&ring, begin, out, 1, &at), 1);
    }
    spb_ring_rest(&ring);
}

/* ---- Log ---------------------------------------------------------------------------------- */

TestSuite(supervisor_log, .init = folder_make, .fini = folder_remove);

static struct spb_log *open_log(const char *name, uint64_t total, uint64_t floor)
{
    char path[128];
    struct spb_log *log = NULL;
    struct spb_error err;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    cr_assert(spb_is_ok(spb_log_open(path, total, floor, &log, &err)), "%s", err.text);
    return log;
}

static uint64_t end_of(struct spb_log *log)
{
    uint64_t begin, end;

    spb_log_extent(log, &begin, &end);
    return end;
}

static void add(struct spb_log *log, size_t n)
{
    struct spb_error why;

    cr_assert_eq(spb_log_add(log, stream_from(end_of(log), n), n, 0, &why), SPB_LOG_NOTHING);
}

/* Everything from the oldest byte on, without a gap. */
static void expect_whole(struct spb_log *log)
{
    static uint8_t out[1 << 16];
    uint64_t begin, end, at;
    size_t size;

    spb_log_extent(log, &begin, &end);
    for (uint64_t offset = begin; offset < end; offset += size) {
        cr_assert(spb_is_ok(spb_log_read(log, offset, out, sizeof(out), &at, &size, NULL)));
        cr_assert_eq(at, offset);
        cr_assert_gt(size, 0);
        expect_bytes(out, at, size);
    }
    cr_assert(spb_log_covers(log, begin, end));
}

/* Bytes and files on disk. */
static uint64_t disk_bytes(const char *name, size_t *files)
{
    char path[128];
    uint64_t sum = 0;
    struct dirent *entry;
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    DIR *dir = opendir(path);
    cr_assert_not_null(dir);
    *files = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        cr_assert_eq(fstatat(dirfd(dir), entry->d_name, &st, 0), 0);
        sum += (uint64_t)st.st_size;
        ++*files;
    }
    closedir(dir);
    return sum;
}

Test(supervisor_log, rotates_below_its_total)
{
    struct spb_log *log = open_log("l", 64 * 1024, 0);
    uint64_t begin, end;
    size_t files;

    for (unsigned i = 0; i < 500; i++) {
        add(log, 1 + (i * 977) % 5000);
        cr_assert_leq(disk_bytes("l", &files), 64 * 1024);
        cr_assert_leq(files, SPB_LOG_SEGMENTS);
    }
    expect_whole(log);
    spb_log_extent(log, &begin, &end);
    cr_expect_geq(end - begin, 3 * 64 * 1024 / 4 - 5000);
    uint8_t byte;
    uint64_t at;
    size_t size;
    cr_assert(spb_is_ok(spb_log_read(log, 0, &byte, 1, &at, &size, NULL)));
    cr_expect_eq(at, begin, "what is too old is skipped");
    cr_assert(spb_is_ok(spb_log_read(log, end + 9, &byte, 1, &at, &size, NULL)));
    cr_expect(size == 0 && at == end);
    spb_log_free(log);
}

Test(supervisor_log, offsets_go_on_after_a_restart)
{
    struct spb_log *log = open_log("l", 64 * 1024, 0);

    add(log, 30000);
    spb_log_free(log);
    log = open_log("l", 64 * 1024, 10);
    cr_expect_eq(end_of(log), 30000);
    add(log, 1);
    expect_whole(log);
    spb_log_free(log);
    size_t files;
    (void)disk_bytes("l", &files);
    cr_expect_eq(files, 2, "the last segment is gone on with");
}

Test(supervisor_log, goes_on_where_the_caller_remembers_more)
{
    struct spb_log *log = open_log("l", 64 * 1024, 0);
    uint8_t out[8];
    uint64_t at;
    size_t size;

    add(log, 100);
    spb_log_free(log);
    log = open_log("l", 64 * 1024, 150);
    add(log, 4);
    cr_expect_eq(end_of(log), 154);
    cr_assert(spb_is_ok(spb_log_read(log, 100, out, 8, &at, &size, NULL)));
    cr_expect(at == 150 && size == 4, "the gap is skipped");
    expect_bytes(out, 150, 4);
    cr_expect_not(spb_log_covers(log, 90, 154));
    cr_expect(spb_log_has(log, 100, 151));
    cr_expect_not(spb_log_has(log, 100, 150));
    spb_log_free(log);
}

static void write_at(const char *name, uint64_t offset, size_t n)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/l/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, stream_from(offset, n), n), (ssize_t)n);
    close(fd);
}

Test(supervisor_log, what_an_unclean_end_left_is_taken_as_it_is)
{
    uint8_t out[64];
    uint64_t at;
    size_t size, files;

    spb_log_free(open_log("l", 8192, 0));
    write_at("0000000000000000.log", 0, 50); /* ten bytes of its end are the next one's too */
    write_at("0000000000000028.log", 40, 10);
    write_at("0000000000000064.log", 100, 0); /* 50 bytes are missing; made and not written to */
    write_at("ffffffffffffffff.log", 0, 20);  /* would pass the last offset */
    write_at("0000000000000200.LOG", 0, 20);  /* not ours */
    write_at("200.log", 0, 20);
    struct spb_log *log = open_log("l", 8192, 0);
    cr_expect_eq(end_of(log), 100);
    cr_assert(spb_is_ok(spb_log_read(log, 35, out, 64, &at, &size, NULL)));
    cr_expect(at == 35 && size == 5);
    cr_assert(spb_is_ok(spb_log_read(log, 40, out, 64, &at, &size, NULL)));
    cr_expect(at == 40 && size == 10);
    cr_assert(spb_is_ok(spb_log_read(log, 50, out, 64, &at, &size, NULL)));
    cr_expect(at == 100 && size == 0);
    add(log, 5);
    cr_assert(spb_is_ok(spb_log_read(log, 50, out, 64, &at, &size, NULL)));
    cr_expect(at == 100 && size == 5);
    expect_bytes(out, 100, 5);
    spb_log_free(log);
    (void)disk_bytes("l", &files);
    cr_expect_eq(files, 6, "nothing else was touched");
}

Test(supervisor_log, a_lower_total_and_too_many_files_are_cut_from_the_oldest)
{
    struct spb_log *log = open_log("l", 64 * 1024, 0);
    size_t files;

    add(log, 60000);
    spb_log_free(log);
    log = open_log("l", 20000, 0);
    cr_expect_leq(disk_bytes("l", &files), 20000);
    cr_expect_eq(end_of(log), 60000);
    expect_whole(log);
    spb_log_free(log);
    for (unsigned i = 0; i < 100; i++) {
        char name[32];

        snprintf(name, sizeof(name), "%016x.log", 70000 + i);
        write_at(name, 70000 + i, 1);
    }
    log = open_log("l", 20000, 0);
    (void)disk_bytes("l", &files);
    cr_expect_leq(files, SPB_LOG_SEGMENTS);
    cr_expect_eq(end_of(log), 70100);
    expect_whole(log);
    spb_log_free(log);
}

Test(supervisor_log, a_segment_that_somebody_removed_is_a_gap)
{
    struct spb_log *log = open_log("l", 64 * 1024, 0);
    uint8_t out[8];
    char path[128];
    uint64_t at;
    size_t size;

    add(log, 40000);
    snprintf(path, sizeof(path), "%s/l/0000000000000000.log", folder);
    cr_assert_eq(unlink(path), 0);
    cr_assert(spb_is_ok(spb_log_read(log, 5, out, 8, &at, &size, NULL)));
    cr_expect_eq(at, 16384);
    cr_expect_eq(size, 8);
    spb_log_free(log);
}

Test(supervisor_log, keeps_no_descriptor_at_rest)
{
    struct spb_log *log = open_log("l", 64 * 1024, 0);
    int before = dup(0);

    close(before);
    add(log, 10);
    spb_log_rest(log);
    int after = dup(0);
    cr_expect_eq(after, before);
    close(after);
    add(log, 10);
    expect_whole(log);
    spb_log_free(log);
}

Test(supervisor_log, removes_its_own_files_only)
{
    char path[128];
    struct spb_error err;

    snprintf(path, sizeof(path), "%s/l", folder);
    cr_expect_eq(spb_log_remove(path, &err).code, SPB_NOT_FOUND);
    struct spb_log *log = open_log("l", 64 * 1024, 0);
    add(log, 40000);
    spb_log_free(log);
    write_at("mine", 0, 1);
    cr_expect_eq(spb_log_remove(path, &err).code, SPB_IO);
    size_t files;
    (void)disk_bytes("l", &files);
    cr_expect_eq(files, 1);
    snprintf(path, sizeof(path), "%s/l/mine", folder);
    cr_assert_eq(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/l", folder);
    cr_expect(spb_is_ok(spb_log_remove(path, &err)));
    cr_expect_neq(access(path, F_OK), 0);
}

/* A file system of 1 MiB over the folder; the mount ends with this process. */
static void mount_small(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("spb", folder, "tmpfs", 0, "size=1m") < 0)
        folder_skip("a file system cannot be mounted here");
}

static void fill(const char *name, size_t leave)
{
    char path[128];
    static uint8_t zeros[4096];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    while (write(fd, zeros, sizeof(zeros)) == (ssize_t)sizeof(zeros))
        continue;
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_eq(ftruncate(fd, st.st_size - (off_t)leave), 0);
    close(fd);
}

Test(supervisor_log, a_full_disk_stops_it_and_leaves_a_gap)
{
    struct spb_error why = {.code = SPB_OK};
    uint8_t out[16];
    uint64_t at, begin, end;
    size_t size, files;
    char path[128];

    mount_small();
    struct spb_log *log = open_log("l", 512 * 1024, 0);
    add(log, 1000);
    fill("ballast", 8192);
    cr_assert_eq(spb_log_add(log, stream_from(1000, 100000), 100000, 5, &why), SPB_LOG_STOPPED);
    cr_expect_eq(why.saved_errno, ENOSPC, "%s", why.text);
    cr_expect_eq(end_of(log), 101000, "the stream goes on");
    cr_expect_eq(spb_log_add(log, "x", 1, 6, &why), SPB_LOG_NOTHING, "told once");
    int64_t now_ms = 5 + SPB_LOG_RETRY_MS;
    for (int i = 0; i < 40; i++, now_ms += SPB_LOG_RETRY_MS)
        cr_expect_eq(spb_log_add(log, "xxxxxxxxx", 9, now_ms, &why), SPB_LOG_NOTHING);
    (void)disk_bytes("l", &files);
    cr_expect_leq(files, 2, "trying again leaves nothing behind: found %zu", files);
    snprintf(path, sizeof(path), "%s/ballast", folder);
    cr_assert_eq(unlink(path), 0);
    uint64_t resumed = end_of(log);
    cr_expect_eq(spb_log_add(log, stream_from(resumed, 10), 10, now_ms, &why), SPB_LOG_RESUMED);
    spb_log_free(log);

    log = open_log("l", 512 * 1024, 0);
    spb_log_extent(log, &begin, &end);
    cr_expect(begin == 0 && end == resumed + 10);
    cr_assert(spb_is_ok(spb_log_read(log, 999, out, 16, &at, &size, NULL)));
    cr_expect(at == 999 && size == 16, "what was written before is there");
    expect_bytes(out, 999, 16);
    cr_assert(spb_is_ok(spb_log_read(log, 100000, out, 16, &at, &size, NULL)));
    cr_expect(at == resumed && size == 10, "the gap is known after a restart");
    expect_bytes(out, resumed, 10);
    spb_log_free(log);
}

Test(supervisor_log, a_gap_at_the_end_is_known_after_a_restart)
{
    struct spb_error why;
    char path[128];

    mount_small();
    struct spb_log *log = open_log("l", 512 * 1024, 0);
    add(log, 1000);
    fill("ballast", 0);
    cr_assert_eq(spb_log_add(log, stream_from(1000, 9000), 9000, 0, &why), SPB_LOG_STOPPED);
    snprintf(path, sizeof(path), "%s/ballast", folder);
    cr_assert_eq(unlink(path), 0);
    spb_log_free(log);
    log = open_log("l", 512 * 1024, 0);
    cr_expect_eq(end_of(log), 10000);
    spb_log_free(log);
}

/* Reads all the while the other writes and rotates. */
static void *read_all_along(void *user)
{
    struct spb_log *log = user;
    static uint8_t out[5000];
    uint64_t offset = 0, at;
    size_t size = 0;

    while (offset < 4000000) {
        cr_assert(spb_is_ok(spb_log_read(log, offset, out, sizeof(out), &at, &size, NULL)));
        cr_assert_geq(at, size == 0 ? 0 : offset);
        expect_bytes(out, at, size);
        offset = size == 0 ? offset : at + size;
        if (size == 0)
            sched_yield();
    }
    return NULL;
}

Test(supervisor_log, is_read_while_it_rotates)
{
    struct spb_log *log = open_log("l", 16384, 0);
    pthread_t reader;

    cr_assert_eq(pthread_create(&reader, NULL, read_all_along, log), 0);
    while (end_of(log) < 4000000)
        add(log, 3001);
    cr_assert_eq(pthread_join(reader, NULL), 0);
    spb_log_free(log);
}

Test(supervisor_log, what_cannot_be_opened_says_why)
{
    struct spb_log *log = NULL;
    struct spb_error err;

    cr_expect_eq(spb_log_open(folder, 100, 0, &log, &err).code, SPB_INVALID);
    cr_expect_eq(spb_log_open("/nonexistent/a/b", 8192, 0, &log, &err).code, SPB_IO);
    cr_expect_not_null(strstr(err.text, "/nonexistent/a/b"));
    cr_expect_null(log);
}
