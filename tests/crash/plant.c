/* Images built byte by byte, after format.md and independently of the library's encoders. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "crash/lab.h"
#include "support/model_inside.h"

#define DP_START 33u

static void put_be(uint8_t *at, uint64_t value, size_t n)
{
    for (size_t i = n; i-- > 0; value >>= 8)
        at[i] = (uint8_t)value;
}

static void renew(const struct lab *lab, struct medium **medium)
{
    medium_free(*medium);
    *medium = medium_new(lab->size, lab->seed);
}

void lab_begin(struct lab *lab, const char *scenario, uint32_t block_size, uint32_t dp_blocks)
{
    lab->scenario = scenario;
    lab->block_size = block_size;
    lab->blocks = DP_START + dp_blocks;
    lab->size = (size_t)lab->blocks * block_size;
    lab->random = lab->seed;
    lab->where[0] = '\0';
    lab->settled_states = 0;
    free(lab->image);
    lab->image = model_allocate(lab->size);
    model_free(lab->model);
    lab->model = model_new(block_size);
    renew(lab, &lab->medium);
    renew(lab, &lab->cut);
    renew(lab, &lab->nested);
    renew(lab, &lab->heir);

    uint8_t *block = lab->image;

    memcpy(block, "SPOS\x01", 5);
    put_be(block + 6, 7, 2);
    put_be(block + 8, lab->blocks, 4);
    put_be(block + 12, DP_START, 4);
    put_be(block + 16, dp_blocks, 4);
    put_be(block + 20, 1700000000, 8);
    memset(block + 28, 0xA5, 16);
    put_be(block + 44, spb_crc32c(0, block, 44), 4);
}

/* ---- Parameters ---------------------------------------------------------------------------- */

uint32_t lab_param_slots(const struct lab *lab)
{
    return 16 * (lab->block_size / 252);
}

size_t lab_param_offset(const struct lab *lab, uint32_t slot)
{
    uint32_t per_block = lab->block_size / 252;

    return (size_t)(1 + slot / per_block) * lab->block_size + (size_t)(slot % per_block) * 252;
}

bool lab_slot_crosses(const struct lab *lab, uint32_t slot)
{
    size_t offset = lab_param_offset(lab, slot);

    return offset / SPB_SECTOR_SIZE != (offset + 251) / SPB_SECTOR_SIZE;
}

uint32_t lab_slot(const struct lab *lab, uint32_t nth, bool crossing)
{
    uint32_t slot = 0;

    for (;; slot++) {
        SPB_ASSERT(slot < lab_param_slots(lab));
        if (lab_slot_crosses(lab, slot) == crossing && nth-- == 0)
            return slot;
    }
}

static uint8_t *plant_entry(struct lab *lab, uint32_t slot, uint32_t id, uint16_t generation,
                            const char *value)
{
    uint8_t *entry = lab->image + lab_param_offset(lab, slot);
    size_t len = strlen(value);

    memset(entry, 0, 252);
    put_be(entry, id, 4);
    put_be(entry + 4, len, 2);
    put_be(entry + 6, generation, 2);
    memcpy(entry + 8, value, len);
    put_be(entry + 248, spb_crc32c(0, entry, 248), 4);
    return entry;
}

void lab_plant_param(struct lab *lab, uint32_t slot, uint32_t id, uint16_t generation,
                     const char *value)
{
    const struct model_object *known = model_find(&lab->model->params, id, "");

    plant_entry(lab, slot, id, generation, value);
    if (known == NULL || known->states[0].kind != MODEL_VALUE ||
        known->states[0].generation < generation)
        model_set_param(lab->model, id, generation, value, strlen(value));
}

void lab_plant_corrupt(struct lab *lab, uint32_t slot, uint32_t id, uint16_t generation)
{
    uint8_t *entry = plant_entry(lab, slot, id, generation, "rotten");

    entry[250] ^= 0x10;
    if (model_find(&lab->model->params, id, "") == NULL)
        model_set_param_corrupt(lab->model, id);
}

void lab_plant_full(struct lab *lab, uint32_t from, uint32_t first_id)
{
    for (uint32_t slot = from == 0 ? 0 : lab_slot(lab, from, false); slot < lab_param_slots(lab);
         slot++) {
        char value[32];

        if (lab_slot_crosses(lab, slot))
            continue;
        snprintf(value, sizeof(value), "value of slot %u", slot);
        lab_plant_param(lab, slot, first_id++, (uint16_t)(1 + slot % 100), value);
    }
}

