/*
 * Bytes to and from a daemon, in chunks, several calls in flight. Memory is constant:
 * CLI_TRANSFER_CALLS chunks; less where the daemon's operator allows less, which it is asked for
 * unless one chunk of the least size is enough. The client repeats chunks over lost connections;
 * what it cannot mend ends the transfer, which can be begun anew where it stood. One thread.
 */
#ifndef SPB_CLI_TRANSFER_H
#define SPB_CLI_TRANSFER_H

#include "cli/target_daemon.h"

/* Each call that is lost with a link is one of those that may be repeated: so they are few. */
#define CLI_TRANSFER_CALLS 4u
#define CLI_CHUNK_MIN (1u << 16) /* every daemon takes that */
/* Half of what a daemon takes that is not told to take less. All chunks that are on their way at
 * once are less than a connection may have in work, so that it goes on reading, and answers pings,
 * while a disk is slow; and what passes through so many hands is in the processor's cache still.
 */
#define CLI_CHUNK_MAX (8u << 16)

/* An upload's bytes. What it points to is borrowed. */
struct cli_sending {
    const ProtobufCBinaryData *upload_id;
    uint32_t chunk; /* bytes; none is longer */
    struct cli_source *source;
    struct cli_progress *progress;
    uint64_t offset; /* where to begin; afterwards, how far the daemon has said to have it */
    /* Told how far it is, now and then; may be NULL. */
    void (*note)(void *user, uint64_t offset);
    void *user;
    bool is_astray; /* set where it failed because the daemon expects another offset */
};

/* Sends the source from the offset to its end. SPB_DEADLINE: interrupted, or out of time. */
SPB_MUST_USE spb_status cli_transfer_send(struct cli_daemon *daemon, struct cli_sending *sending,
                                          struct spb_error *err);
/* Bytes that are read by offset; every answer has them as field 1 and their CRC as field 2. */
struct cli_reading {
    const char *service, *method;
    uint64_t length; /* bytes in all */
    /* The request for some of them, which holds until the next one. */
    const ProtobufCMessage *(*ask)(void *user, uint64_t offset, uint32_t size);
    void *user;
};

/* Fetches the bytes from the offset on and hands them on in order. */
SPB_MUST_USE spb_status cli_transfer_read(struct cli_daemon *daemon,
                                          const struct cli_reading *reading, uint64_t from,
                                          struct cli_progress *progress, cli_sink sink, void *user,
                                          struct spb_error *err);
/* The same of a product. */
SPB_MUST_USE spb_status cli_transfer_fetch(struct daemon_target *target,
                                           const struct cli_product *product, uint64_t from,
                                           struct cli_progress *progress, cli_sink sink, void *user,
                                           struct spb_error *err);

#endif
