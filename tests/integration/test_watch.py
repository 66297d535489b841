"""Events.Watch: waiting by cursor, filters, skips and resets, many watchers, every way to end."""
import re
import struct
import threading
import time
import urllib.request

import harness
import rpc

EPOCH = 1700000000
NOW, OLDEST = 1, 2
WINDOW = 84  # live events at S=512
LONG_MS = 60000
NOT_SERVING = 2


class Watcher:
    """Follows an image by cursor, over lost connections and restarts of the daemon."""

    def __init__(self, daemon, image, start=OLDEST, **filters):
        self.daemon, self.image, self.filters = daemon, image, filters
        self.cursor, self.start = b"", start
        self.seen, self.resets, self.skipped = [], 0, 0
        self.connection = None

    def step(self, wait_ms, **more):
        """One answer, which is taken into account; gives its events."""
        if self.connection is None:
            self.connection = self.daemon.connect()
        got = self.connection.call("Events", "Watch", image=self.image, cursor=self.cursor,
                                   start=self.start, wait_ms=wait_ms, **self.filters, **more)
        return self.take(got)

    def take(self, got):
        if got["reset"]:
            self.resets += 1
            self.seen = []
        self.skipped += got["skipped"]
        self.cursor = got["cursor"]
        self.seen += [(e["index"], e["payload"]) for e in got["events"]]
        return got["events"]

    def lose(self):
        """The connection goes, with whatever answer was on its way."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None


class Watches(harness.SharedCase):
    def setUp(self):
        super().setUp()
        self.image = self.fresh()

    def fresh(self, size=512, blocks=64):
        return super().fresh(blocks=blocks, sector_size=size, epoch=EPOCH)

    def start(self, connection=None, image=None, timeout_ns=0, **fields):
        fields.setdefault("wait_ms", LONG_MS)
        if "cursor" not in fields:
            fields.setdefault("start", NOW)
        return (connection or self.c).start("Events", "Watch",
                                            dict(fields, image=image or self.image),
                                            timeout_ns=timeout_ns)

    def waiting(self, connection=None, **fields):
        """A watch that surely waits, on a connection of its own; gives both."""
        connection = connection or self.connect(self.shared)
        stream = self.start(connection, **fields)
        connection.call("Server", "Ping")
        self.assertNotIn(stream, connection.replies)
        return connection, stream

    def place(self, image=None):
        """A cursor after the newest event."""
        return self.c.call("Events", "Watch", image=image or self.image, start=NOW)["cursor"]

    def body(self, connection, stream):
        reply = connection.wait(stream)
        self.assertEqual(reply.code, rpc.OK, reply)
        return reply.body

    def payloads(self, got):
        return [e["payload"] for e in got["events"]]

    # ---- one watch

    def test_answers_as_soon_as_an_event_is_there(self):
        connection, stream = self.waiting()
        started = time.monotonic()
        self.c.append(self.image, b"one", b"two", code=7, severity=2, time=EPOCH + 5)
        got = self.body(connection, stream)
        self.assertLess(time.monotonic() - started, 20)
        self.assertEqual(got["events"], [
            {"index": n, "timestamp": 5, "severity": 2, "code": 7, "payload": p, "corrupt": 0}
            for n, p in enumerate((b"one", b"two"))])
        self.assertEqual((got["skipped"], got["reset"], got["pointer"]), (0, 0, 2))
        connection, stream = self.waiting(cursor=got["cursor"])
        self.c.append(self.image, b"three")
        self.assertEqual(self.payloads(self.body(connection, stream)), [b"three"])

    def test_starts(self):
        self.c.append(self.image, b"a", b"b", b"c")
        got = self.c.call("Events", "Watch", image=self.image, start=OLDEST, wait_ms=LONG_MS)
        self.assertEqual(self.payloads(got), [b"a", b"b", b"c"])
        got = self.c.call("Events", "Watch", image=self.image, start=NOW)
        self.assertEqual((got["events"], got["pointer"]), ([], 3))
        self.c.append(self.image, b"d")
        got = self.c.call("Events", "Watch", image=self.image, cursor=got["cursor"], start=OLDEST)
        self.assertEqual(self.payloads(got), [b"d"])  # a cursor counts, whatever start says

    def test_limit_is_followed_by_the_rest(self):
        self.c.append(self.image, *[b"%d" % n for n in range(10)])
        cursor, seen = b"", []
        while True:
            got = self.c.call("Events", "Watch", image=self.image, start=OLDEST, cursor=cursor,
                              limit=4)
            if not got["events"]:
                break
            self.assertLessEqual(len(got["events"]), 4)
            seen += self.payloads(got)
            cursor = got["cursor"]
        self.assertEqual(seen, [b"%d" % n for n in range(10)])

    def test_wait_that_passes(self):
        for wait_ms in (0, 1, 30, 250):
            started = time.monotonic()
            got = self.c.call("Events", "Watch", image=self.image, start=NOW, wait_ms=wait_ms)
            took_ms = (time.monotonic() - started) * 1000
            self.assertEqual(got["events"], [])
            self.assertEqual(len(got["cursor"]), 28)
            self.assertGreaterEqual(took_ms, wait_ms - 10)
            self.assertLess(took_ms, wait_ms + 5000)

    def test_nearer_deadline_is_met(self):
        """Before it, and not by an error: the margin is an eighth of it."""
        for timeout_ms in (80, 400):
            started = time.monotonic()
            reply = self.c.wait(self.start(timeout_ns=timeout_ms * 1000000))
            self.assertEqual(reply.code, rpc.OK, reply)
            self.assertEqual(reply.body["events"], [])
            self.assertGreater((time.monotonic() - started) * 1000, timeout_ms * 0.6)
        reply = self.c.wait(self.start(timeout_ns=1))
        self.assertIn(reply.code, (rpc.OK, rpc.DEADLINE), reply)

    def test_events_beside_the_filter_move_the_cursor(self):
        connection, stream = self.waiting(severities=[3, 4], codes=[7, 9], wait_ms=400)
        for code, severity in ((7, 1), (8, 3), (9, 0)):
            self.c.append(self.image, b"no", code=code, severity=severity)
        got = self.body(connection, stream)
        self.assertEqual((got["events"], got["pointer"]), ([], 3))
        self.assertEqual(struct.unpack(">I", got["cursor"][-4:])[0], 3)
        connection, stream = self.waiting(cursor=got["cursor"], severities=[3, 4], codes=[7, 9])
        self.c.append(self.image, b"no", code=7, severity=2)
        self.c.append(self.image, b"yes", code=9, severity=4)
        got = self.body(connection, stream)
        self.assertEqual([(e["index"], e["payload"]) for e in got["events"]], [(4, b"yes")])

    def test_many_events_beside_the_filter_are_told(self):
        """Before the ring laps the cursor of who waits: a quarter of it, and no events."""
        far = WINDOW // 4
        cursor = self.place()
        connection, stream = self.waiting(cursor=cursor, codes=[7])
        self.c.append(self.image, *[b"no"] * (far - 1), code=1)
        connection.call("Server", "Ping")
        self.assertNotIn(stream, connection.replies)
        self.c.append(self.image, b"no", code=1)
        got = self.body(connection, stream)
        self.assertEqual((got["events"], got["skipped"], got["reset"]), ([], 0, 0))
        self.assertEqual(got["cursor"][-4:], struct.pack(">I", far))
        # the same where they were there before the call
        again = self.c.call("Events", "Watch", image=self.image, cursor=cursor, codes=[7],
                            wait_ms=LONG_MS)
        self.assertEqual(again, got)
        connection, stream = self.waiting(cursor=got["cursor"], codes=[7])
        self.c.append(self.image, b"yes", code=7)
        self.assertEqual(self.payloads(self.body(connection, stream)), [b"yes"])
        # who has no cursor has nothing that could be lapped, until it waits
        connection, stream = self.waiting(start=OLDEST, codes=[9])
        self.c.append(self.image, *[b"no"] * far, code=1)
        self.assertEqual(self.body(connection, stream)["events"], [])

    def test_many_events_beside_the_filter_of_a_crowd(self):
        """Each is told by its own place; a worker looks where it is far behind."""
        image = self.fresh(size=4096, blocks=40)
        first = self.c.call("Events", "Watch", image=image, start=NOW)["cursor"]
        self.c.append(image, *[b"no"] * 100, code=1)
        later = self.place(image)
        held = [self.waiting(image=image, cursor=cursor, codes=[7])
                for cursor in (first, later) for _ in range(3)]
        told = 100
        while any(stream not in connection.replies for connection, stream in held):
            self.c.append(image, *[b"no"] * 10, code=1)
            told += 10
            for n, (connection, stream) in enumerate(held):
                connection.call("Server", "Ping")
                if stream in connection.replies and n < 3:
                    self.assertNotIn(held[5][1], held[5][0].replies)
            self.assertLess(told, 2000)
        for connection, stream in held:
            self.assertEqual(self.body(connection, stream)["events"], [])
        got = self.c.call("Events", "Watch", image=image, cursor=first, codes=[7], wait_ms=LONG_MS)
        self.assertEqual(got["cursor"][-4:], struct.pack(">I", told))

    def test_one_group_of_events_and_filters(self):
        """Of what becomes visible at once each gets its own, and the cursor is past all of it."""
        cases = [({}, [0, 1, 2, 3, 4, 5]), ({"codes": [1]}, [1, 4]),
                 ({"codes": [2, 1]}, [1, 2, 4, 5]),
                 ({"severities": [1]}, [3, 4, 5]), ({"severities": [1], "codes": [0]}, [3]),
                 ({"limit": 2}, [0, 1]), ({"codes": [1], "limit": 1}, [1])]
        held = [self.waiting(**filters) for filters, _ in cases]
        self.c.call("Events", "Append", image=self.image, events=[
            {"severity": n // 3, "code": n % 3, "payload": b"%d" % n} for n in range(6)])
        for (connection, stream), (filters, wanted) in zip(held, cases):
            got = self.body(connection, stream)
            self.assertEqual([e["index"] for e in got["events"]], wanted, filters)
            after = wanted[-1] + 1 if "limit" in filters else 6
            self.assertEqual(struct.unpack(">I", got["cursor"][-4:])[0], after, filters)

    def test_far_behind(self):
        """More than the loop looks at by itself: everything comes, in order, nothing twice."""
        image = self.fresh(size=16384, blocks=40)
        for n in range(0, 1500, 300):
            self.c.append(image, *[b"%06d" % k + b"." * 58 for k in range(n, n + 300)])
        w = Watcher(self.shared, image)
        answers = 0
        while w.step(0, limit=4096):
            answers += 1
        w.lose()
        self.assertEqual([int(p[:6]) for _, p in w.seen], list(range(1500)))
        self.assertGreater(answers, 1, "an answer has a bound in bytes")
        # lists of so many are a worker's too
        for fields, wanted in (({"limit": 16384}, range(1500)), ({"limit": 700}, range(800, 1500)),
                               ({}, range(500, 1500)), ({"codes": [9]}, ()),
                               ({"cursor": w.cursor[:-4] + bytes(4), "limit": 900}, range(900))):
            got = self.c.events(image, **fields)
            self.assertEqual([int(e["payload"][:6]) for e in got["events"]], list(wanted), fields)
            self.assertEqual((got["pointer"], got["skipped"], got["reset"]), (1500, 0, 0))
        # nothing passes, however far behind: it waits, and is there for what comes
        connection, stream = self.waiting(image=image, start=OLDEST, codes=[77])
        self.c.append(image, b"here", code=77)
        self.assertEqual(self.payloads(self.body(connection, stream)), [b"here"])

    def test_overflow_of_the_ring_is_counted(self):
        w = Watcher(self.shared, self.image)
        self.c.append(self.image, b"0")
        self.assertEqual(len(w.step(LONG_MS)), 1)
        total = 3 * WINDOW + 5
        for n in range(1, total, WINDOW):
            self.c.append(self.image, *[b"%d" % k for k in range(n, min(n + WINDOW, total))])
        while w.step(0):
            pass
        w.lose()
        self.assertEqual(w.skipped, total - 1 - WINDOW)
        self.assertEqual([p for _, p in w.seen],
                         [b"0"] + [b"%d" % n for n in range(total - WINDOW, total)])
        self.assertEqual(w.resets, 0)

    def test_skips_are_told_at_once(self):
        cursor = self.place()
        for n in range(0, 2 * WINDOW, WINDOW):
            self.c.append(self.image, *[b"x"] * WINDOW)
        got = self.c.call("Events", "Watch", image=self.image, cursor=cursor, codes=[999],
                          wait_ms=LONG_MS)
        self.assertEqual((got["events"], got["skipped"]), ([], WINDOW))
        got = self.c.call("Events", "Watch", image=self.image, cursor=got["cursor"], codes=[999])
        self.assertEqual(got["skipped"], 0, "told once")

    def test_corrupt_events_pass_every_filter(self):
        self.shared.stop()
        try:
            tool = harness.spaceimg()
            spec = {"sector_size": 512, "total_blocks": 64, "tenant_id": 1, "epoch": EPOCH,
                    "uuid": "00112233445566778899aabbccddeeff", "params": [],
                    "events": [{"timestamp": 1, "severity": 1, "code": 5, "payload_hex": "61"},
                               {"timestamp": 1, "severity": 1, "code": 5, "payload_hex": "62"}]}
            path = self.shared.image_path(1, "corrupt")
            tool.build(spec, path)
            with open(path, "r+b") as f:
                f.seek(18 * 512 + 76 + 20)
                f.write(b"\xff")
        finally:
            self.shared.restart()
        with self.shared.connect() as c:
            got = c.call("Events", "Watch", image="corrupt", start=OLDEST, codes=[1])
        self.assertEqual([(e["index"], e["corrupt"]) for e in got["events"]], [(1, 1)])

    # ---- what is refused

    def test_bad_requests(self):
        cases = [("start", {}), ("start", {"start": 3}), ("start", {"start": 4000000}),
                 ("limit", {"start": NOW, "limit": 4097}),
                 ("wait_ms", {"start": NOW, "wait_ms": 60001}),
                 ("severities[1]", {"start": NOW, "severities": [1, 256]}),
                 ("codes[0]", {"start": NOW, "codes": [65536]}),
                 ("codes", {"start": NOW, "codes": [1] * 257}),
                 ("severities", {"start": NOW, "severities": [1] * 257})]
        cases += [("cursor", {"cursor": b"x" * n}) for n in (1, 27, 29, 1000)]
        for field, fields in cases:
            reply = self.refused(rpc.INVALID, self.c, "Events", "Watch",
                                 dict(fields, image=self.image))
            self.assertEqual(reply.violations(), [field], fields)
        reply = self.refused(rpc.NOT_FOUND, self.c, "Events", "Watch",
                             {"image": "nobody", "start": NOW, "wait_ms": LONG_MS})
        self.assertEqual(reply.reason, "NOT_FOUND")

    def test_hostile_cursors(self):
        """Any bytes of the right length lead to the oldest event, and it is told."""
        self.c.append(self.image, b"a", b"b")
        good = self.place()
        other = self.place(self.fresh())
        for cursor in (bytes(28), b"\xff" * 28, good[:16] + bytes(8) + good[24:],
                       good[:-4] + b"\xff\xff\xff\xff", good[:-4] + struct.pack(">I", 3),
                       other, b"\0" + good[1:]):
            got = self.c.call("Events", "Watch", image=self.image, cursor=cursor, wait_ms=LONG_MS)
            self.assertEqual((got["reset"], self.payloads(got)), (1, [b"a", b"b"]), cursor)
            got = self.c.call("Events", "List", image=self.image, cursor=cursor)
            self.assertEqual((got["reset"], self.payloads(got)), (1, [b"a", b"b"]), cursor)
        got = self.c.call("Events", "Watch", image=self.image, cursor=good[:-4] + bytes(4))
        self.assertEqual((got["reset"], self.payloads(got)), (0, [b"a", b"b"]))
        got = self.c.call("Events", "Watch", image=self.fresh(), cursor=bytes(28), wait_ms=LONG_MS)
        self.assertEqual((got["reset"], got["events"]), (1, []), "a reset is told at once")

    def test_cursors_of_lists_and_watches_are_the_same(self):
        self.c.append(self.image, b"a")
        listed = self.c.events(self.image)
        self.c.append(self.image, b"b")
        got = self.c.call("Events", "Watch", image=self.image, cursor=listed["cursor"])
        self.assertEqual(self.payloads(got), [b"b"])
        self.c.append(self.image, b"c")
        self.assertEqual(self.payloads(self.c.events(self.image, cursor=got["cursor"])), [b"c"])

    # ---- many

    def test_calls_in_flight_are_bounded(self):
        streams = [self.start() for _ in range(64)]
        reply = self.c.ask("Server", "Ping")
        self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "LIMIT_EXCEEDED"))
        with self.shared.connect() as other:
            other.append(self.image, b"x")
        for stream in streams:
            self.assertEqual(self.payloads(self.body(self.c, stream)), [b"x"])
        self.c.call("Server", "Ping")

    def test_watches_of_an_image_are_bounded(self):
        """One image has half of the room: 512 by default. The others still find a place."""
        other = self.fresh()
        crowd = [self.connect(self.shared) for _ in range(9)]
        streams = []
        for c in crowd:
            streams.append([self.start(c) for _ in range(64)])
            self.assertEqual(c.ask("Server", "Ping").code, rpc.OK if c is crowd[8]
                             else rpc.EXHAUSTED)
        for stream in streams[8]:
            reply = crowd[8].wait(stream)
            self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "LIMIT_EXCEEDED"))
        connection, stream = self.waiting(image=other)
        self.c.append(self.image, b"x")
        self.c.append(other, b"y")
        for c, held in zip(crowd[:8], streams):
            for one in held:
                self.assertEqual(self.payloads(self.body(c, one)), [b"x"])
        self.assertEqual(self.payloads(self.body(connection, stream)), [b"y"])

    def test_hundreds_of_watchers_get_each_event_once_in_order(self):
        appended, crowds, each = 200, 10, 50
        image = self.fresh(size=4096)

        def follow(_):
            """So many watches on one connection, each followed by the next with its cursor."""
            with self.shared.connect() as c:
                watchers = {c.start("Events", "Watch", {"image": image, "start": OLDEST,
                                                        "wait_ms": LONG_MS}):
                            Watcher(self.shared, image) for _ in range(each)}
                while watchers:
                    stream, data = c.read_frame()
                    w = watchers.pop(stream)
                    reply = rpc.Reply(data, c.types.pop(stream))
                    self.assertEqual(reply.code, rpc.OK, reply)
                    w.take(reply.body)
                    if len(w.seen) < appended:
                        watchers[c.start("Events", "Watch", {
                            "image": image, "cursor": w.cursor, "wait_ms": LONG_MS})] = w
                        continue
                    self.assertEqual([i for i, _ in w.seen], list(range(appended)))
                    self.assertEqual((w.skipped, w.resets), (0, 0))

        def work(n):
            if n < crowds:
                follow(n)
                return
            with self.shared.connect() as c:
                for k in range(appended):
                    c.append(image, b"%d" % k)

        harness.threads(crowds + 1, work)

    def test_watchers_of_other_images_hear_nothing(self):
        other = self.fresh()
        connection, stream = self.waiting(image=other)
        self.c.append(self.image, b"x")
        self.assertTrue(connection.quiet_for(0.2))
        self.c.append(other, b"y")
        self.assertEqual(self.payloads(self.body(connection, stream)), [b"y"])

    # ---- ends

    def test_over_reconnects_each_event_comes_once_in_order(self):
        """Connections are cut at any moment, answers get lost: the cursor knows."""
        total = 400
        image = self.fresh(size=4096)
        done = threading.Event()

        def append(_):
            with self.shared.connect() as c:
                for n in range(total):
                    c.append(image, b"%d" % n)
            done.set()

        def follow(n):
            w = Watcher(self.shared, image)
            step = 0
            while len(w.seen) < total:
                step += 1
                if step % (n + 2) == 0:  # the answer to this one is never taken
                    if w.connection is None:
                        w.connection = self.shared.connect()
                    w.connection.start("Events", "Watch", {"image": image, "cursor": w.cursor,
                                                           "start": OLDEST, "wait_ms": LONG_MS})
                    w.lose()
                    continue
                w.step(LONG_MS)
            w.lose()
            self.assertEqual(w.seen, [(k, b"%d" % k) for k in range(total)])
            self.assertEqual((w.skipped, w.resets), (0, 0))

        harness.threads(5, lambda n: append(n) if n == 4 else follow(n))
        self.assertTrue(done.is_set())

    def test_half_closed_peer_is_answered_at_once(self):
        for early in (False, True):
            c = self.shared.connect()
            if early:  # request and end of stream may come in one
                stream = self.start(c)
            else:
                c, stream = self.waiting(c)
            c.sock.shutdown(1)
            self.assertEqual(self.body(c, stream)["events"], [])
            self.assertTrue(c.at_end())
            c.close()

    def test_watches_of_lost_connections_end_at_once(self):
        """As many as an image may have are lost, and as many find a place right after."""
        for _ in range(3):
            crowd = [self.shared.connect() for _ in range(8)]
            streams = [[self.start(c) for _ in range(63)] for c in crowd]
            for c, held in zip(crowd, streams):
                c.call("Server", "Ping")
                self.assertFalse(set(held) & set(c.replies), "a watch was refused")
            for c in crowd:
                c.close()
            self.settle()
        self.c.append(self.image, b"x")

    def settle(self):
        """Until the daemon has taken notice of connections that were closed before."""
        with self.shared.connect() as c:
            c.call("Server", "Ping")

    def test_reading_nothing_harms_nobody(self):
        image = self.fresh(size=65536, blocks=40)
        deaf = [self.connect(self.shared) for _ in range(4)]
        for c in deaf:
            c.sock.setsockopt(1, 8, 4096)  # SO_RCVBUF
            for _ in range(60):
                self.start(c, image=image, start=OLDEST, limit=4096)
        good = Watcher(self.shared, image)
        for n in range(0, 3000, 500):
            first = self.c.append(image, *[b"x" * 64] * 500)
            self.assertEqual(first, n)
            while len(good.seen) < n + 500:
                good.step(LONG_MS)
        good.lose()
        self.assertEqual([i for i, _ in good.seen], list(range(3000)))
        if not self.shared.is_sanitized():
            self.assertLess(self.shared.memory_kb(), 256 * 1024)

    def test_image_deleted_meanwhile(self):
        held = [self.waiting() for _ in range(3)]
        self.c.call("Images", "Delete", image=self.image)
        for connection, stream in held:
            reply = connection.wait(stream)
            self.assertIn(reply.code, (rpc.OK, rpc.NOT_FOUND), reply)
            self.refused(rpc.NOT_FOUND, connection, "Events", "Watch",
                         {"image": self.image, "start": NOW, "wait_ms": LONG_MS})

    def test_image_renamed_meanwhile(self):
        self.c.append(self.image, b"before")
        cursor = self.place()
        held = [self.waiting(cursor=cursor) for _ in range(3)]
        self.c.call("Images", "Rename", image=self.image, name=self.image + "x")
        self.c.append(self.image + "x", b"after")
        for connection, stream in held:
            reply = connection.wait(stream)
            # The old name may be gone before the loop comes to answer.
            self.assertIn(reply.code, (rpc.OK, rpc.NOT_FOUND), reply)
            if reply.code == rpc.OK:
                self.assertEqual(reply.body["events"], [], "it was about the old name")
                self.assertEqual(reply.body["cursor"], cursor)
            self.refused(rpc.NOT_FOUND, connection, "Events", "Watch",
                         {"image": self.image, "cursor": cursor, "wait_ms": LONG_MS})
            got = connection.call("Events", "Watch", image=self.image + "x", cursor=cursor,
                                  wait_ms=LONG_MS)
            self.assertEqual((self.payloads(got), got["reset"]), ([b"after"], 0))

    def test_repaired_meanwhile(self):
        """Repair may change events: watches end, and the next one says so."""
        self.shared.stop()
        try:
            with open(self.shared.image_path(1, self.image), "r+b") as f:
                f.seek(512 + 100)
                f.write(b"\xff")  # a parameter slot that is corrupt
        finally:
            self.shared.restart()
        self.c = self.connect(self.shared)
        self.c.append(self.image, b"before")
        cursor = self.place()
        connection, stream = self.waiting(cursor=cursor)
        got = self.c.call("Images", "Check", image=self.image, repair=True,
                          request_id="11111111-2222-4333-8444-555555555555")
        self.assertEqual(got["repaired"], 1)
        got = self.body(connection, stream)
        self.assertEqual((got["events"], got["cursor"]), ([], cursor))
        got = self.c.call("Events", "Watch", image=self.image, cursor=cursor, wait_ms=LONG_MS)
        self.assertEqual((got["reset"], self.payloads(got)), (1, [b"before"]))


class Endings(harness.Case):
    """A daemon of one's own for each."""

    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)
        self.c.create("a")

    def test_drain_answers_those_that_wait(self):
        crowd = [self.connect(self.d) for _ in range(8)]
        streams = [[c.start("Events", "Watch", {"image": "a", "start": NOW, "wait_ms": LONG_MS})
                    for _ in range(60)] for c in crowd]
        for c in crowd:
            c.call("Server", "Ping")
        started = time.monotonic()
        self.d.terminate()
        for c, held in zip(crowd, streams):
            for stream in held:
                reply = c.wait(stream)
                self.assertEqual((reply.code, reply.body["events"]), (rpc.OK, []))
                self.assertEqual(len(reply.body["cursor"]), 28)
        self.d.wait(0)
        self.assertLess(time.monotonic() - started, 20)

    def test_limits_of_the_configuration(self):
        d = self.daemon("e", args=["--limit", "watchers_max=5", "--limit", "watch_wait_max_ms=50"])
        c = self.connect(d)
        for image in "ab":
            c.create(image)
        got = c.call("Events", "Watch", image="a", start=NOW, wait_ms=LONG_MS)
        self.assertEqual(got["events"], [], "the wait is cut to what is configured")
        d.stop()
        d.args = ["--limit", "watchers_max=5"]
        d.restart()
        c = self.connect(d)
        cases = [("a", 3, rpc.OK), ("a", 1, rpc.EXHAUSTED), ("b", 2, rpc.OK),
                 ("b", 1, rpc.EXHAUSTED)]
        fields = {"start": NOW, "wait_ms": LONG_MS}
        held = [(c.start("Events", "Watch", dict(fields, image=image)), code)
                for image, count, code in cases for _ in range(count)]
        c.append("a", b"x")
        c.append("b", b"x")
        self.assertEqual([c.wait(stream).code for stream, _ in held], [code for _, code in held])

    def test_a_commit_costs_one_pass_and_one_encoding(self):
        """However many watch; those that ask for something else cost an encoding more."""
        d = self.daemon("e", args=["--http", "127.0.0.1:0"])
        c = self.connect(d)
        c.create("a")
        crowd = [self.connect(d) for _ in range(5)]
        cursors = {}
        for n in range(10):
            held = [(one, k, one.start("Events", "Watch", {
                "image": "a", "cursor": cursors.get((one, k)), "start": NOW, "wait_ms": LONG_MS,
                "codes": [1, 2] if k == 0 else []})) for one in crowd for k in range(40)]
            for one in crowd:
                one.call("Server", "Ping")
            c.append("a", b"%d" % n, code=1)
            for one, k, stream in held:
                got = one.wait(stream).body
                self.assertEqual([e["payload"] for e in got["events"]], [b"%d" % n])
                cursors[one, k] = got["cursor"]
        self.assertEqual([self.metric(d, f"watch_{what}_total")
                          for what in ("passes", "encodings", "answers")], [10, 20, 2000])
        self.assertEqual(self.metric(d, "watchers"), 0)

    def test_events_beside_every_filter_cost_one_pass_too(self):
        d = self.daemon("e", args=["--http", "127.0.0.1:0"])
        c = self.connect(d)
        c.create("a")
        cursor = c.call("Events", "Watch", image="a", start=NOW)["cursor"]
        crowd = [self.connect(d) for _ in range(5)]
        held = [(one, one.start("Events", "Watch", {"image": "a", "cursor": cursor, "codes": [7],
                                                    "wait_ms": LONG_MS}))
                for one in crowd for k in range(40)]
        for one in crowd:
            one.call("Server", "Ping")
        for _ in range(3):
            c.append("a", *[b"no"] * (WINDOW // 12), code=1)
        for one, stream in held:
            self.assertEqual(one.wait(stream).body["events"], [])
        self.assertEqual([self.metric(d, f"watch_{what}_total")
                          for what in ("passes", "encodings", "answers")], [3, 1, 200])

    def test_a_filtered_watch_is_told_of_no_loss_that_was_none(self):
        """Events that it does not want lap the ring, and the daemon is killed meanwhile."""
        w = Watcher(self.d, "a", codes=[7])
        w.step(0)
        stream = self.follow(w)
        for n in range(60):
            if n == 30:
                w.lose()
                self.c.close()
                self.d.kill9()
                self.d.restart()
                self.c = self.connect(self.d)
                w.step(0)
                stream = self.follow(w)
            self.c.append("a", *[b"no"] * 10, code=1)
            w.connection.call("Server", "Ping")
            if stream in w.connection.replies:
                w.take(w.connection.wait(stream).body)
                stream = self.follow(w)
        w.lose()
        self.assertEqual((w.seen, w.skipped, w.resets), ([], 0, 0))

    def follow(self, watcher):
        return watcher.connection.start("Events", "Watch", {
            "image": "a", "cursor": watcher.cursor, "codes": [7], "wait_ms": LONG_MS})

    def metric(self, daemon, name):
        address = next(e for e in daemon.ready if e.startswith("http://"))
        with urllib.request.urlopen(f"{address}/metrics", timeout=harness.WAIT_S) as answer:
            text = answer.read().decode()
        return float(re.search(rf"^spaceblock_{name} (\S+)$", text, re.M).group(1))

    def test_watch_during_a_drain_is_refused(self):
        from faults import Faults
        faults = Faults(self.dir)
        self.addCleanup(faults.release_all)
        d = self.daemon("e", env=faults.environment())
        c, other = self.connect(d), self.connect(d)
        c.create("a")
        hold = faults.hold("flush", "images/1/a.img")
        stream = c.start("Params", "Put", {"image": "a", "id": 1})
        hold.wait()
        d.terminate()
        while other.call("Health", "Check")["status"] != NOT_SERVING:
            pass
        reply = self.refused(rpc.UNAVAILABLE, other, "Events", "Watch",
                             {"image": "a", "start": NOW, "wait_ms": LONG_MS})
        self.assertEqual(reply.reason, "DRAINING")
        hold.release()
        self.assertEqual(c.wait(stream).code, rpc.OK)
        d.wait(0)

    def test_restarts_lose_and_repeat_nothing(self):
        """Ended well or killed, the cursor goes on."""
        watchers = [Watcher(self.d, "a") for _ in range(3)]
        total = 0
        for how in ("stop", "kill9", "stop", "kill9"):
            for _ in range(12):
                self.c.append("a", b"%d" % total)
                total += 1
                watchers[total % 3].step(LONG_MS)
            for w in watchers:
                w.lose()
            self.c.close()
            getattr(self.d, how)()
            self.d.restart()
            self.c = self.connect(self.d)
        for w in watchers:
            while w.step(0):
                pass
            w.lose()
            self.assertEqual(w.seen, [(n, b"%d" % n) for n in range(total)])
            self.assertEqual((w.skipped, w.resets), (0, 0))

    def test_reopened_meanwhile(self):
        from faults import Faults
        faults = Faults(self.dir)
        d = self.daemon("e", env=faults.environment())
        c = self.connect(d)
        c.create("a")
        c.append("a", b"kept")
        cursor = c.call("Events", "Watch", image="a", start=NOW)["cursor"]
        faults.fail("flush", "images/1/a.img")
        self.refused(rpc.INTERNAL, c, "Events", "Append",
                     {"image": "a", "events": [{"payload": b"lost"}]})
        faults.clear()
        other = self.connect(d)
        stream = other.start("Events", "Watch", {"image": "a", "cursor": cursor,
                                                 "wait_ms": LONG_MS})
        other.call("Server", "Ping")
        reply = c.ask("Images", "Reopen", {"image": "a"})
        if reply.code:
            self.skipTest(f"no reopening here: {reply!r}")
        got = other.wait(stream).body
        self.assertEqual((got["events"], got["cursor"]), ([], cursor))
        # what failed may have happened; what was there before is not told again without a word
        got = other.call("Events", "Watch", image="a", cursor=cursor)
        payloads = [e["payload"] for e in got["events"]]
        before = [b"kept"] if got["reset"] else []
        self.assertIn(payloads, (before, before + [b"lost"]), got)
        self.assertEqual(got["skipped"], 0)


if __name__ == "__main__":
    harness.main()
