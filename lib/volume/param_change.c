/*
 * Deciding changes of the parameter store: put, batch, write_param, delete. No I/O. Where a put
 * goes and how generation 65535 is passed: format.md, "Parameter entry". The actor's thread.
 */
#include <stdlib.h>
#include <string.h>

#include "volume/change.h"
#include "volume/state.h"

#define NO_SLOT UINT32_MAX

/* What the group sees of one id. */
struct holding {
    uint32_t newest;     /* slot, or NO_SLOT */
    uint16_t generation; /* of the newest valid entry */
    bool has_corrupt;
    uint16_t corrupt; /* highest generation that a corrupt slot shows */
    uint32_t others;  /* slots naming the id, beside newest */
    bool decided;     /* some slot of it was written by this group */
};

static bool names(const struct spb_work_cell *at, uint32_t id)
{
    return at->cell.state != SPB_PARAM_FREE && at->cell.id == id;
}

static struct holding look_up(const struct spb_group *group, uint32_t id)
{
    struct holding held = {.newest = NO_SLOT};

    for (uint32_t i = 0; i < group->volume->geo.param_slots; i++) {
        const struct spb_work_cell *at = &group->cells[i];
        if (!names(at, id))
            continue;
        held.decided |= at->edit != 0;
        if (at->cell.newest) {
            held.newest = i;
            held.generation = at->cell.generation;
            continue;
        }
        held.others++;
        if (at->cell.state == SPB_PARAM_CORRUPT) {
            held.has_corrupt = true;
            if (at->cell.generation > held.corrupt)
                held.corrupt = at->cell.generation;
        }
    }
    return held;
}

static bool is_busy(const struct spb_group *group, uint32_t id)
{
    for (size_t i = 0; i < group->busy_count; i++)
        if (group->busy[i] == id)
            return true;
    return false;
}

static spb_status fail_again(const struct spb_group *group, uint32_t id, struct spb_error *err)
{
    return spb_fail(err, SPB_AGAIN, "parameter %u of %s waits for the changes before it", id,
                    group->volume->device->name);
}

static bool crosses(const struct spb_group *group, uint32_t slot)
{
    return spb_crosses(spb_param_at(&group->volume->geo, slot), SPB_PARAM_SIZE);
}

/* ---- Checks --------------------------------------------------------------------------------- */

static spb_status check_value(const struct spb_group *group, uint32_t id, size_t len,
                              struct spb_error *err)
{
    if (len <= SPB_PARAM_VALUE_MAX)
        return spb_ok();
    return spb_fail(err, SPB_INVALID,
                    "cannot put parameter %u of %s: its value has %zu bytes, expected at most %u",
                    id, group->volume->device->name, len, SPB_PARAM_VALUE_MAX);
}

static spb_status check_generation(const struct spb_group *group, uint32_t id,
                                   const struct holding *held, int32_t expected,
                                   struct spb_error *err)
{
    const char *name = group->volume->device->name;

    if (expected == SPB_ANY_GENERATION)
        return spb_ok();
    if (expected < 0 || expected > (int32_t)SPB_GENERATION_MAX)
        return spb_fail(err, SPB_INVALID,
                        "generation %d was expected of parameter %u of %s: it is "
                        "from 0 to %u",
                        expected, id, name, SPB_GENERATION_MAX);
    if (held->newest != NO_SLOT && expected != 0 && held->generation == expected)
        return spb_ok();
    if (held->newest != NO_SLOT)
        return spb_fail(err, SPB_GENERATION,
                        "cannot change parameter %u of %s: its generation is %u, expected %d%s", id,
                        name, held->generation, expected, expected == 0 ? " (absent)" : "");
    if (held->others > 0)
        return spb_fail(err, SPB_GENERATION,
                        "cannot change parameter %u of %s: only corrupt slots name it, expected "
                        "generation %d",
                        id, name, expected);
    if (expected == 0)
        return spb_ok();
    return spb_fail(err, SPB_GENERATION,
                    "cannot change parameter %u of %s: it is absent, expected generation %d", id,
                    name, expected);
}

/* ---- Choosing a slot ------------------------------------------------------------------------ */

/* What a slot is to a put of an id; lower is taken first. */
enum rank { RANK_FREE, RANK_SUPERSEDED, RANK_CORRUPT_OWN, RANK_CORRUPT, RANK_NONE };

