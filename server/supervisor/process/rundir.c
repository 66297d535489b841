/* The folder of one run of a guest; see rundir.h. */
#include "supervisor/process/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/status.h"

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == SPB_SOCKET_PATH_SIZE,
               "a socket's path");

static const char *const known_files[] = {SPB_RUNDIR_CONSOLE, SPB_RUNDIR_MONITOR, SPB_RUNDIR_LINK,
                                          SPB_RUNDIR_PIDFILE, SPB_RUNDIR_WORDS};

bool spb_rundir_is_name(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n <= SPB_RUNDIR_NAME_MAX &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == n;
}

static spb_status check_name(const char *name, struct spb_error *err)
{
    if (spb_rundir_is_name(name))
        return spb_ok();
    return spb_fail(err, SPB_INVALID,
                    "run directory: expected a name of 1 to %u of A-Z a-z 0-9 - _",
                    SPB_RUNDIR_NAME_MAX);
}

/* base/name, with room for "/x" and the end. */
static spb_status join(const char *base, const char *name, char path[SPB_SOCKET_PATH_SIZE],
                       struct spb_error *err)
{
    SPB_TRY(check_name(name, err));
    if (*base != '/')
        return spb_fail(err, SPB_INVALID, "run directory: found %s, expected an absolute path",
                        base);
    int size = snprintf(path, SPB_SOCKET_PATH_SIZE, "%s/%s", base, name);
    if (size < 0 || (size_t)size + 2 >= SPB_SOCKET_PATH_SIZE)
        return spb_fail(err, SPB_LIMIT,
                        "run directory %s/%s: a socket's path in it would be of %d bytes, the "
                        "kernel takes %u: choose a shorter one",
                        base, name, size + 2, SPB_SOCKET_PATH_SIZE - 1);
    return spb_ok();
}

