/* Compares the model with a volume, and tells which verdicts fit what was seen. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "support/model_inside.h"

static bool differs(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool differs(char *why, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, MODEL_WHY_SIZE, format, args);
    va_end(args);
    return false;
}

/* Finds the last state that equals the one that was read. */
static bool see(struct model_object *object, const struct model_state *state)
{
    for (size_t i = object->count; i-- > 0;) {
        if (model_state_equal(&object->states[i], state)) {
            object->seen = i;
            return true;
        }
    }
    return false;
}

/* The last state of that kind. */
static bool see_kind(struct model_object *object, enum model_kind kind)
{
    for (size_t i = object->count; i-- > 0;) {
        if (object->states[i].kind == kind) {
            object->seen = i;
            return true;
        }
    }
    return false;
}

/* What the model would have had, for messages. */
static const char *expected(const struct model_object *object, char text[160])
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < object->count && used < 150; i++) {
        const struct model_state *state = &object->states[i];

        if (state->kind != MODEL_VALUE)
            used += (size_t)snprintf(text + used, 160 - used, "%s%s", i > 0 ? " or " : "",
                                     state->kind == MODEL_ABSENT ? "absent" : "corrupt");
        else
            used += (size_t)snprintf(text + used, 160 - used, "%sgeneration/class %u, %zu bytes",
                                     i > 0 ? " or " : "",
                                     (unsigned)(state->generation + state->product_class),
                                     state->bytes != NULL ? state->bytes->size : state->len);
    }
    return text;
}

/* ---- Parameters ---------------------------------------------------------------------------- */

static bool compare_present(struct model *model, const struct spb_param *param, char *why)
{
    struct model_object *object = model_find(&model->params, param->id, "");
    struct model_state state = {
        .kind = MODEL_VALUE, .generation = param->generation, .len = param->len};
    char text[160];

    if (object == NULL)
        return differs(why, "param %u is there (slot %u), and nobody put it", param->id,
                       param->slot);
    memcpy(state.value, param->value, param->len);
    if (!see(object, &state))
        return differs(why, "param %u: slot %u, generation %u, %u bytes, \"%.40s\" is none of: %s",
                       param->id, param->slot, param->generation, param->len,
                       (const char *)param->value, expected(object, text));
    return true;
}

/* Of an id that the list of values lacks. */
static bool compare_missing(struct model_object *object, enum spb_code code, char *why)
{
    char text[160];

    if (code == SPB_CORRUPT && see_kind(object, MODEL_CORRUPT))
        return true;
    if (code == SPB_NOT_FOUND && see_kind(object, MODEL_ABSENT))
        return true;
    if (code == SPB_NOT_FOUND && object->may_vanish && see_kind(object, MODEL_CORRUPT))
        return true;
    return differs(why, "param %u is %s, expected %s", object->id, spb_code_name(code),
                   expected(object, text));
}

static bool compare_listed(struct model *model, const struct spb_param *params, size_t count,
                           const struct spb_volume *volume, char *why)
{
    size_t next = 0;

    for (size_t i = 0; i < model->params.count; i++) {
        struct model_object *object = &model->params.items[i];
        struct spb_param found;
        spb_status status = spb_param_find(volume, object->id, &found, NULL, NULL);

        while (next < count && params[next].id < object->id) {
            if (!compare_present(model, &params[next++], why))
                return false;
        }
        if (next == count || params[next].id != object->id) {
            if (!compare_missing(object, status.code, why))
                return false;
            continue;
        }
        if (!spb_is_ok(status) || found.slot != params[next].slot || !found.newest)
            return differs(why, "param %u: list and get disagree (%s)", object->id,
                           spb_code_name(status.code));
        if (!compare_present(model, &params[next++], why))
            return false;
    }
    return next == count || compare_present(model, &params[next], why);
}

