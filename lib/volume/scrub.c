/*
 * The scrub: the medium read again while the volume is in service. Runs on any thread, beside the
 * actor and its groups, and calls nothing rotten that was merely replaced.
 *
 * Of the metadata each sector has a version, odd from before a group's first write until it is
 * visible: what is read between two looks at the same even version must be what is published. Data
 * of a product is read while its extent is pinned, and counts only if its entry still stands.
 * Records are checked in a copy of the state, taken once.
 */
#include <stdlib.h>
#include <string.h>

#include "volume/check.h"
#include "volume/state.h"

/* Looks at a sector or product that others keep changing, before it is left out. */
#define LOOKS 8

struct scrub {
    struct spb_volume *volume;
    struct spb_volume *view; /* a copy of the state at the beginning, for reading only */
    struct spb_report *report;
    struct spb_survey survey;
    uint8_t *piece;     /* SPB_PIECE_SIZE */
    uint32_t *versions; /* of the sectors of a piece */
};

/* ---- The copy of the state ------------------------------------------------------------------- */

static void view_free(struct spb_volume *view)
{
    if (view == NULL)
        return;
    free(view->meta);
    free(view->cells);
    free(view->notes);
    (void)pthread_mutex_destroy(&view->lock);
    free(view);
}

static struct spb_volume *view_new(const struct spb_volume *volume)
{
    const struct spb_geometry *geo = &volume->geo;
    size_t meta = (size_t)geo->meta_blocks * geo->block_size;
    struct spb_volume *view = calloc(1, sizeof(*view));

    if (view == NULL)
        return NULL;
    (void)pthread_mutex_init(&view->lock, NULL);
    view->device = volume->device;
    view->super = volume->super;
    view->geo = *geo;
    view->meta = malloc(meta);
    view->cells = calloc(geo->param_slots, sizeof(*view->cells));
    view->notes = calloc((size_t)geo->entries + 1, sizeof(*view->notes));
    if (view->meta == NULL || view->cells == NULL || view->notes == NULL) {
        view_free(view);
        return NULL;
    }
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    memcpy(view->meta, volume->meta, meta);
    memcpy(view->cells, volume->cells, geo->param_slots * sizeof(*view->cells));
    memcpy(view->notes, volume->notes, geo->entries * sizeof(*view->notes));
    view->pointer = volume->pointer;
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    return view;
}

/* ---- Progress -------------------------------------------------------------------------------- */

/* Between pieces: lets the caller sleep, and ends the scrub where it says so. */
static spb_status pause_after(struct scrub *scrub, uint64_t bytes, struct spb_error *err)
{
    scrub->survey.done += bytes;
    if (spb_survey_progress(&scrub->survey, 0, 0))
        return spb_ok();
    return spb_fail(err, SPB_DEADLINE, "scrubbing %s was ended", scrub->volume->device->name);
}

/* ---- Metadata -------------------------------------------------------------------------------- */

enum look {
    LOOK_SAME,
    LOOK_DIFFERS,
    LOOK_BUSY, /* it was being written, or was replaced meanwhile */
};

static void note_versions(const struct spb_volume *volume, size_t first, size_t count,
                          uint32_t *versions)
{
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    memcpy(versions, volume->versions + first, count * sizeof(*versions));
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
}

/* What a sector that was read after its version was noted turns out to be. Wants the lock. */
static enum look judge_locked(const struct spb_volume *volume, size_t sector, uint32_t version,
                              const uint8_t *bytes)
{
    if (version % 2 != 0 || volume->versions[sector] != version)
        return LOOK_BUSY;
    return memcmp(volume->meta + sector * SPB_SECTOR_SIZE, bytes, SPB_SECTOR_SIZE) == 0
               ? LOOK_SAME
               : LOOK_DIFFERS;
}

/* Reads n bytes of the metadata, which lie together on the device. */
static spb_status read_meta(const struct scrub *scrub, size_t at, size_t n, struct spb_error *err)
{
    uint64_t offset = spb_meta_device_offset(&scrub->volume->geo, at);

    return spb_bulk_read(scrub->volume->device, offset, scrub->piece, n, SPB_FROM_MEDIUM, err);
}

static spb_status report_sector(struct scrub *scrub, size_t sector, bool readable,
                                struct spb_error *err)
{
    const struct spb_geometry *geo = &scrub->volume->geo;
    uint64_t number = spb_meta_device_offset(geo, sector * SPB_SECTOR_SIZE) / SPB_SECTOR_SIZE;

