/*
 * QMP, QEMU's monitor protocol (qemu.org, "QMP specification"), as a state machine without I/O:
 * bytes that arrived become callbacks, commands become bytes to send. Lines of JSON; the greeting
 * comes first, then capabilities are negotiated, then commands with an id run and events come.
 *
 * What a peer can do here: end the session. A line that is too long or no JSON object, an answer to
 * no command, a greeting that does not come first, or an unknown shape break it, once, with a
 * reason; every command that ran then ends with it. Bytes after that are ignored. Unknown members
 * and events are not errors. One session, one thread.
 */
#ifndef SPB_SUPERVISOR_MACHINE_QMP_H
#define SPB_SUPERVISOR_MACHINE_QMP_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_QMP_LINE_MAX (1u << 20) /* bytes; what QEMU sends is far below */
#define SPB_QMP_COMMANDS_MAX 32u    /* that run at once */

enum spb_qmp_state {
    SPB_QMP_GREETING,    /* nothing has come */
    SPB_QMP_NEGOTIATING, /* capabilities are asked for */
    SPB_QMP_READY,
    SPB_QMP_BROKEN,
};

/*
 * How a command ended. result is borrowed, NULL where it failed; then error says why ("CLASS:
 * TEXT", or why the session broke). Runs exactly once a command.
 */
typedef void (*spb_qmp_done)(void *user, const json_t *result, const struct spb_error *error);

struct spb_qmp_hooks {
    void (*ready)(void *user);
    /* data is borrowed; an empty object where the event has none. seconds: QEMU's clock. */
    void (*event)(void *user, const char *name, const json_t *data, double seconds);
    void (*broken)(void *user, const struct spb_error *why);
    void *user;
};

struct spb_qmp_command {
    uint64_t id; /* 0: the place is free */
    spb_qmp_done done;
    void *user;
};

struct spb_qmp {
    struct spb_qmp_hooks hooks;
    enum spb_qmp_state state;
    uint64_t next_id;
    struct spb_qmp_command commands[SPB_QMP_COMMANDS_MAX];
    char *line; /* owned: an unfinished one */
    size_t line_size, line_room;
    char *output; /* owned: to be sent */
    size_t output_size, output_room;
    struct spb_error why; /* of being broken */
};

/* hooks are copied; any may be NULL. */
void spb_qmp_init(struct spb_qmp *qmp, const struct spb_qmp_hooks *hooks);
/* Ends what runs (SPB_UNREACHABLE), then frees. Not from a callback. */
void spb_qmp_done_all(struct spb_qmp *qmp);

/* Bytes that arrived. Callbacks may execute commands, and may not feed or end the session. */
void spb_qmp_feed(struct spb_qmp *qmp, const void *bytes, size_t n);
/* The connection ended, or is given up: breaks the session if it is not broken. */
void spb_qmp_break(struct spb_qmp *qmp, const struct spb_error *why);

/*
 * Queues a command once ready. arguments (may be NULL) is borrowed. SPB_UNREACHABLE: broken, or not
 * ready yet; SPB_LIMIT: too many run. On failure the callback does not run.
 */
SPB_MUST_USE spb_status spb_qmp_execute(struct spb_qmp *qmp, const char *command, json_t *arguments,
                                        spb_qmp_done done, void *user, struct spb_error *err);

/* Bytes to be sent now, borrowed until the next call; and how many of them were. */
const char *spb_qmp_output(const struct spb_qmp *qmp, size_t *size);
void spb_qmp_sent(struct spb_qmp *qmp, size_t n);

#endif
