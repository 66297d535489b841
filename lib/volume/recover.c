/*
 * What every writable opening does before it decides anything (format.md, "The medium"): what a
 * dead owner wrote may be visible and not durable, and pages whose writeback failed are marked
 * clean. So: flush; read the metadata past the cache; write again what the cache shows differently;
 * flush. Then settle names that stand twice in the catalog.
 */
#include <stdlib.h>
#include <string.h>

#include "volume/state.h"

/* Sectors that are to be written again. */
struct repairs {
    struct spb_sector *sectors;
    size_t count;
};

/* Past the cache, or (where the device cannot, and may_cache) through it. */
static spb_status read_medium(struct spb_device *device, uint64_t offset, uint8_t *buffer, size_t n,
                              bool may_cache, struct spb_error *err)
{
    spb_status status = spb_device_read_medium(device, offset, buffer, n, err);

    if (status.code == SPB_UNSUPPORTED && may_cache)
        status = spb_device_read(device, offset, buffer, n, err);
    return status;
}

/* Adds the sectors of n bytes at an offset that the medium holds otherwise than wanted. */
static spb_status compare_range(struct spb_device *device, uint64_t offset, const uint8_t *wanted,
                                size_t n, bool may_cache, struct repairs *repairs,
                                struct spb_error *err)
{
    uint8_t *medium = malloc(n);
    size_t room = repairs->count + n / SPB_SECTOR_SIZE;
    struct spb_sector *sectors = realloc(repairs->sectors, room * sizeof(*sectors));
    spb_status status = spb_ok();

    if (sectors != NULL)
        repairs->sectors = sectors;
    if (medium == NULL || sectors == NULL)
        status = spb_fail_memory(err, "comparing a volume with its medium");
    if (spb_is_ok(status))
        status = read_medium(device, offset, medium, n, may_cache, err);
    for (size_t at = 0; spb_is_ok(status) && at < n; at += SPB_SECTOR_SIZE) {
        if (memcmp(wanted + at, medium + at, SPB_SECTOR_SIZE) == 0)
            continue;
        struct spb_sector *sector = &repairs->sectors[repairs->count++];
        sector->number = (offset + at) / SPB_SECTOR_SIZE;
        memcpy(sector->bytes, wanted + at, SPB_SECTOR_SIZE);
    }
    free(medium);
    return status;
}

/* All mirrored blocks. */
static spb_status compare_meta(struct spb_device *device, const struct spb_geometry *geo,
                               const uint8_t *meta, bool may_cache, struct repairs *repairs,
                               struct spb_error *err)
{
    size_t fixed = (size_t)SPB_DP_FIRST_BLOCK * geo->block_size;

    SPB_TRY(compare_range(device, 0, meta, fixed, may_cache, repairs, err));
    if (geo->entries == 0)
        return spb_ok();
    return compare_range(device, (uint64_t)geo->dp_start * geo->block_size, meta + fixed,
                         geo->block_size, may_cache, repairs, err);
}

spb_status spb_recover_medium(struct spb_device *device, const struct spb_geometry *geo,
                              struct spb_error *err)
{
    struct repairs repairs = {.count = 0};
    struct spb_error direct = {.code = SPB_OK};
    uint8_t *cached = NULL;

    SPB_TRY(spb_carry_round(device, NULL, 0, err));
    SPB_TRY(spb_meta_read(device, geo, &cached, err));
    spb_status status = compare_meta(device, geo, cached, false, &repairs, &direct);
    /* Without direct reads the device itself keeps an image read-only whose flush failed. */
    if (status.code == SPB_UNSUPPORTED)
        status = spb_ok();
    else if (!spb_is_ok(status))
        status =
            spb_fail_errno(err, direct.code, direct.saved_errno, "cannot recover %s", device->name);
    else if (repairs.count > 0)
        status = spb_carry_round(device, repairs.sectors, repairs.count, err);
    free(repairs.sectors);
    free(cached);
    return status;
}

