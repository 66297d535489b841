/* The API's own description, built into the daemon: an encoded google.protobuf.FileDescriptorSet.
 */
#ifndef SPB_SERVER_DESCRIPTOR_H
#define SPB_SERVER_DESCRIPTOR_H

#include <stddef.h>
#include <stdint.h>

const uint8_t *spb_descriptor_set(size_t *size);

#endif
