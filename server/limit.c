/* Every limit of the daemon; see limit.h. Constant but for what the caller owns; any thread. */
#include "limit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "util.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define HOUR_S UINT64_C(3600)
#define DAY_S (24 * HOUR_S)
#define HOUR_MS (1000 * HOUR_S)

#define ROW(member, usual, min, max, unit, text)                                                   \
    {                                                                                              \
#member, offsetof(struct spb_limits, member), usual, min, max, SPB_UNIT_##unit, text       \
    }

/* Where a maximum equals the default, the protocol fixes it: it can only be lowered. */
static const struct spb_limit_row rows[] = {
    ROW(connections_max, 1024, 1, 65536, COUNT, "connections at once; more are closed at once"),
    ROW(first_frame_ms, 10000, 100, HOUR_MS, MS,
        "time from accepting a connection to its first frame being whole"),
    ROW(frame_ms, 10000, 100, HOUR_MS, MS,
        "time for a frame to arrive, beside that of its bytes at frame_bytes_per_s"),
    ROW(frame_bytes_per_s, 16 * KIB, 1, GIB, BYTES_PER_S,
        "slowest rate of a frame, and of answers being read"),
    ROW(idle_ms, 120000, 100, 24 * HOUR_MS, MS,
        "time without a call, after which a connection is closed"),
    ROW(output_pause_bytes, MIB, 64 * KIB, 64 * MIB, BYTES,
        "answers waiting on a connection, from which on it is not read"),
    ROW(output_max_bytes, 8 * MIB, 64 * KIB, 256 * MIB, BYTES,
        "answers waiting on a connection, from which on it is closed"),
    ROW(output_stall_ms, 30000, 100, HOUR_MS, MS,
        "time that answers may wait unread, or be read more slowly than frame_bytes_per_s"),
    ROW(tcp_user_timeout_ms, 30000, 0, HOUR_MS, MS,
        "TCP: time that bytes may stay unacknowledged; 0: the system's"),
    ROW(tcp_keepalive_s, 30, 1, HOUR_S, S,
        "TCP: quiet time before a probe; three follow, 10 s apart"),
    ROW(descriptors_reserve, 32, 4, 4096, COUNT,
        "file descriptors that connections never take, kept for the daemon's own work"),
    ROW(accept_rest_ms, 100, 10, 60000, MS,
        "time that a listener rests when no descriptors are left"),
    ROW(calls_in_flight_max, 64, 1, 4096, COUNT, "calls in flight on a connection"),
    ROW(control_max_bytes, 64 * KIB, 4 * KIB, 64 * KIB, BYTES,
        "a request's payload, other than a chunk's"),
    ROW(chunk_max_bytes, MIB, 64 * KIB, MIB, BYTES, "a chunk that is written or read"),
    ROW(request_fields_max, 16384, 256, 1048576, COUNT,
        "fields of a request's message, those of messages in it not counted"),
    ROW(metadata_pairs_max, 32, 0, 32, COUNT, "pairs of metadata of a call"),
    ROW(metadata_max_bytes, 8 * KIB, 0, 8 * KIB, BYTES, "keys and values of a call's metadata"),
    ROW(call_memory_max_bytes, 16 * MIB, MIB, 256 * MIB, BYTES, "memory of one call"),
    ROW(connection_requests_max_bytes, 4 * MIB, 64 * KIB, 256 * MIB, BYTES,
        "requests in work on a connection, from which on it is not read"),
    ROW(connection_replies_max_bytes, 4 * MIB, 64 * KIB, 256 * MIB, BYTES,
        "large answers waiting or to come on a connection, from which on it is not read"),
    ROW(buffers_max_bytes, 96 * MIB, 16 * MIB, 64 * GIB, BYTES,
        "requests and answers of all connections; then the greedy wait"),
    ROW(pressure_ms, 1000, 100, HOUR_MS, MS,
        "time that one waits for such memory before the slowest user of it loses its own"),
    ROW(drain_ms, 30000, 0, HOUR_MS, MS, "time for running calls to end after SIGTERM"),
    ROW(image_queue_max, 4096, 1, 1048576, COUNT, "operations queued for an image"),
    ROW(uploads_max, 64, 1, 4096, COUNT, "uploads at once"),
    ROW(uploads_principal_max, 32, 1, 4096, COUNT, "uploads at once of one principal"),
    ROW(upload_life_s, DAY_S, 1, 30 * DAY_S, S, "time that an upload lives after its last use"),
    ROW(upload_sync_bytes, 8 * MIB, 64 * KIB, GIB, BYTES,
        "bytes of an upload after which what has come is made durable"),
    ROW(backups_max, 16, 0, 1024, COUNT, "backups at once, made or being made"),
    ROW(backups_principal_max, 4, 0, 1024, COUNT, "backups at once of one principal"),
    ROW(backup_life_s, HOUR_S, 1, 30 * DAY_S, S, "time that a backup lives after its last use"),
    ROW(copies_running_max, 2, 1, 8, COUNT, "images copied at once; more wait"),
    ROW(temporary_max_bytes, 256 * GIB, 0, 1024 * 1024 * GIB, BYTES,
        "files of uploads, backups and clones in the making, together"),
    ROW(scrub_interval_s, 7 * DAY_S, 0, 366 * DAY_S, S,
        "time from one scrub of an image to the next; 0: none by itself"),
    ROW(scrub_bytes_per_s, 16 * MIB, 64 * KIB, 64 * GIB, BYTES_PER_S,
        "rate at which scrubs read from the medium"),
    ROW(watch_wait_max_ms, 60000, 0, HOUR_MS, MS, "longest time that a watch waits for events"),
    ROW(watchers_max, 1024, 0, 65536, COUNT,
        "calls waiting at once for something to come: watches, waits for guests and their "
        "consoles, scrubs"),
    ROW(replay_entries_max, 100000, 0, 1000000, COUNT,
        "results of changes kept for a principal, for calls that are repeated; 1000000 for all "
        "together"),
    ROW(replay_life_s, DAY_S, 0, 30 * DAY_S, S, "time that such a result is kept"),
    ROW(outcomes_batch_ms, 1000, 0, 60000, MS,
        "time that outcomes of changes wait to be written to the audit together"),
    ROW(audit_keep_days, 0, 0, 36500, COUNT,
        "days that a change is kept in the audit after it ended, from the next start on; 0: for "
        "ever"),
    ROW(guests_max, 1024, 0, 65536, COUNT, "guests of all tenants"),
    ROW(guests_tenant_max, 256, 0, 65536, COUNT, "guests of one tenant"),
    ROW(guests_tenant_memory_max_bytes, 16 * GIB, 0, 1024 * 1024 * GIB, BYTES,
        "memory of one tenant's guests that run, or will again by themselves"),
    ROW(guests_tenant_cpus_max, 64, 0, 65536, COUNT, "CPUs of those guests"),
    ROW(guest_memory_max_bytes, 4 * GIB, 32 * MIB, 1024 * GIB, BYTES, "memory of one guest"),
    ROW(guest_cpus_max, 8, 1, 64, COUNT, "CPUs of one guest"),
    ROW(guest_starts_max, 4, 1, 256, COUNT,
        "guests being started at once, until QEMU answers; more wait"),
    ROW(guest_start_ms, 30000, 100, HOUR_MS, MS, "time from QEMU's start to its monitor's answers"),
    ROW(guest_boot_ms, 60000, 100, HOUR_MS, MS,
        "time from a guest's start to its first sign of life, where it says none"),
    ROW(guest_stop_ms, 20000, 0, HOUR_MS, MS,
        "time from a guest's power button to QEMU's end, where it says none"),
    ROW(guest_quit_ms, 10000, 100, HOUR_MS, MS, "time from telling QEMU to end to killing it"),
    ROW(guest_monitor_ms, 30000, 100, HOUR_MS, MS,
        "time for QEMU's monitor to answer a command, after which QEMU is killed"),
    ROW(guest_backoff_ms, 500, 1, HOUR_MS, MS,
        "time before a guest is started again; doubled with each short run, cut by half at random"),
    ROW(guest_backoff_max_ms, 60000, 1, 24 * HOUR_MS, MS, "longest such time"),
    ROW(guest_healthy_ms, 60000, 1, 24 * HOUR_MS, MS,
        "length of a run that is no short one any more"),
    ROW(console_memory_bytes, 256 * KIB, 4 * KIB, 16 * MIB, BYTES,
        "newest output of a running guest's console kept in memory, as a power of two"),
    ROW(console_log_max_bytes, 16 * MIB, 64 * KIB, 64 * GIB, BYTES,
        "output of a guest's console kept on disk"),
    ROW(http_connections_max, 16, 1, 1024, COUNT,
        "HTTP connections at once; one more ends the oldest"),
    ROW(http_connection_ms, 10000, 100, HOUR_MS, MS, "life of an HTTP connection"),
    ROW(http_headers_max_bytes, 8 * KIB, KIB, 64 * KIB, BYTES,
        "request line and headers of an HTTP request"),
};

