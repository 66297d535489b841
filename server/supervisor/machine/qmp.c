/* QMP as a state machine without I/O; see qmp.h. */
#include "supervisor/machine/qmp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define ROOM_MIN 4096u
#define SHOWN_MAX 80 /* bytes of a bad line in an error's text */

void spb_qmp_init(struct spb_qmp *qmp, const struct spb_qmp_hooks *hooks)
{
    *qmp = (struct spb_qmp){.hooks = *hooks, .next_id = 1};
}

void spb_qmp_done_all(struct spb_qmp *qmp)
{
    struct spb_error why;

    (void)spb_fail(&why, SPB_UNREACHABLE, "QMP: the session was ended on this side");
    qmp->hooks.broken = NULL;
    spb_qmp_break(qmp, &why);
    free(qmp->line);
    free(qmp->output);
    qmp->line = NULL;
    qmp->output = NULL;
}

/* Room for n more bytes behind size. */
static bool make_room(char **bytes, size_t size, size_t *room, size_t n)
{
    size_t wanted = *room == 0 ? ROOM_MIN : *room;

    while (wanted - size < n)
        wanted *= 2;
    if (wanted == *room)
        return true;
    char *more = realloc(*bytes, wanted);
    if (more == NULL)
        return false;
    *bytes = more;
    *room = wanted;
    return true;
}

/* ---- Breaking ----------------------------------------------------------------------------- */

void spb_qmp_break(struct spb_qmp *qmp, const struct spb_error *why)
{
    if (qmp->state == SPB_QMP_BROKEN)
        return;
    qmp->state = SPB_QMP_BROKEN;
    qmp->why = *why;
    qmp->output_size = 0;
    for (size_t i = 0; i < SPB_QMP_COMMANDS_MAX; i++) {
        struct spb_qmp_command command = qmp->commands[i];

        qmp->commands[i].id = 0;
        if (command.id != 0)
            command.done(command.user, NULL, &qmp->why);
    }
    if (qmp->hooks.broken != NULL)
        qmp->hooks.broken(qmp->hooks.user, &qmp->why);
}

/* The peer broke the protocol; the line (may be NULL) is shown. */
static void broken_by(struct spb_qmp *qmp, const char *what, const char *line, size_t n)
{
    struct spb_error why;
    char shown[SHOWN_MAX + 1];
    size_t kept = n < SHOWN_MAX ? n : SHOWN_MAX;

    for (size_t i = 0; i < kept; i++)
        shown[i] = line[i] >= 0x20 && line[i] < 0x7f ? line[i] : '.';
    shown[kept] = '\0';
    (void)spb_fail(&why, SPB_PROTOCOL, "QMP: %s: found \"%s\"%s", what, shown,
                   n > SHOWN_MAX ? "..." : "");
    spb_qmp_break(qmp, &why);
}

/* ---- Commands ----------------------------------------------------------------------------- */

static spb_status queue_line(struct spb_qmp *qmp, const json_t *message, struct spb_error *err)
{
    size_t n = json_dumpb(message, NULL, 0, JSON_COMPACT);

    if (n == 0 || !make_room(&qmp->output, qmp->output_size, &qmp->output_room, n + 1))
        return spb_fail_memory(err, "sending a QMP command");
    (void)json_dumpb(message, qmp->output + qmp->output_size, n, JSON_COMPACT);
    qmp->output_size += n;
    qmp->output[qmp->output_size++] = '\n';
    return spb_ok();
}

static struct spb_qmp_command *free_place(struct spb_qmp *qmp)
{
    for (size_t i = 0; i < SPB_QMP_COMMANDS_MAX; i++) {
        if (qmp->commands[i].id == 0)
            return &qmp->commands[i];
    }
    return NULL;
}

static spb_status start(struct spb_qmp *qmp, const char *name, json_t *arguments, spb_qmp_done done,
                        void *user, struct spb_error *err)
{
    struct spb_qmp_command *place = free_place(qmp);

    if (place == NULL)
        return spb_fail(err, SPB_LIMIT, "QMP: %s: %u commands run, at most so many are started",
                        name, SPB_QMP_COMMANDS_MAX);
    json_t *message = json_pack("{s:s, s:I, s:o*}", "execute", name, "id", (json_int_t)qmp->next_id,
                                "arguments", json_incref(arguments));
    if (message == NULL)
        return spb_fail_memory(err, "sending a QMP command");
    spb_status status = queue_line(qmp, message, err);
    json_decref(message);
    if (spb_is_ok(status))
        *place = (struct spb_qmp_command){.id = qmp->next_id++, .done = done, .user = user};
    return status;
}

spb_status spb_qmp_execute(struct spb_qmp *qmp, const char *command, json_t *arguments,
                           spb_qmp_done done, void *user, struct spb_error *err)
{
    SPB_ASSERT(done != NULL);
    if (qmp->state == SPB_QMP_BROKEN) {
        if (err != NULL)
            *err = qmp->why;
        return (spb_status){qmp->why.code};
    }
    if (qmp->state != SPB_QMP_READY)
        return spb_fail(err, SPB_UNREACHABLE, "QMP: %s: the session is not ready yet", command);
    return start(qmp, command, arguments, done, user, err);
}

/* ---- Messages ----------------------------------------------------------------------------- */

