/* Calls about a guest, and waiting for it; see guest.h. */
#include "cli/guest/guest.h"

#include <stdio.h>
#include <string.h>

#include "cli/output.h"
#include "cli/reconnect.h"
#include "cli/text.h"

#define DELETE_MS 120000 /* with force: until QEMU has ended and the images are looked through */
#define WAIT_CALL_MS 30000

int cli_guest_open(struct cli *cli, struct cli_guest *guest)
{
    Spaceblock__V1__GuestRef *ref = &guest->ref;
    struct spb_error err;

    guest->cli = cli;
    if (!spb_is_ok(cli_parse_image("[TENANT/]NAME", cli->words[0], &guest->name, &err)))
        return cli_usage(cli, "%s", err.text);
    spaceblock__v1__guest_ref__init(ref);
    if (guest->name.has_tenant) {
        ref->if_tenant_case = SPACEBLOCK__V1__GUEST_REF__IF_TENANT_TENANT;
        ref->tenant = guest->name.tenant;
    }
    ref->name = cli_bytes(guest->name.name, strlen(guest->name.name));
    if (spb_is_ok(cli_daemon_open(cli, &guest->daemon, &err)))
        return CLI_EXIT_OK;
    /* Only a malformed endpoint is invalid before the first call. */
    return err.code == SPB_INVALID ? cli_usage(cli, "%s", err.text) : cli_fail(cli, &err);
}

void cli_guest_cleanup(struct cli_guest *guest)
{
    cli_daemon_done(&guest->daemon);
}

/* ---- Calls --------------------------------------------------------------------------------- */

void cli_guest_answer_cleanup(struct cli_guest_answer *answer)
{
    cli_message_cleanup(&answer->reply);
}

/* The guest in an answer; NULL where it has none. */
static const Spaceblock__V1__Guest *guest_of(const ProtobufCMessage *reply)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(reply->descriptor, 1);
    const Spaceblock__V1__Guest *found = NULL;

    if (field != NULL && field->descriptor == &spaceblock__v1__guest__descriptor)
        memcpy(&found, (const char *)reply + field->offset, sizeof(const Spaceblock__V1__Guest *));
    return found;
}

spb_status cli_guest_ask(struct cli_guest *guest, const struct cli_method *method,
                         const ProtobufCMessage *request, struct cli_guest_answer *answer,
                         struct spb_error *err)
{
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    SPB_TRY(cli_daemon_call(&guest->daemon, method, request, &reply, err));
    const Spaceblock__V1__Guest *found = guest_of(reply);
    if (found == NULL)
        return cli_answer_lacks(method, "guest", err);
    cli_guest_answer_cleanup(answer);
    *answer = (struct cli_guest_answer){reply, found};
    reply = NULL;
    return spb_ok();
}

spb_status cli_guest_get(struct cli_guest *guest, struct cli_guest_answer *answer,
                         struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_GUESTS, "Get", &spaceblock__v1__get_guest_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__GetGuestRequest request;

    spaceblock__v1__get_guest_request__init(&request);
    request.guest = &guest->ref;
    return cli_guest_ask(guest, &method, &request.base, answer, err);
}

spb_status cli_guest_start(struct cli_guest *guest, struct cli_guest_answer *answer,
                           struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_GUESTS, "Start",
                                             &spaceblock__v1__start_guest_response__descriptor,
                                             CLI_GUEST_START_MS};
    Spaceblock__V1__StartGuestRequest request;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__start_guest_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    request.request_id = request_id;
    request.guest = &guest->ref;
    return cli_guest_ask(guest, &method, &request.base, answer, err);
}

spb_status cli_guest_stop(struct cli_guest *guest, uint32_t timeout_ms,
                          struct cli_guest_answer *answer, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_GUESTS, "Stop", &spaceblock__v1__stop_guest_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__StopGuestRequest request;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__stop_guest_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    request.request_id = request_id;
    request.guest = &guest->ref;
    if (timeout_ms > 0) {
        request.if_timeout_case = SPACEBLOCK__V1__STOP_GUEST_REQUEST__IF_TIMEOUT_TIMEOUT_MS;
        request.timeout_ms = timeout_ms;
    }
    return cli_guest_ask(guest, &method, &request.base, answer, err);
}

spb_status cli_guest_kill(struct cli_guest *guest, struct cli_guest_answer *answer,
                          struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_GUESTS, "Kill", &spaceblock__v1__kill_guest_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__KillGuestRequest request;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__kill_guest_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    request.request_id = request_id;
    request.guest = &guest->ref;
    return cli_guest_ask(guest, &method, &request.base, answer, err);
}

