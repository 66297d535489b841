/* Coding of the statement of a change. Pure functions of bytes. */
#include "volume/change.h"

#include "base/crc32c.h"
#include "base/status.h"

#define STATEMENT_HEAD 5u /* kind and size */

static size_t value_size(const struct spb_value *value)
{
    return 1u + 2u + 1u + value->len;
}

static size_t product_size(const struct spb_product_change *product)
{
    return 1u + (product->before != NULL ? SPB_ENTRY_SIZE : 0u) +
           (product->after != NULL ? SPB_ENTRY_SIZE : 0u);
}

static size_t body_size(const struct spb_change *change)
{
    switch (change->kind) {
    case SPB_CHANGE_PARAM:
        return 4u + 1u + 2u + value_size(&change->of.param.before) +
               value_size(&change->of.param.after);
    case SPB_CHANGE_EVENTS:
        return 12u + (size_t)change->of.events.count * SPB_EVENT_SIZE;
    case SPB_CHANGE_PRODUCT:
        return product_size(&change->of.product);
    case SPB_CHANGE_CELL:
        return 1u + 4u + 2u + 2u * (size_t)change->of.cell.size;
    }
    SPB_ASSERT(false);
    return 0;
}

size_t spb_change_size(const struct spb_change *change)
{
    return STATEMENT_HEAD + body_size(change);
}

static void write_value(struct spb_writer *w, const struct spb_value *value)
{
    spb_write_u8(w, value->state);
    spb_write_be16(w, value->generation);
    spb_write_u8(w, value->len);
    spb_write_bytes(w, value->bytes, value->len);
}

static void write_param(struct spb_writer *w, const struct spb_param_change *param)
{
    spb_write_be32(w, param->id);
    spb_write_u8(w, param->erases);
    spb_write_be16(w, param->others);
    write_value(w, &param->before);
    write_value(w, &param->after);
}

static void write_events(struct spb_writer *w, const struct spb_events_change *events)
{
    spb_write_be32(w, events->before);
    spb_write_be32(w, events->after);
    spb_write_be32(w, events->count);
    spb_write_bytes(w, events->records, (size_t)events->count * SPB_EVENT_SIZE);
}

static void write_product(struct spb_writer *w, const struct spb_product_change *product)
{
    spb_write_u8(w,
                 (uint8_t)((product->before != NULL ? 1 : 0) | (product->after != NULL ? 2 : 0)));
    if (product->before != NULL)
        spb_write_bytes(w, product->before, SPB_ENTRY_SIZE);
    if (product->after != NULL)
        spb_write_bytes(w, product->after, SPB_ENTRY_SIZE);
}

static void write_cell(struct spb_writer *w, const struct spb_cell_change *cell)
{
    spb_write_u8(w, cell->cell);
    spb_write_be32(w, cell->index);
    spb_write_be16(w, cell->size);
    spb_write_bytes(w, cell->before, cell->size);
    spb_write_bytes(w, cell->after, cell->size);
}

void spb_change_write(struct spb_writer *w, const struct spb_change *change)
{
    spb_write_u8(w, (uint8_t)change->kind);
    spb_write_be32(w, (uint32_t)body_size(change));
    switch (change->kind) {
    case SPB_CHANGE_PARAM:
        write_param(w, &change->of.param);
        break;
    case SPB_CHANGE_EVENTS:
        write_events(w, &change->of.events);
        break;
    case SPB_CHANGE_PRODUCT:
        write_product(w, &change->of.product);
        break;
    case SPB_CHANGE_CELL:
        write_cell(w, &change->of.cell);
        break;
    }
}

static bool read_value(struct spb_reader *r, struct spb_value *value)
{
    value->state = spb_read_u8(r);
    value->generation = spb_read_be16(r);
    value->len = spb_read_u8(r);
    value->bytes = spb_read_view(r, value->len);
    return !r->failed && value->state <= SPB_VALUE_CORRUPT && value->len <= SPB_PARAM_VALUE_MAX;
}

