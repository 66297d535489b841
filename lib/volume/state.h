/*
 * What the files of lib/volume share: the volume's state in memory, the group in the making, and
 * the functions between them. Not installed.
 *
 * Ownership and threads. One thread at a time, the volume's actor, runs groups, check, repair,
 * defragmentation, refresh and reopen. Any thread may read the published state, hold and free
 * reservations, verify and read products. `lock` guards the published state against its swap, the
 * notes on products and the list of reservations; the actor reads the published bytes without it,
 * since only the actor changes them. Functions named ..._locked want it held.
 */
#ifndef SPB_VOLUME_STATE_H
#define SPB_VOLUME_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/status.h"
#include "spaceblock/group.h"
#include "spaceblock/volume.h"
#include "volume/records.h"

/* Derived from superblock and S once, at the opening. */
struct spb_geometry {
    uint32_t block_size;
    uint32_t dp_start, dp_size;
    uint32_t params_per_block, param_slots;
    uint32_t events_per_block; /* R */
    uint32_t event_capacity;   /* C */
    uint32_t entries;          /* of the catalog; 0 without data product area */
    uint32_t meta_blocks;      /* blocks mirrored in memory: 0 to 32 and the catalog's */
};

/* A parameter slot in the index; its bytes are in the mirror. */
struct spb_cell {
    uint32_t id;
    uint16_t generation;
    uint8_t state; /* enum spb_param_state */
    bool newest;
};

/* What a reading of the medium found; becomes the volume's state in one swap. */
struct spb_loaded {
    struct spb_superblock super;
    struct spb_geometry geo;
    uint8_t *meta;
    struct spb_cell *cells;
    struct spb_note *notes;
    uint32_t pointer;
};

/* A whole sector to be written. */
struct spb_sector {
    uint64_t number; /* device offset / 512 */
    uint8_t bytes[SPB_SECTOR_SIZE];
};

/* What is known of the product behind a catalog entry. */
struct spb_note {
    enum spb_product_state state;
    uint64_t length;
};

struct spb_reservation {
    struct spb_volume *volume;
    struct spb_reservation *next;
    uint32_t block_offset, block_count;
    uint32_t life;                  /* of the volume, when it was made */
    bool written;                   /* bytes went there */
    struct spb_group *published_by; /* decided to publish it; NULL: none has */
};

struct spb_volume {
    struct spb_device *device;
    struct spb_superblock super;
    struct spb_geometry geo;
    bool writable;
    atomic_bool poisoned; /* set after reason was written, never cleared but by reopen */
    /* Counts reopenings: what was written and not flushed before the last one may be lost. */
    _Atomic uint32_t life;
    /*
     * Marks count the times that space was given back written and unflushed; what was settled by a
     * flush since is counted beside: while they differ, space is flushed before it is written.
     */
    _Atomic uint64_t stale_marks, stale_settled;
    char reason[SPB_ERROR_TEXT_SIZE];

    pthread_mutex_t lock;
    uint8_t *meta;          /* the mirror: meta_blocks x block_size bytes */
    struct spb_cell *cells; /* param_slots */
    /* Of each mirrored sector: odd while it may be on the medium otherwise than in the mirror. */
    uint32_t *versions;
    uint32_t pointer;
    struct spb_note *notes; /* entries */
    struct spb_reservation *reservations;
    struct spb_group *group; /* the one in the making, or NULL; the actor's */
};

/* The lock of a volume that is otherwise read: it is no part of what const promises. */
static inline pthread_mutex_t *spb_volume_lock(const struct spb_volume *volume)
{
    union {
        const struct spb_volume *in;
        struct spb_volume *out;
    } at = {.in = volume};

    return &at.out->lock;
}

/* ---- Where things lie: byte offsets on the device ---- */
uint64_t spb_param_at(const struct spb_geometry *geo, uint32_t slot);
uint64_t spb_event_at(const struct spb_geometry *geo, uint32_t slot);
uint64_t spb_entry_at(const struct spb_geometry *geo, uint32_t entry);
uint64_t spb_pointer_at(const struct spb_geometry *geo);
/* Bytes of n at an offset that lie in the offset's own sector. */
size_t spb_first_part(uint64_t at, size_t n);
static inline bool spb_crosses(uint64_t at, size_t n)
{
    return spb_first_part(at, n) < n;
}
/* Does the whole catalog lie in one sector (S=512)? Then it is rewritten at once. */
static inline bool spb_catalog_is_one_sector(const struct spb_geometry *geo)
{
    return geo->entries * SPB_ENTRY_SIZE <= SPB_SECTOR_SIZE;
}
/* Offset in the mirror of a device offset within the mirrored blocks. */
size_t spb_meta_index(const struct spb_geometry *geo, uint64_t at);
/* The reverse. */
uint64_t spb_meta_device_offset(const struct spb_geometry *geo, size_t index);

