/*
 * Bytes between the socket and the session, without blocking. Whatever ends a connection ends it in
 * one place (spb_client_lose). The client's thread.
 */
#include <errno.h>
#include <sys/socket.h>

#include "base/status.h"
#include "client_state.h"
#include "link.h"

/* Buffers of SPB_CLIENT_INPUT_SIZE, before deadlines and sending get their turn. */
#define READS_AT_ONCE 16u

void spb_client_lose(struct spb_client *client, const char *doing, int number)
{
    bool is_mid_frame = spb_ttrpc_parser_is_mid_frame(&client->session.parser);
    struct spb_error why;

    if (number != 0)
        (void)spb_fail_errno(&why, SPB_UNREACHABLE, number, "connection to %s lost while %s",
                             client->endpoint, doing);
    else
        (void)spb_fail(&why, SPB_UNREACHABLE, "connection to %s was closed by the daemon%s",
                       client->endpoint, is_mid_frame ? " in the middle of an answer" : "");
    if (client->link != NULL)
        spb_link_note_loss(client->link);
    spb_session_lose(&client->session, &why);
}

void spb_client_send_queued(struct spb_client *client)
{
    struct spb_outbox *box = &client->session.outbox;

    while (client->send_errno == 0 && spb_outbox_left(box) > 0) {
        ssize_t n = send(client->fd, box->data + box->start, spb_outbox_left(box),
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            spb_outbox_sent(box, (size_t)n);
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        else if (errno != EINTR)
            client->send_errno = errno;
    }
}

/* A short read means that the socket is empty. */
void spb_client_receive(struct spb_client *client)
{
    unsigned times = READS_AT_ONCE;

    while (times > 0 && !client->session.is_lost) {
        ssize_t n = recv(client->fd, client->input, sizeof(client->input), MSG_DONTWAIT);
        if (n > 0) {
            client->received += (uint64_t)n;
            spb_session_feed(&client->session, client->input, (size_t)n);
            if ((size_t)n < sizeof(client->input))
                return;
            times--;
        } else if (n == 0) {
            spb_client_lose(client, "receiving", 0);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != EINTR) {
            spb_client_lose(client, "receiving", errno);
        }
    }
}

void spb_client_end_sending(struct spb_client *client)
{
    spb_client_receive(client);
    if (!client->session.is_lost)
        spb_client_lose(client, "sending", client->send_errno);
}
