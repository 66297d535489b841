/* The laboratory: options, messages, opening volumes and comparing them. */
#include "crash/lab.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

void lab_fail(const struct lab *lab, const char *file, int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: FAILED at %s:%d\n  scenario %s, S=%u, --seed %llu\n  state: %s\n  ",
            lab->program, file, line, lab->scenario, lab->block_size, (unsigned long long)lab->seed,
            lab->where[0] != '\0' ? lab->where : "-");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    fflush(NULL);
    _Exit(1);
}

void lab_trace(const struct lab *lab, const char *format, ...)
{
    va_list args;

    if (!lab->trace)
        return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

const char *lab_option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    }
    return NULL;
}

void lab_init(struct lab *lab, const char *program, int argc, char **argv)
{
    const char *seed = lab_option(argc, argv, "--seed");
    const char *samples = lab_option(argc, argv, "--samples");

    if (samples == NULL)
        samples = getenv("SPB_CRASH_SAMPLES");
    /* Volumes come and go by the ten thousand: their buffers are kept, not mapped anew. */
    mallopt(M_MMAP_THRESHOLD, 1 << 26);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    memset(lab, 0, sizeof(*lab));
    lab->program = program;
    lab->scenario = "-";
    lab->trace = lab_option(argc, argv, "--trace") != NULL;
    lab->seed = seed != NULL ? strtoull(seed, NULL, 0) : 20240229;
    lab->limit = samples != NULL ? strtoull(samples, NULL, 0) : 4096;
    if (lab->limit < 2)
        lab->limit = 2;
    lab->random = lab->seed;
}

void lab_done(struct lab *lab)
{
    free(lab->image);
    free(lab->statement);
    model_free(lab->model);
    medium_free(lab->medium);
    medium_free(lab->cut);
    medium_free(lab->nested);
    medium_free(lab->heir);
}

/* Large blocks take long to open: fewer states of them. */
uint64_t lab_limit(const struct lab *lab)
{
    uint64_t limit = lab->limit;

    if (lab->block_size >= 65536)
        limit /= 64;
    return limit < 2 ? 2 : limit;
}

struct spb_volume *lab_open(const struct lab *lab, struct medium *medium, bool writable)
{
    struct spb_open_options options = {.sector_size = 0, .writable = writable};
    struct spb_device *device = medium_attach(medium);
    struct spb_volume *volume = NULL;
    struct spb_error err;

    device->writable = writable;
    CHECK(lab, spb_is_ok(spb_volume_open(device, &options, &volume, &err)), "opening: %s",
          err.text);
    CHECK(lab, spb_volume_sector_size(volume) == lab->block_size, "opened with S=%u",
          spb_volume_sector_size(volume));
    return volume;
}

void lab_compare(const struct lab *lab, struct model *model, struct spb_volume *volume,
                 const char *when)
{
    char why[MODEL_WHY_SIZE];

    CHECK(lab, model_compare(model, volume, why), "%s: %s", when, why);
}

void lab_check_medium(const struct lab *lab, const struct medium *medium, const char *when)
{
    const uint8_t *visible = medium_visible(medium), *durable = medium_durable(medium);
    size_t end = (size_t)34 * lab->block_size;

    CHECK(lab, medium_violations(medium) == 0, "%s: %s", when, medium_violation(medium));
    if (end > lab->size)
        end = lab->size;
    for (size_t at = 0; at < end; at += SPB_SECTOR_SIZE)
        CHECK(lab, memcmp(visible + at, durable + at, SPB_SECTOR_SIZE) == 0,
              "%s: sector %zu (block %zu) is visible and not durable", when, at / SPB_SECTOR_SIZE,
              at / lab->block_size);
}

void lab_check_durable(const struct lab *lab, struct medium *medium, struct model *model,
                       const char *when)
{
    medium_power_loss(medium);
    struct spb_volume *volume = lab_open(lab, medium, true);

    lab_compare(lab, model, volume, when);
    lab_check_medium(lab, medium, when);
    spb_volume_close(volume);
}

/* ---- One more change ------------------------------------------------------------------------ */

