/*
 * A file that arrives in parts, maybe over several runs: FILE.part, which becomes FILE when all is
 * there. FILE.part.json beside it says what it is a part of; a FILE.part without one is somebody
 * else's and is not touched. Who has it locks it. One thread.
 */
#ifndef SPB_CLI_PARTIAL_H
#define SPB_CLI_PARTIAL_H

#include <stdint.h>

#include "cli/sink.h"

struct cli_partial {
    struct cli_output output; /* write to it with cli_output_write */
    char *companion;          /* owned; NULL: what is not committed is dropped */
    uint64_t length;          /* bytes that an earlier run left */
    uint32_t crc;             /* of them */
};

/*
 * key names the content, of `length` bytes: what is there of it is kept, unless anew. Where the
 * part cannot be used (a stream, another run, somebody else's file, a folder without room for two
 * names), or key is NULL, this is an output that leaves nothing behind.
 */
SPB_MUST_USE spb_status cli_partial_open(const char *path, const char *key, uint64_t length,
                                         bool anew, struct cli_partial *partial,
                                         struct spb_error *err);
/* The key of what an earlier run left of the file at a path; the caller's, free(). NULL: nothing is
 * there, or it is somebody else's. */
char *cli_partial_key(const char *path);
/* Drops what is there, to begin again. */
SPB_MUST_USE spb_status cli_partial_restart(struct cli_partial *partial, struct spb_error *err);
/* Bytes so far; 0 where nothing is left behind. */
uint64_t cli_partial_left(const struct cli_partial *partial);
SPB_MUST_USE spb_status cli_partial_commit(struct cli_partial *partial, struct spb_error *err);
/* What was not committed is left for another run. */
void cli_partial_done(struct cli_partial *partial);

#endif
