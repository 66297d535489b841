/* The table of commands: parsing, help and usage lines all come from here. No state. */
#include "cli/cli.h"

#include <stdio.h>

#define B CLI_BIT

const struct cli_family cli_families[] = {
    {"image", "images that the daemon serves"},
    {"param", "parameters: small values by number, each put with the next generation"},
    {"event", "the event log: a ring of small records"},
    {"dp", "data products: named byte strings of any size"},
    {"artifact", "files for guests: kernels and the like, known by their SHA-256"},
    {"guest", "virtual machines that the daemon runs on images"},
    {"audit", "what was changed, by whom, and what became of it"},
    {"server", "the daemon itself"},
    {NULL, NULL},
};

static const char name_rule[] =
    "NAME is 1 to 64 of A-Z a-z 0-9 . _ - and does not start with a dot.";

static const char boot_files[] =
    "The first image is the guest's /dev/vda. A kernel or RAM disk that is a local file is stored "
    "as an artifact unless it is one already; else it is sha256:HEX (6 digits or more) or the "
    "label of an artifact, or file:NAME, a file in the folder that the daemon has for them. The "
    "same command goes on with an upload that was interrupted. With --wait and --rm, exits as "
    "guest wait does.";

/* What a guest is made of. */
#define OF_GUEST                                                                                   \
    (B(CLI_OPT_IMAGE) | B(CLI_OPT_KERNEL) | B(CLI_OPT_INITRD) | B(CLI_OPT_APPEND) |                \
     B(CLI_OPT_MEMORY) | B(CLI_OPT_CPUS) | B(CLI_OPT_ACCEL) | B(CLI_OPT_RESTART) |                 \
     B(CLI_OPT_BOOT_DEADLINE) | B(CLI_OPT_STOP_TIMEOUT) | B(CLI_OPT_EPHEMERAL) |                   \
     B(CLI_OPT_LABEL) | B(CLI_OPT_NO_RESUME))

#define COMMON .family = NULL, .words = "", .words_min = 0, .words_max = 0
#define FAMILY(f, n, w, min, max)                                                                  \
    .family = (f), .name = (n), .words = (w), .words_min = (min), .words_max = (max)

