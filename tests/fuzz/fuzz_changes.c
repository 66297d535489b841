/*
 * Fuzzes the statement of a change: bytes that claim to be encoded changes, judged against a small
 * volume in memory, never crash it. The first byte chooses: the bytes as they are; the same with
 * the CRC at their end made right; or changes that are decided as the input says, whose encoding
 * must be judged as before, then, carried out, as after, and which is then damaged as the rest of
 * the input says (CRC made right again) and judged once more. What can be judged can be described
 * too, a line for each change. Some calls are completed on a volume that has nothing of them; what
 * cannot be completed changes nothing. Single-threaded.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "spaceblock/group.h"

#define BLOCKS 96u
#define CHANGES_MAX 8u
#define CRC_SIZE 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reservations of products to be published, which must outlive their group. */
struct plan {
    struct spb_group *group;
    struct spb_reservation *reservations[CHANGES_MAX];
    size_t decided;
    size_t ends[CHANGES_MAX]; /* changes stated after each turn */
};

static void fill(struct spb_volume *volume)
{
    struct spb_event events[20] = {0};

    for (uint32_t id = 0; id < 12u; id++) {
        struct spb_param_put put = {id, "value", 5, SPB_ANY_GENERATION};

        for (uint32_t i = 0; i <= id % 4u; i++)
            SPB_ASSERT(spb_is_ok(spb_volume_put_param(volume, &put, NULL, NULL)));
    }
    for (uint8_t i = 0; i < 20u; i++)
        events[i].payload_len = i;
    SPB_ASSERT(spb_is_ok(spb_volume_append_events(volume, events, 20, NULL, NULL)));
    for (char name = 'a'; name < 'd'; name++) {
        struct spb_product_attributes attributes = {&name, 1, 1, 2};

        SPB_ASSERT(spb_is_ok(
            spb_volume_put_product(volume, &attributes, "some data", 9, false, NULL, NULL)));
    }
}

static struct spb_volume *small_volume(void)
{
    struct spb_format_options format = {BLOCKS, 512, 1, 1700000000, {1, 2, 3}};
    struct spb_open_options options = {512, true};
    struct spb_device *device = NULL;
    struct spb_volume *volume = NULL;

    SPB_ASSERT(spb_is_ok(spb_device_memory_new((uint64_t)BLOCKS * 512u, &device, NULL)));
    SPB_ASSERT(spb_is_ok(spb_volume_format(device, &format, NULL)));
    SPB_ASSERT(spb_is_ok(spb_volume_open(device, &options, &volume, NULL)));
    fill(volume);
    return volume;
}