static bool read_param(struct spb_reader *r, struct spb_param_change *param)
{
    param->id = spb_read_be32(r);
    uint8_t erases = spb_read_u8(r);
    param->erases = erases == 1;
    param->others = spb_read_be16(r);
    return erases <= 1 && read_value(r, &param->before) && read_value(r, &param->after);
}

static bool read_events(struct spb_reader *r, struct spb_events_change *events)
{
    events->before = spb_read_be32(r);
    events->after = spb_read_be32(r);
    events->count = spb_read_be32(r);
    if (r->failed || events->count > spb_reader_left(r) / SPB_EVENT_SIZE)
        return false;
    events->records = spb_read_view(r, (size_t)events->count * SPB_EVENT_SIZE);
    return events->count > 0;
}

static bool read_product(struct spb_reader *r, struct spb_product_change *product)
{
    uint8_t parts = spb_read_u8(r);

    product->before = (parts & 1) != 0 ? spb_read_view(r, SPB_ENTRY_SIZE) : NULL;
    product->after = (parts & 2) != 0 ? spb_read_view(r, SPB_ENTRY_SIZE) : NULL;
    return !r->failed && parts >= 1 && parts <= 3;
}

static bool read_cell(struct spb_reader *r, struct spb_cell_change *cell)
{
    static const uint16_t sizes[] = {
        [SPB_CELL_PARAM] = SPB_PARAM_SIZE,
        [SPB_CELL_EVENT] = SPB_EVENT_SIZE,
        [SPB_CELL_ENTRY] = SPB_ENTRY_SIZE,
    };

    cell->cell = spb_read_u8(r);
    cell->index = spb_read_be32(r);
    cell->size = spb_read_be16(r);
    if (r->failed || cell->cell < SPB_CELL_PARAM || cell->cell > SPB_CELL_ENTRY ||
        cell->size != sizes[cell->cell])
        return false;
    cell->before = spb_read_view(r, cell->size);
    cell->after = spb_read_view(r, cell->size);
    return !r->failed;
}

static bool read_body(struct spb_reader *r, uint8_t kind, struct spb_change *change)
{
    switch (kind) {
    case SPB_CHANGE_PARAM:
        return read_param(r, &change->of.param);
    case SPB_CHANGE_EVENTS:
        return read_events(r, &change->of.events);
    case SPB_CHANGE_PRODUCT:
        return read_product(r, &change->of.product);
    case SPB_CHANGE_CELL:
        return read_cell(r, &change->of.cell);
    default:
        return false;
    }
}

bool spb_change_read(struct spb_reader *r, struct spb_change *change)
{
    uint8_t kind = spb_read_u8(r);
    uint32_t size = spb_read_be32(r);
    const uint8_t *body = spb_read_view(r, size);

    if (body == NULL)
        return false;
    struct spb_reader in = spb_reader_over(body, size);
    change->kind = (enum spb_change_kind)kind;
    return read_body(&in, kind, change) && !in.failed && spb_reader_left(&in) == 0;
}

bool spb_changes_open(const uint8_t *bytes, size_t size, struct spb_reader *r, uint32_t *count)
{
    struct spb_reader crc = spb_reader_over(bytes, size);

    if (size < 14)
        return false;
    (void)spb_read_view(&crc, size - 4);
    if (spb_read_be32(&crc) != spb_crc32c(0, bytes, size - 4))
        return false;
    *r = spb_reader_over(bytes, size - 4);
    uint32_t magic = spb_read_be32(r);
    uint16_t version = spb_read_be16(r);
    *count = spb_read_be32(r);
    /* A statement has six bytes at least: no count can ask for more memory than was given. */
    return magic == SPB_CHANGES_MAGIC && version == SPB_CHANGES_VERSION &&
           *count <= spb_reader_left(r) / 6;
}
