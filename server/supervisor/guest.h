/*
 * A guest: what it is made of, its life, and what others see of it.
 *
 * Threads. Members of the first group never change. Those of the supervisor are its thread's alone
 * (thread.h). `lock` is over what is published: it is held for a copy, and the loop's thread takes
 * it too. The waits are the loop's. A guest lives as long as somebody has a reference to it.
 */
#ifndef SPB_SUPERVISOR_GUEST_H
#define SPB_SUPERVISOR_GUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "audit/tables.h"
#include "call.h"
#include "supervisor/console/console.h"
#include "supervisor/life.h"

#define SPB_GUEST_NAME_MAX 64u
#define SPB_GUEST_NAME_SIZE (SPB_GUEST_NAME_MAX + 1)
#define SPB_GUEST_IMAGES_MAX 16u
#define SPB_GUEST_MEMORY_USUAL_MIB 128u
#define SPB_GUEST_LABEL_SIZE 80u /* "TENANT/NAME" */

struct spb_guest_run;
struct spb_guest_wait;

/* What others see, all of one moment. */
struct spb_guest_view {
    struct spb_life life;
    uint64_t version;
    uint32_t pid;
    uint32_t accel; /* the API's; 0: it never ran */
};

struct spb_guest {
    struct spb_daemon *daemon;
    int64_t id; /* of its row */
    uint16_t tenant;
    char name[SPB_GUEST_NAME_SIZE];
    char text[SPB_GUEST_LABEL_SIZE];
    uint8_t uuid[16];
    uint64_t created_ms;
    PB_GuestConfig *config; /* owned; as it was asked for, with defaults but for its times */
    struct spb_console *console;
    atomic_uint refs;

    /* The supervisor's thread. */
    struct spb_life life;
    struct spb_guest_run *run; /* NULL: no QEMU, and none in the making */
    uint64_t version;
    uint64_t console_counted; /* bytes of its console that are in the metrics */
    uint32_t accel;
    char run_base[SPB_ROW_FOLDER_SIZE];
    bool is_active; /* in the list of those that have QEMUs or times to come */
    struct spb_guest *next_active, *next_queued;
    bool is_deleted;             /* or about to be: it is not started any more */
    bool is_recording, is_dirty; /* a row is being written; one is to be, once it can be */
    PB_ErrorReason failure;      /* of the last start; the text is the life's */
    struct spb_call *starters;   /* calls that wait until it runs, or does not; by next */
    struct spb_call *started;    /* those that it ran for: until that is recorded */
    uint64_t started_version, recorded_version;
    int64_t record_at_ns, record_wait_ns; /* when it is tried again, after what; 0: not */
    struct spb_call *enders;              /* until it has ended */
    /* Runs whose folders may be there still; when they are removed again, after what; 0: not. */
    uint64_t left_first, left_last;
    int64_t sweep_at_ns, sweep_wait_ns;

    atomic_bool is_behind; /* its row may be, of what is shown; any thread */

    pthread_mutex_t lock; /* over all below */
    struct spb_guest_view view;
    struct spb_post news; /* to the loop: waits are to be looked at */
    bool is_news_posted;
    uint32_t wait_count;

    struct spb_guest_wait *waits; /* the loop's thread */
};

/* What a guest is made from. config is packed, and borrowed. */
struct spb_guest_seed {
    uint16_t tenant;
    const char *name;
    uint8_t uuid[16];
    uint64_t created_ms, console_bytes;
    bool may_lack_log; /* better a guest without its console's log than none */
};

/*
 * A guest with the config, which becomes its own in every case (spb_guest_config_free). Opens its
 * console's log: blocks. The caller has the one reference.
 */
SPB_MUST_USE spb_status spb_guest_new(struct spb_daemon *daemon, const struct spb_guest_seed *seed,
                                      PB_GuestConfig *config, struct spb_guest **guest,
                                      struct spb_error *err);
void spb_guest_ref(struct spb_guest *guest);
/* Accepts NULL. */
void spb_guest_unref(struct spb_guest *guest);

/* Of the standard allocator. NULL where the bytes are none, or there is no memory. */
PB_GuestConfig *spb_guest_config_unpack(const uint8_t *bytes, size_t size);
void spb_guest_config_free(PB_GuestConfig *config);

/* The folder of a guest's console log; the caller's, free(). NULL without memory. */
char *spb_guest_log_folder(const struct spb_daemon *daemon, const uint8_t uuid[16]);

/* From the configuration and the limits in force. */
struct spb_life_rules spb_guest_rules(const struct spb_guest *guest);

/* What is published; any thread. */
struct spb_guest_view spb_guest_look(struct spb_guest *guest);
enum spb_life_state spb_guest_state(struct spb_guest *guest);
/* The supervisor's: publishes what the life says, as a higher version, and wakes who waits. */
void spb_guest_publish(struct spb_guest *guest);
/* Wakes who waits for it: its console has more. Any thread. */
void spb_guest_tell(struct spb_guest *guest);

/* The row as it is to be written. The supervisor's, or before there is one. */
void spb_guest_row(const struct spb_guest *guest, struct spb_guest_row *row);

/* The guest as the API shows it, in the call's arena; sets an error and returns NULL. */
PB_Guest *spb_guest_show(struct spb_guest *guest, struct spb_call *call);

#endif
