/*
 * Records of uploads; see resume.h. A file is replaced by renaming, so that it is whole or the one
 * before; one that does not parse counts as none. The lock is on the file that has the name: who
 * gets a lock looks whether that is still so.
 */
#include "cli/resume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/durable.h"
#include "cli/text.h"

#define VERSION 1
#define RECORD_MAX ((off_t)65536)
#define LOCK_TRIES 20u
#define STALE_S (7 * 86400) /* uploads expire long before */
#define PREFIX "upload-"
#define SUFFIX ".json"
#define CHUNK_MIN 65536u

/* ---- Where it is --------------------------------------------------------------------------- */

static spb_status fail_path(struct spb_error *err, const char *what, const char *path)
{
    return spb_fail_errno(err, SPB_UNSUPPORTED, errno, "%s \"%s\"", what, path);
}

/* The folder of state, NULL: none can be named. The caller's, free(). */
static char *state_folder(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path = NULL;

    /* A relative one is to be ignored. */
    if (state != NULL && state[0] == '/')
        return asprintf(&path, "%s/spaceblock", state) < 0 ? NULL : path;
    if (home == NULL || home[0] != '/')
        return NULL;
    return asprintf(&path, "%s/.local/state/spaceblock", home) < 0 ? NULL : path;
}

/* Makes the folder and what is above it. */
static spb_status make_folders(char *path, struct spb_error *err)
{
    for (char *at = path + 1; *at != '\0'; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
        *at = '/';
        if (!made)
            return fail_path(err, "making the folders of", path);
    }
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return fail_path(err, "making", path);
    return spb_ok();
}

/* FNV-1a: names need to differ, not to be secret; a file that is another's says so itself. */
static uint64_t add_hash(uint64_t hash, const char *text)
{
    for (;; text++) {
        hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001B3);
        if (*text == '\0')
            return hash;
    }
}

/* The source's path, whatever way was taken to it; NULL: no memory, or it has gone. */
static char *source_path(const struct cli_resume_key *key)
{
    return realpath(key->source->name, NULL);
}

static spb_status record_path(const struct cli_resume_key *key, const char *source, char **path,
                              struct spb_error *err)
{
    char *folder = state_folder();
    uint64_t hash = UINT64_C(0xCBF29CE484222325);

    if (folder == NULL)
        return spb_fail(err, SPB_UNSUPPORTED, "neither XDG_STATE_HOME nor HOME is set");
    hash = add_hash(add_hash(add_hash(hash, key->endpoint), key->target), source);
    spb_status status = make_folders(folder, err);
    if (spb_is_ok(status) && asprintf(path, "%s/" PREFIX "%016" PRIx64 SUFFIX, folder, hash) < 0)
        status = spb_fail_memory(err, "naming a record");
    free(folder);
    return status;
}

/* ---- Writing ------------------------------------------------------------------------------- */

static json_t *source_to_json(const struct cli_source *source, const char *path)
{
    const struct cli_source_identity *identity = &source->identity;

    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "path", path, "device",
                     (json_int_t)identity->device, "inode", (json_int_t)identity->inode, "size",
                     (json_int_t)identity->size, "modified_s", (json_int_t)identity->modified_s,
                     "modified_ns", (json_int_t)identity->modified_ns);
}

/* A path need not be UTF-8. */
static char *path_text(const struct cli_resume_key *key)
{
    char *path = source_path(key);
    char *text = path == NULL ? NULL : cli_text_value(path, strlen(path));

    free(path);
    return text;
}

