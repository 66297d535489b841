/* Guests as they are shown: names of their states, JSON, lines; see guest.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/guest/guest.h"
#include "cli/output.h"
#include "cli/text.h"

const char *cli_guest_state_name(Spaceblock__V1__GuestState state)
{
    static const char *const names[] = {"unknown",  "created", "starting", "running", "paused",
                                        "stopping", "stopped", "crashed",  "lost",    "backoff"};
    unsigned at = (unsigned)state;

    return names[at < sizeof(names) / sizeof(names[0]) ? at : 0];
}

/* As launch has them. */
static const char *ending_name(Spaceblock__V1__GuestEnding ending)
{
    static const char *const names[] = {"none",    "poweroff",    "reboot", "panic",
                                        "stopped", "qemu-failed", "lost",   "not-started"};
    unsigned at = (unsigned)ending;

    return at < sizeof(names) / sizeof(names[0]) ? names[at] : "unknown";
}

const char *cli_guest_accel_name(Spaceblock__V1__GuestAccel accel)
{
    static const char *const names[] = {"", "auto", "kvm", "tcg"};
    unsigned at = (unsigned)accel;

    return names[at < sizeof(names) / sizeof(names[0]) ? at : 0];
}

const char *cli_guest_restart_name(Spaceblock__V1__GuestRestart restart)
{
    static const char *const names[] = {"never", "never", "on-failure", "always"};
    unsigned at = (unsigned)restart;

    return names[at < sizeof(names) / sizeof(names[0]) ? at : 0];
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static void set_boot_file(json_t *object, const char *key, const Spaceblock__V1__BootFile *file)
{
    json_t *inner = NULL;

    if (file == NULL)
        return;
    inner = cli_json_object();
    if (file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_SHA256)
        cli_json_set_hex(inner, "sha256", file->sha256.data, file->sha256.len);
    else if (file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_FILE)
        cli_json_set_text(inner, "file", file->file.data, file->file.len);
    cli_json_set(object, key, inner);
}

static json_t *images_json(const Spaceblock__V1__GuestConfig *config)
{
    json_t *list = cli_json_array();

    for (size_t i = 0; i < config->n_images; i++) {
        json_t *object = cli_json_object();
        const Spaceblock__V1__ImageRef *image = config->images[i];
        if (image->if_tenant_case == SPACEBLOCK__V1__IMAGE_REF__IF_TENANT_TENANT)
            cli_json_set_number(object, "tenant", image->tenant);
        cli_json_set_text(object, "name", image->name.data, image->name.len);
        cli_json_append(list, object);
    }
    return list;
}

static json_t *labels_json(const Spaceblock__V1__GuestConfig *config)
{
    json_t *list = cli_json_array();

    for (size_t i = 0; i < config->n_labels; i++) {
        json_t *object = cli_json_object();
        const Spaceblock__V1__GuestLabel *label = config->labels[i];
        cli_json_set_text(object, "key", label->key.data, label->key.len);
        cli_json_set_text(object, "value", label->value.data, label->value.len);
        cli_json_append(list, object);
    }
    return list;
}

static json_t *config_json(const Spaceblock__V1__GuestConfig *config)
{
    json_t *object = cli_json_object();

    cli_json_set(object, "images", images_json(config));
    set_boot_file(object, "kernel", config->kernel);
    set_boot_file(object, "initrd", config->initrd);
    cli_json_set_text(object, "append", config->append.data, config->append.len);
    cli_json_set_number(object, "memory_mib", config->memory_mib);
    cli_json_set_number(object, "cpus", config->cpus);
    cli_json_set_string(object, "accel", cli_guest_accel_name(config->accel));
    cli_json_set_string(object, "restart", cli_guest_restart_name(config->restart));
    cli_json_set_number(object, "boot_deadline_ms", config->boot_deadline_ms);
    cli_json_set_number(object, "stop_timeout_ms", config->stop_timeout_ms);
    cli_json_set_bool(object, "ephemeral", config->ephemeral);
    cli_json_set(object, "labels", labels_json(config));
    return object;
}

json_t *cli_guest_to_json(const Spaceblock__V1__Guest *guest)
{
    json_t *object = cli_json_object();

    cli_json_set_number(object, "tenant", guest->tenant);
    cli_json_set_text(object, "name", guest->name.data, guest->name.len);
    cli_json_set_string(object, "state", cli_guest_state_name(guest->state));
    cli_json_set_text(object, "reason", guest->reason.data, guest->reason.len);
    cli_json_set_string(object, "ending", ending_name(guest->ending));
    if (guest->if_exit_case == SPACEBLOCK__V1__GUEST__IF_EXIT_EXIT_STATUS)
        cli_json_set(object, "exit_status", json_integer(guest->exit_status));
    cli_json_set_hex(object, "uuid", guest->uuid.data, guest->uuid.len);
    cli_json_set_number(object, "version", guest->version);
    cli_json_set_number(object, "created_at_ms", guest->created_at_ms);
    cli_json_set_number(object, "started_at_ms", guest->started_at_ms);
    cli_json_set_number(object, "ended_at_ms", guest->ended_at_ms);
    cli_json_set_number(object, "restart_at_ms", guest->restart_at_ms);
    cli_json_set_number(object, "restarts", guest->restarts);
    cli_json_set_bool(object, "crash_loop", guest->crash_loop);
    cli_json_set_number(object, "pid", guest->pid);
    cli_json_set_string(object, "accel", cli_guest_accel_name(guest->accel));
    cli_json_set_bool(object, "alive", guest->alive);
    cli_json_set_bool(object, "adopted", guest->adopted);
    cli_json_set_number(object, "console_bytes", guest->console_bytes);
    if (guest->config != NULL)
        cli_json_set(object, "config", config_json(guest->config));
    return object;
}

/* ---- Text ---------------------------------------------------------------------------------- */

/* "name  text", where there is text. */
static void line(const char *name, const ProtobufCBinaryData *text)
{
    char *safe = text->len == 0 ? NULL : cli_text_safe(text->data, text->len);

    if (safe != NULL)
        printf("%-10s%s\n", name, safe);
    free(safe);
}

static void line_time(const char *name, uint64_t ms)
{
    char when[CLI_TIME_SIZE];

    if (ms == 0)
        return;
    cli_text_time(ms / 1000, when);
    printf("%-10s%s\n", name, when);
}

static void line_boot_file(const char *name, const Spaceblock__V1__BootFile *file)
{
    char *text = NULL;

    if (file == NULL)
        return;
    bool is_hash = file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_SHA256;
    if (is_hash)
        text = cli_text_hex("", file->sha256.data, file->sha256.len);
    else if (file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_FILE)
        text = cli_text_safe(file->file.data, file->file.len);
    if (text != NULL)
        printf("%-10s%s:%s\n", name, is_hash ? "sha256" : "file", text);
    free(text);
}

static void print_config(const Spaceblock__V1__GuestConfig *config)
{
    for (size_t i = 0; i < config->n_images; i++)
        line(i == 0 ? "image" : "", &config->images[i]->name);
    line_boot_file("kernel", config->kernel);
    line_boot_file("initrd", config->initrd);
    line("append", &config->append);
    printf("memory    %" PRIu32 " MiB\ncpus      %" PRIu32 "\naccel     %s\nrestart   %s%s\n",
           config->memory_mib, config->cpus, cli_guest_accel_name(config->accel),
           cli_guest_restart_name(config->restart),
           config->ephemeral ? "\nephemeral it ends with the daemon" : "");
    for (size_t i = 0; i < config->n_labels; i++) {
        const Spaceblock__V1__GuestLabel *label = config->labels[i];
        char *key = cli_text_safe(label->key.data, label->key.len);
        char *value = cli_text_safe(label->value.data, label->value.len);
        if (key != NULL && value != NULL)
            printf("label     %s=%s\n", key, value);
        free(key);
        free(value);
    }
}

void cli_guest_print(const Spaceblock__V1__Guest *guest)
{
    char *name = cli_text_safe(guest->name.data, guest->name.len);

    printf("guest     %" PRIu32 "/%s\nstate     %s%s%s\n", guest->tenant, name == NULL ? "" : name,
           cli_guest_state_name(guest->state), guest->crash_loop ? ", in a crash loop" : "",
           guest->adopted && guest->pid != 0 ? ", adopted" : "");
    free(name);
    line("reason", &guest->reason);
    if (guest->pid != 0)
        printf("qemu      pid %" PRIu32 ", %s%s\n", guest->pid, cli_guest_accel_name(guest->accel),
               guest->alive ? "" : ", no sign of life yet");
    if (guest->ending != SPACEBLOCK__V1__GUEST_ENDING__GUEST_ENDING_UNSPECIFIED)
        printf("ending    %s\n", ending_name(guest->ending));
    if (guest->if_exit_case == SPACEBLOCK__V1__GUEST__IF_EXIT_EXIT_STATUS)
        printf("exit      %s %d\n", guest->exit_status < 0 ? "by signal" : "status",
               guest->exit_status < 0 ? -guest->exit_status : guest->exit_status);
    line_time("created", guest->created_at_ms);
    line_time("started", guest->started_at_ms);
    line_time("ended", guest->ended_at_ms);
    line_time("next", guest->restart_at_ms);
    printf("restarts  %" PRIu32 "\nprinted   %" PRIu64 " bytes\n", guest->restarts,
           guest->console_bytes);
    if (guest->config != NULL)
        print_config(guest->config);
}

void cli_guest_tell(const struct cli *cli, const Spaceblock__V1__Guest *guest)
{
    if (cli_is_json(cli)) {
        cli_json_print(cli_guest_to_json(guest));
        return;
    }
    char *name = cli_text_safe(guest->name.data, guest->name.len);
    char *reason = cli_text_safe(guest->reason.data, guest->reason.len);
    printf("guest %s %s%s%s\n", name == NULL ? "" : name, cli_guest_state_name(guest->state),
           guest->reason.len == 0 ? "" : ": ", reason == NULL ? "" : reason);
    free(name);
    free(reason);
}
