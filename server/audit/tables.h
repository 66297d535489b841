/*
 * Rows that outlive the daemon beside the audit, in the same database: the registry of images, the
 * uploads that can resume, artifacts, and guests. Durable when a call returns; all block. Any
 * thread but the loop's.
 */
#ifndef SPB_SERVER_AUDIT_TABLES_H
#define SPB_SERVER_AUDIT_TABLES_H

#include "audit/audit.h"

/* ---- Images ------------------------------------------------------------------------------- */

#define SPB_ROW_UUID_SIZE 16u
#define SPB_ROW_INCARNATION_SIZE 8u

struct spb_image_row {
    int64_t id; /* 0: not in the table yet */
    uint16_t tenant;
    char name[SPB_AUDIT_NAME_SIZE];
    uint8_t uuid[SPB_ROW_UUID_SIZE];
    uint32_t sector_size, total_blocks; /* 0: never known */
    uint8_t incarnation[SPB_ROW_INCARNATION_SIZE];
    uint32_t event_pointer; /* the highest that is known to have been durable */
    uint64_t group_number;  /* of the newest group; read only */
};

SPB_MUST_USE spb_status spb_rows_images(struct spb_audit *audit,
                                        void (*take)(void *user, const struct spb_image_row *row),
                                        void *user, struct spb_error *err);
/* The one of that tenant and name; *found tells whether there is one. */
SPB_MUST_USE spb_status spb_rows_find_image(struct spb_audit *audit, uint16_t tenant,
                                            const char *name, struct spb_image_row *row,
                                            bool *found, struct spb_error *err);
/* Inserts (id 0, which is set) or updates. SPB_EXISTS where another has tenant and name. */
SPB_MUST_USE spb_status spb_rows_put_image(struct spb_audit *audit, struct spb_image_row *row,
                                           struct spb_error *err);
/* Its audit records stay. */
SPB_MUST_USE spb_status spb_rows_remove_image(struct spb_audit *audit, int64_t id,
                                              struct spb_error *err);

/* ---- Uploads ------------------------------------------------------------------------------ */

enum spb_upload_kind { SPB_UPLOAD_PRODUCT = 1, SPB_UPLOAD_IMAGE = 2, SPB_UPLOAD_ARTIFACT = 3 };

struct spb_upload_row {
    uint8_t id[16];
    enum spb_upload_kind kind;
    uint32_t owner_kind; /* enum spb_principal_kind */
    uint16_t owner_tenant;
    char owner[SPB_AUDIT_PRINCIPAL_SIZE];
    uint16_t tenant;                 /* of the target */
    char image[SPB_AUDIT_NAME_SIZE]; /* of a product, or the one to be made; else empty */
    int64_t image_id;                /* of a product: its row's; 0: not known, the name tells */
    uint8_t name[64];                /* of the product; the artifact's label */
    size_t name_len;
    uint16_t product_class;
    uint8_t priority;
    bool replace;
    bool new_identity;
    uint32_t sector_size;
    uint8_t sha256[32];
    uint64_t size;
    uint32_t block_offset, block_count; /* a product's extent */
    uint64_t durable_offset;
    uint32_t durable_crc;        /* CRC-32C of the bytes before it */
    int64_t created_us, used_us; /* UNIX */
};

SPB_MUST_USE spb_status spb_rows_uploads(struct spb_audit *audit,
                                         void (*take)(void *user, const struct spb_upload_row *row),
                                         void *user, struct spb_error *err);
/* Inserts or replaces. */
SPB_MUST_USE spb_status spb_rows_put_upload(struct spb_audit *audit,
                                            const struct spb_upload_row *row,
                                            struct spb_error *err);
SPB_MUST_USE spb_status spb_rows_remove_upload(struct spb_audit *audit, const uint8_t id[16],
                                               struct spb_error *err);
/* Whether a call that published it (spb_intent.upload) is recorded as done or completed. An outcome
 * that is queued does not count. */
SPB_MUST_USE spb_status spb_rows_upload_is_published(struct spb_audit *audit, const uint8_t id[16],
                                                     bool *published, struct spb_error *err);

/* ---- Artifacts ---------------------------------------------------------------------------- */

struct spb_artifact_row {
    uint16_t tenant;
    uint8_t sha256[32];
    uint8_t name[64];
    size_t name_len;
    uint64_t size;
    int64_t created_us;
};

SPB_MUST_USE spb_status spb_rows_put_artifact(struct spb_audit *audit,
                                              const struct spb_artifact_row *row,
                                              struct spb_error *err);
SPB_MUST_USE spb_status spb_rows_remove_artifact(struct spb_audit *audit, uint16_t tenant,
                                                 const uint8_t sha256[32], struct spb_error *err);
/* By SHA-256, after the given one (NULL: from the start); tenant -1: all. */
SPB_MUST_USE spb_status spb_rows_artifacts(struct spb_audit *audit, int32_t tenant,
                                           const uint8_t *after_sha256, uint32_t limit,
                                           void (*take)(void *user,
                                                        const struct spb_artifact_row *row),
                                           void *user, struct spb_error *err);

/* ---- Guests ------------------------------------------------------------------------------- */

#define SPB_ROW_REASON_SIZE 512u
#define SPB_ROW_FOLDER_SIZE 256u

/* Numbers of states and endings are the API's. Times are UNIX milliseconds, 0: never. */
struct spb_guest_row {
    int64_t id; /* 0: not in the table yet */
    uint16_t tenant;
    char name[SPB_AUDIT_NAME_SIZE];
    uint8_t uuid[SPB_ROW_UUID_SIZE];
    const uint8_t *config; /* packed; borrowed: for the callback, of what is listed */
    size_t config_size;
    bool wants_run;
    uint32_t state, ending, accel;
    bool has_exit;
    int32_t exit_status;
    uint64_t run;
    char run_base[SPB_ROW_FOLDER_SIZE];
    uint64_t created_ms, started_ms, ended_ms, restart_at_ms;
    uint32_t restarts, short_runs;
    bool crash_loop, alive;
    uint64_t console_bytes;
    uint64_t version;
    char reason[SPB_ROW_REASON_SIZE];
    uint64_t quit_at_ms, stop_ms; /* of a stop that is under way; 0: none */
};

SPB_MUST_USE spb_status spb_rows_guests(struct spb_audit *audit,
                                        void (*take)(void *user, const struct spb_guest_row *row),
                                        void *user, struct spb_error *err);
/* Inserts; the id is set. SPB_EXISTS where another has tenant and name. */
SPB_MUST_USE spb_status spb_rows_add_guest(struct spb_audit *audit, struct spb_guest_row *row,
                                           struct spb_error *err);
/*
 * Writes what changes of a guest, by id. A row of a higher version stays as it is, and one that was
 * removed stays so: both are success.
 */
SPB_MUST_USE spb_status spb_rows_set_guest(struct spb_audit *audit, const struct spb_guest_row *row,
                                           struct spb_error *err);
SPB_MUST_USE spb_status spb_rows_remove_guest(struct spb_audit *audit, int64_t id,
                                              struct spb_error *err);

#endif
