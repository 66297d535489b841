/* The simulated medium: visible and durable bytes, handles, failures. States: medium_states.c. */
#include "support/medium.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "support/medium_inside.h"
#include "support/random.h"

static const struct spb_device_ops medium_ops;

struct handle {
    struct spb_device device;
    struct medium *medium;
    uint64_t life;     /* the handle lives while the medium's is the same */
    bool flush_failed; /* sticky until forgiven */
    int flush_errno;
};

void *medium_allocate(size_t n)
{
    void *memory = calloc(1, n == 0 ? 1 : n);

    SPB_ASSERT(memory != NULL);
    return memory;
}

struct medium *medium_new(uint64_t size_bytes, uint64_t seed)
{
    struct medium *m = medium_allocate(sizeof(*m));

    SPB_ASSERT(size_bytes % SPB_SECTOR_SIZE == 0);
    m->size = size_bytes;
    m->random = seed;
    m->durable = medium_allocate((size_t)size_bytes);
    m->visible = medium_allocate((size_t)size_bytes);
    m->unflushed = medium_allocate((size_t)(size_bytes / SPB_SECTOR_SIZE));
    return m;
}

void medium_free(struct medium *m)
{
    if (m == NULL)
        return;
    SPB_ASSERT(m->handles == 0);
    free(m->durable);
    free(m->visible);
    free(m->unflushed);
    free(m->log);
    free(m);
}

struct spb_device *medium_attach(struct medium *m)
{
    struct handle *h = medium_allocate(sizeof(*h));

    h->device.ops = &medium_ops;
    h->device.size_bytes = m->size;
    h->device.sector_size = SPB_SECTOR_SIZE;
    h->device.writable = true;
    snprintf(h->device.name, sizeof(h->device.name), "simulated medium");
    h->medium = m;
    h->life = m->life;
    m->handles++;
    return &h->device;
}

void medium_kill(struct medium *m)
{
    m->life++;
}

void medium_power_loss(struct medium *m)
{
    medium_kill(m);
    memcpy(m->visible, m->durable, (size_t)m->size);
    memset(m->unflushed, 0, (size_t)(m->size / SPB_SECTOR_SIZE));
    m->log_count = m->epoch_start = m->inherited = 0;
}

void medium_power_loss_at_random(struct medium *m, uint64_t *random)
{
    uint32_t of_256 = random_below(random, 257);

    for (size_t i = m->epoch_start; i < m->log_count; i++) {
        if (random_below(random, 256) < of_256)
            memcpy(m->durable + (size_t)m->log[i].sector * SPB_SECTOR_SIZE, m->log[i].bytes,
                   SPB_SECTOR_SIZE);
    }
    medium_power_loss(m);
}

void medium_reset(struct medium *m, const uint8_t *image)
{
    memcpy(m->durable, image, (size_t)m->size);
    medium_power_loss(m);
    memset(&m->counts, 0, sizeof(m->counts));
    m->armed = m->happened = false;
    m->violations = 0;
    m->violation[0] = '\0';
}

uint64_t medium_size(const struct medium *m)
{
    return m->size;
}

const uint8_t *medium_visible(const struct medium *m)
{
    return m->visible;
}

const uint8_t *medium_durable(const struct medium *m)
{
    return m->durable;
}

void medium_poke(struct medium *m, uint64_t offset, const void *bytes, size_t n)
{
    SPB_ASSERT(offset <= m->size && n <= m->size - offset);
    memcpy(m->durable + offset, bytes, n);
    memcpy(m->visible + offset, bytes, n);
}

void medium_poke_visible(struct medium *m, uint64_t offset, const void *bytes, size_t n)
{
    SPB_ASSERT(offset <= m->size && n <= m->size - offset);
    memcpy(m->visible + offset, bytes, n);
}

struct medium_counts medium_counts(const struct medium *m)
{
    return m->counts;
}

unsigned medium_violations(const struct medium *m)
{
    return m->violations;
}

const char *medium_violation(const struct medium *m)
{
    return m->violation;
}

