/*
 * Backups: consistent copies of images, kept as files without a name until they are ended, have not
 * been used for backup_life_s, or the daemon ends. A backup belongs to a tenant and principal; to
 * others it is absent. The table's lock is over the members marked so.
 */
#ifndef SPB_SERVER_BACKUP_H
#define SPB_SERVER_BACKUP_H

#include "call.h"
#include "pool.h"

#define SPB_BACKUP_ID_SIZE 16u

struct spb_backups;

struct spb_backup {
    struct spb_backup *next; /* in the table; under its lock, as the next five */
    unsigned refs;
    bool listed;
    bool ready; /* to be read */
    bool found; /* since then */
    int64_t used_ns;

    /* Constant, but for what the maker sets before it is ready. */
    struct spb_backups *table;
    uint8_t id[SPB_BACKUP_ID_SIZE];
    struct spb_principal owner;
    int fd;        /* -1: none yet */
    uint64_t size; /* of the file, counted among the temporary bytes */
    struct spb_task close_task;
};

SPB_MUST_USE spb_status spb_backups_new(struct spb_daemon *daemon, struct spb_backups **backups,
                                        struct spb_error *err);
/* When no worker runs any more. Accepts NULL. */
void spb_backups_free(struct spb_backups *backups);

/*
 * One in the making, with the maker's reference. SPB_LIMIT where there are too many; but one of the
 * same principal that was made a minute ago, and nobody has asked for since, ends for it: its id
 * may never have come to who wanted it.
 */
SPB_MUST_USE spb_status spb_backup_new(struct spb_backups *backups,
                                       const struct spb_principal *owner,
                                       struct spb_backup **backup, struct spb_error *err);
/* It can be read from now on. */
void spb_backup_set_ready(struct spb_backup *backup);
/* The caller's, ready, referenced, its life prolonged; NULL where there is none. */
struct spb_backup *spb_backup_find(struct spb_backups *backups,
                                   const struct spb_principal *principal, const void *id,
                                   size_t id_len);
/* The last one closes the file, on a worker. Any thread. */
void spb_backup_unref(struct spb_backup *backup);
/* Nobody finds it any more. */
void spb_backup_end(struct spb_backup *backup);
void spb_backups_expire(struct spb_backups *backups, int64_t now_ns);

/* A path for a new file, which loses its name at once; the caller's, free(). */
SPB_MUST_USE spb_status spb_backup_path(const struct spb_backup *backup, char **path,
                                        struct spb_error *err);

#endif
