/* The table of limits: whole, in bounds, and what is taken as a value. */
#include <criterion/criterion.h>
#include <string.h>

#include "limit.h"

static const struct spb_limit_row *row_of(const char *name)
{
    const struct spb_limit_row *row = spb_limit_find(name);

    cr_assert_not_null(row, "%s", name);
    return row;
}

Test(limit, every_member_has_one_row)
{
    size_t count;
    const struct spb_limit_row *rows = spb_limit_rows(&count);
    bool seen[sizeof(struct spb_limits) / sizeof(uint64_t)] = {false};

    cr_assert_eq(count, sizeof(struct spb_limits) / sizeof(uint64_t));
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(rows[i].offset, i * sizeof(uint64_t), "%s is out of order", rows[i].name);
        cr_assert(!seen[i]);
        seen[i] = true;
        cr_assert_eq(spb_limit_find(rows[i].name), &rows[i]);
    }
    cr_assert_null(spb_limit_find(""));
    cr_assert_null(spb_limit_find("idle"));
}

Test(limit, defaults_are_in_bounds_and_fit)
{
    struct spb_limits limits;
    struct spb_error err;
    size_t count;
    const struct spb_limit_row *rows = spb_limit_rows(&count);

    spb_limits_init(&limits);
    for (size_t i = 0; i < count; i++) {
        cr_assert(rows[i].min <= rows[i].usual && rows[i].usual <= rows[i].max, "%s", rows[i].name);
        cr_assert_eq(spb_limit_get(&limits, &rows[i]), rows[i].usual);
    }
    cr_assert(spb_is_ok(spb_limits_check(&limits, &err)));
    limits.output_max_bytes = limits.output_pause_bytes - 1;
    cr_assert_eq(spb_limits_check(&limits, &err).code, SPB_INVALID);
}

/* Names end with their unit, so that nobody has to look it up. */
Test(limit, names_have_their_unit)
{
    size_t count;
    const struct spb_limit_row *rows = spb_limit_rows(&count);

    for (size_t i = 0; i < count; i++) {
        const char *name = rows[i].name, *end = strrchr(name, '_');
        bool per_s = strlen(name) > 12 && strcmp(name + strlen(name) - 12, "_bytes_per_s") == 0;
        enum spb_limit_unit unit = SPB_UNIT_COUNT;

        if (per_s)
            unit = SPB_UNIT_BYTES_PER_S;
        else if (strcmp(end, "_ms") == 0)
            unit = SPB_UNIT_MS;
        else if (strcmp(end, "_s") == 0)
            unit = SPB_UNIT_S;
        else if (strcmp(end, "_bytes") == 0)
            unit = SPB_UNIT_BYTES;
        cr_assert_eq(rows[i].unit, unit, "%s", name);
    }
}

Test(limit, values)
{
    static const struct {
        const char *name, *text;
        uint64_t value; /* 0: refused */
    } cases[] = {
        {"idle_ms", "5000", 5000},
        {"idle_ms", "100", 100},
        {"idle_ms", "99", 0},
        {"idle_ms", "86400001", 0},
        {"idle_ms", "", 0},
        {"idle_ms", " 5000", 0},
        {"idle_ms", "+5000", 0},
        {"idle_ms", "-5000", 0},
        {"idle_ms", "5000 ", 5000},
        {"idle_ms", "5000ms", 0},
        {"idle_ms", "5 KiB", 0},
        {"idle_ms", "0x1000", 0},
        {"idle_ms", "18446744073709551616", 0},
        {"chunk_max_bytes", "64KiB", 65536},
        {"chunk_max_bytes", "64 KiB", 65536},
        {"chunk_max_bytes", "1 MiB", 1048576},
        {"chunk_max_bytes", "1 MiB ", 0},
        {"chunk_max_bytes", "KiB", 0},
        {"buffers_max_bytes", "64 GiB", UINT64_C(64) << 30},
        {"buffers_max_bytes", "65 GiB", 0},
        {"buffers_max_bytes", "18446744073709551615 KiB", 0},
        {"scrub_bytes_per_s", "1 MiB", 1048576},
        {"connections_max", "1 KiB", 0},
    };
    struct spb_limits limits;
    struct spb_error err;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct spb_limit_row *row = row_of(cases[i].name);

        spb_limits_init(&limits);
        spb_status status = spb_limit_parse(&limits, row, cases[i].text, &err);
        if (cases[i].value != 0) {
            cr_assert(spb_is_ok(status), "%s = %s: %s", cases[i].name, cases[i].text, err.text);
            cr_assert_eq(spb_limit_get(&limits, row), cases[i].value);
        } else {
            cr_assert_eq(status.code, SPB_INVALID, "%s = %s", cases[i].name, cases[i].text);
            cr_assert_eq(spb_limit_get(&limits, row), row->usual, "changed by a refused value");
            cr_assert_not_null(strstr(err.text, cases[i].name));
        }
    }
}

Test(limit, publishing_copies_all)
{
    struct {
        struct spb_limits limits;
    } holder;
    struct spb_limits wanted;
    size_t count;
    const struct spb_limit_row *rows = spb_limit_rows(&count);

    spb_limits_init(&holder.limits);
    spb_limits_init(&wanted);
    wanted.idle_ms = 777;
    wanted.http_headers_max_bytes = 4096;
    spb_limits_publish(&holder.limits, &wanted);
    cr_assert_eq(SPB_LIMIT(&holder, idle_ms), 777);
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(spb_limit_get(&holder.limits, &rows[i]), spb_limit_get(&wanted, &rows[i]));
}
