/*
 * A firmware that does a little of all that a kernel does while it boots, then ends QEMU: real
 * mode, protected mode, the local interrupt controller, long mode with paging, 512 KiB copied, a
 * hundred million instructions, and ten interrupts of the timer, each awaited in a halt.
 *
 * There are hosts whose KVM runs the first steps and then only seems to stand still, since it
 * emulates what comes after, instruction by instruction: hence the copy and the loop, which take
 * 0.1 s on a processor.
 *
 * The program lies at F000:0000, of which the reset vector at F000:FFF0 is the end. Below 1 MiB it
 * uses 1000-3FFF for page tables, 4000 for the interrupt table, a stack below 7000, and copies
 * 8000-87FFF to 10000-8FFFF.
 */
#include "supervisor/process/kvm_boot.h"

#include <string.h>

#include "base/status.h"

#if defined(__x86_64__)

#define RESET_VECTOR 0xfff0u

__asm__(".pushsection .rodata\n"
        "spb_kvm_program:\n"
        ".code16\n"
        "    cli\n"
        "    cld\n"
        /* lgdt, 32 bits, %cs:offset of the pointer; then a far jump into protected mode. */
        "    .byte 0x66, 0x2e, 0x0f, 0x01, 0x16\n"
        "    .word spb_kvm_gdt_pointer - spb_kvm_program\n"
        "    mov $0x11, %eax\n"
        "    mov %eax, %cr0\n"
        "    .byte 0x66, 0xea\n"
        "    .long 0xf0000 + (spb_kvm_protected - spb_kvm_program)\n"
        "    .word 8\n"
        ".code32\n"
        "spb_kvm_protected:\n"
        "    mov $16, %ax\n"
        "    mov %ax, %ds\n"
        "    mov %ax, %es\n"
        "    mov %ax, %ss\n"
        "    mov $0x7000, %esp\n"
        /* The local APIC: on, and its first pin takes the timer's controller. */
        "    movl $0x1ff, 0xfee000f0\n"
        "    movl $0x700, 0xfee00350\n"
        /* Page tables that map the first 2 MiB to themselves, then long mode. */
        "    xor %eax, %eax\n"
        "    mov $0x1000, %edi\n"
        "    mov $0xe00, %ecx\n"
        "    rep stosl\n"
        "    movl $0x2003, 0x1000\n"
        "    movl $0x3003, 0x2000\n"
        "    movl $0x83, 0x3000\n"
        "    mov $0x1000, %eax\n"
        "    mov %eax, %cr3\n"
        "    mov $0x20, %eax\n"
        "    mov %eax, %cr4\n"
        "    mov $0xc0000080, %ecx\n"
        "    rdmsr\n"
        "    bts $8, %eax\n"
        "    wrmsr\n"
        "    mov $0x80000011, %eax\n"
        "    mov %eax, %cr0\n"
        "    ljmp $24, $0xf0000 + (spb_kvm_long - spb_kvm_program)\n"
        ".code64\n"
        "spb_kvm_long:\n"
        "    mov $0x8000, %esi\n"
        "    mov $0x10000, %edi\n"
        "    mov $0x10000, %ecx\n"
        "    rep movsq\n"
        "    mov $50000000, %ecx\n"
        "1:  dec %ecx\n"
        "    jnz 1b\n"
        /* Vector 32 of the interrupt table. */
        "    movl $(0x180000 + (spb_kvm_tick - spb_kvm_program)), 0x4200\n"
        "    movl $0x000f8e00, 0x4204\n"
        "    lidt 0xf0000 + (spb_kvm_idt_pointer - spb_kvm_program)\n"
        /* The interrupt controller: from vector 32 on, the timer alone. */
        "    mov $0x11, %al\n"
        "    out %al, $0x20\n"
        "    mov $0x20, %al\n"
        "    out %al, $0x21\n"
        "    mov $0x04, %al\n"
        "    out %al, $0x21\n"
        "    mov $0x01, %al\n"
        "    out %al, $0x21\n"
        "    mov $0xfe, %al\n"
        "    out %al, $0x21\n"
        /* The timer: every millisecond. */
        "    mov $0x34, %al\n"
        "    out %al, $0x43\n"
        "    mov $0xa9, %al\n"
        "    out %al, $0x40\n"
        "    mov $0x04, %al\n"
        "    out %al, $0x40\n"
        "    xor %ebx, %ebx\n"
        "2:  sti\n"
        "    hlt\n"
        "    cmp $10, %ebx\n"
        "    jb 2b\n"
        "    cli\n"
        "    mov $42, %al\n"
        "    out %al, $0xf4\n"
        "3:  hlt\n"
        "    jmp 3b\n"
        "spb_kvm_tick:\n"
        "    inc %ebx\n"
        "    mov $0x20, %al\n"
        "    out %al, $0x20\n"
        "    iretq\n"
        ".balign 8\n"
        "spb_kvm_gdt:\n" /* none, code of 32 bits, data, code of 64 bits */
        "    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff\n"
        "spb_kvm_gdt_pointer:\n"
        "    .word 31\n"
        "    .long 0xf0000 + (spb_kvm_gdt - spb_kvm_program)\n"
        "spb_kvm_idt_pointer:\n"
        "    .word 0x20f\n"
        "    .quad 0x4000\n"
        "spb_kvm_program_end:\n"
        ".popsection\n");

extern const uint8_t spb_kvm_program[], spb_kvm_program_end[];

bool spb_kvm_boot_rom(uint8_t rom[SPB_KVM_ROM_BYTES])
{
    static const uint8_t jump[] = {0xea, 0, 0, 0x00, 0xf0}; /* to F000:0000 */
    size_t size = (size_t)(spb_kvm_program_end - spb_kvm_program);

    SPB_ASSERT(size <= RESET_VECTOR);
    memset(rom, 0xf4, SPB_KVM_ROM_BYTES); /* halts */
    memcpy(rom, spb_kvm_program, size);
    memcpy(rom + RESET_VECTOR, jump, sizeof(jump));
    return true;
}

#else

bool spb_kvm_boot_rom(uint8_t rom[SPB_KVM_ROM_BYTES])
{
    (void)rom;
    return false;
}

#endif
