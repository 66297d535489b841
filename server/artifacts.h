/*
 * Artifacts: files for guests, known by their SHA-256 within a tenant:
 * DATA_DIR/artifacts/<tenant>/<hex>, each with a row (audit/tables.h). A file gets its name only
 * when its hash was found right; but media rot, so who relies on the content checks it again. Any
 * worker; all block but the gates. One thread at a time publishes or deletes.
 */
#ifndef SPB_SERVER_ARTIFACTS_H
#define SPB_SERVER_ARTIFACTS_H

#include <pthread.h>

#include "audit/tables.h"
#include "call.h"
#include "digest/sha256.h"

/* The path of an artifact's file; the caller's, free(). */
SPB_MUST_USE spb_status spb_artifact_path(const struct spb_daemon *daemon, uint16_t tenant,
                                          const uint8_t sha256[SPB_SHA256_SIZE], char **path,
                                          struct spb_error *err);

/*
 * Reads a file again: does it hold what its name says? SPB_CORRUPT where it does not, SPB_IO where
 * it cannot be read. may_go_on (may be NULL) is asked between pieces: false ends it with
 * SPB_DEADLINE.
 */
SPB_MUST_USE spb_status spb_artifact_check(const char *path, const uint8_t sha256[SPB_SHA256_SIZE],
                                           bool (*may_go_on)(void *user, uint64_t done,
                                                             uint64_t total),
                                           void *user, struct spb_error *err);
/*
 * Gives a verified file its name, or drops it where the same is there already; one that is there
 * and holds something else gives way, or whose hash may_go_on did not wait for. Then the row, with
 * the last label and the first time, which row gets. *named: the name was given, or was there.
 */
SPB_MUST_USE spb_status spb_artifact_publish(struct spb_daemon *daemon, const char *from,
                                             struct spb_artifact_row *row,
                                             bool (*may_go_on)(void *user, uint64_t done,
                                                               uint64_t total),
                                             void *user, bool *named, struct spb_error *err);
/* Removes the row, then the file. SPB_NOT_FOUND. *removed: the row is gone. */
SPB_MUST_USE spb_status spb_artifact_delete(struct spb_daemon *daemon, uint16_t tenant,
                                            const uint8_t sha256[SPB_SHA256_SIZE], bool *removed,
                                            struct spb_error *err);
/* The rest of either, where a part of it failed after *named, or *removed; as often as needed. */
SPB_MUST_USE spb_status spb_artifact_store_again(struct spb_daemon *daemon,
                                                 const struct spb_artifact_row *row,
                                                 struct spb_error *err);
SPB_MUST_USE spb_status spb_artifact_delete_again(struct spb_daemon *daemon,
                                                  const struct spb_artifact_row *row,
                                                  struct spb_error *err);
/* SPB_NOT_FOUND. */
SPB_MUST_USE spb_status spb_artifact_find(struct spb_daemon *daemon, uint16_t tenant,
                                          const uint8_t sha256[SPB_SHA256_SIZE],
                                          struct spb_artifact_row *row, struct spb_error *err);

/* At the start: rows whose file is gone are removed, files without a row get one. */
SPB_MUST_USE spb_status spb_artifacts_load(struct spb_daemon *daemon, struct spb_error *err);

/* ---- For gates ---------------------------------------------------------------------------- */

/* 32 bytes. */
bool spb_gate_artifact_hash(struct spb_call *call, const char *field,
                            const ProtobufCBinaryData *hash);
/* 0 to 64 bytes of UTF-8 without NUL. */
bool spb_gate_artifact_label(struct spb_call *call, const char *field,
                             const ProtobufCBinaryData *label);

/* The artifact as the API shows it; row is borrowed by it. */
void spb_artifact_show(const struct spb_artifact_row *row, PB_Artifact *shown);

#endif
