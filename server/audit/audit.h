/*
 * The audit and the registry's tables: DATA_DIR/audit.db, SQLite in WAL mode, synchronous=FULL.
 *
 * One thread at a time owns the database, and does the transaction for all who wait. What must be
 * durable before somebody goes on blocks him until the commit (never the loop's thread), what may
 * lag (outcomes) is queued and leaves with the next commit, or within outcome_delay_ms. Whatever is
 * waiting when a transaction begins shares it, so that groups of many images cost one flush.
 *
 * Intents. Before a group touches an image its intents are committed (spb_audit_begin); when it has
 * ended its outcome is queued (spb_audit_end). An image has at most one open group: what a crash
 * left open is found with spb_audit_find_open and settled with spb_audit_settle.
 *
 * A failed commit (SPB_FULL where the disk is full, else SPB_IO) leaves nothing of it in the
 * database that a later reader could take for true; the connection is opened anew before the next
 * one. Everything but spb_audit_open and _close may be called from any thread; all but
 * spb_audit_end and _abandon block.
 */
#ifndef SPB_SERVER_AUDIT_AUDIT_H
#define SPB_SERVER_AUDIT_AUDIT_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_AUDIT_REQUEST_ID_SIZE 16u
#define SPB_AUDIT_METHOD_SIZE 48u
#define SPB_AUDIT_NAME_SIZE 65u
#define SPB_AUDIT_PRINCIPAL_SIZE 64u

struct spb_audit;
struct spb_log;

struct spb_audit_options {
    const char *path;          /* of the database; made if absent */
    int64_t outcome_delay_ms;  /* at most so late are outcomes durable */
    int64_t keep_days;         /* groups that ended are forgotten after so many; 0: never */
    int64_t wal_bytes;         /* size of the file that commits go to first; 0: 16 MiB */
    const struct spb_log *log; /* borrowed; of failures that no caller hears of */
    /* Called after each commit, on any thread, on one at a time. May be NULL. */
    void (*observe)(void *user, int64_t commit_ns, size_t intents);
    void *user;
};

/* Opens and migrates, starts the thread. SPB_CORRUPT: no database of ours, or of a later version.
 */
SPB_MUST_USE spb_status spb_audit_open(const struct spb_audit_options *options,
                                       struct spb_audit **audit, struct spb_error *err);
/*
 * Writes what is queued, checkpoints, ends the thread. Every group has ended or been abandoned.
 * Accepts NULL.
 */
void spb_audit_close(struct spb_audit *audit);

/* ---- Intents and outcomes ----------------------------------------------------------------- */

enum spb_outcome {
    SPB_OUTCOME_PENDING,
    SPB_OUTCOME_DONE,
    SPB_OUTCOME_COMPLETED, /* found done in part, and then completed */
    SPB_OUTCOME_NOT_DONE,
    SPB_OUTCOME_UNKNOWN,
};

/* What a group's `changes` are. */
enum spb_group_kind {
    SPB_GROUP_CHANGES,    /* spb_group_encode's bytes */
    SPB_GROUP_IMAGE_LIFE, /* an image made, deleted, renamed: the caller's own bytes */
    SPB_GROUP_IMAGE_WORK, /* repair, defragmentation, reopening */
    SPB_GROUP_OTHER,      /* about no image: uploads, artifacts */
};

/* One changing call. All is borrowed for the call of spb_audit_begin. */
struct spb_intent {
    uint16_t principal_tenant;
    const char *principal;
    const char *method;        /* "Params.Put" */
    const uint8_t *request_id; /* 16 bytes, or NULL */
    const uint8_t *upload;     /* of 16 bytes, whose row is to name this call; or NULL */
    uint32_t payload_crc;
    uint32_t first_change, change_count; /* of the group's changes */
    const char *object, *before, *after; /* text, a line for each change; never NULL */
    const uint8_t *response;             /* the reply's payload */
    size_t response_size;
    int64_t id; /* set: of the record */
};

struct spb_intent_group {
    enum spb_group_kind kind;
    int64_t image_id; /* of the registry's row; 0: about no image */
    uint16_t tenant;  /* of the image or object */
    const char *image_name;
    uint64_t number;        /* the image's own count; 0: none */
    uint32_t event_pointer; /* of the image when the group has ended, */
    bool has_event_pointer; /* where the group appends events */
    const uint8_t *changes;
    size_t changes_size;
    struct spb_intent *intents;
    size_t count;
};

/* A group that has begun and not ended. Owned by who began it, until end or abandon. */
struct spb_open_group;

/* The group's intents, durable. Sets intents[].id. */
SPB_MUST_USE spb_status spb_audit_begin(struct spb_audit *audit, struct spb_intent_group *group,
                                        struct spb_open_group **open, struct spb_error *err);