static int open_folder(int at, const char *path)
{
    return openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static spb_status open_base(const char *base, int *fd, struct spb_error *err)
{
    int found = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (found < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot open %s, the folder of run directories",
                              base);
    *fd = found;
    return spb_ok();
}

static spb_status fail_open(const char *name, int number, struct spb_error *err)
{
    if (number == ENOENT)
        return spb_fail(err, SPB_NOT_FOUND, "there is no run directory %s", name);
    if (number == ELOOP || number == ENOTDIR)
        return spb_fail(err, SPB_CORRUPT, "%s is no run directory: it is no folder", name);
    return spb_fail_errno(err, SPB_IO, number, "cannot open the run directory %s", name);
}

spb_status spb_rundir_make(const char *base, const char *name, struct spb_rundir *dir,
                           struct spb_error *err)
{
    struct spb_rundir made;
    int base_fd = -1;

    SPB_TRY(join(base, name, made.path, err));
    SPB_TRY(open_base(base, &base_fd, err));
    int rc = mkdirat(base_fd, name, 0700), number = errno;
    made.fd = rc < 0 ? -1 : open_folder(base_fd, name);
    int open_number = errno;
    (void)close(base_fd);
    if (rc < 0 && number == EEXIST)
        return spb_fail(err, SPB_EXISTS, "the run directory %s is there already", made.path);
    if (rc < 0)
        return spb_fail_errno(err, spb_code_of_errno(number), number,
                              "cannot make the run directory %s", made.path);
    if (made.fd < 0)
        return fail_open(name, open_number, err);
    *dir = made;
    return spb_ok();
}

spb_status spb_rundir_open(const char *base, const char *name, struct spb_rundir *dir,
                           struct spb_error *err)
{
    struct spb_rundir found;
    struct stat st;

    SPB_TRY(join(base, name, found.path, err));
    found.fd = open_folder(AT_FDCWD, found.path);
    if (found.fd < 0)
        return fail_open(name, errno, err);
    if (fstat(found.fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 0077) != 0) {
        (void)close(found.fd);
        return spb_fail(err, SPB_CORRUPT,
                        "%s is no run directory of ours: expected mode 0700 and user %u",
                        found.path, (unsigned)geteuid());
    }
    *dir = found;
    return spb_ok();
}

void spb_rundir_close(struct spb_rundir *dir)
{
    if (dir->fd >= 0)
        (void)close(dir->fd);
    dir->fd = -1;
}

void spb_rundir_path(const struct spb_rundir *dir, const char *file,
                     char path[SPB_SOCKET_PATH_SIZE])
{
    int size = snprintf(path, SPB_SOCKET_PATH_SIZE, "%s/%s", dir->path, file);

    SPB_ASSERT(size > 0 && (size_t)size < SPB_SOCKET_PATH_SIZE);
}

/* ---- Removing and listing ----------------------------------------------------------------- */

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static spb_status fail_left(int fd, const char *name, int number, struct spb_error *err)
{
    DIR *folder = fdopendir(fd);
    const struct dirent *entry = NULL;

    if (folder == NULL) {
        (void)close(fd);
        return spb_fail_errno(err, SPB_IO, number, "cannot remove the run directory %s", name);
    }
    do
        entry = readdir(folder);
    while (entry != NULL && is_dots(entry->d_name));
    spb_status status = spb_fail_errno(
        err, entry == NULL ? SPB_IO : SPB_IN_USE, number, "cannot remove the run directory %s%s%s",
        name, entry == NULL ? "" : ": it holds ", entry == NULL ? "" : entry->d_name);
    (void)closedir(folder);
    return status;
}

/* fd, of the folder, is taken. */
static spb_status remove_open(int base_fd, int fd, const char *name, struct spb_error *err)
{
    for (size_t i = 0; i < sizeof(known_files) / sizeof(known_files[0]); i++)
        (void)unlinkat(fd, known_files[i], 0); /* what stays shows below */
    if (unlinkat(base_fd, name, AT_REMOVEDIR) < 0)
        return fail_left(fd, name, errno, err);
    (void)close(fd);
    return spb_ok();
}

spb_status spb_rundir_remove(const char *base, const char *name, struct spb_error *err)
{
    spb_status status = spb_ok();
    int base_fd = -1;

    SPB_TRY(check_name(name, err));
    SPB_TRY(open_base(base, &base_fd, err));
    int fd = open_folder(base_fd, name);
    if (fd >= 0)
        status = remove_open(base_fd, fd, name, err);
    else if (errno != ENOENT)
        status = fail_open(name, errno, err);
    (void)close(base_fd);
    return status;
}

spb_status spb_rundir_list(const char *base, spb_rundir_found found, void *user,
                           struct spb_error *err)
{
    DIR *folder = opendir(base);
    spb_status status = spb_ok();
    struct stat st;

    if (folder == NULL)
        return spb_fail_errno(err, SPB_IO, errno, "cannot list %s, the folder of run directories",
                              base);
    while (spb_is_ok(status)) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL) {
            if (errno != 0)
                status = spb_fail_errno(err, SPB_IO, errno, "cannot list %s", base);
            break;
        }
        if (spb_rundir_is_name(entry->d_name) &&
            fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(st.st_mode))
            status = found(user, entry->d_name, err);
    }
    (void)closedir(folder);
    return status;
}

/* ---- Sockets ------------------------------------------------------------------------------ */

static spb_status fail_connect(const char *path, int number, struct spb_error *err)
{
    enum spb_code code = SPB_IO;

    if (number == ENOENT)
        code = SPB_NOT_FOUND;
    else if (number == ECONNREFUSED)
        code = SPB_UNREACHABLE;
    else if (number == EAGAIN)
        code = SPB_AGAIN;
    return spb_fail_errno(err, code, number, "cannot connect to %s", path);
}

spb_status spb_rundir_connect(const struct spb_rundir *dir, const char *file, int *fd,
                              struct spb_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    spb_rundir_path(dir, file, address.sun_path);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0)
        return spb_fail_errno(err, SPB_LIMIT, errno, "cannot make a socket");
    if (connect(made, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int number = errno;

        (void)close(made);
        return fail_connect(address.sun_path, number, err);
    }
    *fd = made;
    return spb_ok();
}
