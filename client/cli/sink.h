/*
 * Where the bytes of a data product go: a new file that gets its name when all is there and
 * durable, or a stream (standard output, a pipe, a device). Until cli_output_commit nothing stands
 * under the name; whatever was there before stays. One thread.
 */
#ifndef SPB_CLI_SINK_H
#define SPB_CLI_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"

struct cli_output {
    int fd;          /* owned unless it is standard output; -1: none */
    bool named;      /* a file that commit gives its name */
    bool replaces;   /* there is one of that name, whose mode it takes */
    mode_t mode;     /* of that one */
    uint64_t pushed; /* bytes written since the kernel was last told to begin with them */
    char *path;      /* owned; the final name */
    char *temporary; /* owned; the name it has until then, or NULL while it has none */
};

/* Looks where it goes: a stream is open then; otherwise named, path and what goes with them are
 * set, and there is no file yet. path "-" is standard output. */
SPB_MUST_USE spb_status cli_output_find(const char *path, struct cli_output *output,
                                        struct spb_error *err);
/* Makes the file of one that was found. */
SPB_MUST_USE spb_status cli_output_make(struct cli_output *output, struct spb_error *err);
/* Gives the file the mode of the one that it replaces. */
SPB_MUST_USE spb_status cli_output_take_mode(struct cli_output *output, struct spb_error *err);
/* A cli_sink over a struct cli_output. */
SPB_MUST_USE spb_status cli_output_write(void *output, const void *data, size_t n,
                                         struct spb_error *err);
SPB_MUST_USE spb_status cli_output_commit(struct cli_output *output, struct spb_error *err);
/* Drops what was not committed. */
void cli_output_done(struct cli_output *output);

#endif
