"""Each limit of a connection and of a call: what is over it is refused or ended, what is under it
is not, and the others do not feel it. Limits are set short, so that nobody waits for minutes.
"""
import ctypes
import errno
import itertools
import os
import pathlib
import socket
import struct
import threading
import time
import unittest

import harness
import rpc
from crc import crc32c
from faults import Faults
from harness import limits
from protowire import SCHEMA, chunk

KIB, MIB = 1 << 10, 1 << 20
PIDFD_GETFD = 438  # the system call's number, which is the same everywhere
SLACK_S = 20  # of a machine that does other things; the usual limits are above it


def header(size, stream=1, kind=1):
    return struct.pack(">IIBB", size, stream, kind, 0)


def paced(seconds):
    """For peers that do a little now and then; nothing is waited for."""
    threading.Event().wait(seconds)


class Base(harness.Case):
    def start(self, listen=None, env=None, **values):
        self.d = self.daemon(listen=listen, env=env,
                             args=["--http", "127.0.0.1:0", *limits(**values)])
        c = self.connect(self.d)
        c.call("Server", "Ping")
        return c

    def refused_for(self, reason):
        return self.d.metric("spaceblock_refusals_total", reason=reason)

    def lives(self, connection, pieces=(), pause_s=0.02, limit_s=SLACK_S):
        """Seconds until the daemon ends it, while the pieces are sent one by one."""
        started = time.monotonic()
        pieces = iter(pieces)
        connection.sock.settimeout(pause_s)
        while time.monotonic() - started < limit_s:
            try:
                connection.send_bytes(next(pieces, b""))
                if not connection.sock.recv(1 << 16):
                    break
            except TimeoutError:
                continue
            except (rpc.Closed, ConnectionResetError):
                break
        else:
            self.fail(f"still open after {limit_s} s")
        return time.monotonic() - started

    def ends_after(self, limit_s, connection, pieces=()):
        lived = self.lives(connection, pieces)
        self.assertGreater(lived, limit_s * 0.9)
        self.assertLess(lived, limit_s + SLACK_S / 2)

    @staticmethod
    def bytes_of(data):
        return (bytes([byte]) for byte in data)


class FirstFrame(Base):
    """From accept on, whatever comes: first_frame_ms."""

    def setUp(self):
        super().setUp()
        self.start(first_frame_ms=600, frame_ms=60000, idle_ms=60000)

    def ended(self, pieces=()):
        for endpoint in (self.d.unix, self.d.tcp):
            with self.d.connect(endpoint) as c:
                self.ends_after(0.6, c, pieces)
        self.assertEqual(self.refused_for("first_frame"), 2)

    def test_silence(self):
        self.ended()

    def test_bytes_of_a_header(self):
        self.ended([b"\0"] * 3)

    def test_bytes_of_a_frame(self):
        self.ended(list(self.bytes_of(header(5000) + b"\x0a" * 5000)))

    def test_bytes_of_a_frame_that_is_drained(self):
        self.ended(list(self.bytes_of(header(0xffffff) + b"\0" * 5000)))

    def test_a_large_frame_gets_no_more_time(self):
        self.ended([header(MIB)] + [b"\x0a" * 1000] * 900)

    def test_a_frame_in_time(self):
        with self.d.connect() as c:
            c.call("Server", "Ping")
            paced(0.8)
            c.call("Server", "Ping")


