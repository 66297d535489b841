/*
 * Fuzzes the details of acts, as a database hands them back: what decodes has names that are safe
 * as parts of paths, and encodes to what decodes to the same.
 */
#include <string.h>

#include "acts.h"
#include "base/status.h"
#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void assert_name(const char *name)
{
    SPB_ASSERT(strnlen(name, SPB_AUDIT_NAME_SIZE) < SPB_AUDIT_NAME_SIZE);
    SPB_ASSERT(name[0] == '\0' || spb_image_name_is_valid(name, strlen(name)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spb_act_detail detail, again;
    uint8_t bytes[SPB_ACT_DETAIL_SIZE_MAX], second[SPB_ACT_DETAIL_SIZE_MAX];
    struct spb_error err;

    if (!spb_is_ok(spb_act_decode(data, size, &detail, &err))) {
        SPB_ASSERT(err.code == SPB_CORRUPT && err.text[0] != '\0');
        return 0;
    }
    assert_name(detail.name);
    assert_name(detail.new_name);
    SPB_ASSERT(detail.label_len <= sizeof(detail.label));
    size_t used = spb_act_encode(&detail, bytes);
    SPB_ASSERT(used == size && spb_is_ok(spb_act_decode(bytes, used, &again, &err)));
    SPB_ASSERT(spb_act_encode(&again, second) == used && memcmp(bytes, second, used) == 0);
    return 0;
}
