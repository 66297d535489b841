/*
 * Completing what a crash left in part: the changes of one call are judged, and what is missing is
 * decided again, in one group, from the values in its statement. Nothing is written before all of
 * it is decided, so that a failure changes nothing. The actor's thread.
 */
#include <stdlib.h>
#include <string.h>

#include "volume/judge.h"
#include "volume/state.h"

#define ANY_ENTRY UINT32_MAX

/* A catalog entry that is to be emptied, if it still holds these bytes. */
struct gone {
    uint32_t entry; /* ANY_ENTRY: wherever it is */
    const uint8_t *bytes;
};

/* One run. */
struct completion {
    struct spb_volume *volume;
    struct spb_group *group;
    struct spb_change *changes; /* of the whole encoding, borrowing its bytes */
    struct spb_judgement *judgements;
    size_t total, first, count;
    enum spb_verdict sum;          /* of the range */
    struct spb_reservation **held; /* of products that are published again, until the end */
    size_t held_count;
    struct gone *gone; /* catalog entries that are to be emptied */
    size_t gone_count;
};

static const char *object_of(const struct completion *run, size_t i)
{
    return run->judgements[i].object;
}

/* Why what is missing cannot be made. */
static spb_status fail_changed(const struct completion *run, size_t i, const char *why,
                               struct spb_error *err)
{
    return spb_fail(err, SPB_CHANGED, "cannot complete the change of %s in %s: %s",
                    object_of(run, i), run->volume->device->name, why);
}

/* Raw edits are told as the statement has them, so that the group is not empty. */
static spb_status state_again(struct completion *run, const struct spb_change *change,
                              struct spb_error *err)
{
    size_t size = spb_change_size(change);
    uint8_t *bytes = malloc(size);

    if (bytes == NULL)
        return spb_fail_memory(err, "completing a change");
    struct spb_writer w = spb_writer_over(bytes, size);
    spb_change_write(&w, change);
    spb_status status = spb_group_state_change(run->group, bytes, size, err);
    free(bytes);
    return status;
}

/* ---- Parameters and events ------------------------------------------------------------------ */

static spb_status complete_param(struct completion *run, size_t i, struct spb_error *err)
{
    const struct spb_param_change *change = &run->changes[i].of.param;

    if (change->after.state == SPB_VALUE_ABSENT)
        return spb_group_delete_param(run->group, change->id, SPB_ANY_GENERATION, err);
    if (change->after.state != SPB_VALUE_VALID)
        return fail_changed(run, i, "its statement has no value to put", err);
    return spb_group_put_param_again(run->group, change->id, change->after.generation,
                                     change->after.bytes, change->after.len, err);
}

static spb_status decode_events(const struct completion *run, size_t i, uint32_t from,
                                struct spb_event *events, struct spb_error *err)
{
    const struct spb_events_change *change = &run->changes[i].of.events;

    for (uint32_t k = from; k < change->count; k++) {
        spb_event_record_decode(change->records + (size_t)k * SPB_EVENT_SIZE, &events[k - from]);
        if (events[k - from].corrupt)
            return fail_changed(run, i, "its statement has a record that is none", err);
    }
    return spb_ok();
}

static spb_status complete_events(struct completion *run, size_t i, struct spb_error *err)
{
    const struct spb_events_change *change = &run->changes[i].of.events;
    uint32_t there = spb_events_there(run->volume, change);

    /* Behind another append of this range, which the group has decided. */
    if (run->group->event_count > 0 && run->group->pointer == change->before)
        there = 0;
    else if (run->group->event_count > 0 || there >= change->count)
        return fail_changed(run, i, "the event pointer is not where it was", err);
    struct spb_event *events = calloc(change->count - there, sizeof(*events));
    if (events == NULL)
        return spb_fail_memory(err, "completing an append");
    spb_status status = decode_events(run, i, there, events, err);
    if (spb_is_ok(status))
        status = spb_group_append_events(run->group, events, change->count - there, NULL, err);
    free(events);
    if (spb_is_ok(status) && run->group->pointer != change->after)
        return fail_changed(run, i, "the event pointer would not be where it was to be", err);
    return status;
}

/* ---- Products ------------------------------------------------------------------------------- */

/* The data must be where the statement has it, on the medium, and nobody else's by now. */
static spb_status hold_data(struct completion *run, size_t i, struct spb_product *product,
                            struct spb_reservation **held, struct spb_error *err)
{
    struct spb_error own;
    spb_status status = spb_reservation_new_extent(run->volume, product->block_offset,
                                                   product->block_count, held, &own);

