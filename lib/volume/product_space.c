/*
 * Free space of the data product area: what no catalog entry (corrupt ones included), reservation
 * or pin covers, and not block 0, the catalog's. Computed when it is asked for, from at most some
 * hundred extents, so that there is no second truth to keep in step.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "volume/state.h"

struct extent {
    uint64_t start, end; /* blocks of the area; end is the first block after it */
};

static int by_start(const void *left, const void *right)
{
    const struct extent *a = left, *b = right;

    return a->start < b->start ? -1 : a->start > b->start;
}

static size_t count_reservations(const struct spb_volume *volume)
{
    size_t count = 0;

    for (const struct spb_reservation *r = volume->reservations; r != NULL; r = r->next)
        count++;
    return count;
}

/* The part of an extent that lies in the area; what a corrupt entry names may lie anywhere. */
static struct extent clip(uint64_t start, uint64_t count, uint64_t area)
{
    struct extent extent = {start < area ? start : area, start + count};

    if (extent.end > area)
        extent.end = area;
    return extent;
}

/* All that is covered, sorted by start; NULL without memory. Wants the lock. */
static struct extent *covered_locked(const struct spb_volume *volume, size_t *count)
{
    uint64_t area = volume->geo.dp_size;
    size_t room = volume->geo.entries + count_reservations(volume) + 1, used = 0;
    struct extent *extents = calloc(room, sizeof(*extents));
    struct spb_product product;

    if (extents == NULL)
        return NULL;
    extents[used++] = clip(0, 1, area);
    for (uint32_t i = 0; i < volume->geo.entries; i++) {
        spb_product_from(&volume->geo, spb_catalog_of(volume), volume->notes, i, &product);
        /* Of no data the offset means nothing. */
        if (product.state != SPB_PRODUCT_FREE && product.block_count > 0)
            extents[used++] = clip(product.block_offset, product.block_count, area);
    }
    for (const struct spb_reservation *r = volume->reservations; r != NULL; r = r->next)
        if (r->block_count > 0)
            extents[used++] = clip(r->block_offset, r->block_count, area);
    qsort(extents, used, sizeof(*extents), by_start);
    *count = used;
    return extents;
}

/* Calls visit for each free extent, ascending, until it returns false. */
static void each_free(const struct extent *covered, size_t count, uint64_t area,
                      bool (*visit)(void *user, struct extent free_extent), void *user)
{
    uint64_t at = 0;

    for (size_t i = 0; i < count; i++) {
        if (covered[i].start > at && !visit(user, (struct extent){at, covered[i].start}))
            return;
        if (covered[i].end > at)
            at = covered[i].end;
    }
    if (at < area)
        (void)visit(user, (struct extent){at, area});
}

struct search {
    uint64_t want;
    uint64_t below; /* not 0: the lowest fit that ends at or before it, not the best fit */
    uint64_t above; /* not 0: the lowest fit that begins after it */
    struct extent best;
    bool found;
    uint64_t free_blocks, largest;
};

static bool visit_search(void *user, struct extent free_extent)
{
    struct search *search = user;
    uint64_t length = free_extent.end - free_extent.start;

    search->free_blocks += length;
    if (length > search->largest)
        search->largest = length;
    if (search->want == 0 || length < search->want)
        return true;
    if (search->below != 0 || search->above != 0) {
        bool fits = search->below == 0 || free_extent.start + search->want <= search->below;
        if (!fits || free_extent.start < search->above || search->found)
            return true;
    } else if (search->found && length >= search->best.end - search->best.start) {
        return true;
    }
    search->best = free_extent;
    search->found = true;
    return true;
}

static bool search_locked(const struct spb_volume *volume, struct search *search)
{
    size_t count = 0;
    struct extent *covered = covered_locked(volume, &count);

    if (covered == NULL)
        return false;
    each_free(covered, count, volume->geo.dp_size, visit_search, search);
    free(covered);
    return true;
}

void spb_product_space(const struct spb_volume *volume, uint64_t *free_blocks,
                       uint32_t *largest_blocks)
{
    struct search search = {0};

    (void)pthread_mutex_lock(spb_volume_lock(volume));
    (void)search_locked(volume, &search);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    *free_blocks = search.free_blocks;
    *largest_blocks = (uint32_t)search.largest;
}

/* ---- Reservations --------------------------------------------------------------------------- */

void spb_reservation_link_locked(struct spb_volume *volume, struct spb_reservation *reservation,
                                 uint64_t block_offset, uint64_t block_count)
{
    reservation->volume = volume;
    reservation->life = atomic_load(&volume->life);
    reservation->block_offset = (uint32_t)block_offset;
    reservation->block_count = (uint32_t)block_count;
    reservation->next = volume->reservations;
    volume->reservations = reservation;
}

