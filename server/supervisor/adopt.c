/* Guests at the daemon's start; see adopt.h. */
#include "supervisor/adopt.h"

#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"
#include "base/status.h"
#include "daemon.h"
#include "supervisor/console/log.h"
#include "supervisor/drive.h"
#include "supervisor/guests.h"
#include "supervisor/session.h"
#include "uuid.h"

#define ORPHAN_WAIT_MS 5000

/* ---- Rows --------------------------------------------------------------------------------- */

/* Of a row that could not be read: that guest may live all the same. */
struct unread {
    int64_t id;
    uint8_t uuid[16];
};

struct loading {
    struct spb_daemon *daemon;
    struct unread *unread; /* owned */
    size_t unread_count;
    bool is_short; /* of memory for them */
};

static struct spb_life life_of(const struct spb_guest *guest, const struct spb_guest_row *row)
{
    struct spb_life_rules rules = spb_guest_rules(guest);
    struct spb_life life;

    spb_life_init(&life, &rules);
    life.state = row->state >= SPB_LIFE_CREATED && row->state <= SPB_LIFE_BACKOFF
                     ? (enum spb_life_state)row->state
                     : SPB_LIFE_STOPPED;
    life.ending =
        row->ending <= SPB_ENDING_NOT_STARTED ? (enum spb_ending)row->ending : SPB_ENDING_NONE;
    life.wants_run = row->wants_run;
    life.has_exit = row->has_exit;
    life.exit_status = row->exit_status;
    life.run = row->run;
    life.started_ms = row->started_ms;
    life.ended_ms = row->ended_ms;
    life.restart_at_ms = row->restart_at_ms;
    life.quit_at_ms = row->quit_at_ms;
    life.stop_ms = row->stop_ms;
    life.restarts = row->restarts;
    life.short_runs = row->short_runs;
    life.crash_loop = row->crash_loop;
    life.alive = row->alive;
    memcpy(life.reason, row->reason, sizeof(life.reason));
    return life;
}

static spb_status load_row(struct spb_daemon *daemon, const struct spb_guest_row *row,
                           struct spb_error *err)
{
    struct spb_guest_seed seed = {.tenant = row->tenant,
                                  .name = row->name,
                                  .created_ms = row->created_ms,
                                  .console_bytes = row->console_bytes,
                                  .may_lack_log = true};
    PB_GuestConfig *config = spb_guest_config_unpack(row->config, row->config_size);
    struct spb_guest *guest = NULL;
    uint64_t now_us = (uint64_t)spb_unix_us();

    if (config == NULL || config->n_images == 0 || config->kernel == NULL) {
        spb_guest_config_free(config);
        return spb_fail(err, SPB_CORRUPT, "guest %u/%s: what it is made of cannot be read",
                        (unsigned)row->tenant, row->name);
    }
    memcpy(seed.uuid, row->uuid, sizeof(seed.uuid));
    SPB_TRY(spb_guest_new(daemon, &seed, config, &guest, err));
    guest->id = row->id;
    guest->accel = row->accel;
    /* Above any that was shown before, recorded or not. */
    guest->version = row->version > now_us ? row->version : now_us;
    memcpy(guest->run_base, row->run_base, sizeof(guest->run_base));
    guest->life = life_of(guest, row);
    spb_guest_publish(guest);
    spb_status status = spb_guests_add_known(daemon->guests, guest, err);
    spb_guest_unref(guest);
    return status;
}

static bool was_live(uint32_t state)
{
    return state == SPB_LIFE_STARTING || state == SPB_LIFE_RUNNING || state == SPB_LIFE_PAUSED ||
           state == SPB_LIFE_STOPPING;
}

/* Whose images they are: they are not opened for writing meanwhile. */
static spb_status expect_images(struct spb_daemon *daemon, uint16_t tenant,
                                const PB_GuestConfig *config, const char *holder,
                                struct spb_error *err)
{
    for (size_t i = 0; i < config->n_images; i++) {
        const ProtobufCBinaryData *ref = &config->images[i]->name;
        char name[SPB_AUDIT_NAME_SIZE];

        (void)snprintf(name, sizeof(name), "%.*s", (int)ref->len, (const char *)ref->data);
        SPB_TRY(spb_attach_expect(daemon, tenant, name, holder, err));
    }
    return spb_ok();
}