static bool compare_params(struct model *model, const struct spb_volume *volume, char *why)
{
    struct spb_param *params = NULL;
    size_t count = 0;
    struct spb_error err;

    if (!spb_is_ok(spb_param_latest(volume, &params, &count, &err)))
        return differs(why, "listing parameters: %.300s", err.text);
    bool same = compare_listed(model, params, count, volume, why);

    free(params);
    return same;
}

/* ---- Events -------------------------------------------------------------------------------- */

/* Is that where the pointer stands after so many of the pending events? */
static bool pointer_fits(const struct model *model, uint32_t pointer, size_t taken)
{
    uint64_t linear = (uint64_t)model->pointer + taken;
    uint32_t ring = model_ring(model);

    if (linear <= UINT32_MAX && !model->pointer_wrapped)
        return pointer == linear;
    return pointer % ring == linear % ring && pointer >= ring && pointer < 3 * ring;
}

static bool compare_event(struct model_event *event, const struct spb_event *found, char *why)
{
    bool same = found->timestamp == event->event.timestamp || event->any_time;

    event->seen_lost = event->may_be_lost && !found->corrupt &&
                       found->code == SPB_EVENT_CODE_LOST && found->payload_len == 4 &&
                       found->severity == SPB_SEVERITY_ERROR &&
                       memcmp(found->payload, "lost", 4) == 0;
    if (event->seen_lost)
        return true;
    if (event->corrupt)
        return found->corrupt || differs(why, "event %u reads, expected corrupt", found->index);
    if (found->corrupt)
        return differs(why, "event %u is corrupt", found->index);
    same = same && found->severity == event->event.severity && found->code == event->event.code &&
           found->payload_len == event->event.payload_len &&
           memcmp(found->payload, event->event.payload, found->payload_len) == 0;
    return same ||
           differs(why, "event %u: code %u, time %u; expected code %u, time %u", found->index,
                   found->code, found->timestamp, event->event.code, event->event.timestamp);
}

static bool compare_live(struct model *model, const struct spb_volume *volume,
                         const struct spb_event *recent, uint32_t live, char *why)
{
    size_t known = model->event_count - (model->pending - model->taken);
    uint32_t pointer = spb_event_pointer(volume);
    struct spb_error err;

    if (known < live)
        return differs(why, "%u live events, the model knows %zu", live, known);
    for (uint32_t i = 0; i < live; i++) {
        struct spb_event found;

        if (!spb_is_ok(spb_event_read(volume, pointer - live + i, &found, &err)))
            return differs(why, "reading event %u: %.300s", pointer - live + i, err.text);
        if (found.index != pointer - live + i || recent[i].index != found.index ||
            recent[i].corrupt != found.corrupt || recent[i].code != found.code)
            return differs(why, "event %u: list and get disagree", pointer - live + i);
        if (!compare_event(&model->events[known - live + i], &found, why))
            return false;
    }
    return true;
}

static bool compare_events(struct model *model, const struct spb_volume *volume, char *why)
{
    uint32_t pointer = spb_event_pointer(volume);
    uint32_t window = model_ring(model) - model_round(model);
    uint32_t live = pointer < window ? pointer : window;
    struct spb_event *recent = NULL;
    size_t found = 0, taken = 0;
    struct spb_error err;

    while (taken <= model->pending && !pointer_fits(model, pointer, taken))
        taken++;
    if (taken > model->pending)
        return differs(why, "event pointer is %u, expected %u and up to %zu more", pointer,
                       model->pointer, model->pending);
    model->taken = taken;
    model->seen_pointer = pointer;
    if (spb_event_oldest(volume) != pointer - live ||
        spb_event_capacity(volume) != model_ring(model) || spb_event_window(volume) != window)
        return differs(why, "oldest live event is %u, expected %u", spb_event_oldest(volume),
                       pointer - live);
    if (!spb_is_ok(spb_event_recent(volume, UINT32_MAX, &recent, &found, &err)))
        return differs(why, "listing events: %.300s", err.text);
    bool same = found == live ? compare_live(model, volume, recent, live, why)
                              : differs(why, "%zu events are listed, expected %u", found, live);

    free(recent);
    return same;
}

