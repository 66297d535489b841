/* Real children for tests of the supervisor. */
#ifndef SPB_TESTS_UNIT_PROCESS_KIT_H
#define SPB_TESTS_UNIT_PROCESS_KIT_H

#include <criterion/criterion.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "supervisor/process/process.h"

#define DEADLINE_MS 60000

static void expect_ok(spb_status status, const struct spb_error *err)
{
    cr_assert(spb_is_ok(status), "%s", err->text);
}

/* Runs a script of the shell; its output goes to files that it names itself. */
static struct spb_process start_script(const char *script, struct spb_spawn spawn)
{
    char *argv[] = {strdup("sh"), strdup("-c"), strdup(script), NULL};
    struct spb_process process = SPB_PROCESS_NONE;
    struct spb_error err;

    spawn.argv = argv;
    expect_ok(spb_process_spawn(&spawn, &process, &err), &err);
    for (size_t i = 0; argv[i] != NULL; i++)
        free(argv[i]);
    return process;
}

static const struct spb_spawn plain = {.stderr_fd = -1, .cgroup_fd = -1};

static int await_end(struct spb_process *process)
{
    struct pollfd poll_fd = {.fd = process->pidfd, .events = POLLIN};
    int wait_status = -1;

    cr_assert_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
    cr_assert(spb_process_has_ended(process));
    cr_assert(spb_process_reap(process, &wait_status));
    spb_process_close(process);
    return wait_status;
}

#endif
