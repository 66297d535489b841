/*
 * The options of spaceblockd, in one table: the command line, the configuration file, --help, the
 * example configuration and the manual page are made from it or held to it by a test. Limits have a
 * table of their own (limit.h).
 */
#ifndef SPB_SERVER_OPTIONS_H
#define SPB_SERVER_OPTIONS_H

#include <stdio.h>

#include "endpoint.h"
#include "limit.h"
#include "log.h"
#include "spaceblock/status.h"

#define SPB_LISTEN_MAX 16
#define SPB_PATH_SIZE 4096
#define SPB_CONFIG_USUAL "/etc/spaceblock/spaceblockd.conf"

/* What guests run on that do not say. */
enum spb_accelerator { SPB_ACCELERATOR_AUTO, SPB_ACCELERATOR_KVM, SPB_ACCELERATOR_TCG };

struct spb_options {
    char data_dir[SPB_PATH_SIZE];
    struct spb_endpoint listen[SPB_LISTEN_MAX]; /* in the order given */
    size_t listen_count;
    bool usual_socket; /* the one endpoint is the usual one: its folder is ours to make */
    bool has_http;
    struct spb_endpoint http;
    enum spb_log_level log_level;
    char run_dir[SPB_PATH_SIZE]; /* empty: DATA_DIR/run */
    char qemu[SPB_PATH_SIZE];
    char guest_files[SPB_PATH_SIZE]; /* empty: none */
    enum spb_accelerator accelerator;
    char cgroup[SPB_PATH_SIZE]; /* empty: as found */
    bool no_cgroup;
    struct spb_limits limits;
    char config[SPB_PATH_SIZE]; /* the file that was read; empty: none */
    bool help, version, check;  /* of the first two, nothing else counts then */
};

struct spb_option_row {
    const char *section, *name; /* in the file; on the command line with - for _ */
    const char *value;          /* what stands for its value in a usage */
    const char *text;
    bool live;    /* a reload changes it */
    bool repeats; /* may be given several times */
    spb_status (*take)(struct spb_options *options, const char *text, struct spb_error *err);
    /* As "name = value" lines. */
    void (*show)(const struct spb_options *options, const char *name, FILE *out);
};

const struct spb_option_row *spb_option_rows(size_t *count);

void spb_options_init(struct spb_options *options);

/*
 * Everything from its default, the configuration file and the command line, the latter over the
 * former. May be called again, for a reload; one thread at a time, for it uses getopt. SPB_INVALID
 * is a usage error or a bad configuration. Blocks.
 */
SPB_MUST_USE spb_status spb_options_parse(int argc, char **argv, struct spb_options *options,
                                          struct spb_error *err);

/* What --help prints. */
void spb_options_print_help(FILE *out);
/* What --check-config prints: a configuration file with what is in force. */
void spb_options_print(const struct spb_options *options, FILE *out);

#endif
