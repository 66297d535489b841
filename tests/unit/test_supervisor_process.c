/* Processes that run guests, with real children: spawned, bounded, adopted, measured, and what
 * they say at last. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/status.h"
#include "supervisor/process/rundir.h"
#include "supervisor/process/words.h"
#include "unit/folder_kit.h"
#include "unit/process_kit.h"

TestSuite(supervisor_process, .init = folder_make, .fini = folder_remove);

static char *read_text(const char *name)
{
    static char text[8192];
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_RDONLY);
    cr_assert_geq(fd, 0, "%s", path);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    cr_assert_geq(n, 0);
    text[n] = '\0';
    close(fd);
    return text;
}

/* ---- Spawn -------------------------------------------------------------------------------- */

Test(supervisor_process, exits_and_deaths_are_told_as_waitpid_does)
{
    struct spb_process process = start_script("exit 7", plain);
    int status = await_end(&process);

    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    cr_expect_eq(process.pidfd, -1);
    process = start_script("kill -9 $$", plain);
    status = await_end(&process);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    process = start_script("exec sleep 1000", plain);
    int none = 5;
    cr_expect_not(spb_process_has_ended(&process));
    cr_expect_not(spb_process_reap(&process, &none));
    cr_expect_eq(none, 5);
    cr_expect(spb_is_ok(spb_process_signal(&process, SIGTERM, NULL)));
    struct pollfd poll_fd = {.fd = process.pidfd, .events = POLLIN};
    cr_assert_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
    cr_expect(spb_process_reap(&process, &status));
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    cr_expect_eq(spb_process_signal(&process, SIGTERM, NULL).code, SPB_NOT_FOUND);
    cr_expect_not(spb_process_reap(&process, &none), "once");
    spb_process_close(&process);
    spb_process_close(&process);
}

