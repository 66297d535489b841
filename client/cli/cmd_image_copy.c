/* The family image: whole images from files (import), copies (clone) and other names (rename). */
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/session.h"
#include "cli/text.h"
#include "cli/upload.h"

#define SUFFIX ".img"

/* ---- import -------------------------------------------------------------------------------- */

struct importing {
    struct cli *cli;
    struct cli_session *session;
    struct cli_image_ref ref;
    bool new_identity;
    uint32_t sector_size; /* 0: as the file's size says */
    bool has_look;
    struct spb_superblock superblock; /* of the file; with has_look */
    Spaceblock__V1__ImageTarget target;
    Spaceblock__V1__ImageRef image;
    Spaceblock__V1__Image *made; /* owned; what the daemon says it is now */
};

static void importing_cleanup(struct importing *importing)
{
    if (importing->made != NULL)
        spaceblock__v1__image__free_unpacked(importing->made, NULL);
}

static void fill_start(void *user, Spaceblock__V1__StartUploadRequest *request)
{
    struct importing *importing = user;
    Spaceblock__V1__ImageTarget *target = &importing->target;

    spaceblock__v1__image_target__init(target);
    target->image = &importing->image;
    target->new_identity = importing->new_identity;
    target->sector_size = importing->sector_size;
    request->target_case = SPACEBLOCK__V1__START_UPLOAD_REQUEST__TARGET_IMAGE;
    request->image = target;
}

/* A copy of the image that an answer holds. */
static spb_status keep_image(struct importing *importing, const Spaceblock__V1__Image *image,
                             struct spb_error *err)
{
    importing->made = (Spaceblock__V1__Image *)cli_message_copy(&image->base);
    return importing->made != NULL ? spb_ok() : spb_fail_memory(err, "importing an image");
}

static spb_status take_finished(void *user, const Spaceblock__V1__FinishUploadResponse *answer,
                                struct spb_error *err)
{
    if (answer->result_case != SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__RESULT_IMAGE ||
        answer->image == NULL)
        return spb_fail(err, SPB_PROTOCOL,
                        "reading the daemon's answer to Finish: found no image in it");
    return keep_image(user, answer->image, err);
}

/* Is the image there that the file is? Only where it was to keep its uuid can that be told. */
static bool find_imported(void *user, uint32_t crc, uint64_t size)
{
    static const struct cli_method method = {
        CLI_SERVICE_IMAGES, "Get", &spaceblock__v1__get_image_response__descriptor, CLI_CALL_MS};
    struct importing *importing = user;
    Spaceblock__V1__GetImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    struct spb_error ignored;

    (void)crc;
    (void)size;
    if (importing->new_identity || !importing->has_look)
        return false;
    spaceblock__v1__get_image_request__init(&request);
    request.image = &importing->image;
    if (!spb_is_ok(
            cli_daemon_call(&importing->session->daemon, &method, &request.base, &reply, &ignored)))
        return false;
    const Spaceblock__V1__GetImageResponse *answer = (const void *)reply;
    return answer->image != NULL && answer->image->uuid.len == SPB_UUID_SIZE &&
           memcmp(answer->image->uuid.data, importing->superblock.uuid, SPB_UUID_SIZE) == 0 &&
           answer->image->total_blocks == importing->superblock.total_blocks &&
           spb_is_ok(keep_image(importing, answer->image, &ignored));
}

/* What is no image is not sent. A stream is left to the daemon to judge. */
static spb_status look_at_file(struct importing *importing, const char *path, struct spb_error *err)
{
    struct spb_open_options options = {.sector_size = importing->sector_size};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;
    char owner[64];
    int pid = 0;

    if (strcmp(path, "-") == 0)
        return spb_ok();
    SPB_TRY(spb_device_file_open(path, SPB_FILE_READ, &device, err));
    if (spb_device_file_owner(device, owner, sizeof(owner), &pid))
        cli_note(importing->cli, "\"%s\" is held by %s: what is sent may be half written", path,
                 owner);
    spb_status status = spb_volume_open(device, &options, &volume, err);
    if (!spb_is_ok(status)) {
        spb_device_close(device);
        return status;
    }
    importing->superblock = *spb_volume_superblock(volume);
    importing->has_look = true;
    spb_volume_close(volume);
    return status;
}

/* "image 1/demo", and how: what a later run must have in common to go on with it. */
static char *name_key(const struct cli_image_ref *ref)
{
    char tenant[8] = "own", *text = NULL;
    char *name = cli_text_value(ref->name, strlen(ref->name));

    if (ref->has_tenant)
        (void)snprintf(tenant, sizeof(tenant), "%u", (unsigned)ref->tenant);
    if (name == NULL || asprintf(&text, "image %s/%s", tenant, name) < 0)
        text = NULL;
    free(name);
    return text;
}

