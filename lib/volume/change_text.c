/*
 * Changes in words, one line for each. On the path of every put, so that there is one allocation
 * and no formatting by printf: the room is bounded first, from each change's kind and sizes, then
 * the texts are written behind each other. Pure functions of bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "volume/change.h"
#include "volume/name_text.h"
#include "volume/state.h"

/* Upper bounds of parts, in characters. */
#define NUMBER_MAX 10u /* of a u32 */
#define EVENT_MAX (3u * NUMBER_MAX + 16u + 2u * SPB_EVENT_PAYLOAD_MAX)
#define ENTRY_MAX (SPB_NAME_SHOWN_MAX + 4u * NUMBER_MAX + 2u * SPB_ENTRY_SIZE + 64u)
#define RECORD_MAX (3u * NUMBER_MAX + 64u + 2u * SPB_PARAM_VALUE_MAX)

/* Every piece of text is written behind the last; each function returns where the next begins. */

static char *put_words(char *at, const char *words)
{
    size_t n = strlen(words);

    memcpy(at, words, n + 1);
    return at + n;
}

static char *put_number(char *at, uint32_t number)
{
    char digits[NUMBER_MAX];
    size_t n = 0;

    do {
        digits[NUMBER_MAX - ++n] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    memcpy(at, digits + NUMBER_MAX - n, n);
    return at + n;
}

static char *put_hex_digits(char *at, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        *at++ = digits[bytes[i] >> 4];
        *at++ = digits[bytes[i] & 15];
    }
    return at;
}

static char *put_hex(char *at, const uint8_t *bytes, size_t n)
{
    return put_hex_digits(put_words(at, "0x"), bytes, n);
}

static char *put_entry_name(char *at, const uint8_t *entry)
{
    size_t n = entry[SPB_ENTRY_NAME_AT - 1];

    return spb_name_show(at, entry + SPB_ENTRY_NAME_AT,
                         n < SPB_PRODUCT_NAME_MAX ? n : SPB_PRODUCT_NAME_MAX);
}

/* ---- States --------------------------------------------------------------------------------- */

static char *put_valid(char *at, uint16_t generation, const uint8_t *value, size_t len)
{
    at = put_words(at, "generation ");
    at = put_number(at, generation);
    at = put_words(at, " value ");
    return put_hex(at, value, len);
}

static char *put_value(char *at, const struct spb_value *value)
{
    if (value->state == SPB_VALUE_VALID)
        return put_valid(at, value->generation, value->bytes, value->len);
    if (value->state == SPB_VALUE_ABSENT)
        return put_words(at, "absent");
    return put_number(put_words(at, "corrupt, shows generation "), value->generation);
}

static char *put_event(char *at, const uint8_t *record)
{
    static const char *const severities[] = {"DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"};
    struct spb_event event = {0};

    spb_event_record_decode(record, &event);
    if (event.corrupt)
        return put_words(at, "corrupt");
    at = put_words(put_number(at, event.timestamp), " ");
    at = event.severity < sizeof(severities) / sizeof(severities[0])
             ? put_words(at, severities[event.severity])
             : put_number(at, event.severity);
    at = put_words(put_number(put_words(at, " "), event.code), " ");
    return put_hex(at, event.payload, event.payload_len);
}

static char *put_extent(char *at, const struct spb_product *product, const uint8_t *entry)
{
    at = put_number(put_words(at, "class "), product->product_class);
    at = put_number(put_words(at, " priority "), product->priority);
    at = put_number(put_words(at, " blocks "), product->block_offset);
    at = put_number(put_words(at, "+"), product->block_count);
    return put_hex_digits(put_words(at, " crc "), entry + SPB_ENTRY_CRC_AT, 4);
}

static char *put_product(char *at, const uint8_t *entry, bool with_name)
{
    struct spb_product product;

    if (entry == NULL)
        return put_words(at, "absent");
    spb_entry_decode(entry, UINT32_MAX, &product);
    if (product.state == SPB_PRODUCT_FREE)
        return put_words(at, "free");
    if (product.state == SPB_PRODUCT_INVALID)
        return put_hex(put_words(at, "invalid "), entry, SPB_ENTRY_SIZE);
    if (with_name)
        at = put_words(put_entry_name(put_words(at, "product "), entry), " ");
    return put_extent(at, &product, entry);
}

