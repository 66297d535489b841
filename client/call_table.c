/* The calls of a connection, by stream id, deadline and age. One connection, one thread. */
#include "call_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define SLOTS_FIRST 64u
#define EXPIRED_MAX 1024u
#define SPARE_MAX 256u
#define NOT_IN_HEAP SIZE_MAX

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

/* ---- Heap by deadline --------------------------------------------------------------------- */

static bool make_heap(struct spb_call_table *table)
{
    if (table->heap_count < table->heap_size)
        return true;
    size_t size = table->heap_size == 0 ? SLOTS_FIRST : table->heap_size * 2;
    struct spb_call **heap = reallocarray(table->heap, size, sizeof(struct spb_call *));

    if (heap == NULL)
        return false;
    table->heap = heap;
    table->heap_size = size;
    return true;
}

static void heap_set(struct spb_call_table *table, size_t index, struct spb_call *call)
{
    table->heap[index] = call;
    call->heap_index = index;
}

static void heap_rise(struct spb_call_table *table, size_t index, struct spb_call *call)
{
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (table->heap[parent]->deadline_ns <= call->deadline_ns)
            break;
        heap_set(table, index, table->heap[parent]);
        index = parent;
    }
    heap_set(table, index, call);
}

static void heap_sink(struct spb_call_table *table, size_t index, struct spb_call *call)
{
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= table->heap_count)
            break;
        if (child + 1 < table->heap_count &&
            table->heap[child + 1]->deadline_ns < table->heap[child]->deadline_ns)
            child++;
        if (call->deadline_ns <= table->heap[child]->deadline_ns)
            break;
        heap_set(table, index, table->heap[child]);
        index = child;
    }
    heap_set(table, index, call);
}

static void heap_remove(struct spb_call_table *table, struct spb_call *call)
{
    size_t index = call->heap_index;

    if (index == NOT_IN_HEAP)
        return;
    struct spb_call *last = table->heap[--table->heap_count];

    call->heap_index = NOT_IN_HEAP;
    if (last == call)
        return;
    /* The last one fills the gap and finds its place from there, upwards or downwards. */
    heap_rise(table, index, last);
    heap_sink(table, last->heap_index, last);
}

/* ---- Calls -------------------------------------------------------------------------------- */

void spb_call_table_done(struct spb_call_table *table)
{
    list_free(table->running.oldest);
    list_free(table->expired.oldest);
    list_free(table->spare);
    free(table->slots);
    free(table->heap);
    *table = (struct spb_call_table){.slots = NULL};
}

struct spb_call *spb_call_table_blank(struct spb_call_table *table)
{
    struct spb_call *call = table->spare;

    if (!make_slots(table) || !make_heap(table))
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
    call->heap_index = NOT_IN_HEAP;
    slot_put(table, call);
    list_add(&table->running, call);
    if (call->deadline_ns != SPB_NO_DEADLINE)
        heap_rise(table, table->heap_count++, call);
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
    heap_remove(table, call);
    list_remove(call->is_expired ? &table->expired : &table->running, call);
    slot_remove(table, call);
    spb_call_table_release(table, call);
}

struct spb_call *spb_call_table_expire(struct spb_call_table *table, int64_t now_ns)
{
    if (table->heap_count == 0 || table->heap[0]->deadline_ns > now_ns)
        return NULL;
    struct spb_call *call = table->heap[0];

    if (table->expired.count == EXPIRED_MAX) {
        struct spb_call *oldest = table->expired.oldest;
        if (oldest->stream > table->forgotten)
            table->forgotten = oldest->stream;
        spb_call_table_remove(table, oldest);
    }
    heap_remove(table, call);
    list_remove(&table->running, call);
    call->is_expired = true;
    list_add(&table->expired, call);
    return call;
}

int64_t spb_call_table_deadline(const struct spb_call_table *table)
{
    return table->heap_count == 0 ? SPB_NO_DEADLINE : table->heap[0]->deadline_ns;
}
