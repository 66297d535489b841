/* A guest's configuration from options; see config.h. */
#include "cli/guest/config.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/artifact.h"
#include "cli/text.h"

static const char by_hash[] = "sha256:";
static const char by_file[] = "file:";

/* ---- Options ------------------------------------------------------------------------------- */

/* Which of the words; -1: none. */
static int word_of(const char *text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, words[i]) == 0)
            return (int)i;
    }
    return -1;
}

static spb_status take_words(const struct cli *cli, Spaceblock__V1__GuestConfig *message,
                             struct spb_error *err)
{
    static const char *const accels[] = {"auto", "kvm", "tcg"};
    static const char *const restarts[] = {"never", "on-failure", "always"};
    const char *accel = cli_text_of(cli, CLI_OPT_ACCEL);
    const char *restart = cli_text_of(cli, CLI_OPT_RESTART);
    int at_accel = accel == NULL ? 0 : word_of(accel, accels, 3);
    int at_restart = restart == NULL ? 0 : word_of(restart, restarts, 3);

    if (at_accel < 0)
        return spb_fail(err, SPB_INVALID, "--accel: found \"%s\", expected auto, kvm or tcg",
                        accel);
    if (at_restart < 0)
        return spb_fail(err, SPB_INVALID,
                        "--restart: found \"%s\", expected never, on-failure or always", restart);
    message->accel = (Spaceblock__V1__GuestAccel)(at_accel + 1);
    message->restart = (Spaceblock__V1__GuestRestart)(at_restart + 1);
    return spb_ok();
}

/* A guest's images are of its tenant: one that is named without is. */
static spb_status take_images(const struct cli *cli, const struct cli_image_ref *guest,
                              struct cli_guest_config *config, struct spb_error *err)
{
    const struct cli_option_value *given = &cli->args.options[CLI_OPT_IMAGE];

    for (size_t i = 0; i < given->count; i++) {
        struct cli_image_ref image;
        SPB_TRY(cli_parse_image("--image", given->texts[i], &image, err));
        if (!image.has_tenant) {
            image.has_tenant = guest->has_tenant;
            image.tenant = guest->tenant;
        }
        cli_image_ref_fill(&image, &config->images[i]);
        config->image_list[i] = &config->images[i];
    }
    config->message.n_images = given->count;
    config->message.images = config->image_list;
    return spb_ok();
}

static spb_status take_labels(const struct cli *cli, struct cli_guest_config *config,
                              struct spb_error *err)
{
    const struct cli_option_value *given = &cli->args.options[CLI_OPT_LABEL];

    for (size_t i = 0; i < given->count; i++) {
        const char *text = given->texts[i], *equals = strchr(text, '=');
        Spaceblock__V1__GuestLabel *label = &config->labels[i];
        if (equals == NULL || equals == text)
            return spb_fail(err, SPB_INVALID, "--label: found \"%s\", expected KEY=VALUE", text);
        spaceblock__v1__guest_label__init(label);
        label->key = cli_bytes(text, (size_t)(equals - text));
        label->value = cli_bytes(equals + 1, strlen(equals + 1));
        config->label_list[i] = label;
    }
    config->message.n_labels = given->count;
    config->message.labels = config->label_list;
    return spb_ok();
}

/* What has a prefix of its own, or is a path, and cannot be meant otherwise. */
static spb_status check_boot_file(const char *option, const char *text, struct spb_error *err)
{
    struct stat st;

    if (strncmp(text, by_file, sizeof(by_file) - 1) == 0)
        return spb_ok();
    if (strncmp(text, by_hash, sizeof(by_hash) - 1) == 0) {
        if (cli_artifact_is_digits(text + sizeof(by_hash) - 1))
            return spb_ok();
        return spb_fail(err, SPB_INVALID,
                        "%s: found \"%s\", expected %u to %u lower-case hex digits after sha256:",
                        option, text, CLI_ARTIFACT_DIGITS_MIN, SPB_SHA256_TEXT_SIZE - 1);
    }
    if (strchr(text, '/') != NULL && stat(text, &st) != 0)
        return spb_fail(err, SPB_INVALID, "%s %s: no such file", option, text);
    return spb_ok();
}

spb_status cli_guest_config_init(const struct cli *cli, const struct cli_image_ref *guest,
                                 struct cli_guest_config *config, struct spb_error *err)
{
    const char *append = cli_text_of(cli, CLI_OPT_APPEND);
    const char *initrd = cli_text_of(cli, CLI_OPT_INITRD);
    Spaceblock__V1__GuestConfig *message = &config->message;