class Frames(Base):
    """frame_ms, and the time of its bytes at frame_bytes_per_s."""

    def greeted(self):
        c = self.connect(self.d)
        c.call("Server", "Ping")
        return c

    def test_slow_frames_end(self):
        self.start(frame_ms=500, frame_bytes_per_s=MIB)
        for pieces in ([b"\0"], [b"\0"] * 9, self.bytes_of(header(5000, 3) + b"\x0a" * 5000),
                       self.bytes_of(header(5000, 3, kind=9) + b"\x0a" * 5000)):
            self.ends_after(0.5, self.greeted(), pieces)
        self.assertEqual(self.refused_for("slow_frame"), 4)

    def test_a_drained_frame_is_no_exception(self):
        self.start(frame_ms=500, frame_bytes_per_s=64 * MIB)
        c = self.greeted()
        self.ends_after(0.5, c, self.bytes_of(header(0xffffff, 3) + b"\0" * 5000))

    def test_a_frame_may_take_the_time_of_its_bytes(self):
        self.start(frame_ms=100, frame_bytes_per_s=20000)
        c = self.greeted()
        data = rpc.request_frame("spaceblock.v1.Server", "Ping", chunk(1, b"x" * 40000))
        started = time.monotonic()
        c.send_bytes(header(len(data), 3))
        for at in range(0, len(data), 4000):  # 2 s are allowed, and 0.6 are taken
            c.send_bytes(data[at:at + 4000])
            paced(0.06)
        self.assertEqual(c.read_frame()[0], 3)
        self.assertGreater(time.monotonic() - started, 0.5)

    def test_each_frame_begins_anew(self):
        self.start(frame_ms=400)
        c = self.greeted()
        data = rpc.request_frame("spaceblock.v1.Server", "Ping", chunk(1, b"x"))
        for stream in range(3, 23, 2):
            frame = header(len(data), stream) + data
            c.send_bytes(frame[:20])
            paced(0.1)
            c.send_bytes(frame[20:])
            self.assertEqual(c.read_frame()[0], stream)


class Idle(Base):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.c = self.start(env=self.faults.environment(), idle_ms=500, frame_ms=500)
        self.addCleanup(self.faults.release_all)

    def test_idle_connections_end(self):
        with self.d.connect() as c:
            c.call("Server", "Ping")
            self.ends_after(0.5, c)
        self.assertGreaterEqual(self.refused_for("idle"), 1)

    def test_calls_keep_a_connection(self):
        with self.d.connect() as c:
            for _ in range(10):
                paced(0.15)
                c.call("Server", "Ping")

    def test_frames_that_are_no_calls_do_not(self):
        with self.d.connect() as c:
            c.call("Server", "Ping")
            self.ends_after(0.5, c, itertools.repeat(header(3, 1, kind=7) + b"abc"))

    def test_bytes_of_such_frames_do_not(self):
        with self.d.connect() as c:
            c.call("Server", "Ping")
            junk = header(20, 1, kind=7) + b"x" * 20
            self.ends_after(0.5, c, itertools.cycle(self.bytes_of(junk * 2)))

    def test_a_call_in_work_is_waited_for(self):
        with self.d.connect() as c:
            c.create("a")
        hold = self.faults.hold("flush", "images/1/a.img")
        with self.d.connect() as c:
            stream = c.start("Params", "Put", {"image": "a", "id": 1, "value": b"v"})
            hold.wait()
            self.assertTrue(c.quiet_for(1.5))
            hold.release()
            self.assertEqual(c.wait(stream).code, rpc.OK)


