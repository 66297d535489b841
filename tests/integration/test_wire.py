"""Frames and envelopes: what any peer may send, right and wrong, and what it gets."""
import random
import socket
import struct

import harness
import rpc
from protowire import SCHEMA, chunk, parse, varint

PING = ("Server", "Ping")


class Wire(harness.SharedCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with cls.shared.connect() as c:
            c.create("a")
            c.create("scratch")
            c.put("a", 1, b"one")

    def ping(self, connection=None, payload=b"still here"):
        self.assertEqual((connection or self.c).call(*PING, payload=payload)["payload"], payload)

    def put_payload(self, **more):
        return SCHEMA.encode("PutParamRequest", dict(
            {"request_id": "11111111-2222-3333-4444-555555555555", "image": {"name": b"a"},
             "id": 9, "value": b"value"}, **more))

    # ---- frames

    def test_bytes_of_a_call(self):
        request = bytes.fromhex("0000002a" "00000001" "01" "00" "0a14"
                                ) + b"spaceblock.v1.Server" + bytes.fromhex("1204") + b"Ping"
        request += bytes.fromhex("1a07" "0a05") + b"hello" + bytes.fromhex("20a392c3b907")
        request = struct.pack(">I", len(request) - 10) + request[4:]
        answer = bytes.fromhex("00000009" "00000001" "02" "00" "1207" "0a05") + b"hello"
        for endpoint in (self.shared.unix, self.shared.tcp):
            with self.shared.connect(endpoint) as c:
                c.send_bytes(request)
                self.assertEqual(c.read_exactly(len(answer)), answer, endpoint)

    def test_bytes_one_at_a_time_and_many_calls_in_one_write(self):
        data = rpc.request_frame("spaceblock.v1.Server", "Ping", chunk(1, b"x"))
        for byte in struct.pack(">IIBB", len(data), 1, 1, 0) + data:
            self.c.send_bytes(bytes([byte]))
        self.assertEqual(self.c.read_frame()[0], 1)
        streams = list(range(3, 83, 2))
        self.c.send_bytes(b"".join(struct.pack(">IIBB", len(data), s, 1, 0) + data
                                   for s in streams))
        self.assertEqual(sorted(self.c.read_frame()[0] for _ in streams), streams)

    def test_other_frame_types_are_ignored(self):
        for kind in (0, 2, 3, 4, 255):
            for data in (b"", b"\0" * 1000, b"\xff" * 70000):
                self.c.send_frame(self.c.next_stream, data, kind)
                self.c.next_stream += 2
        self.ping()
        self.assertEqual(len(self.c.order), 1, "something answered a frame that is no request")

    def test_request_flags_are_ignored(self):
        data = rpc.request_frame("spaceblock.v1.Server", "Ping", chunk(1, b"x"))
        self.c.send_frame(1, data, flags=0xff)
        self.assertEqual(rpc.Reply(self.c.read_frame()[1], "PingResponse").code, rpc.OK)

    def test_even_stream_ids_and_zero(self):
        data = rpc.request_frame("spaceblock.v1.Server", "Ping")
        for stream in (0, 2, 0x7ffffffe, 0xfffffffe):
            self.c.send_frame(stream, data)
            got, raw = self.c.read_frame()
            self.assertEqual((got, rpc.Reply(raw, None).code), (stream, rpc.INVALID))
        self.ping()

    def test_stream_ids_must_rise(self):
        data = rpc.request_frame("spaceblock.v1.Server", "Ping")
        for stream, code in ((5, rpc.OK), (5, rpc.INVALID), (3, rpc.INVALID), (7, rpc.OK)):
            self.c.send_frame(stream, data)
            got, raw = self.c.read_frame()
            self.assertEqual((got, rpc.Reply(raw, None).code), (stream, code))

    def test_frame_over_the_limit_is_drained_and_answered(self):
        for size in (4194305, 0x00ffffff):
            stream = self.c.next_stream
            self.c.next_stream += 2
            self.c.send_bytes(struct.pack(">IIBB", size, stream, 1, 0))
            left = size
            while left:
                left -= len(piece := b"z" * min(left, 1 << 20))
                self.c.send_bytes(piece)
            got, raw = self.c.read_frame()
            reply = rpc.Reply(raw, None)
            self.assertEqual((got, reply.code), (stream, rpc.EXHAUSTED), reply)
            self.assertIn(str(size), reply.message)
            self.ping()

    def test_first_byte_of_a_header_that_is_not_zero_closes(self):
        for head in (b"\x01", b"\xff", b"GET / HTTP/1.1\r\n\r\n"):
            with self.shared.connect() as c:
                c.send_bytes(head + b"\0" * 9)
                self.assertTrue(c.at_end())
        self.ping()

    def test_truncated_frames(self):
        data = rpc.request_frame("spaceblock.v1.Params", "Put", self.put_payload())
        frame = struct.pack(">IIBB", len(data), 1, 1, 0) + data
        for cut in range(len(frame)):
            with self.shared.connect() as c:
                c.send_bytes(frame[:cut])
                c.sock.shutdown(socket.SHUT_WR)
                self.assertTrue(c.at_end(), f"an answer to the first {cut} bytes of a frame")
        self.refused(rpc.NOT_FOUND, self.c, "Params", "Get", {"image": "a", "id": 9})

    def test_half_closed_connection_gets_its_replies(self):
        streams = [self.c.start("Params", "Put", {"image": "a", "id": 2, "value": b"%d" % n})
                   for n in range(40)]
        self.c.sock.shutdown(socket.SHUT_WR)
        generations = [self.c.wait(s).body["generation"] for s in streams]
        self.assertEqual(generations, list(range(1, 41)))
        self.assertTrue(self.c.at_end())

    # ---- envelopes

    def test_unknown_services_and_methods(self):
        for service, method in (("spaceblock.v1.Params", "Nope"), ("spaceblock.v1.Params", ""),
                                ("", ""), ("spaceblock.v1.Nope", "Get"), ("Params", "Get"),
                                ("spaceblock.v1.params", "Get"), ("x" * 5000, "y" * 5000)):
            self.c.send_frame(self.c.next_stream, rpc.request_frame(service, method))
            self.c.next_stream += 2
            reply = rpc.Reply(self.c.read_frame()[1], None)
            self.assertEqual((reply.code, reply.reason), (rpc.UNIMPLEMENTED, "UNKNOWN_METHOD"))
            self.assertLess(len(reply.raw), 4096)

    def answer_to(self, data):
        self.c.send_frame(self.c.next_stream, data)
        self.c.next_stream += 2
        return rpc.Reply(self.c.read_frame()[1], None)

    def test_envelopes_that_do_not_parse(self):
        good = rpc.request_frame("spaceblock.v1.Server", "Ping")
        bad = {
            "cut field": good[:-1], "garbage": b"\xff" * 20, "length beyond": b"\x0a\x7f",
            "varint without end": good + b"\x20" + b"\xff" * 11, "group": good + b"\x0b",
            "field zero": good + b"\x00\x00",
            "service not UTF-8": chunk(1, b"\xff\xfe") + good[22:],
            "service with NUL": rpc.request_frame(b"spaceblock.v1.Server\0x", b"Ping"),
            "method with NUL": rpc.request_frame(b"spaceblock.v1.Server", b"Ping\0"),
            "negative timeout": good + b"\x20" + varint(-1),
            "metadata not UTF-8": rpc.request_frame("a", "b", metadata=[(b"\xff", b"v")]),
            "metadata cut": good + chunk(5, b"\x0a\x05ab"),
        }
        for what, data in bad.items():
            with self.subTest(what):
                reply = self.answer_to(data)
                self.assertEqual((reply.code, reply.reason), (rpc.INVALID, "INVALID_REQUEST"))
        self.ping()

    def test_unknown_fields_are_skipped_and_empty_request_is_unknown(self):
        data = rpc.request_frame("spaceblock.v1.Server", "Ping", chunk(1, b"x") + chunk(77, b"new"))
        reply = self.answer_to(data + chunk(99, b"later") + varint(98 << 3) + b"\x05")
        self.assertEqual(reply.code, rpc.OK)
        self.assertEqual(SCHEMA.decode("PingResponse", reply.payload)["payload"], b"x")
        self.assertEqual(self.answer_to(b"").code, rpc.UNIMPLEMENTED)

    def test_metadata_limits(self):
        def ask(metadata):
            return self.c.ask(*PING, {"payload": b"x"}, metadata=metadata)

        self.assertEqual(ask([(b"k%d" % n, b"v") for n in range(32)]).code, rpc.OK)
        self.assertEqual(ask([(b"k", b"v" * 8191)]).code, rpc.OK)
        for much in ([(b"k%d" % n, b"v") for n in range(33)], [(b"k", b"v" * 8192)],
                     [(b"k" * 9000, b"")], [(b"%d" % n, b"x" * 400) for n in range(32)]):
            reply = ask(much)
            self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "LIMIT_EXCEEDED"))
        self.ping()

    def test_control_messages_over_64_kib(self):
        self.assertEqual(len(self.c.call(*PING, payload=b"p" * 65000)["payload"]), 65000)
        for service, method, fields in (
                ("Params", "Put", {"image": "a", "id": 1, "value": b"v" * 70000}),
                ("Server", "Ping", {"payload": b"p" * 4000000}),
                ("Images", "Get", {"image": {"name": b"n" * 100000}})):
            reply = self.c.ask(service, method, fields)
            self.assertIn(reply.code, (rpc.EXHAUSTED, rpc.INVALID), reply)
        self.ping()

    # ---- payloads

    def test_wrong_wire_types(self):
        good = self.put_payload()
        for what, bad in {
                "id as bytes": chunk(3, b"abcd"), "value as number": varint(4 << 3) + b"\x05",
                "request_id as number": varint(1 << 3) + b"\x05",
                "image as number": varint(2 << 3) + b"\x05",
                "id as fixed32": varint(3 << 3 | 5) + b"\1\2\3\4",
                "name of the image as number": chunk(2, varint(2 << 3) + b"\x05")}.items():
            with self.subTest(what):
                reply = self.refused(rpc.INVALID, self.c, "Params", "Put", payload=good + bad)
                self.assertEqual(reply.reason, "INVALID_REQUEST")
        self.refused(rpc.NOT_FOUND, self.c, "Params", "Get", {"image": "a", "id": 9})

    def test_every_truncation_of_a_request(self):
        good = self.put_payload(id=8, expected_generation=0)
        whole = set()
        for number, value in parse(good):  # cuts between fields parse, and are judged as they are
            size = len(chunk(number, value)) if isinstance(value, bytes) else \
                len(varint(number << 3) + varint(value))
            whole.add((max(whole) if whole else 0) + size)
        for cut in range(len(good)):
            reply = self.c.ask("Params", "Put", payload=good[:cut])
            if cut not in whole:
                self.assertEqual(reply.code, rpc.INVALID, (cut, reply))
            else:
                self.assertIn(reply.code, (rpc.OK, rpc.INVALID), (cut, reply))
        self.ping()

    def test_hostile_messages_are_answered(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        kinds = sorted(SCHEMA.methods)
        with self.subTest(seed=seed):
            for _ in range(600):
                service, method = rng.choice(kinds)
                payload = bytearray(self.put_payload(image={"name": b"scratch"}))
                for _ in range(rng.randrange(1, 6)):
                    payload[rng.randrange(len(payload))] = rng.randrange(256)
                if method not in ("Delete", "Reopen", "Create"):
                    reply = self.c.ask(service, method, payload=bytes(payload))
                    self.assertIn(reply.code, range(17))
            deep = b""
            for _ in range(5000):
                deep = chunk(2, deep)
            self.c.ask("Params", "Put", payload=deep[:60000])
            self.c.ask("Events", "Append", payload=b"\x1a\x00" * 30000)
            self.ping()

    def test_errors_name_the_field(self):
        for field, fields in {
                "request_id": {"request_id": "x", "image": "a", "id": 1},
                "image.name": {"image": "", "id": 1},
                "image.tenant": {"image": {"tenant": 65536, "name": b"a"}, "id": 1},
                "image": {"id": 1},
                "value": {"image": "a", "id": 1, "value": b"v" * 241}}.items():
            with self.subTest(field):
                reply = self.refused(rpc.INVALID, self.c, "Params", "Put", fields)
                self.assertEqual(reply.violations(), [field], reply)

    # ---- server and health

    def test_info_describes_the_service(self):
        info = self.c.call("Server", "Info")
        self.assertEqual(info["message_bytes_max"], 4 << 20)
        self.assertEqual(info["chunk_bytes_max"], 1 << 20)
        self.assertEqual(info["control_bytes_max"], 64 << 10)
        self.assertEqual((info["calls_in_flight_max"], info["connections_max"]), (64, 1024))
        self.assertEqual((info["tenant"], info["image_count"]), (1, 2))
        self.assertTrue(info["version"])
        self.assertLessEqual({b"params", b"events", b"products", b"uploads", b"watch", b"guests"},
                             set(info["features"]))
        found = set()
        for _, file in parse(info["file_descriptor_set"]):
            for number, service in parse(file):
                if number == 6:
                    fields = list(parse(service))
                    name = next(v for n, v in fields if n == 1).decode()
                    found |= {(name, next(v for k, v in parse(m) if k == 1).decode())
                              for n, m in fields if n == 2}
        self.assertEqual(found, set(SCHEMA.methods))

    def test_health_under_both_names(self):
        for service in ("spaceblock.v1.Health", "grpc.health.v1.Health"):
            for name, want in (("", 1), ("spaceblock.v1.Params", 1), ("spaceblock.v1.Nope", None)):
                payload = SCHEMA.encode("HealthCheckRequest", {"service": name})
                reply = self.answer_to(rpc.request_frame(service, "Check", payload))
                if want:
                    body = SCHEMA.decode("HealthCheckResponse", reply.payload)
                    self.assertEqual((reply.code, body["status"]), (rpc.OK, want))
                else:  # SERVICE_UNKNOWN, or NOT_FOUND as gRPC has it
                    self.assertIn(reply.code, (rpc.OK, rpc.NOT_FOUND))


if __name__ == "__main__":
    harness.main()
