/*
 * launch: an image file and a guest on it, without a daemon. The image is this process's from its
 * opening to QEMU's end, lent to QEMU meanwhile: nobody else can write to it. Then it is opened for
 * reading, to see whose it is, and again to be checked.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/launch/qemu.h"
#include "cli/output.h"
#include "cli/target.h"
#include "cli/text.h"
#include "spaceblock/device.h"

#define PROGRAM "qemu-system-x86_64"
#define MEMORY_MIB 128u
#define BLOCKS 4096u
#define IDENTITY_TEXT_SIZE 128u

/* Who the image is: a guest may change everything else. */
struct identity {
    struct spb_superblock superblock;
    uint32_t sector_size;
};

/* 0: a file is there; else why not, EISDIR for a folder. */
static int look_for_file(const char *path)
{
    struct stat st;

    SPB_ASSERT(path != NULL);
    if (stat(path, &st) != 0)
        return errno;
    return S_ISDIR(st.st_mode) ? EISDIR : 0;
}

static int usage_path(const struct cli *cli, enum cli_option_id id, const char *path, int number)
{
    const char *words = number == ENOENT   ? "no such file"
                        : number == EISDIR ? "it is a directory, expected a file"
                                           : strerror(number);

    return cli_usage(cli, "%s %s: %s", cli_options[id].name, path, words);
}

static int check_path(const struct cli *cli, enum cli_option_id id)
{
    const char *path = cli_text_of(cli, id);
    int number = look_for_file(path);

    return number == 0 ? CLI_EXIT_OK : usage_path(cli, id, path, number);
}

/* Makes the image where there is none. */
static spb_status make_image(const struct cli *cli, const char *path, struct spb_error *err)
{
    struct spb_format_options options = {
        .total_blocks = (uint32_t)cli_number(cli, CLI_OPT_BLOCKS, BLOCKS),
        .sector_size = (uint32_t)cli_number(cli, CLI_OPT_SECTOR_SIZE, SPB_BLOCK_SIZE_MIN),
        .tenant_id = 1,
        .epoch = (uint64_t)time(NULL),
    };
    char text[SPB_REQUEST_ID_SIZE];

    if (look_for_file(path) == 0)
        return spb_ok();
    SPB_TRY(spb_client_request_id(text, err)); /* a random UUID, as text */
    SPB_TRY(cli_parse_uuid("uuid", text, options.uuid, err));
    SPB_TRY(spb_image_create(path, &options, false, err));
    cli_note(cli, "made %s: %u blocks of %u bytes", path, options.total_blocks,
             options.sector_size);
    return spb_ok();
}

static spb_status open_image(const struct cli *cli, const char *path, enum spb_file_mode mode,
                             struct spb_volume **volume, struct spb_error *err)
{
    struct spb_open_options options = {.sector_size =
                                           (uint32_t)cli_number(cli, CLI_OPT_SECTOR_SIZE, 0),
                                       .writable = mode == SPB_FILE_WRITE};
    struct spb_device *device = NULL;

    SPB_TRY(spb_device_file_open(path, mode, &device, err));
    spb_status status = spb_volume_open(device, &options, volume, err);
    if (!spb_is_ok(status))
        spb_device_close(device);
    return status;
}

static struct identity identity_of(const struct spb_volume *volume)
{
    return (struct identity){*spb_volume_superblock(volume), spb_volume_sector_size(volume)};
}

/* One that was there already is as large as it is. */
static spb_status check_blocks(const struct cli *cli, const char *path,
                               const struct identity *identity, struct spb_error *err)
{
    uint32_t found = identity->superblock.total_blocks;
    uint32_t wanted = (uint32_t)cli_number(cli, CLI_OPT_BLOCKS, found);

    if (wanted == found)
        return spb_ok();
    return spb_fail(err, SPB_BAD_SIZE,
                    "cannot open %s: --blocks %u was given, but it is there already and has %u "
                    "blocks of %u bytes",
                    path, wanted, found, identity->sector_size);
}

/* ---- The guest ---------------------------------------------------------------------------- */

