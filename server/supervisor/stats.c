/* What a guest uses; see stats.h. */
#include "supervisor/stats.h"

#include "base/status.h"
#include "daemon.h"
#include "supervisor/guests.h"
#include "supervisor/session.h"
#include "supervisor/thread.h"

struct stats {
    struct spb_post post;
    struct spb_call *call;
    struct spb_process_stats process;
    uint64_t uptime_ms;
    PB_GuestDiskStats disks[SPB_GUEST_IMAGES_MAX];
    size_t disk_count;
};

static uint64_t number_of(const json_t *stats, const char *name)
{
    json_int_t number = json_integer_value(json_object_get(stats, name));

    return number > 0 ? (uint64_t)number : 0;
}

static void show_disk(const json_t *stats, PB_GuestDiskStats *shown)
{
    *shown = (PB_GuestDiskStats)SPACEBLOCK__V1__GUEST_DISK_STATS__INIT;
    shown->read_bytes = number_of(stats, "rd_bytes");
    shown->read_operations = number_of(stats, "rd_operations");
    shown->write_bytes = number_of(stats, "wr_bytes");
    shown->write_operations = number_of(stats, "wr_operations");
    shown->flush_operations = number_of(stats, "flush_operations");
    shown->failed_operations = number_of(stats, "failed_rd_operations") +
                               number_of(stats, "failed_wr_operations") +
                               number_of(stats, "failed_flush_operations");
}

/* Disks are in the order of the command line; what is no disk of ours has no device. */
static void take_disks(struct stats *stats, const json_t *disks)
{
    size_t most = stats->call->guest->config->n_images, i;
    const json_t *disk;

    json_array_foreach(disks, i, disk)
    {
        const char *device = json_string_value(json_object_get(disk, "qdev"));

        if (device != NULL && stats->disk_count < most)
            show_disk(json_object_get(disk, "stats"), &stats->disks[stats->disk_count++]);
    }
}

static void answer_stats(struct stats *stats)
{
    struct spb_call *call = stats->call;
    PB_GuestStatsResponse reply = SPACEBLOCK__V1__GUEST_STATS_RESPONSE__INIT;
    PB_GuestDiskStats *disks[SPB_GUEST_IMAGES_MAX];

    for (size_t i = 0; i < stats->disk_count; i++)
        disks[i] = &stats->disks[i];
    reply.guest = spb_guest_show(call->guest, call);
    reply.uptime_ms = stats->uptime_ms;
    reply.cpu_ms = stats->process.cpu_ms;
    reply.resident_bytes = stats->process.resident_bytes;
    reply.disks = disks;
    reply.n_disks = stats->disk_count;
    spb_console_extent(call->guest->console, &reply.console_kept_from, &reply.console_bytes);
    if (reply.guest != NULL)
        spb_call_set_reply(call, &reply.base);
    spb_call_send(call);
}

static void on_disks(void *user, const json_t *result, const struct spb_error *error)
{
    (void)error; /* it has ended meanwhile, or says none: the rest is as true */
    take_disks(user, result);
    answer_stats(user);
}

static void run_stats(struct spb_post *post)
{
    struct stats *stats = SPB_CONTAINER(post, struct stats, post);
    struct spb_guest *guest = stats->call->guest;
    uint64_t started_ms = guest->life.started_ms, now_ms = (uint64_t)(spb_unix_us() / 1000);
    struct spb_error err;

    if (guest->run != NULL && guest->run->process.pid != 0) {
        if (!spb_is_ok(spb_process_stats(&guest->run->process, &stats->process, &err)))
            stats->process = (struct spb_process_stats){.cpu_ms = 0};
        if (started_ms != 0 && now_ms > started_ms)
            stats->uptime_ms = now_ms - started_ms;
    }
    if (!spb_session_disks(guest, on_disks, stats))
        answer_stats(stats);
}

void spb_stats_answer(struct spb_call *call)
{
    struct stats *stats = spb_call_alloc(call, sizeof(*stats));

    if (stats == NULL) {
        spb_call_send(call);
        return;
    }
    *stats = (struct stats){.post = {.run = run_stats}, .call = call};
    if (!spb_supervisor_post(call->daemon->guests->supervisor, &stats->post))
        answer_stats(stats);
}
