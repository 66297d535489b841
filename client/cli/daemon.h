/*
 * A client of the daemon and its calls, and the conversion of its messages. What a daemon sends is
 * checked before it is used: a field out of its bounds is SPB_PROTOCOL. One thread.
 *
 * Calls are tried again over lost connections, as --retries and --timeout allow, so that each must
 * be a read, carry a request_id, or be Uploads.Write. After cli_interrupt_watch a signal ends the
 * call that waits, and with it the client: the run is over, but for what it has to say.
 */
#ifndef SPB_CLI_DAEMON_H
#define SPB_CLI_DAEMON_H

#include <spaceblock/v1/events.pb-c.h>
#include <spaceblock/v1/images.pb-c.h>
#include <spaceblock/v1/params.pb-c.h>
#include <spaceblock/v1/products.pb-c.h>

#include "cli/cli.h"

#define CLI_CONNECT_MS 10000
#define CLI_FIRST_CONNECT_MS 2000 /* where nobody is there, and --timeout does not say */
#define CLI_CALL_MS 30000
#define CLI_LONG_CALL_MS 3600000 /* where all data is read */
#define CLI_CHUNK_MS 300000      /* four chunks at 16 KiB/s; a dead link is noticed sooner */
#define CLI_RETRIES 32u
#define CLI_WAIT_MS 500 /* a signal that comes just before a wait is noticed after this long */

#define CLI_SERVICE_IMAGES "spaceblock.v1.Images"
#define CLI_SERVICE_PARAMS "spaceblock.v1.Params"
#define CLI_SERVICE_EVENTS "spaceblock.v1.Events"
#define CLI_SERVICE_PRODUCTS "spaceblock.v1.DataProducts"
#define CLI_SERVICE_UPLOADS "spaceblock.v1.Uploads"
#define CLI_SERVICE_SERVER "spaceblock.v1.Server"
#define CLI_SERVICE_AUDIT "spaceblock.v1.Audit"

struct cli_daemon {
    struct spb_client *client;   /* owned */
    struct cli_failure *failure; /* of the run, borrowed */
    int64_t timeout_ms;          /* of all calls together; 0: each has its own */
    /* What it takes of a transfer, as Server.Info told; 0: not asked yet. */
    uint32_t chunk_max, calls_max;
};

/* Makes a client as --endpoint, --timeout and --retries say; the first call connects. cli is
 * borrowed while the client lives. SPB_INVALID: a malformed endpoint. */
SPB_MUST_USE spb_status cli_daemon_open(struct cli *cli, struct cli_daemon *daemon,
                                        struct spb_error *err);
/* Accepts what was zeroed. */
void cli_daemon_done(struct cli_daemon *daemon);

/* May calls be tried again at all? */
bool cli_may_retry(const struct cli *cli);
/* Should it be said what is tried again, and what goes on where it was? */
bool cli_is_verbose(const struct cli *cli);

/* A call's own time, unless the user set one for all together, which the client knows. */
static inline int64_t cli_daemon_timeout(const struct cli_daemon *daemon, int64_t otherwise_ms)
{
    return daemon->timeout_ms > 0 ? SPB_CLIENT_NO_TIMEOUT : otherwise_ms;
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
/* The same, also after a signal: for what gives back what the run holds. */
SPB_MUST_USE spb_status cli_daemon_call_at_last(struct cli_daemon *daemon,
                                                const struct cli_method *method,
                                                const ProtobufCMessage *request,
                                                ProtobufCMessage **reply, struct spb_error *err);
/* A call whose answer says no more than that it was done. */
SPB_MUST_USE spb_status cli_daemon_do(struct cli_daemon *daemon, const struct cli_method *method,
                                      const ProtobufCMessage *request, struct spb_error *err);
/* A copy of a part of an answer; the caller's, as a reply is. NULL without memory. */
ProtobufCMessage *cli_message_copy(const ProtobufCMessage *message);
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
/* "ready", "read-only", "damaged", "unavailable", "quarantined", "attached" or "unknown". */
const char *cli_image_state_name(Spaceblock__V1__ImageState state);
/* SPB_PROTOCOL, with the method's name, for an answer that leaves out what it must have. */
spb_status cli_answer_lacks(const struct cli_method *method, const char *field,
                            struct spb_error *err);

#endif
