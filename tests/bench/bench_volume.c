/*
 * The volume library alone, without daemon: durable puts and appends on an image file, the cost of
 * deciding and of finding in memory, CRC-32C, and the time that opening an image takes. Prints one
 * line of JSON. Single-threaded.
 *
 *   bench_volume --dir D [--seconds S] [--sector-size S]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "meter.h"
#include "spaceblock/group.h"

#define BLOCKS 4096u
#define VALUE_SIZE 32u
#define IDS 16u
#define GROUP_PUTS 16u

struct context {
    char path[4096];
    double seconds;
    struct spb_format_options format;
    struct spb_volume *volume; /* owned; on path, writable */
    struct spb_group *group;   /* owned; GROUP_PUTS are decided in it, while that is measured */
    uint64_t turns;
};

/* One piece of work that is repeated. */
typedef spb_status (*work)(struct context *context, struct spb_error *err);

static const uint8_t value[VALUE_SIZE] = "what a parameter may well hold";

static struct spb_param_put next_put(struct context *context)
{
    struct spb_param_put put = {(uint32_t)(context->turns++ % IDS) + 1u, value, sizeof value,
                                SPB_ANY_GENERATION};

    return put;
}

static spb_status put_durably(struct context *context, struct spb_error *err)
{
    struct spb_param_put put = next_put(context);

    return spb_volume_put_param(context->volume, &put, NULL, err);
}

static spb_status append_durably(struct context *context, struct spb_error *err)
{
    struct spb_event event = {.severity = SPB_SEVERITY_INFO, .code = 1, .payload_len = VALUE_SIZE};

    memcpy(event.payload, value, sizeof value);
    context->turns++;
    return spb_volume_append_events(context->volume, &event, 1, NULL, err);
}

static spb_status decide_put(struct context *context, struct spb_error *err)
{
    struct spb_param_put put = next_put(context);
    struct spb_group *group;
    spb_status status;

    SPB_TRY(spb_group_new(context->volume, &group, err));
    status = spb_group_put_param(group, &put, NULL, err);
    spb_group_free(group);
    return status;
}

static spb_status decide_and_encode(struct context *context, struct spb_error *err)
{
    struct spb_param_put put = next_put(context);
    struct spb_group *group;
    uint8_t *bytes = NULL;
    size_t size = 0;
    spb_status status;

    SPB_TRY(spb_group_new(context->volume, &group, err));
    status = spb_group_put_param(group, &put, NULL, err);
    if (spb_is_ok(status))
        status = spb_group_encode(group, &bytes, &size, err);
    free(bytes);
    spb_group_free(group);
    return status;
}

/* What the audit takes of each change of a group: its words, and its share of the encoding. */
static spb_status describe_change(struct context *context, struct spb_error *err)
{
    struct spb_change_texts texts;

    SPB_TRY(spb_group_describe(
        context->group, context->turns++ % spb_group_change_count(context->group), 1, &texts, err));
    spb_change_texts_done(&texts);
    return spb_ok();
}

static spb_status encode_group(struct context *context, struct spb_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;

    SPB_TRY(spb_group_encode(context->group, &bytes, &size, err));
    free(bytes);
    return spb_ok();
}

static spb_status find_param(struct context *context, struct spb_error *err)
{
    struct spb_param param;

    return spb_param_find(context->volume, (uint32_t)(context->turns++ % IDS) + 1u, &param, NULL,
                          err);
}

static spb_status crc_of_mib(struct context *context, struct spb_error *err)
{
    static uint8_t data[1u << 20];

    (void)err;
    memcpy(data, &context->turns, sizeof context->turns);
    context->turns += spb_crc32c(0, data, sizeof data);
    return spb_ok();
}

static spb_status open_once(struct context *context, bool writable, struct spb_error *err)
{
    struct spb_open_options options = {0, writable};
    struct spb_device *device;
    struct spb_volume *volume;
    spb_status status;

    SPB_TRY(spb_device_file_open(context->path, writable ? SPB_FILE_WRITE : SPB_FILE_READ, &device,
                                 err));
    status = spb_volume_open(device, &options, &volume, err);
    if (!spb_is_ok(status)) {
        spb_device_close(device);
        return status;
    }
    spb_volume_close(volume);
    return status;
}