/* Sectors that are mirrored. */
static inline size_t spb_meta_sectors(const struct spb_geometry *geo)
{
    return (size_t)geo->meta_blocks * geo->block_size / SPB_SECTOR_SIZE;
}

/* ---- Loading (volume.c, params.c, products.c) ---- */
void spb_geometry_derive(const struct spb_superblock *super, uint32_t sector_size,
                         struct spb_geometry *geo);
/* Builds the index of all slots from the mirror. */
void spb_cells_load(const struct spb_geometry *geo, const uint8_t *meta, struct spb_cell *cells);
/* Marks which of an id's slots is its value. */
void spb_cells_mark_newest(struct spb_cell *cells, uint32_t slots, uint32_t id);
void spb_notes_load(const struct spb_geometry *geo, const uint8_t *meta, struct spb_note *notes);
/* Builds the rest from geo and meta. */
SPB_MUST_USE spb_status spb_loaded_index(struct spb_loaded *loaded, struct spb_error *err);
/* Frees what it holds; of one that is empty, nothing. */
void spb_loaded_done(struct spb_loaded *loaded);
/* Superblock and geometry stay as they are. What was is in *loaded then. */
void spb_volume_swap_locked(struct spb_volume *volume, struct spb_loaded *loaded);
/* SPB_CHANGED: the superblock is another. */
SPB_MUST_USE spb_status spb_check_same_image(const struct spb_volume *volume,
                                             const struct spb_superblock *now,
                                             struct spb_error *err);
void spb_poison(struct spb_volume *volume, const struct spb_error *cause);

/* A writable opening's first work: see recover.c. */
SPB_MUST_USE spb_status spb_recover_medium(struct spb_device *device,
                                           const struct spb_geometry *geo, struct spb_error *err);
/*
 * The sectors of metadata that the medium holds otherwise than was published, as they should be;
 * *differing is the caller's, free(). The actor's; the volume is writable, so nobody else writes.
 */
SPB_MUST_USE spb_status spb_medium_compare(struct spb_volume *volume, struct spb_sector **differing,
                                           size_t *count, struct spb_error *err);
/* Drops entries that share a name with a good one below. */
SPB_MUST_USE spb_status spb_recover_duplicates(struct spb_volume *volume, struct spb_error *err);
/* Reads the mirror; *meta is the caller's, free(). */
SPB_MUST_USE spb_status spb_meta_read(struct spb_device *device, const struct spb_geometry *geo,
                                      uint8_t **meta, struct spb_error *err);

/* ---- Events ---- */
/* The pointer after count more events, written R at a time (format.md: it wraps to C + value mod
 * C). */
uint32_t spb_pointer_advance(const struct spb_geometry *geo, uint32_t pointer, uint32_t count);

/* ---- Products ---- */
/* Entry as the bytes and its note have it. */
void spb_product_from(const struct spb_geometry *geo, const uint8_t *catalog,
                      const struct spb_note *notes, uint32_t index, struct spb_product *product);
/* Finds by name in a catalog; false: absent. The rule of spb_product_find. */
bool spb_catalog_find(const struct spb_geometry *geo, const uint8_t *catalog,
                      const struct spb_note *notes, const void *name, size_t name_len,
                      struct spb_product *product);
static inline const uint8_t *spb_catalog_of(const struct spb_volume *volume)
{
    return volume->meta + (size_t)SPB_DP_FIRST_BLOCK * volume->geo.block_size;
}
/* Bytes that are read or written at once; a multiple of every block size. */
#define SPB_PIECE_SIZE ((size_t)256 * 1024)
_Static_assert(SPB_PIECE_SIZE % SPB_BLOCK_SIZE_MAX == 0, "whole blocks");
/* Where a block of the data product area lies on the device. */
static inline uint64_t spb_block_at(const struct spb_volume *volume, uint32_t block_offset)
{
    return ((uint64_t)volume->geo.dp_start + block_offset) * volume->geo.block_size;
}
/*
 * Before space is written: what was given back written and unflushed is flushed first, since
 * between two flushes a sector is written at most once.
 */
