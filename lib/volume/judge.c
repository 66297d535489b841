/*
 * Tells from encoded changes and a volume what happened to each: the object that a statement names
 * is looked up and compared with the states before and after. Reads published state only.
 */
#include <stdlib.h>
#include <string.h>

#include "volume/judge.h"
#include "volume/state.h"

const char *spb_verdict_name(enum spb_verdict verdict)
{
    switch (verdict) {
    case SPB_VERDICT_BEFORE:
        return "before";
    case SPB_VERDICT_AFTER:
        return "after";
    case SPB_VERDICT_IN_PART:
        return "in-part";
    case SPB_VERDICT_UNKNOWN:
        return "unknown";
    }
    return "unknown";
}

/* ---- Parameters ----------------------------------------------------------------------------- */

/* What the volume shows of an id. */
struct shown {
    bool has_newest;
    struct spb_param newest;
    uint32_t others; /* slots naming the id beside the newest */
    bool after_slot; /* some valid slot holds the state after */
};

static bool is_value(const struct spb_param *param, const struct spb_value *value)
{
    return value->state == SPB_VALUE_VALID && param->state == SPB_PARAM_VALID &&
           param->generation == value->generation && param->len == value->len &&
           memcmp(param->value, value->bytes, value->len) == 0;
}

static struct shown look_at(const struct spb_volume *volume, const struct spb_param_change *change)
{
    struct shown shown = {.has_newest = false};
    struct spb_param param;

    for (uint32_t i = 0; i < volume->geo.param_slots; i++) {
        if (!spb_is_ok(spb_param_read_slot(volume, i, &param, NULL)) ||
            param.state == SPB_PARAM_FREE || param.id != change->id)
            continue;
        shown.after_slot |= is_value(&param, &change->after);
        if (param.newest) {
            shown.has_newest = true;
            shown.newest = param;
        } else {
            shown.others++;
        }
    }
    return shown;
}

static bool shows_before(const struct shown *shown, const struct spb_param_change *change)
{
    switch (change->before.state) {
    case SPB_VALUE_VALID:
        return shown->has_newest && is_value(&shown->newest, &change->before);
    case SPB_VALUE_CORRUPT:
        return !shown->has_newest && (shown->others > 0 || change->erases);
    default:
        return !shown->has_newest && shown->others == 0;
    }
}

static enum spb_verdict judge_param(const struct spb_volume *volume,
                                    const struct spb_param_change *change)
{
    struct shown shown = look_at(volume, change);

    if (change->after.state == SPB_VALUE_ABSENT && !shown.has_newest && shown.others == 0)
        return SPB_VERDICT_AFTER;
    if (shown.has_newest && is_value(&shown.newest, &change->after))
        return SPB_VERDICT_AFTER;
    if (shows_before(&shown, change)) {
        /* A wrap or delete erases the other slots first; a wrap may write its slot before. */
        bool begun = change->erases && (shown.others < change->others || shown.after_slot);
        return begun ? SPB_VERDICT_IN_PART : SPB_VERDICT_BEFORE;
    }
    return shown.after_slot ? SPB_VERDICT_AFTER : SPB_VERDICT_UNKNOWN;
}

/* ---- Events --------------------------------------------------------------------------------- */

enum match { MATCH, MISMATCH, GONE };

/* Compares the records that the volume still shows with the first n of the change. */
static enum match match_records(const struct spb_volume *volume,
                                const struct spb_events_change *change, uint32_t first, uint32_t n)
{
    enum match found = GONE;
    struct spb_event event;
    uint8_t record[SPB_EVENT_SIZE];

    for (uint32_t i = 0; i < n; i++) {
        if (!spb_is_ok(spb_event_read(volume, first + i, &event, NULL)) || event.corrupt)
            continue;
        spb_event_record_encode(&event, record);
        if (memcmp(record, change->records + (size_t)i * SPB_EVENT_SIZE, SPB_EVENT_SIZE) != 0)
            return MISMATCH;
        found = MATCH;
    }
    return found;
}