static char *put_param_record(char *at, const uint8_t *record)
{
    struct spb_param param;

    spb_param_record_decode(record, SPB_PARAM_SIZE, &param);
    if (param.state == SPB_PARAM_FREE)
        return put_words(at, "free");
    if (param.state == SPB_PARAM_CORRUPT)
        at = put_words(at, "corrupt, shows ");
    at = put_words(put_number(put_words(at, "param "), param.id), " ");
    if (param.state == SPB_PARAM_CORRUPT)
        return put_number(put_words(at, "generation "), param.generation);
    return put_valid(at, param.generation, param.value, param.len);
}

/* ---- One change ----------------------------------------------------------------------------- */

/* Where the next line of each text goes. */
struct lines {
    char *object, *before, *after;
};

static void put_param(struct lines *at, const struct spb_param_change *change)
{
    at->before = put_value(at->before, &change->before);
    if (change->erases && change->others > 0) {
        at->before = put_number(put_words(at->before, " and "), change->others);
        at->before = put_words(at->before, change->others == 1 ? " more slot" : " more slots");
    }
    at->after = put_value(at->after, &change->after);
}

static void put_events(struct lines *at, const struct spb_events_change *change)
{
    at->before = put_number(put_words(at->before, "pointer "), change->before);
    at->after = put_number(put_words(at->after, "pointer "), change->after);
    for (uint32_t i = 0; i < change->count; i++)
        at->after = put_event(put_words(at->after, i == 0 ? ": " : "; "),
                              change->records + (size_t)i * SPB_EVENT_SIZE);
}

static void put_product_change(struct lines *at, const struct spb_product_change *change)
{
    at->before = put_product(at->before, change->before, false);
    at->after = put_product(at->after, change->after, false);
}

static char *put_cell_state(char *at, uint8_t cell, const uint8_t *bytes)
{
    if (cell == SPB_CELL_PARAM)
        return put_param_record(at, bytes);
    return cell == SPB_CELL_EVENT ? put_event(at, bytes) : put_product(at, bytes, true);
}

static void put_cell(struct lines *at, const struct spb_cell_change *change)
{
    at->before = put_cell_state(at->before, change->cell, change->before);
    at->after = put_cell_state(at->after, change->cell, change->after);
}

static char *put_object(char *at, const struct spb_change *change)
{
    static const char *const cells[] = {
        [SPB_CELL_PARAM] = "param slot ",
        [SPB_CELL_EVENT] = "event ",
        [SPB_CELL_ENTRY] = "catalog entry ",
    };
    const struct spb_product_change *product = &change->of.product;
    const struct spb_events_change *events = &change->of.events;

    switch (change->kind) {
    case SPB_CHANGE_PARAM:
        return put_number(put_words(at, "param "), change->of.param.id);
    case SPB_CHANGE_EVENTS:
        at = put_number(put_words(at, "events "), events->after - events->count);
        return put_number(put_words(at, ".."), events->after - 1);
    case SPB_CHANGE_PRODUCT:
        return put_entry_name(put_words(at, "product "),
                              product->after != NULL ? product->after : product->before);
    case SPB_CHANGE_CELL:
        return put_number(put_words(at, cells[change->of.cell.cell]), change->of.cell.index);
    }
    return at;
}

void spb_change_object(const struct spb_change *change, char object[SPB_CHANGE_OBJECT_SIZE])
{
    *put_object(object, change) = '\0';
}

static void put_change(struct lines *at, const struct spb_change *change)
{
    at->object = put_object(at->object, change);
    switch (change->kind) {
    case SPB_CHANGE_PARAM:
        put_param(at, &change->of.param);
        break;
    case SPB_CHANGE_EVENTS:
        put_events(at, &change->of.events);
        break;
    case SPB_CHANGE_PRODUCT:
        put_product_change(at, &change->of.product);
        break;
    case SPB_CHANGE_CELL:
        put_cell(at, &change->of.cell);
        break;
    }
}

/* Room that the lines of a change take at most, the newline or NUL after each included. */
struct room {
    size_t object, before, after;
};

static struct room room_for(const struct spb_change *change)
{
    struct room room = {.object = 2 * NUMBER_MAX + 16};

