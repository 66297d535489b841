/* Bounded reader and writer, and the tests of plain bytes that formats need. No state. */
#include "base/bytes.h"

#include <string.h>

struct spb_reader spb_reader_over(const void *data, size_t size)
{
    struct spb_reader r = {.data = data, .size = size, .pos = 0, .failed = false};
    return r;
}

struct spb_writer spb_writer_over(void *data, size_t size)
{
    struct spb_writer w = {.data = data, .size = size, .pos = 0, .failed = false};
    return w;
}

const uint8_t *spb_read_view(struct spb_reader *r, size_t n)
{
    if (r->failed || n > r->size - r->pos) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *at = r->data + r->pos;
    r->pos += n;
    return at;
}

static uint64_t read_be(struct spb_reader *r, size_t n)
{
    const uint8_t *at = spb_read_view(r, n);
    uint64_t value = 0;

    for (size_t i = 0; at != NULL && i < n; i++)
        value = value << 8 | at[i];
    return value;
}

uint16_t spb_read_be16(struct spb_reader *r)
{
    return (uint16_t)read_be(r, 2);
}

uint32_t spb_read_be32(struct spb_reader *r)
{
    return (uint32_t)read_be(r, 4);
}

uint64_t spb_read_be64(struct spb_reader *r)
{
    return read_be(r, 8);
}

void spb_read_bytes(struct spb_reader *r, void *out, size_t n)
{
    const uint8_t *at = spb_read_view(r, n);

    if (n == 0)
        return;
    if (at != NULL)
        memcpy(out, at, n);
    else
        memset(out, 0, n);
}

static uint8_t *claim(struct spb_writer *w, size_t n)
{
    if (w->failed || n > w->size - w->pos) {
        w->failed = true;
        return NULL;
    }
    uint8_t *at = w->data + w->pos;
    w->pos += n;
    return at;
}

static void write_be(struct spb_writer *w, uint64_t value, size_t n)
{
    uint8_t *at = claim(w, n);

    for (size_t i = 0; at != NULL && i < n; i++)
        at[i] = (uint8_t)(value >> (8 * (n - 1 - i)));
}

void spb_write_u8(struct spb_writer *w, uint8_t value)
{
    write_be(w, value, 1);
}

void spb_write_be16(struct spb_writer *w, uint16_t value)
{
    write_be(w, value, 2);
}

void spb_write_be32(struct spb_writer *w, uint32_t value)
{
    write_be(w, value, 4);
}

void spb_write_be64(struct spb_writer *w, uint64_t value)
{
    write_be(w, value, 8);
}

void spb_write_bytes(struct spb_writer *w, const void *data, size_t n)
{
    uint8_t *at = claim(w, n);

    if (at != NULL && n > 0)
        memcpy(at, data, n);
}

void spb_write_zeros(struct spb_writer *w, size_t n)
{
    uint8_t *at = claim(w, n);

    if (at != NULL && n > 0)
        memset(at, 0, n);
}

bool spb_bytes_are_zero(const void *data, size_t n)
{
    const uint8_t *bytes = data;

    /* A run of equal bytes equals itself shifted by one, which memcmp compares wide. */
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

/* The first byte's sequence length and the range of its second byte (RFC 3629, section 4). */
static int utf8_lead(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0)
            *low = 0xA0;
        if (lead == 0xED)
            *high = 0x9F;
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0)
            *low = 0x90;
        if (lead == 0xF4)
            *high = 0x8F;
        return 4;
    }
    return 0;
}

int spb_utf8_step(const uint8_t *data, size_t n)
{
    uint8_t low, high;
    int length = utf8_lead(data[0], &low, &high);

    if (length == 0)
        return -1;
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n || data[i] < low || data[i] > high)
            return -i;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

bool spb_bytes_are_utf8(const void *data, size_t n)
{
    const uint8_t *bytes = data;

    for (size_t at = 0; at < n;) {
        int step = spb_utf8_step(bytes + at, n - at);
        if (step < 0)
            return false;
        at += (size_t)step;
    }
    return true;
}
