/*
 * Fuzzes the configuration file. What is taken has to print as a configuration that is taken again
 * and prints the same; what is refused has to say where.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "config.h"

#define PATH "fuzzed.conf"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static spb_status read_text(const void *text, size_t size, struct spb_options *options,
                            struct spb_error *err)
{
    /* fmemopen is not for nothing at all. */
    FILE *file =
        size == 0 ? fopen("/dev/null", "re") : fmemopen((void *)(uintptr_t)text, size, "r");

    SPB_ASSERT(file != NULL);
    spb_options_init(options);
    spb_status status = spb_config_read_from(file, PATH, options, err);
    (void)fclose(file);
    return status;
}

/* Owned by the caller. */
static char *print(const struct spb_options *options)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    SPB_ASSERT(out != NULL);
    spb_options_print(options, out);
    SPB_ASSERT(fclose(out) == 0);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct spb_options options, again;
    struct spb_error err;

    if (!spb_is_ok(read_text(data, size, &options, &err))) {
        SPB_ASSERT(strncmp(err.text, PATH ":", sizeof(PATH)) == 0);
        return 0;
    }
    /* Without a data directory it is printed and not taken; nor are lines of 199 bytes or more,
     * which may come of shorter ones by the blanks around =. */
    if (options.data_dir[0] == '\0' || strlen(options.data_dir) > 180)
        return 0;
    char *first = print(&options);
    SPB_ASSERT(spb_is_ok(read_text(first, strlen(first), &again, &err)));
    char *second = print(&again);
    SPB_ASSERT(strcmp(first, second) == 0);
    free(first);
    free(second);
    return 0;
}
