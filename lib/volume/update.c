/*
 * A volume that somebody else writes: lending it, and reading its metadata beside the writer.
 *
 * A writer changes sectors in any order, and a reading takes a while: records that it read early
 * may have moved to where it read late. So the metadata is read until two readings in a row agree;
 * then it all held between the two. (A sector that changes and changes back meanwhile would fool
 * this: generations, pointers and CRCs do not do so.) A write may also be seen half: what looks
 * corrupt and did not before is read again for a while.
 *
 * Whoever reads updates is the only one who changes the volume's state, one thread at a time.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "volume/state.h"

#define READINGS_MAX 64         /* until two agree */
#define READINGS_AT_ONCE 8      /* of these; a pause before each of the rest */
#define PAUSE_NS 1000000        /* 1 ms */
#define DOUBTS_MAX 5            /* looks at what seems corrupt */
#define DOUBT_PAUSE_NS 10000000 /* 10 ms */

struct spb_update {
    struct spb_loaded loaded;
};

spb_status spb_volume_lend(struct spb_volume *volume, struct spb_error *err)
{
    struct spb_error own;

    if (err == NULL)
        err = &own;
    SPB_ASSERT(volume->group == NULL && volume->reservations == NULL);
    SPB_TRY(spb_volume_is_writable(volume, err));
    spb_status status = spb_carry_round(volume->device, NULL, 0, err);
    if (!spb_is_ok(status)) {
        spb_poison(volume, err);
        return status;
    }
    SPB_TRY(spb_device_file_lend(volume->device, err));
    volume->writable = false;
    return spb_ok();
}

/* ---- One moment's state ------------------------------------------------------------------- */

static size_t meta_size(const struct spb_volume *volume)
{
    return (size_t)volume->geo.meta_blocks * volume->geo.block_size;
}

