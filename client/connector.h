/*
 * Making a connection without blocking: begun, then asked when its socket is ready or its time has
 * come. The addresses of a host are tried in turn, each with a fair share of the time. Names are
 * looked up elsewhere (spb_resolve). One thread.
 */
#ifndef SPB_CLIENT_CONNECTOR_H
#define SPB_CLIENT_CONNECTOR_H

#include <netdb.h>
#include <stdint.h>

#include "endpoint.h"

struct spb_connector {
    struct spb_endpoint endpoint;
    const char *text;          /* borrowed; the endpoint, for errors */
    bool has_name;             /* which may mean other addresses by now */
    struct addrinfo *found;    /* owned; of a TCP endpoint */
    const struct addrinfo *at; /* the address that is tried; NULL on a unix socket */
    int fd;                    /* owned; -1: none */
    int last_errno;            /* of the address before */
    int64_t deadline_ns;       /* of the attempt over all addresses */
    int64_t turn_ns;           /* of this address, or when a full listener is asked again */
};

enum spb_connector_event { SPB_CONNECT_GOES_ON, SPB_CONNECT_DONE, SPB_CONNECT_FAILED };

/* found is handed over. */
void spb_connector_init(struct spb_connector *connector, const char *text,
                        const struct spb_endpoint *endpoint, struct addrinfo *found);
void spb_connector_done(struct spb_connector *connector);
/* Takes the place of the addresses that are known; no attempt is under way. found is handed over.
 */
void spb_connector_set_addresses(struct spb_connector *connector, struct addrinfo *found);

/* Begins an attempt. err is filled where it failed. */
enum spb_connector_event spb_connector_begin(struct spb_connector *connector, int64_t now_ns,
                                             int64_t deadline_ns, struct spb_error *err);
/* Goes on with it, when the socket is ready to be written or it is due. */
enum spb_connector_event spb_connector_step(struct spb_connector *connector, int64_t now_ns,
                                            struct spb_error *err);
/* The socket of an attempt that is done, now the caller's: connected, non-blocking, CLOEXEC. */
int spb_connector_take(struct spb_connector *connector);
/* Drops an attempt. */
void spb_connector_abandon(struct spb_connector *connector);

/* The socket to be polled for writing; -1: there is nothing to poll for. */
static inline int spb_connector_fd(const struct spb_connector *connector)
{
    return connector->endpoint.is_unix ? -1 : connector->fd;
}
/* When it has something to do even if the socket is not ready. */
static inline int64_t spb_connector_due_ns(const struct spb_connector *connector)
{
    return connector->turn_ns;
}

#endif
