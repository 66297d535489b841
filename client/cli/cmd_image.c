/* init, and the family image: making, listing, showing, deleting and reopening images. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "cli/daemon.h"
#include "cli/output.h"
#include "cli/pages.h"
#include "cli/session.h"
#include "cli/table.h"
#include "cli/text.h"

static spb_status random_uuid(uint8_t uuid[SPB_UUID_SIZE], struct spb_error *err)
{
    if (getrandom(uuid, SPB_UUID_SIZE, 0) != (ssize_t)SPB_UUID_SIZE)
        return spb_fail(err, SPB_IO, "making a uuid: the system gave no random bytes");
    /* Version 4 and variant 1 of RFC 4122. */
    uuid[6] = (uint8_t)((uuid[6] & 0x0F) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3F) | 0x80);
    return spb_ok();
}

/* --epoch, or now. A negative one is a usage error: an image counts from 1970 on. */
static bool epoch_of(struct cli *cli, uint64_t *epoch)
{
    int64_t asked = (int64_t)cli_number(cli, CLI_OPT_EPOCH, (uint64_t)time(NULL));

    *epoch = (uint64_t)asked;
    return asked >= 0;
}

static int usage_epoch(struct cli *cli)
{
    return cli_usage(cli, "--epoch: found \"%s\", expected a time from 1970-01-01T00:00:00Z on",
                     cli_text_of(cli, CLI_OPT_EPOCH));
}

static spb_status init_options(struct cli *cli, struct spb_format_options *options,
                               struct spb_error *err)
{
    const char *uuid = cli_text_of(cli, CLI_OPT_UUID);

    options->total_blocks = (uint32_t)cli_number(cli, CLI_OPT_BLOCKS, 0);
    options->sector_size = (uint32_t)cli_number(cli, CLI_OPT_SECTOR_SIZE, SPB_BLOCK_SIZE_MIN);
    options->tenant_id = (uint16_t)cli_number(cli, CLI_OPT_TENANT_ID, 1);
    if (uuid != NULL)
        return cli_parse_uuid("--uuid", uuid, options->uuid, err);
    return random_uuid(options->uuid, err);
}

/* The same lines and keys for a new file and a new image. */
static void print_made(const struct cli *cli, const char *key, const char *name,
                       const struct spb_format_options *made)
{
    char uuid[CLI_UUID_TEXT_SIZE], epoch[CLI_TIME_SIZE];

    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_string(root, key, name);
        cli_json_set_number(root, "tenant_id", made->tenant_id);
        cli_json_set_number(root, "total_blocks", made->total_blocks);
        cli_json_set_number(root, "sector_size", made->sector_size);
        cli_json_set_number(root, "epoch", made->epoch);
        cli_json_set_hex(root, "uuid", made->uuid, SPB_UUID_SIZE);
        cli_json_print(root);
        return;
    }
    cli_text_uuid(made->uuid, uuid);
    cli_text_time(made->epoch, epoch);
    char *safe = cli_text_safe(name, strlen(name));
    printf("made %s %s: %u blocks of %u bytes, tenant %u, epoch %s, uuid %s\n", key,
           safe == NULL ? "" : safe, made->total_blocks, made->sector_size, made->tenant_id, epoch,
           uuid);
    free(safe);
}

int cli_run_init(struct cli *cli)
{
    struct spb_format_options options = {.total_blocks = 0};
    const char *path = cli_text_of(cli, CLI_OPT_FILE);
    struct spb_error err;

    if (!epoch_of(cli, &options.epoch))
        return usage_epoch(cli);
    spb_status status = init_options(cli, &options, &err);
    if (spb_is_ok(status))
        status = spb_image_create(path, &options, cli_has(cli, CLI_OPT_FORCE), &err);
    if (!spb_is_ok(status)) {
        int code = cli_fail(cli, &err);
        if (status.code == SPB_EXISTS)
            cli_note(cli, "--force overwrites what is there");
        return code;
    }
    print_made(cli, "file", path, &options);
    return CLI_EXIT_OK;
}

/* ---- Through the daemon -------------------------------------------------------------------- */

int cli_run_image_create(struct cli *cli)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Create",
                                             &spaceblock__v1__create_image_response__descriptor,
                                             CLI_LONG_CALL_MS};
    Spaceblock__V1__CreateImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct spb_format_options options = {.total_blocks = 0};
    struct spb_error err;

    spaceblock__v1__create_image_request__init(&request);
    if (!epoch_of(cli, &options.epoch))
        return usage_epoch(cli);
    if (!spb_is_ok(init_options(cli, &options, &err)))
        return cli_fail(cli, &err);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    request.request_id = session.request_id;
    request.image = &session.image;
    request.total_blocks = options.total_blocks;
    request.sector_size = options.sector_size;
    request.if_epoch_case = SPACEBLOCK__V1__CREATE_IMAGE_REQUEST__IF_EPOCH_EPOCH;
    request.epoch = options.epoch;
    request.uuid = cli_bytes(options.uuid, SPB_UUID_SIZE);
    code = cli_session_call(cli, &session, &method, &request.base, &reply);
    if (code != CLI_EXIT_OK)
        return code;
    const Spaceblock__V1__CreateImageResponse *answer = (const void *)reply;
    if (answer->image != NULL)
        options.tenant_id = (uint16_t)answer->image->tenant;
    print_made(cli, "image", cli->words[0], &options);
    return CLI_EXIT_OK;
}

