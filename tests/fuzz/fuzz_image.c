/*
 * Fuzzes a whole image in memory: opening it to read, walking and checking all that it holds, then
 * opening it to write, scrubbing and copying it, repairing and changing it, and opening it again.
 * What a volume promises is asserted on the way: reading alters nothing, repair mends what it
 * listed and harms nothing else, and what was acknowledged is there afterwards.
 *
 * Input: 4 bytes that choose (see struct choice), then the image itself, or, with FLAG_PATCHES, a
 * list of records whose CRCs are made right (see apply_patch), so that few bytes reach deep.
 * Single-threaded.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "spaceblock/group.h"

#define FLAG_PATCHES 0x01u
#define FLAG_FIX_CRC 0x02u      /* of the superblock */
#define FLAG_FIX_GEOMETRY 0x04u /* of the superblock: magic, version, sizes */
#define FLAG_ASK_SIZE 0x08u     /* open with S given */
#define FLAG_KEEP_DAMAGE 0x10u  /* no repair before the changes */
#define FLAG_ODD_SIZE 0x20u     /* the device is one sector longer */

#define PARAM_SIZE 252u
#define EVENT_SIZE 76u
#define ENTRY_SIZE 80u
#define DP_BLOCK 33u

struct choice {
    uint32_t sector_size;
    uint8_t flags;
    uint32_t blocks;
    uint8_t seed; /* of the changes */
};

struct image {
    uint8_t *bytes; /* owned */
    size_t size;
};

