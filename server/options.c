/* The options of spaceblockd; see options.h. Main thread, or the one that takes signals. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "config.h"
#include "util.h"

/* ---- The table ---------------------------------------------------------------------------- */

static spb_status take_path(char path[SPB_PATH_SIZE], const char *text, struct spb_error *err)
{
    size_t n = strlen(text);

    if (n == 0 || n >= SPB_PATH_SIZE)
        return spb_fail(err, SPB_INVALID, "found a path of %zu bytes, expected 1 to %d", n,
                        SPB_PATH_SIZE - 1);
    memcpy(path, text, n + 1);
    return spb_ok();
}

static spb_status take_data_dir(struct spb_options *options, const char *text,
                                struct spb_error *err)
{
    return take_path(options->data_dir, text, err);
}

static void show_data_dir(const struct spb_options *options, const char *name, FILE *out)
{
    (void)fprintf(out, "%s = %s\n", name, options->data_dir);
}

static spb_status take_listen(struct spb_options *options, const char *text, struct spb_error *err)
{
    if (options->listen_count == SPB_LISTEN_MAX)
        return spb_fail(err, SPB_INVALID, "found one more endpoint, expected at most %d",
                        SPB_LISTEN_MAX);
    SPB_TRY(spb_endpoint_parse(text, &options->listen[options->listen_count], err));
    options->listen_count++;
    return spb_ok();
}

static void show_listen(const struct spb_options *options, const char *name, FILE *out)
{
    for (size_t i = 0; i < options->listen_count; i++) {
        char text[SPB_ENDPOINT_TEXT_SIZE];

        spb_endpoint_show(&options->listen[i], text);
        (void)fprintf(out, "%s = %s\n", name, text);
    }
}

static spb_status take_http(struct spb_options *options, const char *text, struct spb_error *err)
{
    options->has_http = strcmp(text, "off") != 0;
    return options->has_http ? spb_endpoint_parse_loopback(text, &options->http, err) : spb_ok();
}

static void show_http(const struct spb_options *options, const char *name, FILE *out)
{
    char text[SPB_ENDPOINT_TEXT_SIZE] = "tcp://off";

    if (options->has_http)
        spb_endpoint_show(&options->http, text);
    (void)fprintf(out, "%s = %s\n", name, text + strlen("tcp://"));
}

static spb_status take_log_level(struct spb_options *options, const char *text,
                                 struct spb_error *err)
{
    if (!spb_log_level_parse(text, &options->log_level))
        return spb_fail(err, SPB_INVALID, "found \"%.64s\", expected error, warn, info or debug",
                        text);
    return spb_ok();
}

static void show_log_level(const struct spb_options *options, const char *name, FILE *out)
{
    (void)fprintf(out, "%s = %s\n", name, spb_log_level_name(options->log_level));
}

static spb_status take_folder(char path[SPB_PATH_SIZE], const char *text, struct spb_error *err)
{
    size_t n = strlen(text);

    if (*text != '/' || n >= SPB_PATH_SIZE)
        return spb_fail(err, SPB_INVALID, "found \"%.64s\", expected an absolute path", text);
    memcpy(path, text, n + 1);
    return spb_ok();
}

/* As data_dir, which it may be in. */
static spb_status take_run_dir(struct spb_options *options, const char *text, struct spb_error *err)
{
    return take_path(options->run_dir, text, err);
}

/* Its default depends on another option: nothing is said in its place. */
static void show_run_dir(const struct spb_options *options, const char *name, FILE *out)
{
    if (options->run_dir[0] != '\0')
        (void)fprintf(out, "%s = %s\n", name, options->run_dir);
    else
        (void)fprintf(out, "%s = %s/run\n", name, options->data_dir);
}

static spb_status take_qemu(struct spb_options *options, const char *text, struct spb_error *err)
{
    size_t n = strlen(text);

    if (n == 0 || n >= sizeof(options->qemu) || (strchr(text, '/') != NULL && *text != '/'))
        return spb_fail(err, SPB_INVALID,
                        "found \"%.64s\", expected a program's name or its absolute path", text);
    memcpy(options->qemu, text, n + 1);
    return spb_ok();
}

static void show_qemu(const struct spb_options *options, const char *name, FILE *out)
{
    (void)fprintf(out, "%s = %s\n", name, options->qemu);
}

