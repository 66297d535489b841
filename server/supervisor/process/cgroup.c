/* cgroups of guests; see cgroup.h. */
#include "supervisor/process/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "supervisor/process/rundir.h"

#define MIB (UINT64_C(1) << 20)
/* A leaf's folder, so that no guest's name is that of another group. */
#define PREFIX "guest-"
#define LEAF_SIZE (sizeof(PREFIX) + SPB_RUNDIR_NAME_MAX)
#define CPU_PERIOD_US 100000u

/* What QEMU takes beside its guest's memory: 160 MB in all were measured of a guest of 96 MiB under
 * TCG. Much more is allowed, since a guest that is killed for QEMU's needs is worse than a host
 * that gives some. */
#define OVERHEAD_MIB 256u
#define OVERHEAD_CPU_MIB 32u
#define OVERHEAD_PART 8u /* of the guest's memory, for tables about it */
#define PROOF "proof"    /* no guest's run has that name */
#define REMOVE_TRIES 10000
/* Threads of QEMU that are no processors: its main loop, and workers of disks, at most 64 each. */
#define OVERHEAD_THREADS 256u

struct spb_cgroup_limits spb_cgroup_limits_of(uint32_t memory_mib, uint32_t cpus)
{
    uint64_t mib =
        memory_mib + memory_mib / OVERHEAD_PART + OVERHEAD_MIB + (uint64_t)cpus * OVERHEAD_CPU_MIB;

    return (struct spb_cgroup_limits){
        .memory_bytes = mib * MIB,
        .cpu_percent = 100 * (cpus + 1), /* one for what is not the guest's processors */
        .pids = cpus + OVERHEAD_THREADS,
    };
}

/* ---- Files -------------------------------------------------------------------------------- */

/* 0, or -1 and errno. */
static int write_file(int folder, const char *name, const char *text)
{
    int fd = openat(folder, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return -1;
    ssize_t wrote = write(fd, text, strlen(text));
    int number = errno;
    (void)close(fd);
    errno = number;
    return wrote == (ssize_t)strlen(text) ? 0 : -1;
}

/* A whole small file, or the beginning of a big one. Bytes, or -1 and errno. */
static ssize_t read_file(int folder, const char *name, char *text, size_t size)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    size_t used = 0;

    if (fd < 0)
        return -1;
    while (used < size - 1) {
        ssize_t got = read(fd, text + used, size - 1 - used);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    (void)close(fd);
    text[used] = '\0';
    return (ssize_t)used;
}

/* ---- The subtree -------------------------------------------------------------------------- */

static spb_status fail_absent(struct spb_error *err, const char *why)
{
    return spb_fail(err, SPB_UNSUPPORTED, "guests have no cgroups of their own, only rlimits: %s",
                    why);
}

/* Where version 2 is mounted: the fifth field of proc(5)'s mountinfo, of a line whose type is
 * cgroup2 and whose root (the fourth) is that of our namespace. */
static bool find_mount(char mount[SPB_CGROUP_PATH_SIZE])
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t room = 0;
    bool is_found = false;

    if (file == NULL)
        return false;
    while (!is_found && getline(&line, &room, file) > 0) {
        char root[SPB_CGROUP_PATH_SIZE];

        is_found = strstr(line, " - cgroup2 ") != NULL &&
                   sscanf(line, "%*s %*s %*s %511s %511s", root, mount) == 2 &&
                   strcmp(root, "/") == 0;
    }
    free(line);
    (void)fclose(file);
    return is_found;
}

/* Our own group: the line "0::PATH". */
static bool find_own(char own[SPB_CGROUP_PATH_SIZE])
{
    char text[4096];

    if (read_file(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text)) < 0)
        return false;
    const char *at = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    return at != NULL && sscanf(at + (*at == '\n'), "0::%511s", own) == 1;
}

static spb_status find_subtree(char path[SPB_CGROUP_PATH_SIZE], struct spb_error *err)
{
    char mount[SPB_CGROUP_PATH_SIZE], own[SPB_CGROUP_PATH_SIZE];

    if (!find_mount(mount))
        return fail_absent(err, "no cgroup version 2 is mounted");
    if (!find_own(own))
        return fail_absent(err, "the daemon is in no cgroup of version 2");
    char *last = strrchr(own, '/');
    if (last == NULL || strcmp(last + 1, SPB_CGROUP_SUBGROUP) != 0)
        return fail_absent(err, "the daemon is not in a subgroup \"" SPB_CGROUP_SUBGROUP
                                "\" of a delegated one (systemd: Delegate=yes and "
                                "DelegateSubgroup=" SPB_CGROUP_SUBGROUP ")");
    *last = '\0';
    int size = snprintf(path, SPB_CGROUP_PATH_SIZE, "%s%s", mount, own);
    if (size < 0 || (size_t)size >= SPB_CGROUP_PATH_SIZE)
        return fail_absent(err, "the path of the delegated group is too long");
    return spb_ok();
}

static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = strstr(words, word); at != NULL; at = strstr(at + 1, word)) {
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\n' || at[n] == '\0'))
            return true;
    }
    return false;
}

