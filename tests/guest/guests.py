"""Guests of a daemon in tests: daemons that end with their guests, images that steer them."""
import contextlib
import functools
import hashlib
import os
import pathlib
import shutil
import signal
import time
import unittest

import harness
from machine import ACCEL, boot_files
from protowire import SCHEMA

STATES, ENDINGS, ACCELS, RESTARTS = (
    {value: name.removeprefix(prefix).lower().replace("_", "-")
     for name, value in SCHEMA.enums[enum].items()}
    for enum, prefix in (("GuestState", "GUEST_STATE_"), ("GuestEnding", "GUEST_ENDING_"),
                         ("GuestAccel", "GUEST_ACCEL_"), ("GuestRestart", "GUEST_RESTART_")))
BLOCKS = 4096
BOOT_S = 180  # for what takes some seconds here unless the machine is very busy
ENDED = ("stopped", "crashed", "lost")


def number(names, name):
    return next(value for value, known in names.items() if known == name)


def alive(pid):
    """Whether the process runs; one that ended and that nobody has taken note of does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@functools.cache
def boot_hashes():
    """SHA-256 of kernel and initrd."""
    return tuple(hashlib.sha256(path.read_bytes()).digest() for path in boot_files())


def end_qemus(folder):
    """Those that the test's daemon started and left: by the pidfiles of its run directories, and
    only where the process works on that folder's images."""
    for path in pathlib.Path(folder).rglob("run/*/p"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            if os.fspath(folder).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


class Guest:
    """One guest of a daemon, through a connection of its own: for one thread at a time."""

    def __init__(self, case, daemon, name, image):
        self.case, self.daemon, self.name, self.image = case, daemon, name, image
        self.connection = case.connect(daemon)

    def ask(self, method, **fields):
        return self.connection.ask("Guests", method, {"guest": {"name": self.name}, **fields})

    def call(self, method, **fields):
        return self.connection.call("Guests", method, guest={"name": self.name}, **fields)

    def reconnect(self):
        self.connection.close()
        self.connection = self.case.connect(self.daemon)

    def get(self):
        return self.readable(self.call("Get")["guest"])

    @staticmethod
    def readable(found):
        return {**found, "state": STATES[found["state"]], "ending": ENDINGS[found["ending"]],
                "accel": ACCELS[found["accel"]], "reason": found["reason"].decode()}

    def start(self):
        return self.readable(self.call("Start")["guest"])

    def wait(self, condition, what, seconds=BOOT_S):
        """Until condition(guest) holds, as Wait tells of its changes."""
        deadline, found = time.monotonic() + seconds, self.get()
        while not condition(found):
            left = deadline - time.monotonic()
            self.case.assertGreater(left, 0, f"{self.name}: {what}: {found}")
            found = self.readable(self.call("Wait", known_version=found["version"],
                                            wait_ms=int(min(left, 20) * 1000) + 1)["guest"])
        return found

    def ended(self, seconds=BOOT_S):
        return self.wait(lambda g: g["state"] in ENDED, "its end", seconds)

    def booted(self, boots=1, seconds=BOOT_S):
        """Until its event "boot N" is there, as a watch tells."""
        return self.event(lambda e: e["code"] == 1 and e["payload"] == b"boot %d" % boots,
                          f"boot {boots}", seconds)

    def event(self, condition, what, seconds=BOOT_S):
        """The first event for which the condition holds, from the oldest one on."""
        deadline, cursor = time.monotonic() + seconds, b""
        while True:
            found = self.get()
            told = self.connection.call("Events", "Watch", image=self.image, cursor=cursor, start=2,
                                        wait_ms=5000)
            cursor = told["cursor"]
            for event in told["events"]:
                if condition(event):
                    return event
            # Once it has ended there is no more to come than was there.
            if time.monotonic() > deadline or (found["state"] in ENDED and not told["events"]):
                printed = self.call("ReadConsole", last=2000)["data"]
                self.case.fail(f"{self.name}: {what}: {found}; it printed {printed!r}")

    def events(self):
        return [(e["code"], e["payload"].decode())
                for e in self.connection.events(self.image)["events"]]

    def console(self, offset=0, until=None, seconds=BOOT_S):
        """All from the offset on: to the end of its run, or until these bytes have come."""
        deadline, out = time.monotonic() + seconds, bytearray()
        while True:
            self.case.assertLess(time.monotonic(), deadline, f"{self.name} printed {out[-500:]!r}")
            piece = self.call("ReadConsole", offset=offset + len(out), limit=1 << 18, wait_ms=5000)
            self.case.assertEqual((piece["offset"], piece["skipped"]), (offset + len(out), 0))
            out += piece["data"]
            if until is not None and until in out:
                return bytes(out)
            if not piece["data"] and STATES[piece["state"]] in ENDED:
                self.case.assertIsNone(until, out[-500:])
                return bytes(out)


class GuestCase(harness.Case):
    """Its daemon is self.d; self.guest() makes one on an image of its own."""

    def setUp(self):
        super().setUp()
        self.kernel, self.initrd = boot_files()

    def guest_daemon(self, name="d", **how):
        daemon = self.daemon(name, **how)
        # Cleanups run backwards: this one before the daemon is told to end.
        self.addCleanup(self.remove_guests, daemon)
        with daemon.connect() as c:
            self.put_artifacts(daemon, c)
        return daemon

    def put_artifacts(self, daemon, connection):
        for path in (self.kernel, self.initrd):
            harness.run_cli("artifact", "put", path, "--endpoint", daemon.unix)
        return connection

    def remove_guests(self, daemon):
        try:
            if daemon.running():
                with daemon.connect() as c:
                    for one in c.call("Guests", "List")["guests"]:
                        c.ask("Guests", "Delete", {"guest": {"name": one["name"]}, "force": True})
        finally:
            end_qemus(daemon.data_dir)

    def image(self, name, daemon=None, **params):
        """params: p10="panic" and so on."""
        with (daemon or self.d).connect() as c:
            c.create(name, blocks=BLOCKS)
            for key, value in params.items():
                c.put(name, int(key[1:]), str(value))
        return name

    def config(self, *images, **more):
        kernel, initrd = boot_hashes()
        restart = more.pop("restart", "never")
        return {"images": [{"name": i} for i in images], "kernel": {"sha256": kernel},
                "initrd": {"sha256": initrd}, "append": "quiet",
                "accel": number(ACCELS, ACCEL), "restart": number(RESTARTS, restart), **more}

    def guest(self, name, daemon=None, steer=None, start=True, **config):
        """A guest on an image of its name, which is made with the parameters of steer."""
        daemon = daemon or self.d
        self.image(name, daemon, **{f"p{k}": v for k, v in (steer or {}).items()})
        one = Guest(self, daemon, name, name)
        one.call("Create", config=self.config(name, **config))
        if start:
            one.start()
        return one

    def refused_guest(self, code, reason, guest, method, **fields):
        reply = guest.ask(method, **fields)
        self.assertEqual((reply.code, reply.reason), (code, reason), reply)
        return reply.message


class SharedGuests(GuestCase):
    """One daemon for all tests of the class."""

    ARGS = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        boot_files()
        cls.d = harness.SharedDaemon(args=cls.ARGS)

    @classmethod
    def tearDownClass(cls):
        try:
            cls.remove_guests(cls, cls.d)
        finally:
            cls.d.finish()
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        with self.d.connect() as c:
            self.put_artifacts(self.d, c)


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"no {program}")