/* All that a volume shows, for comparing. */
struct snapshot {
    struct spb_param *params;
    size_t param_count;
    struct spb_event *events;
    size_t event_count;
    struct spb_product *products; /* that check found good and that their name leads to */
    size_t product_count;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- Building the image ------------------------------------------------------------------- */

static void put_be(uint8_t *at, uint64_t value, unsigned n)
{
    while (n-- > 0) {
        at[n] = (uint8_t)value;
        value >>= 8;
    }
}

/* The next bytes of a patch into a fixed field of zeros. */
static void read_text(struct spb_reader *r, uint8_t *out, size_t n)
{
    size_t there = spb_reader_left(r) < n ? spb_reader_left(r) : n;

    spb_read_bytes(r, out, there);
}

static uint8_t *place(struct image *image, uint64_t offset, size_t n)
{
    return offset <= image->size && n <= image->size - offset ? image->bytes + offset : NULL;
}

static void patch_bytes(const struct choice *c, struct image *image, struct spb_reader *r)
{
    uint64_t offset = (uint64_t)spb_read_be16(r) * c->sector_size;
    size_t n;
    uint8_t *at;

    offset += spb_read_be16(r);
    n = spb_read_u8(r);
    n = spb_reader_left(r) < n ? spb_reader_left(r) : n;
    at = place(image, offset, n);
    if (at != NULL)
        spb_read_bytes(r, at, n);
}

static void patch_param(const struct choice *c, struct image *image, struct spb_reader *r)
{
    uint32_t per = c->sector_size / PARAM_SIZE;
    uint32_t slot = spb_read_be16(r) % (per * 16u);
    uint64_t offset = (uint64_t)(1u + slot / per) * c->sector_size + slot % per * PARAM_SIZE;
    uint8_t *at = place(image, offset, PARAM_SIZE);
    uint8_t damage;
    uint8_t len;

    if (at == NULL)
        return;
    memset(at, 0, PARAM_SIZE);
    put_be(at, spb_read_u8(r), 4);
    put_be(at + 6, spb_read_be16(r), 2);
    damage = spb_read_u8(r);
    len = spb_read_u8(r);
    put_be(at + 4, len, 2);
    read_text(r, at + 8, len < 240u ? len : 240u);
    put_be(at + 248, spb_crc32c(0, at, 248) ^ damage, 4);
}

static void patch_event(const struct choice *c, struct image *image, struct spb_reader *r)
{
    uint32_t per = c->sector_size / EVENT_SIZE;
    uint32_t slot = spb_read_be16(r) % (per * 15u);
    uint64_t offset = (uint64_t)(18u + slot / per) * c->sector_size + slot % per * EVENT_SIZE;
    uint8_t *at = place(image, offset, EVENT_SIZE);
    uint8_t damage, len;

    if (at == NULL)
        return;
    memset(at, 0, EVENT_SIZE);
    put_be(at, spb_read_be32(r), 4);
    at[4] = spb_read_u8(r);
    put_be(at + 6, spb_read_be16(r), 2);
    damage = spb_read_u8(r);
    len = spb_read_u8(r);
    at[5] = len;
    read_text(r, at + 8, len < 64u ? len : 64u);
    put_be(at + 72, spb_crc32c(0, at, 72) ^ damage, 4);
}

static void patch_pointer(const struct choice *c, struct image *image, struct spb_reader *r)
{
    uint8_t *at = place(image, (uint64_t)17u * c->sector_size, 4);

    if (at != NULL)
        put_be(at, spb_read_be32(r), 4);
}

/* A catalog entry, with the CRC of what lies in its extent now. */
static void patch_entry(const struct choice *c, struct image *image, struct spb_reader *r)
{
    uint32_t index = spb_read_u8(r) % (c->sector_size / ENTRY_SIZE);
    uint64_t offset = (uint64_t)DP_BLOCK * c->sector_size + index * ENTRY_SIZE;
    uint8_t *at = place(image, offset, ENTRY_SIZE);
    const uint8_t *data;
    uint32_t first = spb_read_be16(r);
    uint32_t length = spb_read_be16(r), damage;

    if (at == NULL)
        return;
    memset(at, 0, ENTRY_SIZE);
    put_be(at, first, 4);
    put_be(at + 4, (length + c->sector_size - 1u) / c->sector_size, 4);
    at[9] = spb_read_u8(r);
    at[10] = spb_read_u8(r);
    damage = spb_read_u8(r);
    at[11] = spb_read_u8(r);
    read_text(r, at + 12, at[11] < 64u ? at[11] : 64u);
    data = place(image, (uint64_t)(DP_BLOCK + first) * c->sector_size, length);
    put_be(at + 76, (data == NULL ? 0u : spb_crc32c(0, data, length)) ^ damage, 4);
}

/* The same byte over part of the data product area. */
static void patch_fill(const struct choice *c, struct image *image, struct spb_reader *r)
{
    uint64_t offset = (uint64_t)(DP_BLOCK + 1u + spb_read_u8(r)) * c->sector_size;
    size_t n = spb_read_be16(r);
    uint8_t *at = place(image, offset, n);

    if (at != NULL)
        memset(at, spb_read_u8(r), n);
}

static void apply_patch(const struct choice *c, struct image *image, struct spb_reader *r)
{
    static void (*const patches[])(const struct choice *, struct image *, struct spb_reader *) = {
        patch_bytes, patch_param, patch_event, patch_pointer, patch_entry, patch_fill};

    patches[spb_read_u8(r) % (sizeof patches / sizeof *patches)](c, image, r);
}

static void fix_superblock(const struct choice *c, struct image *image)
{
    uint8_t *at = image->bytes;

    if ((c->flags & FLAG_FIX_GEOMETRY) != 0) {
        put_be(at, 0x53504F53u, 4);
        put_be(at + 4, 0x100u, 2);
        put_be(at + 8, c->blocks, 4);
        put_be(at + 12, DP_BLOCK, 4);
        put_be(at + 16, c->blocks - DP_BLOCK, 4);
    }
    if ((c->flags & FLAG_FIX_CRC) != 0)
        put_be(at + 44, spb_crc32c(0, at, 44), 4);
}

static struct choice choose(struct spb_reader *r)
{
    /* Most inputs are small: one of the largest size takes as long as thirty of the least. */
    static const uint32_t sizes[16] = {512, 1024, 2048, 4096, 8192, 512,  1024, 65536,
                                       512, 512,  1024, 4096, 512,  1024, 2048, 4096};
    struct choice c;
    uint32_t more;

    c.sector_size = sizes[spb_read_u8(r) % 16u];
    c.flags = spb_read_u8(r);
    more = spb_read_u8(r);
    c.blocks = DP_BLOCK + (c.sector_size <= 4096u ? more : more % 8u);
    c.seed = spb_read_u8(r);
    return c;
}

static struct image build(const struct choice *c, struct spb_reader *r)
{
    struct image image;

