/* The offline target: an image file or block device through libspaceblock. One thread. */
#include "cli/target_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static spb_status collect_slots(const struct spb_volume *volume, struct cli_inspection *inspection,
                                struct spb_error *err)
{
    uint32_t slots = spb_param_slots(volume);
    struct spb_param *params = calloc(slots == 0 ? 1 : slots, sizeof(*params));
    size_t count = 0;

    if (params == NULL)
        return spb_fail_memory(err, "listing parameter slots");
    for (uint32_t slot = 0; slot < slots; slot++) {
        spb_status status = spb_param_read_slot(volume, slot, &params[count], err);
        if (!spb_is_ok(status)) {
            free(params);
            return status;
        }
        if (params[count].state != SPB_PARAM_FREE)
            count++;
    }
    inspection->params = params;
    inspection->param_count = count;
    return spb_ok();
}

static spb_status file_inspect(struct cli_target *target, struct cli_inspection *inspection,
                               struct spb_error *err)
{
    const struct spb_volume *volume = volume_of(target);
    struct cli_inspection found = {.superblock = *spb_volume_superblock(volume),
                                   .sector_size = spb_volume_sector_size(volume),
                                   .param_slots = spb_param_slots(volume),
                                   .event_pointer = spb_event_pointer(volume),
                                   .event_capacity = spb_event_capacity(volume),
                                   .event_window = spb_event_window(volume),
                                   .product_entries = spb_product_entries(volume)};

    spb_product_space(volume, &found.free_blocks, &found.largest_free_blocks);
    SPB_TRY(collect_slots(volume, &found, err));
    found.summary = spb_volume_describe(volume);
    if (found.summary == NULL) {
        cli_inspection_done(&found);
        return spb_fail_memory(err, "describing the image");
    }
    *inspection = found;
    return spb_ok();
}

static spb_status file_check(struct cli_target *target, bool repair, struct cli_progress *progress,
                             struct cli_check *check, struct spb_error *err)
{
    struct spb_volume *volume = volume_of(target);

    if (repair)
        SPB_TRY(spb_volume_repair(volume, cli_progress_callback, progress, &check->report, err));
    else
        SPB_TRY(spb_volume_check(volume, cli_progress_callback, progress, &check->report, err));
    check->repaired = repair;
    return spb_ok();
}

static spb_status file_defrag(struct cli_target *target, struct cli_progress *progress,
                              struct cli_defrag *defrag, struct spb_error *err)
{
    struct spb_volume *volume = volume_of(target);
    struct spb_product product;
    uint32_t moves = 0;
    bool moved = true;

    (void)progress;
    while (moved) {
        SPB_TRY(spb_volume_defrag_step(volume, &moved, &product, err));
        moves += moved ? 1 : 0;
    }
    defrag->moved = moves;
    spb_product_space(volume, &defrag->free_blocks, &defrag->largest_free_blocks);
    return spb_ok();
}

static spb_status file_param_put(struct cli_target *target, const struct spb_param_put *put,
                                 uint16_t *generation, struct spb_error *err)
{
    return spb_volume_put_param(volume_of(target), put, generation, err);
}

static spb_status file_param_get(struct cli_target *target, uint32_t id, struct spb_param *param,
                                 struct spb_param_warning *warning, struct spb_error *err)
{
    return spb_param_find(volume_of(target), id, param, warning, err);
}

/* Adds the id of a corrupt slot where no valid slot names it, once. */
static void note_corrupt_id(const struct spb_volume *volume, const struct spb_param *slot,
                            struct cli_params *params)
{
    struct spb_param value;

    if (slot->state != SPB_PARAM_CORRUPT ||
        spb_is_ok(spb_param_find(volume, slot->id, &value, NULL, NULL)))
        return;
    for (size_t i = 0; i < params->corrupt_count; i++) {
        if (params->corrupt_ids[i] == slot->id)
            return;
    }
    params->corrupt_ids[params->corrupt_count++] = slot->id;
}

static spb_status file_param_list(struct cli_target *target, struct cli_params *params,
                                  struct spb_error *err)
{
    const struct spb_volume *volume = volume_of(target);
    uint32_t slots = spb_param_slots(volume);
    struct cli_params found = {.corrupt_ids = calloc(slots == 0 ? 1 : slots, sizeof(uint32_t))};
    struct spb_param slot;

    if (found.corrupt_ids == NULL)
        return spb_fail_memory(err, "listing parameters");
    spb_status status = spb_param_latest(volume, &found.params, &found.count, err);
    for (uint32_t i = 0; i < slots && spb_is_ok(status); i++) {
        status = spb_param_read_slot(volume, i, &slot, err);
        if (spb_is_ok(status))
            note_corrupt_id(volume, &slot, &found);
    }
    if (!spb_is_ok(status)) {
        cli_params_done(&found);
        return status;
    }
    *params = found;
    return status;
}

