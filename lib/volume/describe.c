/* The summary of a volume for people. Reads published state only. */
#include <stdio.h>
#include <stdlib.h>

#include "volume/state.h"

static void count_params(const struct spb_volume *volume, uint32_t *newest, uint32_t *used,
                         uint32_t *corrupt)
{
    struct spb_param param;

    *newest = *used = *corrupt = 0;
    for (uint32_t i = 0; i < volume->geo.param_slots; i++) {
        if (!spb_is_ok(spb_param_read_slot(volume, i, &param, NULL)))
            continue;
        *newest += param.newest;
        *used += param.state == SPB_PARAM_VALID;
        *corrupt += param.state == SPB_PARAM_CORRUPT;
    }
}

static uint32_t count_products(const struct spb_volume *volume)
{
    struct spb_product product;
    uint32_t count = 0;

    for (uint32_t i = 0; i < volume->geo.entries; i++)
        if (spb_is_ok(spb_product_entry(volume, i, &product, NULL)))
            count += product.state != SPB_PRODUCT_FREE;
    return count;
}

static void format_uuid(const uint8_t uuid[SPB_UUID_SIZE], char out[37])
{
    size_t at = 0;

    for (size_t i = 0; i < SPB_UUID_SIZE; i++) {
        at += (size_t)snprintf(out + at, 37 - at, "%02x", uuid[i]);
        if (i == 3 || i == 5 || i == 7 || i == 9)
            out[at++] = '-';
    }
    out[at] = '\0';
}

char *spb_volume_describe(const struct spb_volume *volume)
{
    const struct spb_superblock *super = &volume->super;
    uint32_t newest, used, corrupt, largest;
    uint64_t free_blocks;
    char uuid[37], *text = NULL;

    count_params(volume, &newest, &used, &corrupt);
    spb_product_space(volume, &free_blocks, &largest);
    format_uuid(super->uuid, uuid);
    int n = asprintf(
        &text,
        "SpaceOS image, format version %u\n"
        "  tenant          %u\n"
        "  uuid            %s\n"
        "  epoch           %llu (UNIX seconds)\n"
        "  size            %u blocks of %u bytes\n"
        "  parameters      blocks 1 to 16: %u ids in %u of %u slots, %u corrupt\n"
        "  event log       blocks 17 to 32: %u written, newest %u kept, %u slots\n"
        "  data products   %u blocks from block %u: %u products in %u entries, %llu blocks free, "
        "largest extent %u\n",
        super->format_version, super->tenant_id, uuid, (unsigned long long)super->epoch,
        super->total_blocks, volume->geo.block_size, newest, used, volume->geo.param_slots, corrupt,
        spb_event_pointer(volume), spb_event_pointer(volume) - spb_event_oldest(volume),
        volume->geo.event_capacity, super->dp_size, super->dp_start, count_products(volume),
        volume->geo.entries, (unsigned long long)free_blocks, largest);
    return n < 0 ? NULL : text;
}
