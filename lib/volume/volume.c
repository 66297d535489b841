/*
 * Opening and closing of volumes, and where their records lie. A volume's state is loaded whole and
 * checked record by record when it is asked for; see state.h for threads.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "volume/state.h"

void spb_geometry_derive(const struct spb_superblock *super, uint32_t sector_size,
                         struct spb_geometry *geo)
{
    geo->block_size = sector_size;
    geo->dp_start = super->dp_start;
    geo->dp_size = super->dp_size;
    geo->params_per_block = sector_size / SPB_PARAM_SIZE;
    geo->param_slots = geo->params_per_block * SPB_PARAM_BLOCKS;
    geo->events_per_block = sector_size / SPB_EVENT_SIZE;
    geo->event_capacity = geo->events_per_block * SPB_EVENT_BLOCKS;
    geo->entries = super->dp_size > 0 ? sector_size / SPB_ENTRY_SIZE : 0;
    geo->meta_blocks = SPB_DP_FIRST_BLOCK + (super->dp_size > 0 ? 1 : 0);
}

static uint64_t record_at(const struct spb_geometry *geo, uint32_t first_block, uint32_t per_block,
                          uint32_t index, uint32_t size)
{
    uint64_t block = first_block + index / per_block;

    return block * geo->block_size + (uint64_t)(index % per_block) * size;
}

uint64_t spb_param_at(const struct spb_geometry *geo, uint32_t slot)
{
    return record_at(geo, SPB_PARAM_FIRST_BLOCK, geo->params_per_block, slot, SPB_PARAM_SIZE);
}

uint64_t spb_event_at(const struct spb_geometry *geo, uint32_t slot)
{
    return record_at(geo, SPB_EVENT_FIRST_BLOCK, geo->events_per_block, slot, SPB_EVENT_SIZE);
}

uint64_t spb_entry_at(const struct spb_geometry *geo, uint32_t entry)
{
    return (uint64_t)geo->dp_start * geo->block_size + (uint64_t)entry * SPB_ENTRY_SIZE;
}

uint64_t spb_pointer_at(const struct spb_geometry *geo)
{
    return (uint64_t)SPB_EVENT_HEADER_BLOCK * geo->block_size;
}

size_t spb_first_part(uint64_t at, size_t n)
{
    size_t left = SPB_SECTOR_SIZE - (size_t)(at % SPB_SECTOR_SIZE);

    return n < left ? n : left;
}

size_t spb_meta_index(const struct spb_geometry *geo, uint64_t at)
{
    uint64_t catalog = (uint64_t)geo->dp_start * geo->block_size;
    uint64_t fixed = (uint64_t)SPB_DP_FIRST_BLOCK * geo->block_size;

    if (at < fixed)
        return (size_t)at;
    SPB_ASSERT(geo->entries > 0 && at >= catalog && at - catalog < geo->block_size);
    return (size_t)(fixed + (at - catalog));
}

uint64_t spb_meta_device_offset(const struct spb_geometry *geo, size_t index)
{
    size_t fixed = (size_t)SPB_DP_FIRST_BLOCK * geo->block_size;

    if (index < fixed)
        return index;
    return (uint64_t)geo->dp_start * geo->block_size + (index - fixed);
}

spb_status spb_meta_read(struct spb_device *device, const struct spb_geometry *geo, uint8_t **meta,
                         struct spb_error *err)
{
    size_t fixed = (size_t)SPB_DP_FIRST_BLOCK * geo->block_size;
    uint8_t *bytes = malloc((size_t)geo->meta_blocks * geo->block_size);

    if (bytes == NULL)
        return spb_fail_memory(err, "reading a volume's metadata");
    spb_status status = spb_device_read(device, 0, bytes, fixed, err);
    if (spb_is_ok(status) && geo->entries > 0)
        status = spb_device_read(device, (uint64_t)geo->dp_start * geo->block_size, bytes + fixed,
                                 geo->block_size, err);
    if (!spb_is_ok(status)) {
        free(bytes);
        return status;
    }
    *meta = bytes;
    return status;
}

/* ---- Loading -------------------------------------------------------------------------------- */

void spb_loaded_done(struct spb_loaded *loaded)
{
    free(loaded->meta);
    free(loaded->cells);
    free(loaded->notes);
}

static spb_status read_superblock(struct spb_device *device, uint32_t asked,
                                  struct spb_loaded *loaded, struct spb_error *err)
{
    uint8_t bytes[SPB_SUPERBLOCK_SIZE];
    uint32_t sector_size;

