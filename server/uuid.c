/* UUIDs; see uuid.h. */
#include "uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/status.h"

/* -1: no hex digit. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Is there a hyphen before this byte? */
static bool is_parted(size_t byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

bool spb_uuid_parse(const char *text, uint8_t uuid[SPB_UUID_BYTES])
{
    uint8_t bytes[SPB_UUID_BYTES];

    if (strlen(text) != SPB_UUID_TEXT_SIZE - 1)
        return false;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        if (is_parted(i) && *text++ != '-')
            return false;
        int high = hex_value(text[0]), low = hex_value(text[1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    memcpy(uuid, bytes, sizeof(bytes));
    return true;
}

void spb_uuid_write(const uint8_t uuid[SPB_UUID_BYTES], char text[SPB_UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < SPB_UUID_BYTES; i++) {
        if (is_parted(i))
            *text++ = '-';
        *text++ = digits[uuid[i] >> 4];
        *text++ = digits[uuid[i] & 15];
    }
    *text = '\0';
}

spb_status spb_uuid_draw(uint8_t uuid[SPB_UUID_BYTES], struct spb_error *err)
{
    if (getrandom(uuid, SPB_UUID_BYTES, 0) != (ssize_t)SPB_UUID_BYTES)
        return spb_fail_errno(err, SPB_UNSUPPORTED, errno, "drawing a uuid");
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    return spb_ok();
}
