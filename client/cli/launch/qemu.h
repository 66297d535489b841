/*
 * A QEMU in the foreground: started, its console carried to and from this terminal, its monitor
 * listened to, until it ended. Blocks; one thread. QEMU ends with this process, whatever ends that.
 */
#ifndef SPB_CLI_LAUNCH_QEMU_H
#define SPB_CLI_LAUNCH_QEMU_H

#include "base/status.h"
#include "supervisor/machine/command.h"
#include "supervisor/machine/ending.h"

#define CLI_QEMU_WORDS_SIZE 512u

struct cli_qemu_result {
    enum spb_ending ending;
    bool was_asked;                  /* Ctrl-A X, or a signal: the user ended it */
    char words[CLI_QEMU_WORDS_SIZE]; /* the end of what QEMU wrote on stderr, one line */
};

/*
 * machine's channels are set here. Fails where QEMU cannot be started, or ends before the guest
 * runs: then the text holds what it wrote. A guest that ended badly is no failure.
 */
SPB_MUST_USE spb_status cli_qemu_run(struct spb_machine *machine, struct cli_qemu_result *result,
                                     struct spb_error *err);

#endif