    if (device->size_bytes < SPB_SECTOR_SIZE)
        return spb_fail(err, SPB_BAD_SIZE,
                        "cannot open %s: not a SpaceOS image: found %llu bytes, expected %u at "
                        "least",
                        device->name, (unsigned long long)device->size_bytes,
                        SPB_BLOCKS_MIN * SPB_BLOCK_SIZE_MIN);
    SPB_TRY(spb_device_read(device, 0, bytes, sizeof(bytes), err));
    SPB_TRY(spb_superblock_decode(bytes, device->name, &loaded->super, err));
    SPB_TRY(spb_sector_size_of(&loaded->super, device->size_bytes, asked, device->name,
                               &sector_size, err));
    spb_geometry_derive(&loaded->super, sector_size, &loaded->geo);
    return spb_ok();
}

spb_status spb_loaded_index(struct spb_loaded *loaded, struct spb_error *err)
{
    const struct spb_geometry *geo = &loaded->geo;

    loaded->cells = calloc(geo->param_slots, sizeof(*loaded->cells));
    loaded->notes = calloc(geo->entries + 1, sizeof(*loaded->notes));
    if (loaded->cells == NULL || loaded->notes == NULL)
        return spb_fail_memory(err, "opening a volume");
    spb_cells_load(geo, loaded->meta, loaded->cells);
    spb_notes_load(geo, loaded->meta, loaded->notes);
    struct spb_reader r = spb_reader_over(loaded->meta + spb_pointer_at(geo), SPB_POINTER_SIZE);
    loaded->pointer = spb_read_be32(&r);
    return spb_ok();
}

/* On failure *loaded is empty again. */
static spb_status load(struct spb_device *device, uint32_t asked, bool recover,
                       struct spb_loaded *loaded, struct spb_error *err)
{
    memset(loaded, 0, sizeof(*loaded));
    spb_status status = read_superblock(device, asked, loaded, err);

    if (spb_is_ok(status) && recover) {
        status = spb_recover_medium(device, &loaded->geo, err);
        /* What was rewritten is what was read: the superblock has not changed. */
    }
    if (spb_is_ok(status))
        status = spb_meta_read(device, &loaded->geo, &loaded->meta, err);
    if (spb_is_ok(status))
        status = spb_loaded_index(loaded, err);
    if (!spb_is_ok(status)) {
        spb_loaded_done(loaded);
        memset(loaded, 0, sizeof(*loaded));
    }
    return status;
}

/* Superblock and geometry are set at the opening alone: readers look at them without the lock. */
void spb_volume_swap_locked(struct spb_volume *volume, struct spb_loaded *loaded)
{
    struct spb_loaded old = {.meta = volume->meta, .cells = volume->cells, .notes = volume->notes};

    volume->meta = loaded->meta;
    volume->cells = loaded->cells;
    volume->notes = loaded->notes;
    volume->pointer = loaded->pointer;
    for (size_t i = 0; i < spb_meta_sectors(&volume->geo); i++)
        volume->versions[i] = (volume->versions[i] | 1) + 1;
    *loaded = old;
}

static void adopt(struct spb_volume *volume, struct spb_loaded *loaded)
{
    (void)pthread_mutex_lock(&volume->lock);
    spb_volume_swap_locked(volume, loaded);
    (void)pthread_mutex_unlock(&volume->lock);
    spb_loaded_done(loaded);
}

static spb_status adopt_first(struct spb_volume *volume, struct spb_loaded *loaded,
                              struct spb_error *err)
{
    volume->versions = calloc(spb_meta_sectors(&volume->geo), sizeof(*volume->versions));
    if (volume->versions == NULL) {
        spb_loaded_done(loaded);
        return spb_fail_memory(err, "opening a volume");
    }
    adopt(volume, loaded);
    return spb_ok();
}

/* Frees everything but the device. */
static void volume_free(struct spb_volume *volume)
{
    struct spb_loaded state = {
        .meta = volume->meta, .cells = volume->cells, .notes = volume->notes};

    spb_loaded_done(&state);
    free(volume->versions);
    (void)pthread_mutex_destroy(&volume->lock);
    free(volume);
}

spb_status spb_volume_open(struct spb_device *device, const struct spb_open_options *options,
                           struct spb_volume **volume, struct spb_error *err)
{
    struct spb_loaded loaded = {0};
    struct spb_volume *opened = calloc(1, sizeof(*opened));

