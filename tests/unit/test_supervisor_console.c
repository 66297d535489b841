/* A guest's console over a socket pair: never stalled, read by offset, one writer at a time. */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "base/status.h"
#include "supervisor/console/console.h"
#include "unit/folder_kit.h"

TestSuite(supervisor_console, .init = folder_make, .fini = folder_remove);

struct seen {
    unsigned turns, stops, resumes;
    uint64_t end;
};

static void on_arrived(void *user, uint64_t end)
{
    struct seen *seen = user;

    seen->turns++;
    seen->end = end;
}

static void on_log(void *user, const struct spb_error *why)
{
    struct seen *seen = user;

    if (why == NULL)
        seen->resumes++;
    else
        seen->stops++;
}

static struct spb_console *open_console(struct seen *seen, size_t ring, uint64_t log,
                                        uint64_t floor)
{
    char path[128];
    struct spb_console *console = NULL;
    struct spb_error err;

    snprintf(path, sizeof(path), "%s/log", folder);
    struct spb_console_options options = {.ring_bytes = ring,
                                          .log_directory = log == 0 ? NULL : path,
                                          .log_bytes = log,
                                          .floor = floor,
                                          .hooks = {on_arrived, on_log, seen}};
    cr_assert(spb_is_ok(spb_console_new(&options, &console, &err)), "%s", err.text);
    return console;
}

/* The guest's end. */
static int attach(struct spb_console *console)
{
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    spb_console_attach(console, ends[0]);
    return ends[1];
}

static void print(struct spb_console *console, int guest, const char *text)
{
    cr_assert_eq(write(guest, text, strlen(text)), (ssize_t)strlen(text));
    cr_assert_eq(spb_console_on_readable(console, 0), SPB_CONSOLE_EMPTY);
}

static void expect_read(struct spb_console *console, uint64_t offset, const char *text,
                        uint64_t skipped)
{
    char out[256];
    struct spb_console_piece piece;

    spb_console_read(console, offset, out, sizeof(out), &piece);
    if (piece.is_on_disk)
        cr_assert(
            spb_is_ok(spb_console_read_disk(console, offset, out, sizeof(out), &piece, NULL)));
    cr_expect_eq(piece.size, strlen(text), "offset %llu: %zu bytes", (unsigned long long)offset,
                 piece.size);
    cr_expect_arr_eq(out, text, piece.size);
    cr_expect_eq(piece.skipped, skipped);
    cr_expect_eq(piece.offset, offset + skipped);
}

/* ---- What the guest prints ---------------------------------------------------------------- */

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)((offset * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

#define FLOOD_BYTES (5u << 20)

/* The guest: prints without a pause, waits where it has to, and hangs up. */
static void *flood(void *user)
{
    int guest = *(int *)user;
    static uint8_t bytes[1 << 16];

    for (uint64_t sent = 0; sent < FLOOD_BYTES; sent += sizeof(bytes)) {
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = byte_at(sent + i);
        for (size_t done = 0; done < sizeof(bytes);) {
            ssize_t n = write(guest, bytes + done, sizeof(bytes) - done);

            cr_assert_gt(n, 0);
            done += (size_t)n;
        }
    }
    close(guest);
    return NULL;
}

static uint64_t drain_until_ended(struct spb_console *console, struct seen *seen)
{
    enum spb_console_turn turn;
    uint64_t before = 0;

    do {
        turn = spb_console_on_readable(console, 0);
        cr_assert_leq(seen->end - before, SPB_CONSOLE_TURN_BYTES + 16384, "a turn is bounded");
        before = seen->end;
        if (turn == SPB_CONSOLE_EMPTY)
            sched_yield();
    } while (turn != SPB_CONSOLE_ENDED);
    return seen->end;
}

Test(supervisor_console, five_mebibytes_pass_a_reader_that_stands_still)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 0, 1 << 20, 0);
    static uint8_t out[1 << 18];
    struct spb_console_piece piece;
    uint64_t kept_from, end, offset;
    int guest = attach(console);
    pthread_t printer;

    cr_assert_eq(pthread_create(&printer, NULL, flood, &guest), 0);
    cr_expect_eq(drain_until_ended(console, &seen), FLOOD_BYTES);
    cr_assert_eq(pthread_join(printer, NULL), 0);
    spb_console_detach(console);
    /* The reader had asked for the first byte and comes back now. */
    spb_console_extent(console, &kept_from, &end);
    cr_expect_eq(end, FLOOD_BYTES);
    cr_expect_geq(end - kept_from, 3u << 18);
    cr_expect_leq(end - kept_from, 1u << 20);
    for (offset = 0; offset < end; offset = piece.offset + piece.size) {
        spb_console_read(console, offset, out, sizeof(out), &piece);
        if (piece.is_on_disk)
            cr_assert(
                spb_is_ok(spb_console_read_disk(console, offset, out, sizeof(out), &piece, NULL)));
        cr_assert_gt(piece.size, 0);
        cr_assert_eq(piece.offset, offset == 0 ? kept_from : offset);
        cr_assert_eq(piece.skipped, piece.offset - offset);
        for (size_t i = 0; i < piece.size; i++)
            cr_assert_eq(out[i], byte_at(piece.offset + i));
    }
    spb_console_free(console);
}

