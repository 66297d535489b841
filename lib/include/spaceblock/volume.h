/*
 * A SpaceOS volume: the superblock, parameter store, event log and data products on a block device
 * (format.md, version 1; its facts are not repeated here).
 *
 * State in memory. A volume holds the metadata that is durable on its device ("published"), checked
 * when it is read. Functions that take a const volume and say nothing of I/O read that state: they
 * never block for longer than the swap of a group that becomes visible.
 *
 * Changes come in three steps, grouped (group.h): decided, carried out, made visible. Until a group
 * is made visible, readers of the volume see the state before it.
 *
 * Threads. One thread at a time, the volume's actor, may run groups, one-shot changes, check,
 * repair, defragmentation, refresh and reopen. Beside it any thread may at any time read (all
 * functions of a const volume), hold and free reservations, note what a verify found, and read,
 * verify and write the bytes of products: the volume has a lock of its own for what these share.
 * spb_volume_close must come last.
 */
#ifndef SPACEBLOCK_VOLUME_H
#define SPACEBLOCK_VOLUME_H

#include <stdint.h>

#include "spaceblock/device.h"
#include "spaceblock/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SPB_BLOCK_SIZE_MIN 512u
#define SPB_BLOCK_SIZE_MAX 65536u
#define SPB_BLOCKS_MIN 33u
#define SPB_UUID_SIZE 16u
#define SPB_PARAM_VALUE_MAX 240u
#define SPB_EVENT_PAYLOAD_MAX 64u
#define SPB_PRODUCT_NAME_MAX 64u
#define SPB_SEVERITY_DEBUG 0u
#define SPB_SEVERITY_INFO 1u
#define SPB_SEVERITY_WARN 2u
#define SPB_SEVERITY_ERROR 3u
#define SPB_SEVERITY_CRITICAL 4u
/* The record that repair puts in a lost event's place: code and severity (payload "lost"). */
#define SPB_EVENT_CODE_LOST 65535u

struct spb_volume;

/* ---- Superblock and lifecycle ------------------------------------------------------------- */

struct spb_superblock {
    uint8_t format_version;
    uint16_t tenant_id;
    uint32_t total_blocks;
    uint32_t dp_start; /* first block of the data product area */
    uint32_t dp_size;  /* its blocks; 0: no area */
    uint64_t epoch;    /* UNIX seconds; events count from here */
    uint8_t uuid[SPB_UUID_SIZE];
};

struct spb_format_options {
    uint32_t total_blocks; /* at least SPB_BLOCKS_MIN */
    uint32_t sector_size;  /* S: a power of two, 512 to 65536 */
    uint16_t tenant_id;
    uint64_t epoch;
    uint8_t uuid[SPB_UUID_SIZE];
};

/*
 * Initialises a device (the seed's v): block 0 zeroed, flush, the rest of the metadata and the data
 * product area zeroed, flush, superblock, flush. After a crash there may be no image. Refuses a
 * device too small, and a total_blocks whose quotient with the device's size is another power of
 * two in range than S (opening would take that for S). Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_volume_format(struct spb_device *device,
                                                  const struct spb_format_options *options,
                                                  struct spb_error *err);

/*
 * Creates an image file of total_blocks x sector_size bytes: a temporary file in the same directory
 * with its space allocated, synced, then renamed to path and the directory synced. Without replace
 * an existing path is SPB_EXISTS; with it, one that is owned is SPB_LOCKED. A path that is a block
 * device is formatted in place, only with replace. After a crash there is the old file or the new
 * one, and at most a stray ".NAME.tmp-*". Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_image_create(const char *path,
                                                 const struct spb_format_options *options,
                                                 bool replace, struct spb_error *err);

struct spb_open_options {
    uint32_t sector_size; /* 0: the device's size divided by total_blocks */
    bool writable;        /* recovers first, as format.md demands of every writable opening */
};

/*
 * Opens a volume. The device is handed over on success and stays the caller's on failure. Damage of
 * the superblock has its own codes (SPB_BAD_*); damaged records do not hinder an opening and show
 * when they are read. Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_volume_open(struct spb_device *device,
                                                const struct spb_open_options *options,
                                                struct spb_volume **volume, struct spb_error *err);

/* Accepts NULL. Groups and reservations of the volume must be gone. Closes the device. */
SPB_API void spb_volume_close(struct spb_volume *volume);

