/*
 * A guest of a daemon: its calls, waiting for it, and how it is shown. What a daemon answers is
 * checked before it is used. One thread.
 */
#ifndef SPB_CLI_GUEST_GUEST_H
#define SPB_CLI_GUEST_GUEST_H

#include <jansson.h>
#include <spaceblock/v1/guests.pb-c.h>

#include "cli/daemon.h"

#define CLI_SERVICE_GUESTS "spaceblock.v1.Guests"
/* Starting takes as long as QEMU does, and the first time as the proof of KVM. */
#define CLI_GUEST_START_MS 180000
/* Longest wait of one call; what has no end makes one after the other. */
#define CLI_GUEST_WAIT_MS 25000u

struct cli_guest {
    struct cli *cli;          /* borrowed */
    struct cli_daemon daemon; /* owned */
    struct cli_image_ref name;
    Spaceblock__V1__GuestRef ref; /* of name */
};

/* The guest that the command's first word names. Returns an exit code; the failure has been
 * printed. */
int cli_guest_open(struct cli *cli, struct cli_guest *guest);
void cli_guest_cleanup(struct cli_guest *guest);
#define CLI_AUTO_GUEST __attribute__((cleanup(cli_guest_cleanup)))

/* ---- Calls --------------------------------------------------------------------------------- */

/* An answer that holds a guest. */
struct cli_guest_answer {
    ProtobufCMessage *reply;            /* owned */
    const Spaceblock__V1__Guest *guest; /* of reply; not NULL after success */
};
void cli_guest_answer_cleanup(struct cli_guest_answer *answer);
#define CLI_AUTO_ANSWER __attribute__((cleanup(cli_guest_answer_cleanup)))

/* A call of Guests whose answer's field 1 is a guest; what answer held before is freed on success.
 */
SPB_MUST_USE spb_status cli_guest_ask(struct cli_guest *guest, const struct cli_method *method,
                                      const ProtobufCMessage *request,
                                      struct cli_guest_answer *answer, struct spb_error *err);
SPB_MUST_USE spb_status cli_guest_get(struct cli_guest *guest, struct cli_guest_answer *answer,
                                      struct spb_error *err);
SPB_MUST_USE spb_status cli_guest_start(struct cli_guest *guest, struct cli_guest_answer *answer,
                                        struct spb_error *err);
/* timeout_ms 0: as configured. */
SPB_MUST_USE spb_status cli_guest_stop(struct cli_guest *guest, uint32_t timeout_ms,
                                       struct cli_guest_answer *answer, struct spb_error *err);
SPB_MUST_USE spb_status cli_guest_kill(struct cli_guest *guest, struct cli_guest_answer *answer,
                                       struct spb_error *err);
SPB_MUST_USE spb_status cli_guest_delete(struct cli_guest *guest, bool force,
                                         struct spb_error *err);

/* ---- Waiting ------------------------------------------------------------------------------- */

enum cli_guest_goal {
    CLI_GUEST_ENDED,
    CLI_GUEST_RUNNING,
    CLI_GUEST_ALIVE,
};

/* It ended, and nothing but a call starts it again. */
bool cli_guest_has_ended(const Spaceblock__V1__Guest *guest);
/* Until it is so, over lost connections and restarts of the daemon. A guest that ended instead is
 * SPB_CHANGED, with its reason; SPB_DEADLINE: out of time, or interrupted. */
SPB_MUST_USE spb_status cli_guest_wait(struct cli_guest *guest, enum cli_guest_goal goal,
                                       struct cli_guest_answer *answer, struct spb_error *err);
/* The exit code that tells how a guest ended. */
int cli_guest_exit(const Spaceblock__V1__Guest *guest);

/* ---- Showing (guest/show.c) ---------------------------------------------------------------- */

const char *cli_guest_state_name(Spaceblock__V1__GuestState state);
const char *cli_guest_accel_name(Spaceblock__V1__GuestAccel accel);
const char *cli_guest_restart_name(Spaceblock__V1__GuestRestart restart);
json_t *cli_guest_to_json(const Spaceblock__V1__Guest *guest);
/* One line, "guest NAME STATE: reason", or with --json the object. */
void cli_guest_tell(const struct cli *cli, const Spaceblock__V1__Guest *guest);
/* All of it, as lines. */
void cli_guest_print(const Spaceblock__V1__Guest *guest);

#endif
