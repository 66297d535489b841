/*
 * image export: a consistent copy of a served image, in a file. The daemon makes a backup, which is
 * read by offset into FILE.part; that becomes FILE once it has the backup's CRC. What FILE.part is
 * a part of names the backup, so that the same command goes on with it while the daemon has it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "cli/output.h"
#include "cli/partial.h"
#include "cli/session.h"
#include "cli/text.h"
#include "cli/transfer.h"

#define BACKUP_ID_SIZE 16u
#define ANEW_MAX 4u /* backups that one run makes */
#define ID_TEXT_SIZE (2u * BACKUP_ID_SIZE + 1u)

struct exporting {
    struct cli *cli;
    struct cli_session *session;
    const char *path;
    struct cli_progress *progress;
    uint8_t id[BACKUP_ID_SIZE];
    uint64_t size;
    uint32_t crc;
    Spaceblock__V1__ReadBackupRequest request; /* of the next piece */
    struct cli_output *output;
    uint32_t crc_so_far;
};

/* ---- The backup ---------------------------------------------------------------------------- */

static spb_status make_backup(struct exporting *exporting, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Backup",
                                             &spaceblock__v1__backup_image_response__descriptor,
                                             CLI_LONG_CALL_MS};
    Spaceblock__V1__BackupImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    spaceblock__v1__backup_image_request__init(&request);
    request.image = &exporting->session->image;
    SPB_TRY(cli_daemon_call(&exporting->session->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__BackupImageResponse *answer = (const void *)reply;
    if (answer->backup_id.len != BACKUP_ID_SIZE)
        return cli_answer_lacks(&method, "a backup_id of 16 bytes", err);
    memcpy(exporting->id, answer->backup_id.data, BACKUP_ID_SIZE);
    exporting->size = answer->size;
    exporting->crc = answer->crc32c;
    return spb_ok();
}

/* Gives back what the daemon keeps for it. Where that fails it does so later by itself. */
static void end_backup(struct exporting *exporting)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "EndBackup",
                                             &spaceblock__v1__end_backup_response__descriptor,
                                             CLI_CONNECT_MS};
    struct cli_failure kept = *exporting->session->daemon.failure;
    Spaceblock__V1__EndBackupRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    struct spb_error ignored;

    spaceblock__v1__end_backup_request__init(&request);
    request.backup_id = cli_bytes(exporting->id, sizeof(exporting->id));
    spb_status status = cli_daemon_call_at_last(&exporting->session->daemon, &method, &request.base,
                                                &reply, &ignored);
    (void)status;
    *exporting->session->daemon.failure = kept;
}

/* Has the daemon the backup still? */
static bool is_kept(struct exporting *exporting)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "ReadBackup",
                                             &spaceblock__v1__read_backup_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__ReadBackupRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    struct spb_error ignored;

    spaceblock__v1__read_backup_request__init(&request);
    request.backup_id = cli_bytes(exporting->id, sizeof(exporting->id));
    request.length = 1;
    return spb_is_ok(
        cli_daemon_call(&exporting->session->daemon, &method, &request.base, &reply, &ignored));
}

/* ---- What an earlier run left -------------------------------------------------------------- */

/* What FILE.part is a part of; the caller's, free(). NULL: no memory. */
static char *name_content(const struct exporting *exporting)
{
    const char *image = exporting->cli->words[0];
    char *where = cli_text_value(image, strlen(image));
    char *id = cli_text_hex("", exporting->id, sizeof(exporting->id));
    char *text = NULL;

    if (where == NULL || id == NULL ||
        asprintf(&text, "backup %s, %" PRIu64 " bytes, CRC-32C %08" PRIx32 ", of image %s", id,
                 exporting->size, exporting->crc, where) < 0)
        text = NULL;
    free(where);
    free(id);
    return text;
}

/* Past the words; NULL where the text does not begin with them, or is NULL. */
static const char *skip(const char *text, const char *words)
{
    size_t n = strlen(words);

    return text != NULL && strncmp(text, words, n) == 0 ? text + n : NULL;
}

