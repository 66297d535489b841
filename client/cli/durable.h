/* Small files that are whole or as they were before, also after a power loss. No state. */
#ifndef SPB_CLI_DURABLE_H
#define SPB_CLI_DURABLE_H

#include "base/status.h"

/* Writes text to a file beside path and gives it that name. *fd is the caller's: the file, open for
 * reading and writing and locked (flock) since before it had the name. */
SPB_MUST_USE spb_status cli_durable_replace(const char *path, const char *text, int *fd,
                                            struct spb_error *err);
/* Makes the names in the folder of path durable. */
SPB_MUST_USE spb_status cli_durable_sync_folder(const char *path, struct spb_error *err);
/* Is the open file still the one of this name? */
bool cli_durable_has_name(int fd, const char *path);
/* The folder of a path, "." for none. The caller's, free(); NULL: no memory. */
char *cli_durable_folder(const char *path);

#endif
