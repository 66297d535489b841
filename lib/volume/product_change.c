/*
 * Deciding changes of the catalog: publish, delete, move, drop. No I/O. Changing an entry is a
 * write of one sector. At S=512 the whole catalog is one sector: it is rewritten at once and has no
 * gaps. Elsewhere entries stay where they are, and one that crosses a sector boundary is only ever
 * emptied. The actor's thread.
 */
#include <string.h>

#include "base/bytes.h"
#include "volume/change.h"
#include "volume/state.h"

#define NO_ENTRY UINT32_MAX

static uint8_t *entry_bytes(struct spb_group *group, uint32_t entry)
{
    return group->catalog + (size_t)entry * SPB_ENTRY_SIZE;
}

static bool crosses(const struct spb_group *group, uint32_t entry)
{
    return spb_crosses(spb_entry_at(&group->volume->geo, entry), SPB_ENTRY_SIZE);
}

/* ---- Entries of the group's catalog ---------------------------------------------------------- */

/* Closes the gaps, keeping the order. */
static void close_gaps(struct spb_group *group)
{
    uint32_t to = 0, entries = group->volume->geo.entries;

    for (uint32_t from = 0; from < entries; from++) {
        if (group->notes[from].state == SPB_PRODUCT_FREE)
            continue;
        if (from != to) {
            memcpy(entry_bytes(group, to), entry_bytes(group, from), SPB_ENTRY_SIZE);
            group->notes[to] = group->notes[from];
        }
        to++;
    }
    for (; to < entries; to++) {
        memset(entry_bytes(group, to), 0, SPB_ENTRY_SIZE);
        group->notes[to] = (struct spb_note){.state = SPB_PRODUCT_FREE};
    }
}

/* Writes the whole catalog, which lies in one sector. */
static spb_status rewrite(struct spb_group *group, uint32_t round, struct spb_error *err)
{
    const struct spb_geometry *geo = &group->volume->geo;

    close_gaps(group);
    SPB_TRY(spb_group_edit(group, round, spb_entry_at(geo, 0), group->catalog,
                           (size_t)geo->entries * SPB_ENTRY_SIZE, err));
    group->catalog_round = round;
    return spb_ok();
}

/* Writes one entry, or empties it; where it crosses a boundary only the bytes that empty it. */
static spb_status write_entry(struct spb_group *group, uint32_t entry, uint32_t round,
                              struct spb_error *err)
{
    size_t size = crosses(group, entry) ? SPB_ENTRY_FREE_SIZE : SPB_ENTRY_SIZE;

    SPB_TRY(spb_group_edit(group, round, spb_entry_at(&group->volume->geo, entry),
                           entry_bytes(group, entry), size, err));
    group->catalog_round = round;
    return spb_ok();
}

static void empty_entry(struct spb_group *group, uint32_t entry)
{
    memset(entry_bytes(group, entry), 0,
           crosses(group, entry) ? SPB_ENTRY_FREE_SIZE : SPB_ENTRY_SIZE);
    group->notes[entry] = (struct spb_note){.state = SPB_PRODUCT_FREE};
    group->entry_freed[entry] = 1;
    group->freed_count++;
}

static bool has_name(const struct spb_group *group, uint32_t entry, const void *name, size_t n)
{
    const uint8_t *bytes = group->catalog + (size_t)entry * SPB_ENTRY_SIZE;
    enum spb_product_state state = group->notes[entry].state;

    return state != SPB_PRODUCT_FREE && state != SPB_PRODUCT_INVALID &&
           bytes[SPB_ENTRY_NAME_AT - 1] == n && memcmp(bytes + SPB_ENTRY_NAME_AT, name, n) == 0;
}

/* States that an entry is emptied; before it is. */
static spb_status state_emptied(struct spb_group *group, uint32_t entry, struct spb_error *err)
{
    static const uint8_t zeros[SPB_ENTRY_SIZE];
    uint8_t bytes[16 + 2 * SPB_ENTRY_SIZE];
    struct spb_change change = {
        .kind = SPB_CHANGE_CELL,
        .of.cell = {SPB_CELL_ENTRY, entry, SPB_ENTRY_SIZE, entry_bytes(group, entry), zeros},
    };
    struct spb_writer w = spb_writer_over(bytes, sizeof(bytes));

    spb_change_write(&w, &change);
    SPB_ASSERT(!w.failed);
    return spb_group_state_change(group, bytes, w.pos, err);
}

/*
 * Empties the other entries of a name, beside keep. stated (may be NO_ENTRY) is one that the
 * caller's own statement tells of.
 */
