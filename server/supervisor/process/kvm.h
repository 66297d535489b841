/*
 * Does /dev/kvm run guests here? That it opens says little: it may refuse a guest's processor, or
 * take it and never go on. So a firmware of a few bytes is run, which goes through the processor's
 * modes, takes timer interrupts and then ends QEMU with a code of its own, within a time limit. The
 * answer is remembered in a file, together with what it holds for: this boot of this kernel, this
 * QEMU.
 */
#ifndef SPB_PROCESS_KVM_H
#define SPB_PROCESS_KVM_H

#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_KVM_LIMIT_MS 5000u /* the boot takes 0.1 s where it works */
#define SPB_KVM_REASON_SIZE 256u

struct spb_kvm_question {
    const char *program; /* QEMU: a path, or a name to be looked for in PATH */
    const char *memory;  /* absolute path of the file that remembers; its folder is writable */
    const char *device;  /* NULL: /dev/kvm */
    const char *accel;   /* of QEMU; NULL: "kvm" */
    uint32_t limit_ms;   /* 0: SPB_KVM_LIMIT_MS */
};

struct spb_kvm_answer {
    bool works;
    bool was_remembered;              /* nothing was run */
    uint32_t took_ms;                 /* of the boot, also of a remembered one */
    char reason[SPB_KVM_REASON_SIZE]; /* one line, for the log */
};

/*
 * Blocks, for the limit and a little at most: for a worker. An absent or forbidden device or
 * program is a "no" that is not remembered. Failure: the question could not be put (memory, the
 * folder); an answer that cannot be written down is given all the same.
 */
SPB_MUST_USE spb_status spb_kvm_prove(const struct spb_kvm_question *question,
                                      struct spb_kvm_answer *answer, struct spb_error *err);

#endif