uint32_t spb_events_there(const struct spb_volume *volume, const struct spb_events_change *change)
{
    uint32_t pointer = spb_event_pointer(volume);

    if (pointer == change->before)
        return 0;
    /* An append is written R at a time, from its own start where it wraps. */
    for (uint32_t n = 1; n <= change->count && n <= spb_event_window(volume); n++)
        if (pointer == spb_pointer_advance(&volume->geo, change->before, n))
            return n;
    return SPB_EVENTS_ELSEWHERE;
}

static enum spb_verdict judge_events(const struct spb_volume *volume,
                                     const struct spb_events_change *change)
{
    uint32_t pointer = spb_event_pointer(volume), there = spb_events_there(volume, change);
    bool wraps = change->after < change->before;

    if (there == 0 || (!wraps && pointer < change->before))
        return SPB_VERDICT_BEFORE;
    if (there < change->count)
        return match_records(volume, change, pointer - there, there) == MATCH ? SPB_VERDICT_IN_PART
                                                                              : SPB_VERDICT_UNKNOWN;
    if (pointer < change->after)
        return SPB_VERDICT_UNKNOWN;
    enum match all = match_records(volume, change, change->after - change->count, change->count);
    return all == MATCH ? SPB_VERDICT_AFTER : SPB_VERDICT_UNKNOWN;
}

/* ---- Products and single records ------------------------------------------------------------ */

static bool has_same_name(const uint8_t *entry, const uint8_t *other)
{
    return memcmp(entry + SPB_ENTRY_NAME_AT - 1, other + SPB_ENTRY_NAME_AT - 1,
                  SPB_PRODUCT_NAME_MAX + 1) == 0;
}

/* Does the catalog hold this entry, and does it hold the name at all? */
static bool catalog_holds(const struct spb_volume *volume, const uint8_t *entry, bool *name)
{
    bool found = false;

    (void)pthread_mutex_lock(spb_volume_lock(volume));
    const uint8_t *catalog = spb_catalog_of(volume);
    for (uint32_t i = 0; i < volume->geo.entries; i++) {
        const uint8_t *at = catalog + (size_t)i * SPB_ENTRY_SIZE;
        if (spb_bytes_are_zero(at, SPB_ENTRY_FREE_SIZE))
            continue;
        found |= memcmp(at, entry, SPB_ENTRY_SIZE) == 0;
        *name |= has_same_name(at, entry);
    }
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    return found;
}

static enum spb_verdict judge_product(const struct spb_volume *volume,
                                      const struct spb_product_change *change)
{
    bool name = false;
    bool before = change->before != NULL && catalog_holds(volume, change->before, &name);
    bool after = change->after != NULL && catalog_holds(volume, change->after, &name);
    bool same = change->before != NULL && change->after != NULL &&
                memcmp(change->before, change->after, SPB_ENTRY_SIZE) == 0;

    if (after && before && !same)
        return SPB_VERDICT_IN_PART;
    if (after || (change->after == NULL && !name))
        return SPB_VERDICT_AFTER;
    if (before || (change->before == NULL && !name))
        return SPB_VERDICT_BEFORE;
    return SPB_VERDICT_UNKNOWN;
}

/* Each part of a record is as before or as after, but not the record as a whole. */
static bool is_mixture(const uint8_t *now, const struct spb_cell_change *change, size_t first)
{
    bool head = memcmp(now, change->before, first) == 0 || memcmp(now, change->after, first) == 0;
    bool tail = memcmp(now + first, change->before + first, change->size - first) == 0 ||
                memcmp(now + first, change->after + first, change->size - first) == 0;

    return head && tail;
}

