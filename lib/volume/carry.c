/*
 * Carrying out: the one place that writes and flushes metadata. A round is a set of whole sectors,
 * each written at most once, followed by one flush; nothing of a later round is written before that
 * flush succeeded. Runs on the volume's actor and touches only the device and the group.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "volume/state.h"

static int by_number(const void *left, const void *right)
{
    const struct spb_sector *a = left, *b = right;

    return a->number < b->number ? -1 : a->number > b->number;
}

/* Length of the run of neighbouring sectors at the start. */
static size_t run_length(const struct spb_sector *sectors, size_t count)
{
    size_t run = 1;

    while (run < count && sectors[run].number == sectors[0].number + run)
        run++;
    return run;
}

static spb_status write_run(struct spb_device *device, const struct spb_sector *sectors, size_t run,
                            struct spb_error *err)
{
    uint64_t offset = sectors[0].number * SPB_SECTOR_SIZE;
    uint8_t *joined = run > 1 ? malloc(run * SPB_SECTOR_SIZE) : NULL;

    /* Joining saves system calls only: without memory the sectors go out one by one. */
    for (size_t i = 0; joined == NULL && i < run; i++)
        SPB_TRY(spb_device_write(device, offset + i * SPB_SECTOR_SIZE, sectors[i].bytes,
                                 SPB_SECTOR_SIZE, err));
    if (joined == NULL)
        return spb_ok();
    for (size_t i = 0; i < run; i++)
        memcpy(joined + i * SPB_SECTOR_SIZE, sectors[i].bytes, SPB_SECTOR_SIZE);
    spb_status status = spb_device_write(device, offset, joined, run * SPB_SECTOR_SIZE, err);
    free(joined);
    return status;
}

spb_status spb_carry_round(struct spb_device *device, struct spb_sector *sectors, size_t count,
                           struct spb_error *err)
{
    if (count > 1)
        qsort(sectors, count, sizeof(*sectors), by_number);
    for (size_t at = 0; at < count;) {
        size_t run = run_length(sectors + at, count - at);
        SPB_TRY(write_run(device, sectors + at, run, err));
        at += run;
    }
    return spb_device_flush(device, err);
}

spb_status spb_carry_zeros(struct spb_device *device, uint64_t offset, uint64_t n,
                           struct spb_error *err)
{
    SPB_TRY(spb_device_zero(device, offset, n, err));
    return spb_device_flush(device, err);
}

/* ---- Rounds of a group ---------------------------------------------------------------------- */

/* The sectors that a group touches, as they stand after the rounds so far. */
struct shadow {
    const struct spb_group *group;
    uint32_t *place; /* of each mirrored sector: 1 + its index below; 0: untouched */
    struct spb_sector *sectors;
    uint32_t *touched; /* round + 1 in which it was last changed */
    size_t count;
};

static struct spb_sector *shadow_sector(struct shadow *shadow, size_t meta_sector, uint32_t round)
{
    const struct spb_volume *volume = shadow->group->volume;
    size_t meta_at = meta_sector * SPB_SECTOR_SIZE;

    if (shadow->place[meta_sector] == 0) {
        struct spb_sector *fresh = &shadow->sectors[shadow->count];
        fresh->number = spb_meta_device_offset(&volume->geo, meta_at) / SPB_SECTOR_SIZE;
        memcpy(fresh->bytes, volume->meta + meta_at, SPB_SECTOR_SIZE);
        shadow->place[meta_sector] = (uint32_t)++shadow->count;
    }
    size_t index = shadow->place[meta_sector] - 1;
    shadow->touched[index] = round + 1;
    return &shadow->sectors[index];
}

static void shadow_apply(struct shadow *shadow, const struct spb_edit *edit)
{
    size_t meta_at = spb_meta_index(&shadow->group->volume->geo, edit->at);
    const uint8_t *data = shadow->group->bytes + edit->data;

    for (size_t done = 0; done < edit->size;) {
        size_t within = (meta_at + done) % SPB_SECTOR_SIZE;
        size_t part = spb_first_part(within, edit->size - done);
        struct spb_sector *sector =
            shadow_sector(shadow, (meta_at + done) / SPB_SECTOR_SIZE, edit->round);
        memcpy(sector->bytes + within, data + done, part);
        done += part;
    }
}

