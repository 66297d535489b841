/* Reading of the catalog, and what is known of the products behind its entries. */
#include <string.h>

#include "base/bytes.h"
#include "volume/state.h"

void spb_notes_load(const struct spb_geometry *geo, const uint8_t *meta, struct spb_note *notes)
{
    const uint8_t *catalog = meta + (size_t)SPB_DP_FIRST_BLOCK * geo->block_size;
    struct spb_product product;

    for (uint32_t i = 0; i < geo->entries; i++) {
        spb_entry_decode(catalog + (size_t)i * SPB_ENTRY_SIZE, geo->dp_size, &product);
        notes[i] = (struct spb_note){.state = product.state, .length = 0};
    }
}

void spb_product_from(const struct spb_geometry *geo, const uint8_t *catalog,
                      const struct spb_note *notes, uint32_t index, struct spb_product *product)
{
    spb_entry_decode(catalog + (size_t)index * SPB_ENTRY_SIZE, geo->dp_size, product);
    product->entry = index;
    product->state = notes[index].state;
    product->length = notes[index].length;
}

bool spb_catalog_find(const struct spb_geometry *geo, const uint8_t *catalog,
                      const struct spb_note *notes, const void *name, size_t name_len,
                      struct spb_product *product)
{
    struct spb_product at;
    bool found = false;

    for (uint32_t i = 0; i < geo->entries; i++) {
        if (notes[i].state == SPB_PRODUCT_FREE || notes[i].state == SPB_PRODUCT_INVALID)
            continue;
        const uint8_t *entry = catalog + (size_t)i * SPB_ENTRY_SIZE;
        if (entry[SPB_ENTRY_NAME_AT - 1] != name_len ||
            memcmp(entry + SPB_ENTRY_NAME_AT, name, name_len) != 0)
            continue;
        spb_product_from(geo, catalog, notes, i, &at);
        if (at.state != SPB_PRODUCT_ROTTEN) {
            *product = at;
            return true;
        }
        if (!found)
            *product = at;
        found = true;
    }
    return found;
}

uint32_t spb_product_entries(const struct spb_volume *volume)
{
    return volume->geo.entries;
}

spb_status spb_product_entry(const struct spb_volume *volume, uint32_t index,
                             struct spb_product *product, struct spb_error *err)
{
    if (index >= volume->geo.entries)
        return spb_fail(err, SPB_INVALID, "cannot read catalog entry %u of %s: it has %u", index,
                        volume->device->name, volume->geo.entries);
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    spb_product_from(&volume->geo, spb_catalog_of(volume), volume->notes, index, product);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    return spb_ok();
}

spb_status spb_product_name_check(const void *name, size_t name_len, struct spb_error *err)
{
    if (name_len < 1 || name_len > SPB_PRODUCT_NAME_MAX)
        return spb_fail(err, SPB_INVALID, "a product's name has %zu bytes, expected 1 to %u",
                        name_len, SPB_PRODUCT_NAME_MAX);
    if (memchr(name, 0, name_len) != NULL)
        return spb_fail(err, SPB_INVALID, "a product's name has a NUL byte inside");
    if (!spb_bytes_are_utf8(name, name_len))
        return spb_fail(err, SPB_INVALID, "a product's name is not UTF-8");
    return spb_ok();
}

spb_status spb_product_find(const struct spb_volume *volume, const void *name, size_t name_len,
                            struct spb_product *product, struct spb_error *err)
{
    SPB_TRY(spb_product_name_check(name, name_len, err));
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    bool found = spb_catalog_find(&volume->geo, spb_catalog_of(volume), volume->notes, name,
                                  name_len, product);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    if (found)
        return spb_ok();
    return spb_fail(err, SPB_NOT_FOUND, "cannot find product %.*s in %s", (int)name_len,
                    (const char *)name, volume->device->name);
}

spb_status spb_product_find_at(const struct spb_volume *volume, uint32_t block_offset,
                               struct spb_product *product, struct spb_error *err)
{
    struct spb_product at;

    for (uint32_t i = 0; i < volume->geo.entries; i++) {
        SPB_TRY(spb_product_entry(volume, i, &at, err));
        if (at.state == SPB_PRODUCT_FREE || at.state == SPB_PRODUCT_INVALID)
            continue;
        if (at.block_count > 0 && at.block_offset == block_offset) {
            *product = at;
            return spb_ok();
        }
    }
    return spb_fail(err, SPB_NOT_FOUND, "cannot find a product at block %u of the area of %s",
                    block_offset, volume->device->name);
}

bool spb_product_is_same(const struct spb_product *a, const struct spb_product *b)
{
    return a->block_offset == b->block_offset && a->block_count == b->block_count &&
           a->product_class == b->product_class && a->priority == b->priority && a->crc == b->crc &&
           a->name_len == b->name_len && memcmp(a->name, b->name, sizeof(a->name)) == 0;
}

void spb_product_note(struct spb_volume *volume, const struct spb_product *product, bool good,
                      uint64_t length)
{
    struct spb_product now;

    if (product->entry >= volume->geo.entries)
        return;
    (void)pthread_mutex_lock(&volume->lock);
    struct spb_note *note = &volume->notes[product->entry];
    spb_product_from(&volume->geo, spb_catalog_of(volume), volume->notes, product->entry, &now);
    if (now.state != SPB_PRODUCT_FREE && now.state != SPB_PRODUCT_INVALID &&
        spb_product_is_same(&now, product)) {
        note->state = good ? SPB_PRODUCT_GOOD : SPB_PRODUCT_ROTTEN;
        note->length = good ? length : 0;
    }
    (void)pthread_mutex_unlock(&volume->lock);
}

bool spb_products_overlap(const struct spb_product *a, const struct spb_product *b)
{
    return a->block_count > 0 && b->block_count > 0 &&
           (uint64_t)a->block_offset < (uint64_t)b->block_offset + b->block_count &&
           (uint64_t)b->block_offset < (uint64_t)a->block_offset + a->block_count;
}
