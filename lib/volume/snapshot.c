/*
 * Copies of a volume that goes on: the metadata of one moment, held in memory, and the data of the
 * products of that moment, whose extents are pinned so that nobody writes there. Taking it is the
 * actor's; copying and freeing may run on any thread. Only this file writes whole images to devices
 * that no volume is open on.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "volume/state.h"

/* Bytes that are copied, or zeroed, between two calls of progress. */
#define COPY_PIECE ((uint64_t)1 << 20)
#define ZERO_PIECE ((uint64_t)1 << 26)

struct spb_snapshot {
    struct spb_volume *volume; /* borrowed; outlives the snapshot */
    uint8_t *meta;             /* a copy of the mirror */
    size_t count;
    struct spb_reservation extents[]; /* sorted, none meets another */
};

/* ---- Taking --------------------------------------------------------------------------------- */

/* Blocks of the area, as pins have them. */
struct run {
    uint64_t start, end;
};

static int by_start(const void *left, const void *right)
{
    const struct run *a = left, *b = right;

    return a->start < b->start ? -1 : a->start > b->start;
}

/* What the entries name, those that break the rules too, as far as it lies behind the catalog. */
static size_t list_runs(const struct spb_volume *volume, struct run *runs)
{
    uint64_t area = volume->geo.dp_size;
    struct spb_product product;
    size_t count = 0;

    for (uint32_t i = 0; i < volume->geo.entries; i++) {
        spb_entry_decode(spb_catalog_of(volume) + (size_t)i * SPB_ENTRY_SIZE, volume->geo.dp_size,
                         &product);
        uint64_t start = product.block_offset, end = start + product.block_count;
        if (product.state == SPB_PRODUCT_FREE)
            continue;
        start = start < 1 ? 1 : start;
        end = end > area ? area : end;
        if (start < end)
            runs[count++] = (struct run){start, end};
    }
    return count;
}

/* Runs that meet become one. */
static size_t merge(struct run *runs, size_t count)
{
    size_t used = 0;

    if (count > 1)
        qsort(runs, count, sizeof(*runs), by_start);
    for (size_t i = 0; i < count; i++) {
        if (used > 0 && runs[i].start <= runs[used - 1].end) {
            if (runs[i].end > runs[used - 1].end)
                runs[used - 1].end = runs[i].end;
        } else {
            runs[used++] = runs[i];
        }
    }
    return used;
}

static struct spb_snapshot *allocate(struct spb_volume *volume, size_t extents)
{
    size_t meta = (size_t)volume->geo.meta_blocks * volume->geo.block_size;
    struct spb_snapshot *made = calloc(1, sizeof(*made) + extents * sizeof(made->extents[0]));

    if (made == NULL)
        return NULL;
    made->volume = volume;
    made->meta = malloc(meta);
    if (made->meta == NULL) {
        free(made);
        return NULL;
    }
    /* The actor reads what is published without the lock. */
    memcpy(made->meta, volume->meta, meta);
    return made;
}

spb_status spb_snapshot_new(struct spb_volume *volume, struct spb_snapshot **snapshot,
                            struct spb_error *err)
{
    struct run *runs = calloc((size_t)volume->geo.entries + 1, sizeof(*runs));

    if (runs == NULL)
        return spb_fail_memory(err, "taking a snapshot");
    size_t count = merge(runs, list_runs(volume, runs));
    struct spb_snapshot *made = allocate(volume, count);
    if (made == NULL) {
        free(runs);
        return spb_fail_memory(err, "taking a snapshot");
    }
    (void)pthread_mutex_lock(&volume->lock);
    for (; made->count < count; made->count++)
        spb_reservation_link_locked(volume, &made->extents[made->count], runs[made->count].start,
                                    runs[made->count].end - runs[made->count].start);
    (void)pthread_mutex_unlock(&volume->lock);
    free(runs);
    *snapshot = made;
    return spb_ok();
}

