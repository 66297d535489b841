/*
 * The folder of one run of a guest: QEMU's sockets, its pidfile and the FIFO of its last words.
 * Made fresh for each run, since a second QEMU would steal a socket of the same path without a
 * word. The paths of sockets are short enough for the kernel, which is checked.
 *
 * Only files of the names below are ever removed, no symlink is followed.
 */
#ifndef SPB_PROCESS_RUNDIR_H
#define SPB_PROCESS_RUNDIR_H

#include <stddef.h>

#include "spaceblock/status.h"

#define SPB_RUNDIR_NAME_MAX 63u
#define SPB_SOCKET_PATH_SIZE 108u /* of sockaddr_un, with its NUL */

#define SPB_RUNDIR_CONSOLE "c"
#define SPB_RUNDIR_MONITOR "q"
#define SPB_RUNDIR_LINK "g" /* the guest link, where there is one */
#define SPB_RUNDIR_PIDFILE "p"
#define SPB_RUNDIR_WORDS "e" /* what QEMU writes to stderr; see words.h */

struct spb_rundir {
    int fd; /* owned; -1: none */
    char path[SPB_SOCKET_PATH_SIZE];
};

#define SPB_RUNDIR_NONE ((struct spb_rundir){.fd = -1})

bool spb_rundir_is_name(const char *name);

/*
 * base/name, mode 0700. base is there, absolute, and the caller's alone; name: 1 to
 * SPB_RUNDIR_NAME_MAX of A-Z a-z 0-9 - _. SPB_LIMIT: the path is too long for a socket in it.
 * SPB_EXISTS: it is there: remove it first, if nothing runs in it. Blocks shortly.
 */
SPB_MUST_USE spb_status spb_rundir_make(const char *base, const char *name, struct spb_rundir *dir,
                                        struct spb_error *err);
/* One that is there, of an earlier daemon. SPB_NOT_FOUND. SPB_CORRUPT: it is no folder of ours. */
SPB_MUST_USE spb_status spb_rundir_open(const char *base, const char *name, struct spb_rundir *dir,
                                        struct spb_error *err);
/* Closes the descriptor; the folder stays. Harmless twice. */
void spb_rundir_close(struct spb_rundir *dir);
/* path/file, which fits. */
void spb_rundir_path(const struct spb_rundir *dir, const char *file,
                     char path[SPB_SOCKET_PATH_SIZE]);

/* Success too where it is not there. SPB_IN_USE, naming the first of them, where files of other
 * names are in it: those of ours are gone then. SPB_CORRUPT: base/name is no folder; it stays. */
SPB_MUST_USE spb_status spb_rundir_remove(const char *base, const char *name,
                                          struct spb_error *err);

/* Calls found for each folder in base with a name as make takes it; stops at the first failure and
 * returns it. */
typedef spb_status (*spb_rundir_found)(void *user, const char *name, struct spb_error *err);
SPB_MUST_USE spb_status spb_rundir_list(const char *base, spb_rundir_found found, void *user,
                                        struct spb_error *err);

/* Connects to a socket of the folder, non-blocking and CLOEXEC. SPB_NOT_FOUND: it is not there yet.
 * SPB_UNREACHABLE: nobody listens. SPB_AGAIN: too many wait there. */
SPB_MUST_USE spb_status spb_rundir_connect(const struct spb_rundir *dir, const char *file, int *fd,
                                           struct spb_error *err);

#endif
