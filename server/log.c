/* Log lines; see log.h. Built in a buffer on the stack, cut where too long. Any thread. */
#include "log.h"

#include <stdio.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 2048u

static const char *const level_words[] = {
    [SPB_LOG_ERROR] = "error",
    [SPB_LOG_WARN] = "warn",
    [SPB_LOG_INFO] = "info",
    [SPB_LOG_DEBUG] = "debug",
};

struct line {
    char bytes[LINE_SIZE];
    size_t used; /* at most LINE_SIZE - 1: the last byte is the newline's */
};

static void add(struct line *line, const char *text, size_t n)
{
    size_t room = LINE_SIZE - 1 - line->used;

    if (n > room)
        n = room;
    memcpy(line->bytes + line->used, text, n);
    line->used += n;
}

static void add_string(struct line *line, const char *text)
{
    add(line, text, strlen(text));
}

static bool is_plain(const char *text)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text > '~' || *text == '"' || *text == '=' || *text == '\\')
            return false;
    }
    return true;
}

static void add_escaped(struct line *line, const char *text)
{
    add(line, "\"", 1);
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        char escape[5];

        if (byte == '"' || byte == '\\') {
            (void)snprintf(escape, sizeof(escape), "\\%c", byte);
            add_string(line, escape);
        } else if (byte < ' ' || byte == 0x7f) {
            (void)snprintf(escape, sizeof(escape), "\\x%02x", byte);
            add_string(line, escape);
        } else {
            add(line, text, 1); /* UTF-8 passes as it is */
        }
    }
    add(line, "\"", 1);
}

static void add_time(struct line *line)
{
    struct timespec now;
    struct tm parts;
    char text[40];

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &parts);
    size_t used = strftime(text, sizeof(text), "time=%Y-%m-%dT%H:%M:%S", &parts);
    (void)snprintf(text + used, sizeof(text) - used, ".%03dZ", (int)(now.tv_nsec / 1000000));
    add_string(line, text);
}

static void add_field(struct line *line, const struct spb_log_field *field)
{
    char number[24];

    add(line, " ", 1);
    add_string(line, field->key);
    add(line, "=", 1);
    if (field->text == NULL) {
        (void)snprintf(number, sizeof(number), "%lld", (long long)field->number);
        add_string(line, number);
    } else if (is_plain(field->text)) {
        add_string(line, field->text);
    } else {
        add_escaped(line, field->text);
    }
}

/*
 * Has the descriptor room for a line? A pipe or socket says so from a page on, and a line is never
 * longer; the lock keeps another thread from taking the room in between.
 */
static bool has_room(const struct spb_log *log)
{
    struct pollfd poll_fd = {.fd = log->fd, .events = POLLOUT};

    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLOUT) != 0;
}

/* A log that cannot be written has nobody left to be told. */
static void put(const struct spb_log *log, const struct line *line)
{
    char words[64];

    if (!has_room(log)) {
        if (log->dropped != NULL)
            (*log->dropped)++;
        return;
    }
    if (log->dropped != NULL && *log->dropped > 0) {
        int n = snprintf(words, sizeof(words), "level=warn event=log-lines-dropped count=%llu\n",
                         (unsigned long long)*log->dropped);
        ssize_t told = write(log->fd, words, (size_t)n);
        *log->dropped = told > 0 ? 0 : *log->dropped;
        if (!has_room(log)) {
            (*log->dropped)++;
            return;
        }
    }
    ssize_t ignored = write(log->fd, line->bytes, line->used + 1);
    (void)ignored;
}

void spb_log_line(const struct spb_log *log, enum spb_log_level level, const char *event,
                  const struct spb_log_field *fields)
{
    struct line line = {.used = 0};

    if (level > __atomic_load_n(&log->level, __ATOMIC_RELAXED))
        return;
    add_time(&line);
    add_string(&line, " level=");
    add_string(&line, level_words[level]);
    add_string(&line, " event=");
    add_string(&line, event);
    for (; fields->key != NULL; fields++)
        add_field(&line, fields);
    line.bytes[line.used] = '\n';
    if (log->lock != NULL)
        (void)pthread_mutex_lock(log->lock);
    put(log, &line);
    if (log->lock != NULL)
        (void)pthread_mutex_unlock(log->lock);
}

void spb_log_set_level(struct spb_log *log, enum spb_log_level level)
{
    __atomic_store_n(&log->level, level, __ATOMIC_RELAXED);
}

const char *spb_log_level_name(enum spb_log_level level)
{
    return level_words[level];
}

bool spb_log_level_parse(const char *word, enum spb_log_level *level)
{
    for (size_t i = 0; i < sizeof(level_words) / sizeof(level_words[0]); i++) {
        if (strcmp(word, level_words[i]) == 0) {
            *level = (enum spb_log_level)i;
            return true;
        }
    }
    return false;
}
