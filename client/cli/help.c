/* Help texts, made from the tables of commands and options, on standard output. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#define WIDTH 80u

static const char exit_codes[] =
    "Exit codes: 0 done, 1 failed, 2 usage, 3 cannot reach the daemon, 4 not found,\n"
    "5 corrupt data (or a check that leaves something unrepaired)\n";

/* A line that breaks at WIDTH and goes on under `indent`. */
struct line {
    size_t used, indent;
};

static void put_token(struct line *line, const char *token, size_t length)
{
    if (line->used > line->indent && line->used + 1 + length > WIDTH) {
        printf("\n%*s", (int)line->indent, "");
        line->used = line->indent;
    }
    bool first = line->used == line->indent;
    printf("%s%.*s", first ? "" : " ", (int)length, token);
    line->used += length + (first ? 0 : 1);
}

static void put_words(struct line *line, const char *text)
{
    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        if (length > 0)
            put_token(line, text, length);
        text += length + (text[length] == ' ' ? 1 : 0);
    }
}

static void put_option(struct line *line, enum cli_option_id id, bool required)
{
    const struct cli_option *option = &cli_options[id];
    const char *value = option->metavar == NULL ? "" : option->metavar;
    char token[64];

    (void)snprintf(token, sizeof(token), required ? "%s%s%s" : "[%s%s%s]", option->name,
                   value[0] == '\0' ? "" : " ", value);
    put_token(line, token, strlen(token));
}

/* Only the subject's part of the usage line: the options of the others are listed one by one. */
static uint64_t put_subject(struct line *line, const struct cli_command *command)
{
    if (command->subject != CLI_ON_TARGET)
        return 0;
    put_words(line, "(--file F [--sector-size S] | --image [TENANT/]NAME [--endpoint E] "
                    "[--timeout SECONDS] [--retries N] [--verbose])");
    return CLI_BIT(CLI_OPT_FILE) | CLI_BIT(CLI_OPT_SECTOR_SIZE) | CLI_BIT(CLI_OPT_IMAGE) |
           CLI_BIT(CLI_OPT_ENDPOINT) | CLI_BIT(CLI_OPT_TIMEOUT) | CLI_BIT(CLI_OPT_RETRIES) |
           CLI_BIT(CLI_OPT_VERBOSE);
}

static void print_usage(const struct cli_command *command)
{
    struct line line = {0, 7};

    printf("Usage: ");
    line.used = 7;
    put_words(&line, "spaceblock");
    if (command->family != NULL)
        put_words(&line, command->family);
    put_words(&line, command->name);
    put_words(&line, command->words);
    uint64_t shown = put_subject(&line, command) | CLI_BIT(CLI_OPT_HELP);
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned id = 0; id < CLI_OPT_COUNT; id++) {
            bool required = (command->required & CLI_BIT(id)) != 0;
            if ((cli_command_options(command) & ~shown & CLI_BIT(id)) != 0 &&
                required == (pass == 0))
                put_option(&line, id, required);
        }
    }
    printf("\n");
}

static void print_paragraph(const char *text)
{
    struct line line = {0, 0};

    put_words(&line, text);
    printf("\n");
}

static void print_option(enum cli_option_id id)
{
    const struct cli_option *option = &cli_options[id];
    struct line line = {26, 26};
    int used = printf("  %s%s%s", option->name, option->metavar == NULL ? "" : " ",
                      option->metavar == NULL ? "" : option->metavar);

    printf("%*s", used < 26 ? 26 - used : 1, "");
    put_words(&line, option->help);
    printf("\n");
}

static void print_options(uint64_t options)
{
    printf("\nOptions (before or after the words):\n");
    for (unsigned id = 0; id < CLI_OPT_COUNT; id++) {
        if ((options & CLI_BIT(id)) != 0)
            print_option(id);
    }
}

static void help_command(const struct cli_command *command)
{
    print_usage(command);
    printf("\n%c%s.\n", command->summary[0] - 'a' + 'A', command->summary + 1);
    if (command->details != NULL)
        print_paragraph(command->details);
    print_options(cli_command_options(command));
    printf("\nExample:\n%s\n\n%s", command->example, exit_codes);
}

static void list_commands(const char *family)
{
    for (const struct cli_command *c = cli_commands; c->name != NULL; c++) {
        char words[96];
        if ((c->family == NULL) != (family == NULL) ||
            (family != NULL && strcmp(c->family, family) != 0))
            continue;
        (void)snprintf(words, sizeof(words), "%s%s%s%s%s", family == NULL ? "" : family,
                       family == NULL ? "" : " ", c->name, c->words[0] == '\0' ? "" : " ",
                       c->words);
        struct line line = {32, 32};
        printf("  %-29s ", words);
        put_words(&line, c->summary);
        printf("\n");
    }
}

static void help_family(const struct cli_family *family)
{
    const struct cli_command *first = NULL;

    printf("Usage: spaceblock %s COMMAND ...\n\nWorks on %s.\n\nCommands:\n", family->name,
           family->summary);
    list_commands(family->name);
    for (const struct cli_command *c = cli_commands; first == NULL; c++) {
        if (c->family != NULL && strcmp(c->family, family->name) == 0)
            first = c;
    }
    printf("\nExample:\n%s\n\nspaceblock %s COMMAND --help tells more.\n\n%s", first->example,
           family->name, exit_codes);
}

static void help_all(void)
{
    printf("Usage: spaceblock COMMAND ... (--file F | --image [TENANT/]NAME)\n\n"
           "Works on SpaceOS block images, offline on a file or through spaceblockd.\n\n"
           "Commands:\n");
    list_commands(NULL);
    for (const struct cli_family *f = cli_families; f->name != NULL; f++) {
        printf("\n%c%s:\n", f->summary[0] - 'a' + 'A', f->summary + 1);
        list_commands(f->name);
    }
    print_options(CLI_BIT(CLI_OPT_FILE) | CLI_BIT(CLI_OPT_IMAGE) | CLI_BIT(CLI_OPT_ENDPOINT) |
                  CLI_BIT(CLI_OPT_TIMEOUT) | CLI_BIT(CLI_OPT_RETRIES) | CLI_BIT(CLI_OPT_VERBOSE) |
                  CLI_BIT(CLI_OPT_JSON) | CLI_BIT(CLI_OPT_HELP) | CLI_BIT(CLI_OPT_VERSION));
    printf("\nNumbers are decimal or 0x hex. A word that begins with a hyphen and is no number\n"
           "goes after --.\n"
           "\nExample:\n"
           "  spaceblock init --file demo.img --blocks 4096\n"
           "  spaceblock param put 42 3.14 --file demo.img\n"
           "\nspaceblock COMMAND --help tells more.\n\n%s",
           exit_codes);
}

int cli_help(struct cli *cli)
{
    if (cli->command != NULL) {
        help_command(cli->command);
        return CLI_EXIT_OK;
    }
    for (const struct cli_family *f = cli_families; f->name != NULL && cli->word_count > 0; f++) {
        if (strcmp(f->name, cli->words[0]) == 0) {
            help_family(f);
            return CLI_EXIT_OK;
        }
    }
    help_all();
    return CLI_EXIT_OK;
}

void cli_print_version(void)
{
    printf("spaceblock %s\n", SPB_VERSION);
}
