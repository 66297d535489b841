/* Reading a volume beside somebody who writes it, and lending one. */
#include <stdio.h>
#include <unistd.h>

#include "volume_kit.h"

#define PARAM_BLOCK 1u
#define POINTER_BLOCK 17u
#define EVENT_BLOCK 18u

/* A device over another one, whose reads something happens between. */
struct stirred {
    struct spb_device base;
    struct spb_device *under;
    unsigned reads;
    void (*stir)(struct stirred *stirred);
};

static struct stirred *of(struct spb_device *device)
{
    return (struct stirred *)(void *)device;
}

static spb_status stirred_read(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                               struct spb_error *err)
{
    struct stirred *stirred = of(device);
    spb_status status = stirred->under->ops->read(stirred->under, offset, buffer, n, err);

    stirred->reads++;
    if (stirred->stir != NULL)
        stirred->stir(stirred);
    return status;
}

static void stirred_close(struct spb_device *device)
{
    (void)device;
}

static const struct spb_device_ops stirred_ops = {.read = stirred_read, .close = stirred_close};

/* One who writes and one who reads, of the same image. */
struct pair {
    struct stirred stirred;
    struct spb_volume *writer, *reader;
};

static void pair_open(struct pair *pair)
{
    static const struct spb_open_options options = {.writable = false};
    struct spb_device *device = kit_device(512, 300);

    pair->writer = kit_open(device);
    pair->stirred = (struct stirred){.base = *device, .under = device};
    pair->stirred.base.ops = &stirred_ops;
    pair->stirred.base.writable = false;
    OK(spb_volume_open(&pair->stirred.base, &options, &pair->reader, &kit_err));
}

static void pair_close(struct pair *pair)
{
    cr_assert_eq(spb_volume_release(pair->reader), &pair->stirred.base);
    spb_volume_close(pair->writer);
}

static struct spb_update *read_update(struct pair *pair)
{
    struct spb_update *update = NULL;

    pair->stirred.reads = 0;
    OK(spb_volume_read_update(pair->reader, &update, &kit_err));
    return update;
}

static void follow(struct pair *pair)
{
    struct spb_update *update = read_update(pair);

    cr_assert_not_null(update);
    spb_volume_apply_update(pair->reader, update);
}

static void write_under(struct pair *pair, uint64_t offset, const void *data, size_t n)
{
    OK(spb_device_write(pair->stirred.under, offset, data, n, &kit_err));
}

static void put(struct spb_volume *volume, uint32_t id, const char *value)
{
    struct spb_param_put wanted = {
        .id = id, .value = value, .len = strlen(value), .expected_generation = SPB_ANY_GENERATION};
    uint16_t generation;

    OK(spb_volume_put_param(volume, &wanted, &generation, &kit_err));
}

static void append(struct spb_volume *volume, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct spb_event event = {.severity = 1, .code = 5, .payload_len = 1, .payload = {'e'}};
        uint32_t index;

        OK(spb_volume_append_events(volume, &event, 1, &index, &kit_err));
    }
}

static void put_product(struct spb_volume *volume, const char *name, uint8_t byte)
{
    struct spb_product_attributes attributes = {.name = name, .name_len = strlen(name)};
    struct spb_product product;
    uint8_t data[700];

    memset(data, byte, sizeof(data));
    OK(spb_volume_put_product(volume, &attributes, data, sizeof(data), true, &product, &kit_err));
}

static enum spb_product_state state_of(struct spb_volume *volume, const char *name)
{
    struct spb_product product;

    OK(spb_product_find(volume, name, strlen(name), &product, &kit_err));
    return product.state;
}

static void verify(struct spb_volume *volume, const char *name)
{
    struct spb_product product;
    uint64_t length = 0;

    OK(spb_product_find(volume, name, strlen(name), &product, &kit_err));
    bool good = spb_is_ok(spb_product_verify(volume, &product, NULL, NULL, &length, &kit_err));
    spb_product_note(volume, &product, good, length);
}

/* ---- What is read --------------------------------------------------------------------------- */

Test(update, nothing_changed_costs_one_reading)
{
    struct pair pair;

    pair_open(&pair);
    cr_assert_null(read_update(&pair));
    cr_assert_leq(pair.stirred.reads, 2u, "the metadata is read in two pieces");
    pair_close(&pair);
}

