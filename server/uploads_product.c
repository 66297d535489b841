/*
 * Uploads of data products: the bytes go to an extent of the image that is reserved, in memory and
 * in the upload's row. See uploads.h; all within a hold on the image.
 */
#include "base/status.h"
#include "image.h"
#include "uploads_table.h"

static spb_status reserve(struct spb_upload *upload, struct spb_volume *volume,
                          struct spb_error *err)
{
    struct spb_upload_row *row = &upload->row;
    struct spb_product old;

    SPB_TRY(spb_volume_is_writable(volume, err));
    /* Fails early where publishing is known to fail. */
    if (!row->replace && spb_is_ok(spb_product_find(volume, row->name, row->name_len, &old, NULL)))
        return spb_fail(err, SPB_EXISTS, "image %s has a product %.*s, and replace is not set",
                        upload->image_text, (int)row->name_len, (const char *)row->name);
    SPB_TRY(spb_reservation_new(volume, row->size, &upload->reservation, err));
    spb_reservation_extent(upload->reservation, &row->block_offset, &row->block_count);
    row->image_id = upload->image->row.id;
    return spb_ok();
}

static spb_status resume(struct spb_upload *upload, struct spb_error *err)
{
    const struct spb_upload_row *row = &upload->row;
    struct spb_volume *volume = upload->image->volume;

    if (row->durable_offset == 0)
        return spb_product_writer_new(volume, upload->reservation, row->size, &upload->writer, err);
    return spb_product_writer_resume(volume, upload->reservation, row->size, row->durable_offset,
                                     row->durable_crc, &upload->writer, err);
}

static spb_status take_bytes(struct spb_upload *upload, const void *data, size_t n,
                             struct spb_error *err)
{
    return spb_product_writer_write(upload->writer, data, n, err);
}

static spb_status read_bytes(const struct spb_upload *upload, uint64_t offset, void *buffer,
                             size_t n, struct spb_error *err)
{
    return spb_product_writer_read(upload->writer, offset, buffer, n, err);
}

static spb_status begin_sync(struct spb_upload *upload, uint64_t *offset, uint32_t *crc,
                             struct spb_error *err)
{
    /* What is finished has its padding too, and is durable once it was verified. */
    if (upload->finished)
        return spb_ok();
    return spb_product_writer_begin_sync(upload->writer, offset, crc, err);
}

static spb_status make_durable(const struct spb_upload *upload, struct spb_error *err)
{
    return spb_product_writer_flush(upload->writer, err);
}

static spb_status finish(struct spb_upload *upload, struct spb_error *err)
{
    return spb_product_writer_finish(upload->writer, &upload->data, err);
}

static spb_status verify(struct spb_upload *upload, struct spb_error *err)
{
    return spb_product_data_verify(upload->image->volume, upload->reservation, &upload->data, err);
}

static void release(struct spb_upload *upload, bool keep)
{
    struct spb_product_writer *writer = upload->writer;
    struct spb_reservation *reservation = upload->reservation;

    (void)keep; /* the row keeps the extent */
    upload->writer = NULL;
    upload->reservation = NULL;
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
}

const struct spb_upload_kind_ops spb_upload_product_ops = {
    .reserve = reserve,
    .resume = resume,
    .take = take_bytes,
    .read = read_bytes,
    .begin_sync = begin_sync,
    .make_durable = make_durable,
    .finish = finish,
    .verify = verify,
    .release = release,
};
