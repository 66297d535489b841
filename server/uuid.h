/* UUIDs as 16 bytes and as text of 36 characters (8-4-4-4-12 hex digits). No state; any thread. */
#ifndef SPB_SERVER_UUID_H
#define SPB_SERVER_UUID_H

#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_UUID_BYTES 16u
#define SPB_UUID_TEXT_SIZE 37u

/* False where the text is none. */
bool spb_uuid_parse(const char *text, uint8_t uuid[SPB_UUID_BYTES]);
void spb_uuid_write(const uint8_t uuid[SPB_UUID_BYTES], char text[SPB_UUID_TEXT_SIZE]);
/* A random one, version 4. */
SPB_MUST_USE spb_status spb_uuid_draw(uint8_t uuid[SPB_UUID_BYTES], struct spb_error *err);

#endif
