/* Lock bytes of an image file. The locks live with the open file description; no other state. */
#include "device/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/status.h"

static int set_lock(int fd, short type, off_t first)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = first, .l_len = 1};
    int rc;

    do
        rc = fcntl(fd, F_OFD_SETLK, &lock);
    while (rc < 0 && errno == EINTR);
    return rc;
}

/* Would a write lock on the bytes meet another's lock? *pid: its holder, 0 where not told. */
static bool is_held(int fd, off_t first, off_t count, int *pid)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = first, .l_len = count};

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
        return false;
    *pid = lock.l_pid > 0 ? lock.l_pid : 0;
    return true;
}

static bool qemu_holds(int fd, int *pid)
{
    return is_held(fd, SPB_LOCK_USES_WRITE, 1, pid) || is_held(fd, SPB_LOCK_KEEPS_READ, 2, pid);
}

bool spb_lock_holder(int fd, char *words, size_t words_size, int *pid)
{
    int holder = 0;

    if (is_held(fd, SPB_LOCK_OWNER, 1, &holder))
        (void)snprintf(words, words_size, "a spaceblock daemon or command");
    else if (qemu_holds(fd, &holder))
        (void)snprintf(words, words_size, "a running QEMU");
    else
        return false;
    *pid = holder;
    return true;
}

static spb_status fail_locked(int fd, const char *name, struct spb_error *err)
{
    char words[64] = "another process", process[32] = "";
    int pid = 0;

    (void)spb_lock_holder(fd, words, sizeof(words), &pid);
    if (pid != 0)
        (void)snprintf(process, sizeof(process), " (process %d)", pid);
    return spb_fail(err, SPB_LOCKED, "cannot own %s: it is held by %s%s", name, words, process);
}

static spb_status fail_lock_call(const char *name, struct spb_error *err)
{
    return spb_fail_errno(err, SPB_IO, errno, "cannot lock %s", name);
}

static spb_status lock_or_fail(int fd, short type, off_t first, const char *name,
                               struct spb_error *err)
{
    if (set_lock(fd, type, first) == 0)
        return spb_ok();
    if (errno == EAGAIN || errno == EACCES)
        return fail_locked(fd, name, err);
    return fail_lock_call(name, err);
}

/* QEMU locks first and tests then, as we do: of two that start together at least one sees it. */
static spb_status lock_against_qemu(int fd, const char *name, struct spb_error *err)
{
    static const off_t shared[] = {SPB_LOCK_USES_READ, SPB_LOCK_USES_WRITE, SPB_LOCK_KEEPS_WRITE};
    int pid;

    for (size_t i = 0; i < sizeof(shared) / sizeof(shared[0]); i++)
        SPB_TRY(lock_or_fail(fd, F_RDLCK, shared[i], name, err));
    if (qemu_holds(fd, &pid))
        return fail_locked(fd, name, err);
    return spb_ok();
}

static void unlock_against_qemu(int fd)
{
    (void)set_lock(fd, F_UNLCK, SPB_LOCK_USES_WRITE);
    (void)set_lock(fd, F_UNLCK, SPB_LOCK_KEEPS_WRITE);
}

spb_status spb_lock_own_lent(int fd, const char *name, struct spb_error *err)
{
    SPB_TRY(lock_or_fail(fd, F_WRLCK, SPB_LOCK_OWNER, name, err));
    spb_status status = lock_or_fail(fd, F_RDLCK, SPB_LOCK_USES_READ, name, err);
    if (!spb_is_ok(status))
        (void)set_lock(fd, F_UNLCK, SPB_LOCK_OWNER);
    return status;
}

spb_status spb_lock_own(int fd, const char *name, struct spb_error *err)
{
    SPB_TRY(lock_or_fail(fd, F_WRLCK, SPB_LOCK_OWNER, name, err));
    spb_status status = lock_against_qemu(fd, name, err);
    if (!spb_is_ok(status)) {
        unlock_against_qemu(fd);
        (void)set_lock(fd, F_UNLCK, SPB_LOCK_USES_READ);
        (void)set_lock(fd, F_UNLCK, SPB_LOCK_OWNER);
    }
    return status;
}

void spb_lock_give_up(int fd)
{
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    (void)fcntl(fd, F_OFD_SETLK, &all);
}

spb_status spb_lock_lend(int fd, const char *name, struct spb_error *err)
{
    if (set_lock(fd, F_UNLCK, SPB_LOCK_USES_WRITE) < 0 ||
        set_lock(fd, F_UNLCK, SPB_LOCK_KEEPS_WRITE) < 0)
        return fail_lock_call(name, err);
    return spb_ok();
}

spb_status spb_lock_take_back(int fd, const char *name, struct spb_error *err)
{
    spb_status status = lock_against_qemu(fd, name, err);

    if (!spb_is_ok(status))
        unlock_against_qemu(fd);
    return status;
}
