/* The states that power loss and the death of the process leave: medium.h, "States". */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "support/medium_inside.h"
#include "support/random.h"

void medium_mark(struct medium *m)
{
    size_t kept = 0;

    for (size_t i = m->epoch_start; i < m->log_count; i++)
        m->log[kept++] = m->log[i];
    m->log_count = m->inherited = kept;
    m->epoch_start = 0;
}

size_t medium_steps(const struct medium *m)
{
    return m->log_count - m->inherited;
}

size_t medium_changes(const struct medium *m)
{
    size_t changes = 0;

    for (size_t i = m->inherited; i < m->log_count; i++) {
        const struct medium_entry *entry = &m->log[i];

        changes += entry->kind == MEDIUM_LOG_WRITE &&
                   memcmp(entry->bytes, entry->visible_before, SPB_SECTOR_SIZE) != 0;
    }
    return changes;
}

/* The stretch between two flushes whose subsets are being visited. */
struct stretch {
    uint8_t *image; /* durable at its start */
    const struct medium_entry **changed;
    uint32_t *sectors;
    bool *reached;
    size_t count;
    size_t epoch;
    bool skip_none; /* that state was the one before it with all */
    medium_visit visit;
    void *user;
};

static void place(struct stretch *s, size_t i, bool written)
{
    const struct medium_entry *entry = s->changed[i];

    memcpy(s->image + (size_t)entry->sector * SPB_SECTOR_SIZE,
           written ? entry->bytes : entry->durable_before, SPB_SECTOR_SIZE);
}

static uint64_t visit_one(struct stretch *s)
{
    struct medium_cut cut = {s->epoch, s->count, 0, s->sectors, s->reached};

    for (size_t i = 0; i < s->count; i++) {
        cut.reached += s->reached[i];
        if (s->reached[i])
            place(s, i, true);
    }
    if (cut.reached > 0 || !s->skip_none)
        s->visit(s->user, s->image, &cut);
    for (size_t i = s->count; i-- > 0;) {
        if (s->reached[i])
            place(s, i, false);
    }
    return cut.reached > 0 || !s->skip_none;
}

/* A random subset; few and nearly all are as likely as about half. */
static void draw(struct stretch *s, uint64_t *random)
{
    uint32_t of_256 = 1 + random_below(random, 255);

    for (size_t i = 0; i < s->count; i++)
        s->reached[i] = random_below(random, 256) < of_256;
}

static uint64_t visit_stretch(struct stretch *s, uint64_t limit, uint64_t *random)
{
    uint64_t visited = 0;

    if (s->count < 63 && UINT64_C(1) << s->count <= limit) {
        for (uint64_t mask = 0; mask < UINT64_C(1) << s->count; mask++) {
            for (size_t i = 0; i < s->count; i++)
                s->reached[i] = (mask >> i & 1) != 0;
            visited += visit_one(s);
        }
        return visited;
    }
    for (uint64_t sample = 0; sample < limit; sample++) {
        if (sample < 2)
            memset(s->reached, (int)sample, s->count * sizeof(bool));
        else
            draw(s, random);
        visited += visit_one(s);
    }
    return visited;
}

/* Undoes what the log made durable: the durable state at the mark. */
static uint8_t *durable_at_mark(const struct medium *m)
{
    uint8_t *image = medium_allocate((size_t)m->size);

    memcpy(image, m->durable, (size_t)m->size);
    for (size_t i = m->log_count; i-- > 0;) {
        if (m->log[i].kind == MEDIUM_LOG_WRITE)
            memcpy(image + (size_t)m->log[i].sector * SPB_SECTOR_SIZE, m->log[i].durable_before,
                   SPB_SECTOR_SIZE);
    }
    return image;
}

/* Gathers the stretch that begins at entry *i and moves *i to the flush that ends it, or the end.
 */
static void gather(struct stretch *s, const struct medium *m, size_t *i)
{
    s->count = 0;
    for (; *i < m->log_count && m->log[*i].kind == MEDIUM_LOG_WRITE; (*i)++) {
        const struct medium_entry *entry = &m->log[*i];

        if (memcmp(entry->bytes, entry->durable_before, SPB_SECTOR_SIZE) == 0)
            continue;
        s->sectors[s->count] = entry->sector;
        s->changed[s->count++] = entry;
    }
}

uint64_t medium_each_cut(const struct medium *m, uint64_t limit, uint64_t *random,
                         medium_visit visit, void *user)
{
    struct stretch s = {.image = durable_at_mark(m),
                        .changed = medium_allocate(m->log_count * sizeof(*s.changed)),
                        .sectors = medium_allocate(m->log_count * sizeof(*s.sectors)),
                        .reached = medium_allocate(m->log_count * sizeof(*s.reached)),
                        .visit = visit,
                        .user = user};
    uint64_t visited = 0;

    SPB_ASSERT(limit >= 2);
    for (size_t i = 0; i <= m->log_count; i++, s.epoch++) {
        gather(&s, m, &i);
        visited += visit_stretch(&s, limit, random);
        for (size_t k = 0; k < s.count; k++) {
            if (s.changed[k]->reached)
                place(&s, k, true);
        }
        s.skip_none = i < m->log_count && m->log[i].kind == MEDIUM_LOG_FLUSH;
    }
    free(s.image);
    free(s.changed);
    free(s.sectors);
    free(s.reached);
    return visited;
}

void medium_die_after(struct medium *heir, const struct medium *m, size_t steps)
{
    size_t end = m->inherited + steps;
    size_t first = end;

    SPB_ASSERT(heir->size == m->size && end <= m->log_count);
    medium_reset(heir, m->durable);
    memcpy(heir->visible, m->visible, (size_t)m->size);
    while (first > 0 && m->log[first - 1].kind == MEDIUM_LOG_WRITE)
        first--;
    for (size_t i = m->log_count; i-- > first;) {
        const struct medium_entry *entry = &m->log[i];
        size_t at = (size_t)entry->sector * SPB_SECTOR_SIZE;

        if (entry->kind != MEDIUM_LOG_WRITE)
            continue;
        memcpy(heir->durable + at, entry->durable_before, SPB_SECTOR_SIZE);
        if (i >= end)
            memcpy(heir->visible + at, entry->visible_before, SPB_SECTOR_SIZE);
    }
    for (size_t i = first; i < end; i++) {
        struct medium_entry *entry = medium_log_add(heir, MEDIUM_LOG_WRITE);

        *entry = m->log[i];
        entry->reached = false;
        heir->unflushed[m->log[i].sector] = 1;
    }
    heir->inherited = heir->log_count;
}