/* There is no event to wait for: the writer is another system. */
static void pause_for(long ns)
{
    struct timespec pause = {.tv_nsec = ns};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

/* Reads until the bytes are the same twice. *meta holds the last reading, and gets the agreed one.
 */
static spb_status read_until_settled(struct spb_volume *volume, uint8_t **meta,
                                     struct spb_error *err)
{
    for (int readings = 0; readings < READINGS_MAX; readings++) {
        uint8_t *again = NULL;

        if (readings >= READINGS_AT_ONCE)
            pause_for(PAUSE_NS);
        SPB_TRY(spb_meta_read(volume->device, &volume->geo, &again, err));
        bool agrees = memcmp(*meta, again, meta_size(volume)) == 0;
        free(*meta);
        *meta = again;
        if (agrees)
            return spb_ok();
    }
    return spb_fail(err, SPB_AGAIN, "cannot read the metadata of %s: it changes all the time",
                    volume->device->name);
}

/* ---- Doubts ------------------------------------------------------------------------------- */

static uint32_t window_begin(const struct spb_geometry *geo, uint32_t pointer)
{
    uint32_t window = geo->event_capacity - geo->events_per_block;

    return pointer > window ? pointer - window : 0;
}

static bool differs(const struct spb_volume *volume, const struct spb_loaded *loaded, uint64_t at,
                    size_t n)
{
    size_t index = spb_meta_index(&volume->geo, at);

    return memcmp(volume->meta + index, loaded->meta + index, n) != 0;
}

static bool has_doubtful_param(const struct spb_volume *volume, const struct spb_loaded *loaded)
{
    for (uint32_t i = 0; i < volume->geo.param_slots; i++) {
        if (loaded->cells[i].state == SPB_PARAM_CORRUPT &&
            differs(volume, loaded, spb_param_at(&volume->geo, i), SPB_PARAM_SIZE))
            return true;
    }
    return false;
}

/* A live record that is corrupt, and was not already live and corrupt as it stands. */
static bool has_doubtful_event(const struct spb_volume *volume, const struct spb_loaded *loaded)
{
    const struct spb_geometry *geo = &volume->geo;

    for (uint32_t i = window_begin(geo, loaded->pointer); i < loaded->pointer; i++) {
        uint64_t at = spb_event_at(geo, i % geo->event_capacity);
        struct spb_event event;

        spb_event_record_decode(loaded->meta + at, &event);
        if (event.corrupt && (i >= volume->pointer || differs(volume, loaded, at, SPB_EVENT_SIZE)))
            return true;
    }
    return false;
}

static bool has_doubtful_entry(const struct spb_volume *volume, const struct spb_loaded *loaded)
{
    for (uint32_t i = 0; i < volume->geo.entries; i++) {
        if (loaded->notes[i].state == SPB_PRODUCT_INVALID &&
            differs(volume, loaded, spb_entry_at(&volume->geo, i), SPB_ENTRY_SIZE))
            return true;
    }
    return false;
}

static spb_status check_superblock(const struct spb_volume *volume, struct spb_loaded *loaded,
                                   struct spb_error *err)
{
    SPB_TRY(spb_superblock_decode(loaded->meta, volume->device->name, &loaded->super, err));
    return spb_check_same_image(volume, &loaded->super, err);
}

/* Of the reading in loaded->meta: its index, whether it may be used, and whether to look again. */
static spb_status judge_reading(const struct spb_volume *volume, struct spb_loaded *loaded,
                                bool *doubtful, struct spb_error *err)
{
    loaded->geo = volume->geo;
    SPB_TRY(spb_loaded_index(loaded, err));
    spb_status status = check_superblock(volume, loaded, err);
    *doubtful = !spb_is_ok(status) || has_doubtful_param(volume, loaded) ||
                has_doubtful_event(volume, loaded) || has_doubtful_entry(volume, loaded);
    return status;
}

/* Forgets the index, and keeps the reading. */
static void drop_index(struct spb_loaded *loaded)
{
    struct spb_loaded index = {.cells = loaded->cells, .notes = loaded->notes};

    loaded->cells = NULL;
    loaded->notes = NULL;
    spb_loaded_done(&index);
}

static spb_status read_changed(struct spb_volume *volume, struct spb_loaded *loaded,
                               struct spb_error *err)
{
    for (int doubts = 0;; doubts++) {
        bool doubtful = false;

        SPB_TRY(read_until_settled(volume, &loaded->meta, err));
        spb_status status = judge_reading(volume, loaded, &doubtful, err);
        if (!doubtful || doubts == DOUBTS_MAX)
            return status;
        drop_index(loaded);
        pause_for(DOUBT_PAUSE_NS);
    }
}

/* ---- Updates ------------------------------------------------------------------------------ */

spb_status spb_volume_read_update(struct spb_volume *volume, struct spb_update **update,
                                  struct spb_error *err)
{
    struct spb_update *read = calloc(1, sizeof(*read));

    SPB_ASSERT(!volume->writable);
    if (read == NULL)
        return spb_fail_memory(err, "reading a volume again");
    spb_status status = spb_meta_read(volume->device, &volume->geo, &read->loaded.meta, err);
    /* What the volume shows held before; so if nothing differs now, it holds. */
    bool same =
        spb_is_ok(status) && memcmp(read->loaded.meta, volume->meta, meta_size(volume)) == 0;
    if (spb_is_ok(status) && !same)
        status = read_changed(volume, &read->loaded, err);
    /* It may have been a half write that is gone. */
    same = same ||
           (spb_is_ok(status) && memcmp(read->loaded.meta, volume->meta, meta_size(volume)) == 0);
    if (!spb_is_ok(status) || same) {
        spb_update_free(read);
        read = NULL;
    }
    if (spb_is_ok(status))
        *update = read;
    return status;
}

uint32_t spb_update_event_pointer(const struct spb_update *update)
{
    return update->loaded.pointer;
}

bool spb_update_only_appends(const struct spb_volume *volume, const struct spb_update *update)
{
    const struct spb_geometry *geo = &volume->geo;
    const struct spb_loaded *loaded = &update->loaded;
    uint32_t begin = window_begin(geo, loaded->pointer);

    if (loaded->pointer < volume->pointer)
        return false;
    if (begin < window_begin(geo, volume->pointer))
        begin = window_begin(geo, volume->pointer);
    for (uint32_t i = begin; i < volume->pointer; i++) {
        if (differs(volume, loaded, spb_event_at(geo, i % geo->event_capacity), SPB_EVENT_SIZE))
            return false;
    }
    return true;
}

/* Of an entry that is as it was, what was found good. */
static void keep_notes(const struct spb_volume *volume, struct spb_loaded *loaded)
{
    for (uint32_t i = 0; i < volume->geo.entries; i++) {
        if (volume->notes[i].state == SPB_PRODUCT_GOOD &&
            !differs(volume, loaded, spb_entry_at(&volume->geo, i), SPB_ENTRY_SIZE))
            loaded->notes[i] = volume->notes[i];
    }
}

void spb_volume_apply_update(struct spb_volume *volume, struct spb_update *update)
{
    (void)pthread_mutex_lock(&volume->lock);
    keep_notes(volume, &update->loaded);
    spb_volume_swap_locked(volume, &update->loaded);
    (void)pthread_mutex_unlock(&volume->lock);
    spb_update_free(update);
}

void spb_update_free(struct spb_update *update)
{
    if (update == NULL)
        return;
    spb_loaded_done(&update->loaded);
    free(update);
}