/*
 * Queues the outcome of all its calls. response (may be NULL; copied) replaces the first call's,
 * which was not known before. Cannot fail; the group is gone.
 */
void spb_audit_end(struct spb_open_group *open, enum spb_outcome outcome, const uint8_t *response,
                   size_t response_size);
/* Leaves it open, to be settled: whether it happened is not known. */
void spb_audit_abandon(struct spb_open_group *open);
/* Outcomes queued so far are durable: before an image is closed, repaired or lent. */
SPB_MUST_USE spb_status spb_audit_flush(struct spb_audit *audit, struct spb_error *err);

struct spb_pending_call {
    int64_t id;
    uint16_t principal_tenant;
    char principal[SPB_AUDIT_PRINCIPAL_SIZE];
    char method[SPB_AUDIT_METHOD_SIZE];
    bool has_request_id;
    uint8_t request_id[SPB_AUDIT_REQUEST_ID_SIZE];
    uint32_t payload_crc;
    uint32_t first_change, change_count;
};

struct spb_pending_group {
    int64_t id;
    enum spb_group_kind kind;
    int64_t image_id;
    uint16_t tenant;
    char image_name[SPB_AUDIT_NAME_SIZE];
    uint64_t number;
    uint8_t *changes; /* owned */
    size_t changes_size;
    struct spb_pending_call *calls; /* owned */
    size_t count;
};

/* The open group of an image (image_id > 0), or the oldest open one about no image (0); *group is
 * NULL where there is none. Nobody may have begun one since. */
SPB_MUST_USE spb_status spb_audit_find_open(struct spb_audit *audit, int64_t image_id,
                                            struct spb_pending_group **group,
                                            struct spb_error *err);
void spb_pending_group_free(struct spb_pending_group *group);
/* The outcome of each call, in its order; durable. */
SPB_MUST_USE spb_status spb_audit_settle(struct spb_audit *audit,
                                         const struct spb_pending_group *group,
                                         const enum spb_outcome *outcomes, struct spb_error *err);

/* ---- Replay ------------------------------------------------------------------------------- */

struct spb_replay_row {
    int64_t call_id;
    int64_t time_us; /* UNIX */
    uint16_t principal_tenant;
    const char *principal, *method;
    uint8_t request_id[SPB_AUDIT_REQUEST_ID_SIZE];
    uint32_t payload_crc;
    enum spb_outcome outcome;
};

/*
 * Calls with a request_id since then, oldest first, at most the newest max of each principal. On
 * the caller's thread; take must not call the audit.
 */
SPB_MUST_USE spb_status spb_audit_load_replays(
    struct spb_audit *audit, int64_t since_us, uint32_t max_per_principal,
    void (*take)(void *user, const struct spb_replay_row *row), void *user, struct spb_error *err);
/* The payload that was or is to be answered; *payload is the caller's, free(). SPB_NOT_FOUND. */
SPB_MUST_USE spb_status spb_audit_response(struct spb_audit *audit, int64_t call_id,
                                           uint8_t **payload, size_t *size, struct spb_error *err);

/* ---- Listing ------------------------------------------------------------------------------ */

struct spb_audit_filter {
    int32_t tenant;    /* -1: all */
    const char *image; /* NULL: any, as the next two */
    const char *principal;
    const char *method;
    enum spb_outcome outcome;
    bool has_outcome;
    int64_t since_us, until_us; /* UNIX; until 0: no bound */
    int64_t before_id;          /* 0: from the newest */
    uint32_t limit;             /* records; 0: no bound */
    /* Groups and calls that are looked at, so that a filter which little passes ends in time; 0: no
     * bound. More than that are by one group's calls at most. */
    uint64_t scan_max;
    int64_t *resume_id; /* set to the before_id to go on with, 0: at the end. May be NULL */
};

struct spb_audit_record {
    int64_t id, time_us;
    const char *principal, *image, *method; /* borrowed for the callback */
    uint16_t tenant;
    uint64_t group;
    bool has_request_id;
    uint8_t request_id[SPB_AUDIT_REQUEST_ID_SIZE];
    enum spb_outcome outcome;
    const char *object, *before, *after;
};

/*
 * Newest first; take returns false to end it. Times are since <= time < until. Outcomes that were
 * queued are made durable first, and so are seen. On the caller's thread, which no commit waits
 * for; one listing at a time.
 */
SPB_MUST_USE spb_status spb_audit_list(struct spb_audit *audit,
                                       const struct spb_audit_filter *filter,
                                       bool (*take)(void *user,
                                                    const struct spb_audit_record *record),
                                       void *user, struct spb_error *err);

#endif
