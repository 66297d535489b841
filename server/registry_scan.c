/*
 * The registry's reading of the folders, at the start. Files that are no images of ours are named
 * in the log and left alone, but for the temporary files of creations that were interrupted: the
 * lock on the data directory says that nobody is creating now.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "registry.h"
#include "settle.h"
#include "uploads.h"

#define SUFFIX ".img"
#define TEMPORARY_MARK ".img.tmp-" /* of ".NAME.tmp-*", where NAME is the image's file */

/*
 * The reading. Images that the registry knows are opened first, as they are found: where a copy
 * lies beside its original, the original has the uuid. The others follow when those are done.
 */
struct scan {
    struct spb_daemon *daemon;
    struct spb_image_row *rows; /* by tenant and name */
    bool *seen;                 /* of each row: its file is there, or cannot be looked for */
    size_t row_count, row_room;
    spb_status status;        /* of collecting them */
    struct spb_image **fresh; /* held; not known yet */
    size_t fresh_count, fresh_room;

    pthread_mutex_t lock; /* over left: images being opened, one task each */
    pthread_cond_t done;
    size_t left;
};

struct opening_task {
    struct spb_task task;
    struct scan *scan;
    struct spb_image *image;
};

static void open_image(struct spb_task *task)
{
    struct opening_task *opening = SPB_CONTAINER(task, struct opening_task, task);
    struct scan *scan = opening->scan;

    spb_image_open_at_start(opening->image);
    spb_image_unref(opening->image);
    free(opening);
    (void)pthread_mutex_lock(&scan->lock);
    if (--scan->left == 0)
        (void)pthread_cond_signal(&scan->done);
    (void)pthread_mutex_unlock(&scan->lock);
}

static spb_status start_opening(struct scan *scan, struct spb_image *image, struct spb_error *err)
{
    struct opening_task *opening = calloc(1, sizeof(*opening));

    if (opening == NULL)
        return spb_fail_memory(err, "opening the images");
    opening->task.run = open_image;
    opening->scan = scan;
    opening->image = image;
    spb_image_ref(image);
    (void)pthread_mutex_lock(&scan->lock);
    scan->left++;
    (void)pthread_mutex_unlock(&scan->lock);
    spb_pool_submit(scan->daemon->pool, SPB_LANE_COMMIT, &opening->task);
    return spb_ok();
}

static void wait_until_opened(struct scan *scan)
{
    (void)pthread_mutex_lock(&scan->lock);
    while (scan->left > 0)
        (void)pthread_cond_wait(&scan->done, &scan->lock);
    (void)pthread_mutex_unlock(&scan->lock);
}

/* ---- Rows --------------------------------------------------------------------------------- */

/* Room for one item more. */
static void *grown(void *items, size_t count, size_t *room, size_t item_size)
{
    if (count < *room)
        return items;
    size_t wanted = *room == 0 ? 64 : *room * 2;
    void *bigger = realloc(items, wanted * item_size);
    if (bigger != NULL)
        *room = wanted;
    return bigger;
}

static void take_row(void *user, const struct spb_image_row *row)
{
    struct scan *scan = user;
    void *rows = grown(scan->rows, scan->row_count, &scan->row_room, sizeof(*row));

    if (rows == NULL) {
        scan->status = (spb_status){SPB_NO_MEMORY};
        return;
    }
    scan->rows = rows;
    scan->rows[scan->row_count++] = *row;
}

static int order_rows(const void *a, const void *b)
{
    const struct spb_image_row *x = a, *y = b;

    if (x->tenant != y->tenant)
        return x->tenant < y->tenant ? -1 : 1;
    return strcmp(x->name, y->name);
}

static spb_status load_rows(struct scan *scan, struct spb_error *err)
{
    SPB_TRY(spb_rows_images(scan->daemon->audit, take_row, scan, err));
    scan->seen = calloc(scan->row_count + 1, sizeof(*scan->seen));
    if (!spb_is_ok(scan->status) || scan->seen == NULL)
        return spb_fail_memory(err, "reading the registry");
    if (scan->row_count > 0)
        qsort(scan->rows, scan->row_count, sizeof(*scan->rows), order_rows);
    return spb_ok();
}

static const struct spb_image_row *find_row(struct scan *scan, uint16_t tenant, const char *name)
{
    struct spb_image_row key = {.tenant = tenant};

    memcpy(key.name, name, strlen(name) + 1);
    const struct spb_image_row *row =
        scan->row_count == 0 ? NULL
                             : bsearch(&key, scan->rows, scan->row_count, sizeof(key), order_rows);
    if (row != NULL)
        scan->seen[row - scan->rows] = true;
    return row;
}

