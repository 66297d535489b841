/* What a client is made of: the session, the socket that it runs over, and, where it reconnects,
 * the link. One thread at a time. */
#ifndef SPB_CLIENT_CLIENT_STATE_H
#define SPB_CLIENT_CLIENT_STATE_H

#include "call_session.h"
#include "spaceblock/client.h"

#define SPB_CLIENT_INPUT_SIZE ((size_t)65536)
#define SPB_CLIENT_ENDPOINT_SIZE 384 /* the longest there is: a host, or a socket's path */

struct spb_link;

struct spb_client {
    int fd;         /* -1: none now */
    int send_errno; /* sending failed; what can still be read is read, then the connection is lost
                     */
    struct spb_session session;
    struct spb_link *link; /* owned; NULL: this connection is the only one */
    uint64_t received;     /* bytes, ever */
    char endpoint[SPB_CLIENT_ENDPOINT_SIZE];
    uint8_t input[SPB_CLIENT_INPUT_SIZE];
};

/* Of client_io.c; they do not block. */
void spb_client_send_queued(struct spb_client *client);
/* Reads and feeds the session; callbacks run. A failed send is followed by spb_client_end_sending.
 */
void spb_client_receive(struct spb_client *client);
/* After a failed send: what the daemon answered before it went still counts. */
void spb_client_end_sending(struct spb_client *client);
/* Loses the connection while doing that; number is the errno of it, 0: the daemon closed it. */
void spb_client_lose(struct spb_client *client, const char *doing, int number);

bool spb_client_is_in_callback(const struct spb_client *client);

#endif
