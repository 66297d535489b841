/*
 * Entry of the command line tool: finds the command, checks that its words and options fit, runs
 * it, and sees that all output arrived. One thread. The only mutable global of the tool is here:
 * the flag that signals set.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void cli_interrupt_watch(void)
{
    /* A second signal ends the process at once; no restart, so that a waiting read returns. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaction(signals[i], &action, NULL);
}

bool cli_is_interrupted(void)
{
    return interrupted != 0;
}

/* A closed standard stream's number would go to the first file that is opened, and what is printed
 * would end up in an image. The stand-ins fail in the direction that counts. */
static bool hold_standard_streams(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDWR};

    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            return false;
    }
    return true;
}

/* ---- Finding the command ------------------------------------------------------------------- */

static const struct cli_family *find_family(const char *word)
{
    for (const struct cli_family *f = cli_families; f->name != NULL; f++) {
        if (strcmp(f->name, word) == 0)
            return f;
    }
    return NULL;
}

static const struct cli_command *find_command(const char *family, const char *name)
{
    for (const struct cli_command *c = cli_commands; c->name != NULL; c++) {
        bool fits = family == NULL ? c->family == NULL
                                   : c->family != NULL && strcmp(c->family, family) == 0;
        if (fits && strcmp(c->name, name) == 0)
            return c;
    }
    return NULL;
}

/* "put, get, list" of a family's commands, or of all first words. */
static void list_names(const char *family, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (const struct cli_command *c = cli_commands; c->name != NULL && used < size; c++) {
        if (family == NULL ? c->family == NULL
                           : c->family != NULL && strcmp(c->family, family) == 0)
            used +=
                (size_t)snprintf(out + used, size - used, "%s%s", used == 0 ? "" : ", ", c->name);
    }
    for (const struct cli_family *f = cli_families;
         family == NULL && f->name != NULL && used < size; f++)
        used += (size_t)snprintf(out + used, size - used, ", %s", f->name);
}

static int unknown_command(struct cli *cli, const char *family, const char *word)
{
    char names[256];

    list_names(family, names, sizeof(names));
    if (word == NULL)
        return cli_usage(cli, "%s%sfound no command, expected one of %s (spaceblock --help)",
                         family == NULL ? "" : family, family == NULL ? "" : ": ", names);
    return cli_usage(cli, "%s%sunknown command \"%s\", expected one of %s (spaceblock --help)",
                     family == NULL ? "" : family, family == NULL ? "" : ": ", word, names);
}

/* Sets command, words and word_count; CLI_EXIT_OK, or the exit code of a printed error. In help a
 * family, or nothing at all, may stand alone. */
static int find(struct cli *cli, bool is_help)
{
    size_t named = 1;

    if (cli->word_count == 0)
        return is_help ? CLI_EXIT_OK : unknown_command(cli, NULL, NULL);
    const struct cli_family *family = find_family(cli->words[0]);
    if (family == NULL) {
        cli->command = find_command(NULL, cli->words[0]);
    } else {
        if (cli->word_count == 1)
            return is_help ? CLI_EXIT_OK : unknown_command(cli, family->name, NULL);
        cli->command = find_command(family->name, cli->words[1]);
        named = 2;
    }
    if (cli->command == NULL)
        return unknown_command(cli, family == NULL ? NULL : family->name, cli->words[named - 1]);
    cli->words += named;
    cli->word_count -= named;
    return CLI_EXIT_OK;
}

/* ---- Checking its arguments ---------------------------------------------------------------- */

