/*
 * What the daemon keeps beside the images: uploads, artifacts, copies and backups. Their folders
 * and tables, as parts of the daemon (daemon.c).
 */
#ifndef SPB_SERVER_STORES_H
#define SPB_SERVER_STORES_H

#include <stdint.h>

#include "spaceblock/status.h"

struct spb_daemon;

/* Folders and empty tables. Once the audit is there. Blocks. */
SPB_MUST_USE spb_status spb_stores_start(struct spb_daemon *daemon, struct spb_error *err);
/* When no worker runs any more, before the registry ends. Also of a start that failed. Blocks. */
void spb_stores_stop(struct spb_daemon *daemon);
/* What is kept, once acts were settled and before images are opened. Blocks. */
SPB_MUST_USE spb_status spb_stores_load(struct spb_daemon *daemon, struct spb_error *err);
/* Once all images were opened. Blocks. */
void spb_stores_settle(struct spb_daemon *daemon);
/* Ends what has not been used for too long. The loop's thread. */
void spb_stores_tick(struct spb_daemon *daemon, int64_t now_ns);

#endif
