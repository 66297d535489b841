/* Listening sockets: bound at the start, taken from on the loop's thread. */
#ifndef SPB_SERVER_LISTENER_H
#define SPB_SERVER_LISTENER_H

#include "endpoint.h"

struct spb_daemon;
struct spb_listeners;

/*
 * Binds all endpoints of the options. A unix socket gets mode 0600; a socket file that nobody
 * listens on is replaced, any other file is an error.
 */
SPB_MUST_USE spb_status spb_listeners_new(struct spb_daemon *daemon,
                                          struct spb_listeners **listeners, struct spb_error *err);
/* Closes them and removes the socket files that are still ours. Accepts NULL. */
void spb_listeners_free(struct spb_listeners *listeners);

size_t spb_listeners_count(const struct spb_listeners *listeners);
/* What the i-th was bound to, in the order of the options. */
const struct spb_endpoint *spb_listeners_bound(const struct spb_listeners *listeners, size_t i);

#endif
