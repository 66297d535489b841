/*
 * Where the bytes of a data product go: a new file that gets its name when all is there and
 * durable, or a stream (standard output, a pipe, a device). Until cli_output_commit nothing stands
 * under the name; whatever was there before stays. One thread.
 */
#ifndef SPB_CLI_SINK_H
#define SPB_CLI_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct cli_output {
    int fd;          /* owned unless it is standard output; -1: none */
    bool named;      /* a file that commit gives its name */
    char *path;      /* owned; the final name */
    char *temporary; /* owned; the name it has until then, or NULL while it has none */
};

/* path "-" is standard output. */
SPB_MUST_USE spb_status cli_output_open(const char *path, struct cli_output *output,
                                        struct spb_error *err);
/* A cli_sink over a struct cli_output. */
SPB_MUST_USE spb_status cli_output_write(void *output, const void *data, size_t n,
                                         struct spb_error *err);
SPB_MUST_USE spb_status cli_output_commit(struct cli_output *output, struct spb_error *err);
/* Drops what was not committed. */
void cli_output_done(struct cli_output *output);

#endif
