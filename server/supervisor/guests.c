/* The table of guests; see guests.h. */
#include "supervisor/guests.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "supervisor/thread.h"

#define ROOM_MIN 16u
#define MIB (UINT64_C(1024) * 1024)

/* ---- The part ----------------------------------------------------------------------------- */

static spb_status make_folder(const char *path, struct spb_error *err)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return spb_fail_errno(err, SPB_IO, errno, "making the folder %s", path);
    return spb_ok();
}

/* Absolute: QEMU has another working folder. */
static spb_status name_run_dir(struct spb_guests *guests, struct spb_error *err)
{
    const struct spb_daemon *daemon = guests->daemon;
    char *path = NULL;

    if (daemon->options.run_dir[0] != '\0')
        path = strdup(daemon->options.run_dir);
    else if (asprintf(&path, "%s/run", daemon->data_dir) < 0)
        path = NULL;
    if (path == NULL)
        return spb_fail_memory(err, "naming the folder of running guests");
    spb_status status = make_folder(path, err);
    if (spb_is_ok(status)) {
        guests->run_dir = realpath(path, NULL);
        if (guests->run_dir == NULL)
            status = spb_fail_errno(err, SPB_IO, errno, "looking at the folder %s", path);
    }
    free(path);
    if (spb_is_ok(status) && strlen(guests->run_dir) >= SPB_ROW_FOLDER_SIZE)
        return spb_fail(err, SPB_INVALID, "run_dir: %s is longer than %u bytes", guests->run_dir,
                        SPB_ROW_FOLDER_SIZE - 1);
    return status;
}

static spb_status lock_run_dir(struct spb_guests *guests, struct spb_error *err)
{
    char *path = NULL;
    spb_status status = spb_ok();

    if (asprintf(&path, "%s/lock", guests->run_dir) < 0)
        return spb_fail_memory(err, "locking the folder of running guests");
    guests->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (guests->lock_fd < 0)
        status = spb_fail_errno(err, SPB_IO, errno, "opening %s", path);
    else if (flock(guests->lock_fd, LOCK_EX | LOCK_NB) != 0)
        status = spb_fail_errno(err, SPB_LOCKED, errno,
                                "locking %s: another spaceblockd has its guests there", path);
    free(path);
    return status;
}

static void open_cgroup(struct spb_guests *guests)
{
    const struct spb_options *options = &guests->daemon->options;
    const char *path = options->cgroup[0] == '\0' ? NULL : options->cgroup;
    struct spb_error err;

    guests->cgroup = SPB_CGROUP_NONE;
    if (options->no_cgroup || spb_is_ok(spb_cgroup_open(path, &guests->cgroup, &err)))
        return;
    spb_log(&guests->daemon->log, path == NULL ? SPB_LOG_INFO : SPB_LOG_WARN, "no-cgroup",
            SPB_TEXT("reason", err.text), SPB_TEXT("outcome", "guests have resource limits only"));
}

spb_status spb_guests_start(struct spb_daemon *daemon, struct spb_error *err)
{
    struct spb_guests *guests = calloc(1, sizeof(*guests));

    if (guests == NULL)
        return spb_fail_memory(err, "making the table of guests");
    daemon->guests = guests;
    guests->daemon = daemon;
    guests->lock_fd = -1;
    guests->cgroup = SPB_CGROUP_NONE;
    (void)pthread_mutex_init(&guests->lock, NULL);
    (void)pthread_mutex_init(&guests->kvm_lock, NULL);
    if (asprintf(&guests->logs_dir, "%s/guests", daemon->data_dir) < 0) {
        guests->logs_dir = NULL;
        return spb_fail_memory(err, "naming the folder of consoles");
    }
    SPB_TRY(make_folder(guests->logs_dir, err));
    SPB_TRY(name_run_dir(guests, err));
    SPB_TRY(lock_run_dir(guests, err));
    open_cgroup(guests);
    return spb_supervisor_new(daemon, &guests->supervisor, err);
}

void spb_guests_stop(struct spb_daemon *daemon)
{
    struct spb_guests *guests = daemon->guests;

    if (guests == NULL)
        return;
    for (size_t i = 0; i < guests->count; i++)
        spb_guest_unref(guests->sorted[i]);
    free(guests->sorted);
    spb_supervisor_free(guests->supervisor);
    spb_cgroup_close(&guests->cgroup);
    if (guests->lock_fd >= 0)
        (void)close(guests->lock_fd);
    free(guests->run_dir);
    free(guests->logs_dir);
    (void)pthread_mutex_destroy(&guests->kvm_lock);
    (void)pthread_mutex_destroy(&guests->lock);
    free(guests);
    daemon->guests = NULL;
}

/* ---- The table ---------------------------------------------------------------------------- */

static int order(uint16_t tenant, const char *name, const struct spb_guest *guest)
{
    if (tenant != guest->tenant)
        return tenant < guest->tenant ? -1 : 1;
    return strcmp(name, guest->name);
}