static spb_status empty_twins(struct spb_group *group, uint32_t keep, uint32_t stated,
                              const void *name, size_t n, uint32_t round, bool *any,
                              struct spb_error *err)
{
    *any = false;
    for (uint32_t i = 0; i < group->volume->geo.entries; i++) {
        if (i == keep || !has_name(group, i, name, n))
            continue;
        if (i != stated)
            SPB_TRY(state_emptied(group, i, err));
        empty_entry(group, i);
        *any = true;
        if (!spb_catalog_is_one_sector(&group->volume->geo))
            SPB_TRY(write_entry(group, i, round, err));
    }
    return spb_ok();
}

/* ---- Undo of a decision on the catalog ------------------------------------------------------- */

struct undo {
    struct spb_point point;
    uint32_t catalog_round, freed_count;
    uint8_t catalog[SPB_BLOCK_SIZE_MAX];
    struct spb_note notes[SPB_BLOCK_SIZE_MAX / SPB_ENTRY_SIZE];
    uint8_t freed[SPB_BLOCK_SIZE_MAX / SPB_ENTRY_SIZE];
};

static void save(const struct spb_group *group, struct undo *undo)
{
    const struct spb_geometry *geo = &group->volume->geo;

    undo->point = spb_group_point(group);
    undo->catalog_round = group->catalog_round;
    undo->freed_count = group->freed_count;
    memcpy(undo->catalog, group->catalog, geo->block_size);
    memcpy(undo->notes, group->notes, geo->entries * sizeof(*group->notes));
    memcpy(undo->freed, group->entry_freed, geo->entries);
}

static void restore(struct spb_group *group, const struct undo *undo)
{
    const struct spb_geometry *geo = &group->volume->geo;

    spb_group_return(group, &undo->point);
    group->catalog_round = undo->catalog_round;
    group->freed_count = undo->freed_count;
    memcpy(group->catalog, undo->catalog, geo->block_size);
    memcpy(group->notes, undo->notes, geo->entries * sizeof(*group->notes));
    memcpy(group->entry_freed, undo->freed, geo->entries);
}

/* ---- Checks that all share ------------------------------------------------------------------- */

static spb_status begin(struct spb_group *group, struct spb_error *err)
{
    spb_group_assert_open(group);
    if (group->volume->geo.entries == 0)
        return spb_fail(err, SPB_FULL, "%s has no data product area, so it holds no products",
                        group->volume->device->name);
    return spb_group_own_catalog(group, err);
}

/* Did this group already decide something about the name? */
static bool is_decided(const struct spb_group *group, const void *name, size_t n)
{
    const struct spb_volume *volume = group->volume;
    struct spb_product now, was;
    bool has_now = spb_catalog_find(&volume->geo, group->catalog, group->notes, name, n, &now);
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    bool has_was =
        spb_catalog_find(&volume->geo, spb_catalog_of(volume), volume->notes, name, n, &was);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    uint8_t now_bytes[SPB_ENTRY_SIZE], was_bytes[SPB_ENTRY_SIZE];

    if (!has_now || !has_was)
        return has_now != has_was;
    spb_entry_encode(&now, now_bytes);
    spb_entry_encode(&was, was_bytes);
    return memcmp(now_bytes, was_bytes, SPB_ENTRY_SIZE) != 0;
}

static spb_status fail_again(const struct spb_group *group, struct spb_error *err)
{
    return spb_fail(err, SPB_AGAIN, "a product of %s waits for the changes before it",
                    group->volume->device->name);
}

static spb_status state_product(struct spb_group *group, const uint8_t *before,
                                const uint8_t *after, struct spb_error *err)
{
    struct spb_change change = {.kind = SPB_CHANGE_PRODUCT, .of.product = {before, after}};
    uint8_t bytes[16 + 2 * SPB_ENTRY_SIZE];
    struct spb_writer w = spb_writer_over(bytes, sizeof(bytes));

    spb_change_write(&w, &change);
    SPB_ASSERT(!w.failed);
    return spb_group_state_change(group, bytes, w.pos, err);
}

/* ---- Publish --------------------------------------------------------------------------------- */

/* The lowest entry that may be filled; SPB_AGAIN where this group has just emptied one. */
static spb_status find_free_entry(const struct spb_group *group, const void *name, size_t n,
                                  uint32_t *entry, struct spb_error *err)
{
    const struct spb_geometry *geo = &group->volume->geo;
    uint32_t fillable = 0, found = NO_ENTRY, free_entries = 0;

    for (uint32_t i = 0; i < geo->entries; i++) {
        if (crosses(group, i))
            continue;
        fillable++;
        if (group->notes[i].state != SPB_PRODUCT_FREE)
            continue;
        free_entries++;
        if (found == NO_ENTRY && (spb_catalog_is_one_sector(geo) || !group->entry_freed[i]))
            found = i;
    }
    /* Closing the gaps moves free entries: of these as many wait as the group emptied. */
    if (spb_catalog_is_one_sector(geo) && free_entries <= group->freed_count)
        found = NO_ENTRY;
    if (found != NO_ENTRY) {
        *entry = found;
        return spb_ok();
    }
    if (group->freed_count > 0)
        return fail_again(group, err);
    return spb_fail(err, SPB_FULL,
                    "cannot store product %.*s in %s: the %u catalog entries that can be written "
                    "are taken",
                    (int)n, (const char *)name, group->volume->device->name, fillable);
}

