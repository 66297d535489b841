"""Device writes have one place: lib/volume/carry.c writes and flushes metadata, and nothing else.

The bytes of data products go straight to reserved extents: those that callers bring in
lib/volume/product_writer.c, those that are moved in lib/volume/product_bulk.c. Both write and never
flush. A copy of a whole image goes to a device that no volume is open on, in lib/volume/snapshot.c,
whose flushes are carry.c's too. System calls that write or sync a file belong to lib/device and
to the making of image files.
"""
import re

from support import tree

CALL = re.compile(r"\bspb_device_(write|flush|zero|copy)\s*\(|"
                  r"->\s*ops\s*->\s*(write|flush|zero|copy)\b")
ALLOWED = {
    "lib/volume/carry.c": {"write", "flush", "zero"},
    "lib/volume/product_bulk.c": {"write"},
    "lib/volume/product_writer.c": {"write"},
    "lib/volume/snapshot.c": {"write", "zero", "copy"},
}
SYSTEM = re.compile(r"\b(pwrite|pwritev|pwritev2|write|writev|fsync|fdatasync|sync_file_range|"
                    r"fallocate|posix_fallocate|ftruncate|copy_file_range)\s*\(")
SYSTEM_FILES = {"lib/volume/image_file.c"}
PLACES = re.compile(r"^(lib|server|client)/.*\.c$")


def check(files):
    complaints = []
    for path, text in files.items():
        if not PLACES.match(path) or path.startswith("lib/device/"):
            continue
        code = tree.code_only(text)
        for match in CALL.finditer(code):
            verb = match.group(1) or match.group(2)
            if verb not in ALLOWED.get(path, set()):
                complaints.append(f"{path}:{tree.line_of(code, match.start())}: device {verb} "
                                  f"outside of its one place")
        if path.startswith("lib/") and path not in SYSTEM_FILES:
            for match in SYSTEM.finditer(code):
                complaints.append(f"{path}:{tree.line_of(code, match.start())}: "
                                  f"{match.group(1)}() outside of lib/device")
    if not any(path == "lib/volume/carry.c" for path in files):
        complaints.append("lib/volume/carry.c: is not there")
    return complaints


CARRY = {"lib/volume/carry.c": "spb_device_write(d); spb_device_flush(d); spb_device_zero(d);\n"}
BAD = [
    (dict(CARRY, **{"lib/volume/params.c": "x = spb_device_write (device, 0, p, n, err);\n"}),
     "device write"),
    (dict(CARRY, **{"lib/volume/recover.c": "SPB_TRY(spb_device_flush(device, err));\n"}),
     "device flush"),
    (dict(CARRY, **{"lib/volume/product_bulk.c": "spb_device_flush(device, err);\n"}),
     "device flush"),
    (dict(CARRY, **{"lib/volume/product_writer.c": "spb_device_zero(d, 0, 1, err);\n"}),
     "device zero"),
    (dict(CARRY, **{"lib/volume/a.c": "device->ops->zero(device, 0, 1, err);\n"}), "device zero"),
    (dict(CARRY, **{"lib/volume/check.c": "spb_device_copy(a, 0, b, 0, 1, err);\n"}),
     "device copy"),
    (dict(CARRY, **{"lib/volume/snapshot.c": "spb_device_flush(d, err);\n"}), "device flush"),
    (dict(CARRY, **{"lib/volume/a.c": "copy_file_range(a, 0, b, 0, 1, 0);\n"}),
     "copy_file_range() outside"),
    (dict(CARRY, **{"server/images.c": "spb_device_zero(device);\n"}), "device zero"),
    (dict(CARRY, **{"lib/volume/a.c": "fdatasync(fd);\n"}), "fdatasync() outside"),
    ({"lib/volume/a.c": ""}, "is not there"),
]
GOOD = dict(CARRY, **{
    "lib/volume/product_bulk.c": "spb_device_write(d);\n",
    "lib/volume/product_writer.c": "spb_device_write(d);\n",
    "lib/volume/snapshot.c": "spb_device_copy(a, b); spb_device_zero(a); spb_device_write(a);\n",
    "lib/device/file.c": "fdatasync(fd); pwrite(fd); copy_file_range(a, b);\n",
    "lib/volume/image_file.c": "fsync(fd);\n",
    "lib/volume/a.c": "/* spb_device_write(x) */ spb_device_read(d); f(\"spb_device_flush(\");\n",
    "tests/unit/test_a.c": "spb_device_write(d);\n",
})

if __name__ == "__main__":
    tree.run(check, BAD, GOOD)