/* ---- Products ------------------------------------------------------------------------------ */

/* Reads the product, checks its attributes against its bytes and finds its state. */
static bool compare_data(struct model_object *object, const struct spb_product *product,
                         const uint8_t *data, size_t size, char *why)
{
    struct model_bytes *bytes = model_allocate(sizeof(*bytes) + size);
    struct model_state state = {.kind = MODEL_VALUE,
                                .product_class = product->product_class,
                                .priority = product->priority,
                                .bytes = bytes};
    char text[160];

    bytes->size = size;
    if (size > 0)
        memcpy(bytes->data, data, size);
    bool same = see(object, &state);

    free(bytes);
    if (!same)
        return differs(why, "product %s: entry %u, class %u, priority %u, %zu bytes is none of: %s",
                       object->name, product->entry, product->product_class, product->priority,
                       size, expected(object, text));
    if (product->crc != spb_crc32c(0, data, size) || product->length != size)
        return differs(why, "product %s: its entry says %llu bytes, %zu were read", object->name,
                       (unsigned long long)product->length, size);
    return true;
}

static bool compare_product(struct model_object *object, struct spb_volume *volume, char *why)
{
    size_t name_len = strlen(object->name);
    struct spb_product product;
    uint8_t *data = NULL;
    size_t size = 0;
    struct spb_error err;
    char text[160];
    spb_status status = spb_volume_get_product(volume, object->name, name_len, &data, &size, &err);

    if (status.code == SPB_NOT_FOUND)
        return see_kind(object, MODEL_ABSENT) || differs(why, "product %s is absent, expected %s",
                                                         object->name, expected(object, text));
    if (status.code == SPB_CORRUPT)
        return see_kind(object, MODEL_CORRUPT) ||
               differs(why, "product %s: %.300s", object->name, err.text);
    if (!spb_is_ok(status))
        return differs(why, "product %s: %.300s", object->name, err.text);
    bool same =
        spb_is_ok(spb_product_find(volume, object->name, name_len, &product, &err))
            ? compare_data(object, &product, data, size, why)
            : differs(why, "product %s reads and is not found: %.300s", object->name, err.text);

    free(data);
    return same;
}

static bool overlap(const struct spb_product *a, const struct spb_product *b)
{
    return a->block_count > 0 && b->block_count > 0 &&
           (uint64_t)a->block_offset < (uint64_t)b->block_offset + b->block_count &&
           (uint64_t)b->block_offset < (uint64_t)a->block_offset + a->block_count;
}

/* Each entry has a name that the model knows, once, and blocks of its own. */
static bool compare_entries(struct model *model, const struct spb_volume *volume,
                            struct spb_product *entries, size_t count, char *why)
{
    bool writable = spb_is_ok(spb_volume_is_writable(volume, NULL));

    for (size_t i = 0; i < count; i++) {
        const struct model_object *object = model_find(&model->products, 0, entries[i].name);

        if (object == NULL)
            return differs(why, "catalog entry %u is of product %s, and nobody put it",
                           entries[i].entry, entries[i].name);
        for (size_t k = 0; k < i; k++) {
            if (writable && !object->duplicates && strcmp(entries[k].name, object->name) == 0)
                return differs(why, "product %s has entries %u and %u", object->name,
                               entries[k].entry, entries[i].entry);
            if (!model->overlaps && overlap(&entries[i], &entries[k]))
                return differs(why, "entries %u and %u overlap", entries[k].entry,
                               entries[i].entry);
        }
    }
    return true;
}

