"""Data products over RPC: uploads in chunks, reads with identity, space, defragmentation."""
import random

import harness
import rpc
from crc import crc32c

KIB, MIB = 1024, 1 << 20
GOOD = 2


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


class Products(harness.SharedCase):
    def setUp(self):
        super().setUp()
        self.image = self.fresh()

    def fresh(self, blocks=2048, size=4096):
        return super().fresh(blocks=blocks, sector_size=size)

    def begin(self, name=b"p", size=100, image=None, **more):
        target = {"image": rpc.image_ref(image or self.image), "name": name, **more}
        return self.c.call("Uploads", "Start", product=target, size=size)["upload_id"]

    def no_begin(self, code, name=b"p", size=100, image=None, **more):
        target = {"image": rpc.image_ref(image or self.image), "name": name, **more}
        return self.refused(code, self.c, "Uploads", "Start", {"product": target, "size": size})

    def no_write(self, code, upload, offset, data, crc=None):
        return self.refused(code, self.c, "Uploads", "Write", {
            "upload_id": upload, "offset": offset, "data": data,
            "crc32c": crc32c(data) if crc is None else crc})

    def no_finish(self, code, upload, crc):
        return self.refused(code, self.c, "Uploads", "Finish", {"upload_id": upload, "crc32c": crc})

    def free_blocks(self, image=None):
        return self.c.call("Images", "Inspect", image=image or self.image)["free_blocks"]

    def names(self, image=None):
        listed = self.c.call("DataProducts", "List", image=image or self.image)["products"]
        return sorted(p["name"] for p in listed)

    # ---- uploads

    def test_upload_and_read(self):
        for n, size in enumerate((0, 1, 4095, 4096, 4097, 65536, 65537, 200001)):
            data = noise(size, n)
            made = self.c.upload(self.image, b"p%d" % n, data, chunk=64 * KIB, product_class=7,
                                 priority=n)
            self.assertEqual((made["length"], made["crc32c"], made["state"], made["product_class"],
                              made["priority"], made["block_count"]),
                             (size, crc32c(data), GOOD, 7, n, -(-size // 4096)))
            self.assertEqual(self.c.product(self.image, b"p%d" % n, 64 * KIB), data)
        self.assertEqual(self.names(), [b"p%d" % n for n in range(8)])

    def test_length_is_exact_where_zeros_end_it(self):
        data = {b"zeros": b"\0" * 5000, b"ff": b"\xff" * 4 + b"\0" * 4096,
                b"tail": b"x" + b"\0" * 4095, b"eighty": b"\x80", b"eighties": b"a\x80\0\0\x80"}
        for name, value in data.items():
            self.c.upload(self.image, name, value)
        self.shared.stop()
        try:
            seen = harness.dump(self.shared.image_path(1, self.image))
        finally:
            self.shared.restart()
        self.assertEqual({d["name"].encode(): bytes.fromhex(d["data_hex"]) for d in seen["dps"]},
                         data)
        with self.shared.connect() as c:
            for name, value in data.items():
                self.assertEqual(c.product(self.image, name), value)

    def test_large_product_in_megabyte_chunks(self):
        data = noise(MIB) * 5 + b"end"
        self.c.upload(self.image, b"large", data)
        self.assertEqual(self.c.product(self.image, b"large"), data)

    def test_chunk_repeated_is_taken_once(self):
        data = noise(150000)
        upload = self.begin(size=len(data))
        first, second = data[:65536], data[65536:131072]
        self.assertEqual(self.c.write(upload, 0, first), 65536)
        self.assertEqual(self.c.write(upload, 0, first), 65536)
        self.assertEqual(self.c.write(upload, 65536, second), 131072)
        self.assertEqual(self.c.write(upload, 65536, second), 131072)
        self.assertEqual(self.c.write(upload, 131072, data[131072:]), 150000)
        status = self.c.call("Uploads", "Status", upload_id=upload)
        self.assertEqual((status["next_offset"], status["size"]), (150000, 150000))
        self.assertLessEqual(status["durable_offset"], 150000)
        self.c.call("Uploads", "Finish", upload_id=upload, crc32c=crc32c(data))
        self.assertEqual(self.c.product(self.image, b"p"), data)

    def test_bad_chunks(self):
        data = noise(3 * 65536)
        upload = self.begin(size=len(data))
        self.assertEqual(self.c.write(upload, 0, data[:65536]), 65536)
        piece = data[65536:131072]
        self.no_write(rpc.INVALID, upload, 65536, piece, crc32c(piece) ^ 1)
        gap = self.no_write(rpc.PRECONDITION, upload, 65537, piece)
        self.assertIn("65536", gap.message)
        self.no_write(rpc.PRECONDITION, upload, 131072, piece)
        self.no_write(rpc.INVALID, upload, 1 << 63, piece)
        self.no_write(rpc.INVALID, upload, 65536, data[65536:] + b"more")
        self.no_write(rpc.INVALID, upload, 65536, b"")
        self.no_write(rpc.INVALID, upload, 65536, b"small and not the last")
        self.no_write(rpc.NOT_FOUND, b"u" * 16, 0, piece)
        self.no_write(rpc.INVALID, b"u" * 15, 0, piece)
        big = self.begin(b"big", size=3 * MIB)
        reply = self.c.ask("Uploads", "Write", {"upload_id": big, "data": b"\0" * (MIB + 1),
                                                "crc32c": crc32c(b"\0" * (MIB + 1))})
        self.assertIn(reply.code, (rpc.INVALID, rpc.EXHAUSTED), reply)
        # none of these spoiled the upload
        self.c.write(upload, 65536, piece)
        self.c.write(upload, 131072, data[131072:])
        self.c.call("Uploads", "Finish", upload_id=upload, crc32c=crc32c(data))
        self.assertEqual(self.c.product(self.image, b"p"), data)

    def test_finish_with_a_wrong_crc_or_too_early_publishes_nothing(self):
        upload = self.begin(size=10)
        self.no_finish(rpc.PRECONDITION, upload, crc32c(b""))
        self.c.write(upload, 0, b"0123456789")
        self.no_finish(rpc.INVALID, upload, crc32c(b"0123456789") ^ 1)
        self.assertEqual(self.names(), [])
        self.refused(rpc.NOT_FOUND, self.c, "DataProducts", "Get",
                     {"image": self.image, "name": b"p"})

    def test_abort_gives_the_space_back(self):
        before = self.free_blocks()
        upload = self.begin(size=MIB)
        self.assertLess(self.free_blocks(), before - 255)
        self.c.write(upload, 0, noise(MIB))
        self.c.call("Uploads", "Abort", upload_id=upload)
        self.assertEqual(self.free_blocks(), before)
        for method in ("Finish", "Abort", "Status"):
            self.refused(rpc.NOT_FOUND, self.c, "Uploads", method, {"upload_id": upload})
        self.no_write(rpc.NOT_FOUND, upload, 0, b"x")

    def test_finished_upload_is_gone(self):
        upload = self.begin(size=1)
        self.c.write(upload, 0, b"x")
        self.c.call("Uploads", "Finish", upload_id=upload, crc32c=crc32c(b"x"))
        self.no_write(rpc.NOT_FOUND, upload, 0, b"x")
        self.refused(rpc.NOT_FOUND, self.c, "Uploads", "Status", {"upload_id": upload})

    def test_uploads_side_by_side_and_from_another_connection(self):
        data = {b"n%d" % n: noise(100000, n) for n in range(6)}
        uploads = {name: self.begin(name, len(value)) for name, value in data.items()}
        with self.shared.connect() as other:
            for offset in (0, 65536):
                for name, value in data.items():
                    c = other if offset else self.c
                    c.write(uploads[name], offset, value[offset:offset + 65536])
        for name, value in data.items():
            self.c.call("Uploads", "Finish", upload_id=uploads[name], crc32c=crc32c(value))
        for name, value in data.items():
            self.assertEqual(self.c.product(self.image, name), value)

    def test_deleting_the_image_ends_its_uploads(self):
        upload = self.begin(size=100)
        self.c.call("Images", "Delete", image=self.image)
        self.no_write(rpc.NOT_FOUND, upload, 0, b"x" * 100)
        self.c.create(self.image)
        self.no_finish(rpc.NOT_FOUND, upload, 0)

    # ---- names

    def test_name_taken_and_replace(self):
        self.c.upload(self.image, b"p", b"first")
        self.assertEqual(self.no_begin(rpc.EXISTS).reason, "ALREADY_EXISTS")
        made = self.c.upload(self.image, b"p", b"second", replace=True, product_class=2)
        self.assertEqual((made["length"], made["product_class"]), (6, 2))
        self.assertEqual(self.c.product(self.image, b"p"), b"second")
        self.assertEqual(self.names(), [b"p"])
        one, two = self.begin(b"race", 1), self.begin(b"race", 1)
        for upload in (one, two):
            self.c.write(upload, 0, b"x")
        self.c.call("Uploads", "Finish", upload_id=one, crc32c=crc32c(b"x"))
        self.no_finish(rpc.EXISTS, two, crc32c(b"x"))

    def test_names(self):
        for good in (b"n" * 64, b"a/b", b".dot", "é€😀".encode(), b" ", b"\x01"):
            self.c.upload(self.image, good, good)
            self.assertEqual(self.c.product(self.image, good), good)
        for bad in (b"", b"n" * 65, b"a\0b", b"\0", b"\xff", b"a\xc3", b"\xed\xa0\x80",
                    b"\xc0\xaf", b"\xf5\x80\x80\x80"):
            self.assertEqual(self.no_begin(rpc.INVALID, bad).violations(), ["product.name"])
            for method, more in (("Get", {}), ("Read", {"identity": b"i" * 15, "length": 1}),
                                 ("Delete", {})):
                reply = self.refused(rpc.INVALID, self.c, "DataProducts", method,
                                     dict(more, image=self.image, name=bad))
                self.assertEqual(reply.violations(), ["name"])

    def test_attributes(self):
        self.c.upload(self.image, b"p", b"x", product_class=65535, priority=255)
        reply = self.no_begin(rpc.INVALID, b"q", product_class=65536)
        self.assertEqual(reply.violations(), ["product.product_class"])
        reply = self.no_begin(rpc.INVALID, b"q", priority=256)
        self.assertEqual(reply.violations(), ["product.priority"])
        reply = self.refused(rpc.INVALID, self.c, "Uploads", "Start", {"size": 1})
        self.assertEqual(len(reply.violations()), 1)

    def test_unknown_products(self):
        for method, more in (("Get", {}), ("Read", {"identity": b"i" * 15, "length": 1}),
                             ("Delete", {})):
            reply = self.c.ask("DataProducts", method, dict(more, image=self.image, name=b"nope"))
            # who reads by an identity has seen it: it was deleted since
            self.assertIn(reply.code, (rpc.NOT_FOUND, rpc.ABORTED) if more else (rpc.NOT_FOUND,))

    # ---- space

    def test_full_catalog(self):
        image = self.fresh(blocks=256, size=512)
        for n in range(6):
            self.c.upload(image, b"p%d" % n, b"%d" % n)
        before = self.shared.image_path(1, image).read_bytes()
        reply = self.c.ask("Uploads", "Start", {"size": 1, "product": {
            "image": rpc.image_ref(image), "name": b"p6"}})
        if reply.code == rpc.OK:  # then publishing is what cannot be done
            upload = reply.body["upload_id"]
            self.c.write(upload, 0, b"x")
            reply = self.no_finish(rpc.EXHAUSTED, upload, crc32c(b"x"))
        else:
            self.assertEqual(self.shared.image_path(1, image).read_bytes(), before)
        self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "NO_SPACE"))
        self.assertIn("6", reply.message)
        self.assertEqual(len(self.names(image)), 6)
        self.c.upload(image, b"p3", b"anew", replace=True)
        self.c.call("DataProducts", "Delete", image=image, name=b"p0")
        self.c.upload(image, b"p6", b"x")
        self.assertEqual(self.names(image), [b"p%d" % n for n in range(1, 7)])

    def test_no_free_extent_and_defrag(self):
        image = self.fresh(blocks=33 + 1 + 40, size=512)  # 40 blocks for data
        for n in range(4):
            self.c.upload(image, b"p%d" % n, noise(8 * 512, n))
        for n in (0, 2):
            self.c.call("DataProducts", "Delete", image=image, name=b"p%d" % n)
        found = self.c.call("Images", "Inspect", image=image)
        self.assertEqual(found["free_blocks"], 24)
        largest = found["largest_free_blocks"]
        self.assertLess(largest, 20)
        reply = self.no_begin(rpc.EXHAUSTED, b"big", 20 * 512, image)
        self.assertEqual(reply.reason, "NO_SPACE")
        self.assertRegex(reply.message, r"\b24\b")
        self.assertRegex(reply.message, rf"\b{largest}\b")
        self.no_begin(rpc.EXHAUSTED, b"huge", (1 << 64) - 1, image)
        self.no_begin(rpc.EXHAUSTED, b"huge", 1 << 40, image)
        before = self.c.call("DataProducts", "Get", image=image, name=b"p3")["product"]["identity"]
        while not (done := self.c.call("Images", "Defrag", image=image))["done"]:
            pass
        self.assertEqual((done["free_blocks"], done["largest_free_blocks"]), (24, 24))
        for n in (1, 3):
            self.assertEqual(self.c.product(image, b"p%d" % n), noise(8 * 512, n))
        self.assertTrue(before)
        self.c.upload(image, b"big", noise(20 * 512))
        self.assertEqual(self.c.product(image, b"big"), noise(20 * 512))

    # ---- reads

    def test_reads_with_identity(self):
        data = noise(300000)
        self.c.upload(self.image, b"p", data)
        found = self.c.call("DataProducts", "Get", image=self.image, name=b"p")["product"]

        def read(offset, length, **more):
            return self.c.ask("DataProducts", "Read", dict(
                {"image": self.image, "name": b"p", "identity": found["identity"],
                 "offset": offset, "length": length}, **more))

        for offset, length in ((0, 1), (1, 4096), (299999, 1), (299000, 5000), (0, MIB)):
            got = read(offset, length).body
            self.assertEqual(got["data"], data[offset:offset + length])
            self.assertEqual(got["crc32c"], crc32c(got["data"]))
        self.assertEqual(read(300000, 1).body["data"], b"")
        for length in (0, MIB + 1, 0xffffffff):
            reply = read(0, length)
            self.assertEqual((reply.code, reply.violations()), (rpc.INVALID, ["length"]))
        self.assertIn(read(300001, 1).code, (rpc.OK, rpc.INVALID))
        self.assertIn(read((1 << 64) - 1, 10).code, (rpc.OK, rpc.INVALID))
        self.c.upload(self.image, b"p", noise(300000, 2), replace=True)
        reply = read(100, 100)
        self.assertEqual((reply.code, reply.reason), (rpc.ABORTED, "PRODUCT_CHANGED"))
        self.c.upload(self.image, b"p", data, replace=True)
        self.c.call("DataProducts", "Delete", image=self.image, name=b"p")
        self.assertIn(read(0, 1).code, (rpc.ABORTED, rpc.NOT_FOUND))
        for bad in (b"", b"x", b"\0" * len(found["identity"]), b"i" * 5000):
            self.assertNotEqual(read(0, 1, identity=bad).code, rpc.OK)

    def test_listing_learns_lengths(self):
        self.c.upload(self.image, b"a", b"a" * 100)
        self.c.upload(self.image, b"b", b"")
        self.shared.stop()
        self.shared.restart()
        self.c = self.connect(self.shared)
        listed = self.c.call("DataProducts", "List", image=self.image, verify=True)["products"]
        self.assertEqual([(p["name"], p["length_known"], p["length"], p["state"])
                          for p in listed], [(b"a", 1, 100, GOOD), (b"b", 1, 0, GOOD)])

    def test_rotten_product_reads_padded_only(self):
        self.c.upload(self.image, b"good", b"g" * 5000)
        made = self.c.upload(self.image, b"bad", b"b" * 5000)
        self.shared.stop()
        path = self.shared.image_path(1, self.image)
        with open(path, "r+b") as f:
            f.seek((33 + made["block_offset"]) * 4096 + 17)
            f.write(b"!")
        self.shared.restart()
        c = self.connect(self.shared)
        reply = self.refused(rpc.DATA_LOSS, c, "DataProducts", "Get",
                             {"image": self.image, "name": b"bad"})
        self.assertEqual(reply.reason, "CORRUPT_DATA")
        self.assertEqual(c.product(self.image, b"good"), b"g" * 5000)
        found = c.call("DataProducts", "Get", image=self.image, name=b"bad", padded=True)["product"]
        self.assertEqual((found["state"], found["length"]), (3, 8192))
        got = c.call("DataProducts", "Read", image=self.image, name=b"bad", padded=True,
                     identity=found["identity"], length=MIB)
        want = bytearray(b"b" * 5000 + b"\0" * 3192)
        want[17] = ord("!")
        self.assertEqual(got["data"], bytes(want))
        checked = c.call("Images", "Check", image=self.image)
        self.assertEqual([f["kind"] for f in checked["findings"]], [5])
        self.assertEqual((checked["repaired"], checked["products_good"], checked["products_bad"]),
                         (0, 1, 1))
        c.call("Images", "Check", image=self.image, repair=True)
        self.assertEqual(c.call("Images", "Check", image=self.image)["findings"], [])
        self.refused(rpc.NOT_FOUND, c, "DataProducts", "Get", {"image": self.image, "name": b"bad"})
        c.upload(self.image, b"bad", b"anew")

    def test_delete(self):
        before = self.free_blocks()
        self.c.upload(self.image, b"p", noise(100000))
        self.c.call("DataProducts", "Delete", image=self.image, name=b"p")
        self.assertEqual((self.names(), self.free_blocks()), ([], before))

    def test_many_connections_read_and_replace_one_product(self):
        versions = [noise(100000, n) for n in range(10)]
        self.c.upload(self.image, b"p", versions[0])

        def work(n):
            with self.shared.connect() as c:
                if n == 0:
                    for data in versions:
                        c.upload(self.image, b"p", data, replace=True)
                    return
                for _ in range(15):
                    try:
                        self.assertIn(c.product(self.image, b"p", 30000), versions)
                    except rpc.RpcError as error:
                        self.assertEqual(error.reason, "PRODUCT_CHANGED")

        harness.threads(4, work)
        self.assertEqual(self.c.product(self.image, b"p"), versions[-1])


if __name__ == "__main__":
    harness.main()
