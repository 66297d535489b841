/*
 * Guests: create, start, stop, kill and delete. Each is recorded as an act (acts.h) on a worker
 * before the supervisor hears of it. A call that waits, for a guest to run or to end, is the
 * supervisor's meanwhile, with its intent open.
 */
#include <stdio.h>
#include <stdlib.h>

#include "acts.h"
#include "base/status.h"
#include "daemon.h"
#include "dispatch.h"
#include "services/guest_calls.h"
#include "services/services.h"
#include "supervisor/console/log.h"
#include "supervisor/drive.h"
#include "supervisor/guests.h"
#include "supervisor/thread.h"
#include "supervisor/work.h"
#include "uuid.h"

#define TEXT_SIZE 128u
#define STOP_MS_MAX 3600000u

/* ---- Common ------------------------------------------------------------------------------- */

/* Runs on a worker, where the guest is. */
static void run_for(struct spb_call *call, const PB_GuestRef *ref, void (*run)(struct spb_task *t))
{
    if (spb_find_guest(call, ref))
        spb_call_to_workers(call, run);
    else
        spb_call_send(call);
}

/* On the supervisor's thread; false, with the error set: it is ending. */
static bool ask_supervisor(struct spb_call *call, void (*run)(void *user), void *user)
{
    if (spb_supervisor_do(call->daemon->guests->supervisor, run, user))
        return true;
    spb_call_set_fault(call, PB_REASON(DRAINING), "the server is shutting down");
    return false;
}

/* The guest as it is, as the answer of the call's method. */
static bool set_shown(struct spb_call *call)
{
    union {
        ProtobufCMessage base;
        PB_CreateGuestResponse create;
        PB_StartGuestResponse start;
        PB_StopGuestResponse stop;
        PB_KillGuestResponse kill;
    } reply;
    PB_Guest *shown = spb_guest_show(call->guest, call);
    const char *method = call->method->name;

    if (shown == NULL)
        return false;
    if (strcmp(method, "Create") == 0) {
        reply.create = (PB_CreateGuestResponse)SPACEBLOCK__V1__CREATE_GUEST_RESPONSE__INIT;
        reply.create.guest = shown;
    } else if (strcmp(method, "Start") == 0) {
        reply.start = (PB_StartGuestResponse)SPACEBLOCK__V1__START_GUEST_RESPONSE__INIT;
        reply.start.guest = shown;
    } else if (strcmp(method, "Stop") == 0) {
        reply.stop = (PB_StopGuestResponse)SPACEBLOCK__V1__STOP_GUEST_RESPONSE__INIT;
        reply.stop.guest = shown;
    } else {
        reply.kill = (PB_KillGuestResponse)SPACEBLOCK__V1__KILL_GUEST_RESPONSE__INIT;
        reply.kill.guest = shown;
    }
    spb_call_set_reply(call, &reply.base);
    return call->payload != NULL;
}

/* With the answer set that a repeat gets after a crash. */
static spb_status begin_act(struct spb_call *call, enum spb_act_kind kind, const char *after,
                            struct spb_error *err)
{
    struct spb_guest *guest = call->guest;
    struct spb_guest_view view = spb_guest_look(guest);
    struct spb_act_detail detail = {.kind = kind, .tenant = guest->tenant};
    bool is_new = kind == SPB_ACT_GUEST_CREATE;
    char object[TEXT_SIZE];

    memcpy(detail.name, guest->name, sizeof(detail.name));
    memcpy(detail.uuid, guest->uuid, sizeof(detail.uuid));
    detail.size = view.life.run + (spb_life_is_busy(&view.life) ? 0 : 1);
    (void)snprintf(object, sizeof(object), "guest %s", guest->text);
    struct spb_act_texts texts = {
        .object = object,
        .before = is_new ? "absent" : spb_life_state_word(view.life.state),
        .after = after,
    };
    return spb_act_begin(call, &detail, &texts, err);
}

/* ---- Starts ------------------------------------------------------------------------------- */

struct starting {
    struct spb_call *call;
    bool begun;
    struct spb_refusal_to_start why;
};

