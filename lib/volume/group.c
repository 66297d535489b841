/*
 * A group of changes: the edits, rounds and statements that deciding collects, and the swap that
 * makes them visible. Deciding itself is in *_change.c, carrying out in carry.c. The actor's
 * thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "volume/change.h"
#include "volume/state.h"

/* Grows an array to hold `need` more items behind `used`. */
static void *grown(void *items, size_t used, size_t *room, size_t need, size_t item_size)
{
    if (items != NULL && need <= *room - used)
        return items;
    size_t wanted = (used + need) * 2;
    void *bigger = realloc(items, wanted * item_size);
    if (bigger != NULL)
        *room = wanted;
    return bigger;
}

spb_status spb_group_new(struct spb_volume *volume, struct spb_group **group, struct spb_error *err)
{
    SPB_ASSERT(volume->group == NULL);
    SPB_TRY(spb_volume_is_writable(volume, err));
    struct spb_group *made = calloc(1, sizeof(*made));
    struct spb_work_cell *cells = calloc(volume->geo.param_slots, sizeof(*cells));
    if (made == NULL || cells == NULL) {
        free(made);
        free(cells);
        return spb_fail_memory(err, "starting a group of changes");
    }
    for (uint32_t i = 0; i < volume->geo.param_slots; i++)
        cells[i].cell = volume->cells[i];
    made->volume = volume;
    made->cells = cells;
    made->pointer = volume->pointer;
    volume->group = made;
    *group = made;
    return spb_ok();
}

/* What a dropped group would have published belongs to its reservation's owner again. */
static void take_back_reservations(struct spb_group *group)
{
    struct spb_volume *volume = group->volume;

    (void)pthread_mutex_lock(&volume->lock);
    for (struct spb_reservation *r = volume->reservations; r != NULL; r = r->next)
        if (r->published_by == group)
            r->published_by = NULL;
    (void)pthread_mutex_unlock(&volume->lock);
}

void spb_group_free(struct spb_group *group)
{
    if (group == NULL)
        return;
    group->volume->group = NULL;
    if (!group->visible)
        take_back_reservations(group);
    free(group->edits);
    free(group->bytes);
    free(group->changes);
    free(group->change_starts);
    free(group->cells);
    free(group->busy);
    free(group->catalog);
    free(group->notes);
    free(group->entry_freed);
    free(group);
}

size_t spb_group_change_count(const struct spb_group *group)
{
    return group->change_count;
}

bool spb_group_is_empty(const struct spb_group *group)
{
    return group->change_count == 0;
}

uint32_t spb_group_event_pointer(const struct spb_group *group)
{
    return group->pointer;
}

void spb_group_assert_open(const struct spb_group *group)
{
    SPB_ASSERT(!group->sealed && !group->carried && !group->visible);
}

/* ---- Marks ---------------------------------------------------------------------------------- */

struct spb_point spb_group_point(const struct spb_group *group)
{
    return (struct spb_point){
        .edit_count = group->edit_count,
        .bytes_used = group->bytes_used,
        .changes_used = group->changes_used,
        .busy_count = group->busy_count,
        .change_count = group->change_count,
        .rounds = group->rounds,
    };
}

void spb_group_return(struct spb_group *group, const struct spb_point *point)
{
    group->edit_count = point->edit_count;
    group->bytes_used = point->bytes_used;
    group->changes_used = point->changes_used;
    group->busy_count = point->busy_count;
    group->change_count = point->change_count;
    group->rounds = point->rounds;
}

spb_status spb_group_mark(struct spb_group *group, struct spb_mark *mark, struct spb_error *err)
{
    size_t slots = group->volume->geo.param_slots;

    mark->cells = malloc(slots * sizeof(*mark->cells));
    if (mark->cells == NULL)
        return spb_fail_memory(err, "deciding a change");
    memcpy(mark->cells, group->cells, slots * sizeof(*mark->cells));
    mark->point = spb_group_point(group);
    return spb_ok();
}

void spb_group_undo(struct spb_group *group, struct spb_mark *mark)
{
    free(group->cells);
    group->cells = mark->cells;
    mark->cells = NULL;
    spb_group_return(group, &mark->point);
}

void spb_mark_done(struct spb_mark *mark)
{
    free(mark->cells);
    mark->cells = NULL;
}

spb_status spb_group_mark_busy(struct spb_group *group, uint32_t id, struct spb_error *err)
{
    uint32_t *busy = grown(group->busy, group->busy_count, &group->busy_room, 1, sizeof(*busy));

    if (busy == NULL)
        return spb_fail_memory(err, "deciding a change");
    group->busy = busy;
    group->busy[group->busy_count++] = id;
    return spb_ok();
}

