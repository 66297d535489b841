/* Space that is kept for the next start; see reserve.h. */
#include "reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static char *path_of(const char *data_dir)
{
    char *path = NULL;

    return asprintf(&path, "%s/reserve", data_dir) < 0 ? NULL : path;
}

static bool is_there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_blocks * 512 >= SPB_RESERVE_SIZE;
}

static bool has_room(const char *data_dir)
{
    struct statvfs fs;

    return statvfs(data_dir, &fs) == 0 &&
           (uint64_t)fs.f_bavail * fs.f_frsize >= 2 * (uint64_t)SPB_RESERVE_SIZE;
}

/* An errno; 0: done. */
static int make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return errno;
    int number = posix_fallocate(fd, 0, SPB_RESERVE_SIZE);
    (void)close(fd);
    if (number != 0)
        (void)unlink(path);
    return number;
}

void spb_reserve_take(const char *data_dir, const struct spb_log *log)
{
    char *path = path_of(data_dir);
    int number = path == NULL ? ENOMEM : 0;

    if (path != NULL && !is_there(path))
        number = has_room(data_dir) ? make(path) : ENOSPC;
    if (number != 0)
        spb_log(log, SPB_LOG_WARN, "no-reserve", SPB_TEXT("data_dir", data_dir),
                SPB_TEXT("reason", strerror(number)),
                SPB_TEXT("outcome", "a start on a full disk may fail"));
    free(path);
}

void spb_reserve_release(const char *data_dir, const struct spb_log *log)
{
    char *path = path_of(data_dir);

    if (path == NULL || (unlink(path) != 0 && errno != ENOENT))
        spb_log(log, SPB_LOG_WARN, "reserve-not-released", SPB_TEXT("data_dir", data_dir),
                SPB_TEXT("reason", strerror(errno)));
    free(path);
}
