/*
 * Fuzzes the statement of a change: bytes that claim to be encoded changes, judged against a small
 * volume in memory, never crash it. The first byte chooses: the bytes as they are; the same with
 * the CRC at their end made right; or changes that are decided as the input says, whose encoding
 * must be judged as before, then, carried out, as after, and which is then damaged as the rest of
 * the input says (CRC made right again) and judged once more. Single-threaded.
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

/* Judges; where the bytes are an encoding and `all` is not UNKNOWN, every verdict must be it. */
static bool judge(const struct spb_volume *volume, const uint8_t *bytes, size_t size,
                  enum spb_verdict all)
{
    struct spb_judgement *judgements = NULL;
    struct spb_error err = {0};
    size_t count = 0;
    spb_status status = spb_changes_judge(bytes, size, volume, &judgements, &count, &err);

    if (!spb_is_ok(status)) {
        SPB_ASSERT(err.text[0] != '\0' && err.code == status.code);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        SPB_ASSERT(spb_verdict_name(judgements[i].verdict) != NULL);
        SPB_ASSERT(memchr(judgements[i].object, 0, sizeof judgements[i].object) != NULL);
        SPB_ASSERT(all == SPB_VERDICT_UNKNOWN || judgements[i].verdict == all);
    }
    free(judgements);
    return true;
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
    for (size_t turn = 0; turn < turns; turn++)
        decide(volume, &plan, turn, r);
    SPB_ASSERT((plan.decided == 0) == spb_group_is_empty(plan.group));
    SPB_ASSERT(spb_is_ok(spb_group_encode(plan.group, &bytes, &size, NULL)));
    SPB_ASSERT(judge(volume, bytes, size, SPB_VERDICT_BEFORE));
    SPB_ASSERT(spb_is_ok(spb_group_carry_out(plan.group, NULL)));
    spb_group_make_visible(plan.group);
    spb_group_free(plan.group);
    for (size_t turn = 0; turn < turns; turn++)
        spb_reservation_free(plan.reservations[turn]);
    SPB_ASSERT(judge(volume, bytes, size, SPB_VERDICT_AFTER));
    damage(bytes, size, r);
    fix_crc(bytes, size);
    (void)judge(volume, bytes, size, SPB_VERDICT_UNKNOWN);
    free(bytes);
}

static void given_bytes(const struct spb_volume *volume, const uint8_t *data, size_t size, bool fix)
{
    uint8_t *bytes = malloc(size + 1u);

    SPB_ASSERT(bytes != NULL);
    memcpy(bytes, data, size);
    if (fix)
        fix_crc(bytes, size);
    (void)judge(volume, bytes, size, SPB_VERDICT_UNKNOWN);
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
