#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets: tests/fuzz/make_corpus.py [DIRECTORY]

Without an argument they go to corpus/ beside this file. The seeds are small, named for what they
hold, and the same on every run. What each target reads is described at its head.
"""
import hashlib
import os
import struct
import sys

REQUEST_ID = "11111111-2222-4333-8444-555555555555"  # a new one in every call
SAME_ID = "22222222-2222-4333-8444-555555555555"  # one for all calls of an input


def _table():
    out = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        out.append(n)
    return out


TABLE = _table()


def crc32c(data):
    state = 0xFFFFFFFF
    for byte in data:
        state = (state >> 8) ^ TABLE[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283

# ---- fuzz_image ---------------------------------------------------------------------------------

PATCHES, FIX_CRC, FIX_GEOMETRY, ASK_SIZE, KEEP_DAMAGE, ODD_SIZE = 1, 2, 4, 8, 16, 32
SOUND = FIX_CRC | FIX_GEOMETRY


def head(size, flags, blocks, seed):
    return bytes([{512: 0, 1024: 1, 4096: 3, 65536: 7}[size], flags, blocks - 33, seed])


def raw(block, offset, data):
    return bytes([0]) + struct.pack(">HHB", block, offset, len(data)) + data


def param(slot, number, generation, value=b"", damage=0, length=None):
    return (bytes([1]) + struct.pack(">HBHBB", slot, number, generation, damage,
                                     len(value) if length is None else length) + value)


def event(slot, timestamp, payload=b"", damage=0, length=None, code=7, severity=1):
    return (bytes([2]) + struct.pack(">HIBHBB", slot, timestamp, severity, code, damage,
                                     len(payload) if length is None else length) + payload)


def pointer(value):
    return bytes([3]) + struct.pack(">I", value)


def entry(index, first, length, name, damage=0, name_len=None):
    return (bytes([4]) + struct.pack(">BHHBBBB", index, first, length, 1, 2, damage,
                                     len(name) if name_len is None else name_len) + name)


def fill(block, count, value):
    return bytes([5]) + struct.pack(">BHB", block - 1, count, value)


def patched(patches, size=512, flags=SOUND, blocks=64, seed=0x15):
    return head(size, flags | PATCHES, blocks, seed) + b"".join(patches)


def whole_image():
    """An image of 64 blocks of 512 bytes as its writer leaves it, byte for byte."""
    image = bytearray(64 * 512)
    superblock = struct.pack(">IBBHIIIQ16s", 0x53504F53, 1, 0, 7, 64, 33, 31, 1700000000,
                             bytes(range(16)))
    image[0:48] = superblock + struct.pack(">I", crc32c(superblock))
    for slot in range(3):
        record = struct.pack(">IHH240s", 40 + slot % 2, 4, 1 + slot // 2, b"3.14")
        at = (1 + slot // 2) * 512 + slot % 2 * 252
        image[at:at + 252] = record + struct.pack(">I", crc32c(record))
    for slot in range(4):
        record = struct.pack(">IBBH64s", slot, slot, 4, 100 + slot, b"boot")
        at = 18 * 512 + slot * 76
        image[at:at + 76] = record + struct.pack(">I", crc32c(record))
    image[17 * 512:17 * 512 + 4] = struct.pack(">I", 4)
    data = b"product data" * 50
    image[34 * 512:34 * 512 + len(data)] = data
    image[33 * 512:33 * 512 + 80] = struct.pack(">IIHBB64sI", 1, 2, 1, 2, 1, b"a", crc32c(data))
    return bytes(image).rstrip(b"\0")


def image_seeds():
    mixed = [param(0, 1, 1, b"one"), param(1, 1, 2, b"two"), param(2, 2, 1), event(0, 5, b"boot"),
             event(1, 6, b"x" * 64), pointer(2), fill(1, 700, 0x41), entry(0, 1, 700, b"a")]
    full = [param(slot, slot + 1, 1, b"v") for slot in range(32)]
    three = [fill(1, 600, 1), fill(4, 512, 2), entry(0, 1, 600, b"a"), entry(1, 4, 512, b"b"),
             entry(2, 9, 0, b"none")]
    yield "whole", head(512, 0, 64, 0x2b) + whole_image()
    yield "zeros", head(512, 0, 40, 1)
    yield "empty", patched([], blocks=40)
    yield "least", patched([], blocks=33)
    yield "odd-size", patched([], flags=SOUND | ODD_SIZE)
    yield "size-asked", patched(mixed, flags=SOUND | ASK_SIZE | ODD_SIZE)
    yield "bad-magic", patched([raw(0, 0, b"SPOX")], flags=0)
    yield "bad-version", patched([raw(0, 0, b"SPOS\x02")], flags=FIX_CRC)
    yield "bad-area", patched([raw(0, 0, struct.pack(">IHHIII", 0x53504F53, 0x100, 1, 64, 32, 90))],
                              flags=FIX_CRC)
    for size in (512, 1024, 4096, 65536):
        if size < 65536:
            yield f"mixed-{size}", patched(mixed, size=size, blocks=40)
        yield f"mixed-damaged-{size}", patched(mixed + [param(1, 1, 2, b"no", damage=1),
                                                        event(0, 5, b"no", damage=1),
                                                        fill(2, 9, 9)], size=size, blocks=40)
    yield "params-full", patched(full)
    yield "params-crossing", patched([param(slot, slot % 7, slot, b"c") for slot in range(20)],
                                     size=4096, blocks=36)
    yield "params-cut-erase", patched([param(2, 5, 1, b"cut"), raw(1, 504, bytes(8))], size=4096,
                                      blocks=36)
    yield "params-last-generation", patched([param(0, 5, 65534, b"a"), param(1, 5, 65535, b"b"),
                                             param(2, 5, 65535, b"c", damage=4)], seed=5)
    yield "params-rotted-newest", patched([param(0, 5, 3, b"a"), param(1, 5, 9, b"b", damage=1)],
                                          seed=5, flags=SOUND | KEEP_DAMAGE)
    yield "params-all-corrupt", patched([param(slot, 3, slot, b"", damage=1) for slot in range(32)],
                                        flags=SOUND | KEEP_DAMAGE, seed=4)
    yield "params-bad-length", patched([param(0, 1, 1, length=241)])
    yield "events-wrapped", patched([event(slot, slot) for slot in range(90)] + [pointer(200)])
    yield "events-last", patched([event(slot, slot) for slot in range(90)] + [pointer(2**32 - 2)],
                                 seed=9)
    yield "events-lost", patched([event(slot, slot, damage=slot % 2) for slot in range(12)]
                                 + [pointer(12)])
    yield "events-lost-65536", patched([event(5, 5), pointer(2**31)], size=65536, blocks=34)
    yield "events-no-pointer", patched([event(0, 1), event(1, 2)])
    yield "events-all-missing", patched([pointer(50)], flags=SOUND | KEEP_DAMAGE)
    yield "products", patched(three)
    yield "products-full-catalog", patched([entry(i, 0, 0, b"n%d" % i) for i in range(6)])
    yield "products-full-area", patched([fill(1, 15360, 7), entry(0, 1, 15360, b"all")])
    yield "products-rotten", patched(three[:3] + [entry(1, 4, 512, b"b", damage=1)])
    yield "products-overlap", patched([fill(1, 2000, 3), entry(0, 1, 1024, b"a"),
                                       entry(1, 2, 1024, b"b", damage=1), entry(2, 2, 600, b"c")])
    yield "products-same-name", patched([fill(1, 2000, 3), entry(0, 1, 512, b"a", damage=1),
                                         entry(1, 3, 512, b"a"), entry(2, 4, 100, b"a")])
    yield "products-same-name-kept", patched([fill(1, 2000, 3), entry(0, 1, 512, b"fuzz"),
                                              entry(1, 3, 512, b"fuzz"), entry(2, 4, 9, b"fuzz")],
                                             flags=SOUND | KEEP_DAMAGE)
    yield "products-bad-names", patched([entry(0, 1, 9, b"\xff\xfe"), entry(1, 2, 9, b"a\0b"),
                                         entry(2, 3, 9, b"", name_len=65), entry(3, 0, 9, b"z"),
                                         entry(4, 30, 1024, b"far")])
    yield "products-crc-blind", patched([raw(34, 0, b"abcd\xff\xff\xff\xff"),
                                         entry(0, 1, 8, b"a")], seed=0x44)
    yield "products-empty-far", patched([entry(0, 256, 0, b"a")])
    yield "products-gaps", patched([fill(2, 512, 1), fill(5, 512, 2), fill(9, 1024, 3),
                                    entry(0, 9, 1024, b"c"), entry(1, 5, 512, b"b"),
                                    entry(3, 2, 512, b"a")], size=4096, blocks=60)


# ---- fuzz_changes -------------------------------------------------------------------------------

PUT, PUTS, WRITE, DELETE, APPEND, PUBLISH, REMOVE = range(7)


def change(kind, arguments=b"", length=5, value=1):
    return bytes([length, value, kind]) + arguments


def decided(changes, damage=b""):
    return bytes([2, len(changes) - 1]) + b"".join(changes) + damage


def change_seeds():
    every = [change(PUT), change(PUTS, length=240), change(DELETE),
             change(APPEND, b"\x02\x00\x40\x07"),
             change(PUBLISH, b"\x05\x01\xf4\x01"), change(REMOVE),
             change(WRITE, b"\x1f\x00\x09")]
    names = ["put", "puts", "delete", "append", "publish", "remove", "write"]
    yield "nothing", bytes([0])
    yield "zeros", bytes([1]) + bytes(64)
    for name, one in zip(names, every):
        yield name, decided([one])
        yield f"{name}-damaged", decided([one], b"\x00\x08\x01\x00\x14\xff")
    yield "every", decided(every)
    yield "appends", decided([change(APPEND, b"\x07" + bytes(8))] * 8)
    yield "publishes", decided([change(PUBLISH, b"\x01\x00\xff\x01")] * 8)
    yield "replace", decided([change(PUBLISH, b"\x05\x04\x00\x01"), change(REMOVE),
                              change(PUBLISH, b"\x05\x00\x00\x01")])


# ---- fuzz_requests ------------------------------------------------------------------------------

METHODS = ["Images.Create", "Images.List", "Images.Get", "Images.Inspect", "Images.Check",
           "Images.Defrag", "Images.Reopen", "Images.Delete", "Params.Put", "Params.BatchPut",
           "Params.Get", "Params.List", "Params.History", "Params.Delete", "Events.Append",
           "Events.List", "DataProducts.List", "DataProducts.Get", "DataProducts.Read",
           "DataProducts.Delete", "Uploads.Start", "Uploads.Write", "Uploads.Status",
           "Uploads.Finish", "Uploads.Abort", "Health.Check", "Server.Info", "Server.Ping",
           "Events.Watch", "Images.Scrub", "Images.Clone", "Images.Rename", "Images.Backup",
           "Images.ReadBackup", "Images.EndBackup", "Artifacts.List", "Artifacts.Get",
           "Artifacts.Delete", "Audit.List", "Server.Cancel", "Guests.Create", "Guests.Start",
           "Guests.Stop", "Guests.Kill", "Guests.Delete", "Guests.Get", "Guests.List",
           "Guests.Wait", "Guests.Stats", "Guests.ReadConsole", "Guests.WriteConsole"]
BYTES, AT_ONCE = 0x80, 0x40
UPLOAD, BACKUP = b"UPLOADIDUPLOADID", b"BACKUPIDBACKUPID"
# As long as the identity that the server gives; see learn() of fuzz_requests.c.
IDENTITY = b"IDENTITY".ljust(15, b".")


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, value):
    """One protobuf field: a number as varint, bytes or text with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(**fields):
    """Fields by number: f1=..., f2=...; a list repeats its field."""
    out = b""
    for key, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            out += field(int(key[1:]), one)
    return out