/* As far as it says which they are. */
static spb_status expect_of_row(struct spb_daemon *daemon, const struct spb_guest_row *row,
                                struct spb_error *err)
{
    PB_GuestConfig *config = spb_guest_config_unpack(row->config, row->config_size);
    char holder[SPB_GUEST_LABEL_SIZE];
    spb_status status = spb_ok();

    (void)snprintf(holder, sizeof(holder), "%u/%s", (unsigned)row->tenant, row->name);
    if (config != NULL && was_live(row->state))
        status = expect_images(daemon, row->tenant, config, holder, err);
    spb_guest_config_free(config);
    return status;
}

static void note_unread(struct loading *loading, const struct spb_guest_row *row)
{
    size_t count = loading->unread_count + 1;
    struct unread *grown = realloc(loading->unread, count * sizeof(*grown));
    struct spb_error err;

    loading->is_short |= grown == NULL;
    loading->is_short |= expect_of_row(loading->daemon, row, &err).code == SPB_NO_MEMORY;
    if (grown == NULL)
        return;
    grown[count - 1] = (struct unread){.id = row->id};
    memcpy(grown[count - 1].uuid, row->uuid, sizeof(grown->uuid));
    loading->unread = grown;
    loading->unread_count = count;
}

/* One that cannot be read keeps neither the others nor the daemon. What is its own is left alone:
 * its QEMU may run, and another daemon may be able to read it. */
static void take_row(void *user, const struct spb_guest_row *row)
{
    struct loading *loading = user;
    struct spb_error err;
    spb_status status = load_row(loading->daemon, row, &err);

    if (spb_is_ok(status))
        return;
    note_unread(loading, row);
    spb_log(&loading->daemon->log, SPB_LOG_ERROR, "guest-not-loaded",
            SPB_NUMBER("tenant", row->tenant), SPB_TEXT("name", row->name),
            SPB_TEXT("reason", err.text));
}

/* ---- What belongs to nothing -------------------------------------------------------------- */

static void log_burial(struct spb_guests *guests, const char *event, const char *name,
                       const struct spb_error *err)
{
    spb_log(&guests->daemon->log, SPB_LOG_WARN, event, SPB_TEXT("run", name),
            SPB_TEXT("reason", err == NULL ? "" : err->text));
}

/* It does not get as far as opening images that others open next. */
static void kill_orphan(struct spb_guests *guests, const char *name,
                        const struct spb_process *process)
{
    struct pollfd ended = {.fd = process->pidfd, .events = POLLIN};
    struct spb_error err;

    if (!spb_is_ok(spb_process_signal(process, SIGKILL, &err)) && err.code != SPB_NOT_FOUND) {
        log_burial(guests, "orphan-not-killed", name, &err);
        return;
    }
    (void)poll(&ended, 1, ORPHAN_WAIT_MS);
    log_burial(guests, "orphan-killed", name, NULL);
}

static void look_for_orphan(struct spb_guests *guests, const char *base, const char *name)
{
    struct spb_rundir dir = SPB_RUNDIR_NONE;
    struct spb_process process = SPB_PROCESS_NONE;
    struct spb_error err;

    if (!spb_is_ok(spb_rundir_open(base, name, &dir, &err)))
        return;
    if (spb_is_ok(spb_process_adopt(dir.fd, SPB_RUNDIR_PIDFILE, &process, &err))) {
        kill_orphan(guests, name, &process);
        spb_process_close(&process);
    }
    spb_rundir_close(&dir);
}

/*
 * The folder of a run of which no QEMU was found. One that was only just being spawned when the
 * daemon ended may still be on its way: once the folder has another name it cannot get any further,
 * and if it got so far before, its pidfile is locked now.
 */