static spb_status one_more_put(struct lab *lab, struct spb_volume *volume, struct model *model,
                               struct spb_error *err)
{
    uint32_t id = 4000000000u;
    struct spb_param_put put = {id, "one more", 8, SPB_ANY_GENERATION};
    struct model_item item = {id, model_next_generation(volume, id), "one more", 8};
    uint16_t generation = 0;
    spb_status status = spb_volume_put_param(volume, &put, &generation, err);

    if (spb_is_ok(status)) {
        CHECK(lab, generation == item.generation, "one more put: generation %u, expected %u",
              generation, item.generation);
        model_put(model, &item, 1);
    }
    return status;
}

/* Of the nth id that the model has. */
static spb_status one_more_put_again(struct lab *lab, struct spb_volume *volume,
                                     struct model *model, uint64_t pick, struct spb_error *err)
{
    uint32_t ids[64];
    size_t count = 0;
    bool present = false;

    for (size_t i = 0; count < 64 && model_param_id(model, i, &ids[count], &present); i++)
        count += present;
    if (count == 0)
        return one_more_put(lab, volume, model, err);
    uint32_t id = ids[pick % count];
    struct spb_param_put put = {id, "once more", 9, SPB_ANY_GENERATION};
    struct model_item item = {id, model_next_generation(volume, id), "once more", 9};
    spb_status status = spb_volume_put_param(volume, &put, NULL, err);

    if (spb_is_ok(status))
        model_put(model, &item, 1);
    return status;
}

static spb_status one_more_append(struct spb_volume *volume, struct model *model,
                                  struct spb_error *err)
{
    struct spb_event event = {
        .timestamp = 77, .severity = 2, .payload_len = 4, .code = 4242, .payload = "more"};
    spb_status status = spb_volume_append_events(volume, &event, 1, NULL, err);

    if (spb_is_ok(status))
        model_append(model, &event, 1);
    return status;
}

static spb_status one_more_product(struct lab *lab, struct spb_volume *volume, struct model *model,
                                   struct spb_error *err)
{
    struct spb_product_attributes attributes = {"one-more", 8, 4, 5};
    uint8_t bytes[600];
    spb_status status;

    random_fill(&lab->random, bytes, sizeof(bytes));
    status = spb_volume_put_product(volume, &attributes, bytes, sizeof(bytes), true, NULL, err);
    if (spb_is_ok(status))
        model_put_product(model, "one-more", 4, 5, bytes, sizeof(bytes));
    return status;
}

static spb_status one_more_delete(struct spb_volume *volume, struct model *model, uint64_t pick,
                                  struct spb_error *err)
{
    const char *name;
    bool present = false;

    for (size_t i = 0; (name = model_product_name(model, i, &present)) != NULL; i++) {
        if (!present || (i + pick) % 2 != 0)
            continue;
        spb_status status = spb_volume_delete_product(volume, name, strlen(name), err);

        if (spb_is_ok(status))
            model_delete_product(model, name);
        return status;
    }
    return one_more_append(volume, model, err);
}

void lab_one_more(struct lab *lab, struct medium *medium, struct spb_volume *volume,
                  struct model *model, uint64_t pick)
{
    struct spb_error err = {.code = SPB_OK};
    spb_status status;

    switch (pick % 5) {
    case 0:
        status = one_more_put(lab, volume, model, &err);
        break;
    case 1:
        status = one_more_append(volume, model, &err);
        break;
    case 2:
        status = one_more_product(lab, volume, model, &err);
        break;
    case 3:
        status = one_more_put_again(lab, volume, model, pick / 5, &err);
        break;
    default:
        status = one_more_delete(volume, model, pick / 5, &err);
    }
    CHECK(lab, spb_is_ok(status) || status.code == SPB_FULL, "one more change (%u): %s",
          (unsigned)(pick % 5), err.text);
    model_settle(model);
    lab_compare(lab, model, volume, "after one more change");
    medium_kill(medium);
    spb_volume_close(volume);
    lab_check_durable(lab, medium, model, "opened after one more change");
}
