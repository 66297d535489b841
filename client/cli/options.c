/* The table of options, and the splitting of arguments by it. One thread, no state. */
#include "cli/options.h"

#include <string.h>

const struct cli_option cli_options[CLI_OPT_COUNT] = {
    [CLI_OPT_FILE] = {"--file", "F", CLI_VALUE_TEXT, false, 0, 0,
                      "work offline on the image file or block device F"},
    [CLI_OPT_SECTOR_SIZE] = {"--sector-size", "S", CLI_VALUE_SECTOR_SIZE, false, 512, 65536,
                             "bytes a block, a power of two from 512 to 65536; a new image has "
                             "512 by default, of an existing one it follows from the file's size"},
    [CLI_OPT_IMAGE] = {"--image", "[TENANT/]NAME", CLI_VALUE_TEXT, true, 0, 0,
                       "work on this image through the daemon; TENANT is a number, by default "
                       "the caller's own. Of a guest: its disks, /dev/vda first"},
    [CLI_OPT_ENDPOINT] = {"--endpoint", "E", CLI_VALUE_TEXT, false, 0, 0,
                          "the daemon's address, unix:PATH or tcp://HOST:PORT; by default "
                          "$SPACEBLOCK_ENDPOINT, else the usual socket"},
    [CLI_OPT_TIMEOUT] = {"--timeout", "SECONDS", CLI_VALUE_NUMBER, false, 1, 86400,
                         "finish within this long, every attempt included, and wait so long for "
                         "a daemon that is not there; by default 30 s a call, an hour where all "
                         "data is read, and 2 s for a daemon that is not there"},
    [CLI_OPT_RETRIES] = {"--retries", "N", CLI_VALUE_NUMBER, false, 0, 1000000,
                         "at most N calls, and a fifth of all, are tried again after a lost "
                         "connection; 0: none; by default 32"},
    [CLI_OPT_VERBOSE] = {"--verbose", NULL, CLI_VALUE_NONE, false, 0, 0,
                         "say on standard error what is tried again, as is done on a terminal"},
    [CLI_OPT_BLOCKS] = {"--blocks", "N", CLI_VALUE_NUMBER, false, 0, UINT32_MAX,
                        "size of the image in blocks, at least 33"},
    [CLI_OPT_TENANT_ID] = {"--tenant-id", "T", CLI_VALUE_NUMBER, false, 0, UINT16_MAX,
                           "number of the tenant; in a new image 1 by default"},
    [CLI_OPT_ALL_TENANTS] = {"--all-tenants", NULL, CLI_VALUE_NONE, false, 0, 0,
                             "images of every tenant, for administrators"},
    [CLI_OPT_UUID] = {"--uuid", "U", CLI_VALUE_UUID, false, 0, 0,
                      "identity, 32 hex digits, hyphens allowed: of the new image, random by "
                      "default; of the one that is to be deleted"},
    [CLI_OPT_EPOCH] = {"--epoch", "E", CLI_VALUE_TIME, false, 0, 0,
                       "the time from which the new image counts its events, as --time; now by "
                       "default"},
    [CLI_OPT_FORCE] =
        {"--force", NULL, CLI_VALUE_NONE, false, 0, 0,
         "overwrite what is there; needed for block devices. Of a guest: kill it first"},
    [CLI_OPT_REPAIR] = {"--repair", NULL, CLI_VALUE_NONE, false, 0, 0,
                        "mend what the check lists as repairable"},
    [CLI_OPT_WAIT] = {"--wait", NULL, CLI_VALUE_NONE, false, 0, 0,
                      "wait for the end: of a scrub with a progress bar; of a guest, and exit as "
                      "guest wait does"},
    [CLI_OPT_STATUS] = {"--status", NULL, CLI_VALUE_NONE, false, 0, 0,
                        "begin none: only tell of the running or the last one"},
    [CLI_OPT_DATA] = {"--data", NULL, CLI_VALUE_NONE, false, 0, 0,
                      "with --json: the bytes of each readable data product too, as data_hex"},
    [CLI_OPT_IF_GENERATION] = {"--if-generation", "G", CLI_VALUE_NUMBER, false, 0, UINT16_MAX,
                               "only where the newest generation is G; 0: only where the "
                               "parameter is absent"},
    [CLI_OPT_RAW] = {"--raw", NULL, CLI_VALUE_NONE, false, 0, 0,
                     "write the bytes as they are, and nothing else"},
    [CLI_OPT_NEWEST] = {"-n", "N", CLI_VALUE_NUMBER, false, 1, UINT32_MAX,
                        "only the newest N: of events that match, of lines of a console"},
    [CLI_OPT_SEVERITY] = {"--severity", "S", CLI_VALUE_SEVERITY, true, 0, 255,
                          "debug, info, warn, error, critical, or a number from 0 to 255"},
    [CLI_OPT_CODE] = {"--code", "C", CLI_VALUE_NUMBER, true, 0, UINT16_MAX,
                      "event code, 0 to 65535"},
    [CLI_OPT_TIME] = {"--time", "T", CLI_VALUE_TIME, false, 0, 0,
                      "when it happened, in UNIX seconds or as 2026-01-02T03:04:05Z; now by "
                      "default"},
    [CLI_OPT_FROM] = {"--from", "now|start|CURSOR", CLI_VALUE_TEXT, false, 0, 0,
                      "where to begin: with what comes (the default), with the oldest event, or "
                      "where an earlier watch ended"},
    [CLI_OPT_LIMIT] = {"--limit", "N", CLI_VALUE_NUMBER, false, 1, UINT32_MAX,
                       "at most N: of changes the newest, 100 by default; of events "
                       "that are watched, the next"},
    [CLI_OPT_CLASS] = {"--class", "C", CLI_VALUE_NUMBER, false, 0, UINT16_MAX,
                       "class of the product, 0 to 65535, by default 0"},
    [CLI_OPT_PRIORITY] = {"--priority", "P", CLI_VALUE_NUMBER, false, 0, UINT8_MAX,
                          "0 (the highest, and the default) to 255"},
    [CLI_OPT_REPLACE] = {"--replace", NULL, CLI_VALUE_NONE, false, 0, 0,
                         "take the place of a product of this name"},
    [CLI_OPT_PADDED] = {"--padded", NULL, CLI_VALUE_NONE, false, 0, 0,
                        "of a corrupt product, the bytes of its blocks as they are"},
    [CLI_OPT_VERIFY] = {"--verify", NULL, CLI_VALUE_NONE, false, 0, 0,
                        "read all data first, so that every length and state is known"},
    [CLI_OPT_KERNEL] = {"--kernel", "K", CLI_VALUE_TEXT, false, 0, 0,
                        "the guest's kernel: a file. Of a daemon's guest also sha256:HEX, an "
                        "artifact's label, or file:NAME in the daemon's own folder"},
    [CLI_OPT_INITRD] = {"--initrd", "I", CLI_VALUE_TEXT, false, 0, 0,
                        "the guest's initial RAM disk, as --kernel"},
    [CLI_OPT_APPEND] = {"--append", "WORDS", CLI_VALUE_TEXT, false, 0, 0,
                        "more words for the kernel's command line"},
    [CLI_OPT_MEMORY] = {"--memory", "MIB", CLI_VALUE_NUMBER, false, 32, 1048576,
                        "the guest's memory in MiB, by default 128"},
    [CLI_OPT_ACCEL] = {"--accel", "A", CLI_VALUE_TEXT, false, 0, 0,
                       "tcg (slow, runs everywhere) or kvm; of a daemon's guest also auto, kvm "
                       "where it was seen to work. By default tcg for launch, else auto"},
    [CLI_OPT_QEMU] = {"--qemu", "PROGRAM", CLI_VALUE_TEXT, false, 0, 0,
                      "the QEMU to run, by default qemu-system-x86_64"},
    [CLI_OPT_ACCEPT_IDENTITY] = {"--accept-identity", NULL, CLI_VALUE_NONE, false, 0, 0,
                                 "of a quarantined image: take what its file holds now as the "
                                 "image of this name"},
    [CLI_OPT_SINCE] = {"--since", "T", CLI_VALUE_TEXT, false, 0, 0,
                       "from this time on: 2026-01-02T03:04:05Z, 2026-01-02, UNIX seconds, or how "
                       "long ago as in 90s, 15m, 2h, 3d, 1w"},
    [CLI_OPT_UNTIL] = {"--until", "T", CLI_VALUE_TEXT, false, 0, 0, "before this time, as --since"},
    [CLI_OPT_PRINCIPAL] = {"--principal", "P", CLI_VALUE_TEXT, false, 0, 0,
                           "only of this caller, such as uid:1000 or local"},
    [CLI_OPT_METHOD] = {"--method", "M", CLI_VALUE_TEXT, false, 0, 0,
                        "only of this method, such as Params.Put"},
    [CLI_OPT_OUTCOME] = {"--outcome", "O", CLI_VALUE_TEXT, false, 0, 0,
                         "only with this outcome: pending, done, completed, not-done or unknown"},
    [CLI_OPT_NO_RESUME] = {"--no-resume", NULL, CLI_VALUE_NONE, false, 0, 0,
                           "begin anew, and drop what an earlier, interrupted command left to be "
                           "continued"},
    [CLI_OPT_NEW_IDENTITY] = {"--new-identity", NULL, CLI_VALUE_NONE, false, 0, 0,
                              "the image gets the tenant of its name and a fresh uuid"},
    [CLI_OPT_NAME] = {"--name", "LABEL", CLI_VALUE_TEXT, false, 0, 0,
                      "a label for people, of up to 64 bytes; the file's own name by default"},
    [CLI_OPT_CPUS] = {"--cpus", "N", CLI_VALUE_NUMBER, false, 1, 1024,
                      "the guest's processors, by default 1"},
    [CLI_OPT_RESTART] = {"--restart", "R", CLI_VALUE_TEXT, false, 0, 0,
                         "when to start it again by itself: never (the default), on-failure (a "
                         "panic, a failed QEMU), or always, but not once it was told to stop"},
    [CLI_OPT_BOOT_DEADLINE] = {"--boot-deadline", "SECONDS", CLI_VALUE_NUMBER, false, 1, 86400,
                               "time for its first sign of life; the daemon's by default"},
    [CLI_OPT_STOP_TIMEOUT] = {"--stop-timeout", "SECONDS", CLI_VALUE_NUMBER, false, 1, 86400,
                              "time from its power button to the end of its QEMU; by default as "
                              "it was made with, else the daemon's"},
    [CLI_OPT_EPHEMERAL] = {"--ephemeral", NULL, CLI_VALUE_NONE, false, 0, 0,
                           "the guest ends with the daemon"},
    [CLI_OPT_LABEL] = {"--label", "KEY=VALUE", CLI_VALUE_TEXT, true, 0, 0,
                       "a label for people and scripts; up to 16 of them"},
    [CLI_OPT_RM] = {"--rm", NULL, CLI_VALUE_NONE, false, 0, 0,
                    "wait for the end, and remove the guest then; a signal kills and removes it"},
    [CLI_OPT_NO_WAIT] = {"--no-wait", NULL, CLI_VALUE_NONE, false, 0, 0,
                         "do not wait for the guest's end"},
    [CLI_OPT_FOR] = {"--for", "WHAT", CLI_VALUE_TEXT, false, 0, 0,
                     "stopped (it has ended, however; the default), running, or alive (it has "
                     "given a sign of life)"},
    [CLI_OPT_FOLLOW] = {"-f", NULL, CLI_VALUE_NONE, false, 0, 0,
                        "go on with what it prints, until it has ended"},
    [CLI_OPT_TAKE_OVER] = {"--take-over", NULL, CLI_VALUE_NONE, false, 0, 0,
                           "type even where somebody else does: who then cannot any more"},
    [CLI_OPT_JSON] = {"--json", NULL, CLI_VALUE_NONE, false, 0, 0,
                      "one JSON object on standard output; errors and notes as JSON objects, one "
                      "a line, on standard error"},
    [CLI_OPT_HELP] = {"--help", NULL, CLI_VALUE_NONE, false, 0, 0, "show help"},
    [CLI_OPT_VERSION] = {"--version", NULL, CLI_VALUE_NONE, false, 0, 0, "show the version"},
};

