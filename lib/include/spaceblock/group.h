/*
 * Changes of a volume, in three steps: decided, carried out, made visible.
 *
 *   group = spb_group_new(volume)
 *   spb_group_put_param(group, ...), spb_group_append_events(group, ...), ...      decide
 *   spb_group_encode(group, ...)                                                   (record intents)
 *   spb_group_carry_out(group)                                                     all I/O
 *   spb_group_make_visible(group)                                                  swap, free space
 *   spb_group_free(group)
 *
 * Deciding does no I/O: it checks a change against what is published and what the same group has
 * decided already. A decision that fails leaves the group as it was. Dropping a group that was not
 * carried out (spb_group_free) alters nothing. One volume has at most one group at a time.
 *
 * SPB_AGAIN: the change lacks only space (or the very object) that this group has not flushed yet;
 * decide it again in the next group. It never comes from an empty group.
 *
 * Carrying out writes ordered rounds of whole sectors, each at most once, a flush after each: one
 * round for puts, two for each R events, more where format.md needs them. The first error poisons
 * the volume: the changes may or may not have happened, and nothing more is taken until
 * spb_volume_reopen. Threads: see volume.h; deciding and making visible are changes to the volume's
 * state, carrying out is I/O only.
 */
#ifndef SPACEBLOCK_GROUP_H
#define SPACEBLOCK_GROUP_H

#include "spaceblock/volume.h"

