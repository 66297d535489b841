/*
 * A model of what a volume says: parameters by id, live events, products by name. It knows nothing
 * of slots, sectors or rounds, and is compared with a volume through the public interface alone.
 *
 * A test tells the model each change before it lets the volume make it. Until the change is
 * acknowledged (model_settle) or dropped (model_drop) the model holds every state that format.md
 * allows a crash to leave: of each parameter and product any of the states that its changes lead
 * through, of the events any prefix. model_compare finds which of them the volume shows, or what
 * is wrong; model_adopt takes what was seen for true from then on.
 *
 * No global state; one thread at a time.
 */
#ifndef SPB_TESTS_SUPPORT_MODEL_H
#define SPB_TESTS_SUPPORT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spaceblock/group.h"
#include "spaceblock/volume.h"

struct model;

/* Never NULL: without memory the test aborts. */
struct model *model_new(uint32_t sector_size);
struct model *model_clone(const struct model *model);
/* Accepts NULL. */
void model_free(struct model *model);

/* ---- Building: what is there, without alternatives ---------------------------------------- */

void model_set_param(struct model *model, uint32_t id, uint16_t generation, const void *value,
                     size_t len);
/* Only corrupt slots name the id: reads are SPB_CORRUPT. Any change may take such a slot, so the
 * id may be absent as well. */
void model_set_param_corrupt(struct model *model, uint32_t id);
/* An event at the end, the pointer being as it is. NULL: a corrupt one. */
void model_add_event(struct model *model, const struct spb_event *event);
void model_set_pointer(struct model *model, uint32_t pointer);
/* data NULL: its data fails its CRC. */
void model_set_product(struct model *model, const char *name, uint16_t product_class,
                       uint8_t priority, const void *data, size_t size);
/* Several entries of that name may be in the catalog: a rotten one stays until repair. */
void model_allow_duplicate(struct model *model, const char *name);
/* Extents of entries may overlap. */
void model_allow_overlap(struct model *model);

/* ---- Changes: the last state joins those that are possible -------------------------------- */

struct model_item {
    uint32_t id;
    uint16_t generation;
    const void *value;
    size_t len;
};

/* Each item is a change of its own: a crash may leave any subset. */
void model_put(struct model *model, const struct model_item *items, size_t count);
/* An entry of any generation: the value only where no higher one is there. */
void model_write_param(struct model *model, const struct model_item *item);
void model_delete_param(struct model *model, uint32_t id);
void model_append(struct model *model, const struct spb_event *events, size_t count);
void model_put_product(struct model *model, const char *name, uint16_t product_class,
                       uint8_t priority, const void *data, size_t size);
void model_delete_product(struct model *model, const char *name);
/* Repair: rotten products and ids with only corrupt slots may go, corrupt events may become "lost"
 * records; acknowledged, all of them have. */
void model_repair(struct model *model);

/* The last change takes steps that are not seen (a corrupt slot goes first): while its outcome is
 * the old state, "in part" fits as well as "before". */
void model_mark_loose(struct model *model);

/* The generation that the next put of the id gets, by what the volume's history shows. */
uint16_t model_next_generation(const struct spb_volume *volume, uint32_t id);
/* Does a corrupt slot name the id with generation 65535? */
bool model_corrupt_wrap(const struct spb_volume *volume, uint32_t id);

/* All changes were acknowledged: only the last states remain. */
void model_settle(struct model *model);
/* All changes were dropped: only the first states remain. */
void model_drop(struct model *model);
/* What the last model_compare saw is what is true. */
void model_adopt(struct model *model);

/* ---- Comparing ---------------------------------------------------------------------------- */

#define MODEL_WHY_SIZE 400

/* Does the volume show a state that the model allows? If not, why says what differs. Reads all of
 * the volume, product data included. */
bool model_compare(struct model *model, struct spb_volume *volume, char why[MODEL_WHY_SIZE]);

/* Changes since the last settling, in the order they were made. */
size_t model_changes(const struct model *model);
/* The verdicts (bits 1 << enum spb_verdict) that fit what the last model_compare saw of change i.
 */
unsigned model_verdicts(const struct model *model, size_t i);

bool model_is_repair(const struct model *model, size_t i);

/* Names of products that the model knows, for tests that pick one: NULL beyond the last. Borrowed.
 * Whether it is there now by the last settled state is *present. */
const char *model_product_name(const struct model *model, size_t i, bool *present);
/* Ids that the model knows; false beyond the last. */
bool model_param_id(const struct model *model, size_t i, uint32_t *id, bool *present);

#endif
