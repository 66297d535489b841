/*
 * Bytes of data products to and from a daemon, in chunks, several calls in flight. Memory is
 * constant: CLI_TRANSFER_CALLS chunks. One thread.
 */
#ifndef SPB_CLI_TRANSFER_H
#define SPB_CLI_TRANSFER_H

#include "cli/target_daemon.h"

#define CLI_TRANSFER_CALLS 4u
#define CLI_CHUNK_MAX (1u << 20)
#define CLI_CHUNK_MIN (1u << 16)

/* Sends the whole source to an upload; *crc is that of all its bytes. */
SPB_MUST_USE spb_status cli_transfer_send(struct cli_daemon *daemon,
                                          const ProtobufCBinaryData *upload_id, uint32_t chunk,
                                          struct cli_source *source, struct cli_progress *progress,
                                          uint32_t *crc, struct spb_error *err);
/* Fetches all bytes of a product and hands them on in order. */
SPB_MUST_USE spb_status cli_transfer_fetch(struct daemon_target *target,
                                           const struct cli_product *product,
                                           struct cli_progress *progress, cli_sink sink, void *user,
                                           struct spb_error *err);

#endif
