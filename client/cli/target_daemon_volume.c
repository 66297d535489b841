/* The target through a daemon: the image as a whole. One thread. */
#include <stdlib.h>
#include <string.h>

#include "cli/target_daemon.h"

spb_status daemon_epoch(struct daemon_target *target, uint64_t *epoch, struct spb_error *err)
{
    static const struct cli_method method = {
        CLI_SERVICE_IMAGES, "Get", &spaceblock__v1__get_image_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__GetImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;

    spaceblock__v1__get_image_request__init(&request);
    cli_image_ref_fill(&target->image, &image);
    request.image = &image;
    SPB_TRY(cli_daemon_call(&target->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__GetImageResponse *answer = (const void *)reply;
    if (answer->image == NULL)
        return cli_answer_lacks(&method, "image", err);
    *epoch = answer->image->epoch;
    return spb_ok();
}

/* The parts that hold memory; left to the caller to free on failure. */
static spb_status take_slots(const Spaceblock__V1__InspectImageResponse *answer,
                             struct cli_inspection *found, struct spb_error *err)
{
    found->params = calloc(answer->n_params == 0 ? 1 : answer->n_params, sizeof(*found->params));
    found->summary = strndup(answer->summary.data == NULL ? "" : (const char *)answer->summary.data,
                             answer->summary.len);
    if (found->params == NULL || found->summary == NULL)
        return spb_fail_memory(err, "listing parameter slots");
    for (size_t i = 0; i < answer->n_params; i++)
        SPB_TRY(cli_from_slot(answer->params[i], &found->params[i], err));
    found->param_count = answer->n_params;
    return spb_ok();
}

static spb_status take_inspection(const struct cli_method *method,
                                  const Spaceblock__V1__InspectImageResponse *answer,
                                  struct cli_inspection *inspection, struct spb_error *err)
{
    const Spaceblock__V1__Image *image = answer->image;

    if (image == NULL || image->uuid.len != SPB_UUID_SIZE || image->tenant > UINT16_MAX ||
        answer->format_version > UINT8_MAX)
        return cli_answer_lacks(method, "a sound image", err);
    struct cli_inspection found = {.superblock = {.format_version = (uint8_t)answer->format_version,
                                                  .tenant_id = (uint16_t)image->tenant,
                                                  .total_blocks = image->total_blocks,
                                                  .dp_start = answer->dp_start,
                                                  .dp_size = answer->dp_size,
                                                  .epoch = image->epoch},
                                   .sector_size = image->sector_size,
                                   .param_slots = answer->param_slots,
                                   .event_pointer = answer->event_pointer,
                                   .event_capacity = answer->event_capacity,
                                   .event_window = answer->event_window,
                                   .product_entries = answer->product_entries,
                                   .free_blocks = answer->free_blocks,
                                   .largest_free_blocks = answer->largest_free_blocks};
    memcpy(found.superblock.uuid, image->uuid.data, SPB_UUID_SIZE);
    spb_status status = take_slots(answer, &found, err);
    if (!spb_is_ok(status))
        cli_inspection_done(&found);
    else
        *inspection = found;
    return status;
}

spb_status daemon_inspect(struct cli_target *target, struct cli_inspection *inspection,
                          struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Inspect",
                                             &spaceblock__v1__inspect_image_response__descriptor,
                                             CLI_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__InspectImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;

    spaceblock__v1__inspect_image_request__init(&request);
    cli_image_ref_fill(&self->image, &image);
    request.image = &image;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    return take_inspection(&method, (const void *)reply, inspection, err);
}

static spb_status take_report(const Spaceblock__V1__CheckImageResponse *answer,
                              struct spb_report *report, struct spb_error *err)
{
    struct spb_report found = {.params_valid = answer->params_valid,
                               .params_superseded = answer->params_superseded,
                               .params_free = answer->params_free,
                               .params_corrupt = answer->params_corrupt,
                               .events_live = answer->events_live,
                               .events_corrupt = answer->events_corrupt,
                               .products_good = answer->products_good,
                               .products_bad = answer->products_bad,
                               .blocks_used = answer->blocks_used,
                               .blocks_free = answer->blocks_free};
    size_t count = answer->n_findings;

    found.findings = calloc(count == 0 ? 1 : count, sizeof(*found.findings));
    spb_status status =
        found.findings == NULL ? spb_fail_memory(err, "listing findings") : spb_ok();
    for (size_t i = 0; i < count && spb_is_ok(status); i++)
        status = cli_from_finding(answer->findings[i], &found.findings[i], err);
    found.count = count;
    if (!spb_is_ok(status))
        spb_report_done(&found);
    else
        *report = found;
    return status;
}

spb_status daemon_check(struct cli_target *target, bool repair, struct cli_progress *progress,
                        struct cli_check *check, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Check",
                                             &spaceblock__v1__check_image_response__descriptor,
                                             CLI_LONG_CALL_MS};
    struct daemon_target *self = daemon_of(target);
    Spaceblock__V1__CheckImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__check_image_request__init(&request);
    (void)progress;
    SPB_TRY(spb_client_request_id(request_id, err));
    cli_image_ref_fill(&self->image, &image);
    request.image = &image;
    request.repair = repair;
    if (repair)
        request.request_id = request_id;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__CheckImageResponse *answer = (const void *)reply;
    SPB_TRY(take_report(answer, &check->report, err));
    check->repaired = answer->repaired;
    return spb_ok();
}

/* One call moves what fits into its deadline. */
static spb_status defrag_once(struct daemon_target *self, struct cli_defrag *defrag, bool *done,
                              struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_IMAGES, "Defrag",
                                             &spaceblock__v1__defrag_image_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__DefragImageRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    Spaceblock__V1__ImageRef image;
    char request_id[SPB_REQUEST_ID_SIZE];

    spaceblock__v1__defrag_image_request__init(&request);
    SPB_TRY(spb_client_request_id(request_id, err));
    cli_image_ref_fill(&self->image, &image);
    request.request_id = request_id;
    request.image = &image;
    SPB_TRY(cli_daemon_call(&self->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__DefragImageResponse *answer = (const void *)reply;
    /* An end is certain: every call moves something or is the last. */
    if (!answer->done && answer->moved == 0)
        return spb_fail(err, SPB_DEADLINE,
                        "defragmenting: found a move that does not fit into one call, expected a "
                        "longer --timeout");
    defrag->moved += answer->moved;
    defrag->free_blocks = answer->free_blocks;
    defrag->largest_free_blocks = answer->largest_free_blocks;
    *done = answer->done;
    return spb_ok();
}

spb_status daemon_defrag(struct cli_target *target, struct cli_progress *progress,
                         struct cli_defrag *defrag, struct spb_error *err)
{
    struct cli_defrag found = {.moved = 0};
    bool done = false;

    (void)progress;
    while (!done)
        SPB_TRY(defrag_once(daemon_of(target), &found, &done, err));
    *defrag = found;
    return spb_ok();
}
