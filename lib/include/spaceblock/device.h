/*
 * Block device behind a small table of functions, so that volumes run on files, block devices,
 * memory and the tests' simulated medium alike.
 *
 * Units: bytes, offsets from the device's start. The atomic unit of a write after power loss is one
 * aligned sector of SPB_SECTOR_SIZE bytes, whatever the volume's own block size (format.md, "The
 * medium"). All calls block. read, read_medium, write and flush of one device may run on several
 * threads at once; open and close may not overlap anything else on that device.
 */
#ifndef SPACEBLOCK_DEVICE_H
#define SPACEBLOCK_DEVICE_H

#include <stdint.h>

#include "spaceblock/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SPB_SECTOR_SIZE 512u

struct spb_device;

/*
 * What a kind of device can do. The wrappers below check bounds, so an implementation may trust
 * its offsets and lengths. Each function returns SPB_IO (with errno kept) where the medium failed.
 */
struct spb_device_ops {
    /* Reads exactly n bytes as every process sees them now. */
    spb_status (*read)(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                       struct spb_error *err);
    /*
     * Reads exactly n bytes as the medium holds them, past any cache (O_DIRECT); offset and n are
     * multiples of 512. SPB_UNSUPPORTED where that cannot be had (tmpfs).
     */
    spb_status (*read_medium)(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                              struct spb_error *err);
    /* Writes exactly n bytes; durable only after a flush that began later and succeeded. */
    spb_status (*write)(struct spb_device *device, uint64_t offset, const void *data, size_t n,
                        struct spb_error *err);
    /* May be NULL. Begins to bring n bytes that were written to the medium, as a flush would, and
     * does not wait for it. Makes nothing durable; a failure is the next flush's to tell. */
    void (*push)(struct spb_device *device, uint64_t offset, uint64_t n);
    /* Makes all completed writes durable. A failure is for good: every later flush fails too. */
    spb_status (*flush)(struct spb_device *device, struct spb_error *err);
    /* Makes n bytes read as zeros, as a write does (durable after a flush). */
    spb_status (*zero)(struct spb_device *device, uint64_t offset, uint64_t n,
                       struct spb_error *err);
    /*
     * After a failed flush: forgets the failure, so that the device can be recovered through
     * read_medium. Refused (SPB_UNSUPPORTED) where read_medium is not to be had.
     */
    spb_status (*forgive)(struct spb_device *device, struct spb_error *err);
    /*
     * May be NULL. Copies n bytes from a device with the same table, durable as a write is, without
     * a detour through memory. SPB_UNSUPPORTED where that cannot be had between these two; then
     * some of it may be copied already.
     */
    spb_status (*copy)(struct spb_device *device, uint64_t offset, struct spb_device *from,
                       uint64_t from_offset, uint64_t n, struct spb_error *err);
    /* Ends the device and frees it; locks are dropped with it. */
    void (*close)(struct spb_device *device);
};

/* First member of every implementation's own struct. */
struct spb_device {
    const struct spb_device_ops *ops;
    uint64_t size_bytes;
    uint32_t sector_size; /* of an atomic write: SPB_SECTOR_SIZE */
    bool writable;
    bool zeroed;    /* known to read as zeros throughout (a fresh file) */
    char name[256]; /* for error texts: a path, or "memory" */
};

SPB_API SPB_MUST_USE spb_status spb_device_read(struct spb_device *device, uint64_t offset,
                                                void *buffer, size_t n, struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_device_read_medium(struct spb_device *device, uint64_t offset,
                                                       void *buffer, size_t n,
                                                       struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_device_write(struct spb_device *device, uint64_t offset,
                                                 const void *data, size_t n, struct spb_error *err);
SPB_API void spb_device_push(struct spb_device *device, uint64_t offset, uint64_t n);
SPB_API SPB_MUST_USE spb_status spb_device_flush(struct spb_device *device, struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_device_zero(struct spb_device *device, uint64_t offset,
                                                uint64_t n, struct spb_error *err);
/* Copies bytes from another device, by whatever means the two have; reading and writing at last.
 * Where their file system can share blocks between files, it may. */
SPB_API SPB_MUST_USE spb_status spb_device_copy(struct spb_device *device, uint64_t offset,
                                                struct spb_device *from, uint64_t from_offset,
                                                uint64_t n, struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_device_forgive(struct spb_device *device,
                                                   struct spb_error *err);
/* Accepts NULL. */
SPB_API void spb_device_close(struct spb_device *device);

/* A device in memory, zero-filled; for tests, fuzzers and copies. */
SPB_API SPB_MUST_USE spb_status spb_device_memory_new(uint64_t size_bytes,
                                                      struct spb_device **device,
                                                      struct spb_error *err);

enum spb_file_mode {
    SPB_FILE_READ,  /* no lock; spb_device_file_owner() tells whether somebody owns it */
    SPB_FILE_WRITE, /* one owner: takes the locks of format.md, "Who may write", or SPB_LOCKED */
    /* One owner, whose image a guest has: as SPB_FILE_WRITE, but leaves to QEMU what lend leaves,
     * and reads only until spb_device_file_take_back. */
    SPB_FILE_LENT,
};

/* Opens a regular file or block device. Descriptors are CLOEXEC. */
SPB_API SPB_MUST_USE spb_status spb_device_file_open(const char *path, enum spb_file_mode mode,
                                                     struct spb_device **device,
                                                     struct spb_error *err);

/*
 * Who holds the file behind a device of spb_device_file_open, other than this device: fills words
 * (such as "a spaceblock daemon or command" or "a running QEMU") and the process id, 0 where the
 * kernel does not tell it (it does not for OFD locks). Returns false, and leaves both untouched,
 * for nobody.
 */
SPB_API bool spb_device_file_owner(struct spb_device *device, char *words, size_t words_size,
                                   int *pid);

/* Is the path still the file behind a device of spb_device_file_open, and not removed or replaced?
 */
SPB_API bool spb_device_file_is_current(struct spb_device *device);

/*
 * A file whose length is more than the space it has, which a guest's discards and copying by others
 * make: not exact, since what the file system needs for itself counts. False where it cannot be
 * told, and of what is no file.
 */
SPB_API bool spb_device_file_lacks_space(struct spb_device *device);
/*
 * Gives the file space for all of its length again, so that no write of it needs any; what it holds
 * stays. SPB_FULL where there is no room. Where the file system cannot do that, and on what is no
 * regular file, nothing is done. Blocks.
 */
SPB_API SPB_MUST_USE spb_status spb_device_file_reserve(struct spb_device *device,
                                                        struct spb_error *err);

/*
 * Lends the image to a guest: releases the bytes that keep QEMU out (101 and 201) and keeps the
 * owner's lock on byte 64; the device takes no writes until take_back, which locks them again:
 * SPB_LOCKED while a QEMU still holds them. To be called by whoever alone may write, after its last
 * write.
 */
SPB_API SPB_MUST_USE spb_status spb_device_file_lend(struct spb_device *device,
                                                     struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_device_file_take_back(struct spb_device *device,
                                                          struct spb_error *err);

#ifdef __cplusplus
}
#endif
#endif
