/*
 * The HTTP listener: /metrics for Prometheus, /healthz and /readyz for whoever watches the daemon.
 * On loopback only, GET and HEAD only, and only where it is configured.
 *
 * It has a thread and an event loop of its own. Rendering metrics takes locks of images, walks
 * their list and reads /proc, which the RPC's loop must not wait for; and a scraper, slow or
 * hostile, takes nothing of that loop's time. What it shows is read from atomics, or under locks
 * that are held briefly.
 */
#ifndef SPB_SERVER_HTTP_H
#define SPB_SERVER_HTTP_H

#include "endpoint.h"

struct spb_daemon;
struct spb_http;

/* Binds and starts the thread, where the options want it; otherwise *http is NULL. */
SPB_MUST_USE spb_status spb_http_new(struct spb_daemon *daemon, struct spb_http **http,
                                     struct spb_error *err);
/* Ends the thread and closes what is open. Accepts NULL. Blocks. */
void spb_http_free(struct spb_http *http);

const struct spb_endpoint *spb_http_bound(const struct spb_http *http);

#endif
