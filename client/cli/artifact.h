/*
 * Files for guests: found among those that the daemon has, and stored where they are not. Commands
 * of artifacts and of guests both do so. One thread.
 */
#ifndef SPB_CLI_ARTIFACT_H
#define SPB_CLI_ARTIFACT_H

#include <spaceblock/v1/artifacts.pb-c.h>

#include "cli/daemon.h"
#include "digest/sha256.h"

#define CLI_ARTIFACT_LABEL_MAX 64u
#define CLI_ARTIFACT_DIGITS_MIN 6u

/* Whose artifacts; not given: the caller's own tenant's. */
struct cli_tenant {
    bool given;
    uint32_t number;
};

/* A local file to be stored. What it points to is borrowed. */
struct cli_artifact_file {
    struct cli_tenant tenant;
    const char *path;  /* "-": standard input */
    const char *label; /* at most CLI_ARTIFACT_LABEL_MAX bytes */
    bool keeps_label;  /* one that is there may have another label */
};

/* What is there already is not sent again, and a transfer that was interrupted goes on. *stored is
 * the caller's, spaceblock__v1__artifact__free_unpacked(); *was_there: nothing was sent. */
SPB_MUST_USE spb_status cli_artifact_store(struct cli *cli, struct cli_daemon *daemon,
                                           const struct cli_artifact_file *file,
                                           Spaceblock__V1__Artifact **stored, bool *was_there,
                                           struct spb_error *err);

/* Calls take with each artifact, page by page, until it returns false. */
SPB_MUST_USE spb_status cli_artifact_each(struct cli_daemon *daemon, struct cli_tenant tenant,
                                          bool (*take)(void *user,
                                                       const Spaceblock__V1__Artifact *artifact),
                                          void *user, struct spb_error *err);

/* Are these 6 to 64 digits of a SHA-256? */
bool cli_artifact_is_digits(const char *text);
/* The one artifact whose SHA-256 begins with the digits; all 64 are not looked up. */
SPB_MUST_USE spb_status cli_artifact_by_digits(struct cli_daemon *daemon, struct cli_tenant tenant,
                                               const char *digits, uint8_t hash[SPB_SHA256_SIZE],
                                               struct spb_error *err);
/* The one artifact of this label. */
SPB_MUST_USE spb_status cli_artifact_by_label(struct cli_daemon *daemon, struct cli_tenant tenant,
                                              const char *label, uint8_t hash[SPB_SHA256_SIZE],
                                              struct spb_error *err);

#endif