    spaceblock__v1__guest_config__init(message);
    SPB_TRY(take_words(cli, message, err));
    SPB_TRY(take_images(cli, guest, config, err));
    SPB_TRY(take_labels(cli, config, err));
    SPB_TRY(check_boot_file("--kernel", cli_text_of(cli, CLI_OPT_KERNEL), err));
    if (initrd != NULL)
        SPB_TRY(check_boot_file("--initrd", initrd, err));
    if (append != NULL)
        message->append = cli_bytes(append, strlen(append));
    message->memory_mib = (uint32_t)cli_number(cli, CLI_OPT_MEMORY, 0);
    message->cpus = (uint32_t)cli_number(cli, CLI_OPT_CPUS, 0);
    message->boot_deadline_ms = (uint32_t)(cli_number(cli, CLI_OPT_BOOT_DEADLINE, 0) * 1000);
    message->stop_timeout_ms = (uint32_t)(cli_number(cli, CLI_OPT_STOP_TIMEOUT, 0) * 1000);
    message->ephemeral = cli_has(cli, CLI_OPT_EPHEMERAL);
    return spb_ok();
}

/* ---- Kernel and initial RAM disk ----------------------------------------------------------- */

/* A label is for people: what is stored as another one already stays so. */
static spb_status store(struct cli_guest *guest, struct cli_tenant tenant, const char *path,
                        uint8_t hash[SPB_SHA256_SIZE], struct spb_error *err)
{
    const char *slash = strrchr(path, '/');
    char label[CLI_ARTIFACT_LABEL_MAX + 1];
    Spaceblock__V1__Artifact *stored = NULL;
    bool was_there = false;
    struct cli_artifact_file file = {
        .tenant = tenant, .path = path, .label = label, .keeps_label = true};

    /* Cut, where it is too long, before what would be the middle of a character. */
    (void)snprintf(label, sizeof(label), "%s", slash == NULL ? path : slash + 1);
    for (size_t n = strlen(label); n > 0 && !cli_text_is_printable(label, n); n--)
        label[n - 1] = '\0';
    SPB_TRY(cli_artifact_store(guest->cli, &guest->daemon, &file, &stored, &was_there, err));
    bool good = stored->sha256.len == SPB_SHA256_SIZE;
    if (good)
        memcpy(hash, stored->sha256.data, SPB_SHA256_SIZE);
    spaceblock__v1__artifact__free_unpacked(stored, NULL);
    return good ? spb_ok()
                : spb_fail(err, SPB_PROTOCOL, "storing %s: the answer has no SHA-256", path);
}

static spb_status find(struct cli_guest *guest, const char *text, Spaceblock__V1__BootFile *file,
                       uint8_t hash[SPB_SHA256_SIZE], struct spb_error *err)
{
    struct cli_tenant tenant = {guest->name.has_tenant, guest->name.tenant};
    struct stat st;

    spaceblock__v1__boot_file__init(file);
    if (strncmp(text, by_file, sizeof(by_file) - 1) == 0) {
        file->place_case = SPACEBLOCK__V1__BOOT_FILE__PLACE_FILE;
        file->file = cli_bytes(text + sizeof(by_file) - 1, strlen(text) - (sizeof(by_file) - 1));
        return spb_ok();
    }
    if (strncmp(text, by_hash, sizeof(by_hash) - 1) == 0)
        SPB_TRY(
            cli_artifact_by_digits(&guest->daemon, tenant, text + sizeof(by_hash) - 1, hash, err));
    else if (stat(text, &st) == 0)
        SPB_TRY(store(guest, tenant, text, hash, err));
    else
        SPB_TRY(cli_artifact_by_label(&guest->daemon, tenant, text, hash, err));
    file->place_case = SPACEBLOCK__V1__BOOT_FILE__PLACE_SHA256;
    file->sha256 = cli_bytes(hash, SPB_SHA256_SIZE);
    return spb_ok();
}

spb_status cli_guest_config_boot_files(struct cli_guest *guest, struct cli_guest_config *config,
                                       struct spb_error *err)
{
    const char *initrd = cli_text_of(guest->cli, CLI_OPT_INITRD);

    SPB_TRY(find(guest, cli_text_of(guest->cli, CLI_OPT_KERNEL), &config->kernel,
                 config->kernel_hash, err));
    config->message.kernel = &config->kernel;
    if (initrd == NULL)
        return spb_ok();
    SPB_TRY(find(guest, initrd, &config->initrd, config->initrd_hash, err));
    config->message.initrd = &config->initrd;
    return spb_ok();
}
