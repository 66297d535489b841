/* A progress bar on standard error, where that is a terminal and the output is not JSON; else
 * nothing. One thread. */
#ifndef SPB_CLI_PROGRESS_H
#define SPB_CLI_PROGRESS_H

#include "cli/cli.h"

struct cli_progress {
    bool shown;        /* a bar is wanted */
    bool drawn;        /* and stands on the terminal */
    const char *label; /* borrowed */
    uint64_t last_ms;
};

void cli_progress_init(struct cli_progress *progress, const struct cli *cli, const char *label);
/* May be called as often as one likes; it draws at most ten times a second. */
void cli_progress_update(struct cli_progress *progress, uint64_t done_bytes, uint64_t total_bytes);
/* Takes the bar away. */
void cli_progress_done(struct cli_progress *progress);
/* An spb_progress over a struct cli_progress; ends the work once interrupted. */
bool cli_progress_callback(void *user, uint64_t done_bytes, uint64_t total_bytes);

#endif
