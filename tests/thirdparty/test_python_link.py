"""The Python client's framing and connections, against servers that misbehave. No daemon needed."""
import itertools
import random
import threading
import time
import unittest
from unittest import mock

from pyclient import Peer, Server, frame
from google.rpc import error_details_pb2
from spaceblock_client import (Client, Code, DeadlineExceeded, Error, LinkLost, ProtocolError,
                               RpcError, crc32c, image)
from spaceblock_client import client as client_module
from spaceblock_client import framing, link, products
from spaceblock_client.crc32c import by_table
from spaceblock_client.messages import SERVICES, ImageRef, Request, Response, message_class

PARAMS = SERVICES["Params"].methods_by_name
PUT = message_class(PARAMS["Put"].input_type)
LONG_S = 60  # for what comes at once unless something is broken
SHORT_S = 0.1  # for what never comes
# The vectors of docs/PROTOCOL.md.
CALL = bytes.fromhex("0000003100000001 0100 0a0768342e4563686f 12044563686f 1a090a0568656c6c6f1007"
                     "20a392c3b907 2a0f0a0674656e616e741205616c706861")
ANSWER = bytes.fromhex("0000001900000001 0200 1217 0a0568656c6c6f1007 220c74656e616e743d616c706861")
REFUSAL = bytes.fromhex("0000000a00000001 0200 0a08 0805 1204 6e6f7065")


class Framing(unittest.TestCase):
    def test_vectors(self):
        request = Request(service="h4.Echo", method="Echo", timeout_nano=1_999_685_923,
                          payload=bytes.fromhex("0a0568656c6c6f1007"),
                          metadata=[{"key": "tenant", "value": "alpha"}])
        self.assertEqual(framing.request_frame(1, request.SerializeToString()), CALL)
        (stream, data), = framing.FrameReader().feed(REFUSAL)
        status = Response.FromString(data).status
        self.assertEqual((stream, status.code, status.message), (1, Code.NOT_FOUND, "nope"))

    def test_every_way_to_cut_two_frames(self):
        both = ANSWER + REFUSAL
        whole = [(1, ANSWER[10:]), (1, REFUSAL[10:])]
        self.assertEqual(list(framing.FrameReader().feed(both)), whole)
        for cut in range(len(both) + 1):
            reader = framing.FrameReader()
            self.assertEqual([*reader.feed(both[:cut]), *reader.feed(both[cut:])], whole)
        reader = framing.FrameReader()
        self.assertEqual([f for byte in both for f in reader.feed(bytes([byte]))], whole)

    def test_largest_frame_and_the_next(self):
        (_, data), = framing.FrameReader().feed(frame(1, bytes(framing.DATA_MAX)))
        self.assertEqual(len(data), framing.DATA_MAX)
        for size in (framing.DATA_MAX + 1, 1 << 24, (1 << 32) - 1):
            with self.assertRaisesRegex(ProtocolError, str(size)):
                list(framing.FrameReader().feed(frame(1, b"", size=size)))
        with self.assertRaises(ValueError):
            framing.request_frame(1, bytes(framing.DATA_MAX + 1))

    def test_types_other_than_a_response(self):
        for kind in (0, 1, 3, 255):
            with self.assertRaisesRegex(ProtocolError, f"type {kind}"):
                list(framing.FrameReader().feed(frame(1, b"x", kind)))

    def test_end_of_the_stream(self):
        for cut in range(len(ANSWER)):
            reader = framing.FrameReader()
            self.assertEqual(list(reader.feed(ANSWER[:cut])), [])
            with self.assertRaisesRegex(LinkLost, "middle" if cut else "closed"):
                reader.finish()


class Crc(unittest.TestCase):
    def test_vectors_and_pieces(self):
        for function in (crc32c, by_table):
            self.assertEqual(function(b""), 0)
            self.assertEqual(function(b"123456789"), 0xe3069283)
            self.assertEqual(function(bytes(32)), 0x8a9136aa)
            self.assertEqual(function(b"456789", function(b"123")), 0xe3069283)


