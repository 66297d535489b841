/*
 * The configuration file; see config.h. inih finds sections, names and values; the lines are read
 * here, so that each is counted and none is cut silently.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "base/status.h"

#define FILE_MAX (1024u * 1024) /* bytes */
#define SEEN_MAX 128u           /* keys that cannot be repeated; more than there are */

struct reading {
    const char *path;
    FILE *file;
    struct spb_options *options;
    unsigned line;              /* that is being parsed */
    const void *seen[SEEN_MAX]; /* rows whose key was given */
    unsigned seen_line[SEEN_MAX];
    size_t seen_count, bytes;
    bool failed;
    struct spb_error error; /* the first one */
};

static int complain(struct reading *reading, const char *what)
{
    if (!reading->failed) {
        reading->failed = true;
        (void)spb_fail(&reading->error, SPB_INVALID, "%s:%u: %s", reading->path, reading->line,
                       what);
    }
    return 0;
}

/* As fgets has it, for inih. */
static char *next_line(char *text, int size, void *user)
{
    struct reading *reading = user;
    int n = 0, c = EOF;

    reading->line++;
    while (n < size - 1 && (c = getc(reading->file)) != EOF) {
        if (c == '\0')
            (void)complain(reading, "found a NUL byte, expected text");
        text[n++] = (char)c;
        if (c == '\n')
            break;
    }
    reading->bytes += (size_t)n;
    if (n == size - 1 && c != '\n')
        (void)complain(reading, "the line is too long, expected fewer than 199 bytes");
    else if (reading->bytes > FILE_MAX)
        (void)complain(reading, "the file is too long, expected at most 1 MiB");
    text[n] = '\0';
    return n == 0 || reading->failed ? NULL : text;
}

/* Whether the row's key is new; notes it. */
static bool is_first(struct reading *reading, const void *row, unsigned *before)
{
    for (size_t i = 0; i < reading->seen_count; i++) {
        if (reading->seen[i] == row) {
            *before = reading->seen_line[i];
            return false;
        }
    }
    SPB_ASSERT(reading->seen_count < SEEN_MAX);
    reading->seen[reading->seen_count] = row;
    reading->seen_line[reading->seen_count++] = reading->line;
    return true;
}

static const struct spb_option_row *find_option(const char *section, const char *name,
                                                bool *section_is_known)
{
    size_t count;
    const struct spb_option_row *rows = spb_option_rows(&count);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].section, section) != 0)
            continue;
        *section_is_known = true;
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

static int complain_unknown(struct reading *reading, const char *section, const char *name,
                            bool section_is_known)
{
    char text[256];

    if (section_is_known)
        (void)snprintf(text, sizeof(text), "found the unknown key \"%.60s\" in [%.60s]", name,
                       section);
    else if (*section == '\0')
        (void)snprintf(text, sizeof(text),
                       "found the key \"%.60s\" before any section, expected [server] or [limits]",
                       name);
    else
        (void)snprintf(text, sizeof(text),
                       "found the unknown section [%.60s], expected [server] or [limits]", section);
    return complain(reading, text);
}

static int take_value(struct reading *reading, const char *name,
                      const struct spb_option_row *option, const struct spb_limit_row *limit,
                      const char *value)
{
    const void *row = option != NULL ? (const void *)option : limit;
    struct spb_error err;
    char text[SPB_ERROR_TEXT_SIZE];
    unsigned before = 0;

    if ((option == NULL || !option->repeats) && !is_first(reading, row, &before)) {
        (void)snprintf(text, sizeof(text), "%s is given again, the first time in line %u", name,
                       before);
        return complain(reading, text);
    }
    spb_status status = option != NULL
                            ? option->take(reading->options, value, &err)
                            : spb_limit_parse(&reading->options->limits, limit, value, &err);
    if (spb_is_ok(status))
        return 1;
    if (limit != NULL)
        return complain(reading, err.text); /* has the name already */
    (void)snprintf(text, sizeof(text), "%s: %.400s", name, err.text);
    return complain(reading, text);
}

/* inih takes comments off where a value begins, and not where it goes on. */
static bool has_comment(const char *value)
{
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == ';' && at > value && isspace((unsigned char)at[-1]))
            return true;
    }
    return false;
}

static int on_key(void *user, const char *section, const char *name, const char *value)
{
    struct reading *reading = user;
    bool section_is_known = strcmp(section, "limits") == 0;
    const struct spb_limit_row *limit = section_is_known ? spb_limit_find(name) : NULL;
    const struct spb_option_row *option = find_option(section, name, &section_is_known);

    if (reading->failed)
        return 0;
    if (*value == ';')
        return complain(reading, "found a comment, expected a value: a blank goes before the ;");
    if (has_comment(value))
        return complain(reading,
                        "found a comment behind a line that goes on, expected it in a line "
                        "of its own");
    if (limit == NULL && option == NULL)
        return complain_unknown(reading, section, name, section_is_known);
    return take_value(reading, name, option, limit, value);
}

spb_status spb_config_read_from(FILE *file, const char *path, struct spb_options *options,
                                struct spb_error *err)
{
    struct reading reading = {.path = path, .file = file, .options = options};
    int line;

    errno = 0;
    line = ini_parse_stream(next_line, &reading, on_key, &reading);
    if (reading.failed)
        return spb_fail(err, SPB_INVALID, "%s", reading.error.text);
    if (ferror(file))
        return spb_fail_errno(err, SPB_IO, errno, "reading the configuration %s", path);
    if (line != 0)
        return spb_fail(err, SPB_INVALID,
                        "%s:%d: expected a [section], NAME = VALUE, or a comment after # or ;",
                        path, line);
    return spb_ok();
}

spb_status spb_config_read(const char *path, struct spb_options *options, struct spb_error *err)
{
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return spb_fail_errno(err, SPB_INVALID, errno, "opening the configuration %s", path);
    spb_status status = spb_config_read_from(file, path, options, err);
    (void)fclose(file);
    return status;
}
