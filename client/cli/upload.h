/*
 * An upload from its start to its end, over lost connections, restarts of the daemon, and runs of
 * this program (resume.h). Whoever stores something large says what it is and where it goes. One
 * thread.
 */
#ifndef SPB_CLI_UPLOAD_H
#define SPB_CLI_UPLOAD_H

#include <spaceblock/v1/uploads.pb-c.h>

#include "cli/daemon.h"
#include "cli/progress.h"
#include "cli/source.h"

struct cli_upload_target {
    const char *what;          /* "data product \"x\"", for texts */
    const char *key, *options; /* as in struct cli_resume_key */
    /* Fills the target of Start; size and request_id are filled by the caller. */
    void (*fill)(void *user, Spaceblock__V1__StartUploadRequest *request);
    /* Takes what Finish answered. */
    spb_status (*take)(void *user, const Spaceblock__V1__FinishUploadResponse *answer,
                       struct spb_error *err);
    /* Where the upload is not known any more: is exactly this stored already, as the answer to an
     * earlier Finish may have been lost? Takes it then. */
    bool (*find)(void *user, uint32_t crc, uint64_t size);
    void *user;
};

/* Stores the whole source. On SPB_UNREACHABLE and SPB_DEADLINE the text says whether the same
 * command will go on where this one ended. */
SPB_MUST_USE spb_status cli_upload(struct cli *cli, struct cli_daemon *daemon,
                                   const struct cli_upload_target *target,
                                   struct cli_source *source, struct cli_progress *progress,
                                   struct spb_error *err);
/* The same is stored already: what an earlier run left to go on with is given up. */
void cli_upload_forget(struct cli *cli, struct cli_daemon *daemon,
                       const struct cli_upload_target *target, struct cli_source *source);

#endif