/* Blocks for a size, and whether the length rule may need one more. */
static spb_status blocks_for(const struct spb_volume *volume, uint64_t size_bytes, uint64_t *blocks,
                             bool *may_need_more, struct spb_error *err)
{
    uint64_t unit = volume->geo.block_size;

    *blocks = size_bytes / unit + (size_bytes % unit != 0);
    *may_need_more = size_bytes != 0 && size_bytes % unit == 0;
    if (volume->geo.dp_size == 0)
        return spb_fail(err, SPB_FULL, "cannot store a product in %s: it has no data product area",
                        volume->device->name);
    return spb_ok();
}

static spb_status fail_space(const struct spb_volume *volume, uint64_t size_bytes, uint64_t blocks,
                             const struct search *search, struct spb_error *err)
{
    return spb_fail(
        err, SPB_FULL,
        "cannot reserve %llu bytes (%llu blocks of %u) in %s: %llu blocks are free, the "
        "largest extent has %llu",
        (unsigned long long)size_bytes, (unsigned long long)blocks, volume->geo.block_size,
        volume->device->name, (unsigned long long)search->free_blocks,
        (unsigned long long)search->largest);
}

spb_status spb_reservation_new(struct spb_volume *volume, uint64_t size_bytes,
                               struct spb_reservation **reservation, struct spb_error *err)
{
    uint64_t blocks;
    bool may_need_more;
    spb_status status = spb_ok();

    SPB_TRY(blocks_for(volume, size_bytes, &blocks, &may_need_more, err));
    struct spb_reservation *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return spb_fail_memory(err, "reserving space");
    (void)pthread_mutex_lock(&volume->lock);
    struct search search = {.want = blocks + may_need_more};
    bool searched = search_locked(volume, &search);
    if (searched && !search.found && may_need_more) {
        /* Most products need no block more: better to try than to refuse what would fit. */
        search = (struct search){.want = blocks};
        searched = search_locked(volume, &search);
    }
    if (!searched)
        status = spb_fail_memory(err, "reserving space");
    else if (blocks > 0 && !search.found)
        status = fail_space(volume, size_bytes, blocks, &search, err);
    else
        spb_reservation_link_locked(volume, made, search.best.start, blocks == 0 ? 0 : search.want);
    (void)pthread_mutex_unlock(&volume->lock);
    if (!spb_is_ok(status)) {
        free(made);
        return status;
    }
    *reservation = made;
    return status;
}

struct place {
    uint64_t start, length; /* length: free blocks from start on */
};

static bool visit_place(void *user, struct extent free_extent)
{
    struct place *place = user;

    if (place->start >= free_extent.start && place->start < free_extent.end)
        place->length = free_extent.end - place->start;
    return place->length == 0;
}

static spb_status fail_in_use(const struct spb_volume *volume, uint32_t block_offset,
                              uint64_t blocks, uint64_t free_blocks, struct spb_error *err)
{
    return spb_fail(err, SPB_IN_USE,
                    "cannot reserve %llu blocks at block %u of the area of %s: %llu are free there",
                    (unsigned long long)blocks, block_offset, volume->device->name,
                    (unsigned long long)free_blocks);
}

/* Holds exactly these blocks, and the next one too where it is free and wanted. */
static spb_status hold_at(struct spb_volume *volume, uint32_t block_offset, uint64_t blocks,
                          bool one_more, struct spb_reservation **reservation,
                          struct spb_error *err)
{
    struct place place = {.start = block_offset};
    size_t count = 0;
    spb_status status = spb_ok();

    if (!spb_range_within(block_offset, blocks, volume->geo.dp_size))
        return spb_fail(
            err, SPB_INVALID,
            "cannot reserve %llu blocks at block %u of the area of %s: it has %u blocks",
            (unsigned long long)blocks, block_offset, volume->device->name, volume->geo.dp_size);
    struct spb_reservation *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return spb_fail_memory(err, "reserving space");
    (void)pthread_mutex_lock(&volume->lock);
    struct extent *covered = covered_locked(volume, &count);
    if (covered == NULL) {
        status = spb_fail_memory(err, "reserving space");
    } else {
        each_free(covered, count, volume->geo.dp_size, visit_place, &place);
        if (blocks > place.length)
            status = fail_in_use(volume, block_offset, blocks, place.length, err);
        else
            spb_reservation_link_locked(volume, made, block_offset,
                                        blocks + (one_more && place.length > blocks));
    }
    (void)pthread_mutex_unlock(&volume->lock);
    free(covered);
    if (!spb_is_ok(status)) {
        free(made);
        return status;
    }
    *reservation = made;
    return status;
}

spb_status spb_reservation_new_at(struct spb_volume *volume, uint32_t block_offset,
                                  uint64_t size_bytes, struct spb_reservation **reservation,
                                  struct spb_error *err)
{
    uint64_t blocks;
    bool may_need_more;