Test(update, shows_what_was_written)
{
    struct pair pair;
    struct spb_param param;
    struct spb_event event;

    pair_open(&pair);
    put(pair.writer, 3, "three");
    append(pair.writer, 2);
    struct spb_update *update = read_update(&pair);
    cr_assert_not_null(update);
    cr_assert_eq(spb_update_event_pointer(update), 2);
    cr_assert(spb_update_only_appends(pair.reader, update));
    cr_assert_eq(spb_event_pointer(pair.reader), 0, "it is not applied yet");
    spb_volume_apply_update(pair.reader, update);
    OK(spb_param_find(pair.reader, 3, &param, NULL, &kit_err));
    cr_assert_eq(memcmp(param.value, "three", 5), 0);
    OK(spb_event_read(pair.reader, 1, &event, &kit_err));
    cr_assert(!event.corrupt);
    cr_assert_null(read_update(&pair));
    pair_close(&pair);
}

Test(update, ring_that_went_round_only_appends)
{
    struct pair pair;

    pair_open(&pair);
    append(pair.writer, 50);
    follow(&pair);
    append(pair.writer, 60);
    struct spb_update *update = read_update(&pair);
    cr_assert(spb_update_only_appends(pair.reader, update));
    spb_update_free(update);
    append(pair.writer, 500);
    update = read_update(&pair);
    cr_assert(spb_update_only_appends(pair.reader, update), "nothing of what was live is");
    spb_update_free(update);
    pair_close(&pair);
}

Test(update, pointer_that_fell_is_no_append)
{
    static const uint8_t one[4] = {0, 0, 0, 1};
    struct pair pair;

    pair_open(&pair);
    append(pair.writer, 3);
    follow(&pair);
    write_under(&pair, POINTER_BLOCK * 512u, one, sizeof(one));
    struct spb_update *update = read_update(&pair);
    cr_assert(!spb_update_only_appends(pair.reader, update));
    spb_update_free(update);
    pair_close(&pair);
}

Test(update, event_that_changed_is_no_append)
{
    struct pair pair, other;
    uint8_t record[76];

    pair_open(&pair);
    pair_open(&other);
    append(pair.writer, 3);
    follow(&pair);
    struct spb_event event = {.severity = 2, .code = 6};
    uint32_t index;
    OK(spb_volume_append_events(other.writer, &event, 1, &index, &kit_err));
    OK(spb_device_read(other.stirred.under, EVENT_BLOCK * 512u, record, sizeof(record), &kit_err));
    write_under(&pair, EVENT_BLOCK * 512u + 76, record, sizeof(record));
    struct spb_update *update = read_update(&pair);
    cr_assert(!spb_update_only_appends(pair.reader, update));
    spb_update_free(update);
    pair_close(&other);
    pair_close(&pair);
}

/* ---- While it is written -------------------------------------------------------------------- */

static struct pair *stirring;

/* A value moves to a slot that was read already, and another one comes where it was. */
static void move_value(struct stirred *stirred)
{
    if (stirred->reads == 1) {
        put(stirring->writer, 1, "moved");
        for (uint32_t i = 0; i < 40; i++)
            put(stirring->writer, 2, "fills what was free");
    }
}

Test(update, is_of_one_moment)
{
    struct pair pair;
    struct spb_param param;

    pair_open(&pair);
    stirring = &pair;
    put(pair.writer, 1, "here");
    follow(&pair);
    put(pair.writer, 3, "a reason to look");
    pair.stirred.stir = move_value;
    struct spb_update *update = read_update(&pair);
    spb_volume_apply_update(pair.reader, update);
    OK(spb_param_find(pair.reader, 1, &param, NULL, &kit_err));
    cr_assert_eq(memcmp(param.value, "moved", 5), 0);
    OK(spb_param_find(pair.reader, 2, &param, NULL, &kit_err));
    cr_assert_eq(param.generation, 40);
    pair.stirred.stir = NULL;
    cr_assert_null(read_update(&pair));
    pair_close(&pair);
}

static void write_on(struct stirred *stirred)
{
    (void)stirred;
    append(stirring->writer, 1);
}

