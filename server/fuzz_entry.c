/*
 * The daemon for a fuzzer; see fuzz_entry.h. Not part of spaceblockd: a fuzzer calls without a
 * handle, so the one daemon of its process is remembered here.
 */
#include "fuzz_entry.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn.h"
#include "daemon.h"
#include "loop.h"
#include "util.h"

static struct spb_daemon *fuzzed;

struct arrival {
    struct spb_post post;
    int fd;
};

static void adopt(struct spb_post *post)
{
    static const struct spb_principal local = {
        .kind = SPB_PRINCIPAL_LOCAL, .name = "local", .tenant = 1, .is_site_admin = true};
    struct arrival *arrival = SPB_CONTAINER(post, struct arrival, post);

    spb_conns_adopt(fuzzed->conns, arrival->fd, &local);
    free(arrival);
}

static void *run(void *daemon)
{
    (void)spb_daemon_run(daemon);
    return NULL;
}

int spb_server_fuzz_start(const char *data_dir)
{
    static struct spb_options options;
    struct spb_error err;
    pthread_t thread;

    (void)signal(SIGPIPE, SIG_IGN);
    spb_options_init(&options);
    options.log_level = SPB_LOG_ERROR;
    /* What inputs leave behind is soon out of the way of later ones. */
    options.limits.upload_life_s = 1;
    options.limits.backup_life_s = 1;
    (void)snprintf(options.data_dir, sizeof(options.data_dir), "%s", data_dir);
    /* Guests can be made, and none comes to run. */
    (void)snprintf(options.qemu, sizeof(options.qemu), "/bin/false");
    (void)snprintf(options.guest_files, sizeof(options.guest_files), "%s", "/bin");
    options.accelerator = SPB_ACCELERATOR_TCG;
    options.no_cgroup = true;
    if (!spb_is_ok(spb_daemon_new(&options, &fuzzed, &err))) {
        (void)fprintf(stderr, "fuzzed daemon: %s\n", err.text);
        return -1;
    }
    if (pthread_create(&thread, NULL, run, fuzzed) != 0)
        return -1;
    (void)pthread_detach(thread);
    return 0;
}

int spb_server_fuzz_connect(void)
{
    int pair[2];
    struct arrival *arrival = calloc(1, sizeof(*arrival));

    if (arrival == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        free(arrival);
        return -1;
    }
    (void)fcntl(pair[1], F_SETFL, O_NONBLOCK);
    arrival->post.run = adopt;
    arrival->fd = pair[1];
    spb_loop_post(fuzzed->loop, &arrival->post, &arrival->post);
    return pair[0];
}
