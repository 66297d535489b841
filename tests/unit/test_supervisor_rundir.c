/* Run directories: made fresh, with paths short enough, and removed without touching others' files.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/status.h"
#include "supervisor/process/rundir.h"
#include "unit/folder_kit.h"

TestSuite(supervisor_rundir, .init = folder_make, .fini = folder_remove);

static void expect_ok(spb_status status, const struct spb_error *err)
{
    cr_assert(spb_is_ok(status), "%s", err->text);
}

static spb_status take_name(void *user, const char *name, struct spb_error *err)
{
    char *names = user;

    (void)err;
    cr_assert_lt(strlen(names) + strlen(name), 60);
    memcpy(names + strlen(names), name, strlen(name) + 1);
    return spb_ok();
}

Test(supervisor_rundir, is_made_fresh_listed_and_removed)
{
    struct spb_rundir dir = SPB_RUNDIR_NONE, again = SPB_RUNDIR_NONE;
    char names[256] = "", path[SPB_SOCKET_PATH_SIZE];
    struct spb_error err;
    struct stat st;

    expect_ok(spb_rundir_make(folder, "a-1_B", &dir, &err), &err);
    cr_assert_eq(fstat(dir.fd, &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0700);
    cr_expect_eq(fcntl(dir.fd, F_GETFD), FD_CLOEXEC);
    cr_expect_eq(spb_rundir_make(folder, "a-1_B", &again, &err).code, SPB_EXISTS);
    expect_ok(spb_rundir_open(folder, "a-1_B", &again, &err), &err);
    spb_rundir_path(&again, SPB_RUNDIR_MONITOR, path);
    cr_expect_eq(strcmp(path + strlen(folder), "/a-1_B/q"), 0);
    expect_ok(spb_rundir_list(folder, take_name, names, &err), &err);
    cr_expect_str_eq(names, "a-1_B");
    cr_assert_eq(mkfifoat(dir.fd, SPB_RUNDIR_WORDS, 0600), 0);
    cr_assert_eq(symlinkat("/etc/passwd", dir.fd, SPB_RUNDIR_PIDFILE), 0);
    expect_ok(spb_rundir_remove(folder, "a-1_B", &err), &err);
    expect_ok(spb_rundir_remove(folder, "a-1_B", &err), &err);
    cr_expect_eq(spb_rundir_open(folder, "a-1_B", &again, &err).code, SPB_NOT_FOUND);
    spb_rundir_close(&dir);
    spb_rundir_close(&again);
    spb_rundir_close(&again);
}

Test(supervisor_rundir, names_and_long_paths_are_refused)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "a.b", "a b", "\xc3\xa4"};
    struct spb_rundir dir = SPB_RUNDIR_NONE;
    char name[SPB_RUNDIR_NAME_MAX + 2];
    struct spb_error err;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(spb_rundir_make(folder, bad[i], &dir, &err).code, SPB_INVALID);
        cr_expect_eq(spb_rundir_remove(folder, bad[i], &err).code, SPB_INVALID);
    }
    cr_expect_eq(spb_rundir_make("relative", "a", &dir, &err).code, SPB_INVALID);
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    cr_expect_eq(spb_rundir_make(folder, name, &dir, &err).code, SPB_INVALID);
    /* The last that fits, and the first that does not. */
    char base[128];
    snprintf(base, sizeof(base), "%s/%0*d", folder, (int)(107 - strlen(folder) - 5), 0);
    cr_assert_eq(mkdir(base, 0700), 0);
    cr_expect_eq(spb_rundir_make(base, "ab", &dir, &err).code, SPB_LIMIT);
    cr_expect_not_null(strstr(err.text, "108 bytes"), "%s", err.text);
    expect_ok(spb_rundir_make(base, "a", &dir, &err), &err);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    spb_rundir_path(&dir, SPB_RUNDIR_CONSOLE, address.sun_path);
    cr_expect_eq(strlen(address.sun_path), 107);
    cr_expect_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    expect_ok(spb_rundir_remove(base, "a", &err), &err);
    spb_rundir_close(&dir);
}

Test(supervisor_rundir, what_is_not_ours_stays)
{
    struct spb_rundir dir = SPB_RUNDIR_NONE;
    char path[128], other[128];
    struct spb_error err;

    expect_ok(spb_rundir_make(folder, "a", &dir, &err), &err);
    cr_assert_eq(mkdirat(dir.fd, "notes", 0700), 0);
    cr_expect_eq(spb_rundir_remove(folder, "a", &err).code, SPB_IN_USE);
    cr_expect_not_null(strstr(err.text, "notes"), "%s", err.text);
    cr_assert_eq(unlinkat(dir.fd, "notes", AT_REMOVEDIR), 0);
    cr_assert_eq(mkdirat(dir.fd, "q", 0700), 0);
    cr_expect_eq(spb_rundir_remove(folder, "a", &err).code, SPB_IN_USE);
    cr_assert_eq(unlinkat(dir.fd, "q", AT_REMOVEDIR), 0);
    /* A link to somebody's folder, with a file of a known name in it. */
    snprintf(path, sizeof(path), "%s/link", folder);
    cr_assert_eq(symlink("a", path), 0);
    snprintf(other, sizeof(other), "%s/a/q", folder);
    int fd = open(other, O_WRONLY | O_CREAT, 0600);
    close(fd);
    cr_expect_eq(spb_rundir_remove(folder, "link", &err).code, SPB_CORRUPT);
    struct spb_rundir again = SPB_RUNDIR_NONE;
    cr_expect_eq(spb_rundir_open(folder, "link", &again, &err).code, SPB_CORRUPT);
    cr_expect_eq(access(other, F_OK), 0);
    char names[64] = "";
    expect_ok(spb_rundir_list(folder, take_name, names, &err), &err);
    cr_expect_str_eq(names, "a", "links are not listed");
    cr_assert_eq(fchmod(dir.fd, 0755), 0);
    cr_expect_eq(spb_rundir_open(folder, "a", &again, &err).code, SPB_CORRUPT, "others may write");
    spb_rundir_close(&dir);
}

Test(supervisor_rundir, connects_without_blocking)
{
    struct spb_rundir dir = SPB_RUNDIR_NONE;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct spb_error err;
    int fd = -1;

    expect_ok(spb_rundir_make(folder, "run", &dir, &err), &err);
    cr_expect_eq(spb_rundir_connect(&dir, "q", &fd, &err).code, SPB_NOT_FOUND);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    spb_rundir_path(&dir, "q", address.sun_path);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_expect_eq(spb_rundir_connect(&dir, "q", &fd, &err).code, SPB_UNREACHABLE);
    cr_assert_eq(listen(listener, 0), 0);
    expect_ok(spb_rundir_connect(&dir, "q", &fd, &err), &err);
    cr_expect_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    cr_expect_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    int second = -1;
    cr_expect_eq(spb_rundir_connect(&dir, "q", &second, &err).code, SPB_AGAIN, "%s", err.text);
    close(fd);
    close(listener);
    spb_rundir_close(&dir);
}
