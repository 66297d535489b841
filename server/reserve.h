/*
 * Space on the disk of the data directory that is kept for the next start: where the disk was full
 * when a daemon ended, or got full since, the next one needs a little to come up, so that at least
 * all can be read. The file DATA_DIR/reserve holds it. A start lets go of it first and takes it
 * again once the audit has its space; without room, at the daemon's end. Blocks; one thread, with
 * the directory's lock.
 */
#ifndef SPB_SERVER_RESERVE_H
#define SPB_SERVER_RESERVE_H

#include "log.h"

#define SPB_RESERVE_SIZE (4u << 20) /* bytes */

/* Takes it where it is not there and the disk has room for it and as much again. Failures are
 * logged: the daemon works without. */
void spb_reserve_take(const char *data_dir, const struct spb_log *log);
/* Gives it free. */
void spb_reserve_release(const char *data_dir, const struct spb_log *log);

#endif
