/*
 * The command line of a QEMU that runs one guest. Values go in escaped; nothing of a user's becomes
 * an option. Pure: no I/O, any thread.
 */
#ifndef SPB_SUPERVISOR_MACHINE_COMMAND_H
#define SPB_SUPERVISOR_MACHINE_COMMAND_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_MACHINE_DISKS_MAX 16u
#define SPB_MACHINE_MEMORY_MIN_MIB 32u
#define SPB_MACHINE_MEMORY_MAX_MIB (1024u * 1024)
#define SPB_MACHINE_CPUS_MAX 64u
#define SPB_MACHINE_APPEND_MAX 2047u /* bytes: the kernel's own bound on x86 */

enum spb_accel { SPB_ACCEL_TCG, SPB_ACCEL_KVM };

/* Where a character device of the guest ends: a socket that QEMU listens on, or a descriptor of a
 * connected one that it inherits (path NULL). */
struct spb_machine_channel {
    const char *path; /* under 108 bytes */
    int fd;
};

struct spb_machine_disk {
    const char *path;   /* of the image's file; vda is the first */
    const char *serial; /* 1 to 20 of A-Z a-z 0-9 - _ ; NULL: none */
};

struct spb_machine {
    const char *program; /* "qemu-system-x86_64", or a path */
    const char *name;    /* for process lists */
    const char *uuid;    /* text; NULL: none */
    uint32_t memory_mib, cpus;
    enum spb_accel accel;
    const char *kernel, *initrd; /* paths; initrd may be NULL */
    const char *append;          /* of the kernel's command line; NULL: only the console */
    struct spb_machine_disk disks[SPB_MACHINE_DISKS_MAX];
    size_t disk_count;
    struct spb_machine_channel console, monitor;
    const char *pidfile; /* NULL: none */
    bool pauses_at_end;  /* QEMU stays after the guest's end, to be asked how it was (traces.h) */
};

/*
 * argv for execvp, ended by NULL, in one allocation: the caller's, free(). SPB_INVALID for what
 * cannot be said to QEMU: too long a socket path or command line, numbers out of bounds, control
 * characters.
 */
SPB_MUST_USE spb_status spb_machine_command(const struct spb_machine *machine, char ***argv,
                                            struct spb_error *err);

/* "tcg" or "kvm"; false for another word. */
bool spb_accel_parse(const char *word, enum spb_accel *accel);

#endif
