/*
 * A guest's console as a stream: what it printed, by offset, to standard output, and where wanted
 * what comes on standard input to the guest. Nothing is printed twice and nothing is left out,
 * whatever becomes of connections and of the daemon; what the daemon does not keep any more is told
 * as a note. One thread.
 */
#ifndef SPB_CLI_GUEST_STREAM_H
#define SPB_CLI_GUEST_STREAM_H

#include "cli/guest/guest.h"

struct cli_stream_how {
    bool types;      /* standard input is typed on the console, with Ctrl-A X of a terminal */
    bool follows;    /* goes on until the guest has ended, else to the end as it is now */
    bool ends_typed; /* ends once all of standard input was taken */
    bool takes_over; /* types even where another writer does */
    bool is_safe;    /* for a terminal: control characters but line ends show as \\xNN */
    uint64_t from;   /* offset of the first byte */
};

/* How it came to its end. */
struct cli_stream_end {
    bool left;  /* by Ctrl-A X */
    bool ended; /* the guest has, and all that it printed was shown */
};

/* Goes on after lost connections without end: some call has succeeded before, so that there is a
 * daemon, and the guest. Also SPB_OK where a signal came (cli_interrupt_watch comes first). With
 * --json each piece is an object on a line. The guest's client is closed afterwards, unless the
 * guest has ended. */
SPB_MUST_USE spb_status cli_stream_run(struct cli_guest *guest, const struct cli_stream_how *how,
                                       struct cli_stream_end *end, struct spb_error *err);

/* Where the last so many lines begin; 0 lines: the end. Blocks. */
SPB_MUST_USE spb_status cli_stream_find(struct cli_guest *guest, uint64_t lines, uint64_t *offset,
                                        struct spb_error *err);

#endif