Test(supervisor_console, readers_see_the_same_and_consume_nothing)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 16, 0, 100);
    int guest = attach(console);

    print(console, guest, "hello ");
    print(console, guest, "world");
    cr_expect_eq(seen.turns, 2);
    cr_expect_eq(seen.end, 111);
    expect_read(console, 100, "hello world", 0);
    expect_read(console, 100, "hello world", 0);
    expect_read(console, 106, "world", 0);
    expect_read(console, 111, "", 0);
    expect_read(console, 40, "hello world", 60);
    print(console, guest, "0123456789");
    expect_read(console, 100, " world0123456789", 5);
    struct spb_console_piece piece;
    char out[4];
    spb_console_read(console, 500, out, sizeof(out), &piece);
    cr_expect(piece.size == 0 && piece.offset == 121 && piece.end == 121 && piece.skipped == 0);
    close(guest);
    cr_expect_eq(spb_console_on_readable(console, 0), SPB_CONSOLE_ENDED);
    spb_console_free(console);
}

Test(supervisor_console, old_bytes_come_from_disk_also_after_a_restart)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 8, 8192, 0);
    struct spb_console_piece piece;
    int guest = attach(console);
    char out[4];

    print(console, guest, "0123456789abcdef");
    spb_console_read(console, 2, out, sizeof(out), &piece);
    cr_expect(piece.is_on_disk && piece.size == 0 && piece.end == 16);
    expect_read(console, 2, "23456789abcdef", 0);
    expect_read(console, 9, "9abcdef", 0);
    spb_console_rest(console);
    expect_read(console, 0, "0123456789abcdef", 0);
    spb_console_free(console);
    close(guest);
    console = open_console(&seen, 8, 8192, 3);
    expect_read(console, 12, "cdef", 0);
    guest = attach(console);
    print(console, guest, "ghi");
    expect_read(console, 16, "ghi", 0);
    expect_read(console, 12, "cdefghi", 0);
    close(guest);
    spb_console_free(console);
}

Test(supervisor_console, a_log_that_fails_is_told_once_and_memory_goes_on)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 64, 8192, 0);
    char path[128], away[128];
    int guest = attach(console);

    print(console, guest, "before");
    spb_console_rest(console);
    snprintf(path, sizeof(path), "%s/log", folder);
    snprintf(away, sizeof(away), "%s/away", folder);
    cr_assert_eq(rename(path, away), 0);
    print(console, guest, "lost");
    print(console, guest, "lost too");
    cr_expect_eq(seen.stops, 1);
    expect_read(console, 6, "lostlost too", 0);
    spb_console_rest(console);
    expect_read(console, 6, "lostlost too", 0);
    cr_assert_eq(rename(away, path), 0);
    cr_assert_eq(write(guest, "again", 5), 5);
    cr_assert_eq(spb_console_on_readable(console, 10000), SPB_CONSOLE_EMPTY);
    cr_expect_eq(seen.resumes, 1);
    expect_read(console, 0, "before", 0);
    expect_read(console, 6, "lostlost tooagain", 0);
    close(guest);
    spb_console_free(console);
}

/* ---- What is typed ------------------------------------------------------------------------ */

static struct spb_console_typing typing_of(char writer, uint64_t offset, const char *text)
{
    struct spb_console_typing typing = {.offset = offset, .bytes = text, .size = strlen(text)};

    memset(typing.writer, writer, sizeof(typing.writer));
    return typing;
}

static void type(struct spb_console *console, char writer, uint64_t offset, const char *text,
                 int64_t now_ms, uint64_t expected)
{
    struct spb_console_typing typing = typing_of(writer, offset, text);
    struct spb_error err;
    uint64_t taken = 0;

    cr_assert(spb_is_ok(spb_console_type(console, &typing, now_ms, &taken, &err)), "%s", err.text);
    cr_expect_eq(taken, expected);
    spb_console_on_writable(console);
}

static void expect_refused(struct spb_console *console, char writer, uint64_t offset,
                           int64_t now_ms, enum spb_code code)
{
    struct spb_console_typing typing = typing_of(writer, offset, "refused");
    struct spb_error err;
    uint64_t taken = 77;

    cr_expect_eq(spb_console_type(console, &typing, now_ms, &taken, &err).code, code, "%s",
                 err.text);
    cr_expect_eq(taken, 77);
}

