"""A crowd of hostile peers, each with a habit of its own, until it is ended.

  python3 hostile.py ENDPOINT IMAGE PRODUCT SECONDS COUNT

It runs in a process of its own, for peers like these sit on other machines: who starts it gives it
what the processors have left. Requests are built once, not for each call. Whatever the daemon does
to them they begin anew. Prints a line of JSON: how many connections each habit opened.
"""
import itertools
import json
import os
import random
import socket
import struct
import sys
import threading
import time

import rpc
from protowire import SCHEMA, chunk

MIB = 1 << 20


class Request:
    """A call's frame but for its stream."""

    def __init__(self, service, method, fields=None, payload=None):
        self.response_type = SCHEMA.methods[(service, method)][1]
        if payload is None:
            payload = SCHEMA.encode(SCHEMA.methods[(service, method)][0], fields)
        self.data = rpc.request_frame(rpc.PACKAGE + service, method, payload)

    def start(self, c):
        stream, c.next_stream = c.next_stream, c.next_stream + 2
        c.types[stream] = self.response_type
        c.send_bytes(struct.pack(">IIBB", len(self.data), stream, 1, 0))
        c.send_bytes(self.data)
        return stream

    def ask(self, c):
        return c.wait(self.start(c))


class Peer:
    def __init__(self, stage, habit, seed):
        self.stage, self.habit = stage, habit
        self.rng = random.Random(seed)
        self.opened = 0

    def run(self):
        while not self.stage.over():
            try:
                with rpc.Connection(self.stage.endpoint, timeout_s=1) as c:
                    self.opened += 1
                    self.habit(self, c)
            except (rpc.Closed, OSError):
                self.wait(0.02)

    def wait(self, seconds):
        self.stage.ended.wait(seconds)

    # ---- habits: each goes on until the daemon or the stage ends it

    def drip(self, c, data, pause_s=0.05):
        for byte in data:
            if self.stage.over():
                return
            c.send_bytes(bytes([byte]))
            self.wait(pause_s)

    def silent(self, c):
        c.sock.settimeout(0.5)
        while not self.stage.over():
            try:
                if not c.sock.recv(1):
                    return
            except TimeoutError:
                pass

    def slow_header(self, c):
        c.call("Server", "Ping")
        self.drip(c, struct.pack(">IIBB", 60000, 3, 1, 0) * 1000, 0.5)

    def slow_body(self, c):
        self.drip(c, struct.pack(">IIBB", 60000, 1, 1, 0) + b"\x0a" * 60000)

    def half_frame(self, c):
        """Nearly a MiB at once, and then nothing but a byte now and then."""
        c.send_bytes(struct.pack(">IIBB", MIB, 1, 1, 0) + b"\x0a" * (MIB - 2000))
        self.drip(c, b"\x0a" * 1900, 0.1)

    def deaf(self, c):
        """Asks for megabytes, and reads none or a byte now and then."""
        found = c.call("DataProducts", "Get", image=self.stage.image, name=self.stage.product)
        read = Request("DataProducts", "Read",
                       {"image": rpc.image_ref(self.stage.image), "name": self.stage.product,
                        "length": MIB, "identity": found["product"]["identity"]})
        c.sock.settimeout(0.5)
        while not self.stage.over():
            try:
                read.start(c)
            except TimeoutError:
                break
        for _ in range(1000):
            if self.stage.over() or not c.sock.recv(1):
                return
            self.wait(0.1)

    def flood(self, c):
        """Pings as fast as they go, answers read."""
        data = rpc.request_frame("spaceblock.v1.Server", "Ping", chunk(1, b"x" * 20))
        for first in itertools.count(1, 128):
            if self.stage.over() or first > 1 << 30:
                return
            c.send_bytes(b"".join(struct.pack(">IIBB", len(data), first + 2 * n, 1, 0) + data
                                  for n in range(64)))
            for _ in range(64):
                c.read_frame()

    def oversized(self, c):
        for stream in range(1, 1 << 20, 2):
            size = self.rng.choice((2 * MIB, 4 * MIB, 15 * MIB))
            c.send_bytes(struct.pack(">IIBB", size, stream, 1, 0))
            for _ in range(size // MIB):
                c.send_bytes(b"\0" * MIB)
                if self.stage.over():
                    return
            c.read_frame()

    def growing(self, c):
        """Requests that unpack to far more than they are."""
        while not self.stage.over():
            for request in self.stage.growing:
                request.ask(c)

    def garbage(self, c):
        if self.rng.random() < 0.5:
            c.send_bytes(self.rng.randbytes(4096))
        else:
            for stream in range(1, 200, 2):
                c.send_frame(stream, self.rng.randbytes(self.rng.randrange(300)))
            c.sock.shutdown(socket.SHUT_WR)
        while c.sock.recv(1 << 16):
            pass
        self.wait(0.02)

    def many_calls(self, c):
        """More in flight than may be, then gone without an answer."""
        for _ in range(300):
            for request in self.stage.many:
                request.start(c)
        self.wait(0.05)

    def churn(self, c):
        if self.rng.random() < 0.3:
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wait(0.005)

    def uploader(self, c):
        """Reserves space and writes chunks that are wrong."""
        while not self.stage.over():
            reply = c.ask("Uploads", "Start", {"size": MIB, "product": {
                "image": rpc.image_ref(self.stage.image), "name": b"h%d" % id(self)}})
            if reply.code:
                self.wait(0.1)
                continue
            upload = reply.body["upload_id"]
            write = Request("Uploads", "Write", {"upload_id": upload, "offset": 0,
                                                 "data": b"u" * MIB, "crc32c": 1})
            for _ in range(10):
                write.ask(c)
            c.ask("Uploads", "Abort", {"upload_id": upload})


HABITS = (Peer.silent, Peer.slow_header, Peer.slow_body, Peer.half_frame, Peer.deaf, Peer.flood,
          Peer.oversized, Peer.growing, Peer.garbage, Peer.many_calls, Peer.churn, Peer.uploader)


class Stage:
    def __init__(self, endpoint, image, product, seconds):
        self.endpoint, self.image, self.product = endpoint, image, product.encode()
        self.ended = threading.Event()
        empty = b"\x1a\x00" * 32000  # submessages
        unknown = b"\xf8\x07\x01" * (MIB // 3)  # fields that no message has
        self.growing = (Request("Params", "BatchPut", payload=empty),
                        Request("Events", "Append", payload=empty),
                        Request("Uploads", "Write", payload=unknown))
        ref = rpc.image_ref(image)
        self.many = (Request("Events", "List", {"image": ref, "limit": 16000}),
                     Request("Images", "Check", {"image": ref}))
        self.until = time.monotonic() + seconds

    def over(self):
        if time.monotonic() >= self.until:
            self.ended.set()
        return self.ended.is_set()


def main():
    endpoint, image, product, seconds, count = sys.argv[1:]
    assert all(SCHEMA.methods.get(m) for m in (("Uploads", "Write"), ("Events", "Append")))
    stage = Stage(endpoint, image, product, float(seconds))
    only = [h for h in HABITS if h.__name__ in os.environ.get("SPB_HABITS", "").split(",")]
    peers = [Peer(stage, habit, n) for n, habit in
             zip(range(int(count)), itertools.cycle(only or HABITS))]
    threads = [threading.Thread(target=peer.run) for peer in peers]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    opened = {habit.__name__: sum(p.opened for p in peers if p.habit is habit)
              for habit in HABITS}
    print(json.dumps(opened))


if __name__ == "__main__":
    main()