SPB_MUST_USE spb_status spb_settle_stale(struct spb_volume *volume, struct spb_error *err);
/* Through the page cache, or (where that can be had) past it. */
enum spb_source { SPB_FROM_CACHE, SPB_FROM_MEDIUM };
/* n bytes at a sector's start. The buffer has room for whole sectors: past the cache those are
 * read.
 */
SPB_MUST_USE spb_status spb_bulk_read(struct spb_device *device, uint64_t at, uint8_t *buffer,
                                      size_t n, enum spb_source source, struct spb_error *err);
/* Like spb_product_verify, with the blocks read from another place (a copy of the product). */
SPB_MUST_USE spb_status spb_extent_verify(const struct spb_volume *volume,
                                          const struct spb_product *product, uint32_t block_offset,
                                          enum spb_source source, spb_progress progress, void *user,
                                          uint64_t *length, struct spb_error *err);
/* Like spb_product_verify, and once more where reading failed: what a medium refuses twice is lost.
 */
SPB_MUST_USE spb_status spb_product_verify_again(const struct spb_volume *volume,
                                                 const struct spb_product *product,
                                                 spb_progress progress, void *user,
                                                 uint64_t *length, struct spb_error *err);
/* Copies all blocks of a product to the start of a reservation. */
SPB_MUST_USE spb_status spb_extent_copy(const struct spb_volume *volume,
                                        const struct spb_product *product,
                                        struct spb_reservation *to, struct spb_error *err);
/* The lowest free extent of count blocks that ends at or below a block; false: none. */
bool spb_space_below(struct spb_volume *volume, uint32_t count, uint32_t below,
                     struct spb_reservation **reservation);
/* The lowest free extent of count blocks that begins above a block; false: none. */
bool spb_space_above(struct spb_volume *volume, uint32_t count, uint32_t above,
                     struct spb_reservation **reservation);
/* Bytes that a failed flush may have lost are not published: the page cache shows them all the
 * same. SPB_IO where the volume was reopened since the reservation was made. */
SPB_MUST_USE spb_status spb_reservation_check_life(const struct spb_reservation *reservation,
                                                   struct spb_error *err);
/* Is the block before this one free? */
bool spb_space_just_below(const struct spb_volume *volume, uint32_t block);
/* Do two products describe the same bytes in the same place? */
bool spb_product_is_same(const struct spb_product *a, const struct spb_product *b);
/* The entry as it is now, its extent pinned in the same moment (nothing, of one that has no data).
 */
SPB_MUST_USE spb_status spb_reservation_pin_entry(struct spb_volume *volume, uint32_t entry,
                                                  struct spb_product *product,
                                                  struct spb_reservation **reservation,
                                                  struct spb_error *err);
/* Do the blocks of two well-formed products meet? */
bool spb_products_overlap(const struct spb_product *a, const struct spb_product *b);

/* Puts a reservation on the volume's list, and takes it off. Its memory is the caller's. */
void spb_reservation_link_locked(struct spb_volume *volume, struct spb_reservation *reservation,
                                 uint64_t block_offset, uint64_t block_count);
void spb_reservation_unlink_locked(struct spb_reservation *reservation);

/* ---- Images (image_file.c) ---- */
/* Is the device large enough, and will its size not be taken for another sector size? */
SPB_MUST_USE spb_status spb_format_check_device(const struct spb_device *device,
                                                uint32_t total_blocks, uint32_t sector_size,
                                                struct spb_error *err);

/* ---- Carrying out (carry.c): the one place that writes and flushes metadata ---- */
/* Writes the sectors (each at most once), then flushes; sorts them by number. */
SPB_MUST_USE spb_status spb_carry_round(struct spb_device *device, struct spb_sector *sectors,
                                        size_t count, struct spb_error *err);
/* Zeroes a range, then flushes. */
SPB_MUST_USE spb_status spb_carry_zeros(struct spb_device *device, uint64_t offset, uint64_t n,
                                        struct spb_error *err);

/* ---- The group (group.c) ---- */

/* New bytes at a place of the metadata, in force from a round on. */
struct spb_edit {
    uint32_t round;
    uint32_t size;
    uint64_t at; /* device offset */
    size_t data; /* offset in the group's bytes */
};

/* A slot as the group sees it. */
struct spb_work_cell {
    struct spb_cell cell;
    uint32_t ready; /* first round in which the slot may be written (again) */
    uint32_t edit;  /* 1 + the edit that filled it; 0: as published */
};

/* How far deciding has come. */
struct spb_point {
    size_t edit_count, bytes_used, changes_used, busy_count;
    uint32_t change_count, rounds;
};

