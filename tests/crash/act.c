/* One run of a scenario: each change is told to the model and made by the volume. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "crash/lab.h"
#include "support/model_inside.h"

struct act act_begin(struct lab *lab, struct medium *medium, bool one_shot)
{
    struct act act = {.lab = lab, .medium = medium, .one_shot = one_shot};

    act.volume = lab_open(lab, medium, true);
    act.model = model_clone(lab->model);
    medium_mark(medium);
    return act;
}

void act_end(struct act *act, bool close)
{
    spb_group_free(act->group);
    act->group = NULL;
    for (size_t i = 0; i < act->staged_count; i++) {
        spb_reservation_free(act->staged[i].reservation);
        free(act->staged[i].bytes);
    }
    act->staged_count = 0;
    spb_report_done(&act->report);
    memset(&act->report, 0, sizeof(act->report));
    if (!close)
        return;
    spb_volume_close(act->volume);
    model_free(act->model);
    act->volume = NULL;
    act->model = NULL;
}

/* Changes that the group has decided since the last call are this one's. */
static void note_call(const struct act *act)
{
    struct lab *lab = act->lab;
    size_t count = spb_group_change_count(act->group), first = 0;

    if (lab->call_count > 0)
        first = lab->calls[lab->call_count - 1].first + lab->calls[lab->call_count - 1].count;
    CHECK(lab, count > first, "a decision that succeeded stated no change");
    SPB_ASSERT(lab->call_count < LAB_CALLS);
    lab->calls[lab->call_count++] = (struct lab_call){.first = first, .count = count - first};
}

/* Tells what was asked for and what came of it. */
static spb_status told(const struct act *act, spb_status status, const char *what, uint64_t object,
                       uint64_t detail)
{
    lab_trace(act->lab, "  %s%s %llu (%llu): %s", act->one_shot ? "one-shot " : "", what,
              (unsigned long long)object, (unsigned long long)detail, spb_code_name(status.code));
    if (act->group != NULL && spb_is_ok(status))
        note_call(act);
    return status;
}

/* ---- Parameters ---------------------------------------------------------------------------- */

/* By what is published, or by what this group has decided already. */
static uint16_t next_generation(const struct act *act, uint32_t id)
{
    const struct model_object *object = model_find(&act->model->params, id, "");

    if (object == NULL || object->count == 1)
        return model_next_generation(act->volume, id);
    uint16_t last = object->states[object->count - 1].generation;

    return last == UINT16_MAX ? 1 : (uint16_t)(last + 1);
}

spb_status act_put(struct act *act, uint32_t id, const char *value)
{
    uint16_t expected = next_generation(act, id), generation = 0;
    struct model_item item = {id, expected, value, strlen(value)};
    struct spb_param_put put = {id, value, strlen(value), SPB_ANY_GENERATION};

    bool loose = model_corrupt_wrap(act->volume, id);

    if (act->one_shot) {
        model_put(act->model, &item, 1);
        SPB_TRY(told(act, spb_volume_put_param(act->volume, &put, &generation, &act->err), "put",
                     id, expected));
    } else {
        SPB_TRY(told(act, spb_group_put_param(act->group, &put, &generation, &act->err), "put", id,
                     expected));
        if (act->lab->lenient)
            item.generation = expected = generation;
        model_put(act->model, &item, 1);
        if (loose)
            model_mark_loose(act->model);
    }
    CHECK(act->lab, generation == expected, "put of param %u gave generation %u, expected %u", id,
          generation, expected);
    return spb_ok();
}

/* The generations are as expected; where the group may see other slots, they are as given. */
static void check_generations(const struct act *act, struct model_item *items,
                              const uint16_t *generations, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (act->lab->lenient)
            items[i].generation = generations[i];
        CHECK(act->lab, generations[i] == items[i].generation,
              "batch gave param %u generation %u, expected %u", items[i].id, generations[i],
              items[i].generation);
    }
}

spb_status act_put_batch(struct act *act, uint32_t first_id, uint32_t count, const char *value)
{
    struct model_item *items = model_allocate(count * sizeof(*items));
    struct spb_param_put *puts = model_allocate(count * sizeof(*puts));
    uint16_t *generations = model_allocate(count * sizeof(*generations));

    for (uint32_t i = 0; i < count; i++) {
        items[i] = (struct model_item){first_id + i, next_generation(act, first_id + i), value,
                                       strlen(value)};
        puts[i] = (struct spb_param_put){first_id + i, value, strlen(value), SPB_ANY_GENERATION};
    }
    spb_status status = spb_group_put_params(act->group, puts, count, generations, &act->err);

    if (spb_is_ok(status)) {
        check_generations(act, items, generations, count);
        model_put(act->model, items, count);
    }
    free(items);
    free(puts);
    free(generations);
    return told(act, status, "batch from", first_id, count);
}

