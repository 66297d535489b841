/* The simulated medium itself: what is visible, what is durable, which states it produces. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/medium.h"
#include "support/random.h"

#define SECTORS 8u
#define SIZE (SECTORS * SPB_SECTOR_SIZE)

static void write_sectors(struct spb_device *device, uint32_t sector, uint32_t count, int byte)
{
    uint8_t data[SIZE];
    struct spb_error err;

    memset(data, byte, sizeof(data));
    cr_assert(spb_is_ok(spb_device_write(device, (uint64_t)sector * SPB_SECTOR_SIZE, data,
                                         (size_t)count * SPB_SECTOR_SIZE, &err)),
              "%s", err.text);
}

static void flush(struct spb_device *device)
{
    cr_assert(spb_is_ok(spb_device_flush(device, NULL)));
}

static uint8_t first_byte(const uint8_t *image, uint32_t sector)
{
    return image[(size_t)sector * SPB_SECTOR_SIZE];
}

Test(medium, write_is_visible_and_durable_after_a_flush)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    uint8_t read[SPB_SECTOR_SIZE], direct[SPB_SECTOR_SIZE];

    write_sectors(d, 3, 1, 7);
    cr_assert(spb_is_ok(spb_device_read(d, 3 * SPB_SECTOR_SIZE, read, sizeof(read), NULL)));
    cr_assert(
        spb_is_ok(spb_device_read_medium(d, 3 * SPB_SECTOR_SIZE, direct, sizeof(direct), NULL)));
    cr_assert_eq(read[0], 7);
    cr_assert_eq(direct[0], 0);
    flush(d);
    cr_assert(
        spb_is_ok(spb_device_read_medium(d, 3 * SPB_SECTOR_SIZE, direct, sizeof(direct), NULL)));
    cr_assert_eq(direct[511], 7);
    cr_assert_eq(medium_counts(m).writes, 1);
    cr_assert_eq(medium_counts(m).sectors, 1);
    cr_assert_eq(medium_counts(m).flushes, 1);
    cr_assert_eq(medium_counts(m).reads, 1);
    cr_assert_eq(medium_counts(m).medium_reads, 2);
    cr_assert_eq(medium_violations(m), 0);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, second_write_of_a_sector_between_flushes_is_a_violation)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);

    write_sectors(d, 0, 2, 1);
    flush(d);
    write_sectors(d, 0, 2, 2);
    cr_assert_eq(medium_violations(m), 0);
    write_sectors(d, 1, 1, 2);
    cr_assert_eq(medium_violations(m), 1);
    cr_assert(strstr(medium_violation(m), "sector 1 ") != NULL, "%s", medium_violation(m));
    spb_device_close(d);
    medium_free(m);
}

Test(medium, partial_sector_write_is_a_violation)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);

    cr_assert(spb_is_ok(spb_device_write(d, 100, "abc", 3, NULL)));
    cr_assert_eq(medium_violations(m), 1);
    cr_assert(strstr(medium_violation(m), "whole") != NULL, "%s", medium_violation(m));
    cr_assert_eq(memcmp(medium_visible(m) + 100, "abc", 3), 0);
    spb_device_close(d);
    medium_free(m);
}

/* Which values of the first sectors were seen, as bits of a number. */
struct seen {
    uint64_t states[256];
    unsigned count;
};

static void note_state(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    struct seen *seen = user;
    uint64_t state = 0;

    for (uint32_t i = 0; i < SECTORS; i++)
        state |= (uint64_t)first_byte(image, i) << (8 * i);
    cr_assert_leq(cut->reached, cut->changed);
    for (unsigned i = 0; i < seen->count; i++)
        cr_assert_neq(seen->states[i], state, "a state was visited twice");
    seen->states[seen->count++] = state;
}

Test(medium, every_subset_of_each_stretch_is_visited_once)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    struct seen seen = {.count = 0};
    uint64_t random = 5;

    write_sectors(d, 0, 3, 1);
    write_sectors(d, 7, 1, 0); /* changes nothing */
    flush(d);
    write_sectors(d, 2, 2, 2);
    cr_assert_eq(medium_each_cut(m, 4096, &random, note_state, &seen), 8 + 4 - 1);
    cr_assert_eq(seen.count, 11);
    cr_assert_eq(medium_steps(m), 7);
    cr_assert_eq(medium_changes(m), 5);
    spb_device_close(d);
    medium_free(m);
}

static void count_state(void *user, const uint8_t *image, const struct medium_cut *cut)
{
    unsigned *extremes = user;

    (void)image;
    *extremes |= cut->reached == 0 ? 1u : 0u;
    *extremes |= cut->reached == cut->changed ? 2u : 0u;
}