static bool compare_products(struct model *model, struct spb_volume *volume, char *why)
{
    uint32_t room = spb_product_entries(volume);
    struct spb_product *entries = model_allocate(room * sizeof(*entries));
    size_t count = 0;
    struct spb_error err;
    bool same = true;

    for (uint32_t i = 0; same && i < room; i++) {
        if (!spb_is_ok(spb_product_entry(volume, i, &entries[count], &err)))
            same = differs(why, "catalog entry %u: %.300s", i, err.text);
        else if (entries[count].state != SPB_PRODUCT_FREE &&
                 entries[count].state != SPB_PRODUCT_INVALID)
            count++;
    }
    same = same && compare_entries(model, volume, entries, count, why);
    free(entries);
    for (size_t i = 0; same && i < model->products.count; i++)
        same = compare_product(&model->products.items[i], volume, why);
    return same;
}

bool model_compare(struct model *model, struct spb_volume *volume, char why[MODEL_WHY_SIZE])
{
    why[0] = '\0';
    return compare_params(model, volume, why) && compare_events(model, volume, why) &&
           compare_products(model, volume, why);
}

/* ---- Verdicts ------------------------------------------------------------------------------ */

size_t model_changes(const struct model *model)
{
    return model->change_count;
}

bool model_is_repair(const struct model *model, size_t i)
{
    SPB_ASSERT(i < model->change_count);
    return model->changes[i].kind == MODEL_CHANGE_REPAIR;
}

static unsigned bit(enum spb_verdict verdict)
{
    return 1u << (unsigned)verdict;
}

static unsigned verdicts_of_events(const struct model *model, const struct model_change *change)
{
    if (model->taken <= change->first)
        return bit(SPB_VERDICT_BEFORE);
    return bit(model->taken >= change->end ? SPB_VERDICT_AFTER : SPB_VERDICT_IN_PART);
}

/* Objects: all in the state after, all in the one before, or some of each. */
static unsigned verdicts_of_objects(struct model *model, const struct model_change *change)
{
    struct model_objects *objects =
        change->kind == MODEL_CHANGE_PARAMS ? &model->params : &model->products;
    bool may_be_before = true, may_be_after = true, other = false, twice = false;

    for (size_t i = 0; i < change->count; i++) {
        size_t from = change->items[i].from;
        struct model_object *object =
            model_find(objects, change->items[i].id, change->items[i].name);

        SPB_ASSERT(object != NULL && from + 1 < object->count);
        const struct model_state *seen = &object->states[object->seen];
        bool before = model_state_equal(seen, &object->states[from]);
        bool after = model_state_equal(seen, &object->states[from + 1]);

        other = other || (!before && !after);
        twice = twice || object->duplicates;
        may_be_before = may_be_before && (before || object->seen < from);
        may_be_after = may_be_after && (after || object->seen > from + 1);
    }
    unsigned fits =
        (may_be_before ? bit(SPB_VERDICT_BEFORE) : 0) | (may_be_after ? bit(SPB_VERDICT_AFTER) : 0);

    /* Of a name that stands twice, the entry that does not count may still be there. */
    if (fits == 0 || (may_be_before && change->loose) || twice)
        fits |= bit(SPB_VERDICT_IN_PART);
    /* Another change of the same group led on from there. */
    return other ? fits | bit(SPB_VERDICT_UNKNOWN) : fits;
}

unsigned model_verdicts(const struct model *model, size_t i)
{
    struct model copy = *model;

    SPB_ASSERT(i < model->change_count);
    switch (model->changes[i].kind) {
    case MODEL_CHANGE_EVENTS:
        return verdicts_of_events(model, &model->changes[i]);
    case MODEL_CHANGE_PARAMS:
    case MODEL_CHANGE_PRODUCT:
        return verdicts_of_objects(&copy, &model->changes[i]);
    case MODEL_CHANGE_REPAIR:
        break;
    }
    return bit(SPB_VERDICT_BEFORE) | bit(SPB_VERDICT_AFTER) | bit(SPB_VERDICT_IN_PART);
}