/* The same, but the device is the caller's again, with its locks. */
SPB_API struct spb_device *spb_volume_release(struct spb_volume *volume);

/* Opens a poisoned volume anew on its device: recovery, then all state read again. On failure the
 * volume stays poisoned. No group may be open. Blocks. */
SPB_API SPB_MUST_USE spb_status spb_volume_reopen(struct spb_volume *volume, struct spb_error *err);

/* Reads all metadata from the device again (of a volume opened for reading, whose owner is
 * another). On failure the state stays as it was. Blocks. */
SPB_API SPB_MUST_USE spb_status spb_volume_refresh(struct spb_volume *volume,
                                                   struct spb_error *err);

/*
 * Lends a writable volume on a file to a guest, who changes it from now on: flushes, then lets QEMU
 * have the file (spb_device_file_lend). It is open for reading only from here on, beside a writer:
 * spb_volume_read_update. No group and no reservation may be left. SPB_IO where the flush fails,
 * which poisons; on failure it is not lent. Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_volume_lend(struct spb_volume *volume, struct spb_error *err);

/* What somebody else has made of the metadata of a volume that is open for reading. */
struct spb_update;

/*
 * Reads the metadata again beside whoever changes it. What is found held at one moment, and has
 * been read again, over some 50 ms, before something in it is taken for corrupt that was not so
 * before. *update gets NULL where all is as the volume shows it. SPB_AGAIN where the metadata
 * changes faster than it can be read, SPB_CHANGED or SPB_BAD_* where the superblock is no longer
 * the volume's.
 *
 * One thread at a time, and none beside apply. Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_volume_read_update(struct spb_volume *volume,
                                                       struct spb_update **update,
                                                       struct spb_error *err);
SPB_API uint32_t spb_update_event_pointer(const struct spb_update *update);
/* Are the live events that the volume shows still there, as far as they are live? If not, the log
 * was not just appended to. */
SPB_API bool spb_update_only_appends(const struct spb_volume *volume,
                                     const struct spb_update *update);
/* Makes it the volume's state; it is gone then. What is known of products that are still the same
 * is kept, but for those that were found rotten: they are looked at again. No I/O. */
SPB_API void spb_volume_apply_update(struct spb_volume *volume, struct spb_update *update);
/* Accepts NULL. */
SPB_API void spb_update_free(struct spb_update *update);

SPB_API struct spb_device *spb_volume_device(const struct spb_volume *volume);
SPB_API const struct spb_superblock *spb_volume_superblock(const struct spb_volume *volume);
SPB_API uint32_t spb_volume_sector_size(const struct spb_volume *volume);

/* SPB_OK where changes are taken; else SPB_READ_ONLY or SPB_POISONED with the reason. */
SPB_API SPB_MUST_USE spb_status spb_volume_is_writable(const struct spb_volume *volume,
                                                       struct spb_error *err);

/* ---- Parameters --------------------------------------------------------------------------- */

enum spb_param_state { SPB_PARAM_FREE, SPB_PARAM_VALID, SPB_PARAM_CORRUPT };

struct spb_param {
    uint32_t slot; /* from 0, in block order */
    enum spb_param_state state;
    bool newest; /* a valid entry that is its id's value */
    uint32_t id; /* of a corrupt slot: what it shows */
    uint16_t generation;
    uint16_t len; /* of value; 0 of a corrupt slot */
    uint8_t value[SPB_PARAM_VALUE_MAX];
};

/* The seed's max_params: slots in the area, those that are never filled by us included. */
SPB_API uint32_t spb_param_slots(const struct spb_volume *volume);

/* The slot as it stands (the seed's read_param). SPB_INVALID for a slot beyond the area. */
SPB_API SPB_MUST_USE spb_status spb_param_read_slot(const struct spb_volume *volume, uint32_t slot,
                                                    struct spb_param *param, struct spb_error *err);

struct spb_param_warning {
    bool newer_corrupt; /* a corrupt slot names the id with a generation above the value's */
    uint32_t slot;
    uint16_t generation;
};

/*
 * The value of an id (the seed's param). SPB_NOT_FOUND: no slot names it; SPB_CORRUPT: only corrupt
 * ones do. warning (may be NULL) tells of a corrupt slot that may be a rotted newer value.
 */
