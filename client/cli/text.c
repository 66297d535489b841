/* Bytes as text that is safe on a terminal; see text.h. No state. */
#include "cli/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/checked.h"

static const uint8_t replacement[3] = {0xEF, 0xBF, 0xBD}; /* U+FFFD */

/* The code point of a well-formed sequence of 1 to 4 bytes. */
static uint32_t code_point(const uint8_t *at, int length)
{
    static const uint8_t lead_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t point = at[0] & lead_mask[length];

    for (int i = 1; i < length; i++)
        point = point << 6 | (at[i] & 0x3Fu);
    return point;
}

/* C0, DEL and C1; line and paragraph separators; marks that change direction or hide. */
static bool is_control(uint32_t point)
{
    return point < 0x20 || (point >= 0x7F && point < 0xA0) || point == 0x061C ||
           (point >= 0x200B && point <= 0x200F) || (point >= 0x2028 && point <= 0x202E) ||
           (point >= 0x2060 && point <= 0x206F) || point == 0xFEFF ||
           (point >= 0xFFF9 && point <= 0xFFFB) || (point >= 0xE0000 && point <= 0xE0FFF);
}

bool cli_text_is_printable(const void *data, size_t n)
{
    const uint8_t *bytes = data;

    for (size_t at = 0; at < n;) {
        int step = spb_utf8_step(bytes + at, n - at);
        if (step < 0 || is_control(code_point(bytes + at, step)))
            return false;
        at += (size_t)step;
    }
    return true;
}

/* One step of the input to out, which has 16 bytes; returns how many were written. */
static size_t show_step(const uint8_t *at, int step, bool escape, char *out)
{
    if (step < 0) {
        memcpy(out, replacement, sizeof(replacement));
        return sizeof(replacement);
    }
    uint32_t point = code_point(at, step);
    if (escape && is_control(point))
        return (size_t)snprintf(out, 16, point < 0x100 ? "\\x%02" PRIx32 : "\\u{%" PRIx32 "}",
                                point);
    memcpy(out, at, (size_t)step);
    return (size_t)step;
}

static char *show(const void *data, size_t n, bool escape, size_t *size)
{
    const uint8_t *bytes = data;
    /* The longest that one byte becomes is \xNN, and \u{NNNNN} comes of three bytes or four. */
    char *out = malloc(n * 4 + 16);
    size_t used = 0;

    if (out == NULL)
        return NULL;
    for (size_t at = 0; at < n;) {
        int step = spb_utf8_step(bytes + at, n - at);
        char piece[16];
        size_t length = show_step(bytes + at, step, escape, piece);
        memcpy(out + used, piece, length);
        used += length;
        at += (size_t)abs(step);
    }
    out[used] = '\0';
    *size = used;
    return out;
}

char *cli_text_utf8(const void *data, size_t n, size_t *size)
{
    return show(data, n, false, size);
}

char *cli_text_safe(const void *data, size_t n)
{
    size_t size;

    return show(data, n, true, &size);
}

char *cli_text_hex(const char *prefix, const void *data, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    size_t used = strlen(prefix);
    char *out = n > (SIZE_MAX - used - 1) / 2 ? NULL : malloc(used + n * 2 + 1);

    if (out == NULL)
        return NULL;
    memcpy(out, prefix, used);
    for (size_t i = 0; i < n; i++) {
        out[used++] = digits[bytes[i] >> 4];
        out[used++] = digits[bytes[i] & 15];
    }
    out[used] = '\0';
    return out;
}

char *cli_text_value(const void *data, size_t n)
{
    size_t size;

    if (!cli_text_is_printable(data, n) || (n >= 4 && memcmp(data, "hex:", 4) == 0))
        return cli_text_hex("hex:", data, n);
    return cli_text_utf8(data, n, &size);
}

void cli_text_time(uint64_t unix_s, char out[CLI_TIME_SIZE])
{
    time_t seconds = (time_t)unix_s;
    struct tm parts;

    if (unix_s <= UINT64_C(253402300799) && gmtime_r(&seconds, &parts) != NULL &&
        strftime(out, CLI_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &parts) > 0)
        return;
    (void)snprintf(out, CLI_TIME_SIZE, "@%" PRIu64, unix_s);
}

void cli_text_event_time(uint64_t epoch, uint32_t timestamp, char out[CLI_TIME_SIZE])
{
    uint64_t unix_s;

    if (spb_add_u64(epoch, timestamp, &unix_s))
        cli_text_time(unix_s, out);
    else
        (void)snprintf(out, CLI_TIME_SIZE, "epoch+%" PRIu32, timestamp);
}

void cli_text_uuid(const uint8_t uuid[16], char out[CLI_UUID_TEXT_SIZE])
{
    size_t used = 0;

    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[used++] = '-';
        used += (size_t)snprintf(out + used, 3, "%02x", uuid[i]);
    }
}

void cli_text_severity(uint8_t severity, char out[CLI_SEVERITY_SIZE])
{
    static const char *const names[] = {"DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"};

    if (severity < sizeof(names) / sizeof(names[0]))
        (void)snprintf(out, CLI_SEVERITY_SIZE, "%s", names[severity]);
    else
        (void)snprintf(out, CLI_SEVERITY_SIZE, "%u", severity);
}