/* An upper bound of the sectors that the edits touch. */
static size_t sectors_touched(const struct spb_group *group)
{
    size_t total = 0;

    for (size_t i = 0; i < group->edit_count; i++)
        total += group->edits[i].size / SPB_SECTOR_SIZE + 2;
    return total;
}

static spb_status shadow_init(struct shadow *shadow, const struct spb_group *group,
                              struct spb_error *err)
{
    const struct spb_geometry *geo = &group->volume->geo;
    size_t mirrored = spb_meta_sectors(geo);
    size_t room = sectors_touched(group) + 1;

    if (room > mirrored)
        room = mirrored;
    shadow->group = group;
    shadow->count = 0;
    shadow->place = calloc(mirrored, sizeof(*shadow->place));
    shadow->sectors = malloc(room * sizeof(*shadow->sectors));
    shadow->touched = calloc(room, sizeof(*shadow->touched));
    if (shadow->place == NULL || shadow->sectors == NULL || shadow->touched == NULL)
        return spb_fail_memory(err, "carrying out a change");
    return spb_ok();
}

static void shadow_done(struct shadow *shadow)
{
    free(shadow->place);
    free(shadow->sectors);
    free(shadow->touched);
}

/* Applies one round's edits and writes the sectors that they changed. */
static spb_status carry_one(struct shadow *shadow, uint32_t round, struct spb_sector *out,
                            struct spb_error *err)
{
    const struct spb_group *group = shadow->group;
    size_t count = 0;

    for (size_t i = 0; i < group->edit_count; i++)
        if (group->edits[i].round == round)
            shadow_apply(shadow, &group->edits[i]);
    for (size_t i = 0; i < shadow->count; i++)
        if (shadow->touched[i] == round + 1)
            out[count++] = shadow->sectors[i];
    return spb_carry_round(group->volume->device, out, count, err);
}

/* Whatever failed first: what was being written may be on the medium, or not. */
static void say_unknown(struct spb_error *err)
{
    size_t used = strlen(err->text);

    (void)snprintf(err->text + used, sizeof(err->text) - used,
                   "; the change may or may not have happened");
}

static spb_status carry_rounds(struct spb_group *group, struct shadow *shadow,
                               struct spb_sector *out, struct spb_error *err)
{
    spb_status status = spb_ok();

    (void)pthread_mutex_lock(&group->volume->lock);
    spb_group_mark_sectors_locked(group, true);
    (void)pthread_mutex_unlock(&group->volume->lock);
    for (uint32_t round = 0; spb_is_ok(status) && round < group->rounds; round++)
        status = carry_one(shadow, round, out, err);
    if (!spb_is_ok(status)) {
        say_unknown(err);
        spb_poison(group->volume, err);
    }
    return status;
}

spb_status spb_group_carry_out(struct spb_group *group, struct spb_error *err)
{
    struct spb_error own;
    struct shadow shadow = {.group = group};
    struct spb_sector *out = NULL;

    spb_group_assert_open(group);
    if (err == NULL)
        err = &own;
    SPB_TRY(spb_volume_is_writable(group->volume, err));
    spb_status status = spb_group_seal(group, err);
    if (spb_is_ok(status))
        status = shadow_init(&shadow, group, err);
    if (spb_is_ok(status)) {
        out = malloc((sectors_touched(group) + 1) * sizeof(*out));
        status = out == NULL ? spb_fail_memory(err, "carrying out a change") : spb_ok();
    }
    /* Until here nothing was written: running out of memory harms nobody. */
    if (spb_is_ok(status)) {
        status = carry_rounds(group, &shadow, out, err);
        group->carried = spb_is_ok(status);
    } else {
        spb_group_unseal(group);
    }
    free(out);
    shadow_done(&shadow);
    return status;
}