void spb_snapshot_free(struct spb_snapshot *snapshot)
{
    if (snapshot == NULL)
        return;
    struct spb_volume *volume = snapshot->volume;
    (void)pthread_mutex_lock(&volume->lock);
    for (size_t i = 0; i < snapshot->count; i++)
        spb_reservation_unlink_locked(&snapshot->extents[i]);
    (void)pthread_mutex_unlock(&volume->lock);
    free(snapshot->meta);
    free(snapshot);
}

uint64_t spb_snapshot_size_bytes(const struct spb_snapshot *snapshot)
{
    const struct spb_volume *volume = snapshot->volume;

    return (uint64_t)volume->super.total_blocks * volume->geo.block_size;
}

/* ---- Copying -------------------------------------------------------------------------------- */

struct copy {
    const struct spb_snapshot *snapshot;
    struct spb_device *device; /* the target */
    bool zeroed;               /* it was, when the copy began */
    uint64_t end;              /* bytes of the target that are as they are to be */
    spb_progress progress;
    void *user;
    uint64_t done, total; /* bytes of metadata and data */
};

static spb_status report(struct copy *copy, uint64_t bytes, struct spb_error *err)
{
    copy->done += bytes;
    if (copy->progress == NULL || copy->progress(copy->user, copy->done, copy->total))
        return spb_ok();
    return spb_fail(err, SPB_DEADLINE, "copying %s to %s was ended",
                    copy->snapshot->volume->device->name, copy->device->name);
}

/* Zeros up to an offset, from where the copy is. */
static spb_status zeros_to(struct copy *copy, uint64_t offset, struct spb_error *err)
{
    while (!copy->zeroed && offset > copy->end) {
        uint64_t left = offset - copy->end, part = left < ZERO_PIECE ? left : ZERO_PIECE;
        SPB_TRY(spb_device_zero(copy->device, copy->end, part, err));
        copy->end += part;
        SPB_TRY(report(copy, 0, err));
    }
    copy->end = offset;
    return spb_ok();
}

/* Bytes of the metadata, to the same place. */
static spb_status put_meta(struct copy *copy, size_t from, size_t n, struct spb_error *err)
{
    const struct spb_snapshot *snapshot = copy->snapshot;
    uint64_t at = spb_meta_device_offset(&snapshot->volume->geo, from);

    SPB_TRY(zeros_to(copy, at, err));
    for (size_t done = 0; done < n;) {
        size_t part = n - done < COPY_PIECE ? n - done : (size_t)COPY_PIECE;
        SPB_TRY(spb_device_write(copy->device, at + done, snapshot->meta + from + done, part, err));
        done += part;
        copy->end = at + done;
        SPB_TRY(report(copy, part, err));
    }
    return spb_ok();
}

static spb_status put_extent(struct copy *copy, const struct spb_reservation *extent,
                             struct spb_error *err)
{
    const struct spb_volume *volume = copy->snapshot->volume;
    uint64_t at = spb_block_at(volume, extent->block_offset);
    uint64_t end = at + (uint64_t)extent->block_count * volume->geo.block_size;

    SPB_TRY(zeros_to(copy, at, err));
    while (at < end) {
        uint64_t part = end - at < COPY_PIECE ? end - at : COPY_PIECE;
        SPB_TRY(spb_device_copy(copy->device, at, volume->device, at, part, err));
        at += part;
        copy->end = at;
        SPB_TRY(report(copy, part, err));
    }
    return spb_ok();
}

