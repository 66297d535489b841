/* The user's side of a guest's console; see terminal.h. */
#include "cli/launch/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define ESCAPE 0x01 /* Ctrl-A */

spb_status cli_terminal_init(struct cli_terminal *terminal, struct spb_error *err)
{
    struct termios raw;

    *terminal = (struct cli_terminal){.output_flags = fcntl(STDOUT_FILENO, F_GETFL)};
    if (terminal->output_flags < 0 ||
        fcntl(STDOUT_FILENO, F_SETFL, terminal->output_flags | O_NONBLOCK) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "preparing standard output");
    if (isatty(STDIN_FILENO) == 0 || tcgetattr(STDIN_FILENO, &terminal->before) != 0)
        return spb_ok();
    raw = terminal->before;
    cfmakeraw(&raw);
    raw.c_oflag = terminal->before.c_oflag; /* what is printed is still the terminal's */
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0)
        return spb_fail_errno(err, SPB_IO, errno, "preparing the terminal");
    terminal->is_raw = true;
    return spb_ok();
}

void cli_terminal_done(struct cli_terminal *terminal)
{
    if (terminal->is_raw)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &terminal->before);
    terminal->is_raw = false;
    if (terminal->output_flags >= 0)
        (void)fcntl(STDOUT_FILENO, F_SETFL, terminal->output_flags);
}

bool cli_terminal_filter(struct cli_terminal *terminal, char *keys, size_t *n)
{
    size_t kept = 0;
    bool ends = false;

    if (!terminal->is_raw)
        return false; /* a file or pipe: every byte is meant */
    for (size_t i = 0; i < *n && !ends; i++) {
        char key = keys[i];

        if (!terminal->has_escape) {
            terminal->has_escape = key == ESCAPE;
            if (key != ESCAPE)
                keys[kept++] = key;
            continue;
        }
        terminal->has_escape = false;
        ends = key == 'x' || key == 'X';
        if (!ends)
            keys[kept++] = key; /* of another pair, only its second key; twice Ctrl-A is one */
    }
    *n = kept;
    return ends;
}
