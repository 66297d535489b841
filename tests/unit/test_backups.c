/* The table of backups: whose they are, and which give way when there are too many. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "backup.h"
#include "daemon.h"

#define OK(call) cr_assert_eq((call).code, SPB_OK, "%s", err.text)

static struct spb_daemon daemon_one;
static struct spb_backups *table;
static struct spb_error err;
static const struct spb_principal me = {.name = "uid:1", .tenant = 1},
                                  other = {.name = "uid:2", .tenant = 1},
                                  namesake = {.name = "uid:1", .tenant = 2};

static void set_up(void)
{
    spb_limits_init(&daemon_one.limits);
    daemon_one.limits.backups_principal_max = 2;
    OK(spb_pool_new(&daemon_one.pool, &err));
    OK(spb_backups_new(&daemon_one, &table, &err));
}

static void tear_down(void)
{
    spb_pool_free(daemon_one.pool);
    spb_backups_free(table);
}

/* One that is ready, made so long ago; the table alone has it. Its id goes to id. */
static bool make(const struct spb_principal *owner, int64_t age_s, uint8_t id[SPB_BACKUP_ID_SIZE])
{
    struct spb_backup *backup;

    if (spb_backup_new(table, owner, &backup, &err).code != SPB_OK)
        return false;
    spb_backup_set_ready(backup);
    backup->used_ns -= age_s * SPB_NS_PER_S;
    memcpy(id, backup->id, SPB_BACKUP_ID_SIZE);
    spb_backup_unref(backup);
    return true;
}

static bool is_there(const struct spb_principal *who, const uint8_t id[SPB_BACKUP_ID_SIZE])
{
    struct spb_backup *backup = spb_backup_find(table, who, id, SPB_BACKUP_ID_SIZE);

    if (backup != NULL)
        spb_backup_unref(backup);
    return backup != NULL;
}

Test(backups, to_others_they_are_absent, .init = set_up, .fini = tear_down)
{
    uint8_t id[SPB_BACKUP_ID_SIZE];

    cr_assert(make(&me, 0, id));
    cr_assert(is_there(&me, id));
    cr_assert_not(is_there(&other, id));
    cr_assert_not(is_there(&namesake, id));
    cr_assert_null(spb_backup_find(table, &me, id, sizeof(id) - 1));
}

Test(backups, what_nobody_asked_for_gives_way, .init = set_up, .fini = tear_down)
{
    uint8_t first[SPB_BACKUP_ID_SIZE], second[SPB_BACKUP_ID_SIZE], third[SPB_BACKUP_ID_SIZE];

    cr_assert(make(&me, 90, first));
    cr_assert(make(&me, 80, second));
    cr_assert(make(&me, 0, third), "%s", err.text);
    cr_assert_not(is_there(&me, first), "the oldest goes");
    cr_assert(is_there(&me, second));
    cr_assert(is_there(&me, third));
}

Test(backups, what_is_used_new_or_anothers_stays, .init = set_up, .fini = tear_down)
{
    uint8_t used[SPB_BACKUP_ID_SIZE], fresh[SPB_BACKUP_ID_SIZE], theirs[SPB_BACKUP_ID_SIZE],
        wanted[SPB_BACKUP_ID_SIZE];
    struct spb_backup *backup;

    cr_assert(make(&other, 90, theirs));
    cr_assert(make(&me, 0, used));
    backup = spb_backup_find(table, &me, used, sizeof(used));
    backup->used_ns -= 90 * SPB_NS_PER_S;
    spb_backup_unref(backup);
    cr_assert(make(&me, 50, fresh));
    cr_assert_not(make(&me, 0, wanted));
    cr_assert_eq(err.code, SPB_LIMIT);
    cr_assert(is_there(&me, used));
    cr_assert(is_there(&me, fresh));
    cr_assert(is_there(&other, theirs));
}
