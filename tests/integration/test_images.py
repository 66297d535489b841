"""Images and their tenants over RPC: create, list, get, delete, damaged and misplaced files."""
import gzip
import uuid

import harness
import rpc

READY, READ_ONLY, DAMAGED, UNAVAILABLE = 1, 2, 3, 4
BAD_NAMES = {"empty": b"", "65 bytes": b"n" * 65, "slash": b"a/b", "dot first": b".hidden",
             "dots": b"..", "NUL": b"a\0b", "bad UTF-8": b"a\xff", "space": b"a b",
             "not ASCII": "é".encode(), "newline": b"a\n"}


def calls_on(image):
    """Every method that names an image, with a request that is right but for the image."""
    target = {"image": rpc.image_ref(image), "name": b"p"}
    return [
        ("Images", "Get", {"image": image}), ("Images", "Inspect", {"image": image}),
        ("Images", "Check", {"image": image}),
        ("Images", "Check", {"image": image, "repair": True}),
        ("Images", "Defrag", {"image": image}), ("Images", "Reopen", {"image": image}),
        ("Images", "Delete", {"image": image}),
        ("Params", "Put", {"image": image, "id": 1, "value": b"v"}),
        ("Params", "BatchPut", {"image": image, "puts": [{"id": 1}]}),
        ("Params", "Get", {"image": image, "id": 1}), ("Params", "List", {"image": image}),
        ("Params", "History", {"image": image, "id": 1}),
        ("Params", "Delete", {"image": image, "id": 1}),
        ("Events", "Append", {"image": image, "events": [{"code": 1}]}),
        ("Events", "List", {"image": image}),
        ("DataProducts", "List", {"image": image}),
        ("DataProducts", "Get", {"image": image, "name": b"p"}),
        ("DataProducts", "Read", {"image": image, "name": b"p", "identity": b"i" * 15,
                                  "length": 1}),
        ("DataProducts", "Delete", {"image": image, "name": b"p"}),
        ("Uploads", "Start", {"product": target, "size": 1}),
    ]


