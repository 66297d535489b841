/* A device in memory: durable by definition while the process lives. One thread at a time writes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "spaceblock/device.h"

struct memory_device {
    struct spb_device base; /* first: the table's functions get its address */
    uint8_t *bytes;
};

static struct memory_device *of(struct spb_device *device)
{
    return (struct memory_device *)(void *)device;
}

static spb_status memory_read(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                              struct spb_error *err)
{
    (void)err;
    memcpy(buffer, of(device)->bytes + offset, n);
    return spb_ok();
}

static spb_status memory_write(struct spb_device *device, uint64_t offset, const void *data,
                               size_t n, struct spb_error *err)
{
    (void)err;
    memcpy(of(device)->bytes + offset, data, n);
    device->zeroed = false;
    return spb_ok();
}

static spb_status memory_flush(struct spb_device *device, struct spb_error *err)
{
    (void)device;
    (void)err;
    return spb_ok();
}

static spb_status memory_zero(struct spb_device *device, uint64_t offset, uint64_t n,
                              struct spb_error *err)
{
    (void)err;
    memset(of(device)->bytes + offset, 0, n);
    return spb_ok();
}

static void memory_close(struct spb_device *device)
{
    free(of(device)->bytes);
    free(of(device));
}

static const struct spb_device_ops memory_ops = {
    .read = memory_read,
    .read_medium = memory_read,
    .write = memory_write,
    .flush = memory_flush,
    .zero = memory_zero,
    .forgive = memory_flush,
    .close = memory_close,
};

spb_status spb_device_memory_new(uint64_t size_bytes, struct spb_device **device,
                                 struct spb_error *err)
{
    struct memory_device *memory = calloc(1, sizeof(*memory));

    if (memory == NULL || size_bytes > SIZE_MAX - 1) {
        free(memory);
        return spb_fail_memory(err, "making a device in memory");
    }
    memory->bytes = calloc(1, (size_t)size_bytes + 1);
    if (memory->bytes == NULL) {
        free(memory);
        return spb_fail_memory(err, "making a device in memory");
    }
    memory->base.ops = &memory_ops;
    memory->base.size_bytes = size_bytes;
    memory->base.sector_size = SPB_SECTOR_SIZE;
    memory->base.writable = true;
    memory->base.zeroed = true;
    (void)snprintf(memory->base.name, sizeof(memory->base.name), "memory");
    *device = &memory->base;
    return spb_ok();
}
