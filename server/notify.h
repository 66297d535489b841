/*
 * Telling the service manager how the daemon is, by the protocol of sd_notify(3): datagrams to the
 * socket that NOTIFY_SOCKET names. Without it everything here does nothing. Never blocks: what the
 * manager has no room for is not told. Any thread, once it is open.
 */
#ifndef SPB_SERVER_NOTIFY_H
#define SPB_SERVER_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "spaceblock/status.h"

struct spb_notify {
    int fd; /* -1: nobody is told */
    struct sockaddr_un to;
    socklen_t to_length;
    int64_t watchdog_ns;  /* how often it wants to hear; 0: never */
    int64_t last_beat_ns; /* the loop's thread */
};

/* From the environment: NOTIFY_SOCKET (a path, or @ for an abstract name), WATCHDOG_USEC,
 * WATCHDOG_PID. SPB_INVALID where that is none. */
SPB_MUST_USE spb_status spb_notify_open(struct spb_notify *notify, struct spb_error *err);
void spb_notify_close(struct spb_notify *notify);

/* Lines of NAME=VALUE. */
void spb_notify_send(const struct spb_notify *notify, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* READY=1, and how many images are served. */
void spb_notify_ready(const struct spb_notify *notify, size_t images);
/* READY=1 again, with the configuration as it was, and why; of the reason its first line. */
void spb_notify_not_reloaded(const struct spb_notify *notify, const char *reason);
/* RELOADING=1 and when. */
void spb_notify_reloading(const struct spb_notify *notify);
/* WATCHDOG=1 when it is time: twice as often as it is wanted. The loop's thread. */
void spb_notify_beat(struct spb_notify *notify, int64_t now_ns);

#endif
