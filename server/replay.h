/*
 * Which changing calls have run, run now, or may have run: the table behind request_id.
 *
 * A call is known by tenant, principal, method and request_id. While it runs, the same call again
 * waits for it. One that changed something is kept, with the number of its audit record, for
 * life_s or until per_principal_max newer ones of its principal are kept; one that changed nothing
 * is forgotten, and who waited for it runs. One whose outcome is open stays until it is settled.
 *
 * Memory is bounded: 48 bytes an entry and 4 to 8 of the index, per_principal_max a principal,
 * total_max of all, principals_max names. Where total_max is reached the oldest of the principal
 * that has the most makes room.
 *
 * The table knows calls only as parties, which are embedded in them. Any thread; the table has a
 * lock of its own, under which no other is taken but by `mark` of spb_replay_cancel.
 */
#ifndef SPB_SERVER_REPLAY_H
#define SPB_SERVER_REPLAY_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_REPLAY_ID_SIZE 16u
#define SPB_REPLAY_METHODS_MAX 256u

struct spb_replay;

struct spb_replay_options {
    uint32_t per_principal_max, total_max, principals_max;
    int64_t life_s;
};

struct spb_replay_key {
    uint16_t tenant;       /* of the principal */
    const char *principal; /* shorter than SPB_REPLAY_PRINCIPAL_SIZE */
    uint8_t method;        /* its index in the table of methods */
    const uint8_t *id;     /* SPB_REPLAY_ID_SIZE bytes */
};
#define SPB_REPLAY_PRINCIPAL_SIZE 64u

/* What became of a call. */
enum spb_fate {
    SPB_FATE_NOTHING,   /* it changed nothing */
    SPB_FATE_DONE,      /* its record says what was answered */
    SPB_FATE_UNSETTLED, /* whether it happened is not known yet */
    SPB_FATE_UNKNOWN,   /* nor ever will be */
};

struct spb_replay_link {
    struct spb_replay_link *next, *previous;
};

/* A call's part in it: of one that runs, or waits for one that runs. Zeroed before the claim. */
struct spb_replay_party {
    uint32_t entry; /* 1 + its index; 0: none */
    bool waits;
    struct spb_replay_link peers;  /* of a running one: those that wait for it; else: in it */
    struct spb_replay_link all;    /* in the list of all that wait */
    int64_t give_up_ns;            /* of one that waits */
    struct spb_replay_party *done; /* of one that waited: who was waited for */
    struct spb_replay_party *next; /* in the lists that the functions take and give */
    enum spb_fate fate;            /* set before the conclusion */
    int64_t record;                /* and the audit record, of DONE */
};

enum spb_claim {
    SPB_CLAIM_RUNS,      /* it runs: spb_replay_conclude follows */
    SPB_CLAIM_WAITS,     /* it is the table's until it is handed out again */
    SPB_CLAIM_KEPT,      /* it was done: *record has what was answered */
    SPB_CLAIM_MISMATCH,  /* the id was used with another payload */
    SPB_CLAIM_UNSETTLED, /* it may have been done */
    SPB_CLAIM_UNKNOWN,   /* the same, and that stays so */
    SPB_CLAIM_FULL,      /* no memory, or too many principals */
};

SPB_MUST_USE spb_status spb_replay_new(const struct spb_replay_options *options,
                                       struct spb_replay **replay, struct spb_error *err);
/* Nobody waits any more. Accepts NULL. */
void spb_replay_free(struct spb_replay *replay);
/* Other bounds from now on. */
void spb_replay_limit(struct spb_replay *replay, uint32_t per_principal_max, int64_t life_s);

/* party is borrowed until the conclusion, or until it is handed out. */
enum spb_claim spb_replay_claim(struct spb_replay *replay, const struct spb_replay_key *key,
                                uint32_t payload_crc, int64_t give_up_ns,
                                struct spb_replay_party *party, int64_t *record);

/*
 * Ends what the parties of a list (by `next`) ran, as their fates say; those that have no entry are
 * passed over. Returns who waited, as a list, each with `done`. Of one that changed nothing the
 * first runs now (waits is false), the others wait for it; of all else they are told.
 */
struct spb_replay_party *spb_replay_conclude(struct spb_replay *replay,
                                             struct spb_replay_party *parties, int64_t unix_s);

/* Those that have waited too long. */
struct spb_replay_party *spb_replay_overdue(struct spb_replay *replay, int64_t now_ns);

/*
 * The calls of that principal and id that run, of whatever method below method_count: mark is
 * called with each, under the lock, and those that wait for it are returned. *found: there was one.
 */
struct spb_replay_party *spb_replay_cancel(struct spb_replay *replay,
                                           const struct spb_replay_key *key, uint8_t method_count,
                                           void (*mark)(struct spb_replay_party *party, void *user),
                                           void *user, bool *found);

/* ---- Of earlier lives --------------------------------------------------------------------- */

/* An entry from the audit; oldest first. Replaces nothing. */
SPB_MUST_USE spb_status spb_replay_load(struct spb_replay *replay, const struct spb_replay_key *key,
                                        uint32_t payload_crc, enum spb_fate fate, int64_t record,
                                        int64_t unix_s, struct spb_error *err);
/* What became of a call that is unsettled, or will be once it is concluded: its fate says so
 * already. Does nothing about any other. */
void spb_replay_settle(struct spb_replay *replay, const struct spb_replay_key *key,
                       enum spb_fate fate, int64_t record, int64_t unix_s);

/* Forgets what is too old, max entries at most. */
void spb_replay_expire(struct spb_replay *replay, int64_t unix_s, size_t max);

struct spb_replay_figures {
    size_t entries, waiting, principals;
    size_t bytes; /* allocated */
};
void spb_replay_figures(struct spb_replay *replay, struct spb_replay_figures *figures);

#endif
