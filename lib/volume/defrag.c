/*
 * Defragmentation: one product at a time is copied into a free extent that is disjoint from its
 * own, verified there, and its entry switched in one sector write. What is corrupt or overlapped
 * stays.
 *
 * A step moves a product down where any fits below itself. Only where none does, the product behind
 * a hole is moved up out of the way, so that the hole grows by it and takes it, or another, next.
 * Between two moves up the lowest hole begins further up, so that it ends. The actor's thread.
 */
#include <stdlib.h>

#include "volume/state.h"

static int by_offset(const void *left, const void *right)
{
    const struct spb_product *a = left, *b = right;

    return a->block_offset < b->block_offset ? -1 : a->block_offset > b->block_offset;
}

/* Products with data, by offset; *list is the caller's. */
static spb_status list_products(const struct spb_volume *volume, struct spb_product **list,
                                uint32_t *count, struct spb_error *err)
{
    uint32_t entries = volume->geo.entries, used = 0;
    struct spb_product *found = calloc((size_t)entries + 1, sizeof(*found));

    if (found == NULL)
        return spb_fail_memory(err, "defragmenting a volume");
    for (uint32_t i = 0; i < entries; i++) {
        spb_status status = spb_product_entry(volume, i, &found[used], err);
        if (!spb_is_ok(status)) {
            free(found);
            return status;
        }
        if (found[used].block_count > 0 && found[used].state != SPB_PRODUCT_INVALID)
            used++;
    }
    qsort(found, used, sizeof(*found), by_offset);
    *list = found;
    *count = used;
    return spb_ok();
}

static bool is_overlapped(const struct spb_product *list, uint32_t count, uint32_t index)
{
    for (uint32_t i = 0; i < count; i++)
        if (i != index && spb_products_overlap(&list[i], &list[index]))
            return true;
    return false;
}

static spb_status switch_entry(struct spb_volume *volume, const struct spb_product *product,
                               struct spb_reservation *to, struct spb_error *err)
{
    struct spb_group *group;

    SPB_TRY(spb_group_new(volume, &group, err));
    return spb_group_finish(group, spb_group_move_product(group, product, to, err), err);
}

/* *moved false: the product's data cannot be read, so it stays. */
static spb_status move(struct spb_volume *volume, struct spb_product *product,
                       struct spb_reservation *to, bool *moved, struct spb_error *err)
{
    uint64_t length = 0;

    *moved = false;
    spb_status status = spb_product_verify_again(volume, product, NULL, NULL, &length, err);
    if (status.code == SPB_CORRUPT || status.code == SPB_IO) {
        if (status.code == SPB_CORRUPT)
            spb_product_note(volume, product, false, 0);
        return spb_ok();
    }
    SPB_TRY(status);
    SPB_TRY(spb_extent_copy(volume, product, to, err));
    status = spb_extent_verify(volume, product, to->block_offset, SPB_FROM_CACHE, NULL, NULL,
                               &length, err);
    SPB_TRY(status);
    SPB_TRY(switch_entry(volume, product, to, err));
    SPB_TRY(spb_product_entry(volume, product->entry, product, err));
    spb_product_note(volume, product, true, length);
    product->state = SPB_PRODUCT_GOOD;
    product->length = length;
    *moved = true;
    return spb_ok();
}

static bool is_movable(const struct spb_product *list, uint32_t count, uint32_t index)
{
    return list[index].state != SPB_PRODUCT_ROTTEN && !is_overlapped(list, count, index);
}

/* Finds what to move and holds the space for it; false: nothing is left to do. */
static bool plan(struct spb_volume *volume, const struct spb_product *list, uint32_t count,
                 uint32_t *index, struct spb_reservation **to)
{
    for (uint32_t i = 0; i < count; i++) {
        *index = i;
        if (is_movable(list, count, i) &&
            spb_space_below(volume, list[i].block_count, list[i].block_offset, to))
            return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        *index = i;
        if (is_movable(list, count, i) && spb_space_just_below(volume, list[i].block_offset) &&
            spb_space_above(volume, list[i].block_count, list[i].block_offset, to))
            return true;
    }
    return false;
}

spb_status spb_volume_defrag_step(struct spb_volume *volume, bool *moved,
                                  struct spb_product *product, struct spb_error *err)
{
    struct spb_product *list = NULL;
    struct spb_reservation *to;
    uint32_t count = 0, index = 0;
    bool done = false;

    SPB_TRY(spb_volume_is_writable(volume, err));
    SPB_TRY(list_products(volume, &list, &count, err));
    spb_status status = spb_ok();
    /* What turns out to be corrupt is left where it is, and the next plan passes over it. */
    while (spb_is_ok(status) && !done && plan(volume, list, count, &index, &to)) {
        status = move(volume, &list[index], to, &done, err);
        spb_reservation_free(to);
        if (!done)
            list[index].state = SPB_PRODUCT_ROTTEN;
    }
    if (spb_is_ok(status) && done && product != NULL)
        *product = list[index];
    free(list);
    if (spb_is_ok(status))
        *moved = done;
    return status;
}
