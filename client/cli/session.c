/* The image that a command is about; see session.h. */
#include "cli/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/text.h"

ProtobufCBinaryData cli_uuid_of(const struct cli *cli, uint8_t room[SPB_UUID_SIZE])
{
    const char *text = cli_text_of(cli, CLI_OPT_UUID);
    struct spb_error err;

    if (text == NULL)
        return cli_bytes(room, 0);
    SPB_ASSERT(spb_is_ok(cli_parse_uuid("--uuid", text, room, &err)));
    return cli_bytes(room, SPB_UUID_SIZE);
}

int cli_session_call(struct cli *cli, struct cli_session *session, const struct cli_method *method,
                     const ProtobufCMessage *request, ProtobufCMessage **reply)
{
    struct spb_error err;

    spb_status status = cli_daemon_call(&session->daemon, method, request, reply, &err);
    return spb_is_ok(status) ? CLI_EXIT_OK : cli_fail(cli, &err);
}

int cli_session_print(struct cli *cli, const struct cli_method *method,
                      const Spaceblock__V1__Image *image)
{
    struct spb_error err;

    if (image == NULL) {
        (void)cli_answer_lacks(method, "image", &err);
        return cli_fail(cli, &err);
    }
    cli_print_image(cli, image);
    return CLI_EXIT_OK;
}

void cli_session_cleanup(struct cli_session *session)
{
    cli_daemon_done(&session->daemon);
}

int cli_session_open(struct cli *cli, struct cli_session *session)
{
    struct cli_image_ref image = {.name = ""};
    struct spb_error err;
    spb_status status = spb_ok();

    if (cli->command->subject == CLI_ON_NAMED_IMAGE)
        status = cli_parse_image("[TENANT/]NAME", cli->words[0], &image, &err);
    if (!spb_is_ok(status))
        return cli_usage(cli, "%s", err.text);
    cli_image_ref_fill(&image, &session->image);
    status = spb_client_request_id(session->request_id, &err);
    if (spb_is_ok(status))
        status = cli_daemon_open(cli, &session->daemon, &err);
    if (spb_is_ok(status))
        return CLI_EXIT_OK;
    /* Only a malformed endpoint is invalid before the first call. */
    return err.code == SPB_INVALID ? cli_usage(cli, "%s", err.text) : cli_fail(cli, &err);
}

json_t *cli_image_to_json(const Spaceblock__V1__Image *image)
{
    json_t *object = cli_json_object();

    cli_json_set_number(object, "tenant", image->tenant);
    cli_json_set_text(object, "name", image->name.data, image->name.len);
    cli_json_set_string(object, "state", cli_image_state_name(image->state));
    cli_json_set_text(object, "reason", image->reason.data, image->reason.len);
    cli_json_set_number(object, "sector_size", image->sector_size);
    cli_json_set_number(object, "total_blocks", image->total_blocks);
    cli_json_set_number(object, "epoch", image->epoch);
    cli_json_set_hex(object, "uuid", image->uuid.data, image->uuid.len);
    return object;
}

void cli_print_image(const struct cli *cli, const Spaceblock__V1__Image *image)
{
    char uuid[CLI_UUID_TEXT_SIZE] = "", epoch[CLI_TIME_SIZE];

    if (cli_is_json(cli)) {
        cli_json_print(cli_image_to_json(image));
        return;
    }
    char *name = cli_text_safe(image->name.data, image->name.len);
    char *reason = cli_text_safe(image->reason.data, image->reason.len);
    if (image->uuid.len == SPB_UUID_SIZE)
        cli_text_uuid(image->uuid.data, uuid);
    cli_text_time(image->epoch, epoch);
    printf("image    %u/%s\nstate    %s%s%s\n", image->tenant, name == NULL ? "" : name,
           cli_image_state_name(image->state), image->reason.len == 0 ? "" : ": ",
           reason == NULL ? "" : reason);
    if (image->total_blocks > 0)
        printf("size     %u blocks of %u bytes\nepoch    %s\nuuid     %s\n", image->total_blocks,
               image->sector_size, epoch, uuid);
    free(name);
    free(reason);
}