static void start_here(void *user)
{
    struct starting *starting = user;

    starting->begun = spb_drive_start(starting->call->guest, starting->call, &starting->why);
}

/* Recorded already. False: it was not begun. */
static bool start(struct spb_call *call, struct spb_refusal_to_start *why)
{
    struct starting starting = {.call = call,
                                .why = {PB_REASON(DRAINING), "the server is shutting down"}};

    /* Where it was begun the call is no longer ours. */
    if (spb_supervisor_do(call->daemon->guests->supervisor, start_here, &starting) &&
        starting.begun)
        return true;
    *why = starting.why;
    return false;
}

/*
 * A guest that was made and could not be started stays: that it is there is what a repeat of the
 * call hears, with what its state says.
 */
static void end_created(struct spb_call *call, const char *why, PB_ErrorReason reason)
{
    char text[SPB_ERROR_TEXT_SIZE];

    (void)snprintf(text, sizeof(text), "%s", why);
    spb_act_end(call, set_shown(call), true);
    spb_call_set_fault(call, reason, "guest %s was made, but: %.400s", call->guest->text, text);
}

void spb_guest_start_ended(struct spb_call *call, const struct spb_error *failed,
                           PB_ErrorReason reason, bool decided)
{
    bool is_create = strcmp(call->method->name, "Create") == 0;

    if (failed == NULL) {
        spb_act_end(call, set_shown(call), true);
    } else if (is_create) {
        end_created(call, failed->text, reason);
    } else {
        spb_call_set_fault(call, reason, "%s", failed->text);
        spb_act_end(call, false, decided);
    }
    spb_call_send(call);
}

bool spb_guests_start_gate(struct spb_call *call)
{
    return spb_gate_guest(call, ((const PB_StartGuestRequest *)(const void *)call->request)->guest);
}

static void run_start(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_guest_view view = spb_guest_look(call->guest);
    bool runs = view.life.state == SPB_LIFE_RUNNING && !atomic_load(&call->guest->is_behind);
    struct spb_refusal_to_start why;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()) || !set_shown(call) || runs) {
        spb_call_send(call);
        return;
    }
    spb_status status = begin_act(call, SPB_ACT_GUEST_START, "running", &err);
    if (spb_is_ok(status) && start(call, &why))
        return;
    if (spb_is_ok(status)) {
        spb_call_set_fault(call, why.reason, "%s", why.text);
        spb_act_end(call, false, false);
    } else {
        spb_act_set_error(call, &err);
    }
    spb_call_send(call);
}

void spb_guests_start_one(struct spb_call *call)
{
    run_for(call, ((const PB_StartGuestRequest *)(const void *)call->request)->guest, run_start);
}

/* ---- Create ------------------------------------------------------------------------------- */

bool spb_guests_create_gate(struct spb_call *call)
{
    const PB_CreateGuestRequest *request = (const void *)call->request;

    return spb_gate_guest(call, request->guest) &&
           spb_gate_guest_config(call, request->config, spb_guest_ref_tenant(call, request->guest));
}

/* Packed, in the call's arena. */
static spb_status pack_config(struct spb_call *call, ProtobufCBinaryData *packed,
                              struct spb_error *err)
{
    const PB_CreateGuestRequest *request = (const void *)call->request;
    size_t size = spaceblock__v1__guest_config__get_packed_size(request->config);
    uint8_t *bytes = spb_arena_alloc(&call->arena, size);

    if (bytes == NULL)
        return spb_fail_memory(err, "making a guest");
    (void)spaceblock__v1__guest_config__pack(request->config, bytes);
    *packed = spb_pb_bytes(bytes, size);
    return spb_ok();
}

static spb_status make_guest(struct spb_call *call, const ProtobufCBinaryData *packed,
                             struct spb_error *err)
{
    const PB_CreateGuestRequest *request = (const void *)call->request;
    char name[SPB_GUEST_NAME_SIZE];
    struct spb_guest_seed seed = {
        .tenant = spb_guest_ref_tenant(call, request->guest),
        .name = name,
        .created_ms = (uint64_t)(spb_unix_us() / 1000),
    };

