/* The command line of a QEMU that runs one guest; see command.h. */
#include "supervisor/machine/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "supervisor/machine/traces.h"

/* Without disks it is some 40 words; a disk is 6. */
#define WORDS_MAX (64u + 6u * SPB_MACHINE_DISKS_MAX)
#define SOCKET_PATH_MAX 107u
#define SERIAL_MAX 20u
/* An emulated timer is late on a busy host, for which the kernel would panic; KVM's guests never
 * ask.
 */
#define CONSOLE_APPEND "console=ttyS0 panic=-1 no_timer_check"
/* Nothing of a guest's may start processes or gain rights through QEMU. */
#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

/* Words so far, each owned. A failed allocation, and a word too many, are kept, and told at the
 * end. */
struct builder {
    char *words[WORDS_MAX];
    size_t count;
    bool failed, overflowed;
};

static void builder_done(struct builder *b)
{
    for (size_t i = 0; i < b->count; i++)
        free(b->words[i]);
}

static void add_owned(struct builder *b, char *word)
{
    b->failed |= word == NULL;
    b->overflowed |= b->count == WORDS_MAX;
    if (b->failed || b->overflowed)
        free(word);
    else
        b->words[b->count++] = word;
}

static void add(struct builder *b, const char *word)
{
    add_owned(b, strdup(word));
}

static void __attribute__((format(printf, 2, 3))) addf(struct builder *b, const char *format, ...)
{
    char *word = NULL;
    va_list args;

    va_start(args, format);
    if (vasprintf(&word, format, args) < 0)
        word = NULL;
    va_end(args);
    add_owned(b, word);
}

/* A value within an option: a comma would begin the next one, so it is doubled. */
static char *escape(const char *value)
{
    char *out = malloc(2 * strlen(value) + 1), *at = out;

    if (out == NULL)
        return NULL;
    for (; *value != '\0'; value++) {
        if (*value == ',')
            *at++ = ',';
        *at++ = *value;
    }
    *at = '\0';
    return out;
}

/* An option of which the last value is escaped. */
static void add_escaped(struct builder *b, const char *prefix, const char *value,
                        const char *suffix)
{
    char *safe = escape(value);

    if (safe == NULL)
        b->failed = true;
    else
        addf(b, "%s%s%s", prefix, safe, suffix);
    free(safe);
}

/* ---- Parts -------------------------------------------------------------------------------- */

static void add_accel(struct builder *b, enum spb_accel accel)
{
    add(b, "-accel");
    add(b, accel == SPB_ACCEL_KVM ? "kvm" : "tcg,tb-size=32");
    add(b, "-cpu");
    add(b, accel == SPB_ACCEL_KVM ? "host" : "max");
}

static void add_base(struct builder *b, const struct spb_machine *machine)
{
    add(b, machine->program);
    add(b, "-name");
    add_escaped(b, "guest=", machine->name, ",debug-threads=on");
    if (machine->uuid != NULL) {
        add(b, "-uuid");
        add(b, machine->uuid);
    }
    add(b, "-nodefaults");
    add(b, "-no-user-config");
    add(b, "-nographic");
    /* Its firmware is to keep off the console, where words are the guest's sign of life. */
    add(b, "-machine");
    add(b, "pc,graphics=on");
    add_accel(b, machine->accel);
    add(b, "-m");
    addf(b, "%u", machine->memory_mib);
    add(b, "-smp");
    addf(b, "%u", machine->cpus);
    add(b, "-S"); /* console and monitor are connected first, so that nothing is missed */
    add(b, "-sandbox");
    add(b, SANDBOX);
}

static void add_kernel(struct builder *b, const struct spb_machine *machine)
{
    add(b, "-kernel");
    add(b, machine->kernel);
    if (machine->initrd != NULL) {
        add(b, "-initrd");
        add(b, machine->initrd);
    }
    add(b, "-append");
    addf(b, "%s%s%s", CONSOLE_APPEND, machine->append == NULL ? "" : " ",
         machine->append == NULL ? "" : machine->append);
}

static void add_channel(struct builder *b, const char *id, const struct spb_machine_channel *c)
{
    char prefix[64];

    add(b, "-chardev");
    if (c->path == NULL) {
        addf(b, "socket,id=%s,fd=%d", id, c->fd);
        return;
    }
    (void)snprintf(prefix, sizeof(prefix), "socket,id=%s,path=", id);
    add_escaped(b, prefix, c->path, ",server=on,wait=off");
}

static void add_disk(struct builder *b, const struct spb_machine_disk *disk, size_t i)
{
    char prefix[64];

    (void)snprintf(prefix, sizeof(prefix), "driver=file,node-name=f%zu,filename=", i);
    add(b, "-blockdev");
    add_escaped(b, prefix, disk->path, ",discard=unmap");
    add(b, "-blockdev");
    addf(b, "driver=raw,node-name=d%zu,file=f%zu,discard=unmap", i, i);
    add(b, "-device");
    addf(b, "virtio-blk-pci,drive=d%zu,id=vd%zu%s%s", i, i,
         disk->serial == NULL ? "" : ",serial=", disk->serial == NULL ? "" : disk->serial);
}