static size_t lines_of(const char *text)
{
    size_t lines = 1;

    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

/* Each text has as many lines as there are changes, whatever their names hold. */
static void describe(const uint8_t *bytes, size_t size, size_t count)
{
    struct spb_change_texts texts;

    for (size_t first = 0; first < count; first += count / 3u + 1u) {
        size_t n = first == 0 ? count : 1u;

        SPB_ASSERT(spb_is_ok(spb_changes_describe(bytes, size, first, n, &texts, NULL)));
        SPB_ASSERT(lines_of(texts.object) == n && lines_of(texts.before) == n &&
                   lines_of(texts.after) == n);
        SPB_ASSERT(spb_bytes_are_utf8(texts.object, strlen(texts.object)));
        SPB_ASSERT(spb_bytes_are_utf8(texts.before, strlen(texts.before)));
        SPB_ASSERT(spb_bytes_are_utf8(texts.after, strlen(texts.after)));
        spb_change_texts_done(&texts);
    }
    SPB_ASSERT(spb_changes_describe(bytes, size, 0, count + 1u, &texts, NULL).code == SPB_INVALID);
}

/* Judges; where the bytes are an encoding and `all` is not UNKNOWN, every verdict must be it. */
static bool judge(const struct spb_volume *volume, const uint8_t *bytes, size_t size,
                  enum spb_verdict all)
{
    struct spb_judgement *judgements = NULL;
    struct spb_error err = {0};
    size_t count = 0;
    spb_status status = spb_changes_judge(bytes, size, volume, &judgements, &count, &err);

    if (!spb_is_ok(status)) {
        struct spb_change_texts texts;

        SPB_ASSERT(err.text[0] != '\0' && err.code == status.code);
        SPB_ASSERT(!spb_is_ok(spb_changes_describe(bytes, size, 0, SIZE_MAX, &texts, NULL)));
        return false;
    }
    describe(bytes, size, count);
    for (size_t i = 0; i < count; i++) {
        SPB_ASSERT(spb_verdict_name(judgements[i].verdict) != NULL);
        SPB_ASSERT(memchr(judgements[i].object, 0, sizeof judgements[i].object) != NULL);
        SPB_ASSERT(all == SPB_VERDICT_UNKNOWN || judgements[i].verdict == all);
    }
    free(judgements);
    return true;
}

static uint8_t *image_of(const struct spb_volume *volume)
{
    uint8_t *image = malloc(BLOCKS * 512u);

    SPB_ASSERT(image != NULL);
    SPB_ASSERT(spb_is_ok(
        spb_device_read(spb_volume_device(volume), 0, image, BLOCKS * (size_t)512u, NULL)));
    return image;
}

/* Completes; what is refused has changed nothing. The volume can be checked all the same. */
static bool complete(struct spb_volume *volume, const uint8_t *bytes, size_t size, size_t first,
                     size_t count)
{
    uint8_t *before = image_of(volume), *after;
    struct spb_error err = {0};
    struct spb_report report;
    spb_status status = spb_changes_complete(bytes, size, first, count, volume, &err);

    after = image_of(volume);
    SPB_ASSERT(status.code != SPB_IO && status.code != SPB_POISONED &&
               status.code != SPB_NO_MEMORY);
    SPB_ASSERT(spb_is_ok(status) || memcmp(before, after, BLOCKS * (size_t)512u) == 0);
    SPB_ASSERT(spb_is_ok(status) || err.text[0] != '\0');
    SPB_ASSERT(spb_is_ok(spb_volume_check(volume, NULL, NULL, &report, NULL)));
    spb_report_done(&report);
    free(before);
    free(after);
    return spb_is_ok(status);
}

static enum spb_verdict sum_of(const struct spb_volume *volume, const uint8_t *bytes, size_t size,
                               size_t first, size_t count)
{
    struct spb_judgement *judgements = NULL;
    size_t total = 0;
    enum spb_verdict sum;

    SPB_ASSERT(spb_is_ok(spb_changes_judge(bytes, size, volume, &judgements, &total, NULL)));
    SPB_ASSERT(first + count <= total);
    sum = spb_judgements_sum(judgements + first, count);
    free(judgements);
    return sum;
}

/* Of changes that were decided on a volume like this one: completed, a call is done. */
static void complete_calls(const struct plan *plan, size_t turns, const uint8_t *bytes, size_t size,
                           uint8_t which)
{
    struct spb_volume *volume = small_volume();

    for (size_t turn = 0; turn < turns; turn++) {
        size_t first = turn == 0 ? 0 : plan->ends[turn - 1u], count = plan->ends[turn] - first;

        if ((which >> turn & 1u) != 0 && complete(volume, bytes, size, first, count))
            SPB_ASSERT(sum_of(volume, bytes, size, first, count) == SPB_VERDICT_AFTER);
    }
    spb_volume_close(volume);
}

static void fix_crc(uint8_t *bytes, size_t size)
{
    uint32_t crc;

    if (size < CRC_SIZE)
        return;
    crc = spb_crc32c(0, bytes, size - CRC_SIZE);
    for (size_t i = 0; i < CRC_SIZE; i++)
        bytes[size - 1u - i] = (uint8_t)(crc >> (8u * i));
}

static spb_status decide_events(struct plan *plan, struct spb_reader *r)
{
    struct spb_event events[8] = {0};
    size_t count = 1u + spb_read_u8(r) % 8u;

    for (size_t i = 0; i < count; i++) {
        events[i].payload_len = (uint8_t)(spb_read_u8(r) % 65u);
        events[i].code = (uint16_t)i;
    }
    return spb_group_append_events(plan->group, events, count, NULL, NULL);
}

static spb_status decide_product(struct spb_volume *volume, struct plan *plan, size_t turn,
                                 struct spb_reader *r)
{
    static const uint8_t zeros[1024];
    struct spb_product_writer *writer = NULL;
    struct spb_product_data data;
    char name = (char)('a' + (int)turn);
    struct spb_product_attributes attributes = {&name, 1, 7, spb_read_u8(r)};
    size_t size = spb_read_be16(r) % (sizeof zeros + 1u);
    spb_status status = spb_reservation_new(volume, size, &plan->reservations[turn], NULL);

    if (!spb_is_ok(status))
        return status;
    SPB_ASSERT(
        spb_is_ok(spb_product_writer_new(volume, plan->reservations[turn], size, &writer, NULL)));
    SPB_ASSERT(spb_is_ok(spb_product_writer_write(writer, zeros, size, NULL)));
    SPB_ASSERT(spb_is_ok(spb_product_writer_finish(writer, &data, NULL)));
    spb_product_writer_free(writer);
    return spb_group_publish_product(plan->group, plan->reservations[turn], &attributes, &data,
                                     spb_read_u8(r) % 4u != 0, NULL, NULL);
}

/* One change, to objects that no other turn touches; what is refused is not decided. */
static void decide(struct spb_volume *volume, struct plan *plan, size_t turn, struct spb_reader *r)
{
    uint32_t id = (uint32_t)turn * 2u;
    uint8_t value[SPB_PARAM_VALUE_MAX] = {0};
    struct spb_param_put puts[2] = {{id, value, spb_read_u8(r) % 241u, SPB_ANY_GENERATION},
                                    {id + 1u, "", 0, SPB_ANY_GENERATION}};
    char name = (char)('a' + (int)turn);
    spb_status status;

    value[0] = spb_read_u8(r);
    switch (spb_read_u8(r) % 7u) {
    case 0:
        status = spb_group_put_param(plan->group, puts, NULL, NULL);
        break;
    case 1:
        status = spb_group_put_params(plan->group, puts, 2, NULL, NULL);
        break;
    case 2:
        status = spb_group_write_param(plan->group, spb_read_u8(r) % 32u, id + 100u,
                                       spb_read_be16(r), value, 9, NULL);
        break;
    case 3:
        status = spb_group_delete_param(plan->group, id, SPB_ANY_GENERATION, NULL);
        break;
    case 4:
        status = decide_events(plan, r);
        break;
    case 5:
        status = decide_product(volume, plan, turn, r);
        break;
    default:
        status = spb_group_delete_product(plan->group, &name, 1, NULL);
        break;
    }
    SPB_ASSERT(status.code != SPB_IO && status.code != SPB_NO_MEMORY && status.code != SPB_CORRUPT);
    plan->decided += spb_is_ok(status);
}

static void damage(uint8_t *bytes, size_t size, struct spb_reader *r)
{
    while (spb_reader_left(r) >= 3u && !r->failed && size > 0) {
        size_t at = spb_read_be16(r) % size;

        bytes[at] ^= spb_read_u8(r);
    }
}

static void decided_changes(struct spb_volume *volume, struct spb_reader *r)
{
    struct plan plan = {0};
    size_t turns = 1u + spb_read_u8(r) % CHANGES_MAX;
    uint8_t *bytes = NULL;
    size_t size = 0;

    SPB_ASSERT(spb_is_ok(spb_group_new(volume, &plan.group, NULL)));
    for (size_t turn = 0; turn < turns; turn++) {
        decide(volume, &plan, turn, r);
        plan.ends[turn] = spb_group_change_count(plan.group);
    }
    SPB_ASSERT((plan.decided == 0) == spb_group_is_empty(plan.group));
    SPB_ASSERT(spb_is_ok(spb_group_encode(plan.group, &bytes, &size, NULL)));
    SPB_ASSERT(judge(volume, bytes, size, SPB_VERDICT_BEFORE));
    complete_calls(&plan, turns, bytes, size, (uint8_t)(size ^ turns * 37u));
    SPB_ASSERT(spb_is_ok(spb_group_carry_out(plan.group, NULL)));
    spb_group_make_visible(plan.group);
    spb_group_free(plan.group);
    for (size_t turn = 0; turn < turns; turn++)
        spb_reservation_free(plan.reservations[turn]);
    SPB_ASSERT(judge(volume, bytes, size, SPB_VERDICT_AFTER));
    damage(bytes, size, r);
    fix_crc(bytes, size);
    if (judge(volume, bytes, size, SPB_VERDICT_UNKNOWN))
        (void)complete(volume, bytes, size, 0, plan.ends[0]);
    free(bytes);
}

static void given_bytes(struct spb_volume *volume, const uint8_t *data, size_t size, bool fix)
{
    uint8_t *bytes = malloc(size + 1u);

    SPB_ASSERT(bytes != NULL);
    memcpy(bytes, data, size);
    if (fix)
        fix_crc(bytes, size);
    if (judge(volume, bytes, size, SPB_VERDICT_UNKNOWN))
        (void)complete(volume, bytes, size, 0, 1);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spb_reader reader = spb_reader_over(data, size);
    uint8_t mode = spb_read_u8(&reader) % 3u;
    struct spb_volume *volume;

    if (reader.failed)
        return -1;
    volume = small_volume();
    if (mode == 2u)
        decided_changes(volume, &reader);
    else
        given_bytes(volume, data + 1, size - 1u, mode == 1u);
    spb_volume_close(volume);
    return 0;
}