static spb_status take_guest_files(struct spb_options *options, const char *text,
                                   struct spb_error *err)
{
    if (strcmp(text, "off") != 0)
        return take_folder(options->guest_files, text, err);
    options->guest_files[0] = '\0';
    return spb_ok();
}

static void show_guest_files(const struct spb_options *options, const char *name, FILE *out)
{
    (void)fprintf(out, "%s = %s\n", name,
                  options->guest_files[0] == '\0' ? "off" : options->guest_files);
}

static const char *const accelerators[] = {
    [SPB_ACCELERATOR_AUTO] = "auto",
    [SPB_ACCELERATOR_KVM] = "kvm",
    [SPB_ACCELERATOR_TCG] = "tcg",
};

static spb_status take_accelerator(struct spb_options *options, const char *text,
                                   struct spb_error *err)
{
    for (size_t i = 0; i < SPB_COUNT(accelerators); i++) {
        if (strcmp(text, accelerators[i]) == 0) {
            options->accelerator = (enum spb_accelerator)i;
            return spb_ok();
        }
    }
    return spb_fail(err, SPB_INVALID, "found \"%.64s\", expected auto, kvm or tcg", text);
}

static void show_accelerator(const struct spb_options *options, const char *name, FILE *out)
{
    (void)fprintf(out, "%s = %s\n", name, accelerators[options->accelerator]);
}

static spb_status take_cgroup(struct spb_options *options, const char *text, struct spb_error *err)
{
    options->no_cgroup = strcmp(text, "off") == 0;
    if (!options->no_cgroup && strcmp(text, "auto") != 0)
        return take_folder(options->cgroup, text, err);
    options->cgroup[0] = '\0';
    return spb_ok();
}

static void show_cgroup(const struct spb_options *options, const char *name, FILE *out)
{
    const char *word = options->no_cgroup ? "off" : "auto";

    (void)fprintf(out, "%s = %s\n", name, options->cgroup[0] == '\0' ? word : options->cgroup);
}

static const struct spb_option_row rows[] = {
    {"server", "data_dir", "D", "folder of images and of the daemon's own files; made if absent",
     false, false, take_data_dir, show_data_dir},
    {"server", "listen", "ENDPOINT",
     "unix:PATH or tcp://127.0.0.1:PORT (loopback only; port 0: any); may be repeated. Default: "
     "unix:/run/spaceblock/spaceblockd.sock for root, else "
     "unix:$XDG_RUNTIME_DIR/spaceblock/spaceblockd.sock",
     false, true, take_listen, show_listen},
    {"server", "http", "HOST:PORT",
     "/metrics, /healthz and /readyz over HTTP, on loopback only; off (default): none", false,
     false, take_http, show_http},
    {"server", "log_level", "L", "error, warn, info (default) or debug; logs go to stderr", true,
     false, take_log_level, show_log_level},
    {"server", "run_dir", "D",
     "folder of the sockets of running guests, this daemon's alone; made if absent. Default: "
     "DATA_DIR/run",
     false, false, take_run_dir, show_run_dir},
    {"server", "qemu", "PROGRAM", "what runs guests: a name or a path. Default: qemu-system-x86_64",
     false, false, take_qemu, show_qemu},
    {"server", "guest_files", "D",
     "folder of kernels and initial RAM disks that guests may name; off (default): none", false,
     false, take_guest_files, show_guest_files},
    {"server", "accelerator", "A",
     "of guests that say none: kvm, tcg, or auto (default): KVM where it was proven to run guests",
     false, false, take_accelerator, show_accelerator},
    {"server", "cgroup", "D",
     "cgroup (version 2) delegated to the daemon, for one of each guest; auto (default): where "
     "systemd delegated one; off: none",
     false, false, take_cgroup, show_cgroup},
};

const struct spb_option_row *spb_option_rows(size_t *count)
{
    *count = SPB_COUNT(rows);
    return rows;
}

void spb_options_init(struct spb_options *options)
{
    *options = (struct spb_options){.log_level = SPB_LOG_INFO, .qemu = "qemu-system-x86_64"};
    spb_limits_init(&options->limits);
}

/* ---- Help --------------------------------------------------------------------------------- */

#define INDENT 23
#define WIDTH 80