    (void)snprintf(name, sizeof(name), "%.*s", (int)request->guest->name.len,
                   (const char *)request->guest->name.data);
    SPB_TRY(spb_uuid_draw(seed.uuid, err));
    PB_GuestConfig *config = spb_guest_config_unpack(packed->data, packed->len);
    if (config == NULL)
        return spb_fail_memory(err, "making a guest");
    SPB_TRY(spb_guest_new(call->daemon, &seed, config, &call->guest, err));
    call->guest->is_deleted = true; /* until it is recorded */
    call->guest->version = (uint64_t)spb_unix_us();
    spb_guest_publish(call->guest);
    return spb_ok();
}

static void let_live(void *user)
{
    spb_drive_let_live(user);
}

static spb_status add_row(struct spb_call *call, const ProtobufCBinaryData *packed,
                          struct spb_error *err)
{
    struct spb_guest_row row;

    spb_guest_row(call->guest, &row);
    row.config = packed->data;
    row.config_size = packed->len;
    SPB_TRY(spb_rows_add_guest(call->daemon->audit, &row, err));
    call->guest->id = row.id;
    return spb_ok();
}

/* With the guest in the table, where nobody can start it yet. */
static spb_status record_guest(struct spb_call *call, const ProtobufCBinaryData *packed,
                               struct spb_error *err)
{
    const PB_GuestConfig *config = call->guest->config;
    char after[TEXT_SIZE];

    (void)snprintf(after, sizeof(after), "%zu images, %u MiB, %u CPUs", config->n_images,
                   config->memory_mib, config->cpus);
    if (!set_shown(call))
        return spb_fail(err, SPB_ACT_REFUSED, "the reply could not be made");
    SPB_TRY(begin_act(call, SPB_ACT_GUEST_CREATE, after, err));
    spb_status status = add_row(call, packed, err);
    if (!spb_is_ok(status))
        spb_act_end(call, false, status.code == SPB_IO);
    return status;
}

static void forget_log(struct spb_guest *guest)
{
    char *folder = spb_guest_log_folder(guest->daemon, guest->uuid);
    struct spb_error err;

    if (folder != NULL && !spb_is_ok(spb_log_remove(folder, &err)) && err.code != SPB_NOT_FOUND)
        spb_log(&guest->daemon->log, SPB_LOG_WARN, "console-log-not-removed",
                SPB_TEXT("guest", guest->text), SPB_TEXT("reason", err.text));
    free(folder);
}

static spb_status create(struct spb_call *call, struct spb_error *err)
{
    PB_CreateGuestRequest *request = (void *)call->request;
    struct spb_guests *guests = call->daemon->guests;
    uint16_t tenant = spb_guest_ref_tenant(call, request->guest);
    ProtobufCBinaryData packed = {.len = 0};

    spb_guest_config_complete(request->config, tenant);
    SPB_TRY(spb_work_check(call->daemon, tenant, request->config, err));
    SPB_TRY(pack_config(call, &packed, err));
    SPB_TRY(make_guest(call, &packed, err));
    spb_status status = spb_guests_add(guests, call->guest, err);
    if (spb_is_ok(status)) {
        status = record_guest(call, &packed, err);
        if (!spb_is_ok(status))
            spb_guests_remove(guests, call->guest);
    }
    if (!spb_is_ok(status))
        forget_log(call->guest);
    return status;
}

static void run_create(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    const PB_CreateGuestRequest *request = (const void *)call->request;
    bool starts = request->start;
    struct spb_refusal_to_start why;
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()) ||
        !spb_may_name_tenant(call, spb_guest_ref_tenant(call, request->guest))) {
        spb_call_send(call);
        return;
    }
    if (!spb_is_ok(create(call, &err))) {
        spb_act_set_error(call, &err);
        spb_call_send(call);
        return;
    }
    (void)spb_supervisor_do(call->daemon->guests->supervisor, let_live, call->guest);
    if (starts && start(call, &why))
        return;
    if (starts)
        end_created(call, why.text, why.reason);
    else
        spb_act_end(call, set_shown(call), true);
    spb_call_send(call);
}

