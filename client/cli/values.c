/* Values of options and words: numbers, times, severities, UUIDs, image names. No state. */
#include "cli/options.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 16;
}

/* All of text as a number in decimal or 0x hex; false for anything else and for 2^64 and above. */
static bool number_of(const char *text, uint64_t *value)
{
    uint64_t base = 10, sum = 0;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    if (text[0] == '\0')
        return false;
    for (; *text != '\0'; text++) {
        uint64_t digit = (uint64_t)digit_of(*text);
        if (digit >= base || __builtin_mul_overflow(sum, base, &sum) ||
            __builtin_add_overflow(sum, digit, &sum))
            return false;
    }
    *value = sum;
    return true;
}

spb_status cli_parse_number(const char *what, const char *text, uint64_t min, uint64_t max,
                            uint64_t *value, struct spb_error *err)
{
    uint64_t number;

    if (!number_of(text, &number) || number < min || number > max)
        return spb_fail(err, SPB_INVALID,
                        "%s: found \"%s\", expected a number from %" PRIu64 " to %" PRIu64
                        " (decimal or 0x hex)",
                        what, text, min, max);
    *value = number;
    return spb_ok();
}

spb_status cli_parse_sector_size(const char *what, const char *text, uint64_t *value,
                                 struct spb_error *err)
{
    uint64_t size;

    if (!number_of(text, &size) || size < SPB_BLOCK_SIZE_MIN || size > SPB_BLOCK_SIZE_MAX ||
        (size & (size - 1)) != 0)
        return spb_fail(err, SPB_INVALID, "%s: found \"%s\", expected a power of two from %u to %u",
                        what, text, SPB_BLOCK_SIZE_MIN, SPB_BLOCK_SIZE_MAX);
    *value = size;
    return spb_ok();
}

spb_status cli_parse_severity(const char *what, const char *text, uint64_t *severity,
                              struct spb_error *err)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "critical"};
    uint64_t number;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(text, names[i]) == 0) {
            *severity = i;
            return spb_ok();
        }
    }
    if (!number_of(text, &number) || number > UINT8_MAX)
        return spb_fail(err, SPB_INVALID,
                        "%s: found \"%s\", expected debug, info, warn, error, critical or a "
                        "number from 0 to 255",
                        what, text);
    *severity = number;
    return spb_ok();
}

/* The value of n decimal digits, or -1. */
static int digits(const char *text, size_t n)
{
    int value = 0;

    for (size_t i = 0; i < n; i++) {
        int digit = digit_of(text[i]);
        if (digit > 9)
            return -1;
        value = value * 10 + digit;
    }
    return value;
}

/* Exactly YYYY-MM-DDTHH:MM:SSZ, and a time that exists. */
static bool rfc3339_of(const char *text, int64_t *unix_s)
{
    static const char shape[] = "####-##-##T##:##:##Z";

    if (strlen(text) != sizeof(shape) - 1)
        return false;
    for (size_t i = 0; i < sizeof(shape) - 1; i++) {
        if (shape[i] == '#' ? digit_of(text[i]) > 9 : text[i] != shape[i])
            return false;
    }
    struct tm asked = {.tm_year = digits(text, 4) - 1900,
                       .tm_mon = digits(text + 5, 2) - 1,
                       .tm_mday = digits(text + 8, 2),
                       .tm_hour = digits(text + 11, 2),
                       .tm_min = digits(text + 14, 2),
                       .tm_sec = digits(text + 17, 2)};
    struct tm normal = asked;
    time_t seconds = timegm(&normal);
    /* timegm carries February 30 over into March: such a date is none. */
    if (normal.tm_mon != asked.tm_mon || normal.tm_mday != asked.tm_mday ||
        normal.tm_hour != asked.tm_hour || normal.tm_min != asked.tm_min ||
        normal.tm_sec != asked.tm_sec)
        return false;
    *unix_s = (int64_t)seconds;
    return true;
}

spb_status cli_parse_time(const char *what, const char *text, int64_t *unix_s,
                          struct spb_error *err)
{
    uint64_t number;
    bool negative = text[0] == '-';

    if (rfc3339_of(text, unix_s))
        return spb_ok();
    if (!number_of(text + (negative ? 1 : 0), &number) || number > INT64_MAX)
        return spb_fail(err, SPB_INVALID,
                        "%s: found \"%s\", expected UNIX seconds or a UTC time such as "
                        "2026-01-02T03:04:05Z",
                        what, text);
    *unix_s = negative ? -(int64_t)number : (int64_t)number;
    return spb_ok();
}

spb_status cli_parse_uuid(const char *what, const char *text, uint8_t uuid[SPB_UUID_SIZE],
                          struct spb_error *err)
{
    uint8_t bytes[SPB_UUID_SIZE] = {0};
    bool hyphens = strlen(text) == 36;
    bool good = hyphens || strlen(text) == 32;
    size_t nibble = 0;

    for (size_t i = 0; good && text[i] != '\0'; i++) {
        if (hyphens && (i == 8 || i == 13 || i == 18 || i == 23)) {
            good = text[i] == '-';
            continue;
        }
        int digit = digit_of(text[i]);
        good = digit < 16;
        if (good)
            bytes[nibble / 2] = (uint8_t)(bytes[nibble / 2] << 4 | digit);
        nibble++;
    }
    if (!good)
        return spb_fail(err, SPB_INVALID,
                        "%s: found \"%s\", expected 32 hex digits, with or without the hyphens of "
                        "8-4-4-4-12",
                        what, text);
    memcpy(uuid, bytes, sizeof(bytes));
    return spb_ok();
}

spb_status cli_parse_image(const char *what, const char *text, struct cli_image_ref *image,
                           struct spb_error *err)
{
    const char *slash = strchr(text, '/');
    char tenant[16] = "";
    uint64_t number = 0;

    if (slash != NULL) {
        size_t length = (size_t)(slash - text);
        if (length < sizeof(tenant))
            memcpy(tenant, text, length);
        if (!number_of(tenant, &number) || number > UINT16_MAX)
            return spb_fail(err, SPB_INVALID,
                            "%s: found \"%s\", expected [TENANT/]NAME with TENANT a number from 0 "
                            "to 65535 and no slash in NAME",
                            what, text);
    }
    image->has_tenant = slash != NULL;
    image->tenant = (uint16_t)number;
    image->name = slash != NULL ? slash + 1 : text;
    return spb_ok();
}
