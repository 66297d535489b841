/* Errors, notes and JSON of one run; see output.h. One thread. */
#include "cli/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/text.h"

#define WORD_SHOWN_MAX 64 /* bytes; a word may be a value */

static _Noreturn void out_of_memory(void)
{
    (void)fprintf(stderr, "spaceblock: out of memory while preparing the output\n");
    exit(CLI_EXIT_FAILED);
}

json_t *cli_json_object(void)
{
    json_t *object = json_object();

    if (object == NULL)
        out_of_memory();
    return object;
}

json_t *cli_json_array(void)
{
    json_t *array = json_array();

    if (array == NULL)
        out_of_memory();
    return array;
}

void cli_json_set(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        out_of_memory();
}

void cli_json_append(json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        out_of_memory();
}

void cli_json_set_number(json_t *object, const char *key, uint64_t value)
{
    char digits[24];

    if (value <= INT64_MAX) {
        cli_json_set(object, key, json_integer((json_int_t)value));
        return;
    }
    (void)snprintf(digits, sizeof(digits), "%" PRIu64, value);
    cli_json_set(object, key, json_string(digits));
}

void cli_json_set_bool(json_t *object, const char *key, bool value)
{
    cli_json_set(object, key, json_boolean(value));
}

void cli_json_set_text(json_t *object, const char *key, const void *data, size_t n)
{
    size_t size;
    char *clean = cli_text_utf8(data, n, &size);

    if (clean == NULL)
        out_of_memory();
    cli_json_set(object, key, json_stringn(clean, size));
    free(clean);
}

void cli_json_set_string(json_t *object, const char *key, const char *text)
{
    cli_json_set_text(object, key, text, strlen(text));
}

void cli_json_set_hex(json_t *object, const char *key, const void *data, size_t n)
{
    char *hex = cli_text_hex("", data, n);

    if (hex == NULL)
        out_of_memory();
    cli_json_set(object, key, json_string(hex));
    free(hex);
}

void cli_json_set_crc(json_t *object, const char *key, uint32_t crc)
{
    char hex[9];

    (void)snprintf(hex, sizeof(hex), "%08" PRIx32, crc);
    cli_json_set(object, key, json_string(hex));
}

void cli_json_set_value(json_t *object, const char *key, const void *data, size_t n)
{
    bool printable = cli_text_is_printable(data, n);
    char hex_key[32];

    (void)snprintf(hex_key, sizeof(hex_key), "%s_hex", key);
    if (printable)
        cli_json_set_text(object, key, data, n);
    cli_json_set_hex(object, hex_key, data, n);
    cli_json_set_string(object, "encoding", printable ? "text" : "hex");
}

/* DEL is the one control character that jansson leaves as it is; it only occurs in strings. */
static int write_json(const char *bytes, size_t n, void *user)
{
    FILE *out = user;

    for (size_t i = 0; i < n;) {
        const char *stop = memchr(bytes + i, 0x7f, n - i);
        size_t run = stop == NULL ? n - i : (size_t)(stop - (bytes + i));
        if (fwrite(bytes + i, 1, run, out) != run)
            return -1;
        i += run;
        if (stop != NULL) {
            if (fputs("\\u007f", out) < 0)
                return -1;
            i++;
        }
    }
    return 0;
}

/* A failed write stays set in the stream and is reported when the output is finished. */
static void dump_json(json_t *object, size_t flags, FILE *out)
{
    if (json_dump_callback(object, write_json, out, flags | JSON_ENSURE_ASCII) != 0 &&
        ferror(out) == 0)
        out_of_memory();
    (void)fputc('\n', out);
    json_decref(object);
}

void cli_json_print(json_t *object)
{
    dump_json(object, JSON_INDENT(1), stdout);
}

void cli_json_print_line(json_t *object)
{
    dump_json(object, JSON_COMPACT, stdout);
}

char *cli_json_line(json_t *object, size_t *size)
{
    char *line = NULL;
    FILE *out = open_memstream(&line, size);

    if (out == NULL)
        out_of_memory();
    dump_json(object, JSON_COMPACT, out);
    if (fclose(out) != 0)
        out_of_memory();
    return line;
}

/* ---- Errors and notes ---------------------------------------------------------------------- */

static int exit_code(enum spb_code code)
{
    switch (code) {
    case SPB_OK:
        return CLI_EXIT_OK;
    case SPB_UNREACHABLE:
        return CLI_EXIT_UNREACHABLE;
    case SPB_NOT_FOUND:
        return CLI_EXIT_NOT_FOUND;
    case SPB_CORRUPT:
    case SPB_BAD_MAGIC:
    case SPB_BAD_CRC:
    case SPB_BAD_VERSION:
    case SPB_BAD_DP_AREA:
    case SPB_BAD_SIZE:
        return CLI_EXIT_CORRUPT;
    default:
        return CLI_EXIT_FAILED;
    }
}