static char *to_text(const struct cli_resume *resume)
{
    const struct cli_resume_key *key = resume->key;
    char *path = path_text(key), *id = cli_text_hex("", resume->upload_id, resume->upload_id_len);
    json_t *root = NULL;
    char *text = NULL;

    if (path != NULL && id != NULL)
        root = json_pack("{s:i, s:s, s:s, s:s, s:o, s:s, s:s, s:I, s:I, s:I}", "version", VERSION,
                         "endpoint", key->endpoint, "target", key->target, "options", key->options,
                         "source", source_to_json(key->source, path), "request_id",
                         resume->request_id, "upload_id", id, "chunk", (json_int_t)resume->chunk,
                         "crc_end", (json_int_t)resume->crc_end, "crc32c", (json_int_t)resume->crc);
    if (root != NULL)
        text = json_dumps(root, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    json_decref(root);
    free(path);
    free(id);
    return text;
}

spb_status cli_resume_save(struct cli_resume *resume, struct spb_error *err)
{
    char *text = to_text(resume);
    int fd = -1;

    if (text == NULL)
        return spb_fail_memory(err, "writing a record");
    spb_status status = cli_durable_replace(resume->path, text, &fd, err);
    free(text);
    SPB_TRY(status);
    (void)close(resume->fd);
    resume->fd = fd;
    return status;
}

/* ---- Reading ------------------------------------------------------------------------------- */

static bool is_text(const json_t *object, const char *key, const char *expected)
{
    const char *found = json_string_value(json_object_get(object, key));

    return found != NULL && strcmp(found, expected) == 0;
}

static bool is_number(const json_t *object, const char *key, int64_t expected)
{
    const json_t *found = json_object_get(object, key);

    return json_is_integer(found) && json_integer_value(found) == expected;
}

static bool is_source(const json_t *object, const struct cli_source *source)
{
    const struct cli_source_identity *identity = &source->identity;

    return is_number(object, "device", (int64_t)identity->device) &&
           is_number(object, "inode", (int64_t)identity->inode) &&
           is_number(object, "size", (int64_t)identity->size) &&
           is_number(object, "modified_s", identity->modified_s) &&
           is_number(object, "modified_ns", identity->modified_ns);
}

static bool take_number(const json_t *object, const char *key, uint64_t most, uint64_t *number)
{
    const json_t *found = json_object_get(object, key);

    if (!json_is_integer(found) || json_integer_value(found) < 0 ||
        (uint64_t)json_integer_value(found) > most)
        return false;
    *number = (uint64_t)json_integer_value(found);
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_upload_id(const json_t *object, struct cli_resume *resume)
{
    const char *hex = json_string_value(json_object_get(object, "upload_id"));
    size_t digits = hex == NULL ? 1 : strlen(hex);

    if (digits % 2 != 0 || digits / 2 > CLI_UPLOAD_ID_MAX)
        return false;
    for (size_t i = 0; i < digits; i += 2) {
        int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);
        if (high < 0 || low < 0)
            return false;
        resume->upload_id[i / 2] = (uint8_t)(high << 4 | low);
    }
    resume->upload_id_len = digits / 2;
    return true;
}

static bool take_request_id(const json_t *object, struct cli_resume *resume)
{
    const char *id = json_string_value(json_object_get(object, "request_id"));

    if (id == NULL || strlen(id) != SPB_REQUEST_ID_SIZE - 1)
        return false;
    memcpy(resume->request_id, id, SPB_REQUEST_ID_SIZE);
    return true;
}

/* All of it, or nothing is touched. */
static bool take_record(const json_t *root, struct cli_resume *resume)
{
    struct cli_resume read = *resume;
    uint64_t chunk, crc;

    if (!is_number(root, "version", VERSION) || !take_request_id(root, &read) ||
        !take_upload_id(root, &read) || !take_number(root, "chunk", UINT32_MAX, &chunk) ||
        (read.upload_id_len > 0 && chunk < CHUNK_MIN) ||
        !take_number(root, "crc_end", INT64_MAX, &read.crc_end) ||
        !take_number(root, "crc32c", UINT32_MAX, &crc))
        return false;
    read.chunk = (uint32_t)chunk;
    read.crc = (uint32_t)crc;
    *resume = read;
    return true;
}

static void read_record(struct cli_resume *resume, bool *is_other)
{
    const struct cli_resume_key *key = resume->key;
    struct stat about;

    *is_other = false;
    if (fstat(resume->fd, &about) != 0 || about.st_size == 0 || about.st_size > RECORD_MAX)
        return;
    json_t *root = json_loadfd(resume->fd, JSON_REJECT_DUPLICATES, NULL);
    char *path = path_text(key);
    const json_t *source = json_object_get(root, "source");
    /* Another upload's, by a rare accident of names: left to be overwritten. */
    bool is_ours = path != NULL && is_text(root, "endpoint", key->endpoint) &&
                   is_text(root, "target", key->target) && is_text(source, "path", path);
    if (is_ours && take_record(root, resume))
        *is_other = !is_text(root, "options", key->options) || !is_source(source, key->source) ||
                    resume->crc_end > key->source->size;
    json_decref(root);
    free(path);
}

/* ---- Opening ------------------------------------------------------------------------------- */

/* Of uploads that have expired long ago. */
static void remove_stale(const char *record)
{
    char *folder = cli_durable_folder(record);
    DIR *all = folder == NULL ? NULL : opendir(folder);
    time_t now = time(NULL);

    for (struct dirent *one; all != NULL && (one = readdir(all)) != NULL;) {
        struct stat about;
        if (strncmp(one->d_name, PREFIX, sizeof(PREFIX) - 1) == 0 &&
            fstatat(dirfd(all), one->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0 &&
            now - about.st_mtime > STALE_S)
            (void)unlinkat(dirfd(all), one->d_name, 0);
    }
    if (all != NULL)
        (void)closedir(all);
    free(folder);
}

static spb_status open_locked(const char *path, int *fd, struct spb_error *err)
{
    for (unsigned i = 0; i < LOCK_TRIES; i++) {
        int opened = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (opened < 0)
            return fail_path(err, "opening", path);
        bool is_held = flock(opened, LOCK_EX | LOCK_NB) != 0;
        if (!is_held && cli_durable_has_name(opened, path)) {
            *fd = opened;
            return spb_ok();
        }
        (void)close(opened);
        if (is_held)
            break;
    }
    return spb_fail(err, SPB_LOCKED, "locking \"%s\": another run of this command has it", path);
}

spb_status cli_resume_open(const struct cli_resume_key *key, struct cli_resume *resume,
                           bool *is_other, struct spb_error *err)
{
    struct cli_resume opened = {.fd = -1, .key = key};
    char *source = source_path(key);

    if (source == NULL)
        return fail_path(err, "finding", key->source->name);
    spb_status status = record_path(key, source, &opened.path, err);
    free(source);
    if (spb_is_ok(status)) {
        remove_stale(opened.path);
        status = open_locked(opened.path, &opened.fd, err);
    }
    if (!spb_is_ok(status)) {
        cli_resume_done(&opened);
        return status;
    }
    read_record(&opened, is_other);
    *resume = opened;
    return status;
}

void cli_resume_clear(struct cli_resume *resume)
{
    resume->request_id[0] = '\0';
    resume->upload_id_len = 0;
    resume->chunk = 0;
    resume->crc_end = 0;
    resume->crc = 0;
}

void cli_resume_drop(struct cli_resume *resume)
{
    if (resume->fd >= 0)
        (void)unlink(resume->path);
    cli_resume_done(resume);
}

void cli_resume_done(struct cli_resume *resume)
{
    if (resume->fd >= 0)
        (void)close(resume->fd);
    free(resume->path);
    resume->fd = -1;
    resume->path = NULL;
}