spb_status cli_guest_delete(struct cli_guest *guest, bool force, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_GUESTS, "Delete",
                                             &spaceblock__v1__delete_guest_response__descriptor,
                                             DELETE_MS};
    Spaceblock__V1__DeleteGuestRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__delete_guest_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    request.request_id = request_id;
    request.guest = &guest->ref;
    request.force = force;
    /* Also where a signal ended the waiting: what --rm promised still holds. */
    return cli_daemon_call_at_last(&guest->daemon, &method, &request.base, &reply, err);
}

/* ---- Waiting ------------------------------------------------------------------------------- */

bool cli_guest_has_ended(const Spaceblock__V1__Guest *guest)
{
    return guest->state == SPACEBLOCK__V1__GUEST_STATE__GUEST_STATE_STOPPED ||
           guest->state == SPACEBLOCK__V1__GUEST_STATE__GUEST_STATE_CRASHED ||
           guest->state == SPACEBLOCK__V1__GUEST_STATE__GUEST_STATE_LOST;
}

static bool is_there(const Spaceblock__V1__Guest *guest, enum cli_guest_goal goal)
{
    bool runs = guest->state == SPACEBLOCK__V1__GUEST_STATE__GUEST_STATE_RUNNING;

    switch (goal) {
    case CLI_GUEST_RUNNING:
        return runs;
    case CLI_GUEST_ALIVE:
        return runs && guest->alive;
    case CLI_GUEST_ENDED:
        break;
    }
    return cli_guest_has_ended(guest);
}

static spb_status fail_ended(const Spaceblock__V1__Guest *guest, struct spb_error *err)
{
    return spb_fail(err, SPB_CHANGED, "waiting for guest \"%.*s\": found it %s: %.*s",
                    (int)guest->name.len, (const char *)guest->name.data,
                    cli_guest_state_name(guest->state), (int)guest->reason.len,
                    (const char *)guest->reason.data);
}

static spb_status ask_to_wait(struct cli_guest *guest, struct cli_guest_answer *answer,
                              struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_GUESTS, "Wait", &spaceblock__v1__wait_guest_response__descriptor, WAIT_CALL_MS};
    Spaceblock__V1__WaitGuestRequest request;

    spaceblock__v1__wait_guest_request__init(&request);
    request.guest = &guest->ref;
    request.known_version = answer->guest->version;
    request.wait_ms = CLI_GUEST_WAIT_MS;
    return cli_guest_ask(guest, &method, &request.base, answer, err);
}

struct probing {
    struct cli_guest *guest;
    struct cli_guest_answer *answer;
};

static spb_status probe(void *user, struct spb_error *err)
{
    struct probing *probing = user;

    return cli_guest_get(probing->guest, probing->answer, err);
}

spb_status cli_guest_wait(struct cli_guest *guest, enum cli_guest_goal goal,
                          struct cli_guest_answer *answer, struct spb_error *err)
{
    struct probing probing = {guest, answer};

    SPB_TRY(cli_guest_get(guest, answer, err));
    while (!is_there(answer->guest, goal)) {
        if (cli_guest_has_ended(answer->guest))
            return fail_ended(answer->guest, err);
        spb_status status = ask_to_wait(guest, answer, err);
        if (!spb_is_ok(status) && cli_may_reconnect(guest->cli, &guest->daemon, status)) {
            struct spb_error why = *err;
            status = cli_reconnect(guest->cli, &guest->daemon, &why, probe, &probing, err);
        }
        if (spb_is_ok(status) && cli_is_interrupted())
            return spb_fail(err, SPB_DEADLINE, "waiting for guest \"%s\": interrupted",
                            guest->name.name);
        SPB_TRY(status);
    }
    return spb_ok();
}

int cli_guest_exit(const Spaceblock__V1__Guest *guest)
{
    switch (guest->ending) {
    case SPACEBLOCK__V1__GUEST_ENDING__GUEST_ENDING_POWEROFF:
        return CLI_EXIT_OK;
    case SPACEBLOCK__V1__GUEST_ENDING__GUEST_ENDING_PANIC:
        return CLI_EXIT_PANIC;
    case SPACEBLOCK__V1__GUEST_ENDING__GUEST_ENDING_REBOOT:
        return CLI_EXIT_REBOOT;
    case SPACEBLOCK__V1__GUEST_ENDING__GUEST_ENDING_STOPPED:
        return CLI_EXIT_STOPPED;
    default: /* also one that a newer daemon knows */
        return CLI_EXIT_QEMU;
    }
}
