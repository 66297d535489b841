/* Input of a command: a file or standard input, whose size is known before it is read. One thread.
 */
#ifndef SPB_CLI_SOURCE_H
#define SPB_CLI_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct cli_source {
    int fd;           /* owned; -1: none */
    uint64_t size;    /* bytes from where it stands to its end */
    const char *name; /* borrowed; for error texts */
};

/* Opens a path, or standard input for "-". What is not a regular file is first copied to a
 * temporary file without a name. */
SPB_MUST_USE spb_status cli_source_open(const char *path, struct cli_source *source,
                                        struct spb_error *err);
/* Exactly n bytes; SPB_CHANGED where the file has become shorter. */
SPB_MUST_USE spb_status cli_source_read(struct cli_source *source, void *buffer, size_t n,
                                        struct spb_error *err);
void cli_source_done(struct cli_source *source);

/* The whole of a small input: up to `most` bytes; one more tells that there was more, which is left
 * to the caller to refuse. `room` of the buffer is most + 1. */
SPB_MUST_USE spb_status cli_source_read_small(const char *path, void *buffer, size_t room,
                                              size_t *size, struct spb_error *err);

#endif
