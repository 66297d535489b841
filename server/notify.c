/* Telling the service manager; see notify.h. */
#include "notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "util.h"

#define MESSAGE_SIZE 1024
#define REASON_SIZE 400 /* of a reason that the manager is told */

static bool read_number(const char *text, int64_t *number)
{
    char *end = NULL;

    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value <= 0)
        return false;
    *number = value;
    return true;
}

/* The interval is meant for one process, which WATCHDOG_PID may name. */
static spb_status read_watchdog(struct spb_notify *notify, struct spb_error *err)
{
    const char *interval = getenv("WATCHDOG_USEC"), *process = getenv("WATCHDOG_PID");
    int64_t us = 0, pid = getpid();

    if (interval == NULL)
        return spb_ok();
    if (!read_number(interval, &us) || us > INT64_MAX / SPB_NS_PER_US)
        return spb_fail(err, SPB_INVALID, "WATCHDOG_USEC: found \"%.40s\", expected microseconds",
                        interval);
    if (process != NULL && !read_number(process, &pid))
        return spb_fail(err, SPB_INVALID, "WATCHDOG_PID: found \"%.40s\", expected a process",
                        process);
    if (pid == getpid())
        notify->watchdog_ns = us * SPB_NS_PER_US;
    return spb_ok();
}

spb_status spb_notify_open(struct spb_notify *notify, struct spb_error *err)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t n = path == NULL ? 0 : strlen(path);

    *notify = (struct spb_notify){.fd = -1, .to = {.sun_family = AF_UNIX}};
    if (n == 0)
        return spb_ok();
    if ((*path != '/' && *path != '@') || n < 2 || n >= sizeof(notify->to.sun_path))
        return spb_fail(err, SPB_INVALID,
                        "NOTIFY_SOCKET: found \"%.120s\", expected a path from / or @ on of at "
                        "most %zu bytes",
                        path, sizeof(notify->to.sun_path) - 1);
    SPB_TRY(read_watchdog(notify, err));
    memcpy(notify->to.sun_path, path, n);
    if (*path == '@')
        notify->to.sun_path[0] = '\0';
    notify->to_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notify->fd < 0)
        return spb_fail_errno(err, SPB_IO, errno, "making a socket for the service manager");
    return spb_ok();
}

void spb_notify_close(struct spb_notify *notify)
{
    if (notify->fd >= 0)
        (void)close(notify->fd);
    notify->fd = -1;
}

void spb_notify_send(const struct spb_notify *notify, const char *format, ...)
{
    char text[MESSAGE_SIZE];
    va_list args;

    if (notify->fd < 0)
        return;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(text))
        return;
    /* Whether it arrives is the manager's business: the daemon serves either way. */
    ssize_t ignored = sendto(notify->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL,
                             (const struct sockaddr *)&notify->to, notify->to_length);
    (void)ignored;
}

void spb_notify_ready(const struct spb_notify *notify, size_t images)
{
    spb_notify_send(notify, "READY=1\nSTATUS=Serving %zu image%s", images, images == 1 ? "" : "s");
}

/* The manager drops a text that is not well-formed UTF-8, and takes a line's end for the next name:
 * what is quoted of a file may hold anything. */
static void copy_line(const char *text, char line[REASON_SIZE])
{
    size_t n = 0;

    for (; n + 1 < REASON_SIZE && text[n] != '\0' && text[n] != '\n'; n++)
        line[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    line[n] = '\0';
}

void spb_notify_not_reloaded(const struct spb_notify *notify, const char *reason)
{
    char line[REASON_SIZE];

    copy_line(reason, line);
    spb_notify_send(notify,
                    "READY=1\nSTATUS=The configuration could not be reloaded and is as it was: %s",
                    line);
}

void spb_notify_reloading(const struct spb_notify *notify)
{
    spb_notify_send(notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
                    (long long)(spb_now_ns() / SPB_NS_PER_US));
}

void spb_notify_beat(struct spb_notify *notify, int64_t now_ns)
{
    if (notify->watchdog_ns == 0 || now_ns - notify->last_beat_ns < notify->watchdog_ns / 2)
        return;
    notify->last_beat_ns = now_ns;
    spb_notify_send(notify, "WATCHDOG=1");
}