SPB_API SPB_MUST_USE spb_status spb_param_find(const struct spb_volume *volume, uint32_t id,
                                               struct spb_param *param,
                                               struct spb_param_warning *warning,
                                               struct spb_error *err);

/* The value of every id, ascending (the seed's latest_params); *params is the caller's, free(). */
SPB_API SPB_MUST_USE spb_status spb_param_latest(const struct spb_volume *volume,
                                                 struct spb_param **params, size_t *count,
                                                 struct spb_error *err);

/* All slots that name the id, valid and corrupt, highest generation first; *params is the caller's,
 * free(). SPB_NOT_FOUND where there is none. */
SPB_API SPB_MUST_USE spb_status spb_param_history(const struct spb_volume *volume, uint32_t id,
                                                  struct spb_param **params, size_t *count,
                                                  struct spb_error *err);

/* ---- Events ------------------------------------------------------------------------------- */

struct spb_event {
    uint32_t index;     /* in order of writing, from 0; set by the library */
    bool corrupt;       /* the record's CRC or length is wrong; the rest is zero then */
    uint32_t timestamp; /* seconds since the volume's epoch */
    uint8_t severity;
    uint8_t payload_len;
    uint16_t code;
    uint8_t payload[SPB_EVENT_PAYLOAD_MAX];
};

/* The write pointer: events ever written (the seed's read_event_pointer and event_count). */
SPB_API uint32_t spb_event_pointer(const struct spb_volume *volume);
/* C, the slots of the ring. */
SPB_API uint32_t spb_event_capacity(const struct spb_volume *volume);
/* The most events that one append takes, and the length of the live window: C - R. */
SPB_API uint32_t spb_event_window(const struct spb_volume *volume);
/* Index of the oldest live event; equals the pointer where there is none. */
SPB_API uint32_t spb_event_oldest(const struct spb_volume *volume);

/* A live event. SPB_NOT_FOUND outside of the live window; a corrupt one is reported in *event. */
SPB_API SPB_MUST_USE spb_status spb_event_read(const struct spb_volume *volume, uint32_t index,
                                               struct spb_event *event, struct spb_error *err);

/* The newest count live events or fewer, oldest first; *events is the caller's, free(). */
SPB_API SPB_MUST_USE spb_status spb_event_recent(const struct spb_volume *volume, uint32_t count,
                                                 struct spb_event **events, size_t *found,
                                                 struct spb_error *err);

/* Seconds since the volume's epoch of a UNIX time; SPB_INVALID before the epoch or beyond u32. */
SPB_API SPB_MUST_USE spb_status spb_event_time(const struct spb_volume *volume, int64_t unix_s,
                                               uint32_t *timestamp, struct spb_error *err);

/* ---- Data products ------------------------------------------------------------------------ */

enum spb_product_state {
    SPB_PRODUCT_FREE,    /* the entry is free */
    SPB_PRODUCT_PRESENT, /* well formed; its data has not been checked since the opening */
    SPB_PRODUCT_GOOD,    /* its data was read and matches; length is known */
    SPB_PRODUCT_ROTTEN,  /* its data was read and does not match */
    SPB_PRODUCT_INVALID, /* the entry itself breaks the rules of format.md */
};

struct spb_product {
    uint32_t entry; /* index in the catalog */
    enum spb_product_state state;
    uint32_t block_offset; /* from dp_start */
    uint32_t block_count;
    uint16_t product_class;
    uint8_t priority;                    /* 0 the highest */
    uint8_t name_len;                    /* as stored; above 64 only of an invalid entry */
    char name[SPB_PRODUCT_NAME_MAX + 1]; /* min(name_len, 64) bytes and a NUL */
    uint32_t crc;                        /* CRC-32C of the exact bytes */
    uint64_t length; /* bytes; 0 unless GOOD, or known because there is no data */
};

SPB_API uint32_t spb_product_entries(const struct spb_volume *volume);
/* Entry as it stands; SPB_INVALID for an index beyond the catalog. */
SPB_API SPB_MUST_USE spb_status spb_product_entry(const struct spb_volume *volume, uint32_t index,
                                                  struct spb_product *product,
                                                  struct spb_error *err);

/*
 * The product of a name (the seed's dp): the lowest well-formed entry of that name that is not
 * known to be rotten; failing that, the lowest rotten one. SPB_NOT_FOUND; SPB_INVALID for a bad
 * name. Where several entries share the name, the caller verifies and finds again.
 */
