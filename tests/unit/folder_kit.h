/* A temporary folder for a test, removed at its end with all that is in it. One a process. */
#ifndef SPB_TESTS_UNIT_FOLDER_KIT_H
#define SPB_TESTS_UNIT_FOLDER_KIT_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

static char folder[64];

static void folder_make(void)
{
    snprintf(folder, sizeof(folder), "/tmp/spb-unit-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static int folder_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void folder_remove(void)
{
    (void)umount2(folder, MNT_DETACH); /* of a test that mounted something there */
    (void)nftw(folder, folder_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A skipped test does not get to its end. */
#define folder_skip(why)                                                                           \
    do {                                                                                           \
        folder_remove();                                                                           \
        cr_skip_test(why);                                                                         \
    } while (0)

#endif