    image.size = (size_t)c->blocks * c->sector_size;
    image.size += (c->flags & FLAG_ODD_SIZE) != 0 ? SPB_SECTOR_SIZE : 0u;
    image.bytes = calloc(1, image.size);
    SPB_ASSERT(image.bytes != NULL);
    if ((c->flags & FLAG_PATCHES) != 0) {
        while (spb_reader_left(r) > 0 && !r->failed)
            apply_patch(c, &image, r);
    } else {
        read_text(r, image.bytes, image.size);
    }
    fix_superblock(c, &image);
    return image;
}

/* ---- Opening and comparing ---------------------------------------------------------------- */

static struct spb_volume *open_image(const struct choice *c, const struct image *image,
                                     bool writable)
{
    struct spb_open_options options = {(c->flags & FLAG_ASK_SIZE) != 0 ? c->sector_size : 0u,
                                       writable};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;
    struct spb_error err;

    SPB_ASSERT(spb_is_ok(spb_device_memory_new(image->size, &device, &err)));
    SPB_ASSERT(spb_is_ok(spb_device_write(device, 0, image->bytes, image->size, &err)));
    if (spb_is_ok(spb_volume_open(device, &options, &volume, &err)))
        return volume;
    SPB_ASSERT(err.text[0] != '\0' && err.code != SPB_OK);
    SPB_ASSERT(err.code != SPB_IO && err.code != SPB_NO_MEMORY);
    spb_device_close(device);
    return NULL;
}

/* The bytes of the volume's device as they are now. */
static struct image image_of(const struct spb_volume *volume)
{
    struct spb_device *device = spb_volume_device(volume);
    struct image image = {NULL, (size_t)device->size_bytes};

    image.bytes = malloc(image.size);
    SPB_ASSERT(image.bytes != NULL);
    SPB_ASSERT(spb_is_ok(spb_device_read(device, 0, image.bytes, image.size, NULL)));
    return image;
}

static void snapshot_done(struct snapshot *s)
{
    free(s->params);
    free(s->events);
    free(s->products);
}

/* After a check, so that the products' states are known. */
static struct snapshot snapshot_of(const struct spb_volume *volume)
{
    struct snapshot s = {0};
    uint32_t entries = spb_product_entries(volume);

