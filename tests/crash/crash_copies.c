/*
 * Copies and changes of identity that a crash cuts off. A copy's target holds, at every state that
 * power loss or the death of the process leaves, what it held before (as long as nothing was
 * written but its first sector), no image, or the whole copy. An image whose identity changes has
 * the old one or the new one, and nothing else changes.
 */
#include "crash/lab.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"

static const struct spb_snapshot_identity other = {.uuid = {1, 2, 3, 4, 5}, .tenant_id = 99};

struct copies {
    struct lab *lab;
    struct model *before; /* what the target's old image says; NULL: it had none */
    struct model *after;
    uint64_t old, none, whole;
};

static void plant_original(struct lab *lab)
{
    lab_plant_param(lab, 0, 42, 3, "the value");
    lab_plant_param(lab, lab_slot(lab, 3, false), 42, 2, "superseded");
    lab_plant_events(lab, 20, 20);
    lab_plant_product(lab, 0, "alpha", 1, 700);
    lab_plant_product(lab, 1, "empty", 0, 0);
    lab_plant_product(lab, 2, "omega", 6, lab->block_size + 30);
}

static void plant_old(struct lab *lab)
{
    lab_plant_param(lab, 1, 7, 1, "somebody's");
    lab_plant_events(lab, 3, 3);
    lab_plant_product(lab, 0, "old", 3, 900);
}

static bool has_identity(const struct spb_volume *volume,
                         const struct spb_snapshot_identity *identity)
{
    const struct spb_superblock *super = spb_volume_superblock(volume);

    return super->tenant_id == identity->tenant_id &&
           memcmp(super->uuid, identity->uuid, SPB_UUID_SIZE) == 0;
}

/* Opens what was left; true where it is the new image. */
static bool check_state(struct copies *c, struct medium *medium)
{
    struct lab *lab = c->lab;
    struct spb_open_options options = {.writable = true};
    struct spb_device *device = medium_attach(medium);
    struct spb_volume *volume = NULL;
    struct spb_error err;
    spb_status status = spb_volume_open(device, &options, &volume, &err);

    if (!spb_is_ok(status)) {
        CHECK(lab, status.code == SPB_BAD_MAGIC, "opening: %s", err.text);
        spb_device_close(device);
        c->none++;
        return false;
    }
    bool is_new = has_identity(volume, &other);

    CHECK(lab, is_new || c->before != NULL, "an image of nobody");
    lab_compare(lab, is_new ? c->after : c->before, volume, is_new ? "the copy" : "the old image");
    lab_check_medium(lab, medium, "opened");
    medium_kill(medium);
    spb_volume_close(volume);
    lab_check_durable(lab, medium, is_new ? c->after : c->before, "opened anew");
    c->whole += is_new;
    c->old += !is_new;
    return is_new;
}

static void check_cut(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    struct copies *c = user;

    snprintf(c->lab->where, sizeof(c->lab->where), "power cut after flush %zu, %zu of %zu reached",
             cut->epoch, cut->reached, cut->changed);
    medium_reset(c->lab->cut, image);
    (void)check_state(c, c->lab->cut);
    c->lab->states++;
}

/* All states of what was done to lab->medium since its mark; the last of them is the new image. */
static void check_states(struct copies *c)
{
    struct lab *lab = c->lab;
    size_t steps = medium_steps(lab->medium), last = 0;

    CHECK(lab, medium_violations(lab->medium) == 0, "%s", medium_violation(lab->medium));
    medium_each_cut(lab->medium, 64, &lab->random, check_cut, c);
    for (size_t i = 0; i <= 64; i++) {
        size_t step = steps <= 64 ? i : i * steps / 64;

        if (step > steps)
            break;
        snprintf(lab->where, sizeof(lab->where), "process died after step %zu of %zu", step, steps);
        medium_die_after(lab->heir, lab->medium, step);
        last = check_state(c, lab->heir);
        lab->deaths++;
    }
    CHECK(lab, last == 1, "the last state is not the new image");
}

