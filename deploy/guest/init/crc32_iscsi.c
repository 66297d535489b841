/*
 * CRC-32C for the guest. Debian has ISA-L as a shared library only, and the init is static: this is
 * the one function of it that libspaceblock uses, byte by byte with a table. No state but the
 * table, which is made before first use by the one thread there is.
 */
#include <stdbool.h>
#include <stdint.h>

#define POLYNOMIAL UINT32_C(0x82F63B78) /* Castagnoli's, bits reversed */

unsigned int crc32_iscsi(unsigned char *buffer, int len, unsigned int init_crc);

static uint32_t table[256];

static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;

        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 1) != 0 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        table[i] = crc;
    }
}

unsigned int crc32_iscsi(unsigned char *buffer, int len, unsigned int init_crc)
{
    uint32_t crc = init_crc;

    if (table[1] == 0)
        make_table();
    for (int i = 0; i < len; i++)
        crc = table[(crc ^ buffer[i]) & 0xFFu] ^ crc >> 8;
    return crc;
}
