/* Whose turn it is to be scrubbed; see scrub_order.h. */
#include "scrub_order.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "registry.h"
#include "util.h"

#define FILE_NAME "scrub-position"
#define GRACE_NS (60 * SPB_NS_PER_S) /* a daemon that has just been started has other work */

/* Between the beginnings of two scrubs; 0: none by itself. */
static int64_t spacing_ns(const struct spb_daemon *daemon)
{
    uint64_t interval_s = SPB_LIMIT(daemon, scrub_interval_s);
    size_t images = spb_registry_count(daemon->registry);

    return (int64_t)interval_s * SPB_NS_PER_S / (int64_t)(images == 0 ? 1 : images);
}

/* "TENANT NAME UNIX-SECONDS". Anything else is as no file. */
static bool read_position(struct spb_scrub_order *order, int64_t *at_s)
{
    char line[SPB_IMAGE_NAME_MAX + 64], *end = NULL;
    FILE *file = fopen(order->path, "re");

    if (file == NULL)
        return false;
    bool good = fgets(line, sizeof(line), file) != NULL;
    (void)fclose(file);
    if (!good)
        return false;
    unsigned long tenant = strtoul(line, &end, 10);
    char *name = end + strspn(end, " ");
    size_t n = strcspn(name, " \n");
    if (end == line || tenant > UINT16_MAX || name[n] != ' ' || !spb_image_name_is_valid(name, n))
        return false;
    int64_t found_s = strtoll(name + n, &end, 10);
    if (end == name + n)
        return false;
    *at_s = found_s;
    order->tenant = (uint16_t)tenant;
    memcpy(order->name, name, n);
    order->name[n] = '\0';
    return true;
}

/* Not synced: after a power loss some images come once more. */
static bool write_position(const struct spb_scrub_order *order)
{
    char *fresh = NULL;
    bool good = false;

    if (asprintf(&fresh, "%s.new", order->path) < 0)
        return false;
    FILE *file = fopen(fresh, "we");
    if (file != NULL) {
        good = fprintf(file, "%u %s %" PRId64 "\n", (unsigned)order->tenant, order->name,
                       (int64_t)time(NULL)) > 0;
        good = fclose(file) == 0 && good;
        good = good && rename(fresh, order->path) == 0;
        if (!good)
            (void)unlink(fresh);
    }
    free(fresh);
    return good;
}

spb_status spb_scrub_order_init(struct spb_scrub_order *order, struct spb_daemon *daemon,
                                struct spb_error *err)
{
    int64_t now_ns = spb_now_ns(), now_s = (int64_t)time(NULL), at_s = 0;

    *order = (struct spb_scrub_order){.daemon = daemon, .started_ns = INT64_MIN};
    if (asprintf(&order->path, "%s/" FILE_NAME, daemon->data_dir) < 0) {
        order->path = NULL;
        return spb_fail_memory(err, "naming the file of scrubs");
    }
    order->first_ns = now_ns;
    /* A clock that was set back counts as no time at all. */
    if (read_position(order, &at_s))
        order->started_ns = at_s < now_s && now_s - at_s < INT32_MAX
                                ? now_ns - (now_s - at_s) * SPB_NS_PER_S
                                : now_ns;
    return spb_ok();
}

void spb_scrub_order_done(struct spb_scrub_order *order)
{
    free(order->path);
}

int64_t spb_scrub_order_due(const struct spb_scrub_order *order)
{
    int64_t spacing = spacing_ns(order->daemon);

    if (spacing == 0)
        return INT64_MAX;
    int64_t first_ns = order->first_ns + (spacing < GRACE_NS ? spacing : GRACE_NS);
    if (order->started_ns == INT64_MIN)
        return first_ns;
    int64_t due_ns = order->started_ns + spacing;
    return due_ns < first_ns ? first_ns : due_ns;
}

/* After the last one, and once from the start where that was the end; at most that many. */
static struct spb_image *find_ready(struct spb_scrub_order *order)
{
    struct spb_registry *registry = order->daemon->registry;
    size_t left = spb_registry_count(registry);
    bool wrapped = order->name[0] == '\0';
    char name[SPB_IMAGE_NAME_MAX + 1];
    struct spb_registry_place place = {.tenant = -1, .after_tenant = order->tenant};
    struct spb_image *image = NULL;

    memcpy(name, order->name, sizeof(name));
    place.after_name = wrapped ? NULL : name;
    while (left > 0) {
        if (spb_registry_list(registry, &place, &image, 1) == 0) {
            if (wrapped)
                return NULL;
            wrapped = true;
            place.after_name = NULL;
            continue;
        }
        if (spb_image_state(image) == SPB_IMAGE_READY)
            return image;
        memcpy(name, image->name, sizeof(name));
        place.after_tenant = image->tenant;
        place.after_name = name;
        spb_image_unref(image);
        left--;
    }
    return NULL;
}

struct spb_image *spb_scrub_order_next(struct spb_scrub_order *order)
{
    struct spb_image *image = find_ready(order);

    order->started_ns = spb_now_ns();
    if (image == NULL)
        return NULL;
    order->tenant = image->tenant;
    memcpy(order->name, image->name, sizeof(order->name));
    if (!write_position(order) && !order->failed) {
        order->failed = true;
        spb_log(&order->daemon->log, SPB_LOG_WARN, "scrub-position-not-kept",
                SPB_TEXT("file", order->path));
    }
    return image;
}