/* A copy to a device that holds an image, or what is left of something else. */
static void copy(struct lab *lab, uint32_t block_size, bool onto_image)
{
    struct copies c = {.lab = lab};
    struct spb_snapshot *snapshot = NULL;
    struct spb_error err;

    lab_begin(lab, "copy", block_size, 12);
    plant_original(lab);
    struct medium *original = medium_new(lab->size, lab->seed);
    medium_reset(original, lab->image);
    c.after = model_clone(lab->model);
    lab_begin(lab, "copy", block_size, 12);
    if (onto_image) {
        plant_old(lab);
        c.before = model_clone(lab->model);
    } else {
        memset(lab->image, 0xEE, lab->size);
    }
    medium_reset(lab->medium, lab->image);
    struct spb_volume *volume = lab_open(lab, original, true);
    struct spb_device *target = medium_attach(lab->medium);
    CHECK(lab, spb_is_ok(spb_snapshot_new(volume, &snapshot, &err)), "%s", err.text);
    medium_mark(lab->medium);
    CHECK(lab, spb_is_ok(spb_snapshot_copy(snapshot, target, &other, NULL, NULL, &err)), "%s",
          err.text);
    spb_snapshot_free(snapshot);
    spb_device_close(target);
    spb_volume_close(volume);
    check_states(&c);
    CHECK(lab, c.none > 0 && (c.old > 0) == onto_image, "the states show only %llu, %llu, %llu",
          (unsigned long long)c.old, (unsigned long long)c.none, (unsigned long long)c.whole);
    printf("copy at S=%u: %llu of the old image, %llu of none, %llu of the copy\n", block_size,
           (unsigned long long)c.old, (unsigned long long)c.none, (unsigned long long)c.whole);
    model_free(c.before);
    model_free(c.after);
    medium_free(original);
}

static void identity(struct lab *lab, uint32_t block_size)
{
    struct copies c = {.lab = lab};
    struct spb_error err;

    lab_begin(lab, "identity", block_size, 12);
    plant_original(lab);
    c.before = c.after = lab->model;
    medium_reset(lab->medium, lab->image);
    struct spb_device *device = medium_attach(lab->medium);
    medium_mark(lab->medium);
    CHECK(lab, spb_is_ok(spb_volume_set_identity(device, &other, &err)), "%s", err.text);
    spb_device_close(device);
    CHECK(lab, medium_counts(lab->medium).sectors == 1, "%llu sectors were written",
          (unsigned long long)medium_counts(lab->medium).sectors);
    check_states(&c);
    CHECK(lab, c.none == 0 && c.old > 0 && c.whole > 0, "states without an image");
}

/* Who died left a superblock that is visible and not durable: the new one is made from it, and
 * nothing else of what was visible is lost. */
static void identity_of_the_visible(struct lab *lab)
{
    struct copies c = {.lab = lab};
    struct spb_snapshot_identity dead = {.uuid = {7}, .tenant_id = 8};
    struct spb_error err;

    lab_begin(lab, "identity-of-the-visible", 512, 12);
    plant_original(lab);
    c.before = c.after = lab->model;
    medium_reset(lab->medium, lab->image);
    struct spb_device *device = medium_attach(lab->medium);
    medium_mark(lab->medium);
    CHECK(lab, spb_is_ok(spb_volume_set_identity(device, &dead, &err)), "%s", err.text);
    medium_die_after(lab->cut, lab->medium, 2);
    spb_device_close(device);
    device = medium_attach(lab->cut);
    CHECK(lab, spb_is_ok(spb_volume_set_identity(device, &other, &err)), "%s", err.text);
    spb_device_close(device);
    CHECK(lab, medium_violations(lab->cut) == 0, "%s", medium_violation(lab->cut));
    medium_power_loss(lab->cut);
    CHECK(lab, check_state(&c, lab->cut), "the new identity is not durable");
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {512, 1024, 4096, 65536};
    struct lab lab;

    lab_init(&lab, "crash_copies", argc, argv);
    for (size_t i = 0; i < 4; i++) {
        copy(&lab, sizes[i], true);
        copy(&lab, sizes[i], false);
        identity(&lab, sizes[i]);
    }
    identity_of_the_visible(&lab);
    printf("crash_copies: seed %llu: %llu states, %llu deaths\n", (unsigned long long)lab.seed,
           (unsigned long long)lab.states, (unsigned long long)lab.deaths);
    bool ran = lab.states > 0;

    lab_done(&lab);
    return ran ? 0 : 2;
}