class Output(Base):
    """Answers that nobody reads."""

    def product(self, connection):
        connection.create("a", blocks=4096, sector_size=4096)
        connection.upload("a", b"p", b"P" * (4 * MIB))
        found = connection.call("DataProducts", "Get", image="a", name=b"p")["product"]
        return {"image": "a", "name": b"p", "length": MIB, "identity": found["identity"]}

    def ask_and_read_nothing(self, connection, fields, most=500):
        connection.sock.settimeout(1)
        for _ in range(most):
            try:
                connection.start("DataProducts", "Read", fields)
            except TimeoutError:
                return

    def calls_taken(self):
        return self.d.metric("spaceblock_rpc_calls_total", method="Read", code="OK",
                             service="spaceblock.v1.DataProducts")

    def greeted(self, endpoint=None):
        """One that the daemon has surely taken, and that is the second one."""
        self.eventually(lambda: self.d.metric("spaceblock_connections") == 1, "another is left")
        c = self.d.connect(endpoint)
        c.call("Server", "Ping")
        return c

    def gone(self, connection, limit_s):
        """Seconds until it is closed, without reading: that would be progress."""
        started = time.monotonic()
        self.eventually(lambda: self.d.metric("spaceblock_connections") == 1, "still open",
                        limit_s)
        connection.close()
        return time.monotonic() - started

    def test_who_reads_nothing_is_paused_and_ended(self):
        fields = self.product(self.start(output_stall_ms=1500))
        for endpoint in (self.d.unix, self.d.tcp):
            c = self.greeted(endpoint)
            before = self.calls_taken()
            self.ask_and_read_nothing(c, fields)
            self.gone(c, SLACK_S)
            self.assertIn(self.calls_taken() - before, range(2, 64))
        self.assertEqual(self.refused_for("output_stalled"), 2)

    def test_a_byte_now_and_then_is_no_progress(self):
        fields = self.product(self.start(output_stall_ms=1500))
        for endpoint in (self.d.unix, self.d.tcp):
            c = self.greeted(endpoint)
            for _ in range(6):
                c.start("DataProducts", "Read", fields)
            started = time.monotonic()
            c.sock.settimeout(SLACK_S)
            read = 0
            while self.d.metric("spaceblock_connections") == 2:
                read += len(c.sock.recv(1))
                self.assertLess(time.monotonic() - started, SLACK_S)
                paced(0.02)
            self.assertGreater(read, 10)
            self.assertGreater(time.monotonic() - started, 1.4)
            c.close()

    def test_a_steady_slow_reader_is_served(self):
        fields = self.product(self.start(output_stall_ms=1500, frame_bytes_per_s=64 * KIB))
        with self.d.connect(self.d.tcp) as c:
            # A large window opens in large steps.
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
            for _ in range(6):
                c.start("DataProducts", "Read", fields)
            total = 0
            started = time.monotonic()
            while total < 3 * MIB:  # at about four times the slowest rate
                total += len(c.read_exactly(16 * KIB))
                paced(0.05)
            self.assertGreater(time.monotonic() - started, 4)
            self.assertEqual(self.refused_for("output_stalled"), 0)

    def test_who_was_paused_goes_on(self):
        fields = self.product(self.start())
        with self.d.connect() as c:
            streams = []

            def ask():
                for _ in range(200):
                    streams.append(c.start("DataProducts", "Read", fields))

            asking = threading.Thread(target=ask)
            asking.start()
            self.eventually(lambda: self.d.metric("spaceblock_buffers_bytes") > MIB, "no pause")
            for _ in range(200):
                stream, data = c.read_frame()
                self.assertEqual(rpc.Reply(data, "ReadProductResponse").code, rpc.OK, stream)
            asking.join()
        self.assertLess(self.d.metric("process_resident_memory_bytes"), 128 * MIB)

    def test_too_much_output(self):
        fields = self.product(self.start(
            output_pause_bytes=64 * MIB, connection_replies_max_bytes=256 * MIB,
            buffers_max_bytes=512 * MIB, output_max_bytes=64 * MIB))
        self.d.stop()
        self.d.args += limits(output_pause_bytes=8 * MIB, output_max_bytes=8 * MIB,
                              connection_replies_max_bytes=256 * MIB)
        self.d.restart()
        watch = self.connect(self.d)
        watch.call("Server", "Ping")
        identity = watch.call("DataProducts", "Get", image="a", name=b"p")["product"]["identity"]
        c = self.greeted()
        for _ in range(40):
            c.start("DataProducts", "Read", dict(fields, identity=identity))
        self.gone(c, SLACK_S)
        self.assertEqual(self.refused_for("output_max"), 1)