static void add_all(struct builder *b, const struct spb_machine *machine)
{
    add_base(b, machine);
    add_kernel(b, machine);
    add_channel(b, "con", &machine->console);
    add(b, "-serial");
    add(b, "chardev:con");
    add_channel(b, "qmp", &machine->monitor);
    add(b, "-mon");
    add(b, "chardev=qmp,mode=control");
    for (size_t i = 0; i < machine->disk_count; i++)
        add_disk(b, &machine->disks[i], i);
    add(b, "-device");
    add(b, "pvpanic");
    add(b, "-action");
    add(b, machine->pauses_at_end ? "reboot=shutdown,shutdown=pause,panic=pause"
                                  : "reboot=shutdown,shutdown=poweroff,panic=shutdown");
    if (machine->pauses_at_end) {
        add(b, "-trace");
        add(b, SPB_TRACE_REQUEST);
        add(b, "-trace");
        add(b, SPB_TRACE_STATE);
    }
    if (machine->pidfile != NULL) {
        add(b, "-pidfile");
        add(b, machine->pidfile);
    }
}

/* ---- Checks ------------------------------------------------------------------------------- */

static spb_status check_text(const char *what, const char *text, size_t max, struct spb_error *err)
{
    if (text == NULL)
        return spb_ok();
    size_t n = strlen(text);
    if (n == 0 || n > max)
        return spb_fail(err, SPB_INVALID, "%s: found %zu bytes, expected 1 to %zu", what, n, max);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return spb_fail(err, SPB_INVALID, "%s: found a control character at byte %zu", what, i);
    }
    return spb_ok();
}

static spb_status check_number(const char *what, uint32_t number, uint32_t min, uint32_t max,
                               struct spb_error *err)
{
    if (number >= min && number <= max)
        return spb_ok();
    return spb_fail(err, SPB_INVALID, "%s: found %u, expected %u to %u", what, number, min, max);
}

static bool serial_is_good(const char *serial)
{
    size_t n = strlen(serial);

    return n > 0 && n <= SERIAL_MAX &&
           strspn(serial, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == n;
}

static spb_status check_disks(const struct spb_machine *machine, struct spb_error *err)
{
    if (machine->disk_count > SPB_MACHINE_DISKS_MAX)
        return spb_fail(err, SPB_INVALID, "found %zu disks, expected at most %u",
                        machine->disk_count, SPB_MACHINE_DISKS_MAX);
    for (size_t i = 0; i < machine->disk_count; i++) {
        const struct spb_machine_disk *disk = &machine->disks[i];

        SPB_TRY(check_text("disk's path", disk->path, 4095, err));
        if (disk->serial != NULL && !serial_is_good(disk->serial))
            return spb_fail(err, SPB_INVALID,
                            "disk %zu's serial: expected 1 to %u of A-Z a-z 0-9 - _", i,
                            SERIAL_MAX);
    }
    return spb_ok();
}

static spb_status check(const struct spb_machine *machine, struct spb_error *err)
{
    SPB_TRY(check_text("guest's name", machine->name, 200, err));
    SPB_TRY(check_text("kernel's path", machine->kernel, 4095, err));
    SPB_TRY(check_text("initial RAM disk's path", machine->initrd, 4095, err));
    SPB_TRY(check_text("kernel's command line", machine->append,
                       SPB_MACHINE_APPEND_MAX - sizeof(CONSOLE_APPEND), err));
    SPB_TRY(check_text("console's socket", machine->console.path, SOCKET_PATH_MAX, err));
    SPB_TRY(check_text("monitor's socket", machine->monitor.path, SOCKET_PATH_MAX, err));
    SPB_TRY(check_number("memory in MiB", machine->memory_mib, SPB_MACHINE_MEMORY_MIN_MIB,
                         SPB_MACHINE_MEMORY_MAX_MIB, err));
    SPB_TRY(check_number("CPUs", machine->cpus, 1, SPB_MACHINE_CPUS_MAX, err));
    return check_disks(machine, err);
}

/* Pointers and texts in one piece. */
static char **flatten(const struct builder *b)
{
    size_t size = (b->count + 1) * sizeof(char *);

    for (size_t i = 0; i < b->count; i++)
        size += strlen(b->words[i]) + 1;
    char **argv = malloc(size);
    if (argv == NULL)
        return NULL;
    char *text = (char *)(argv + b->count + 1);
    for (size_t i = 0; i < b->count; i++) {
        size_t n = strlen(b->words[i]) + 1;

        argv[i] = memcpy(text, b->words[i], n);
        text += n;
    }
    argv[b->count] = NULL;
    return argv;
}

spb_status spb_machine_command(const struct spb_machine *machine, char ***argv,
                               struct spb_error *err)
{
    struct builder b = {.count = 0};

    SPB_TRY(check(machine, err));
    add_all(&b, machine);
    char **made = b.failed || b.overflowed ? NULL : flatten(&b);
    builder_done(&b);
    if (b.overflowed)
        return spb_fail(err, SPB_INVALID, "QEMU's command line has more than %u words", WORDS_MAX);
    if (made == NULL)
        return spb_fail_memory(err, "making QEMU's command line");
    *argv = made;
    return spb_ok();
}

bool spb_accel_parse(const char *word, enum spb_accel *accel)
{
    if (strcmp(word, "tcg") != 0 && strcmp(word, "kvm") != 0)
        return false;
    *accel = *word == 'k' ? SPB_ACCEL_KVM : SPB_ACCEL_TCG;
    return true;
}
