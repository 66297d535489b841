/*
 * What a run leaves behind so that the same command, started again, goes on with an upload: a small
 * file in $XDG_STATE_HOME/spaceblock, else ~/.local/state/spaceblock (mode 0700). It is found by
 * endpoint, target and the source's path; whether the source is still the same and unchanged it
 * says itself. It is written durably, and locked while a run has it. One thread.
 */
#ifndef SPB_CLI_RESUME_H
#define SPB_CLI_RESUME_H

#include "cli/source.h"
#include "spaceblock/client.h"

#define CLI_UPLOAD_ID_MAX 64u

/* Which upload. Texts are UTF-8 and borrowed while the record is open. */
struct cli_resume_key {
    const char *endpoint;
    const char *target;  /* what is stored where: "product 1/demo/61" */
    const char *options; /* how: "class 0 priority 0 replace 0" */
    const struct cli_source *source;
};

struct cli_resume {
    int fd;     /* owned, locked; -1: there is no record */
    char *path; /* owned */
    const struct cli_resume_key *key;
    /* What it says. */
    char request_id[SPB_REQUEST_ID_SIZE]; /* of Start and Finish; "": a new record */
    uint8_t upload_id[CLI_UPLOAD_ID_MAX];
    size_t upload_id_len; /* 0: Start may not have been answered */
    uint32_t chunk;       /* bytes */
    uint64_t crc_end;     /* the source's bytes before it had this CRC */
    uint32_t crc;
};

/* Finds or makes the record and locks it. *is_other: there is one of this path that is of another
 * source, or was to be stored otherwise; its upload_id is given so that it can be aborted.
 * SPB_LOCKED: another run has it. SPB_UNSUPPORTED: nowhere to keep it. */
SPB_MUST_USE spb_status cli_resume_open(const struct cli_resume_key *key, struct cli_resume *resume,
                                        bool *is_other, struct spb_error *err);
/* Writes it, durably. */
SPB_MUST_USE spb_status cli_resume_save(struct cli_resume *resume, struct spb_error *err);
/* Forgets what it says; the file stays until it is saved or dropped. */
void cli_resume_clear(struct cli_resume *resume);
/* Removes the file. */
void cli_resume_drop(struct cli_resume *resume);
/* Accepts one that is not open. */
void cli_resume_done(struct cli_resume *resume);

#endif