static spb_status enable(const struct spb_cgroup *cgroup, struct spb_error *err)
{
    static const char *const controllers[] = {"memory", "cpu", "pids"};
    char found[1024], text[128];

    if (read_file(cgroup->fd, "cgroup.controllers", found, sizeof(found)) < 0)
        return spb_fail_errno(err, SPB_UNSUPPORTED, errno,
                              "guests have only rlimits: cannot read cgroup.controllers of %s",
                              cgroup->path);
    for (size_t i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++) {
        if (!has_word(found, controllers[i]))
            return spb_fail(err, SPB_UNSUPPORTED,
                            "guests have only rlimits: the cgroup %s lacks the controller %s",
                            cgroup->path, controllers[i]);
    }
    (void)snprintf(text, sizeof(text), "+memory +cpu +pids");
    if (write_file(cgroup->fd, "cgroup.subtree_control", text) < 0)
        return spb_fail_errno(err, SPB_UNSUPPORTED, errno,
                              "guests have only rlimits: the cgroup %s does not let its "
                              "controllers be enabled",
                              cgroup->path);
    return spb_ok();
}

static spb_status open_subtree(struct spb_cgroup *cgroup, struct spb_error *err)
{
    struct statfs fs;

    cgroup->fd = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cgroup->fd < 0)
        return spb_fail_errno(err, SPB_UNSUPPORTED, errno,
                              "guests have only rlimits: cannot open the cgroup %s", cgroup->path);
    if (fstatfs(cgroup->fd, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
        return spb_fail(err, SPB_UNSUPPORTED,
                        "guests have only rlimits: %s is no cgroup of version 2", cgroup->path);
    return enable(cgroup, err);
}

spb_status spb_cgroup_open(const char *path, struct spb_cgroup *cgroup, struct spb_error *err)
{
    struct spb_cgroup found = SPB_CGROUP_NONE;

    *cgroup = SPB_CGROUP_NONE;
    if (path == NULL)
        SPB_TRY(find_subtree(found.path, err));
    else if (strlen(path) >= sizeof(found.path))
        return fail_absent(err, "the path that was given is too long");
    else
        memcpy(found.path, path, strlen(path) + 1);
    spb_status status = open_subtree(&found, err);
    if (spb_is_ok(status))
        status = spb_cgroup_prove(&found, err);
    if (spb_is_ok(status))
        *cgroup = found;
    else
        spb_cgroup_close(&found);
    return status;
}

void spb_cgroup_close(struct spb_cgroup *cgroup)
{
    if (cgroup->fd >= 0)
        (void)close(cgroup->fd);
    cgroup->fd = -1;
}

/* ---- Leaves ------------------------------------------------------------------------------- */

static spb_status name_leaf(const struct spb_cgroup *cgroup, const char *name, char leaf[LEAF_SIZE],
                            struct spb_error *err)
{
    if (cgroup->fd < 0)
        return spb_fail(err, SPB_UNSUPPORTED, "there are no cgroups for guests");
    if (!spb_rundir_is_name(name))
        return spb_fail(err, SPB_INVALID, "cgroup: expected a name of 1 to %u of A-Z a-z 0-9 - _",
                        SPB_RUNDIR_NAME_MAX);
    (void)snprintf(leaf, LEAF_SIZE, PREFIX "%s", name);
    return spb_ok();
}

/* leaf/file in the subtree. */
static int write_leaf(const struct spb_cgroup *cgroup, const char *leaf, const char *file,
                      const char *text)
{
    char path[LEAF_SIZE + 64];

    (void)snprintf(path, sizeof(path), "%s/%s", leaf, file);
    return write_file(cgroup->fd, path, text);
}

static spb_status fail_leaf(const struct spb_cgroup *cgroup, const char *leaf, const char *what,
                            struct spb_error *err)
{
    enum spb_code code = errno == ENOENT ? SPB_NOT_FOUND : SPB_IO;

    return spb_fail_errno(err, code, errno, "cannot %s of the cgroup %s/%s", what, cgroup->path,
                          leaf);
}

static spb_status limit(const struct spb_cgroup *cgroup, const char *leaf,
                        const struct spb_cgroup_limits *limits, struct spb_error *err)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "%" PRIu64, limits->memory_bytes);
    if (limits->memory_bytes > 0 && (write_leaf(cgroup, leaf, "memory.max", text) < 0 ||
                                     write_leaf(cgroup, leaf, "memory.oom.group", "1") < 0))
        return fail_leaf(cgroup, leaf, "set the memory limit", err);
    (void)snprintf(text, sizeof(text), "%" PRIu64 " %u",
                   (uint64_t)limits->cpu_percent * CPU_PERIOD_US / 100, CPU_PERIOD_US);
    if (limits->cpu_percent > 0 && write_leaf(cgroup, leaf, "cpu.max", text) < 0)
        return fail_leaf(cgroup, leaf, "set the processor limit", err);
    (void)snprintf(text, sizeof(text), "%u", limits->pids);
    if (limits->pids > 0 && write_leaf(cgroup, leaf, "pids.max", text) < 0)
        return fail_leaf(cgroup, leaf, "set the limit of threads", err);
    return spb_ok();
}

