/*
 * The last words of a process: the end of what it wrote to stderr, bounded.
 *
 * They go through a FIFO in its run directory. A file would grow without bound while nobody looks,
 * and RLIMIT_FSIZE would bound the guest's disks too; a pipe would break once the daemon ends,
 * which the guest outlives. The process has the FIFO open for reading and writing, without
 * blocking: it never meets an end of it, and what does not fit (64 KiB while nobody reads) is lost
 * to it and makes it wait for nobody. A new daemon opens the FIFO again and has what was written
 * meanwhile, and the newest from before; once the process and the daemon have both ended what
 * nobody read is gone.
 *
 * One thread.
 */
#ifndef SPB_PROCESS_WORDS_H
#define SPB_PROCESS_WORDS_H

#include <stddef.h>

#include "spaceblock/status.h"
#include "supervisor/process/rundir.h"

#define SPB_WORDS_BYTES 4096u /* the newest so many are kept */

struct spb_words {
    int fd; /* owned: where they are read; polls readable. -1: none */
    size_t used;
    char bytes[SPB_WORDS_BYTES];
};

/* Makes the FIFO. *child_fd, the caller's to close after the spawn, is for spb_spawn.stderr_fd. */
SPB_MUST_USE spb_status spb_words_make(const struct spb_rundir *dir, struct spb_words *words,
                                       int *child_fd, struct spb_error *err);
/* Of a process that an earlier daemon started. SPB_NOT_FOUND. */
SPB_MUST_USE spb_status spb_words_open(const struct spb_rundir *dir, struct spb_words *words,
                                       struct spb_error *err);
/* For a process that lives: takes the oldest of what is there once that is much, so that it finds
 * room, and leaves the newest to a daemon that may come after this one. As spb_words_read. */
bool spb_words_relieve(struct spb_words *words);
/* Takes what is there, at most some 64 KiB a call. False: the process closed its end, and nothing
 * is left; the descriptor is closed then. */
bool spb_words_read(struct spb_words *words);
/* What is kept as one line of printable ASCII, cut at its start where it is too long, other bytes
 * as blanks, without blanks at its ends. Empty: it said nothing. */
void spb_words_text(const struct spb_words *words, char *text, size_t size);
/* Closes the descriptor. Words stay. Harmless twice. */
void spb_words_close(struct spb_words *words);

#endif