const struct cli_command cli_commands[] = {
    {COMMON, .name = "init", .subject = CLI_ON_NOTHING, .writes = true,
     .options = B(CLI_OPT_FILE) | B(CLI_OPT_BLOCKS) | B(CLI_OPT_SECTOR_SIZE) |
                B(CLI_OPT_TENANT_ID) | B(CLI_OPT_UUID) | B(CLI_OPT_EPOCH) | B(CLI_OPT_FORCE),
     .required = B(CLI_OPT_FILE) | B(CLI_OPT_BLOCKS), .summary = "make a new image file",
     .details = "The file appears under its name when it is complete and durable. (image create "
                "makes an image that the daemon serves.)",
     .example = "  spaceblock init --file demo.img --blocks 4096", .run = cli_run_init},
    {COMMON, .name = "launch", .subject = CLI_ON_NOTHING, .writes = true,
     .options = B(CLI_OPT_FILE) | B(CLI_OPT_BLOCKS) | B(CLI_OPT_SECTOR_SIZE) | B(CLI_OPT_KERNEL) |
                B(CLI_OPT_INITRD) | B(CLI_OPT_APPEND) | B(CLI_OPT_MEMORY) | B(CLI_OPT_ACCEL) |
                B(CLI_OPT_QEMU),
     .required = B(CLI_OPT_FILE) | B(CLI_OPT_KERNEL) | B(CLI_OPT_INITRD),
     .summary = "boot a virtual machine on an image file, its console on the terminal",
     .details = "A file that is absent is made, of 4096 blocks unless --blocks says otherwise; one "
                "that is there must have as many. The guest's disk is /dev/vda. Ctrl-A X or SIGINT "
                "ends it. Afterwards the image is checked: what is on it, and that it has the "
                "uuid, tenant and size that it had. The console goes to standard output; with "
                "--json one object with what came of it follows there, after it. Exits 0 when the "
                "guest powered off, 6 when it panicked, 7 when it asked "
                "for a reboot, 8 when you ended it, 9 when QEMU failed, and 5, however it ended, "
                "when the check found something or the image is another.",
     .example = "  spaceblock launch --file demo.img --kernel vmlinuz --initrd initrd.img",
     .run = cli_run_launch},
    {COMMON, .name = "inspect", .subject = CLI_ON_TARGET, .options = B(CLI_OPT_DATA),
     .summary = "show what an image holds",
     .details = "A summary, then parameters, events and data products. Reads all data.",
     .example = "  spaceblock inspect --file demo.img\n"
                "  spaceblock inspect --image demo --json --data",
     .run = cli_run_inspect},
    {COMMON, .name = "check", .subject = CLI_ON_TARGET, .options = B(CLI_OPT_REPAIR),
     .summary = "check everything on an image, and repair it if asked",
     .details = "Without --repair nothing is written. Exits 5 when something was found and is not "
                "repaired.",
     .example = "  spaceblock check --file demo.img\n"
                "  spaceblock check --image demo --repair",
     .run = cli_run_check},
    {COMMON, .name = "defrag", .subject = CLI_ON_TARGET, .writes = true,
     .summary = "move data products together, so that free space is in one piece",
     .details = "One product at a time, each move durable before the next; may be interrupted.",
     .example = "  spaceblock defrag --image demo", .run = cli_run_defrag},
    {FAMILY("image", "create", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_NAMED_IMAGE,
     .writes = true,
     .options = B(CLI_OPT_BLOCKS) | B(CLI_OPT_SECTOR_SIZE) | B(CLI_OPT_UUID) | B(CLI_OPT_EPOCH),
     .required = B(CLI_OPT_BLOCKS), .summary = "make a new image, its space allocated at once",
     .details = name_rule, .example = "  spaceblock image create demo --blocks 4096",
     .run = cli_run_image_create},
    {FAMILY("image", "list", "", 0, 0), .subject = CLI_ON_DAEMON,
     .options = B(CLI_OPT_TENANT_ID) | B(CLI_OPT_ALL_TENANTS),
     .summary = "list images and their states",
     .details = "Of the caller's own tenant, unless told otherwise.",
     .example = "  spaceblock image list", .run = cli_run_image_list},
    {FAMILY("image", "show", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_NAMED_IMAGE,
     .summary = "show one image's state and superblock", .example = "  spaceblock image show demo",
     .run = cli_run_image_show},
    {FAMILY("image", "check", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_NAMED_IMAGE,
     .options = B(CLI_OPT_REPAIR), .summary = "the same as check --image [TENANT/]NAME",
     .details = "Exits 5 when something was found and is not repaired.",
     .example = "  spaceblock image check demo", .run = cli_run_check},
    {FAMILY("image", "scrub", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_NAMED_IMAGE,
     .options = B(CLI_OPT_WAIT) | B(CLI_OPT_STATUS),
     .summary = "read the image's medium again while it is served, and tell what has rotted",
     .details = "At a bounded rate, and one image at a time in the daemon; ends early when the "
                "image is closed. Repairs nothing: check --repair does. Exits 5 when the last "
                "whole scrub found something.",
     .example = "  spaceblock image scrub demo --wait\n"
                "  spaceblock image scrub demo --status --json",
     .run = cli_run_image_scrub},
    {FAMILY("image", "delete", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_NAMED_IMAGE,
     .writes = true, .options = B(CLI_OPT_UUID), .summary = "delete an image and all that it holds",
     .details = "With --uuid only where the file's superblock says so. An image whose file is not "
                "the one that the daemon's registry knows needs it: the file may be another "
                "image's.",
     .example = "  spaceblock image delete demo", .run = cli_run_image_delete},
    {FAMILY("image", "reopen", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_NAMED_IMAGE,
     .writes = true, .options = B(CLI_OPT_ACCEPT_IDENTITY),
     .summary = "open an image anew whose medium failed, or that could not be opened",
     .details = "An image whose file is not the one that the daemon's registry knows is in "
                "quarantine; --accept-identity takes it as it is.",
     .example = "  spaceblock image reopen demo", .run = cli_run_image_reopen},
    {FAMILY("image", "import", "FILE|- [[TENANT/]NAME]", 1, 2), .subject = CLI_ON_DAEMON,
     .writes = true,
     .options = B(CLI_OPT_NEW_IDENTITY) | B(CLI_OPT_SECTOR_SIZE) | B(CLI_OPT_NO_RESUME),
     .summary = "take in a whole image file",
     .details = "NAME is FILE's without .img, unless it is given. The file's superblock must name "
                "the tenant, and no image may have its uuid, or --new-identity gives it both anew. "
                "Interrupted, the same command goes on where it stopped.",
     .example = "  spaceblock image import demo.img\n"
                "  spaceblock image import backup.img restored --new-identity",
     .run = cli_run_image_import},
    {FAMILY("image", "export", "[TENANT/]NAME FILE|-", 2, 2), .subject = CLI_ON_NAMED_IMAGE,
     .options = B(CLI_OPT_NO_RESUME),
     .summary = "write a consistent copy of an image to a file, while it is served",
     .details = "The copy is of one moment. It arrives as FILE.part and becomes FILE once its CRC "
                "is found right. Interrupted, the same command goes on where it stopped, as long "
                "as the daemon keeps the copy (an hour).",
     .example = "  spaceblock image export demo demo.img", .run = cli_run_image_export},
    {FAMILY("image", "clone", "[TENANT/]NAME [TENANT/]NEW", 2, 2), .subject = CLI_ON_NAMED_IMAGE,
     .writes = true, .options = B(CLI_OPT_UUID),
     .summary = "make a new image that holds what another holds now",
     .details = "Both are served meanwhile. The new one has a uuid of its own.",
     .example = "  spaceblock image clone demo demo-2", .run = cli_run_image_clone},
    {FAMILY("image", "rename", "[TENANT/]NAME NEW", 2, 2), .subject = CLI_ON_NAMED_IMAGE,
     .writes = true, .summary = "give an image another name",
     .details = "Uploads to it and reads from it that are running end.",
     .example = "  spaceblock image rename demo flight", .run = cli_run_image_rename},
    {FAMILY("artifact", "put", "FILE|-", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = B(CLI_OPT_NAME) | B(CLI_OPT_TENANT_ID) | B(CLI_OPT_NO_RESUME),
     .summary = "store a file for guests",
     .details =
         "What is there already is not sent again: the daemon reads it, and where it no longer "
         "holds what was stored it is sent and takes its place. Interrupted, the same "
         "command goes on where it stopped.",
     .example = "  spaceblock artifact put vmlinuz --name vmlinuz-6.1",
     .run = cli_run_artifact_put},
    {FAMILY("artifact", "ls", "", 0, 0), .subject = CLI_ON_DAEMON, .options = B(CLI_OPT_TENANT_ID),
     .summary = "list artifacts", .example = "  spaceblock artifact ls",
     .run = cli_run_artifact_ls},
    {FAMILY("artifact", "rm", "SHA256", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = B(CLI_OPT_TENANT_ID), .summary = "delete an artifact",
     .details = "SHA256 may be cut after 6 or more of its 64 digits, where that is enough to know "
                "it by.",
     .example = "  spaceblock artifact rm 3a7bd3e2360a", .run = cli_run_artifact_rm},
    {FAMILY("guest", "create", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = OF_GUEST, .required = B(CLI_OPT_IMAGE) | B(CLI_OPT_KERNEL),
     .several = B(CLI_OPT_IMAGE) | B(CLI_OPT_LABEL), .summary = "make a guest, and do not start it",
     .details = boot_files,
     .example = "  spaceblock guest create probe --image demo --kernel vmlinuz --initrd initrd.img",
     .run = cli_run_guest_create},
    {FAMILY("guest", "run", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = OF_GUEST | B(CLI_OPT_WAIT) | B(CLI_OPT_RM),
     .required = B(CLI_OPT_IMAGE) | B(CLI_OPT_KERNEL),
     .several = B(CLI_OPT_IMAGE) | B(CLI_OPT_LABEL), .summary = "make a guest and start it",
     .details = boot_files,
     .example = "  spaceblock guest run probe --image demo --kernel vmlinuz --initrd initrd.img\n"
                "  spaceblock guest run job --image demo --kernel vmlinuz --initrd initrd.img --rm",
     .run = cli_run_guest_run},
    {FAMILY("guest", "start", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = B(CLI_OPT_WAIT), .summary = "start a guest, or let a paused one go on",
     .details = "Ends once it runs, or could not be started: the error has what QEMU wrote.",
     .example = "  spaceblock guest start probe", .run = cli_run_guest_start},
    {FAMILY("guest", "ls", "", 0, 0), .subject = CLI_ON_DAEMON,
     .options = B(CLI_OPT_TENANT_ID) | B(CLI_OPT_ALL_TENANTS),
     .summary = "list guests and their states",
     .details = "Of the caller's own tenant, unless told otherwise.",
     .example = "  spaceblock guest ls", .run = cli_run_guest_ls},
    {FAMILY("guest", "show", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON,
     .summary = "show one guest's state, last run and configuration",
     .example = "  spaceblock guest show probe --json", .run = cli_run_guest_show},
    {FAMILY("guest", "stop", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = B(CLI_OPT_STOP_TIMEOUT) | B(CLI_OPT_NO_WAIT),
     .summary = "press a guest's power button, and end it where it does not obey",
     .details = "It is not started again by itself, whatever its restart policy.",
     .example = "  spaceblock guest stop probe --stop-timeout 5", .run = cli_run_guest_stop},
    {FAMILY("guest", "kill", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = B(CLI_OPT_NO_WAIT), .summary = "end a guest as power loss would",
     .details = "It is not started again by itself, whatever its restart policy.",
     .example = "  spaceblock guest kill probe", .run = cli_run_guest_kill},
    {FAMILY("guest", "rm", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = B(CLI_OPT_FORCE),
     .summary = "remove a guest that does not run, with its console's log",
     .details = "Its images stay.", .example = "  spaceblock guest rm probe --force",
     .run = cli_run_guest_rm},
    {FAMILY("guest", "wait", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON,
     .options = B(CLI_OPT_FOR), .summary = "wait until a guest has ended, or runs",
     .details = "Without end unless --timeout is given, also over restarts of the daemon. Exits "
                "by how the last run ended: 0 the guest powered off, 6 it panicked, 7 it asked for "
                "a reboot, 8 it was stopped or killed, 9 QEMU failed, or nobody saw how. With "
                "--for running and --for alive 0, and 1 where it ended instead.",
     .example = "  spaceblock guest wait probe --timeout 60\n"
                "  spaceblock guest wait probe --for alive",
     .run = cli_run_guest_wait},
    {FAMILY("guest", "console", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON, .writes = true,
     .options = B(CLI_OPT_NEWEST) | B(CLI_OPT_TAKE_OVER) | B(CLI_OPT_NO_WAIT),
     .summary = "show what a guest prints, and type on its console",
     .details = "On a terminal every key is the guest's but Ctrl-A X, which leaves; the guest goes "
                "on. (Ctrl-A Ctrl-A is one Ctrl-A.) Else standard input is sent as it is, and "
                "output shown until the guest ends, a signal comes or, with --no-wait, all was "
                "sent. One at a time can type. Begins with what is printed from now on, and with "
                "-n N the last N lines. With --json, one object a line.",
     .example = "  spaceblock guest console probe\n"
                "  echo reboot | spaceblock guest console probe --no-wait",
     .run = cli_run_guest_console},
    {FAMILY("guest", "logs", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON,
     .options = B(CLI_OPT_FOLLOW) | B(CLI_OPT_NEWEST) | B(CLI_OPT_RAW),
     .summary = "print what a guest has printed",
     .details = "All that is kept, of all its runs, or the last N lines. On a terminal its control "
                "characters are shown, and not obeyed, without --raw. With --json, one object a "
                "line.",
     .example = "  spaceblock guest logs probe -n 20 -f", .run = cli_run_guest_logs},
    {FAMILY("guest", "stats", "[TENANT/]NAME", 1, 1), .subject = CLI_ON_DAEMON,
     .summary = "show what a guest uses: processor, memory, disks",
     .example = "  spaceblock guest stats probe", .run = cli_run_guest_stats},
    {FAMILY("param", "put", "ID VALUE|-|@FILE", 2, 2), .subject = CLI_ON_TARGET, .writes = true,
     .options = B(CLI_OPT_IF_GENERATION), .summary = "store a value of up to 240 bytes",
     .details = "VALUE is taken as it is; - reads standard input, @FILE reads FILE, to the end and "
                "with every byte.",
     .example = "  spaceblock param put 42 3.14 --image demo", .run = cli_run_param_put},
    {FAMILY("param", "get", "ID", 1, 1), .subject = CLI_ON_TARGET, .options = B(CLI_OPT_RAW),
     .summary = "print the newest value",
     .details = "A value that is not printable text, or begins with \"hex:\", is shown as hex: and "
                "its bytes in hex.",
     .example = "  spaceblock param get 42 --image demo", .run = cli_run_param_get},
    {FAMILY("param", "list", "", 0, 0), .subject = CLI_ON_TARGET,
     .summary = "list the newest value of every parameter",
     .example = "  spaceblock param list --image demo", .run = cli_run_param_list},
    {FAMILY("param", "history", "ID", 1, 1), .subject = CLI_ON_TARGET,
     .summary = "list the values of a parameter that the store still holds, newest first",
     .example = "  spaceblock param history 42 --image demo", .run = cli_run_param_history},
    {FAMILY("param", "delete", "ID", 1, 1), .subject = CLI_ON_TARGET, .writes = true,
     .summary = "delete a parameter and its history",
     .example = "  spaceblock param delete 42 --image demo", .run = cli_run_param_delete},
    {FAMILY("event", "append", "TEXT|-", 1, 1), .subject = CLI_ON_TARGET, .writes = true,
     .options = B(CLI_OPT_SEVERITY) | B(CLI_OPT_CODE) | B(CLI_OPT_TIME),
     .required = B(CLI_OPT_SEVERITY) | B(CLI_OPT_CODE),
     .summary = "append an event with a payload of up to 64 bytes",
     .details = "TEXT is taken as it is; - reads standard input, to the end and with every byte.",
     .example = "  spaceblock event append --severity warn --code 7 \"link lost\" --image demo",
     .run = cli_run_event_append},
    {FAMILY("event", "list", "", 0, 0), .subject = CLI_ON_TARGET,
     .options = B(CLI_OPT_NEWEST) | B(CLI_OPT_SEVERITY) | B(CLI_OPT_CODE),
     .several = B(CLI_OPT_SEVERITY) | B(CLI_OPT_CODE), .summary = "list events, oldest first",
     .details = "--severity and --code may be given several times each. Corrupt events are shown "
                "as such and pass every filter.",
     .example = "  spaceblock event list -n 10 --severity error --severity critical --image demo",
     .run = cli_run_event_list},
    {FAMILY("event", "watch", "", 0, 0), .subject = CLI_ON_IMAGE,
     .options = B(CLI_OPT_FROM) | B(CLI_OPT_SEVERITY) | B(CLI_OPT_CODE) | B(CLI_OPT_LIMIT),
     .required = B(CLI_OPT_IMAGE), .several = B(CLI_OPT_SEVERITY) | B(CLI_OPT_CODE),
     .summary = "print events as they come, a line each",
     .details = "Goes on over lost connections and restarts of the daemon, and says when events "
                "were overwritten before they could be shown. Ends with --limit, or with SIGINT "
                "or SIGTERM, and says on standard error from which cursor to continue. With "
                "--json, one object a line.",
     .example = "  spaceblock event watch --severity error --severity critical --image demo\n"
                "  spaceblock event watch --from start --limit 100 --json --image demo",
     .run = cli_run_event_watch},
    {FAMILY("dp", "put", "NAME FILE|-", 2, 2), .subject = CLI_ON_TARGET, .writes = true,
     .options = B(CLI_OPT_CLASS) | B(CLI_OPT_PRIORITY) | B(CLI_OPT_REPLACE) | B(CLI_OPT_NO_RESUME),
     .summary = "store a file, or standard input, as a data product",
     .details = "NAME is 1 to 64 bytes of UTF-8. What is not a regular file is copied to a "
                "temporary file first ($TMPDIR, else /var/tmp), as its size must be known. "
                "Through a daemon it goes on where it was after a lost connection, and where it "
                "was interrupted when the same command is started again.",
     .example = "  spaceblock dp put science/thermal.dat thermal.dat --class 3 --image demo",
     .run = cli_run_dp_put},
    {FAMILY("dp", "get", "NAME [FILE|-]", 1, 2), .subject = CLI_ON_TARGET,
     .options = B(CLI_OPT_PADDED) | B(CLI_OPT_NO_RESUME),
     .summary = "write a data product to a file, or to standard output",
     .details = "All of it is verified before FILE appears, or before its first byte is printed. "
                "From a daemon it comes as FILE.part first, and goes on there when the same "
                "command is started again. With --json and no FILE the object holds the bytes as "
                "data_hex.",
     .example = "  spaceblock dp get science/thermal.dat thermal.dat --image demo",
     .run = cli_run_dp_get},
    {FAMILY("dp", "list", "", 0, 0), .subject = CLI_ON_TARGET, .options = B(CLI_OPT_VERIFY),
     .summary = "list data products",
     .details = "The length of a product is known once its data was read; until then \"<=\" and "
                "the size of its blocks is shown.",
     .example = "  spaceblock dp list --verify --image demo", .run = cli_run_dp_list},
    {FAMILY("dp", "delete", "NAME", 1, 1), .subject = CLI_ON_TARGET, .writes = true,
     .summary = "delete a data product",
     .example = "  spaceblock dp delete science/thermal.dat --image demo",
     .run = cli_run_dp_delete},
    {FAMILY("audit", "list", "", 0, 0), .subject = CLI_ON_DAEMON,
     .options = B(CLI_OPT_SINCE) | B(CLI_OPT_UNTIL) | B(CLI_OPT_PRINCIPAL) | B(CLI_OPT_IMAGE) |
                B(CLI_OPT_METHOD) | B(CLI_OPT_OUTCOME) | B(CLI_OPT_LIMIT) | B(CLI_OPT_TENANT_ID) |
                B(CLI_OPT_ALL_TENANTS),
     .summary = "list changes, newest first",
     .details =
         "Each with who asked for it, what was before and after, and its outcome. Only those "
         "to which all that is given applies; --image alone names an image, there or gone. "
         "Of the caller's own tenant, unless told otherwise.",
     .example = "  spaceblock audit list --since 2h --image demo\n"
                "  spaceblock audit list --outcome unknown --all-tenants --json",
     .run = cli_run_audit_list},
    {FAMILY("server", "info", "", 0, 0), .subject = CLI_ON_DAEMON,
     .summary = "show version, limits and state of the daemon",
     .example = "  spaceblock server info --endpoint tcp://127.0.0.1:7700",
     .run = cli_run_server_info},
    {FAMILY("server", "ping", "", 0, 0), .subject = CLI_ON_DAEMON,
     .summary = "time one call to the daemon", .example = "  spaceblock server ping --timeout 2",
     .run = cli_run_server_ping},
    {.name = NULL},
};

void cli_command_name(const struct cli_command *command, char out[CLI_NAME_SIZE])
{
    (void)snprintf(out, CLI_NAME_SIZE, "%s%s%s", command->family == NULL ? "" : command->family,
                   command->family == NULL ? "" : " ", command->name);
}

uint64_t cli_command_options(const struct cli_command *command)
{
    static const uint64_t daemon =
        B(CLI_OPT_ENDPOINT) | B(CLI_OPT_TIMEOUT) | B(CLI_OPT_RETRIES) | B(CLI_OPT_VERBOSE);
    uint64_t options = command->options | B(CLI_OPT_JSON) | B(CLI_OPT_HELP);

    switch (command->subject) {
    case CLI_ON_NOTHING:
        return options;
    case CLI_ON_TARGET:
        return options | daemon | B(CLI_OPT_FILE) | B(CLI_OPT_SECTOR_SIZE) | B(CLI_OPT_IMAGE);
    case CLI_ON_IMAGE:
        return options | daemon | B(CLI_OPT_IMAGE);
    case CLI_ON_NAMED_IMAGE:
    case CLI_ON_DAEMON:
        break;
    }
    return options | daemon;
}
