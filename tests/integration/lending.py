"""A daemon that lends images on request (lending_daemon.c), and guests (guest_writer.c)."""
import os
import subprocess

import harness

PROGRAM = os.environ.get("SPB_LENDING_DAEMON", "")
WRITER = os.environ.get("SPB_GUEST_WRITER", "")
READY, READ_ONLY, DAMAGED, UNAVAILABLE, QUARANTINED, ATTACHED = 1, 2, 3, 4, 5, 6
GUEST = "1/web"


class Refused(Exception):
    """A request that failed; the code first."""


class LendingDaemon(harness.Daemon):
    def command(self):
        return [PROGRAM, *super().command()[1:]]

    def spawn(self, command=None):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command or self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, env=harness.environment(**self.env),
                preexec_fn=harness.die_with_parent)

    def expect(self, *images):
        """(tenant, name, guest) of images that live guests have when it starts next."""
        self.env["SPB_EXPECT"] = ",".join(f"{t} {n} {g}" for t, n, g in images)

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline().decode().rstrip("\n")
        verdict, _, text = line.partition(" ")
        if verdict != "ok":
            raise Refused(text or line)
        return text

    def attach(self, name, guest=GUEST, tenant=1):
        self.say("attach", tenant, name, guest)
        return self.hear()

    def detach(self, name, tenant=1):
        """Gives what was found amiss."""
        self.say("detach", tenant, name)
        return self.hear()

    def wait(self, code=0):
        if not self.process.stdin.closed:
            self.process.stdin.close()
        super().wait(code)


class Guest:
    """Holds an image as QEMU does, and changes it as a guest does."""

    def __init__(self, path):
        self.process = subprocess.Popen([WRITER, str(path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE,
                                        preexec_fn=harness.die_with_parent)
        self.first = self.process.stdout.readline().decode().strip()

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline().decode().strip()
        assert line == "ok", line

    def do(self, *words):
        self.say(*words)
        self.hear()

    def raw(self, offset, data):
        """Bytes that mean something to nobody but the test; at most 4,000."""
        self.do("raw", offset, data.hex())

    def end(self):
        harness.end(self.process)


class Case(harness.Case):
    def lender(self, **how):
        data_dir = self.dir / "d"
        data_dir.mkdir(exist_ok=True)
        one = LendingDaemon(data_dir, **how)
        self.addCleanup(one.finish)
        return one.start()

    def guest(self, daemon, name, tenant=1):
        one = Guest(daemon.image_path(tenant, name))
        self.addCleanup(one.end)
        self.assertEqual(one.first, "open")
        return one

    def state(self, c, name):
        image = c.call("Images", "Get", image=name)["image"]
        return image["state"], image["reason"].decode()
