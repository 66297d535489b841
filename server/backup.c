/* The table of backups; see backup.h. */
#include "backup.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/status.h"
#include "copy_file.h"
#include "daemon.h"

#define UNFOUND_NS (60 * SPB_NS_PER_S)

struct spb_backups {
    struct spb_daemon *daemon;
    pthread_mutex_t lock;     /* over all below, and as backup.h says */
    struct spb_backup *first; /* each holds a reference */
    size_t count;
    bool ending; /* there are no workers any more */
};

static void lock(struct spb_backups *backups)
{
    (void)pthread_mutex_lock(&backups->lock);
}

static void unlock(struct spb_backups *backups)
{
    (void)pthread_mutex_unlock(&backups->lock);
}

spb_status spb_backups_new(struct spb_daemon *daemon, struct spb_backups **out,
                           struct spb_error *err)
{
    struct spb_backups *backups = calloc(1, sizeof(*backups));

    if (backups == NULL)
        return spb_fail_memory(err, "making the table of backups");
    backups->daemon = daemon;
    (void)pthread_mutex_init(&backups->lock, NULL);
    *out = backups;
    return spb_ok();
}

void spb_backups_free(struct spb_backups *backups)
{
    if (backups == NULL)
        return;
    backups->ending = true;
    while (backups->first != NULL)
        spb_backup_end(backups->first);
    (void)pthread_mutex_destroy(&backups->lock);
    free(backups);
}

/* ---- One ---------------------------------------------------------------------------------- */

/* Giving back many gigabytes takes its time: not on the loop's thread. */
static void run_close(struct spb_task *task)
{
    struct spb_backup *backup = SPB_CONTAINER(task, struct spb_backup, close_task);

    if (backup->fd >= 0)
        (void)close(backup->fd);
    spb_temporary_give(backup->table->daemon, backup->size);
    free(backup);
}

static bool has_room(const struct spb_backups *backups, const struct spb_principal *owner,
                     uint64_t most, uint64_t most_of_one)
{
    uint64_t of_one = 0;

    for (const struct spb_backup *b = backups->first; b != NULL; b = b->next)
        of_one += spb_principal_is_same(&b->owner, owner);
    return backups->count < most && of_one < most_of_one;
}

/* False: there are too many. */
static bool enlist(struct spb_backup *backup)
{
    struct spb_backups *backups = backup->table;

    lock(backups);
    bool room = has_room(backups, &backup->owner, SPB_LIMIT(backups->daemon, backups_max),
                         SPB_LIMIT(backups->daemon, backups_principal_max));
    if (room) {
        backup->refs++;
        backup->listed = true;
        backup->next = backups->first;
        backups->first = backup;
        backups->count++;
    }
    unlock(backups);
    return room;
}

/* The principal's oldest that nobody has asked for in a minute; false where there is none. */
static bool end_unfound(const struct spb_backup *for_this)
{
    struct spb_backups *backups = for_this->table;
    struct spb_backup *oldest = NULL;
    int64_t before_ns = spb_now_ns() - UNFOUND_NS;

    lock(backups);
    for (struct spb_backup *b = backups->first; b != NULL; b = b->next) {
        if (b->ready && !b->found && b->used_ns < before_ns &&
            spb_principal_is_same(&b->owner, &for_this->owner))
            oldest = b; /* the newest are first */
    }
    if (oldest != NULL)
        oldest->refs++;
    unlock(backups);
    if (oldest == NULL)
        return false;
    spb_backup_end(oldest);
    spb_backup_unref(oldest);
    return true;
}

spb_status spb_backup_new(struct spb_backups *backups, const struct spb_principal *owner,
                          struct spb_backup **out, struct spb_error *err)
{
    struct spb_backup *backup = calloc(1, sizeof(*backup));