/* Index of the option of this name, or CLI_OPT_COUNT. */
static unsigned find_option(const char *name, size_t length)
{
    unsigned id;

    if (length == 2 && memcmp(name, "-h", 2) == 0)
        return CLI_OPT_HELP;
    for (id = 0; id < CLI_OPT_COUNT; id++) {
        const char *known = cli_options[id].name;
        if (strlen(known) == length && memcmp(known, name, length) == 0)
            break;
    }
    return id;
}

static spb_status add_option(struct cli_args *args, unsigned id, const char *text,
                             struct spb_error *err)
{
    struct cli_option_value *value = &args->options[id];
    size_t most = cli_options[id].repeats ? CLI_REPEAT_MAX : 1;

    /* A flag given twice says nothing else than once. */
    if (cli_options[id].metavar == NULL) {
        value->count = 1;
        return spb_ok();
    }
    if (value->count == most)
        return spb_fail(err, SPB_INVALID, "%s: found more than %zu times, expected at most that",
                        cli_options[id].name, most);
    value->texts[value->count++] = text;
    return spb_ok();
}

/* One argument that begins with a hyphen; *at stands on it and is left on the last one used. */
static spb_status take_option(struct cli_args *args, int *at, int argc, char *const *argv,
                              struct spb_error *err)
{
    const char *arg = argv[*at];
    size_t length = strcspn(arg, "=");
    const char *attached = arg[length] == '=' ? arg + length + 1 : NULL;