SPB_API SPB_MUST_USE spb_status spb_product_find(const struct spb_volume *volume, const void *name,
                                                 size_t name_len, struct spb_product *product,
                                                 struct spb_error *err);
/* The product whose extent begins at a block offset (the seed's read_dp); SPB_NOT_FOUND. */
SPB_API SPB_MUST_USE spb_status spb_product_find_at(const struct spb_volume *volume,
                                                    uint32_t block_offset,
                                                    struct spb_product *product,
                                                    struct spb_error *err);

/* A name as the format wants it: 1 to 64 bytes, UTF-8, no NUL. */
SPB_API SPB_MUST_USE spb_status spb_product_name_check(const void *name, size_t name_len,
                                                       struct spb_error *err);

/* Blocks of the area that nothing covers, and the largest run of them. */
SPB_API void spb_product_space(const struct spb_volume *volume, uint64_t *free_blocks,
                               uint32_t *largest_blocks);

/* Called between pieces of long work; false ends it with SPB_DEADLINE. May be NULL. */
typedef bool (*spb_progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);

/*
 * Reads a product's data once and finds its exact length (the reader's rule). SPB_CORRUPT where no
 * length matches the CRC. Does I/O only; spb_product_note keeps what was found.
 */
SPB_API SPB_MUST_USE spb_status spb_product_verify(const struct spb_volume *volume,
                                                   const struct spb_product *product,
                                                   spb_progress progress, void *user,
                                                   uint64_t *length, struct spb_error *err);

/* Keeps the outcome of a verify with the entry, unless the entry is another one by now. */
SPB_API void spb_product_note(struct spb_volume *volume, const struct spb_product *product,
                              bool good, uint64_t length);

/*
 * Reads n bytes at an offset of the product's blocks (padding included: the caller keeps within
 * the length). While pinned, its extent is given to nobody. Does I/O only.
 */
SPB_API SPB_MUST_USE spb_status spb_product_read(const struct spb_volume *volume,
                                                 const struct spb_product *product, uint64_t offset,
                                                 void *buffer, size_t n, struct spb_error *err);

/* Space that is held for a product to come, or for a running read (a pin). */
struct spb_reservation;

/*
 * Holds the smallest free extent for size bytes, and the one block more that the length rule may
 * need where that is to be had. SPB_FULL tells what is free and the largest extent.
 */
SPB_API SPB_MUST_USE spb_status spb_reservation_new(struct spb_volume *volume, uint64_t size_bytes,
                                                    struct spb_reservation **reservation,
                                                    struct spb_error *err);
/* The same at a block offset of the area; SPB_IN_USE where any of it is taken (the seed's
 * write_dp). */
SPB_API SPB_MUST_USE spb_status spb_reservation_new_at(struct spb_volume *volume,
                                                       uint32_t block_offset, uint64_t size_bytes,
                                                       struct spb_reservation **reservation,
                                                       struct spb_error *err);
/*
 * Exactly these blocks of the area, for the rest of an upload that began before a restart.
 * SPB_IN_USE where a catalog entry (a corrupt one included) or another reservation touches any of
 * them; SPB_INVALID outside of the area, or for its block 0. An extent of no blocks is held for a
 * product of no data.
 */
SPB_API SPB_MUST_USE spb_status spb_reservation_new_extent(struct spb_volume *volume,
                                                           uint32_t block_offset,
                                                           uint32_t block_count,
                                                           struct spb_reservation **reservation,
                                                           struct spb_error *err);
/* The blocks that are held, the one more of the length rule included. */
SPB_API void spb_reservation_extent(const struct spb_reservation *reservation,
                                    uint32_t *block_offset, uint32_t *block_count);
/* Pins the extent of a product. */
SPB_API SPB_MUST_USE spb_status spb_reservation_pin(struct spb_volume *volume,
                                                    const struct spb_product *product,
                                                    struct spb_reservation **reservation,
                                                    struct spb_error *err);
/* Gives the space back; accepts NULL. */
SPB_API void spb_reservation_free(struct spb_reservation *reservation);

/*
 * Writes a product's bytes to its reservation, which outlives the writer, in order, in constant
 * memory. finish applies the length rule to the tail (one 0x80 where zeros would read back as
 * another length). The bytes are durable with the group that publishes them. All do I/O only and
 * block.
 */
