/* The offline target: data products, in constant memory. One thread. */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "cli/target_file.h"

#define PIECE_BYTES ((size_t)1 << 20)

/* Reads the product's data and sets state and length, here and in the volume. */
static spb_status verify(struct spb_volume *volume, struct cli_progress *progress,
                         struct spb_product *product, struct spb_error *err)
{
    uint64_t length = 0;

    spb_status status =
        spb_product_verify(volume, product, cli_progress_callback, progress, &length, err);
    if (!spb_is_ok(status) && status.code != SPB_CORRUPT)
        return status;
    bool good = spb_is_ok(status);
    spb_product_note(volume, product, good, length);
    product->state = good ? SPB_PRODUCT_GOOD : SPB_PRODUCT_ROTTEN;
    product->length = length;
    return status;
}

spb_status file_product_list(struct cli_target *target, bool want_verified,
                             struct cli_progress *progress, struct cli_products *products,
                             struct spb_error *err)
{
    struct spb_volume *volume = volume_of(target);
    uint32_t entries = spb_product_entries(volume);
    struct cli_product *list = calloc(entries == 0 ? 1 : entries, sizeof(*list));
    spb_status status = spb_ok();
    size_t count = 0;

    if (list == NULL)
        return spb_fail_memory(err, "listing data products");
    for (uint32_t i = 0; i < entries && spb_is_ok(status); i++) {
        struct spb_product *product = &list[count].product;
        status = spb_product_entry(volume, i, product, err);
        if (!spb_is_ok(status) || product->state == SPB_PRODUCT_FREE)
            continue;
        count++;
        if (want_verified && product->state == SPB_PRODUCT_PRESENT) {
            status = verify(volume, progress, product, err);
            if (status.code == SPB_CORRUPT)
                status = spb_ok();
        }
    }
    if (!spb_is_ok(status)) {
        free(list);
        return status;
    }
    products->products = list;
    products->count = count;
    return status;
}

spb_status file_product_find(struct cli_target *target, const char *name, size_t name_len,
                             bool padded, struct cli_progress *progress,
                             struct cli_product *product, struct spb_error *err)
{
    struct spb_volume *volume = volume_of(target);
    struct cli_product found = {.identity_len = 0};
    struct spb_product *entry = &found.product;
    spb_status status = spb_ok();

    /* A rotten one is noted, so that the next turn finds another of the name, or it again. */
    do {
        SPB_TRY(spb_product_find(volume, name, name_len, entry, err));
        if (entry->state == SPB_PRODUCT_GOOD)
            break;
        bool again = entry->state == SPB_PRODUCT_ROTTEN;
        status = verify(volume, progress, entry, err);
        if (spb_is_ok(status) || again)
            break;
    } while (status.code == SPB_CORRUPT);
    if (status.code == SPB_CORRUPT && padded) {
        entry->length = (uint64_t)entry->block_count * spb_volume_sector_size(volume);
        status = spb_ok();
    }
    if (spb_is_ok(status))
        *product = found;
    return status;
}

static spb_status copy_out(const struct spb_volume *volume, const struct spb_product *product,
                           uint64_t from, struct cli_progress *progress, cli_sink sink, void *user,
                           uint8_t *piece, struct spb_error *err)
{
    uint64_t length = product->length;

    for (uint64_t at = from; at < length;) {
        size_t n = length - at < PIECE_BYTES ? (size_t)(length - at) : PIECE_BYTES;
        SPB_TRY(spb_product_read(volume, product, at, piece, n, err));
        SPB_TRY(sink(user, piece, n, err));
        at += n;
        if (!cli_progress_callback(progress, at, length))
            return spb_fail(err, SPB_DEADLINE, "reading data product \"%s\": interrupted",
                            product->name);
    }
    return spb_ok();
}

spb_status file_product_read(struct cli_target *target, const struct cli_product *product,
                             uint64_t from, struct cli_progress *progress, cli_sink sink,
                             void *user, struct spb_error *err)
{
    uint8_t *piece = malloc(PIECE_BYTES);

    if (piece == NULL)
        return spb_fail_memory(err, "reading a data product");
    spb_status status =
        copy_out(volume_of(target), &product->product, from, progress, sink, user, piece, err);
    free(piece);
    return status;
}