Test(update, endless_writing_is_told)
{
    struct pair pair;
    struct spb_update *update = NULL;

    pair_open(&pair);
    stirring = &pair;
    pair.stirred.stir = write_on;
    append(pair.writer, 1);
    FAILS(SPB_AGAIN, spb_volume_read_update(pair.reader, &update, &kit_err));
    cr_assert_null(update);
    cr_assert_eq(spb_event_pointer(pair.reader), 0);
    pair.stirred.stir = NULL;
    follow(&pair);
    pair_close(&pair);
}

static uint8_t whole[512], torn[512];
static unsigned mend_after;

static void mend(struct stirred *stirred)
{
    if (stirred->reads == mend_after)
        OK(spb_device_write(stirred->under, PARAM_BLOCK * 512u, whole, sizeof(whole), &kit_err));
}

/* The parameter's block, whole and with a part of a newer entry. */
static void tear_param(struct pair *pair)
{
    put(pair->writer, 1, "whole");
    follow(pair);
    OK(spb_device_read(pair->stirred.under, PARAM_BLOCK * 512u, whole, sizeof(whole), &kit_err));
    memcpy(torn, whole, sizeof(torn));
    torn[20] = 'x';
    write_under(pair, PARAM_BLOCK * 512u, torn, sizeof(torn));
}

Test(update, half_write_is_read_again)
{
    struct pair pair;

    /* Readings come in pairs, of two reads each: it stays torn for two looks. */
    for (mend_after = 1; mend_after <= 8; mend_after++) {
        pair_open(&pair);
        tear_param(&pair);
        pair.stirred.stir = mend;
        cr_assert_null(read_update(&pair), "mended after %u reads", mend_after);
        pair_close(&pair);
    }
}

Test(update, corruption_that_stays_is_shown_and_not_doubted_again)
{
    struct pair pair;
    struct spb_param param;

    pair_open(&pair);
    tear_param(&pair);
    follow(&pair);
    FAILS(SPB_CORRUPT, spb_param_find(pair.reader, 1, &param, NULL, &kit_err));
    cr_assert_null(read_update(&pair));
    append(pair.writer, 1);
    follow(&pair);
    cr_assert_leq(pair.stirred.reads, 4u, "two readings that agree");
    pair_close(&pair);
}

Test(update, corrupt_event_is_shown)
{
    static const uint8_t bad[4] = {9, 9, 9, 9};
    struct pair pair;
    struct spb_event event;

    pair_open(&pair);
    append(pair.writer, 2);
    write_under(&pair, EVENT_BLOCK * 512u + 76, bad, sizeof(bad));
    follow(&pair);
    OK(spb_event_read(pair.reader, 1, &event, &kit_err));
    cr_assert(event.corrupt);
    pair_close(&pair);
}

Test(update, invalid_entry_is_shown)
{
    struct pair pair;
    struct spb_product product;
    uint8_t entry[80];

    pair_open(&pair);
    memset(entry, 0xff, sizeof(entry));
    write_under(&pair, 33u * 512u, entry, sizeof(entry));
    follow(&pair);
    OK(spb_product_entry(pair.reader, 0, &product, &kit_err));
    cr_assert_eq(product.state, SPB_PRODUCT_INVALID);
    pair_close(&pair);
}

/* ---- The superblock ------------------------------------------------------------------------- */

Test(update, another_superblock_is_refused)
{
    struct pair pair, other;
    struct spb_snapshot_identity identity = {.uuid = {9}, .tenant_id = 7};
    struct spb_update *update = NULL;
    uint8_t sector[512];

    pair_open(&pair);
    pair_open(&other);
    OK(spb_volume_set_identity(other.stirred.under, &identity, &kit_err));
    OK(spb_device_read(other.stirred.under, 0, sector, sizeof(sector), &kit_err));
    write_under(&pair, 0, sector, sizeof(sector));
    append(pair.writer, 1);
    FAILS(SPB_CHANGED, spb_volume_read_update(pair.reader, &update, &kit_err));
    memset(sector, 'x', sizeof(sector));
    write_under(&pair, 0, sector, sizeof(sector));
    FAILS(SPB_BAD_MAGIC, spb_volume_read_update(pair.reader, &update, &kit_err));
    cr_assert_null(update);
    cr_assert_eq(spb_event_pointer(pair.reader), 0, "what was shown stays");
    pair_close(&other);
    pair_close(&pair);
}