/* ---- Events -------------------------------------------------------------------------------- */

struct spb_event lab_event(struct lab *lab)
{
    struct spb_event event = {.timestamp = random_below(&lab->random, 1u << 30),
                              .severity = (uint8_t)random_below(&lab->random, 5),
                              .payload_len = (uint8_t)random_below(&lab->random, 65),
                              .code = (uint16_t)random_below(&lab->random, 60000)};

    random_fill(&lab->random, event.payload, event.payload_len);
    return event;
}

static uint8_t *event_at(const struct lab *lab, uint32_t index)
{
    uint32_t round = lab->block_size / 76;
    uint32_t slot = index % (15 * round);

    return lab->image + (size_t)(18 + slot / round) * lab->block_size + (size_t)(slot % round) * 76;
}

void lab_plant_events(struct lab *lab, uint32_t pointer, uint32_t count)
{
    SPB_ASSERT(count <= pointer && count <= 15 * (lab->block_size / 76));
    for (uint32_t index = pointer - count; index != pointer; index++) {
        struct spb_event event = lab_event(lab);
        uint8_t *at = event_at(lab, index);

        put_be(at, event.timestamp, 4);
        at[4] = event.severity;
        at[5] = event.payload_len;
        put_be(at + 6, event.code, 2);
        memcpy(at + 8, event.payload, sizeof(event.payload));
        put_be(at + 72, spb_crc32c(0, at, 72), 4);
        model_add_event(lab->model, &event);
    }
    put_be(lab->image + (size_t)17 * lab->block_size, pointer, 4);
    model_set_pointer(lab->model, pointer);
}

void lab_plant_event_corrupt(struct lab *lab, uint32_t nth)
{
    event_at(lab, lab->model->pointer - 1 - nth)[9] ^= 1;
    lab->model->events[lab->model->event_count - 1 - nth].corrupt = true;
}

/* ---- Products ------------------------------------------------------------------------------ */

uint32_t lab_catalog_entries(const struct lab *lab)
{
    return lab->block_size / 80;
}

bool lab_entry_crosses(const struct lab *lab, uint32_t entry)
{
    (void)lab;
    return entry * 80 / SPB_SECTOR_SIZE != (entry * 80 + 79) / SPB_SECTOR_SIZE;
}

uint32_t lab_entry(const struct lab *lab, uint32_t nth, bool crossing)
{
    for (uint32_t entry = 0;; entry++) {
        SPB_ASSERT(entry < lab_catalog_entries(lab));
        if (lab_entry_crosses(lab, entry) == crossing && nth-- == 0)
            return entry;
    }
}

/* Its data in place; returns the data, in the image. */
static uint8_t *plant_product(struct lab *lab, uint32_t entry, const char *name,
                              uint32_t block_offset, size_t size)
{
    uint8_t *at = lab->image + (size_t)DP_START * lab->block_size + (size_t)entry * 80;
    uint8_t *data = lab->image + (size_t)(DP_START + block_offset) * lab->block_size;
    size_t count = (size + lab->block_size - 1) / lab->block_size;

    SPB_ASSERT(DP_START + block_offset + count <= lab->blocks);
    if (size > 0) {
        random_fill(&lab->random, data, size);
        data[size - 1] = 0x41;
    }
    memset(at, 0, 80);
    put_be(at, count == 0 ? 0 : block_offset, 4);
    put_be(at + 4, count, 4);
    put_be(at + 8, 100 + entry, 2);
    at[10] = (uint8_t)entry;
    at[11] = (uint8_t)strlen(name);
    memcpy(at + 12, name, strlen(name));
    put_be(at + 76, spb_crc32c(0, data, size), 4);
    return data;
}

void lab_plant_product(struct lab *lab, uint32_t entry, const char *name, uint32_t block_offset,
                       size_t size)
{
    const uint8_t *data = plant_product(lab, entry, name, block_offset, size);

    model_set_product(lab->model, name, (uint16_t)(100 + entry), (uint8_t)entry, data, size);
}

void lab_plant_rotten(struct lab *lab, uint32_t entry, const char *name, uint32_t block_offset,
                      size_t size)
{
    plant_product(lab, entry, name, block_offset, size)[0] ^= 0x80;
    if (model_find(&lab->model->products, 0, name) == NULL)
        model_set_product(lab->model, name, (uint16_t)(100 + entry), (uint8_t)entry, NULL, 0);
    else
        model_allow_duplicate(lab->model, name);
}
