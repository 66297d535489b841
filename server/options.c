/* The command line of spaceblockd; see options.h. Main thread, before anything else. */
#include "options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

const char spb_options_help[] =
    "Usage: spaceblockd --data-dir D [--listen ENDPOINT]... [--log-level L]\n"
    "Serves the SpaceOS images in D/images/TENANT/NAME.img.\n"
    "\n"
    "  --data-dir D       folder of images and of the daemon's own files; made if absent\n"
    "  --listen ENDPOINT  unix:PATH or tcp://127.0.0.1:PORT (loopback only; port 0: any);\n"
    "                     may be repeated. Default: unix:/run/spaceblock/spaceblockd.sock for\n"
    "                     root, else unix:$XDG_RUNTIME_DIR/spaceblock/spaceblockd.sock\n"
    "  --log-level L      error, warn, info (default) or debug; logs go to stderr\n"
    "  --help             this text\n"
    "  --version          the version\n"
    "\n"
    "When it serves it prints \"ready\" and its endpoints on stdout. SIGTERM ends it once running\n"
    "calls are done; a second one at once. Exit codes: 0 done, 1 failed, 2 usage.\n";

enum option_code {
    OPTION_DATA_DIR = 1,
    OPTION_LISTEN,
    OPTION_LOG_LEVEL,
    OPTION_HELP,
    OPTION_VERSION
};

static spb_status take_listen(const char *text, struct spb_options *options, struct spb_error *err)
{
    if (options->listen_count == SPB_LISTEN_MAX)
        return spb_fail(err, SPB_INVALID, "--listen %s: at most %d endpoints are taken", text,
                        SPB_LISTEN_MAX);
    SPB_TRY(spb_endpoint_parse(text, &options->listen[options->listen_count], err));
    options->listen_count++;
    return spb_ok();
}

static spb_status take(int code, const char *word, struct spb_options *options,
                       struct spb_error *err)
{
    switch (code) {
    case OPTION_DATA_DIR:
        if (*word == '\0')
            return spb_fail(err, SPB_INVALID, "--data-dir: the path is empty");
        options->data_dir = word;
        return spb_ok();
    case OPTION_LISTEN:
        return take_listen(word, options, err);
    case OPTION_LOG_LEVEL:
        if (!spb_log_level_parse(word, &options->log_level))
            return spb_fail(err, SPB_INVALID, "--log-level %s: expected error, warn, info or debug",
                            word);
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

static spb_status complete(struct spb_options *options, int left, const char *extra,
                           struct spb_error *err)
{
    if (options->help || options->version)
        return spb_ok();
    if (left > 0)
        return spb_fail(err, SPB_INVALID, "argument \"%s\" is not an option", extra);
    if (options->data_dir == NULL)
        return spb_fail(err, SPB_INVALID, "--data-dir is missing");
    if (options->listen_count == 0) {
        SPB_TRY(spb_endpoint_usual(&options->listen[0], err));
        options->listen_count = 1;
        options->usual_socket = true;
    }
    return spb_ok();
}

spb_status spb_options_parse(int argc, char **argv, struct spb_options *options,
                             struct spb_error *err)
{
    static const struct option known[] = {
        {"data-dir", required_argument, NULL, OPTION_DATA_DIR},
        {"listen", required_argument, NULL, OPTION_LISTEN},
        {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    int code;

    *options = (struct spb_options){.log_level = SPB_LOG_INFO};
    opterr = 0;
    optind = 0;
    while ((code = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        const char *word = optarg;

        if (code == '?' || code == ':')
            word = optind > 0 && optind <= argc ? argv[optind - 1] : "?";
        SPB_TRY(take(code, word == NULL ? "" : word, options, err));
    }
    return complete(options, argc - optind, optind < argc ? argv[optind] : "", err);
}