class Images(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)

    def listed(self, **how):
        return [(i["tenant"], i["name"].decode()) for i in
                self.c.call("Images", "List", **how)["images"]]

    def test_create_get_delete(self):
        want = uuid.uuid4().bytes
        made = self.c.create("a", blocks=100, sector_size=4096, epoch=1700000000, uuid=want)
        self.assertEqual(made, {"tenant": 1, "name": b"a", "state": READY, "reason": b"",
                                "sector_size": 4096, "total_blocks": 100, "epoch": 1700000000,
                                "uuid": want})
        path = self.d.image_path(1, "a")
        self.assertEqual(path.stat().st_size, 409600)
        self.assertGreaterEqual(path.stat().st_blocks * 512, 409600, "space is not allocated")
        self.assertEqual(self.c.call("Images", "Get", image="a")["image"], made)
        found = self.c.call("Images", "Inspect", image="a")
        self.assertEqual((found["dp_start"], found["dp_size"], found["param_slots"],
                          found["event_capacity"], found["event_window"],
                          found["product_entries"], found["free_blocks"]),
                         (33, 67, 256, 795, 742, 51, 66))
        self.refused(rpc.EXISTS, self.c, "Images", "Create", {"image": "a", "total_blocks": 64})
        self.c.call("Images", "Delete", image="a")
        self.assertFalse(path.exists())
        self.refused(rpc.NOT_FOUND, self.c, "Images", "Get", {"image": "a"})
        self.assertNotEqual(self.c.create("a")["uuid"], want)

    def test_created_image_is_a_good_one_for_others(self):
        for size in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536):
            self.c.create(f"s{size}", blocks=40, sector_size=size, epoch=5)
            seen = harness.dump(self.d.image_path(1, f"s{size}"))
            self.assertEqual((seen["sector_size"], seen["total_blocks"], seen["tenant_id"],
                              seen["epoch"], seen["crc_ok"]), (size, 40, 1, 5, True))

    def test_sizes(self):
        for blocks in (0, 1, 32):
            reply = self.refused(rpc.INVALID, self.c, "Images", "Create",
                                 {"image": "a", "total_blocks": blocks})
            self.assertEqual(reply.violations(), ["total_blocks"])
            self.assertIn("33", reply.message)
        for size in (1, 256, 511, 513, 1000, 131072, 1 << 31):
            reply = self.refused(rpc.INVALID, self.c, "Images", "Create",
                                 {"image": "a", "total_blocks": 64, "sector_size": size})
            self.assertEqual(reply.violations(), ["sector_size"])
        for bad in (b"u", b"u" * 15, b"u" * 17):
            reply = self.refused(rpc.INVALID, self.c, "Images", "Create",
                                 {"image": "a", "total_blocks": 64, "uuid": bad})
            self.assertEqual(reply.violations(), ["uuid"])
        reply = self.refused(rpc.EXHAUSTED, self.c, "Images", "Create",  # 256 TiB
                             {"image": "a", "total_blocks": 0xffffffff, "sector_size": 65536})
        self.assertEqual(reply.reason, "NO_SPACE")
        self.assertEqual(self.listed(), [])
        self.assertEqual(list((self.d.data_dir / "images").rglob("*a*")), [], "something is left")
        made = self.c.create("a", blocks=33)
        self.assertEqual(made["total_blocks"], 33)
        self.c.put("a", 1, b"v")
        reply = self.refused(rpc.EXHAUSTED, self.c, "Uploads", "Start",
                             {"product": {"image": {"name": b"a"}, "name": b"p"}, "size": 1})
        self.assertEqual(self.c.call("Images", "Inspect", image="a")["dp_size"], 0)

    def test_names(self):
        for good in (b"n" * 64, b"a.b", b"-", b"_", b"A-Z_0.9", b"9", b"a..b", b"x.img"):
            self.c.create({"name": good})
            self.assertEqual(self.c.call("Images", "Get", image=good)["image"]["name"], good)
        for what, bad in BAD_NAMES.items():
            for service, method, fields in calls_on({"name": bad}) + [
                    ("Images", "Create", {"image": {"name": bad}, "total_blocks": 64})]:
                with self.subTest(f"{service}.{method} {what}"):
                    reply = self.refused(rpc.INVALID, self.c, service, method, fields)
                    self.assertTrue(reply.violations()[0].endswith("image.name"), reply)
        outside = [p for p in self.dir.rglob("*") if "hidden" in p.name]
        self.assertEqual(outside, [])

    def test_request_id_is_a_uuid_in_every_changing_call(self):
        self.c.create("a")
        good = "123e4567-e89b-12d3-a456-426614174000"
        changing = [(s, m, f) for s, m, f in calls_on("a") if m in (
            "Defrag", "Reopen", "Delete", "Put", "BatchPut", "Append", "Start") or f.get("repair")]
        changing += [("Images", "Create", {"image": "b", "total_blocks": 64}),
                     ("Uploads", "Finish", {"upload_id": b"u" * 16}),
                     ("Uploads", "Abort", {"upload_id": b"u" * 16})]
        self.assertEqual(len(changing), 13)
        for service, method, fields in changing:
            for bad in ("", "1", good[:-1], good + "0", good.replace("-", "_"), "g" + good[1:],
                        good.replace("-", "") + "0000", " " + good[1:]):
                with self.subTest(f"{service}.{method} {bad}"):
                    reply = self.refused(rpc.INVALID, self.c, service, method,
                                         dict(fields, request_id=bad))
                    self.assertEqual(reply.violations(), ["request_id"])
        self.assertEqual(self.c.put("a", 1, b"v", request_id=good), 1)
        self.c.put("a", 2, b"v", request_id=good.upper().replace("4", "5"))

    def test_pages(self):
        self.assertEqual(self.c.call("Images", "List"), {"images": [], "next_page_token": b""})
        names = sorted(f"i{n:02}" for n in range(11))
        for name in reversed(names):
            self.c.create(name, blocks=33)
        for name in ("x", "y"):
            self.c.create(f"7/{name}", blocks=33)
        self.c.create("0/zero", blocks=33)
        self.assertEqual(self.listed(), [(1, n) for n in names])
        self.assertEqual(self.listed(tenant=7), [(7, "x"), (7, "y")])
        self.assertEqual(self.listed(tenant=0), [(0, "zero")])
        self.assertEqual(self.listed(tenant=9), [])
        everything = [(0, "zero")] + [(1, n) for n in names] + [(7, "x"), (7, "y")]
        for size in (1, 3, 13, 14, 15, 1000):
            found, token = [], b""
            while True:
                page = self.c.call("Images", "List", all_tenants=True, page_size=size,
                                   page_token=token)
                self.assertLessEqual(len(page["images"]), size)
                found += [(i["tenant"], i["name"].decode()) for i in page["images"]]
                token = page["next_page_token"]
                if not token:
                    break
                self.assertEqual(len(page["images"]), size)
            self.assertEqual(found, everything)

    def test_page_goes_on_where_an_image_is_gone(self):
        for name in "abcd":
            self.c.create(name, blocks=33)
        token = self.c.call("Images", "List", page_size=2)["next_page_token"]
        for name in "bc":
            self.c.call("Images", "Delete", image=name)
        self.assertEqual(self.listed(page_token=token), [(1, "d")])

    def test_bad_pages(self):
        self.c.create("a")
        for fields in ({"page_size": 1001}, {"page_size": 0xffffffff}, {"tenant": 65536},
                       {"page_token": b"g"}, {"page_token": b"\0" * 500}):
            reply = self.refused(rpc.INVALID, self.c, "Images", "List", fields)
            self.assertEqual(reply.violations(), [next(iter(fields))])

    def test_one_of_many_creators_of_a_name_wins(self):
        codes = []

        def work(n):
            with self.d.connect() as c:
                for k in range(5):
                    codes.append((k, c.ask("Images", "Create", {"image": f"n{k}",
                                                                "total_blocks": 33}).code))

        harness.threads(6, work)
        for k in range(5):
            self.assertEqual(sorted(code for name, code in codes if name == k),
                             [rpc.OK] + [rpc.EXISTS] * 5)

    def test_calls_around_a_delete(self):
        self.c.create("a")
        calls = [("Params", "Put", {"image": "a", "id": n}) for n in range(10)]
        calls.append(("Images", "Delete", {"image": "a"}))
        calls += [("Params", "Put", {"image": "a", "id": n}) for n in range(10)]
        streams = [self.c.start(*call) for call in calls]
        codes = [self.c.wait(s).code for s in streams]
        self.assertEqual(codes[:11], [rpc.OK] * 11)
        self.assertEqual(codes[11:], [rpc.NOT_FOUND] * 10)
        self.c.create("a")
        self.assertEqual(self.c.call("Params", "List", image="a")["params"], [])

    # ---- tenants

    def test_images_live_in_their_tenants_folder(self):
        self.c.create("7/x", epoch=7)
        self.c.create("x", epoch=1)
        for tenant in (1, 7):
            self.assertEqual(harness.dump(self.d.image_path(tenant, "x"))["tenant_id"], tenant)
        self.c.put("7/x", 1, b"seven")
        self.c.put("x", 1, b"one")
        self.assertEqual((self.c.get("7/x", 1), self.c.get("1/x", 1), self.c.get("x", 1)),
                         (b"seven", b"one", b"one"))
        self.c.call("Images", "Delete", image="x")
        self.assertEqual(self.c.get("7/x", 1), b"seven")

    def test_absent_and_anothers_image_are_the_same_answer(self):
        absent = {}
        for service, method, fields in calls_on("x"):
            reply = self.refused(rpc.NOT_FOUND, self.c, service, method, fields)
            absent[service, method, bool(fields.get("repair"))] = reply.raw
        self.c.create("7/x")
        self.c.put("7/x", 1, b"v")
        for service, method, fields in calls_on("x"):
            reply = self.refused(rpc.NOT_FOUND, self.c, service, method, fields)
            self.assertEqual(reply.raw, absent[service, method, bool(fields.get("repair"))])
        self.assertEqual(self.c.get("7/x", 1), b"v")

    def test_tenant_numbers(self):
        self.c.create("65535/a", blocks=33)
        for tenant in (65536, 0xffffffff):
            reply = self.refused(rpc.INVALID, self.c, "Images", "Create",
                                 {"image": {"tenant": tenant, "name": b"a"}, "total_blocks": 64})
            self.assertEqual(reply.violations(), ["image.tenant"])

    # ---- what lies in the directory at the start

    def test_superblock_of_another_tenant_is_refused_with_the_reason(self):
        self.c.create("7/x")
        self.c.create("good")
        self.c.put("good", 1, b"v")
        self.d.stop()
        data = self.d.image_path(7, "x").read_bytes()
        self.d.image_path(1, "stray").write_bytes(data)
        with self.connect(self.d.restart()) as c:
            image = c.call("Images", "Get", image="stray")["image"]
            self.assertEqual(image["state"], DAMAGED)
            self.assertRegex(image["reason"].decode(), r"\b7\b")
            reply = self.refused(rpc.DATA_LOSS, c, "Params", "Get", {"image": "stray", "id": 1})
            self.assertEqual(reply.reason, "IMAGE_DAMAGED")
            self.refused(rpc.DATA_LOSS, c, "Params", "Put", {"image": "stray", "id": 1})
            self.assertEqual(c.get("good", 1), b"v")
        self.assertEqual(self.d.image_path(1, "stray").read_bytes(), data)

    def test_files_that_are_no_images(self):
        self.c.create("good")
        self.d.stop()
        folder = self.d.data_dir / "images" / "1"
        (folder / "empty.img").write_bytes(b"")
        (folder / "short.img").write_bytes(b"SPOS")
        (folder / "text.img").write_bytes(b"hello, world\n" * 4000)
        (folder / "zeros.img").write_bytes(b"\0" * 65536)
        (folder / "dir.img").mkdir()
        (folder / "loose.img").symlink_to("/nonexistent")
        (folder / "notes.txt").write_text("not ours")
        (folder / "bad name.img").write_bytes(b"x")
        (folder / ".hidden.img").write_bytes(b"x")
        (self.d.data_dir / "images" / "notanumber").mkdir()
        (self.d.data_dir / "images" / "99999").mkdir()
        with self.connect(self.d.restart()) as c:
            images = {i["name"]: i for i in c.call("Images", "List", all_tenants=True)["images"]}
            self.assertEqual(images[b"good"]["state"], READY)
            for name in (b"empty", b"short", b"text", b"zeros"):
                self.assertEqual(images[name]["state"], DAMAGED, images[name])
                self.assertTrue(images[name]["reason"])
            self.assertTrue({b"good", b"empty", b"short", b"text", b"zeros"} <= set(images))
            self.assertFalse({b"notes", b"bad name", b".hidden", b"notes.txt"} & set(images))
            c.put("good", 1, b"v")

    def test_stray_files_of_a_killed_create_do_not_hinder(self):
        self.c.create("a")
        self.d.kill9()
        stray = self.d.data_dir / "images" / "1" / ".b.img.tmp-123"
        stray.write_bytes(b"half")
        with self.connect(self.d.restart()) as c:
            c.create("b")
            self.assertEqual([i["name"] for i in c.call("Images", "List")["images"]], [b"a", b"b"])

    def test_damaged_fixture_can_be_deleted_and_made_anew(self):
        path = harness.FIXTURES / "fixtures" / "space" / "bad-crc-512.img.gz"
        if not path.exists():
            self.skipTest("no SPB_FIXTURES_DIR")
        self.d.stop()
        self.d.image_path(1, "x").parent.mkdir(parents=True, exist_ok=True)
        self.d.image_path(1, "x").write_bytes(gzip.decompress(path.read_bytes()))
        with self.connect(self.d.restart()) as c:
            self.assertEqual(c.call("Images", "Get", image="x")["image"]["state"], DAMAGED)
            self.refused(rpc.EXISTS, c, "Images", "Create", {"image": "x", "total_blocks": 64})
            c.call("Images", "Delete", image="x")
            self.assertEqual(c.create("x")["state"], READY)


if __name__ == "__main__":
    harness.main()
