/*
 * What a run prints: results on standard output as text or one JSON object; errors, warnings and
 * notes on standard error, with --json as JSON objects, one a line. Whatever comes from an image, a
 * peer or the arguments passes text.h first, so that no control character reaches a terminal.
 *
 * Builders of JSON end the process with exit code 1 where memory runs out: all changes are done by
 * then. One thread.
 */
#ifndef SPB_CLI_OUTPUT_H
#define SPB_CLI_OUTPUT_H

#include <jansson.h>

#include "cli/cli.h"

/* ---- Errors and notes ---------------------------------------------------------------------- */

/* Prints the error and returns the exit code of its status. */
int cli_fail(const struct cli *cli, const struct spb_error *err);
/* A usage error; returns CLI_EXIT_USAGE. */
int cli_usage(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Something that the user should know, with the result all the same. */
void cli_note(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Flushes and closes standard output; turns success into failure where it did not all arrive. */
int cli_finish_output(const struct cli *cli, int code);

/* ---- JSON ---------------------------------------------------------------------------------- */

json_t *cli_json_object(void);
json_t *cli_json_array(void);
/* Hands value over to the object or array. */
void cli_json_set(json_t *object, const char *key, json_t *value);
void cli_json_append(json_t *array, json_t *value);
/* Numbers above 2^63-1, which JSON readers lose, become strings of digits. */
void cli_json_set_number(json_t *object, const char *key, uint64_t value);
void cli_json_set_bool(json_t *object, const char *key, bool value);
/* Bytes that are not UTF-8 become U+FFFD, one for each maximal ill-formed part. */
void cli_json_set_text(json_t *object, const char *key, const void *data, size_t n);
void cli_json_set_string(json_t *object, const char *key, const char *text);
void cli_json_set_hex(json_t *object, const char *key, const void *data, size_t n);
void cli_json_set_crc(json_t *object, const char *key, uint32_t crc);
/* "value" where it is printable text, "value_hex" always, and "encoding": "text" or "hex"; the keys
 * begin with `key`. */
void cli_json_set_value(json_t *object, const char *key, const void *data, size_t n);

/* Prints the object on standard output and drops it. */
void cli_json_print(json_t *object);
/* The same, on one line. */
void cli_json_print_line(json_t *object);
/* The object as such a line, *size bytes, and drops it. The caller's, free(). */
char *cli_json_line(json_t *object, size_t *size);

#endif
