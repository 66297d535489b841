/*
 * Going on after a lost connection, for commands that have no end of their own: the client has
 * tried again for as long as one call may take, and then another client is made. One thread.
 */
#ifndef SPB_CLI_RECONNECT_H
#define SPB_CLI_RECONNECT_H

#include "cli/daemon.h"

/* Pauses between attempts, which double: a random half to all of the time. */
struct cli_backoff {
    unsigned next_ms; /* 0: the shortest */
};
/* How long to pause now. */
unsigned cli_backoff_next(struct cli_backoff *backoff);

/* Was it the connection that failed, and does nothing that the user said forbid to go on? */
bool cli_may_reconnect(const struct cli *cli, const struct cli_daemon *daemon, spb_status status);

/* Makes the client anew until probe, a call, succeeds, or fails for another reason. SPB_OK also
 * once the run was interrupted. why is told as a note. */
SPB_MUST_USE spb_status cli_reconnect(struct cli *cli, struct cli_daemon *daemon,
                                      const struct spb_error *why,
                                      spb_status (*probe)(void *user, struct spb_error *err),
                                      void *user, struct spb_error *err);

#endif
