"""Images that we wrote, read by the independent tool, and images that it wrote, read by us."""
import json
import random
import subprocess
import sys

import harness
from crc import crc32c
from targets import EPOCH, UUID, OnDaemon, OnFile

SIZES = [512 << n for n in range(8)]
VALUES = [b"", b"text", b"\0", b"\xff" * 240, "é€😀".encode(), b"with\nnewline", bytes(range(240))]


class WrittenByUs:
    """What was put is what the independent reader finds."""

    def one_size(self, size):
        rng = random.Random(size)
        t = self.target(f"s{size}-", blocks=33 + 1 + 16 + 20000 // size, size=size)
        params = {}
        for n, value in enumerate(VALUES * 2):
            number = rng.choice([1, 2, 3, 0, 0xffffffff])
            path = self.file(f"v{size}", value)
            if n % 2:
                t.cli("param put", number, f"@{path}")
            else:
                t.cli("param put", number, "-", input=value)
            params[number] = value
        t.cli("param put 77 gone")
        t.cli("param delete 77")
        events = []
        for n in range(7):
            payload, severity, code = rng.randbytes(rng.randrange(65)), rng.randrange(256), n * 999
            t.cli("event append -", "--severity", severity, "--code", code, "--time", EPOCH + n,
                  input=payload)
            events.append({"index": n, "timestamp": n, "severity": severity, "code": code,
                           "payload_hex": payload.hex()})
        products = {}
        for n, length in enumerate((0, 1, size - 1, size, size + 1)):
            data = rng.randbytes(length) if n != 3 else b"\xff" * 4 + b"\0" * (size - 4)
            t.cli("dp put", f"p{n}", self.file(f"d{size}", data), "--class", n, "--priority", n)
            products[f"p{n}"] = data
        t.cli("dp put p1", "-", "--replace", "--class", 9, input=b"replaced")
        t.cli("dp delete p0")
        products["p1"] = b"replaced"
        del products["p0"]
        self.compare(t, size, params, events, products)

    def compare(self, t, size, params, events, products):
        seen = harness.dump(t.path, size)
        ours = t.json("inspect --data")
        for key, value in seen.items():
            self.assertEqual(ours.get(key), value, f"S={size}: {key}")
        self.assertEqual({p["id"]: bytes.fromhex(p["value_hex"]) for p in seen["latest_params"]},
                         params)
        self.assertEqual(seen["events"], events)
        self.assertEqual({d["name"]: bytes.fromhex(d["data_hex"]) for d in seen["dps"]}, products)
        self.assertEqual((seen["corrupt_param_slots"], seen["corrupt_event_indexes"],
                          seen["crc_ok"], seen["uuid"], seen["epoch"], seen["sector_size"]),
                         ([], [], True, t.uuid, EPOCH, size))
        self.assertEqual({d["name"]: d["class"] for d in seen["dps"]}, {
            "p1": 9, "p2": 2, "p3": 3, "p4": 4})
        for name, data in products.items():
            self.assertEqual(t.cli("dp get", name, "-").out, data)

    def test_every_sector_size(self):
        harness.spaceimg()
        harness.threads(2, lambda n: [self.one_size(s) for s in SIZES[n::2]])

    def test_event_ring_and_parameter_store_run_over(self):
        t = self.target(blocks=64)
        for n in range(100):
            t.cli("event append", f"e{n}", "--severity", "info", "--code", n, "--time", EPOCH + n)
        for n in range(70):
            t.cli("param put", n % 5, f"v{n}")
        seen = harness.dump(t.path, 512)
        self.assertEqual([e["index"] for e in seen["events"]], list(range(16, 100)))
        self.assertEqual([bytes.fromhex(p["value_hex"]) for p in seen["latest_params"]],
                         [b"v%d" % n for n in range(65, 70)])
        self.assertEqual([p["generation"] for p in seen["latest_params"]], [14] * 5)
        ours = t.json("inspect --data")
        for key, value in seen.items():
            self.assertEqual(ours[key], value, key)


class OfflineWritten(WrittenByUs, OnFile, harness.Case):
    pass


class DaemonWritten(WrittenByUs, OnDaemon, harness.Case):
    pass


def random_spec(rng, size):
    """An image that this project would not have written so: slots anywhere, wrapped rings."""
    per = size // 252
    slots = rng.sample(range(per * 16), min(per * 16, rng.randrange(30)))
    ids = [rng.randrange(1 << 32) for _ in range(6)]
    params, generations = [], {}
    for slot in sorted(slots):
        number = rng.choice(ids)
        generation = generations[number] = generations.get(number, 0) + rng.randrange(1, 900)
        params.append({"slot": slot, "id": number, "generation": generation,
                       "value_hex": rng.randbytes(rng.choice([0, 1, 100, 240])).hex()})
    rng.shuffle(params)
    capacity = 15 * (size // 76)
    events = [{"timestamp": rng.randrange(1 << 32), "severity": rng.randrange(256),
               "code": rng.randrange(1 << 16),
               "payload_hex": rng.randbytes(rng.randrange(65)).hex()}
              for _ in range(min(200, capacity))]
    dps = [{"class": rng.randrange(1 << 16), "priority": rng.randrange(256),
            "name": f"product {n} é", "data_hex": rng.choice([
                rng.randbytes(rng.randrange(3 * size)), b"\0" * rng.randrange(2 * size),
                b"\xff" * 4 + b"\0" * rng.randrange(2 * size)]).hex()}
           for n in range(rng.randrange(min(6, size // 80) + 1))]
    return {"sector_size": size, "total_blocks": 64, "tenant_id": rng.randrange(1 << 16),
            "epoch": rng.randrange(1 << 33), "uuid": rng.randbytes(16).hex(), "params": params,
            "events": events, "dps": dps,
            "first_event_index": rng.choice([0, 5, capacity * 3 + 1, 1 << 20])}


class WrittenByOthers(harness.Case):
    def build(self, spec, name="built"):
        path = self.dir / f"{name}.img"
        source = self.file(f"{name}.json", json.dumps(spec).encode())
        subprocess.run([sys.executable, harness.FIXTURES / "tools" / "spaceimg.py", "build",
                        source, path], check=True, timeout=harness.WAIT_S)
        return path

    def same(self, path, size):
        seen = harness.dump(path, size)
        ours = harness.run_cli("inspect", "--file", path, "--json", "--data").json
        for key, value in seen.items():
            self.assertEqual(ours.get(key), value, key)
        return seen

    def test_random_images(self):
        harness.spaceimg()
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        for round_ in range(16):
            size = SIZES[round_ % 8]
            spec = random_spec(rng, size)
            with self.subTest(seed=seed, round=round_, size=size):
                path = self.build(spec)
                self.same(path, size)
                harness.run_cli("check", "--file", path, code=None)
                harness.run_cli("param", "put", 5, "ours", "--file", path)
                harness.run_cli("event", "append", "ours", "--severity", 1, "--code", 1, "--time",
                                spec["epoch"] + 7, "--file", path)
                harness.run_cli("dp", "put", "ours", "-", "--file", path, input=b"ours",
                                code=None)
                self.ours_beside_theirs(spec, self.same(path, size))

    def ours_beside_theirs(self, spec, after):
        latest = {p["id"]: p for p in after["latest_params"]}
        self.assertEqual(latest[5]["value_hex"], b"ours".hex())
        newest = {}
        for p in spec["params"]:
            if p["generation"] > newest.get(p["id"], p)["generation"] or p["id"] not in newest:
                newest[p["id"]] = p
        for number, p in newest.items():
            self.assertEqual((latest[number]["generation"], latest[number]["value_hex"]),
                             (p["generation"], p["value_hex"]))
        self.assertEqual((after["events"][-1]["payload_hex"], after["events"][-1]["timestamp"]),
                         (b"ours".hex(), 7))
        kept = {d["name"]: d["data_hex"] for d in after["dps"]}
        for d in spec["dps"]:
            self.assertEqual(kept[d["name"]], d["data_hex"])

    def test_crossing_slots_at_4096(self):
        """Slots and catalog entries that cross a sector: the original fills them, we only read."""
        harness.spaceimg()
        slots = [2, 4, 6, 18]  # 2: 504..756 crosses
        params = [{"slot": s, "id": s, "generation": 3, "value_hex": "ab%02x" % s} for s in slots]
        dps = [{"class": n, "priority": 0, "name": f"n{n}", "data_hex": "%02x" % n * 10}
               for n in range(14)]
        path = self.build({"sector_size": 4096, "total_blocks": 64, "tenant_id": 1, "epoch": 0,
                           "uuid": UUID, "params": params, "dps": dps})
        self.same(path, 4096)
        for slot in slots:
            harness.run_cli("param", "put", slot, "new", "--file", path)
        for n in (6, 12, 13):
            harness.run_cli("dp", "put", f"n{n}", "-", "--replace", "--file", path, input=b"new")
        harness.run_cli("dp", "delete", "n5", "--file", path)
        seen = self.same(path, 4096)
        self.assertEqual({p["id"]: (p["generation"], p["value_hex"])
                          for p in seen["latest_params"]},
                         {s: (4, b"new".hex()) for s in slots})
        self.assertEqual({d["name"]: d["data_hex"] for d in seen["dps"]},
                         {f"n{n}": b"new".hex() if n in (6, 12, 13) else "%02x" % n * 10
                          for n in range(14) if n != 5})
        for p in seen["params"]:  # nothing of ours crosses a sector
            at = p["slot"] % 16 * 252
            self.assertTrue(p["generation"] == 3 or at // 512 == (at + 251) // 512, p)
        for d in seen["dps"]:
            at = d["entry"] * 80
            self.assertTrue(d["data_hex"] != b"new".hex() or at // 512 == (at + 79) // 512, d)

    def test_crc_of_the_tool_is_ours(self):
        self.assertEqual(harness.spaceimg().crc32c(b"spaceblock" * 50), crc32c(b"spaceblock" * 50))


if __name__ == "__main__":
    harness.main()