def call(method, payload=b""):
    return bytes([METHODS.index(method)]) + struct.pack(">H", len(payload)) + payload


def frame(stream, data, kind=1, flags=0, length=None):
    return struct.pack(">IIBB", len(data) if length is None else length, stream, kind, flags) + data


def envelope(service, method, payload=b"", timeout=0, metadata=b""):
    return (message(f1=f"spaceblock.v1.{service}", f2=method, f3=payload)
            + (field(4, timeout) if timeout else b"") + metadata)


A = message(f2=b"a")
NEW = message(f2=b"n")


def plain_calls():
    put = message(f1=REQUEST_ID, f2=A, f3=42, f4=b"3.14")
    yield "images-create", call("Images.Create", message(f1=REQUEST_ID, f2=NEW, f3=40, f4=512,
                                                         f5=1))
    yield "images-create-4096", call("Images.Create", message(
        f1=REQUEST_ID, f2=message(f1=9, f2=b"o"), f3=33, f4=4096, f6=bytes(range(16))))
    yield "images-create-bad", call("Images.Create", message(f1="x", f2=NEW, f3=32, f4=513))
    yield "images-list", call("Images.List", message(f2=1, f3=1, f4=b"token"))
    for name in ("Get", "Inspect"):
        yield f"images-{name.lower()}", call(f"Images.{name}", message(f1=A))
    yield "images-check", call("Images.Check", message(f1=REQUEST_ID, f2=A, f3=1))
    for name in ("Defrag", "Reopen", "Delete"):
        yield f"images-{name.lower()}", call(f"Images.{name}", message(f1=REQUEST_ID, f2=A))
    yield "params-put", call("Params.Put", put)
    yield "params-put-expected", call("Params.Put", put + field(5, 3))
    yield "params-put-241", call("Params.Put", message(f1=REQUEST_ID, f2=A, f3=1, f4=bytes(241)))
    yield "params-batch", call("Params.BatchPut", message(
        f1=REQUEST_ID, f2=A, f3=[message(f1=i, f2=b"v", f3=0) for i in range(1, 20)]))
    yield "params-get", call("Params.Get", message(f1=A, f2=42))
    yield "params-list", call("Params.List", message(f1=A))
    yield "params-history", call("Params.History", message(f1=A, f2=42))
    yield "params-delete", call("Params.Delete", message(f1=REQUEST_ID, f2=A, f3=42))
    yield "events-append", call("Events.Append", message(
        f1=REQUEST_ID, f2=A, f3=[message(f1=1700000000 + i, f2=i, f3=i, f4=b"p" * i)
                                 for i in range(1, 6)]))
    yield "events-append-early", call("Events.Append", message(f1=REQUEST_ID, f2=A,
                                                               f3=message(f1=1)))
    yield "events-list", call("Events.List", message(f1=A, f2=5, f4=b"\x01\x02", f5=b"\x01"))
    yield "events-list-cursor", call("Events.List", message(f1=A, f3=bytes(28)))
    yield "events-watch", call("Events.Watch", message(f1=A, f3=2, f4=60000, f6=b"\x01\x02",
                                                       f7=b"\x01"))
    yield "events-watch-cursor", call("Events.Watch", message(f1=A, f2=bytes(28), f4=1, f5=3))
    yield "audit-list", call("Audit.List", message(f3=b"a", f5=b"Params.Put", f6=2, f9=2))
    yield "cancel", call("Server.Cancel", message(f1=REQUEST_ID))
    yield "images-scrub", call("Images.Scrub", message(f1=A, f2=1, f3=60))
    yield "images-clone", call("Images.Clone", message(f1=REQUEST_ID, f2=A, f3=NEW))
    yield "images-clone-away", call("Images.Clone", message(
        f1=REQUEST_ID, f2=A, f3=message(f1=9, f2=b"o"), f4=bytes(range(16))))
    yield "images-rename", call("Images.Rename", message(f1=REQUEST_ID, f2=A, f3=b"r"))
    yield "images-backup", backup_calls()
    yield "artifacts-list", call("Artifacts.List", message(f2=2, f3=bytes(32)))
    for name in ("Get", "Delete"):
        fields = {"f2": SHA} if name == "Get" else {"f1": REQUEST_ID, "f3": SHA}
        yield f"artifacts-{name.lower()}", call(f"Artifacts.{name}", message(**fields))
    guest = message(f2=b"g")
    config = message(f1=A, f2=message(f2=b"true"), f4=b"quiet", f5=64, f6=2, f7=3, f8=2, f9=1000,
                     f10=1000, f12=message(f1=b"k", f2=b"v"))
    create = call("Guests.Create", message(f1=REQUEST_ID, f2=guest, f3=config))
    yield "guests-create", create
    yield "guests-run", call("Guests.Create", message(f1=REQUEST_ID, f2=guest, f3=config, f4=1))
    for name in ("Start", "Stop", "Kill", "Delete"):
        yield f"guests-{name.lower()}", create + call(f"Guests.{name}", message(
            f1=REQUEST_ID, f2=guest, f3=1))
    yield "guests-look", create + call("Guests.Get", message(f1=guest)) + call(
        "Guests.List", message(f2=1, f3=1)) + call("Guests.Wait", message(
            f1=guest, f2=1, f3=60000)) + call("Guests.Stats", message(f1=guest))
    yield "guests-console", create + call("Guests.ReadConsole", message(
        f1=guest, f3=10, f4=100)) + call("Guests.WriteConsole", message(
            f1=guest, f2=b"w" * 16, f4=b"typed"))
    yield "products-list", call("DataProducts.List", message(f1=A, f2=1))
    yield "products-get", call("DataProducts.Get", message(f1=A, f2=b"p", f3=1))
    yield "products-read", call("DataProducts.Read", message(f1=A, f2=b"p", f3=IDENTITY, f5=10))
    yield "products-delete", call("DataProducts.Delete", message(f1=REQUEST_ID, f2=A, f3=b"p"))
    yield "health", call("Health.Check", message(f1="spaceblock.v1.Params"))
    yield "info", call("Server.Info")
    yield "ping", call("Server.Ping", message(f1=b"hello"))


