/* How a guest ended; see ending.h. */
#include "supervisor/machine/ending.h"

#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>

static enum spb_ending shutdown_of(const json_t *data)
{
    const char *reason = json_string_value(json_object_get(data, "reason"));

    if (reason == NULL)
        return json_is_true(json_object_get(data, "guest")) ? SPB_ENDING_POWEROFF
                                                            : SPB_ENDING_STOPPED;
    if (strcmp(reason, "guest-shutdown") == 0)
        return SPB_ENDING_POWEROFF;
    if (strcmp(reason, "guest-reset") == 0)
        return SPB_ENDING_REBOOT;
    if (strcmp(reason, "guest-panic") == 0)
        return SPB_ENDING_PANIC;
    return strncmp(reason, "host-error", 10) == 0 ? SPB_ENDING_CRASHED : SPB_ENDING_STOPPED;
}

void spb_ending_take_event(enum spb_ending *ending, const char *event, const json_t *data)
{
    if (strcmp(event, "GUEST_PANICKED") == 0 || strcmp(event, "GUEST_CRASHLOADED") == 0)
        *ending = SPB_ENDING_PANIC;
    else if (strcmp(event, "SHUTDOWN") == 0 && *ending == SPB_ENDING_NONE)
        *ending = shutdown_of(data);
}

void spb_ending_take_status(enum spb_ending *ending, const char *status, enum spb_ending traced)
{
    if (strcmp(status, "guest-panicked") == 0)
        *ending = SPB_ENDING_PANIC;
    else if (strcmp(status, "shutdown") == 0 && *ending == SPB_ENDING_NONE)
        *ending = traced == SPB_ENDING_NONE ? SPB_ENDING_LOST : traced;
    else if (strcmp(status, "internal-error") == 0 || strcmp(status, "io-error") == 0)
        *ending = SPB_ENDING_CRASHED;
}

void spb_ending_take_exit(enum spb_ending *ending, int wait_status)
{
    bool good = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;

    if (*ending == SPB_ENDING_NONE)
        *ending = good ? SPB_ENDING_STOPPED : SPB_ENDING_CRASHED;
}

const char *spb_ending_words(enum spb_ending ending)
{
    static const char *const words[] = {
        [SPB_ENDING_NONE] = "runs",
        [SPB_ENDING_POWEROFF] = "powered off",
        [SPB_ENDING_REBOOT] = "asked for a reboot",
        [SPB_ENDING_PANIC] = "panicked",
        [SPB_ENDING_STOPPED] = "was stopped",
        [SPB_ENDING_CRASHED] = "ended because QEMU failed",
        [SPB_ENDING_LOST] = "ended unseen",
        [SPB_ENDING_NOT_STARTED] = "was not started",
    };

    return words[ending];
}
