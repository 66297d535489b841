/* The model of a volume: its objects and their possible states. Comparing: model_compare.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "support/model_inside.h"

void *model_allocate(size_t n)
{
    void *memory = calloc(1, n == 0 ? 1 : n);

    SPB_ASSERT(memory != NULL);
    return memory;
}

uint32_t model_round(const struct model *model)
{
    return model->sector_size / 76;
}

uint32_t model_ring(const struct model *model)
{
    return 15 * model_round(model);
}

struct model *model_new(uint32_t sector_size)
{
    struct model *model = model_allocate(sizeof(*model));

    model->sector_size = sector_size;
    return model;
}

/* ---- Objects and their states -------------------------------------------------------------- */

static void bytes_release(struct model_bytes *bytes)
{
    if (bytes != NULL && --bytes->users == 0)
        free(bytes);
}

static int object_order(const struct model_object *object, uint32_t id, const char *name)
{
    if (object->id != id)
        return object->id < id ? -1 : 1;
    return strcmp(object->name, name);
}

/* Index of the first object that is not below. */
static size_t lower_bound(const struct model_objects *objects, uint32_t id, const char *name)
{
    size_t low = 0, high = objects->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (object_order(&objects->items[middle], id, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct model_object *model_find(struct model_objects *objects, uint32_t id, const char *name)
{
    size_t at = lower_bound(objects, id, name);

    if (at == objects->count || object_order(&objects->items[at], id, name) != 0)
        return NULL;
    return &objects->items[at];
}

/* The object of that id or name, added as absent where the model has none. */
static struct model_object *find_or_add(struct model_objects *objects, uint32_t id,
                                        const char *name)
{
    struct model_object *found = model_find(objects, id, name);
    size_t at = lower_bound(objects, id, name);

    if (found != NULL)
        return found;
    if (objects->count == objects->room) {
        objects->room = objects->room == 0 ? 16 : objects->room * 2;
        objects->items = realloc(objects->items, objects->room * sizeof(*objects->items));
        SPB_ASSERT(objects->items != NULL);
    }
    memmove(&objects->items[at + 1], &objects->items[at],
            (objects->count - at) * sizeof(*objects->items));
    objects->count++;
    found = &objects->items[at];
    memset(found, 0, sizeof(*found));
    found->id = id;
    snprintf(found->name, sizeof(found->name), "%s", name);
    found->count = 1;
    found->states = model_allocate(sizeof(*found->states));
    return found;
}

void model_push(struct model_object *object, const struct model_state *state)
{
    object->states = realloc(object->states, (object->count + 1) * sizeof(*object->states));
    SPB_ASSERT(object->states != NULL);
    object->states[object->count++] = *state;
    if (state->bytes != NULL)
        state->bytes->users++;
}

void model_keep(struct model_object *object, size_t index)
{
    struct model_state kept = object->states[index];

    SPB_ASSERT(index < object->count);
    for (size_t i = 0; i < object->count; i++) {
        if (i != index)
            bytes_release(object->states[i].bytes);
    }
    object->states[0] = kept;
    object->count = 1;
    object->seen = 0;
}

static void set_state(struct model_object *object, const struct model_state *state)
{
    model_push(object, state);
    model_keep(object, object->count - 1);
}

bool model_state_equal(const struct model_state *a, const struct model_state *b)
{
    if (a->kind != b->kind || a->generation != b->generation || a->len != b->len ||
        a->product_class != b->product_class || a->priority != b->priority ||
        memcmp(a->value, b->value, a->len) != 0 || (a->bytes == NULL) != (b->bytes == NULL))
        return false;
    return a->bytes == NULL || (a->bytes->size == b->bytes->size &&
                                memcmp(a->bytes->data, b->bytes->data, a->bytes->size) == 0);
}

static struct model_state param_state(uint16_t generation, const void *value, size_t len)
{
    struct model_state state = {.kind = MODEL_VALUE, .generation = generation};

    SPB_ASSERT(len <= SPB_PARAM_VALUE_MAX);
    state.len = (uint16_t)len;
    if (len > 0)
        memcpy(state.value, value, len);
    return state;
}

/* The state's bytes are new and have no user yet. */
static struct model_state product_state(uint16_t product_class, uint8_t priority, const void *data,
                                        size_t size)
{
    struct model_state state = {
        .kind = MODEL_CORRUPT, .product_class = product_class, .priority = priority};

    if (data != NULL) {
        state.kind = MODEL_VALUE;
        state.bytes = model_allocate(sizeof(*state.bytes) + size);
        state.bytes->size = size;
        memcpy(state.bytes->data, data, size);
    }
    return state;
}

/* ---- Building ------------------------------------------------------------------------------ */

void model_set_param(struct model *model, uint32_t id, uint16_t generation, const void *value,
                     size_t len)
{
    struct model_state state = param_state(generation, value, len);

    set_state(find_or_add(&model->params, id, ""), &state);
}

void model_set_param_corrupt(struct model *model, uint32_t id)
{
    struct model_state state = {.kind = MODEL_CORRUPT};
    struct model_object *object = find_or_add(&model->params, id, "");

    set_state(object, &state);
    object->may_vanish = true;
}

static struct model_event *event_room(struct model *model)
{
    if (model->event_count == model->event_room) {
        model->event_room = model->event_room == 0 ? 64 : model->event_room * 2;
        model->events = realloc(model->events, model->event_room * sizeof(*model->events));
        SPB_ASSERT(model->events != NULL);
    }
    struct model_event *event = &model->events[model->event_count++];

    memset(event, 0, sizeof(*event));
    return event;
}

void model_add_event(struct model *model, const struct spb_event *event)
{
    struct model_event *added = event_room(model);

    if (event != NULL)
        added->event = *event;
    else
        added->corrupt = true;
}

void model_set_pointer(struct model *model, uint32_t pointer)
{
    model->pointer = model->seen_pointer = pointer;
}

void model_set_product(struct model *model, const char *name, uint16_t product_class,
                       uint8_t priority, const void *data, size_t size)
{
    struct model_state state = product_state(product_class, priority, data, size);

    set_state(find_or_add(&model->products, 0, name), &state);
}

void model_allow_duplicate(struct model *model, const char *name)
{
    find_or_add(&model->products, 0, name)->duplicates = true;
}

void model_allow_overlap(struct model *model)
{
    model->overlaps = true;
}

/* ---- Changes ------------------------------------------------------------------------------- */

static struct model_change *change_add(struct model *model, enum model_change_kind kind,
                                       size_t count)
{
    if (model->change_count == model->change_room) {
        model->change_room = model->change_room == 0 ? 16 : model->change_room * 2;
        model->changes = realloc(model->changes, model->change_room * sizeof(*model->changes));
        SPB_ASSERT(model->changes != NULL);
    }
    struct model_change *change = &model->changes[model->change_count++];

    memset(change, 0, sizeof(*change));
    change->kind = kind;
    change->count = count;
    change->items = model_allocate(count * sizeof(*change->items));
    return change;
}

void model_clear_changes(struct model *model)
{
    for (size_t i = 0; i < model->change_count; i++)
        free(model->changes[i].items);
    model->change_count = 0;
}

static void step(struct model_change *change, size_t item, struct model_object *object,
                 const struct model_state *state)
{
    const struct model_state *last = &object->states[object->count - 1];

    change->items[item].id = object->id;
    memcpy(change->items[item].name, object->name, sizeof(object->name));
    change->items[item].from = object->count - 1;
    /* Generation 65535 is followed by 1, and a delete by nothing: older entries go first. */
    if (object->name[0] == '\0' &&
        (state->kind == MODEL_ABSENT || last->generation > state->generation))
        change->loose = true;
    model_push(object, state);
}

void model_put(struct model *model, const struct model_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct model_state state = param_state(items[i].generation, items[i].value, items[i].len);

        step(change_add(model, MODEL_CHANGE_PARAMS, 1), 0,
             find_or_add(&model->params, items[i].id, ""), &state);
    }
}

void model_write_param(struct model *model, const struct model_item *item)
{
    struct model_object *object = find_or_add(&model->params, item->id, "");
    struct model_state last = object->states[object->count - 1];

    if (last.kind != MODEL_VALUE || last.generation < item->generation)
        model_put(model, item, 1);
    else
        step(change_add(model, MODEL_CHANGE_PARAMS, 1), 0, object, &last);
}

void model_delete_param(struct model *model, uint32_t id)
{
    struct model_state state = {.kind = MODEL_ABSENT};

    step(change_add(model, MODEL_CHANGE_PARAMS, 1), 0, find_or_add(&model->params, id, ""), &state);
}

void model_append(struct model *model, const struct spb_event *events, size_t count)
{
    struct model_change *change = change_add(model, MODEL_CHANGE_EVENTS, 0);

    change->first = model->pending;
    for (size_t i = 0; i < count; i++)
        event_room(model)->event = events[i];
    model->pending += count;
    change->end = model->pending;
}

void model_put_product(struct model *model, const char *name, uint16_t product_class,
                       uint8_t priority, const void *data, size_t size)
{
    struct model_state state = product_state(product_class, priority, data, size);

    step(change_add(model, MODEL_CHANGE_PRODUCT, 1), 0, find_or_add(&model->products, 0, name),
         &state);
}

void model_delete_product(struct model *model, const char *name)
{
    struct model_state state = {.kind = MODEL_ABSENT};

    step(change_add(model, MODEL_CHANGE_PRODUCT, 1), 0, find_or_add(&model->products, 0, name),
         &state);
}

static void repair_objects(struct model_objects *objects)
{
    struct model_state absent = {.kind = MODEL_ABSENT};

    for (size_t i = 0; i < objects->count; i++) {
        struct model_object *object = &objects->items[i];

        if (object->states[object->count - 1].kind == MODEL_CORRUPT)
            model_push(object, &absent);
    }
}

void model_repair(struct model *model)
{
    change_add(model, MODEL_CHANGE_REPAIR, 0);
    repair_objects(&model->params);
    repair_objects(&model->products);
    for (size_t i = 0; i < model->event_count; i++)
        model->events[i].may_be_lost = model->events[i].corrupt;
}

void model_mark_loose(struct model *model)
{
    SPB_ASSERT(model->change_count > 0);
    model->changes[model->change_count - 1].loose = true;
}

/* What the slots that name an id show. */
struct shown {
    uint16_t valid, corrupt; /* highest generations; a corrupt 65535 apart */
    bool corrupt_wrap;
};

static struct shown shown_of(const struct spb_volume *volume, uint32_t id)
{
    struct spb_param *params = NULL;
    size_t count = 0;
    struct shown shown = {0};

    if (!spb_is_ok(spb_param_history(volume, id, &params, &count, NULL)))
        return shown;
    for (size_t i = 0; i < count; i++) {
        bool valid = params[i].state == SPB_PARAM_VALID;
        uint16_t *highest = valid ? &shown.valid : &shown.corrupt;

        if (!valid && params[i].generation == UINT16_MAX)
            shown.corrupt_wrap = true;
        else if (params[i].generation > *highest)
            *highest = params[i].generation;
    }
    free(params);
    return shown;
}

uint16_t model_next_generation(const struct spb_volume *volume, uint32_t id)
{
    struct shown shown = shown_of(volume, id);

    if (shown.valid == UINT16_MAX)
        return 1;
    return (uint16_t)((shown.corrupt > shown.valid ? shown.corrupt : shown.valid) + 1);
}

bool model_corrupt_wrap(const struct spb_volume *volume, uint32_t id)
{
    return shown_of(volume, id).corrupt_wrap;
}

/* ---- Settling ------------------------------------------------------------------------------ */

/* Drops events that are no longer within any live window. */
static void trim_events(struct model *model)
{
    size_t keep = 2 * (size_t)model_ring(model);

    if (model->event_count <= 2 * keep)
        return;
    memmove(model->events, model->events + model->event_count - keep,
            keep * sizeof(*model->events));
    model->event_count = keep;
}

static void keep_events(struct model *model, size_t taken, bool repaired)
{
    model->event_count -= model->pending - taken;
    model->pending = model->taken = 0;
    for (size_t i = 0; i < model->event_count; i++) {
        struct model_event *event = &model->events[i];

        if (event->may_be_lost && repaired) {
            event->corrupt = event->may_be_lost = false;
            event->any_time = true;
            event->event = (struct spb_event){.severity = SPB_SEVERITY_ERROR,
                                              .code = SPB_EVENT_CODE_LOST,
                                              .payload_len = 4,
                                              .payload = "lost"};
        } else {
            event->may_be_lost = false;
        }
    }
    trim_events(model);
    model_clear_changes(model);
}

/* Where the pointer stands after so many of the pending events. */
static uint32_t pointer_after(const struct model *model, size_t taken)
{
    uint64_t pointer = (uint64_t)model->pointer + taken;

    return pointer <= UINT32_MAX ? (uint32_t)pointer
                                 : model_ring(model) + (uint32_t)(pointer % model_ring(model));
}

/* Which of an object's states to keep. */
enum which { FIRST, LAST, SEEN };

static void keep_objects(struct model_objects *objects, enum which which)
{
    for (size_t i = 0; i < objects->count; i++) {
        struct model_object *object = &objects->items[i];

        model_keep(object, which == FIRST ? 0 : which == LAST ? object->count - 1 : object->seen);
    }
}

void model_settle(struct model *model)
{
    keep_objects(&model->params, LAST);
    keep_objects(&model->products, LAST);
    if ((uint64_t)model->pointer + model->pending > UINT32_MAX)
        model->pointer_wrapped = true;
    model->pointer = pointer_after(model, model->pending);
    keep_events(model, model->pending, true);
}

void model_drop(struct model *model)
{
    keep_objects(&model->params, FIRST);
    keep_objects(&model->products, FIRST);
    keep_events(model, 0, false);
}

void model_adopt(struct model *model)
{
    keep_objects(&model->params, SEEN);
    keep_objects(&model->products, SEEN);
    model->pointer = model->seen_pointer;
    for (size_t i = 0; i < model->event_count; i++) {
        if (!model->events[i].seen_lost)
            model->events[i].may_be_lost = false;
    }
    model->pointer_wrapped = false;
    keep_events(model, model->taken, true);
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void clone_objects(struct model_objects *to, const struct model_objects *from)
{
    to->count = to->room = from->count;
    to->items = model_allocate(from->count * sizeof(*to->items));
    for (size_t i = 0; i < from->count; i++) {
        const struct model_object *object = &from->items[i];

        to->items[i] = *object;
        to->items[i].states = model_allocate(object->count * sizeof(*object->states));
        memcpy(to->items[i].states, object->states, object->count * sizeof(*object->states));
        for (size_t k = 0; k < object->count; k++) {
            if (object->states[k].bytes != NULL)
                object->states[k].bytes->users++;
        }
    }
}

struct model *model_clone(const struct model *model)
{
    struct model *clone = model_allocate(sizeof(*clone));

    *clone = *model;
    clone_objects(&clone->params, &model->params);
    clone_objects(&clone->products, &model->products);
    clone->event_room = model->event_count;
    clone->events = model_allocate(model->event_count * sizeof(*clone->events));
    if (model->event_count > 0)
        memcpy(clone->events, model->events, model->event_count * sizeof(*clone->events));
    clone->change_room = model->change_count;
    clone->changes = model_allocate(model->change_count * sizeof(*clone->changes));
    for (size_t i = 0; i < model->change_count; i++) {
        size_t size = model->changes[i].count * sizeof(*model->changes[i].items);

        clone->changes[i] = model->changes[i];
        clone->changes[i].items = model_allocate(size);
        memcpy(clone->changes[i].items, model->changes[i].items, size);
    }
    return clone;
}

static void free_objects(struct model_objects *objects)
{
    for (size_t i = 0; i < objects->count; i++) {
        for (size_t k = 0; k < objects->items[i].count; k++)
            bytes_release(objects->items[i].states[k].bytes);
        free(objects->items[i].states);
    }
    free(objects->items);
}

void model_free(struct model *model)
{
    if (model == NULL)
        return;
    free_objects(&model->params);
    free_objects(&model->products);
    model_clear_changes(model);
    free(model->changes);
    free(model->events);
    free(model);
}

const char *model_product_name(const struct model *model, size_t i, bool *present)
{
    if (i >= model->products.count)
        return NULL;
    *present = model->products.items[i].states[0].kind != MODEL_ABSENT;
    return model->products.items[i].name;
}

bool model_param_id(const struct model *model, size_t i, uint32_t *id, bool *present)
{
    if (i >= model->params.count)
        return false;
    *id = model->params.items[i].id;
    *present = model->params.items[i].states[0].kind == MODEL_VALUE;
    return true;
}
