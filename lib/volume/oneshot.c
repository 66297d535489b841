/*
 * One change at once, for a caller that has the volume to itself: the three steps in a row.
 */
#include <stdlib.h>

#include "volume/state.h"

spb_status spb_volume_put_param(struct spb_volume *volume, const struct spb_param_put *put,
                                uint16_t *generation, struct spb_error *err)
{
    struct spb_group *group;

    SPB_TRY(spb_group_new(volume, &group, err));
    return spb_group_finish(group, spb_group_put_param(group, put, generation, err), err);
}

spb_status spb_volume_write_param(struct spb_volume *volume, uint32_t slot, uint32_t id,
                                  uint16_t generation, const void *value, size_t len,
                                  struct spb_error *err)
{
    struct spb_group *group;

    SPB_TRY(spb_group_new(volume, &group, err));
    return spb_group_finish(
        group, spb_group_write_param(group, slot, id, generation, value, len, err), err);
}

spb_status spb_volume_delete_param(struct spb_volume *volume, uint32_t id,
                                   int32_t expected_generation, struct spb_error *err)
{
    struct spb_group *group;

    SPB_TRY(spb_group_new(volume, &group, err));
    return spb_group_finish(group, spb_group_delete_param(group, id, expected_generation, err),
                            err);
}

spb_status spb_volume_append_events(struct spb_volume *volume, const struct spb_event *events,
                                    size_t count, uint32_t *first_index, struct spb_error *err)
{
    struct spb_group *group;

    SPB_TRY(spb_group_new(volume, &group, err));
    return spb_group_finish(group, spb_group_append_events(group, events, count, first_index, err),
                            err);
}

spb_status spb_volume_delete_product(struct spb_volume *volume, const void *name, size_t name_len,
                                     struct spb_error *err)
{
    struct spb_group *group;

    SPB_TRY(spb_group_new(volume, &group, err));
    return spb_group_finish(group, spb_group_delete_product(group, name, name_len, err), err);
}

/* ---- Products ------------------------------------------------------------------------------- */

static spb_status write_all(struct spb_volume *volume, struct spb_reservation *reservation,
                            const void *data, size_t size, struct spb_product_data *written,
                            struct spb_error *err)
{
    struct spb_product_writer *writer;

    SPB_TRY(spb_product_writer_new(volume, reservation, size, &writer, err));
    spb_status status = spb_product_writer_write(writer, data, size, err);
    if (spb_is_ok(status))
        status = spb_product_writer_finish(writer, written, err);
    spb_product_writer_free(writer);
    return status;
}

spb_status spb_volume_put_product(struct spb_volume *volume,
                                  const struct spb_product_attributes *attributes, const void *data,
                                  size_t size, bool replace, struct spb_product *product,
                                  struct spb_error *err)
{
    struct spb_reservation *reservation;
    struct spb_product_data written;
    struct spb_group *group;
    struct spb_product old;

    SPB_TRY(spb_product_name_check(attributes->name, attributes->name_len, err));
    /* Known to fail before anything is written; publishing checks it again. */
    if (!replace &&
        spb_is_ok(spb_product_find(volume, attributes->name, attributes->name_len, &old, NULL)))
        return spb_fail(err, SPB_EXISTS, "cannot store product %.*s in %s: the name is taken",
                        (int)attributes->name_len, (const char *)attributes->name,
                        volume->device->name);
    SPB_TRY(spb_reservation_new(volume, size, &reservation, err));
    spb_status status = write_all(volume, reservation, data, size, &written, err);
    if (spb_is_ok(status))
        status = spb_group_new(volume, &group, err);
    if (spb_is_ok(status)) {
        status = spb_group_publish_product(group, reservation, attributes, &written, replace,
                                           product, err);
        status = spb_group_finish(group, status, err);
    }
    spb_reservation_free(reservation);
    return status;
}

/* Finds the product of a name whose data is good, passing over rotten ones of the same name. */
static spb_status find_good(struct spb_volume *volume, const void *name, size_t name_len,
                            struct spb_product *product, struct spb_error *err)
{
    for (;;) {
        uint64_t length = 0;
        SPB_TRY(spb_product_find(volume, name, name_len, product, err));
        spb_status status = spb_product_verify(volume, product, NULL, NULL, &length, err);
        if (!spb_is_ok(status) && status.code != SPB_CORRUPT)
            return status;
        bool was_rotten = product->state == SPB_PRODUCT_ROTTEN;
        spb_product_note(volume, product, spb_is_ok(status), length);
        if (!spb_is_ok(status) && was_rotten)
            return status;
        product->length = length;
        if (spb_is_ok(status))
            return status;
    }
}

spb_status spb_volume_get_product(struct spb_volume *volume, const void *name, size_t name_len,
                                  uint8_t **data, size_t *size, struct spb_error *err)
{
    struct spb_product product;

    SPB_TRY(find_good(volume, name, name_len, &product, err));
    if (product.length > SIZE_MAX - 1)
        return spb_fail_memory(err, "reading a product");
    uint8_t *bytes = malloc((size_t)product.length + 1);
    if (bytes == NULL)
        return spb_fail_memory(err, "reading a product");
    spb_status status = spb_product_read(volume, &product, 0, bytes, (size_t)product.length, err);
    if (!spb_is_ok(status)) {
        free(bytes);
        return status;
    }
    *data = bytes;
    *size = (size_t)product.length;
    return status;
}

spb_status spb_volume_restore_medium(struct spb_volume *volume, struct spb_error *err)
{
    struct spb_sector *differing = NULL;
    struct spb_error own;
    size_t count = 0;

    if (err == NULL)
        err = &own;
    SPB_TRY(spb_medium_compare(volume, &differing, &count, err));
    spb_status status = spb_ok();
    if (count > 0)
        status = spb_carry_round(volume->device, differing, count, err);
    if (!spb_is_ok(status))
        spb_poison(volume, err);
    free(differing);
    return status;
}

spb_status spb_volume_repair(struct spb_volume *volume, spb_progress progress, void *user,
                             struct spb_report *report, struct spb_error *err)
{
    struct spb_report found;
    struct spb_group *group;

    SPB_TRY(spb_volume_is_writable(volume, err));
    SPB_TRY(spb_volume_check(volume, progress, user, &found, err));
    spb_status status = spb_volume_restore_medium(volume, err);
    if (spb_is_ok(status))
        status = spb_group_new(volume, &group, err);
    if (spb_is_ok(status))
        status = spb_group_finish(group, spb_group_repair(group, &found, err), err);
    if (!spb_is_ok(status)) {
        spb_report_done(&found);
        return status;
    }
    *report = found;
    return status;
}
