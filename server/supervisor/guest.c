/* One guest; see guest.h. */
#include "supervisor/guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "daemon.h"
#include "services/services.h"
#include "supervisor/guests.h"
#include "uuid.h"

static int64_t ms_to_ns(uint64_t ms)
{
    return (int64_t)ms * SPB_NS_PER_MS;
}

/* ---- Configuration ------------------------------------------------------------------------ */

PB_GuestConfig *spb_guest_config_unpack(const uint8_t *bytes, size_t size)
{
    return spaceblock__v1__guest_config__unpack(NULL, size,
                                                bytes == NULL ? (const uint8_t *)"" : bytes);
}

void spb_guest_config_free(PB_GuestConfig *config)
{
    if (config != NULL)
        spaceblock__v1__guest_config__free_unpacked(config, NULL);
}

char *spb_guest_log_folder(const struct spb_daemon *daemon, const uint8_t uuid[16])
{
    char text[SPB_UUID_TEXT_SIZE], *path = NULL;

    spb_uuid_write(uuid, text);
    return asprintf(&path, "%s/%s", daemon->guests->logs_dir, text) < 0 ? NULL : path;
}

struct spb_life_rules spb_guest_rules(const struct spb_guest *guest)
{
    const struct spb_daemon *daemon = guest->daemon;
    const PB_GuestConfig *config = guest->config;
    uint64_t boot_ms = config->boot_deadline_ms, stop_ms = config->stop_timeout_ms;
    struct spb_life_rules rules = {
        .restart =
            config->restart == 0 ? SPB_LIFE_RESTART_NEVER : (enum spb_life_restart)config->restart,
        .start_ns = ms_to_ns(SPB_LIMIT(daemon, guest_start_ms)),
        .boot_ns = ms_to_ns(boot_ms == 0 ? SPB_LIMIT(daemon, guest_boot_ms) : boot_ms),
        .stop_ns = ms_to_ns(stop_ms == 0 ? SPB_LIMIT(daemon, guest_stop_ms) : stop_ms),
        .quit_ns = ms_to_ns(SPB_LIMIT(daemon, guest_quit_ms)),
        .backoff_ns = ms_to_ns(SPB_LIMIT(daemon, guest_backoff_ms)),
        .backoff_max_ns = ms_to_ns(SPB_LIMIT(daemon, guest_backoff_max_ms)),
        .healthy_ns = ms_to_ns(SPB_LIMIT(daemon, guest_healthy_ms)),
    };

    return rules;
}

/* ---- Life --------------------------------------------------------------------------------- */

static void arrived(void *user, uint64_t end)
{
    spb_guests_console_arrived(user, end);
}

static void log_changed(void *user, const struct spb_error *why)
{
    struct spb_guest *guest = user;

    spb_log(&guest->daemon->log, why != NULL ? SPB_LOG_WARN : SPB_LOG_INFO,
            why != NULL ? "console-log-stopped" : "console-log-resumed",
            SPB_TEXT("guest", guest->text), SPB_TEXT("reason", why == NULL ? "" : why->text));
}

static size_t power_of_two(uint64_t bytes)
{
    size_t power = 4096;

    while (power * 2 <= bytes)
        power *= 2;
    return power;
}

static spb_status open_console(struct spb_guest *guest, const struct spb_guest_seed *seed,
                               struct spb_error *err)
{
    char *folder = spb_guest_log_folder(guest->daemon, guest->uuid);
    struct spb_console_options options = {
        .ring_bytes = power_of_two(SPB_LIMIT(guest->daemon, console_memory_bytes)),
        .log_directory = folder,
        .log_bytes = SPB_LIMIT(guest->daemon, console_log_max_bytes),
        .floor = seed->console_bytes,
        .hooks = {.arrived = arrived, .log = log_changed, .user = guest},
    };

    if (folder == NULL)
        return spb_fail_memory(err, "opening a guest's console");
    spb_status status = spb_console_new(&options, &guest->console, err);
    free(folder);
    if (spb_is_ok(status) || !seed->may_lack_log)
        return status;
    log_changed(guest, err);
    options.log_directory = NULL;
    return spb_console_new(&options, &guest->console, err);
}

