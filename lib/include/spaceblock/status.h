/*
 * Outcome of an operation, and the text that explains a failure.
 *
 * Every fallible function of libspaceblock returns spb_status, which callers must look at, and
 * takes a struct spb_error * (borrowed for the call, may be NULL) that is filled on failure only: a
 * code, the errno that led to it (0 if none), and one line of text that says what was tried, on
 * what, what was found and what was expected. Nothing is allocated, nothing is thread-local; any
 * thread may use its own spb_error.
 */
#ifndef SPACEBLOCK_STATUS_H
#define SPACEBLOCK_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPB_API __attribute__((visibility("default")))
#define SPB_MUST_USE __attribute__((warn_unused_result))

enum spb_code {
    SPB_OK = 0,
    SPB_INVALID,     /* an argument is out of its domain; nothing was done */
    SPB_NOT_FOUND,   /* the parameter, event, product, file or image is absent */
    SPB_EXISTS,      /* the name is taken */
    SPB_IN_USE,      /* the slot or block offset that was named is occupied */
    SPB_GENERATION,  /* the expected generation is not the newest valid one */
    SPB_CHANGED,     /* the product is no longer the one that was being read */
    SPB_FULL,        /* no parameter slot, catalog entry or free extent is left */
    SPB_LIMIT,       /* over a limit of size or count */
    SPB_AGAIN,       /* only lacks space that its own group has not flushed yet: next group */
    SPB_CORRUPT,     /* what is on the medium fails its CRC or its rules */
    SPB_BAD_MAGIC,   /* superblock: not an image */
    SPB_BAD_CRC,     /* superblock: CRC differs */
    SPB_BAD_VERSION, /* superblock: a format version that is not 1 */
    SPB_BAD_DP_AREA, /* superblock: data product area outside of the image */
    SPB_BAD_SIZE,    /* device size does not agree with the superblock: sector size unknown */
    SPB_IO,          /* the medium failed: the change may or may not have happened */
    SPB_POISONED,    /* an earlier flush or write failed: no change until opened anew */
    SPB_READ_ONLY,   /* the volume was opened for reading, or its medium cannot be written */
    SPB_LOCKED,      /* another owner or a running guest holds the image */
    SPB_NO_MEMORY,
    SPB_UNSUPPORTED, /* the device or system cannot do this */
    SPB_DEADLINE,    /* the deadline passed */
    SPB_UNREACHABLE, /* no connection to the daemon could be made, or it was lost */
    SPB_PROTOCOL,    /* the peer broke the protocol */
    SPB_REMOTE,      /* the daemon answered with an error that has no closer code */
    SPB_CODE_COUNT
};

/* A one-field struct, so that it is neither a truth value nor an integer by accident. */
typedef struct {
    enum spb_code code;
} spb_status;

#define SPB_ERROR_TEXT_SIZE 512

struct spb_error {
    enum spb_code code;
    int saved_errno;                /* 0 where no system call failed */
    char text[SPB_ERROR_TEXT_SIZE]; /* NUL-terminated, one line; cut where too long */
};

static inline bool spb_is_ok(spb_status status)
{
    return status.code == SPB_OK;
}

/* Short stable word of a code, such as "not-found"; a static string, never NULL. */
SPB_API const char *spb_code_name(enum spb_code code);

#ifdef __cplusplus
}
#endif
#endif
