/* Points in time as people give them to the command line. */
#include "cli/when.h"
#include "volume_kit.h"

#define S_US INT64_C(1000000)
#define NOW_US (INT64_C(1767323045) * S_US + 123456) /* 2026-01-02T03:04:05.123456Z */

static void expect(const char *text, int64_t when_us)
{
    int64_t found = -1;

    OK(cli_parse_when("--since", text, NOW_US, &found, &kit_err));
    cr_assert_eq(found, when_us, "%s: found %lld, expected %lld", text, (long long)found,
                 (long long)when_us);
}

static void refuse(const char *text)
{
    int64_t found = 77;

    FAILS(SPB_INVALID, cli_parse_when("--since", text, NOW_US, &found, &kit_err));
    cr_assert_eq(found, 77, "%s", text);
    cr_assert_not_null(strstr(kit_err.text, "--since"));
}

Test(cli_when, so_long_ago)
{
    expect("0s", NOW_US);
    expect("90s", NOW_US - 90 * S_US);
    expect("15m", NOW_US - 15 * 60 * S_US);
    expect("2h", NOW_US - 2 * 3600 * S_US);
    expect("3d", NOW_US - 3 * 86400 * S_US);
    expect("1w", NOW_US - 7 * 86400 * S_US);
    expect("2000w", NOW_US - INT64_C(2000) * 7 * 86400 * S_US);
}

Test(cli_when, unix_seconds)
{
    expect("0", 0);
    expect("1767323045", NOW_US - 123456);
    expect("253402300800", INT64_C(253402300800) * S_US);
}

Test(cli_when, iso_8601)
{
    expect("2026-01-02", INT64_C(1767312000) * S_US);
    expect("2026-01-02T03:04", INT64_C(1767323040) * S_US);
    expect("2026-01-02T03:04Z", INT64_C(1767323040) * S_US);
    expect("2026-01-02T03:04:05", INT64_C(1767323045) * S_US);
    expect("2026-01-02T03:04:05Z", INT64_C(1767323045) * S_US);
    expect("2026-01-02T03:04:05.5Z", INT64_C(1767323045) * S_US + 500000);
    expect("2026-01-02T03:04:05.123456Z", NOW_US);
    expect("2026-01-02T03:04:05.1234567899Z", NOW_US);
    expect("2026-01-02T05:04:05+02:00", INT64_C(1767323045) * S_US);
    expect("2026-01-01T21:34:05-05:30", INT64_C(1767323045) * S_US);
    expect("2024-02-29", INT64_C(1709164800) * S_US);
    expect("1970-01-01T00:00:00Z", 0);
}

Test(cli_when, what_is_no_time)
{
    static const char *const bad[] = {
        "",
        " ",
        "now",
        "h",
        "2y",
        "2hh",
        "2h ",
        "-2h",
        "+2h",
        "2.5h",
        "9999999999w",
        "253402300801",
        "99999999999999999999",
        "2026-1-2",
        "2026-13-01",
        "2026-00-10",
        "2026-02-30",
        "2025-02-29",
        "2026-01-02T",
        "2026-01-02T3:04",
        "2026-01-02T24:00",
        "2026-01-02T03:60",
        "2026-01-02T03:04:60Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05z",
        "2026-01-02T03:04:05Zx",
        "2026-01-02T03:04:05+2",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02 03:04:05",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "0x10",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)

        refuse(bad[i]);
}
