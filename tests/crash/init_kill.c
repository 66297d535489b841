/*
 * Initialising a file, killed at every system call: a child runs spb_image_create under ptrace and
 * is killed at its nth stop, for every n until it runs through. Each time there is the old file or
 * the new one, complete, or none; all else that may be left is named .NAME.tmp-*. Exit 77 where the
 * system does not permit ptrace. The calls of a whole run show what is synced before the rename.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spaceblock/group.h"
#include "spaceblock/volume.h"

#define NAME "image.img"
#define BLOCKS 40u
#define OLD_EPOCH 1600000000u
#define NEW_EPOCH 1700000000u

struct ground {
    char directory[64];
    char path[128];
    unsigned long killed, old, made, none, leftovers;
};

_Noreturn static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void fail(const char *format, ...)
{
    va_list args;

    fputs("init_kill: FAILED: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    _Exit(1);
}

static struct spb_format_options options_of(uint64_t epoch)
{
    return (struct spb_format_options){
        .total_blocks = BLOCKS, .sector_size = 512, .tenant_id = 1, .epoch = epoch};
}

/* ---- The folder ----------------------------------------------------------------------------- */

/* Is it one of what a killed initialisation may leave? */
static bool is_leftover(const char *name)
{
    return strncmp(name, "." NAME ".tmp-", strlen("." NAME ".tmp-")) == 0;
}

/* Counts the leftovers, or removes all. Nothing but them and the image may be there. */
static unsigned long sweep(const struct ground *ground, bool remove_all)
{
    DIR *directory = opendir(ground->directory);
    unsigned long found = 0;
    struct dirent *entry;

    if (directory == NULL)
        fail("opening %s: %s", ground->directory, strerror(errno));
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!is_leftover(entry->d_name) && strcmp(entry->d_name, NAME) != 0)
            fail("%s is left behind", entry->d_name);
        found += is_leftover(entry->d_name);
        if (remove_all && unlinkat(dirfd(directory), entry->d_name, 0) != 0)
            fail("removing %s: %s", entry->d_name, strerror(errno));
    }
    closedir(directory);
    return found;
}

/* An old image, with a value in it. */
static void make_old(const struct ground *ground)
{
    struct spb_format_options options = options_of(OLD_EPOCH);
    struct spb_open_options writing = {.writable = true};
    struct spb_param_put put = {42, "old", 3, SPB_ANY_GENERATION};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;
    struct spb_error err;

    if (!spb_is_ok(spb_image_create(ground->path, &options, false, &err)) ||
        !spb_is_ok(spb_device_file_open(ground->path, SPB_FILE_WRITE, &device, &err)) ||
        !spb_is_ok(spb_volume_open(device, &writing, &volume, &err)) ||
        !spb_is_ok(spb_volume_put_param(volume, &put, NULL, &err)))
        fail("making the old image: %s", err.text);
    spb_volume_close(volume);
}

/* What stands at the path is complete: its epoch, or 0 for nothing. */
static uint64_t found_epoch(const struct ground *ground)
{
    struct spb_open_options reading = {.writable = false};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;
    struct spb_param param;
    struct spb_report report;
    struct spb_error err;

    if (access(ground->path, F_OK) != 0)
        return 0;
    if (!spb_is_ok(spb_device_file_open(ground->path, SPB_FILE_READ, &device, &err)))
        fail("opening what is there: %s", err.text);
    if (device->size_bytes != (uint64_t)BLOCKS * 512)
        fail("%llu bytes are there", (unsigned long long)device->size_bytes);
    if (!spb_is_ok(spb_volume_open(device, &reading, &volume, &err)) ||
        !spb_is_ok(spb_volume_check(volume, NULL, NULL, &report, &err)))
        fail("half an image is there: %s", err.text);
    uint64_t epoch = spb_volume_superblock(volume)->epoch;
    bool has_value = spb_is_ok(spb_param_find(volume, 42, &param, NULL, NULL));

    if (report.count != 0 || has_value != (epoch == OLD_EPOCH) || spb_event_pointer(volume) != 0)
        fail("the image with epoch %llu is not as it was made", (unsigned long long)epoch);
    spb_report_done(&report);
    spb_volume_close(volume);
    return epoch;
}

