/* Names of data products in texts; see name_text.h. No state. */
#include "volume/name_text.h"

#include <string.h>

#include "base/bytes.h"

/* Would these bytes of one character break the line, or show it otherwise than it is? */
static bool is_plain(const uint8_t *bytes, int n)
{
    if (n == 1)
        return bytes[0] >= 0x20 && bytes[0] != 0x7F && bytes[0] != '\\';
    if (n == 2 && bytes[0] == 0xC2)
        return bytes[1] >= 0xA0; /* C1 controls */
    if (n == 3 && bytes[0] == 0xE2 && bytes[1] == 0x80)
        return bytes[2] < 0xA8 || bytes[2] > 0xAE; /* separators of lines, turns of direction */
    return !(n == 3 && bytes[0] == 0xE2 && bytes[1] == 0x81 && bytes[2] >= 0xA6 &&
             bytes[2] <= 0xA9);
}

static char *put_escaped(char *at, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    if (n == 1 && bytes[0] == '\\') {
        *at++ = '\\';
        *at++ = '\\';
        return at;
    }
    for (size_t i = 0; i < n; i++) {
        *at++ = '\\';
        *at++ = 'x';
        *at++ = digits[bytes[i] >> 4];
        *at++ = digits[bytes[i] & 15];
    }
    return at;
}

char *spb_name_show(char *at, const void *name, size_t n)
{
    const uint8_t *bytes = name;

    for (size_t i = 0; i < n;) {
        int step = spb_utf8_step(bytes + i, n - i);
        size_t part = (size_t)(step < 0 ? -step : step);
        if (step > 0 && is_plain(bytes + i, step)) {
            memcpy(at, bytes + i, part);
            at += part;
        } else {
            at = put_escaped(at, bytes + i, part);
        }
        i += part;
    }
    return at;
}