Test(medium, too_many_states_are_sampled_with_none_and_all)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    unsigned extremes = 0;
    uint64_t random = 5;

    write_sectors(d, 0, SECTORS, 1);
    cr_assert_eq(medium_each_cut(m, 20, &random, count_state, &extremes), 20);
    cr_assert_eq(extremes, 3);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, dead_process_leaves_writes_visible_and_unflushed)
{
    struct medium *m = medium_new(SIZE, 1);
    struct medium *heir = medium_new(SIZE, 2);
    struct spb_device *d = medium_attach(m);
    struct seen seen = {.count = 0};
    uint64_t random = 5;

    write_sectors(d, 0, 1, 1);
    flush(d);
    write_sectors(d, 1, 1, 2);
    write_sectors(d, 2, 1, 3);
    flush(d);
    medium_die_after(heir, m, 3); /* sector 0, flush, sector 1 */
    cr_assert_eq(first_byte(medium_visible(heir), 1), 2);
    cr_assert_eq(first_byte(medium_durable(heir), 1), 0);
    cr_assert_eq(first_byte(medium_visible(heir), 2), 0);
    cr_assert_eq(first_byte(medium_durable(heir), 0), 1);

    struct spb_device *next = medium_attach(heir);

    cr_assert_eq(medium_each_cut(heir, 4096, &random, note_state, &seen), 2);
    write_sectors(next, 1, 1, 9);
    cr_assert_eq(medium_violations(heir), 1, "the dead process's write is unflushed still");
    flush(next);
    cr_assert_eq(first_byte(medium_durable(heir), 1), 9);
    spb_device_close(next);
    spb_device_close(d);
    medium_free(heir);
    medium_free(m);
}

Test(medium, dead_handle_changes_nothing)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    uint8_t sector[SPB_SECTOR_SIZE] = {1};

    medium_kill(m);
    cr_assert_eq(spb_device_write(d, 0, sector, sizeof(sector), NULL).code, SPB_IO);
    cr_assert_eq(spb_device_flush(d, NULL).code, SPB_IO);
    cr_assert_eq(spb_device_read(d, 0, sector, sizeof(sector), NULL).code, SPB_IO);
    cr_assert_eq(first_byte(medium_visible(m), 0), 0);
    cr_assert_eq(medium_counts(m).writes, 0);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, failed_flush_is_sticky_and_leaves_clean_pages)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    struct spb_error err;

    medium_fail(
        m, &(struct medium_failure){.call = MEDIUM_FLUSH, .nth = 2, .number = EIO, .reached = 2});
    write_sectors(d, 0, 1, 1);
    flush(d);
    write_sectors(d, 1, 3, 2);
    cr_assert_eq(spb_device_flush(d, &err).code, SPB_IO);
    cr_assert_eq(err.saved_errno, EIO);
    cr_assert(medium_failed(m));
    cr_assert_eq(first_byte(medium_durable(m), 1), 0);
    cr_assert_eq(first_byte(medium_durable(m), 2), 2, "bit 1 of reached is the second sector");
    cr_assert_eq(first_byte(medium_durable(m), 3), 0);
    cr_assert_eq(spb_device_flush(d, NULL).code, SPB_IO, "until it is forgiven");
    cr_assert(spb_is_ok(spb_device_forgive(d, NULL)));
    flush(d);
    cr_assert_eq(first_byte(medium_durable(m), 1), 0, "clean: no later flush writes it");
    cr_assert_eq(first_byte(medium_visible(m), 1), 2);
    write_sectors(d, 1, 1, 2);
    flush(d);
    cr_assert_eq(first_byte(medium_durable(m), 1), 2);
    cr_assert_eq(medium_violations(m), 0);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, failed_write_may_be_short)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    uint8_t data[3 * SPB_SECTOR_SIZE];
    struct spb_error err;

    memset(data, 4, sizeof(data));
    medium_fail(m, &(struct medium_failure){
                       .call = MEDIUM_WRITE, .nth = 1, .number = ENOSPC, .short_sectors = 2});
    cr_assert_eq(spb_device_write(d, 0, data, sizeof(data), &err).code, SPB_IO);
    cr_assert_eq(err.saved_errno, ENOSPC);
    cr_assert_eq(first_byte(medium_visible(m), 1), 4);
    cr_assert_eq(first_byte(medium_visible(m), 2), 0);
    flush(d);
    cr_assert_eq(first_byte(medium_durable(m), 1), 4);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, failed_reads)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    uint8_t sector[SPB_SECTOR_SIZE];

    medium_fail(m, &(struct medium_failure){.call = MEDIUM_READ, .nth = 2, .number = EIO});
    cr_assert(spb_is_ok(spb_device_read(d, 0, sector, sizeof(sector), NULL)));
    cr_assert(!medium_failed(m));
    medium_fail(m, &(struct medium_failure){.call = MEDIUM_READ, .nth = 1, .number = EIO});
    cr_assert_eq(spb_device_read(d, 0, sector, sizeof(sector), NULL).code, SPB_IO);
    medium_fail(m, &(struct medium_failure){.call = MEDIUM_READ_MEDIUM, .nth = 1, .number = EIO});
    cr_assert_eq(spb_device_read_medium(d, 0, sector, sizeof(sector), NULL).code, SPB_IO);
    cr_assert(medium_failed(m));
    medium_forbid_direct(m, true);
    cr_assert_eq(spb_device_read_medium(d, 0, sector, sizeof(sector), NULL).code, SPB_UNSUPPORTED);
    cr_assert_eq(spb_device_forgive(d, NULL).code, SPB_UNSUPPORTED);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, states_of_a_record_with_a_failed_flush)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);
    struct seen seen = {.count = 0};
    uint64_t random = 5;

    medium_fail(
        m, &(struct medium_failure){.call = MEDIUM_FLUSH, .nth = 1, .number = EIO, .reached = 1});
    write_sectors(d, 0, 2, 1);
    cr_assert_eq(spb_device_flush(d, NULL).code, SPB_IO);
    cr_assert(spb_is_ok(spb_device_forgive(d, NULL)));
    medium_mark(m);
    write_sectors(d, 1, 1, 1);
    flush(d);
    cr_assert_eq(medium_each_cut(m, 4096, &random, note_state, &seen), 2);
    cr_assert_eq(seen.states[0], 1, "the page that was lost is not there");
    cr_assert_eq(seen.states[1], 0x0101);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, zeroing_writes_whole_sectors)
{
    struct medium *m = medium_new(SIZE, 1);
    struct spb_device *d = medium_attach(m);

    write_sectors(d, 0, SECTORS, 1);
    flush(d);
    cr_assert(spb_is_ok(spb_device_zero(d, SPB_SECTOR_SIZE, 3 * SPB_SECTOR_SIZE, NULL)));
    cr_assert_eq(first_byte(medium_visible(m), 1), 0);
    cr_assert_eq(first_byte(medium_visible(m), 4), 1);
    cr_assert_eq(first_byte(medium_durable(m), 1), 1);
    cr_assert_eq(medium_counts(m).writes, 2);
    cr_assert_eq(medium_counts(m).sectors, SECTORS + 3);
    cr_assert_eq(medium_violations(m), 0);
    medium_power_loss(m);
    cr_assert_eq(first_byte(medium_visible(m), 1), 1);
    spb_device_close(d);
    medium_free(m);
}