/* A folder that cannot be read says nothing of its images. */
static void spare_tenant(struct scan *scan, uint16_t tenant)
{
    for (size_t i = 0; i < scan->row_count; i++)
        scan->seen[i] |= scan->rows[i].tenant == tenant;
}

static spb_status drop_vanished(struct scan *scan, struct spb_error *err)
{
    for (size_t i = 0; i < scan->row_count; i++) {
        const struct spb_image_row *row = &scan->rows[i];

        if (scan->seen[i])
            continue;
        SPB_TRY(spb_settle_lost(scan->daemon, row->id, err));
        SPB_TRY(spb_rows_remove_image(scan->daemon->audit, row->id, err));
        spb_log(&scan->daemon->log, SPB_LOG_WARN, "image-vanished",
                SPB_NUMBER("tenant", row->tenant), SPB_TEXT("name", row->name));
    }
    return spb_ok();
}

/* ---- Files -------------------------------------------------------------------------------- */

static void skip(struct spb_daemon *daemon, const char *folder, const char *name, const char *why)
{
    spb_log(&daemon->log, SPB_LOG_WARN, "file-skipped", SPB_TEXT("folder", folder),
            SPB_TEXT("name", name), SPB_TEXT("reason", why));
}

static bool is_temporary(const char *name)
{
    return name[0] == '.' && strstr(name, TEMPORARY_MARK) != NULL;
}

static void remove_temporary(struct spb_daemon *daemon, int folder_fd, const char *folder,
                             const char *name)
{
    bool removed = unlinkat(folder_fd, name, 0) == 0;

    spb_log(&daemon->log, removed ? SPB_LOG_INFO : SPB_LOG_WARN, "leftover-removed",
            SPB_TEXT("folder", folder), SPB_TEXT("name", name),
            SPB_TEXT("outcome", removed ? "done" : strerror(errno)));
}

/* The image's name within a file's name; false where the file cannot be an image. */
static bool image_name(const char *file, char name[SPB_IMAGE_NAME_MAX + 1])
{
    size_t n = strlen(file), suffix = strlen(SUFFIX);

    if (n <= suffix || strcmp(file + n - suffix, SUFFIX) != 0 ||
        !spb_image_name_is_valid(file, n - suffix))
        return false;
    memcpy(name, file, n - suffix);
    name[n - suffix] = '\0';
    return true;
}

static bool is_image_file(int folder_fd, const char *name)
{
    struct stat st;

    return fstatat(folder_fd, name, &st, 0) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

static spb_status keep_fresh(struct scan *scan, struct spb_image *image, struct spb_error *err)
{
    void *fresh =
        grown(scan->fresh, scan->fresh_count, &scan->fresh_room, sizeof(struct spb_image *));

    if (fresh == NULL)
        return spb_fail_memory(err, "reading the folders of images");
    scan->fresh = fresh;
    scan->fresh[scan->fresh_count++] = image;
    spb_image_ref(image);
    return spb_ok();
}

static spb_status take_file(struct scan *scan, uint16_t tenant, const char *name,
                            const struct spb_image_row *row, struct spb_error *err)
{
    struct spb_image *image = NULL;

    SPB_TRY(spb_image_new(scan->daemon, tenant, name, &image, err));
    if (row != NULL)
        image->row = *row;
    spb_status status = spb_registry_add(scan->daemon->registry, image, err);
    if (spb_is_ok(status))
        status = row != NULL ? start_opening(scan, image, err) : keep_fresh(scan, image, err);
    spb_image_unref(image);
    return status;
}

static spb_status look_at_file(struct scan *scan, uint16_t tenant, const char *folder,
                               int folder_fd, const char *file, struct spb_error *err)
{
    char name[SPB_IMAGE_NAME_MAX + 1];

    if (spb_upload_owns_file(file))
        return spb_ok();
    if (is_temporary(file)) {
        remove_temporary(scan->daemon, folder_fd, folder, file);
        return spb_ok();
    }
    if (!image_name(file, name)) {
        skip(scan->daemon, folder, file, "no image's file name, expected NAME.img");
        return spb_ok();
    }
    const struct spb_image_row *row = find_row(scan, tenant, name);
    if (is_image_file(folder_fd, file))
        return take_file(scan, tenant, name, row, err);
    skip(scan->daemon, folder, file, "neither a regular file nor a block device");
    return spb_ok();
}

static spb_status scan_tenant(struct scan *scan, uint16_t tenant, const char *folder, DIR *dir,
                              struct spb_error *err)
{
    struct dirent *entry;

    errno = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            SPB_TRY(look_at_file(scan, tenant, folder, dirfd(dir), entry->d_name, err));
        errno = 0;
    }
    if (errno == 0)
        return spb_ok();
    skip(scan->daemon, folder, "the rest", strerror(errno));
    spare_tenant(scan, tenant);
    return spb_ok();
}

