/* Uploads, artifacts, copies and backups as parts of the daemon; see stores.h. */
#include "stores.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifacts.h"
#include "backup.h"
#include "base/status.h"
#include "copy.h"
#include "daemon.h"
#include "uploads.h"

static spb_status make_folder(const struct spb_daemon *daemon, const char *name, char **path,
                              struct spb_error *err)
{
    if (asprintf(path, "%s/%s", daemon->data_dir, name) < 0) {
        *path = NULL;
        return spb_fail_memory(err, "naming the folders of the data directory");
    }
    if (mkdir(*path, 0700) != 0 && errno != EEXIST)
        return spb_fail_errno(err, SPB_IO, errno, "making the folder %s", *path);
    return spb_ok();
}

/* Copies have no name but for the moment in which they are opened: what is there was left over. */
static void sweep_copies(struct spb_daemon *daemon)
{
    DIR *dir = opendir(daemon->copies_dir);
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' || unlinkat(dirfd(dir), entry->d_name, 0) != 0)
            continue;
        spb_log(&daemon->log, SPB_LOG_INFO, "leftover-removed", SPB_TEXT("folder", "copies"),
                SPB_TEXT("name", entry->d_name));
    }
    if (dir != NULL)
        (void)closedir(dir);
}

spb_status spb_stores_start(struct spb_daemon *daemon, struct spb_error *err)
{
    (void)pthread_mutex_init(&daemon->artifacts_lock, NULL);
    SPB_TRY(make_folder(daemon, "artifacts", &daemon->artifacts_dir, err));
    SPB_TRY(make_folder(daemon, "copies", &daemon->copies_dir, err));
    sweep_copies(daemon);
    SPB_TRY(spb_copies_new(daemon, &daemon->copies, err));
    SPB_TRY(spb_backups_new(daemon, &daemon->backups, err));
    return spb_uploads_new(daemon, &daemon->uploads, err);
}

void spb_stores_stop(struct spb_daemon *daemon)
{
    spb_uploads_free(daemon->uploads);
    spb_backups_free(daemon->backups);
    spb_copies_free(daemon->copies);
    free(daemon->copies_dir);
    free(daemon->artifacts_dir);
    (void)pthread_mutex_destroy(&daemon->artifacts_lock);
}

spb_status spb_stores_load(struct spb_daemon *daemon, struct spb_error *err)
{
    SPB_TRY(spb_uploads_load(daemon, err));
    return spb_artifacts_load(daemon, err);
}

void spb_stores_settle(struct spb_daemon *daemon)
{
    spb_uploads_settle(daemon->uploads);
}

void spb_stores_tick(struct spb_daemon *daemon, int64_t now_ns)
{
    spb_uploads_expire(daemon->uploads, now_ns);
    spb_backups_expire(daemon->backups, now_ns);
}
