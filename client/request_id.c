/* Fresh request ids: UUIDs of version 4 (RFC 9562), from the kernel's randomness. Any thread. */
#include <errno.h>
#include <stdint.h>
#include <sys/random.h>

#include "base/status.h"
#include "entropy.h"
#include "spaceblock/client.h"

int spb_entropy_fill(void *bytes, size_t n)
{
    uint8_t *at = bytes;
    size_t done = 0;

    while (done < n) {
        ssize_t got = getrandom(at + done, n - done, 0);
        if (got >= 0)
            done += (size_t)got;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

spb_status spb_client_request_id(char id[SPB_REQUEST_ID_SIZE], struct spb_error *err)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[16];
    char *out = id;

    int number = spb_entropy_fill(bytes, sizeof(bytes));
    if (number != 0)
        return spb_fail_errno(err, SPB_UNSUPPORTED, number, "cannot make a request id");
    bytes[6] = (uint8_t)((bytes[6] & 0x0F) | 0x40); /* version */
    bytes[8] = (uint8_t)((bytes[8] & 0x3F) | 0x80); /* variant */
    for (size_t i = 0; i < sizeof(bytes); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 0x0F];
    }
    *out = '\0';
    return spb_ok();
}