class Calls(Base):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)

    def held(self, connection):
        """A put that waits in its flush."""
        self.addCleanup(self.faults.release_all)  # before the daemon is to end
        connection.create("a")
        hold = self.faults.hold("flush", "images/1/a.img")
        stream = self.put(connection)
        hold.wait()
        return hold, stream

    @staticmethod
    def put(connection, number=1):
        return connection.start("Params", "Put", {"image": "a", "id": number, "value": b"v"})

    def test_calls_in_flight(self):
        c = self.start(env=self.faults.environment(), calls_in_flight_max=4)
        hold, first = self.held(c)
        streams = [self.put(c, n) for n in range(2, 10)]
        for stream in streams[3:]:
            reply = c.wait(stream)
            self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "LIMIT_EXCEEDED"), reply)
            self.assertIn("4", reply.message)
        with self.d.connect() as other:
            other.call("Server", "Ping")
        hold.release()
        for stream in [first, *streams[:3]]:
            self.assertEqual(c.wait(stream).code, rpc.OK)
        self.assertEqual(c.call("Params", "Get", image="a", id=4)["param"]["value"], b"v")
        self.assertEqual(self.refused_for("calls_in_flight"), 5)

    def test_operations_queued_for_an_image(self):
        c = self.start(env=self.faults.environment(), image_queue_max=5)
        hold, first = self.held(c)
        streams = [self.put(c, n) for n in range(2, 9)]
        for stream in streams[4:]:
            self.assertEqual(c.wait(stream).code, rpc.EXHAUSTED)
        self.assertEqual(self.d.metric("spaceblock_queued_operations"), 5)
        hold.release()
        for stream in [first, *streams[:4]]:
            self.assertEqual(c.wait(stream).code, rpc.OK)
        self.assertEqual(self.d.metric("spaceblock_queued_operations"), 0)

    def test_requests_in_work_on_a_connection(self):
        """Beyond that it is not read; once there is room it goes on."""
        c = self.start(env=self.faults.environment(), connection_requests_max_bytes=64 * KIB)
        hold, first = self.held(c)
        streams = [self.put(c, n % 8) for n in range(40)]
        self.eventually(lambda: self.d.metric("spaceblock_queued_operations") >= 7, "not taken")
        self.assertLess(self.d.metric("spaceblock_queued_operations"), 16)
        hold.release()
        for stream in [first, *streams]:
            self.assertEqual(c.wait(stream).code, rpc.OK)

    def test_drain(self):
        c = self.start(env=self.faults.environment(), drain_ms=400)
        hold, _ = self.held(c)
        started = time.monotonic()
        self.d.terminate()
        self.eventually(lambda: "drain-cut-off" in self.d.log(), "the drain goes on")
        self.assertGreater(time.monotonic() - started, 0.35)
        hold.release()
        self.d.wait(1)


