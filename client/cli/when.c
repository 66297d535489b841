/* Points in time as people give them; see when.h. */
#include "cli/when.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

#define S_US INT64_C(1000000)
#define YEARS_MAX_US (INT64_C(253402300800) * S_US) /* the end of the year 9999 */

/* Reads n digits, and moves on; false where they are not there. */
static bool take_digits(const char **at, size_t n, int *value)
{
    *value = 0;
    for (size_t i = 0; i < n; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        *value = *value * 10 + (**at - '0');
    }
    return true;
}

static bool take(const char **at, char wanted)
{
    if (**at != wanted)
        return false;
    (*at)++;
    return true;
}

/* All digits there are, of a number below 2^40; false where there is none. */
static bool take_number(const char **at, int64_t *number)
{
    const char *start = *at;

    for (*number = 0; **at >= '0' && **at <= '9' && *at - start < 12; (*at)++)
        *number = *number * 10 + (**at - '0');
    return *at > start && !(**at >= '0' && **at <= '9');
}

/* What one of a unit's letter is in seconds; 0: it is none. */
static int64_t unit_s(const char *text)
{
    static const struct {
        char letter;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]) && strlen(text) == 1; i++)
        if (text[0] == units[i].letter)
            return units[i].seconds;
    return 0;
}

static bool parse_plain(const char *text, int64_t now_us, int64_t *when_us)
{
    int64_t number;

    if (!take_number(&text, &number) || number > YEARS_MAX_US / S_US)
        return false;
    if (*text == '\0') {
        *when_us = number * S_US;
        return true;
    }
    int64_t seconds = unit_s(text);
    if (seconds == 0 || number > now_us / S_US / seconds)
        return false;
    *when_us = now_us - number * seconds * S_US;
    return true;
}

/* The fraction of a second, and the digits beyond microseconds, which do not count. */
static bool take_fraction(const char **at, int64_t *us)
{
    int64_t scale = S_US;

    *us = 0;
    if (!take(at, '.'))
        return true;
    if (**at < '0' || **at > '9')
        return false;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        scale /= 10;
        *us += (**at - '0') * scale;
    }
    return true;
}

static bool take_offset(const char **at, int64_t *offset_s)
{
    int hours, minutes;
    char sign = **at;

    *offset_s = 0;
    if (take(at, 'Z') || sign == '\0')
        return true;
    if (sign != '+' && sign != '-')
        return false;
    (*at)++;
    if (!take_digits(at, 2, &hours) || !take(at, ':') || !take_digits(at, 2, &minutes) ||
        hours > 23 || minutes > 59)
        return false;
    *offset_s = (hours * 60 + minutes) * (sign == '+' ? 60 : -60);
    return true;
}

static bool take_time(const char **at, struct tm *parts, int64_t *us, int64_t *offset_s)
{
    if (!take_digits(at, 2, &parts->tm_hour) || !take(at, ':') ||
        !take_digits(at, 2, &parts->tm_min))
        return false;
    if (take(at, ':') && (!take_digits(at, 2, &parts->tm_sec) || !take_fraction(at, us)))
        return false;
    return take_offset(at, offset_s);
}

static bool parse_iso(const char *text, int64_t *when_us)
{
    struct tm asked = {.tm_year = 0};
    int64_t us = 0, offset_s = 0;

    if (!take_digits(&text, 4, &asked.tm_year) || !take(&text, '-') ||
        !take_digits(&text, 2, &asked.tm_mon) || !take(&text, '-') ||
        !take_digits(&text, 2, &asked.tm_mday))
        return false;
    if (take(&text, 'T') && !take_time(&text, &asked, &us, &offset_s))
        return false;
    asked.tm_year -= 1900;
    asked.tm_mon -= 1;
    struct tm normal = asked;
    int64_t seconds = (int64_t)timegm(&normal);
    /* timegm carries February 30 over into March: such a date is none. */
    if (*text != '\0' || normal.tm_mon != asked.tm_mon || normal.tm_mday != asked.tm_mday ||
        normal.tm_hour != asked.tm_hour || normal.tm_min != asked.tm_min ||
        normal.tm_sec != asked.tm_sec || seconds - offset_s < 0)
        return false;
    *when_us = (seconds - offset_s) * S_US + us;
    return true;
}

spb_status cli_parse_when(const char *what, const char *text, int64_t now_us, int64_t *when_us,
                          struct spb_error *err)
{
    if (parse_plain(text, now_us, when_us) || parse_iso(text, when_us))
        return spb_ok();
    return spb_fail(err, SPB_INVALID,
                    "%s: found \"%s\", expected a time such as 2026-01-02T03:04:05Z or 2026-01-02, "
                    "UNIX seconds, or how long ago as in 90s, 15m, 2h, 3d, 1w",
                    what, text);
}