    SPB_ASSERT(spb_is_ok(spb_param_latest(volume, &s.params, &s.param_count, NULL)));
    SPB_ASSERT(spb_is_ok(
        spb_event_recent(volume, spb_event_window(volume), &s.events, &s.event_count, NULL)));
    s.products = calloc(entries + 1u, sizeof *s.products);
    SPB_ASSERT(s.products != NULL);
    for (uint32_t i = 0; i < entries; i++) {
        struct spb_product *p = &s.products[s.product_count];
        struct spb_product found;

        SPB_ASSERT(spb_is_ok(spb_product_entry(volume, i, p, NULL)));
        if (p->state == SPB_PRODUCT_GOOD &&
            spb_is_ok(spb_product_find(volume, p->name, p->name_len, &found, NULL)) &&
            found.entry == i)
            s.product_count++;
    }
    return s;
}

static void assert_params_kept(const struct snapshot *before, const struct spb_volume *volume,
                               uint32_t but_below)
{
    for (size_t i = 0; i < before->param_count; i++) {
        const struct spb_param *was = &before->params[i];
        struct spb_param is;

        if (was->id < but_below)
            continue;
        SPB_ASSERT(spb_is_ok(spb_param_find(volume, was->id, &is, NULL, NULL)));
        SPB_ASSERT(is.generation == was->generation && is.len == was->len);
        SPB_ASSERT(memcmp(is.value, was->value, was->len) == 0);
    }
}

static void assert_events_kept(const struct snapshot *before, const struct spb_volume *volume)
{
    for (size_t i = 0; i < before->event_count; i++) {
        const struct spb_event *was = &before->events[i];
        struct spb_event is;

        /* An append may wrap the pointer around, which renumbers everything. */
        if (was->corrupt || was->index < spb_event_oldest(volume) ||
            was->index >= spb_event_pointer(volume) || was->index > UINT32_MAX - 4096u)
            continue;
        SPB_ASSERT(spb_is_ok(spb_event_read(volume, was->index, &is, NULL)));
        SPB_ASSERT(!is.corrupt && is.timestamp == was->timestamp && is.code == was->code);
        SPB_ASSERT(is.severity == was->severity && is.payload_len == was->payload_len);
        SPB_ASSERT(memcmp(is.payload, was->payload, was->payload_len) == 0);
    }
}

static void assert_products_kept(const struct snapshot *before, const struct spb_volume *volume)
{
    for (size_t i = 0; i < before->product_count; i++) {
        const struct spb_product *was = &before->products[i];
        uint8_t *data = NULL;
        size_t size = 0;

        if (strncmp(was->name, "fuzz", 4) == 0) /* the changes' own */
            continue;
        SPB_ASSERT(spb_is_ok(spb_volume_get_product((struct spb_volume *)(uintptr_t)volume,
                                                    was->name, was->name_len, &data, &size, NULL)));
        SPB_ASSERT(size == was->length && spb_crc32c(0, data, size) == was->crc);
        free(data);
    }
}

/* ---- Walking ------------------------------------------------------------------------------ */

static void walk_params(const struct spb_volume *volume)
{
    uint32_t slots = spb_param_slots(volume);
    struct spb_param param, found;
    struct spb_param_warning warning;

    for (uint32_t slot = 0; slot < slots; slot++) {
        struct spb_param *history = NULL;
        size_t count = 0;
        spb_status status;

        SPB_ASSERT(spb_is_ok(spb_param_read_slot(volume, slot, &param, NULL)));
        SPB_ASSERT(param.slot == slot && param.len <= SPB_PARAM_VALUE_MAX);
        if (param.state == SPB_PARAM_FREE)
            continue;
        status = spb_param_find(volume, param.id, &found, &warning, NULL);
        SPB_ASSERT(spb_is_ok(status) || status.code == SPB_CORRUPT);
        SPB_ASSERT(!spb_is_ok(status) || (found.id == param.id && found.newest));
        SPB_ASSERT(param.state != SPB_PARAM_VALID ||
                   (spb_is_ok(status) && found.generation >= param.generation));
        SPB_ASSERT(!param.newest || found.slot == slot);
        if (slot > 64u) /* the rest by latest alone, for speed */
            continue;
        SPB_ASSERT(spb_is_ok(spb_param_history(volume, param.id, &history, &count, NULL)));
        SPB_ASSERT(count > 0 && history[0].id == param.id);
        free(history);
    }
    SPB_ASSERT(spb_param_read_slot(volume, slots, &param, NULL).code == SPB_INVALID);
}

static void walk_events(const struct spb_volume *volume)
{
    uint32_t pointer = spb_event_pointer(volume), oldest = spb_event_oldest(volume);
    struct spb_event event;

    SPB_ASSERT(oldest <= pointer && pointer - oldest <= spb_event_window(volume));
    SPB_ASSERT(spb_event_window(volume) < spb_event_capacity(volume));
    for (uint32_t i = oldest; i < pointer; i++) {
        SPB_ASSERT(spb_is_ok(spb_event_read(volume, i, &event, NULL)));
        SPB_ASSERT(event.index == i && event.payload_len <= SPB_EVENT_PAYLOAD_MAX);
    }
    SPB_ASSERT(spb_event_read(volume, pointer, &event, NULL).code == SPB_NOT_FOUND);
    SPB_ASSERT(oldest == 0 ||
               spb_event_read(volume, oldest - 1u, &event, NULL).code == SPB_NOT_FOUND);
}

static void walk_product(struct spb_volume *volume, const struct spb_product *product)
{
    struct spb_reservation *pin = NULL;
    struct spb_product found;
    uint64_t length = 0, bytes = (uint64_t)product->block_count * spb_volume_sector_size(volume);
    uint8_t buffer[700];
    spb_status status;

    SPB_ASSERT(spb_is_ok(spb_product_find(volume, product->name, product->name_len, &found, NULL)));
    (void)!spb_is_ok(spb_product_find_at(volume, product->block_offset, &found, NULL));
    SPB_ASSERT(spb_is_ok(spb_reservation_pin(volume, product, &pin, NULL)));
    status = spb_product_verify(volume, product, NULL, NULL, &length, NULL);
    SPB_ASSERT(spb_is_ok(status) || status.code == SPB_CORRUPT);
    SPB_ASSERT(!spb_is_ok(status) || length <= bytes);
    if (bytes > 0)
        SPB_ASSERT(spb_is_ok(spb_product_read(
            volume, product, bytes > 600u ? 100u : 0u, buffer,
            bytes > 600u ? (size_t)(bytes - 100u < 700u ? bytes - 100u : 700u) : (size_t)bytes,
            NULL)));
    spb_product_note(volume, product, spb_is_ok(status), length);
    spb_reservation_free(pin);
}

static void walk_products(struct spb_volume *volume)
{
    uint32_t entries = spb_product_entries(volume), largest = 0;
    uint64_t free_blocks = 0;
    struct spb_product product;

    for (uint32_t i = 0; i < entries; i++) {
        SPB_ASSERT(spb_is_ok(spb_product_entry(volume, i, &product, NULL)));
        SPB_ASSERT(product.entry == i);
        if (product.state == SPB_PRODUCT_PRESENT || product.state == SPB_PRODUCT_GOOD)
            walk_product(volume, &product);
    }
    SPB_ASSERT(spb_product_entry(volume, entries, &product, NULL).code == SPB_INVALID);
    spb_product_space(volume, &free_blocks, &largest);
    SPB_ASSERT(largest <= free_blocks && free_blocks <= spb_volume_superblock(volume)->dp_size);
}

static struct spb_report check(struct spb_volume *volume)
{
    struct spb_report report;
    char *text = spb_volume_describe(volume);