static const char *parse_id(const char *text, uint8_t id[BACKUP_ID_SIZE])
{
    if (text == NULL || strlen(text) < ID_TEXT_SIZE - 1)
        return NULL;
    for (size_t i = 0; i < BACKUP_ID_SIZE; i++) {
        const char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};

        id[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return text + ID_TEXT_SIZE - 1;
}

static const char *parse_number(const char *text, int base, uint64_t *number)
{
    char *end = NULL;

    if (text == NULL)
        return NULL;
    *number = strtoull(text, &end, base);
    return end;
}

/* Takes the backup that the text names, of this image. */
static bool parse_content(struct exporting *exporting, const char *text)
{
    uint64_t crc = 0;
    const char *at = parse_id(skip(text, "backup "), exporting->id);

    at = parse_number(skip(at, ", "), 10, &exporting->size);
    at = parse_number(skip(at, " bytes, CRC-32C "), 16, &crc);
    if (at == NULL)
        return false;
    exporting->crc = (uint32_t)crc;
    /* Whatever of it did not parse as it was written is not the same. */
    char *same = name_content(exporting);
    bool is_same = same != NULL && strcmp(same, text) == 0;
    free(same);
    return is_same;
}

/* The backup of an earlier run, where the daemon has it still; else a new one. */
static spb_status find_backup(struct exporting *exporting, struct spb_error *err)
{
    char *left = strcmp(exporting->path, "-") == 0 ? NULL : cli_partial_key(exporting->path);
    bool known = left != NULL && parse_content(exporting, left);

    free(left);
    if (known && cli_has(exporting->cli, CLI_OPT_NO_RESUME)) {
        end_backup(exporting);
        known = false;
    }
    if (known && is_kept(exporting))
        return spb_ok();
    return make_backup(exporting, err);
}

/* ---- The file ------------------------------------------------------------------------------ */

static const ProtobufCMessage *ask_piece(void *user, uint64_t offset, uint32_t size)
{
    struct exporting *exporting = user;
    Spaceblock__V1__ReadBackupRequest *request = &exporting->request;

    spaceblock__v1__read_backup_request__init(request);
    request->backup_id = cli_bytes(exporting->id, sizeof(exporting->id));
    request->offset = offset;
    request->length = size;
    return &request->base;
}

static spb_status take_piece(void *user, const void *data, size_t n, struct spb_error *err)
{
    struct exporting *exporting = user;

    exporting->crc_so_far = spb_crc32c(exporting->crc_so_far, data, n);
    return cli_output_write(exporting->output, data, n, err);
}

/* All from an offset on; SPB_CORRUPT where the whole has another CRC. */
static spb_status fetch_from(struct exporting *exporting, uint64_t from, uint32_t crc,
                             struct spb_error *err)
{
    const struct cli_reading reading = {.service = CLI_SERVICE_IMAGES,
                                        .method = "ReadBackup",
                                        .length = exporting->size,
                                        .ask = ask_piece,
                                        .user = exporting};

    exporting->crc_so_far = crc;
    SPB_TRY(cli_transfer_read(&exporting->session->daemon, &reading, from, exporting->progress,
                              take_piece, exporting, err));
    if (exporting->crc_so_far == exporting->crc)
        return spb_ok();
    return spb_fail(err, SPB_CORRUPT,
                    "exporting image %s: what came has CRC %08" PRIx32 ", expected %08" PRIx32,
                    exporting->cli->words[0], exporting->crc_so_far, exporting->crc);
}

/* What an earlier run left counts once the whole has the right CRC; else all is fetched. */
static spb_status fetch(struct exporting *exporting, struct cli_partial *partial,
                        struct spb_error *err)
{
    uint64_t had = partial->length;

    exporting->output = &partial->output;
    if (had > 0 && cli_is_verbose(exporting->cli))
        cli_note(exporting->cli, "%s: going on at %" PRIu64 " of %" PRIu64 " bytes",
                 exporting->path, had, exporting->size);
    spb_status status = fetch_from(exporting, had, partial->crc, err);
    if (status.code != SPB_CORRUPT)
        return status;
    SPB_TRY(cli_partial_restart(partial, err));
    return had == 0 ? status : fetch_from(exporting, 0, 0, err);
}

static spb_status say_left(const struct exporting *exporting, const struct cli_partial *partial,
                           spb_status status, struct spb_error *err)
{
    struct spb_error why = *err;

    status = spb_fail(err, why.code,
                      "%" PRIu64 " of %" PRIu64 " bytes are in %s.part; the same command goes on "
                      "with it: %s",
                      cli_partial_left(partial), exporting->size, exporting->path, why.text);
    err->saved_errno = why.saved_errno;
    return status;
}

/* *is_gone: the daemon has the backup no longer. */
static spb_status write_file(struct exporting *exporting, bool *is_gone, struct spb_error *err)
{
    struct cli_partial partial __attribute__((cleanup(cli_partial_done))) = {.output = {.fd = -1}};
    char *content = name_content(exporting);
    bool is_left = false;

    if (content == NULL)
        return spb_fail_memory(err, "exporting an image");
    spb_status status = cli_partial_open(exporting->path, content, exporting->size,
                                         cli_has(exporting->cli, CLI_OPT_NO_RESUME), &partial, err);
    free(content);
    if (spb_is_ok(status)) {
        status = fetch(exporting, &partial, err);
        *is_gone = status.code == SPB_NOT_FOUND;
        is_left = (status.code == SPB_UNREACHABLE || status.code == SPB_DEADLINE) &&
                  cli_partial_left(&partial) > 0;
        if (is_left)
            status = say_left(exporting, &partial, status, err);
    }
    if (spb_is_ok(status))
        status = cli_partial_commit(&partial, err);
    if (!is_left && !*is_gone)
        end_backup(exporting);
    return status;
}

/* It is not the image that was not found. */
static spb_status say_ended(const struct exporting *exporting, struct spb_error *err)
{
    struct spb_error why = *err;

    return spb_fail(err, SPB_CHANGED,
                    "exporting image %s: the daemon has ended the copy that was being read; the "
                    "same command begins anew: %s",
                    exporting->cli->words[0], why.text);
}

/* A daemon that was restarted has no backups: then a new one is made. */
static spb_status export_image(struct exporting *exporting, struct spb_error *err)
{
    for (unsigned tries = 1;; tries++) {
        bool is_gone = false;

        SPB_TRY(find_backup(exporting, err));
        cli_progress_init(exporting->progress, exporting->cli, "fetching");
        spb_status status = write_file(exporting, &is_gone, err);
        cli_progress_done(exporting->progress);
        if (!is_gone)
            return status;
        /* What was printed cannot be taken back. */
        if (strcmp(exporting->path, "-") == 0 || tries == ANEW_MAX)
            return say_ended(exporting, err);
        if (cli_is_verbose(exporting->cli))
            cli_note(exporting->cli, "exporting image %s: beginning anew: %s",
                     exporting->cli->words[0], err->text);
    }
}

static void report(const struct exporting *exporting)
{
    const struct cli *cli = exporting->cli;

    if (!cli_is_json(cli)) {
        char *name = cli_text_safe(cli->words[0], strlen(cli->words[0]));
        char *path = cli_text_safe(exporting->path, strlen(exporting->path));

        printf("image %s: %" PRIu64 " bytes, CRC-32C %08" PRIx32 ", written to %s\n",
               name == NULL ? "" : name, exporting->size, exporting->crc, path == NULL ? "" : path);
        free(name);
        free(path);
        return;
    }
    json_t *root = cli_json_object();
    cli_json_set_string(root, "image", cli->words[0]);
    cli_json_set_number(root, "length", exporting->size);
    cli_json_set_crc(root, "crc32c", exporting->crc);
    cli_json_set_string(root, "file", exporting->path);
    cli_json_print(root);
}

int cli_run_image_export(struct cli *cli)
{
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct cli_progress progress;
    struct exporting exporting = {
        .cli = cli, .session = &session, .path = cli->words[1], .progress = &progress};
    struct spb_error err;

    if (strcmp(exporting.path, "-") == 0 && cli_is_json(cli))
        return cli_usage(cli, "image export: found - with --json, expected a FILE: an image is not "
                              "printed as JSON");
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    if (!spb_is_ok(export_image(&exporting, &err)))
        return cli_fail(cli, &err);
    if (strcmp(exporting.path, "-") != 0)
        report(&exporting);
    return CLI_EXIT_OK;
}