    return spb_report_add(scrub->report, SPB_FINDING_MEDIUM, (uint32_t)number, readable, err,
                          "sector %llu (block %llu) of the medium %s", (unsigned long long)number,
                          (unsigned long long)(number * SPB_SECTOR_SIZE / geo->block_size),
                          readable ? "no longer holds what was made durable there"
                                   : "cannot be read");
}

/* Looks at one sector alone, again and again while it is busy; twice where it differs. */
static spb_status look_again(struct scrub *scrub, size_t sector, struct spb_error *err)
{
    struct spb_volume *volume = scrub->volume;
    unsigned bad = 0;
    bool readable = true;

    for (unsigned i = 0; i < LOOKS && bad < 2; i++) {
        uint32_t version;
        note_versions(volume, sector, 1, &version);
        spb_status status = read_meta(scrub, sector * SPB_SECTOR_SIZE, SPB_SECTOR_SIZE, NULL);
        readable = spb_is_ok(status);
        if (!readable && status.code != SPB_IO)
            return spb_fail_memory(err, "scrubbing a volume");
        (void)pthread_mutex_lock(&volume->lock);
        enum look look = judge_locked(volume, sector, version, scrub->piece);
        (void)pthread_mutex_unlock(&volume->lock);
        if (readable && look == LOOK_SAME)
            return spb_ok();
        bad += !readable || look == LOOK_DIFFERS;
        SPB_TRY(pause_after(scrub, 0, err));
    }
    return bad < 2 ? spb_ok() : report_sector(scrub, sector, readable, err);
}

/* A piece of the metadata that lies together; sectors that are not as published one by one. */
static spb_status scrub_piece(struct scrub *scrub, size_t at, size_t n, struct spb_error *err)
{
    struct spb_volume *volume = scrub->volume;
    size_t first = at / SPB_SECTOR_SIZE, count = n / SPB_SECTOR_SIZE;
    bool wanted[SPB_PIECE_SIZE / SPB_SECTOR_SIZE] = {false};

    note_versions(volume, first, count, scrub->versions);
    spb_status status = read_meta(scrub, at, n, err);
    if (!spb_is_ok(status) && status.code != SPB_IO)
        return status;
    (void)pthread_mutex_lock(&volume->lock);
    for (size_t i = 0; i < count; i++)
        wanted[i] =
            !spb_is_ok(status) || judge_locked(volume, first + i, scrub->versions[i],
                                               scrub->piece + i * SPB_SECTOR_SIZE) != LOOK_SAME;
    (void)pthread_mutex_unlock(&volume->lock);
    for (size_t i = 0; i < count; i++)
        if (wanted[i])
            SPB_TRY(look_again(scrub, first + i, err));
    return pause_after(scrub, n, err);
}

static spb_status scrub_range(struct scrub *scrub, size_t from, size_t to, struct spb_error *err)
{
    for (size_t at = from; at < to;) {
        size_t n = to - at < SPB_PIECE_SIZE ? to - at : SPB_PIECE_SIZE;
        SPB_TRY(scrub_piece(scrub, at, n, err));
        at += n;
    }
    return spb_ok();
}

/* An owner knows what the medium must hold; another's image may be changing. */
static spb_status scrub_meta(struct scrub *scrub, struct spb_error *err)
{
    const struct spb_geometry *geo = &scrub->volume->geo;
    size_t fixed = (size_t)SPB_DP_FIRST_BLOCK * geo->block_size;

    if (!scrub->volume->writable)
        return spb_ok();
    SPB_TRY(scrub_range(scrub, 0, fixed, err));
    return scrub_range(scrub, fixed, (size_t)geo->meta_blocks * geo->block_size, err);
}

/* ---- Products -------------------------------------------------------------------------------- */

/* Reads the data of an entry as it stands now; *stands: it did so to the end. */
static spb_status look_at_product(struct scrub *scrub, uint32_t index, struct spb_product *product,
                                  bool *stands, struct spb_error *err)
{
    struct spb_volume *volume = scrub->volume;
    struct spb_reservation *pin;
    struct spb_product now;
    uint64_t length = 0;
    spb_status status = {SPB_CORRUPT};

    *stands = true;
    SPB_TRY(spb_reservation_pin_entry(volume, index, product, &pin, err));
    if (!spb_survey_has_data(product)) {
        spb_reservation_free(pin);
        return spb_ok();
    }
    /* Twice, before it is called rotten. */
    for (int i = 0; i < 2 && (status.code == SPB_CORRUPT || status.code == SPB_IO); i++)
        status = spb_extent_verify(volume, product, product->block_offset, SPB_FROM_MEDIUM,
                                   spb_survey_progress, &scrub->survey, &length, err);
    spb_reservation_free(pin);
    if (!spb_is_ok(status) && status.code != SPB_CORRUPT && status.code != SPB_IO)
        return status;
    product->state = spb_is_ok(status) ? SPB_PRODUCT_GOOD : SPB_PRODUCT_ROTTEN;
    product->length = length;
    if (status.code != SPB_IO)
        spb_product_note(volume, product, spb_is_ok(status), length);
    SPB_TRY(spb_product_entry(volume, index, &now, err));
    *stands = spb_product_is_same(&now, product);
    return spb_ok();
}