ARTIFACT = b"an artifact " * 20
SHA = hashlib.sha256(ARTIFACT).digest()


def backup_calls():
    return (call("Images.Backup", message(f1=A))
            + call("Images.ReadBackup", message(f1=BACKUP, f2=512, f3=2000))
            + call("Images.EndBackup", message(f1=BACKUP)))


def whole_image(tenant=1):
    """The least image: a superblock, and zeros."""
    head = struct.pack(">IBBHIIIQ16s", 0x53504F53, 1, 0, tenant, 33, 33, 0, 1700000000, b"u" * 16)
    return (head + struct.pack(">I", crc32c(head))).ljust(33 * 512, b"\0")


def file_calls(data, request_id=REQUEST_ID, **target):
    """An upload of an image (f4) or an artifact (f5)."""
    return (call("Uploads.Start", message(f1=request_id, f3=len(data), **target))
            + call("Uploads.Write", message(f1=UPLOAD, f3=data, f4=crc32c(data)))
            + call("Uploads.Status", message(f1=UPLOAD))
            + 2 * call("Uploads.Finish", message(f1=request_id, f2=UPLOAD, f3=crc32c(data))))


def upload_calls(data, replace=0):
    target = message(f1=A, f2=b"p", f3=1, f4=2, f5=replace)
    return (call("Uploads.Start", message(f1=REQUEST_ID, f2=target, f3=len(data)))
            + call("Uploads.Write", message(f1=UPLOAD, f2=0, f3=data, f4=crc32c(data)))
            + call("Uploads.Status", message(f1=UPLOAD))
            + call("Uploads.Finish", message(f1=REQUEST_ID, f2=UPLOAD, f3=crc32c(data))))


