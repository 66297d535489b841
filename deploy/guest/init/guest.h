/*
 * The guest's init: what its files share. One thread; process 1 of the guest, whose root is the
 * initial RAM disk. Its console is the guest's first serial port.
 */
#ifndef SPB_GUEST_GUEST_H
#define SPB_GUEST_GUEST_H

#include <stdint.h>

#include "spaceblock/status.h"
#include "spaceblock/volume.h"

#define GUEST_DISK "/dev/vda"

enum guest_end { GUEST_POWEROFF, GUEST_REBOOT, GUEST_PANIC, GUEST_HANG, GUEST_WAIT };

/* What the image's parameters ask of the guest; see README.md for their numbers. */
struct guest_plan {
    uint64_t boots; /* this one included */
    enum guest_end end;
    uint64_t events, interval_ms;
    uint64_t product_size;
    char product_name[SPB_PRODUCT_NAME_MAX + 1];
    uint64_t console_bytes;
    bool ignores_button;
    bool spoils_superblock;
};

/* Loads the modules that modules.list names, in its order. */
SPB_MUST_USE spb_status guest_load_modules(struct spb_error *err);
/* Waits until the disk's node is there. */
SPB_MUST_USE spb_status guest_await_disk(struct spb_error *err);

/* Reads the plan, and keeps the count of boots. */
SPB_MUST_USE spb_status guest_read_plan(struct spb_volume *volume, struct guest_plan *plan,
                                        struct spb_error *err);
const char *guest_end_name(enum guest_end end);

/* Makes the events, the product and the console's lines of the plan; the button ends it early. */
SPB_MUST_USE spb_status guest_work(struct spb_volume *volume, const struct guest_plan *plan,
                                   int button, struct spb_error *err);
/* Appends an event of severity INFO with a line of text. */
SPB_MUST_USE spb_status guest_log(struct spb_volume *volume, uint16_t code, struct spb_error *err,
                                  const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Events' codes. */
#define GUEST_EVENT_BOOT 1u
#define GUEST_EVENT_TICK 2u
#define GUEST_EVENT_PRODUCT 3u
#define GUEST_EVENT_END 4u

/* The power button, -1 where there is none. What is pressed from now on is not missed. */
int guest_open_button(void);
/* Waits so long (negative: for ever); true where the button was pressed meanwhile. */
bool guest_await_button(int button, int64_t ms);

/* Does not return. */
_Noreturn void guest_finish(enum guest_end end);

#endif