void spb_guests_create(struct spb_call *call)
{
    spb_call_to_workers(call, run_create);
}

/* ---- Stop and kill ------------------------------------------------------------------------ */

bool spb_guests_stop_gate(struct spb_call *call)
{
    const PB_StopGuestRequest *request = (const void *)call->request;

    return spb_gate_guest(call, request->guest) &&
           spb_gate_max(call, "timeout_ms", request->timeout_ms, STOP_MS_MAX);
}

bool spb_guests_kill_gate(struct spb_call *call)
{
    return spb_gate_guest(call, ((const PB_KillGuestRequest *)(const void *)call->request)->guest);
}

struct ending {
    struct spb_guest *guest;
    struct spb_life_input input;
    struct spb_guest_row row; /* as it is to be recorded then */
};

static void end_here(void *user)
{
    struct ending *ending = user;

    spb_drive_step(ending->guest, &ending->input);
    spb_guest_row(ending->guest, &ending->row);
}

/* What was asked for is durable before that is answered: it holds over restarts of the daemon. */
static void end_guest(struct spb_call *call, enum spb_act_kind kind,
                      const struct spb_life_input *input)
{
    struct ending ending = {.guest = call->guest, .input = *input};
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns()) || !set_shown(call))
        return;
    if (!spb_is_ok(
            begin_act(call, kind, kind == SPB_ACT_GUEST_KILL ? "killed" : "stopped", &err))) {
        spb_act_set_error(call, &err);
        return;
    }
    bool asked = ask_supervisor(call, end_here, &ending);
    bool done = asked && spb_is_ok(spb_rows_set_guest(call->daemon->audit, &ending.row, &err));
    if (asked && !done)
        spb_call_set_error(call, &err);
    spb_act_end(call, done && set_shown(call), asked);
}

static void run_stop(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    const PB_StopGuestRequest *request = (const void *)call->request;
    bool says =
        request->if_timeout_case == SPACEBLOCK__V1__STOP_GUEST_REQUEST__IF_TIMEOUT_TIMEOUT_MS;
    struct spb_life_input input = {
        .what = SPB_LIFE_STOP,
        .stop_ns = says ? (int64_t)request->timeout_ms * SPB_NS_PER_MS : -1,
    };

    end_guest(call, SPB_ACT_GUEST_STOP, &input);
    spb_call_send(call);
}

void spb_guests_stop_one(struct spb_call *call)
{
    run_for(call, ((const PB_StopGuestRequest *)(const void *)call->request)->guest, run_stop);
}

static void run_kill(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    struct spb_life_input input = {.what = SPB_LIFE_KILL};

    end_guest(call, SPB_ACT_GUEST_KILL, &input);
    spb_call_send(call);
}

void spb_guests_kill_one(struct spb_call *call)
{
    run_for(call, ((const PB_KillGuestRequest *)(const void *)call->request)->guest, run_kill);
}

/* ---- Delete ------------------------------------------------------------------------------- */

bool spb_guests_delete_gate(struct spb_call *call)
{
    return spb_gate_guest(call,
                          ((const PB_DeleteGuestRequest *)(const void *)call->request)->guest);
}

enum leave { LEAVE_NOW, LEAVE_LATER, LEAVE_REFUSED, LEAVE_GONE };

struct leaving {
    struct spb_call *call;
    bool forced;
    enum leave how;
};

/* From here on nobody starts it any more, unless the deletion fails. */
static void leave_here(void *user)
{
    struct leaving *leaving = user;
    struct spb_guest *guest = leaving->call->guest;
    struct spb_life_input kill = {.what = SPB_LIFE_KILL};

    leaving->how = LEAVE_NOW;
    if (guest->is_deleted) {
        leaving->how = LEAVE_GONE;
        return;
    }
    if (spb_life_counts(&guest->life)) {
        if (!leaving->forced) {
            leaving->how = LEAVE_REFUSED;
            return;
        }
        spb_drive_step(guest, &kill);
    }
    guest->is_deleted = true;
    if (!spb_life_is_busy(&guest->life))
        return;
    leaving->how = LEAVE_LATER;
    leaving->call->next = guest->enders;
    guest->enders = leaving->call;
}

