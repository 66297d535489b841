/* Small files that are whole; see durable.h. */
#include "cli/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static spb_status fail_path(struct spb_error *err, const char *what, const char *path)
{
    return spb_fail_errno(err, SPB_IO, errno, "%s \"%s\"", what, path);
}

char *cli_durable_folder(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

spb_status cli_durable_sync_folder(const char *path, struct spb_error *err)
{
    char *folder = cli_durable_folder(path);
    int fd = folder == NULL ? -1 : open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    free(folder);
    if (fd < 0)
        return fail_path(err, "syncing the folder of", path);
    spb_status status = fsync(fd) != 0 ? fail_path(err, "syncing the folder of", path) : spb_ok();
    (void)close(fd);
    return status;
}

bool cli_durable_has_name(int fd, const char *path)
{
    struct stat opened, named;

    return fstat(fd, &opened) == 0 && lstat(path, &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

static bool write_all(int fd, const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        ssize_t done = write(fd, text, left);
        if (done < 0 && errno != EINTR)
            return false;
        left -= done < 0 ? 0 : (size_t)done;
        text += done < 0 ? 0 : done;
    }
    return true;
}

static spb_status replace(const char *path, const char *fresh, const char *text, int *fd,
                          struct spb_error *err)
{
    int made = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (made < 0)
        return fail_path(err, "writing", fresh);
    spb_status status = spb_ok();
    if (flock(made, LOCK_EX | LOCK_NB) != 0 || !write_all(made, text) || fsync(made) != 0 ||
        rename(fresh, path) != 0)
        status = fail_path(err, "writing", path);
    if (spb_is_ok(status))
        status = cli_durable_sync_folder(path, err);
    if (spb_is_ok(status))
        *fd = made;
    else
        (void)close(made);
    return status;
}

spb_status cli_durable_replace(const char *path, const char *text, int *fd, struct spb_error *err)
{
    char *fresh = NULL;

    if (asprintf(&fresh, "%s.new", path) < 0)
        return spb_fail_memory(err, "writing a file");
    spb_status status = replace(path, fresh, text, fd, err);
    free(fresh);
    return status;
}
