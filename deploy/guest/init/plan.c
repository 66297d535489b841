/* What the image's parameters ask of the guest; see README.md. Values are text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "guest.h"
#include "spaceblock/group.h"

enum {
    PARAM_BOOTS = 1,
    PARAM_END = 10,
    PARAM_EVENTS = 11,
    PARAM_INTERVAL_MS = 12,
    PARAM_PRODUCT_SIZE = 13,
    PARAM_PRODUCT_NAME = 14,
    PARAM_CONSOLE_BYTES = 15,
    PARAM_BUTTON = 16,
    PARAM_SPOIL = 17,
};

#define TEXT_SIZE (SPB_PARAM_VALUE_MAX + 1u)
#define NUMBER_MAX UINT64_C(1000000000000)

static const char *const end_names[] = {
    [GUEST_POWEROFF] = "poweroff", [GUEST_REBOOT] = "reboot", [GUEST_PANIC] = "panic",
    [GUEST_HANG] = "hang",         [GUEST_WAIT] = "wait",
};
#define END_COUNT (sizeof(end_names) / sizeof(end_names[0]))

const char *guest_end_name(enum guest_end end)
{
    return end_names[end];
}

/* The parameter's text; otherwise where there is none. */
static void read_text(const struct spb_volume *volume, uint32_t id, const char *otherwise,
                      char text[TEXT_SIZE])
{
    struct spb_param param;

    if (spb_is_ok(spb_param_find(volume, id, &param, NULL, NULL))) {
        memcpy(text, param.value, param.len);
        text[param.len] = '\0';
    } else {
        (void)snprintf(text, TEXT_SIZE, "%s", otherwise);
    }
}

static spb_status read_number(const struct spb_volume *volume, uint32_t id, uint64_t *number,
                              struct spb_error *err)
{
    char text[TEXT_SIZE], *rest = NULL;

    read_text(volume, id, "0", text);
    unsigned long long found = strtoull(text, &rest, 10);
    if (rest == text || *rest != '\0' || found > NUMBER_MAX)
        return spb_fail(err, SPB_INVALID, "parameter %u is \"%s\", expected a decimal number", id,
                        text);
    *number = found;
    return spb_ok();
}

static spb_status read_end(const struct spb_volume *volume, enum guest_end *end,
                           struct spb_error *err)
{
    char text[TEXT_SIZE];

    read_text(volume, PARAM_END, end_names[GUEST_POWEROFF], text);
    for (size_t i = 0; i < END_COUNT; i++) {
        if (strcmp(text, end_names[i]) == 0) {
            *end = (enum guest_end)i;
            return spb_ok();
        }
    }
    return spb_fail(err, SPB_INVALID,
                    "parameter %d is \"%s\", expected poweroff, reboot, panic, hang or wait",
                    PARAM_END, text);
}

static bool is_word(const struct spb_volume *volume, uint32_t id, const char *word)
{
    char text[TEXT_SIZE];

    read_text(volume, id, "", text);
    return strcmp(text, word) == 0;
}

static spb_status count_boot(struct spb_volume *volume, uint64_t *boots, struct spb_error *err)
{
    char text[32];
    struct spb_param_put put = {
        .id = PARAM_BOOTS, .value = text, .expected_generation = SPB_ANY_GENERATION};

    SPB_TRY(read_number(volume, PARAM_BOOTS, boots, err));
    (*boots)++;
    put.len = (size_t)snprintf(text, sizeof(text), "%llu", (unsigned long long)*boots);
    return spb_volume_put_param(volume, &put, NULL, err);
}

spb_status guest_read_plan(struct spb_volume *volume, struct guest_plan *plan,
                           struct spb_error *err)
{
    char name[TEXT_SIZE];

    SPB_TRY(read_end(volume, &plan->end, err));
    SPB_TRY(read_number(volume, PARAM_EVENTS, &plan->events, err));
    SPB_TRY(read_number(volume, PARAM_INTERVAL_MS, &plan->interval_ms, err));
    SPB_TRY(read_number(volume, PARAM_PRODUCT_SIZE, &plan->product_size, err));
    SPB_TRY(read_number(volume, PARAM_CONSOLE_BYTES, &plan->console_bytes, err));
    read_text(volume, PARAM_PRODUCT_NAME, "guest/data", name);
    SPB_TRY(spb_product_name_check(name, strlen(name), err));
    memcpy(plan->product_name, name, strlen(name) + 1);
    plan->ignores_button = is_word(volume, PARAM_BUTTON, "ignore");
    plan->spoils_superblock = is_word(volume, PARAM_SPOIL, "superblock");
    return count_boot(volume, &plan->boots, err);
}