/* kind: "error", "warning" or "note"; code may be NULL. */
static void say(const struct cli *cli, const char *kind, const char *code, const char *text)
{
    /* What was printed so far comes first where both streams go to one place. */
    (void)fflush(stdout);
    if (!cli_is_json(cli)) {
        char *safe = cli_text_safe(text, strlen(text));
        (void)fprintf(stderr, "spaceblock: %s%s%s\n", strcmp(kind, "error") == 0 ? "" : kind,
                      strcmp(kind, "error") == 0 ? "" : ": ",
                      safe == NULL ? "out of memory" : safe);
        free(safe);
        return;
    }
    json_t *root = cli_json_object(), *inner = cli_json_object();
    if (code != NULL)
        cli_json_set_string(inner, "code", code);
    cli_json_set_string(inner, "message", text);
    if (code != NULL && cli->failure.rpc_code > 0) {
        cli_json_set_string(inner, "reason", cli->failure.reason);
        cli_json_set_number(inner, "rpc_code", (uint64_t)cli->failure.rpc_code);
    }
    if (code != NULL && cli->failure.is_unknown)
        cli_json_set_string(inner, "outcome", "unknown");
    cli_json_set(root, kind, inner);
    dump_json(root, JSON_COMPACT, stderr);
}

/* The image that the command is about; NULL: none, or several. */
static const char *image_of(const struct cli *cli)
{
    return cli->command->subject == CLI_ON_NAMED_IMAGE ? cli->words[0]
                                                       : cli_text_of(cli, CLI_OPT_IMAGE);
}

/* "param put 1, image probe: " */
static void name_run(const struct cli *cli, char *out, size_t size)
{
    const char *word = cli->word_count == 0 ? NULL : cli->words[0];
    const char *image = cli_text_of(cli, CLI_OPT_IMAGE);
    char name[CLI_NAME_SIZE];

    cli_command_name(cli->command, name);
    (void)snprintf(out, size, "%s%s%.*s%s%s: ", name, word == NULL ? "" : " ", WORD_SHOWN_MAX,
                   word == NULL ? "" : word, image == NULL ? "" : ", image ",
                   image == NULL ? "" : image);
}

/* A call that was not answered ends with its own name at most: so the command's is told. */
static void say_unanswered(const struct cli *cli, const struct spb_error *err)
{
    const char *image = image_of(cli);
    char run[256], text[1024];

    name_run(cli, run, sizeof(run));
    if (cli->failure.is_unknown)
        (void)snprintf(text, sizeof(text),
                       "%s%s; it is not known whether this was done: \"spaceblock audit list%s%s\" "
                       "tells, and the same command may be given again, as a change of its own",
                       run, err->text, image == NULL ? "" : " --image ",
                       image == NULL ? "" : image);
    else
        (void)snprintf(text, sizeof(text), "%s%s", run, err->text);
    say(cli, "error", spb_code_name(err->code), text);
}

int cli_fail(const struct cli *cli, const struct spb_error *err)
{
    if (cli->failure.is_unanswered || cli->failure.is_unknown)
        say_unanswered(cli, err);
    else
        say(cli, "error", spb_code_name(err->code), err->text);
    return exit_code(err->code);
}

int cli_usage(const struct cli *cli, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    say(cli, "error", "usage", text);
    return CLI_EXIT_USAGE;
}

void cli_note(const struct cli *cli, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    say(cli, "note", NULL, text);
}

int cli_finish_output(const struct cli *cli, int code)
{
    bool failed = ferror(stdout) != 0;
    int number = 0;

    errno = 0;
    if (fflush(stdout) != 0) {
        failed = true;
        number = errno;
    }
    if (fclose(stdout) != 0) {
        failed = true;
        number = number == 0 ? errno : number;
    }
    /* A command that failed has said so, and most likely of the same. */
    if (!failed || (code != CLI_EXIT_OK && code != CLI_EXIT_CORRUPT))
        return code;
    struct spb_error err;
    spb_status status =
        number != 0 ? spb_fail_errno(&err, SPB_IO, number, "writing the result to standard output")
                    : spb_fail(&err, SPB_IO, "writing the result to standard output failed");
    err.code = status.code;
    /* stdout is gone: say() must not flush it. */
    stdout = NULL;
    int failure = cli_fail(cli, &err);
    return code == CLI_EXIT_OK ? failure : code;
}