struct spb_group {
    struct spb_volume *volume;
    struct spb_edit *edits;
    size_t edit_count, edit_room;
    uint8_t *bytes; /* of the edits */
    size_t bytes_used, bytes_room;
    uint8_t *changes; /* encoded statements, one after the other */
    size_t changes_used, changes_room;
    size_t *change_starts; /* where each begins */
    size_t change_starts_room;
    uint32_t change_count;
    uint32_t rounds; /* flushes, pointer writes not counted before the seal */

    struct spb_work_cell *cells;
    uint32_t *busy; /* ids whose change takes several rounds */
    size_t busy_count, busy_room;

    uint32_t pointer;     /* after all that is decided */
    uint32_t event_count; /* decided */
    bool event_wrapped;   /* the last append passed 2^32-1 */

    uint8_t *catalog; /* as decided; NULL: as published */
    struct spb_note *notes;
    uint32_t catalog_round; /* of its last edit */
    uint8_t *entry_freed;   /* entry was freed by this group */
    uint32_t freed_count;

    struct spb_point unsealed; /* as it was before the seal */
    bool sealed, carried, visible;
};

/* Where a decision begins, to be undone as a whole. */
struct spb_mark {
    struct spb_point point;
    struct spb_work_cell *cells; /* copy, owned */
};
struct spb_point spb_group_point(const struct spb_group *group);
/* Forgets all edits and statements since the point; cells and catalog are the caller's to restore.
 */
void spb_group_return(struct spb_group *group, const struct spb_point *point);
SPB_MUST_USE spb_status spb_group_mark(struct spb_group *group, struct spb_mark *mark,
                                       struct spb_error *err);
void spb_group_undo(struct spb_group *group, struct spb_mark *mark);
void spb_mark_done(struct spb_mark *mark);

/* Adds new bytes in a round; SPB_NO_MEMORY leaves the group as it was. */
SPB_MUST_USE spb_status spb_group_edit(struct spb_group *group, uint32_t round, uint64_t at,
                                       const void *data, size_t size, struct spb_error *err);
/* Zeroes a record: where it crosses a sector boundary the part in its first sector, and the rest a
 * round later. *last gets the last round used. */
SPB_MUST_USE spb_status spb_group_erase(struct spb_group *group, uint32_t round, uint64_t at,
                                        size_t size, uint32_t *last, struct spb_error *err);
/* Appends one encoded statement; the group counts it. */
SPB_MUST_USE spb_status spb_group_state_change(struct spb_group *group, const uint8_t *statement,
                                               size_t size, struct spb_error *err);
/* Refuses changes of a group that was carried out. */
void spb_group_assert_open(const struct spb_group *group);
/* Settles what only the whole group decides: pointer writes. */
SPB_MUST_USE spb_status spb_group_seal(struct spb_group *group, struct spb_error *err);
/* Notes that the group's sectors are being written from now on, or are published as written. */
void spb_group_mark_sectors_locked(struct spb_group *group, bool writing);
/* Takes the seal back, so that more can be decided. */
void spb_group_unseal(struct spb_group *group);
/* Notes an id as busy. */
SPB_MUST_USE spb_status spb_group_mark_busy(struct spb_group *group, uint32_t id,
                                            struct spb_error *err);
/* The bytes of a slot as the group sees it. */
const uint8_t *spb_group_param_bytes(const struct spb_group *group, uint32_t slot);
/* Makes the group's own copy of catalog and notes. */
SPB_MUST_USE spb_status spb_group_own_catalog(struct spb_group *group, struct spb_error *err);

/* ---- Changes that only the library itself makes ---- */
/* A put that a crash cut off, with the generation that it was given then. */
SPB_MUST_USE spb_status spb_group_put_param_again(struct spb_group *group, uint32_t id,
                                                  uint16_t generation, const void *value,
                                                  size_t len, struct spb_error *err);
/* Drops the catalog entries whose flag is set (duplicates, repair); a flag for each entry. On
 * failure the group is to be dropped. */
SPB_MUST_USE spb_status spb_group_drop_entries(struct spb_group *group, const bool *drop,
                                               struct spb_error *err);
/* Points a product's entry at the copy in the reservation. */
SPB_MUST_USE spb_status spb_group_move_product(struct spb_group *group,
                                               const struct spb_product *product,
                                               struct spb_reservation *to, struct spb_error *err);
/* Carry out, make visible, free; or free. For one-shot callers. */
SPB_MUST_USE spb_status spb_group_finish(struct spb_group *group, spb_status decided,
                                         struct spb_error *err);

#endif
