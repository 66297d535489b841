/*
 * Log lines: key=value on one descriptor, one write(2) a line. Texts are escaped, so that what
 * peers send can neither break a line nor forge a key. Any thread.
 *
 * Who reads the log may stop: a line that would wait for that is dropped, and the next one that
 * goes out is preceded by how many were.
 */
#ifndef SPB_SERVER_LOG_H
#define SPB_SERVER_LOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum spb_log_level { SPB_LOG_ERROR, SPB_LOG_WARN, SPB_LOG_INFO, SPB_LOG_DEBUG };

struct spb_log {
    enum spb_log_level level; /* lines above it are dropped; may change at any time */
    int fd;
    pthread_mutex_t *lock; /* of the daemon; NULL before there is more than one thread */
    uint64_t *dropped;     /* lines, under the lock; NULL where lock is */
};

struct spb_log_field {
    const char *key;  /* NULL ends the list */
    const char *text; /* NULL: number counts */
    int64_t number;
};

#define SPB_TEXT(k, t) ((struct spb_log_field){.key = (k), .text = (t)})
#define SPB_NUMBER(k, n) ((struct spb_log_field){.key = (k), .number = (int64_t)(n)})

/* spb_log(log, SPB_LOG_INFO, "listening", SPB_TEXT("at", endpoint)); at least one field. */
#define spb_log(log, level, event, ...)                                                            \
    spb_log_line((log), (level), (event),                                                          \
                 (const struct spb_log_field[]){__VA_ARGS__, {.key = (const char *)0}})

void spb_log_line(const struct spb_log *log, enum spb_log_level level, const char *event,
                  const struct spb_log_field *fields);

/* While others log. */
void spb_log_set_level(struct spb_log *log, enum spb_log_level level);

const char *spb_log_level_name(enum spb_log_level level);
/* "error", "warn", "info" or "debug"; false for another word. */
bool spb_log_level_parse(const char *word, enum spb_log_level *level);

#endif
