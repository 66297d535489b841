/*
 * What commands of the daemon's images share: the image that the first word names with a request id
 * and a client, and images as they are shown. One thread.
 */
#ifndef SPB_CLI_SESSION_H
#define SPB_CLI_SESSION_H

#include <jansson.h>

#include "cli/daemon.h"

struct cli_session {
    struct cli_daemon daemon;
    Spaceblock__V1__ImageRef image; /* of CLI_ON_NAMED_IMAGE */
    char request_id[SPB_REQUEST_ID_SIZE];
};

/* Returns an exit code; the failure has been printed. */
int cli_session_open(struct cli *cli, struct cli_session *session);
void cli_session_cleanup(struct cli_session *session);
#define CLI_AUTO_SESSION __attribute__((cleanup(cli_session_cleanup)))

/* Makes one call and prints its failure; the reply is the caller's. */
int cli_session_call(struct cli *cli, struct cli_session *session, const struct cli_method *method,
                     const ProtobufCMessage *request, ProtobufCMessage **reply);

/* What --uuid says, which was checked with the options, in room; empty without it. */
ProtobufCBinaryData cli_uuid_of(const struct cli *cli, uint8_t room[SPB_UUID_SIZE]);

/* Prints the image of an answer; NULL: the answer has none, which is a failure. */
int cli_session_print(struct cli *cli, const struct cli_method *method,
                      const Spaceblock__V1__Image *image);

json_t *cli_image_to_json(const Spaceblock__V1__Image *image);
/* As text or, with --json, as one object. */
void cli_print_image(const struct cli *cli, const Spaceblock__V1__Image *image);

#endif
