/*
 * The user's side of a guest's console: standard input and output, the former raw where it is a
 * terminal, so that the guest gets every key; but Ctrl-A X, which ends the guest (Ctrl-A Ctrl-A
 * sends one Ctrl-A). One thread; no call blocks.
 */
#ifndef SPB_CLI_LAUNCH_TERMINAL_H
#define SPB_CLI_LAUNCH_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

#include "base/status.h"

struct cli_terminal {
    bool is_raw;
    bool has_escape; /* the last key was Ctrl-A */
    struct termios before;
    int output_flags; /* of standard output, before */
};

/* Makes standard input raw where it is a terminal, standard output non-blocking. */
SPB_MUST_USE spb_status cli_terminal_init(struct cli_terminal *terminal, struct spb_error *err);
/* As it was before. Accepts what was not made raw. */
void cli_terminal_done(struct cli_terminal *terminal);

/* What of the keys is the guest's, in place; *n becomes how many. True: the guest is to end. */
bool cli_terminal_filter(struct cli_terminal *terminal, char *keys, size_t *n);

#endif