static enum spb_verdict judge_record(const struct spb_volume *volume,
                                     const struct spb_cell_change *change, uint64_t at)
{
    uint8_t now[SPB_PARAM_SIZE];

    (void)pthread_mutex_lock(spb_volume_lock(volume));
    memcpy(now, volume->meta + spb_meta_index(&volume->geo, at), change->size);
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    if (memcmp(now, change->after, change->size) == 0)
        return SPB_VERDICT_AFTER;
    if (memcmp(now, change->before, change->size) == 0)
        return SPB_VERDICT_BEFORE;
    return is_mixture(now, change, spb_first_part(at, change->size)) ? SPB_VERDICT_IN_PART
                                                                     : SPB_VERDICT_UNKNOWN;
}

/* Emptying an entry may leave what follows its first bytes. */
static enum spb_verdict judge_entry(const struct spb_volume *volume,
                                    const struct spb_cell_change *change)
{
    uint8_t now[SPB_ENTRY_SIZE];
    bool name = false, one_sector = spb_catalog_is_one_sector(&volume->geo);

    /* Where closing gaps may have moved it, the entry is looked for by what it holds. */
    if (one_sector || change->index >= volume->geo.entries)
        return catalog_holds(volume, change->before, &name) ? SPB_VERDICT_BEFORE
                                                            : SPB_VERDICT_AFTER;
    (void)pthread_mutex_lock(spb_volume_lock(volume));
    memcpy(now, spb_catalog_of(volume) + (size_t)change->index * SPB_ENTRY_SIZE, sizeof(now));
    (void)pthread_mutex_unlock(spb_volume_lock(volume));
    if (memcmp(now, change->before, sizeof(now)) == 0)
        return SPB_VERDICT_BEFORE;
    return spb_bytes_are_zero(now, SPB_ENTRY_FREE_SIZE) ? SPB_VERDICT_AFTER : SPB_VERDICT_UNKNOWN;
}

static enum spb_verdict judge_cell(const struct spb_volume *volume,
                                   const struct spb_cell_change *change)
{
    if (change->cell == SPB_CELL_ENTRY)
        return judge_entry(volume, change);
    if (change->cell == SPB_CELL_PARAM && change->index < volume->geo.param_slots)
        return judge_record(volume, change, spb_param_at(&volume->geo, change->index));
    if (change->cell == SPB_CELL_EVENT)
        return judge_record(volume, change,
                            spb_event_at(&volume->geo, change->index % volume->geo.event_capacity));
    return SPB_VERDICT_UNKNOWN;
}

/* ---- A file of changes ---------------------------------------------------------------------- */

static void judge_one(const struct spb_volume *volume, const struct spb_change *change,
                      struct spb_judgement *out)
{
    _Static_assert(sizeof(out->object) >= SPB_CHANGE_OBJECT_SIZE, "room for an object");

    spb_change_object(change, out->object);
    switch (change->kind) {
    case SPB_CHANGE_PARAM:
        out->verdict = judge_param(volume, &change->of.param);
        break;
    case SPB_CHANGE_EVENTS:
        out->verdict = judge_events(volume, &change->of.events);
        break;
    case SPB_CHANGE_PRODUCT:
        out->verdict = judge_product(volume, &change->of.product);
        break;
    case SPB_CHANGE_CELL:
        out->verdict = judge_cell(volume, &change->of.cell);
        break;
    }
}

/* The id whose value a change is about: a put or delete of it, or an entry written to a slot. */
static bool is_about_id(const struct spb_change *change, uint32_t *id)
{
    struct spb_param param;

    if (change->kind == SPB_CHANGE_PARAM) {
        *id = change->of.param.id;
        return true;
    }
    if (change->kind != SPB_CHANGE_CELL || change->of.cell.cell != SPB_CELL_PARAM)
        return false;
    spb_param_record_decode(change->of.cell.after, SPB_PARAM_SIZE, &param);
    *id = param.id;
    return param.state == SPB_PARAM_VALID;
}

