/*
 * spaceblockd with a hand on its images: the daemon as it is, which also lends images to guests and
 * takes them back on request, for tests that are the guest themselves. Its main and everything else
 * are the daemon's; linked with --wrap for the two functions below.
 *
 * Each line of standard input is "attach TENANT NAME GUEST", "detach TENANT NAME" or "poke TENANT
 * NAME", run one after the other on a thread that is none of the daemon's, and answered on standard
 * output with "ok TEXT" or "failed CODE TEXT". SPB_EXPECT names images that live guests have at the
 * start: "TENANT NAME GUEST" each, separated by commas.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"
#include "daemon.h"
#include "image.h"
#include "registry.h"

#define LINE_SIZE 512

bool __real_spb_daemon_run(struct spb_daemon *daemon);
bool __wrap_spb_daemon_run(struct spb_daemon *daemon);
spb_status __real_spb_registry_scan(struct spb_daemon *daemon, struct spb_error *err);
spb_status __wrap_spb_registry_scan(struct spb_daemon *daemon, struct spb_error *err);

static void attach(struct spb_image *image, const char *guest)
{
    struct spb_error err;

    if (spb_is_ok(spb_image_attach(image, guest, &err)))
        printf("ok \n");
    else
        printf("failed %s %s\n", spb_code_name(err.code), err.text);
}

static void run_line(struct spb_daemon *daemon, char *line)
{
    char verb[16], name[80], guest[SPB_GUEST_TEXT_SIZE] = "", finding[SPB_FINDING_TEXT_SIZE];
    unsigned tenant;

    if (sscanf(line, "%15s %u %79s %79s", verb, &tenant, name, guest) < 3) {
        printf("failed invalid what is meant?\n");
        return;
    }
    struct spb_image *image =
        spb_registry_find(daemon->registry, (uint16_t)tenant, name, strlen(name));
    if (image == NULL) {
        printf("failed not-found no image\n");
        return;
    }
    if (strcmp(verb, "attach") == 0) {
        attach(image, guest);
    } else if (strcmp(verb, "poke") == 0) {
        spb_image_poke(image);
        printf("ok \n");
    } else {
        spb_image_detach(image, finding, sizeof(finding));
        printf("ok %s\n", finding);
    }
    spb_image_unref(image);
}

static void *run_lines(void *user)
{
    char line[LINE_SIZE];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        run_line(user, line);
        (void)fflush(stdout);
    }
    return NULL;
}

/* The thread ends with its input, before the daemon: whoever stops this closes that first. */
bool __wrap_spb_daemon_run(struct spb_daemon *daemon)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, run_lines, daemon) != 0)
        return false;
    bool drained = __real_spb_daemon_run(daemon);
    (void)pthread_join(thread, NULL);
    return drained;
}

spb_status __wrap_spb_registry_scan(struct spb_daemon *daemon, struct spb_error *err)
{
    const char *expected = getenv("SPB_EXPECT");
    char *copy = strdup(expected == NULL ? "" : expected), *rest = copy, *one;
    spb_status status = {SPB_OK};

    while (spb_is_ok(status) && (one = strsep(&rest, ",")) != NULL) {
        char name[80], guest[SPB_GUEST_TEXT_SIZE];
        unsigned tenant;

        if (sscanf(one, "%u %79s %79s", &tenant, name, guest) == 3)
            status = spb_attach_expect(daemon, (uint16_t)tenant, name, guest, err);
    }
    free(copy);
    return spb_is_ok(status) ? __real_spb_registry_scan(daemon, err) : status;
}
