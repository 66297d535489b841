/* The embedded FileDescriptorSet. The assembler takes the bytes in, so no copy as C source exists.
 */
#include "descriptor.h"

__asm__(".section .rodata\n"
        ".local spb_descriptor_begin\n"
        ".local spb_descriptor_end\n"
        "spb_descriptor_begin:\n"
        ".incbin \"" SPB_DESCRIPTOR_FILE "\"\n"
        "spb_descriptor_end:\n"
        ".byte 0\n"
        ".text\n");

extern const uint8_t spb_descriptor_begin[] __attribute__((visibility("hidden")));
extern const uint8_t spb_descriptor_end[] __attribute__((visibility("hidden")));

const uint8_t *spb_descriptor_set(size_t *size)
{
    *size = (size_t)((uintptr_t)spb_descriptor_end - (uintptr_t)spb_descriptor_begin);
    return spb_descriptor_begin;
}