static struct spb_product make_product(const struct spb_reservation *reservation,
                                       const struct spb_product_attributes *attributes,
                                       const struct spb_product_data *data)
{
    struct spb_product product = {
        .state = SPB_PRODUCT_GOOD,
        .block_offset = data->block_count > 0 ? reservation->block_offset : 0,
        .block_count = data->block_count,
        .product_class = attributes->product_class,
        .priority = attributes->priority,
        .name_len = (uint8_t)attributes->name_len,
        .crc = data->crc,
        .length = data->length,
    };

    memcpy(product.name, attributes->name, attributes->name_len);
    return product;
}

/* Where the new entry goes: over an old one of the name that can be written, else a free one. */
static spb_status find_place(const struct spb_group *group, const struct spb_product *product,
                             const struct spb_product *old, uint32_t *entry, struct spb_error *err)
{
    if (old != NULL && !crosses(group, old->entry)) {
        *entry = old->entry;
        return spb_ok();
    }
    for (uint32_t i = 0; old != NULL && i < group->volume->geo.entries; i++) {
        if (!crosses(group, i) && has_name(group, i, product->name, product->name_len)) {
            *entry = i;
            return spb_ok();
        }
    }
    return find_free_entry(group, product->name, product->name_len, entry, err);
}

/* Writes the new entry; what else has the name goes a round later, when that one is durable. */
static spb_status place_entry(struct spb_group *group, const struct spb_product *product,
                              const struct spb_product *old, uint32_t round, struct spb_error *err)
{
    uint32_t entry = 0, stated = old != NULL ? old->entry : NO_ENTRY;
    bool one_sector = spb_catalog_is_one_sector(&group->volume->geo), twins;

    SPB_TRY(find_place(group, product, old, &entry, err));
    if (old != NULL && entry != old->entry && has_name(group, entry, old->name, old->name_len))
        SPB_TRY(state_emptied(group, entry, err));
    spb_entry_encode(product, entry_bytes(group, entry));
    group->notes[entry] = (struct spb_note){SPB_PRODUCT_GOOD, product->length};
    if (!one_sector)
        SPB_TRY(write_entry(group, entry, round, err));
    SPB_TRY(empty_twins(group, entry, stated, product->name, product->name_len, round + 1, &twins,
                        err));
    return one_sector ? rewrite(group, round, err) : spb_ok();
}

static spb_status decide_publish(struct spb_group *group, const struct spb_product *product,
                                 const struct spb_product *old, struct spb_product *placed,
                                 struct spb_error *err)
{
    uint8_t before[SPB_ENTRY_SIZE], after[SPB_ENTRY_SIZE];
    uint32_t round = product->block_count > 0 ? 1 : 0;

    if (round < group->catalog_round)
        round = group->catalog_round;
    if (old != NULL)
        memcpy(before, entry_bytes(group, old->entry), sizeof(before));
    spb_entry_encode(product, after);
    SPB_TRY(place_entry(group, product, old, round, err));
    SPB_TRY(state_product(group, old != NULL ? before : NULL, after, err));
    *placed = *product;
    /* Closing gaps may have moved it. */
    (void)spb_catalog_find(&group->volume->geo, group->catalog, group->notes, product->name,
                           product->name_len, placed);
    return spb_ok();
}

static spb_status check_reservation(const struct spb_group *group,
                                    const struct spb_reservation *reservation,
                                    const struct spb_product_attributes *attributes,
                                    const struct spb_product_data *data, struct spb_error *err)
{
    if (reservation->volume != group->volume || reservation->published_by != NULL)
        return spb_fail(err, SPB_INVALID,
                        "cannot publish product %.*s: its reservation is of another volume, or was "
                        "published before",
                        (int)attributes->name_len, (const char *)attributes->name);
    if (data->block_count > reservation->block_count)
        return spb_fail(err, SPB_INVALID,
                        "cannot publish %u blocks of a product from a reservation of %u",
                        data->block_count, reservation->block_count);
    return spb_reservation_check_life(reservation, err);
}

spb_status spb_group_publish_product(struct spb_group *group, struct spb_reservation *reservation,
                                     const struct spb_product_attributes *attributes,
                                     const struct spb_product_data *data, bool replace,
                                     struct spb_product *product, struct spb_error *err)
{
    struct spb_product old, placed;
    struct undo undo;