static int describe(const struct cli *cli, struct spb_machine *machine)
{
    const char *accel = cli_text_of(cli, CLI_OPT_ACCEL);
    const char *qemu = cli_text_of(cli, CLI_OPT_QEMU);
    const char *append = cli_text_of(cli, CLI_OPT_APPEND);

    *machine = (struct spb_machine){
        .program = qemu == NULL ? PROGRAM : qemu,
        .name = "launch",
        .memory_mib = (uint32_t)cli_number(cli, CLI_OPT_MEMORY, MEMORY_MIB),
        .cpus = 1,
        .accel = SPB_ACCEL_TCG,
        .kernel = cli_text_of(cli, CLI_OPT_KERNEL),
        .initrd = cli_text_of(cli, CLI_OPT_INITRD),
        .append = append == NULL || *append == '\0' ? NULL : append,
        .disks = {{.path = cli_text_of(cli, CLI_OPT_FILE)}},
        .disk_count = 1,
    };
    int code = check_path(cli, CLI_OPT_KERNEL);
    if (code == CLI_EXIT_OK)
        code = check_path(cli, CLI_OPT_INITRD);
    if (code != CLI_EXIT_OK)
        return code;
    /* Another that is not there is made. */
    if (look_for_file(machine->disks[0].path) == EISDIR)
        return usage_path(cli, CLI_OPT_FILE, machine->disks[0].path, EISDIR);
    if (accel != NULL && !spb_accel_parse(accel, &machine->accel))
        return cli_usage(cli, "--accel %s: expected tcg or kvm", accel);
    return CLI_EXIT_OK;
}

/* The image is QEMU's while the guest runs. */
static spb_status run_guest(struct spb_volume *volume, struct spb_machine *machine,
                            struct cli_qemu_result *result, struct spb_error *err)
{
    struct spb_device *device = spb_volume_device(volume);

    SPB_TRY(spb_device_file_lend(device, err));
    return cli_qemu_run(machine, result, err);
}

/* ---- Afterwards --------------------------------------------------------------------------- */

static const char *ending_key(const struct cli_qemu_result *result)
{
    static const char *const keys[] = {
        [SPB_ENDING_NONE] = "none",       [SPB_ENDING_POWEROFF] = "poweroff",
        [SPB_ENDING_REBOOT] = "reboot",   [SPB_ENDING_PANIC] = "panic",
        [SPB_ENDING_STOPPED] = "stopped", [SPB_ENDING_CRASHED] = "qemu-failed",
        [SPB_ENDING_LOST] = "lost",       [SPB_ENDING_NOT_STARTED] = "not-started",
    };

    return keys[result->ending];
}

static int exit_code(const struct cli_qemu_result *result)
{
    switch (result->ending) {
    case SPB_ENDING_POWEROFF:
        return CLI_EXIT_OK;
    case SPB_ENDING_PANIC:
        return CLI_EXIT_PANIC;
    case SPB_ENDING_REBOOT:
        return CLI_EXIT_REBOOT;
    case SPB_ENDING_STOPPED:
        return CLI_EXIT_STOPPED;
    case SPB_ENDING_NONE:
    case SPB_ENDING_CRASHED:
    case SPB_ENDING_LOST:
    case SPB_ENDING_NOT_STARTED:
        break;
    }
    return result->was_asked ? CLI_EXIT_STOPPED : CLI_EXIT_QEMU;
}

static void identity_text(const struct identity *identity, char *text, size_t size)
{
    char uuid[CLI_UUID_TEXT_SIZE];

    cli_text_uuid(identity->superblock.uuid, uuid);
    (void)snprintf(text, size, "uuid %s, tenant %u, %u blocks of %u bytes", uuid,
                   (unsigned)identity->superblock.tenant_id, identity->superblock.total_blocks,
                   identity->sector_size);
}

/* Is it still the image that the guest was given? Before anything is written to it. */
static spb_status check_identity(const struct cli *cli, const char *path,
                                 const struct identity *before, struct spb_error *err)
{
    char found_text[IDENTITY_TEXT_SIZE], before_text[IDENTITY_TEXT_SIZE];
    struct spb_volume *volume = NULL;

    SPB_TRY(open_image(cli, path, SPB_FILE_READ, &volume, err));
    struct identity found = identity_of(volume);
    spb_volume_close(volume);
    if (memcmp(found.superblock.uuid, before->superblock.uuid, SPB_UUID_SIZE) == 0 &&
        found.superblock.tenant_id == before->superblock.tenant_id &&
        found.superblock.total_blocks == before->superblock.total_blocks &&
        found.sector_size == before->sector_size)
        return spb_ok();
    identity_text(&found, found_text, sizeof(found_text));
    identity_text(before, before_text, sizeof(before_text));
    return spb_fail(err, SPB_CORRUPT,
                    "the guest wrote another superblock to %s: found %s; before it was %s", path,
                    found_text, before_text);
}