/* Index of the first guest that does not come before the name; or, past it, that comes after. */
static size_t position(const struct spb_guests *guests, uint16_t tenant, const char *name,
                       bool past)
{
    size_t low = 0, high = guests->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int found = order(tenant, name, guests->sorted[middle]);

        if (found > 0 || (past && found == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct spb_guests *guests, size_t place, uint16_t tenant, const char *name)
{
    return place < guests->count && order(tenant, name, guests->sorted[place]) == 0;
}

struct spb_guest *spb_guests_find(struct spb_guests *guests, uint16_t tenant, const void *name,
                                  size_t name_len)
{
    char text[SPB_GUEST_NAME_SIZE];
    struct spb_guest *found = NULL;

    if (name_len >= sizeof(text))
        return NULL;
    memcpy(text, name, name_len);
    text[name_len] = '\0';
    (void)pthread_mutex_lock(&guests->lock);
    size_t place = position(guests, tenant, text, false);
    if (is_at(guests, place, tenant, text)) {
        found = guests->sorted[place];
        spb_guest_ref(found);
    }
    (void)pthread_mutex_unlock(&guests->lock);
    return found;
}

/* Under the lock, as the next two. */
static bool has_room(struct spb_guests *guests)
{
    if (guests->count < guests->room)
        return true;
    size_t room = guests->room == 0 ? ROOM_MIN : guests->room * 2;
    struct spb_guest **sorted = realloc(guests->sorted, room * sizeof(struct spb_guest *));
    if (sorted == NULL)
        return false;
    guests->sorted = sorted;
    guests->room = room;
    return true;
}

static spb_status check_bounds(const struct spb_guests *guests, uint16_t tenant,
                               struct spb_error *err)
{
    uint64_t max = SPB_LIMIT(guests->daemon, guests_max);
    uint64_t tenant_max = SPB_LIMIT(guests->daemon, guests_tenant_max);
    uint64_t of_tenant = 0;

    for (size_t i = 0; i < guests->count; i++)
        of_tenant += guests->sorted[i]->tenant == tenant;
    if (of_tenant >= tenant_max)
        return spb_fail(err, SPB_LIMIT,
                        "the tenant has %llu guests, at most %llu (guests_tenant_max) may be",
                        (unsigned long long)of_tenant, (unsigned long long)tenant_max);
    if (guests->count >= max)
        return spb_fail(err, SPB_LIMIT, "there are %zu guests, at most %llu (guests_max) may be",
                        guests->count, (unsigned long long)max);
    return spb_ok();
}

static spb_status add(struct spb_guests *guests, struct spb_guest *guest, struct spb_error *err)
{
    size_t place = position(guests, guest->tenant, guest->name, false);

    if (is_at(guests, place, guest->tenant, guest->name))
        return spb_fail(err, SPB_EXISTS, "guest %s exists", guest->text);
    if (!has_room(guests))
        return spb_fail_memory(err, "adding a guest");
    memmove(&guests->sorted[place + 1], &guests->sorted[place],
            (guests->count - place) * sizeof(struct spb_guest *));
    guests->sorted[place] = guest;
    guests->count++;
    spb_guest_ref(guest);
    return spb_ok();
}

spb_status spb_guests_add(struct spb_guests *guests, struct spb_guest *guest, struct spb_error *err)
{
    (void)pthread_mutex_lock(&guests->lock);
    size_t place = position(guests, guest->tenant, guest->name, false);
    spb_status status = spb_ok();
    if (!is_at(guests, place, guest->tenant, guest->name)) /* that it exists is the better answer */
        status = check_bounds(guests, guest->tenant, err);
    if (spb_is_ok(status))
        status = add(guests, guest, err);
    (void)pthread_mutex_unlock(&guests->lock);
    return status;
}

spb_status spb_guests_add_known(struct spb_guests *guests, struct spb_guest *guest,
                                struct spb_error *err)
{
    (void)pthread_mutex_lock(&guests->lock);
    spb_status status = add(guests, guest, err);
    (void)pthread_mutex_unlock(&guests->lock);
    return status;
}

void spb_guests_remove(struct spb_guests *guests, struct spb_guest *guest)
{
    (void)pthread_mutex_lock(&guests->lock);
    size_t place = position(guests, guest->tenant, guest->name, false);
    bool found = place < guests->count && guests->sorted[place] == guest;
    if (found) {
        guests->count--;
        memmove(&guests->sorted[place], &guests->sorted[place + 1],
                (guests->count - place) * sizeof(struct spb_guest *));
    }
    (void)pthread_mutex_unlock(&guests->lock);
    if (found)
        spb_guest_unref(guest);
}

size_t spb_guests_list(struct spb_guests *guests, const struct spb_guests_place *place,
                       struct spb_guest **out, size_t max)
{
    size_t found = 0, i = 0;

    (void)pthread_mutex_lock(&guests->lock);
    if (place->after_name != NULL)
        i = position(guests, (uint16_t)place->after_tenant, place->after_name, true);
    else if (place->tenant >= 0)
        i = position(guests, (uint16_t)place->tenant, "", false);
    for (; i < guests->count && found < max; i++) {
        struct spb_guest *guest = guests->sorted[i];

        if (place->tenant >= 0 && guest->tenant != place->tenant)
            break;
        spb_guest_ref(guest);
        out[found++] = guest;
    }
    (void)pthread_mutex_unlock(&guests->lock);
    return found;
}

/* ---- Sums --------------------------------------------------------------------------------- */

void spb_guests_tally(struct spb_guests *guests, uint64_t counts[SPB_LIFE_STATES])
{
    memset(counts, 0, SPB_LIFE_STATES * sizeof(counts[0]));
    (void)pthread_mutex_lock(&guests->lock);
    for (size_t i = 0; i < guests->count; i++)
        counts[spb_guest_state(guests->sorted[i])]++;
    (void)pthread_mutex_unlock(&guests->lock);
}

struct spb_guests_use spb_guests_use_of(struct spb_guests *guests, uint16_t tenant,
                                        const struct spb_guest *without)
{
    struct spb_guests_use use = {.cpus = 0};

    (void)pthread_mutex_lock(&guests->lock);
    for (size_t i = 0; i < guests->count; i++) {
        const struct spb_guest *guest = guests->sorted[i];

        if (guest->tenant != tenant || guest == without || !spb_life_counts(&guest->life))
            continue;
        use.memory_bytes += guest->config->memory_mib * MIB;
        use.cpus += guest->config->cpus;
    }
    (void)pthread_mutex_unlock(&guests->lock);
    return use;
}