    SPB_TRY(spb_product_name_check(attributes->name, attributes->name_len, err));
    SPB_TRY(begin(group, err));
    SPB_TRY(check_reservation(group, reservation, attributes, data, err));
    if (is_decided(group, attributes->name, attributes->name_len))
        return fail_again(group, err);
    bool exists = spb_catalog_find(&group->volume->geo, group->catalog, group->notes,
                                   attributes->name, attributes->name_len, &old);
    if (exists && !replace)
        return spb_fail(err, SPB_EXISTS, "cannot store product %.*s in %s: the name is taken",
                        (int)attributes->name_len, (const char *)attributes->name,
                        group->volume->device->name);
    struct spb_product made = make_product(reservation, attributes, data);
    save(group, &undo);
    spb_status status = decide_publish(group, &made, exists ? &old : NULL, &placed, err);
    if (!spb_is_ok(status)) {
        restore(group, &undo);
        return status;
    }
    reservation->published_by = group;
    if (product != NULL)
        *product = placed;
    return status;
}

/* ---- Delete, drop, move ---------------------------------------------------------------------- */

static spb_status decide_delete(struct spb_group *group, const struct spb_product *old,
                                struct spb_error *err)
{
    uint8_t before[SPB_ENTRY_SIZE];
    uint32_t round = group->catalog_round;
    bool twins;

    memcpy(before, entry_bytes(group, old->entry), sizeof(before));
    SPB_TRY(empty_twins(group, old->entry, NO_ENTRY, old->name, old->name_len, round, &twins, err));
    empty_entry(group, old->entry);
    if (spb_catalog_is_one_sector(&group->volume->geo))
        SPB_TRY(rewrite(group, round, err));
    else
        SPB_TRY(write_entry(group, old->entry, round + twins, err));
    return state_product(group, before, NULL, err);
}

spb_status spb_group_delete_product(struct spb_group *group, const void *name, size_t name_len,
                                    struct spb_error *err)
{
    struct spb_product old;
    struct undo undo;

    SPB_TRY(spb_product_name_check(name, name_len, err));
    if (group->volume->geo.entries == 0)
        return spb_fail(err, SPB_NOT_FOUND, "cannot find product %.*s in %s", (int)name_len,
                        (const char *)name, group->volume->device->name);
    SPB_TRY(begin(group, err));
    if (is_decided(group, name, name_len))
        return fail_again(group, err);
    if (!spb_catalog_find(&group->volume->geo, group->catalog, group->notes, name, name_len, &old))
        return spb_fail(err, SPB_NOT_FOUND, "cannot find product %.*s in %s", (int)name_len,
                        (const char *)name, group->volume->device->name);
    save(group, &undo);
    spb_status status = decide_delete(group, &old, err);
    if (!spb_is_ok(status))
        restore(group, &undo);
    return status;
}

static spb_status drop_one(struct spb_group *group, uint32_t entry, struct spb_error *err)
{
    SPB_TRY(state_emptied(group, entry, err));
    empty_entry(group, entry);
    if (spb_catalog_is_one_sector(&group->volume->geo))
        return spb_ok();
    return write_entry(group, entry, group->catalog_round, err);
}

spb_status spb_group_drop_entries(struct spb_group *group, const bool *drop, struct spb_error *err)
{
    bool any = false;

    SPB_TRY(begin(group, err));
    for (uint32_t i = 0; i < group->volume->geo.entries; i++) {
        if (!drop[i] || group->notes[i].state == SPB_PRODUCT_FREE)
            continue;
        SPB_TRY(drop_one(group, i, err));
        any = true;
    }
    /* Last, since closing gaps moves the entries that drop names. */
    if (any && spb_catalog_is_one_sector(&group->volume->geo))
        return rewrite(group, group->catalog_round, err);
    return spb_ok();
}

spb_status spb_group_move_product(struct spb_group *group, const struct spb_product *product,
                                  struct spb_reservation *to, struct spb_error *err)
{
    uint8_t before[SPB_ENTRY_SIZE], offset[4];
    struct spb_writer w = spb_writer_over(offset, sizeof(offset));

    SPB_TRY(begin(group, err));
    if (is_decided(group, product->name, product->name_len))
        return fail_again(group, err);
    uint8_t *entry = entry_bytes(group, product->entry);
    memcpy(before, entry, sizeof(before));
    spb_write_be32(&w, to->block_offset);
    uint32_t round = group->catalog_round > 1 ? group->catalog_round : 1;
    SPB_TRY(spb_group_edit(group, round, spb_entry_at(&group->volume->geo, product->entry), offset,
                           sizeof(offset), err));
    memcpy(entry, offset, sizeof(offset));
    group->catalog_round = round;
    to->published_by = group;
    return state_product(group, before, entry, err);
}
