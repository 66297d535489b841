/* What the audit does to a WAL that another process left, before it builds on it. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/audit_kit.h"

#define PAGE 4096
#define PAGES_MAX 64 /* more than the WAL has here */

/* This process's writes, SQLite's among them, to a WAL and to its database. */
static struct {
    bool is_on, fails; /* flushes of the WAL fail */
    uint8_t written[PAGES_MAX];
    uint8_t flushed[PAGES_MAX];
    unsigned copied;                     /* writes to the database */
    uint8_t flushed_at_first[PAGES_MAX]; /* when the first of them came */
} seen;

static bool is_of(int fd, const char *suffix)
{
    char link[64], path[512];

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (!seen.is_on || n < (ssize_t)strlen(suffix))
        return false;
    path[n] = '\0';
    return strcmp(path + n - strlen(suffix), suffix) == 0;
}

static void *find_real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    cr_assert(found != NULL, "%s", name);
    return found;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    void *found = find_real("pwrite64");

    memcpy(&real, &found, sizeof real);
    if (is_of(fd, ".db-wal")) {
        for (off64_t page = at / PAGE; page * PAGE < at + (off64_t)n && page < PAGES_MAX; page++)
            seen.written[page] = 1;
    } else if (is_of(fd, ".db")) {
        if (seen.copied++ == 0)
            memcpy(seen.flushed_at_first, seen.flushed, sizeof seen.flushed);
    }
    return real(fd, data, n, at);
}

int fdatasync(int fd)
{
    if (is_of(fd, ".db-wal")) {
        if (seen.fails) {
            errno = EIO;
            return -1;
        }
        for (size_t i = 0; i < PAGES_MAX; i++)
            seen.flushed[i] |= seen.written[i];
        memset(seen.written, 0, sizeof seen.written);
    }
    return fsync(fd);
}

static struct audit_kit kit;
static size_t wal_pages;

/* A process that had committed something, and is no more. */
static void leave_wal(void)
{
    pid_t child = fork();
    int status;

    cr_assert(child >= 0);
    if (child == 0) {
        struct spb_intent intents[1];
        struct spb_intent_group group = audit_group(intents, 1, 1, "img", 1);
        struct spb_open_group *open;

        audit_kit_open(&kit);
        _exit(spb_is_ok(spb_audit_begin(kit.audit, &group, &open, NULL)) ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
}

static void set_up(void)
{
    char wal[128];
    struct stat st;

    audit_kit_init(&kit);
    spb_audit_close(kit.audit);
    kit.audit = NULL;
    kit.options.wal_bytes = 65536;
    leave_wal();
    (void)snprintf(wal, sizeof wal, "%s-wal", kit.path);
    cr_assert_eq(stat(wal, &st), 0);
    wal_pages = ((size_t)st.st_size + PAGE - 1) / PAGE;
    cr_assert(wal_pages > 0 && wal_pages <= PAGES_MAX);
    seen.is_on = true;
}

static void tear_down(void)
{
    seen.is_on = false;
    audit_kit_done(&kit);
}

TestSuite(audit_rewrite, .init = set_up, .fini = tear_down);

static void check_order(void)
{
    cr_assert(seen.copied > 0);
    for (size_t i = 0; i < wal_pages; i++)
        cr_assert(seen.flushed_at_first[i], "page %zu of the WAL was not written and flushed", i);
    cr_assert_eq(audit_number(&kit, "SELECT count(*) FROM groups"), 1);
}

/* The medium may have nothing of what is read there. */
Test(audit_rewrite, wal_is_rewritten_and_flushed_before_it_is_copied)
{
    audit_kit_open(&kit);
    check_order();
}

Test(audit_rewrite, also_while_another_has_the_database_open)
{
    sqlite3 *other = NULL;

    cr_assert_eq(sqlite3_open_v2(kit.path, &other, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(other, "SELECT count(*) FROM groups", NULL, NULL, NULL), SQLITE_OK);
    cr_assert_eq(seen.copied, 0);
    audit_kit_open(&kit);
    check_order();
    cr_assert_eq(sqlite3_close(other), SQLITE_OK);
}

Test(audit_rewrite, nothing_is_copied_where_that_flush_fails)
{
    seen.fails = true;
    AUDIT_FAILS(SPB_IO, spb_audit_open(&kit.options, &kit.audit, &kit.err));
    cr_assert(strstr(kit.err.text, "flushing the WAL") != NULL, "%s", kit.err.text);
    cr_assert_eq(seen.copied, 0);
    seen.fails = false;
    audit_kit_open(&kit);
    check_order();
}