static int check_options(struct cli *cli, const char *name)
{
    uint64_t allowed = cli_command_options(cli->command);

    for (unsigned id = 0; id < CLI_OPT_COUNT; id++) {
        bool given = cli_has(cli, id);
        if (given && (allowed & CLI_BIT(id)) == 0)
            return cli_usage(cli, "%s takes no %s (spaceblock %s --help)", name,
                             cli_options[id].name, name);
        if (!given && (cli->command->required & CLI_BIT(id)) != 0)
            return cli_usage(cli, "%s: %s %s is missing (spaceblock %s --help)", name,
                             cli_options[id].name, cli_options[id].metavar, name);
    }
    for (unsigned id = 0; id < CLI_OPT_COUNT; id++) {
        if (cli->args.options[id].count > 1 && (cli->command->several & CLI_BIT(id)) == 0)
            return cli_usage(cli, "%s: found %s %zu times, expected it once", name,
                             cli_options[id].name, cli->args.options[id].count);
    }
    return CLI_EXIT_OK;
}

static int check_target(struct cli *cli, const char *name)
{
    static const enum cli_option_id of_image[] = {CLI_OPT_ENDPOINT, CLI_OPT_TIMEOUT,
                                                  CLI_OPT_RETRIES, CLI_OPT_VERBOSE};
    bool file = cli_has(cli, CLI_OPT_FILE), image = cli_has(cli, CLI_OPT_IMAGE);

    if (cli->command->subject != CLI_ON_TARGET)
        return CLI_EXIT_OK;
    if (file == image)
        return cli_usage(cli, "%s: found %s, expected either --file F or --image [TENANT/]NAME",
                         name, file ? "both --file and --image" : "neither --file nor --image");
    if (image && cli_has(cli, CLI_OPT_SECTOR_SIZE))
        return cli_usage(cli, "%s: --sector-size goes with --file (the daemon knows it)", name);
    for (size_t i = 0; file && i < sizeof(of_image) / sizeof(of_image[0]); i++) {
        if (cli_has(cli, of_image[i]))
            return cli_usage(cli, "%s: %s goes with --image, found --file", name,
                             cli_options[of_image[i]].name);
    }
    return CLI_EXIT_OK;
}

static int check_arguments(struct cli *cli)
{
    const struct cli_command *command = cli->command;
    struct spb_error err;
    char name[CLI_NAME_SIZE];

    cli_command_name(command, name);
    if (cli->word_count < command->words_min || cli->word_count > command->words_max)
        return cli_usage(cli, "%s: found %zu word%s after it, expected %s (spaceblock %s --help)",
                         name, cli->word_count, cli->word_count == 1 ? "" : "s",
                         command->words[0] == '\0' ? "none" : command->words, name);
    int code = check_options(cli, name);
    if (code == CLI_EXIT_OK)
        code = check_target(cli, name);
    if (code == CLI_EXIT_OK && !spb_is_ok(cli_args_convert(&cli->args, &err)))
        code = cli_usage(cli, "%s", err.text);
    return code;
}

static int run(struct cli *cli, int argc, char *const *argv)
{
    struct spb_error err;

    spb_status status = cli_args_split(&cli->args, argc, argv, &err);
    if (!spb_is_ok(status))
        return cli_usage(cli, "%s", err.text);
    cli->words = cli->args.words;
    cli->word_count = cli->args.word_count;
    bool is_help = cli_has(cli, CLI_OPT_HELP);
    if (cli->word_count > 0 && strcmp(cli->words[0], "help") == 0) {
        is_help = true;
        cli->words++;
        cli->word_count--;
    }
    if (cli_has(cli, CLI_OPT_VERSION) && !is_help) {
        cli_print_version();
        return CLI_EXIT_OK;
    }
    int code = find(cli, is_help);
    if (code != CLI_EXIT_OK)
        return code;
    if (is_help)
        return cli_help(cli);
    code = check_arguments(cli);
    return code == CLI_EXIT_OK ? cli->command->run(cli) : code;
}

int main(int argc, char **argv)
{
    struct cli cli = {.command = NULL};

    if (!hold_standard_streams())
        return CLI_EXIT_FAILED;
    /* A reader that went away shows as an error of the write. */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* so does a file that may grow no more */
    int code = run(&cli, argc > 0 ? argc - 1 : 0, argv + 1);
    return cli_finish_output(&cli, code);
}
