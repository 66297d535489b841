/* The details of acts as bytes: every member survives, and what is no detail is refused. */
#include <stdlib.h>

#include "acts.h"
#include "support/random.h"
#include "volume_kit.h"

static struct spb_act_detail full(enum spb_act_kind kind)
{
    struct spb_act_detail detail = {.kind = kind,
                                    .tenant = 65535,
                                    .new_identity = true,
                                    .sector_size = 4096,
                                    .size = UINT64_MAX,
                                    .label_len = 64};

    memset(detail.name, 'n', 64);
    memset(detail.new_name, 'm', 64);
    memset(detail.uuid, 0xa5, sizeof(detail.uuid));
    memset(detail.upload, 0x5a, sizeof(detail.upload));
    memset(detail.sha256, 0xc3, sizeof(detail.sha256));
    memset(detail.label, 0xff, sizeof(detail.label));
    return detail;
}

static size_t encode(const struct spb_act_detail *detail, uint8_t out[SPB_ACT_DETAIL_SIZE_MAX])
{
    size_t size = spb_act_encode(detail, out);

    cr_assert_leq(size, SPB_ACT_DETAIL_SIZE_MAX);
    return size;
}

static bool decodes(const uint8_t *bytes, size_t size)
{
    struct spb_act_detail untouched = full(SPB_ACT_UPLOAD_ABORT), detail = untouched;
    spb_status status = spb_act_decode(bytes, size, &detail, &kit_err);

    if (spb_is_ok(status))
        return true;
    cr_assert_eq(status.code, SPB_CORRUPT);
    cr_assert(memcmp(&detail, &untouched, sizeof(detail)) == 0, "a failure left something");
    return false;
}

Test(acts, survive_as_bytes)
{
    for (int kind = SPB_ACT_IMAGE_IMPORT; kind <= SPB_ACT_GUEST_DELETE; kind++) {
        struct spb_act_detail detail = full((enum spb_act_kind)kind), got;
        uint8_t bytes[SPB_ACT_DETAIL_SIZE_MAX], again[SPB_ACT_DETAIL_SIZE_MAX];
        size_t size = encode(&detail, bytes);

        memset(&got, 0, sizeof(got));
        OK(spb_act_decode(bytes, size, &got, &kit_err));
        cr_assert_eq(got.kind, detail.kind);
        cr_assert_str_eq(got.name, detail.name);
        cr_assert_str_eq(got.new_name, detail.new_name);
        cr_assert_eq(got.tenant, detail.tenant);
        cr_assert_eq(got.size, detail.size);
        cr_assert_eq(got.sector_size, detail.sector_size);
        cr_assert(got.new_identity);
        cr_assert_eq(got.label_len, 64);
        cr_assert_eq(encode(&got, again), size);
        cr_assert(memcmp(bytes, again, size) == 0);
    }
}

Test(acts, refuse_every_truncation_and_anything_more)
{
    struct spb_act_detail detail = full(SPB_ACT_IMAGE_RENAME);
    uint8_t bytes[SPB_ACT_DETAIL_SIZE_MAX + 1] = {0};
    size_t size = encode(&detail, bytes);

    for (size_t n = 0; n < size; n++)
        cr_assert(!decodes(bytes, n), "%zu bytes of %zu", n, size);
    cr_assert(decodes(bytes, size));
    cr_assert(!decodes(bytes, size + 1));
}

Test(acts, refuse_names_that_lead_elsewhere)
{
    const char *bad[] = {"", ".hidden", "..", "../x", "a/b", "a b", "\x01"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct spb_act_detail detail = {.kind = SPB_ACT_IMAGE_RENAME};
        uint8_t bytes[SPB_ACT_DETAIL_SIZE_MAX];

        for (int which = 0; which < 2; which++) {
            memcpy(detail.name, "fine", 5);
            memcpy(detail.new_name, "fine", 5);
            memcpy(which == 0 ? detail.name : detail.new_name, bad[i], strlen(bad[i]) + 1);
            cr_assert(!decodes(bytes, encode(&detail, bytes)), "name %zu", i);
        }
    }
}

Test(acts, need_only_the_names_of_their_kind)
{
    struct spb_act_detail detail = {.kind = SPB_ACT_UPLOAD_START};
    uint8_t bytes[SPB_ACT_DETAIL_SIZE_MAX];

    cr_assert(decodes(bytes, encode(&detail, bytes)));
    detail.kind = SPB_ACT_IMAGE_CLONE;
    cr_assert(!decodes(bytes, encode(&detail, bytes)));
    memcpy(detail.name, "fine", 5);
    cr_assert(decodes(bytes, encode(&detail, bytes)));
    detail.kind = SPB_ACT_IMAGE_RENAME;
    cr_assert(!decodes(bytes, encode(&detail, bytes)));
}

Test(acts, take_no_harm_from_noise)
{
    struct spb_act_detail detail = full(SPB_ACT_IMAGE_IMPORT), got;
    uint8_t bytes[SPB_ACT_DETAIL_SIZE_MAX], again[SPB_ACT_DETAIL_SIZE_MAX];
    size_t size = encode(&detail, bytes);
    uint64_t seed = 1;

    for (int i = 0; i < 200000; i++) {
        uint8_t damaged[SPB_ACT_DETAIL_SIZE_MAX];

        memcpy(damaged, bytes, size);
        for (int k = 0; k < 3; k++)
            damaged[random_below(&seed, (uint32_t)size)] = (uint8_t)random_next(&seed);
        size_t n = 1 + random_below(&seed, (uint32_t)size);
        if (spb_is_ok(spb_act_decode(damaged, n, &got, &kit_err)))
            cr_assert_eq(encode(&got, again), n);
    }
}
