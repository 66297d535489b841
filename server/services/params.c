/*
 * Params. Changes are decided by the image's actor; reads are answered from the published state on
 * the loop's thread, without waiting for a flush.
 */
#include <stdio.h>
#include <stdlib.h>

#include "dispatch.h"
#include "image.h"
#include "services/services.h"

#define BATCH_MAX 256u
#define GENERATION_MAX 65535u

static bool gate_value(struct spb_call *call, const char *field, size_t len)
{
    if (len <= SPB_PARAM_VALUE_MAX)
        return true;
    spb_call_set_bad_field(call, field, "found %zu bytes, expected at most %u", len,
                           SPB_PARAM_VALUE_MAX);
    return false;
}

/* ---- Put ---------------------------------------------------------------------------------- */

bool spb_params_put_gate(struct spb_call *call)
{
    const PB_PutParamRequest *request = (const void *)call->request;

    return gate_value(call, "value", request->value.len) &&
           (request->if_expected_generation_case ==
                SPACEBLOCK__V1__PUT_PARAM_REQUEST__IF_EXPECTED_GENERATION__NOT_SET ||
            spb_gate_max(call, "expected_generation", request->expected_generation,
                         GENERATION_MAX));
}

static spb_status decide_put(struct spb_call *call, struct spb_group *group, struct spb_error *err)
{
    const PB_PutParamRequest *request = (const void *)call->request;
    struct spb_param_put put = {
        .id = request->id,
        .value = request->value.data,
        .len = request->value.len,
        .expected_generation = SPB_ANY_GENERATION,
    };

    if (request->if_expected_generation_case ==
        SPACEBLOCK__V1__PUT_PARAM_REQUEST__IF_EXPECTED_GENERATION_EXPECTED_GENERATION)
        put.expected_generation = (int32_t)request->expected_generation;
    return spb_group_put_param(group, &put, call->state, err);
}

static void put_reply(struct spb_call *call)
{
    PB_PutParamResponse reply = SPACEBLOCK__V1__PUT_PARAM_RESPONSE__INIT;
    const uint16_t *generation = call->state;

    reply.generation = *generation;
    spb_call_set_reply(call, &reply.base);
}

void spb_params_put(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.decide = decide_put, .reply = put_reply};

    call->state = spb_call_alloc(call, sizeof(uint16_t));
    if (call->state == NULL)
        spb_call_send(call);
    else
        spb_actor_queue(call, &kind);
}

/* ---- BatchPut ----------------------------------------------------------------------------- */

struct batch {
    struct spb_param_put puts[BATCH_MAX];
    uint16_t generations[BATCH_MAX];
    size_t count;
};

static bool gate_put(struct spb_call *call, const PB_ParamPut *put, size_t i)
{
    char field[64];

    if (put->value.len <= SPB_PARAM_VALUE_MAX &&
        put->if_expected_generation_case ==
            SPACEBLOCK__V1__PARAM_PUT__IF_EXPECTED_GENERATION__NOT_SET)
        return true;
    (void)snprintf(field, sizeof(field), "puts[%zu].value", i);
    if (!gate_value(call, field, put->value.len))
        return false;
    (void)snprintf(field, sizeof(field), "puts[%zu].expected_generation", i);
    return put->if_expected_generation_case ==
               SPACEBLOCK__V1__PARAM_PUT__IF_EXPECTED_GENERATION__NOT_SET ||
           spb_gate_max(call, field, put->expected_generation, GENERATION_MAX);
}

static bool gate_ids(struct spb_call *call, const PB_BatchPutParamsRequest *request)
{
    char field[32];

    for (size_t i = 0; i < request->n_puts; i++) {
        for (size_t j = 0; j < i; j++) {
            if (request->puts[j]->id != request->puts[i]->id)
                continue;
            (void)snprintf(field, sizeof(field), "puts[%zu].id", i);
            spb_call_set_bad_field(call, field, "%u is also puts[%zu].id, expected all to differ",
                                   request->puts[i]->id, j);
            return false;
        }
    }
    return true;
}

