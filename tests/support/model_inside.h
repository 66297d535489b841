/* What the model's files share; not for tests. */
#ifndef SPB_TESTS_SUPPORT_MODEL_INSIDE_H
#define SPB_TESTS_SUPPORT_MODEL_INSIDE_H

#include "support/model.h"

enum model_kind { MODEL_ABSENT, MODEL_VALUE, MODEL_CORRUPT };

/* Bytes that clones share. */
struct model_bytes {
    unsigned users;
    size_t size;
    uint8_t data[];
};

struct model_state {
    enum model_kind kind;
    /* parameters */
    uint16_t generation;
    uint16_t len;
    uint8_t value[SPB_PARAM_VALUE_MAX];
    /* products */
    uint16_t product_class;
    uint8_t priority;
    struct model_bytes *bytes;
};

/* A parameter or a product, and its possible states in the order they came about. */
struct model_object {
    uint32_t id;
    char name[SPB_PRODUCT_NAME_MAX + 1]; /* "" of a parameter */
    bool duplicates;                     /* more than one entry may have the name */
    bool may_vanish;                     /* MODEL_CORRUPT: may be absent at any time */
    size_t count;
    size_t seen; /* by the last comparison */
    struct model_state *states;
};

struct model_objects {
    size_t count, room;
    struct model_object *items; /* parameters by id, products by name */
};

struct model_event {
    struct spb_event event;
    bool corrupt;
    bool may_be_lost; /* repair may have put the "lost" record in its place */
    bool seen_lost;   /* by the last comparison */
    bool any_time;    /* a "lost" record: its timestamp is the library's choice */
};

enum model_change_kind {
    MODEL_CHANGE_PARAMS,
    MODEL_CHANGE_EVENTS,
    MODEL_CHANGE_PRODUCT,
    MODEL_CHANGE_REPAIR
};

/* One change: which states of which objects it led from and to (to is from + 1). */
struct model_change {
    enum model_change_kind kind;
    bool loose; /* steps before the visible one exist: not done may be in part */
    size_t count;
    struct {
        uint32_t id;
        char name[SPB_PRODUCT_NAME_MAX + 1];
        size_t from;
    } * items;
    size_t first, end; /* events: which of those not yet settled */
};

struct model {
    uint32_t sector_size;
    struct model_objects params, products;
    struct model_event *events; /* the newest last */
    size_t event_count, event_room;
    size_t pending;   /* of them, how many are not settled */
    size_t taken;     /* of those, how many the last comparison saw */
    uint32_t pointer; /* before the pending ones */
    uint32_t seen_pointer;
    bool pointer_wrapped; /* its exact value depends on where the rounds ended */
    bool overlaps;        /* extents may overlap */
    struct model_change *changes;
    size_t change_count, change_room;
};

void *model_allocate(size_t n);
uint32_t model_ring(const struct model *model);  /* C */
uint32_t model_round(const struct model *model); /* R */
struct model_object *model_find(struct model_objects *objects, uint32_t id, const char *name);
void model_push(struct model_object *object, const struct model_state *state);
/* Keeps only that state. */
void model_keep(struct model_object *object, size_t index);
bool model_state_equal(const struct model_state *a, const struct model_state *b);
void model_clear_changes(struct model *model);

#endif