static spb_status check_image(const struct cli *cli, const char *path,
                              const struct identity *before, struct spb_report *report,
                              struct spb_error *err)
{
    struct cli_progress progress;
    struct spb_volume *volume = NULL;

    SPB_TRY(check_identity(cli, path, before, err));
    SPB_TRY(open_image(cli, path, SPB_FILE_WRITE, &volume, err));
    cli_progress_init(&progress, cli, "checking");
    spb_status status = spb_volume_check(volume, cli_progress_callback, &progress, report, err);
    cli_progress_done(&progress);
    spb_volume_close(volume);
    return status;
}

static json_t *ending_json(const struct cli_qemu_result *result, bool clean)
{
    json_t *root = cli_json_object();

    cli_json_set_string(root, "ending", ending_key(result));
    cli_json_set_bool(root, "was_asked", result->was_asked);
    cli_json_set_bool(root, "clean", clean);
    return root;
}

static const char *ending_text(const struct cli_qemu_result *result)
{
    return result->was_asked ? "was ended" : spb_ending_words(result->ending);
}

static void tell(const struct cli *cli, const struct cli_qemu_result *result,
                 const struct spb_report *report)
{
    bool failed = result->ending == SPB_ENDING_CRASHED && !result->was_asked;

    cli_note(cli, "the guest %s; %zu found on the image%s%s", ending_text(result), report->count,
             failed ? "; QEMU's last words: " : "", failed ? result->words : "");
    for (size_t i = 0; i < report->count; i++)
        cli_note(cli, "%s: %s", spb_finding_name(report->findings[i].kind),
                 report->findings[i].text);
    if (!cli_is_json(cli))
        return;
    json_t *root = ending_json(result, report->count == 0);
    cli_json_set_number(root, "findings", report->count);
    cli_json_set_number(root, "events_live", report->events_live);
    cli_json_set_number(root, "params_valid", report->params_valid);
    cli_json_set_number(root, "products_good", report->products_good);
    cli_json_print(root);
}

static int tell_failure(const struct cli *cli, const struct cli_qemu_result *result,
                        const struct spb_error *failed)
{
    cli_note(cli, "the guest %s; its image cannot be checked", ending_text(result));
    if (cli_is_json(cli)) {
        json_t *root = ending_json(result, false), *error = cli_json_object();

        cli_json_set_string(error, "code", spb_code_name(failed->code));
        cli_json_set_string(error, "message", failed->text);
        cli_json_set(root, "error", error);
        cli_json_print(root);
    }
    return cli_fail(cli, failed);
}

static int conclude(const struct cli *cli, const char *path, const struct identity *before,
                    const struct cli_qemu_result *result)
{
    struct spb_report report = {.findings = NULL};
    struct spb_error err;

    if (!spb_is_ok(check_image(cli, path, before, &report, &err)))
        return tell_failure(cli, result, &err);
    tell(cli, result, &report);
    int code = report.count == 0 ? exit_code(result) : CLI_EXIT_CORRUPT;
    spb_report_done(&report);
    return code;
}

int cli_run_launch(struct cli *cli)
{
    const char *path = cli_text_of(cli, CLI_OPT_FILE);
    struct spb_volume *volume = NULL;
    struct cli_qemu_result result;
    struct spb_machine machine;
    struct identity before;
    struct spb_error err;

    int code = describe(cli, &machine);
    if (code != CLI_EXIT_OK)
        return code;
    spb_status status = make_image(cli, path, &err);
    if (spb_is_ok(status))
        status = open_image(cli, path, SPB_FILE_WRITE, &volume, &err);
    if (spb_is_ok(status)) {
        before = identity_of(volume);
        status = check_blocks(cli, path, &before, &err);
    }
    if (spb_is_ok(status))
        status = run_guest(volume, &machine, &result, &err);
    spb_volume_close(volume);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    return conclude(cli, path, &before, &result);
}