spb_status act_write_param(struct act *act, uint32_t slot, uint32_t id, uint16_t generation,
                           const char *value)
{
    struct model_item item = {id, generation, value, strlen(value)};

    if (act->one_shot) {
        model_write_param(act->model, &item);
        return told(act,
                    spb_volume_write_param(act->volume, slot, id, generation, value, strlen(value),
                                           &act->err),
                    "write", id, generation);
    }
    SPB_TRY(told(
        act,
        spb_group_write_param(act->group, slot, id, generation, value, strlen(value), &act->err),
        "write", id, generation));
    act->lab->calls[act->lab->call_count - 1].slot = true;
    model_write_param(act->model, &item);
    return spb_ok();
}

spb_status act_delete(struct act *act, uint32_t id)
{
    if (act->one_shot) {
        model_delete_param(act->model, id);
        return told(act, spb_volume_delete_param(act->volume, id, SPB_ANY_GENERATION, &act->err),
                    "delete", id, 0);
    }
    SPB_TRY(told(act, spb_group_delete_param(act->group, id, SPB_ANY_GENERATION, &act->err),
                 "delete", id, 0));
    model_delete_param(act->model, id);
    return spb_ok();
}

/* ---- Events -------------------------------------------------------------------------------- */

spb_status act_append(struct act *act, uint32_t count)
{
    struct spb_event *events = model_allocate(count * sizeof(*events));
    uint32_t pointer = act->model->pointer + (uint32_t)act->model->pending, first = 0;
    spb_status status;

    for (uint32_t i = 0; i < count; i++)
        events[i] = lab_event(act->lab);
    if (act->one_shot) {
        model_append(act->model, events, count);
        status = spb_volume_append_events(act->volume, events, count, &first, &act->err);
    } else {
        status = spb_group_append_events(act->group, events, count, &first, &act->err);
        if (spb_is_ok(status))
            model_append(act->model, events, count);
    }
    free(events);
    told(act, status, "append at", pointer, count);
    CHECK(act->lab,
          !spb_is_ok(status) || act->model->pointer_wrapped || pointer > UINT32_MAX - count ||
              first == pointer,
          "the first event appended is %u, expected %u", first, pointer);
    return status;
}

/* ---- Products ------------------------------------------------------------------------------ */

static uint8_t *fill_bytes(struct lab *lab, enum fill fill, size_t size)
{
    uint8_t *bytes = model_allocate(size);

    if (fill == FILL_AMBIGUOUS)
        memset(bytes, 0xFF, size < 4 ? size : 4);
    else if (fill != FILL_ZEROS)
        random_fill(&lab->random, bytes, size);
    if (size > 0 && fill == FILL_ENDS_80)
        bytes[size - 1] = 0x80;
    return bytes;
}

static spb_status write_staged(struct act *act, struct act_staged *staged)
{
    struct spb_product_writer *writer = NULL;
    spb_status status = spb_ok();

    SPB_TRY(spb_reservation_new(act->volume, staged->size, &staged->reservation, &act->err));
    SPB_TRY(
        spb_product_writer_new(act->volume, staged->reservation, staged->size, &writer, &act->err));
    /* In pieces that fit no boundary. */
    for (size_t done = 0, piece; done < staged->size && spb_is_ok(status); done += piece) {
        piece = staged->size - done < 700 ? staged->size - done : 700;
        status = spb_product_writer_write(writer, staged->bytes + done, piece, &act->err);
        CHECK(act->lab, !spb_is_ok(status) || spb_product_writer_offset(writer) == done + piece,
              "the writer is not at byte %zu", done + piece);
    }
    if (spb_is_ok(status))
        status = spb_product_writer_finish(writer, &staged->data, &act->err);
    spb_product_writer_free(writer);
    return status;
}

spb_status act_stage(struct act *act, const char *name, uint16_t product_class, enum fill fill,
                     size_t size)
{
    struct act_staged *staged = &act->staged[act->staged_count];

    SPB_ASSERT(act->staged_count < ACT_STAGED);
    memset(staged, 0, sizeof(*staged));
    staged->name = name;
    staged->product_class = product_class;
    staged->size = size;
    staged->bytes = fill_bytes(act->lab, fill, size);
    act->staged_count++;
    return act->one_shot ? spb_ok() : write_staged(act, staged);
}