/* A tenant's number as we write it: no sign, no leading zeros. */
static bool tenant_number(const char *text, uint16_t *tenant)
{
    size_t n = strlen(text);

    if (n == 0 || n > 5 || strspn(text, "0123456789") != n || (n > 1 && text[0] == '0'))
        return false;
    unsigned long number = strtoul(text, NULL, 10);
    if (number > UINT16_MAX)
        return false;
    *tenant = (uint16_t)number;
    return true;
}

static spb_status scan_folder(struct scan *scan, const char *name, struct spb_error *err)
{
    struct spb_daemon *daemon = scan->daemon;
    uint16_t tenant = 0;
    char folder[32];

    if (!tenant_number(name, &tenant)) {
        skip(daemon, daemon->images_dir, name, "no tenant's folder, expected 0 to 65535");
        return spb_ok();
    }
    char *path = NULL;
    if (asprintf(&path, "%s/%u", daemon->images_dir, (unsigned)tenant) < 0)
        return spb_fail_memory(err, "reading the folders of images");
    DIR *dir = opendir(path);
    free(path);
    if (dir == NULL) {
        skip(daemon, daemon->images_dir, name, strerror(errno));
        spare_tenant(scan, tenant);
        return spb_ok();
    }
    (void)snprintf(folder, sizeof(folder), "images/%u", (unsigned)tenant);
    spb_status status = scan_tenant(scan, tenant, folder, dir, err);
    (void)closedir(dir);
    return status;
}

static spb_status scan_all(struct scan *scan, struct spb_error *err)
{
    DIR *dir = opendir(scan->daemon->images_dir);
    struct dirent *entry;
    spb_status status = spb_ok();

    if (dir == NULL)
        return spb_fail_errno(err, SPB_IO, errno, "reading the folder %s",
                              scan->daemon->images_dir);
    errno = 0;
    while (spb_is_ok(status) && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.')
            status = scan_folder(scan, entry->d_name, err);
        errno = 0;
    }
    if (spb_is_ok(status) && errno != 0)
        status =
            spb_fail_errno(err, SPB_IO, errno, "reading the folder %s", scan->daemon->images_dir);
    (void)closedir(dir);
    return status;
}

/* Somebody laid them there before the first start; or what was known has gone, and who repeats a
 * call from then is to be watched. */
static void tell_of_new_registry(const struct scan *scan)
{
    if (scan->row_count > 0 || scan->fresh_count == 0)
        return;
    spb_log(&scan->daemon->log, SPB_LOG_WARN, "registry-is-new",
            SPB_NUMBER("images", scan->fresh_count),
            SPB_TEXT("reason", "audit.db knew of no image: it is new, was empty, or was lost"));
}

static spb_status run(struct scan *scan, struct spb_error *err)
{
    SPB_TRY(load_rows(scan, err));
    spb_status status = scan_all(scan, err);
    wait_until_opened(scan);
    SPB_TRY(status);
    tell_of_new_registry(scan);
    for (size_t i = 0; i < scan->fresh_count && spb_is_ok(status); i++)
        status = start_opening(scan, scan->fresh[i], err);
    wait_until_opened(scan);
    SPB_TRY(status);
    return drop_vanished(scan, err);
}

spb_status spb_registry_scan(struct spb_daemon *daemon, struct spb_error *err)
{
    struct scan scan = {.daemon = daemon, .status = spb_ok()};

    (void)pthread_mutex_init(&scan.lock, NULL);
    (void)pthread_cond_init(&scan.done, NULL);
    spb_status status = run(&scan, err);
    for (size_t i = 0; i < scan.fresh_count; i++)
        spb_image_unref(scan.fresh[i]);
    free(scan.fresh);
    free(scan.rows);
    free(scan.seen);
    (void)pthread_cond_destroy(&scan.done);
    (void)pthread_mutex_destroy(&scan.lock);
    return status;
}