    if (opened == NULL)
        return spb_fail_memory(err, "opening a volume");
    (void)pthread_mutex_init(&opened->lock, NULL);
    spb_status status = spb_ok();
    if (options->writable && !device->writable)
        status = spb_fail(err, SPB_READ_ONLY,
                          "cannot open %s for writing: its device was opened "
                          "for reading",
                          device->name);
    if (spb_is_ok(status))
        status = load(device, options->sector_size, options->writable, &loaded, err);
    if (spb_is_ok(status)) {
        opened->device = device;
        opened->writable = options->writable;
        opened->super = loaded.super;
        opened->geo = loaded.geo;
        status = adopt_first(opened, &loaded, err);
        if (spb_is_ok(status) && options->writable)
            status = spb_recover_duplicates(opened, err);
    }
    if (!spb_is_ok(status)) {
        volume_free(opened);
        return status;
    }
    *volume = opened;
    return status;
}

struct spb_device *spb_volume_release(struct spb_volume *volume)
{
    struct spb_device *device = volume->device;

    SPB_ASSERT(volume->group == NULL && volume->reservations == NULL);
    volume_free(volume);
    return device;
}

void spb_volume_close(struct spb_volume *volume)
{
    if (volume != NULL)
        spb_device_close(spb_volume_release(volume));
}

spb_status spb_check_same_image(const struct spb_volume *volume, const struct spb_superblock *now,
                                struct spb_error *err)
{
    const struct spb_superblock *was = &volume->super;

    if (was->tenant_id == now->tenant_id && was->total_blocks == now->total_blocks &&
        was->dp_start == now->dp_start && was->dp_size == now->dp_size &&
        was->epoch == now->epoch && memcmp(was->uuid, now->uuid, SPB_UUID_SIZE) == 0)
        return spb_ok();
    return spb_fail(err, SPB_CHANGED,
                    "cannot read %s again: its superblock is no longer the one that was opened",
                    volume->device->name);
}

static spb_status reload(struct spb_volume *volume, bool recover, struct spb_error *err)
{
    struct spb_loaded loaded = {0};

    SPB_ASSERT(volume->group == NULL);
    SPB_TRY(load(volume->device, volume->geo.block_size, recover, &loaded, err));
    spb_status status = spb_check_same_image(volume, &loaded.super, err);
    if (!spb_is_ok(status)) {
        spb_loaded_done(&loaded);
        return status;
    }
    adopt(volume, &loaded);
    return status;
}

spb_status spb_volume_refresh(struct spb_volume *volume, struct spb_error *err)
{
    return reload(volume, false, err);
}

spb_status spb_volume_reopen(struct spb_volume *volume, struct spb_error *err)
{
    struct spb_error own;

    if (err == NULL)
        err = &own;
    if (!volume->writable)
        return spb_fail(err, SPB_READ_ONLY, "cannot recover %s: it was opened for reading",
                        volume->device->name);
    SPB_TRY(spb_device_forgive(volume->device, err));
    spb_status status = reload(volume, true, err);
    if (spb_is_ok(status)) {
        atomic_fetch_add(&volume->life, 1);
        atomic_store(&volume->poisoned, false);
        status = spb_recover_duplicates(volume, err);
    }
    if (!spb_is_ok(status))
        spb_poison(volume, err);
    return status;
}

/* ---- Questions ------------------------------------------------------------------------------ */

void spb_poison(struct spb_volume *volume, const struct spb_error *cause)
{
    (void)pthread_mutex_lock(&volume->lock);
    if (!atomic_load(&volume->poisoned))
        memcpy(volume->reason, cause->text, sizeof(volume->reason));
    atomic_store(&volume->poisoned, true);
    (void)pthread_mutex_unlock(&volume->lock);
}

struct spb_device *spb_volume_device(const struct spb_volume *volume)
{
    return volume->device;
}

const struct spb_superblock *spb_volume_superblock(const struct spb_volume *volume)
{
    return &volume->super;
}

uint32_t spb_volume_sector_size(const struct spb_volume *volume)
{
    return volume->geo.block_size;
}

spb_status spb_volume_is_writable(const struct spb_volume *volume, struct spb_error *err)
{
    if (!volume->writable)
        return spb_fail(err, SPB_READ_ONLY, "cannot change %s: it was opened for reading",
                        volume->device->name);
    if (atomic_load(&volume->poisoned))
        return spb_fail(
            err, SPB_POISONED,
            "cannot change %s until it is opened anew: an earlier change failed and may "
            "or may not have happened (%s)",
            volume->device->name, volume->reason);
    return spb_ok();
}