def read_calls(data):
    return (call("DataProducts.Get", message(f1=A, f2=b"p"))
            + call("DataProducts.Read", message(f1=A, f2=b"p", f3=IDENTITY, f4=1, f5=len(data)))
            + call("DataProducts.List", message(f1=A, f2=1)))


def request_seeds():
    everything = b""
    for name, one in plain_calls():
        yield name, bytes([0]) + one
        if not name.startswith(("images-delete", "images-rename")):
            everything += one
    yield "everything", bytes([0]) + everything
    yield "everything-at-once", bytes([AT_ONCE]) + everything
    data = b"some product data " * 80
    yield "upload", bytes([0]) + upload_calls(data) + read_calls(data)
    yield "upload-replace", (bytes([0]) + upload_calls(b"short", 1) + upload_calls(data, 1)
                             + read_calls(data) + call("Images.Check", message(f2=A)))
    yield "upload-abort", (bytes([0]) + upload_calls(data)[:-60]
                           + call("Uploads.Abort", message(f1=REQUEST_ID, f2=UPLOAD)))
    yield "upload-left-open", bytes([0]) + call("Uploads.Start", message(
        f1=REQUEST_ID, f2=message(f1=A, f2=b"q"), f3=3000)) + call("Images.Delete", message(
            f1=REQUEST_ID, f2=A)) + call("Uploads.Write", message(f1=UPLOAD, f3=b"late"))
    image = message(f1=NEW)
    yield "upload-image", bytes([0]) + file_calls(whole_image(), f4=image) + call(
        "Params.Put", message(f1=REQUEST_ID, f2=NEW, f3=1, f4=b"v"))
    yield "upload-image-foreign", bytes([0]) + file_calls(whole_image(7), f4=image)
    yield "upload-image-anew", bytes([0]) + file_calls(
        whole_image(7), f4=message(f1=NEW, f2=1, f3=512))
    yield "upload-image-none", bytes([0]) + file_calls(bytes(33 * 512), f4=image)
    yield "upload-artifact", bytes([0]) + file_calls(
        ARTIFACT, f5=message(f2=b"kernel", f3=SHA)) + call("Artifacts.Get", message(f2=SHA)) + call(
            "Artifacts.Delete", message(f1=REQUEST_ID, f3=SHA))
    yield "upload-artifact-other", bytes([0]) + file_calls(ARTIFACT, f5=message(f3=bytes(32)))
    yield "upload-repeated", bytes([0]) + file_calls(
        ARTIFACT, SAME_ID, f5=message(f2=b"kernel", f3=SHA))
    yield "backup-at-once", bytes([AT_ONCE]) + 3 * backup_calls()
    yield "puts-at-once", bytes([AT_ONCE]) + 40 * call("Params.Put", message(
        f1=REQUEST_ID, f2=A, f3=7, f4=b"again"))
    ping = envelope("Server", "Ping", message(f1=b"x"))
    put = envelope("Params", "Put", message(f1=REQUEST_ID, f2=A, f3=1, f4=b"v"), timeout=10**9)
    for name, data in [
            ("ping", frame(1, ping)), ("put", frame(1, put)),
            ("two", frame(1, ping) + frame(3, put)),
            ("even", frame(2, ping)), ("zero", frame(0, ping)), ("again", frame(1, ping) * 2),
            ("falling", frame(5, ping) + frame(3, ping)), ("type", frame(1, ping, kind=9)),
            ("response", frame(1, ping, kind=2)), ("flags", frame(1, ping, flags=255)),
            ("cut-head", frame(1, ping)[:7]), ("cut", frame(1, ping)[:-3]),
            ("empty", frame(1, b"")), ("over", frame(1, bytes(100), length=5 << 20)),
            ("broken", b"GET / HTTP/1.1\r\n\r\n"),
            ("unknown", frame(1, envelope("No", "Such"))),
            ("metadata", frame(1, envelope("Server", "Ping", metadata=field(
                5, message(f1="tenant", f2="alpha")) * 40))),
            ("deadline", frame(1, envelope("Server", "Ping", timeout=1))),
            ("negative", frame(1, envelope("Server", "Ping", timeout=2**64 - 1))),
            ("bad-text", frame(1, message(f1=b"\xff", f2=b"a\0b"))),
            ("control-size", frame(1, envelope("Server", "Ping", message(f1=bytes(66000)))))]:
        yield f"bytes-{name}", bytes([BYTES]) + data


