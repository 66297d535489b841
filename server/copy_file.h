/*
 * Files that come to be beside the images: temporary ones with all their space from the start,
 * which get their name once they are whole, and never in another's place. All block; workers only.
 * Texts of errors never say where on the host a file lies: they go to clients.
 *
 * The space of all temporary files is counted, before they are made, against temporary_max_bytes.
 */
#ifndef SPB_SERVER_COPY_FILE_H
#define SPB_SERVER_COPY_FILE_H

#include <stdint.h>

#include "spaceblock/status.h"

struct spb_daemon;
struct spb_sha256;

/* Counts n bytes of temporary files; SPB_LIMIT where they would be too many. Any thread. */
SPB_MUST_USE spb_status spb_temporary_take(struct spb_daemon *daemon, uint64_t n,
                                           struct spb_error *err);
void spb_temporary_give(struct spb_daemon *daemon, uint64_t n);

/* A tenant's folder below a parent, durable in it before anything is in the folder. */
SPB_MUST_USE spb_status spb_folder_make(const char *parent, uint16_t tenant, struct spb_error *err);
/* The names in the folder of a path are durable. */
SPB_MUST_USE spb_status spb_folder_sync(const char *path, struct spb_error *err);

/*
 * A new file of that size, allocated, zeros, and durable with its name; *fd is the caller's.
 * SPB_FULL where there is no room; nothing is left behind then. what names it in errors.
 */
SPB_MUST_USE spb_status spb_file_allocate(const char *path, uint64_t size, const char *what,
                                          int *fd, struct spb_error *err);
/*
 * Gives a file its name, which nothing may have (SPB_EXISTS), and makes that durable. *named is set
 * once the name is given, be it durable or not. what names the file in errors.
 */
SPB_MUST_USE spb_status spb_file_name(const char *from, const char *to, const char *what,
                                      bool *named, struct spb_error *err);

/* Exactly n bytes at an offset. */
SPB_MUST_USE spb_status spb_file_read(int fd, uint64_t offset, void *buffer, size_t n,
                                      const char *what, struct spb_error *err);
SPB_MUST_USE spb_status spb_file_write(int fd, uint64_t offset, const void *data, size_t n,
                                       const char *what, struct spb_error *err);

/*
 * CRC-32C of the first n bytes, which a digest (may be NULL) gets too. may_go_on (may be NULL) is
 * asked between pieces: false ends it with SPB_DEADLINE.
 */
struct spb_file_scan {
    int fd;
    uint64_t size;
    const char *what;
    struct spb_sha256 *digest;
    bool (*may_go_on)(void *user, uint64_t done, uint64_t total);
    void *user;
};
SPB_MUST_USE spb_status spb_file_crc(const struct spb_file_scan *scan, uint32_t *crc,
                                     struct spb_error *err);

#endif
