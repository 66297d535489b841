/*
 * A minimal RESP connection for the peer's load generator, built as the client library is: one
 * buffer for what is to be sent, one for what came, non-blocking, polled by the caller.
 * Single-threaded.
 */
#ifndef SPB_BENCH_RESP_H
#define SPB_BENCH_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct resp {
    int fd;
    uint8_t *out, *in; /* owned */
    size_t out_used, out_sent, in_used, in_parsed;
};

#define RESP_BUFFER 65536u

/* Connects to "unix:PATH" or "tcp://127.0.0.1:PORT"; false with errno otherwise. */
bool resp_open(struct resp *resp, const char *endpoint);
/* Undoes resp_open; a failed one's too. */
void resp_close(struct resp *resp);
/* Queues a command; false where the buffer has no room for it. */
bool resp_send(struct resp *resp, const void *command, size_t size);
bool resp_wants_write(const struct resp *resp);
/* Writes and reads what can be had now; false once the connection is lost. */
bool resp_ready(struct resp *resp);

enum resp_kind { RESP_NONE, RESP_SIMPLE, RESP_BULK, RESP_NULL, RESP_ERROR, RESP_BAD };

/* Takes the next complete reply; *text (borrowed until the next resp_ready) is its content. */
enum resp_kind resp_next(struct resp *resp, const char **text, size_t *size);

#endif
