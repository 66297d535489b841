"""A host whose disk is full while a guest writes: QEMU pauses it, and a start lets it go on."""
import errno
import re
import shlex
import shutil
import time

import harness
from faults import Faults
from guests import BOOT_S, GuestCase, needs
from machine import BUTTON, END, EVENTS, INTERVAL_MS


@needs("qemu-system-x86_64")
class FullDisk(GuestCase):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        program = self.dir / "qemu"
        words = " ".join(f"{k}={shlex.quote(v)}" for k, v in self.faults.environment().items())
        program.write_text(f"#!/bin/sh\n{words} exec {shutil.which('qemu-system-x86_64')} \"$@\"\n")
        program.chmod(0o755)
        self.d = self.guest_daemon(args=["--qemu", str(program)])

    def fill(self, guest):
        self.faults.fail("write", f"/{guest.image}.", errno.ENOSPC)
        found = guest.wait(lambda g: g["state"] == "paused", "a full disk", BOOT_S)
        self.assertEqual(found["reason"],
                         "a disk failed on the host: No space left on device", found)

    def ticks(self, guest):
        return [int(re.match(r"tick (\d+) of", payload)[1])
                for code, payload in guest.events() if code == 2]

    def test_a_full_disk(self):
        guest = self.guest("full", steer={EVENTS: 100000, INTERVAL_MS: 100, END: "wait",
                                          BUTTON: "ignore"})
        guest.booted()
        self.fill(guest)
        reply = guest.ask("Start")
        self.assertEqual(reply.reason, "GUEST_FAILED", reply)
        self.assertIn("is still paused: a disk failed on the host: No space", reply.message)
        self.assertEqual(guest.get()["state"], "paused")
        self.faults.clear()
        done = harness.run_cli("guest", "start", "full", "--endpoint", self.d.unix)
        self.assertIn("running", done.text)
        last = self.ticks(guest)[-1]
        self.eventually(lambda: self.ticks(guest)[-1] > last + 3, "it goes on", BOOT_S)
        ticks = self.ticks(guest)
        self.assertEqual(ticks, list(range(ticks[0], ticks[0] + len(ticks))), "nothing is lost")
        self.fill(guest)
        began = time.monotonic()
        guest.call("Stop", timeout_ms=3600000)
        self.assertEqual(guest.ended()["ending"], "stopped")
        self.assertLess(time.monotonic() - began, 60)


if __name__ == "__main__":
    harness.main()
