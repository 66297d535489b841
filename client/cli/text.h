/* Bytes as text that is safe on a terminal, and times. Results are the caller's, free(); NULL: no
 * memory. No state. */
#ifndef SPB_CLI_TEXT_H
#define SPB_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* UTF-8 without control characters of any kind, line ends and direction marks included? */
bool cli_text_is_printable(const void *data, size_t n);
/* As UTF-8: each maximal ill-formed part becomes one U+FFFD; *size excludes the final NUL. */
char *cli_text_utf8(const void *data, size_t n, size_t *size);
/* As the above, control characters as \xNN and \u{NNNN}. */
char *cli_text_safe(const void *data, size_t n);
/* prefix and two hex digits a byte. */
char *cli_text_hex(const char *prefix, const void *data, size_t n);
/* The text itself, or "hex:" and hex digits where it is not printable or could be mistaken. */
char *cli_text_value(const void *data, size_t n);

#define CLI_TIME_SIZE 32u
/* 2026-01-02T03:04:05Z; beyond the year 9999 "@" and UNIX seconds. */
void cli_text_time(uint64_t unix_s, char out[CLI_TIME_SIZE]);

/* The time of an event, so many seconds after its image's epoch. */
void cli_text_event_time(uint64_t epoch, uint32_t timestamp, char out[CLI_TIME_SIZE]);

#define CLI_UUID_TEXT_SIZE 37u
void cli_text_uuid(const uint8_t uuid[16], char out[CLI_UUID_TEXT_SIZE]);

/* "INFO"; of a severity without name its number. */
#define CLI_SEVERITY_SIZE 12u
void cli_text_severity(uint8_t severity, char out[CLI_SEVERITY_SIZE]);

#endif