static enum rank rank_of(const struct spb_work_cell *at, uint32_t id)
{
    if (at->cell.state == SPB_PARAM_FREE)
        return RANK_FREE;
    if (at->cell.state == SPB_PARAM_CORRUPT)
        return at->cell.id == id ? RANK_CORRUPT_OWN : RANK_CORRUPT;
    return at->cell.newest ? RANK_NONE : RANK_SUPERSEDED;
}

struct choice {
    uint32_t slot; /* NO_SLOT: none */
    enum rank rank;
    uint32_t reusable;   /* slots that some put could take, now or in a later round */
    bool newest_crosses; /* some id's value lies across a sector boundary */
};

/* Is slot a better than b (both reusable)? The round first: what is ready now is taken now. */
static bool is_better(const struct spb_work_cell *a, enum rank rank_a,
                      const struct spb_work_cell *b, enum rank rank_b)
{
    if (a->ready != b->ready)
        return a->ready < b->ready;
    if (rank_a != rank_b)
        return rank_a < rank_b;
    return rank_a == RANK_SUPERSEDED && a->cell.generation < b->cell.generation;
}

static struct choice choose(const struct spb_group *group, uint32_t id)
{
    struct choice best = {.slot = NO_SLOT, .rank = RANK_NONE};

    for (uint32_t i = 0; i < group->volume->geo.param_slots; i++) {
        const struct spb_work_cell *at = &group->cells[i];
        bool across = crosses(group, i);
        if (across) {
            best.newest_crosses |= at->cell.newest;
            continue;
        }
        enum rank rank = rank_of(at, id);
        if (rank == RANK_NONE)
            continue;
        best.reusable++;
        if (best.slot == NO_SLOT || is_better(at, rank, &group->cells[best.slot], best.rank)) {
            best.slot = i;
            best.rank = rank;
        }
    }
    return best;
}

static spb_status fail_full(const struct spb_group *group, uint32_t id, struct spb_error *err)
{
    return spb_fail(err, SPB_FULL,
                    "cannot put parameter %u in %s: each of its %u parameter slots that can be "
                    "written holds another id's newest value, or the last one is kept for an id "
                    "whose value must move",
                    id, group->volume->device->name, group->volume->geo.param_slots);
}

/* How a put is decided. */
struct manner {
    bool may_wait;   /* for slots that this group frees, by more rounds */
    uint16_t forced; /* the generation it was given before a crash; 0: the next one */
};

/* The slot for a put, and the earliest round in which it may be written. */
static spb_status find_slot(const struct spb_group *group, uint32_t id, const struct holding *held,
                            const struct manner *manner, uint32_t *slot, uint32_t *round,
                            struct spb_error *err)
{
    struct choice best = choose(group, id);

    /* A put that is done again had its place already when it was decided first. */
    if (held->newest == NO_SLOT && best.reusable == 1 && best.newest_crosses && manner->forced == 0)
        return fail_full(group, id, err);
    if (best.slot == NO_SLOT) {
        /* Every slot holds some id's newest value: the id's own is overwritten, in one sector. */
        if (held->newest == NO_SLOT || crosses(group, held->newest))
            return fail_full(group, id, err);
        best.slot = held->newest;
    }
    uint32_t ready = group->cells[best.slot].ready;
    if (ready > 0 && !manner->may_wait && group->change_count > 0)
        return fail_again(group, id, err);
    *slot = best.slot;
    *round = ready > *round ? ready : *round;
    return spb_ok();
}

/* ---- Working on the group's cells ------------------------------------------------------------ */

static void set_free(struct spb_group *group, uint32_t slot, uint32_t last_round)
{
    struct spb_work_cell *at = &group->cells[slot];

    at->cell = (struct spb_cell){.state = SPB_PARAM_FREE};
    at->ready = last_round + 1;
    at->edit = 0;
}

static spb_status erase_slot(struct spb_group *group, uint32_t slot, uint32_t round, uint32_t *last,
                             struct spb_error *err)
{
    uint64_t at = spb_param_at(&group->volume->geo, slot);

    SPB_TRY(spb_group_erase(group, round, at, SPB_PARAM_SIZE, last, err));
    set_free(group, slot, *last);
    return spb_ok();
}

/* Writes an entry; what it supersedes becomes ready a round later. */
static spb_status fill_slot(struct spb_group *group, uint32_t slot, uint32_t round, uint32_t id,
                            uint16_t generation, const void *value, size_t len,
                            struct spb_error *err)
{
    uint8_t record[SPB_PARAM_SIZE];
    struct spb_work_cell *at = &group->cells[slot];