    if (status.code == SPB_NO_MEMORY)
        return spb_fail_memory(err, "completing a product");
    if (!spb_is_ok(status))
        return fail_changed(run, i, own.text, err);
    run->held[run->held_count++] = *held;
    status = spb_extent_verify(run->volume, product, product->block_offset, SPB_FROM_MEDIUM, NULL,
                               NULL, &product->length, err);
    if (status.code == SPB_CORRUPT)
        return fail_changed(run, i, "its data is no longer on the medium", err);
    return status;
}

/*
 * Only for a call of which something is there: its data was flushed before. Of one that left
 * nothing the data may be there in part, and the CRC alone would not tell (CRC-32C does not see
 * zeros after FF FF FF FF, so that the mark behind them could be missing).
 */
static spb_status publish_again(struct completion *run, size_t i, struct spb_error *err)
{
    struct spb_reservation *held = NULL;
    struct spb_product product;

    if (run->sum == SPB_VERDICT_BEFORE)
        return fail_changed(run, i, "its data may not have reached the medium", err);

    spb_entry_decode(run->changes[i].of.product.after, run->volume->geo.dp_size, &product);
    if (product.state != SPB_PRODUCT_PRESENT ||
        (product.block_count == 0 && product.block_offset != 0))
        return fail_changed(run, i, "its statement has an entry that is none", err);
    SPB_TRY(hold_data(run, i, &product, &held, err));
    struct spb_product_attributes attributes = {product.name, product.name_len,
                                                product.product_class, product.priority};
    struct spb_product_data data = {product.length, product.crc, product.block_count};
    return spb_group_publish_product(run->group, held, &attributes, &data, true, NULL, err);
}

static void let_go(struct completion *run, uint32_t entry, const uint8_t *bytes)
{
    run->gone[run->gone_count++] = (struct gone){entry, bytes};
}

static spb_status complete_product(struct completion *run, size_t i, struct spb_error *err)
{
    const struct spb_product_change *change = &run->changes[i].of.product;

    if (change->after == NULL)
        return spb_group_delete_product(run->group, change->before + SPB_ENTRY_NAME_AT,
                                        change->before[SPB_ENTRY_NAME_AT - 1], err);
    if (run->judgements[i].verdict == SPB_VERDICT_BEFORE)
        return publish_again(run, i, err);
    /* Both stand: the old one was to be emptied a flush later. */
    let_go(run, ANY_ENTRY, change->before);
    return spb_ok();
}

/* ---- Single records -------------------------------------------------------------------------- */

static spb_status erase_slot(struct completion *run, size_t i, struct spb_error *err)
{
    const struct spb_cell_change *cell = &run->changes[i].of.cell;
    struct spb_work_cell *at = &run->group->cells[cell->index];
    uint32_t last;

    if (at->cell.state == SPB_PARAM_VALID)
        return fail_changed(run, i, "it holds a value", err);
    SPB_TRY(spb_group_erase(run->group, 0, spb_param_at(&run->volume->geo, cell->index),
                            SPB_PARAM_SIZE, &last, err));
    at->cell = (struct spb_cell){.state = SPB_PARAM_FREE};
    at->ready = last + 1;
    return state_again(run, &run->changes[i], err);
}

static spb_status complete_slot(struct completion *run, size_t i, struct spb_error *err)
{
    const struct spb_cell_change *cell = &run->changes[i].of.cell;
    struct spb_param param;

    if (spb_bytes_are_zero(cell->after, SPB_PARAM_SIZE))
        return erase_slot(run, i, err);
    spb_param_record_decode(cell->after, SPB_PARAM_SIZE, &param);
    if (param.state != SPB_PARAM_VALID)
        return fail_changed(run, i, "its statement has an entry that is none", err);
    return spb_group_write_param(run->group, cell->index, param.id, param.generation, param.value,
                                 param.len, err);
}

static spb_status complete_cell(struct completion *run, size_t i, struct spb_error *err)
{
    const struct spb_cell_change *cell = &run->changes[i].of.cell;
    const struct spb_geometry *geo = &run->volume->geo;

    if (cell->cell == SPB_CELL_PARAM)
        return complete_slot(run, i, err);
    if (cell->cell == SPB_CELL_EVENT) {
        SPB_TRY(spb_group_edit(run->group, 0, spb_event_at(geo, cell->index % geo->event_capacity),
                               cell->after, SPB_EVENT_SIZE, err));
        return state_again(run, &run->changes[i], err);
    }
    /* Closing gaps may have moved it. */
    let_go(run, spb_catalog_is_one_sector(geo) ? ANY_ENTRY : cell->index, cell->before);
    return spb_ok();
}