struct spb_product_writer;
SPB_API SPB_MUST_USE spb_status spb_product_writer_new(struct spb_volume *volume,
                                                       struct spb_reservation *reservation,
                                                       uint64_t size_bytes,
                                                       struct spb_product_writer **writer,
                                                       struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_product_writer_write(struct spb_product_writer *writer,
                                                         const void *data, size_t n,
                                                         struct spb_error *err);
/*
 * Makes what was taken so far durable as far as it can, with a flush where there is something new.
 * *offset gets how many bytes from the start are durable now and *crc their CRC-32C: what a later
 * spb_product_writer_resume wants. They are whole blocks, at most one block behind what was taken.
 * SPB_INVALID after finish. A failed flush poisons the volume, as that of a group does; SPB_IO too
 * where one failed since the reservation was made. Does I/O only, and blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_product_writer_sync(struct spb_product_writer *writer,
                                                        uint64_t *offset, uint32_t *crc,
                                                        struct spb_error *err);
/*
 * The same in two steps. The first writes what is held, and tells what the second one makes
 * durable; that may run beside writes of the same writer, on another thread, and fails as sync
 * does.
 */
SPB_API SPB_MUST_USE spb_status spb_product_writer_begin_sync(struct spb_product_writer *writer,
                                                              uint64_t *offset, uint32_t *crc,
                                                              struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_product_writer_flush(const struct spb_product_writer *writer,
                                                         struct spb_error *err);
/*
 * A writer that goes on at an offset, in an extent that holds the bytes before it: those are read
 * again, past the page cache where that can be had, and compared with crc. SPB_CORRUPT where they
 * differ: the caller begins anew. SPB_INVALID for an offset beyond size_bytes. Does I/O only, and
 * blocks for the reading.
 */
SPB_API SPB_MUST_USE spb_status spb_product_writer_resume(
    struct spb_volume *volume, struct spb_reservation *reservation, uint64_t size_bytes,
    uint64_t offset, uint32_t crc, struct spb_product_writer **writer, struct spb_error *err);
/* Bytes taken so far. */
SPB_API uint64_t spb_product_writer_offset(const struct spb_product_writer *writer);
/* n of them, from an offset on; SPB_INVALID beyond the last one. */
SPB_API SPB_MUST_USE spb_status spb_product_writer_read(const struct spb_product_writer *writer,
                                                        uint64_t offset, void *buffer, size_t n,
                                                        struct spb_error *err);

/* What was written, to be published: exact length, CRC and blocks. */
struct spb_product_data {
    uint64_t length;
    uint32_t crc;
    uint32_t block_count;
};
/* SPB_INVALID where fewer or more bytes came than were announced. */
SPB_API SPB_MUST_USE spb_status spb_product_writer_finish(struct spb_product_writer *writer,
                                                          struct spb_product_data *data,
                                                          struct spb_error *err);
/* Accepts NULL. */
SPB_API void spb_product_writer_free(struct spb_product_writer *writer);

/* Flushes, then reads the written extent back and compares length and CRC. Does I/O only: for a
 * caller that wants this done before the group that publishes. SPB_IO where a flush failed since
 * the reservation was made: its bytes may be lost, and it will not be published. */
SPB_API SPB_MUST_USE spb_status spb_product_data_verify(const struct spb_volume *volume,
                                                        const struct spb_reservation *reservation,
                                                        const struct spb_product_data *data,
                                                        struct spb_error *err);

/* ---- Check -------------------------------------------------------------------------------- */

enum spb_finding_kind {
    SPB_FINDING_PARAM_CORRUPT,     /* index: slot */
    SPB_FINDING_POINTER,           /* the pointer disagrees with the records; not repaired */
    SPB_FINDING_EVENT_CORRUPT,     /* index: event */
    SPB_FINDING_ENTRY_INVALID,     /* index: catalog entry */
    SPB_FINDING_PRODUCT_ROTTEN,    /* index: catalog entry */
    SPB_FINDING_PRODUCT_DUPLICATE, /* index: catalog entry that does not count */
    SPB_FINDING_PRODUCT_OVERLAP,   /* index: catalog entry; reported, dropped only if unreadable */
    SPB_FINDING_MEDIUM,            /* index: sector; no longer holds what was durable there */
};

struct spb_finding {
    enum spb_finding_kind kind;
    uint32_t index;
    bool repairable; /* repair changes it */
    char text[384];  /* UTF-8; of a product's name, what is none or would not show is \xNN */
};

struct spb_report {
    struct spb_finding *findings;
    size_t count;
    uint32_t params_valid, params_superseded, params_free, params_corrupt;
    uint32_t events_live, events_corrupt;
    uint32_t products_good, products_bad;
    uint64_t blocks_used, blocks_free; /* of the data product area */
};

/* Static name of a kind, such as "param-corrupt". */
SPB_API const char *spb_finding_name(enum spb_finding_kind kind);

/*
 * Checks everything (fsck): reads all product data. SPB_OK with count 0 is a clean volume; findings
 * are no failure. spb_report_done frees the findings. Notes each product's outcome. Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_volume_check(struct spb_volume *volume, spb_progress progress,
                                                 void *user, struct spb_report *report,
                                                 struct spb_error *err);
SPB_API void spb_report_done(struct spb_report *report);

/*
 * The check for a volume in service: reads the medium again, past the page cache where that can be
 * had, in pieces of at most 256 KiB, with progress called between them (a caller that bounds its
 * rate sleeps there). Any thread, beside the actor and its groups; never blocks them for longer
 * than a copy of the metadata. Repairs nothing, and notes what became of each product's data, as
 * check does. Its report is for reading: repair checks anew. Of a volume opened for reading the
 * metadata is not compared, and of one that another owner or a guest changes nothing is promised.
 * Beside check's findings a sector of the metadata may be told of that cannot be read.
 *
 * Finds what stood there all the while: a sector or product that was replaced, moved or deleted
 * meanwhile is looked at again as it is now, or left out where it keeps changing. Records are
 * checked as they stood at the beginning.
 */
SPB_API SPB_MUST_USE spb_status spb_volume_scrub(struct spb_volume *volume, spb_progress progress,
                                                 void *user, struct spb_report *report,
                                                 struct spb_error *err);

/* ---- Copies ------------------------------------------------------------------------------- */

/* Who an image is; a copy gets another uuid than its original. */
struct spb_snapshot_identity {
    uint8_t uuid[SPB_UUID_SIZE];
    uint16_t tenant_id;
};

/* A volume's state at one moment, to be copied while the volume goes on. */
struct spb_snapshot;

/*
 * Takes the metadata as it is published, and pins the extents of all products: those that are
 * deleted or replaced later keep their blocks until spb_snapshot_free. The actor's; no I/O. Of a
 * volume opened for reading it holds only while nobody else changes the image; of a poisoned one it
 * has the state before the change that failed.
 */
SPB_API SPB_MUST_USE spb_status spb_snapshot_new(struct spb_volume *volume,
                                                 struct spb_snapshot **snapshot,
                                                 struct spb_error *err);
/* Bytes of the image: what a device for the copy must have, and exactly so where its size is to
 * tell the sector size. */
SPB_API uint64_t spb_snapshot_size_bytes(const struct spb_snapshot *snapshot);
/*
 * Writes the image to another device: the metadata, under a new identity where one is given, the
 * data of the products, and zeros elsewhere (nothing, where the device is known to be zeroed), then
 * flushes. The superblock comes last: after a crash there is no image, or all of it. Products are
 * copied as they are, rotten ones too. Refuses a device as spb_volume_format does. Any thread,
 * while groups of the volume go on. Blocks; progress is called between pieces of at most 1 MiB.
 */
SPB_API SPB_MUST_USE spb_status spb_snapshot_copy(const struct spb_snapshot *snapshot,
                                                  struct spb_device *device,
                                                  const struct spb_snapshot_identity *identity,
                                                  spb_progress progress, void *user,
                                                  struct spb_error *err);
/* Accepts NULL. Any thread. */
SPB_API void spb_snapshot_free(struct spb_snapshot *snapshot);

/*
 * Gives an image another identity: one write of the superblock's sector and a flush, so that after
 * a crash it is the old one or the new one. The device is open for writing and no volume is open on
 * it. SPB_BAD_* where its superblock is none. Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_volume_set_identity(
    struct spb_device *device, const struct spb_snapshot_identity *identity, struct spb_error *err);

/* The summary of the seed's pp, several lines, NUL-terminated; the caller's, free(). NULL: no
 * memory. */
SPB_API char *spb_volume_describe(const struct spb_volume *volume);

#ifdef __cplusplus
}
#endif
#endif