static spb_status send_file(struct importing *importing, const char *path, const char *key,
                            struct spb_error *err)
{
    struct cli_source source __attribute__((cleanup(cli_source_done))) = {.fd = -1};
    char what[128], options[64];
    struct cli_upload_target target = {.what = what,
                                       .key = key,
                                       .options = options,
                                       .fill = fill_start,
                                       .take = take_finished,
                                       .find = find_imported,
                                       .user = importing};
    struct cli_progress progress;

    SPB_TRY(cli_source_open(path, &source, err));
    SPB_TRY(look_at_file(importing, path, err));
    (void)snprintf(what, sizeof(what), "image \"%.80s\"", importing->ref.name);
    (void)snprintf(options, sizeof(options), "new-identity %d sector-size %u",
                   (int)importing->new_identity, importing->sector_size);
    cli_progress_init(&progress, importing->cli, "sending");
    spb_status status =
        cli_upload(importing->cli, &importing->session->daemon, &target, &source, &progress, err);
    cli_progress_done(&progress);
    return status;
}

/* The file's own name without ".img", where none was given; the caller's, free(). */
static char *name_from_path(const char *path)
{
    char *copy = strdup(path);
    char *name = copy == NULL ? NULL : strdup(basename(copy));
    size_t n = name == NULL ? 0 : strlen(name);

    free(copy);
    if (n > strlen(SUFFIX) && strcmp(name + n - strlen(SUFFIX), SUFFIX) == 0)
        name[n - strlen(SUFFIX)] = '\0';
    return name;
}

static int import_as(struct cli *cli, const char *name)
{
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct importing importing __attribute__((cleanup(importing_cleanup))) = {
        .cli = cli,
        .session = &session,
        .new_identity = cli_has(cli, CLI_OPT_NEW_IDENTITY),
        .sector_size = (uint32_t)cli_number(cli, CLI_OPT_SECTOR_SIZE, 0),
    };
    struct spb_error err;

    if (!spb_is_ok(cli_parse_image("[TENANT/]NAME", name, &importing.ref, &err)))
        return cli_usage(cli, "%s", err.text);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    cli_image_ref_fill(&importing.ref, &importing.image);
    char *key = name_key(&importing.ref);
    spb_status status = key == NULL ? spb_fail_memory(&err, "importing an image")
                                    : send_file(&importing, cli->words[0], key, &err);
    free(key);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    cli_print_image(cli, importing.made);
    return CLI_EXIT_OK;
}

int cli_run_image_import(struct cli *cli)
{
    char *from_path = NULL;

    if (cli->word_count > 1)
        return import_as(cli, cli->words[1]);
    if (strcmp(cli->words[0], "-") == 0)
        return cli_usage(cli, "image import -: found no NAME, expected one for a stream");
    from_path = name_from_path(cli->words[0]);
    if (from_path == NULL) {
        struct spb_error err;

        (void)spb_fail_memory(&err, "importing an image");
        return cli_fail(cli, &err);
    }
    int code = import_as(cli, from_path);
    free(from_path);
    return code;
}

/* ---- clone, rename ------------------------------------------------------------------------- */

int cli_run_image_clone(struct cli *cli)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Clone",
                                             &spaceblock__v1__clone_image_response__descriptor,
                                             CLI_LONG_CALL_MS};
    Spaceblock__V1__CloneImageRequest request;
    Spaceblock__V1__ImageRef to;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct cli_image_ref ref;
    uint8_t uuid[SPB_UUID_SIZE];
    struct spb_error err;

    spaceblock__v1__clone_image_request__init(&request);
    if (!spb_is_ok(cli_parse_image("[TENANT/]NEW", cli->words[1], &ref, &err)))
        return cli_usage(cli, "%s", err.text);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    cli_image_ref_fill(&ref, &to);
    request.request_id = session.request_id;
    request.image = &session.image;
    request.to = &to;
    request.uuid = cli_uuid_of(cli, uuid);
    code = cli_session_call(cli, &session, &method, &request.base, &reply);
    if (code != CLI_EXIT_OK)
        return code;
    const Spaceblock__V1__CloneImageResponse *answer = (const void *)reply;
    return cli_session_print(cli, &method, answer->image);
}

int cli_run_image_rename(struct cli *cli)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Rename",
                                             &spaceblock__v1__rename_image_response__descriptor,
                                             CLI_LONG_CALL_MS};
    Spaceblock__V1__RenameImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};

    spaceblock__v1__rename_image_request__init(&request);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    request.request_id = session.request_id;
    request.image = &session.image;
    request.name = cli_bytes(cli->words[1], strlen(cli->words[1]));
    code = cli_session_call(cli, &session, &method, &request.base, &reply);
    if (code != CLI_EXIT_OK)
        return code;
    const Spaceblock__V1__RenameImageResponse *answer = (const void *)reply;
    return cli_session_print(cli, &method, answer->image);
}