static void bury(struct spb_guests *guests, const char *base, const char *name)
{
    char from[SPB_ROW_FOLDER_SIZE + SPB_RUN_NAME_SIZE + 8], gone[SPB_RUN_NAME_SIZE + 8];
    char to[sizeof(from)];
    struct spb_error err;

    (void)snprintf(gone, sizeof(gone), "%.48s-gone", name);
    (void)snprintf(from, sizeof(from), "%s/%s", base, name);
    (void)snprintf(to, sizeof(to), "%s/%s", base, gone);
    if (rename(from, to) != 0)
        (void)snprintf(gone, sizeof(gone), "%.48s", name);
    look_for_orphan(guests, base, gone);
    if (!spb_is_ok(spb_rundir_remove(base, gone, &err)))
        log_burial(guests, "run-folder-not-removed", name, &err);
    if (guests->cgroup.fd >= 0 && !spb_is_ok(spb_cgroup_remove(&guests->cgroup, name, &err)))
        log_burial(guests, "cgroup-not-removed", name, &err);
}

/* ---- What lives --------------------------------------------------------------------------- */

/* The QEMU of the last run that is recorded; the guest gets a run where there is one. */
static spb_status find_process(struct spb_guest *guest, struct spb_error *err)
{
    struct spb_guest_run *run;
    char name[SPB_RUN_NAME_SIZE];

    if (guest->life.run == 0 || guest->run_base[0] == '\0')
        return spb_ok();
    run = spb_run_new(guest, guest->run_base);
    if (run == NULL)
        return spb_fail_memory(err, "looking for a guest's QEMU");
    guest->run = run;
    memcpy(name, run->name, sizeof(name));
    spb_status status = spb_rundir_open(run->base, run->name, &run->dir, err);
    if (spb_is_ok(status))
        status = spb_process_adopt(run->dir.fd, SPB_RUNDIR_PIDFILE, &run->process, err);
    if (spb_is_ok(status))
        return spb_words_open(&run->dir, &run->words, NULL).code == SPB_NO_MEMORY
                   ? spb_fail_memory(err, "looking for a guest's QEMU")
                   : spb_ok();
    bool was_there = run->dir.fd >= 0;
    spb_session_let_go(guest);
    if (status.code != SPB_NOT_FOUND)
        return status;
    if (was_there)
        bury(guest->daemon->guests, guest->run_base, name);
    return spb_ok();
}

static spb_status look_for(struct spb_guest *guest, struct spb_error *err)
{
    SPB_TRY(find_process(guest, err));
    return guest->run == NULL
               ? spb_ok()
               : expect_images(guest->daemon, guest->tenant, guest->config, guest->text, err);
}

/* ---- Leftovers ---------------------------------------------------------------------------- */

static bool is_known_run(const struct loading *loading, const char *name)
{
    const struct spb_guests *guests = loading->daemon->guests;

    for (size_t i = 0; i < loading->unread_count; i++) {
        char prefix[SPB_RUN_NAME_SIZE];

        (void)snprintf(prefix, sizeof(prefix), "g%" PRId64 "-", loading->unread[i].id);
        if (strncmp(name, prefix, strlen(prefix)) == 0)
            return true;
    }
    for (size_t i = 0; i < guests->count; i++) {
        const struct spb_guest_run *run = guests->sorted[i]->run;

        if (run != NULL && strcmp(run->name, name) == 0)
            return true;
    }
    return false;
}

static spb_status sweep_run(void *user, const char *name, struct spb_error *err)
{
    const struct loading *loading = user;
    struct spb_guests *guests = loading->daemon->guests;

    (void)err; /* what cannot be removed stays, and harms nobody */
    if (name[0] != 'g' || is_known_run(loading, name))
        return spb_ok();
    bury(guests, guests->run_dir, name);
    spb_log(&guests->daemon->log, SPB_LOG_INFO, "leftover-removed", SPB_TEXT("folder", "run"),
            SPB_TEXT("name", name));
    return spb_ok();
}

static bool is_known_uuid(const struct loading *loading, const uint8_t uuid[16])
{
    const struct spb_guests *guests = loading->daemon->guests;

    for (size_t i = 0; i < loading->unread_count; i++) {
        if (memcmp(loading->unread[i].uuid, uuid, 16) == 0)
            return true;
    }
    for (size_t i = 0; i < guests->count; i++) {
        if (memcmp(guests->sorted[i]->uuid, uuid, 16) == 0)
            return true;
    }
    return false;
}

