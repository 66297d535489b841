/*
 * The statement of a decided change: what will be true, before and after, in bytes that outlive the
 * process. A statement is u8 kind, u32 size, body; a file of them is magic, version, count, the
 * statements and a CRC-32C over all before it. Integers are big-endian. Pure functions of bytes.
 */
#ifndef SPB_VOLUME_CHANGE_H
#define SPB_VOLUME_CHANGE_H

#include "base/bytes.h"
#include "volume/records.h"

#define SPB_CHANGES_MAGIC 0x53504243u /* "SPBC" */
#define SPB_CHANGES_VERSION 1u

enum spb_change_kind {
    SPB_CHANGE_PARAM = 1,   /* the value of an id */
    SPB_CHANGE_EVENTS = 2,  /* an append */
    SPB_CHANGE_PRODUCT = 3, /* the product of a name: published, replaced, deleted, moved */
    SPB_CHANGE_CELL = 4,    /* one record, by its place: write_param and repair */
};

enum spb_cell_kind { SPB_CELL_PARAM = 1, SPB_CELL_EVENT = 2, SPB_CELL_ENTRY = 3 };

enum spb_value_state { SPB_VALUE_ABSENT = 0, SPB_VALUE_VALID = 1, SPB_VALUE_CORRUPT = 2 };

struct spb_value {
    uint8_t state; /* enum spb_value_state */
    uint16_t generation;
    uint8_t len;
    const uint8_t *bytes; /* borrowed */
};

struct spb_param_change {
    uint32_t id;
    bool erases;     /* delete and generation wrap: the other slots of the id go first */
    uint16_t others; /* slots that named the id beside its newest, before */
    struct spb_value before, after;
};

struct spb_events_change {
    uint32_t before, after, count; /* pointers; records */
    const uint8_t *records;        /* count x 76 bytes, borrowed */
};

struct spb_product_change {
    const uint8_t *before, *after; /* 80 bytes each, borrowed; NULL: absent */
};

struct spb_cell_change {
    uint8_t cell; /* enum spb_cell_kind */
    uint32_t index;
    uint16_t size;
    const uint8_t *before, *after; /* size bytes each, borrowed */
};

struct spb_change {
    enum spb_change_kind kind;
    union {
        struct spb_param_change param;
        struct spb_events_change events;
        struct spb_product_change product;
        struct spb_cell_change cell;
    } of;
};

/* Bytes of the encoded statement. */
size_t spb_change_size(const struct spb_change *change);
void spb_change_write(struct spb_writer *w, const struct spb_change *change);
/* The next statement; false where the bytes are none. Borrowed parts point into the reader's bytes.
 */
bool spb_change_read(struct spb_reader *r, struct spb_change *change);
/* Opens a file of statements: checks its head and CRC, and leaves the reader at the first of *count
 * statements. False where the bytes are none. */
bool spb_changes_open(const uint8_t *bytes, size_t size, struct spb_reader *r, uint32_t *count);

/* Room for the words of a change's object, such as "product NAME", with a NUL. */
#define SPB_CHANGE_OBJECT_SIZE 288u
void spb_change_object(const struct spb_change *change, char object[SPB_CHANGE_OBJECT_SIZE]);

#endif
