/* The firmware of the KVM proof; see kvm.h. */
#ifndef SPB_PROCESS_KVM_BOOT_H
#define SPB_PROCESS_KVM_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#define SPB_KVM_ROM_BYTES 65536u /* the least that QEMU takes */
#define SPB_KVM_EXIT_PORT "0xf4"
/* QEMU's code after the firmware wrote 42 to isa-debug-exit: it is doubled, and one is added. */
#define SPB_KVM_EXIT_CODE (2 * 42 + 1)

/* False: this is no x86, there is none. */
bool spb_kvm_boot_rom(uint8_t rom[SPB_KVM_ROM_BYTES]);

#endif
