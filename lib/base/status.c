/* Outcome of an operation: codes' names and the filling of struct spb_error. No state. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const code_names[SPB_CODE_COUNT] = {
    [SPB_OK] = "ok",
    [SPB_INVALID] = "invalid",
    [SPB_NOT_FOUND] = "not-found",
    [SPB_EXISTS] = "exists",
    [SPB_IN_USE] = "in-use",
    [SPB_GENERATION] = "generation",
    [SPB_CHANGED] = "changed",
    [SPB_FULL] = "full",
    [SPB_LIMIT] = "limit",
    [SPB_AGAIN] = "again",
    [SPB_CORRUPT] = "corrupt",
    [SPB_BAD_MAGIC] = "bad-magic",
    [SPB_BAD_CRC] = "bad-crc",
    [SPB_BAD_VERSION] = "bad-version",
    [SPB_BAD_DP_AREA] = "bad-dp-area",
    [SPB_BAD_SIZE] = "bad-size",
    [SPB_IO] = "io",
    [SPB_POISONED] = "poisoned",
    [SPB_READ_ONLY] = "read-only",
    [SPB_LOCKED] = "locked",
    [SPB_NO_MEMORY] = "no-memory",
    [SPB_UNSUPPORTED] = "unsupported",
    [SPB_DEADLINE] = "deadline",
    [SPB_UNREACHABLE] = "unreachable",
    [SPB_PROTOCOL] = "protocol",
    [SPB_REMOTE] = "remote",
};

const char *spb_code_name(enum spb_code code)
{
    if ((unsigned)code >= SPB_CODE_COUNT)
        return "unknown";
    return code_names[code];
}

static __attribute__((format(printf, 4, 0))) spb_status
fill(struct spb_error *err, enum spb_code code, int number, const char *format, va_list args)
{
    spb_status status = {code};

    SPB_ASSERT(code != SPB_OK);
    if (err == NULL)
        return status;
    /* Formatted aside first: an argument may be err->text itself. */
    char text[SPB_ERROR_TEXT_SIZE];
    int length = vsnprintf(text, sizeof(text), format, args);
    size_t used = length < 0 ? 0 : (size_t)length;

    if (length < 0)
        text[0] = '\0';
    if (number != 0 && used < sizeof(text)) {
        char reason[128];
        const char *words = strerror_r(number, reason, sizeof(reason));
        (void)snprintf(text + used, sizeof(text) - used, ": %s", words);
    }
    err->code = code;
    err->saved_errno = number;
    memcpy(err->text, text, sizeof(text));
    return status;
}

spb_status spb_fail(struct spb_error *err, enum spb_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    spb_status status = fill(err, code, 0, format, args);
    va_end(args);
    return status;
}

spb_status spb_fail_errno(struct spb_error *err, enum spb_code code, int number, const char *format,
                          ...)
{
    va_list args;

    va_start(args, format);
    spb_status status = fill(err, code, number, format, args);
    va_end(args);
    return status;
}

spb_status spb_fail_memory(struct spb_error *err, const char *what)
{
    return spb_fail(err, SPB_NO_MEMORY, "out of memory while %s", what);
}

void spb_assert_failed(const char *cond, const char *file, int line)
{
    (void)fprintf(stderr, "spaceblock: assertion failed at %s:%d: %s\n", file, line, cond);
    abort();
}