spb_status act_publish(struct act *act, size_t nth, bool replace)
{
    const struct act_staged *staged = &act->staged[nth];
    struct spb_product_attributes attributes = {staged->name, strlen(staged->name),
                                                staged->product_class, (uint8_t)(nth + 9)};
    struct spb_product product;

    SPB_ASSERT(nth < act->staged_count);
    if (act->one_shot) {
        model_put_product(act->model, staged->name, staged->product_class, attributes.priority,
                          staged->bytes, staged->size);
        return told(act,
                    spb_volume_put_product(act->volume, &attributes, staged->bytes, staged->size,
                                           replace, &product, &act->err),
                    staged->name, nth, staged->size);
    }
    SPB_TRY(told(act,
                 spb_group_publish_product(act->group, staged->reservation, &attributes,
                                           &staged->data, replace, &product, &act->err),
                 staged->name, nth, staged->size));
    model_put_product(act->model, staged->name, staged->product_class, attributes.priority,
                      staged->bytes, staged->size);
    CHECK(act->lab, product.length == staged->size, "published %llu bytes, expected %zu",
          (unsigned long long)product.length, staged->size);
    return spb_ok();
}

spb_status act_delete_product(struct act *act, const char *name)
{
    if (act->one_shot) {
        model_delete_product(act->model, name);
        return told(act, spb_volume_delete_product(act->volume, name, strlen(name), &act->err),
                    name, 0, 0);
    }
    SPB_TRY(
        told(act, spb_group_delete_product(act->group, name, strlen(name), &act->err), name, 0, 0));
    model_delete_product(act->model, name);
    return spb_ok();
}

spb_status act_defrag(struct act *act)
{
    bool moved = false;
    struct spb_product product;

    SPB_TRY(spb_volume_defrag_step(act->volume, &moved, &product, &act->err));
    CHECK(act->lab, moved, "defragment found nothing to move");
    return spb_ok();
}

spb_status act_check(struct act *act)
{
    return act->one_shot ? spb_ok()
                         : spb_volume_check(act->volume, NULL, NULL, &act->report, &act->err);
}

spb_status act_repair(struct act *act)
{
    if (act->one_shot) {
        model_repair(act->model);
        return told(act, spb_volume_repair(act->volume, NULL, NULL, &act->report, &act->err),
                    "repair", 0, 0);
    }
    SPB_TRY(told(act, spb_group_repair(act->group, &act->report, &act->err), "repair", 0, 0));
    model_repair(act->model);
    return spb_ok();
}

/* ---- Running ------------------------------------------------------------------------------- */

static bool same_counts(struct medium_counts a, struct medium_counts b)
{
    return a.reads == b.reads && a.medium_reads == b.medium_reads && a.writes == b.writes &&
           a.flushes == b.flushes;
}

void lab_drop_statement(struct lab *lab)
{
    free(lab->statement);
    lab->statement = NULL;
    lab->statement_size = 0;
    lab->call_count = 0;
}

void act_save_statement(struct act *act)
{
    struct lab *lab = act->lab;
    FILE *file = tmpfile();
    uint8_t *bytes = NULL;
    size_t size = 0;

    CHECK(lab, spb_is_ok(spb_group_encode(act->group, &bytes, &size, &act->err)), "encode: %s",
          act->err.text);
    CHECK(lab, file != NULL && fwrite(bytes, 1, size, file) == size && fflush(file) == 0,
          "saving the statement");
    free(bytes);
    rewind(file);
    free(lab->statement);
    lab->statement = model_allocate(size);
    lab->statement_size = fread(lab->statement, 1, size, file);
    CHECK(lab, lab->statement_size == size, "reading the statement back");
    fclose(file);
}

static spb_status decide(struct act *act, const struct scenario *scenario)
{
    struct medium_counts before = medium_counts(act->medium);

    act->lab->call_count = 0;
    SPB_TRY(spb_group_new(act->volume, &act->group, &act->err));
    CHECK(act->lab, spb_group_is_empty(act->group), "a new group is not empty");
    SPB_TRY(scenario->decide(act));
    CHECK(act->lab, !spb_group_is_empty(act->group), "a group with changes is empty");
    act_save_statement(act);
    CHECK(act->lab, same_counts(before, medium_counts(act->medium)), "deciding did I/O");
    return spb_ok();
}

spb_status act_run(struct act *act, const struct scenario *scenario, bool only_decide)
{
    act->lab->random = act->lab->seed;
    if (scenario->stage != NULL)
        SPB_TRY(scenario->stage(act));
    if (act->one_shot)
        return scenario->decide(act);
    SPB_TRY(decide(act, scenario));
    if (only_decide)
        return spb_ok();

    struct medium_counts before = medium_counts(act->medium);

    SPB_TRY(spb_group_carry_out(act->group, &act->err));
    struct medium_counts after = medium_counts(act->medium);

    CHECK(act->lab, after.flushes - before.flushes == spb_group_rounds(act->group),
          "%llu flushes, announced %u", (unsigned long long)(after.flushes - before.flushes),
          spb_group_rounds(act->group));
    spb_group_make_visible(act->group);
    CHECK(act->lab, same_counts(after, medium_counts(act->medium)), "making visible did I/O");
    return spb_ok();
}
