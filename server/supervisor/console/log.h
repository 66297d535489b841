/*
 * A stream's bytes on disk, by absolute offset, in a directory of its own: segments, files that are
 * named for the offset of their first byte ("00000000000a1000.log") and only ever grow. The oldest
 * is removed whole to keep under a total; nothing is truncated or written twice. What the names and
 * sizes do not cover is a gap: bytes that came while the disk took none.
 *
 * One thread writes (spb_log_add, rest, free), any number read. Writing reaches the page cache and
 * is never flushed: a power loss may cost the end, which was the guest's end too. A failed write
 * stops the log; it is tried again after SPB_LOG_RETRY_MS, in a new segment.
 */
#ifndef SPB_CONSOLE_LOG_H
#define SPB_CONSOLE_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_LOG_SEGMENTS 16u /* files at most */
#define SPB_LOG_TOTAL_MIN 4096u
#define SPB_LOG_RETRY_MS 10000

struct spb_log;

/*
 * directory is copied; it is made (0700) where it is absent, its parent has to be there. total:
 * bytes of all segments, at least SPB_LOG_TOTAL_MIN. What is there beyond it is removed, oldest
 * first, but the newest segment, which tells the end. Files of other names are left alone. The
 * stream goes on at the end of the newest segment, or at floor where that is more: what else the
 * caller knows of it. Blocks.
 */
SPB_MUST_USE spb_status spb_log_open(const char *directory, uint64_t total, uint64_t floor,
                                     struct spb_log **log, struct spb_error *err);
/* Accepts NULL. */
void spb_log_free(struct spb_log *log);
/* Closes the file; the next byte opens it again. Keeps no descriptor at rest. */
void spb_log_rest(struct spb_log *log);

enum spb_log_news { SPB_LOG_NOTHING, SPB_LOG_STOPPED, SPB_LOG_RESUMED };

/*
 * Adds n bytes at the end; the stream goes on by n whatever becomes of them. now_ms: a clock that
 * only rises. Says when the log stops (why is filled then) and when it goes on, each once. Never
 * waits for the disk beyond what the page cache makes it wait.
 */
enum spb_log_news spb_log_add(struct spb_log *log, const void *bytes, size_t n, int64_t now_ms,
                              struct spb_error *why);

/*
 * Copies at most n bytes that are kept at offset, or past it where it is in a gap or too old; *at
 * is where out begins. *size 0: nothing is kept from offset on, and *at is the end. Any thread;
 * blocks.
 */
SPB_MUST_USE spb_status spb_log_read(struct spb_log *log, uint64_t offset, void *out, size_t n,
                                     uint64_t *at, size_t *size, struct spb_error *err);
/* Offset of the oldest byte on disk, and the end of the stream; equal: nothing is kept. Any thread.
 */
void spb_log_extent(struct spb_log *log, uint64_t *begin, uint64_t *end);
/* Is anything on disk from offset on, and before limit? Any thread; does not block. */
bool spb_log_has(struct spb_log *log, uint64_t offset, uint64_t limit);
/* Is everything from offset to limit on disk? As spb_log_has. */
bool spb_log_covers(struct spb_log *log, uint64_t offset, uint64_t limit);

/* Removes segments and the directory. SPB_NOT_FOUND: it is not there. SPB_IO, with its name, where
 * something else lies in it. Blocks. */
SPB_MUST_USE spb_status spb_log_remove(const char *directory, struct spb_error *err);

#endif
