"""Consoles of guests: much output, many readers, one writer; nobody holds up a guest."""
import hashlib
import os
import threading
import time

import harness
import rpc
from guests import GuestCase
from harness import run_cli
from machine import CONSOLE, END

BYTES = int(os.environ.get("SPB_CONSOLE_BYTES", "5000000"))
PIECE = 16 << 10
RING = 256 << 10
REPLIES = 64 << 10  # of a connection, before it is not read any more
GROWTH_KB = 1280  # measured: 532, for 5 MB


class Console(GuestCase):
    def setUp(self):
        super().setUp()
        self.d = self.guest_daemon(args=harness.limits(console_memory_bytes=RING,
                                                       connection_replies_max_bytes=REPLIES,
                                                       console_log_max_bytes=2 * BYTES + (1 << 20)))

    def follow(self, guest, digests, n):
        """A reader: everything, as a hash of it."""
        digest, offset, calls, begin = hashlib.sha256(), 0, 0, time.monotonic()
        with self.d.connect() as c:
            while True:
                piece = c.call("Guests", "ReadConsole", guest={"name": guest.name}, offset=offset,
                               limit=PIECE, wait_ms=20000)
                self.assertEqual((piece["offset"], piece["skipped"]), (offset, 0))
                digest.update(piece["data"])
                offset += len(piece["data"])
                calls += 1
                if not piece["data"] and piece["state"] == 6:
                    break
        digests[n] = (offset, digest.hexdigest())
        # QEMU sends byte by byte; what comes within 5 ms is told at once, to save calls.
        self.assertLess(calls, 400 * (time.monotonic() - begin) + 100)

    def stalled(self, guest):
        """One that asks for much and takes nothing."""
        c = self.connect(self.d)
        for _ in range(32):
            c.start("Guests", "ReadConsole", {"guest": {"name": guest.name}, "offset": 0,
                                              "limit": PIECE, "wait_ms": 60000})
        return c

    def test_much_output_and_readers_of_every_kind(self):
        guest = self.guest("loud", steer={CONSOLE: BYTES, END: "poweroff"}, start=False)
        self.d.stop()  # a daemon without freed memory, in which what it kept would not show
        self.d.restart()
        guest.reconnect()
        before, digests = self.d.memory_kb("RssAnon"), {}
        self.stalled(guest)
        guest.start()
        done, memory = threading.Event(), [before]

        def measure():
            while not done.wait(0.2):
                memory.append(self.d.memory_kb("RssAnon"))

        measuring = threading.Thread(target=measure)
        measuring.start()
        try:
            harness.threads(2, lambda n: self.follow(guest, digests, n))
        finally:
            done.set()
            measuring.join()
        guest.reconnect()  # the daemon closes what is idle for long
        found = guest.ended()
        self.assertEqual(found["ending"], "poweroff", found)
        self.assertGreater(found["console_bytes"], BYTES)
        self.assertEqual(digests[0], digests[1])
        self.assertEqual(digests[0][0], found["console_bytes"])
        grown = max(memory) - before
        print(f"{found['console_bytes']} bytes printed, {grown} KiB more memory")
        if not self.d.is_sanitized():
            # The ring, answers that are promised to three readers, and what a guest takes.
            self.assertLess(grown, GROWTH_KB)
        # What a late reader finds is the same, and so is what the CLI prints.
        text = guest.console()
        self.assertEqual(hashlib.sha256(text).hexdigest(), digests[0][1])
        self.assertGreaterEqual(text.count(b"countable"), BYTES // 70)
        logs = run_cli("guest", "logs", "loud", "--endpoint", self.d.unix)
        self.assertEqual(logs.out, text)
        self.assertEqual(self.connect(self.d).call("Guests", "Stats", guest={"name": "loud"})[
            "console_kept_from"], 0)

    def test_typing(self):
        guest = self.guest("keys", steer={END: "hang"})
        guest.console(until=b"guest: ends: hang")
        end = guest.call("ReadConsole", last=0)["end"]
        # The terminal of its console echoes what is typed.
        one, two = os.urandom(16), os.urandom(16)
        self.assertEqual(guest.call("WriteConsole", writer_id=one, offset=0, data=b"hello\n"),
                         {"offset": 6})
        guest.console(end, until=b"hello")
        # The same once more, as after a lost connection: it is not typed again.
        self.assertEqual(guest.call("WriteConsole", writer_id=one, offset=0, data=b"hello\nyou\n"),
                         {"offset": 10})
        text = guest.console(end, until=b"you")
        self.assertEqual(text.count(b"hello"), 1)
        told = guest.ask("WriteConsole", writer_id=two, offset=0, data=b"no\n")
        self.assertEqual((told.code, told.reason), (rpc.PRECONDITION, "WRONG_STATE"), told)
        guest.call("WriteConsole", writer_id=two, offset=0, data=b"mine\n", takes_over=True)
        guest.console(end, until=b"mine")
        told = guest.ask("WriteConsole", writer_id=one, offset=10, data=b"no\n")
        self.assertEqual(told.reason, "WRONG_STATE", told)
        for bad in ({"data": b""}, {"data": b"x" * 4097}, {"writer_id": b"short", "data": b"x"}):
            told = guest.ask("WriteConsole", **{"writer_id": two, "offset": 5, **bad})
            self.assertEqual(told.code, rpc.INVALID, bad)
        run_cli("guest", "console", "keys", "--no-wait", "--take-over", "--endpoint", self.d.unix,
                input=b"from the shell\n")
        guest.console(end, until=b"from the shell")
        guest.call("Kill")
        guest.ended()
        told = guest.ask("WriteConsole", writer_id=two, offset=5, data=b"late\n")
        self.assertEqual(told.reason, "WRONG_STATE", told)


class SmallLog(GuestCase):
    def test_the_oldest_output_is_dropped_and_told(self):
        kept = 1 << 18
        self.d = self.guest_daemon(args=harness.limits(console_memory_bytes=1 << 16,
                                                       console_log_max_bytes=kept))
        guest = self.guest("long", steer={CONSOLE: 4 * kept})
        end = guest.ended()["console_bytes"]
        stats = guest.call("Stats")
        oldest = stats["console_kept_from"]
        self.assertLess(end - oldest, 2 * kept)
        self.assertGreaterEqual(end - oldest, kept // 2)
        piece = guest.call("ReadConsole", offset=0, limit=100)
        self.assertEqual((piece["offset"], piece["skipped"], piece["end"]), (oldest, oldest, end))
        logs = run_cli("guest", "logs", "long", "--endpoint", self.d.unix)
        self.assertEqual(len(logs.out), end - oldest)
        self.assertIn(f"{oldest} bytes", logs.err)
        folder = self.d.data_dir / "guests"
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.assertLess(held, 2 * kept + 65536)


if __name__ == "__main__":
    harness.main()
