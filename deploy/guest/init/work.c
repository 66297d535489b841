/* What the guest does with its image: events, a product, lines on the console. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "guest.h"
#include "spaceblock/group.h"

#define LINE "guest: console line of sixty-four bytes, so that they are countable.\n"
#define SEED UINT32_C(2463534242)

spb_status guest_log(struct spb_volume *volume, uint16_t code, struct spb_error *err,
                     const char *format, ...)
{
    struct spb_event event = {.severity = SPB_SEVERITY_INFO, .code = code};
    char text[SPB_EVENT_PAYLOAD_MAX + 1];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    event.payload_len = (uint8_t)strlen(text);
    memcpy(event.payload, text, event.payload_len);
    SPB_TRY(spb_event_time(volume, (int64_t)time(NULL), &event.timestamp, err));
    return spb_volume_append_events(volume, &event, 1, NULL, err);
}

/* Bytes that whoever reads them can make again: xorshift32 of a fixed seed. */
static void fill(uint8_t *data, size_t size)
{
    uint32_t state = SEED;

    for (size_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        data[i] = (uint8_t)state;
    }
}

static spb_status make_product(struct spb_volume *volume, const struct guest_plan *plan,
                               struct spb_error *err)
{
    struct spb_product_attributes attributes = {.name = plan->product_name,
                                                .name_len = strlen(plan->product_name)};
    struct spb_product product;
    size_t size = (size_t)plan->product_size;
    uint8_t *data = malloc(size);

    if (data == NULL)
        return spb_fail_memory(err, "making a product");
    fill(data, size);
    spb_status status =
        spb_volume_put_product(volume, &attributes, data, size, true, &product, err);
    free(data);
    SPB_TRY(status);
    return guest_log(volume, GUEST_EVENT_PRODUCT, err, "product of %zu bytes, crc %08x", size,
                     product.crc);
}

static void print_lines(uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += sizeof(LINE) - 1)
        (void)fputs(LINE, stdout);
}

/* The button ends the work early: a stop that was asked for is obeyed between two changes. */
static spb_status make_events(struct spb_volume *volume, const struct guest_plan *plan, int button,
                              bool *pressed, struct spb_error *err)
{
    for (uint64_t n = 1; n <= plan->events && !*pressed; n++) {
        SPB_TRY(guest_log(volume, GUEST_EVENT_TICK, err, "tick %llu of %llu", (unsigned long long)n,
                          (unsigned long long)plan->events));
        if (plan->interval_ms > 0)
            *pressed = guest_await_button(button, (int64_t)plan->interval_ms);
    }
    return spb_ok();
}

spb_status guest_work(struct spb_volume *volume, const struct guest_plan *plan, int button,
                      struct spb_error *err)
{
    bool pressed = false;

    if (plan->ignores_button)
        button = -1;

    if (plan->product_size > 0)
        SPB_TRY(make_product(volume, plan, err));
    print_lines(plan->console_bytes);
    SPB_TRY(make_events(volume, plan, button, &pressed, err));
    if (plan->end == GUEST_WAIT && !pressed)
        (void)guest_await_button(button, -1);
    return spb_ok();
}
