/*
 * How the library's own files make and pass on a failure. See include/spaceblock/status.h.
 */
#ifndef SPB_BASE_STATUS_H
#define SPB_BASE_STATUS_H

#include <errno.h>

#include "spaceblock/status.h"

/* Success. */
static inline spb_status spb_ok(void)
{
    spb_status status = {SPB_OK};
    return status;
}

/* Fills err (which may be NULL) and returns the code as a status. */
spb_status spb_fail(struct spb_error *err, enum spb_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As spb_fail, and adds ": " and the system's text of number, which is kept as saved_errno. */
spb_status spb_fail_errno(struct spb_error *err, enum spb_code code, int number, const char *format,
                          ...) __attribute__((format(printf, 4, 5)));

/* What a call that makes or writes files failed with: SPB_FULL without room, else SPB_IO. */
static inline enum spb_code spb_code_of_errno(int number)
{
    return number == ENOSPC || number == EDQUOT || number == EFBIG ? SPB_FULL : SPB_IO;
}

/* SPB_NO_MEMORY with the text "out of memory while WHAT". */
spb_status spb_fail_memory(struct spb_error *err, const char *what);

/* Returns from the calling function with the failure of expr. */
#define SPB_TRY(expr)                                                                              \
    do {                                                                                           \
        spb_status spb_try_status_ = (expr);                                                       \
        if (!spb_is_ok(spb_try_status_))                                                           \
            return spb_try_status_;                                                                \
    } while (0)

/* A programmer's error: prints where and aborts, in release builds too. Never for outside input. */
#define SPB_ASSERT(cond) ((cond) ? (void)0 : spb_assert_failed(#cond, __FILE__, __LINE__))
_Noreturn void spb_assert_failed(const char *cond, const char *file, int line);

#endif
