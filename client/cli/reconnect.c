/* Going on after a lost connection; see reconnect.h. */
#include "cli/reconnect.h"

#include <poll.h>
#include <stdio.h>
#include <sys/random.h>

#include "cli/output.h"

#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 5000u

static bool is_lost(spb_status status)
{
    return status.code == SPB_UNREACHABLE || status.code == SPB_DEADLINE;
}

unsigned cli_backoff_next(struct cli_backoff *backoff)
{
    unsigned share = 0, most_ms = backoff->next_ms == 0 ? BACKOFF_MIN_MS : backoff->next_ms;

    (void)!getrandom(&share, sizeof(share), GRND_NONBLOCK);
    backoff->next_ms = most_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : most_ms * 2;
    return most_ms / 2 + share % (most_ms / 2 + 1);
}

bool cli_may_reconnect(const struct cli *cli, const struct cli_daemon *daemon, spb_status status)
{
    return is_lost(status) && cli_may_retry(cli) && daemon->timeout_ms == 0 &&
           !cli_is_interrupted();
}

spb_status cli_reconnect(struct cli *cli, struct cli_daemon *daemon, const struct spb_error *why,
                         spb_status (*probe)(void *user, struct spb_error *err), void *user,
                         struct spb_error *err)
{
    struct cli_backoff backoff = {0};
    spb_status status = {SPB_UNREACHABLE};

    cli_note(cli, "%s; trying again", why->text);
    while (is_lost(status) && !cli_is_interrupted()) {
        (void)poll(NULL, 0, (int)cli_backoff_next(&backoff)); /* or until a signal */
        if (cli_is_interrupted())
            break;
        cli_daemon_done(daemon);
        status = cli_daemon_open(cli, daemon, err);
        /* One that drains, or is not yet up, may take connections. */
        if (spb_is_ok(status))
            status = probe(user, err);
    }
    if (spb_is_ok(status))
        cli_note(cli, "connected again");
    return cli_is_interrupted() ? spb_ok() : status;
}
