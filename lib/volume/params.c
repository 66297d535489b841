/* Reading of the parameter store: the index of slots, values, history. */
#include <stdlib.h>
#include <string.h>

#include "volume/state.h"

static void decode_at(const struct spb_geometry *geo, const uint8_t *meta, uint32_t slot,
                      struct spb_param *param)
{
    uint64_t at = spb_param_at(geo, slot);

    spb_param_record_decode(meta + at, spb_first_part(at, SPB_PARAM_SIZE), param);
    param->slot = slot;
}

void spb_cells_mark_newest(struct spb_cell *cells, uint32_t slots, uint32_t id)
{
    struct spb_cell *newest = NULL;

    for (uint32_t i = 0; i < slots; i++) {
        struct spb_cell *cell = &cells[i];
        if (cell->state != SPB_PARAM_VALID || cell->id != id)
            continue;
        cell->newest = false;
        /* Of equal generations the lowest slot counts. */
        if (newest == NULL || cell->generation > newest->generation)
            newest = cell;
    }
    if (newest != NULL)
        newest->newest = true;
}

struct by_id {
    uint32_t id, slot;
    uint16_t generation;
};

static int compare_ids(const void *left, const void *right)
{
    const struct by_id *a = left, *b = right;

    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    if (a->generation != b->generation)
        return a->generation > b->generation ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

void spb_cells_load(const struct spb_geometry *geo, const uint8_t *meta, struct spb_cell *cells)
{
    struct by_id *valid = calloc(geo->param_slots, sizeof(*valid));
    uint32_t count = 0;

    for (uint32_t slot = 0; slot < geo->param_slots; slot++) {
        struct spb_param param;
        decode_at(geo, meta, slot, &param);
        cells[slot].id = param.id;
        cells[slot].generation = param.generation;
        cells[slot].state = (uint8_t)param.state;
        if (param.state == SPB_PARAM_VALID && valid != NULL)
            valid[count++] = (struct by_id){param.id, slot, param.generation};
        else if (param.state == SPB_PARAM_VALID)
            spb_cells_mark_newest(cells, slot + 1, param.id);
    }
    if (valid != NULL)
        qsort(valid, count, sizeof(*valid), compare_ids);
    for (uint32_t i = 0; i < count; i++)
        if (i == 0 || valid[i].id != valid[i - 1].id)
            cells[valid[i].slot].newest = true;
    free(valid);
}

uint32_t spb_param_slots(const struct spb_volume *volume)
{
    return volume->geo.param_slots;
}

static void param_locked(const struct spb_volume *volume, uint32_t slot, struct spb_param *param)
{
    decode_at(&volume->geo, volume->meta, slot, param);
    param->newest = volume->cells[slot].newest;
}

spb_status spb_param_read_slot(const struct spb_volume *volume, uint32_t slot,
                               struct spb_param *param, struct spb_error *err)
{
    if (slot >= volume->geo.param_slots)
        return spb_fail(err, SPB_INVALID, "cannot read parameter slot %u of %s: expected 0 to %u",
                        slot, volume->device->name, volume->geo.param_slots - 1);
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    param_locked(volume, slot, param);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    return spb_ok();
}

/* What the index knows of an id. */
struct sighting {
    uint32_t newest_slot, corrupt_slot;
    bool has_newest, has_corrupt;
    uint16_t newest_generation, corrupt_generation; /* the highest that a corrupt slot shows */
};

static void look_for(const struct spb_volume *volume, uint32_t id, struct sighting *seen)
{
    memset(seen, 0, sizeof(*seen));
    for (uint32_t i = 0; i < volume->geo.param_slots; i++) {
        const struct spb_cell *cell = &volume->cells[i];
        if (cell->id != id || cell->state == SPB_PARAM_FREE)
            continue;
        if (cell->newest) {
            seen->has_newest = true;
            seen->newest_slot = i;
            seen->newest_generation = cell->generation;
        } else if (cell->state == SPB_PARAM_CORRUPT &&
                   (!seen->has_corrupt || cell->generation > seen->corrupt_generation)) {
            seen->has_corrupt = true;
            seen->corrupt_slot = i;
            seen->corrupt_generation = cell->generation;
        }
    }
}

spb_status spb_param_find(const struct spb_volume *volume, uint32_t id, struct spb_param *param,
                          struct spb_param_warning *warning, struct spb_error *err)
{
    struct sighting seen;

    (void)pthread_mutex_lock(spb_volume_lock(volume));
    look_for(volume, id, &seen);
    if (seen.has_newest)
        param_locked(volume, seen.newest_slot, param);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    if (!seen.has_newest && seen.has_corrupt)
        return spb_fail(err, SPB_CORRUPT,
                        "cannot read parameter %u of %s: only corrupt slots name it (slot %u shows "
                        "generation %u)",
                        id, volume->device->name, seen.corrupt_slot, seen.corrupt_generation);
    if (!seen.has_newest)
        return spb_fail(err, SPB_NOT_FOUND, "cannot find parameter %u in %s", id,
                        volume->device->name);
    if (warning != NULL) {
        warning->newer_corrupt =
            seen.has_corrupt && seen.corrupt_generation > seen.newest_generation;
        warning->slot = warning->newer_corrupt ? seen.corrupt_slot : 0;
        warning->generation = warning->newer_corrupt ? seen.corrupt_generation : 0;
    }
    return spb_ok();
}

/* ---- Lists ---------------------------------------------------------------------------------- */

static int by_param_id(const void *left, const void *right)
{
    const struct spb_param *a = left, *b = right;

    return a->id < b->id ? -1 : a->id > b->id;
}

static int by_generation_down(const void *left, const void *right)
{
    const struct spb_param *a = left, *b = right;

    if (a->generation != b->generation)
        return a->generation > b->generation ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

/* Copies the newest of every id, or (with only_id) all slots that name *only_id. */
static spb_status collect(const struct spb_volume *volume, const uint32_t *only_id,
                          struct spb_param **params, size_t *count, struct spb_error *err)
{
    size_t found = 0, room = 0;

    (void)pthread_mutex_lock(spb_volume_lock(volume));
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < volume->geo.param_slots; i++) {
            const struct spb_cell *cell = &volume->cells[i];
            bool wanted = only_id == NULL ? cell->newest
                                          : cell->state != SPB_PARAM_FREE && cell->id == *only_id;
            if (!wanted)
                continue;
            if (pass == 0)
                room++;
            else
                param_locked(volume, i, &(*params)[found++]);
        }
        if (pass == 0)
            *params = calloc(room + 1, sizeof(**params));
        if (*params == NULL)
            break;
    }
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    if (*params == NULL)
        return spb_fail_memory(err, "listing parameters");
    *count = found;
    return spb_ok();
}

spb_status spb_param_latest(const struct spb_volume *volume, struct spb_param **params,
                            size_t *count, struct spb_error *err)
{
    struct spb_param *list = NULL;
    size_t found = 0;

    SPB_TRY(collect(volume, NULL, &list, &found, err));
    qsort(list, found, sizeof(*list), by_param_id);
    *params = list;
    *count = found;
    return spb_ok();
}

spb_status spb_param_history(const struct spb_volume *volume, uint32_t id,
                             struct spb_param **params, size_t *count, struct spb_error *err)
{
    struct spb_param *list = NULL;
    size_t found = 0;

    SPB_TRY(collect(volume, &id, &list, &found, err));
    if (found == 0) {
        free(list);
        return spb_fail(err, SPB_NOT_FOUND, "cannot find parameter %u in %s", id,
                        volume->device->name);
    }
    qsort(list, found, sizeof(*list), by_generation_down);
    *params = list;
    *count = found;
    return spb_ok();
}
