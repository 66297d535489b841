/* The calls of a connection, by stream id, deadline and age. One connection, one thread. */
#include "call_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define SLOTS_FIRST 64u
#define EXPIRED_MAX 1024u
#define SPARE_MAX 256u

/* ---- Lists by age ------------------------------------------------------------------------- */

static void list_add(struct spb_call_list *list, struct spb_call *call)
{
    call->older = list->newest;
    call->newer = NULL;
    if (list->newest != NULL)
        list->newest->newer = call;
    else
        list->oldest = call;
    list->newest = call;
    list->count++;
}

static void list_remove(struct spb_call_list *list, struct spb_call *call)
{
    if (call->older != NULL)
        call->older->newer = call->newer;
    else
        list->oldest = call->newer;
    if (call->newer != NULL)
        call->newer->older = call->older;
    else
        list->newest = call->older;
    list->count--;
}

static void list_free(struct spb_call *call)
{
    while (call != NULL) {
        struct spb_call *next = call->newer;
        free(call);
        call = next;
    }
}

/* ---- Table by stream id ------------------------------------------------------------------- */

/* Ids are odd and rise by two, so that calls in flight together lie side by side. */
static size_t home_of(const struct spb_call_table *table, uint32_t stream)
{
    return (stream >> 1) & (table->slot_count - 1);
}

static size_t next_slot(const struct spb_call_table *table, size_t slot)
{
    return (slot + 1) & (table->slot_count - 1);
}

static void slot_put(struct spb_call_table *table, struct spb_call *call)
{
    size_t slot = home_of(table, call->stream);

    while (table->slots[slot] != NULL)
        slot = next_slot(table, slot);
    table->slots[slot] = call;
}

/* Later members of the run move up into the gap, unless that would put them before their home. */
static void slot_close_gap(struct spb_call_table *table, size_t gap)
{
    for (size_t at = next_slot(table, gap); table->slots[at] != NULL; at = next_slot(table, at)) {
        size_t mask = table->slot_count - 1;
        size_t from_home = (at - home_of(table, table->slots[at]->stream)) & mask;
        if (from_home < ((at - gap) & mask))
            continue;
        table->slots[gap] = table->slots[at];
        gap = at;
    }
    table->slots[gap] = NULL;
}

static void slot_remove(struct spb_call_table *table, const struct spb_call *call)
{
    size_t slot = home_of(table, call->stream);

    while (table->slots[slot] != call)
        slot = next_slot(table, slot);
    slot_close_gap(table, slot);
}

static bool make_slots(struct spb_call_table *table)
{
    size_t used = table->running.count + table->expired.count;

    if (used < table->slot_count / 2)
        return true;
    size_t old_count = table->slot_count;
    size_t count = old_count == 0 ? SLOTS_FIRST : old_count * 2;
    struct spb_call **old = table->slots;
    struct spb_call **slots = calloc(count, sizeof(struct spb_call *));

    if (slots == NULL)
        return false;
    table->slots = slots;
    table->slot_count = count;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i] != NULL)
            slot_put(table, old[i]);
    }
    free(old);
    return true;
}

struct spb_call *spb_call_table_find(const struct spb_call_table *table, uint32_t stream)
{
    if (table->slot_count == 0)
        return NULL;
    for (size_t slot = home_of(table, stream); table->slots[slot] != NULL;
         slot = next_slot(table, slot)) {
        if (table->slots[slot]->stream == stream)
            return table->slots[slot];
    }
    return NULL;
}

/* ---- Calls -------------------------------------------------------------------------------- */

void spb_call_table_done(struct spb_call_table *table)
{
    list_free(table->running.oldest);
    list_free(table->expired.oldest);
    list_free(table->spare);
    free(table->slots);
    spb_timers_done(&table->deadlines);
    *table = (struct spb_call_table){.slots = NULL};
}

struct spb_call *spb_call_table_blank(struct spb_call_table *table)
{
    struct spb_call *call = table->spare;

    if (!make_slots(table) || !spb_timers_reserve(&table->deadlines, table->deadlines.count + 1))
        return NULL;
    if (call == NULL)
        return malloc(sizeof(*call));
    table->spare = call->newer;
    table->spare_count--;
    return call;
}

void spb_call_table_add(struct spb_call_table *table, struct spb_call *call)
{
    call->is_expired = false;
    call->timer.index = SPB_TIMER_IDLE;
    slot_put(table, call);
    list_add(&table->running, call);
    if (call->deadline_ns != SPB_NO_DEADLINE)
        spb_timers_set(&table->deadlines, &call->timer, call->deadline_ns);
}

void spb_call_table_release(struct spb_call_table *table, struct spb_call *call)
{
    if (table->spare_count == SPARE_MAX) {
        free(call);
        return;
    }
    call->newer = table->spare;
    table->spare = call;
    table->spare_count++;
}

void spb_call_table_remove(struct spb_call_table *table, struct spb_call *call)
{
    spb_timers_drop(&table->deadlines, &call->timer);
    list_remove(call->is_expired ? &table->expired : &table->running, call);
    slot_remove(table, call);
    spb_call_table_release(table, call);
}

static struct spb_call *call_of(struct spb_timer *timer)
{
    return (struct spb_call *)(void *)((char *)timer - offsetof(struct spb_call, timer));
}

struct spb_call *spb_call_table_expire(struct spb_call_table *table, int64_t now_ns)
{
    struct spb_timer *first = spb_timers_first(&table->deadlines);

    if (first == NULL || first->when_ns > now_ns)
        return NULL;
    struct spb_call *call = call_of(first);

    if (table->expired.count == EXPIRED_MAX) {
        struct spb_call *oldest = table->expired.oldest;
        if (oldest->stream > table->forgotten)
            table->forgotten = oldest->stream;
        spb_call_table_remove(table, oldest);
    }
    spb_timers_drop(&table->deadlines, first);
    list_remove(&table->running, call);
    call->is_expired = true;
    list_add(&table->expired, call);
    return call;
}

int64_t spb_call_table_deadline(const struct spb_call_table *table)
{
    const struct spb_timer *first = spb_timers_first(&table->deadlines);

    return first == NULL ? SPB_NO_DEADLINE : first->when_ns;
}
