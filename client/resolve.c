/*
 * Names to addresses, within a deadline that getaddrinfo does not know. Addresses in figures are
 * read at once; a name is looked up on a thread of its own. Whoever of the two, thread and caller,
 * comes second to the shared record frees it.
 */
#include "dial.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "clock.h"

struct lookup {
    atomic_bool is_left; /* one of the two has gone */
    struct spb_endpoint endpoint;
    int outcome; /* of getaddrinfo */
    struct addrinfo *found;
};

static int look_up(const struct spb_endpoint *endpoint, int flags, struct addrinfo **found)
{
    struct addrinfo hints = {.ai_family = endpoint->is_literal ? AF_INET6 : AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | flags};

    return getaddrinfo(endpoint->host, endpoint->port, &hints, found);
}

static void lookup_leave(struct lookup *lookup)
{
    if (!atomic_exchange(&lookup->is_left, true))
        return;
    if (lookup->outcome == 0)
        freeaddrinfo(lookup->found);
    free(lookup);
}

static void *run_lookup(void *user)
{
    struct lookup *lookup = user;

    lookup->outcome = look_up(&lookup->endpoint, 0, &lookup->found);
    lookup_leave(lookup);
    return NULL;
}

/* The thread takes no signals: they are meant for the program's own threads. */
static int start_lookup(struct lookup *lookup, pthread_t *thread)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int outcome = pthread_create(thread, NULL, run_lookup, lookup);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return outcome;
}

static int await_lookup(pthread_t thread, int64_t deadline_ns)
{
    struct timespec until = {.tv_sec = deadline_ns / SPB_NS_PER_S,
                             .tv_nsec = deadline_ns % SPB_NS_PER_S};

    if (deadline_ns == SPB_NO_DEADLINE)
        return pthread_join(thread, NULL);
    return pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until);
}

static spb_status fail_lookup(const char *text, int outcome, struct spb_error *err)
{
    return spb_fail(err, SPB_UNREACHABLE, "cannot find the host of %.300s: %s", text,
                    gai_strerror(outcome));
}

static spb_status look_up_within(const char *text, const struct spb_endpoint *endpoint,
                                 int64_t deadline_ns, struct addrinfo **found,
                                 struct spb_error *err)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    pthread_t thread;

    if (lookup == NULL)
        return spb_fail_memory(err, "looking up a host");
    lookup->endpoint = *endpoint;
    int number = start_lookup(lookup, &thread);
    if (number != 0) {
        free(lookup);
        return spb_fail_errno(err, SPB_UNREACHABLE, number, "cannot look up the host of %.300s",
                              text);
    }
    if (await_lookup(thread, deadline_ns) != 0) {
        (void)pthread_detach(thread);
        lookup_leave(lookup);
        return spb_fail(err, SPB_UNREACHABLE, "cannot find the host of %.300s in time", text);
    }
    int outcome = lookup->outcome;
    if (outcome == 0)
        *found = lookup->found;
    free(lookup);
    return outcome == 0 ? spb_ok() : fail_lookup(text, outcome, err);
}

spb_status spb_resolve(const char *text, const struct spb_endpoint *endpoint, int64_t deadline_ns,
                       struct addrinfo **found, struct spb_error *err)
{
    int outcome = look_up(endpoint, AI_NUMERICHOST, found);

    if (outcome == 0)
        return spb_ok();
    if (endpoint->is_literal)
        return spb_fail(err, SPB_INVALID, "endpoint '%.300s': '%.60s' is not an IPv6 address", text,
                        endpoint->host);
    if (outcome != EAI_NONAME)
        return fail_lookup(text, outcome, err);
    return look_up_within(text, endpoint, deadline_ns, found, err);
}