/* ---- The child ------------------------------------------------------------------------------ */

/* Exit codes of the child. */
enum { CHILD_DONE = 10, CHILD_EXISTS, CHILD_FAILED, CHILD_UNTRACED };

_Noreturn static void child(const struct ground *ground, bool replace)
{
    struct spb_format_options options = options_of(NEW_EPOCH);
    spb_status status;

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(CHILD_UNTRACED);
    raise(SIGSTOP);
    status = spb_image_create(ground->path, &options, replace, NULL);
    _exit(spb_is_ok(status) ? CHILD_DONE
                            : (status.code == SPB_EXISTS ? CHILD_EXISTS : CHILD_FAILED));
}

/* Starts it, stopped and traced; 0 where that is not permitted. */
static pid_t start(const struct ground *ground, bool replace)
{
    int state = 0;
    pid_t pid = fork();

    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0)
        child(ground, replace);
    if (waitpid(pid, &state, 0) != pid)
        fail("waitpid: %s", strerror(errno));
    if (WIFEXITED(state) && WEXITSTATUS(state) == CHILD_UNTRACED)
        return 0;
    if (!WIFSTOPPED(state))
        fail("the child did not stop: %#x", (unsigned)state);
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)) !=
        0) {
        kill(pid, SIGKILL);
        waitpid(pid, &state, 0);
        return 0;
    }
    return pid;
}

/* Lets it run to its next stop at a system call; true when it has ended, with its exit code. */
static bool next_stop(pid_t pid, int *code)
{
    int state = 0;

    if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) != 0)
        fail("ptrace: %s", strerror(errno));
    if (waitpid(pid, &state, 0) != pid)
        fail("waitpid: %s", strerror(errno));
    if (WIFEXITED(state)) {
        *code = WEXITSTATUS(state);
        return true;
    }
    if (!WIFSTOPPED(state) || WSTOPSIG(state) != (SIGTRAP | 0x80))
        fail("the child stopped unexpectedly: %#x", (unsigned)state);
    return false;
}

/* Kills the child at its nth stop; true where it ran through before. */
static bool run_and_kill(const struct ground *ground, bool replace, unsigned long n, int *code)
{
    pid_t pid = start(ground, replace);
    int state = 0;

    for (unsigned long stop = 0; stop < n; stop++) {
        if (next_stop(pid, code))
            return true;
    }
    if (kill(pid, SIGKILL) != 0 || waitpid(pid, &state, 0) != pid)
        fail("killing the child: %s", strerror(errno));
    return false;
}

/* ---- What is synced before the rename ------------------------------------------------------- */

static bool is_write(uint64_t number)
{
    return number == SYS_write || number == SYS_pwrite64 || number == SYS_ftruncate ||
           number == SYS_fallocate || number == SYS_pwritev || number == SYS_pwritev2;
}

static bool is_rename(uint64_t number)
{
#ifdef SYS_rename
    if (number == SYS_rename || number == SYS_link)
        return true;
#endif
    return number == SYS_renameat || number == SYS_renameat2 || number == SYS_linkat;
}

/* Nothing is unsynced when the file gets its name, and the name is synced before the end. */
static void check_order(const struct ground *ground, bool replace)
{
    bool unsynced_data = false, unsynced_name = false, renamed = false;
    pid_t pid = start(ground, replace);
    int code = 0;

    while (!next_stop(pid, &code)) {
        struct __ptrace_syscall_info info;

        if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) <= 0)
            fail("ptrace: %s", strerror(errno));
        if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
            continue;
        uint64_t number = info.entry.nr;

        if (is_write(number)) {
            unsynced_data = true;
        } else if (number == SYS_fsync || number == SYS_fdatasync) {
            unsynced_data = false;
            unsynced_name = unsynced_name && number != SYS_fsync;
        } else if (is_rename(number)) {
            if (unsynced_data)
                fail("the file gets its name with unsynced data");
            renamed = unsynced_name = true;
        }
    }
    if (code != CHILD_DONE || !renamed || unsynced_name || unsynced_data)
        fail("a run ended with %d, renamed %d, name unsynced %d, data unsynced %d", code, renamed,
             unsynced_name, unsynced_data);
}

