"""What all peers together make the daemon keep: bounded, and shared so that the next one is served.

buffers_max_bytes is set to 16 MiB, its least, so that few peers suffice.
"""
import resource
import struct
import threading
import time

import harness
import rpc
from faults import Faults
from harness import limits
from protowire import SCHEMA

KIB, MIB = 1 << 10, 1 << 20
BUDGET = 16 * MIB
PEERS = 40
GUARANTEE = 32 * KIB  # each peer's, beside the budget
SLACK_S = 20


class Memory(harness.Case):
    def start(self, **values):
        self.faults = Faults(self.dir)
        self.d = self.daemon(env=self.faults.environment(), args=[
            "--http", "127.0.0.1:0", *limits(buffers_max_bytes=BUDGET, **values)])
        self.addCleanup(self.faults.release_all)
        self.c = self.connect(self.d)
        self.c.create("a", blocks=4096, sector_size=4096)
        self.c.upload("a", b"p", b"P" * (4 * MIB))

    def crowd(self, count=PEERS):
        crowd = [self.d.connect(self.d.tcp if n % 2 else None) for n in range(count)]
        for c in crowd:
            self.addCleanup(c.close)
        return crowd

    def used(self):
        return self.d.metric("spaceblock_buffers_bytes")

    def waiting(self):
        return self.d.metric("spaceblock_connections_waiting")

    def refused_for_memory(self):
        return self.d.metric("spaceblock_refusals_total", reason="memory")

    def bounded(self):
        self.assertLessEqual(self.used(), BUDGET + (PEERS + 1) * GUARANTEE)
        if not self.d.is_sanitized():
            self.assertLess(self.d.peak_kb(), 80 * KIB)

    def serves_small_calls(self):
        """A newcomer's small calls do not wait for memory."""
        with self.d.connect() as c:
            for n in range(50):
                c.call("Server", "Ping", payload=b"p" * 1000)
                c.put("a", n % 20, b"v" * 200)
                c.get("a", n % 20)

    def half_frames(self):
        crowd = self.crowd()
        for c in crowd:
            # As much as is taken: what waits for memory is not read.
            c.sock.settimeout(0.1)
            try:
                c.send_bytes(struct.pack(">IIBB", MIB, 1, 1, 0) + b"\x0a" * (MIB - 100))
            except TimeoutError:
                pass
        return crowd

    def test_half_frames_are_bounded_and_small_calls_pass(self):
        self.start(pressure_ms=600000)
        self.half_frames()
        self.eventually(lambda: self.waiting() > 0, "all of them fit")
        self.serves_small_calls()
        self.bounded()
        self.assertEqual(self.refused_for_memory(), 0)

    def test_the_slow_lose_their_memory_to_who_waits(self):
        self.start(pressure_ms=300)
        crowd = self.half_frames()
        self.eventually(lambda: self.waiting() > 0, "all of them fit")
        with self.d.connect() as c:  # a good one needs much, and gets it
            c.upload("a", b"good", b"g" * (3 * MIB))
            self.assertEqual(c.product("a", b"good"), b"g" * (3 * MIB))
        self.eventually(lambda: self.refused_for_memory() > 0, "nobody lost anything")
        self.bounded()
        told = 0
        for c in crowd:
            if c.quiet_for(0.01):
                continue
            stream, raw = c.read_frame()
            reply = rpc.Reply(raw, None)
            self.assertEqual((stream, reply.code, reply.reason),
                             (1, rpc.EXHAUSTED, "LIMIT_EXCEEDED"), reply)
            told += 1
        self.assertGreater(told, 0)

    def test_who_lost_a_frame_goes_on(self):
        self.start(pressure_ms=100)
        crowd = self.half_frames()
        self.eventually(lambda: any(not c.quiet_for(0.01) for c in crowd), "nobody lost anything")
        c = next(c for c in crowd if not c.quiet_for(0.01))
        c.sock.settimeout(harness.WAIT_S)
        c.send_bytes(b"\x0a" * 100)  # the rest of its frame
        self.assertEqual(c.read_frame()[0], 1)
        c.next_stream = 3
        self.assertEqual(c.call("Server", "Ping", payload=b"on")["payload"], b"on")

    def deaf(self, count=PEERS):
        identity = self.c.call("DataProducts", "Get", image="a", name=b"p")["product"]["identity"]
        fields = {"image": "a", "name": b"p", "length": MIB, "identity": identity}
        crowd = self.crowd(count)
        for c in crowd:
            for _ in range(8):
                c.start("DataProducts", "Read", fields)
        return crowd, fields

    def test_unread_answers_are_bounded(self):
        self.start(pressure_ms=600000)
        self.deaf()
        self.eventually(lambda: self.waiting() > 0, "all of them fit")
        self.serves_small_calls()
        self.bounded()

    def test_who_reads_nothing_makes_way(self):
        self.start(pressure_ms=300)
        _, fields = self.deaf()
        self.eventually(lambda: self.waiting() > 0, "all of them fit")
        with self.d.connect() as c:
            started = time.monotonic()
            for _ in range(4):
                self.assertEqual(len(c.call("DataProducts", "Read", **fields)["data"]), MIB)
            self.assertLess(time.monotonic() - started, SLACK_S)
        self.assertGreater(self.refused_for_memory(), 0)
        self.bounded()

    def test_answers_that_waited_come(self):
        """Nobody is refused for want of memory while all read: they take turns."""
        self.start()
        crowd, _ = self.deaf(16)

        def read(n):
            for _ in range(8):
                _, raw = crowd[n].read_frame()
                self.assertEqual(rpc.Reply(raw, None).code, rpc.OK)

        harness.threads(len(crowd), read)
        self.assertEqual(self.refused_for_memory(), 0)
        self.eventually(lambda: self.used() < MIB, "it is still counted")
        self.bounded()

    def test_uploads_at_once_wait_for_each_other(self):
        self.start()

        def work(n):
            with self.d.connect() as c:
                for k in range(3):
                    c.upload("a", b"u%d" % n, bytes([n]) * (2 * MIB), replace=True)
                    del k
                c.call("DataProducts", "Delete", image="a", name=b"u%d" % n)

        self.c.call("DataProducts", "Delete", image="a", name=b"p")
        before = self.refused_for_memory()
        harness.threads(2, work)
        self.assertEqual(self.refused_for_memory(), before)
        self.eventually(lambda: self.used() < MIB, "it is still counted")

    def test_calls_of_those_who_left_stay_counted(self):
        self.start()
        self.c.put("a", 1, b"v")
        hold = self.faults.hold("flush", "images/1/a.img")
        first = self.c.start("Params", "Put", {"image": "a", "id": 1, "value": b"v"})
        hold.wait()
        puts = [{"id": n, "value": b"v" * 240} for n in range(100)]
        for _ in range(30):
            with self.d.connect() as c:
                self.queue(c, {"image": "a", "puts": puts})
        used = self.used()
        self.assertGreater(used, 4 * MIB, "what they queued is not counted")
        self.bounded()
        self.serves_reads()
        hold.release()
        self.assertEqual(self.c.wait(first).code, rpc.OK)
        self.eventually(lambda: self.used() < MIB, "it is still counted")

    def queue(self, connection, fields):
        """As many as are taken."""
        connection.sock.settimeout(0.2)
        try:
            for _ in range(40):
                connection.start("Params", "BatchPut", fields)
            connection.call("Server", "Ping")
        except TimeoutError:
            pass  # it waits for memory

    def serves_reads(self):
        with self.d.connect() as c:
            self.assertEqual(c.call("Server", "Ping", payload=b"x")["payload"], b"x")
            self.assertEqual(len(c.get("a", 1)), 1)

    def test_growing_requests_side_by_side(self):
        self.start()
        payload = b"\x1a\x00" * 15000

        def work(_):
            with self.d.connect() as c:
                for _ in range(20):
                    reply = c.ask("Events", "Append", payload=payload)
                    self.assertIn(reply.code, (rpc.EXHAUSTED, rpc.INVALID), reply)

        harness.threads(16, work)
        self.bounded()

    def test_a_closed_peer_frees_what_waited_behind_it(self):
        self.start(pressure_ms=600000)
        crowd = self.half_frames()
        self.eventually(lambda: self.waiting() > 0, "all of them fit")
        done = threading.Event()

        def upload():
            with self.d.connect() as c:
                c.upload("a", b"late", b"l" * MIB)
            done.set()

        thread = threading.Thread(target=upload)
        thread.start()
        self.eventually(lambda: self.waiting() > 0, "it did not wait")
        for c in crowd:
            c.close()
        self.assertTrue(done.wait(SLACK_S), "nobody told it that memory came free")
        thread.join()


