"""Every image of the fixtures, offline and through the daemon, is what their manifest says."""
import gzip
import json
import unittest

import harness

SPACE = harness.FIXTURES / "fixtures" / "space"
# What each error names: what was found, and what was expected.
WORDS = {"magic": ("magic is 0x", "expected 0x53504f53"), "crc": ("crc is 0x", "give 0x"),
         "version": ("version is", "expected 1"), "dp area": ("data product area", "blocks"),
         "size": ("sector size", "bytes and", "expected a power of two")}
READY, DAMAGED = 1, 3


def manifest():
    path = SPACE / "manifest.json"
    if not path.exists():
        raise unittest.SkipTest("no SPB_FIXTURES_DIR")
    return json.loads(path.read_text())


def unpacked(name):
    return gzip.decompress((SPACE / f"{name}.img.gz").read_bytes())


class Fixtures(harness.Case):
    def compare(self, name, want, seen):
        for key, value in want.items():
            self.assertEqual(seen.get(key), value, f"{name}: {key}")

    def explains(self, kind, text):
        for word in WORDS[kind]:
            self.assertIn(word.lower(), text.lower(), f"{kind}: {text}")

    def test_offline(self):
        count = 0
        for name, want in manifest().items():
            with self.subTest(name):
                path = self.file(f"{name}.img", unpacked(name))
                before = path.read_bytes()
                if "error" in want:
                    for command in ("inspect", "check", "param list", "event list", "dp list"):
                        done = harness.run_cli(*command.split(), "--file", path,
                                               code=harness.CORRUPT)
                        self.explains(want["error"], done.err)
                        self.assertIn(str(path), done.err)
                    harness.run_cli("param", "put", 1, "x", "--file", path, code=harness.CORRUPT)
                else:
                    seen = harness.run_cli("inspect", "--file", path, "--json", "--data").json
                    self.compare(name, want, seen)
                    bare = harness.run_cli("inspect", "--file", path, "--json").json
                    self.assertFalse(any("data_hex" in d for d in bare["dps"]))
                    harness.run_cli("inspect", "--file", path)
                self.assertEqual(path.read_bytes(), before, "reading changed it")
                count += 1
        self.assertGreaterEqual(count, 34)

    def test_through_the_daemon(self):
        fixtures = manifest()
        rounds = []  # a daemon serves one image of a uuid
        for name, want in fixtures.items():
            data = unpacked(name)
            tenant = want.get("tenant_id", int.from_bytes(data[6:8], "big"))
            key = (tenant, want.get("uuid", name))
            fitting = [r for r in rounds if key not in r]
            if not fitting:
                rounds.append({})
                fitting = rounds[-1:]
            fitting[0][key] = (name, tenant, data)
        for number, images in enumerate(rounds):
            self.serve(f"d{number}", images.values(), fixtures)

    def serve(self, folder, images, fixtures):
        d = self.daemon(folder, start=False)
        places, before = {}, {}
        for name, tenant, data in images:
            path = d.image_path(tenant, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            places[name], before[path] = tenant, data
        d.start()
        endpoint = ["--endpoint", d.unix]
        with d.connect() as c:
            listed = c.call("Images", "List", all_tenants=True)["images"]
            states = {(i["tenant"], i["name"].decode()): i for i in listed}
            self.assertEqual(set(states), {(t, n) for n, t in places.items()})
            for name, tenant in places.items():
                with self.subTest(name):
                    self.look(c, f"{tenant}/{name}", states[tenant, name], fixtures[name], endpoint)
        d.stop()
        for path, data in before.items():
            self.assertEqual(path.read_bytes(), data, f"serving {path.name} changed it")

    def look(self, c, image, state, want, endpoint):
        if "error" in want:
            self.assertEqual(state["state"], DAMAGED)
            self.explains(want["error"], state["reason"].decode())
            for service, method in (("Params", "List"), ("Images", "Inspect")):
                self.assertEqual(c.ask(service, method, {"image": image}).reason, "IMAGE_DAMAGED")
            shown = harness.run_cli("image", "show", image, *endpoint, code=None)
            self.assertIn(state["reason"].decode(), shown.text + shown.err)
            done = harness.run_cli("inspect", "--image", image, *endpoint, code=None)
            self.assertIn(done.code, (harness.FAILED, harness.CORRUPT))
        else:
            self.assertEqual((state["state"], state["reason"]), (READY, b""))
            seen = harness.run_cli("inspect", "--image", image, *endpoint, "--json",
                                   "--data").json
            self.compare(image, want, seen)

    def test_checks_find_what_is_damaged_and_repair_mends_it(self):
        finds = {"corrupt-param": "param", "corrupt-event": "event", "corrupt-dp-data": "product",
                 "bad-name-dp": "entry", "outside-dp": "entry", "overlap-dp": "overlap",
                 "mixed": None, "empty": None, "params-full": None, "events-wrapped": None,
                 "least": None, "ambiguous-length": None}
        fixtures = manifest()
        for name, kind in finds.items():
            for size in (512, 4096):
                with self.subTest(f"{name}-{size}"):
                    path = self.file("x.img", unpacked(f"{name}-{size}"))
                    before = path.read_bytes()
                    check = ["check", "--file", path, "--json"]
                    done = harness.run_cli(*check, code=harness.CORRUPT if kind else harness.DONE)
                    self.assertEqual(path.read_bytes(), before, "check wrote")
                    if not kind:
                        self.assertEqual(done.json["findings"], [])
                        continue
                    kinds = [f["kind"] for f in done.json["findings"]]
                    self.assertTrue(any(kind in k for k in kinds), kinds)
                    harness.run_cli(*check, "--repair", code=None)
                    left = harness.run_cli(*check, code=None).json["findings"]
                    self.assertFalse([f for f in left if f["repairable"]], left)
                    self.still_there(fixtures[f"{name}-{size}"], harness.dump(path))

    def still_there(self, before, after):
        """Repair took nothing that was good."""
        self.assertEqual(after["params"], before["params"])
        self.assertEqual([e for e in after["events"] if e["code"] != 65535],
                         [e for e in before["events"] if e["code"] != 65535])
        kept, good = ([{k: v for k, v in d.items() if k != "entry"} for d in seen["dps"] if d["ok"]]
                      for seen in (after, before))  # a catalog of one sector closes its gaps
        self.assertEqual(kept, good)

    def test_too_short_and_empty_and_missing_files(self):
        for n, data in enumerate((b"", b"SPOS", b"\0" * 511, b"\0" * 512, b"x" * 100000)):
            path = self.file(f"f{n}", data)
            done = harness.run_cli("inspect", "--file", path, code=harness.CORRUPT)
            self.assertIn(str(path), done.err)
        harness.run_cli("inspect", "--file", self.dir / "none", code=harness.ABSENT)
        done = harness.run_cli("inspect", "--file", self.dir, code=harness.FAILED)
        self.assertIn(str(self.dir), done.err)

    def test_sector_size_by_hand(self):
        manifest()
        data = unpacked("mixed-512")
        path = self.file("padded.img", data + b"\0" * (len(data) // 2))
        done = harness.run_cli("inspect", "--file", path, code=harness.CORRUPT)
        self.assertIn("sector size", done.err)
        seen = harness.run_cli("inspect", "--file", path, "--sector-size", 512, "--json").json
        self.assertEqual(seen["params"], manifest()["mixed-512"]["params"])


if __name__ == "__main__":
    harness.main()
