/*
 * Fuzzes the client side of QMP. The first byte chooses how the rest, which is what QEMU sends, is
 * cut in pieces. Commands are started whenever that is possible. Whatever comes, each command ends
 * once, the session breaks at most once, and cut in pieces it gives the same as whole.
 */
#include <stdint.h>
#include <string.h>

#include "base/status.h"
#include "supervisor/machine/ending.h"
#include "supervisor/machine/qmp.h"

#define COMMANDS_MAX 64u

struct session {
    struct spb_qmp qmp;
    unsigned started, ended, ready, broken, events;
    enum spb_ending ending;
};

static void on_done(void *user, const json_t *result, const struct spb_error *error)
{
    struct session *session = user;

    SPB_ASSERT((result == NULL) != (error == NULL));
    session->ended++;
}

static void start_one(struct session *session)
{
    if (session->started < COMMANDS_MAX &&
        spb_is_ok(spb_qmp_execute(&session->qmp, "query-status", NULL, on_done, session, NULL)))
        session->started++;
}

static void on_ready(void *user)
{
    struct session *session = user;

    session->ready++;
    start_one(session);
}

static void on_event(void *user, const char *name, const json_t *data, double seconds)
{
    struct session *session = user;

    (void)seconds;
    session->events++;
    spb_ending_take_event(&session->ending, name, data);
    start_one(session);
}

static void on_broken(void *user, const struct spb_error *why)
{
    struct session *session = user;

    SPB_ASSERT(why->code != SPB_OK && why->text[0] != '\0');
    session->broken++;
}

static void run(struct session *session, const uint8_t *data, size_t size, size_t piece)
{
    struct spb_qmp_hooks hooks = {
        .ready = on_ready, .event = on_event, .broken = on_broken, .user = session};

    memset(session, 0, sizeof(*session));
    spb_qmp_init(&session->qmp, &hooks);
    for (size_t at = 0; at < size; at += piece)
        spb_qmp_feed(&session->qmp, data + at, size - at < piece ? size - at : piece);
    spb_qmp_done_all(&session->qmp);
    SPB_ASSERT(session->started == session->ended);
    SPB_ASSERT(session->ready <= 1 && session->broken <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct session whole, cut;

    if (size < 2)
        return 0;
    run(&whole, data + 1, size - 1, size);
    run(&cut, data + 1, size - 1, (size_t)data[0] % 37 + 1);
    SPB_ASSERT(whole.started == cut.started && whole.events == cut.events);
    SPB_ASSERT(whole.broken == cut.broken && whole.ending == cut.ending);
    return 0;
}