/* ---- Cases ---------------------------------------------------------------------------------- */

enum before { BEFORE_NOTHING, BEFORE_OLD };

/* After a kill: what may be there, and that doing it again works over what is left. */
static void check_after(struct ground *ground, enum before before, bool replace)
{
    uint64_t epoch = found_epoch(ground);
    struct spb_format_options options = options_of(NEW_EPOCH);
    struct spb_error err;

    ground->leftovers += sweep(ground, false);
    ground->old += epoch == OLD_EPOCH;
    ground->made += epoch == NEW_EPOCH;
    ground->none += epoch == 0;
    if (before == BEFORE_OLD && epoch == 0)
        fail("the old image is gone");
    if (before == BEFORE_OLD && !replace && epoch != OLD_EPOCH)
        fail("the old image was replaced without leave");
    if (before == BEFORE_NOTHING && epoch == OLD_EPOCH)
        fail("an old image came out of nothing");
    spb_status again = spb_image_create(ground->path, &options, replace, &err);

    if (!replace && epoch != 0 ? again.code != SPB_EXISTS : !spb_is_ok(again))
        fail("doing it again: %s", err.text);
    if (spb_is_ok(again) && found_epoch(ground) != NEW_EPOCH)
        fail("done again, the new image is not there");
}

static void run_case(struct ground *ground, enum before before, bool replace, const char *words)
{
    int code = 0, expected = before == BEFORE_OLD && !replace ? CHILD_EXISTS : CHILD_DONE;
    unsigned long killed = 0;

    for (unsigned long n = 0;; n++) {
        sweep(ground, true);
        if (before == BEFORE_OLD)
            make_old(ground);
        if (run_and_kill(ground, replace, n, &code))
            break;
        check_after(ground, before, replace);
        killed++;
    }
    if (code != expected || killed < 3)
        fail("%s: the child ends with %d after %lu stops", words, code, killed);
    if (sweep(ground, false) != 0)
        fail("%s: a run to the end leaves a temporary file", words);
    if (found_epoch(ground) != (expected == CHILD_DONE ? NEW_EPOCH : OLD_EPOCH))
        fail("%s: a run to the end leaves another image", words);
    if (expected == CHILD_DONE) {
        sweep(ground, true);
        if (before == BEFORE_OLD)
            make_old(ground);
        check_order(ground, replace);
    }
    ground->killed += killed;
    printf("init_kill: %s: killed at %lu stops\n", words, killed);
}

int main(void)
{
    struct ground ground = {.directory = "/tmp/spaceblock-init-XXXXXX"};
    pid_t probe;

    if (mkdtemp(ground.directory) == NULL)
        fail("making a folder: %s", strerror(errno));
    snprintf(ground.path, sizeof(ground.path), "%s/" NAME, ground.directory);
    probe = start(&ground, false);
    if (probe == 0) {
        rmdir(ground.directory);
        puts("init_kill: skipped: ptrace is not permitted");
        return 77;
    }
    kill(probe, SIGKILL);
    waitpid(probe, NULL, 0);
    run_case(&ground, BEFORE_NOTHING, false, "no file, without replace");
    run_case(&ground, BEFORE_NOTHING, true, "no file, with replace");
    run_case(&ground, BEFORE_OLD, false, "an old file, without replace");
    run_case(&ground, BEFORE_OLD, true, "an old file, with replace");
    sweep(&ground, true);
    rmdir(ground.directory);
    printf("init_kill: %lu kills left %lu old files, %lu new ones, %lu none, %lu temporary files\n",
           ground.killed, ground.old, ground.made, ground.none, ground.leftovers);
    if (ground.old == 0 || ground.made == 0 || ground.none == 0)
        fail("not every outcome was seen");
    return 0;
}
