/* What a guest's ending means for what comes after it: part of life.c, and as pure. */
#ifndef SPB_SUPERVISOR_LIFE_RESTART_H
#define SPB_SUPERVISOR_LIFE_RESTART_H

#include "supervisor/life.h"

/* Of one that is not started again. */
enum spb_life_state spb_life_state_at_end(const struct spb_life *life);
bool spb_life_is_restarted(const struct spb_life *life, enum spb_life_state at_end);
/* Doubled with each short run in a row, up to a cap; then between half of it and all. */
int64_t spb_life_backoff_ns(const struct spb_life *life, uint32_t random);

#endif