/* "  --name VALUE" and the text beside it, or below where that is too long. */
static void print_item(FILE *out, const char *words, const char *text)
{
    int column = fprintf(out, "  %s", words);
    const char *gap = "";

    if (column >= INDENT) {
        (void)fputc('\n', out);
        column = 0;
    }
    column += fprintf(out, "%*s", INDENT - column, "");
    while (*text != '\0') {
        size_t n = strcspn(text, " ");

        if (column + (int)(strlen(gap) + n) > WIDTH) {
            column = fprintf(out, "\n%*s", INDENT, "") - 1;
            gap = "";
        }
        column += fprintf(out, "%s%.*s", gap, (int)n, text);
        text += n + strspn(text + n, " ");
        gap = " ";
    }
    (void)fputc('\n', out);
}

/* "--data-dir" of "data_dir". */
static void option_name(const char *name, char *text, size_t size)
{
    (void)snprintf(text, size, "%s", name);
    for (char *c = text; *c != '\0'; c++)
        *c = *c == '_' ? '-' : *c;
}

static void print_options(FILE *out)
{
    for (size_t i = 0; i < SPB_COUNT(rows); i++) {
        char name[64], words[128];

        option_name(rows[i].name, name, sizeof(name));
        (void)snprintf(words, sizeof(words), "--%s %s", name, rows[i].value);
        print_item(out, words, rows[i].text);
    }
}

static void print_limits(FILE *out)
{
    size_t count;
    const struct spb_limit_row *limits = spb_limit_rows(&count);

    for (size_t i = 0; i < count; i++) {
        char text[400];

        (void)snprintf(text, sizeof(text), "%s. %" PRIu64 " (%" PRIu64 " to %" PRIu64 ")",
                       limits[i].text, limits[i].usual, limits[i].min, limits[i].max);
        print_item(out, limits[i].name, text);
    }
}

void spb_options_print_help(FILE *out)
{
    (void)fputs("Usage: spaceblockd --data-dir D [--listen ENDPOINT]... [OPTION]...\n"
                "Serves the SpaceOS images in D/images/TENANT/NAME.img.\n"
                "\n",
                out);
    print_options(out);
    print_item(out, "--limit NAME=N", "set a limit; may be repeated");
    print_item(out, "--config FILE",
               "configuration, over which the command line goes. Default: " SPB_CONFIG_USUAL
               ", if there is one");
    print_item(out, "--check-config", "print what would be in force, and end");
    print_item(out, "--help", "this text");
    print_item(out, "--version", "the version");
    (void)fputs("\nLimits, each with its default (and what may be set), in the unit that its name\n"
                "ends with:\n",
                out);
    print_limits(out);
    (void)fputs("\n"
                "When it serves it prints \"ready\" and its endpoints on stdout. SIGTERM ends it\n"
                "once running calls are done; a second one at once. SIGHUP reads the\n"
                "configuration again. Exit codes: 0 done, 1 failed, 2 usage.\n",
                out);
}

void spb_options_print(const struct spb_options *options, FILE *out)
{
    size_t count;
    const struct spb_limit_row *limits = spb_limit_rows(&count);
    const char *section = "";

    for (size_t i = 0; i < SPB_COUNT(rows); i++) {
        if (strcmp(section, rows[i].section) != 0)
            (void)fprintf(out, "[%s]\n", rows[i].section);
        section = rows[i].section;
        rows[i].show(options, rows[i].name, out);
    }
    (void)fputs("\n[limits]\n", out);
    for (size_t i = 0; i < count; i++)
        (void)fprintf(out, "%s = %" PRIu64 "\n", limits[i].name,
                      spb_limit_get(&options->limits, &limits[i]));
}

/* ---- The command line --------------------------------------------------------------------- */

enum option_code {
    OPTION_ROW = 1, /* and the ones after it: of the table */
    OPTION_LIMIT = OPTION_ROW + (int)SPB_COUNT(rows),
    OPTION_CONFIG,
    OPTION_CHECK,
    OPTION_HELP,
    OPTION_VERSION
};

/* What the first look at the command line is for. */
static bool is_first(int code)
{
    return code >= OPTION_CONFIG;
}

static spb_status take_limit(struct spb_options *options, const char *word, struct spb_error *err)
{
    char name[64];
    const char *equals = strchr(word, '=');
    size_t n = equals == NULL ? 0 : (size_t)(equals - word);

    if (n == 0 || n >= sizeof(name))
        return spb_fail(err, SPB_INVALID, "--limit: found \"%.64s\", expected NAME=NUMBER", word);
    memcpy(name, word, n);
    name[n] = '\0';
    const struct spb_limit_row *row = spb_limit_find(name);
    if (row == NULL)
        return spb_fail(err, SPB_INVALID, "--limit: there is no limit \"%s\"", name);
    return spb_limit_parse(&options->limits, row, equals + 1, err);
}