    spb_param_record_encode(id, generation, value, len, record);
    SPB_TRY(spb_group_edit(group, round, spb_param_at(&group->volume->geo, slot), record,
                           sizeof(record), err));
    at->cell = (struct spb_cell){.id = id, .generation = generation, .state = SPB_PARAM_VALID};
    at->ready = round + 1;
    at->edit = (uint32_t)group->edit_count;
    return spb_ok();
}

/* Marks the newest of an id again, after a write in a round. */
static void settle_newest(struct spb_group *group, uint32_t id, uint32_t round)
{
    uint32_t newest = NO_SLOT;

    for (uint32_t i = 0; i < group->volume->geo.param_slots; i++) {
        struct spb_work_cell *at = &group->cells[i];
        if (at->cell.state != SPB_PARAM_VALID || at->cell.id != id)
            continue;
        if (at->cell.newest && at->ready < round + 1)
            at->ready = round + 1;
        at->cell.newest = false;
        if (newest == NO_SLOT || at->cell.generation > group->cells[newest].cell.generation)
            newest = i;
    }
    if (newest != NO_SLOT)
        group->cells[newest].cell.newest = true;
}

/* ---- Statement ------------------------------------------------------------------------------ */

static struct spb_value value_before(const struct spb_group *group, const struct holding *held,
                                     uint8_t copy[SPB_PARAM_VALUE_MAX])
{
    struct spb_value value = {.state = SPB_VALUE_ABSENT};
    struct spb_param param;

    if (held->newest != NO_SLOT) {
        spb_param_record_decode(spb_group_param_bytes(group, held->newest), SPB_PARAM_SIZE, &param);
        memcpy(copy, param.value, sizeof(param.value));
        value = (struct spb_value){SPB_VALUE_VALID, param.generation, (uint8_t)param.len, copy};
    } else if (held->others > 0) {
        value.state = SPB_VALUE_CORRUPT;
        value.generation = held->corrupt;
    }
    return value;
}

static spb_status state_param(struct spb_group *group, const struct spb_param_change *param,
                              struct spb_error *err)
{
    struct spb_change change = {.kind = SPB_CHANGE_PARAM, .of.param = *param};
    uint8_t bytes[64 + 2 * SPB_PARAM_VALUE_MAX];
    size_t size = spb_change_size(&change);

    SPB_ASSERT(size <= sizeof(bytes));
    struct spb_writer w = spb_writer_over(bytes, sizeof(bytes));
    spb_change_write(&w, &change);
    return spb_group_state_change(group, bytes, size, err);
}

/* ---- Put ------------------------------------------------------------------------------------ */

/* Erases the id's slots that wanted() picks, from a round on; *last is the last round used. */
static spb_status erase_matching(struct spb_group *group, uint32_t id, uint32_t keep,
                                 bool only_wrapped, uint32_t round, uint32_t *last,
                                 struct spb_error *err)
{
    *last = round;
    for (uint32_t i = 0; i < group->volume->geo.param_slots; i++) {
        const struct spb_work_cell *at = &group->cells[i];
        uint32_t used;
        if (!names(at, id) || i == keep)
            continue;
        if (only_wrapped &&
            !(at->cell.state == SPB_PARAM_CORRUPT && at->cell.generation == SPB_GENERATION_MAX))
            continue;
        SPB_TRY(erase_slot(group, i, round, &used, err));
        if (used > *last)
            *last = used;
    }
    return spb_ok();
}

/*
 * The first round in which the id's slots that this group gave to others are durably theirs. Until
 * then a crash may bring back an older entry of the id, so that its newest may not go before.
 */
static uint32_t settled_round(const struct spb_group *group, uint32_t id)
{
    uint32_t round = 0;

    for (uint32_t i = 0; i < group->volume->geo.param_slots; i++) {
        const struct spb_cell *was = &group->volume->cells[i];
        const struct spb_work_cell *now = &group->cells[i];
        if (was->state != SPB_PARAM_FREE && was->id == id && !names(now, id) && now->ready > round)
            round = now->ready;
    }
    return round;
}