/* Of guests that were deleted, or never recorded. */
static void sweep_logs(const struct loading *loading)
{
    const struct spb_guests *guests = loading->daemon->guests;
    DIR *dir = opendir(guests->logs_dir);
    struct dirent *entry;
    struct spb_error err;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        uint8_t uuid[16];

        if (!spb_uuid_parse(entry->d_name, uuid) || is_known_uuid(loading, uuid))
            continue;
        char *path = spb_guest_log_folder(guests->daemon, uuid);
        if (path != NULL && !spb_is_ok(spb_log_remove(path, &err)))
            spb_log(&guests->daemon->log, SPB_LOG_WARN, "console-log-not-removed",
                    SPB_TEXT("reason", err.text));
        free(path);
    }
    if (dir != NULL)
        (void)closedir(dir);
}

static spb_status load(struct loading *loading, struct spb_error *err)
{
    struct spb_guests *guests = loading->daemon->guests;

    SPB_TRY(spb_rows_guests(loading->daemon->audit, take_row, loading, err));
    if (loading->is_short)
        return spb_fail_memory(err, "loading guests");
    for (size_t i = 0; i < guests->count; i++)
        SPB_TRY(look_for(guests->sorted[i], err));
    SPB_TRY(spb_rundir_list(guests->run_dir, sweep_run, loading, err));
    sweep_logs(loading);
    return spb_ok();
}

spb_status spb_adopt_load(struct spb_daemon *daemon, struct spb_error *err)
{
    struct loading loading = {.daemon = daemon};
    spb_status status = load(&loading, err);

    free(loading.unread);
    return status;
}

/* ---- Adoption ----------------------------------------------------------------------------- */

static void adopt(struct spb_guest *guest)
{
    if (guest->run != NULL) {
        spb_session_adopt(guest);
        atomic_fetch_add(&guest->daemon->guests->adopting, 1);
        spb_drive_tell(guest, SPB_LIFE_ADOPT, NULL);
        spb_session_connect(guest);
    } else if (was_live(guest->life.state)) {
        if (guest->life.run > 0)
            guest->run = spb_run_new(guest, guest->run_base);
        spb_drive_tell(guest, SPB_LIFE_GONE, NULL);
    } else {
        spb_drive_tell(guest, SPB_LIFE_RESUME, NULL);
    }
}

void spb_adopt_all(struct spb_daemon *daemon)
{
    for (size_t i = 0; i < daemon->guests->count; i++)
        adopt(daemon->guests->sorted[i]);
}

/* ---- Settling ----------------------------------------------------------------------------- */

static enum spb_outcome settle_start(const struct spb_guest *guest, uint64_t run)
{
    const struct spb_life *life = &guest->life;

    /* Whether one that is paused goes on, its QEMU has yet to be asked. */
    if (life->run == run && life->state == SPB_LIFE_PAUSED)
        return SPB_OUTCOME_UNKNOWN;
    bool began = life->run > run || (life->run == run && life->state != SPB_LIFE_STARTING &&
                                     life->ending != SPB_ENDING_NOT_STARTED);

    return began || guest->run != NULL ? SPB_OUTCOME_DONE : SPB_OUTCOME_NOT_DONE;
}

enum spb_outcome spb_guests_settle(struct spb_daemon *daemon, const struct spb_act_detail *detail)
{
    struct spb_guest *guest =
        spb_guests_find(daemon->guests, detail->tenant, detail->name, strlen(detail->name));
    bool there = guest != NULL && memcmp(guest->uuid, detail->uuid, sizeof(guest->uuid)) == 0;
    enum spb_outcome outcome = SPB_OUTCOME_NOT_DONE;

    if (detail->kind == SPB_ACT_GUEST_CREATE)
        outcome = there ? SPB_OUTCOME_DONE : SPB_OUTCOME_NOT_DONE;
    else if (detail->kind == SPB_ACT_GUEST_DELETE || !there)
        outcome = there ? SPB_OUTCOME_NOT_DONE : SPB_OUTCOME_DONE;
    else if (detail->kind == SPB_ACT_GUEST_START)
        outcome = settle_start(guest, detail->size);
    else
        outcome = guest->life.wants_run ? SPB_OUTCOME_NOT_DONE : SPB_OUTCOME_DONE;
    spb_guest_unref(guest);
    return outcome;
}