static void tell_waits(struct spb_post *post)
{
    struct spb_guest *guest = SPB_CONTAINER(post, struct spb_guest, news);

    (void)pthread_mutex_lock(&guest->lock);
    guest->is_news_posted = false;
    (void)pthread_mutex_unlock(&guest->lock);
    spb_guests_tell_waits(guest);
    spb_guest_unref(guest);
}

spb_status spb_guest_new(struct spb_daemon *daemon, const struct spb_guest_seed *seed,
                         PB_GuestConfig *config, struct spb_guest **out, struct spb_error *err)
{
    struct spb_guest *guest = calloc(1, sizeof(*guest));
    uint64_t from = 0;

    if (guest == NULL) {
        spb_guest_config_free(config);
        return spb_fail_memory(err, "making a guest");
    }
    guest->daemon = daemon;
    guest->tenant = seed->tenant;
    (void)snprintf(guest->name, sizeof(guest->name), "%s", seed->name);
    (void)snprintf(guest->text, sizeof(guest->text), "%u/%s", (unsigned)seed->tenant, seed->name);
    memcpy(guest->uuid, seed->uuid, sizeof(guest->uuid));
    guest->created_ms = seed->created_ms;
    guest->config = config;
    guest->news.run = tell_waits;
    atomic_init(&guest->refs, 1);
    atomic_init(&guest->is_behind, false);
    (void)pthread_mutex_init(&guest->lock, NULL);
    struct spb_life_rules rules = spb_guest_rules(guest);
    spb_life_init(&guest->life, &rules);
    spb_status status = open_console(guest, seed, err);
    if (!spb_is_ok(status)) {
        spb_guest_unref(guest);
        return status;
    }
    spb_console_extent(guest->console, &from, &guest->console_counted);
    *out = guest;
    return status;
}

void spb_guest_ref(struct spb_guest *guest)
{
    atomic_fetch_add_explicit(&guest->refs, 1, memory_order_relaxed);
}

void spb_guest_unref(struct spb_guest *guest)
{
    if (guest == NULL || atomic_fetch_sub_explicit(&guest->refs, 1, memory_order_acq_rel) != 1)
        return;
    SPB_ASSERT(guest->run == NULL && guest->waits == NULL);
    spb_console_free(guest->console);
    spb_guest_config_free(guest->config);
    (void)pthread_mutex_destroy(&guest->lock);
    free(guest);
}

/* ---- Published ---------------------------------------------------------------------------- */

struct spb_guest_view spb_guest_look(struct spb_guest *guest)
{
    (void)pthread_mutex_lock(&guest->lock);
    struct spb_guest_view view = guest->view;
    (void)pthread_mutex_unlock(&guest->lock);
    return view;
}

enum spb_life_state spb_guest_state(struct spb_guest *guest)
{
    (void)pthread_mutex_lock(&guest->lock);
    enum spb_life_state state = guest->view.life.state;
    (void)pthread_mutex_unlock(&guest->lock);
    return state;
}

/* Under the lock. Nobody waits: nothing is posted. */
static void post_news(struct spb_guest *guest)
{
    if (guest->is_news_posted || guest->wait_count == 0)
        return;
    guest->is_news_posted = true;
    spb_guest_ref(guest);
    spb_loop_post(guest->daemon->loop, &guest->news, &guest->news);
}

void spb_guest_publish(struct spb_guest *guest)
{
    uint32_t pid = spb_guests_pid(guest);

    guest->version++;
    (void)pthread_mutex_lock(&guest->lock);
    guest->view = (struct spb_guest_view){
        .life = guest->life, .version = guest->version, .pid = pid, .accel = guest->accel};
    post_news(guest);
    (void)pthread_mutex_unlock(&guest->lock);
}

void spb_guest_tell(struct spb_guest *guest)
{
    (void)pthread_mutex_lock(&guest->lock);
    post_news(guest);
    (void)pthread_mutex_unlock(&guest->lock);
}