static spb_status open_procs(const struct spb_cgroup *cgroup, const char *leaf, int *procs_fd,
                             struct spb_error *err)
{
    char path[LEAF_SIZE + 64];

    (void)snprintf(path, sizeof(path), "%s/cgroup.procs", leaf);
    int fd = openat(cgroup->fd, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_leaf(cgroup, leaf, "open cgroup.procs", err);
    *procs_fd = fd;
    return spb_ok();
}

spb_status spb_cgroup_add(const struct spb_cgroup *cgroup, const char *name,
                          const struct spb_cgroup_limits *limits, int *procs_fd,
                          struct spb_error *err)
{
    char leaf[LEAF_SIZE];

    SPB_TRY(name_leaf(cgroup, name, leaf, err));
    if (mkdirat(cgroup->fd, leaf, 0755) < 0)
        return spb_fail_errno(err, errno == EEXIST ? SPB_EXISTS : SPB_IO, errno,
                              "cannot make the cgroup %s/%s", cgroup->path, leaf);
    spb_status status = limit(cgroup, leaf, limits, err);
    if (spb_is_ok(status))
        status = open_procs(cgroup, leaf, procs_fd, err);
    if (!spb_is_ok(status))
        (void)unlinkat(cgroup->fd, leaf, AT_REMOVEDIR);
    return status;
}

spb_status spb_cgroup_kill(const struct spb_cgroup *cgroup, const char *name, struct spb_error *err)
{
    char leaf[LEAF_SIZE];

    SPB_TRY(name_leaf(cgroup, name, leaf, err));
    if (write_leaf(cgroup, leaf, "cgroup.kill", "1") < 0)
        return fail_leaf(cgroup, leaf, "kill the processes", err);
    return spb_ok();
}

bool spb_cgroup_was_short(const struct spb_cgroup *cgroup, const char *name)
{
    char leaf[LEAF_SIZE], path[LEAF_SIZE + 64], text[1024];

    if (!spb_is_ok(name_leaf(cgroup, name, leaf, NULL)))
        return false;
    (void)snprintf(path, sizeof(path), "%s/memory.events", leaf);
    if (read_file(cgroup->fd, path, text, sizeof(text)) < 0)
        return false;
    const char *at = strstr(text, "oom_kill ");
    return at != NULL && strtoull(at + strlen("oom_kill "), NULL, 10) > 0;
}

spb_status spb_cgroup_remove(const struct spb_cgroup *cgroup, const char *name,
                             struct spb_error *err)
{
    char leaf[LEAF_SIZE];

    SPB_TRY(name_leaf(cgroup, name, leaf, err));
    if (unlinkat(cgroup->fd, leaf, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return spb_ok();
    return spb_fail_errno(err, errno == EBUSY ? SPB_IN_USE : SPB_IO, errno,
                          "cannot remove the cgroup %s/%s", cgroup->path, leaf);
}

/* ---- The proof ---------------------------------------------------------------------------- */

/* What a process gets when it enters a leaf: 0, or an errno. The child calls what is safe after a
 * fork alone, and no handler of ours runs in it. */
static int enter_and_end(int procs_fd)
{
    sigset_t all, before;
    int status = 0;
    pid_t ended;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = _Fork();
    if (pid == 0)
        _exit(write(procs_fd, "0", 1) == 1 ? 0 : errno);
    int number = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return number;
    do
        ended = waitpid(pid, &status, 0);
    while (ended < 0 && errno == EINTR);
    return ended == pid && WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
}

/* What has ended may be on its way out of it still. One that stays harms nobody. */
static void remove_proof(const struct spb_cgroup *cgroup)
{
    struct spb_error err;

    for (int i = 0; i < REMOVE_TRIES; i++) {
        if (spb_cgroup_remove(cgroup, PROOF, &err).code != SPB_IN_USE)
            return;
        (void)sched_yield();
    }
}

spb_status spb_cgroup_prove(const struct spb_cgroup *cgroup, struct spb_error *err)
{
    struct spb_cgroup_limits none = {0};
    struct spb_error why;
    int procs_fd = -1;

    remove_proof(cgroup); /* of a daemon that was killed here */
    if (!spb_is_ok(spb_cgroup_add(cgroup, PROOF, &none, &procs_fd, &why)))
        return spb_fail(err, SPB_UNSUPPORTED, "guests have only rlimits: %.400s", why.text);
    int number = enter_and_end(procs_fd);
    (void)close(procs_fd);
    remove_proof(cgroup);
    if (number == 0)
        return spb_ok();
    return spb_fail_errno(err, SPB_UNSUPPORTED, number,
                          "guests have only rlimits: a process of this user cannot enter groups in "
                          "the cgroup %s, which takes write permission on cgroup.procs of the "
                          "nearest group above both it and the daemon",
                          cgroup->path);
}
