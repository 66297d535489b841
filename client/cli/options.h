/*
 * Command line arguments: splits them into words and options, and checks each option's value. The
 * table of options serves parsing, help and usage lines alike. No state but what the caller holds.
 */
#ifndef SPB_CLI_OPTIONS_H
#define SPB_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "spaceblock/volume.h"

enum cli_option_id {
    CLI_OPT_FILE,
    CLI_OPT_SECTOR_SIZE,
    CLI_OPT_IMAGE,
    CLI_OPT_ENDPOINT,
    CLI_OPT_TIMEOUT,
    CLI_OPT_RETRIES,
    CLI_OPT_VERBOSE,
    CLI_OPT_BLOCKS,
    CLI_OPT_TENANT_ID,
    CLI_OPT_ALL_TENANTS,
    CLI_OPT_UUID,
    CLI_OPT_EPOCH,
    CLI_OPT_FORCE,
    CLI_OPT_REPAIR,
    CLI_OPT_WAIT,
    CLI_OPT_STATUS,
    CLI_OPT_DATA,
    CLI_OPT_IF_GENERATION,
    CLI_OPT_RAW,
    CLI_OPT_NEWEST,
    CLI_OPT_SEVERITY,
    CLI_OPT_CODE,
    CLI_OPT_TIME,
    CLI_OPT_FROM,
    CLI_OPT_LIMIT,
    CLI_OPT_CLASS,
    CLI_OPT_PRIORITY,
    CLI_OPT_REPLACE,
    CLI_OPT_PADDED,
    CLI_OPT_VERIFY,
    CLI_OPT_KERNEL,
    CLI_OPT_INITRD,
    CLI_OPT_APPEND,
    CLI_OPT_MEMORY,
    CLI_OPT_ACCEL,
    CLI_OPT_QEMU,
    CLI_OPT_ACCEPT_IDENTITY,
    CLI_OPT_SINCE,
    CLI_OPT_UNTIL,
    CLI_OPT_PRINCIPAL,
    CLI_OPT_METHOD,
    CLI_OPT_OUTCOME,
    CLI_OPT_NO_RESUME,
    CLI_OPT_NEW_IDENTITY,
    CLI_OPT_NAME,
    CLI_OPT_CPUS,
    CLI_OPT_RESTART,
    CLI_OPT_BOOT_DEADLINE,
    CLI_OPT_STOP_TIMEOUT,
    CLI_OPT_EPHEMERAL,
    CLI_OPT_LABEL,
    CLI_OPT_RM,
    CLI_OPT_NO_WAIT,
    CLI_OPT_FOR,
    CLI_OPT_FOLLOW,
    CLI_OPT_TAKE_OVER,
    CLI_OPT_JSON,
    CLI_OPT_HELP,
    CLI_OPT_VERSION,
    CLI_OPT_COUNT
};

#define CLI_BIT(id) (UINT64_C(1) << (id))
_Static_assert(CLI_OPT_COUNT <= 64, "each option has a bit");

enum cli_value_kind {
    CLI_VALUE_NONE,
    CLI_VALUE_TEXT,
    CLI_VALUE_NUMBER,
    CLI_VALUE_SECTOR_SIZE,
    CLI_VALUE_SEVERITY,
    CLI_VALUE_TIME, /* stored as int64_t in a uint64_t */
    CLI_VALUE_UUID,
};

struct cli_option {
    const char *name;    /* "--file" */
    const char *metavar; /* NULL: takes no value */
    enum cli_value_kind kind;
    bool repeats;      /* there are commands that take it more than once */
    uint64_t min, max; /* of a number */
    const char *help;
};

extern const struct cli_option cli_options[CLI_OPT_COUNT];

#define CLI_REPEAT_MAX 16u
#define CLI_WORDS_MAX 16u

struct cli_option_value {
    size_t count;
    const char *texts[CLI_REPEAT_MAX]; /* borrowed from argv */
    uint64_t numbers[CLI_REPEAT_MAX];
};

struct cli_args {
    const char *words[CLI_WORDS_MAX]; /* borrowed from argv */
    size_t word_count;
    struct cli_option_value options[CLI_OPT_COUNT];
};

/* Splits arguments; SPB_INVALID with the text of a usage error. Values are not looked at. */
SPB_MUST_USE spb_status cli_args_split(struct cli_args *args, int argc, char *const *argv,
                                       struct spb_error *err);
/* Checks and converts the values of all options that were given. */
SPB_MUST_USE spb_status cli_args_convert(struct cli_args *args, struct spb_error *err);

/* ---- Values (values.c); what names the flag or word in error texts ------------------------- */

SPB_MUST_USE spb_status cli_parse_number(const char *what, const char *text, uint64_t min,
                                         uint64_t max, uint64_t *value, struct spb_error *err);
/* A power of two from 512 to 65536. */
SPB_MUST_USE spb_status cli_parse_sector_size(const char *what, const char *text, uint64_t *value,
                                              struct spb_error *err);
/* UNIX seconds, which may be negative, or RFC 3339 in UTC: 2026-01-02T03:04:05Z. */
SPB_MUST_USE spb_status cli_parse_time(const char *what, const char *text, int64_t *unix_s,
                                       struct spb_error *err);
/* debug to critical in any case, or 0 to 255. */
SPB_MUST_USE spb_status cli_parse_severity(const char *what, const char *text, uint64_t *severity,
                                           struct spb_error *err);
/* 32 hex digits, with or without the hyphens of 8-4-4-4-12. */
SPB_MUST_USE spb_status cli_parse_uuid(const char *what, const char *text,
                                       uint8_t uuid[SPB_UUID_SIZE], struct spb_error *err);

/* [TENANT/]NAME. */
struct cli_image_ref {
    bool has_tenant;
    uint16_t tenant;
    const char *name; /* borrowed */
};
/* The name itself is the daemon's to judge. */
SPB_MUST_USE spb_status cli_parse_image(const char *what, const char *text,
                                        struct cli_image_ref *image, struct spb_error *err);

#endif