static unsigned children(void)
{
    siginfo_t info;

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void expect_no_start(const char *program, enum spb_code code, const char *words)
{
    char *argv[] = {strdup(program), NULL};
    struct spb_spawn spawn = {.argv = argv, .stderr_fd = -1, .cgroup_fd = -1};
    struct spb_process process = SPB_PROCESS_NONE;
    struct spb_error err;

    cr_expect_eq(spb_process_spawn(&spawn, &process, &err).code, code, "%s", err.text);
    cr_expect_not_null(strstr(err.text, words), "%s", err.text);
    cr_expect_eq(process.pidfd, -1);
    cr_expect_not(children(), "no child is left");
    free(argv[0]);
}

Test(supervisor_process, what_cannot_be_executed_says_so_and_leaves_no_child)
{
    char path[128];

    expect_no_start("spaceblock-no-such-program", SPB_NOT_FOUND, "spaceblock-no-such-program");
    expect_no_start("/nonexistent/qemu", SPB_NOT_FOUND, "No such file");
    snprintf(path, sizeof(path), "%s/text", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    cr_assert_eq(write(fd, "#", 1), 1);
    expect_no_start(path, SPB_UNSUPPORTED, "Permission denied");
    cr_assert_eq(fchmod(fd, 0700), 0);
    close(fd);
    expect_no_start(path, SPB_UNSUPPORTED, "Exec format error");
    expect_no_start("/tmp", SPB_UNSUPPORTED, "executing it");
}

Test(supervisor_process, a_limit_is_as_high_as_it_may_be)
{
    struct rlimit files = {32, 64};
    char script[512];
    struct spb_spawn spawn = plain;

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
    snprintf(script, sizeof(script), "cd %s; { ulimit -Sn; ulimit -Hn; } >out 2>&1", folder);
    spawn.nofile = 1024;
    struct spb_process process = start_script(script, spawn);
    cr_assert_eq(await_end(&process), 0);
    cr_expect_str_eq(read_text("out"), "64\n64\n");
}

static void on_signal(int number)
{
    (void)number;
}

Test(supervisor_process, a_child_starts_from_nothing)
{
    char script[512];
    sigset_t mask;

    /* What the child is not to have: descriptors, handlers, a mask, a folder, an environment. */
    int leak = open("/dev/null", O_RDONLY);
    cr_assert_geq(fcntl(leak, F_DUPFD, 200), 200);
    signal(SIGUSR1, on_signal);
    signal(SIGHUP, SIG_IGN);
    sigfillset(&mask);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    setenv("NOTIFY_SOCKET", "/run/secret", 1);
    snprintf(script, sizeof(script),
             "cd %s; { pwd -P; umask; env; ulimit -n; ulimit -c; "
             "cat /proc/$$/stat; } >out 2>&1",
             folder);
    struct spb_spawn spawn = plain;
    spawn.nofile = 99;
    spawn.nice = 3;
    struct spb_process process = start_script(script, spawn);
    pid_t pid = process.pid;
    cr_assert_eq(await_end(&process), 0);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    cr_expect_eq(sigismember(&now, SIGUSR1), 1, "the caller's mask is as it was");
    char *out = read_text("out");
    cr_expect_null(strstr(out, "NOTIFY_SOCKET"), "%s", out);
    cr_expect_not_null(strstr(out, "LC_ALL=C\n"), "%s", out);
    cr_expect_not_null(strstr(out, "\n0077\n"), "%s", out);
    cr_expect_not_null(strstr(out, "\n99\n0\n"), "%s", out);
    long fields[17]; /* of proc(5)'s stat, from the fourth on */
    char *at = strrchr(out, ')') + 3;
    for (size_t i = 0; i < 17; i++)
        fields[i] = strtol(at, &at, 10);
    cr_expect(fields[1] == pid && fields[2] == pid, "its group and session");
    cr_expect_eq(fields[15], getpriority(PRIO_PROCESS, 0) + 3, "nice");
    snprintf(script, sizeof(script), "exec ls /proc/self/fd >%s/fds", folder);
    process = start_script(script, plain);
    cr_assert_eq(await_end(&process), 0);
    cr_expect_str_eq(read_text("fds"), "0\n1\n2\n3\n", "3 is of the listing itself");
    /* Not of the shell, which blocks signals while it waits. */
    snprintf(script, sizeof(script), "exec cat /proc/self/status >%s/status", folder);
    process = start_script(script, plain);
    cr_assert_eq(await_end(&process), 0);
    out = read_text("status");
    cr_expect_not_null(strstr(out, "SigBlk:\t0000000000000000\n"), "%s", out);
    cr_expect_not_null(strstr(out, "SigIgn:\t0000000000001000\n"), "only SIGPIPE: %s", out);
}

/* What a child of a process with this oom_score_adj has. */
static const char *oom_score_below(const char *adjustment)
{
    char script[256];

    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    cr_assert_geq(fd, 0);
    bool may_set = write(fd, adjustment, strlen(adjustment)) == (ssize_t)strlen(adjustment);
    close(fd);
    if (!may_set)
        cr_skip_test("only root may spare itself");
    snprintf(script, sizeof(script), "cat /proc/self/oom_score_adj >%s/score", folder);
    struct spb_process process = start_script(script, plain);
    cr_assert_eq(await_end(&process), 0);
    return read_text("score");
}

Test(supervisor_process, a_child_is_not_spared_where_memory_runs_out)
{
    cr_expect_str_eq(oom_score_below("-200"), "0\n");
    cr_expect_str_eq(oom_score_below("300"), "300\n", "what makes it the first to go stays");
}

Test(supervisor_process, the_folder_is_the_root)
{
    char script[256];

    snprintf(script, sizeof(script), "pwd -P >%s/out", folder);
    struct spb_process process = start_script(script, plain);
    cr_assert_eq(await_end(&process), 0);
    cr_expect_str_eq(read_text("out"), "/\n");
}

/* Descriptors 0 to 2 may be closed in a daemon: what is opened then has their numbers. */
Test(supervisor_process, starts_where_the_caller_lacks_the_first_descriptors)
{
    char script[256];
    int ends[2];

    snprintf(script, sizeof(script), "echo word >&2; ls -l /proc/$$/fd >%s/out", folder);
    int kept[3] = {fcntl(0, F_DUPFD, 50), fcntl(1, F_DUPFD, 50), fcntl(2, F_DUPFD, 50)};
    for (int i = 0; i < 3; i++)
        close(i);
    int rc = pipe(ends);
    struct spb_spawn spawn = plain;
    spawn.stderr_fd = ends[1];
    struct spb_process process = start_script(script, spawn);
    int status = await_end(&process);
    char word[16] = "";
    ssize_t n = read(ends[0], word, sizeof(word));
    for (int i = 0; i < 3; i++)
        dup2(kept[i], i);
    cr_expect(rc == 0 && status == 0 && n == 5);
    cr_expect_str_eq(word, "word\n");
    cr_expect_not_null(strstr(read_text("out"), "/dev/null"));
}

/* ---- Bound to its parent ------------------------------------------------------------------ */

struct started {
    struct spb_process process;
    int go;
};

static void *start_and_end(void *user)
{
    struct started *started = user;
    struct spb_spawn spawn = plain;
    char byte;

    spawn.dies_with_caller = true;
    started->process = start_script("exec sleep 1000", spawn);
    cr_assert_eq(read(started->go, &byte, 1), 1);
    return NULL;
}

Test(supervisor_process, one_that_is_bound_ends_with_the_thread_that_started_it)
{
    struct started started;
    pthread_t thread;
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    started.go = ends[0];
    cr_assert_eq(pthread_create(&thread, NULL, start_and_end, &started), 0);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    int status = await_end(&started.process);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* A daemon that is killed: what it started goes on, or ends, as it was asked. Returns a pidfd. */
static int survivor_of_a_killed_parent(bool is_bound)
{
    int ends[2];
    pid_t pid;

    cr_assert_eq(pipe(ends), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct spb_spawn spawn = plain;

        spawn.dies_with_caller = is_bound;
        struct spb_process process = start_script("exec sleep 1000", spawn);
        if (write(ends[1], &process.pid, sizeof(pid)) != sizeof(pid))
            _exit(1);
        pause();
        _exit(0);
    }
    cr_assert_eq(read(ends[0], &pid, sizeof(pid)), (ssize_t)sizeof(pid));
    int pidfd = pidfd_open(pid, 0);
    cr_assert_geq(pidfd, 0);
    kill(parent, SIGKILL);
    cr_assert_eq(waitpid(parent, NULL, 0), parent);
    close(ends[0]);
    close(ends[1]);
    return pidfd;
}

Test(supervisor_process, a_killed_parent_takes_those_along_that_are_bound)
{
    struct spb_process bound = {.pid = 1, .pidfd = survivor_of_a_killed_parent(true)};
    struct spb_process unbound = {.pid = 1, .pidfd = survivor_of_a_killed_parent(false)};
    struct pollfd poll_fd = {.fd = bound.pidfd, .events = POLLIN};
    int status;

    cr_expect_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
    cr_expect_not(spb_process_has_ended(&unbound));
    cr_expect_not(spb_process_reap(&bound, &status), "not our child: nobody can tell");
    cr_expect(spb_is_ok(spb_process_signal(&unbound, SIGKILL, NULL)));
    poll_fd.fd = unbound.pidfd;
    cr_expect_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
    spb_process_close(&bound);
    spb_process_close(&unbound);
}

/* ---- Adoption ----------------------------------------------------------------------------- */

/* A process that locks the file as QEMU does its pidfile, and waits. */
static pid_t lock_in_child(const char *path, int *ready)
{
    int ends[2];
    char byte;

    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(path, O_RDWR | O_CREAT, 0600);

        if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0 || write(fd, "1\n", 2) != 2 ||
            write(ends[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    *ready = ends[0];
    return pid;
}

Test(supervisor_process, the_holder_of_a_pidfile_is_adopted)
{
    struct spb_process process = SPB_PROCESS_NONE;
    struct spb_error err;
    char path[128];
    int ready;

    int dir = open(folder, O_RDONLY | O_DIRECTORY);
    cr_expect_eq(spb_process_adopt(dir, "p", &process, &err).code, SPB_NOT_FOUND);
    snprintf(path, sizeof(path), "%s/p", folder);
    pid_t pid = lock_in_child(path, &ready);
    expect_ok(spb_process_adopt(dir, "p", &process, &err), &err);
    cr_expect_eq(process.pid, pid, "the lock tells, not the number in the file");
    cr_expect_not(process.is_child);
    cr_expect_not(spb_process_has_ended(&process));
    expect_ok(spb_process_signal(&process, SIGKILL, &err), &err);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    cr_expect(spb_process_has_ended(&process));
    spb_process_close(&process);
    cr_expect_eq(spb_process_adopt(dir, "p", &process, &err).code, SPB_NOT_FOUND);
    cr_expect_not_null(strstr(err.text, "ended"), "%s", err.text);
    cr_expect_eq(process.pidfd, -1);
    snprintf(path, sizeof(path), "%s/link", folder);
    cr_assert_eq(symlink("p", path), 0);
    cr_expect_eq(spb_process_adopt(dir, "link", &process, &err).code, SPB_IO);
    close(ready);
    close(dir);
}

/* ---- Figures ------------------------------------------------------------------------------ */

Test(supervisor_process, processor_time_and_memory_are_told)
{
    struct spb_process process =
        start_script("x=$(head -c 30000000 /dev/zero | tr '\\0' x); while :; do :; done", plain);
    struct spb_process_stats stats = {0};
    struct spb_error err;

    do {
        expect_ok(spb_process_stats(&process, &stats, &err), &err);
        sched_yield();
    } while (stats.cpu_ms < 50 || stats.resident_bytes < 30000000);
    cr_expect_lt(stats.resident_bytes, 1u << 30);
    expect_ok(spb_process_signal(&process, SIGKILL, &err), &err);
    struct pollfd poll_fd = {.fd = process.pidfd, .events = POLLIN};
    cr_assert_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
    cr_expect_eq(spb_process_stats(&process, &stats, &err).code, SPB_NOT_FOUND);
    cr_expect_geq(stats.cpu_ms, 50, "untouched");
    (void)await_end(&process);
    cr_expect_eq(spb_process_stats(&process, &stats, &err).code, SPB_NOT_FOUND);
}

/* ---- Last words --------------------------------------------------------------------------- */

static struct spb_rundir make_rundir(void)
{
    struct spb_rundir dir = SPB_RUNDIR_NONE;
    struct spb_error err;

    expect_ok(spb_rundir_make(folder, "run", &dir, &err), &err);
    return dir;
}

static struct spb_process start_with_words(const struct spb_rundir *dir, const char *script,
                                           struct spb_words *words)
{
    struct spb_spawn spawn = plain;
    struct spb_error err;

    expect_ok(spb_words_make(dir, words, &spawn.stderr_fd, &err), &err);
    struct spb_process process = start_script(script, spawn);
    close(spawn.stderr_fd);
    return process;
}

static void read_to_end(struct spb_words *words)
{
    while (spb_words_read(words)) {
        struct pollfd poll_fd = {.fd = words->fd, .events = POLLIN};

        cr_assert_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
    }
    cr_expect_eq(words->fd, -1);
}

Test(supervisor_process, last_words_are_one_line)
{
    struct spb_rundir dir = make_rundir();
    struct spb_words words;
    char text[256], little[8];

    struct spb_process process = start_with_words(
        &dir, "printf 'qemu: bad \\033[31mkernel\\n\\377 end \\n\\n' >&2; exit 1", &words);
    read_to_end(&words);
    cr_expect_eq(WEXITSTATUS(await_end(&process)), 1);
    spb_words_text(&words, text, sizeof(text));
    cr_expect_str_eq(text, "qemu: bad  [31mkernel   end");
    spb_words_text(&words, little, sizeof(little));
    cr_expect_str_eq(little, "l   end", "the end is what is kept");
    spb_rundir_close(&dir);
}

Test(supervisor_process, a_flood_of_words_stalls_nobody_and_fills_nothing)
{
    struct spb_rundir dir = make_rundir();
    struct spb_words words;
    struct stat st;
    char text[SPB_WORDS_BYTES + 1];

    /* 100 MB, and nobody reads: it ends all the same. */
    struct spb_process process =
        start_with_words(&dir,
                         "x=$(head -c 50000 /dev/zero | tr '\\0' y); i=0; "
                         "while [ $i -lt 2000 ]; do printf %s \"$x\" >&2; i=$((i+1)); done; exit 3",
                         &words);
    cr_expect_eq(WEXITSTATUS(await_end(&process)), 3);
    cr_assert_eq(fstatat(dir.fd, SPB_RUNDIR_WORDS, &st, 0), 0);
    cr_expect(S_ISFIFO(st.st_mode) && st.st_blocks == 0);
    read_to_end(&words);
    cr_expect_eq(words.used, SPB_WORDS_BYTES);
    spb_words_text(&words, text, sizeof(text));
    cr_expect_eq(strspn(text, "y"), SPB_WORDS_BYTES);
    spb_rundir_close(&dir);
}

/* FIFOs by which a script and its test wait for each other. */
static void make_fifo(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    cr_assert_eq(mkfifo(path, 0600), 0);
}

static int open_fifo(const char *name, int flags)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, flags | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

static void let_go(void)
{
    int fd = open_fifo("go", O_WRONLY);

    cr_assert_eq(write(fd, "\n", 1), 1);
    close(fd);
}

Test(supervisor_process, a_flood_of_words_that_is_read_keeps_its_end)
{
    struct spb_rundir dir = make_rundir();
    struct spb_words words;
    char text[64], script[512];

    make_fifo("go");
    make_fifo("said");
    int said = open_fifo("said", O_RDONLY | O_NONBLOCK);
    snprintf(script, sizeof(script),
             "x=$(head -c 50000 /dev/zero | tr '\\0' z); i=0; while [ $i -lt 2000 ]; do "
             "printf %%s \"$x\" >&2; i=$((i+1)); done; echo >%s/said; read x <%s/go; "
             "echo the last >&2",
             folder, folder);
    struct spb_process process = start_with_words(&dir, script, &words);
    struct pollfd poll_fd[] = {{.fd = words.fd, .events = POLLIN}, {.fd = said, .events = POLLIN}};
    while ((poll_fd[1].revents & POLLIN) == 0) {
        cr_assert_geq(poll(poll_fd, 2, DEADLINE_MS), 1);
        cr_assert(spb_words_read(&words));
    }
    cr_assert(spb_words_read(&words)); /* there is room again */
    let_go();
    read_to_end(&words);
    cr_expect_eq(await_end(&process), 0);
    spb_words_text(&words, text, sizeof(text));
    cr_expect_not_null(strstr(text, "zthe last"), "%s", text);
    close(said);
    spb_rundir_close(&dir);
}

Test(supervisor_process, words_outlive_the_daemon_that_asked_for_them)
{
    struct spb_rundir dir = make_rundir();
    struct spb_words words, again;
    struct spb_error err;
    char text[256], script[512], byte;

    snprintf(script, sizeof(script),
             "echo one >&2; read x <%s/go; echo two >&2; echo >%s/said; "
             "read x <%s/go; echo three >&2",
             folder, folder, folder);
    make_fifo("go");
    make_fifo("said");
    struct spb_process process = start_with_words(&dir, script, &words);
    spb_words_close(&words); /* the daemon ends */
    let_go();
    int said = open_fifo("said", O_RDONLY);
    cr_assert_eq(read(said, &byte, 1), 1);
    close(said);
    expect_ok(spb_words_open(&dir, &again, &err), &err);
    let_go();
    read_to_end(&again);
    cr_expect_eq(await_end(&process), 0);
    spb_words_text(&again, text, sizeof(text));
    cr_expect_str_eq(text, "one two three");
    spb_rundir_close(&dir);
}

/* A daemon that lives reads without taking the newest from the next one. */
Test(supervisor_process, the_newest_words_are_left_to_the_next_daemon)
{
    struct spb_rundir dir = make_rundir();
    struct spb_words words, again;
    struct spb_error err;
    char text[256], script[512], byte;

    snprintf(script, sizeof(script),
             "i=0; while [ $i -lt 600 ]; do echo '%048d' >&2; i=$((i+1)); done; "
             "echo the last >&2; echo >%s/said; read x <%s/go",
             0, folder, folder);
    make_fifo("go");
    make_fifo("said");
    struct spb_process process = start_with_words(&dir, script, &words);
    int said = open_fifo("said", O_RDONLY);
    cr_assert_eq(read(said, &byte, 1), 1);
    close(said);
    cr_assert(spb_words_relieve(&words));
    cr_expect_eq(words.used, SPB_WORDS_BYTES);
    words.used = 0;
    cr_assert(spb_words_relieve(&words));
    cr_expect_eq(words.used, 0, "what is left is little");
    spb_words_close(&words); /* the daemon ends */
    expect_ok(spb_words_open(&dir, &again, &err), &err);
    let_go();
    read_to_end(&again);
    cr_expect_eq(await_end(&process), 0);
    spb_words_text(&again, text, sizeof(text));
    cr_expect_not_null(strstr(text, "0 the last"), "%s", text);
    spb_rundir_close(&dir);
}

/* ---- A real QEMU -------------------------------------------------------------------------- */

static void need_qemu(void)
{
    char path[PATH_MAX];

    if (!spb_is_ok(spb_process_find_program("qemu-system-x86_64", path, NULL)))
        folder_skip("no qemu-system-x86_64");
}

/* Its pidfile is there once it is locked, which comes before its sockets are served. */
static int await_socket(const struct spb_rundir *dir, const struct spb_process *process)
{
    struct spb_error err;
    int fd = -1;

    while (!spb_is_ok(spb_rundir_connect(dir, SPB_RUNDIR_MONITOR, &fd, &err))) {
        cr_assert(err.code == SPB_NOT_FOUND || err.code == SPB_UNREACHABLE, "%s", err.text);
        cr_assert_not(spb_process_has_ended(process));
        sched_yield();
    }
    return fd;
}

Test(supervisor_process, a_qemu_is_found_by_its_pidfile_until_it_is_killed)
{
    struct spb_rundir dir;
    struct spb_words words;
    struct spb_process adopted = SPB_PROCESS_NONE;
    struct spb_process_stats stats;
    struct spb_error err;
    char script[1024], greeting[64] = "";

    need_qemu();
    dir = make_rundir();
    snprintf(script, sizeof(script),
             "exec qemu-system-x86_64 -nodefaults -no-user-config -nographic -machine none -S "
             "-chardev socket,id=q,path=%s/q,server=on,wait=off -mon chardev=q,mode=control "
             "-pidfile %s/p",
             dir.path, dir.path);
    struct spb_process process = start_with_words(&dir, script, &words);
    int fd = await_socket(&dir, &process);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
    cr_assert_gt(read(fd, greeting, sizeof(greeting) - 1), 0);
    cr_expect_eq(strncmp(greeting, "{\"QMP\"", 6), 0, "%s", greeting);
    expect_ok(spb_process_adopt(dir.fd, SPB_RUNDIR_PIDFILE, &adopted, &err), &err);
    cr_expect_eq(adopted.pid, process.pid);
    expect_ok(spb_process_stats(&adopted, &stats, &err), &err);
    cr_expect_gt(stats.resident_bytes, 1u << 20);
    expect_ok(spb_process_signal(&adopted, SIGKILL, &err), &err);
    cr_expect_eq(WTERMSIG(await_end(&process)), SIGKILL);
    cr_expect(spb_process_has_ended(&adopted));
    spb_process_close(&adopted);
    cr_expect_eq(spb_process_adopt(dir.fd, SPB_RUNDIR_PIDFILE, &adopted, &err).code, SPB_NOT_FOUND,
                 "its pidfile is still there, and nobody holds it");
    read_to_end(&words);
    close(fd);
    spb_rundir_close(&dir);
    expect_ok(spb_rundir_remove(folder, "run", &err), &err);
}

Test(supervisor_process, a_qemu_that_cannot_start_has_said_why)
{
    struct spb_rundir dir;
    struct spb_words words;
    char text[512];

    need_qemu();
    dir = make_rundir();
    struct spb_process process =
        start_with_words(&dir,
                         "exec qemu-system-x86_64 -nodefaults -nographic -accel tcg -m 32 "
                         "-kernel /nonexistent/vmlinuz",
                         &words);
    cr_expect_eq(WEXITSTATUS(await_end(&process)), 1);
    read_to_end(&words);
    spb_words_text(&words, text, sizeof(text));
    cr_expect_not_null(strstr(text, "/nonexistent/vmlinuz"), "%s", text);
    spb_rundir_close(&dir);
}
