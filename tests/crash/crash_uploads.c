/*
 * Uploads that a crash cuts off: at every state that power loss or the death of the process leaves,
 * what a sync said is durable is there, and a writer that goes on from it ends with the whole
 * product.
 */
#include "crash/lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "support/model_inside.h"

#define SYNCS_MAX 16

/* What a sync said, and when: a state of after it has it. */
struct synced {
    uint64_t offset;
    uint32_t crc;
    size_t flushes, steps; /* of the record, at its return */
};

struct upload {
    struct lab *lab;
    uint8_t *bytes;
    size_t size;
    uint32_t block, count; /* the extent */
    struct synced syncs[SYNCS_MAX];
    size_t sync_count;
};

static struct spb_product_writer *begin(const struct upload *u, struct spb_volume *volume,
                                        struct spb_reservation **reservation)
{
    struct spb_product_writer *writer = NULL;
    struct spb_error err;

    CHECK(u->lab, spb_is_ok(spb_reservation_new(volume, u->size, reservation, &err)), "%s",
          err.text);
    CHECK(u->lab, spb_is_ok(spb_product_writer_new(volume, *reservation, u->size, &writer, &err)),
          "%s", err.text);
    return writer;
}

static void note_sync(struct upload *u, struct spb_product_writer *writer, struct medium *medium,
                      uint64_t flushes_before)
{
    struct synced *s = &u->syncs[u->sync_count++];
    struct spb_error err;

    SPB_ASSERT(u->sync_count <= SYNCS_MAX);
    CHECK(u->lab, spb_is_ok(spb_product_writer_sync(writer, &s->offset, &s->crc, &err)), "%s",
          err.text);
    CHECK(u->lab, s->crc == spb_crc32c(0, u->bytes, s->offset), "a sync at %llu has another CRC",
          (unsigned long long)s->offset);
    s->flushes = (size_t)(medium_counts(medium).flushes - flushes_before);
    s->steps = medium_steps(medium);
}

static void publish(struct lab *lab, struct spb_volume *volume, struct spb_reservation *reservation,
                    struct spb_product_writer *writer)
{
    struct spb_product_attributes attributes = {"upload", 6, 5, 6};
    struct spb_product_data data;
    struct spb_group *group = NULL;
    struct spb_error err;

    CHECK(lab, spb_is_ok(spb_product_writer_finish(writer, &data, &err)), "%s", err.text);
    CHECK(lab, spb_is_ok(spb_product_data_verify(volume, reservation, &data, &err)), "%s",
          err.text);
    CHECK(lab, spb_is_ok(spb_group_new(volume, &group, &err)), "%s", err.text);
    CHECK(lab,
          spb_is_ok(
              spb_group_publish_product(group, reservation, &attributes, &data, false, NULL, &err)),
          "%s", err.text);
    CHECK(lab, spb_is_ok(spb_group_carry_out(group, &err)), "%s", err.text);
    spb_group_make_visible(group);
    spb_group_free(group);
}

/* A writer on the extent again, from an offset; NULL where the bytes there are others. */
static struct spb_product_writer *resume(const struct upload *u, struct spb_volume *volume,
                                         struct spb_reservation *reservation,
                                         const struct synced *from, bool must)
{
    struct spb_product_writer *writer = NULL;
    struct spb_error err;
    spb_status status = spb_product_writer_resume(volume, reservation, u->size, from->offset,
                                                  from->crc, &writer, &err);

    CHECK(u->lab, spb_is_ok(status) || (!must && status.code == SPB_CORRUPT),
          "going on at %llu: %s", (unsigned long long)from->offset, err.text);
    return writer;
}