/* Was the entry that one change empties filled again by a later one, with a product of its name? */
static bool refills(const struct spb_change *later, const struct spb_change *emptied)
{
    return emptied->kind == SPB_CHANGE_CELL && emptied->of.cell.cell == SPB_CELL_ENTRY &&
           later->kind == SPB_CHANGE_PRODUCT && later->of.product.after != NULL &&
           has_same_name(later->of.product.after, emptied->of.cell.before);
}

/* What the verdict on one change says of another one, before it, on the same object. */
static void settle_pair(const struct spb_change *changes, struct spb_judgement *out, size_t before,
                        size_t later)
{
    uint32_t id = 0, later_id = 0;
    bool same_id = is_about_id(&changes[before], &id) && is_about_id(&changes[later], &later_id) &&
                   id == later_id;

    if (!same_id && !refills(&changes[later], &changes[before]))
        return;
    if (out[later].verdict == SPB_VERDICT_AFTER && out[before].verdict == SPB_VERDICT_UNKNOWN)
        out[before].verdict = SPB_VERDICT_AFTER;
    if (same_id && out[before].verdict == SPB_VERDICT_BEFORE &&
        out[later].verdict == SPB_VERDICT_UNKNOWN)
        out[later].verdict = SPB_VERDICT_BEFORE;
}

/*
 * Several changes of one object may share a group, in separate places that reach the medium in any
 * order: of a later one that is there, those before it are superseded, and so done; of an earlier
 * one that is not there, those after it build on what is not there. Only what no place tells
 * (UNKNOWN) is to be settled so.
 */
static void settle_chains(const struct spb_change *changes, struct spb_judgement *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        /* What stands counts more than what does not. */
        for (size_t j = i + 1; out[i].verdict == SPB_VERDICT_UNKNOWN && j < count; j++)
            settle_pair(changes, out, i, j);
        for (size_t j = 0; out[i].verdict == SPB_VERDICT_UNKNOWN && j < i; j++)
            settle_pair(changes, out, j, i);
    }
}

static spb_status fail_encoding(struct spb_error *err)
{
    return spb_fail(err, SPB_CORRUPT, "these bytes are not an encoding of changes, or are damaged");
}

spb_status spb_changes_judge(const uint8_t *bytes, size_t size, const struct spb_volume *volume,
                             struct spb_judgement **judgements, size_t *count,
                             struct spb_error *err)
{
    struct spb_reader r;
    uint32_t announced = 0;

    if (!spb_changes_open(bytes, size, &r, &announced))
        return fail_encoding(err);
    struct spb_change *changes = calloc((size_t)announced + 1, sizeof(*changes));
    struct spb_judgement *out = calloc((size_t)announced + 1, sizeof(*out));
    spb_status status = spb_ok();
    if (changes == NULL || out == NULL)
        status = spb_fail_memory(err, "judging changes");
    for (uint32_t i = 0; spb_is_ok(status) && i < announced; i++) {
        if (!spb_change_read(&r, &changes[i]))
            status = fail_encoding(err);
        else
            judge_one(volume, &changes[i], &out[i]);
    }
    if (spb_is_ok(status) && spb_reader_left(&r) != 0)
        status = fail_encoding(err);
    if (spb_is_ok(status))
        settle_chains(changes, out, announced);
    free(changes);
    if (!spb_is_ok(status)) {
        free(out);
        return status;
    }
    *judgements = out;
    *count = announced;
    return status;
}

enum spb_verdict spb_judgements_sum(const struct spb_judgement *judgements, size_t count)
{
    size_t of[SPB_VERDICT_UNKNOWN + 1] = {0};

    for (size_t i = 0; i < count; i++)
        of[judgements[i].verdict]++;
    if (of[SPB_VERDICT_AFTER] == count)
        return SPB_VERDICT_AFTER;
    if (of[SPB_VERDICT_BEFORE] == count)
        return SPB_VERDICT_BEFORE;
    return of[SPB_VERDICT_UNKNOWN] == 0 ? SPB_VERDICT_IN_PART : SPB_VERDICT_UNKNOWN;
}
