/* What a client is made of: the session, and the socket that it runs over. One thread at a time. */
#ifndef SPB_CLIENT_CLIENT_STATE_H
#define SPB_CLIENT_CLIENT_STATE_H

#include "call_session.h"
#include "spaceblock/client.h"

#define SPB_CLIENT_INPUT_SIZE ((size_t)65536)

struct spb_client {
    int fd;
    int send_errno; /* sending failed; what can still be read is read, then the connection is lost
                     */
    struct spb_session session;
    char endpoint[128]; /* for error texts; cut where too long */
    uint8_t input[SPB_CLIENT_INPUT_SIZE];
};

#endif
