/*
 * Making the connection: names to addresses, addresses to a socket. What takes a deadline blocks up
 * to it; the rest is for who does not block.
 */
#ifndef SPB_CLIENT_DIAL_H
#define SPB_CLIENT_DIAL_H

#include <netdb.h>
#include <stdint.h>

#include "endpoint.h"

/*
 * A connected stream socket, non-blocking and CLOEXEC, the caller's to close. Each address of a
 * name is tried, with a fair share of the time that is left. SPB_UNREACHABLE where none answers.
 */
SPB_MUST_USE spb_status spb_dial(const char *text, const struct spb_endpoint *endpoint,
                                 int64_t deadline_ns, int *fd, struct spb_error *err);

/* The same for addresses that were found; they are borrowed for the call, and text is for errors.
 */
SPB_MUST_USE spb_status spb_dial_addresses(const char *text, const struct addrinfo *found,
                                           int64_t deadline_ns, int *fd, struct spb_error *err);

/*
 * Addresses of a TCP endpoint; *found is the caller's, freeaddrinfo(). A name is looked up on a
 * thread that is left behind, to free itself, when the deadline passes first.
 */
SPB_MUST_USE spb_status spb_resolve(const char *text, const struct spb_endpoint *endpoint,
                                    int64_t deadline_ns, struct addrinfo **found,
                                    struct spb_error *err);

/* Begins to connect a non-blocking, CLOEXEC socket, the caller's to close: 0 where that is done,
 * EINPROGRESS, or the errno of a failure, with no socket. */
int spb_dial_begin(const struct addrinfo *address, int *fd);
/* How a connect that was in progress ended: 0 or its errno. */
int spb_dial_outcome(int fd);
/* For a connected TCP socket: small calls go out at once, and a link that died without a word is
 * noticed. */
void spb_dial_tune(int fd);

#endif