int cli_run_image_show(struct cli *cli)
{
    static const struct cli_method method = {
        CLI_SERVICE_IMAGES, "Get", &spaceblock__v1__get_image_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__GetImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};

    spaceblock__v1__get_image_request__init(&request);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    request.image = &session.image;
    code = cli_session_call(cli, &session, &method, &request.base, &reply);
    if (code != CLI_EXIT_OK)
        return code;
    const Spaceblock__V1__GetImageResponse *answer = (const void *)reply;
    return cli_session_print(cli, &method, answer->image);
}

int cli_run_image_delete(struct cli *cli)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Delete",
                                             &spaceblock__v1__delete_image_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__DeleteImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    uint8_t uuid[SPB_UUID_SIZE];

    spaceblock__v1__delete_image_request__init(&request);
    request.uuid = cli_uuid_of(cli, uuid);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    request.request_id = session.request_id;
    request.image = &session.image;
    code = cli_session_call(cli, &session, &method, &request.base, &reply);
    if (code != CLI_EXIT_OK)
        return code;
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_string(root, "image", cli->words[0]);
        cli_json_set_bool(root, "deleted", true);
        cli_json_print(root);
    } else {
        printf("image %s deleted\n", cli->words[0]);
    }
    return CLI_EXIT_OK;
}

int cli_run_image_reopen(struct cli *cli)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Reopen",
                                             &spaceblock__v1__reopen_image_response__descriptor,
                                             CLI_LONG_CALL_MS};
    Spaceblock__V1__ReopenImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct spb_error err;

    spaceblock__v1__reopen_image_request__init(&request);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    request.request_id = session.request_id;
    request.image = &session.image;
    request.accept_identity = cli_has(cli, CLI_OPT_ACCEPT_IDENTITY);
    code = cli_session_call(cli, &session, &method, &request.base, &reply);
    if (code != CLI_EXIT_OK)
        return code;
    const Spaceblock__V1__ReopenImageResponse *answer = (const void *)reply;
    code = cli_session_print(cli, &method, answer->image);
    if (code != CLI_EXIT_OK ||
        answer->image->state == SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_READY)
        return code;
    (void)spb_fail(&err, SPB_READ_ONLY, "reopening image %s: it is still not ready", cli->words[0]);
    return cli_fail(cli, &err);
}

/* ---- The list, page by page ---------------------------------------------------------------- */

static void add_image(struct cli_rows *rows, const Spaceblock__V1__Image *image)
{
    if (rows->items != NULL) {
        cli_json_append(rows->items, cli_image_to_json(image));
        return;
    }
    cli_table_add(&rows->table, "%u", image->tenant);
    cli_table_take(&rows->table, cli_text_safe(image->name.data, image->name.len));
    cli_table_add(&rows->table, "%s", cli_image_state_name(image->state));
    cli_table_add(&rows->table, "%u", image->total_blocks);
    cli_table_add(&rows->table, "%u", image->sector_size);
    cli_table_take(&rows->table, cli_text_safe(image->reason.data, image->reason.len));
}

static spb_status list_page(struct cli *cli, struct cli_daemon *daemon, struct cli_page *page,
                            struct cli_rows *rows, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_IMAGES, "List", &spaceblock__v1__list_images_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__ListImagesRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    spaceblock__v1__list_images_request__init(&request);
    if (cli_has(cli, CLI_OPT_TENANT_ID)) {
        request.if_tenant_case = SPACEBLOCK__V1__LIST_IMAGES_REQUEST__IF_TENANT_TENANT;
        request.tenant = (uint32_t)cli_number(cli, CLI_OPT_TENANT_ID, 0);
    }
    request.all_tenants = cli_has(cli, CLI_OPT_ALL_TENANTS);
    request.page_token = cli_bytes(page->token, page->token_len);
    SPB_TRY(cli_daemon_call(daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__ListImagesResponse *answer = (const void *)reply;
    for (size_t i = 0; i < answer->n_images; i++)
        add_image(rows, answer->images[i]);
    return cli_page_turn(page, &method, &answer->next_page_token, answer->n_images, err);
}

int cli_run_image_list(struct cli *cli)
{
    static const char *const headings[] = {"TENANT", "NAME", "STATE", "BLOCKS", "SECTOR", "REASON"};
    static const struct cli_list list = {"image list", "images", headings, 6, list_page};

    return cli_list_run(cli, &list);
}