static void expect_typed(int guest, const char *text)
{
    char out[64] = "";

    ssize_t n = recv(guest, out, sizeof(out) - 1, MSG_DONTWAIT);
    cr_expect_str_eq(n < 0 ? "" : out, text);
}

Test(supervisor_console, what_came_already_is_not_typed_again)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 64, 0, 0);

    expect_refused(console, 'a', 0, 0, SPB_UNREACHABLE);
    int guest = attach(console);
    type(console, 'a', 0, "abc", 0, 3);
    expect_typed(guest, "abc");
    type(console, 'a', 0, "abc", 1, 3);
    type(console, 'a', 1, "bcd", 1, 4);
    expect_typed(guest, "d");
    expect_refused(console, 'a', 5, 1, SPB_INVALID);
    expect_refused(console, 'a', UINT64_MAX, 1, SPB_INVALID);
    expect_typed(guest, "");
    cr_expect_not(spb_console_wants_write(console));
    spb_console_free(console);
    close(guest);
}

Test(supervisor_console, one_writer_at_a_time)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 64, 0, 0);
    int guest = attach(console);

    type(console, 'a', 0, "one", 1000, 3);
    expect_refused(console, 'b', 0, 1000 + SPB_CONSOLE_LEASE_MS - 1, SPB_LOCKED);
    expect_refused(console, 'b', 9, 1000 + SPB_CONSOLE_LEASE_MS, SPB_NOT_FOUND);
    type(console, 'b', 0, "two", 1000 + SPB_CONSOLE_LEASE_MS, 3);
    expect_refused(console, 'a', 3, 12000, SPB_LOCKED);
    type(console, 'a', 0, "one", 12000, 3); /* repeated: takes nothing from b */
    type(console, 'b', 3, "!", 12000, 4);
    struct spb_console_typing over = typing_of('a', 3, "mine");
    over.takes_over = true;
    uint64_t taken;
    cr_assert(spb_is_ok(spb_console_type(console, &over, 12001, &taken, NULL)));
    spb_console_on_writable(console);
    cr_expect_eq(taken, 7);
    expect_refused(console, 'b', 4, 12002, SPB_LOCKED);
    expect_typed(guest, "onetwo!mine");
    spb_console_free(console);
    close(guest);
}

Test(supervisor_console, forgets_the_writer_that_was_silent_longest)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 64, 0, 0);
    int guest = attach(console);

    for (int i = 0; i < 9; i++)
        type(console, (char)('a' + i), 0, "x", i * SPB_CONSOLE_LEASE_MS, 1);
    expect_refused(console, 'a', 1, 90000, SPB_NOT_FOUND);
    type(console, 'b', 0, "x", 90000, 1);
    expect_typed(guest, "xxxxxxxxx");
    spb_console_free(console);
    close(guest);
}

Test(supervisor_console, a_guest_that_reads_nothing_bounds_what_is_taken)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 64, 0, 0);
    int guest = attach(console);
    char text[4001], out[5000];
    uint64_t taken = 0, before, got = 0;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    do {
        struct spb_console_typing typing = typing_of('a', taken, text);

        before = taken;
        cr_assert(spb_is_ok(spb_console_type(console, &typing, 0, &taken, NULL)));
        spb_console_on_writable(console);
        cr_assert_lt(taken, 64u << 20);
    } while (taken > before);
    cr_expect(spb_console_wants_write(console));
    /* Printing goes on, and once it reads, all arrives. */
    print(console, guest, "still here");
    for (;;) {
        ssize_t n = recv(guest, out, sizeof(out), MSG_DONTWAIT);

        if (n <= 0)
            break;
        got += (uint64_t)n;
        spb_console_on_writable(console);
    }
    cr_expect_eq(got, taken);
    cr_expect_not(spb_console_wants_write(console));
    spb_console_free(console);
    close(guest);
}

Test(supervisor_console, what_waits_ends_with_the_run)
{
    struct seen seen = {0};
    struct spb_console *console = open_console(&seen, 64, 0, 0);
    struct spb_console_typing typing = typing_of('a', 0, "old");
    uint64_t taken;
    int guest = attach(console);

    cr_assert(spb_is_ok(spb_console_type(console, &typing, 0, &taken, NULL)));
    cr_expect(spb_console_wants_write(console));
    close(guest);
    spb_console_on_writable(console); /* nobody is there any more: no signal, no error */
    cr_expect_eq(spb_console_on_readable(console, 0), SPB_CONSOLE_ENDED);
    spb_console_detach(console);
    cr_expect_eq(spb_console_fd(console), -1);
    guest = attach(console);
    type(console, 'a', 3, "new", 0, 6);
    expect_typed(guest, "new");
    spb_console_free(console);
    close(guest);
}