static spb_status give_generation(const struct spb_group *group, uint32_t id, uint16_t highest,
                                  const struct manner *manner, uint16_t *generation,
                                  struct spb_error *err)
{
    *generation = manner->forced != 0 ? manner->forced : (uint16_t)(highest + 1);
    if (*generation > highest)
        return spb_ok();
    return spb_fail(err, SPB_CHANGED,
                    "cannot put parameter %u of %s again with generation %u: it has %u by now", id,
                    group->volume->device->name, *generation, highest);
}

/* Generation 65535 is followed by 1: what is older goes first, so that 1 is the highest then. */
static spb_status put_wrapped(struct spb_group *group, const struct spb_param_put *put,
                              const struct holding *held, struct spb_error *err)
{
    uint32_t slot = held->newest, last, settled = settled_round(group, put->id);
    uint32_t round = settled > 1 ? settled : 1;
    const struct manner moved = {.may_wait = true};

    SPB_TRY(spb_group_mark_busy(group, put->id, err));
    SPB_TRY(erase_matching(group, put->id, held->newest, false, 0, &last, err));
    if (!crosses(group, held->newest)) {
        SPB_TRY(fill_slot(group, slot, round, put->id, 1, put->value, put->len, err));
        settle_newest(group, put->id, round);
        return spb_ok();
    }
    SPB_TRY(find_slot(group, put->id, held, &moved, &slot, &round, err));
    SPB_TRY(fill_slot(group, slot, round, put->id, 1, put->value, put->len, err));
    SPB_TRY(erase_slot(group, held->newest, round + 1, &last, err));
    settle_newest(group, put->id, last);
    return spb_ok();
}

/* Where only a corrupt slot names 65535 it is erased first, and the valid generation goes on. */
static spb_status put_after_corrupt_wrap(struct spb_group *group, const struct spb_param_put *put,
                                         const struct manner *manner, uint16_t *generation,
                                         struct spb_error *err)
{
    const struct manner waits = {.may_wait = true, .forced = manner->forced};
    uint32_t slot, last, round;

    SPB_TRY(spb_group_mark_busy(group, put->id, err));
    SPB_TRY(erase_matching(group, put->id, NO_SLOT, true, 0, &last, err));
    struct holding held = look_up(group, put->id);
    uint16_t highest = held.corrupt > held.generation ? held.corrupt : held.generation;
    SPB_TRY(give_generation(group, put->id, highest, manner, generation, err));
    round = 1;
    SPB_TRY(find_slot(group, put->id, &held, &waits, &slot, &round, err));
    SPB_TRY(fill_slot(group, slot, round, put->id, *generation, put->value, put->len, err));
    settle_newest(group, put->id, round);
    return spb_ok();
}

/*
 * Has this group filled a slot with the id's newest entry? Then nobody has seen that one, and what
 * follows it goes to the same place, in the same round: a group takes any number of puts of an id
 * in the space of one.
 */
static bool has_own_slot(const struct spb_group *group, const struct holding *held, uint32_t *slot,
                         uint32_t *round)
{
    if (held->newest == NO_SLOT || group->cells[held->newest].edit == 0)
        return false;
    *slot = held->newest;
    *round = group->edits[group->cells[held->newest].edit - 1].round;
    return true;
}

static spb_status put_plain(struct spb_group *group, const struct spb_param_put *put,
                            const struct holding *held, const struct manner *manner,
                            uint16_t generation, struct spb_error *err)
{
    uint32_t slot, round = 0;

    if (!has_own_slot(group, held, &slot, &round))
        SPB_TRY(find_slot(group, put->id, held, manner, &slot, &round, err));
    SPB_TRY(fill_slot(group, slot, round, put->id, generation, put->value, put->len, err));
    settle_newest(group, put->id, round);
    return spb_ok();
}

/* Decides one put; on failure the caller undoes what it left in the group. */
static spb_status decide_put(struct spb_group *group, const struct spb_param_put *put,
                             const struct manner *manner, uint16_t *generation,
                             struct spb_error *err)
{
    struct holding held = look_up(group, put->id);
    uint16_t highest = held.corrupt > held.generation ? held.corrupt : held.generation;
    bool wraps = highest == SPB_GENERATION_MAX;
    uint8_t copy[SPB_PARAM_VALUE_MAX];
    struct spb_value before = value_before(group, &held, copy);