/* ---- Edits ---------------------------------------------------------------------------------- */

spb_status spb_group_edit(struct spb_group *group, uint32_t round, uint64_t at, const void *data,
                          size_t size, struct spb_error *err)
{
    void *edits =
        grown(group->edits, group->edit_count, &group->edit_room, 1, sizeof(*group->edits));
    if (edits == NULL)
        return spb_fail_memory(err, "deciding a change");
    group->edits = edits;
    void *bytes = grown(group->bytes, group->bytes_used, &group->bytes_room, size, 1);
    if (bytes == NULL)
        return spb_fail_memory(err, "deciding a change");
    group->bytes = bytes;
    memcpy(group->bytes + group->bytes_used, data, size);
    group->edits[group->edit_count++] = (struct spb_edit){
        .round = round,
        .size = (uint32_t)size,
        .at = at,
        .data = group->bytes_used,
    };
    group->bytes_used += size;
    if (group->rounds < round + 1)
        group->rounds = round + 1;
    return spb_ok();
}

spb_status spb_group_erase(struct spb_group *group, uint32_t round, uint64_t at, size_t size,
                           uint32_t *last, struct spb_error *err)
{
    static const uint8_t zeros[SPB_PARAM_SIZE];
    size_t first = spb_first_part(at, size);

    SPB_ASSERT(size <= sizeof(zeros));
    SPB_TRY(spb_group_edit(group, round, at, zeros, first, err));
    *last = round;
    if (first == size)
        return spb_ok();
    SPB_TRY(spb_group_edit(group, round + 1, at + first, zeros, size - first, err));
    *last = round + 1;
    return spb_ok();
}

spb_status spb_group_state_change(struct spb_group *group, const uint8_t *statement, size_t size,
                                  struct spb_error *err)
{
    void *changes = grown(group->changes, group->changes_used, &group->changes_room, size, 1);

    if (changes == NULL)
        return spb_fail_memory(err, "deciding a change");
    group->changes = changes;
    void *starts = grown(group->change_starts, group->change_count, &group->change_starts_room, 1,
                         sizeof(*group->change_starts));
    if (starts == NULL)
        return spb_fail_memory(err, "deciding a change");
    group->change_starts = starts;
    memcpy(group->changes + group->changes_used, statement, size);
    group->change_starts[group->change_count++] = group->changes_used;
    group->changes_used += size;
    return spb_ok();
}

const uint8_t *spb_group_param_bytes(const struct spb_group *group, uint32_t slot)
{
    uint32_t edit = group->cells[slot].edit;

    if (edit != 0)
        return group->bytes + group->edits[edit - 1].data;
    return group->volume->meta + spb_param_at(&group->volume->geo, slot);
}

/* ---- Catalog -------------------------------------------------------------------------------- */

spb_status spb_group_own_catalog(struct spb_group *group, struct spb_error *err)
{
    struct spb_volume *volume = group->volume;
    uint32_t entries = volume->geo.entries;

    if (group->catalog != NULL)
        return spb_ok();
    uint8_t *catalog = malloc(volume->geo.block_size), *freed = calloc(entries + 1, 1);
    struct spb_note *notes = malloc((entries + 1) * sizeof(*notes));
    if (catalog == NULL || notes == NULL || freed == NULL) {
        free(catalog);
        free(notes);
        free(freed);
        return spb_fail_memory(err, "deciding a change");
    }
    memcpy(catalog, spb_catalog_of(volume), volume->geo.block_size);
    (void)pthread_mutex_lock(&volume->lock);
    memcpy(notes, volume->notes, entries * sizeof(*notes));
    (void)pthread_mutex_unlock(&volume->lock);
    group->catalog = catalog;
    group->notes = notes;
    group->entry_freed = freed;
    return spb_ok();
}

/* ---- Seal, rounds, statement ---------------------------------------------------------------- */

/* Rounds that the events take: records and pointer for each R of them. */
static uint32_t event_rounds(const struct spb_group *group)
{
    uint32_t each = group->volume->geo.events_per_block;

    return 2 * ((group->event_count + each - 1) / each);
}

uint32_t spb_group_rounds(const struct spb_group *group)
{
    uint32_t events = event_rounds(group);

    return group->rounds > events ? group->rounds : events;
}