    SPB_TRY(blocks_for(volume, size_bytes, &blocks, &may_need_more, err));
    return hold_at(volume, block_offset, blocks, may_need_more, reservation, err);
}

spb_status spb_reservation_new_extent(struct spb_volume *volume, uint32_t block_offset,
                                      uint32_t block_count, struct spb_reservation **reservation,
                                      struct spb_error *err)
{
    if (block_count > 0 && block_offset == 0)
        return spb_fail(err, SPB_INVALID,
                        "cannot reserve block 0 of the area of %s: it is the catalog's",
                        volume->device->name);
    return hold_at(volume, block_offset, block_count, false, reservation, err);
}

void spb_reservation_extent(const struct spb_reservation *reservation, uint32_t *block_offset,
                            uint32_t *block_count)
{
    *block_offset = reservation->block_offset;
    *block_count = reservation->block_count;
}

spb_status spb_reservation_pin(struct spb_volume *volume, const struct spb_product *product,
                               struct spb_reservation **reservation, struct spb_error *err)
{
    struct spb_reservation *made = calloc(1, sizeof(*made));

    if (made == NULL)
        return spb_fail_memory(err, "pinning a product");
    (void)pthread_mutex_lock(&volume->lock);
    spb_reservation_link_locked(volume, made, product->block_offset, product->block_count);
    (void)pthread_mutex_unlock(&volume->lock);
    *reservation = made;
    return spb_ok();
}

spb_status spb_reservation_pin_entry(struct spb_volume *volume, uint32_t entry,
                                     struct spb_product *product,
                                     struct spb_reservation **reservation, struct spb_error *err)
{
    struct spb_reservation *made = calloc(1, sizeof(*made));

    if (made == NULL)
        return spb_fail_memory(err, "pinning a product");
    (void)pthread_mutex_lock(&volume->lock);
    spb_product_from(&volume->geo, spb_catalog_of(volume), volume->notes, entry, product);
    bool has_blocks = product->state != SPB_PRODUCT_FREE && product->state != SPB_PRODUCT_INVALID;
    spb_reservation_link_locked(volume, made, has_blocks ? product->block_offset : 0,
                                has_blocks ? product->block_count : 0);
    (void)pthread_mutex_unlock(&volume->lock);
    *reservation = made;
    return spb_ok();
}

spb_status spb_reservation_check_life(const struct spb_reservation *reservation,
                                      struct spb_error *err)
{
    const struct spb_volume *volume = reservation->volume;

    if (reservation->life == atomic_load(&volume->life))
        return spb_ok();
    return spb_fail(err, SPB_IO,
                    "cannot store a product in %s: a flush failed while its bytes were being "
                    "written, so that they may be lost; write it again",
                    volume->device->name);
}

void spb_reservation_unlink_locked(struct spb_reservation *reservation)
{
    struct spb_reservation **link = &reservation->volume->reservations;

    while (*link != reservation)
        link = &(*link)->next;
    *link = reservation->next;
}

void spb_reservation_free(struct spb_reservation *reservation)
{
    if (reservation == NULL)
        return;
    struct spb_volume *volume = reservation->volume;
    (void)pthread_mutex_lock(&volume->lock);
    spb_reservation_unlink_locked(reservation);
    if (reservation->written && reservation->published_by == NULL)
        atomic_fetch_add(&volume->stale_marks, 1);
    (void)pthread_mutex_unlock(&volume->lock);
    free(reservation);
}

static bool hold(struct spb_volume *volume, struct search search,
                 struct spb_reservation **reservation)
{
    struct spb_reservation *made = calloc(1, sizeof(*made));

    if (made == NULL)
        return false;
    (void)pthread_mutex_lock(&volume->lock);
    bool found = search_locked(volume, &search) && search.found;
    if (found)
        spb_reservation_link_locked(volume, made, search.best.start, search.want);
    (void)pthread_mutex_unlock(&volume->lock);
    if (!found) {
        free(made);
        return false;
    }
    *reservation = made;
    return true;
}

bool spb_space_below(struct spb_volume *volume, uint32_t count, uint32_t below,
                     struct spb_reservation **reservation)
{
    return hold(volume, (struct search){.want = count, .below = below}, reservation);
}

bool spb_space_above(struct spb_volume *volume, uint32_t count, uint32_t above,
                     struct spb_reservation **reservation)
{
    return hold(volume, (struct search){.want = count, .above = above}, reservation);
}

bool spb_space_just_below(const struct spb_volume *volume, uint32_t block)
{
    struct place place = {.start = block - 1u};
    size_t count = 0;

    (void)pthread_mutex_lock(spb_volume_lock(volume));
    struct extent *covered = covered_locked(volume, &count);
    if (covered != NULL)
        each_free(covered, count, volume->geo.dp_size, visit_place, &place);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    free(covered);
    return place.length > 0;
}