static spb_status open_to_read(struct context *context, struct spb_error *err)
{
    return open_once(context, false, err);
}

static spb_status open_to_write(struct context *context, struct spb_error *err)
{
    return open_once(context, true, err);
}

/* Repeats the work for the context's time and prints how long one took, in ns. */
static spb_status measure(struct context *context, const char *name, work one,
                          struct spb_error *err)
{
    uint64_t end_ns = bench_now_ns() + (uint64_t)(context->seconds * 1e9);
    uint64_t began_ns = bench_now_ns(), now_ns, count = 0;

    do {
        SPB_TRY(one(context, err));
        count++;
        now_ns = (count & 15u) == 0 || count < 16u ? bench_now_ns() : 0;
    } while (now_ns < end_ns);
    printf(", \"%s\": %.1f", name, (double)(now_ns - began_ns) / (double)count);
    return spb_ok();
}

static spb_status open_context(struct context *context, struct spb_error *err)
{
    struct spb_open_options options = {context->format.sector_size, true};
    struct spb_device *device;
    spb_status status;

    SPB_TRY(spb_image_create(context->path, &context->format, false, err));
    SPB_TRY(spb_device_file_open(context->path, SPB_FILE_WRITE, &device, err));
    status = spb_volume_open(device, &options, &context->volume, err);
    if (!spb_is_ok(status))
        spb_device_close(device);
    return status;
}

static spb_status measure_group(struct context *context, struct spb_error *err)
{
    SPB_TRY(spb_group_new(context->volume, &context->group, err));
    for (uint32_t i = 0; i < GROUP_PUTS; i++) {
        struct spb_param_put put = next_put(context);

        SPB_TRY(spb_group_put_param(context->group, &put, NULL, err));
    }
    SPB_TRY(measure(context, "describe_put_ns", describe_change, err));
    SPB_TRY(measure(context, "encode_16_puts_ns", encode_group, err));
    spb_group_free(context->group);
    context->group = NULL;
    return spb_ok();
}

static spb_status run(struct context *context, struct spb_error *err)
{
    SPB_TRY(open_context(context, err));
    printf("{\"sector_size\": %u", context->format.sector_size);
    SPB_TRY(measure(context, "put_ns", put_durably, err));
    SPB_TRY(measure(context, "append_ns", append_durably, err));
    SPB_TRY(measure(context, "decide_put_ns", decide_put, err));
    SPB_TRY(measure(context, "decide_encode_put_ns", decide_and_encode, err));
    SPB_TRY(measure_group(context, err));
    SPB_TRY(measure(context, "find_param_ns", find_param, err));
    SPB_TRY(measure(context, "crc_mib_ns", crc_of_mib, err));
    spb_volume_close(context->volume);
    context->volume = NULL;
    SPB_TRY(measure(context, "open_read_ns", open_to_read, err));
    SPB_TRY(measure(context, "open_write_ns", open_to_write, err));
    printf("}\n");
    return spb_ok();
}

int main(int argc, char **argv)
{
    static struct context context;
    struct spb_error err = {0};
    spb_status status;

    context.seconds = bench_number(argc, argv, "--seconds", 1, 0.001, 3600);
    context.format.total_blocks = BLOCKS;
    context.format.sector_size =
        (uint32_t)bench_number(argc, argv, "--sector-size", 512, 512, 65536);
    (void)snprintf(context.path, sizeof context.path, "%s/bench_volume.%ld.img",
                   bench_option(argc, argv, "--dir", "."), (long)getpid());
    status = run(&context, &err);
    spb_group_free(context.group);
    spb_volume_close(context.volume);
    (void)unlink(context.path);
    if (!spb_is_ok(status))
        (void)fprintf(stderr, "bench_volume: %s\n", err.text);
    return !spb_is_ok(status);
}