/* Copies the whole source to the writer; *crc is that of the source's bytes. */
static spb_status copy_in(struct cli_source *source, struct spb_product_writer *writer,
                          struct cli_progress *progress, uint8_t *piece, uint32_t *crc,
                          struct spb_error *err)
{
    uint32_t sum = 0;

    for (uint64_t at = 0; at < source->size;) {
        size_t n = source->size - at < PIECE_BYTES ? (size_t)(source->size - at) : PIECE_BYTES;
        SPB_TRY(cli_source_read(source, piece, n, err));
        SPB_TRY(spb_product_writer_write(writer, piece, n, err));
        sum = spb_crc32c(sum, piece, n);
        at += n;
        if (!cli_progress_callback(progress, at, source->size))
            return spb_fail(err, SPB_DEADLINE, "storing a data product: interrupted");
    }
    *crc = sum;
    return spb_ok();
}

/* The bytes, in their reservation, with what is to be published about them. */
static spb_status write_data(struct spb_volume *volume, struct spb_reservation *reservation,
                             struct cli_source *source, struct cli_progress *progress,
                             struct spb_product_data *data, struct spb_error *err)
{
    struct spb_product_writer *writer = NULL;
    uint8_t *piece = malloc(PIECE_BYTES);
    uint32_t crc = 0;

    if (piece == NULL)
        return spb_fail_memory(err, "writing a data product");
    spb_status status = spb_product_writer_new(volume, reservation, source->size, &writer, err);
    if (spb_is_ok(status))
        status = copy_in(source, writer, progress, piece, &crc, err);
    if (spb_is_ok(status))
        status = spb_product_writer_finish(writer, data, err);
    spb_product_writer_free(writer);
    free(piece);
    SPB_TRY(status);
    if (data->crc != crc || data->length != source->size)
        return spb_fail(err, SPB_CORRUPT,
                        "storing a data product: wrote CRC %08x, expected %08x of the source",
                        data->crc, crc);
    return spb_product_data_verify(volume, reservation, data, err);
}

static spb_status publish(struct spb_volume *volume, struct spb_reservation *reservation,
                          const struct spb_product_attributes *attributes,
                          const struct spb_product_data *data, bool replace,
                          struct spb_product *product, struct spb_error *err)
{
    struct spb_group *group = NULL;
    struct spb_product made;

    SPB_TRY(spb_group_new(volume, &group, err));
    spb_status status =
        spb_group_publish_product(group, reservation, attributes, data, replace, &made, err);
    if (spb_is_ok(status))
        status = spb_group_carry_out(group, err);
    if (spb_is_ok(status)) {
        spb_group_make_visible(group);
        *product = made;
    }
    spb_group_free(group);
    return status;
}

spb_status file_product_put(struct cli_target *target,
                            const struct spb_product_attributes *attributes, bool replace,
                            struct cli_source *source, struct cli_progress *progress,
                            struct spb_product *product, struct spb_error *err)
{
    struct spb_volume *volume = volume_of(target);
    struct spb_reservation *reservation = NULL;
    struct spb_product_data data;
    struct spb_product taken;

    /* What publishing would refuse is refused before the long copy. */
    SPB_TRY(spb_volume_is_writable(volume, err));
    SPB_TRY(spb_product_name_check(attributes->name, attributes->name_len, err));
    if (!replace &&
        spb_is_ok(spb_product_find(volume, attributes->name, attributes->name_len, &taken, NULL)))
        return spb_fail(err, SPB_EXISTS,
                        "storing data product \"%s\": the name is taken, expected a free one or "
                        "--replace",
                        taken.name);
    SPB_TRY(spb_reservation_new(volume, source->size, &reservation, err));
    spb_status status = write_data(volume, reservation, source, progress, &data, err);
    if (spb_is_ok(status))
        status = publish(volume, reservation, attributes, &data, replace, product, err);
    spb_reservation_free(reservation);
    return status;
}

spb_status file_product_delete(struct cli_target *target, const char *name, size_t name_len,
                               struct spb_error *err)
{
    return spb_volume_delete_product(volume_of(target), name, name_len, err);
}