    if (backup == NULL)
        return spb_fail_memory(err, "making a backup");
    *backup = (struct spb_backup){
        .table = backups,
        .refs = 1,
        .owner = *owner,
        .fd = -1,
        .used_ns = spb_now_ns(),
        .close_task = {.run = run_close},
    };
    if (getrandom(backup->id, sizeof(backup->id), 0) != (ssize_t)sizeof(backup->id)) {
        free(backup);
        return spb_fail_errno(err, SPB_UNSUPPORTED, errno, "drawing a backup's id");
    }
    if (!enlist(backup) && !(end_unfound(backup) && enlist(backup))) {
        free(backup);
        return spb_fail(err, SPB_LIMIT,
                        "there are too many backups, at most %llu of one principal and %llu of all "
                        "are kept: end one",
                        (unsigned long long)SPB_LIMIT(backups->daemon, backups_principal_max),
                        (unsigned long long)SPB_LIMIT(backups->daemon, backups_max));
    }
    *out = backup;
    return spb_ok();
}

void spb_backup_set_ready(struct spb_backup *backup)
{
    lock(backup->table);
    backup->ready = true;
    backup->used_ns = spb_now_ns();
    unlock(backup->table);
}

struct spb_backup *spb_backup_find(struct spb_backups *backups,
                                   const struct spb_principal *principal, const void *id,
                                   size_t id_len)
{
    struct spb_backup *backup = NULL;

    if (id_len != SPB_BACKUP_ID_SIZE)
        return NULL;
    lock(backups);
    for (backup = backups->first; backup != NULL; backup = backup->next) {
        if (backup->ready && memcmp(backup->id, id, id_len) == 0 &&
            spb_principal_is_same(&backup->owner, principal))
            break;
    }
    if (backup != NULL) {
        backup->refs++;
        backup->found = true;
        backup->used_ns = spb_now_ns();
    }
    unlock(backups);
    return backup;
}

void spb_backup_unref(struct spb_backup *backup)
{
    struct spb_backups *backups = backup->table;

    lock(backups);
    bool last = --backup->refs == 0;
    bool ending = backups->ending;
    unlock(backups);
    if (last && ending)
        run_close(&backup->close_task);
    else if (last)
        spb_pool_submit(backups->daemon->pool, SPB_LANE_BULK, &backup->close_task);
}

void spb_backup_end(struct spb_backup *backup)
{
    struct spb_backups *backups = backup->table;
    struct spb_backup **place = &backups->first;

    lock(backups);
    bool listed = backup->listed;
    if (listed) {
        while (*place != backup)
            place = &(*place)->next;
        *place = backup->next;
        backups->count--;
        backup->listed = false;
    }
    unlock(backups);
    if (listed)
        spb_backup_unref(backup);
}

static struct spb_backup *find_expired(struct spb_backups *backups, int64_t before_ns)
{
    struct spb_backup *backup;

    lock(backups);
    for (backup = backups->first; backup != NULL; backup = backup->next) {
        if (backup->ready && backup->used_ns < before_ns)
            break;
    }
    if (backup != NULL)
        backup->refs++;
    unlock(backups);
    return backup;
}

void spb_backups_expire(struct spb_backups *backups, int64_t now_ns)
{
    int64_t life_ns = (int64_t)SPB_LIMIT(backups->daemon, backup_life_s) * SPB_NS_PER_S;
    struct spb_backup *backup;

    while ((backup = find_expired(backups, now_ns - life_ns)) != NULL) {
        spb_backup_end(backup);
        spb_backup_unref(backup);
    }
}

spb_status spb_backup_path(const struct spb_backup *backup, char **path, struct spb_error *err)
{
    char hex[2 * SPB_BACKUP_ID_SIZE + 1];

    for (size_t i = 0; i < SPB_BACKUP_ID_SIZE; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", backup->id[i]);
    if (asprintf(path, "%s/%s", backup->table->daemon->copies_dir, hex) >= 0)
        return spb_ok();
    *path = NULL;
    return spb_fail_memory(err, "making a backup");
}