/* Goes on in what a crash left, to the end. */
static void go_on(const struct upload *u, struct medium *medium, size_t known)
{
    static const struct synced start = {0, 0, 0, 0};
    struct lab *lab = u->lab;
    struct spb_volume *volume = lab_open(lab, medium, true);
    const struct synced *from = known == 0 ? &start : &u->syncs[known - 1];
    struct spb_product_writer *writer = NULL;
    struct spb_reservation *reservation = NULL;
    struct model *model = model_clone(lab->model);
    struct spb_error err;

    lab_compare(lab, model, volume, "opened");
    CHECK(lab,
          spb_is_ok(spb_reservation_new_extent(volume, u->block, u->count, &reservation, &err)),
          "%s", err.text);
    /* A later sync that was cut off may have made its bytes durable: then they are the right ones.
     */
    if (known < u->sync_count && lab->states % 2 == 0)
        writer = resume(u, volume, reservation, &u->syncs[known], false);
    if (writer == NULL)
        writer = resume(u, volume, reservation, from, true);
    uint64_t at = spb_product_writer_offset(writer);
    CHECK(lab, spb_is_ok(spb_product_writer_write(writer, u->bytes + at, u->size - at, &err)), "%s",
          err.text);
    publish(lab, volume, reservation, writer);
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    model_put_product(model, "upload", 5, 6, u->bytes, u->size);
    model_settle(model);
    lab_compare(lab, model, volume, "finished");
    CHECK(lab, medium_violations(medium) == 0, "%s", medium_violation(medium));
    medium_kill(medium);
    spb_volume_close(volume);
    lab_check_durable(lab, medium, model, "finished, after power loss");
    model_free(model);
    lab->states++;
}

static void check_cut(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    struct upload *u = user;
    size_t known = 0;

    snprintf(u->lab->where, sizeof(u->lab->where), "power cut after flush %zu, %zu of %zu reached",
             cut->epoch, cut->reached, cut->changed);
    while (known < u->sync_count && u->syncs[known].flushes <= cut->epoch)
        known++;
    medium_reset(u->lab->cut, image);
    go_on(u, u->lab->cut, known);
}

static void check_deaths(struct upload *u)
{
    struct lab *lab = u->lab;

    for (size_t step = 0; step <= medium_steps(lab->medium); step++) {
        size_t known = 0;

        snprintf(lab->where, sizeof(lab->where), "process died after step %zu", step);
        while (known < u->sync_count && u->syncs[known].steps <= step)
            known++;
        medium_die_after(lab->heir, lab->medium, step);
        go_on(u, lab->heir, known);
        lab->deaths++;
    }
}

/* Writes in pieces that fit no boundary, with a sync after each few. */
static void upload(struct lab *lab, uint32_t block_size, size_t size, size_t piece, size_t every)
{
    struct upload u = {.lab = lab, .size = size};
    struct spb_reservation *reservation = NULL;
    struct spb_error err;

    lab_begin(lab, "upload", block_size, 24);
    lab_plant_product(lab, 0, "beside", 3, 50);
    u.bytes = model_allocate(size);
    random_fill(&lab->random, u.bytes, size);
    medium_reset(lab->medium, lab->image);
    struct spb_volume *volume = lab_open(lab, lab->medium, true);
    medium_mark(lab->medium);
    uint64_t flushes = medium_counts(lab->medium).flushes;
    struct spb_product_writer *writer = begin(&u, volume, &reservation);
    spb_reservation_extent(reservation, &u.block, &u.count);
    for (size_t at = 0, n = 0; at < size; at += piece, n++) {
        size_t part = size - at < piece ? size - at : piece;

        CHECK(lab, spb_is_ok(spb_product_writer_write(writer, u.bytes + at, part, &err)), "%s",
              err.text);
        if (n % every == every - 1)
            note_sync(&u, writer, lab->medium, flushes);
    }
    note_sync(&u, writer, lab->medium, flushes);
    spb_product_writer_free(writer);
    spb_reservation_free(reservation);
    CHECK(lab, medium_violations(lab->medium) == 0, "%s", medium_violation(lab->medium));
    medium_kill(lab->medium);
    spb_volume_close(volume);
    medium_each_cut(lab->medium, lab_limit(lab) < 512 ? lab_limit(lab) : 512, &lab->random,
                    check_cut, &u);
    check_deaths(&u);
    printf("upload of %zu bytes at S=%u, a sync each %zu bytes\n", size, block_size, piece * every);
    free(u.bytes);
}

int main(int argc, char **argv)
{
    struct lab lab;

    lab_init(&lab, "crash_uploads", argc, argv);
    upload(&lab, 512, 4000, 700, 2);
    upload(&lab, 512, 4096, 512, 3);
    upload(&lab, 512, 5000, 111, 7);
    upload(&lab, 1024, 9000, 1500, 2);
    upload(&lab, 4096, 20000, 3000, 3);
    upload(&lab, 4096, 3, 1, 1);
    upload(&lab, 65536, 300000, 70000, 2);
    printf("crash_uploads: seed %llu: %llu states, %llu deaths\n", (unsigned long long)lab.seed,
           (unsigned long long)lab.states, (unsigned long long)lab.deaths);
    bool ran = lab.states > 0;

    lab_done(&lab);
    return ran ? 0 : 2;
}