/* ---- The run -------------------------------------------------------------------------------- */

static spb_status complete_one(struct completion *run, size_t i, struct spb_error *err)
{
    if (run->judgements[i].verdict == SPB_VERDICT_AFTER)
        return spb_ok();
    switch (run->changes[i].kind) {
    case SPB_CHANGE_PARAM:
        return complete_param(run, i, err);
    case SPB_CHANGE_EVENTS:
        return complete_events(run, i, err);
    case SPB_CHANGE_PRODUCT:
        return complete_product(run, i, err);
    case SPB_CHANGE_CELL:
        return complete_cell(run, i, err);
    }
    return spb_ok();
}

/* Last, since a decision on a name may have emptied, filled or moved its entries already. */
static spb_status drop_gone(struct completion *run, struct spb_error *err)
{
    uint32_t entries = run->volume->geo.entries;

    if (run->gone_count == 0)
        return spb_ok();
    SPB_TRY(spb_group_own_catalog(run->group, err));
    bool *drop = calloc((size_t)entries + 1, sizeof(*drop));
    if (drop == NULL)
        return spb_fail_memory(err, "completing a change");
    for (size_t i = 0; i < run->gone_count; i++) {
        const struct gone *gone = &run->gone[i];
        for (uint32_t entry = 0; entry < entries; entry++)
            drop[entry] |= (gone->entry == ANY_ENTRY || gone->entry == entry) &&
                           memcmp(run->group->catalog + (size_t)entry * SPB_ENTRY_SIZE, gone->bytes,
                                  SPB_ENTRY_SIZE) == 0;
    }
    spb_status status = spb_group_drop_entries(run->group, drop, err);
    free(drop);
    return status;
}

static spb_status decide(struct completion *run, struct spb_error *err)
{
    for (size_t i = run->first; i < run->first + run->count; i++)
        SPB_TRY(complete_one(run, i, err));
    return drop_gone(run, err);
}

static spb_status prepare(struct completion *run, const uint8_t *bytes, size_t size,
                          struct spb_error *err)
{
    struct spb_reader r;
    uint32_t announced = 0;

    SPB_TRY(spb_changes_judge(bytes, size, run->volume, &run->judgements, &run->total, err));
    if (run->first > run->total || run->count > run->total - run->first)
        return spb_fail(err, SPB_INVALID,
                        "cannot complete %zu changes from %zu: expected within %zu", run->count,
                        run->first, run->total);
    run->changes = calloc(run->total + 1, sizeof(*run->changes));
    run->held = calloc(run->count + 1, sizeof(struct spb_reservation *));
    run->gone = calloc(run->count + 1, sizeof(*run->gone));
    if (run->changes == NULL || run->held == NULL || run->gone == NULL)
        return spb_fail_memory(err, "completing a change");
    (void)spb_changes_open(bytes, size, &r, &announced);
    for (size_t i = 0; i < run->total; i++)
        (void)spb_change_read(&r, &run->changes[i]);
    for (size_t i = run->first; i < run->first + run->count; i++)
        if (run->judgements[i].verdict == SPB_VERDICT_UNKNOWN)
            return fail_changed(run, i, "something else changed it since", err);
    run->sum = spb_judgements_sum(run->judgements + run->first, run->count);
    return spb_ok();
}

static void release(struct completion *run)
{
    for (size_t i = 0; i < run->held_count; i++)
        spb_reservation_free(run->held[i]);
    free(run->held);
    free(run->gone);
    free(run->changes);
    free(run->judgements);
}

spb_status spb_changes_complete(const uint8_t *bytes, size_t size, size_t first, size_t count,
                                struct spb_volume *volume, struct spb_error *err)
{
    struct completion run = {.volume = volume, .first = first, .count = count};
    spb_status status = prepare(&run, bytes, size, err);

    if (spb_is_ok(status) && run.sum != SPB_VERDICT_AFTER) {
        status = spb_group_new(volume, &run.group, err);
        if (spb_is_ok(status))
            status = spb_group_finish(run.group, decide(&run, err), err);
    }
    release(&run);
    return status;
}
