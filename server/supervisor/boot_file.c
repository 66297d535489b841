/*
 * Where a kernel or an initial RAM disk is: an artifact of the guest's tenant, whose name is its
 * hash, or a file that lies directly in the folder which the configuration gives. QEMU reads both
 * whole when it starts: what becomes of the file then is of no consequence to a running guest.
 * Media rot, and a guest that boots from something else than was named may do anything to its
 * images: so an artifact is held against its hash before each start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifacts.h"
#include "base/status.h"
#include "daemon.h"
#include "supervisor/work.h"

static spb_status find_artifact(struct spb_daemon *daemon, uint16_t tenant,
                                const ProtobufCBinaryData *sha256, const char *what, char **path,
                                struct spb_error *err)
{
    char text[SPB_SHA256_TEXT_SIZE];
    struct spb_artifact_row row;
    spb_status status = spb_artifact_find(daemon, tenant, sha256->data, &row, err);

    spb_sha256_text(sha256->data, text);
    if (status.code == SPB_NOT_FOUND)
        return spb_fail(err, SPB_NOT_FOUND, "no artifact %s, which is to be the %s", text, what);
    SPB_TRY(status);
    return spb_artifact_path(daemon, tenant, sha256->data, path, err);
}

/* The name has no slash and no dot in front: it is in the folder, or nothing is. */
static spb_status find_file(const struct spb_daemon *daemon, const ProtobufCBinaryData *name,
                            const char *what, char **path, struct spb_error *err)
{
    const char *folder = daemon->options.guest_files;

    if (folder[0] == '\0')
        return spb_fail(err, SPB_NOT_FOUND,
                        "no file %.*s, which is to be the %s: the configuration has no guest_files",
                        (int)name->len, (const char *)name->data, what);
    if (asprintf(path, "%s/%.*s", folder, (int)name->len, (const char *)name->data) >= 0)
        return spb_ok();
    *path = NULL;
    return spb_fail_memory(err, "naming a file of a guest");
}

static spb_status check_file(const char *path, const PB_BootFile *file, const char *what,
                             struct spb_error *err)
{
    struct stat st;
    bool is_named = file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_FILE;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int number = errno;

    if (fd < 0 && is_named && (number == ENOENT || number == ELOOP))
        return spb_fail(err, SPB_NOT_FOUND, "no file %.*s in guest_files, which is to be the %s",
                        (int)file->file.len, (const char *)file->file.data, what);
    if (fd < 0)
        return spb_fail_errno(err, SPB_IO, number, "opening the guest's %s", what);
    bool is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    (void)close(fd);
    return is_file ? spb_ok()
                   : spb_fail(err, SPB_INVALID, "the guest's %s is no regular file", what);
}

spb_status spb_boot_file_find(struct spb_daemon *daemon, uint16_t tenant, const PB_BootFile *file,
                              const char *what, char **out, struct spb_error *err)
{
    char *path = NULL, *whole = NULL;

    if (file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_SHA256)
        SPB_TRY(find_artifact(daemon, tenant, &file->sha256, what, &path, err));
    else
        SPB_TRY(find_file(daemon, &file->file, what, &path, err));
    spb_status status = check_file(path, file, what, err);
    if (spb_is_ok(status)) {
        whole = realpath(path, NULL);
        if (whole == NULL)
            status = spb_fail_errno(err, SPB_IO, errno, "looking at the guest's %s", what);
    }
    free(path);
    SPB_TRY(status);
    *out = whole;
    return spb_ok();
}

spb_status spb_boot_file_verify(struct spb_daemon *daemon, uint16_t tenant, const PB_BootFile *file,
                                const char *what, struct spb_error *err)
{
    struct spb_error found;
    char *path = NULL;

    if (file->place_case != SPACEBLOCK__V1__BOOT_FILE__PLACE_SHA256)
        return spb_ok();
    SPB_TRY(spb_artifact_path(daemon, tenant, file->sha256.data, &path, err));
    spb_status status = spb_artifact_check(path, file->sha256.data, NULL, NULL, &found);
    free(path);
    if (spb_is_ok(status))
        return status;
    return spb_fail(err, found.code, "the guest's %s cannot be used: %.400s%s", what, found.text,
                    found.code == SPB_CORRUPT ? ": upload it again" : "");
}