    if (arg[1] == 'n' && arg[2] != '\0') {
        length = 2;
        attached = arg[2] == '=' ? arg + 3 : arg + 2;
    }
    unsigned id = find_option(arg, length);
    if (id == CLI_OPT_COUNT)
        return spb_fail(err, SPB_INVALID,
                        "unknown option \"%.*s\" (a word that begins with a hyphen goes after --)",
                        (int)length, arg);
    if (cli_options[id].metavar == NULL) {
        if (attached != NULL)
            return spb_fail(err, SPB_INVALID, "%s: found the value \"%s\", expected none",
                            cli_options[id].name, attached);
        return add_option(args, id, NULL, err);
    }
    if (attached != NULL)
        return add_option(args, id, attached, err);
    if (*at + 1 == argc)
        return spb_fail(err, SPB_INVALID, "%s: found nothing after it, expected %s",
                        cli_options[id].name, cli_options[id].metavar);
    return add_option(args, id, argv[++*at], err);
}

/* "-" stands for standard input, and "-3.5" is a value. */
static bool is_word(const char *arg)
{
    return arg[0] != '-' || arg[1] == '\0' || (arg[1] >= '0' && arg[1] <= '9');
}

spb_status cli_args_split(struct cli_args *args, int argc, char *const *argv, struct spb_error *err)
{
    bool only_words = false;

    for (int i = 0; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (only_words || is_word(argv[i])) {
            if (args->word_count == CLI_WORDS_MAX)
                return spb_fail(err, SPB_INVALID, "found more than %u words", CLI_WORDS_MAX);
            args->words[args->word_count++] = argv[i];
        } else {
            SPB_TRY(take_option(args, &i, argc, argv, err));
        }
    }
    return spb_ok();
}

