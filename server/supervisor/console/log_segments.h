/*
 * The segments of a log: which there are, by name and size, oldest first. The list of them is not
 * locked; its owner does that. Files are found again from the directory alone.
 */
#ifndef SPB_CONSOLE_LOG_SEGMENTS_H
#define SPB_CONSOLE_LOG_SEGMENTS_H

#include <stddef.h>
#include <stdint.h>

#include "supervisor/console/log.h"

#define SPB_SEGMENT_NAME_SIZE 21u /* 16 hexadecimal digits, ".log", NUL */

struct spb_segment {
    uint64_t first; /* offset of its first byte */
    uint64_t size;  /* bytes that belong to the stream */
};

struct spb_segments {
    size_t count;
    struct spb_segment list[SPB_LOG_SEGMENTS]; /* ascending, not overlapping */
};

void spb_segment_name(uint64_t first, char name[SPB_SEGMENT_NAME_SIZE]);
/* DIRECTORY/NAME, allocated: the caller's. NULL: out of memory. */
char *spb_segment_path(const char *directory, uint64_t first);

/*
 * Reads the directory. More segments than a log may have, or more bytes than total, are removed
 * from the disk, oldest first. What was left behind is taken as it is: an empty segment tells where
 * the stream was, one that runs into the next is cut there, one that would pass the last offset is
 * none.
 */
SPB_MUST_USE spb_status spb_segments_load(const char *directory, uint64_t total,
                                          struct spb_segments *segments, struct spb_error *err);

uint64_t spb_segments_bytes(const struct spb_segments *segments);
/* Past the newest byte; 0: there is no segment. */
uint64_t spb_segments_end(const struct spb_segments *segments);
/* The segment with the first byte that is kept at or past offset, NULL: none. */
const struct spb_segment *spb_segments_find(const struct spb_segments *segments, uint64_t offset);
/* Takes the oldest off the list; its file is the caller's. Not of an empty list. */
struct spb_segment spb_segments_shift(struct spb_segments *segments);

#endif
