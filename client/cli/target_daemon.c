/* The target through a daemon: parameters and events, and the opening. One thread. */
#include "cli/target_daemon.h"

#include <stdlib.h>
#include <string.h>

#define EVENTS_A_CALL 16384u /* the most that Events.List takes */

static spb_status daemon_param_put(struct cli_target *target, const struct spb_param_put *put,
                                   uint16_t *generation, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_PARAMS, "Put", &spaceblock__v1__put_param_response__descriptor, CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__PutParamRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;
    char id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__put_param_request__init(&request);
    SPB_TRY(spb_client_request_id(id, err));
    cli_image_ref_fill(&self->image, &image);
    request.request_id = id;
    request.image = &image;
    request.id = put->id;
    request.value = cli_bytes(put->value, put->len);
    if (put->expected_generation != SPB_ANY_GENERATION) {
        request.if_expected_generation_case =
            SPACEBLOCK__V1__PUT_PARAM_REQUEST__IF_EXPECTED_GENERATION_EXPECTED_GENERATION;
        request.expected_generation = (uint32_t)put->expected_generation;
    }
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__PutParamResponse *answer = (const void *)reply;
    if (answer->generation > UINT16_MAX)
        return cli_answer_lacks(&method, "a generation of 16 bits", err);
    *generation = (uint16_t)answer->generation;
    return spb_ok();
}

static spb_status daemon_param_get(struct cli_target *target, uint32_t id, struct spb_param *param,
                                   struct spb_param_warning *warning, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_PARAMS, "Get", &spaceblock__v1__get_param_response__descriptor, CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__GetParamRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;

    spaceblock__v1__get_param_request__init(&request);
    cli_image_ref_fill(&self->image, &image);
    request.image = &image;
    request.id = id;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__GetParamResponse *answer = (const void *)reply;
    if (answer->param == NULL)
        return cli_answer_lacks(&method, "param", err);
    SPB_TRY(cli_from_param(answer->param, param, err));
    warning->newer_corrupt = answer->newer_corrupt;
    warning->slot = answer->newer_corrupt_slot;
    warning->generation = (uint16_t)answer->newer_corrupt_generation;
    return spb_ok();
}

/* Params of any answer that holds a list of them. */
static spb_status take_params(Spaceblock__V1__Param *const *messages, size_t count,
                              struct cli_params *params, struct spb_error *err)
{
    params->params = calloc(count == 0 ? 1 : count, sizeof(*params->params));
    if (params->params == NULL)
        return spb_fail_memory(err, "listing parameters");
    for (size_t i = 0; i < count; i++)
        SPB_TRY(cli_from_param(messages[i], &params->params[i], err));
    params->count = count;
    return spb_ok();
}

static spb_status take_corrupt_ids(const Spaceblock__V1__ListParamsResponse *answer,
                                   struct cli_params *params, struct spb_error *err)
{
    size_t count = answer->n_corrupt_only_ids;

    params->corrupt_ids = calloc(count == 0 ? 1 : count, sizeof(*params->corrupt_ids));
    if (params->corrupt_ids == NULL)
        return spb_fail_memory(err, "listing parameters");
    if (count > 0)
        memcpy(params->corrupt_ids, answer->corrupt_only_ids, count * sizeof(uint32_t));
    params->corrupt_count = count;
    return spb_ok();
}

static spb_status daemon_param_list(struct cli_target *target, struct cli_params *params,
                                    struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_PARAMS, "List", &spaceblock__v1__list_params_response__descriptor, CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__ListParamsRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;
    struct cli_params found = {.count = 0};

    spaceblock__v1__list_params_request__init(&request);
    cli_image_ref_fill(&self->image, &image);
    request.image = &image;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__ListParamsResponse *answer = (const void *)reply;
    spb_status status = take_params(answer->params, answer->n_params, &found, err);
    if (spb_is_ok(status))
        status = take_corrupt_ids(answer, &found, err);
    if (!spb_is_ok(status))
        cli_params_done(&found);
    else
        *params = found;
    return status;
}

static spb_status daemon_param_history(struct cli_target *target, uint32_t id,
                                       struct cli_params *params, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_PARAMS, "History",
                                             &spaceblock__v1__param_history_response__descriptor,
                                             CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__ParamHistoryRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;
    struct cli_params found = {.count = 0};

    spaceblock__v1__param_history_request__init(&request);
    cli_image_ref_fill(&self->image, &image);
    request.image = &image;
    request.id = id;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__ParamHistoryResponse *answer = (const void *)reply;
    spb_status status = take_params(answer->entries, answer->n_entries, &found, err);
    if (!spb_is_ok(status))
        cli_params_done(&found);
    else
        *params = found;
    return status;
}

