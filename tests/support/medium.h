/*
 * The simulated medium: a device in memory that knows what is visible and what is durable, records
 * every write and flush, and can produce each state that power loss or the death of the process may
 * leave behind (format.md, "The medium").
 *
 * Rules it plays by. A write is visible at once and durable after a flush that succeeded. What no
 * flush has acknowledged reaches the medium sector by sector, in any order, or not. After a failed
 * flush some of the unflushed sectors are durable; the rest stay visible but count as clean, so
 * that no later flush writes them: only writing them again does. A second write of one sector
 * between two flushes, and a write that is not of whole sectors, are violations: they are carried
 * out and remembered, and tests assert that there are none.
 *
 * The medium outlives the handles (struct spb_device) that are attached to it; closing a handle
 * frees the handle alone. Deterministic: the same calls on the same seed do the same. No global
 * state; one thread at a time.
 */
#ifndef SPB_TESTS_SUPPORT_MEDIUM_H
#define SPB_TESTS_SUPPORT_MEDIUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spaceblock/device.h"

struct medium;

/* A zeroed medium; size_bytes is a multiple of 512. Never NULL: without memory the test aborts. */
struct medium *medium_new(uint64_t size_bytes, uint64_t seed);
/* Accepts NULL. All handles must be closed. */
void medium_free(struct medium *medium);

/* A new handle: the process that opens the device. Never NULL; freed by spb_device_close. */
struct spb_device *medium_attach(struct medium *medium);
/* The process dies: every handle attached so far fails each call from now on, and changes nothing.
 * What was written and not flushed stays visible and unflushed. */
void medium_kill(struct medium *medium);
/* Power is lost: kills, and what is visible becomes what is durable. */
void medium_power_loss(struct medium *medium);
/* The same, and a random subset of the unflushed sectors reaches the medium first. */
void medium_power_loss_at_random(struct medium *medium, uint64_t *random);

/* Makes image (of the medium's size) both visible and durable, and forgets all that was recorded,
 * counted and armed. Handles are killed. */
void medium_reset(struct medium *medium, const uint8_t *image);

uint64_t medium_size(const struct medium *medium);
/* Borrowed; they change with the medium. */
const uint8_t *medium_visible(const struct medium *medium);
const uint8_t *medium_durable(const struct medium *medium);
/* For building images: changes what is visible and durable, unrecorded. */
void medium_poke(struct medium *medium, uint64_t offset, const void *bytes, size_t n);
/* Changes only what is visible, as a page that a failed flush left clean. Unrecorded. */
void medium_poke_visible(struct medium *medium, uint64_t offset, const void *bytes, size_t n);

/* ---- Counts and violations ---------------------------------------------------------------- */

struct medium_counts {
    uint64_t reads, medium_reads; /* calls */
    uint64_t writes;              /* calls; zeroing counts as one */
    uint64_t sectors;             /* written */
    uint64_t flushes;             /* calls, those that failed included */
};

struct medium_counts medium_counts(const struct medium *medium);
unsigned medium_violations(const struct medium *medium);
/* What the first one was; "" without any. Borrowed. */
const char *medium_violation(const struct medium *medium);

/* ---- Failures ----------------------------------------------------------------------------- */

enum medium_call { MEDIUM_READ, MEDIUM_READ_MEDIUM, MEDIUM_WRITE, MEDIUM_FLUSH };

struct medium_failure {
    enum medium_call call;
    uint64_t nth; /* from 1, counted from now */
    int number;   /* errno: EIO, ENOSPC */
    /* Of a write (or zeroing): that many of its sectors are written before it fails. */
    uint32_t short_sectors;
    /* Of a flush: which of the unflushed sectors that change something reach the medium; bit i is
     * the i-th of them in the order of writing, those beyond 63 by random from the seed. */
    uint64_t reached;
};

/* Arms one failure, in place of one armed before. A failed flush fails all later flushes of its
 * handle until it is forgiven. */
void medium_fail(struct medium *medium, const struct medium_failure *failure);
/* Disarms; true where the failure has happened since it was armed (and was not asked for yet). */
bool medium_failed(struct medium *medium);
/* From now on read_medium and forgive are SPB_UNSUPPORTED, as on tmpfs. */
void medium_forbid_direct(struct medium *medium, bool forbidden);

/* ---- States ------------------------------------------------------------------------------- */

/* Begins the record anew here; what is unflushed now is its start. */
void medium_mark(struct medium *medium);

/* A moment at which power was lost, for messages. */
struct medium_cut {
    size_t epoch;            /* flushes since the mark that were acknowledged or failed before */
    size_t changed;          /* unflushed sectors that would change something */
    size_t reached;          /* of these, how many did */
    const uint32_t *sectors; /* the changed ones */
    const bool *is_reached;
};

/* image is the durable state, borrowed for the call. */
typedef void (*medium_visit)(void *user, const uint8_t *image, const struct medium_cut *cut);

/*
 * Visits every state that power loss may leave at any moment since the mark: for each stretch
 * between two flushes all subsets of its sectors where these are at most limit, else limit samples
 * (none and all among them) drawn from *random. Returns how many were visited.
 */
uint64_t medium_each_cut(const struct medium *medium, uint64_t limit, uint64_t *random,
                         medium_visit visit, void *user);

/* Writes and flushes recorded since the mark. */
size_t medium_steps(const struct medium *medium);
/* Writes (sectors) recorded since the mark that changed what was visible. */
size_t medium_changes(const struct medium *medium);
/* Makes heir (of the same size) what medium was after so many steps since its mark, the process
 * having died there: unflushed writes are visible and unflushed. Recording begins there. */
void medium_die_after(struct medium *heir, const struct medium *medium, size_t steps);

#endif