Test(medium, power_loss_at_random_keeps_what_was_flushed)
{
    struct medium *m = medium_new(SIZE, 1);
    unsigned reached = 0, lost = 0;
    uint64_t random = 7;

    for (unsigned i = 0; i < 40; i++) {
        struct spb_device *d = medium_attach(m);
        static const uint8_t zeros[SIZE];

        medium_reset(m, zeros);
        spb_device_close(d);
        d = medium_attach(m);
        write_sectors(d, 0, 1, 1);
        flush(d);
        write_sectors(d, 1, 1, 2);
        medium_power_loss_at_random(m, &random);
        cr_assert_eq(first_byte(medium_durable(m), 0), 1);
        cr_assert_eq(memcmp(medium_visible(m), medium_durable(m), SIZE), 0);
        cr_assert_eq(spb_device_flush(d, NULL).code, SPB_IO, "its process is dead");
        reached += first_byte(medium_durable(m), 1) == 2;
        lost += first_byte(medium_durable(m), 1) == 0;
        spb_device_close(d);
    }
    cr_assert(reached > 5 && lost > 5, "%u reached, %u lost", reached, lost);
    medium_free(m);
}

/* Replays a random run, and compares every death with what was noted while it ran. */
Test(medium, deaths_equal_what_was_at_each_step)
{
    struct medium *m = medium_new(SIZE, 1);
    struct medium *heir = medium_new(SIZE, 2);
    struct spb_device *d = medium_attach(m);
    static uint8_t visible[40][SIZE], durable[40][SIZE];
    uint64_t random = 42;
    size_t steps = 0;

    for (uint32_t sector = 0; steps < 40; steps++) {
        memcpy(visible[steps], medium_visible(m), SIZE);
        memcpy(durable[steps], medium_durable(m), SIZE);
        if (sector == SECTORS || random_below(&random, 4) == 0) {
            flush(d);
            sector = 0;
        } else {
            write_sectors(d, sector++, 1, (int)random_below(&random, 256));
        }
    }
    for (size_t i = 0; i < steps; i++) {
        medium_die_after(heir, m, i);
        cr_assert_eq(memcmp(medium_visible(heir), visible[i], SIZE), 0, "step %zu", i);
        cr_assert_eq(memcmp(medium_durable(heir), durable[i], SIZE), 0, "step %zu", i);
    }
    cr_assert_eq(medium_violations(m), 0);
    spb_device_close(d);
    medium_free(heir);
    medium_free(m);
}
