/* cgroups of guests, with real ones where version 2 is mounted. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "supervisor/process/cgroup.h"
#include "unit/folder_kit.h"
#include "unit/process_kit.h"

TestSuite(supervisor_cgroup, .init = folder_make, .fini = folder_remove);

Test(supervisor_cgroup, absent_cgroups_are_said_in_a_line)
{
    struct spb_cgroup cgroup;
    struct spb_error err;
    int fd;

    cr_expect_eq(spb_cgroup_open("/nonexistent", &cgroup, &err).code, SPB_UNSUPPORTED);
    cr_expect_not_null(strstr(err.text, "only rlimits"), "%s", err.text);
    cr_expect_eq(spb_cgroup_open("/tmp", &cgroup, &err).code, SPB_UNSUPPORTED);
    cr_expect_not_null(strstr(err.text, "no cgroup of version 2"), "%s", err.text);
    cr_expect_eq(cgroup.fd, -1);
    struct spb_cgroup_limits limits = spb_cgroup_limits_of(96, 1);
    cr_expect_eq(spb_cgroup_add(&cgroup, "a", &limits, &fd, &err).code, SPB_UNSUPPORTED);
    cr_expect_eq(spb_cgroup_kill(&cgroup, "a", &err).code, SPB_UNSUPPORTED);
    cr_expect_not(spb_cgroup_was_short(&cgroup, "a"));
    cr_expect_geq(limits.memory_bytes, 2 * 160u << 20, "twice of what was measured");
    cr_expect_eq(limits.cpu_percent, 200);
}

/* The folder of version 2 that is mounted here. */
static bool find_cgroup(char *path, size_t size)
{
    static const char *const usual[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

    for (size_t i = 0; i < 2; i++) {
        char file[128];

        snprintf(file, sizeof(file), "%s/cgroup.subtree_control", usual[i]);
        snprintf(path, size, "%s/spb-test-%d", usual[i], getpid());
        if (access(file, W_OK) == 0 && mkdir(path, 0755) == 0)
            return true;
    }
    return false;
}

static void use_leaf(const struct spb_cgroup *cgroup, const struct spb_cgroup_limits *limits)
{
    struct spb_spawn spawn = plain;
    struct spb_error err;
    int none;

    expect_ok(spb_cgroup_add(cgroup, "g1", limits, &spawn.cgroup_fd, &err), &err);
    cr_expect_eq(spb_cgroup_add(cgroup, "g1", limits, &none, &err).code, SPB_EXISTS);
    /* Its own child is in the group too, and ends with it. */
    struct spb_process process = start_script("sleep 1000 & wait", spawn);
    close(spawn.cgroup_fd);
    char path[64], text[4096] = "";
    snprintf(path, sizeof(path), "/proc/%d/cgroup", process.pid);
    int fd = open(path, O_RDONLY);
    cr_assert_gt(read(fd, text, sizeof(text) - 1), 0);
    close(fd);
    cr_expect_not_null(strstr(text, "/guest-g1"), "%s", text);
    cr_expect_eq(spb_cgroup_remove(cgroup, "g1", &err).code, SPB_IN_USE);
    expect_ok(spb_cgroup_kill(cgroup, "g1", &err), &err);
    int status = await_end(&process);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (spb_cgroup_remove(cgroup, "g1", &err).code == SPB_IN_USE)
        sched_yield();
    expect_ok(spb_cgroup_remove(cgroup, "g1", &err), &err);
    cr_expect_eq(spb_cgroup_kill(cgroup, "g1", &err).code, SPB_NOT_FOUND);
}

Test(supervisor_cgroup, a_leaf_holds_a_guest_and_ends_it)
{
    struct spb_cgroup cgroup = SPB_CGROUP_NONE;
    struct spb_cgroup_limits none = {0};

    if (!find_cgroup(cgroup.path, sizeof(cgroup.path)))
        folder_skip("no cgroup version 2 that may be written to");
    /* Opened by hand: its controllers may belong to version 1, as groups alone need none. */
    cgroup.fd = open(cgroup.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    use_leaf(&cgroup, &none);
    spb_cgroup_close(&cgroup);
    cr_expect_eq(rmdir(cgroup.path), 0);
}

/* Whether there are leaves left is seen by their parent's removal. */
Test(supervisor_cgroup, entering_a_leaf_is_proven)
{
    struct spb_cgroup cgroup = SPB_CGROUP_NONE;
    struct spb_error err;

    if (!find_cgroup(cgroup.path, sizeof(cgroup.path)))
        folder_skip("no cgroup version 2 that may be written to");
    cgroup.fd = open(cgroup.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    expect_ok(spb_cgroup_prove(&cgroup, &err), &err);
    cr_expect_eq(mkdirat(cgroup.fd, "guest-proof", 0755), 0);
    expect_ok(spb_cgroup_prove(&cgroup, &err), &err);
    spb_cgroup_close(&cgroup);
    cr_expect_eq(rmdir(cgroup.path), 0);
}

static void enter(const char *group, const char *subgroup)
{
    char path[SPB_CGROUP_PATH_SIZE + 64];

    snprintf(path, sizeof(path), "%s/%s/cgroup.procs", group, subgroup);
    int fd = open(path, O_WRONLY);
    cr_assert_eq(write(fd, "0", 1), 1, "%s", path);
    close(fd);
}

static spb_status prove_as_nobody(const struct spb_cgroup *cgroup, struct spb_error *err)
{
    cr_assert_eq(seteuid(65534), 0);
    spb_status status = spb_cgroup_prove(cgroup, err);
    cr_assert_eq(seteuid(0), 0);
    return status;
}

/* A group of one's own, in which one may make leaves, beneath one that is another's. */
Test(supervisor_cgroup, leaf_that_may_not_be_entered)
{
    struct spb_cgroup cgroup = SPB_CGROUP_NONE;
    char procs[SPB_CGROUP_PATH_SIZE + 16];
    struct spb_error err;

    if (getuid() != 0 || !find_cgroup(cgroup.path, sizeof(cgroup.path)))
        folder_skip("no cgroup version 2 that may be written to by root");
    snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroup.path);
    cr_assert_eq(chown(cgroup.path, 65534, 65534), 0);
    cr_assert_eq(chown(procs, 65534, 65534), 0);
    cgroup.fd = open(cgroup.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_expect_eq(prove_as_nobody(&cgroup, &err).code, SPB_UNSUPPORTED);
    cr_expect_not_null(strstr(err.text, "cannot enter"), "%s", err.text);
    /* From a group beside the leaves the nearest above both is one's own. */
    cr_assert_eq(mkdirat(cgroup.fd, "daemon", 0755), 0);
    enter(cgroup.path, "daemon");
    expect_ok(prove_as_nobody(&cgroup, &err), &err);
    enter(cgroup.path, "..");
    cr_expect_eq(unlinkat(cgroup.fd, "daemon", AT_REMOVEDIR), 0);
    spb_cgroup_close(&cgroup);
    cr_expect_eq(rmdir(cgroup.path), 0);
}

Test(supervisor_cgroup, a_leaf_has_its_limits)
{
    struct spb_cgroup cgroup = SPB_CGROUP_NONE;
    struct spb_cgroup_limits limits = spb_cgroup_limits_of(96, 2);
    char path[SPB_CGROUP_PATH_SIZE];
    struct spb_error err;

    if (!find_cgroup(path, sizeof(path)))
        folder_skip("no cgroup version 2 that may be written to");
    if (!spb_is_ok(spb_cgroup_open(path, &cgroup, &err))) {
        rmdir(path);
        folder_skip("the cgroup has not all controllers");
    }
    use_leaf(&cgroup, &limits);
    /* A process that takes more than it may is ended, and one can tell why. */
    limits = (struct spb_cgroup_limits){.memory_bytes = 16u << 20};
    struct spb_spawn spawn = plain;
    expect_ok(spb_cgroup_add(&cgroup, "g2", &limits, &spawn.cgroup_fd, &err), &err);
    cr_expect_not(spb_cgroup_was_short(&cgroup, "g2"));
    struct spb_process process =
        start_script("x=$(head -c 100000000 /dev/zero | tr '\\0' x); exit 0", spawn);
    close(spawn.cgroup_fd);
    int status = await_end(&process);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    cr_expect(spb_cgroup_was_short(&cgroup, "g2"));
    while (spb_cgroup_remove(&cgroup, "g2", &err).code == SPB_IN_USE)
        sched_yield();
    spb_cgroup_close(&cgroup);
    cr_expect_eq(rmdir(path), 0);
}

/* Moves this process, and no other, into a group. */
static bool move_to(const char *path)
{
    char file[SPB_CGROUP_PATH_SIZE + 32];

    snprintf(file, sizeof(file), "%s/cgroup.procs", path);
    int fd = open(file, O_WRONLY);
    bool has_moved = fd >= 0 && write(fd, "0", 1) == 1;
    if (fd >= 0)
        close(fd);
    return has_moved;
}

Test(supervisor_cgroup, a_daemon_in_a_subgroup_finds_the_delegated_one)
{
    char path[SPB_CGROUP_PATH_SIZE], daemon[SPB_CGROUP_PATH_SIZE + 16], above[64];
    struct spb_cgroup cgroup;
    struct spb_error err = {.text = ""};

    if (!find_cgroup(path, sizeof(path)))
        folder_skip("no cgroup version 2 that may be written to");
    cr_expect_eq(spb_cgroup_open(NULL, &cgroup, &err).code, SPB_UNSUPPORTED);
    cr_expect_not_null(strstr(err.text, "DelegateSubgroup"), "%s", err.text);
    snprintf(daemon, sizeof(daemon), "%s/daemon", path);
    snprintf(above, sizeof(above), "%.*s", (int)(strrchr(path, '/') - path), path);
    cr_assert_eq(mkdir(daemon, 0755), 0);
    cr_assert(move_to(daemon));
    bool is_open = spb_is_ok(spb_cgroup_open(NULL, &cgroup, &err));
    cr_assert(move_to(above));
    /* Where a controller is missing, that is said of the group that was found. */
    cr_expect_not_null(strstr(is_open ? cgroup.path : err.text, path), "%s", err.text);
    if (is_open)
        spb_cgroup_close(&cgroup);
    cr_expect_eq(rmdir(daemon), 0);
    cr_expect_eq(rmdir(path), 0);
}
