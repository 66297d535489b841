/*
 * What judging and completing share. Reads published state only.
 */
#ifndef SPB_VOLUME_JUDGE_H
#define SPB_VOLUME_JUDGE_H

#include "volume/change.h"

#define SPB_EVENTS_ELSEWHERE UINT32_MAX

/* How many records of an append the pointer has passed, from its first; SPB_EVENTS_ELSEWHERE where
 * the pointer is before it or behind it. */
uint32_t spb_events_there(const struct spb_volume *volume, const struct spb_events_change *change);

#endif