    switch (change->kind) {
    case SPB_CHANGE_PARAM:
        room.before = 64 + 2 * NUMBER_MAX + 2u * change->of.param.before.len;
        room.after = 64 + 2 * NUMBER_MAX + 2u * change->of.param.after.len;
        break;
    case SPB_CHANGE_EVENTS:
        room.before = 16 + NUMBER_MAX;
        room.after = 16 + NUMBER_MAX + change->of.events.count * (size_t)EVENT_MAX;
        break;
    case SPB_CHANGE_PRODUCT:
        room.object += SPB_NAME_SHOWN_MAX;
        room.before = room.after = ENTRY_MAX;
        break;
    case SPB_CHANGE_CELL:
        room.before = room.after = RECORD_MAX;
        break;
    }
    return room;
}

_Static_assert(RECORD_MAX >= ENTRY_MAX && RECORD_MAX >= EVENT_MAX, "room for a cell's state");
_Static_assert(SPB_CHANGE_OBJECT_SIZE >= 2 * NUMBER_MAX + 16 &&
                   SPB_CHANGE_OBJECT_SIZE >= sizeof("product ") + SPB_NAME_SHOWN_MAX,
               "room for an object");

static void end_line(char **at, bool last)
{
    *(*at)++ = last ? '\0' : '\n';
}

/* ---- Texts of a run of statements ----------------------------------------------------------- */

static spb_status fail_statement(struct spb_error *err)
{
    return spb_fail(err, SPB_CORRUPT, "these bytes are not an encoding of changes, or are damaged");
}

/* The next `count` statements of the reader in words. */
static spb_status describe(struct spb_reader r, size_t count, struct spb_change_texts *texts,
                           struct spb_error *err)
{
    struct room total = {1, 1, 1};
    struct spb_reader again = r;
    struct spb_change change;

    for (size_t i = 0; i < count; i++) {
        if (!spb_change_read(&r, &change))
            return fail_statement(err);
        struct room room = room_for(&change);
        total.object += room.object;
        total.before += room.before;
        total.after += room.after;
    }
    char *memory = malloc(total.object + total.before + total.after);
    if (memory == NULL)
        return spb_fail_memory(err, "describing changes");
    struct spb_change_texts made = {memory, memory + total.object,
                                    memory + total.object + total.before};
    struct lines at = {made.object, made.before, made.after};
    made.object[0] = made.before[0] = made.after[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        (void)spb_change_read(&again, &change);
        put_change(&at, &change);
        end_line(&at.object, i + 1 == count);
        end_line(&at.before, i + 1 == count);
        end_line(&at.after, i + 1 == count);
    }
    SPB_ASSERT(at.object <= made.before && at.before <= made.after &&
               at.after <= made.after + total.after);
    *texts = made;
    return spb_ok();
}

static spb_status check_range(size_t first, size_t count, size_t changes, struct spb_error *err)
{
    if (first <= changes && count <= changes - first)
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "cannot describe %zu changes from %zu: expected within %zu",
                    count, first, changes);
}

spb_status spb_group_describe(const struct spb_group *group, size_t first, size_t count,
                              struct spb_change_texts *texts, struct spb_error *err)
{
    SPB_TRY(check_range(first, count, group->change_count, err));
    size_t start = first < group->change_count ? group->change_starts[first] : 0;

    return describe(spb_reader_over(group->changes + start, group->changes_used - start), count,
                    texts, err);
}

spb_status spb_changes_describe(const uint8_t *bytes, size_t size, size_t first, size_t count,
                                struct spb_change_texts *texts, struct spb_error *err)
{
    struct spb_reader r;
    struct spb_change skipped;
    uint32_t announced = 0;

    if (!spb_changes_open(bytes, size, &r, &announced))
        return fail_statement(err);
    SPB_TRY(check_range(first, count, announced, err));
    for (size_t i = 0; i < first; i++)
        if (!spb_change_read(&r, &skipped))
            return fail_statement(err);
    return describe(r, count, texts, err);
}

void spb_change_texts_done(struct spb_change_texts *texts)
{
    free(texts->object);
    *texts = (struct spb_change_texts){NULL, NULL, NULL};
}
