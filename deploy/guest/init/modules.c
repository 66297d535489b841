/*
 * The guest's drivers: modules of the kernel that lie in the initial RAM disk, in the order of a
 * list that was made with it; and the wait for the disk that they bring.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/status.h"
#include "guest.h"

#define LIST "/modules/list"
#define NAME_MAX_SIZE 128
#define DISK_WAIT_MS 20000

static spb_status load(const char *name, struct spb_error *err)
{
    char path[NAME_MAX_SIZE + 16];

    (void)snprintf(path, sizeof(path), "/modules/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return spb_fail_errno(err, SPB_IO, errno, "opening the module %s", path);
    long done = syscall(SYS_finit_module, fd, "", 0);
    int number = errno;
    (void)close(fd);
    if (done == 0 || number == EEXIST)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, number, "loading the module %s", path);
}

spb_status guest_load_modules(struct spb_error *err)
{
    char name[NAME_MAX_SIZE];
    FILE *list = fopen(LIST, "re");
    spb_status status = spb_ok();

    if (list == NULL)
        return spb_fail_errno(err, SPB_IO, errno, "opening the list of modules %s", LIST);
    while (spb_is_ok(status) && fgets(name, sizeof(name), list) != NULL) {
        name[strcspn(name, "\n")] = '\0';
        if (*name != '\0')
            status = load(name, err);
    }
    (void)fclose(list);
    return status;
}

static bool disk_is_there(void)
{
    struct stat st;

    return stat(GUEST_DISK, &st) == 0;
}

spb_status guest_await_disk(struct spb_error *err)
{
    char events[4096] __attribute__((aligned(8)));
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    struct pollfd wanted = {.fd = watch, .events = POLLIN};

    /* Watched before it is looked for: it cannot come unnoticed between the two. */
    if (watch < 0 || inotify_add_watch(watch, "/dev", IN_CREATE) < 0)
        return spb_fail_errno(err, SPB_IO, errno, "watching /dev");
    while (!disk_is_there()) {
        if (poll(&wanted, 1, DISK_WAIT_MS) == 0) {
            (void)close(watch);
            return spb_fail(err, SPB_NOT_FOUND, "no " GUEST_DISK " within %d ms", DISK_WAIT_MS);
        }
        while (read(watch, events, sizeof(events)) > 0) {
        }
    }
    (void)close(watch);
    return spb_ok();
}