/* ---- Products ------------------------------------------------------------------------------- */

Test(update, keeps_what_is_known_of_products_that_stay)
{
    struct pair pair;
    struct spb_product product;

    pair_open(&pair);
    put_product(pair.writer, "stays", 1);
    put_product(pair.writer, "goes", 2);
    put_product(pair.writer, "rots", 3);
    follow(&pair);
    OK(spb_product_find(pair.reader, "rots", 4, &product, &kit_err));
    write_under(&pair, (33u + product.block_offset) * 512u, "bad", 3);
    verify(pair.reader, "stays");
    verify(pair.reader, "goes");
    verify(pair.reader, "rots");
    cr_assert_eq(state_of(pair.reader, "rots"), SPB_PRODUCT_ROTTEN);
    put_product(pair.writer, "goes", 4);
    follow(&pair);
    cr_assert_eq(state_of(pair.reader, "stays"), SPB_PRODUCT_GOOD);
    cr_assert_eq(state_of(pair.reader, "goes"), SPB_PRODUCT_PRESENT);
    cr_assert_eq(state_of(pair.reader, "rots"), SPB_PRODUCT_PRESENT, "it is looked at again");
    pair_close(&pair);
}

/* ---- Lending -------------------------------------------------------------------------------- */

Test(update, lent_volume_takes_no_writes_until_it_is_back)
{
    char path[] = "/tmp/spb-update-XXXXXX";
    struct spb_format_options format = {
        .total_blocks = 100, .sector_size = 512, .tenant_id = 1, .uuid = {1}};
    static const struct spb_open_options options = {.writable = true};
    struct spb_device *device = NULL, *other = NULL;
    struct spb_volume *volume = NULL;
    struct spb_group *group = NULL;
    char words[64];
    int pid = 0, fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    (void)close(fd);
    OK(spb_image_create(path, &format, true, &kit_err));
    OK(spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
    OK(spb_volume_open(device, &options, &volume, &kit_err));
    OK(spb_volume_lend(volume, &kit_err));
    FAILS(SPB_READ_ONLY, spb_group_new(volume, &group, &kit_err));
    FAILS(SPB_READ_ONLY, spb_device_write(device, 0, "x", 1, &kit_err));
    FAILS(SPB_LOCKED, spb_device_file_open(path, SPB_FILE_WRITE, &other, &kit_err));
    FAILS(SPB_LOCKED, spb_device_file_open(path, SPB_FILE_LENT, &other, &kit_err));
    cr_assert_eq(spb_volume_release(volume), device);
    FAILS(SPB_LOCKED, spb_device_file_open(path, SPB_FILE_WRITE, &other, &kit_err));
    OK(spb_device_file_take_back(device, &kit_err));
    OK(spb_volume_open(device, &options, &volume, &kit_err));
    put(volume, 1, "again");
    spb_volume_close(volume);
    OK(spb_device_file_open(path, SPB_FILE_READ, &device, &kit_err));
    cr_assert(!spb_device_file_owner(device, words, sizeof(words), &pid));
    spb_device_close(device);
    (void)unlink(path);
}

Test(update, file_is_opened_beside_who_has_it)
{
    char path[] = "/tmp/spb-update-XXXXXX";
    struct spb_device *lender = NULL, *device = NULL;
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, 65536), 0);
    (void)close(fd);
    OK(spb_device_file_open(path, SPB_FILE_LENT, &lender, &kit_err));
    FAILS(SPB_READ_ONLY, spb_device_write(lender, 0, "x", 1, &kit_err));
    FAILS(SPB_LOCKED, spb_device_file_open(path, SPB_FILE_WRITE, &device, &kit_err));
    OK(spb_device_file_take_back(lender, &kit_err));
    OK(spb_device_write(lender, 0, "x", 1, &kit_err));
    spb_device_close(lender);
    (void)unlink(path);
}

Test(update, memory_is_not_lent)
{
    struct spb_volume *volume = kit_open(kit_device(512, 100));

    FAILS(SPB_UNSUPPORTED, spb_volume_lend(volume, &kit_err));
    put(volume, 1, "still writable");
    spb_volume_close(volume);
}