/* All but the first sector, in order. */
static spb_status put_all(struct copy *copy, struct spb_error *err)
{
    const struct spb_snapshot *snapshot = copy->snapshot;
    const struct spb_geometry *geo = &snapshot->volume->geo;
    size_t fixed = (size_t)SPB_DP_FIRST_BLOCK * geo->block_size;

    copy->end = SPB_SECTOR_SIZE;
    SPB_TRY(put_meta(copy, SPB_SECTOR_SIZE, fixed - SPB_SECTOR_SIZE, err));
    if (geo->entries > 0)
        SPB_TRY(put_meta(copy, fixed, geo->block_size, err));
    for (size_t i = 0; i < snapshot->count; i++)
        SPB_TRY(put_extent(copy, &snapshot->extents[i], err));
    return zeros_to(copy, copy->device->size_bytes, err);
}

static void set_identity(const struct spb_superblock *super,
                         const struct spb_snapshot_identity *identity, uint8_t *sector)
{
    struct spb_superblock changed = *super;

    changed.tenant_id = identity->tenant_id;
    memcpy(changed.uuid, identity->uuid, SPB_UUID_SIZE);
    spb_superblock_encode(&changed, sector);
}

static spb_status check_target(const struct spb_snapshot *snapshot, const struct spb_device *device,
                               struct spb_error *err)
{
    const struct spb_volume *volume = snapshot->volume;

    if (device == volume->device)
        return spb_fail(err, SPB_INVALID, "cannot copy %s to itself", device->name);
    if (!device->writable)
        return spb_fail(err, SPB_READ_ONLY, "cannot copy %s to %s: it was opened for reading",
                        volume->device->name, device->name);
    return spb_format_check_device(device, volume->super.total_blocks, volume->geo.block_size, err);
}

static uint64_t bytes_to_copy(const struct spb_snapshot *snapshot)
{
    const struct spb_geometry *geo = &snapshot->volume->geo;
    uint64_t blocks = geo->meta_blocks;

    for (size_t i = 0; i < snapshot->count; i++)
        blocks += snapshot->extents[i].block_count;
    return blocks * geo->block_size - SPB_SECTOR_SIZE;
}

spb_status spb_snapshot_copy(const struct spb_snapshot *snapshot, struct spb_device *device,
                             const struct spb_snapshot_identity *identity, spb_progress progress,
                             void *user, struct spb_error *err)
{
    struct spb_sector first = {.number = 0};
    struct copy copy = {
        .snapshot = snapshot,
        .device = device,
        .zeroed = device->zeroed,
        .progress = progress,
        .user = user,
        .total = bytes_to_copy(snapshot),
    };

    SPB_TRY(check_target(snapshot, device, err));
    memcpy(first.bytes, snapshot->meta, sizeof(first.bytes));
    if (identity != NULL)
        set_identity(&snapshot->volume->super, identity, first.bytes);
    device->zeroed = false;
    /* Somebody's image may be there: first it is none, then all else, then it is the new one. */
    if (!copy.zeroed)
        SPB_TRY(spb_carry_zeros(device, 0, SPB_SECTOR_SIZE, err));
    SPB_TRY(put_all(&copy, err));
    SPB_TRY(spb_carry_round(device, NULL, 0, err));
    return spb_carry_round(device, &first, 1, err);
}

/* ---- An image's identity --------------------------------------------------------------------- */

spb_status spb_volume_set_identity(struct spb_device *device,
                                   const struct spb_snapshot_identity *identity,
                                   struct spb_error *err)
{
    struct spb_sector first = {.number = 0};
    struct spb_superblock super;

    if (device->size_bytes < SPB_SECTOR_SIZE)
        return spb_fail(err, SPB_BAD_SIZE, "cannot change %s: its %llu bytes hold no image",
                        device->name, (unsigned long long)device->size_bytes);
    /* What is read may be another's who died, visible and not durable. */
    SPB_TRY(spb_carry_round(device, NULL, 0, err));
    SPB_TRY(spb_device_read(device, 0, first.bytes, sizeof(first.bytes), err));
    SPB_TRY(spb_superblock_decode(first.bytes, device->name, &super, err));
    set_identity(&super, identity, first.bytes);
    return spb_carry_round(device, &first, 1, err);
}
