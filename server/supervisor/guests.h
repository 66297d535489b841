/*
 * All guests of the daemon: a table in order of tenant and name, and what they share. Any thread,
 * under a lock of its own, under which only those of guests are taken.
 */
#ifndef SPB_SUPERVISOR_GUESTS_H
#define SPB_SUPERVISOR_GUESTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "supervisor/guest.h"
#include "supervisor/process/cgroup.h"

struct spb_supervisor;

struct spb_guests {
    struct spb_daemon *daemon;
    char *logs_dir; /* owned; DATA_DIR/guests */
    char *run_dir;  /* owned; as configured, absolute */
    int lock_fd;    /* holds run_dir/lock: folders of another daemon are not ours to remove */
    struct spb_cgroup cgroup;
    struct spb_supervisor *supervisor;
    pthread_mutex_t kvm_lock; /* over the next two; one asks at a time */
    bool kvm_is_known, kvm_works;
    _Atomic(uint64_t) restarts, console_bytes; /* since the start; for the metrics */

    atomic_uint adopting; /* whose QEMUs have not answered yet, since the start */

    pthread_mutex_t lock;      /* over all below */
    struct spb_guest **sorted; /* each holds a reference */
    size_t count, room;
};

/* A part of the daemon: makes folders and the supervisor, which has no thread yet. */
SPB_MUST_USE spb_status spb_guests_start(struct spb_daemon *daemon, struct spb_error *err);
/* No worker runs any more. */
void spb_guests_stop(struct spb_daemon *daemon);

/* The guest, referenced for the caller; NULL where there is none. */
struct spb_guest *spb_guests_find(struct spb_guests *guests, uint16_t tenant, const void *name,
                                  size_t name_len);
/* Takes a reference of its own. SPB_EXISTS; SPB_LIMIT: guests_max, guests_tenant_max. */
SPB_MUST_USE spb_status spb_guests_add(struct spb_guests *guests, struct spb_guest *guest,
                                       struct spb_error *err);
/* Of those that are read at the start: without limits. */
SPB_MUST_USE spb_status spb_guests_add_known(struct spb_guests *guests, struct spb_guest *guest,
                                             struct spb_error *err);
void spb_guests_remove(struct spb_guests *guests, struct spb_guest *guest);

/* As spb_registry_list. tenant < 0: all; after_name NULL: from the start. */
struct spb_guests_place {
    int32_t tenant, after_tenant;
    const char *after_name;
};
size_t spb_guests_list(struct spb_guests *guests, const struct spb_guests_place *place,
                       struct spb_guest **out, size_t max);

/* Guests by state: counts[state]. */
void spb_guests_tally(struct spb_guests *guests, uint64_t counts[SPB_LIFE_STATES]);

/* What a tenant's guests that run, or will again by themselves, take together, without one. The
 * supervisor's thread. */
struct spb_guests_use {
    uint64_t memory_bytes, cpus;
};
struct spb_guests_use spb_guests_use_of(struct spb_guests *guests, uint16_t tenant,
                                        const struct spb_guest *without);

/* ---- Of the supervisor, for guest.c ------------------------------------------------------- */

/* The console has taken bytes. The supervisor's thread. */
void spb_guests_console_arrived(struct spb_guest *guest, uint64_t end);
/* Of QEMU; 0: none. The supervisor's thread. */
uint32_t spb_guests_pid(const struct spb_guest *guest);
/* Looks at the calls that wait. The loop's thread; in services/guest_waits.c. */
void spb_guests_tell_waits(struct spb_guest *guest);

#endif
