/* Making the connection: names to addresses, addresses to a socket. Blocks up to a deadline. */
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

#endif