bool spb_params_batch_put_gate(struct spb_call *call)
{
    const PB_BatchPutParamsRequest *request = (const void *)call->request;

    if (request->n_puts == 0 || request->n_puts > BATCH_MAX) {
        spb_call_set_bad_field(call, "puts", "found %zu, expected 1 to %u", request->n_puts,
                               BATCH_MAX);
        return false;
    }
    for (size_t i = 0; i < request->n_puts; i++) {
        if (!gate_put(call, request->puts[i], i))
            return false;
    }
    return gate_ids(call, request);
}

static spb_status decide_batch(struct spb_call *call, struct spb_group *group,
                               struct spb_error *err)
{
    struct batch *batch = call->state;

    return spb_group_put_params(group, batch->puts, batch->count, batch->generations, err);
}

static void batch_reply(struct spb_call *call)
{
    PB_BatchPutParamsResponse reply = SPACEBLOCK__V1__BATCH_PUT_PARAMS_RESPONSE__INIT;
    const struct batch *batch = call->state;
    uint32_t generations[BATCH_MAX];

    for (size_t i = 0; i < batch->count; i++)
        generations[i] = batch->generations[i];
    reply.n_generations = batch->count;
    reply.generations = generations;
    spb_call_set_reply(call, &reply.base);
}

void spb_params_batch_put(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.decide = decide_batch, .reply = batch_reply};
    const PB_BatchPutParamsRequest *request = (const void *)call->request;
    struct batch *batch = spb_call_alloc(call, sizeof(*batch));

    if (batch == NULL) {
        spb_call_send(call);
        return;
    }
    batch->count = request->n_puts;
    for (size_t i = 0; i < batch->count; i++) {
        const PB_ParamPut *put = request->puts[i];
        bool expects = put->if_expected_generation_case ==
                       SPACEBLOCK__V1__PARAM_PUT__IF_EXPECTED_GENERATION_EXPECTED_GENERATION;

        batch->puts[i] = (struct spb_param_put){
            .id = put->id,
            .value = put->value.data,
            .len = put->value.len,
            .expected_generation = expects ? (int32_t)put->expected_generation : SPB_ANY_GENERATION,
        };
    }
    call->state = batch;
    spb_actor_queue(call, &kind);
}

/* ---- Delete ------------------------------------------------------------------------------- */

bool spb_params_delete_gate(struct spb_call *call)
{
    const PB_DeleteParamRequest *request = (const void *)call->request;

    return request->if_expected_generation_case ==
               SPACEBLOCK__V1__DELETE_PARAM_REQUEST__IF_EXPECTED_GENERATION__NOT_SET ||
           spb_gate_max(call, "expected_generation", request->expected_generation, GENERATION_MAX);
}

static spb_status decide_delete(struct spb_call *call, struct spb_group *group,
                                struct spb_error *err)
{
    const PB_DeleteParamRequest *request = (const void *)call->request;
    int32_t expected = SPB_ANY_GENERATION;

    if (request->if_expected_generation_case ==
        SPACEBLOCK__V1__DELETE_PARAM_REQUEST__IF_EXPECTED_GENERATION_EXPECTED_GENERATION)
        expected = (int32_t)request->expected_generation;
    return spb_group_delete_param(group, request->id, expected, err);
}

static void delete_reply(struct spb_call *call)
{
    PB_DeleteParamResponse reply = SPACEBLOCK__V1__DELETE_PARAM_RESPONSE__INIT;

    spb_call_set_reply(call, &reply.base);
}

void spb_params_delete(struct spb_call *call)
{
    static const struct spb_op_kind kind = {.decide = decide_delete, .reply = delete_reply};

    spb_actor_queue(call, &kind);
}

/* ---- Reads -------------------------------------------------------------------------------- */

/* found is borrowed until the message is packed. */
static void show(const struct spb_param *found, PB_Param *shown)
{
    *shown = (PB_Param)SPACEBLOCK__V1__PARAM__INIT;
    shown->id = found->id;
    shown->generation = found->generation;
    shown->slot = found->slot;
    shown->corrupt = found->state == SPB_PARAM_CORRUPT;
    shown->value = spb_pb_bytes(found->value, found->len);
}

