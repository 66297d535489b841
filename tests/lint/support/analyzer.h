/*
 * For clang-tidy alone, which includes it first in every file but lib/base/status.c: the analyser
 * does not see across files that spb_fail and its kin never return success, and would follow paths
 * on which a failed allocation goes on. Here they are expressions that it can see through.
 */
#ifndef SPB_LINT_ANALYZER_H
#define SPB_LINT_ANALYZER_H

#include "base/status.h"

/* Arguments count as used. */
static inline void spb_lint_use(int first, ...)
{
    (void)first;
}

#define spb_fail(err, code, ...) (spb_lint_use(0, (err), __VA_ARGS__), (spb_status){code})
#define spb_fail_errno(err, code, number, ...)                                                     \
    (spb_lint_use(0, (err), (number), __VA_ARGS__), (spb_status){code})
#define spb_fail_memory(err, what) (spb_lint_use(0, (err), (what)), (spb_status){SPB_NO_MEMORY})

#endif
