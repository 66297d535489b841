/* Guests: whether what a guest is to be made of can be, and what it says where it says nothing. */
#include <stdio.h>

#include "artifacts.h"
#include "base/bytes.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "image.h"
#include "services/guest_calls.h"
#include "supervisor/machine/command.h"

#define MIB (UINT64_C(1024) * 1024)
#define FILE_NAME_MAX 255u
#define APPEND_MAX 1024u
#define TIME_MS_MAX 3600000u
#define LABELS_MAX 16u
#define LABEL_KEY_MAX 64u
#define LABEL_VALUE_MAX 256u
#define PATH_SIZE 64

static bool is_same(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* ---- Images ------------------------------------------------------------------------------- */

static bool gate_image(struct spb_call *call, const PB_GuestConfig *config, size_t i,
                       uint16_t tenant)
{
    const PB_ImageRef *ref = config->images[i];
    char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), "config.images[%zu]", i);
    if (!spb_gate_image(call, ref, path))
        return false;
    call->image_text[0] = '\0'; /* the call is about the guest */
    if (spb_image_ref_tenant(call, ref) != tenant &&
        ref->if_tenant_case == SPACEBLOCK__V1__IMAGE_REF__IF_TENANT_TENANT) {
        spb_call_set_bad_field(call, path, "is tenant %u's, expected an image of the guest's, %u",
                               ref->tenant, (unsigned)tenant);
        return false;
    }
    for (size_t j = 0; j < i; j++) {
        if (is_same(&config->images[j]->name, &ref->name)) {
            spb_call_set_bad_field(call, path, "is image %zu too, expected each once", j);
            return false;
        }
    }
    return true;
}

static bool gate_images(struct spb_call *call, const PB_GuestConfig *config, uint16_t tenant)
{
    if (config->n_images == 0 || config->n_images > SPB_GUEST_IMAGES_MAX) {
        spb_call_set_bad_field(call, "config.images", "found %zu, expected 1 to %u",
                               config->n_images, SPB_GUEST_IMAGES_MAX);
        return false;
    }
    for (size_t i = 0; i < config->n_images; i++) {
        if (!gate_image(call, config, i, tenant))
            return false;
    }
    return true;
}

/* ---- Files and texts ---------------------------------------------------------------------- */

static bool is_file_name(const ProtobufCBinaryData *name)
{
    if (name->len == 0 || name->len > FILE_NAME_MAX || name->data[0] == '.')
        return false;
    for (size_t i = 0; i < name->len; i++) {
        if (name->data[i] <= ' ' || name->data[i] >= 0x7f || name->data[i] == '/')
            return false;
    }
    return true;
}

static bool gate_boot_file(struct spb_call *call, const PB_BootFile *file, const char *field)
{
    char path[PATH_SIZE];

    if (file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_SHA256) {
        (void)snprintf(path, sizeof(path), "%s.sha256", field);
        return spb_gate_artifact_hash(call, path, &file->sha256);
    }
    (void)snprintf(path, sizeof(path), "%s.file", field);
    if (file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_FILE && is_file_name(&file->file))
        return true;
    if (file->place_case == SPACEBLOCK__V1__BOOT_FILE__PLACE_FILE)
        spb_call_set_bad_field(call, path,
                               "expected a file's name: 1 to %u printable characters, no blank, no "
                               "slash, no dot in front",
                               FILE_NAME_MAX);
    else
        spb_call_set_bad_field(call, field, "names no file, expected sha256 or file");
    return false;
}

static bool gate_boot(struct spb_call *call, const PB_GuestConfig *config)
{
    if (config->kernel == NULL) {
        spb_call_set_bad_field(call, "config.kernel", "is missing");
        return false;
    }
    return gate_boot_file(call, config->kernel, "config.kernel") &&
           (config->initrd == NULL || gate_boot_file(call, config->initrd, "config.initrd"));
}

static bool gate_append(struct spb_call *call, const ProtobufCBinaryData *append)
{
    bool good = append->len <= APPEND_MAX;

    for (size_t i = 0; i < append->len && good; i++)
        good = append->data[i] >= ' ' && append->data[i] < 0x7f;
    if (!good)
        spb_call_set_bad_field(call, "config.append",
                               "found %zu bytes, expected at most %u printable characters",
                               append->len, APPEND_MAX);
    return good;
}