static void violate(struct medium *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void violate(struct medium *m, const char *format, ...)
{
    va_list args;

    if (m->violations++ != 0)
        return;
    va_start(args, format);
    vsnprintf(m->violation, sizeof(m->violation), format, args);
    va_end(args);
}

void medium_fail(struct medium *m, const struct medium_failure *failure)
{
    SPB_ASSERT(failure->nth > 0);
    m->failure = *failure;
    m->armed = true;
    m->happened = false;
}

bool medium_failed(struct medium *m)
{
    bool happened = m->happened;

    m->armed = m->happened = false;
    return happened;
}

void medium_forbid_direct(struct medium *m, bool forbidden)
{
    m->no_direct = forbidden;
}

/* Is this call the one to fail? */
static bool fails_now(struct medium *m, enum medium_call call)
{
    if (!m->armed || m->failure.call != call || --m->failure.nth > 0)
        return false;
    m->armed = false;
    m->happened = true;
    return true;
}

struct medium_entry *medium_log_add(struct medium *m, enum medium_kind kind)
{
    if (m->log_count == m->log_room) {
        m->log_room = m->log_room == 0 ? 64 : m->log_room * 2;
        m->log = realloc(m->log, m->log_room * sizeof(*m->log));
        SPB_ASSERT(m->log != NULL);
    }
    struct medium_entry *entry = &m->log[m->log_count++];

    memset(entry, 0, sizeof(*entry));
    entry->kind = kind;
    return entry;
}

static void write_sector(struct medium *m, uint32_t sector, const uint8_t *bytes)
{
    uint8_t *visible = m->visible + (size_t)sector * SPB_SECTOR_SIZE;
    struct medium_entry *entry = medium_log_add(m, MEDIUM_LOG_WRITE);

    entry->sector = sector;
    memcpy(entry->bytes, bytes, SPB_SECTOR_SIZE);
    memcpy(entry->visible_before, visible, SPB_SECTOR_SIZE);
    memcpy(entry->durable_before, m->durable + (size_t)sector * SPB_SECTOR_SIZE, SPB_SECTOR_SIZE);
    if (m->unflushed[sector] != 0)
        violate(m, "sector %u (byte %llu) was written twice between two flushes", sector,
                (unsigned long long)sector * SPB_SECTOR_SIZE);
    m->unflushed[sector] = 1;
    memcpy(visible, bytes, SPB_SECTOR_SIZE);
    m->counts.sectors++;
}

/* data NULL: zeros. Whole sectors are written; a partial one is a violation, and is merged. */
static void write_bytes(struct medium *m, uint64_t offset, const uint8_t *data, uint64_t n)
{
    if (offset % SPB_SECTOR_SIZE != 0 || n % SPB_SECTOR_SIZE != 0)
        violate(m, "a write of %llu bytes at byte %llu is not of whole sectors",
                (unsigned long long)n, (unsigned long long)offset);
    while (n > 0) {
        uint8_t sector[SPB_SECTOR_SIZE];
        uint32_t number = (uint32_t)(offset / SPB_SECTOR_SIZE);
        size_t at = (size_t)(offset % SPB_SECTOR_SIZE);
        size_t part = SPB_SECTOR_SIZE - at;

        if (part > n)
            part = (size_t)n;
        memcpy(sector, m->visible + (size_t)number * SPB_SECTOR_SIZE, sizeof(sector));
        if (data != NULL)
            memcpy(sector + at, data, part);
        else
            memset(sector + at, 0, part);
        write_sector(m, number, sector);
        data = data == NULL ? NULL : data + part;
        offset += part;
        n -= part;
    }
}

static struct handle *handle_of(struct spb_device *device)
{
    return (struct handle *)(void *)device;
}

static bool is_dead(const struct handle *h)
{
    return h->life != h->medium->life;
}

static spb_status dead(struct spb_error *err, const char *what)
{
    return spb_fail_errno(err, SPB_IO, EBADF, "%s of the simulated medium by a dead process", what);
}

static spb_status ops_read(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                           struct spb_error *err)
{
    struct handle *h = handle_of(device);
    struct medium *m = h->medium;

    if (is_dead(h))
        return dead(err, "read");
    m->counts.reads++;
    if (fails_now(m, MEDIUM_READ))
        return spb_fail_errno(err, SPB_IO, m->failure.number, "read %zu bytes at byte %llu of %s",
                              n, (unsigned long long)offset, device->name);
    memcpy(buffer, m->visible + offset, n);
    return spb_ok();
}

static spb_status ops_read_medium(struct spb_device *device, uint64_t offset, void *buffer,
                                  size_t n, struct spb_error *err)
{
    struct handle *h = handle_of(device);
    struct medium *m = h->medium;

    if (is_dead(h))
        return dead(err, "direct read");
    if (m->no_direct)
        return spb_fail(err, SPB_UNSUPPORTED, "direct reads of %s cannot be had", device->name);
    if (offset % SPB_SECTOR_SIZE != 0 || n % SPB_SECTOR_SIZE != 0)
        violate(m, "a direct read of %zu bytes at byte %llu is not of whole sectors", n,
                (unsigned long long)offset);
    m->counts.medium_reads++;
    if (fails_now(m, MEDIUM_READ_MEDIUM))
        return spb_fail_errno(err, SPB_IO, m->failure.number,
                              "direct read of %zu bytes at byte %llu of %s", n,
                              (unsigned long long)offset, device->name);
    memcpy(buffer, m->durable + offset, n);
    return spb_ok();
}

static spb_status write_or_zero(struct spb_device *device, uint64_t offset, const void *data,
                                uint64_t n, struct spb_error *err)
{
    struct handle *h = handle_of(device);
    struct medium *m = h->medium;

    if (is_dead(h))
        return dead(err, "write");
    m->counts.writes++;
    if (fails_now(m, MEDIUM_WRITE)) {
        uint64_t done = (uint64_t)m->failure.short_sectors * SPB_SECTOR_SIZE;

        write_bytes(m, offset, data, done < n ? done : n);
        return spb_fail_errno(err, SPB_IO, m->failure.number, "write %llu bytes at byte %llu of %s",
                              (unsigned long long)n, (unsigned long long)offset, device->name);
    }
    write_bytes(m, offset, data, n);
    return spb_ok();
}

static spb_status ops_write(struct spb_device *device, uint64_t offset, const void *data, size_t n,
                            struct spb_error *err)
{
    return write_or_zero(device, offset, data, n, err);
}

static spb_status ops_zero(struct spb_device *device, uint64_t offset, uint64_t n,
                           struct spb_error *err)
{
    return write_or_zero(device, offset, NULL, n, err);
}

/* Ends the stretch between two flushes; of a failed one only what was reached becomes durable. */
static void end_epoch(struct medium *m, bool failed)
{
    size_t changed = 0;

    for (size_t i = m->epoch_start; i < m->log_count; i++) {
        struct medium_entry *entry = &m->log[i];
        size_t at = (size_t)entry->sector * SPB_SECTOR_SIZE;

        entry->reached = true;
        if (failed && memcmp(entry->bytes, entry->durable_before, SPB_SECTOR_SIZE) != 0) {
            entry->reached = changed < 64 ? (m->failure.reached >> changed & 1) != 0
                                          : (random_next(&m->random) & 1) != 0;
            changed++;
        }
        if (entry->reached)
            memcpy(m->durable + at, entry->bytes, SPB_SECTOR_SIZE);
        m->unflushed[entry->sector] = 0;
    }
    medium_log_add(m, failed ? MEDIUM_LOG_FLUSH_FAILED : MEDIUM_LOG_FLUSH);
    m->epoch_start = m->log_count;
}

static spb_status ops_flush(struct spb_device *device, struct spb_error *err)
{
    struct handle *h = handle_of(device);
    struct medium *m = h->medium;

    if (is_dead(h))
        return dead(err, "flush");
    m->counts.flushes++;
    if (!h->flush_failed && fails_now(m, MEDIUM_FLUSH)) {
        h->flush_failed = true;
        h->flush_errno = m->failure.number;
        end_epoch(m, true);
    }
    if (h->flush_failed)
        return spb_fail_errno(err, SPB_IO, h->flush_errno, "flush of %s", device->name);
    end_epoch(m, false);
    return spb_ok();
}

static spb_status ops_forgive(struct spb_device *device, struct spb_error *err)
{
    struct handle *h = handle_of(device);

    if (is_dead(h))
        return dead(err, "forgiving");
    if (h->medium->no_direct)
        return spb_fail(err, SPB_UNSUPPORTED,
                        "%s cannot be recovered after a failed flush: no direct reads",
                        device->name);
    h->flush_failed = false;
    return spb_ok();
}

static void ops_close(struct spb_device *device)
{
    struct handle *h = handle_of(device);

    h->medium->handles--;
    free(h);
}

static const struct spb_device_ops medium_ops = {
    .read = ops_read,
    .read_medium = ops_read_medium,
    .write = ops_write,
    .flush = ops_flush,
    .zero = ops_zero,
    .forgive = ops_forgive,
    .close = ops_close,
};