class Crowd(harness.Case):
    """As many peers as may be, each holding what it can, with the limits as they are."""

    COUNT = 1000

    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < self.COUNT + 200:
            self.skipTest("too few descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def push(self, connections, left):
        """Sends what the sockets take, round and round, until they take no more."""
        idle = 0
        while idle < 3:
            sent = 0
            for n, c in enumerate(connections):
                try:
                    sent += (n_bytes := c.sock.send(left[n][:1 << 18]))
                    left[n] = left[n][n_bytes:]
                except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                    pass
            idle = 0 if sent else idle + 1
            threading.Event().wait(0.05)

    def test_a_thousand_hostile_peers(self):
        d = self.daemon(args=["--http", "127.0.0.1:0", *limits(first_frame_ms=120000)])
        c = self.connect(d)
        c.create("a", blocks=4096, sector_size=4096)
        c.upload("a", b"p", b"P" * (4 * MIB))
        identity = c.call("DataProducts", "Get", image="a", name=b"p")["product"]["identity"]
        read = rpc.request_frame("spaceblock.v1.DataProducts", "Read", SCHEMA.encode(
            "ReadProductRequest", {"image": {"name": b"a"}, "name": b"p", "length": MIB,
                                   "identity": identity}))
        reads = b"".join(struct.pack(">IIBB", len(read), s, 1, 0) + read for s in range(1, 33, 2))
        half = struct.pack(">IIBB", MIB, 1, 1, 0) + b"\x0a" * (MIB - 10)
        crowd = [d.connect(d.tcp if n % 2 else None) for n in range(self.COUNT)]
        for one in crowd:
            self.addCleanup(one.close)
            one.sock.setblocking(False)
        self.push(crowd, [memoryview(half if n % 4 < 2 else reads) for n in range(self.COUNT)])
        for n in range(20):  # and others are served
            with d.connect() as good:
                good.put("a", n, b"v" * 200)
                self.assertEqual(good.get("a", n), b"v" * 200)
        print(f"peak resident memory: {d.peak_kb()} kB")
        if not d.is_sanitized():
            self.assertLess(d.peak_kb(), 256 * KIB)
        self.assertGreater(d.metric("spaceblock_connections_waiting"), 0)


if __name__ == "__main__":
    harness.main()