void spb_guest_row(const struct spb_guest *guest, struct spb_guest_row *row)
{
    const struct spb_life *life = &guest->life;
    uint64_t from = 0, end = 0;

    spb_console_extent(guest->console, &from, &end);
    *row = (struct spb_guest_row){
        .id = guest->id,
        .tenant = guest->tenant,
        .wants_run = life->wants_run,
        .state = life->state,
        .ending = life->ending,
        .accel = guest->accel,
        .has_exit = life->has_exit,
        .exit_status = life->exit_status,
        .run = life->run,
        .created_ms = guest->created_ms,
        .started_ms = life->started_ms,
        .ended_ms = life->ended_ms,
        .restart_at_ms = life->restart_at_ms,
        .quit_at_ms = life->quit_at_ms,
        .stop_ms = life->stop_ms,
        .restarts = life->restarts,
        .short_runs = life->short_runs,
        .crash_loop = life->crash_loop,
        .alive = life->alive,
        .console_bytes = end,
        .version = guest->version,
    };
    memcpy(row->name, guest->name, sizeof(row->name));
    memcpy(row->uuid, guest->uuid, sizeof(row->uuid));
    memcpy(row->run_base, guest->run_base, sizeof(row->run_base));
    memcpy(row->reason, life->reason, sizeof(row->reason));
}

_Static_assert(SPB_GUEST_NAME_SIZE == SPB_AUDIT_NAME_SIZE, "a name fits its row");
_Static_assert(SPB_LIFE_REASON_SIZE == SPB_ROW_REASON_SIZE, "a reason fits its row");

/* ---- Shown -------------------------------------------------------------------------------- */

/* The config with what holds now in the place of 0; lists are the guest's, which are constant. */
static PB_GuestConfig *show_config(struct spb_guest *guest, struct spb_call *call)
{
    PB_GuestConfig *shown = spb_call_alloc(call, sizeof(*shown));

    if (shown == NULL)
        return NULL;
    *shown = *guest->config;
    if (shown->boot_deadline_ms == 0)
        shown->boot_deadline_ms = (uint32_t)SPB_LIMIT(guest->daemon, guest_boot_ms);
    if (shown->stop_timeout_ms == 0)
        shown->stop_timeout_ms = (uint32_t)SPB_LIMIT(guest->daemon, guest_stop_ms);
    return shown;
}

static void show_life(PB_Guest *shown, const struct spb_guest_view *view)
{
    const struct spb_life *life = &view->life;

    shown->state = (Spaceblock__V1__GuestState)life->state;
    shown->ending = (Spaceblock__V1__GuestEnding)life->ending;
    if (life->has_exit) {
        shown->if_exit_case = SPACEBLOCK__V1__GUEST__IF_EXIT_EXIT_STATUS;
        shown->exit_status = life->exit_status;
    }
    shown->started_at_ms = life->started_ms;
    shown->ended_at_ms = life->ended_ms;
    shown->restart_at_ms = life->restart_at_ms;
    shown->restarts = life->restarts;
    shown->crash_loop = life->crash_loop;
    shown->alive = life->alive;
    shown->adopted = life->adopted;
    shown->version = view->version;
    shown->pid = view->pid;
    shown->accel = (Spaceblock__V1__GuestAccel)view->accel;
}

_Static_assert((int)SPACEBLOCK__V1__GUEST_STATE__GUEST_STATE_BACKOFF == (int)SPB_LIFE_BACKOFF &&
                   (int)SPACEBLOCK__V1__GUEST_ENDING__GUEST_ENDING_NOT_STARTED ==
                       (int)SPB_ENDING_NOT_STARTED,
               "the API lists states and endings in the order of the life");

PB_Guest *spb_guest_show(struct spb_guest *guest, struct spb_call *call)
{
    PB_Guest *shown = spb_call_alloc(call, sizeof(*shown));
    char *reason = spb_call_alloc(call, SPB_LIFE_REASON_SIZE);
    struct spb_guest_view view = spb_guest_look(guest);
    uint64_t from = 0;

    if (shown == NULL || reason == NULL)
        return NULL;
    *shown = (PB_Guest)SPACEBLOCK__V1__GUEST__INIT;
    show_life(shown, &view);
    shown->tenant = guest->tenant;
    shown->name = spb_pb_text(guest->name);
    shown->uuid = spb_pb_bytes(guest->uuid, sizeof(guest->uuid));
    shown->created_at_ms = guest->created_ms;
    memcpy(reason, view.life.reason, SPB_LIFE_REASON_SIZE);
    shown->reason = spb_pb_text(reason);
    spb_console_extent(guest->console, &from, &shown->console_bytes);
    shown->config = show_config(guest, call);
    return shown->config == NULL ? NULL : shown;
}