spb_status spb_medium_compare(struct spb_volume *volume, struct spb_sector **differing,
                              size_t *count, struct spb_error *err)
{
    struct repairs repairs = {.count = 0};
    spb_status status =
        compare_meta(volume->device, &volume->geo, volume->meta, true, &repairs, err);

    if (!spb_is_ok(status)) {
        free(repairs.sectors);
        return status;
    }
    *differing = repairs.sectors;
    *count = repairs.count;
    return status;
}

/* ---- Names that stand twice ----------------------------------------------------------------- */

static bool same_name(const struct spb_product *a, const struct spb_product *b)
{
    return a->name_len == b->name_len && memcmp(a->name, b->name, a->name_len) == 0;
}

static bool is_named(const struct spb_product *product)
{
    return product->state != SPB_PRODUCT_FREE && product->state != SPB_PRODUCT_INVALID;
}

static spb_status verify_and_note(struct spb_volume *volume, struct spb_product *product,
                                  struct spb_error *err)
{
    uint64_t length = 0;

    if (product->state != SPB_PRODUCT_PRESENT)
        return spb_ok();
    spb_status status = spb_product_verify_again(volume, product, NULL, NULL, &length, err);
    /* What cannot be read is not good: it hinders no opening. */
    if (!spb_is_ok(status) && status.code != SPB_CORRUPT && status.code != SPB_IO)
        return status;
    if (status.code == SPB_IO)
        return spb_ok();
    spb_product_note(volume, product, spb_is_ok(status), length);
    return spb_product_entry(volume, product->entry, product, err);
}

static bool is_twin(const struct spb_product *a, const struct spb_product *b)
{
    return a->entry != b->entry && is_named(a) && is_named(b) && same_name(a, b);
}

/* Ours never overlap: what does is left to repair, so that an opening reads the area once at most.
 */
static bool overlaps_any(const struct spb_product *list, uint32_t count, uint32_t index)
{
    for (uint32_t i = 0; i < count; i++)
        if (i != index && is_named(&list[i]) && spb_products_overlap(&list[i], &list[index]))
            return true;
    return false;
}

/* Reads the data of the entries that have a twin; the others stay as they are. */
static spb_status verify_twins(struct spb_volume *volume, struct spb_product *list, uint32_t count,
                               bool *any, struct spb_error *err)
{
    *any = false;
    for (uint32_t i = 0; i < count; i++)
        SPB_TRY(spb_product_entry(volume, i, &list[i], err));
    for (uint32_t i = 0; i < count; i++) {
        bool has_twin = false;
        for (uint32_t j = 0; j < count && !has_twin; j++)
            has_twin = is_twin(&list[i], &list[j]);
        if (!has_twin || overlaps_any(list, count, i))
            continue;
        *any = true;
        SPB_TRY(verify_and_note(volume, &list[i], err));
    }
    return spb_ok();
}

/* Of good twins the lowest counts, and the others are dropped. What is not good repair decides. */
static spb_status drop_twins(struct spb_volume *volume, const struct spb_product *list,
                             uint32_t count, bool *drop, struct spb_error *err)
{
    struct spb_group *group = NULL;
    bool any = false;

    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < i && !drop[i]; j++)
            drop[i] = is_twin(&list[i], &list[j]) && list[i].state == SPB_PRODUCT_GOOD &&
                      list[j].state == SPB_PRODUCT_GOOD;
        any |= drop[i];
    }
    if (!any)
        return spb_ok();
    SPB_TRY(spb_group_new(volume, &group, err));
    return spb_group_finish(group, spb_group_drop_entries(group, drop, err), err);
}

spb_status spb_recover_duplicates(struct spb_volume *volume, struct spb_error *err)
{
    uint32_t count = volume->geo.entries;
    struct spb_product *list = calloc((size_t)count + 1, sizeof(*list));
    bool *drop = calloc((size_t)count + 1, sizeof(*drop)), any = false;
    spb_status status = spb_ok();

    if (list == NULL || drop == NULL)
        status = spb_fail_memory(err, "recovering a volume");
    if (spb_is_ok(status))
        status = verify_twins(volume, list, count, &any, err);
    if (spb_is_ok(status) && any)
        status = drop_twins(volume, list, count, drop, err);
    free(list);
    free(drop);
    return status;
}