    SPB_ASSERT(text != NULL && text[0] != '\0');
    free(text);
    SPB_ASSERT(spb_is_ok(spb_volume_check(volume, NULL, NULL, &report, NULL)));
    SPB_ASSERT(report.params_valid + report.params_superseded + report.params_free +
                   report.params_corrupt <=
               2u * spb_param_slots(volume));
    SPB_ASSERT(report.events_corrupt <= report.events_live);
    return report;
}

static void read_only(const struct choice *c, const struct image *image)
{
    struct spb_volume *volume = open_image(c, image, false);
    struct spb_report report;
    struct image after;
    struct spb_group *group = NULL;

    if (volume == NULL)
        return;
    walk_params(volume);
    walk_events(volume);
    walk_products(volume);
    report = check(volume);
    spb_report_done(&report);
    SPB_ASSERT(spb_group_new(volume, &group, NULL).code == SPB_READ_ONLY);
    SPB_ASSERT(spb_is_ok(spb_volume_refresh(volume, NULL)));
    after = image_of(volume);
    SPB_ASSERT(memcmp(after.bytes, image->bytes, image->size) == 0);
    free(after.bytes);
    spb_volume_close(volume);
}

/* ---- Scrubbing and copying ---------------------------------------------------------------- */

static void assert_same_findings(const struct spb_report *a, const struct spb_report *b)
{
    SPB_ASSERT(a->count == b->count);
    for (size_t i = 0; i < a->count; i++)
        SPB_ASSERT(a->findings[i].kind == b->findings[i].kind &&
                   a->findings[i].index == b->findings[i].index &&
                   strcmp(a->findings[i].text, b->findings[i].text) == 0);
    SPB_ASSERT(a->params_valid == b->params_valid && a->params_free == b->params_free &&
               a->events_live == b->events_live && a->products_good == b->products_good &&
               a->products_bad == b->products_bad && a->blocks_free == b->blocks_free);
}

/* A copy, opened for reading, says what its original says. */
static void copy(struct spb_volume *volume, const struct spb_report *original)
{
    struct spb_open_options options = {0, false};
    struct spb_snapshot *snapshot = NULL;
    struct spb_device *device = NULL;
    struct spb_volume *copied = NULL;
    struct spb_report report;

    SPB_ASSERT(spb_is_ok(spb_snapshot_new(volume, &snapshot, NULL)));
    SPB_ASSERT(spb_is_ok(spb_device_memory_new(spb_snapshot_size_bytes(snapshot), &device, NULL)));
    SPB_ASSERT(spb_is_ok(spb_snapshot_copy(snapshot, device, NULL, NULL, NULL, NULL)));
    spb_snapshot_free(snapshot);
    SPB_ASSERT(spb_is_ok(spb_volume_open(device, &options, &copied, NULL)));
    report = check(copied);
    assert_same_findings(original, &report);
    spb_report_done(&report);
    spb_volume_close(copied);
}

static void scrub_and_copy(struct spb_volume *volume)
{
    struct spb_report checked = check(volume), scrubbed;

    SPB_ASSERT(spb_is_ok(spb_volume_scrub(volume, NULL, NULL, &scrubbed, NULL)));
    assert_same_findings(&checked, &scrubbed);
    copy(volume, &checked);
    spb_report_done(&checked);
    spb_report_done(&scrubbed);
}

/* ---- Changing ----------------------------------------------------------------------------- */

/* By kind and not by index, since closing gaps moves catalog entries. */
static void assert_no_more_findings(const struct spb_report *before, const struct spb_report *after)
{
    size_t counts[2][SPB_FINDING_PRODUCT_OVERLAP + 1] = {0};

    for (size_t i = 0; i < before->count; i++)
        counts[0][before->findings[i].kind]++;
    for (size_t i = 0; i < after->count; i++)
        counts[1][after->findings[i].kind]++;
    for (size_t kind = 0; kind <= SPB_FINDING_PRODUCT_OVERLAP; kind++)
        SPB_ASSERT(counts[1][kind] <= counts[0][kind]);
}

/* What was repairable is gone, nothing new came up, and what was good is as it was. */
static void repair(struct spb_volume *volume)
{
    struct spb_report first = check(volume), listed, second;
    struct snapshot before = snapshot_of(volume);

    SPB_ASSERT(spb_is_ok(spb_volume_repair(volume, NULL, NULL, &listed, NULL)));
    SPB_ASSERT(listed.count == first.count);
    second = check(volume);
    for (size_t i = 0; i < second.count; i++)
        SPB_ASSERT(!second.findings[i].repairable);
    assert_no_more_findings(&first, &second);
    assert_params_kept(&before, volume, 0);
    assert_events_kept(&before, volume);
    assert_products_kept(&before, volume);
    snapshot_done(&before);
    spb_report_done(&first);
    spb_report_done(&listed);
    spb_report_done(&second);
}

/* What the changes left behind, as acknowledged. */
struct model {
    bool has_param, has_product, has_events;
    uint32_t id, last_event;
    uint8_t value[8];
    uint16_t generation;
    uint8_t *data; /* owned */
    size_t size;
};

static void change_params(struct spb_volume *volume, uint8_t seed, struct model *model)
{
    struct spb_param_put put = {seed % 8u, model->value, sizeof model->value, SPB_ANY_GENERATION};
    spb_status status;

    for (unsigned i = 0; i < 3; i++) {
        memset(model->value, seed + (int)i, sizeof model->value);
        status = spb_volume_put_param(volume, &put, &model->generation, NULL);
        SPB_ASSERT(spb_is_ok(status) || status.code == SPB_FULL);
        SPB_ASSERT(i == 0 || spb_is_ok(status) == model->has_param);
        model->has_param = spb_is_ok(status);
    }
    model->id = put.id;
    put.expected_generation = model->generation == 7 ? 8 : 7;
    SPB_ASSERT(!model->has_param ||
               spb_volume_put_param(volume, &put, NULL, NULL).code == SPB_GENERATION);
    status = spb_volume_delete_param(volume, (seed + 1u) % 8u, SPB_ANY_GENERATION, NULL);
    SPB_ASSERT(spb_is_ok(status) || status.code == SPB_NOT_FOUND);
    status = spb_param_find(volume, (seed + 1u) % 8u, &(struct spb_param){0}, NULL, NULL);
    SPB_ASSERT(status.code == SPB_NOT_FOUND);
}

static void change_events(struct spb_volume *volume, uint8_t seed, struct model *model)
{
    struct spb_event events[10] = {0};
    size_t count = 1u + seed % 10u;
    uint32_t first = 0;

    for (size_t i = 0; i < count; i++) {
        events[i].code = (uint16_t)(1000u + i);
        events[i].payload_len = (uint8_t)(6u * i);
    }
    SPB_ASSERT(spb_is_ok(spb_volume_append_events(volume, events, count, &first, NULL)));
    model->has_events = true;
    model->last_event = spb_event_pointer(volume) - 1u;
    SPB_ASSERT(model->last_event == first + (uint32_t)count - 1u || model->last_event < first);
}

static void change_products(struct spb_volume *volume, uint8_t seed, struct model *model)
{
    struct spb_product_attributes gone = {"fuzz-gone", 9, 1, 1};
    struct spb_product_attributes kept = {"fuzz", 4, 2, 3};
    spb_status status;

    model->size = seed * 9u;
    model->data = malloc(model->size + 1u);
    SPB_ASSERT(model->data != NULL);
    for (size_t i = 0; i < model->size; i++)
        model->data[i] = (uint8_t)((seed & 1u) != 0 ? i * seed : (i + 4u < model->size ? 1u : 0u));
    status = spb_volume_put_product(volume, &gone, model->data, model->size / 2u, true, NULL, NULL);
    SPB_ASSERT(spb_is_ok(status) || status.code == SPB_FULL);
    for (unsigned i = 0; i < 2; i++) {
        status = spb_volume_put_product(volume, &kept, model->data, model->size, true, NULL, NULL);
        SPB_ASSERT(spb_is_ok(status) || status.code == SPB_FULL);
        model->has_product = model->has_product || spb_is_ok(status);
    }
    status = spb_volume_delete_product(volume, "fuzz-gone", 9, NULL);
    SPB_ASSERT(spb_is_ok(status) || status.code == SPB_NOT_FOUND);
    if (model->has_product)
        SPB_ASSERT(spb_volume_put_product(volume, &kept, "", 0, false, NULL, NULL).code ==
                   SPB_EXISTS);
}

static void defrag(struct spb_volume *volume)
{
    struct spb_product moved_product;
    bool moved = true;

    for (unsigned steps = 0; moved; steps++) {
        spb_status status = spb_volume_defrag_step(volume, &moved, &moved_product, NULL);

        SPB_ASSERT(spb_is_ok(status));
        SPB_ASSERT(steps < 4u * spb_product_entries(volume) + 4u);
    }
}

static void assert_model(struct spb_volume *volume, const struct model *model)
{
    struct spb_param param;
    struct spb_event event;
    uint8_t *data = NULL;
    size_t size = 0;

    if (model->has_param) {
        SPB_ASSERT(spb_is_ok(spb_param_find(volume, model->id, &param, NULL, NULL)));
        SPB_ASSERT(param.generation == model->generation && param.len == sizeof model->value);
        SPB_ASSERT(memcmp(param.value, model->value, param.len) == 0);
    }
    if (model->has_events) {
        SPB_ASSERT(spb_event_pointer(volume) == model->last_event + 1u);
        SPB_ASSERT(spb_is_ok(spb_event_read(volume, model->last_event, &event, NULL)));
        SPB_ASSERT(!event.corrupt && event.code >= 1000u && event.code < 1010u);
    }
    if (model->has_product) {
        SPB_ASSERT(spb_is_ok(spb_volume_get_product(volume, "fuzz", 4, &data, &size, NULL)));
        SPB_ASSERT(size == model->size && memcmp(data, model->data, size) == 0);
        free(data);
    }
}

static void change(const struct choice *c, struct spb_volume *volume)
{
    struct spb_report before = check(volume), after;
    struct snapshot was = snapshot_of(volume);
    struct model model = {0};
    struct image image;

    change_params(volume, c->seed, &model);
    change_events(volume, c->seed, &model);
    change_products(volume, c->seed, &model);
    assert_model(volume, &model);
    defrag(volume);
    after = check(volume);
    assert_no_more_findings(&before, &after);
    image = image_of(volume);
    spb_volume_close(volume);
    volume = open_image(c, &image, true);
    SPB_ASSERT(volume != NULL);
    assert_model(volume, &model);
    assert_params_kept(&was, volume, 8);
    assert_events_kept(&was, volume);
    assert_products_kept(&was, volume);
    spb_volume_close(volume);
    free(image.bytes);
    free(model.data);
    snapshot_done(&was);
    spb_report_done(&before);
    spb_report_done(&after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spb_reader reader = spb_reader_over(data, size);
    struct choice c = choose(&reader);
    struct image image;
    struct spb_volume *volume;

    if (reader.failed)
        return -1;
    image = build(&c, &reader);
    read_only(&c, &image);
    volume = open_image(&c, &image, true);
    if (volume != NULL) {
        if (c.sector_size <= 4096u)
            scrub_and_copy(volume);
        if ((c.flags & FLAG_KEEP_DAMAGE) == 0)
            repair(volume);
        change(&c, volume);
    }
    free(image.bytes);
    return 0;
}