static spb_status file_param_history(struct cli_target *target, uint32_t id,
                                     struct cli_params *params, struct spb_error *err)
{
    return spb_param_history(volume_of(target), id, &params->params, &params->count, err);
}

static spb_status file_param_delete(struct cli_target *target, uint32_t id, struct spb_error *err)
{
    return spb_volume_delete_param(volume_of(target), id, SPB_ANY_GENERATION, err);
}

static spb_status file_event_append(struct cli_target *target, const struct cli_new_event *event,
                                    uint32_t *index, struct spb_error *err)
{
    struct spb_volume *volume = volume_of(target);
    struct spb_event record = {.severity = event->severity, .code = event->code};
    int64_t unix_s = event->has_time ? event->unix_s : (int64_t)time(NULL);

    if (event->len > SPB_EVENT_PAYLOAD_MAX)
        return spb_fail(err, SPB_INVALID,
                        "appending an event: found a payload of %zu bytes, expected at most %u",
                        event->len, SPB_EVENT_PAYLOAD_MAX);
    SPB_TRY(spb_event_time(volume, unix_s, &record.timestamp, err));
    record.payload_len = (uint8_t)event->len;
    if (event->len > 0)
        memcpy(record.payload, event->payload, event->len);
    return spb_volume_append_events(volume, &record, 1, index, err);
}

static spb_status file_event_list(struct cli_target *target, const struct cli_event_query *query,
                                  struct cli_events *events, struct spb_error *err)
{
    const struct spb_volume *volume = volume_of(target);
    struct spb_event *all = NULL;
    size_t found = 0, kept = 0;
    size_t most = query->newest == 0 ? SIZE_MAX : query->newest;

    SPB_TRY(spb_event_recent(volume, spb_event_window(volume), &all, &found, err));
    /* From the newest back; those that stay gather at the end of the array. */
    for (size_t i = found; i > 0 && kept < most; i--) {
        if (cli_event_matches(query, &all[i - 1])) {
            kept++;
            all[found - kept] = all[i - 1];
        }
    }
    if (kept > 0 && kept < found)
        memmove(all, all + found - kept, kept * sizeof(*all));
    events->events = all;
    events->count = kept;
    events->pointer = spb_event_pointer(volume);
    events->epoch = spb_volume_superblock(volume)->epoch;
    events->cut = false;
    return spb_ok();
}

static void file_close(struct cli_target *target)
{
    spb_volume_close(volume_of(target));
    free(target);
}

static const struct cli_target_ops file_ops = {
    .inspect = file_inspect,
    .check = file_check,
    .defrag = file_defrag,
    .param_put = file_param_put,
    .param_get = file_param_get,
    .param_list = file_param_list,
    .param_history = file_param_history,
    .param_delete = file_param_delete,
    .event_append = file_event_append,
    .event_list = file_event_list,
    .product_list = file_product_list,
    .product_put = file_product_put,
    .product_find = file_product_find,
    .product_read = file_product_read,
    .product_delete = file_product_delete,
    .close = file_close,
};

static void find_owner(struct spb_device *device, char owner[CLI_OWNER_SIZE])
{
    char words[64];
    int pid = 0;

    if (!spb_device_file_owner(device, words, sizeof(words), &pid))
        return;
    if (pid > 0)
        (void)snprintf(owner, CLI_OWNER_SIZE, "%s (process %d)", words, pid);
    else
        (void)snprintf(owner, CLI_OWNER_SIZE, "%s", words);
}

spb_status cli_target_file_open(const char *path, uint32_t sector_size, bool writable,
                                struct cli_target **target, char owner[CLI_OWNER_SIZE],
                                struct spb_error *err)
{
    struct spb_open_options options = {.sector_size = sector_size, .writable = writable};
    struct file_target *file = calloc(1, sizeof(*file));
    struct spb_device *device = NULL;

    if (file == NULL)
        return spb_fail_memory(err, "opening the image");
    file->base.ops = &file_ops;
    spb_status status =
        spb_device_file_open(path, writable ? SPB_FILE_WRITE : SPB_FILE_READ, &device, err);
    if (spb_is_ok(status)) {
        if (!writable)
            find_owner(device, owner);
        status = spb_volume_open(device, &options, &file->volume, err);
    }
    if (!spb_is_ok(status)) {
        spb_device_close(device);
        free(file);
        return status;
    }
    *target = &file->base;
    return status;
}
