/*
 * Following an image's events through the daemon: one Events.Watch after the other, each with the
 * cursor of the one before, over lost connections and restarts. What was taken once does not come
 * again, and what could not be had is told. One thread.
 */
#ifndef SPB_CLI_WATCH_H
#define SPB_CLI_WATCH_H

#include "cli/target.h"

#define CLI_CURSOR_MAX 128u

struct cli_cursor {
    uint8_t bytes[CLI_CURSOR_MAX];
    size_t size; /* 0: none */
};

/* Of an even number of hex digits; SPB_INVALID. what names the option. */
SPB_MUST_USE spb_status cli_parse_cursor(const char *what, const char *text,
                                         struct cli_cursor *cursor, struct spb_error *err);

/* What one answer brought. */
struct cli_watch_news {
    const struct spb_event *events; /* borrowed */
    size_t count;
    uint64_t epoch;   /* of the image */
    uint64_t skipped; /* events before these that were overwritten */
    bool reset;       /* the image's events are others: these are the oldest ones there are */
    const struct cli_cursor *cursor; /* where it goes on after these */
    bool moved;                      /* the cursor is another than before */
};

struct cli_watch {
    bool from_oldest;                      /* where there is no cursor; else from now on */
    struct cli_cursor cursor;              /* where to begin; then, where it goes on */
    const struct cli_event_query *filters; /* borrowed; its severities and codes */
    uint64_t limit;                        /* events to take; 0: no end */
    bool (*take)(void *user, const struct cli_watch_news *news); /* false: take no more */
    void *user;
};

/*
 * Until limit events were taken, take has enough, or the run was interrupted (cli_interrupt_watch
 * comes first): SPB_OK. The target is a daemon's. A daemon that cannot be reached any more is tried
 * again without end, with a note; what it refuses is a failure.
 */
SPB_MUST_USE spb_status cli_watch_run(struct cli *cli, struct cli_target *target,
                                      struct cli_watch *watch, struct spb_error *err);

#endif