static bool is_label_text(const ProtobufCBinaryData *text, size_t max)
{
    return text->len <= max && (text->len == 0 || (memchr(text->data, '\0', text->len) == NULL &&
                                                   spb_bytes_are_utf8(text->data, text->len)));
}

static bool gate_label(struct spb_call *call, const PB_GuestConfig *config, size_t i)
{
    const PB_GuestLabel *label = config->labels[i];
    char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), "config.labels[%zu]", i);
    if (label->key.len == 0 || !is_label_text(&label->key, LABEL_KEY_MAX) ||
        !is_label_text(&label->value, LABEL_VALUE_MAX)) {
        spb_call_set_bad_field(call, path,
                               "expected a key of 1 to %u and a value of at most %u bytes of UTF-8 "
                               "without NUL",
                               LABEL_KEY_MAX, LABEL_VALUE_MAX);
        return false;
    }
    for (size_t j = 0; j < i; j++) {
        if (is_same(&config->labels[j]->key, &label->key)) {
            spb_call_set_bad_field(call, path, "has the key of label %zu, expected each once", j);
            return false;
        }
    }
    return true;
}

static bool gate_labels(struct spb_call *call, const PB_GuestConfig *config)
{
    if (!spb_gate_max(call, "config.labels", config->n_labels, LABELS_MAX))
        return false;
    for (size_t i = 0; i < config->n_labels; i++) {
        if (!gate_label(call, config, i))
            return false;
    }
    return true;
}

/* ---- Numbers ------------------------------------------------------------------------------ */

/* 0, which means the usual value, or min to max. */
static bool gate_number(struct spb_call *call, const char *field, uint64_t number, uint64_t min,
                        uint64_t max)
{
    if (number == 0 || (number >= min && number <= max))
        return true;
    spb_call_set_bad_field(call, field, "found %llu, expected %llu to %llu, or 0",
                           (unsigned long long)number, (unsigned long long)min,
                           (unsigned long long)max);
    return false;
}

static bool gate_numbers(struct spb_call *call, const PB_GuestConfig *config)
{
    uint64_t memory_max = SPB_LIMIT(call->daemon, guest_memory_max_bytes) / MIB;
    uint64_t cpus_max = SPB_LIMIT(call->daemon, guest_cpus_max);

    return gate_number(call, "config.memory_mib", config->memory_mib, SPB_MACHINE_MEMORY_MIN_MIB,
                       memory_max) &&
           gate_number(call, "config.cpus", config->cpus, 1, cpus_max) &&
           gate_number(call, "config.accel", (unsigned)config->accel, 1,
                       SPACEBLOCK__V1__GUEST_ACCEL__GUEST_ACCEL_TCG) &&
           gate_number(call, "config.restart", (unsigned)config->restart, 1,
                       SPACEBLOCK__V1__GUEST_RESTART__GUEST_RESTART_ALWAYS) &&
           gate_number(call, "config.boot_deadline_ms", config->boot_deadline_ms, 1, TIME_MS_MAX) &&
           gate_number(call, "config.stop_timeout_ms", config->stop_timeout_ms, 1, TIME_MS_MAX);
}

bool spb_gate_guest_config(struct spb_call *call, const PB_GuestConfig *config, uint16_t tenant)
{
    if (config == NULL) {
        spb_call_set_bad_field(call, "config", "is missing");
        return false;
    }
    return gate_images(call, config, tenant) && gate_boot(call, config) &&
           gate_append(call, &config->append) && gate_numbers(call, config) &&
           gate_labels(call, config);
}

void spb_guest_config_complete(PB_GuestConfig *config, uint16_t tenant)
{
    for (size_t i = 0; i < config->n_images; i++) {
        config->images[i]->if_tenant_case = SPACEBLOCK__V1__IMAGE_REF__IF_TENANT_TENANT;
        config->images[i]->tenant = tenant;
    }
    if (config->memory_mib == 0)
        config->memory_mib = SPB_GUEST_MEMORY_USUAL_MIB;
    if (config->cpus == 0)
        config->cpus = 1;
    if (config->accel == SPACEBLOCK__V1__GUEST_ACCEL__GUEST_ACCEL_UNSPECIFIED)
        config->accel = SPACEBLOCK__V1__GUEST_ACCEL__GUEST_ACCEL_AUTO;
    if (config->restart == SPACEBLOCK__V1__GUEST_RESTART__GUEST_RESTART_UNSPECIFIED)
        config->restart = SPACEBLOCK__V1__GUEST_RESTART__GUEST_RESTART_NEVER;
}
