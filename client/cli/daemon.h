/*
 * A connection to the daemon and its calls, and the conversion of its messages. What a daemon sends
 * is checked before it is used: a field out of its bounds is SPB_PROTOCOL. One thread.
 */
#ifndef SPB_CLI_DAEMON_H
#define SPB_CLI_DAEMON_H

#include <spaceblock/v1/events.pb-c.h>
#include <spaceblock/v1/images.pb-c.h>
#include <spaceblock/v1/params.pb-c.h>
#include <spaceblock/v1/products.pb-c.h>

#include "cli/cli.h"

#define CLI_CONNECT_MS 10000
#define CLI_CALL_MS 30000
#define CLI_LONG_CALL_MS 3600000 /* where all data is read */

#define CLI_SERVICE_IMAGES "spaceblock.v1.Images"
#define CLI_SERVICE_PARAMS "spaceblock.v1.Params"
#define CLI_SERVICE_EVENTS "spaceblock.v1.Events"
#define CLI_SERVICE_PRODUCTS "spaceblock.v1.DataProducts"
#define CLI_SERVICE_UPLOADS "spaceblock.v1.Uploads"
#define CLI_SERVICE_SERVER "spaceblock.v1.Server"

struct cli_daemon {
    struct spb_client *client;          /* owned */
    struct spb_client_failure *failure; /* of the run, borrowed */
    int64_t timeout_ms;                 /* of each call; 0: the call's own */
};

/* Connects as --endpoint and --timeout say. SPB_INVALID: a malformed endpoint. */
SPB_MUST_USE spb_status cli_daemon_open(struct cli *cli, struct cli_daemon *daemon,
                                        struct spb_error *err);
/* Accepts what was zeroed. */
void cli_daemon_done(struct cli_daemon *daemon);

static inline int64_t cli_daemon_timeout(const struct cli_daemon *daemon, int64_t otherwise_ms)
{
    return daemon->timeout_ms > 0 ? daemon->timeout_ms : otherwise_ms;
}

struct cli_method {
    const char *service, *name;
    const ProtobufCMessageDescriptor *reply;
    int64_t timeout_ms;
};

/* *reply is the caller's, CLI_AUTO_MESSAGE or protobuf_c_message_free_unpacked(*reply, NULL). */
SPB_MUST_USE spb_status cli_daemon_call(struct cli_daemon *daemon, const struct cli_method *method,
                                        const ProtobufCMessage *request, ProtobufCMessage **reply,
                                        struct spb_error *err);
/* A call whose answer says no more than that it was done. */
SPB_MUST_USE spb_status cli_daemon_do(struct cli_daemon *daemon, const struct cli_method *method,
                                      const ProtobufCMessage *request, struct spb_error *err);
void cli_message_cleanup(ProtobufCMessage **message);
#define CLI_AUTO_MESSAGE __attribute__((cleanup(cli_message_cleanup)))

/* Keeps how a call failed, for the error's JSON; returns status. */
spb_status cli_daemon_failed(struct cli_daemon *daemon, spb_status status, int32_t rpc_code,
                             const char *reason);

/* A view of bytes that protobuf-c only reads, though its type cannot say so. */
ProtobufCBinaryData cli_bytes(const void *data, size_t n);
/* Fills ref from image; the name is borrowed. */
void cli_image_ref_fill(const struct cli_image_ref *image, Spaceblock__V1__ImageRef *ref);

/* ---- Messages to the library's structures (daemon_convert.c) -------------------------------- */

SPB_MUST_USE spb_status cli_from_param(const Spaceblock__V1__Param *message,
                                       struct spb_param *param, struct spb_error *err);
SPB_MUST_USE spb_status cli_from_slot(const Spaceblock__V1__ParamSlot *message,
                                      struct spb_param *param, struct spb_error *err);
SPB_MUST_USE spb_status cli_from_event(const Spaceblock__V1__Event *message,
                                       struct spb_event *event, struct spb_error *err);
SPB_MUST_USE spb_status cli_from_product(const Spaceblock__V1__Product *message,
                                         struct spb_product *product, struct spb_error *err);
SPB_MUST_USE spb_status cli_from_finding(const Spaceblock__V1__Finding *message,
                                         struct spb_finding *finding, struct spb_error *err);
/* "ready", "read-only", "damaged", "unavailable" or "unknown". */
const char *cli_image_state_name(Spaceblock__V1__ImageState state);
/* SPB_PROTOCOL, with the method's name, for an answer that leaves out what it must have. */
spb_status cli_answer_lacks(const struct cli_method *method, const char *field,
                            struct spb_error *err);

#endif