/* It does not run, and will not. The row is what decides. */
static spb_status remove_guest(struct spb_call *call, struct spb_error *err)
{
    struct spb_guest *guest = call->guest;
    struct spb_daemon *daemon = call->daemon;

    spb_status status = spb_rows_remove_guest(daemon->audit, guest->id, err);
    if (!spb_is_ok(status)) {
        (void)spb_supervisor_do(daemon->guests->supervisor, let_live, guest);
        return status;
    }
    spb_guests_remove(daemon->guests, guest);
    forget_log(guest);
    spb_log(&daemon->log, SPB_LOG_INFO, "guest-deleted", SPB_TEXT("guest", guest->text),
            SPB_TEXT("by", call->principal.name));
    return status;
}

static void tell_gone(void *user)
{
    spb_guest_publish(user);
}

static void delete_now(struct spb_call *call)
{
    PB_DeleteGuestResponse reply = SPACEBLOCK__V1__DELETE_GUEST_RESPONSE__INIT;
    struct spb_error err;

    spb_status status = remove_guest(call, &err);
    if (spb_is_ok(status)) {
        (void)spb_supervisor_do(call->daemon->guests->supervisor, tell_gone, call->guest);
        spb_call_set_reply(call, &reply.base);
    } else {
        spb_call_set_error(call, &err);
    }
    spb_act_end(call, spb_is_ok(status), status.code == SPB_IO);
    spb_call_send(call);
}

static void run_delete_now(struct spb_task *task)
{
    delete_now(spb_call_of_task(task));
}

void spb_guest_end_came(struct spb_call *call, struct spb_guest *guest, bool given_up)
{
    if (!given_up) {
        spb_call_to_workers(call, run_delete_now);
        return;
    }
    spb_drive_let_live(guest);
    spb_call_set_fault(call, PB_REASON(DRAINING),
                       "the server is shutting down: guest %s was killed, and not deleted",
                       guest->text);
    spb_act_end(call, false, false);
    spb_call_send(call);
}

static void set_not_leaving(struct spb_call *call, enum leave how)
{
    if (how == LEAVE_GONE)
        spb_call_set_fault(call, PB_REASON(NOT_FOUND), "no guest %s", call->guest->text);
    else
        spb_call_set_fault(call, PB_REASON(WRONG_STATE),
                           "guest %s is %s: stop it first, or delete it with force",
                           call->guest->text, spb_life_state_word(spb_guest_state(call->guest)));
}

static void run_delete(struct spb_task *task)
{
    struct spb_call *call = spb_call_of_task(task);
    const PB_DeleteGuestRequest *request = (const void *)call->request;
    PB_DeleteGuestResponse reply = SPACEBLOCK__V1__DELETE_GUEST_RESPONSE__INIT;
    struct leaving leaving = {.call = call, .forced = request->force};
    struct spb_error err;

    if (spb_call_is_late(call, spb_now_ns())) {
        spb_call_send(call);
        return;
    }
    spb_call_set_reply(call, &reply.base);
    spb_status status = begin_act(call, SPB_ACT_GUEST_DELETE, "absent", &err);
    if (!spb_is_ok(status)) {
        spb_act_set_error(call, &err);
        spb_call_send(call);
        return;
    }
    bool asked = ask_supervisor(call, leave_here, &leaving);
    if (asked && leaving.how == LEAVE_LATER)
        return; /* the call is the supervisor's */
    if (asked && leaving.how == LEAVE_NOW) {
        delete_now(call);
        return;
    }
    if (asked)
        set_not_leaving(call, leaving.how);
    spb_act_end(call, false, false);
    spb_call_send(call);
}

void spb_guests_delete_one(struct spb_call *call)
{
    run_for(call, ((const PB_DeleteGuestRequest *)(const void *)call->request)->guest, run_delete);
}