/*
 * An entry that stood all the while takes its place in the survey, to be compared with the others.
 * One that was replaced, or moved, is told of by itself; one that keeps changing is left out.
 */
static spb_status scrub_product(struct scrub *scrub, uint32_t index, struct spb_error *err)
{
    struct spb_product *planned = &scrub->survey.products[index], found = {0};
    bool stands = false;

    for (int i = 0; i < LOOKS && !stands; i++)
        SPB_TRY(look_at_product(scrub, index, &found, &stands, err));
    if (stands && spb_product_is_same(&found, planned)) {
        *planned = found;
        return spb_ok();
    }
    planned->state = SPB_PRODUCT_FREE;
    if (!stands || !spb_survey_has_data(&found))
        return spb_ok();
    if (found.state == SPB_PRODUCT_ROTTEN)
        return spb_report_rotten(&found, scrub->report, err);
    scrub->report->products_good++;
    return spb_ok();
}

static spb_status scrub_products(struct scrub *scrub, struct spb_error *err)
{
    struct spb_survey *survey = &scrub->survey;

    for (uint32_t i = 0; i < survey->count; i++) {
        uint64_t bytes = (uint64_t)survey->products[i].block_count * scrub->volume->geo.block_size;
        if (!spb_survey_has_data(&survey->products[i]))
            continue;
        SPB_TRY(scrub_product(scrub, i, err));
        SPB_TRY(pause_after(scrub, bytes, err));
    }
    for (uint32_t i = 0; i < survey->count; i++)
        SPB_TRY(spb_survey_report(survey, i, scrub->report, err));
    return spb_ok();
}

/* ---- The run --------------------------------------------------------------------------------- */

static spb_status prepare(struct scrub *scrub, struct spb_error *err)
{
    struct spb_survey *survey = &scrub->survey;
    const struct spb_geometry *geo = &scrub->volume->geo;

    survey->count = geo->entries;
    survey->products = calloc((size_t)survey->count + 1, sizeof(*survey->products));
    scrub->piece = malloc(SPB_PIECE_SIZE);
    scrub->versions = malloc(SPB_PIECE_SIZE / SPB_SECTOR_SIZE * sizeof(*scrub->versions));
    scrub->view = view_new(scrub->volume);
    if (survey->products == NULL || scrub->piece == NULL || scrub->versions == NULL ||
        scrub->view == NULL)
        return spb_fail_memory(err, "scrubbing a volume");
    survey->total = scrub->volume->writable ? (uint64_t)geo->meta_blocks * geo->block_size : 0;
    for (uint32_t i = 0; i < survey->count; i++) {
        SPB_TRY(spb_product_entry(scrub->view, i, &survey->products[i], err));
        if (spb_survey_has_data(&survey->products[i]))
            survey->total += (uint64_t)survey->products[i].block_count * geo->block_size;
    }
    return spb_ok();
}

static spb_status run(struct scrub *scrub, struct spb_error *err)
{
    SPB_TRY(prepare(scrub, err));
    SPB_TRY(scrub_meta(scrub, err));
    SPB_TRY(spb_check_params(scrub->view, scrub->report, err));
    SPB_TRY(spb_check_events(scrub->view, scrub->report, err));
    SPB_TRY(scrub_products(scrub, err));
    spb_report_space(scrub->volume, scrub->report);
    return spb_ok();
}

spb_status spb_volume_scrub(struct spb_volume *volume, spb_progress progress, void *user,
                            struct spb_report *report, struct spb_error *err)
{
    struct spb_report made = {0};
    struct scrub scrub = {
        .volume = volume,
        .report = &made,
        .survey = {.progress = progress, .user = user},
    };
    spb_status status = run(&scrub, err);

    view_free(scrub.view);
    free(scrub.survey.products);
    free(scrub.piece);
    free(scrub.versions);
    if (!spb_is_ok(status)) {
        spb_report_done(&made);
        return status;
    }
    *report = made;
    return status;
}
