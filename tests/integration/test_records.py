"""Parameters and events over RPC: order, generations, limits, cursors, full stores."""
import time

import harness
import rpc

EPOCH = 1700000000


class Records(harness.SharedCase):
    def setUp(self):
        super().setUp()
        self.image = self.fresh()

    def fresh(self, size=512, blocks=64):
        return super().fresh(blocks=blocks, sector_size=size, epoch=EPOCH)

    def path(self, image=None):
        return self.shared.image_path(1, image or self.image)

    def invalid(self, service, method, field, **fields):
        reply = self.refused(rpc.INVALID, self.c, service, method, dict(fields, image=self.image))
        self.assertEqual(reply.violations(), [field], reply)
        return reply

    # ---- parameters

    def test_put_get_list_history_delete(self):
        c, i = self.c, self.image
        self.assertEqual([c.put(i, 42, b"v%d" % n) for n in range(3)], [1, 2, 3])
        self.assertEqual(c.put(i, 0xffffffff, b"\0\xff"), 1)
        self.assertEqual(c.put(i, 0, b""), 1)
        got = c.call("Params", "Get", image=i, id=42)
        self.assertEqual((got["param"]["generation"], got["param"]["value"], got["newer_corrupt"]),
                         (3, b"v2", 0))
        listed = c.call("Params", "List", image=i)
        self.assertEqual([(p["id"], p["generation"], p["value"]) for p in listed["params"]],
                         [(0, 1, b""), (42, 3, b"v2"), (0xffffffff, 1, b"\0\xff")])
        self.assertEqual(listed["corrupt_only_ids"], [])
        history = c.call("Params", "History", image=i, id=42)["entries"]
        self.assertEqual([(p["generation"], p["value"]) for p in history],
                         [(3, b"v2"), (2, b"v1"), (1, b"v0")])
        c.call("Params", "Delete", image=i, id=42)
        for method in ("Get", "History", "Delete"):
            self.refused(rpc.NOT_FOUND, c, "Params", method, {"image": i, "id": 42})
        self.assertEqual(c.put(i, 42, b"again"), 1)

    def test_value_lengths(self):
        self.c.put(self.image, 1, b"v" * 240)
        reply = self.invalid("Params", "Put", "value", id=1, value=b"v" * 241)
        self.assertIn("241", reply.message)
        self.assertIn("240", reply.message)
        self.assertEqual(self.c.get(self.image, 1), b"v" * 240)

    def test_expected_generation(self):
        def put(expected):
            return self.c.ask("Params", "Put", {"image": self.image, "id": 1, "value": b"x",
                                                "expected_generation": expected})

        self.assertEqual(put(1).reason, "GENERATION_MISMATCH")
        self.assertEqual(put(0).body["generation"], 1)
        self.assertEqual((put(0).code, put(2).code), (rpc.ABORTED, rpc.ABORTED))
        self.assertEqual(put(1).body["generation"], 2)
        self.invalid("Params", "Put", "expected_generation", id=1, expected_generation=65536)
        reply = self.refused(rpc.ABORTED, self.c, "Params", "Delete",
                             {"image": self.image, "id": 1, "expected_generation": 1})
        self.assertEqual(reply.reason, "GENERATION_MISMATCH")
        self.c.call("Params", "Delete", image=self.image, id=1, expected_generation=2)

    def test_batch_is_all_or_nothing(self):
        c, i = self.c, self.image
        c.put(i, 2, b"old")
        made = c.call("Params", "BatchPut", image=i, puts=[
            {"id": 3, "value": b"c"}, {"id": 2, "value": b"b", "expected_generation": 1},
            {"id": 1, "value": b"a", "expected_generation": 0}])
        self.assertEqual(made["generations"], [1, 2, 1])
        before = self.path().read_bytes()
        self.refused(rpc.ABORTED, c, "Params", "BatchPut", {"image": i, "puts": [
            {"id": 9, "value": b"new"}, {"id": 2, "value": b"x", "expected_generation": 7}]})
        for puts in ([], [{"id": 1}, {"id": 1}], [{"id": 5, "value": b"v" * 241}],
                     [{"id": n} for n in range(257)]):
            reply = c.ask("Params", "BatchPut", {"image": i, "puts": puts})
            self.assertEqual(reply.code, rpc.INVALID, reply)
        reply = c.ask("Params", "BatchPut", {"image": i, "puts": [{"id": n} for n in range(30)]})
        self.assertEqual((reply.code, reply.reason), (rpc.OK, ""))
        reply = c.ask("Params", "BatchPut",
                      {"image": i, "puts": [{"id": n} for n in range(100, 103)]})
        self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "NO_SPACE"))
        self.assertNotEqual(before, self.path().read_bytes())
        self.assertEqual(len(c.call("Params", "List", image=i)["params"]), 30)

    def test_full_store(self):
        c, i = self.c, self.image
        for number in range(32):
            c.put(i, number, b"v%d" % number)
        before = self.path().read_bytes()
        reply = self.refused(rpc.EXHAUSTED, c, "Params", "Put", {"image": i, "id": 32})
        self.assertEqual(reply.reason, "NO_SPACE")
        self.assertIn("32", reply.message)
        self.assertEqual(self.path().read_bytes(), before)
        for number in range(32):
            self.assertEqual(c.put(i, number, b"w"), 2)
        c.call("Params", "Delete", image=i, id=5)
        self.assertEqual(c.put(i, 32, b"now"), 1)
        self.assertEqual(len(c.call("Params", "List", image=i)["params"]), 32)

    def test_generation_wraps_from_65535_to_1(self):
        tool = harness.spaceimg()
        self.shared.stop()
        try:
            spec = {"sector_size": 512, "total_blocks": 64, "tenant_id": 1, "epoch": EPOCH,
                    "uuid": "00112233445566778899aabbccddeeff", "events": [], "params": [
                        {"slot": 3, "id": 8, "generation": 65534, "value_hex": "aa"},
                        {"slot": 4, "id": 8, "generation": 65535, "value_hex": "bb"}]}
            tool.build(spec, self.path("wrap"))
        finally:
            self.shared.restart()
        with self.shared.connect() as c:
            self.assertEqual(c.get("wrap", 8), b"\xbb")
            self.assertEqual([c.put("wrap", 8, b"n%d" % n) for n in range(2)], [1, 2])
            self.assertEqual(c.get("wrap", 8), b"n1")

    def test_unknown_ids(self):
        for method in ("Get", "History", "Delete"):
            reply = self.refused(rpc.NOT_FOUND, self.c, "Params", method,
                                 {"image": self.image, "id": 77})
            self.assertEqual(reply.reason, "NOT_FOUND")
            self.assertIn("77", reply.message)

    # ---- events

    def test_append_and_list(self):
        c, i = self.c, self.image
        before = int(time.time())
        self.assertEqual(c.append(i, b"a", b"b", code=7, severity=2), 0)
        self.assertEqual(c.append(i, b"c" * 64, code=65535, severity=255, time=EPOCH), 2)
        got = c.events(i)
        self.assertEqual([(e["index"], e["severity"], e["code"], e["payload"])
                          for e in got["events"]],
                         [(0, 2, 7, b"a"), (1, 2, 7, b"b"), (2, 255, 65535, b"c" * 64)])
        self.assertTrue(before <= got["events"][0]["timestamp"] + EPOCH <= time.time() + 1)
        self.assertEqual(got["events"][2]["timestamp"], 0)
        self.assertEqual((got["pointer"], got["skipped"], got["reset"]), (3, 0, 0))
        newest = c.events(i, limit=2)["events"]
        self.assertEqual([e["index"] for e in newest], [1, 2])
        self.assertEqual([e["index"] for e in c.events(i, severities=[255])["events"]], [2])
        self.assertEqual([e["index"] for e in c.events(i, codes=[7], limit=1)["events"]], [1])
        self.assertEqual(c.events(i, codes=[7], severities=[255])["events"], [])

    def test_event_limits(self):
        c, i = self.c, self.image

        def bad(field, **event):
            self.invalid("Events", "Append", field, events=[{"code": 1}, event])

        bad("events[1].payload", payload=b"p" * 65)
        bad("events[1].severity", severity=256)
        bad("events[1].code", code=65536)
        bad("events[1].time", time=EPOCH - 1)
        bad("events[1].time", time=-1)
        bad("events[1].time", time=EPOCH + (1 << 32))
        bad("events[1].time", time=(1 << 63) - 1)
        self.invalid("Events", "Append", "events", events=[])
        self.assertEqual(c.events(i)["pointer"], 0)
        c.append(i, b"p" * 64, time=EPOCH + (1 << 32) - 1)
        self.assertEqual(c.events(i)["events"][0]["timestamp"], (1 << 32) - 1)
        reply = c.ask("Events", "Append", {"image": i, "events": [{"code": 1}] * 85})
        self.assertIn(reply.code, (rpc.EXHAUSTED, rpc.INVALID))
        self.assertIn("84", reply.message)
        self.assertEqual(c.append(i, *[b"%d" % n for n in range(84)]), 1)
        got = c.events(i)
        self.assertEqual([e["payload"] for e in got["events"]], [b"%d" % n for n in range(84)])
        self.invalid("Events", "List", "limit", limit=16385)

    def test_ring_goes_round(self):
        c, i = self.c, self.image
        for first in range(0, 300, 60):
            c.append(i, *[b"%d" % n for n in range(first, first + 60)])
        got = c.events(i)
        self.assertEqual([e["index"] for e in got["events"]], list(range(216, 300)))
        self.assertEqual([e["payload"] for e in got["events"]],
                         [b"%d" % n for n in range(216, 300)])
        seen = harness.dump(self.path())
        self.assertEqual([e["index"] for e in seen["events"]], list(range(216, 300)))

    def test_cursor_goes_on_and_counts_what_it_skipped(self):
        c, i = self.c, self.image
        empty = c.events(i)["cursor"]
        self.assertEqual(c.events(i, cursor=empty)["events"], [])
        c.append(i, b"0", b"1", b"2")
        got = c.events(i, cursor=empty, limit=2)
        self.assertEqual(([e["index"] for e in got["events"]], got["skipped"]), ([0, 1], 0))
        again = c.events(i, cursor=got["cursor"])
        self.assertEqual([e["index"] for e in again["events"]], [2])
        self.assertEqual(c.events(i, cursor=again["cursor"])["events"], [])
        for _ in range(4):
            c.append(i, *[b"x"] * 50)
        late = c.events(i, cursor=again["cursor"], limit=10)  # 203 written, 84 of them kept
        self.assertEqual((late["skipped"], late["reset"], late["events"][0]["index"]),
                         (203 - 84 - 3, 0, 119))
        self.assertEqual(len(late["events"]), 10)
        rest = c.events(i, cursor=late["cursor"])
        self.assertEqual((rest["events"][0]["index"], rest["skipped"]), (129, 0))

    def test_cursor_with_a_filter_looks_at_every_event_once(self):
        c, i = self.c, self.image
        start = c.events(i)["cursor"]
        for code in (1, 2, 1, 3, 1):
            c.append(i, b"e", code=code)
        got = c.events(i, cursor=start, codes=[1], limit=2)
        self.assertEqual([e["index"] for e in got["events"]], [0, 2])
        got = c.events(i, cursor=got["cursor"], codes=[1], limit=2)
        self.assertEqual([e["index"] for e in got["events"]], [4])
        self.assertEqual(c.events(i, cursor=got["cursor"])["events"], [])

    def test_cursor_of_another_life_is_reset(self):
        c, i = self.c, self.image
        c.append(i, b"0", b"1")
        cursor = c.events(i)["cursor"]
        c.call("Images", "Delete", image=i)
        c.create(i)
        c.append(i, b"new")
        got = c.events(i, cursor=cursor)
        self.assertEqual((got["reset"], [e["payload"] for e in got["events"]]), (1, [b"new"]))
        self.assertEqual(c.events(i, cursor=got["cursor"])["reset"], 0)
        other = self.fresh()
        c.append(other, b"other")
        self.assertEqual(c.events(other, cursor=cursor)["reset"], 1)

    def test_cursor_outlives_the_daemon(self):
        self.c.append(self.image, b"0")
        cursor = self.c.events(self.image)["cursor"]
        self.c.append(self.image, b"1")
        self.shared.stop()
        self.shared.restart()
        with self.shared.connect() as c:
            got = c.events(self.image, cursor=cursor)
            self.assertEqual(got["events"][-1]["payload"], b"1")
            self.assertTrue(got["reset"] or len(got["events"]) == 1, got)

    def test_bad_cursors(self):
        good = self.c.events(self.image)["cursor"]
        for bad in (b"x", good[:-1], good + b"\0", b"\xff" * 1000, b"\0" * len(good)):
            reply = self.c.ask("Events", "List", {"image": self.image, "cursor": bad})
            if reply.code == rpc.OK:  # of the right shape, so of another life
                self.assertEqual((reply.body["reset"], len(bad)), (1, len(good)))
            else:
                self.assertEqual((reply.code, reply.violations()), (rpc.INVALID, ["cursor"]))

    # ---- order

    def test_order_on_a_connection(self):
        streams = [self.c.start("Params", "Put", {"image": self.image, "id": 1, "value": b"%d" % n})
                   for n in range(60)]
        self.assertEqual([self.c.wait(s).body["generation"] for s in streams],
                         list(range(1, 61)))
        self.assertEqual(self.c.get(self.image, 1), b"59")
        streams = [self.c.start("Events", "Append", {"image": self.image, "events": [
            {"code": n, "payload": b"%d" % n}]}) for n in range(60)]
        self.assertEqual([self.c.wait(s).body["first_index"] for s in streams], list(range(60)))
        self.assertEqual([e["code"] for e in self.c.events(self.image)["events"]], list(range(60)))

    def test_acknowledged_change_is_seen_by_the_next_call_of_anybody(self):
        with self.shared.connect(self.shared.tcp) as other:
            for n in range(50):
                self.c.put(self.image, 3, b"%d" % n)
                self.assertEqual(other.get(self.image, 3), b"%d" % n)

    def test_many_putters_at_once(self):
        image = self.fresh(size=4096)

        def work(n):
            with self.shared.connect(self.shared.tcp if n % 2 else None) as c:
                for first in range(0, 60, 20):
                    streams = [c.start("Params", "Put", {"image": image, "id": n,
                                                         "value": b"%d-%d" % (n, first + k)})
                               for k in range(20)]
                    got = [c.wait(s) for s in streams]
                    self.assertEqual([r.body["generation"] for r in got],
                                     list(range(first + 1, first + 21)))
                    c.append(image, b"%d" % n, code=n)

        harness.threads(8, work)
        params = self.c.call("Params", "List", image=image)["params"]
        self.assertEqual([(p["id"], p["generation"], p["value"]) for p in params],
                         [(n, 60, b"%d-59" % n) for n in range(8)])
        codes = [e["code"] for e in self.c.events(image)["events"]]
        self.assertEqual(sorted(codes), sorted(list(range(8)) * 3))
        self.shared.stop()
        try:
            seen = harness.dump(self.path(image))
        finally:
            self.shared.restart()
        self.assertEqual([bytes.fromhex(p["value_hex"]) for p in seen["latest_params"]],
                         [b"%d-59" % n for n in range(8)])


if __name__ == "__main__":
    harness.main()