static spb_status take_row(const struct spb_option_row *row, const char *word,
                           struct spb_options *options, struct spb_error *err)
{
    char name[64];
    struct spb_error cause;

    option_name(row->name, name, sizeof(name));
    if (spb_is_ok(row->take(options, word, &cause)))
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "--%s: %s", name, cause.text);
}

static spb_status take(int code, const char *word, struct spb_options *options,
                       struct spb_error *err)
{
    if (code >= OPTION_ROW && code < OPTION_LIMIT)
        return take_row(&rows[code - OPTION_ROW], word, options, err);
    switch (code) {
    case OPTION_LIMIT:
        return take_limit(options, word, err);
    case OPTION_CONFIG:
        if (*word == '\0' || strlen(word) >= sizeof(options->config))
            return spb_fail(err, SPB_INVALID, "--config: found %zu bytes, expected a path",
                            strlen(word));
        (void)snprintf(options->config, sizeof(options->config), "%s", word);
        return spb_ok();
    case OPTION_CHECK:
        options->check = true;
        return spb_ok();
    case OPTION_HELP:
        options->help = true;
        return spb_ok();
    case OPTION_VERSION:
        options->version = true;
        return spb_ok();
    default:
        return spb_fail(err, SPB_INVALID, "option %s is unknown or lacks its value", word);
    }
}

#define KNOWN_COUNT (SPB_COUNT(rows) + 5)

static void list_known(struct option *known, char names[][64])
{
    static const struct option others[] = {
        {"limit", required_argument, NULL, OPTION_LIMIT},
        {"config", required_argument, NULL, OPTION_CONFIG},
        {"check-config", no_argument, NULL, OPTION_CHECK},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
    };

    for (size_t i = 0; i < SPB_COUNT(rows); i++) {
        option_name(rows[i].name, names[i], 64);
        known[i] = (struct option){names[i], required_argument, NULL, OPTION_ROW + (int)i};
    }
    memcpy(known + SPB_COUNT(rows), others, sizeof(others));
}

/* Goes through the command line once, for what the file depends on or for all else. */
static spb_status look(int argc, char **argv, bool first, struct spb_options *options,
                       struct spb_error *err)
{
    struct option known[KNOWN_COUNT + 1] = {{NULL, 0, NULL, 0}};
    char names[SPB_COUNT(rows)][64];
    bool replaced[SPB_COUNT(rows)] = {false};
    int code;

    list_known(known, names);
    opterr = 0;
    optind = 0;
    while ((code = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        const char *word = optarg;

        if (code == '?' || code == ':')
            word = optind > 0 && optind <= argc ? argv[optind - 1] : "?";
        if (code != '?' && code != ':' && is_first(code) != first)
            continue;
        if (code == OPTION_ROW + 1 && !replaced[1]) {
            options->listen_count = 0; /* the file's are not added to */
            replaced[1] = true;
        }
        SPB_TRY(take(code, word == NULL ? "" : word, options, err));
    }
    if (first || optind >= argc)
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "argument \"%s\" is not an option", argv[optind]);
}

static spb_status complete(struct spb_options *options, struct spb_error *err)
{
    if (options->data_dir[0] == '\0')
        return spb_fail(err, SPB_INVALID,
                        "--data-dir is missing, and data_dir in [server] of a configuration too");
    if (options->listen_count == 0) {
        SPB_TRY(spb_endpoint_usual(&options->listen[0], err));
        options->listen_count = 1;
        options->usual_socket = true;
    }
    return spb_limits_check(&options->limits, err);
}

static spb_status read_file(struct spb_options *options, struct spb_error *err)
{
    if (options->config[0] != '\0')
        return spb_config_read(options->config, options, err);
    if (access(SPB_CONFIG_USUAL, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return spb_ok();
    (void)snprintf(options->config, sizeof(options->config), "%s", SPB_CONFIG_USUAL);
    return spb_config_read(options->config, options, err);
}

spb_status spb_options_parse(int argc, char **argv, struct spb_options *options,
                             struct spb_error *err)
{
    spb_options_init(options);
    SPB_TRY(look(argc, argv, true, options, err));
    if (options->help || options->version)
        return spb_ok();
    SPB_TRY(read_file(options, err));
    SPB_TRY(look(argc, argv, false, options, err));
    return complete(options, err);
}
