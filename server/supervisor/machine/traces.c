/* QEMU's trace events on its stderr; see traces.h. */
#include "supervisor/machine/traces.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The two lines of an end come together: before a new state that far from where the words are cut
 * nothing is missing. */
#define CUT_BYTES 1024u
#define LINE_SIZE 160u

/* Without the patterns' ends. */
static const char request[] = "qemu_system_shutdown_request ";
static const char state[] = "runstate_set ";

/* Some releases write "PID@SECONDS.MICROSECONDS:" first. */
static size_t stamp_size(const char *line, size_t size)
{
    size_t digits = 0, i = 0;

    for (; i < size && strchr("0123456789@.", line[i]) != NULL && line[i] != '\0'; i++)
        digits += line[i] != '@' && line[i] != '.';
    return digits > 0 && i < size && line[i] == ':' ? i + 1 : 0;
}

static bool begins(const char *line, size_t size, const char *with)
{
    return size >= strlen(with) && memcmp(line, with, strlen(with)) == 0;
}

static bool is_trace(const char *line, size_t size)
{
    size_t stamp = stamp_size(line, size);

    return begins(line + stamp, size - stamp, request) || begins(line + stamp, size - stamp, state);
}

/* With its end, where it has one. */
static size_t line_size(const char *at, size_t left)
{
    const char *end = memchr(at, '\n', left);

    return end == NULL ? left : (size_t)(end - at) + 1;
}

/* enum ShutdownCause of QEMU, the same in 4.0 to 9.2. */
static enum spb_ending ending_of_cause(const char *line)
{
    static const enum spb_ending causes[] = {
        SPB_ENDING_NONE,     SPB_ENDING_CRASHED, SPB_ENDING_STOPPED,
        SPB_ENDING_STOPPED,  SPB_ENDING_STOPPED, SPB_ENDING_STOPPED,
        SPB_ENDING_POWEROFF, SPB_ENDING_REBOOT,  SPB_ENDING_PANIC,
    };
    const char *cause = strstr(line, "reason=");
    unsigned long number = cause == NULL ? 0 : strtoul(cause + strlen("reason="), NULL, 10);

    return number < sizeof(causes) / sizeof(causes[0]) ? causes[number] : SPB_ENDING_NONE;
}

enum spb_ending spb_traces_ending(const char *words, size_t size, bool is_cut)
{
    enum spb_ending asked = SPB_ENDING_NONE;
    bool was_asked = false;

    for (size_t at = 0, n; at < size; at += n) {
        char line[LINE_SIZE];

        n = line_size(words + at, size - at);
        if (!is_trace(words + at, n) || n >= sizeof(line))
            continue;
        memcpy(line, words + at, n);
        line[n] = '\0';
        const char *text = line + stamp_size(line, n);
        if (begins(text, strlen(text), request)) {
            asked = was_asked ? asked : ending_of_cause(text);
            was_asked = true;
        } else if (strstr(text, "(shutdown)\n") != NULL) {
            bool all_is_there = !is_cut || at >= CUT_BYTES;

            return was_asked || !all_is_there ? asked : SPB_ENDING_REBOOT;
        }
    }
    return asked;
}

size_t spb_traces_drop(char *words, size_t size)
{
    size_t kept = 0;

    for (size_t at = 0, n; at < size; at += n) {
        n = line_size(words + at, size - at);
        if (is_trace(words + at, n))
            continue;
        memmove(words + kept, words + at, n);
        kept += n;
    }
    return kept;
}