#ifdef __cplusplus
extern "C" {
#endif

struct spb_group;

/* SPB_READ_ONLY or SPB_POISONED where the volume takes no changes. */
SPB_API SPB_MUST_USE spb_status spb_group_new(struct spb_volume *volume, struct spb_group **group,
                                              struct spb_error *err);
/* Accepts NULL. Drops what was decided and not carried out. */
SPB_API void spb_group_free(struct spb_group *group);
SPB_API bool spb_group_is_empty(const struct spb_group *group);

/* ---- Decide ------------------------------------------------------------------------------- */

#define SPB_ANY_GENERATION (-1)

struct spb_param_put {
    uint32_t id;
    const void *value;           /* borrowed for the call */
    size_t len;                  /* at most SPB_PARAM_VALUE_MAX */
    int32_t expected_generation; /* of the newest valid entry; 0: absent; or SPB_ANY_GENERATION */
};

/* generation (may be NULL) gets the new one. SPB_INVALID, SPB_GENERATION, SPB_FULL, SPB_AGAIN. */
SPB_API SPB_MUST_USE spb_status spb_group_put_param(struct spb_group *group,
                                                    const struct spb_param_put *put,
                                                    uint16_t *generation, struct spb_error *err);
/* All or none is decided; ids must differ. generations (may be NULL) has count places. */
SPB_API SPB_MUST_USE spb_status spb_group_put_params(struct spb_group *group,
                                                     const struct spb_param_put *puts, size_t count,
                                                     uint16_t *generations, struct spb_error *err);
/* The seed's write_param: an entry of the caller's own generation into a named slot that is free
 * (SPB_IN_USE otherwise) and does not cross a sector boundary. */
SPB_API SPB_MUST_USE spb_status spb_group_write_param(struct spb_group *group, uint32_t slot,
                                                      uint32_t id, uint16_t generation,
                                                      const void *value, size_t len,
                                                      struct spb_error *err);
/* Erases every slot that names the id. SPB_NOT_FOUND where none does. */
SPB_API SPB_MUST_USE spb_status spb_group_delete_param(struct spb_group *group, uint32_t id,
                                                       int32_t expected_generation,
                                                       struct spb_error *err);

/* Appends in order; index and corrupt of each are ignored. first_index (may be NULL) gets the first
 * one's index. SPB_LIMIT for more than spb_event_window() in one call. */
SPB_API SPB_MUST_USE spb_status spb_group_append_events(struct spb_group *group,
                                                        const struct spb_event *events,
                                                        size_t count, uint32_t *first_index,
                                                        struct spb_error *err);

struct spb_product_attributes {
    const void *name; /* borrowed for the call */
    size_t name_len;
    uint16_t product_class;
    uint8_t priority;
};

/*
 * Publishes what a writer finished. The reservation stays the caller's, and must live until the
 * group is made visible or dropped. Without replace a taken name is SPB_EXISTS. product (may be
 * NULL) gets the new entry.
 */
SPB_API SPB_MUST_USE spb_status spb_group_publish_product(
    struct spb_group *group, struct spb_reservation *reservation,
    const struct spb_product_attributes *attributes, const struct spb_product_data *data,
    bool replace, struct spb_product *product, struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_group_delete_product(struct spb_group *group, const void *name,
                                                         size_t name_len, struct spb_error *err);

/* Everything repairable of a check's report; the volume must not have changed since. The group must
 * be empty, and is to be dropped where this fails. */
SPB_API SPB_MUST_USE spb_status spb_group_repair(struct spb_group *group,
                                                 const struct spb_report *report,
                                                 struct spb_error *err);

/* ---- Carry out, make visible -------------------------------------------------------------- */

SPB_API SPB_MUST_USE spb_status spb_group_carry_out(struct spb_group *group, struct spb_error *err);
/* Only after carry-out succeeded. No I/O, cannot fail. */
SPB_API void spb_group_make_visible(struct spb_group *group);

/* The event pointer as it will be; the published one where nothing is appended. */
SPB_API uint32_t spb_group_event_pointer(const struct spb_group *group);

/* How many flushes carrying out takes. */
SPB_API uint32_t spb_group_rounds(const struct spb_group *group);

/* ---- The statement of a change ------------------------------------------------------------ */

/*
 * Changes are numbered from 0 in the order they were decided. One decision (a put, a batch, an
 * append, a publish...) states one change or several, as one run: a caller that notes the count
 * before and after a decision that succeeded has its range. A decision that failed states none.
 */

/* Changes decided so far, counted as spb_changes_judge tells them. */
SPB_API size_t spb_group_change_count(const struct spb_group *group);

/*
 * Changes in words, for people: one line for each, without a newline at the end, the i-th lines of
 * the three belonging together. object is "param 42", "events 10..15", "product NAME", "param slot
 * 7", "event 12" or "catalog entry 3"; before and after are such as "absent", "generation 6 value
 * 0x00ff", "pointer 16: 1200 WARN 7 0x00ff; 1201 40 8 0x" (timestamp in seconds since the epoch,
 * severity, code, payload) or "class 3 priority 1 blocks 12+40 crc 1234abcd". In names whatever is
 * no plain text is escaped: a backslash as \\, a byte as \xNN.
 *
 * The three texts share one piece of memory: spb_change_texts_done frees them all, and none may be
 * freed alone. It accepts texts that are all NULL.
 */
struct spb_change_texts {
    char *object, *before, *after; /* NUL-terminated UTF-8 */
};
SPB_API void spb_change_texts_done(struct spb_change_texts *texts);

/* The changes [first, first + count) of a group; SPB_INVALID where it has not so many. */
SPB_API SPB_MUST_USE spb_status spb_group_describe(const struct spb_group *group, size_t first,
                                                   size_t count, struct spb_change_texts *texts,
                                                   struct spb_error *err);
/* The same of encoded changes; SPB_CORRUPT where the bytes are not an encoding. */
SPB_API SPB_MUST_USE spb_status spb_changes_describe(const uint8_t *bytes, size_t size,
                                                     size_t first, size_t count,
                                                     struct spb_change_texts *texts,
                                                     struct spb_error *err);

/*
 * All decided changes of the group, with their states before and after, encoded; *bytes is the
 * caller's, free(). Carries a CRC. Complete enough to tell what happened, and to do it again.
 */
SPB_API SPB_MUST_USE spb_status spb_group_encode(const struct spb_group *group, uint8_t **bytes,
                                                 size_t *size, struct spb_error *err);

enum spb_verdict {
    SPB_VERDICT_BEFORE,
    SPB_VERDICT_AFTER,
    SPB_VERDICT_IN_PART,
    SPB_VERDICT_UNKNOWN, /* neither: something else changed the object since */
};

SPB_API const char *spb_verdict_name(enum spb_verdict verdict);

struct spb_judgement {
    enum spb_verdict verdict;
    char object[288]; /* as spb_group_describe has it */
};

/*
 * Tells from encoded changes and an opened volume what happened to each, in the order they were
 * decided; *judgements is the caller's, free(). A change whose object a later change of the same
 * encoding took over counts as done where that one's after-state stands. SPB_CORRUPT where the
 * bytes are not an encoding. Reads published state only.
 */
SPB_API SPB_MUST_USE spb_status spb_changes_judge(const uint8_t *bytes, size_t size,
                                                  const struct spb_volume *volume,
                                                  struct spb_judgement **judgements, size_t *count,
                                                  struct spb_error *err);

/*
 * One verdict for the changes of a call: BEFORE where all are before, AFTER where all are after (or
 * there are none), IN_PART where each is before, after or in part, else UNKNOWN.
 */
SPB_API enum spb_verdict spb_judgements_sum(const struct spb_judgement *judgements, size_t count);

/*
 * Brings the volume to the after-state of the changes [first, first + count) of an encoding, one
 * call's, of which a crash left only a part: what is there stays, what is missing is made from the
 * values in the statement, in a group of its own. The actor's; the volume is writable and no group
 * is open. Before reservations of uploads are taken again, since a product's blocks may be wanted.
 * Blocks. Of changes that are all there, or that were completed before, it does nothing.
 *
 * Of several calls complete the last first, and judge anew before each: what a later call made of
 * an object makes earlier ones on it done.
 *
 * SPB_CHANGED where something else changed one of the objects since (its verdict is UNKNOWN), or
 * where what is missing cannot be made from the statement (the bytes of a product that are lost, or
 * of one of whose call nothing is there); SPB_FULL where space is wanting; SPB_AGAIN for changes of
 * several calls that do not go into one group; SPB_CORRUPT where the bytes are not an encoding;
 * SPB_INVALID for a range beyond them. In all these cases it has changed nothing. SPB_IO and
 * SPB_POISONED as for any change: part of it may have happened, and completing may be tried again
 * after a reopening.
 */
SPB_API SPB_MUST_USE spb_status spb_changes_complete(const uint8_t *bytes, size_t size,
                                                     size_t first, size_t count,
                                                     struct spb_volume *volume,
                                                     struct spb_error *err);

/* ---- One change at once ------------------------------------------------------------------- */

/* Decide, carry out, make visible, for a caller that has the volume to itself. All block. */
SPB_API SPB_MUST_USE spb_status spb_volume_put_param(struct spb_volume *volume,
                                                     const struct spb_param_put *put,
                                                     uint16_t *generation, struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_volume_write_param(struct spb_volume *volume, uint32_t slot,
                                                       uint32_t id, uint16_t generation,
                                                       const void *value, size_t len,
                                                       struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_volume_delete_param(struct spb_volume *volume, uint32_t id,
                                                        int32_t expected_generation,
                                                        struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_volume_append_events(struct spb_volume *volume,
                                                         const struct spb_event *events,
                                                         size_t count, uint32_t *first_index,
                                                         struct spb_error *err);
SPB_API SPB_MUST_USE spb_status spb_volume_delete_product(struct spb_volume *volume,
                                                          const void *name, size_t name_len,
                                                          struct spb_error *err);
/* A whole product from memory (the seed's write_dp_data). */
SPB_API SPB_MUST_USE spb_status spb_volume_put_product(
    struct spb_volume *volume, const struct spb_product_attributes *attributes, const void *data,
    size_t size, bool replace, struct spb_product *product, struct spb_error *err);
/* A whole product to memory, verified, of its exact length (the seed's read_dp_data); *data is the
 * caller's, free(). */
SPB_API SPB_MUST_USE spb_status spb_volume_get_product(struct spb_volume *volume, const void *name,
                                                       size_t name_len, uint8_t **data,
                                                       size_t *size, struct spb_error *err);
/* Writes again what the medium no longer holds of the published metadata: a repair's first part.
 * The volume is writable. A failed write or flush poisons it. */
SPB_API SPB_MUST_USE spb_status spb_volume_restore_medium(struct spb_volume *volume,
                                                          struct spb_error *err);
/* Check, then repair what the report lists as repairable. report is the check's. */
SPB_API SPB_MUST_USE spb_status spb_volume_repair(struct spb_volume *volume, spb_progress progress,
                                                  void *user, struct spb_report *report,
                                                  struct spb_error *err);
/* Moves one product towards the start of the area; *moved false: nothing is left to move. */
SPB_API SPB_MUST_USE spb_status spb_volume_defrag_step(struct spb_volume *volume, bool *moved,
                                                       struct spb_product *product,
                                                       struct spb_error *err);

#ifdef __cplusplus
}
#endif
#endif
