/*
 * What is typed on a console: who may, what came already, and the bytes that wait for the guest to
 * take them. No I/O, not locked.
 */
#ifndef SPB_CONSOLE_TYPING_H
#define SPB_CONSOLE_TYPING_H

#include "supervisor/console/console.h"

#define SPB_TYPING_WRITERS 8u /* remembered */

struct spb_writer_count {
    uint8_t id[SPB_CONSOLE_WRITER_BYTES];
    bool is_known;
    uint64_t taken;  /* bytes of this writer, ever */
    int64_t last_ms; /* of its last call */
};

struct spb_typing {
    struct spb_writer_count writers[SPB_TYPING_WRITERS];
    struct spb_writer_count *holder; /* who types, one of writers; NULL: nobody yet */
    uint8_t *output;                 /* owned: SPB_CONSOLE_OUTPUT_BYTES; NULL: nothing waits */
    size_t size;                     /* of what waits */
};

/* As spb_console_type. */
SPB_MUST_USE spb_status spb_typing_take(struct spb_typing *typing,
                                        const struct spb_console_typing *call, int64_t now_ms,
                                        uint64_t *taken, struct spb_error *err);
/* The first n bytes that wait were sent. */
void spb_typing_sent(struct spb_typing *typing, size_t n);
/* Forgets what waits, and frees it; writers stay known. Also what ends it. */
void spb_typing_clear(struct spb_typing *typing);

#endif