static spb_status convert(const struct cli_option *option, const char *text, uint64_t *number,
                          struct spb_error *err)
{
    uint8_t uuid[SPB_UUID_SIZE];
    int64_t unix_s = 0;

    switch (option->kind) {
    case CLI_VALUE_NUMBER:
        return cli_parse_number(option->name, text, option->min, option->max, number, err);
    case CLI_VALUE_SECTOR_SIZE:
        return cli_parse_sector_size(option->name, text, number, err);
    case CLI_VALUE_SEVERITY:
        return cli_parse_severity(option->name, text, number, err);
    case CLI_VALUE_TIME:
        SPB_TRY(cli_parse_time(option->name, text, &unix_s, err));
        *number = (uint64_t)unix_s;
        return spb_ok();
    case CLI_VALUE_UUID:
        return cli_parse_uuid(option->name, text, uuid, err);
    case CLI_VALUE_NONE:
    case CLI_VALUE_TEXT:
        break;
    }
    return spb_ok();
}

spb_status cli_args_convert(struct cli_args *args, struct spb_error *err)
{
    for (unsigned id = 0; id < CLI_OPT_COUNT; id++) {
        struct cli_option_value *value = &args->options[id];
        for (size_t i = 0; cli_options[id].metavar != NULL && i < value->count; i++)
            SPB_TRY(convert(&cli_options[id], value->texts[i], &value->numbers[i], err));
    }
    return spb_ok();
}