_Static_assert(SPB_COUNT(rows) * sizeof(uint64_t) == sizeof(struct spb_limits),
               "a row for each member");

const struct spb_limit_row *spb_limit_rows(size_t *count)
{
    *count = SPB_COUNT(rows);
    return rows;
}

const struct spb_limit_row *spb_limit_find(const char *name)
{
    for (size_t i = 0; i < SPB_COUNT(rows); i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

const char *spb_limit_unit_name(enum spb_limit_unit unit)
{
    static const char *const names[] = {
        [SPB_UNIT_COUNT] = "", [SPB_UNIT_BYTES] = "bytes",         [SPB_UNIT_MS] = "ms",
        [SPB_UNIT_S] = "s",    [SPB_UNIT_BYTES_PER_S] = "bytes/s",
    };

    return names[unit];
}

static uint64_t *member(struct spb_limits *limits, const struct spb_limit_row *row)
{
    return (uint64_t *)(void *)((char *)limits + row->offset);
}

void spb_limits_init(struct spb_limits *limits)
{
    for (size_t i = 0; i < SPB_COUNT(rows); i++)
        *member(limits, &rows[i]) = rows[i].usual;
}

uint64_t spb_limit_get(const struct spb_limits *limits, const struct spb_limit_row *row)
{
    return *(const uint64_t *)(const void *)((const char *)limits + row->offset);
}

/* What one of the text's unit is in the row's; 0: it is none. */
static uint64_t scale_of(const struct spb_limit_row *row, const char *suffix)
{
    bool bytes = row->unit == SPB_UNIT_BYTES || row->unit == SPB_UNIT_BYTES_PER_S;

    suffix += strspn(suffix, " ");
    if (*suffix == '\0')
        return 1;
    if (bytes && strcmp(suffix, "KiB") == 0)
        return KIB;
    if (bytes && strcmp(suffix, "MiB") == 0)
        return MIB;
    if (bytes && strcmp(suffix, "GiB") == 0)
        return GIB;
    return 0;
}

spb_status spb_limit_parse(struct spb_limits *limits, const struct spb_limit_row *row,
                           const char *text, struct spb_error *err)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t scale = scale_of(row, text + digits), number = 0;

    errno = 0;
    if (digits > 0)
        number = strtoull(text, NULL, 10);
    if (digits == 0 || scale == 0 || errno != 0 || number > UINT64_MAX / scale ||
        number * scale < row->min || number * scale > row->max)
        return spb_fail(err, SPB_INVALID, "%s: found \"%.64s\", expected %llu to %llu%s%s",
                        row->name, text, (unsigned long long)row->min, (unsigned long long)row->max,
                        row->unit == SPB_UNIT_COUNT ? "" : " ", spb_limit_unit_name(row->unit));
    *member(limits, row) = number * scale;
    return spb_ok();
}

spb_status spb_limits_check(const struct spb_limits *limits, struct spb_error *err)
{
    if (limits->output_max_bytes < limits->output_pause_bytes)
        return spb_fail(err, SPB_INVALID,
                        "output_max_bytes is %llu, expected at least output_pause_bytes (%llu)",
                        (unsigned long long)limits->output_max_bytes,
                        (unsigned long long)limits->output_pause_bytes);
    return spb_ok();
}

void spb_limits_publish(struct spb_limits *live, const struct spb_limits *limits)
{
    for (size_t i = 0; i < SPB_COUNT(rows); i++)
        __atomic_store_n(member(live, &rows[i]), spb_limit_get(limits, &rows[i]), __ATOMIC_RELAXED);
}