class Hostile(unittest.TestCase):
    """Whatever a server sends: the call raises an Error, and the client can go on."""

    def server(self, *scripts):
        server = Server(*scripts)
        self.addCleanup(server.close)
        return server

    def client(self, server, **how):
        client = Client(server.endpoint, **{"timeout_s": LONG_S, **how})
        self.addCleanup(client.close)  # before the server's
        return client

    def ping(self, client, payload=b"x", **how):
        self.assertEqual(client.Server.Ping(payload=payload, **how).payload, payload)

    def raises_and_goes_on(self, expected, script, words=""):
        """The first connection is the script's, later ones are served well."""
        server = self.server(script, Peer.echo_all)
        client = self.client(server)
        with self.assertRaisesRegex(expected, words):
            client.Server.Ping(payload=b"x", retry=False)
        self.ping(client)

    def send_instead(self, make):
        """A script: answers the first request with the bytes that make(stream) gives."""
        def script(peer):
            stream, _ = peer.request()
            peer.send(make(stream))
            peer.echo_all()
        return script

    def test_bad_frames(self):
        pong = Response(payload=b"").SerializeToString()
        for words, make in {
                "4194305 bytes": lambda s: frame(s, b"", size=4194305),
                "4294967295 bytes": lambda s: b"\xff" * 100,
                "type 1": lambda s: frame(s, pong, kind=1),
                "type 80": lambda s: b"\0" * 8 + b"P\0",
                "1213486160 bytes": lambda s: b"HTTP/1.1 400 Bad Request\r\n\r\n",
                "stream 0,": lambda s: frame(0, pong),
                "stream 2,": lambda s: frame(s + 1, pong),
                "stream 3,": lambda s: frame(s + 2, pong),
                "stream 4294967295,": lambda s: frame(0xffffffff, pong)}.items():
            with self.subTest(words):
                self.raises_and_goes_on(ProtocolError, self.send_instead(make), words)

    def test_bad_envelopes_and_payloads(self):
        for what, data in {
                "envelope": b"\xff" * 20, "cut envelope": b"\x12\x7f",
                "status is no message": b"\x0a\x02\xff\xff",
                "message is no UTF-8": b"\x0a\x04\x12\x02\xff\xfe",
                "payload": Response(payload=b"\x0a\x7f").SerializeToString()}.items():
            with self.subTest(what):
                self.raises_and_goes_on(ProtocolError,
                                        self.send_instead(lambda s, d=data: frame(s, d)), "parse")

    def test_connections_that_end(self):
        def at_once(peer):
            pass

        def after_the_request(peer):
            peer.request()

        self.raises_and_goes_on(LinkLost, at_once)
        self.raises_and_goes_on(LinkLost, after_the_request, "closed")
        answer = frame(1, Response(payload=b"\x0a\x01x").SerializeToString())
        for cut in range(1, len(answer)):
            def truncated(peer, cut=cut):
                peer.request()
                peer.send(answer[:cut])
            self.raises_and_goes_on(LinkLost, truncated, "middle of a frame")

    def test_second_answer_to_one_call(self):
        hung_up = threading.Event()

        def twice(peer):
            stream, request = peer.request()
            peer.answer(stream, request.payload)
            peer.answer(stream, request.payload)
            self.assertEqual(peer.sock.recv(1), b"")
            hung_up.set()

        server = self.server(twice, Peer.echo_all)
        client = self.client(server)
        self.ping(client)
        self.assertTrue(hung_up.wait(LONG_S))
        self.ping(client)
        self.assertEqual(client.connections_made, 2)

    def test_random_bytes(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        good = frame(1, Response(payload=b"\x0a\x01x").SerializeToString())

        def noise(peer):
            peer.request()
            data = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            peer.send(bytes(data[:rng.randrange(len(data) + 1)]))

        client = self.client(self.server(noise))
        for _ in range(300):
            try:
                client.Server.Ping(payload=b"x", retry=False)
            except Error as error:
                self.assertTrue(str(error), f"seed {seed}")

    def test_errors_with_odd_details(self):
        for code, details, reason in (
                (5, [("type.googleapis.com/google.rpc.ErrorInfo", b"\x0a\x01R\x12\x01d")], "R"),
                (5, [("type.googleapis.com/google.rpc.ErrorInfo", b"\xff\xff")], ""),
                (5, [("google.rpc.ErrorInfo", b"\x0a\x01R")], "R"),
                (5, [("", b""), ("/", b"x"), ("a/b.Unknown", b"\xff")], ""),
                (99, [], ""), (-1, [], "")):
            def script(peer, code=code, details=details):
                stream, _ = peer.request()
                peer.answer(stream, code=code, message="m", details=[
                    {"type_url": url, "value": value} for url, value in details])
                peer.echo_all()

            with self.subTest(details):
                client = self.client(self.server(script))
                with self.assertRaises(RpcError) as caught:
                    client.Server.Ping(payload=b"x")
                self.assertEqual((caught.exception.code, caught.exception.message), (code, "m"))
                self.assertEqual(caught.exception.reason, reason)
                self.ping(client)
                self.assertEqual(client.connections_made, 1)

    # ---- deadlines

    def test_silent_server_and_its_late_answer(self):
        go = threading.Event()

        def late(peer):
            stream, request = peer.request()
            go.wait(LONG_S)
            peer.answer(stream, request.payload)
            peer.echo_all()

        client = self.client(self.server(late))
        with self.assertRaises(DeadlineExceeded) as caught:
            client.Server.Ping(payload=b"early", timeout_s=SHORT_S)
        self.assertEqual((caught.exception.code, caught.exception.reason),
                         (Code.DEADLINE_EXCEEDED, "DEADLINE"))
        go.set()
        self.ping(client, b"next")
        self.assertEqual(client.connections_made, 1)

    def test_server_that_does_not_read(self):
        go = threading.Event()

        def deaf(peer):
            go.wait(LONG_S)

        client = self.client(self.server(deaf, Peer.echo_all))
        began = time.monotonic()
        with self.assertRaisesRegex(DeadlineExceeded, "did not read"):
            client.Server.Ping(payload=bytes(4_000_000), timeout_s=5 * SHORT_S)
        self.assertLess(time.monotonic() - began, LONG_S / 2)
        go.set()
        self.ping(client)
        self.assertEqual(client.connections_made, 2)

    def test_deadline_is_told(self):
        told = []

        def note(peer):
            stream, request = peer.request()
            told.append(request.timeout_nano)
            peer.answer(stream, request.payload)

        self.ping(self.client(self.server(note)), timeout_s=LONG_S)
        self.assertGreater(told[0], 0)
        self.assertLessEqual(told[0], LONG_S * 1e9)

    # ---- trying again

    def test_lost_link_repeats_the_same_request(self):
        seen = []

        def lose(peer):
            seen.append(peer.request()[1])

        def serve(peer):
            stream, request = peer.request()
            seen.append(request)
            peer.answer(stream, b"\x08\x07")

        waits = []
        with mock.patch.object(client_module.random, "uniform",
                               lambda low, high: waits.append((low, high)) or 0.001):
            client = self.client(self.server(lose, lose, lose, serve))
            request = PUT(image=image("a"), id=1, value=b"v")
            self.assertEqual(client.Params.Put(request).generation, 7)
        self.assertEqual(request.request_id, "")  # the caller's own stays as it was
        self.assertEqual(len({r.payload for r in seen}), 1)
        self.assertRegex(PUT.FromString(seen[0].payload).request_id, "^[0-9a-f-]{36}$")
        left = [r.timeout_nano for r in seen]
        self.assertEqual(left, sorted(left, reverse=True))
        self.assertEqual(waits, [(0, 0.05), (0, 0.1), (0, 0.2)])
        self.assertEqual(client.connections_made, 4)

    def test_request_id_of_the_caller_is_kept(self):
        seen = []

        def note(peer):
            for _ in range(3):
                stream, request = peer.request()
                seen.append(PUT.FromString(request.payload).request_id)
                peer.answer(stream)

        client = self.client(self.server(note))
        client.Params.Put(image=image("a"), request_id="mine")
        request = PUT(image=image("a"))
        client.Params.Put(request)
        client.Params.Put(request)
        self.assertEqual(seen[0], "mine")
        self.assertNotEqual(seen[1], seen[2])

    def test_errors_that_are_worth_another_try(self):
        wait_s = 0.25
        info = error_details_pb2.RetryInfo(retry_delay={"nanos": int(wait_s * 1e9)})
        retry = {"type_url": "type.googleapis.com/google.rpc.RetryInfo",
                 "value": info.SerializeToString()}
        info = error_details_pb2.ErrorInfo(reason="STILL_RUNNING", domain="spaceblock")
        running = {"type_url": "type.googleapis.com/google.rpc.ErrorInfo",
                   "value": info.SerializeToString()}

        def draining(peer):
            stream, _ = peer.request()
            peer.answer(stream, code=Code.UNAVAILABLE, details=[retry])
            stream, _ = peer.request()
            peer.answer(stream, code=Code.ABORTED, details=[running])
            stream, _ = peer.request()
            peer.answer(stream, code=Code.INTERNAL)
            peer.echo_all()

        client = self.client(self.server(draining))
        began = time.monotonic()
        with self.assertRaises(RpcError) as caught:
            client.Server.Ping()
        self.assertEqual(caught.exception.code, Code.INTERNAL)
        self.assertGreaterEqual(time.monotonic() - began, wait_s)
        self.ping(client)

    def test_gives_up_at_the_deadline(self):
        server = self.server(lambda peer: None)
        client = self.client(server)
        began = time.monotonic()
        with self.assertRaises(LinkLost):
            client.Server.Ping(timeout_s=1)
        self.assertLess(time.monotonic() - began, LONG_S / 2)
        self.assertGreater(client.connections_made, 2)

    # ---- many callers

    def test_answers_in_any_order(self):
        count = 50

        def shuffled(peer):
            requests = [peer.request() for _ in range(count)]
            for stream, request in random.sample(requests, count):
                peer.answer(stream, request.payload)

        client = self.client(self.server(shuffled))
        self.together(count, lambda n: self.ping(client, b"%d" % n))
        self.assertEqual(client.connections_made, 1)

    def test_no_more_calls_in_flight_than_the_daemon_takes(self):
        extra = 10

        def slow(peer):
            waiting = [peer.request() for _ in range(link.IN_FLIGHT_MAX)]
            peer.sock.settimeout(SHORT_S)
            with self.assertRaises(TimeoutError):
                peer.sock.recv(1)
            peer.sock.settimeout(LONG_S)
            for stream, request in waiting:
                peer.answer(stream, request.payload)
            peer.echo_all()

        client = self.client(self.server(slow))
        self.together(link.IN_FLIGHT_MAX + extra, lambda n: self.ping(client, b"%d" % n))
        self.assertEqual(client.connections_made, 1)

    def together(self, count, work):
        failures = []

        def guarded(n):
            try:
                work(n)
            except BaseException as error:  # handed to this thread
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def test_close_wakes_who_waits(self):
        asked = threading.Event()

        def silent(peer):
            peer.request()
            asked.set()
            peer.read(1)

        client = self.client(self.server(silent))
        closer = threading.Thread(target=lambda: asked.wait(LONG_S) and client.close())
        closer.start()
        with self.assertRaisesRegex(LinkLost, "client"):
            client.Server.Ping(payload=b"x")
        closer.join()
        with self.assertRaisesRegex(LinkLost, "closed"):
            client.Server.Ping(payload=b"x")

    def test_new_connection_before_stream_ids_run_out(self):
        holding, go = threading.Event(), threading.Event()

        def first(peer):
            held, request = peer.request()
            holding.set()
            peer.echo()
            peer.echo()
            go.wait(LONG_S)
            peer.answer(held, request.payload)
            self.assertEqual(peer.sock.recv(1), b"")  # it hangs up after the last answer

        with mock.patch.object(link, "STREAM_MAX", 5):
            client = self.client(self.server(first, Peer.echo_all))
            holder = threading.Thread(target=self.ping, args=(client, b"held"))
            holder.start()
            self.assertTrue(holding.wait(LONG_S))
            for payload in (b"3", b"5", b"on the next"):
                self.ping(client, payload)
            self.assertEqual(client.connections_made, 2)
            go.set()
            holder.join()


class Use(unittest.TestCase):
    def test_wrong_use(self):
        for bad in ("", "unix:", "tcp://localhost", "tcp://:1", "tcp://h:x", "http://h:1"):
            with self.assertRaises(ValueError), Client(bad) as client:
                client.Server.Ping()
        client = Client("unix:/nonexistent")
        with self.assertRaises(AttributeError):
            client.Nope
        with self.assertRaises(AttributeError):
            client.Params.Nope
        with self.assertRaises(TypeError):
            client.Params.Put(PUT(), id=1)
        with self.assertRaises(TypeError):
            client.Params.Get(PUT())
        with self.assertRaises(LinkLost):
            client.Server.Ping(timeout_s=SHORT_S)

    def test_image_references(self):
        self.assertEqual(image("a"), ImageRef(name=b"a"))
        self.assertEqual(image("0/a"), ImageRef(tenant=0, name=b"a"))
        self.assertNotEqual(image("0/a"), image("a"))


class RestartedUploads:
    """Uploads of a daemon that is started anew once, and has lost all but `durable` bytes then."""

    def __init__(self, restart_at, durable):
        self.data, self.restart_at, self.durable = b"", restart_at, durable

    def Start(self, **_):
        return mock.Mock(upload_id=b"u", chunk_size_max=100)

    def Write(self, upload_id, offset, data, crc32c):
        assert crc32c == by_table(data)
        if len(self.data) >= self.restart_at:
            self.data, self.restart_at = self.data[:self.durable], 1 << 30
        if offset != len(self.data):
            raise RpcError("Uploads.Write", Code.FAILED_PRECONDITION, "", "WRONG_STATE")
        self.data += data
        return mock.Mock(next_offset=len(self.data))

    def Status(self, **_):
        return mock.Mock(next_offset=len(self.data))

    def Finish(self, upload_id, crc32c):
        assert crc32c == by_table(self.data)
        return mock.Mock(product=self.data)


class Upload(unittest.TestCase):
    def test_goes_on_at_what_is_durable(self):
        data = random.Random(1).randbytes(1050)
        for restart_at, durable in itertools.product((100, 700, 1000), (0, 50, 100)):
            client = mock.Mock(Uploads=RestartedUploads(restart_at, durable))
            self.assertEqual(products.upload(client, image("a"), "p", data), data)

    def test_gives_the_space_back(self):
        client = mock.Mock()
        client.Uploads.Start.return_value = mock.Mock(upload_id=b"u", chunk_size_max=100)
        client.Uploads.Write.side_effect = RpcError("Uploads.Write", Code.INTERNAL, "", "IO_ERROR")
        with self.assertRaises(RpcError):
            products.upload(client, image("a"), "p", b"data")
        client.Uploads.Abort.assert_called_once_with(upload_id=b"u")


if __name__ == "__main__":
    unittest.main(verbosity=2)