# ---- fuzz_acts ----------------------------------------------------------------------------------


def act(kind, tenant=1, name=b"", new_name=b"", identity=0, size=0, label=b""):
    def text(value):
        return bytes([len(value)]) + value

    return (bytes([1, kind]) + struct.pack(">H", tenant) + text(name) + text(new_name) + b"u" * 16
            + b"i" * 16 + bytes([identity]) + struct.pack(">I", 512) + b"s" * 32
            + struct.pack(">Q", size) + text(label))


def act_seeds():
    yield "import", act(1, name=b"demo", identity=1)
    yield "clone", act(2, tenant=9, name=b"n" * 64)
    yield "rename", act(3, name=b"old", new_name=b"new")
    yield "start", act(4)
    yield "abort", act(5, name=b"demo")
    yield "artifact", act(6, size=2**40, label=b"kernel")
    yield "artifact-delete", act(7, label=b"l" * 64)
    for name, kind in (("create", 8), ("start", 9), ("stop", 10), ("kill", 11), ("delete", 12)):
        yield f"guest-{name}", act(kind, name=b"demo", size=3)
    yield "unknown", act(13, name=b"demo")
    yield "name-outside", act(2, name=b"../x")
    yield "cut", act(3, name=b"old", new_name=b"new")[:-1]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "corpus")
    total = 0
    for target, seeds in (("fuzz_image", image_seeds()), ("fuzz_changes", change_seeds()),
                          ("fuzz_requests", request_seeds()), ("fuzz_acts", act_seeds())):
        folder = os.path.join(root, target)
        os.makedirs(folder, exist_ok=True)
        for name, data in seeds:
            with open(os.path.join(folder, name), "wb") as out:
                out.write(data)
            total += len(data)
    print(f"{total} bytes of seeds in {root}")


if __name__ == "__main__":
    main()
