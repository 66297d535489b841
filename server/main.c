/*
 * spaceblockd: command line, signals, exit codes.
 *
 * Signals are blocked everywhere and taken by a thread of their own: the first SIGTERM or SIGINT
 * lets the loop drain, a second one ends the process at once, whatever the other threads are at.
 * SIGHUP reads the configuration anew, on that thread too, for files may take their time; the loop
 * only puts it in force.
 */
#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "loop.h"
#include "metrics.h"
#include "util.h"

#define EXIT_USAGE 2
#define MAPPED_MIN (128 * 1024)       /* bytes of a buffer that is mapped by itself */
#define TRIMMED_MIN (4 * 1024 * 1024) /* bytes at the heap's end that are given back */

struct watcher {
    pthread_t thread;
    sigset_t signals;
    struct spb_daemon *daemon;
    int argc;
    char **argv;
    struct spb_post drain;
    atomic_bool done; /* the next signal is ours: no more are waited for */
};

struct reload {
    struct spb_post post;
    struct spb_daemon *daemon;
    struct spb_options options;
};

static void drain(struct spb_post *post)
{
    spb_daemon_drain(SPB_CONTAINER(post, struct watcher, drain)->daemon);
}

static void apply(struct spb_post *post)
{
    struct reload *reload = SPB_CONTAINER(post, struct reload, post);

    spb_daemon_reload(reload->daemon, &reload->options);
    free(reload);
}

static void begin_reload(struct watcher *watcher)
{
    struct spb_daemon *daemon = watcher->daemon;
    struct reload *reload = calloc(1, sizeof(*reload));
    struct spb_error err;

    spb_notify_reloading(&daemon->notify);
    spb_status status =
        reload == NULL ? spb_fail_memory(&err, "reading the configuration")
                       : spb_options_parse(watcher->argc, watcher->argv, &reload->options, &err);
    if (!spb_is_ok(status)) {
        free(reload);
        spb_daemon_note_failed_reload(daemon, &err);
        return;
    }
    reload->post.run = apply;
    reload->daemon = daemon;
    spb_loop_post(daemon->loop, &reload->post, &reload->post);
}

static void *watch(void *user)
{
    struct watcher *watcher = user;
    int number = 0;

    for (int ends = 0;;) {
        while (sigwait(&watcher->signals, &number) != 0) {
        }
        if (atomic_load(&watcher->done))
            return NULL;
        if (number == SIGHUP) {
            begin_reload(watcher);
            continue;
        }
        if (ends++ > 0)
            _exit(EXIT_FAILURE);
        spb_loop_post(watcher->daemon->loop, &watcher->drain, &watcher->drain);
    }
}

static void stop_watching(struct watcher *watcher)
{
    atomic_store(&watcher->done, true);
    (void)pthread_kill(watcher->thread, SIGTERM);
    (void)pthread_join(watcher->thread, NULL);
}

/* Before any thread is started, so that all inherit it. */
static void block_signals(sigset_t *signals)
{
    (void)sigemptyset(signals);
    (void)sigaddset(signals, SIGTERM);
    (void)sigaddset(signals, SIGINT);
    (void)sigaddset(signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* the write fails, as on a full disk */
}

static int fail(const struct spb_error *err, int code)
{
    (void)fprintf(stderr, "spaceblockd: %s\n", err->text);
    if (code == EXIT_USAGE)
        (void)fprintf(stderr, "Try spaceblockd --help.\n");
    return code;
}

static int serve(int argc, char **argv, const struct spb_options *options)
{
    struct watcher watcher = {.argc = argc, .argv = argv, .drain = {.run = drain}};
    struct spb_error err;

    atomic_init(&watcher.done, false);
    block_signals(&watcher.signals);
    if (!spb_is_ok(spb_daemon_new(options, &watcher.daemon, &err)))
        return fail(&err, EXIT_FAILURE);
    if (pthread_create(&watcher.thread, NULL, watch, &watcher) != 0) {
        spb_daemon_free(watcher.daemon);
        (void)spb_fail_memory(&err, "starting the thread that takes signals");
        return fail(&err, EXIT_FAILURE);
    }
    spb_daemon_say_ready(watcher.daemon);
    bool drained = spb_daemon_run(watcher.daemon);
    /* A second signal still ends a stop that hangs: the watcher goes last but for the loop. */
    spb_daemon_stop(watcher.daemon);
    stop_watching(&watcher);
    spb_daemon_free(watcher.daemon);
    return drained ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * A closed standard stream's number would go to the first file that is opened, and what is logged
 * would end up in it.
 */
static bool hold_standard_streams(void)
{
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return false;
    }
    return true;
}

/* Every image and every connection takes a descriptor: as many as the system lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    /* Where that is refused the limit that there is holds, and is felt as before. */
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/*
 * Large buffers come from the system and go back to it one by one, whatever their sizes: otherwise
 * those of a busy hour stay in the process in pieces.
 */
static void tune_memory(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_MIN);
    (void)mallopt(M_TRIM_THRESHOLD, TRIMMED_MIN);
}

int main(int argc, char **argv)
{
    struct spb_options *options = calloc(1, sizeof(*options));
    struct spb_error err;
    int code = EXIT_SUCCESS;

    if (options == NULL || !hold_standard_streams())
        return EXIT_FAILURE;
    raise_descriptor_limit();
    tune_memory();
    if (!spb_is_ok(spb_options_parse(argc, argv, options, &err)))
        code = fail(&err, EXIT_USAGE);
    else if (options->help)
        spb_options_print_help(stdout);
    else if (options->version)
        (void)puts("spaceblockd " SPB_VERSION);
    else if (options->check)
        spb_options_print(options, stdout);
    else
        code = serve(argc, argv, options);
    free(options);
    return code;
}
