/* Where the daemon listens: a unix socket or a loopback TCP port. Parsing and showing; no I/O. */
#ifndef SPB_SERVER_ENDPOINT_H
#define SPB_SERVER_ENDPOINT_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "spaceblock/status.h"

struct spb_endpoint {
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    socklen_t length;
};

#define SPB_ENDPOINT_TEXT_SIZE 128

/*
 * "unix:PATH", or "tcp://HOST:PORT" where HOST is 127.0.0.0/8, [::1] or localhost: what is not
 * encrypted stays on this host. Anything else is SPB_INVALID, which says what was found.
 */
SPB_MUST_USE spb_status spb_endpoint_parse(const char *text, struct spb_endpoint *endpoint,
                                           struct spb_error *err);
/* The latter of the two as HOST:PORT, for what is never encrypted. */
SPB_MUST_USE spb_status spb_endpoint_parse_loopback(const char *text, struct spb_endpoint *endpoint,
                                                    struct spb_error *err);
/* The same form again. */
void spb_endpoint_show(const struct spb_endpoint *endpoint, char text[SPB_ENDPOINT_TEXT_SIZE]);

/*
 * The socket that daemon and CLI meet at without being told: /run/spaceblock/spaceblockd.sock for
 * root, else $XDG_RUNTIME_DIR/spaceblock/spaceblockd.sock. SPB_INVALID where it cannot be named.
 */
SPB_MUST_USE spb_status spb_endpoint_usual(struct spb_endpoint *endpoint, struct spb_error *err);

#endif
