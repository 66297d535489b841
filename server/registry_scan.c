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

#define SUFFIX ".img"
#define TEMPORARY_MARK ".img.tmp-" /* of ".NAME.tmp-*", where NAME is the image's file */

/* Images being opened, one task each; the last one wakes who waits. */
struct opener {
    pthread_mutex_t lock;
    pthread_cond_t done;
    size_t left;
};

struct opening_task {
    struct spb_task task;
    struct opener *opener;
    struct spb_image *image;
};

static void open_image(struct spb_task *task)
{
    struct opening_task *opening = SPB_CONTAINER(task, struct opening_task, task);
    struct opener *opener = opening->opener;

    spb_image_open(opening->image);
    spb_image_unref(opening->image);
    free(opening);
    (void)pthread_mutex_lock(&opener->lock);
    if (--opener->left == 0)
        (void)pthread_cond_signal(&opener->done);
    (void)pthread_mutex_unlock(&opener->lock);
}

static spb_status start_opening(struct spb_daemon *daemon, struct opener *opener,
                                struct spb_image *image, struct spb_error *err)
{
    struct opening_task *opening = calloc(1, sizeof(*opening));

    if (opening == NULL)
        return spb_fail_memory(err, "opening the images");
    opening->task.run = open_image;
    opening->opener = opener;
    opening->image = image;
    spb_image_ref(image);
    (void)pthread_mutex_lock(&opener->lock);
    opener->left++;
    (void)pthread_mutex_unlock(&opener->lock);
    spb_pool_submit(daemon->pool, SPB_LANE_COMMIT, &opening->task);
    return spb_ok();
}

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

static spb_status take_file(struct spb_daemon *daemon, struct opener *opener, uint16_t tenant,
                            const char *name, struct spb_error *err)
{
    struct spb_image *image = NULL;

    SPB_TRY(spb_image_new(daemon, tenant, name, &image, err));
    spb_status status = spb_registry_add(daemon->registry, image, err);
    if (spb_is_ok(status))
        status = start_opening(daemon, opener, image, err);
    spb_image_unref(image);
    return status;
}

static spb_status scan_tenant(struct spb_daemon *daemon, struct opener *opener, uint16_t tenant,
                              const char *folder, DIR *dir, struct spb_error *err)
{
    struct dirent *entry;

    while ((entry = readdir(dir)) != NULL) {
        char name[SPB_IMAGE_NAME_MAX + 1];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (is_temporary(entry->d_name))
            remove_temporary(daemon, dirfd(dir), folder, entry->d_name);
        else if (!image_name(entry->d_name, name))
            skip(daemon, folder, entry->d_name, "no image's file name, expected NAME.img");
        else if (!is_image_file(dirfd(dir), entry->d_name))
            skip(daemon, folder, entry->d_name, "neither a regular file nor a block device");
        else
            SPB_TRY(take_file(daemon, opener, tenant, name, err));
    }
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

static spb_status scan_folder(struct spb_daemon *daemon, struct opener *opener, const char *name,
                              struct spb_error *err)
{
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
    if (dir == NULL) {
        skip(daemon, daemon->images_dir, name, strerror(errno));
        free(path);
        return spb_ok();
    }
    free(path);
    (void)snprintf(folder, sizeof(folder), "images/%u", (unsigned)tenant);
    spb_status status = scan_tenant(daemon, opener, tenant, folder, dir, err);
    (void)closedir(dir);
    return status;
}

static spb_status scan_all(struct spb_daemon *daemon, struct opener *opener, struct spb_error *err)
{
    DIR *dir = opendir(daemon->images_dir);
    struct dirent *entry;
    spb_status status = spb_ok();

    if (dir == NULL)
        return spb_fail_errno(err, SPB_IO, errno, "reading the folder %s", daemon->images_dir);
    while (spb_is_ok(status) && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.')
            status = scan_folder(daemon, opener, entry->d_name, err);
    }
    (void)closedir(dir);
    return status;
}

spb_status spb_registry_scan(struct spb_daemon *daemon, struct spb_error *err)
{
    struct opener opener = {.left = 0};

    (void)pthread_mutex_init(&opener.lock, NULL);
    (void)pthread_cond_init(&opener.done, NULL);
    spb_status status = scan_all(daemon, &opener, err);
    (void)pthread_mutex_lock(&opener.lock);
    while (opener.left > 0)
        (void)pthread_cond_wait(&opener.done, &opener.lock);
    (void)pthread_mutex_unlock(&opener.lock);
    (void)pthread_cond_destroy(&opener.done);
    (void)pthread_mutex_destroy(&opener.lock);
    return status;
}
