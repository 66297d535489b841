/* Where the bytes of a data product go; see sink.h. */
#include "cli/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/durable.h"
#include "spaceblock/client.h"

#define PUSH_BYTES ((uint64_t)4 << 20)

static spb_status fail_path(struct spb_error *err, const char *what, const char *path)
{
    return spb_fail_errno(err, SPB_IO, errno, "%s \"%s\"", what, path);
}

/* A name beside path that nobody else has: hidden, and as random as a request's. NULL: see err. */
static char *temporary_name(const char *path, struct spb_error *err)
{
    const char *slash = strrchr(path, '/');
    int before = slash == NULL ? 0 : (int)(slash + 1 - path);
    char id[SPB_REQUEST_ID_SIZE];
    char *name = NULL;

    if (!spb_is_ok(spb_client_request_id(id, err)))
        return NULL;
    if (asprintf(&name, "%.*s.spaceblock-%s", before, path, id) >= 0)
        return name;
    (void)spb_fail_memory(err, "naming a temporary file");
    return NULL;
}

/* An image is not what a product is meant to replace: the name was mistaken. */
static spb_status refuse_image(const char *path, struct spb_error *err)
{
    static const char magic[4] = {'S', 'P', 'O', 'S'};
    char found[sizeof(magic)];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return spb_ok();
    bool image = read(fd, found, sizeof(found)) == (ssize_t)sizeof(found) &&
                 memcmp(found, magic, sizeof(magic)) == 0;
    (void)close(fd);
    if (!image)
        return spb_ok();
    return spb_fail(err, SPB_EXISTS,
                    "cannot write to %s: a SpaceOS image stands there, which would be "
                    "replaced; remove the image first if that is meant",
                    path);
}

/* A file without a name in the folder, so that being killed leaves nothing behind; where the file
 * system has none of these, one with a hidden name. */
static spb_status open_beside(struct cli_output *output, mode_t mode, struct spb_error *err)
{
    char *folder = cli_durable_folder(output->path);

    if (folder == NULL)
        return spb_fail_memory(err, "opening the output");
    output->fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
    free(folder);
    if (output->fd >= 0)
        return spb_ok();
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return fail_path(err, "creating", output->path);
    char *name = temporary_name(output->path, err);
    if (name == NULL)
        return (spb_status){err->code};
    output->fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
    if (output->fd >= 0) {
        output->temporary = name;
        return spb_ok();
    }
    free(name);
    return fail_path(err, "creating", output->path);
}

static spb_status find_place(const char *path, struct cli_output *output, struct spb_error *err)
{
    struct stat about;
    bool exists = stat(path, &about) == 0;

    if (exists && S_ISDIR(about.st_mode))
        return spb_fail(err, SPB_INVALID, "writing \"%s\": found a directory, expected a file",
                        path);
    if (exists && !S_ISREG(about.st_mode)) {
        /* A pipe or device is written to, never replaced. */
        output->fd = open(path, O_WRONLY | O_CLOEXEC);
        return output->fd < 0 ? fail_path(err, "opening", path) : spb_ok();
    }
    output->named = true;
    output->replaces = exists;
    output->mode = exists ? about.st_mode & 07777 : 0666;
    /* Through a symbolic link the file it names is replaced, not the link. */
    output->path = exists ? realpath(path, NULL) : strdup(path);
    return output->path == NULL ? fail_path(err, "opening", path) : spb_ok();
}

spb_status cli_output_find(const char *path, struct cli_output *output, struct spb_error *err)
{
    struct cli_output found = {.fd = -1};
    spb_status status = spb_ok();

    if (strcmp(path, "-") == 0)
        found.fd = STDOUT_FILENO;
    else
        status = refuse_image(path, err);
    if (spb_is_ok(status) && found.fd < 0)
        status = find_place(path, &found, err);
    if (!spb_is_ok(status)) {
        cli_output_done(&found);
        return status;
    }
    *output = found;
    return status;
}

spb_status cli_output_take_mode(struct cli_output *output, struct spb_error *err)
{
    if (output->replaces && fchmod(output->fd, output->mode) != 0)
        return fail_path(err, "setting the mode of", output->path);
    return spb_ok();
}

spb_status cli_output_make(struct cli_output *output, struct spb_error *err)
{
    SPB_TRY(open_beside(output, 0666, err));
    return cli_output_take_mode(output, err);
}

/* The disk begins with what was written while more comes: commit then waits for the last of it
 * only. This makes nothing durable, and a failure is told by commit. */
static void push(struct cli_output *output, size_t n)
{
    output->pushed += n;
    if (!output->named || output->pushed < PUSH_BYTES)
        return;
    off_t end = lseek(output->fd, 0, SEEK_CUR);
    if (end >= (off_t)output->pushed)
        (void)sync_file_range(output->fd, end - (off_t)output->pushed, (off_t)output->pushed,
                              SYNC_FILE_RANGE_WRITE);
    output->pushed = 0;
}

spb_status cli_output_write(void *user, const void *data, size_t n, struct spb_error *err)
{
    struct cli_output *output = user;
    const uint8_t *at = data;
    size_t total = n;

    while (n > 0) {
        ssize_t done = write(output->fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return fail_path(err, "writing", output->path == NULL ? "the output" : output->path);
        at += done;
        n -= (size_t)done;
    }
    push(output, total);
    return spb_ok();
}

spb_status cli_output_commit(struct cli_output *output, struct spb_error *err)
{
    char descriptor[64];

    if (!output->named)
        return spb_ok();
    if (fsync(output->fd) != 0)
        return fail_path(err, "syncing", output->path);
    if (output->temporary == NULL) {
        /* linkat cannot replace, so the file gets a hidden name first. */
        char *name = temporary_name(output->path, err);
        if (name == NULL)
            return (spb_status){err->code};
        (void)snprintf(descriptor, sizeof(descriptor), "/proc/self/fd/%d", output->fd);
        if (linkat(AT_FDCWD, descriptor, AT_FDCWD, name, AT_SYMLINK_FOLLOW) != 0) {
            free(name);
            return fail_path(err, "naming", output->path);
        }
        output->temporary = name;
    }
    if (rename(output->temporary, output->path) != 0)
        return fail_path(err, "naming", output->path);
    free(output->temporary);
    output->temporary = NULL;
    return cli_durable_sync_folder(output->path, err);
}

void cli_output_done(struct cli_output *output)
{
    if (output->temporary != NULL)
        (void)unlink(output->temporary);
    if (output->fd >= 0 && output->fd != STDOUT_FILENO)
        (void)close(output->fd);
    free(output->temporary);
    free(output->path);
    memset(output, 0, sizeof(*output));
    output->fd = -1;
}
