/*
 * The connections of a client that reconnects, one after the other: makes them as the retrier's
 * schedule has it, puts calls on the wire, and gives a connection up that is dead without saying
 * so. Does not block, but for spb_link_look_up. The client's thread.
 *
 * A connection whose stream ids are used up takes no more calls; it is closed when the last of
 * those that it has ends, and a new one is made.
 */
#ifndef SPB_CLIENT_LINK_H
#define SPB_CLIENT_LINK_H

#include "client_state.h"
#include "connector.h"
#include "retrier.h"

enum spb_link_state { SPB_LINK_DOWN, SPB_LINK_DIALING, SPB_LINK_UP };

struct spb_link {
    enum spb_link_state state;
    struct spb_retrier retrier;
    struct spb_connector connector;
    enum spb_client_mode mode; /* of calls that do not say */
    int64_t connect_timeout_ms;
    int64_t deadline_ns;      /* of everything */
    bool wants_look_up;       /* all addresses of a name failed */
    bool is_loss_scheduled;   /* the retrier knows of the loss that the session has */
    uint64_t received_before; /* bytes, when this connection began */
    /* Is the connection alive? */
    int64_t keepalive_ns;   /* SPB_NO_DEADLINE: never mind */
    int64_t quiet_since_ns; /* of a connection with calls: nothing moved since */
    uint64_t received_then; /* bytes, when that was looked at */
    size_t unacknowledged_then;
    bool is_probing, is_dead;
};

/* Fills client->link. Addresses (NULL for a unix socket) are handed over in any case. */
SPB_MUST_USE spb_status spb_link_new(struct spb_client *client, const struct spb_endpoint *endpoint,
                                     struct addrinfo *found,
                                     const struct spb_client_options *options,
                                     struct spb_error *err);
/* All calls have been ended. Accepts NULL. */
void spb_link_free(struct spb_link *link);

/* Before a session is lost: its calls will ask when the next connection is due. */
void spb_link_note_loss(struct spb_link *link);

SPB_MUST_USE spb_status spb_link_begin(struct spb_client *client,
                                       const struct spb_client_call *call, struct spb_error *err);
/* Does what can be done now; reads only where the socket may have something. Runs callbacks. */
void spb_link_turn(struct spb_client *client, bool is_readable);
/* Looks a name up again if that is due, for some time and not beyond until_ns. Blocks. */
void spb_link_look_up(struct spb_client *client, int64_t until_ns);

int spb_link_fd(const struct spb_client *client);
unsigned spb_link_wants(const struct spb_client *client);
int64_t spb_link_wake_ns(const struct spb_client *client);

#endif
