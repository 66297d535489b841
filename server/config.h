/*
 * The configuration file: INI sections with the options of options.h and, in [limits], those of
 * limit.h. What is unknown, wrong or given twice is an error that names file and line. No state.
 */
#ifndef SPB_SERVER_CONFIG_H
#define SPB_SERVER_CONFIG_H

#include <stdio.h>

#include "options.h"

/* Sets what the file says in options; on failure they are half set. Blocks. */
SPB_MUST_USE spb_status spb_config_read(const char *path, struct spb_options *options,
                                        struct spb_error *err);
/* The same from an open file, which is borrowed; path is for errors. */
SPB_MUST_USE spb_status spb_config_read_from(FILE *file, const char *path,
                                             struct spb_options *options, struct spb_error *err);

#endif
