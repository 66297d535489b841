/*
 * A file that arrives in parts; see partial.h.
 *
 * The companion is durable before the part exists, and goes after the part has got its final name:
 * so a part of ours always has one. What a power loss did to the part's bytes is found by the CRC
 * of the whole, which is compared before it is committed.
 */
#include "cli/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "cli/durable.h"

#define PIECE_BYTES ((size_t)1 << 18)
#define FORMAT "spaceblock part 1"

/* ---- The companion ------------------------------------------------------------------------- */

enum companion { ABSENT, FOREIGN, OTHER, SAME };

/* One of ours as JSON, json_decref; NULL for a file that is none. */
static json_t *load_companion(int fd)
{
    struct stat about;
    json_t *root = NULL;

    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_size < 65536)
        root = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
    const char *format = json_string_value(json_object_get(root, "format"));
    if (format != NULL && strcmp(format, FORMAT) == 0)
        return root;
    json_decref(root);
    return NULL;
}

static enum companion read_companion(const char *path, const char *key)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    enum companion found = FOREIGN;

    if (fd < 0)
        return errno == ENOENT ? ABSENT : FOREIGN;
    json_t *root = load_companion(fd);
    const char *content = json_string_value(json_object_get(root, "content"));
    if (root != NULL)
        found = content != NULL && strcmp(content, key) == 0 ? SAME : OTHER;
    json_decref(root);
    (void)close(fd);
    return found;
}

