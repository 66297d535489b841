/* Endpoints in text: "unix:PATH" and "tcp://HOST:PORT". No state; any thread. */
#ifndef SPB_CLIENT_ENDPOINT_H
#define SPB_CLIENT_ENDPOINT_H

#include <sys/un.h>

#include "spaceblock/status.h"

#define SPB_HOST_SIZE 254 /* the longest name of DNS, and a NUL */

struct spb_endpoint {
    bool is_unix;
    bool is_literal; /* the host stood in brackets: an IPv6 address, never looked up */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char host[SPB_HOST_SIZE];
    char port[6];
};

/* SPB_INVALID, with what was found and expected. */
SPB_MUST_USE spb_status spb_endpoint_parse(const char *text, struct spb_endpoint *endpoint,
                                           struct spb_error *err);

#endif
