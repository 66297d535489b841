"""Clients that are slow, deaf, many or gone: bounded in time and memory, and harmless to others."""
import os
import select
import socket
import struct
import threading
import time

import harness
import rpc

MIB = 1 << 20
FIRST_FRAME_S, FRAME_S, SILENT_READER_S = 10, 10, 30
SLACK_S = 15  # of a machine that does other things


def closed_after(connection, beat=None, limit_s=120):
    """Seconds until the daemon closes it; beat() is called twice a second meanwhile."""
    started = time.monotonic()
    connection.sock.settimeout(0.5)
    while time.monotonic() - started < limit_s:
        try:
            if not connection.sock.recv(4096):
                return time.monotonic() - started
        except TimeoutError:
            pass
        except ConnectionResetError:
            return time.monotonic() - started
        try:
            if beat:
                beat()
        except (BrokenPipeError, ConnectionResetError):
            return time.monotonic() - started
    raise AssertionError(f"still open after {limit_s} s")


class Hostile(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)
        self.c.create("a", blocks=2048, sector_size=4096)

    def drip(self, connection, data):
        """A beat that sends the next byte."""
        left = iter(data)
        return lambda: connection.sock.send(bytes([next(left)]))

    def silent(self, _):
        with self.d.connect() as c:
            self.between(closed_after(c), FIRST_FRAME_S)

    def slow_first_frame(self, _):
        with self.d.connect(self.d.tcp) as c:
            frame = struct.pack(">IIBB", 5000, 1, 1, 0) + b"\n" * 5000
            self.between(closed_after(c, self.drip(c, frame)), FIRST_FRAME_S)

    def slow_second_frame(self, _):
        with self.d.connect() as c:
            c.call("Server", "Ping")
            frame = struct.pack(">IIBB", 5000, 3, 1, 0) + b"\n" * 5000
            self.between(closed_after(c, self.drip(c, frame)), FRAME_S)

    def slow_header(self, _):
        with self.d.connect() as c:
            c.call("Server", "Ping")
            c.send_bytes(b"\0")
            self.between(closed_after(c), FRAME_S)

    def between(self, seconds, limit):
        self.assertGreater(seconds, limit - 2)
        self.assertLess(seconds, limit + SLACK_S)

    def deaf(self, _):
        """Asks for gigabytes and reads nothing: it is throttled, and closed in the end."""
        with self.d.connect() as c:
            found = c.call("DataProducts", "Get", image="a", name=b"large")
            identity = found["product"]["identity"]
            c.sock.settimeout(2)
            sent = 0
            started = time.monotonic()
            try:
                while sent < 100_000:
                    c.start("DataProducts", "Read", {"image": "a", "name": b"large", "length": MIB,
                                                     "identity": identity})
                    sent += 1
            except TimeoutError:
                pass  # its requests are not taken any more
            except rpc.Closed:
                return
            self.assertLess(sent, 100_000, "every request of a client that reads nothing was taken")
            self.wait_closed(c, started)

    def wait_closed(self, connection, started):
        """Until the other end is gone; reading would be progress, so only that is asked for."""
        left_s = started + SILENT_READER_S + 4 * SLACK_S - time.monotonic()
        poll = select.poll()
        poll.register(connection.sock, 0)
        self.assertTrue(poll.poll(left_s * 1000), "still open")

    def test_slow_and_deaf_clients_end_and_hurt_nobody(self):
        self.c.upload("a", b"large", b"L" * (4 * MIB))
        before, peak = self.d.memory_kb(), 0
        actors = [self.silent, self.slow_first_frame, self.slow_second_frame, self.slow_header,
                  self.deaf, self.deaf]
        over = threading.Event()
        slowest = 0.0

        def watch():
            nonlocal peak, slowest
            with self.d.connect() as c:
                while not over.is_set():
                    started = time.monotonic()
                    c.put("a", 1, b"v")
                    c.call("Server", "Ping", payload=b"x")
                    slowest = max(slowest, time.monotonic() - started)
                    peak = max(peak, self.d.memory_kb())
                    over.wait(0.05)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            harness.threads(len(actors), lambda n: actors[n](n))
        finally:
            over.set()
            watcher.join()
        self.assertLess(peak - before, 128 * 1024, "kB more than at the start")
        self.assertLess(slowest, SLACK_S)
        self.assertGreater(peak, 0, "the watcher failed")

    def test_clients_that_leave_in_mid_call(self):
        self.c.upload("a", b"p", b"P" * MIB)
        identity = self.c.call("DataProducts", "Get", image="a", name=b"p")["product"]["identity"]
        fds = f"/proc/{self.d.process.pid}/fd"
        before = len(os.listdir(fds))
        for n in range(120):
            c = self.d.connect(self.d.tcp if n % 2 else self.d.unix)
            for _ in range(n % 7 + 1):
                c.start("DataProducts", "Read", {"image": "a", "name": b"p", "length": MIB,
                                                 "identity": identity})
            c.start("Params", "Put", {"image": "a", "id": n, "value": b"v"})
            if n % 3 == 0:  # half a frame more
                c.send_bytes(struct.pack(">IIBB", 1000, 99, 1, 0) + b"x" * 10)
            if n % 4 == 0:  # a reset instead of an end
                c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()
        self.assertEqual(self.c.product("a", b"p"), b"P" * MIB)
        self.until(lambda: len(os.listdir(fds)) <= before, "connections are left open")
        self.c.put("a", 500, b"v")
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])

    def until(self, condition, what):
        deadline = time.monotonic() + harness.WAIT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            self.c.call("Server", "Ping")

    def test_more_connections_than_allowed(self):
        crowd, refused = [], 0
        try:
            for n in range(1100):
                c = self.d.connect()
                crowd.append(c)
            for c in crowd:
                try:
                    c.call("Server", "Ping")
                except (rpc.Closed, OSError):
                    refused += 1
                self.assertLessEqual(refused, 100)
            self.assertGreaterEqual(refused, 1100 + 1 - 1024)
            self.c.put("a", 1, b"v")
        finally:
            for c in crowd:
                c.close()
        self.until(self.can_connect, "no connection after the crowd has left")

    def can_connect(self):
        try:
            with self.d.connect() as c:
                return c.call("Server", "Ping") is not None
        except (rpc.Closed, OSError):
            return False

    def test_uploads_that_are_begun_and_left_are_bounded(self):
        taken = 0
        for n in range(3000):
            reply = self.c.ask("Uploads", "Start", {"size": 1, "product": {
                "image": rpc.image_ref("a"), "name": b"u%d" % n}})
            if reply.code:
                self.assertEqual(reply.code, rpc.EXHAUSTED)
                break
            taken += 1
        self.assertLess(taken, 3000)
        self.c.put("a", 1, b"v")


if __name__ == "__main__":
    harness.main()
