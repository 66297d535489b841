/*
 * Every limit of the daemon, in one table: name, default, bounds, unit and meaning. The
 * configuration's [limits], --limit, --help, the example configuration, its manual page and
 * Server.Info are all made from it or held to it by a test.
 *
 * Each is an integer in the unit that its name ends with. A daemon's live limits are read with
 * SPB_LIMIT by any thread, and change on a reload while others read them; what is in force for a
 * connection or call that exists already is said where it is used. No other state.
 */
#ifndef SPB_SERVER_LIMIT_H
#define SPB_SERVER_LIMIT_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

struct spb_limits {
    /* Connections. */
    uint64_t connections_max;
    uint64_t first_frame_ms;
    uint64_t frame_ms;
    uint64_t frame_bytes_per_s;
    uint64_t idle_ms;
    uint64_t output_pause_bytes;
    uint64_t output_max_bytes;
    uint64_t output_stall_ms;
    uint64_t tcp_user_timeout_ms;
    uint64_t tcp_keepalive_s;
    uint64_t descriptors_reserve;
    uint64_t accept_rest_ms;
    /* Calls. */
    uint64_t calls_in_flight_max;
    uint64_t control_max_bytes;
    uint64_t chunk_max_bytes;
    uint64_t request_fields_max;
    uint64_t metadata_pairs_max;
    uint64_t metadata_max_bytes;
    uint64_t call_memory_max_bytes;
    uint64_t connection_requests_max_bytes;
    uint64_t connection_replies_max_bytes;
    uint64_t buffers_max_bytes;
    uint64_t pressure_ms;
    uint64_t drain_ms;
    /* Images. */
    uint64_t image_queue_max;
    uint64_t uploads_max;
    uint64_t uploads_principal_max;
    uint64_t upload_life_s;
    uint64_t upload_sync_bytes;
    uint64_t backups_max;
    uint64_t backups_principal_max;
    uint64_t backup_life_s;
    uint64_t copies_running_max;
    uint64_t temporary_max_bytes;
    uint64_t scrub_interval_s;
    uint64_t scrub_bytes_per_s;
    /* Events. */
    uint64_t watch_wait_max_ms;
    uint64_t watchers_max;
    /* Audit. */
    uint64_t replay_entries_max;
    uint64_t replay_life_s;
    uint64_t outcomes_batch_ms;
    uint64_t audit_keep_days;
    /* Guests. */
    uint64_t guests_max;
    uint64_t guests_tenant_max;
    uint64_t guests_tenant_memory_max_bytes;
    uint64_t guests_tenant_cpus_max;
    uint64_t guest_memory_max_bytes;
    uint64_t guest_cpus_max;
    uint64_t guest_starts_max;
    uint64_t guest_start_ms;
    uint64_t guest_boot_ms;
    uint64_t guest_stop_ms;
    uint64_t guest_quit_ms;
    uint64_t guest_monitor_ms;
    uint64_t guest_backoff_ms;
    uint64_t guest_backoff_max_ms;
    uint64_t guest_healthy_ms;
    uint64_t console_memory_bytes;
    uint64_t console_log_max_bytes;
    /* The HTTP listener. */
    uint64_t http_connections_max;
    uint64_t http_connection_ms;
    uint64_t http_headers_max_bytes;
};

/* A live limit; any thread. holder has a member limits. */
#define SPB_LIMIT(holder, name) __atomic_load_n(&(holder)->limits.name, __ATOMIC_RELAXED)

enum spb_limit_unit {
    SPB_UNIT_COUNT,
    SPB_UNIT_BYTES,
    SPB_UNIT_MS,
    SPB_UNIT_S,
    SPB_UNIT_BYTES_PER_S,
};

struct spb_limit_row {
    const char *name; /* of the member, the key and the option */
    size_t offset;    /* of the member */
    uint64_t usual, min, max;
    enum spb_limit_unit unit;
    const char *text; /* one sentence */
};

/* All of them, in the order of the struct; *count gets their number. */
const struct spb_limit_row *spb_limit_rows(size_t *count);
/* NULL where there is none of that name. */
const struct spb_limit_row *spb_limit_find(const char *name);
/* "bytes", "ms", ...; "" for a count. */
const char *spb_limit_unit_name(enum spb_limit_unit unit);

void spb_limits_init(struct spb_limits *limits);
uint64_t spb_limit_get(const struct spb_limits *limits, const struct spb_limit_row *row);
/*
 * From text: a decimal number; of bytes also with KiB, MiB or GiB after it. SPB_INVALID says what
 * was found and expected, and changes nothing.
 */
SPB_MUST_USE spb_status spb_limit_parse(struct spb_limits *limits, const struct spb_limit_row *row,
                                        const char *text, struct spb_error *err);
/* Whether they fit each other. */
SPB_MUST_USE spb_status spb_limits_check(const struct spb_limits *limits, struct spb_error *err);

/* Copies to live ones, member by member, for readers in other threads. */
void spb_limits_publish(struct spb_limits *live, const struct spb_limits *limits);

#endif