static void on_capabilities(void *user, const json_t *result, const struct spb_error *error)
{
    struct spb_qmp *qmp = user;

    if (result == NULL) {
        if (qmp->state != SPB_QMP_BROKEN)
            spb_qmp_break(qmp, error);
        return;
    }
    qmp->state = SPB_QMP_READY;
    if (qmp->hooks.ready != NULL)
        qmp->hooks.ready(qmp->hooks.user);
}

static void take_greeting(struct spb_qmp *qmp)
{
    struct spb_error err;

    qmp->state = SPB_QMP_NEGOTIATING;
    if (!spb_is_ok(start(qmp, "qmp_capabilities", NULL, on_capabilities, qmp, &err)))
        spb_qmp_break(qmp, &err);
}

static void take_event(struct spb_qmp *qmp, const json_t *message, const char *name)
{
    const json_t *data = json_object_get(message, "data");
    const json_t *stamp = json_object_get(message, "timestamp");
    double seconds = json_number_value(json_object_get(stamp, "seconds")) +
                     json_number_value(json_object_get(stamp, "microseconds")) / 1e6;
    json_t *none = NULL;

    if (!json_is_object(data))
        data = none = json_object();
    if (qmp->hooks.event != NULL && data != NULL)
        qmp->hooks.event(qmp->hooks.user, name, data, seconds);
    json_decref(none);
}

static struct spb_qmp_command *find_command(struct spb_qmp *qmp, const json_t *id)
{
    for (size_t i = 0; i < SPB_QMP_COMMANDS_MAX; i++) {
        if (qmp->commands[i].id != 0 && json_is_integer(id) &&
            (uint64_t)json_integer_value(id) == qmp->commands[i].id)
            return &qmp->commands[i];
    }
    return NULL;
}

/* An answer to a command that runs; false where it is none. */
static bool take_answer(struct spb_qmp *qmp, const json_t *message)
{
    const json_t *result = json_object_get(message, "return");
    const json_t *error = json_object_get(message, "error");
    struct spb_qmp_command *place = find_command(qmp, json_object_get(message, "id"));
    struct spb_error err;

    if (place == NULL || (result == NULL && !json_is_object(error)))
        return false;
    struct spb_qmp_command command = *place;
    place->id = 0;
    if (result != NULL) {
        command.done(command.user, result, NULL);
        return true;
    }
    const char *class = json_string_value(json_object_get(error, "class"));
    const char *text = json_string_value(json_object_get(error, "desc"));
    (void)spb_fail(&err, SPB_REMOTE, "QEMU refused: %s: %s", class == NULL ? "no class" : class,
                   text == NULL ? "no text" : text);
    command.done(command.user, NULL, &err);
    return true;
}

static void take_message(struct spb_qmp *qmp, const json_t *message, const char *line, size_t n)
{
    const char *event = json_string_value(json_object_get(message, "event"));
    bool greets = json_is_object(json_object_get(message, "QMP"));

    if (qmp->state == SPB_QMP_GREETING) {
        if (greets)
            take_greeting(qmp);
        else
            broken_by(qmp, "expected the greeting first", line, n);
    } else if (event != NULL) {
        take_event(qmp, message, event);
    } else if (greets || !take_answer(qmp, message)) {
        broken_by(qmp, "expected an event, or the answer to a command that runs", line, n);
    }
}

static void take_line(struct spb_qmp *qmp, const char *line, size_t n)
{
    json_error_t failure;

    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' '))
        n--;
    if (n == 0)
        return;
    json_t *message = json_loadb(line, n, 0, &failure);
    if (json_is_object(message))
        take_message(qmp, message, line, n);
    else
        broken_by(qmp, "expected a JSON object a line", line, n);
    json_decref(message);
}

/* ---- Bytes -------------------------------------------------------------------------------- */

static bool keep(struct spb_qmp *qmp, const char *bytes, size_t n)
{
    if (n > SPB_QMP_LINE_MAX - qmp->line_size) {
        broken_by(qmp, "a line of more than 1 MiB", qmp->line, qmp->line_size);
        return false;
    }
    if (!make_room(&qmp->line, qmp->line_size, &qmp->line_room, n)) {
        struct spb_error err;

        (void)spb_fail_memory(&err, "receiving from QMP");
        spb_qmp_break(qmp, &err);
        return false;
    }
    memcpy(qmp->line + qmp->line_size, bytes, n);
    qmp->line_size += n;
    return true;
}

void spb_qmp_feed(struct spb_qmp *qmp, const void *bytes, size_t n)
{
    const char *at = bytes, *end = at + n;

    while (at < end && qmp->state != SPB_QMP_BROKEN) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t piece = (size_t)((newline == NULL ? end : newline) - at);

        if (!keep(qmp, at, piece) || newline == NULL)
            return;
        size_t size = qmp->line_size;
        qmp->line_size = 0;
        take_line(qmp, qmp->line, size);
        at = newline + 1;
    }
}

const char *spb_qmp_output(const struct spb_qmp *qmp, size_t *size)
{
    *size = qmp->output_size;
    return qmp->output;
}

void spb_qmp_sent(struct spb_qmp *qmp, size_t n)
{
    SPB_ASSERT(n <= qmp->output_size);
    qmp->output_size -= n;
    if (qmp->output_size > 0)
        memmove(qmp->output, qmp->output + n, qmp->output_size);
}