static spb_status daemon_param_delete(struct cli_target *target, uint32_t id, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_PARAMS, "Delete",
                                             &spaceblock__v1__delete_param_response__descriptor,
                                             CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__DeleteParamRequest request;
    Spaceblock__V1__ImageRef image;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__delete_param_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    cli_image_ref_fill(&self->image, &image);
    request.request_id = request_id;
    request.image = &image;
    request.id = id;
    return cli_daemon_do(&self->daemon, &method, &request.base, err);
}

static spb_status daemon_event_append(struct cli_target *target, const struct cli_new_event *event,
                                      uint32_t *index, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_EVENTS, "Append",
                                             &spaceblock__v1__append_events_response__descriptor,
                                             CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__AppendEventsRequest request;
    Spaceblock__V1__NewEvent message;
    Spaceblock__V1__NewEvent *messages[] = {&message};
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__new_event__init(&message);
    spaceblock__v1__append_events_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    cli_image_ref_fill(&self->image, &image);
    if (event->has_time) {
        message.if_time_case = SPACEBLOCK__V1__NEW_EVENT__IF_TIME_TIME;
        message.time = event->unix_s;
    }
    message.severity = event->severity;
    message.code = event->code;
    message.payload = cli_bytes(event->payload, event->len);
    request.request_id = request_id;
    request.image = &image;
    request.n_events = 1;
    request.events = messages;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    *index = ((const Spaceblock__V1__AppendEventsResponse *)(const void *)reply)->first_index;
    return spb_ok();
}

static void narrow(const uint64_t *list, size_t count, uint32_t *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint32_t)list[i];
}

static spb_status take_events(const Spaceblock__V1__ListEventsResponse *answer,
                              struct cli_events *events, struct spb_error *err)
{
    struct spb_event *list = calloc(answer->n_events == 0 ? 1 : answer->n_events, sizeof(*list));
    spb_status status = list == NULL ? spb_fail_memory(err, "listing events") : spb_ok();

    for (size_t i = 0; i < answer->n_events && spb_is_ok(status); i++)
        status = cli_from_event(answer->events[i], &list[i], err);
    if (!spb_is_ok(status)) {
        free(list);
        return status;
    }
    events->events = list;
    events->count = answer->n_events;
    events->pointer = answer->pointer;
    return status;
}

static spb_status daemon_event_list(struct cli_target *target, const struct cli_event_query *query,
                                    struct cli_events *events, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_EVENTS, "List", &spaceblock__v1__list_events_response__descriptor, CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__ListEventsRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    uint32_t severities[CLI_REPEAT_MAX], codes[CLI_REPEAT_MAX];
    Spaceblock__V1__ImageRef image;
    uint64_t epoch;

    spaceblock__v1__list_events_request__init(&request);
    SPB_TRY(daemon_epoch(self, &epoch, err));
    cli_image_ref_fill(&self->image, &image);
    narrow(query->severities, query->severity_count, severities);
    narrow(query->codes, query->code_count, codes);
    request.image = &image;
    request.limit =
        query->newest == 0 || query->newest > EVENTS_A_CALL ? EVENTS_A_CALL : query->newest;
    request.n_severities = query->severity_count;
    request.severities = severities;
    request.n_codes = query->code_count;
    request.codes = codes;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    SPB_TRY(take_events((const void *)reply, events, err));
    events->epoch = epoch;
    events->cut = events->count == EVENTS_A_CALL && query->newest != EVENTS_A_CALL;
    return spb_ok();
}

static void daemon_close(struct cli_target *target)
{
    cli_daemon_done(&daemon_of(target)->daemon);
    free(target);
}

static const struct cli_target_ops daemon_ops = {
    .inspect = daemon_inspect,
    .check = daemon_check,
    .defrag = daemon_defrag,
    .param_put = daemon_param_put,
    .param_get = daemon_param_get,
    .param_list = daemon_param_list,
    .param_history = daemon_param_history,
    .param_delete = daemon_param_delete,
    .event_append = daemon_event_append,
    .event_list = daemon_event_list,
    .product_list = daemon_product_list,
    .product_put = daemon_product_put,
    .product_find = daemon_product_find,
    .product_read = daemon_product_read,
    .product_delete = daemon_product_delete,
    .close = daemon_close,
};

spb_status cli_target_daemon_open(struct cli *cli, const struct cli_image_ref *image,
                                  struct cli_target **target, struct spb_error *err)
{
    struct daemon_target *opened = calloc(1, sizeof(*opened));

    if (opened == NULL)
        return spb_fail_memory(err, "connecting to the daemon");
    opened->base.ops = &daemon_ops;
    opened->cli = cli;
    opened->image = *image;
    spb_status status = cli_daemon_open(cli, &opened->daemon, err);
    if (!spb_is_ok(status)) {
        free(opened);
        return status;
    }
    *target = &opened->base;
    return status;
}
