/* Points in time as people give them: absolute, or so long ago. No state. */
#ifndef SPB_CLI_WHEN_H
#define SPB_CLI_WHEN_H

#include <stdint.h>

#include "base/status.h"

/*
 * UNIX microseconds of: so long ago, a number with s, m, h, d or w ("2h"); UNIX seconds; or ISO
 * 8601, a date with or without a time, which may have minutes, seconds and a fraction of these, and
 * Z or an offset ("2026-01-02", "2026-01-02T03:04", "2026-01-02T03:04:05.678Z",
 * "2026-01-02T03:04:05+02:00"). Without an offset it is UTC. SPB_INVALID, also before 1970.
 */
SPB_MUST_USE spb_status cli_parse_when(const char *what, const char *text, int64_t now_us,
                                       int64_t *when_us, struct spb_error *err);

#endif
