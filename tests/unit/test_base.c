/* The bounded reader and writer, UTF-8, CRC-32C, status. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/crc32c.h"
#include "base/status.h"

Test(crc32c, gives_the_check_value_whole_and_in_parts)
{
    cr_assert_eq(spb_crc32c(0, "123456789", 9), 0xE3069283u);
    cr_assert_eq(spb_crc32c(spb_crc32c(0, "1234", 4), "56789", 5), 0xE3069283u);
    cr_assert_eq(spb_crc32c(0, "", 0), 0u);
    /* Zeros after FF FF FF FF do not change it: why products need a mark at times. */
    cr_assert_eq(spb_crc32c(0, "\xff\xff\xff\xff", 4), spb_crc32c(0, "\xff\xff\xff\xff\0\0", 6));
}

Test(reader, stays_within_its_bytes)
{
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7};
    struct spb_reader r = spb_reader_over(bytes, sizeof(bytes));

    cr_assert_eq(spb_read_u8(&r), 1);
    cr_assert_eq(spb_read_be16(&r), 0x0203);
    cr_assert_eq(spb_read_be32(&r), 0x04050607u);
    cr_assert_not(r.failed);
    cr_assert_eq(spb_read_u8(&r), 0);
    cr_assert(r.failed);
    r = spb_reader_over(bytes, sizeof(bytes));
    cr_assert_eq(spb_read_be64(&r), 0);
    cr_assert(r.failed);
    cr_assert_null(spb_read_view(&r, 1), "a failed reader yields nothing more");
}

Test(writer, stays_within_its_bytes)
{
    uint8_t bytes[8] = {9, 9, 9, 9, 9, 9, 9, 9};
    struct spb_writer w = spb_writer_over(bytes, 7);

    spb_write_be32(&w, 0x01020304);
    spb_write_be32(&w, 0x05060708);
    cr_assert(w.failed);
    spb_write_u8(&w, 1);
    cr_assert_eq(w.pos, 4);
    cr_assert_arr_eq(bytes, ((uint8_t[]){1, 2, 3, 4, 9, 9, 9, 9}), 8);
}

Test(bytes, knows_utf8)
{
    cr_assert(spb_bytes_are_utf8("", 0));
    cr_assert(spb_bytes_are_utf8("\xc3\xa4\xe2\x82\xac\xf0\x9f\x9b\xb0", 9));
    static const char *const bad[] = {
        "\x80", "\xc0\xaf", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xf5", "\xe2\x82", "a\xff"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not(spb_bytes_are_utf8(bad[i], strlen(bad[i])), "sample %zu", i);
    /* The maximal subpart of an ill-formed sequence shows as one character. */
    cr_assert_eq(spb_utf8_step((const uint8_t *)"\xe2\x82z", 3), -2);
    cr_assert_eq(spb_utf8_step((const uint8_t *)"\xed\xa0", 2), -1);
}

Test(bytes, knows_zeros)
{
    cr_assert(spb_bytes_are_zero("", 0));
    cr_assert(spb_bytes_are_zero("\0\0\0", 3));
    cr_assert_not(spb_bytes_are_zero("\0\0\1", 3));
    cr_assert_not(spb_bytes_are_zero("\1\0\0", 3));
}

Test(checked, tells_overflow)
{
    uint64_t result = 5;

    cr_assert(spb_add_u64(1, 2, &result) && result == 3);
    cr_assert_not(spb_add_u64(UINT64_MAX, 1, &result));
    cr_assert_eq(result, 3, "untouched");
    cr_assert(spb_range_within(3, 4, 7));
    cr_assert_not(spb_range_within(3, 5, 7));
    cr_assert_not(spb_range_within(UINT64_MAX, 2, 7));
}

Test(status, keeps_code_errno_and_text)
{
    struct spb_error err = {0};

    spb_status status = spb_fail_errno(&err, SPB_IO, ENOSPC, "cannot write %s", "x");
    cr_assert_eq(status.code, SPB_IO);
    cr_assert_eq(err.saved_errno, ENOSPC);
    cr_assert_str_eq(err.text, "cannot write x: No space left on device");
    /* Its own text may be an argument. */
    (void)spb_fail(&err, SPB_CORRUPT, "again: %s", err.text);
    cr_assert_str_eq(err.text, "again: cannot write x: No space left on device");
    (void)spb_fail(NULL, SPB_IO, "nobody listens");
    char long_text[2 * SPB_ERROR_TEXT_SIZE];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    (void)spb_fail(&err, SPB_IO, "%s", long_text);
    cr_assert_eq(strlen(err.text), SPB_ERROR_TEXT_SIZE - 1);
    for (int code = 0; code < SPB_CODE_COUNT; code++)
        cr_assert_str_neq(spb_code_name((enum spb_code)code), "unknown");
    cr_assert_str_eq(spb_code_name(SPB_CODE_COUNT), "unknown");
}