void spb_params_get(struct spb_call *call)
{
    const PB_GetParamRequest *request = (const void *)call->request;
    PB_GetParamResponse reply = SPACEBLOCK__V1__GET_PARAM_RESPONSE__INIT;
    struct spb_volume *volume = spb_image_read_begin(call);
    struct spb_param_warning warning = {.newer_corrupt = false};
    struct spb_param found;
    struct spb_error err;
    PB_Param shown;

    if (volume == NULL)
        return;
    spb_status status = spb_param_find(volume, request->id, &found, &warning, &err);
    spb_image_read_end(call->image);
    if (!spb_is_ok(status)) {
        spb_call_fail(call, &err);
        return;
    }
    show(&found, &shown);
    reply.param = &shown;
    if (warning.newer_corrupt) {
        reply.newer_corrupt = true;
        reply.newer_corrupt_generation = warning.generation;
        reply.newer_corrupt_slot = warning.slot;
    }
    spb_call_reply(call, &reply.base);
}

/* Found entries as messages in the call's arena; NULL with the error set. */
static PB_Param **show_all(struct spb_call *call, const struct spb_param *found, size_t count)
{
    PB_Param **list = spb_call_alloc(call, count * sizeof(PB_Param *));
    PB_Param *shown = spb_call_alloc(call, count * sizeof(PB_Param));

    if (list == NULL || shown == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        show(&found[i], &shown[i]);
        list[i] = &shown[i];
    }
    return list;
}

static int order_ids(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static int order_param(const void *key, const void *element)
{
    const struct spb_param *param = element;

    return order_ids(key, &param->id);
}

/* Ids that corrupt slots show and no value has, ascending, each once. Returns how many; ids has a
 * place for every slot. */
static size_t corrupt_only(const struct spb_volume *volume, const struct spb_param *latest,
                           size_t latest_count, uint32_t *ids)
{
    size_t count = 0, kept = 0;

    for (uint32_t slot = 0; slot < spb_param_slots(volume); slot++) {
        struct spb_param param;

        if (!spb_is_ok(spb_param_read_slot(volume, slot, &param, NULL)) ||
            param.state != SPB_PARAM_CORRUPT)
            continue;
        if (latest_count == 0 ||
            bsearch(&param.id, latest, latest_count, sizeof(*latest), order_param) == NULL)
            ids[count++] = param.id;
    }
    qsort(ids, count, sizeof(*ids), order_ids);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || ids[kept - 1] != ids[i])
            ids[kept++] = ids[i];
    }
    return kept;
}

void spb_params_list(struct spb_call *call)
{
    PB_ListParamsResponse reply = SPACEBLOCK__V1__LIST_PARAMS_RESPONSE__INIT;
    struct spb_volume *volume = spb_image_read_begin(call);
    struct spb_param *latest = NULL;
    struct spb_error err;

    if (volume == NULL)
        return;
    reply.corrupt_only_ids = spb_call_alloc(call, spb_param_slots(volume) * sizeof(uint32_t));
    spb_status status = spb_param_latest(volume, &latest, &reply.n_params, &err);
    if (spb_is_ok(status) && reply.corrupt_only_ids != NULL)
        reply.n_corrupt_only_ids =
            corrupt_only(volume, latest, reply.n_params, reply.corrupt_only_ids);
    spb_image_read_end(call->image);
    if (!spb_is_ok(status)) {
        spb_call_fail(call, &err);
        return;
    }
    if (reply.corrupt_only_ids != NULL)
        reply.params = show_all(call, latest, reply.n_params);
    if (reply.params != NULL)
        spb_call_set_reply(call, &reply.base);
    free(latest);
    spb_call_send(call);
}

void spb_params_history(struct spb_call *call)
{
    const PB_ParamHistoryRequest *request = (const void *)call->request;
    PB_ParamHistoryResponse reply = SPACEBLOCK__V1__PARAM_HISTORY_RESPONSE__INIT;
    struct spb_volume *volume = spb_image_read_begin(call);
    struct spb_param *found = NULL;
    struct spb_error err;

    if (volume == NULL)
        return;
    spb_status status = spb_param_history(volume, request->id, &found, &reply.n_entries, &err);
    spb_image_read_end(call->image);
    if (!spb_is_ok(status)) {
        spb_call_fail(call, &err);
        return;
    }
    reply.entries = show_all(call, found, reply.n_entries);
    if (reply.entries != NULL)
        spb_call_set_reply(call, &reply.base);
    free(found);
    spb_call_send(call);
}
