/* The power button, and the ways in which a guest ends. */
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define INPUTS_MAX 16

/* The machine's own button: keyboards have a key of that name too. */
static bool is_power_button(int fd)
{
    uint8_t keys[KEY_MAX / 8 + 1] = {0};
    struct input_id id;

    return ioctl(fd, EVIOCGID, &id) >= 0 && id.bustype == BUS_HOST &&
           ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) >= 0 &&
           ((unsigned)keys[KEY_POWER / 8] >> (KEY_POWER % 8) & 1u) != 0;
}

int guest_open_button(void)
{
    for (int i = 0; i < INPUTS_MAX; i++) {
        char path[32];

        (void)snprintf(path, sizeof(path), "/dev/input/event%d", i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && is_power_button(fd))
            return fd;
        if (fd >= 0)
            (void)close(fd);
    }
    return -1;
}

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* An input event that is the power key going down. */
static bool is_press(int button)
{
    struct input_event event;

    return read(button, &event, sizeof(event)) == (ssize_t)sizeof(event) && event.type == EV_KEY &&
           event.code == KEY_POWER && event.value == 1;
}

bool guest_await_button(int button, int64_t ms)
{
    struct pollfd wanted = {.fd = button, .events = POLLIN};
    int64_t until = now_ms() + ms;
    int64_t left = ms;

    /* A negative descriptor is waited for as time alone. */
    while (ms < 0 || left > 0) {
        int ready = poll(&wanted, 1, ms < 0 ? -1 : (int)left);

        if (ready > 0 && is_press(button))
            return true;
        left = until - now_ms();
    }
    return false;
}

static void panic_now(void)
{
    int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

    if (trigger >= 0)
        (void)!write(trigger, "c", 1);
}

_Noreturn void guest_finish(enum guest_end end)
{
    if (end == GUEST_PANIC)
        panic_now();
    else if (end == GUEST_REBOOT)
        (void)reboot(RB_AUTOBOOT);
    else if (end != GUEST_HANG)
        (void)reboot(RB_POWER_OFF);
    for (;;)
        (void)pause();
}
