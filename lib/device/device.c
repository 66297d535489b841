/* Bounds checks in front of every device function, and copying between any two. No state. */
#include <stdlib.h>

#include "base/checked.h"
#include "base/status.h"
#include "spaceblock/device.h"

/* Bytes that a copy holds in memory at most. */
#define COPY_PIECE ((size_t)256 * 1024)

static spb_status check_range(const struct spb_device *device, const char *verb, uint64_t offset,
                              uint64_t n, struct spb_error *err)
{
    if (spb_range_within(offset, n, device->size_bytes))
        return spb_ok();
    return spb_fail(err, SPB_INVALID,
                    "cannot %s %llu bytes at %llu of %s: beyond its end at %llu bytes", verb,
                    (unsigned long long)n, (unsigned long long)offset, device->name,
                    (unsigned long long)device->size_bytes);
}

static spb_status check_writable(const struct spb_device *device, const char *verb,
                                 struct spb_error *err)
{
    if (device->writable)
        return spb_ok();
    return spb_fail(err, SPB_READ_ONLY, "cannot %s %s: it was opened for reading", verb,
                    device->name);
}

spb_status spb_device_read(struct spb_device *device, uint64_t offset, void *buffer, size_t n,
                           struct spb_error *err)
{
    SPB_TRY(check_range(device, "read", offset, n, err));
    return n == 0 ? spb_ok() : device->ops->read(device, offset, buffer, n, err);
}

spb_status spb_device_read_medium(struct spb_device *device, uint64_t offset, void *buffer,
                                  size_t n, struct spb_error *err)
{
    SPB_TRY(check_range(device, "read", offset, n, err));
    return n == 0 ? spb_ok() : device->ops->read_medium(device, offset, buffer, n, err);
}

spb_status spb_device_write(struct spb_device *device, uint64_t offset, const void *data, size_t n,
                            struct spb_error *err)
{
    SPB_TRY(check_writable(device, "write", err));
    SPB_TRY(check_range(device, "write", offset, n, err));
    return n == 0 ? spb_ok() : device->ops->write(device, offset, data, n, err);
}

void spb_device_push(struct spb_device *device, uint64_t offset, uint64_t n)
{
    if (device->ops->push != NULL && device->writable &&
        spb_range_within(offset, n, device->size_bytes))
        device->ops->push(device, offset, n);
}

spb_status spb_device_flush(struct spb_device *device, struct spb_error *err)
{
    SPB_TRY(check_writable(device, "flush", err));
    return device->ops->flush(device, err);
}

spb_status spb_device_zero(struct spb_device *device, uint64_t offset, uint64_t n,
                           struct spb_error *err)
{
    SPB_TRY(check_writable(device, "zero", err));
    SPB_TRY(check_range(device, "zero", offset, n, err));
    return n == 0 ? spb_ok() : device->ops->zero(device, offset, n, err);
}

static spb_status copy_through_memory(struct spb_device *device, uint64_t offset,
                                      struct spb_device *from, uint64_t from_offset, uint64_t n,
                                      struct spb_error *err)
{
    size_t room = n < COPY_PIECE ? (size_t)n : COPY_PIECE;
    void *piece = malloc(room);
    spb_status status = spb_ok();

    if (piece == NULL)
        return spb_fail_memory(err, "copying between devices");
    for (uint64_t done = 0; spb_is_ok(status) && done < n;) {
        size_t part = n - done < room ? (size_t)(n - done) : room;
        status = from->ops->read(from, from_offset + done, piece, part, err);
        if (spb_is_ok(status))
            status = device->ops->write(device, offset + done, piece, part, err);
        done += part;
    }
    free(piece);
    return status;
}

spb_status spb_device_copy(struct spb_device *device, uint64_t offset, struct spb_device *from,
                           uint64_t from_offset, uint64_t n, struct spb_error *err)
{
    spb_status status = {SPB_UNSUPPORTED};

    SPB_TRY(check_writable(device, "write", err));
    SPB_TRY(check_range(from, "read", from_offset, n, err));
    SPB_TRY(check_range(device, "write", offset, n, err));
    if (n == 0)
        return spb_ok();
    if (device->ops->copy != NULL && device->ops == from->ops)
        status = device->ops->copy(device, offset, from, from_offset, n, err);
    if (status.code != SPB_UNSUPPORTED)
        return status;
    return copy_through_memory(device, offset, from, from_offset, n, err);
}

spb_status spb_device_forgive(struct spb_device *device, struct spb_error *err)
{
    return device->ops->forgive(device, err);
}

void spb_device_close(struct spb_device *device)
{
    if (device != NULL)
        device->ops->close(device);
}