    SPB_TRY(check_value(group, put->id, put->len, err));
    if (is_busy(group, put->id) || (wraps && held.decided))
        return fail_again(group, put->id, err);
    SPB_TRY(check_generation(group, put->id, &held, put->expected_generation, err));
    if (held.newest != NO_SLOT && held.generation == SPB_GENERATION_MAX) {
        SPB_TRY(give_generation(group, put->id, 0, manner, generation, err));
        SPB_TRY(put_wrapped(group, put, &held, err));
    } else if (wraps) {
        SPB_TRY(put_after_corrupt_wrap(group, put, manner, generation, err));
    } else {
        SPB_TRY(give_generation(group, put->id, highest, manner, generation, err));
        SPB_TRY(put_plain(group, put, &held, manner, *generation, err));
    }
    struct spb_param_change change = {
        .id = put->id,
        .erases = wraps,
        .others = (uint16_t)(held.others > UINT16_MAX ? UINT16_MAX : held.others),
        .before = before,
        .after = {SPB_VALUE_VALID, *generation, (uint8_t)put->len, put->value},
    };
    return state_param(group, &change, err);
}

static spb_status put_one(struct spb_group *group, const struct spb_param_put *put,
                          const struct manner *manner, uint16_t *generation, struct spb_error *err)
{
    struct spb_mark mark;
    uint16_t made = 0;

    spb_group_assert_open(group);
    SPB_TRY(spb_group_mark(group, &mark, err));
    spb_status status = decide_put(group, put, manner, &made, err);
    if (!spb_is_ok(status))
        spb_group_undo(group, &mark);
    else if (generation != NULL)
        *generation = made;
    spb_mark_done(&mark);
    return status;
}

spb_status spb_group_put_param(struct spb_group *group, const struct spb_param_put *put,
                               uint16_t *generation, struct spb_error *err)
{
    const struct manner manner = {.may_wait = false};

    return put_one(group, put, &manner, generation, err);
}

spb_status spb_group_put_param_again(struct spb_group *group, uint32_t id, uint16_t generation,
                                     const void *value, size_t len, struct spb_error *err)
{
    const struct spb_param_put put = {id, value, len, SPB_ANY_GENERATION};
    const struct manner manner = {.may_wait = true, .forced = generation};

    if (generation == 0)
        return spb_fail(err, SPB_INVALID, "cannot put parameter %u of %s with generation 0", id,
                        group->volume->device->name);
    return put_one(group, &put, &manner, NULL, err);
}

static spb_status check_batch(const struct spb_group *group, const struct spb_param_put *puts,
                              size_t count, struct spb_error *err)
{
    if (count == 0 || count > group->volume->geo.param_slots)
        return spb_fail(err, SPB_LIMIT, "cannot put %zu parameters of %s at once: expected 1 to %u",
                        count, group->volume->device->name, group->volume->geo.param_slots);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            if (puts[i].id == puts[j].id)
                return spb_fail(err, SPB_INVALID,
                                "cannot put parameters of %s at once: %u is named twice",
                                group->volume->device->name, puts[i].id);
    return spb_ok();
}

spb_status spb_group_put_params(struct spb_group *group, const struct spb_param_put *puts,
                                size_t count, uint16_t *generations, struct spb_error *err)
{
    struct spb_mark mark;
    /* In a group of its own a batch may take more rounds than one, to reuse what it supersedes. */
    const struct manner manner = {.may_wait = spb_group_is_empty(group)};
    spb_status status = spb_ok();

    spb_group_assert_open(group);
    SPB_TRY(check_batch(group, puts, count, err));
    uint16_t *made = calloc(count, sizeof(*made));
    if (made == NULL)
        return spb_fail_memory(err, "deciding a batch of parameters");
    status = spb_group_mark(group, &mark, err);
    if (!spb_is_ok(status)) {
        free(made);
        return status;
    }
    for (size_t i = 0; spb_is_ok(status) && i < count; i++)
        status = decide_put(group, &puts[i], &manner, &made[i], err);
    if (!spb_is_ok(status))
        spb_group_undo(group, &mark);
    else if (generations != NULL)
        memcpy(generations, made, count * sizeof(*made));
    spb_mark_done(&mark);
    free(made);
    return status;
}

/* ---- write_param ---------------------------------------------------------------------------- */

