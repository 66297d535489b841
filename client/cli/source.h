/*
 * Input of a command: a file or standard input, whose size is known before it is read, and that can
 * be read again from any offset. Its CRC is taken as it is read the first time. One thread.
 */
#ifndef SPB_CLI_SOURCE_H
#define SPB_CLI_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Which file it is, so that another run can tell whether it is the same and unchanged. */
struct cli_source_identity {
    bool is_known; /* a regular file, opened by its path */
    uint64_t device, inode, size;
    int64_t modified_s, modified_ns;
};

struct cli_source {
    int fd;           /* owned; -1: none */
    uint64_t size;    /* bytes, from begin to the file's end */
    const char *name; /* borrowed; for error texts */
    uint64_t begin;   /* where in the file its first byte is */
    uint64_t at;      /* of cli_source_read */
    uint64_t crc_end; /* crc is that of the bytes before */
    uint32_t crc;
    struct cli_source_identity identity;
};

/* Opens a path, or standard input for "-". What is not a regular file is first copied to a
 * temporary file without a name. */
SPB_MUST_USE spb_status cli_source_open(const char *path, struct cli_source *source,
                                        struct spb_error *err);
/* Exactly n bytes; SPB_CHANGED where the file has become shorter. SPB_DEADLINE: interrupted. */
SPB_MUST_USE spb_status cli_source_read_at(struct cli_source *source, uint64_t offset, void *buffer,
                                           size_t n, struct spb_error *err);
/* The same of the bytes that come next. */
SPB_MUST_USE spb_status cli_source_read(struct cli_source *source, void *buffer, size_t n,
                                        struct spb_error *err);
/* The CRC of all bytes before end, of which the unknown ones are read. What was read before counts
 * as it was then. SPB_INVALID where more than that has been read already. */
SPB_MUST_USE spb_status cli_source_crc(struct cli_source *source, uint64_t end, uint32_t *crc,
                                       struct spb_error *err);
void cli_source_done(struct cli_source *source);

/* The whole of a small input: up to `most` bytes; one more tells that there was more, which is left
 * to the caller to refuse. `room` of the buffer is most + 1. */
SPB_MUST_USE spb_status cli_source_read_small(const char *path, void *buffer, size_t room,
                                              size_t *size, struct spb_error *err);

#endif