class Sizes(Base):
    """What is too large, by its announcement, its bytes or what it unpacks to."""

    def over(self, reply):
        self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "LIMIT_EXCEEDED"), reply)

    def test_metadata(self):
        c = self.start(metadata_pairs_max=2, metadata_max_bytes=20)

        def ask(*metadata):
            return c.ask("Server", "Ping", {"payload": b"x"}, metadata=metadata)

        self.assertEqual(ask((b"k", b"v"), (b"k", b"v")).code, rpc.OK)
        self.assertEqual(ask((b"k" * 10, b"v" * 10)).code, rpc.OK)
        self.over(ask((b"k", b"v"), (b"k", b"v"), (b"k", b"v")))
        self.over(ask((b"k" * 10, b"v" * 11)))
        c.call("Server", "Ping")

    def test_control_messages(self):
        c = self.start(control_max_bytes=4096)
        self.assertEqual(c.ask("Params", "Put", payload=b"\x0a" + b"\x00" * 4000).code,
                         rpc.INVALID)
        self.over(c.ask("Params", "Put", payload=b"\x0a" + b"\x00" * 4100))
        c.call("Server", "Ping")

    def test_chunks(self):
        c = self.start(chunk_max_bytes=64 * KIB)
        c.create("a", blocks=2048)
        started = c.call("Uploads", "Start", size=100000, product={
            "image": rpc.image_ref("a"), "name": b"p"})
        self.assertEqual(started["chunk_size_max"], 64 * KIB)
        data = b"d" * 100000

        def write(offset, size):
            piece = data[offset:offset + size]
            return c.ask("Uploads", "Write", {"upload_id": started["upload_id"], "offset": offset,
                                              "data": piece, "crc32c": crc32c(piece)})

        self.assertEqual(write(0, 64 * KIB + 1).code, rpc.INVALID)
        self.assertEqual(write(0, 64 * KIB).code, rpc.OK)
        self.assertEqual(write(64 * KIB, 64 * KIB).code, rpc.OK)
        c.call("Uploads", "Finish", upload_id=started["upload_id"], crc32c=crc32c(data))
        self.assertEqual(c.product("a", b"p", 64 * KIB), data)
        identity = c.call("DataProducts", "Get", image="a", name=b"p")["product"]["identity"]
        self.refused(rpc.INVALID, c, "DataProducts", "Read", {
            "image": "a", "name": b"p", "identity": identity, "length": 64 * KIB + 1})

    def test_fields_of_a_request(self):
        c = self.start(request_fields_max=300)
        unknown = chunk(100, b"")
        self.assertEqual(c.ask("Server", "Ping", payload=unknown * 300).code, rpc.OK)
        self.over(c.ask("Server", "Ping", payload=unknown * 301))
        c.call("Server", "Ping")

    def hostile_payloads(self):
        yield "Params", "BatchPut", b"\x1a\x00" * 32000
        yield "Params", "BatchPut", chunk(3, b"\xa2\x06\x00" * 21000)
        yield "Events", "Append", b"\x1a\x00" * 32000
        yield "Events", "Append", chunk(3, b"\x0a\x00" * 31000)
        yield "Uploads", "Write", b"\x1a\x00" * (MIB // 2)
        yield "Uploads", "Write", b"\xa2\x06\x00" * (MIB // 3)

    def test_requests_that_would_grow(self):
        for values in ({}, {"call_memory_max_bytes": MIB, "request_fields_max": 1048576}):
            c = self.start(**values)
            before = self.d.peak_kb()
            for service, method, payload in self.hostile_payloads():
                for _ in range(5):
                    reply = c.ask(service, method, payload=payload)
                    self.assertIn(reply.code, (rpc.EXHAUSTED, rpc.INVALID), reply)
            if not self.d.is_sanitized():
                self.assertLess(self.d.peak_kb() - before, 48 * KIB)
            self.d.stop()

    def test_growth_is_what_the_memory_of_a_call_allows(self):
        c = self.start(call_memory_max_bytes=MIB, request_fields_max=1048576)
        reply = c.ask("Uploads", "Write", payload=b"\xa2\x06\x00" * (MIB // 3))
        self.over(reply)
        self.assertIn(str(MIB), reply.message)

    def test_four_mib_of_submessages_are_drained(self):
        c = self.start()
        before = self.d.peak_kb()
        data = rpc.request_frame("spaceblock.v1.Events", "Append", b"\x1a\x00" * (2 * MIB - 100))
        for stream in range(3, 13, 2):
            c.send_frame(stream, data)
            got, raw = c.read_frame()
            self.assertEqual(got, stream)
            self.over(rpc.Reply(raw, None))
        c.next_stream = 13
        c.call("Server", "Ping")
        self.assertEqual(self.refused_for("frame_size"), 5)
        if not self.d.is_sanitized():
            self.assertLess(self.d.peak_kb() - before, 8 * KIB)

    def test_uploads(self):
        c = self.start(uploads_max=3, upload_life_s=1)
        c.create("a", blocks=2048)

        def begin(name):
            return c.ask("Uploads", "Start", {"size": 100, "product": {
                "image": rpc.image_ref("a"), "name": name}})

        first = [begin(b"p%d" % n) for n in range(3)]
        self.assertEqual([r.code for r in first], [rpc.OK] * 3)
        self.over(begin(b"p3"))
        self.assertEqual(self.d.metric("spaceblock_uploads"), 3)
        self.eventually(lambda: begin(b"p4").code == rpc.OK, "uploads do not expire")
        self.refused(rpc.NOT_FOUND, c, "Uploads", "Status",
                     {"upload_id": first[0].body["upload_id"]})


class Connections(Base):
    def crowd(self, n):
        crowd = [self.d.connect(self.d.tcp if k % 2 else None) for k in range(n)]
        for c in crowd:
            self.addCleanup(c.close)
        return crowd

    def serves(self, connection):
        try:
            return connection.call("Server", "Ping") is not None
        except (rpc.Closed, OSError):
            return False

    def test_connections(self):
        c = self.start(connections_max=5)
        crowd = self.crowd(12)
        served = [one for one in crowd if self.serves(one)]
        self.assertEqual(len(served), 4)
        self.assertEqual(self.d.metric("spaceblock_connections"), 5)
        self.assertEqual(self.refused_for("connections_max"), 8)
        served[0].close()
        self.eventually(lambda: self.serves(self.crowd(1)[0]), "no place after one has left")
        c.call("Server", "Ping")

    def test_a_crowd_does_not_fill_the_log(self):
        self.start(connections_max=1)
        for c in self.crowd(200):
            self.assertFalse(self.serves(c))
        self.eventually(lambda: sum(int(line.partition(" count=")[2].split()[0])
                                    for line in self.lines()) == 200, "not all are told of")
        self.assertLess(len(self.lines()), 20)

    def lines(self):
        return [line for line in self.d.log().splitlines() if "event=connection-refused" in line]

    def test_tcp_options(self):
        """Of the daemon's own socket, as the kernel has them."""
        self.start(tcp_keepalive_s=7, tcp_user_timeout_ms=4000)
        with self.d.connect(self.d.tcp) as c:
            c.call("Server", "Ping")
            options = {name: self.option(c.sock.getsockname(), level, getattr(socket, name))
                       for level, name in ((socket.SOL_SOCKET, "SO_KEEPALIVE"),
                                           (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"),
                                           (socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
                                           (socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
                                           (socket.IPPROTO_TCP, "TCP_KEEPCNT"))}
        self.assertEqual(options, {"SO_KEEPALIVE": 1, "TCP_USER_TIMEOUT": 4000, "TCP_KEEPIDLE": 7,
                                   "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3})

    def option(self, peer, level, name):
        """Of the daemon's socket that is connected to this address."""
        pid = self.d.process.pid
        handle = os.pidfd_open(pid)
        try:
            for path in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                if not os.readlink(path).startswith("socket:"):
                    continue
                with self.taken(handle, int(path.name)) as sock:
                    if self.peer_of(sock) == peer:
                        return sock.getsockopt(level, name)
        finally:
            os.close(handle)
        return self.fail(f"the daemon has no connection with {peer}")

    @staticmethod
    def taken(handle, number):
        """A socket of another process."""
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(PIDFD_GETFD, handle, number, 0)
        if fd < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
            raise unittest.SkipTest(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)

    @staticmethod
    def peer_of(sock):
        try:
            return sock.getpeername()
        except OSError:  # it listens
            return None

    def test_info_tells_the_limits_in_force(self):
        c = self.start(connections_max=77, idle_ms=5000, chunk_max_bytes="512 KiB")
        info = c.call("Server", "Info")
        told = {limit["name"].decode(): limit["value"] for limit in info["limits"]}
        self.assertEqual((told["connections_max"], told["idle_ms"]), (77, 5000))
        self.assertEqual((info["connections_max"], info["chunk_bytes_max"]), (77, 512 * KIB))
        self.assertEqual(told["first_frame_ms"], 10000)
        self.assertGreater(len(told), 35)
        self.assertIn("limits", SCHEMA.messages["ServerInfoResponse"])

    def test_half_closed_ones_are_not_kept(self):
        self.start()
        for _ in range(20):
            c = self.d.connect()
            c.call("Server", "Ping")
            c.sock.shutdown(socket.SHUT_WR)
            self.assertTrue(c.at_end())
            c.close()
        self.eventually(lambda: self.d.metric("spaceblock_connections") == 1, "they stay")


if __name__ == "__main__":
    harness.main()