static spb_status check_slot(const struct spb_group *group, uint32_t slot, struct spb_error *err)
{
    const char *name = group->volume->device->name;

    if (slot >= group->volume->geo.param_slots)
        return spb_fail(err, SPB_INVALID, "cannot write parameter slot %u of %s: expected 0 to %u",
                        slot, name, group->volume->geo.param_slots - 1);
    if (crosses(group, slot))
        return spb_fail(err, SPB_INVALID,
                        "cannot write parameter slot %u of %s: it crosses a sector boundary, so "
                        "that a write of it could be torn",
                        slot, name);
    if (group->cells[slot].cell.state != SPB_PARAM_FREE)
        return spb_fail(err, SPB_IN_USE,
                        "cannot write parameter slot %u of %s: it holds parameter %u", slot, name,
                        group->cells[slot].cell.id);
    return spb_ok();
}

static spb_status state_slot(struct spb_group *group, uint32_t slot, const uint8_t *after,
                             struct spb_error *err)
{
    static const uint8_t zeros[SPB_PARAM_SIZE];
    struct spb_change change = {
        .kind = SPB_CHANGE_CELL,
        .of.cell = {SPB_CELL_PARAM, slot, SPB_PARAM_SIZE, zeros, after},
    };
    uint8_t bytes[64 + 2 * SPB_PARAM_SIZE];
    struct spb_writer w = spb_writer_over(bytes, sizeof(bytes));

    spb_change_write(&w, &change);
    return spb_group_state_change(group, bytes, w.pos, err);
}

spb_status spb_group_write_param(struct spb_group *group, uint32_t slot, uint32_t id,
                                 uint16_t generation, const void *value, size_t len,
                                 struct spb_error *err)
{
    uint8_t record[SPB_PARAM_SIZE];
    struct spb_mark mark;

    spb_group_assert_open(group);
    SPB_TRY(check_value(group, id, len, err));
    SPB_TRY(check_slot(group, slot, err));
    struct choice left = choose(group, id);
    if (look_up(group, id).newest == NO_SLOT && left.reusable == 1 && left.newest_crosses)
        return fail_full(group, id, err);
    if (is_busy(group, id) || group->cells[slot].ready > 0)
        return fail_again(group, id, err);
    spb_param_record_encode(id, generation, value, len, record);
    SPB_TRY(spb_group_mark(group, &mark, err));
    spb_status status = fill_slot(group, slot, 0, id, generation, value, len, err);
    if (spb_is_ok(status)) {
        settle_newest(group, id, 0);
        status = state_slot(group, slot, record, err);
    }
    if (!spb_is_ok(status))
        spb_group_undo(group, &mark);
    spb_mark_done(&mark);
    return status;
}

/* ---- Delete --------------------------------------------------------------------------------- */

/* Superseded and corrupt slots first, the newest a round later: never an older value remains. */
static spb_status decide_delete(struct spb_group *group, uint32_t id, const struct holding *held,
                                struct spb_error *err)
{
    uint8_t copy[SPB_PARAM_VALUE_MAX];
    struct spb_param_change change = {
        .id = id,
        .erases = true,
        .others = (uint16_t)(held->others > UINT16_MAX ? UINT16_MAX : held->others),
        .before = value_before(group, held, copy),
        .after = {.state = SPB_VALUE_ABSENT},
    };
    uint32_t last = 0, round = settled_round(group, id);

    if (round == 0 && held->others > 0)
        round = 1;
    SPB_TRY(spb_group_mark_busy(group, id, err));
    SPB_TRY(erase_matching(group, id, held->newest, false, 0, &last, err));
    if (held->newest != NO_SLOT)
        SPB_TRY(erase_slot(group, held->newest, round, &last, err));
    return state_param(group, &change, err);
}

spb_status spb_group_delete_param(struct spb_group *group, uint32_t id, int32_t expected_generation,
                                  struct spb_error *err)
{
    struct holding held = look_up(group, id);
    struct spb_mark mark;

    spb_group_assert_open(group);
    if (is_busy(group, id) || held.decided)
        return fail_again(group, id, err);
    if (held.newest == NO_SLOT && held.others == 0)
        return spb_fail(err, SPB_NOT_FOUND, "cannot delete parameter %u of %s: it is absent", id,
                        group->volume->device->name);
    SPB_TRY(check_generation(group, id, &held, expected_generation, err));
    SPB_TRY(spb_group_mark(group, &mark, err));
    spb_status status = decide_delete(group, id, &held, err);
    if (!spb_is_ok(status))
        spb_group_undo(group, &mark);
    spb_mark_done(&mark);
    return status;
}