spb_status spb_group_seal(struct spb_group *group, struct spb_error *err)
{
    const struct spb_geometry *geo = &group->volume->geo;
    uint32_t pointer = group->volume->pointer, left = group->event_count;

    group->unsealed = spb_group_point(group);
    group->sealed = true;
    for (uint32_t chunk = 0; left > 0; chunk++) {
        uint32_t step = left < geo->events_per_block ? left : geo->events_per_block;
        uint8_t bytes[SPB_POINTER_SIZE];
        struct spb_writer w = spb_writer_over(bytes, sizeof(bytes));
        pointer = spb_pointer_advance(geo, pointer, step);
        spb_write_be32(&w, pointer);
        SPB_TRY(
            spb_group_edit(group, 2 * chunk + 1, spb_pointer_at(geo), bytes, sizeof(bytes), err));
        left -= step;
    }
    SPB_ASSERT(pointer == group->pointer);
    return spb_ok();
}

void spb_group_unseal(struct spb_group *group)
{
    spb_group_return(group, &group->unsealed);
    group->sealed = false;
}

spb_status spb_group_encode(const struct spb_group *group, uint8_t **bytes, size_t *size,
                            struct spb_error *err)
{
    size_t total = 4 + 2 + 4 + group->changes_used + 4;
    uint8_t *out = malloc(total);

    if (out == NULL)
        return spb_fail_memory(err, "encoding changes");
    struct spb_writer w = spb_writer_over(out, total);
    spb_write_be32(&w, SPB_CHANGES_MAGIC);
    spb_write_be16(&w, SPB_CHANGES_VERSION);
    spb_write_be32(&w, group->change_count);
    spb_write_bytes(&w, group->changes, group->changes_used);
    spb_write_be32(&w, spb_crc32c(0, out, total - 4));
    SPB_ASSERT(!w.failed);
    *bytes = out;
    *size = total;
    return spb_ok();
}

void spb_group_mark_sectors_locked(struct spb_group *group, bool writing)
{
    struct spb_volume *volume = group->volume;

    for (size_t i = 0; i < group->edit_count; i++) {
        size_t at = spb_meta_index(&volume->geo, group->edits[i].at);
        size_t last = (at + group->edits[i].size - 1) / SPB_SECTOR_SIZE;
        for (size_t sector = at / SPB_SECTOR_SIZE; sector <= last; sector++)
            if ((volume->versions[sector] % 2 == 0) == writing)
                volume->versions[sector]++;
    }
}

/* ---- Make visible --------------------------------------------------------------------------- */

static void apply_edits(struct spb_group *group)
{
    struct spb_volume *volume = group->volume;

    /* In order of rounds: a later round overrides an earlier one. */
    for (uint32_t round = 0; round < group->rounds; round++) {
        for (size_t i = 0; i < group->edit_count; i++) {
            const struct spb_edit *edit = &group->edits[i];
            if (edit->round != round)
                continue;
            memcpy(volume->meta + spb_meta_index(&volume->geo, edit->at), group->bytes + edit->data,
                   edit->size);
        }
    }
}

/* What was learnt of an entry since the group copied it stays, where the entry is the same. */
static void adopt_notes(struct spb_group *group)
{
    struct spb_volume *volume = group->volume;
    const uint8_t *old = spb_catalog_of(volume);

    for (uint32_t i = 0; i < volume->geo.entries; i++) {
        size_t at = (size_t)i * SPB_ENTRY_SIZE;
        if (memcmp(old + at, group->catalog + at, SPB_ENTRY_SIZE) != 0)
            volume->notes[i] = group->notes[i];
    }
}

void spb_group_make_visible(struct spb_group *group)
{
    struct spb_volume *volume = group->volume;

    SPB_ASSERT(group->carried && !group->visible);
    (void)pthread_mutex_lock(&volume->lock);
    if (group->catalog != NULL)
        adopt_notes(group);
    apply_edits(group);
    spb_group_mark_sectors_locked(group, false);
    for (uint32_t i = 0; i < volume->geo.param_slots; i++)
        volume->cells[i] = group->cells[i].cell;
    volume->pointer = group->pointer;
    (void)pthread_mutex_unlock(&volume->lock);
    group->visible = true;
}

spb_status spb_group_finish(struct spb_group *group, spb_status decided, struct spb_error *err)
{
    spb_status status = decided;

    if (spb_is_ok(status) && !spb_group_is_empty(group)) {
        status = spb_group_carry_out(group, err);
        if (spb_is_ok(status))
            spb_group_make_visible(group);
    }
    spb_group_free(group);
    return status;
}