char *cli_partial_key(const char *path)
{
    char *companion = NULL, *key = NULL;

    if (asprintf(&companion, "%s.part.json", path) < 0)
        return NULL;
    int fd = open(companion, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    free(companion);
    if (fd < 0)
        return NULL;
    json_t *root = load_companion(fd);
    const char *content = json_string_value(json_object_get(root, "content"));
    if (content != NULL)
        key = strdup(content);
    json_decref(root);
    (void)close(fd);
    return key;
}

static spb_status write_companion(const char *path, const char *key, struct spb_error *err)
{
    json_t *root = json_pack("{s:s, s:s}", "format", FORMAT, "content", key);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    int fd = -1;

    json_decref(root);
    if (text == NULL)
        return spb_fail_memory(err, "preparing the output");
    spb_status status = cli_durable_replace(path, text, &fd, err);
    free(text);
    if (fd >= 0)
        (void)close(fd);
    return status;
}

/* ---- The part ------------------------------------------------------------------------------ */

static bool is_usable(int fd, const char *part)
{
    struct stat about;

    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_nlink == 1 &&
           flock(fd, LOCK_EX | LOCK_NB) == 0 && cli_durable_has_name(fd, part);
}

/* The CRC of what is there; the next write goes behind it. False where it cannot be read. */
static bool take_rest(struct cli_partial *partial, uint64_t most)
{
    uint8_t *piece = malloc(PIECE_BYTES);
    uint64_t at = 0;
    ssize_t got = piece == NULL ? -1 : 1;
    uint32_t crc = 0;

    while (got > 0) {
        got = pread(partial->output.fd, piece, PIECE_BYTES, (off_t)at);
        if (got > 0)
            crc = spb_crc32c(crc, piece, (size_t)got);
        at += got > 0 ? (uint64_t)got : 0;
    }
    free(piece);
    if (got < 0 || at > most || lseek(partial->output.fd, (off_t)at, SEEK_SET) != (off_t)at)
        return false;
    partial->length = at;
    partial->crc = crc;
    return true;
}

static bool clear(struct cli_partial *partial)
{
    partial->length = 0;
    partial->crc = 0;
    return ftruncate(partial->output.fd, 0) == 0 && lseek(partial->output.fd, 0, SEEK_SET) == 0;
}

/* One that is there. False: it is not to be used. */
static bool open_old(struct cli_partial *partial, const char *part, const char *companion,
                     const char *key, uint64_t length, bool anew)
{
    partial->output.fd = open(part, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (partial->output.fd < 0 || !is_usable(partial->output.fd, part))
        return false;
    enum companion found = read_companion(companion, key);
    if (found != SAME && found != OTHER)
        return false;
    if (found == SAME && !anew && take_rest(partial, length))
        return true;
    /* Emptied first: what it says it is then holds at every moment. */
    return clear(partial) && spb_is_ok(write_companion(companion, key, NULL));
}

static bool make_new(struct cli_partial *partial, const char *part, const char *companion,
                     const char *key)
{
    if (read_companion(companion, key) == FOREIGN ||
        !spb_is_ok(write_companion(companion, key, NULL)))
        return false;
    partial->output.fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    return partial->output.fd >= 0 && is_usable(partial->output.fd, part);
}

static bool open_part(struct cli_partial *partial, char *part, const char *companion,
                      const char *key, uint64_t length, bool anew)
{
    struct stat about;
    bool exists = lstat(part, &about) == 0;

    if (exists ? open_old(partial, part, companion, key, length, anew)
               : make_new(partial, part, companion, key))
        return true;
    if (partial->output.fd >= 0)
        (void)close(partial->output.fd);
    partial->output.fd = -1;
    partial->length = 0;
    return false;
}

/* ---- All of it ----------------------------------------------------------------------------- */

static spb_status open_named(struct cli_partial *partial, const char *key, uint64_t length,
                             bool anew, struct spb_error *err)
{
    char *part = NULL, *companion = NULL;

    if (key == NULL)
        return cli_output_make(&partial->output, err);
    if (asprintf(&part, "%s.part", partial->output.path) < 0)
        return spb_fail_memory(err, "preparing the output");
    if (asprintf(&companion, "%s.json", part) < 0) {
        free(part);
        return spb_fail_memory(err, "preparing the output");
    }
    if (open_part(partial, part, companion, key, length, anew)) {
        partial->output.temporary = part;
        partial->companion = companion;
        return cli_output_take_mode(&partial->output, err);
    }
    free(part);
    free(companion);
    return cli_output_make(&partial->output, err);
}

spb_status cli_partial_open(const char *path, const char *key, uint64_t length, bool anew,
                            struct cli_partial *partial, struct spb_error *err)
{
    struct cli_partial opened = {.companion = NULL};
    spb_status status = cli_output_find(path, &opened.output, err);

    SPB_TRY(status);
    if (opened.output.fd < 0)
        status = open_named(&opened, key, length, anew, err);
    if (!spb_is_ok(status)) {
        cli_partial_done(&opened);
        return status;
    }
    *partial = opened;
    return status;
}

spb_status cli_partial_restart(struct cli_partial *partial, struct spb_error *err)
{
    if (!clear(partial))
        return spb_fail_errno(err, SPB_IO, errno, "emptying \"%s.part\"", partial->output.path);
    return spb_ok();
}

uint64_t cli_partial_left(const struct cli_partial *partial)
{
    off_t at = partial->companion == NULL ? 0 : lseek(partial->output.fd, 0, SEEK_CUR);

    return at < 0 ? 0 : (uint64_t)at;
}

spb_status cli_partial_commit(struct cli_partial *partial, struct spb_error *err)
{
    SPB_TRY(cli_output_commit(&partial->output, err));
    if (partial->companion != NULL)
        (void)unlink(partial->companion);
    return spb_ok();
}

static void forget_name(struct cli_output *output)
{
    free(output->temporary);
    output->temporary = NULL;
}

/* An output's own end removes what is temporary. */
void cli_partial_done(struct cli_partial *partial)
{
    if (partial->companion != NULL && partial->output.temporary != NULL) {
        if (cli_partial_left(partial) == 0)
            (void)unlink(partial->companion);
        else
            forget_name(&partial->output);
    }
    free(partial->companion);
    partial->companion = NULL;
    cli_output_done(&partial->output);
}
