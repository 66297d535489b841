/* The command line of spaceblockd. */
#ifndef SPB_SERVER_OPTIONS_H
#define SPB_SERVER_OPTIONS_H

#include "endpoint.h"
#include "log.h"
#include "spaceblock/status.h"

#define SPB_LISTEN_MAX 16

struct spb_options {
    const char *data_dir;                       /* borrowed from argv */
    struct spb_endpoint listen[SPB_LISTEN_MAX]; /* in the order given */
    size_t listen_count;
    bool usual_socket; /* the one endpoint is the usual one: its folder is ours to make */
    enum spb_log_level log_level;
    bool help, version; /* nothing else counts then */
};

/* SPB_INVALID is a usage error. */
SPB_MUST_USE spb_status spb_options_parse(int argc, char **argv, struct spb_options *options,
                                          struct spb_error *err);

/* What --help prints. */
extern const char spb_options_help[];

#endif
