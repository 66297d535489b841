/*
 * What all files of the command line tool share: exit codes, the command table's shape and the
 * state of one run. One thread. A run parses its arguments wholly before it touches an image or a
 * daemon.
 */
#ifndef SPB_CLI_CLI_H
#define SPB_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "cli/options.h"
#include "spaceblock/client.h"
#include "spaceblock/volume.h"

enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1,
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_UNREACHABLE = 3,
    CLI_EXIT_NOT_FOUND = 4,
    CLI_EXIT_CORRUPT = 5,
    CLI_EXIT_PANIC = 6, /* launch and guest: how the guest ended, this and below */
    CLI_EXIT_REBOOT = 7,
    CLI_EXIT_STOPPED = 8,
    CLI_EXIT_QEMU = 9,
};

/* What a command works on. */
enum cli_subject {
    CLI_ON_NOTHING,     /* a path that it makes itself */
    CLI_ON_TARGET,      /* --file or --image */
    CLI_ON_IMAGE,       /* --image only */
    CLI_ON_NAMED_IMAGE, /* its first word is [TENANT/]NAME, through the daemon */
    CLI_ON_DAEMON,
};

struct cli;

struct cli_command {
    const char *family; /* "param"; NULL for a command of one word */
    const char *name;
    const char *words; /* as the usage line shows them; "" for none */
    size_t words_min, words_max;
    enum cli_subject subject;
    bool writes;
    uint64_t options;            /* CLI_BIT of each that it takes, beyond those of its subject */
    uint64_t required;           /* of these */
    uint64_t several;            /* of these: may be given more than once */
    const char *summary;         /* one line */
    const char *details;         /* more, or NULL */
    const char *example;         /* one line or more, each with its "  " */
    int (*run)(struct cli *cli); /* returns an enum cli_exit */
};

struct cli_family {
    const char *name;
    const char *summary;
};

/* Both end with an entry whose name is NULL. */
extern const struct cli_command cli_commands[];
extern const struct cli_family cli_families[];

/* "param put" */
#define CLI_NAME_SIZE 48u
void cli_command_name(const struct cli_command *command, char out[CLI_NAME_SIZE]);
/* All options that a command takes, those of its subject included. */
uint64_t cli_command_options(const struct cli_command *command);

/* How the last call of a daemon failed that did. */
struct cli_failure {
    int32_t rpc_code; /* 0: none failed; -1: the daemon did not answer */
    char reason[SPB_CLIENT_REASON_SIZE];
    bool is_unanswered; /* and may have got the call */
    bool is_unknown;    /* whether what the call was to change was changed */
};

struct cli {
    const struct cli_command *command;
    struct cli_args args;
    const char *const *words; /* of the command, without the words that name it */
    size_t word_count;
    struct cli_failure failure;
};

static inline bool cli_has(const struct cli *cli, enum cli_option_id id)
{
    return cli->args.options[id].count > 0;
}

static inline bool cli_is_json(const struct cli *cli)
{
    return cli_has(cli, CLI_OPT_JSON);
}

/* The option's number, or the default where it was not given. */
static inline uint64_t cli_number(const struct cli *cli, enum cli_option_id id, uint64_t otherwise)
{
    return cli_has(cli, id) ? cli->args.options[id].numbers[0] : otherwise;
}

/* The option's text, or NULL. */
static inline const char *cli_text_of(const struct cli *cli, enum cli_option_id id)
{
    return cli_has(cli, id) ? cli->args.options[id].texts[0] : NULL;
}

/* Commands, one file a family. */
int cli_run_init(struct cli *cli);
int cli_run_launch(struct cli *cli);
int cli_run_inspect(struct cli *cli);
int cli_run_check(struct cli *cli);
int cli_run_defrag(struct cli *cli);
int cli_run_image_create(struct cli *cli);
int cli_run_image_list(struct cli *cli);
int cli_run_image_show(struct cli *cli);
int cli_run_image_delete(struct cli *cli);
int cli_run_image_reopen(struct cli *cli);
int cli_run_image_import(struct cli *cli);
int cli_run_image_export(struct cli *cli);
int cli_run_image_clone(struct cli *cli);
int cli_run_image_rename(struct cli *cli);
int cli_run_artifact_put(struct cli *cli);
int cli_run_artifact_ls(struct cli *cli);
int cli_run_artifact_rm(struct cli *cli);
int cli_run_image_scrub(struct cli *cli);
int cli_run_param_put(struct cli *cli);
int cli_run_param_get(struct cli *cli);
int cli_run_param_list(struct cli *cli);
int cli_run_param_history(struct cli *cli);
int cli_run_param_delete(struct cli *cli);
int cli_run_event_append(struct cli *cli);
int cli_run_event_list(struct cli *cli);
int cli_run_event_watch(struct cli *cli);
int cli_run_dp_put(struct cli *cli);
int cli_run_dp_get(struct cli *cli);
int cli_run_dp_list(struct cli *cli);
int cli_run_dp_delete(struct cli *cli);
int cli_run_guest_create(struct cli *cli);
int cli_run_guest_run(struct cli *cli);
int cli_run_guest_start(struct cli *cli);
int cli_run_guest_ls(struct cli *cli);
int cli_run_guest_show(struct cli *cli);
int cli_run_guest_stop(struct cli *cli);
int cli_run_guest_kill(struct cli *cli);
int cli_run_guest_rm(struct cli *cli);
int cli_run_guest_wait(struct cli *cli);
int cli_run_guest_console(struct cli *cli);
int cli_run_guest_logs(struct cli *cli);
int cli_run_guest_stats(struct cli *cli);
int cli_run_audit_list(struct cli *cli);
int cli_run_server_info(struct cli *cli);
int cli_run_server_ping(struct cli *cli);

/* Help, on standard output. words: as given, without "help" and options. */
int cli_help(struct cli *cli);
void cli_print_version(void);

/* The running transfer should end: SIGINT, SIGTERM or SIGHUP came after cli_interrupt_watch. */
void cli_interrupt_watch(void);
bool cli_is_interrupted(void);

#endif
