/*
 * Names of data products in texts for people and logs: well-formed UTF-8 as it is, but \xNN for
 * each byte that is not, that would break a line or that would show otherwise than it is; \\ for a
 * backslash. Pure functions of bytes.
 */
#ifndef SPB_VOLUME_NAME_TEXT_H
#define SPB_VOLUME_NAME_TEXT_H

#include "spaceblock/volume.h"

/* Of the longest name, without a NUL. */
#define SPB_NAME_SHOWN_MAX (4u * SPB_PRODUCT_NAME_MAX)

/* Writes the n bytes of a name at `at`, which has room for 4n, and no NUL; returns what is behind
 * them. */
char *spb_name_show(char *at, const void *name, size_t n);

#endif
